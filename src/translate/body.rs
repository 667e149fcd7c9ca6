//! Bodies: JSON towards HTTP, CBOR or JSON towards CoAP.

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::coap::OptionNumber;
use crate::coap::Options;
use crate::coap::content_format;
use crate::codec;
use crate::codec::Decoded;
use crate::codec::EncodeError;
use crate::codec::Keys;
use crate::codec::Limits;
use crate::packed;
use crate::translate::refusal::Refusal;

/// How a body is written for a CoAP peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CBOR (Content-Format 60) with these integer keys.
    Cbor(Keys),
    /// The JSON of the homeserver, byte for byte (Content-Format 50).
    Json,
    /// By the packed profile, as an answer to this. What is not the homeserver's, or ends an observation, is CBOR with integer keys.
    Packed(packed::Asked),
}

impl Format {
    /// The Content-Format that says so.
    pub fn content_format(self) -> u32 {
        match self {
            Format::Cbor(_) | Format::Packed(_) => content_format::CBOR,
            Format::Json => content_format::JSON,
        }
    }

    /// The same for what an observer is told, and not once.
    pub fn observing(self) -> Self {
        match self {
            Format::Packed(asked) => Format::Packed(asked.observing()),
            Format::Cbor(_) | Format::Json => self,
        }
    }

    /// What a request accepts: CBOR unless it asks for JSON.
    pub(super) fn accepted(options: &Options, keys: Keys) -> Result<Self, Refusal> {
        match options.get_uint(OptionNumber::ACCEPT) {
            None | Some(content_format::CBOR) => Ok(Format::Cbor(keys)),
            Some(content_format::JSON) => Ok(Format::Json),
            Some(other) => Err(Refusal::Accept(other)),
        }
    }

    /// `json` in this format.
    pub(super) fn write(self, json: &[u8], limits: &Limits) -> Result<Bytes, EncodeError> {
        match self {
            Format::Cbor(keys) => codec::json_to_cbor(json, keys, limits).map(Bytes::from),
            Format::Packed(_) => codec::json_to_cbor(json, Keys::V1, limits).map(Bytes::from),
            Format::Json if json.len() > limits.output => Err(EncodeError::Output { limit: limits.output }),
            Format::Json => match serde_json::from_slice::<IgnoredAny>(json) {
                Ok(_) => Ok(Bytes::copy_from_slice(json)),
                Err(error) => Err(EncodeError::Syntax { offset: 0, reason: error.to_string() }),
            },
        }
    }
}

/// Whether a Content-Format may be on a body for us. Go peers label CBOR as JSON, as bytes, or not at all, so the label
/// does not tell the two apart.
pub(super) fn is_readable(format: Option<u32>) -> bool {
    matches!(format, None | Some(content_format::CBOR | content_format::JSON | content_format::OCTET_STREAM))
}

/// A payload as JSON: CBOR decoded, JSON text as it is.
pub(super) fn read(payload: &Bytes, limits: &Limits) -> Result<Decoded, codec::DecodeError> {
    if !is_json_text(payload) {
        return codec::cbor_to_json(payload, limits);
    }
    match payload.len() > limits.output {
        true => Err(codec::DecodeError::Output { limit: limits.output }),
        false => Ok(Decoded { json: payload.to_vec(), integer_keys: false }),
    }
}

/// Whether this is the text of a JSON object or array.
///
/// As CBOR, `{` and `[` would begin a string whose length takes eight bytes, and white space would be a small integer:
/// neither is a Matrix body, and none is long enough for the first.
fn is_json_text(payload: &[u8]) -> bool {
    let mut visible = payload.iter().skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    matches!(visible.next(), Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cbor_and_json_text_are_told_apart_by_their_first_byte() {
        let read = |payload: &'static [u8]| read(&Bytes::from_static(payload), &Limits::default());
        assert_eq!(read(b"\xa1\x02\x61m").unwrap().json, br#"{"type":"m"}"#);
        assert!(read(b"\xa1\x02\x61m").unwrap().integer_keys);
        assert_eq!(read(b" \n{\"a\": 1}").unwrap().json, b" \n{\"a\": 1}");
        assert_eq!(read(b"[]").unwrap().json, b"[]");
        assert_eq!(read(b"\x80").unwrap().json, b"[]");
        read(b"hello").unwrap_err();
        read(b"").unwrap_err();
    }

    #[test]
    fn json_text_is_bounded_like_what_is_decoded() {
        let limits = Limits { output: 3, ..Limits::default() };
        assert!(matches!(
            read(&Bytes::from_static(b"[1, 2]"), &limits),
            Err(codec::DecodeError::Output { limit: 3 })
        ));
        assert!(matches!(Format::Json.write(b"[1, 2]", &limits), Err(EncodeError::Output { limit: 3 })));
    }

    #[test]
    fn json_is_written_byte_for_byte_if_it_is_json() {
        let limits = Limits::default();
        assert_eq!(Format::Json.write(b"{ \"a\":1.0 }", &limits).unwrap(), "{ \"a\":1.0 }");
        Format::Json.write(b"<html>", &limits).unwrap_err();
        assert_eq!(Format::Cbor(Keys::V1).write(b"{\"type\":1}", &limits).unwrap(), &b"\xa1\x02\x01"[..]);
        assert_eq!(Format::Cbor(Keys::Strings).write(b"{\"a\":1}", &limits).unwrap(), &b"\xa1\x61a\x01"[..]);
    }
}
