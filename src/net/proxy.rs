//! A proxy in real time: HTTP/1.1 and HTTP/2 on one side, a CoAP client on the other, and a file for what must not be forgotten.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::server::graceful::Watcher;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tracing::debug;

use super::client::Client;
use super::client::RequestError;
use super::clock::Clock;
use super::store::Room;
use super::store::Store;
use super::store::StoreError;
use crate::coap;
use crate::coap::Priority;
use crate::proxy::AskId;
use crate::proxy::ClientKey;
use crate::proxy::Config;
use crate::proxy::Failure;
use crate::proxy::Follows;
use crate::proxy::Output;
use crate::proxy::Proxy;

/// A proxy that listens, and serves once it runs.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    client: Client,
    proxy: Proxy,
    store: Option<Store>,
    clock: Clock,
    body_limit: usize,
}

/// Why a proxy does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system refuses the address.
    #[error("cannot bind {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The file with the queue cannot be read.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Randomness(String),
}

/// How long a shutdown waits for answers that are on their way to clients.
const SHUTDOWN: Duration = Duration::from_secs(2);
/// Connections of clients at a time.
const CONNECTIONS: usize = 256;
/// How long the gateway is told for that nobody observes any more.
const CLOSING: Duration = Duration::from_secs(2);

impl Server {
    /// Binds the address and takes up what the file has.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(
        address: SocketAddr,
        client: Client,
        config: Config,
        store: Option<Store>,
    ) -> Result<Self, StartError> {
        let bind = |source| StartError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let mut chance = [0; 8];
        getrandom::fill(&mut chance).map_err(|error| StartError::Randomness(error.to_string()))?;
        let clock = Clock::start();
        let body_limit = config.bytes;
        let mut proxy = Proxy::new(config, chance);
        if let Some(store) = &store {
            proxy.restore(store.records()?, clock.now());
        }
        Ok(Self { listener, address, client, proxy, store, clock, body_limit })
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` ends.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (orders, commands) = mpsc::unbounded_channel();
        let desk = Desk { orders, keys: Arc::default(), body_limit: self.body_limit };
        let (events, heard) = mpsc::unbounded_channel();
        let driver = Driver {
            proxy: self.proxy,
            client: self.client.clone(),
            store: self.store,
            clock: self.clock,
            events,
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
        };
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        tokio::select! {
            () = driver.run(commands, heard) => {}
            () = accept(&self.listener, &desk, &graceful, &mut connections) => {}
            () = stop => {}
        }
        drop(self.listener);
        let _ = tokio::time::timeout(SHUTDOWN, graceful.shutdown()).await;
        self.client.close(CLOSING).await;
    }
}

async fn accept(
    listener: &TcpListener,
    desk: &Desk,
    graceful: &GracefulShutdown,
    connections: &mut JoinSet<()>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                    debug!("a connection over the limit is closed");
                    continue;
                };
                let (desk, watcher) = (desk.clone(), graceful.watcher());
                connections.spawn(async move {
                    serve(stream, watcher, desk).await;
                    drop(permit);
                });
            }
            // Too many open files, usually: a pause lets some close.
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, watcher: Watcher, desk: Desk) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| respond(request, desk.clone()));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        debug!(error, "a connection ended early");
    }
}

/// Where clients' requests are handed in.
#[derive(Clone)]
struct Desk {
    orders: mpsc::UnboundedSender<Command>,
    keys: Arc<AtomicU64>,
    body_limit: usize,
}

enum Command {
    Request {
        key: ClientKey,
        request: Box<http::Request<Bytes>>,
        answer: oneshot::Sender<http::Response<Bytes>>,
    },
    Gone {
        key: ClientKey,
    },
}

/// Tells that a client is gone, when it is.
struct Waits {
    key: ClientKey,
    orders: mpsc::UnboundedSender<Command>,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let _ = self.orders.send(Command::Gone { key: self.key });
    }
}

async fn respond(
    request: http::Request<Incoming>,
    desk: Desk,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, desk.body_limit).collect().await else {
        return Ok(status(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let request = Box::new(http::Request::from_parts(head, body.to_bytes()));
    let key = ClientKey(desk.keys.fetch_add(1, Ordering::Relaxed));
    let (answer, answered) = oneshot::channel();
    if desk.orders.send(Command::Request { key, request, answer }).is_err() {
        return Ok(status(StatusCode::SERVICE_UNAVAILABLE));
    }
    let _waits = Waits { key, orders: desk.orders.clone() };
    let response = answered
        .await
        .map_or_else(|_| status(StatusCode::SERVICE_UNAVAILABLE), |response| response.map(Full::new));
    Ok(response)
}

fn status(status: StatusCode) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// What has come of something that was asked.
enum Event {
    Response(AskId, coap::Response, Follows),
    Failed(AskId, Failure),
}

struct Driver {
    proxy: Proxy,
    client: Client,
    store: Option<Store>,
    clock: Clock,
    events: mpsc::UnboundedSender<Event>,
    asked: BTreeMap<AskId, AbortHandle>,
    waiting: BTreeMap<ClientKey, oneshot::Sender<http::Response<Bytes>>>,
}

impl Driver {
    async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut heard: mpsc::UnboundedReceiver<Event>,
    ) {
        self.drain();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(event) = heard.recv() => self.hear(event),
                () = self.clock.sleep_until(self.proxy.deadline()) => {}
            }
            self.proxy.advance(self.clock.now());
            self.drain();
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Request { key, request, answer } => {
                self.waiting.insert(key, answer);
                self.proxy.handle(key, *request, now);
            }
            // Who was answered is not missed.
            Command::Gone { key } => {
                if self.waiting.remove(&key).is_some() {
                    self.proxy.gone(key, now);
                }
            }
        }
    }

    fn hear(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Response(id, response, follows) => self.proxy.answered(id, &response, follows, now),
            Event::Failed(id, failure) => self.proxy.failed(id, &failure, now),
        }
    }

    fn drain(&mut self) {
        let mut is_stored = true;
        while let Some(output) = self.proxy.poll() {
            match output {
                Output::Store { key, value } => {
                    if let Some(store) = &mut self.store {
                        store.put(Room::Others, key, value, self.clock.now());
                        is_stored = false;
                    }
                }
                Output::Ask { id, request, priority } => {
                    self.commit(&mut is_stored);
                    self.ask(id, request, priority);
                }
                Output::Cancel { id } => {
                    if let Some(task) = self.asked.remove(&id) {
                        task.abort();
                    }
                }
                Output::Answer { client, response } => {
                    self.commit(&mut is_stored);
                    if let Some(waiting) = self.waiting.remove(&client) {
                        // One that is gone meanwhile is not missed.
                        let _ = waiting.send(response);
                    }
                }
            }
        }
        self.commit(&mut is_stored);
    }

    fn commit(&mut self, is_stored: &mut bool) {
        if let (Some(store), false) = (&mut self.store, std::mem::replace(is_stored, true)) {
            store.commit(self.clock.now());
        }
    }

    fn ask(&mut self, id: AskId, request: coap::Request, priority: Priority) {
        let (client, events) = (self.client.clone(), self.events.clone());
        let task = match request.observe {
            Some(_) => tokio::spawn(observe(client, id, request, events)),
            None => tokio::spawn(async move {
                let event = match client.request_with(priority, request).await {
                    Ok(response) => Event::Response(id, response, Follows::Nothing),
                    Err(error) => Event::Failed(id, failure(&error)),
                };
                let _ = events.send(event);
            }),
        };
        // What was observed by the same before is not any more.
        if let Some(before) = self.asked.insert(id, task.abort_handle()) {
            before.abort();
        }
        self.asked.retain(|_, task| !task.is_finished());
    }
}

async fn observe(client: Client, id: AskId, request: coap::Request, events: mpsc::UnboundedSender<Event>) {
    let mut observation = client.observe(request);
    while let Some(result) = observation.next().await {
        let event = match result {
            Ok(response) if response.code.is_success() => Event::Response(id, response, Follows::More),
            Ok(response) => Event::Response(id, response, Follows::Nothing),
            Err(error) => Event::Failed(id, failure(&error)),
        };
        if events.send(event).is_err() {
            return;
        }
    }
    // Also where the gateway does not observe: then the answer was the only one.
    let ended = Failure { reason: "the gateway has ended the observation".to_owned(), is_final: false };
    let _ = events.send(Event::Failed(id, ended));
}

fn failure(error: &RequestError) -> Failure {
    let is_final = matches!(
        error,
        RequestError::Failed(
            coap::RequestError::TooLong { .. }
                | coap::RequestError::TooLarge(_)
                | coap::RequestError::UnknownOption(_)
        )
    );
    Failure { reason: error.to_string(), is_final }
}
