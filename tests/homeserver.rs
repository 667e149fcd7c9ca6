//! The minimal homeserver through real HTTP: what a socket adds to the conversations in `src/homeserver/tests/`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where its expectation does")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lowband::homeserver::Config;
use lowband::homeserver::Limits;
use lowband::homeserver::Server;
use serde_json::Value;
use serde_json::json;

#[derive(Clone)]
struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Value,
}

impl Http {
    fn new(server: &Server) -> Http {
        Http { client: Client::builder(TokioExecutor::new()).build_http(), base: server.url() }
    }

    fn http2(server: &Server) -> Http {
        Http {
            client: Client::builder(TokioExecutor::new()).http2_only(true).build_http(),
            base: server.url(),
        }
    }

    async fn send(&self, token: &str, method: &str, target: &str, body: &str) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("{}{target}", self.base));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn register(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": "p", "auth": { "type": "m.login.dummy" } });
        let answer = self.send("", "POST", "/_matrix/client/v3/register", &body.to_string()).await;
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    async fn first_sync(&self, token: &str) -> String {
        let answer = self.send(token, "GET", "/_matrix/client/v3/sync", "").await;
        answer.body["next_batch"].as_str().unwrap().to_owned()
    }
}

async fn server(limits: Limits) -> Server {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Server::bind(address, Config { limits, ..Config::default() }).await.unwrap()
}

/// Alice with a room that Bob has joined.
async fn couple(http: &Http) -> (String, String, String) {
    let (alice, bob) = (http.register("alice").await, http.register("bob").await);
    let body = json!({ "invite": ["@bob:localhost"] }).to_string();
    let created = http.send(&alice, "POST", "/_matrix/client/v3/createRoom", &body).await;
    let room = created.body["room_id"].as_str().unwrap().to_owned();
    let joined = http.send(&bob, "POST", &format!("/_matrix/client/v3/join/{room}"), "").await;
    assert_eq!(joined.status, 200);
    (alice, bob, room)
}

#[tokio::test]
async fn versions_are_told_over_http_1_and_2() {
    let server = server(Limits::default()).await;
    for http in [Http::new(&server), Http::http2(&server)] {
        let answer = http.send("", "GET", "/_matrix/client/versions", "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert!(answer.body["versions"].as_array().unwrap().contains(&json!("v1.19")));
        let answer = http.send("", "GET", "/.well-known/matrix/client", "").await;
        assert_eq!(answer.body["m.homeserver"]["base_url"], json!(server.url()));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn waiting_sync_is_answered_when_a_message_comes() {
    let server = server(Limits::default()).await;
    let http = Http::new(&server);
    let (alice, bob, room) = couple(&http).await;
    let since = http.first_sync(&bob).await;
    let waiting = tokio::spawn({
        let http = http.clone();
        async move {
            let target = format!("/_matrix/client/v3/sync?since={since}&timeout=30000");
            http.send(&bob, "GET", &target, "").await
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());

    let target = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t1");
    let sent = http.send(&alice, "PUT", &target, r#"{"msgtype":"m.text","body":"hello"}"#).await;
    assert_eq!(sent.status, 200);
    let answer = tokio::time::timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap();
    let event = &answer.body["rooms"]["join"][&room]["timeline"]["events"][0];
    assert_eq!(event["event_id"], sent.body["event_id"]);
    server.shutdown().await;
}

#[tokio::test]
async fn waiting_sync_is_answered_at_its_timeout() {
    let server = server(Limits::default()).await;
    let http = Http::new(&server);
    let alice = http.register("alice").await;
    let since = http.first_sync(&alice).await;
    let target = format!("/_matrix/client/v3/sync?since={since}&timeout=400");
    let mut answer = std::pin::pin!(http.send(&alice, "GET", &target, ""));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut answer).await.is_err());
    let answer = tokio::time::timeout(Duration::from_secs(2), answer).await.unwrap();
    assert_eq!(answer.body["next_batch"], json!(since));
    server.shutdown().await;
}

#[tokio::test]
async fn waiting_sync_is_answered_at_shutdown() {
    let server = server(Limits::default()).await;
    let http = Http::new(&server);
    let alice = http.register("alice").await;
    let since = http.first_sync(&alice).await;
    let target = format!("/_matrix/client/v3/sync?since={since}&timeout=60000");
    let waiting = tokio::spawn(async move { http.send(&alice, "GET", &target, "").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::timeout(Duration::from_secs(3), server.shutdown()).await.unwrap();
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn dropped_server_ends_its_connections() {
    let server = server(Limits::default()).await;
    let http = Http::new(&server);
    let alice = http.register("alice").await;
    let since = http.first_sync(&alice).await;
    let request = http::Request::builder()
        .uri(format!("{}/_matrix/client/v3/sync?since={since}&timeout=60000", server.url()))
        .header("authorization", format!("Bearer {alice}"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let waiting = tokio::spawn(http.client.request(request));
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(server);
    assert!(tokio::time::timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn long_poll_over_the_limit_is_told_to_come_back() {
    let server = server(Limits { long_polls: 1, ..Limits::default() }).await;
    let http = Http::new(&server);
    let alice = http.register("alice").await;
    let since = http.first_sync(&alice).await;
    let target = format!("/_matrix/client/v3/sync?since={since}&timeout=60000");
    let waiting = tokio::spawn({
        let (http, alice, target) = (http.clone(), alice.clone(), target.clone());
        async move { http.send(&alice, "GET", &target, "").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = http.send(&alice, "GET", &target, "").await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.body["errcode"], "M_LIMIT_EXCEEDED");
    assert_eq!(answer.body["retry_after_ms"], 1_000);
    waiting.abort();
    server.shutdown().await;
}

#[tokio::test]
async fn body_over_the_limit_is_refused_unread() {
    let server = server(Limits { body_bytes: 1_000, ..Limits::default() }).await;
    let http = Http::new(&server);
    let answer = http.send("", "POST", "/_matrix/client/v3/login", &"x".repeat(1_001)).await;
    assert_eq!((answer.status, &answer.body["errcode"]), (413, &json!("M_TOO_LARGE")));
    let answer = http.send("", "POST", "/_matrix/client/v3/login", &"x".repeat(1_000)).await;
    assert_eq!((answer.status, &answer.body["errcode"]), (400, &json!("M_NOT_JSON")));
    server.shutdown().await;
}

#[tokio::test]
async fn address_of_the_network_is_refused() {
    let address: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let error = Server::bind(address, Config::default()).await.unwrap_err();
    assert!(error.to_string().contains("not a loopback address"), "{error}");
}
