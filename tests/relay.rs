//! A link between real sockets on loopback, many times as fast as the links that are meant.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use lowband::link::Profile;
use lowband::net::relay::Config;
use lowband::net::relay::Counters;
use lowband::net::relay::Relay;
use lowband::sim::Fate;
use lowband::sim::Impairments;
use lowband::sim::Outage;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;

/// 100 kbit/s, 4 ms one way: a thousand times as fast as the slow one.
fn profile() -> Profile {
    Profile {
        rate_up: 100_000,
        rate_down: 100_000,
        delay: Duration::from_millis(4),
        mtu_up: 256,
        mtu_down: 256,
        overhead: 28,
        half_duplex: true,
        turnaround: Duration::from_millis(1),
        shared: true,
        ..Profile::unlimited("fast")
    }
}

/// A relay that runs, before a server that the test plays.
struct Running {
    address: SocketAddr,
    server: UdpSocket,
    fates: Arc<Mutex<Vec<Fate>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Counters>,
}

impl Running {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            to: server.local_addr().unwrap(),
            profile: profile(),
            impairments: Impairments::default(),
            seed: 1,
            clients: 16,
            idle: Duration::from_secs(60),
        };
        change(&mut config);
        let fates = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&fates);
        let relay =
            Relay::bind(config, Box::new(move |sent| seen.lock().unwrap().push(sent.passage.fate))).unwrap();
        let (stop, stopped) = oneshot::channel();
        let address = relay.address();
        Self { address, server, fates, stop, task: tokio::spawn(relay.run(async { drop(stopped.await) })) }
    }

    async fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(self.address).await.unwrap();
        client
    }

    /// Waits until so many datagrams have come to the relay.
    async fn has_seen(&self, count: usize) {
        for _ in 0..1_000 {
            if self.fates.lock().unwrap().len() >= count {
                return;
            }
            time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {:?} of {count} have come", self.fates.lock().unwrap());
    }

    async fn stop(self) -> Counters {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2_048];
    let received = time::timeout(Duration::from_secs(10), socket.recv_from(&mut buffer)).await;
    let (length, from) = received.expect("a datagram").unwrap();
    (buffer[..length].to_vec(), from)
}

/// Whether nothing comes for some time.
async fn is_silent(socket: &UdpSocket) -> bool {
    time::timeout(Duration::from_millis(200), socket.recv(&mut [0; 16])).await.is_err()
}

#[tokio::test]
async fn questions_and_answers_pass_and_each_client_has_its_own() {
    let relay = Running::start(|_| {}).await;
    let (alice, bob) = (relay.client().await, relay.client().await);
    alice.send(b"from alice").await.unwrap();
    let (question, alice_there) = receive(&relay.server).await;
    assert_eq!(question, b"from alice");
    bob.send(b"from bob").await.unwrap();
    let (question, bob_there) = receive(&relay.server).await;
    assert_eq!(question, b"from bob");
    assert_ne!(alice_there, bob_there);

    relay.server.send_to(b"to bob", bob_there).await.unwrap();
    relay.server.send_to(b"to alice", alice_there).await.unwrap();
    assert_eq!(receive(&alice).await, (b"to alice".to_vec(), relay.address));
    assert_eq!(receive(&bob).await, (b"to bob".to_vec(), relay.address));

    let counters = relay.stop().await;
    assert_eq!((counters.clients, counters.forgotten, counters.socket_errors), (2, 0, 0));
    assert_eq!((counters.up.delivered, counters.up.bytes, counters.up.air_bytes), (2, 18, 74));
    assert_eq!((counters.down.delivered, counters.down.bytes), (2, 14));
}

#[tokio::test]
async fn datagrams_take_their_time_and_keep_their_order() {
    let relay = Running::start(|config| config.profile.delay = Duration::from_millis(300)).await;
    let client = relay.client().await;
    let sent = time::Instant::from_std(now());
    for number in 0..20 {
        client.send(&[number; 97]).await.unwrap();
    }
    for number in 0..20 {
        assert_eq!(receive(&relay.server).await.0, [number; 97]);
    }
    // 20 times 125 bytes at 100 kbit/s are 200 ms, and 300 ms come to it.
    let elapsed = sent.elapsed();
    assert!((Duration::from_millis(499)..Duration::from_secs(8)).contains(&elapsed), "{elapsed:?}");
    let counters = relay.stop().await;
    assert_eq!(counters.up.airtime, Duration::from_millis(200));
}

#[expect(clippy::disallowed_methods, reason = "sockets work in real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[tokio::test]
async fn the_seed_says_what_is_lost_and_the_rest_arrives() {
    let mut stories = Vec::new();
    for _ in 0..2 {
        let relay = Running::start(|config| {
            config.profile.loss = 0.3;
            config.impairments.queue = 1_000;
        })
        .await;
        let client = relay.client().await;
        for number in 0..50 {
            client.send(&[number]).await.unwrap();
        }
        relay.has_seen(50).await;
        let arrives = |fate: &&Fate| matches!(fate, Fate::Arrives(_));
        let arriving = relay.fates.lock().unwrap().iter().filter(arrives).count();
        let mut received = Vec::new();
        for _ in 0..arriving {
            received.push(receive(&relay.server).await.0[0]);
        }
        assert!(is_silent(&relay.server).await);
        let counters = relay.stop().await;
        assert_eq!(
            (counters.up.delivered, counters.up.lost),
            (received.len() as u64, 50 - received.len() as u64)
        );
        stories.push(received);
    }
    assert_eq!(stories[0], stories[1]);
    assert!((20..50).contains(&stories[0].len()), "{:?}", stories[0]);
}

#[tokio::test]
async fn in_an_outage_and_beyond_the_mtu_nothing_passes() {
    let whole_day = Outage {
        from: lowband::coap::Instant::START,
        until: lowband::coap::Instant::START + Duration::from_secs(86_400),
    };
    let relay = Running::start(|config| config.impairments.outages.push(whole_day)).await;
    let client = relay.client().await;
    client.send(&[0; 257]).await.unwrap();
    client.send(&[0; 256]).await.unwrap();
    relay.has_seen(2).await;
    assert!(is_silent(&relay.server).await);
    let counters = relay.stop().await;
    assert_eq!((counters.up.too_long, counters.up.lost_in_outage, counters.up.delivered), (1, 1, 0));
}

#[tokio::test]
async fn clients_beyond_the_limit_and_silent_ones_are_forgotten() {
    let relay = Running::start(|config| {
        config.clients = 1;
        config.idle = Duration::from_millis(200);
    })
    .await;
    let (alice, bob) = (relay.client().await, relay.client().await);
    alice.send(b"1").await.unwrap();
    let (_, alice_there) = receive(&relay.server).await;
    bob.send(b"2").await.unwrap();
    let (_, bob_there) = receive(&relay.server).await;
    // Whose socket is gone hears no more; who is silent for long starts anew.
    relay.server.send_to(b"late", alice_there).await.unwrap();
    assert!(is_silent(&alice).await);
    time::sleep(Duration::from_millis(300)).await;
    bob.send(b"3").await.unwrap();
    let (_, bob_later) = receive(&relay.server).await;
    assert_ne!(bob_there, bob_later);
    let counters = relay.stop().await;
    assert_eq!(counters.clients, 3);
    assert!(counters.forgotten >= 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_nothing() {
    let relay = Running::start(|config| config.to = "127.0.0.1:1".parse().unwrap()).await;
    let client = relay.client().await;
    for _ in 0..3 {
        client.send(b"anyone?").await.unwrap();
        assert!(is_silent(&client).await);
    }
    relay.has_seen(3).await;
    let counters = relay.stop().await;
    assert_eq!(counters.up.delivered, 3);
    assert!(counters.socket_errors >= 1);
}
