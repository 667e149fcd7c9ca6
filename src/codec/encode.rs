//! JSON → CBOR in one pass over the text and one over what it became.
//!
//! Definite lengths stand before contents that are not known yet, and map keys are sorted. So the first pass writes
//! keys and scalars in document order into `body`, without heads for arrays and maps, and notes where those belong;
//! the second copies `body` in runs, puts the heads in, and takes the members of each map in the order of their keys.
//! Both are linear (sorting aside) whatever the nesting. serde_json is the tokenizer.

use serde::de::DeserializeSeed;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::codec::Keys;
use crate::codec::Limits;
use crate::codec::error::EncodeError;
use crate::codec::head;
use crate::codec::head::Major;
use crate::codec::keys::key_number;

/// Converts one JSON value, of any type, to one CBOR item.
///
/// Integers become CBOR integers and everything written with a fraction or an exponent a float, the shortest that is
/// exact. A 64-bit float whose value is an integer below 2^53 is put into tag 55799, so that it does not come back as
/// an integer (RFC 8949 §3.4.6: the tag means nothing; who wants the number skips it).
///
/// ```
/// use lowband::codec::{Keys, Limits, json_to_cbor};
/// let cbor = json_to_cbor(br#"{"body":"Hi","8":8}"#, Keys::V1, &Limits::default())?;
/// assert_eq!(cbor, b"\xa2\x18\x1b\x62Hi\x618\x08");
/// # Ok::<(), lowband::codec::EncodeError>(())
/// ```
///
/// # Errors
/// When the text is not one JSON value, an integer does not fit in 64 bits, or a limit is passed.
pub fn json_to_cbor(json: &[u8], keys: Keys, limits: &Limits) -> Result<Vec<u8>, EncodeError> {
    let mut draft = Draft::new(json, keys, limits);
    let mut tokens = serde_json::Deserializer::from_slice(json);
    let read = Item(&mut draft).deserialize(&mut tokens).and_then(|()| tokens.end());
    match read {
        Err(error) => return Err(draft.refuse(json, &error)),
        Ok(()) if draft.huge_number => refuse_wide_integer(json)?,
        Ok(()) => {}
    }
    draft.finish()
}

/// What the first pass leaves for the second.
struct Draft {
    keys: Keys,
    depth: usize,
    output: usize,
    /// Keys and scalars in document order.
    body: Vec<u8>,
    /// Arrays and maps in the order in which they begin.
    containers: Vec<Container>,
    /// Members of complete maps that are not in order yet; sorted, each name once.
    members: Vec<Member>,
    /// Members so far of the maps that are still open, innermost last.
    open: Vec<Member>,
    depth_left: usize,
    /// A number beyond `i64` was seen, which serde_json reads as a float even when it was written as an integer.
    huge_number: bool,
    passed: Option<Passed>,
}

/// A head that `body` lacks, and what it governs.
struct Container {
    major: Major,
    count: u32,
    /// Its contents in `body`.
    start: u32,
    end: u32,
    /// The first container that begins after it ended.
    next: u32,
    /// Its range of `members`; `None` when the contents are in order as they stand.
    members: Option<(u32, u32)>,
}

/// A key and its value in `body`.
struct Member {
    /// The first eight bytes of the key: two keys that agree here have the same length, because they have the same head.
    prefix: u64,
    key: u32,
    value: u32,
    end: u32,
    /// The containers inside the value.
    containers: (u32, u32),
}

/// Which limit was passed.
#[derive(Clone, Copy)]
enum Passed {
    Depth,
    Output,
}

impl Draft {
    fn new(json: &[u8], keys: Keys, limits: &Limits) -> Self {
        let (depth, output) = (limits.depth(), limits.output());
        Draft {
            keys,
            depth,
            output,
            body: Vec::with_capacity(json.len().min(output)),
            containers: Vec::new(),
            members: Vec::new(),
            open: Vec::new(),
            depth_left: depth,
            huge_number: false,
            passed: None,
        }
    }

    fn refuse(&self, json: &[u8], error: &serde_json::Error) -> EncodeError {
        let offset = offset_of(json, error);
        match self.passed {
            Some(Passed::Depth) => EncodeError::Depth { offset, limit: self.depth },
            Some(Passed::Output) => EncodeError::Output { limit: self.output },
            None => {
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
                EncodeError::Syntax { offset, reason }
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, EncodeError> {
        let heads: usize =
            self.containers.iter().map(|container| head::head_length(container.count.into())).sum();
        let mut out = Vec::with_capacity(self.body.len() + heads);
        self.emit(&mut out, (0, self.body.len() as u32), (0, self.containers.len() as u32));
        if out.len() > self.output {
            return Err(EncodeError::Output { limit: self.output });
        }
        Ok(out)
    }

    /// Copies a range of `body` with the heads of the containers inside it.
    fn emit(&self, out: &mut Vec<u8>, (mut at, end): (u32, u32), (mut next, last): (u32, u32)) {
        while next < last {
            let container = self.containers.get(next as usize).expect("ranges of containers were counted");
            out.extend_from_slice(self.slice(at, container.start));
            head::write_head(out, container.major, container.count.into());
            let Some((first, past)) = container.members else {
                (at, next) = (container.start, next + 1);
                continue;
            };
            let members = self.members.get(first as usize..past as usize);
            for member in members.expect("ranges of members were counted") {
                self.emit(out, (member.key, member.end), member.containers);
            }
            (at, next) = (container.end, container.next);
        }
        out.extend_from_slice(self.slice(at, end));
    }

    fn slice(&self, start: u32, end: u32) -> &[u8] {
        slice(&self.body, start, end)
    }

    /// The end of `body`. Fits because `Limits::output` does.
    fn here(&self) -> u32 {
        self.body.len() as u32
    }

    fn next_container(&self) -> u32 {
        self.containers.len() as u32
    }

    /// Fails when the body with `more` bytes, and a byte for every head it lacks, is over the limit.
    fn reserve<E: serde::de::Error>(&mut self, more: usize) -> Result<(), E> {
        if self.body.len() + self.containers.len() + more > self.output {
            self.passed = Some(Passed::Output);
            return Err(E::custom("too large"));
        }
        Ok(())
    }

    fn head<E: serde::de::Error>(&mut self, major: Major, argument: u64) -> Result<(), E> {
        self.reserve(head::head_length(argument))?;
        head::write_head(&mut self.body, major, argument);
        Ok(())
    }

    fn byte<E: serde::de::Error>(&mut self, byte: u8) -> Result<(), E> {
        self.reserve(1)?;
        self.body.push(byte);
        Ok(())
    }

    fn text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        let length = text.len() as u64;
        self.reserve(head::head_length(length) + text.len())?;
        head::write_head(&mut self.body, Major::Text, length);
        self.body.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Begins an array or a map and returns its index.
    fn enter<E: serde::de::Error>(&mut self, major: Major) -> Result<usize, E> {
        self.reserve(1)?;
        let Some(left) = self.depth_left.checked_sub(1) else {
            self.passed = Some(Passed::Depth);
            return Err(E::custom("too deep"));
        };
        self.depth_left = left;
        let start = self.here();
        self.containers.push(Container { major, count: 0, start, end: start, next: 0, members: None });
        Ok(self.containers.len() - 1)
    }

    fn leave(&mut self, index: usize, count: u32, members: Option<(u32, u32)>) {
        self.depth_left += 1;
        let (end, next) = (self.here(), self.next_container());
        let container = self.containers.get_mut(index).expect("it was entered");
        (container.count, container.members, container.end, container.next) = (count, members, end, next);
    }

    /// Ends a map whose members are those of `open` from `base` on.
    fn leave_map(&mut self, index: usize, base: usize) {
        let body = &self.body;
        let members = self.open.get_mut(base..).expect("open maps end in the order of their nesting");
        if members.is_sorted_by(|one, other| one.compare_key(other, body).is_lt()) {
            let count = members.len() as u32;
            self.open.truncate(base);
            return self.leave(index, count, None);
        }
        members.sort_unstable_by(|one, other| one.compare_key(other, body).then(one.key.cmp(&other.key)));
        let first = self.members.len();
        for member in self.open.drain(base..) {
            match self.members.get_mut(first..).and_then(<[Member]>::last_mut) {
                // Of members with the same key the later one counts.
                Some(previous) if previous.compare_key(&member, body).is_eq() => *previous = member,
                _ => self.members.push(member),
            }
        }
        let past = self.members.len();
        self.leave(index, (past - first) as u32, Some((first as u32, past as u32)));
    }
}

impl Member {
    /// RFC 8949 §4.2.1: the bytewise order of the encodings.
    fn compare_key(&self, other: &Member, body: &[u8]) -> std::cmp::Ordering {
        let rest = || slice(body, self.key, self.value).cmp(slice(body, other.key, other.value));
        self.prefix.cmp(&other.prefix).then_with(rest)
    }
}

fn slice(body: &[u8], start: u32, end: u32) -> &[u8] {
    body.get(start as usize..end as usize).expect("offsets were taken from this body")
}

fn prefix_of(key: &[u8]) -> u64 {
    let mut prefix = [0; 8];
    prefix.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(prefix)
}

/// One JSON value.
struct Item<'a>(&'a mut Draft);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.0.byte(head::NULL)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.0.byte(if value { head::TRUE } else { head::FALSE })
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.0.head(Major::Unsigned, value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match u64::try_from(value) {
            Ok(value) => self.0.head(Major::Unsigned, value),
            Err(_) => self.0.head(Major::Negative, !value as u64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if !value.is_finite() {
            return Err(E::custom("number out of range"));
        }
        self.0.huge_number |= value.abs() >= 9_223_372_036_854_775_808.0; // 2^63
        head::write_float(&mut self.0.body, value);
        self.0.reserve(0)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.0.text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let index = self.0.enter(Major::Array)?;
        let mut count = 0;
        while elements.next_element_seed(Item(&mut *self.0))?.is_some() {
            count += 1;
        }
        self.0.leave(index, count, None);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let index = self.0.enter(Major::Map)?;
        let base = self.0.open.len();
        loop {
            let key = self.0.here();
            let Some(()) = members.next_key_seed(Key(&mut *self.0))? else { break };
            let (value, first) = (self.0.here(), self.0.next_container());
            members.next_value_seed(Item(&mut *self.0))?;
            let (end, past) = (self.0.here(), self.0.next_container());
            let prefix = prefix_of(self.0.slice(key, value));
            self.0.open.push(Member { prefix, key, value, end, containers: (first, past) });
        }
        self.0.leave_map(index, base);
        Ok(())
    }
}

/// The name of an object's member.
struct Key<'a>(&'a mut Draft);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<(), E> {
        match self.0.keys {
            Keys::Strings => self.0.text(name),
            Keys::V1 => match key_number(name) {
                Some(number) => self.0.head(Major::Unsigned, number),
                None => self.0.text(name),
            },
        }
    }
}

/// Finds an integer literal that does not fit in 64 bits. The text is known to be JSON.
pub(crate) fn refuse_wide_integer(json: &[u8]) -> Result<(), EncodeError> {
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'"' => rest = after_string(after),
            b'-' | b'0'..=b'9' => {
                let length = rest
                    .iter()
                    .take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
                let (literal, after) = rest.split_at(length.count());
                if is_wide_integer(literal) {
                    return Err(EncodeError::IntegerRange { offset: json.len() - rest.len() });
                }
                rest = after;
            }
            _ => rest = after,
        }
    }
    Ok(())
}

/// Skips the rest of a string whose opening quote was read.
fn after_string(mut rest: &[u8]) -> &[u8] {
    loop {
        rest = match rest {
            [b'\\', _, after @ ..] => after,
            [b'"', after @ ..] => return after,
            [_, after @ ..] => after,
            [] => return rest,
        }
    }
}

fn is_wide_integer(literal: &[u8]) -> bool {
    let Ok(literal) = std::str::from_utf8(literal) else { return false };
    !literal.contains(['.', 'e', 'E']) && literal.parse::<i64>().is_err() && literal.parse::<u64>().is_err()
}

/// Turns serde_json's line and column, which count from 1, into an offset.
fn offset_of(json: &[u8], error: &serde_json::Error) -> usize {
    let before = json.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let line_start: usize = before.map(<[u8]>::len).sum();
    (line_start + error.column().saturating_sub(1)).min(json.len())
}
