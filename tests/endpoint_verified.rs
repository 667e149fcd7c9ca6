//! What an endpoint says to those of whom nobody knows whether they are where they say (RFC 9175 §2.4, §2.6), and how a client shows it.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;

use lowband::coap::{BlockSize, Instant, RequestError};
use lowband::endpoint::{Address, Association, Config, Endpoint, Event};
use lowband::link::{End, Profile};
use support::Story;
use support::endpoint::{PEER, config, with};

fn wary() -> Config {
    Config { trusted: false, ..config() }
}

fn with_blocks(bytes: usize) -> Story<Endpoint> {
    let mut config = wary();
    config.transfers.block = BlockSize::fitting(bytes);
    with(config)
}

// What fits.

#[test]
fn an_answer_of_three_times_the_request_goes_at_once() {
    let mut server = with(wary());
    // 4 bytes, a token of one, and a path of four: 10 bytes come, and 30 go.
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /abcd");
    let key = server.is_asked(0, "GET, /abcd");
    server.answers(10, key, "2.05, 0..24");
    server.sends(10, "ACK [MID=1, TOK=0xaa], 2.05, 0..24");
    // The repeat brings ten more.
    server.gets(2_000, "CON [MID=1, TOK=0xaa], GET, /abcd");
    server.sends(2_000, "ACK [MID=1, TOK=0xaa], 2.05, 0..24");
    assert_eq!(server.machine.counters().challenges, 0);
    server.is_empty(1_000_000);
}

#[test]
fn what_is_there_for_people_only_is_left_out_before_anybody_is_challenged() {
    let mut server = with(wary());
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /abcd");
    let key = server.is_asked(0, "GET, /abcd");
    server.answers(10, key, "4.04, 0..80");
    server.sends(10, "ACK [MID=1, TOK=0xaa], 4.04");
}

#[test]
fn a_send_is_done_at_once_and_its_long_answer_is_had_in_small_blocks() {
    let mut server = with(wary());
    server.gets(0, "CON [MID=1, TOK=0xaa], POST, /a, 0..40");
    let key = server.is_asked(0, "POST, /a, 0..40");
    server.answers(10, key, "2.04, 0..200");
    server.sends(10, "ACK [MID=1, TOK=0xaa], 2.04, 2:0/1/64, ETag:e, 0..64");
    // What is left of it does for one more; the rest is for those who have shown where they are.
    server.gets(1_000, "CON [MID=2, TOK=0xab], POST, /a, 2:1/0/64");
    server.sends(1_000, "ACK [MID=2, TOK=0xab], 2.04, 2:1/1/64, ETag:e, 64..128");
    server.gets(2_000, "CON [MID=3, TOK=0xac], POST, /a, 2:2/0/64");
    server.sends(2_000, "ACK [MID=3, TOK=0xac], 4.01, Echo:v");
    server.gets(3_000, "CON [MID=4, TOK=0xac], POST, /a, 2:2/0/64, Echo:v");
    server.sends(3_000, "ACK [MID=4, TOK=0xac], 2.04, 2:2/1/64, ETag:e, 128..192");
}

#[test]
fn a_short_request_that_is_not_safe_is_challenged_before_it_is_done() {
    let mut server = with(wary());
    server.gets(0, "CON [MID=1, TOK=0xaa], POST, /a");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.01, Echo:v");
    // The same again is the same message.
    server.gets(1_000, "CON [MID=1, TOK=0xaa], POST, /a");
    server.sends(1_000, "ACK [MID=1, TOK=0xaa], 4.01, Echo:v");
    server.gets(2_000, "CON [MID=2, TOK=0xaa], POST, /a, Echo:v");
    let key = server.is_asked(2_000, "POST, /a");
    server.answers(2_010, key, "2.04, 0..200");
    server.sends(2_010, "ACK [MID=2, TOK=0xaa], 2.04, 0..200");
}

// Who shows where it is.

#[test]
fn whoever_repeats_the_echo_gets_all_for_a_day() {
    let mut server = with_blocks(256);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /a");
    let key = server.is_asked(0, "GET, /a");
    server.answers(10, key, "2.05, 0..1000");
    server.sends(10, "ACK [MID=1, TOK=0xaa], 4.01, Echo:v");
    server.gets(1_000, "CON [MID=2, TOK=0xaa], GET, /a, Echo:v");
    let key = server.is_asked(1_000, "GET, /a");
    server.answers(1_010, key, "2.05, 0..1000");
    server.sends(1_010, "ACK [MID=2, TOK=0xaa], 2.05, 2:0/1/256, ETag:e, 0..256");
    // Hours later, behind another port of the same host, and when all else is forgotten.
    let moved = Address { remote: (PEER.remote.ip(), 40_000).into(), ..PEER };
    let day = 86_400_000;
    server.sends_nothing(day - 1_000);
    server.with(moved).gets(day - 1_000, "CON [MID=3, TOK=0xab], GET, /b");
    let key = server.is_asked(day - 1_000, "GET, /b");
    server.answers(day - 1_000, key, "2.05, 0..200");
    server.with(moved).sends(day - 1_000, "ACK [MID=3, TOK=0xab], 2.05, 0..200");
    server.sends_nothing(day + 900_000);
    server.gets(day + 900_000, "CON [MID=4, TOK=0xac], GET, /b");
    let key = server.is_asked(day + 900_000, "GET, /b");
    server.answers(day + 900_000, key, "2.05, 0..200");
    server.sends(day + 900_000, "ACK [MID=4, TOK=0xac], 4.01, Echo:w");
}

#[test]
fn an_echo_shows_nothing_elsewhere_and_neither_does_one_that_is_guessed() {
    let mut server = with(wary());
    let elsewhere = Address { remote: "203.0.113.9:5683".parse().unwrap(), ..PEER };
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /a, Observe:0");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.01, Echo:v");
    server.with(elsewhere).gets(10, "CON [MID=2, TOK=0xaa], GET, /a, Observe:0, Echo:v");
    server.with(elsewhere).sends(10, "ACK [MID=2, TOK=0xaa], 4.01, Echo:w");
    server.gets(20, "CON [MID=3, TOK=0xaa], GET, /a, Observe:0, Echo:0x0011223344556677");
    server.sends(20, "ACK [MID=3, TOK=0xaa], 4.01, Echo:v");
}

#[test]
fn nothing_is_observed_from_where_nobody_has_shown_to_be() {
    let mut server = with(wary());
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /a, Observe:0");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.01, Echo:v");
    server.gets(1_000, "CON [MID=2, TOK=0xaa], GET, /a, Observe:0, Echo:v");
    let key = server.is_asked(1_000, "GET, /a, Observe:0");
    let id = server.accepts(1_000, key, "2.05, 0..10");
    server.sends(1_000, "ACK [MID=2]");
    server.sends(1_000, "CON [MID=a, TOK=0xaa], 2.05, Observe:s, 0..10");
    server.gets(1_100, "ACK [MID=a]");
    server.reports(1_100, Event::Delivered(id));
    server.notifies(2_000, id, "2.05, 0..900");
    server.sends(2_000, "CON [MID=b, TOK=0xaa], 2.05, Observe:t, 0..900");
}

#[test]
fn an_acknowledgement_shows_nothing_and_repeats_end_with_what_came() {
    let mut server = with(wary());
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /abcdefgh");
    let key = server.is_asked(0, "GET, /abcdefgh");
    server.sends(1_000, "ACK [MID=1]");
    // 14 bytes came, of 42 that may go 4 are gone: the answer of 20 goes once, and no repeat of it.
    server.answers(3_000, key, "2.05, 0..14");
    server.sends(3_000, "CON [MID=a, TOK=0xaa], 2.05, 0..14");
    server.sends_nothing(200_000);
    assert!(server.machine.counters().withheld >= 3);
}

#[test]
fn a_listener_whose_link_is_trusted_challenges_nobody_and_no_announcement_makes_it_so() {
    let trusted = Profile { trust_addresses: true, ..Profile::unlimited("radio") };
    let links = [("radio".to_owned(), trusted.terms(End::Gateway))].into();
    let mut server = with(Config { links, listeners: [(PEER.local, "radio".to_owned())].into(), ..wary() });
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /a");
    let key = server.is_asked(0, "GET, /a");
    server.answers(10, key, "2.05, 0..900");
    server.sends(10, "ACK [MID=1, TOK=0xaa], 2.05, 0..900");
    // At another listener its name says nothing.
    let public = Address { local: "192.0.2.254:5693".parse().unwrap(), ..PEER };
    server.with(public).gets(1_000, "CON [MID=2, TOK=0xab], GET, /a, opt65020:0x726164696f");
    let key = match server.reported(1_000) {
        Event::Request { key, .. } => key,
        other => panic!("{other:?}"),
    };
    server.answers(1_010, key, "2.05, 0..900");
    server.with(public).sends(1_010, "ACK [MID=2, TOK=0xab], 4.01, Echo:v");
}

#[test]
fn whoever_is_on_the_same_machine_is_where_it_says() {
    let loopback = Address { remote: "127.0.0.1:40000".parse().unwrap(), ..PEER };
    let mut server = with(wary());
    server.with(loopback).gets(0, "CON [MID=1, TOK=0xaa], GET, /a");
    let key = server.is_asked(0, "GET, /a");
    server.answers(10, key, "2.05, 0..900");
    server.with(loopback).sends(10, "ACK [MID=1, TOK=0xaa], 2.05, 0..900");
}

#[test]
fn where_too_many_strangers_are_known_others_are_only_once_they_have_shown_where_they_are() {
    let mut server = with(Config { strangers: 0, ..wary() });
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /a");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.01, Echo:v");
    assert_eq!(server.machine.peers(), 0);
    server.gets(1_000, "CON [MID=2, TOK=0xaa], GET, /a, Echo:v");
    let key = server.is_asked(1_000, "GET, /a");
    server.answers(1_000, key, "2.05, 0..900");
    server.sends(1_000, "ACK [MID=2, TOK=0xaa], 2.05, 0..900");
}

#[test]
fn after_a_restart_who_observes_is_told_and_who_waits_is_answered_within_what_came() {
    let durable = Config { durable: true, ..wary() };
    let mut before = with(durable.clone());
    let elsewhere = Address { remote: "203.0.113.9:5683".parse().unwrap(), ..PEER };
    before.gets(0, "CON [MID=1, TOK=0xaa], GET, /a, Observe:0");
    before.sends(0, "ACK [MID=1, TOK=0xaa], 4.01, Echo:v");
    before.gets(1_000, "CON [MID=2, TOK=0xaa], GET, /a, Observe:0, Echo:v");
    let key = before.is_asked(1_000, "GET, /a, Observe:0");
    let id = before.accepts(1_000, key, "2.05, 0..10");
    before.sends(1_000, "ACK [MID=2]");
    before.sends(1_000, "CON [MID=a, TOK=0xaa], 2.05, Observe:s, 0..10");
    before.gets(1_100, "ACK [MID=a]");
    before.reports(1_100, Event::Delivered(id));
    before.with(elsewhere).gets(1_200, "CON [MID=1, TOK=0xab], PUT, /b, 0..40");
    before.is_asked(1_200, "PUT, /b, 0..40");
    let memories = std::iter::from_fn(|| before.machine.poll_memory()).collect::<Vec<_>>();
    let mut kept = BTreeMap::new();
    for (key, memory) in memories {
        match memory {
            Some(memory) => drop(kept.insert(key, memory)),
            None => drop(kept.remove(&key)),
        }
    }
    let mut after = Story::at(Endpoint::new(durable, [8; 32]), PEER, 2_000);
    after.does(2_000, |endpoint, now| endpoint.recall(kept, now));
    let key = after.is_asked(2_000, "PUT, /b, 0..40");
    after.answers(2_100, key, "2.04, 0..300");
    after.with(elsewhere).sends(2_100, "ACK [MID=1, TOK=0xab], 2.04, 2:0/1/64, ETag:e, 0..64");
    after.notifies(2_200, id, "2.05, 0..900");
    after.sends(2_200, "CON [MID=b, TOK=0xaa], 2.05, Observe:t, 0..900");
}

// The client.

#[test]
fn a_client_repeats_its_request_with_the_echo_and_another_message_id() {
    let mut client = with(wary());
    let id = client.asks(0, "GET, /a");
    client.sends(0, "CON [MID=a, TOK=t], GET, /a");
    client.gets(100, "ACK [MID=a, TOK=t], 4.01, Echo:0x01020304");
    client.sends(100, "CON [MID=b, TOK=t], GET, /a, Echo:0x01020304");
    client.gets(200, "ACK [MID=b, TOK=t], 2.05, \"x\"");
    client.is_answered(200, id, "2.05, \"x\"");
}

#[test]
fn a_client_shows_in_the_midst_of_blocks_where_it_is() {
    let mut client = with_blocks(64);
    let id = client.asks(0, "GET, /a");
    client.sends(0, "CON [MID=a, TOK=t], GET, /a, 2:0/0/64");
    client.gets(100, "ACK [MID=a, TOK=t], 2.05, 2:0/1/64, ETag:0x01, 0..64");
    client.sends(100, "CON [MID=b, TOK=u], GET, /a, 2:1/0/64");
    client.gets(200, "ACK [MID=b, TOK=u], 4.01, Echo:0x01020304");
    client.sends(200, "CON [MID=c, TOK=u], GET, /a, 2:1/0/64, Echo:0x01020304");
    client.gets(300, "ACK [MID=c, TOK=u], 2.05, 2:1/0/64, ETag:0x01, 64..100");
    client.is_answered(300, id, "2.05, ETag:0x01, 0..100");
}

#[test]
fn a_client_is_asked_for_the_same_only_once_and_for_others_a_few_times() {
    let mut client = with(wary());
    let id = client.asks(0, "GET, /a");
    client.sends(0, "CON [MID=a, TOK=t], GET, /a");
    client.gets(100, "ACK [MID=a, TOK=t], 4.01, Echo:0x01");
    client.sends(100, "CON [MID=b, TOK=t], GET, /a, Echo:0x01");
    client.gets(200, "ACK [MID=b, TOK=t], 4.01, Echo:0x01");
    client.is_answered(200, id, "4.01");
    let id = client.asks(1_000, "GET, /a");
    client.sends(1_000, "CON [MID=a1, TOK=t1], GET, /a");
    client.gets(1_100, "ACK [MID=a1, TOK=t1], 4.01, Echo:0x01");
    client.sends(1_100, "CON [MID=a2, TOK=t1], GET, /a, Echo:0x01");
    client.gets(1_200, "ACK [MID=a2, TOK=t1], 4.01, Echo:0x02");
    client.sends(1_200, "CON [MID=a3, TOK=t1], GET, /a, Echo:0x02");
    client.gets(1_300, "ACK [MID=a3, TOK=t1], 4.01, Echo:0x03");
    client.sends(1_300, "CON [MID=a4, TOK=t1], GET, /a, Echo:0x03");
    client.gets(1_400, "ACK [MID=a4, TOK=t1], 4.01, Echo:0x04");
    client.sends(1_400, "CON [MID=a5, TOK=t1], GET, /a, Echo:0x04");
    client.gets(1_500, "ACK [MID=a5, TOK=t1], 4.01, Echo:0x05");
    client.is_answered(1_500, id, "4.01");
}

#[test]
fn who_is_asked_by_us_may_be_told_all() {
    let mut client = with(wary());
    let id = client.asks(0, "GET, /a");
    client.sends(0, "CON [MID=a, TOK=t], GET, /a");
    // Nobody answers, and all repeats leave.
    for at in [2_000, 6_000, 14_000, 30_000] {
        client.sends(at, "CON [MID=a, TOK=t], GET, /a");
    }
    client.fails(62_000, id, RequestError::Timeout);
}

#[test]
fn whoever_has_a_session_is_where_it_is() {
    let mut config = wary();
    config.sealed.insert(PEER.local);
    for association in [Association::Session(1), Association::Device(1)] {
        let mut server = Endpoint::new(config.clone(), [0; 32]);
        server.set_session_device(Association::Device(1), true);
        server.arrived(association, PEER, Instant::START);
        // CON, GET, a token of one, Observe 0, /a.
        let datagram = [0x41, 0x01, 0x00, 0x01, 0xaa, 0x60, 0x51, b'a'];
        server.handle_from(association, PEER, &datagram, Instant::START);
        assert!(matches!(server.poll_event(), Some(Event::Request { .. })), "{association:?}");
        assert_eq!(server.counters().challenges, 0);
    }
}
