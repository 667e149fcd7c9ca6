//! One device's access token, kept alive (client-server API v1.19 §"Refreshing access tokens").
//!
//! Sans-IO. Before a request the device's [`Refresher::authorize`] is asked which token to make it with; after one that was answered with
//! 401, [`Refresher::unauthorized`] what to do. Whatever they say, drain [`Refresher::poll`] then.
//!
//! ```text
//!            authorize: expiry is near          fetched: tokens            replace
//!   Valid ─────────────────────────────▶ Asking ───────────────▶ Storing ─────────▶ Valid, next generation
//!     ▲     unauthorized: soft logout       │ │
//!     └──────── fetched: no answer ─────────┘ └─ fetched: refused ─▶ Ended
//! ```
//!
//! There is one call at a time, and whoever else needs a token waits for it: a refresh token is good for one use. New tokens are on the
//! disk before the first request is made with them; should the process end in between, the old refresh token is still good, since a
//! homeserver keeps it until the new ones are used.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

use super::Renewal;
use super::Secret;
use super::Tokens;
use crate::coap::Instant;

/// Keeps a device's access token alive.
#[derive(Debug)]
pub struct Refresher {
    /// The homeserver's base URL, without a slash at its end.
    homeserver: String,
    tokens: Tokens,
    generation: Generation,
    state: State,
    /// How long before its end the access token is renewed.
    early: Duration,
    /// How long the last call without an answer was rested after.
    rested: Duration,
    outputs: VecDeque<Output>,
}

/// Which access token it was: each has the number after the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// What to make a request with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// This access token, in a header `Authorization: Bearer`.
    Use(Secret, Generation),
    /// Nothing yet: keep the request until [`Output::Ready`] or [`Output::Failed`].
    Wait,
    /// Nothing: the request has to be refused.
    Refused(TokenError),
}

/// What to do about a 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the answer: the homeserver means something else than the token's age.
    Pass,
    /// Another token has come meanwhile: make the request again.
    Again,
    /// Keep the request until [`Output::Ready`] or [`Output::Failed`], then make it again.
    Wait,
    /// The request has to be refused.
    Refused(TokenError),
}

/// What to do next.
#[derive(Debug)]
pub enum Output {
    /// Make this call, and hand in [`Refresher::fetched`] once.
    Fetch(Request<Bytes>),
    /// Put these into the file, and call [`Refresher::replace`] with them when they are there.
    Store(Tokens),
    /// There is a new token: authorize those that wait.
    Ready,
    /// There is none: refuse those that wait.
    Failed(TokenError),
}

/// Why a device has no access token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It ended, and there is nothing to renew it with, or the homeserver refuses to.
    #[error("the access token of this device has ended ({0}); the gateway's operator has to log it in again")]
    Ended(String),
    /// It has to be renewed, and nobody answers. Holds after what time to ask again.
    #[error("the access token of this device cannot be renewed at present: {reason}")]
    Unavailable {
        /// What went wrong.
        reason: String,
        /// When the gateway asks again.
        wait: Duration,
    },
    /// It is no text that a header can hold.
    #[error("the access token of this device is no token")]
    Malformed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The tokens are good, as far as is known.
    Valid,
    /// A call is under way.
    Asking,
    /// New tokens are on their way to the disk.
    Storing(Tokens),
    /// Nobody answered; the next try is not before `until`.
    Resting { until: Instant, reason: String },
    /// The homeserver takes none of the tokens.
    Ended(String),
}

impl Refresher {
    /// An access token is renewed this long before it ends, or for a tenth of its life, if that is shorter.
    const EARLY: Duration = Duration::from_secs(60);
    /// After a call without an answer the next is not before this, then twice as much each time.
    const REST: Duration = Duration::from_secs(5);
    /// Nor is it later than this.
    const LONGEST_REST: Duration = Duration::from_secs(300);

    /// A refresher of tokens as they are in the file.
    pub fn new(homeserver: &str, tokens: Tokens) -> Self {
        Self {
            homeserver: homeserver.trim_end_matches('/').to_owned(),
            tokens,
            generation: Generation(0),
            state: State::Valid,
            early: Self::EARLY,
            rested: Duration::ZERO,
            outputs: VecDeque::new(),
        }
    }

    /// Takes tokens as they are in the file now: those of [`Output::Store`], or others, if the device was logged in again. Whether they
    /// are others; what a call under way brings is of no use then, and must not be handed in.
    #[must_use]
    pub fn replace(&mut self, tokens: Tokens) -> bool {
        // Of when they end more may be known here than in the file.
        let is_known = tokens.access == self.tokens.access && tokens.refresh == self.tokens.refresh;
        if is_known && !self.is_storing(&tokens) {
            return false;
        }
        self.tokens = tokens;
        self.next_generation();
        true
    }

    /// What to make a request with.
    pub fn authorize(&mut self, now: Instant) -> Authorization {
        match &self.state {
            State::Valid if self.ends_soon(now) && self.tokens.refresh.is_some() => {}
            State::Valid => return self.usable(),
            State::Asking | State::Storing(_) => return Authorization::Wait,
            State::Ended(reason) => return Authorization::Refused(TokenError::Ended(reason.clone())),
            State::Resting { until, .. } if now < *until => {
                // What has not ended yet is good until then.
                return match self.tokens.expires {
                    Some(expires) if now < expires => self.usable(),
                    _ => Authorization::Refused(self.unavailable(now)),
                };
            }
            State::Resting { .. } => {}
        }
        match self.ask() {
            Ok(()) => Authorization::Wait,
            Err(error) => Authorization::Refused(error),
        }
    }

    /// What to do about a 401 that answered a request made with a token of this generation. `body` is the answer's.
    pub fn unauthorized(&mut self, used: Generation, body: &[u8], now: Instant) -> Verdict {
        let error: MatrixError = serde_json::from_slice(body).unwrap_or_default();
        if error.errcode != "M_UNKNOWN_TOKEN" {
            return Verdict::Pass;
        }
        if used < self.generation {
            return Verdict::Again;
        }
        match &self.state {
            State::Asking | State::Storing(_) => return Verdict::Wait,
            State::Ended(reason) => return Verdict::Refused(TokenError::Ended(reason.clone())),
            State::Resting { until, .. } if now < *until => {
                // It may have been said not to have ended, and has.
                self.tokens.expires = Some(now);
                return Verdict::Refused(self.unavailable(now));
            }
            State::Valid | State::Resting { .. } => {}
        }
        // A homeserver whose sessions are elsewhere does not know that an authorization server would give another token.
        let may_be_renewed = error.soft_logout || self.tokens.renewal != Renewal::Homeserver;
        if !may_be_renewed || self.tokens.refresh.is_none() {
            let reason = if error.error.is_empty() { error.errcode } else { error.error };
            self.state = State::Ended(one_line(&reason));
            return Verdict::Refused(TokenError::Ended(one_line(&reason)));
        }
        match self.ask() {
            Ok(()) => Verdict::Wait,
            Err(error) => Verdict::Refused(error),
        }
    }

    /// Takes in what the call came to; the error is what is told to people.
    pub fn fetched(&mut self, result: Result<Response<Bytes>, String>, now: Instant) {
        if self.state != State::Asking {
            return;
        }
        let response = match result {
            Ok(response) => response,
            Err(reason) => return self.rest(reason, now),
        };
        let status = response.status();
        if status.is_success() {
            return match self.read(response.body(), now) {
                Some(tokens) => {
                    let life = tokens.expires.map_or(Self::EARLY * 10, |expires| expires.since(now));
                    self.early = Self::EARLY.min(life / 10);
                    self.state = State::Storing(tokens.clone());
                    self.outputs.push_back(Output::Store(tokens));
                }
                None => self.rest("the answer has no access token".to_owned(), now),
            };
        }
        let said = describe(response.body());
        let refuses = status.is_client_error()
            && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        match said {
            Some(said) if refuses => self.end(&said),
            Some(said) => self.rest(said, now),
            // In no words of either interface: a proxy, which knows nothing of tokens.
            None => self.rest(format!("HTTP {}", status.as_u16()), now),
        }
    }

    /// Whether these are the tokens of [`Output::Store`], and have not become needless meanwhile.
    pub fn is_storing(&self, tokens: &Tokens) -> bool {
        matches!(&self.state, State::Storing(storing) if storing == tokens)
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn usable(&self) -> Authorization {
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        match self.tokens.access.expose_text().is_some_and(is_token) {
            true => Authorization::Use(self.tokens.access.clone(), self.generation),
            false => Authorization::Refused(TokenError::Malformed),
        }
    }

    fn ends_soon(&self, now: Instant) -> bool {
        self.tokens.expires.is_some_and(|expires| expires.since(now) <= self.early)
    }

    fn unavailable(&self, now: Instant) -> TokenError {
        match &self.state {
            State::Resting { until, reason, .. } => {
                TokenError::Unavailable { reason: reason.clone(), wait: until.since(now) }
            }
            _ => TokenError::Unavailable { reason: "no answer".to_owned(), wait: Self::REST },
        }
    }

    fn next_generation(&mut self) {
        self.generation = Generation(self.generation.0 + 1);
        self.state = State::Valid;
        self.rested = Duration::ZERO;
        self.outputs.push_back(Output::Ready);
    }

    fn ask(&mut self) -> Result<(), TokenError> {
        let request = self.request().ok_or(TokenError::Malformed)?;
        self.state = State::Asking;
        self.outputs.push_back(Output::Fetch(request));
        Ok(())
    }

    fn request(&self) -> Option<Request<Bytes>> {
        let refresh = self.tokens.refresh.as_ref()?.expose_text()?;
        let (url, kind, body) = match &self.tokens.renewal {
            Renewal::Homeserver => {
                let body = json!({ "refresh_token": refresh }).to_string();
                (format!("{}/_matrix/client/v3/refresh", self.homeserver), "application/json", body)
            }
            // RFC 6749 §6.
            Renewal::OAuth { token_endpoint, client_id } => {
                let fields =
                    [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", client_id)];
                (token_endpoint.clone(), "application/x-www-form-urlencoded", form(&fields))
            }
        };
        let request = Request::builder().method(Method::POST).uri(url).header(header::CONTENT_TYPE, kind);
        request.body(Bytes::from(body)).ok()
    }

    /// The tokens in an answer: both interfaces give nearly the same.
    fn read(&self, body: &[u8], now: Instant) -> Option<Tokens> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
            refresh_token: Option<String>,
            expires_in_ms: Option<u64>,
            expires_in: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let life: Option<Duration> = match self.tokens.renewal {
            Renewal::Homeserver => answer.expires_in_ms.map(Duration::from_millis),
            Renewal::OAuth { .. } => answer.expires_in.map(Duration::from_secs),
        };
        Some(Tokens {
            access: Secret::new(answer.access_token),
            // Where there is no new one the old is good for once more.
            refresh: answer.refresh_token.map(Secret::new).or_else(|| self.tokens.refresh.clone()),
            expires: life.map(|life| now + life),
            renewal: self.tokens.renewal.clone(),
        })
    }

    fn rest(&mut self, reason: String, now: Instant) {
        self.rested = (self.rested * 2).clamp(Self::REST, Self::LONGEST_REST);
        self.state = State::Resting { until: now + self.rested, reason: one_line(&reason) };
        // Who waits can go on with what has not ended yet.
        let output = match self.tokens.expires {
            Some(expires) if now < expires => Output::Ready,
            _ => Output::Failed(self.unavailable(now)),
        };
        self.outputs.push_back(output);
    }

    fn end(&mut self, reason: &str) {
        self.state = State::Ended(reason.to_owned());
        self.outputs.push_back(Output::Failed(TokenError::Ended(reason.to_owned())));
    }
}

/// An error of the client-server API; everything in it may be missing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MatrixError {
    errcode: String,
    error: String,
    soft_logout: bool,
}

/// What a refusal says, by either interface (RFC 6749 §5.2); none where it says nothing.
fn describe(body: &[u8]) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Refusal {
        errcode: Option<String>,
        error: Option<String>,
        error_description: Option<String>,
    }
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let parts = [refusal.errcode, refusal.error, refusal.error_description];
    let said: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    (!said.is_empty()).then(|| one_line(&said.join(": ")))
}

/// Words of others, as far as they go on one line of an answer.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// Fields as `application/x-www-form-urlencoded`.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte))
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
