//! The devices whose messages are protected by OSCORE: their keys, how their messages are opened, and where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::memory::{Memory, MemoryKey};
use super::verified::Credit;
use super::{Address, Association, Endpoint, Event};
use crate::coap::{Code, Instant, Kind, Message, MessageId, Outgoing, Response};
use crate::security::edhoc::Agreed;
use crate::security::oscore::{
    Challenges, Context, Disclosure, Header, Opened, Parameters, ParametersError, Refusal, State,
};

/// The number of some keys, which no others have had or will have.
pub type KeysNumber = u64;

/// All devices' keys that no peer holds, and where the devices are.
#[derive(Debug)]
pub(super) struct Devices {
    keys: BTreeMap<KeysNumber, Keys>,
    by_kid: BTreeMap<Vec<u8>, BTreeSet<KeysNumber>>,
    of: BTreeMap<Association, BTreeSet<KeysNumber>>,
    at: BTreeMap<Address, BTreeSet<Association>>,
    /// Those that may speak, whatever their keys are.
    served: BTreeSet<Association>,
    /// Those that come by sessions of another layer.
    pub(super) by_sessions: BTreeSet<Association>,
    /// Those of them that have one.
    pub(super) in_session: BTreeSet<Association>,
    /// The links that they are said to be behind.
    links: BTreeMap<Association, String>,
    /// What their messages have taken up of their links, and nobody has asked for yet.
    airtime: BTreeMap<Association, Duration>,
    /// What has to go before requests that make keys known, until their peer takes it.
    pub(super) agreed: BTreeMap<Association, (KeysNumber, Box<Agreed>)>,
    challenges: Arc<Challenges>,
}

/// Some keys of a device.
#[derive(Debug)]
struct Keys {
    association: Association,
    parameters: Parameters,
    /// What they are used with; a peer has it where there is one.
    context: Option<Box<Context>>,
    /// Whether a message that they protect has come since the start.
    used: bool,
}

impl Devices {
    pub(super) fn new(challenges: Challenges) -> Self {
        Self {
            keys: BTreeMap::new(),
            by_kid: BTreeMap::new(),
            of: BTreeMap::new(),
            at: BTreeMap::new(),
            served: BTreeSet::new(),
            by_sessions: BTreeSet::new(),
            in_session: BTreeSet::new(),
            links: BTreeMap::new(),
            airtime: BTreeMap::new(),
            agreed: BTreeMap::new(),
            challenges: Arc::new(challenges),
        }
    }

    /// Makes Echo values, and knows them again.
    pub(super) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// The contexts of a device, for its peer to hold.
    pub(super) fn take(&mut self, association: Association) -> BTreeMap<KeysNumber, Box<Context>> {
        let numbers = self.of.get(&association).into_iter().flatten();
        numbers.filter_map(|number| Some((*number, self.keys.get_mut(number)?.context.take()?))).collect()
    }

    /// The contexts of a peer that is forgotten.
    pub(super) fn put_back(&mut self, contexts: BTreeMap<KeysNumber, Box<Context>>) {
        for (number, context) in contexts {
            if let Some(keys) = self.keys.get_mut(&number) {
                keys.context = Some(context);
            }
        }
    }

    /// Whether no keys have this Recipient ID.
    pub(super) fn is_free(&self, recipient_id: &[u8]) -> bool {
        self.by_kid.get(recipient_id).is_none_or(BTreeSet::is_empty)
    }

    /// The link that a device is said to be behind.
    pub(super) fn link(&self, association: Association) -> Option<&str> {
        self.links.get(&association).map(String::as_str)
    }

    /// Whether it is none of the devices, or one that is served.
    pub(super) fn may_speak(&self, association: Association) -> bool {
        match association {
            Association::Plain(_) | Association::Session(_) => true,
            Association::Device(_) => self.served.contains(&association),
        }
    }

    /// Whether nothing reaches it: it has no session, and no keys to do without.
    pub(super) fn is_cut_off(&self, association: Association) -> bool {
        self.by_sessions.contains(&association)
            && !self.in_session.contains(&association)
            && !self.of.contains_key(&association)
    }

    /// A message of a device's, or one to it, has taken this long on its link.
    pub(super) fn spend(&mut self, association: Association, airtime: Duration) {
        if self.served.contains(&association) {
            let spent = self.airtime.entry(association).or_default();
            *spent = spent.saturating_add(airtime);
        }
    }

    /// A device is at an address now.
    pub(super) fn arrive(&mut self, association: Association, address: Address) {
        if matches!(association, Association::Device(_)) {
            self.at.entry(address).or_default().insert(association);
        }
    }

    /// A device is there no more.
    pub(super) fn leave(&mut self, association: Association, address: Address) {
        if let Some(here) = self.at.get_mut(&address) {
            here.remove(&association);
            if here.is_empty() {
                self.at.remove(&address);
            }
        }
    }

    /// The devices that are at an address.
    pub(super) fn at(&self, address: Address) -> impl Iterator<Item = Association> {
        self.at.get(&address).into_iter().flatten().copied()
    }
}

impl Endpoint {
    /// Takes in a device, whatever it is protected with.
    pub fn admit_device(&mut self, association: Association) {
        self.devices.served.insert(association);
    }

    /// Takes in keys of a device, before [`Endpoint::recall`] where they were used before. Their sequence numbers must outlast a restart:
    /// see [`super::Config::durable`].
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub fn admit_keys(
        &mut self,
        number: KeysNumber,
        association: Association,
        parameters: Parameters,
    ) -> Result<(), ParametersError> {
        let context = Box::new(Context::new(&parameters)?);
        self.devices.by_kid.entry(parameters.recipient_id.clone()).or_default().insert(number);
        self.devices.of.entry(association).or_default().insert(number);
        self.devices.served.insert(association);
        let (context, held) = match self.peers.get_mut(&association) {
            Some(peer) => (None, Some((&mut peer.protection, context))),
            None => (Some(context), None),
        };
        if let Some((protection, context)) = held {
            protection.contexts.insert(number, context);
        }
        self.devices.keys.insert(number, Keys { association, parameters, context, used: false });
        Ok(())
    }

    /// What admitted keys are derived from.
    pub fn parameters(&self, number: KeysNumber) -> Option<&Parameters> {
        self.devices.keys.get(&number).map(|keys| &keys.parameters)
    }

    /// Forgets keys. What was observed with them ends, untold.
    pub fn revoke_keys(&mut self, number: KeysNumber, now: Instant) {
        let Some(Keys { association, parameters, .. }) = self.devices.keys.remove(&number) else { return };
        self.forget_agreement(number);
        self.devices.agreed.retain(|_, (of, _)| *of != number);
        remove(&mut self.devices.by_kid, &parameters.recipient_id, number);
        remove(&mut self.devices.of, &association, number);
        self.forget(MemoryKey::Context(number));
        self.with_peer(association, now, |peer, _| peer.revoke(number, now));
    }

    /// Whether these keys are admitted.
    pub fn has_keys(&self, number: KeysNumber) -> bool {
        self.devices.keys.contains_key(&number)
    }

    /// Has the state of a device's keys stored before they are used for the first time.
    pub fn begin_keys(&mut self, association: Association) {
        self.reserve_numbers(association);
    }

    /// Says what link a device is behind, whatever the listener's is; it may still announce another itself.
    pub fn set_link(&mut self, association: Association, link: Option<&str>, now: Instant) {
        if self.devices.link(association) == link {
            return;
        }
        match link {
            Some(link) => drop(self.devices.links.insert(association, link.to_owned())),
            None => drop(self.devices.links.remove(&association)),
        }
        let link = link.map(str::to_owned);
        self.with_peer(association, now, |peer, config| peer.assign(link.as_deref(), config));
    }

    /// What a device's messages of both directions have taken up of its link since this was last asked.
    pub fn take_airtime(&mut self, association: Association) -> Duration {
        self.devices.airtime.remove(&association).unwrap_or_default()
    }

    /// Forgets a device, and its keys with [`Endpoint::revoke_keys`] before, at once and untold: its requests, its observations, and what waits to be sent to it.
    pub fn dismiss(&mut self, association: Association, now: Instant) {
        self.devices.served.remove(&association);
        self.devices.links.remove(&association);
        self.devices.airtime.remove(&association);
        let Some(peer) = self.peers.get(&association) else { return };
        for key in peer.pending.iter().copied().collect::<Vec<_>>() {
            self.take_pending(key);
        }
        let ids = self.observations.iter().filter(|(_, of)| **of == association).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.end_observation(id, now);
        }
        self.requests.retain(|_, of| *of != association);
        self.drop_peer(association);
        self.flush(now);
    }

    /// What has to be kept of all keys when nothing is opened or sealed any more: they go on where they were, as if there had been no
    /// restart.
    pub fn close_keys(&mut self) -> Vec<(MemoryKey, Memory)> {
        let mut closed = Vec::new();
        for association in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&association) {
                self.devices.put_back(std::mem::take(&mut peer.protection.contexts));
            }
        }
        for (number, keys) in std::mem::take(&mut self.devices.keys) {
            let context = keys.context.filter(|context| context.is_begun());
            let state = context.map(|context| Memory::Context(context.close()));
            closed.extend(state.map(|state| (MemoryKey::Context(number), state)));
        }
        closed
    }

    /// Takes in what is known of keys from before a restart.
    pub(super) fn recall_context(&mut self, number: KeysNumber, state: State, now: Instant) -> Option<()> {
        let keys = self.devices.keys.get_mut(&number)?;
        keys.context = Some(Box::new(Context::restore(&keys.parameters, state, now).ok()?));
        Some(())
    }

    /// Reserves sequence numbers for a device's keys, where too few are left.
    pub(super) fn reserve_numbers(&mut self, association: Association) {
        let numbers: Vec<_> = self.devices.of.get(&association).into_iter().flatten().copied().collect();
        for number in numbers {
            if let Some(state) = self.context(number).and_then(|(_, context)| context.reserve()) {
                self.memories.push_back((MemoryKey::Context(number), Some(Memory::Context(state))));
            }
        }
    }

    pub(super) fn context(&mut self, number: KeysNumber) -> Option<(Association, &mut Context)> {
        let keys = self.devices.keys.get_mut(&number)?;
        let held = self.peers.get_mut(&keys.association);
        let held = held.and_then(|peer| peer.protection.contexts.get_mut(&number));
        Some((keys.association, held.or(keys.context.as_mut())?))
    }

    /// Takes in a protected request: who it is from is known once it is opened, and nothing has changed before.
    pub(super) fn handle_protected(
        &mut self,
        address: Address,
        message: Message,
        length: usize,
        now: Instant,
    ) {
        let header = Header::of_request(&message);
        let numbers: Vec<_> = header
            .as_ref()
            .ok()
            .and_then(|(header, _)| self.devices.by_kid.get(header.kid.as_deref()?))
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let mut refusal = header.err().unwrap_or(Refusal::UnknownContext);
        for number in numbers {
            if self.revoke_spent(number, now) {
                continue;
            }
            let Some(Keys { association, .. }) = self.devices.keys.get(&number) else { continue };
            let association = *association;
            self.reserve_numbers(association);
            let challenges = Arc::clone(&self.devices.challenges);
            // Appendix B.1.2 has it prove that it is fresh. But then it would be done twice.
            if self.is_recalled(association, number, &message) {
                refusal = Refusal::Replayed;
                match self.is_repeat(address, association, &message) {
                    true => {
                        return self
                            .with_peer(association, now, |peer, _| peer.exchanges.receive(message, now));
                    }
                    false => continue,
                }
            }
            let Some((_, context)) = self.context(number) else { continue };
            match context.open_request(&message, &challenges, now) {
                Ok(Opened::Request { message, binding }) => {
                    return self.opened(address, association, (number, message, binding), length, now);
                }
                Ok(Opened::Challenge(sealed)) => {
                    self.counters.challenges += 1;
                    self.note(&sealed);
                    let kind = message.kind;
                    let answer = (kind, sealed.message, length);
                    return self.answer_unheard(association, address, answer, now);
                }
                Err(Refusal::Replayed) if self.is_repeat(address, association, &message) => {
                    self.earn(association, address, length, now);
                    return self.with_peer(association, now, |peer, _| peer.exchanges.receive(message, now));
                }
                Err(Refusal::Replayed)
                    if self.challenge_again(address, association, (&message, length), now) =>
                {
                    return;
                }
                Err(refused) => {
                    self.note_forged(number, refused);
                    refusal = refused;
                }
            }
        }
        self.counters.unopened += 1;
        debug!(remote = %address.remote, %refusal, "protected request refused");
        if let Some(Response { code, options, payload }) = refusal.response(Disclosure::Uniform) {
            let (kind, id, token) = (message.kind, message.id, message.token);
            // Only who waits for it, and in no more bytes than came.
            if kind == Kind::Confirmable {
                let answer = Message { kind, code, id, token, options, payload };
                self.answer_stranger(address, kind, answer, length, now);
            }
        }
    }

    /// A request of a device's that is fresh: from now on it is where that came from, unless it has been overtaken.
    fn opened(
        &mut self,
        address: Address,
        association: Association,
        (number, message, binding): (KeysNumber, Message, crate::security::oscore::RequestBinding),
        length: usize,
        now: Instant,
    ) {
        if !self.peers.contains_key(&association) && !self.admit(association, address, now) {
            self.counters.peers_refused += 1;
            return;
        }
        let shown = self.is_shown(association, address, &message, now);
        let Some(peer) = self.peers.get(&association) else { return };
        if peer.address != address && peer.protection.is_newest(number, &binding) {
            if !self.may_move(association, address, (&message, shown), now) {
                let request = (number, &message, binding);
                return self.challenge_elsewhere(address, association, request, length, now);
            }
            self.move_to(association, address, shown);
        }
        if let Some(keys) = self.devices.keys.get_mut(&number)
            && !std::mem::replace(&mut keys.used, true)
        {
            self.events.push_back(Event::KeysUsed { association, number });
        }
        self.heard(association, address, length, now);
        self.with_peer(association, now, |peer, _| {
            peer.hear(now);
            peer.open(number, message, binding, now);
        });
    }

    /// Whether a request that has been opened before is a repeat of one that is remembered: then it gets the same answer.
    fn is_repeat(&self, address: Address, association: Association, message: &Message) -> bool {
        let peer = self.peers.get(&association).filter(|peer| peer.address == address);
        peer.is_some_and(|peer| peer.exchanges.knows(message.id))
    }

    /// Refuses a request that is not protected: only who waits for it is told, nothing is kept of it, and it is told no more than three
    /// times what it has said.
    pub(super) fn refuse_plain(&mut self, address: Address, message: &Message, length: usize, now: Instant) {
        self.counters.plain_refused += 1;
        debug!(remote = %address.remote, "request without protection refused");
        if message.kind != Kind::Confirmable {
            return;
        }
        let (kind, id, token) = (message.kind, message.id, message.token);
        let payload = Bytes::from_static(b"not protected");
        let mut answer = Message { payload, code: Code::UNAUTHORIZED, ..Message::empty(kind, id) };
        answer.token = token;
        if answer.encode().len() > length * 3 {
            answer.payload = Bytes::new();
        }
        self.answer_stranger(address, kind, answer, length, now);
    }

    /// Refuses a request that is protected by OSCORE within a session of another layer: whoever has the one needs no other, and answers
    /// would have to find the way back through the same session.
    pub(super) fn refuse_twice_protected(
        &mut self,
        association: Association,
        address: Address,
        message: &Message,
        now: Instant,
    ) {
        self.counters.unopened += 1;
        if message.kind == Kind::Confirmable {
            let answer = Message {
                code: Code::BAD_OPTION,
                token: message.token,
                ..Message::empty(Kind::Acknowledgement, message.id)
            };
            self.send(association, address, Outgoing::reply(answer.encode()), now);
            self.flush(now);
        }
    }

    /// Whether a request is remembered from before a restart.
    fn is_recalled(&self, association: Association, number: KeysNumber, message: &Message) -> bool {
        let Some(partial_iv) = Header::of(message).ok().and_then(|header| header.partial_iv) else {
            return false;
        };
        let peer = self.peers.get(&association);
        peer.is_some_and(|peer| peer.protection.is_recalled(number, partial_iv))
    }

    /// Answers a request of so many bytes without taking its sender in.
    pub(super) fn answer_stranger(
        &mut self,
        address: Address,
        kind: Kind,
        answer: Message,
        length: usize,
        now: Instant,
    ) {
        self.answer_unheard(address.into(), address, (kind, answer, length), now);
    }

    /// Answers a request of so many bytes of one who is not taken in for it, on its channel.
    fn answer_unheard(
        &mut self,
        association: Association,
        address: Address,
        (kind, answer, length): (Kind, Message, usize),
        now: Instant,
    ) {
        let (kind, id) = match kind {
            Kind::Confirmable => (Kind::Acknowledgement, answer.id),
            _ => (Kind::NonConfirmable, MessageId(self.number() as u16)),
        };
        let outgoing = Outgoing::reply(Message { kind, id, ..answer }.encode());
        if !Credit::of(length).take(outgoing.datagram.len()) {
            self.counters.withheld += 1;
            return;
        }
        self.send(association, address, outgoing, now);
        self.flush(now);
    }
}

/// Takes a number out of a set, and the set with its last.
fn remove<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<KeysNumber>>, key: &K, number: KeysNumber) {
    if let Some(numbers) = sets.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            sets.remove(key);
        }
    }
}
