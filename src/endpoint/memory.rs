//! What an endpoint knows that must survive a restart.
//!
//! The endpoint says what changed, by [`Endpoint::poll_memory`]; somebody keeps it, and hands all of it to [`Endpoint::recall`]
//! after the restart. What is reported must be kept before anything is sent that was polled after it: then no message ID is
//! used twice, no request that was passed on is taken for a new one, and no observer is forgotten.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::peer::{Asked, Peer};
use super::{Address, Association, Binding, Endpoint, Event, KeysNumber, Pending, RequestKey};
use crate::coap::{
    Instant, Kind, Message, MessageId, ObservationId, OptionNumber, Options, Priority, Request,
};
use crate::security::oscore::State;

/// What a memory is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemoryKey {
    /// A peer.
    Peer(Association),
    /// A request of a peer's, by its message ID.
    Request(Association, u16),
    /// An observation.
    Observation(ObservationId),
    /// What some keys were used for.
    Context(KeysNumber),
}

/// What is to be remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    /// A peer.
    Peer {
        /// A message ID that was not used yet, and neither were those after it.
        next_id: u16,
        /// A value of Observe that was not used yet.
        next_sequence: u32,
        /// The link that it has announced.
        link: Option<String>,
        /// Where it was last.
        address: Address,
    },
    /// A request.
    Request {
        /// Until when its repeats are to be known.
        expires: Instant,
        /// Its message, with the whole body.
        message: Bytes,
        /// The message that answers it, with the whole body, once there is one.
        answer: Option<Bytes>,
        /// Whether the answer went in a confirmable message of its own, whose arrival is not known.
        separate: bool,
        /// What its answer is bound to, where it was protected.
        binding: Option<Binding>,
    },
    /// An observation.
    Observation {
        /// Whose it is.
        association: Association,
        /// The message that registered it.
        registration: Bytes,
        /// What its notifications are bound to, where it was protected.
        binding: Option<Binding>,
    },
    /// What some keys were used for.
    Context(State),
}

/// What was kept, and is not readable, or is of a peer for which there is no room any more.
#[derive(Debug)]
struct Unreadable;

/// Whether a memory is of a session of DTLS, which does not outlast a restart.
fn is_passing(key: MemoryKey, memory: Option<&Memory>) -> bool {
    let of_key = match key {
        MemoryKey::Peer(association) | MemoryKey::Request(association, _) => Some(association),
        MemoryKey::Observation(_) | MemoryKey::Context(_) => None,
    };
    let of_memory = match memory {
        Some(Memory::Observation { association, .. }) => Some(*association),
        _ => None,
    };
    matches!(of_key.or(of_memory), Some(Association::Session(_)))
}

/// A request's message, as it is remembered: the one that completed it, with the options and the body of all of it.
pub(super) fn whole(message: &Message, request: &Request) -> Message {
    let of_message = |number| {
        matches!(
            number,
            OptionNumber::BLOCK1
                | OptionNumber::BLOCK2
                | OptionNumber::Q_BLOCK1
                | OptionNumber::Q_BLOCK2
                | OptionNumber::SIZE2
                | OptionNumber::OBSERVE
        )
    };
    let of_message = message.options.iter().filter(|(number, _)| of_message(*number));
    let options: Options =
        request.options.iter().chain(of_message).map(|(number, value)| (number, value.to_vec())).collect();
    Message { options, payload: request.payload.clone(), ..message.clone() }
}

impl Endpoint {
    /// The longest answer that is remembered; a request with a longer one is passed on again after a restart, if it comes again.
    const LONGEST_ANSWER: usize = 64 << 10;

    /// The next change of what is to be remembered: a memory, or none where it is of no use any more. Only where
    /// [`super::Config::durable`] is set.
    pub fn poll_memory(&mut self) -> Option<(MemoryKey, Option<Memory>)> {
        loop {
            let (key, memory) = self.memories.pop_front()?;
            if !is_passing(key, memory.as_ref()) {
                return Some((key, memory));
            }
        }
    }

    /// Takes in what was remembered before a restart, before anything else. Requests that were not answered are reported again.
    pub fn recall(&mut self, memories: impl IntoIterator<Item = (MemoryKey, Memory)>, now: Instant) {
        let mut memories: Vec<_> = memories.into_iter().collect();
        // Keys, then peers, then what is theirs.
        memories.sort_by_key(|(key, _)| (!matches!(key, MemoryKey::Context(_)), *key));
        for (key, memory) in memories {
            let recalled = match (key, memory) {
                (MemoryKey::Context(number), Memory::Context(state)) => {
                    self.recall_context(number, state, now).ok_or(Unreadable)
                }
                (MemoryKey::Peer(association), Memory::Peer { next_id, next_sequence, link, address }) => {
                    self.recall_peer(association, (next_id, next_sequence), link, address, now)
                }
                (MemoryKey::Request(..), Memory::Request { expires, .. }) if expires <= now => {
                    self.forget(key);
                    Ok(())
                }
                (
                    MemoryKey::Request(association, _),
                    Memory::Request { expires, message, answer, separate, binding },
                ) => self.recall_request(association, (expires, message, binding), answer, separate, now),
                (MemoryKey::Observation(id), Memory::Observation { association, registration, binding }) => {
                    self.recall_observation(id, association, (&registration, binding), now)
                }
                _ => Err(Unreadable),
            };
            if recalled.is_err() {
                self.counters.unreadable += 1;
                self.forget(key);
            }
        }
        let next_ids: Vec<_> = self.peers.values().map(|peer| peer.exchanges.next_id()).collect();
        self.first_ids.avoid_all(&next_ids);
        // Only now: a peer of which nothing else was remembered is not kept.
        for association in self.peers.keys().copied().collect::<Vec<_>>() {
            self.with_peer(association, now, |_, _| {});
        }
    }

    fn recall_peer(
        &mut self,
        association: Association,
        (next_id, next_sequence): (u16, u32),
        link: Option<String>,
        address: Address,
        now: Instant,
    ) -> Result<(), Unreadable> {
        let is_served = match association {
            Association::Plain(_) => self.config.plain,
            Association::Device(_) => self.devices.may_speak(association),
            Association::Session(_) => false,
        };
        if !is_served {
            return Err(Unreadable);
        }
        if !self.peers.contains_key(&association) {
            self.admit(association, address, now);
        }
        let peer = self.peers.get_mut(&association).ok_or(Unreadable)?;
        peer.exchanges.resume_ids(MessageId(next_id));
        peer.observations.resume(next_sequence);
        if link.is_some() {
            peer.announce(link.as_deref(), &self.config);
        }
        Ok(())
    }

    fn recall_request(
        &mut self,
        association: Association,
        (expires, message, binding): (Instant, Bytes, Option<Binding>),
        answer: Option<Bytes>,
        separate: bool,
        now: Instant,
    ) -> Result<(), Unreadable> {
        let message = Message::decode(&message).map_err(|_| Unreadable)?;
        let answer = answer.map(|answer| Message::decode(&answer)).transpose().map_err(|_| Unreadable)?;
        self.admit_recalled(association, now);
        self.reserve_numbers(association);
        let number = self.number();
        // Its repeats may be answered as it was.
        self.recall_credit(association, &message, now);
        let peer = self.peers.get_mut(&association).ok_or(Unreadable)?;
        let (request, plan) = peer.server.recall(&message, &peer.transfers, now);
        peer.recall(message.id, binding.as_ref());
        let mut asked = Asked::of_whole(&message, binding);
        let Some(answer) = answer else {
            peer.exchanges.recall(&message, None, expires, now);
            let (key, bytes) = (RequestKey(number), request.payload.len());
            peer.pending.insert(key);
            self.pending_bytes += bytes;
            let observe = request.observe;
            let memory = Some(message);
            let pending = Pending { association, request: asked, plan, observe, bytes, memory };
            self.pending.insert(key, pending);
            self.events.push_back(Event::Request { key, association, request, recalled: true });
            return Ok(());
        };
        // Its blocks can be had again, and its repeats get the answer that was given.
        let Ok(reply) = peer.recalled_reply(&mut asked, plan, answer, now) else { return Err(Unreadable) };
        let datagram = Message { kind: Kind::Acknowledgement, id: message.id, ..reply.clone() }.encode();
        peer.exchanges.recall(&message, Some(datagram), expires, now);
        if separate {
            // A peer that has it already resets it.
            let _ = peer.exchanges.send(reply, Priority::Reply, now);
        }
        Ok(())
    }

    fn recall_observation(
        &mut self,
        id: ObservationId,
        association: Association,
        (registration, binding): (&[u8], Option<Binding>),
        now: Instant,
    ) -> Result<(), Unreadable> {
        let message = Message::decode(registration).map_err(|_| Unreadable)?;
        // It lives as long as its keys.
        if binding.as_ref().is_some_and(|binding| !self.has_keys(binding.keys())) {
            return Err(Unreadable);
        }
        self.admit_recalled(association, now);
        self.next_number = self.next_number.max(id.0);
        let peer = self.peers.get_mut(&association).ok_or(Unreadable)?;
        let (_, plan) = peer.server.recall(&message, &peer.transfers, now);
        peer.observations.register(message.token, id, plan);
        peer.bind(id, binding.as_ref());
        self.observations.insert(id, association);
        // Or it would not have been accepted.
        self.set_credit(association, None);
        Ok(())
    }

    /// A peer of which no more was kept than what it has asked. Where a device is, is not known without.
    fn admit_recalled(&mut self, association: Association, now: Instant) {
        if let Association::Plain(address) = association
            && !self.peers.contains_key(&association)
        {
            self.admit(association, address, now);
        }
    }

    /// Remembers a request that is passed on.
    pub(super) fn remember_request(
        &mut self,
        association: Association,
        message: &Message,
        binding: Option<Binding>,
    ) {
        let Some(peer) = self.peers.get_mut(&association) else { return };
        let Some(expires) = peer.exchanges.remembered_until(message.id) else { return };
        peer.exchanges.record(message.id);
        let message_id = message.id.0;
        let memory = Memory::Request {
            expires,
            message: message.encode().into(),
            answer: None,
            separate: false,
            binding,
        };
        self.memories.push_back((MemoryKey::Request(association, message_id), Some(memory)));
    }

    /// Remembers how a request is answered.
    pub(super) fn remember_answer(
        &mut self,
        association: Association,
        message: &Message,
        answer: &Message,
        (separate, binding): (bool, Option<Binding>),
    ) {
        let peer = self.peers.get(&association);
        let Some(expires) = peer.and_then(|peer| peer.exchanges.remembered_until(message.id)) else { return };
        if answer.payload.len() > Self::LONGEST_ANSWER {
            return self.forget(MemoryKey::Request(association, message.id.0));
        }
        let memory = Memory::Request {
            expires,
            message: message.encode().into(),
            answer: Some(answer.encode().into()),
            separate,
            binding,
        };
        self.memories.push_back((MemoryKey::Request(association, message.id.0), Some(memory)));
    }

    /// Remembers an observation.
    pub(super) fn remember_observation(
        &mut self,
        id: ObservationId,
        association: Association,
        registration: &Message,
    ) {
        let registration = Message { payload: Bytes::new(), ..registration.clone() }.encode().into();
        let binding = self.peers.get(&association).and_then(|peer| peer.binding(id)).cloned();
        let memory = Memory::Observation { association, registration, binding };
        self.memories.push_back((MemoryKey::Observation(id), Some(memory)));
    }

    /// Forgets the requests of a peer's that are remembered no more.
    pub(super) fn forget_requests(&mut self, association: Association) {
        while let Some(id) = self.peers.get_mut(&association).and_then(|peer| peer.exchanges.poll_forgotten())
        {
            self.forget(MemoryKey::Request(association, id.0));
        }
    }

    /// Remembers of a peer what has changed: numbers are reserved some in advance, so that it is seldom.
    pub(super) fn remember_peer(&mut self, association: Association) {
        let Some(peer) = self.peers.get_mut(&association).filter(|_| self.config.durable) else { return };
        if let Some(memory) = peer.reserve() {
            self.memories.push_back((MemoryKey::Peer(association), Some(memory)));
        }
    }

    /// Forgets all of a peer.
    pub(super) fn forget_peer(&mut self, association: Association, peer: &Peer) {
        for id in peer.exchanges.recorded() {
            self.forget(MemoryKey::Request(association, id.0));
        }
        self.forget(MemoryKey::Peer(association));
    }

    /// Says that a memory is of no use any more.
    pub(super) fn forget(&mut self, key: MemoryKey) {
        if self.config.durable {
            self.memories.push_back((key, None));
        }
    }
}
