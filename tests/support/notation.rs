//! Messages in the notation of the figures in RFC 7959 §3, and in hexadecimal.
//!
//! Reads and writes datagrams on its own: what is under test does not check itself.
//!
//! ```text
//! 41 01 1234 aa                                          every byte
//! CON [MID=0x1234, TOK=0xaa], GET, /status, 2:0/0/64     the same kind of thing in words
//! ACK [MID=a, TOK=t], 2.05, 2:0/1/64, ETag:e, 0..64      a, t, e: whatever it is, and from then on the same
//! CON [MID=a], PUT, /x, ?k=v, CF:60, opt258:0x02, "text"
//! CON [MID=a], PUT, /x, CF:50, `{"k":"v"}`
//! ```
//!
//! `2:` and `1:` are Block2 and Block1 as number/more/size; `0..64` is that part of [`body`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use lowband::coap::Message;

/// What the names in the notation stand for.
pub(crate) type Names = BTreeMap<String, Vec<u8>>;

const KINDS: [&str; 4] = ["CON", "NON", "ACK", "RST"];
const METHODS: [&str; 8] = ["", "GET", "POST", "PUT", "DELETE", "FETCH", "PATCH", "iPATCH"];
const ETAG: u16 = 4;
const OBSERVE: u16 = 6;
const URI_PATH: u16 = 11;
const URI_QUERY: u16 = 15;
const BLOCK2: u16 = 23;
const BLOCK1: u16 = 27;
const SIZE1: u16 = 60;
/// Options by name, and whether their value is written as a number.
const OPTIONS: [(&str, u16, bool); 14] = [
    ("If-Match", 1, false),
    ("ETag", ETAG, false),
    ("If-None-Match", 5, false),
    ("Observe", OBSERVE, true),
    ("CF", 12, true),
    ("Max-Age", 14, true),
    ("Accept", 17, true),
    ("Size2", 28, true),
    ("Size1", SIZE1, true),
    ("Echo", 252, false),
    ("Access-Token", 256, false),
    ("No-Response", 258, true),
    ("Request-Tag", 292, false),
    ("HTTP-Status", 65_000, true),
];

/// A body of this many bytes in which no block is like another.
pub(crate) fn body(length: usize) -> Vec<u8> {
    part(0..length)
}

fn part(range: Range<usize>) -> Vec<u8> {
    // Every four bytes are a counter, spread so that no byte is constant.
    range.map(|at| ((at as u32 / 4 + 1).wrapping_mul(0x9e37_79b1) >> (8 * (at % 4))) as u8).collect()
}

/// The bytes of a text in hexadecimal; spaces do not matter.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|character| !character.is_whitespace())
        .map(|character| {
            character.to_digit(16).unwrap_or_else(|| panic!("{character:?} in {text:?} is no hex"))
        })
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The datagram that a text describes.
pub(crate) fn datagram(text: &str, names: &Names) -> Vec<u8> {
    if !KINDS.iter().any(|kind| text.starts_with(kind)) {
        return hex(text);
    }
    let known = |field: &Field| match field {
        Field::Known(bytes) => bytes.clone(),
        Field::Named(name) => {
            names.get(name).unwrap_or_else(|| panic!("{name} in {text:?} is not known yet")).clone()
        }
    };
    let pattern = Pattern::parse(text);
    Wire {
        kind: pattern.kind,
        code: pattern.code,
        id: known(&pattern.id),
        token: known(&pattern.token),
        options: pattern.options.iter().map(|(number, value)| (*number, known(value))).collect(),
        payload: pattern.payload,
    }
    .encode()
}

/// The message that a text without names describes.
pub(crate) fn message(text: &str) -> Message {
    Message::decode(&datagram(text, &Names::new())).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Whether a text describes this datagram; new names then stand for what is in it.
pub(crate) fn matches(text: &str, actual: &[u8], names: &mut Names) -> bool {
    if !KINDS.iter().any(|kind| text.starts_with(kind)) {
        return hex(text) == actual;
    }
    let pattern = Pattern::parse(text);
    let Some(wire) = Wire::decode(actual) else { return false };
    // However its options were found, the datagram is written in the one right way.
    wire.encode() == actual && pattern.matches(&wire, names)
}

/// Whether a figure shows this datagram. Figures leave some options out, and those are not compared where a line does not have them.
pub(crate) fn is_shown(text: &str, actual: &[u8], names: &mut Names) -> bool {
    let pattern = Pattern::parse(text);
    let Some(mut wire) = Wire::decode(actual) else { return false };
    let is_request = matches!(wire.code, 1..32);
    wire.options.retain(|(number, value)| {
        // An early wish for a size is Block2 with NUM 0, and shown where the figure is about it.
        let wish = *number == BLOCK2 && is_request && value.len() < 2 && value.iter().all(|byte| *byte < 8);
        let left_out = matches!(*number, ETAG | SIZE1) || wish;
        !left_out || pattern.options.iter().any(|(shown, _)| shown == number)
    });
    pattern.matches(&wire, names)
}

impl Pattern {
    /// New names then stand for what is in the message.
    fn matches(&self, wire: &Wire, names: &mut Names) -> bool {
        let mut learnt = names.clone();
        let mut is = |field: &Field, bytes: &[u8]| match field {
            Field::Known(known) => known == bytes,
            Field::Named(name) => learnt.entry(name.clone()).or_insert_with(|| bytes.to_vec()) == bytes,
        };
        let matches = self.kind == wire.kind
            && self.code == wire.code
            && is(&self.id, &wire.id)
            && is(&self.token, &wire.token)
            && self.options.len() == wire.options.len()
            && self
                .options
                .iter()
                .zip(&wire.options)
                .all(|(ours, theirs)| ours.0 == theirs.0 && is(&ours.1, &theirs.1))
            && self.payload == wire.payload;
        if matches {
            *names = learnt;
        }
        matches
    }
}

/// A datagram in the notation, for people.
pub(crate) fn describe(datagram: &[u8]) -> String {
    let hex: String = datagram.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    match Wire::decode(datagram) {
        Some(wire) => format!("{wire}   ({hex})"),
        None => hex,
    }
}

enum Field {
    Known(Vec<u8>),
    Named(String),
}

impl Field {
    /// `0x1234`, `"text"`, or a name.
    fn bytes(text: &str) -> Self {
        if let Some(digits) = text.strip_prefix("0x") {
            return Self::Known(hex(digits));
        }
        match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => Self::Known(text.into()),
            None => Self::Named(text.into()),
        }
    }

    /// `1234`, `0x1234`, or a name.
    fn number(text: &str, write: fn(u32) -> Vec<u8>) -> Self {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        number.map_or_else(|| Self::Named(text.into()), |number| Self::Known(write(number)))
    }
}

/// A message with names in it.
struct Pattern {
    kind: u8,
    code: u8,
    id: Field,
    token: Field,
    options: Vec<(u16, Field)>,
    payload: Vec<u8>,
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let (head, rest) = text.split_once(']').unwrap_or_else(|| panic!("no [MID=..] in {text:?}"));
        let (kind, ids) = head.split_once(" [").unwrap_or_else(|| panic!("no [MID=..] in {text:?}"));
        let mut pattern = Self {
            kind: KINDS.iter().position(|name| *name == kind).unwrap_or_else(|| panic!("kind of {text:?}"))
                as u8,
            code: 0,
            id: Field::Named("?".into()),
            token: Field::Known(Vec::new()),
            options: Vec::new(),
            payload: Vec::new(),
        };
        for id in ids.split(", ") {
            match id.split_once('=') {
                Some(("MID", id)) => pattern.id = Field::number(id, |id| (id as u16).to_be_bytes().into()),
                Some(("TOK", token)) => pattern.token = Field::bytes(token),
                _ => panic!("{id:?} in {text:?}"),
            }
        }
        for word in words(rest) {
            pattern.read(word).unwrap_or_else(|| panic!("{word:?} in {text:?}"));
        }
        pattern.options.sort_by_key(|(number, _)| *number);
        pattern
    }

    fn read(&mut self, word: &str) -> Option<()> {
        if let Some(code) = code(word) {
            self.code = code;
        } else if let Some(path) = word.strip_prefix('/') {
            self.options.extend(path.split('/').map(|segment| (URI_PATH, Field::Known(segment.into()))));
        } else if let Some(query) = word.strip_prefix('?') {
            self.options.extend(query.split('&').map(|part| (URI_QUERY, Field::Known(part.into()))));
        } else if let Some(text) = word.strip_prefix('"') {
            self.payload = text.strip_suffix('"')?.into();
        } else if let Some(text) = word.strip_prefix('`') {
            self.payload = text.strip_suffix('`')?.into();
        } else if let Some((from, to)) = word.split_once("..").filter(|_| !word.contains(':')) {
            self.payload = part(from.parse().ok()?..to.parse().ok()?);
        } else if let Some(digits) = word.strip_prefix("0x") {
            self.payload = hex(digits);
        } else {
            let (name, value) = word.split_once(':').unwrap_or((word, "0x"));
            self.options.push(option(name, value)?);
        }
        Some(())
    }
}

/// What stands between commas; commas in quotes do not count.
fn words(text: &str) -> Vec<&str> {
    let mut quote = None;
    text.split(|character| {
        match (quote, character) {
            (None, '"' | '`') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
        character == ',' && quote.is_none()
    })
    .map(str::trim)
    .filter(|word| !word.is_empty())
    .collect()
}

fn code(word: &str) -> Option<u8> {
    if let Some(method) = METHODS.iter().skip(1).position(|method| *method == word) {
        return Some(method as u8 + 1);
    }
    let (class, detail) =
        word.split_once('.').filter(|(class, detail)| class.len() == 1 && detail.len() == 2)?;
    Some(class.parse::<u8>().ok()? << 5 | detail.parse::<u8>().ok()?)
}

fn option(name: &str, value: &str) -> Option<(u16, Field)> {
    let number = match name {
        "2" => BLOCK2,
        "1" => BLOCK1,
        _ => match OPTIONS.iter().find(|(other, ..)| *other == name) {
            Some((_, number, true)) => return Some((*number, Field::number(value, uint))),
            Some((_, number, false)) => *number,
            None => name.strip_prefix("opt")?.parse().ok()?,
        },
    };
    if name != "2" && name != "1" {
        return Some((number, Field::bytes(value)));
    }
    let mut parts = value.split('/').map(|part| part.parse::<u32>().ok());
    let (block, more, size) = (parts.next()??, parts.next()??, parts.next()??);
    Some((number, Field::Known(uint(block << 4 | more << 3 | (size.ilog2() - 4)))))
}

/// RFC 7252 §3.2.
fn uint(value: u32) -> Vec<u8> {
    value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// A message as it stands in a datagram (RFC 7252 §3).
struct Wire {
    kind: u8,
    code: u8,
    id: Vec<u8>,
    token: Vec<u8>,
    options: Vec<(u16, Vec<u8>)>,
    payload: Vec<u8>,
}

impl Wire {
    fn encode(&self) -> Vec<u8> {
        let mut datagram = vec![1 << 6 | self.kind << 4 | self.token.len() as u8, self.code];
        datagram.extend(&self.id);
        datagram.extend(&self.token);
        let mut previous = 0;
        for (number, value) in &self.options {
            let (delta, length) = (extended(usize::from(number - previous)), extended(value.len()));
            datagram.push(delta.0 << 4 | length.0);
            datagram.extend(delta.1);
            datagram.extend(length.1);
            datagram.extend(value);
            previous = *number;
        }
        if !self.payload.is_empty() {
            datagram.push(0xff);
            datagram.extend(&self.payload);
        }
        datagram
    }

    fn decode(datagram: &[u8]) -> Option<Self> {
        let (head, rest) = datagram.split_at_checked(4)?;
        let (token, mut rest) = rest.split_at_checked(usize::from(head[0] & 0xf))?;
        let mut options = Vec::new();
        let mut number = 0;
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first == 0xff {
                break;
            }
            let mut read = |nibble: u8| {
                let (bytes, base) = match nibble {
                    13 => (1, 13),
                    14 => (2, 269),
                    15 => return None,
                    _ => return Some(usize::from(nibble)),
                };
                let (extra, after) = rest.split_at_checked(bytes)?;
                rest = after;
                Some(extra.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) + base)
            };
            number += read(first >> 4)?;
            let length = read(first & 0xf)?;
            let (value, after) = rest.split_at_checked(length)?;
            options.push((u16::try_from(number).ok()?, value.to_vec()));
            rest = after;
        }
        Some(Self {
            kind: head[0] >> 4 & 3,
            code: head[1],
            id: head[2..4].into(),
            token: token.into(),
            options,
            payload: rest.into(),
        })
    }
}

/// RFC 7252 §3.1: a nibble and the bytes that extend it.
fn extended(number: usize) -> (u8, Vec<u8>) {
    match number {
        0..13 => (number as u8, Vec::new()),
        13..269 => (13, vec![(number - 13) as u8]),
        _ => (14, ((number - 269) as u16).to_be_bytes().into()),
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        write!(f, "{} [MID=0x{}", KINDS[usize::from(self.kind)], hex(&self.id))?;
        if !self.token.is_empty() {
            write!(f, ", TOK=0x{}", hex(&self.token))?;
        }
        f.write_str("]")?;
        match METHODS.get(usize::from(self.code)) {
            Some(&"") => {}
            Some(method) => write!(f, ", {method}")?,
            None => write!(f, ", {}.{:02}", self.code >> 5, self.code & 0x1f)?,
        }
        for (option, value) in &self.options {
            let named = OPTIONS.iter().find(|(_, number, _)| number == option);
            match (*option, named) {
                (URI_PATH, _) => write!(f, ", /{}", String::from_utf8_lossy(value))?,
                (URI_QUERY, _) => write!(f, ", ?{}", String::from_utf8_lossy(value))?,
                (BLOCK1 | BLOCK2, _) => {
                    let (name, block) = (if *option == BLOCK2 { 2 } else { 1 }, number(value));
                    write!(f, ", {name}:{}/{}/{}", block >> 4, block >> 3 & 1, 16 << (block & 7))?;
                }
                (_, Some((name, _, true))) => write!(f, ", {name}:{}", number(value))?,
                (_, Some((name, _, false))) => write!(f, ", {name}:0x{}", hex(value))?,
                (option, None) => write!(f, ", opt{option}:0x{}", hex(value))?,
            }
        }
        match std::str::from_utf8(&self.payload) {
            _ if self.payload.is_empty() => Ok(()),
            Ok(text) if !text.contains(char::is_control) => write!(f, ", {text:?}"),
            _ => write!(f, ", {} bytes of payload", self.payload.len()),
        }
    }
}
