//! What a call to `coaps:` is secured by.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use lowband::device;
use lowband::device::Half;
use lowband::link::End;
use lowband::link::Profile;
use lowband::net::client::Security;
use lowband::net::dtls::read_certificate;
use lowband::security::dtls::Credentials;
use lowband::security::dtls::Fingerprint;
use lowband::security::dtls::Link;
use lowband::security::dtls::Pins;
use lowband::security::dtls::Trust;
use lowband::security::dtls::Version;
use zeroize::Zeroizing;

use super::super::Failure;

/// What a call to `coaps:` is secured by: a device's credentials, a shared key, or certificates.
#[derive(Debug, Args)]
pub(super) struct SecurityArgs {
    /// coaps: a device's half of its keys, as lowband device export writes it, a file or a line in one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["psk_identity", "certificate"])]
    credentials: Option<PathBuf>,
    /// coaps: the identity of a shared key
    #[arg(long, value_name = "TEXT", requires = "psk_key_file", conflicts_with = "certificate")]
    psk_identity: Option<String>,
    /// coaps: the shared key, as the text of this file
    #[arg(long, value_name = "FILE", requires = "psk_identity")]
    psk_key_file: Option<PathBuf>,
    /// coaps: our own certificate in PEM, shown if it is asked for
    #[arg(long, value_name = "FILE", requires_all = ["certificate_key", "pin"])]
    certificate: Option<PathBuf>,
    /// coaps: the certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// coaps: the SHA-256 of the gateway's certificate, or of its public key, in hexadecimal
    #[arg(long, value_name = "FINGERPRINT", requires = "certificate")]
    pin: Option<Fingerprint>,
}

impl SecurityArgs {
    /// What is given of it, for a link; nothing of it goes with `coap:`.
    pub(super) fn read(&self, is_secure: bool, link: &Profile) -> Result<Option<Security>, Failure> {
        let credentials = self.credentials()?;
        match (is_secure, credentials) {
            (false, None) => Ok(None),
            (false, Some(_)) => Err(Failure::usage("keys and certificates are of use with coaps:// alone")),
            (true, None) => Err(Failure::usage("nothing to secure coaps:// with")
                .hint("--credentials FILE, --psk-identity and --psk-key-file, or --certificate and --pin")),
            (true, Some(credentials)) => {
                Ok(Some(Security { credentials, link: Link::from(&link.terms(End::Peer)) }))
            }
        }
    }

    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        if let Some(path) = &self.credentials {
            let text = read_text(path)?;
            let read = device::Credentials::read(&text);
            let read = read.map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?;
            let Half::DtlsPsk(psk) = read.half else {
                return Err(Failure::usage(format_args!("{} has no key for DTLS", path.display())));
            };
            let key = psk.key.expose().to_vec().into();
            return Ok(Some(Credentials::Psk { identity: psk.identity.into(), key }));
        }
        if let (Some(identity), Some(path)) = (&self.psk_identity, &self.psk_key_file) {
            let text = read_text(path)?;
            let key = text.trim_end_matches(['\r', '\n']).as_bytes().to_vec().into();
            return Ok(Some(Credentials::Psk { identity: identity.clone().into(), key }));
        }
        let (Some(certificate), Some(key), Some(pin)) = (&self.certificate, &self.certificate_key, self.pin)
        else {
            return Ok(None);
        };
        let read = read_certificate(certificate, key);
        let certificate = read.map_err(|error| match error.hint() {
            Some(hint) => Failure::usage(&error).hint(hint),
            None => Failure::usage(&error),
        })?;
        let pins = Pins::new();
        pins.insert(pin);
        let (server, version) = (Trust::Pinned(pins), Version::Dtls12);
        Ok(Some(Credentials::Certificate { certificate, server, version }))
    }
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = std::fs::read_to_string(path);
    text.map(Zeroizing::new)
        .map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", path.display())))
}
