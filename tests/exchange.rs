//! Exchanges with one peer as stories in virtual time (RFC 7252 §4, §5.2 and its Appendix A).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use lowband::coap::{
    Answered, Busy, Event, Exchanges, Instant, Kind, Limits, MessageId, Parameters, Priority,
};

use support::exchanges::{
    EXCHANGE_LIFETIME, NON_LIFETIME, ROUND_EXCHANGE_LIFETIME, ROUND_NON_LIFETIME, peer, peer_with, round,
};
use support::{Story, notation};

// RFC 7252 Appendix A, as the server and as the client of each figure.

#[test]
fn figure_16_piggybacked_answer_as_server() {
    let mut peer = peer();
    peer.gets_request(0, "40 01 7d34 bb 74656d7065726174757265");
    peer.user_answers(200, Kind::Confirmable, 0x7d34, "CON [MID=0], 2.05, \"22.3 C\"");
    peer.sends(200, "60 45 7d34 ff 32322e332043");
    peer.is_idle(1_000_000);
}

#[test]
fn figure_17_piggybacked_answer_as_client() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0x20], GET, /temperature");
    peer.sends(0, "CON [MID=a, TOK=0x20], GET, /temperature");
    peer.gets(300, "ACK [MID=a, TOK=0x20], 2.05, \"22.3 C\"");
    peer.reports(300, Event::Acknowledged(asked));
    let Event::Response(response) = peer.reported(300) else { panic!("no response") };
    assert_eq!((response.kind, &response.payload[..]), (Kind::Acknowledgement, &b"22.3 C"[..]));
    peer.is_idle(1_000_000);
}

#[test]
fn figure_18_lost_request_is_repeated() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0x31], GET, /temperature");
    peer.sends(0, "CON [MID=a, TOK=0x31], GET, /temperature");
    peer.sends(2_000, "CON [MID=a, TOK=0x31], GET, /temperature");
    peer.gets(2_100, "ACK [MID=a, TOK=0x31], 2.05, \"22.3 C\"");
    peer.reports(2_100, Event::Acknowledged(asked));
    assert!(matches!(peer.reported(2_100), Event::Response(_)));
    peer.is_idle(1_000_000);
}

#[test]
fn figure_19_lost_answer_is_repeated_for_the_repeated_request() {
    let mut peer = peer();
    peer.gets_request(0, "41 01 7d37 42 bb 74656d7065726174757265");
    peer.user_answers(0, Kind::Confirmable, 0x7d37, "CON [MID=0, TOK=0x42], 2.05, \"22.3 C\"");
    peer.sends(0, "61 45 7d37 42 ff 32322e332043");
    peer.gets(2_500, "41 01 7d37 42 bb 74656d7065726174757265");
    peer.sends(2_500, "61 45 7d37 42 ff 32322e332043");
    peer.is_idle(1_000_000);
}

#[test]
fn figure_20_slow_answer_is_acknowledged_first_and_sent_separately() {
    let mut peer = peer();
    peer.gets_request(0, "CON [MID=0x7d38, TOK=0x53], GET, /temperature");
    peer.sends(1_000, "60 00 7d38");
    let Answered::Confirmable(answer) =
        peer.user_answers(5_000, Kind::Confirmable, 0x7d38, "CON [MID=0, TOK=0x53], 2.05, \"22.3 C\"")
    else {
        panic!("not in a message of its own")
    };
    peer.sends(5_000, "CON [MID=a, TOK=0x53], 2.05, \"22.3 C\"");
    peer.gets(5_500, "ACK [MID=a]");
    peer.reports(5_500, Event::Acknowledged(answer));
    peer.is_idle(1_000_000);
}

#[test]
fn figure_20_as_client_the_separate_answer_is_acknowledged() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0x53], GET, /temperature");
    peer.sends(0, "CON [MID=a, TOK=0x53], GET, /temperature");
    peer.gets(1_000, "ACK [MID=a]");
    peer.reports(1_000, Event::Acknowledged(asked));
    peer.gets(5_000, "CON [MID=0xad7b, TOK=0x53], 2.05, \"22.3 C\"");
    peer.reports(5_000, Event::Response(notation::message("CON [MID=0xad7b, TOK=0x53], 2.05, \"22.3 C\"")));
    peer.does(5_000, |exchanges, _| exchanges.acknowledge(MessageId(0xad7b)));
    peer.sends(5_000, "60 00 ad7b");
    // The acknowledgement was lost.
    peer.gets(7_000, "CON [MID=0xad7b, TOK=0x53], 2.05, \"22.3 C\"");
    peer.sends(7_000, "60 00 ad7b");
    peer.is_idle(1_000_000);
}

#[test]
fn figure_21_answer_to_nothing_is_reset() {
    let mut peer = peer();
    peer.gets(0, "CON [MID=0xad7c, TOK=0x64], 2.05, \"22.3 C\"");
    peer.reports(0, Event::Response(notation::message("CON [MID=0xad7c, TOK=0x64], 2.05, \"22.3 C\"")));
    peer.does(0, |exchanges, _| exchanges.reject(MessageId(0xad7c)));
    peer.sends(0, "70 00 ad7c");
    peer.gets(2_000, "CON [MID=0xad7c, TOK=0x64], 2.05, \"22.3 C\"");
    peer.sends(2_000, "70 00 ad7c");
    peer.is_idle(1_000_000);
}

#[test]
fn figure_21_reset_ends_the_answer() {
    let mut peer = peer();
    peer.gets_request(0, "CON [MID=0x7d39, TOK=0x64], GET, /temperature");
    peer.sends(1_000, "60 00 7d39");
    let Answered::Confirmable(answer) =
        peer.user_answers(5_000, Kind::Confirmable, 0x7d39, "CON [MID=0, TOK=0x64], 2.05, \"22.3 C\"")
    else {
        panic!("not in a message of its own")
    };
    peer.sends(5_000, "CON [MID=a, TOK=0x64], 2.05, \"22.3 C\"");
    peer.gets(5_100, "RST [MID=a]");
    peer.reports(5_100, Event::Reset(answer));
    peer.is_idle(1_000_000);
}

#[test]
fn figure_22_what_comes_unconfirmed_is_answered_unconfirmed() {
    let mut peer = peer();
    peer.gets_request(0, "51 01 7d40 75 bb 74656d7065726174757265");
    let answered =
        peer.user_answers(3_000, Kind::NonConfirmable, 0x7d40, "CON [MID=0, TOK=0x75], 2.05, \"22.3 C\"");
    assert_eq!(answered, Answered::Unconfirmed);
    peer.sends(3_000, "NON [MID=a, TOK=0x75], 2.05, \"22.3 C\"");
    assert_ne!(
        peer.named("a"),
        [0x7d, 0x40],
        "the ids of the two directions have nothing to do with each other"
    );
    peer.is_idle(1_000_000);
}

// RFC 7252 §4.5: duplicates.

#[test]
fn duplicate_of_a_confirmable_request_reaches_nobody() {
    let mut peer = peer();
    peer.gets_request(0, "41 01 1234 aa");
    // While the answer is being made.
    peer.gets(500, "41 01 1234 aa");
    // After the acknowledgement.
    peer.sends(1_000, "60 00 1234");
    peer.gets(2_000, "41 01 1234 aa");
    peer.sends(2_000, "60 00 1234");
    // While the separate answer waits for its acknowledgement.
    let Answered::Confirmable(answer) =
        peer.user_answers(4_000, Kind::Confirmable, 0x1234, "CON [MID=0, TOK=0xaa], 2.05")
    else {
        panic!("not in a message of its own")
    };
    peer.sends(4_000, "CON [MID=a, TOK=0xaa], 2.05");
    peer.gets(4_500, "41 01 1234 aa");
    peer.sends(4_500, "60 00 1234");
    // After all.
    peer.gets(5_000, "ACK [MID=a]");
    peer.reports(5_000, Event::Acknowledged(answer));
    peer.gets(ROUND_EXCHANGE_LIFETIME - 1, "41 01 1234 aa");
    peer.sends(ROUND_EXCHANGE_LIFETIME - 1, "60 00 1234");
    // When the id may be used again.
    peer.gets_request(ROUND_EXCHANGE_LIFETIME, "41 01 1234 aa");
    peer.sends(ROUND_EXCHANGE_LIFETIME + 1_000, "60 00 1234");
    peer.is_idle(1_000_000);
}

#[test]
fn duplicate_of_an_unconfirmed_request_is_silently_ignored() {
    let mut peer = peer();
    peer.gets_request(0, "51 01 1234 aa");
    peer.gets(10, "51 01 1234 aa");
    peer.user_answers(1_000, Kind::NonConfirmable, 0x1234, "CON [MID=0, TOK=0xaa], 2.05");
    peer.sends(1_000, "NON [MID=a, TOK=0xaa], 2.05");
    peer.gets(2_000, "51 01 1234 aa");
    peer.gets(ROUND_NON_LIFETIME - 1, "51 01 1234 aa");
    peer.gets_request(ROUND_NON_LIFETIME, "51 01 1234 aa");
    peer.is_idle(1_000_000);
}

#[test]
fn unconfirmed_message_is_forgotten_in_time_though_an_older_confirmable_one_is_remembered() {
    let mut peer = peer();
    peer.gets_request(0, "41 01 1111 aa");
    peer.sends(1_000, "60 00 1111");
    peer.gets_request(1_000, "51 01 2222 aa");
    peer.gets_request(1_000 + ROUND_NON_LIFETIME, "51 01 2222 aa");
    peer.gets(ROUND_EXCHANGE_LIFETIME - 1, "41 01 1111 aa");
    peer.sends(ROUND_EXCHANGE_LIFETIME - 1, "60 00 1111");
    // The second life of 2222 is a full one.
    peer.gets(1_000 + 2 * ROUND_NON_LIFETIME - 1, "51 01 2222 aa");
    peer.is_idle(1_000_000);
}

#[test]
fn expired_id_is_new_even_before_time_is_let_pass() {
    // A driver that wakes late has the datagram in its hands before it calls advance.
    let mut exchanges = Exchanges::new(Parameters::default(), Limits::default(), 7);
    let at = |ms| Instant::after_start(Duration::from_millis(ms));
    for (text, lifetime) in [("41 01 1234 aa", EXCHANGE_LIFETIME), ("51 01 4321 aa", NON_LIFETIME)] {
        exchanges.receive(notation::message(text), at(0));
        assert_eq!(exchanges.poll_event(), Some(Event::Request(notation::message(text))));
        exchanges.receive(notation::message(text), at(lifetime - 1));
        assert_eq!(exchanges.poll_event(), None);
        exchanges.receive(notation::message(text), at(lifetime));
        assert_eq!(exchanges.poll_event(), Some(Event::Request(notation::message(text))), "{text}");
    }
    exchanges.advance(at(3 * EXCHANGE_LIFETIME));
    while exchanges.poll_datagram().is_some() {}
    assert!(exchanges.is_idle());
}

#[test]
fn same_id_is_no_duplicate_of_what_we_sent() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0xaa], GET");
    peer.sends(0, "CON [MID=a, TOK=0xaa], GET");
    peer.gets(10, "CON [MID=a, TOK=0xbb], PUT");
    assert!(matches!(peer.reported(10), Event::Request(_)));
    let id = u16::from_be_bytes(peer.named("a").try_into().unwrap());
    peer.user_answers(20, Kind::Confirmable, id, "CON [MID=0, TOK=0xbb], 2.04");
    peer.sends(20, "ACK [MID=a, TOK=0xbb], 2.04");
    peer.gets(30, "ACK [MID=a, TOK=0xaa], 2.05");
    peer.reports(30, Event::Acknowledged(asked));
    assert!(matches!(peer.reported(30), Event::Response(_)));
    peer.is_idle(1_000_000);
}

// RFC 7252 §4.2: reliability.

#[test]
fn unanswered_message_is_repeated_four_times_in_doubling_intervals_and_given_up() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0xaa], GET");
    for at in [0, 2_000, 6_000, 14_000, 30_000] {
        peer.sends(at, "CON [MID=a, TOK=0xaa], GET");
    }
    peer.reports(62_000, Event::TimedOut(asked));
    peer.is_idle(1_000_000);
}

#[test]
fn first_timeout_is_between_ack_timeout_and_its_random_multiple() {
    let mut shortest = u64::MAX;
    let mut longest = 0;
    for seed in 0..200 {
        let exchanges = Exchanges::new(Parameters::default(), Limits::default(), seed);
        let mut peer = Story::new(exchanges, ());
        let asked = peer.user_sends(0, "CON [MID=0, TOK=0xaa], GET");
        peer.sends(0, "CON [MID=a, TOK=0xaa], GET");
        let first = peer.sends_between(2_000, 3_000, "CON [MID=a, TOK=0xaa], GET");
        for times in [3, 7, 15] {
            // A millisecond is lost to rounding at each.
            peer.sends_between(times * first, times * (first + 1), "CON [MID=a, TOK=0xaa], GET");
        }
        // MAX_TRANSMIT_WAIT is 93 s.
        peer.reports_between(31 * first, (31 * (first + 1)).min(93_000), Event::TimedOut(asked));
        (shortest, longest) = (shortest.min(first), longest.max(first));
    }
    assert!(shortest < 2_050 && longest > 2_950, "spread over {shortest}..{longest}");
}

#[test]
fn acknowledgement_stops_the_repeats() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0xaa], GET");
    peer.sends(0, "CON [MID=a, TOK=0xaa], GET");
    peer.sends(2_000, "CON [MID=a, TOK=0xaa], GET");
    peer.gets(5_999, "ACK [MID=a]");
    peer.reports(5_999, Event::Acknowledged(asked));
    // And its duplicate is nothing.
    peer.gets(6_500, "ACK [MID=a]");
    peer.is_idle(1_000_000);
}

#[test]
fn reset_stops_the_repeats() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0xaa], GET");
    peer.sends(0, "CON [MID=a, TOK=0xaa], GET");
    peer.gets(100, "RST [MID=a]");
    peer.reports(100, Event::Reset(asked));
    peer.gets(200, "RST [MID=a]");
    peer.is_idle(1_000_000);
}

#[test]
fn answer_of_the_last_repeat_still_counts() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0xaa], GET");
    for at in [0, 2_000, 6_000, 14_000, 30_000] {
        peer.sends(at, "CON [MID=a, TOK=0xaa], GET");
    }
    peer.gets(61_999, "ACK [MID=a]");
    peer.reports(61_999, Event::Acknowledged(asked));
    peer.is_idle(1_000_000);
}

#[test]
fn acknowledgement_and_reset_of_nothing_are_silently_ignored() {
    let mut peer = peer();
    peer.gets(0, "60 00 1234");
    peer.gets(0, "70 00 1234");
    peer.gets(0, "ACK [MID=0x1234, TOK=0xaa], 2.05, \"late\"");
    peer.is_idle(0);
    // Also while another message waits for its own.
    let asked = peer.user_sends(10, "CON [MID=0, TOK=0xaa], GET");
    peer.sends(10, "CON [MID=a, TOK=0xaa], GET");
    let other = u16::from_be_bytes(peer.named("a").try_into().unwrap()).wrapping_add(1);
    peer.gets(20, &format!("60 00 {other:04x}"));
    peer.gets(30, &format!("70 00 {other:04x}"));
    peer.sends(2_010, "CON [MID=a, TOK=0xaa], GET");
    peer.gets(2_020, "ACK [MID=a]");
    peer.reports(2_020, Event::Acknowledged(asked));
}

#[test]
fn empty_confirmable_message_is_a_ping_and_answered_with_a_reset() {
    let mut peer = peer();
    peer.gets(0, "40 00 1234");
    peer.sends(0, "70 00 1234");
    peer.gets(2_000, "40 00 1234");
    peer.sends(2_000, "70 00 1234");
    peer.is_idle(1_000_000);
}

#[test]
fn forgotten_message_is_repeated_no_more_and_nothing_is_reported() {
    let mut peer = peer();
    let first = peer.user_sends(0, "CON [MID=0, TOK=0x01], GET");
    let second = peer.user_sends(0, "CON [MID=0, TOK=0x02], GET");
    let third = peer.user_sends(0, "CON [MID=0, TOK=0x03], GET");
    peer.sends(0, "CON [MID=a, TOK=0x01], GET");
    peer.does(10, |exchanges, now| exchanges.forget(second, now));
    peer.does(20, |exchanges, now| exchanges.forget(first, now));
    peer.sends(20, "CON [MID=b, TOK=0x03], GET");
    peer.gets(30, "ACK [MID=a]");
    peer.gets(40, "ACK [MID=b]");
    peer.reports(40, Event::Acknowledged(third));
    peer.is_idle(1_000_000);
}

// RFC 7252 §4.7: congestion control.

#[test]
fn one_message_at_a_time_in_the_order_they_were_given() {
    let mut peer = peer();
    let first = peer.user_sends(0, "CON [MID=0, TOK=0x01], GET");
    let second = peer.user_sends(0, "CON [MID=0, TOK=0x02], GET");
    peer.sends(0, "CON [MID=a, TOK=0x01], GET");
    let third = peer.user_sends(5, "CON [MID=0, TOK=0x03], GET");
    peer.gets(100, "ACK [MID=a]");
    peer.reports(100, Event::Acknowledged(first));
    peer.sends(100, "CON [MID=b, TOK=0x02], GET");
    peer.gets(200, "RST [MID=b]");
    peer.reports(200, Event::Reset(second));
    for at in [200, 2_200, 6_200, 14_200, 30_200] {
        peer.sends(at, "CON [MID=c, TOK=0x03], GET");
    }
    let fourth = peer.user_sends(40_000, "CON [MID=0, TOK=0x04], GET");
    // The fourth has its turn when the third is given up.
    peer.reports(62_200, Event::TimedOut(third));
    peer.sends(62_200, "CON [MID=d, TOK=0x04], GET");
    peer.gets(62_300, "ACK [MID=d]");
    peer.reports(62_300, Event::Acknowledged(fourth));
    peer.is_idle(1_000_000);
}

#[test]
fn two_messages_at_a_time_with_nstart_2() {
    let mut peer = peer_with(Parameters { nstart: 2, ..round() }, Limits::default());
    let sent: Vec<_> =
        (1..=3).map(|token| peer.user_sends(0, &format!("CON [MID=0, TOK=0x0{token}], GET"))).collect();
    peer.sends(0, "CON [MID=a, TOK=0x01], GET");
    peer.sends(0, "CON [MID=b, TOK=0x02], GET");
    peer.gets(100, "ACK [MID=b]");
    peer.reports(100, Event::Acknowledged(sent[1]));
    peer.sends(100, "CON [MID=c, TOK=0x03], GET");
    peer.gets(200, "ACK [MID=a]");
    peer.reports(200, Event::Acknowledged(sent[0]));
    peer.gets(300, "ACK [MID=c]");
    peer.reports(300, Event::Acknowledged(sent[2]));
    peer.is_idle(1_000_000);
}

#[test]
fn unconfirmed_messages_acknowledgements_and_resets_wait_for_nobody() {
    let mut peer = peer();
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0x01], GET");
    peer.sends(0, "CON [MID=a, TOK=0x01], GET");
    peer.does(10, |exchanges, now| {
        exchanges.send_unconfirmed(notation::message("CON [MID=0, TOK=0x02], GET"), now)
    })
    .unwrap();
    peer.sends(10, "NON [MID=b, TOK=0x02], GET");
    peer.gets_request(20, "41 01 1234 aa");
    peer.user_answers(30, Kind::Confirmable, 0x1234, "CON [MID=0, TOK=0xaa], 2.05");
    peer.sends(30, "61 45 1234 aa");
    peer.gets(40, "40 00 4321");
    peer.sends(40, "70 00 4321");
    peer.gets(50, "ACK [MID=a]");
    peer.reports(50, Event::Acknowledged(asked));
}

#[test]
fn full_queue_is_busy_and_changes_nothing() {
    let mut peer = peer_with(round(), Limits { waiting: 2, ..Limits::default() });
    peer.user_sends(0, "CON [MID=0, TOK=0x01], GET");
    peer.sends(0, "CON [MID=a, TOK=0x01], GET");
    peer.user_sends(0, "CON [MID=0, TOK=0x02], GET");
    peer.user_sends(0, "CON [MID=0, TOK=0x03], GET");
    let busy = peer.does(0, |exchanges, now| {
        exchanges.send(notation::message("CON [MID=0, TOK=0x04], GET"), Priority::Message, now)
    });
    assert_eq!(busy, Err(Busy));
    // What needs no turn goes on.
    peer.gets_request(10, "41 01 1234 aa");
    peer.user_answers(10, Kind::Confirmable, 0x1234, "CON [MID=0, TOK=0xaa], 2.05");
    peer.sends(10, "61 45 1234 aa");
    peer.gets(20, "ACK [MID=a]");
    assert!(matches!(peer.reported(20), Event::Acknowledged(_)));
    peer.sends(20, "CON [MID=b, TOK=0x02], GET");
    peer.user_sends(30, "CON [MID=0, TOK=0x04], GET");
    peer.gets(40, "ACK [MID=b]");
    assert!(matches!(peer.reported(40), Event::Acknowledged(_)));
    peer.sends(40, "CON [MID=c, TOK=0x03], GET");
    peer.gets(50, "ACK [MID=c]");
    assert!(matches!(peer.reported(50), Event::Acknowledged(_)));
    peer.sends(50, "CON [MID=d, TOK=0x04], GET");
}

#[test]
fn nothing_may_wait_and_still_one_message_may_be_under_way() {
    let mut peer = peer_with(round(), Limits { waiting: 0, ..Limits::default() });
    let asked = peer.user_sends(0, "CON [MID=0, TOK=0x01], GET");
    peer.sends(0, "CON [MID=a, TOK=0x01], GET");
    let busy = peer.does(0, |exchanges, now| {
        exchanges.send(notation::message("CON [MID=0, TOK=0x02], GET"), Priority::Message, now)
    });
    assert_eq!(busy, Err(Busy));
    peer.gets(10, "ACK [MID=a]");
    peer.reports(10, Event::Acknowledged(asked));
}
