//! CoAP ⇄ HTTP for Matrix, both ways and both roles (MSC3079, RFC 8075): pure functions.
//!
//! A gateway uses [`request::to_http`] and [`response::to_coap`], a client [`request::to_coap`] and
//! [`response::to_http`]. Sending, waiting and retrying are for others.

mod body;
mod call;
pub mod header;
pub mod packed;
mod refusal;
pub mod request;
pub mod response;
mod session;
pub mod status;

pub use body::Format;
pub use call::Call;
pub use refusal::FetchError;
pub use refusal::Refusal;
pub use session::Session;
