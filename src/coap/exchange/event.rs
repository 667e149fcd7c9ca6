//! What goes into exchanges and comes out of them.

use thiserror::Error;

use crate::coap::message::Message;
use crate::coap::priority::Priority;
use crate::coap::time::Instant;

/// How often something happened that nobody else hears of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that had come before.
    pub duplicates: u64,
    /// Messages of ours that were sent again.
    pub repeats: u64,
    /// Messages of ours that were never acknowledged.
    pub timeouts: u64,
}

/// What one peer may take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages remembered for deduplication; the oldest goes first.
    pub remembered: usize,
    /// Bytes of replies remembered with them; the oldest goes first.
    pub remembered_bytes: usize,
    /// Messages waiting for their turn; [`Busy`] beyond that.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { remembered: 256, remembered_bytes: 64 << 10, waiting: 64 }
    }
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its bytes.
    pub datagram: Vec<u8>,
    /// How pressing it is.
    pub priority: Priority,
    /// The exchange whose wait for an acknowledgement begins when it has left: see [`super::Exchanges::departed`].
    pub exchange: Option<ExchangeId>,
    /// From when on it is of no use to the peer any more.
    pub expires: Option<Instant>,
    /// Whether it was sent before.
    pub repeat: bool,
}

/// One of our own confirmable messages, from [`super::Exchanges::send`] until it is reported as ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(pub(super) u64);

/// What happened with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request, once however often it came. It is answered with [`super::Exchanges::respond`].
    Request(Message),
    /// A response or a notification, once. A confirmable one is answered with [`super::Exchanges::acknowledge`] or
    /// [`super::Exchanges::reject`].
    Response(Message),
    /// The peer has this message of ours.
    Acknowledged(ExchangeId),
    /// The peer has this message of ours, and no use for it.
    Reset(ExchangeId),
    /// The peer did not acknowledge this message in all its repeats.
    TimedOut(ExchangeId),
}

/// How an answer left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// In the acknowledgement (RFC 7252 §5.2.1), or in a message that is not confirmed.
    Unconfirmed,
    /// In a confirmable message of its own (RFC 7252 §5.2.2), whose end will be reported.
    Confirmable(ExchangeId),
}

/// Too many messages wait for this peer already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many messages wait for this peer")]
pub struct Busy;

/// Whether a datagram of ours is an empty message: its code is 0.00.
pub(super) fn is_empty(datagram: &[u8]) -> bool {
    datagram.get(1) == Some(&0)
}

impl Outgoing {
    /// What answers a message of the peer's: an acknowledgement, a reset, or a response in one.
    pub(crate) fn reply(datagram: Vec<u8>) -> Self {
        let priority = if is_empty(&datagram) { Priority::Acknowledgement } else { Priority::Reply };
        Self { datagram, priority, exchange: None, expires: None, repeat: false }
    }
}
