//! What fails, and what the other endpoint is told (RFC 9528 §6).

use thiserror::Error;

use super::message::{Reader, SUITE};
use crate::security::oscore::cbor;

/// Why a message of the other endpoint's was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is none of the messages, or written in another way than the one there is, or too long.
    #[error("malformed message")]
    Malformed,
    /// Another method than 3.
    #[error("unsupported method")]
    Method,
    /// Another cipher suite than 2 was selected.
    #[error("unsupported cipher suite")]
    Suite,
    /// A public key is none.
    #[error("no point of the curve")]
    Point,
    /// Data came with it that must be understood, and is not.
    #[error("unknown critical external authorization data")]
    CriticalData,
    /// Nobody is known by the credential's id.
    #[error("unknown credential")]
    UnknownCredential,
    /// It was not made with the keys of whom it names, or was changed.
    #[error("authentication failed")]
    Forged,
    /// There is no session with this identifier.
    #[error("unknown connection identifier")]
    UnknownSession,
    /// Both ends chose the same connection identifier, which OSCORE cannot have (RFC 9528 Appendix A.1).
    #[error("same connection identifiers")]
    SameIds,
    /// There is no connection identifier left.
    #[error("no connection identifier is free")]
    NoneFree,
}

impl Refusal {
    /// The error message: enough for the other endpoint to do better, and no more (§9.5).
    pub fn message(self) -> ErrorMessage {
        match self {
            Self::Suite => ErrorMessage::WrongSuite(vec![SUITE.into()]),
            Self::UnknownCredential => ErrorMessage::UnknownCredential,
            _ => ErrorMessage::Unspecified(String::new()),
        }
    }
}

/// What ends a session.
///
/// ```text
/// error = ( ERR_CODE : int, ERR_INFO : any )
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ErrorMessage {
    /// 1, with a text for people.
    #[error("error 1 {0:?}")]
    Unspecified(String),
    /// 2, with the suites that the responder has.
    #[error("its cipher suites are {0:?}")]
    WrongSuite(Vec<i64>),
    /// 3.
    #[error("unknown credential")]
    UnknownCredential,
    /// Any other.
    #[error("error {0}")]
    Other(i64),
}

impl ErrorMessage {
    /// The most bytes of a text that is read.
    const LONGEST_TEXT: usize = 128;

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        match self {
            Self::Unspecified(text) => {
                cbor::unsigned(1, &mut message);
                cbor::text(text, &mut message);
            }
            Self::WrongSuite(suites) => {
                cbor::unsigned(2, &mut message);
                if suites.len() != 1 {
                    cbor::array(suites.len() as u64, &mut message);
                }
                suites.iter().for_each(|suite| cbor::integer(*suite, &mut message));
            }
            Self::UnknownCredential => message.extend([3, TRUE]),
            Self::Other(code) => {
                cbor::integer(*code, &mut message);
                message.push(TRUE);
            }
        }
        message
    }

    /// Reads a message; none where it is no error message.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut reader = Reader(message);
        let error = match reader.integer()? {
            1 => {
                let text = reader.text()?;
                Self::Unspecified(text.chars().take(Self::LONGEST_TEXT).collect())
            }
            2 => Self::WrongSuite(reader.suites()?),
            3 => {
                reader.0 = reader.0.strip_prefix(&[TRUE])?;
                Self::UnknownCredential
            }
            // §6.1: 0 is success, and nothing that is sent.
            0 => return None,
            code => return (!reader.0.is_empty()).then_some(Self::Other(code)),
        };
        reader.0.is_empty().then_some(error)
    }
}

/// `true` in CBOR.
pub(super) const TRUE: u8 = 0xf5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_messages_are_read_as_they_are_written() {
        let all = [
            (ErrorMessage::Unspecified(String::new()), &b"\x01\x60"[..]),
            (ErrorMessage::Unspecified("no".into()), b"\x01\x62no"),
            // RFC 9529 §3.2: message_1 with suite 6, which the responder does not have.
            (ErrorMessage::WrongSuite(vec![2]), b"\x02\x02"),
            (ErrorMessage::WrongSuite(vec![2, -21]), b"\x02\x82\x02\x34"),
            (ErrorMessage::UnknownCredential, b"\x03\xf5"),
            (ErrorMessage::Other(-30), b"\x38\x1d\xf5"),
        ];
        for (error, bytes) in all {
            assert_eq!(error.encode(), bytes);
            assert_eq!(ErrorMessage::decode(bytes).as_ref(), Some(&error));
            let prefixes = (0..bytes.len()).map(|length| &bytes[..length]);
            prefixes.for_each(|prefix| assert_eq!(ErrorMessage::decode(prefix), None, "{prefix:02x?}"));
        }
        assert_eq!(ErrorMessage::decode(b"\x00\xf5"), None);
        assert_eq!(ErrorMessage::decode(b"\x03\xf5\xf5"), None);
    }
}
