//! A gateway behind DTLS in virtual time: devices by key and by certificate, others where they are let in, and floods.

#![expect(unreachable_pub, reason = "parts of a test")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/dtls.rs"]
#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod dtls;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dtls::{IDENTITY, KEY, address, certificate, machine, psk, psk_of};
use lowband::coap::{Address, Code, Instant, Observe, OptionNumber, Options, Request, Response};
use lowband::device::{Device, History, KeyNumber, Limits, Pin, Psk, Routes, Secret, Security};
use lowband::endpoint::{self, Endpoint, Event};
use lowband::gateway::{Access, Config, DeviceChange, FetchId, Gateway, Input, Output};
use lowband::link::{End, Profile};
use lowband::security::dtls as security;
use lowband::security::dtls::{Credentials, Dtls, Keys, Pins, Reason, SessionId, Trust, Version};

/// How long a datagram is under way where nothing else is said.
const DELAY: Duration = Duration::from_millis(5);
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const SYNC: &str = "/_matrix/client/v3/sync";

/// A gateway, its homeserver, and clients by the numbers of their addresses.
struct World {
    gateway: Gateway,
    config: Config,
    now: Instant,
    under_way: BTreeMap<(Instant, u64), Arrival>,
    next: u64,
    clients: BTreeMap<u32, Client>,
    /// Calls of the homeserver that are not answered: the path with its query, and the token.
    calls: Vec<(FetchId, String, Option<String>)>,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    changes: Vec<DeviceChange>,
    /// When datagrams left the gateway, and how long they were.
    departures: Vec<(Instant, usize)>,
    bytes_in: u64,
    bytes_out: u64,
    delay: Duration,
}

enum Arrival {
    AtGateway(u32, Vec<u8>),
    AtClient(u32, Vec<u8>),
}

/// A client: its own DTLS, and CoAP above it.
struct Client {
    dtls: Dtls,
    endpoint: Endpoint,
    session: Option<SessionId>,
    /// What waits for the handshake.
    asked: Vec<Request>,
    answers: Vec<(Response, bool)>,
    closed: Vec<Reason>,
}

impl Client {
    fn new(lower: security::Config, config: endpoint::Config, seed: u8) -> Self {
        Self {
            dtls: machine(lower),
            endpoint: Endpoint::new(config, [seed; 32]),
            session: None,
            asked: Vec::new(),
            answers: Vec::new(),
            closed: Vec::new(),
        }
    }
}

/// How a gateway serves.
struct Serving {
    unprovisioned: bool,
    certificate: bool,
    link: Option<&'static str>,
    durable: bool,
}

const DEVICES: Serving = Serving { unprovisioned: false, certificate: false, link: None, durable: false };

impl World {
    fn new(serving: &Serving) -> Self {
        let mut config = Config::new("https://hs.example".parse().unwrap());
        let endpoint = &mut config.endpoint;
        endpoint.plain = false;
        endpoint.durable = serving.durable;
        endpoint.sealed = BTreeSet::from([address(0).local]);
        if let Some(name) = serving.link {
            let profile = Profile::built_in(name).unwrap();
            endpoint.links.insert(name.into(), profile.terms(End::Gateway));
            endpoint.sealed_links.insert(name.into(), profile.sealed(security::SEALING).terms(End::Gateway));
            endpoint.link = Some(name.into());
        }
        let gateway = Self::gateway(&config, serving);
        Self {
            gateway,
            config,
            now: Instant::START,
            under_way: BTreeMap::new(),
            next: 0,
            clients: BTreeMap::new(),
            calls: Vec::new(),
            stored: BTreeMap::new(),
            changes: Vec::new(),
            departures: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            delay: DELAY,
        }
    }

    fn gateway(config: &Config, serving: &Serving) -> Gateway {
        let mut gateway = Gateway::new(config.clone(), [7; 32]);
        let (keys, pins) = (Keys::new(), Pins::new());
        let link = serving.link.map(|name| security::Link::from(&config.endpoint.links[name]));
        let dtls = machine(security::Config {
            keys: Some(keys.clone()),
            certificate: serving.certificate.then(|| certificate("server")),
            clients: if serving.unprovisioned { Trust::Anyone } else { Trust::Pinned(pins.clone()) },
            link: link.unwrap_or_default(),
            ..security::Config::default()
        });
        gateway.serve_dtls(dtls, Access { keys, pins, unprovisioned: serving.unprovisioned });
        gateway
    }

    /// The process is killed, and another takes up what it has stored.
    fn restart(&mut self, serving: &Serving, device: &Device) {
        self.gateway = Self::gateway(&self.config, serving);
        self.gateway.set_device(device, self.now);
        self.gateway.restore(self.stored.clone(), self.now);
        self.calls.clear();
        self.collect();
    }

    fn set(&mut self, device: &Device) {
        self.gateway.set_device(device, self.now);
        self.collect();
    }

    /// A client at this address opens a session.
    fn connect(&mut self, at: u32, credentials: &Credentials) {
        let link = self.config.endpoint.link.clone();
        let profile = link.as_deref().map(|name| Profile::built_in(name).unwrap());
        let client = self.clients.entry(at).or_insert_with(|| {
            let mut config = endpoint::Config { link: link.clone(), ..endpoint::Config::default() };
            let mut lower = security::Config::default();
            if let Some(profile) = profile {
                lower.link = security::Link::from(&profile.terms(End::Peer));
                let terms = profile.clone().sealed(security::SEALING).terms(End::Peer);
                config.links.insert(profile.name, terms);
            }
            Client::new(lower, config, at as u8)
        });
        client.dtls.connect(server(), credentials, self.now).unwrap();
        self.collect();
    }

    /// A client asks, once its session is open.
    fn ask(&mut self, at: u32, request: Request) {
        let client = self.clients.get_mut(&at).unwrap();
        match client.session {
            Some(_) => drop(client.endpoint.request(server(), request, self.now)),
            None => client.asked.push(request),
        }
        self.collect();
    }

    /// A client ends its session.
    fn close(&mut self, at: u32) {
        let client = self.clients.get_mut(&at).unwrap();
        client.dtls.close(client.session.unwrap(), self.now);
        self.collect();
    }

    fn send(&mut self, arrival: Arrival) {
        self.next += 1;
        self.under_way.insert((self.now + self.delay, self.next), arrival);
    }

    fn collect(&mut self) {
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Store { key, value: Some(value) } => drop(self.stored.insert(key, value)),
                Output::Store { key, value: None } => drop(self.stored.remove(&key)),
                Output::Datagram { address, datagram } => {
                    self.departures.push((self.now, datagram.len()));
                    self.bytes_out += datagram.len() as u64;
                    self.send(Arrival::AtClient(number(address), datagram));
                }
                Output::Fetch { id, request, .. } => {
                    let target = request.uri().path_and_query().unwrap().to_string();
                    let token = request.headers().get("authorization");
                    self.calls.push((id, target, token.map(|token| token.to_str().unwrap().into())));
                }
                Output::Abandon { id } => self.calls.retain(|(other, ..)| *other != id),
                Output::Device { change, .. } => self.changes.push(change),
            }
        }
        for at in self.clients.keys().copied().collect::<Vec<_>>() {
            self.collect_from(at);
        }
    }

    fn collect_from(&mut self, at: u32) {
        let mut up = Vec::new();
        let client = self.clients.get_mut(&at).unwrap();
        loop {
            let mut is_news = false;
            while let Some(output) = client.dtls.poll() {
                is_news = true;
                match output {
                    security::Output::Datagram { bytes, .. } => up.push(bytes),
                    security::Output::Established { session, .. } => {
                        client.session = Some(session);
                        for request in std::mem::take(&mut client.asked) {
                            client.endpoint.request(server(), request, self.now);
                        }
                    }
                    security::Output::Opened { bytes, .. } => {
                        client.endpoint.handle(server(), &bytes, self.now);
                    }
                    security::Output::Closed { session, reason } => {
                        client.closed.push(reason);
                        client.session = client.session.filter(|current| *current != session);
                    }
                    security::Output::KeyLog(line) => panic!("{line:?}"),
                    _ => {}
                }
            }
            while let Some((_, datagram)) = client.endpoint.poll_datagram() {
                is_news = true;
                if let Some(session) = client.session {
                    client.dtls.seal(session, &datagram, self.now).unwrap();
                }
            }
            while let Some(event) = client.endpoint.poll_event() {
                if let Event::Response { response, notification, .. } = event {
                    client.answers.push((response, notification));
                }
            }
            if !is_news {
                break;
            }
        }
        for datagram in up {
            self.send(Arrival::AtGateway(at, datagram));
        }
    }

    /// Time passes.
    fn wait(&mut self, milliseconds: u64) {
        let until = self.now + Duration::from_millis(milliseconds);
        loop {
            let clients = self.clients.values();
            let due = clients.flat_map(|client| [client.dtls.deadline(), client.endpoint.deadline()]);
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let due = due.chain([self.gateway.deadline(), arrival]).flatten().min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            let now = self.now;
            while self.under_way.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
                let (_, arrival) = self.under_way.pop_first().unwrap();
                match arrival {
                    Arrival::AtGateway(at, datagram) => self.arrive(address(at), &datagram),
                    Arrival::AtClient(at, datagram) => {
                        if let Some(client) = self.clients.get_mut(&at) {
                            client.dtls.handle(server(), &datagram, now);
                        }
                    }
                }
                self.collect();
            }
            self.gateway.advance(now);
            for client in self.clients.values_mut() {
                client.dtls.advance(now);
                client.endpoint.advance(now);
            }
            self.collect();
        }
        self.now = until;
    }

    fn arrive(&mut self, address: Address, datagram: &[u8]) {
        self.bytes_in += datagram.len() as u64;
        self.gateway.handle(Input::Datagram { address, datagram }, self.now);
        self.collect();
    }

    /// The homeserver answers the only call that there is.
    fn answer(&mut self, body: &'static str) -> (String, Option<String>) {
        assert_eq!(self.calls.len(), 1, "{:?}", self.calls);
        let (id, target, token) = self.calls.pop().unwrap();
        let response = http::Response::builder().header("content-type", "application/json");
        let result = Ok(response.body(Bytes::from_static(body.as_bytes())).unwrap());
        self.gateway.handle(Input::Fetched { id, result }, self.now);
        self.collect();
        (target, token)
    }

    fn answers(&mut self, at: u32) -> Vec<(Response, bool)> {
        std::mem::take(&mut self.clients.get_mut(&at).unwrap().answers)
    }

    /// As [`World::answer`], of the long poll among several calls.
    fn answer_poll(&mut self, body: &'static str) {
        let others: Vec<_> = {
            let (polls, others) = self.calls.drain(..).partition(|(_, target, _)| target.starts_with(SYNC));
            self.calls = polls;
            others
        };
        self.answer(body);
        self.calls.extend(others);
    }

    /// As [`World::whoami`], while a poll is under way.
    fn whoami_beside(&mut self, at: u32, token: &str) -> Option<Code> {
        let polls = std::mem::take(&mut self.calls);
        let code = self.whoami(at, token);
        self.calls.extend(polls);
        code
    }

    /// A client opens a session and asks who it is; returns what it is told.
    fn whoami(&mut self, at: u32, token: &str) -> Option<Code> {
        self.ask(at, get(WHOAMI, token));
        self.wait(1_000);
        if !self.calls.is_empty() {
            let (_, used) = self.answer("{}");
            assert_eq!(used, Some(format!("Bearer {token}")));
            self.wait(1_000);
        }
        self.answers(at).pop().map(|(response, _)| response.code)
    }
}

/// Where the gateway is, for clients.
fn server() -> Address {
    address(0)
}

/// The other way than [`address`].
fn number(address: Address) -> u32 {
    let std::net::IpAddr::V4(ip) = address.remote.ip() else { panic!("{address:?}") };
    (ip.to_bits() - u32::from(std::net::Ipv4Addr::new(10, 0, 0, 0))) << 8
        | u32::from(address.remote.port() - 1024)
}

fn get(path: &str, token: &str) -> Request {
    let mut options = Options::new();
    path.split('/').skip(1).for_each(|segment| options.push(OptionNumber::URI_PATH, segment.as_bytes()));
    options.push_uint(OptionNumber::ACCEPT, 50);
    if !token.is_empty() {
        options.push(OptionNumber::ACCESS_TOKEN, token.as_bytes());
    }
    Request { method: Code::GET, options, payload: Bytes::new(), observe: None }
}

fn observe(token: &str) -> Request {
    Request { observe: Some(Observe::Register), ..get(SYNC, token) }
}

fn keys(number: u64, security: Security) -> Option<lowband::device::Keys> {
    Some(lowband::device::Keys { number: KeyNumber(number), security, history: History::Fresh })
}

fn by_psk(number: u64, identity: &[u8], key: &[u8]) -> Option<lowband::device::Keys> {
    let identity = String::from_utf8(identity.to_vec()).unwrap();
    keys(number, Security::DtlsPsk(Psk { identity, key: Secret::new(key) }))
}

fn device_with(keys: Option<lowband::device::Keys>) -> Device {
    Device {
        name: "d1".parse().unwrap(),
        user_id: "@d1:hs.example".into(),
        revoked: keys.is_none().then_some(Instant::START),
        keys,
        next: None,
        agreed: Vec::new(),
        link: None,
        routes: Routes::All,
        limits: Limits::default(),
        allow_token: true,
        tokens: None,
        created: Instant::START,
        rotated: None,
    }
}

fn device() -> Device {
    device_with(by_psk(1, IDENTITY, KEY))
}

/// A client that comes by certificate, and shows none of its own unless it is asked.
fn by_certificate(name: &str) -> Credentials {
    Credentials::Certificate {
        certificate: certificate(name),
        server: Trust::Anyone,
        version: Version::Dtls12,
    }
}

/// A gateway with a device that observes its events, and the poll for the next ones.
fn observed(serving: &Serving) -> World {
    let mut world = World::new(serving);
    world.set(&device());
    world.connect(1, &psk());
    world.ask(1, observe("A"));
    world.wait(1_000);
    world.answer(r#"{"next_batch":"s1"}"#);
    world.wait(1_000);
    assert_eq!(world.answers(1).len(), 1);
    assert_eq!(world.gateway.counters().observations, 1);
    world
}

const NEWS: &str = r#"{"next_batch":"s2","to_device":{"events":[{"type":"m.x"}]}}"#;

#[test]
fn a_device_asks_and_observes_by_its_key() {
    let mut world = observed(&DEVICES);
    assert_eq!(world.whoami_beside(1, "A"), Some(Code::CONTENT));
    world.answer_poll(NEWS);
    world.wait(1_000);
    let answers = world.answers(1);
    assert_eq!(answers.len(), 1);
    assert!(answers[0].1, "a notification");
    let counters = world.gateway.counters();
    assert_eq!((counters.dtls.established, counters.dtls_sessions, counters.delivered), (1, 1, 2));
    assert_eq!((counters.peers, counters.unsealed, counters.endpoint.malformed), (1, 0, 0));
}

#[test]
fn who_has_another_key_or_none_gets_nowhere() {
    let mut world = World::new(&DEVICES);
    world.set(&device());
    for (at, credentials) in [
        (1, psk_of(IDENTITY, b"another key, as long")),
        (2, psk_of(b"d2", KEY)),
        (3, by_certificate("client")),
    ] {
        world.connect(at, &credentials);
        world.ask(at, get(WHOAMI, "A"));
        world.wait(600_000);
        assert_eq!(world.clients[&at].closed.len(), 1, "{at}");
        assert!(world.answers(at).is_empty() && world.calls.is_empty());
    }
    assert_eq!(world.gateway.counters().dtls.established, 0);
}

#[test]
fn plain_messages_and_garbage_at_a_secure_address_get_nowhere() {
    let mut world = World::new(&DEVICES);
    world.set(&device());
    // CON GET, /_matrix; an acknowledgement; nothing.
    for datagram in ["40010001b75f6d6174726978", "60000001", ""] {
        let bytes: Vec<_> = (0..datagram.len() / 2)
            .map(|at| u8::from_str_radix(&datagram[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        world.arrive(address(9), &bytes);
    }
    world.wait(60_000);
    assert_eq!((world.bytes_out, world.calls.len(), world.gateway.counters().peers), (0, 0, 0));
}

#[test]
fn a_device_that_closes_its_session_is_told_what_it_missed_in_the_next() {
    let mut world = observed(&DEVICES);
    world.close(1);
    world.wait(1_000);
    assert_eq!((world.gateway.counters().dtls_sessions, world.gateway.counters().absent), (0, 1));
    let sent = world.bytes_out;
    // Nobody asks for events that nobody can be told.
    assert!(world.calls.is_empty());
    world.wait(3_600_000);
    assert_eq!(world.bytes_out, sent, "without a session nothing leaves");

    world.connect(1, &psk());
    world.wait(1_000);
    let (target, _) = world.answer(NEWS);
    assert!(target.contains("since=s1"), "{target}");
    world.wait(1_000);
    let answers = world.answers(1);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(world.gateway.counters().absent, 0);
}

#[test]
fn a_device_is_where_its_newest_session_is() {
    let mut world = observed(&DEVICES);
    // The same client behind another address: its observation goes on, and with it its token.
    let mut client = world.clients.remove(&1).unwrap();
    client.session = None;
    let mut former = Client::new(security::Config::default(), endpoint::Config::default(), 1);
    std::mem::swap(&mut client.dtls, &mut former.dtls);
    world.clients.insert(1, former);
    world.clients.insert(2, client);
    world.connect(2, &psk());
    world.wait(1_000);
    assert_eq!(world.gateway.counters().endpoint.moved, 1);
    // The session at its former address is closed.
    assert_eq!(world.clients[&1].closed, [Reason::ByPeer]);
    world.answer_poll(NEWS);
    world.wait(1_000);
    assert_eq!(world.gateway.counters().delivered, 1 + 1);
    assert_eq!((world.gateway.counters().peers, world.gateway.counters().dtls_sessions), (1, 1));
    assert_eq!(world.gateway.counters().unsealed, 0);
}

#[test]
fn a_message_id_of_another_session_is_a_new_one() {
    let mut world = World::new(&DEVICES);
    world.set(&device());
    for _ in 0..2 {
        // A client that begins anew, and so with the same message IDs.
        world.clients.clear();
        world.connect(1, &psk());
        assert_eq!(world.whoami(1, "A"), Some(Code::CONTENT));
    }
    assert_eq!((world.gateway.counters().fetches, world.gateway.counters().dtls.replaced), (2, 1));
}

#[test]
fn nobody_else_hears_what_is_for_a_device_that_was_at_his_address() {
    let mut world = observed(&Serving { unprovisioned: true, certificate: true, ..DEVICES });
    // Its datagrams do not arrive any more, and somebody else comes from where it was.
    world.clients.clear();
    world.connect(1, &by_certificate("client"));
    world.wait(1_000);
    assert_eq!(world.gateway.counters().dtls.replaced, 1);
    let heard = world.clients[&1].dtls.counters().received_datagrams;
    if !world.calls.is_empty() {
        world.answer_poll(NEWS);
    }
    world.wait(3_600_000);
    assert_eq!(world.clients[&1].dtls.counters().received_datagrams, heard);
    assert!(world.answers(1).is_empty());
    assert_eq!(world.whoami(1, "B"), Some(Code::CONTENT));
}

#[test]
fn strangers_are_served_only_where_that_is_allowed() {
    for (unprovisioned, answer) in [(false, None), (true, Some(Code::CONTENT))] {
        let mut world = World::new(&Serving { unprovisioned, certificate: true, ..DEVICES });
        world.set(&device());
        world.connect(1, &by_certificate("client"));
        assert_eq!(world.whoami(1, "B"), answer);
        assert_eq!(world.calls.len(), 0);
        // A device is served beside them all the same.
        world.connect(2, &psk());
        assert_eq!(world.whoami(2, "A"), Some(Code::CONTENT));
    }
}

#[test]
fn what_is_known_of_a_stranger_ends_with_its_session_and_is_never_stored() {
    let mut world = World::new(&Serving { unprovisioned: true, certificate: true, durable: true, ..DEVICES });
    world.connect(1, &by_certificate("client"));
    world.ask(1, observe("B"));
    world.wait(1_000);
    world.answer(r#"{"next_batch":"s1"}"#);
    world.wait(1_000);
    let counters = world.gateway.counters();
    assert_eq!((counters.observations, counters.sessions, counters.peers), (1, 1, 1));
    assert!(world.stored.is_empty(), "{:?}", world.stored);
    assert_eq!(world.calls.len(), 1);

    world.close(1);
    world.wait(1_000);
    let counters = world.gateway.counters();
    assert_eq!((counters.observations, counters.sessions, counters.peers), (0, 0, 0));
    assert!(world.calls.is_empty(), "the poll is given up");
    // The token was that session's.
    world.connect(1, &by_certificate("client"));
    world.ask(1, get(WHOAMI, ""));
    world.wait(1_000);
    assert_eq!(world.answer("{}").1, None);
}

#[test]
fn a_device_goes_on_after_a_restart_when_it_opens_a_session() {
    let serving = Serving { durable: true, ..DEVICES };
    let mut world = observed(&serving);
    assert!(!world.stored.is_empty());
    world.restart(&serving, &device());
    assert_eq!(world.gateway.counters().observations, 1);
    world.wait(60_000);
    world.connect(1, &psk());
    world.wait(1_000);
    world.answer_poll(NEWS);
    world.wait(1_000);
    assert_eq!(world.answers(1).len(), 1);
}

#[test]
fn a_device_that_is_revoked_is_stopped_at_once() {
    let mut world = observed(&DEVICES);
    world.set(&device_with(None));
    world.wait(1_000);
    assert_eq!(world.clients[&1].closed, [Reason::ByPeer]);
    let counters = world.gateway.counters();
    assert_eq!((counters.dtls_sessions, counters.observations, counters.peers), (0, 0, 0));
    assert!(world.calls.is_empty());
    world.connect(1, &psk());
    world.ask(1, get(WHOAMI, "A"));
    world.wait(600_000);
    assert!(world.calls.is_empty() && world.answers(1).is_empty());
}

#[test]
fn keys_are_rotated_without_loss() {
    let mut world = observed(&DEVICES);
    let rotated = Device { next: by_psk(2, b"d1b", b"fedcba9876543210"), ..device() };
    world.set(&rotated);
    // With the old keys it goes on.
    assert_eq!(world.whoami_beside(1, "A"), Some(Code::CONTENT));
    assert!(world.changes.is_empty());
    world.connect(1, &psk_of(b"d1b", b"fedcba9876543210"));
    world.wait(1_000);
    assert_eq!(world.changes, [DeviceChange::Used(KeyNumber(2))]);
    world.set(&device_with(rotated.next));
    world.answer_poll(NEWS);
    world.wait(1_000);
    assert_eq!(world.gateway.counters().delivered, 2);
    // The old ones are gone.
    world.connect(3, &psk());
    assert_eq!(world.whoami(3, "A"), None);
}

#[test]
fn a_device_may_come_by_its_certificate() {
    let mut world = World::new(&Serving { certificate: true, ..DEVICES });
    let security::Identity::Certificate { certificate: of, .. } = certificate("client").identity() else {
        panic!("no certificate")
    };
    world.set(&device_with(keys(1, Security::DtlsCertificate(Pin(of.0)))));
    world.connect(1, &by_certificate("client"));
    assert_eq!(world.whoami(1, "A"), Some(Code::CONTENT));
    world.connect(2, &by_certificate("other"));
    assert_eq!(world.whoami(2, "A"), None);
    assert_eq!(world.gateway.counters().dtls.unknown_certificates, 1);
}

#[test]
fn on_a_slow_link_handshakes_wait_for_their_turn() {
    let mut world = World::new(&Serving { link: Some("hf-100"), ..DEVICES });
    world.delay = Duration::from_millis(4_500);
    world.set(&device());
    world.connect(1, &psk());
    world.ask(1, get(WHOAMI, "A"));
    while world.calls.is_empty() {
        assert!(world.now < Instant::START + Duration::from_secs(600), "no request");
        world.wait(1_000);
    }
    world.answer("{}");
    world.wait(600_000);
    assert_eq!(world.answers(1).len(), 1);
    assert!(world.departures.len() >= 3, "{:?}", world.departures);
    // 28 bytes of headers with each; 80 ms a byte.
    for pair in world.departures.windows(2) {
        let airtime = Duration::from_millis(80 * (pair[0].1 as u64 + 28));
        assert!(pair[1].0.since(pair[0].0) >= airtime, "{pair:?}");
    }
}

#[test]
fn what_waits_for_a_device_without_a_session_takes_no_time_on_the_link() {
    let serving = Serving { link: Some("hf-100"), ..DEVICES };
    let mut world = World::new(&serving);
    world.set(&device());
    world.connect(1, &psk());
    world.ask(1, observe("A"));
    world.wait(120_000);
    world.answer(r#"{"next_batch":"s1"}"#);
    world.wait(120_000);
    // It goes without a word while it is being told something, and closes its session only then.
    world.answer_poll(NEWS);
    world.close(1);
    world.wait(60_000);
    let sent = world.departures.len();
    world.wait(3_600_000);
    assert_eq!(world.departures.len(), sent);
    let counters = world.gateway.counters();
    // One may have been under way when the session ended.
    assert!(counters.unsealed <= 1 && counters.absent == 1, "{counters:?}");
    world.connect(1, &psk());
    world.wait(120_000);
    world.answer(NEWS);
    world.wait(600_000);
    assert_eq!(world.gateway.counters().delivered, 2);
}

#[test]
fn a_flood_keeps_nobody_from_being_served_and_is_not_amplified() {
    let mut world = observed(&Serving { unprovisioned: true, certificate: true, ..DEVICES });
    let mut liar = machine(security::Config::default());
    let hello = |liar: &mut Dtls, credentials: &Credentials, from: u32| {
        liar.connect(address(from), credentials, Instant::START).unwrap();
        std::iter::from_fn(|| liar.poll()).find_map(|output| match output {
            security::Output::Datagram { bytes, .. } => Some(bytes),
            _ => None,
        })
    };
    let hellos: Vec<_> = [psk(), by_certificate("other")]
        .iter()
        .map(|credentials| hello(&mut liar, credentials, 7).unwrap())
        .collect();
    let (bytes_in, bytes_out) = (world.bytes_in, world.bytes_out);
    for number in 0..20_000_u32 {
        let datagram = match number % 3 {
            2 => number.to_be_bytes().repeat(number as usize % 50),
            kind => hellos[kind as usize].clone(),
        };
        world.arrive(address(10_000 + number), &datagram);
        world.under_way.retain(|_, arrival| match arrival {
            Arrival::AtClient(at, _) | Arrival::AtGateway(at, _) => *at < 10_000,
        });
        if number % 5_000 == 0 {
            assert_eq!(world.whoami_beside(1, "A"), Some(Code::CONTENT));
            let at = 2 + number / 5_000;
            world.connect(at, &by_certificate("client"));
            assert_eq!(world.whoami_beside(at, "C"), Some(Code::CONTENT));
        }
    }
    let counters = world.gateway.counters();
    assert!(counters.dtls_handshakes <= 64, "{counters:?}");
    assert_eq!(counters.peers, 1 + 4);
    let (bytes_in, bytes_out) = (world.bytes_in - bytes_in, world.bytes_out - bytes_out);
    println!("{bytes_in} bytes in, {bytes_out} out");
    assert!(bytes_out <= 3 * bytes_in);
}
