//! Requests of clients that are under way, or wait in the queue, or whose answers nobody has taken.
//!
//! A client that gives up and asks the same again is another one waiting for the same call: nothing is asked twice. What is queued outlasts
//! clients, the line and the process; of it one after another is asked, in the order in which it came.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::header;

use super::ClientKey;
use super::line::AskId;
use crate::coap::Instant;
use crate::coap::Priority;

/// The number of a call: in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallNumber(pub(super) u64);

/// What is to be done for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is asked while somebody waits for its answer.
    Passing,
    /// It has its place in the queue until it is done.
    Queued,
    /// One of them at a time, while somebody waits; the later takes the place of an earlier one that says the same of the same thing.
    Latest,
    /// When nothing else is under way, while somebody waits.
    Deferred,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: http::Request<Bytes>,
    pub(super) kind: Kind,
    pub(super) priority: Priority,
    pub(super) clients: BTreeSet<ClientKey>,
    /// When the last client that waited for it came, or went.
    pub(super) since: Instant,
    pub(super) begun: Instant,
    pub(super) state: State,
    /// The pause before it is asked again, once that has failed.
    pub(super) pause: Duration,
}

/// How far a call is.
#[derive(Debug)]
pub(super) enum State {
    /// Others of the queue come first.
    Waiting,
    /// It was asked.
    Asked(AskId),
    /// It failed, and is asked again then.
    Resting(Instant),
    /// It has an answer, which is kept for who asks again.
    Done(http::Response<Bytes>),
}

/// All calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<CallNumber, Call>,
    asked: BTreeMap<AskId, CallNumber>,
    next: u64,
    bytes: usize,
}

impl Call {
    /// Whether it may be asked again when nobody knows what became of it: what has the same effect twice as once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.request.method().is_idempotent()
    }

    /// Whether it asks the same.
    pub(super) fn is(&self, request: &http::Request<Bytes>) -> bool {
        self.request.method() == request.method()
            && self.request.uri() == request.uri()
            && self.request.body() == request.body()
            && token(&self.request) == token(request)
    }

    /// Whether what a later request says holds instead of what this one would have said: of typing, presence and the read marker it is the
    /// same path; of receipts the same but for the event, and the same thread.
    pub(super) fn is_replaced_by(&self, later: &http::Request<Bytes>) -> bool {
        let kind_of = |request: &http::Request<Bytes>| {
            let path = request.uri().path().to_owned();
            match path.split_once("/receipt/") {
                Some((room, receipt)) => {
                    format!("{room}/receipt/{}", receipt.split('/').next().unwrap_or_default())
                }
                None => path,
            }
        };
        let is_receipt = later.uri().path().contains("/receipt/");
        self.kind == Kind::Latest
            && matches!(self.state, State::Waiting)
            && self.request.method() == later.method()
            && kind_of(&self.request) == kind_of(later)
            && (!is_receipt || self.request.body() == later.body())
            && token(&self.request) == token(later)
    }

    fn bytes(&self) -> usize {
        let answer = match &self.state {
            State::Done(answer) => answer.body().len(),
            _ => 0,
        };
        self.request.body().len() + self.request.uri().path().len() + answer
    }
}

impl Calls {
    /// Adds one.
    pub(super) fn add(&mut self, number: CallNumber, call: Call) {
        self.next = self.next.max(number.0 + 1);
        self.bytes += call.bytes();
        self.calls.insert(number, call);
    }

    /// A number that none has had.
    pub(super) fn number(&mut self) -> CallNumber {
        self.next += 1;
        CallNumber(self.next - 1)
    }

    pub(super) fn get(&self, number: CallNumber) -> Option<&Call> {
        self.calls.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: CallNumber) -> Option<&mut Call> {
        self.calls.get_mut(&number)
    }

    /// The call that asks the same as a request.
    pub(super) fn same(&self, request: &http::Request<Bytes>) -> Option<CallNumber> {
        self.calls.iter().find(|(_, call)| call.is(request)).map(|(number, _)| *number)
    }

    /// The call that was asked by this.
    pub(super) fn asked(&self, id: AskId) -> Option<CallNumber> {
        self.asked.get(&id).copied()
    }

    /// Changes how far a call is.
    pub(super) fn set(&mut self, number: CallNumber, state: State) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if let State::Asked(id) = call.state {
            self.asked.remove(&id);
        }
        if let State::Asked(id) = state {
            self.asked.insert(id, number);
        }
        self.bytes -= call.bytes();
        call.state = state;
        self.bytes += call.bytes();
    }

    /// Forgets a call.
    pub(super) fn remove(&mut self, number: CallNumber) -> Option<Call> {
        let call = self.calls.remove(&number)?;
        if let State::Asked(id) = call.state {
            self.asked.remove(&id);
        }
        self.bytes -= call.bytes();
        Some(call)
    }

    /// All, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CallNumber, &Call)> {
        self.calls.iter().map(|(number, call)| (*number, call))
    }

    /// The first of a kind that is not done.
    pub(super) fn first(&self, kind: Kind) -> Option<(CallNumber, &Call)> {
        self.iter().find(|(_, call)| call.kind == kind && !matches!(call.state, State::Done(_)))
    }

    /// Whether any is under way.
    pub(super) fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Bytes of their bodies and answers.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn token(request: &http::Request<Bytes>) -> Option<&http::HeaderValue> {
    request.headers().get(header::AUTHORIZATION)
}
