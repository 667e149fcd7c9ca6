//! The value of Block1 and Block2 (RFC 7959 §2.2).

use std::fmt;

use thiserror::Error;

use super::option::{OptionNumber, Options, read_uint, uint};

/// One block's place in a body.
///
/// ```text
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3
/// |          NUM  (4, 12 or 20 bits)      |M| SZX |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// NUM: how many blocks of this size come before it; below 2^20.
    pub number: u32,
    /// M: whether more blocks follow.
    pub more: bool,
    /// SZX: the size.
    pub size: BlockSize,
}

impl Block {
    /// The greatest NUM.
    pub const MAX_NUMBER: u32 = (1 << 20) - 1;

    /// Reads an option's value.
    ///
    /// # Errors
    /// [`ReservedSize`] for the size exponent 7, and for a value that is longer than the option may be.
    pub fn decode(value: &[u8]) -> Result<Self, ReservedSize> {
        let number = read_uint(value).filter(|_| value.len() <= 3).ok_or(ReservedSize)?;
        let size = BlockSize::from_exponent((number & 7) as u8).ok_or(ReservedSize)?;
        Ok(Self { number: number >> 4, more: number & 8 != 0, size })
    }

    /// Reads an option of these, if it is there.
    ///
    /// # Errors
    /// As for [`Block::decode`].
    pub fn find(options: &Options, number: OptionNumber) -> Result<Option<Self>, ReservedSize> {
        options.get(number).map(Self::decode).transpose()
    }

    /// The option's value.
    pub fn encode(self) -> Vec<u8> {
        uint(self.number << 4 | u32::from(self.more) << 3 | u32::from(self.size.exponent()))
    }

    /// Where in the body it begins, in bytes.
    pub fn offset(self) -> usize {
        self.number as usize * self.size.bytes()
    }

    /// The block of this size that begins at a multiple of it; `None` where NUM would not hold it.
    pub fn at(offset: usize, size: BlockSize, more: bool) -> Option<Self> {
        let number =
            u32::try_from(offset / size.bytes()).ok().filter(|number| *number <= Self::MAX_NUMBER)?;
        Some(Self { number, more, size })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.number, u8::from(self.more), self.size.bytes())
    }
}

/// A block option with the reserved size exponent 7 (RFC 7959 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("block size exponent 7 is reserved")]
pub struct ReservedSize;

/// A block's size: a power of two from 16 to 1024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockSize(u8);

impl BlockSize {
    /// 16 bytes.
    pub const MIN: Self = Self(0);
    /// 1024 bytes.
    pub const MAX: Self = Self(6);

    /// The size of SZX; `None` for the reserved 7 and above.
    pub fn from_exponent(exponent: u8) -> Option<Self> {
        (exponent <= 6).then_some(Self(exponent))
    }

    /// The greatest size of at most so many bytes, and the smallest for fewer than 16.
    pub fn fitting(bytes: usize) -> Self {
        Self((4..=10).rev().find(|power| 1 << power <= bytes).unwrap_or(4) as u8 - 4)
    }

    /// SZX.
    pub fn exponent(self) -> u8 {
        self.0
    }

    /// The size in bytes.
    pub fn bytes(self) -> usize {
        16 << self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_legal_value_survives() {
        for number in [0, 1, 15, 16, 4095, 4096, Block::MAX_NUMBER] {
            for exponent in 0..=6 {
                for more in [false, true] {
                    let block = Block { number, more, size: BlockSize::from_exponent(exponent).unwrap() };
                    assert_eq!(Block::decode(&block.encode()), Ok(block));
                }
            }
        }
    }

    #[test]
    fn the_reserved_exponent_and_a_fourth_byte_are_refused() {
        assert_eq!(Block::decode(&[0x0f]), Err(ReservedSize));
        assert_eq!(Block::decode(&[0, 0, 0, 6]), Err(ReservedSize));
    }

    #[test]
    fn the_size_fits_what_it_is_given() {
        assert_eq!(BlockSize::fitting(1024).bytes(), 1024);
        assert_eq!(BlockSize::fitting(300).bytes(), 256);
        assert_eq!(BlockSize::fitting(1).bytes(), 16);
        assert_eq!(BlockSize::fitting(usize::MAX).bytes(), 1024);
    }
}
