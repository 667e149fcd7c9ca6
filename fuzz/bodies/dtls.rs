//! Any bytes as a program: datagrams from a client, from those who change them, and from those who make them up. A server of DTLS
//! never panics, holds no more than it may, opens nothing but what was sealed, and sends no stranger more than three times what
//! came in its name.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use lowband::coap::Address;
use lowband::coap::Instant;
use lowband::security::dtls::Certificate;
use lowband::security::dtls::Config;
use lowband::security::dtls::Credentials;
use lowband::security::dtls::Dtls;
use lowband::security::dtls::Keys;
use lowband::security::dtls::Output;
use lowband::security::dtls::SessionId;
use lowband::security::dtls::Trust;
use lowband::security::dtls::Version;

const ADDRESSES: u8 = 6;
const SESSIONS: usize = 4;
const SEALED: &[u8] = b"sealed";

/// Records whose bytes the program damages: without these, few programs would get past the first check.
const SEEDS: &[&[u8]] = &[
    b"\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0c\x0e\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00", // ServerHelloDone
    b"\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x02\x00\x10\x10\x00\x00\x04\x00\x02\x00\x00\x00\x00\x00\x04\x00\x02d1", // ClientKeyExchange
    b"\x14\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x03\x00\x01\x01", // ChangeCipherSpec
    b"\x15\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x04\x00\x02\x02\x28", // fatal alert
    b"\x15\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x04\x00\x02\x01\x00", // close_notify in clear
    b"\x16\xfe\xfd\x00\x01\x00\x00\x00\x00\x00\x00\x00\x28........FinishedFinishedFinishedFinished", // Finished
    b"\x17\xfe\xfd\x00\x01\x00\x00\x00\x00\x00\x01\x00\x18........datadatadatadata", // data
    b"\x2e\x00\x01\x00\x18datadatadatadatadatadata",                                 // Finished of 1.3
    b"\x2f\x00\x01\x00\x18datadatadatadatadatadata",                                 // data of 1.3
    b"\x1a\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x05\x00\x02\x00\x00",                 // ACK of 1.3
];

/// Runs the program, and panics where a property does not hold.
pub fn run(data: &[u8]) {
    let mut program = Program(data);
    let mut world = World::new(program.byte());
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

    /// Changes some bytes, cuts, or appends.
    fn damage(&mut self, datagram: &mut Vec<u8>) {
        for _ in 0..1 + self.byte() % 3 {
            let (at, value) = (usize::from(self.byte()), self.byte());
            match value % 8 {
                0 => datagram.truncate(at),
                1 => datagram.extend_from_within(at.min(datagram.len())..),
                _ => {
                    let length = datagram.len().max(1);
                    if let Some(byte) = datagram.get_mut(at % length) {
                        *byte = byte.wrapping_add(value);
                    }
                }
            }
        }
    }
}

/// A server and a client, with what is between them.
struct World {
    server: Dtls,
    client: Dtls,
    now: Instant,
    up: Vec<Vec<u8>>,
    down: Vec<Vec<u8>>,
    /// Datagrams of the past, to be sent again.
    past: Vec<Vec<u8>>,
    sessions: Vec<SessionId>,
    connected: Option<SessionId>,
    credentials: Credentials,
    /// Bytes that came from an address and went to it.
    balance: BTreeMap<Address, (u64, u64)>,
}

impl World {
    fn new(kind: u8) -> Self {
        let keys = Keys::new();
        keys.insert(b"d1", b"secret".to_vec());
        let own = || {
            let certificate = include_bytes!("../../tests/vectors/dtls/server.der").to_vec();
            let key = include_bytes!("../../tests/vectors/dtls/server.key.der").to_vec();
            Certificate::new(certificate, key).expect("a certificate and its key")
        };
        let (by_certificate, version) = match kind % 4 {
            0 | 1 => (false, Version::Dtls12),
            2 => (true, Version::Dtls12),
            _ => (true, Version::Dtls13),
        };
        let credentials = match by_certificate {
            false => Credentials::Psk { identity: b"d1".to_vec(), key: b"secret".to_vec().into() },
            true => Credentials::Certificate { certificate: own(), server: Trust::Anyone, version },
        };
        let config = Config {
            keys: Some(keys),
            certificate: by_certificate.then(own),
            clients: if kind & 16 == 0 { Trust::Anyone } else { Trust::AnyCertificate },
            dtls_1_3: true,
            sessions: SESSIONS,
            handshakes: 2,
            unverified: usize::from(kind / 4 % 3),
            key_log: kind & 32 != 0,
            ..Config::default()
        };
        Self {
            server: machine(config),
            client: machine(Config::default()),
            now: Instant::START,
            up: Vec::new(),
            down: Vec::new(),
            past: Vec::new(),
            sessions: Vec::new(),
            connected: None,
            credentials,
            balance: BTreeMap::new(),
        }
    }

    fn step(&mut self, instruction: u8, program: &mut Program<'_>) {
        let stranger = address(instruction / 16);
        match instruction % 16 {
            0 => {
                let length = usize::from(program.byte());
                let datagram = program.bytes(length);
                self.serve(stranger, &datagram);
            }
            1 | 2 => {
                let seed = SEEDS.get(usize::from(program.byte()) % SEEDS.len()).copied().unwrap_or_default();
                let mut datagram = seed.to_vec();
                program.damage(&mut datagram);
                self.serve(stranger, &datagram);
                self.client.handle(address(0), &datagram, self.now);
            }
            3 | 4 => self.connect(),
            5..=8 => self.exchange(),
            9 => self.exchange_damaged(program),
            10 => {
                let past = self.past.get(usize::from(program.byte()) % self.past.len().max(1)).cloned();
                self.serve(stranger, &past.unwrap_or_default());
            }
            11 => self.wait(Duration::from_millis(u64::from(program.byte()) * 100)),
            12 => self.seal(),
            13 => {
                // Something of the client's is lost, or comes in another order.
                self.up.reverse();
                self.down.pop();
            }
            14 => self.close(program),
            _ => {
                self.client = machine(Config::default());
                self.connected = None;
            }
        }
        self.collect();
        assert!(self.server.sessions() <= SESSIONS, "{:?}", self.server);
        assert!(self.server.handshakes() <= self.server.sessions(), "{:?}", self.server);
    }

    /// A datagram comes to the server, and what the address got for it is bounded, if nobody has shown to be there.
    fn serve(&mut self, from: Address, datagram: &[u8]) {
        self.balance.entry(from).or_default().0 += datagram.len() as u64;
        self.server.handle(from, datagram, self.now);
        self.collect();
    }

    fn connect(&mut self) {
        if self.client.sessions() < 2 {
            self.client.connect(address(0), &self.credentials, self.now).expect("credentials are good");
        }
        self.collect();
    }

    fn exchange(&mut self) {
        for datagram in std::mem::take(&mut self.up) {
            self.serve(address(0), &datagram);
            self.past.truncate(32);
            self.past.push(datagram);
        }
        for datagram in std::mem::take(&mut self.down) {
            self.client.handle(address(0), &datagram, self.now);
        }
    }

    fn exchange_damaged(&mut self, program: &mut Program<'_>) {
        for mut datagram in std::mem::take(&mut self.up) {
            program.damage(&mut datagram);
            self.serve(address(0), &datagram);
        }
        for mut datagram in std::mem::take(&mut self.down) {
            program.damage(&mut datagram);
            self.client.handle(address(0), &datagram, self.now);
        }
    }

    fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut steps = 0;
        while let Some(due) = self.deadline().filter(|due| *due <= until) {
            steps += 1;
            assert!(steps < 10_000, "time stands still at {due:?}");
            self.now = self.now.max(due);
            self.server.advance(self.now);
            self.client.advance(self.now);
            self.collect();
        }
        self.now = until;
    }

    fn deadline(&self) -> Option<Instant> {
        [self.server.deadline(), self.client.deadline()].into_iter().flatten().min()
    }

    fn seal(&mut self) {
        for session in self.sessions.clone() {
            let _ended = self.server.seal(session, SEALED, self.now);
        }
        if let Some(session) = self.connected {
            let _ended = self.client.seal(session, SEALED, self.now);
        }
    }

    fn close(&mut self, program: &mut Program<'_>) {
        let chosen = usize::from(program.byte());
        if let Some(session) = self.sessions.get(chosen % self.sessions.len().max(1)).copied() {
            self.server.close(session, self.now);
        }
        if let Some(session) = self.connected.filter(|_| chosen % 2 == 0) {
            self.client.close(session, self.now);
        }
    }

    fn collect(&mut self) {
        while let Some(output) = self.server.poll() {
            match output {
                Output::Datagram { address: to, bytes } => {
                    let (received, sent) = self.balance.entry(to).or_default();
                    *sent += bytes.len() as u64;
                    let is_stranger = to != address(0);
                    assert!(!is_stranger || *sent <= 3 * *received, "{to:?} got {sent} for {received}");
                    if !is_stranger {
                        self.down.push(bytes);
                    }
                }
                Output::Established { session, .. } => self.sessions.push(session),
                Output::Opened { session, bytes } => {
                    assert!(self.sessions.contains(&session), "{session:?} was never established");
                    assert_eq!(bytes, SEALED);
                }
                Output::Closed { session, .. } => self.sessions.retain(|other| *other != session),
                _ => {}
            }
        }
        while let Some(output) = self.client.poll() {
            match output {
                Output::Datagram { bytes, .. } => self.up.push(bytes),
                Output::Established { session, .. } => self.connected = Some(session),
                Output::Opened { bytes, .. } => assert_eq!(bytes, SEALED),
                _ => {}
            }
        }
        self.up.truncate(64);
        self.down.truncate(64);
    }

    /// In the end only sessions remain, and nothing is due.
    fn wind_down(mut self) {
        self.wait(Duration::from_secs(8 * 24 * 3600));
        self.up.clear();
        assert_eq!(self.server.handshakes(), 0, "{:?}", self.server);
        assert!(self.deadline().is_none_or(|due| due > self.now));
        for session in std::mem::take(&mut self.sessions) {
            self.server.close(session, self.now);
        }
        assert_eq!((self.server.sessions(), self.server.deadline()), (0, None));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is a driver")]
fn machine(config: Config) -> Dtls {
    Dtls::new(config, std::time::Instant::now(), Instant::START, [7; 32]).expect("a sound configuration")
}

fn address(number: u8) -> Address {
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024 + u16::from(number % ADDRESSES)));
    Address { remote, local: (Ipv4Addr::LOCALHOST, 5684).into() }
}
