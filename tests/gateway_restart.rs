//! A gateway that is killed and started again goes on as if nothing had been: stories, and a conversation that is cut at
//! each of its points.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use support::conversation::Plan;
use support::endpoint::OTHER;
use support::gateway::{SYNC, durable, idle, news, observed_by, with};
use support::{Story, conversation, notation};

/// A call of `/sync` from a position.
fn long(since: &str) -> String {
    format!("GET {SYNC}?timeout=30000&since={since} Bearer A")
}

fn restart(gateway: &mut Story<support::gateway::Driven>, at: u64) {
    gateway.does(at, |driven, now| driven.restart(durable(), now));
}

#[test]
fn observer_that_waits_waits_on_from_what_it_has_acknowledged() {
    let (mut gateway, poll) = observed_by(with(durable()));
    // That the position moved with nothing in it is not worth storing.
    gateway.fetched(5_000, poll, 200, &idle("i2"));
    gateway.fetches(5_000, &long("i2"));
    restart(&mut gateway, 6_000);
    let poll = gateway.fetches(6_000, &long("s1"));
    gateway.fetched(7_000, poll, 200, &news("s2"));
    // The values of Observe go on growing.
    gateway.sends(7_000, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:256, CF:50, `{}`", news("s2")));
    gateway.gets(7_100, "ACK [MID=a]");
    gateway.fetches(7_100, &long("s2"));
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.observations, counters.restored, counters.feeds), (1, 1, 1));
}

#[test]
fn notification_in_flight_is_sent_again_as_it_was_and_the_homeserver_is_not_asked() {
    let (mut gateway, poll) = observed_by(with(durable()));
    gateway.fetched(5_000, poll, 200, &news("s2"));
    let notification = |id| format!("CON [MID={id}, TOK=0x4a], 2.05, Observe:o2, CF:50, `{}`", news("s2"));
    gateway.sends(5_000, &notification("a"));
    restart(&mut gateway, 6_000);
    gateway.sends(6_000, &notification("b"));
    gateway.gets(6_100, "ACK [MID=b]");
    gateway.fetches(6_100, &long("s2"));
    assert_eq!(gateway.machine.gateway.counters().fetches, 1);
}

/// A gateway that sends blocks of 64 bytes, and has told an observer at s1 of s2 in two of them; both names are of the first.
fn told_in_blocks() -> (Story<support::gateway::Driven>, lowband::gateway::Config, String) {
    let mut config = durable();
    config.endpoint.transfers.block = lowband::coap::BlockSize::fitting(64);
    let (mut gateway, poll) = observed_by(with(config.clone()));
    let large = news("s2_of_so_many_letters_that_it_takes_two_blocks");
    assert!((65..=128).contains(&large.len()), "{}", large.len());
    gateway.fetched(5_000, poll, 200, &large);
    gateway.sends(5_000, &first_block("a", &large));
    gateway.gets(5_100, "ACK [MID=a]");
    (gateway, config, large)
}

fn first_block(id: &str, large: &str) -> String {
    format!("CON [MID={id}, TOK=0x4a], 2.05, ETag:e, Observe:o, CF:50, 2:0/1/64, `{}`", &large[..64])
}

#[test]
fn blocks_that_were_not_fetched_yet_are_fetched_after_the_restart() {
    let (mut gateway, config, large) = told_in_blocks();
    gateway.does(6_000, |driven, now| driven.restart(config, now));
    gateway.sends(6_000, &first_block("b", &large));
    gateway.gets(6_100, "ACK [MID=b]");
    gateway.gets(6_200, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/sync, Accept:50, 2:1/0/64");
    gateway.sends(6_200, "ACK [MID=2]");
    let last = format!("CON [MID=c, TOK=0x4b], 2.05, ETag:e, CF:50, 2:1/0/64, `{}`", &large[64..]);
    gateway.sends(6_200, &last);
    gateway.gets(6_300, "ACK [MID=c]");
    gateway.fetches(6_300, &long("s2_of_so_many_letters_that_it_takes_two_blocks"));
}

#[test]
fn peer_that_has_all_blocks_already_is_soon_told_anew() {
    let (mut gateway, config, large) = told_in_blocks();
    gateway.gets(5_200, "CON [MID=2, TOK=0x4b], GET, /_matrix/client/v3/sync, Accept:50, 2:1/0/64");
    gateway.sends(5_200, "ACK [MID=2]");
    let last = format!("CON [MID=c, TOK=0x4b], 2.05, ETag:e, CF:50, 2:1/0/64, `{}`", &large[64..]);
    gateway.sends(5_200, &last);
    // It has acknowledged that, but the gateway does not live to hear it. What it takes for old it does not ask for.
    gateway.does(5_250, |driven, now| driven.restart(config, now));
    gateway.sends(5_250, &first_block("b", &large));
    gateway.gets(5_300, "ACK [MID=b]");
    let at = gateway.sends_between(100_000, 160_000, "CON [MID=p]");
    gateway.gets(at, "RST [MID=p]");
    let poll = gateway.fetches(at, &long("s1"));
    gateway.fetched(at, poll, 200, &idle("s3"));
    gateway.fetches(at + 1_000, &long("s3"));
}

#[test]
fn registration_that_was_answered_and_not_acknowledged_is_answered_again() {
    let mut gateway = with(durable());
    let sync =
        "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\"";
    gateway.gets(0, sync);
    let id = gateway.fetches(0, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(50, id, 200, &news("s1"));
    gateway.sends(50, "ACK [MID=1]");
    let answer = |id| format!("CON [MID={id}, TOK=0x4a], 2.05, Observe:0, CF:50, `{}`", news("s1"));
    gateway.sends(50, &answer("a"));
    restart(&mut gateway, 1_000);
    gateway.sends(1_000, &answer("b"));
    gateway.gets(1_100, sync);
    gateway.sends(1_100, "ACK [MID=1]");
    gateway.gets(1_200, "ACK [MID=b]");
    gateway.fetches(1_200, &long("s1"));
}

#[test]
fn absent_observer_stays_absent_and_its_peer_is_asked_whether_it_is_there() {
    let (mut gateway, poll) = observed_by(with(durable()));
    gateway.fetched(5_000, poll, 200, &news("s2"));
    assert_eq!(gateway.sends_any(70_000), 5);
    restart(&mut gateway, 80_000);
    assert_eq!(gateway.machine.gateway.counters().absent, 1);
    let at = gateway.sends_between(140_000, 140_000, "CON [MID=p]");
    gateway.gets(at + 100, "RST [MID=p]");
    gateway.fetches(at + 100, &long("s1"));
}

#[test]
fn access_token_is_remembered() {
    let mut gateway = with(durable());
    let path = "/_matrix/client/v3/account/whoami";
    gateway.gets(0, &format!("CON [MID=1, TOK=0xaa], GET, {path}, Accept:50, Access-Token:\"A\""));
    let id = gateway.fetches(0, &format!("GET https://hs.example{path} Bearer A"));
    gateway.fetched(10, id, 200, "{}");
    gateway.sends(10, "ACK [MID=1, TOK=0xaa], 2.05, CF:50, `{}`");
    restart(&mut gateway, 1_000);
    gateway.gets(2_000, &format!("CON [MID=2, TOK=0xab], GET, {path}, Accept:50"));
    gateway.fetches(2_000, &format!("GET https://hs.example{path} Bearer A"));
    gateway.sends(3_000, "ACK [MID=2]");
}

#[test]
fn request_that_was_answered_is_answered_again_and_passed_on_to_nobody() {
    let mut gateway = with(durable());
    let put =
        "CON [MID=1, TOK=0xaa], PUT, /_matrix/client/v3/rooms/!r:hs/send/m.x/t1, CF:50, Accept:50, `{}`";
    gateway.gets(0, put);
    let id = gateway.fetches(0, "PUT https://hs.example/_matrix/client/v3/rooms/!r:hs/send/m.x/t1 {}");
    gateway.fetched(10, id, 200, r#"{"event_id":"$1"}"#);
    let answer = "ACK [MID=1, TOK=0xaa], 2.04, CF:50, `{\"event_id\":\"$1\"}`";
    gateway.sends(10, answer);
    restart(&mut gateway, 1_000);
    gateway.gets(2_000, put);
    gateway.sends(2_000, answer);
}

#[test]
fn request_under_way_is_passed_on_again_where_that_does_no_harm() {
    let mut gateway = with(durable());
    let put = "PUT, /_matrix/client/v3/rooms/!r:hs/send/m.x/t1, CF:50, Accept:50, `{}`";
    gateway.gets(0, &format!("CON [MID=1, TOK=0xaa], {put}, Access-Token:\"A\""));
    let call = "PUT https://hs.example/_matrix/client/v3/rooms/!r:hs/send/m.x/t1 Bearer A {}";
    gateway.fetches(0, call);
    restart(&mut gateway, 1_000);
    gateway.sends(1_000, "ACK [MID=1]");
    let id = gateway.fetches(1_000, call);
    gateway.fetched(1_100, id, 200, "{}");
    let answer = gateway.sent(1_100);
    assert!(notation::describe(&answer).contains(", 2.04, "), "{}", notation::describe(&answer));
    gateway.gets(1_200, &format!("60 00 {:02x}{:02x}", answer[2], answer[3]));
    gateway.sends_any(100_000);
    assert_eq!(gateway.machine.gateway.counters().recalled, 1);
}

#[test]
fn post_under_way_is_refused_as_nobody_knows_whether_it_was_done() {
    let mut gateway = with(durable());
    gateway.gets(0, "CON [MID=1, TOK=0xaa], POST, /_matrix/client/v3/createRoom, CF:50, Accept:50, `{}`");
    gateway.fetches(0, "POST https://hs.example/_matrix/client/v3/createRoom {}");
    restart(&mut gateway, 1_000);
    gateway.sends(1_000, "ACK [MID=1]");
    let answer = gateway.sent(1_000);
    assert!(notation::describe(&answer).contains(", 5.00, "), "{}", notation::describe(&answer));
    assert!(String::from_utf8_lossy(&answer).contains("may or may not have been done"));
    gateway.gets(1_200, &format!("60 00 {:02x}{:02x}", answer[2], answer[3]));
    gateway.sends_any(100_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.recalled, counters.refusals, counters.fetches), (1, 1, 0));
}

#[test]
fn gateway_that_stops_in_order_tells_observers_nothing_as_they_go_on_later() {
    let (mut gateway, poll) = observed_by(with(durable()));
    gateway.does(5_000, |driven, now| driven.gateway.shutdown(now));
    gateway.abandons(5_000, poll);
    assert!(gateway.machine.gateway.is_idle());
    restart(&mut gateway, 6_000);
    gateway.fetches(6_000, &long("s1"));
}

#[test]
fn records_that_cannot_be_read_are_counted_and_taken_away() {
    let (mut gateway, _poll) = observed_by(with(durable()));
    gateway.does(1_000, |driven, _| {
        for (key, value) in &mut driven.stored {
            match key[0] {
                // Another version.
                b's' => value[0] = 9,
                // Cut off.
                b'o' => value.truncate(value.len() / 2),
                _ => {}
            }
        }
        driven.stored.insert(b"xyz".to_vec(), Vec::new());
        driven.stored.insert(Vec::new(), vec![1, 2, 3]);
    });
    restart(&mut gateway, 2_000);
    gateway.sends_nothing(1_000_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.unreadable, counters.observations, counters.sessions), (4, 0, 0));
    let left: Vec<_> = gateway.machine.stored.keys().filter(|key| key.first() != Some(&b'e')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn observation_of_which_half_is_missing_is_dropped_and_taken_away() {
    let (mut gateway, _poll) = observed_by(with(durable()));
    let keys: Vec<_> = gateway.does(1_000, |driven, _| driven.stored.keys().cloned().collect());
    let mut halves = 0;
    for key in keys {
        let (mut gateway, _poll) = observed_by(with(durable()));
        gateway.does(1_000, |driven, _| driven.stored.remove(&key).expect("it is the same story"));
        restart(&mut gateway, 2_000);
        let counters = gateway.machine.gateway.counters();
        (0..counters.observations).for_each(|_| _ = gateway.fetches(2_000, &long("s1")));
        let is_stored = gateway.machine.stored.keys().any(|key| key[0] == b'o');
        assert_eq!(counters.observations, usize::from(is_stored), "{key:?}");
        halves += 1 - counters.observations;
        // The gateway's half without the endpoint's is of no use; the endpoint's alone is none of the gateway's records.
        assert_eq!(counters.unreadable, u64::from(key[0] == b'e' && !is_stored), "{key:?}");
    }
    assert!(halves >= 2, "{halves}");
}

#[test]
fn observation_of_another_path_than_sync_is_dropped() {
    let (mut gateway, _poll) = observed_by(with(durable()));
    gateway.does(1_000, |driven, _| {
        let (_, value) = driven.stored.iter_mut().find(|(key, _)| key[0] == b'o').unwrap();
        let at = value.windows(5).position(|part| part == b"/sync").unwrap();
        value[at..at + 5].copy_from_slice(b"/sing");
    });
    restart(&mut gateway, 2_000);
    gateway.sends_nothing(1_000_000);
    let counters = gateway.machine.gateway.counters();
    assert_eq!((counters.unreadable, counters.observations), (1, 0));
}

#[test]
fn observer_that_was_asking_for_itself_asks_again_after_the_restart() {
    let (mut gateway, poll) = observed_by(with(durable()));
    let sync = "GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\"";
    gateway.with(OTHER).gets(1_000, &format!("CON [MID=1, TOK=0x4b], {sync}"));
    let id = gateway.fetches(1_000, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(1_000, id, 200, &idle("t1"));
    gateway.with(OTHER).sends(1_000, "ACK [MID=1]");
    let answer = format!("CON [MID=j, TOK=0x4b], 2.05, Observe:o, CF:50, `{}`", idle("t1"));
    gateway.with(OTHER).sends(1_000, &answer);
    // Long after its registration, nobody knows whether the poll that is under way begins behind it.
    gateway.fetched(1_050, poll, 200, &news("s2"));
    gateway.sends(1_050, &format!("CON [MID=a, TOK=0x4a], 2.05, Observe:p, CF:50, `{}`", news("s2")));
    gateway.with(OTHER).gets(1_100, "ACK [MID=j]");
    gateway.fetches(1_100, &long("t1"));
    gateway.gets(1_200, "ACK [MID=a]");
    gateway.fetches(1_200, &format!("GET {SYNC}?timeout=0&since=s2 Bearer A"));
    restart(&mut gateway, 2_000);
    assert_eq!(gateway.machine.gateway.counters().observations, 2);
    gateway.fetches(2_000, &long("s2"));
    gateway.fetches(2_000, &format!("GET {SYNC}?timeout=0&since=t1 Bearer A"));
}

#[test]
fn nothing_is_stored_of_what_has_ended() {
    let (mut gateway, poll) = observed_by(with(durable()));
    gateway.fetched(5_000, poll, 401, "{}");
    gateway.sends(5_000, "CON [MID=a, TOK=0x4a], 4.01, CF:50, `{}`");
    gateway.gets(5_100, "ACK [MID=a]");
    gateway.sends_nothing(100_000_000);
    assert_eq!(gateway.machine.stored.len(), 0, "a day later: {:?}", gateway.machine.stored.keys());
}

#[test]
fn nothing_is_stored_unless_it_is_wanted() {
    let (gateway, _poll) = observed_by(with(support::gateway::config()));
    assert_eq!(gateway.machine.stored.len(), 0);
}

/// Kills the gateway after each of its outputs in turn, with what it had stored by then.
#[test]
fn conversation_that_is_cut_anywhere_loses_nothing_and_repeats_nothing_that_matters() {
    let whole = conversation::run(Plan::default());
    assert!(whole.outputs > 40, "{}", whole.outputs);
    whole.check_all();
    for kill in 0..whole.outputs {
        let plan = Plan { kills: [kill].into(), ..Plan::default() };
        told(&plan, || conversation::run(plan.clone()).check_all());
    }
}

/// The same by the packed profile: all that peers and the gateway know of each other goes on, and each value is exact.
#[test]
fn packed_conversation_that_is_cut_anywhere_loses_nothing_and_repeats_nothing_that_matters() {
    let plan = Plan { packed: true, ..Plan::default() };
    let whole = conversation::run(plan.clone());
    assert!(whole.outputs > 40, "{}", whole.outputs);
    whole.check_all();
    for kill in 0..whole.outputs {
        let plan = Plan { kills: [kill].into(), ..plan.clone() };
        told(&plan, || conversation::run(plan.clone()).check_all());
    }
}

/// The same with records that are on the disk one without the other.
#[test]
fn packed_conversation_that_is_cut_between_two_records_loses_nothing() {
    let plan = Plan { packed: true, piecewise: true, ..Plan::default() };
    for kill in 0..conversation::run(plan.clone()).outputs {
        let plan = Plan { kills: [kill].into(), ..plan.clone() };
        told(&plan, || conversation::run(plan.clone()).check());
    }
}

/// Several observers of the same events, whose datagrams are lost, come twice and overtake each other, an outage, and a gateway that
/// is killed again and again. `LOWBAND_SEEDS=20000` tries more of them.
#[test]
fn conversation_over_a_bad_link_with_a_gateway_that_is_killed_again_and_again_loses_nothing() {
    let seeds = std::env::var("LOWBAND_SEEDS").map_or(200_u64, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let chance =
            |range: u64, salt: u64| seed.wrapping_mul(2_654_435_761).wrapping_add(salt * 40_503) % range;
        let start = chance(200, 1);
        let plan = Plan {
            kills: (0..chance(5, 2)).map(|kill| chance(150, 3 + kill) as usize).collect(),
            others: chance(3, 10) as u16,
            loss: chance(25, 11),
            outage: start..start + chance(400, 12),
            seed,
            packed: seed % 2 == 1,
            piecewise: false,
        };
        told(&plan, || conversation::run(plan.clone()).check());
    }
}

/// Says how a conversation went where it fails.
fn told(plan: &Plan, run: impl FnOnce() + std::panic::UnwindSafe) {
    if let Err(panic) = std::panic::catch_unwind(run) {
        eprintln!("failed: {plan:?}");
        std::panic::resume_unwind(panic);
    }
}
