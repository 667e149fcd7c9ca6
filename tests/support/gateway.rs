//! Stories of a gateway between peers and a homeserver.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};

use lowband::coap::Instant;
use lowband::endpoint;
use lowband::endpoint::Address;
use lowband::gateway::{Config, DeviceChange, FetchError, FetchId, Gateway, Input, Output};

use super::endpoint as support_endpoint;
use super::endpoint::PEER;
use super::{Machine, Story};

/// Where `/sync` is.
pub(crate) const SYNC: &str = "https://hs.example/_matrix/client/v3/sync";

/// A gateway, and the outputs that are not taken yet: datagrams and calls come in one queue.
pub(crate) struct Driven {
    /// The gateway.
    pub(crate) gateway: Gateway,
    /// The records that it has stored.
    pub(crate) stored: BTreeMap<Vec<u8>, Vec<u8>>,
    outputs: Vec<Output>,
}

/// What a gateway wants of the homeserver.
#[derive(Debug, PartialEq)]
pub(crate) enum Call {
    /// `METHOD url`, and where there are such `Bearer token` and a body.
    Fetch { id: FetchId, request: String, timeout: Duration },
    /// The call is of no use any more.
    Abandon(FetchId),
    /// Something has become of a device.
    Device(String, DeviceChange),
}

/// A gateway before `https://hs.example`, without chance.
pub(crate) fn config() -> Config {
    Config { endpoint: support_endpoint::config(), ..Config::new("https://hs.example".parse().unwrap()) }
}

/// The same, which stores what must survive a restart.
pub(crate) fn durable() -> Config {
    let endpoint = endpoint::Config { durable: true, ..support_endpoint::config() };
    Config { endpoint, ..config() }
}

/// A story of a gateway.
pub(crate) fn with(config: Config) -> Story<Driven> {
    let gateway = Gateway::new(config, [7; 32]);
    Story::new(Driven { gateway, stored: BTreeMap::new(), outputs: Vec::new() }, PEER)
}

/// An answer to `/sync` with nothing new.
pub(crate) fn idle(position: &str) -> String {
    format!(r#"{{"next_batch":"{position}"}}"#)
}

/// One with something new.
pub(crate) fn news(position: &str) -> String {
    format!(r#"{{"next_batch":"{position}","to_device":{{"events":[{{"type":"m.x"}}]}}}}"#)
}

/// A gateway with an observation of `/sync` by the token 4a, since 100 ms at position s1, and the poll that follows.
pub(crate) fn observed() -> (Story<Driven>, FetchId) {
    observed_by(with(config()))
}

/// The same of a gateway that is there already.
pub(crate) fn observed_by(mut gateway: Story<Driven>) -> (Story<Driven>, FetchId) {
    gateway.gets(
        0,
        "CON [MID=1, TOK=0x4a], GET, /_matrix/client/v3/sync, Observe:0, Accept:50, Access-Token:\"A\"",
    );
    let id = gateway.fetches(0, &format!("GET {SYNC}?timeout=0 Bearer A"));
    gateway.fetched(50, id, 200, &news("s1"));
    gateway.sends(50, "ACK [MID=1]");
    gateway.sends(50, &format!("CON [MID=first, TOK=0x4a], 2.05, Observe:0, CF:50, `{}`", news("s1")));
    gateway.gets(100, "ACK [MID=first]");
    let poll = gateway.fetches(100, &format!("GET {SYNC}?timeout=30000&since=s1 Bearer A"));
    (gateway, poll)
}

impl Driven {
    /// The process is killed, and another takes up what it has stored.
    pub(crate) fn restart(&mut self, config: Config, now: Instant) {
        self.drain();
        self.outputs.clear();
        self.gateway = Gateway::new(config, [8; 32]);
        self.gateway.restore(self.stored.clone(), now);
    }

    fn drain(&mut self) {
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Store { key, value: Some(value) } => drop(self.stored.insert(key, value)),
                Output::Store { key, value: None } => drop(self.stored.remove(&key)),
                output => self.outputs.push(output),
            }
        }
    }

    fn take<T>(&mut self, of_kind: impl Fn(&Output) -> bool, read: impl Fn(Output) -> T) -> Option<T> {
        self.drain();
        let at = self.outputs.iter().position(of_kind)?;
        Some(read(self.outputs.remove(at)))
    }
}

impl Machine for Driven {
    type Address = Address;
    type Event = Call;

    fn handle(&mut self, from: Address, datagram: &[u8], now: Instant) {
        self.gateway.handle(Input::Datagram { address: from, datagram }, now);
    }

    fn advance(&mut self, now: Instant) {
        self.gateway.advance(now);
    }

    fn deadline(&self) -> Option<Instant> {
        self.gateway.deadline()
    }

    fn poll_datagram(&mut self) -> Option<(Address, Vec<u8>)> {
        self.take(
            |output| matches!(output, Output::Datagram { .. }),
            |output| match output {
                Output::Datagram { address, datagram } => (address, datagram),
                other => panic!("{other:?}"),
            },
        )
    }

    fn poll_event(&mut self) -> Option<Call> {
        self.take(
            |output| !matches!(output, Output::Datagram { .. }),
            |output| match output {
                Output::Fetch { id, request, timeout } => {
                    Call::Fetch { id, request: describe(&request), timeout }
                }
                Output::Abandon { id } => Call::Abandon(id),
                Output::Device { name, change } => Call::Device(name.to_string(), change),
                other => panic!("{other:?}"),
            },
        )
    }
}

fn describe(request: &http::Request<Bytes>) -> String {
    let mut text = format!("{} {}", request.method(), request.uri());
    if let Some(authorization) = request.headers().get(AUTHORIZATION) {
        text = format!("{text} {}", authorization.to_str().unwrap());
    }
    if !request.body().is_empty() {
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
        text = format!("{text} {}", str::from_utf8(request.body()).unwrap());
    }
    text
}

impl Story<Driven> {
    /// The gateway calls the homeserver.
    pub(crate) fn fetches(&mut self, at: u64, expected: &str) -> FetchId {
        match self.reported(at) {
            Call::Fetch { id, request, .. } => {
                assert_eq!(request, expected, "at {at} ms");
                id
            }
            other => panic!("{at} ms: expected {expected}, but {other:?}"),
        }
    }

    /// The gateway gives up a call.
    pub(crate) fn abandons(&mut self, at: u64, id: FetchId) {
        self.reports(at, Call::Abandon(id));
    }

    /// The homeserver answers a call in JSON.
    pub(crate) fn fetched(&mut self, at: u64, id: FetchId, status: u16, json: &str) {
        let response = http::Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::copy_from_slice(json.as_bytes()))
            .unwrap();
        self.fetch_ends(at, id, Ok(response));
    }

    /// A call of the homeserver ends in another way.
    pub(crate) fn fetch_ends(
        &mut self,
        at: u64,
        id: FetchId,
        result: Result<http::Response<Bytes>, FetchError>,
    ) {
        self.does(at, |driven, now| driven.gateway.handle(Input::Fetched { id, result }, now));
    }
}
