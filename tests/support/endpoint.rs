//! Stories of an endpoint: what its user does and hears, in the notation of messages without their kind and ids.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lowband::coap::{
    BlockSize, Instant, Message, ObservationId, Observe, OptionNumber, Options, Parameters, Priority,
    Request, RequestError, Response,
};
use lowband::endpoint::{Address, Config, Endpoint, Event, RequestId, RequestKey};

use super::notation;
use super::{Machine, Story};

/// The peer that stories are about, unless they say otherwise.
pub(crate) const PEER: Address = peer(1);
/// Another.
pub(crate) const OTHER: Address = peer(2);

/// One of many peers.
pub(crate) const fn peer(number: u16) -> Address {
    Address {
        remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), number),
        local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), 5683),
    }
}

/// RFC 7252's parameters, without chance; nobody has to show where it is.
pub(crate) fn config() -> Config {
    Config {
        parameters: Parameters { ack_random_factor: 1.0, ..Parameters::default() },
        trusted: true,
        ..Config::default()
    }
}

/// A story of an endpoint that cuts bodies into blocks of so many bytes.
pub(crate) fn with_blocks(bytes: usize) -> Story<Endpoint> {
    Story::new(endpoint_with_blocks(bytes), PEER)
}

/// An endpoint that cuts bodies into blocks of so many bytes.
pub(crate) fn endpoint_with_blocks(bytes: usize) -> Endpoint {
    let mut config = config();
    config.transfers.block = BlockSize::fitting(bytes);
    Endpoint::new(config, [7; 32])
}

/// A story of an endpoint with this configuration.
pub(crate) fn with(config: Config) -> Story<Endpoint> {
    Story::new(Endpoint::new(config, [7; 32]), PEER)
}

impl Machine for Endpoint {
    type Address = Address;
    type Event = Event;

    fn handle(&mut self, from: Address, datagram: &[u8], now: Instant) {
        Endpoint::handle(self, from, datagram, now);
    }

    fn advance(&mut self, now: Instant) {
        Endpoint::advance(self, now);
    }

    fn deadline(&self) -> Option<Instant> {
        Endpoint::deadline(self)
    }

    fn poll_datagram(&mut self) -> Option<(Address, Vec<u8>)> {
        Endpoint::poll_datagram(self)
    }

    fn poll_event(&mut self) -> Option<Event> {
        Endpoint::poll_event(self)
    }
}

impl Story<Endpoint> {
    /// The user hears of a complete request.
    pub(crate) fn is_asked(&mut self, at: u64, text: &str) -> RequestKey {
        match self.reported(at) {
            Event::Request { key, request: actual, .. } => {
                assert_eq!(actual, request(text), "at {at} ms: the request");
                key
            }
            other => panic!("{at} ms: expected {text}, but {other:?}"),
        }
    }

    /// The user answers a request.
    pub(crate) fn answers(&mut self, at: u64, key: RequestKey, text: &str) {
        self.does(at, |endpoint, now| endpoint.respond(key, response(text), now));
    }

    /// The user answers a registration and accepts it.
    pub(crate) fn accepts(&mut self, at: u64, key: RequestKey, text: &str) -> ObservationId {
        self.does(at, |endpoint, now| endpoint.accept_observation(key, response(text), now))
            .unwrap_or_else(|| panic!("{at} ms: the observation is not accepted"))
    }

    /// The user has news for an observer.
    pub(crate) fn notifies(&mut self, at: u64, id: ObservationId, text: &str) {
        self.does(at, |endpoint, now| endpoint.notify(id, response(text), Priority::Notification, now));
    }

    /// The user asks the peer.
    pub(crate) fn asks(&mut self, at: u64, text: &str) -> RequestId {
        self.does(at, |endpoint, now| endpoint.request(PEER, request(text), now))
    }

    /// The user gets the answer to a request.
    pub(crate) fn is_answered(&mut self, at: u64, id: RequestId, text: &str) {
        self.reports(at, Event::Response { id, response: response(text), notification: false });
    }

    /// The user gets an observation's news.
    pub(crate) fn is_notified(&mut self, at: u64, id: RequestId, text: &str) {
        self.reports(at, Event::Response { id, response: response(text), notification: true });
    }

    /// The user hears that a request failed.
    pub(crate) fn fails(&mut self, at: u64, id: RequestId, error: RequestError) {
        self.reports(at, Event::Failed { id, error });
    }

    /// Nothing happens until then, and nothing is kept.
    pub(crate) fn is_empty(&mut self, at: u64) {
        self.sends_nothing(at);
        assert_eq!(self.machine.deadline(), None, "nothing is to be done at {at} ms");
        assert_eq!((self.machine.peers(), self.machine.pending()), (0, 0), "at {at} ms: {:?}", self.machine);
    }
}

/// A request in the notation: `GET, /status, ?a=b`.
pub(crate) fn request(text: &str) -> Request {
    let message = message(text);
    let observe = match message.options.get_uint(OptionNumber::OBSERVE) {
        Some(0) => Some(Observe::Register),
        Some(_) => Some(Observe::Deregister),
        None => None,
    };
    Request {
        method: message.code,
        options: without_observe(message.options),
        observe,
        payload: message.payload,
    }
}

/// A response in the notation: `2.05, CF:60, 0..300`.
pub(crate) fn response(text: &str) -> Response {
    let message = message(text);
    Response { code: message.code, options: without_observe(message.options), payload: message.payload }
}

fn without_observe(mut options: Options) -> Options {
    options.remove(OptionNumber::OBSERVE);
    options
}

fn message(text: &str) -> Message {
    notation::message(&format!("CON [MID=0], {text}"))
}
