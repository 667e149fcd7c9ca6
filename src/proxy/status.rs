//! `GET /_lowband/status`: how the link is, and what waits for it.

use bytes::Bytes;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use serde::Serialize;

use super::Proxy;
use super::answer;
use super::call::Kind;
use super::call::State;
use super::page;
use crate::coap::Instant;

/// How a proxy does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Whether the gateway answers.
    pub link: Link,
    /// Seconds since the gateway was last heard.
    pub heard_s: Option<u64>,
    /// What last went wrong on the way, if nothing has gone right since.
    pub last_error: Option<String>,
    /// What waits to be sent, the first that goes first.
    pub queue: Vec<Waiting>,
    /// Requests under way that are not in the queue.
    pub under_way: usize,
    /// `/sync`s that are observed, or to be.
    pub syncs: usize,
    /// What was counted since the start.
    pub counters: super::Counters,
}

/// Whether the gateway answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Nothing was asked yet.
    Unknown,
    /// It has answered last.
    Up,
    /// It has not answered last.
    Down,
}

/// Something in the queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waiting {
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// What it is, for people: a message to a room, …
    pub what: String,
    /// Bytes of its body, before it is packed.
    pub bytes: usize,
    /// Seconds since it came.
    pub age_s: u64,
    /// What is done with it.
    pub state: &'static str,
    /// Seconds until it is tried again.
    pub again_s: Option<u64>,
}

impl Proxy {
    /// How it does.
    pub fn status(&self, now: Instant) -> Status {
        let link = match (&self.silent, self.heard) {
            (Some(_), _) => Link::Down,
            (None, Some(_)) => Link::Up,
            (None, None) => Link::Unknown,
        };
        let open = self.calls.iter().filter(|(_, call)| !matches!(call.state, State::Done(_)));
        let (queued, passing): (Vec<_>, Vec<_>) = open.partition(|(_, call)| call.kind == Kind::Queued);
        let queue = queued.into_iter().map(|(_, call)| {
            let again_s = match call.state {
                State::Resting(until) => Some(until.since(now).as_secs()),
                _ => None,
            };
            Waiting {
                method: call.request.method().to_string(),
                path: call.request.uri().path().to_owned(),
                what: page::description(call.request.method().as_str(), call.request.uri().path()),
                bytes: call.request.body().len(),
                age_s: now.since(call.begun).as_secs(),
                state: call.state.name(),
                again_s,
            }
        });
        Status {
            link,
            heard_s: self.heard.map(|heard| now.since(heard).as_secs()),
            last_error: self.silent.as_ref().map(|(_, reason)| reason.clone()),
            queue: queue.collect(),
            under_way: passing.len(),
            syncs: self.streams.len(),
            counters: self.counters,
        }
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Asked(_) => "sending",
            State::Resting(_) => "to be tried again",
            State::Done(_) => "done",
        }
    }
}

impl Status {
    /// The answer to who asks for it.
    pub(super) fn answer(&self, page: bool) -> http::Response<Bytes> {
        let value = serde_json::to_value(self).unwrap_or_default();
        if !page {
            return answer::json(StatusCode::OK, &value);
        }
        let mut response = http::Response::new(Bytes::from(page::page(self)));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        response
    }
}
