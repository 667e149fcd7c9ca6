//! Dictionaries from recorded traffic: the same exchanges in the same order make the same dictionary, byte for byte.

use crate::packed::coder::Coders;
use crate::packed::dictionary;
use crate::packed::dictionary::Direction;
use crate::packed::end::Encoded;

/// What a dictionary is made of, message by message.
#[derive(Debug, Default)]
pub struct Trainer {
    dictionary: Vec<u8>,
}

impl Trainer {
    /// Begins with nothing.
    pub fn new() -> Self {
        Trainer::default()
    }

    /// Adds a request that was written by the coders of [`untrained`].
    pub fn add_request(&mut self, sample: &Encoded) {
        self.add(Direction::Request, 0, sample);
    }

    /// Adds a response that was written by the coders of [`untrained`].
    pub fn add_response(&mut self, sample: &Encoded) {
        self.add(Direction::Response, sample.asked.route, sample);
    }

    fn add(&mut self, direction: Direction, route: u16, sample: &Encoded) {
        let Some((&header, rest)) = sample.payload.split_first() else { return };
        let items = rest.get(..sample.items).unwrap_or_default();
        dictionary::append(&mut self.dictionary, direction, header, route, items);
    }

    /// How many bytes there are.
    pub fn length(&self) -> usize {
        self.dictionary.len()
    }

    /// The dictionary.
    pub fn finish(self) -> Vec<u8> {
        self.dictionary
    }
}

/// Coders that know nothing yet, for what is observed.
pub fn untrained() -> Coders {
    Coders::new(&[]).expect("nothing is no damaged dictionary").only(&[0])
}
