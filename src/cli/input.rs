//! What people give: bytes, hexadecimal as they copied it from somewhere, or recordings.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use lowband::codec::EncodeError;
use lowband::measure::Recording;

use super::Failure;

/// The most that is read from standard input.
const LIMIT: u64 = 16 << 20;

/// Standard input, whole.
pub(super) fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .take(LIMIT + 1)
        .read_to_end(&mut input)
        .map_err(|error| Failure::new(format_args!("cannot read standard input: {error}")))?;
    if input.len() as u64 > LIMIT {
        return Err(Failure::new(format_args!("standard input is larger than {} MiB", LIMIT >> 20)));
    }
    Ok(input)
}

/// The exchanges of a recording; - is standard input. What begins as gzip does is that, whatever its name.
pub(super) fn open_recording(path: &Path) -> Result<Recording<Box<dyn BufRead>>, Failure> {
    let cannot = |error| Failure::new(format_args!("cannot read {}: {error}", path.display()));
    let file: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(cannot)?),
    };
    let mut input = BufReader::with_capacity(1 << 16, file);
    let is_gzip = input.fill_buf().map_err(cannot)?.starts_with(&[0x1f, 0x8b]);
    let text: Box<dyn BufRead> = match is_gzip {
        true => Box::new(BufReader::new(MultiGzDecoder::new(input))),
        false => Box::new(input),
    };
    Ok(Recording::new(text))
}

/// Where in a JSON text something is wrong with it, where that is one place.
pub(super) fn place_of(error: &EncodeError, json: &[u8]) -> Option<String> {
    match error {
        EncodeError::Syntax { offset, .. }
        | EncodeError::IntegerRange { offset }
        | EncodeError::Depth { offset, .. } => Some(place(json, *offset)),
        _ => None,
    }
}

/// A byte of a text as editors count: line and column, and what stands there.
fn place(text: &[u8], offset: usize) -> String {
    let (before, after) = text.split_at_checked(offset).unwrap_or((text, &[]));
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default()).chars().count() + 1;
    let found: String = String::from_utf8_lossy(after.get(..80).unwrap_or(after)).chars().take(20).collect();
    match found.lines().next().filter(|found| !found.is_empty()) {
        Some(found) => format!("look at line {line}, column {column}: {found:?}"),
        None => format!("look at line {line}, column {column}, where it ends"),
    }
}

/// Whether the input is text that can only be meant as hexadecimal.
pub(super) fn is_hex(input: &[u8]) -> bool {
    let is_possible =
        |byte: &u8| byte.is_ascii_hexdigit() || is_separator(*byte) || matches!(byte, b'x' | b'X');
    input.iter().all(is_possible) && input.iter().any(u8::is_ascii_hexdigit)
}

/// The bytes that hexadecimal text stands for. Spaces, line ends, colons and `0x` may stand between them.
pub(super) fn parse_hex(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut high = None;
    let mut characters = text.iter().copied().enumerate().peekable();
    while let Some((at, character)) = characters.next() {
        let prefix = |&(_, next): &(usize, u8)| matches!(next, b'x' | b'X');
        if character == b'0' && high.is_none() && characters.next_if(prefix).is_some() {
            continue;
        }
        if is_separator(character) && high.is_none() {
            continue;
        }
        let Some(digit) = char::from(character).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
        else {
            return Err(no_digit(text, at));
        };
        match high.take() {
            Some(high) => bytes.push(high << 4 | digit),
            None => high = Some(digit),
        }
    }
    match high {
        Some(_) => Err(Failure::new("an odd number of hexadecimal digits: the last byte has only one")),
        None => Ok(bytes),
    }
}

fn no_digit(text: &[u8], at: usize) -> Failure {
    let rest = String::from_utf8_lossy(text.get(at..).unwrap_or_default()).into_owned();
    let found = rest.chars().next().unwrap_or_default();
    let failure = Failure::new(format_args!("{found:?} at character {at} is no hexadecimal digit"));
    match is_separator(found as u8) && found.is_ascii() {
        true => failure.hint("each byte has two digits, and nothing stands between them"),
        false => failure.hint("bytes are given as in 4101 0001, 41:01:00:01 or 0x41 0x01"),
    }
}

fn is_separator(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse_hex(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn hexadecimal_is_read_as_people_copy_it() {
        for text in [
            "41010aff",
            "41 01 0A ff",
            "41:01:0a:ff\n",
            "0x41 0x01 0x0a 0xff",
            "0x41010aff",
            "\t4101\r\n0aff",
        ] {
            assert!(is_hex(text.as_bytes()), "{text}");
            assert_eq!(parse_hex(text.as_bytes()).expect(text), [0x41, 0x01, 0x0a, 0xff], "{text}");
        }
        assert_eq!(parse_hex(b"00").expect("zero"), [0]);
        assert_eq!(parse_hex(b"").expect("nothing"), b"");
    }

    #[test]
    fn what_is_no_hexadecimal_is_named_with_its_place() {
        assert!(error("41 0g").starts_with("error: 'g' at character 4 is no hexadecimal digit\nhint: bytes"));
        assert!(
            error("4 1").starts_with("error: ' ' at character 1 is no hexadecimal digit\nhint: each byte")
        );
        assert!(error("41 é").starts_with("error: 'é' at character 3"));
        assert!(error("410").starts_with("error: an odd number"));
        assert!(error("4x1").starts_with("error: 'x' at character 1"));
    }

    #[test]
    fn places_are_counted_as_editors_count() {
        assert_eq!(place(b"{\"a\":1,}", 7), "look at line 1, column 8: \"}\"");
        assert_eq!(place("{\n \"é\": x\n}".as_bytes(), 9), "look at line 2, column 7: \"x\"");
        assert_eq!(place(b"{", 1), "look at line 1, column 2, where it ends");
        assert_eq!(place(b"", 9), "look at line 1, column 1, where it ends");
    }

    #[test]
    fn bytes_are_not_taken_for_hexadecimal() {
        assert!(!is_hex(&[0xa1, 0x61, 0x61, 0x01]));
        assert!(!is_hex(b"{}"));
        assert!(!is_hex(b""));
        assert!(!is_hex(b" \n"));
    }
}
