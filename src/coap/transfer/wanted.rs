//! Which blocks of a response a request asks for at once (RFC 9177 §4.4, Q-Block2).

use std::collections::BTreeSet;

use crate::coap::block::{Block, BlockSize};
use crate::coap::option::{OptionNumber, Options};

/// MAX_PAYLOADS (§7.2): blocks that are sent in one burst.
pub(super) const MAX_PAYLOADS: u32 = 10;

/// The blocks that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) size: BlockSize,
    /// At most MAX_PAYLOADS.
    pub(super) numbers: BTreeSet<u32>,
    /// Whether the body is asked for from its beginning, not what is missing of it.
    pub(super) anew: bool,
}

impl Wanted {
    /// What a request's options ask for (§4.4); `None` where there are none, or one cannot be, or their sizes differ.
    pub(super) fn of(options: &Options) -> Option<Self> {
        let blocks: Vec<_> = options.all(OptionNumber::Q_BLOCK2).map(Block::decode).collect();
        let size = blocks.first()?.as_ref().ok()?.size;
        let (mut numbers, mut anew) = (BTreeSet::new(), false);
        for block in blocks {
            let block = block.ok().filter(|block| block.size == size)?;
            anew |= block.number == 0 && block.more;
            // With M: from this block to the end of its set. The whole body is asked for set by set.
            let end = if block.more { end_of_set(block.number) } else { block.number + 1 };
            numbers.extend(block.number..end);
        }
        let numbers = numbers.into_iter().take(MAX_PAYLOADS as usize).collect();
        Some(Self { size, numbers, anew })
    }

    /// The first set of a body.
    pub(super) fn beginning(self) -> Self {
        Self { numbers: (0..MAX_PAYLOADS).collect(), anew: true, ..self }
    }

    /// Those of them that a body in blocks of at most this size has, and their size; the body's own blocks may be smaller than was
    /// wished for at its beginning only.
    pub(super) fn within(&self, length: usize, greatest: BlockSize) -> (BlockSize, BTreeSet<u32>) {
        let size = self.size.min(greatest);
        let last = length.div_ceil(size.bytes());
        let exists = |number: &u32| (*number as usize) < last && (size == self.size || self.anew);
        (size, self.numbers.iter().copied().filter(exists).collect())
    }
}

/// The first block after the set that this one is in.
pub(super) fn end_of_set(number: u32) -> u32 {
    (number / MAX_PAYLOADS + 1) * MAX_PAYLOADS
}
