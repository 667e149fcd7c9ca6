//! How a client keeps apart the bodies of requests that are the same to a server but for their payload (RFC 9175 §3.5.2, RFC 8132 §2).
//!
//! Requests with the same method and cache key go without a Request-Tag for as long as nothing of them is in blocks. Their payloads tell
//! them apart: while there are several, further blocks of an answer are asked for with the payload, which else may be left out (RFC 7959
//! §2.7). What has no payload that could be repeated has a tag of its own, and so has what comes while another's blocks are asked for
//! without it. The first to come has none, so that a request alone takes no byte more.

use super::TransferLimits;
use super::asked::Asked;
use super::client::{ClientTransfers, Step};
use super::key::Key;
use crate::coap::code::Code;
use crate::coap::message::Token;
use crate::coap::option::{OptionNumber, uint};
use crate::coap::request::{Observe, Request};
use crate::coap::time::Instant;

/// As many that were given up are remembered.
const MOST_LEFT: usize = 16;

/// A request that was given up. Its blocks may be on their way, and its answer may come to be held.
#[derive(Debug)]
pub(super) struct Left {
    key: Key,
    tag: Option<Vec<u8>>,
    /// Until when; known once another begins.
    expires: Option<Instant>,
}

impl ClientTransfers {
    /// Gives a request that begins a Request-Tag, if it needs one.
    pub(super) fn set_apart(&mut self, asked: &mut Asked) {
        let request = &asked.request;
        if tag(request).is_some() || request.method == Code::GET && !registers(request) {
            return;
        }
        let key = Key::matchable(request);
        let is_taken = |tag: &Option<Vec<u8>>| {
            // An observation stays under way, and answers to other requests would come between its own.
            let is_for_others = tag.is_none() && request.method == Code::FETCH && registers(request);
            is_for_others || self.is_taken(&key, tag.as_deref(), asked)
        };
        let mut tags = std::iter::once(None).chain((0..).map(|number| Some(uint(number))));
        let Some(free) = tags.find(|tag| !is_taken(tag)) else { return };
        let others = self.asked.values_mut().filter(|other| is_of(&other.request, &key, free.as_deref()));
        for other in others.filter(|other| other.can_name_itself()) {
            (other.is_crowded, asked.is_crowded) = (true, true);
        }
        asked.is_crowded |= self.left.iter().any(|left| (&left.key, &left.tag) == (&key, &free));
        if let Some(tag) = free {
            asked.request.options.set(OptionNumber::REQUEST_TAG, tag);
        }
    }

    /// Sends a request anew whose body is to go in blocks, unlike others that have its key.
    pub(super) fn begin_in_blocks(&mut self, token: Token, limits: &TransferLimits) -> Step {
        let Some(mut asked) = self.asked.remove(&token) else { return Step::Unknown };
        asked.request.options.remove(OptionNumber::REQUEST_TAG);
        asked.is_crowded = false;
        self.set_apart(&mut asked);
        let next = asked.next_upload(token, limits);
        self.asked.insert(token, asked);
        Step::Send(next)
    }

    /// Whether a request with this key cannot have a tag.
    fn is_taken(&self, key: &Key, tag: Option<&[u8]>, asked: &Asked) -> bool {
        let by_asked = self.asked.values().filter(|other| is_of(&other.request, key, tag)).any(|other| {
            match asked.request.method {
                // Which of them a body is of does not matter, as all are of the same resource; but of notifications each has its own.
                Code::GET => registers(&other.request) || other.observation.is_some(),
                _ => !asked.is_like(other) || other.is_in_blocks() && !other.is_crowded,
            }
        });
        let is_left = |left: &Left| left.key == *key && left.tag.as_deref() == tag;
        by_asked || !asked.can_name_itself() && self.left.iter().any(is_left)
    }

    /// Remembers a request that is given up.
    pub(super) fn leave(&mut self, request: &Request) {
        if request.method == Code::GET {
            return;
        }
        if self.left.len() >= MOST_LEFT {
            self.left.remove(0);
        }
        let (key, tag) = (Key::matchable(request), tag(request).map(<[u8]>::to_vec));
        self.left.push(Left { key, tag, expires: None });
    }

    /// Forgets those of which the peer cannot hold anything any more.
    pub(super) fn expire_left(&mut self, limits: &TransferLimits, now: Instant) {
        for left in &mut self.left {
            left.expires.get_or_insert(now + limits.lifetime);
        }
        self.left.retain(|left| left.expires > Some(now));
    }
}

impl Asked {
    /// Whether requests for further blocks can say by the payload what they are of.
    fn can_name_itself(&self) -> bool {
        (1..=self.size.bytes()).contains(&self.request.payload.len())
    }

    /// Whether two requests of one key may do without different tags.
    fn is_like(&self, other: &Self) -> bool {
        let can = |one: &Self| one.can_name_itself() && !registers(&one.request) && one.observation.is_none();
        can(self) && can(other)
    }

    fn is_in_blocks(&self) -> bool {
        self.download.is_some() || self.collected.is_some()
    }
}

fn is_of(request: &Request, key: &Key, tag_of_it: Option<&[u8]>) -> bool {
    tag(request) == tag_of_it && Key::matchable(request) == *key
}

fn tag(request: &Request) -> Option<&[u8]> {
    request.options.get(OptionNumber::REQUEST_TAG)
}

fn registers(request: &Request) -> bool {
    request.observe == Some(Observe::Register)
}
