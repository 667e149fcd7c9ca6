//! What peers and strangers cannot make an endpoint do: keep state without end, send without end, or keep others waiting.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use lowband::coap::{
    Block, BlockSize, Code, Instant, Kind, Message, MessageId, OptionNumber, Options, Priority, RequestError,
    Response,
};
use lowband::endpoint::{Address, Config, Endpoint, Event, Memory, MemoryKey};
use lowband::link::{End, Profile};
use support::endpoint::{OTHER, PEER, config, peer, request, response, with};
use support::notation;

const DAY: u64 = 86_400_000;

/// All built-in links are known, and this is the one of all peers that announce none.
fn over(link: Option<&str>, end: End) -> Config {
    let terms = |profile: Profile| (profile.name.clone(), profile.terms(end));
    let links = Profile::all_built_in().into_iter().map(terms).collect();
    Config { links, link: link.map(str::to_owned), ..config() }
}

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

fn datagram(text: &str) -> Vec<u8> {
    notation::message(text).encode()
}

fn sent(endpoint: &mut Endpoint) -> Vec<(Address, Message)> {
    let datagrams = std::iter::from_fn(|| endpoint.poll_datagram());
    datagrams.map(|(address, datagram)| (address, Message::decode(&datagram).unwrap())).collect()
}

fn events(endpoint: &mut Endpoint) -> Vec<Event> {
    std::iter::from_fn(|| endpoint.poll_event()).collect()
}

/// Answers each request that waits.
fn answer(endpoint: &mut Endpoint, answer: &Response, now: Instant) {
    for event in events(endpoint) {
        if let Event::Request { key, .. } = event {
            endpoint.respond(key, answer.clone(), now);
        }
    }
}

/// Lets time pass until then, and hands on what is sent, and when.
fn pass(
    endpoint: &mut Endpoint,
    until: Instant,
    mut see: impl FnMut(&mut Endpoint, Instant, Address, Message),
) {
    let mut rounds = 0;
    while let Some(due) = endpoint.deadline().filter(|due| *due <= until) {
        endpoint.advance(due);
        for (address, message) in sent(endpoint) {
            see(endpoint, due, address, message);
        }
        rounds += 1;
        assert!(rounds < 10_000, "there is always something more to do at {due:?}");
    }
}

#[test]
fn an_observer_that_has_announced_its_link_may_be_silent_for_days() {
    let mut endpoint = Endpoint::new(over(None, End::Gateway), [7; 32]);
    let mut registration = notation::message("CON [MID=1, TOK=0xaa], GET, /7, Observe:0");
    registration.options.push(OptionNumber::LINK, b"certus-100".to_vec());
    endpoint.handle(PEER, &registration.encode(), at(0));
    let Some(Event::Request { key, .. }) = endpoint.poll_event() else { panic!("no request") };
    let observation = endpoint.accept_observation(key, response("2.05, 0..10"), at(0)).unwrap();
    let acknowledge = |endpoint: &mut Endpoint, now, from, message: Message| {
        if message.kind == Kind::Confirmable {
            endpoint.handle(from, &Message::empty(Kind::Acknowledgement, message.id).encode(), now);
        }
    };
    pass(&mut endpoint, at(3 * DAY), acknowledge);
    assert_eq!(endpoint.link(PEER.into()), Some("certus-100"));
    endpoint.notify(observation, response("2.05, 0..10"), Priority::Notification, at(3 * DAY));
    assert_eq!(sent(&mut endpoint).len(), 1);
    // Once it observes no more, its link is forgotten with it.
    endpoint.end_observation(observation, at(3 * DAY));
    pass(&mut endpoint, at(5 * DAY), |_, _, _, _| {});
    assert_eq!(endpoint.peers(), 0);
}

#[test]
fn what_gives_way_in_a_full_queue_is_tried_again_by_itself() {
    let mut endpoint = Endpoint::new(Config { queued: 1, ..over(Some("hf-100"), End::Gateway) }, [7; 32]);
    let ask = |endpoint: &mut Endpoint, priority, address| {
        endpoint.request_as(priority, address, request("PUT, /9, 0..2"), at(0));
    };
    ask(&mut endpoint, Priority::Message, peer(9));
    ask(&mut endpoint, Priority::Background, PEER);
    ask(&mut endpoint, Priority::Message, OTHER);
    assert_eq!(endpoint.counters().overflowed, 1);
    let mut to_peer = 0;
    pass(&mut endpoint, at(DAY), |_, _, address, _| to_peer += u32::from(address == PEER));
    assert!(to_peer > 0);
    let failed = events(&mut endpoint);
    assert_eq!(failed.len(), 3, "{failed:?}");
    assert!(endpoint.is_settled());
}

#[test]
fn strangers_and_peers_that_have_gone_leave_no_channels() {
    let mut endpoint = Endpoint::new(Config { peers: 2, ..over(Some("sbd"), End::Gateway) }, [7; 32]);
    let channels = |endpoint: &Endpoint| format!("{endpoint:?}").matches("Own(").count();
    for number in 1..1_000_u16 {
        endpoint.handle(peer(number), &datagram("CON [MID=1]"), at(u64::from(number)));
    }
    assert_eq!((endpoint.peers(), channels(&endpoint)), (0, 0));
    for number in 1..1_000_u16 {
        let now = at(u64::from(number) * 10_000);
        endpoint.handle(peer(number), &datagram("CON [MID=1, TOK=0xaa], GET, /x"), now);
        answer(&mut endpoint, &response("2.05"), now);
        endpoint.advance(now);
    }
    // A few may be idle; each is in two maps.
    assert!(channels(&endpoint) < 100, "{}", channels(&endpoint));
}

#[test]
fn a_stranger_that_pings_without_end_keeps_nobody_waiting() {
    let mut endpoint = Endpoint::new(over(Some("hf-100"), End::Gateway), [7; 32]);
    endpoint.request(PEER, request("PUT, /9, 0..2"), at(0));
    endpoint.request(OTHER, request("PUT, /9, 0..2"), at(0));
    for number in 100..600_u16 {
        endpoint.handle(peer(number), &datagram("CON [MID=1]"), at(1));
    }
    let mut first = None;
    pass(&mut endpoint, at(60_000), |_, now, address, _| {
        if address == OTHER {
            first.get_or_insert(now);
        }
    });
    // After the first request's 8 bytes and 28 of headers and the turnaround, not after 500 resets of 2.56 s.
    assert!(first.is_some_and(|first| first < at(10_000)), "{first:?}");
}

#[test]
fn one_peer_that_asks_for_much_takes_turns_with_the_others() {
    let mut endpoint = Endpoint::new(over(Some("hf-100"), End::Gateway), [7; 32]);
    for number in 0..40_u16 {
        let mut ask =
            Message { id: MessageId(number), ..notation::message("CON [MID=1, TOK=0xaa], GET, /x") };
        ask.options.push(OptionNumber::Q_BLOCK2, vec![0x0c]);
        let now = at(u64::from(number) * 4_000);
        endpoint.handle(PEER, &ask.encode(), now);
        answer(
            &mut endpoint,
            &Response { payload: vec![number as u8; 2560].into(), ..Response::new(Code::CONTENT) },
            now,
        );
        endpoint.advance(now);
    }
    assert!(endpoint.queued() > 300);
    let now = at(170_000);
    endpoint.handle(OTHER, &datagram("CON [MID=1, TOK=0xaa], GET, /x"), now);
    answer(&mut endpoint, &response("2.05, 0..10"), now);
    let mut first = None;
    pass(&mut endpoint, at(400_000), |_, now, address, _| {
        if address == OTHER {
            first.get_or_insert(now);
        }
    });
    // After the block on the air, and at most one more.
    assert!(first.is_some_and(|first| first < at(230_000)), "{first:?}");
}

#[test]
fn a_response_without_a_token_and_a_body_is_repeated_like_any_other() {
    let mut story = with(config());
    story.gets(0, "40 03 1234");
    let key = story.is_asked(0, "PUT");
    story.sends(1_000, "60 00 1234");
    story.answers(5_000, key, "2.04");
    story.sends(5_000, "CON [MID=a], 2.04");
    story.sends(7_000, "CON [MID=a], 2.04");
}

#[test]
fn a_peer_whose_answer_does_not_fit_is_told_so_and_an_observation_ends() {
    let mut endpoint = Endpoint::new(over(Some("sbd"), End::Gateway), [7; 32]);
    let long = || {
        let mut response = response("2.05, 0..100");
        response.options.push(OptionNumber::LOCATION_PATH, vec![1; 200]);
        response
    };
    endpoint.handle(PEER, &datagram("CON [MID=1, TOK=0xaa], GET, /x"), at(0));
    answer(&mut endpoint, &long(), at(0));
    let codes = |messages: Vec<(Address, Message)>| -> Vec<_> {
        messages.into_iter().map(|(_, message)| message.code).collect()
    };
    assert_eq!(codes(sent(&mut endpoint)), [Code::INTERNAL_SERVER_ERROR]);

    endpoint.handle(PEER, &datagram("CON [MID=2, TOK=0xab], GET, /7, Observe:0"), at(10_000));
    let Some(Event::Request { key, .. }) = endpoint.poll_event() else { panic!("no request") };
    let observation = endpoint.accept_observation(key, response("2.05"), at(10_000)).unwrap();
    pass(&mut endpoint, at(60_000), |endpoint, now, from, message| {
        if message.kind == Kind::Confirmable {
            endpoint.handle(from, &Message::empty(Kind::Acknowledgement, message.id).encode(), now);
        }
    });
    assert!(matches!(events(&mut endpoint)[..], [Event::Delivered(_)]));
    endpoint.notify(observation, long(), Priority::Notification, at(100_000));
    assert_eq!(codes(sent(&mut endpoint)), [Code::INTERNAL_SERVER_ERROR]);
    assert_eq!(events(&mut endpoint), [Event::Deregistered(observation)]);
    assert_eq!(endpoint.counters().too_long, 2);
}

#[test]
fn memories_for_which_there_is_no_room_are_counted_and_forgotten() {
    let mut memories = BTreeMap::new();
    let mut before = Endpoint::new(Config { durable: true, ..config() }, [8; 32]);
    for number in 1..=5 {
        before.handle(peer(number), &datagram("CON [MID=1, TOK=0xaa], GET, /7, Observe:0"), at(0));
        let Some(Event::Request { key, .. }) = before.poll_event() else { panic!("no request") };
        before.accept_observation(key, response("2.05"), at(0));
    }
    keep(&mut before, &mut memories);
    let kept = memories.len();

    let mut endpoint = Endpoint::new(Config { durable: true, peers: 2, ..config() }, [7; 32]);
    endpoint.recall(memories.clone(), at(10));
    keep(&mut endpoint, &mut memories);
    assert_eq!((endpoint.peers(), endpoint.observations().count()), (2, 2));
    assert_eq!(endpoint.counters().unreadable, u64::try_from(kept - memories.len()).unwrap());
    let of_others = memories.keys().filter(|key| matches!(key, MemoryKey::Observation(_))).count();
    assert_eq!(of_others, 2);
}

/// Takes in what is to be remembered.
fn keep(endpoint: &mut Endpoint, memories: &mut BTreeMap<MemoryKey, Memory>) {
    while let Some((key, memory)) = endpoint.poll_memory() {
        match memory {
            Some(memory) => drop(memories.insert(key, memory)),
            None => drop(memories.remove(&key)),
        }
    }
}

#[test]
fn a_request_with_a_long_answer_is_not_done_again_unless_it_comes_again() {
    let mut memories = BTreeMap::new();
    let mut before = Endpoint::new(Config { durable: true, ..config() }, [7; 32]);
    before.handle(PEER, &datagram("CON [MID=1, TOK=0xaa], POST, /x"), at(0));
    let long = Response { payload: vec![0; 70_000].into(), ..Response::new(Code::CONTENT) };
    answer(&mut before, &long, at(0));
    keep(&mut before, &mut memories);
    let mut endpoint = Endpoint::new(Config { durable: true, ..config() }, [9; 32]);
    endpoint.recall(memories, at(10));
    assert_eq!(events(&mut endpoint), []);
    endpoint.handle(PEER, &datagram("CON [MID=1, TOK=0xaa], POST, /x"), at(20));
    assert!(matches!(events(&mut endpoint)[..], [Event::Request { recalled: false, .. }]));
}

#[test]
fn a_memory_of_a_clock_that_was_ahead_does_not_swallow_what_comes_later() {
    let mut endpoint = Endpoint::new(Config { durable: true, ..config() }, [7; 32]);
    let memory = Memory::Request {
        expires: at(3_650 * DAY),
        message: datagram("CON [MID=1, TOK=0xaa], GET, /x").into(),
        answer: Some(datagram("ACK [MID=1, TOK=0xaa], 2.05, 0..3").into()),
        separate: false,
        binding: None,
    };
    endpoint.recall([(MemoryKey::Request(PEER.into(), 1), memory)], at(0));
    endpoint.handle(PEER, &datagram("CON [MID=1, TOK=0xaa], GET, /x"), at(1_000));
    assert_eq!(sent(&mut endpoint).len(), 1);
    endpoint.advance(at(DAY));
    endpoint.handle(PEER, &datagram("CON [MID=1, TOK=0xbb], PUT, /9, 0..3"), at(DAY));
    assert!(matches!(events(&mut endpoint)[..], [Event::Request { .. }]));
}

#[test]
fn a_peer_that_names_another_link_is_sent_to_at_its_pace() {
    let mut endpoint = Endpoint::new(over(Some("sbd"), End::Gateway), [7; 32]);
    let mut airtime = |id, link: Option<&str>, now| {
        let mut ask = Message { id: MessageId(id), ..notation::message("CON [MID=1, TOK=0xaa], GET, /x") };
        if let Some(link) = link {
            ask.options.push(OptionNumber::LINK, link);
        }
        let before = endpoint.airtime(PEER.into()).unwrap_or_default().sent;
        endpoint.handle(PEER, &ask.encode(), now);
        answer(&mut endpoint, &response("2.05, 0..100"), now);
        endpoint.airtime(PEER.into()).unwrap().sent - before
    };
    let [sbd, certus, again] = [
        airtime(1, None, at(0)),
        airtime(2, Some("certus-100"), at(100_000)),
        airtime(3, Some("sbd"), at(200_000)),
    ];
    let of = |name: &str| {
        let pace = Profile::built_in(name).unwrap().terms(End::Gateway).pace.unwrap();
        pace.sending.of(datagram("ACK [MID=1, TOK=0xaa], 2.05, 0..100").len())
    };
    assert_eq!((sbd, certus, again), (of("sbd"), of("certus-100"), of("sbd")));
}

/// A block of a burst, of 256 bytes of a body of 1,000, as its server may send it.
fn block(number: u32, token: &Message, change: impl FnOnce(&mut Options)) -> Message {
    let mut options = Options::new();
    options.push(OptionNumber::ETAG, vec![1, 2, 3, 4]);
    let block = Block { number, more: number < 3, size: BlockSize::fitting(256) };
    options.push(OptionNumber::Q_BLOCK2, block.encode());
    options.push_uint(OptionNumber::SIZE2, 1_000);
    change(&mut options);
    let (kind, id) = (Kind::NonConfirmable, MessageId(500 + number as u16));
    let payload = vec![number as u8; if number < 3 { 256 } else { 232 }].into();
    Message { kind, code: Code::CONTENT, id, token: token.token, options, payload }
}

/// A request over hf-100 whose answer comes in these blocks, each as it was changed; what becomes of it, and how many datagrams
/// leave in the rest of two days.
fn burst(blocks: impl IntoIterator<Item = (u32, fn(&mut Message))>) -> (Vec<Event>, usize) {
    let mut endpoint = Endpoint::new(over(Some("hf-100"), End::Peer), [7; 32]);
    endpoint.request(PEER, request("GET, /x"), at(0));
    let [(_, asked)] = &sent(&mut endpoint)[..] else { panic!("no request") };
    let mut now = at(30_000);
    for (number, change) in blocks {
        let mut message = block(number, asked, |_| {});
        change(&mut message);
        now = now + Duration::from_secs(25);
        endpoint.handle(PEER, &message.encode(), now);
    }
    let mut datagrams = sent(&mut endpoint).len();
    pass(&mut endpoint, at(2 * DAY), |_, _, _, _| datagrams += 1);
    assert!(endpoint.is_settled());
    assert_eq!(endpoint.peers(), 0);
    (events(&mut endpoint), datagrams)
}

fn as_it_is(_: &mut Message) {}

#[test]
fn a_burst_whose_blocks_come_in_any_order_is_taken_in() {
    let (events, datagrams) =
        burst([(2, as_it_is as fn(&mut Message)), (0, as_it_is), (3, as_it_is), (1, as_it_is)]);
    let [Event::Response { response, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(response.payload.len(), 1_000);
    assert_eq!(datagrams, 0);
}

#[test]
fn a_burst_that_is_not_as_it_must_be_fails_its_request_and_sends_little() {
    for (name, change, error) in [
        ("no Size2", without_size as fn(&mut Message), Some(RequestError::BlocksDiffer)),
        ("no ETag", without_etag, Some(RequestError::BlocksDiffer)),
        ("a Size2 over the limit", of_a_gigabyte, Some(RequestError::TooLarge(config().transfers.body))),
        ("a reserved size", of_no_size, None),
        ("a block of the wrong length", cut_short, None),
        ("a block beyond the end", beyond_the_end, None),
    ] {
        // Alone, and after a block that is as it must be.
        let (events, datagrams) = burst([(0, change)]);
        let [Event::Failed { error: failed, .. }] = &events[..] else { panic!("{name}: {events:?}") };
        assert!(error.is_none_or(|error| *failed == error), "{name}: {failed:?}");
        assert!(datagrams < 40, "{name}: {datagrams}");
        let (events, datagrams) = burst([(0, as_it_is as fn(&mut Message)), (1, change)]);
        assert!(matches!(events[..], [Event::Failed { .. }]), "{name}: {events:?}");
        assert!(datagrams < 40, "{name}: {datagrams}");
    }
}

fn without(message: &mut Message, without: OptionNumber) {
    let kept = message.options.iter().filter(|(number, _)| *number != without);
    message.options = kept.map(|(number, value)| (number, value.to_vec())).collect();
}

fn without_size(message: &mut Message) {
    without(message, OptionNumber::SIZE2);
}

fn without_etag(message: &mut Message) {
    without(message, OptionNumber::ETAG);
}

fn of_a_gigabyte(message: &mut Message) {
    message.options.set(OptionNumber::SIZE2, vec![0x40, 0, 0, 0]);
}

fn of_no_size(message: &mut Message) {
    message.options.set(OptionNumber::Q_BLOCK2, vec![0x1f]);
}

fn cut_short(message: &mut Message) {
    message.payload.truncate(100);
}

fn beyond_the_end(message: &mut Message) {
    message.options.set(OptionNumber::Q_BLOCK2, vec![0x01, 0x0c]);
}

#[test]
fn a_body_that_comes_again_in_other_blocks_is_taken_in_though_its_etag_is_the_same() {
    fn in_halves(message: &mut Message) {
        let number = u32::from(message.id.0 - 500);
        let block = Block { number, more: number < 7, size: BlockSize::fitting(128) };
        message.options.set(OptionNumber::Q_BLOCK2, block.encode());
        message.payload = vec![number as u8; if number < 7 { 128 } else { 104 }].into();
    }
    // The first of the halves only says that it is another body, which is asked for anew.
    let blocks = [(0, as_it_is as fn(&mut Message)), (1, in_halves)].into_iter();
    let again = |message: &mut Message| {
        in_halves(message);
        message.id = MessageId(message.id.0 + 100);
    };
    let (events, _) = burst(blocks.chain((0..8).map(|number| (number, again as fn(&mut Message)))));
    let [Event::Response { response, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(response.payload.len(), 1_000);
}
