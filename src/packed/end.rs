//! The two ends of an association, with all that they know of each other.
//!
//! An end changes when a message was written or read without an error, and not otherwise. What it is after that has to be on the disk
//! before the message leaves, where it is to outlast the process: else, it begins a new epoch when it comes back.

use serde::Deserialize;
use serde::Serialize;

use crate::packed::aliases::Mirror;
use crate::packed::aliases::Own;
use crate::packed::answers::Answers;
use crate::packed::answers::Unread;
use crate::packed::dictionary::Dictionary;
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
use crate::packed::tokens::parse_client_token;

/// The end at the homeserver: reads requests, writes responses and notifications.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayEnd {
    agreement: Agreement,
    pub(super) own: Own,
    pub(super) peer: Mirror,
    tokens: Tokens,
    messages: u64,
    #[serde(default)]
    answers: Answers,
    #[serde(skip)]
    journal: Journal,
}

/// The end at the client: writes requests, reads responses and notifications.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProxyEnd {
    agreement: Agreement,
    pub(super) own: Own,
    pub(super) peer: Mirror,
    marks: Marks,
    transactions: Transactions,
    messages: u64,
    #[serde(default)]
    unread: Unread,
    #[serde(skip)]
    references: u64,
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
        let answers = Answers::default();
        GatewayEnd { agreement, own, peer, tokens, messages: 0, answers, journal: Journal::default() }
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
            Step::Read { entries, proven } => {
                self.peer.commit(entries);
                proven.into_iter().for_each(|(kind, number)| self.own.prove(kind, number));
            }
            Step::Answers(answers) => self.answers = answers,
            Step::Held(number) => self.tokens.hold(number),
            Step::Wrote { entries, next, tokens, mark } => {
                self.own.commit(self.messages, entries, next);
                self.tokens.commit(self.messages, tokens, mark);
                self.messages += 1;
            }
            Step::Nothing => self.messages += 1,
            Step::Acknowledged(message) => {
                self.own.acknowledge(message);
                self.tokens.acknowledge(message);
            }
        }
    }

    /// Begins a new epoch: aliases are forgotten, the homeserver's tokens are not.
    pub fn begin_epoch(&mut self, epoch: u32, transactions: u32) {
        self.agreement = Agreement { epoch, transactions, ..self.agreement };
        self.own.forget();
        self.peer = Mirror::default();
        self.tokens.forget_marks();
        self.answers.begin_epoch();
    }

    /// The access token that the client holds this one in the place of; `None` where it is the homeserver's itself.
    ///
    /// # Errors
    /// One that stands for a token which is not known here any more.
    pub fn access_token(&mut self, token: &str) -> Result<Option<&str>, DecodeError> {
        let Some((generation, number)) = parse_client_token(token) else { return Ok(None) };
        if generation != self.agreement.tokens {
            return Err(DecodeError::UnknownToken(number));
        }
        if self.tokens.is_idle(number) {
            self.note(Step::Held(number));
        }
        self.tokens.token(number).map(Some)
    }

    /// Reads a request: what to ask the homeserver, and what the response answers.
    pub fn decode_request(
        &mut self,
        payload: &[u8],
        dictionary: &Dictionary,
        limits: Limits,
    ) -> Result<(Request, Asked), DecodeError> {
        let read = message::read_request(payload, self.known(dictionary), dictionary, limits)?;
        let (what, mut asked) = (read.what, read.asked);
        read.reader.source.end()?;
        let learned = read.reader.learned;
        let proven =
            learned.proven.into_iter().filter(|(kind, number)| self.own.awaits_proof(*kind, *number));
        let (entries, proven) = (learned.entries, proven.collect::<Vec<_>>());
        if !entries.is_empty() || !proven.is_empty() {
            self.note(Step::Read { entries, proven });
        }
        let giving = learned.marked.into_iter().filter_map(|token| self.tokens.given_by(token));
        let mut read: Vec<_> = giving.collect();
        self.change_answers(|answers| read.extend(answers.hear(&mut asked, payload)));
        read.into_iter().for_each(|message| self.acknowledge(MessageNumber(message)));
        Ok((what, asked))
    }

    fn change_answers(&mut self, change: impl FnOnce(&mut Answers)) {
        let before = self.answers.clone();
        change(&mut self.answers);
        if self.answers != before {
            self.journal.note(&Step::Answers(self.answers.clone()));
        }
    }

    /// Writes a response.
    pub fn encode_response(
        &mut self,
        response: &Response,
        asked: Asked,
        dictionary: &Dictionary,
        spelling: Spelling,
    ) -> Encoded {
        self.encode(response, asked, None, dictionary, spelling)
    }

    /// Writes a notification of what is new since `position`, a token of the homeserver that the proxy is known to have got.
    pub fn encode_notification(
        &mut self,
        response: &Response,
        asked: Asked,
        position: &str,
        dictionary: &Dictionary,
        spelling: Spelling,
    ) -> Encoded {
        let position = self.tokens.number(position).and_then(|number| self.tokens.mark(number));
        self.encode(response, asked, position, dictionary, spelling)
    }

    fn encode(
        &mut self,
        response: &Response,
        asked: Asked,
        position: Option<Mark>,
        dictionary: &Dictionary,
        spelling: Spelling,
    ) -> Encoded {
        if position.is_none() {
            let message = self.messages;
            self.change_answers(|answers| answers.write(message, asked));
        }
        if position.is_none() && *response == message::nothing_to_say() {
            self.note(Step::Nothing);
            return Encoded {
                payload: Vec::new(),
                message: MessageNumber(self.messages - 1),
                asked,
                items: 0,
            };
        }
        let mut message =
            message::write_response(response, asked, position, self.known(dictionary), spelling);
        let (payload, items) = message.code(dictionary);
        let (mark, asked, draft) = (message.mark(), message.asked, message.writer.draft);
        self.note(Step::Wrote { entries: draft.entries, next: draft.next, tokens: draft.tokens, mark });
        Encoded { payload, message: MessageNumber(self.messages - 1), asked, items }
    }

    /// Whether this end knows of having written a message: one that lost its last changes does not, and would give the numbers in it again.
    pub fn has_written(&self, message: MessageNumber) -> bool {
        message.0 < self.messages
    }

    /// Notes that a message arrived at the proxy, and was understood.
    pub fn acknowledge(&mut self, message: MessageNumber) {
        if self.own.awaits(message.0) || self.tokens.awaits(message.0) {
            self.note(Step::Acknowledged(message.0));
        }
    }

    fn known<'a>(&'a self, dictionary: &'a Dictionary) -> Known<'a> {
        let (home, tables) = (Home::Gateway(&self.tokens), dictionary.tables());
        Known { own: &self.own, peer: &self.peer, home, agreement: self.agreement, tables }
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
            unread: Unread::default(),
            references: 0,
        }
    }

    /// What was agreed.
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// How many aliases it has read and written in the place of what they stand for, in this process.
    pub fn references(&self) -> u64 {
        self.references
    }

    /// Begins a new epoch: aliases are forgotten, transactions are not.
    pub fn begin_epoch(&mut self, epoch: u32, tokens: u32) {
        self.agreement = Agreement { epoch, tokens, ..self.agreement };
        self.own.forget();
        self.peer = Mirror::default();
        self.marks = Marks::default();
        self.unread = Unread::default();
    }

    /// Writes a request.
    pub fn encode_request(
        &mut self,
        request: &Request,
        dictionary: &Dictionary,
        spelling: Spelling,
    ) -> Result<Encoded, EncodeError> {
        let is_alone = self.unread.is_empty();
        let mut message = message::write_request(request, is_alone, self.known(dictionary), spelling)?;
        let (payload, items) = message.code(dictionary);
        let (asked, draft, transaction) = (message.asked, message.writer.draft, message.writer.transaction);
        self.own.commit(self.messages, draft.entries, draft.next);
        if let Some((number, text)) = transaction {
            self.transactions.commit(number, &request.path, &text);
        }
        self.unread.ask(self.messages, is_alone);
        self.messages += 1;
        self.references += draft.references;
        Ok(Encoded { payload, message: MessageNumber(self.messages - 1), asked, items })
    }

    /// Reads a response to what was asked.
    pub fn decode_response(
        &mut self,
        payload: &[u8],
        asked: Asked,
        dictionary: &Dictionary,
        limits: Limits,
    ) -> Result<Response, DecodeError> {
        if payload.is_empty() {
            return Ok(message::nothing_to_say());
        }
        self.decode(payload, asked, false, dictionary, limits)
    }

    /// Reads a notification of what was asked.
    pub fn decode_notification(
        &mut self,
        payload: &[u8],
        asked: Asked,
        dictionary: &Dictionary,
        limits: Limits,
    ) -> Result<Response, DecodeError> {
        self.decode(payload, asked, true, dictionary, limits)
    }

    fn decode(
        &mut self,
        payload: &[u8],
        asked: Asked,
        is_notification: bool,
        dictionary: &Dictionary,
        limits: Limits,
    ) -> Result<Response, DecodeError> {
        let marks = |token| self.marks.mark(token);
        let position: Option<&dyn Fn(u64) -> Option<Mark>> =
            if is_notification { Some(&marks) } else { None };
        let read =
            message::read_response(payload, asked, position, self.known(dictionary), dictionary, limits)?;
        let mark = read.mark();
        let Read { what, reader, .. } = read;
        reader.source.end()?;
        let learned = reader.learned;
        self.references += learned.references;
        self.peer.commit(learned.entries);
        self.marks.commit(learned.tokens.into_iter(), mark);
        Ok(what)
    }

    /// Notes that a request arrived at the gateway and was understood, and that its answer was read.
    pub fn acknowledge(&mut self, message: MessageNumber) {
        self.own.acknowledge(message.0);
        self.unread.answered(message.0);
    }

    /// Notes that a request was refused: the gateway has learned nothing from it, and no packed answer follows.
    pub fn refused(&mut self, message: MessageNumber) {
        self.unread.refused(message.0);
    }

    /// Notes that nobody waits for the answer to a request any more, and that nothing of it can come to the gateway any more (RFC 7252 §4.8.2:
    /// EXCHANGE_LIFETIME after it began). A request of which that is not said counts as one whose answer is waited for, for the whole epoch.
    pub fn give_up(&mut self, message: MessageNumber) {
        self.unread.give_up(message.0);
    }

    fn known<'a>(&'a self, dictionary: &'a Dictionary) -> Known<'a> {
        let (home, tables) = (Home::Proxy(&self.marks, &self.transactions), dictionary.tables());
        Known { own: &self.own, peer: &self.peer, home, agreement: self.agreement, tables }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_beside_others_is_read_and_is_never_taken_for_a_hello() {
        let dictionary = Dictionary::built_in().clone().only(&[0]);
        for epoch in 0..9 {
            let agreement = Agreement { epoch, tokens: 7, transactions: 9 };
            let (mut proxy, mut gateway) = (ProxyEnd::new(agreement), GatewayEnd::new(agreement));
            let path = "/_matrix/client/v3/account/whoami".to_owned();
            let request = Request { method: "GET".to_owned(), path, ..Request::default() };
            for _ in 0..3 {
                let sent = proxy.encode_request(&request, &dictionary, Spelling::Short).unwrap();
                assert_ne!(sent.payload.first(), Some(&0x01), "epoch {epoch}");
                let (read, _) =
                    gateway.decode_request(&sent.payload, &dictionary, Limits::default()).unwrap();
                assert_eq!(read, request);
            }
        }
    }
}
