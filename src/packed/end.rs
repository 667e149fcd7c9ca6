//! The two ends of an association, with all that they know of each other.
//!
//! An end changes when a message was written or read without an error, and not otherwise. What it is after that has to be on the disk
//! before the message leaves, where it is to outlast the process: else, it begins a new epoch when it comes back.

use serde::Deserialize;
use serde::Serialize;

use crate::packed::aliases::Mirror;
use crate::packed::aliases::Own;
use crate::packed::coder::Coders;
use crate::packed::draft::Agreement;
use crate::packed::draft::Home;
use crate::packed::draft::Known;
use crate::packed::draft::Spelling;
use crate::packed::error::DecodeError;
use crate::packed::error::EncodeError;
use crate::packed::journal::Change;
use crate::packed::journal::Journal;
use crate::packed::journal::Step;
use crate::packed::message;
use crate::packed::message::Asked;
use crate::packed::message::Limits;
use crate::packed::message::Read;
use crate::packed::message::Request;
use crate::packed::message::Response;
use crate::packed::tokens::Mark;
use crate::packed::tokens::Marks;
use crate::packed::tokens::Tokens;
use crate::packed::tokens::Transactions;

/// The end at the homeserver: reads requests, writes responses and notifications.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayEnd {
    agreement: Agreement,
    own: Own,
    peer: Mirror,
    tokens: Tokens,
    messages: u64,
    #[serde(skip)]
    journal: Journal,
}

/// The end at the client: writes requests, reads responses and notifications.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProxyEnd {
    agreement: Agreement,
    own: Own,
    peer: Mirror,
    marks: Marks,
    transactions: Transactions,
    messages: u64,
}

/// The number of a message among those that an end has written: what its acknowledgement is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageNumber(u64);

/// A message, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The payload of the CoAP message.
    pub payload: Vec<u8>,
    /// To be told to `acknowledge` when it has arrived.
    pub message: MessageNumber,
    /// What it asks, or what it answers.
    pub asked: Asked,
    /// How many bytes of items there were before they were coded.
    pub items: usize,
}

impl GatewayEnd {
    /// Begins an association.
    pub fn new(agreement: Agreement) -> Self {
        let (own, peer, tokens) = (Own::default(), Mirror::default(), Tokens::default());
        GatewayEnd { agreement, own, peer, tokens, messages: 0, journal: Journal::default() }
    }

    /// What was agreed.
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// Notes what changes from here on, until it is taken.
    pub fn keep_changes(&mut self) {
        self.journal.begin();
    }

    /// What has changed since that was asked last, or since it was first to be noted; but for new epochs, of which the whole is to be stored.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.journal.take()
    }

    /// Does a step again, on an end as it was before it.
    pub fn redo(&mut self, change: Change) {
        self.step(change.0);
    }

    fn note(&mut self, step: Step) {
        self.journal.note(&step);
        self.step(step);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Read(entries) => self.peer.commit(entries),
            Step::Wrote { entries, next, tokens, mark } => {
                self.own.commit(self.messages, entries, next);
                self.tokens.commit(tokens, mark);
                self.messages += 1;
            }
            Step::Nothing => self.messages += 1,
            Step::Acknowledged(message) => self.own.acknowledge(message),
        }
    }

    /// Begins a new epoch: aliases are forgotten, the homeserver's tokens are not.
    pub fn begin_epoch(&mut self, epoch: u32, transactions: u32) {
        self.agreement = Agreement { epoch, transactions, ..self.agreement };
        self.own.forget();
        self.peer = Mirror::default();
    }

    /// Reads a request: what to ask the homeserver, and what the response answers.
    pub fn decode_request(
        &mut self,
        payload: &[u8],
        coders: &Coders,
        limits: Limits,
    ) -> Result<(Request, Asked), DecodeError> {
        let read = message::read_request(payload, self.known(), coders, limits)?;
        let (what, asked) = (read.what, read.asked);
        read.reader.source.end()?;
        let entries = read.reader.learned.entries;
        if !entries.is_empty() {
            self.note(Step::Read(entries));
        }
        Ok((what, asked))
    }

    /// Writes a response.
    pub fn encode_response(
        &mut self,
        response: &Response,
        asked: Asked,
        coders: &Coders,
        spelling: Spelling,
    ) -> Encoded {
        self.encode(response, asked, None, coders, spelling)
    }

    /// Writes a notification of what is new since `position`, a token of the homeserver that the proxy is known to have got.
    pub fn encode_notification(
        &mut self,
        response: &Response,
        asked: Asked,
        position: &str,
        coders: &Coders,
        spelling: Spelling,
    ) -> Encoded {
        let position = self.tokens.number(position).and_then(|number| self.tokens.mark(number));
        self.encode(response, asked, position, coders, spelling)
    }

    fn encode(
        &mut self,
        response: &Response,
        asked: Asked,
        position: Option<Mark>,
        coders: &Coders,
        spelling: Spelling,
    ) -> Encoded {
        if position.is_none() && *response == message::nothing_to_say() {
            self.note(Step::Nothing);
            return Encoded {
                payload: Vec::new(),
                message: MessageNumber(self.messages - 1),
                asked,
                items: 0,
            };
        }
        let mut message = message::write_response(response, asked, position, self.known(), spelling);
        let (payload, items) = message.code(coders);
        let (mark, asked, draft) = (message.mark(), message.asked, message.writer.draft);
        self.note(Step::Wrote { entries: draft.entries, next: draft.next, tokens: draft.tokens, mark });
        Encoded { payload, message: MessageNumber(self.messages - 1), asked, items }
    }

    /// Notes that a message arrived at the proxy, and was understood.
    pub fn acknowledge(&mut self, message: MessageNumber) {
        if self.own.awaits(message.0) {
            self.note(Step::Acknowledged(message.0));
        }
    }

    fn known(&self) -> Known<'_> {
        let home = Home::Gateway(&self.tokens);
        Known { own: &self.own, peer: &self.peer, home, agreement: self.agreement }
    }
}

impl ProxyEnd {
    /// Begins an association.
    pub fn new(agreement: Agreement) -> Self {
        ProxyEnd {
            agreement,
            own: Own::default(),
            peer: Mirror::default(),
            marks: Marks::default(),
            transactions: Transactions::default(),
            messages: 0,
        }
    }

    /// What was agreed.
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// Begins a new epoch: aliases are forgotten, transactions are not.
    pub fn begin_epoch(&mut self, epoch: u32, tokens: u32) {
        self.agreement = Agreement { epoch, tokens, ..self.agreement };
        self.own.forget();
        self.peer = Mirror::default();
        self.marks = Marks::default();
    }

    /// Writes a request.
    pub fn encode_request(
        &mut self,
        request: &Request,
        coders: &Coders,
        spelling: Spelling,
    ) -> Result<Encoded, EncodeError> {
        let mut message = message::write_request(request, self.known(), spelling)?;
        let (payload, items) = message.code(coders);
        let (asked, draft, transaction) = (message.asked, message.writer.draft, message.writer.transaction);
        self.own.commit(self.messages, draft.entries, draft.next);
        if let Some((number, text)) = transaction {
            self.transactions.commit(number, &request.path, &text);
        }
        self.messages += 1;
        Ok(Encoded { payload, message: MessageNumber(self.messages - 1), asked, items })
    }

    /// Reads a response to what was asked.
    pub fn decode_response(
        &mut self,
        payload: &[u8],
        asked: Asked,
        coders: &Coders,
        limits: Limits,
    ) -> Result<Response, DecodeError> {
        if payload.is_empty() {
            return Ok(message::nothing_to_say());
        }
        self.decode(payload, asked, false, coders, limits)
    }

    /// Reads a notification of what was asked.
    pub fn decode_notification(
        &mut self,
        payload: &[u8],
        asked: Asked,
        coders: &Coders,
        limits: Limits,
    ) -> Result<Response, DecodeError> {
        self.decode(payload, asked, true, coders, limits)
    }

    fn decode(
        &mut self,
        payload: &[u8],
        asked: Asked,
        is_notification: bool,
        coders: &Coders,
        limits: Limits,
    ) -> Result<Response, DecodeError> {
        let marks = |token| self.marks.mark(token);
        let position: Option<&dyn Fn(u64) -> Option<Mark>> =
            if is_notification { Some(&marks) } else { None };
        let read = message::read_response(payload, asked, position, self.known(), coders, limits)?;
        let mark = read.mark();
        let Read { what, reader, .. } = read;
        reader.source.end()?;
        let learned = reader.learned;
        self.peer.commit(learned.entries);
        self.marks.commit(learned.tokens.into_iter(), mark);
        Ok(what)
    }

    /// Notes that a message arrived at the gateway, and was understood.
    pub fn acknowledge(&mut self, message: MessageNumber) {
        self.own.acknowledge(message.0);
    }

    fn known(&self) -> Known<'_> {
        let home = Home::Proxy(&self.marks, &self.transactions);
        Known { own: &self.own, peer: &self.peer, home, agreement: self.agreement }
    }
}
