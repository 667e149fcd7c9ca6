//! What is kept of single messages, the peer's and ours.

use std::time::Duration;

use super::ExchangeId;
use crate::coap::message::Message;
use crate::coap::parameters::Answer;
use crate::coap::priority::Priority;
use crate::coap::time::Instant;

/// A message of ours that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) exchange: ExchangeId,
    /// What leaves before it, and is not confirmed.
    pub(super) before: Vec<Message>,
    pub(super) message: Message,
    pub(super) answer: Answer,
    pub(super) priority: Priority,
}

/// A message of the peer's, remembered for its repeats.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) expires: Instant,
    /// Until when its sender waits for the reply, if this was its first transmission (§4.8.2: MAX_TRANSMIT_WAIT).
    pub(super) awaited: Instant,
    pub(super) reply: Reply,
    /// Whether somebody else keeps a record of it.
    pub(super) recorded: bool,
}

#[derive(Debug)]
pub(super) enum Reply {
    /// None is due: the message was not confirmable.
    None,
    /// An acknowledgement, at the latest at this time.
    Owed { due: Instant },
    /// This one, again for every repeat.
    Sent(Vec<u8>),
}

impl Reply {
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Owed { due } => Some(*due),
            _ => None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }
}

/// A confirmable message of ours that is not yet acknowledged.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) exchange: ExchangeId,
    pub(super) datagram: Vec<u8>,
    pub(super) priority: Priority,
    pub(super) repeats: u32,
    /// How many of its datagrams went nowhere.
    pub(super) kept_back: u32,
    pub(super) first_timeout: Duration,
    pub(super) timeout: Duration,
    /// When it is repeated or given up; not while its datagram waits in a queue.
    pub(super) due: Option<Instant>,
    /// When its last bit left for the first time.
    pub(super) first_departure: Option<Instant>,
    /// When its last bit left for the last time.
    pub(super) last_departure: Option<Instant>,
}

impl Sent {
    /// Whether any of its datagrams has left.
    pub(super) fn has_left(&self) -> bool {
        self.repeats + u32::from(self.due.is_some()) > self.kept_back
    }
}
