//! A gateway whose packed profile's model is not ready yet, and what it stores of an agreement (docs/packed.md §11 and §15).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use bytes::Bytes;

use lowband::coap::{Code, Message, Response};
use lowband::gateway::Config;
use lowband::packed::train::untrained;
use lowband::packed::{Dictionary, ProxyEnd, Spelling};
use lowband::translate::packed::{Hello, Identity, VERSION};
use lowband::translate::{self, packed::is_packed_response};

use support::Story;
use support::gateway::{Driven, config, durable, with};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

/// The other end, which has its model.
struct Proxy {
    end: ProxyEnd,
    dictionary: Dictionary,
    next: u8,
}

fn response(datagram: &[u8]) -> Response {
    let Message { code, options, payload, .. } = Message::decode(datagram).unwrap();
    Response { code, options, payload }
}

fn gets(story: &mut Story<Driven>, at: u64, id: u8, code: &str, payload: &[u8]) {
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    story.gets(at, &format!("CON [MID={id}, TOK=0x{id:02x}], {code}, Access-Token:\"A\", 0x{hex}"));
}

impl Proxy {
    /// Agrees with the gateway; whatever it writes is written with this coder.
    fn begin(story: &mut Story<Driven>, coder: usize) -> Self {
        let each: [&[u8]; 3] = [&[0], &[1], &[2]];
        let dictionary = untrained().only(each[coder]);
        let hello =
            Hello { version: VERSION, identity: Identity::of(&dictionary), epoch: 1, transactions: 9 };
        gets(story, 0, 1, "POST", &hello.request().payload);
        let agreement = hello.agreed(&response(&story.sent(0))).expect("an agreement");
        Proxy { end: ProxyEnd::new(agreement), dictionary, next: 2 }
    }

    fn asks(&mut self, story: &mut Story<Driven>, at: u64, method: &str, url: &str, json: &str) {
        let http =
            http::Request::builder().method(method).uri(url).body(Bytes::from(json.to_owned())).unwrap();
        let (code, request) = translate::packed::request(&http).unwrap();
        let encoded = self.end.encode_request(&request, &self.dictionary, Spelling::Short).unwrap();
        self.end.acknowledge(encoded.message);
        gets(story, at, self.next, if code == Code::FETCH { "0.05" } else { "POST" }, &encoded.payload);
        self.next += 1;
    }

    /// Asks, and is answered at once.
    fn calls(&mut self, story: &mut Story<Driven>, at: u64) {
        self.asks(story, at, "GET", WHOAMI, "");
        let id = story.fetches(at, &format!("GET https://hs.example{WHOAMI} Bearer A"));
        story.fetched(at, id, 200, "{}");
        assert!(is_packed_response(&response(&story.sent(at))));
    }

    /// Sends a message that introduces something.
    fn says(&mut self, story: &mut Story<Driven>, at: u64, text: &str) {
        let send = format!("/_matrix/client/v3/rooms/!r:hs/send/m.x/{text}");
        self.asks(story, at, "PUT", &send, &format!("{{\"body\":\"{text} and more\"}}"));
        let upstream = format!("/_matrix/client/v3/rooms/!r:hs/send/m.x/lb00000009.{}", (at / 1_000 - 1) * 2);
        let body = format!("{{\"body\":\"{text} and more\"}}");
        let id = story.fetches(at, &format!("PUT https://hs.example{upstream} Bearer A {body}"));
        story.fetched(at, id, 200, "{}");
        assert_eq!(response(&story.sent(at)).code, Code::CHANGED);
    }
}

#[test]
fn request_that_needs_the_model_waits_for_it_and_holds_nobody_up() {
    let dictionary = untrained();
    let mut gateway = with(Config { dictionaries: vec![dictionary.clone()], ..config() });
    assert!(gateway.machine.gateway.take_primer().is_none(), "nobody speaks it");
    let mut proxy = Proxy::begin(&mut gateway, 2);
    let primer = gateway.machine.gateway.take_primer().expect("one of an agreement");
    assert!(gateway.machine.gateway.take_primer().is_none(), "once");
    proxy.asks(&mut gateway, 100, "GET", WHOAMI, "");
    // Others are served meanwhile.
    gateway.gets(200, "CON [MID=9, TOK=0x99], GET, /_matrix/client/versions");
    let id = gateway.fetches(200, "GET https://hs.example/_matrix/client/versions Bearer A");
    gateway.fetched(200, id, 404, "{}");
    assert_eq!(response(&gateway.sent(200)).code, Code::NOT_FOUND);
    primer.run();
    gateway.does(300, |driven, now| driven.gateway.advance(now));
    let id = gateway.fetches(300, &format!("GET https://hs.example{WHOAMI} Bearer A"));
    gateway.fetched(300, id, 200, r#"{"user_id":"@a:hs"}"#);
    assert!(is_packed_response(&response(&gateway.sent(300))));
}

#[test]
fn request_that_needs_no_model_does_not_wait_and_is_answered_without_it() {
    let dictionary = untrained();
    let mut gateway = with(Config { dictionaries: vec![dictionary.clone()], ..config() });
    let mut proxy = Proxy::begin(&mut gateway, 0);
    let _primer = gateway.machine.gateway.take_primer().expect("one of an agreement");
    proxy.asks(&mut gateway, 100, "GET", WHOAMI, "");
    let id = gateway.fetches(100, &format!("GET https://hs.example{WHOAMI} Bearer A"));
    gateway.fetched(100, id, 200, r#"{"user_id":"@a:hs"}"#);
    let answer = response(&gateway.sent(100));
    assert!(answer.payload[0] < 0x40, "by another coder");
}

#[test]
fn model_that_nobody_makes_ready_is_made_when_it_is_needed() {
    let dictionary = untrained();
    let mut gateway = with(Config { dictionaries: vec![dictionary.clone()], ..config() });
    let mut proxy = Proxy::begin(&mut gateway, 2);
    drop(gateway.machine.gateway.take_primer());
    proxy.calls(&mut gateway, 100);
}

/// How many records there are of what has changed of agreements.
fn changes(story: &Story<Driven>) -> Vec<Vec<u8>> {
    story.machine.stored.keys().filter(|key| key.first() == Some(&b'q')).cloned().collect()
}

#[test]
fn what_has_changed_is_stored_beside_the_whole_and_done_again_after_a_restart() {
    let dictionary = untrained();
    let durable = || Config { dictionaries: vec![dictionary.clone()], ..durable() };
    let mut gateway = with(durable());
    let mut proxy = Proxy::begin(&mut gateway, 0);
    let whole = |story: &Story<Driven>| {
        story
            .machine
            .stored
            .iter()
            .find(|(key, _)| key.first() == Some(&b'p'))
            .map(|(_, value)| value.clone())
    };
    let first = whole(&gateway);
    proxy.says(&mut gateway, 1_000, "one");
    assert!(!changes(&gateway).is_empty() && whole(&gateway) == first && first.is_some());
    gateway.does(1_500, |driven, now| driven.restart(durable(), now));
    // It refers to what was told before, and the whole is stored again.
    proxy.says(&mut gateway, 2_000, "two");
    assert!(whole(&gateway) != first);
    gateway.does(2_500, |driven, now| driven.restart(durable(), now));
    proxy.says(&mut gateway, 3_000, "six");
    assert_eq!(gateway.machine.gateway.counters().unreadable, 0);
}

#[test]
fn agreement_of_which_a_change_is_missing_is_none() {
    let dictionary = untrained();
    let durable = || Config { dictionaries: vec![dictionary.clone()], ..durable() };
    let mut gateway = with(durable());
    let mut proxy = Proxy::begin(&mut gateway, 0);
    for at in 1..4 {
        proxy.says(&mut gateway, 1_000 * at, &format!("text{at}"));
    }
    let stored = changes(&gateway);
    assert!(stored.len() > 2, "{}", stored.len());
    gateway.machine.stored.remove(&stored[1]);
    gateway.does(5_000, |driven, now| driven.restart(durable(), now));
    assert!(changes(&gateway).is_empty());
    proxy.asks(&mut gateway, 6_000, "GET", WHOAMI, "");
    assert_eq!(response(&gateway.sent(6_000)).code, Code::PRECONDITION_FAILED);
    assert_eq!(gateway.machine.gateway.counters().packed, 0);
}
