//! The gateway's machine in real time: datagrams from sockets, calls to the homeserver, one clock.
//!
//! One task owns the machine, so nothing is locked. Each turn takes at most one batch from each socket and a bounded number
//! of finished calls: neither a burst of datagrams nor a burst of answers keeps the other waiting for longer than that.

mod devices;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use serde::Serialize;
use thiserror::Error;
use tokio::task::AbortHandle;
use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio::time;
use tracing::debug;
use tracing::info;
use tracing::warn;

use super::clock::Clock;
use super::desk;
use super::desk::Desk;
use super::desk::DeskError;
use super::devices::Changed;
use super::dtls;
use super::dtls::KeyLog;
use super::priming::Priming;
use super::socket;
use super::socket::Batch;
use super::socket::Socket;
use super::store;
use super::store::Room;
use super::store::Store;
use super::store::StoreError;
use super::upstream;
use super::upstream::Upstream;
use crate::coap::Instant;
use crate::coap::Message;
use crate::device::Name;
use crate::endpoint::Address;
use crate::gateway;
use crate::gateway::DeviceChange;
use crate::gateway::FetchError;
use crate::gateway::FetchId;
use crate::gateway::Gateway;
use crate::gateway::Input;
use crate::gateway::Output;
use crate::security::oscore::is_protected;

/// A gateway that is bound and not yet running.
pub struct Server {
    machine: Gateway,
    clock: Clock,
    batch: Batch,
    outside: Outside,
    /// The packed profile's model, from when it is needed until it is ready.
    priming: Priming,
    /// Where the keys of sessions of DTLS are written to.
    key_log: Option<KeyLog>,
    /// The devices, where they are kept.
    desk: Option<Desk>,
    /// What has become of devices and could not be written, and when it is tried again; the first due first.
    unwritten: VecDeque<(Instant, Name, DeviceChange)>,
    config: Config,
}

impl Server {
    /// Finished calls that one turn takes, beside a batch of datagrams from each socket.
    const CALLS_PER_TURN: usize = 16;

    /// Binds all addresses. From here on datagrams wait in the sockets for [`Server::run`].
    ///
    /// # Errors
    /// An address that cannot be bound, certificates that cannot be read, no randomness, a state
    /// file that cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(mut config: Config) -> Result<Self, StartError> {
        config.gateway.endpoint.durable = config.state.is_some();
        let upstream = Upstream::new(&config.upstream)?;
        let mut sockets = Vec::new();
        for Listener { address, link, security } in &config.listen {
            let bound = Socket::bind(*address);
            let socket = bound.map_err(|source| StartError::Bind { address: *address, source })?;
            let link = link.clone().map(|link| (socket.local(), link));
            config.gateway.endpoint.listeners.extend(link);
            if *security == Security::Dtls {
                config.gateway.endpoint.sealed.insert(socket.local());
            }
            sockets.push(socket);
        }
        let mut machine = Gateway::new(config.gateway.clone(), random()?);
        let clock = Clock::start();
        let endpoint = &config.gateway.endpoint;
        let key_log = match endpoint.sealed.is_empty() {
            true => None,
            false => config.dtls.serve(&mut machine, endpoint, &clock, random()?)?,
        };
        // Devices' sequence numbers have to be kept somewhere.
        if config.devices.is_some() && config.state.is_none() {
            return Err(StartError::DevicesWithoutState);
        }
        let store = match &config.state {
            Some(path) => {
                let fail = |source| StartError::State { path: path.clone(), source };
                let store = Store::open(path).map_err(fail)?;
                let records = store.records().map_err(fail)?;
                Some((store, records))
            }
            None => None,
        };
        let desk = config.devices.as_ref().map(Desk::open).transpose()?;
        if let Some(identity) = desk.as_ref().and_then(|desk| desk.store.devices().identity()) {
            machine.answer_edhoc(identity);
        }
        // Keys come before what they were used for.
        for device in desk.iter().flat_map(|desk| desk.store.devices().iter()) {
            machine.set_device(device, clock.now());
        }
        let store = store.map(|(store, records)| {
            machine.restore(records, clock.now());
            store
        });
        let outside = Outside::new(sockets, upstream, store);
        let (batch, unwritten) = (Batch::new(), VecDeque::new());
        let priming = Priming::default();
        let mut server = Self { machine, clock, batch, outside, priming, key_log, desk, unwritten, config };
        let devices = server.desk.iter().flat_map(|desk| desk.store.devices().iter());
        let names: Vec<_> = devices.map(|device| device.name.clone()).collect();
        server.begin(&names);
        Ok(server)
    }

    /// The addresses that are bound, with their real ports, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.outside.sockets.iter().map(Socket::local).collect()
    }

    /// The way to the homeserver that this gateway uses.
    pub fn upstream(&self) -> &Upstream {
        &self.outside.upstream
    }

    /// Serves until `stop` is ready. Then takes no more requests, lets answers in flight finish for [`Config::grace`], and
    /// returns what it counted.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Counters {
        self.serve(stop).await;
        self.machine.shutdown(self.clock.now());
        self.drain();
        let finished = time::timeout(self.config.grace, async {
            while !self.machine.is_idle() {
                self.turn().await;
            }
        });
        if finished.await.is_err() {
            let calls = self.outside.running.len();
            match calls {
                0 => {
                    warn!(grace = ?self.config.grace, "stopped before peers had acknowledged all that they were sent")
                }
                _ => warn!(grace = ?self.config.grace, calls, "stopped before the homeserver had answered"),
            }
        }
        self.machine.end_sessions(self.clock.now());
        self.drain();
        let counters = self.counters();
        report(&counters);
        self.close();
        counters
    }

    /// Keeps what is known of devices' keys, so that they go on after a restart as if there had been none.
    fn close(mut self) {
        let now = self.clock.now();
        let Some(mut store) = self.outside.store.take().filter(|store| !store.lacks_keys()) else { return };
        for (key, value) in self.machine.close() {
            store.put(room(&key), key, Some(value), now);
        }
        store.commit(now);
    }

    async fn serve(&mut self, stop: impl Future<Output = ()>) {
        if self.outside.store.is_none() {
            info!("no state file: observers and access tokens are forgotten when the gateway ends");
        }
        // What has been restored wants to be told and asked for.
        self.drain();
        let mut stop = std::pin::pin!(stop);
        let mut reports = time::interval(self.config.report.max(Duration::from_secs(1)));
        reports.tick().await; // The first is at once.
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = reports.tick() => report(&self.counters()),
                () = self.turn() => {}
            }
        }
    }

    /// Waits until something is there, then handles a bounded part of all that is. Dropped while it waits, it loses nothing.
    async fn turn(&mut self) {
        let deadline = self.deadline();
        let finished = tokio::select! {
            changed = changed(&mut self.desk, &self.clock) => {
                self.apply(changed);
                None
            }
            () = socket::readable(self.outside.sockets.iter().map(Socket::io)) => None,
            Some(finished) = self.outside.calls.join_next() => Some(finished),
            () = self.priming.ready() => None,
            () = self.clock.sleep_until(deadline) => None,
        };
        let mut finished = finished;
        for _ in 0..Self::CALLS_PER_TURN {
            let Some(call) = finished.take().or_else(|| self.outside.calls.try_join_next()) else { break };
            self.finish(call);
        }
        let received: Vec<_> = (0..self.outside.sockets.len()).map(|index| self.receive(index)).collect();
        self.change_again();
        self.machine.advance(self.clock.now());
        self.drain();
        if received.iter().any(Result::is_err) {
            time::sleep(socket::REST).await;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let again = self.unwritten.front().map(|(due, ..)| *due);
        [self.machine.deadline(), again].into_iter().flatten().min()
    }

    fn receive(&mut self, index: usize) -> Result<(), ()> {
        let Some(socket) = self.outside.sockets.get(index) else { return Ok(()) };
        if let Err(error) = socket.receive(&mut self.batch) {
            debug!(socket = %socket.local(), %error, "cannot receive");
            self.outside.counters.receive_errors += 1;
            return Err(());
        }
        let now = self.clock.now();
        for (address, datagram) in self.batch.datagrams() {
            self.outside.counters.received += 1;
            self.outside.counters.received_bytes += count(datagram.len());
            if self.outside.withholds(datagram) {
                continue;
            }
            self.machine.handle(Input::Datagram { address, datagram }, now);
            // At each one, so that what the machine holds stays small however large the batch is; but once for all where each
            // would wait for the disk.
            if self.outside.store.is_none() {
                self.outside.drain(&mut self.machine, now);
            }
        }
        Ok(())
    }

    fn finish(&mut self, call: Finished) {
        if let Some((id, result)) = self.outside.finish(call) {
            self.machine.handle(Input::Fetched { id, result }, self.clock.now());
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.outside.drain(&mut self.machine, self.clock.now());
        while let Some((name, change)) = self.outside.changes.pop_front() {
            self.change(&name, change);
            self.outside.drain(&mut self.machine, self.clock.now());
        }
        if let Some(primer) = self.machine.take_primer() {
            self.priming = Priming::begin(primer);
        }
        while let Some(line) = self.machine.poll_key_log() {
            self.key_log.iter_mut().for_each(|log| log.write(&line));
        }
    }

    fn counters(&self) -> Counters {
        let store = self.outside.store.as_ref().map(Store::counters);
        Counters { datagrams: self.outside.counters, store, gateway: self.machine.counters() }
    }
}

/// Where a record waits for its commit.
fn room(key: &[u8]) -> Room {
    if gateway::is_of_request(key) {
        Room::Requests
    } else if gateway::is_of_keys(key) {
        Room::Keys
    } else {
        Room::Others
    }
}

/// Everything that the machine acts on.
struct Outside {
    sockets: Vec<Socket>,
    upstream: Upstream,
    calls: JoinSet<Call>,
    running: BTreeMap<FetchId, AbortHandle>,
    store: Option<Store>,
    /// What has become of devices.
    changes: VecDeque<(Name, DeviceChange)>,
    counters: DatagramCounters,
}

type Call = (FetchId, Result<Response<Bytes>, FetchError>);
type Finished = Result<Call, JoinError>;

impl Outside {
    fn new(sockets: Vec<Socket>, upstream: Upstream, store: Option<Store>) -> Self {
        Self {
            sockets,
            upstream,
            calls: JoinSet::new(),
            running: BTreeMap::new(),
            store,
            changes: VecDeque::new(),
            counters: DatagramCounters::default(),
        }
    }

    /// Acts on all that the machine has to say. What it has stored is on the disk, in one commit, before what comes after it.
    fn drain(&mut self, machine: &mut Gateway, now: Instant) {
        while let Some(output) = machine.poll() {
            if !matches!(output, Output::Store { .. }) {
                self.commit(now);
            }
            match output {
                Output::Store { key, value } => {
                    if let Some(store) = &mut self.store {
                        store.put(room(&key), key, value, now);
                    }
                }
                Output::Datagram { datagram, .. } if self.withholds(&datagram) => {}
                Output::Datagram { address, datagram } => self.send(address, &datagram),
                Output::Fetch { id, request, timeout } => self.fetch(id, request, timeout),
                Output::Abandon { id } => self.abandon(id),
                Output::Device { name, change } => self.changes.push_back((name, change)),
            }
        }
        self.commit(now);
    }

    fn commit(&mut self, now: Instant) {
        if let Some(store) = &mut self.store {
            store.commit(now);
        }
    }

    /// Whether a datagram is protected while it cannot be written what the keys are used for: a restart would use a nonce twice, or take
    /// a replay for a new request. It is lost, as any datagram may be.
    fn withholds(&mut self, datagram: &[u8]) -> bool {
        let is_held = self.store.as_ref().is_some_and(Store::lacks_keys)
            && Message::decode(datagram).is_ok_and(|message| is_protected(&message));
        self.counters.withheld += u64::from(is_held);
        is_held
    }

    fn send(&mut self, address: Address, datagram: &[u8]) {
        let Some(socket) = self.sockets.iter().find(|socket| socket.serves(address.local)) else {
            debug!(local = %address.local, "no socket to send from");
            self.counters.send_errors += 1;
            return;
        };
        match socket.send(address, datagram) {
            Ok(()) => {
                self.counters.sent += 1;
                self.counters.sent_bytes += count(datagram.len());
            }
            // Lost, as any datagram may be: retransmission is the machine's part.
            Err(error) => {
                debug!(remote = %address.remote, bytes = datagram.len(), %error, "cannot send");
                self.counters.send_errors += 1;
            }
        }
    }

    fn fetch(&mut self, id: FetchId, request: Request<Bytes>, timeout: Duration) {
        let upstream = self.upstream.clone();
        let task = self.calls.spawn(async move { (id, upstream.fetch(request, timeout).await) });
        self.running.insert(id, task);
    }

    fn abandon(&mut self, id: FetchId) {
        if let Some(task) = self.running.remove(&id) {
            task.abort();
        }
    }

    /// A call's result for the machine; `None` where the machine has given the call up.
    fn finish(&mut self, call: Finished) -> Option<Call> {
        let (id, result) = match call {
            Ok(call) => call,
            Err(error) if error.is_cancelled() => return None,
            Err(error) => {
                // A bug in a call must not leave its peer without an answer.
                warn!(%error, "a call to the homeserver panicked");
                let (id, _) = self.running.iter().find(|(_, task)| task.id() == error.id())?;
                (*id, Err(FetchError::Unreachable("the call failed inside the gateway".into())))
            }
        };
        self.running.remove(&id)?;
        Some((id, result))
    }
}

/// What a gateway serves, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP addresses, in any order. `[::]` takes IPv6 alone: for both, list `0.0.0.0` too.
    pub listen: Vec<Listener>,
    /// The machine. Whether its memories are stored follows from `state`, and its listeners from `listen`.
    pub gateway: gateway::Config,
    /// The file that observers, access tokens and requests under way outlast a restart in; none means that they do not.
    pub state: Option<PathBuf>,
    /// The files of devices, and the socket on which changes of them are asked for; none means that there are no devices.
    pub devices: Option<desk::Config>,
    /// How DTLS is served, where a listener asks for it.
    pub dtls: dtls::Config,
    /// The way to the homeserver.
    pub upstream: upstream::Config,
    /// How long answers in flight may take after the order to stop.
    pub grace: Duration,
    /// How often the counters are logged; at least a second.
    pub report: Duration,
}

/// Where peers come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address and port; port 0 takes a free port.
    pub address: SocketAddr,
    /// The link of the peers that come there, of those that the endpoint knows; none where that of all others holds.
    pub link: Option<String>,
    /// What protects datagrams there, below CoAP.
    pub security: Security,
}

/// What protects the datagrams of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Nothing: messages are plain, or protected each by itself (OSCORE).
    None,
    /// DTLS: `coaps`.
    Dtls,
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self { address, link: None, security: Security::None }
    }
}

/// A gateway that cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address that the system does not give.
    #[error("cannot bind {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The state file.
    #[error("cannot use the state in {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StoreError,
    },
    /// Devices, and no state file.
    #[error("devices need a state file: their sequence numbers must not be forgotten")]
    DevicesWithoutState,
    /// DTLS.
    #[error(transparent)]
    Dtls(#[from] dtls::StartError),
    /// The devices.
    #[error(transparent)]
    Devices(#[from] DeskError),
    /// The way to the homeserver.
    #[error(transparent)]
    Upstream(#[from] upstream::ConfigError),
    /// The system gives no random bytes.
    #[error("cannot get random bytes: {0}")]
    Randomness(String),
}

/// What a gateway has counted since its start.
#[derive(Clone, Debug, Serialize)]
pub struct Counters {
    /// Below the machine.
    pub datagrams: DatagramCounters,
    /// The state file, where there is one.
    pub store: Option<store::Counters>,
    /// The machine's own.
    pub gateway: gateway::Counters,
}

/// Datagrams and their bytes (of UDP payload).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DatagramCounters {
    /// Datagrams that arrived.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Datagrams that left.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Datagrams that could not leave: no route, too large, the system's buffer full.
    pub send_errors: u64,
    /// Protected datagrams, of both directions, that were dropped because the state file could not be written.
    pub withheld: u64,
    /// Receives that failed.
    pub receive_errors: u64,
}

fn random() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Randomness(error.to_string()))?;
    Ok(bytes)
}

/// Ready once a device is another; never where there are none.
async fn changed(desk: &mut Option<Desk>, clock: &Clock) -> Changed {
    match desk {
        Some(desk) => desk.changed(clock).await,
        None => std::future::pending().await,
    }
}

fn report(counters: &Counters) {
    match serde_json::to_string(counters) {
        Ok(counters) => info!(%counters, "counters"),
        Err(error) => debug!(%error, "counters cannot be written"),
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
