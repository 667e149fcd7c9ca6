//! The arithmetic coder: an interval of 32-bit numbers that becomes narrower with each bit, and loses the bytes that are settled.

use crate::packed::coder::FIRST;

/// The numbers that the code may still become.
pub(super) struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    /// All numbers but those with which messages of other coders begin.
    pub(super) fn new() -> Self {
        Interval { low: u32::from(FIRST) << 24, high: u32::MAX }
    }

    /// The last number that means 1.
    pub(super) fn middle(&self, probability: u32) -> u32 {
        let range = u64::from(self.high - self.low);
        self.low + ((range * u64::from(probability)) >> 16) as u32
    }

    pub(super) fn narrow(&mut self, probability: u32, bit: bool) {
        let middle = self.middle(probability);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
    }

    /// Takes a byte that all numbers have in front.
    pub(super) fn shift(&mut self) -> Option<u8> {
        if (self.low ^ self.high) >> 24 != 0 {
            return None;
        }
        let byte = (self.high >> 24) as u8;
        self.low <<= 8;
        self.high = self.high << 8 | 0xff;
        Some(byte)
    }

    /// The fewest bytes that lead into the interval, whatever follows them; or zeros, if nothing does.
    pub(super) fn finish(&self, is_last: bool) -> Vec<u8> {
        for length in 0..4u32 {
            let unsaid = u32::MAX.checked_shr(8 * length).unwrap_or_default();
            let Some(first) = self.low.checked_add(unsaid).map(|first| first & !unsaid) else { continue };
            let last = if is_last { first } else { first | unsaid };
            if last <= self.high {
                return first.to_be_bytes().into_iter().take(length as usize).collect();
            }
        }
        self.low.to_be_bytes().to_vec()
    }
}
