//! A response's body that comes in bursts of blocks which are not confirmed one by one (RFC 9177 §4.4, Q-Block2), at a client.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::asked::response;
use super::client::RequestError;
use super::wanted::{MAX_PAYLOADS, end_of_set};
use super::{TransferLimits, join};
use crate::coap::block::{Block, BlockSize};
use crate::coap::code::Code;
use crate::coap::message::Message;
use crate::coap::option::{OptionNumber, Options};
use crate::coap::request::Response;
use crate::coap::time::Instant;

/// NON_MAX_RETRANSMIT (§7.2): how often missing blocks are asked for in vain, at the least, before they are given up.
const ATTEMPTS: u32 = 4;

/// A response's body, as far as its blocks have come, in whatever order.
#[derive(Debug)]
pub(super) struct Collected {
    code: Code,
    options: Options,
    pub(super) etag: Vec<u8>,
    size: BlockSize,
    /// The body's, in bytes.
    length: usize,
    blocks: BTreeMap<u32, Bytes>,
    /// The first block that has not come.
    missing: u32,
    /// The block from which on it was asked for already without waiting.
    asked: Option<u32>,
    /// Whether a request for missing blocks is on its way: only after it is waited for them.
    pub(super) asking: bool,
    /// When missing blocks are asked for.
    pub(super) ask_at: Option<Instant>,
    /// When the last block came that was missing.
    since: Instant,
    /// The longest time between two blocks: where others are served by turns, it is longer than the link makes it.
    gap: Duration,
    attempts: u32,
}

/// What follows from a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Others are waited for.
    Wait,
    /// These are to be asked for.
    Ask(Vec<Block>),
    /// All are there.
    Whole(Response),
    /// It belongs to another body.
    Differs,
}

impl Collected {
    /// A body of which this message's block is the first that has come.
    ///
    /// # Errors
    /// [`RequestError::TooLarge`]; [`RequestError::BlocksDiffer`] where it does not say how long the body is, or not which it is (§4.4,
    /// §4.6: ETag and Size2 are in each).
    pub(super) fn new(
        message: &Message,
        block: Block,
        limits: &TransferLimits,
        now: Instant,
    ) -> Result<Self, RequestError> {
        let length = message.options.get_uint(OptionNumber::SIZE2).unwrap_or(0) as usize;
        if length > limits.body {
            return Err(RequestError::TooLarge(limits.body));
        }
        let etag = message.options.get(OptionNumber::ETAG).unwrap_or_default().to_vec();
        if length == 0 || etag.is_empty() {
            return Err(RequestError::BlocksDiffer);
        }
        Ok(Self {
            code: message.code,
            options: message.options.clone(),
            etag,
            size: block.size,
            length,
            blocks: BTreeMap::new(),
            missing: 0,
            asked: None,
            asking: false,
            ask_at: None,
            since: now,
            gap: Duration::ZERO,
            attempts: 0,
        })
    }

    /// Takes in a block. `withheld`: its server holds the last block back until that alone is asked for.
    pub(super) fn take_in(
        &mut self,
        message: &Message,
        block: Block,
        withheld: bool,
        limits: &TransferLimits,
        now: Instant,
    ) -> Next {
        if !self.is_of_it(message, block) {
            return Next::Differs;
        }
        let offset = block.offset();
        let fits =
            offset < self.length && message.payload.len() == self.size.bytes().min(self.length - offset);
        if fits && self.blocks.insert(block.number, message.payload.clone()).is_none() {
            // What was asked for meanwhile has its own time.
            if self.attempts == 0 {
                self.gap = self.gap.max(now.since(self.since));
            }
            self.since = now;
            self.attempts = 0;
        }
        while self.blocks.contains_key(&self.missing) {
            self.missing += 1;
        }
        let missing = self.missing;
        if missing > self.last() {
            return Next::Whole(self.whole());
        }
        // §4.4: after a whole set the next is asked for, without waiting.
        let alone = missing == self.last();
        let begins_set =
            missing.is_multiple_of(MAX_PAYLOADS) && self.blocks.range(missing..).next().is_none();
        if (alone && withheld || begins_set) && !self.asking && self.asked != Some(missing) {
            return Next::Ask(self.ask(withheld));
        }
        self.wait(limits, now);
        Next::Wait
    }

    /// Waits for what is missing, unless a request for it is on its way.
    pub(super) fn wait(&mut self, limits: &TransferLimits, now: Instant) {
        if !self.asking {
            // §7.2: NON_RECEIVE_TIMEOUT, and each time twice as long.
            let factor = 2_u32.saturating_pow(self.attempts);
            let gap = self.gap.saturating_mul(2).min(limits.receive_timeout.saturating_mul(8));
            let usual = limits.receive_timeout.max(gap);
            self.ask_at = Some(now + usual.saturating_mul(factor));
        }
    }

    /// Says that the request for missing blocks has arrived. What was withheld comes in a confirmable message, which its server
    /// repeats.
    pub(super) fn acknowledged(&mut self, withheld: bool, limits: &TransferLimits, now: Instant) {
        self.asking = false;
        match withheld && self.missing == self.last() {
            true => self.ask_at = Some(now + limits.response_timeout),
            false => self.wait(limits, now),
        }
    }

    /// What to ask for after it was waited for in vain; `None` where there is no use in it any more.
    pub(super) fn ask_again(
        &mut self,
        withheld: bool,
        limits: &TransferLimits,
        now: Instant,
    ) -> Option<Vec<Block>> {
        if self.attempts >= ATTEMPTS && now >= self.since + limits.patience {
            return None;
        }
        self.attempts += 1;
        Some(self.ask(withheld))
    }

    /// The missing blocks of the first set that is not whole: the next set by its first block with M, others one by one, and
    /// one that is withheld only when no other is missing.
    fn ask(&mut self, withheld: bool) -> Vec<Block> {
        let (first, last) = (self.missing, self.last());
        self.asked = Some(first);
        self.asking = true;
        self.ask_at = None;
        let block = |number, more| Block { number, more, size: self.size };
        let end = end_of_set(first).min(last + 1);
        let missing: Vec<_> = (first..end).filter(|number| !self.blocks.contains_key(number)).collect();
        if first < last && first.is_multiple_of(MAX_PAYLOADS) && missing.len() == (end - first) as usize {
            return vec![block(first, true)];
        }
        missing
            .into_iter()
            .filter(|number| !withheld || *number < last || first == last)
            .map(|number| block(number, false))
            .collect()
    }

    fn is_of_it(&self, message: &Message, block: Block) -> bool {
        let length = message.options.get_uint(OptionNumber::SIZE2).unwrap_or(0) as usize;
        message.code == self.code
            && block.size == self.size
            && length == self.length
            && message.options.get(OptionNumber::ETAG) == Some(&self.etag)
    }

    fn last(&self) -> u32 {
        u32::try_from(self.length.div_ceil(self.size.bytes()).saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn whole(&mut self) -> Response {
        response(self.code, &self.options, join(std::mem::take(&mut self.blocks)))
    }
}
