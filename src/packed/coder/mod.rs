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
use std::sync::LazyLock;
use std::sync::OnceLock;

use sha2::Digest;
use sha2::Sha256;

use crate::packed::dictionary;
use crate::packed::dictionary::Sample;
use crate::packed::error::DecodeError;
use crate::packed::stream::Coded;
use crate::packed::stream::Source;
use crate::packed::stream::Written;

const NONE: u8 = 0;
const DEFLATE: u8 = 1;
const MODEL: u8 = 2;

/// The model takes microseconds for each byte, so it is not for messages of more items than these.
const MODEL_ITEMS: usize = 64 << 10;

static BUILT_IN: LazyLock<Coders> =
    LazyLock::new(|| Coders::new(dictionary::BUILT_IN).expect("the dictionary is read by a test"));

/// The coders, with a dictionary.
pub struct Coders {
    /// The items of the dictionary's samples, for coder 1.
    text: Vec<u8>,
    samples: Vec<Sample>,
    /// Made when it is first of use: it takes a while.
    model: OnceLock<model::Model>,
    hash: [u8; 32],
    allowed: Vec<u8>,
}

impl Coders {
    /// Those with the dictionary that is built in.
    pub fn built_in() -> &'static Coders {
        &BUILT_IN
    }

    /// Those with another dictionary.
    pub fn new(dictionary: &[u8]) -> Result<Self, DecodeError> {
        let samples = dictionary::read(dictionary)?;
        let mut hash = Sha256::new();
        hash.update(dictionary);
        Ok(Coders {
            text: deflate::text(&samples),
            hash: hash.finalize().into(),
            samples,
            model: OnceLock::new(),
            allowed: vec![NONE, DEFLATE, MODEL],
        })
    }

    /// The same, with these coders alone for what is written.
    pub fn only(mut self, allowed: &[u8]) -> Self {
        self.allowed = allowed.to_vec();
        self
    }

    /// The SHA-256 of the dictionary: what the two ends compare when the association begins.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    fn model(&self) -> &model::Model {
        self.model.get_or_init(|| model::Model::primed(&self.samples))
    }

    /// A message: the header with `flags`, the coded items, the raw items.
    pub(super) fn code(&self, flags: u8, written: &Written) -> Vec<u8> {
        let coded = self.allowed.iter().filter_map(|coder| Some((*coder, self.coded(*coder, written)?)));
        let (coder, coded) =
            coded.min_by_key(|(_, coded)| coded.len()).unwrap_or_else(|| (NONE, written.bytes.clone()));
        let mut message = Vec::with_capacity(1 + coded.len() + written.raw_length);
        message.push(flags | coder << 6);
        message.extend_from_slice(&coded);
        written.raw_part().for_each(|raw| message.extend_from_slice(raw));
        message
    }

    fn coded(&self, coder: u8, written: &Written) -> Option<Vec<u8>> {
        match coder {
            NONE => Some(written.bytes.clone()),
            DEFLATE => deflate::deflate(&self.text, &written.bytes),
            MODEL if written.bytes.len() <= MODEL_ITEMS => Some(self.model().encode(written)),
            _ => None,
        }
    }

    /// Opens a message for reading, of which no more than `limit` bytes of items are produced.
    pub(super) fn open<'a>(
        &'a self,
        coder: u8,
        message: &'a [u8],
        limit: usize,
    ) -> Result<Source<'a>, DecodeError> {
        let coded = match coder {
            NONE => Coded::Plain { items: Cow::Borrowed(message), length: None, read: 0 },
            DEFLATE => {
                let (items, length) = deflate::inflate(&self.text, message, limit)?;
                Coded::Plain { items: Cow::Owned(items), length: Some(length), read: 0 }
            }
            MODEL => Coded::Model(Box::new(self.model().decoder(message, limit.min(MODEL_ITEMS)))),
            _ => return Err(DecodeError::UnknownCoder(coder)),
        };
        Ok(Source::new(coded, message))
    }
}

impl std::fmt::Debug for Coders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Coders").field("hash", &self.hash).finish_non_exhaustive()
    }
}
