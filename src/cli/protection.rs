//! What a call is protected by.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lowband::net::Clock;
use lowband::net::dtls::make_certificate;
use lowband::net::dtls::read_certificate;
use lowband::net::keyring::Keyring;
use lowband::security::dtls::Certificate;
use lowband::security::dtls::Credentials;
use lowband::security::dtls::Fingerprint;
use lowband::security::dtls::Pins;
use lowband::security::dtls::Subject;
use lowband::security::dtls::Trust;
use lowband::security::dtls::Version;

use super::Failure;
use super::keyring;

/// What protects a call.
pub(super) enum Protection {
    /// Nothing.
    None,
    /// OSCORE, by a device's keys.
    Oscore(Box<Keyring>),
    /// DTLS.
    Dtls(Credentials),
}

impl Protection {
    /// Checks that it goes with the URL's scheme.
    pub(super) fn check(&self, is_secure: bool) -> Result<(), Failure> {
        match (is_secure, self) {
            (false, Self::None | Self::Oscore(_)) | (true, Self::Dtls(_)) => Ok(()),
            (false, Self::Dtls(_)) => {
                Err(Failure::usage("keys for DTLS are of use with coaps:// alone").hint("coaps://"))
            }
            (true, Self::Oscore(_)) => {
                Err(Failure::usage("keys for OSCORE protect coap:// itself").hint("coap://"))
            }
            (true, Self::None) => Err(Failure::usage("nothing to secure coaps:// with")
                .hint("--credentials FILE, --pin FINGERPRINT, or --psk-identity and --psk-key-file")),
        }
    }
}

/// What a call to `coaps:` is secured by, beside a device's credentials.
#[derive(Debug, Args)]
pub(super) struct SecurityArgs {
    /// coaps: the identity of a shared key
    #[arg(long, value_name = "TEXT", requires = "psk_key_file", conflicts_with_all = ["certificate", "credentials"])]
    psk_identity: Option<String>,
    /// coaps: the shared key, as the text of this file
    #[arg(long, value_name = "FILE", requires = "psk_identity")]
    psk_key_file: Option<PathBuf>,
    /// coaps: our own certificate in PEM, shown if it is asked for
    #[arg(long, value_name = "FILE", requires_all = ["certificate_key", "pin"], conflicts_with = "credentials")]
    certificate: Option<PathBuf>,
    /// coaps: the certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// coaps: the SHA-256 of the gateway's certificate, or of its public key, in hexadecimal; alone, where the gateway asks for none of ours
    #[arg(long, value_name = "FINGERPRINT", conflicts_with_all = ["psk_identity", "credentials"])]
    pin: Option<Fingerprint>,
}

impl SecurityArgs {
    /// Whether there is a certificate of ours to show.
    pub(super) fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// What is given of it.
    pub(super) fn read(&self) -> Result<Protection, Failure> {
        if let (Some(identity), Some(path)) = (&self.psk_identity, &self.psk_key_file) {
            let text = keyring::read(path)?;
            let key = text.trim_end_matches(['\r', '\n']).as_bytes().to_vec().into();
            return Ok(Protection::Dtls(Credentials::Psk { identity: identity.clone().into(), key }));
        }
        let Some(pin) = self.pin else { return Ok(Protection::None) };
        let certificate = match (&self.certificate, &self.certificate_key) {
            (Some(certificate), Some(key)) => {
                read_certificate(certificate, key).map_err(|error| match error.hint() {
                    Some(hint) => Failure::usage(&error).hint(hint),
                    None => Failure::usage(&error),
                })?
            }
            _ => passing_certificate()?,
        };
        let pins = Pins::new();
        pins.insert(pin);
        let (server, version) = (Trust::Pinned(pins), Version::Dtls12);
        Ok(Protection::Dtls(Credentials::Certificate { certificate, server, version }))
    }
}

/// What is shown where we are asked for a certificate and have none: one for this call, which nobody knows.
fn passing_certificate() -> Result<Certificate, Failure> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let nobody = Subject::Name("lowband".to_owned());
    let made = make_certificate(&nobody, Clock::start().now().since_start(), DAY);
    made.map(|issued| issued.certificate).map_err(Failure::new)
}
