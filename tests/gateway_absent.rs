//! Observers that do not answer are kept, and hear of all that they have missed: stories in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use lowband::coap::BlockSize;
use lowband::gateway::FetchId;

use support::Story;
use support::endpoint::OTHER;
use support::gateway::{Driven, SYNC, config, idle, news, observed, with};

/// Until then the notification of this position is sent, and not acknowledged: 2 + 4 + 8 + 16 + 32 s.
const GIVEN_UP: u64 = 5_000 + 62_000;

/// What a peer is heard of by.
const WHOAMI: &str = "GET https://hs.example/_matrix/client/v3/account/whoami Bearer A";

/// A call of `/sync` from a position.
fn long(since: &str) -> String {
    format!("GET {SYNC}?timeout=30000&since={since} Bearer A")
}

/// An observer at s1 that did not acknowledge s2.
fn absent() -> Story<Driven> {
    let (mut gateway, poll) = observed();
    gateway.fetched(5_000, poll, 200, &news("s2"));
    let notification = format!("CON [MID=a, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", news("s2"));
    for at in [0, 2_000, 6_000, 14_000, 30_000] {
        gateway.sends(5_000 + at, &notification);
    }
    gateway.sends_nothing(GIVEN_UP);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.undelivered), (1, 1, 1));
    assert_eq!((counters.fetching, counters.delivered), (0, 1), "nobody waits for what the homeserver has");
    gateway
}

#[test]
fn peer_that_is_heard_of_again_is_told_from_the_position_that_it_has() {
    let mut gateway = absent();
    gateway.gets(100_000, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/account/whoami, Accept:50");
    gateway.fetches(100_000, WHOAMI);
    let poll = gateway.fetches(100_000, &long("s1"));
    gateway.fetched(100_100, poll, 200, &news("s9"));
    gateway.sends(100_100, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:o3, CF:50, `{}`", news("s9")));
    gateway.gets(100_200, "ACK [MID=b]");
    gateway.fetches(100_200, &long("s9"));
    assert_eq!(gateway.machine.gateway.counters().absent, 0);
    gateway.sends(101_000, "ACK [MID=2]");
}

#[test]
fn absent_peer_is_asked_ever_more_rarely_whether_it_is_there() {
    let mut gateway = absent();
    let first = gateway.sends_between(GIVEN_UP + 60_000, GIVEN_UP + 60_000, "CON [MID=p0]");
    let mut last = first;
    let mut wait = 120_000;
    for number in 1..8 {
        // A probe takes a while to be known as unanswered.
        let name = format!("CON [MID=p{number}]");
        let at = gateway.sends_between(last + wait, last + wait + 10_000, &name);
        (last, wait) = (at, (wait * 2).min(900_000));
    }
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.probes, counters.absent, counters.fetches), (8, 1, 2));
}

#[test]
fn probe_that_is_answered_has_the_peer_told() {
    let mut gateway = absent();
    let at = gateway.sends_between(GIVEN_UP + 60_000, GIVEN_UP + 60_000, "CON [MID=p]");
    gateway.gets(at + 500, "RST [MID=p]");
    let poll = gateway.fetches(at + 500, &long("s1"));
    gateway.fetched(at + 600, poll, 200, &news("s9"));
    gateway.sends(at + 600, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:o3, CF:50, `{}`", news("s9")));
    gateway.gets(at + 700, "ACK [MID=b]");
    gateway.fetches(at + 700, &long("s9"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.absent, counters.delivered, counters.probes), (0, 2, 1));
}

#[test]
fn peer_that_answers_probes_and_acknowledges_nothing_is_not_asked_in_a_hurry() {
    let mut gateway = absent();
    let at = gateway.sends_between(GIVEN_UP + 60_000, GIVEN_UP + 60_000, "CON [MID=p]");
    gateway.gets(at, "RST [MID=p]");
    let poll = gateway.fetches(at, &long("s1"));
    gateway.fetched(at, poll, 200, &news("s9"));
    let notification = format!("CON [MID=b, TOK=0x4a], 2.05, Observe:o3, CF:50, `{}`", news("s9"));
    for after in [0, 2_000, 6_000, 14_000, 30_000] {
        gateway.sends(at + after, &notification);
    }
    // The second wait, not the first again.
    gateway.sends_nothing(at + 62_000 + 119_000);
    gateway.sends_between(at + 62_000 + 120_000, at + 62_000 + 120_000, "CON [MID=q]");
}

#[test]
fn peer_that_resets_what_it_does_not_know_any_more_is_forgotten() {
    let mut gateway = absent();
    let at = gateway.sends_between(GIVEN_UP + 60_000, GIVEN_UP + 60_000, "CON [MID=p]");
    gateway.gets(at, "RST [MID=p]");
    let poll = gateway.fetches(at, &long("s1"));
    gateway.fetched(at, poll, 200, &news("s9"));
    gateway.sends(at, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:o3, CF:50, `{}`", news("s9")));
    gateway.gets(at + 100, "RST [MID=b]");
    gateway.sends_nothing(at + 10_000_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.feeds), (0, 0, 0));
}

#[test]
fn peer_that_is_not_heard_of_for_a_week_is_forgotten() {
    const DAY: u64 = 24 * 3600 * 1_000;
    let mut gateway = absent();
    let asked = gateway.sends_any(7 * DAY);
    assert!((650..680).contains(&asked), "{asked}");
    assert_eq!(gateway.machine.gateway.counters().observations, 1);
    assert!(gateway.sends_any(7 * DAY + 1_000_000) <= 1);
    assert_eq!(gateway.machine.gateway.counters().forgotten, 1);
    gateway.sends_nothing(8 * DAY);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.feeds, counters.peers), (0, 0, 0));
}

#[test]
fn other_observations_of_an_absent_peer_rest_with_it() {
    let (mut gateway, poll) = observed();
    gateway
        .gets(1_000, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/sync, Observe:0, ?filter=1, Accept:50");
    let id = gateway.fetches(1_000, &format!("GET {SYNC}?filter=1&timeout=0 Bearer A"));
    gateway.fetched(1_000, id, 200, &news("f1"));
    gateway.sends(1_000, "ACK [MID=2]");
    gateway.sends(1_000, &format!("CON [MID=f, TOK=0x4b], 2.05, Observe:1, CF:50, `{}`", news("f1")));
    gateway.gets(1_000, "ACK [MID=f]");
    let filtered = format!("GET {SYNC}?filter=1&timeout=30000&since=f1 Bearer A");
    let other = gateway.fetches(1_000, &filtered);
    gateway.fetched(5_000, poll, 200, &news("s2"));
    let notification = format!("CON [MID=a, TOK=0x4a], 2.05, Observe:2, CF:50, `{}`", news("s2"));
    for at in [0, 2_000, 6_000, 14_000, 30_000] {
        gateway.sends(5_000 + at, &notification);
    }
    gateway.abandons(GIVEN_UP, other);
    assert_eq!(gateway.machine.gateway.counters().absent, 2);
    gateway.gets(100_000, "CON [MID=3, TOK=0x4c], GET, /_matrix/client/v3/account/whoami, Accept:50");
    gateway.fetches(100_000, WHOAMI);
    gateway.fetches(100_000, &long("s1"));
    gateway.fetches(100_000, &filtered);
    assert_eq!(gateway.machine.gateway.counters().absent, 0);
    gateway.sends(101_000, "ACK [MID=3]");
}

#[test]
fn absent_observer_that_registers_from_another_address_takes_the_place_of_itself() {
    let mut gateway = absent();
    gateway.sends(GIVEN_UP + 60_000, "CON [MID=p]");
    let sync = "GET, /_matrix/client/v3/sync, ?since=s1, Observe:0, Accept:50, Access-Token:\"A\"";
    gateway.with(OTHER).gets(130_000, &format!("CON [MID=1, TOK=0x4a], {sync}"));
    let id = gateway.fetches(130_000, &format!("GET {SYNC}?since=s1&timeout=0 Bearer A"));
    gateway.fetched(130_000, id, 200, &news("s2"));
    gateway.with(OTHER).sends(130_000, "ACK [MID=1]");
    let answer = format!("CON [MID=b, TOK=0x4a], 2.05, Observe:0, CF:50, `{}`", news("s2"));
    gateway.with(OTHER).sends(130_000, &answer);
    gateway.with(OTHER).gets(130_100, "ACK [MID=b]");
    gateway.fetches(130_100, &long("s2"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.replaced), (1, 0, 1));
    // Nobody is asked for any more.
    gateway.sends_nothing(1_000_000);
}

#[test]
fn observer_of_the_same_user_with_another_token_leaves_the_absent_one_alone() {
    let mut gateway = absent();
    let sync = "GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\"";
    gateway.with(OTHER).gets(100_000, &format!("CON [MID=1, TOK=0x4b], {sync}"));
    let id = gateway.fetches(100_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(100_000, id, 200, &news("s2"));
    gateway.with(OTHER).sends(100_000, "ACK [MID=1]");
    let answer = format!("CON [MID=b, TOK=0x4b], 2.05, Observe:0, CF:50, `{}`", news("s2"));
    gateway.with(OTHER).sends(100_000, &answer);
    gateway.with(OTHER).gets(100_100, "ACK [MID=b]");
    gateway.fetches(100_100, &long("s2"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.replaced), (2, 1, 0));
}

/// The answer to a registration from there is not acknowledged; once the peer is heard of, the homeserver is asked so.
fn unacknowledged_registration(query: &str, first: &str, again: &str) {
    let mut gateway = with(config());
    let sync = format!("GET, /_matrix/client/v3/sync, {query}Observe:0, Accept:50, Access-Token:\"A\"");
    gateway.gets(0, &format!("CON [MID=1, TOK=0x4a], {sync}"));
    let id = gateway.fetches(0, &format!("GET {SYNC}?{first} Bearer A"));
    gateway.fetched(50, id, 200, &news("s9"));
    assert_eq!(gateway.sends_any(70_000), 6, "an acknowledgement, and five times the answer");
    gateway.gets(100_000, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/account/whoami, Accept:50");
    gateway.fetches(100_000, WHOAMI);
    let poll = gateway.fetches(100_000, &format!("GET {SYNC}?{again} Bearer A"));
    gateway.fetched(100_100, poll, 200, &news("s9"));
    gateway.sends(100_100, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:1, CF:50, `{}`", news("s9")));
    gateway.gets(100_200, "ACK [MID=b]");
    gateway.fetches(100_200, &long("s9"));
    gateway.sends(101_000, "ACK [MID=2]");
}

#[test]
fn registration_that_was_not_acknowledged_is_answered_anew_from_the_position_that_the_peer_has() {
    unacknowledged_registration("?since=s5, ", "since=s5&timeout=0", "timeout=30000&since=s5");
}

#[test]
fn registration_from_nothing_that_was_not_acknowledged_is_answered_anew_from_nothing() {
    unacknowledged_registration("", "timeout=0", "timeout=30000");
    let whole = "since=s5&full_state=true&timeout=0";
    unacknowledged_registration("?since=s5, ?full_state=true, ", whole, "timeout=30000");
}

/// Two observers of the same events at s1, of one peer that did not acknowledge s2 and is heard of at 400 s. The poll is that of the newer.
fn two_of_which_one_is_back() -> (Story<Driven>, FetchId) {
    let (mut gateway, poll) = observed();
    gateway.gets(1_000, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/sync, Observe:0, Accept:50");
    let id = gateway.fetches(1_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(1_000, id, 200, &news("s1"));
    gateway.sends(1_000, "ACK [MID=2]");
    gateway.sends(1_000, &format!("CON [MID=j, TOK=0x4b], 2.05, Observe:1, CF:50, `{}`", news("s1")));
    gateway.gets(1_000, "ACK [MID=j]");
    gateway.fetched(5_000, poll, 200, &news("s2"));
    gateway.sends_any(399_999);
    assert_eq!(gateway.machine.gateway.counters().absent, 2);
    gateway.gets(400_000, "CON [MID=3, TOK=0x4c], GET, /_matrix/client/v3/account/whoami, Accept:50");
    let whoami = gateway.fetches(400_000, WHOAMI);
    let poll = gateway.fetches(400_000, &long("s1"));
    gateway.fetched(400_000, whoami, 200, "{}");
    gateway.sends(400_000, "ACK [MID=3, TOK=0x4c], 2.05, CF:50, `{}`");
    assert_eq!(gateway.machine.gateway.counters().absent, 1, "one at a time");
    (gateway, poll)
}

#[test]
fn older_observer_has_its_turn_when_the_newer_one_is_gone() {
    let (mut gateway, poll) = two_of_which_one_is_back();
    gateway.fetched(400_100, poll, 401, "{}");
    gateway.sends(400_100, "CON [MID=e, TOK=0x4b], 4.01, CF:50, `{}`");
    gateway.gets(400_200, "ACK [MID=e]");
    assert_eq!(gateway.machine.gateway.counters().observations, 1);
    let at = gateway.sends_between(400_200, 400_200 + 900_000, "CON [MID=p]");
    gateway.gets(at, "RST [MID=p]");
    gateway.fetches(at, &long("s1"));
    assert_eq!(gateway.machine.gateway.counters().absent, 0);
}

#[test]
fn older_observer_waits_as_long_as_the_newer_one_has_acknowledged_nothing_and_ends_then() {
    let (mut gateway, poll) = two_of_which_one_is_back();
    gateway.fetched(400_100, poll, 200, &idle("s2"));
    let poll = gateway.fetches(401_000, &long("s2"));
    gateway.gets(402_000, "CON [MID=4, TOK=0x4d], GET, /_matrix/client/v3/account/whoami, Accept:50");
    let whoami = gateway.fetches(402_000, WHOAMI);
    gateway.fetched(402_000, whoami, 200, "{}");
    gateway.sends(402_000, "ACK [MID=4, TOK=0x4d], 2.05, CF:50, `{}`");
    assert_eq!(gateway.machine.gateway.counters().absent, 1);
    gateway.fetched(403_000, poll, 200, &news("s3"));
    gateway.sends(403_000, &format!("CON [MID=n, TOK=0x4b], 2.05, Observe:4, CF:50, `{}`", news("s3")));
    gateway.gets(403_100, "ACK [MID=n]");
    gateway.fetches(403_100, &long("s3"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.replaced), (1, 0, 1));
}

#[test]
fn absent_peer_that_registers_anew_is_told_nothing_of_what_it_has_lost() {
    let mut gateway = absent();
    gateway.gets(
        100_000,
        "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/sync, ?since=s1, Observe:0, Accept:50",
    );
    let id = gateway.fetches(100_000, &format!("GET {SYNC}?since=s1&timeout=0 Bearer A"));
    gateway.fetched(100_100, id, 200, &news("s2"));
    gateway.sends(100_100, "ACK [MID=2]");
    gateway.sends(100_100, &format!("CON [MID=b, TOK=0x4b], 2.05, Observe:2, CF:50, `{}`", news("s2")));
    gateway.gets(100_200, "ACK [MID=b]");
    gateway.fetches(100_200, &long("s2"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.replaced, counters.catch_ups), (1, 1, 0));
}

#[test]
fn absent_peer_whose_new_registration_fails_is_told_by_the_old_one() {
    let mut gateway = absent();
    gateway.gets(
        100_000,
        "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/sync, ?since=s1, Observe:0, Accept:50",
    );
    let id = gateway.fetches(100_000, &format!("GET {SYNC}?since=s1&timeout=0 Bearer A"));
    gateway.fetched(100_100, id, 403, "{}");
    gateway.sends(100_100, "ACK [MID=2, TOK=0x4b], 4.03, CF:50, `{}`");
    gateway.fetches(100_100, &long("s1"));
    assert_eq!(gateway.machine.gateway.counters().absent, 0);
}

#[test]
fn observer_that_is_back_and_has_acknowledged_nothing_gives_way_to_a_new_registration() {
    let mut gateway = absent();
    gateway.gets(100_000, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/account/whoami, Accept:50");
    let whoami = gateway.fetches(100_000, WHOAMI);
    let poll = gateway.fetches(100_000, &long("s1"));
    gateway.fetched(100_000, whoami, 200, "{}");
    gateway.sends(100_000, "ACK [MID=2, TOK=0x4b], 2.05, CF:50, `{}`");
    gateway.gets(
        101_000,
        "CON [MID=3, TOK=0x4c], GET, /_matrix/client/v3/sync, ?since=s1, Observe:0, Accept:50",
    );
    let id = gateway.fetches(101_000, &format!("GET {SYNC}?since=s1&timeout=0 Bearer A"));
    gateway.fetched(101_100, id, 200, &news("s2"));
    gateway.abandons(101_100, poll);
    gateway.sends(101_100, "ACK [MID=3]");
    gateway.sends(101_100, &format!("CON [MID=b, TOK=0x4c], 2.05, Observe:2, CF:50, `{}`", news("s2")));
    gateway.gets(101_200, "ACK [MID=b]");
    gateway.fetches(101_200, &long("s2"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.replaced), (1, 1));
}

/// Two registrations of one peer, of which the second is of before a restart of the peer's, for all that is known: both were answered by
/// the same body in two blocks, which was fetched.
fn registered_twice() -> Story<Driven> {
    let mut config = config();
    config.endpoint.transfers.block = BlockSize::fitting(64);
    let mut gateway = with(config);
    let position = "s1_of_so_many_letters_that_it_takes_two_blocks";
    let large = news(position);
    for (at, token) in [(0, "0x4a"), (1_000, "0x4b")] {
        let sync = "GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\"";
        gateway.gets(at, &format!("CON [MID={at}, TOK={token}], {sync}"));
        let id = gateway.fetches(at, &format!("GET {SYNC}?timeout=0 Bearer A"));
        gateway.fetched(at, id, 200, &large);
        let observe = at / 1_000;
        let first = format!("2.05, ETag:e, Observe:{observe}, CF:50, 2:0/1/64, `{}`", &large[..64]);
        gateway.sends(at, &format!("ACK [MID={at}, TOK={token}], {first}"));
    }
    gateway.gets(2_000, "CON [MID=2, TOK=0x4c], GET, /_matrix/client/v3/sync, Accept:50, 2:1/0/64");
    gateway.sends(2_000, "ACK [MID=2]");
    let last = format!("CON [MID=c, TOK=0x4c], 2.05, ETag:e, CF:50, 2:1/0/64, `{}`", &large[64..]);
    gateway.sends(2_000, &last);
    gateway.gets(2_100, "ACK [MID=c]");
    let poll = gateway.fetches(2_100, &long(position));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.replaced), (2, 1, 0));
    gateway.fetched(200_000, poll, 200, &news("s2"));
    gateway.sends(200_000, &format!("CON [MID=d, TOK=0x4b], 2.05, Observe:2, CF:50, `{}`", news("s2")));
    gateway
}

#[test]
fn observer_whose_registration_was_overtaken_by_an_older_one_goes_on() {
    let mut gateway = registered_twice();
    gateway.gets(200_100, "RST [MID=d]");
    let poll = gateway.fetches(200_100, &format!("GET {SYNC}?timeout=30000 Bearer A"));
    gateway.fetched(200_200, poll, 200, &news("s2"));
    gateway.sends(200_200, &format!("CON [MID=f, TOK=0x4a], 2.05, Observe:3, CF:50, `{}`", news("s2")));
    gateway.gets(200_300, "ACK [MID=f]");
    gateway.fetches(200_300, &long("s2"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.replaced), (1, 0, 0));
}

#[test]
fn observer_that_has_lost_its_registration_ends_once_the_newer_one_is_certain() {
    let mut gateway = registered_twice();
    gateway.gets(200_100, "ACK [MID=d]");
    gateway.fetches(200_100, &long("s2"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.absent, counters.replaced), (1, 0, 1));
}
