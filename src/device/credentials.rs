//! The device's half: what `lowband device export` gives, and what a client reads.
//!
//! As a file it is TOML. As one line it is `lowband:` and base64url of a CBOR map with four bytes of its SHA-256 behind it, so that a line
//! that was cut off or mistyped is told from one that is whole. docs/devices.md has the tables of both.

use std::fmt::Write;

use base64ct::Encoding;
use ciborium::Value;
use serde::Deserialize;
use sha2::Digest;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Device;
use super::Edhoc;
use super::EdhocHalf;
use super::Keys;
use super::Name;
use super::Oscore;
use super::Psk;
use super::Secret;
use super::Security;
use super::SecurityError;
use super::security::hex;
use crate::security::edhoc::Credential;
use crate::security::edhoc::PublicKey;

/// What a device needs to speak with its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its name at the gateway.
    pub name: Name,
    /// The gateway: `HOST` or `HOST:PORT`, where that was said.
    pub gateway: Option<String>,
    /// The link between them, by the name of its profile.
    pub link: Option<String>,
    /// Its keys.
    pub half: Half,
}

/// A device's keys, as it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Half {
    /// A security context of OSCORE. `device_id` is the Sender ID here, `gateway_id` the Recipient ID.
    Oscore(Oscore),
    /// A static key by which keys for OSCORE are agreed on.
    Edhoc(EdhocHalf),
    /// A shared key for DTLS.
    DtlsPsk(Psk),
}

/// Where a value stands in the CBOR map.
mod label {
    pub(super) const NAME: i128 = 0;
    pub(super) const GATEWAY: i128 = 1;
    pub(super) const LINK: i128 = 2;
    pub(super) const SECRET: i128 = 3;
    pub(super) const SALT: i128 = 4;
    pub(super) const DEVICE_ID: i128 = 5;
    pub(super) const GATEWAY_ID: i128 = 6;
    pub(super) const ALGORITHM: i128 = 7;
    pub(super) const HKDF: i128 = 8;
    pub(super) const IDENTITY: i128 = 9;
    pub(super) const KEY: i128 = 10;
    pub(super) const KID: i128 = 11;
    pub(super) const PRIVATE: i128 = 12;
    pub(super) const GATEWAY_KID: i128 = 13;
    pub(super) const GATEWAY_KEY: i128 = 14;
}

impl Credentials {
    /// What the line begins with.
    pub const SCHEME: &'static str = "lowband:";
    /// The longest line or file that is read.
    pub const LONGEST: usize = 4096;
    const CHECK: usize = 4;

    /// A device's half: of the keys that it has not used yet, where it was given such, else of those that it uses. `own` is what devices
    /// that agree on keys know the gateway by.
    ///
    /// # Errors
    /// It is revoked, or its keys are a certificate's, which nobody but itself has.
    pub fn of(
        device: &Device,
        gateway: Option<String>,
        own: Option<&Credential>,
    ) -> Result<Self, CredentialsError> {
        let Some(Keys { security, .. }) = device.next.as_ref().or(device.keys.as_ref()) else {
            return Err(CredentialsError::Revoked);
        };
        let half = match security {
            Security::Oscore(oscore) => Half::Oscore(oscore.clone()),
            Security::Edhoc(Edhoc { credential, private }) => Half::Edhoc(EdhocHalf {
                kid: credential.kid().to_vec(),
                private: private.clone(),
                gateway: own.cloned().ok_or(CredentialsError::NoGateway)?,
            }),
            Security::DtlsPsk(psk) => Half::DtlsPsk(psk.clone()),
            Security::DtlsCertificate(_) => return Err(CredentialsError::Certificate),
        };
        Ok(Self { name: device.name.clone(), gateway, link: device.link.clone(), half })
    }

    /// Reads a file or a line, whichever it is.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub fn read(text: &str) -> Result<Self, CredentialsError> {
        if text.len() > Self::LONGEST {
            return Err(CredentialsError::TooLong);
        }
        match text.trim().strip_prefix(Self::SCHEME) {
            Some(rest) => Self::read_line(rest),
            None => Self::read_file(text),
        }
    }

    /// One line of text, as for a QR code.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut map: Vec<(i128, Value)> = vec![(label::NAME, self.name.as_str().into())];
        map.extend(self.gateway.as_deref().map(|gateway| (label::GATEWAY, gateway.into())));
        map.extend(self.link.as_deref().map(|link| (label::LINK, link.into())));
        match &self.half {
            Half::Oscore(oscore) => {
                map.push((label::SECRET, oscore.secret.expose().into()));
                map.push((label::SALT, oscore.salt.expose().into()));
                map.push((label::DEVICE_ID, oscore.device_id.as_slice().into()));
                map.push((label::GATEWAY_ID, oscore.gateway_id.as_slice().into()));
                // Those that RFC 8613 §3.2 has by default go without saying.
                if oscore.algorithm != Oscore::AES_CCM_16_64_128 {
                    map.push((label::ALGORITHM, oscore.algorithm.into()));
                }
                if oscore.hkdf != Oscore::HKDF_SHA_256 {
                    map.push((label::HKDF, oscore.hkdf.into()));
                }
            }
            Half::Edhoc(EdhocHalf { kid, private, gateway }) => {
                map.push((label::KID, kid.as_slice().into()));
                map.extend(private.as_ref().map(|private| (label::PRIVATE, private.expose().into())));
                map.push((label::GATEWAY_KID, gateway.kid().into()));
                map.push((label::GATEWAY_KEY, gateway.key().to_sec1().as_slice().into()));
            }
            Half::DtlsPsk(psk) => {
                map.push((label::IDENTITY, psk.identity.as_str().into()));
                map.push((label::KEY, psk.key.expose().into()));
            }
        }
        let integer = |number: i128| Value::Integer(number.try_into().expect("labels are small"));
        let map = Value::Map(map.into_iter().map(|(label, value)| (integer(label), value)).collect());
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        ciborium::into_writer(&map, &mut *bytes).expect("a vector takes all that is written");
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        let encoded = Zeroizing::new(base64ct::Base64UrlUnpadded::encode_string(&bytes));
        Zeroizing::new(format!("{}{}", Self::SCHEME, *encoded))
    }

    fn read_line(text: &str) -> Result<Self, CredentialsError> {
        let bytes = base64ct::Base64UrlUnpadded::decode_vec(text).map_err(|_| CredentialsError::Line)?;
        let bytes = Zeroizing::new(bytes);
        let at = bytes.len().checked_sub(Self::CHECK).ok_or(CredentialsError::Line)?;
        let (map, sum) = bytes.split_at(at);
        if sum != check(map) {
            return Err(CredentialsError::Line);
        }
        let map: Value = ciborium::from_reader(map).map_err(|_| CredentialsError::Line)?;
        Map(map.into_map().map_err(|_| CredentialsError::Line)?).credentials()
    }

    /// A file, with what it is in its head.
    pub fn to_file(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(text, "{key} = {}", *Zeroizing::new(quoted(value)));
        };
        line("name", self.name.as_str());
        if let Some(gateway) = &self.gateway {
            line("gateway", gateway);
        }
        if let Some(link) = &self.link {
            line("link", link);
        }
        match &self.half {
            Half::Oscore(oscore) => {
                let _ = writeln!(
                    text,
                    "\n[oscore]\n# As the device has them: its own id is the Sender ID.\nsender-id = \"{}\"\nrecipient-id = \"{}\"\n\
                     master-secret = \"{}\"\nmaster-salt = \"{}\"\n# By their COSE numbers: AES-CCM-16-64-128 and HKDF SHA-256.\n\
                     algorithm = {}\nhkdf = {}",
                    hex::encode(&oscore.device_id),
                    hex::encode(&oscore.gateway_id),
                    *Zeroizing::new(hex::encode(oscore.secret.expose())),
                    *Zeroizing::new(hex::encode(oscore.salt.expose())),
                    oscore.algorithm,
                    oscore.hkdf,
                );
            }
            Half::Edhoc(half) => text.push_str(&edhoc_table(half)),
            Half::DtlsPsk(psk) => {
                let _ = writeln!(
                    text,
                    "\n[dtls-psk]\nidentity = {}\n# In hexadecimal.\nkey = \"{}\"",
                    quoted(&psk.identity),
                    *Zeroizing::new(hex::encode(psk.key.expose())),
                );
            }
        }
        let head = "# A device of lowband: its half of the keys. Whoever has this file is the device. Never in two places at once.\n";
        Zeroizing::new(format!("{head}{}", *text))
    }

    fn read_file(text: &str) -> Result<Self, CredentialsError> {
        // What toml says of a file has a part of it in it, which may be a key.
        let file: File = toml::from_str(text).map_err(|_| CredentialsError::File)?;
        let half = match (file.oscore, file.edhoc, file.dtls_psk) {
            (Some(oscore), None, None) => Half::Oscore(Oscore {
                secret: bytes(oscore.master_secret)?,
                salt: bytes(oscore.master_salt)?,
                device_id: hex::decode(&oscore.sender_id).ok_or(CredentialsError::File)?,
                gateway_id: hex::decode(&oscore.recipient_id).ok_or(CredentialsError::File)?,
                algorithm: oscore.algorithm,
                hkdf: oscore.hkdf,
            }),
            (None, Some(edhoc), None) => Half::Edhoc(edhoc.half()?),
            (None, None, Some(psk)) => Half::DtlsPsk(Psk { identity: psk.identity, key: bytes(psk.key)? }),
            _ => return Err(CredentialsError::File),
        };
        let name = file.name.parse().map_err(|_| CredentialsError::File)?;
        Self { name, gateway: file.gateway, link: file.link, half }.checked()
    }

    fn checked(self) -> Result<Self, CredentialsError> {
        let security = match &self.half {
            Half::Oscore(oscore) => Security::Oscore(oscore.clone()),
            Half::DtlsPsk(psk) => Security::DtlsPsk(psk.clone()),
            Half::Edhoc(half) => {
                half.check()?;
                return Ok(self);
            }
        };
        security.check()?;
        Ok(self)
    }
}

fn check(bytes: &[u8]) -> [u8; Credentials::CHECK] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|place| digest.get(place).copied().unwrap_or_default())
}

fn bytes(text: String) -> Result<Secret, CredentialsError> {
    hex::decode(&Zeroizing::new(text)).map(Secret::new).ok_or(CredentialsError::File)
}

/// The CBOR map of a line, taken apart.
struct Map(Vec<(Value, Value)>);

impl Map {
    fn credentials(mut self) -> Result<Credentials, CredentialsError> {
        let name = self.text(label::NAME)?.ok_or(CredentialsError::Line)?;
        let name = name.parse().map_err(|_| CredentialsError::Line)?;
        let gateway = self.text(label::GATEWAY)?;
        let link = self.text(label::LINK)?;
        let half = match (self.bytes(label::SECRET)?, self.bytes(label::KID)?) {
            (None, Some(kid)) => Half::Edhoc(EdhocHalf {
                kid,
                private: self.bytes(label::PRIVATE)?.map(Secret::new),
                gateway: gateway_of(
                    &self.bytes(label::GATEWAY_KID)?.ok_or(CredentialsError::Line)?,
                    &self.bytes(label::GATEWAY_KEY)?.ok_or(CredentialsError::Line)?,
                )?,
            }),
            (Some(secret), None) => Half::Oscore(Oscore {
                secret: Secret::new(secret),
                salt: Secret::new(self.bytes(label::SALT)?.unwrap_or_default()),
                device_id: self.bytes(label::DEVICE_ID)?.ok_or(CredentialsError::Line)?,
                gateway_id: self.bytes(label::GATEWAY_ID)?.ok_or(CredentialsError::Line)?,
                algorithm: self.number(label::ALGORITHM)?.unwrap_or(Oscore::AES_CCM_16_64_128),
                hkdf: self.number(label::HKDF)?.unwrap_or(Oscore::HKDF_SHA_256),
            }),
            (Some(_), Some(_)) => return Err(CredentialsError::Newer),
            (None, None) => Half::DtlsPsk(Psk {
                identity: self.text(label::IDENTITY)?.ok_or(CredentialsError::Line)?,
                key: Secret::new(self.bytes(label::KEY)?.ok_or(CredentialsError::Line)?),
            }),
        };
        // What is not known may be what makes the keys others.
        if !self.0.is_empty() {
            return Err(CredentialsError::Newer);
        }
        Credentials { name, gateway, link, half }.checked()
    }

    fn take(&mut self, label: i128) -> Option<Value> {
        let is = |(key, _): &(Value, Value)| key.as_integer().is_some_and(|key| i128::from(key) == label);
        let place = self.0.iter().position(is)?;
        Some(self.0.swap_remove(place).1)
    }

    fn text(&mut self, label: i128) -> Result<Option<String>, CredentialsError> {
        self.take(label).map(|value| value.into_text().map_err(|_| CredentialsError::Line)).transpose()
    }

    fn bytes(&mut self, label: i128) -> Result<Option<Vec<u8>>, CredentialsError> {
        self.take(label).map(|value| value.into_bytes().map_err(|_| CredentialsError::Line)).transpose()
    }

    fn number(&mut self, label: i128) -> Result<Option<i32>, CredentialsError> {
        let read = |value: Value| i32::try_from(i128::from(value.as_integer()?)).ok();
        self.take(label).map(|value| read(value).ok_or(CredentialsError::Line)).transpose()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    name: String,
    gateway: Option<String>,
    link: Option<String>,
    oscore: Option<OscoreTable>,
    edhoc: Option<EdhocTable>,
    dtls_psk: Option<PskTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct OscoreTable {
    sender_id: String,
    recipient_id: String,
    master_secret: String,
    #[serde(default)]
    master_salt: String,
    #[serde(default = "default_algorithm")]
    algorithm: i32,
    #[serde(default = "default_hkdf")]
    hkdf: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct EdhocTable {
    kid: String,
    private_key: Option<String>,
    gateway_kid: String,
    gateway_key: String,
}

impl EdhocTable {
    fn half(self) -> Result<EdhocHalf, CredentialsError> {
        let read = |text: &str| hex::decode(text).ok_or(CredentialsError::File);
        Ok(EdhocHalf {
            kid: read(&self.kid)?,
            private: self.private_key.map(bytes).transpose()?,
            gateway: gateway_of(&read(&self.gateway_kid)?, &read(&self.gateway_key)?)?,
        })
    }
}

fn edhoc_table(half: &EdhocHalf) -> Zeroizing<String> {
    let private = match &half.private {
        Some(private) => {
            let private = Zeroizing::new(hex::encode(private.expose()));
            Zeroizing::new(format!("private-key = \"{}\"\n", *private))
        }
        None => Zeroizing::new("# The device has made it itself: private-key = \"…\"\n".to_owned()),
    };
    Zeroizing::new(format!(
        "\n[edhoc]\n# Method 3, cipher suite 2: keys of P-256, in hexadecimal.\nkid = \"{}\"\n{}gateway-kid = \"{}\"\ngateway-key = \"{}\"\n",
        hex::encode(&half.kid),
        *private,
        hex::encode(half.gateway.kid()),
        hex::encode(&half.gateway.key().to_sec1()),
    ))
}

fn gateway_of(kid: &[u8], key: &[u8]) -> Result<Credential, CredentialsError> {
    let key = PublicKey::from_sec1(key).map_err(|_| SecurityError::PublicKey)?;
    Ok(Edhoc::credential(kid, key)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PskTable {
    identity: String,
    key: String,
}

fn default_algorithm() -> i32 {
    Oscore::AES_CCM_16_64_128
}

fn default_hkdf() -> i32 {
    Oscore::HKDF_SHA_256
}

/// No credentials. Says nothing of what stands there, which may be a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The device is revoked.
    #[error("the device is revoked")]
    Revoked,
    /// The device's half is a private key that only it has.
    #[error("the key of a certificate never leaves its device: there is nothing to export")]
    Certificate,
    /// It agrees on keys with a gateway that has none itself.
    #[error("the gateway has no key for EDHOC")]
    NoGateway,
    /// More than any device has.
    #[error("credentials are shorter than {} bytes", Credentials::LONGEST)]
    TooLong,
    /// The line is not one, or not whole.
    #[error("the line is not whole: copy it again, from {} to its end", Credentials::SCHEME)]
    Line,
    /// There is more in it than is known.
    #[error("the line was made by a newer lowband")]
    Newer,
    /// The file is none.
    #[error("the file is none that `lowband device export` writes")]
    File,
    /// It holds keys that cannot be.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oscore() -> Credentials {
        Credentials {
            name: "buoy".parse().unwrap(),
            gateway: Some("gateway.example:5683".into()),
            link: Some("hf-100".into()),
            half: Half::Oscore(Oscore {
                secret: Secret::new((0..16).collect::<Vec<u8>>()),
                salt: Secret::new((16..24).collect::<Vec<u8>>()),
                device_id: vec![1],
                gateway_id: Vec::new(),
                algorithm: Oscore::AES_CCM_16_64_128,
                hkdf: Oscore::HKDF_SHA_256,
            }),
        }
    }

    fn psk() -> Credentials {
        let key = Secret::new("GRobHB0eHyAhIiMkJSYnKCkqKywtLi8w");
        let half = Half::DtlsPsk(Psk { identity: "1".into(), key });
        Credentials { half, gateway: None, link: None, ..oscore() }
    }

    /// RFC 9529 §3.1: SK_I, and the public key of CRED_R.
    fn edhoc() -> Credentials {
        let hex = |text: &str| hex::decode(text).unwrap();
        let half = Half::Edhoc(EdhocHalf {
            kid: vec![0],
            private: Some(Secret::new(hex(
                "fb13adeb6518cee5f88417660841142e830a81fe334380a953406a1305e8706b",
            ))),
            gateway: gateway_of(
                &[0x20],
                &hex("02bbc34960526ea4d32e940cad2a234148ddc21791a12afbcbac93622046dd44f0"),
            )
            .unwrap(),
        });
        Credentials { half, gateway: None, link: None, ..oscore() }
    }

    #[test]
    fn edhoc_half_is_a_key_of_the_device_and_one_of_the_gateway_and_both_fit() {
        let credentials = edhoc();
        let Half::Edhoc(half) = &credentials.half else { panic!("no EDHOC") };
        assert_eq!(half.identity().unwrap().credential().kid(), [0]);
        assert_eq!(
            *half.gateway.key().y(),
            *hex::decode("4519e257236b2a0ce2023f0931f1f386ca7afda64fcde0108c224c51eabf6072").unwrap()
        );
        assert!(
            !format!("{credentials:?}").contains("fb13") && !format!("{credentials:?}").contains("251, 19")
        );
        let file = credentials.to_file();
        let wrong = |from: &str, to: &str| Credentials::read(&file.replace(from, to)).unwrap_err();
        assert_eq!(wrong("gateway-kid = \"20\"", "gateway-kid = \"00\""), SecurityError::SameIds.into());
        assert_eq!(wrong("kid = \"00\"", "kid = \"\""), SecurityError::Kid(0).into());
        assert_eq!(wrong("private-key = \"fb", "private-key = \""), SecurityError::PrivateKey.into());
        assert_eq!(wrong("gateway-key = \"02", "gateway-key = \"09"), SecurityError::PublicKey.into());
        assert_eq!(wrong("gateway-key", "key"), CredentialsError::File);
    }

    #[test]
    fn line_is_as_documented() {
        let line = oscore().to_line();
        assert_eq!(
            *line,
            "lowband:pwBkYnVveQF0Z2F0ZXdheS5leGFtcGxlOjU2ODMCZmhmLTEwMANQAAECAwQFBgcICQoLDA0ODwRIEBESExQVFhcFQQEGQGdD7is"
        );
    }

    #[test]
    fn both_forms_are_read_as_they_are_written() {
        for credentials in [oscore(), psk(), edhoc()] {
            assert_eq!(Credentials::read(&credentials.to_line()), Ok(credentials.clone()));
            assert_eq!(
                Credentials::read(&format!("\n {} \n", *credentials.to_line())),
                Ok(credentials.clone())
            );
            assert_eq!(Credentials::read(&credentials.to_file()), Ok(credentials.clone()));
        }
    }

    #[test]
    fn every_beginning_of_a_line_is_refused_and_every_other_character() {
        let line = oscore().to_line();
        for length in 0..line.len() {
            assert!(Credentials::read(&line[..length]).is_err(), "{length}");
        }
        for place in Credentials::SCHEME.len()..line.len() {
            let mut changed = line.as_bytes().to_vec();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(Credentials::read(std::str::from_utf8(&changed).unwrap()).is_err(), "{place}");
        }
    }

    #[test]
    fn line_with_more_in_it_is_not_half_understood() {
        let line = oscore().to_line();
        let mut bytes = base64ct::Base64UrlUnpadded::decode_vec(&line[8..]).unwrap();
        bytes.truncate(bytes.len() - 4);
        bytes[0] += 1;
        bytes.extend_from_slice(&[0x18, 99, 1]);
        let sum = check(&bytes);
        bytes.extend_from_slice(&sum);
        let line = format!("lowband:{}", base64ct::Base64UrlUnpadded::encode_string(&bytes));
        assert_eq!(Credentials::read(&line), Err(CredentialsError::Newer));
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_repeated() {
        let file = oscore().to_file();
        for bad in [
            file.replace("name = \"buoy\"", "name = \"bu oy\""),
            file.replace("master-secret = \"00", "master-secret = \"0"),
            file.replace("sender-id = \"01\"", "sender-id = 1"),
            file.replace("algorithm", "alg"),
            file.replace("[oscore]", "[other]"),
            format!("{}\n[dtls-psk]\nidentity = \"1\"\nkey = \"00\"", *file),
            String::new(),
            "syt_token".into(),
        ] {
            let error = Credentials::read(&bad).unwrap_err();
            assert_eq!(error, CredentialsError::File, "{bad}");
        }
        let short = file.replace("master-secret = \"00", "master-secret = \"");
        assert_eq!(Credentials::read(&short), Err(SecurityError::SecretLength(15).into()));
        assert_eq!(Credentials::read(&"a".repeat(5_000)), Err(CredentialsError::TooLong));
    }
}
