//! A conversation of a peer with a homeserver, through a gateway that may be killed at any of its outputs.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use lowband::coap::{Code, Instant, Observe, OptionNumber, Priority, Request};
use lowband::endpoint;
use lowband::endpoint::{Address, Endpoint, Event, RequestId};
use lowband::gateway::{FetchId, Gateway, Input, Output};

use super::endpoint::PEER;
use super::gateway::durable;

/// From the peer to the gateway, or back; and from the gateway to the homeserver, or back.
const DELAY: Duration = Duration::from_millis(100);
const CALL: Duration = Duration::from_millis(10);
/// How long the gateway is away.
const AWAY: Duration = Duration::from_secs(1);
const END: Duration = Duration::from_secs(600);

/// What a conversation came to.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The outputs of the gateway before it was killed, or of all of it.
    pub(crate) outputs: usize,
    /// The events in the order in which the observer got them.
    seen: Vec<u64>,
    /// The code that each request was answered by.
    answers: BTreeMap<RequestId, Code>,
    failed: Vec<String>,
    posts: usize,
    events: u64,
    counters: lowband::gateway::Counters,
}

impl Ended {
    /// Everything arrived in order and once, every request was answered, and no POST was done twice.
    pub(crate) fn check(&self, cut: usize) {
        let all: Vec<u64> = (1..=self.events).collect();
        assert_eq!(self.seen, all, "killed at {cut}: {self:#?}");
        assert!(self.failed.is_empty(), "killed at {cut}: {self:#?}");
        assert_eq!(self.answers.len(), 4, "killed at {cut}: {self:#?}");
        assert!(self.posts <= 1, "killed at {cut}: {self:#?}");
        let refused = |code: &&Code| !code.is_success();
        assert!(self.answers.values().filter(refused).count() <= 1, "killed at {cut}: {self:#?}");
        assert_eq!(
            (self.counters.observations, self.counters.unreadable),
            (1, 0),
            "killed at {cut}: {self:#?}"
        );
    }
}

/// What happens next.
enum Arrival {
    Script(Step),
    AtGateway(Vec<u8>),
    AtPeer(Vec<u8>),
    AtHomeserver(Life, FetchId, Box<http::Request<Bytes>>),
    Fetched(Life, FetchId, String),
    Restart,
}

#[derive(Clone, Copy)]
enum Step {
    Observe,
    Event,
    Put(u32),
    Post,
    Get,
}

/// Which of the gateway's processes.
type Life = u32;

struct World {
    now: Instant,
    gateway: Option<Gateway>,
    life: Life,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    cut: Option<usize>,
    peer: Endpoint,
    arrivals: BTreeMap<(Instant, u64), Arrival>,
    number: u64,
    /// The homeserver: long polls from a position, and transactions that were done.
    waiting: Vec<(Life, FetchId, u64, Instant)>,
    transactions: Vec<String>,
    ended: Ended,
}

/// Runs the conversation; the gateway is killed before the output of that number.
pub(crate) fn run(cut: Option<usize>) -> Ended {
    let config = endpoint::Config::default();
    let mut world = World {
        now: Instant::START,
        gateway: Some(Gateway::new(durable(), [1; 32])),
        life: 1,
        stored: BTreeMap::new(),
        cut,
        peer: Endpoint::new(config, [2; 32]),
        arrivals: BTreeMap::new(),
        number: 0,
        waiting: Vec::new(),
        transactions: Vec::new(),
        ended: Ended::default(),
    };
    let script = [
        (0, Step::Event),
        (10, Step::Observe),
        (1_000, Step::Event),
        (1_050, Step::Event),
        (2_000, Step::Put(1)),
        (2_600, Step::Event),
        (3_000, Step::Post),
        (5_000, Step::Event),
        (5_010, Step::Get),
        (9_000, Step::Put(2)),
        (40_000, Step::Event),
        (100_000, Step::Event),
    ];
    for (at, step) in script {
        world.arrive(Instant::START + Duration::from_millis(at), Arrival::Script(step));
    }
    world.run();
    world.ended
}

impl World {
    fn run(&mut self) {
        let end = Instant::START + END;
        for turn in 0.. {
            assert!(turn < 10_000, "no end");
            self.drain();
            let gateway = self.gateway.as_ref().and_then(Gateway::deadline);
            let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
            let poll = self.waiting.iter().map(|(.., until)| *until).min();
            let next = [gateway, self.peer.deadline(), arrival, poll].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.arrivals.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let arrival = entry.remove();
                self.handle(arrival);
                self.drain();
            }
            self.answer_polls();
            if let Some(gateway) = &mut self.gateway {
                gateway.advance(self.now);
            }
            self.peer.advance(self.now);
        }
        self.ended.counters = self.gateway.as_ref().unwrap().counters();
    }

    fn arrive(&mut self, at: Instant, arrival: Arrival) {
        self.number += 1;
        self.arrivals.insert((at, self.number), arrival);
    }

    fn handle(&mut self, arrival: Arrival) {
        let now = self.now;
        match (arrival, &mut self.gateway) {
            (Arrival::Script(step), _) => self.step(step),
            (Arrival::AtGateway(datagram), Some(gateway)) => {
                gateway.handle(Input::Datagram { address: PEER, datagram: &datagram }, now);
            }
            (Arrival::AtPeer(datagram), _) => self.peer.handle(gateway_address(), &datagram, now),
            (Arrival::AtHomeserver(life, id, request), _) => self.call(life, id, &request),
            (Arrival::Fetched(life, id, body), Some(gateway)) if life == self.life => {
                let response = http::Response::builder().header("content-type", "application/json");
                let result = Ok(response.body(Bytes::from(body)).unwrap());
                gateway.handle(Input::Fetched { id, result }, now);
            }
            (Arrival::Restart, _) => {
                let mut gateway = Gateway::new(durable(), [3; 32]);
                gateway.restore(self.stored.clone(), now);
                self.gateway = Some(gateway);
                self.life += 1;
            }
            (Arrival::AtGateway(_) | Arrival::Fetched(..), _) => {}
        }
    }

    fn step(&mut self, step: Step) {
        let request = match step {
            Step::Event => {
                self.ended.events += 1;
                return;
            }
            Step::Observe => {
                let observe = Some(Observe::Register);
                Request { observe, ..request(Code::GET, &["_matrix", "client", "v3", "sync"]) }
            }
            Step::Put(number) => {
                let transaction = format!("t{number}");
                let path = ["_matrix", "client", "v3", "rooms", "!r:hs", "send", "m.x", &transaction];
                request(Code::PUT, &path)
            }
            Step::Post => request(Code::POST, &["_matrix", "client", "v3", "createRoom"]),
            Step::Get => request(Code::GET, &["_matrix", "client", "v3", "account", "whoami"]),
        };
        self.peer.request_as(Priority::Message, gateway_address(), request, self.now);
    }

    /// The homeserver's part. A transaction is done once; each makes an event.
    fn call(&mut self, life: Life, id: FetchId, request: &http::Request<Bytes>) {
        let path = request.uri().path();
        if path.ends_with("/sync") {
            let query = request.uri().query().unwrap_or_default();
            let parameter = |name| {
                let of_it = |pair: &str| pair.split_once('=').filter(|(own, _)| *own == name)?.1.parse().ok();
                query.split('&').find_map(of_it).unwrap_or(0)
            };
            let until = self.now + Duration::from_millis(parameter("timeout"));
            self.waiting.push((life, id, parameter("since"), until));
            return self.answer_polls();
        }
        match request.method().as_str() {
            "PUT" if self.transactions.iter().all(|done| done != path) => {
                self.transactions.push(path.to_owned());
                self.ended.events += 1;
            }
            "POST" => self.ended.posts += 1,
            _ => {}
        }
        self.arrive(self.now + CALL, Arrival::Fetched(life, id, "{}".into()));
    }

    fn answer_polls(&mut self) {
        for (life, id, since, until) in std::mem::take(&mut self.waiting) {
            if since >= self.ended.events && until > self.now {
                self.waiting.push((life, id, since, until));
                continue;
            }
            let events: Vec<_> = (since + 1..=self.ended.events).collect();
            let body = serde_json::json!({ "next_batch": self.ended.events.to_string(), "events": events });
            self.arrive(self.now + CALL, Arrival::Fetched(life, id, body.to_string()));
        }
    }

    fn drain(&mut self) {
        self.drain_gateway();
        while let Some((_, datagram)) = self.peer.poll_datagram() {
            self.arrive(self.now + DELAY, Arrival::AtGateway(datagram));
        }
        while let Some(event) = self.peer.poll_event() {
            match event {
                Event::Response { response, notification: true, .. } => {
                    let body: serde_json::Value = serde_json::from_slice(&response.payload).unwrap();
                    let events = body["events"].as_array().unwrap();
                    self.ended.seen.extend(events.iter().map(|event| event.as_u64().unwrap()));
                }
                Event::Response { id, response, .. } => {
                    self.ended.answers.insert(id, response.code);
                }
                Event::Failed { .. } => self.ended.failed.push(format!("{:?}: {event:?}", self.now)),
                _ => {}
            }
        }
    }

    /// Does what the gateway says; what it stores is there after a kill once something came after it, or nothing more comes.
    fn drain_gateway(&mut self) {
        let mut batch = Vec::new();
        loop {
            let Some(gateway) = &mut self.gateway else { return };
            let output = gateway.poll();
            if !matches!(output, Some(Output::Store { .. })) {
                for (key, value) in batch.drain(..) {
                    match value {
                        Some(value) => drop(self.stored.insert(key, value)),
                        None => drop(self.stored.remove(&key)),
                    }
                }
            }
            let Some(output) = output else { return };
            if self.life == 1 {
                if self.cut == Some(self.ended.outputs) {
                    self.gateway = None;
                    return self.arrive(self.now + AWAY, Arrival::Restart);
                }
                self.ended.outputs += 1;
            }
            match output {
                Output::Store { key, value } => batch.push((key, value)),
                Output::Datagram { datagram, .. } => {
                    self.arrive(self.now + DELAY, Arrival::AtPeer(datagram));
                }
                Output::Fetch { id, request, .. } => {
                    let call = Arrival::AtHomeserver(self.life, id, Box::new(request));
                    self.arrive(self.now + CALL, call);
                }
                Output::Abandon { id } => {
                    self.waiting.retain(|(life, other, ..)| (*life, *other) != (self.life, id))
                }
            }
        }
    }
}

fn gateway_address() -> Address {
    Address { remote: std::net::SocketAddr::new(PEER.local, 5683), local: PEER.remote.ip() }
}

fn request(method: Code, path: &[&str]) -> Request {
    let mut request = Request::new(method);
    for segment in path {
        request.options.push(OptionNumber::URI_PATH, *segment);
    }
    request.options.push_uint(OptionNumber::ACCEPT, 50);
    request
}
