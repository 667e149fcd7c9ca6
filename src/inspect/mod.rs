//! A datagram explained: every field of the message, what its options and payload say, and what it asks of Matrix.
//!
//! Pure. Reads more than [`Message::decode`](crate::coap::Message::decode) accepts: a malformed datagram is explained up to
//! where it breaks. Secrets are left out unless they are asked for.

mod explanation;
mod option;
mod payload;
mod protection;
mod secret;
mod text;
mod wire;

pub use explanation::Explanation;
pub use explanation::Fault;
pub use explanation::Header;
pub use explanation::MatrixRequest;
pub use explanation::Meaning;
pub use explanation::Sizes;
pub use explanation::explain;
pub use explanation::explain_with;
pub use option::OptionField;
pub use payload::Format;
pub use payload::Payload;
pub use protection::Protection;
pub use secret::Secrets;
