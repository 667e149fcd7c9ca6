//! Tables and dictionaries from recorded traffic: the same exchanges in the same order make the same, byte for byte.

mod counts;

pub use counts::Counts;
pub use counts::Row;
pub use counts::report;
pub use counts::table;

use crate::packed::dictionary::Dictionary;
use crate::packed::dictionary::Files;
use crate::packed::end::Encoded;
use crate::packed::samples;
use crate::packed::samples::Direction;

/// How many bytes a dictionary may have, and a sample of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// All samples.
    pub dictionary: usize,
    /// One sample's items: longer messages teach little more.
    pub sample: usize,
}

impl Default for Budget {
    /// 256 KiB, 4,000 bytes.
    fn default() -> Self {
        Budget { dictionary: 256 << 10, sample: 4000 }
    }
}

/// What a dictionary is made of, message by message.
#[derive(Debug, Default)]
pub struct Trainer {
    samples: Vec<(Weight, Vec<u8>)>,
}

/// How much a message matters. What matters most comes last: coder 1 looks back no further than 32 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// What is rare.
    Rare,
    /// What goes over the link all day.
    Steady,
}

impl Trainer {
    /// Begins with nothing.
    pub fn new() -> Self {
        Trainer::default()
    }

    /// Adds a request that was written by the coders of [`untrained`].
    pub fn add_request(&mut self, weight: Weight, sample: &Encoded) {
        self.add(weight, Direction::Request, 0, sample);
    }

    /// Adds a response that was written by the coders of [`untrained`].
    pub fn add_response(&mut self, weight: Weight, sample: &Encoded) {
        self.add(weight, Direction::Response, sample.asked.route, sample);
    }

    fn add(&mut self, weight: Weight, direction: Direction, route: u16, sample: &Encoded) {
        let Some((&header, rest)) = sample.payload.split_first() else { return };
        let items = rest.get(..sample.items).unwrap_or_default();
        let mut framed = Vec::new();
        samples::append(&mut framed, direction, header & 3, route, items);
        self.samples.push((weight, framed));
    }

    /// The dictionary: the latest of what matters most, as much of it as there is room for, in the order in which it was added.
    pub fn finish(mut self, budget: Budget) -> Vec<u8> {
        self.samples.retain(|(_, sample)| sample.len() <= budget.sample);
        self.samples.sort_by_key(|(weight, _)| *weight); // stable
        let mut left = budget.dictionary;
        let fits = |(_, sample): &&(Weight, Vec<u8>)| {
            left = left.saturating_sub(sample.len());
            left > 0
        };
        let kept = self.samples.iter().rev().take_while(fits).count();
        let skipped = self.samples.len() - kept;
        self.samples.into_iter().skip(skipped).flat_map(|(_, sample)| sample).collect()
    }
}

/// The tables that are built in, and no samples yet.
pub fn untrained() -> Dictionary {
    let files = Files { samples: Default::default(), ..Files::BUILT_IN };
    Dictionary::read(&files).expect("the built-in tables are read by a test").only(&[0])
}
