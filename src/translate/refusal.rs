//! Why a request gets an answer that is not the homeserver's.

use http::StatusCode;

use crate::coap::Code;
use crate::coap::OptionNumber;
use crate::codec;
use crate::device;
use crate::matrix::PathError;
use crate::matrix::QueryError;
use crate::packed;
use crate::translate::packed::Identity;

/// Why a request is refused, or its answer withheld. The text goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A method other than GET, POST, PUT and DELETE.
    #[error("method {0} is not supported")]
    Method(Code),
    /// The request asks for a forward proxy.
    #[error("this is no forward proxy")]
    Proxy,
    /// A critical option that means nothing here.
    #[error("{0} is not supported")]
    Option(OptionNumber),
    /// The Uri-Path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The Uri-Query.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Path and query are longer than any URL.
    #[error("the path and the query are too long")]
    UriTooLong,
    /// An access token that no header can hold.
    #[error("the access token has characters that no token has")]
    AccessToken,
    /// An access token in the place of one that was kept here, and is not any more.
    #[error("the gateway does not have the access token any more: log in again")]
    UnknownToken,
    /// A body in a representation that is neither CBOR nor JSON.
    #[error("content format {0} is not supported")]
    ContentFormat(u32),
    /// An answer wanted in a representation that is neither CBOR nor JSON.
    #[error("answers in content format {0} are not supported")]
    Accept(u32),
    /// A body that cannot be read.
    #[error("the body is not CBOR: {0}")]
    Body(#[from] codec::DecodeError),
    /// The gateway was started again while the request was under way, and it is one that may have another effect when it is
    /// made again.
    #[error("the gateway was restarted while this was under way: it may or may not have been done")]
    Interrupted,
    /// The gateway is going away.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// What the gateway's operator has not allowed the device that asks.
    #[error(transparent)]
    Device(#[from] device::Refused),
    /// What is no message of the packed profile, or refers to what is not known here.
    #[error(transparent)]
    Packed(#[from] packed::DecodeError),
    /// A message of the packed profile by a peer that has not begun, or of which that is not known any more.
    #[error("there is no agreement with this peer: it has to begin one")]
    NoAgreement,
    /// A message by the packed profile's model before that is ready, and after too many others.
    #[error("the gateway is not ready to read this yet")]
    NotReady,
    /// A peer whose dictionary is another.
    #[error("the tables and the dictionary here are {}, and the peer has {theirs}", listed(ours))]
    Dictionary {
        /// Those that are spoken here.
        ours: Vec<Identity>,
        /// The peer's.
        theirs: Identity,
    },
    /// A method in a message of the packed profile that is none of GET, POST, PUT and DELETE.
    #[error("method {0} is not supported")]
    HttpMethod(String),
    /// No answer of the homeserver. What exactly happened is for the operator.
    #[error("{}", told(.0))]
    Fetch(#[from] FetchError),
    /// An answer of the homeserver, or of something before it, that is not JSON.
    #[error("the homeserver answered {status} with a body that is not JSON")]
    NotJson {
        /// The HTTP status of the answer.
        status: StatusCode,
    },
    /// An answer of the homeserver that has no CBOR form.
    #[error("the homeserver answered {status} with a body that cannot be carried: {error}{}", remedy(error))]
    Unencodable {
        /// The HTTP status of the answer.
        status: StatusCode,
        /// Why not.
        error: codec::EncodeError,
    },
}

/// What the peer can do about it.
fn remedy(error: &codec::EncodeError) -> &'static str {
    match error {
        codec::EncodeError::Depth { .. } => "; a filter that leaves the event out lets the rest through",
        _ => "",
    }
}

/// Why the homeserver gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No connection, or one that broke; with the reason, for the operator.
    #[error("the homeserver cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the homeserver did not answer in time")]
    Timeout,
    /// There is no access token to ask with.
    #[error(transparent)]
    Token(#[from] device::TokenError),
    /// An answer over the limit.
    #[error("the homeserver's answer has more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

fn listed(identities: &[Identity]) -> String {
    identities.iter().map(Identity::to_string).collect::<Vec<_>>().join(" or ")
}

fn told(error: &FetchError) -> String {
    match error {
        FetchError::Unreachable(_) => "the homeserver cannot be reached".to_owned(),
        other => other.to_string(),
    }
}
