//! The end that answers: a CoAP server, with many initiators at once, of which most may be nobody.
//!
//! A session takes four operations on the curve and some hundred bytes. So there are few for those who have not shown that they are where they
//! say; when these are taken, others are asked to show it first (RFC 9528 Appendix A.2, RFC 9175 §2.3). Nothing they do costs those
//! anything who have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tracing::debug;

use super::connection::ConnectionId;
use super::credential::{Credential, Identity};
use super::error::Refusal;
use super::handshake::{self, Waiting};
use super::key::KeyPair;
use super::message::Message1;
use super::transport::{self, Frame};
use crate::coap::content_format::{CID_EDHOC, EDHOC};
use crate::coap::{self, Address, Block, Code, Instant, Message, OptionNumber, Options, Response};
use crate::security::oscore::{Challenges, Parameters};

/// Runs of the protocol that initiators have begun.
///
/// ```text
///   message_1 ──► Waiting ──► message_3 ──► Finished: the keys are handed out, and repeats get the same answer
///                    │  not in time, or a wrong one from the same address     │ not for long
///                    ▼                                                        ▼
///                forgotten                                                forgotten
/// ```
#[derive(Debug)]
pub struct Responder {
    identity: Identity,
    config: Config,
    known: BTreeMap<Vec<u8>, Credential>,
    sessions: BTreeMap<ConnectionId, Session>,
    challenges: Challenges,
    counters: Counters,
}

/// How much of it there may be, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many sessions may wait for initiators that have not shown where they are.
    pub unproven: usize,
    /// How many may wait for those that have.
    pub proven: usize,
    /// How long a session waits undisturbed. After that it gives way to another where there are too many.
    pub patience: Duration,
    /// How long a session waits at most, and how long a repeat of message_3 is known.
    pub lifetime: Duration,
    /// Whether message_3 alone is answered by message_4, so that the initiator knows that we have the keys. A protected response says so
    /// anyway.
    pub message_4: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::of_link(&coap::Parameters::default())
    }
}

impl Config {
    /// With the times of a link: an initiator may repeat itself as long as CoAP does.
    pub fn of_link(parameters: &coap::Parameters) -> Self {
        Self {
            unproven: 64,
            proven: 256,
            patience: parameters.longest_timeout() * 4,
            lifetime: parameters.exchange_lifetime(),
            message_4: true,
        }
    }
}

/// What came of the messages, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Sessions that were begun.
    pub begun: u64,
    /// Messages that had come before.
    pub repeated: u64,
    /// Initiators that were asked to show where they are.
    pub challenged: u64,
    /// Initiators that there was no room for.
    pub turned_away: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// Sessions that came to keys.
    pub established: u64,
    /// Sessions that did not, and waited no longer.
    pub given_up: u64,
}

/// Keys that a device and we have now.
#[derive(Clone, Debug)]
pub struct Established {
    /// The device, by its credential's id.
    pub kid: Vec<u8>,
    /// Ours, of a context that is new.
    pub parameters: Parameters,
}

/// What came of a request to the resource.
#[derive(Debug)]
pub struct Answer {
    /// What it is answered with.
    pub response: Response,
    /// Keys, where it was message_3.
    pub established: Option<Established>,
}

/// What came of message_3 and a protected request in one.
#[derive(Debug)]
pub struct Combined {
    /// The protected request alone, to be opened with the new context.
    pub sealed: Message,
    /// Keys; none where the same has come before, and they are had already.
    pub established: Option<Established>,
}

#[derive(Debug)]
struct Session {
    address: Address,
    is_proven: bool,
    since: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// For message_3, after this message_1 and our message_2.
    Waiting { state: Box<Waiting>, message_1: [u8; 32], message_2: Bytes },
    /// After this message_3, which was answered so where it came alone.
    Finished { kid: Vec<u8>, message_3: [u8; 32], message_4: Bytes },
}

impl Session {
    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }
}

impl Responder {
    /// Knows nobody yet. The secret is random and drawn anew at each start.
    pub fn new(identity: Identity, config: Config, secret: [u8; 32]) -> Self {
        let challenges = Challenges::new(secret, config.patience);
        let (known, sessions) = (BTreeMap::new(), BTreeMap::new());
        Self { identity, config, known, sessions, challenges, counters: Counters::default() }
    }

    /// Knows an initiator from now on, by its credential's id.
    pub fn insert(&mut self, credential: Credential) {
        self.known.insert(credential.kid().to_vec(), credential);
    }

    /// Knows it no more. Keys that it has are for others to revoke.
    pub fn remove(&mut self, kid: &[u8]) {
        self.known.remove(kid);
        self.forget_finished(kid);
    }

    /// Waits as long as initiators on this link need, where that is longer than it has waited so far.
    pub fn wait_for(&mut self, parameters: &coap::Parameters) {
        let other = Config::of_link(parameters);
        self.config.patience = self.config.patience.max(other.patience);
        self.config.lifetime = self.config.lifetime.max(other.lifetime);
        self.challenges.prolong(self.config.patience);
    }

    /// What came of the messages.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// When the next session has waited for too long.
    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.values().map(|session| session.since + self.config.lifetime).min()
    }

    /// Forgets sessions that have waited for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let lifetime = self.config.lifetime;
        let mut given_up = 0;
        self.sessions.retain(|_, session| {
            let stays = now.since(session.since) < lifetime;
            given_up += u64::from(!stays && session.is_waiting());
            stays
        });
        self.counters.given_up += given_up;
    }

    /// Takes a request to the resource, for which [`super::is_edhoc`] holds. Whether a Recipient ID is free is said by
    /// who has the contexts; the seed is random and used for nothing else.
    pub fn receive(
        &mut self,
        address: Address,
        request: &Message,
        is_free: impl Fn(&[u8]) -> bool,
        seed: [u8; 32],
        now: Instant,
    ) -> Answer {
        self.handle_timeout(now);
        let answered = match check(request) {
            Ok(options) => self.take(address, &options, &request.payload, is_free, seed, now),
            Err(code) => Err(Response::new(code)),
        };
        answered.unwrap_or_else(|response| Answer { response, established: None })
    }

    /// Takes message_3 and a protected request in one, for which [`super::is_combined`] holds.
    ///
    /// # Errors
    /// The response where it is not taken.
    pub fn receive_combined(
        &mut self,
        address: Address,
        message: Message,
        now: Instant,
    ) -> Result<Combined, Response> {
        self.handle_timeout(now);
        // RFC 9668 §3.3.1, step 1.
        let Some(parts) = transport::split(message) else {
            self.counters.refused += 1;
            return Err(Response::new(Code::BAD_REQUEST));
        };
        let (established, _) = self.finish(address, parts.c_r, &parts.message_3, now)?;
        Ok(Combined { sealed: parts.sealed, established })
    }

    fn take(
        &mut self,
        address: Address,
        options: &Options,
        payload: &[u8],
        is_free: impl Fn(&[u8]) -> bool,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Answer, Response> {
        match Frame::decode(payload).map_err(|refusal| self.refuse(address, refusal))? {
            Frame::Message1(message) => {
                let response = self.begin(address, options, message, is_free, seed, now)?;
                Ok(Answer { response, established: None })
            }
            Frame::Message3(c_r, message) => {
                let (established, message_4) = self.finish(address, c_r, message, now)?;
                let response = match self.config.message_4 {
                    true => transport::response(&message_4),
                    false => Response::new(Code::CHANGED),
                };
                Ok(Answer { response, established })
            }
            // Nobody vouches for it; but whoever sent message_1 from there waits for nothing.
            Frame::Error(id, error) => {
                debug!(remote = %address.remote, ?error, "initiator gave up");
                if let Some(id) = id.filter(|id| self.is_waiting_at(id, address)) {
                    self.sessions.remove(&id);
                    self.counters.given_up += 1;
                }
                Ok(Answer { response: Response::new(Code::CHANGED), established: None })
            }
        }
    }

    fn begin(
        &mut self,
        address: Address,
        options: &Options,
        message: &[u8],
        is_free: impl Fn(&[u8]) -> bool,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Response, Response> {
        let hash: [u8; 32] = Sha256::digest(message).into();
        if let Some(message_2) = self.repeated(address, hash) {
            self.counters.repeated += 1;
            return Ok(transport::response(&message_2));
        }
        let read = Message1::decode(message).map_err(|refusal| self.refuse(address, refusal))?;
        let subject = subject(address);
        let echo = options.get(OptionNumber::ECHO);
        let is_proven = echo.is_some_and(|echo| self.challenges.is_fresh(&subject, echo, now));
        self.make_room(address, is_proven, now)?;
        let [start, ..] = seed;
        let is_free =
            |id: &ConnectionId| *id != read.c_i && !self.sessions.contains_key(id) && is_free(id.as_bytes());
        let Some(c_r) = ConnectionId::choose(start, is_free) else {
            return Err(self.refuse(address, Refusal::NoneFree));
        };
        let ephemeral = KeyPair::generate(Sha256::digest(seed).into());
        let made = handshake::answer((message, read), &self.identity, &c_r, &ephemeral);
        let (state, message_2) = made.map_err(|refusal| self.refuse(address, refusal))?;
        let response = transport::response(&message_2);
        let (state, message_2) = (Box::new(state), message_2.into());
        let stage = Stage::Waiting { state, message_1: hash, message_2 };
        self.sessions.insert(c_r, Session { address, is_proven, since: now, stage });
        self.counters.begun += 1;
        Ok(response)
    }

    /// The answer to the same message_1 from the same address.
    fn repeated(&self, address: Address, hash: [u8; 32]) -> Option<Bytes> {
        self.sessions.values().find_map(|session| match &session.stage {
            Stage::Waiting { message_1, message_2, .. }
                if *message_1 == hash && session.address == address =>
            {
                Some(message_2.clone())
            }
            _ => None,
        })
    }

    /// Makes room for a session, or says what to do instead.
    fn make_room(&mut self, address: Address, is_proven: bool, now: Instant) -> Result<(), Response> {
        let alike = |session: &Session| session.is_waiting() && session.is_proven == is_proven;
        let waiting = || self.sessions.iter().filter(|(_, session)| alike(session));
        // Who has shown where it is has one session there: it began anew.
        let former = waiting().find(|(_, session)| is_proven && session.address == address);
        let limit = if is_proven { self.config.proven } else { self.config.unproven };
        let is_full = waiting().count() >= limit;
        let oldest = waiting().filter(|_| is_full).min_by_key(|(_, session)| session.since);
        let gone = oldest.filter(|(_, session)| now.since(session.since) > self.config.patience);
        if let Some(id) = former.or(gone).map(|(id, _)| id.clone()) {
            self.sessions.remove(&id);
            self.counters.given_up += 1;
            return Ok(());
        }
        if !is_full {
            return Ok(());
        }
        if is_proven {
            self.counters.turned_away += 1;
            let mut response = Response::new(Code::SERVICE_UNAVAILABLE);
            let seconds = self.config.patience.as_secs().clamp(1, u32::MAX.into()) as u32;
            response.options.push_uint(OptionNumber::MAX_AGE, seconds);
            return Err(response);
        }
        self.counters.challenged += 1;
        let mut response = Response::new(Code::UNAUTHORIZED);
        response.options.push(OptionNumber::ECHO, self.challenges.value(&subject(address), now));
        Err(response)
    }

    /// Takes message_3: keys, if it is new, and message_4.
    fn finish(
        &mut self,
        address: Address,
        c_r: ConnectionId,
        message: &[u8],
        now: Instant,
    ) -> Result<(Option<Established>, Bytes), Response> {
        let hash: [u8; 32] = Sha256::digest(message).into();
        let taken = match self.sessions.get_mut(&c_r).map(|session| &mut session.stage) {
            Some(Stage::Waiting { state, .. }) => state.receive_3(message, self.known.values()),
            Some(Stage::Finished { message_3, message_4, .. }) if *message_3 == hash => {
                self.counters.repeated += 1;
                return Ok((None, message_4.clone()));
            }
            // What was finished stays so.
            Some(Stage::Finished { .. }) | None => Err(Refusal::UnknownSession),
        };
        let done = match taken {
            Ok(done) => done,
            Err(refusal) => {
                // §5.4.3: the session ends. But one byte is guessed easily, and nobody who is elsewhere ends what others have begun.
                if self.is_waiting_at(&c_r, address) {
                    self.sessions.remove(&c_r);
                }
                return Err(self.refuse(address, refusal));
            }
        };
        self.forget_finished(&done.kid);
        let message_4: Bytes = done.message_4.into();
        let stage = Stage::Finished { kid: done.kid.clone(), message_3: hash, message_4: message_4.clone() };
        self.sessions.insert(c_r, Session { address, is_proven: true, since: now, stage });
        self.counters.established += 1;
        Ok((Some(Established { kid: done.kid, parameters: done.parameters }), message_4))
    }

    /// A device's last session, so that there are no more of them than devices.
    fn forget_finished(&mut self, kid: &[u8]) {
        self.sessions.retain(
            |_, session| !matches!(&session.stage, Stage::Finished { kid: other, .. } if other == kid),
        );
    }

    fn is_waiting_at(&self, id: &ConnectionId, address: Address) -> bool {
        self.sessions.get(id).is_some_and(|session| session.is_waiting() && session.address == address)
    }

    fn refuse(&mut self, address: Address, refusal: Refusal) -> Response {
        self.counters.refused += 1;
        debug!(remote = %address.remote, %refusal, "EDHOC message refused");
        transport::error_response(refusal)
    }
}

/// No answer has more bytes: message_2 with a key id of 16 bytes and a connection identifier of 2 has 63.
const LONGEST_ANSWER: usize = 64;

/// The options of a request, or the code that refuses it.
fn check(request: &Message) -> Result<Options, Code> {
    const KNOWN: [OptionNumber; 9] = [
        OptionNumber::URI_HOST,
        OptionNumber::URI_PORT,
        OptionNumber::URI_PATH,
        OptionNumber::CONTENT_FORMAT,
        OptionNumber::ACCEPT,
        OptionNumber::ECHO,
        OptionNumber::NO_RESPONSE,
        OptionNumber::BLOCK2,
        OptionNumber::Q_BLOCK2,
    ];
    if request.code != Code::POST {
        return Err(Code::METHOD_NOT_ALLOWED);
    }
    let options = request.options.clone().understood(|number| KNOWN.contains(&number));
    let options = options.map_err(|_| Code::BAD_OPTION)?;
    // RFC 7959 §2.4: an early wish for blocks, which no answer needs that fits into one.
    for number in [OptionNumber::BLOCK2, OptionNumber::Q_BLOCK2] {
        let fits = |block: Block| block.number == 0 && block.size.bytes() >= LONGEST_ANSWER;
        if !Block::find(&options, number).is_ok_and(|block| block.is_none_or(fits)) {
            return Err(Code::BAD_OPTION);
        }
    }
    // Appendix A.2 has it without, too.
    if options.get_uint(OptionNumber::CONTENT_FORMAT).is_some_and(|format| format != CID_EDHOC) {
        return Err(Code::UNSUPPORTED_CONTENT_FORMAT);
    }
    if options.get_uint(OptionNumber::ACCEPT).is_some_and(|format| format != EDHOC) {
        return Err(Code::NOT_ACCEPTABLE);
    }
    Ok(options)
}

/// Whom a challenge is for.
fn subject(address: Address) -> Vec<u8> {
    let mut subject = b"EDHOC".to_vec();
    match address.remote.ip() {
        IpAddr::V4(ip) => subject.extend(ip.octets()),
        IpAddr::V6(ip) => subject.extend(ip.octets()),
    }
    subject.extend(address.remote.port().to_be_bytes());
    subject
}
