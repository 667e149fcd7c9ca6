//! EDHOC over CoAP: what stands before a message, and message_3 in one request with what it is for (RFC 9528 Appendix A.2, RFC 9668).

use bytes::Bytes;

use super::connection::ConnectionId;
use super::error::{ErrorMessage, Refusal, TRUE};
use super::message::{self, Reader};
use crate::coap::content_format::{CID_EDHOC, EDHOC};
use crate::coap::{Code, Message, OptionNumber, Options, Request, Response};
use crate::security::oscore;

/// The resource that answers.
const PATH: [&str; 2] = [".well-known", "edhoc"];

/// What a request to the resource carries, by what comes first in it.
///
/// ```text
/// ( true, message_1 )      ( C_R, message_3 )      ( C_R / true, error )
/// ```
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Message1(&'a [u8]),
    Message3(ConnectionId, &'a [u8]),
    Error(Option<ConnectionId>, ErrorMessage),
}

impl<'a> Frame<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, Refusal> {
        if let Some(message) = payload.strip_prefix(&[TRUE]) {
            // Error messages have a code that is no method, or what is no suite after it: message_1 has four items.
            return Ok(match ErrorMessage::decode(message) {
                Some(error) if message.len() < LEAST_MESSAGE_1 => Self::Error(None, error),
                _ => Self::Message1(message),
            });
        }
        let mut reader = Reader(payload);
        let id = reader.identifier().and_then(ConnectionId::new).ok_or(Refusal::Malformed)?;
        let message = reader.0;
        Ok(match ErrorMessage::decode(message) {
            Some(error) => Self::Error(Some(id), error),
            None => Self::Message3(id, message),
        })
    }
}

/// METHOD, SUITES_I, G_X and C_I.
const LEAST_MESSAGE_1: usize = 37;

/// Whether a request is for the resource. One that is protected is not, whatever it asks for.
pub fn is_edhoc(message: &Message) -> bool {
    let path = || message.options.all(OptionNumber::URI_PATH);
    message.code.is_request() && !oscore::is_protected(message) && path().eq(PATH.map(str::as_bytes))
}

/// Whether message_3 stands before what is protected (RFC 9668 §3.1).
pub fn is_combined(message: &Message) -> bool {
    message.options.get(OptionNumber::EDHOC).is_some()
}

/// A request to the resource, with what comes before a message.
pub(super) fn request(before: &[u8], message: &[u8]) -> Request {
    let mut request = Request::new(Code::POST);
    PATH.into_iter().for_each(|segment| request.options.push(OptionNumber::URI_PATH, segment));
    request.options.push_uint(OptionNumber::CONTENT_FORMAT, CID_EDHOC);
    request.payload = [before, message].concat().into();
    request
}

/// A response with a message: message_2 or message_4.
pub(super) fn response(message: &[u8]) -> Response {
    let mut options = Options::new();
    options.push_uint(OptionNumber::CONTENT_FORMAT, EDHOC);
    Response { code: Code::CHANGED, options, payload: Bytes::copy_from_slice(message) }
}

/// A response with an error message.
pub(super) fn error_response(refusal: Refusal) -> Response {
    let code = match refusal {
        Refusal::NoneFree => Code::SERVICE_UNAVAILABLE,
        _ => Code::BAD_REQUEST,
    };
    Response { code, ..response(&refusal.message().encode()) }
}

/// Puts message_3 before what a protected request carries (RFC 9668 §3.2.1).
pub(super) fn combine(message_3: &[u8], mut sealed: Message) -> Message {
    sealed.options.set(OptionNumber::EDHOC, []);
    sealed.payload = [message_3, &sealed.payload].concat().into();
    sealed
}

/// A request of both, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) c_r: ConnectionId,
    pub(super) message_3: Bytes,
    /// The protected request, as it would be alone.
    pub(super) sealed: Message,
}

/// Takes a request of both apart (RFC 9668 §3.3.1, steps 1 to 3 and 7).
pub(super) fn split(mut message: Message) -> Option<Parts> {
    let kid = oscore::Header::of(&message).ok()?.kid?;
    let (message_3, _) = message::split_message_3(&message.payload)?;
    let length = message_3.len();
    let message_3 = message.payload.split_to(length);
    message.options.remove(OptionNumber::EDHOC);
    let is_sealed = !message.payload.is_empty();
    is_sealed.then_some(Parts { c_r: ConnectionId::new(&kid)?, message_3, sealed: message })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9668 §3.4.
    const COMBINED: &[u8] = &[
        0x44, 0x02, 0x5d, 0x1f, 0x00, 0x00, 0x39, 0x74, 0x93, 0x09, 0x00, 0x01, 0xc0, 0xff, 0x52, 0xd5, 0x53,
        0x5f, 0x31, 0x47, 0xe8, 0x5f, 0x1c, 0xfa, 0xcd, 0x9e, 0x78, 0xab, 0xf9, 0xe0, 0xa8, 0x1b, 0xbf, 0x61,
        0x2f, 0x10, 0x92, 0xf1, 0x77, 0x6f, 0x1c, 0x16, 0x68, 0xb3, 0x82, 0x5e,
    ];

    #[test]
    fn the_combined_request_of_rfc_9668_is_taken_apart_and_put_together() {
        let message = Message::decode(COMBINED).unwrap();
        assert!(is_combined(&message) && !is_edhoc(&message));
        let parts = split(message).unwrap();
        assert_eq!(parts.c_r, ConnectionId::new(&[1]).unwrap());
        assert_eq!((parts.message_3.len(), parts.sealed.payload.len()), (19, 13));
        assert!(!is_combined(&parts.sealed) && oscore::is_protected(&parts.sealed));
        assert_eq!(combine(&parts.message_3, parts.sealed).encode(), COMBINED);
    }

    #[test]
    fn what_is_not_both_is_not_taken_apart() {
        let whole = Message::decode(COMBINED).unwrap();
        let mut plain = whole.clone();
        plain.options.remove(OptionNumber::OSCORE);
        assert_eq!(split(plain), None);
        for length in 0..=19 {
            let cut = Message { payload: whole.payload.slice(..length), ..whole.clone() };
            assert_eq!(split(cut), None, "{length}");
        }
        let mut without_kid = whole;
        without_kid.options.set(OptionNumber::OSCORE, [1, 0]);
        assert_eq!(split(without_kid), None);
    }

    #[test]
    fn what_comes_first_says_what_it_is() {
        let message_1 = [&[3, 2, 0x58, 0x20][..], &[7; 32], &[0x0e]].concat();
        let id = ConnectionId::new(&[0x27]).unwrap();
        let framed = [&[TRUE], message_1.as_slice()].concat();
        assert_eq!(Frame::decode(&framed), Ok(Frame::Message1(&message_1)));
        assert_eq!(Frame::decode(b"\x27\x40"), Ok(Frame::Message3(id.clone(), b"\x40")));
        assert_eq!(
            Frame::decode(b"\x27\x03\xf5"),
            Ok(Frame::Error(Some(id), ErrorMessage::UnknownCredential))
        );
        assert_eq!(Frame::decode(b"\xf5\x02\x02"), Ok(Frame::Error(None, ErrorMessage::WrongSuite(vec![2]))));
        assert_eq!(Frame::decode(b""), Err(Refusal::Malformed));
        assert_eq!(Frame::decode(b"\xf4\x40"), Err(Refusal::Malformed));
        assert_eq!(Frame::decode(b"\x41\x27\x40"), Err(Refusal::Malformed));
    }
}
