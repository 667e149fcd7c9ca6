//! Samples of messages, from which coders learn what messages look like before they see one.
//!
//! They stand one after the other, each
//!
//! ```text
//!   length of the items (varint) | kind: 0 a request, 1 a response | flags of the header | route (varint) | items
//! ```
//! without raw items, so no secret, hash or ciphertext is in one.

use crate::packed::aliases::Mirror;
use crate::packed::aliases::Own;
use crate::packed::dictionary::DictionaryError;
use crate::packed::dictionary::File;
use crate::packed::draft::Agreement;
use crate::packed::draft::Frame;
use crate::packed::draft::Home;
use crate::packed::draft::Known;
use crate::packed::error::DecodeError;
use crate::packed::message;
use crate::packed::read::Reader;
use crate::packed::stream::Context;
use crate::packed::stream::Source;
use crate::packed::tables::Tables;
use crate::packed::tokens::Marks;
use crate::packed::tokens::Tokens;
use crate::packed::tokens::Transactions;

/// One message, each byte with what it is.
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

/// Reads all of them.
pub(super) fn read(mut samples: &[u8], tables: &Tables) -> Result<Vec<Sample>, DictionaryError> {
    let mut read = Vec::new();
    while !samples.is_empty() {
        let number = read.len() + 1;
        let sample = read_one(&mut samples, tables);
        read.push(sample.map_err(|error| DictionaryError::Sample { number, error })?);
    }
    Ok(read)
}

fn read_one(samples: &mut &[u8], tables: &Tables) -> Result<Sample, DecodeError> {
    let length = varint(samples)?;
    let (&[kind, flags], rest) = samples.split_first_chunk().ok_or(DecodeError::Truncated)?;
    *samples = rest;
    let route = u16::try_from(varint(samples)?).map_err(|_| DecodeError::Damaged)?;
    let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
    let (items, rest) = samples.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *samples = rest;
    Ok(Sample { items: contexts(items, (kind, flags, route), tables)? })
}

/// Appends a sample.
pub(super) fn append(samples: &mut Vec<u8>, direction: Direction, flags: u8, route: u16, items: &[u8]) {
    push_varint(samples, items.len() as u64);
    samples.extend_from_slice(&[direction as u8, flags]);
    push_varint(samples, route.into());
    samples.extend_from_slice(items);
}

/// Reads a sample to find out what its bytes are.
pub(super) fn contexts(
    items: &[u8],
    (kind, flags, route): (u8, u8, u16),
    tables: &Tables,
) -> Result<Vec<(u8, Context)>, DecodeError> {
    let (own, peer, tokens) = (Own::default(), Mirror::default(), Tokens::default());
    let (marks, transactions) = (Marks::default(), Transactions::default());
    let home = if kind == 0 { Home::Gateway(&tokens) } else { Home::Proxy(&marks, &transactions) };
    let known = Known { own: &own, peer: &peer, home, agreement: Agreement::default(), tables };
    let mut reader = Reader::new(Source::bare(items), known, Frame::default(), File::LARGEST);
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
