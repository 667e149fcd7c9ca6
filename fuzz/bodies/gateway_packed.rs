//! Any bytes as a program: peers that agree, ask, observe and talk nonsense by the packed profile at the root of a gateway, a homeserver that
//! answers anything, losses, and gateways that die and come back. A gateway never panics, keeps within its limits, says what it says in CoAP, and
//! comes back with what it has stored.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::MessageId;
use lowband::coap::OptionNumber;
use lowband::coap::Options;
use lowband::coap::Token;
use lowband::endpoint::Address;
use lowband::gateway::Config;
use lowband::gateway::FetchId;
use lowband::gateway::Gateway;
use lowband::gateway::Input;
use lowband::gateway::Output;
use lowband::packed::Agreement;
use lowband::packed::Dictionary;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Spelling;
use lowband::translate::packed::Hello;
use lowband::translate::packed::Identity;
use lowband::translate::packed::VERSION;

/// One more than there is room for.
const PEERS: usize = 3;

/// How many instructions are followed.
const LONGEST: usize = 200;

static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(lowband::packed::train::untrained);

/// Runs the program, and panics where a property does not hold.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    let mut program = Program(data);
    for _ in 0..LONGEST {
        let Some(instruction) = program.next() else { break };
        world.step(instruction, &mut program);
    }
    world.come_back();
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

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte() % 64);
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

struct World {
    gateway: Gateway,
    now: Instant,
    /// What each peer takes for agreed.
    ends: [ProxyEnd; PEERS],
    next: u16,
    fetches: Vec<FetchId>,
    /// What the gateway has sent that is to be acknowledged.
    sent: Vec<(Address, MessageId)>,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn config() -> Config {
    let mut config = Config::new("http://hs.example".parse().expect("a URL"));
    config.dictionaries = vec![DICTIONARY.clone()];
    config.packed = PEERS - 1;
    config.endpoint.durable = true;
    config
}

fn address(peer: usize) -> Address {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Address { remote: at(1000 + peer as u16), local: at(5683) }
}

fn agreement(epoch: u32) -> Agreement {
    Agreement { epoch, tokens: 7, transactions: 9 }
}

impl World {
    fn new() -> Self {
        Self {
            gateway: Gateway::new(config(), [7; 32]),
            now: Instant::START,
            ends: std::array::from_fn(|_| ProxyEnd::new(agreement(1))),
            next: 0,
            fetches: Vec::new(),
            sent: Vec::new(),
            stored: BTreeMap::new(),
        }
    }

    fn step(&mut self, instruction: u8, program: &mut Program<'_>) {
        let peer = usize::from(instruction >> 4) % PEERS;
        match instruction & 15 {
            0 | 1 => self.hello(peer, program),
            2..=5 => self.ask(peer, program),
            6 => self.sends(peer, Code::POST, None, program.bytes()),
            7 => self.sends(peer, Code::FETCH, Some(program.byte() % 2), program.bytes()),
            8 => {
                // Few bytes have the epoch; these do.
                let epoch = self.ends.get(peer).map_or(0, |end| end.agreement().epoch as u8 & 7);
                let header = program.byte() & 0x23 | epoch << 2;
                self.sends(peer, Code::POST, None, [vec![header], program.bytes()].concat());
            }
            9..=12 => self.answer(program),
            13 => self.acknowledge(),
            14 => self.wait(program),
            _ => self.come_back(),
        }
    }

    /// A hello, sound or not, after which the peer takes for agreed what it has asked for.
    fn hello(&mut self, peer: usize, program: &mut Program<'_>) {
        let (epoch, damage) = (u32::from(program.byte() % 16), program.byte());
        let identity = Identity::of(&DICTIONARY);
        let hello = Hello { version: VERSION.wrapping_add(damage / 128), identity, epoch, transactions: 9 };
        let mut payload = hello.request().payload.to_vec();
        match damage % 8 {
            1 => payload.truncate(usize::from(program.byte() % 18)),
            2 => payload.iter_mut().skip(3).take(1).for_each(|byte| *byte ^= 0xff),
            3 => payload.extend(program.bytes()),
            _ => {}
        }
        if let Some(end) = self.ends.get_mut(peer) {
            end.begin_epoch(epoch, 7);
        }
        self.sends(peer, Code::POST, None, payload);
    }

    /// A sound request, by what the peer takes for known.
    fn ask(&mut self, peer: usize, program: &mut Program<'_>) {
        let kind = program.byte();
        let text = String::from_utf8_lossy(&program.bytes()).replace(['"', '\\'], "'");
        let text: String = text.chars().filter(|char| !char.is_control()).collect();
        let (method, path, query, body) = match kind % 6 {
            0 | 1 => ("GET", "/_matrix/client/v3/sync".to_owned(), Some("timeout=0".to_owned()), None),
            2 => {
                let position = format!("since=lb00000007_{}", program.byte() % 8);
                ("GET", "/_matrix/client/v3/sync".to_owned(), Some(position), None)
            }
            3 => {
                let path = format!("/_matrix/client/v3/rooms/!r:hs/send/m.room.message/t{}", program.byte());
                ("PUT", path, None, Some(format!("{{\"body\":\"{text}\"}}")))
            }
            4 => ("POST", "/_matrix/client/v3/keys/query".to_owned(), None, Some(text)),
            _ => ("DELETE", "/_matrix/client/unstable/x".to_owned(), None, None),
        };
        let request = Request { method: method.to_owned(), path, query, body: body.map(String::into_bytes) };
        let spelling = if kind & 0x80 == 0 { Spelling::Short } else { Spelling::Full };
        let Some(end) = self.ends.get_mut(peer) else { return };
        let Ok(encoded) = end.encode_request(&request, &DICTIONARY, spelling) else { return };
        if kind & 0x40 == 0 {
            end.acknowledge(encoded.message);
        }
        let observe = (kind.is_multiple_of(6)).then_some(kind >> 3 & 1);
        let code = if method == "GET" { Code::FETCH } else { Code::POST };
        self.sends(peer, code, observe, encoded.payload);
    }

    fn sends(&mut self, peer: usize, code: Code, observe: Option<u8>, payload: Vec<u8>) {
        self.next = self.next.wrapping_add(1);
        let mut options = Options::new();
        if let Some(observe) = observe {
            options.push_uint(OptionNumber::OBSERVE, observe.into());
        }
        let [high, low] = self.next.to_be_bytes();
        let message = Message {
            kind: Kind::Confirmable,
            code,
            id: MessageId(self.next),
            token: Token::new(&[high, low]).expect("a short token"),
            options,
            payload: payload.into(),
        };
        self.gateway
            .handle(Input::Datagram { address: address(peer), datagram: &message.encode() }, self.now);
        self.collect();
    }

    /// The homeserver answers something.
    fn answer(&mut self, program: &mut Program<'_>) {
        let choice = usize::from(program.byte());
        let Some(at) = choice.checked_rem(self.fetches.len()) else { return };
        let id = self.fetches.swap_remove(at);
        let kind = program.byte();
        let noise = program.bytes();
        let number = program.byte() % 8;
        let body = match kind % 8 {
            0 => noise,
            1 => b"{}".to_vec(),
            2 => format!("{{\"next_batch\":\"s{number}\"}}").into_bytes(),
            3 => b"{\"event_id\":\"$goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk\"}".to_vec(),
            _ => {
                let text = String::from_utf8_lossy(&noise).replace(['"', '\\'], "'");
                let text: String = text.chars().filter(|char| !char.is_control()).collect();
                format!(
                    "{{\"next_batch\":\"s{number}\",\"rooms\":{{\"join\":{{\"!r:hs\":{{\"timeline\":{{\"events\":[{{\"type\":\"m.x\",\
                     \"sender\":\"@{text}:hs\",\"unsigned\":{{\"transaction_id\":\"lb00000009.{number}\",\"age\":{kind}}}}}]}}}}}}}}}}"
                )
                .into_bytes()
            }
        };
        let status = match kind >> 5 {
            0 => 404,
            1 => 418,
            2 => 429,
            _ => 200,
        };
        let response = http::Response::builder().status(status).body(Bytes::from(body)).expect("a response");
        self.gateway.handle(Input::Fetched { id, result: Ok(response) }, self.now);
        self.collect();
    }

    fn acknowledge(&mut self) {
        for (address, id) in std::mem::take(&mut self.sent) {
            let datagram = Message::empty(Kind::Acknowledgement, id).encode();
            self.gateway.handle(Input::Datagram { address, datagram: &datagram }, self.now);
        }
        self.collect();
    }

    fn wait(&mut self, program: &mut Program<'_>) {
        let later = self.now + Duration::from_secs(u64::from(program.byte()));
        self.now = self
            .gateway
            .deadline()
            .filter(|_| program.byte().is_multiple_of(2))
            .unwrap_or(later)
            .max(self.now);
        self.gateway.advance(self.now);
        self.collect();
    }

    /// It is killed, and started again with what it has stored.
    fn come_back(&mut self) {
        let known = self.gateway.counters().packed;
        self.gateway = Gateway::new(config(), [8; 32]);
        self.fetches.clear();
        self.gateway.restore(self.stored.clone(), self.now);
        let counters = self.gateway.counters();
        assert_eq!((counters.packed, counters.unreadable), (known, 0));
        self.collect();
    }

    /// Does what the gateway says.
    fn collect(&mut self) {
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Store { key, value: Some(value) } => drop(self.stored.insert(key, value)),
                Output::Store { key, value: None } => drop(self.stored.remove(&key)),
                Output::Datagram { address, datagram } => {
                    let message = Message::decode(&datagram).expect("what is sent is CoAP");
                    if message.kind == Kind::Confirmable {
                        self.sent.push((address, message.id));
                    }
                }
                Output::Fetch { id, .. } => self.fetches.push(id),
                Output::Abandon { id } => self.fetches.retain(|fetch| *fetch != id),
                Output::Device { .. } => {}
            }
        }
        self.sent.truncate(64);
        assert!(self.gateway.counters().packed < PEERS, "more agreements than there is room for");
    }
}
