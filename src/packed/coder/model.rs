//! Coder 2: each bit is predicted from what stands around it, and coded in as many bits as it is a surprise.
//!
//! Contexts say what has come of them before: in the dictionary, and in the message so far. Their guesses are mixed by weights
//! that are learned, too. Everything is integers, so that both ends predict the same; the arithmetic coder turns predictions into
//! bytes. A message changes nothing for the next: each begins with what the dictionary taught.

use std::collections::BTreeMap;

use crate::packed::coder::Header;
use crate::packed::coder::interval::Interval;
use crate::packed::coder::lines::Changes;
use crate::packed::coder::lines::Line;
use crate::packed::coder::lines::Lines;
use crate::packed::coder::lines::Places;
use crate::packed::coder::mixer::Mixer;
use crate::packed::coder::mixer::Stretch;
use crate::packed::coder::mixer::squash;
use crate::packed::error::DecodeError;
use crate::packed::samples::Sample;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::stream::Written;

/// How many contexts guess, and how many guesses they make: two each, two of the match, and one that is always the same; one is left over, for
/// fours are quicker.
const CONTEXTS: usize = 12;
const INPUTS: usize = 2 * CONTEXTS + 4;

/// The lines of all contexts together are 2 to the power of this.
const LINE_BITS: u32 = 18;

/// How often a context must have been seen to move no more slowly.
const LIMIT: u32 = 255;

/// What the dictionary taught.
pub(in crate::packed) struct Model {
    lines: Vec<Line>,
    mixers: Mixers,
    stretch: Stretch,
    /// All bytes of the dictionary, and where each hash of the last bytes was followed last.
    history: Vec<u8>,
    places: Vec<u32>,
}

#[derive(Clone)]
struct Mixers {
    by_role: Mixer,
    by_bits: Mixer,
    by_name: Mixer,
}

/// A prediction in progress: the message so far.
struct Predictor<'a> {
    lines: Lines<'a>,
    mixers: Mixers,
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
    guesses: [i32; INPUTS],
    /// The lines of the half byte that is being predicted: their numbers, part of their hashes, and what is in them.
    used: [(u32, u8); CONTEXTS],
    open: [Line; CONTEXTS],
    /// The last bytes that were codes, and the word so far.
    codes: u32,
    word: u32,
}

impl Model {
    /// Learns from samples, in their order.
    pub(super) fn primed(samples: &[Sample]) -> Self {
        let mixers = Mixers {
            by_role: Mixer::new(INPUTS, 16 * 4, 20 << 10, 6),
            by_bits: Mixer::new(INPUTS, 256, 20 << 10, 6),
            by_name: Mixer::new(INPUTS, 1024, 20 << 10, 6),
        };
        let lines = Lines::Own(vec![Line::default(); 1 << LINE_BITS]);
        let stretch = Stretch::new();
        let mut predictor =
            Predictor::new(lines, mixers, &stretch, &[], Places::Own(vec![0; 1 << PLACE_BITS]));
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
        let (Lines::Own(lines), Places::Own(places)) = (lines, places) else {
            unreachable!("what is owned from the start stays so")
        };
        Model { lines, mixers, stretch, history, places }
    }

    fn message(&self) -> Predictor<'_> {
        let lines = Lines::Over(&self.lines, Changes::new());
        let places = Places::Over(&self.places, BTreeMap::new());
        Predictor::new(lines, self.mixers.clone(), &self.stretch, &self.history, places)
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
        mixers: Mixers,
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
            codes: 0,
            word: 0,
        }
    }

    /// Forgets the message before: the next one begins.
    fn begin(&mut self) {
        (self.codes, self.word, self.expected, self.agreed) = (0, 0, None, 0);
        self.bytes.extend_from_slice(&[0; PLACE_BYTES]);
    }

    /// Begins a byte.
    fn at(&mut self, context: Context) {
        let [one, two, three, four, five, six] = self.last();
        let role = u32::from(context.role as u8);
        let name = u32::from(context.name);
        let parent = u32::from(context.parent);
        let is_text = context.role == Role::Text;
        let codes = self.codes;
        let hash = |number: u32, parts: &[u32]| {
            parts.iter().fold(number.wrapping_mul(0x9e37_79b1), |hash, part| {
                (hash ^ part).wrapping_mul(0x85eb_ca6b).rotate_left(13).wrapping_add(0x27d4_eb2f)
            })
        };
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
    fn open_lines(&mut self) {
        for ((hash, used), open) in self.hashes.iter().zip(&mut self.used).zip(&mut self.open) {
            let mixed = (hash ^ self.partial.wrapping_mul(0x9e37_79b1)).wrapping_mul(0x2c1b_3c6d);
            let mixed = mixed ^ mixed >> 15;
            *used = (mixed >> (32 - LINE_BITS), mixed as u8);
            *open = self.lines.get(used.0);
        }
    }

    /// Puts back the lines that were taken out.
    fn close_lines(&mut self) {
        for ((line, _), open) in self.used.iter().zip(&self.open) {
            self.lines.set(*line, *open);
        }
    }

    /// Where the next bit has its slot in each of the lines.
    fn place(&self) -> usize {
        let seen = 31 - self.partial.leading_zeros();
        let seen = if seen < 4 { seen } else { seen - 4 };
        (self.partial & ((1 << seen) - 1) | 1 << seen) as usize
    }

    /// The probability that the next bit is 1, of 65536.
    fn predict(&mut self) -> u32 {
        let place = self.place();
        for ((line, (_, check)), guesses) in
            self.open.iter().zip(&self.used).zip(self.guesses.chunks_exact_mut(2))
        {
            let slot = Slot::of(line.get(place).copied().unwrap_or_default(), *check);
            let [odds, lean] = guesses else { continue };
            (*odds, *lean) = match slot.count {
                0 => (0, 0),
                _ => (self.stretch.of(slot.probability >> 4), (slot.probability as i32 - 0x8000) >> 5),
            };
        }
        let (strength, bucket) = self.match_strength();
        let [.., first, second, bias, _] = &mut self.guesses;
        (*first, *second, *bias) = (strength, if bucket == 3 { strength } else { 0 }, 256);
        let role = usize::from(self.context.role as u8);
        let (mixers, guesses) = (&mut self.mixers, &self.guesses);
        let odds = mixers.by_role.mix(guesses, role * 4 + bucket)
            + mixers.by_bits.mix(guesses, self.partial as usize & 0xff)
            + mixers.by_name.mix(guesses, usize::from(self.context.name) & 0x3ff);
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

    fn learn(&mut self, bit: bool) {
        let (mixers, guesses) = (&mut self.mixers, &self.guesses);
        mixers.by_role.learn(guesses, bit);
        mixers.by_bits.learn(guesses, bit);
        mixers.by_name.learn(guesses, bit);
        let place = self.place();
        for (line, (_, check)) in self.open.iter_mut().zip(&self.used) {
            if let Some(slot) = line.get_mut(place) {
                *slot = Slot::of(*slot, *check).learned(bit);
            }
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
        if self.expected.is_none()
            && let Some(place) = self.places.get(hash)
        {
            let agreed = self.agreement(place, here);
            if agreed >= PLACE_BYTES as u32 {
                (self.expected, self.agreed) = (Some(place), agreed);
            }
        }
        self.places.set(hash, here);
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
        let mut last = [0; 6];
        last.iter_mut().zip(self.bytes.iter().rev()).for_each(|(to, from)| *to = u32::from(*from));
        last
    }
}

/// What came of a context: how probable a 1 is, of 65536, how often it was seen, and part of its hash.
struct Slot {
    probability: u32,
    count: u32,
    check: u32,
}

impl Slot {
    fn of(packed: u32, check: u8) -> Slot {
        let check = u32::from(check);
        if packed & 0xff != check || packed >> 8 & 0xff == 0 {
            return Slot { probability: 0x8000, count: 0, check };
        }
        Slot { probability: packed >> 16, count: packed >> 8 & 0xff, check }
    }

    /// The slot after a bit: it moves by one part of as many as were seen, and a half.
    fn learned(self, bit: bool) -> u32 {
        let target = if bit { 0xffff } else { 0 };
        let moved = (target - self.probability as i32) * 2 / (2 * self.count as i32 + 3);
        let probability = (self.probability as i32 + moved) as u32;
        let count = (self.count + 1).min(LIMIT);
        probability << 16 | count << 8 | self.check
    }
}
