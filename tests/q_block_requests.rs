//! Requests in bursts of blocks (RFC 9177, Q-Block1) over a slow link, between two endpoints in virtual time.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, OptionNumber, Request, Response, TransferLimits};
use lowband::endpoint;
use lowband::endpoint::Endpoint;
use lowband::link::End;
use lowband::sim::{Channel, Impairments, Outage};

use support::endpoint::{config, request, with};
use support::notation::body;
use support::pair::{Bursts, Pair, hf, over_hf};

/// A story about a client's blocks, whose server answers with 10 bytes.
fn pair(bursts: Bursts) -> Pair {
    answering(Pair::new(End::Peer, bursts))
}

fn pair_of(client: endpoint::Config, server: endpoint::Config, impairments: Impairments, seed: u64) -> Pair {
    answering(Pair::of(End::Peer, client, server, impairments, seed))
}

fn answering(mut pair: Pair) -> Pair {
    pair.answers = vec![Response { payload: body(10).into(), ..Response::new(Code::CHANGED) }];
    pair
}

/// The same, after a first short request in blocks: the client knows that the server knows of bursts.
fn acquainted() -> Pair {
    let mut pair = pair(Bursts::Both);
    pair.asks(put("/first", body(300)));
    pair.runs(600);
    assert_eq!((pair.responses.len(), pair.delivered.len()), (1, 1));
    pair.responses.clear();
    pair.delivered.clear();
    pair.sent.clear();
    pair
}

fn put(path: &str, body: Vec<u8>) -> Request {
    Request { payload: body.into(), ..request(&format!("PUT, {path}, CF:60")) }
}

impl Pair {
    /// The blocks of the client's messages, in the order in which they left, and whether each was confirmable.
    fn bursts(&self) -> Vec<(u32, bool)> {
        self.blocks().map(|(number, message)| (number, message.kind == Kind::Confirmable)).collect()
    }

    /// What the server said between the blocks.
    fn says(&self) -> Vec<(Code, Kind)> {
        let between = [Code::CONTINUE, Code::REQUEST_ENTITY_INCOMPLETE];
        self.sent
            .iter()
            .filter(|(from, message)| *from == End::Gateway && between.contains(&message.code))
            .map(|(_, message)| (message.code, message.kind))
            .collect()
    }

    /// The one request that came, and its answer; when that was there.
    fn is_done(&mut self, body: &[u8]) -> Duration {
        assert_eq!((self.failures.as_slice(), self.reports.as_slice()), ([].as_slice(), [].as_slice()));
        assert_eq!((self.delivered.len(), self.responses.len()), (1, 1));
        let request = self.delivered.remove(0);
        assert_eq!(request.payload, body);
        let of_transfer = [OptionNumber::Q_BLOCK1, OptionNumber::BLOCK1, OptionNumber::SIZE1];
        assert!(of_transfer.iter().all(|number| request.options.get(*number).is_none()), "{request:?}");
        assert_eq!(request.options.get_uint(OptionNumber::CONTENT_FORMAT), Some(60));
        let (at, response) = self.responses.remove(0);
        let answer = &self.answers[0];
        assert_eq!((response.code, &response.payload), (answer.code, &answer.payload));
        at.since(Instant::START)
    }

    /// All of these requests have ended, and none was done twice.
    fn each_is_done_once_at_most(&self, requests: usize) {
        assert_eq!(self.responses.len() + self.failures.len(), requests);
        let path = |request: &Request| request.options.get(OptionNumber::URI_PATH).map(<[u8]>::to_vec);
        let mut paths: Vec<_> = self.delivered.iter().map(path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), self.delivered.len());
        assert!(self.delivered.len() >= self.responses.len());
        for request in &self.delivered {
            assert_eq!(request.payload, body(request.payload.len()));
        }
    }
}

/// These blocks, of which the last is confirmable.
fn burst(numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, bool)> {
    let mut blocks: Vec<_> = numbers.into_iter().map(|number| (number, false)).collect();
    if let Some(last) = blocks.last_mut() {
        last.1 = true;
    }
    blocks
}

const ASKED_ON: (Code, Kind) = (Code::CONTINUE, Kind::Acknowledgement);
const ASKED_AGAIN: (Code, Kind) = (Code::REQUEST_ENTITY_INCOMPLETE, Kind::Acknowledgement);

#[test]
fn the_first_block_asks_whether_the_peer_knows_of_bursts() {
    let mut pair = pair(Bursts::Both);
    pair.asks(put("/x", body(2_500)));
    pair.runs(900);
    pair.is_done(&body(2_500));
    assert_eq!(pair.bursts(), [burst([0]), burst(1..10)].concat());
    assert_eq!(pair.says(), [ASKED_ON]);
    pair.is_over();
}

#[test]
fn later_bodies_go_in_one_round_trip() {
    let mut pair = acquainted();
    pair.asks(put("/x", body(2_500)));
    pair.runs(900);
    pair.is_done(&body(2_500));
    assert_eq!((pair.bursts(), pair.says()), (burst(0..10), vec![]));
    pair.is_over();
}

#[test]
fn who_was_answered_in_bursts_knows_too() {
    let mut pair = pair(Bursts::Both);
    pair.answers[0] = Response { payload: body(600).into(), ..Response::new(Code::CONTENT) };
    pair.asks(request("GET, /x"));
    pair.runs(600);
    pair.answers[0].payload = body(10).into();
    pair.delivered.clear();
    pair.responses.clear();
    pair.asks(put("/x", body(600)));
    pair.runs(600);
    pair.is_done(&body(600));
    assert_eq!(pair.bursts(), burst(0..3));
}

#[test]
fn every_block_has_what_belongs_to_all_of_them() {
    let mut pair = acquainted();
    pair.asks(put("/x", body(2_500)));
    pair.asks(put("/x", body(2_500)));
    pair.runs(1_500);
    assert_eq!((pair.delivered.len(), pair.responses.len()), (2, 2));
    let mut tags = Vec::new();
    for (_, message) in pair.blocks() {
        assert_eq!(message.options.get_uint(OptionNumber::SIZE1), Some(2_500));
        assert!(message.options.get(OptionNumber::BLOCK2).is_none(), "{message:?}");
        tags.push(message.options.get(OptionNumber::REQUEST_TAG).unwrap().to_vec());
    }
    assert_eq!(tags.len(), 20);
    tags.dedup();
    assert_eq!(tags.len(), 2);
}

#[test]
fn the_next_set_follows_when_the_first_is_there() {
    let mut pair = acquainted();
    pair.asks(put("/x", body(6_000)));
    pair.runs(1_500);
    pair.is_done(&body(6_000));
    assert_eq!(pair.bursts(), [burst(0..10), burst(10..20), burst(20..24)].concat());
    assert_eq!(pair.says(), [ASKED_ON, ASKED_ON]);
    pair.is_over();
}

#[test]
fn what_is_lost_is_sent_again_and_nothing_else() {
    for lost in [vec![0], vec![3], vec![8], vec![0, 1, 2, 3, 4, 5, 6, 7, 8], vec![2, 5], vec![11], vec![14]] {
        let mut pair = acquainted();
        pair.lost = lost.clone();
        pair.asks(put("/x", body(4_000)));
        pair.runs(2_000);
        pair.is_done(&body(4_000));
        let again = burst(lost.iter().copied());
        let blocks = match lost.iter().all(|number| *number < 10) {
            true => [burst(0..10), again, burst(10..16)].concat(),
            false => [burst(0..10), burst(10..16), again].concat(),
        };
        assert_eq!(pair.bursts(), blocks, "{lost:?}");
        let said = if lost.iter().all(|number| *number < 10) {
            [ASKED_AGAIN, ASKED_ON]
        } else {
            [ASKED_ON, ASKED_AGAIN]
        };
        assert_eq!(pair.says(), said, "{lost:?}");
        pair.is_over();
    }
}

#[test]
fn the_block_that_asks_is_repeated() {
    let mut pair = acquainted();
    pair.lost = vec![4, 9, 15];
    pair.asks(put("/x", body(4_000)));
    pair.runs(2_000);
    pair.is_done(&body(4_000));
    let nine = (9, true);
    let blocks = [burst(0..10), vec![nine], burst([4]), burst(10..16), vec![(15, true)]].concat();
    assert_eq!(pair.bursts(), blocks);
    pair.is_over();
}

#[test]
fn what_the_server_says_may_be_lost_too() {
    for lost_answers in 1..4 {
        let mut pair = acquainted();
        (pair.lost, pair.lost_answers) = (vec![3], lost_answers);
        pair.asks(put("/x", body(4_000)));
        pair.runs(6_000);
        pair.is_done(&body(4_000));
        pair.is_over();
    }
}

#[test]
fn blocks_may_come_in_any_order() {
    for late in 0..9 {
        let mut pair = acquainted();
        pair.late = Some(late);
        pair.asks(put("/x", body(2_500)));
        pair.runs(2_000);
        pair.is_done(&body(2_500));
        pair.is_over();
    }
}

#[test]
fn a_server_that_refuses_gets_block1_and_is_not_tried_again() {
    let mut pair = pair(Bursts::NotTheServer);
    pair.asks(put("/x", body(600)));
    pair.runs(900);
    pair.is_done(&body(600));
    assert_eq!(pair.bursts(), burst([0]));
    pair.asks(put("/y", body(600)));
    pair.runs(900);
    pair.is_done(&body(600));
    assert_eq!(pair.bursts(), burst([0]));
    let tagged = |(_, message): &&(End, Message)| message.options.get(OptionNumber::REQUEST_TAG).is_some();
    assert_eq!(pair.sent.iter().filter(tagged).count(), 1);
    // It is the same for answers.
    pair.asks(request("GET, /z"));
    let wishes = |(_, message): &(End, Message)| message.options.get(OptionNumber::Q_BLOCK2).is_some();
    assert!(!pair.sent.iter().any(wishes));
}

#[test]
fn a_server_that_refused_answers_in_bursts_gets_block1() {
    let mut pair = pair(Bursts::NotTheServer);
    pair.asks(request("GET, /x"));
    pair.runs(600);
    pair.delivered.clear();
    pair.responses.clear();
    pair.asks(put("/x", body(600)));
    pair.runs(600);
    pair.is_done(&body(600));
    assert_eq!(pair.bursts(), []);
}

#[test]
fn a_client_that_does_not_wish_for_it_sends_block1() {
    let mut pair = pair(Bursts::NotTheClient);
    pair.asks(put("/x", body(4_000)));
    pair.runs(1_800);
    pair.is_done(&body(4_000));
    assert_eq!(pair.bursts(), []);
    pair.is_over();
}

#[test]
fn an_answer_in_blocks_follows_a_request_in_bursts() {
    let mut pair = acquainted();
    pair.answers[0].payload = body(900).into();
    pair.asks(put("/x", body(900)));
    pair.runs(1_800);
    pair.is_done(&body(900));
    pair.is_over();
}

#[test]
fn an_answer_that_takes_long_comes_all_the_same() {
    for (thinks, lost) in [(60, vec![]), (60, vec![2]), (600, vec![1, 9]), (2_000, vec![])] {
        let mut pair = acquainted();
        (pair.thinks, pair.lost) = (Duration::from_secs(thinks), lost);
        pair.asks(put("/x", body(2_500)));
        pair.runs(6_000);
        pair.is_done(&body(2_500));
        pair.is_over();
    }
}

#[test]
fn a_body_survives_a_link_that_is_gone_for_an_hour() {
    let at = |seconds| Instant::after_start(Duration::from_secs(seconds));
    // What might be done twice is asked for no longer than any other message: the last set begins after 260 s.
    for from in [50, 120, 200, 240] {
        let outage = Outage { from: at(from), until: at(from + 3_600) };
        let impairments = Impairments { outages: vec![outage], ..Impairments::default() };
        let mut pair = pair_of(over_hf(End::Peer, true), over_hf(End::Gateway, true), impairments, 1);
        pair.asks(put("/x", body(4_000)));
        pair.runs(12_000);
        pair.is_done(&body(4_000));
        pair.is_over();
    }
}

#[test]
fn a_first_set_survives_it_too() {
    let mut pair = acquainted();
    pair.asks(put("/x", body(4_000)));
    pair.runs(100);
    let outage = Outage { from: pair.now, until: pair.now + Duration::from_secs(3_600) };
    pair.channel = Channel::new(hf(), Impairments { outages: vec![outage], ..Impairments::default() }, 1);
    pair.runs(12_000);
    pair.is_done(&body(4_000));
    pair.is_over();
}

#[test]
fn a_server_that_starts_anew_gets_what_it_has_not() {
    let mut pair = acquainted();
    pair.asks(put("/x", body(4_000)));
    pair.runs(200);
    pair.server = Endpoint::new(over_hf(End::Gateway, true), [3; 32]);
    pair.runs(2_000);
    pair.is_done(&body(4_000));
    pair.is_over();
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let mut server = over_hf(End::Gateway, true);
    server.transfers = TransferLimits { body: 1_000, ..server.transfers };
    let mut pair = pair_of(over_hf(End::Peer, true), server, Impairments::default(), 1);
    pair.asks(put("/x", body(2_500)));
    pair.runs(900);
    assert_eq!((pair.delivered.len(), pair.failures.as_slice()), (0, [].as_slice()));
    let (_, response) = pair.responses.remove(0);
    assert_eq!(response.code, Code::REQUEST_ENTITY_TOO_LARGE);
    assert_eq!(pair.bursts(), burst([0]));
    pair.is_over();
}

#[test]
fn bodies_that_are_too_many_make_room() {
    for (bodies, done) in [(1, 1), (2, 3), (8, 3)] {
        let mut server = over_hf(End::Gateway, true);
        server.transfers = TransferLimits { bodies, ..server.transfers };
        let mut pair = pair_of(over_hf(End::Peer, true), server, Impairments::default(), 1);
        for number in 0..3 {
            pair.asks(put(&format!("/{number}"), body(4_000)));
        }
        pair.runs(24 * 3600);
        pair.each_is_done_once_at_most(3);
        assert!(pair.delivered.len() >= done, "{bodies}: {:?}", pair.failures);
        pair.is_over();
    }
}

#[test]
fn whatever_the_link_does_a_request_is_done_once_and_ends() {
    let mut failed = [0, 0];
    for seed in 0..60 {
        for (number, bursts) in [true, false].into_iter().enumerate() {
            let share = |part: u64| (seed * part % 5) as f64 / 10.0;
            let impairments = Impairments {
                loss: Some(share(1)),
                duplication: share(3),
                reordering: share(2),
                holding: Duration::from_secs(seed % 7 * 20),
                ..Impairments::default()
            };
            let [client, server] = [End::Peer, End::Gateway].map(|end| over_hf(end, bursts));
            let mut pair = pair_of(client, server, impairments, seed);
            pair.thinks = Duration::from_secs(seed % 3 * 40);
            for number in 0..3 {
                pair.asks(put(&format!("/{number}"), body(300 + 1_700 * number)));
                pair.runs(seed % 4 * 200);
            }
            pair.runs(24 * 3600);
            println!("seed {seed}, in bursts: {bursts}");
            pair.each_is_done_once_at_most(3);
            if let Some(failed) = failed.get_mut(number) {
                *failed += pair.failures.len();
            }
            pair.is_over();
        }
    }
    let [with, without] = failed;
    println!("{with} of 180 requests fail in bursts, and {without} block by block");
    assert!(with <= without + 4, "{with} {without}");
}

/// A block of 16 bytes of a body of 200, whose last has 8.
fn small(kind: &str, id: u32, number: u32, rest: &str) -> String {
    let value = number << 4 | u32::from(number < 12) << 3;
    let (from, to) = (number * 16, 200.min(number * 16 + 16));
    format!("{kind} [MID={id}, TOK=0xaa], PUT, /x, opt19:0x{value:02x}{rest}, {from}..{to}")
}

const TAGGED: &str = ", opt60:0xc8, opt292:0x07";

/// A server, and a client that is no `lowband`.
fn server() -> support::Story<Endpoint> {
    with(over_hf(End::Gateway, true))
}

#[test]
fn a_client_that_confirms_nothing_hears_when_a_set_is_there() {
    let mut server = server();
    for number in 0..9 {
        server.gets(1_000 * u64::from(number), &small("NON", number, number, TAGGED));
    }
    server.gets(9_000, &small("NON", 9, 9, TAGGED));
    assert_eq!(Message::decode(&server.sent(9_500)).unwrap().code, Code::CONTINUE);
    for number in 10..12 {
        server.gets(1_000 * u64::from(number), &small("NON", number, number, TAGGED));
    }
    server.gets(12_000, &small("NON", 12, 12, TAGGED));
    let key = server.is_asked(12_000, "PUT, /x, opt292:0x07, 0..200");
    server.answers(13_000, key, "2.04");
    // Nobody repeats the request for the answer's sake.
    let answer = Message::decode(&server.sent(13_000)).unwrap();
    assert_eq!((answer.kind, answer.code), (Kind::Confirmable, Code::CHANGED));
}

#[test]
fn a_client_that_confirms_nothing_hears_what_is_missing_when_it_is_silent() {
    let mut server = server();
    let timeout = hf().terms(End::Gateway).receive_timeout.as_millis() as u64;
    for number in [0, 2, 3, 5] {
        server.gets(1_000 * u64::from(number), &small("NON", number, number, TAGGED));
    }
    let mut at = 5_000;
    // NON_MAX_RETRANSMIT: four times, and each time twice as long; all that is missing of the set.
    for attempt in 0..4 {
        at += timeout << attempt;
        let message = Message::decode(&server.sent(at)).unwrap();
        assert_eq!((message.kind, message.code), (Kind::NonConfirmable, Code::REQUEST_ENTITY_INCOMPLETE));
        assert_eq!(message.options.get_uint(OptionNumber::CONTENT_FORMAT), Some(272));
        assert_eq!(&message.payload[..], [1, 4, 6, 7, 8, 9]);
        assert_eq!(message.token.as_slice(), [0xaa]);
    }
    server.sends_nothing(at + (timeout << 4));
}

#[test]
fn blocks_of_what_was_done_do_nothing_and_get_its_answer() {
    let mut server = server();
    for number in 0..12 {
        server.gets(1_000 * u64::from(number), &small("NON", number, number, TAGGED));
        if number == 9 {
            server.sends_any(9_900);
        }
    }
    server.gets(12_000, &small("CON", 12, 12, TAGGED));
    let key = server.is_asked(12_000, "PUT, /x, opt292:0x07, 0..200");
    server.gets(13_000, &small("NON", 13, 3, TAGGED));
    server.gets(14_000, &small("CON", 14, 4, TAGGED));
    server.sends(14_500, "ACK [MID=14]");
    server.answers(20_000, key, "2.04, \"done\"");
    server.sends_any(50_000);
    server.gets(60_000, &small("CON", 15, 4, TAGGED));
    let answer = Message::decode(&server.sent(60_500)).unwrap();
    assert_eq!(
        (answer.kind, answer.code, &answer.payload[..]),
        (Kind::Acknowledgement, Code::CHANGED, &b"done"[..])
    );
    server.gets(70_000, &small("NON", 16, 5, TAGGED));
    server.sends_nothing(600_000);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let refused = |at: u64, id: u32, options: &str, text: &str| {
        let mut server = server();
        server.gets(at, &small("CON", id, 0, options));
        server.sends(at + 500, &format!("ACK [MID={id}, TOK=0xaa], 4.00, \"{text}\""));
    };
    refused(0, 1, "", "Q-Block1 without Request-Tag");
    refused(0, 1, ", opt292:0x07, 2:0/0/16", "Block and Q-Block options in one request");
    refused(0, 1, ", opt292:0x07, opt60:0x10", "blocks of one body do not fit together");
    let mut server = server();
    server.gets(0, &small("NON", 1, 0, TAGGED));
    server.gets(1_000, &small("CON", 2, 1, ", opt60:0xc9, opt292:0x07"));
    server.sends(1_500, "ACK [MID=2, TOK=0xaa], 4.00, \"blocks of one body do not fit together\"");
}

#[test]
fn who_wants_no_answer_still_hears_what_is_between_the_blocks() {
    let mut server = server();
    server.gets(0, &small("CON", 1, 0, ", opt258:0x1a, opt292:0x07"));
    assert_eq!(Message::decode(&server.sent(500)).unwrap().code, Code::CONTINUE);
}

#[test]
fn a_link_without_a_pace_has_no_bursts() {
    let mut server = with(config());
    server.gets(0, &small("NON", 1, 0, TAGGED));
    server.sends_nothing(1_000);
    server.gets(1_000, &small("CON", 2, 0, TAGGED));
    server.sends(1_000, "ACK [MID=2, TOK=0xaa], 4.02, \"Q-Block1 (19) is not understood\"");
}

/// `cargo test --test q_block_requests -- --nocapture seconds` prints what docs/links.md says.
#[test]
fn seconds_for_a_body_of_4000_bytes() {
    let seconds = |bursts| {
        let mut pair = pair(bursts);
        pair.asks(put("/x", body(4_000)));
        pair.runs(3_000);
        pair.is_done(&body(4_000)).as_secs()
    };
    let (with, without) = (seconds(Bursts::Both), seconds(Bursts::NotTheClient));
    println!("4000 bytes over hf-100: {with} s with Q-Block1, {without} s with Block1");
    assert!(with * 5 < without * 4, "{with} {without}");
}
