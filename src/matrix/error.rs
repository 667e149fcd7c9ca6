//! The error bodies that `lowband` itself writes (Matrix 1.19 client-server API, "Standard error response").

use std::fmt;

use serde_json::json;

/// An error code that a gateway or a proxy may have to give. Those of the homeserver pass through untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// This is not allowed here.
    Forbidden,
    /// The access token cannot be read.
    UnknownToken,
    /// The body cannot be read.
    NotJson,
    /// A parameter has a value that cannot be carried.
    InvalidParam,
    /// The position of sliding sync is not known any more, and the client begins anew (MSC4186).
    UnknownPos,
    /// The request or its answer is larger than the limit.
    TooLarge,
    /// There are too many requests at once.
    LimitExceeded,
    /// The path, the method or the representation is not one of ours.
    Unrecognized,
    /// The homeserver cannot be reached.
    ConnectionFailed,
    /// The homeserver does not answer in time.
    ConnectionTimeout,
    /// Anything else.
    Unknown,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [ErrorCode; 11] = [
        ErrorCode::Forbidden,
        ErrorCode::UnknownToken,
        ErrorCode::NotJson,
        ErrorCode::InvalidParam,
        ErrorCode::UnknownPos,
        ErrorCode::TooLarge,
        ErrorCode::LimitExceeded,
        ErrorCode::Unrecognized,
        ErrorCode::ConnectionFailed,
        ErrorCode::ConnectionTimeout,
        ErrorCode::Unknown,
    ];

    /// The `errcode` as Matrix spells it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::Forbidden => "M_FORBIDDEN",
            ErrorCode::UnknownToken => "M_UNKNOWN_TOKEN",
            ErrorCode::NotJson => "M_NOT_JSON",
            ErrorCode::InvalidParam => "M_INVALID_PARAM",
            ErrorCode::UnknownPos => "M_UNKNOWN_POS",
            ErrorCode::TooLarge => "M_TOO_LARGE",
            ErrorCode::LimitExceeded => "M_LIMIT_EXCEEDED",
            ErrorCode::Unrecognized => "M_UNRECOGNIZED",
            ErrorCode::ConnectionFailed => "M_CONNECTION_FAILED",
            ErrorCode::ConnectionTimeout => "M_CONNECTION_TIMEOUT",
            ErrorCode::Unknown => "M_UNKNOWN",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The JSON body of an error: its code, and a message for people.
pub fn body(errcode: ErrorCode, message: &str) -> Vec<u8> {
    json!({ "errcode": errcode.name(), "error": message }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SPECIFIED: &str = include_str!("../../tests/vectors/matrix/errcodes.txt");

    #[test]
    fn every_code_is_one_of_the_specification() {
        let specified: BTreeSet<_> = SPECIFIED.lines().filter(|line| !line.starts_with('#')).collect();
        // Sliding sync is not in it yet (MSC4186).
        for errcode in ErrorCode::ALL.into_iter().filter(|errcode| *errcode != ErrorCode::UnknownPos) {
            assert!(specified.contains(errcode.name()), "{errcode}");
        }
    }

    #[test]
    fn a_body_is_json_whatever_the_message() {
        let body = body(ErrorCode::NotJson, "a \"quote\"\n");
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value, json!({ "errcode": "M_NOT_JSON", "error": "a \"quote\"\n" }));
    }
}
