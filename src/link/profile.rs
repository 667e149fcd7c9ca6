//! What a link is like.

use std::time::Duration;

use super::terms::Terms;

/// A link between a gateway and its peers. "Up" is from a peer to the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    /// Bits that pass in a second from a peer to the gateway; 0 where nothing is known to hold them up.
    pub rate_up: u64,
    /// The same from the gateway to a peer.
    pub rate_down: u64,
    /// From the moment at which the last bit has left until it has come.
    pub delay: Duration,
    /// How much longer that may take at most.
    pub jitter: Duration,
    /// The greatest datagram from a peer, in bytes of UDP payload; the greatest frame where `fragments` is set.
    pub mtu_up: usize,
    /// The same from the gateway.
    pub mtu_down: usize,
    /// Whether longer datagrams cross in fragments of the MTU (as by SCHC, RFC 9011), or not at all.
    pub fragments: bool,
    /// Bytes that go with each frame beside its part of the UDP payload.
    pub overhead: usize,
    /// Whether both ends use one channel by turns.
    pub half_duplex: bool,
    /// How long the change of direction takes, where they do.
    pub turnaround: Duration,
    /// The share of time in which one end may be on the air, above 0 and at most 1.
    pub duty_cycle: f64,
    /// Whether all peers of a listener share one channel, or each has one of its own.
    pub shared: bool,
    /// The share of frames that are lost; simulations and relays lose so many.
    pub loss: f64,
    /// MAX_RETRANSMIT (RFC 7252 §4.8).
    pub max_retransmit: u32,
    /// NSTART (RFC 7252 §4.7).
    pub nstart: usize,
}

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The gateway, which sends down.
    Gateway,
    /// A peer, which sends up.
    Peer,
}

impl Profile {
    /// The terms for one end.
    pub fn terms(&self, end: End) -> Terms {
        let _ = end;
        unreachable!("to be written")
    }
}
