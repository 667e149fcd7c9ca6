//! What a shape leaves out wakes no observer, and observers of different shapes hear what is theirs: stories in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use lowband::gateway::Config;
use lowband::matrix::shape::{Part, Shape};

use support::gateway::{SYNC, config, durable, idle, observed_by, with};

fn typing(position: &str) -> String {
    let room = r#"{"ephemeral":{"events":[{"type":"m.typing","content":{"user_ids":["@b:hs"]}}]}}"#;
    format!(r#"{{"next_batch":"{position}","rooms":{{"join":{{"!r:hs":{room}}}}}}}"#)
}

fn dropping(parts: &[Part]) -> Shape {
    Shape { drop: parts.iter().copied().collect(), ..Shape::default() }
}

#[test]
fn plain_sync_is_asked_for_and_answered_in_its_shape() {
    let mut gateway = with(Config { shape: Some(dropping(&[Part::Presence])), ..config() });
    gateway.gets(0, "CON [MID=1, TOK=0xaa], GET, /_matrix/client/v3/sync, ?since=s1, Accept:50");
    let filter = "%7B%22presence%22:%7B%22not_types%22:%5B%22*%22%5D%7D%7D";
    let id = gateway.fetches(0, &format!("GET {SYNC}?since=s1&filter={filter}"));
    gateway.fetched(
        10,
        id,
        200,
        r#"{"next_batch":"s2","presence":{"events":[{"type":"m.presence"}]},"x":1}"#,
    );
    gateway.sends(10, "ACK [MID=1, TOK=0xaa], 2.05, CF:50, `{\"next_batch\":\"s2\",\"x\":1}`");
}

#[test]
fn other_requests_have_no_shape() {
    let mut gateway = with(Config { shape: Some(dropping(&[Part::Presence])), ..config() });
    gateway.gets(0, "CON [MID=1, TOK=0xaa], GET, /_matrix/client/v3/account/whoami, Accept:50");
    let id = gateway.fetches(0, "GET https://hs.example/_matrix/client/v3/account/whoami");
    gateway.fetched(10, id, 200, r#"{"presence":1}"#);
    gateway.sends(10, "ACK [MID=1, TOK=0xaa], 2.05, CF:50, `{\"presence\":1}`");
}

#[test]
fn what_is_left_out_wakes_nobody() {
    let mut config = config();
    // The homeserver may not know the filter: what it says in vain is left out of the answer.
    config.shape = Some(dropping(&[Part::Age, Part::KeyCounts]));
    let (mut gateway, poll) = observed_by(with(config));
    gateway.fetched(5_000, poll, 200, r#"{"next_batch":"s2","device_one_time_keys_count":{"a":49}}"#);
    gateway.fetches(5_000, &format!("GET {SYNC}?timeout=30000&since=s2 Bearer A"));
    assert_eq!(gateway.machine.gateway.counters().idle_polls, 1);
}

#[test]
fn a_link_has_its_own_shape_and_its_observers_a_feed_of_their_own() {
    let mut config = config();
    config.endpoint.links.insert("slow".into(), slow());
    config.shapes_by_link.insert("slow".into(), dropping(&[Part::Unread]));
    let (mut gateway, _poll) = observed_by(with(config));
    let other = support::endpoint::OTHER;
    gateway.with(other).gets(
        1_000,
        "CON [MID=1, TOK=0x4b], GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\", opt65020:\"slow\"",
    );
    let id = gateway.fetches(1_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(1_000, id, 200, &idle("s1"));
    gateway.sends_any(20_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.feeds), (2, 2), "they differ in what is left out alone");
}

#[test]
fn observation_that_outlives_the_gateway_takes_the_shape_of_the_new_one() {
    let shape = |part| Config { shape: Some(dropping(&[part])), ..durable() };
    let call = |query: &str| format!("GET {SYNC}?timeout=30000&since=s1{query} Bearer A");
    let presence = "&filter=%7B%22presence%22:%7B%22not_types%22:%5B%22*%22%5D%7D%7D";
    let mut gateway = with(shape(Part::Presence));
    gateway.gets(
        0,
        "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\"",
    );
    let id = gateway.fetches(0, &format!("GET {SYNC}?timeout=0{presence} Bearer A"));
    gateway.fetched(50, id, 200, &idle("s1"));
    gateway.sends(50, "ACK [MID=1]");
    gateway.sends(50, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:0, CF:50, `{}`", idle("s1")));
    gateway.gets(100, "ACK [MID=a]");
    gateway.fetches(100, &call(presence));
    gateway.does(1_000, |driven, now| driven.restart(durable(), now));
    gateway.fetches(1_000, &call(""));
    gateway.does(2_000, |driven, now| driven.restart(shape(Part::AccountData), now));
    let filter = "%7B%22account_data%22:%7B%22not_types%22:%5B%22*%22%5D%7D,%22room%22:%7B%22account_data%22:%7B%22not_types%22:%5B%22*%22%5D%7D%7D%7D";
    gateway.fetches(2_000, &call(&format!("&filter={filter}")));
}

#[test]
fn typing_alone_is_of_the_least_priority_and_told_all_the_same() {
    let (mut gateway, poll) = observed_by(with(config()));
    gateway.fetched(5_000, poll, 200, &typing("s2"));
    gateway.sends(5_000, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", typing("s2")));
}

fn slow() -> lowband::link::Terms {
    lowband::link::Profiles::built_in().get("hf-100").unwrap().terms(lowband::link::End::Gateway)
}
