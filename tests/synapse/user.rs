//! A Matrix user who can make each call both ways: through the gateway, and to the homeserver itself.

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lowband::coap;
use lowband::coap::Code;
use lowband::coap::OptionNumber;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::endpoint;
use lowband::net::client::Client;
use lowband::net::client::Observation;
use lowband::net::client::Traffic;
use lowband::translate;
use serde_json::Value;
use serde_json::json;

use super::world::World;

/// One device of one user, or a visitor without a token.
pub struct User {
    coap: Client,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    homeserver: String,
    token: Option<String>,
}

/// An answer, whichever way it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// Seconds: `Retry-After` over HTTP, Max-Age over CoAP.
    pub wait: Option<u64>,
    /// The response code, over CoAP.
    pub code: Option<Code>,
}

impl User {
    /// Somebody who has not logged in, on a socket of their own.
    pub async fn visitor(world: &World) -> Self {
        Self {
            coap: Client::connect(world.coap(), endpoint::Config::default()).await.unwrap(),
            http: legacy::Client::builder(TokioExecutor::new()).build_http(),
            homeserver: world.homeserver().to_owned(),
            token: None,
        }
    }

    /// Somebody who registers over CoAP.
    pub async fn register(world: &World, name: &str) -> Self {
        let mut user = Self::visitor(world).await;
        let body = registration(name);
        let answer = user.over_coap("POST", "/_matrix/client/v3/register", Some(&body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        user.token = Some(answer.body["access_token"].as_str().unwrap().to_owned());
        user
    }

    /// Makes calls with another token, or none, from now on.
    pub fn set_token(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }

    /// The token of this user's calls.
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }

    /// What has crossed this user's CoAP socket.
    pub fn traffic(&self) -> Traffic {
        self.coap.traffic()
    }

    /// Makes the call both ways, and returns the body of the two answers, which are the same value for value.
    pub async fn both(&self, method: &str, target: &str, body: Option<&Value>) -> Value {
        let (coap, http) = self.both_answers(method, target, body).await;
        assert_eq!(coap.status, 200, "{method} {target}: {coap:?}");
        assert_eq!(http.status, 200, "{method} {target}: {http:?}");
        coap.body
    }

    /// Makes the call both ways, over CoAP first, and compares status and body.
    pub async fn both_answers(&self, method: &str, target: &str, body: Option<&Value>) -> (Answer, Answer) {
        let coap = self.over_coap(method, target, body).await;
        let http = self.over_http(method, target, body).await;
        assert_eq!(coap.status, http.status, "{method} {target}: {coap:?} {http:?}");
        assert_eq!(timeless(coap.body.clone()), timeless(http.body.clone()), "{method} {target}");
        (coap, http)
    }

    /// Makes a GET both ways, and returns the body of the answers, which are the same value for value.
    ///
    /// A homeserver does some things in its own time: presence ends, a new name spreads to the rooms. So it is asked before
    /// and after, until it says the same twice.
    pub async fn get(&self, target: &str) -> Value {
        for _ in 0..5 {
            let before = self.over_http("GET", target, None).await.body;
            let coap = self.over_coap("GET", target, None).await;
            let after = self.over_http("GET", target, None).await;
            assert_eq!((coap.status, after.status), (200, 200), "GET {target}: {coap:?} {after:?}");
            if timeless(before) == timeless(after.body.clone()) {
                assert_eq!(timeless(coap.body.clone()), timeless(after.body), "GET {target}");
                return coap.body;
            }
        }
        panic!("the homeserver's answer to {target} changes all the time");
    }

    /// Makes the call through the gateway alone; it must succeed.
    pub async fn does(&self, method: &str, target: &str, body: Value) -> Value {
        let answer = self.over_coap(method, target, Some(&body)).await;
        assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
        answer.body
    }

    pub async fn over_coap(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let response = self.coap.request(self.coap_request(method, target, body)).await;
        read(&response.unwrap_or_else(|error| panic!("{method} {target}: {error}")))
    }

    pub async fn over_http(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let request = self.request(method, &format!("{}{target}", self.homeserver), body).map(Full::new);
        let response = self.http.request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let wait = head.headers.get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
        Answer { status: head.status.as_u16(), body: value(&body), wait, code: None }
    }

    /// Observes `/sync`.
    pub fn observe(&self, target: &str) -> Observation {
        self.coap.observe(self.coap_request("GET", target, None))
    }

    fn coap_request(&self, method: &str, target: &str, body: Option<&Value>) -> coap::Request {
        translate::request::to_coap(&self.request(method, target, body), Keys::V1, &Limits::default())
            .unwrap()
    }

    fn request(&self, method: &str, uri: &str, body: Option<&Value>) -> http::Request<Bytes> {
        let mut request = http::Request::builder().method(method).uri(uri);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default()).unwrap()
    }
}

/// What a CoAP response says.
pub fn read(response: &coap::Response) -> Answer {
    let http = translate::response::to_http(response, &Limits::default()).unwrap();
    Answer {
        status: http.status().as_u16(),
        body: value(http.body()),
        wait: response.options.get_uint(OptionNumber::MAX_AGE).map(u64::from),
        code: Some(response.code),
    }
}

/// The body with which somebody registers.
pub fn registration(name: &str) -> Value {
    json!({ "username": name, "password": "correct horse", "auth": { "type": "m.login.dummy" } })
}

/// A body without what counts from the moment of asking.
pub fn timeless(body: Value) -> Value {
    const COUNTING: &[&str] = &["age", "last_active_ago", "retry_after_ms"];
    match body {
        Value::Object(object) => {
            let lasting = object.into_iter().filter(|(name, _)| !COUNTING.contains(&name.as_str()));
            lasting.map(|(name, value)| (name, timeless(value))).collect()
        }
        Value::Array(array) => array.into_iter().map(timeless).collect(),
        other => other,
    }
}

fn value(body: &[u8]) -> Value {
    match body {
        [] => Value::Null,
        body => serde_json::from_slice(body).unwrap(),
    }
}
