//! Clients, the gateway and the homeserver, all machines, in virtual time: a datagram takes 10 ms, a call of the homeserver 20.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use lowband::coap;
use lowband::coap::Instant;
use lowband::endpoint;
use lowband::endpoint::Address;
use lowband::endpoint::Endpoint;
use lowband::endpoint::Event;
use lowband::gateway;
use lowband::gateway::FetchId;
use lowband::gateway::Gateway;
use lowband::gateway::Input;
use lowband::gateway::Output;
use lowband::homeserver;
use lowband::homeserver::Homeserver;
use lowband::homeserver::Outcome;
use serde_json::Value;

use super::script::Call;
use super::script::Member;

const DELAY: Duration = Duration::from_millis(10);
const CALL: Duration = Duration::from_millis(20);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What is under way, by the time at which it arrives and the order in which it left.
enum Arrival {
    ToGateway(usize, Vec<u8>),
    ToClient(usize, Vec<u8>),
    Call(FetchId, Box<http::Request<Bytes>>),
}

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    homeserver: Homeserver,
    clients: Vec<Endpoint>,
    now: Instant,
    sent: u64,
    under_way: BTreeMap<(Instant, u64), Arrival>,
    answers: Vec<(usize, coap::Response)>,
}

impl World {
    pub(crate) fn new(clients: usize) -> World {
        let client = |index: usize| Endpoint::new(endpoint::Config::default(), [index as u8; 32]);
        World {
            gateway: Gateway::new(gateway::Config::new("http://homeserver".parse().unwrap()), [255; 32]),
            homeserver: Homeserver::new(homeserver::Config::default()),
            clients: (0..clients).map(client).collect(),
            now: Instant::START,
            sent: 0,
            under_way: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    /// Lets a client make a call, and waits for the answer.
    pub(crate) fn ask(&mut self, client: usize, token: Option<&str>, call: &Call) -> Value {
        self.request(client, call.to_coap(token));
        loop {
            if let Some((of, response)) = self.answers.pop() {
                assert_eq!(of, client);
                return call.read(&response).unwrap();
            }
            assert!(self.step(None), "no answer");
        }
    }

    /// Lets each client make so many calls, one after the other, and all at the same time. Returns what went wrong.
    pub(crate) fn run(&mut self, calls: usize, members: &[Member], room: &str) -> Vec<String> {
        let mut errors = Vec::new();
        let mut made = vec![0; members.len()];
        for (client, member) in members.iter().enumerate() {
            self.request(client, Call::of_load(0, member, room).to_coap(None));
        }
        while made.iter().any(|made| *made < calls) {
            assert!(self.step(None), "no answer");
            for (client, response) in std::mem::take(&mut self.answers) {
                let (number, member) = (made[client], &members[client]);
                errors.extend(Call::of_load(number, member, room).check(number, member, &response).err());
                made[client] += 1;
                if made[client] < calls {
                    self.request(client, Call::of_load(made[client], member, room).to_coap(None));
                }
            }
        }
        errors
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(Some(end)) {}
        self.now = end;
    }

    fn request(&mut self, client: usize, request: coap::Request) {
        let gateway = Address { remote: SocketAddr::new(LOCAL, 5683), local: SocketAddr::new(LOCAL, 5683) };
        self.clients[client].request(gateway, request, self.now);
        self.drain();
    }

    /// Goes on to the next thing that happens; false when there is none, or none until `end`.
    fn step(&mut self, end: Option<Instant>) -> bool {
        let clients = self.clients.iter().filter_map(Endpoint::deadline);
        let arrival = self.under_way.keys().next().map(|(time, _)| *time);
        let next = clients.chain(self.gateway.deadline()).chain(arrival).min();
        let Some(next) = next.filter(|next| end.is_none_or(|end| *next <= end)) else { return false };
        self.now = self.now.max(next);
        let later = self.under_way.split_off(&(self.now, u64::MAX));
        for arrival in std::mem::replace(&mut self.under_way, later).into_values() {
            self.arrive(arrival);
        }
        self.gateway.advance(self.now);
        self.clients.iter_mut().for_each(|client| client.advance(self.now));
        self.drain();
        true
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::ToGateway(client, datagram) => {
                let input = Input::Datagram { address: address_of(client), datagram: &datagram };
                self.gateway.handle(input, self.now);
            }
            Arrival::ToClient(client, datagram) => {
                let gateway =
                    Address { remote: SocketAddr::new(LOCAL, 5683), local: SocketAddr::new(LOCAL, 5683) };
                self.clients[client].handle(gateway, &datagram, self.now);
            }
            Arrival::Call(id, request) => {
                let result = Ok(self.serve(&request));
                self.gateway.handle(Input::Fetched { id, result }, self.now);
            }
        }
    }

    fn serve(&mut self, request: &http::Request<Bytes>) -> http::Response<Bytes> {
        let now_ms = 1_700_000_000_000 + self.now.since_start().as_millis() as u64;
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap());
        let request = homeserver::Request {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or("").to_owned(),
            token: authorization.map(|value| value.strip_prefix("Bearer ").unwrap().to_owned()),
            body: request.body().clone(),
            arrived_ms: now_ms,
        };
        let Outcome::Reply(reply) = self.homeserver.handle(&request, now_ms) else { panic!("a long poll") };
        let response =
            http::Response::builder().status(reply.status).header("content-type", "application/json");
        response.body(Bytes::from(reply.body.to_string())).unwrap()
    }

    fn drain(&mut self) {
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Datagram { address, datagram } => {
                    let client = usize::from(address.remote.port()) - 10_000;
                    self.send(DELAY, Arrival::ToClient(client, datagram));
                }
                Output::Fetch { id, request, .. } => self.send(CALL, Arrival::Call(id, Box::new(request))),
                Output::Abandon { .. } => panic!("a call is given up"),
                Output::Store { .. } | Output::Device { .. } => panic!("nothing is to be stored"),
            }
        }
        for client in 0..self.clients.len() {
            while let Some((_, datagram)) = self.clients[client].poll_datagram() {
                self.send(DELAY, Arrival::ToGateway(client, datagram));
            }
            while let Some(event) = self.clients[client].poll_event() {
                match event {
                    Event::Response { response, .. } => self.answers.push((client, response)),
                    event => panic!("client {client}: {event:?}"),
                }
            }
        }
    }

    fn send(&mut self, delay: Duration, arrival: Arrival) {
        self.sent += 1;
        self.under_way.insert((self.now + delay, self.sent), arrival);
    }
}

fn address_of(client: usize) -> Address {
    Address { remote: SocketAddr::new(LOCAL, 10_000 + client as u16), local: SocketAddr::new(LOCAL, 5683) }
}
