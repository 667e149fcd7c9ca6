//! Keys that two endpoints agree on over the link, in 101 bytes (EDHOC, RFC 9528): parameters for OSCORE.

mod connection;
mod credential;
mod error;
mod handshake;
mod key;
mod message;
mod primitives;
#[cfg(test)]
mod traces;

pub use connection::ConnectionId;
pub use credential::{Credential, CredentialError, Identity};
pub use error::{ErrorMessage, Refusal};
pub use key::{KeyError, KeyPair, PublicKey};
