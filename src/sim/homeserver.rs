//! A homeserver that does what a script says: a few users, rooms with messages, and `/sync` with long polls (Matrix 1.19).
//!
//! Sans-IO, in virtual time: after [`Homeserver::call`], sleep until [`Homeserver::deadline`] and drain [`Homeserver::poll`]. Remembers
//! what reached it, for an oracle to judge.

pub(super) mod rich;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::chance::Chance;
use super::oracle::Attempt;
use super::transcript::{Answered, Said, TRANSACTION};
use crate::coap::Instant;
use crate::gateway::FetchError;
use crate::matrix;

/// The homeserver.
#[derive(Debug, Default)]
pub struct Homeserver {
    users: BTreeMap<String, String>,
    rooms: BTreeMap<String, Room>,
    /// The rooms of each user.
    joined: BTreeMap<String, BTreeSet<String>>,
    /// The number of the last thing that happened: every one moves `next_batch`.
    position: u64,
    /// What a transaction of a user has made: one event, or a room each time.
    transactions: BTreeMap<(String, String), Vec<String>>,
    /// The same by the ids that it was told, which a gateway may choose.
    known: BTreeMap<(String, String), String>,
    /// Whether its answers have something of everything in them.
    is_rich: bool,
    /// Whether what is said is kept for somebody to compare.
    is_overheard: bool,
    overheard: VecDeque<Overheard>,
    stages: BTreeMap<(Instant, u64), Stage>,
    waiting: BTreeMap<CallId, Waiting>,
    /// The same, by user.
    waiters: BTreeMap<String, BTreeSet<CallId>>,
    next_stage: u64,
    answers: VecDeque<(CallId, Answer)>,
    reached: VecDeque<Reached>,
    down: bool,
    trouble: Option<Trouble>,
    syncs: u64,
    bad_positions: u64,
    most_polls: usize,
    most_polls_of_one: usize,
}

/// A call, numbered by who makes it.
pub(super) type CallId = u64;

/// What a call comes to.
pub(super) type Answer = Result<http::Response<Bytes>, FetchError>;

/// A request that reached the homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The request.
    pub attempt: Attempt,
    /// Whether it made something; one with a known transaction id makes nothing.
    pub is_new: bool,
    /// Whether that was made before, under another id.
    pub is_again: bool,
}

/// Something for a transcript.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Overheard {
    /// A request has reached it.
    Asked(Said),
    /// It has answered.
    Answered(Answered),
}

/// How a homeserver, or what is before it, fails for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It has too much to do: 429, and nothing is done.
    Busy,
    /// What it was asked is done, and the answer is 502.
    Broken,
    /// What it was asked is done, and no answer comes.
    Silent,
    /// What it was asked is done, and the answer is larger than anybody takes.
    TooLarge,
}

#[derive(Debug, Default)]
struct Room {
    members: BTreeSet<String>,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Event {
    position: u64,
    id: String,
    sender: String,
    kind: String,
    content: Value,
    transaction: Option<String>,
    sent_ms: u64,
}

#[derive(Debug)]
enum Stage {
    Arrives(CallId, Box<http::Request<Bytes>>),
    PollEnds(CallId),
    Answers(CallId, Answer),
}

/// A long poll.
#[derive(Debug)]
struct Waiting {
    user: String,
    since: u64,
    limit: usize,
}

impl Homeserver {
    /// How long a call, and its answer, are under way.
    const LATENCY: Duration = Duration::from_millis(20);
    /// Events of a room in one answer, unless a filter says otherwise.
    const TIMELINE: usize = 10;
    /// The longest that a poll waits, whatever it asks for.
    const LONGEST_POLL: Duration = Duration::from_secs(600);

    /// Keeps what is said, for somebody to compare.
    pub(super) fn overhear(&mut self) {
        self.is_overheard = true;
    }

    /// Has something of everything in its answers from now on.
    pub(super) fn enrich(&mut self) {
        self.is_rich = true;
    }

    /// Adds a user with an access token.
    pub fn add_user(&mut self, user: &str, token: &str) {
        self.users.insert(token.to_owned(), user.to_owned());
    }

    /// Adds a user to a room, and makes the room if there is none.
    pub fn join(&mut self, room: &str, user: &str) {
        self.rooms.entry(room.to_owned()).or_default().members.insert(user.to_owned());
        self.joined.entry(user.to_owned()).or_default().insert(room.to_owned());
    }

    /// Somebody else says something in a room.
    pub fn say(&mut self, room: &str, sender: &str, text: &str, now: Instant) {
        let content = json!({ "msgtype": "m.text", "body": text });
        if !self.is_rich {
            self.append(room, sender, ("m.room.message", content), None, now);
            return;
        }
        let number = self.position;
        let previous =
            self.rooms.get(room).and_then(|room| room.events.last()).map(|event| event.id.as_str());
        let (kind, content) = rich::content(number, text, previous);
        self.append(room, rich::friend(number), (kind, content), None, now);
    }

    /// Something happens that concerns nobody here, and ends the long polls all the same.
    pub fn stir(&mut self, now: Instant) {
        self.position += 1;
        for id in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.end_poll(id, now);
        }
    }

    /// Takes in a call.
    pub fn call(&mut self, id: CallId, request: http::Request<Bytes>, now: Instant) {
        self.enter(now + Self::LATENCY, Stage::Arrives(id, Box::new(request)));
    }

    /// Nobody waits for a call any more. What it has done, or does when it arrives, stands.
    pub fn abandon(&mut self, id: CallId) {
        if let Some(waiting) = self.waiting.remove(&id) {
            self.waiters.entry(waiting.user).or_default().remove(&id);
        }
    }

    /// Goes down: everybody who waits hears so, and so does everybody who calls.
    pub fn stop(&mut self, now: Instant) {
        self.down = true;
        for id in std::mem::take(&mut self.waiting).into_keys() {
            self.enter(now + Self::LATENCY, Stage::Answers(id, Err(unreachable_now())));
        }
        self.waiters.clear();
    }

    /// Comes up again, with all that it knew.
    pub fn start(&mut self) {
        self.down = false;
    }

    /// From here on it fails so, or not any more.
    pub fn trouble(&mut self, trouble: Option<Trouble>) {
        self.trouble = trouble;
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        while let Some(first) = self.stages.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Stage::Arrives(id, request) => self.arrive(id, &request, now),
                Stage::PollEnds(id) => self.end_poll(id, now),
                Stage::Answers(id, answer) => self.answers.push_back((id, answer)),
            }
        }
    }

    /// When [`Homeserver::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.stages.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next answer that has come.
    pub fn poll(&mut self) -> Option<(CallId, Answer)> {
        self.answers.pop_front()
    }

    /// The rooms of a user.
    pub(super) fn rooms(&self, user: &str) -> impl Iterator<Item = &String> {
        self.joined.get(user).into_iter().flatten()
    }

    /// The next thing that was said.
    pub(super) fn poll_overheard(&mut self) -> Option<Overheard> {
        self.overheard.pop_front()
    }

    /// The next request that has reached it and makes something.
    pub fn poll_reached(&mut self) -> Option<Reached> {
        self.reached.pop_front()
    }

    /// The place of an event in its room.
    pub fn place(&self, room: &str, event: &str) -> Option<usize> {
        let events = &self.rooms.get(room)?.events;
        // The newest are asked for most.
        events.iter().rposition(|other| other.id == event)
    }

    /// The event at a place of a room.
    pub fn event_at(&self, room: &str, place: usize) -> Option<&str> {
        self.rooms.get(room)?.events.get(place).map(|event| event.id.as_str())
    }

    /// How many events a room has.
    pub fn events(&self, room: &str) -> usize {
        self.rooms.get(room).map_or(0, |room| room.events.len())
    }

    /// Whether what has this id was made by a transaction.
    pub fn has_made(&self, attempt: &Attempt, id: &str) -> bool {
        let made = self.transactions.get(&(attempt.user.clone(), attempt.transaction.clone()));
        made.into_iter().flatten().any(|made| made == id)
    }

    /// The attempt that a request is, if it is one that makes something.
    pub fn attempt(&self, request: &http::Request<Bytes>) -> Option<Attempt> {
        let user = self.user(request)?.to_owned();
        let body: Value = serde_json::from_slice(request.body()).ok()?;
        let segments = matrix::split_path(request.uri().path()).ok()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method(), segments.as_slice()) {
            (&Method::PUT, ["_matrix", "client", "v3", "rooms", _, "send", _, transaction]) => {
                let number = body.get("attempt").and_then(Value::as_u64);
                let number = number.and_then(|number| u32::try_from(number).ok()).unwrap_or(1);
                let told = body.get(TRANSACTION).and_then(Value::as_str).unwrap_or(transaction);
                Some(Attempt { user, transaction: told.to_owned(), number })
            }
            (&Method::POST, ["_matrix", "client", "v3", "createRoom"]) => {
                let transaction = body.get("name")?.as_str()?.to_owned();
                Some(Attempt { user, transaction, number: 1 })
            }
            _ => None,
        }
    }

    fn user(&self, request: &http::Request<Bytes>) -> Option<&str> {
        let token = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
        self.users.get(token.strip_prefix("Bearer ")?).map(String::as_str)
    }

    /// How often `/sync` was called.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// How often that was from a position which it never gave; an empty one, say.
    pub fn bad_positions(&self) -> u64 {
        self.bad_positions
    }

    /// The most long polls that waited at a time: of all users, and of any one of them.
    pub fn most_polls(&self) -> (usize, usize) {
        (self.most_polls, self.most_polls_of_one)
    }

    fn arrive(&mut self, id: CallId, request: &http::Request<Bytes>, now: Instant) {
        if self.down {
            return self.answer(id, Err(unreachable_now()), now);
        }
        if self.trouble == Some(Trouble::Busy) {
            let error = json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests" });
            return self.answer(id, reply(StatusCode::TOO_MANY_REQUESTS, &error), now);
        }
        let Some(user) = self.user(request).map(str::to_owned) else {
            let error = json!({ "errcode": "M_MISSING_TOKEN", "error": "Missing access token" });
            return self.answer(id, reply(StatusCode::UNAUTHORIZED, &error), now);
        };
        if self.is_overheard {
            self.overheard.push_back(Overheard::Asked(Said::new(&user, request)));
        }
        let attempt = self.attempt(request);
        let segments = matrix::split_path(request.uri().path()).unwrap_or_default();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method(), segments.as_slice(), attempt) {
            (&Method::GET, ["_matrix", "client", "v3", "sync"], _) => self.sync(id, user, request, now),
            (
                &Method::PUT,
                ["_matrix", "client", "v3", "rooms", room, "send", kind, transaction],
                Some(attempt),
            ) => {
                let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
                let content = match self.is_rich {
                    true => body,
                    false => json!({ "msgtype": "m.text", "body": body.get("body") }),
                };
                let event = self.send(attempt, transaction, room, (kind, content), now);
                self.answer(id, reply(StatusCode::OK, &json!({ "event_id": event })), now);
            }
            (&Method::POST, _, Some(attempt)) => {
                let room = self.create_room(attempt);
                self.answer(id, reply(StatusCode::OK, &json!({ "room_id": room })), now);
            }
            (method, _, None) if self.is_rich => {
                let said = Said::new(&user, request);
                let answer = self.consult(&user, method, &segments, &said.query, &said.body, now);
                let Some(answer) = answer else {
                    let error = json!({ "errcode": "M_NOT_FOUND", "error": "Not found" });
                    return self.answer(id, reply(StatusCode::NOT_FOUND, &error), now);
                };
                self.tell(user, said.path, said.query, &answer);
                self.answer(id, reply(StatusCode::OK, &answer), now);
            }
            _ => {
                let error = json!({ "errcode": "M_UNRECOGNIZED", "error": "Unrecognized request" });
                self.answer(id, reply(StatusCode::NOT_FOUND, &error), now);
            }
        }
    }

    /// Sends a message, once for each transaction id (client-server API, "Transaction identifiers").
    fn send(
        &mut self,
        attempt: Attempt,
        told: &str,
        room: &str,
        what: (&str, Value),
        now: Instant,
    ) -> String {
        let Attempt { user, transaction, .. } = attempt.clone();
        let key = (user.clone(), told.to_owned());
        let made = (user.clone(), transaction);
        let known = self.known.get(&key).cloned();
        let is_again = known.is_none() && self.transactions.contains_key(&made);
        self.reached.push_back(Reached { attempt, is_new: known.is_none(), is_again });
        known.unwrap_or_else(|| {
            let event = self.append(room, &user, what, Some(told), now);
            self.known.insert(key, event.clone());
            self.transactions.entry(made).or_default().push(event.clone());
            event
        })
    }

    /// Makes a room, another one each time: a POST has no transaction id. Nobody is in it.
    fn create_room(&mut self, attempt: Attempt) -> String {
        self.position += 1;
        let room = format!("!{}:example.org", self.position);
        let key = (attempt.user.clone(), attempt.transaction.clone());
        self.transactions.entry(key).or_default().push(room.clone());
        self.reached.push_back(Reached { attempt, is_new: true, is_again: false });
        room
    }

    fn append(
        &mut self,
        room: &str,
        sender: &str,
        (kind, content): (&str, Value),
        transaction: Option<&str>,
        now: Instant,
    ) -> String {
        self.position += 1;
        let id = event_id(self.position);
        let room = self.rooms.entry(room.to_owned()).or_default();
        room.events.push(Event {
            position: self.position,
            id: id.clone(),
            sender: sender.to_owned(),
            kind: kind.to_owned(),
            content,
            transaction: transaction.map(str::to_owned),
            sent_ms: milliseconds(now),
        });
        let waiters = room.members.iter().filter_map(|member| self.waiters.get(member)).flatten();
        for id in waiters.copied().collect::<Vec<_>>() {
            self.end_poll(id, now);
        }
        id
    }

    fn answer(&mut self, id: CallId, answer: Answer, now: Instant) {
        let answer = match self.trouble {
            None | Some(Trouble::Busy) => answer,
            Some(Trouble::Broken) => reply(StatusCode::BAD_GATEWAY, &json!({})),
            Some(Trouble::Silent) => return,
            Some(Trouble::TooLarge) => Err(FetchError::TooLarge { limit: 0 }),
        };
        self.enter(now + Self::LATENCY, Stage::Answers(id, answer));
    }

    fn enter(&mut self, at: Instant, stage: Stage) {
        self.next_stage += 1;
        self.stages.insert((at, self.next_stage), stage);
    }
}

impl Room {
    fn state(&self) -> Vec<Value> {
        let members = self.members.iter().map(|member| {
            json!({ "type": "m.room.member", "state_key": member, "sender": member, "content": { "membership": "join" } })
        });
        members.collect()
    }
}

impl Event {
    fn to_json(&self, user: &str, now: Instant) -> Value {
        let mut unsigned = json!({ "age": milliseconds(now).saturating_sub(self.sent_ms) });
        let own = self.transaction.as_ref().filter(|_| self.sender == user);
        if let (Some(transaction), Some(unsigned)) = (own, unsigned.as_object_mut()) {
            unsigned.insert("transaction_id".to_owned(), transaction.as_str().into());
        }
        json!({
            "type": self.kind,
            "event_id": self.id,
            "sender": self.sender,
            "origin_server_ts": self.sent_ms,
            "content": self.content,
            "unsigned": unsigned,
        })
    }
}

fn reply(status: StatusCode, body: &Value) -> Answer {
    let mut response = http::Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

fn unreachable_now() -> FetchError {
    FetchError::Unreachable("connection refused".to_owned())
}

/// As those of room version 4 and later: 43 characters that say nothing.
fn event_id(number: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut chance = Chance::new(number);
    let mut character = |_| ALPHABET.get(chance.below(64) as usize).map_or('A', |byte| char::from(*byte));
    std::iter::once('$').chain((0..43).map(&mut character)).collect()
}

/// Time as events state it.
fn milliseconds(now: Instant) -> u64 {
    1_700_000_000_000 + u64::try_from(now.since_start().as_millis()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
