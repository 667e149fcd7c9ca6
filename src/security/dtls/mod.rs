//! DTLS: many peers on one socket, as servers and clients (RFC 6347, RFC 9147; RFC 7252 §9.1).
//!
//! Sans-IO: after every call that takes `now`, drain [`Dtls::poll`] until `None`, then sleep until [`Dtls::deadline`]. It stands between
//! the network and an endpoint of CoAP; the handshakes and records themselves are dimpl's, one instance of it for each session.
//! Keys and nonces are random from the system, the only chance that is not handed in.

mod accept;
mod clock;
mod config;
mod cookie;
mod event;
mod hello;
mod issue;
mod keys;
mod provider;
mod session;

use base16ct::lower::encode_string as hex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use thiserror::Error;
use tracing::debug;
use zeroize::Zeroizing;

use crate::coap::{Address, Instant};
use clock::{Clock, Moment};
pub use config::{Certificate, Config, ConfigError, Credentials, Link, Trust, Version};
use config::{Setups, client_setup};
use cookie::Cookies;
pub use event::{Counters, Identity, KeyLogLine, Output, Reason, SessionId};
use hello::{Alert, Datagram};
pub use issue::{IssueError, Issued, Subject, SubjectError};
pub use keys::{Fingerprint, FingerprintError, Keys, Pins};
use provider::Secret;
use session::{Session, Stage, Step};

/// Bytes that a record of TLS_PSK_WITH_AES_128_CCM_8 adds to what is in it: 13 of its header, 8 of the nonce, 8 of the tag.
pub const SEALING: usize = 29;
/// The same of the suites with AES-GCM, with a tag of 16 bytes.
pub const SEALING_GCM: usize = 37;

/// All sessions of one socket.
pub struct Dtls {
    config: Config,
    clock: Clock,
    cookies: Cookies,
    setups: Setups,
    listeners: BTreeMap<SocketAddr, Setups>,
    sessions: BTreeMap<SessionId, Session>,
    places: BTreeMap<Address, Place>,
    /// Handshakes of clients that have not shown where they are, the oldest first.
    unverified: BTreeSet<SessionId>,
    /// Handshakes of those that have, and our own.
    verified: BTreeSet<SessionId>,
    due: BTreeSet<(Instant, SessionId)>,
    next: u64,
    next_alert: Instant,
    buffer: Vec<u8>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// What is at one address. A peer that has lost its state begins anew from where it was; the session that there is goes on until
/// that is known to be the peer (RFC 6347 §4.2.8).
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    established: Option<SessionId>,
    opening: Option<SessionId>,
}

/// Why bytes cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// There is no such session, or none any more.
    #[error("the session has ended")]
    Ended,
    /// Its handshake is not complete.
    #[error("the session is not established")]
    NotEstablished,
}

impl Dtls {
    /// A socket without sessions. `moment` is `now` as the system has it; neither is asked for again. The secrets of cookies come from
    /// the seed.
    ///
    /// # Errors
    /// What dimpl does not take.
    pub fn new(config: Config, moment: Moment, now: Instant, seed: [u8; 32]) -> Result<Self, ConfigError> {
        let setups = Setups::of(&config, &config.link)?;
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|(ip, link)| Ok((*ip, Setups::of(&config, link)?)));
        Ok(Self {
            clock: Clock::new(moment, now),
            cookies: Cookies::new(seed, now),
            setups,
            listeners: listeners.collect::<Result<_, ConfigError>>()?,
            config,
            sessions: BTreeMap::new(),
            places: BTreeMap::new(),
            unverified: BTreeSet::new(),
            verified: BTreeSet::new(),
            due: BTreeSet::new(),
            next: 0,
            next_alert: now,
            buffer: vec![0; 2048],
            outputs: VecDeque::new(),
            counters: Counters::default(),
        })
    }

    /// Takes in a datagram. What cannot be used is dropped and counted.
    pub fn handle(&mut self, address: Address, datagram: &[u8], now: Instant) {
        self.counters.received_datagrams += 1;
        self.counters.received_bytes += datagram.len() as u64;
        let place = self.places.get(&address).copied().unwrap_or_default();
        match Datagram::of(datagram) {
            Datagram::Hello(hello) => self.receive_hello(address, place, &hello, datagram, now),
            Datagram::Plain => self.receive(place.opening.or(place.established), address, datagram, now),
            Datagram::Finishing => self.receive(place.opening.or(place.established), address, datagram, now),
            Datagram::Protected => self.receive(place.established.or(place.opening), address, datagram, now),
            Datagram::HelloFragment => self.counters.fragments += 1,
            Datagram::Malformed => self.counters.malformed += 1,
        }
    }

    /// Opens a session with a server. Its end is reported in any case.
    ///
    /// # Errors
    /// What dimpl does not take.
    pub fn connect(
        &mut self,
        address: Address,
        credentials: &Credentials,
        now: Instant,
    ) -> Result<SessionId, ConfigError> {
        let setup = client_setup(credentials, self.config.link_of(address))?;
        let client = session::client(credentials, setup, self.clock, now);
        let trust = match credentials {
            Credentials::Psk { .. } => Trust::Anyone,
            Credentials::Certificate { server, .. } => server.clone(),
        };
        let session = Session::client(client, address, trust, self.config.key_log, self.clock, now)
            .map_err(|error| ConfigError::Dtls(error.to_string()))?;
        if let Some(former) = self.places.get(&address).and_then(|place| place.opening) {
            self.end(former, Reason::Replaced);
        }
        self.make_room(now);
        let id = self.add(session, now);
        self.drain(id, now);
        Ok(id)
    }

    /// Seals some bytes and sends them: a CoAP message, at most what one datagram of the link carries, less the 29 bytes of a record.
    ///
    /// # Errors
    /// There is no such session. If it breaks, that is reported as [`Output::Closed`].
    pub fn seal(&mut self, session: SessionId, bytes: &[u8], now: Instant) -> Result<(), SealError> {
        let held = self.sessions.get_mut(&session).ok_or(SealError::Ended)?;
        if held.stage != Stage::Established {
            return Err(SealError::NotEstablished);
        }
        if let Err(error) = held.seal(bytes, self.clock, now) {
            self.fail(session, &error, now);
            return Err(SealError::Ended);
        }
        self.drain(session, now);
        Ok(())
    }

    /// Ends a session, and tells its peer (close_notify).
    pub fn close(&mut self, session: SessionId, now: Instant) {
        self.say_goodbye(session, now);
        self.end(session, Reason::ByUs);
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        while let Some((deadline, id)) = self.due.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.due.remove(&(deadline, id));
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.deadline = None;
            if session.is_expired(now) {
                self.counters.timed_out += 1;
                self.end(id, Reason::TimedOut);
                continue;
            }
            match session.advance(self.clock, now) {
                Ok(()) => self.drain(id, now),
                Err(error) => self.fail(id, &error, now),
            }
        }
    }

    /// When [`Dtls::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(deadline, _)| *deadline)
    }

    /// The next thing to do, or that happened.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many sessions are held, with handshakes.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many handshakes are under way.
    pub fn handshakes(&self) -> usize {
        self.unverified.len() + self.verified.len()
    }

    /// Whether there is a session with somebody at this address, or a handshake with somebody who has shown to be there.
    pub fn knows(&self, address: Address) -> bool {
        let place = self.places.get(&address).copied().unwrap_or_default();
        place.established.is_some() || place.opening.is_some_and(|id| self.verified.contains(&id))
    }

    fn receive(&mut self, id: Option<SessionId>, address: Address, datagram: &[u8], now: Instant) {
        let Some((id, session)) = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            self.counters.unknown += 1;
            return self.alert(address, Alert::UnexpectedMessage, datagram, now);
        };
        match session.handle(datagram, self.clock, now) {
            Ok(()) => self.drain(id, now),
            Err(error) => self.fail(id, &error, now),
        }
    }

    fn add(&mut self, mut session: Session, now: Instant) -> SessionId {
        let id = SessionId(self.next);
        session.expires = now + self.config.link_of(session.address).certificate().timeout;
        self.next += 1;
        self.counters.handshakes += 1;
        self.places.entry(session.address).or_default().opening = Some(id);
        match session.stage {
            Stage::Unverified => self.unverified.insert(id),
            _ => self.verified.insert(id),
        };
        self.sessions.insert(id, session);
        id
    }

    /// Lets the session go that was unused for longest, if there are too many.
    fn make_room(&mut self, now: Instant) {
        while self.sessions.len() >= self.config.sessions.max(1) {
            let established = self.sessions.iter().filter(|(_, session)| session.stage == Stage::Established);
            let unused = established.min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
            // There are more handshakes than sessions.
            let Some(id) = unused.or_else(|| self.sessions.keys().next().copied()) else { return };
            self.say_goodbye(id, now);
            self.counters.evicted += 1;
            self.end(id, Reason::Evicted);
        }
    }

    /// Does all that a session has to be done for.
    fn drain(&mut self, id: SessionId, now: Instant) {
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let step = session.poll(&mut self.buffer, self.clock, now);
            let (address, random, secrets) = (session.address, session.random, session.take_secrets());
            self.log_keys(random, secrets);
            match step {
                Step::Send(bytes) => self.send(address, bytes),
                Step::Withheld => self.counters.withheld += 1,
                Step::Opened(bytes) => self.outputs.push_back(Output::Opened { session: id, bytes }),
                Step::Established => self.establish(id, now),
                Step::UnknownCertificate => {
                    self.counters.unknown_certificates += 1;
                    return self.give_up(id, Alert::BadCertificate);
                }
                Step::PeerClosed => {
                    self.say_goodbye(id, now);
                    return self.end(id, Reason::ByPeer);
                }
                Step::Wait(deadline) => return self.schedule(id, deadline),
            }
        }
    }

    fn schedule(&mut self, id: SessionId, deadline: Option<Instant>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let expires = (session.stage != Stage::Established).then_some(session.expires);
        let deadline = [deadline, expires].into_iter().flatten().min();
        if let Some(former) = std::mem::replace(&mut session.deadline, deadline) {
            self.due.remove(&(former, id));
        }
        self.due.extend(deadline.map(|deadline| (deadline, id)));
    }

    /// The handshake is complete, and its session takes the place of one that there was.
    fn establish(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        // A key may have been withdrawn meanwhile.
        if let (Some(Identity::Psk(identity)), false, Some(keys)) =
            (&session.identity, session.is_client, &self.config.keys)
            && !keys.contains(identity)
        {
            return self.give_up(id, Alert::HandshakeFailure);
        }
        session.verify(Stage::Established);
        session.used = now;
        let (address, identity) = (session.address, session.identity.clone());
        self.unverified.remove(&id);
        self.verified.remove(&id);
        let place = self.places.entry(address).or_default();
        place.opening = place.opening.filter(|opening| *opening != id);
        if let Some(former) = place.established.replace(id) {
            self.counters.replaced += 1;
            self.end(former, Reason::Replaced);
        }
        self.counters.established += 1;
        let identity = identity.unwrap_or(Identity::Anonymous);
        debug!(remote = %address.remote, session = id.0, "session established");
        self.outputs.push_back(Output::Established { session: id, address, identity });
    }

    /// An error of dimpl's ends its session.
    fn fail(&mut self, id: SessionId, error: &dimpl::Error, now: Instant) {
        let Some(session) = self.sessions.get(&id) else { return };
        debug!(remote = %session.address.remote, session = id.0, %error, "session failed");
        if matches!(error, dimpl::Error::Timeout(_)) {
            self.counters.timed_out += 1;
            return self.end(id, Reason::TimedOut);
        }
        if session.stage == Stage::Established {
            self.counters.broken += 1;
            self.say_goodbye(id, now);
            return self.end(id, Reason::Failed);
        }
        self.give_up(id, Alert::HandshakeFailure);
    }

    /// Ends a handshake, and tells the peer. Once for a handshake: it needs no other limit, and is less than what came.
    fn give_up(&mut self, id: SessionId, alert: Alert) {
        self.counters.failed += 1;
        if let Some(session) = self.sessions.get(&id) {
            let address = session.address;
            self.counters.alerts += 1;
            self.send(address, hello::alert(alert).to_vec());
        }
        self.end(id, Reason::Failed);
    }

    /// Sends the last records of a session: its close_notify.
    fn say_goodbye(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.close();
        let address = session.address;
        let mut last = Vec::new();
        loop {
            match session.poll(&mut self.buffer, self.clock, now) {
                Step::Send(bytes) => last.push(bytes),
                Step::Wait(_) => break,
                _ => {}
            }
        }
        last.into_iter().for_each(|bytes| self.send(address, bytes));
    }

    /// Forgets a session. Who knows of it is told.
    fn end(&mut self, id: SessionId, reason: Reason) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.unverified.remove(&id);
        self.verified.remove(&id);
        if let Some(deadline) = session.deadline {
            self.due.remove(&(deadline, id));
        }
        if let Some(place) = self.places.get_mut(&session.address) {
            place.established = place.established.filter(|other| *other != id);
            place.opening = place.opening.filter(|other| *other != id);
            if place.established.is_none() && place.opening.is_none() {
                self.places.remove(&session.address);
            }
        }
        if session.is_client || session.stage == Stage::Established {
            self.outputs.push_back(Output::Closed { session: id, reason });
        }
    }

    /// Sends an alert in clear, which anybody could: smaller than what it is about, and not often.
    fn alert(&mut self, address: Address, alert: Alert, about: &[u8], now: Instant) {
        let bytes = hello::alert(alert);
        if now < self.next_alert || about.len() <= bytes.len() || is_alert(about) {
            return;
        }
        self.next_alert = now + self.config.alert_interval;
        self.counters.alerts += 1;
        self.send(address, bytes.to_vec());
    }

    fn send(&mut self, address: Address, bytes: Vec<u8>) {
        self.counters.sent_datagrams += 1;
        self.counters.sent_bytes += bytes.len() as u64;
        self.outputs.push_back(Output::Datagram { address, bytes });
    }

    fn log_keys(&mut self, random: Option<[u8; 32]>, secrets: Vec<Secret>) {
        for Secret { label, random: derived, secret } in secrets {
            let Some(random) = derived.or(random) else { continue };
            let mut line = Zeroizing::new(format!("{label} {} ", hex(&random)));
            line.push_str(&Zeroizing::new(hex(&secret)));
            self.outputs.push_back(Output::KeyLog(KeyLogLine(line)));
        }
    }
}

impl fmt::Debug for Dtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls")
            .field("sessions", &self.sessions.len())
            .field("handshakes", &self.handshakes())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Whether it is an alert: two who answer alerts by alerts would never end.
fn is_alert(datagram: &[u8]) -> bool {
    datagram.first() == Some(&21)
}
