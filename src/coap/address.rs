//! Where a peer is (RFC 7252 §1.2: an endpoint is identified by its address and port, and by the security between).

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where a peer is, and where it reached us: answers leave from the address that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our address that the peer's datagrams came to; unspecified on a client's socket.
    pub local: IpAddr,
}
