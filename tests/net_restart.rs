//! `lowband gateway --state`: a process that is killed, and another that takes up what it has stored.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::endpoint;
use lowband::homeserver;
use lowband::net::client::Client;
use lowband::net::client::Observation;
use lowband::net::upstream;
use lowband::net::upstream::Upstream;
use lowband::translate;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time;

/// A state file of its own that goes with the test.
struct State(PathBuf);

impl State {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowband-{}-{name}.state", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn gateway(homeserver: &str, listen: &str, state: &State) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowband"));
    command.env_clear().kill_on_drop(true).stderr(Stdio::piped());
    command.args(["gateway", "--insecure-coap", "--homeserver", homeserver, "--listen", listen]);
    command.arg("--state").arg(&state.0);
    command
}

/// A gateway that serves, and where.
async fn start(homeserver: &str, listen: &str, state: &State) -> (Child, SocketAddr) {
    let mut child = gateway(homeserver, listen, state).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some(address) = line.strip_prefix("listening on coap://") {
            break address.parse().unwrap();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

/// A call of the homeserver that passes the gateway by.
async fn call(homeserver: &Upstream, method: &str, url: String, token: &str, body: Value) -> Value {
    let request = http::Request::builder().method(method).uri(url);
    let request = request.header("authorization", format!("Bearer {token}"));
    let request = request.body(Bytes::from(body.to_string())).unwrap();
    let response = homeserver.fetch(request, Duration::from_secs(10)).await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    serde_json::from_slice(response.body()).unwrap()
}

fn observe(client: &Client, token: &str) -> Observation {
    let request = http::Request::builder().uri("/_matrix/client/v3/sync");
    let request = request.header("authorization", format!("Bearer {token}")).body(Bytes::new()).unwrap();
    client.observe(translate::request::to_coap(&request, Keys::V1, &Limits::default()).unwrap())
}

/// The texts of the messages in the next notification.
async fn messages(observation: &mut Observation, room: &str) -> Vec<String> {
    let response = time::timeout(Duration::from_secs(20), observation.next()).await.unwrap();
    let response = translate::response::to_http(&response.unwrap().unwrap(), &Limits::default()).unwrap();
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    let events = body["rooms"]["join"][room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
    let texts = events.iter().filter_map(|event| event["content"]["body"].as_str());
    texts.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observer_hears_of_everything_once_and_in_order_though_the_gateway_is_killed() {
    let server = homeserver::Server::bind("127.0.0.1:0".parse().unwrap(), homeserver::Config::default());
    let server = server.await.unwrap();
    let (url, state) = (server.url(), State::new("killed"));
    let direct = Upstream::new(&upstream::Config::new(url.parse().unwrap())).unwrap();
    let user = json!({ "username": "alice", "password": "p", "auth": { "type": "m.login.dummy" } });
    let user = call(&direct, "POST", format!("{url}/_matrix/client/v3/register"), "", user).await;
    let token = user["access_token"].as_str().unwrap();
    let room = call(&direct, "POST", format!("{url}/_matrix/client/v3/createRoom"), token, json!({})).await;
    let room = room["room_id"].as_str().unwrap();

    let (mut process, address) = start(&url, "127.0.0.1:0", &state).await;
    let client = Client::connect(address, endpoint::Config::default()).await.unwrap();
    let mut observation = observe(&client, token);
    messages(&mut observation, room).await;
    // It took several blocks: a gateway that does not hear that the last has arrived takes two minutes to find out.
    time::sleep(Duration::from_millis(100)).await;

    let (mut seen, mut expected) = (Vec::new(), Vec::new());
    for round in 0..30_u64 {
        let text = format!("message {round}");
        let send = format!("{url}/_matrix/client/v3/rooms/{room}/send/m.room.message/t{round}");
        let message = json!({ "msgtype": "m.text", "body": text });
        call(&direct, "PUT", send, token, message).await;
        expected.push(text);
        // Before the notification, after it, and around its acknowledgement.
        time::sleep(Duration::from_millis(round * round % 31)).await;
        process.start_kill().unwrap();
        process.wait().await.unwrap();
        (process, _) = start(&url, &address.to_string(), &state).await;
        while seen.len() < expected.len() {
            seen.extend(messages(&mut observation, room).await);
        }
        assert_eq!(seen, expected, "in round {round}");
    }
}

#[tokio::test]
async fn state_in_use_is_told_with_what_to_do() {
    let state = State::new("used");
    let (_process, _) = start("http://127.0.0.1:1", "127.0.0.1:0", &state).await;
    let mut second = gateway("http://127.0.0.1:1", "127.0.0.1:0", &state).spawn().unwrap();
    assert_eq!(second.wait().await.unwrap().code(), Some(1));
    let mut told = String::new();
    second.stderr.take().unwrap().read_to_string(&mut told).await.unwrap();
    assert!(told.contains("another process uses it\nhint: another gateway may be running"), "{told}");
}
