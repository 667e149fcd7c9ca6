//! Responses in bursts of blocks (RFC 9177, Q-Block2) over a slow link, between two endpoints in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use lowband::coap::{
    Block, Code, Instant, Kind, Message, ObservationId, OptionNumber, Priority, RequestError, Response,
};
use lowband::endpoint::{Config, Endpoint, Event, RequestId};
use lowband::link::{End, Profile};
use lowband::sim::{Channel, Impairments, Outage};

use support::endpoint::{PEER, config, request, with};
use support::notation::body;

/// A client and a server over 100 bit/s by turns, 4 s away from each other.
struct Pair {
    client: Endpoint,
    server: Endpoint,
    channel: Channel,
    now: Instant,
    /// What the server answers to the next request, and to all after it.
    bodies: Vec<Vec<u8>>,
    observation: Option<ObservationId>,
    /// The blocks of the server's that are lost, each once.
    lost: Vec<u32>,
    /// The block that comes after the one after it, once.
    late: Option<u32>,
    held: Option<Vec<u8>>,
    sent: Vec<(End, Message)>,
    responses: Vec<(Instant, Response)>,
    failures: Vec<RequestError>,
    reports: Vec<Event>,
}

/// Who speaks in bursts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bursts {
    Both,
    NotTheServer,
    NotTheClient,
}

fn hf() -> Profile {
    Profile { loss: 0.0, ..Profile::built_in("hf-100").unwrap() }
}

fn over_hf(end: End, bursts: bool) -> Config {
    let mut terms = hf().terms(end);
    assert!(terms.q_block);
    terms.q_block = bursts;
    Config {
        links: BTreeMap::from([("hf-100".to_owned(), terms)]),
        link: Some("hf-100".to_owned()),
        ..config()
    }
}

impl Pair {
    fn new(bursts: Bursts) -> Self {
        Self::with(bursts, Impairments::default())
    }

    fn with(bursts: Bursts, impairments: Impairments) -> Self {
        let client = over_hf(End::Peer, bursts != Bursts::NotTheClient);
        let server = match bursts {
            Bursts::NotTheServer => config(),
            _ => over_hf(End::Gateway, true),
        };
        Self {
            client: Endpoint::new(client, [1; 32]),
            server: Endpoint::new(server, [2; 32]),
            channel: Channel::new(hf(), impairments, 1),
            now: Instant::START,
            bodies: vec![body(4_000)],
            observation: None,
            lost: Vec::new(),
            late: None,
            held: None,
            sent: Vec::new(),
            responses: Vec::new(),
            failures: Vec::new(),
            reports: Vec::new(),
        }
    }

    fn asks(&mut self, text: &str) -> RequestId {
        let id = self.client.request(PEER, request(text), self.now);
        self.drain();
        id
    }

    fn notifies(&mut self, body: Vec<u8>) {
        let response = Response { payload: body.into(), ..Response::new(Code::CONTENT) };
        let observation = self.observation.unwrap();
        self.server.notify(observation, response, Priority::Notification, self.now);
        self.drain();
    }

    /// Lets so many seconds pass.
    fn runs(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let due = [self.client.deadline(), self.server.deadline(), self.channel.deadline()];
            let Some(due) = due.into_iter().flatten().min().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.client.advance(self.now);
            self.server.advance(self.now);
            while let Some(arrival) = self.channel.poll(self.now) {
                self.arrives(arrival.to, arrival.datagram);
            }
            self.drain();
        }
        self.now = end;
    }

    fn arrives(&mut self, to: End, datagram: Vec<u8>) {
        if to == End::Gateway {
            return self.server.handle(PEER, &datagram, self.now);
        }
        let number = Self::block(&Message::decode(&datagram).unwrap());
        if let Some(at) = self.lost.iter().position(|lost| Some(*lost) == number) {
            self.lost.remove(at);
            return;
        }
        if number.is_some() && self.late == number {
            self.late = None;
            self.held = Some(datagram);
            return;
        }
        self.client.handle(PEER, &datagram, self.now);
        if let Some(held) = self.held.take() {
            self.client.handle(PEER, &held, self.now);
        }
    }

    fn block(message: &Message) -> Option<u32> {
        let value = message.options.get(OptionNumber::Q_BLOCK2)?;
        Some(Block::decode(value).unwrap().number)
    }

    fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some((_, datagram)) = self.client.poll_datagram() {
                self.sent.push((End::Peer, Message::decode(&datagram).unwrap()));
                self.channel.send(End::Peer, 1, datagram, self.now);
            }
            while let Some((_, datagram)) = self.server.poll_datagram() {
                self.sent.push((End::Gateway, Message::decode(&datagram).unwrap()));
                self.channel.send(End::Gateway, 1, datagram, self.now);
            }
            while let Some(event) = self.client.poll_event() {
                match event {
                    Event::Response { response, .. } => self.responses.push((self.now, response)),
                    Event::Failed { error, .. } => self.failures.push(error),
                    other => panic!("{other:?}"),
                }
            }
            while let Some(event) = self.server.poll_event() {
                idle = false;
                self.serves(event);
            }
            if idle {
                return;
            }
        }
    }

    fn serves(&mut self, event: Event) {
        let Event::Request { key, request, .. } = event else { return self.reports.push(event) };
        let body = if self.bodies.len() > 1 { self.bodies.remove(0) } else { self.bodies[0].clone() };
        let response = Response { payload: body.into(), ..Response::new(Code::CONTENT) };
        if request.observe.is_some() {
            self.observation = self.server.accept_observation(key, response, self.now);
        } else {
            self.server.respond(key, response, self.now);
        }
    }

    /// How often the client asked for something.
    fn requests(&self) -> usize {
        self.sent.iter().filter(|(from, message)| *from == End::Peer && message.code == Code::GET).count()
    }

    /// The blocks of the server's messages, in the order in which they left.
    fn blocks(&self) -> Vec<u32> {
        self.sent
            .iter()
            .filter(|(from, _)| *from == End::Gateway)
            .filter_map(|(_, message)| Self::block(message))
            .collect()
    }

    /// The one response that came, at this second at the latest.
    fn is_answered(&mut self, body: &[u8]) -> Duration {
        assert_eq!((self.responses.len(), self.failures.as_slice()), (1, [].as_slice()));
        let (at, response) = self.responses.remove(0);
        assert_eq!(response.payload, body);
        assert!(response.options.get(OptionNumber::SIZE2).is_none(), "{response:?}");
        at.since(Instant::START)
    }

    /// Nothing is kept by either end.
    fn is_over(&mut self) {
        self.runs(30 * 3600);
        let held = [&self.client, &self.server].map(|endpoint| (endpoint.peers(), endpoint.queued()));
        assert_eq!(held, [(0, 0), (0, 0)]);
    }
}

#[test]
fn whole_body_comes_in_one_round_trip() {
    let mut pair = Pair::new(Bursts::Both);
    pair.bodies = vec![body(2_500)];
    pair.asks("GET, /x");
    pair.runs(600);
    pair.is_answered(&body(2_500));
    assert_eq!(pair.requests(), 1);
    assert_eq!(pair.blocks(), (0..10).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn the_next_set_is_asked_for_after_ten_blocks() {
    let mut pair = Pair::new(Bursts::Both);
    pair.asks("GET, /x");
    pair.runs(900);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 2);
    assert_eq!(pair.blocks(), (0..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn one_lost_block_is_asked_for_alone() {
    let mut pair = Pair::new(Bursts::Both);
    pair.lost = vec![3];
    pair.asks("GET, /x");
    pair.runs(1_200);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 3);
    assert_eq!(pair.blocks(), (0..10).chain([3]).chain(10..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn several_lost_blocks_are_asked_for_by_one_request() {
    let mut pair = Pair::new(Bursts::Both);
    pair.lost = vec![2, 5, 9];
    pair.asks("GET, /x");
    pair.runs(1_200);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 3);
    assert_eq!(pair.blocks(), (0..10).chain([2, 5, 9]).chain(10..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn the_first_block_may_be_lost_too() {
    let mut pair = Pair::new(Bursts::Both);
    // In the acknowledgement, and in its repeat. The request is done once all the same.
    pair.bodies = vec![body(4_000), body(3_000)];
    pair.lost = vec![0, 0, 7];
    pair.asks("GET, /x");
    pair.runs(1_200);
    pair.is_answered(&body(4_000));
    let mut blocks = pair.blocks();
    blocks.sort_unstable();
    assert_eq!(blocks, [0, 0].into_iter().chain(0..8).chain(7..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn blocks_may_come_in_any_order() {
    let mut pair = Pair::new(Bursts::Both);
    pair.late = Some(6);
    pair.asks("GET, /x");
    pair.runs(900);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 2);
    pair.is_over();
}

#[test]
fn a_server_that_refuses_is_asked_by_block2_and_not_tried_again() {
    let mut pair = Pair::new(Bursts::NotTheServer);
    pair.bodies = vec![body(600)];
    pair.asks("GET, /x");
    pair.runs(600);
    pair.is_answered(&body(600));
    assert_eq!(pair.requests(), 4);
    pair.asks("GET, /y");
    pair.runs(600);
    pair.is_answered(&body(600));
    let tried = |(from, message): &&(End, Message)| *from == End::Peer && Pair::block(message).is_some();
    assert_eq!((pair.requests(), pair.sent.iter().filter(tried).count()), (7, 1));
}

#[test]
fn a_client_that_does_not_wish_for_it_gets_block2() {
    let mut pair = Pair::new(Bursts::NotTheClient);
    pair.asks("GET, /x");
    pair.runs(1_800);
    pair.is_answered(&body(4_000));
    assert_eq!((pair.requests(), pair.blocks()), (16, vec![]));
    pair.is_over();
}

#[test]
fn a_link_without_a_pace_has_no_bursts() {
    let mut server = with(config());
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, opt31:0x08");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.02, \"Q-Block2 (31) is not understood\"");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let mut server = with(over_hf(End::Gateway, true));
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, 2:0/0/16, opt31:0x08");
    server.sends(500, "ACK [MID=1, TOK=0xaa], 4.00, \"Block and Q-Block options in one request\"");
    server.gets(60_000, "CON [MID=2, TOK=0xaa], GET, /x, opt31:0x08, opt31:0x19");
    server.sends(60_500, "ACK [MID=2, TOK=0xaa], 4.00, \"Q-Block2 options do not fit together\"");
    server.gets(120_000, "CON [MID=3, TOK=0xaa], GET, /x, opt31:0x0f");
    server.sends(120_500, "ACK [MID=3, TOK=0xaa], 4.00, \"Q-Block2 options do not fit together\"");
}

#[test]
fn blocks_are_asked_for_by_the_size_that_they_came_in() {
    let mut server = with(over_hf(End::Gateway, true));
    // Of 1024 bytes, where the link has 256.
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, opt31:0x0e");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..600");
    server.sends(500, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e, Size2:600, opt31:0x0c, 0..256");
    server.sends(24_580, "NON [MID=a, TOK=0xaa], 2.05, ETag:e, Size2:600, opt31:0x1c, 256..512");
    server.sends(48_660, "NON [MID=b, TOK=0xaa], 2.05, ETag:e, Size2:600, opt31:0x24, 512..600");
    server.gets(100_000, "CON [MID=2, TOK=0xbb], GET, /x, opt31:0x16");
    server.sends(100_500, "ACK [MID=2, TOK=0xbb], 4.00, \"block is beyond the end of the body\"");
    server.gets(150_000, "CON [MID=3, TOK=0xbb], GET, /x, opt31:0x14");
    server.sends(150_500, "ACK [MID=3, TOK=0xbb], 2.05, ETag:e, Size2:600, opt31:0x1c, 256..512");
}

#[test]
fn the_first_block_without_more_is_that_block_alone() {
    let mut server = with(over_hf(End::Gateway, true));
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, opt31:0x04");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..600");
    server.sends(500, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e, Size2:600, opt31:0x0c, 0..256");
    server.sends_nothing(100_000);
    // What changes something is not done again for a block of what is held no more.
    server.gets(100_000, "CON [MID=2, TOK=0xbb], PUT, /x, opt31:0x04");
    server.sends(100_500, "ACK [MID=2, TOK=0xbb], 4.08, \"the response's body is held no more\"");
}

#[test]
fn a_body_survives_a_link_that_is_gone_for_an_hour() {
    let at = |seconds| Instant::after_start(Duration::from_secs(seconds));
    let outage = Outage { from: at(100), until: at(3_700) };
    let mut pair = Pair::with(Bursts::Both, Impairments { outages: vec![outage], ..Impairments::default() });
    pair.asks("GET, /x");
    pair.runs(9_000);
    pair.is_answered(&body(4_000));
    pair.is_over();
}

#[test]
fn a_body_that_changes_is_asked_for_anew() {
    let mut pair = Pair::new(Bursts::Both);
    pair.bodies = vec![body(4_000), body(3_000)];
    pair.lost = vec![3];
    let address = PEER;
    pair.asks("GET, /x");
    pair.runs(150);
    // The server forgets the body: it is started again.
    pair.server = Endpoint::new(over_hf(End::Gateway, true), [3; 32]);
    pair.runs(2_000);
    pair.is_answered(&body(3_000));
    assert_eq!(pair.client.link(address.into()), Some("hf-100"));
    pair.is_over();
}

#[test]
fn a_notification_is_delivered_when_its_last_block_is_acknowledged() {
    let mut pair = Pair::new(Bursts::Both);
    pair.bodies = vec![body(10)];
    let id = pair.asks("GET, /7, Observe:0");
    pair.runs(100);
    pair.is_answered(&body(10));
    let observation = pair.observation.unwrap();
    assert_eq!(std::mem::take(&mut pair.reports), [Event::Delivered(observation)]);
    for lost in [vec![], vec![0], vec![4], vec![0, 1, 2, 3], vec![8], vec![9], vec![14, 15], vec![9, 15]] {
        let mut news = body(4_000);
        news.extend(format!("{lost:?}").bytes());
        (pair.lost, pair.sent) = (lost.clone(), Vec::new());
        pair.notifies(news.clone());
        while pair.responses.is_empty() {
            assert!(pair.reports.is_empty(), "{lost:?}: {:?}", pair.reports);
            pair.runs(1);
        }
        pair.runs(600);
        pair.is_answered(&news);
        assert_eq!(std::mem::take(&mut pair.reports), [Event::Delivered(observation)], "{lost:?}");
        // The last is sent when it is asked for alone, and confirmed.
        let lasts: Vec<_> = pair
            .sent
            .iter()
            .filter(|(from, message)| *from == End::Gateway && Pair::block(message) == Some(15))
            .map(|(_, message)| message.kind)
            .collect();
        assert!(!lasts.is_empty() && lasts.iter().all(|kind| *kind == Kind::Confirmable), "{lasts:?}");
    }
    pair.client.cancel(id, pair.now);
    pair.is_over();
}

#[test]
fn a_notification_to_nobody_is_not_delivered() {
    let mut pair = Pair::new(Bursts::Both);
    pair.bodies = vec![body(10)];
    pair.asks("GET, /7, Observe:0");
    pair.runs(100);
    let observation = pair.observation.unwrap();
    pair.reports.clear();
    pair.client = Endpoint::new(over_hf(End::Peer, true), [4; 32]);
    pair.lost = (0..16).cycle().take(400).collect();
    pair.notifies(body(4_000));
    pair.runs(4 * 3600);
    assert_eq!(pair.reports, [Event::Undelivered(observation)]);
}

/// `cargo test --test q_block -- --nocapture seconds` prints what docs/links.md says.
#[test]
fn seconds_for_a_body_of_4000_bytes() {
    let seconds = |bursts| {
        let mut pair = Pair::new(bursts);
        pair.asks("GET, /x");
        pair.runs(3_000);
        pair.is_answered(&body(4_000)).as_secs()
    };
    let (with, without) = (seconds(Bursts::Both), seconds(Bursts::NotTheClient));
    println!("4000 bytes over hf-100: {with} s with Q-Block2, {without} s with Block2");
    assert!(with * 4 < without * 3, "{with} {without}");
}
