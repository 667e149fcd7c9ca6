//! The keys of a device: for OSCORE (RFC 8613), given or agreed on by EDHOC (RFC 9528), DTLS with a shared key (RFC 4279), or DTLS with a certificate.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use super::Edhoc;
use super::Secret;
use crate::security::edhoc::PublicKey;
use crate::security::oscore;
use crate::security::oscore::Algorithm;
use crate::security::oscore::Hkdf;
use crate::security::oscore::Parameters;

/// How a device's messages are protected, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// OSCORE: no handshake, for radio links.
    Oscore(Oscore),
    /// OSCORE, with keys that are agreed on by EDHOC.
    Edhoc(Edhoc),
    /// DTLS with a key that both have.
    DtlsPsk(Psk),
    /// DTLS with the device's certificate.
    DtlsCertificate(Pin),
}

impl Security {
    /// What kind it is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Oscore(_) => "oscore",
            Self::Edhoc(_) => "edhoc",
            Self::DtlsPsk(_) => "dtls-psk",
            Self::DtlsCertificate(_) => "dtls-certificate",
        }
    }

    /// Checks lengths and numbers.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self) -> Result<(), SecurityError> {
        match self {
            Self::Oscore(oscore) => oscore.check(),
            Self::Edhoc(edhoc) => edhoc.check(),
            Self::DtlsPsk(psk) => psk.check(),
            Self::DtlsCertificate(_) => Ok(()),
        }
    }
}

/// What kind of keys a device is to get. Keys are made by the gateway, but for a certificate's and those whose public half is given, which
/// stay with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`Security::Oscore`].
    Oscore,
    /// [`Security::Edhoc`], of a device that has made its key itself where its public half is given.
    Edhoc(Option<PublicKey>),
    /// [`Security::DtlsPsk`].
    DtlsPsk,
    /// The same with a key of 16 bytes that are no text, for clients that take no longer one.
    DtlsShortPsk,
    /// [`Security::DtlsCertificate`].
    DtlsCertificate(Pin),
}

/// The parameters of a security context (RFC 8613 §3.1), as the gateway has them. There is no ID Context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oscore {
    /// The Master Secret.
    pub secret: Secret,
    /// The Master Salt.
    pub salt: Secret,
    /// The device's Sender ID, which it names in its requests (`kid`): unique among all that the gateway accepts, so that one context
    /// is tried for a message and no more.
    #[serde(with = "hex")]
    pub device_id: Vec<u8>,
    /// The gateway's Sender ID. It does not cross the link.
    #[serde(with = "hex")]
    pub gateway_id: Vec<u8>,
    /// The AEAD algorithm by its COSE number (RFC 9053 §4).
    pub algorithm: i32,
    /// The HKDF algorithm by its COSE number (RFC 9053 §5.1).
    pub hkdf: i32,
}

impl Oscore {
    /// AES-CCM-16-64-128, mandatory to implement (RFC 8613 §3.2).
    pub const AES_CCM_16_64_128: i32 = 10;
    /// HKDF SHA-256, as above.
    pub const HKDF_SHA_256: i32 = -10;
    /// The length of a Master Secret.
    pub const SECRET: usize = 16;
    /// The longest salt, device's id and gateway's id.
    const LONGEST: (usize, usize, usize) = (32, 2, 7);

    fn check(&self) -> Result<(), SecurityError> {
        let (salt, device_id, gateway_id) = Self::LONGEST;
        if self.secret.expose().len() != Self::SECRET {
            return Err(SecurityError::SecretLength(self.secret.expose().len()));
        }
        if self.salt.expose().len() > salt {
            return Err(SecurityError::SaltLength(self.salt.expose().len()));
        }
        if self.device_id.len() > device_id || self.gateway_id.len() > gateway_id {
            return Err(SecurityError::IdLength(self.device_id.len().max(self.gateway_id.len())));
        }
        // §3.3: with one id for both, both would seal with the same key and nonce.
        if self.device_id == self.gateway_id {
            return Err(SecurityError::SameIds);
        }
        if self.algorithm != Self::AES_CCM_16_64_128 {
            return Err(SecurityError::Algorithm(self.algorithm));
        }
        if self.hkdf != Self::HKDF_SHA_256 {
            return Err(SecurityError::Algorithm(self.hkdf));
        }
        Ok(())
    }

    /// What the device's context is derived from; the gateway's is from the same, mirrored. None where an algorithm is not known.
    pub fn parameters(&self) -> Option<Parameters> {
        Some(Parameters {
            master_salt: oscore::Secret::from(self.salt.expose().to_vec()),
            algorithm: Algorithm::try_from(self.algorithm).ok()?,
            hkdf: Hkdf::try_from(self.hkdf).ok()?,
            ..Parameters::new(
                oscore::Secret::from(self.secret.expose().to_vec()),
                &self.device_id,
                &self.gateway_id,
            )
        })
    }
}

/// A key that both ends have, and the name that the device gives it in its handshake, in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Psk {
    /// The identity (RFC 4279 §2): printable, and unique among all that the gateway accepts.
    pub identity: String,
    /// The key: 16 to 32 bytes. Those made here are printable, since there are programs that take keys as text alone, or short, since
    /// there are others that take 16 bytes at most.
    pub key: Secret,
}

impl Psk {
    /// As many bytes as an implementation has to take that is as small as can be: those of an AES-128 key.
    pub const SHORT: usize = 16;

    fn check(&self) -> Result<(), SecurityError> {
        let length = self.key.expose().len();
        if !(Self::SHORT..=32).contains(&length) {
            return Err(SecurityError::KeyLength(length));
        }
        let is_plain = self.identity.bytes().all(|byte| byte.is_ascii_graphic());
        if self.identity.is_empty() || self.identity.len() > 64 || !is_plain {
            return Err(SecurityError::Identity(self.identity.chars().take(80).collect()));
        }
        Ok(())
    }
}

/// The SHA-256 fingerprint of a certificate in DER: this one is the device's, whoever has issued it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin(pub [u8; 32]);

impl FromStr for Pin {
    type Err = SecurityError;

    /// Reads 64 hexadecimal digits, with or without colons, as `openssl x509 -fingerprint -sha256` prints them.
    fn from_str(text: &str) -> Result<Self, SecurityError> {
        let digits: String = text.trim().chars().filter(|c| *c != ':').collect();
        let bytes = hex::decode(&digits).ok_or(SecurityError::Pin)?;
        bytes.try_into().map(Self).map_err(|_| SecurityError::Pin)
    }
}

impl TryFrom<String> for Pin {
    type Error = SecurityError;

    fn try_from(text: String) -> Result<Self, SecurityError> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// Keys that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// The Master Secret has another length.
    #[error("an OSCORE master secret has 16 bytes, not {0}")]
    SecretLength(usize),
    /// The Master Salt is too long.
    #[error("an OSCORE master salt has 32 bytes at most, not {0}")]
    SaltLength(usize),
    /// An id is too long.
    #[error("an OSCORE id of {0} bytes is too long")]
    IdLength(usize),
    /// An EDHOC id is empty, or too long.
    #[error("an EDHOC key id has 1 to {max} bytes, not {0}", max = crate::security::edhoc::Credential::LONGEST_KID)]
    Kid(usize),
    /// A private key is none, or another's.
    #[error("the private key is none of P-256, or belongs to another public key")]
    PrivateKey,
    /// A public key is none.
    #[error("the public key is none of P-256")]
    PublicKey,
    /// Both ends have the same id.
    #[error("device and gateway have the same id")]
    SameIds,
    /// An algorithm that is not known.
    #[error("algorithm {0} is not known")]
    Algorithm(i32),
    /// The key is too short or too long.
    #[error("a pre-shared key has 16 to 32 bytes, not {0}")]
    KeyLength(usize),
    /// The identity is not text of 1 to 64 printable characters.
    #[error("{0:?} is no PSK identity: 1 to 64 printable ASCII characters")]
    Identity(String),
    /// Not 64 hexadecimal digits.
    #[error("a certificate's fingerprint is 64 hexadecimal digits (SHA-256)")]
    Pin,
}

/// Hexadecimal text, both ways; for serde too.
pub(super) mod hex {
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serializer;
    use serde::de::Error;

    pub(in crate::device) fn encode(bytes: &[u8]) -> String {
        base16ct::lower::encode_string(bytes)
    }

    pub(in crate::device) fn decode(text: &str) -> Option<Vec<u8>> {
        if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        text.as_bytes().chunks(2).map(byte).collect()
    }

    pub(in crate::device) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub(in crate::device) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).ok_or_else(|| D::Error::custom("hexadecimal digits, two for each byte"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oscore() -> Oscore {
        Oscore {
            secret: Secret::new([1; 16]),
            salt: Secret::new([2; 8]),
            device_id: vec![1],
            gateway_id: Vec::new(),
            algorithm: Oscore::AES_CCM_16_64_128,
            hkdf: Oscore::HKDF_SHA_256,
        }
    }

    #[test]
    fn keys_that_cannot_be_are_named() {
        let check = |security: Security| security.check();
        assert_eq!(check(Security::Oscore(oscore())), Ok(()));
        let wrong = |change: fn(&mut Oscore)| {
            let mut oscore = oscore();
            change(&mut oscore);
            Security::Oscore(oscore).check().unwrap_err()
        };
        assert_eq!(wrong(|keys| keys.secret = Secret::new([1; 15])), SecurityError::SecretLength(15));
        assert_eq!(wrong(|keys| keys.salt = Secret::new([1; 33])), SecurityError::SaltLength(33));
        assert_eq!(wrong(|keys| keys.device_id = vec![1; 3]), SecurityError::IdLength(3));
        assert_eq!(wrong(|keys| keys.gateway_id = vec![1]), SecurityError::SameIds);
        assert_eq!(wrong(|keys| keys.algorithm = 1), SecurityError::Algorithm(1));
        assert_eq!(wrong(|keys| keys.hkdf = -11), SecurityError::Algorithm(-11));
        let psk = |identity: &str, length: usize| {
            check(Security::DtlsPsk(Psk { identity: identity.into(), key: Secret::new(vec![0; length]) }))
        };
        assert_eq!(psk("1", 16), Ok(()));
        assert_eq!(psk("1", 15), Err(SecurityError::KeyLength(15)));
        assert_eq!(psk("1", 33), Err(SecurityError::KeyLength(33)));
        assert_eq!(psk("", 16), Err(SecurityError::Identity(String::new())));
        assert!(psk("a b", 16).is_err());
        assert!(psk(&"a".repeat(65), 16).is_err());
    }

    #[test]
    fn fingerprints_are_read_as_they_are_printed() {
        let colons = ["AB"; 32].join(":");
        assert_eq!(colons.parse(), Ok(Pin([0xab; 32])));
        assert_eq!(Pin([0xab; 32]).to_string().parse(), Ok(Pin([0xab; 32])));
        for bad in ["", "ab", &"a".repeat(63), &"é".repeat(32), &"g".repeat(64)] {
            assert_eq!(bad.parse::<Pin>(), Err(SecurityError::Pin), "{bad}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let printed = format!("{:?}", Security::Oscore(oscore()));
        assert!(printed.contains("secret: Secret(…), salt: Secret(…)"), "{printed}");
    }
}
