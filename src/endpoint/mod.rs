//! One socket's CoAP: all layers, many peers, both roles.
//!
//! Sans-IO: after every call that takes `now`, drain [`Endpoint::poll_memory`], [`Endpoint::poll_datagram`] and
//! [`Endpoint::poll_event`] until `None`, then sleep until [`Endpoint::deadline`]. OSCORE protects messages here; sessions of DTLS seal
//! datagrams between here and the network. A peer's state hangs on its [`Association`].

mod address;
mod agreement;
mod config;
mod devices;
mod event;
mod ids;
mod memory;
mod pacer;
mod peer;
mod pending;
mod queues;
mod sending;
mod sessions;
mod verified;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tracing::debug;

pub use crate::coap::Address;
use crate::coap::{
    Instant, Kind, Message, MessageId, ObservationId, Outgoing, Priority, Request, RequestError, Response,
    Step, Token,
};
use crate::security::oscore::{Challenges, Sealed, Used, is_protected};
pub use address::Association;
use agreement::Agreements;
pub use config::Config;
use devices::Devices;
pub use devices::{KeysNumber, NOT_PROTECTED};
pub use event::{Counters, Event, RequestId, RequestKey};
use ids::FirstIds;
pub use memory::{Memory, MemoryKey};
use pacer::Pacers;
pub use peer::{Binding, PeerAirtime};
use peer::{Outcome, Peer};
use pending::Pending;
use queues::{Places, Queues};
pub use sessions::Stranger;
use verified::{Credit, Verified};

/// All peers that one socket speaks with.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    chance: ChaCha8Rng,
    /// In boxes: a map has room for up to twice as many as it holds.
    peers: BTreeMap<Association, Box<Peer>>,
    devices: Devices,
    verified: Verified,
    /// How many peers there are without keys that have not shown to be where they say.
    strangers: usize,
    agreements: Option<Agreements>,
    queues: Queues,
    pacers: Pacers,
    pending: BTreeMap<RequestKey, Pending>,
    pending_bytes: usize,
    observations: BTreeMap<ObservationId, Association>,
    requests: BTreeMap<RequestId, Association>,
    next_number: u64,
    first_ids: FirstIds,
    datagrams: VecDeque<(Association, Address, Vec<u8>)>,
    /// Datagrams that are no messages, and whose turn it was.
    raw: VecDeque<(Address, Vec<u8>)>,
    events: VecDeque<Event>,
    memories: VecDeque<(MemoryKey, Option<Memory>)>,
    used: VecDeque<Used>,
    counters: Counters,
}

impl Endpoint {
    /// How long a peer may take to answer a challenge, at least.
    const FRESH: Duration = Duration::from_secs(4 * 3600);

    /// An endpoint without peers. All its randomness comes from `seed`.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut chance = ChaCha8Rng::from_seed(seed);
        // RFC 7252 §4.4: it begins with one that cannot be guessed.
        let first_ids = FirstIds::starting_at(MessageId(chance.next_u32() as u16));
        let mut secret = [0; 32];
        chance.fill_bytes(&mut secret);
        let devices = Devices::new(Challenges::new(secret, Self::FRESH));
        Self {
            pacers: Pacers::new(config.queued),
            verified: Verified::new(config.peers),
            strangers: 0,
            config,
            chance,
            first_ids,
            peers: BTreeMap::new(),
            devices,
            agreements: None,
            queues: Queues::default(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            observations: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_number: 0,
            datagrams: VecDeque::new(),
            raw: VecDeque::new(),
            events: VecDeque::new(),
            memories: VecDeque::new(),
            used: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in a datagram. What cannot be used is dropped and counted.
    pub fn handle(&mut self, address: Address, datagram: &[u8], now: Instant) {
        self.handle_from(address.into(), address, datagram, now);
    }

    /// As [`Endpoint::handle`], of a datagram of which is known whose it is.
    pub fn handle_from(&mut self, association: Association, address: Address, datagram: &[u8], now: Instant) {
        self.counters.received_datagrams += 1;
        self.counters.received_bytes += datagram.len() as u64;
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(error) => {
                self.counters.malformed += 1;
                debug!(remote = %address.remote, %error, "datagram dropped");
                // RFC 7252 §4.2: a confirmable message that cannot be processed is rejected.
                if let Some(reset) = error.reset() {
                    self.reset(association, address, &reset, now);
                }
                return;
            }
        };
        let is_plain = matches!(association, Association::Plain(_));
        // Within a session of another layer, no keys are agreed on.
        let message = match is_plain {
            true => self.handle_edhoc(address, message, datagram.len(), now),
            false => Some(message),
        };
        let Some(message) = message else { return };
        if message.code.is_request() && is_protected(&message) {
            return match is_plain {
                true => self.handle_protected(address, message, datagram.len(), now),
                false => self.refuse_twice_protected(association, address, &message, now),
            };
        }
        if message.code.is_request() && is_plain && !self.config.plain {
            return self.refuse_plain(address, &message, datagram.len(), now);
        }
        let expects = |peer: &&Association| self.peers.get(*peer).is_some_and(|peer| peer.expects(&message));
        let device = if message.code.is_request() || !is_plain {
            None
        } else {
            self.devices.at(address).find(|peer| expects(&peer))
        };
        let association = device.unwrap_or(association);
        self.move_peer(association, address);
        self.take_in(address, association, message, datagram.len(), now);
    }

    /// Takes in a message that nothing more is to be asked about.
    fn take_in(
        &mut self,
        address: Address,
        association: Association,
        message: Message,
        length: usize,
        now: Instant,
    ) {
        let shown = message.code.is_request() && self.is_shown(association, address, &message, now);
        if !self.peers.contains_key(&association) {
            // A stranger has nothing to say but requests: the rest makes no state.
            if !message.code.is_request() {
                return self.reject(association, address, &message, now);
            }
            if !shown && self.strangers >= self.config.strangers.min(self.config.peers / 2) {
                return self.challenge_stranger(address, &message, length, now);
            }
            if !self.admit(association, address, now) {
                self.counters.peers_refused += 1;
                return;
            }
        }
        self.heard(association, address, length, now);
        self.with_peer(association, now, |peer, _| {
            peer.hear(now);
            match message.code.is_request() {
                true => peer.exchanges.receive(message, now),
                false => peer.receive_answer(message, now),
            }
        });
    }

    /// Sends a request of ours. An observation stays open until [`Endpoint::cancel`], an error response, or [`Event::Failed`].
    pub fn request(&mut self, address: Address, request: Request, now: Instant) -> RequestId {
        self.request_as(Priority::Message, address, request, now)
    }

    /// As [`Endpoint::request`], with another priority. One of [`Priority::Background`] takes the place of an earlier one for the same
    /// path that has not left yet, which fails with [`RequestError::Superseded`].
    pub fn request_as(
        &mut self,
        priority: Priority,
        address: Address,
        request: Request,
        now: Instant,
    ) -> RequestId {
        self.request_to(address.into(), priority, address, request, now)
    }

    /// As [`Endpoint::request_as`], of one with keys ([`Endpoint::admit_keys`]) that is at this address, unless it has been heard of at
    /// another: protected.
    pub fn request_to(
        &mut self,
        association: Association,
        priority: Priority,
        address: Address,
        request: Request,
        now: Instant,
    ) -> RequestId {
        let id = RequestId(self.number());
        if !self.peers.contains_key(&association) && !self.admit(association, address, now) {
            self.events.push_back(Event::Failed { id, error: RequestError::Busy });
            return id;
        }
        // It is our user who says where it is.
        self.set_credit(association, None);
        self.requests.insert(id, association);
        let token = self.fresh_token(association);
        let agreed = self.devices.agreed.remove(&association);
        self.with_peer(association, now, |peer, _| {
            agreed.into_iter().for_each(|(number, agreed)| peer.precede(number, agreed));
            peer.request(id.0, request, token, priority, now);
        });
        id
    }

    /// Forgets a request of ours; an observation is deregistered.
    pub fn cancel(&mut self, id: RequestId, now: Instant) {
        let Some(association) = self.requests.remove(&id) else { return };
        self.with_peer(association, now, |peer, _| peer.cancel(id.0, now));
    }

    /// Forgets a request of ours without telling the peer: for an observation that another takes the place of, which the peer finds
    /// out by itself.
    pub fn abandon(&mut self, id: RequestId, now: Instant) {
        let Some(association) = self.requests.remove(&id) else { return };
        self.with_peer(association, now, |peer, _| drop(peer.forget(id.0, now)));
    }

    /// Sends a notification, which is confirmable; its end is reported as [`Event::Delivered`] or [`Event::Undelivered`]. One with
    /// an error code ends the observation (RFC 7641 §4.2).
    pub fn notify(&mut self, id: ObservationId, response: Response, priority: Priority, now: Instant) {
        let Some(association) = self.observations.get(&id).copied() else { return };
        let ends = !response.code.is_success();
        self.with_peer(association, now, |peer, _| peer.notify(id, response, priority, now));
        if ends {
            self.end_observation(id, now);
        }
    }

    /// Sends a notification again after a restart, with the value of Observe that it had: a peer that has it already does
    /// not take it for another (RFC 7641 §3.4).
    pub fn notify_again(&mut self, id: ObservationId, response: Response, sequence: u32, now: Instant) {
        let Some(association) = self.observations.get(&id).copied() else { return };
        self.with_peer(association, now, |peer, _| {
            peer.notify_again(id, response, sequence, now);
        });
    }

    /// The value of Observe in an observation's last notification.
    pub fn sequence(&self, id: ObservationId) -> Option<u32> {
        self.peers.get(self.observations.get(&id)?)?.observations.sequence(id)
    }

    /// The token of an observation.
    pub fn token(&self, id: ObservationId) -> Option<Token> {
        let (token, _) = self.peers.get(self.observations.get(&id)?)?.observations.get(id)?;
        Some(token)
    }

    /// Whether its peer certainly knows of an observation: it has acknowledged a message with the observation's token. Blocks are
    /// fetched by other tokens, and may have been for another observation of the same events.
    pub fn is_confirmed(&self, id: ObservationId) -> bool {
        let peer = self.observations.get(&id).and_then(|association| self.peers.get(association));
        peer.and_then(|peer| peer.observations.get(id)).is_some_and(|(_, observation)| observation.confirmed)
    }

    /// Whose an observation is.
    pub fn association(&self, id: ObservationId) -> Option<Association> {
        self.observations.get(&id).copied()
    }

    /// All observations.
    pub fn observations(&self) -> impl Iterator<Item = ObservationId> {
        self.observations.keys().copied()
    }

    /// The link that is assumed for a peer, where one is known.
    pub fn link(&self, association: Association) -> Option<&str> {
        self.peers.get(&association)?.terms.link.as_deref()
    }

    /// Whether a registration that waits for its answer was sent before that of this observation of the same peer's, as their sequence
    /// numbers say: it was overtaken, or somebody has kept it back.
    pub fn is_overtaken(&self, key: RequestKey, by: ObservationId) -> bool {
        let Some(pending) = self.pending.get(&key) else { return false };
        let peer = self
            .peers
            .get(&pending.association)
            .filter(|_| self.association(by) == Some(pending.association));
        let newer = peer.and_then(|peer| peer.binding(by));
        pending.request.binding.as_ref().zip(newer).is_some_and(|(this, newer)| this.is_before(newer))
    }

    /// How much later than one that was sent after it a peer's datagram may come: two of the longest round trips, and half a
    /// minute for networks of which nothing is known; at most MAX_LATENCY (RFC 7252 §4.8.2).
    pub fn reordering(&self, association: Association) -> Option<Duration> {
        let parameters = self.peers.get(&association)?.exchanges.parameters();
        let usual = parameters.longest_timeout() * 2 + Duration::from_secs(30);
        Some(usual.min(parameters.max_latency))
    }

    /// What a peer has taken up of its link since it has been known here.
    pub fn airtime(&self, association: Association) -> Option<PeerAirtime> {
        self.peers.get(&association).map(|peer| peer.airtime)
    }

    /// Asks whether a peer is there, by a ping that is not repeated. Anything that comes from it from now on is reported as
    /// [`Event::Reachable`], once; no answer as [`Event::Unreachable`].
    pub fn probe(&mut self, association: Association, now: Instant) {
        if !self.peers.contains_key(&association) {
            return self.events.push_back(Event::Unreachable(association));
        }
        self.with_peer(association, now, |peer, _| peer.probe(now));
    }

    /// Ends an observation without telling the peer.
    pub fn end_observation(&mut self, id: ObservationId, now: Instant) {
        let Some(association) = self.observations.remove(&id) else { return };
        self.forget(MemoryKey::Observation(id));
        self.with_peer(association, now, |peer, _| peer.end_observation(id, now));
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        while let Some((_, association)) = self.queues.first_due().filter(|(due, _)| *due <= now) {
            self.with_peer(association, now, |peer, _| peer.advance(now));
        }
        self.advance_edhoc(now);
        self.flush(now);
    }

    /// When [`Endpoint::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.queues.first_due().map(|(due, _)| due);
        [due, self.pacers.deadline(), self.edhoc_deadline()].into_iter().flatten().min()
    }

    /// The next datagram to send.
    pub fn poll_datagram(&mut self) -> Option<(Address, Vec<u8>)> {
        self.poll_datagram_of().map(|(_, address, datagram)| (address, datagram))
    }

    /// As [`Endpoint::poll_datagram`], with whom it is meant for.
    pub fn poll_datagram_of(&mut self) -> Option<(Association, Address, Vec<u8>)> {
        self.datagrams.pop_front()
    }

    /// The next nonce that a message was sealed with, for those who see to it that none is used twice. Only where
    /// [`Config::tell_nonces`] is set.
    pub fn poll_used(&mut self) -> Option<Used> {
        self.used.pop_front()
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

    /// How many datagrams wait for their turn on a link.
    pub fn queued(&self) -> usize {
        self.pacers.len()
    }

    /// When the first of those may leave that wait for their turn on a link.
    pub fn departure(&self) -> Option<Instant> {
        self.pacers.deadline()
    }

    /// Whether every message of ours is acknowledged and nobody's request waits.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
            && self.datagrams.is_empty()
            && self.raw.is_empty()
            && self.pacers.len() == 0
            && self.peers.values().all(|peer| !peer.exchanges.is_sending())
    }

    /// Does something with a peer, and then all that follows from it.
    fn with_peer(&mut self, association: Association, now: Instant, act: impl FnOnce(&mut Peer, &Config)) {
        self.touch(association, now, act);
        self.flush(now);
        while self.queues.held_bytes() > self.config.bytes {
            let Some(holding) = self.queues.first_holding() else { return };
            self.touch(holding, now, |peer, _| peer.server.clear());
        }
    }

    fn touch(&mut self, association: Association, now: Instant, act: impl FnOnce(&mut Peer, &Config)) {
        self.reserve_numbers(association);
        let Some(peer) = self.peers.get_mut(&association) else { return };
        act(peer, &self.config);
        self.pump(association, now);
        self.forget_requests(association);
        let Some(peer) = self.peers.get_mut(&association) else { return };
        let counts = peer.exchanges.take_counts();
        self.counters.duplicates += counts.duplicates;
        self.counters.repeats += counts.repeats;
        self.counters.timeouts += counts.timeouts;
        let (sealed, is_idle) = (std::mem::take(&mut peer.protection.sealed), peer.is_idle(now));
        sealed.iter().for_each(|sealed| self.note(sealed));
        if is_idle {
            self.pacers.forget_idle(now);
            return self.drop_peer(association);
        }
        if let Some(peer) = self.peers.get_mut(&association) {
            peer.rest();
            self.first_ids.avoid(peer.exchanges.next_id());
        }
        self.remember_peer(association);
        self.place(association);
    }

    /// Puts a peer where it belongs in the queues.
    fn place(&mut self, association: Association) {
        let Some(peer) = self.peers.get_mut(&association) else { return };
        let places = peer.places();
        self.queues.shift(association, std::mem::replace(&mut peer.placed, places), places);
    }

    /// Carries out what a peer's layers have to say, until they are silent.
    fn pump(&mut self, association: Association, now: Instant) {
        loop {
            let fresh = self.fresh_token(association);
            let Some(peer) = self.peers.get_mut(&association) else { return };
            if let Some(outcome) = peer.poll(fresh, &self.config, now) {
                self.report(association, outcome, now);
                continue;
            }
            // Only now: what happened may have made some of it pointless.
            let address = peer.address;
            let outgoing: Vec<_> = std::iter::from_fn(|| peer.exchanges.poll_datagram()).collect();
            if outgoing.is_empty() {
                return;
            }
            for outgoing in outgoing {
                if self.may_get(association, &outgoing, now) {
                    self.send(association, address, outgoing, now);
                }
            }
        }
    }

    fn report(&mut self, association: Association, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Request { asked, request, plan, memory } => {
                self.admit_request(association, asked, request, plan, memory.map(|memory| *memory), now)
            }
            Outcome::Delivered(id) => self.events.push_back(Event::Delivered(id)),
            Outcome::Undelivered(id) => self.events.push_back(Event::Undelivered(id)),
            Outcome::Deregistered(id) => {
                self.observations.remove(&id);
                self.forget(MemoryKey::Observation(id));
                self.events.push_back(Event::Deregistered(id));
            }
            Outcome::Reachable => self.events.push_back(Event::Reachable(association)),
            Outcome::Unreachable => self.events.push_back(Event::Unreachable(association)),
            Outcome::UnknownLink => self.counters.unknown_links += 1,
            Outcome::Client(step) => self.report_client(step),
            Outcome::BadOption => self.counters.bad_options += 1,
            Outcome::Unopened => self.counters.unopened += 1,
            Outcome::Unprotected(response) => {
                self.counters.unopened += 1;
                self.events.push_back(Event::Unprotected { association, response });
            }
            Outcome::Unexpected => self.counters.unexpected_responses += 1,
            Outcome::Challenged => self.counters.challenges += 1,
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
            Step::Send(_) | Step::SendBurst { .. } | Step::Nothing | Step::Unknown => {}
        }
    }

    /// Makes room for a new peer; `false` where there is none.
    fn admit(&mut self, association: Association, address: Address, now: Instant) -> bool {
        if self.peers.len() >= self.config.peers {
            let Some(expendable) = self.queues.first_expendable() else { return false };
            self.drop_peer(expendable);
        }
        let mut peer = Peer::new(address, &self.config, self.chance.next_u64(), now);
        peer.exchanges.resume_ids(self.first_ids.take());
        peer.protection.contexts = self.devices.take(association);
        if let Some(link) = self.devices.link(association) {
            peer.assign(Some(link), &self.config);
        }
        self.devices.arrive(association, address);
        self.peers.insert(association, Box::new(peer));
        if !self.is_verified(association, address, now) {
            self.set_credit(association, Some(Credit::default()));
        }
        true
    }

    fn drop_peer(&mut self, association: Association) {
        self.set_credit(association, None);
        if let Some(mut peer) = self.peers.remove(&association) {
            self.queues.shift(association, peer.placed, Places::default());
            self.forget_peer(association, &peer);
            self.devices.leave(association, peer.address);
            self.devices.put_back(std::mem::take(&mut peer.protection.contexts));
        }
    }

    /// RFC 7252 §4.2, §4.3: what is not expected is reset where it is confirmable, and ignored otherwise.
    fn reject(&mut self, association: Association, address: Address, message: &Message, now: Instant) {
        self.counters.unexpected_responses += u64::from(message.code.is_response());
        if message.kind == Kind::Confirmable {
            self.reset(association, address, &Message::empty(Kind::Reset, message.id), now);
        }
    }

    fn reset(&mut self, association: Association, address: Address, reset: &Message, now: Instant) {
        let mut outgoing = Outgoing::reply(reset.encode());
        if !self.peers.contains_key(&association) {
            // Strangers keep nobody waiting.
            outgoing.priority = Priority::Background;
        }
        self.send(association, address, outgoing, now);
        self.flush(now);
    }

    fn note(&mut self, sealed: &Sealed) {
        if self.config.tell_nonces {
            self.used.push_back(sealed.used.clone());
        }
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
