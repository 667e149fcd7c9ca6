//! A request's body that comes in bursts of blocks, in whatever order (RFC 9177 §4.3, Q-Block1), at a server.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use super::wanted::{MAX_PAYLOADS, end_of_set};
use super::{TransferLimits, join};
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
            return Next::Whole(join(std::mem::take(&mut self.blocks)));
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coap::code::Code;
    use crate::coap::message::MessageId;
    use crate::coap::option::Options;

    const LENGTH: usize = 16 * 25 + 7;

    /// A block of 16 bytes of that body.
    fn block(number: u32, kind: Kind, announced: bool) -> (Message, Block) {
        let body: Vec<_> = (0..LENGTH).map(|at| at as u8).collect();
        let (from, to) = (number as usize * 16, LENGTH.min(number as usize * 16 + 16));
        let mut options = Options::new();
        if announced {
            options.push_uint(OptionNumber::SIZE1, LENGTH as u32);
        }
        let payload = Bytes::copy_from_slice(body.get(from..to).unwrap());
        let message =
            Message { kind, code: Code::PUT, id: MessageId(1), token: Token::EMPTY, options, payload };
        (message, Block { number, more: to < LENGTH, size: BlockSize::MIN })
    }

    fn gathered(numbers: impl IntoIterator<Item = u32>, announced: bool) -> Gathered {
        let (first, of_it) = block(0, Kind::NonConfirmable, announced);
        let mut gathered = Gathered::new(&first, of_it);
        for number in numbers {
            take_in(&mut gathered, number, Kind::NonConfirmable, announced);
        }
        gathered
    }

    fn take_in(gathered: &mut Gathered, number: u32, kind: Kind, announced: bool) -> Next {
        let (message, block) = block(number, kind, announced);
        gathered.take_in(&message, block, &TransferLimits::default(), Instant::START)
    }

    fn up_to(number: u32) -> Next {
        Next::Continue(Block { number, more: true, size: BlockSize::MIN })
    }

    #[test]
    fn the_end_of_a_set_is_answered_and_a_confirmable_block_always() {
        let mut body = gathered(0..9, true);
        assert_eq!(take_in(&mut body, 9, Kind::NonConfirmable, true), up_to(9));
        assert_eq!(take_in(&mut body, 10, Kind::NonConfirmable, true), Next::Wait);
        assert_eq!(take_in(&mut body, 11, Kind::Confirmable, true), up_to(11));
        assert_eq!(take_in(&mut body, 4, Kind::Confirmable, true), up_to(11));
    }

    #[test]
    fn what_is_missing_is_told_once_a_confirmable_block_ends_a_burst() {
        let mut body = gathered([0, 2, 3, 6], true);
        // It may be on its way yet.
        assert_eq!(take_in(&mut body, 7, Kind::Confirmable, true), Next::Wait);
        assert_eq!(take_in(&mut body, 9, Kind::Confirmable, true), Next::Missing(vec![1, 4, 5, 8]));
        assert_eq!(body.ask_at, None);
        assert_eq!(take_in(&mut body, 1, Kind::NonConfirmable, true), Next::Wait);
        assert_eq!(take_in(&mut body, 8, Kind::Confirmable, true), Next::Missing(vec![4, 5]));
    }

    #[test]
    fn after_silence_the_rest_of_the_set_is_missing_where_it_is_known_to_be_there() {
        let limits = TransferLimits::default();
        let missing = |numbers: &[u32], announced| {
            gathered(numbers.iter().copied(), announced).ask_again(&limits, Instant::START)
        };
        assert_eq!(missing(&[0, 2], true), Next::Missing(vec![1, 3, 4, 5, 6, 7, 8, 9]));
        assert_eq!(missing(&[0, 2], false), Next::Missing(vec![1]));
        assert_eq!(missing(&[0, 1], true), Next::Missing((2..10).collect()));
        assert_eq!(missing(&[0, 1], false), up_to(1));
        let set: Vec<_> = (0..10).collect();
        assert_eq!(missing(&set, true), up_to(9));
        let most: Vec<_> = (0..24).collect();
        assert_eq!(missing(&most, true), Next::Missing(vec![24, 25]));
    }

    #[test]
    fn silence_is_asked_about_four_times() {
        let mut body = gathered([0, 2], true);
        let mut asked = Vec::new();
        while let Some(at) = body.ask_at {
            asked.push(at.since(Instant::START).as_secs());
            body.ask_again(&TransferLimits::default(), at);
        }
        assert_eq!(asked, [4, 4 + 8, 4 + 8 + 16, 4 + 8 + 16 + 32]);
    }

    #[test]
    fn a_block_beyond_the_end_or_of_another_size_differs() {
        let mut body = gathered([0], true);
        let (message, of_it) = block(1, Kind::Confirmable, true);
        let mut differs = |message: &Message, block| {
            body.take_in(message, block, &TransferLimits::default(), Instant::START) == Next::Differs
        };
        assert!(differs(&message, Block { number: 25, ..of_it }));
        assert!(differs(&message, Block { more: false, ..of_it }));
        assert!(differs(&message, Block { size: BlockSize::MAX, ..of_it }));
        let (longer, of_it) = block(1, Kind::Confirmable, false);
        assert!(!differs(&longer, of_it));
        let mut body = gathered([20], false);
        let (mut shorter, of_it) = block(1, Kind::Confirmable, false);
        shorter.options.push_uint(OptionNumber::SIZE1, 300);
        assert_eq!(body.take_in(&shorter, of_it, &TransferLimits::default(), Instant::START), Next::Differs);
    }

    proptest! {
        /// In whatever order, however often, and whether or not the length is known before the end.
        #[test]
        fn a_body_is_whole_once_all_of_it_is_there(
            numbers in prop::collection::vec(0_u32..26, 0..60),
            rest in Just((0_u32..26).collect::<Vec<_>>()).prop_shuffle(),
            announced in any::<bool>(),
            confirmed in any::<bool>(),
        ) {
            let kind = if confirmed { Kind::Confirmable } else { Kind::NonConfirmable };
            let mut body = gathered([], announced);
            let mut here = std::collections::BTreeSet::new();
            for number in numbers.into_iter().chain(rest) {
                here.insert(number);
                let next = take_in(&mut body, number, kind, announced);
                if here.len() == 26 {
                    let expected: Vec<_> = (0..LENGTH).map(|at| at as u8).collect();
                    prop_assert_eq!(next, Next::Whole(expected.into()));
                    break;
                }
                match next {
                    Next::Wait => prop_assert!(body.ask_at.is_some()),
                    Next::Continue(block) => prop_assert!((0..=block.number).all(|it| here.contains(&it))),
                    Next::Missing(missing) => {
                        prop_assert!((1..=10).contains(&missing.len()));
                        prop_assert!(missing.iter().all(|number| !here.contains(number)));
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
