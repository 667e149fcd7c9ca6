//! What DTLS takes from the system: the gateway's certificate and key, from files, and the key log, to one.

use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use tracing::warn;
use zeroize::Zeroizing;

use super::clock::Clock;
use crate::endpoint;
use crate::gateway::Access;
use crate::gateway::Gateway;
use crate::security::dtls;
use crate::security::dtls::Certificate;
use crate::security::dtls::Dtls;
use crate::security::dtls::IssueError;
use crate::security::dtls::Issued;
use crate::security::dtls::Keys;
use crate::security::dtls::Link;
use crate::security::dtls::Pins;
use crate::security::dtls::Subject;
use crate::security::dtls::Trust;

/// How a gateway serves DTLS.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it shows to those who do not come by a shared key; they are not served where there is none.
    pub certificate: Option<Certificate>,
    /// Whether whoever is no device is served, with an access token of its own: by certificate, and without one of its own.
    pub unprovisioned: bool,
    /// Sessions at a time, with handshakes; beyond that the one unused for longest goes.
    pub sessions: usize,
    /// Handshakes at a time.
    pub handshakes: usize,
    /// The file that the keys of sessions are written to, for whoever is to read what was recorded of them.
    pub key_log: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let dtls::Config { sessions, handshakes, .. } = dtls::Config::default();
        Self { certificate: None, unprovisioned: false, sessions, handshakes, key_log: None }
    }
}

impl Config {
    /// Has a gateway serve DTLS at the listeners that are to be sealed; returns where its keys are to be written to.
    pub(super) fn serve(
        &self,
        machine: &mut Gateway,
        endpoint: &endpoint::Config,
        clock: &Clock,
        seed: [u8; 32],
    ) -> Result<Option<KeyLog>, StartError> {
        let link_of = |name: Option<&String>| name.and_then(|name| endpoint.links.get(name)).map(Link::from);
        let links = endpoint.listeners.iter().filter_map(|(at, link)| Some((*at, link_of(Some(link))?)));
        let key_log = self.key_log.as_deref().map(KeyLog::open).transpose()?;
        let (keys, pins) = (Keys::new(), Pins::new());
        let config = dtls::Config {
            keys: Some(keys.clone()),
            certificate: self.certificate.clone(),
            // All clients are asked for a certificate, or none is: dimpl takes no handshake in which one that was asked for is missing.
            clients: if self.unprovisioned { Trust::Anyone } else { Trust::Pinned(pins.clone()) },
            link: link_of(endpoint.link.as_ref()).unwrap_or_default(),
            listeners: links.collect::<BTreeMap<SocketAddr, Link>>(),
            sessions: self.sessions,
            handshakes: self.handshakes,
            key_log: key_log.is_some(),
            ..dtls::Config::default()
        };
        let (moment, now) = clock.beginning();
        let dtls = Dtls::new(config, moment, now, seed)?;
        machine.serve_dtls(dtls, Access { keys, pins, unprovisioned: self.unprovisioned });
        Ok(key_log)
    }

    /// How many bytes a record adds to a datagram: as many as with certificates, where there is one.
    pub fn sealing(&self) -> usize {
        if self.certificate.is_some() { dtls::SEALING_GCM } else { dtls::SEALING }
    }
}

/// A file with the keys of sessions, in the format of NSS: with it, whoever has recorded them can read them.
#[derive(Debug)]
pub struct KeyLog {
    path: PathBuf,
    file: File,
}

impl KeyLog {
    /// Opens it, to go on behind what there is; for its owner alone, where it is made.
    ///
    /// # Errors
    /// What the system says; or others may read it.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        let fail = |source| StartError::KeyLog { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(fail)?;
        check_permissions(path, &file)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes a line.
    pub fn write(&mut self, line: &dtls::KeyLogLine) {
        let line = Zeroizing::new(format!("{}\n", line.as_str()));
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            warn!(path = %self.path.display(), %error, "cannot write to the key log");
        }
    }
}

/// Reads a certificate and its private key, both in PEM.
///
/// # Errors
/// See [`StartError`]. A key that others may read is refused.
pub fn read_certificate(certificate: &Path, key: &Path) -> Result<Certificate, StartError> {
    let pem = std::fs::read(certificate).map_err(|source| unreadable(certificate, source))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = chain.map_err(|_| StartError::NoCertificate { path: certificate.to_owned() })?;
    let [first, ..] = certificates.as_slice() else {
        return Err(StartError::NoCertificate { path: certificate.to_owned() });
    };
    if certificates.len() > 1 {
        warn!(path = %certificate.display(), "only the first certificate is shown: no chain is sent");
    }
    let mut file = File::open(key).map_err(|source| unreadable(key, source))?;
    check_permissions(key, &file)?;
    let mut pem = Zeroizing::new(Vec::new());
    io::Read::read_to_end(&mut file, &mut pem).map_err(|source| unreadable(key, source))?;
    let private =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| StartError::NoKey { path: key.to_owned() })?;
    let made = Certificate::new(first.to_vec(), private.secret_der().to_vec());
    made.map_err(|source| StartError::Unusable { path: certificate.to_owned(), source })
}

/// Makes a certificate that signs itself, with a key of its own, from the system's randomness; good for some time from a moment on, which
/// is counted from 1970.
///
/// # Errors
/// See [`IssueError`]; or the system has no randomness.
pub fn make_certificate(subject: &Subject, from: Duration, lifetime: Duration) -> io::Result<Issued> {
    let mut material = Zeroizing::new([0; Issued::MATERIAL]);
    for _ in 0..4 {
        getrandom::fill(material.as_mut_slice()).map_err(|error| io::Error::other(error.to_string()))?;
        match Issued::new(subject, from, lifetime, &material) {
            Err(IssueError::Material) => {}
            made => return made.map_err(io::Error::other),
        }
    }
    Err(io::Error::other(IssueError::Material))
}

fn unreadable(path: &Path, source: io::Error) -> StartError {
    StartError::Unreadable { path: path.to_owned(), source }
}

#[cfg(unix)]
fn check_permissions(path: &Path, file: &File) -> Result<(), StartError> {
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(StartError::Permissions { path: path.to_owned(), mode }),
    }
}

#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &File) -> Result<(), StartError> {
    Ok(())
}

/// Why DTLS cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// What the system says.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is something else in it.
    #[error("there is no certificate in {}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is something else in it.
    #[error("there is no private key in {}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate or key are of another kind.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        source: dtls::ConfigError,
    },
    /// Others may read it.
    #[error("others than its owner may read {} (mode {mode:03o})", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key log.
    #[error("cannot write to the key log {}: {source}", path.display())]
    KeyLog {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What dimpl does not take.
    #[error(transparent)]
    Dtls(#[from] dtls::ConfigError),
}

impl StartError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Permissions { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::NoCertificate { .. } => Some("a PEM file with a CERTIFICATE section".into()),
            Self::NoKey { .. } => Some("a PEM file with a PRIVATE KEY or EC PRIVATE KEY section".into()),
            Self::Unusable { .. } => Some("lowband certificate new makes one that is good enough".into()),
            _ => None,
        }
    }
}
