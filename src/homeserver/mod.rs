//! A minimal in-memory Matrix homeserver, for the demo, the benches and the tests.
//!
//! [`Homeserver`] is the state and one function, [`Homeserver::handle`]: no socket, no clock, no order that changes from
//! run to run. [`Server`] puts it on a loopback TCP port. It follows the client-server API v1.19
//! (<https://spec.matrix.org/v1.19/client-server-api/>) closely enough for real clients to talk to it, and no further:
//!
//! * nothing is stored on disk and nothing is federated; users, rooms and events end with the process;
//! * passwords are kept and compared as plain text, and identifiers and access tokens follow from a seed that the caller
//!   chooses: whoever knows the seed can predict them;
//! * history visibility is not evaluated (whoever is in a room reads all of it), and of the room version 12 rules only
//!   membership and power levels are checked;
//! * media, push, third-party identifiers, cross-signing, search, spaces, threads and knocking are absent (404).
//!
//! What it keeps is bounded by [`Limits`]; beyond one, the request is refused with `M_RESOURCE_LIMIT_EXCEEDED`.

mod data;
mod devices;
mod directory;
mod ephemeral;
mod event;
mod filter;
mod ids;
mod keys;
mod limits;
mod membership;
mod messages;
mod profile;
mod request;
mod room;
mod rooms;
mod routes;
mod server;
mod session;
mod sync;
mod timeline;
mod user;

pub use limits::Limits;
pub use request::Outcome;
pub use request::Reply;
pub use request::Request;
pub use server::Server;
pub use server::ServerError;

use std::collections::BTreeMap;

use serde_json::Value;

use directory::Alias;
use ids::Identifiers;
use request::Call;
use request::Caller;
use request::Handled;
use request::Refusal;
use room::Room;
use routes::Handler;
use user::User;

/// What a [`Homeserver`] is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The part after the colon in user ids and aliases.
    pub server_name: String,
    /// What clients are told as `m.homeserver.base_url`; [`Server::bind`] puts its own address here when it is empty.
    pub base_url: String,
    /// Where every room id, event id, device id and access token comes from.
    pub seed: u64,
    /// How much is kept.
    pub limits: Limits,
    /// How long an access token lives that comes with a refresh token, in milliseconds.
    pub refreshable_token_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            server_name: "localhost".to_owned(),
            base_url: String::new(),
            seed: 0,
            limits: Limits::default(),
            // As Synapse has it.
            refreshable_token_ms: 300_000,
        }
    }
}

/// The whole homeserver: users, rooms, events, and a position that grows by one with each change.
///
/// A position is also what `since`, `next_batch`, `prev_batch`, `from` and `end` hold, as `s` and the number: the point
/// just after the change of that number.
#[derive(Debug)]
pub struct Homeserver {
    config: Config,
    ids: Identifiers,
    position: u64,
    stored_bytes: usize,
    users: BTreeMap<String, User>,
    tokens: BTreeMap<String, Caller>,
    /// When those of the access tokens end that do.
    token_ends_ms: BTreeMap<String, u64>,
    refresh_tokens: BTreeMap<String, Caller>,
    rooms: BTreeMap<String, Room>,
    aliases: BTreeMap<String, Alias>,
}

impl Homeserver {
    /// Returns an empty homeserver.
    pub fn new(config: Config) -> Homeserver {
        Homeserver {
            ids: Identifiers::new(config.seed),
            config,
            // Zero is the position of a client that has seen nothing yet.
            position: 1,
            stored_bytes: 0,
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            token_ends_ms: BTreeMap::new(),
            refresh_tokens: BTreeMap::new(),
            rooms: BTreeMap::new(),
            aliases: BTreeMap::new(),
        }
    }

    /// Answers a request, or says until when to wait.
    ///
    /// `now_ms` is the time in milliseconds since the Unix epoch. After [`Outcome::Wait`] the same request is handed in
    /// again as soon as [`Homeserver::position`] has grown, and at `until_ms` at the latest.
    pub fn handle(&mut self, request: &Request, now_ms: u64) -> Outcome {
        self.expire_typing(now_ms);
        match self.dispatch(request, now_ms) {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Reply(refusal.into_reply()),
        }
    }

    /// Returns the number of changes so far. A request that waits cannot be answered earlier than this grows.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns how much is kept.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    fn dispatch(&mut self, request: &Request, now_ms: u64) -> Result<Outcome, Refusal> {
        if request.body.len() > self.config.limits.body_bytes {
            return Err(Refusal::too_large(self.config.limits.body_bytes));
        }
        let segments = request::segments(&request.path)?;
        let (handler, parameters) = routes::find(&request.method, &segments)?;
        let call = Call { request, parameters, query: request::query(&request.query), now_ms };
        let body = match handler {
            Handler::Open(answer) => answer(self, &call)?,
            Handler::User(answer) => answer(self, &self.caller(request, now_ms)?, &call)?,
            Handler::Poll(answer) => match answer(self, &self.caller(request, now_ms)?, &call)? {
                Some(body) => body,
                None => return Ok(Outcome::Wait { until_ms: self.sync_deadline(&call) }),
            },
        };
        Ok(Outcome::Reply(Reply { status: 200, body, retry_after_ms: None }))
    }

    fn caller(&self, request: &Request, now_ms: u64) -> Result<Caller, Refusal> {
        let token = request.token.as_deref().ok_or_else(Refusal::missing_token)?;
        if self.token_ends_ms.get(token).is_some_and(|end| *end <= now_ms) {
            return Err(Refusal::ended_token());
        }
        self.tokens.get(token).cloned().ok_or_else(Refusal::unknown_token)
    }

    fn advance(&mut self) -> u64 {
        self.position = self.position.saturating_add(1);
        self.position
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Refusal> {
        let total = self.stored_bytes.saturating_add(bytes);
        if total > self.config.limits.stored_bytes {
            return Err(Refusal::over_limit("stored bytes", self.config.limits.stored_bytes));
        }
        self.stored_bytes = total;
        Ok(())
    }

    fn user(&self, user_id: &str) -> Result<&User, Refusal> {
        self.users.get(user_id).ok_or_else(|| Refusal::not_found("user not found"))
    }

    fn user_mut(&mut self, user_id: &str) -> Result<&mut User, Refusal> {
        self.users.get_mut(user_id).ok_or_else(|| Refusal::not_found("user not found"))
    }
}

fn within(count: usize, limit: usize, what: &str) -> Result<(), Refusal> {
    if count < limit { Ok(()) } else { Err(Refusal::over_limit(what, limit)) }
}

fn json_length(value: &Value) -> usize {
    value.to_string().len()
}

fn nothing() -> Handled {
    Ok(Value::Object(serde_json::Map::new()))
}

#[cfg(test)]
mod tests;
