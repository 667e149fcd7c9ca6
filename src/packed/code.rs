//! The codes: what the first byte of each item says. docs/packed.md has them in tables.
//!
//! Names of members and values have codes of their own, and share those of strings (0x50 to 0x7f).

/// `0x00` to `0x1f`: the integers 0 to 31.
pub(super) const SMALL_END: u8 = 0x1f;
/// An unsigned integer in 1, 2, 4 or 8 bytes.
pub(super) const UINT_8: u8 = 0x20;
pub(super) const UINT_16: u8 = 0x21;
pub(super) const UINT_32: u8 = 0x22;
pub(super) const UINT_64: u8 = 0x23;
/// The integer -1 - n, n being the unsigned integer that follows.
pub(super) const NEGATIVE: u8 = 0x24;
/// A binary64 in 8 bytes.
pub(super) const FLOAT: u8 = 0x25;
/// A time: the difference in milliseconds from the one before.
pub(super) const TIME: u8 = 0x26;
/// An age: the difference from what the ages and times before let expect.
pub(super) const AGE: u8 = 0x27;
pub(super) const NULL: u8 = 0x28;
pub(super) const FALSE: u8 = 0x29;
pub(super) const TRUE: u8 = 0x2a;
/// Nothing at all: no body, no query.
pub(super) const ABSENT: u8 = 0x2b;
/// A body that is carried as it is: its length, and its bytes beside the coded part.
pub(super) const OPAQUE: u8 = 0x2c;

pub(super) const EMPTY_ARRAY: u8 = 0x30;
pub(super) const ARRAY: u8 = 0x31;
pub(super) const EMPTY_OBJECT: u8 = 0x32;
pub(super) const OBJECT: u8 = 0x33;

/// Text up to a byte of zero.
pub(super) const TEXT: u8 = 0x50;
/// Text with its length before it: it has a zero in it.
pub(super) const LONG_TEXT: u8 = 0x51;
/// Text whose bytes go beside the coded part.
pub(super) const SECRET: u8 = 0x52;
/// `$` and 32 bytes in base64url.
pub(super) const EVENT: u8 = 0x53;
/// `!` and 32 bytes in base64url.
pub(super) const ROOM_HASH: u8 = 0x54;
/// Bytes in base64 without padding: 32, 64, or as many as are said.
pub(super) const BYTES_32: u8 = 0x55;
pub(super) const BYTES_64: u8 = 0x56;
pub(super) const BYTES: u8 = 0x57;
/// The same with padding, and in the alphabet for URLs.
pub(super) const BYTES_PADDED: u8 = 0x58;
pub(super) const BYTES_URL: u8 = 0x59;
/// A sigil, text, `:` and the name of a server.
pub(super) const USER: u8 = 0x5a;
pub(super) const ROOM: u8 = 0x5b;
pub(super) const ROOM_ALIAS: u8 = 0x5c;
/// `mxc://`, the name of a server, `/` and text.
pub(super) const MEDIA: u8 = 0x5d;
/// Two strings with `:` between them.
pub(super) const PAIR: u8 = 0x5e;
/// Text up to a byte of zero and a string in turn, up to an end after a text: identifiers in a text.
pub(super) const EMBEDDED: u8 = 0x5f;
/// A number, and the identifier that has it from now on.
pub(super) const INTRODUCE: u8 = 0x60;
/// What the sender told earlier: how far back.
pub(super) const RECENT_OWN: u8 = 0x61;
/// What the receiver told earlier: its number, as a difference.
pub(super) const RECENT_PEER: u8 = 0x62;
/// Rooms, users, servers and devices that the sender, and that the receiver introduced.
pub(super) const HOT_OWN: u8 = 0x63;
pub(super) const HOT_PEER: u8 = 0x67;
/// A token of the homeserver: the next one, or one that is known.
pub(super) const TOKEN_NEW: u8 = 0x6b;
pub(super) const TOKEN: u8 = 0x6c;
/// The same, of which the sender knows nothing but the number.
pub(super) const TOKEN_BARE: u8 = 0x6d;
/// A transaction: a new one, or one by its number, or that of the event that was named last.
pub(super) const TRANSACTION_NEW: u8 = 0x6e;
pub(super) const TRANSACTION: u8 = 0x6f;
/// `0x70` to `0x77`: the first half of a name's number that needs two bytes.
pub(super) const NAME_HIGH: u8 = 0x70;
pub(super) const TRANSACTION_SAME: u8 = 0x78;
/// The event that came of a transaction: of this one, or one by the transaction's number.
pub(super) const SENT_NEW: u8 = 0x79;
pub(super) const SENT: u8 = 0x7a;
/// A query that the sender introduced.
pub(super) const QUERY: u8 = 0x7b;
/// Ends an array or an object.
pub(super) const END: u8 = 0x7f;

/// `0x00` to `0x4f` and `0x80` to `0xff`: names of one byte.
pub(super) const NAMES_LOW: usize = 0x50;
pub(super) const NAMES_SHORT: usize = 0x50 + 0x80;
/// `0x80` to `0xef`: strings of the table of one byte; `0xf0` to `0xff`: the first half of two.
pub(super) const VALUES: u8 = 0x80;
pub(super) const VALUES_SHORT: usize = 0x70;
pub(super) const VALUE_HIGH: u8 = 0xf0;

/// Small differences of either sign become small numbers.
pub(super) fn zigzag(difference: i64) -> u64 {
    ((difference << 1) ^ (difference >> 63)) as u64
}

/// Undoes [`zigzag`].
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
