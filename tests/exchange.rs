//! Exchanges with one peer as stories in virtual time (RFC 7252 §4, §5.2 and its Appendix A).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use lowband::coap::{
    Answered, Busy, Event, ExchangeId, Exchanges, Instant, Kind, Limits, Message, MessageId, Parameters,
};

use support::{Machine, Story, notation};

/// EXCHANGE_LIFETIME and NON_LIFETIME (RFC 7252 §4.8.2), in milliseconds.
const EXCHANGE_LIFETIME: u64 = 247_000;
const NON_LIFETIME: u64 = 145_000;
/// With an ACK_RANDOM_FACTOR of 1 the span is 30 s: the times are round.
const ROUND_EXCHANGE_LIFETIME: u64 = 232_000;
const ROUND_NON_LIFETIME: u64 = 130_000;

impl Machine for Exchanges {
    type Address = ();
    type Event = Event;

    fn handle(&mut self, (): (), datagram: &[u8], now: Instant) {
        self.receive(Message::decode(datagram).unwrap(), now);
    }

    fn advance(&mut self, now: Instant) {
        Exchanges::advance(self, now);
    }

    fn deadline(&self) -> Option<Instant> {
        Exchanges::deadline(self)
    }

    fn poll_datagram(&mut self) -> Option<((), Vec<u8>)> {
        Exchanges::poll_datagram(self).map(|datagram| ((), datagram))
    }

    fn poll_event(&mut self) -> Option<Event> {
        Exchanges::poll_event(self)
    }
}

impl Story<Exchanges> {
    /// The user of the exchanges sends a confirmable message; its MID in the text means nothing.
    fn user_sends(&mut self, at: u64, text: &str) -> ExchangeId {
        self.does(at, |exchanges, now| exchanges.send(message(text), now)).unwrap()
    }

    /// The user answers a request.
    fn user_answers(&mut self, at: u64, kind: Kind, id: u16, text: &str) -> Answered {
        self.does(at, |exchanges, now| exchanges.respond((kind, MessageId(id)), message(text), now)).unwrap()
    }

    fn gets_request(&mut self, at: u64, text: &str) {
        self.gets(at, text);
        self.reports(at, Event::Request(message(text)));
    }

    fn is_idle(&mut self, at: u64) {
        self.sends_nothing(at);
        assert!(self.machine.is_idle(), "at {at} ms: {:?}", self.machine);
        assert_eq!(self.machine.deadline(), None, "nothing is to be done at {at} ms");
    }
}

fn message(text: &str) -> Message {
    Message::decode(&notation::datagram(text, &notation::Names::new())).unwrap()
}

/// RFC 7252's parameters, without chance.
fn round() -> Parameters {
    Parameters { ack_random_factor: 1.0, ..Parameters::default() }
}

fn peer_with(parameters: Parameters, limits: Limits) -> Story<Exchanges> {
    Story::new(Exchanges::new(parameters, limits, 7), ())
}

fn peer() -> Story<Exchanges> {
    peer_with(round(), Limits::default())
}

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
    peer.reports(5_000, Event::Response(message("CON [MID=0xad7b, TOK=0x53], 2.05, \"22.3 C\"")));
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
    peer.reports(0, Event::Response(message("CON [MID=0xad7c, TOK=0x64], 2.05, \"22.3 C\"")));
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
        exchanges.receive(message(text), at(0));
        assert_eq!(exchanges.poll_event(), Some(Event::Request(message(text))));
        exchanges.receive(message(text), at(lifetime - 1));
        assert_eq!(exchanges.poll_event(), None);
        exchanges.receive(message(text), at(lifetime));
        assert_eq!(exchanges.poll_event(), Some(Event::Request(message(text))), "{text}");
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
    peer.does(10, |exchanges, now| exchanges.send_unconfirmed(message("CON [MID=0, TOK=0x02], GET"), now))
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
    let busy = peer.does(0, |exchanges, now| exchanges.send(message("CON [MID=0, TOK=0x04], GET"), now));
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
    let busy = peer.does(0, |exchanges, now| exchanges.send(message("CON [MID=0, TOK=0x02], GET"), now));
    assert_eq!(busy, Err(Busy));
    peer.gets(10, "ACK [MID=a]");
    peer.reports(10, Event::Acknowledged(asked));
}

// RFC 7252 §4.4: message IDs.

#[test]
fn no_message_id_is_used_twice_within_the_exchange_lifetime() {
    let request = message("CON [MID=0, TOK=0x01], GET");
    let seed = 7;
    let parameters = Parameters::default();
    let mut exchanges = Exchanges::new(parameters.clone(), Limits::default(), seed);
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
            exchanges.poll_datagram().map(|datagram| {
                let id = u16::from_be_bytes([datagram[2], datagram[3]]);
                let before = used.insert(id, now);
                assert!(
                    before.is_none_or(|before| now - before >= parameters.exchange_lifetime()),
                    "{id:04x} at {before:?} and {now:?}, seed {seed}"
                );
            }),
            sent.ok()
        );
    }
    // As many as there are in each lifetime, but for one run of ids that waits for its last.
    assert_eq!(used.len(), 65_536);
    assert!(refused < 200_000 - 2 * 65_536, "{refused} were refused, seed {seed}");
}

#[test]
fn messages_wait_for_a_free_id_and_no_longer() {
    let mut peer = peer();
    // 65,536 of them, less than a run: then there is none.
    let sent = peer.does(0, |exchanges, now| {
        let mut sent = 0;
        while exchanges.send_unconfirmed(message("CON [MID=0, TOK=0x01], GET"), now).is_ok() {
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
    let first = exchanges.send(message("CON [MID=0, TOK=0x01], GET"), Instant::START).unwrap();
    exchanges.forget(first, Instant::START);
    assert_eq!(exchanges.poll_datagram(), None);
}

#[test]
fn first_message_id_depends_on_the_seed() {
    let first = |seed| {
        let mut exchanges = Exchanges::new(Parameters::default(), Limits::default(), seed);
        exchanges.send(message("CON [MID=0], GET"), Instant::START).unwrap();
        exchanges.poll_datagram().unwrap()[2..4].to_vec()
    };
    let firsts: std::collections::BTreeSet<_> = (0..100).map(first).collect();
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
        exchanges.receive(message(&format!("41 01 {id:04x} aa")), Instant::START);
        while exchanges.poll_event().is_some() {}
        while exchanges.poll_datagram().is_some() {
            acknowledged += 1;
        }
    }
    assert_eq!(acknowledged, 10_000 - 16);
    assert!(format!("{exchanges:?}").len() < 16 * 400, "{} bytes of debug", format!("{exchanges:?}").len());
}

// Deadlines and random peers.

/// What a user and a link may do, in any order.
#[derive(Clone, Debug)]
enum Step {
    Send,
    SendUnconfirmed,
    Receive {
        kind: u8,
        request: bool,
        id: u16,
    },
    Answer(usize),
    AnswerConfirmed(usize),
    Acknowledge(usize),
    Reject(usize),
    Forget(usize),
    /// An acknowledgement or a reset of something that was sent.
    End(usize, bool),
    Wait(u64),
    WaitUntilDue,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Send),
        Just(Step::SendUnconfirmed),
        (0..4_u8, any::<bool>(), 0..40_u16).prop_map(|(kind, request, id)| Step::Receive {
            kind,
            request,
            id
        }),
        any::<usize>().prop_map(Step::Answer),
        any::<usize>().prop_map(Step::AnswerConfirmed),
        any::<usize>().prop_map(Step::Acknowledge),
        any::<usize>().prop_map(Step::Reject),
        any::<usize>().prop_map(Step::Forget),
        (any::<usize>(), any::<bool>()).prop_map(|(at, reset)| Step::End(at, reset)),
        (0..300_000_u64).prop_map(Step::Wait),
        (0..3_000_u64).prop_map(Step::Wait),
        Just(Step::WaitUntilDue),
        Just(Step::WaitUntilDue),
    ]
}

/// One of them, whatever the number.
fn pick<T: Copy>(from: &[T], number: usize) -> Option<T> {
    from.get(number.checked_rem(from.len())?).copied()
}

proptest! {
    /// A driver that sleeps until the deadline never spins, and one that wakes a moment before it has woken for nothing.
    #[test]
    fn advance_at_the_deadline_makes_progress_and_before_it_none(
        steps in prop::collection::vec(step(), 1..80),
        seed in any::<u64>(),
        nstart in 0..3_usize,
    ) {
        let limits = Limits { remembered: 8, remembered_bytes: 200, waiting: 4 };
        let mut exchanges = Exchanges::new(Parameters { nstart, ..Parameters::default() }, limits, seed);
        let mut now = Instant::START;
        let (mut sent, mut asked, mut exchanged) = (Vec::new(), Vec::new(), Vec::new());
        let request = || message("CON [MID=0, TOK=0xaa], GET");
        let response = || message("CON [MID=0, TOK=0xaa], 2.05, 0..40");
        for step in steps {
            match step {
                Step::Send => exchanged.extend(exchanges.send(request(), now)),
                Step::SendUnconfirmed => exchanges.send_unconfirmed(request(), now).unwrap(),
                Step::Receive { kind, request, id } => {
                    let (first, code) = match (kind, request) {
                        (0, true) => (0x41, 1),
                        (0, false) => (0x41, 0x45),
                        (1, true) => (0x51, 1),
                        (1, false) => (0x51, 0x45),
                        (2, _) => (0x61, 0x45),
                        _ => (0x70, 0),
                    };
                    let token = if first & 1 == 1 { "aa" } else { "" };
                    exchanges.receive(message(&format!("{first:02x} {code:02x} {id:04x} {token}")), now);
                }
                Step::Answer(at) => if let Some((kind, id)) = pick(&asked, at) {
                    exchanged.extend(match exchanges.respond((kind, id), response(), now) {
                        Ok(Answered::Confirmable(exchange)) => Some(exchange),
                        _ => None,
                    });
                },
                Step::AnswerConfirmed(at) => if let Some(key) = pick(&asked, at) {
                    exchanged.extend(exchanges.respond_confirmed(key, response(), now));
                },
                Step::Acknowledge(at) => if let Some((_, id)) = pick(&asked, at) { exchanges.acknowledge(id) },
                Step::Reject(at) => if let Some((_, id)) = pick(&asked, at) { exchanges.reject(id) },
                Step::Forget(at) => if let Some(exchange) = pick(&exchanged, at) {
                    exchanges.forget(exchange, now);
                },
                Step::End(at, reset) => if let Some(id) = pick(&sent, at) {
                    let kind = if reset { Kind::Reset } else { Kind::Acknowledgement };
                    exchanges.receive(Message::empty(kind, id), now);
                },
                Step::Wait(ms) => now = now + Duration::from_millis(ms),
                Step::WaitUntilDue => now = exchanges.deadline().unwrap_or(now).max(now),
            }
            // A nanosecond before, nothing is due.
            if let Some(due) = exchanges.deadline() && due > now {
                while exchanges.poll_datagram().is_some() || exchanges.poll_event().is_some() {}
                exchanges.advance(due - Duration::from_nanos(1));
                prop_assert_eq!(exchanges.poll_datagram(), None, "before {:?}", due);
                prop_assert_eq!(exchanges.poll_event(), None, "before {:?}", due);
                prop_assert_eq!(exchanges.deadline(), Some(due));
            }
            let mut turns = 0;
            while exchanges.deadline().is_some_and(|due| due <= now) {
                exchanges.advance(now);
                turns += 1;
                prop_assert!(turns < 8, "a busy loop at {:?}: {:?}", now, exchanges);
            }
            while let Some(datagram) = exchanges.poll_datagram() {
                sent.push(MessageId(u16::from_be_bytes([datagram[2], datagram[3]])));
            }
            while let Some(event) = exchanges.poll_event() {
                if let Event::Request(message) | Event::Response(message) = event {
                    asked.push((message.kind, message.id));
                }
            }
        }
        // Left alone, all of it ends.
        let mut turns = 0;
        while let Some(due) = exchanges.deadline() {
            now = now.max(due);
            exchanges.advance(now);
            while exchanges.poll_datagram().is_some() || exchanges.poll_event().is_some() {}
            turns += 1;
            prop_assert!(turns < 200, "no end: {:?}", exchanges);
        }
        prop_assert!(exchanges.is_idle());
    }

    /// Two peers over a link that loses, repeats and reorders.
    #[test]
    fn each_request_arrives_at_most_once_and_ends(
        seed in any::<u64>(),
        loss in 0..60_u64,
        requests in 1..12_usize,
        nstart in 1..4_usize,
        slowness in 0..4_000_u64,
    ) {
        let mut link = Link { chance: seed | 1, loss, under_way: BTreeMap::new(), sent: 0 };
        let parameters = Parameters { nstart, ..Parameters::default() };
        let mut client = Exchanges::new(parameters.clone(), Limits::default(), seed);
        let mut server = Exchanges::new(parameters, Limits::default(), !seed);
        let mut now = Instant::START;
        let mut ends: BTreeMap<ExchangeId, Event> = BTreeMap::new();
        let mut ids = Vec::new();
        for number in 0..requests {
            let request = message(&format!("CON [MID=0, TOK=0x{number:02x}], PUT"));
            ids.push(client.send(request, now).unwrap());
        }
        let mut delivered = vec![0; requests];
        let mut answered = vec![0; requests];
        let mut answers: BTreeMap<(Instant, usize), (Kind, MessageId)> = BTreeMap::new();
        let mut answers_end: BTreeMap<ExchangeId, usize> = BTreeMap::new();
        let mut answers_arrived = vec![false; requests];
        for turn in 0.. {
            prop_assert!(turn < 10_000, "no end");
            while let Some(datagram) = client.poll_datagram() { link.send(Side::Server, &datagram, now) }
            while let Some(datagram) = server.poll_datagram() { link.send(Side::Client, &datagram, now) }
            while let Some(event) = server.poll_event() {
                match event {
                    Event::Request(request) => {
                        let number = usize::from(request.token.as_slice()[0]);
                        delivered[number] += 1;
                        let delay = Duration::from_millis(link.chance(slowness + 1));
                        answers.insert((now + delay, number), (request.kind, request.id));
                    }
                    Event::Acknowledged(exchange) => {
                        let number = answers_end.remove(&exchange);
                        prop_assert!(number.is_some_and(|number| answered[number] == 1), "an answer nobody has");
                    }
                    Event::TimedOut(exchange) => prop_assert!(answers_end.remove(&exchange).is_some()),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Response(response) => {
                        let number = usize::from(response.token.as_slice()[0]);
                        answered[number] += 1;
                        answers_arrived[number] = true;
                        if response.kind == Kind::Confirmable { client.acknowledge(response.id) }
                    }
                    Event::Acknowledged(id) | Event::TimedOut(id) => {
                        prop_assert!(ends.insert(id, event).is_none(), "two ends")
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            while let Some(datagram) = client.poll_datagram() { link.send(Side::Server, &datagram, now) }
            let due = answers.keys().next().map(|(at, _)| *at);
            let arrival = link.under_way.keys().next().map(|(at, _)| *at);
            let Some(next) = [client.deadline(), server.deadline(), due, arrival].into_iter().flatten().min()
            else { break };
            now = now.max(next);
            client.advance(now);
            server.advance(now);
            while let Some(entry) = answers.first_entry().filter(|entry| entry.key().0 <= now) {
                let ((_, number), key) = entry.remove_entry();
                let response = message(&format!("CON [MID=0, TOK=0x{number:02x}], 2.04"));
                if let Answered::Confirmable(exchange) = server.respond(key, response, now).unwrap() {
                    answers_end.insert(exchange, number);
                }
            }
            while let Some(entry) = link.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
                match entry.remove() {
                    (Side::Server, datagram) => server.receive(Message::decode(&datagram).unwrap(), now),
                    (Side::Client, datagram) => client.receive(Message::decode(&datagram).unwrap(), now),
                }
            }
        }
        prop_assert!(client.is_idle() && server.is_idle());
        prop_assert!(answers_end.is_empty(), "an answer has no end");
        for (number, id) in ids.iter().enumerate() {
            prop_assert!(delivered[number] <= 1, "request {} arrived {} times", number, delivered[number]);
            prop_assert!(answered[number] <= 1, "answer {} arrived {} times", number, answered[number]);
            match ends.get(id) {
                Some(Event::Acknowledged(_)) => prop_assert_eq!(delivered[number], 1),
                Some(Event::TimedOut(_)) => {}
                other => prop_assert!(false, "request {} ended with {:?}", number, other),
            }
            if loss == 0 {
                prop_assert_eq!((delivered[number], answered[number]), (1, 1));
            }
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
    /// Of a hundred.
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
            // Nearly always quick, sometimes as late as MAX_LATENCY allows.
            let most = if self.chance(20) == 0 { 100_000 } else { 700 };
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
