//! Floods from addresses that are not the sender's: what an endpoint keeps, what it sends, and who is served meanwhile.

#![expect(unreachable_pub, reason = "parts of a test")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/allocations.rs"]
#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod allocations;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use allocations::Metered;
use lowband::coap::{Code, Instant, Message, Observe, OptionNumber, Priority, Request, Response};
use lowband::endpoint::{Address, Association, Config, Endpoint, Event, RequestId, RequestKey};
use lowband::security::oscore::{Parameters, Secret};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: Metered = Metered;

const DEVICE: Association = Association::Device(7);
const FLOOD: u32 = 100_000;
/// How long the homeserver takes, in milliseconds; the flood takes two seconds.
const UPSTREAM: u32 = 100;

fn address(number: u32) -> Address {
    let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number);
    Address {
        remote: (host, 1024 + number as u16 % 40_000).into(),
        local: "192.0.2.254:5683".parse().unwrap(),
    }
}

fn parameters() -> Parameters {
    Parameters::new(Secret::from([7; 16]), b"", b"\x01")
}

/// One who is where it says.
struct Peer {
    home: Address,
    endpoint: Endpoint,
    whom: Association,
    asked: Vec<RequestId>,
    answers: usize,
    notifications: usize,
    inbox: VecDeque<Vec<u8>>,
}

impl Peer {
    fn new(number: u32, whom: Association) -> Self {
        let mut endpoint = Endpoint::new(Config::default(), [number as u8; 32]);
        if whom == DEVICE {
            endpoint.admit_keys(1, DEVICE, parameters()).unwrap();
        }
        let (asked, inbox) = (Vec::new(), VecDeque::new());
        Self { home: address(FLOOD + number), endpoint, whom, asked, answers: 0, notifications: 0, inbox }
    }

    fn ask(&mut self, path: &str, observe: Option<Observe>, now: Instant) {
        let mut request = Request { observe, ..Request::new(Code::GET) };
        request.options.push(OptionNumber::URI_PATH, path);
        let server = address(0);
        self.asked.push(self.endpoint.request_to(self.whom, Priority::Message, server, request, now));
    }
}

struct Siege {
    server: Endpoint,
    now: Instant,
    peers: Vec<Peer>,
    bytes_in: u64,
    bytes_out: u64,
    /// What each address sent and got that is not its sender's.
    spoofed: BTreeMap<Address, (u64, u64)>,
    waiting: VecDeque<(u32, RequestKey, bool)>,
    round: u32,
    most_peers: usize,
    most_pending: usize,
}

impl Siege {
    fn new(config: Config) -> Self {
        let mut server = Endpoint::new(config, [9; 32]);
        server.admit_keys(1, DEVICE, parameters().mirrored()).unwrap();
        Self {
            server,
            now: Instant::START,
            peers: vec![
                Peer::new(1, address(0).into()),
                Peer::new(2, address(0).into()),
                Peer::new(3, DEVICE),
            ],
            bytes_in: 0,
            bytes_out: 0,
            spoofed: (1..=FLOOD).map(|number| (address(number), (0, 0))).collect(),
            waiting: VecDeque::new(),
            round: 0,
            most_peers: 0,
            most_pending: 0,
        }
    }

    fn from(&mut self, from: Address, datagram: &[u8]) {
        self.bytes_in += datagram.len() as u64;
        if let Some((sent, _)) = self.spoofed.get_mut(&from) {
            *sent += datagram.len() as u64;
        }
        self.server.handle(from, datagram, self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(event) = self.server.poll_event() {
            if let Event::Request { key, request, .. } = event {
                let observed = request.observe == Some(Observe::Register);
                self.waiting.push_back((self.round + UPSTREAM, key, observed));
            }
        }
        while let Some((to, datagram)) = self.server.poll_datagram() {
            match self.spoofed.get_mut(&to) {
                Some((_, got)) => *got += datagram.len() as u64,
                None => self
                    .peers
                    .iter_mut()
                    .filter(|peer| peer.home == to)
                    .for_each(|peer| peer.inbox.push_back(datagram.clone())),
            }
            if self.spoofed.contains_key(&to) {
                self.bytes_out += datagram.len() as u64;
            }
        }
        self.most_peers = self.most_peers.max(self.server.peers());
        self.most_pending = self.most_pending.max(self.server.pending());
    }

    /// The homeserver answers, always at length.
    fn answer(&mut self) {
        while self.waiting.front().is_some_and(|(due, ..)| *due <= self.round) {
            let Some((_, key, observed)) = self.waiting.pop_front() else { return };
            let response = Response { payload: vec![7; 3_000].into(), ..Response::new(Code::CONTENT) };
            match observed {
                true => drop(self.server.accept_observation(key, response, self.now)),
                false => self.server.respond(key, response, self.now),
            }
            self.collect();
        }
    }

    fn tick(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(due) = self.server.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.server.advance(self.now);
            self.collect();
        }
        self.now = until;
        self.round += 1;
        self.answer();
    }

    /// Those who are where they say hear and speak.
    fn peers_go_on(&mut self) {
        for number in 0..self.peers.len() {
            let (now, peer) = (self.now, self.peers.get_mut(number).unwrap());
            if peer.endpoint.deadline().is_some_and(|due| due <= now) {
                peer.endpoint.advance(now);
            }
            for datagram in std::mem::take(&mut peer.inbox) {
                peer.endpoint.handle(address(0), &datagram, now);
            }
            while let Some(event) = peer.endpoint.poll_event() {
                match event {
                    Event::Response { notification, response, .. } => {
                        assert_eq!(response.payload.len(), 3_000);
                        peer.notifications += usize::from(notification);
                        peer.answers += usize::from(!notification);
                    }
                    other => panic!("{other:?}"),
                }
            }
            let (home, sent): (_, Vec<_>) =
                (peer.home, std::iter::from_fn(|| peer.endpoint.poll_datagram()).collect());
            for (_, datagram) in sent {
                self.from(home, &datagram);
            }
        }
    }
}

/// What somebody sends in others' names.
fn spoofed(number: u32, chance: &mut ChaCha8Rng) -> Vec<u8> {
    let [high, low] = (number as u16).to_be_bytes();
    let head = |first: u8, code: u8| vec![first, code, high, low, 0xaa];
    match number % 8 {
        // GET /abc, confirmable or not, with an answer that is long.
        0 => [head(0x41, 1), b"\xb3abc".to_vec()].concat(),
        1 => [head(0x51, 1), b"\xb3abc".to_vec()].concat(),
        // The same, to be observed.
        2 => [head(0x41, 1), b"\x60\x53abc".to_vec()].concat(),
        // PUT /abc with a body.
        3 => [head(0x41, 3), b"\xb3abc\xff".to_vec(), vec![1; 60]].concat(),
        // Protected, by nobody and by somebody that is known.
        4 | 5 => {
            let kid = if number % 8 == 4 { b"\x01".as_slice() } else { b"\x02\x03" };
            let option = [&[0x09, chance.next_u32() as u8], kid].concat();
            let mut noise = vec![0; 20];
            chance.fill_bytes(&mut noise);
            [head(0x41, 2), vec![0x90 | option.len() as u8], option, vec![0xff], noise].concat()
        }
        // A ping.
        6 => vec![0x40, 0, high, low],
        // Noise.
        _ => {
            let mut noise = vec![0; 1 + chance.next_u32() as usize % 100];
            chance.fill_bytes(&mut noise);
            if number.is_multiple_of(3) {
                // As far as to its options it is a message.
                noise.splice(..0, [0x40, 1, high, low]);
            }
            noise
        }
    }
}

#[test]
fn peers_are_served_in_the_middle_of_100_000_requests_in_others_names() {
    let config = Config::default();
    let strangers = config.strangers;
    let mut siege = Siege::new(config);
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    // Of the peers, two are known before; the third comes in the midst of it.
    for number in [0, 2] {
        siege.peers.get_mut(number).unwrap().ask("sync", Some(Observe::Register), Instant::START);
    }
    for _ in 0..10 * UPSTREAM {
        siege.peers_go_on();
        siege.tick(Duration::from_millis(1));
    }
    siege.bytes_in = 0;
    let usage = allocations::measure(|| {
        for number in 1..=FLOOD {
            let datagram = spoofed(number, &mut chance);
            siege.from(address(number), &datagram);
            if number.is_multiple_of(50) {
                siege.tick(Duration::from_millis(1));
            }
            if number.is_multiple_of(100) {
                siege.peers_go_on();
            }
            if number.is_multiple_of(20_000) {
                let now = siege.now;
                siege.peers.iter_mut().for_each(|peer| peer.ask("large", None, now));
            }
        }
    });
    for _ in 0..100 * UPSTREAM {
        siege.tick(Duration::from_millis(10));
        siege.peers_go_on();
    }
    let counters = siege.server.counters();
    println!(
        "{counters:?}\n{} bytes in, {} out; at most {} peers, {} requests, {} bytes",
        siege.bytes_in, siege.bytes_out, siege.most_peers, siege.most_pending, usage.peak
    );
    for (address, (sent, got)) in &siege.spoofed {
        assert!(*got <= 3 * sent, "{address:?} got {got} for {sent}");
    }
    for peer in &siege.peers {
        assert_eq!(peer.answers, 5, "{:?}", peer.home);
    }
    assert_eq!(siege.peers.iter().map(|peer| peer.notifications).collect::<Vec<_>>(), [1, 0, 1]);
    assert!(siege.most_peers <= strangers + siege.peers.len());
    assert!(usage.peak < 8 << 20, "{}", usage.peak);
    assert_eq!(siege.server.observations().count(), 2);
    // None of them stays.
    siege.tick(Duration::from_secs(3600));
    assert!(siege.server.peers() <= siege.peers.len());
}

#[test]
fn what_is_sent_to_an_address_of_another_is_counted_over_all_that_came_in_its_name() {
    let mut siege = Siege::new(Config::default());
    let mut chance = ChaCha8Rng::seed_from_u64(2);
    // All of it in the names of few.
    for number in 1..=20_000 {
        let datagram = spoofed(number, &mut chance);
        siege.from(address(1 + number % 7), &datagram);
        siege.tick(Duration::from_millis(20));
    }
    siege.tick(Duration::from_secs(3600));
    println!("{} bytes in, {} out", siege.bytes_in, siege.bytes_out);
    for (address, (sent, got)) in &siege.spoofed {
        assert!(*got <= 3 * sent, "{address:?} got {got} for {sent}");
    }
    assert_eq!(siege.server.observations().count(), 0);
}

/// A message that cannot be read is at most rejected, and that is no longer than it.
#[test]
fn an_answer_to_a_message_without_a_peer_is_at_most_three_times_it() {
    let mut chance = ChaCha8Rng::seed_from_u64(3);
    for number in 1..=20_000 {
        let mut server = Endpoint::new(Config { strangers: 0, ..Config::default() }, [3; 32]);
        let datagram = spoofed(number, &mut chance);
        server.handle(address(number), &datagram, Instant::START);
        let got: usize = std::iter::from_fn(|| server.poll_datagram()).map(|(_, it)| it.len()).sum();
        assert!(got <= 3 * datagram.len(), "{got} for {datagram:02x?}: {:?}", Message::decode(&datagram));
        assert_eq!(server.peers(), 0);
    }
}
