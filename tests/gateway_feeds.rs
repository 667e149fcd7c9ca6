//! Observers of the same events share one long poll, and none of them misses anything: stories in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use lowband::gateway::{FetchError, FetchId};

use support::Story;
use support::endpoint::{OTHER, peer};
use support::gateway::{Driven, SYNC, idle, news, observed};

/// A call of `/sync` by the user A from a position: the long poll, and one that does not wait.
fn long(since: &str) -> String {
    format!("GET {SYNC}?timeout=30000&since={since} Bearer A")
}

fn short(since: &str) -> String {
    format!("GET {SYNC}?timeout=0&since={since} Bearer A")
}

/// Another peer registers by its token 4b for the same events, and is answered with this position.
fn joins(gateway: &mut Story<Driven>, at: u64, position: &str) {
    gateway.with(OTHER).gets(
        at,
        "CON [MID=1, TOK=0x4b], GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\"",
    );
    let id = gateway.fetches(at, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(at, id, 200, &news(position));
    gateway.with(OTHER).sends(at, "ACK [MID=1]");
    let answer = format!("CON [MID=j, TOK=0x4b], 2.05, Observe:0, CF:50, `{}`", news(position));
    gateway.with(OTHER).sends(at, &answer);
    gateway.with(OTHER).gets(at, "ACK [MID=j]");
}

/// The first peer, or the other, gets a notification under this name.
fn told(gateway: &mut Story<Driven>, at: u64, name: &str, body: &str) {
    gateway.sends(at, &format!("CON [MID={name}, TOK=0x4a], 2.05, Observe:o{name}, CF:50, `{body}`"));
}

fn other_told(gateway: &mut Story<Driven>, at: u64, name: &str, body: &str) {
    let text = format!("CON [MID={name}, TOK=0x4b], 2.05, Observe:o{name}, CF:50, `{body}`");
    gateway.with(OTHER).sends(at, &text);
}

/// Both at s1, the first leading.
fn two_at_one_position() -> (Story<Driven>, FetchId) {
    let (mut gateway, poll) = observed();
    joins(&mut gateway, 1_000, "s1");
    gateway.sends_nothing(1_100);
    assert_eq!(gateway.machine.gateway.counters().feeds, 1);
    (gateway, poll)
}

/// The first at s1 and leading, the other at t1, checked by a call that began after the long poll.
fn two_at_two_positions() -> (Story<Driven>, FetchId) {
    let (mut gateway, poll) = observed();
    joins(&mut gateway, 1_000, "t1");
    gateway.sends_nothing(1_100);
    (gateway, poll)
}

#[test]
fn observers_at_one_position_share_one_poll_and_its_news() {
    let (mut gateway, poll) = two_at_one_position();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    told(&mut gateway, 5_000, "a", &news("s2"));
    other_told(&mut gateway, 5_000, "b", &news("s2"));
    gateway.gets(5_100, "ACK [MID=a]");
    gateway.fetches(5_100, &long("s2"));
    gateway.with(OTHER).gets(5_200, "ACK [MID=b]");
    gateway.sends_nothing(5_300);
    assert_eq!(gateway.machine.gateway.counters().catch_ups, 0);
}

#[test]
fn observers_of_other_events_or_users_have_polls_of_their_own() {
    let (mut gateway, _poll) = observed();
    for (number, (query, token)) in
        [("?filter=1", "A"), ("?set_presence=offline", "A"), ("", "B")].into_iter().enumerate()
    {
        let at = 1_000 * (number as u64 + 1);
        let peer = peer(10 + number as u16);
        let query_option = if query.is_empty() { String::new() } else { format!("{query}, ") };
        let text = format!(
            "CON [MID=1, TOK=0x4c], GET, /_matrix/client/v3/sync, Observe:0, {query_option}Accept:50, Access-Token:\"{token}\""
        );
        gateway.with(peer).gets(at, &text);
        let url = if query.is_empty() { format!("{SYNC}?") } else { format!("{SYNC}{query}&") };
        let id = gateway.fetches(at, &format!("GET {url}timeout=0 Bearer {token}"));
        gateway.fetched(at, id, 200, &idle("s1"));
        gateway.with(peer).sends(at, "ACK [MID=1]");
        let answer = format!("CON [MID=x{number}, TOK=0x4c], 2.05, Observe:0, CF:50, `{}`", idle("s1"));
        gateway.with(peer).sends(at, &answer);
        gateway.with(peer).gets(at, &format!("ACK [MID=x{number}]"));
        gateway.fetches(at, &format!("GET {url}timeout=30000&since=s1 Bearer {token}"));
        assert_eq!(gateway.machine.gateway.counters().feeds, number + 2);
    }
}

#[test]
fn news_for_the_leader_has_an_observer_at_another_position_ask_for_itself() {
    let (mut gateway, poll) = two_at_two_positions();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    told(&mut gateway, 5_000, "a", &news("s2"));
    // Nobody else waits, so that this poll may wait as well.
    let own = gateway.fetches(5_000, &long("t1"));
    gateway.fetched(5_050, own, 200, &news("t2"));
    other_told(&mut gateway, 5_050, "b", &news("t2"));
    gateway.gets(5_100, "ACK [MID=a]");
    gateway.fetches(5_100, &long("s2"));
    gateway.with(OTHER).gets(5_200, "ACK [MID=b]");
    gateway.sends_nothing(5_300);
}

#[test]
fn observer_that_is_behind_a_poll_under_way_asks_for_itself_and_follows_if_there_is_nothing() {
    let (mut gateway, poll) = two_at_one_position();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    told(&mut gateway, 5_000, "a", &news("s2"));
    other_told(&mut gateway, 5_000, "b", &news("s2"));
    gateway.gets(5_100, "ACK [MID=a]");
    let poll = gateway.fetches(5_100, &long("s2"));
    gateway.fetched(6_000, poll, 200, &news("s3"));
    told(&mut gateway, 6_000, "c", &news("s3"));
    gateway.gets(6_100, "ACK [MID=c]");
    let poll = gateway.fetches(6_100, &long("s3"));
    // s2 was before the poll's s3.
    gateway.with(OTHER).gets(6_200, "ACK [MID=b]");
    let own = gateway.fetches(6_200, &short("s2"));
    gateway.fetched(6_250, own, 200, &news("s3"));
    other_told(&mut gateway, 6_250, "d", &news("s3"));
    gateway.with(OTHER).gets(6_300, "ACK [MID=d]");
    // It is where the poll began.
    gateway.fetched(7_000, poll, 200, &news("s4"));
    told(&mut gateway, 7_000, "e", &news("s4"));
    other_told(&mut gateway, 7_000, "f", &news("s4"));
    // Both hear of it. One is slow to say so, and the other goes ahead with nothing.
    gateway.gets(7_100, "ACK [MID=e]");
    let poll = gateway.fetches(7_100, &long("s4"));
    gateway.fetched(8_100, poll, 200, &idle("s5"));
    let poll = gateway.fetches(8_100, &long("s5"));
    gateway.with(OTHER).gets(8_200, "ACK [MID=f]");
    let own = gateway.fetches(8_200, &short("s4"));
    gateway.fetched(8_250, own, 200, &idle("s6"));
    gateway.sends_nothing(8_300);
    // At s6 now, it asks from there once the poll from s5 brings something.
    gateway.fetched(9_000, poll, 200, &news("s7"));
    told(&mut gateway, 9_000, "g", &news("s7"));
    let own = gateway.fetches(9_000, &long("s6"));
    gateway.fetched(9_050, own, 200, &news("s7"));
    other_told(&mut gateway, 9_050, "h", &news("s7"));
    gateway.gets(9_100, "ACK [MID=g]");
    gateway.fetches(9_100, &long("s7"));
    gateway.with(OTHER).gets(9_200, "ACK [MID=h]");
    gateway.sends_nothing(9_300);
}

#[test]
fn news_that_came_while_an_observer_asked_for_itself_has_it_ask_again() {
    let (mut gateway, poll) = two_at_two_positions();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    told(&mut gateway, 5_000, "a", &news("s2"));
    let own = gateway.fetches(5_000, &long("t1"));
    gateway.gets(5_100, "ACK [MID=a]");
    // A poll from t1 waits, which began before s2 was asked for: what is after s2 may be before its answer.
    let first = gateway.fetches(5_100, &short("s2"));
    gateway.fetched(5_150, own, 200, &news("t2"));
    other_told(&mut gateway, 5_150, "b", &news("t2"));
    gateway.with(OTHER).gets(5_160, "ACK [MID=b]");
    let poll = gateway.fetches(5_160, &long("t2"));
    gateway.fetched(5_200, first, 200, &idle("s3"));
    // Its call began before t2 was known: an event may have come between the two.
    let again = gateway.fetches(5_200, &short("s3"));
    gateway.fetched(5_250, again, 200, &idle("s4"));
    gateway.sends_nothing(5_300);
    gateway.fetched(5_300, poll, 200, &idle("t3"));
    gateway.fetches(6_160, &long("t3"));
    gateway.sends_nothing(6_200);
}

#[test]
fn poll_goes_on_for_the_others_where_its_leader_has_gone() {
    let (mut gateway, poll) = two_at_one_position();
    gateway.gets(2_000, "CON [MID=2, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:1, Accept:50");
    let plain = gateway.fetches(2_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(2_000, plain, 200, &idle("s1"));
    gateway.sends(2_000, &format!("ACK [MID=2, TOK=0x4a], 2.05, CF:50, `{}`", idle("s1")));
    gateway.fetched(5_000, poll, 200, &news("s2"));
    other_told(&mut gateway, 5_000, "b", &news("s2"));
    gateway.with(OTHER).gets(5_100, "ACK [MID=b]");
    gateway.fetches(5_100, &long("s2"));
    assert_eq!(gateway.machine.gateway.counters().observations, 1);
}

#[test]
fn news_without_a_leader_has_the_others_ask_for_themselves() {
    let (mut gateway, poll) = two_at_two_positions();
    gateway.gets(2_000, "CON [MID=2, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:1, Accept:50");
    let plain = gateway.fetches(2_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(2_000, plain, 200, &idle("s1"));
    gateway.sends(2_000, &format!("ACK [MID=2, TOK=0x4a], 2.05, CF:50, `{}`", idle("s1")));
    gateway.fetched(5_000, poll, 200, &news("s2"));
    let own = gateway.fetches(5_000, &long("t1"));
    gateway.fetched(5_050, own, 200, &news("t2"));
    other_told(&mut gateway, 5_050, "b", &news("t2"));
    gateway.with(OTHER).gets(5_100, "ACK [MID=b]");
    gateway.fetches(5_100, &long("t2"));
}

#[test]
fn poll_with_nothing_moves_those_who_are_there_and_leaves_the_others_where_they_are() {
    let (mut gateway, poll) = two_at_two_positions();
    gateway.fetched(5_000, poll, 200, &idle("s2"));
    let poll = gateway.fetches(5_000, &long("s2"));
    gateway.fetched(35_000, poll, 200, &news("s3"));
    told(&mut gateway, 35_000, "a", &news("s3"));
    let own = gateway.fetches(35_000, &long("t1"));
    // There was nothing up to s2 at t1 either, and s3 was asked for after that: this poll brings what comes after it.
    gateway.gets(35_100, "ACK [MID=a]");
    gateway.fetched(35_200, own, 200, &news("t2"));
    other_told(&mut gateway, 35_200, "b", &news("t2"));
    gateway.fetches(35_200, &long("s3"));
}

#[test]
fn failures_of_a_feed_hold_all_of_its_calls_back_together() {
    let (mut gateway, poll) = two_at_two_positions();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    told(&mut gateway, 5_000, "a", &news("s2"));
    let own = gateway.fetches(5_000, &long("t1"));
    gateway.fetch_ends(5_050, own, Err(FetchError::Timeout));
    // A second has not passed, whoever waits.
    gateway.gets(5_100, "ACK [MID=a]");
    let own = gateway.fetches(6_050, &long("t1"));
    let first = gateway.fetches(6_050, &short("s2"));
    gateway.fetch_ends(6_100, own, Err(FetchError::Timeout));
    gateway.fetch_ends(6_100, first, Err(FetchError::Timeout));
    // Two seconds, not four: they failed together.
    gateway.fetches(8_100, &long("t1"));
    gateway.fetches(8_100, &short("s2"));
}

#[test]
fn wait_that_a_homeserver_asks_for_is_an_hour_at_most() {
    let (mut gateway, poll) = observed();
    gateway.fetched(1_000, poll, 429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":864000000}"#);
    gateway.fetches(3_601_000, &long("s1"));
}

#[test]
fn wait_that_a_header_states_is_kept_in_seconds_and_not_as_a_date() {
    for (header, wait) in [("120", 120_000), ("Wed, 21 Oct 2065 07:28:00 GMT", 1_000)] {
        let (mut gateway, poll) = observed();
        let response = http::Response::builder().status(503).header("retry-after", header);
        gateway.fetch_ends(1_000, poll, Ok(response.body("{}".into()).unwrap()));
        gateway.fetches(1_000 + wait, &long("s1"));
    }
}

/// Two observers, of whom the first asks for itself what there is after s2.
fn one_that_asks_for_itself() -> (Story<Driven>, FetchId) {
    let (mut gateway, poll) = two_at_two_positions();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    told(&mut gateway, 5_000, "a", &news("s2"));
    gateway.fetches(5_000, &long("t1"));
    gateway.gets(5_100, "ACK [MID=a]");
    let own = gateway.fetches(5_100, &short("s2"));
    (gateway, own)
}

#[test]
fn refusal_of_what_one_asks_for_itself_ends_its_observation_alone() {
    let (mut gateway, own) = one_that_asks_for_itself();
    gateway.fetched(5_200, own, 401, "{}");
    gateway.sends(5_200, "CON [MID=b, TOK=0x4a], 4.01, CF:50, `{}`");
    gateway.gets(5_200, "ACK [MID=b]");
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.fetching), (1, 1));
}

#[test]
fn answer_that_is_too_large_ends_the_observation_that_asked_for_itself() {
    let (mut gateway, own) = one_that_asks_for_itself();
    gateway.fetch_ends(5_200, own, Err(FetchError::TooLarge { limit: 1 }));
    let last = support::notation::describe(&gateway.sent(5_200));
    assert!(last.contains(", 4.13, ") && !last.contains("Observe"), "{last}");
    assert_eq!(gateway.machine.gateway.counters().observations, 1);
    gateway.sends_any(100_000);
}

#[test]
fn refusal_ends_those_at_the_position_and_the_others_ask_for_themselves() {
    let (mut gateway, poll) = two_at_two_positions();
    gateway.fetched(5_000, poll, 401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#);
    gateway.sends(5_000, "CON [MID=a, TOK=0x4a], 4.01, CF:50, `{\"errcode\":\"M_UNKNOWN_TOKEN\"}`");
    gateway.gets(5_000, "ACK [MID=a]");
    let own = gateway.fetches(5_000, &long("t1"));
    gateway.fetched(5_050, own, 401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#);
    gateway
        .with(OTHER)
        .sends(5_050, "CON [MID=b, TOK=0x4b], 4.01, CF:50, `{\"errcode\":\"M_UNKNOWN_TOKEN\"}`");
    gateway.with(OTHER).gets(5_050, "ACK [MID=b]");
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.feeds, counters.fetching), (0, 0, 0));
}

#[test]
fn answer_that_is_nested_too_deep_to_be_read_ends_the_observation() {
    let (mut gateway, poll) = observed();
    let deep = format!(r#"{{"next_batch":"s2","x":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    gateway.fetched(5_000, poll, 200, &deep);
    let last = gateway.sent(5_000);
    let described = support::notation::describe(&last);
    assert!(String::from_utf8_lossy(&last).contains("a filter that leaves the event out"), "{described}");
    assert!(described.contains(", 5.02, ") && !described.contains("Observe"), "{described}");
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.bad_answers), (0, 1));
}

#[test]
fn observers_that_want_other_formats_share_a_poll() {
    let (mut gateway, poll) = observed();
    gateway.with(OTHER).gets(
        1_000,
        "CON [MID=1, TOK=0x4b], GET, /_matrix/client/v3/sync, Observe:0, Accept:60, Access-Token:\"A\"",
    );
    let id = gateway.fetches(1_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(1_000, id, 200, &idle("s1"));
    gateway.with(OTHER).sends(1_000, "ACK [MID=1]");
    gateway
        .with(OTHER)
        .sends(1_000, "CON [MID=j, TOK=0x4b], 2.05, Observe:0, CF:60, 0xa16a6e6578745f6261746368627331");
    gateway.with(OTHER).gets(1_000, "ACK [MID=j]");
    gateway.fetched(5_000, poll, 200, r#"{"next_batch":"s2","x":1}"#);
    told(&mut gateway, 5_000, "a", r#"{"next_batch":"s2","x":1}"#);
    gateway.with(OTHER).sends(
        5_000,
        "CON [MID=b, TOK=0x4b], 2.05, Observe:1, CF:60, 0xa26178016a6e6578745f6261746368627332",
    );
}
