//! How the machine behaves, and how much it takes up.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dimpl::DtlsCertificate;
use thiserror::Error;
use x509_cert::der::{Decode, Encode};
use zeroize::Zeroizing;

use super::event::Identity;
use super::keys::{Fingerprint, Keys, Pins};
use super::provider;
use crate::coap::{Address, Parameters};
use crate::link::Terms;

/// How the machine behaves, and how much it takes up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The keys of clients; no client is served by a key where there are none.
    pub keys: Option<Keys>,
    /// The server's own certificate; no client is served by certificate where there is none.
    pub certificate: Option<Certificate>,
    /// Which certificates clients must have.
    pub clients: Trust,
    /// Whether the server speaks DTLS 1.3, too, with certificates. A client that speaks it alone can be kept out by a flood, and
    /// dimpl's does not get over every loss: 40 of 50 handshakes complete where a tenth is lost, and all by 1.2.
    pub dtls_1_3: bool,
    /// The link of peers of which nothing else is known.
    pub link: Link,
    /// The links of peers that come to these addresses of ours; an unspecified address stands for all of its family.
    pub listeners: BTreeMap<SocketAddr, Link>,
    /// Sessions at a time, with handshakes. At the limit the one unused for longest goes.
    pub sessions: usize,
    /// Handshakes at a time with peers that have shown where they are. Beyond that a hello is not answered.
    pub handshakes: usize,
    /// Handshakes at a time with peers that have not: what DTLS 1.3 needs, and what saves a round trip. Beyond that a hello is answered
    /// by a cookie, and nothing kept of it.
    pub unverified: usize,
    /// How long after an alert in clear the next one may be sent.
    pub alert_interval: Duration,
    /// Whether there is an [`super::Output::KeyLog`].
    pub key_log: bool,
}

impl Default for Config {
    /// Serves nobody.
    fn default() -> Self {
        Self {
            keys: None,
            certificate: None,
            clients: Trust::Anyone,
            dtls_1_3: false,
            link: Link::default(),
            listeners: BTreeMap::new(),
            sessions: 10_000,
            handshakes: 1_000,
            unverified: 64,
            alert_interval: Duration::from_secs(1),
            key_log: false,
        }
    }
}

impl Config {
    /// The link to an address.
    pub(super) fn link_of(&self, address: Address) -> &Link {
        address.of_listener(&self.listeners).unwrap_or(&self.link)
    }
}

/// What a handshake has to know of its link.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its times.
    pub parameters: Parameters,
    /// The greatest datagram of a handshake, in bytes of UDP payload.
    pub mtu: usize,
}

impl Link {
    /// The greatest datagram of a handshake where nothing is known of the link.
    const MTU: usize = 1150;
    /// The least, as dimpl has it.
    const LEAST_MTU: usize = 64;
    /// A hello whole: a server that keeps nothing of it cannot put it together.
    const HELLO: usize = 256;

    /// The longest flight of a handshake by key: ClientKeyExchange and what goes with it, or a hello with its cookie.
    const PSK_FLIGHT: usize = 150;
    /// The same by certificates of elliptic curves, with a certificate in it.
    const CERTIFICATE_FLIGHT: usize = 900;

    /// Timers of a handshake by key.
    pub(super) fn psk(&self) -> Timing {
        Timing::of(&self.parameters, Self::PSK_FLIGHT)
    }

    /// Timers of a handshake by certificates.
    pub(super) fn certificate(&self) -> Timing {
        Timing::of(&self.parameters, Self::CERTIFICATE_FLIGHT)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self { parameters: Parameters::default(), mtu: Self::MTU }
    }
}

impl From<&Terms> for Link {
    /// A datagram is no longer than a block's message: a longer one is lost more often, and a shorter one has more headers.
    fn from(terms: &Terms) -> Self {
        let most = terms.pace.as_ref().map_or(Self::MTU, |pace| pace.mtu.min(Self::MTU));
        let mtu = terms.parameters.largest.max(Self::HELLO).min(most).max(Self::LEAST_MTU);
        Self { parameters: terms.parameters.clone(), mtu }
    }
}

/// When a flight is sent again (RFC 6347 §4.2.4.1).
///
/// The section has it begin at 1 s and end at 60 s, which is for links on which a flight takes no time. Where it does, a timer that
/// runs out before the answer can have come fills the link with repeats until none gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) rto: Duration,
    pub(super) retries: usize,
    /// For the whole handshake.
    pub(super) timeout: Duration,
}

impl Timing {
    /// Flights are lost as messages are; but a handshake has three of them and as many answers, all of which must come.
    const MORE_RETRIES: u32 = 2;
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

    fn of(parameters: &Parameters, flight: usize) -> Self {
        // dimpl takes a quarter off at random; a flight is as long as the answer to it.
        let whole =
            (parameters.ack_timeout + parameters.sending.of(flight) + parameters.receiving.of(flight))
                .saturating_mul(4)
                / 3;
        let rto = whole.clamp(Duration::from_millis(1), Self::LONGEST);
        let retries = parameters.max_retransmit.saturating_add(Self::MORE_RETRIES).min(16);
        // Each wait is twice the one before, and dimpl adds up to a quarter.
        let waits = 2_u32.saturating_pow(retries + 1);
        let timeout = rto.saturating_mul(waits).saturating_mul(5) / 4;
        Self { rto, retries: retries as usize, timeout: timeout.min(Self::LONGEST) }
    }
}

/// A certificate of our own, with its private key.
#[derive(Clone)]
pub struct Certificate(DtlsCertificate);

impl Certificate {
    /// An X.509 certificate for a key on the curve P-256 or P-384, and that key in PKCS #8 or SEC 1; both in DER. There is no
    /// chain: dimpl sends one certificate.
    ///
    /// # Errors
    /// What is no such thing.
    pub fn new(certificate: Vec<u8>, private_key: Vec<u8>) -> Result<Self, ConfigError> {
        identity(&certificate).ok_or(ConfigError::Certificate)?;
        dimpl::crypto::cert_named_group(&certificate).map_err(|_| ConfigError::Certificate)?;
        let loaded = provider::provider().key_provider.load_private_key(&private_key);
        loaded.map_err(|_| ConfigError::PrivateKey)?;
        Ok(Self(DtlsCertificate { certificate, private_key }))
    }

    /// Who a peer sees.
    pub fn identity(&self) -> Identity {
        identity(&self.0.certificate).expect("it was read by new")
    }

    pub(super) fn to_dimpl(&self) -> DtlsCertificate {
        self.0.clone()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({:?})", self.identity())
    }
}

/// Who has a certificate; none if it is none.
pub(super) fn identity(certificate: &[u8]) -> Option<Identity> {
    let read = x509_cert::Certificate::from_der(certificate).ok()?;
    let key = read.tbs_certificate().subject_public_key_info().to_der().ok()?;
    Some(Identity::Certificate { certificate: Fingerprint::of(certificate), key: Fingerprint::of(&key) })
}

/// Whose certificate is good enough. Names, dates and issuers are not looked at: a certificate is known by its digest, or not.
#[derive(Clone, Debug)]
pub enum Trust {
    /// A client is not asked for one; a server may have any.
    Anyone,
    /// Any that its peer has the key of. Its digests are the peer's identity, which the owner judges.
    AnyCertificate,
    /// One that is known, by itself or by its key.
    Pinned(Pins),
}

impl Trust {
    /// Whether a peer's certificate is good enough.
    pub(super) fn accepts(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Pinned(pins), Identity::Certificate { certificate, key }) => {
                pins.contains(*certificate) || pins.contains(*key)
            }
            (Self::Pinned(_), _) => false,
            (Self::Anyone | Self::AnyCertificate, _) => true,
        }
    }
}

/// What a client shows, and what it wants to see.
#[derive(Clone)]
pub enum Credentials {
    /// DTLS 1.2 by a pre-shared key.
    Psk {
        /// Its identity, which goes in clear.
        identity: Vec<u8>,
        /// The key.
        key: Zeroizing<Vec<u8>>,
    },
    /// DTLS 1.2 by certificates; or 1.3, or what the server speaks.
    Certificate {
        /// The client's own, which it shows if it is asked.
        certificate: Certificate,
        /// Which the server must have.
        server: Trust,
        /// Which versions to offer. The hello of more than one is as long as the link's longest datagram.
        version: Version,
    },
}

/// Versions to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// DTLS 1.2 (RFC 6347).
    Dtls12,
    /// DTLS 1.3 (RFC 9147).
    Dtls13,
    /// Both.
    Either,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Psk { .. } => f.write_str("Psk(..)"),
            Self::Certificate { certificate, server, version } => {
                write!(f, "Certificate({certificate:?}, {server:?}, {version:?})")
            }
        }
    }
}

/// What is wrong with what the operator gave.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read, or is for another kind of key.
    #[error("this is no X.509 certificate, in DER, for a key on the curve P-256 or P-384")]
    Certificate,
    /// It cannot be read, or is another kind of key.
    #[error("this is no private key, in DER, on the curve P-256 or P-384")]
    PrivateKey,
    /// What dimpl says.
    #[error("cannot set up DTLS: {0}")]
    Dtls(String),
}

/// What dimpl is told of the handshakes that a server takes on one link.
#[derive(Clone)]
pub(super) struct Setups {
    /// By key: with a cookie, and without.
    psk: Option<[Arc<dimpl::Config>; 2]>,
    certificate: Option<Arc<dimpl::Config>>,
}

impl Setups {
    pub(super) fn of(config: &Config, link: &Link) -> Result<Self, ConfigError> {
        let mut setups = Self { psk: None, certificate: None };
        if let Some(keys) = config.keys.clone() {
            let keys = Arc::new(keys);
            let setup = |cookie| {
                let setup = setup(link.psk(), link.mtu).use_server_cookie(cookie);
                // Without a hint, which would say nothing: a client has its key from the same operator.
                built(setup.with_psk_server(None, keys.clone()))
            };
            setups.psk = Some([setup(true)?, setup(false)?]);
        }
        if config.certificate.is_some() {
            let asks = !matches!(config.clients, Trust::Anyone);
            let setup = setup(link.certificate(), link.mtu).require_client_certificate(asks);
            setups.certificate = Some(built(setup)?);
        }
        Ok(setups)
    }

    /// By key, after a cookie.
    pub(super) fn psk(&self) -> Option<Arc<dimpl::Config>> {
        self.psk.as_ref().map(|[verified, _]| verified.clone())
    }

    /// By key, at once.
    pub(super) fn prompt(&self) -> Option<Arc<dimpl::Config>> {
        self.psk.as_ref().map(|[_, prompt]| prompt.clone())
    }

    /// By certificate, in either version.
    pub(super) fn certificate(&self) -> Option<Arc<dimpl::Config>> {
        self.certificate.clone()
    }
}

/// What a client's dimpl is told.
pub(super) fn client_setup(
    credentials: &Credentials,
    link: &Link,
) -> Result<Arc<dimpl::Config>, ConfigError> {
    match credentials {
        Credentials::Psk { identity, key } => {
            let keys = Keys::new();
            keys.insert(identity, key.to_vec());
            let suites = [dimpl::crypto::Dtls12CipherSuite::PSK_AES128_CCM_8];
            let setup = setup(link.psk(), link.mtu).with_psk_client(identity.clone(), Arc::new(keys));
            built(setup.dtls12_cipher_suites(&suites).dtls13_cipher_suites(&[]))
        }
        Credentials::Certificate { .. } => built(setup(link.certificate(), link.mtu)),
    }
}

fn setup(timing: Timing, mtu: usize) -> dimpl::ConfigBuilder {
    dimpl::Config::builder()
        .with_crypto_provider(provider::provider())
        .mtu(mtu.max(Link::LEAST_MTU))
        .flight_start_rto(timing.rto)
        .flight_retries(timing.retries)
        .handshake_timeout(timing.timeout)
}

fn built(setup: dimpl::ConfigBuilder) -> Result<Arc<dimpl::Config>, ConfigError> {
    setup.build().map(Arc::new).map_err(|error| ConfigError::Dtls(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{End, Profile};

    fn link(name: &str) -> Link {
        Link::from(&Profile::built_in(name).unwrap().terms(End::Gateway))
    }

    #[test]
    fn a_flight_and_its_answer_have_crossed_before_the_shortest_timer_runs_out() {
        let hf = link("hf-100");
        // 150 bytes and 28 of headers are 14.24 s on the air; twice, with 4 s and half a second each way.
        let round_trip = Duration::from_millis(2 * (14_240 + 4_000 + 500));
        let timing = hf.psk();
        assert!(timing.rto * 3 / 4 >= round_trip, "{timing:?}");
        assert!(timing.rto < round_trip * 2, "{timing:?}");
        assert_eq!((timing.retries, hf.mtu), (6, 320));
        assert!(timing.timeout > timing.rto * 127, "{timing:?}");
        assert!(hf.certificate().rto > timing.rto * 2);
    }

    #[test]
    fn a_lan_has_timers_of_seconds() {
        let timing = link("lan").psk();
        assert_eq!(timing.rto, Duration::from_secs(8) / 3);
        assert_eq!(link("lan").mtu, Link::MTU);
    }

    #[test]
    fn every_link_has_timers_that_dimpl_takes() {
        let config = Config { keys: Some(Keys::new()), ..Config::default() };
        for profile in Profile::all_built_in() {
            let link = Link::from(&profile.terms(End::Peer));
            assert!(Setups::of(&config, &link).is_ok(), "{}", profile.name);
        }
    }

    #[test]
    fn what_is_no_certificate_and_no_key_is_refused() {
        assert_eq!(Certificate::new(vec![1, 2, 3], vec![]).unwrap_err(), ConfigError::Certificate);
        assert_eq!(identity(b""), None);
    }
}
