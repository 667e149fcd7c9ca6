//! One device and a gateway on one link that loses nothing, in virtual time, with every datagram entered in a ledger.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use lowband::coap;
use lowband::coap::Airtime;
use lowband::coap::Instant;
use lowband::coap::Observe;
use lowband::coap::Priority;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::endpoint;
use lowband::endpoint::Address;
use lowband::endpoint::Association;
use lowband::endpoint::Endpoint;
use lowband::endpoint::Event;
use lowband::endpoint::RequestId;
use lowband::gateway;
use lowband::gateway::FetchId;
use lowband::gateway::Gateway;
use lowband::gateway::Input;
use lowband::gateway::Output;
use lowband::link::End;
use lowband::link::Profile;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::Secret;
use lowband::sim::Account;
use lowband::sim::Channel;
use lowband::sim::Fate;
use lowband::sim::Impairments;
use lowband::sim::Ledger;
use lowband::sim::Security;
use lowband::translate;
use serde_json::Value;
use serde_json::json;

use super::operations::Operation;

/// A device's conversation with its gateway.
pub struct Conversation {
    now: Instant,
    link: String,
    /// Who the gateway is to the device.
    association: Association,
    gateway: Gateway,
    device: Endpoint,
    channel: Channel,
    /// How many bytes a record adds to each datagram.
    sealing: usize,
    ledger: Ledger,
    /// What the homeserver answers to whatever it is asked, but for long polls.
    answer: Value,
    answers: BTreeMap<(Instant, FetchId), Value>,
    /// The long poll under way, which ends with nothing new.
    poll: Option<(Instant, FetchId)>,
    /// The gateway keeps the access token of a device: it is sent once.
    introduced: bool,
    asked: Option<RequestId>,
    /// When what was asked, or is to be heard, had arrived in full.
    done: Option<Instant>,
    /// Nothing reaches the device.
    away: bool,
}

/// What an operation took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Datagrams, bytes and airtime of both directions.
    pub account: Account,
    /// Datagrams of those that were sent before.
    pub again: u64,
    /// Bytes from the device, and to it.
    pub sides: [u64; 2],
    /// From its beginning until the device had all of it; none where the device waits for nothing.
    pub took: Option<Duration>,
}

const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5683);
const DEVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 5683);
/// The device's id, as a gateway with up to 256 devices gives them.
const KID: &[u8] = b"\x01";
/// As Synapse makes them.
const TOKEN: &str = "syt_a3Nlbmlh_eWmuajtJJqoJNKlvwnvM_0brfFs";

/// How long the homeserver takes for an answer, and for one to a long poll without news.
const LATENCY: Duration = Duration::from_millis(20);
const LONG_POLL: Duration = Duration::from_secs(30);
/// After so long a pause nothing of what was before is on the link, or counts for its duty cycle.
const PAUSE: Duration = Duration::from_secs(2 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
/// What has not ended by then never will.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Conversation {
    /// Some time after the device was last heard: both know what the link is like, and the gateway who the device is.
    pub fn introduced(profile: &Profile, security: Security) -> Self {
        let mut conversation = Self::new(profile, security);
        let whoami = Operation::new("GET", "/_matrix/client/v3/account/whoami");
        conversation.call(&whoami);
        conversation.pause(PAUSE);
        conversation
    }

    /// The same, with a device that has to make itself known again.
    pub fn unknown(profile: &Profile) -> Self {
        Self { introduced: false, ..Self::introduced(profile, Security::None) }
    }

    /// The same, with a device that has observed for some time, in which nothing happened.
    pub fn observing(profile: &Profile, security: Security) -> Self {
        let mut conversation = Self::introduced(profile, security);
        let mut sync = Operation::new("GET", "/_matrix/client/v3/sync?since=s0");
        sync.answer = json!({ "next_batch": "s1" });
        conversation.observe(&sync);
        conversation.pause(PAUSE);
        assert!(conversation.poll.is_some(), "the homeserver is asked for news");
        conversation
    }

    /// Makes a call, until nobody has more to say.
    pub fn call(&mut self, operation: &Operation) -> Cost {
        self.ask(operation, None)
    }

    /// Observes what a call answers, until the first answer is acknowledged.
    pub fn observe(&mut self, operation: &Operation) -> Cost {
        self.ask(operation, Some(Observe::Register))
    }

    /// The homeserver has news for an observer, who is told.
    pub fn hear(&mut self, operation: &Operation) -> Cost {
        let began = self.begin();
        self.news(operation);
        self.finish(began)
    }

    /// Nothing happens for an hour.
    pub fn idle(&mut self) -> Cost {
        self.begin();
        self.pause(HOUR);
        self.cost(None)
    }

    /// The homeserver has news for an observer who has gone, until the gateway knows it.
    pub fn lose(&mut self, operation: &Operation) -> Cost {
        self.away = true;
        let began = self.begin();
        self.news(operation);
        self.run(began + LONGEST, |it| it.gateway.counters().absent > 0);
        self.cost(None)
    }

    fn new(profile: &Profile, security: Security) -> Self {
        let mut association = Association::from(gateway_address());
        let config = |end| {
            let config = endpoint::Config::over(&profile.name, profile.terms(end));
            // Nobody has to show where it is.
            endpoint::Config { trusted: true, durable: security != Security::None, ..config }
        };
        let mut gateway = gateway::Config::new("http://homeserver".parse().unwrap());
        gateway.endpoint = config(End::Gateway);
        let mut gateway = Gateway::new(gateway, [1; 32]);
        let mut device = Endpoint::new(config(End::Peer), [2; 32]);
        if security == Security::Oscore {
            association = Association::Device(1);
            let keys = Parameters::new(Secret::from([7; 16]), KID, b"");
            let known = lowband::sim::device("buoy", 1, &keys).unwrap();
            gateway.set_device(&known, Instant::START);
            gateway.begin_keys(&known.name);
            device.admit_keys(1, association, keys).unwrap();
        }
        // The terms are those of the real link: whoever speaks does not know that nothing is lost today.
        let calm = Profile { loss: 0.0, jitter: Duration::ZERO, ..profile.clone() };
        Self {
            now: Instant::START,
            link: profile.name.clone(),
            association,
            gateway,
            device,
            channel: Channel::new(calm, Impairments::default(), 3),
            sealing: profile.sealing,
            ledger: Ledger::default(),
            answer: json!({}),
            answers: BTreeMap::new(),
            poll: None,
            introduced: false,
            asked: None,
            done: None,
            away: false,
        }
    }

    fn ask(&mut self, operation: &Operation, observe: Option<Observe>) -> Cost {
        let began = self.begin();
        self.answer = operation.answer.clone();
        let mut request = self.request(operation);
        request.observe = observe;
        let (whom, place) = (self.association, gateway_address());
        self.asked = Some(self.device.request_to(whom, Priority::Message, place, request, began));
        self.drain();
        self.finish(began)
    }

    fn news(&mut self, operation: &Operation) {
        let (_, id) = self.poll.take().expect("a long poll is under way");
        self.answers.insert((self.now, id), operation.answer.clone());
    }

    fn begin(&mut self) -> Instant {
        self.ledger = Ledger::default();
        self.done = None;
        self.now
    }

    fn finish(&mut self, began: Instant) -> Cost {
        self.run(began + LONGEST, |it| it.done.is_some() && it.is_quiet());
        let done = self.done.unwrap_or_else(|| panic!("{}: no end in {LONGEST:?}", self.link));
        self.cost(Some(done.since(began)))
    }

    fn cost(&self, took: Option<Duration>) -> Cost {
        let (mut all, sides) = (Account::default(), self.ledger.sides());
        for side in sides {
            for account in [side.first, side.again] {
                all.datagrams += account.datagrams;
                all.link += account.link;
                all.security += account.security;
                all.header += account.header;
                all.options += account.options;
                all.payload += account.payload;
                all.airtime += account.airtime;
            }
        }
        Cost {
            account: all,
            again: sides.iter().map(|side| side.again.datagrams).sum(),
            sides: sides.map(|side| side.first.bytes() + side.again.bytes()),
            took,
        }
    }

    fn is_quiet(&self) -> bool {
        self.gateway.is_idle() && self.device.is_settled() && self.channel.deadline().is_none()
    }

    fn request(&mut self, operation: &Operation) -> coap::Request {
        let mut http = http::Request::builder().method(operation.method.as_str()).uri(&operation.target);
        if !operation.is_open() {
            http = http.header(http::header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        }
        let body = operation.body.as_ref().map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let http = http.body(body).unwrap();
        let mut request = translate::request::to_coap(&http, Keys::V1, &Limits::default()).unwrap();
        if self.introduced {
            lowband::translate::request::leave_out_sticky(&mut request);
        }
        self.introduced = !operation.is_open();
        request
    }

    fn pause(&mut self, time: Duration) {
        let end = self.now + time;
        self.run(end, |_| false);
        self.now = end;
    }

    /// Goes on until something is so, or a time has come.
    fn run(&mut self, until: Instant, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let answer = self.answers.first_key_value().map(|((at, _), _)| *at);
            let poll = self.poll.map(|(at, _)| at);
            let own =
                [self.gateway.deadline(), self.device.deadline(), self.channel.deadline(), answer, poll];
            let Some(next) = own.into_iter().flatten().min().filter(|next| *next <= until) else { return };
            self.now = self.now.max(next);
            self.step();
        }
    }

    /// Lets everything happen that is due now.
    fn step(&mut self) {
        if let Some((_, id)) = self.poll.take_if(|(at, _)| *at <= self.now) {
            self.answers.insert((self.now, id), json!({ "next_batch": "s1" }));
        }
        while let Some(first) = self.answers.first_entry().filter(|first| first.key().0 <= self.now) {
            let ((_, id), body) = first.remove_entry();
            let mut response = http::Response::new(Bytes::from(body.to_string()));
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            self.gateway.handle(Input::Fetched { id, result: Ok(response) }, self.now);
            self.drain();
        }
        while let Some(mut arrival) = self.channel.poll(self.now) {
            arrival.datagram.truncate(arrival.datagram.len() - self.sealing);
            match arrival.to {
                End::Gateway => {
                    let address = Address { remote: DEVICE, local: GATEWAY };
                    let input = Input::Datagram { address, datagram: &arrival.datagram };
                    self.gateway.handle(input, self.now);
                }
                End::Peer if self.away => {}
                End::Peer => {
                    let address = Address { remote: GATEWAY, local: (Ipv4Addr::UNSPECIFIED, 0).into() };
                    self.device.handle(address, &arrival.datagram, self.now);
                }
            }
            self.drain();
        }
        self.gateway.advance(self.now);
        self.device.advance(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Datagram { datagram, .. } => self.send(End::Gateway, datagram),
                Output::Fetch { id, request, .. } => self.fetch(id, &request),
                Output::Abandon { id } => drop(self.poll.take_if(|(_, poll)| *poll == id)),
                Output::Store { .. } | Output::Device { .. } => {}
            }
        }
        while let Some((_, datagram)) = self.device.poll_datagram() {
            self.send(End::Peer, datagram);
        }
        while let Some(event) = self.device.poll_event() {
            let Event::Response { id, response, .. } = event else { panic!("{}: {event:?}", self.link) };
            let response = translate::response::to_http(&response, &Limits::default()).unwrap();
            assert_eq!((response.status(), Some(id)), (StatusCode::OK, self.asked), "{}", self.link);
            self.done = Some(self.now);
        }
    }

    fn fetch(&mut self, id: FetchId, request: &http::Request<Bytes>) {
        let query = request.uri().query().unwrap_or_default();
        if request.uri().path().ends_with("/sync") && query.contains("timeout=30000") {
            self.poll = Some((self.now + LONG_POLL, id));
        } else {
            self.answers.insert((self.now + LATENCY, id), self.answer.clone());
        }
    }

    fn send(&mut self, from: End, mut datagram: Vec<u8>) {
        let airtime = Airtime { sealing: self.sealing, ..self.channel.airtime(from) };
        self.ledger.enter(from, 0, &datagram, airtime);
        // As long as its record.
        datagram.resize(datagram.len() + self.sealing, 0);
        let passage = self.channel.send(from, 0, datagram, self.now);
        assert!(matches!(passage.fate, Fate::Arrives(_)), "{}: {passage:?}", self.link);
    }
}

/// Where the gateway is, as the device sees it.
fn gateway_address() -> Address {
    Address { remote: GATEWAY, local: (Ipv4Addr::UNSPECIFIED, 0).into() }
}
