//! Observers of a gateway's `/sync` as stories in virtual time (MSC3079; RFC 7641).
//!
//! Answers are asked for in JSON (Accept 50), so that they can be read here; what CBOR they become is tested elsewhere.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use bytes::Bytes;

use lowband::coap::BlockSize;
use lowband::gateway::FetchError;

use support::gateway::{SYNC, config, idle, news, observed, with};
use support::notation;

#[test]
fn position_moves_when_the_notification_is_acknowledged() {
    let (mut gateway, poll) = observed();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    let notification = format!("CON [MID=a, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", news("s2"));
    gateway.sends(5_000, &notification);
    gateway.sends(7_000, &notification);
    // No poll begins before.
    gateway.gets(7_500, "ACK [MID=a]");
    let poll = gateway.fetches(7_500, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
    gateway.fetched(8_000, poll, 200, &news("s3"));
    gateway.sends(8_000, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:o3, CF:50, `{}`", news("s3")));
    gateway.gets(8_100, "ACK [MID=b]");
    gateway.fetches(8_100, &format!("GET {SYNC}?timeout=30000&since=s3 Bearer A"));
}

#[test]
fn peer_without_news_hears_nothing_and_the_position_moves() {
    let (mut gateway, mut poll) = observed();
    for round in 1..=100_u64 {
        let at = 100 + round * 30_000;
        gateway.fetched(at, poll, 200, &idle(&format!("i{round}")));
        poll = gateway.fetches(at, &format!("GET {SYNC}?timeout=30000&since=i{round} Bearer A"));
    }
    assert_eq!(gateway.machine.gateway.counters().idle_polls, 100);
}

#[test]
fn peer_is_asked_once_a_day_whether_it_is_still_there() {
    // RFC 7641 §4.5.
    const DAY: u64 = 24 * 3600 * 1_000;
    let (mut gateway, poll) = observed();
    gateway.fetched(DAY, poll, 200, &idle("i1"));
    let poll = gateway.fetches(DAY, &format!("GET {SYNC}?timeout=30000&since=i1 Bearer A"));
    gateway.fetched(DAY + 100, poll, 200, &idle("i2"));
    gateway.sends(DAY + 100, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", idle("i2")));
    gateway.gets(DAY + 200, "ACK [MID=a]");
    let poll = gateway.fetches(DAY + 200, &format!("GET {SYNC}?timeout=30000&since=i2 Bearer A"));
    gateway.fetched(DAY + 30_200, poll, 200, &idle("i3"));
    gateway.fetches(DAY + 30_200, &format!("GET {SYNC}?timeout=30000&since=i3 Bearer A"));
}

#[test]
fn homeserver_that_answers_at_once_with_nothing_is_not_asked_in_a_hurry() {
    let (mut gateway, poll) = observed();
    gateway.fetched(101, poll, 200, &idle("i1"));
    let poll = gateway.fetches(1_100, &format!("GET {SYNC}?timeout=30000&since=i1 Bearer A"));
    gateway.fetched(1_101, poll, 200, &idle("i2"));
    gateway.fetches(2_100, &format!("GET {SYNC}?timeout=30000&since=i2 Bearer A"));
}

#[test]
fn homeserver_that_fails_is_asked_again_ever_more_slowly_and_the_peer_hears_nothing() {
    let (mut gateway, mut poll) = observed();
    let mut at = 1_000;
    for (failure, wait) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        match failure % 3 {
            0 => gateway.fetch_ends(at, poll, Err(FetchError::Unreachable("gone".into()))),
            1 => gateway.fetched(at, poll, 502, "{}"),
            _ => gateway.fetch_ends(at, poll, Err(FetchError::Timeout)),
        }
        at += wait * 1_000;
        poll = gateway.fetches(at, &format!("GET {SYNC}?timeout=30000&since=s1 Bearer A"));
    }
    // One success, and the waits begin anew.
    gateway.fetched(at, poll, 200, &news("s2"));
    gateway.sends(at, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", news("s2")));
    gateway.gets(at, "ACK [MID=a]");
    let poll = gateway.fetches(at, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
    gateway.fetch_ends(at, poll, Err(FetchError::Timeout));
    gateway.fetches(at + 1_000, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
}

#[test]
fn homeserver_that_says_to_come_again_at_once_is_not_asked_in_a_hurry() {
    let (mut gateway, mut poll) = observed();
    for at in [1_000, 2_000, 3_000] {
        gateway.fetched(at, poll, 429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":0}"#);
        poll = gateway.fetches(at + 1_000, &format!("GET {SYNC}?timeout=30000&since=s1 Bearer A"));
    }
    gateway.fetched(4_000, poll, 429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":7000}"#);
    gateway.fetches(11_000, &format!("GET {SYNC}?timeout=30000&since=s1 Bearer A"));
}

#[test]
fn success_that_is_no_answer_to_sync_is_asked_for_again() {
    for (status, body) in [(204, ""), (202, "{}"), (201, r#"{"next_batch":"s2"}"#), (200, "[]")] {
        let (mut gateway, poll) = observed();
        gateway.fetched(5_000, poll, status, body);
        gateway.fetches(6_000, &format!("GET {SYNC}?timeout=30000&since=s1 Bearer A"));
        let counters = gateway.machine.gateway.counters();
        assert_eq!((counters.bad_answers, counters.observations), (1, 1), "{status}");
    }
}

#[test]
fn redirection_of_a_poll_is_the_last_notification() {
    let (mut gateway, poll) = observed();
    gateway.fetched(5_000, poll, 304, "");
    gateway.sends(5_000, "CON [MID=a, TOK=0x4a], 5.02, opt65000:0x0130");
    gateway.gets(5_100, "ACK [MID=a]");
    gateway.sends_nothing(1_000_000);
    assert_eq!(gateway.machine.gateway.counters().observations, 0);
}

#[test]
fn reset_ends_the_observation() {
    let (mut gateway, poll) = observed();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    gateway.sends(5_000, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", news("s2")));
    gateway.gets(5_100, "RST [MID=a]");
    gateway.sends_nothing(1_000_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.fetching, counters.peers), (0, 0, 0));
}

#[test]
fn deregistration_abandons_the_poll_and_is_answered_at_once() {
    let (mut gateway, poll) = observed();
    gateway.gets(5_000, "CON [MID=2, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:1, Accept:50");
    gateway.abandons(5_000, poll);
    let id = gateway.fetches(5_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(5_100, id, 200, &idle("s1"));
    gateway.sends(5_100, &format!("ACK [MID=2, TOK=0x4a], 2.05, CF:50, `{}`", idle("s1")));
    // The poll ends all the same, and nobody cares.
    gateway.fetched(6_000, poll, 200, &news("s2"));
    gateway.sends_nothing(1_000_000);
    assert_eq!(gateway.machine.gateway.counters().observations, 0);
}

#[test]
fn deregistration_takes_back_a_registration_that_is_not_answered_yet() {
    let mut gateway = with(config());
    gateway.gets(0, "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:0, Accept:50");
    let registration = gateway.fetches(0, &format!("GET {SYNC}?timeout=0"));
    gateway.gets(100, "CON [MID=2, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:1, Accept:50");
    let deregistration = gateway.fetches(100, &format!("GET {SYNC}?timeout=0"));
    gateway.fetched(200, registration, 200, &idle("s1"));
    gateway.sends(200, &format!("ACK [MID=1, TOK=0x4a], 2.05, CF:50, `{}`", idle("s1")));
    gateway.fetched(300, deregistration, 200, &idle("s1"));
    gateway.sends(300, &format!("ACK [MID=2, TOK=0x4a], 2.05, CF:50, `{}`", idle("s1")));
    gateway.sends_nothing(1_000_000);
    assert_eq!(gateway.machine.gateway.counters().observations, 0);
}

#[test]
fn registration_again_takes_the_place_of_the_first() {
    let (mut gateway, poll) = observed();
    gateway
        .gets(5_000, "CON [MID=2, TOK=0x4a], GET, /_matrix/client/v3/sync, ?since=s1, Observe:0, Accept:50");
    gateway.abandons(5_000, poll);
    let id = gateway.fetches(5_000, &format!("GET {SYNC}?since=s1&timeout=0 Bearer A"));
    gateway.fetched(5_000, id, 200, &idle("s1"));
    gateway.sends(5_000, "ACK [MID=2]");
    gateway.sends(5_000, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", idle("s1")));
    gateway.gets(5_100, "ACK [MID=a]");
    let poll = gateway.fetches(5_100, &format!("GET {SYNC}?timeout=30000&since=s1 Bearer A"));
    gateway.fetched(6_000, poll, 200, &news("s2"));
    gateway.sends(6_000, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:o3, CF:50, `{}`", news("s2")));
    gateway.gets(6_100, "ACK [MID=b]");
    gateway.fetches(6_100, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
    assert_eq!(gateway.machine.gateway.counters().observations, 1);
}

#[test]
fn two_registrations_under_way_with_one_token_leave_one_observation() {
    let mut gateway = with(config());
    let sync = "GET, /_matrix/client/v3/sync, Observe:0, Accept:50";
    gateway.gets(0, &format!("CON [MID=1, TOK=0x4a], {sync}"));
    let first = gateway.fetches(0, &format!("GET {SYNC}?timeout=0"));
    // The client is impatient, and asks again in a new message.
    gateway.gets(500, &format!("CON [MID=2, TOK=0x4a], {sync}"));
    let second = gateway.fetches(500, &format!("GET {SYNC}?timeout=0"));
    gateway.fetched(600, first, 200, &idle("s1"));
    gateway.sends(600, "ACK [MID=1]");
    gateway.sends(600, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:0, CF:50, `{}`", idle("s1")));
    gateway.gets(650, "ACK [MID=a]");
    let poll = gateway.fetches(650, &format!("GET {SYNC}?timeout=30000&since=s1"));
    gateway.fetched(700, second, 200, &idle("s1"));
    gateway.abandons(700, poll);
    gateway.sends(700, "ACK [MID=2]");
    gateway.sends(700, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:1, CF:50, `{}`", idle("s1")));
    gateway.gets(750, "ACK [MID=b]");
    gateway.fetches(750, &format!("GET {SYNC}?timeout=30000&since=s1"));
    assert_eq!(gateway.machine.gateway.counters().observations, 1);
}

#[test]
fn registration_that_the_homeserver_refuses_is_a_plain_answer() {
    let mut gateway = with(config());
    gateway.gets(0, "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:0, Accept:50");
    let id = gateway.fetches(0, &format!("GET {SYNC}?timeout=0"));
    gateway.fetched(50, id, 401, "{}");
    gateway.sends(50, "ACK [MID=1, TOK=0x4a], 4.01, CF:50, `{}`");
    gateway.sends_nothing(1_000_000);
    assert_eq!(gateway.machine.gateway.counters().observations, 0);
}

#[test]
fn observe_means_nothing_but_on_sync() {
    let mut gateway = with(config());
    gateway.gets(0, "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/account/whoami, Observe:0, Accept:50");
    let id = gateway.fetches(0, "GET https://hs.example/_matrix/client/v3/account/whoami");
    gateway.fetched(50, id, 200, "{}");
    gateway.sends(50, "ACK [MID=1, TOK=0x4a], 2.05, CF:50, `{}`");
}

#[test]
fn refusal_of_a_poll_is_the_last_notification() {
    // RFC 7641 §4.2. The access token was logged out, say.
    let (mut gateway, poll) = observed();
    gateway.fetched(5_000, poll, 401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#);
    gateway.sends(5_000, "CON [MID=a, TOK=0x4a], 4.01, CF:50, `{\"errcode\":\"M_UNKNOWN_TOKEN\"}`");
    gateway.gets(5_100, "ACK [MID=a]");
    gateway.sends_nothing(1_000_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.peers), (0, 0));
}

#[test]
fn poll_that_cannot_be_passed_on_ends_the_observation() {
    let json = |body: String| {
        let response = http::Response::builder().header("content-type", "application/json");
        Ok(response.body(Bytes::from(body)).unwrap())
    };
    let deep = format!(r#"{{"next_batch":"s2","x":{}1{}}}"#, "[".repeat(110), "]".repeat(110));
    let page = http::Response::builder().header("content-type", "text/html");
    for (result, code, errcode) in [
        (Err(FetchError::TooLarge { limit: 10 }), "4.13", "M_TOO_LARGE"),
        (json(news(&"s".repeat(1_000))), "4.13", "M_TOO_LARGE"),
        (json(deep), "5.02", "M_UNKNOWN"),
        (Ok(page.body(Bytes::from(news("s2"))).unwrap()), "5.02", "M_UNKNOWN"),
    ] {
        let mut config = config();
        config.codec.output = 500;
        let mut gateway = with(config);
        let sync = "GET, /_matrix/client/v3/sync, Observe:0, Accept:60";
        gateway.gets(0, &format!("CON [MID=1, TOK=0x4a], {sync}"));
        let id = gateway.fetches(0, &format!("GET {SYNC}?timeout=0"));
        gateway.fetched(0, id, 200, &idle("s1"));
        gateway.sends(0, "ACK [MID=1]");
        gateway.sends(0, "CON [MID=a, TOK=0x4a], 2.05, Observe:0, CF:60, 0xa16a6e6578745f6261746368627331");
        gateway.gets(100, "ACK [MID=a]");
        let poll = gateway.fetches(100, &format!("GET {SYNC}?timeout=30000&since=s1"));
        gateway.fetch_ends(5_000, poll, result);
        let last = gateway.sent(5_000);
        let described = notation::describe(&last);
        assert!(described.contains(&format!(", {code}, ")) && !described.contains("Observe"), "{described}");
        assert!(String::from_utf8_lossy(&last).contains(errcode), "{described}");
        assert_eq!(gateway.machine.gateway.counters().observations, 0);
    }
}

#[test]
fn position_that_fits_into_no_url_ends_the_observation() {
    let (mut gateway, poll) = observed();
    gateway.fetched(5_000, poll, 200, &idle(&"s".repeat(70_000)));
    let last = notation::describe(&gateway.sent(5_000));
    assert!(last.contains(", 4.00, "), "{last}");
    assert_eq!(gateway.machine.gateway.counters().observations, 0);
}

#[test]
fn large_notification_counts_as_acknowledged_with_its_last_block() {
    let mut config = config();
    config.endpoint.transfers.block = BlockSize::fitting(64);
    let mut gateway = with(config);
    let first = idle("s1");
    gateway.gets(0, "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:0, Accept:50");
    let id = gateway.fetches(0, &format!("GET {SYNC}?timeout=0"));
    gateway.fetched(50, id, 200, &first);
    gateway.sends(50, "ACK [MID=1]");
    gateway.sends(50, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:0, CF:50, `{first}`"));
    gateway.gets(100, "ACK [MID=a]");
    let poll = gateway.fetches(100, &format!("GET {SYNC}?timeout=30000&since=s1"));
    let large = news("s2_of_so_many_letters_that_it_takes_two_blocks");
    assert!((65..=128).contains(&large.len()), "{}", large.len());
    gateway.fetched(1_000, poll, 200, &large);
    gateway.sends(
        1_000,
        &format!("CON [MID=b, TOK=0x4a], 2.05, ETag:e, Observe:1, CF:50, 2:0/1/64, `{}`", &large[..64]),
    );
    gateway.gets(1_100, "ACK [MID=b]");
    // The rest is asked for, and no call of the homeserver follows from it.
    gateway.gets(1_200, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/sync, Accept:50, 2:1/0/64");
    gateway.sends(1_200, "ACK [MID=2]");
    gateway
        .sends(1_200, &format!("CON [MID=c, TOK=0x4b], 2.05, ETag:e, CF:50, 2:1/0/64, `{}`", &large[64..]));
    gateway.gets(1_300, "ACK [MID=c]");
    gateway.fetches(
        1_300,
        &format!("GET {SYNC}?timeout=30000&since=s2_of_so_many_letters_that_it_takes_two_blocks"),
    );
}
