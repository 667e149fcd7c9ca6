//! Polls of `/sync`, and the observations that they are answered from.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::ClientKey;
use super::Failure;
use super::Follows;
use super::Output;
use super::Proxy;
use super::answer;
use super::line::AskId;
use super::line::Heard;
use super::line::Wants;
use super::memory;
use super::route;
use super::stream;
use super::stream::Delta;
use super::stream::Polled;
use super::stream::State;
use super::stream::Stream;
use super::stream::StreamNumber;
use super::stream::Taken;
use crate::coap::Instant;
use crate::coap::Priority;
use crate::matrix::error::ErrorCode;
use crate::packed::EncodeError;
use crate::translate::packed::caller::CallError;

const QUERY: &str = "the query cannot be read";

impl Proxy {
    /// A client polls.
    pub(super) fn poll_stream(&mut self, client: ClientKey, poll: route::Poll, now: Instant) {
        let route::Poll { request, since, timeout } = poll;
        let Some(place) = self.place_of(&request, since.as_deref(), now) else {
            self.counters.refused += 1;
            return self.answer(client, answer::later(5_000, "too many clients sync over the link"));
        };
        let (timeout, catch_up) = (Duration::from_millis(timeout), self.config.catch_up);
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.used = now;
        // One client has one poll: who polls again has given up the last one.
        let before = stream.poll.take();
        match stream.poll(since.as_deref()) {
            Polled::Answer(response) => self.answer(client, response),
            Polled::Waits | Polled::Elsewhere => {
                let is_told = matches!(stream.state, State::Observing(_));
                let until = now + if is_told { timeout } else { timeout.max(catch_up) };
                stream.poll = Some(stream::Poll { client, until });
                if !stream.is_known() {
                    self.register(place, now);
                }
            }
        }
        if let Some(before) = before.filter(|before| before.client != client) {
            self.answer(before.client, answer::later(1_000, "another poll has taken its place"));
        }
        self.remember_stream(place);
        self.advance_streams(now);
    }

    /// The stream that a poll goes on with, or a new one.
    fn place_of(
        &mut self,
        request: &http::Request<Bytes>,
        since: Option<&str>,
        now: Instant,
    ) -> Option<usize> {
        if let Some(known) =
            self.streams.iter().position(|stream| stream.is_of(request) && stream.knows(since))
        {
            return Some(known);
        }
        // Clients go on from their first sync by another filter. What has come meanwhile they are told all the same: a device has one sequence of
        // polls, and of what is sent to it the homeserver forgets what any of them was told.
        if since.is_some()
            && let Some(known) = self.streams.iter().position(|stream| {
                stream.poll.is_none() && stream.is_of_client(request) && stream.knows(since)
            })
        {
            self.silence(known, now);
            self.streams.get_mut(known)?.request = request.clone();
            return Some(known);
        }
        // A client that begins anew has no use for what it had.
        if let Some(left) =
            self.streams.iter().position(|stream| stream.is_of(request) && stream.poll.is_none())
        {
            self.end_stream(left, now);
        }
        if self.streams.len() >= self.config.streams {
            let idle = self.streams.iter().enumerate().filter(|(_, stream)| stream.poll.is_none());
            let (oldest, _) = idle.min_by_key(|(_, stream)| stream.used)?;
            self.end_stream(oldest, now);
        }
        let number = StreamNumber(self.next_stream);
        self.next_stream += 1;
        self.streams.push(Stream::new(number, request.clone(), since.map(str::to_owned), now));
        Some(self.streams.len() - 1)
    }

    /// Takes up what had come before a restart, for the streams that there are. What does not follow on from what is there comes again.
    pub(super) fn restore_streams(&mut self, deltas: BTreeMap<(StreamNumber, u64), Delta>) {
        for ((stream, number), delta) in deltas {
            let found = self.streams.iter_mut().find(|known| known.number == stream);
            match found.filter(|known| known.next() == number) {
                Some(known) => known.deltas.push_back(delta),
                None => {
                    let key = memory::key_of_delta(stream, number);
                    self.outputs.push_back(Output::Store { key, value: None });
                }
            }
        }
        for stream in &mut self.streams {
            stream.stored = stream.first..stream.next();
            // What is lost at the end is asked for again.
            if let Some(last) = stream.deltas.back().filter(|last| stream.at.as_ref() != Some(&last.to)) {
                (stream.at, stream.latest) = (Some(last.to.clone()), None);
            }
            self.next_stream = self.next_stream.max(stream.number.0 + 1);
        }
    }

    /// Has what has changed of a stream stored: a homeserver forgets what was sent to a device once the gateway has gone on.
    fn remember_stream(&mut self, place: usize) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        let (number, first, next) = (stream.number, stream.first, stream.next());
        let before = std::mem::replace(&mut stream.stored, first..next);
        let (key, value) = memory::stream(stream);
        self.outputs.push_back(Output::Store { key, value: Some(value) });
        for gone in before.start..first.min(before.end) {
            let key = memory::key_of_delta(number, gone);
            self.outputs.push_back(Output::Store { key, value: None });
        }
        for (come, delta) in (first..).zip(&stream.deltas).filter(|(come, _)| *come >= before.end) {
            let (key, value) = memory::delta(number, come, delta);
            self.outputs.push_back(Output::Store { key, value: Some(value) });
        }
    }

    /// Asks the gateway to tell what is new.
    fn register(&mut self, place: usize, now: Instant) {
        let Some(stream) = self.streams.get(place) else { return };
        let Some(request) = route::since(&stream.request, stream.resume()) else {
            return self.end_with(
                place,
                answer::error(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, QUERY),
                now,
            );
        };
        let id = self.ask(request, Wants::News, Priority::Message);
        let Some(stream) = self.streams.get_mut(place) else { return };
        (stream.state, stream.heard) = (State::Registering(id), now);
    }

    /// Something has come of an observation.
    pub(super) fn stream_heard(&mut self, id: AskId, heard: Heard, now: Instant) {
        let Some(place) = self.stream_asked(id) else { return };
        let (response, follows) = match heard {
            Heard::Answer(response, follows) => (response, follows),
            // The gateway has lost what the position stood for: its client is told all anew, as far as it goes on from there.
            Heard::Unaskable(CallError::Encode(EncodeError::ForeignToken)) if self.begins_anew(place) => {
                return self.register(place, now);
            }
            Heard::Unaskable(error) => {
                let message = error.to_string();
                let response = answer::error(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, &message);
                return self.end_with(place, response, now);
            }
            // What was in it comes again.
            Heard::Unreadable(_) => return self.rest_stream(place, Duration::ZERO, now),
        };
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.heard = now;
        if response.status() == StatusCode::BAD_REQUEST && self.begins_anew(place) {
            return self.register(place, now);
        }
        let Some(stream) = self.streams.get_mut(place) else { return };
        if response.status() != StatusCode::OK {
            return self.stream_refused(place, response, now);
        }
        stream.pause = Duration::ZERO;
        stream.state = match follows {
            Follows::More => State::Observing(id),
            // A gateway that does not observe this is asked again when its client asks.
            Follows::Nothing => State::Idle,
        };
        if let Some(cache) = &mut self.cache {
            cache.synced(response.body());
        }
        let taken = stream.take(response.clone());
        if taken != Taken::Other {
            self.remember_stream(place);
        }
        let Some(stream) = self.streams.get(place) else { return };
        match taken {
            Taken::Other => self.end_with(place, response, now),
            Taken::News => self.deliver(place, now),
            Taken::Nothing if stream.state == State::Idle => {
                let pause = self.config.pause;
                self.rest_stream(place, pause, now);
            }
            Taken::Nothing => {}
        }
    }

    /// Whether a stream is to be asked for from the beginning: it has a position, which is of no use any more.
    fn begins_anew(&mut self, place: usize) -> bool {
        let Some(stream) = self.streams.get_mut(place) else { return false };
        let has_position = stream.resume().is_some();
        stream.is_lost |= has_position;
        has_position
    }

    /// Gives a client that waits what is new.
    fn deliver(&mut self, place: usize, now: Instant) {
        let most = self.config.deltas;
        let Some(stream) = self.streams.get_mut(place) else { return };
        if let (Some(poll), Some(delta)) = (stream.poll, stream.deltas.front()) {
            stream.poll = None;
            stream.used = now;
            let response = delta.response.clone();
            self.answer(poll.client, response);
        }
        let Some(stream) = self.streams.get(place) else { return };
        // Who does not come for it is told the rest when it comes.
        if stream.deltas.len() > most || stream.bytes() > self.config.bytes {
            self.silence(place, now);
        }
    }

    /// The homeserver or the gateway has said no, or not now.
    fn stream_refused(&mut self, place: usize, response: http::Response<Bytes>, now: Instant) {
        if super::is_passing(response.status()) {
            let wait = super::after(&response).unwrap_or(self.config.pause);
            return self.rest_stream(place, wait, now);
        }
        self.end_with(place, response, now);
    }

    /// Nothing comes of what was asked.
    pub(super) fn stream_failed(&mut self, id: AskId, failure: &Failure, now: Instant) {
        let Some(place) = self.stream_asked(id) else { return };
        if failure.is_final {
            let message = format!("the link does not carry this: {}", failure.reason);
            let response = answer::error(StatusCode::BAD_GATEWAY, ErrorCode::ConnectionFailed, &message);
            return self.end_with(place, response, now);
        }
        let pause = self.config.pause;
        self.rest_stream(place, pause, now);
    }

    fn rest_stream(&mut self, place: usize, wait: Duration, now: Instant) {
        let longest = self.config.longest_pause;
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.state = State::Resting(now + wait.max(stream.pause));
        stream.pause = (stream.pause * 2).max(self.config.pause).min(longest);
        self.counters.again += 1;
    }

    /// Answers who waits, and forgets the stream.
    fn end_with(&mut self, place: usize, response: http::Response<Bytes>, now: Instant) {
        let poll = self.streams.get_mut(place).and_then(|stream| stream.poll.take());
        self.end_stream(place, now);
        if let Some(poll) = poll {
            self.answer(poll.client, response);
        }
    }

    fn end_stream(&mut self, place: usize, now: Instant) {
        self.silence(place, now);
        if place < self.streams.len() {
            let stream = self.streams.remove(place);
            let deltas = stream.stored.map(|number| memory::key_of_delta(stream.number, number));
            for key in deltas.chain([memory::key_of_stream(stream.number)]) {
                self.outputs.push_back(Output::Store { key, value: None });
            }
        }
    }

    /// Wants to hear no more for a stream, for now.
    fn silence(&mut self, place: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        let state = std::mem::replace(&mut stream.state, State::Idle);
        if let State::Registering(id) | State::Observing(id) = state {
            self.line.cancel(id, (&self.config, &mut self.outputs), now);
        }
    }

    fn stream_asked(&self, id: AskId) -> Option<usize> {
        self.streams.iter().position(|stream| match stream.state {
            State::Registering(asked) | State::Observing(asked) => asked == id,
            State::Idle | State::Resting(_) => false,
        })
    }

    pub(super) fn advance_streams(&mut self, now: Instant) {
        while let Some(place) =
            self.streams.iter().position(|stream| self.stream_deadline(stream).is_some_and(|at| at <= now))
        {
            self.advance_stream(place, now);
        }
    }

    fn advance_stream(&mut self, place: usize, now: Instant) {
        let (linger, keepalive) = (self.config.linger, self.config.keepalive);
        let Some(stream) = self.streams.get_mut(place) else { return };
        if let Some(poll) = stream.poll.filter(|poll| poll.until <= now && stream.may_end_idle()) {
            stream.poll = None;
            stream.used = now;
            self.counters.idle_polls += 1;
            if let Some(response) = stream.nothing() {
                self.answer(poll.client, response);
            }
            return;
        }
        if stream.poll.is_none() && stream.used + linger <= now {
            return self.end_stream(place, now);
        }
        match stream.state {
            State::Resting(until) if until <= now => self.register(place, now),
            State::Observing(_) if keepalive.is_some_and(|after| stream.heard + after <= now) => {
                self.silence(place, now);
                self.register(place, now);
            }
            _ => {}
        }
    }

    /// When something is to be done about a stream.
    pub(super) fn stream_deadline(&self, stream: &Stream) -> Option<Instant> {
        let poll = stream.poll.filter(|_| stream.may_end_idle()).map(|poll| poll.until);
        let again = match stream.state {
            State::Resting(until) => Some(until),
            State::Observing(_) => self.config.keepalive.map(|after| stream.heard + after),
            State::Idle | State::Registering(_) => None,
        };
        let unused = stream.poll.is_none().then(|| stream.used + self.config.linger);
        [poll, again, unused].into_iter().flatten().min()
    }
}
