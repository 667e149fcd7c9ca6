//! Where a peer is (RFC 7252 §1.2: an endpoint is identified by its address and port, and by the security between).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where a peer is, and where it reached us: answers leave from the address that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our address and port that the peer's datagrams came to; unspecified on a client's socket.
    pub local: SocketAddr,
}

impl Address {
    /// What is set for the listener that a peer came to: for its own address and port, or for an unspecified address and that port.
    pub fn of_listener<T>(self, listeners: &BTreeMap<SocketAddr, T>) -> Option<&T> {
        listeners.get(&self.local).or_else(|| listeners.get(&self.any()))
    }

    /// Whether the listener that a peer came to is one of these, as in [`Address::of_listener`].
    pub fn is_of(self, listeners: &BTreeSet<SocketAddr>) -> bool {
        listeners.contains(&self.local) || listeners.contains(&self.any())
    }

    fn any(self) -> SocketAddr {
        let any: IpAddr = match self.local {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(any, self.local.port())
    }
}
