//! One peer's endpoint in real time: requests, observations, and what they cost on the wire.
//!
//! A task owns the endpoint's machine and a connected socket; a [`Client`] tells it what to do. It ends when the client and all
//! its observations are gone.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time;
use tracing::debug;

use super::clock::Clock;
use super::keyring::Keyring;
use crate::coap;
use crate::coap::Code;
use crate::coap::Observe;
use crate::coap::Priority;
use crate::coap::Response;
use crate::endpoint;
use crate::endpoint::Address;
use crate::endpoint::Endpoint;
use crate::endpoint::Event;
use crate::endpoint::RequestId;
use crate::security::edhoc::InitiatorError;
use agreement::Again;
use agreement::Agreeing;
use secure::Secure;
pub use secure::Security;

mod agreement;
mod secure;

/// A CoAP client of one peer. Clones share its socket.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    keys: Arc<AtomicU64>,
    traffic: Arc<Meter>,
    departure: watch::Receiver<Option<coap::Instant>>,
    clock: Clock,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Client {
    /// A client with a socket of its own on a free port. Sends nothing yet.
    ///
    /// # Errors
    /// What the system says: no route, no free port, no randomness.
    pub async fn connect(remote: SocketAddr, config: endpoint::Config) -> io::Result<Self> {
        Self::connect_watched(remote, config, Box::new(|_, _| {})).await
    }

    /// As [`Client::connect`]; `watch` sees each datagram as it leaves or arrives, before anything is made of it.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_watched(
        remote: SocketAddr,
        config: endpoint::Config,
        watch: Watch,
    ) -> io::Result<Self> {
        Self::connect_by(remote, config, watch, None, None).await
    }

    /// As [`Client::connect_watched`]; with keys, all that is asked is protected by OSCORE.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_as(
        remote: SocketAddr,
        config: endpoint::Config,
        watch: Watch,
        keyring: Option<Keyring>,
    ) -> io::Result<Self> {
        Self::connect_by(remote, config, watch, keyring, None).await
    }

    /// As [`Client::connect_watched`], by DTLS: the first request opens a session, and so does the first after one was not answered. Of
    /// what is protected `watch` sees the messages.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_secured(
        remote: SocketAddr,
        config: endpoint::Config,
        security: Security,
        watch: Watch,
    ) -> io::Result<Self> {
        Self::connect_by(remote, config, watch, None, Some(security)).await
    }

    async fn connect_by(
        remote: SocketAddr,
        mut config: endpoint::Config,
        watch: Watch,
        mut keyring: Option<Keyring>,
        security: Option<Security>,
    ) -> io::Result<Self> {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(remote).await?;
        let local = socket.local_addr()?;
        let clock = Clock::start();
        // The peer is known by the connected socket: there is nothing to choose from.
        let address = Address { remote, local: SocketAddr::new(any, 0) };
        let secure = match security {
            Some(security) => {
                config.sealed.insert(address.local);
                Some(Secure::new(security, address, &clock, random()?)?)
            }
            None => None,
        };
        let (commands, orders) = mpsc::unbounded_channel();
        let traffic = Arc::new(Meter::default());
        let (departs, departure) = watch::channel(None);
        let mut machine = Endpoint::new(config, random()?);
        if let Some(keyring) = &mut keyring {
            keyring.begin(&mut machine, clock.now());
        }
        let driver = Driver {
            machine,
            keyring,
            agreeing: Agreeing::default(),
            clock,
            address,
            secure,
            socket,
            waiting: BTreeMap::new(),
            watch,
            traffic: Arc::clone(&traffic),
            departs,
        };
        tokio::spawn(driver.run(orders));
        Ok(Self { commands, keys: Arc::default(), traffic, departure, clock, local, remote })
    }

    /// Sends a request and waits for its whole response. Dropping the future forgets the request.
    ///
    /// # Errors
    /// No response: none in time, a reset, nobody there.
    pub async fn request(&self, request: coap::Request) -> Result<Response, RequestError> {
        self.request_with(Priority::Message, request).await
    }

    /// As [`Client::request`]; what is more pressing leaves first.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn request_with(
        &self,
        priority: Priority,
        request: coap::Request,
    ) -> Result<Response, RequestError> {
        let (sender, receiver) = oneshot::channel();
        let _cancel = self.start(Order { request, priority }, Waiter::Once(Some(sender)));
        receiver.await.unwrap_or(Err(RequestError::Closed))
    }

    /// Sends a request that asks for an observation, whatever it asked for before.
    pub fn observe(&self, mut request: coap::Request) -> Observation {
        request.observe = Some(Observe::Register);
        let (sender, receiver) = mpsc::channel(Observation::QUEUE);
        let cancel = self.start(Order { request, priority: Priority::Message }, Waiter::Many(sender));
        Observation { responses: receiver, cancel }
    }

    /// What has crossed the wire so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic.read()
    }

    /// How long from now what waits for its turn on the link has to wait; none where nothing does.
    pub fn held_up(&self) -> Option<Duration> {
        let departure = *self.departure.borrow();
        Some(departure?.since(self.clock.now()))
    }

    /// Waits until something has to wait for its turn on the link for longer than so long; returns how long.
    pub async fn held_up_longer(&self, than: Duration) -> Duration {
        let mut departure = self.departure.clone();
        loop {
            match self.held_up() {
                Some(wait) if wait > than => return wait,
                _ => {}
            }
            if departure.changed().await.is_err() {
                // The client has ended, and sends nothing any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The address that its datagrams leave from, as far as the system has said.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Ends all observations and waits until the peer has acknowledged that, for at most `patience`. What has not left by then is
    /// dropped.
    pub async fn close(self, patience: Duration) {
        let (sender, receiver) = oneshot::channel();
        let _ = self.commands.send(Command::Close { patience, done: sender });
        let _ = receiver.await;
    }

    fn start(&self, order: Order, waiter: Waiter) -> CancelOnDrop {
        let key = Key(self.keys.fetch_add(1, Ordering::Relaxed));
        // A task that is gone drops the waiter, and that is what the waiter hears.
        let _ = self.commands.send(Command::Start { key, order, waiter });
        CancelOnDrop { key, commands: self.commands.clone() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// An observation: the response to its registration, then its notifications. Dropped, it is deregistered.
#[derive(Debug)]
pub struct Observation {
    responses: mpsc::Receiver<Result<Response, RequestError>>,
    cancel: CancelOnDrop,
}

impl Observation {
    /// Responses that wait to be taken. When they are nearly so many, the socket is not read: the peer hears nothing, and
    /// holds back.
    const QUEUE: usize = 64;
    /// Room that one more datagram may need.
    const ROOM: usize = 8;

    /// The next response; `None` after the last. A response of an error class is the last, and so is the first where
    /// the peer does not observe.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Response, RequestError>> {
        let response = self.responses.recv().await;
        // There is room again.
        let _ = self.cancel.commands.send(Command::Resume);
        response
    }

    /// Tells the peer to stop. [`Client::close`] waits until it has heard that.
    pub fn cancel(self) {}

    /// Forgets it and tells the peer nothing, which is to be asked for the same events anew: that ends it there too, and a peer that
    /// does not know of it any more is not asked to end it.
    pub fn forget(self) {
        let _ = self.cancel.commands.send(Command::Forget { key: self.cancel.key });
    }
}

/// A request that stays without response.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The endpoint gave it up.
    #[error(transparent)]
    Failed(#[from] coap::RequestError),
    /// The peer's host says that nobody listens there.
    #[error("nobody listens there (connection refused)")]
    Refused,
    /// There is no session of DTLS: the peer does not answer, or one of both is not whom the other wants.
    #[error("no secure session: {0}")]
    Session(&'static str),
    /// Keys could not be agreed on.
    #[error("no keys were agreed on: {0}")]
    Agreement(#[from] InitiatorError),
    /// What is protected with the keys is not taken, or was not to be made again with others.
    #[error("the gateway does not know the keys any more")]
    NoKeys,
    /// What the keys are used for cannot be written into its file.
    #[error("nothing can be sent: the state of the keys cannot be written")]
    Unkept,
    /// The client was closed meanwhile.
    #[error("the client is closed")]
    Closed,
}

/// What has crossed the wire: UDP payload, without IP and UDP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that left.
    pub sent_bytes: u64,
    /// Bytes that arrived.
    pub received_bytes: u64,
    /// Datagrams that left.
    pub sent_datagrams: u64,
    /// Datagrams that arrived.
    pub received_datagrams: u64,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From us.
    Sent,
    /// To us.
    Received,
}

/// Sees datagrams as they pass.
pub type Watch = Box<dyn FnMut(Direction, &[u8]) + Send>;

#[derive(Debug, Default)]
struct Meter {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    sent_datagrams: AtomicU64,
    received_datagrams: AtomicU64,
}

impl Meter {
    fn read(&self) -> Traffic {
        Traffic {
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_datagrams: self.sent_datagrams.load(Ordering::Relaxed),
            received_datagrams: self.received_datagrams.load(Ordering::Relaxed),
        }
    }

    fn count(&self, direction: Direction, datagram: &[u8]) {
        let (datagrams, bytes) = match direction {
            Direction::Sent => (&self.sent_datagrams, &self.sent_bytes),
            Direction::Received => (&self.received_datagrams, &self.received_bytes),
        };
        datagrams.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(u64::try_from(datagram.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What a client calls its request; the machine's own name for it is known to the task alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

/// A request, and what goes before it.
#[derive(Clone)]
struct Order {
    request: coap::Request,
    priority: Priority,
}

enum Command {
    Start { key: Key, order: Order, waiter: Waiter },
    Cancel { key: Key },
    Forget { key: Key },
    Resume,
    Close { patience: Duration, done: oneshot::Sender<()> },
}

enum Waiter {
    Once(Option<oneshot::Sender<Result<Response, RequestError>>>),
    Many(mpsc::Sender<Result<Response, RequestError>>),
}

impl Waiter {
    fn tell(&mut self, result: Result<Response, RequestError>) {
        // One who has gone has cancelled, and does not miss it.
        match self {
            Self::Once(sender) => drop(sender.take().map(|sender| sender.send(result))),
            Self::Many(sender) => drop(sender.try_send(result)),
        }
    }

    fn has_room(&self) -> bool {
        match self {
            Self::Once(_) => true,
            Self::Many(sender) => sender.is_closed() || sender.capacity() >= Observation::ROOM,
        }
    }
}

#[derive(Debug)]
struct CancelOnDrop {
    key: Key,
    commands: mpsc::UnboundedSender<Command>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel { key: self.key });
    }
}

/// A request on its way, or an observation.
struct Waiting {
    key: Key,
    waiter: Waiter,
    answered: bool,
    /// How it is made again under other keys, where these are agreed on.
    again: Option<Again>,
}

struct Driver {
    machine: Endpoint,
    keyring: Option<Keyring>,
    agreeing: Agreeing,
    clock: Clock,
    address: Address,
    /// The session of DTLS, where there is to be one.
    secure: Option<Secure>,
    socket: UdpSocket,
    waiting: BTreeMap<RequestId, Waiting>,
    watch: Watch,
    traffic: Arc<Meter>,
    departs: watch::Sender<Option<coap::Instant>>,
}

impl Driver {
    /// How long a task whose client is gone goes on telling the peer that its observations have ended.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// The rest after a receive that failed.
    const REST: Duration = Duration::from_millis(5);

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut buffer = vec![0; coap::Message::MAX_SIZE];
        let (patience, done) = loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Close { patience, done }) => break (patience, Some(done)),
                    Some(command) => self.obey(command),
                    None => break (Self::PATIENCE, None),
                },
                () = self.turn(&mut buffer) => {}
            }
        };
        let now = self.clock.now();
        self.give_up_agreeing(&RequestError::Closed);
        for id in std::mem::take(&mut self.waiting).into_keys() {
            self.machine.cancel(id, now);
        }
        self.drain();
        let settled = time::timeout(patience, async {
            while !self.machine.is_settled() {
                self.turn(&mut buffer).await;
            }
            self.end_session();
            while !self.machine.is_settled() {
                self.turn(&mut buffer).await;
            }
        });
        if settled.await.is_err() {
            debug!(remote = %self.address.remote, "closed before the peer has acknowledged");
        }
        if let Some(keyring) = self.keyring.take() {
            keyring.close(&mut self.machine, self.clock.now());
        }
        done.map(|done| done.send(()));
    }

    fn obey(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Start { key, order, waiter } => {
                if self.waits_for_session() {
                    return self.hold(key, order, waiter);
                }
                if self.waits_for_keys() {
                    return self.hold_for_keys(key, order, waiter);
                }
                self.ask(key, order, waiter, 0);
            }
            Command::Cancel { key } | Command::Forget { key }
                if self.release(key) || self.release_held(key) => {}
            Command::Cancel { key } => {
                if let Some(id) = self.take(key) {
                    self.machine.cancel(id, now);
                }
            }
            Command::Forget { key } => {
                if let Some(id) = self.take(key) {
                    self.machine.abandon(id, now);
                }
            }
            // That it came is all: whether there is room is asked again now.
            Command::Resume | Command::Close { .. } => {}
        }
        self.drain();
    }

    fn take(&mut self, key: Key) -> Option<RequestId> {
        let id = self.waiting.iter().find(|(_, waiting)| waiting.key == key).map(|(id, _)| *id)?;
        self.waiting.remove(&id);
        Some(id)
    }

    /// Waits until a datagram or a deadline comes, and handles it. Dropped while it waits, it loses nothing.
    async fn turn(&mut self, buffer: &mut [u8]) {
        let room = self.waiting.values().all(|waiting| waiting.waiter.has_room());
        let received = tokio::select! {
            received = self.socket.recv(buffer), if room => Some(received),
            () = self.clock.sleep_until(self.deadline()) => None,
        };
        match received {
            Some(Ok(length)) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                self.traffic.count(Direction::Received, datagram);
                self.take_in(datagram);
            }
            Some(Err(error)) => self.cannot_receive(&error).await,
            None => {}
        }
        self.advance();
        self.drain();
    }

    /// What the network says of something sent before: on a connected socket, of this peer.
    async fn cannot_receive(&mut self, error: &io::Error) {
        debug!(remote = %self.address.remote, %error, "cannot receive");
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.give_up_session(&RequestError::Refused);
            self.give_up_agreeing(&RequestError::Refused);
            let unanswered = self.waiting.iter().filter(|(_, waiting)| !waiting.answered);
            let unanswered: Vec<_> = unanswered.map(|(id, _)| *id).collect();
            for id in unanswered {
                self.machine.cancel(id, self.clock.now());
                self.tell(id, Err(RequestError::Refused), Then::Forget);
            }
        } else {
            time::sleep(Self::REST).await;
        }
    }

    fn drain(&mut self) {
        loop {
            self.report();
            let is_kept = match &mut self.keyring {
                Some(keyring) => keyring.keep(&mut self.machine, self.clock.now()),
                None => true,
            };
            if !is_kept {
                self.give_up();
                while self.machine.poll_datagram().is_some() {}
            }
            if !self.carry() {
                break;
            }
        }
        let departure = self.machine.departure();
        self.departs.send_if_modified(|known| std::mem::replace(known, departure) != departure);
    }

    /// What the keys are used for cannot be kept: nothing is asked with them.
    fn give_up(&mut self) {
        self.give_up_agreeing(&RequestError::Unkept);
        for id in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.machine.abandon(id, self.clock.now());
            self.tell(id, Err(RequestError::Unkept), Then::Forget);
        }
    }

    fn report(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Response { id, response, .. } if self.hears_of_run(id, &response) => {}
                Event::Response { id, response, notification: true } => {
                    self.tell(id, Ok(response), Then::Keep)
                }
                Event::Response { id, response, notification: false } => {
                    self.tell(id, Ok(response), Then::Forget)
                }
                Event::Failed { id, error } if self.misses_run(id, &error.into()) => {}
                Event::Failed { id, error } => {
                    self.doubt_session(error);
                    self.tell(id, Err(error.into()), Then::Forget);
                }
                Event::Unprotected { response, .. } => self.doubt_keys(&response),
                // A client has no resources; a peer that asks all the same is told so.
                Event::Request { key, .. } => {
                    let response = Response::new(Code::NOT_FOUND);
                    self.machine.respond(key, response, self.clock.now());
                }
                Event::Delivered(_)
                | Event::Undelivered(_)
                | Event::Deregistered(_)
                | Event::Reachable(_)
                | Event::Unreachable(_)
                | Event::KeysAgreed { .. }
                | Event::KeysSpent { .. }
                | Event::KeysUsed { .. } => {}
            }
        }
    }

    fn tell(&mut self, id: RequestId, result: Result<Response, RequestError>, then: Then) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.answered = true;
            waiting.waiter.tell(result);
        }
        match then {
            Then::Keep => {}
            Then::Forget => drop(self.waiting.remove(&id)),
        }
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

enum Then {
    Keep,
    Forget,
}
