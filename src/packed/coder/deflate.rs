//! Coder 1: raw DEFLATE (RFC 1951) with the dictionary's items for what came before.

use flate2::Compress;
use flate2::Compression;
use flate2::Decompress;
use flate2::FlushCompress;
use flate2::FlushDecompress;
use flate2::Status;

use crate::packed::error::DecodeError;
use crate::packed::samples::Sample;
use crate::packed::stream::Role;

/// DEFLATE looks back no further (RFC 1951 §2).
const WINDOW: usize = 32 << 10;

/// What coder 1 has for a dictionary: the items of all samples, as far back as it looks.
pub(super) fn text(samples: &[Sample]) -> Vec<u8> {
    let items = samples.iter().flat_map(|sample| &sample.items);
    let all: Vec<u8> =
        items.filter(|(_, context)| context.role != Role::Header).map(|(byte, _)| *byte).collect();
    let start = all.len().saturating_sub(WINDOW - 262); // what an encoder keeps for its lookahead
    all.get(start..).unwrap_or_default().to_vec()
}

pub(super) fn deflate(dictionary: &[u8], items: &[u8]) -> Option<Vec<u8>> {
    let mut compress = Compress::new_with_window_bits(Compression::best(), false, 15);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary).ok()?;
    }
    let mut out = Vec::with_capacity(items.len() + items.len() / 8 + 64);
    let status = compress.compress_vec(items, &mut out, FlushCompress::Finish).ok()?;
    (status == Status::StreamEnd).then_some(out)
}

/// The items, and how many bytes of `message` they took.
pub(super) fn inflate(
    dictionary: &[u8],
    message: &[u8],
    limit: usize,
) -> Result<(Vec<u8>, usize), DecodeError> {
    let mut decompress = Decompress::new_with_window_bits(false, 15);
    if !dictionary.is_empty() {
        decompress.set_dictionary(dictionary).map_err(|_| DecodeError::Damaged)?;
    }
    let mut out = Vec::new();
    loop {
        // Grows with what comes out, and never past the limit.
        let room = (out.capacity() * 2).clamp(1024, limit.max(1));
        out.reserve_exact(room.saturating_sub(out.len()));
        let before = (decompress.total_in(), out.len());
        let rest = message.get(decompress.total_in() as usize..).unwrap_or_default();
        let status = decompress.decompress_vec(rest, &mut out, FlushDecompress::None);
        let status = status.map_err(|_| DecodeError::Damaged)?;
        if out.len() > limit {
            return Err(DecodeError::Output { limit });
        }
        match status {
            Status::StreamEnd => return Ok((out, decompress.total_in() as usize)),
            _ if out.len() >= limit => return Err(DecodeError::Output { limit }),
            _ if (decompress.total_in(), out.len()) == before => return Err(DecodeError::Truncated),
            _ => {}
        }
    }
}
