//! Observers that do not answer are kept, and hear of all that they have missed: stories in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use support::Story;
use support::gateway::{Driven, SYNC, news, observed};

/// Until then the notification of this position is sent, and not acknowledged: 2 + 4 + 8 + 16 + 32 s.
const GIVEN_UP: u64 = 5_000 + 62_000;

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
    let poll = gateway.fetches(100_000, &long("s1"));
    gateway.fetches(100_000, "GET https://hs.example/_matrix/client/v3/account/whoami Bearer A");
    gateway.fetched(100_100, poll, 200, &news("s9"));
    gateway.sends(100_100, &format!("CON [MID=b, TOK=0x4a], 2.05, Observe:o3, CF:50, `{}`", news("s9")));
    gateway.gets(100_200, "ACK [MID=b]");
    gateway.fetches(100_200, &long("s9"));
    assert_eq!(gateway.machine.gateway.counters().absent, 0);
    gateway.sends(101_000, "ACK [MID=2]");
}
