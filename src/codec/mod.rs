//! JSON ⇄ CBOR for Matrix bodies, value for value (MSC3079 "JSON -> CBOR", RFC 8949).
//!
//! Pure functions over whole bodies; what a body means is for `matrix` to know. Both directions run once over their
//! input and build no tree of values. What they promise:
//!
//! * **Sent** CBOR is the core deterministic encoding of RFC 8949 §4.2.1: shortest heads, definite lengths, map keys
//!   in the bytewise order of their encodings, never a byte string. A JSON object's members have no order in Matrix,
//!   so sorting them loses nothing. (The "Canonical CBOR" of RFC 7049 §3.9, which the MSC shows, differs in one place
//!   only: it puts the empty key before integer keys above 23.)
//! * **Read** CBOR may be anything well-formed: indefinite lengths, any order, integers as 64-bit floats, byte strings,
//!   tags. [`cbor_to_json`] says what becomes of each.
//! * Integers are exact over the whole of `i64` and `u64`, and an error beyond. Floats come back as the same float, `1.0`
//!   as `1.0`.
//! * A name that an object has twice: the last one counts. Integer key and string key of one name: the string key
//!   counts, wherever it stands (MSC3079).

mod decode;
mod diagnostic;
mod encode;
mod error;
mod head;
mod keys;
mod text;

pub use decode::Decoded;
pub use decode::cbor_to_json;
pub use diagnostic::diagnostic;
pub use encode::json_to_cbor;
pub(crate) use encode::refuse_wide_integer;
pub use error::DecodeError;
pub use error::EncodeError;
pub use keys::key_name;
pub use keys::key_number;
pub(crate) use text::Text;

/// Which integer keys the encoder may use. The decoder always accepts those of version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    /// None: every key is a text string, as for a peer that has not said it knows a table.
    #[default]
    Strings,
    /// MSC3079 Appendix A, version 1, in every object at every depth.
    V1,
}

/// What one conversion may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many arrays and objects may enclose each other. More than 126 counts as 126, which every common
    /// JSON parser still accepts.
    pub depth: usize,
    /// How many bytes may be produced, members that a later duplicate replaces included. More than 4 GiB counts as 4 GiB.
    pub output: usize,
}

impl Default for Limits {
    /// 100 levels, 16 MiB.
    fn default() -> Self {
        Limits { depth: 100, output: 16 << 20 }
    }
}

impl Limits {
    fn depth(&self) -> usize {
        self.depth.min(126) // one less than serde_json's own limit, so that the error is always ours
    }

    fn output(&self) -> usize {
        self.output.min(u32::MAX as usize)
    }
}
