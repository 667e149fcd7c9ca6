//! A peer whose messages are protected by OSCORE, in both roles: between its exchanges, which see what is on the link, and all that
//! is above them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Asked, Outcome, Peer};
use crate::coap::{Busy, Code, Instant, Kind, Message, MessageId, ObservationId, Response, Token};
use crate::endpoint::devices::KeysNumber;
use crate::security::edhoc::Agreed;
use crate::security::oscore::{
    Context, PartialIv, RequestBinding, Sealed, SentRequest, answer_challenge, is_protected,
};

/// What a peer's messages are protected with; empty where they are not.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct Protection {
    pub(in crate::endpoint) contexts: BTreeMap<KeysNumber, Box<Context>>,
    /// What the request that is being taken in is bound to.
    opened: Option<Binding>,
    /// What notifications are bound to.
    observations: BTreeMap<ObservationId, Binding>,
    /// What is bound to that asks for blocks of bodies which come in bursts: the last of each that has come, by its token.
    bodies: BTreeMap<Token, Binding>,
    /// Our own requests, by their tokens.
    sent: BTreeMap<Token, Sent>,
    /// The requests that are remembered from before a restart, which the contexts know nothing of.
    recalled: BTreeMap<MessageId, Binding>,
    /// The keys and the number of the newest request.
    newest: Option<(KeysNumber, PartialIv)>,
    /// What goes before each request under these keys, until a response to one has come.
    agreed: Option<(KeysNumber, Box<Agreed>)>,
    /// What was sealed, for those who see to it that no nonce is used twice.
    pub(in crate::endpoint) sealed: Vec<Sealed>,
}

/// What the responses to a request are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    keys: KeysNumber,
    request: RequestBinding,
}

/// A request of ours, as it was before it was protected, and what opens its responses: one for each time that it was sent with the same
/// token, of which the last few count; none where nothing is protected.
#[derive(Debug)]
struct Sent {
    message: Message,
    requests: Vec<SentRequest>,
    /// How many challenges it has answered.
    challenges: u8,
}

/// How many challenges one request answers: that it is fresh, where it comes from, and each again after a restart.
const CHALLENGES: u8 = 4;

impl Binding {
    pub(in crate::endpoint) fn new(keys: KeysNumber, request: RequestBinding) -> Self {
        Self { keys, request }
    }

    pub(in crate::endpoint) fn keys(&self) -> KeysNumber {
        self.keys
    }

    /// Whether this request was sent before the other.
    pub(in crate::endpoint) fn is_before(&self, other: &Self) -> bool {
        (self.keys, self.request.partial_iv()) < (other.keys, other.request.partial_iv())
    }
}

impl Protection {
    /// How many requests with one token may have responses under way: a burst of blocks, and some that ask for what is missing.
    const UNDER_WAY: usize = 16;

    /// Whether the peer's messages are protected.
    pub(in crate::endpoint) fn is_on(&self) -> bool {
        !self.contexts.is_empty()
    }

    /// Whether a request is newer than all before it.
    pub(in crate::endpoint) fn is_newest(&self, keys: KeysNumber, request: &RequestBinding) -> bool {
        self.newest.is_none_or(|newest| (keys, request.partial_iv()) > newest)
    }

    /// Whether a message is one of the requests that are remembered from before a restart, by what protects it, whatever its message ID: it
    /// has to prove nothing, for it is not served again.
    pub(in crate::endpoint) fn is_recalled(&self, keys: KeysNumber, number: PartialIv) -> bool {
        let mut recalled = self.recalled.values();
        recalled.any(|binding| binding.keys == keys && binding.request.partial_iv() == number)
    }

    fn seal_request(&mut self, message: Message) -> Option<Message> {
        let mut entry = self.contexts.last_entry()?;
        let (number, context) = (*entry.key(), entry.get_mut());
        let (sealed, request) = context.protect_request(&message).ok()?;
        let sent = self.sent.entry(message.token).or_insert_with(|| Sent {
            message: message.clone(),
            requests: Vec::new(),
            challenges: 0,
        });
        let request = match sent.requests.first() {
            Some(before) => request.continues(before),
            None => request,
        };
        sent.message = message;
        sent.requests.insert(0, request);
        sent.requests.truncate(Self::UNDER_WAY);
        self.sealed.push(sealed.clone());
        match self.agreed.as_ref().filter(|(of, _)| *of == number) {
            Some((_, agreed)) => Some(agreed.combine(sealed.message)),
            None => Some(sealed.message),
        }
    }

    /// Keeps a request that goes as it is, to answer a challenge.
    fn keep(&mut self, message: &Message) {
        let (message, requests) = (message.clone(), Vec::new());
        let challenges = self.sent.get(&message.token).map_or(0, |sent| sent.challenges);
        self.sent.insert(message.token, Sent { message, requests, challenges });
    }

    fn seal_response(&mut self, message: &Message, binding: &mut Binding) -> Option<Message> {
        let context = self.contexts.get_mut(&binding.keys)?;
        let sealed = context.protect_response(message, &mut binding.request).ok()?;
        self.sealed.push(sealed.clone());
        Some(sealed.message)
    }

    /// Opens a response to a request of ours.
    fn open_response(&mut self, message: &Message) -> Option<Message> {
        let sent = self.sent.get_mut(&message.token)?;
        let (number, context) = self.contexts.last_key_value()?;
        let opened =
            sent.requests.iter_mut().find_map(|request| context.open_response(message, request).ok())?;
        // RFC 9668 §3.2: the other end has the keys.
        if self.agreed.as_ref().is_some_and(|(of, _)| of == number) {
            self.agreed = None;
        }
        Some(opened)
    }
}

impl Peer {
    /// Takes in a request that was opened.
    pub(in crate::endpoint) fn open(
        &mut self,
        keys: KeysNumber,
        message: Message,
        request: RequestBinding,
        now: Instant,
    ) {
        if self.protection.is_newest(keys, &request) {
            self.protection.newest = Some((keys, request.partial_iv()));
        }
        // It is known to be new, whatever came with its message ID before.
        self.exchanges.forget_received(message.id);
        self.protection.opened = Some(Binding { keys, request });
        self.exchanges.receive(message, now);
    }

    /// What the request that is being taken in is bound to.
    pub(super) fn take_binding(&mut self) -> Option<Binding> {
        self.protection.opened.take()
    }

    /// Takes in a message that answers one of ours. What cannot be opened has changed nothing.
    pub(in crate::endpoint) fn receive_answer(&mut self, message: Message, now: Instant) {
        if message.is_empty() || !self.protection.is_on() {
            return self.exchanges.receive(message, now);
        }
        match self.protection.open_response(&message) {
            Some(opened) => self.exchanges.receive(opened, now),
            // RFC 7252 §4.5: it has been opened before, and its acknowledgement was lost.
            None if message.kind == Kind::Confirmable && self.exchanges.knows(message.id) => {
                self.exchanges.receive(message, now);
            }
            None => {
                debug!(remote = %self.address.remote, code = %message.code, protected = is_protected(&message), "response not opened");
                let is_error = matches!(message.code.class(), 4 | 5) && !is_protected(&message);
                self.outcomes.push_back(match is_error && self.client.contains(message.token) {
                    true => Outcome::Unprotected(Response {
                        code: message.code,
                        options: message.options,
                        payload: message.payload,
                    }),
                    false => Outcome::Unopened,
                });
            }
        }
    }

    /// Has message_3 go before requests, until a response to one has come.
    pub(in crate::endpoint) fn precede(&mut self, keys: KeysNumber, agreed: Box<Agreed>) {
        self.protection.agreed = Some((keys, agreed));
    }

    /// Whether a message that is no request is of this peer: it answers one of ours.
    pub(in crate::endpoint) fn expects(&self, message: &Message) -> bool {
        match message.kind {
            Kind::Acknowledgement | Kind::Reset => self.exchanges.awaits(message.id),
            // RFC 7252 §4.5: a repeat of what was opened, and asked for no longer, is acknowledged as the first was.
            _ => {
                let is_repeat = || self.exchanges.knows(message.id);
                message.code.is_response() && (self.client.contains(message.token) || is_repeat())
            }
        }
    }

    /// A response as it goes on the link.
    pub(in crate::endpoint) fn sealed(
        &mut self,
        message: Message,
        binding: Option<&mut Binding>,
    ) -> Result<Message, Busy> {
        match binding {
            Some(binding) => self.protection.seal_response(&message, binding).ok_or(Busy),
            // What would go in clear to one who speaks under protection goes nowhere.
            None if self.protection.is_on() => Err(Busy),
            None => Ok(message),
        }
    }

    /// A notification as it goes on the link.
    pub(super) fn sealed_for(&mut self, id: ObservationId, message: Message) -> Result<Message, Busy> {
        let mut binding = self.protection.observations.remove(&id);
        let sealed = self.sealed(message, binding.as_mut());
        self.protection.observations.extend(binding.map(|binding| (id, binding)));
        sealed
    }

    /// Takes in that a request may be a block of a body whose others are still to come.
    pub(super) fn bind_body(&mut self, asked: &Asked) {
        let Self { server, protection, .. } = self;
        protection.bodies.retain(|token, _| server.awaits_blocks(*token));
        if let Some(binding) = asked.binding.as_ref().filter(|_| server.awaits_blocks(asked.token)) {
            protection.bodies.insert(asked.token, binding.clone());
        }
    }

    /// What asks for blocks of a body, as it goes on the link.
    pub(super) fn sealed_for_body(&mut self, token: Token, message: Message) -> Result<Message, Busy> {
        let mut binding = self.protection.bodies.remove(&token);
        let sealed = self.sealed(message, binding.as_mut());
        self.protection.bodies.extend(binding.map(|binding| (token, binding)));
        sealed
    }

    /// A request of ours as it goes on the link.
    pub(super) fn sealed_request(&mut self, message: Message) -> Result<Message, Busy> {
        if !self.protection.is_on() {
            if self.protection.sent.len() >= Protection::UNDER_WAY {
                self.forget_sent();
            }
            self.protection.keep(&message);
            return Ok(message);
        }
        self.protection.seal_request(message).ok_or(Busy)
    }

    /// An observation's notifications are bound to its registration.
    pub(in crate::endpoint) fn bind(&mut self, id: ObservationId, binding: Option<&Binding>) {
        self.protection.observations.extend(binding.map(|binding| (id, binding.clone())));
    }

    /// What an observation is bound to.
    pub(in crate::endpoint) fn binding(&self, id: ObservationId) -> Option<&Binding> {
        self.protection.observations.get(&id)
    }

    pub(super) fn unbind(&mut self, id: ObservationId) {
        self.protection.observations.remove(&id);
    }

    /// The request that answers a challenge, where a response is one (RFC 9175 §2.3; RFC 8613 Appendix B.1.2). A server that asks for
    /// ever is left without.
    pub(super) fn answer_to_challenge(&mut self, response: &Message) -> Option<Message> {
        let sent = self.protection.sent.get_mut(&response.token)?;
        if response.code != Code::UNAUTHORIZED || sent.challenges >= CHALLENGES {
            return None;
        }
        let again = answer_challenge(&sent.message, response)?;
        sent.challenges += 1;
        Some(again)
    }

    /// Forgets what opens responses that nobody waits for.
    pub(super) fn forget_sent(&mut self) {
        if !self.protection.sent.is_empty() {
            let in_use = self.client.tokens();
            self.protection.sent.retain(|token, _| in_use.contains(token));
        }
    }

    /// Remembers what a request from before a restart is bound to.
    pub(in crate::endpoint) fn recall(&mut self, id: MessageId, binding: Option<&Binding>) {
        self.protection.recalled.extend(binding.map(|binding| (id, binding.clone())));
    }

    /// Forgets the requests from before a restart that are not remembered any more.
    pub(super) fn forget_recalled(&mut self) {
        let exchanges = &self.exchanges;
        self.protection.recalled.retain(|id, _| exchanges.knows(*id));
    }

    /// Forgets keys, and what depends on them.
    pub(in crate::endpoint) fn revoke(&mut self, keys: KeysNumber, now: Instant) {
        self.protection.contexts.remove(&keys);
        self.protection.newest.take_if(|(number, _)| *number == keys);
        let bound = self.protection.observations.iter().filter(|(_, binding)| binding.keys == keys);
        for id in bound.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end_observation(id, now);
            self.outcomes.push_back(Outcome::Deregistered(id));
        }
    }
}
