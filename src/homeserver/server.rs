//! The homeserver on a loopback TCP port: HTTP/1.1, and HTTP/2 for clients that begin with it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use http::Response;
use http::header;
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
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;

use super::Config;
use super::Homeserver;
use super::Outcome;
use super::Reply;
use super::Request;
use super::request::Refusal;

/// How long a shutdown waits for requests that are being answered.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A running homeserver. It ends with [`Server::shutdown`], or at once when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address can be reached from other machines.
    #[error("{0} is not a loopback address, and the minimal homeserver is for this machine alone")]
    NotLoopback(SocketAddr),
    /// The operating system refuses the address.
    #[error("cannot bind {0}: {1}")]
    Bind(SocketAddr, std::io::Error),
}

impl Server {
    /// Starts a homeserver at a loopback address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is not of the loopback interface, or cannot be bound.
    pub async fn bind(address: SocketAddr, mut config: Config) -> Result<Server, ServerError> {
        if !address.ip().is_loopback() {
            return Err(ServerError::NotLoopback(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|error| ServerError::Bind(address, error))?;
        let address = listener.local_addr().map_err(|error| ServerError::Bind(address, error))?;
        if config.base_url.is_empty() {
            config.base_url = format!("http://{address}");
        }
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Shared::new(config, stopped)));
        Ok(Server { address, stop, task })
    }

    /// Returns the address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL that clients begin with.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no more connections, answers every long poll with what there is, and ends when the last answer is out, or
    /// after five seconds.
    pub async fn shutdown(mut self) {
        // Nobody listening means that it has ended already.
        let _ = self.stop.send(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Shared {
    homeserver: Arc<Mutex<Homeserver>>,
    /// The position of the homeserver, watched by every long poll.
    position: Arc<watch::Sender<u64>>,
    long_polls: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Shared {
    fn new(config: Config, stopped: watch::Receiver<bool>) -> Shared {
        Shared {
            long_polls: Arc::new(Semaphore::new(config.limits.long_polls)),
            connections: Arc::new(Semaphore::new(config.limits.connections)),
            homeserver: Arc::new(Mutex::new(Homeserver::new(config))),
            position: Arc::new(watch::Sender::new(0)),
            stopped,
        }
    }

    /// A panic while the state was locked would be a bug of this module; the state is still the best there is.
    fn lock(&self) -> MutexGuard<'_, Homeserver> {
        self.homeserver.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Shared) {
    let graceful = GracefulShutdown::new();
    let mut stopped = shared.stopped.clone();
    // Connections end with this task, however it ends.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => drop(connections.spawn(serve(stream, graceful.watcher(), shared.clone()))),
            // Too many open files, usually: a pause lets some close.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN, graceful.shutdown()).await;
}

async fn serve(stream: TcpStream, watcher: Watcher, shared: Shared) {
    let Ok(_permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        tracing::debug!("a connection over the limit is closed");
        return;
    };
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| respond(request, shared.clone()));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(error, "a connection ended early");
    }
}

async fn respond(
    request: http::Request<Incoming>,
    shared: Shared,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // §"Web browser clients": the preflight of any path succeeds.
    if *request.method() == Method::OPTIONS {
        return Ok(to_http(&Reply { status: 200, body: serde_json::json!({}), retry_after_ms: None }));
    }
    let limit = shared.lock().limits().body_bytes;
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, limit).collect().await else {
        return Ok(to_http(&Refusal::too_large(limit).into_reply()));
    };
    let request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or("").to_owned(),
        token: bearer(&head.headers),
        body: body.to_bytes(),
        arrived_ms: now_ms(),
    };
    Ok(to_http(&answer(request, shared).await))
}

async fn answer(mut request: Request, shared: Shared) -> Reply {
    let mut position = shared.position.subscribe();
    let mut stopped = shared.stopped.clone();
    let mut waiting = None;
    loop {
        position.mark_unchanged();
        let outcome = handle(&request, &shared);
        let until_ms = match outcome {
            Outcome::Reply(reply) => return reply,
            Outcome::Wait { until_ms } => until_ms,
        };
        if waiting.is_none() {
            let Ok(permit) = Arc::clone(&shared.long_polls).try_acquire_owned() else {
                let limit = shared.lock().limits().long_polls;
                return Refusal::too_many("long polls", limit).into_reply();
            };
            waiting = Some(permit);
        }
        tokio::select! {
            _ = position.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(until_ms.saturating_sub(now_ms()))) => {}
            // Without a timeout left, the next round answers.
            _ = stopped.wait_for(|stopped| *stopped) => request.arrived_ms = 0,
        }
    }
}

fn handle(request: &Request, shared: &Shared) -> Outcome {
    let mut homeserver = shared.lock();
    let outcome = homeserver.handle(request, now_ms());
    let position = homeserver.position();
    drop(homeserver);
    shared.position.send_if_modified(|known| {
        let grown = position > *known;
        *known = position.max(*known);
        grown
    });
    outcome
}

fn to_http(reply: &Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body.to_string())));
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap_or_default();
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, header::HeaderValue::from_static(value))));
    if let Some(retry_after_ms) = reply.retry_after_ms {
        headers.insert(header::RETRY_AFTER, retry_after_ms.div_ceil(1_000).into());
    }
    response
}

fn bearer(headers: &http::HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a driver: the one place of the homeserver that reads the clock"
)]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
