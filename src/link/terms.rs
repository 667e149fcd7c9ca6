//! What a link means for the end of it that sends.

use std::time::Duration;

use crate::coap::{Airtime, BlockSize, Parameters};

/// The terms on which one end of a link speaks with the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Transmission parameters (RFC 7252 §4.8).
    pub parameters: Parameters,
    /// The greatest block that is sent, and asked for.
    pub block: BlockSize,
    /// How long a body is held after its last block was asked for or came.
    pub lifetime: Duration,
    /// How long a client waits for a response, after its request was acknowledged or repeated for the last time.
    pub response_timeout: Duration,
    /// How long a client goes on asking for a transfer's next block while nobody answers.
    pub patience: Duration,
    /// How fast datagrams may leave; as fast as they come where there is none.
    pub pace: Option<Pace>,
}

/// How fast the datagrams of one queue may leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// How long they are on the air.
    pub sending: Airtime,
    /// How long those of the other end are, where both use one channel by turns (half-duplex).
    pub by_turns: Option<Turns>,
    /// The share of time in which this end may be on the air, above 0 and at most 1.
    pub duty_cycle: f64,
    /// The greatest datagram that the link carries, in bytes of UDP payload.
    pub mtu: usize,
    /// Whether all peers of a listener share one channel, or each has one of its own.
    pub shared: bool,
}

/// One channel by turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// How long the change of direction takes.
    pub turnaround: Duration,
}
