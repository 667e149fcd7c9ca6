//! Several bodies at once between two endpoints by requests that only their payloads tell apart, as those of the packed profile are: stories
//! in virtual time, and whatever a link does to them (RFC 9175 §3, RFC 8132 §2).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use lowband::coap::{Code, Instant, Observe, OptionNumber, Priority, Request, RequestError, Response};
use lowband::endpoint::{Endpoint, Event, RequestId, RequestKey};

use support::endpoint::{PEER, endpoint_with_blocks, with_blocks};

#[test]
fn only_body_under_way_has_no_request_tag() {
    let mut client = with_blocks(64);
    for at in [0, 1_000] {
        let id = client.asks(at, "POST, 0..100");
        client.sends(at, &format!("CON [MID=a{at}, TOK=t{at}], POST, 2:0/0/64, 1:0/1/64, Size1:100, 0..64"));
        client.gets(at + 10, &format!("ACK [MID=a{at}, TOK=t{at}], 2.31, 1:0/1/64"));
        client.sends(at + 10, &format!("CON [MID=b{at}, TOK=t{at}], POST, 2:0/0/64, 1:1/0/64, 64..100"));
        client.gets(at + 20, &format!("ACK [MID=b{at}, TOK=t{at}], 2.04, 1:1/0/64"));
        client.is_answered(at + 20, id, "2.04");
    }
}

#[test]
fn second_body_has_the_shortest_request_tag_that_is_free() {
    let mut client = with_blocks(64);
    let first = client.asks(0, "POST, 0..100");
    client.sends(0, "CON [MID=a, TOK=t], POST, 2:0/0/64, 1:0/1/64, Size1:100, 0..64");
    client.asks(10, "POST, 100..200");
    client.gets(20, "ACK [MID=a, TOK=t], 2.31, 1:0/1/64");
    client.sends(20, "CON [MID=b, TOK=u], POST, 2:0/0/64, 1:0/1/64, Size1:100, Request-Tag:0x, 100..164");
    client.gets(30, "ACK [MID=b, TOK=u], 2.31, 1:0/1/64");
    client.sends(30, "CON [MID=c, TOK=t], POST, 2:0/0/64, 1:1/0/64, 64..100");
    client.gets(40, "ACK [MID=c, TOK=t], 2.04, 1:1/0/64");
    client.is_answered(40, first, "2.04");
    client.sends(40, "CON [MID=d, TOK=u], POST, 2:0/0/64, 1:1/0/64, Request-Tag:0x, 164..200");
}

#[test]
fn short_requests_have_no_request_tag_and_ask_for_further_blocks_by_their_payloads() {
    let mut client = with_blocks(64);
    let first = client.asks(0, "0.05, \"one\"");
    client.sends(0, "CON [MID=a, TOK=t], 0.05, 2:0/0/64, \"one\"");
    client.asks(10, "0.05, \"two\"");
    client.gets(20, "ACK [MID=a, TOK=t], 2.05, ETag:0x01, 2:0/1/64, 0..64");
    client.sends(20, "CON [MID=b, TOK=u], 0.05, 2:0/0/64, \"two\"");
    client.gets(30, "ACK [MID=b, TOK=u], 2.05, \"short\"");
    drop(client.reported(30));
    client.sends(30, "CON [MID=c, TOK=t], 0.05, 2:1/0/64, \"one\"");
    client.gets(40, "ACK [MID=c, TOK=t], 2.05, ETag:0x01, 2:1/0/64, 64..100");
    client.is_answered(40, first, "2.05, ETag:0x01, 0..100");
    // Alone it need not.
    client.asks(50, "0.05, \"three\"");
    client.sends(50, "CON [MID=d, TOK=v], 0.05, 2:0/0/64, \"three\"");
    client.gets(60, "ACK [MID=d, TOK=v], 2.05, ETag:0x02, 2:0/1/64, 0..64");
    client.sends(60, "CON [MID=e, TOK=v], 0.05, 2:1/0/64");
    // What comes while it does not has a tag.
    client.asks(70, "0.05, \"four\"");
    client.gets(80, "ACK [MID=e, TOK=v], 2.05, ETag:0x02, 2:1/0/64, 64..100");
    drop(client.reported(80));
    client.sends(80, "CON [MID=f, TOK=w], 0.05, 2:0/0/64, Request-Tag:0x, \"four\"");
}

#[test]
fn answer_to_what_was_given_up_is_not_taken_for_another() {
    let mut client = with_blocks(64);
    let first = client.asks(0, "POST, \"one\"");
    client.sends(0, "CON [MID=a, TOK=t], POST, 2:0/0/64, \"one\"");
    client.gets(10, "ACK [MID=a]");
    client.does(20, |client, now| client.cancel(first, now));
    client.asks(30, "POST, \"two\"");
    client.sends(30, "CON [MID=b, TOK=u], POST, 2:0/0/64, \"two\"");
    client.gets(40, "ACK [MID=b, TOK=u], 2.04, ETag:0x01, 2:0/1/64, 0..64");
    client.sends(40, "CON [MID=c, TOK=u], POST, 2:1/0/64, \"two\"");
    client.gets(50, "ACK [MID=c, TOK=u], 2.04, ETag:0x01, 2:1/0/64, 64..100");
    drop(client.reported(50));
    // Blocks of the first may still come to be held.
    client.asks(60, "POST, 0..100");
    client.sends(60, "CON [MID=d, TOK=v], POST, 2:0/0/64, 1:0/1/64, Size1:100, Request-Tag:0x, 0..64");
}

#[test]
fn server_tells_answers_apart_by_the_payloads_that_they_answer() {
    let mut server = with_blocks(64);
    for (id, name, bytes) in [(1, "one", "0..100"), (2, "two", "100..200")] {
        server.gets(0, &format!("CON [MID={id}, TOK=0x0{id}], 0.05, \"{name}\""));
        let key = server.is_asked(0, &format!("0.05, \"{name}\""));
        server.answers(0, key, &format!("2.05, {bytes}"));
        let first = if id == 1 { "0..64" } else { "100..164" };
        server.sends(0, &format!("ACK [MID={id}, TOK=0x0{id}], 2.05, ETag:e{id}, 2:0/1/64, {first}"));
    }
    server.gets(10, "CON [MID=3, TOK=0x01], 0.05, 2:1/0/64, \"one\"");
    server.sends(10, "ACK [MID=3, TOK=0x01], 2.05, ETag:e1, 2:1/0/64, 64..100");
    server.gets(20, "CON [MID=4, TOK=0x02], 0.05, 2:1/0/64, \"two\"");
    server.sends(20, "ACK [MID=4, TOK=0x02], 2.05, ETag:e2, 2:1/0/64, 164..200");
    // Without a payload the last is meant.
    server.gets(30, "CON [MID=5, TOK=0x02], 0.05, 2:1/0/64");
    server.sends(30, "ACK [MID=5, TOK=0x02], 2.05, ETag:e2, 2:1/0/64, 164..200");
    // One that nobody has asked for is not made anew.
    server.gets(40, "CON [MID=6, TOK=0x03], 0.05, 2:1/0/64, \"three\"");
    server.sends(40, "ACK [MID=6, TOK=0x03], 4.08, \"the response's body is held no more\"");
}

#[test]
fn second_observation_of_the_same_has_a_request_tag_and_a_body_of_its_own() {
    let (mut client, mut server) = (endpoint_with_blocks(64), endpoint_with_blocks(64));
    let mut link = Link::calm();
    let asked = || Request { observe: Some(Observe::Register), ..Request::new(Code::GET) };
    let ids = [(); 2].map(|()| client.request(PEER, asked(), link.now));
    let mut observations = Vec::new();
    let mut tags = Vec::new();
    link.run(&mut client, &mut server, 200, |server, key, request, now| {
        tags.push(request.options.get(OptionNumber::REQUEST_TAG).map(<[u8]>::to_vec));
        observations.extend(server.accept_observation(key, body(b"first"), now));
    });
    assert_eq!(tags, [None, Some(Vec::new())]);
    for (n, id) in observations.iter().enumerate() {
        server.notify(*id, body(&[n as u8; 300]), Priority::Notification, link.now);
    }
    link.run(&mut client, &mut server, 400, |_, _, _, _| panic!("nothing is asked"));
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(link.answers[id].last().unwrap().as_ref().unwrap().payload, vec![n as u8; 300]);
    }
}

fn body(bytes: &[u8]) -> Response {
    Response { payload: bytes.to_vec().into(), ..Response::new(Code::CONTENT) }
}

/// Two endpoints with a link in between that loses datagrams and changes their order.
struct Link {
    now: Instant,
    chance: u64,
    /// One of so many is lost.
    loss: u64,
    /// What is on its way, by when it arrives; to the server or to the client.
    flying: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    flown: u64,
    answers: BTreeMap<RequestId, Vec<Result<Response, RequestError>>>,
}

impl Link {
    fn calm() -> Self {
        Self::new(1, u64::MAX)
    }

    fn new(seed: u64, loss: u64) -> Self {
        Self {
            now: Instant::START,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            loss,
            flying: BTreeMap::new(),
            flown: 0,
            answers: BTreeMap::new(),
        }
    }

    /// xorshift64.
    fn one_of(&mut self, n: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % n
    }

    fn send(&mut self, to_server: bool, datagram: Vec<u8>) {
        self.flown += 1;
        if self.loss != u64::MAX && self.one_of(self.loss) == 0 {
            return;
        }
        // Some are overtaken by others, and some come twice.
        for _ in 0..=u8::from(self.loss != u64::MAX && self.one_of(8) == 0) {
            let late = if self.loss == u64::MAX { 10 } else { 10 + self.one_of(3_000) };
            let number = self.flown << 1 | u64::from(self.flying.len() % 2 == 1);
            self.flying
                .insert((self.now + Duration::from_millis(late), number), (to_server, datagram.clone()));
        }
    }

    /// So many steps of 50 ms.
    fn run(
        &mut self,
        client: &mut Endpoint,
        server: &mut Endpoint,
        steps: u32,
        mut asked: impl FnMut(&mut Endpoint, RequestKey, Request, Instant),
    ) {
        for _ in 0..steps {
            self.now = self.now + Duration::from_millis(50);
            client.advance(self.now);
            server.advance(self.now);
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to_server, datagram) = entry.remove();
                let end = if to_server { &mut *server } else { &mut *client };
                end.handle(PEER, &datagram, self.now);
            }
            while let Some(event) = server.poll_event() {
                if let Event::Request { key, request, .. } = event {
                    asked(server, key, request, self.now);
                }
            }
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Response { id, response, .. } => {
                        self.answers.entry(id).or_default().push(Ok(response))
                    }
                    Event::Failed { id, error, .. } => self.answers.entry(id).or_default().push(Err(error)),
                    _ => {}
                }
            }
            while let Some((_, datagram)) = client.poll_datagram() {
                self.send(true, datagram);
            }
            while let Some((_, datagram)) = server.poll_datagram() {
                self.send(false, datagram);
            }
        }
    }
}

/// The body that answers one: another for each.
fn answer_to(payload: &[u8]) -> Vec<u8> {
    let length = 40 + usize::from(payload[0]) * 17 % 600;
    payload.iter().rev().copied().chain((0..length).map(|at| (at as u8) ^ payload[0])).collect()
}

/// Requests of all sizes at any time, from and to the root. None gets what another was answered, and nothing is done twice.
fn converse(seed: u64, loss: u64, config: impl Fn() -> Endpoint) {
    let mut link = Link::new(seed, loss);
    let (mut client, mut server) = (config(), config());
    let mut asked = BTreeMap::new();
    let mut waiting: Vec<(Instant, RequestKey, Vec<u8>)> = Vec::new();
    let mut done: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut heard = Vec::new();
    let mut begun = 0_u8;
    for _ in 0..1_500_u32 {
        // As many answers at once as a server holds, or fewer.
        if begun < 40 && asked.len() - link.answers.len() < 6 {
            begun += 1;
            let method = if link.one_of(2) == 0 { Code::POST } else { Code::FETCH };
            let length = [2, 30, 64, 65, 300][link.one_of(5) as usize];
            let mut payload = vec![begun; length];
            payload[length - 1] = method.0;
            let mut request = Request::new(method);
            request.payload = payload.clone().into();
            let id = client.request(PEER, request, link.now);
            if link.one_of(10) == 0 {
                client.cancel(id, link.now);
            } else {
                asked.insert(id, payload);
            }
        }
        let steps = 1 + link.one_of(20) as u32;
        link.run(&mut client, &mut server, steps, |_, key, request, now| {
            heard.push((now, key, request.method, request.payload.to_vec()));
        });
        for (now, key, method, payload) in heard.drain(..) {
            if method == Code::POST {
                *done.entry(payload.clone()).or_default() += 1;
            }
            let later = Duration::from_millis(link.one_of(4_000));
            waiting.push((now + later, key, payload));
        }
        let (due, rest) = waiting.drain(..).partition(|(at, ..)| *at <= link.now);
        waiting = rest;
        for (_, key, payload) in due {
            server.respond(key, body(&answer_to(&payload)), link.now);
        }
    }
    let mut answered = 0;
    for (id, payload) in &asked {
        match link.answers.get(id).map(Vec::as_slice) {
            Some([Ok(response)]) if response.code.is_success() => {
                assert_eq!(response.payload, answer_to(payload), "seed {seed}");
                answered += 1;
            }
            Some([Ok(refused)]) => panic!("seed {seed}: {refused:?}"),
            Some([Err(RequestError::Timeout)]) | None => {}
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(done.values().all(|times| *times == 1), "seed {seed}: {done:?}");
    match loss {
        u64::MAX => assert_eq!(answered, asked.len(), "seed {seed}"),
        _ => assert!(answered * 10 >= asked.len() * 7, "seed {seed}: {answered} of {}", asked.len()),
    }
}

#[test]
fn bodies_at_once_come_to_whom_they_are_for() {
    for seed in 1..=30 {
        converse(seed, u64::MAX, || endpoint_with_blocks(64));
    }
}

#[test]
fn bodies_at_once_come_to_whom_they_are_for_whatever_is_lost_repeated_and_late() {
    for seed in 1..=60 {
        converse(seed, 8, || endpoint_with_blocks(64));
    }
}
