//! The packed profile: requests and responses of the client-server API in as few bytes as they can be (docs/packed.md).
//!
//! Pure functions and two state machines, [`ProxyEnd`] and [`GatewayEnd`], one for each end of an association. What goes through them
//! comes out at the other end value for value; what is between them is identifiers by number, tokens that stay at home, bytes instead of
//! base64, times as differences, and a coder that knows from a dictionary what such messages look like.

mod aliases;
mod answers;
mod check;
mod clock;
mod code;
mod coder;
mod dictionary;
mod draft;
mod end;
mod error;
mod journal;
mod message;
mod read;
mod samples;
mod stream;
mod tables;
mod tokens;
pub mod train;
mod typed;
mod write;

pub use aliases::Kind;
pub use check::Tables;
pub use check::Unequal;
pub use check::check;
pub use dictionary::Dictionary;
pub use dictionary::DictionaryError;
pub use dictionary::File;
pub use dictionary::Files;
pub use dictionary::Primer;
pub use dictionary::RowError;
pub use draft::Agreement;
pub use draft::Spelling;
pub use end::Encoded;
pub use end::GatewayEnd;
pub use end::MessageNumber;
pub use end::ProxyEnd;
pub use error::DecodeError;
pub use error::EncodeError;
pub use journal::Change;
pub use message::Asked;
pub use message::Limits;
pub use message::Request;
pub use message::Response;
