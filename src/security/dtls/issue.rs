//! A certificate for whoever has none: self-signed, since it is known by its digest and not by who issued it (RFC 5280).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{EncodePrivateKey as _, LineEnding};
use thiserror::Error;
use x509_cert::TbsCertificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder};
use x509_cert::der::asn1::{Ia5String, OctetString};
use x509_cert::der::flagset::FlagSet;
use x509_cert::der::{Encode as _, EncodePem as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectAltName};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::Validity;
use zeroize::Zeroizing;

use super::{Certificate, ConfigError};

/// A certificate of a key on the curve P-256, with that key.
pub struct Issued {
    /// What an end is given, to show it.
    pub certificate: Certificate,
    /// The certificate, as a PEM file has it.
    pub certificate_pem: String,
    /// The private key, as a PEM file has it (PKCS #8).
    pub key_pem: Zeroizing<String>,
}

impl Issued {
    /// How many random bytes a certificate is made from: a key, and a serial number.
    pub const MATERIAL: usize = 32 + Self::SERIAL;
    const SERIAL: usize = 16;

    /// A certificate for what is called so, good for some time from a moment on, which is counted from 1970. Random bytes are for one
    /// certificate alone.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn new(
        subject: &Subject,
        from: Duration,
        lifetime: Duration,
        material: &Zeroizing<[u8; Self::MATERIAL]>,
    ) -> Result<Self, IssueError> {
        let (secret, serial) = material.split_at(32);
        let key = SigningKey::from_slice(secret).map_err(|_| IssueError::Material)?;
        let public = SubjectPublicKeyInfo::from_key(key.verifying_key()).map_err(encoding)?;
        let validity = Validity::new(time(from)?, time(from.saturating_add(lifetime))?);
        let serial = SerialNumber::new(serial).map_err(encoding)?;
        let builder =
            CertificateBuilder::new(Profile::of(subject)?, serial, validity, public).map_err(encoding)?;
        let certificate = builder.build::<_, DerSignature>(&key).map_err(encoding)?;
        let der = certificate.to_der().map_err(encoding)?;
        let private = p256::SecretKey::from_slice(secret).map_err(|_| IssueError::Material)?;
        let private_der = private.to_pkcs8_der().map_err(encoding)?;
        Ok(Self {
            certificate: Certificate::new(der, private_der.as_bytes().to_vec())?,
            certificate_pem: certificate.to_pem(LineEnding::LF).map_err(encoding)?,
            key_pem: private.to_pkcs8_pem(LineEnding::LF).map_err(encoding)?,
        })
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issued({:?})", self.certificate)
    }
}

/// What a certificate says whose it is: a host's name or address, for clients that look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A name of the DNS, or one like it.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Text that is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a host is an IP address, or at most 64 letters, digits, dots and hyphens")]
pub struct SubjectError;

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        // RFC 5280 Appendix A.1: ub-common-name. None of these characters has a meaning in a distinguished name's text.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
        match is_plain && (1..=64).contains(&text.len()) {
            true => Ok(Self::Name(text.to_owned())),
            false => Err(SubjectError),
        }
    }
}

/// What is in it beside its key: a leaf (RFC 5280 §4.2.1.9) that signs handshakes (RFC 5246 §7.4.2) for one host (RFC 6125).
struct Profile {
    name: Name,
    host: GeneralName,
}

impl Profile {
    fn of(subject: &Subject) -> Result<Self, IssueError> {
        let (text, host) = match subject {
            Subject::Name(name) => {
                (name.clone(), GeneralName::DnsName(Ia5String::new(name).map_err(encoding)?))
            }
            Subject::Address(address) => {
                let bytes = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                let bytes = OctetString::new(bytes).map_err(encoding)?;
                (address.to_string(), GeneralName::IpAddress(bytes))
            }
        };
        Ok(Self { name: Name::from_str(&format!("CN={text}")).map_err(encoding)?, host })
    }
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let (subject, mut extensions) = (tbs.subject(), Vec::new());
        let leaf = BasicConstraints { ca: false, path_len_constraint: None };
        extensions.push(leaf.to_extension(subject, &extensions)?);
        let usage = KeyUsage(FlagSet::from(KeyUsages::DigitalSignature));
        extensions.push(usage.to_extension(subject, &extensions)?);
        let host = SubjectAltName(vec![self.host.clone()]);
        extensions.push(host.to_extension(subject, &extensions)?);
        Ok(extensions)
    }
}

fn time(since_1970: Duration) -> Result<x509_cert::time::Time, IssueError> {
    // RFC 5280 §4.1.2.5: in UTCTime through 2049, and then in GeneralizedTime.
    let at = x509_cert::der::DateTime::from_unix_duration(since_1970).map_err(|_| IssueError::Time)?;
    x509_cert::der::asn1::UtcTime::from_date_time(at).map(x509_cert::time::Time::UtcTime).or_else(|_| {
        Ok(x509_cert::time::Time::GeneralTime(x509_cert::der::asn1::GeneralizedTime::from_date_time(at)))
    })
}

fn encoding(error: impl fmt::Display) -> IssueError {
    IssueError::Encoding(error.to_string())
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// Of random bytes one in some four billion cannot be a key: others will be.
    #[error("these random bytes are no key")]
    Material,
    /// It would hold longer than to the year 9999.
    #[error("the time until which it is to hold cannot be written")]
    Time,
    /// What x509-cert does not take.
    #[error("cannot make a certificate: {0}")]
    Encoding(String),
    /// What is made is not good enough for ourselves.
    #[error(transparent)]
    Unusable(#[from] ConfigError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn issue(host: &str, lifetime: Duration) -> Result<Issued, IssueError> {
        let subject = host.parse().unwrap();
        Issued::new(&subject, Duration::from_secs(1_700_000_000), lifetime, &Zeroizing::new([7; 48]))
    }

    #[test]
    fn a_certificate_is_what_the_gateway_takes_and_its_key_is_not_printed() {
        for host in ["gateway.example.org", "192.0.2.1", "2001:db8::1"] {
            let issued = issue(host, YEAR).unwrap();
            assert!(issued.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----\n"), "{host}");
            assert!(issued.key_pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{host}");
            assert!(!format!("{issued:?}").contains("KEY"));
        }
        assert_eq!(issue("a", YEAR).unwrap().key_pem, issue("b", YEAR).unwrap().key_pem);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in ["", "a b", "a,CN=b", "ä", &"a".repeat(65), "a+b", "*"] {
            assert_eq!(wrong.parse::<Subject>(), Err(SubjectError), "{wrong}");
        }
        assert!(issue("a", YEAR * 100).is_ok(), "beyond 2049");
        assert_eq!(issue("a", YEAR * 9000).unwrap_err(), IssueError::Time);
        let zero = Zeroizing::new([0; 48]);
        let made = Issued::new(&"a".parse().unwrap(), Duration::ZERO, YEAR, &zero);
        assert_eq!(made.unwrap_err(), IssueError::Material);
    }
}
