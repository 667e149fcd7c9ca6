//! JSON text as it is written: bounded, compact, escaped no more than RFC 8259 §7 demands.

use std::io::Write;

use crate::codec::error::DecodeError;

/// Bytes that never become more than a limit.
#[derive(Debug)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    limit: usize,
}

/// The alphabets of RFC 4648 that RFC 8949 §3.4.5.2 names for byte strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// Without padding: tag 21, and byte strings without a tag (RFC 8949 §6.1).
    Base64Url,
    /// With padding: tag 22.
    Base64,
    /// Capital letters: tag 23.
    Base16,
}

impl Text {
    /// Starts empty, with room for about `expected` bytes.
    pub(crate) fn new(limit: usize, expected: usize) -> Self {
        Text { bytes: Vec::with_capacity(expected.min(limit)), limit }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where the next byte goes. Fits because `Limits::output` does.
    pub(crate) fn here(&self) -> u32 {
        self.bytes.len() as u32
    }

    pub(crate) fn push(&mut self, byte: u8) -> Result<(), DecodeError> {
        self.reserve(1)?;
        self.bytes.push(byte);
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends a list whose items all left a comma behind.
    pub(crate) fn close(&mut self, bracket: u8) -> Result<(), DecodeError> {
        match self.bytes.last_mut() {
            Some(last @ b',') => *last = bracket,
            _ => self.push(bracket)?,
        }
        Ok(())
    }

    /// Writes something short: a number, a tag.
    pub(crate) fn display(&mut self, short: std::fmt::Arguments<'_>) -> Result<(), DecodeError> {
        self.bytes.write_fmt(short).expect("writing to a Vec cannot fail");
        self.reserve(0)
    }

    /// Writes a finite float with the fewest digits that read back as the same float, and never as an integer.
    pub(crate) fn float(&mut self, value: f64) -> Result<(), DecodeError> {
        serde_json::to_writer(&mut self.bytes, &value).expect("writing to a Vec cannot fail");
        self.reserve(0)
    }

    /// Writes a string with its quotes.
    pub(crate) fn string(&mut self, content: &str) -> Result<(), DecodeError> {
        self.reserve(content.len() + 2)?;
        self.bytes.push(b'"');
        let mut rest = content.as_bytes();
        while let Some(at) = first_special(rest) {
            let (plain, special) = rest.split_at(at);
            self.append(plain)?;
            if let Some((&byte, after)) = special.split_first() {
                self.escape(byte)?;
                rest = after;
            }
        }
        self.append(rest)?;
        self.push(b'"')
    }

    /// Writes bytes as a string of printable characters, without quotes.
    pub(crate) fn encoded(&mut self, bytes: &[u8], base: Base) -> Result<(), DecodeError> {
        match base {
            Base::Base64Url => {
                self.reserve((bytes.len() * 4).div_ceil(3))?;
                self.base64(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
            }
            Base::Base64 => {
                self.reserve(bytes.len().div_ceil(3) * 4)?;
                self.base64(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
                self.bytes.extend(std::iter::repeat_n(b'=', (3 - bytes.len() % 3) % 3));
            }
            Base::Base16 => {
                self.reserve(bytes.len() * 2)?;
                let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                self.bytes.extend(digits.map(|digit| digit_of(b"0123456789ABCDEF", digit.into())));
            }
        }
        Ok(())
    }

    fn base64(&mut self, bytes: &[u8], alphabet: &[u8; 64]) {
        for chunk in bytes.chunks(3) {
            let group =
                chunk.iter().fold(0, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            let digits = [group >> 18, group >> 12 & 63, group >> 6 & 63, group & 63];
            self.bytes.extend(digits.iter().take(chunk.len() + 1).map(|digit| digit_of(alphabet, *digit)));
        }
    }

    fn escape(&mut self, byte: u8) -> Result<(), DecodeError> {
        match byte {
            b'"' => self.append(b"\\\""),
            b'\\' => self.append(b"\\\\"),
            b'\n' => self.append(b"\\n"),
            b'\r' => self.append(b"\\r"),
            b'\t' => self.append(b"\\t"),
            0x08 => self.append(b"\\b"),
            0x0c => self.append(b"\\f"),
            control => self.display(format_args!("\\u{control:04x}")),
        }
    }

    fn reserve(&self, more: usize) -> Result<(), DecodeError> {
        if self.bytes.len().saturating_add(more) > self.limit {
            return Err(DecodeError::Output { limit: self.limit });
        }
        Ok(())
    }
}

/// Finds the first byte that a JSON string must escape (RFC 8259 §7), eight at a time.
fn first_special(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let plain = words.iter().take_while(|word| !has_special(u64::from_ne_bytes(**word))).count() * 8;
    let rest = bytes.get(plain..)?;
    rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')).map(|at| plain + at)
}

/// Says whether one of eight bytes is special. Subtracting borrows into the high bit of a byte that was too small;
/// bytes that had the bit already, which are parts of longer characters, do not count.
fn has_special(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    let quotes = word ^ (ONES * b'"' as u64);
    let backslashes = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quotes.wrapping_sub(ONES) & !quotes;
    let backslash = backslashes.wrapping_sub(ONES) & !backslashes;
    (control | quote | backslash) & ONES << 7 != 0
}

fn digit_of(alphabet: &[u8], value: u32) -> u8 {
    *alphabet.get(value as usize).expect("a digit is smaller than its base")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bytes: &[u8], base: Base) -> String {
        let mut text = Text::new(100, 0);
        text.encoded(bytes, base).unwrap();
        String::from_utf8(text.into_bytes()).unwrap()
    }

    /// RFC 4648 §10.
    #[test]
    fn bases_are_those_of_rfc_4648() {
        for (plain, base64, base16) in [
            ("", "", ""),
            ("f", "Zg==", "66"),
            ("fo", "Zm8=", "666F"),
            ("foo", "Zm9v", "666F6F"),
            ("foob", "Zm9vYg==", "666F6F62"),
            ("fooba", "Zm9vYmE=", "666F6F6261"),
            ("foobar", "Zm9vYmFy", "666F6F626172"),
        ] {
            assert_eq!(encoded(plain.as_bytes(), Base::Base64), base64);
            assert_eq!(encoded(plain.as_bytes(), Base::Base64Url), base64.trim_end_matches('='));
            assert_eq!(encoded(plain.as_bytes(), Base::Base16), base16);
        }
        assert_eq!(encoded(&[0xfb, 0xff], Base::Base64), "+/8=");
        assert_eq!(encoded(&[0xfb, 0xff], Base::Base64Url), "-_8");
    }

    #[test]
    fn strings_are_escaped_like_serde_json() {
        let all: String = (0..0x180).filter_map(char::from_u32).chain("\u{2028}\u{10ffff}".chars()).collect();
        let mut text = Text::new(4096, 0);
        text.string(&all).unwrap();
        assert_eq!(text.into_bytes(), serde_json::to_vec(&all).unwrap());
    }

    #[test]
    fn special_bytes_are_found_wherever_they_stand() {
        for special in (0..=255).filter(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')) {
            for filler in [0x20, 0x21, 0x23, b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                for at in 0..20 {
                    let mut bytes = [filler; 20];
                    assert_eq!(first_special(&bytes), None);
                    bytes[at] = special;
                    assert_eq!(first_special(&bytes), Some(at), "{special} among {filler}");
                }
            }
        }
    }

    #[test]
    fn escapes_and_digits_count_towards_the_limit() {
        for limit in 0..8 {
            assert_eq!(Text::new(limit, 0).string("\u{1}"), Err(DecodeError::Output { limit }));
            assert_eq!(
                Text::new(limit, 0).encoded(&[0; 6], Base::Base64),
                Err(DecodeError::Output { limit })
            );
        }
        assert_eq!(Text::new(8, 0).string("\u{1}"), Ok(()));
        assert_eq!(Text::new(8, 0).encoded(&[0; 6], Base::Base64), Ok(()));
    }
}
