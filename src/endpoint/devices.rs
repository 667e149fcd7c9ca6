//! The devices whose messages are protected by OSCORE: their keys, how their messages are opened, and where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::debug;

use super::memory::{Memory, MemoryKey};
use super::{Address, Association, Endpoint};
use crate::coap::{Instant, Kind, Message, MessageId, Outgoing, Response};
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
    challenges: Arc<Challenges>,
}

/// Some keys of a device.
#[derive(Debug)]
struct Keys {
    association: Association,
    parameters: Parameters,
    /// What they are used with; a peer has it where there is one.
    context: Option<Box<Context>>,
}

impl Devices {
    pub(super) fn new(challenges: Challenges) -> Self {
        Self {
            keys: BTreeMap::new(),
            by_kid: BTreeMap::new(),
            of: BTreeMap::new(),
            at: BTreeMap::new(),
            challenges: Arc::new(challenges),
        }
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
        let (context, held) = match self.peers.get_mut(&association) {
            Some(peer) => (None, Some((&mut peer.protection, context))),
            None => (Some(context), None),
        };
        if let Some((protection, context)) = held {
            protection.contexts.insert(number, context);
        }
        self.devices.keys.insert(number, Keys { association, parameters, context });
        Ok(())
    }

    /// Forgets keys. What was observed with them ends, untold.
    pub fn revoke_keys(&mut self, number: KeysNumber, now: Instant) {
        let Some(Keys { association, parameters, .. }) = self.devices.keys.remove(&number) else { return };
        if let Some(numbers) = self.devices.by_kid.get_mut(&parameters.recipient_id) {
            numbers.remove(&number);
        }
        if let Some(numbers) = self.devices.of.get_mut(&association) {
            numbers.remove(&number);
        }
        self.forget(MemoryKey::Context(number));
        self.with_peer(association, now, |peer, _| peer.revoke(number, now));
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

    fn context(&mut self, number: KeysNumber) -> Option<(Association, &mut Context)> {
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
        let numbers: Vec<_> = Header::of(&message)
            .ok()
            .and_then(|header| self.devices.by_kid.get(header.kid.as_deref()?))
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let mut refusal = Header::of(&message).map_or_else(Refusal::from, |_| Refusal::UnknownContext);
        for number in numbers {
            let Some(Keys { association, .. }) = self.devices.keys.get(&number) else { continue };
            let association = *association;
            self.reserve_numbers(association);
            let challenges = Arc::clone(&self.devices.challenges);
            let Some((_, context)) = self.context(number) else { continue };
            match context.open_request(&message, &challenges, now) {
                Ok(Opened::Request { message, binding }) => {
                    return self.opened(address, association, (number, message, binding), length, now);
                }
                Ok(Opened::Challenge(sealed)) => {
                    self.counters.challenges += 1;
                    self.note(&sealed);
                    let kind = message.kind;
                    return self.answer_stranger(address, kind, sealed.message, now);
                }
                Err(Refusal::Replayed) if self.is_repeat(address, association, &message) => {
                    return self.with_peer(association, now, |peer, _| peer.exchanges.receive(message, now));
                }
                Err(refused) => refusal = refused,
            }
        }
        self.counters.unopened += 1;
        debug!(remote = %address.remote, %refusal, "protected request refused");
        if let Some(Response { code, options, payload }) = refusal.response(Disclosure::Uniform) {
            let (kind, id, token) = (message.kind, message.id, message.token);
            // Only who waits for it, and in no more bytes than came.
            if kind == Kind::Confirmable {
                self.answer_stranger(address, kind, Message { kind, code, id, token, options, payload }, now);
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
        let Some(peer) = self.peers.get_mut(&association) else { return };
        if peer.address != address && peer.protection.is_newest(number, &binding) {
            let before = peer.move_to(address, &self.config);
            self.devices.leave(association, before);
            self.devices.arrive(association, address);
            self.counters.moved += 1;
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

    /// Answers a request without taking its sender in.
    fn answer_stranger(&mut self, address: Address, kind: Kind, answer: Message, now: Instant) {
        let (kind, id) = match kind {
            Kind::Confirmable => (Kind::Acknowledgement, answer.id),
            _ => (Kind::NonConfirmable, MessageId(self.number() as u16)),
        };
        let outgoing = Outgoing::reply(Message { kind, id, ..answer }.encode());
        self.send(address.into(), address, outgoing, now);
        self.flush(now);
    }
}
