//! An endpoint's whole behaviour towards its peers, as stories in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use lowband::coap::{Instant, OptionNumber, RequestError};
use lowband::endpoint::{Address, Config, Endpoint, Event};

use support::endpoint::{OTHER, PEER, config, peer, with};
use support::notation;

// Requests and answers.

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let mut server = with(config());
    let elsewhere = Address { local: (Ipv4Addr::new(192, 0, 2, 253), 5683).into(), ..PEER };
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
    assert_eq!(server.machine.counters().bad_options, 8);
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
