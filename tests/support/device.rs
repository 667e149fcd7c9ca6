//! A gateway with a device and a homeserver that does as it is told, in virtual time, over a link that loses nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};

use lowband::coap::{Code, Instant, Message, Priority, Request, Response};
use lowband::device::{
    Device, Devices, History, Keys, Kind, Limits, Material, NewDevice, Oscore, Rotation, Routes, Security,
    Tokens, Unused,
};
use lowband::endpoint::{Address, Association, Endpoint, Event, RequestId};
use lowband::gateway::{Config, DeviceChange, FetchId, Gateway, Input, Output};
use lowband::security::edhoc::Identity;
use lowband::security::oscore::{Parameters, is_protected};

use super::endpoint::{self, OTHER, PEER};

/// The gateway, as the device sees it.
pub(crate) const GATEWAY: Address = PEER;
/// The device's own view of whom it speaks with.
pub(crate) const SELF: Association = Association::Device(1);

/// The gateway's part, its driver's, and a device.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) config: Config,
    /// What is in the file of devices.
    pub(crate) devices: Devices,
    /// What is in the state file.
    pub(crate) stored: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) device: Endpoint,
    /// Calls of the homeserver: method and URL, token, body.
    pub(crate) calls: VecDeque<(FetchId, http::Request<Bytes>)>,
    pub(crate) abandoned: Vec<FetchId>,
    /// What has become of devices, in order.
    pub(crate) changes: Vec<DeviceChange>,
    /// Whether what has become of devices is written at once.
    pub(crate) writes: bool,
    /// All datagrams that were on the link, and whether the device sent them.
    pub(crate) wire: Vec<(bool, Vec<u8>)>,
    pub(crate) answers: VecDeque<(RequestId, Response, bool)>,
    /// Errors that came without protection to one who is protected.
    pub(crate) unprotected: Vec<Code>,
    pub(crate) now: Instant,
}

/// The key that devices which agree on keys know the gateway by.
pub(crate) fn gateways_identity() -> Identity {
    Identity::generate("", &[0x20], [0x6c; 32]).unwrap()
}

/// What the device `buoy` is made from.
pub(crate) fn buoy() -> NewDevice {
    NewDevice {
        name: "buoy".parse().unwrap(),
        user_id: "@buoy:hs.example".into(),
        kind: Kind::Oscore,
        link: None,
        routes: Routes::Messaging,
        limits: Limits::default(),
        allow_token: false,
        tokens: Some(Tokens::access("syt_first")),
    }
}

pub(crate) fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

impl World {
    /// A gateway that serves devices alone, and this one.
    pub(crate) fn new(device: NewDevice) -> Self {
        let mut config = super::gateway::durable();
        config.endpoint.plain = false;
        Self::with(config, device)
    }

    pub(crate) fn with(config: Config, new: NewDevice) -> Self {
        let mut devices = Devices::default();
        let agrees = matches!(new.kind, Kind::Edhoc(_));
        if agrees {
            devices.set_identity(gateways_identity());
        }
        let device = devices.added(new, &Material::new([1; 48]), at(0)).unwrap();
        devices.put(device);
        let mut world = Self {
            gateway: Gateway::new(config.clone(), [7; 32]),
            config,
            devices,
            stored: BTreeMap::new(),
            device: Endpoint::new(endpoint::config(), [1; 32]),
            calls: VecDeque::new(),
            abandoned: Vec::new(),
            changes: Vec::new(),
            writes: true,
            wire: Vec::new(),
            answers: VecDeque::new(),
            unprotected: Vec::new(),
            now: at(0),
        };
        if !agrees {
            world.device.admit_keys(0, SELF, world.half()).unwrap();
        }
        world.start(7);
        world
    }

    /// The device as the file has it.
    pub(crate) fn kept(&self) -> Device {
        self.devices.get(&"buoy".parse().unwrap()).unwrap().clone()
    }

    /// The device's half of the keys that it was given last.
    pub(crate) fn half(&self) -> Parameters {
        let device = self.kept();
        let Keys { security: Security::Oscore(oscore), .. } = device.next.or(device.keys).unwrap() else {
            panic!()
        };
        let Oscore { secret, salt, device_id, gateway_id, .. } = oscore;
        Parameters {
            master_salt: salt.expose().to_vec().into(),
            ..Parameters::new(secret.expose().to_vec().into(), &device_id, &gateway_id)
        }
    }

    /// Another device's keys at the same place: the device has been brought its new half.
    pub(crate) fn take_up_keys(&mut self, seed: u8) {
        self.device = Endpoint::new(endpoint::config(), [seed; 32]);
        self.device.admit_keys(u64::from(seed), SELF, self.half()).unwrap();
    }

    /// The process is killed, and another takes up what is stored.
    pub(crate) fn restart(&mut self, seed: u8) {
        self.settle();
        self.calls.clear();
        self.start(seed);
    }

    fn start(&mut self, seed: u8) {
        self.gateway = Gateway::new(self.config.clone(), [seed; 32]);
        self.devices.identity().into_iter().for_each(|identity| self.gateway.answer_edhoc(identity));
        for device in self.devices.iter() {
            self.gateway.set_device(device, self.now);
        }
        self.gateway.restore(self.stored.clone(), self.now);
        self.begin();
    }

    /// As the driver does it: what keys are used for is stored, then that they are used.
    pub(crate) fn begin(&mut self) {
        self.gateway.begin_keys(&"buoy".parse().unwrap());
        self.settle();
        if let Some(device) = self.devices.begun(&"buoy".parse().unwrap()) {
            self.devices.put(device);
        }
    }

    /// An order of the operator's.
    pub(crate) fn put(&mut self, device: Device) {
        self.devices.put(device);
        self.apply();
    }

    pub(crate) fn apply(&mut self) {
        let device = self.kept();
        self.gateway.set_device(&device, self.now);
        self.begin();
    }

    pub(crate) fn rotate(&mut self, material: u8) {
        let rotation = Rotation { unused: Unused::Keep, pin: None, public_key: None };
        let name = "buoy".parse().unwrap();
        let device = self.devices.rotated(&name, rotation, &Material::new([material; 48]), self.now).unwrap();
        assert!(device.next.as_ref().is_some_and(|keys| keys.history == History::Fresh));
        self.put(device);
    }

    pub(crate) fn revoke(&mut self) {
        let device = self.devices.revoked(&"buoy".parse().unwrap(), self.now).unwrap();
        self.put(device);
    }

    /// The device asks.
    pub(crate) fn asks(&mut self, text: &str) -> RequestId {
        self.asks_for(endpoint::request(text))
    }

    pub(crate) fn asks_for(&mut self, request: Request) -> RequestId {
        let id = self.device.request_to(SELF, Priority::Message, GATEWAY, request, self.now);
        self.settle();
        id
    }

    /// The device has an answer that is its last: its code, and what it says of when to ask again.
    #[track_caller]
    pub(crate) fn answered(&mut self, id: RequestId) -> Response {
        let (answered, response, _) = self.answers.pop_front().expect("no answer");
        assert_eq!(answered, id);
        response
    }

    /// The device asks, and is served with this call.
    #[track_caller]
    pub(crate) fn is_served(&mut self, text: &str, call: &str) {
        let id = self.asks(text);
        let call = self.called(call);
        self.says(call, 200, "{}");
        assert!(self.answered(id).code.is_success());
    }

    /// The homeserver is called, with this token.
    #[track_caller]
    pub(crate) fn called(&mut self, expected: &str) -> FetchId {
        let (id, request) = self.calls.pop_front().unwrap_or_else(|| panic!("no call: {expected}"));
        let mut text = format!("{} {}", request.method(), request.uri().path());
        if let Some(token) = request.headers().get(AUTHORIZATION) {
            text = format!("{text} {}", token.to_str().unwrap());
        }
        assert_eq!(text, expected);
        id
    }

    /// The homeserver answers.
    pub(crate) fn says(&mut self, id: FetchId, status: u16, json: &str) {
        let response = http::Response::builder().status(status).header(CONTENT_TYPE, "application/json");
        let result = Ok(response.body(Bytes::copy_from_slice(json.as_bytes())).unwrap());
        self.gateway.handle(Input::Fetched { id, result }, self.now);
        self.settle();
    }

    /// Time passes.
    pub(crate) fn run(&mut self, until: Instant) {
        for _ in 0..100_000 {
            self.settle();
            let due = [self.gateway.deadline(), self.device.deadline()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(due);
            self.gateway.advance(self.now);
            self.device.advance(self.now);
        }
        panic!("there is no end to it");
    }

    /// Carries what waits, until nothing does.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.gateway.poll() {
                idle = false;
                match output {
                    Output::Store { key, value: Some(value) } => drop(self.stored.insert(key, value)),
                    Output::Store { key, value: None } => drop(self.stored.remove(&key)),
                    Output::Datagram { address, datagram } => {
                        self.wire.push((false, datagram.clone()));
                        if address == OTHER {
                            self.device.handle(GATEWAY, &datagram, self.now);
                        }
                    }
                    Output::Fetch { id, request, .. } => self.calls.push_back((id, request)),
                    Output::Abandon { id } => self.abandoned.push(id),
                    Output::Device { change, .. } => {
                        self.changes.push(change.clone());
                        if self.writes {
                            self.write(&change);
                        }
                    }
                }
            }
            while let Some(event) = self.device.poll_event() {
                match event {
                    Event::Response { id, response, notification } => {
                        self.answers.push_back((id, response, notification))
                    }
                    Event::Failed { .. } => {}
                    Event::Unprotected { response, .. } => self.unprotected.push(response.code),
                    other => panic!("{other:?}"),
                }
            }
            while self.device.poll_memory().is_some() {}
            while let Some((_, datagram)) = self.device.poll_datagram() {
                idle = false;
                self.wire.push((true, datagram.clone()));
                self.gateway.handle(Input::Datagram { address: OTHER, datagram: &datagram }, self.now);
            }
            if idle {
                return;
            }
        }
    }

    /// As the driver does it.
    pub(crate) fn write(&mut self, change: &DeviceChange) {
        let name = "buoy".parse().unwrap();
        let device = match change {
            DeviceChange::Used(number) => self.devices.used(&name, *number),
            DeviceChange::Lost(number) => self.devices.lost(&name, *number),
            DeviceChange::Agreed { number, .. } if !self.gateway.has_keys(*number) => None,
            DeviceChange::Agreed { by, number, oscore } => {
                self.devices.agreed(&name, *by, *number, (**oscore).clone())
            }
            DeviceChange::Renewed(tokens) => self.devices.renewed(&name, tokens.clone()).ok(),
        };
        if let Some(device) = device {
            self.devices.put(device);
            let device = self.kept();
            if !matches!(change, DeviceChange::Lost(_)) {
                self.gateway.set_device(&device, self.now);
            }
        }
    }

    /// Whether bytes were anywhere on the link.
    pub(crate) fn was_on_the_link(&self, text: &str) -> bool {
        let holds = |datagram: &[u8]| datagram.windows(text.len()).any(|window| window == text.as_bytes());
        self.wire.iter().any(|(_, datagram)| holds(datagram))
    }

    /// Whether everything on the link but empty messages was protected.
    pub(crate) fn is_all_protected(&self) -> bool {
        let mut messages = self.wire.iter().map(|(_, datagram)| Message::decode(datagram).unwrap());
        messages.all(|message| message.is_empty() || is_protected(&message))
    }
}
