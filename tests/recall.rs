//! An endpoint that is restarted, with what it said must survive, as stories in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, MessageId, ObservationId};
use lowband::endpoint::{Address, Config, Endpoint, Event, Memory, MemoryKey};
use lowband::link::End;

use support::Story;
use support::endpoint::{PEER, config, peer, request, with};
use support::pair::over_hf;

type Memories = BTreeMap<MemoryKey, Memory>;

fn durable() -> Config {
    Config { durable: true, ..config() }
}

/// One whose peers may send bodies in bursts of blocks.
fn in_bursts() -> Config {
    Config { durable: true, ..over_hf(End::Gateway, true) }
}

/// What has been said since.
fn keep(endpoint: &mut Endpoint, memories: &mut Memories) {
    while let Some((key, memory)) = endpoint.poll_memory() {
        match memory {
            Some(memory) => drop(memories.insert(key, memory)),
            None => drop(memories.remove(&key)),
        }
    }
}

/// The same endpoint after a `kill -9` and a restart at this time, with other chance.
fn restarted(story: Story<Endpoint>, memories: &mut Memories, at: u64) -> Story<Endpoint> {
    restarted_with(durable(), story, memories, at)
}

fn restarted_with(
    config: Config,
    mut story: Story<Endpoint>,
    memories: &mut Memories,
    at: u64,
) -> Story<Endpoint> {
    keep(&mut story.machine, memories);
    let now = Instant::after_start(Duration::from_millis(at));
    let mut endpoint = Endpoint::new(config, [8; 32]);
    endpoint.recall(memories.clone(), now);
    keep(&mut endpoint, memories);
    Story::at(endpoint, PEER, at)
}

#[test]
fn a_repeated_request_gets_the_answer_that_was_given_before_the_restart() {
    let mut story = with(durable());
    story.gets(0, "CON [MID=1, TOK=0xaa], PUT, /9, 0..2");
    let key = story.is_asked(0, "PUT, /9, 0..2");
    story.answers(500, key, "2.04, 0..30");
    story.sends(500, "ACK [MID=1, TOK=0xaa], 2.04, 0..30");
    let mut memories = Memories::new();
    let mut story = restarted(story, &mut memories, 1_000);
    story.gets(2_000, "CON [MID=1, TOK=0xaa], PUT, /9, 0..2");
    story.sends(2_000, "ACK [MID=1, TOK=0xaa], 2.04, 0..30");
    // When its sender has given up long since, nothing is left of it.
    story.sends_nothing(300_000);
    keep(&mut story.machine, &mut memories);
    assert_eq!(memories, Memories::new());
}

#[test]
fn a_request_that_was_not_answered_is_reported_again_and_once() {
    let mut story = with(durable());
    story.gets(0, "CON [MID=1, TOK=0xaa], PUT, /9, 0..2");
    story.is_asked(0, "PUT, /9, 0..2");
    story.sends(1_000, "ACK [MID=1]");
    let mut story = restarted(story, &mut Memories::new(), 1_500);
    let Event::Request { key, request: asked, recalled, .. } = story.reported(1_500) else { panic!() };
    assert_eq!((asked, recalled), (request("PUT, /9, 0..2"), true));
    story.gets(2_000, "CON [MID=1, TOK=0xaa], PUT, /9, 0..2");
    story.answers(2_100, key, "2.04, 0..30");
    story.sends(2_100, "ACK [MID=1, TOK=0xaa], 2.04, 0..30");
}

/// A block of 16 bytes of a body of 40.
fn block(kind: &str, id: u32, number: u32) -> String {
    let (value, from) = (number << 4 | u32::from(number < 2) << 3, number * 16);
    let to = 40.min(from + 16);
    format!(
        "{kind} [MID={id}, TOK=0xaa], PUT, /9, opt19:0x{value:02x}, opt60:0x28, opt292:0x07, {from}..{to}"
    )
}

#[test]
fn a_request_that_came_in_a_burst_is_not_made_again_of_blocks_that_come_after_the_restart() {
    let mut story = with(in_bursts());
    (0..2).for_each(|number| story.gets(u64::from(number) * 1_000, &block("NON", number, number)));
    story.gets(2_000, &block("CON", 2, 2));
    story.is_asked(2_000, "PUT, /9, opt292:0x07, 0..40");
    let mut story = restarted_with(in_bursts(), story, &mut Memories::new(), 3_000);
    let Event::Request { key, request: asked, recalled, .. } = story.reported(3_000) else { panic!() };
    assert_eq!((asked, recalled), (request("PUT, /9, opt292:0x07, 0..40"), true));
    story.gets(4_000, &block("CON", 11, 1));
    story.sends(4_500, "ACK [MID=11]");
    story.gets(10_000, &block("NON", 12, 0));
    story.gets(16_000, &block("NON", 13, 2));
    story.answers(18_000, key, "2.04, \"done\"");
    story.sends(18_000, "ACK [MID=2, TOK=0xaa], 2.04, \"done\"");
    // Nor after another.
    let mut story = restarted_with(in_bursts(), story, &mut Memories::new(), 30_000);
    story.gets(40_000, &block("CON", 14, 1));
    story.sends(40_500, "ACK [MID=14, TOK=0xaa], 2.04, \"done\"");
}

#[test]
fn the_answer_to_a_burst_whose_last_block_was_unconfirmed_is_confirmable_after_the_restart() {
    let mut story = with(in_bursts());
    story.gets(0, &block("CON", 2, 2));
    assert_eq!(Message::decode(&story.sent(500)).unwrap().code, Code::REQUEST_ENTITY_INCOMPLETE);
    (0..2).for_each(|number| story.gets(20_000, &block("NON", number, number)));
    story.is_asked(20_000, "PUT, /9, opt292:0x07, 0..40");
    let mut story = restarted_with(in_bursts(), story, &mut Memories::new(), 21_000);
    let Event::Request { key, .. } = story.reported(21_000) else { panic!() };
    story.answers(22_000, key, "2.04");
    let answer = Message::decode(&story.sent(22_000)).unwrap();
    assert_eq!((answer.kind, answer.code), (Kind::Confirmable, Code::CHANGED));
}

#[test]
fn a_body_in_blocks_goes_on_after_a_restart() {
    let mut story = with(durable());
    story.gets(0, "CON [MID=1, TOK=0xaa], POST, /big");
    let key = story.is_asked(0, "POST, /big");
    story.answers(0, key, "2.04, 0..1500");
    story.sends(0, "ACK [MID=1, TOK=0xaa], 2.04, ETag:e, 2:0/1/1024, 0..1024");
    let etag = story.named("e").to_vec();
    let mut story = restarted(story, &mut Memories::new(), 1_000);
    story.name("e", &etag);
    story.gets(2_000, "CON [MID=2, TOK=0xbb], POST, /big, 2:1/0/1024");
    story.sends(2_000, "ACK [MID=2, TOK=0xbb], 2.04, ETag:e, 2:1/0/1024, 1024..1500");
}

#[test]
fn an_answer_on_its_way_in_a_message_of_its_own_is_sent_again() {
    let mut story = with(durable());
    story.gets(0, "CON [MID=1, TOK=0xaa], POST, /9, 0..2");
    let key = story.is_asked(0, "POST, /9, 0..2");
    story.sends(1_000, "ACK [MID=1]");
    story.answers(1_500, key, "2.04, 0..30");
    story.sends(1_500, "CON [MID=a, TOK=0xaa], 2.04, 0..30");
    let before = id_of(&story);
    let mut story = restarted(story, &mut Memories::new(), 1_600);
    story.sends(1_600, "CON [MID=b, TOK=0xaa], 2.04, 0..30");
    assert_ne!(before, story.named("b"));
    story.gets(2_000, "ACK [MID=b]");
}

fn id_of(story: &Story<Endpoint>) -> Vec<u8> {
    story.named("a").to_vec()
}

#[test]
fn an_observation_goes_on_under_its_number_and_its_last_notification_is_sent_again_as_it_was() {
    let mut story = with(durable());
    let id = observed(&mut story);
    story.notifies(1_000, id, "2.05, 0..20");
    story.sends(1_000, "CON [MID=c, TOK=0xaa], 2.05, Observe:1, 0..20");
    let sequence = story.machine.sequence(id).unwrap();
    assert_eq!(sequence, 1);
    let mut memories = Memories::new();
    let mut story = restarted(story, &mut memories, 1_500);
    let news = support::endpoint::response("2.05, 0..20");
    story.does(1_500, |endpoint, now| endpoint.notify_again(id, news, sequence, now));
    story.sends(1_500, "CON [MID=d, TOK=0xaa], 2.05, Observe:1, 0..20");
    story.gets(1_600, "ACK [MID=d]");
    story.reports(1_600, Event::Delivered(id));
    // What follows is newer than anything that may have been sent before.
    story.notifies(1_700, id, "2.05, 0..30");
    let datagram = story.sent(1_700);
    let message = Message::decode(&datagram).unwrap();
    let observe = message.options.get_uint(lowband::coap::OptionNumber::OBSERVE).unwrap();
    assert!(observe > 100, "{observe}");
    story.gets(1_800, &format!("RST [MID={}]", message.id.0));
    story.reports(1_800, Event::Deregistered(id));
    story.sends_nothing(400_000);
    keep(&mut story.machine, &mut memories);
    assert_eq!(memories, Memories::new());
}

fn observed(story: &mut Story<Endpoint>) -> ObservationId {
    story.gets(0, "CON [MID=1, TOK=0xaa], GET, /7, Observe:0");
    let key = story.is_asked(0, "GET, /7, Observe:0");
    let id = story.accepts(0, key, "2.05, 0..10");
    story.sends(0, "ACK [MID=1]");
    story.sends(0, "CON [MID=b, TOK=0xaa], 2.05, Observe:0, 0..10");
    story.gets(100, "ACK [MID=b]");
    story.reports(100, Event::Delivered(id));
    id
}

#[test]
fn no_message_id_is_used_twice_across_a_thousand_restarts() {
    let mut memories = Memories::new();
    let mut story = with(durable());
    let id = observed(&mut story);
    let mut used: BTreeMap<MessageId, u64> = BTreeMap::new();
    for restart in 0..1_000_u64 {
        let at = 1_000 + restart * 100;
        story = restarted(story, &mut memories, at);
        story.notifies(at, id, "2.05, 0..20");
        let message = Message::decode(&story.sent(at)).unwrap();
        // All 65,536 are there to be used, 256 reserved each time; only those of the last EXCHANGE_LIFETIME matter.
        let before = used.insert(message.id, restart);
        assert!(
            before.is_none_or(|before| restart - before > 200),
            "{:?} in {before:?} and {restart}",
            message.id
        );
        story.gets(at + 10, &format!("ACK [MID={}]", message.id.0));
        story.reports(at + 10, Event::Delivered(id));
    }
    story.does(200_000, |endpoint, now| endpoint.end_observation(id, now));
}

/// The message ID that an endpoint begins with for a new peer.
fn first_id(story: &mut Story<Endpoint>, address: Address) -> MessageId {
    story.with(address).gets(0, "CON [MID=1, TOK=0xaa], GET, /7");
    let key = story.is_asked(0, "GET, /7");
    story.with(address).sends(1_000, "ACK [MID=1]");
    story.answers(1_500, key, "2.05");
    story.with(address).sends(1_500, "CON [MID=first, TOK=0xaa], 2.05");
    story.with(address).gets(1_500, "ACK [MID=first]");
    MessageId(u16::from_be_bytes(story.named("first").try_into().unwrap()))
}

#[test]
fn a_new_peer_begins_with_a_message_id_that_none_of_those_before_the_restart_has_used() {
    // What it would begin with, without them.
    let MessageId(alone) = first_id(&mut Story::at(Endpoint::new(durable(), [8; 32]), PEER, 0), PEER);
    // The second and the third, in the order of their addresses, make it move to where the first is.
    let far = alone.wrapping_add(4_500);
    let next_ids = [far, far.wrapping_sub(514), far.wrapping_sub(257)];
    let memories = (1..).zip(next_ids).map(|(number, next_id)| {
        let address = peer(number);
        let memory = Memory::Peer { next_id, next_sequence: 0, link: None, address };
        let observation = Memory::Observation {
            association: address.into(),
            registration: vec![0x41, 1, 0, 1, 0xaa, 0x60].into(),
            binding: None,
        };
        let id = ObservationId(u64::from(number));
        [(MemoryKey::Peer(address.into()), memory), (MemoryKey::Observation(id), observation)]
    });
    let mut endpoint = Endpoint::new(durable(), [8; 32]);
    endpoint.recall(memories.flatten(), Instant::START);
    assert_eq!((endpoint.peers(), endpoint.counters().unreadable), (3, 0));
    let MessageId(first) = first_id(&mut Story::at(endpoint, PEER, 0), peer(9));
    assert!(next_ids.iter().all(|next| first.wrapping_sub(*next) < 0x8000 && first != *next), "{first}");
}

#[test]
fn a_memory_that_cannot_be_read_is_dropped_and_counted() {
    let mut endpoint = Endpoint::new(durable(), [8; 32]);
    let association = PEER.into();
    let now = Instant::START;
    let request = Memory::Request {
        expires: now + Duration::from_secs(100),
        message: vec![0xff; 3].into(),
        answer: None,
        separate: false,
        binding: None,
    };
    let observation =
        Memory::Observation { association, registration: b"\x40".to_vec().into(), binding: None };
    endpoint.recall(
        [
            (MemoryKey::Request(association, 1), request),
            (MemoryKey::Observation(ObservationId(7)), observation.clone()),
            (MemoryKey::Peer(association), observation),
        ],
        now,
    );
    assert_eq!(endpoint.counters().unreadable, 3);
    let forgotten: Vec<_> = std::iter::from_fn(|| endpoint.poll_memory()).collect();
    assert_eq!(forgotten.iter().filter(|(_, memory)| memory.is_none()).count(), 3);
}
