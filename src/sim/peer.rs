//! A device: an endpoint in the client's role, with messages to send and a `/sync` to observe.

mod hearing;
mod speaking;

use std::collections::VecDeque;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::oracle::Attempt;
use super::speech::{Conversation, Encoding, PackedTally, Speech};
use super::transcript::Said;
use crate::coap;
use crate::coap::{Code, Instant, Priority, RequestError, Response};
use crate::endpoint;
use crate::endpoint::{Address, Association, Endpoint, Event, KeysNumber, Memory, MemoryKey, RequestId};
use crate::packed::{Dictionary, ProxyEnd};
use crate::security::oscore::{Parameters, Used};

/// A device with one Matrix user.
///
/// Sends its messages in their order, each with a transaction id of its own until it is answered; a POST is made once. Observes from its own position, and
/// registers again from there when the observation has ended.
#[derive(Debug)]
pub(super) struct Peer {
    config: Config,
    endpoint: Endpoint,
    /// What its keys were used for, which survives a reboot.
    kept: Option<Memory>,
    speech: Speech,
    /// It had another life, of which it knows nothing.
    has_lost: bool,
    outbox: VecDeque<Outgoing>,
    next_transaction: u64,
    sending: Option<Asked>,
    observing: Option<Observing>,
    wants: bool,
    since: Option<String>,
    /// The last event that it was told of, and where to page back from.
    last: Option<(String, String)>,
    back: Option<String>,
    /// Whatever comes next is not tried before.
    send_at: Instant,
    register_at: Instant,
    heard: Instant,
    notes: VecDeque<Note>,
}

/// Who a device is.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// Its user.
    pub user: String,
    /// The user's access token.
    pub token: String,
    /// Where the gateway is, from here.
    pub gateway: Address,
    /// How it speaks CoAP.
    pub endpoint: endpoint::Config,
    /// The pause before it tries again what has failed.
    pub pause: Duration,
    /// After so long a silence it registers again, if ever.
    pub refresh: Option<Duration>,
    /// Events of a room that it wants at a time, if it says so.
    pub limit: Option<usize>,
    /// Whom it speaks with, and by which keys, if there are any.
    pub association: Association,
    pub keys: Option<Parameters>,
    /// How it writes Matrix.
    pub encoding: Encoding,
    pub dictionary: Dictionary,
    /// Whether what it says and reads is told.
    pub is_overheard: bool,
    /// Whether its messages have something of everything in them.
    pub is_rich: bool,
}

/// Something for an oracle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Note {
    /// A request was made that makes something.
    Asked(Attempt),
    /// A request has ended.
    Ended {
        /// The same; none for a registration.
        attempt: Option<Attempt>,
        /// When it was made.
        asked: Instant,
        /// How it ended.
        end: Ending,
        /// The id of what it has made, by its answer.
        made: Option<String>,
        /// Bytes of the bodies of request and answer, where that is known.
        bytes: Option<usize>,
    },
    /// A request begins.
    Said(Said),
    /// An answer was read, to a request for this path.
    Read(String, Value),
    /// A delta of `/sync` was applied.
    Delta(Value),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an answer of this status.
    Answered(StatusCode),
    /// Without one.
    Failed(RequestError),
    /// The device forgot it.
    Forgotten,
}

/// The number of a device's keys.
const KEYS: KeysNumber = 1;

#[derive(Debug)]
struct Outgoing {
    what: What,
    /// The transaction, and how often it was tried.
    attempt: Attempt,
}

#[derive(Debug)]
enum What {
    /// A message for a room.
    Message { room: String, text: String },
    /// Something that is asked for once, as nobody knows after a failure whether it was done.
    Once,
    /// Something that makes nothing, of this kind.
    Question(u64),
}

#[derive(Debug)]
struct Asked {
    id: RequestId,
    asked: Instant,
    bytes: usize,
    conversation: Conversation,
    path: String,
}

#[derive(Debug)]
struct Observing {
    id: RequestId,
    /// When it was registered, until that was answered.
    asked: Option<Instant>,
    conversation: Conversation,
}

impl Peer {
    /// A device that has nothing to do yet.
    pub(super) fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut peer = Self {
            endpoint: Endpoint::new(config.endpoint.clone(), seed),
            speech: Speech::new(config.encoding, config.dictionary.clone(), chance_of(&seed)),
            config,
            kept: None,
            has_lost: false,
            outbox: VecDeque::new(),
            next_transaction: 0,
            sending: None,
            observing: None,
            wants: false,
            since: None,
            last: None,
            back: None,
            send_at: Instant::START,
            register_at: Instant::START,
            heard: Instant::START,
            notes: VecDeque::new(),
        };
        peer.admit_keys(Instant::START);
        peer
    }

    /// Its user.
    pub(super) fn user(&self) -> &str {
        &self.config.user
    }

    /// Has a message to send.
    pub(super) fn send(&mut self, room: &str, text: &str, now: Instant) {
        self.enqueue(What::Message { room: room.to_owned(), text: text.to_owned() }, now);
    }

    /// Has something to ask for by POST.
    pub(super) fn post(&mut self, now: Instant) {
        self.enqueue(What::Once, now);
    }

    /// Has something to ask for that makes nothing.
    pub(super) fn question(&mut self, kind: u64, now: Instant) {
        self.enqueue(What::Question(kind), now);
    }

    fn enqueue(&mut self, what: What, now: Instant) {
        let transaction = format!("t{}", self.next_transaction);
        self.next_transaction += 1;
        let attempt = Attempt { user: self.config.user.clone(), transaction, number: 0 };
        self.outbox.push_back(Outgoing { what, attempt });
        self.act(now);
    }

    /// Observes from now on.
    pub(super) fn observe(&mut self, now: Instant) {
        self.wants = true;
        self.heard = now;
        self.act(now);
    }

    /// Observes no longer, and says so.
    pub(super) fn leave(&mut self, now: Instant) {
        self.wants = false;
        if let Some(observing) = self.observing.take() {
            self.end_registration(&observing, Ending::Forgotten);
            self.endpoint.cancel(observing.id, now);
        }
        self.drain(now);
    }

    /// Starts anew: what CoAP knew is gone; the messages to send and the position are kept.
    pub(super) fn reboot(&mut self, seed: [u8; 32], now: Instant) {
        self.speech.restart();
        self.restart(seed, now);
    }

    /// Starts anew without what it and the gateway knew of each other.
    pub(super) fn lose(&mut self, seed: [u8; 32], now: Instant) {
        self.speech.lose(chance_of(&seed));
        self.has_lost = true;
        self.restart(seed, now);
    }

    fn restart(&mut self, seed: [u8; 32], now: Instant) {
        self.endpoint = Endpoint::new(self.config.endpoint.clone(), seed);
        self.admit_keys(now);
        self.end_sending(Ending::Forgotten, None, None);
        if let Some(observing) = self.observing.take() {
            self.end_registration(&observing, Ending::Forgotten);
        }
        self.send_at = now;
        self.register_at = now;
        self.act(now);
    }

    /// Hears that its address is another one now: what it observes has to be said again, and who it is, unless its keys tell.
    pub(super) fn moved(&mut self, now: Instant) {
        if self.config.keys.is_none() {
            self.speech.is_unknown();
        }
        if let Some(observing) = self.observing.take() {
            self.end_registration(&observing, Ending::Forgotten);
            self.endpoint.cancel(observing.id, now);
        }
        self.act(now);
    }

    /// A datagram came.
    pub(super) fn handle(&mut self, datagram: &[u8], now: Instant) {
        self.endpoint.handle(self.config.gateway, datagram, now);
        self.drain(now);
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: Instant) {
        self.endpoint.advance(now);
        self.drain(now);
    }

    /// When [`Peer::advance`] next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let send = (self.sending.is_none() && !self.outbox.is_empty()).then_some(self.send_at);
        let register = (self.wants && self.observing.is_none()).then_some(self.register_at);
        [self.endpoint.deadline(), send, register, self.refresh_at()].into_iter().flatten().min()
    }

    /// The next datagram to send. What must survive a reboot is kept before.
    pub(super) fn poll_datagram(&mut self) -> Option<Vec<u8>> {
        while let Some((key, memory)) = self.endpoint.poll_memory() {
            if key == MemoryKey::Context(KEYS) {
                self.kept = memory;
            }
        }
        self.endpoint.poll_datagram().map(|(_, datagram)| datagram)
    }

    /// The next nonce that it has used.
    pub(super) fn poll_used(&mut self) -> Option<Used> {
        self.endpoint.poll_used()
    }

    /// The next thing for an oracle.
    pub(super) fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// Messages that are not answered yet.
    pub(super) fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Whether its observation is registered.
    pub(super) fn is_observing(&self) -> bool {
        self.observing.as_ref().is_some_and(|observing| observing.asked.is_none())
    }

    /// Whether it wants to observe.
    pub(super) fn wants(&self) -> bool {
        self.wants
    }

    /// The time since which the oldest request waits.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let sending = self.sending.as_ref().map(|sending| sending.asked);
        let registering = self.observing.as_ref().and_then(|observing| observing.asked);
        sending.into_iter().chain(registering).min()
    }

    /// What it and the gateway know of each other, as far as it knows.
    pub(super) fn end(&self) -> Option<&ProxyEnd> {
        self.speech.end()
    }

    /// Whether it speaks the packed profile, where the gateway does.
    pub(super) fn is_packed(&self) -> bool {
        self.speech.is_packed()
    }

    /// Whether it has begun anew with nothing.
    pub(super) fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// What it spoke of the packed profile.
    pub(super) fn packed(&self) -> PackedTally {
        self.speech.told()
    }

    /// What its endpoint holds.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Takes in its keys, with what was kept of them.
    fn admit_keys(&mut self, now: Instant) {
        let Some(keys) = self.config.keys.clone() else { return };
        let admitted = self.endpoint.admit_keys(KEYS, self.config.association, keys);
        debug_assert_eq!(admitted, Ok(()), "the keys of a run are sound");
        let kept = self.kept.clone().map(|memory| (MemoryKey::Context(KEYS), memory));
        self.endpoint.recall(kept, now);
    }

    fn ask(&mut self, request: coap::Request, now: Instant) -> RequestId {
        let Config { association, gateway, .. } = self.config;
        self.endpoint.request_to(association, Priority::Message, gateway, request, now)
    }

    fn refresh_at(&self) -> Option<Instant> {
        let refresh = self.config.refresh.filter(|_| self.is_observing())?;
        Some(self.heard + refresh)
    }

    /// Does what is due.
    fn act(&mut self, now: Instant) {
        if self.refresh_at().is_some_and(|due| due <= now) {
            // The gateway is told what the device has, and either has more, or answers that it has not.
            if let Some(observing) = self.observing.take() {
                self.endpoint.cancel(observing.id, now);
            }
        }
        if self.sending.is_none() && self.send_at <= now {
            self.send_first(now);
        }
        if self.wants && self.observing.is_none() && self.register_at <= now {
            self.register(now);
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Response { id, response, notification } => {
                    self.received(id, &response, notification, now)
                }
                Event::Failed { id, error } => self.failed(id, error, now),
                // Nobody asks a device for anything, but who makes a request of what was a response.
                Event::Request { key, .. } => {
                    self.endpoint.respond(key, Response::new(Code::NOT_FOUND), now);
                }
                _ => {}
            }
        }
        self.act(now);
    }

    /// What was sent is over, or is tried again.
    fn end_sending(&mut self, end: Ending, made: Option<String>, answer: Option<usize>) {
        let Some(Asked { asked, bytes, .. }) = self.sending.take() else { return };
        let Some(first) = self.outbox.front() else { return };
        let is_question = matches!(first.what, What::Question(_));
        let attempt = (!is_question).then(|| first.attempt.clone());
        let is_once = is_question || matches!(first.what, What::Once);
        if is_once || matches!(end, Ending::Answered(status) if status.is_success()) {
            self.outbox.pop_front();
        }
        let bytes = Some(bytes + answer.unwrap_or_default());
        self.notes.push_back(Note::Ended { attempt, asked, end, made, bytes });
    }

    fn end_registration(&mut self, observing: &Observing, end: Ending) {
        if let Some(asked) = observing.asked {
            self.notes.push_back(Note::Ended { attempt: None, asked, end, made: None, bytes: None });
        }
    }
}

/// What a device without a past begins the packed profile with.
fn chance_of(seed: &[u8; 32]) -> [u8; 8] {
    seed.last_chunk().copied().unwrap_or_default()
}
