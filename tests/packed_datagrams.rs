//! What single messages take as the payload of UDP: packed, protected by OSCORE, in CoAP with tokens of one byte, the device's id of no byte.

#![cfg(test)]

use std::time::Duration;

use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::coap::Observe;
use lowband::coap::Priority;
use lowband::coap::Request as CoapRequest;
use lowband::coap::Response as CoapResponse;
use lowband::endpoint::Address;
use lowband::endpoint::Association;
use lowband::endpoint::Config;
use lowband::endpoint::Endpoint;
use lowband::endpoint::Event;
use lowband::packed::Agreement;
use lowband::packed::Asked;
use lowband::packed::Dictionary;
use lowband::packed::GatewayEnd;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::Secret;
use serde_json::Value;
use serde_json::json;

const AGREEMENT: Agreement = Agreement { epoch: 1, tokens: 0x5eed_0001, transactions: 0x5eed_0002 };
const ROOM: &str = "!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk";
const BOB: &str = "@bob:chat.greenfield.test";
const DEVICE: Association = Association::Device(1);

/// Event ids as homeservers make them: nobody can foresee a byte of them.
const EVENTS: [&str; 4] = [
    "$iJN4kcEvPlSxIfAAHO6Tnq9sVYYmLAa2cYw6bYw0J1E",
    "$0gQxnT9_3vV8iYH2h6l1sKpBrZ5dW7uJcMfE4aXoNqU",
    "$Wq3-RkzvB0e7LtYx1mGdPnF5hCJo8sUa2iTf9bDlK6M",
    "$kV7pHs2Zc-XeN0uQyBf4wGj9MtRi3aLo6ETdJ5gKxn8",
];

/// A device and its gateway, and what is between them.
struct World {
    proxy: ProxyEnd,
    gateway: GatewayEnd,
    device: Endpoint,
    server: Endpoint,
    now: Instant,
    /// The lengths of the datagrams up and down.
    sent: [Vec<usize>; 2],
}

impl World {
    fn new() -> Self {
        let config = || Config { trusted: true, token_length: 1, ..Config::default() };
        let keys = Parameters::new(Secret::from([7; 16]), b"", b"\x01");
        let (mut device, mut server) = (Endpoint::new(config(), [1; 32]), Endpoint::new(config(), [2; 32]));
        device.admit_keys(1, DEVICE, keys.clone()).unwrap();
        server.admit_keys(1, DEVICE, keys.mirrored()).unwrap();
        let (proxy, gateway) = (ProxyEnd::new(AGREEMENT), GatewayEnd::new(AGREEMENT));
        Self { proxy, gateway, device, server, now: Instant::START, sent: Default::default() }
    }

    /// Carries what waits, until nothing does; what either was told.
    fn carry(&mut self) -> Vec<Event> {
        loop {
            let up: Vec<Vec<u8>> =
                std::iter::from_fn(|| self.device.poll_datagram()).map(|(_, datagram)| datagram).collect();
            let down: Vec<Vec<u8>> =
                std::iter::from_fn(|| self.server.poll_datagram()).map(|(_, datagram)| datagram).collect();
            for datagram in &up {
                self.sent[0].push(datagram.len());
                self.server.handle(place(5000), datagram, self.now);
            }
            for datagram in &down {
                self.sent[1].push(datagram.len());
                self.device.handle(place(5683), datagram, self.now);
            }
            if up.is_empty() && down.is_empty() {
                let told = std::iter::from_fn(|| self.server.poll_event());
                let told: Vec<Event> = told.chain(std::iter::from_fn(|| self.device.poll_event())).collect();
                return told;
            }
        }
    }

    /// Asks, and has it answered at once; what is known of the request at either end, and the answer's JSON.
    fn exchange(
        &mut self,
        request: &Request,
        observe: Option<Observe>,
        body: &Value,
    ) -> (Asked, Asked, Value) {
        self.now = self.now + Duration::from_secs(60);
        self.device.advance(self.now);
        self.server.advance(self.now);
        self.carry();
        self.sent = Default::default();
        let dictionary = Dictionary::built_in();
        let up = self.proxy.encode_request(request, dictionary, Spelling::Short).unwrap();
        let method = if request.method == "GET" { Code::FETCH } else { Code::POST };
        let asked = CoapRequest { observe, payload: up.payload.into(), ..CoapRequest::new(method) };
        self.device.request_to(DEVICE, Priority::Message, place(5683), asked, self.now);
        let events = self.carry();
        let taken = events.into_iter().find_map(|event| match event {
            Event::Request { key, request, .. } => Some((key, request)),
            _ => None,
        });
        let (key, taken) = taken.unwrap();
        let (_, ours) = self.gateway.decode_request(&taken.payload, dictionary, Limits::default()).unwrap();
        let down = self.gateway.encode_response(&response(body), ours, dictionary, Spelling::Short);
        let code = if request.method == "GET" { Code::CONTENT } else { Code::CHANGED };
        let answer = CoapResponse { payload: down.payload.into(), ..CoapResponse::new(code) };
        match observe {
            Some(_) => drop(self.server.accept_observation(key, answer, self.now)),
            None => self.server.respond(key, answer, self.now),
        }
        let events = self.carry();
        let payload = arrived(&events);
        let read = self.proxy.decode_response(&payload, up.asked, dictionary, Limits::default()).unwrap();
        self.proxy.acknowledge(up.message);
        self.gateway.acknowledge(down.message);
        (up.asked, ours, serde_json::from_slice(&read.body.unwrap()).unwrap())
    }
}

/// The payload that the device was answered with.
fn arrived(events: &[Event]) -> Vec<u8> {
    let payload = events.iter().find_map(|event| match event {
        Event::Response { response, .. } => Some(response.payload.to_vec()),
        _ => None,
    });
    payload.unwrap()
}

fn place(port: u16) -> Address {
    let address = |port| std::net::SocketAddr::from(([192, 0, 2, 1], port));
    Address { remote: address(port), local: address(10_683 - port) }
}

fn response(body: &Value) -> Response {
    Response { status: None, body: Some(serde_json::to_vec(body).unwrap()) }
}

fn send(transaction: &str, text: &str) -> Request {
    let body = json!({"msgtype": "m.text", "body": text});
    let path = format!("/_matrix/client/v3/rooms/{ROOM}/send/m.room.message/{transaction}");
    Request { method: "PUT".to_owned(), path, query: None, body: Some(serde_json::to_vec(&body).unwrap()) }
}

/// As Synapse answers a sync with one new message.
fn sync(number: u32, text: &str, event: &str) -> Value {
    json!({"next_batch": format!("s{number}_17_0_1_4_1_1_8_0_1"), "rooms": {"join": {ROOM: {
        "timeline": {"events": [{
            "content": {"body": text, "msgtype": "m.text"}, "event_id": event,
            "origin_server_ts": 1_795_468_377_102u64 + u64::from(number) * 61_007, "sender": BOB,
            "type": "m.room.message", "unsigned": {"age": 153, "membership": "join"}}],
            "prev_batch": format!("s{}_17_0_1_4_1_1_8_0_1", number - 1), "limited": false},
        "state": {"events": []}, "account_data": {"events": []}, "ephemeral": {"events": []},
        "unread_notifications": {"notification_count": 1, "highlight_count": 0}, "summary": {}}}}})
}

#[test]
fn hello_world_takes_tens_of_bytes_of_udp() {
    let mut world = World::new();
    // The room and Bob are known after this; and OSCORE's first numbers are used.
    world.exchange(&send("m1", "Is anybody there?"), None, &json!({"event_id": EVENTS[0]}));
    let (_, _, read) = world.exchange(&send("m2", "Hello World"), None, &json!({"event_id": EVENTS[1]}));
    assert_eq!(read, json!({"event_id": EVENTS[1]}));
    let (up, down) = (world.sent[0].clone(), world.sent[1].clone());

    let path = "/_matrix/client/v3/sync".to_owned();
    let query = Some("timeout=30000".to_owned());
    let observe = Request { method: "GET".to_owned(), path, query, body: None };
    let first = sync(1, "Who is there?", EVENTS[2]);
    let (theirs, ours, _) = world.exchange(&observe, Some(Observe::Register), &first);
    let id = world.server.observations().next().unwrap();
    world.now = world.now + Duration::from_secs(60);
    world.sent = Default::default();
    let (news, dictionary) = (sync(2, "Hello World", EVENTS[3]), Dictionary::built_in());
    let position = first["next_batch"].as_str().unwrap();
    let packed =
        world.gateway.encode_notification(&response(&news), ours, position, dictionary, Spelling::Short);
    let notification = CoapResponse { payload: packed.payload.into(), ..CoapResponse::new(Code::CONTENT) };
    world.server.notify(id, notification, Priority::Message, world.now);
    let events = world.carry();
    let limits = Limits::default();
    let read = world.proxy.decode_notification(&arrived(&events), theirs, dictionary, limits).unwrap();
    let mut read: Value = serde_json::from_slice(&read.body.unwrap()).unwrap();
    // The tokens are the proxy's; all else is as it was.
    let mut news = news;
    for tokens in ["/next_batch".to_owned(), format!("/rooms/join/{ROOM}/timeline/prev_batch")] {
        let token = read.pointer_mut(&tokens).unwrap().take();
        assert!(token.as_str().unwrap().starts_with("lb5eed0001_"), "{token}");
        news.pointer_mut(&tokens).unwrap().take();
    }
    assert_eq!(read, news);

    println!("send {up:?}, answer {down:?}, notification {:?}", world.sent[1]);
    let figures = [up, down, world.sent[1].clone()];
    for (figure, most) in figures.iter().zip([45, 62, 95]) {
        assert!(figure.len() == 1 && figure[0] <= most, "{figure:?}");
    }
    let said = format!("takes {} bytes, its", figures[0][0]);
    let readme = include_str!("../README.md").replace('\n', " ");
    for said in
        [said, format!("whole event id {},", figures[1][0]), format!("who is known {} (", figures[2][0])]
    {
        assert!(readme.contains(&said), "README.md should have: {said}");
    }
}
