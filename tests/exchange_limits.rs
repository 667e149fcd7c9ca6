//! What exchanges with one peer use up: message IDs (RFC 7252 §4.4), and memory.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lowband::coap::{Answered, Busy, Event, Exchanges, Instant, Kind, Limits, Parameters, Priority};

use support::exchanges::{ROUND_EXCHANGE_LIFETIME, peer, peer_with, round};
use support::notation;

// RFC 7252 §4.4: message IDs.

#[test]
fn no_message_id_is_used_twice_within_the_exchange_lifetime() {
    let request = notation::message("CON [MID=0, TOK=0x01], GET");
    let parameters = Parameters::default();
    let mut exchanges = Exchanges::new(parameters.clone(), Limits::default(), 7);
    let mut used: BTreeMap<u16, Duration> = BTreeMap::new();
    let mut refused = 0;
    // 300 a second: they run out twice.
    for number in 0..200_000_u64 {
        let now = Duration::from_micros(number * 1_000_000 / 300);
        exchanges.advance(Instant::after_start(now));
        let sent = exchanges.send_unconfirmed(request.clone(), Instant::after_start(now));
        match sent {
            Ok(()) => {}
            Err(Busy) => refused += 1,
        }
        assert_eq!(
            exchanges.poll_datagram().map(|outgoing| {
                let id = u16::from_be_bytes([outgoing.datagram[2], outgoing.datagram[3]]);
                let before = used.insert(id, now);
                assert!(
                    before.is_none_or(|before| now - before >= parameters.exchange_lifetime()),
                    "{id:04x} at {before:?} and {now:?}"
                );
            }),
            sent.ok()
        );
    }
    // As many as there are in each lifetime, but for one run of ids that waits for its last.
    assert_eq!(used.len(), 65_536);
    assert!(refused < 200_000 - 2 * 65_536, "{refused} were refused");
}

#[test]
fn messages_wait_for_a_free_id_and_no_longer() {
    let mut peer = peer();
    // 65,536 of them, less than a run: then there is none.
    let sent = peer.does(0, |exchanges, now| {
        let mut sent = 0;
        while exchanges.send_unconfirmed(notation::message("CON [MID=0, TOK=0x01], GET"), now).is_ok() {
            while exchanges.poll_datagram().is_some() {}
            sent += 1;
            assert!(sent <= 65_536, "an id was used twice");
        }
        sent
    });
    assert!(sent > 65_536 - 256, "{sent}");
    let asked = peer.user_sends(10, "CON [MID=0, TOK=0x02], GET");
    peer.gets_request(20, "41 01 1234 aa");
    peer.user_answers(20, Kind::Confirmable, 0x1234, "CON [MID=0, TOK=0xaa], 2.05");
    peer.sends(20, "61 45 1234 aa");
    peer.sends(ROUND_EXCHANGE_LIFETIME, "CON [MID=a, TOK=0x02], GET");
    peer.gets(ROUND_EXCHANGE_LIFETIME, "ACK [MID=a]");
    peer.reports(ROUND_EXCHANGE_LIFETIME, Event::Acknowledged(asked));
    peer.is_idle(1_000_000);
}

#[test]
fn nothing_is_left_when_the_last_used_id_may_be_used_again_and_not_before() {
    // Whoever forgets a peer earlier, and begins anew, may use an id too soon.
    let mut peer = peer();
    let asked = peer.user_sends(5_000, "CON [MID=0, TOK=0x01], GET");
    peer.sends(5_000, "CON [MID=a, TOK=0x01], GET");
    peer.gets(5_100, "ACK [MID=a]");
    peer.reports(5_100, Event::Acknowledged(asked));
    peer.sends_nothing(5_000 + ROUND_EXCHANGE_LIFETIME - 1);
    assert!(!peer.machine.is_idle());
    peer.is_idle(5_000 + ROUND_EXCHANGE_LIFETIME);
}

#[test]
fn what_is_forgotten_before_it_has_left_does_not_leave() {
    let mut exchanges = Exchanges::new(round(), Limits::default(), 7);
    let first = exchanges
        .send(notation::message("CON [MID=0, TOK=0x01], GET"), Priority::Message, Instant::START)
        .unwrap();
    exchanges.forget(first, Instant::START);
    assert_eq!(exchanges.poll_datagram(), None);
}

#[test]
fn first_message_id_depends_on_the_seed() {
    let first = |seed| {
        let mut exchanges = Exchanges::new(Parameters::default(), Limits::default(), seed);
        exchanges.send(notation::message("CON [MID=0], GET"), Priority::Message, Instant::START).unwrap();
        exchanges.poll_datagram().unwrap().datagram[2..4].to_vec()
    };
    let firsts: BTreeSet<_> = (0..100).map(first).collect();
    assert!(firsts.len() > 95, "only {} of 100 differ", firsts.len());
}

// What is remembered is bounded.

#[test]
fn oldest_message_is_forgotten_first_and_its_acknowledgement_paid() {
    let mut peer = peer_with(round(), Limits { remembered: 2, ..Limits::default() });
    peer.gets_request(0, "41 01 0001 aa");
    peer.gets_request(10, "41 01 0002 aa");
    peer.gets_request(20, "51 01 0003 aa");
    peer.sends(20, "60 00 0001");
    peer.user_answers(30, Kind::Confirmable, 2, "CON [MID=0, TOK=0xaa], 2.05");
    peer.sends(30, "61 45 0002 aa");
    // The second and the third are known still.
    peer.gets(40, "41 01 0002 aa");
    peer.sends(40, "61 45 0002 aa");
    peer.gets(50, "51 01 0003 aa");
    // The first is not, and takes the second's place.
    peer.gets_request(60, "41 01 0001 aa");
    peer.gets_request(70, "41 01 0002 aa");
    peer.sends(1_060, "60 00 0001");
    peer.sends(1_070, "60 00 0002");
    peer.is_idle(1_000_000);
}

#[test]
fn answer_to_a_forgotten_request_is_sent_separately() {
    let mut peer = peer_with(round(), Limits { remembered: 1, ..Limits::default() });
    peer.gets_request(0, "41 01 0001 aa");
    peer.gets_request(10, "41 01 0002 bb");
    peer.sends(10, "60 00 0001");
    let Answered::Confirmable(answer) =
        peer.user_answers(20, Kind::Confirmable, 1, "CON [MID=0, TOK=0xaa], 2.05")
    else {
        panic!("not in a message of its own")
    };
    peer.sends(20, "CON [MID=a, TOK=0xaa], 2.05");
    peer.gets(30, "ACK [MID=a]");
    peer.reports(30, Event::Acknowledged(answer));
    peer.sends(1_010, "60 00 0002");
}

#[test]
fn replies_are_forgotten_by_their_bytes() {
    let mut peer = peer_with(round(), Limits { remembered_bytes: 300, ..Limits::default() });
    for id in 1..=3 {
        peer.gets_request(id, &format!("41 01 000{id} aa"));
        peer.user_answers(id, Kind::Confirmable, id as u16, "CON [MID=0, TOK=0xaa], 2.05, 0..128");
        peer.sends(id, &format!("ACK [MID={id}, TOK=0xaa], 2.05, 0..128"));
    }
    // 134 bytes each: the first had to go.
    for id in [2, 3] {
        peer.gets(10, &format!("41 01 000{id} aa"));
        peer.sends(10, &format!("ACK [MID={id}, TOK=0xaa], 2.05, 0..128"));
    }
    peer.gets_request(20, "41 01 0001 aa");
    peer.user_answers(20, Kind::Confirmable, 1, "CON [MID=0, TOK=0xaa], 4.04");
    peer.sends(20, "61 84 0001 aa");
    peer.is_idle(1_000_000);
}

#[test]
fn reply_larger_than_the_limit_is_repeated_until_the_next() {
    let mut peer = peer_with(round(), Limits { remembered_bytes: 100, ..Limits::default() });
    peer.gets_request(0, "41 01 0001 aa");
    peer.user_answers(0, Kind::Confirmable, 1, "CON [MID=0, TOK=0xaa], 2.05, 0..128");
    peer.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, 0..128");
    peer.gets(10, "41 01 0001 aa");
    peer.sends(10, "ACK [MID=1, TOK=0xaa], 2.05, 0..128");
    peer.gets_request(20, "41 01 0002 aa");
    peer.user_answers(20, Kind::Confirmable, 2, "CON [MID=0, TOK=0xaa], 2.05");
    peer.sends(20, "61 45 0002 aa");
    peer.gets_request(30, "41 01 0001 aa");
    peer.sends(1_030, "60 00 0001");
}

#[test]
fn flood_takes_no_more_than_its_limit() {
    let mut exchanges = Exchanges::new(round(), Limits { remembered: 16, ..Limits::default() }, 7);
    let mut acknowledged = 0;
    for id in 0..10_000_u16 {
        exchanges.receive(notation::message(&format!("41 01 {id:04x} aa")), Instant::START);
        while exchanges.poll_event().is_some() {}
        while exchanges.poll_datagram().is_some() {
            acknowledged += 1;
        }
    }
    assert_eq!(acknowledged, 10_000 - 16);
    assert!(format!("{exchanges:?}").len() < 16 * 400, "{} bytes of debug", format!("{exchanges:?}").len());
}
