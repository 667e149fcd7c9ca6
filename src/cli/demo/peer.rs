//! One client of the gateway: Matrix calls as CoAP requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use lowband::coap;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::endpoint;
use lowband::net::client::Client;
use lowband::net::client::Observation;
use lowband::translate;

use super::wire::Log;
use crate::cli::Failure;

/// How long the answer to anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client, and what it has told the gateway already.
pub(super) struct Peer {
    pub(super) name: &'static str,
    client: Client,
    token: Option<String>,
    /// The gateway keeps the access token and the version of the keys of a peer: they are sent once.
    introduced: bool,
}

impl Peer {
    pub(super) async fn connect(
        name: &'static str,
        gateway: SocketAddr,
        log: &Arc<Log>,
    ) -> Result<Self, Failure> {
        let client = Client::connect_watched(gateway, endpoint::Config::default(), log.watch(name)).await;
        let client = client.map_err(|error| Failure::new(format_args!("cannot reach {gateway}: {error}")))?;
        Ok(Self { name, client, token: None, introduced: false })
    }

    /// Goes on as who was given this access token.
    pub(super) fn introduce(&mut self, token: &str) {
        self.token = Some(token.to_owned());
        self.introduced = false;
    }

    /// Makes a call and waits for its answer.
    pub(super) async fn call(
        &mut self,
        method: &str,
        target: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let request = self.request(method, target, body)?;
        let what = format!("{}: {method} {target}", self.name);
        let response = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        let response =
            response.map_err(|_| Failure::new(format_args!("{what}: no answer in {PATIENCE:?}")))?;
        read(&what, &response.map_err(|error| Failure::new(format_args!("{what}: {error}")))?)
    }

    /// Observes what a call answers.
    pub(super) fn observe(&mut self, target: &str) -> Result<Feed, Failure> {
        let request = self.request("GET", target, None)?;
        Ok(Feed { what: format!("{}: GET {target}", self.name), observation: self.client.observe(request) })
    }

    /// Ends its observations.
    pub(super) async fn close(self) {
        self.client.close(Duration::from_secs(2)).await;
    }

    fn request(&mut self, method: &str, target: &str, body: Option<Value>) -> Result<coap::Request, Failure> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let mut request = http::Request::builder().method(method).uri(target);
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(Failure::new)?;
        let mut request =
            translate::request::to_coap(&request, Keys::V1, &Limits::default()).map_err(Failure::new)?;
        if self.introduced {
            translate::request::leave_out_sticky(&mut request);
        }
        self.introduced = true;
        Ok(request)
    }
}

/// What an observation tells, one after the other.
pub(super) struct Feed {
    what: String,
    observation: Observation,
}

impl Feed {
    /// The next answer.
    pub(super) async fn next(&mut self) -> Result<Value, Failure> {
        let what = &self.what;
        let response = tokio::time::timeout(PATIENCE, self.observation.next()).await;
        let response =
            response.map_err(|_| Failure::new(format_args!("{what}: no notification in {PATIENCE:?}")))?;
        let response =
            response.ok_or_else(|| Failure::new(format_args!("{what}: the observation has ended")))?;
        read(what, &response.map_err(|error| Failure::new(format_args!("{what}: {error}")))?)
    }
}

fn read(what: &str, response: &coap::Response) -> Result<Value, Failure> {
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::new(format_args!("{what}: cannot read the answer: {error}"));
    let response =
        translate::response::to_http(response, &Limits::default()).map_err(|error| unreadable(&error))?;
    let body: Value = serde_json::from_slice(response.body()).map_err(|error| unreadable(&error))?;
    if response.status().is_success() {
        return Ok(body);
    }
    let reason = body.get("error").and_then(Value::as_str).unwrap_or("no reason given");
    Err(Failure::new(format_args!("{what}: {}: {reason}", response.status())))
}
