//! A client's `/sync`: polled by the client, and observed over the line.
//!
//! What is new comes by itself, and waits here for the client's poll. A poll that finds nothing is answered here when its time is over, and
//! nothing of it crosses the line. A delta is kept until the client has gone on from it: one that asks for it again gets it again.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::ClientKey;
use super::line::AskId;
use crate::coap::Instant;
use crate::matrix::sync::Counters;
use crate::matrix::sync::summary;

/// The number of a stream, which no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct StreamNumber(pub(super) u64);

/// One sequence of polls.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: StreamNumber,
    /// The poll, without its position and without how long it waits.
    pub(super) request: http::Request<Bytes>,
    pub(super) state: State,
    /// What has come and the client has not gone on from, the oldest first; and the number of the first.
    pub(super) deltas: VecDeque<Delta>,
    pub(super) first: u64,
    /// The numbers of those that are on the disk.
    pub(super) stored: Range<u64>,
    /// Where the client is when it has all of them; none before it has anything.
    pub(super) at: Option<String>,
    /// A later position of the homeserver's with nothing new since.
    pub(super) latest: Option<String>,
    pub(super) counters: Counters,
    /// Whether the gateway does not have the position any more: what comes next is the state as it is, to who is there.
    pub(super) is_lost: bool,
    pub(super) poll: Option<Poll>,
    /// When the client last asked.
    pub(super) used: Instant,
    /// When the gateway was last heard.
    pub(super) heard: Instant,
    pub(super) pause: Duration,
}

/// What is known at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Idle,
    /// It was asked for, and has not answered yet.
    Registering(AskId),
    /// It tells what is new.
    Observing(AskId),
    /// It could not be reached, and is asked again then.
    Resting(Instant),
}

/// A poll that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Poll {
    pub(super) client: ClientKey,
    pub(super) until: Instant,
}

/// What is new since a position.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    pub(super) from: Option<String>,
    pub(super) to: String,
    pub(super) response: http::Response<Bytes>,
}

/// What becomes of a poll.
#[derive(Debug)]
pub(super) enum Polled {
    /// It is answered by this.
    Answer(http::Response<Bytes>),
    /// It waits for what comes.
    Waits,
    /// It is from elsewhere: what is known here is of no use to it.
    Elsewhere,
}

/// What becomes of an answer of the homeserver.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It says something new.
    News,
    /// It says nothing.
    Nothing,
    /// It is none to a `/sync`.
    Other,
}

impl Stream {
    /// One that begins at a position.
    pub(super) fn new(
        number: StreamNumber,
        request: http::Request<Bytes>,
        at: Option<String>,
        now: Instant,
    ) -> Self {
        Self {
            number,
            request,
            state: State::Idle,
            deltas: VecDeque::new(),
            first: 0,
            stored: 0..0,
            at,
            latest: None,
            counters: Counters::default(),
            is_lost: false,
            poll: None,
            used: now,
            heard: now,
            pause: Duration::ZERO,
        }
    }

    /// Whether a request polls the same, wherever from.
    pub(super) fn is_of(&self, request: &http::Request<Bytes>) -> bool {
        self.request.uri() == request.uri() && self.is_of_client(request)
    }

    /// Whether a request is of the same client.
    pub(super) fn is_of_client(&self, request: &http::Request<Bytes>) -> bool {
        token(&self.request) == token(request)
    }

    /// Whether what is new for who asks this is told by itself.
    pub(super) fn is_observed_by(&self, request: &http::Request<Bytes>) -> bool {
        matches!(self.state, State::Observing(_)) && self.is_of_client(request)
    }

    /// Whether a position is one that it can go on from.
    pub(super) fn knows(&self, since: Option<&str>) -> bool {
        self.at.as_deref() == since
            || self.latest.is_some() && self.latest.as_deref() == since
            || self
                .deltas
                .iter()
                .any(|delta| delta.from.as_deref() == since || Some(delta.to.as_str()) == since)
    }

    /// A poll from a position, as far as it can be answered here.
    pub(super) fn poll(&mut self, since: Option<&str>) -> Polled {
        if !self.knows(since) {
            return Polled::Elsewhere;
        }
        // Who goes on from a delta has it, and all before it.
        if let Some(place) = self.deltas.iter().position(|delta| Some(delta.to.as_str()) == since) {
            self.deltas.drain(..=place);
            self.first += place as u64 + 1;
        }
        if since.is_some() && since == self.latest.as_deref() {
            self.first += self.deltas.len() as u64;
            self.deltas.clear();
        }
        match self.deltas.front() {
            Some(delta) => Polled::Answer(delta.response.clone()),
            None => Polled::Waits,
        }
    }

    /// Takes in an answer of the homeserver.
    pub(super) fn take(&mut self, response: http::Response<Bytes>) -> Taken {
        let Ok(said) = summary(response.body()) else { return Taken::Other };
        let is_first = self.at.is_none() || std::mem::take(&mut self.is_lost);
        let is_news = is_first || !said.is_empty_since(&self.counters);
        self.counters.merge(&said.counters);
        self.latest = None;
        if !is_news {
            if self.at.as_deref() != Some(said.next_batch.as_str()) {
                self.latest = Some(said.next_batch);
            }
            return Taken::Nothing;
        }
        let from = self.at.replace(said.next_batch.clone());
        self.deltas.push_back(Delta { from, to: said.next_batch, response });
        Taken::News
    }

    /// The answer to a poll that finds nothing: as the homeserver's, with the counters that it states each time.
    pub(super) fn nothing(&mut self) -> Option<http::Response<Bytes>> {
        if let Some(latest) = self.latest.take() {
            self.at = Some(latest);
        }
        let mut body = serde_json::Map::new();
        body.insert("next_batch".to_owned(), json!(self.at.as_ref()?));
        body.extend(self.counters.iter().map(|(name, value)| (name.to_owned(), value.clone())));
        let mut response = http::Response::new(Bytes::from(Value::Object(body).to_string()));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        Some(response)
    }

    /// Whether the gateway knows of it, or is to hear of it by itself.
    pub(super) fn is_known(&self) -> bool {
        self.state != State::Idle
    }

    /// Whether a poll may be told that nothing is new: to who has nothing yet, only the homeserver can say something.
    pub(super) fn may_end_idle(&self) -> bool {
        self.at.is_some()
    }

    /// The number of what comes next.
    pub(super) fn next(&self) -> u64 {
        self.first + self.deltas.len() as u64
    }

    /// Where a registration begins: after all that has come.
    pub(super) fn resume(&self) -> Option<&str> {
        if self.is_lost {
            return None;
        }
        self.latest.as_deref().or(self.at.as_deref())
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.deltas.iter().map(|delta| delta.response.body().len()).sum()
    }
}

fn token(request: &http::Request<Bytes>) -> Option<&http::HeaderValue> {
    request.headers().get(header::AUTHORIZATION)
}
