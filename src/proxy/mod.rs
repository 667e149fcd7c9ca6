//! The far end: Matrix clients' HTTP in, CoAP to the gateway out, and back. A machine without sockets and clock.
//!
//! After every call that takes `now`: drain [`Proxy::poll`] until `None`, then sleep until [`Proxy::deadline`]. What is to be stored comes before
//! what depends on it, and has to be on the disk before that leaves.
//!
//! ```text
//!   client ──▶ route ─┬─ answered here: preflights, where the homeserver is, /_lowband/status
//!                     ├─ stream: /sync, observed over the line
//!                     └─ call: all else; in the queue, where it is to outlast clients and the line
//!                             │
//!                            line ──▶ gateway
//! ```

mod answer;
mod cache;
mod call;
mod config;
mod line;
mod memory;
mod page;
pub mod policy;
mod route;
mod status;
mod stream;
mod syncing;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header;
use serde::Serialize;

pub use self::config::Config;
pub use self::line::AskId;
pub use self::line::Follows;
pub use self::status::Status;

use self::cache::Cache;
use self::call::Call;
use self::call::CallNumber;
use self::call::Calls;
use self::call::Kind;
use self::call::State;
use self::line::Heard;
use self::line::Line;
use self::line::Wants;
use self::memory::Record;
use self::route::Route;
use self::stream::Stream;
use crate::coap;
use crate::coap::Instant;
use crate::coap::Priority;
use crate::matrix::error::ErrorCode;
use crate::matrix::rewrite;
use crate::matrix::rewrite::Advertise;
use crate::translate::packed::caller::Caller;

/// A request of a client, by the number that the driver gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey(pub u64);

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Put this on the disk, or take it away where there is no value, before anything that comes after it is done.
    Store {
        /// The record's key.
        key: Vec<u8>,
        /// Its value.
        value: Option<Vec<u8>>,
    },
    /// Ask the gateway. Where the request observes, each answer is handed in, until one that nothing follows.
    Ask {
        /// What the answer is handed in by. The same may ask again once it was answered.
        id: AskId,
        /// The request.
        request: coap::Request,
        /// What goes first where not all can go at once.
        priority: Priority,
    },
    /// Nobody wants to hear of it any more: an observation is to be ended.
    Cancel {
        /// What was asked.
        id: AskId,
    },
    /// Answer a client.
    Answer {
        /// Its request.
        client: ClientKey,
        /// The answer.
        response: http::Response<Bytes>,
    },
}

/// Why something that was asked is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one line, for people.
    pub reason: String,
    /// Whether it is of no use to ask the same again.
    pub is_final: bool,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Requests of clients.
    pub requests: u64,
    /// Those that were answered without the line.
    pub local: u64,
    /// Those that were given an answer that was known.
    pub cached: u64,
    /// Those that joined another one under way, or were given its answer.
    pub joined: u64,
    /// Those that said less than a later one, and did not cross.
    pub replaced: u64,
    /// Polls that found nothing.
    pub idle_polls: u64,
    /// What was asked over the line.
    pub asked: u64,
    /// What was asked again after nothing came of it.
    pub again: u64,
    /// Requests refused because too much is under way.
    pub refused: u64,
    /// Stored records that could not be read.
    pub unreadable: u64,
}

/// A proxy.
#[derive(Debug)]
pub struct Proxy {
    config: Config,
    line: Line,
    /// Whether what is known of the line has changed since it was stored.
    line_changed: bool,
    calls: Calls,
    streams: Vec<Stream>,
    next_stream: u64,
    /// Answers that hold for a while; none where none are to be kept.
    cache: Option<Cache>,
    outputs: VecDeque<Output>,
    counters: Counters,
    /// When the gateway was last heard.
    heard: Option<Instant>,
    /// Since when, and why, it is not.
    silent: Option<(Instant, String)>,
}

impl Proxy {
    /// A proxy that has asked nothing yet. `chance` tells its association from others.
    pub fn new(config: Config, chance: [u8; 8]) -> Self {
        let cache = (config.cached > 0).then(|| Cache::new(config.cached, config.bytes));
        Self {
            config,
            cache,
            line: Line::new(Caller::new(chance)),
            line_changed: false,
            calls: Calls::default(),
            streams: Vec::new(),
            next_stream: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            heard: None,
            silent: None,
        }
    }

    /// Takes up what was stored before the process ended, right after [`Proxy::new`]: the queue goes on. What cannot be read is counted,
    /// and taken away.
    pub fn restore(&mut self, records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>, now: Instant) {
        let mut deltas = BTreeMap::new();
        for (key, value) in records {
            let read = match Record::read(&key, &value) {
                Some(Record::Caller(caller)) => {
                    self.line = Line::new(*caller);
                    Some(())
                }
                Some(Record::Queued(number, stored)) => stored.read().map(|(request, answer)| {
                    let mut call = self.call_of(request, Kind::Queued, Priority::Message, now);
                    call.state = answer.map_or(State::Waiting, State::Done);
                    self.calls.add(number, call);
                }),
                Some(Record::Stream(number, stored)) => {
                    stored.read(number, now).map(|stream| self.streams.push(stream))
                }
                Some(Record::Delta(stream, number, stored)) => {
                    deltas.insert((stream, number), stored.read());
                    Some(())
                }
                None => None,
            };
            if read.is_none() {
                self.counters.unreadable += 1;
                self.outputs.push_back(Output::Store { key, value: None });
            }
        }
        self.restore_streams(deltas);
        self.run();
        self.drain(now);
    }

    /// A client asks.
    pub fn handle(&mut self, client: ClientKey, request: http::Request<Bytes>, now: Instant) {
        self.counters.requests += 1;
        match route::route(&request, &self.config.policy) {
            Route::Answer(response) => {
                self.counters.local += 1;
                self.answer(client, response);
            }
            Route::Status { page } => {
                self.counters.local += 1;
                self.answer(client, self.status(now).answer(page));
            }
            Route::Sync(poll) => self.poll_stream(client, poll, now),
            Route::Call { request, kind, priority } => self.call(client, request, (kind, priority), now),
        }
        self.drain(now);
    }

    /// A client has given up.
    pub fn gone(&mut self, client: ClientKey, now: Instant) {
        let of = self.calls.iter().find(|(_, call)| call.clients.contains(&client));
        if let Some((number, _)) = of
            && let Some(call) = self.calls.get_mut(number)
        {
            call.clients.remove(&client);
            call.since = now;
        }
        for stream in &mut self.streams {
            stream.poll = stream.poll.filter(|poll| poll.client != client);
        }
    }

    /// An answer of the gateway's has come.
    pub fn answered(&mut self, id: AskId, response: &coap::Response, follows: Follows, now: Instant) {
        (self.heard, self.silent) = (Some(now), None);
        self.line_changed = true;
        self.line.answered(id, response, follows, (&self.config, &mut self.outputs));
        self.drain(now);
    }

    /// Nothing comes of what was asked.
    pub fn failed(&mut self, id: AskId, failure: &Failure, now: Instant) {
        self.silent.get_or_insert_with(|| (now, failure.reason.clone()));
        self.line.failed(id, (&self.config, &mut self.outputs), now);
        if let Some(number) = self.calls.asked(id) {
            self.call_failed(number, failure, now);
        }
        self.stream_failed(id, failure, now);
        self.drain(now);
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        self.line_changed |= self.line.advance(now);
        self.advance_calls(now);
        self.advance_streams(now);
        self.drain(now);
    }

    /// When [`Proxy::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let calls = self.calls.iter().filter_map(|(_, call)| self.call_deadline(call));
        let streams = self.streams.iter().filter_map(|stream| self.stream_deadline(stream));
        calls.chain(streams).chain(self.line.deadline()).min()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        // What a message says is read with what was known when it was written: that is kept before it leaves.
        if self.line_changed && matches!(self.outputs.front(), None | Some(Output::Ask { .. })) {
            self.line_changed = false;
            let (key, value) = memory::caller(self.line.caller());
            return Some(Output::Store { key, value: Some(value) });
        }
        self.outputs.pop_front()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn answer(&mut self, client: ClientKey, response: http::Response<Bytes>) {
        let response = answer::finish(response);
        self.outputs.push_back(Output::Answer { client, response });
    }

    fn ask(&mut self, request: http::Request<Bytes>, wants: Wants, priority: Priority) -> AskId {
        self.counters.asked += 1;
        self.line_changed = true;
        self.line.ask(request, (wants, priority), (&self.config, &mut self.outputs))
    }

    /// Hands on what the line has heard.
    fn drain(&mut self, now: Instant) {
        while let Some((id, heard)) = self.line.poll_heard() {
            match self.calls.asked(id) {
                Some(number) => self.call_heard(number, heard, now),
                None => self.stream_heard(id, heard, now),
            }
        }
    }

    fn call_of(&self, request: http::Request<Bytes>, kind: Kind, priority: Priority, now: Instant) -> Call {
        Call {
            request,
            kind,
            priority,
            clients: BTreeSet::new(),
            since: now,
            begun: now,
            state: State::Waiting,
            pause: self.config.pause,
        }
    }

    /// A client's request for anything but what is new.
    fn call(
        &mut self,
        client: ClientKey,
        request: http::Request<Bytes>,
        (kind, priority): (Kind, Priority),
        now: Instant,
    ) {
        let observed = self.observes(&request);
        let known = self.cache.as_mut().and_then(|cache| cache.get(&request, observed, now));
        if let Some(response) = known {
            self.counters.cached += 1;
            return self.answer(client, response);
        }
        // What was said of something before it was said otherwise is said anew.
        if let Some(number) = self.calls.same(&request).filter(|_| kind != Kind::Latest) {
            return self.join(client, number, now);
        }
        let bytes = self.calls.bytes() + request.body().len();
        if self.calls.len() >= self.config.calls || bytes > self.config.bytes {
            self.counters.refused += 1;
            let wait = u64::try_from(self.config.pause.as_millis()).unwrap_or(u64::MAX);
            return self.answer(client, answer::later(wait, "too much is under way over the link"));
        }
        self.replace(&request, now);
        let number = self.calls.number();
        let mut call = self.call_of(request, kind, priority, now);
        call.clients.insert(client);
        if kind == Kind::Queued {
            let (key, value) = memory::queued(number, &call.request, None);
            self.outputs.push_back(Output::Store { key, value: Some(value) });
        }
        self.calls.add(number, call);
        match kind {
            Kind::Passing => self.ask_call(number),
            Kind::Queued | Kind::Latest | Kind::Deferred => self.run(),
        }
    }

    /// Whether the gateway tells what is new to who asks this.
    fn observes(&self, request: &http::Request<Bytes>) -> bool {
        self.streams.iter().any(|stream| stream.is_observed_by(request))
    }

    /// Answers what waits and says no more than what a later request says.
    fn replace(&mut self, later: &http::Request<Bytes>, now: Instant) {
        let replaced =
            self.calls.iter().find(|(_, call)| call.is_replaced_by(later)).map(|(number, _)| number);
        if let Some(number) = replaced {
            self.counters.replaced += 1;
            self.conclude(number, answer::json(StatusCode::OK, &serde_json::json!({})), now);
        }
    }

    /// A client asks what is under way, or was answered while nobody waited.
    fn join(&mut self, client: ClientKey, number: CallNumber, now: Instant) {
        self.counters.joined += 1;
        let Some(call) = self.calls.get_mut(number) else { return };
        call.since = now;
        let State::Done(response) = &call.state else {
            call.clients.insert(client);
            return;
        };
        let (response, kind) = (response.clone(), call.kind);
        self.answer(client, response);
        // A message has an id, and asks for the same message whoever repeats it. All else that is asked now is another thing.
        if kind != Kind::Queued {
            self.calls.remove(number);
        }
    }

    fn ask_call(&mut self, number: CallNumber) {
        let Some(call) = self.calls.get(number) else { return };
        let (request, priority) = (call.request.clone(), call.priority);
        let id = self.ask(request, Wants::Answer, priority);
        self.calls.set(number, State::Asked(id));
    }

    /// Asks the first of the queue, and of what waits for others, as far as it may go now.
    fn run(&mut self) {
        for kind in [Kind::Queued, Kind::Latest, Kind::Deferred] {
            let is_free = kind != Kind::Deferred || !self.calls.is_asking();
            if let (true, Some((number, Call { state: State::Waiting, .. }))) =
                (is_free, self.calls.first(kind))
            {
                self.ask_call(number);
            }
        }
    }

    fn call_heard(&mut self, number: CallNumber, heard: Heard, now: Instant) {
        match heard {
            Heard::Answer(response, _) => {
                let Some(call) = self.calls.get(number) else { return };
                let is_left = call.kind == Kind::Queued && call.clients.is_empty();
                if is_left && is_passing(response.status()) {
                    return self.rest(number, after(&response), now);
                }
                let observed = self.observes(&call.request);
                if let Some(cache) = &mut self.cache {
                    cache.take(&call.request, &response, observed, now);
                }
                self.conclude(number, response, now);
            }
            Heard::Unaskable(error) => {
                let response =
                    answer::error(StatusCode::BAD_REQUEST, ErrorCode::Unrecognized, &error.to_string());
                self.conclude(number, response, now);
            }
            Heard::Unreadable(error) => {
                let reason = error.to_string();
                self.call_failed(number, &Failure { reason, is_final: false }, now);
            }
        }
    }

    fn call_failed(&mut self, number: CallNumber, failure: &Failure, now: Instant) {
        let Some(call) = self.calls.get(number) else { return };
        if call.is_repeatable() && !failure.is_final {
            return self.rest(number, None, now);
        }
        let (status, errcode) = match failure.is_final {
            true => (StatusCode::BAD_GATEWAY, ErrorCode::ConnectionFailed),
            false => (StatusCode::GATEWAY_TIMEOUT, ErrorCode::ConnectionTimeout),
        };
        let message = format!(
            "nothing came back over the link, and this may or may not have been done: {}",
            failure.reason
        );
        self.conclude(number, answer::error(status, errcode, &message), now);
    }

    /// Has a call asked again, later.
    fn rest(&mut self, number: CallNumber, wait: Option<Duration>, now: Instant) {
        let longest = self.config.longest_pause;
        let Some(call) = self.calls.get_mut(number) else { return };
        let until = now + wait.unwrap_or_default().max(call.pause);
        call.pause = (call.pause * 2).min(longest);
        self.calls.set(number, State::Resting(until));
    }

    /// A call has its answer.
    fn conclude(&mut self, number: CallNumber, response: http::Response<Bytes>, now: Instant) {
        let Some(call) = self.calls.get_mut(number) else { return };
        let clients = std::mem::take(&mut call.clients);
        let (kind, nobody) = (call.kind, clients.is_empty());
        let response = advertised(&call.request, response);
        call.since = now;
        match (kind, nobody) {
            (Kind::Queued, true) => {
                let (key, value) = memory::queued(number, &call.request, Some(&response));
                self.outputs.push_back(Output::Store { key, value: Some(value) });
            }
            (Kind::Queued, false) => {
                self.outputs.push_back(Output::Store { key: memory::key(number), value: None });
            }
            (Kind::Passing | Kind::Latest | Kind::Deferred, _) => {}
        }
        for client in clients {
            self.answer(client, response.clone());
        }
        match nobody {
            true => self.calls.set(number, State::Done(response)),
            false => drop(self.calls.remove(number)),
        }
        self.run();
    }

    fn advance_calls(&mut self, now: Instant) {
        let due = self.calls.iter().filter(|(_, call)| self.call_deadline(call).is_some_and(|at| at <= now));
        for number in due.map(|(number, _)| number).collect::<Vec<_>>() {
            let Some(call) = self.calls.get(number) else { continue };
            match call.state {
                State::Resting(until) if until <= now => {
                    self.counters.again += 1;
                    self.ask_call(number);
                }
                State::Done(_) => self.forget(number, now),
                _ if call.kind != Kind::Queued => self.forget(number, now),
                _ => self.put_off(number),
            }
        }
    }

    /// Tells the clients of a call in the queue to come back.
    fn put_off(&mut self, number: CallNumber) {
        let Some(call) = self.calls.get_mut(number) else { return };
        let clients = std::mem::take(&mut call.clients);
        let wait = u64::try_from(call.pause.max(Duration::from_secs(5)).as_millis()).unwrap_or(u64::MAX);
        for client in clients {
            self.answer(
                client,
                answer::later(wait, "the link is slow or down: this is queued, and will be sent"),
            );
        }
    }

    fn forget(&mut self, number: CallNumber, now: Instant) {
        let Some(call) = self.calls.remove(number) else { return };
        if let State::Asked(id) = call.state {
            self.line.cancel(id, (&self.config, &mut self.outputs), now);
        }
        if call.kind == Kind::Queued {
            self.outputs.push_back(Output::Store { key: memory::key(number), value: None });
        }
        self.run();
    }

    /// When something is to be done about a call.
    fn call_deadline(&self, call: &Call) -> Option<Instant> {
        let rests = match call.state {
            State::Resting(until) => Some(until),
            _ => None,
        };
        let ends = match (&call.state, call.kind) {
            (State::Done(_), _) if call.request.method().is_safe() => {
                Some(call.since + self.config.hold.min(FRESH))
            }
            (State::Done(_), _) => Some(call.since + self.config.hold),
            (_, kind) if kind != Kind::Queued && call.clients.is_empty() => {
                Some(call.since + self.config.hold)
            }
            (_, Kind::Queued) if !call.clients.is_empty() => Some(call.since + self.config.patience),
            _ => None,
        };
        rests.into_iter().chain(ends).min()
    }
}

/// For so long at most an answer that nobody took is given to who asks for the same again: it may have changed since.
const FRESH: Duration = Duration::from_secs(60);

/// Whether an answer says nothing of the request, which may be made again.
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// How long the homeserver asks to wait.
fn after(response: &http::Response<Bytes>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An answer that says where the homeserver is, with the place of this proxy in it: clients would leave for the other one.
fn advertised(request: &http::Request<Bytes>, response: http::Response<Bytes>) -> http::Response<Bytes> {
    let route = route::of_matrix(request).and_then(|target| target.route);
    let Some(route) = route.filter(|_| response.status().is_success()) else { return response };
    let Some(base_url) = route::base_url(request).filter(|_| route::is_login(route)) else { return response };
    let (head, body) = response.into_parts();
    let advertise = Advertise { base_url: Some(base_url), dtls_port: None };
    let body = Bytes::from(rewrite::rewrite(route, &body, &advertise).into_owned());
    http::Response::from_parts(head, body)
}
