//! Endpoints by chance: noise, and each other over bad links.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use lowband::coap::{BlockSize, Instant, OptionNumber, Priority};
use lowband::endpoint::{Config, Endpoint, Event};

use support::endpoint::{PEER, config, peer, request, response};
use support::link::{Link, Side};
use support::notation;

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
                2 | 3 => observations.iter().for_each(|id| endpoint.notify(*id, response("2.05, 0..40"), Priority::Notification, now)),
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
        let mut link = Link::new(seed, loss);
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
        let mut link = Link::new(seed, loss);
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
                    Event::Reachable(_) => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Response { id, response: actual, .. } => {
                        prop_assert_eq!(id, asked);
                        // A block of a body that was given up is asked for anew, and may lie beyond the end of the one that is
                        // there now: a clear error, which is the last that is heard.
                        if !actual.code.is_success() {
                            ended = true;
                            continue;
                        }
                        let length = actual.payload.len();
                        // Never a mixture of two.
                        let known = (0..=next_news).any(|number| {
                            let from = number * 1_000;
                            actual.payload == notation::body(from + length)[from..]
                        });
                        prop_assert!(known, "{} bytes of nothing that was sent", length);
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
                    server.notify(id, response(&format!("2.05, {from}..{}", from + size)), Priority::Notification, now);
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
