//! An endpoint on links that carry no more than so much: what leaves when, and what is waited for, as stories in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use lowband::coap::{Parameters, Priority, RequestError};
use lowband::endpoint::{Config, Endpoint, Event};
use lowband::link::{End, Profile, Terms};

use support::Story;
use support::endpoint::{OTHER, PEER, config, peer, request, with};

/// 100 bit/s: 80 ms a byte, and 28 bytes of headers beside each datagram. 11 s from the last bit to the answer's first. Blocks are
/// asked for one by one; tests/q_block.rs is about bursts.
fn hf(end: End) -> Terms {
    let terms = Profile::built_in("hf-100").unwrap().terms(end);
    let parameters = Parameters { ack_random_factor: 1.0, ..terms.parameters };
    Terms { parameters, q_block: false, ..terms }
}

fn over_hf(end: End) -> Config {
    Config {
        links: BTreeMap::from([("hf-100".to_owned(), hf(end))]),
        link: Some("hf-100".to_owned()),
        ..config()
    }
}

#[test]
fn the_wait_for_an_acknowledgement_begins_when_the_last_bit_has_left() {
    let mut story = with(over_hf(End::Gateway));
    story.gets(0, "CON [MID=1, TOK=0xaa], GET, /7, Observe:0");
    let key = story.is_asked(0, "GET, /7, Observe:0");
    let observation = story.accepts(0, key, "2.05, 0..10");
    // By turns: the direction changes first, in 0.5 s.
    story.sends(500, "ACK [MID=1]");
    // 4 bytes and 28: 2.56 s.
    story.sends(3_060, "CON [MID=a, TOK=0xaa], 2.05, Observe:0, 0..10");
    // 17 bytes and 28 are out at 6.66 s. 11 s, 3.6 s for a hop that stores and forwards, 2.56 s for the acknowledgement.
    story.sends(23_820, "CON [MID=a, TOK=0xaa], 2.05, Observe:0, 0..10");
    story.gets(40_000, "ACK [MID=a]");
    story.reports(40_000, Event::Delivered(observation));
    story.sends_nothing(100_000);
    let airtime = story.machine.airtime(PEER.into()).unwrap();
    assert_eq!(airtime.sent, Duration::from_millis(2_560 + 2 * 3_600));
    // 13 bytes of request, 4 of acknowledgement, and twice 28.
    assert_eq!(airtime.received.as_millis() / 80, 28 + 28 + 4 + request_length());
}

/// `CON [MID=1, TOK=0xaa], GET, /7, Observe:0`: header, token, Observe, Uri-Path.
fn request_length() -> u128 {
    4 + 1 + 1 + 2
}

#[test]
fn what_is_acknowledged_while_its_repeat_waits_is_not_repeated() {
    let mut story = with(over_hf(End::Gateway));
    let id = story.asks(0, "PUT, /9, 0..2");
    story.sends(0, "CON [MID=a, TOK=first], PUT, 2:0/0/256, /9, 0..2");
    // The channel is taken for another peer when the repeat is due, for 256 bytes and more.
    let due = repeat_of(&mut story);
    story.with(OTHER).gets(due - 1_000, "CON [MID=7, TOK=0xbb], GET, /8");
    let key = story.is_asked(due - 1_000, "GET, /8");
    story.answers(due - 1_000, key, "2.05, 0..200");
    story.with(OTHER).sends(due - 500, "ACK [MID=7, TOK=0xbb], 2.05, 0..200");
    story.gets(due + 5_000, "ACK [MID=a, TOK=first], 2.04");
    story.is_answered(due + 5_000, id, "2.04");
    story.sends_nothing(due + 60_000);
    assert_eq!((story.machine.counters().stale, story.machine.queued()), (1, 0));
}

/// When the one message that was sent at 0 is repeated.
fn repeat_of(story: &mut Story<Endpoint>) -> u64 {
    let due = story.machine.deadline().unwrap().since_start();
    u64::try_from(due.as_millis()).unwrap()
}

#[test]
fn acknowledgements_go_first_then_replies_then_news_then_typing() {
    let mut story = with(over_hf(End::Gateway));
    // Each observer has its place and has acknowledged its first notification.
    let observers: Vec<_> = (11..14).map(|number| observer(&mut story, number)).collect();
    let start = 200_000;
    // The first takes the channel; the others wait.
    for (observer, priority) in
        observers.iter().zip([Priority::Notification, Priority::Background, Priority::Notification])
    {
        let news = support::endpoint::response("2.05, 0..100");
        story.does(start, |endpoint, now| endpoint.notify(*observer, news, priority, now));
    }
    story.with(peer(11)).sends(start, "CON [MID=n11, TOK=0xaa], 2.05, Observe:1, 0..100");
    story.gets(start + 1_000, "CON [MID=2, TOK=0xcc], GET, /8");
    let key = story.is_asked(start + 1_000, "GET, /8");
    story.answers(start + 1_000, key, "2.05, 0..10");
    story.with(OTHER).gets(start + 1_000, "CON [MID=7]");
    story.with(peer(12)).gets(start + 1_000, "CON [MID=9]");
    // 108 bytes and 28: 10.88 s. Then a reset, an answer, news, typing, and at last what a stranger made us say.
    story.with(peer(12)).sends(start + 10_880, "RST [MID=9]");
    story.sends(start + 13_440, "ACK [MID=2, TOK=0xcc], 2.05, 0..10");
    story.with(peer(13)).sends(start + 16_960, "CON [MID=n13, TOK=0xaa], 2.05, Observe:1, 0..100");
    story.with(peer(12)).sends(start + 27_840, "CON [MID=n12, TOK=0xaa], 2.05, Observe:1, 0..100");
    story.with(OTHER).sends(start + 38_720, "RST [MID=7]");
    for number in 11..14 {
        story.with(peer(number)).gets(start + 40_000, &format!("ACK [MID=n{number}]"));
        let event = Event::Delivered(observers[usize::from(number) - 11]);
        story.reports(start + 40_000, event);
    }
}

fn observer(story: &mut Story<Endpoint>, number: u16) -> lowband::coap::ObservationId {
    let at = u64::from(number - 11) * 40_000;
    story.with(peer(number)).gets(at, "CON [MID=1, TOK=0xaa], GET, /7, Observe:0");
    let key = story.is_asked(at, "GET, /7, Observe:0");
    let id = story.accepts(at, key, "2.05");
    story.with(peer(number)).sends(at + 500, "ACK [MID=1]");
    story.with(peer(number)).sends(at + 3_060, &format!("CON [MID=o{number}, TOK=0xaa], 2.05, Observe:0"));
    story.with(peer(number)).gets(at + 20_000, &format!("ACK [MID=o{number}]"));
    story.reports(at + 20_000, Event::Delivered(id));
    id
}

#[test]
fn an_answer_that_waits_is_not_queued_again_for_each_repeat_of_its_request() {
    let mut story = with(over_hf(End::Gateway));
    story.gets(0, "CON [MID=1, TOK=0xaa], GET, /8");
    let key = story.is_asked(0, "GET, /8");
    story.answers(0, key, "2.05, 0..100");
    for at in [100, 200, 300] {
        story.gets(at, "CON [MID=1, TOK=0xaa], GET, /8");
    }
    story.sends(800, "ACK [MID=1, TOK=0xaa], 2.05, 0..100");
    story.sends_nothing(60_000);
    assert_eq!(story.machine.counters().duplicates, 3);
}

#[test]
fn a_newer_typing_notice_takes_the_place_of_one_that_has_not_left() {
    let mut story = with(over_hf(End::Peer));
    let typing = |story: &mut Story<Endpoint>, text| {
        story.does(0, |endpoint, now| endpoint.request_as(Priority::Background, PEER, request(text), now))
    };
    let message = story.asks(0, "PUT, /9, 0..2");
    let first = typing(&mut story, "PUT, /typing, 1..2");
    let other = typing(&mut story, "PUT, /receipt, 1..2");
    let second = typing(&mut story, "PUT, /typing, 3..4");
    story.sends(0, "CON [MID=a, TOK=t1], PUT, 2:0/0/256, /9, 0..2");
    story.fails(0, first, RequestError::Superseded);
    story.gets(20_000, "ACK [MID=a, TOK=t1], 2.04");
    story.is_answered(20_000, message, "2.04");
    story.sends(20_500, "CON [MID=b, TOK=t3], PUT, 2:0/0/256, /receipt, 1..2");
    story.gets(40_000, "ACK [MID=b, TOK=t3], 2.04");
    story.is_answered(40_000, other, "2.04");
    story.sends(40_500, "CON [MID=c, TOK=t4], PUT, 2:0/0/256, /typing, 3..4");
    story.gets(60_000, "ACK [MID=c, TOK=t4], 2.04");
    story.is_answered(60_000, second, "2.04");
}

#[test]
fn a_message_that_does_not_fit_into_the_link_fails_and_says_so() {
    let terms = Profile::built_in("sbd").unwrap().terms(End::Peer);
    let links = BTreeMap::from([("sbd".to_owned(), terms)]);
    let mut story = with(Config { links, link: Some("sbd".to_owned()), ..config() });
    let path = "x".repeat(200);
    let id = story.asks(0, &format!("GET, /{path}, ?{path}"));
    let error = match story.reported(0) {
        Event::Failed { id: failed, error } => {
            assert_eq!(failed, id);
            error
        }
        other => panic!("{other:?}"),
    };
    assert!(matches!(error, RequestError::TooLong { length: 412.., most: 340 }), "{error:?}");
    story.sends_nothing(1_000_000);
    assert_eq!(story.machine.counters().too_long, 1);
}

#[test]
fn a_peer_that_announces_its_link_is_spoken_to_on_its_terms() {
    let mut story = with(Config { link: None, ..over_hf(End::Gateway) });
    story.gets(0, "CON [MID=1, TOK=0xaa], GET, /8, opt65020:0x68662d313030");
    assert_eq!(story.machine.link(PEER.into()), Some("hf-100"));
    let key = story.is_asked(0, "GET, /8, opt65020:0x68662d313030");
    story.answers(0, key, "2.05, 0..300");
    // Blocks of 256 bytes.
    story.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e, 2:0/1/256, 0..256");
    // Another peer, which says nothing, is answered at once and whole; one with an unknown link too.
    story.with(OTHER).gets(1_000, "CON [MID=1, TOK=0xaa], GET, /8, opt65020:0x7878");
    let key = story.is_asked(1_000, "GET, /8, opt65020:0x7878");
    story.answers(1_000, key, "2.05, 0..300");
    story.with(OTHER).sends(1_000, "ACK [MID=1, TOK=0xaa], 2.05, 0..300");
    assert_eq!((story.machine.link(OTHER.into()), story.machine.counters().unknown_links), (None, 1));
    // It is remembered for a day, and then nothing is kept.
    story.sends_nothing(86_000_000);
    assert_eq!(story.machine.link(PEER.into()), Some("hf-100"));
    story.is_empty(86_500_000);
}

#[test]
fn a_transfer_survives_an_hour_without_the_link() {
    let mut story = with(over_hf(End::Peer));
    let id = story.asks(0, "GET, /big");
    story.sends(0, "CON [MID=a, TOK=t], GET, 2:0/0/256, /big");
    story.gets(30_000, "ACK [MID=a, TOK=t], 2.05, ETag:0x01020304, 2:0/1/256, 0..256");
    let asks = "CON [MID=b, TOK=t], GET, 2:1/0/256, /big";
    story.sends(30_500, asks);
    // Nobody answers. When all repeats are in vain the block is asked for by another message.
    let mut at = 30_500;
    for _ in 0..4 {
        at = story.sends_between(at + 1, at + 1_000_000, asks);
    }
    let mut silent_until = 30_500 + 3_600_000;
    let mut tries = 0;
    let asked = loop {
        tries += 1;
        let name = format!("CON [MID=again{tries}, TOK=t], GET, 2:1/0/256, /big");
        at = story.sends_between(at + 1, at + 2_000_000, &name);
        if at > silent_until {
            break tries;
        }
        for _ in 0..4 {
            at = story.sends_between(at + 1, at + 1_000_000, &name);
            if at > silent_until {
                silent_until = 0;
                break;
            }
        }
        if silent_until == 0 {
            break tries;
        }
    };
    story.gets(
        at + 30_000,
        &format!("ACK [MID=again{asked}, TOK=t], 2.05, ETag:0x01020304, 2:1/0/256, 256..300"),
    );
    story.is_answered(at + 30_000, id, "2.05, ETag:0x01020304, 0..300");
}

#[test]
fn a_request_that_may_be_done_twice_is_not_asked_again() {
    let mut story = with(over_hf(End::Peer));
    let id = story.asks(0, "POST, /createRoom, 0..300");
    story.sends(0, "CON [MID=a, TOK=t], POST, 2:0/0/256, 1:0/1/256, Size1:300, /createRoom, 0..256");
    story.gets(40_000, "ACK [MID=a, TOK=t], 2.31, 1:0/1/256");
    let last = "CON [MID=b, TOK=t], POST, 2:0/0/256, 1:1/0/256, /createRoom, 256..300";
    let mut at = 40_500;
    story.sends(at, last);
    for _ in 0..4 {
        at = story.sends_between(at + 1, at + 1_000_000, last);
    }
    story.reports_between(at, at + 2_000_000, Event::Failed { id, error: RequestError::Timeout });
}

#[test]
fn a_notification_that_comes_again_after_a_restart_does_not_begin_its_body_anew() {
    let mut story = with(over_hf(End::Peer));
    let id = story.asks(0, "GET, /7, Observe:0");
    story.sends(0, "CON [MID=a, TOK=t], GET, 2:0/0/256, /7, Observe:0");
    story.gets(30_000, "ACK [MID=a]");
    story.gets(60_000, "CON [MID=1, TOK=t], 2.05, ETag:0x01020304, Observe:5, 2:0/1/256, 0..256");
    story.sends(60_500, "ACK [MID=1]");
    story.sends(63_060, "CON [MID=b, TOK=rest], GET, 2:1/0/256, /7");
    // The server was restarted, and does not know how far the peer is.
    story.gets(90_000, "CON [MID=900, TOK=t], 2.05, ETag:0x01020304, Observe:300, 2:0/1/256, 0..256");
    story.sends(90_500, "ACK [MID=900]");
    story.gets(100_000, "ACK [MID=b, TOK=rest], 2.05, ETag:0x01020304, 2:1/0/256, 256..300");
    story.is_notified(100_000, id, "2.05, ETag:0x01020304, 0..300");
}

#[test]
fn a_peer_that_did_not_answer_is_reported_when_it_is_heard_of() {
    let mut story = with(config());
    story.gets(0, "CON [MID=1, TOK=0xaa], GET, /7, Observe:0");
    let key = story.is_asked(0, "GET, /7, Observe:0");
    let id = story.accepts(0, key, "2.05, 0..10");
    story.sends(0, "ACK [MID=1]");
    let news = "CON [MID=a, TOK=0xaa], 2.05, Observe:0, 0..10";
    for at in [0, 2_000, 6_000, 14_000, 30_000] {
        story.sends(at, news);
    }
    story.reports(62_000, Event::Undelivered(id));
    // A ping is not repeated.
    story.does(100_000, |endpoint, now| endpoint.probe(PEER.into(), now));
    story.sends(100_000, "CON [MID=b]");
    story.reports(102_000, Event::Unreachable(PEER.into()));
    story.does(200_000, |endpoint, now| endpoint.probe(PEER.into(), now));
    story.sends(200_000, "CON [MID=c]");
    story.gets(200_500, "RST [MID=c]");
    story.reports(200_500, Event::Reachable(PEER.into()));
    // Once; and the observation is still there.
    story.gets(201_000, "CON [MID=9]");
    story.sends(201_000, "RST [MID=9]");
    story.notifies(202_000, id, "2.05, 0..20");
    story.sends(202_000, "CON [MID=d, TOK=0xaa], 2.05, Observe:1, 0..20");
    story.gets(202_100, "ACK [MID=d]");
    story.reports(202_100, Event::Delivered(id));
}
