//! One message (RFC 7252 §3), read and written by coap-lite and validated here.
//!
//! coap-lite leaves out the version, messages that must be empty, and the payload marker; and its errors lose the header that
//! a reset needs.

use std::fmt;

use bytes::Bytes;
use coap_lite::{CoapOption, MessageClass, Packet};
use thiserror::Error;

use super::code::Code;
use super::option::{OptionNumber, Options};

/// One CoAP message.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// |Ver| T |  TKL  |      Code     |          Message ID           |
/// |   Token (if any, TKL bytes) ...
/// |   Options (if any) ...
/// |1 1 1 1 1 1 1 1|    Payload (if any) ...
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Confirmable, non-confirmable, acknowledgement or reset.
    pub kind: Kind,
    /// The method, the response, or 0.00.
    pub code: Code,
    /// What an acknowledgement or a reset answers, and what a repeat is known by.
    pub id: MessageId,
    /// What a response is matched to its request by.
    pub token: Token,
    /// The options.
    pub options: Options,
    /// The body, or one block of it.
    pub payload: Bytes,
}

impl Message {
    /// The longest datagram that is read: UDP's own limit over IPv4.
    pub const MAX_SIZE: usize = 65_507;

    /// A message without token, options and payload.
    pub fn empty(kind: Kind, id: MessageId) -> Self {
        Self {
            kind,
            code: Code::EMPTY,
            id,
            token: Token::EMPTY,
            options: Options::new(),
            payload: Bytes::new(),
        }
    }

    /// The message in one datagram.
    ///
    /// # Errors
    /// What is malformed, by RFC 7252 §3 and §4.1; [`DecodeError::reset`] says whether the peer is owed a reset.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let header = Header::decode(datagram)?;
        let malformed = |reason| DecodeError { reason, kind: header.kind, id: Some(header.id) };
        // §3: lengths 9 to 15 are reserved, and a message format error.
        if header.token_length > Token::MAX_LENGTH {
            return Err(malformed(Malformed::ReservedTokenLength(header.token_length)));
        }
        let packet = Packet::from_bytes(datagram).map_err(|_| malformed(Malformed::Options))?;
        let empty = header.code == Code::EMPTY;
        // §4.1: an empty message ends after its message ID. An acknowledgement with 0.00, token and payload is read all the
        // same: MSC3079 servers answer so where they have no code for a status.
        if empty && datagram.len() > 4 && (header.kind != Kind::Acknowledgement || packet.payload.is_empty())
        {
            return Err(malformed(Malformed::NotEmpty));
        }
        // §3: a marker followed by no payload is a message format error. Options end the datagram otherwise, and an option's
        // value may end in 0xff, so the marker is found by what is left after all options.
        if packet.payload.is_empty() && encoded_length(&packet) != datagram.len() {
            return Err(malformed(Malformed::EmptyPayload));
        }
        if !empty && !header.code.is_request() && !header.code.is_response() {
            return Err(malformed(Malformed::ReservedClass(header.code)));
        }
        // §4.2, §4.3: only requests and responses are confirmable or not; acknowledgements carry responses or nothing, resets nothing.
        match header.kind {
            Kind::Acknowledgement if header.code.is_request() => {
                return Err(malformed(Malformed::WrongCode(header.code)));
            }
            Kind::Reset if !empty => return Err(malformed(Malformed::WrongCode(header.code))),
            Kind::NonConfirmable if empty => return Err(malformed(Malformed::WrongCode(header.code))),
            _ => {}
        }
        let token = Token::new(packet.get_token()).ok_or_else(|| malformed(Malformed::Options))?;
        let options = packet
            .options()
            .flat_map(|(number, values)| values.iter().map(|value| (OptionNumber(*number), value.clone())))
            .collect();
        Ok(Self {
            kind: header.kind,
            code: header.code,
            id: header.id,
            token,
            options,
            payload: packet.payload.into(),
        })
    }

    /// The datagram that carries this message.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Packet::new();
        packet.header.set_version(1);
        packet.header.set_type(self.kind.into());
        packet.header.code = MessageClass::from(self.code.0);
        packet.header.message_id = self.id.0;
        packet.set_token(self.token.as_slice().to_vec());
        for (number, value) in self.options.iter() {
            packet.add_option(CoapOption::from(number.0), value.to_vec());
        }
        packet.payload = self.payload.to_vec();
        let mut datagram = packet
            .to_bytes_unlimited()
            .expect("a token of at most 8 bytes, options in order and no limit always encode");
        // coap-lite drops a payload under the code 0.00, which `decode` reads from MSC3079 servers.
        if self.code == Code::EMPTY && !self.payload.is_empty() {
            datagram.push(0xff);
            datagram.extend_from_slice(&self.payload);
        }
        datagram
    }

    /// Whether this is no request and no response.
    pub fn is_empty(&self) -> bool {
        self.code == Code::EMPTY && self.payload.is_empty()
    }
}

/// The length of a packet without payload; no number or length in a decoded packet can make this fail.
fn encoded_length(packet: &Packet) -> usize {
    let mut previous = 0;
    let mut length = 4 + packet.get_token().len();
    for (number, values) in packet.options() {
        for value in values {
            length += 1 + extended(usize::from(number - previous)) + extended(value.len()) + value.len();
            previous = *number;
        }
    }
    length
}

/// RFC 7252 §3.1: the bytes that an option's delta or length takes beyond its nibble.
fn extended(number: usize) -> usize {
    match number {
        0..13 => 0,
        13..269 => 1,
        _ => 2,
    }
}

/// A message's type (RFC 7252 §4.2, §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CON: must be acknowledged.
    Confirmable,
    /// NON: is not acknowledged.
    NonConfirmable,
    /// ACK.
    Acknowledgement,
    /// RST: arrived, and cannot be processed.
    Reset,
}

impl From<Kind> for coap_lite::MessageType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Confirmable => Self::Confirmable,
            Kind::NonConfirmable => Self::NonConfirmable,
            Kind::Acknowledgement => Self::Acknowledgement,
            Kind::Reset => Self::Reset,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmable => "CON",
            Self::NonConfirmable => "NON",
            Self::Acknowledgement => "ACK",
            Self::Reset => "RST",
        })
    }
}

/// What an acknowledgement or a reset answers, and what a repeat is known by (RFC 7252 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u16);

impl MessageId {
    /// The next one, and zero after the last.
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// What a response is matched to its request by: up to 8 bytes that the client chose (RFC 7252 §5.3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    length: u8,
    bytes: [u8; Token::MAX_LENGTH],
}

impl Token {
    /// The longest token, in bytes (RFC 7252 §3). Extended lengths (RFC 8974) are answered as a format error, as that RFC expects of
    /// an endpoint without them.
    pub const MAX_LENGTH: usize = 8;
    /// The token of no bytes.
    pub const EMPTY: Self = Self { length: 0, bytes: [0; Self::MAX_LENGTH] };

    /// The token of these bytes; `None` where there are more than 8.
    pub fn new(token: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX_LENGTH];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        Some(Self { length: u8::try_from(token.len()).ok()?, bytes })
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

/// A datagram that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct DecodeError {
    /// What is wrong.
    pub reason: Malformed,
    kind: Kind,
    id: Option<MessageId>,
}

impl DecodeError {
    /// The reset that the sender is owed: for a confirmable message whose header could be read (RFC 7252 §4.2).
    pub fn reset(&self) -> Option<Message> {
        let id = self.id.filter(|_| self.kind == Kind::Confirmable)?;
        Some(Message::empty(Kind::Reset, id))
    }
}

/// What is wrong with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Shorter than the header of 4 bytes.
    #[error("datagram of {0} bytes is shorter than a header")]
    Short(usize),
    /// RFC 7252 §3: other versions are silently ignored.
    #[error("version {0} is unknown")]
    Version(u8),
    /// RFC 7252 §3: 9 to 15.
    #[error("token length {0} is reserved")]
    ReservedTokenLength(usize),
    /// The token or an option runs over the end, or an option's nibble is the reserved 15.
    #[error("token or options are cut short")]
    Options,
    /// RFC 7252 §4.1.
    #[error("empty message carries more than its header")]
    NotEmpty,
    /// RFC 7252 §3.
    #[error("payload marker is followed by no payload")]
    EmptyPayload,
    /// RFC 7252 §3: classes 1, 3, 6 and 7.
    #[error("code {0} is of a reserved class")]
    ReservedClass(Code),
    /// RFC 7252 §4.2, §4.3.
    #[error("code {0} does not fit the message's type")]
    WrongCode(Code),
}

/// The first four bytes of a message.
struct Header {
    kind: Kind,
    token_length: usize,
    code: Code,
    id: MessageId,
}

impl Header {
    fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let ignored = |reason| DecodeError { reason, kind: Kind::NonConfirmable, id: None };
        let Some((&[first, code, high, low], _)) = datagram.split_first_chunk() else {
            return Err(ignored(Malformed::Short(datagram.len())));
        };
        // §3: messages with unknown version numbers are silently ignored.
        if first >> 6 != 1 {
            return Err(ignored(Malformed::Version(first >> 6)));
        }
        let kind = match first >> 4 & 3 {
            0 => Kind::Confirmable,
            1 => Kind::NonConfirmable,
            2 => Kind::Acknowledgement,
            _ => Kind::Reset,
        };
        let id = MessageId(u16::from_be_bytes([high, low]));
        Ok(Self { kind, token_length: usize::from(first & 0xf), code: Code(code), id })
    }
}
