//! The machine before the homeserver: CoAP in, HTTP out, and back.
//!
//! Sans-IO: after every call that takes `now`, drain [`Gateway::poll`] until `None`, then sleep until [`Gateway::deadline`].

mod absence;
mod absent;
mod agreement;
mod authorization;
mod config;
mod counters;
mod devices;
mod dtls;
mod feed;
mod journal;
mod keys;
mod memory;
mod observation;
mod packed;
mod restart;
mod session;
mod shaping;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, warn};

use crate::coap;
use crate::coap::{Code, Instant, ObservationId, Observe};
use crate::codec::Keys;
use crate::device::{Generation, Name, Refused, TokenError};
use crate::endpoint;
use crate::endpoint::{Address, Association, Endpoint, RequestKey};
use crate::translate;
pub use crate::translate::FetchError;
use crate::translate::{Call, Format, Refusal, response};
use absence::Absences;
pub use config::Config;
pub use counters::Counters;
pub use devices::DeviceChange;
use devices::Devices;
pub use dtls::Access;
use dtls::Secure;
use feed::{Checked, FeedId, Feeds};
use memory::{Key, Memories};
pub use memory::{is_of_keys, is_of_packed, is_of_request, record_of_keys};
use observation::Observation;
use packed::Packed;
use session::Sessions;
use shaping::{ShapeId, Shaping};

/// The gateway of one homeserver.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    endpoint: Endpoint,
    sessions: Sessions,
    packed: Packed,
    shaping: Shaping,
    devices: Devices,
    fetches: BTreeMap<FetchId, Fetch>,
    /// Those of them that are made with a device's token.
    authorized: BTreeMap<FetchId, Authorized>,
    /// Those of them that there is no token for, until their ends are taken in.
    unauthorized: VecDeque<(FetchId, TokenError)>,
    observations: BTreeMap<ObservationId, Observation>,
    /// The same by whose they are.
    observers: BTreeSet<(Association, ObservationId)>,
    feeds: Feeds,
    absences: Absences,
    next_fetch: u64,
    outputs: VecDeque<Output>,
    memories: Memories,
    secure: Option<Box<Secure>>,
    counters: Counters,
    stopping: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram came.
    Datagram {
        /// From whom, and where to.
        address: Address,
        /// Its bytes.
        datagram: &'a [u8],
    },
    /// A call of the homeserver has ended.
    Fetched {
        /// The call.
        id: FetchId,
        /// What it came to.
        result: Result<http::Response<Bytes>, FetchError>,
    },
}

/// What to do next. What was taken to be stored is to be durable before anything is done that was taken after it.
#[derive(Debug)]
pub enum Output {
    /// Keep a record for [`Gateway::restore`], in the place of the one with the same key.
    Store {
        /// What the record is of.
        key: Vec<u8>,
        /// The record; none takes away what is kept.
        value: Option<Vec<u8>>,
    },
    /// Send a datagram.
    Datagram {
        /// To whom, and from where.
        address: Address,
        /// Its bytes.
        datagram: Vec<u8>,
    },
    /// Call the homeserver, and hand in [`Input::Fetched`] once.
    Fetch {
        /// The call.
        id: FetchId,
        /// The request, its URL absolute.
        request: http::Request<Bytes>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Give up a call; nobody waits for what it comes to.
    Abandon {
        /// The call.
        id: FetchId,
    },
    /// Write into the file of devices what has become of one, then hand it in by [`Gateway::set_device`]; keys that are lost need not be, and those that were agreed on
    /// are written only if [`Gateway::has_keys`] holds by then.
    Device {
        /// Which.
        name: Name,
        /// What has become of it.
        change: DeviceChange,
    },
}

/// A call of the homeserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(u64);

/// What a call of the homeserver is for.
#[derive(Debug)]
enum Fetch {
    /// A peer's request.
    Request { key: RequestKey, association: Association, call: Call, shape: Option<ShapeId> },
    /// A peer's registration as an observer of `/sync`.
    Registration { key: RequestKey, association: Association, call: Call, shape: Option<ShapeId> },
    /// The next events of a feed.
    Poll(FeedId),
    /// The events that an observer has missed of its feed.
    CatchUp(ObservationId),
    /// A device's next token.
    Refresh(Association),
}

/// A call that is made with a device's token.
#[derive(Debug)]
struct Authorized {
    account: Association,
    /// The token that it was made with; none while it waits for one.
    generation: Option<Generation>,
    /// The request, without the token.
    request: http::Request<Bytes>,
    timeout: Duration,
    /// Whether it has waited for another token since the homeserver did not take the first.
    renewed: bool,
}

impl Gateway {
    /// A gateway without peers. All its randomness comes from `seed`.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            endpoint: Endpoint::new(config.endpoint.clone(), seed),
            sessions: Sessions::new(config.sessions, config.session_lifetime),
            packed: Packed::new(&config, &seed),
            shaping: Shaping::new(&config),
            config,
            devices: Devices::default(),
            fetches: BTreeMap::new(),
            authorized: BTreeMap::new(),
            unauthorized: VecDeque::new(),
            observations: BTreeMap::new(),
            observers: BTreeSet::new(),
            feeds: Feeds::default(),
            absences: Absences::default(),
            next_fetch: 1,
            outputs: VecDeque::new(),
            memories: Memories::default(),
            secure: None,
            counters: Counters::default(),
            stopping: false,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Datagram { address, datagram } => self.take_in(address, datagram, now),
            Input::Fetched { id, result } => self.fetched(id, result, now),
        }
        self.drain(now);
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        self.advance_sessions(now);
        self.endpoint.advance(now);
        self.take_waiting(now);
        self.sessions.expire(now);
        self.forget_sessions();
        while let Some(feed) = self.feeds.take_due(now) {
            self.tend(feed, now);
        }
        while let Some(peer) = self.absences.take_due(now) {
            self.probe(peer, now);
        }
        self.drain(now);
    }

    /// Takes no more requests. Observers are told that they observe no longer, and can register again elsewhere or later; but where
    /// memories are stored they go on after the restart, and are told nothing.
    pub fn shutdown(&mut self, now: Instant) {
        self.stopping = true;
        for id in self.observations.keys().copied().collect::<Vec<_>>() {
            match self.outlasts(id) {
                true => self.pause(id, now),
                false => self.end_observation(id, Refusal::ShuttingDown, now),
            }
        }
        self.take_waiting(now);
        self.drain(now);
    }

    /// Whether nobody waits for anything: every request is answered and every message of ours acknowledged.
    pub fn is_idle(&self) -> bool {
        self.outputs.is_empty() && self.has_departed() && self.endpoint.is_settled()
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Output> {
        while let Some((key, memory)) = self.endpoint.poll_memory() {
            match memory {
                Some(memory) => self.memories.store(&Key::Endpoint(key), &memory),
                None => self.memories.forget(&Key::Endpoint(key)),
            }
        }
        if let Some((key, value)) = self.memories.poll() {
            return Some(Output::Store { key, value });
        }
        if let Some((address, datagram)) = self.poll_departing() {
            return Some(Output::Datagram { address, datagram });
        }
        self.outputs.pop_front()
    }

    /// When [`Gateway::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let own = [self.sessions.deadline(), self.feeds.deadline(), self.absences.deadline()];
        own.into_iter().chain([self.endpoint.deadline(), self.sessions_deadline()]).flatten().min()
    }

    /// What was counted since the start, and what is held now.
    pub fn counters(&self) -> Counters {
        Counters {
            endpoint: *self.endpoint.counters(),
            edhoc: self.endpoint.edhoc_counters().unwrap_or_default(),
            peers: self.endpoint.peers(),
            sessions: self.sessions.len(),
            packed: self.packed.len(),
            devices: self.devices.len(),
            observations: self.observations.len(),
            absent: self.observations.values().filter(|observation| observation.is_absent()).count(),
            feeds: self.feeds.len(),
            fetching: self.fetches.len(),
            queued: self.endpoint.queued(),
            ..self.count_sessions()
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            let heard = self.take_events(now);
            let unauthorized = self.unauthorized.pop_front();
            let is_quiet = heard.is_empty() && unauthorized.is_none();
            // Once for all that came of a datagram, and when it is known whether that is a registration.
            heard.into_iter().for_each(|peer| self.reachable(peer, now));
            if let Some((id, error)) = unauthorized {
                self.fetched(id, Err(error.into()), now);
            }
            if is_quiet && !self.carry(now) {
                return;
            }
        }
    }

    /// Does what events say; returns the peers that were heard of.
    fn take_events(&mut self, now: Instant) -> BTreeSet<Association> {
        let mut heard = BTreeSet::new();
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                endpoint::Event::Request { key, association, request, recalled } => {
                    self.counters.recalled += u64::from(recalled);
                    heard.insert(association);
                    self.receive(key, association, request, recalled, now);
                }
                endpoint::Event::Delivered(id) => {
                    self.count_told(id, now);
                    self.delivered(id, now);
                }
                endpoint::Event::Undelivered(id) => {
                    self.count_told(id, now);
                    self.undelivered(id, now);
                }
                endpoint::Event::Deregistered(id) => self.deregistered(id, now),
                endpoint::Event::Reachable(peer) => drop(heard.insert(peer)),
                endpoint::Event::Unreachable(peer) => self.wait_for(peer, now),
                endpoint::Event::KeysAgreed { association, number, kid } => {
                    self.keys_agreed(association, number, &kid);
                }
                endpoint::Event::KeysSpent { association, number } => self.keys_spent(association, number),
                endpoint::Event::KeysUsed { association, number } => self.keys_used(association, number),
                // The gateway makes no requests of its own to peers.
                endpoint::Event::Response { .. }
                | endpoint::Event::Failed { .. }
                | endpoint::Event::Unprotected { .. } => {}
            }
        }
        heard
    }

    /// Counts what a notification has taken up of its device's link.
    fn count_told(&mut self, id: ObservationId, now: Instant) {
        if let Some(association) = self.endpoint.association(id) {
            self.count_airtime(association, now);
        }
    }

    /// A peer's request: translated and passed on, or refused.
    ///
    /// One that was `recalled` after a restart may have been passed on before it. Doing it again does no harm where HTTP says so
    /// (RFC 9110 §9.2.2): what Matrix sends by PUT has a transaction id.
    fn receive(
        &mut self,
        key: RequestKey,
        association: Association,
        request: coap::Request,
        recalled: bool,
        now: Instant,
    ) {
        let Some(request) = self.defer(key, association, request, recalled, now) else { return };
        let is_packed = self.packed.is_spoken() && translate::packed::is_packed(&request);
        if is_packed && request.observe == Some(Observe::Deregister) {
            // RFC 7641 §3.6: it repeats the registration, which may be of long ago, and nobody reads its answer: neither says anything of what
            // the two ends know.
            return self.endpoint.respond(key, coap::Response::new(Code::CONTENT), now);
        }
        let barred = self.bars_token(association, &request);
        let session = self.sessions.of(association, now);
        let before = session.clone();
        let call = match barred {
            true => Err(Refused::Token.into()),
            false if is_packed => match translate::packed::read_options(&request, session) {
                Ok(()) => self.packed.call(association, &request, session),
                Err(refusal) => Err(refusal),
            },
            false => translate::request::to_http(&request, session, &self.config.codec).map(Some),
        };
        let format = match is_packed {
            true => Format::Cbor(Keys::V1),
            false => session.format(&request.options),
        };
        if self.config.endpoint.durable && *session != before {
            self.memories.store(&Key::Session(association), session);
        }
        self.forget_sessions();
        self.remember_packed();
        let mut call = match call {
            _ if self.stopping => return self.refuse(key, &Refusal::ShuttingDown, format, now),
            Ok(None) => return self.agree(key, association, &request.payload, now),
            Ok(Some(call)) if recalled && !call.method.is_idempotent() => {
                return self.refuse(key, &Refusal::Interrupted, format, now);
            }
            Ok(Some(call)) => call,
            Err(refusal) => return self.refuse(key, &refusal, format, now),
        };
        // Observe means something on /sync alone. The answer comes at once, so that a registration is confirmed and a
        // deregistration does not wait for events.
        let observe = request.observe.filter(|_| sync::is_sync(&call));
        let shape = sync::is_sync(&call).then(|| self.shaping.of(self.endpoint.link(association))).flatten();
        let registers = observe == Some(Observe::Register);
        let admitted = self.admit(association, &request, (&mut call, shape), registers, recalled, now);
        let account = match admitted {
            Ok(account) => account,
            Err(refused) => return self.refuse(key, &refused.into(), format, now),
        };
        let call = if observe.is_some() { sync::polling(&call, None, Duration::ZERO) } else { call };
        let http = match self.shaping.call(shape, &call).to_http(&self.config.homeserver) {
            Ok(http) => http,
            Err(refusal) => return self.refuse(key, &refusal, format, now),
        };
        let wait = sync::wait(&call);
        let fetch = match registers {
            true => {
                let call = Call { format: call.format.observing(), ..call };
                Fetch::Registration { key, association, call, shape }
            }
            false => Fetch::Request { key, association, call, shape },
        };
        self.fetch(fetch, account, http, wait, now);
    }

    fn refuse(&mut self, key: RequestKey, refusal: &Refusal, format: Format, now: Instant) {
        debug!(%refusal, "request refused");
        self.counters.refusals += 1;
        if let Refusal::Device(refused) = refusal {
            self.counters.device_refusals.count(refused);
        }
        self.endpoint.respond(key, response::refuse(refusal, format), now);
    }

    /// Makes a call, with the token of a device where it is one's.
    fn fetch(
        &mut self,
        fetch: Fetch,
        account: Option<Association>,
        request: http::Request<Bytes>,
        wait: Duration,
        now: Instant,
    ) -> FetchId {
        let id = self.number_fetch(fetch);
        let timeout = wait.saturating_add(self.config.fetch_timeout);
        match account {
            None => self.outputs.push_back(Output::Fetch { id, request, timeout }),
            Some(account) => {
                let call = Authorized { account, generation: None, request, timeout, renewed: false };
                self.authorized.insert(id, call);
                self.authorize(id, now);
            }
        }
        id
    }

    fn number_fetch(&mut self, fetch: Fetch) -> FetchId {
        let id = FetchId(self.next_fetch);
        self.next_fetch += 1;
        self.counters.fetches += 1;
        self.fetches.insert(id, fetch);
        id
    }

    fn fetched(&mut self, id: FetchId, result: Result<http::Response<Bytes>, FetchError>, now: Instant) {
        if !self.fetches.contains_key(&id) {
            return;
        }
        let Some(result) = self.answered(id, result, now) else { return };
        let account = self.authorized.remove(&id).map(|call| call.account);
        let Some(fetch) = self.fetches.remove(&id) else { return };
        if let Err(error) = &result {
            warn!(%error, "call of the homeserver failed");
            self.counters.fetch_failures += 1;
        }
        match fetch {
            Fetch::Request { key, association, call, shape } => {
                let result = self.shaping.answer(shape, &call.query, result);
                let response = self.translate(association, &call, result);
                self.endpoint.respond(key, response, now);
            }
            Fetch::Registration { key, association, call, shape } => {
                let result = self.shaping.answer(shape, &call.query, result);
                let checked = Checked::by(id, self.next_fetch);
                self.register(key, association, (call, shape, account), result, checked, now);
                self.reachable(association, now);
            }
            Fetch::Poll(feed) => self.polled(feed, result, now),
            Fetch::CatchUp(observation) => self.caught_up(observation, id, result, now),
            Fetch::Refresh(account) => self.refreshed(account, result, now),
        }
    }

    /// The CoAP response to what a call came to.
    fn translate(
        &mut self,
        association: Association,
        call: &Call,
        result: Result<http::Response<Bytes>, FetchError>,
    ) -> coap::Response {
        let response = match result {
            Ok(response) => response,
            Err(error) => return response::refuse(&error.into(), call.format),
        };
        let translated = match call.format {
            Format::Packed(asked) => self.pack(association, (call, asked), &response),
            Format::Cbor(_) | Format::Json => {
                response::to_coap(call, &response, &self.config.advertise, &self.config.codec)
            }
        };
        translated.unwrap_or_else(|refusal| {
            warn!(%refusal, "answer of the homeserver refused");
            self.counters.bad_answers += 1;
            response::refuse(&refusal, call.format)
        })
    }
}
