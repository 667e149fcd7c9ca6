//! What a peer gets of which nobody knows whether it is where it says: what fits into its credit, or a challenge (RFC 9175 §2.4).

use bytes::Bytes;

use super::{Asked, Outcome, Peer, message};
use crate::coap::{BlockSize, Code, Instant, Message, Observe, OptionNumber, Plan, Reply, Request, Response};
use crate::endpoint::Address;

/// A challenge that a device was sent at another address than its own, for repeats of the request that came from there.
#[derive(Clone, Debug)]
pub(in crate::endpoint) struct Reflected {
    pub(in crate::endpoint) address: Address,
    pub(in crate::endpoint) answer: Message,
}

/// The answer to a usual send: an event's id, a status, a token.
const ANSWER: usize = 96;
/// What Block2, Size2 and an ETag take up beside a block.
const BLOCK: usize = 14;
/// What protection adds to a response at most, while it has no number of its own.
const PROTECTION: usize = 12;
/// RFC 7967 §2.1: no response of class 4 is wanted.
const NO_CLIENT_ERRORS: u32 = 8;

impl Peer {
    /// Whether a request is to be asked again before anything is done for it. It is dear on a slow link, so not where a short answer
    /// will do: one that is not safe is done once, and what its answer is too long for is had in small blocks.
    pub(super) fn is_to_show(&self, asked: &Asked, request: &Request) -> bool {
        let Some(credit) = &self.credit else { return false };
        // What is observed is told without being asked for.
        if request.observe == Some(Observe::Register) {
            return true;
        }
        !asked.is_safe && asked.unwanted & NO_CLIENT_ERRORS == 0 && credit.left() < ANSWER
    }

    /// Whether an answer is longer than what the peer may get: it may have it once it has shown where it is.
    pub(super) fn is_beyond(&self, asked: &Asked, reply: &Reply) -> bool {
        let Some(credit) = &self.credit else { return false };
        let payload = reply.payload.len() + reply.rest.iter().map(|block| block.payload.len()).sum::<usize>();
        let messages = 1 + reply.rest.len();
        let beside = message(asked.token, Reply { payload: Bytes::new(), rest: Vec::new(), ..reply.clone() });
        let beside = beside.encode().len() + 1 + protection(asked);
        reply.code.is_success() && payload > 0 && beside * messages + payload > credit.left()
    }

    /// Asks the peer to show where it is.
    pub(super) fn challenge(&mut self, asked: &mut Asked, now: Instant) {
        let Some(credit) = &self.credit else { return };
        let reply = Reply { options: credit.challenge(), ..Reply::empty(Code::UNAUTHORIZED) };
        self.outcomes.push_back(Outcome::Challenged);
        self.answer(asked, reply, now);
    }

    /// In blocks of what size a response is to be sent; `None` where the peer has to show first where it is.
    pub(super) fn block_for(&self, asked: &Asked, plan: &Plan, response: &mut Response) -> Option<BlockSize> {
        let most = plan.size().min(self.transfers.block);
        let Some(credit) = &self.credit else { return Some(self.transfers.block) };
        let (payload, left) = (response.payload.len(), credit.left());
        let beside = asked.whole_answer(&Response { payload: Bytes::new(), ..response.clone() });
        let beside = beside.encode().len() + 1 + protection(asked);
        let blocks = payload.div_ceil(most.bytes());
        let first = match blocks {
            0 | 1 => beside + payload,
            // All of them leave at once.
            _ if plan.is_for_burst() && asked.is_safe => (beside + BLOCK) * blocks + payload,
            _ => beside + BLOCK + most.bytes(),
        };
        if first <= left {
            return Some(self.transfers.block);
        }
        // RFC 7252 §5.5.2: what is there for people only.
        if !response.code.is_success() && response.options.get(OptionNumber::CONTENT_FORMAT).is_none() {
            response.payload = Bytes::new();
            return Some(self.transfers.block);
        }
        // What was done is not done again; the rest is asked for, and safe to ask for again.
        let block = BlockSize::fitting(left.saturating_sub(beside + BLOCK));
        (!asked.is_safe).then_some(block.min(most))
    }
}

fn protection(asked: &Asked) -> usize {
    if asked.binding.is_some() { PROTECTION } else { 0 }
}
