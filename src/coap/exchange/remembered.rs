//! What is remembered of the messages that came from the peer, and the replies to their repeats (RFC 7252 §4.5).

use super::Exchanges;
use super::entry::{Received, Reply};
use super::event::Outgoing;
use crate::coap::message::{Kind, Message, MessageId};
use crate::coap::time::Instant;

impl Exchanges {
    pub(super) fn remember(&mut self, message: &Message, now: Instant) {
        let (lifetime, reply) = match message.kind {
            Kind::Confirmable => {
                let due = now + self.parameters.piggyback_wait;
                (self.parameters.exchange_lifetime(), Reply::Owed { due })
            }
            _ => (self.parameters.non_lifetime(), Reply::None),
        };
        while self.remembered.len() >= self.limits.remembered.max(1) {
            self.forget_oldest();
        }
        let awaited = now + self.parameters.max_transmit_wait();
        self.received
            .insert(message.id, Received { expires: now + lifetime, awaited, reply, recorded: false });
        self.remembered.push_back(message.id);
    }

    /// Whether a message of the peer's with this id is remembered.
    pub fn knows(&self, id: MessageId) -> bool {
        self.received.contains_key(&id)
    }

    /// Until when a message of the peer's is remembered.
    pub fn remembered_until(&self, id: MessageId) -> Option<Instant> {
        self.received.get(&id).map(|received| received.expires)
    }

    pub(super) fn forget_oldest(&mut self) {
        if let Some(id) = self.remembered.front().copied() {
            self.forget_received(id);
        }
    }

    /// Forgets all messages of the peer's, as [`Exchanges::forget_received`] does.
    pub fn forget_all_received(&mut self) {
        for id in self.remembered.clone() {
            self.forget_received(id);
        }
    }

    /// Forgets a message of the peer's: what comes with its id is new. An acknowledgement that it is still owed goes out first.
    pub fn forget_received(&mut self, id: MessageId) {
        self.remembered.retain(|remembered| *remembered != id);
        let Some(received) = self.received.remove(&id) else { return };
        if received.recorded {
            self.forgotten.push_back(id);
        }
        match received.reply {
            Reply::Owed { .. } => {
                let acknowledgement = Message::empty(Kind::Acknowledgement, id).encode();
                self.datagrams.push_back(Outgoing::reply(acknowledgement));
            }
            Reply::Sent(datagram) => self.remembered_bytes -= datagram.len(),
            Reply::None => {}
        }
    }

    /// Marks a remembered message as recorded elsewhere, so that it will be known when that is of no use any more.
    pub fn record(&mut self, id: MessageId) {
        if let Some(received) = self.received.get_mut(&id) {
            received.recorded = true;
        }
    }

    /// The recorded messages that are still remembered.
    pub fn recorded(&self) -> impl Iterator<Item = MessageId> {
        self.received.iter().filter(|(_, received)| received.recorded).map(|(id, _)| *id)
    }

    /// The next recorded message that is remembered no more.
    pub fn poll_forgotten(&mut self) -> Option<MessageId> {
        self.forgotten.pop_front()
    }

    /// Remembers a message again that came before a restart, with the reply to its repeats; where none was given yet, it
    /// is owed.
    pub fn recall(&mut self, message: &Message, reply: Option<Vec<u8>>, expires: Instant, now: Instant) {
        self.remember(message, now);
        let Some(received) = self.received.get_mut(&message.id) else { return };
        // The clock may have been ahead before the restart.
        received.expires = received.expires.min(expires);
        received.recorded = true;
        if let Some(datagram) = reply.filter(|_| message.kind == Kind::Confirmable) {
            self.remembered_bytes += datagram.len();
            received.reply = Reply::Sent(datagram);
        }
    }

    pub(super) fn owes(&self, id: MessageId) -> bool {
        self.received.get(&id).is_some_and(|received| matches!(received.reply, Reply::Owed { .. }))
    }

    /// Sends the reply to a remembered message, and remembers it for duplicates.
    pub(super) fn reply(&mut self, id: MessageId, datagram: Vec<u8>) {
        let Some(received) = self.received.get_mut(&id) else { return };
        self.remembered_bytes += datagram.len();
        received.reply = Reply::Sent(datagram.clone());
        let expires = Some(received.awaited);
        self.datagrams.push_back(Outgoing { expires, ..Outgoing::reply(datagram) });
        while self.remembered_bytes > self.limits.remembered_bytes && self.remembered.front() != Some(&id) {
            self.forget_oldest();
        }
    }
}
