//! Coders: what becomes of the coded items on the link. The header of a message says which was used.
//!
//! | number | coder |
//! |---|---|
//! | 0 | none |
//! | 1 | raw DEFLATE (RFC 1951), the dictionary before it |
//! | 2 | the model of `model`, primed with the dictionary |
//!
//! The encoder takes the one that makes the fewest bytes. What goes beside the coded part, none of them sees.

mod deflate;
mod interval;
mod lines;
mod mixer;
pub(super) mod model;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::packed::dictionary::DictionaryError;
use crate::packed::error::DecodeError;
use crate::packed::message::Limits;
use crate::packed::samples;
use crate::packed::samples::Sample;
use crate::packed::stream::Coded;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::stream::Source;
use crate::packed::stream::Written;
use crate::packed::tables::Tables;

/// What a message says before its items.
///
/// Coders 0 and 1 have it in a byte; the model codes it: a message that begins with a byte of [`FIRST`] or more is the model's.
///
/// ```text
///    7 6 5 4 3 2 1 0
///   +---+-+-----+-+-+
///   |0 0|c|epoch|b|s|   c: coder 0 or 1
///   +---+-+-----+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The last three bits of the epoch.
    pub(super) epoch: u8,
    /// What stands before the items.
    pub(super) flags: u8,
    /// What the message is, to the model.
    pub(super) name: u16,
}

impl Header {
    /// Of how many items the model may be used.
    fn most_of_model(&self) -> usize {
        if self.name == 0 { MODEL_ITEMS_OF_REQUEST } else { MODEL_ITEMS }
    }

    /// What the model is told of the flags.
    pub(super) fn context(&self) -> Context {
        Context { role: Role::Header, name: self.name, parent: 0 }
    }
}

/// The model's messages begin with this or more.
const FIRST: u8 = 1 << 6;

const NONE: u8 = 0;
const DEFLATE: u8 = 1;
const MODEL: u8 = 2;

/// The model takes as long for each byte as other coders do for hundreds, and a few bytes may stand for many; so it is not for messages of
/// more items than these. A gateway has many peers, and does not let any of them keep it for long.
pub(super) const MODEL_ITEMS: usize = 64 << 10;
pub(super) const MODEL_ITEMS_OF_REQUEST: usize = 8 << 10;

/// The coders of a dictionary.
pub(super) struct Coders {
    /// The items of its samples, for coder 1.
    text: Vec<u8>,
    samples: Vec<Sample>,
    /// Made when it is first of use, or by a [`Primer`]: it takes a while.
    model: OnceLock<model::Model>,
    is_priming: AtomicBool,
}

impl Coders {
    /// All of them.
    pub(super) const ALL: &'static [u8] = &[NONE, DEFLATE, MODEL];

    /// Those with these samples.
    pub(super) fn new(samples: &[u8], tables: &Tables) -> Result<Self, DictionaryError> {
        let samples = samples::read(samples, tables)?;
        Ok(Coders {
            text: deflate::text(&samples),
            samples,
            model: OnceLock::new(),
            is_priming: AtomicBool::new(false),
        })
    }

    /// How many samples there are.
    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    fn model(&self) -> &model::Model {
        self.model.get_or_init(|| model::Model::primed(&self.samples))
    }

    /// Makes the model ready, which keeps the thread for a while.
    pub(super) fn prime(&self) {
        self.model();
    }

    /// Says whether somebody makes the model ready. Until that is done, nothing is written with the model, so that nobody waits for it.
    pub(super) fn set_priming(&self, is_priming: bool) {
        self.is_priming.store(is_priming, Ordering::Relaxed);
    }

    /// Whether a message is to wait for the model, which is being made ready; reading it would wait as well.
    pub(super) fn awaits_model(&self, message: &[u8]) -> bool {
        self.is_busy() && message.first().is_some_and(|first| *first >= FIRST)
    }

    fn is_busy(&self) -> bool {
        self.is_priming.load(Ordering::Relaxed) && self.model.get().is_none()
    }

    /// A message by that of the `allowed` coders which makes the fewest bytes: the header, the coded items, the raw items.
    pub(super) fn code(&self, allowed: &[u8], header: Header, written: &Written) -> Vec<u8> {
        let coded = allowed.iter().filter_map(|coder| self.coded(*coder, header, written));
        let mut message =
            coded.min_by_key(Vec::len).unwrap_or_else(|| in_front(NONE, header, &written.bytes));
        written.raw_part().for_each(|raw| message.extend_from_slice(raw));
        message
    }

    fn coded(&self, coder: u8, header: Header, written: &Written) -> Option<Vec<u8>> {
        match coder {
            NONE => Some(in_front(NONE, header, &written.bytes)),
            DEFLATE => Some(in_front(DEFLATE, header, &deflate::deflate(&self.text, &written.bytes)?)),
            MODEL if written.bytes.len() <= header.most_of_model() && !self.is_busy() => {
                Some(self.model().encode(header, written))
            }
            _ => None,
        }
    }

    /// Opens a message for reading, of which no more items are produced than the limits allow. `name` is what it is to the model.
    pub(super) fn open<'a>(
        &'a self,
        message: &'a [u8],
        name: u16,
        limits: Limits,
    ) -> Result<(Header, Source<'a>), DecodeError> {
        let (&first, rest) = message.split_first().ok_or(DecodeError::Truncated)?;
        if first >= FIRST {
            let mut decoder = self.model().decoder(message, limits.model.min(limits.output));
            let header = decoder.header(name)?;
            return Ok((header, Source::new(Coded::Model(Box::new(decoder)), message)));
        }
        let header = Header { epoch: first >> 2 & 7, flags: first & 3, name };
        let coded = match first >> 5 {
            NONE => Coded::Plain { items: Cow::Borrowed(rest), length: None, read: 0 },
            _ => {
                let (items, length) = deflate::inflate(&self.text, rest, limits.output)?;
                Coded::Plain { items: Cow::Owned(items), length: Some(length), read: 0 }
            }
        };
        Ok((header, Source::new(coded, rest)))
    }
}

/// A coded part with the header in front of it.
fn in_front(coder: u8, header: Header, coded: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 + coded.len());
    message.push(coder << 5 | header.epoch << 2 | header.flags);
    message.extend_from_slice(coded);
    message
}
