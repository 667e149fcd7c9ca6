//! What keeps an exchange from arriving as it was recorded.

use std::fmt;

use http::StatusCode;
use thiserror::Error;

use crate::coap::RequestError;
use crate::packed;
use crate::translate::Refusal;
use crate::translate::request::SendError;
use crate::translate::response::ReadError;

/// The first thing in which an exchange differs, of those in the order in which it happens.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Difference {
    /// The client's end cannot write the request.
    #[error("the request cannot be sent: {0}")]
    Send(#[from] SendError),
    /// It cannot pack it.
    #[error("the request cannot be packed: {0}")]
    Pack(#[from] packed::EncodeError),
    /// The gateway's end does not take it.
    #[error("the gateway refuses the request: {0}")]
    Refused(Refusal),
    /// It cannot unpack it.
    #[error("the gateway cannot unpack the request: {0}")]
    Take(packed::DecodeError),
    /// It takes it for another.
    #[error("the gateway reads another {0} than was sent")]
    Call(Part),
    /// It cannot write the answer.
    #[error("the gateway cannot pass the answer on: {0}")]
    Answer(Refusal),
    /// The client's end cannot read that.
    #[error("the answer cannot be read: {0}")]
    Read(#[from] ReadError),
    /// It cannot unpack that.
    #[error("the answer cannot be unpacked: {0}")]
    Unpack(packed::DecodeError),
    /// It reads another status.
    #[error("the status {read} is read where {recorded} was recorded")]
    Status {
        /// What the homeserver said.
        recorded: StatusCode,
        /// What came of it.
        read: StatusCode,
    },
    /// It reads another body.
    #[error("another body is read than was recorded")]
    Body,
    /// The exchange did not come to its end on the link.
    #[error("there is no end to it on the link")]
    Endless,
    /// CoAP could not carry it.
    #[error("CoAP cannot carry it: {0}")]
    Failed(#[from] RequestError),
}

impl Difference {
    /// Whether nobody knows what either end knows of the other after it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Take(_) | Self::Unpack(_) | Self::Endless | Self::Failed(_))
    }
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its method.
    Method,
    /// Its path.
    Path,
    /// Its query.
    Query,
    /// Who makes it.
    Authorization,
    /// Its body.
    Body,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "method",
            Self::Path => "path",
            Self::Query => "query",
            Self::Authorization => "authorization",
            Self::Body => "body",
        })
    }
}
