//! A request's body that goes out in bursts of blocks (RFC 9177 §4.3, Q-Block1), at a client.
//!
//! ```text
//!            2.31, or 4.02 and then block by block
//!   [block 0] ────────────► [a set: NON, NON, .. CON] ──► [the next set] ──► .. ──► [its response]
//!   where nothing is known           │        ▲ 2.31
//!   of the peer                      ▼ 4.08   │
//!                           [what is missing of it: NON, .. CON]
//! ```

use super::asked::{Asked, message};
use super::client::{ClientTransfers, RequestError, Step, Support};
use super::wanted::{MAX_PAYLOADS, end_of_set};
use super::{TransferLimits, missing};
use crate::coap::block::{Block, BlockSize};
use crate::coap::code::Code;
use crate::coap::message::{Message, Token};
use crate::coap::option::{OptionNumber, uint};
use crate::coap::request::{Request, content_format};
use crate::coap::time::Instant;

/// How often the same block may be the first that is missing. With a loss of a half, one body in 65536 fails by it.
const ATTEMPTS: u32 = 16;

/// How far a request's body has gone out.
#[derive(Debug)]
pub(super) struct Offered {
    size: BlockSize,
    /// The first block that was never sent.
    next: u32,
    last: u32,
    /// Whether the confirmable block that ends a burst is under way: how far all has come is in its answer.
    confirming: bool,
    /// Whether the peer has said how far it has come.
    heard: bool,
    /// The first block that was missing when the peer last said so, and how often it has been.
    missing: (u32, u32),
}

impl Offered {
    /// A body that nothing has left of; `None` where one message is enough, or where it has too many blocks.
    fn new(request: &Request, size: BlockSize) -> Option<Self> {
        let length = request.payload.len();
        let last = u32::try_from(length.div_ceil(size.bytes()).saturating_sub(1)).ok()?;
        (1..=Block::MAX_NUMBER).contains(&last).then_some(Self {
            size,
            next: 0,
            last,
            confirming: false,
            heard: false,
            missing: (0, 0),
        })
    }

    /// Whether all blocks have been sent, so that another one may complete the request.
    pub(super) fn is_out(&self) -> bool {
        self.next > self.last
    }

    /// Whether the confirmable block that ends a burst is under way.
    pub(super) fn is_confirming(&self) -> bool {
        self.confirming
    }

    /// Says that it was acknowledged, or given up.
    pub(super) fn confirmed(&mut self) {
        self.confirming = false;
    }
}

impl ClientTransfers {
    /// Starts to send a request's body in bursts, where that is wished for; `None` where not.
    pub(super) fn offer(&mut self, asked: &mut Asked, token: Token, limits: &TransferLimits) -> Option<Step> {
        let wished = limits.q_block && self.bursts != Support::Refused && asked.request.observe.is_none();
        asked.offered = Offered::new(&asked.request, asked.size).filter(|_| wished);
        asked.offered.as_ref()?;
        // RFC 9175 §3.3: no other body has it, of this client or of one before it.
        asked.request.options.set(OptionNumber::REQUEST_TAG, self.next_tag.to_be_bytes());
        self.next_tag = self.next_tag.wrapping_add(1);
        asked.next_set(token, self.bursts)
    }

    /// Takes in a message about a body that goes out in bursts; `None` for any other, the response with them.
    pub(super) fn receive_about_burst(&mut self, message: &Message, limits: &TransferLimits) -> Option<Step> {
        let token = message.token;
        let asked = self.asked.get_mut(&token)?;
        let offered = asked.offered.as_mut()?;
        if message.code == Code::BAD_OPTION && !offered.heard {
            // RFC 9177 §4.1: from now on by Block1.
            self.bursts = Support::Refused;
            let mut asked = self.asked.remove(&token)?;
            asked.offered = None;
            asked.request.options.remove(OptionNumber::REQUEST_TAG);
            self.set_apart(&mut asked);
            let next = asked.next_upload(token, limits);
            self.asked.insert(token, asked);
            return Some(Step::Send(next));
        }
        if message.code == Code::REQUEST_ENTITY_INCOMPLETE && !is_list(message) && !asked.restarted {
            asked.restarted = true;
            let mut asked = self.asked.remove(&token)?;
            let step = self.offer(&mut asked, token, limits);
            self.asked.insert(token, asked);
            return step;
        }
        let Some(progress) = Progress::of(message) else {
            asked.offered = None;
            return None;
        };
        self.bursts = Support::Understood;
        (offered.heard, offered.confirming) = (true, false);
        let next = match progress {
            Progress::UpTo(number) if number.checked_add(1) < Some(offered.next) => Some(Step::Nothing),
            Progress::UpTo(_) => asked.next_set(token, self.bursts),
            Progress::Without(numbers) => match asked.again(token, &numbers) {
                Ok(step) => step,
                Err(error) => return Some(self.fail(token, error)),
            },
        };
        // All of it has come: its response is waited for.
        Some(next.unwrap_or(Step::Nothing))
    }

    /// Whether a message says what is in the answer to a confirmable block too, which is under way.
    pub fn hears_again(&self, message: &Message) -> bool {
        let offered = self.asked.get(&message.token).and_then(|asked| asked.offered.as_ref());
        offered.is_some_and(Offered::is_confirming) && Progress::of(message).is_some()
    }
}

/// What a server says of a body that it gathers.
enum Progress {
    /// 2.31: it has all blocks up to this one.
    UpTo(u32),
    /// 4.08: it has not these.
    Without(Vec<u32>),
}

impl Progress {
    fn of(message: &Message) -> Option<Self> {
        match message.code {
            Code::CONTINUE => {
                let block = Block::find(&message.options, OptionNumber::Q_BLOCK1).ok().flatten()?;
                Some(Self::UpTo(block.number))
            }
            Code::REQUEST_ENTITY_INCOMPLETE if is_list(message) => {
                Some(Self::Without(missing::decode(&message.payload).collect()))
            }
            _ => None,
        }
    }
}

fn is_list(message: &Message) -> bool {
    message.options.get_uint(OptionNumber::CONTENT_FORMAT) == Some(content_format::MISSING_BLOCKS)
}

impl Asked {
    /// The next set of blocks; `None` where all have been sent.
    pub(super) fn next_set(&mut self, token: Token, support: Support) -> Option<Step> {
        let offered = self.offered.as_mut().filter(|offered| !offered.is_out())?;
        // §4.1: a confirmable block tells whether the peer knows of bursts: silence is all that others get.
        let alone = offered.next == 0 && support == Support::Untried;
        let end = if alone { 1 } else { end_of_set(offered.next).min(offered.last + 1) };
        let numbers: Vec<_> = (offered.next..end).collect();
        offered.next = end;
        self.burst(token, &numbers)
    }

    /// Blocks that are missing once more, or the next set where those were never sent.
    fn again(&mut self, token: Token, missing: &[u32]) -> Result<Option<Step>, RequestError> {
        let Some(offered) = &mut self.offered else { return Ok(None) };
        let mut numbers: Vec<_> = missing.iter().copied().filter(|number| *number < offered.next).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.truncate(MAX_PAYLOADS as usize);
        let Some(first) = numbers.first() else {
            return Ok(self.next_set(token, Support::Understood));
        };
        offered.missing = match offered.missing {
            (before, _) if *first > before => (*first, 1),
            (before, times) => (before, times + 1),
        };
        if offered.missing.1 > ATTEMPTS {
            return Err(RequestError::Timeout);
        }
        Ok(self.burst(token, &numbers))
    }

    /// These blocks. The last of them is confirmable: its answer tells what has come, and it is repeated until there is one.
    fn burst(&mut self, token: Token, numbers: &[u32]) -> Option<Step> {
        let offered = self.offered.as_mut()?;
        offered.confirming = true;
        let size = offered.size;
        let (last, before) = numbers.split_last()?;
        let message = |number: &u32| self.block(token, *number, size);
        Some(Step::SendBurst { before: before.iter().map(message).collect(), last: message(last) })
    }

    fn block(&self, token: Token, number: u32, size: BlockSize) -> Message {
        let body = &self.request.payload;
        let start = body.len().min(number as usize * size.bytes());
        let end = body.len().min(start + size.bytes());
        let mut options = self.request.options.clone();
        options.push(OptionNumber::Q_BLOCK1, Block { number, more: end < body.len(), size }.encode());
        // §4.6: in each, since any of them may be the first that comes.
        options.push(OptionNumber::SIZE1, uint(u32::try_from(body.len()).unwrap_or(u32::MAX)));
        message(self.request.method, token, options, body.slice(start..end))
    }

    /// Until when to wait, after something has come: for the response, once that can be there.
    pub(super) fn next_deadline(&self, limits: &TransferLimits, now: Instant) -> Instant {
        match self.offered.as_ref().is_some_and(|offered| !offered.is_out()) {
            // §7.2: without 2.31 the client goes on all the same.
            true => now + limits.receive_timeout,
            false => now + limits.response_timeout,
        }
    }
}
