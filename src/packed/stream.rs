//! What is coded, byte by byte, and what each byte is: the one thing that the writer, the reader and the coders share.
//!
//! ```text
//!   +--------+----------- - -+------- - - - - - - -------+
//!   | header |  coded bytes  |  raw: last item ... first |    the model codes the header, too
//!   +--------+----------- - -+------- - - - - - - -------+
//! ```
//! Raw items are bytes without any pattern, or that no coder may see: hashes, keys, ciphertext, secrets. They are taken from the
//! end of the message as the items that name them are read, so nothing says where they begin.

use std::borrow::Cow;

use crate::packed::coder::model::Decoder;
use crate::packed::error::DecodeError;

/// What a byte is: what a model may expect depends on it, and nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Context {
    pub(super) role: Role,
    /// The member that it belongs to.
    pub(super) name: u16,
    /// The member that encloses that one.
    pub(super) parent: u16,
}

/// The places that a byte can have in an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(super) enum Role {
    /// The first byte of a value.
    #[default]
    Value = 0,
    /// The first byte of a name.
    Name = 1,
    /// A character.
    Text = 2,
    /// A number of an alias.
    Alias = 3,
    /// A number that was told.
    Number = 4,
    /// A difference of times.
    Time = 5,
    /// The route.
    Route = 6,
    /// The second byte of a name or a string of the tables.
    Row = 7,
    /// The numbers in front of a message.
    Base = 8,
    /// How long something is.
    Length = 9,
    /// The header.
    Header = 10,
}

/// What was written so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) contexts: Vec<Context>,
    /// Raw items in the order in which they were written.
    pub(super) raw: Vec<Vec<u8>>,
    pub(super) raw_length: usize,
}

impl Written {
    pub(super) fn push(&mut self, byte: u8, context: Context) {
        self.bytes.push(byte);
        self.contexts.push(context);
    }

    /// Seven bits a byte, the last group first, all but the last byte with their high bit.
    pub(super) fn varint(&mut self, mut number: u64, context: Context) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80, context);
            number >>= 7;
        }
        self.push(number as u8, context);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.raw_length += bytes.len();
        self.raw.push(bytes.to_vec());
    }

    /// Appends what `other` has.
    pub(super) fn append(&mut self, mut other: Written) {
        self.bytes.append(&mut other.bytes);
        self.contexts.append(&mut other.contexts);
        self.raw.append(&mut other.raw);
        self.raw_length += other.raw_length;
    }

    /// The raw part as it stands in the message.
    pub(super) fn raw_part(&self) -> impl Iterator<Item = &[u8]> {
        self.raw.iter().rev().map(Vec::as_slice)
    }
}

/// Where bytes are read from.
pub(super) struct Source<'a> {
    coded: Coded<'a>,
    /// The message without its header, as far as raw items have not been taken from it.
    message: &'a [u8],
    /// Raw items are not there: they read as zeros. So dictionaries are.
    is_bare: bool,
}

/// The coded part.
pub(super) enum Coded<'a> {
    /// As it stands, or was inflated; and how many bytes of the message it took, if that is known.
    Plain {
        /// The items, and for those that are read in place what follows them.
        items: Cow<'a, [u8]>,
        /// The length in the message; `None` if it is read in place.
        length: Option<usize>,
        /// How many were read.
        read: usize,
    },
    /// By the model.
    Model(Box<Decoder<'a>>),
}

impl<'a> Source<'a> {
    pub(super) fn new(coded: Coded<'a>, message: &'a [u8]) -> Self {
        Source { coded, message, is_bare: false }
    }

    /// Reads a sample of a dictionary.
    pub(super) fn bare(sample: &'a [u8]) -> Self {
        let coded = Coded::Plain { items: Cow::Borrowed(sample), length: None, read: 0 };
        Source { coded, message: sample, is_bare: true }
    }

    pub(super) fn byte(&mut self, context: Context) -> Result<u8, DecodeError> {
        match &mut self.coded {
            Coded::Plain { items, length, read } => {
                if length.is_none() && *read >= self.message.len() {
                    return Err(DecodeError::Truncated);
                }
                *read += 1;
                items.get(*read - 1).copied().ok_or(DecodeError::Truncated)
            }
            Coded::Model(decoder) => decoder.byte(context),
        }
    }

    /// The next byte of what is not coded.
    pub(super) fn peek(&self) -> Option<u8> {
        match &self.coded {
            Coded::Plain { items, read, .. } => items.get(*read).copied(),
            Coded::Model(_) => None,
        }
    }

    /// Takes the next raw item.
    pub(super) fn raw(&mut self, length: u64) -> Result<Vec<u8>, DecodeError> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        if self.is_bare {
            return if length <= 1 << 16 { Ok(vec![0; length]) } else { Err(DecodeError::Truncated) };
        }
        let at = self.message.len().checked_sub(length).ok_or(DecodeError::Truncated)?;
        let (rest, raw) = self.message.split_at(at);
        self.message = rest;
        Ok(raw.to_vec())
    }

    /// Expects that all was read.
    pub(super) fn end(self) -> Result<(), DecodeError> {
        let left = self.message.len();
        let length = match self.coded {
            Coded::Plain { length: Some(_), items, read } if read < items.len() => {
                return Err(DecodeError::Trailing);
            }
            Coded::Plain { length: Some(length), .. } => length,
            Coded::Plain { read, .. } => read,
            Coded::Model(decoder) => return decoder.end(left),
        };
        match length.cmp(&left) {
            std::cmp::Ordering::Less => Err(DecodeError::Trailing),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(DecodeError::Truncated),
        }
    }
}
