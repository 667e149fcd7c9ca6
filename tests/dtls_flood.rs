//! Floods from addresses that are not the sender's: what is kept, what is sent, and who is served meanwhile.

#![expect(unreachable_pub, reason = "parts of a test")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/allocations.rs"]
#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod allocations;
#[path = "support/dtls.rs"]
#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod dtls;

use std::collections::BTreeMap;
use std::time::Duration;

use allocations::Metered;
use dtls::{address, at, certificate, machine, psk, psk_config};
use lowband::coap::{Address, Instant};
use lowband::security::dtls::{Config, Credentials, Dtls, Output, SessionId, Trust, Version};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: Metered = Metered;

/// A server, and what everybody has sent it and got from it.
struct Siege {
    server: Dtls,
    now: Instant,
    bytes_in: BTreeMap<Address, u64>,
    bytes_out: BTreeMap<Address, u64>,
    /// A client that is what it says.
    client: Dtls,
    home: Address,
    session: Option<SessionId>,
    down: Vec<Vec<u8>>,
    read: Vec<Vec<u8>>,
}

impl Siege {
    fn new(config: Config) -> Self {
        Self {
            server: machine(config),
            now: at(0),
            bytes_in: BTreeMap::new(),
            bytes_out: BTreeMap::new(),
            client: machine(Config::default()),
            home: address(1_000_000),
            session: None,
            down: Vec::new(),
            read: Vec::new(),
        }
    }

    fn from(&mut self, address: Address, datagram: &[u8]) {
        *self.bytes_in.entry(address).or_default() += datagram.len() as u64;
        self.server.handle(address, datagram, self.now);
        self.collect();
    }

    /// Time passes for the server.
    fn tick(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(due) = self.server.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.server.advance(self.now);
            self.collect();
        }
        self.now = until;
    }

    fn collect(&mut self) {
        while let Some(output) = self.server.poll() {
            match output {
                Output::Datagram { address, bytes } => {
                    *self.bytes_out.entry(address).or_default() += bytes.len() as u64;
                    if address == self.home {
                        self.down.push(bytes);
                    }
                }
                Output::Established { address, .. } => assert_eq!(address, self.home),
                Output::Opened { bytes, .. } => self.read.push(bytes),
                _ => {}
            }
        }
    }

    /// One step of the client: what it got, what it sends.
    fn client_goes_on(&mut self) {
        let now = self.now;
        if self.client.deadline().is_some_and(|due| due <= now) {
            self.client.advance(now);
        }
        for datagram in std::mem::take(&mut self.down) {
            self.client.handle(self.home, &datagram, now);
        }
        let mut up = Vec::new();
        while let Some(output) = self.client.poll() {
            match output {
                Output::Datagram { bytes, .. } => up.push(bytes),
                Output::Established { session, .. } => self.session = Some(session),
                other => panic!("{other:?}"),
            }
        }
        up.iter().for_each(|datagram| self.from(self.home, datagram));
    }

    /// Nobody whose address was used by others got more than three times what they sent.
    fn check_amplification(&self) {
        for (address, sent) in self.bytes_out.iter().filter(|(address, _)| **address != self.home) {
            let received = self.bytes_in[address];
            assert!(*sent <= 3 * received, "{address:?}: {sent} for {received}");
        }
        let sum = |bytes: &BTreeMap<Address, u64>| bytes.values().sum::<u64>();
        let (sent, received) = (sum(&self.bytes_out), sum(&self.bytes_in));
        println!("{received} bytes in, {sent} out");
        assert!(sent <= 3 * received);
    }
}

/// A hello of a client, with another random each time.
struct Hellos {
    hello: Vec<u8>,
    chance: ChaCha8Rng,
}

impl Hellos {
    fn new(credentials: &Credentials) -> Self {
        let mut client = machine(Config::default());
        client.connect(address(0), credentials, at(0)).unwrap();
        let Some(Output::Datagram { bytes, .. }) = client.poll() else { panic!("no hello") };
        Self { hello: bytes, chance: ChaCha8Rng::seed_from_u64(1) }
    }

    fn next(&mut self) -> &[u8] {
        self.chance.fill_bytes(&mut self.hello[27..59]);
        &self.hello
    }
}

fn everything() -> Config {
    Config {
        certificate: Some(certificate("server")),
        clients: Trust::Anyone,
        dtls_1_3: true,
        ..psk_config()
    }
}

fn by_certificate(version: Version) -> Credentials {
    Credentials::Certificate { certificate: certificate("client"), server: Trust::Anyone, version }
}

#[test]
fn a_client_is_served_in_the_middle_of_100_000_spoofed_hellos_and_as_much_noise() {
    let config = everything();
    let most = config.unverified;
    let mut siege = Siege::new(config);
    let mut hellos = [psk(), by_certificate(Version::Dtls12), by_certificate(Version::Dtls13)]
        .map(|credentials| Hellos::new(&credentials));
    let mut chance = ChaCha8Rng::seed_from_u64(2);
    let mut peak = 0;
    // What the test keeps is there before.
    for number in 0..50_000 {
        siege.bytes_in.insert(address(number), 0);
        siege.bytes_out.insert(address(number), 0);
    }
    let usage = allocations::measure(|| {
        for number in 0..100_000_u32 {
            let hello = hellos[number as usize % 3].next().to_vec();
            siege.from(address(number % 50_000), &hello);
            // Noise, of which half looks like records.
            let mut noise = vec![0; 1 + (chance.next_u32() % 200) as usize];
            chance.fill_bytes(&mut noise);
            if number.is_multiple_of(2) && noise.len() > 13 {
                let length = noise.len() - 13;
                noise[..5].copy_from_slice(&[
                    20 + (number / 2 % 4) as u8,
                    254,
                    253,
                    0,
                    (number % 8) as u8 / 4,
                ]);
                noise[11..13].copy_from_slice(&(length as u16).to_be_bytes());
            }
            siege.from(address(number % 1_000), &noise);
            siege.tick(Duration::from_millis(1));
            peak = peak.max(siege.server.sessions());
            match number {
                50_000 => {
                    let home = siege.home;
                    siege.client.connect(home, &psk(), siege.now).unwrap();
                }
                80_000 => {
                    let session = siege.session.expect("it is established meanwhile");
                    siege.client.seal(session, b"served", siege.now).unwrap();
                }
                _ => {}
            }
            // It hears and speaks every 100 ms.
            if number > 50_000 && number.is_multiple_of(100) {
                siege.client_goes_on();
            }
        }
    });
    println!("{:?}\nat most {peak} sessions and {} bytes", siege.server.counters(), usage.peak);
    assert!(usage.peak < 2 << 20, "{}", usage.peak);
    assert_eq!(siege.read, [b"served"]);
    assert!(peak <= most + 1, "{peak}");
    assert_eq!(siege.server.counters().established, 1);
    siege.check_amplification();
    // All that remains is the one that is there.
    siege.tick(Duration::from_secs(7 * 24 * 3600));
    assert_eq!((siege.server.sessions(), siege.server.handshakes()), (1, 0));
    siege.check_amplification();
}

#[test]
fn nothing_is_kept_of_a_hello_beyond_the_bound() {
    let mut siege = Siege::new(Config { unverified: 0, ..everything() });
    let mut hellos = Hellos::new(&psk());
    for number in 0..10_000 {
        let hello = hellos.next().to_vec();
        siege.from(address(number), &hello);
        assert_eq!((siege.server.sessions(), siege.server.deadline()), (0, None));
    }
    assert_eq!(siege.server.counters().cookies, 10_000);
    siege.check_amplification();
}

#[test]
fn a_cookie_is_of_no_use_to_others_or_for_another_hello_or_after_two_hours() {
    let mut siege = Siege::new(Config { unverified: 0, ..psk_config() });
    let home = siege.home;
    let mut client = machine(Config::default());
    client.connect(home, &psk(), at(0)).unwrap();
    let Some(Output::Datagram { bytes: first, .. }) = client.poll() else { panic!("no hello") };
    siege.from(home, &first);
    let request = siege.down.pop().unwrap();
    assert_eq!(request.len(), 60);
    client.handle(home, &request, at(0));
    let Some(Output::Datagram { bytes: second, .. }) = client.poll() else { panic!("no hello") };
    let verified = |siege: &Siege| siege.server.counters().verified;
    // From another port, from another host, to another address of ours.
    let mut elsewhere = home;
    elsewhere.remote.set_port(7);
    siege.from(elsewhere, &second);
    siege.from(address(3), &second);
    siege.from(Address { local: ([192, 0, 2, 2], 5684).into(), ..home }, &second);
    // With another random, a session, other suites.
    for place in [27, 58, 59, 60, 61, 92, 94, 95] {
        let mut changed = second.clone();
        changed[place] ^= 1;
        siege.from(home, &changed);
    }
    assert_eq!((verified(&siege), siege.server.sessions()), (0, 0));
    siege.tick(Duration::from_secs(2 * 3600 + 1));
    siege.from(home, &second);
    assert_eq!(verified(&siege), 0);
    // Within the hour after the secret has changed it is still good.
    let mut siege = Siege::new(Config { unverified: 0, ..psk_config() });
    siege.tick(Duration::from_secs(3599));
    siege.from(home, &first);
    client = machine(Config::default());
    client.connect(home, &psk(), at(0)).unwrap();
    let Some(Output::Datagram { bytes: first, .. }) = client.poll() else { panic!("no hello") };
    siege.down.clear();
    siege.from(home, &first);
    client.handle(home, &siege.down.pop().unwrap(), at(0));
    let Some(Output::Datagram { bytes: second, .. }) = client.poll() else { panic!("no hello") };
    siege.tick(Duration::from_secs(3600));
    siege.from(home, &second);
    assert_eq!((verified(&siege), siege.server.sessions()), (1, 1));
}

#[test]
fn handshakes_with_those_who_are_there_are_bounded_and_not_disturbed_by_others() {
    let mut siege = Siege::new(Config { unverified: 0, handshakes: 10, ..psk_config() });
    let hello_with_cookie = |siege: &mut Siege, number: u32| {
        let mut client = machine(Config::default());
        client.connect(address(number), &psk(), at(0)).unwrap();
        let Some(Output::Datagram { bytes, .. }) = client.poll() else { panic!("no hello") };
        siege.server.handle(address(number), &bytes, siege.now);
        let Some(Output::Datagram { bytes, .. }) = siege.server.poll() else { panic!("no cookie") };
        client.handle(address(number), &bytes, at(0));
        let Some(Output::Datagram { bytes, .. }) = client.poll() else { panic!("no hello") };
        siege.from(address(number), &bytes);
    };
    for number in 0..30 {
        hello_with_cookie(&mut siege, number);
    }
    assert_eq!((siege.server.sessions(), siege.server.counters().refused), (10, 20));
    // Those who have gone make room.
    siege.tick(Duration::from_secs(120));
    hello_with_cookie(&mut siege, 40);
    assert_eq!((siege.server.handshakes(), siege.server.counters().refused), (10, 20));
}

#[test]
fn the_first_record_after_a_cookie_has_the_number_of_its_hello() {
    // RFC 6347 §4.2.1. The client's first hello goes out three times: with the numbers 0, 1 and 2.
    let mut siege = Siege::new(Config { unverified: 0, ..psk_config() });
    let home = siege.home;
    siege.client.connect(home, &psk(), siege.now).unwrap();
    let mut hellos = Vec::new();
    while hellos.len() < 3 {
        let Some(Output::Datagram { bytes, .. }) = siege.client.poll() else {
            let due = siege.client.deadline().unwrap();
            siege.tick(due.since(siege.now));
            siege.client.advance(due);
            continue;
        };
        hellos.push(bytes);
    }
    let number = |datagram: &[u8]| u16::from_be_bytes([datagram[9], datagram[10]]);
    assert_eq!(hellos.iter().map(|hello| number(hello)).collect::<Vec<_>>(), [0, 1, 2]);
    hellos.iter().for_each(|hello| siege.from(home, hello));
    assert_eq!(siege.down.iter().map(|request| number(request)).collect::<Vec<_>>(), [0, 1, 2]);
    siege.client_goes_on();
    assert_eq!(siege.down.first().map(|flight| number(flight)), Some(3));
    siege.client_goes_on();
    siege.client_goes_on();
    assert_eq!(siege.server.counters().established, 1);
}
