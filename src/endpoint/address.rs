//! Who a peer is, and where.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where a peer is, and where it reached us: answers leave from the address that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our address and port that the peer's datagrams came to; unspecified on a client's socket.
    pub local: SocketAddr,
}

/// Whom we speak with: all that is known of a peer hangs on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Association {
    /// Whoever is at this address: with a new address, it is another one.
    Plain(Address),
    /// A device with keys of its own, wherever it is, by a number that no other has had or will have.
    Device(u64),
}

impl From<Address> for Association {
    fn from(address: Address) -> Self {
        Self::Plain(address)
    }
}
