//! One session with one peer: dimpl's instance, and what is known beside it.

use std::sync::Arc;

use dimpl::{DtlsCertificate, Error, Output};

use super::clock::Clock;
use super::config::{self, Certificate, Trust};
use super::event::Identity;
use super::hello::{self, Hello};
use super::provider::{self, Call, Secret};
use crate::coap::{Address, Instant};

/// A session, or the handshake that is to become one.
///
/// ```text
///  a client's hello without cookie ──▶ Unverified ─┐ hello with 1.3's cookie, or Finished
///  a client's hello with cookie ────────────────▶ Verified ── Finished ──▶ Established
///  our connect ─────────────────────────────────────┘
/// ```
///
/// Every error of dimpl's is its instance's end, and so is its session's.
pub(super) struct Session {
    pub(super) address: Address,
    pub(super) stage: Stage,
    pub(super) is_client: bool,
    /// The client's random, once it is known.
    pub(super) random: Option<[u8; 32]>,
    pub(super) identity: Option<Identity>,
    /// When it was last used: when something sound came, or was sent.
    pub(super) used: Instant,
    pub(super) deadline: Option<Instant>,
    /// When its handshake is given up, whatever dimpl thinks: to a hello that it drops it has no timer.
    pub(super) expires: Instant,
    dtls: Box<dimpl::Dtls>,
    trust: Trust,
    notes: bool,
    /// By how much the numbers of its records in clear are to be greater than dimpl thinks.
    shift: u64,
    /// Bytes that came and went while it was not verified.
    received: u64,
    sent: u64,
    /// The last datagram before it was verified: a HelloRetryRequest, in which the cookie is that has to come back.
    challenge: Vec<u8>,
    secrets: Vec<Secret>,
    /// Whether what is sent now is sent because time has passed, and how much of that there was since the peer was heard.
    is_repeat: bool,
    repeats: u32,
}

/// How far a handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The peer may be somewhere else.
    Unverified,
    /// The peer is where it says; or it is a server of ours to ask.
    Verified,
    /// The handshake is complete.
    Established,
}

/// What a session has to be done for.
pub(super) enum Step {
    Send(Vec<u8>),
    /// A datagram that an unverified peer does not get.
    Withheld,
    Established,
    Opened(Vec<u8>),
    /// A certificate came that is not known.
    UnknownCertificate,
    PeerClosed,
    Wait(Option<Instant>),
}

/// Of what came, how many times as much an unverified peer may get.
const AMPLIFICATION: u64 = 3;
/// How many datagrams may be repeated while nothing is heard of the peer: several flights of several datagrams.
const REPEATS: u32 = 64;

impl Session {
    /// A client's handshake of DTLS 1.2, after its hello has shown where it is. Its next datagrams follow from that hello.
    pub(super) fn verified(
        server: dimpl::Dtls,
        about: Client<'_>,
        cookie: [u8; 32],
        datagram: &[u8],
        clock: Clock,
        now: Instant,
    ) -> Result<Self, Error> {
        let Client { address, hello, trust, notes } = about;
        let mut session = Self::new(server, address, trust, notes, now);
        session.stage = Stage::Verified;
        session.random = Some(hello.random);
        session.dtls.handle_timeout(clock.to_theirs(now))?;
        // dimpl counts messages from the first hello on, which we did not keep: it is given what it was, as often as it was answered,
        // and its answers are thrown away. They are in no transcript (RFC 6347 §4.2.1).
        let mut buffer = [0; 256];
        for sequence in 0..hello.sequence {
            session.dtls.handle_packet(&hello.without_cookie(sequence))?;
            while !matches!(session.dtls.poll_output(&mut buffer), Output::Timeout(_)) {}
        }
        session.shift = hello.record.saturating_sub(u64::from(hello.sequence));
        let dtls = &mut session.dtls;
        let call = Call { cookie: Some(cookie), ..Call::default() };
        let (result, _) = provider::beside(call, || dtls.handle_packet(datagram));
        result.map(|()| session)
    }

    /// A client's handshake of which nothing is known but a hello.
    pub(super) fn unverified(
        server: dimpl::Dtls,
        about: Client<'_>,
        datagram: &[u8],
        clock: Clock,
        now: Instant,
    ) -> Result<Self, Error> {
        let Client { address, hello, trust, notes } = about;
        let mut session = Self::new(server, address, trust, notes, now);
        session.random = Some(hello.random);
        session.dtls.handle_timeout(clock.to_theirs(now))?;
        session.handle(datagram, clock, now)?;
        Ok(session)
    }

    /// A handshake of ours.
    pub(super) fn client(
        mut client: dimpl::Dtls,
        address: Address,
        trust: Trust,
        notes: bool,
        clock: Clock,
        now: Instant,
    ) -> Result<Self, Error> {
        client.set_active(true);
        let mut session = Self::new(client, address, trust, notes, now);
        session.is_client = true;
        session.stage = Stage::Verified;
        session.advance(clock, now)?;
        Ok(session)
    }

    fn new(dtls: dimpl::Dtls, address: Address, trust: Trust, notes: bool, now: Instant) -> Self {
        Self {
            address,
            stage: Stage::Unverified,
            is_client: false,
            random: None,
            identity: None,
            used: now,
            deadline: None,
            expires: now,
            dtls: Box::new(dtls),
            trust,
            notes,
            shift: 0,
            received: 0,
            sent: 0,
            challenge: Vec::new(),
            secrets: Vec::new(),
            is_repeat: false,
            repeats: 0,
        }
    }

    /// Takes in a datagram.
    pub(super) fn handle(&mut self, datagram: &[u8], clock: Clock, now: Instant) -> Result<(), Error> {
        if self.stage == Stage::Unverified {
            self.received += datagram.len() as u64;
        }
        (self.is_repeat, self.repeats) = (false, 0);
        self.with(|dtls| {
            dtls.handle_timeout(clock.to_theirs(now))?;
            dtls.handle_packet(datagram)
        })
    }

    /// A hello of DTLS 1.3 with the cookie that was sent to where it comes from.
    pub(super) fn is_challenge_met(&self, hello: &Hello<'_>) -> bool {
        let Some(cookie) = hello.cookie_1_3().filter(|cookie| cookie.len() == 32) else { return false };
        self.challenge.windows(32).any(|bytes| bytes == cookie)
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.stage != Stage::Established && now >= self.expires
    }

    pub(super) fn advance(&mut self, clock: Clock, now: Instant) -> Result<(), Error> {
        self.is_repeat = true;
        self.with(|dtls| dtls.handle_timeout(clock.to_theirs(now)))
    }

    pub(super) fn seal(&mut self, bytes: &[u8], clock: Clock, now: Instant) -> Result<(), Error> {
        (self.used, self.is_repeat) = (now, false);
        self.with(|dtls| {
            dtls.handle_timeout(clock.to_theirs(now))?;
            dtls.send_application_data(bytes).map(drop)
        })
    }

    /// Says goodbye, where there is somebody to say it to.
    pub(super) fn close(&mut self) {
        // What it says beyond that is no news: the session is over.
        let _closed = self.dtls.close();
    }

    /// The next thing to do. The buffer grows with what comes.
    pub(super) fn poll(&mut self, buffer: &mut Vec<u8>, clock: Clock, now: Instant) -> Step {
        loop {
            let step = match self.dtls.poll_output(buffer) {
                Output::Packet(bytes) => Step::Send(bytes.to_vec()),
                Output::BufferTooSmall { needed } => {
                    buffer.resize(needed, 0);
                    continue;
                }
                Output::Timeout(deadline) => Step::Wait(clock.deadline(deadline, now)),
                Output::Connected => Step::Established,
                Output::PeerCert(certificate) => {
                    let identity = config::identity(certificate);
                    match identity.filter(|identity| self.trust.accepts(identity)) {
                        None => Step::UnknownCertificate,
                        Some(identity) => {
                            self.identity = Some(identity);
                            continue;
                        }
                    }
                }
                Output::ApplicationData(bytes) => Step::Opened(bytes.to_vec()),
                Output::CloseNotify => Step::PeerClosed,
                // Keys for SRTP, which is not spoken here.
                _ => continue,
            };
            return match step {
                Step::Send(bytes) => self.sending(bytes),
                Step::Opened(bytes) => {
                    self.used = now;
                    Step::Opened(bytes)
                }
                step => step,
            };
        }
    }

    /// The secrets that were derived since the last call.
    pub(super) fn take_secrets(&mut self) -> Vec<Secret> {
        std::mem::take(&mut self.secrets)
    }

    fn sending(&mut self, mut bytes: Vec<u8>) -> Step {
        if self.is_client && self.random.is_none() {
            self.random = hello::random_of(&bytes);
        }
        if self.is_repeat {
            // dimpl's DTLS 1.3 repeats a record without end when its acknowledgement is lost.
            self.repeats += 1;
            if self.repeats > REPEATS {
                return Step::Withheld;
            }
        }
        if self.stage == Stage::Unverified {
            if self.sent + bytes.len() as u64 > self.received * AMPLIFICATION {
                return Step::Withheld;
            }
            self.sent += bytes.len() as u64;
            self.challenge.clone_from(&bytes);
        }
        if self.shift > 0 {
            hello::shift_records(&mut bytes, self.shift);
        }
        Step::Send(bytes)
    }

    /// The peer is where it says.
    pub(super) fn verify(&mut self, stage: Stage) {
        self.stage = stage;
        self.challenge = Vec::new();
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut dimpl::Dtls) -> T) -> T {
        let call = Call { notes: self.notes, ..Call::default() };
        let (result, call) = provider::beside(call, || work(&mut self.dtls));
        if let Some(identity) = call.identity {
            self.identity = Some(Identity::Psk(identity));
        }
        self.secrets.extend(call.secrets);
        result
    }
}

/// What is known of a client's session from its hello.
pub(super) struct Client<'a> {
    pub(super) address: Address,
    pub(super) hello: &'a Hello<'a>,
    pub(super) trust: Trust,
    pub(super) notes: bool,
}

/// How a client is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// DTLS 1.2 by key.
    Psk,
    /// DTLS 1.2 by certificate.
    Certificate,
    /// DTLS 1.3.
    Dtls13,
}

/// A server of dimpl's for one client.
pub(super) fn server(
    service: Service,
    setup: Arc<dimpl::Config>,
    certificate: Option<&Certificate>,
    clock: Clock,
    now: Instant,
) -> Option<dimpl::Dtls> {
    let moment = clock.to_theirs(now);
    let certificate = || certificate.map(Certificate::to_dimpl);
    Some(match service {
        Service::Psk => dimpl::Dtls::new_12_psk(setup, moment),
        Service::Certificate => dimpl::Dtls::new_12(setup, certificate()?, moment),
        Service::Dtls13 => dimpl::Dtls::new_13(setup, certificate()?, moment),
    })
}

/// A client of dimpl's.
pub(super) fn client(
    credentials: &config::Credentials,
    setup: Arc<dimpl::Config>,
    clock: Clock,
    now: Instant,
) -> dimpl::Dtls {
    use config::{Credentials, Version};
    let moment = clock.to_theirs(now);
    let with: fn(_, DtlsCertificate, _) -> dimpl::Dtls = match credentials {
        Credentials::Psk { .. } => return dimpl::Dtls::new_12_psk(setup, moment),
        Credentials::Certificate { version: Version::Dtls12, .. } => dimpl::Dtls::new_12,
        Credentials::Certificate { version: Version::Dtls13, .. } => dimpl::Dtls::new_13,
        Credentials::Certificate { version: Version::Either, .. } => dimpl::Dtls::new_auto,
    };
    let Credentials::Certificate { certificate, .. } = credentials else { unreachable!("see above") };
    with(setup, certificate.to_dimpl(), moment)
}
