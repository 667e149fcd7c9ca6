//! The packed profile at a gateway: what it and each peer know of each other, and how they come to agree (docs/packed.md).
//!
//! What changes here is stored before a message leaves that depends on it. Who is not known here any more begins anew, and nothing is lost but
//! bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::debug;

use super::journal::Journal;
use super::memory::{Key, StoredFormat};
use super::{Config, Gateway};
use crate::coap;
use crate::coap::{Code, Instant, ObservationId, Priority};
use crate::codec::Keys;
use crate::endpoint::{Association, RequestKey};
use crate::matrix::query;
use crate::matrix::route::operation;
use crate::packed::{
    Agreement, Asked, Dictionary, Encoded, GatewayEnd, Limits, MessageNumber, Primer, Spelling,
};
use crate::translate;
use crate::translate::packed::{Hello, Identity, VERSION, Welcome, call};
use crate::translate::{Call, Format, Refusal, Session, response};

/// The ends of all peers, bounded in number.
#[derive(Debug)]
pub(super) struct Packed {
    ends: BTreeMap<Association, Peer>,
    /// The same, the one unused for longest first.
    used: BTreeSet<(u64, Association)>,
    /// Those that are to be stored, or forgotten where they are not there any more.
    changed: BTreeSet<Association>,
    /// The records of changes of those that are to be forgotten.
    forgotten: Vec<(Association, Journal)>,
    uses: u64,
    most: usize,
    dictionaries: Vec<Dictionary>,
    /// The dictionaries whose models it was asked to make ready, by hash.
    primed: BTreeSet<[u8; 32]>,
    limits: Limits,
    /// Requests that wait until the model is ready.
    waiting: VecDeque<Waiting>,
    /// What tells the tokens of this process from those of others.
    seed: [u8; 32],
    generations: u64,
}

/// One peer's end, with the dictionary that it has, and when it was used.
#[derive(Debug)]
struct Peer {
    known: End,
    dictionary: Dictionary,
    used: u64,
}

/// A request that has come before the model was ready.
#[derive(Debug)]
struct Waiting {
    key: RequestKey,
    peer: Association,
    request: coap::Request,
    recalled: bool,
}

/// So many may wait.
const MOST_WAITING: usize = 64;

/// What is stored of a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) end: GatewayEnd,
    /// The peer's dictionary.
    identity: Identity,
    /// The epoch that the peer asked for: a repetition of that gets the same answer.
    proposed: u32,
    /// The last positions that it was given, and by which messages: who goes on from one has read it. One that several gave says of none of them
    /// that it was read.
    given: VecDeque<(String, Option<MessageNumber>)>,
    /// The number of the first change that is not in this.
    #[serde(default)]
    pub(super) first_change: u64,
    #[serde(skip)]
    pub(super) journal: Journal,
}

/// As many positions are remembered with their messages.
const GIVEN: usize = 16;

impl Packed {
    pub(super) fn new(config: &Config, seed: &[u8; 32]) -> Self {
        Self {
            ends: BTreeMap::new(),
            used: BTreeSet::new(),
            changed: BTreeSet::new(),
            forgotten: Vec::new(),
            uses: 0,
            most: config.packed,
            dictionaries: config.dictionaries.clone(),
            primed: BTreeSet::new(),
            limits: Limits { output: config.codec.output, ..Limits::OF_REQUEST },
            waiting: VecDeque::new(),
            seed: *seed,
            generations: 0,
        }
    }

    /// Whether the profile is spoken here at all.
    pub(super) fn is_spoken(&self) -> bool {
        self.most > 0
    }

    /// How many peers there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is an agreement with a peer.
    pub(super) fn knows(&self, peer: Association) -> bool {
        self.ends.contains_key(&peer)
    }

    /// What a packed request asks of the homeserver; nothing, where it is to begin an agreement.
    pub(super) fn call(
        &mut self,
        peer: Association,
        request: &coap::Request,
        given: &Session,
    ) -> Result<Option<Call>, Refusal> {
        if Hello::begins(&request.payload) {
            // RFC 8132 §2: what is safe changes nothing.
            return if request.method == Code::POST {
                Ok(None)
            } else {
                Err(Refusal::Method(request.method))
            };
        }
        let limits = self.limits;
        let Peer { known, dictionary, .. } = self.of(peer).ok_or(Refusal::NoAgreement)?;
        let (read, asked) = known.end.decode_request(&request.payload, dictionary, limits)?;
        // What the client holds in the place of a token that is kept here.
        let own = match given.token() {
            Some(token) => known.end.access_token(token).map_err(|_| Refusal::UnknownToken)?,
            None => None,
        };
        let session = own.map(|token| given.with_token(token)).transpose()?;
        let call = call(request.method, read, asked, session.as_ref().unwrap_or(given))?;
        known.has_read(&call);
        Ok(Some(call))
    }

    /// Agrees with a peer: the answer, and whether a new epoch begins by it.
    fn agree(&mut self, peer: Association, hello: Hello) -> Result<(Welcome, bool), Refusal> {
        let Some(dictionary) = self.dictionary(hello.identity) else {
            let ours = self.dictionaries().iter().map(Identity::of).collect();
            return Err(Refusal::Dictionary { ours, theirs: hello.identity });
        };
        let tokens = self.generation();
        let (begins, agreement) = match self.of(peer) {
            Some(peer) => {
                let begins = peer.known.begin(hello);
                peer.dictionary = dictionary;
                (begins, peer.known.end.agreement())
            }
            None => {
                let Hello { epoch, transactions, identity, .. } = hello;
                let agreement = Agreement { epoch, tokens, transactions };
                let end = End::new(GatewayEnd::new(agreement), identity, epoch);
                self.insert(peer, end, dictionary);
                (true, agreement)
            }
        };
        let Agreement { epoch, tokens, .. } = agreement;
        Ok((Welcome { version: hello.version.min(VERSION), epoch, tokens }, begins))
    }

    /// The end of a peer.
    pub(super) fn end(&self, peer: Association) -> Option<&GatewayEnd> {
        self.ends.get(&peer).map(|peer| &peer.known.end)
    }

    /// The message that gave a peer this position, where it was written in this format.
    pub(super) fn gave(&self, peer: Association, format: Format, position: &str) -> Option<MessageNumber> {
        let peer = self.ends.get(&peer).filter(|_| matches!(format, Format::Packed(_)))?;
        peer.known.message(position)
    }

    /// The epoch that a peer is in; none of those that matter, where there is no agreement.
    pub(super) fn epoch(&self, peer: Association) -> u32 {
        self.ends.get(&peer).map_or(0, |peer| peer.known.end.agreement().epoch)
    }

    /// Whether an observation of before a restart can go on, which was last told by this message: its peer reads what the end writes, and the end
    /// knows what it has written.
    pub(super) fn goes_on(
        &self,
        peer: Association,
        format: StoredFormat,
        message: Option<MessageNumber>,
    ) -> bool {
        let StoredFormat::Packed { epoch, .. } = format else { return true };
        self.ends.get(&peer).is_some_and(|peer| {
            peer.known.end.agreement().epoch == epoch
                && message.is_none_or(|message| peer.known.end.has_written(message))
        })
    }

    /// Takes up what was stored, with what has changed since; forgets it where the peer's dictionary is spoken here no more.
    pub(super) fn restore(&mut self, peer: Association, end: End) {
        let Some(dictionary) = self.dictionary(end.identity) else {
            self.forgotten.push((peer, end.journal));
            self.changed.insert(peer);
            return;
        };
        self.insert(peer, end, dictionary);
        self.changed.remove(&peer);
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, peer: Association) {
        if let Some(Peer { known: end, used, .. }) = self.ends.remove(&peer) {
            self.used.remove(&(used, peer));
            self.forgotten.push((peer, end.journal));
            self.changed.insert(peer);
        }
    }

    fn insert(&mut self, peer: Association, known: End, dictionary: Dictionary) {
        while self.ends.len() >= self.most {
            let Some((_, first)) = self.used.first().copied() else { break };
            self.forget(first);
        }
        self.ends.insert(peer, Peer { known, dictionary, used: self.uses });
        self.used.insert((self.uses, peer));
        self.of(peer);
    }

    /// What is known with a peer, to be changed.
    fn of(&mut self, peer: Association) -> Option<&mut Peer> {
        let found = self.ends.get_mut(&peer)?;
        self.uses += 1;
        self.used.remove(&(found.used, peer));
        self.used.insert((self.uses, peer));
        found.used = self.uses;
        self.changed.insert(peer);
        Some(found)
    }

    /// Those that are spoken here.
    fn dictionaries(&self) -> &[Dictionary] {
        match self.dictionaries.as_slice() {
            [] => std::slice::from_ref(Dictionary::built_in()),
            some => some,
        }
    }

    fn dictionary(&self, identity: Identity) -> Option<Dictionary> {
        self.dictionaries().iter().find(|dictionary| Identity::of(dictionary) == identity).cloned()
    }

    /// A number that no tokens had before.
    fn generation(&mut self) -> u32 {
        self.generations += 1;
        let digest = Sha256::new()
            .chain_update(b"lowband packed tokens")
            .chain_update(self.seed)
            .chain_update(self.generations.to_be_bytes())
            .finalize();
        digest.first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
    }
}

impl End {
    fn new(end: GatewayEnd, identity: Identity, proposed: u32) -> Self {
        Self { end, identity, proposed, given: VecDeque::new(), first_change: 0, journal: Journal::default() }
    }

    /// Begins the epoch that the peer asks for, and nothing where it only repeats itself.
    fn begin(&mut self, hello: Hello) -> bool {
        let Agreement { epoch, transactions, .. } = self.end.agreement();
        if (self.proposed, transactions, self.identity) == (hello.epoch, hello.transactions, hello.identity) {
            return false;
        }
        // A message has three bits of its epoch: a late one of this epoch is not to be taken for one of the next.
        let is_alike = epoch & 7 == hello.epoch & 7;
        let next = if is_alike { hello.epoch.wrapping_add(1) } else { hello.epoch };
        self.end.begin_epoch(next, hello.transactions);
        (self.proposed, self.identity) = (hello.epoch, hello.identity);
        self.given.clear();
        self.journal.begin_anew();
        true
    }

    /// The peer has read the message that gave the position that it goes on from.
    fn has_read(&mut self, call: &Call) {
        let Some(since) = query::get(&call.query, "since") else { return };
        if let Some(message) = self.message(since) {
            self.end.acknowledge(message);
        }
    }

    fn message(&self, position: &str) -> Option<MessageNumber> {
        self.given.iter().find(|(given, _)| given == position).and_then(|(_, message)| *message)
    }

    fn gave(&mut self, call: &Call, json: &[u8], message: MessageNumber) {
        #[derive(Deserialize)]
        struct Answer {
            next_batch: String,
        }
        if !call.target.is(operation::SYNC) {
            return;
        }
        let Ok(Answer { next_batch }) = serde_json::from_slice(json) else { return };
        if self.journal.is_begun() {
            self.journal.gave(&next_batch, message);
        }
        self.note_position(next_batch, message);
    }

    pub(super) fn note_position(&mut self, next_batch: String, message: MessageNumber) {
        if let Some((_, before)) = self.given.iter_mut().find(|(given, _)| *given == next_batch) {
            return *before = None;
        }
        self.given.truncate(GIVEN - 1);
        self.given.push_front((next_batch, Some(message)));
    }
}

impl Gateway {
    /// What it and a peer know of each other by the packed profile.
    pub fn packed_end(&self, peer: Association) -> Option<&GatewayEnd> {
        self.packed.end(peer)
    }

    /// What makes the packed profile's model ready, where there are peers to speak it with and that was not asked for before. A driver runs it on
    /// another thread, and calls [`Gateway::advance`] after that. Where no driver does, the first message takes longer.
    pub fn take_primer(&mut self) -> Option<Primer> {
        let due =
            self.packed.ends.values().find(|peer| !self.packed.primed.contains(&peer.dictionary.hash()));
        let dictionary = due.map(|peer| peer.dictionary.clone())?;
        self.packed.primed.insert(dictionary.hash());
        Some(dictionary.primer())
    }

    /// Keeps a request that cannot be read until the model is ready, and gives back any other.
    pub(super) fn defer(
        &mut self,
        key: RequestKey,
        peer: Association,
        request: coap::Request,
        recalled: bool,
        now: Instant,
    ) -> Option<coap::Request> {
        let packed = &mut self.packed;
        let awaits = packed.is_spoken()
            && translate::packed::is_packed(&request)
            && packed.ends.get(&peer).is_some_and(|peer| peer.dictionary.awaits_model(&request.payload));
        if !awaits {
            return Some(request);
        }
        if packed.waiting.len() < MOST_WAITING {
            packed.waiting.push_back(Waiting { key, peer, request, recalled });
        } else {
            self.refuse(key, &Refusal::NotReady, Format::Cbor(Keys::V1), now);
        }
        None
    }

    /// Takes up the requests that have waited for the model, if it is ready.
    pub(super) fn take_waiting(&mut self, now: Instant) {
        for _ in 0..self.packed.waiting.len() {
            let Some(Waiting { key, peer, request, recalled }) = self.packed.waiting.pop_front() else {
                return;
            };
            self.receive(key, peer, request, recalled, now);
        }
    }

    /// Answers a peer that wants to begin.
    pub(super) fn agree(&mut self, key: RequestKey, peer: Association, payload: &Bytes, now: Instant) {
        let is_gone = matches!(peer, Association::Device(_)) && self.devices.get(peer).is_none();
        let agreed = match Hello::read(payload) {
            _ if is_gone => Err(crate::device::Refused::Revoked.into()),
            Ok(hello) => self.packed.agree(peer, hello),
            Err(error) => Err(error.into()),
        };
        let (welcome, begins) = match agreed {
            Ok(agreed) => agreed,
            Err(refusal) => return self.refuse(key, &refusal, Format::Cbor(Keys::V1), now),
        };
        if begins {
            debug!(?peer, epoch = welcome.epoch, "agreed on the packed profile");
            self.counters.agreements += 1;
            self.end_packed(peer, now);
        }
        self.remember_packed();
        self.endpoint.respond(key, welcome.response(), now);
    }

    /// Ends the packed observations of a peer that begins a new epoch: it cannot read what they say, and registers again.
    fn end_packed(&mut self, peer: Association, now: Instant) {
        let packed = self.observations_of(peer).filter(|(_, observation)| observation.is_packed());
        for id in packed.map(|(id, _)| id).collect::<Vec<_>>() {
            self.endpoint.end_observation(id, now);
            self.forget_observation(id, now);
        }
    }

    /// Ends an observation of before a restart of which only half is known. A peer that is told in the packed profile has to register again.
    pub(super) fn end_half_known(&mut self, id: ObservationId, now: Instant) {
        match self.endpoint.association(id).is_some_and(|peer| self.packed.knows(peer)) {
            true => self.end_restored(id, now),
            false => self.endpoint.end_observation(id, now),
        }
    }

    /// Tells a peer that it observes no longer, and can register again.
    fn end_restored(&mut self, id: ObservationId, now: Instant) {
        let last = response::refuse(&Refusal::ShuttingDown, Format::Cbor(Keys::V1));
        self.endpoint.notify(id, last, Priority::Notification, now);
        self.endpoint.end_observation(id, now);
    }

    /// Drops an observation of before a restart whose peer has begun another epoch since, or has to.
    pub(super) fn drop_packed(&mut self, id: ObservationId, now: Instant) {
        self.memories.forget(&Key::Observation(id));
        self.end_restored(id, now);
    }

    /// Writes an answer of the homeserver.
    pub(super) fn pack(
        &mut self,
        peer: Association,
        (call, asked): (&Call, Asked),
        http: &http::Response<Bytes>,
    ) -> Result<coap::Response, Refusal> {
        self.write(peer, (call, asked), http, None).map(|(response, _)| response)
    }

    /// Writes what an observer is told.
    pub(super) fn write_notification(
        &mut self,
        id: ObservationId,
        call: &Call,
        http: &http::Response<Bytes>,
    ) -> coap::Response {
        let Some(observation) = self.observations.get(&id) else {
            return response::refuse(&Refusal::NoAgreement, call.format);
        };
        let peer = observation.association;
        let Format::Packed(asked) = call.format else { return self.translate(peer, call, Ok(http.clone())) };
        // Until the answer to its registration has arrived, that is what the peer waits for.
        let position = (!observation.is_new()).then(|| observation.position().told.clone());
        match self.write(peer, (call, asked), http, position.as_deref()) {
            Ok((response, message)) => {
                self.sent(id, Some(message));
                response
            }
            Err(refusal) => response::refuse(&refusal, call.format),
        }
    }

    fn write(
        &mut self,
        peer: Association,
        (call, asked): (&Call, Asked),
        http: &http::Response<Bytes>,
        position: Option<&str>,
    ) -> Result<(coap::Response, MessageNumber), Refusal> {
        let (mut response, packed) =
            response::to_packed(call, http, &self.config.advertise, &self.config.codec)?;
        let Peer { known, dictionary, .. } = self.packed.of(peer).ok_or(Refusal::NoAgreement)?;
        let Encoded { payload, message, .. } = match position {
            Some(position) => {
                known.end.encode_notification(&packed, asked, position, dictionary, Spelling::Short)
            }
            None => known.end.encode_response(&packed, asked, dictionary, Spelling::Short),
        };
        known.gave(call, packed.body.as_deref().unwrap_or_default(), message);
        response.payload = payload.into();
        self.remember_packed();
        Ok((response, message))
    }

    /// Notes what an observer is being told by.
    pub(super) fn sent(&mut self, id: ObservationId, message: Option<MessageNumber>) {
        if let Some(observation) = self.observations.get_mut(&id) {
            observation.message = message;
        }
    }

    /// What an observer was told has arrived.
    pub(super) fn acknowledge(&mut self, id: ObservationId) {
        let Some(observation) = self.observations.get_mut(&id) else { return };
        let (peer, message) = (observation.association, observation.message.take());
        if let Some((message, peer)) = message.and_then(|message| Some((message, self.packed.of(peer)?))) {
            peer.known.end.acknowledge(message);
            self.remember_packed();
        }
    }

    /// Stores what has changed.
    pub(super) fn remember_packed(&mut self) {
        if !self.config.endpoint.durable {
            self.packed.forgotten.clear();
            self.packed.changed.clear();
            return;
        }
        for (peer, journal) in self.packed.forgotten.drain(..) {
            journal.forget(peer, &mut self.memories);
        }
        while let Some(peer) = self.packed.changed.pop_first() {
            match self.packed.ends.get_mut(&peer) {
                Some(Peer { known, .. }) => known.remember(peer, &mut self.memories),
                None => self.memories.forget(&Key::Packed(peer)),
            }
        }
    }
}
