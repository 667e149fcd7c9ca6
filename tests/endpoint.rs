//! An endpoint's whole behaviour towards its peers, as stories in virtual time, and by chance over bad links.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use lowband::coap::{BlockSize, Instant, OptionNumber, RequestError};
use lowband::endpoint::{Address, Config, Endpoint, Event};

use support::endpoint::{OTHER, PEER, config, peer, request, response, with};
use support::notation;

// Requests and answers.

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let mut server = with(config());
    let elsewhere = Address { local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 253)), ..PEER };
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    // The same id at another of our addresses is another message.
    server.with(elsewhere).gets(10, "CON [MID=1, TOK=0xaa], GET, /x");
    let other = server.is_asked(10, "GET, /x");
    server.answers(20, other, "2.05, \"there\"");
    server.with(elsewhere).sends(20, "ACK [MID=1, TOK=0xaa], 2.05, \"there\"");
    server.answers(30, key, "2.05, \"here\"");
    server.sends(30, "ACK [MID=1, TOK=0xaa], 2.05, \"here\"");
    server.is_empty(1_000_000);
}

#[test]
fn request_is_answered_once() {
    let mut server = with(config());
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.answers(10, key, "2.05");
    server.sends(10, "ACK [MID=1, TOK=0xaa], 2.05");
    server.answers(20, key, "4.04");
    server.is_empty(1_000_000);
}

#[test]
fn requests_of_one_peer_are_answered_in_any_order() {
    let mut server = with(config());
    server.gets(0, "CON [MID=1, TOK=0x01], GET, /1");
    let first = server.is_asked(0, "GET, /1");
    server.gets(10, "CON [MID=2, TOK=0x02], GET, /2");
    let second = server.is_asked(10, "GET, /2");
    server.answers(20, second, "2.05, \"2\"");
    server.sends(20, "ACK [MID=2, TOK=0x02], 2.05, \"2\"");
    server.sends(1_000, "ACK [MID=1]");
    server.answers(2_000, first, "2.05, \"1\"");
    server.sends(2_000, "CON [MID=a, TOK=0x01], 2.05, \"1\"");
    server.gets(2_100, "ACK [MID=a]");
    server.is_empty(1_000_000);
}

#[test]
fn one_request_too_many_is_refused_and_told_when_to_come_again() {
    let mut server = with(Config { pending: 2, ..config() });
    for id in [1, 2] {
        server.gets(0, &format!("NON [MID={id}, TOK=0x0{id}], GET, /x"));
        server.is_asked(0, "GET, /x");
    }
    server.gets(10, "CON [MID=3, TOK=0x03], GET, /x");
    server.sends(10, "ACK [MID=3, TOK=0x03], 5.03, Max-Age:5, \"too many requests wait for their answer\"");
    // Another peer has its own count.
    server.with(OTHER).gets(20, "CON [MID=3, TOK=0x03], GET, /x");
    let key = server.is_asked(20, "GET, /x");
    server.answers(20, key, "2.05");
    server.with(OTHER).sends(20, "ACK [MID=3, TOK=0x03], 2.05");
}

#[test]
fn client_stops_repeating_when_the_separate_answer_overtakes_the_acknowledgement() {
    // RFC 7252 §5.2.2.
    let mut client = with(config());
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(500, "CON [MID=1, TOK=t], 2.05, \"answer\"");
    client.sends(500, "ACK [MID=1]");
    client.is_answered(500, id, "2.05, \"answer\"");
    client.gets(600, "ACK [MID=a]");
    client.is_empty(1_000_000);
}

#[test]
fn acknowledged_request_without_an_answer_times_out() {
    let mut config = config();
    config.transfers.response_timeout = Duration::from_secs(100);
    let mut client = with(config);
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(1_000, "ACK [MID=a]");
    client.fails(101_000, id, RequestError::Timeout);
    // Too late.
    client.gets(102_000, "CON [MID=1, TOK=t], 2.05");
    client.sends(102_000, "RST [MID=1]");
    client.is_empty(1_000_000);
}

#[test]
fn reset_request_fails() {
    let mut client = with(config());
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(10, "RST [MID=a]");
    client.fails(10, id, RequestError::Reset);
    client.is_empty(1_000_000);
}

#[test]
fn answer_with_another_token_is_no_answer() {
    let mut client = with(config());
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(10, "CON [MID=1, TOK=0xffffffffff], 2.05, \"not mine\"");
    client.sends(10, "RST [MID=1]");
    client.gets(20, "NON [MID=2], 2.05, \"not mine\"");
    client.gets(30, "CON [MID=3, TOK=t], 2.05, \"mine\"");
    client.sends(30, "ACK [MID=3]");
    client.is_answered(30, id, "2.05, \"mine\"");
}

#[test]
fn answer_from_elsewhere_is_no_answer() {
    let mut client = with(config());
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.with(OTHER).gets(10, "ACK [MID=a, TOK=t], 2.05, \"forged\"");
    client.with(OTHER).gets(20, "CON [MID=1, TOK=t], 2.05, \"forged\"");
    client.with(OTHER).sends(20, "RST [MID=1]");
    client.gets(30, "ACK [MID=a, TOK=t], 2.05, \"mine\"");
    client.is_answered(30, id, "2.05, \"mine\"");
}

#[test]
fn requests_to_one_peer_take_turns() {
    // RFC 7252 §4.7: NSTART 1.
    let mut client = with(config());
    let first = client.asks(0, "GET, /1");
    client.sends(0, "CON [MID=a, TOK=t], GET, /1");
    let second = client.asks(0, "GET, /2");
    client.gets(100, "ACK [MID=a]");
    client.sends(100, "CON [MID=b, TOK=u], GET, /2");
    client.gets(200, "ACK [MID=b, TOK=u], 2.05, \"2\"");
    client.is_answered(200, second, "2.05, \"2\"");
    client.gets(300, "CON [MID=1, TOK=t], 2.05, \"1\"");
    client.sends(300, "ACK [MID=1]");
    client.is_answered(300, first, "2.05, \"1\"");
}

#[test]
fn cancelled_request_is_repeated_no_more_and_makes_room() {
    let mut client = with(config());
    let first = client.asks(0, "GET, /1");
    client.sends(0, "CON [MID=a, TOK=t], GET, /1");
    let second = client.asks(0, "GET, /2");
    client.does(100, |endpoint, now| endpoint.cancel(first, now));
    client.sends(100, "CON [MID=b, TOK=u], GET, /2");
    client.gets(200, "ACK [MID=a, TOK=t], 2.05, \"1\"");
    client.gets(300, "ACK [MID=b, TOK=u], 2.05, \"2\"");
    client.is_answered(300, second, "2.05, \"2\"");
    client.is_empty(1_000_000);
}

#[test]
fn no_message_id_is_used_twice_by_a_client_that_is_answered_at_once() {
    // RFC 7252 §4.4: between two requests nothing is left to do, and the ids are still used.
    let mut client = with(config());
    let mut used = BTreeSet::new();
    for number in 0..2_000_u64 {
        let at = number * 100;
        let id = client.asks(at, "GET, /x");
        client.sends(at, &format!("CON [MID=m{number}, TOK=t{number}], GET, /x"));
        assert!(used.insert(client.named(&format!("m{number}")).to_vec()), "request {number} has a used id");
        client.gets(at + 50, &format!("ACK [MID=m{number}, TOK=t{number}], 2.05"));
        client.is_answered(at + 50, id, "2.05");
    }
    client.is_empty(1_000_000);
}

// Options (RFC 7252 §5.4).

#[test]
fn critical_option_that_is_not_understood_is_a_bad_option() {
    let mut server = with(config());
    for (at, option, name) in [
        (0, "opt2001:0x01", "option 2001 (2001)"),
        // libcoap 4.3.5 probes for Q-Block2 and If-None-Match.
        (10, "opt31:0x06", "Q-Block2 (31)"),
        (20, "If-None-Match", "If-None-Match (5)"),
        (30, "opt9:0x01", "OSCORE (9)"),
        // §5.4.3: a length that the option cannot have.
        (40, "opt17:0x010203", "Accept (17)"),
        (50, "opt7:0x010203", "Uri-Port (7)"),
        // §5.4.5: a second value of an option that has one.
        (60, "Accept:60, Accept:60", "Accept (17)"),
        (70, "opt3:\"a\", opt3:\"b\"", "Uri-Host (3)"),
    ] {
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], GET, /x, {option}"));
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 4.02, \"{name} is not understood\""));
    }
    // §4.3: what cannot be processed and is not confirmable is silently rejected.
    server.gets(80, "NON [MID=80, TOK=0xaa], GET, /x, opt2001:0x01");
    server.is_empty(1_000_000);
    assert_eq!(server.machine.counters().bad_options, 9);
}

#[test]
fn elective_option_that_is_not_understood_is_ignored() {
    let mut server = with(config());
    for (at, options) in [
        (0, "opt2000:0x01"),
        // A second value, and lengths that the options cannot have.
        (10, "CF:60, Size1:70000, opt60:0x0000000000"),
        (20, "CF:60, opt14:0x0000000000"),
        (30, "opt292:0x010203040506070809"),
    ] {
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], POST, /x, {options}, \"text\""));
        let Event::Request { key, request, .. } = server.reported(at) else { panic!("no request") };
        let kept: Vec<_> = request.options.iter().map(|(number, _)| number).collect();
        let expected: &[_] = match options.starts_with("CF") {
            true => &[OptionNumber::URI_PATH, OptionNumber::CONTENT_FORMAT],
            false => &[OptionNumber::URI_PATH],
        };
        assert_eq!(kept, expected, "of {options}");
        server.answers(at, key, "2.04");
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 2.04"));
    }
}

#[test]
fn answer_with_a_critical_option_that_is_not_understood_is_rejected() {
    let mut client = with(config());
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(100, "ACK [MID=a]");
    client.gets(200, "CON [MID=1, TOK=t], 2.05, opt2001:0x01");
    client.sends(200, "RST [MID=1]");
    client.fails(200, id, RequestError::UnknownOption(OptionNumber(2001)));
    let id = client.asks(1_000, "GET, /x");
    client.sends(1_000, "CON [MID=b, TOK=u], GET, /x");
    client.gets(1_100, "ACK [MID=b, TOK=u], 2.05, opt2001:0x01");
    client.fails(1_100, id, RequestError::UnknownOption(OptionNumber(2001)));
    // Elective ones are left out.
    let id = client.asks(2_000, "GET, /x");
    client.sends(2_000, "CON [MID=c, TOK=v], GET, /x");
    client.gets(2_100, "ACK [MID=c, TOK=v], 2.05, opt2000:0x01, \"text\"");
    client.is_answered(2_100, id, "2.05, \"text\"");
    client.is_empty(1_000_000);
}

#[test]
fn unwanted_answers_are_not_sent_and_acknowledgements_are() {
    // RFC 7967 §2.1: 2 is for class 2, 8 for class 4, 16 for class 5.
    let mut server = with(config());
    for (at, unwanted, code, sent) in [
        (0, 0, "2.04", true),
        (10, 2, "2.04", false),
        (20, 2, "4.04", true),
        (30, 2, "5.00", true),
        (40, 8, "4.04", false),
        (50, 16, "5.00", false),
        (60, 16, "2.04", true),
        (70, 26, "2.04", false),
        (80, 26, "4.04", false),
        (90, 26, "5.00", false),
        (100, 24, "2.04", true),
    ] {
        for (kind, offset) in [("CON", 0), ("NON", 1)] {
            let id = at + offset;
            server.gets(at, &format!("{kind} [MID={id}, TOK=0xaa], PUT, /x, No-Response:{unwanted}"));
            let key = server.is_asked(at, &format!("PUT, /x, No-Response:{unwanted}"));
            server.answers(at, key, code);
            match (kind, sent) {
                ("CON", true) => server.sends(at, &format!("ACK [MID={id}, TOK=0xaa], {code}")),
                ("CON", false) => server.sends(at, &format!("ACK [MID={id}]")),
                (_, true) => server.sends(at, &format!("NON [MID=m{id}, TOK=0xaa], {code}")),
                _ => {}
            }
        }
    }
    // A slow one was acknowledged already.
    server.gets(1_000, "CON [MID=1000, TOK=0xaa], PUT, /x, No-Response:26");
    let key = server.is_asked(1_000, "PUT, /x, No-Response:26");
    server.sends(2_000, "ACK [MID=1000]");
    server.answers(9_000, key, "2.04");
    server.is_empty(1_000_000);
}

// Noise.

#[test]
fn malformed_messages_are_reset_where_they_are_confirmable_and_dropped_otherwise() {
    let mut server = with(config());
    for (at, datagram, reset) in [
        (0, "", None),
        (10, "40 01 12", None),
        // RFC 7252 §3: other versions.
        (20, "00 01 1234", None),
        (30, "80 01 1234", None),
        (40, "c0 01 1234", None),
        // Token lengths 9 to 15: libcoap 4.3.5 probes so for RFC 8974.
        (50, "49 01 1234 010203040506070809 50", Some("70 00 1234")),
        (60, "4f 01 1234 0102", Some("70 00 1234")),
        (70, "59 01 1234 010203040506070809 50", None),
        // A token that is cut short.
        (80, "44 01 1234 aabb", Some("70 00 1234")),
        // A marker without payload, an option's reserved nibble, an option beyond the end.
        (90, "40 01 1234 ff", Some("70 00 1234")),
        (100, "40 01 1234 f1 00", Some("70 00 1234")),
        (110, "40 01 1234 1f 00", Some("70 00 1234")),
        (120, "40 01 1234 b5 61", Some("70 00 1234")),
        (130, "50 01 1234 ff", None),
        // §4.1: an empty message has nothing else.
        (140, "41 00 1234 aa", Some("70 00 1234")),
        (150, "50 00 1234", None),
        // Reserved classes of codes.
        (160, "40 20 1234", Some("70 00 1234")),
        (170, "40 e1 1234", Some("70 00 1234")),
        // §4.2: an acknowledgement carries no request, a reset nothing.
        (180, "60 01 1234", None),
        (190, "70 01 1234", None),
        (200, "70 45 1234", None),
    ] {
        server.gets(at, datagram);
        if let Some(reset) = reset {
            server.sends(at, reset);
        }
    }
    server.is_empty(1_000_000);
    assert_eq!(server.machine.counters().malformed, 21);
}

#[test]
fn pings_and_stray_acknowledgements_leave_nothing_behind() {
    let mut server = with(config());
    server.gets(0, "40 00 1234");
    server.sends(0, "70 00 1234");
    server.gets(10, "60 00 1234");
    server.gets(20, "70 00 1234");
    server.gets(30, "61 45 1234 aa");
    server.is_empty(30);
}

#[test]
fn request_after_a_ping_with_its_id_is_no_duplicate() {
    let mut server = with(config());
    server.gets(0, "40 00 1234");
    server.sends(0, "70 00 1234");
    server.gets(10, "41 01 1234 aa");
    let key = server.is_asked(10, "GET");
    server.answers(10, key, "2.05");
    server.sends(10, "61 45 1234 aa");
}

// Bounds.

#[test]
fn peer_unheard_of_for_longest_makes_room_unless_something_waits_for_it() {
    let mut server = with(Config { peers: 2, ..config() });
    // The first waits for its answer, the second has it.
    server.with(peer(1)).gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let first = server.is_asked(0, "GET, /x");
    server.with(peer(2)).gets(10, "CON [MID=1, TOK=0xaa], GET, /x");
    let second = server.is_asked(10, "GET, /x");
    server.answers(10, second, "2.05");
    server.with(peer(2)).sends(10, "ACK [MID=1, TOK=0xaa], 2.05");
    // The third takes the second's place.
    server.with(peer(3)).gets(20, "CON [MID=1, TOK=0xaa], GET, /x");
    let third = server.is_asked(20, "GET, /x");
    // Now both wait, and a fourth is not heard.
    server.with(peer(4)).gets(30, "CON [MID=1, TOK=0xaa], GET, /x");
    assert_eq!(server.machine.counters().peers_refused, 1);
    server.answers(40, first, "2.05");
    server.with(peer(1)).sends(40, "ACK [MID=1, TOK=0xaa], 2.05");
    server.answers(50, third, "2.05");
    server.with(peer(3)).sends(50, "ACK [MID=1, TOK=0xaa], 2.05");
    // It repeats itself and is heard.
    server.with(peer(4)).gets(2_030, "CON [MID=1, TOK=0xaa], GET, /x");
    let fourth = server.is_asked(2_030, "GET, /x");
    server.answers(2_030, fourth, "2.05");
    server.with(peer(4)).sends(2_030, "ACK [MID=1, TOK=0xaa], 2.05");
    assert_eq!(server.machine.peers(), 2);
    server.is_empty(1_000_000);
}

#[test]
fn however_many_wait_the_first_that_nothing_waits_for_makes_room() {
    let mut server = with(Config { peers: 41, ..config() });
    for number in 1..=40 {
        server.with(peer(number)).gets(u64::from(number), "CON [MID=1, TOK=0xaa], GET, /x, Observe:0");
        let key = server.is_asked(u64::from(number), "GET, /x, Observe:0");
        server.accepts(u64::from(number), key, "2.05");
        let mut observer = server.with(peer(number));
        observer.sends(u64::from(number), "ACK [MID=1]");
        observer.sends(u64::from(number), &format!("CON [MID=m{number}, TOK=0xaa], 2.05, Observe:0"));
        observer.gets(u64::from(number), &format!("ACK [MID=m{number}]"));
        server.reported(u64::from(number));
    }
    for number in 50..60 {
        server.with(peer(number)).gets(1_000, "CON [MID=1, TOK=0xaa], GET, /x");
        let key = server.is_asked(1_000, "GET, /x");
        server.answers(1_000, key, "2.05");
        server.with(peer(number)).sends(1_000, "ACK [MID=1, TOK=0xaa], 2.05");
    }
    assert_eq!((server.machine.peers(), server.machine.counters().peers_refused), (41, 0));
}

#[test]
fn bodies_of_the_peer_unheard_of_for_longest_make_room_for_those_of_others() {
    let mut server = with(Config { bytes: 2_500, ..config() });
    for number in 1..=3 {
        let at = u64::from(number);
        server.with(peer(number)).gets(at, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/1024, 0..1024");
        server.with(peer(number)).sends(at, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/1024");
    }
    let last = "CON [MID=2, TOK=0xaa], PUT, /x, 1:1/0/1024, 1024..1100";
    server.with(peer(1)).gets(10, last);
    let text = "earlier blocks are missing: start again from block 0";
    server.with(peer(1)).sends(10, &format!("ACK [MID=2, TOK=0xaa], 4.08, \"{text}\""));
    for number in [2, 3] {
        server.with(peer(number)).gets(20, last);
        let key = server.is_asked(20, "PUT, /x, 0..1100");
        server.answers(20, key, "2.04");
        server.with(peer(number)).sends(20, "ACK [MID=2, TOK=0xaa], 2.04, 1:1/0/1024");
    }
}

#[test]
fn options_kept_with_a_body_count_as_well() {
    let mut server = with(Config { bytes: 10_000, ..config() });
    // Cheap on the wire, and not in memory.
    let queries = ", ?".repeat(200);
    server.gets(0, &format!("CON [MID=1, TOK=0xaa], PUT, /x{queries}, 1:0/1/16, 0..16"));
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/16");
    server.gets(1, &format!("CON [MID=2, TOK=0xaa], PUT, /x{queries}, 1:1/0/16, 16..32"));
    let text = "earlier blocks are missing: start again from block 0";
    server.sends(1, &format!("ACK [MID=2, TOK=0xaa], 4.08, \"{text}\""));
}

#[test]
fn bodies_of_requests_that_wait_are_bounded_over_all_peers() {
    let mut server = with(Config { bytes: 1_500, ..config() });
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 0..1000");
    let first = server.is_asked(0, "PUT, /x, 0..1000");
    server.with(OTHER).gets(10, "CON [MID=1, TOK=0xaa], PUT, /x, 0..1000");
    let busy = "5.03, Max-Age:5, \"too many requests wait for their answer\"";
    server.with(OTHER).sends(10, &format!("ACK [MID=1, TOK=0xaa], {busy}"));
    server.answers(20, first, "2.04");
    server.sends(20, "ACK [MID=1, TOK=0xaa], 2.04");
    server.with(OTHER).gets(30, "CON [MID=2, TOK=0xaa], PUT, /x, 0..1000");
    server.is_asked(30, "PUT, /x, 0..1000");
}

#[test]
fn stray_messages_of_strangers_put_no_peer_out() {
    let mut server = with(Config { peers: 1, ..config() });
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x");
    let key = server.is_asked(0, "PUT, /x");
    server.answers(0, key, "2.04");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.04");
    for (at, noise) in [(10, "60 00 1234"), (20, "70 00 1234"), (30, "61 45 1234 aa"), (40, "51 45 1234 aa")]
    {
        server.with(OTHER).gets(at, noise);
    }
    for (at, reset) in [(50, "40 00 1234"), (60, "41 45 1234 aa")] {
        server.with(OTHER).gets(at, reset);
        server.with(OTHER).sends(at, "70 00 1234");
    }
    assert_eq!(server.machine.counters().unexpected_responses, 3);
    // The first is still known: its request is not done twice.
    server.gets(2_000, "CON [MID=1, TOK=0xaa], PUT, /x");
    server.sends(2_000, "ACK [MID=1, TOK=0xaa], 2.04");
}

#[test]
fn flood_of_one_peer_is_answered_and_bounded() {
    let mut endpoint = Endpoint::new(config(), [7; 32]);
    let mut requests = 0;
    for id in 0..20_000_u16 {
        let datagram = notation::hex(&format!("42 01 {id:04x} {id:04x} b178"));
        endpoint.handle(PEER, &datagram, Instant::START);
        while let Some(event) = endpoint.poll_event() {
            requests += u32::from(matches!(event, Event::Request { .. }));
        }
        while endpoint.poll_datagram().is_some() {}
    }
    assert_eq!(requests, 32);
    assert_eq!(endpoint.pending(), 32);
    assert!(format!("{endpoint:?}").len() < 200_000, "{} bytes of debug", format!("{endpoint:?}").len());
}

// By chance.

/// A word or two of a message, so that random ones get further than the header.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let hex = |text: &'static str| Just(notation::hex(text));
    prop_oneof![
        hex("40010001"),
        hex("41020002aa"),
        hex("42030003aabb"),
        hex("50010004"),
        hex("60450005"),
        hex("61450006aa"),
        hex("70000007"),
        hex("41450008aa"),
        hex("51450009aa"),
        hex("4100000a"),
        hex("b178"),
        hex("60"),
        hex("6101"),
        hex("d10a00"),
        hex("d10a06"),
        hex("d10a08"),
        hex("d10a10"),
        hex("d10a1f"),
        hex("d10e08"),
        hex("d10e18"),
        hex("d10e10"),
        hex("d10e0e"),
        hex("d30a00ffff"),
        hex("e1f400ff"),
        hex("ff"),
        hex("ff00112233445566778899aabbccddeeff"),
        prop::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    /// Any bytes at any times: no panic, no busy loop, and in the end nothing is left.
    #[test]
    fn noise_does_no_harm(
        datagrams in prop::collection::vec(
            (prop::collection::vec(piece(), 1..6), 0..3_u16, 0..40_000_u64, any::<u8>()), 1..60),
    ) {
        let mut config = config();
        config.transfers.block = BlockSize::MIN;
        config.peers = 2;
        let mut endpoint = Endpoint::new(config, [1; 32]);
        let mut now = Instant::START;
        let mut observations = Vec::new();
        for (pieces, from, wait, whim) in datagrams {
            endpoint.handle(peer(from), &pieces.concat(), now);
            let mut events = Vec::new();
            while let Some(event) = endpoint.poll_event() {
                events.push(event);
            }
            for event in events {
                if let Event::Request { key, .. } = event {
                    match whim % 4 {
                        0 => endpoint.respond(key, response("2.05, 0..100"), now),
                        1 => endpoint.respond(key, response("4.04"), now),
                        // Some never get an answer.
                        2 => {}
                        _ => observations.extend(endpoint.accept_observation(key, response("2.05, 0..40"), now)),
                    }
                }
            }
            match whim % 16 {
                0 => drop(endpoint.request(peer(from), request("GET, /x, Observe:0"), now)),
                1 => drop(endpoint.request(peer(from), request("PUT, /x, 0..50"), now)),
                2 | 3 => observations.iter().for_each(|id| endpoint.notify(*id, response("2.05, 0..40"), now)),
                4 => observations.iter().for_each(|id| endpoint.end_observation(*id, now)),
                _ => {}
            }
            let later = now + Duration::from_millis(wait);
            let mut turns = 0;
            while let Some(due) = endpoint.deadline().filter(|due| *due <= later) {
                now = now.max(due);
                endpoint.advance(now);
                turns += 1;
                prop_assert!(turns < 1_000, "a busy loop at {:?}", now);
            }
            now = later;
            while endpoint.poll_datagram().is_some() {}
            prop_assert!(endpoint.peers() <= 2);
        }
        for id in observations {
            endpoint.end_observation(id, now);
        }
        let mut turns = 0;
        while let Some(due) = endpoint.deadline() {
            now = now.max(due);
            endpoint.advance(now);
            while endpoint.poll_datagram().is_some() || endpoint.poll_event().is_some() {}
            turns += 1;
            prop_assert!(turns < 10_000, "no end");
        }
        if endpoint.pending() == 0 {
            prop_assert_eq!(endpoint.peers(), 0, "{:?}", endpoint);
        }
    }

    /// Requests with bodies both ways, over a link that loses, repeats and reorders: what arrives is what was sent, once.
    #[test]
    fn bodies_survive_bad_links(
        seed in 1..u64::MAX,
        loss in prop_oneof![Just(0_u64), 0..40_u64],
        sizes in prop::collection::vec((0..700_usize, 0..700_usize), 1..5),
        (client_block, server_block) in (0..7_u32, 0..7_u32),
        nstart in 1..4_usize,
    ) {
        let endpoint = |block: u32, seed: u8| {
            let mut config = Config::default();
            config.transfers.block = BlockSize::fitting(16 << block);
            config.parameters.nstart = nstart;
            Endpoint::new(config, [seed; 32])
        };
        let (mut client, mut server) = (endpoint(client_block, 1), endpoint(server_block, 2));
        let mut link = Link { chance: seed, loss, under_way: BTreeMap::new(), sent: 0 };
        let mut now = Instant::START;
        let mut ends = BTreeMap::new();
        let ids: Vec<_> = sizes.iter().enumerate().map(|(number, (size, _))| {
            client.request(PEER, request(&format!("PUT, /{number}, 0..{size}")), now)
        }).collect();
        let mut arrived = vec![0; sizes.len()];
        for turn in 0.. {
            prop_assert!(turn < 200_000, "no end");
            while let Some(event) = server.poll_event() {
                let Event::Request { key, request: actual, .. } = event else { continue };
                let path = actual.options.get(OptionNumber::URI_PATH).unwrap();
                let number: usize = std::str::from_utf8(path).unwrap().parse().unwrap();
                arrived[number] += 1;
                let (size, answer) = sizes[number];
                prop_assert_eq!(actual, request(&format!("PUT, /{number}, 0..{size}")));
                server.respond(key, response(&format!("2.04, 0..{answer}")), now);
            }
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Response { id, response: mut actual, notification: false } => {
                        let number = ids.iter().position(|other| *other == id).unwrap();
                        actual.options.remove(OptionNumber::ETAG);
                        if actual.code.is_success() {
                            prop_assert_eq!(actual, response(&format!("2.04, 0..{}", sizes[number].1)));
                            prop_assert!(ends.insert(id, true).is_none(), "two ends");
                        } else {
                            // What was lost with all its repeats may be held no more.
                            prop_assert!(loss > 0, "{:?}", actual);
                            prop_assert!(ends.insert(id, false).is_none(), "two ends");
                        }
                    }
                    Event::Failed { id, error } => {
                        prop_assert!(loss > 0, "{:?}", error);
                        prop_assert!(ends.insert(id, false).is_none(), "two ends");
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            while let Some((_, datagram)) = client.poll_datagram() { link.send(Side::Server, &datagram, now) }
            while let Some((_, datagram)) = server.poll_datagram() { link.send(Side::Client, &datagram, now) }
            let arrival = link.under_way.keys().next().map(|(at, _)| *at);
            let Some(next) = [client.deadline(), server.deadline(), arrival].into_iter().flatten().min()
            else { break };
            now = now.max(next);
            client.advance(now);
            server.advance(now);
            while let Some(entry) = link.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
                match entry.remove() {
                    (Side::Server, datagram) => server.handle(PEER, &datagram, now),
                    (Side::Client, datagram) => client.handle(PEER, &datagram, now),
                }
            }
        }
        prop_assert_eq!((client.peers(), server.peers()), (0, 0));
        for (number, id) in ids.iter().enumerate() {
            prop_assert!(ends.contains_key(id), "request {} has no end", number);
            if ends[id] {
                prop_assert!(arrived[number] >= 1);
            }
            // A body that is sent in one piece is done once, whatever the link does.
            if sizes[number].0 <= 16 {
                prop_assert!(arrived[number] <= 1, "request {} was done {} times", number, arrived[number]);
            }
            if loss == 0 {
                prop_assert_eq!(arrived[number], 1);
            }
        }
    }

    /// An observer hears the latest news in the end, or its observation is known to have ended.
    #[test]
    fn latest_news_arrives_over_bad_links(
        seed in 1..u64::MAX,
        loss in 0..30_u64,
        news in prop::collection::vec((0..300_usize, 0..20_000_u64), 1..8),
    ) {
        let endpoint = |seed: u8| {
            let mut config = Config::default();
            config.transfers.block = BlockSize::fitting(64);
            Endpoint::new(config, [seed; 32])
        };
        let (mut client, mut server) = (endpoint(1), endpoint(2));
        let mut link = Link { chance: seed, loss, under_way: BTreeMap::new(), sent: 0 };
        let mut now = Instant::START;
        let asked = client.request(PEER, request("GET, /x, Observe:0"), now);
        let mut observation = None;
        let mut ready = false;
        let mut next_news = 0;
        let mut due = None;
        let (mut heard, mut ended) = (None, false);
        for turn in 0.. {
            prop_assert!(turn < 200_000, "no end");
            while let Some(event) = server.poll_event() {
                match event {
                    Event::Request { key, .. } => {
                        observation = server.accept_observation(key, response("2.05, 0..200"), now);
                    }
                    Event::Delivered(id) => ready |= Some(id) == observation,
                    // As the gateway does.
                    Event::Undelivered(id) => {
                        server.end_observation(id, now);
                        ended = true;
                    }
                    Event::Deregistered(_) => ended = true,
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Response { id, response: actual, .. } => {
                        prop_assert_eq!(id, asked);
                        let length = actual.payload.len();
                        let from = if next_news == 0 { 0 } else { next_news * 1_000 };
                        // Never a mixture of two.
                        let known = (0..=next_news).any(|number| {
                            let from = number * 1_000;
                            actual.payload == notation::body(from + length)[from..]
                        });
                        prop_assert!(known, "{} bytes from {}", length, from);
                        heard = Some(actual.payload);
                    }
                    Event::Failed { .. } => ended = true,
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            if ready && due.is_none() && next_news < news.len() {
                due = Some(now + Duration::from_millis(news[next_news].1));
            }
            while let Some((_, datagram)) = client.poll_datagram() { link.send(Side::Server, &datagram, now) }
            while let Some((_, datagram)) = server.poll_datagram() { link.send(Side::Client, &datagram, now) }
            let arrival = link.under_way.keys().next().map(|(at, _)| *at);
            let Some(next) = [client.deadline(), server.deadline(), arrival, due].into_iter().flatten().min()
            else { break };
            now = now.max(next);
            client.advance(now);
            server.advance(now);
            if due.is_some_and(|due| due <= now) {
                due = None;
                ready = false;
                let (size, from) = (news[next_news].0, (next_news + 1) * 1_000);
                next_news += 1;
                if let Some(id) = observation {
                    server.notify(id, response(&format!("2.05, {from}..{}", from + size)), now);
                }
            }
            while let Some(entry) = link.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
                match entry.remove() {
                    (Side::Server, datagram) => server.handle(PEER, &datagram, now),
                    (Side::Client, datagram) => client.handle(PEER, &datagram, now),
                }
            }
        }
        prop_assert!(loss > 0 || !ended, "no datagram was lost");
        if !ended {
            prop_assert_eq!(next_news, news.len());
            let (size, from) = (news[next_news - 1].0, next_news * 1_000);
            prop_assert_eq!(heard.as_deref(), Some(&notation::body(from + size)[from..]));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

/// A link that loses, repeats and reorders, by chance from a seed.
struct Link {
    chance: u64,
    /// Of a hundred. Without loss there is no reordering beyond what repeats can mend either.
    loss: u64,
    under_way: BTreeMap<(Instant, u64), (Side, Vec<u8>)>,
    sent: u64,
}

impl Link {
    fn send(&mut self, to: Side, datagram: &[u8], now: Instant) {
        let copies = if self.chance(5) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(100) < self.loss {
                continue;
            }
            let most = if self.loss > 0 && self.chance(20) == 0 { 60_000 } else { 700 };
            let latency = Duration::from_millis(self.chance(most));
            self.sent += 1;
            self.under_way.insert((now + latency, self.sent), (to, datagram.to_vec()));
        }
    }

    fn chance(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        (self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}
