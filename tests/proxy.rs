//! Stories of the proxy's machine: what clients ask, what crosses the line, and what they are answered. The gateway of these speaks the
//! compatible profile, so that what crosses can be read here.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use lowband::coap;
use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::matrix::rewrite::Advertise;
use lowband::proxy::AskId;
use lowband::proxy::ClientKey;
use lowband::proxy::Config;
use lowband::proxy::Failure;
use lowband::proxy::Follows;
use lowband::proxy::Output;
use lowband::proxy::Proxy;
use lowband::proxy::policy::Policy;
use lowband::translate;
use lowband::translate::Call;
use lowband::translate::Format;
use lowband::translate::Session;
use serde_json::Value;
use serde_json::json;

const SEND: &str = "/_matrix/client/v3/rooms/!a:hs/send/m.room.message/";

struct Far {
    proxy: Proxy,
    now: Instant,
    clients: u64,
    /// What was asked, and not looked at.
    asked: VecDeque<(AskId, coap::Request)>,
    answers: BTreeMap<ClientKey, http::Response<Bytes>>,
    cancelled: Vec<AskId>,
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Far {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self {
            proxy: Proxy::new(config, [7; 8]),
            now: Instant::START,
            clients: 0,
            asked: VecDeque::new(),
            answers: BTreeMap::new(),
            cancelled: Vec::new(),
            disk: BTreeMap::new(),
        }
    }

    /// One whose gateway has said that it knows the compatible profile alone.
    fn agreed() -> Self {
        Self::agreed_with(Config::default())
    }

    fn agreed_with(config: Config) -> Self {
        let mut far = Self::with(config);
        let client = far.asks("GET", "/_matrix/client/versions", None);
        far.refuses_to_pack();
        let (id, ..) = far.crosses("GET", "/_matrix/client/versions");
        far.hears(id, 200, json!({ "versions": [] }));
        far.answered(client, 200);
        far
    }

    fn refuses_to_pack(&mut self) {
        let (id, hello) = self.asked.pop_front().unwrap();
        assert_eq!((hello.method, hello.payload[0]), (Code::POST, 1), "a hello");
        self.proxy.answered(id, &coap::Response::new(Code::NOT_FOUND), Follows::Nothing, self.now);
        self.drain();
    }

    fn asks(&mut self, method: &str, path: &str, body: Option<Value>) -> ClientKey {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:8008")
            .header(header::AUTHORIZATION, "Bearer secret");
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let client = ClientKey(self.clients);
        self.clients += 1;
        self.proxy.handle(client, request.body(body).unwrap(), self.now);
        self.drain();
        client
    }

    fn drain(&mut self) {
        while let Some(output) = self.proxy.poll() {
            match output {
                Output::Store { key, value: Some(value) } => drop(self.disk.insert(key, value)),
                Output::Store { key, value: None } => drop(self.disk.remove(&key)),
                Output::Ask { id, request, .. } => self.asked.push_back((id, request)),
                Output::Cancel { id } => self.cancelled.push(id),
                Output::Answer { client, response } => drop(self.answers.insert(client, response)),
            }
        }
    }

    /// What crosses the line next, as the gateway reads it.
    fn crosses(&mut self, method: &str, target: &str) -> (AskId, Call, bool) {
        let (id, request) = self.asked.pop_front().expect("nothing crosses");
        let call = translate::request::to_http(&request, &mut Session::new(), &Limits::default()).unwrap();
        let url = call.to_http(&"http://hs".parse().unwrap()).unwrap().uri().to_string();
        assert_eq!((call.method.as_str(), url.as_str()), (method, format!("http://hs{target}").as_str()));
        (id, call, request.observe.is_some())
    }

    fn nothing_crosses(&self) {
        assert!(self.asked.is_empty(), "{:?}", self.asked);
    }

    fn hears(&mut self, id: AskId, status: u16, body: Value) {
        self.hears_of(id, "/_matrix/client/v3/sync", status, body, Follows::Nothing);
    }

    fn hears_more(&mut self, id: AskId, body: Value) {
        self.hears_of(id, "/_matrix/client/v3/sync", 200, body, Follows::More);
    }

    fn hears_of(&mut self, id: AskId, path: &str, status: u16, body: Value, follows: Follows) {
        let http = http::Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let segments: Vec<_> = path.split('/').skip(1).collect();
        let call = Call {
            method: http::Method::GET,
            target: lowband::matrix::expand("GET", &segments).unwrap(),
            query: Vec::new(),
            authorization: None,
            body: Bytes::new(),
            format: Format::Cbor(Keys::V1),
        };
        let response =
            translate::response::to_coap(&call, &http, &Advertise::default(), &Limits::default()).unwrap();
        self.proxy.answered(id, &response, follows, self.now);
        self.drain();
    }

    fn fails(&mut self, id: AskId) {
        let failure = Failure { reason: "no answer in time".to_owned(), is_final: false };
        self.proxy.failed(id, &failure, self.now);
        self.drain();
    }

    fn answered(&mut self, client: ClientKey, status: u16) -> Value {
        let response = self.answers.remove(&client).expect("it is answered");
        assert_eq!(response.status().as_u16(), status, "{response:?}");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        serde_json::from_slice(response.body()).unwrap()
    }

    fn waits(&self, client: ClientKey) {
        assert!(!self.answers.contains_key(&client), "{:?}", self.answers[&client]);
    }

    /// Lets time pass, as a driver would.
    fn passes(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..1_000 {
            let Some(next) = self.proxy.deadline().filter(|next| *next <= until) else { break };
            self.now = next.max(self.now);
            self.proxy.advance(self.now);
            self.drain();
        }
        self.now = until;
        assert!(self.proxy.deadline().is_none_or(|next| next > until), "it does nothing about its deadline");
    }

    /// The process ends, and another one takes up what is on the disk.
    fn restarts(&mut self) {
        self.proxy = Proxy::new(Config::default(), [8; 8]);
        self.asked.clear();
        self.answers.clear();
        self.proxy.restore(self.disk.clone(), self.now);
        self.drain();
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn message(text: &str) -> Option<Value> {
    Some(json!({ "msgtype": "m.text", "body": text }))
}

fn delta(next_batch: &str, text: &str) -> Value {
    let event = json!({ "type": "m.room.message", "content": { "body": text } });
    json!({ "next_batch": next_batch, "rooms": { "join": { "!a:hs": { "timeline": { "events": [event] } } } } })
}

#[test]
fn what_is_no_business_of_the_homeservers_does_not_cross() {
    let mut far = Far::new();
    let preflight = far.asks("OPTIONS", "/_matrix/client/v3/sync", None);
    assert_eq!(far.answered(preflight, 200), json!({}));
    let place = far.asks("GET", "/.well-known/matrix/client", None);
    assert_eq!(far.answered(place, 200), json!({ "m.homeserver": { "base_url": "http://127.0.0.1:8008" } }));
    let foreign = far.asks("GET", "/etc/passwd", None);
    assert_eq!(far.answered(foreign, 404)["errcode"], "M_UNRECOGNIZED");
    let status = far.asks("GET", "/_lowband/status", None);
    assert_eq!(far.answered(status, 200)["link"], "unknown");
    far.nothing_crosses();
}

#[test]
fn what_is_asked_while_both_ends_agree_waits_for_that() {
    let mut far = Far::new();
    let first = far.asks("GET", "/_matrix/client/v3/account/whoami", None);
    let second = far.asks("GET", "/_matrix/client/v3/capabilities", None);
    assert_eq!(far.asked.len(), 1);
    far.refuses_to_pack();
    let (id, call, _) = far.crosses("GET", "/_matrix/client/v3/account/whoami");
    assert_eq!(call.authorization.unwrap(), "Bearer secret");
    far.hears(id, 200, json!({ "user_id": "@a:hs" }));
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/capabilities");
    far.hears(id, 404, json!({ "errcode": "M_NOT_FOUND", "error": "none" }));
    assert_eq!(far.answered(first, 200)["user_id"], "@a:hs");
    assert_eq!(far.answered(second, 404), json!({ "errcode": "M_NOT_FOUND", "error": "none" }));
}

#[test]
fn an_agreement_that_fails_is_tried_again_by_what_waits() {
    let mut far = Far::new();
    let first = far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({})));
    let second = far.asks("GET", "/_matrix/client/v3/capabilities", None);
    let (id, _) = far.asked.pop_front().unwrap();
    far.fails(id);
    assert_eq!(far.answered(first, 504)["errcode"], "M_CONNECTION_TIMEOUT");
    far.refuses_to_pack();
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/capabilities");
    far.hears(id, 200, json!({}));
    far.answered(second, 200);
}

#[test]
fn a_login_answer_says_that_the_homeserver_is_here() {
    let mut far = Far::agreed();
    let client = far.asks("POST", "/_matrix/client/v3/login", Some(json!({ "type": "m.login.password" })));
    let (id, ..) = far.crosses("POST", "/_matrix/client/v3/login");
    let elsewhere = json!({ "m.homeserver": { "base_url": "https://hs.example" } });
    far.hears(id, 200, json!({ "user_id": "@a:hs", "well_known": elsewhere }));
    let answer = far.answered(client, 200);
    assert_eq!(answer["well_known"]["m.homeserver"]["base_url"], "http://127.0.0.1:8008");
}

#[test]
fn who_gives_up_and_asks_again_joins_what_is_under_way() {
    let mut far = Far::agreed();
    let first = far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({ "name": "x" })));
    let (id, ..) = far.crosses("POST", "/_matrix/client/v3/createRoom");
    far.proxy.gone(first, far.now);
    far.passes(seconds(40));
    let second = far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({ "name": "x" })));
    far.nothing_crosses();
    far.hears(id, 200, json!({ "room_id": "!a:hs" }));
    assert_eq!(far.answered(second, 200)["room_id"], "!a:hs");
    far.waits(first);
    let other = far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({ "name": "x" })));
    far.crosses("POST", "/_matrix/client/v3/createRoom");
    far.waits(other);
}

#[test]
fn an_answer_that_nobody_waited_for_is_kept_for_who_asks_again_and_not_for_ever() {
    let mut far = Far::agreed();
    let first = far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({})));
    let (id, ..) = far.crosses("POST", "/_matrix/client/v3/createRoom");
    far.proxy.gone(first, far.now);
    far.hears(id, 200, json!({ "room_id": "!a:hs" }));
    far.passes(seconds(300));
    let again = far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({})));
    assert_eq!(far.answered(again, 200)["room_id"], "!a:hs");
    let later = far.asks("GET", "/_matrix/client/v3/joined_rooms", None);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/joined_rooms");
    far.proxy.gone(later, far.now);
    far.hears(id, 200, json!({}));
    far.passes(seconds(70));
    far.asks("GET", "/_matrix/client/v3/joined_rooms", None);
    far.crosses("GET", "/_matrix/client/v3/joined_rooms");
    far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({})));
    far.crosses("POST", "/_matrix/client/v3/createRoom");
}

#[test]
fn what_failed_is_asked_again_where_that_does_no_harm() {
    let mut far = Far::agreed();
    let client = far.asks("GET", "/_matrix/client/v3/capabilities", None);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/capabilities");
    far.fails(id);
    far.waits(client);
    far.nothing_crosses();
    far.passes(seconds(5));
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/capabilities");
    far.fails(id);
    far.passes(seconds(9));
    far.nothing_crosses();
    far.passes(seconds(1));
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/capabilities");
    far.hears(id, 200, json!({ "capabilities": {} }));
    far.answered(client, 200);
}

#[test]
fn a_post_that_failed_is_not_made_twice() {
    let mut far = Far::agreed();
    let client = far.asks("POST", "/_matrix/client/v3/createRoom", Some(json!({})));
    let (id, ..) = far.crosses("POST", "/_matrix/client/v3/createRoom");
    far.fails(id);
    assert_eq!(far.answered(client, 504)["errcode"], "M_CONNECTION_TIMEOUT");
    far.passes(seconds(3_600));
    far.nothing_crosses();
}

#[test]
fn messages_leave_one_after_another_in_the_order_in_which_they_came() {
    let mut far = Far::agreed();
    let clients = ["one", "two"].map(|text| far.asks("PUT", &format!("{SEND}{text}"), message(text)));
    let (id, ..) = far.crosses("PUT", &format!("{SEND}one"));
    far.nothing_crosses();
    far.fails(id);
    far.passes(seconds(5));
    let (id, ..) = far.crosses("PUT", &format!("{SEND}one"));
    far.nothing_crosses();
    far.hears(id, 200, json!({ "event_id": "$1" }));
    let (id, ..) = far.crosses("PUT", &format!("{SEND}two"));
    far.hears(id, 200, json!({ "event_id": "$2" }));
    assert_eq!(clients.map(|client| far.answered(client, 200)["event_id"].clone()), ["$1", "$2"]);
    assert_eq!(far.disk.len(), 1, "the line alone is on the disk");
}

#[test]
fn who_waits_too_long_is_told_to_come_back_and_the_message_goes_on() {
    let mut far = Far::agreed();
    let client = far.asks("PUT", &format!("{SEND}t1"), message("hi"));
    let (id, ..) = far.crosses("PUT", &format!("{SEND}t1"));
    far.passes(seconds(601));
    let told = far.answered(client, 429);
    assert_eq!(told["errcode"], "M_LIMIT_EXCEEDED");
    assert!(told["retry_after_ms"].as_u64().is_some_and(|wait| wait >= 1_000));
    let status = far.asks("GET", "/_lowband/status", None);
    assert_eq!(far.answered(status, 200)["queue"][0]["path"], format!("{SEND}t1"));
    far.hears(id, 200, json!({ "event_id": "$1" }));
    let again = far.asks("PUT", &format!("{SEND}t1"), message("hi"));
    far.nothing_crosses();
    assert_eq!(far.answered(again, 200)["event_id"], "$1");
}

#[test]
fn the_queue_outlasts_the_process() {
    let mut far = Far::agreed();
    far.asks("PUT", &format!("{SEND}t1"), message("one"));
    far.asks("PUT", &format!("{SEND}t2"), message("two"));
    far.crosses("PUT", &format!("{SEND}t1"));
    far.restarts();
    far.refuses_to_pack();
    let (id, call, _) = far.crosses("PUT", &format!("{SEND}t1"));
    assert_eq!(call.authorization.unwrap(), "Bearer secret");
    far.hears(id, 200, json!({ "event_id": "$1" }));
    far.crosses("PUT", &format!("{SEND}t2"));
    // The answer to the first is there for a client that was cut off, also after the next restart.
    far.restarts();
    let again = far.asks("PUT", &format!("{SEND}t1"), message("one"));
    assert_eq!(far.answered(again, 200)["event_id"], "$1");
}

#[test]
fn a_record_that_cannot_be_read_is_counted_and_taken_away() {
    let mut far = Far::agreed();
    far.disk.insert(vec![b'q', 0], vec![1]);
    far.disk.insert(vec![b'q', 0, 0, 0, 0, 0, 0, 0, 9], vec![1, 0xa0]);
    far.disk.insert(b"z".to_vec(), vec![9]);
    far.restarts();
    assert_eq!(far.proxy.counters().unreadable, 3);
    assert_eq!(far.disk.len(), 1);
}

#[test]
fn what_nobody_waits_for_is_tried_again_when_the_homeserver_has_no_time() {
    let mut far = Far::agreed();
    let client = far.asks("PUT", &format!("{SEND}t1"), message("hi"));
    let (id, ..) = far.crosses("PUT", &format!("{SEND}t1"));
    far.proxy.gone(client, far.now);
    far.hears(id, 502, json!({ "errcode": "M_CONNECTION_FAILED", "error": "not there" }));
    far.passes(seconds(5));
    let (id, ..) = far.crosses("PUT", &format!("{SEND}t1"));
    far.hears(id, 403, json!({ "errcode": "M_FORBIDDEN", "error": "no" }));
    let again = far.asks("PUT", &format!("{SEND}t1"), message("hi"));
    assert_eq!(far.answered(again, 403)["errcode"], "M_FORBIDDEN");
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let mut far = Far::agreed_with(Config { calls: 2, ..Config::default() });
    far.asks("GET", "/_matrix/client/v3/capabilities", None);
    far.asks("GET", "/_matrix/client/v3/pushrules/", None);
    let third = far.asks("GET", "/_matrix/client/v3/account/whoami", None);
    assert_eq!(far.answered(third, 429)["errcode"], "M_LIMIT_EXCEEDED");
}

/// A client that has its initial sync, and the observation behind it.
fn synced(far: &mut Far) -> AskId {
    let client = far.asks("GET", "/_matrix/client/v3/sync?filter=1&timeout=30000", None);
    let (id, _, observes) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1");
    assert!(observes);
    far.passes(seconds(3_000));
    far.waits(client);
    far.hears_more(id, delta("s1", "first"));
    assert_eq!(far.answered(client, 200), delta("s1", "first"));
    id
}

fn polls(far: &mut Far, since: &str) -> ClientKey {
    far.asks("GET", &format!("/_matrix/client/v3/sync?filter=1&timeout=30000&since={since}"), None)
}

#[test]
fn a_poll_that_finds_nothing_is_answered_here() {
    let mut far = Far::agreed();
    synced(&mut far);
    let client = polls(&mut far, "s1");
    far.passes(seconds(29));
    far.waits(client);
    far.passes(seconds(1));
    assert_eq!(far.answered(client, 200), json!({ "next_batch": "s1" }));
    far.nothing_crosses();
}

#[test]
fn what_is_against_caches_in_a_poll_is_no_other_poll() {
    let mut far = Far::agreed();
    let client =
        far.asks("GET", "/_matrix/client/v3/sync?filter=0&timeout=0&_cacheBuster=1795546934818", None);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=0");
    far.hears_more(id, delta("s1", "first"));
    far.answered(client, 200);
    let client = far.asks("GET", "/_matrix/client/v3/sync?filter=0&timeout=30000&since=s1", None);
    far.waits(client);
    far.nothing_crosses();
}

#[test]
fn a_client_that_goes_on_by_another_filter_is_observed_by_that_alone_and_misses_nothing() {
    let mut far = Far::agreed();
    let client = far.asks("GET", "/_matrix/client/v3/sync?filter=first&full_state=false", None);
    let (first, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=first");
    far.hears_more(first, delta("s1", "first"));
    far.answered(client, 200);
    far.hears_more(first, delta("s2", "meanwhile"));
    let client = far.asks("GET", "/_matrix/client/v3/sync?filter=0&timeout=30000&since=s1", None);
    assert_eq!(far.answered(client, 200)["next_batch"], "s2");
    assert_eq!(far.cancelled, [first]);
    let client = far.asks("GET", "/_matrix/client/v3/sync?filter=0&timeout=30000&since=s2", None);
    let (second, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=0&since=s2");
    far.hears_more(second, delta("s3", "then"));
    assert_eq!(far.answered(client, 200)["next_batch"], "s3");
    assert_eq!(far.proxy.status(far.now).syncs, 1);
}

#[test]
fn news_is_handed_to_who_waits_and_kept_for_who_comes() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    let waits = polls(&mut far, "s1");
    far.hears_more(id, delta("s2", "second"));
    assert_eq!(far.answered(waits, 200), delta("s2", "second"));
    far.hears_more(id, delta("s3", "third"));
    far.hears_more(id, delta("s4", "fourth"));
    let comes = polls(&mut far, "s2");
    assert_eq!(far.answered(comes, 200), delta("s3", "third"));
    let goes_on = polls(&mut far, "s3");
    assert_eq!(far.answered(goes_on, 200), delta("s4", "fourth"));
    far.nothing_crosses();
}

#[test]
fn an_answer_that_was_lost_on_the_way_to_the_client_is_given_again() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    far.hears_more(id, delta("s2", "second"));
    for _ in 0..3 {
        let again = polls(&mut far, "s1");
        assert_eq!(far.answered(again, 200), delta("s2", "second"));
    }
    far.nothing_crosses();
}

#[test]
fn the_counters_that_a_homeserver_states_each_time_stand_in_answers_that_are_made_here() {
    let mut far = Far::agreed();
    let client = far.asks("GET", "/_matrix/client/v3/sync?timeout=0", None);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync");
    far.hears_more(
        id,
        json!({ "next_batch": "s1", "device_one_time_keys_count": { "signed_curve25519": 50 } }),
    );
    far.answered(client, 200);
    let idle = far.asks("GET", "/_matrix/client/v3/sync?timeout=0&since=s1", None);
    let expected = json!({ "next_batch": "s1", "device_one_time_keys_count": { "signed_curve25519": 50 } });
    assert_eq!(far.answered(idle, 200), expected);
}

#[test]
fn a_client_that_begins_elsewhere_is_registered_there() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    let client = polls(&mut far, "s0");
    assert_eq!(far.cancelled, [id]);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1&since=s0");
    far.hears_more(id, delta("s1", "first"));
    assert_eq!(far.answered(client, 200), delta("s1", "first"));
}

#[test]
fn an_observation_that_ends_is_registered_again_from_the_last_position() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    let client = polls(&mut far, "s1");
    far.fails(id);
    far.passes(seconds(5));
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1&since=s1");
    far.hears_more(id, json!({ "next_batch": "s9" }));
    far.waits(client);
    far.passes(seconds(25));
    assert_eq!(far.answered(client, 200), json!({ "next_batch": "s9" }));
    let client = polls(&mut far, "s9");
    far.hears_more(id, delta("s10", "news"));
    assert_eq!(far.answered(client, 200), delta("s10", "news"));
}

#[test]
fn a_gateway_that_does_not_observe_is_asked_again_and_again() {
    let mut far = Far::agreed();
    let client = far.asks("GET", "/_matrix/client/v3/sync?timeout=30000", None);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync");
    far.hears(id, 200, delta("s1", "first"));
    far.answered(client, 200);
    let client = far.asks("GET", "/_matrix/client/v3/sync?timeout=30000&since=s1", None);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?since=s1");
    far.hears(id, 200, json!({ "next_batch": "s1" }));
    far.passes(seconds(5));
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?since=s1");
    far.hears(id, 200, delta("s2", "second"));
    assert_eq!(far.answered(client, 200), delta("s2", "second"));
}

#[test]
fn what_the_homeserver_refuses_a_poll_is_told_its_client() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    let client = polls(&mut far, "s1");
    far.hears(id, 401, json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "gone" }));
    assert_eq!(far.answered(client, 401)["errcode"], "M_UNKNOWN_TOKEN");
    assert_eq!(far.proxy.status(far.now).syncs, 0);
}

#[test]
fn a_client_that_comes_no_more_is_observed_for_no_more() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    far.passes(seconds(1_801));
    assert_eq!(far.cancelled, [id]);
    let client = polls(&mut far, "s1");
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1&since=s1");
    far.hears_more(id, delta("s2", "second"));
    assert_eq!(far.answered(client, 200), delta("s2", "second"));
}

#[test]
fn what_a_client_does_not_come_for_is_bounded_and_told_when_it_comes() {
    let mut far = Far::agreed_with(Config { deltas: 2, ..Config::default() });
    let id = synced(&mut far);
    polls(&mut far, "s1");
    far.hears_more(id, delta("s2", "second"));
    far.hears_more(id, delta("s3", "third"));
    far.hears_more(id, delta("s4", "fourth"));
    assert_eq!(far.cancelled, [id]);
    for (since, next, text) in [("s2", "s3", "third"), ("s3", "s4", "fourth")] {
        let client = polls(&mut far, since);
        assert_eq!(far.answered(client, 200), delta(next, text));
    }
    let client = polls(&mut far, "s4");
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1&since=s4");
    far.hears_more(id, delta("s5", "fifth"));
    assert_eq!(far.answered(client, 200), delta("s5", "fifth"));
}

#[test]
fn a_gateway_that_was_silent_for_long_is_asked_where_that_is_wanted() {
    let mut far = Far::agreed_with(Config { keepalive: Some(seconds(600)), ..Config::default() });
    let id = synced(&mut far);
    for _ in 0..20 {
        let client = polls(&mut far, "s1");
        far.passes(seconds(30));
        far.answered(client, 200);
    }
    assert_eq!(far.cancelled, [id]);
    far.crosses("GET", "/_matrix/client/v3/sync?filter=1&since=s1");
}

fn slow() -> Config {
    let mut policy = Policy::of_rate(100);
    policy.set("typing=latest").unwrap();
    Config { policy, ..Config::default() }
}

#[test]
fn what_does_not_fit_a_slow_link_is_refused_or_answered_here() {
    let mut far = Far::agreed_with(slow());
    let media = far.asks("GET", "/_matrix/client/v1/media/download/hs/abc", None);
    assert_eq!(far.answered(media, 403)["errcode"], "M_FORBIDDEN");
    let presence = json!({ "presence": "online" });
    let presence = far.asks("PUT", "/_matrix/client/v3/presence/@a:hs/status", Some(presence));
    assert_eq!(far.answered(presence, 200), json!({}));
    far.nothing_crosses();
}

#[test]
fn of_what_waits_only_the_newest_crosses() {
    let mut far = Far::agreed_with(slow());
    const TYPING: &str = "/_matrix/client/v3/rooms/!a:hs/typing/@a:hs";
    let receipt = |event: &str| format!("/_matrix/client/v3/rooms/!a:hs/receipt/m.read/{event}");
    let [first, second, third] =
        [true, false, true].map(|typing| far.asks("PUT", TYPING, Some(json!({ "typing": typing }))));
    let (id, ..) = far.crosses("PUT", TYPING);
    assert_eq!(far.answered(second, 200), json!({}));
    let old = far.asks("POST", &receipt("$1"), Some(json!({})));
    let threaded = far.asks("POST", &receipt("$2"), Some(json!({ "thread_id": "$0" })));
    let new = far.asks("POST", &receipt("$3"), Some(json!({})));
    assert_eq!(far.answered(old, 200), json!({}));
    far.nothing_crosses();
    far.hears(id, 200, json!({}));
    far.answered(first, 200);
    for (client, path) in [(third, TYPING.to_owned()), (threaded, receipt("$2")), (new, receipt("$3"))] {
        let method = if path == TYPING { "PUT" } else { "POST" };
        let (id, ..) = far.crosses(method, &path);
        far.hears(id, 200, json!({}));
        far.answered(client, 200);
    }
    far.nothing_crosses();
}

#[test]
fn what_is_deferred_crosses_when_nothing_else_does() {
    let mut far = Far::agreed_with(slow());
    let search = Some(json!({ "search_term": "bob" }));
    let sends = far.asks("PUT", &format!("{SEND}t1"), message("hi"));
    let searches = far.asks("POST", "/_matrix/client/v3/user_directory/search", search);
    let (id, ..) = far.crosses("PUT", &format!("{SEND}t1"));
    far.nothing_crosses();
    far.hears(id, 200, json!({ "event_id": "$1" }));
    far.answered(sends, 200);
    let (id, ..) = far.crosses("POST", "/_matrix/client/v3/user_directory/search");
    far.hears(id, 200, json!({ "results": [] }));
    far.answered(searches, 200);
}

/// Asks for something, which crosses; its answer.
fn fetches(far: &mut Far, path: &str, body: Value) {
    let client = far.asks("GET", path, None);
    let (id, ..) = far.crosses("GET", path);
    far.hears(id, 200, body.clone());
    assert_eq!(far.answered(client, 200), body);
}

fn is_known(far: &mut Far, path: &str, body: &Value) {
    let client = far.asks("GET", path, None);
    far.nothing_crosses();
    assert_eq!(far.answered(client, 200), *body);
}

const MEMBERS: &str = "/_matrix/client/v3/rooms/!a:hs/joined_members";
const RULES: &str = "/_matrix/client/v3/pushrules/";
const EVENT: &str = "/_matrix/client/v3/rooms/!a:hs/event/$1";

#[test]
fn what_holds_is_asked_once() {
    let mut far = Far::agreed();
    let versions = json!({ "versions": [] });
    is_known(&mut far, "/_matrix/client/versions", &versions);
    far.passes(seconds(86_400));
    fetches(&mut far, "/_matrix/client/versions", versions);
    let who = json!({ "user_id": "@a:hs" });
    fetches(&mut far, "/_matrix/client/v3/account/whoami", who.clone());
    is_known(&mut far, "/_matrix/client/v3/account/whoami", &who);
    let client = far.asks("POST", "/_matrix/client/v3/logout", Some(json!({})));
    let (id, ..) = far.crosses("POST", "/_matrix/client/v3/logout");
    far.hears(id, 200, json!({}));
    far.answered(client, 200);
    fetches(&mut far, "/_matrix/client/v3/account/whoami", who);
}

#[test]
fn what_ends_by_a_sync_is_kept_only_while_that_is_observed() {
    let mut far = Far::agreed();
    let members = json!({ "joined": { "@a:hs": {} } });
    fetches(&mut far, MEMBERS, members.clone());
    fetches(&mut far, MEMBERS, members.clone());
    let id = synced(&mut far);
    fetches(&mut far, MEMBERS, members.clone());
    is_known(&mut far, MEMBERS, &members);
    let joins = json!({ "type": "m.room.member", "state_key": "@b:hs", "content": { "membership": "join" } });
    far.hears_more(
        id,
        json!({ "next_batch": "s2", "rooms": { "join": { "!a:hs": { "timeline": { "events": [joins] } } } } }),
    );
    fetches(&mut far, MEMBERS, json!({ "joined": { "@a:hs": {}, "@b:hs": {} } }));
    far.fails(id);
    fetches(&mut far, MEMBERS, members);
}

#[test]
fn a_sync_ends_what_it_says_has_changed_and_nothing_else() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    let (rules, event) = (json!({ "global": {} }), json!({ "event_id": "$1", "content": {} }));
    fetches(&mut far, RULES, rules.clone());
    fetches(&mut far, EVENT, event.clone());
    far.hears_more(id, delta("s2", "nothing of that"));
    is_known(&mut far, RULES, &rules);
    is_known(&mut far, EVENT, &event);
    let edit = json!({ "type": "m.room.message", "content": { "m.relates_to": { "rel_type": "m.replace", "event_id": "$1" } } });
    far.hears_more(
        id,
        json!({ "next_batch": "s3", "rooms": { "join": { "!a:hs": { "timeline": { "events": [edit] } } } } }),
    );
    is_known(&mut far, RULES, &rules);
    fetches(&mut far, EVENT, event);
    far.hears_more(
        id,
        json!({ "next_batch": "s4", "account_data": { "events": [{ "type": "m.push_rules" }] } }),
    );
    fetches(&mut far, RULES, rules);
}

#[test]
fn without_a_cache_each_question_crosses() {
    let mut far = Far::agreed_with(Config { cached: 0, ..Config::default() });
    fetches(&mut far, "/_matrix/client/versions", json!({ "versions": [] }));
    fetches(&mut far, "/_matrix/client/versions", json!({ "versions": [] }));
}

#[test]
fn what_has_come_and_was_not_taken_outlasts_the_process() {
    let mut far = Far::agreed();
    let id = synced(&mut far);
    polls(&mut far, "s1");
    far.hears_more(id, delta("s2", "second"));
    far.hears_more(id, delta("s3", "third"));
    far.restarts();
    // The answer with the second one may not have arrived.
    for (since, next, text) in [("s1", "s2", "second"), ("s2", "s3", "third")] {
        let client = polls(&mut far, since);
        assert_eq!(far.answered(client, 200), delta(next, text));
    }
    far.nothing_crosses();
    let client = polls(&mut far, "s3");
    far.refuses_to_pack();
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1&since=s3");
    far.hears_more(id, delta("s4", "fourth"));
    assert_eq!(far.answered(client, 200), delta("s4", "fourth"));
    far.restarts();
    assert_eq!(far.proxy.status(far.now).syncs, 1);
    far.passes(seconds(1_801));
    assert_eq!(far.disk.len(), 1, "the line alone is left: {:?}", far.disk.keys());
}

#[test]
fn a_position_that_the_homeserver_does_not_know_any_more_is_begun_anew_once() {
    let mut far = Far::agreed();
    let client = polls(&mut far, "s1");
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1&since=s1");
    let unknown = json!({ "errcode": "M_INVALID_PARAM", "error": "Invalid stream token" });
    far.hears(id, 400, unknown.clone());
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=1");
    far.hears_more(id, delta("s9", "all of it"));
    assert_eq!(far.answered(client, 200), delta("s9", "all of it"));
    let again = polls(&mut far, "s1");
    assert_eq!(far.answered(again, 200), delta("s9", "all of it"));
    let client = far.asks("GET", "/_matrix/client/v3/sync?filter=broken&timeout=0", None);
    let (id, ..) = far.crosses("GET", "/_matrix/client/v3/sync?filter=broken");
    far.hears(id, 400, unknown.clone());
    assert_eq!(far.answered(client, 400), unknown);
}
