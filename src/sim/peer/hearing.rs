//! What a device hears, and what it makes of it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{Asked, Ending, Note, Observing, Peer, What};
use crate::coap;
use crate::coap::{Instant, OptionNumber, RequestError};
use crate::endpoint::RequestId;
use crate::translate::packed::caller::{CallError, Step};

impl Peer {
    pub(super) fn received(
        &mut self,
        id: RequestId,
        response: &coap::Response,
        notification: bool,
        now: Instant,
    ) {
        let wait = response
            .options
            .get_uint(OptionNumber::MAX_AGE)
            .map(|seconds| Duration::from_secs(seconds.into()));
        let wait = wait.unwrap_or_default().max(self.config.pause);
        if let Some(sending) = self.sending.take_if(|sending| sending.id == id) {
            self.answered(sending, response, wait, now);
        } else if let Some(observing) = self.observing.take_if(|observing| observing.id == id) {
            self.told(observing, response, notification, wait, now);
        }
    }

    /// What was sent has an answer, which may be a part of how it gets one.
    fn answered(&mut self, mut sending: Asked, response: &coap::Response, wait: Duration, now: Instant) {
        let step = self.speech.receive(&mut sending.conversation, response);
        let step = self.read(step);
        sending.bytes += response.payload.len();
        let http = match step {
            Step::Send(request) => {
                sending.bytes += request.payload.len();
                sending.id = self.ask(request, now);
                self.sending = Some(sending);
                return;
            }
            Step::Done(http) => http,
        };
        let status = http.status();
        self.send_at = if status.is_success() { now } else { again(status, now, wait) };
        let is_question = self.outbox.front().is_some_and(|first| matches!(first.what, What::Question(_)));
        if is_question && status.is_success() {
            let body = serde_json::from_slice(http.body()).unwrap_or_default();
            self.notes.push_back(Note::Read(sending.path.clone(), body));
        }
        self.sending = Some(sending);
        self.end_sending(Ending::Answered(status), made(http.body()), Some(0));
    }

    /// A registration has an answer, or what it observes has changed.
    fn told(
        &mut self,
        mut observing: Observing,
        response: &coap::Response,
        notification: bool,
        wait: Duration,
        now: Instant,
    ) {
        self.heard = now;
        let is_first = observing.asked.is_some();
        let step = match is_first {
            true => self.speech.receive(&mut observing.conversation, response),
            false => self.speech.notified(&observing.conversation, response).map(Step::Done),
        };
        let is_lost = step.is_err();
        let http = match self.read(step) {
            Step::Send(request) => {
                if notification {
                    self.endpoint.cancel(observing.id, now);
                }
                observing.id = self.ask_to_observe(&observing.conversation, request, now);
                self.observing = Some(observing);
                return;
            }
            Step::Done(http) => http,
        };
        let status = http.status();
        if let Some(asked) = observing.asked.take() {
            let (end, bytes) = (Ending::Answered(status), Some(response.payload.len()));
            self.notes.push_back(Note::Ended { attempt: None, asked, end, made: None, bytes });
        }
        match notification && !is_lost {
            true => self.observing = Some(observing),
            false => {
                if notification {
                    self.endpoint.cancel(observing.id, now);
                }
                self.register_at = again(status, now, wait);
            }
        }
        if status == StatusCode::BAD_REQUEST && self.speech.is_packed() {
            self.since = None;
            self.back = None;
        }
        if status.is_success() {
            self.apply(serde_json::from_slice(http.body()).unwrap_or_default());
        }
    }

    /// What cannot be read is no answer.
    fn read(&mut self, step: Result<Step, CallError>) -> Step {
        step.unwrap_or_else(|error| {
            self.lost(&error);
            let mut none = http::Response::new(Bytes::new());
            *none.status_mut() = StatusCode::BAD_GATEWAY;
            Step::Done(none)
        })
    }

    /// Takes in a delta: what is in it is known from here on.
    fn apply(&mut self, delta: Value) {
        if let Some(next) = delta.get("next_batch").and_then(Value::as_str) {
            self.since = Some(next.to_owned());
        }
        let rooms = delta.pointer("/rooms/join").and_then(Value::as_object);
        for (name, room) in rooms.into_iter().flatten() {
            let text = |place| room.pointer(place).and_then(Value::as_str).map(str::to_owned);
            self.back = text("/timeline/prev_batch").or(self.back.take());
            let last = room.pointer("/timeline/events").and_then(Value::as_array).and_then(|all| all.last());
            let last = last.and_then(|last| last.get("event_id")?.as_str());
            self.last = last.map(|last| (name.clone(), last.to_owned())).or(self.last.take());
        }
        self.notes.push_back(Note::Delta(delta));
    }

    pub(super) fn failed(&mut self, id: RequestId, error: RequestError, now: Instant) {
        // Whoever does not answer may have been replaced, and may not know this device.
        self.speech.is_unknown();
        if self.sending.as_ref().is_some_and(|sending| sending.id == id) {
            self.end_sending(Ending::Failed(error), None, None);
            self.send_at = now + self.config.pause;
        } else if let Some(observing) = self.observing.take_if(|observing| observing.id == id) {
            self.end_registration(&observing, Ending::Failed(error));
            self.register_at = now + self.config.pause;
        }
    }
}

/// When what was answered so is tried again: who was not known introduces itself at once.
fn again(status: StatusCode, now: Instant, wait: Duration) -> Instant {
    if status == StatusCode::UNAUTHORIZED { now } else { now + wait }
}

/// The id that an answer gives.
fn made(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let id = body.get("event_id").or_else(|| body.get("room_id"))?;
    id.as_str().map(str::to_owned)
}
