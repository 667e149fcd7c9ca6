//! The packed profile end to end, with real sockets and processes: over OSCORE, after keys were agreed on anew, and over DTLS. A device's
//! agreement outlives its address, its keys and either process.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::time;

#[path = "support/processes.rs"]
mod processes;

use processes::World;

/// The requests of a call that agrees on the profile, and of one that does not have to.
const FIRST: usize = 2;
const LATER: usize = 1;

impl World {
    async fn add(&self, more: &[&str]) {
        let words = ["add", "buoy", "--user", "@buoy:localhost", "--token-file", "token", "--unchecked"];
        self.device(&[&words, more].concat()).await;
        self.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    }

    /// A gateway that serves devices alone, and where.
    async fn gateway(&self, listen: &str) -> (Child, SocketAddr) {
        let homeserver = self.homeserver.url();
        let words = ["gateway", "--homeserver", &homeserver, "--listen", listen, "--state", "state"];
        let mut child = self.command(&words).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some((_, address)) =
                line.strip_prefix("listening on ").and_then(|url| url.split_once("://"))
            {
                break address.parse().unwrap();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        (child, address)
    }

    /// The same, killed and started again.
    async fn killed(&self, mut gateway: Child, listen: &str) -> Child {
        gateway.start_kill().unwrap();
        gateway.wait().await.unwrap();
        self.gateway(listen).await.0
    }

    /// The device asks by the packed profile: what it printed, and what it said beside.
    async fn asks(&self, url: &str, method: &str, path: &str, more: &[&str]) -> (String, String) {
        let url = format!("{url}/_matrix/client/v3/{path}");
        let words = ["request", method, &url, "--profile", "packed", "-v"];
        let Output { status, stdout, stderr } = self.run(&[&words, &DEVICE[..], more].concat()).await;
        let told = String::from_utf8(stderr).unwrap();
        let printed = String::from_utf8(stdout).unwrap();
        assert!(status.success(), "{method} {path}: {printed} {told}");
        (printed, told)
    }

    async fn says(&self, text: &str) {
        let send = format!("rooms/{}/send/m.room.message/{text}", self.room);
        self.call("PUT", &send, json!({ "msgtype": "m.text", "body": text })).await;
    }
}

const DEVICE: [&str; 4] = ["--credentials", "buoy.toml", "--timeout", "60"];

/// How many requests `-v` tells of that the device has sent, without repeats and what else there is: where nothing is optimised, the model takes
/// long until it is ready, and so may an answer.
fn sent(told: &str) -> usize {
    let requests =
        told.lines().filter(|line| line.starts_with("> ")).filter_map(|line| line.split_once(" CON 0.0"));
    let ids: BTreeSet<&str> =
        requests.filter_map(|(_, rest)| rest.split(" id ").nth(1)?.split(',').next()).collect();
    ids.len()
}

fn position(printed: &str) -> String {
    let answer: Value = serde_json::from_str(printed).unwrap();
    answer["next_batch"].as_str().unwrap().to_owned()
}

/// What the device sends, one call after the other, each by a process and from an address of its own.
async fn goes_on(world: &World, url: &str, datagrams: [usize; 4]) {
    let (printed, told) = world.asks(url, "GET", "account/whoami", &[]).await;
    assert!(printed.contains("@buoy:"), "{printed}");
    assert_eq!(sent(&told), datagrams[0], "{told}");
    let send = format!("rooms/{}/send/m.room.message/1", world.room.replace('!', "%21"));
    let body = ["-d", r#"{"msgtype":"m.text","body":"from the buoy"}"#];
    let (event, told) = world.asks(url, "PUT", &send, &body).await;
    assert!(event.contains("event_id"), "{event}");
    assert_eq!(sent(&told), datagrams[1], "{told}");
    // The same transaction by another process is the same event.
    let (again, told) = world.asks(url, "PUT", &send, &body).await;
    assert_eq!((again, sent(&told)), (event, datagrams[2]), "{told}");
    let (printed, told) = world.asks(url, "GET", "sync?timeout=0", &[]).await;
    let since = position(&printed);
    assert!(since.starts_with("lb"), "{printed}");
    assert_eq!(sent(&told), datagrams[3], "{told}");
    let path = format!("sync?timeout=0&since={since}");
    let (printed, _) = world.asks(url, "GET", &path, &[]).await;
    assert!(position(&printed).starts_with("lb") && !printed.contains("from the buoy"), "{printed}");
}

/// An observation that ends after the answer and one notification.
async fn observes(world: &World, url: &str, text: &str) {
    let url = format!("{url}/_matrix/client/v3/sync");
    let words = ["request", "GET", &url, "--profile", "packed", "--observe", "--count", "2"];
    let mut observer = world.command(&[&words, &DEVICE[..]].concat()).spawn().unwrap();
    let mut lines = BufReader::new(observer.stdout.take().unwrap()).lines();
    let mut next = async || time::timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap();
    let first = next().await.unwrap_or_default();
    assert!(first.contains("next_batch"), "{first}");
    world.says(text).await;
    let news = next().await.unwrap_or_default();
    assert!(news.contains(text) && position(&news).starts_with("lb"), "{news}");
    assert!(observer.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_with_oscore_agrees_once_for_all_its_addresses_and_for_new_keys() {
    let world = World::new("net-packed-oscore").await;
    let (gateway, address) = world.gateway("127.0.0.1:0").await;
    world.add(&[]).await;
    let url = format!("coap://{address}");
    goes_on(&world, &url, [FIRST, LATER, LATER, LATER]).await;
    observes(&world, &url, "by-oscore").await;

    // Killed, the gateway asks for proof that the request is fresh, and knows what was agreed.
    let gateway = world.killed(gateway, &address.to_string()).await;
    let (_, told) = world.asks(&url, "GET", "account/whoami", &[]).await;
    assert_eq!(sent(&told), LATER + 1, "{told}");
    observes(&world, &url, "after-a-restart").await;

    // New keys, whose state is beside them; what the profile keeps is the device's.
    world.device(&["rotate", "buoy"]).await;
    std::fs::remove_file(world.path("buoy.toml")).unwrap();
    world.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    std::fs::remove_file(world.path("buoy.toml.state")).unwrap();
    let (printed, told) = world.asks(&url, "GET", "account/whoami", &[]).await;
    assert!(printed.contains("@buoy:") && sent(&told) == LATER, "{printed} {told}");
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_that_agrees_on_its_keys_anew_has_not_to_agree_on_the_profile_anew() {
    let world = World::new("net-packed-edhoc").await;
    let (gateway, address) = world.gateway("127.0.0.1:0").await;
    world.add(&["--security", "edhoc"]).await;
    let url = format!("coap://{address}");
    // message_1 comes before the first.
    goes_on(&world, &url, [FIRST + 1, LATER, LATER, LATER]).await;
    observes(&world, &url, "by-edhoc").await;
    // A device without its keys' state agrees on others.
    std::fs::remove_file(world.path("buoy.toml.state")).unwrap();
    let (printed, told) = world.asks(&url, "GET", "account/whoami", &[]).await;
    assert!(printed.contains("@buoy:") && sent(&told) == LATER + 1, "{printed} {told}");
    observes(&world, &url, "by-other-keys").await;
    // One that has lost what it knew of the profile begins another epoch, and nothing else.
    std::fs::remove_file(world.path("buoy.toml.state.packed")).unwrap();
    let (_, told) = world.asks(&url, "GET", "account/whoami", &[]).await;
    assert_eq!(sent(&told), FIRST, "{told}");
    // A gateway that has lost all: other keys, and another agreement.
    let mut gateway = gateway;
    gateway.start_kill().unwrap();
    gateway.wait().await.unwrap();
    std::fs::remove_file(world.path("state")).unwrap();
    let _gateway = world.gateway(&address.to_string()).await;
    let (printed, _) = world.asks(&url, "GET", "account/whoami", &[]).await;
    assert!(printed.contains("@buoy:"), "{printed}");
    observes(&world, &url, "after-all-was-lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_with_dtls_agrees_once_for_all_its_sessions() {
    let world = World::new("net-packed-dtls").await;
    let (gateway, address) = world.gateway("coaps://127.0.0.1:0").await;
    world.add(&["--security", "dtls-psk"]).await;
    let url = format!("coaps://{address}");
    let (printed, told) = world.asks(&url, "GET", "account/whoami", &[]).await;
    assert!(printed.contains("@buoy:") && sent(&told) == FIRST, "{printed} {told}");
    goes_on(&world, &url, [LATER; 4]).await;
    observes(&world, &url, "by-dtls").await;
    let _gateway = world.killed(gateway, &format!("coaps://{address}")).await;
    let (_, told) = world.asks(&url, "GET", "account/whoami", &[]).await;
    assert_eq!(sent(&told), LATER, "{told}");
    observes(&world, &url, "after-a-restart").await;
}
