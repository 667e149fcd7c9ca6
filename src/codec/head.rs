//! Heads: the initial byte of a CBOR item and its argument (RFC 8949 §3), read in any form and written in the shortest.
//!
//! ```text
//!    7 6 5 4 3 2 1 0
//!   +-----+---------+---------------------
//!   |major| info    | argument: 0, 1, 2, 4 or 8 bytes
//!   +-----+---------+---------------------
//! ```
//! Our own rather than a crate's because the width of a float must survive: see [`widened_integer`].

use std::borrow::Cow;

use crate::codec::error::DecodeError;

/// Major types that are written (RFC 8949 §3.1): all that have an argument but byte strings, which crash Go peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Major {
    Unsigned = 0,
    Negative = 1,
    Text = 3,
    Array = 4,
    Map = 5,
    Tag = 6,
}

/// How many bytes, elements or pairs follow; `None` until a "break" (§3.2).
pub(super) type Length = Option<u64>;

/// One head as read. `Negative(n)` is the integer -1 - n.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Head {
    Unsigned(u64),
    Negative(u64),
    Bytes(Length),
    Text(Length),
    Array(Length),
    Map(Length),
    Tag(u64),
    Simple(u8),
    /// A 16-bit or 32-bit float.
    Float(f64),
    /// A 64-bit float.
    Double(f64),
    Break,
}

/// Tag 55799, which says nothing about what it encloses (§3.4.6).
pub(super) const SELF_DESCRIBED: u64 = 55_799;

pub(super) const FALSE: u8 = 0xf4;
pub(super) const TRUE: u8 = 0xf5;
pub(super) const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;

/// A position in the input.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Reader { input, rest: input }
    }

    pub(super) fn offset(&self) -> usize {
        self.input.len() - self.rest.len()
    }

    /// Expects that nothing is left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { offset: self.offset() }) }
    }

    /// Reads the next head. A definite length is never more than the input can hold.
    pub(super) fn head(&mut self) -> Result<Head, DecodeError> {
        let offset = self.offset();
        let [initial] = self.array()?;
        let info = initial & 0x1f;
        let head = match (initial >> 5, info) {
            (_, 28..=30) | (0 | 1 | 6, 31) => return Err(DecodeError::Reserved { offset, initial }),
            (0, _) => Head::Unsigned(self.argument(info)?),
            (1, _) => Head::Negative(self.argument(info)?),
            (2, _) => Head::Bytes(self.length(info, 1)?),
            (3, _) => Head::Text(self.length(info, 1)?),
            (4, _) => Head::Array(self.length(info, 1)?),
            (5, _) => Head::Map(self.length(info, 2)?),
            (6, _) => Head::Tag(self.argument(info)?),
            (_, 24) => match self.array()? {
                // §3.3: simple values below 32 have a shorter form only.
                [0..=31] => return Err(DecodeError::Reserved { offset, initial }),
                [value] => Head::Simple(value),
            },
            (_, 25) => Head::Float(half_to_double(u16::from_be_bytes(self.array()?))),
            (_, 26) => Head::Float(f64::from(f32::from_be_bytes(self.array()?))),
            (_, 27) => Head::Double(f64::from_be_bytes(self.array()?)),
            (_, 31) => Head::Break,
            (_, value) => Head::Simple(value),
        };
        Ok(head)
    }

    /// Says whether `left` holds one more item, and counts it; an indefinite length ends with its "break".
    pub(super) fn more(&mut self, left: &mut Length) -> Result<bool, DecodeError> {
        match left {
            Some(0) => Ok(false),
            Some(count) => {
                *count -= 1;
                Ok(true)
            }
            None => match self.rest.split_first() {
                Some((&BREAK, rest)) => {
                    self.rest = rest;
                    Ok(false)
                }
                Some(_) => Ok(true),
                None => Err(self.truncated()),
            },
        }
    }

    /// Reads the content of a byte string.
    pub(super) fn bytes(&mut self, length: Length) -> Result<Cow<'a, [u8]>, DecodeError> {
        let Some(length) = length else { return self.byte_chunks() };
        self.take(length).map(Cow::Borrowed)
    }

    /// Reads the content of a text string.
    pub(super) fn text(&mut self, length: Length) -> Result<Cow<'a, str>, DecodeError> {
        let Some(length) = length else { return self.text_chunks() };
        self.definite_text(length).map(Cow::Borrowed)
    }

    pub(super) fn definite_text(&mut self, length: u64) -> Result<&'a str, DecodeError> {
        let offset = self.offset();
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|error| DecodeError::Utf8 { offset: offset + error.valid_up_to() })
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte_chunks(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        let mut whole = Vec::new();
        while self.more(&mut None)? {
            let offset = self.offset();
            let Head::Bytes(Some(length)) = self.head()? else { return Err(DecodeError::Chunk { offset }) };
            whole.extend_from_slice(self.take(length)?);
        }
        Ok(Cow::Owned(whole))
    }

    fn text_chunks(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let mut whole = String::new();
        while self.more(&mut None)? {
            let offset = self.offset();
            let Head::Text(Some(length)) = self.head()? else { return Err(DecodeError::Chunk { offset }) };
            whole.push_str(self.definite_text(length)?); // §3.2.3: no character spans two chunks
        }
        Ok(Cow::Owned(whole))
    }

    fn argument(&mut self, info: u8) -> Result<u64, DecodeError> {
        match info {
            24 => Ok(u64::from(u8::from_be_bytes(self.array()?))),
            25 => Ok(u64::from(u16::from_be_bytes(self.array()?))),
            26 => Ok(u64::from(u32::from_be_bytes(self.array()?))),
            27 => Ok(u64::from_be_bytes(self.array()?)),
            small => Ok(u64::from(small)),
        }
    }

    /// Reads a length in units of at least `size` bytes.
    fn length(&mut self, info: u8, size: u64) -> Result<Length, DecodeError> {
        if info == 31 {
            return Ok(None);
        }
        let length = self.argument(info)?;
        if length > self.rest.len() as u64 / size {
            return Err(self.truncated());
        }
        Ok(Some(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(*array)
    }

    fn truncated(&self) -> DecodeError {
        DecodeError::Truncated { offset: self.input.len() }
    }
}

/// Appends a head in its shortest form (§4.2.1).
pub(super) fn write_head(out: &mut Vec<u8>, major: Major, argument: u64) {
    let initial = (major as u8) << 5;
    let [_, _, _, _, b3, b2, b1, b0] = argument.to_be_bytes();
    match argument {
        0..24 => out.push(initial | b0),
        24..0x100 => out.extend_from_slice(&[initial | 24, b0]),
        0x100..0x1_0000 => out.extend_from_slice(&[initial | 25, b1, b0]),
        0x1_0000..0x1_0000_0000 => out.extend_from_slice(&[initial | 26, b3, b2, b1, b0]),
        _ => {
            out.push(initial | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

/// Returns the length of the head that [`write_head`] appends.
pub(super) fn head_length(argument: u64) -> usize {
    match argument {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Appends a finite float in the shortest form that is exact (§4.2.1), marked where a reader like ours would
/// otherwise take it for an integer: see [`widened_integer`].
pub(super) fn write_float(out: &mut Vec<u8>, value: f64) {
    let single = value as f32;
    if f64::from(single) != value {
        if widened_integer(value).is_some() {
            write_head(out, Major::Tag, SELF_DESCRIBED);
        }
        out.push(0xfb);
        out.extend_from_slice(&value.to_be_bytes());
        return;
    }
    match single_to_half(single) {
        Some(half) => {
            out.push(0xf9);
            out.extend_from_slice(&half.to_be_bytes());
        }
        None => {
            out.push(0xfa);
            out.extend_from_slice(&single.to_be_bytes());
        }
    }
}

/// Returns the integer that a 64-bit float stands for when it comes from a peer that has floats only.
///
/// Deployed Go peers send every JSON number as a 64-bit float, and Matrix events may hold no other numbers than
/// integers below 2^53. So a 64-bit float with such a value is that integer. A float that JSON wrote as a float cannot
/// be mistaken for one: most are sent shorter, and the few that need 64 bits (`16777217.0`) are sent inside tag
/// 55799, which by RFC 8949 §3.4.6 changes nothing for anybody else; the Go peers' library skips it.
pub(super) fn widened_integer(value: f64) -> Option<i64> {
    const FIRST_UNSAFE: f64 = 9_007_199_254_740_992.0; // 2^53
    (value.fract() == 0.0 && value.abs() < FIRST_UNSAFE).then_some(value as i64)
}

/// RFC 8949 Appendix D: sign, five bits of exponent biased by 15, ten bits of fraction.
fn half_to_double(half: u16) -> f64 {
    let exponent = i32::from(half >> 10 & 0x1f);
    let fraction = f64::from(half & 0x3ff);
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2f64.powi(exponent - 25),
    };
    if half & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// Returns the 16-bit float of the same value, if there is one. Finite values only.
fn single_to_half(single: f32) -> Option<u16> {
    let bits = single.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    match exponent {
        -127 => (fraction == 0).then_some(sign), // zero; subnormal singles are far too small
        -24..=-15 => {
            // Subnormal halves count units of 2^-24: the leading bit becomes explicit and moves right.
            let (significand, shift) = (fraction | 0x80_0000, (-1 - exponent) as u32);
            (significand.trailing_zeros() >= shift).then(|| sign | (significand >> shift) as u16)
        }
        -14..=15 => {
            (fraction & 0x1fff == 0).then(|| sign | ((exponent + 15) << 10) as u16 | (fraction >> 13) as u16)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives() {
        for half in 0..=u16::MAX {
            let value = half_to_double(half);
            assert_eq!(value.is_nan(), half & 0x7fff > 0x7c00, "{half:04x}");
            assert_eq!(value.is_infinite(), half & 0x7fff == 0x7c00, "{half:04x}");
            if value.is_finite() {
                assert_eq!(single_to_half(value as f32), Some(half));
            }
        }
    }

    #[test]
    fn neighbours_of_halves_are_no_halves() {
        for half in 1..0x7c00 {
            let single = half_to_double(half) as f32;
            assert_eq!(single_to_half(single.next_up()), None, "{half:04x}");
            assert_eq!(single_to_half(single.next_down()), None, "{half:04x}");
        }
        for single in [65_520.0, 65_536.0, f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
            assert_eq!(single_to_half(single), None, "{single}");
        }
    }

    #[test]
    fn heads_are_as_long_as_announced() {
        for argument in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let mut out = Vec::new();
            write_head(&mut out, Major::Unsigned, argument);
            assert_eq!(out.len(), head_length(argument));
            assert_eq!(Reader::new(&out).head(), Ok(Head::Unsigned(argument)));
        }
    }
}
