//! The OSCORE option's value: the header of the compressed COSE object (RFC 8613 §6.1).

use thiserror::Error;

use super::partial_iv::PartialIv;
use super::protection;
use super::refusal::Refusal;
use crate::coap::{Message, OptionNumber};

/// What the OSCORE option says.
///
/// ```text
///  0 1 2 3 4 5 6 7 <------------- n bytes -------------->
/// |0 0 0|h|k|  n  |       Partial IV (if any) ...
///  <- 1 byte -> <----- s bytes ------>
/// | s (if any) | kid context (if any) | kid (if any) ... |
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The sender's number of the message.
    pub partial_iv: Option<PartialIv>,
    /// Which of the contexts with the same `kid`.
    pub kid_context: Option<Vec<u8>>,
    /// The sender's id.
    pub kid: Option<Vec<u8>>,
}

impl Header {
    /// Reads the option's value.
    ///
    /// # Errors
    /// What is malformed; there is one way to write each header.
    pub fn decode(value: &[u8]) -> Result<Self, HeaderError> {
        let Some((&flags, rest)) = value.split_first() else { return Ok(Self::default()) };
        if flags & RESERVED != 0 {
            return Err(HeaderError::ReservedFlags(flags));
        }
        // §6.1: without anything to say, the value is empty.
        if flags == 0 {
            return Err(HeaderError::ZeroFlags);
        }
        let length = usize::from(flags & LENGTH);
        // §6.1: 6 and 7 are reserved.
        if length > 5 {
            return Err(HeaderError::PartialIv);
        }
        let (number, rest) = rest.split_at_checked(length).ok_or(HeaderError::CutShort)?;
        let partial_iv = match number {
            [] => None,
            number => Some(PartialIv::decode(number).ok_or(HeaderError::PartialIv)?),
        };
        let (kid_context, rest) = match flags & KID_CONTEXT {
            0 => (None, rest),
            _ => {
                let (&length, rest) = rest.split_first().ok_or(HeaderError::CutShort)?;
                let (context, rest) = rest.split_at_checked(length.into()).ok_or(HeaderError::CutShort)?;
                (Some(context.to_vec()), rest)
            }
        };
        let kid = match flags & KID {
            0 if rest.is_empty() => None,
            0 => return Err(HeaderError::Trailing(rest.len())),
            _ => Some(rest.to_vec()),
        };
        Ok(Self { partial_iv, kid_context, kid })
    }

    /// The option's value. A kid context has at most 255 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let number = self.partial_iv.map(PartialIv::encode).unwrap_or_default();
        let mut flags = number.len() as u8;
        let mut rest = number;
        if let Some(context) = &self.kid_context {
            flags |= KID_CONTEXT;
            rest.push(context.len() as u8);
            rest.extend_from_slice(context);
        }
        if let Some(kid) = &self.kid {
            flags |= KID;
            rest.extend_from_slice(kid);
        }
        match flags {
            0 => Vec::new(),
            flags => [&[flags], rest.as_slice()].concat(),
        }
    }

    /// Reads the header of a message, which says whose it is.
    ///
    /// # Errors
    /// What is malformed; also a message without the option, or with two.
    pub fn of(message: &Message) -> Result<Self, HeaderError> {
        let mut values = message.options.all(OptionNumber::OSCORE);
        match (values.next(), values.next()) {
            (Some(value), None) => Self::decode(value),
            (None, _) => Err(HeaderError::Missing),
            (Some(_), Some(_)) => Err(HeaderError::Repeated),
        }
    }

    /// Reads the header of a request, and its Partial IV, and looks at all else that is known without keys: so that the same is said of a
    /// request whether there are keys for it or not.
    ///
    /// # Errors
    /// What keeps it from being served whoever has sent it.
    pub fn of_request(message: &Message) -> Result<(Self, PartialIv), Refusal> {
        let header = Self::of(message)?;
        let partial_iv = header.partial_iv.filter(|_| header.kid.is_some()).ok_or(HeaderError::Parts)?;
        if message.payload.is_empty() {
            return Err(HeaderError::NoCiphertext.into());
        }
        if protection::has_outer_blocks(message) {
            return Err(Refusal::OuterBlock);
        }
        Ok((header, partial_iv))
    }
}

/// The length of the Partial IV.
const LENGTH: u8 = 0b111;
/// Whether there is a `kid`.
const KID: u8 = 1 << 3;
/// Whether there is a `kid context`.
const KID_CONTEXT: u8 = 1 << 4;
/// Of no meaning yet, and malformed where they are set (§6.1).
const RESERVED: u8 = 0b1110_0000;

/// Whether a message says that it is protected.
pub fn is_protected(message: &Message) -> bool {
    message.options.get(OptionNumber::OSCORE).is_some()
}

/// A header that is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// There is no OSCORE option.
    #[error("no OSCORE option")]
    Missing,
    /// RFC 8613 §2: it is not repeatable.
    #[error("more than one OSCORE option")]
    Repeated,
    /// RFC 8613 §6.1.
    #[error("reserved flags in {0:#04x}")]
    ReservedFlags(u8),
    /// RFC 8613 §6.1.
    #[error("flags are zero, and not left out")]
    ZeroFlags,
    /// RFC 8613 §5, §6.1.
    #[error("Partial IV of a reserved length, or with a leading zero byte")]
    PartialIv,
    /// A part runs over the end.
    #[error("option ends early")]
    CutShort,
    /// Without a kid, nothing follows.
    #[error("{0} bytes follow the header")]
    Trailing(usize),
    /// RFC 8613 §5: a request has a Partial IV and a kid, and a response no kid context.
    #[error("a part is missing, or one too many")]
    Parts,
    /// RFC 8613 §2: a protected message has a payload.
    #[error("no ciphertext")]
    NoCiphertext,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_as_in_rfc_8613_section_6_3() {
        let piv = PartialIv::new;
        let bytes = |bytes: &[u8]| Some(bytes.to_vec());
        for (header, value) in [
            (Header { partial_iv: piv(5), kid: bytes(&[0x25]), kid_context: None }, &[0x09, 5, 0x25][..]),
            (Header { partial_iv: piv(0), kid: bytes(&[]), kid_context: None }, &[0x09, 0]),
            (
                Header {
                    partial_iv: piv(5),
                    kid: bytes(&[]),
                    kid_context: bytes(&[0x44, 0x61, 0x6c, 0x65, 0x6b]),
                },
                &[0x19, 5, 5, 0x44, 0x61, 0x6c, 0x65, 0x6b],
            ),
            (Header::default(), &[]),
            (Header { partial_iv: piv(7), kid: None, kid_context: None }, &[0x01, 7]),
        ] {
            assert_eq!(header.encode(), value);
            assert_eq!(Header::decode(value), Ok(header));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for (value, error) in [
            (&[0x20][..], HeaderError::ReservedFlags(0x20)),
            (&[0x49, 0, 0], HeaderError::ReservedFlags(0x49)),
            (&[0x89, 0, 0], HeaderError::ReservedFlags(0x89)),
            (&[0x00], HeaderError::ZeroFlags),
            (&[0x0e, 1, 2, 3, 4, 5, 6], HeaderError::PartialIv),
            (&[0x0f, 1, 2, 3, 4, 5, 6, 7], HeaderError::PartialIv),
            (&[0x0a, 0, 1], HeaderError::PartialIv),
            (&[0x0a, 1], HeaderError::CutShort),
            (&[0x11, 1], HeaderError::CutShort),
            (&[0x11, 1, 2, 3], HeaderError::CutShort),
            (&[0x01, 1, 2], HeaderError::Trailing(1)),
            (&[0x11, 1, 1, 2, 3], HeaderError::Trailing(1)),
        ] {
            assert_eq!(Header::decode(value), Err(error), "{value:02x?}");
        }
    }

    #[test]
    fn whatever_is_read_is_written_the_same() {
        for flags in 0..=u8::MAX {
            for length in 0..9 {
                let value: Vec<u8> = [flags].into_iter().chain(1..=length).collect();
                if let Ok(header) = Header::decode(&value) {
                    assert_eq!(header.encode(), value);
                }
            }
        }
    }
}
