//! Request bodies that are put together at a server: block by block (RFC 7959 §2.5), or from bursts of blocks (RFC 9177 §4.3).

use bytes::{Bytes, BytesMut};

use super::gathered::{Gathered, Next};
use super::key::Key;
use super::server::{Plan, Received, Reply, diagnostic, refuse, request, too_large};
use super::{TransferLimits, is_sticky, missing};
use crate::coap::block::Block;
use crate::coap::code::Code;
use crate::coap::message::{Kind, Message, Token};
use crate::coap::option::{OptionNumber, Options};
use crate::coap::request::content_format;
use crate::coap::time::Instant;

/// Request bodies, and what is remembered of those that came in bursts.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    held: Vec<Upload>,
    done: Vec<Done>,
}

impl Uploads {
    /// Takes in the next block of a body.
    pub(super) fn receive_block(
        &mut self,
        message: &Message,
        block: Block,
        plan: Plan,
        limits: &TransferLimits,
        now: Instant,
    ) -> Received {
        if let Err(refusal) = check(message, block, limits) {
            if refusal.code == Code::REQUEST_ENTITY_TOO_LARGE {
                self.held.retain(|upload| upload.key != plan.key);
            }
            return Received::Answer(refusal);
        }
        if block.number == 0 {
            self.held.retain(|upload| upload.key != plan.key);
            self.held.push(Upload::new(message, &plan, Body::InOrder(BytesMut::new()), now));
        }
        let at = self
            .held
            .iter()
            .rposition(|upload| matches!(upload.body, Body::InOrder(_)) && upload.key.serves(&plan.key));
        let Some(at) = at else {
            // §2.9.2: the blocks before this one are not here.
            return refuse(
                Code::REQUEST_ENTITY_INCOMPLETE,
                "earlier blocks are missing: start again from block 0",
            );
        };
        let mut upload = self.held.remove(at);
        if !upload.accept(block, &message.payload) {
            return refuse(Code::REQUEST_ENTITY_INCOMPLETE, "block out of order: start again from block 0");
        }
        if !block.more {
            return upload.complete(message, plan);
        }
        self.hold(upload, limits, now);
        let size = block.size.min(limits.block);
        Received::Answer(go_on(OptionNumber::BLOCK1, Block { size, ..block }))
    }

    /// Takes in a block of a burst.
    pub(super) fn receive_in_burst(
        &mut self,
        message: &Message,
        block: Block,
        plan: Plan,
        limits: &TransferLimits,
        now: Instant,
    ) -> Received {
        // What was done is not done again, whatever of it comes late.
        if let Some(done) = self.done.iter().rfind(|done| done.key.serves(&plan.key)) {
            let answer = done.answer.clone().filter(|_| message.kind == Kind::Confirmable);
            return answer.map_or(Received::Nothing, Received::Answer);
        }
        let known =
            |upload: &Upload| matches!(upload.body, Body::Gathered(_)) && upload.key.serves(&plan.key);
        let checked = match check(message, block, limits) {
            Ok(()) if message.options.get(OptionNumber::REQUEST_TAG).is_none() => {
                // §4.3; without it nobody knows one body from the next.
                Err(diagnostic(Code::BAD_REQUEST, "Q-Block1 without Request-Tag"))
            }
            Ok(()) if message.payload.is_empty() => {
                Err(diagnostic(Code::BAD_REQUEST, "block and its size differ"))
            }
            checked => checked,
        };
        if let Err(refusal) = checked {
            self.held.retain(|upload| !known(upload));
            return refuse_in_burst(message, block, refusal);
        }
        let mut upload = match self.held.iter().rposition(known) {
            Some(at) => self.held.remove(at),
            None => Upload::new(message, &plan, Body::Gathered(Gathered::new(message, block)), now),
        };
        let Body::Gathered(gathered) = &mut upload.body else { return Received::Nothing };
        let next = gathered.take_in(message, block, limits, now);
        let reply = match next {
            Next::Whole(body) => {
                upload.body = Body::InOrder(BytesMut::from(body));
                self.remember(&plan.key, limits, now);
                return upload.complete(message, plan);
            }
            Next::Differs => {
                let refusal = diagnostic(Code::BAD_REQUEST, "blocks of one body do not fit together");
                self.hold(upload, limits, now);
                return refuse_in_burst(message, block, refusal);
            }
            next => progress(next),
        };
        self.hold(upload, limits, now);
        reply.map_or(Received::Nothing, Received::Answer)
    }

    /// What is to be said of a body that has been waited for in vain, and the token to which; call until it returns `None`.
    pub(super) fn ask_for_missing(
        &mut self,
        limits: &TransferLimits,
        now: Instant,
    ) -> Option<(Token, Reply)> {
        self.held.iter_mut().find_map(|upload| match &mut upload.body {
            Body::Gathered(gathered) if gathered.ask_at.is_some_and(|at| at <= now) => {
                progress(gathered.ask_again(limits, now)).map(|reply| (gathered.token, reply))
            }
            _ => None,
        })
    }

    /// Whether a body is held of which the last block came under this token.
    pub(super) fn awaits_blocks(&self, token: Token) -> bool {
        let is_it = |upload: &Upload| matches!(&upload.body, Body::Gathered(of) if of.token == token);
        self.held.iter().any(is_it)
    }

    /// Keeps the answer to a request that came in bursts, for blocks of it that come late.
    pub(super) fn answered(&mut self, key: &Key, reply: &Reply) {
        if let Some(done) = self.done.iter_mut().rfind(|done| done.key == *key) {
            done.answer = Some(Reply { rest: Vec::new(), delivers: None, ..reply.clone() });
        }
    }

    /// Drops what nothing has come of in a while.
    pub(super) fn expire(&mut self, now: Instant) {
        self.held.retain(|upload| upload.expires > now);
        self.done.retain(|done| done.expires > now);
    }

    /// When [`Uploads::expire`] or [`Uploads::ask_for_missing`] next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ask_at = self.held.iter().filter_map(|upload| match &upload.body {
            Body::Gathered(gathered) => gathered.ask_at,
            Body::InOrder(_) => None,
        });
        let expires = self.held.iter().map(|upload| upload.expires);
        expires.chain(self.done.iter().map(|done| done.expires)).chain(ask_at).min()
    }

    /// Bytes that are held: of bodies, and of what is kept with them.
    pub(super) fn bytes(&self) -> usize {
        let held: usize = self.held.iter().map(|upload| upload.body.bytes() + upload.beside).sum();
        held + self.done.iter().map(Done::bytes).sum::<usize>()
    }

    /// Drops all of it.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.done.clear();
    }

    /// Whether nothing is held.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.done.is_empty()
    }

    /// Gives back the room of what is not there any more.
    pub(super) fn rest(&mut self) {
        self.held.shrink_to_fit();
        self.done.shrink_to_fit();
    }

    fn hold(&mut self, mut upload: Upload, limits: &TransferLimits, now: Instant) {
        upload.expires = now + limits.lifetime;
        self.held.push(upload);
        while self.held.len() > limits.bodies
            || self.held.iter().map(|upload| upload.body.bytes()).sum::<usize>() > limits.bytes
        {
            self.held.remove(0);
        }
    }

    /// Takes in that a request is done whose body came in bursts.
    pub(super) fn remember(&mut self, key: &Key, limits: &TransferLimits, now: Instant) {
        self.done.push(Done { key: key.clone(), answer: None, expires: now + limits.lifetime });
        while self.done.len() > limits.bodies.max(1) {
            self.done.remove(0);
        }
    }
}

/// A request's body, as far as it has come.
#[derive(Debug)]
struct Upload {
    key: Key,
    options: Options,
    body: Body,
    /// Bytes of what is kept beside the body: thousands of options fit into one datagram.
    beside: usize,
    expires: Instant,
}

#[derive(Debug)]
enum Body {
    InOrder(BytesMut),
    Gathered(Gathered),
}

impl Body {
    fn bytes(&self) -> usize {
        match self {
            Self::InOrder(body) => body.len(),
            Self::Gathered(gathered) => gathered.bytes(),
        }
    }
}

impl Upload {
    fn new(message: &Message, plan: &Plan, body: Body, now: Instant) -> Self {
        let (key, options) = (plan.key.clone(), message.options.clone());
        let beside = key.bytes() + options.bytes();
        Self { key, options, body, beside, expires: now }
    }

    /// Adds a block; `false` where it is neither the next nor one that is here already.
    fn accept(&mut self, block: Block, payload: &[u8]) -> bool {
        let Body::InOrder(body) = &mut self.body else { return false };
        let offset = block.offset();
        if offset == body.len() {
            body.extend_from_slice(payload);
            return true;
        }
        block.more && body.get(offset..offset + payload.len()) == Some(payload)
    }

    /// The request that a message completes.
    fn complete(self, message: &Message, plan: Plan) -> Received {
        let Body::InOrder(body) = self.body else { return Received::Nothing };
        let mut whole = Message { options: self.options, ..message.clone() };
        for (number, value) in message.options.iter().filter(|(number, _)| is_sticky(*number)) {
            whole.options.set(number, value);
        }
        Received::Request(request(&whole, body.freeze()), plan)
    }
}

/// A request that came in bursts, and was passed on.
#[derive(Debug)]
struct Done {
    key: Key,
    /// Its answer, or the first block of it, once there is one.
    answer: Option<Reply>,
    expires: Instant,
}

impl Done {
    fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| answer.options.bytes() + answer.payload.len());
        self.key.bytes() + answer
    }
}

/// Whether a block can be, and its body may.
fn check(message: &Message, block: Block, limits: &TransferLimits) -> Result<(), Reply> {
    let announced = message.options.get_uint(OptionNumber::SIZE1).unwrap_or(0) as usize;
    if announced > limits.body || block.offset() + message.payload.len() > limits.body {
        return Err(too_large(limits.body));
    }
    // §2.2: every block but the last is full.
    if block.more && message.payload.len() != block.size.bytes() || message.payload.len() > block.size.bytes()
    {
        return Err(diagnostic(Code::BAD_REQUEST, "block and its size differ"));
    }
    Ok(())
}

/// Of a burst that is not confirmed one block is refused, not each.
fn refuse_in_burst(message: &Message, block: Block, refusal: Reply) -> Received {
    match message.kind == Kind::Confirmable || block.number == 0 || !block.more {
        true => Received::Answer(refusal),
        false => Received::Nothing,
    }
}

/// What a client is told of how far its body has come (RFC 9177 §4.3).
fn progress(next: Next) -> Option<Reply> {
    match next {
        Next::Continue(block) => Some(go_on(OptionNumber::Q_BLOCK1, block)),
        Next::Missing(numbers) if !numbers.is_empty() => {
            let mut options = Options::new();
            options.push_uint(OptionNumber::CONTENT_FORMAT, content_format::MISSING_BLOCKS);
            let payload = Bytes::from(missing::encode(numbers));
            Some(Reply { options, payload, ..Reply::empty(Code::REQUEST_ENTITY_INCOMPLETE) })
        }
        Next::Missing(_) | Next::Wait | Next::Whole(_) | Next::Differs => None,
    }
}

/// 2.31: the next block, or the next burst, may come.
fn go_on(number: OptionNumber, block: Block) -> Reply {
    let mut options = Options::new();
    options.push(number, block.encode());
    Reply { options, ..Reply::empty(Code::CONTINUE) }
}
