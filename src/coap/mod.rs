//! CoAP without sockets and clocks: messages, exchanges, transfers and observations.
//!
//! Uses nothing else of this crate. Time and chance are arguments.

mod address;
mod airtime;
mod block;
mod code;
mod exchange;
mod message;
mod observe;
mod option;
mod parameters;
mod priority;
mod request;
mod time;
mod transfer;

pub use address::Address;
pub use airtime::Airtime;
pub use block::{Block, BlockSize, ReservedSize};
pub use code::Code;
pub use exchange::{Answered, Busy, Counts, Event, ExchangeId, Exchanges, Limits, Outgoing};
pub use message::{DecodeError, Kind, Malformed, Message, MessageId, Token};
pub use observe::{Observation, ObservationId, Observations, is_newer};
pub use option::{OptionFormat, OptionNumber, Options, read_uint, uint};
pub use parameters::{ACKNOWLEDGEMENT, Answer, Parameters};
pub use priority::Priority;
pub use request::{Observe, Request, Response, content_format};
pub use time::Instant;
pub use transfer::{
    ClientTransfers, Delivery, Plan, Received, Reply, RequestError, ServerTransfers, Step, TransferLimits,
};
