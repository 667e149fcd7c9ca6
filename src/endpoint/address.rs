//! Who a peer is.

use serde::{Deserialize, Serialize};

use crate::coap::Address;

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
