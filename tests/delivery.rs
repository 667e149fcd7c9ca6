//! The ends of notifications and observations, each reported once, as stories in virtual time (RFC 7641 §3.6, §4).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use lowband::coap::ObservationId;
use lowband::endpoint::Endpoint;
use lowband::endpoint::Event;

use support::Story;
use support::endpoint::config;
use support::endpoint::with;

#[test]
fn the_last_block_asked_for_twice_delivers_a_notification_once() {
    let mut story = with(config());
    let observation = told_in_blocks(&mut story);
    // The peer does not hear it, and asks again by another message.
    story.gets(1_500, "CON [MID=3, TOK=0xcc], GET, /7, 2:1/0/1024");
    story.sends(1_500, "ACK [MID=3]");
    story.gets(1_600, "ACK [MID=b]");
    story.sends(1_600, "CON [MID=c, TOK=0xcc], 2.05, ETag:e, 2:1/0/1024, 1024..1500");
    story.reports(1_600, Event::Delivered(observation));
    // An acknowledgement that comes now must not be taken for one of the next notification.
    story.notifies(1_700, observation, "2.05, 0..10");
    story.gets(1_800, "ACK [MID=c]");
    story.sends(1_800, "CON [MID=d, TOK=0xaa], 2.05, Observe:2, 0..10");
    story.sends_nothing(1_900);
    story.gets(1_900, "ACK [MID=d]");
    story.reports(1_900, Event::Delivered(observation));
}

#[test]
fn a_notification_whose_body_gives_way_to_another_is_undelivered_once() {
    let mut config = config();
    config.transfers.bodies = 1;
    let mut story = with(config);
    let observation = registered(&mut story);
    story.notifies(1_000, observation, "2.05, 0..1500");
    let notification = "CON [MID=a, TOK=0xaa], 2.05, ETag:e, Observe:1, 2:0/1/1024, 0..1024";
    story.sends(1_000, notification);
    story.gets(1_000, "CON [MID=2, TOK=0xbb], GET, /8");
    let key = story.is_asked(1_000, "GET, /8");
    story.answers(1_000, key, "2.05, 0..1200");
    story.sends(1_000, "ACK [MID=2, TOK=0xbb], 2.05, ETag:f, 2:0/1/1024, 0..1024");
    story.reports(1_000, Event::Undelivered(observation));
    for at in [3_000, 7_000, 15_000, 31_000] {
        story.sends(at, notification);
    }
    story.sends_nothing(200_000);
}

#[test]
fn a_reset_ends_an_observation_and_all_its_notifications() {
    let mut story = with(config());
    let observation = registered(&mut story);
    story.notifies(1_000, observation, "2.05, 0..10");
    story.notifies(1_000, observation, "2.05, 10..20");
    story.sends(1_000, "CON [MID=a, TOK=0xaa], 2.05, Observe:1, 0..10");
    story.gets(1_500, "RST [MID=a]");
    // The one that waited for its turn is kept back.
    story.reports(1_500, Event::Deregistered(observation));
    story.is_empty(300_000);
}

#[test]
fn of_two_registrations_with_one_token_the_later_one_stays() {
    let mut story = with(config());
    story.gets(0, "CON [MID=1, TOK=0xaa], GET, /7, Observe:0");
    let first = story.is_asked(0, "GET, /7, Observe:0");
    story.gets(0, "CON [MID=2, TOK=0xaa], GET, /7, Observe:0");
    let second = story.is_asked(0, "GET, /7, Observe:0");
    let first = story.accepts(100, first, "2.05, 0..10");
    story.sends(100, "ACK [MID=1]");
    story.sends(100, "CON [MID=a, TOK=0xaa], 2.05, Observe:0, 0..10");
    story.gets(100, "ACK [MID=a]");
    story.reports(100, Event::Delivered(first));
    let second = story.accepts(200, second, "2.05, 0..10");
    story.sends(200, "ACK [MID=2]");
    // RFC 7641 §4.4: the values grow for a token, also where it registers again.
    story.sends(200, "CON [MID=b, TOK=0xaa], 2.05, Observe:1, 0..10");
    story.reports(200, Event::Deregistered(first));
    story.gets(200, "ACK [MID=b]");
    story.reports(200, Event::Delivered(second));
}

/// RFC 7252 §4.4: each end numbers its own messages.
#[test]
fn an_unexpected_response_in_an_acknowledgement_leaves_a_request_of_that_id_alone() {
    let mut story = with(config());
    let observation = registered(&mut story);
    story.notifies(1_000, observation, "2.05, 0..10");
    story.sends(1_000, "CON [MID=a, TOK=0xaa], 2.05, Observe:1, 0..10");
    // The peer's own message has the same id.
    story.gets(1_100, "CON [MID=a, TOK=0xbb], GET, /8");
    let key = story.is_asked(1_100, "GET, /8");
    story.gets(1_200, "ACK [MID=a, TOK=0xcc], 2.05, \"unexpected\"");
    story.reports(1_200, Event::Delivered(observation));
    story.sends_nothing(1_300);
    story.answers(1_300, key, "2.05, 0..10");
    story.sends(1_300, "ACK [MID=a, TOK=0xbb], 2.05, 0..10");
}

/// A peer that has got all blocks, and the answer with the last of them once more after a restart of ours, knows no such token.
#[test]
fn a_reset_of_a_block_asked_for_does_not_end_the_observation() {
    let mut story = with(config());
    let observation = told_in_blocks(&mut story);
    story.gets(1_100, "RST [MID=b]");
    story.reports(1_100, Event::Undelivered(observation));
    story.reports(1_100, Event::Reachable(support::endpoint::PEER.into()));
    story.notifies(1_200, observation, "2.05, 0..10");
    story.sends(1_200, "CON [MID=c, TOK=0xaa], 2.05, Observe:2, 0..10");
    story.gets(1_300, "ACK [MID=c]");
    story.reports(1_300, Event::Delivered(observation));
}

/// An observation of /7 with the token aa, registered, and known to be.
fn registered(story: &mut Story<Endpoint>) -> ObservationId {
    story.gets(0, "CON [MID=1, TOK=0xaa], GET, /7, Observe:0");
    let key = story.is_asked(0, "GET, /7, Observe:0");
    let observation = story.accepts(0, key, "2.05, 0..10");
    story.sends(0, "ACK [MID=1]");
    story.sends(0, "CON [MID=first, TOK=0xaa], 2.05, Observe:0, 0..10");
    story.gets(0, "ACK [MID=first]");
    story.reports(0, Event::Delivered(observation));
    observation
}

/// The same, with a notification of which the peer has asked for the last block.
fn told_in_blocks(story: &mut Story<Endpoint>) -> ObservationId {
    let observation = registered(story);
    story.notifies(1_000, observation, "2.05, 0..1500");
    story.sends(1_000, "CON [MID=a, TOK=0xaa], 2.05, ETag:e, Observe:1, 2:0/1/1024, 0..1024");
    story.gets(1_000, "ACK [MID=a]");
    story.gets(1_000, "CON [MID=2, TOK=0xbb], GET, /7, 2:1/0/1024");
    story.sends(1_000, "ACK [MID=2]");
    story.sends(1_000, "CON [MID=b, TOK=0xbb], 2.05, ETag:e, 2:1/0/1024, 1024..1500");
    observation
}
