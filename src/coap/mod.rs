//! CoAP without sockets and clocks: messages, exchanges, transfers and observations.
//!
//! Uses nothing else of this crate. Time and chance are arguments.

mod code;
mod exchange;
mod message;
mod option;
mod parameters;
mod request;
mod time;

pub use code::Code;
pub use exchange::{Answered, Busy, Event, ExchangeId, Exchanges, Limits};
pub use message::{DecodeError, Kind, Malformed, Message, MessageId, Token};
pub use option::{OptionFormat, OptionNumber, Options, read_uint, uint};
pub use parameters::Parameters;
pub use request::{Observe, Request, Response, content_format};
pub use time::Instant;
