//! Dictionaries: samples of messages, from which coders learn what messages look like before they see one.
//!
//! A dictionary is immutable, and known by its SHA-256. It is a list of samples, each
//!
//! ```text
//!   length of the items (varint) | kind: 0 a request, 1 a response | flags of the header | route (varint) | items
//! ```
//! without raw items, so no secret, hash or ciphertext is in one.

use crate::packed::aliases::Mirror;
use crate::packed::aliases::Own;
use crate::packed::draft::Agreement;
use crate::packed::draft::Frame;
use crate::packed::draft::Home;
use crate::packed::draft::Known;
use crate::packed::error::DecodeError;
use crate::packed::message;
use crate::packed::read::Reader;
use crate::packed::stream::Context;
use crate::packed::stream::Source;
use crate::packed::tokens::Marks;
use crate::packed::tokens::Tokens;
use crate::packed::tokens::Transactions;

/// The dictionary that is built in.
pub const BUILT_IN: &[u8] = include_bytes!("../../dictionaries/v2/samples.bin");

/// The most that a dictionary may have.
const LONGEST: usize = 1 << 20;

/// One message of a dictionary, each byte with what it is.
pub(super) struct Sample {
    pub(super) items: Vec<(u8, Context)>,
}

/// Which way a sample goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the gateway.
    Request = 0,
    /// To the proxy.
    Response = 1,
}

/// Reads a dictionary.
pub(super) fn read(mut dictionary: &[u8]) -> Result<Vec<Sample>, DecodeError> {
    if dictionary.len() > LONGEST {
        return Err(DecodeError::Output { limit: LONGEST });
    }
    let mut samples = Vec::new();
    while !dictionary.is_empty() {
        let length = varint(&mut dictionary)?;
        let [kind, flags, rest @ ..] = dictionary else { return Err(DecodeError::Truncated) };
        dictionary = rest;
        let route = u16::try_from(varint(&mut dictionary)?).map_err(|_| DecodeError::Damaged)?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        let (items, rest) = dictionary.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        samples.push(Sample { items: contexts(items, *kind, *flags, route)? });
        dictionary = rest;
    }
    Ok(samples)
}

/// Appends a sample.
pub(super) fn append(dictionary: &mut Vec<u8>, direction: Direction, flags: u8, route: u16, items: &[u8]) {
    push_varint(dictionary, items.len() as u64);
    dictionary.extend_from_slice(&[direction as u8, flags]);
    push_varint(dictionary, route.into());
    dictionary.extend_from_slice(items);
}

/// Reads a sample to find out what its bytes are.
fn contexts(items: &[u8], kind: u8, flags: u8, route: u16) -> Result<Vec<(u8, Context)>, DecodeError> {
    let (own, peer, tokens) = (Own::default(), Mirror::default(), Tokens::default());
    let (marks, transactions) = (Marks::default(), Transactions::default());
    let home = if kind == 0 { Home::Gateway(&tokens) } else { Home::Proxy(&marks, &transactions) };
    let known = Known { own: &own, peer: &peer, home, agreement: Agreement::default() };
    let mut reader = Reader::new(Source::bare(items), known, Frame::default(), LONGEST);
    (reader.trace, reader.is_sample) = (Some(vec![message::sample_header(kind, flags, route)]), true);
    match kind {
        0 => message::sample_request(&mut reader, flags)?,
        _ => message::sample_response(&mut reader, flags, route)?,
    }
    Ok(reader.trace.unwrap_or_default())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Damaged)
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
