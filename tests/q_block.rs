//! Responses in bursts of blocks (RFC 9177, Q-Block2) over a slow link, between two endpoints in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, OptionNumber, Priority, Response};
use lowband::endpoint::{Endpoint, Event};
use lowband::link::End;
use lowband::sim::{Impairments, Outage};

use support::endpoint::{PEER, config, request, with};
use support::notation::body;
use support::pair::{Bursts, Pair, block, over_hf};

/// A story about a server's blocks, which answers with 4,000 bytes.
fn pair(bursts: Bursts) -> Pair {
    pair_with(bursts, Impairments::default())
}

fn pair_with(bursts: Bursts, impairments: Impairments) -> Pair {
    let mut pair = Pair::with(End::Gateway, bursts, impairments);
    pair.answers = answers([4_000]);
    pair
}

/// Answers of so many bytes.
fn answers(bytes: impl IntoIterator<Item = usize>) -> Vec<Response> {
    bytes.into_iter().map(|bytes| answer(body(bytes))).collect()
}

fn answer(body: Vec<u8>) -> Response {
    Response { payload: body.into(), ..Response::new(Code::CONTENT) }
}

impl Pair {
    fn notifies(&mut self, body: Vec<u8>) {
        let observation = self.observation.unwrap();
        self.server.notify(observation, answer(body), Priority::Notification, self.now);
        self.drain();
    }

    /// How often the client asked for something.
    fn requests(&self) -> usize {
        self.sent.iter().filter(|(from, message)| *from == End::Peer && message.code == Code::GET).count()
    }

    /// The blocks of the server's messages, in the order in which they left.
    fn numbers(&self) -> Vec<u32> {
        self.blocks().map(|(number, _)| number).collect()
    }

    /// The one response that came, and when.
    fn is_answered(&mut self, body: &[u8]) -> Duration {
        assert_eq!((self.responses.len(), self.failures.as_slice()), (1, [].as_slice()));
        let (at, response) = self.responses.remove(0);
        assert_eq!(response.payload, body);
        assert!(response.options.get(OptionNumber::SIZE2).is_none(), "{response:?}");
        at.since(Instant::START)
    }
}

#[test]
fn whole_body_comes_in_one_round_trip() {
    let mut pair = pair(Bursts::Both);
    pair.answers = answers([2_500]);
    pair.asks(request("GET, /x"));
    pair.runs(600);
    pair.is_answered(&body(2_500));
    assert_eq!(pair.requests(), 1);
    assert_eq!(pair.numbers(), (0..10).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn the_next_set_is_asked_for_after_ten_blocks() {
    let mut pair = pair(Bursts::Both);
    pair.asks(request("GET, /x"));
    pair.runs(900);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 2);
    assert_eq!(pair.numbers(), (0..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn one_lost_block_is_asked_for_alone() {
    let mut pair = pair(Bursts::Both);
    pair.lost = vec![3];
    pair.asks(request("GET, /x"));
    pair.runs(1_200);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 3);
    assert_eq!(pair.numbers(), (0..10).chain([3]).chain(10..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn several_lost_blocks_are_asked_for_by_one_request() {
    let mut pair = pair(Bursts::Both);
    pair.lost = vec![2, 5, 9];
    pair.asks(request("GET, /x"));
    pair.runs(1_200);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 3);
    assert_eq!(pair.numbers(), (0..10).chain([2, 5, 9]).chain(10..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn the_first_block_may_be_lost_too() {
    let mut pair = pair(Bursts::Both);
    // In the acknowledgement, and in its repeat. The request is done once all the same.
    pair.answers = answers([4_000, 3_000]);
    pair.lost = vec![0, 0, 7];
    pair.asks(request("GET, /x"));
    pair.runs(1_200);
    pair.is_answered(&body(4_000));
    let mut blocks = pair.numbers();
    blocks.sort_unstable();
    assert_eq!(blocks, [0, 0].into_iter().chain(0..8).chain(7..16).collect::<Vec<_>>());
    pair.is_over();
}

#[test]
fn blocks_may_come_in_any_order() {
    let mut pair = pair(Bursts::Both);
    pair.late = Some(6);
    pair.asks(request("GET, /x"));
    pair.runs(900);
    pair.is_answered(&body(4_000));
    assert_eq!(pair.requests(), 2);
    pair.is_over();
}

#[test]
fn a_server_that_refuses_is_asked_by_block2_and_not_tried_again() {
    let mut pair = pair(Bursts::NotTheServer);
    pair.answers = answers([600]);
    pair.asks(request("GET, /x"));
    pair.runs(600);
    pair.is_answered(&body(600));
    assert_eq!(pair.requests(), 4);
    pair.asks(request("GET, /y"));
    pair.runs(600);
    pair.is_answered(&body(600));
    let tried = |(from, message): &&(End, Message)| {
        *from == End::Peer && block(message, OptionNumber::Q_BLOCK2).is_some()
    };
    assert_eq!((pair.requests(), pair.sent.iter().filter(tried).count()), (7, 1));
}

#[test]
fn a_client_that_does_not_wish_for_it_gets_block2() {
    let mut pair = pair(Bursts::NotTheClient);
    pair.asks(request("GET, /x"));
    pair.runs(1_800);
    pair.is_answered(&body(4_000));
    assert_eq!((pair.requests(), pair.numbers()), (16, vec![]));
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
    let mut pair = pair_with(Bursts::Both, Impairments { outages: vec![outage], ..Impairments::default() });
    pair.asks(request("GET, /x"));
    pair.runs(9_000);
    pair.is_answered(&body(4_000));
    pair.is_over();
}

#[test]
fn a_body_that_changes_is_asked_for_anew() {
    let mut pair = pair(Bursts::Both);
    pair.answers = answers([4_000, 3_000]);
    pair.lost = vec![3];
    let address = PEER;
    pair.asks(request("GET, /x"));
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
    let mut pair = pair(Bursts::Both);
    pair.answers = answers([10]);
    let id = pair.asks(request("GET, /7, Observe:0"));
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
        let lasts = pair.blocks().filter(|(number, _)| *number == 15);
        let lasts: Vec<_> = lasts.map(|(_, message)| message.kind).collect();
        assert!(!lasts.is_empty() && lasts.iter().all(|kind| *kind == Kind::Confirmable), "{lasts:?}");
    }
    pair.client.cancel(id, pair.now);
    pair.is_over();
}

#[test]
fn a_notification_to_nobody_is_not_delivered() {
    let mut pair = pair(Bursts::Both);
    pair.answers = answers([10]);
    pair.asks(request("GET, /7, Observe:0"));
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
        let mut pair = pair(bursts);
        pair.asks(request("GET, /x"));
        pair.runs(3_000);
        pair.is_answered(&body(4_000)).as_secs()
    };
    let (with, without) = (seconds(Bursts::Both), seconds(Bursts::NotTheClient));
    println!("4000 bytes over hf-100: {with} s with Q-Block2, {without} s with Block2");
    assert!(with * 4 < without * 3, "{with} {without}");
}
