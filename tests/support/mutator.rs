//! Inputs for a fuzz target: seeds changed in a few places, two seeds joined, or noise. The same on every run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rand_chacha::rand_core::SeedableRng;

/// Makes inputs out of seeds.
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    chance: ChaCha8Rng,
}

/// No input is longer than this.
const LONGEST: usize = 4096;
/// Bytes at the borders of what formats distinguish: CBOR heads, option nibbles, block options, UTF-8, JSON.
const INTERESTING: &[u8] = b"\x00\x01\x0c\x0d\x0e\x0f\x17\x18\x1b\x1f\x3b\x5f\x7f\x80\x9b\xbb\xbf\xc2\xd8\xed\xf5\xfb\xff\"\\{}[],:%/.+&=";

impl Mutator {
    /// Starts the sequence that belongs to a name: each target has its own.
    pub fn new(name: &str, seeds: Vec<Vec<u8>>) -> Self {
        let mut key = [0; 32];
        for (slot, byte) in key.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        Self { seeds, chance: ChaCha8Rng::from_seed(key) }
    }

    /// The next input, at most 4096 bytes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = match self.below(8) {
            0 => self.noise(64),
            1 => self.joined(),
            _ => self.seed(),
        };
        for _ in 0..1 + self.below(6) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(8)).min(input.len());
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = INTERESTING[self.below(INTERESTING.len())],
            2 if at < input.len() => input[at] = self.below(256) as u8,
            3 => input.insert(at, INTERESTING[self.below(INTERESTING.len())]),
            4 => drop(input.drain(at..end)),
            5 => input.truncate(at),
            6 => self.repeat(input, at, end),
            _ => {
                let noise = self.noise(8);
                input.splice(at..at, noise);
            }
        }
    }

    /// Writes a piece of the input many times over: depth, length and count fields meet their limits this way.
    fn repeat(&mut self, input: &mut Vec<u8>, at: usize, end: usize) {
        let times = 1 << self.below(10);
        let piece = input[at..end].repeat(times);
        input.splice(at..at, piece);
        input.truncate(LONGEST);
    }

    fn joined(&mut self) -> Vec<u8> {
        let (mut first, second) = (self.seed(), self.seed());
        let (cut, from) = (self.below(first.len() + 1), self.below(second.len() + 1));
        first.truncate(cut);
        first.extend_from_slice(&second[from..]);
        first
    }

    fn seed(&mut self) -> Vec<u8> {
        let index = self.below(self.seeds.len());
        self.seeds[index].clone()
    }

    fn noise(&mut self, longest: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(longest)];
        self.chance.fill_bytes(&mut bytes);
        bytes
    }

    /// A number less than `limit`, which is not 0. Its bias is of no consequence here.
    fn below(&mut self, limit: usize) -> usize {
        self.chance.next_u32() as usize % limit
    }
}
