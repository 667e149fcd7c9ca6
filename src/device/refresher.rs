//! One device's access token, kept alive (client-server API v1.19 §"Refreshing access tokens").
//!
//! Sans-IO. Before a request the device's [`Refresher::authorize`] is asked which token to make it with; after one that was answered with
//! 401, [`Refresher::unauthorized`] what to do. Whatever they say, drain [`Refresher::poll`] then.
//!
//! ```text
//!            authorize: expiry is near          fetched: tokens            stored
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
    /// Put these into the file, and call [`Refresher::stored`] when they are there.
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

    /// Takes tokens that came by another way: the device was logged in again.
    pub fn replace(&mut self, tokens: Tokens) {
        if tokens == self.tokens {
            return;
        }
        self.tokens = tokens;
        self.next_generation();
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
        let refused = status.is_client_error()
            && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        match refused {
            true => self.end(&describe(status, response.body())),
            false => self.rest(describe(status, response.body()), now),
        }
    }

    /// The tokens of [`Output::Store`] are on the disk.
    pub fn stored(&mut self) {
        let State::Storing(tokens) = &self.state else { return };
        self.tokens = tokens.clone();
        self.next_generation();
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

/// What a refusal says, by either interface (RFC 6749 §5.2).
fn describe(status: StatusCode, body: &[u8]) -> String {
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
    match said.as_slice() {
        [] => format!("HTTP {}", status.as_u16()),
        said => one_line(&said.join(": ")),
    }
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
mod tests {
    use super::*;

    const SOFT: &[u8] = br#"{"errcode":"M_UNKNOWN_TOKEN","error":"expired","soft_logout":true}"#;
    const HARD: &[u8] = br#"{"errcode":"M_UNKNOWN_TOKEN","error":"gone"}"#;

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    fn refresher(expires: Option<u64>) -> Refresher {
        let tokens =
            Tokens { refresh: Some(Secret::new("r1")), expires: expires.map(at), ..Tokens::access("a1") };
        Refresher::new("http://hs/", tokens)
    }

    fn answer(status: u16, body: &str) -> Result<Response<Bytes>, String> {
        Ok(Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap())
    }

    fn uses(authorization: Authorization) -> (String, Generation) {
        match authorization {
            Authorization::Use(token, generation) => (token.expose_text().unwrap().to_owned(), generation),
            other => panic!("{other:?}"),
        }
    }

    fn fetch(refresher: &mut Refresher) -> Request<Bytes> {
        match refresher.poll() {
            Some(Output::Fetch(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    const NEW: &str = r#"{"access_token":"a2","refresh_token":"r2","expires_in_ms":600000}"#;

    #[test]
    fn token_is_renewed_before_it_ends_and_stored_before_it_is_used() {
        let mut refresher = refresher(Some(1_000));
        assert_eq!(uses(refresher.authorize(at(0))).0, "a1");
        assert_eq!(uses(refresher.authorize(at(939))).0, "a1");
        assert!(refresher.poll().is_none());
        assert_eq!(refresher.authorize(at(940)), Authorization::Wait);
        let request = fetch(&mut refresher);
        assert_eq!(request.uri(), "http://hs/_matrix/client/v3/refresh");
        assert_eq!(request.body().as_ref(), br#"{"refresh_token":"r1"}"#);
        // One call at a time.
        assert_eq!(refresher.authorize(at(941)), Authorization::Wait);
        assert!(refresher.poll().is_none());
        refresher.fetched(answer(200, NEW), at(942));
        assert_eq!(refresher.authorize(at(942)), Authorization::Wait);
        let Some(Output::Store(tokens)) = refresher.poll() else { panic!("nothing to store") };
        assert_eq!(tokens.refresh, Some(Secret::new("r2")));
        assert_eq!(tokens.expires, Some(at(1_542)));
        assert!(refresher.poll().is_none());
        refresher.stored();
        assert!(matches!(refresher.poll(), Some(Output::Ready)));
        assert_eq!(uses(refresher.authorize(at(943))).0, "a2");
        assert_eq!(uses(refresher.authorize(at(1_481))).0, "a2");
        assert_eq!(refresher.authorize(at(1_482)), Authorization::Wait);
    }

    #[test]
    fn soft_logout_renews_once_for_all_who_were_told() {
        let mut refresher = refresher(None);
        let (_, first) = uses(refresher.authorize(at(0)));
        assert_eq!(refresher.unauthorized(first, SOFT, at(1)), Verdict::Wait);
        assert_eq!(refresher.unauthorized(first, SOFT, at(1)), Verdict::Wait);
        fetch(&mut refresher);
        assert!(refresher.poll().is_none());
        refresher.fetched(answer(200, NEW), at(2));
        assert_eq!(refresher.unauthorized(first, SOFT, at(2)), Verdict::Wait);
        refresher.stored();
        assert_eq!(refresher.unauthorized(first, SOFT, at(3)), Verdict::Again);
        assert!(uses(refresher.authorize(at(3))).1 > first);
    }

    #[test]
    fn hard_logout_ends_it_and_other_refusals_pass() {
        let mut refresher = refresher(None);
        let (_, first) = uses(refresher.authorize(at(0)));
        assert_eq!(refresher.unauthorized(first, br#"{"errcode":"M_FORBIDDEN"}"#, at(0)), Verdict::Pass);
        assert_eq!(refresher.unauthorized(first, b"<html>", at(0)), Verdict::Pass);
        assert_eq!(
            refresher.unauthorized(first, HARD, at(0)),
            Verdict::Refused(TokenError::Ended("gone".into()))
        );
        assert_eq!(refresher.authorize(at(9)), Authorization::Refused(TokenError::Ended("gone".into())));
        assert!(refresher.poll().is_none());
        refresher.replace(Tokens::access("a9"));
        assert_eq!(uses(refresher.authorize(at(10))).0, "a9");
    }

    #[test]
    fn token_that_nothing_follows_ends_with_its_end() {
        let mut refresher =
            Refresher::new("http://hs", Tokens { expires: Some(at(10)), ..Tokens::access("a1") });
        // The homeserver says when it has ended, and not our clock.
        let (_, first) = uses(refresher.authorize(at(20)));
        let ended = TokenError::Ended("expired".into());
        assert_eq!(refresher.unauthorized(first, SOFT, at(20)), Verdict::Refused(ended));
    }

    #[test]
    fn refused_refresh_ends_it_with_the_homeservers_words() {
        let mut refresher = refresher(None);
        let (_, first) = uses(refresher.authorize(at(0)));
        refresher.unauthorized(first, SOFT, at(0));
        fetch(&mut refresher);
        refresher.fetched(answer(401, "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"error\":\"no\\nmore\"}"), at(1));
        let ended = TokenError::Ended("M_UNKNOWN_TOKEN: no more".into());
        assert!(matches!(refresher.poll(), Some(Output::Failed(error)) if error == ended));
        assert_eq!(refresher.authorize(at(2)), Authorization::Refused(ended));
        assert!(refresher.poll().is_none());
    }

    #[test]
    fn no_answer_is_tried_again_ever_later() {
        let mut refresher = refresher(None);
        let (_, first) = uses(refresher.authorize(at(0)));
        let mut now = 0;
        for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(refresher.unauthorized(first, SOFT, at(now)), Verdict::Wait);
            fetch(&mut refresher);
            let failure = if wait % 20 == 0 { answer(502, "") } else { Err("no route".into()) };
            refresher.fetched(failure, at(now));
            let Some(Output::Failed(TokenError::Unavailable { wait: told, .. })) = refresher.poll() else {
                panic!("told nobody")
            };
            assert_eq!(told, Duration::from_secs(wait));
            let early = refresher.unauthorized(first, SOFT, at(now + wait - 1));
            assert!(
                matches!(early, Verdict::Refused(TokenError::Unavailable { wait, .. }) if wait.as_secs() == 1)
            );
            assert!(refresher.poll().is_none());
            now += wait;
        }
        assert_eq!(refresher.authorize(at(now)), Authorization::Wait);
        fetch(&mut refresher);
        refresher.fetched(answer(200, NEW), at(now));
        refresher.stored();
        assert_eq!(uses(refresher.authorize(at(now))).0, "a2");
    }

    #[test]
    fn token_that_has_not_ended_is_used_while_nobody_answers() {
        let mut refresher = refresher(Some(100));
        assert_eq!(refresher.authorize(at(50)), Authorization::Wait);
        fetch(&mut refresher);
        refresher.fetched(Err("no route".into()), at(52));
        assert!(matches!(refresher.poll(), Some(Output::Ready)));
        assert_eq!(uses(refresher.authorize(at(53))).0, "a1");
        assert_eq!(refresher.authorize(at(57)), Authorization::Wait);
        fetch(&mut refresher);
        refresher.fetched(Err("no route".into()), at(101));
        assert!(matches!(refresher.poll(), Some(Output::Failed(TokenError::Unavailable { .. }))));
        assert!(matches!(
            refresher.authorize(at(102)),
            Authorization::Refused(TokenError::Unavailable { .. })
        ));
    }

    #[test]
    fn answer_without_a_token_is_no_answer() {
        let mut refresher = refresher(None);
        let (_, first) = uses(refresher.authorize(at(0)));
        refresher.unauthorized(first, SOFT, at(0));
        fetch(&mut refresher);
        refresher.fetched(answer(200, "{}"), at(0));
        assert!(matches!(refresher.poll(), Some(Output::Failed(TokenError::Unavailable { .. }))));
        // What nobody asked for changes nothing.
        refresher.fetched(answer(200, NEW), at(0));
        refresher.stored();
        assert!(refresher.poll().is_none());
    }

    #[test]
    fn oauth_asks_the_authorization_server_whatever_the_homeserver_calls_it() {
        let renewal =
            Renewal::OAuth { token_endpoint: "https://auth.example/token".into(), client_id: "c/1".into() };
        let tokens =
            Tokens { refresh: Some(Secret::new("r+1")), renewal: renewal.clone(), ..Tokens::access("a1") };
        let mut refresher = Refresher::new("http://hs", tokens);
        let (_, first) = uses(refresher.authorize(at(0)));
        assert_eq!(refresher.unauthorized(first, HARD, at(0)), Verdict::Wait);
        let request = fetch(&mut refresher);
        assert_eq!(request.uri(), "https://auth.example/token");
        assert_eq!(request.body().as_ref(), b"grant_type=refresh_token&refresh_token=r%2B1&client_id=c%2F1");
        refresher
            .fetched(answer(200, r#"{"access_token":"a2","token_type":"Bearer","expires_in":300}"#), at(0));
        let Some(Output::Store(tokens)) = refresher.poll() else { panic!("nothing to store") };
        assert_eq!((tokens.refresh, tokens.expires), (Some(Secret::new("r+1")), Some(at(300))));
        assert_eq!(tokens.renewal, renewal);
    }

    #[test]
    fn what_no_header_can_hold_is_no_token() {
        for token in ["", "a b", "a\r\nX: y"] {
            let mut refresher = Refresher::new("http://hs", Tokens::access(token));
            assert_eq!(
                refresher.authorize(at(0)),
                Authorization::Refused(TokenError::Malformed),
                "{token:?}"
            );
        }
    }

    #[test]
    fn tokens_are_not_printed() {
        let printed = format!("{:?}", refresher(None));
        assert!(!printed.contains("a1") && !printed.contains("r1"), "{printed}");
    }
}
