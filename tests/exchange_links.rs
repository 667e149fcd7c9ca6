//! Exchanges by chance: any order of events, and each other over bad links.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use lowband::coap::{
    Answered, Event, ExchangeId, Exchanges, Instant, Kind, Limits, Message, MessageId, Parameters, Priority,
};

use support::link::{Link, Side};
use support::notation;

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
        let request = || notation::message("CON [MID=0, TOK=0xaa], GET");
        let response = || notation::message("CON [MID=0, TOK=0xaa], 2.05, 0..40");
        for step in steps {
            match step {
                Step::Send => exchanged.extend(exchanges.send(request(), Priority::Message, now)),
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
                    exchanges.receive(notation::message(&format!("{first:02x} {code:02x} {id:04x} {token}")), now);
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
            while let Some(outgoing) = exchanges.poll_datagram() {
                sent.push(MessageId(u16::from_be_bytes([outgoing.datagram[2], outgoing.datagram[3]])));
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
        let mut link = Link::new(seed, loss);
        let parameters = Parameters { nstart, ..Parameters::default() };
        let mut client = Exchanges::new(parameters.clone(), Limits::default(), seed);
        let mut server = Exchanges::new(parameters, Limits::default(), !seed);
        let mut now = Instant::START;
        let mut ends: BTreeMap<ExchangeId, Event> = BTreeMap::new();
        let mut ids = Vec::new();
        for number in 0..requests {
            let request = notation::message(&format!("CON [MID=0, TOK=0x{number:02x}], PUT"));
            ids.push(client.send(request, Priority::Message, now).unwrap());
        }
        let mut delivered = vec![0; requests];
        let mut answered = vec![0; requests];
        let mut answers: BTreeMap<(Instant, usize), (Kind, MessageId)> = BTreeMap::new();
        let mut answers_end: BTreeMap<ExchangeId, usize> = BTreeMap::new();
        let mut answers_arrived = vec![false; requests];
        for turn in 0.. {
            prop_assert!(turn < 10_000, "no end");
            while let Some(outgoing) = client.poll_datagram() { link.send(Side::Server, &outgoing.datagram, now) }
            while let Some(outgoing) = server.poll_datagram() { link.send(Side::Client, &outgoing.datagram, now) }
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
            while let Some(outgoing) = client.poll_datagram() { link.send(Side::Server, &outgoing.datagram, now) }
            let due = answers.keys().next().map(|(at, _)| *at);
            let arrival = link.under_way.keys().next().map(|(at, _)| *at);
            let Some(next) = [client.deadline(), server.deadline(), due, arrival].into_iter().flatten().min()
            else { break };
            now = now.max(next);
            client.advance(now);
            server.advance(now);
            while let Some(entry) = answers.first_entry().filter(|entry| entry.key().0 <= now) {
                let ((_, number), key) = entry.remove_entry();
                let response = notation::message(&format!("CON [MID=0, TOK=0x{number:02x}], 2.04"));
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
