//! CBOR → JSON in one pass: what is read is written at once.
//!
//! Only the members of maps are remembered, as ranges of the text, because one of two members with the same name has
//! to go. Such ranges are noted when their map ends and taken out of the text at the very end.

use std::borrow::Cow;
use std::ops::Range;

use crate::codec::Limits;
use crate::codec::error::DecodeError;
use crate::codec::head;
use crate::codec::head::Head;
use crate::codec::head::Length;
use crate::codec::head::Reader;
use crate::codec::keys::key_name;
use crate::codec::keys::key_number;
use crate::codec::text::Base;
use crate::codec::text::Text;

/// A body as JSON, and what its form says about the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Compact JSON, UTF-8, each name once in an object.
    pub json: Vec<u8>,
    /// The peer used an integer key, so it knows version 1 of the table (MSC3079 "Versioning").
    pub integer_keys: bool,
}

/// Converts one CBOR item, of any type, to JSON.
///
/// What JSON lacks becomes what RFC 8949 §6.1 advises, unless peers in the field need something else:
///
/// | CBOR | JSON |
/// |---|---|
/// | integer key of table version 1 | its name |
/// | a name twice in a map | once: the last with a string key, else the last |
/// | 64-bit float that is an integer below 2^53 | an integer (Go peers send all numbers so); inside tag 55799 a float |
/// | NaN, infinities, undefined | `null` |
/// | byte string | base64url without padding as text; tag 22 makes it base64, 23 base16, also from outside an array or map |
/// | tags 2 and 3, bignum | an integer, when it fits in 64 bits |
/// | any other tag | what it encloses |
///
/// ```
/// use lowband::codec::{Limits, cbor_to_json};
/// let decoded = cbor_to_json(b"\xa1\x18\x1b\x62Hi", &Limits::default())?;
/// assert_eq!(decoded.json, br#"{"body":"Hi"}"#);
/// assert!(decoded.integer_keys);
/// # Ok::<(), lowband::codec::DecodeError>(())
/// ```
///
/// # Errors
/// When the input is not exactly one well-formed item (RFC 8949 Appendix F), a limit is passed, or it holds something
/// that has no faithful form in JSON: an integer beyond 64 bits, a key that is neither text nor an integer of the
/// table, another simple value.
pub fn cbor_to_json(cbor: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let mut transcoder = Transcoder::new(cbor, limits);
    transcoder.item(Base::Base64Url)?;
    transcoder.reader.end()?;
    Ok(transcoder.finish())
}

struct Transcoder<'a> {
    reader: Reader<'a>,
    text: Text,
    depth: usize,
    depth_left: usize,
    integer_keys: bool,
    /// Members so far of the maps that are still open, innermost last.
    members: Vec<Member>,
    /// What a duplicate replaced, in the order in which maps ended.
    dropped: Vec<Range<u32>>,
}

/// A member of an object in the text: `"name":value`, without the comma that follows.
#[derive(Debug, Clone)]
struct Member {
    start: u32,
    name_end: u32,
    end: u32,
    spelling: Spelling,
}

/// How a key was sent. The later variant wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Spelling {
    Integer,
    String,
}

impl<'a> Transcoder<'a> {
    fn new(cbor: &'a [u8], limits: &Limits) -> Self {
        let expected = cbor.len() + cbor.len() / 2;
        Transcoder {
            reader: Reader::new(cbor),
            text: Text::new(limits.output(), expected),
            depth: limits.depth(),
            depth_left: limits.depth(),
            integer_keys: false,
            members: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Writes the next item. `base` is how byte strings are to look.
    fn item(&mut self, mut base: Base) -> Result<(), DecodeError> {
        let mut described = false;
        loop {
            let offset = self.reader.offset();
            match self.reader.head()? {
                Head::Tag(2) => return self.bignum(offset, false),
                Head::Tag(3) => return self.bignum(offset, true),
                Head::Tag(tag) => {
                    described = tag == head::SELF_DESCRIBED;
                    base = match tag {
                        21 => Base::Base64Url,
                        22 => Base::Base64,
                        23 => Base::Base16,
                        _ => base,
                    };
                }
                Head::Unsigned(value) => return self.text.display(format_args!("{value}")),
                Head::Negative(value) => return self.negative(offset, value),
                Head::Bytes(length) => return self.bytes(length, base),
                Head::Text(length) => return self.string(length),
                Head::Array(length) => return self.array(offset, length, base),
                Head::Map(length) => return self.map(offset, length, base),
                Head::Float(value) => return self.float(value),
                Head::Double(value) => match head::widened_integer(value) {
                    Some(integer) if !described => return self.text.display(format_args!("{integer}")),
                    _ => return self.float(value),
                },
                Head::Simple(20) => return self.text.append(b"false"),
                Head::Simple(21) => return self.text.append(b"true"),
                Head::Simple(22 | 23) => return self.text.append(b"null"),
                Head::Simple(value) => return Err(DecodeError::Simple { offset, value }),
                Head::Break => return Err(DecodeError::Break { offset }),
            }
        }
    }

    fn float(&mut self, value: f64) -> Result<(), DecodeError> {
        if value.is_finite() { self.text.float(value) } else { self.text.append(b"null") }
    }

    fn negative(&mut self, offset: usize, value: u64) -> Result<(), DecodeError> {
        let value = i64::try_from(value).map_err(|_| DecodeError::IntegerRange { offset })?;
        self.text.display(format_args!("{}", !value)) // §3.1: -1 - n
    }

    /// RFC 8949 §3.4.3: a byte string that holds an integer, most significant byte first.
    fn bignum(&mut self, offset: usize, negative: bool) -> Result<(), DecodeError> {
        let Head::Bytes(length) = self.reader.head()? else { return Err(DecodeError::Bignum { offset }) };
        let bytes = self.reader.bytes(length)?;
        let value = to_u64(&bytes).ok_or(DecodeError::IntegerRange { offset })?;
        if negative { self.negative(offset, value) } else { self.text.display(format_args!("{value}")) }
    }

    fn bytes(&mut self, length: Length, base: Base) -> Result<(), DecodeError> {
        let bytes = self.reader.bytes(length)?;
        self.text.push(b'"')?;
        self.text.encoded(&bytes, base)?;
        self.text.push(b'"')
    }

    fn string(&mut self, length: Length) -> Result<(), DecodeError> {
        let string = self.reader.text(length)?;
        self.text.string(&string)
    }

    fn array(&mut self, offset: usize, mut length: Length, base: Base) -> Result<(), DecodeError> {
        self.enter(offset)?;
        self.text.push(b'[')?;
        while self.reader.more(&mut length)? {
            self.item(base)?;
            self.text.push(b',')?;
        }
        self.depth_left += 1;
        self.text.close(b']')
    }

    fn map(&mut self, offset: usize, mut length: Length, base: Base) -> Result<(), DecodeError> {
        self.enter(offset)?;
        self.text.push(b'{')?;
        let first = self.members.len();
        let mut names = Names::default();
        while self.reader.more(&mut length)? {
            let start = self.text.here();
            let spelling = self.key(&mut names)?;
            let name_end = self.text.here();
            self.text.push(b':')?;
            self.item(base)?;
            self.members.push(Member { start, name_end, end: self.text.here(), spelling });
            self.text.push(b',')?;
        }
        if names.may_repeat {
            self.drop_duplicates(first);
        }
        self.members.truncate(first);
        self.depth_left += 1;
        self.text.close(b'}')
    }

    fn enter(&mut self, offset: usize) -> Result<(), DecodeError> {
        let left = self.depth_left.checked_sub(1);
        self.depth_left = left.ok_or(DecodeError::Depth { offset, limit: self.depth })?;
        Ok(())
    }

    fn key(&mut self, names: &mut Names<'a>) -> Result<Spelling, DecodeError> {
        let offset = self.reader.offset();
        match self.reader.head()? {
            Head::Unsigned(key) => {
                let name = key_name(key).ok_or(DecodeError::UnknownKey { offset, key })?;
                self.integer_keys = true;
                names.add_number(key);
                self.text.string(name)?;
                Ok(Spelling::Integer)
            }
            Head::Text(length) => {
                let name = self.reader.text(length)?;
                self.text.string(&name)?;
                names.add(name);
                Ok(Spelling::String)
            }
            Head::Break => Err(DecodeError::Break { offset }),
            _ => Err(DecodeError::KeyType { offset }),
        }
    }

    /// Keeps one member of each name among those from `first` on.
    fn drop_duplicates(&mut self, first: usize) {
        let members = self.members.get(first..).unwrap_or_default();
        let text = self.text.bytes();
        let name = |member: &Member| {
            let range = member.start as usize..member.name_end as usize;
            text.get(range).expect("names were written")
        };
        let mut order: Vec<&Member> = members.iter().collect();
        order.sort_unstable_by_key(|member| (name(member), member.spelling, member.start));
        let mut losers: Vec<&Member> = order
            .windows(2)
            .filter_map(|pair| match pair {
                [loser, winner] if name(loser) == name(winner) => Some(*loser),
                _ => None,
            })
            .collect();
        losers.sort_unstable_by_key(|member| member.start);
        // A loser takes the comma behind it along; after the first that stays, the comma before it, because the last
        // member of the map has none behind.
        let mut leading = 0;
        while losers.get(leading).map(|loser| loser.start) == members.get(leading).map(|member| member.start)
        {
            leading += 1;
        }
        for (index, loser) in losers.iter().enumerate() {
            let range = if index < leading { loser.start..loser.end + 1 } else { loser.start - 1..loser.end };
            self.dropped.push(range);
        }
    }

    fn finish(mut self) -> Decoded {
        let mut json = self.text.into_bytes();
        if !self.dropped.is_empty() {
            self.dropped.sort_unstable_by_key(|range| range.start);
            json = without(&json, &self.dropped);
        }
        Decoded { json, integer_keys: self.integer_keys }
    }
}

/// Notices when a name may stand twice in a map; [`Transcoder::drop_duplicates`] looks closer.
#[derive(Default)]
struct Names<'a> {
    /// Numbers of names of the table, in either spelling.
    numbers: u128,
    /// The last other name.
    last: Option<Cow<'a, str>>,
    may_repeat: bool,
}

impl<'a> Names<'a> {
    fn add(&mut self, name: Cow<'a, str>) {
        if let Some(number) = key_number(&name) {
            return self.add_number(number);
        }
        // Names in the order of RFC 8949 §4.2.1 cannot repeat.
        let last = self.last.as_deref();
        self.may_repeat |= last.is_some_and(|last| (last.len(), last) >= (name.len(), &name));
        self.last = Some(name);
    }

    fn add_number(&mut self, number: u64) {
        let bit = 1 << number; // the table ends below 128
        self.may_repeat |= self.numbers & bit != 0;
        self.numbers |= bit;
    }
}

fn to_u64(bytes: &[u8]) -> Option<u64> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = bytes.get(start..).filter(|digits| digits.len() <= 8)?;
    Some(digits.iter().fold(0, |value, digit| value << 8 | u64::from(*digit)))
}

/// Copies what is outside all ranges, which are sorted by start and may enclose each other.
fn without(text: &[u8], ranges: &[Range<u32>]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        kept.extend_from_slice(text.get(at..range.start as usize).unwrap_or_default());
        at = at.max(range.end as usize);
    }
    kept.extend_from_slice(text.get(at..).unwrap_or_default());
    kept
}
