//! The gateway as stories in virtual time: CoAP on one side, calls of the homeserver on the other (MSC3079; RFC 7641).
//!
//! Answers are asked for in JSON (Accept 50), so that they can be read here; what CBOR they become is tested elsewhere.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use lowband::coap::{BlockSize, Instant};
use lowband::gateway::{Config, FetchError, FetchId, Gateway, Input, Output};

use support::endpoint::{OTHER, peer};
use support::gateway::{Call, SYNC, config, idle, news, observed, with};
use support::notation;

#[test]
fn request_of_the_go_client_for_sync() {
    // Sent by the Go client of MSC3079 for GET /sync?since=s1&timeout=30000 with the token TOK.
    let mut gateway = with(config());
    gateway.gets(0, "41010000 01 b137 112a 3873696e63653d7331 0d0074696d656f75743d3330303030 d3e4544f4b");
    let Call::Fetch { id, request, timeout } = gateway.reported(0) else { panic!("no call") };
    assert_eq!(request, "GET https://hs.example/_matrix/client/v3/sync?since=s1&timeout=30000 Bearer TOK");
    // The long poll, and what any call may take.
    assert_eq!(timeout, Duration::from_secs(30 + 60));
    gateway.sends(1_000, "60 00 0000");
    gateway.fetched(31_000, id, 200, r#"{"next_batch":"s2"}"#);
    gateway.sends(31_000, "CON [MID=a, TOK=0x01], 2.05, CF:60, 0xa16a6e6578745f62617463686273 32");
    gateway.gets(31_100, "ACK [MID=a]");
}

#[test]
fn call_goes_to_the_configured_homeserver_under_its_path() {
    let mut gateway = with(Config { homeserver: "http://[::1]:8008/base/".parse().unwrap(), ..config() });
    gateway.gets(0, "CON [MID=1, TOK=0xaa], GET, opt3:\"elsewhere.example\", /_matrix/client/v3/account/whoami, Accept:50");
    let id = gateway.fetches(0, "GET http://[::1]:8008/base/_matrix/client/v3/account/whoami");
    gateway.fetched(10, id, 401, r#"{"errcode":"M_MISSING_TOKEN","error":"x"}"#);
    gateway
        .sends(10, "ACK [MID=1, TOK=0xaa], 4.01, CF:50, `{\"errcode\":\"M_MISSING_TOKEN\",\"error\":\"x\"}`");
}

#[test]
fn access_token_is_remembered_for_its_peer_alone() {
    let mut gateway = with(config());
    let path = "/_matrix/client/v3/account/whoami";
    gateway.gets(0, &format!("CON [MID=1, TOK=0xaa], GET, {path}, Accept:50, Access-Token:\"A\""));
    gateway.fetches(0, &format!("GET https://hs.example{path} Bearer A"));
    gateway.gets(10, &format!("CON [MID=2, TOK=0xab], GET, {path}, Accept:50"));
    gateway.fetches(10, &format!("GET https://hs.example{path} Bearer A"));
    gateway.with(OTHER).gets(20, &format!("CON [MID=3, TOK=0xac], GET, {path}, Accept:50"));
    gateway.fetches(20, &format!("GET https://hs.example{path}"));
    gateway.gets(30, &format!("CON [MID=4, TOK=0xad], GET, {path}, Accept:50, Access-Token:\"B\""));
    gateway.fetches(30, &format!("GET https://hs.example{path} Bearer B"));
    gateway.gets(40, &format!("CON [MID=5, TOK=0xae], GET, {path}, Accept:50"));
    gateway.fetches(40, &format!("GET https://hs.example{path} Bearer B"));
    // None of them is answered.
    gateway.sends(1_000, "ACK [MID=1]");
    gateway.sends(1_010, "ACK [MID=2]");
    gateway.with(OTHER).sends(1_020, "ACK [MID=3]");
    gateway.sends(1_030, "ACK [MID=4]");
    gateway.sends(1_040, "ACK [MID=5]");
}

#[test]
fn repeated_request_is_passed_on_once() {
    let mut gateway = with(config());
    let put =
        "CON [MID=1, TOK=0xaa], PUT, /_matrix/client/v3/rooms/!r:hs/send/m.x/t1, CF:50, Accept:50, `{}`";
    gateway.gets(0, put);
    let id = gateway.fetches(0, "PUT https://hs.example/_matrix/client/v3/rooms/!r:hs/send/m.x/t1 {}");
    gateway.gets(500, put);
    gateway.sends(1_000, "ACK [MID=1]");
    gateway.gets(2_500, put);
    gateway.sends(2_500, "ACK [MID=1]");
    gateway.fetched(3_000, id, 200, "{}");
    gateway.sends(3_000, "CON [MID=a, TOK=0xaa], 2.04, CF:50, `{}`");
    gateway.gets(3_100, "ACK [MID=a]");
    gateway.gets(6_000, put);
    gateway.sends(6_000, "ACK [MID=1]");
}

#[test]
fn body_in_blocks_is_passed_on_whole() {
    let mut config = config();
    config.endpoint.transfers.block = BlockSize::fitting(16);
    let mut gateway = with(config);
    let json = r#"{"name":"a name of some length"}"#;
    let path = "/_matrix/client/v3/rooms/!r:hs/state/m.room.name";
    for (number, part) in [&json[..16], &json[16..32]].iter().enumerate() {
        let more = u8::from(number == 0);
        let (at, hex): (_, String) = (number, part.bytes().map(|byte| format!("{byte:02x}")).collect());
        gateway.gets(
            at as u64,
            &format!("CON [MID={at}, TOK=0xaa], PUT, {path}, CF:50, Accept:50, 1:{at}/{more}/16, 0x{hex}"),
        );
        if more == 1 {
            gateway.sends(0, "ACK [MID=0, TOK=0xaa], 2.31, 1:0/1/16");
        }
    }
    let id = gateway.fetches(1, &format!("PUT https://hs.example{path} {json}"));
    gateway.fetched(10, id, 200, r#"{"event_id":"$abcdefgh"}"#);
    gateway
        .sends(10, "ACK [MID=1, TOK=0xaa], 2.04, ETag:e, CF:50, 2:0/1/16, 1:1/0/16, `{\"event_id\":\"$ab`");
    gateway.gets(20, &format!("CON [MID=2, TOK=0xaa], PUT, {path}, Accept:50, 2:1/0/16"));
    gateway.sends(20, "ACK [MID=2, TOK=0xaa], 2.04, ETag:e, CF:50, 2:1/0/16, `cdefgh\"}`");
}

#[test]
fn homeserver_that_fails_is_told_to_the_peer() {
    let mut gateway = with(config());
    let html = || {
        http::Response::builder()
            .status(200)
            .header("content-type", "text/html")
            .body(Bytes::from("<p>"))
            .unwrap()
    };
    let slow_down = || {
        let response = http::Response::builder().status(429).header("retry-after", "7");
        response.body(Bytes::from(r#"{"errcode":"M_LIMIT_EXCEEDED"}"#)).unwrap()
    };
    for (at, result, expected) in [
        (0, Err(FetchError::Unreachable("connection refused (10.0.0.1)".into())), "5.02"),
        (10, Err(FetchError::Timeout), "5.04"),
        (20, Err(FetchError::TooLarge { limit: 10 }), "4.13"),
        (30, Ok(html()), "5.02"),
        (40, Ok(slow_down()), "4.29, Max-Age:7"),
    ] {
        gateway.gets(
            at,
            &format!("CON [MID={at}, TOK=0xaa], GET, /_matrix/client/v3/account/whoami, Accept:50"),
        );
        let id = gateway.fetches(at, "GET https://hs.example/_matrix/client/v3/account/whoami");
        gateway.fetch_ends(at, id, result);
        let datagram = gateway.sent(at);
        let text = String::from_utf8_lossy(&datagram);
        let body = &text[text.find('{').expect("a Matrix error body")..];
        assert!(body.contains("\"errcode\":\"M_"), "{body}");
        assert!(!body.contains("10.0.0.1"), "what exactly happened is for the operator");
        assert!(
            notation::matches(
                &format!("ACK [MID={at}, TOK=0xaa], {expected}, CF:50, `{body}`"),
                &datagram,
                &mut Default::default()
            ),
            "{expected}: {}",
            notation::describe(&datagram)
        );
    }
    // A failed call has no answer, and so no bad one.
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.fetch_failures, counters.bad_answers), (3, 1));
}

#[test]
fn refused_request_reaches_no_homeserver() {
    let mut gateway = with(config());
    for (at, request, code) in [
        (0, "GET, opt35:\"http://other.example/\"", "5.05"),
        (10, "FETCH, /_matrix/client/v3/sync", "4.05"),
        (20, "GET, /_matrix/client/v3/../../admin", "4.00"),
        (30, "GET", "4.04"),
        (35, "GET, /_synapse/admin", "4.03"),
        (40, "PUT, /_matrix/client/v3/rooms/!r:hs/send/m.x/t1, CF:0, \"text\"", "4.15"),
        (50, "PUT, /_matrix/client/v3/rooms/!r:hs/send/m.x/t1, CF:60, 0xbf", "4.00"),
    ] {
        gateway.gets(at, &format!("CON [MID={at}, TOK=0xaa], {request}, Accept:50"));
        let datagram = gateway.sent(at);
        let described = notation::describe(&datagram);
        assert!(described.contains(&format!(", {code}, ")), "{request}: {described}");
    }
    assert_eq!(gateway.machine.gateway.counters().fetches, 0);
}

#[test]
fn gateway_that_shuts_down_ends_observations_answers_what_waits_and_refuses_the_rest() {
    let (mut gateway, poll) = observed();
    gateway.gets(200, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/account/whoami, Accept:50");
    let waiting = gateway.fetches(200, "GET https://hs.example/_matrix/client/v3/account/whoami Bearer A");
    gateway.does(300, |driven, now| driven.gateway.shutdown(now));
    gateway.abandons(300, poll);
    let farewell = gateway.sent(300);
    assert!(notation::describe(&farewell).contains(", 5.03, "), "{}", notation::describe(&farewell));
    assert_eq!(&farewell[4..5], &[0x4a]);
    assert!(!gateway.machine.gateway.is_idle());
    gateway.gets(310, &format!("60 00 {:02x}{:02x}", farewell[2], farewell[3]));
    gateway.gets(400, "CON [MID=3, TOK=0x4c], GET, /_matrix/client/v3/account/whoami, Accept:50");
    let refusal = gateway.sent(400);
    assert!(notation::describe(&refusal).contains(", 5.03, "), "{}", notation::describe(&refusal));
    assert!(!gateway.machine.gateway.is_idle());
    gateway.fetched(500, waiting, 200, "{}");
    gateway.sends(500, "ACK [MID=2, TOK=0x4b], 2.05, CF:50, `{}`");
    assert!(gateway.machine.gateway.is_idle());
}

#[test]
fn registration_that_is_answered_after_the_shutdown_makes_no_observer() {
    let mut gateway = with(config());
    gateway.gets(0, "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:0, Accept:50");
    let id = gateway.fetches(0, &format!("GET {SYNC}?timeout=0"));
    gateway.does(100, |driven, now| driven.gateway.shutdown(now));
    gateway.fetched(200, id, 200, &idle("s1"));
    gateway.sends(200, &format!("ACK [MID=1, TOK=0x4a], 2.05, CF:50, `{}`", idle("s1")));
    assert!(gateway.machine.gateway.is_idle());
    assert_eq!(gateway.machine.gateway.counters().observations, 0);
}

#[test]
fn nothing_is_kept_of_a_peer_that_is_long_gone() {
    let (mut gateway, poll) = observed();
    gateway.fetched(5_000, poll, 401, "{}");
    gateway.sends(5_000, "CON [MID=a, TOK=0x4a], 4.01, CF:50, `{}`");
    gateway.gets(5_100, "ACK [MID=a]");
    gateway.sends_nothing(100_000_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!(
        (counters.peers, counters.sessions, counters.observations, counters.fetching),
        (0, 0, 0, 0),
        "a day later"
    );
    assert_eq!(gateway.machine.gateway.deadline(), None);
}

/// A word or two of a message, so that random ones get further than the header.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &'static str| Just(notation::datagram(text, &notation::Names::new()));
    let hex = |text: &'static str| Just(notation::hex(text));
    prop_oneof![
        text("CON [MID=1, TOK=0xaa], GET, /7, Observe:0"),
        text("CON [MID=2, TOK=0xaa], GET, /7, Observe:1"),
        text("CON [MID=3, TOK=0xab], GET, /_matrix/client/v3/sync, Observe:0, 2:0/0/16"),
        text("CON [MID=4, TOK=0xac], GET, /_matrix/client/v3/sync, 2:1/0/16"),
        text("CON [MID=5, TOK=0xad], PUT, /_matrix/client/v3/rooms/!r:hs/send/m.x/t1, CF:60, 0xa0"),
        text("CON [MID=6, TOK=0xae], PUT, /_matrix/client/v3/rooms/!r:hs/send/m.x/t1, 1:0/1/16, 0..16"),
        hex("41010007aa"),
        hex("51010008aa"),
        hex("6000"),
        hex("7000"),
        hex("b137"),
        hex("60"),
        hex("ff00"),
        prop::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    /// Any datagrams and any answers: no panic, no busy loop, and calls in proportion.
    #[test]
    fn noise_does_no_harm(
        steps in prop::collection::vec(
            (prop::collection::vec(piece(), 1..3), 0..3_u16, 0..40_000_u64, any::<u8>()), 1..50),
    ) {
        let mut config = config();
        config.endpoint.transfers.block = BlockSize::MIN;
        let mut gateway = Gateway::new(config, [1; 32]);
        let mut now = Instant::START;
        let mut calls: Vec<FetchId> = Vec::new();
        // The last ids sent to each, so that some can be acknowledged or reset.
        let mut sent: Vec<(lowband::endpoint::Address, [u8; 2])> = Vec::new();
        for (pieces, from, wait, whim) in steps {
            gateway.handle(Input::Datagram { address: peer(from), datagram: &pieces.concat() }, now);
            if let Some((address, id)) = sent.pop() && whim % 3 > 0 {
                let kind = if whim % 3 == 1 { 0x60 } else { 0x70 };
                gateway.handle(Input::Datagram { address, datagram: &[kind, 0, id[0], id[1]] }, now);
            }
            if let Some(id) = calls.pop() {
                let result = match whim % 7 {
                    0 => Err(FetchError::Timeout),
                    1 => Ok(http::Response::builder().status(500).body(Bytes::new()).unwrap()),
                    2 => Ok(http::Response::builder().status(401).body(Bytes::from("{}")).unwrap()),
                    3 => Ok(http::Response::new(Bytes::from("nonsense"))),
                    4 => Ok(http::Response::new(Bytes::from(idle("i")))),
                    _ => Ok(http::Response::new(Bytes::from(news("n")))),
                };
                gateway.handle(Input::Fetched { id, result }, now);
            }
            let later = now + Duration::from_millis(wait);
            let mut turns = 0;
            while let Some(due) = gateway.deadline().filter(|due| *due <= later) {
                now = now.max(due);
                gateway.advance(now);
                turns += 1;
                prop_assert!(turns < 1_000, "a busy loop at {:?}", now);
            }
            now = later;
            while let Some(output) = gateway.poll() {
                match output {
                    Output::Datagram { address, datagram } => {
                        if datagram[0] >> 4 == 4 {
                            sent.push((address, [datagram[2], datagram[3]]));
                        }
                    }
                    Output::Fetch { id, .. } => calls.push(id),
                    Output::Abandon { id } => calls.retain(|other| *other != id),
                    Output::Store { .. } | Output::Device { .. } => panic!("nothing is to be stored"),
                }
            }
        }
        // Every call ends, every observer falls silent: then all of it ends.
        gateway.shutdown(now);
        for turn in 0.. {
            prop_assert!(turn < 10_000, "no end");
            while let Some(output) = gateway.poll() {
                match output {
                    Output::Datagram { .. } => {}
                    Output::Fetch { id, .. } => calls.push(id),
                    Output::Abandon { id } => calls.retain(|other| *other != id),
                    Output::Store { .. } | Output::Device { .. } => panic!("nothing is to be stored"),
                }
            }
            if let Some(id) = calls.pop() {
                gateway.handle(Input::Fetched { id, result: Err(FetchError::Timeout) }, now);
                continue;
            }
            let Some(due) = gateway.deadline() else { break };
            now = now.max(due);
            gateway.advance(now);
        }
        let counters = gateway.counters();
        prop_assert!(gateway.is_idle());
        prop_assert_eq!((counters.peers, counters.sessions, counters.observations, counters.fetching), (0, 0, 0, 0));
    }
}
