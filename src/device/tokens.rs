//! The Matrix tokens of a device, which stay with the gateway.

use serde::Deserialize;
use serde::Serialize;

use super::Secret;
use crate::coap::Instant;

/// An access token, and how to get the next (client-server API v1.19 §"Refreshing access tokens").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// What requests are made with.
    pub access: Secret,
    /// What the next is asked for with.
    pub refresh: Option<Secret>,
    /// When the access token ends, where the homeserver has said so.
    pub expires: Option<Instant>,
    /// Whom the next is asked of.
    pub renewal: Renewal,
}

/// Whom the next access token is asked of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Renewal {
    /// The homeserver, by `POST /refresh`.
    Homeserver,
    /// An OAuth 2.0 authorization server (RFC 6749 §6).
    OAuth {
        /// Its `token_endpoint`.
        token_endpoint: String,
        /// What the gateway is registered as.
        client_id: String,
    },
}

impl Tokens {
    /// An access token that ends when somebody ends it, and with nothing to follow it.
    pub fn access(token: impl Into<Vec<u8>>) -> Self {
        Self { access: Secret::new(token), refresh: None, expires: None, renewal: Renewal::Homeserver }
    }
}
