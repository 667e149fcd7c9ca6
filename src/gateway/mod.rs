//! The machine before the homeserver: CoAP in, HTTP out, and back.
//!
//! Sans-IO: after every call that takes `now`, drain [`Gateway::poll`] until `None`, then sleep until [`Gateway::deadline`].

mod observation;
mod session;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tracing::{debug, warn};

use crate::coap;
use crate::coap::{Instant, ObservationId, Observe};
use crate::codec;
use crate::endpoint;
use crate::endpoint::{Address, Association, Endpoint, RequestKey};
use crate::matrix::rewrite::Advertise;
use crate::translate;
pub use crate::translate::FetchError;
use crate::translate::{Call, Format, Refusal, response};
use observation::Observation;
use session::Sessions;

/// The gateway of one homeserver.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    endpoint: Endpoint,
    sessions: Sessions,
    fetches: BTreeMap<FetchId, Fetch>,
    observations: BTreeMap<ObservationId, Observation>,
    /// The observations whose next poll is due then.
    polls: BTreeSet<(Instant, ObservationId)>,
    next_fetch: u64,
    outputs: VecDeque<Output>,
    counters: Counters,
    stopping: bool,
}

/// What a gateway serves, and within which limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// The homeserver; its URL may have a path, which goes before every request's.
    pub homeserver: Uri,
    /// What the gateway says of itself in the homeserver's answers.
    pub advertise: Advertise,
    /// How long a call of the homeserver may take, beyond what a long poll asks for.
    pub fetch_timeout: Duration,
    /// How long the homeserver is asked to wait for events of an observation at a time.
    pub poll_timeout: Duration,
    /// Peers whose access token and table version are remembered; the one unused for longest goes first.
    pub sessions: usize,
    /// How long they are remembered without a request.
    pub session_lifetime: Duration,
    /// How large and how deep bodies may be, in either direction.
    pub codec: codec::Limits,
    /// The CoAP side.
    pub endpoint: endpoint::Config,
}

impl Config {
    /// The default before this homeserver.
    pub fn new(homeserver: Uri) -> Self {
        Self {
            homeserver,
            advertise: Advertise::default(),
            fetch_timeout: Duration::from_secs(60),
            poll_timeout: Duration::from_secs(30),
            sessions: 10_000,
            session_lifetime: Duration::from_secs(24 * 3600),
            codec: codec::Limits::default(),
            endpoint: endpoint::Config::default(),
        }
    }
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

/// What to do next.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "each output is handed on at once, and few are held")]
pub enum Output {
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
}

/// A call of the homeserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(u64);

/// What was counted since the start, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// The CoAP side.
    pub endpoint: endpoint::Counters,
    /// Calls of the homeserver.
    pub fetches: u64,
    /// Calls of the homeserver that came to nothing.
    pub fetch_failures: u64,
    /// Answers of the homeserver that could not be translated.
    pub bad_answers: u64,
    /// Requests that the gateway refused itself.
    pub refusals: u64,
    /// Registrations of observers.
    pub registrations: u64,
    /// Notifications.
    pub notifications: u64,
    /// Notifications that were acknowledged in full.
    pub delivered: u64,
    /// Observations ended because a notification was not acknowledged.
    pub undelivered: u64,
    /// Answers to polls with nothing new for the peer, which cost it nothing.
    pub idle_polls: u64,
    /// Peers held now.
    pub peers: usize,
    /// Sessions held now.
    pub sessions: usize,
    /// Observations held now.
    pub observations: usize,
    /// Calls of the homeserver under way.
    pub fetching: usize,
}

/// What a call of the homeserver is for.
#[derive(Debug)]
enum Fetch {
    /// A peer's request.
    Request { key: RequestKey, call: Call },
    /// A peer's registration as an observer of `/sync`.
    Registration { key: RequestKey, call: Call },
    /// An observation's next events.
    Poll(ObservationId),
}

impl Gateway {
    /// A gateway without peers. All its randomness comes from `seed`.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            endpoint: Endpoint::new(config.endpoint.clone(), seed),
            sessions: Sessions::new(config.sessions, config.session_lifetime),
            config,
            fetches: BTreeMap::new(),
            observations: BTreeMap::new(),
            polls: BTreeSet::new(),
            next_fetch: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            stopping: false,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Datagram { address, datagram } => self.endpoint.handle(address, datagram, now),
            Input::Fetched { id, result } => self.fetched(id, result, now),
        }
        self.drain(now);
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        self.endpoint.advance(now);
        self.sessions.expire(now);
        while let Some((due, id)) = self.polls.first().copied().filter(|(due, _)| *due <= now) {
            self.polls.remove(&(due, id));
            self.poll_homeserver(id, now);
        }
        self.drain(now);
    }

    /// Takes no more requests, and tells every observer that it observes no longer; they can register again elsewhere or later.
    pub fn shutdown(&mut self, now: Instant) {
        self.stopping = true;
        for id in self.observations.keys().copied().collect::<Vec<_>>() {
            self.end_observation(id, &Refusal::ShuttingDown, now);
        }
        self.drain(now);
    }

    /// Whether nobody waits for anything: every request is answered and every message of ours acknowledged.
    pub fn is_idle(&self) -> bool {
        self.outputs.is_empty() && self.endpoint.is_settled()
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some((address, datagram)) = self.endpoint.poll_datagram() {
            return Some(Output::Datagram { address, datagram });
        }
        self.outputs.pop_front()
    }

    /// When [`Gateway::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let poll = self.polls.first().map(|(due, _)| *due);
        [self.endpoint.deadline(), self.sessions.deadline(), poll].into_iter().flatten().min()
    }

    /// What was counted since the start, and what is held now.
    pub fn counters(&self) -> Counters {
        Counters {
            endpoint: *self.endpoint.counters(),
            peers: self.endpoint.peers(),
            sessions: self.sessions.len(),
            observations: self.observations.len(),
            fetching: self.fetches.len(),
            ..self.counters
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                endpoint::Event::Request { key, association, request, .. } => {
                    self.receive(key, association, request, now)
                }
                endpoint::Event::Delivered(id) => self.delivered(id, now),
                endpoint::Event::Undelivered(id) => self.undelivered(id, now),
                endpoint::Event::Deregistered(id) => self.forget_observation(id),
                // The gateway makes no requests of its own to peers.
                endpoint::Event::Response { .. } | endpoint::Event::Failed { .. } => {}
                endpoint::Event::Reachable(_) | endpoint::Event::Unreachable(_) => {}
            }
        }
    }

    /// A peer's request: translated and passed on, or refused.
    fn receive(&mut self, key: RequestKey, association: Association, request: coap::Request, now: Instant) {
        let session = self.sessions.of(association, now);
        let call = translate::request::to_http(&request, session, &self.config.codec);
        let format = session.format(&request.options);
        let call = match call {
            _ if self.stopping => return self.refuse(key, &Refusal::ShuttingDown, format, now),
            Ok(call) => call,
            Err(refusal) => return self.refuse(key, &refusal, format, now),
        };
        // Observe means something on /sync alone. The answer comes at once, so that a registration is confirmed and a
        // deregistration does not wait for events.
        let observe = request.observe.filter(|_| sync::is_sync(&call));
        let call = if observe.is_some() { sync::polling(&call, None, Duration::ZERO) } else { call };
        let http = match call.to_http(&self.config.homeserver) {
            Ok(http) => http,
            Err(refusal) => return self.refuse(key, &refusal, format, now),
        };
        let wait = sync::wait(&call);
        let registers = observe == Some(Observe::Register);
        self.fetch(
            if registers { Fetch::Registration { key, call } } else { Fetch::Request { key, call } },
            http,
            wait,
        );
    }

    fn refuse(&mut self, key: RequestKey, refusal: &Refusal, format: Format, now: Instant) {
        debug!(%refusal, "request refused");
        self.counters.refusals += 1;
        self.endpoint.respond(key, response::refuse(refusal, format), now);
    }

    fn fetch(&mut self, fetch: Fetch, request: http::Request<Bytes>, wait: Duration) -> FetchId {
        let id = FetchId(self.next_fetch);
        self.next_fetch += 1;
        self.counters.fetches += 1;
        self.fetches.insert(id, fetch);
        let timeout = wait.saturating_add(self.config.fetch_timeout);
        self.outputs.push_back(Output::Fetch { id, request, timeout });
        id
    }

    fn fetched(&mut self, id: FetchId, result: Result<http::Response<Bytes>, FetchError>, now: Instant) {
        let Some(fetch) = self.fetches.remove(&id) else { return };
        if let Err(error) = &result {
            warn!(%error, "call of the homeserver failed");
            self.counters.fetch_failures += 1;
        }
        match fetch {
            Fetch::Request { key, call } => {
                let response = self.translate(&call, result);
                self.endpoint.respond(key, response, now);
            }
            Fetch::Registration { key, call } => self.register(key, call, result, now),
            Fetch::Poll(id) => self.polled(id, result, now),
        }
    }

    /// The CoAP response to what a call came to.
    fn translate(
        &mut self,
        call: &Call,
        result: Result<http::Response<Bytes>, FetchError>,
    ) -> coap::Response {
        let response = match result {
            Ok(response) => response,
            Err(error) => return response::refuse(&error.into(), call.format),
        };
        let translated = response::to_coap(call, &response, &self.config.advertise, &self.config.codec);
        translated.unwrap_or_else(|refusal| {
            warn!(%refusal, "answer of the homeserver refused");
            self.counters.bad_answers += 1;
            response::refuse(&refusal, call.format)
        })
    }
}
