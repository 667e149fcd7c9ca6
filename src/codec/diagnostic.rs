//! Diagnostic notation (RFC 8949 §8), for people.

use crate::codec::Limits;
use crate::codec::error::DecodeError;
use crate::codec::head::Head;
use crate::codec::head::Length;
use crate::codec::head::Reader;
use crate::codec::text::Text;

/// Writes one CBOR item in diagnostic notation: everything as it was sent, duplicates and unknown keys included.
///
/// ```
/// use lowband::codec::{Limits, diagnostic};
/// let text = diagnostic(b"\xa1\x18\x1b\x9f\xf9\x3c\x00\x42\x01\x02\xff", &Limits::default())?;
/// assert_eq!(text, "{27: [_ 1.0, h'0102']}");
/// # Ok::<(), lowband::codec::DecodeError>(())
/// ```
///
/// # Errors
/// When the input is not exactly one well-formed item, a text string is not UTF-8, or a limit is passed.
pub fn diagnostic(cbor: &[u8], limits: &Limits) -> Result<String, DecodeError> {
    let mut writer = Writer {
        reader: Reader::new(cbor),
        text: Text::new(limits.output(), cbor.len()),
        depth: limits.depth(),
        depth_left: limits.depth(),
    };
    writer.item()?;
    writer.reader.end()?;
    Ok(String::from_utf8(writer.text.into_bytes()).expect("only text was written"))
}

struct Writer<'a> {
    reader: Reader<'a>,
    text: Text,
    depth: usize,
    depth_left: usize,
}

impl Writer<'_> {
    fn item(&mut self) -> Result<(), DecodeError> {
        let mut tags = 0;
        loop {
            let offset = self.reader.offset();
            let head = self.reader.head()?;
            if let Head::Tag(tag) = head {
                if let Some(integer) = self.bignum(tag) {
                    self.text.display(format_args!("{integer}"))?;
                    break;
                }
                self.text.display(format_args!("{tag}("))?;
                tags += 1;
                continue;
            }
            self.untagged(offset, head)?;
            break;
        }
        for _ in 0..tags {
            self.text.push(b')')?;
        }
        Ok(())
    }

    /// Reads what follows tag 2 or 3 when it is a bignum of at most 120 bits, which are shown as the integer they are.
    fn bignum(&mut self, tag: u64) -> Option<i128> {
        let mut ahead = self.reader.clone();
        let Head::Bytes(Some(length @ ..=15)) = ahead.head().ok()? else { return None };
        let value = ahead.take(length).ok()?.iter().fold(0, |value, digit| value << 8 | i128::from(*digit));
        let integer = match tag {
            2 => value,
            3 => -1 - value,
            _ => return None,
        };
        self.reader = ahead;
        Some(integer)
    }

    fn untagged(&mut self, offset: usize, head: Head) -> Result<(), DecodeError> {
        match head {
            Head::Unsigned(value) => self.text.display(format_args!("{value}")),
            Head::Negative(value) => self.text.display(format_args!("{}", -1 - i128::from(value))),
            Head::Bytes(Some(length)) => self.bytes(length),
            Head::Text(Some(length)) => self.string(length),
            Head::Bytes(None) => self.chunks(|writer, offset| match writer.reader.head()? {
                Head::Bytes(Some(length)) => writer.bytes(length),
                _ => Err(DecodeError::Chunk { offset }),
            }),
            Head::Text(None) => self.chunks(|writer, offset| match writer.reader.head()? {
                Head::Text(Some(length)) => writer.string(length),
                _ => Err(DecodeError::Chunk { offset }),
            }),
            Head::Array(length) => self.list(offset, length, (b"[", b"]"), Self::item),
            Head::Map(length) => self.list(offset, length, (b"{", b"}"), |writer| {
                writer.item()?;
                writer.text.append(b": ")?;
                writer.item()
            }),
            Head::Float(value) | Head::Double(value) => self.text.display(format_args!("{}", float(value))),
            Head::Simple(20) => self.text.append(b"false"),
            Head::Simple(21) => self.text.append(b"true"),
            Head::Simple(22) => self.text.append(b"null"),
            Head::Simple(23) => self.text.append(b"undefined"),
            Head::Simple(value) => self.text.display(format_args!("simple({value})")),
            Head::Break => Err(DecodeError::Break { offset }),
            Head::Tag(_) => unreachable!("the caller reads tags"),
        }
    }

    fn bytes(&mut self, length: u64) -> Result<(), DecodeError> {
        self.text.append(b"h'")?;
        for byte in self.reader.take(length)? {
            self.text.display(format_args!("{byte:02x}"))?;
        }
        self.text.push(b'\'')
    }

    fn string(&mut self, length: u64) -> Result<(), DecodeError> {
        let string = self.reader.definite_text(length)?;
        self.text.string(string)
    }

    /// §8.1: the chunks of an indefinite-length string in parentheses.
    fn chunks(
        &mut self,
        mut chunk: impl FnMut(&mut Self, usize) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.text.append(b"(_ ")?;
        let mut first = true;
        while self.reader.more(&mut None)? {
            self.separate(&mut first)?;
            let offset = self.reader.offset();
            chunk(self, offset)?;
        }
        self.text.push(b')')
    }

    fn list(
        &mut self,
        offset: usize,
        mut length: Length,
        (open, close): (&[u8], &[u8]),
        mut entry: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let left = self.depth_left.checked_sub(1);
        self.depth_left = left.ok_or(DecodeError::Depth { offset, limit: self.depth })?;
        self.text.append(open)?;
        if length.is_none() {
            self.text.append(b"_ ")?;
        }
        let mut first = true;
        while self.reader.more(&mut length)? {
            self.separate(&mut first)?;
            entry(self)?;
        }
        self.depth_left += 1;
        self.text.append(close)
    }

    fn separate(&mut self, first: &mut bool) -> Result<(), DecodeError> {
        if std::mem::take(first) { Ok(()) } else { self.text.append(b", ") }
    }
}

/// Writes a float as RFC 8949 Appendix A does: always with a fraction, an exponent below 1e-6 and from 1e21 on.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let plain = value == 0.0 || (1e-6..1e21).contains(&value.abs());
    let digits = if plain { format!("{value}") } else { format!("{value:e}") };
    let (mantissa, exponent) = match digits.split_once('e') {
        Some((mantissa, exponent)) if exponent.starts_with('-') => (mantissa, format!("e{exponent}")),
        Some((mantissa, exponent)) => (mantissa, format!("e+{exponent}")),
        None => (digits.as_str(), String::new()),
    };
    let fraction = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{fraction}{exponent}")
}
