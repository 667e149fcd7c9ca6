//! Machines of DTLS and what is between them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lowband::coap::{Address, Instant};
use lowband::security::dtls::{Certificate, Config, Credentials, Dtls, Keys, Output, SessionId};

pub const IDENTITY: &[u8] = b"d1";
pub const KEY: &[u8] = b"0123456789abcdef";

pub fn at(milliseconds: u64) -> Instant {
    Instant::after_start(Duration::from_millis(milliseconds))
}

/// Where the peer of this number is, as the other end of its socket sees it.
pub fn address(number: u32) -> Address {
    let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number >> 8));
    let remote = SocketAddr::from((ip, 1024 + (number & 0xff) as u16));
    Address { remote, local: (Ipv4Addr::new(192, 0, 2, 1), 5684).into() }
}

#[expect(clippy::disallowed_methods, reason = "a test is a driver")]
pub fn machine(config: Config) -> Dtls {
    Dtls::new(config, std::time::Instant::now(), Instant::START, [7; 32]).unwrap()
}

/// A server that knows one key.
pub fn psk_config() -> Config {
    let keys = Keys::new();
    keys.insert(IDENTITY, KEY.to_vec());
    Config { keys: Some(keys), ..Config::default() }
}

pub fn psk() -> Credentials {
    psk_of(IDENTITY, KEY)
}

pub fn psk_of(identity: &[u8], key: &[u8]) -> Credentials {
    Credentials::Psk { identity: identity.to_vec(), key: key.to_vec().into() }
}

/// The certificate of this name, self-signed, made by `openssl req -x509`.
pub fn certificate(name: &str) -> Certificate {
    let (certificate, key): (&[u8], &[u8]) = match name {
        "server" => {
            (include_bytes!("../vectors/dtls/server.der"), include_bytes!("../vectors/dtls/server.key.der"))
        }
        "client" => {
            (include_bytes!("../vectors/dtls/client.der"), include_bytes!("../vectors/dtls/client.key.der"))
        }
        _ => (include_bytes!("../vectors/dtls/other.der"), include_bytes!("../vectors/dtls/other.key.der")),
    };
    Certificate::new(certificate.to_vec(), key.to_vec()).unwrap()
}

/// A server and a client with nothing between them: datagrams arrive at once, in order, unless a test takes them away.
pub struct Pair {
    pub server: Dtls,
    pub client: Dtls,
    pub now: Instant,
    /// What is under way to the server.
    pub up: VecDeque<Vec<u8>>,
    /// What is under way to the client.
    pub down: VecDeque<Vec<u8>>,
    /// What the server told its owner, but for datagrams, and what the client told its.
    pub told: [Vec<Output>; 2],
    pub peer: Address,
}

impl Pair {
    pub fn new(server: Config) -> Self {
        Self::with_client(server, Config::default())
    }

    pub fn with_client(server: Config, client: Config) -> Self {
        Self {
            server: machine(server),
            client: machine(client),
            now: Instant::START,
            up: VecDeque::new(),
            down: VecDeque::new(),
            told: [Vec::new(), Vec::new()],
            peer: address(0),
        }
    }

    pub fn connect(&mut self, credentials: &Credentials) -> SessionId {
        let session = self.client.connect(self.peer, credentials, self.now).unwrap();
        self.collect();
        session
    }

    /// Takes what the machines have to say.
    pub fn collect(&mut self) {
        let [at_server, at_client] = &mut self.told;
        for (machine, way, told) in
            [(&mut self.server, &mut self.down, at_server), (&mut self.client, &mut self.up, at_client)]
        {
            while let Some(output) = machine.poll() {
                match output {
                    Output::Datagram { bytes, .. } => way.push_back(bytes),
                    other => told.push(other),
                }
            }
        }
    }

    /// One datagram arrives, whichever way.
    pub fn step(&mut self) -> bool {
        self.collect();
        if let Some(datagram) = self.up.pop_front() {
            self.server.handle(self.peer, &datagram, self.now);
        } else if let Some(datagram) = self.down.pop_front() {
            self.client.handle(self.peer, &datagram, self.now);
        } else {
            return false;
        }
        self.collect();
        true
    }

    /// All datagrams arrive.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Time passes for both, with all that is due.
    pub fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            self.run();
            let due = [self.server.deadline(), self.client.deadline()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            self.server.advance(self.now);
            self.client.advance(self.now);
        }
        self.now = until;
    }

    /// The server's session with the client.
    pub fn server_session(&self) -> Option<SessionId> {
        self.told[0].iter().rev().find_map(|output| match output {
            Output::Established { session, .. } => Some(*session),
            _ => None,
        })
    }

    pub fn established(&self) -> [usize; 2] {
        let count = |told: &[Output]| {
            told.iter().filter(|output| matches!(output, Output::Established { .. })).count()
        };
        [count(&self.told[0]), count(&self.told[1])]
    }

    /// What the server's owner, or the client's, was given to read.
    pub fn opened(&self, end: usize) -> Vec<&[u8]> {
        let opened = self.told[end].iter().filter_map(|output| match output {
            Output::Opened { bytes, .. } => Some(bytes.as_slice()),
            _ => None,
        });
        opened.collect()
    }
}
