//! The keys of devices, whose messages are protected.

use super::Gateway;
use crate::endpoint::{Association, KeysNumber};
use crate::security::oscore::{Parameters, ParametersError, Used};

impl Gateway {
    /// Takes in keys of a device, before [`Gateway::restore`] where they were used before. What the gateway stores must survive it:
    /// see [`crate::endpoint::Config::durable`].
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub fn admit_keys(
        &mut self,
        number: KeysNumber,
        association: Association,
        parameters: Parameters,
    ) -> Result<(), ParametersError> {
        self.endpoint.admit_keys(number, association, parameters)
    }

    /// The next nonce that a message was sealed with: see [`crate::endpoint::Endpoint::poll_used`].
    pub fn poll_used(&mut self) -> Option<Used> {
        self.endpoint.poll_used()
    }
}
