//! Any bytes as a program: datagrams from three addresses, some of them protected by the keys of a device, time, and a resource that answers sooner or later. An endpoint
//! never panics, sends nothing malformed and not more than it was asked for, and forgets everything in the end.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::coap::Kind;
use lowband::coap::Limits;
use lowband::coap::Message;
use lowband::coap::ObservationId;
use lowband::coap::Observe;
use lowband::coap::OptionNumber;
use lowband::coap::Priority;
use lowband::coap::Request;
use lowband::coap::Response;
use lowband::coap::TransferLimits;
use lowband::endpoint::Address;
use lowband::endpoint::Association;
use lowband::endpoint::Config;
use lowband::endpoint::Endpoint;
use lowband::endpoint::Event;
use lowband::endpoint::RequestId;
use lowband::endpoint::RequestKey;
use lowband::link::End;
use lowband::link::Profile;
use lowband::security::oscore::Challenges;
use lowband::security::oscore::Context;
use lowband::security::oscore::Opened;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::Secret;
use lowband::security::oscore::is_protected;

/// One more than there is room for.
const ADDRESSES: u16 = 3;

/// Whose keys the endpoint has.
const DEVICE: Association = Association::Device(1);
/// The most by which a protected payload is longer: code, options and tag.
const SEALED: usize = 128;

/// Sound datagrams, whose ids and tokens the program replaces and whose bytes it damages: without these, few programs would get far.
const SEEDS: &[&[u8]] = &[
    b"\x41\x01\x00\x00\x01\xb1\x37\x11\x2a\x38since=s1\x0d\x00timeout=30000\xd3\xe4TOK", // a Go client's GET
    b"\x41\x01\x00\x00\x01\x60\x51\x37",                                                 // registration
    b"\x41\x01\x00\x00\x01\x61\x01\x51\x37",                                             // deregistration
    b"\x41\x01\x00\x00\x01\xb1\x37\xc0",                                                 // Block2 0/0/16
    b"\x41\x01\x00\x00\x01\xb1\x37\xc1\x10",                                             // Block2 1/0/16
    b"\x41\x01\x00\x00\x01\xb1\x37\xc1\x20",                                             // Block2 2/0/16
    b"\x41\x03\x00\x00\x01\xb1\x39\xd1\x03\x08\xff0123456789abcdef",                     // Block1 0/1/16
    b"\x41\x03\x00\x00\x01\xb1\x39\xd1\x03\x18\xff0123456789abcdef",                     // Block1 1/1/16
    b"\x41\x03\x00\x00\x01\xb1\x39\xd1\x03\x20\xffrest",                                 // Block1 2/0/16
    b"\x41\x02\x00\x00\x01\xb1\x31\xd1\x03\x0f", // a reserved block size
    b"\x51\x02\x00\x00\x01\xb1\x31\xff\xa0",     // NON
    b"\x41\x01\x00\x00\x01\xb1\x37\xd1\xea\x1a", // No-Response 26
    b"\x41\x01\x00\x00\x01\xb1\x37\xe1\x00\x0c\x01", // Request-Tag
    b"\x41\x01\x00\x00\x01\x91\x00",             // OSCORE, which is critical
    b"\x40\x00\x00\x00",                         // ping
    b"\x60\x00\x00\x00",                         // acknowledgement
    b"\x70\x00\x00\x00",                         // reset
    b"\x61\x45\x00\x00\x01\xff\xa0",             // piggybacked response
    b"\x41\x45\x00\x00\x01\x61\x05\xff\xa0",     // notification
    b"\x61\x45\x00\x00\x01\xd1\x0a\x08\xff0123456789abcdef", // Block2 0/1/16 in a response
    b"\x61\x45\x00\x00\x01\xd1\x0a\x10\xffrest", // Block2 1/0/16 in a response
    b"\x61\x5f\x00\x00\x01\xd1\x0e\x08",         // 2.31 for Block1 0/1/16
    b"\x61\x00\x00\x00\x01\xff\xa0",             // 0.00 with a payload
    b"\x41\x01\x00\x00\x01\xb1\x37\xd1\x07\x08", // Q-Block2 0/1/16
    b"\x41\x01\x00\x00\x01\x60\x51\x37\xd1\x07\x08", // registration with it
    b"\x41\x01\x00\x00\x01\xb1\x37\xd1\x07\x10\x01\x20", // Q-Block2 1/0/16 and 2/0/16
    b"\x41\x01\x00\x00\x01\xb1\x37\xd1\x07\xa8", // Q-Block2 10/1/16
    b"\x51\x45\x00\x00\x01\x41e\xd1\x0b\x24\x31\x08\xff0123456789abcdef", // Q-Block2 0/1/16 in a response
    b"\x51\x45\x00\x00\x01\x41e\xd1\x0b\x24\x31\x18\xff0123456789abcdef", // Q-Block2 1/1/16 in a response
    b"\x51\x45\x00\x00\x01\x41e\xd1\x0b\x24\x31\x20\xffrest", // Q-Block2 2/0/16 in a response
    b"\x51\x45\x00\x00\x01\x41e\x21\x05\xd1\x09\x24\x31\x08\xff0123456789abcdef", // and in a notification
    b"\x41\x45\x00\x00\x01\x41e\x21\x05\xd1\x09\x24\x31\x18\xff0123456789abcdef",
    b"\x61\x82\x00\x00\x01", // 4.02
    b"\x51\x03\x00\x00\x01\xb1\x39\x81\x08\xd1\x1c\x24\xd1\xdb\x07\xff0123456789abcdef", // Q-Block1 0/1/16
    b"\x51\x03\x00\x00\x01\xb1\x39\x81\x18\xd1\x1c\x24\xd1\xdb\x07\xff0123456789abcdef", // Q-Block1 1/1/16
    b"\x41\x03\x00\x00\x01\xb1\x39\x81\x20\xd1\x1c\x24\xd1\xdb\x07\xffrest", // Q-Block1 2/0/16
    b"\x41\x03\x00\x00\x01\xb1\x39\x81\x18\xd1\x1c\x24\xd1\xdb\x07\xff0123456789abcdef",
    b"\x41\x03\x00\x00\x01\xb1\x39\x81\xa8\xd2\x1c\x01\x2c\xd1\xdb\x08\xff0123456789abcdef", // Q-Block1 10/1/16
    b"\x61\x5f\x00\x00\x01\xd1\x06\x0c", // 2.31 for Q-Block1 0/1/256
    b"\x61\x5f\x00\x00\x01\xd1\x06\x7c", // and 7/1/256
    b"\x61\x88\x00\x00\x01\xc2\x01\x10\xff\x00\x02\x05", // 4.08: 0, 2 and 5 are missing
    b"\x51\x88\x00\x00\x01\xc2\x01\x10\xff\x01",
    b"\x61\x44\x00\x00\x01", // 2.04
];

/// Runs the program, and panics where a property does not hold.
pub fn run(data: &[u8]) {
    if let Ok(message) = Message::decode(data) {
        assert_eq!(message.encode(), data, "what is decoded is encoded to the same bytes");
    }
    // Half of the programs are about a link that is paced, and has bursts of blocks.
    let mut world = World::new(data.len().is_multiple_of(2));
    let mut program = Program(data);
    while let Some(instruction) = program.next() {
        world.step(instruction, &mut program);
    }
    world.wind_down();
}

/// What is left of the program. It ends in zeros.
struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

/// The endpoint, what its surroundings know of it, and what they have asked of it.
struct World {
    endpoint: Endpoint,
    config: Config,
    /// The other end of a device's keys, which the endpoint has; none where they could not be had.
    device: Option<Context>,
    now: Instant,
    last: Option<(Address, Vec<u8>)>,
    /// The ids and tokens of its own messages: what an acknowledgement, a reset or a response would fit.
    sent: Vec<(Address, Message)>,
    waiting: Vec<RequestKey>,
    observations: Vec<ObservationId>,
    /// Notifications and answers to registrations whose end was not reported yet.
    undelivered: BTreeSet<ObservationId>,
    requests: Vec<RequestId>,
    /// How many messages the endpoint may have sent, without repeats.
    allowed: u64,
    /// How many blocks may follow the one that answers a request.
    burst: u64,
}

impl World {
    fn new(paced: bool) -> Self {
        let mut profile = Profile::built_in("hf-100").unwrap_or_else(|| Profile::unlimited("hf-100"));
        profile.overhead = 0;
        let links = BTreeMap::from([("hf-100".to_owned(), profile.faster(1_000).terms(End::Gateway))]);
        let config = Config {
            links,
            link: paced.then(|| "hf-100".to_owned()),
            exchanges: Limits { remembered: 8, remembered_bytes: 600, waiting: 3 },
            transfers: TransferLimits {
                body: 300,
                bodies: 2,
                bytes: 500,
                q_block: true,
                ..TransferLimits::default()
            },
            peers: usize::from(ADDRESSES) - 1,
            pending: 3,
            observations: 2,
            token_length: 1,
            ..Config::default()
        };
        let keys = Parameters::new(Secret::from([7; 16]), b"", b"\x01");
        let mut endpoint = Endpoint::new(config.clone(), [7; 32]);
        assert_eq!(endpoint.admit_keys(1, DEVICE, keys.mirrored()), Ok(()));
        Self {
            endpoint,
            config,
            device: Context::new(&keys).ok(),
            now: Instant::START,
            last: None,
            sent: Vec::new(),
            waiting: Vec::new(),
            observations: Vec::new(),
            undelivered: BTreeSet::new(),
            requests: Vec::new(),
            allowed: 0,
            burst: if paced { 9 } else { 0 },
        }
    }

    fn step(&mut self, instruction: u8, program: &mut Program<'_>) {
        match instruction % 16 {
            0 => {
                let length = usize::from(program.byte());
                let datagram = program.bytes(length);
                self.receive(address(instruction), datagram);
            }
            1..=6 => {
                let mut datagram = damaged_seed(program);
                if instruction % 16 > 4 {
                    datagram = self.protect(datagram);
                    damage(&mut datagram, program);
                }
                self.receive(address(instruction), datagram);
            }
            7 | 8 => self.reply(instruction, program),
            9 => self.repeat_last(),
            10 => self.wait(program),
            11 | 12 => self.answer(program),
            13 => self.notify(program),
            14 => self.request(instruction, program),
            _ => self.close(program),
        }
    }

    /// One datagram, and the bounds on what it makes the endpoint send.
    fn receive(&mut self, address: Address, datagram: Vec<u8>) -> bool {
        // A reply and what goes on with a request; what is missing of a burst is asked for some times more.
        self.allowed += 2 + self.burst + 8;
        self.endpoint.handle(address, &datagram, self.now);
        let replies = self.collect_datagrams();
        // RFC 7252 §4.2: acknowledgements and resets are answered with neither.
        if datagram.first().is_some_and(|first| matches!(first >> 4, 6 | 7)) {
            let empty = |kind| matches!(kind, Kind::Acknowledgement | Kind::Reset);
            assert!(
                !replies.iter().any(|reply| empty(reply.kind)),
                "{datagram:02x?} is answered: {replies:?}"
            );
        }
        self.last = Some((address, datagram));
        self.collect_events()
    }

    /// What a device makes of a request; anything else as it is.
    fn protect(&mut self, datagram: Vec<u8>) -> Vec<u8> {
        let (Some(device), Ok(message)) = (&mut self.device, Message::decode(&datagram)) else {
            return datagram;
        };
        device.reserve();
        device.protect_request(&message).map_or(datagram, |(sealed, _)| sealed.message.encode())
    }

    /// What a device answers to a request of the endpoint's.
    fn protect_answer(&mut self, asked: &Message, datagram: Vec<u8>) -> Vec<u8> {
        let (Some(device), Ok(message)) = (&mut self.device, Message::decode(&datagram)) else {
            return datagram;
        };
        device.reserve();
        let challenges = Challenges::new([0; 32], Duration::from_secs(60));
        let Ok(Opened::Request { mut binding, .. }) = device.open_request(asked, &challenges, self.now)
        else {
            return datagram;
        };
        device.protect_response(&message, &mut binding).map_or(datagram, |sealed| sealed.message.encode())
    }

    /// RFC 7252 §4.5: a message that comes twice is processed once.
    fn repeat_last(&mut self) {
        let Some((address, datagram)) = self.last.clone() else { return };
        if !self.receive(address, datagram.clone()) {
            return;
        }
        let Ok(message) = Message::decode(&datagram) else { panic!("{datagram:02x?} is a request") };
        assert!(!self.receive(address, datagram), "the same request is reported twice: {message:?}");
    }

    /// An acknowledgement, a reset or a response that fits a message of the endpoint's.
    fn reply(&mut self, instruction: u8, program: &mut Program<'_>) {
        let choice = usize::from(program.byte());
        let Some((address, message)) =
            choice.checked_rem(self.sent.len()).and_then(|at| self.sent.get(at)).cloned()
        else {
            return;
        };
        let mut datagram = match program.byte() % 4 {
            0 => Message::empty(Kind::Acknowledgement, message.id).encode(),
            1 => Message::empty(Kind::Reset, message.id).encode(),
            _ => damaged_seed(program),
        };
        if let Some(id) = datagram.get_mut(2..4).filter(|_| instruction & 0x80 == 0) {
            id.copy_from_slice(&message.id.0.to_be_bytes());
        }
        if let (Some(token), [own, ..]) = (datagram.get_mut(4), message.token.as_slice()) {
            *token = *own;
        }
        if message.code.is_request() && is_protected(&message) {
            datagram = self.protect_answer(&message, datagram);
            damage(&mut datagram, program);
        }
        self.receive(address, datagram);
    }

    fn wait(&mut self, program: &mut Program<'_>) {
        let until = match (program.byte() % 4, self.endpoint.deadline()) {
            (0, Some(deadline)) => deadline,
            (1, _) => self.now + Duration::from_millis(u64::from(program.byte())),
            (2, _) => self.now + Duration::from_secs(u64::from(program.byte())),
            _ => self.now,
        };
        self.advance(until);
    }

    fn advance(&mut self, until: Instant) {
        self.now = self.now.max(until);
        self.endpoint.advance(self.now);
        let is_overdue =
            |endpoint: &Endpoint, now| endpoint.deadline().is_some_and(|deadline| deadline <= now);
        // What has waited in a queue until it was of no use is given up at once.
        if self.burst > 0 && is_overdue(&self.endpoint, self.now) {
            self.endpoint.advance(self.now);
        }
        assert!(!is_overdue(&self.endpoint, self.now), "nothing is overdue");
        self.collect_datagrams();
        self.collect_events();
    }

    fn answer(&mut self, program: &mut Program<'_>) {
        let choice = usize::from(program.byte());
        let Some(at) = choice.checked_rem(self.waiting.len()) else { return };
        let key = self.waiting.swap_remove(at);
        let response = response(program);
        if program.byte().is_multiple_of(2) {
            self.endpoint.respond(key, response, self.now);
        } else if let Some(id) = self.endpoint.accept_observation(key, response, self.now) {
            self.observations.push(id);
            self.undelivered.insert(id);
        }
        self.collect_datagrams();
        self.collect_events();
    }

    fn notify(&mut self, program: &mut Program<'_>) {
        let choice = usize::from(program.byte());
        let Some(id) =
            choice.checked_rem(self.observations.len()).and_then(|at| self.observations.get(at)).copied()
        else {
            return;
        };
        let response = response(program);
        if !self.undelivered.insert(id) {
            return;
        }
        self.allowed += 1 + self.burst;
        let ends = !response.code.is_success();
        self.endpoint.notify(id, response, Priority::Notification, self.now);
        self.collect_datagrams();
        self.collect_events();
        if ends {
            self.forget(id);
        }
    }

    fn request(&mut self, instruction: u8, program: &mut Program<'_>) {
        // The request, the other blocks of its burst, and the deregistration where it is cancelled.
        self.allowed += 2 + self.burst;
        let mut request = Request::new(if program.byte().is_multiple_of(2) { Code::GET } else { Code::POST });
        request.options.push(OptionNumber::URI_PATH, "7");
        request.observe = program.byte().is_multiple_of(2).then_some(Observe::Register);
        request.payload = vec![b'x'; usize::from(program.byte()) * 8].into();
        let place = address(instruction);
        let whom = if instruction & 0x80 == 0 { place.into() } else { DEVICE };
        self.requests.push(self.endpoint.request_to(whom, Priority::Message, place, request, self.now));
        self.collect_datagrams();
        self.collect_events();
    }

    fn close(&mut self, program: &mut Program<'_>) {
        let choice = usize::from(program.byte());
        if let Some(at) = choice.checked_rem(self.requests.len()) {
            let id = self.requests.swap_remove(at);
            self.endpoint.cancel(id, self.now);
        } else if let Some(at) = choice.checked_rem(self.observations.len()) {
            let id = self.observations.swap_remove(at);
            self.forget(id);
            self.endpoint.end_observation(id, self.now);
        }
        self.collect_datagrams();
        self.collect_events();
    }

    /// Ends all that has no end of its own, and waits until nothing more can happen.
    fn wind_down(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            self.endpoint.respond(key, Response::new(Code::GATEWAY_TIMEOUT), self.now);
        }
        for id in std::mem::take(&mut self.requests) {
            self.endpoint.cancel(id, self.now);
        }
        self.collect_datagrams();
        self.collect_events();
        self.exhaust();
        assert!(self.undelivered.is_empty(), "never reported: {:?}", self.undelivered);
        for id in std::mem::take(&mut self.observations) {
            self.endpoint.end_observation(id, self.now);
        }
        self.exhaust();
        assert_eq!(self.endpoint.pending(), 0);
        assert_eq!(self.endpoint.peers(), 0);
        assert!(self.endpoint.is_settled());
    }

    /// Lets time pass from deadline to deadline until there is none.
    fn exhaust(&mut self) {
        for _ in 0..10_000 {
            let Some(deadline) = self.endpoint.deadline() else { return };
            assert!(deadline.since(self.now) <= Duration::from_secs(300), "{deadline:?} is far away");
            self.advance(deadline);
        }
        panic!("always something to do");
    }

    fn collect_datagrams(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.endpoint.poll_memory().is_some() {}
        while let Some((address, datagram)) = self.endpoint.poll_datagram() {
            let message =
                Message::decode(&datagram).unwrap_or_else(|error| panic!("{datagram:02x?}: {error}"));
            assert_eq!(message.encode(), datagram);
            let most = if is_protected(&message) { 1024 + SEALED } else { 1024 };
            assert!(message.payload.len() <= most, "no payload is larger than a block");
            if message.kind == Kind::Confirmable {
                self.sent.push((address, message.clone()));
            }
            messages.push(message);
        }
        // What a test remembers is bounded too.
        self.sent.drain(..self.sent.len().saturating_sub(16));
        let counters = self.endpoint.counters();
        // Each message of its own is repeated four times. One that waits in a queue is counted as a repeat before it is sent.
        assert!(counters.sent_datagrams <= 5 * self.allowed, "{counters:?} for {}", self.allowed);
        if self.burst == 0 {
            let fresh = counters.sent_datagrams - counters.repeats;
            assert!(fresh <= self.allowed, "{fresh} messages for {}", self.allowed);
            assert!(counters.repeats <= 4 * fresh);
        }
        assert!(self.endpoint.peers() <= self.config.peers);
        assert!(self.endpoint.pending() <= self.config.peers * self.config.pending);
        messages
    }

    /// Whether there is a request among the events.
    fn collect_events(&mut self) -> bool {
        let mut requested = false;
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request { key, request, .. } => {
                    assert!(request.payload.len() <= self.config.transfers.body.max(65_507));
                    self.waiting.push(key);
                    requested = true;
                }
                Event::Delivered(id) | Event::Undelivered(id) => {
                    assert!(self.undelivered.remove(&id), "{id:?} is reported twice");
                }
                Event::Deregistered(id) => self.forget(id),
                Event::Reachable(_)
                | Event::Unreachable(_)
                | Event::KeysAgreed { .. }
                | Event::KeysSpent { .. }
                | Event::Unprotected { .. }
                | Event::KeysUsed { .. } => {}
                Event::Response { id, notification, .. } => {
                    assert!(self.requests.contains(&id), "a response to nothing");
                    self.requests.retain(|other| *other != id || notification);
                }
                Event::Failed { id, .. } => self.requests.retain(|other| *other != id),
            }
        }
        requested
    }

    fn forget(&mut self, id: ObservationId) {
        self.undelivered.remove(&id);
        self.observations.retain(|other| *other != id);
    }
}

fn address(instruction: u8) -> Address {
    let port = 1000 + u16::from(instruction >> 4) % ADDRESSES;
    Address {
        remote: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 5683)),
    }
}

/// One of the seeds with an id and a token of few values, and perhaps one byte replaced and the end cut off.
fn damaged_seed(program: &mut Program<'_>) -> Vec<u8> {
    let seed = SEEDS.get(usize::from(program.byte()) % SEEDS.len()).copied().unwrap_or_default();
    let mut datagram = seed.to_vec();
    let [id, token, damage] = [program.byte(), program.byte(), program.byte()];
    if let Some([_, low]) = datagram.get_mut(2..4) {
        *low = id % 16;
    }
    if let Some(own) = datagram.get_mut(4) {
        *own = token % 4;
    }
    if damage >= 0xe0 {
        let [at, byte, end] = [program.byte(), program.byte(), program.byte()].map(usize::from);
        let at = at % datagram.len();
        if let Some(damaged) = datagram.get_mut(at) {
            *damaged = byte.to_le_bytes()[0];
        }
        datagram.truncate(end.max(4));
    }
    datagram
}

/// Perhaps turns a bit.
fn damage(datagram: &mut [u8], program: &mut Program<'_>) {
    let [whether, at] = [program.byte(), program.byte()].map(usize::from);
    if whether < 0xe0 {
        return;
    }
    let at = at % datagram.len();
    if let Some(damaged) = datagram.get_mut(at) {
        *damaged ^= 1 << (whether % 8);
    }
}

/// A response of any size, sometimes larger than what is held.
fn response(program: &mut Program<'_>) -> Response {
    let code = match program.byte() % 8 {
        0 => Code::NOT_FOUND,
        1 => Code::GATEWAY_TIMEOUT,
        _ => Code::CONTENT,
    };
    let length = usize::from(program.byte()) * usize::from(program.byte() % 16);
    Response { payload: Bytes::from(vec![b'y'; length]), ..Response::new(code) }
}
