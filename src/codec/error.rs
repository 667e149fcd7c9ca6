//! What is refused, and where. Offsets count bytes of the input from 0.

/// Why a JSON text has no CBOR form here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Not one JSON value (RFC 8259), or a number no `f64` can hold, or a lone surrogate.
    #[error("not JSON at byte {offset}: {reason}")]
    Syntax {
        /// Where reading stopped.
        offset: usize,
        /// What the parser expected or found.
        reason: String,
    },
    /// An integer literal outside `i64` and `u64`.
    #[error("the integer at byte {offset} does not fit in 64 bits")]
    IntegerRange {
        /// Where the literal begins.
        offset: usize,
    },
    /// Arrays and objects enclose each other too deeply.
    #[error("nested deeper than {limit} at byte {offset}")]
    Depth {
        /// Where the limit was passed.
        offset: usize,
        /// The limit that applied.
        limit: usize,
    },
    /// The CBOR would be larger than allowed.
    #[error("more than {limit} bytes of CBOR")]
    Output {
        /// The limit that applied.
        limit: usize,
    },
}

/// Why a CBOR item has no JSON form here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside an item.
    #[error("cut short at byte {offset}")]
    Truncated {
        /// The length of the input.
        offset: usize,
    },
    /// Something follows the item.
    #[error("the item ends at byte {offset}, and more follows")]
    Trailing {
        /// Where the item ended.
        offset: usize,
    },
    /// A first byte that RFC 8949 §3 reserves.
    #[error("reserved initial byte 0x{initial:02x} at byte {offset}")]
    Reserved {
        /// Where the item begins.
        offset: usize,
        /// Its first byte.
        initial: u8,
    },
    /// A "break" where no indefinite length is open, or in place of a member's value.
    #[error("unexpected break at byte {offset}")]
    Break {
        /// Where it stands.
        offset: usize,
    },
    /// A chunk of an indefinite-length string that is not a definite-length string of the same type.
    #[error("wrong chunk of an indefinite-length string at byte {offset}")]
    Chunk {
        /// Where the chunk begins.
        offset: usize,
    },
    /// A text string that is not UTF-8.
    #[error("invalid UTF-8 at byte {offset}")]
    Utf8 {
        /// The first wrong byte.
        offset: usize,
    },
    /// A map key that is neither text nor an unsigned integer.
    #[error("the map key at byte {offset} is neither text nor an unsigned integer")]
    KeyType {
        /// Where the key begins.
        offset: usize,
    },
    /// An integer key that version 1 of the table does not have. Leaving the member out, or writing the number as
    /// text, would change what was said.
    #[error("integer key {key} at byte {offset} is not in table version 1")]
    UnknownKey {
        /// Where the key begins.
        offset: usize,
        /// The number.
        key: u64,
    },
    /// An integer outside `i64` and `u64`, bignums included.
    #[error("the integer at byte {offset} does not fit in 64 bits")]
    IntegerRange {
        /// Where it begins.
        offset: usize,
    },
    /// Tag 2 or 3 on something else than a byte string (RFC 8949 §3.4.3).
    #[error("the bignum at byte {offset} is not a byte string")]
    Bignum {
        /// Where the tagged item begins.
        offset: usize,
    },
    /// A simple value that is neither false, true, null nor undefined.
    #[error("simple value {value} at byte {offset} has no JSON form")]
    Simple {
        /// Where it begins.
        offset: usize,
        /// The simple value.
        value: u8,
    },
    /// Arrays and maps enclose each other too deeply.
    #[error("nested deeper than {limit} at byte {offset}")]
    Depth {
        /// The array or map that is one too deep.
        offset: usize,
        /// The limit that applied.
        limit: usize,
    },
    /// The text would be larger than allowed.
    #[error("more than {limit} bytes of text")]
    Output {
        /// The limit that applied.
        limit: usize,
    },
}
