//! The keys of devices, whose messages are protected.

use super::Gateway;
use crate::security::oscore::Used;

impl Gateway {
    /// The next nonce that a message was sealed with: see [`crate::endpoint::Endpoint::poll_used`].
    pub fn poll_used(&mut self) -> Option<Used> {
        self.endpoint.poll_used()
    }
}
