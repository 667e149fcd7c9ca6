//! A protected message (OSCORE, RFC 8613): what everybody sees of it, and what is in it for who has the keys.

use serde::Serialize;

use super::explanation::Explanation;
use super::secret::Secrets;
use crate::coap::Message;
use crate::coap::OptionNumber;
use crate::security::oscore::Header;
use crate::security::oscore::Reader;
use base16ct::lower::encode_string as hex;

/// What a protected message shows, and hides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Protection {
    /// The sender's id, in hexadecimal; empty where it has no bytes, and none where it is not said.
    pub kid: Option<String>,
    /// What tells contexts with the same id apart, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid_context: Option<String>,
    /// The sender's number of the message; a response without one has its request's.
    pub partial_iv: Option<u64>,
    /// Bytes that are encrypted, the tag among them.
    pub ciphertext: usize,
    /// Who has sealed it: `device` or `gateway`, by the keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_by: Option<&'static str>,
    /// Bytes of the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<usize>,
    /// Why it was not opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The message inside, with the outer one's type, ID and token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<Explanation>>,
}

impl Protection {
    /// Reads a message that has the OSCORE option, with the keys of a device if there are any.
    pub(super) fn read(message: &Message, reader: Option<&mut Reader>, secrets: Secrets) -> Option<Self> {
        message.options.get(OptionNumber::OSCORE)?;
        let header = Header::of(message);
        let known = header.as_ref().ok();
        let mut protection = Self {
            kid: known.and_then(|header| header.kid.as_deref()).map(hex),
            kid_context: known.and_then(|header| header.kid_context.as_deref()).map(hex),
            partial_iv: known.and_then(|header| header.partial_iv).map(|number| number.number()),
            ciphertext: message.payload.len(),
            sealed_by: None,
            tag: None,
            problem: header.err().map(|error| error.to_string()),
            inner: None,
        };
        let Some(reader) = reader.filter(|_| protection.problem.is_none()) else { return Some(protection) };
        match reader.read(message) {
            Ok(reading) => {
                protection.sealed_by = Some(if reading.by_holder { "device" } else { "gateway" });
                protection.tag = Some(reading.tag);
                let inner = super::explanation::explain(&joined(message, &reading.plaintext), secrets);
                protection.inner = Some(Box::new(inner));
            }
            Err(error) => protection.problem = Some(error.to_string()),
        }
        Some(protection)
    }
}

/// The message inside as a datagram of its own.
fn joined(message: &Message, plaintext: &[u8]) -> Vec<u8> {
    let outer = Message { options: Default::default(), payload: Default::default(), ..message.clone() };
    let mut datagram = outer.encode();
    let (code, rest) = plaintext.split_first().unwrap_or((&0, &[]));
    if let Some(outer) = datagram.get_mut(1) {
        *outer = *code;
    }
    datagram.extend_from_slice(rest);
    datagram
}
