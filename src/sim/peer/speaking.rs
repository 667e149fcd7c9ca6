//! What a device asks.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Asked, Note, Observing, Peer, What};
use crate::coap;
use crate::coap::{Instant, Observe};
use crate::endpoint::RequestId;
use crate::packed::EncodeError;
use crate::sim::homeserver::rich;
use crate::sim::oracle::Attempt;
use crate::sim::speech::Conversation;
use crate::sim::transcript::{Said, TRANSACTION};
use crate::translate::packed::caller::CallError;

impl Peer {
    pub(super) fn send_first(&mut self, now: Instant) {
        let Some(first) = self.outbox.front_mut() else { return };
        first.attempt.number += 1;
        let attempt = first.attempt.clone();
        let question = matches!(first.what, What::Question(_));
        let (method, target, body) = self.what(&attempt);
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let Some((conversation, request)) = self.begin(method, &target, body.as_ref()) else { return };
        let bytes = request.payload.len();
        let id = self.ask(request, now);
        self.sending = Some(Asked { id, asked: now, bytes, conversation, path });
        if !question {
            self.notes.push_back(Note::Asked(attempt));
        }
    }

    /// What the first of the outbox asks.
    fn what(&self, attempt: &Attempt) -> (&'static str, String, Option<Value>) {
        let Attempt { transaction, number, .. } = attempt;
        let v3 = "/_matrix/client/v3";
        match self.outbox.front().map(|first| &first.what) {
            Some(What::Question(kind)) => self.asks(*kind, transaction),
            Some(What::Message { room, text }) => {
                let (kind, mut body) = self.message(transaction, text);
                // An oracle is to know which attempt has arrived.
                if let (2.., Some(body)) = (*number, body.as_object_mut()) {
                    body.insert("attempt".to_owned(), (*number).into());
                }
                ("PUT", format!("{v3}/rooms/{room}/send/{kind}/{transaction}"), Some(body))
            }
            Some(What::Once) | None => {
                ("POST", format!("{v3}/createRoom"), Some(json!({ "name": transaction })))
            }
        }
    }

    fn message(&self, transaction: &str, text: &str) -> (&'static str, Value) {
        let (kind, mut body) = match self.config.is_rich {
            true => {
                let number = transaction.get(1..).and_then(|number| number.parse().ok()).unwrap_or(0);
                let previous = self.last.as_ref().map(|(_, event)| event.as_str());
                rich::content(number, text, previous)
            }
            false => ("m.room.message", json!({ "msgtype": "m.text", "body": text })),
        };
        // What the homeserver is told in the path may be another one.
        if let (true, Some(body)) = (self.config.is_overheard, body.as_object_mut()) {
            body.insert(TRANSACTION.to_owned(), transaction.into());
        }
        (kind, body)
    }

    /// A question of a kind, which is told from others by its number where it can have one.
    fn asks(&self, kind: u64, transaction: &str) -> (&'static str, String, Option<Value>) {
        let v3 = "/_matrix/client/v3";
        let Some((room, event)) = &self.last else {
            return ("GET", format!("{v3}/rooms/{}/state", rich::ROOMS[0]), None);
        };
        let number: u64 = transaction.get(1..).and_then(|number| number.parse().ok()).unwrap_or(0);
        let user = &self.config.user;
        match (kind % 6, &self.back) {
            (0, Some(back)) => {
                let query = format!("from={back}&dir=b&limit={}", 1_000 + number);
                ("GET", format!("{v3}/rooms/{room}/messages?{query}"), None)
            }
            (1, _) => ("POST", format!("{v3}/rooms/{room}/receipt/m.read/{event}"), Some(json!({}))),
            (2, _) => {
                let body = json!({ "typing": true, "timeout": 30_000 });
                ("PUT", format!("{v3}/rooms/{room}/typing/{user}"), Some(body))
            }
            (3, _) => {
                let users = json!({ rich::friend(number): [], user.as_str(): ["DEVICE1"] });
                ("POST", format!("{v3}/keys/query"), Some(json!({ "device_keys": users, "asked": number })))
            }
            (4, _) => ("GET", format!("{v3}/rooms/{room}/state"), None),
            _ => ("GET", format!("{v3}/rooms/{room}/event/{event}"), None),
        }
    }

    pub(super) fn register(&mut self, now: Instant) {
        let mut target = "/_matrix/client/v3/sync".to_owned();
        let since = self.since.as_ref().map(|since| format!("since={since}"));
        let limit = self.config.limit.map(|limit| {
            format!("filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A{limit}%7D%7D%7D")
        });
        for (number, parameter) in since.into_iter().chain(limit).enumerate() {
            target.push(if number == 0 { '?' } else { '&' });
            target.push_str(&parameter);
        }
        let Some((conversation, request)) = self.begin("GET", &target, None) else { return };
        let id = self.ask_to_observe(&conversation, request, now);
        self.observing = Some(Observing { id, asked: Some(now), conversation });
        self.heard = now;
    }

    pub(super) fn ask_to_observe(
        &mut self,
        conversation: &Conversation,
        mut request: coap::Request,
        now: Instant,
    ) -> RequestId {
        request.observe = (!conversation.is_hello()).then_some(Observe::Register);
        self.ask(request, now)
    }

    fn begin(
        &mut self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Option<(Conversation, coap::Request)> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header(http::header::AUTHORIZATION, format!("Bearer {}", self.config.token))
            .body(body)
            .ok()?;
        if self.config.is_overheard {
            self.notes.push_back(Note::Said(Said::new(&self.config.user, &request)));
        }
        match self.speech.begin(request) {
            Ok(begun) => Some(begun),
            Err(error) => {
                self.lost(&error);
                None
            }
        }
    }

    /// A position that nobody can read any more is of no use: it begins without one.
    pub(super) fn lost(&mut self, error: &CallError) {
        if matches!(error, CallError::Encode(EncodeError::ForeignToken)) {
            self.speech.tally.lost_positions += 1;
            self.since = None;
            self.back = None;
        }
    }
}
