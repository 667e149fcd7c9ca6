//! The client's half of requests to one peer, with their blockwise transfers (RFC 7959, RFC 9177) and observations (RFC 7641).

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::TransferLimits;
use super::apart::Left;
use super::asked::{Asked, Downloaded, Uploaded};
use crate::coap::block::Block;
use crate::coap::code::Code;
use crate::coap::message::{Message, Token};
use crate::coap::observe::is_newer;
use crate::coap::option::OptionNumber;
use crate::coap::request::{Observe, Request, Response};
use crate::coap::time::Instant;

/// Requests that are waiting for a response, and observations, by their tokens.
#[derive(Debug, Default)]
pub struct ClientTransfers {
    pub(super) asked: BTreeMap<Token, Asked>,
    /// What is known of the peer and bursts.
    pub(super) bursts: Support,
    /// The Request-Tag of the next body that goes out in bursts.
    pub(super) next_tag: u32,
    /// Requests that were given up, and may still be answered.
    pub(super) left: Vec<Left>,
}

/// Whether a peer understands the Q-Block options (RFC 9177 §4.1: both or none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Support {
    #[default]
    Untried,
    Understood,
    Refused,
}

/// What a response message came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Its token belongs to no request: it is to be rejected.
    Unknown,
    /// It was expected, and nothing follows from it.
    Nothing,
    /// The next message of this request is to be sent, with this token.
    Send(Message),
    /// Messages of this request are to be sent, with one token: some that are not confirmed, and then a confirmable one.
    SendBurst {
        /// Those that are not confirmed.
        before: Vec<Message>,
        /// The confirmable one.
        last: Message,
    },
    /// The response to a request, complete. After a notification more may follow.
    Complete {
        /// The number that the request was made under.
        id: u64,
        /// The response.
        response: Response,
        /// Whether the observation goes on.
        notification: bool,
    },
    /// The request has failed.
    Failed {
        /// The number that the request was made under.
        id: u64,
        /// Why.
        error: RequestError,
    },
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A later request of the same kind took its place before it was sent.
    #[error("a later one took its place")]
    Superseded,
    /// A message is longer than the link carries (bytes of UDP payload).
    #[error("a message of {length} bytes does not fit into the link's {most}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The most.
        most: usize,
    },
    /// The peer did not acknowledge, or not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The peer reset the request: it has no use for it (RFC 7252 §4.2).
    #[error("the peer reset the request")]
    Reset,
    /// Too many messages wait for the peer.
    #[error("too many requests wait for this peer")]
    Busy,
    /// The response's body is over the limit.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    /// A response's option that must be understood is not (RFC 7252 §5.4.1).
    #[error("the response has a critical option that is not known here: {0}")]
    UnknownOption(OptionNumber),
    /// The blocks of the response do not fit together, and did not on a second attempt.
    #[error("the response's blocks do not fit together")]
    BlocksDiffer,
}

impl ClientTransfers {
    /// Nothing asked yet. The bodies that go out in bursts are numbered from `first_tag` on.
    pub fn new(first_tag: u32) -> Self {
        Self { next_tag: first_tag, ..Self::default() }
    }

    /// Starts a request under a number and a token that no other request has; returns what to send.
    pub fn start(
        &mut self,
        id: u64,
        request: Request,
        token: Token,
        limits: &TransferLimits,
        now: Instant,
    ) -> Step {
        let mut asked = Asked::new(id, request, limits);
        self.expire_left(limits, now);
        let first = match self.offer(&mut asked, token, limits) {
            Some(first) => first,
            None => {
                self.set_apart(&mut asked);
                // RFC 9177 §4.1: not together with Block1. What is asked again where blocks do not fit together is to be safe (RFC 8132 §2).
                asked.bursts = limits.q_block
                    && self.bursts != Support::Refused
                    && is_safe(asked.request.method)
                    && asked.request.payload.len() <= asked.size.bytes();
                Step::Send(asked.next_upload(token, limits))
            }
        };
        self.asked.insert(token, asked);
        // Nobody may be there to hear a first message. One after others of its body is worth the patience.
        if matches!(&first, Step::SendBurst { before, .. } if !before.is_empty()) {
            self.note_sent(&first, now);
        }
        first
    }

    /// Takes in a response message, its options checked already. `fresh` is a token that is not in use.
    pub fn receive(
        &mut self,
        message: &Message,
        fresh: Token,
        limits: &TransferLimits,
        now: Instant,
    ) -> Step {
        let step = self.take_in(message, fresh, limits, now);
        self.note_sent(&step, now);
        step
    }

    /// Notes what may have to be sent again.
    fn note_sent(&mut self, step: &Step, now: Instant) {
        let last = match step {
            Step::Send(last) | Step::SendBurst { last, .. } => last,
            _ => return,
        };
        let Some(asked) = self.asked.get_mut(&last.token) else { return };
        asked.last = Some((last.clone(), now));
        if asked.offered.is_some() {
            // The answer is waited for from its acknowledgement on: the burst may take long to leave.
            asked.expires = None;
        }
    }

    fn take_in(&mut self, message: &Message, fresh: Token, limits: &TransferLimits, now: Instant) -> Step {
        let token = message.token;
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        asked.expires = Some(asked.next_deadline(limits, now));
        let block = |number| Block::find(&message.options, number);
        let (Ok(block1), Ok(block2)) = (block(OptionNumber::BLOCK1), block(OptionNumber::BLOCK2)) else {
            return self.fail(token, RequestError::BlocksDiffer);
        };
        if let Some(step) = self.receive_about_burst(message, limits) {
            return step;
        }
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        if asked.bursts && message.code == Code::BAD_OPTION {
            return self.refuse_bursts(token, limits);
        }
        if let Some(step) = self.receive_in_burst(message, fresh, limits, now) {
            return step;
        }
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        if let Some(block1) = block1 {
            match asked.receive_block1(message, block1) {
                Uploaded::Next if asked.uploaded == 0 && asked.is_crowded => {
                    return self.begin_in_blocks(token, limits);
                }
                Uploaded::Next => return Step::Send(asked.next_upload(token, limits)),
                Uploaded::Repeat => return Step::Nothing,
                Uploaded::Done => {}
            }
        }
        // One that is about the response's blocks says that the request was done.
        let uploading = asked.uploaded > 0 && asked.download.is_none();
        if message.code == Code::REQUEST_ENTITY_INCOMPLETE && uploading && !asked.restarted {
            return Step::Send(asked.restart(token, limits));
        }
        let sequence = message.options.get_uint(OptionNumber::OBSERVE).filter(|_| message.code.is_success());
        if let (Some(sequence), Some(Observe::Register)) = (sequence, asked.request.observe) {
            return self.receive_notification(message, block2, (sequence, now), fresh, limits);
        }
        match asked.receive_block2(message, block2, limits) {
            Downloaded::Whole(response) => self.complete(token, response),
            Downloaded::Next(block) => Step::Send(asked.next_download(token, block)),
            Downloaded::Restart => Step::Send(asked.restart(token, limits)),
            Downloaded::Failed(error) => self.fail(token, error),
        }
    }

    /// A notification, whole or the first block of it (RFC 7641 §3.2, RFC 7959 §2.6).
    fn receive_notification(
        &mut self,
        message: &Message,
        block2: Option<Block>,
        place: (u32, Instant),
        fresh: Token,
        limits: &TransferLimits,
    ) -> Step {
        let token = message.token;
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        asked.expires = None;
        // §3.4: what was sent before the newest that has come is not used.
        if asked.latest.is_some_and(|latest| !is_newer(latest, place)) {
            return Step::Nothing;
        }
        asked.latest = Some(place);
        asked.download = None;
        // The same body again, sent after a restart of the server's: what has come of it holds.
        let etag = message.options.get(OptionNumber::ETAG);
        if etag.is_some()
            && self.asked.values().any(|other| other.observation == Some(token) && other.holds(etag))
        {
            return Step::Nothing;
        }
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        let (id, size, is_crowded) = (asked.id, asked.size, asked.is_crowded);
        let request = Request { observe: None, ..asked.request.clone() };
        let received = asked.receive_block2(message, block2, limits);
        let download = asked.download.take();
        // A body that was still being fetched belongs to an older notification.
        self.asked.retain(|_, other| other.observation != Some(token));
        match received {
            Downloaded::Whole(response) => Step::Complete { id, response, notification: true },
            Downloaded::Next(block) => {
                // RFC 7959 §2.6: the rest is fetched by requests with another token.
                let expires = Some(place.1 + limits.response_timeout);
                let rest = Asked {
                    size,
                    download,
                    expires,
                    observation: Some(token),
                    is_crowded,
                    ..Asked::new(id, request, limits)
                };
                let next = rest.next_download(fresh, block);
                self.asked.insert(fresh, rest);
                Step::Send(next)
            }
            Downloaded::Restart => self.fail(token, RequestError::BlocksDiffer),
            Downloaded::Failed(error) => self.fail(token, error),
        }
    }

    pub(super) fn complete(&mut self, token: Token, response: Response) -> Step {
        let Some(asked) = self.asked.remove(&token) else { return Step::Unknown };
        let observed = asked.observation.and_then(|observation| self.asked.get_mut(&observation));
        Step::Complete { id: asked.id, response, notification: observed.is_some() }
    }

    /// Ends a request whose message failed; for the rest of a notification its observation ends too, since that body is lost.
    pub fn fail(&mut self, token: Token, error: RequestError) -> Step {
        let Some(asked) = self.asked.remove(&token) else { return Step::Nothing };
        self.leave(&asked.request);
        if let Some(observation) = asked.observation {
            self.asked.remove(&observation);
        }
        Step::Failed { id: asked.id, error }
    }

    /// Says that a request's message was acknowledged, and its response follows separately.
    pub fn acknowledged(&mut self, token: Token, limits: &TransferLimits, now: Instant) {
        let Some(asked) = self.asked.get_mut(&token).filter(|asked| asked.latest.is_none()) else { return };
        if let Some(offered) = &mut asked.offered {
            offered.confirmed();
        }
        let expires = asked.next_deadline(limits, now);
        match &mut asked.collected {
            Some(collected) => collected.acknowledged(asked.observation.is_some(), limits, now),
            None => asked.expires = Some(expires),
        }
    }

    /// Forgets a request. For an observation, returns the message that deregisters it (RFC 7641 §3.6) and wants no response.
    pub fn cancel(&mut self, id: u64, limits: &TransferLimits) -> Option<Message> {
        let token = self
            .asked
            .iter()
            .find(|(_, asked)| asked.id == id && asked.observation.is_none())
            .map(|(token, _)| *token)?;
        self.asked.retain(|_, asked| asked.id != id || asked.observation.is_none());
        let mut asked = self.asked.remove(&token)?;
        self.leave(&asked.request);
        asked.latest?;
        asked.request.observe = Some(Observe::Deregister);
        // RFC 7967 §2.1: no response of any class is wanted, only the acknowledgement.
        asked.request.options.set_uint(OptionNumber::NO_RESPONSE, 26);
        Some(asked.next_upload(token, limits))
    }

    /// What follows from a message that nobody answered: in the middle of a transfer it is sent again, for as long as there
    /// is patience; else the request has failed.
    pub fn unanswered(&mut self, token: Token, limits: &TransferLimits, now: Instant) -> Step {
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Nothing };
        if asked.collected.is_some() {
            return self.ask_for_missing(token, limits, now);
        }
        let harmless = match &asked.offered {
            // The peer has acknowledged a burst, and not said how far it has come.
            Some(offered) if !offered.is_confirming() => {
                let next = asked.next_set(token, self.bursts);
                let step = next.unwrap_or_else(|| self.fail(token, RequestError::Timeout));
                self.note_sent(&step, now);
                return step;
            }
            Some(offered) => !offered.is_out(),
            None => asked.last.as_ref().is_some_and(|(message, _)| is_harmless(message)),
        };
        let again = asked.last.as_ref().filter(|(_, since)| now < *since + limits.patience && harmless);
        match again {
            Some((message, _)) => {
                asked.expires = None;
                Step::Send(message.clone())
            }
            None => self.fail(token, RequestError::Timeout),
        }
    }

    /// Does what follows for one request that has waited too long; call until it returns `None`.
    pub fn expire(&mut self, limits: &TransferLimits, now: Instant) -> Option<Step> {
        let due = |asked: &Asked| asked.deadline().is_some_and(|deadline| deadline <= now);
        let token = self.asked.iter().find(|(_, asked)| due(asked)).map(|(token, _)| *token)?;
        Some(self.unanswered(token, limits, now))
    }

    /// When [`ClientTransfers::expire`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.asked.values().filter_map(Asked::deadline).min()
    }

    /// Whether the request with this token has another's method and path. One without a path may be for anything (docs/packed.md section 2).
    pub fn has_path_of(&self, token: Token, other: &Request) -> bool {
        let path = |request: &Request| -> Vec<Vec<u8>> {
            request.options.all(OptionNumber::URI_PATH).map(<[u8]>::to_vec).collect()
        };
        let wanted = path(other);
        let has = |asked: &Asked| asked.request.method == other.method && path(&asked.request) == wanted;
        !wanted.is_empty() && self.asked.get(&token).is_some_and(has)
    }

    /// The tokens in use.
    pub fn tokens(&self) -> BTreeSet<Token> {
        self.asked.keys().copied().collect()
    }

    /// Whether a token is in use.
    pub fn contains(&self, token: Token) -> bool {
        self.asked.contains_key(&token)
    }

    /// Whether no request waits and nothing is observed.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }
}

/// Whether a request may be made again where its answer is lost (RFC 7252 §5.1, RFC 8132 §2).
pub(super) fn is_safe(method: Code) -> bool {
    matches!(method, Code::GET | Code::FETCH)
}

/// Whether a message of a transfer may come twice without anything being done twice: it is not the one that completes a
/// request.
fn is_harmless(message: &Message) -> bool {
    let block = |number| Block::find(&message.options, number).ok().flatten();
    is_safe(message.code)
        || block(OptionNumber::BLOCK1).is_some_and(|block| block.more)
        || block(OptionNumber::BLOCK2).is_some_and(|block| block.number > 0)
}
