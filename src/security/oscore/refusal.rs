//! What cannot be opened, and what its sender is told (RFC 8613 §8.2, §8.4).

use bytes::Bytes;
use thiserror::Error;

use super::header::HeaderError;
use crate::coap::{Code, OptionNumber, Options, Response};

/// Why a request was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The OSCORE option cannot be read.
    #[error("malformed header: {0}")]
    Header(#[from] HeaderError),
    /// A proxy cut the protected message into blocks (RFC 8613 §4.1.3.4.2), which are not put together here.
    #[error("outer blocks are not supported")]
    OuterBlock,
    /// Nobody is known by its `kid` and `kid context`.
    #[error("security context not found")]
    UnknownContext,
    /// It has come before, or may have.
    #[error("replayed")]
    Replayed,
    /// It was not made with the keys of its context, or was changed.
    #[error("decryption failed")]
    Forged,
    /// It was made with the right keys, and is no message.
    #[error("what was decrypted is no request")]
    NotARequest,
    /// No sequence numbers are reserved: see [`super::Context::reserve`].
    #[error("no sequence numbers are reserved")]
    Unreserved,
    /// There are no more sequence numbers.
    #[error("sequence numbers are exhausted")]
    Exhausted,
}

/// How much a refusal tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disclosure {
    /// The same to everybody who has no keys: whether a context exists cannot be had from it. Without a payload, which would cost more
    /// than the request.
    #[default]
    Uniform,
    /// Code and diagnostic payload of RFC 8613 §8.2, for one who looks for a mistake.
    Exact,
}

impl Refusal {
    /// The response, which is sent as it is, unprotected; none where the fault is ours.
    pub fn response(self, disclosure: Disclosure) -> Option<Response> {
        let (code, diagnostic) = match self {
            Self::Header(_) => (Code::BAD_OPTION, "Failed to decode COSE"),
            Self::OuterBlock => (Code::BAD_OPTION, "Outer block options are not supported"),
            Self::UnknownContext => (Code::UNAUTHORIZED, "Security context not found"),
            Self::Replayed => (Code::UNAUTHORIZED, "Replay detected"),
            // §8.2 has 4.00 for what is not decrypted. But it only says what a server may answer; and 4.01 where the kid is unknown, 4.00
            // where it is not, would tell a stranger which kids there are.
            Self::Forged if disclosure == Disclosure::Uniform => (Code::UNAUTHORIZED, ""),
            Self::Forged | Self::NotARequest => (Code::BAD_REQUEST, "Decryption failed"),
            Self::Unreserved | Self::Exhausted => return None,
        };
        let mut options = Options::new();
        // §4.1.3.1: so that no proxy keeps it.
        options.push_uint(OptionNumber::MAX_AGE, 0);
        let payload = match disclosure {
            Disclosure::Uniform => Bytes::new(),
            Disclosure::Exact => Bytes::from_static(diagnostic.as_bytes()),
        };
        Some(Response { code, options, payload })
    }
}

/// Why a response was not opened. It is dropped in silence, and its request still waits for another (RFC 8613 §8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// It is not protected: an error of a server that could not open the request, or of anybody at all. Nobody vouches for it.
    #[error("unprotected response {0}")]
    Unprotected(Code),
    /// The OSCORE option cannot be read.
    #[error("malformed header: {0}")]
    Header(#[from] HeaderError),
    /// A proxy cut the protected message into blocks.
    #[error("outer blocks are not supported")]
    OuterBlock,
    /// It names another sender.
    #[error("security context not found")]
    UnknownContext,
    /// It has come before, or is older than a notification that has.
    #[error("replayed, or older than what has come")]
    Replayed,
    /// It was not made with the keys of its context, or for another request, or was changed.
    #[error("decryption failed")]
    Forged,
    /// It was made with the right keys, and is no response; or a notification of what is not observed.
    #[error("what was decrypted is no response to this request")]
    NotAResponse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_cannot_tell_whether_a_context_exists() {
        let told = |refusal: Refusal| refusal.response(Disclosure::Uniform);
        assert_eq!(told(Refusal::UnknownContext), told(Refusal::Forged));
        assert_eq!(told(Refusal::UnknownContext), told(Refusal::Replayed));
        assert_eq!(told(Refusal::Unreserved), None);
    }

    #[test]
    fn exactly_what_rfc_8613_section_8_2_says_can_be_told() {
        let told = |refusal: Refusal| {
            let response = refusal.response(Disclosure::Exact).unwrap();
            assert_eq!(response.options.get_uint(OptionNumber::MAX_AGE), Some(0));
            (response.code.to_string(), String::from_utf8(response.payload.to_vec()).unwrap())
        };
        let is = |code: &str, text: &str| (code.to_owned(), text.to_owned());
        assert_eq!(told(HeaderError::ZeroFlags.into()), is("4.02", "Failed to decode COSE"));
        assert_eq!(told(Refusal::UnknownContext), is("4.01", "Security context not found"));
        assert_eq!(told(Refusal::Replayed), is("4.01", "Replay detected"));
        assert_eq!(told(Refusal::Forged), is("4.00", "Decryption failed"));
    }
}
