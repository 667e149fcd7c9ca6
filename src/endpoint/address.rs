//! Who a peer is.

use serde::{Deserialize, Serialize};

use crate::coap::Address;

/// Whom we speak with: all that is known of a peer hangs on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Association {
    /// Whoever is at this address: with a new address, it is another one.
    Plain(Address),
    /// A device with keys of its own, wherever it is, by a number that no other has had or will have.
    Device(u64),
    /// Whoever is at the other end of this session of DTLS (RFC 7252 §9.1), by a number that no other has had since the start: all that is
    /// known of it ends with the session, and nothing of it outlasts a restart.
    Session(u64),
}

impl From<Address> for Association {
    fn from(address: Address) -> Self {
        Self::Plain(address)
    }
}
