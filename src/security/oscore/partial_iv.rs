//! The number of a message under its sender's key (RFC 8613 §5).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A Partial IV: a Sender Sequence Number, below 2^40.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct PartialIv(u64);

impl PartialIv {
    /// The greatest (RFC 8613 §7.2.1).
    pub const MAX: Self = Self(Self::MAX_NUMBER);
    /// Its number.
    pub(super) const MAX_NUMBER: u64 = (1 << 40) - 1;

    /// The one of this number; `None` for 2^40 and above.
    pub fn new(number: u64) -> Option<Self> {
        (number <= Self::MAX_NUMBER).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Reads it from 1 to 5 bytes; `None` too where a leading zero byte was not removed (§5).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] | [_, _, _, _, _, _, ..] | [0, _, ..] => None,
            _ => Some(Self(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))),
        }
    }

    /// Its bytes without leading zeros; zero is one byte (§5).
    pub fn encode(self) -> Vec<u8> {
        let [_, _, _, padded @ .., last] = self.0.to_be_bytes();
        padded.into_iter().skip_while(|byte| *byte == 0).chain([last]).collect()
    }
}

impl fmt::Display for PartialIv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<PartialIv> for u64 {
    fn from(partial_iv: PartialIv) -> Self {
        partial_iv.0
    }
}

impl TryFrom<u64> for PartialIv {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("a Partial IV is below 2^40")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_fewest_bytes_and_come_back() {
        for (number, length) in [(0, 1), (255, 1), (256, 2), (65_536, 3), (1 << 24, 4), (1 << 32, 5)] {
            let partial_iv = PartialIv::new(number).unwrap();
            assert_eq!(partial_iv.encode().len(), length);
            assert_eq!(PartialIv::decode(&partial_iv.encode()), Some(partial_iv));
        }
        assert_eq!(PartialIv::decode(&[0xff; 5]), Some(PartialIv::MAX));
        assert_eq!(PartialIv::new(1 << 40), None);
    }

    #[test]
    fn no_byte_six_bytes_and_leading_zeros_are_refused() {
        assert_eq!(PartialIv::decode(&[]), None);
        assert_eq!(PartialIv::decode(&[1; 6]), None);
        assert_eq!(PartialIv::decode(&[0, 1]), None);
    }
}
