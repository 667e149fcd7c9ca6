//! One request of a client's, with its transfers block by block (RFC 7959).

use bytes::{Bytes, BytesMut};

use super::client::{RequestError, is_safe};
use super::collected::Collected;
use super::offered::Offered;
use super::{TransferLimits, is_of_transfer, is_sticky};
use crate::coap::block::{Block, BlockSize};
use crate::coap::code::Code;
use crate::coap::message::{Kind, Message, MessageId, Token};
use crate::coap::option::{OptionNumber, Options};
use crate::coap::request::{Observe, Request, Response};
use crate::coap::time::Instant;

/// One request, from its first message to its response, or to the end of its observation.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) request: Request,
    pub(super) size: BlockSize,
    /// How many bytes of the request's body the peer has.
    pub(super) uploaded: usize,
    /// How many bytes of it are under way.
    pub(super) uploading: usize,
    /// Its body, where that goes out in bursts.
    pub(super) offered: Option<Offered>,
    pub(super) download: Option<Download>,
    /// Whether the response may come in bursts.
    pub(super) bursts: bool,
    /// A response's body that comes so.
    pub(super) collected: Option<Collected>,
    /// The ETag of what was collected of a body that has changed since.
    pub(super) outdated: Option<Vec<u8>>,
    pub(super) restarted: bool,
    /// The last message of a transfer under way, and when the block before it came: it may be asked for again.
    pub(super) last: Option<(Message, Instant)>,
    /// When it has waited too long; none while an observation waits for its next notification.
    pub(super) expires: Option<Instant>,
    /// The last notification's place in their order.
    pub(super) latest: Option<(u32, Instant)>,
    /// The token of the observation whose notification's body this fetches.
    pub(super) observation: Option<Token>,
    /// Whether the peer may hold the answers to others of the same key, so that further blocks are asked for with the body of the request.
    pub(super) is_crowded: bool,
}

impl Asked {
    /// A request of which nothing has left yet.
    pub(super) fn new(id: u64, request: Request, limits: &TransferLimits) -> Self {
        Self {
            id,
            request,
            size: limits.block,
            uploaded: 0,
            uploading: 0,
            offered: None,
            download: None,
            bursts: false,
            collected: None,
            outdated: None,
            restarted: false,
            last: None,
            expires: None,
            latest: None,
            observation: None,
            is_crowded: false,
        }
    }

    /// Whether it has part of the body with this ETag.
    pub(super) fn holds(&self, etag: Option<&[u8]>) -> bool {
        self.download.as_ref().is_some_and(|download| download.etag.as_deref() == etag)
            || self.collected.as_ref().is_some_and(|collected| Some(&*collected.etag) == etag)
    }

    /// When it has waited too long, or for missing blocks long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ask_at = self.collected.as_ref().and_then(|collected| collected.ask_at);
        [self.expires, ask_at].into_iter().flatten().min()
    }

    /// The message with the next block of the request's body, or with the whole of it.
    pub(super) fn next_upload(&mut self, token: Token, limits: &TransferLimits) -> Message {
        let body = &self.request.payload;
        let mut options = self.request.options.clone();
        if let Some(observe) = self.request.observe {
            options.push_uint(OptionNumber::OBSERVE, u32::from(observe == Observe::Deregister));
        }
        if self.bursts && self.request.observe != Some(Observe::Deregister) {
            // RFC 9177 §4.4: the whole body.
            options
                .push(OptionNumber::Q_BLOCK2, Block { number: 0, more: true, size: limits.block }.encode());
        } else if limits.block < BlockSize::MAX {
            // RFC 7959 §2.4: an early wish for the size of the response's blocks.
            options.push(OptionNumber::BLOCK2, Block { number: 0, more: false, size: limits.block }.encode());
        }
        let end = body.len().min(self.uploaded + self.size.bytes());
        if body.len() > self.size.bytes() {
            let block = Block::at(self.uploaded, self.size, end < body.len());
            options.push(OptionNumber::BLOCK1, block.map(Block::encode).unwrap_or_default());
            if self.uploaded == 0 {
                options.push_uint(OptionNumber::SIZE1, u32::try_from(body.len()).unwrap_or(u32::MAX));
            }
        }
        self.uploading = end - self.uploaded;
        message(self.request.method, token, options, body.slice(self.uploaded..end))
    }

    pub(super) fn receive_block1(&mut self, message: &Message, block: Block) -> Uploaded {
        let here = self.uploaded == block.offset() || self.uploaded == 0 && block.number == 0;
        // §2.3: a server that handles each block by itself says so by success without more; that is not the whole's.
        let incomplete = self.uploaded + self.uploading < self.request.payload.len();
        if message.code == Code::CONTINUE || message.code.is_success() && incomplete {
            if !here || self.uploading == 0 {
                return Uploaded::Repeat;
            }
            self.uploaded += self.uploading;
            // §2.3: the peer's wish for smaller blocks holds from the next one on.
            self.size = self.size.min(block.size);
            return Uploaded::Next;
        }
        // §2.9.3: too large, with a smaller size: once more in such blocks.
        if message.code == Code::REQUEST_ENTITY_TOO_LARGE && block.size < self.size && self.uploaded == 0 {
            self.size = block.size;
            return Uploaded::Next;
        }
        Uploaded::Done
    }

    /// The message that asks for a block of the response.
    pub(super) fn next_download(&self, token: Token, block: Block) -> Message {
        self.ask_for(token, OptionNumber::BLOCK2, &[block])
    }

    /// The message that asks for blocks of the response, by one of these options for each.
    pub(super) fn ask_for(&self, token: Token, option: OptionNumber, blocks: &[Block]) -> Message {
        // What describes the body goes with it.
        let of_body = |number| number == OptionNumber::CONTENT_FORMAT && !self.is_crowded;
        let kept = |number| !is_of_transfer(number) && !is_sticky(number) && !of_body(number);
        let options = self.request.options.iter().filter(|(number, _)| kept(*number));
        let mut options: Options = options.map(|(number, value)| (number, value.to_vec())).collect();
        for block in blocks {
            options.push(option, block.encode());
        }
        let payload = if self.is_crowded { self.request.payload.clone() } else { Bytes::new() };
        message(self.request.method, token, options, payload)
    }

    pub(super) fn receive_block2(
        &mut self,
        message: &Message,
        block: Option<Block>,
        limits: &TransferLimits,
    ) -> Downloaded {
        let held = self.download.as_ref().map_or(0, |download| download.body.len());
        let safe = is_safe(self.request.method) && !self.restarted && self.observation.is_none();
        let Some(block) = block else {
            // A safe request whose answer is held no more is made anew; a GET a server does anew by itself.
            if message.code == Code::REQUEST_ENTITY_INCOMPLETE && self.download.is_some() && safe {
                return Downloaded::Restart;
            }
            return Downloaded::Whole(response(message.code, &message.options, message.payload.clone()));
        };
        if held + message.payload.len() > limits.body {
            return Downloaded::Failed(RequestError::TooLarge(limits.body));
        }
        let etag = message.options.get(OptionNumber::ETAG).map(<[u8]>::to_vec);
        let same = self
            .download
            .as_ref()
            .is_none_or(|download| download.etag == etag && download.code == message.code);
        // A body that changed meanwhile, or a block that does not fit, is asked for anew, once, where asking twice does no harm.
        let full = !block.more || message.payload.len() == block.size.bytes();
        if block.offset() != held || !same || !full {
            if !message.code.is_success() && self.download.is_some() {
                return Downloaded::Whole(response(message.code, &message.options, message.payload.clone()));
            }
            return if safe { Downloaded::Restart } else { Downloaded::Failed(RequestError::BlocksDiffer) };
        }
        let download = self.download.get_or_insert_with(|| Download {
            code: message.code,
            options: message.options.clone(),
            etag,
            body: BytesMut::new(),
        });
        download.body.extend_from_slice(&message.payload);
        let size = block.size.min(self.size);
        match Block::at(download.body.len(), size, false) {
            Some(next) if block.more => Downloaded::Next(next),
            None if block.more => Downloaded::Failed(RequestError::TooLarge(limits.body)),
            _ => {
                let body = std::mem::take(&mut download.body).freeze();
                Downloaded::Whole(response(download.code, &download.options, body))
            }
        }
    }

    /// The request again from its beginning.
    pub(super) fn restart(&mut self, token: Token, limits: &TransferLimits) -> Message {
        self.restarted = true;
        self.uploaded = 0;
        self.download = None;
        self.outdated = self.collected.take().map(|collected| collected.etag).or(self.outdated.take());
        self.next_upload(token, limits)
    }
}

/// A response's body, as far as it has come.
#[derive(Debug)]
pub(super) struct Download {
    code: Code,
    options: Options,
    etag: Option<Vec<u8>>,
    body: BytesMut,
}

/// What a message says of a request's body.
pub(super) enum Uploaded {
    /// The peer has these blocks and waits for the next.
    Next,
    /// An answer that came before.
    Repeat,
    /// The message is the response.
    Done,
}

/// What a message says of a response's body.
pub(super) enum Downloaded {
    Whole(Response),
    Next(Block),
    Restart,
    Failed(RequestError),
}

pub(super) fn message(code: Code, token: Token, options: Options, payload: Bytes) -> Message {
    Message { kind: Kind::Confirmable, code, id: MessageId(0), token, options, payload }
}

/// The response with these options and this body, without what is of the transfer.
pub(super) fn response(code: Code, options: &Options, payload: Bytes) -> Response {
    let options = options.iter().filter(|(number, _)| !is_of_transfer(*number));
    Response { code, options: options.map(|(number, value)| (number, value.to_vec())).collect(), payload }
}
