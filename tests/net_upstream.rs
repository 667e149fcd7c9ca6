//! The way to the homeserver, against servers on loopback that behave well and badly.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::Uri;
use http::Version;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use lowband::gateway::FetchError;
use lowband::net::upstream;
use lowband::net::upstream::Upstream;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

const SOON: Duration = Duration::from_secs(5);

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// A server whose answers depend on the path; counts its connections.
#[derive(Clone, Default)]
struct Server {
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Server {
    fn with_tls() -> Self {
        let chain = vec![CertificateDer::from_pem_file(vector("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(vector("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { tls: Some(Arc::new(config)), ..Self::default() }
    }

    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                server.connections.fetch_add(1, Ordering::SeqCst);
                let server = server.clone();
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let service = service_fn(answer);
                    let _ = match &server.tls {
                        None => builder.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match TlsAcceptor::from(tls.clone()).accept(stream).await {
                            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => return,
                        },
                    };
                    server.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        address
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let full = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).boxed();
    Ok(match request.uri().path() {
        "/never" => std::future::pending().await,
        "/redirect" => {
            Response::builder().status(302).header("location", "/echo").body(full(Vec::new())).unwrap()
        }
        "/bytes" => Response::new(full(vec![b'x'; request.uri().query().unwrap().parse().unwrap()])),
        "/endless" => {
            let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
            tokio::spawn(async move { while sender.send(Bytes::from_static(&[b'y'; 512])).await.is_ok() {} });
            Response::new(Chunks(receiver).boxed())
        }
        _ => {
            let seen = format!("{} {} {:?}", request.method(), request.uri().path(), request.version());
            let mut response = Response::builder().status(418).header("x-seen", seen);
            for name in ["user-agent", "accept-encoding", "authorization"] {
                if let Some(value) = request.headers().get(name) {
                    response = response.header(format!("x-{name}"), value);
                }
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            response.body(Full::new(body).boxed()).unwrap()
        }
    })
}

struct Chunks(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

fn vector(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/vectors/tls", name].iter().collect()
}

fn config(scheme: &str, address: SocketAddr) -> upstream::Config {
    upstream::Config::new(format!("{scheme}://{address}").parse::<Uri>().unwrap())
}

fn get(config: &upstream::Config, path: &str) -> Request<Bytes> {
    let base = config.homeserver.to_string();
    Request::get(format!("{}{path}", base.trim_end_matches('/'))).body(Bytes::new()).unwrap()
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn a_call_comes_back_with_its_status_its_headers_and_its_body() {
    let config = config("http", Server::default().start().await);
    let upstream = Upstream::new(&config).unwrap();
    let request = Request::put(format!("{}echo", config.homeserver))
        .header("authorization", "Bearer TOK")
        .body(Bytes::from_static(b"{\"a\":1}"))
        .unwrap();
    let response = upstream.fetch(request, SOON).await.unwrap();
    assert_eq!(response.status(), 418);
    assert_eq!(response.body(), "{\"a\":1}");
    assert_eq!(header(&response, "x-seen"), "PUT /echo HTTP/1.1");
    assert_eq!(header(&response, "x-authorization"), "Bearer TOK");
    assert_eq!(header(&response, "x-accept-encoding"), "identity");
    assert!(header(&response, "x-user-agent").starts_with("lowband/"));
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let server = Server::default();
    let config = config("http", server.start().await);
    let upstream = Upstream::new(&config).unwrap();
    for _ in 0..5 {
        upstream.fetch(get(&config, "/echo"), SOON).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn over_tls_http_2_is_agreed_and_one_connection_carries_many_calls() {
    let server = Server::with_tls();
    let mut config = config("https", server.start().await);
    config.homeserver_ca = Some(vector("ca.pem"));
    let upstream = Upstream::new(&config).unwrap();
    let first = upstream.fetch(get(&config, "/echo"), SOON).await.unwrap();
    assert_eq!(header(&first, "x-seen"), "GET /echo HTTP/2.0");
    assert_eq!(first.version(), Version::HTTP_2);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (upstream, request) = (upstream.clone(), get(&config, "/echo"));
            tokio::spawn(async move { upstream.fetch(request, SOON).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let mut config = config("https", Server::with_tls().start().await);
    config.homeserver_ca = Some(vector("server.pem"));
    // server.pem is no authority, and not the one that signed itself.
    let result = match Upstream::new(&config) {
        Ok(upstream) => upstream.fetch(get(&config, "/echo"), SOON).await,
        Err(error) => panic!("{error}"),
    };
    let Err(FetchError::Unreachable(reason)) = result else { panic!("{result:?}") };
    assert!(reason.contains("certificate"), "{reason}");
}

#[tokio::test]
async fn beside_a_homeserver_without_tls_others_are_trusted_by_the_systems_certificates() {
    const SERVER: &str = "LOWBAND_TEST_TLS_SERVER";
    let beside = config("http", "127.0.0.1:8008".parse().unwrap());
    if let Ok(address) = std::env::var(SERVER) {
        let other = config("https", address.parse().unwrap());
        let upstream = Upstream::new(&beside).unwrap();
        let answer = upstream.fetch(get(&other, "/echo"), SOON).await.unwrap();
        return assert_eq!(header(&answer, "x-seen"), "GET /echo HTTP/2.0");
    }
    // The system's certificates are those of this file in a process that is told so.
    let address = Server::with_tls().start().await.to_string();
    let child = tokio::task::spawn_blocking(move || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "beside_a_homeserver_without_tls_others_are_trusted_by_the_systems_certificates",
            ])
            .env("SSL_CERT_FILE", vector("ca.pem"))
            .env(SERVER, address)
            .output()
    });
    let output = child.await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test]
async fn a_host_that_accepts_and_does_not_speak_tls_is_given_up_within_the_time_for_a_connection() {
    // The backlog accepts for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config("https", silent.local_addr().unwrap());
    config.homeserver_ca = Some(vector("ca.pem"));
    config.connect_timeout = Duration::from_millis(200);
    let result = Upstream::new(&config).unwrap().fetch(get(&config, "/echo"), SOON).await;
    let Err(FetchError::Unreachable(reason)) = result else { panic!("{result:?}") };
    assert!(reason.ends_with("no TLS connection within 200ms; is it http:// there?"), "{reason}");
}

#[tokio::test]
async fn a_file_without_certificates_is_named() {
    let mut config = config("https", "127.0.0.1:1".parse().unwrap());
    config.homeserver_ca = Some(vector("server.key"));
    let error = Upstream::new(&config).unwrap_err().to_string();
    assert!(error.contains("server.key") && error.contains("no certificate"), "{error}");
    config.homeserver_ca = Some(vector("absent.pem"));
    assert!(Upstream::new(&config).unwrap_err().to_string().contains("No such file"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let config = config("http", Server::default().start().await);
    let response = Upstream::new(&config).unwrap().fetch(get(&config, "/redirect"), SOON).await.unwrap();
    assert_eq!(response.status(), 302);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_whether_its_length_is_said_or_not() {
    let mut config = config("http", Server::default().start().await);
    config.body_limit = 1000;
    let upstream = Upstream::new(&config).unwrap();
    let limit = upstream.fetch(get(&config, "/bytes?1000"), SOON).await.unwrap();
    assert_eq!(limit.body().len(), 1000);
    let too_large = Err(FetchError::TooLarge { limit: 1000 });
    for path in ["/bytes?1001", "/endless"] {
        assert_eq!(upstream.fetch(get(&config, path), SOON).await.map(|_| ()), too_large);
    }
}

#[tokio::test]
async fn a_homeserver_that_does_not_answer_is_given_up_in_time() {
    let config = config("http", Server::default().start().await);
    let upstream = Upstream::new(&config).unwrap();
    let result = upstream.fetch(get(&config, "/never"), Duration::from_millis(100)).await;
    assert_eq!(result.map(|_| ()), Err(FetchError::Timeout));
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_is_named_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config("http", listener.local_addr().unwrap());
    drop(listener);
    let result = Upstream::new(&config).unwrap().fetch(get(&config, "/echo"), SOON).await;
    let Err(FetchError::Unreachable(reason)) = result else { panic!("{result:?}") };
    assert!(reason.contains("Connection refused"), "{reason}");
}

#[tokio::test]
async fn observers_who_wait_do_not_keep_others_from_sending() {
    let mut config = config("http", Server::default().start().await);
    config.concurrent_requests = 1;
    config.concurrent_polls = 2;
    let upstream = Upstream::new(&config).unwrap();
    let polls: Vec<_> = (0..5)
        .map(|_| {
            let (upstream, request) = (upstream.clone(), get(&config, "/never?timeout=30000"));
            tokio::spawn(async move { upstream.fetch(request, SOON).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let sent = upstream.fetch(get(&config, "/echo"), Duration::from_secs(1)).await;
    assert_eq!(sent.unwrap().status(), 418);
    polls.iter().for_each(|poll| poll.abort());
}

#[tokio::test]
async fn the_wait_for_a_free_place_counts_as_time() {
    let mut config = config("http", Server::default().start().await);
    config.concurrent_requests = 1;
    let upstream = Upstream::new(&config).unwrap();
    let (busy, request) = (upstream.clone(), get(&config, "/never"));
    let busy = tokio::spawn(async move { busy.fetch(request, SOON).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = upstream.fetch(get(&config, "/echo"), Duration::from_millis(100)).await;
    assert_eq!(late.map(|_| ()), Err(FetchError::Timeout));
    busy.abort();
    let _ = busy.await;
    let free = upstream.fetch(get(&config, "/echo"), SOON).await;
    assert_eq!(free.unwrap().status(), 418, "an abandoned call gives its place back");
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_at_the_homeserver() {
    let server = Server::default();
    let config = config("http", server.start().await);
    let upstream = Upstream::new(&config).unwrap();
    let dropped =
        tokio::time::timeout(Duration::from_millis(100), upstream.fetch(get(&config, "/never"), SOON));
    assert!(dropped.await.is_err());
    for _ in 0..100 {
        if server.ended.load(Ordering::SeqCst) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the connection of a dropped call is still open");
}

/// Answers one request a connection, keeps the connection, and closes it when the next request comes.
async fn closes_on_second_request() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                let _ = stream.read(&mut request).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_idempotent_call_on_a_connection_that_was_just_closed_is_repeated_and_a_post_is_not() {
    let config = config("http", closes_on_second_request().await);
    let upstream = Upstream::new(&config).unwrap();
    upstream.fetch(get(&config, "/a"), SOON).await.unwrap();
    upstream.fetch(get(&config, "/b"), SOON).await.expect("a GET is repeated on a new connection");
    let post = Request::post(config.homeserver.clone()).body(Bytes::from_static(b"{}")).unwrap();
    let result = upstream.fetch(post, SOON).await;
    assert!(matches!(result, Err(FetchError::Unreachable(_))), "{result:?}");
}
