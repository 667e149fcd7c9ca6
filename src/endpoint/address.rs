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

/// Whom we speak with, wherever it is: all that is known of a peer hangs on this. For plain CoAP it is made from the peer's
/// address, so that a peer with a new address is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Association(Address);

impl From<Address> for Association {
    fn from(address: Address) -> Self {
        Self(address)
    }
}

impl Association {
    /// Where it is.
    pub(super) fn address(self) -> Address {
        self.0
    }
}
