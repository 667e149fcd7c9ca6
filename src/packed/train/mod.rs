//! Dictionaries from recorded traffic: the same exchanges in the same order make the same, byte for byte.
//!
//! First [`Counts`] says which tables there should be; then messages are written by these without a coder, and [`Trainer`] keeps those that
//! become samples. `measure::training` leads a recording through both.

mod counts;
mod uses;

use std::collections::VecDeque;

pub use counts::Counts;
pub use uses::Row;
pub use uses::Uses;

use crate::packed::dictionary::Dictionary;
use crate::packed::dictionary::Files;
use crate::packed::end::Encoded;
use crate::packed::error::DecodeError;
use crate::packed::samples;
use crate::packed::samples::Direction;

/// How many bytes samples may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// All of them.
    pub samples: usize,
    /// One's items: longer messages teach little more.
    pub sample: usize,
}

impl Default for Budget {
    /// 256 KiB, 4,000 bytes.
    fn default() -> Self {
        Budget { samples: 256 << 10, sample: 4000 }
    }
}

/// Samples, message by message, and what the messages use.
#[derive(Debug)]
pub struct Trainer {
    dictionary: Dictionary,
    budget: Budget,
    /// What is rare, and what goes over the link all day. This comes last: coder 1 looks back no further than 32 KiB.
    rare: Samples,
    steady: Samples,
    uses: Uses,
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// What is rare.
    Rare,
    /// What goes over the link all day.
    Steady,
}

/// The latest samples that there is room for.
#[derive(Debug, Default)]
struct Samples {
    samples: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A message's items, and what they are to be read by.
#[derive(Debug, Clone, Copy)]
struct Items<'a> {
    direction: Direction,
    flags: u8,
    route: u16,
    bytes: &'a [u8],
}

/// What matters most is dealt out in as many turns: coders know best what they saw last, and that should not be one client's evening.
const TURNS: usize = 8;

impl Trainer {
    /// Begins with these tables.
    pub fn new(untrained: &Dictionary, budget: Budget) -> Self {
        let (rare, steady) = (Samples::default(), Samples::default());
        Trainer { dictionary: untrained.clone(), budget, rare, steady, uses: Uses::new() }
    }

    /// Adds a request of an association that was written by the tables without a coder.
    ///
    /// # Errors
    /// One that was written by others.
    pub fn add_request(
        &mut self,
        association: u32,
        weight: Weight,
        message: &Encoded,
    ) -> Result<(), DecodeError> {
        self.add(association, weight, &Items::of(Direction::Request, 0, message))
    }

    /// Adds a response likewise.
    ///
    /// # Errors
    /// One that was written by others.
    pub fn add_response(
        &mut self,
        association: u32,
        weight: Weight,
        message: &Encoded,
    ) -> Result<(), DecodeError> {
        self.add(association, weight, &Items::of(Direction::Response, message.asked.route, message))
    }

    fn add(&mut self, association: u32, weight: Weight, items: &Items<'_>) -> Result<(), DecodeError> {
        self.uses.add(association, items, self.dictionary.tables())?;
        if items.bytes.is_empty() {
            return Ok(());
        }
        let mut sample = Vec::new();
        samples::append(&mut sample, items.direction, items.flags, items.route, items.bytes);
        if sample.len() <= self.budget.sample {
            match weight {
                Weight::Rare => self.rare.push(sample, self.budget.samples),
                Weight::Steady => self.steady.push(sample, self.budget.samples),
            }
        }
        Ok(())
    }

    /// What the messages have used.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// The samples: the latest of what matters most, then the latest of the rest, as many as there is room for.
    pub fn finish(mut self) -> Vec<u8> {
        let left = self.budget.samples - self.steady.bytes;
        self.rare.keep(left);
        let steady = self.steady.samples.iter();
        let mixed = (0..TURNS).flat_map(|turn| steady.clone().skip(turn).step_by(TURNS));
        self.rare.samples.iter().chain(mixed).flatten().copied().collect()
    }
}

impl Samples {
    fn push(&mut self, sample: Vec<u8>, most: usize) {
        self.bytes += sample.len();
        self.samples.push_back(sample);
        self.keep(most);
    }

    /// Forgets the oldest, until there are no more bytes than these.
    fn keep(&mut self, most: usize) {
        while self.bytes > most {
            let Some(oldest) = self.samples.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }
}

impl<'a> Items<'a> {
    fn of(direction: Direction, route: u16, message: &'a Encoded) -> Self {
        let (header, rest) = message.payload.split_first().unwrap_or((&0, &[]));
        let bytes = rest.get(..message.items).unwrap_or_default();
        Items { direction, flags: header & 3, route, bytes }
    }
}

/// The tables that are built in, and no samples yet: what is written with it has no coder.
pub fn untrained() -> Dictionary {
    without_samples(&Files::BUILT_IN)
}

/// The same with tables of [`Counts`].
///
/// # Panics
/// Where the tables are none.
pub fn without_samples(tables: &Files<'_>) -> Dictionary {
    let files = Files { samples: Default::default(), ..tables.clone() };
    Dictionary::read(&files).expect("the tables are sound").only(&[0])
}
