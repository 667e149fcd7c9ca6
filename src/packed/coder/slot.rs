//! What came of a context, in 32 bits.
//!
//! ```text
//!   +-------------------------------+---------------+---------------+
//!   |  how probable a 1 is, /65536  | times it came | part of hash  |
//!   +-------------------------------+---------------+---------------+
//! ```

/// How often a context must have been seen to move no more slowly.
const LIMIT: u32 = 255;

/// The probability, of a context whose hash has this part; nothing where it was not seen.
pub(super) fn probability(slot: u32, check: u8) -> Option<u16> {
    (slot as u8 == check && slot >> 8 & 0xff != 0).then_some((slot >> 16) as u16)
}

/// How far a probability is from one half.
pub(super) fn lean(probability: u16) -> i32 {
    (i32::from(probability) - 0x8000) >> 5
}

/// The slot after a bit: it moves by one part of as many as were seen, and a half.
#[expect(clippy::indexing_slicing, reason = "for each guess; a count is eight bits")]
pub(super) fn learned(slot: u32, check: u8, bit: bool) -> u32 {
    let is_known = slot as u8 == check && slot >> 8 & 0xff != 0;
    let (probability, count) = if is_known { (slot >> 16, slot >> 8 & 0xff) } else { (0x8000, 0) };
    let distance = if bit { 0xffff - probability } else { probability };
    let moved = (u64::from(2 * distance) * u64::from(PARTS[count as usize])) >> 32;
    let probability = if bit { probability + moved as u32 } else { probability - moved as u32 };
    let count = if count < LIMIT { count + 1 } else { LIMIT };
    probability << 16 | count << 8 | u32::from(check)
}

/// By how often a context was seen: 2^32 over twice that and 3, rounded up. Dividing 17 bits so is exact.
#[expect(clippy::indexing_slicing, reason = "when it is compiled")]
const PARTS: [u32; 256] = {
    let mut parts = [0; 256];
    let mut count = 0;
    while count < parts.len() {
        parts[count] = ((1u64 << 32) / (2 * count as u64 + 3) + 1) as u32;
        count += 1;
    }
    parts
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_move_as_if_they_were_divided() {
        for count in 0..=LIMIT {
            for probability in 0..=0xffffu32 {
                let slot = probability << 16 | count << 8 | 7;
                let before = if count == 0 { 0x8000 } else { probability as i32 };
                for (bit, target) in [(false, 0), (true, 0xffff)] {
                    let after = before + (target - before) * 2 / (2 * count as i32 + 3);
                    let expected = (after as u32) << 16 | (count + 1).min(LIMIT) << 8 | 7;
                    assert_eq!(learned(slot, 7, bit), expected);
                }
            }
        }
    }
}
