//! The way to the homeserver: pooled HTTP/1.1 and HTTP/2 connections, within bounds of number, size and time.
//!
//! Follows no redirect, keeps no cookie and asks for no content coding: what the homeserver answers is what the machine gets.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use hyper::body::Body;
use hyper::body::Incoming;
use hyper_rustls::ConfigBuilderExt;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioTimer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time;
use tower_service::Service;
use tracing::debug;

use crate::gateway::FetchError;

/// A pool of connections to one homeserver. Clones share the pool and its bounds.
#[derive(Clone)]
pub struct Upstream {
    client: legacy::Client<Connector, Full<Bytes>>,
    requests: Arc<Semaphore>,
    polls: Arc<Semaphore>,
    body_limit: usize,
}

impl Upstream {
    /// A pool without connections; the first fetch makes one.
    ///
    /// # Errors
    /// Certificates that are needed and cannot be read. `http:` needs none.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.connect_timeout));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(trust(config)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .build(Connector { https, timeout: config.connect_timeout });
        Ok(Self {
            client,
            requests: Arc::new(Semaphore::new(config.concurrent_requests.clamp(1, Semaphore::MAX_PERMITS))),
            polls: Arc::new(Semaphore::new(config.concurrent_polls.clamp(1, Semaphore::MAX_PERMITS))),
            body_limit: config.body_limit,
        })
    }

    /// Makes one call and reads the whole answer. Dropping the future ends the call.
    ///
    /// The time counts from now, with the wait for a free place in it.
    ///
    /// # Errors
    /// No answer, none in time, or one too large. Any HTTP status is an answer.
    pub async fn fetch(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, FetchError> {
        time::timeout(timeout, self.fetch_when_free(request)).await.unwrap_or(Err(FetchError::Timeout))
    }

    /// Asks the homeserver which versions it speaks (`GET /_matrix/client/versions`): the one call that every homeserver
    /// answers to everybody.
    ///
    /// # Errors
    /// As [`Upstream::fetch`].
    pub async fn versions(&self, homeserver: &Uri, timeout: Duration) -> Result<Response<Bytes>, FetchError> {
        let base = homeserver.to_string();
        let request = Request::get(format!("{}/_matrix/client/versions", base.trim_end_matches('/')));
        match request.body(Bytes::new()) {
            Ok(request) => self.fetch(request, timeout).await,
            Err(error) => Err(FetchError::Unreachable(error.to_string())),
        }
    }

    async fn fetch_when_free(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let places = if is_long_poll(request.uri()) { &self.polls } else { &self.requests };
        let Ok(_place) = places.acquire().await else {
            return Err(FetchError::Unreachable("shutting down".into()));
        };
        let response = self.send(prepare(request)).await?;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, self.read(body).await?))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, FetchError> {
        let again = request.method().is_idempotent().then(|| request.clone());
        match (self.client.request(request).await, again) {
            (Ok(response), _) => Ok(response),
            // A kept connection may be closed by the homeserver just as we use it. RFC 9110 §9.2.2: an idempotent request may
            // be repeated then; Matrix makes its PUTs idempotent by their transaction ids.
            (Err(error), Some(again)) if was_cut_off(&error) => {
                self.client.request(again).await.map_err(|error| unreachable(&error))
            }
            (Err(error), _) => Err(unreachable(&error)),
        }
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, FetchError> {
        let limit = self.body_limit;
        if usize::try_from(body.size_hint().lower()).is_ok_and(|length| length > limit) {
            return Err(FetchError::TooLarge { limit });
        }
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge { limit }),
            Err(error) => Err(unreachable(error.as_ref())),
        }
    }
}

/// Connects within a time, of which the TLS handshake is a part: a host that accepts and says nothing, as one does that
/// expects `http:` on this port, is found out by it.
#[derive(Clone)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let timeout = self.timeout;
        let late = match uri.scheme_str() {
            Some("https") => format!("no TLS connection within {timeout:?}; is it http:// there?"),
            _ => format!("no connection within {timeout:?}"),
        };
        let connecting = self.https.call(uri);
        Box::pin(async move { time::timeout(timeout, connecting).await.unwrap_or_else(|_| Err(late.into())) })
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("body_limit", &self.body_limit).finish_non_exhaustive()
    }
}

/// How to reach the homeserver, and the bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The homeserver's base URL; only its scheme matters here: `https` cannot do without certificates.
    pub homeserver: Uri,
    /// Trust only the certificates in this PEM file, and none of the system's.
    pub homeserver_ca: Option<PathBuf>,
    /// The longest wait for a connection: for the name, for TCP, and for TLS.
    pub connect_timeout: Duration,
    /// How long a connection without a call is kept.
    pub idle_timeout: Duration,
    /// Most calls at once, without long polls. More wait for a place.
    pub concurrent_requests: usize,
    /// Most long polls at once: calls that ask the homeserver to wait, as observed `/sync` does. Counted apart, so that
    /// observers who wait cannot keep others from sending.
    pub concurrent_polls: usize,
    /// Largest answer, in bytes of its body.
    pub body_limit: usize,
}

impl Config {
    /// The usual bounds.
    pub fn new(homeserver: Uri) -> Self {
        Self {
            homeserver,
            homeserver_ca: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            concurrent_requests: 64,
            concurrent_polls: 1024,
            body_limit: 16 << 20,
        }
    }
}

/// Certificates that are needed and missing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file of certificates cannot be read.
    #[error("cannot read certificates from {path}: {reason}", path = .path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no certificates.
    #[error("cannot read the system's certificates: {0}")]
    SystemCertificates(io::Error),
    /// The TLS library refuses its own defaults.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

fn trust(config: &Config) -> Result<rustls::ClientConfig, ConfigError> {
    // Named here rather than installed for the process: a library does not decide for its host.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &config.homeserver_ca {
        Some(path) => builder.with_root_certificates(read_certificates(path)?),
        None if config.homeserver.scheme_str() == Some("https") => {
            builder.with_native_roots().map_err(ConfigError::SystemCertificates)?
        }
        // The homeserver needs none. Whoever else renews devices' tokens (OAuth 2.0) does, and is not trusted where there are none.
        None => builder.clone().with_native_roots().unwrap_or_else(|error| {
            debug!(%error, "there are no certificates of the system's");
            builder.with_root_certificates(rustls::RootCertStore::empty())
        }),
    };
    Ok(builder.with_no_client_auth())
}

fn read_certificates(path: &Path) -> Result<rustls::RootCertStore, ConfigError> {
    let unreadable = |reason: String| ConfigError::Certificates { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("no certificate in it".into()));
    }
    Ok(roots)
}

fn prepare(request: Request<Bytes>) -> Request<Full<Bytes>> {
    let mut request = request.map(Full::new);
    let headers = request.headers_mut();
    headers
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("lowband/", env!("CARGO_PKG_VERSION"))));
    // RFC 9110 §12.5.3: without the field any coding is acceptable.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    request
}

/// Whether the homeserver is asked to wait for news before it answers.
fn is_long_poll(uri: &Uri) -> bool {
    let timeouts =
        uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("timeout="));
    timeouts.into_iter().any(|timeout| timeout != "0")
}

/// Whether the connection ended before a byte of an answer came.
fn was_cut_off(error: &legacy::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    !error.is_connect() && cause.is_some_and(|cause| cause.is_incomplete_message() || cause.is_closed())
}

/// The whole chain of causes in one line; hyper's own error names only the step that failed.
fn unreachable(error: &(dyn Error + 'static)) -> FetchError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.ends_with(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    FetchError::Unreachable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_asks_for_a_wait_is_a_long_poll() {
        let is = |uri: &'static str| is_long_poll(&Uri::from_static(uri));
        assert!(is("http://hs/_matrix/client/v3/sync?since=s1&timeout=30000"));
        assert!(!is("http://hs/_matrix/client/v3/sync?timeout=0"));
        assert!(!is("http://hs/_matrix/client/v3/sync?since=timeout=1x"));
        assert!(!is("http://hs/_matrix/client/v3/rooms/!r:hs/messages?dir=b"));
    }
}
