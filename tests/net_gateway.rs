//! A gateway on loopback between clients and the minimal homeserver: sockets, many peers, observers, and the end.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use lowband::coap;
use lowband::coap::BlockSize;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::endpoint;
use lowband::gateway;
use lowband::homeserver;
use lowband::net::client::Client;
use lowband::net::client::Direction;
use lowband::net::client::Observation;
use lowband::net::client::RequestError;
use lowband::net::gateway::Config;
use lowband::net::gateway::Counters;
use lowband::net::gateway::Server;
use lowband::net::gateway::StartError;
use lowband::net::upstream;
use lowband::translate;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;

fn config(homeserver: &str, listen: &[&str]) -> Config {
    let homeserver: Uri = homeserver.parse().unwrap();
    Config {
        listen: listen.iter().map(|address| address.parse::<SocketAddr>().unwrap().into()).collect(),
        gateway: gateway::Config::new(homeserver.clone()),
        state: None,
        devices: None,
        dtls: lowband::net::dtls::Config::default(),
        upstream: upstream::Config::new(homeserver),
        grace: Duration::from_secs(5),
        report: Duration::from_secs(600),
    }
}

/// A gateway that runs, and can be told to stop.
struct Running {
    addresses: Vec<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Counters>,
}

impl Running {
    fn start(config: Config) -> Self {
        let server = Server::bind(config).unwrap();
        let (stop, stopped) = oneshot::channel();
        let addresses = server.addresses();
        Self { addresses, stop, task: tokio::spawn(server.run(async { drop(stopped.await) })) }
    }

    async fn stop(self) -> Counters {
        self.stop.send(()).unwrap();
        time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap()
    }
}

async fn homeserver() -> homeserver::Server {
    homeserver::Server::bind("127.0.0.1:0".parse().unwrap(), homeserver::Config::default()).await.unwrap()
}

async fn connect(address: SocketAddr) -> Client {
    Client::connect(address, endpoint::Config::default()).await.unwrap()
}

fn coap(method: &str, target: &str, token: &str, body: Option<&Value>) -> coap::Request {
    let mut request = http::Request::builder().method(method).uri(target);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    translate::request::to_coap(&request.body(Bytes::from(body)).unwrap(), Keys::V1, &Limits::default())
        .unwrap()
}

fn http(response: &coap::Response) -> (u16, Value) {
    let response = translate::response::to_http(response, &Limits::default()).unwrap();
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
}

async fn call(
    client: &Client,
    method: &str,
    target: &str,
    token: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let asked = time::timeout(Duration::from_secs(40), client.request(coap(method, target, token, body)));
    match asked.await {
        Ok(Ok(response)) => http(&response),
        failed => panic!("{method} {target} of {:?}: {failed:?}", client.local()),
    }
}

async fn register(client: &Client, name: &str) -> String {
    let body = json!({ "username": name, "password": "p", "auth": { "type": "m.login.dummy" } });
    let (status, body) = call(client, "POST", "/_matrix/client/v3/register", "", Some(&body)).await;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

async fn create_room(client: &Client, token: &str) -> String {
    let body = json!({ "preset": "public_chat" });
    let (status, body) = call(client, "POST", "/_matrix/client/v3/createRoom", token, Some(&body)).await;
    assert_eq!(status, 200, "{body}");
    body["room_id"].as_str().unwrap().to_owned()
}

async fn next(observation: &mut Observation) -> Value {
    let response = time::timeout(Duration::from_secs(5), observation.next()).await.unwrap();
    let (status, body) = http(&response.unwrap().unwrap());
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn a_message_goes_from_one_peer_to_another_who_observes() {
    let homeserver = homeserver().await;
    let gateway = Running::start(config(&homeserver.url(), &["127.0.0.1:0"]));
    let (alice, bob) = (connect(gateway.addresses[0]).await, connect(gateway.addresses[0]).await);
    let (alice_token, bob_token) = (register(&alice, "alice").await, register(&bob, "bob").await);
    let room = create_room(&alice, &alice_token).await;
    let (status, _) =
        call(&bob, "POST", &format!("/_matrix/client/v3/join/{room}"), &bob_token, Some(&json!({}))).await;
    assert_eq!(status, 200);

    let mut observation = bob.observe(coap("GET", "/_matrix/client/v3/sync?timeout=30000", &bob_token, None));
    let first = next(&mut observation).await;
    assert!(first["rooms"]["join"][&room].is_object(), "{first}");

    let send = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t1");
    let message = json!({ "msgtype": "m.text", "body": "Hello World" });
    let (status, sent) = call(&alice, "PUT", &send, &alice_token, Some(&message)).await;
    assert_eq!(status, 200, "{sent}");
    let notified = next(&mut observation).await;
    let event = &notified["rooms"]["join"][&room]["timeline"]["events"][0];
    assert_eq!((&event["event_id"], &event["content"]), (&sent["event_id"], &message), "{notified}");

    observation.cancel();
    bob.close(Duration::from_secs(2)).await;
    for _ in 0..50 {
        let (status, _) = call(&alice, "GET", "/_matrix/client/versions", "", None).await;
        assert_eq!(status, 200);
    }
    let counters = gateway.stop().await;
    assert_eq!(counters.gateway.observations, 0, "the observation ended with its observer: {counters:?}");
    assert_eq!(counters.gateway.fetching, 0, "{counters:?}");
    assert_eq!(counters.datagrams.send_errors, 0);
}

#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked_on_every_socket() {
    let homeserver = homeserver().await;
    let gateway = Running::start(config(&homeserver.url(), &["0.0.0.0:0", "[::]:0"]));
    let [ipv4, ipv6] = gateway.addresses[..] else { panic!() };
    // The clients' sockets are connected: an answer from another address would never arrive.
    for asked in [
        format!("127.0.0.1:{}", ipv4.port()),
        format!("127.0.0.2:{}", ipv4.port()),
        format!("[::1]:{}", ipv6.port()),
    ] {
        let client = connect(asked.parse().unwrap()).await;
        let asked =
            time::timeout(Duration::from_secs(2), call(&client, "GET", "/_matrix/client/versions", "", None));
        assert_eq!(asked.await.unwrap().0, 200);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn ten_peers_at_once_each_get_their_own_answers() {
    let homeserver = homeserver().await;
    let gateway = Running::start(config(&homeserver.url(), &["127.0.0.1:0"]));
    let address = gateway.addresses[0];
    let peers: Vec<_> = (0..10)
        .map(|peer| {
            tokio::spawn(async move {
                let client = connect(address).await;
                let token = register(&client, &format!("peer{peer}")).await;
                let room = create_room(&client, &token).await;
                for number in 0..50 {
                    let send = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t{number}");
                    let body = json!({ "msgtype": "m.text", "body": format!("{peer}.{number}") });
                    assert_eq!(call(&client, "PUT", &send, &token, Some(&body)).await.0, 200);
                }
                let messages = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=50");
                let (_, messages) = call(&client, "GET", &messages, &token, None).await;
                let bodies: Vec<_> = messages["chunk"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|event| event["content"]["body"].clone())
                    .collect();
                let expected: Vec<Value> =
                    (0..50).rev().map(|number| format!("{peer}.{number}").into()).collect();
                assert_eq!(bodies, expected);
                client.traffic()
            })
        })
        .collect();
    let (mut sent, mut received) = (0, 0);
    for peer in peers {
        let traffic = peer.await.unwrap();
        (sent, received) = (sent + traffic.sent_bytes, received + traffic.received_bytes);
    }
    let counters = gateway.stop().await;
    assert_eq!(counters.datagrams.received_bytes, sent, "what the peers sent is what the gateway received");
    assert_eq!(counters.datagrams.sent_bytes, received);
    assert_eq!(counters.gateway.fetch_failures, 0, "{counters:?}");
}

#[tokio::test]
async fn each_datagram_is_counted_and_shown_as_it_passes() {
    let homeserver = homeserver().await;
    let gateway = Running::start(config(&homeserver.url(), &["127.0.0.1:0"]));
    let (shown, mut datagrams) = tokio::sync::mpsc::unbounded_channel();
    let mut config = endpoint::Config::default();
    config.transfers.block = BlockSize::fitting(64);
    let watch = move |direction, datagram: &[u8]| shown.send((direction, datagram.to_vec())).unwrap();
    let client = Client::connect_watched(gateway.addresses[0], config, Box::new(watch)).await.unwrap();
    let (status, versions) = call(&client, "GET", "/_matrix/client/versions", "", None).await;
    assert_eq!((status, versions["versions"].is_array()), (200, true), "{versions}");
    let traffic = client.traffic();
    let mut all = Vec::new();
    while let Ok(datagram) = datagrams.try_recv() {
        all.push(datagram);
    }
    let bytes = |way: Direction| {
        all.iter().filter(|(at, _)| *at == way).map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
    };
    assert_eq!(
        (bytes(Direction::Sent), bytes(Direction::Received)),
        (traffic.sent_bytes, traffic.received_bytes)
    );
    assert_eq!(all.len() as u64, traffic.sent_datagrams + traffic.received_datagrams);
    assert!(traffic.received_datagrams > 2, "blocks of 64 bytes: {traffic:?}");
    assert!(all.iter().all(|(_, datagram)| coap::Message::decode(datagram).is_ok()));
    gateway.stop().await;
}

#[tokio::test]
async fn nobody_there_is_known_at_once() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = connect(free).await;
    let refused = time::timeout(
        Duration::from_secs(1),
        client.request(coap("GET", "/_matrix/client/versions", "", None)),
    );
    assert_eq!(refused.await.unwrap(), Err(RequestError::Refused));
}

#[tokio::test]
async fn a_client_that_is_closed_sends_nothing_more() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = connect(silent.local_addr().unwrap()).await;
    let (other, request) = (client.clone(), coap("GET", "/_matrix/client/versions", "", None));
    client.close(Duration::from_secs(1)).await;
    assert_eq!(other.request(request.clone()).await, Err(RequestError::Closed));
    assert!(other.observe(request).next().await.is_none());
    assert_eq!(other.traffic().sent_datagrams, 0);
}

#[tokio::test]
async fn a_homeserver_that_is_away_is_answered_with_a_gateway_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Running::start(config(&format!("http://{free}"), &["127.0.0.1:0"]));
    let client = connect(gateway.addresses[0]).await;
    let (status, body) = call(&client, "GET", "/_matrix/client/versions", "", None).await;
    assert_eq!((status, body["errcode"].is_string()), (502, true), "{body}");
    assert_eq!(gateway.stop().await.gateway.fetch_failures, 1);
}

#[tokio::test]
async fn an_answer_in_flight_is_finished_after_the_order_to_stop_and_new_requests_are_refused() {
    // Answers each request after a second.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::AsyncReadExt;
                use tokio::io::AsyncWriteExt;
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                time::sleep(Duration::from_secs(1)).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"slow\":42}";
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    let gateway = Running::start(config(&slow, &["127.0.0.1:0"]));
    let address = gateway.addresses[0];
    let client = connect(address).await;
    let slow =
        tokio::spawn(
            async move { call(&client, "GET", "/_matrix/client/v3/account/whoami", "T", None).await },
        );
    time::sleep(Duration::from_millis(200)).await;
    let stopping = tokio::spawn(gateway.stop());
    time::sleep(Duration::from_millis(200)).await;
    let late = connect(address).await;
    assert_eq!(call(&late, "GET", "/_matrix/client/versions", "", None).await.0, 503);
    assert_eq!(slow.await.unwrap(), (200, json!({ "slow": 42 })));
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_homeserver_that_never_answers_holds_the_end_up_no_longer_than_the_grace() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(&format!("http://{}", listener.local_addr().unwrap()), &["127.0.0.1:0"]);
    config.grace = Duration::from_millis(300);
    let gateway = Running::start(config);
    let client = connect(gateway.addresses[0]).await;
    let waiting =
        tokio::spawn(async move { client.request(coap("GET", "/_matrix/client/versions", "", None)).await });
    time::sleep(Duration::from_millis(200)).await;
    time::timeout(Duration::from_secs(1), gateway.stop()).await.unwrap();
    waiting.abort();
}

#[tokio::test]
async fn a_burst_of_noise_keeps_nobody_from_an_answer() {
    let homeserver = homeserver().await;
    let gateway = Running::start(config(&homeserver.url(), &["127.0.0.1:0"]));
    let address = gateway.addresses[0];
    let (stop, mut stopped) = oneshot::channel::<()>();
    let noise = tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sent = 0_u64;
        while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) && sent < 2_000_000 {
            // Version 3: nothing that CoAP knows. Nor is it answered.
            sent += u64::from(socket.send_to(&[0xff; 20], address).is_ok());
        }
        sent
    });
    let client = connect(address).await;
    for _ in 0..20 {
        // A datagram may be lost to a full buffer, and is repeated after 2 to 3 seconds.
        let answer = time::timeout(
            Duration::from_secs(20),
            call(&client, "GET", "/_matrix/client/versions", "", None),
        );
        assert_eq!(answer.await.unwrap().0, 200);
    }
    stop.send(()).unwrap();
    let sent = noise.await.unwrap();
    let counters = gateway.stop().await;
    assert!(
        counters.gateway.endpoint.malformed > 0 && counters.gateway.endpoint.malformed <= sent,
        "{counters:?}"
    );
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Server::bind(config("http://127.0.0.1:1", &[&address])).map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, StartError::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse)
    );
    assert!(error.to_string().contains(&address), "{error}");
}
