//! A conversation of peers with a homeserver, over a lossy link and through a gateway that may be killed at any of its outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use lowband::coap::{Code, Instant, Observe, OptionNumber, Priority, Request, Response};
use lowband::endpoint;
use lowband::endpoint::{Address, Endpoint, Event, RequestId};
use lowband::gateway::{Config, FetchId, Gateway, Input, Output};
use lowband::packed::Dictionary;
use lowband::translate::packed::caller;
use lowband::translate::packed::caller::{Caller, Pending};

use super::endpoint::{PEER, peer};
use super::gateway::durable;

/// From the gateway to the homeserver, or back.
const CALL: Duration = Duration::from_millis(10);
/// How long a gateway that was killed is away.
const AWAY: Duration = Duration::from_secs(1);
const END: Duration = Duration::from_secs(20_000);

/// The model takes long where nothing is optimised, and is tested elsewhere.
static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| Dictionary::built_in().clone().only(&[0, 1]));

/// How a conversation goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The gateway is killed before the outputs of these numbers.
    pub(crate) kills: BTreeSet<usize>,
    /// Peers beside the first, which observe as the same user.
    pub(crate) others: u16,
    /// The share of datagrams that is lost, in percent, and that comes twice.
    pub(crate) loss: u64,
    /// Between these times, in seconds, all of them are.
    pub(crate) outage: std::ops::Range<u64>,
    /// Where chance begins.
    pub(crate) seed: u64,
    /// Whether the peers speak the packed profile.
    pub(crate) packed: bool,
    /// Whether each record is on the disk by itself, and not all that belong together.
    pub(crate) piecewise: bool,
}

/// What a conversation came to.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The outputs of the gateway, in all its lives.
    pub(crate) outputs: usize,
    /// The events in the order in which each observer got them.
    seen: Vec<Vec<u64>>,
    /// The code that each request was answered by.
    answers: BTreeMap<RequestId, Code>,
    failed: Vec<String>,
    posts: usize,
    events: u64,
    counters: lowband::gateway::Counters,
}

impl Ended {
    /// Everything arrived in order, and no POST was done twice.
    pub(crate) fn check(&self) {
        let all: Vec<u64> = (1..=self.events).collect();
        for seen in &self.seen {
            // What was told again because no acknowledgement arrived is known to be old by its id.
            let mut known = BTreeSet::new();
            let new: Vec<u64> = seen.iter().copied().filter(|event| known.insert(*event)).collect();
            assert_eq!(new, all, "{self:#?}");
        }
        assert!(self.posts <= 1);
        assert_eq!((self.counters.unreadable, self.counters.endpoint.unreadable), (0, 0));
        assert_eq!((self.counters.absent, self.counters.feeds), (0, 1));
    }

    /// And all arrived once, and every request was answered.
    pub(crate) fn check_all(&self) {
        self.check();
        let all: Vec<u64> = (1..=self.events).collect();
        assert!(self.seen.iter().all(|seen| *seen == all) && self.failed.is_empty());
        let refused = self.answers.values().filter(|code| !code.is_success()).count();
        assert_eq!((self.answers.len(), refused.min(1)), (4, refused), "a POST may be refused");
        assert_eq!(self.counters.observations, self.seen.len());
    }
}

/// What happens next.
enum Arrival {
    Script(Step),
    AtGateway(u16, Vec<u8>),
    AtPeer(u16, Vec<u8>),
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

/// A peer, its observation, and the position that it has.
struct Peer {
    endpoint: Endpoint,
    observation: Option<RequestId>,
    position: String,
    /// By the packed profile: what it knows with the gateway, and the requests under way; whether its observation has had an answer.
    caller: Option<Caller>,
    pending: BTreeMap<RequestId, Pending>,
    is_registered: bool,
}

struct World {
    now: Instant,
    gateway: Option<Gateway>,
    life: Life,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    plan: Plan,
    peers: Vec<Peer>,
    chance: u64,
    arrivals: BTreeMap<(Instant, u64), Arrival>,
    number: u64,
    /// The homeserver: long polls from a position, and transactions that were done.
    waiting: Vec<(Life, FetchId, u64, Instant)>,
    transactions: Vec<String>,
    ended: Ended,
}

/// Runs the conversation.
pub(crate) fn run(plan: Plan) -> Ended {
    let peer = |number: u16| Peer {
        endpoint: Endpoint::new(endpoint::Config::default(), [number as u8 + 10; 32]),
        observation: None,
        position: "0".into(),
        caller: plan.packed.then(|| Caller::new([number as u8 + 1; 8])),
        pending: BTreeMap::new(),
        is_registered: false,
    };
    let peers: Vec<_> = (0..=plan.others).map(peer).collect();
    let mut world = World {
        now: Instant::START,
        gateway: Some(Gateway::new(config(), [1; 32])),
        life: 1,
        stored: BTreeMap::new(),
        chance: plan.seed,
        ended: Ended { seen: vec![Vec::new(); peers.len()], ..Ended::default() },
        peers,
        plan,
        arrivals: BTreeMap::new(),
        number: 0,
        waiting: Vec::new(),
        transactions: Vec::new(),
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
            assert!(turn < 100_000, "no end");
            self.drain();
            let gateway = self.gateway.as_ref().and_then(Gateway::deadline);
            let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
            let peers = self.peers.iter().filter_map(|peer| peer.endpoint.deadline()).min();
            let poll = self.waiting.iter().map(|(.., until)| *until).min();
            let next = [gateway, peers, arrival, poll].into_iter().flatten().min();
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
            self.peers.iter_mut().for_each(|peer| peer.endpoint.advance(self.now));
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
            (Arrival::AtGateway(from, datagram), Some(gateway)) => {
                gateway.handle(Input::Datagram { address: peer(from), datagram: &datagram }, now);
            }
            (Arrival::AtPeer(to, datagram), _) => {
                self.peers[usize::from(to)].endpoint.handle(gateway_address(), &datagram, now);
            }
            (Arrival::AtHomeserver(life, id, request), _) => self.call(life, id, &request),
            (Arrival::Fetched(life, id, body), Some(gateway)) if life == self.life => {
                let response = http::Response::builder().header("content-type", "application/json");
                let result = Ok(response.body(Bytes::from(body)).unwrap());
                gateway.handle(Input::Fetched { id, result }, now);
            }
            (Arrival::Restart, _) => {
                let mut gateway = Gateway::new(config(), [3; 32]);
                gateway.restore(self.stored.clone(), now);
                self.gateway = Some(gateway);
                self.life += 1;
            }
            (Arrival::AtGateway(..) | Arrival::Fetched(..), _) => {}
        }
    }

    fn step(&mut self, step: Step) {
        if self.plan.packed && !matches!(step, Step::Event | Step::Observe) {
            let (method, path) = match step {
                Step::Put(number) => ("PUT", format!("rooms/!r:hs/send/m.x/t{number}")),
                Step::Post => ("POST", "createRoom".to_owned()),
                _ => ("GET", "account/whoami".to_owned()),
            };
            return self.ask_packed(0, method, &path, false);
        }
        let request = match step {
            Step::Event => {
                self.ended.events += 1;
                return;
            }
            Step::Observe => return (0..self.peers.len()).for_each(|peer| self.observe(peer)),
            Step::Put(number) => {
                let transaction = format!("t{number}");
                let path = ["_matrix", "client", "v3", "rooms", "!r:hs", "send", "m.x", &transaction];
                request(Code::PUT, &path)
            }
            Step::Post => request(Code::POST, &["_matrix", "client", "v3", "createRoom"]),
            Step::Get => request(Code::GET, &["_matrix", "client", "v3", "account", "whoami"]),
        };
        self.peers[0].endpoint.request_as(Priority::Message, gateway_address(), request, self.now);
    }

    fn observe(&mut self, peer: usize) {
        if self.plan.packed {
            let path = format!("sync?since={}", self.peers[peer].position);
            return self.ask_packed(peer, "GET", &path, true);
        }
        let peer = &mut self.peers[peer];
        let mut request = request(Code::GET, &["_matrix", "client", "v3", "sync"]);
        request.observe = Some(Observe::Register);
        request.options.push(OptionNumber::URI_QUERY, format!("since={}", peer.position));
        peer.observation =
            Some(peer.endpoint.request_as(Priority::Message, gateway_address(), request, self.now));
    }

    /// 0 to 99.
    fn dice(&mut self) -> u64 {
        // Knuth's MMIX generator; its high bits are good enough for this.
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % 100
    }

    /// A datagram is on its way, once or twice or not at all, and takes its time.
    fn send(&mut self, arrival: impl Fn() -> Arrival) {
        let seconds = self.now.since_start().as_secs();
        let copies = match self.dice() {
            _ if self.plan.outage.contains(&seconds) => 0,
            dice if dice < self.plan.loss => 0,
            dice if dice < self.plan.loss * 2 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let jitter = if self.plan.loss > 0 { self.dice() * 5 } else { 0 };
            self.arrive(self.now + Duration::from_millis(100 + jitter), arrival());
        }
    }

    /// The homeserver's part. A transaction is done once; each makes an event.
    fn call(&mut self, life: Life, id: FetchId, request: &http::Request<Bytes>) {
        let path = request.uri().path();
        if path.ends_with("/sync") {
            let query = request.uri().query().unwrap_or_default();
            assert!(
                query.split('&').all(|parameter| parameter != "since="),
                "a homeserver refuses it: {query}"
            );
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
        for number in 0..self.peers.len() {
            self.drain_peer(number);
        }
    }

    /// A peer asks by the packed profile, and observes what it asks for perhaps.
    fn ask_packed(&mut self, number: usize, method: &str, path: &str, observes: bool) {
        let url = format!("/_matrix/client/v3/{path}");
        let http = http::Request::builder().method(method).uri(url).body(Bytes::new()).unwrap();
        let caller = self.peers[number].caller.as_mut().expect("it speaks packed");
        let (pending, step) = caller.begin(http, &DICTIONARY).unwrap();
        if observes {
            self.peers[number].observation = None;
        }
        self.follow_packed(number, (pending, None), step, observes);
    }

    /// Does what a caller says, `last` being the request before.
    fn follow_packed(
        &mut self,
        number: usize,
        (pending, last): (Pending, Option<RequestId>),
        step: caller::Step,
        observes: bool,
    ) {
        let now = self.now;
        let peer = &mut self.peers[number];
        let mut request = match step {
            caller::Step::Send(request) => request,
            caller::Step::Done(response) if observes => {
                assert_eq!(response.status(), 503, "an observation ends");
                return self.observe(number);
            }
            caller::Step::Done(response) => {
                let is_success = response.status().is_success();
                let code = if is_success { Code::CHANGED } else { Code::INTERNAL_SERVER_ERROR };
                let id = last.expect("it was asked");
                self.ended.answers.insert(id, code);
                return;
            }
        };
        request.observe = (observes && !pending.is_hello()).then_some(Observe::Register);
        let id = peer.endpoint.request_as(Priority::Message, gateway_address(), request, now);
        if observes {
            (peer.observation, peer.is_registered) = (Some(id), false);
        }
        peer.pending.insert(id, pending);
    }

    fn hear_packed(&mut self, number: usize, id: RequestId, response: &Response, notification: bool) {
        let peer = &mut self.peers[number];
        let observes = peer.observation == Some(id);
        let Some(mut pending) = peer.pending.remove(&id) else { panic!("nobody has asked") };
        let caller = peer.caller.as_mut().expect("it speaks packed");
        let step = match peer.is_registered && observes {
            true => caller::Step::Done(caller.notified(&pending, response, &DICTIONARY).unwrap()),
            false => caller.receive(&mut pending, response, &DICTIONARY).unwrap(),
        };
        match step {
            caller::Step::Done(response) if notification => {
                peer.pending.insert(id, pending);
                peer.is_registered = true;
                self.is_told(number, response.body());
            }
            step => self.follow_packed(number, (pending, Some(id)), step, observes),
        }
    }

    /// A peer hears what is new.
    fn is_told(&mut self, number: usize, body: &[u8]) {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let events = body["events"].as_array().unwrap();
        self.ended.seen[number].extend(events.iter().map(|event| event.as_u64().unwrap()));
        self.peers[number].position = body["next_batch"].as_str().unwrap().into();
    }

    fn drain_peer(&mut self, number: usize) {
        while let Some(event) = self.peers[number].endpoint.poll_event() {
            match event {
                Event::Response { id, response, notification, .. } if self.plan.packed => {
                    self.hear_packed(number, id, &response, notification);
                }
                Event::Response { id, response, notification: true } => {
                    assert_eq!(self.peers[number].observation, Some(id));
                    self.is_told(number, &response.payload);
                }
                Event::Response { id, response, .. } => {
                    self.ended.answers.insert(id, response.code);
                }
                // As a client does that was never answered.
                Event::Failed { id, .. } if self.peers[number].observation == Some(id) => {
                    self.observe(number)
                }
                Event::Failed { .. } => self.ended.failed.push(format!("{:?}: {event:?}", self.now)),
                _ => {}
            }
        }
        while let Some((_, datagram)) = self.peers[number].endpoint.poll_datagram() {
            self.send(|| Arrival::AtGateway(number as u16, datagram.clone()));
        }
    }

    /// Does what the gateway says; what it stores is there after a kill once something came after it, or nothing more comes.
    fn drain_gateway(&mut self) {
        let mut batch = Vec::new();
        loop {
            let Some(gateway) = &mut self.gateway else { return };
            let output = gateway.poll();
            if self.plan.piecewise || !matches!(output, Some(Output::Store { .. })) {
                for (key, value) in batch.drain(..) {
                    match value {
                        Some(value) => drop(self.stored.insert(key, value)),
                        None => drop(self.stored.remove(&key)),
                    }
                }
            }
            let Some(output) = output else { return };
            if self.plan.kills.remove(&self.ended.outputs) {
                self.gateway = None;
                return self.arrive(self.now + AWAY, Arrival::Restart);
            }
            self.ended.outputs += 1;
            match output {
                Output::Store { key, value } => batch.push((key, value)),
                Output::Datagram { address, datagram } => {
                    self.send(|| Arrival::AtPeer(address.remote.port(), datagram.clone()));
                }
                Output::Fetch { id, request, .. } => {
                    let call = Arrival::AtHomeserver(self.life, id, Box::new(request));
                    self.arrive(self.now + CALL, call);
                }
                Output::Abandon { id } => {
                    self.waiting.retain(|(life, other, ..)| (*life, *other) != (self.life, id))
                }
                Output::Device { .. } => panic!("there are no devices"),
            }
        }
    }
}

/// With polls so long that the hours in which nothing happens take no time.
fn config() -> Config {
    Config { poll_timeout: Duration::from_secs(600), dictionaries: vec![DICTIONARY.clone()], ..durable() }
}

fn gateway_address() -> Address {
    Address { remote: PEER.local, local: PEER.remote }
}

fn request(method: Code, path: &[&str]) -> Request {
    let mut request = Request::new(method);
    for segment in path {
        request.options.push(OptionNumber::URI_PATH, *segment);
    }
    request.options.push_uint(OptionNumber::ACCEPT, 50);
    request
}
