//! The packed profile at the gateway as stories in virtual time: agreeing, asking, observing, and what mends what was lost
//! (docs/packed.md §2 and §14).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::sync::LazyLock;

use bytes::Bytes;

use lowband::coap::{Code, Message, OptionNumber, Response};
use lowband::codec;
use lowband::gateway::{Config, FetchId};
use lowband::packed::{Agreement, Asked, Dictionary, EncodeError, Limits, ProxyEnd, Spelling};
use lowband::translate;
use lowband::translate::packed::caller::{Caller, Step};
use lowband::translate::packed::{Hello, Identity, VERSION};

use support::Story;
use support::endpoint::OTHER;
use support::gateway::{Driven, SYNC, config, durable, idle, news, with};

/// The model takes long where nothing is optimised, and is tested elsewhere.
static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| Dictionary::built_in().clone().only(&[0, 1]));

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const SEND: &str = "/_matrix/client/v3/rooms/!r:hs/send/m.room.message/m1";
const HELLO_WORLD: &str = r#"{"body":"Hello World","msgtype":"m.text"}"#;

/// The other end, one message per request.
struct Proxy {
    end: ProxyEnd,
    next: u8,
}

fn packed(config: Config) -> Config {
    Config { dictionaries: vec![DICTIONARY.clone()], ..config }
}

fn hello(epoch: u32) -> Hello {
    Hello { version: VERSION, identity: Identity::of(&DICTIONARY), epoch, transactions: 9 }
}

fn message(id: u8, code: &str, options: &str, payload: &[u8]) -> String {
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CON [MID={id}, TOK=0x{id:02x}], {code}{options}, 0x{hex}")
}

fn response(datagram: &[u8]) -> Response {
    let Message { code, options, payload, .. } = Message::decode(datagram).unwrap();
    Response { code, options, payload }
}

fn says(story: &mut Story<Driven>, at: u64, id: u8, hello: Hello) -> Response {
    story.gets(at, &message(id, "POST", ", Access-Token:\"A\"", &hello.request().payload));
    response(&story.sent(at))
}

impl Proxy {
    /// Agrees with the gateway.
    fn begin(story: &mut Story<Driven>, at: u64, id: u8, epoch: u32) -> Self {
        let answer = says(story, at, id, hello(epoch));
        let agreement = hello(epoch).agreed(&answer).expect("an agreement");
        Proxy { end: ProxyEnd::new(agreement), next: id + 1 }
    }

    fn again(&mut self, story: &mut Story<Driven>, at: u64, epoch: u32) -> Agreement {
        self.next += 1;
        let answer = says(story, at, self.next - 1, hello(epoch));
        let agreement = hello(epoch).agreed(&answer).expect("an agreement");
        self.end.begin_epoch(agreement.epoch, agreement.tokens);
        agreement
    }

    fn asks(&mut self, story: &mut Story<Driven>, at: u64, method: &str, url: &str, json: &str) -> Asked {
        self.sends(story, at, (method, url, json), "", Spelling::Short)
    }

    fn sends(
        &mut self,
        story: &mut Story<Driven>,
        at: u64,
        (method, url, json): (&str, &str, &str),
        options: &str,
        spelling: Spelling,
    ) -> Asked {
        let http =
            http::Request::builder().method(method).uri(url).body(Bytes::from(json.to_owned())).unwrap();
        let (code, request) = translate::packed::request(&http).unwrap();
        let encoded = self.end.encode_request(&request, &DICTIONARY, spelling).unwrap();
        let code = if code == Code::FETCH { "0.05" } else { "POST" };
        story.gets(at, &message(self.next, code, options, &encoded.payload));
        self.next += 1;
        self.end.acknowledge(encoded.message);
        encoded.asked
    }

    /// The client's answer.
    fn reads(&mut self, story: &mut Story<Driven>, at: u64, asked: Asked) -> (u16, String) {
        let datagram = story.sent(at);
        let coap = response(&datagram);
        assert!(translate::packed::is_packed_response(&coap), "{:?} {:?}", coap.code, text(&coap));
        let read = self.end.decode_response(&coap.payload, asked, &DICTIONARY, Limits::default()).unwrap();
        of(translate::response::of_packed(&coap, read))
    }

    fn is_told(&mut self, story: &mut Story<Driven>, at: u64, asked: Asked) -> (u16, String, Message) {
        let datagram = story.sent(at);
        let coap = response(&datagram);
        assert!(translate::packed::is_packed_response(&coap), "{:?} {:?}", coap.code, text(&coap));
        let read =
            self.end.decode_notification(&coap.payload, asked, &DICTIONARY, Limits::default()).unwrap();
        let (status, json) = of(translate::response::of_packed(&coap, read));
        (status, json, Message::decode(&datagram).unwrap())
    }
}

fn of(http: http::Response<Bytes>) -> (u16, String) {
    (http.status().as_u16(), String::from_utf8(http.body().to_vec()).unwrap())
}

/// What the gateway says itself.
fn text(response: &Response) -> String {
    let http = translate::response::to_http(response, &codec::Limits::default()).unwrap();
    String::from_utf8(http.into_body().to_vec()).unwrap()
}

fn acknowledges(story: &mut Story<Driven>, at: u64, message: &Message) {
    story.gets(at, &format!("ACK [MID={}]", message.id.0));
}

#[test]
fn agreement_is_one_exchange_of_27_bytes_and_the_same_when_it_is_asked_for_again() {
    let mut gateway = with(packed(config()));
    let first = says(&mut gateway, 0, 1, hello(77));
    assert_eq!((hello(77).request().payload.len(), first.payload.len()), (18, 9));
    let agreement = hello(77).agreed(&first).unwrap();
    assert_eq!((agreement.epoch, agreement.transactions), (77, 9));
    assert_eq!(says(&mut gateway, 10, 2, hello(77)), first);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.agreements, counters.packed), (1, 1));
}

#[test]
fn packed_request_becomes_a_call_and_its_answer_comes_back_packed() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let asked = proxy.asks(&mut gateway, 10, "GET", WHOAMI, "");
    let id = gateway.fetches(10, &format!("GET https://hs.example{WHOAMI} Bearer A"));
    gateway.fetched(20, id, 200, r#"{"user_id":"@a:hs"}"#);
    assert_eq!(proxy.reads(&mut gateway, 20, asked), (200, r#"{"user_id":"@a:hs"}"#.into()));
    let asked = proxy.asks(&mut gateway, 30, "PUT", SEND, HELLO_WORLD);
    let upstream = SEND.replace("m1", "lb00000009.0");
    let id = gateway.fetches(30, &format!("PUT https://hs.example{upstream} Bearer A {HELLO_WORLD}"));
    let event = r#"{"event_id":"$goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk"}"#;
    gateway.fetched(40, id, 200, event);
    assert_eq!(proxy.reads(&mut gateway, 40, asked), (200, event.into()));
    // A status that its code does not say.
    let asked = proxy.asks(&mut gateway, 50, "GET", WHOAMI, "");
    let id = gateway.fetches(50, &format!("GET https://hs.example{WHOAMI} Bearer A"));
    gateway.fetched(60, id, 418, r#"{"errcode":"M_X"}"#);
    assert_eq!(proxy.reads(&mut gateway, 60, asked), (418, r#"{"errcode":"M_X"}"#.into()));
}

fn synced(gateway: &mut Story<Driven>, proxy: &mut Proxy) -> String {
    let asked = proxy.asks(gateway, 100, "GET", "/_matrix/client/v3/sync?timeout=0", "");
    let id = gateway.fetches(100, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(110, id, 200, &news("s1"));
    let (status, json) = proxy.reads(gateway, 110, asked);
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["next_batch"].as_str().unwrap().to_owned()
}

#[test]
fn positions_stay_with_the_gateway() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let position = synced(&mut gateway, &mut proxy);
    assert!(position.starts_with("lb"), "{position}");
    let url = format!("/_matrix/client/v3/sync?timeout=0&since={position}");
    let asked = proxy.asks(&mut gateway, 200, "GET", &url, "");
    let id = gateway.fetches(200, &format!("GET {SYNC}?timeout=0&since=s1 Bearer A"));
    gateway.fetched(210, id, 200, &idle("s2"));
    assert_eq!(proxy.reads(&mut gateway, 210, asked).0, 200);
}

#[test]
fn answer_that_was_lost_is_not_taken_for_read_because_another_gave_its_position() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let position = synced(&mut gateway, &mut proxy);
    let url = format!("/_matrix/client/v3/sync?timeout=0&since={position}");
    let upstream = format!("GET {SYNC}?timeout=0&since=s1 Bearer A");
    let room = r#"{"next_batch":"s1","rooms":{"join":{"!room:hs.example":{}}}}"#;
    // The second of three answers is lost.
    for (at, arrives) in [(200, true), (300, false), (400, true)] {
        let asked = proxy.asks(&mut gateway, at, "GET", &url, "");
        let id = gateway.fetches(at, &upstream);
        gateway.fetched(at + 10, id, 200, if arrives && at == 200 { r#"{"next_batch":"s1"}"# } else { room });
        match arrives {
            true => assert_eq!(proxy.reads(&mut gateway, at + 10, asked).0, 200),
            false => drop(gateway.sent(at + 10)),
        }
    }
}

fn registered(gateway: &mut Story<Driven>, at: u64, proxy: &mut Proxy) -> (Asked, FetchId) {
    let sync = ("GET", "/_matrix/client/v3/sync", "");
    let asked = proxy.sends(gateway, at, sync, ", Observe:0", Spelling::Short);
    let id = gateway.fetches(at, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(at + 10, id, 200, &news("s1"));
    gateway.sends(at + 10, &format!("ACK [MID={}]", proxy.next - 1));
    let first = gateway.sent(at + 10);
    let coap = response(&first);
    let read = proxy.end.decode_response(&coap.payload, asked, &DICTIONARY, Limits::default()).unwrap();
    assert!(String::from_utf8(read.body.unwrap()).unwrap().contains("m.x"));
    acknowledges(gateway, at + 20, &Message::decode(&first).unwrap());
    let poll = gateway.fetches(at + 20, &format!("GET {SYNC}?timeout=30000&since=s1 Bearer A"));
    (asked, poll)
}

#[test]
fn observer_is_told_in_packed_notifications_from_where_it_is() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let (asked, poll) = registered(&mut gateway, 100, &mut proxy);
    // A position that moves with nothing in it is not told, and nothing is told from it.
    gateway.fetched(5_000, poll, 200, &idle("s2"));
    let poll = gateway.fetches(5_000, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
    gateway.fetched(7_000, poll, 200, &news("s3"));
    let (status, json, message) = proxy.is_told(&mut gateway, 7_000, asked);
    assert_eq!(status, 200);
    assert!(json.contains("m.x"), "{json}");
    acknowledges(&mut gateway, 7_100, &message);
    let poll = gateway.fetches(7_100, &format!("GET {SYNC}?timeout=30000&since=s3 Bearer A"));
    // What the homeserver ends it with says its status, and is not packed.
    gateway.fetched(8_000, poll, 401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#);
    let last = response(&gateway.sent(8_000));
    assert_eq!((last.code, text(&last)), (Code::UNAUTHORIZED, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#.into()));
}

#[test]
fn gateway_that_comes_back_still_knows_what_was_told() {
    let mut gateway = with(packed(durable()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let position = synced(&mut gateway, &mut proxy);
    gateway.does(1_000, |driven, now| driven.restart(packed(durable()), now));
    let url = format!("/_matrix/client/v3/sync?timeout=0&since={position}");
    let asked = proxy.asks(&mut gateway, 2_000, "GET", &url, "");
    let id = gateway.fetches(2_000, &format!("GET {SYNC}?timeout=0&since=s1 Bearer A"));
    gateway.fetched(2_010, id, 200, &idle("s2"));
    assert_eq!(proxy.reads(&mut gateway, 2_010, asked).0, 200);
}

#[test]
fn observer_of_before_a_restart_is_told_on_from_where_it_is() {
    let mut gateway = with(packed(durable()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let (asked, poll) = registered(&mut gateway, 100, &mut proxy);
    gateway.fetched(500, poll, 200, &news("s2"));
    // It does not arrive, and comes again as it was.
    let lost = Message::decode(&gateway.sent(500)).unwrap();
    gateway.does(1_000, |driven, now| driven.restart(packed(durable()), now));
    let (_, json, message) = proxy.is_told(&mut gateway, 1_000, asked);
    assert!(json.contains("m.x"), "{json}");
    assert_eq!((&message.payload, &message.options), (&lost.payload, &lost.options));
    acknowledges(&mut gateway, 1_100, &message);
    gateway.fetches(1_100, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
    gateway.does(2_000, |driven, now| driven.restart(packed(durable()), now));
    let poll = gateway.fetches(2_000, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
    gateway.fetched(2_500, poll, 200, &news("s3"));
    assert!(proxy.is_told(&mut gateway, 2_500, asked).1.contains("m.x"));
}

#[test]
fn observer_whose_agreement_is_lost_in_a_restart_is_told_to_register_again() {
    let mut gateway = with(packed(durable()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    registered(&mut gateway, 100, &mut proxy);
    gateway.does(1_000, |driven, now| {
        driven.restart(packed(durable()), now);
        driven.stored.retain(|key, _| key[0] != b'p');
        driven.restart(packed(durable()), now);
    });
    let last = gateway.sent(1_000);
    assert_eq!(response(&last).code, Code::SERVICE_UNAVAILABLE);
    acknowledges(&mut gateway, 1_100, &Message::decode(&last).unwrap());
    let mut proxy = Proxy::begin(&mut gateway, 1_500, 50, 2);
    registered(&mut gateway, 2_000, &mut proxy);
}

#[test]
fn gateway_that_has_lost_everything_says_so_and_a_new_agreement_mends_it() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let position = synced(&mut gateway, &mut proxy);
    gateway.does(1_000, |driven, now| driven.restart(packed(config()), now));
    proxy.asks(&mut gateway, 2_000, "GET", WHOAMI, "");
    let refused = response(&gateway.sent(2_000));
    assert_eq!(refused.code, Code::PRECONDITION_FAILED);
    assert!(text(&refused).contains("has to begin one"), "{}", text(&refused));
    let before = proxy.end.agreement();
    let agreement = proxy.again(&mut gateway, 3_000, 2);
    assert_ne!(agreement.tokens, before.tokens);
    let asked = proxy.asks(&mut gateway, 4_000, "GET", WHOAMI, "");
    let id = gateway.fetches(4_000, &format!("GET https://hs.example{WHOAMI} Bearer A"));
    gateway.fetched(4_010, id, 200, "{}");
    assert_eq!(proxy.reads(&mut gateway, 4_010, asked), (200, "{}".into()));
    // The homeserver's position is lost, and another is never taken for it.
    let url = format!("/_matrix/client/v3/sync?since={position}");
    let http = http::Request::builder().uri(&url).body(Bytes::new()).unwrap();
    let (_, request) = translate::packed::request(&http).unwrap();
    let refused = proxy.end.encode_request(&request, &DICTIONARY, Spelling::Short);
    assert_eq!(refused.unwrap_err(), EncodeError::ForeignToken);
}

#[test]
fn proxy_that_has_lost_everything_begins_an_epoch_that_no_late_message_is_of() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let (_, poll) = registered(&mut gateway, 100, &mut proxy);
    // 9 has the same last bits as 1.
    let mut proxy = Proxy::begin(&mut gateway, 1_000, 50, 9);
    assert_eq!(proxy.end.agreement().epoch, 10);
    // What it observed it cannot read any more.
    gateway.abandons(1_000, poll);
    registered(&mut gateway, 2_000, &mut proxy);
}

#[test]
fn unknown_alias_is_refused_and_spelled_out() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let room = |n: u8| format!("/_matrix/client/v3/rooms/!r:hs/state/m.room.name/{n}");
    let url = room(1);
    // Written, said to have arrived, and never sent.
    let http = http::Request::builder().uri(&url).body(Bytes::new()).unwrap();
    let (_, request) = translate::packed::request(&http).unwrap();
    let lost = proxy.end.encode_request(&request, &DICTIONARY, Spelling::Short).unwrap();
    proxy.end.acknowledge(lost.message);
    proxy.asks(&mut gateway, 100, "GET", &url, "");
    let refused = response(&gateway.sent(100));
    assert_eq!(refused.code, Code::UNPROCESSABLE_ENTITY);
    assert!(text(&refused).contains("is unknown"), "{}", text(&refused));
    proxy.sends(&mut gateway, 200, ("GET", &url, ""), "", Spelling::Full);
    gateway.fetches(200, &format!("GET https://hs.example{url} Bearer A"));
}

#[test]
fn another_dictionary_is_refused_by_name() {
    let mut gateway = with(packed(config()));
    let theirs = Hello { identity: Identity([0xab; 8]), ..hello(1) };
    let refused = says(&mut gateway, 0, 1, theirs);
    assert_eq!(refused.code, Code::CONFLICT);
    let ours = Identity::of(&DICTIONARY).to_string();
    let error = text(&refused);
    assert!(error.contains(&ours) && error.contains("abababababababab"), "{error}");
    assert_eq!(theirs.agreed(&refused), None);
}

#[test]
fn gateway_without_the_profile_answers_as_one_of_before_and_the_proxy_falls_back() {
    let mut gateway = with(Config { packed: 0, ..config() });
    let refused = says(&mut gateway, 0, 1, hello(1));
    assert_eq!(refused.code, Code::NOT_FOUND);
    assert_eq!(hello(1).agreed(&refused), None);
    gateway.gets(10, &format!("CON [MID=2, TOK=0xaa], GET, {WHOAMI}, Accept:50"));
    gateway.fetches(10, &format!("GET https://hs.example{WHOAMI} Bearer A"));
}

#[test]
fn peer_without_the_profile_is_served_by_the_other_beside_it() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    gateway.gets(10, &format!("CON [MID=200, TOK=0xaa], GET, {WHOAMI}, Accept:50"));
    let id = gateway.fetches(10, &format!("GET https://hs.example{WHOAMI} Bearer A"));
    gateway.fetched(20, id, 200, "{}");
    gateway.sends(20, "ACK [MID=200, TOK=0xaa], 2.05, CF:50, `{}`");
    // The root is no place for it.
    gateway.gets(30, "CON [MID=201, TOK=0xab], POST, CF:60, 0xa0");
    assert_eq!(response(&gateway.sent(30)).code, Code::NOT_FOUND);
    gateway.gets(40, "CON [MID=202, TOK=0xac], GET");
    assert_eq!(response(&gateway.sent(40)).code, Code::NOT_FOUND);
    proxy.asks(&mut gateway, 50, "GET", WHOAMI, "");
    gateway.fetches(50, &format!("GET https://hs.example{WHOAMI} Bearer A"));
}

#[test]
fn fetch_is_for_what_is_safe() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let http = http::Request::put(SEND).body(Bytes::from(HELLO_WORLD)).unwrap();
    let (_, request) = translate::packed::request(&http).unwrap();
    let encoded = proxy.end.encode_request(&request, &DICTIONARY, Spelling::Short).unwrap();
    gateway.gets(10, &message(9, "0.05", "", &encoded.payload));
    assert_eq!(response(&gateway.sent(10)).code, Code::METHOD_NOT_ALLOWED);
    gateway.gets(20, &message(10, "0.05", "", &hello(1).request().payload));
    assert_eq!(response(&gateway.sent(20)).code, Code::METHOD_NOT_ALLOWED);
}

#[test]
fn who_was_not_heard_of_for_longest_makes_room_and_begins_anew() {
    let mut gateway = with(Config { packed: 1, ..packed(durable()) });
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let of_packed = |driven: &Driven| driven.stored.keys().filter(|key| key[0] == b'p').count();
    gateway.with(OTHER).gets(10, &message(1, "POST", "", &hello(5).request().payload));
    gateway.sent(10);
    assert_eq!((of_packed(&gateway.machine), gateway.machine.gateway.counters().packed), (1, 1));
    proxy.asks(&mut gateway, 20, "GET", WHOAMI, "");
    let refused = response(&gateway.sent(20));
    assert_eq!(refused.code, Code::PRECONDITION_FAILED);
    assert!(refused.options.get(OptionNumber::CONTENT_FORMAT).is_some());
}

#[test]
fn what_is_no_packed_message_is_refused_with_what_is_wrong() {
    let mut gateway = with(packed(config()));
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let epoch = (proxy.end.agreement().epoch as u8 & 7) << 2;
    for (id, payload, code) in [
        (10, &[epoch][..], Code::BAD_REQUEST),
        (11, &[epoch, 0xff, 0x7f][..], Code::NOT_FOUND),
        (12, &[(epoch ^ 4)][..], Code::PRECONDITION_FAILED),
        (13, &[0x01, 0x01][..], Code::BAD_REQUEST),
    ] {
        gateway.gets(u64::from(id), &message(id, "POST", "", payload));
        let refused = response(&gateway.sent(u64::from(id)));
        assert_eq!(refused.code, code, "{payload:02x?} {}", text(&refused));
    }
    proxy.asks(&mut gateway, 50, "GET", WHOAMI, "");
    gateway.fetches(50, &format!("GET https://hs.example{WHOAMI} Bearer A"));
}

/// What a client gets for a request, whose call the homeserver answers if it comes to one; and how many requests it took.
fn call(story: &mut Story<Driven>, caller: &mut Caller, at: u64, upstream: &str) -> (u16, usize) {
    call_with(story, caller, at, upstream, &DICTIONARY)
}

/// The same by a client with this dictionary.
fn call_with(
    story: &mut Story<Driven>,
    caller: &mut Caller,
    at: u64,
    upstream: &str,
    dictionary: &Dictionary,
) -> (u16, usize) {
    let http = http::Request::put(SEND).header("authorization", "Bearer A");
    let (mut pending, mut step) =
        caller.begin(http.body(Bytes::from(HELLO_WORLD)).unwrap(), dictionary).unwrap();
    for sent in 0..10 {
        let request = match step {
            Step::Send(request) => request,
            Step::Done(response) => return (response.status().as_u16(), sent),
        };
        let id = (at / 100) as u8 * 10 + sent as u8;
        let mut message = Message::decode(&[0x41, request.method.0, 0, id, id]).unwrap();
        (message.options, message.payload) = (request.options, request.payload);
        let hex: String = message.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        story.gets(at + sent as u64, &hex);
        if !Hello::begins(&message.payload) && story.machine.gateway.counters().fetching > 0 {
            let id = story.fetches(at + sent as u64, upstream);
            story.fetched(at + sent as u64, id, 200, r#"{"event_id":"$x"}"#);
        }
        step = caller.receive(&mut pending, &response(&story.sent(at + sent as u64)), dictionary).unwrap();
    }
    panic!("it does not end")
}

#[test]
fn each_peer_is_served_by_its_own_dictionary_and_may_change_it() {
    let other = lowband::packed::train::untrained();
    let both = || Config { dictionaries: vec![other.clone(), DICTIONARY.clone()], ..durable() };
    let mut gateway = with(both());
    let mut caller = Caller::new([0, 0, 0, 1, 0, 0, 0, 9]);
    let upstream =
        format!("PUT https://hs.example{} Bearer A {HELLO_WORLD}", SEND.replace("m1", "lb00000009.0"));
    assert_eq!(call_with(&mut gateway, &mut caller, 0, &upstream, &other), (200, 2));
    assert_eq!(call_with(&mut gateway, &mut caller, 100, &upstream, &other), (200, 1));
    // The peer is given the other one: it begins anew, by the same transaction.
    assert_eq!(call(&mut gateway, &mut caller, 200, &upstream), (200, 2));
    gateway.does(250, |driven, now| driven.restart(both(), now));
    assert_eq!(call(&mut gateway, &mut caller, 300, &upstream), (200, 1));
    // What was agreed on by a dictionary that is served no more is forgotten, also by the disk.
    gateway.does(350, |driven, now| {
        driven.restart(Config { dictionaries: vec![other.clone()], ..durable() }, now)
    });
    gateway.does(360, |driven, now| driven.restart(both(), now));
    assert_eq!(call(&mut gateway, &mut caller, 400, &upstream), (200, 3));
}

#[test]
fn caller_with_a_dictionary_that_is_not_served_falls_back_and_says_why() {
    let mut gateway = with(packed(config()));
    let mut caller = Caller::new([0; 8]);
    let (upstream, other) =
        (format!("PUT https://hs.example{SEND} Bearer A {HELLO_WORLD}"), lowband::packed::train::untrained());
    assert_eq!(call_with(&mut gateway, &mut caller, 0, &upstream, &other), (200, 2));
    let (ours, theirs) = (Identity::of(&DICTIONARY), Identity::of(&other));
    assert_eq!(
        caller.why_compatible().unwrap(),
        format!("the tables and the dictionary here are {ours}, and the peer has {theirs}")
    );
}

#[test]
fn caller_agrees_once_and_mends_what_was_lost() {
    let mut gateway = with(packed(config()));
    let mut caller = Caller::new([0, 0, 0, 1, 0, 0, 0, 9]);
    let upstream =
        format!("PUT https://hs.example{} Bearer A {HELLO_WORLD}", SEND.replace("m1", "lb00000009.0"));
    assert_eq!(call(&mut gateway, &mut caller, 0, &upstream), (200, 2));
    assert_eq!(call(&mut gateway, &mut caller, 100, &upstream), (200, 1));
    // The gateway loses everything: a refusal, a hello, and the request again, by the same transaction.
    gateway.does(150, |driven, now| driven.restart(packed(config()), now));
    assert_eq!(call(&mut gateway, &mut caller, 200, &upstream), (200, 3));
    assert_eq!(call(&mut gateway, &mut caller, 300, &upstream), (200, 1));
    // So does the proxy, which keeps what it has as this.
    let kept = serde_json::to_vec(&caller).unwrap();
    let mut caller: Caller = serde_json::from_slice(&kept).unwrap();
    assert_eq!(call(&mut gateway, &mut caller, 400, &upstream), (200, 1));
    let mut caller = Caller::new([0, 0, 0, 2, 0, 0, 0, 8]);
    let upstream = upstream.replace("00000009", "00000008");
    assert_eq!(call(&mut gateway, &mut caller, 500, &upstream), (200, 2));
}

#[test]
fn caller_falls_back_before_a_gateway_without_the_profile() {
    let mut gateway = with(Config { packed: 0, ..config() });
    let mut caller = Caller::new([0; 8]);
    let upstream = format!("PUT https://hs.example{SEND} Bearer A {HELLO_WORLD}");
    assert_eq!(call(&mut gateway, &mut caller, 0, &upstream), (200, 2));
    assert!(caller.is_compatible());
    assert_eq!(call(&mut gateway, &mut caller, 100, &upstream), (200, 1));
}

/// What the homeserver answers to a call for a room's topic: other identifiers for each room.
fn topic(room: u64) -> String {
    format!(
        r#"{{"topic":"of !room{room}:hs.example","by":"@user{room}:hs{room}.example","in":"!room{room}:hs.example"}}"#
    )
}

/// One request for a room's topic over a link on which each datagram may be lost; whether it was answered.
fn asks_for_topic(
    story: &mut Story<Driven>,
    caller: &mut Caller,
    (at, room): (u64, u64),
    chance: &mut u64,
) -> bool {
    let path = format!("/_matrix/client/v3/rooms/!room{room}:hs.example/state/m.room.topic");
    let http = http::Request::get(&path).header("authorization", "Bearer A").body(Bytes::new()).unwrap();
    let (mut pending, mut step) = caller.begin(http, &DICTIONARY).unwrap();
    for sent in 0..10 {
        let request = match step {
            Step::Send(request) => request,
            Step::Done(response) => {
                assert_eq!(of(response), (200, topic(room)));
                return true;
            }
        };
        if one_in(4, chance) {
            return false;
        }
        let id = ((at + sent) as u16).to_be_bytes();
        let mut message = Message::decode(&[0x42, request.method.0, id[0], id[1], id[0], id[1]]).unwrap();
        (message.options, message.payload) = (request.options, request.payload);
        let hex: String = message.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        story.gets(at + sent, &hex);
        if story.machine.gateway.counters().fetching > 0 {
            let id = story.fetches(at + sent, &format!("GET https://hs.example{path} Bearer A"));
            story.fetched(at + sent, id, 200, &topic(room));
        }
        let answer = response(&story.sent(at + sent));
        if one_in(4, chance) {
            return false;
        }
        step = caller.receive(&mut pending, &answer, &DICTIONARY).unwrap();
    }
    panic!("it does not end")
}

/// xorshift64.
fn one_in(n: u64, chance: &mut u64) -> bool {
    *chance ^= *chance << 13;
    *chance ^= *chance >> 7;
    *chance ^= *chance << 17;
    chance.is_multiple_of(n)
}

#[test]
fn whatever_is_lost_and_whoever_restarts_no_answer_is_wrong_and_the_next_calm_one_comes() {
    for seed in 1..=40_u64 {
        let chance = &mut seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut gateway = with(packed(durable()));
        let mut caller = Caller::new(seed.to_be_bytes());
        let mut answered = 0;
        for turn in 1..40_u64 {
            let at = turn * 20;
            if one_in(8, chance) {
                if one_in(3, chance) {
                    gateway.machine.stored.clear();
                }
                gateway.does(at, |driven, now| driven.restart(packed(durable()), now));
            }
            if one_in(8, chance) {
                let kept = serde_json::to_vec(&caller).unwrap();
                caller = match one_in(2, chance) {
                    true => serde_json::from_slice(&kept).unwrap(),
                    false => Caller::new((seed << 16 | turn).to_be_bytes()),
                };
            }
            answered += u32::from(asks_for_topic(&mut gateway, &mut caller, (at, turn % 5), chance));
        }
        assert!(answered > 5, "seed {seed}: {answered}");
    }
}

#[test]
fn answer_in_blocks_is_fetched_by_its_request_without_the_body() {
    let mut config = packed(config());
    config.endpoint.transfers.block = lowband::coap::BlockSize::fitting(64);
    let mut gateway = with(config);
    let mut proxy = Proxy::begin(&mut gateway, 0, 1, 1);
    let asked = proxy.asks(&mut gateway, 10, "GET", WHOAMI, "");
    let id = gateway.fetches(10, &format!("GET https://hs.example{WHOAMI} Bearer A"));
    let json = format!(
        r#"{{"user_id":"@{}:hs"}}"#,
        "0123456789abcdefghijklmnopqrstuvwxyz_ACDEFGHIJKLMNOPQRSTUVWXYZ.=-+/~"
    );
    gateway.fetched(20, id, 200, &json);
    let first = response(&gateway.sent(20));
    assert_eq!(first.payload.len(), 64);
    gateway.gets(30, "CON [MID=100, TOK=0x64], 0.05, 2:1/0/64");
    let second = response(&gateway.sent(30));
    assert_eq!(second.code, Code::CONTENT);
    let whole = [first.payload, second.payload].concat();
    let read = proxy.end.decode_response(&whole, asked, &DICTIONARY, Limits::default()).unwrap();
    assert_eq!(String::from_utf8(read.body.unwrap()).unwrap(), json);
}
