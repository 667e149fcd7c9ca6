//! The server's half of blockwise transfers with one peer (RFC 7959 §2.4, §2.5; RFC 9177 §4.3, §4.4).

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::key::Key;
use super::uploads::Uploads;
use super::wanted::Wanted;
use super::{TransferLimits, is_of_transfer};
use crate::coap::block::{Block, BlockSize};
use crate::coap::code::Code;
use crate::coap::message::{Message, Token};
use crate::coap::option::{OptionNumber, Options};
use crate::coap::request::{Observe, Request, Response};
use crate::coap::time::Instant;

/// Request bodies being put together, and response bodies being handed out.
#[derive(Debug, Default)]
pub struct ServerTransfers {
    uploads: Uploads,
    downloads: Vec<Download>,
    undelivered: Vec<Delivery>,
}

/// What a request message came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// The request is complete. [`ServerTransfers::respond`] makes its answer, by this plan.
    Request(Request, Plan),
    /// The request goes no further; this is its answer.
    Answer(Reply),
    /// It is a block of a request of which others are waited for, or of one that has been passed on: at most it is acknowledged.
    Nothing,
}

/// What tells a payload from others: RFC 8132 §2 has that of a FETCH in the cache key, and what a POST answers follows from its own, too.
type Fingerprint = [u8; 8];

/// How the response to a request is to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) key: Key,
    /// The request's payload, where it came whole.
    payload: Option<Fingerprint>,
    /// The block that was asked for.
    wanted: Block,
    /// The blocks that were asked for in one burst, where the client wishes for bursts.
    burst: Option<Wanted>,
    /// The request's last block, to be acknowledged in the response.
    block1: Option<Block>,
    /// Whether the request asks for the body's size (RFC 7959 §4).
    size_wanted: bool,
}

impl Plan {
    /// Whether it is for the response to the same request.
    pub fn is_for_same(&self, other: &Self) -> bool {
        self.key == other.key
    }

    fn of(
        message: &Message,
        (block1, block2): (Option<Block>, Option<Block>),
        mut burst: Option<Wanted>,
        limits: &TransferLimits,
    ) -> Self {
        let first = Block { number: 0, more: false, size: limits.block };
        // Whatever blocks a registration asks for, notifications are told from their beginning.
        if observe(message).is_some() {
            burst = burst.map(Wanted::beginning);
        }
        // The first of them stands for all of them where one block matters.
        let wanted = burst.as_ref().and_then(|burst| {
            let number = *burst.numbers.first()?;
            Some(Block { number, more: false, size: burst.size })
        });
        Self {
            key: Key::of(message),
            payload: fingerprint(message),
            wanted: wanted.or(block2).unwrap_or(first),
            burst,
            block1,
            size_wanted: message.options.get(OptionNumber::SIZE2).is_some(),
        }
    }

    /// The greatest block that is asked for.
    pub fn size(&self) -> BlockSize {
        self.wanted.size
    }

    /// Whether the body's blocks are to follow each other unasked.
    pub fn is_for_burst(&self) -> bool {
        self.burst.is_some()
    }

    /// Whether the body is asked for from its beginning, and not for what is missing of it.
    fn begins(&self) -> bool {
        self.burst.as_ref().map_or(self.wanted.number == 0, |burst| burst.anew)
    }

    /// The same for a client to which nothing is sent in bursts any more.
    pub fn without_bursts(self) -> Self {
        Self { burst: None, ..self }
    }
}

/// A response message, but for its kind, id and token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The response code.
    pub code: Code,
    /// All options.
    pub options: Options,
    /// The body, or one block of it.
    pub payload: Bytes,
    /// What has been delivered in full once this message is acknowledged.
    pub delivers: Option<Delivery>,
    /// The other blocks of a burst, which follow it.
    pub rest: Vec<Reply>,
}

impl Reply {
    /// One of nothing but a code.
    pub fn empty(code: Code) -> Self {
        Self { code, options: Options::new(), payload: Bytes::new(), delivers: None, rest: Vec::new() }
    }

    /// Makes it a notification, all of it (RFC 9177 §4.5).
    pub fn set_sequence(&mut self, sequence: u32) {
        for reply in
            std::iter::once(&mut self.options).chain(self.rest.iter_mut().map(|rest| &mut rest.options))
        {
            reply.push_uint(OptionNumber::OBSERVE, sequence);
        }
    }
}

/// A body whose arrival somebody waits for, by a number of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery(pub u64);

impl ServerTransfers {
    /// Takes in a request message, its options checked already.
    pub fn receive(&mut self, message: &Message, limits: &TransferLimits, now: Instant) -> Received {
        self.expire(now);
        let block = |number| Block::find(&message.options, number);
        // §2.2: the reserved size exponent 7 leads to 4.00.
        let (Ok(block1), Ok(block2)) = (block(OptionNumber::BLOCK1), block(OptionNumber::BLOCK2)) else {
            return refuse(Code::BAD_REQUEST, "block size exponent 7 is reserved");
        };
        let Ok(q_block1) = block(OptionNumber::Q_BLOCK1) else {
            return refuse(Code::BAD_REQUEST, "block size exponent 7 is reserved");
        };
        let q_block2 = message.options.get(OptionNumber::Q_BLOCK2).is_some();
        // RFC 9177 §4.1: the two kinds of blocks do not mix.
        if (q_block1.is_some() || q_block2) && (block1.is_some() || block2.is_some()) {
            return refuse(Code::BAD_REQUEST, "Block and Q-Block options in one request");
        }
        let burst = Wanted::of(&message.options);
        if q_block2 && burst.is_none() {
            return refuse(Code::BAD_REQUEST, "Q-Block2 options do not fit together");
        }
        let plan = Plan::of(message, (block1, block2), burst, limits);
        if let Some(block1) = block1 {
            return self.uploads.receive_block(message, block1, plan, limits, now);
        }
        if let Some(q_block1) = q_block1 {
            return self.uploads.receive_in_burst(message, q_block1, plan, limits, now);
        }
        if message.payload.len() > limits.body {
            return Received::Answer(too_large(limits.body));
        }
        if let Some(reply) = self.continue_download(message, &plan, limits, now) {
            return Received::Answer(reply);
        }
        // A client that goes on with a body that is held no more: a safe request is asked anew, and the ETag tells whether it is
        // the same body; any other must not be done twice.
        if !plan.begins() && message.code != Code::GET {
            return refuse(Code::REQUEST_ENTITY_INCOMPLETE, "the response's body is held no more");
        }
        Received::Request(request(message, message.payload.clone()), plan)
    }

    /// A request that was complete before a restart: its message, with the whole body. One whose body came in bursts is not made
    /// again from blocks of it that come late.
    pub fn recall(&mut self, message: &Message, limits: &TransferLimits, now: Instant) -> (Request, Plan) {
        let block = |number| Block::find(&message.options, number).ok().flatten();
        let blocks = (block(OptionNumber::BLOCK1), block(OptionNumber::BLOCK2));
        let plan = Plan::of(message, blocks, Wanted::of(&message.options), limits);
        if message.options.get(OptionNumber::Q_BLOCK1).is_some() {
            self.uploads.remember(&plan.key, limits, now);
        }
        (request(message, message.payload.clone()), plan)
    }

    /// The wanted block of a body that is held.
    fn continue_download(
        &mut self,
        message: &Message,
        plan: &Plan,
        limits: &TransferLimits,
        now: Instant,
    ) -> Option<Reply> {
        let goes_on = |download: &Download| {
            let pushed =
                download.delivery.is_some() && message.code == Code::GET && observe(message).is_none();
            download.key.serves(&plan.key) && (!plan.begins() || pushed)
        };
        // RFC 7959 §2.7: who asks for further blocks may leave the body of the request out, and means the last answer then. A client that
        // waits for several of the same key repeats it, or has a Request-Tag.
        let is_meant = |download: &Download| plan.payload.is_none() || download.payload == plan.payload;
        let is_unknown = |download: &Download| download.payload.is_none();
        let last = |is_it: &dyn Fn(&Download) -> bool| {
            self.downloads.iter().rposition(|download| goes_on(download) && is_it(download))
        };
        let at = last(&is_meant).or_else(|| last(&is_unknown))?;
        let mut download = self.downloads.remove(at);
        download.expires = now + limits.lifetime;
        let reply = download.reply_to(plan.wanted, plan.burst.as_ref(), limits.block, plan.size_wanted);
        download.is_told |= download.delivery.is_none() && download.ends_with(plan);
        self.downloads.push(download);
        Some(reply)
    }

    /// The answer to a complete request, whole or its first block; the rest is held for the requests that follow.
    ///
    /// `delivery` names what somebody wants to know the arrival of.
    pub fn respond(
        &mut self,
        plan: Plan,
        response: Response,
        delivery: Option<Delivery>,
        limits: &TransferLimits,
        now: Instant,
    ) -> Reply {
        let Plan { key, payload, mut wanted, mut burst, block1, size_wanted } = plan;
        let answered = key.clone();
        // An error is told from its beginning, whatever block of a success was asked for.
        if !response.code.is_success() {
            wanted.number = 0;
            burst = burst.map(Wanted::beginning);
        }
        // A new response to the same request takes the place of the old one.
        self.drop_downloads(|download| download.key == key && download.payload == payload);
        let mut reply =
            if response.payload.len() <= wanted.size.min(limits.block).bytes() && wanted.number == 0 {
                Reply {
                    options: response.options,
                    payload: response.payload,
                    delivers: delivery,
                    ..Reply::empty(response.code)
                }
            } else {
                let etag = Sha256::digest(&response.payload).iter().take(4).copied().collect();
                let (beside, expires) = (key.bytes(), now + limits.lifetime);
                let download =
                    Download { key, payload, response, etag, delivery, beside, expires, is_told: false };
                let reply = download.reply_to(wanted, burst.as_ref(), limits.block, size_wanted);
                self.downloads.push(download);
                self.shrink_downloads(limits);
                reply
            };
        if let Some(block1) = block1 {
            reply.options.push(OptionNumber::BLOCK1, block1.encode());
        }
        self.uploads.answered(&answered, &reply);
        reply
    }

    /// Says that a delivery was acknowledged: its body is held on for repeats, but it is no longer pushed.
    pub fn delivered(&mut self, delivery: Delivery) {
        for download in self.downloads.iter_mut().filter(|download| download.delivery == Some(delivery)) {
            download.delivery = None;
        }
    }

    /// Gives up a delivery: its body is dropped, and not reported.
    pub fn abandon(&mut self, delivery: Delivery) {
        self.downloads.retain(|download| download.delivery != Some(delivery));
    }

    /// Drops what nobody has asked for in a while.
    pub fn expire(&mut self, now: Instant) {
        self.uploads.expire(now);
        self.drop_downloads(|download| download.expires <= now);
    }

    /// What is to be said, to which token, of a request's body whose blocks have been waited for in vain (RFC 9177 §4.3); call
    /// until it returns `None`.
    pub fn ask_for_missing(&mut self, limits: &TransferLimits, now: Instant) -> Option<(Token, Reply)> {
        self.uploads.ask_for_missing(limits, now)
    }

    /// Whether blocks of a request's body that comes in bursts are still to come, the last of which came under this token.
    pub fn awaits_blocks(&self, token: Token) -> bool {
        self.uploads.awaits_blocks(token)
    }

    /// When [`ServerTransfers::expire`] or [`ServerTransfers::ask_for_missing`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let downloads = self.downloads.iter().map(|download| download.expires);
        downloads.chain(self.uploads.deadline()).min()
    }

    /// The next delivery that will not arrive: its body expired, or another took its place.
    pub fn poll_undelivered(&mut self) -> Option<Delivery> {
        self.undelivered.pop()
    }

    /// Bytes that are held: of bodies, and of what is kept with them.
    pub fn bytes(&self) -> usize {
        self.uploads.bytes() + total(self.downloads.iter().map(Download::bytes))
    }

    /// Drops all bodies.
    pub fn clear(&mut self) {
        self.uploads.clear();
        self.drop_downloads(|_| true);
    }

    /// Whether no body is held.
    pub fn is_idle(&self) -> bool {
        self.uploads.is_idle() && self.downloads.is_empty() && self.undelivered.is_empty()
    }

    /// Gives back the room of what is not there any more.
    pub fn rest(&mut self) {
        self.uploads.rest();
        self.downloads.shrink_to_fit();
        self.undelivered.shrink_to_fit();
    }

    fn drop_downloads(&mut self, is_dropped: impl Fn(&Download) -> bool) {
        self.undelivered.extend(
            self.downloads
                .iter()
                .filter(|download| is_dropped(download))
                .filter_map(|download| download.delivery),
        );
        self.downloads.retain(|download| !is_dropped(download));
    }

    fn shrink_downloads(&mut self, limits: &TransferLimits) {
        while self.downloads.len() > limits.bodies.max(1)
            || self.downloads.len() > 1
                && total(self.downloads.iter().map(|download| download.response.payload.len())) > limits.bytes
        {
            // One of which the last block was asked for is most likely not asked for any more.
            let told = self.downloads.iter().position(|download| download.is_told);
            self.undelivered.extend(self.downloads.remove(told.unwrap_or(0)).delivery);
        }
    }
}

fn total(sizes: impl Iterator<Item = usize>) -> usize {
    sizes.sum()
}

/// A response's body, held for the requests for its blocks.
#[derive(Debug)]
struct Download {
    key: Key,
    payload: Option<Fingerprint>,
    response: Response,
    etag: Vec<u8>,
    delivery: Option<Delivery>,
    /// Bytes of what is kept beside the body.
    beside: usize,
    expires: Instant,
    /// Whether its last block was asked for.
    is_told: bool,
}

impl Download {
    /// What it takes up.
    fn bytes(&self) -> usize {
        self.response.payload.len() + self.beside
    }

    /// Whether its last block is among those that a request asks for.
    fn ends_with(&self, plan: &Plan) -> bool {
        let ends =
            |number: u32| (number as usize + 1) * plan.wanted.size.bytes() >= self.response.payload.len();
        match &plan.burst {
            Some(burst) => burst.numbers.last().is_some_and(|last| ends(*last)),
            None => ends(plan.wanted.number),
        }
    }

    fn reply_to(
        &self,
        wanted: Block,
        burst: Option<&Wanted>,
        greatest: BlockSize,
        size_wanted: bool,
    ) -> Reply {
        match burst {
            None => self.reply(wanted, OptionNumber::BLOCK2, greatest, size_wanted),
            Some(burst) => self.reply_in_burst(burst, greatest),
        }
    }

    /// The blocks of a burst. What is to be delivered has arrived when its last block has: that is held back until it is asked
    /// for alone, by a client that has all others.
    fn reply_in_burst(&self, burst: &Wanted, greatest: BlockSize) -> Reply {
        let length = self.response.payload.len();
        let (size, mut numbers) = burst.within(length, greatest);
        let is_last = |number: u32| (number as usize + 1) * size.bytes() >= length;
        if self.delivery.is_some() && numbers.len() > 1 {
            numbers.retain(|number| !is_last(*number));
        }
        // RFC 9177 §4.6: Size2 is in each.
        let reply =
            |number| self.reply(Block { number, more: false, size }, OptionNumber::Q_BLOCK2, greatest, true);
        let mut replies = numbers.into_iter().map(reply);
        match replies.next() {
            Some(first) => Reply { rest: replies.collect(), ..first },
            None => beyond_the_end(),
        }
    }

    fn reply(&self, wanted: Block, number: OptionNumber, greatest: BlockSize, size_wanted: bool) -> Reply {
        let (size, offset) = (wanted.size.min(greatest), wanted.offset());
        let body = &self.response.payload;
        let end = body.len().min(offset + size.bytes());
        let block = Block::at(offset, size, end < body.len()).filter(|_| offset < body.len());
        let Some(block) = block else {
            return beyond_the_end();
        };
        let mut options = self.response.options.clone();
        options.set(OptionNumber::ETAG, self.etag.clone());
        options.push(number, block.encode());
        if size_wanted {
            options.push_uint(OptionNumber::SIZE2, u32::try_from(body.len()).unwrap_or(u32::MAX));
        }
        let delivers = self.delivery.filter(|_| !block.more);
        Reply { options, payload: body.slice(offset..end), delivers, ..Reply::empty(self.response.code) }
    }
}

/// What tells a message's payload from others, where it is all of a body.
fn fingerprint(message: &Message) -> Option<Fingerprint> {
    let in_blocks = [OptionNumber::BLOCK1, OptionNumber::Q_BLOCK1]
        .iter()
        .any(|number| message.options.get(*number).is_some());
    if in_blocks || message.payload.is_empty() {
        return None;
    }
    Sha256::digest(&message.payload).first_chunk().copied()
}

/// The request that a message completes, without the options of its transfer.
pub(super) fn request(message: &Message, payload: Bytes) -> Request {
    let options = message
        .options
        .iter()
        .filter(|(number, _)| !is_of_transfer(*number))
        .map(|(number, value)| (number, value.to_vec()));
    Request { method: message.code, options: options.collect(), observe: observe(message), payload }
}

/// RFC 7641 §2: 0 registers and 1 deregisters; other values mean nothing in a request.
fn observe(message: &Message) -> Option<Observe> {
    match message.options.get_uint(OptionNumber::OBSERVE) {
        Some(0) => Some(Observe::Register),
        Some(1) => Some(Observe::Deregister),
        _ => None,
    }
}

/// RFC 7959 §2.9.3: 4.13, and in Size1 the greatest body that would do.
pub(super) fn too_large(limit: usize) -> Reply {
    let mut reply = diagnostic(Code::REQUEST_ENTITY_TOO_LARGE, "body is larger than the limit");
    reply.options.push_uint(OptionNumber::SIZE1, u32::try_from(limit).unwrap_or(u32::MAX));
    reply
}

fn beyond_the_end() -> Reply {
    diagnostic(Code::BAD_REQUEST, "block is beyond the end of the body")
}

pub(super) fn refuse(code: Code, text: &'static str) -> Received {
    Received::Answer(diagnostic(code, text))
}

/// RFC 7252 §5.5.2: an error with a diagnostic text, which has no Content-Format.
pub(super) fn diagnostic(code: Code, text: &'static str) -> Reply {
    let payload = Bytes::from_static(text.as_bytes());
    Reply { payload, ..Reply::empty(code) }
}
