//! Observations as stories in virtual time (RFC 7641; RFC 7959 §2.6 for large notifications).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use lowband::coap::RequestError;
use lowband::endpoint::Event;

use support::Story;
use support::endpoint::{config, with, with_blocks};
use support::figure::Figure;

#[test]
fn figures_of_rfc_7641_as_client() {
    let figures = Figure::all("rfc7641");
    assert_eq!(figures.iter().map(Figure::play_as_client).count(), 2);
}

/// RFC 7641 §3.4, but for the time.
fn is_newer(story: &Story<lowband::endpoint::Endpoint>, than: &str, number: &str) -> bool {
    let read = |name| story.named(name).iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let (v1, v2) = (read(than), read(number));
    v1 < v2 && v2 - v1 < 1 << 23 || v1 > v2 && v1 - v2 > 1 << 23
}

// The server's side (§4).

#[test]
fn registration_and_notifications_are_confirmed() {
    let mut server = with(config());
    server.gets(0, "CON [MID=1, TOK=0x4a], GET, /temperature, Observe:0");
    let key = server.is_asked(0, "GET, /temperature, Observe:0");
    let id = server.accepts(100, key, "2.05, Max-Age:15, \"18.5 Cel\"");
    // Its arrival is to be known, so it comes separately at once.
    server.sends(100, "ACK [MID=1]");
    server.sends(100, "CON [MID=a, TOK=0x4a], 2.05, Observe:o1, Max-Age:15, \"18.5 Cel\"");
    server.gets(200, "ACK [MID=a]");
    server.reports(200, Event::Delivered(id));
    server.notifies(20_000, id, "2.05, Max-Age:15, \"19.2 Cel\"");
    server.sends(20_000, "CON [MID=b, TOK=0x4a], 2.05, Observe:o2, Max-Age:15, \"19.2 Cel\"");
    server.gets(20_100, "ACK [MID=b]");
    server.reports(20_100, Event::Delivered(id));
    server.notifies(3_000_000, id, "2.05, \"19.7 Cel\"");
    server.sends(3_000_000, "CON [MID=c, TOK=0x4a], 2.05, Observe:o3, \"19.7 Cel\"");
    server.gets(3_000_100, "ACK [MID=c]");
    server.reports(3_000_100, Event::Delivered(id));
    assert!(is_newer(&server, "o1", "o2") && is_newer(&server, "o2", "o3"));
    server.sends_nothing(10_000_000);
    assert_eq!(server.machine.peers(), 1, "an observer is kept however long it is silent");
}

#[test]
fn slow_registration_is_acknowledged_in_time() {
    let mut server = with(config());
    server.gets(0, "CON [MID=1, TOK=0x4a], GET, /x, Observe:0");
    let key = server.is_asked(0, "GET, /x, Observe:0");
    server.sends(1_000, "ACK [MID=1]");
    server.gets(2_000, "CON [MID=1, TOK=0x4a], GET, /x, Observe:0");
    server.sends(2_000, "ACK [MID=1]");
    let id = server.accepts(5_000, key, "2.05, \"a\"");
    server.sends(5_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:0, \"a\"");
    server.sends(7_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:0, \"a\"");
    server.gets(7_100, "ACK [MID=a]");
    server.reports(7_100, Event::Delivered(id));
}

#[test]
fn unconfirmed_registration_is_answered_confirmably() {
    let mut server = with(config());
    server.gets(0, "NON [MID=1, TOK=0x4a], GET, /x, Observe:0");
    let key = server.is_asked(0, "GET, /x, Observe:0");
    let id = server.accepts(0, key, "2.05, \"a\"");
    server.sends(0, "CON [MID=a, TOK=0x4a], 2.05, Observe:0, \"a\"");
    server.gets(10, "ACK [MID=a]");
    server.reports(10, Event::Delivered(id));
}

#[test]
fn registration_that_fails_is_a_plain_answer() {
    let mut server = with(config());
    server.gets(0, "CON [MID=1, TOK=0x4a], GET, /x, Observe:0");
    let key = server.is_asked(0, "GET, /x, Observe:0");
    let accepted = server
        .does(0, |endpoint, now| endpoint.accept_observation(key, support::endpoint::response("4.01"), now));
    assert_eq!(accepted, None);
    server.sends(0, "ACK [MID=1, TOK=0x4a], 4.01");
    server.is_empty(1_000_000);
}

#[test]
fn one_registration_too_many_is_answered_and_not_registered() {
    // §4.1: a server that cannot add the client answers without Observe.
    let mut server = with(lowband::endpoint::Config { observations: 1, ..config() });
    server.gets(0, "CON [MID=1, TOK=0x01], GET, /x, Observe:0");
    let key = server.is_asked(0, "GET, /x, Observe:0");
    let id = server.accepts(0, key, "2.05, \"a\"");
    server.sends(0, "ACK [MID=1]");
    server.sends(0, "CON [MID=a, TOK=0x01], 2.05, Observe:0, \"a\"");
    server.gets(10, "ACK [MID=a]");
    server.reports(10, Event::Delivered(id));
    server.gets(20, "CON [MID=2, TOK=0x02], GET, /y, Observe:0");
    let key = server.is_asked(20, "GET, /y, Observe:0");
    let accepted = server.does(20, |endpoint, now| {
        endpoint.accept_observation(key, support::endpoint::response("2.05, \"b\""), now)
    });
    assert_eq!(accepted, None);
    server.sends(20, "ACK [MID=2, TOK=0x02], 2.05, \"b\"");
    // The first goes on; registered again it takes its own place.
    server.gets(30, "CON [MID=3, TOK=0x01], GET, /x, Observe:0");
    server.reports(30, Event::Deregistered(id));
    let key = server.is_asked(30, "GET, /x, Observe:0");
    let id = server.accepts(30, key, "2.05, \"c\"");
    server.sends(30, "ACK [MID=3]");
    server.sends(30, "CON [MID=b, TOK=0x01], 2.05, Observe:o, \"c\"");
    server.gets(40, "ACK [MID=b]");
    server.reports(40, Event::Delivered(id));
}

/// A server with an observation of `/x` by the token 4a, at 100 ms.
fn observed(
    mut server: Story<lowband::endpoint::Endpoint>,
) -> (Story<lowband::endpoint::Endpoint>, lowband::coap::ObservationId) {
    server.gets(0, "CON [MID=1, TOK=0x4a], GET, /x, Observe:0");
    let key = server.is_asked(0, "GET, /x, Observe:0");
    let id = server.accepts(0, key, "2.05, \"first\"");
    server.sends(0, "ACK [MID=1]");
    server.sends(0, "CON [MID=first, TOK=0x4a], 2.05, Observe:o1, \"first\"");
    server.gets(100, "ACK [MID=first]");
    server.reports(100, Event::Delivered(id));
    (server, id)
}

#[test]
fn reset_of_a_notification_ends_the_observation() {
    // §3.6.
    let (mut server, id) = observed(with(config()));
    server.notifies(1_000, id, "2.05, \"second\"");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:o2, \"second\"");
    server.gets(1_100, "RST [MID=a]");
    server.reports(1_100, Event::Deregistered(id));
    server.notifies(1_200, id, "2.05, \"third\"");
    server.is_empty(1_000_000);
}

#[test]
fn reset_of_a_notification_takes_back_those_that_wait() {
    let (mut server, id) = observed(with(config()));
    server.notifies(1_000, id, "2.05, \"second\"");
    server.notifies(1_000, id, "2.05, \"third\"");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:o2, \"second\"");
    server.gets(1_100, "RST [MID=a]");
    server.reports(1_100, Event::Deregistered(id));
    server.is_empty(1_000_000);
}

#[test]
fn late_reset_of_an_acknowledged_notification_is_nothing() {
    let (mut server, id) = observed(with(config()));
    server.gets(200, "RST [MID=first]");
    server.notifies(1_000, id, "2.05, \"second\"");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:o2, \"second\"");
    server.gets(1_100, "ACK [MID=a]");
    server.reports(1_100, Event::Delivered(id));
}

#[test]
fn get_with_observe_1_ends_the_observation_of_its_token() {
    // §3.6.
    let (mut server, id) = observed(with(config()));
    // Of another token: nothing ends.
    server.gets(500, "CON [MID=2, TOK=0x4b], GET, /x, Observe:1");
    let key = server.is_asked(500, "GET, /x, Observe:1");
    server.answers(500, key, "2.05, \"now\"");
    server.sends(500, "ACK [MID=2, TOK=0x4b], 2.05, \"now\"");
    server.gets(1_000, "CON [MID=3, TOK=0x4a], GET, /x, Observe:1");
    server.reports(1_000, Event::Deregistered(id));
    let key = server.is_asked(1_000, "GET, /x, Observe:1");
    server.answers(1_000, key, "2.05, \"last\"");
    server.sends(1_000, "ACK [MID=3, TOK=0x4a], 2.05, \"last\"");
    server.notifies(1_200, id, "2.05, \"more\"");
    server.is_empty(1_000_000);
}

#[test]
fn deregistration_takes_back_the_notification_under_way() {
    let (mut server, id) = observed(with(config()));
    server.notifies(1_000, id, "2.05, \"second\"");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:o2, \"second\"");
    server.gets(1_500, "CON [MID=2, TOK=0x4a], GET, /x, Observe:1, No-Response:26");
    server.reports(1_500, Event::Deregistered(id));
    let key = server.is_asked(1_500, "GET, /x, Observe:1, No-Response:26");
    server.answers(1_500, key, "2.05, \"last\"");
    // RFC 7967: no response is wanted, and the acknowledgement is owed all the same.
    server.sends(1_500, "ACK [MID=2]");
    server.is_empty(1_000_000);
}

#[test]
fn registration_again_replaces_the_observation_and_its_numbers_go_on() {
    // §4.1: one entry for each token. §4.4: to the client it is the same observation, so its numbers must go on growing.
    let (mut server, first) = observed(with(config()));
    for (at, mid) in [(1_000, "a"), (2_000, "b")] {
        server.notifies(at, first, "2.05, \"more\"");
        server.sends(at, &format!("CON [MID={mid}, TOK=0x4a], 2.05, Observe:o{mid}, \"more\""));
        server.gets(at + 10, &format!("ACK [MID={mid}]"));
        server.reports(at + 10, Event::Delivered(first));
    }
    server.gets(3_000, "CON [MID=2, TOK=0x4a], GET, /x, Observe:0");
    server.reports(3_000, Event::Deregistered(first));
    let key = server.is_asked(3_000, "GET, /x, Observe:0");
    let second = server.accepts(3_000, key, "2.05, \"again\"");
    assert_ne!(first, second);
    server.sends(3_000, "ACK [MID=2]");
    server.sends(3_000, "CON [MID=c, TOK=0x4a], 2.05, Observe:oc, \"again\"");
    server.gets(3_100, "ACK [MID=c]");
    server.reports(3_100, Event::Delivered(second));
    server.notifies(4_000, first, "2.05, \"of the first\"");
    server.notifies(4_000, second, "2.05, \"of the second\"");
    server.sends(4_000, "CON [MID=d, TOK=0x4a], 2.05, Observe:od, \"of the second\"");
    server.gets(4_100, "ACK [MID=d]");
    server.reports(4_100, Event::Delivered(second));
    for (older, newer) in [("o1", "oa"), ("oa", "ob"), ("ob", "oc"), ("oc", "od")] {
        assert!(
            is_newer(&server, older, newer),
            "{older} {:?}, {newer} {:?}",
            server.named(older),
            server.named(newer)
        );
    }
}

#[test]
fn observations_of_two_tokens_are_independent() {
    let (mut server, first) = observed(with(config()));
    server.gets(200, "CON [MID=2, TOK=0x4b], GET, /x, Observe:0");
    let key = server.is_asked(200, "GET, /x, Observe:0");
    let second = server.accepts(200, key, "2.05, \"first\"");
    server.sends(200, "ACK [MID=2]");
    server.sends(200, "CON [MID=a, TOK=0x4b], 2.05, Observe:p1, \"first\"");
    server.gets(210, "ACK [MID=a]");
    server.reports(210, Event::Delivered(second));
    server.notifies(1_000, first, "2.05, \"one\"");
    server.notifies(1_000, second, "2.05, \"two\"");
    server.sends(1_000, "CON [MID=b, TOK=0x4a], 2.05, Observe:o2, \"one\"");
    server.gets(1_100, "RST [MID=b]");
    server.reports(1_100, Event::Deregistered(first));
    server.sends(1_100, "CON [MID=c, TOK=0x4b], 2.05, Observe:p2, \"two\"");
    server.gets(1_200, "ACK [MID=c]");
    server.reports(1_200, Event::Delivered(second));
}

#[test]
fn notification_that_is_not_acknowledged_is_reported() {
    let (mut server, id) = observed(with(config()));
    server.notifies(10_000, id, "2.05, \"second\"");
    for at in [0, 2_000, 6_000, 14_000, 30_000] {
        server.sends(10_000 + at, "CON [MID=a, TOK=0x4a], 2.05, Observe:o2, \"second\"");
    }
    server.reports(72_000, Event::Undelivered(id));
    // §4.5: such a client is no longer interested; whoever uses the endpoint ends it.
    server.does(72_000, |endpoint, now| endpoint.end_observation(id, now));
    server.is_empty(1_000_000);
}

#[test]
fn notification_that_finds_too_many_waiting_is_undelivered() {
    let mut config = config();
    config.exchanges.waiting = 1;
    let mut server = with(config);
    server.gets(0, "CON [MID=1, TOK=0x4a], GET, /x, Observe:0");
    let key = server.is_asked(0, "GET, /x, Observe:0");
    let id = server.accepts(0, key, "2.05, \"a\"");
    server.sends(0, "ACK [MID=1]");
    server.sends(0, "CON [MID=a, TOK=0x4a], 2.05, Observe:0, \"a\"");
    server.notifies(10, id, "2.05, \"b\"");
    server.notifies(20, id, "2.05, \"c\"");
    server.reports(20, Event::Undelivered(id));
    assert_eq!(server.machine.counters().answers_dropped, 1);
    // A registration whose answer finds none is reported the same way.
    server.gets(30, "CON [MID=2, TOK=0x4b], GET, /x, Observe:0");
    let key = server.is_asked(30, "GET, /x, Observe:0");
    let other = server.accepts(30, key, "2.05, \"c\"");
    server.sends(30, "ACK [MID=2]");
    server.reports(30, Event::Undelivered(other));
    server.gets(40, "ACK [MID=a]");
    server.sends(40, "CON [MID=b, TOK=0x4a], 2.05, Observe:1, \"b\"");
    server.reports(40, Event::Delivered(id));
}

#[test]
fn ended_observation_sends_nothing_more() {
    let (mut server, id) = observed(with(config()));
    server.notifies(1_000, id, "2.05, \"second\"");
    server.notifies(1_000, id, "2.05, \"third\"");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:o2, \"second\"");
    server.does(1_500, |endpoint, now| endpoint.end_observation(id, now));
    server.gets(1_600, "ACK [MID=a]");
    server.is_empty(1_000_000);
}

#[test]
fn error_is_the_last_notification_and_has_no_observe() {
    // §4.2.
    let (mut server, id) = observed(with(config()));
    server.notifies(1_000, id, "4.04, \"gone\"");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 4.04, \"gone\"");
    server.sends(3_000, "CON [MID=a, TOK=0x4a], 4.04, \"gone\"");
    server.gets(3_100, "ACK [MID=a]");
    server.notifies(4_000, id, "2.05, \"back\"");
    server.is_empty(1_000_000);
}

#[test]
fn error_overtakes_the_notification_that_it_makes_old() {
    let (mut server, id) = observed(with(config()));
    server.notifies(1_000, id, "2.05, \"second\"");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, Observe:o2, \"second\"");
    server.notifies(2_000, id, "4.04, \"gone\"");
    server.sends(2_000, "CON [MID=b, TOK=0x4a], 4.04, \"gone\"");
    server.gets(2_100, "ACK [MID=b]");
    server.is_empty(1_000_000);
}

#[test]
fn large_notification_is_fetched_by_blocks_of_exactly_what_was_pushed() {
    // RFC 7959 §2.6, Figure 12: the later blocks are asked for with another token and without Observe.
    let (mut server, id) = observed(with_blocks(128));
    server.notifies(1_000, id, "2.05, 0..309");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, ETag:e, Observe:o2, 2:0/1/128, 0..128");
    server.gets(1_100, "ACK [MID=a]");
    server.gets(1_100, "CON [MID=0x1637, TOK=0xfc], GET, /x, 2:1/0/128");
    server.sends(1_100, "ACK [MID=0x1637, TOK=0xfc], 2.05, ETag:e, 2:1/1/128, 128..256");
    // The last tells that all has arrived, so it is confirmed.
    server.gets(1_200, "CON [MID=0x1638, TOK=0xfc], GET, /x, 2:2/0/128");
    server.sends(1_200, "ACK [MID=0x1638]");
    server.sends(1_200, "CON [MID=b, TOK=0xfc], 2.05, ETag:e, 2:2/0/128, 256..309");
    server.gets(1_300, "ACK [MID=b]");
    server.reports(1_300, Event::Delivered(id));
    // Asked again, it is there still; and delivered once.
    server.gets(1_400, "CON [MID=0x1639, TOK=0xfc], GET, /x, 2:2/0/128");
    server.sends(1_400, "ACK [MID=0x1639, TOK=0xfc], 2.05, ETag:e, 2:2/0/128, 256..309");
    server.sends_nothing(1_000_000);
}

#[test]
fn large_answer_to_a_registration_is_fetched_the_same_way() {
    let mut server = with_blocks(1024);
    server.gets(0, "CON [MID=1, TOK=0x4a], GET, /x, Observe:0, 2:0/0/64");
    let key = server.is_asked(0, "GET, /x, Observe:0");
    let id = server.accepts(0, key, "2.05, 0..100");
    // Its last block will tell of its arrival, so the first need not.
    server.sends(0, "ACK [MID=1, TOK=0x4a], 2.05, ETag:e, Observe:o1, 2:0/1/64, 0..64");
    server.gets(20, "CON [MID=2, TOK=0x4b], GET, /x, 2:1/0/64");
    server.sends(20, "ACK [MID=2]");
    server.sends(20, "CON [MID=b, TOK=0x4b], 2.05, ETag:e, 2:1/0/64, 64..100");
    server.gets(30, "ACK [MID=b]");
    server.reports(30, Event::Delivered(id));
    // The size that the registration proposed holds for its notifications (Figure 13).
    server.notifies(1_000, id, "2.05, 200..300");
    server.sends(1_000, "CON [MID=c, TOK=0x4a], 2.05, ETag:f, Observe:o2, 2:0/1/64, 200..264");
    server.gets(1_010, "ACK [MID=c]");
    // A client that asks for the whole gets the pushed body too.
    server.gets(1_020, "CON [MID=3, TOK=0x4c], GET, /x, 2:0/0/64");
    server.sends(1_020, "ACK [MID=3, TOK=0x4c], 2.05, ETag:f, 2:0/1/64, 200..264");
    server.gets(1_030, "CON [MID=4, TOK=0x4c], GET, /x, 2:1/0/64");
    server.sends(1_030, "ACK [MID=4]");
    server.sends(1_030, "CON [MID=d, TOK=0x4c], 2.05, ETag:f, 2:1/0/64, 264..300");
    server.gets(1_040, "ACK [MID=d]");
    server.reports(1_040, Event::Delivered(id));
}

#[test]
fn large_notification_that_is_not_fetched_is_reported() {
    let (mut server, id) = observed(with_blocks(64));
    server.notifies(1_000, id, "2.05, 0..150");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, ETag:e, Observe:o2, 2:0/1/64, 0..64");
    server.gets(1_100, "ACK [MID=a]");
    server.gets(2_000, "CON [MID=2, TOK=0xfc], GET, /x, 2:1/0/64");
    server.sends(2_000, "ACK [MID=2, TOK=0xfc], 2.05, ETag:e, 2:1/1/64, 64..128");
    server.reports(249_000, Event::Undelivered(id));
}

#[test]
fn reset_of_a_large_notification_drops_its_body() {
    let (mut server, id) = observed(with_blocks(64));
    server.notifies(1_000, id, "2.05, 0..150");
    server.sends(1_000, "CON [MID=a, TOK=0x4a], 2.05, ETag:e, Observe:o2, 2:0/1/64, 0..64");
    server.gets(1_100, "RST [MID=a]");
    server.reports(1_100, Event::Deregistered(id));
    server.gets(1_200, "CON [MID=2, TOK=0xfc], GET, /x");
    let key = server.is_asked(1_200, "GET, /x");
    server.answers(1_200, key, "2.05, \"other\"");
    server.sends(1_200, "ACK [MID=2, TOK=0xfc], 2.05, \"other\"");
    server.is_empty(1_000_000);
}

// The client's side (§3).

/// A client that observes `/x` since 10 ms, with the token t.
fn observing() -> (Story<lowband::endpoint::Endpoint>, lowband::endpoint::RequestId) {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x, Observe:0");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x, Observe:0");
    client.gets(10, "ACK [MID=a, TOK=t], 2.05, Observe:10, \"first\"");
    client.is_notified(10, id, "2.05, \"first\"");
    (client, id)
}

#[test]
fn observation_waits_for_its_next_notification_however_long() {
    let (mut client, id) = observing();
    client.sends_nothing(100_000_000);
    client.gets(100_000_000, "CON [MID=1, TOK=t], 2.05, Observe:11, \"second\"");
    client.sends(100_000_000, "ACK [MID=1]");
    client.is_notified(100_000_000, id, "2.05, \"second\"");
    client.gets(100_000_100, "NON [MID=2, TOK=t], 2.05, Observe:12, \"third\"");
    client.is_notified(100_000_100, id, "2.05, \"third\"");
}

#[test]
fn overtaken_and_repeated_notifications_are_acknowledged_and_not_used() {
    // §3.4.
    let (mut client, id) = observing();
    client.gets(1_000, "CON [MID=1, TOK=t], 2.05, Observe:12, \"third\"");
    client.sends(1_000, "ACK [MID=1]");
    client.is_notified(1_000, id, "2.05, \"third\"");
    // The one before, late.
    client.gets(1_100, "CON [MID=2, TOK=t], 2.05, Observe:11, \"second\"");
    client.sends(1_100, "ACK [MID=2]");
    // The same again: as a message, and as a number.
    client.gets(1_200, "CON [MID=1, TOK=t], 2.05, Observe:12, \"third\"");
    client.sends(1_200, "ACK [MID=1]");
    client.gets(1_300, "CON [MID=3, TOK=t], 2.05, Observe:12, \"third\"");
    client.sends(1_300, "ACK [MID=3]");
    // More than 128 s later the numbers mean nothing.
    client.gets(129_001, "CON [MID=4, TOK=t], 2.05, Observe:3, \"new\"");
    client.sends(129_001, "ACK [MID=4]");
    client.is_notified(129_001, id, "2.05, \"new\"");
}

#[test]
fn numbers_begin_again_after_24_bits() {
    let (mut client, id) = observing();
    for (at, number) in [(200_000, 16_777_214), (200_010, 16_777_215), (200_020, 0), (200_030, 1)] {
        client
            .gets(at, &format!("NON [MID={}, TOK=t], 2.05, Observe:{number}, \"{number}\"", number & 0xffff));
        client.is_notified(at, id, &format!("2.05, \"{number}\""));
    }
    client.gets(200_040, "NON [MID=77, TOK=t], 2.05, Observe:16777215, \"old\"");
    client.sends_nothing(200_050);
}

#[test]
fn cancelled_observation_is_deregistered_and_its_notifications_reset() {
    let (mut client, id) = observing();
    client.does(1_000, |endpoint, now| endpoint.cancel(id, now));
    client.sends(1_000, "CON [MID=b, TOK=t], GET, /x, Observe:1, No-Response:26");
    client.gets(1_100, "ACK [MID=b]");
    client.gets(1_200, "CON [MID=1, TOK=t], 2.05, Observe:11, \"second\"");
    client.sends(1_200, "RST [MID=1]");
    client.gets(1_300, "NON [MID=2, TOK=t], 2.05, Observe:12, \"third\"");
    client.is_empty(1_000_000);
}

#[test]
fn deregistration_goes_on_where_a_server_answers_it_all_the_same() {
    let (mut client, id) = observing();
    client.does(1_000, |endpoint, now| endpoint.cancel(id, now));
    client.sends(1_000, "CON [MID=b, TOK=t], GET, /x, Observe:1, No-Response:26");
    client.gets(1_100, "ACK [MID=b, TOK=t], 2.05, \"last\"");
    client.is_empty(1_000_000);
}

#[test]
fn observation_cancelled_before_its_answer_is_repeated_no_more() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x, Observe:0");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x, Observe:0");
    client.does(1_000, |endpoint, now| endpoint.cancel(id, now));
    client.sends_nothing(5_000);
    // The server had it, and gets a reset.
    client.gets(5_000, "CON [MID=1, TOK=t], 2.05, Observe:11, \"first\"");
    client.sends(5_000, "RST [MID=1]");
    client.is_empty(1_000_000);
}

#[test]
fn answer_without_observe_is_the_only_one() {
    // §3.1: the server does not register.
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x, Observe:0");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x, Observe:0");
    client.gets(10, "ACK [MID=a, TOK=t], 2.05, \"only\"");
    client.is_answered(10, id, "2.05, \"only\"");
    client.gets(20, "CON [MID=1, TOK=t], 2.05, Observe:11, \"more\"");
    client.sends(20, "RST [MID=1]");
    client.is_empty(1_000_000);
}

#[test]
fn notification_without_observe_and_error_are_the_last() {
    // §3.2.
    for last in ["2.05, \"last\"", "4.04, \"gone\"", "5.03, Max-Age:30"] {
        let (mut client, id) = observing();
        client.gets(1_000, &format!("CON [MID=1, TOK=t], {last}"));
        client.sends(1_000, "ACK [MID=1]");
        client.is_answered(1_000, id, last);
        client.gets(1_100, "CON [MID=2, TOK=t], 2.05, Observe:20, \"more\"");
        client.sends(1_100, "RST [MID=2]");
        client.is_empty(1_000_000);
    }
}

#[test]
fn registration_that_times_out_fails() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x, Observe:0");
    for at in [0, 2_000, 6_000, 14_000, 30_000] {
        client.sends(at, "CON [MID=a, TOK=t], GET, /x, Observe:0");
    }
    client.fails(62_000, id, RequestError::Timeout);
    client.is_empty(1_000_000);
}

#[test]
fn newer_notification_takes_the_place_of_one_that_is_being_fetched() {
    let (mut client, id) = observing();
    client.gets(1_000, "CON [MID=1, TOK=t], 2.05, ETag:0x01, Observe:11, 2:0/1/64, 0..64");
    client.sends(1_000, "ACK [MID=1]");
    client.sends(1_000, "CON [MID=b, TOK=u], GET, /x, 2:1/0/64");
    client.gets(1_100, "CON [MID=2, TOK=t], 2.05, Observe:12, \"newer\"");
    client.sends(1_100, "ACK [MID=2]");
    client.is_notified(1_100, id, "2.05, \"newer\"");
    // What was asked for still comes, and is of no use.
    client.gets(1_200, "ACK [MID=b, TOK=u], 2.05, ETag:0x01, 2:1/0/64, 64..100");
    client.gets(2_000, "CON [MID=3, TOK=t], 2.05, ETag:0x02, Observe:13, 2:0/1/64, 100..164");
    client.sends(2_000, "ACK [MID=3]");
    client.sends(2_000, "CON [MID=c, TOK=v], GET, /x, 2:1/0/64");
    client.gets(2_100, "ACK [MID=c, TOK=v], 2.05, ETag:0x02, 2:1/0/64, 164..200");
    client.is_notified(2_100, id, "2.05, ETag:0x02, 100..200");
}

#[test]
fn blocks_of_a_newer_notification_are_asked_for_at_once_and_those_of_the_older_one_no_more() {
    let (mut client, id) = observing();
    client.gets(1_000, "CON [MID=1, TOK=t], 2.05, ETag:0x01, Observe:11, 2:0/1/64, 0..64");
    client.sends(1_000, "ACK [MID=1]");
    client.sends(1_000, "CON [MID=b, TOK=u], GET, /x, 2:1/0/64");
    client.gets(1_500, "CON [MID=2, TOK=t], 2.05, ETag:0x02, Observe:12, 2:0/1/64, 100..164");
    client.sends(1_500, "ACK [MID=2]");
    client.sends(1_500, "CON [MID=c, TOK=v], GET, /x, 2:1/0/64");
    client.gets(3_400, "ACK [MID=c, TOK=v], 2.05, ETag:0x02, 2:1/0/64, 164..200");
    client.is_notified(3_400, id, "2.05, ETag:0x02, 100..200");
    client.sends_nothing(100_000);
}

#[test]
fn token_of_an_observation_is_not_given_to_others() {
    let (mut client, _) = observing();
    let observed = client.named("t").to_vec();
    for at in 0..50 {
        let id = client.asks(1_000 + at * 10, "GET, /y");
        client.sends(1_000 + at * 10, &format!("CON [MID=m{at}, TOK=t{at}], GET, /y"));
        assert_ne!(client.named(&format!("t{at}")), observed);
        client.gets(1_005 + at * 10, &format!("ACK [MID=m{at}, TOK=t{at}], 2.05"));
        client.is_answered(1_005 + at * 10, id, "2.05");
    }
}
