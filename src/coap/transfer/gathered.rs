//! A request's body that comes in bursts of blocks, in whatever order (RFC 9177 §4.3, Q-Block1), at a server.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::{Bytes, BytesMut};

use super::TransferLimits;
use super::wanted::{MAX_PAYLOADS, end_of_set};
use crate::coap::block::{Block, BlockSize};
use crate::coap::message::{Kind, Message, Token};
use crate::coap::option::OptionNumber;
use crate::coap::time::Instant;

/// NON_MAX_RETRANSMIT (§7.2): how often missing blocks are asked for, while none comes.
const ATTEMPTS: u32 = 4;

/// What a block takes up beside its bytes.
const BESIDE: usize = 64;

/// A request's body, as far as its blocks have come.
#[derive(Debug)]
pub(super) struct Gathered {
    size: BlockSize,
    /// The body's, in bytes, where Size1 or the last block has told it.
    length: Option<usize>,
    blocks: BTreeMap<u32, Bytes>,
    bytes: usize,
    /// The first block that has not come.
    missing: u32,
    /// The token of the last one that has: answers go by it (§4.3).
    pub(super) token: Token,
    /// When missing blocks are asked for.
    pub(super) ask_at: Option<Instant>,
    attempts: u32,
}

/// What follows from a block, or from a wait in vain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Others are waited for.
    Wait,
    /// All blocks up to this one are there: the client may go on.
    Continue(Block),
    /// These are missing.
    Missing(Vec<u32>),
    /// All are there.
    Whole(Bytes),
    /// It does not fit to the others.
    Differs,
}

impl Gathered {
    /// A body of which nothing has come yet but that this message is of it.
    pub(super) fn new(message: &Message, block: Block) -> Self {
        Self {
            size: block.size,
            length: None,
            blocks: BTreeMap::new(),
            bytes: 0,
            missing: 0,
            token: message.token,
            ask_at: None,
            attempts: 0,
        }
    }

    /// What it takes up.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.blocks.len() * BESIDE
    }

    /// Takes in a block.
    pub(super) fn take_in(
        &mut self,
        message: &Message,
        block: Block,
        limits: &TransferLimits,
        now: Instant,
    ) -> Next {
        if !self.fits(message, block) {
            return Next::Differs;
        }
        self.token = message.token;
        let (begun, heard) = (self.missing / MAX_PAYLOADS, self.heard());
        if let Entry::Vacant(place) = self.blocks.entry(block.number) {
            // Not a part of its datagram, which would be held as a whole.
            place.insert(Bytes::copy_from_slice(&message.payload));
            self.bytes += message.payload.len();
            self.attempts = 0;
        }
        while self.blocks.contains_key(&self.missing) {
            self.missing += 1;
        }
        if self.last().is_some_and(|last| self.missing > last) {
            return Next::Whole(self.whole());
        }
        self.wait(limits, now);
        let next = self.state(self.heard());
        let ends = !block.more || block.number + 1 == end_of_set(block.number);
        // A client asks by a confirmable block how far all has come, and hears it at once: the link keeps the order, so that what has
        // not come is lost. Since it goes on asking until it hears, nothing more is to be said meanwhile.
        let told = message.kind == Kind::Confirmable
            && (matches!(next, Next::Continue(_)) || ends || block.number < heard);
        if told {
            self.ask_at = None;
            return next;
        }
        // §4.3, §7.2: others hear when a set is there, and what is missing of it after they were silent for a while.
        match next {
            Next::Continue(_) if self.missing / MAX_PAYLOADS > begun => next,
            _ => Next::Wait,
        }
    }

    /// What to say after nothing came for as long as was to be waited.
    pub(super) fn ask_again(&mut self, limits: &TransferLimits, now: Instant) -> Next {
        self.attempts += 1;
        self.ask_at = None;
        if self.attempts < ATTEMPTS {
            self.wait(limits, now);
        }
        // A set that has begun was to come whole. What the client has not sent yet, for all that is known, is not asked for.
        let heard = self.heard();
        let begun = heard > self.missing || !self.missing.is_multiple_of(MAX_PAYLOADS);
        self.state(self.last().filter(|_| begun).map_or(heard, |last| last + 1))
    }

    /// How far it has come: whole up to a block, or with others missing before that, of the first set that is not whole.
    fn state(&self, end: u32) -> Next {
        let end = end_of_set(self.missing).min(end);
        let missing: Vec<_> =
            (self.missing..end).filter(|number| !self.blocks.contains_key(number)).collect();
        match self.missing.checked_sub(1) {
            Some(number) if missing.is_empty() => {
                Next::Continue(Block { number, more: true, size: self.size })
            }
            _ => Next::Missing(missing),
        }
    }

    /// §7.2: NON_RECEIVE_TIMEOUT, and each time twice as long.
    fn wait(&mut self, limits: &TransferLimits, now: Instant) {
        let factor = 2_u32.saturating_pow(self.attempts);
        self.ask_at = Some(now + limits.receive_timeout.saturating_mul(factor));
    }

    /// Whether a block belongs where it says that it does; takes over what it says of the body's length.
    fn fits(&mut self, message: &Message, block: Block) -> bool {
        let end = block.offset() + message.payload.len();
        let announced = message.options.get_uint(OptionNumber::SIZE1).map(|length| length as usize);
        let by_end = (!block.more).then_some(end);
        let length = self.length.or(announced).or(by_end);
        let agrees = |known: Option<usize>| known.is_none() || known == length;
        let beyond =
            |length: usize| self.blocks.keys().any(|number| *number as usize * self.size.bytes() >= length);
        let within = length.is_none_or(|length| match block.more {
            true => end < length,
            false => end == length,
        });
        let fits = block.size == self.size
            && agrees(announced)
            && agrees(by_end)
            && within
            && !(self.length.is_none() && length.is_some_and(beyond));
        if fits {
            self.length = length;
        }
        fits
    }

    /// The first block after all that have come.
    fn heard(&self) -> u32 {
        self.blocks.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    fn last(&self) -> Option<u32> {
        let last = self.length?.div_ceil(self.size.bytes()).saturating_sub(1);
        u32::try_from(last).ok()
    }

    fn whole(&mut self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.bytes);
        for block in std::mem::take(&mut self.blocks).into_values() {
            body.extend_from_slice(&block);
        }
        body.freeze()
    }
}
