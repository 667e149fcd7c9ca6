//! Dictionaries from recorded traffic: the same exchanges in the same order make the same dictionary, byte for byte.

use crate::packed::coder::Coders;
use crate::packed::dictionary;
use crate::packed::dictionary::Direction;

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

    /// Adds a sample of a request.
    pub fn add_request(&mut self, sample: &Observed) {
        dictionary::append(&mut self.dictionary, Direction::Request, sample.flags, 0, &sample.items);
    }

    /// Adds a sample of a response.
    pub fn add_response(&mut self, sample: &Observed) {
        dictionary::append(&mut self.dictionary, Direction::Response, sample.flags, sample.route, &sample.items);
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

/// The items of a message, as coders see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub(super) flags: u8,
    pub(super) route: u16,
    pub(super) items: Vec<u8>,
}

/// Coders that know nothing yet, for what is observed.
pub fn untrained() -> Coders {
    Coders::new(&[]).expect("nothing is no damaged dictionary").only(&[0])
}
