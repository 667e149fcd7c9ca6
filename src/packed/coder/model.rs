//! Coder 2: each bit is predicted from what stands around it, and coded in as many bits as it is a surprise.
//!
//! Contexts say what has come of them before: in the dictionary, and in the message so far. Their guesses are mixed by weights
//! that are learned, too. Everything is integers, so that both ends predict the same; the arithmetic coder turns predictions into
//! bytes. A message changes nothing for the next: each begins with what the dictionary taught.

use crate::packed::coder::Header;
use crate::packed::coder::interval::Interval;
use crate::packed::coder::lines::Line;
use crate::packed::coder::lines::Lines;
use crate::packed::coder::lines::Places;
use crate::packed::coder::mixer::INPUTS;
use crate::packed::coder::mixer::Mixer;
use crate::packed::coder::mixer::Stretch;
use crate::packed::coder::mixer::Weights;
use crate::packed::coder::mixer::squash;
use crate::packed::coder::slot;
use crate::packed::dictionary::Sample;
use crate::packed::error::DecodeError;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::stream::Written;

/// How many contexts guess: twice each; there are two more guesses of the match, and one that is always the same.
const CONTEXTS: usize = 12;
const OF_MATCH: usize = 2 * CONTEXTS;
const ALWAYS: usize = OF_MATCH + 2;
const _: () = assert!(ALWAYS < INPUTS);

/// The lines of all contexts together are 2 to the power of this.
const LINE_BITS: u32 = 18;

/// What the dictionary taught.
pub(in crate::packed) struct Model {
    lines: Vec<Line>,
    weights: [Vec<Weights>; 3],
    stretch: Stretch,
    /// All bytes of the dictionary, and where each hash of the last bytes was followed last.
    history: Vec<u8>,
    places: Vec<u32>,
}

/// By the role, by the bits before, by the member.
type Mixers<'a> = [Mixer<'a>; 3];

/// For how many situations each has weights.
const SETS: [u16; 3] = [16 * 4, 256, 1024];

/// A prediction in progress: the message so far.
struct Predictor<'a> {
    lines: Lines<'a>,
    mixers: Mixers<'a>,
    stretch: &'a Stretch,
    /// The dictionary's bytes, and the message's.
    taught: &'a [u8],
    bytes: Vec<u8>,
    places: Places<'a>,
    /// The place whose byte is expected next, and how many bytes agreed before it.
    expected: Option<usize>,
    agreed: u32,
    /// The byte's hashes of contexts.
    hashes: [u32; CONTEXTS],
    context: Context,
    /// The bits of the byte so far, after a leading 1.
    partial: u32,
    guesses: Weights,
    /// The lines of the half byte that is being predicted: where they are, part of their hashes, and what is in them.
    used: [(u32, u8); CONTEXTS],
    open: [Line; CONTEXTS],
    /// The last bytes, the latest lowest.
    last: u64,
    /// The last bytes that were codes, and the word so far.
    codes: u32,
    word: u32,
}

impl Model {
    /// Learns from samples, in their order.
    pub(super) fn primed(samples: &[Sample]) -> Self {
        let stretch = Stretch::new();
        let (lines, places) = (Lines::new(1 << LINE_BITS), Places::new(1 << PLACE_BITS));
        let mut predictor = Predictor::new(lines, SETS.map(Mixer::new), &stretch, &[], places);
        for sample in samples {
            predictor.begin();
            for (byte, context) in &sample.items {
                predictor.at(*context);
                for bit in (0..8).rev() {
                    predictor.predict();
                    predictor.learn(byte >> bit & 1 == 1);
                }
                predictor.end_byte();
            }
        }
        let Predictor { lines, mixers, bytes: history, places, .. } = predictor;
        let (lines, places) = (lines.into_lines(), places.into_places());
        Model { lines, weights: mixers.map(Mixer::into_sets), stretch, history, places }
    }

    fn message(&self) -> Predictor<'_> {
        let mixers = self.weights.each_ref().map(|sets| Mixer::over(sets));
        let (lines, places) = (Lines::over(&self.lines), Places::over(&self.places));
        Predictor::new(lines, mixers, &self.stretch, &self.history, places)
    }

    /// Codes what was written.
    pub(super) fn encode(&self, header: Header, written: &Written) -> Vec<u8> {
        let mut predictor = self.message();
        let (mut interval, mut out) = (Interval::new(), Vec::new());
        for bit in (0..3).rev() {
            interval.narrow(EVEN, header.epoch >> bit & 1 == 1);
        }
        let items = written.bytes.iter().zip(&written.contexts);
        for (byte, context) in std::iter::once((&header.flags, &header.context())).chain(items) {
            predictor.at(*context);
            for bit in (0..8).rev() {
                let probability = predictor.predict();
                let bit = byte >> bit & 1 == 1;
                interval.narrow(probability, bit);
                while let Some(byte) = interval.shift() {
                    out.push(byte);
                }
                predictor.learn(bit);
            }
            predictor.end_byte();
        }
        out.extend(interval.finish(written.raw_length == 0));
        out
    }

    /// Begins to decode a message of which no more than `limit` bytes of items are wanted.
    pub(super) fn decoder<'a>(&'a self, message: &'a [u8], limit: usize) -> Decoder<'a> {
        let mut decoder = Decoder {
            predictor: self.message(),
            interval: Interval::new(),
            message,
            read: 0,
            shifted: 0,
            value: 0,
            left: limit,
            limit,
        };
        for _ in 0..4 {
            decoder.take();
        }
        decoder
    }
}

/// The probability of what is as likely as not.
const EVEN: u32 = 1 << 15;

/// Reads what [`Model::encode`] wrote.
pub(in crate::packed) struct Decoder<'a> {
    predictor: Predictor<'a>,
    interval: Interval,
    message: &'a [u8],
    read: usize,
    /// How many bytes the encoder had put out by now.
    shifted: usize,
    value: u32,
    left: usize,
    limit: usize,
}

impl Decoder<'_> {
    /// Reads what other coders have in a byte in front.
    pub(super) fn header(&mut self, name: u16) -> Result<Header, DecodeError> {
        let mut header = Header { epoch: 0, flags: 0, name };
        for _ in 0..3 {
            let bit = self.value <= self.interval.middle(EVEN);
            self.interval.narrow(EVEN, bit);
            header.epoch = header.epoch << 1 | u8::from(bit);
        }
        // The header is none of the items.
        self.left = self.left.saturating_add(1);
        header.flags = self.byte(header.context())?;
        if header.flags > 3 { Err(DecodeError::Damaged) } else { Ok(header) }
    }

    pub(in crate::packed) fn byte(&mut self, context: Context) -> Result<u8, DecodeError> {
        self.left = self.left.checked_sub(1).ok_or(DecodeError::Model { limit: self.limit })?;
        if self.shifted > self.message.len() {
            return Err(DecodeError::Truncated);
        }
        self.predictor.at(context);
        let mut byte = 0;
        for _ in 0..8 {
            let probability = self.predictor.predict();
            let bit = self.value <= self.interval.middle(probability);
            self.interval.narrow(probability, bit);
            while self.interval.shift().is_some() {
                self.shifted += 1;
                self.take();
            }
            self.predictor.learn(bit);
            byte = byte << 1 | u8::from(bit);
        }
        self.predictor.end_byte();
        Ok(byte)
    }

    /// Expects that the encoder would have put out as many bytes as are `left` without the raw items.
    pub(in crate::packed) fn end(self, left: usize) -> Result<(), DecodeError> {
        let rest = self.interval.finish(left == self.message.len());
        let expected = self.shifted + rest.len();
        match expected.cmp(&left) {
            std::cmp::Ordering::Less => Err(DecodeError::Trailing),
            std::cmp::Ordering::Greater => Err(DecodeError::Truncated),
            std::cmp::Ordering::Equal if self.message.get(self.shifted..expected) == Some(&rest) => Ok(()),
            std::cmp::Ordering::Equal => Err(DecodeError::Damaged),
        }
    }

    /// Takes the next byte; after the end, zeros.
    fn take(&mut self) {
        self.value = self.value << 8 | self.message.get(self.read).copied().map_or(0, u32::from);
        self.read += 1;
    }
}

/// The hashes that lead to places are of this many bits, of this many bytes.
const PLACE_BITS: u32 = 18;
const PLACE_BYTES: usize = 4;

impl<'a> Predictor<'a> {
    fn new(
        lines: Lines<'a>,
        mixers: Mixers<'a>,
        stretch: &'a Stretch,
        taught: &'a [u8],
        places: Places<'a>,
    ) -> Self {
        Predictor {
            lines,
            mixers,
            stretch,
            taught,
            bytes: Vec::new(),
            places,
            expected: None,
            agreed: 0,
            hashes: [0; CONTEXTS],
            context: Context::default(),
            partial: 1,
            guesses: [0; INPUTS],
            used: [(0, 0); CONTEXTS],
            open: [Line::default(); CONTEXTS],
            last: 0,
            codes: 0,
            word: 0,
        }
    }

    /// Forgets the message before: the next one begins.
    fn begin(&mut self) {
        (self.codes, self.word, self.expected, self.agreed) = (0, 0, None, 0);
        self.bytes.extend_from_slice(&[0; PLACE_BYTES]);
        self.last <<= 8 * PLACE_BYTES;
    }

    /// Begins a byte.
    fn at(&mut self, context: Context) {
        let [one, two, three, four, five, six] = self.last();
        let role = u32::from(context.role as u8);
        let name = u32::from(context.name);
        let parent = u32::from(context.parent);
        let is_text = context.role == Role::Text;
        let codes = self.codes;
        self.hashes = [
            hash(1, &[role]),
            hash(2, &[role, name]),
            hash(3, &[role, name, parent]),
            hash(4, &[role, name, one]),
            hash(5, &[role, name, one, two]),
            hash(6, &[role, name, parent, codes & 0xff_ffff]),
            hash(7, &[role, one, two, three]),
            hash(8, &[role, one, two, three, four]),
            hash(9, &[one, two, three, four, five, six]),
            hash(10, &[if is_text { self.word } else { codes }, role]),
            hash(11, &[role, name, if is_text { self.word ^ one } else { codes & 0xffff }]),
            hash(12, &[role, one, two]),
        ];
        self.context = context;
        self.partial = 1;
        self.open_lines();
    }

    /// Takes out the lines of the next four bits.
    #[expect(clippy::indexing_slicing, reason = "for each half byte; the arrays have one for each context")]
    fn open_lines(&mut self) {
        self.lines.reserve(CONTEXTS);
        let mut context = 0;
        while context < CONTEXTS {
            let half = self.partial.wrapping_mul(0x9e37_79b1);
            let mixed = (self.hashes[context] ^ half).wrapping_mul(0x2c1b_3c6d);
            let mixed = mixed ^ mixed >> 15;
            let (place, line) = self.lines.open(mixed >> (32 - LINE_BITS));
            (self.used[context], self.open[context]) = ((place, mixed as u8), line);
            context += 1;
        }
    }

    /// Puts back the lines that were taken out; of two that are the same one the later.
    fn close_lines(&mut self) {
        for ((place, _), open) in self.used.iter().zip(&self.open) {
            self.lines.close(*place, open);
        }
    }

    /// Where the next bit has its slot in each of the lines.
    fn place(&self) -> usize {
        let seen = 31 - self.partial.leading_zeros();
        let seen = if seen < 4 { seen } else { seen - 4 };
        (self.partial & ((1 << seen) - 1) | 1 << seen) as usize
    }

    /// The probability that the next bit is 1, of 65536.
    #[expect(
        clippy::indexing_slicing,
        reason = "for each bit; there are two guesses for each context, and more"
    )]
    fn predict(&mut self) -> u32 {
        let place = self.place();
        let mut context = 0;
        while context < CONTEXTS {
            let slot = self.open[context][place];
            let probability = slot::probability(slot, self.used[context].1);
            let known =
                probability.map(|probability| (self.stretch.of(probability), slot::lean(probability)));
            let (odds, lean) = known.unwrap_or((0, 0));
            (self.guesses[2 * context], self.guesses[2 * context + 1]) = (odds, lean);
            context += 1;
        }
        let (strength, bucket) = self.match_strength();
        self.guesses[OF_MATCH] = strength;
        self.guesses[OF_MATCH + 1] = if bucket == 3 { strength } else { 0 };
        self.guesses[ALWAYS] = 256;
        let role = usize::from(self.context.role as u8);
        let [by_role, by_bits, by_name] = &mut self.mixers;
        let odds = by_role.mix(&self.guesses, role * 4 + bucket)
            + by_bits.mix(&self.guesses, self.partial as usize & 0xff)
            + by_name.mix(&self.guesses, usize::from(self.context.name) & 0x3ff);
        let probability = squash(odds / 3) as u32;
        (probability << 4).clamp(16, 0xffff - 16)
    }

    /// How much the byte that followed the same bytes before speaks for the next bit, and how long ago they parted.
    fn match_strength(&self) -> (i32, usize) {
        let Some(expected) = self.expected.and_then(|place| self.byte_at(place)) else { return (0, 0) };
        let seen = 32 - self.partial.leading_zeros() - 1;
        let expected = u32::from(expected) | 0x100;
        if expected >> (8 - seen) != self.partial {
            return (0, 0);
        }
        let strength = (64 * self.agreed.min(24)) as i32;
        let bucket = if self.agreed > 15 {
            3
        } else if self.agreed > 7 {
            2
        } else {
            1
        };
        let is_one = expected >> (7 - seen) & 1 == 1;
        (if is_one { strength } else { -strength }, bucket)
    }

    #[expect(clippy::indexing_slicing, reason = "for each bit; the arrays have one for each context")]
    fn learn(&mut self, bit: bool) {
        let [by_role, by_bits, by_name] = &mut self.mixers;
        by_role.learn(&self.guesses, bit);
        by_bits.learn(&self.guesses, bit);
        by_name.learn(&self.guesses, bit);
        let place = self.place();
        let mut context = 0;
        while context < CONTEXTS {
            let slot = self.open[context][place];
            self.open[context][place] = slot::learned(slot, self.used[context].1, bit);
            context += 1;
        }
        self.partial = self.partial << 1 | u32::from(bit);
        match self.partial {
            0x10..0x20 => {
                self.close_lines();
                self.open_lines();
            }
            0x100.. => self.close_lines(),
            _ => {}
        }
    }

    /// Ends the byte whose eight bits were learned.
    fn end_byte(&mut self) {
        let byte = self.partial as u8;
        let followed = self.expected.and_then(|place| self.byte_at(place)) == Some(byte);
        self.bytes.push(byte);
        self.last = self.last << 8 | u64::from(byte);
        (self.expected, self.agreed) = match self.expected {
            Some(place) if followed => (Some(place + 1), self.agreed + 1),
            _ => (None, 0),
        };
        match self.context.role {
            Role::Value | Role::Name => (self.codes, self.word) = (self.codes << 8 | u32::from(byte), 0),
            Role::Text if byte.is_ascii_alphanumeric() || byte >= 0x80 => {
                self.word = (self.word ^ u32::from(byte.to_ascii_lowercase()))
                    .wrapping_mul(0x0100_0193)
                    .rotate_left(5);
            }
            _ => self.word = 0,
        }
        self.find();
    }

    /// Looks for the last bytes further back.
    fn find(&mut self) {
        let [one, two, three, four, ..] = self.last();
        let hash = (one | two << 8 | three << 16 | four << 24).wrapping_mul(0x9e37_79b1) >> (32 - PLACE_BITS);
        let here = self.taught.len() + self.bytes.len();
        let before = self.places.replace(hash, here);
        if let Some(place) = before.filter(|_| self.expected.is_none()) {
            let agreed = self.agreement(place, here);
            if agreed >= PLACE_BYTES as u32 {
                (self.expected, self.agreed) = (Some(place), agreed);
            }
        }
    }

    /// How many bytes before two places are the same, up to 32.
    fn agreement(&self, one: usize, other: usize) -> u32 {
        let pairs = (1..=32).take_while(|back| {
            let (one, other) = (one.checked_sub(*back), other.checked_sub(*back));
            one.is_some() && one.and_then(|at| self.byte_at(at)) == other.and_then(|at| self.byte_at(at))
        });
        pairs.count() as u32
    }

    fn byte_at(&self, place: usize) -> Option<u8> {
        match place.checked_sub(self.taught.len()) {
            None => self.taught.get(place).copied(),
            Some(place) => self.bytes.get(place).copied(),
        }
    }

    /// The last six bytes of the message, the latest first.
    fn last(&self) -> [u32; 6] {
        let [.., six, five, four, three, two, one] = self.last.to_be_bytes();
        [one, two, three, four, five, six].map(u32::from)
    }
}

/// The hash of what stands around a byte.
#[expect(clippy::indexing_slicing, reason = "for each byte; the place is below the length")]
fn hash(number: u32, parts: &[u32]) -> u32 {
    let mut hash = number.wrapping_mul(0x9e37_79b1);
    let mut at = 0;
    while at < parts.len() {
        hash = (hash ^ parts[at]).wrapping_mul(0x85eb_ca6b).rotate_left(13).wrapping_add(0x27d4_eb2f);
        at += 1;
    }
    hash
}
