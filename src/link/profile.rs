//! What a link is like.

use std::time::Duration;

use super::profiles::Profiles;
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
    /// The greatest datagram from a peer, in bytes of UDP payload, at least 80; the greatest frame where `fragments` is set.
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
    /// Whether nobody can send from another's address over it, as over a modem's own network: then no peer has to show where it is.
    pub trust_addresses: bool,
    /// How many times faster than the real link this one is, in all its times: for tests. The rest is scaled already.
    pub speed: u32,
    /// Bytes that security below CoAP adds to each datagram.
    pub sealing: usize,
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
    /// The greatest UDP payload of IPv4; an MTU that says nothing of the link.
    pub const MAX_DATAGRAM: usize = 65_507;

    /// The greatest speed.
    pub const MAX_SPEED: u32 = 1000;

    /// A link that nothing is known to hold up.
    pub fn unlimited(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rate_up: 0,
            rate_down: 0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            mtu_up: Self::MAX_DATAGRAM,
            mtu_down: Self::MAX_DATAGRAM,
            fragments: false,
            overhead: 0,
            half_duplex: false,
            turnaround: Duration::ZERO,
            duty_cycle: 1.0,
            shared: false,
            loss: 0.0,
            max_retransmit: 4,
            nstart: 1,
            trust_addresses: false,
            speed: 1,
            sealing: 0,
        }
    }

    /// The built-in profile of this name: a table of `dictionaries/links.toml`.
    pub fn built_in(name: &str) -> Option<Self> {
        Profiles::built_in().get(name)
    }

    /// All built-in profiles, by name.
    pub fn all_built_in() -> Vec<Self> {
        Profiles::built_in().iter().collect()
    }

    /// The terms for one end.
    pub fn terms(&self, end: End) -> Terms {
        Terms::of(self, end)
    }

    /// The same link so many times faster: rates times `speed`, times divided by it. From 1 to [`Profile::MAX_SPEED`].
    #[must_use]
    pub fn faster(self, speed: u32) -> Self {
        let speed = speed.clamp(1, Self::MAX_SPEED);
        Self {
            rate_up: self.rate_up.saturating_mul(speed.into()),
            rate_down: self.rate_down.saturating_mul(speed.into()),
            delay: self.delay / speed,
            jitter: self.jitter / speed,
            turnaround: self.turnaround / speed,
            speed: self.speed.saturating_mul(speed),
            ..self
        }
    }

    /// The same link below security that adds so many bytes to each datagram: they take their time on the air, and their room in the
    /// greatest datagram.
    #[must_use]
    pub fn sealed(self, sealing: usize) -> Self {
        Self { sealing, ..self }
    }

    /// Bits that pass in a second from this end; 0 where nothing is known to hold them up.
    pub fn rate(&self, from: End) -> u64 {
        match from {
            End::Gateway => self.rate_down,
            End::Peer => self.rate_up,
        }
    }

    /// The greatest datagram, or frame, from this end.
    pub fn mtu(&self, from: End) -> usize {
        match from {
            End::Gateway => self.mtu_down,
            End::Peer => self.mtu_up,
        }
    }

    /// Whether it holds up nothing that a datagram does.
    pub fn is_unlimited(&self) -> bool {
        let is_fast = self.rate_up == 0 && self.rate_down == 0 && self.duty_cycle >= 1.0;
        is_fast && self.delay.is_zero() && self.jitter.is_zero() && !self.half_duplex
    }
}

impl End {
    /// The end that this one speaks with.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Gateway => Self::Peer,
            Self::Peer => Self::Gateway,
        }
    }
}
