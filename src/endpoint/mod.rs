//! One socket's CoAP: all layers, many peers, both roles.
//!
//! Sans-IO: after every call that takes `now`, drain [`Endpoint::poll_datagram`] and [`Endpoint::poll_event`] until `None`, then sleep
//! until [`Endpoint::deadline`]. Security will open and seal datagrams between here and the network; a peer's state hangs on
//! its [`Address`], which stands for the association.

mod peer;
mod queues;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::coap::{
    Instant, Kind, Limits, Message, ObservationId, Observe, Parameters, Plan, Request, RequestError,
    Response, Step, Token, TransferLimits,
};
use peer::{Outcome, Peer};
use queues::{Places, Queues};

/// All peers that one socket speaks with.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    chance: ChaCha8Rng,
    peers: BTreeMap<Association, Peer>,
    queues: Queues,
    pending: BTreeMap<RequestKey, Pending>,
    pending_bytes: usize,
    observations: BTreeMap<ObservationId, Association>,
    requests: BTreeMap<RequestId, Association>,
    next_number: u64,
    datagrams: VecDeque<(Address, Vec<u8>)>,
    events: VecDeque<Event>,
    counters: Counters,
}

/// Where a peer is, and where it reached us: answers leave from the address that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our address that the peer's datagrams came to; unspecified on a client's socket.
    pub local: IpAddr,
}

/// Whom we speak with, wherever it is: all that is known of a peer hangs on this. For plain CoAP it is made from the peer's
/// address, so that a peer with a new address is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Association(Address);

impl From<Address> for Association {
    fn from(address: Address) -> Self {
        Self(address)
    }
}

/// How an endpoint behaves towards each peer, and how much it takes up in all.
#[derive(Clone, Debug)]
pub struct Config {
    /// Transmission parameters.
    pub parameters: Parameters,
    /// What one peer's exchanges may take up.
    pub exchanges: Limits,
    /// What one peer's transfers may take up.
    pub transfers: TransferLimits,
    /// Peers at a time. At the limit the one unheard of for longest goes, if nothing waits for it.
    pub peers: usize,
    /// Requests of one peer at a time that wait for their answer; 5.03 beyond that.
    pub pending: usize,
    /// Observations of one peer at a time; a registration beyond that is answered, and not registered (RFC 7641 §4.1).
    pub observations: usize,
    /// Bytes of bodies of all peers at a time: of those in transfer, and again of those of requests that wait for their
    /// answer. Over it, what the peer unheard of for longest has in transfer goes; a request is answered with 5.03.
    pub bytes: usize,
    /// Bytes of random in a token of ours, 1 to 8.
    pub token_length: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            parameters: Parameters::default(),
            exchanges: Limits::default(),
            transfers: TransferLimits::default(),
            peers: 10_000,
            pending: 32,
            observations: 8,
            bytes: 256 << 20,
            token_length: 4,
        }
    }
}

/// A peer's request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey(u64);

/// A request of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer's request is complete. It is answered with [`Endpoint::respond`] or [`Endpoint::accept_observation`].
    Request {
        /// What it is answered by.
        key: RequestKey,
        /// Whose it is.
        association: Association,
        /// The request.
        request: Request,
    },
    /// All of an observation's last notification, or of the answer to its registration, was acknowledged.
    Delivered(ObservationId),
    /// An observation's last notification was not acknowledged, or its blocks were not asked for. The observation goes on.
    Undelivered(ObservationId),
    /// The peer has ended or replaced an observation.
    Deregistered(ObservationId),
    /// The response to a request of ours.
    Response {
        /// The request.
        id: RequestId,
        /// The response.
        response: Response,
        /// Whether it is a notification that more may follow.
        notification: bool,
    },
    /// A request of ours, or an observation, has failed.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: RequestError,
    },
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Datagrams that came.
    pub received_datagrams: u64,
    /// Bytes of UDP payload that came.
    pub received_bytes: u64,
    /// Datagrams that were sent.
    pub sent_datagrams: u64,
    /// Bytes of UDP payload that were sent.
    pub sent_bytes: u64,
    /// Datagrams that are no CoAP message.
    pub malformed: u64,
    /// Datagrams of new peers dropped because there are too many.
    pub peers_refused: u64,
    /// Messages that had come before.
    pub duplicates: u64,
    /// Messages of ours that were sent again.
    pub repeats: u64,
    /// Messages of ours that were never acknowledged.
    pub timeouts: u64,
    /// Messages with a critical option that is not understood.
    pub bad_options: u64,
    /// Complete requests.
    pub requests: u64,
    /// Requests refused because too many of the same peer waited, or too many bytes of all peers' requests.
    pub requests_refused: u64,
    /// Answers and notifications dropped because too many messages waited for the peer, or the peer was gone.
    pub answers_dropped: u64,
    /// Responses and notifications that belong to no request.
    pub unexpected_responses: u64,
}

/// A peer's request between its arrival and its answer.
#[derive(Debug)]
struct Pending {
    association: Association,
    request: peer::Asked,
    plan: Plan,
    observe: Option<Observe>,
    bytes: usize,
}

impl Endpoint {
    /// An endpoint without peers. All its randomness comes from `seed`.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            config,
            chance: ChaCha8Rng::from_seed(seed),
            peers: BTreeMap::new(),
            queues: Queues::default(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            observations: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_number: 0,
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in a datagram. What cannot be used is dropped and counted.
    pub fn handle(&mut self, address: Address, datagram: &[u8], now: Instant) {
        self.counters.received_datagrams += 1;
        self.counters.received_bytes += datagram.len() as u64;
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(error) => {
                self.counters.malformed += 1;
                debug!(remote = %address.remote, %error, "datagram dropped");
                // RFC 7252 §4.2: a confirmable message that cannot be processed is rejected.
                if let Some(reset) = error.reset() {
                    self.send(address, reset.encode());
                }
                return;
            }
        };
        let association = Association::from(address);
        if !self.peers.contains_key(&association) {
            // A stranger has nothing to say but requests: the rest makes no state.
            if !message.code.is_request() {
                return self.reject(address, &message);
            }
            if !self.admit(association, address, now) {
                self.counters.peers_refused += 1;
                return;
            }
        }
        self.with_peer(association, now, |peer, _| {
            peer.heard = now;
            peer.exchanges.receive(message, now);
        });
    }

    /// Sends a request of ours. An observation stays open until [`Endpoint::cancel`], an error response, or [`Event::Failed`].
    pub fn request(&mut self, address: Address, request: Request, now: Instant) -> RequestId {
        let id = RequestId(self.number());
        let association = Association::from(address);
        if !self.peers.contains_key(&association) && !self.admit(association, address, now) {
            self.events.push_back(Event::Failed { id, error: RequestError::Busy });
            return id;
        }
        self.requests.insert(id, association);
        let token = self.fresh_token(association);
        self.with_peer(association, now, |peer, config| peer.request(id.0, request, token, config, now));
        id
    }

    /// Forgets a request of ours; an observation is deregistered.
    pub fn cancel(&mut self, id: RequestId, now: Instant) {
        let Some(association) = self.requests.remove(&id) else { return };
        self.with_peer(association, now, |peer, config| peer.cancel(id.0, config, now));
    }

    /// Answers a peer's request.
    pub fn respond(&mut self, key: RequestKey, response: Response, now: Instant) {
        let Some(Pending { association, request, plan, .. }) = self.take_pending(key) else { return };
        self.with_peer(association, now, |peer, config| {
            peer.respond(&request, plan, response, None, config, now)
        });
    }

    /// Answers a peer's registration and takes it as an observer (RFC 7641 §4.1), unless it has too many observations
    /// already or did not ask: then it is answered all the same. The answer's arrival is reported.
    pub fn accept_observation(
        &mut self,
        key: RequestKey,
        response: Response,
        now: Instant,
    ) -> Option<ObservationId> {
        let Pending { association, request, plan, observe, .. } = self.take_pending(key)?;
        let id = ObservationId(self.number());
        let mut accepted = false;
        self.with_peer(association, now, |peer, config| {
            let fits = peer.observations.len() < config.observations;
            accepted = fits && observe == Some(Observe::Register) && response.code.is_success();
            if accepted {
                peer.register(&request, id, plan.clone(), now);
            }
            peer.respond(&request, plan, response, accepted.then_some(id), config, now);
        });
        // The peer may have gone while its request waited.
        let accepted = accepted && self.peers.contains_key(&association);
        accepted.then(|| self.observations.insert(id, association));
        accepted.then_some(id)
    }

    /// Sends a notification, which is confirmable; its end is reported as [`Event::Delivered`] or [`Event::Undelivered`]. One with
    /// an error code ends the observation (RFC 7641 §4.2).
    pub fn notify(&mut self, id: ObservationId, response: Response, now: Instant) {
        let Some(association) = self.observations.get(&id).copied() else { return };
        let ends = !response.code.is_success();
        self.with_peer(association, now, |peer, config| peer.notify(id, response, config, now));
        if ends {
            self.end_observation(id, now);
        }
    }

    /// Ends an observation without telling the peer.
    pub fn end_observation(&mut self, id: ObservationId, now: Instant) {
        let Some(association) = self.observations.remove(&id) else { return };
        self.with_peer(association, now, |peer, _| peer.end_observation(id, now));
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        while let Some((_, association)) = self.queues.first_due().filter(|(due, _)| *due <= now) {
            self.with_peer(association, now, |peer, _| peer.advance(now));
        }
    }

    /// When [`Endpoint::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.queues.first_due().map(|(due, _)| due)
    }

    /// The next datagram to send.
    pub fn poll_datagram(&mut self) -> Option<(Address, Vec<u8>)> {
        self.datagrams.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many peers are held.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// How many peers' requests wait for their answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether every message of ours is acknowledged and nobody's request waits.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
            && self.datagrams.is_empty()
            && self.peers.values().all(|peer| !peer.exchanges.is_sending())
    }

    /// Does something with a peer, and then all that follows from it.
    fn with_peer(&mut self, association: Association, now: Instant, act: impl FnOnce(&mut Peer, &Config)) {
        self.touch(association, now, act);
        while self.queues.held_bytes() > self.config.bytes {
            let Some(holding) = self.queues.first_holding() else { return };
            self.touch(holding, now, |peer, _| peer.server.clear());
        }
    }

    fn touch(&mut self, association: Association, now: Instant, act: impl FnOnce(&mut Peer, &Config)) {
        let Some(peer) = self.peers.get_mut(&association) else { return };
        act(peer, &self.config);
        self.pump(association, now);
        let Some(peer) = self.peers.get_mut(&association) else { return };
        let counts = peer.exchanges.take_counts();
        self.counters.duplicates += counts.duplicates;
        self.counters.repeats += counts.repeats;
        self.counters.timeouts += counts.timeouts;
        if peer.is_idle() {
            return self.drop_peer(association);
        }
        let places = peer.places();
        self.queues.shift(association, std::mem::replace(&mut peer.placed, places), places);
    }

    /// Carries out what a peer's layers have to say, until they are silent.
    fn pump(&mut self, association: Association, now: Instant) {
        loop {
            let fresh = self.fresh_token(association);
            let Some(peer) = self.peers.get_mut(&association) else { return };
            let (address, outcome) = (peer.address, peer.poll(fresh, &self.config, now));
            while let Some(datagram) = peer.exchanges.poll_datagram() {
                self.counters.sent_datagrams += 1;
                self.counters.sent_bytes += datagram.len() as u64;
                self.datagrams.push_back((address, datagram));
            }
            match outcome {
                Some(outcome) => self.report(association, outcome, now),
                None => return,
            }
        }
    }

    fn report(&mut self, association: Association, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Request { asked, request, plan } => {
                self.admit_request(association, asked, request, plan, now)
            }
            Outcome::Delivered(id) => self.events.push_back(Event::Delivered(id)),
            Outcome::Undelivered(id) => self.events.push_back(Event::Undelivered(id)),
            Outcome::Deregistered(id) => {
                self.observations.remove(&id);
                self.events.push_back(Event::Deregistered(id));
            }
            Outcome::Client(step) => self.report_client(step),
            Outcome::BadOption => self.counters.bad_options += 1,
            Outcome::Unexpected => self.counters.unexpected_responses += 1,
            Outcome::AnswerDropped => self.counters.answers_dropped += 1,
        }
    }

    fn report_client(&mut self, step: Step) {
        match step {
            Step::Complete { id, response, notification } => {
                let id = RequestId(id);
                if !notification {
                    self.requests.remove(&id);
                }
                self.events.push_back(Event::Response { id, response, notification });
            }
            Step::Failed { id, error } => {
                self.requests.remove(&RequestId(id));
                self.events.push_back(Event::Failed { id: RequestId(id), error });
            }
            Step::Send(_) | Step::Nothing | Step::Unknown => {}
        }
    }

    /// Reports a peer's request, or refuses it where too many wait.
    fn admit_request(
        &mut self,
        association: Association,
        asked: peer::Asked,
        request: Request,
        plan: Plan,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&association) else { return };
        if request.observe == Some(Observe::Deregister) {
            // RFC 7641 §3.6: it may overtake the answer to the registration that it takes back.
            let same =
                |key: &&RequestKey| self.pending.get(key).is_some_and(|it| it.request.token == asked.token);
            for key in peer.pending.iter().filter(same).copied().collect::<Vec<_>>() {
                self.pending.entry(key).and_modify(|pending| pending.observe = None);
            }
        }
        let bytes = request.payload.len();
        if peer.pending.len() >= self.config.pending || self.pending_bytes + bytes > self.config.bytes {
            self.counters.requests_refused += 1;
            peer.respond(&asked, plan, peer::too_busy(), None, &self.config, now);
            return;
        }
        self.next_number += 1;
        let key = RequestKey(self.next_number);
        peer.pending.insert(key);
        self.pending_bytes += bytes;
        self.counters.requests += 1;
        let observe = request.observe;
        self.pending.insert(key, Pending { association, request: asked, plan, observe, bytes });
        self.events.push_back(Event::Request { key, association, request });
    }

    fn take_pending(&mut self, key: RequestKey) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        if let Some(peer) = self.peers.get_mut(&pending.association) {
            peer.pending.remove(&key);
        }
        self.pending_bytes -= pending.bytes;
        Some(pending)
    }

    /// Makes room for a new peer; `false` where there is none.
    fn admit(&mut self, association: Association, address: Address, now: Instant) -> bool {
        if self.peers.len() >= self.config.peers {
            let Some(expendable) = self.queues.first_expendable() else { return false };
            self.drop_peer(expendable);
        }
        self.peers.insert(association, Peer::new(address, &self.config, self.chance.next_u64(), now));
        true
    }

    fn drop_peer(&mut self, association: Association) {
        if let Some(peer) = self.peers.remove(&association) {
            self.queues.shift(association, peer.placed, Places::default());
        }
    }

    /// RFC 7252 §4.2, §4.3: what is not expected is reset where it is confirmable, and ignored otherwise.
    fn reject(&mut self, address: Address, message: &Message) {
        self.counters.unexpected_responses += u64::from(message.code.is_response());
        if message.kind == Kind::Confirmable {
            self.send(address, Message::empty(Kind::Reset, message.id).encode());
        }
    }

    fn send(&mut self, address: Address, datagram: Vec<u8>) {
        self.counters.sent_datagrams += 1;
        self.counters.sent_bytes += datagram.len() as u64;
        self.datagrams.push_back((address, datagram));
    }

    fn fresh_token(&mut self, association: Association) -> Token {
        loop {
            let random = self.chance.next_u64().to_be_bytes();
            let length = self.config.token_length.clamp(1, Token::MAX_LENGTH);
            let token = random.get(..length).and_then(Token::new).unwrap_or(Token::EMPTY);
            if self.peers.get(&association).is_none_or(|peer| !peer.client.contains(token)) {
                return token;
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}
