//! Devices end to end, with real sockets and processes: a gateway that serves nobody else, `lowband device` beside it, and
//! `lowband request --credentials` as the device.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time;

#[path = "support/processes.rs"]
mod processes;

use processes::World;

impl World {
    async fn add(&self) {
        self.device(&["add", "buoy", "--user", "@buoy:localhost", "--token-file", "token", "--unchecked"])
            .await;
    }

    /// A gateway that serves devices alone, and where; its log goes into a file.
    async fn gateway(&self, listen: &str) -> (Child, SocketAddr) {
        let homeserver = self.homeserver.url();
        let words = ["gateway", "--homeserver", &homeserver, "--listen", listen, "--state", "state"];
        let mut child = self.command(&words).spawn().unwrap();
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

    /// The device asks; its exit code, what it prints, and what it says beside.
    async fn asks(
        &self,
        address: SocketAddr,
        method: &str,
        path: &str,
        more: &[&str],
    ) -> (i32, String, String) {
        let url = format!("coap://{address}/_matrix/client/v3/{path}");
        let output = self.run(&[&["request", method, &url], more].concat()).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

const DEVICE: [&str; 4] = ["--credentials", "buoy.toml", "--timeout", "20"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_lives_beside_a_gateway_that_runs() {
    let world = World::new("net-devices-life").await;
    let (mut gateway, address) = world.gateway("127.0.0.1:0").await;
    // Without keys nobody is served.
    let (code, out, told) = world.asks(address, "GET", "account/whoami", &["--token", &world.token]).await;
    assert!(
        code == 1 && told.contains("4.01") && told.contains("hint: at coap:// this gateway"),
        "{out} {told}"
    );
    // Nobody is told to put a token on such a link.
    let (code, out, told) = world.asks(address, "GET", "account/whoami", &[]).await;
    assert!(code == 1 && told.contains("--credentials FILE") && !told.contains("--token"), "{out} {told}");

    world.add().await;
    world.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    let (code, out, told) = world.asks(address, "GET", "account/whoami", &DEVICE).await;
    assert!(code == 0 && out.contains("@buoy:"), "{out} {told}");
    let room = world.room.replace('!', "%21");
    let send = format!("rooms/{room}/send/m.room.message/1");
    let body = ["-d", r#"{"msgtype":"m.text","body":"from the buoy"}"#];
    let (code, out, told) = world.asks(address, "PUT", &send, &[&DEVICE[..], &body].concat()).await;
    assert!(code == 0 && out.contains("event_id"), "{out} {told}");
    let (code, out, _) =
        world.asks(address, "POST", "account/password", &[&DEVICE[..], &["-d", "{}"]].concat()).await;
    assert!(code == 1 && out.contains("M_FORBIDDEN"), "{out}");
    let own = [&DEVICE[..], &["--token", "own"]].concat();
    let (code, out, told) = world.asks(address, "GET", "account/whoami", &own).await;
    assert!(code == 1 && out.contains("may not bring an access token"), "{out}");
    assert!(told.contains("hint: without --token, and without LOWBAND_TOKEN"), "{told}");

    // Killed, the gateway asks for proof, and is given it.
    gateway.start_kill().unwrap();
    gateway.wait().await.unwrap();
    let (mut gateway, address) = world.gateway(&address.to_string()).await;
    let (code, out, told) =
        world.asks(address, "GET", "account/whoami", &[&DEVICE[..], &["-v"]].concat()).await;
    assert!(code == 0 && out.contains("@buoy:"), "{out} {told}");
    assert_eq!(told.matches("\n> ").count() + 1, 2, "asked, and again with proof: {told}");

    // New keys: the old hold until they are used.
    world.device(&["rotate", "buoy"]).await;
    assert_eq!(world.asks(address, "GET", "account/whoami", &DEVICE).await.0, 0);
    world.device(&["export", "buoy", "-o", "new.toml"]).await;
    let new = ["--credentials", "new.toml", "--timeout", "20"];
    assert_eq!(world.asks(address, "GET", "account/whoami", &new).await.0, 0);
    let (code, _, told) =
        world.asks(address, "GET", "account/whoami", &["--credentials", "buoy.toml", "--timeout", "2"]).await;
    assert_eq!(code, 3, "{told}");
    assert!(world.device(&["show", "buoy"]).await.contains("new keys             none"));

    // Stopped in order, it asks for no proof.
    let pid = gateway.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    gateway.wait().await.unwrap();
    let (_gateway, address) = world.gateway(&address.to_string()).await;
    let (code, _, told) = world.asks(address, "GET", "account/whoami", &[&new[..], &["-v"]].concat()).await;
    assert_eq!((code, told.matches("> 0").count()), (0, 1), "{told}");

    world.device(&["revoke", "buoy"]).await;
    let (code, _, told) =
        world.asks(address, "GET", "account/whoami", &["--credentials", "new.toml", "--timeout", "2"]).await;
    assert_eq!(code, 3, "{told}");

    // Who has asked too much is told when to ask again.
    let user = ["--user", "@buoy:localhost", "--token-file", "token", "--unchecked"];
    world.device(&[&["add", "few", "--requests-per-minute", "1"][..], &user].concat()).await;
    world.device(&["export", "few", "-o", "few.toml"]).await;
    let few = ["--credentials", "few.toml"];
    assert_eq!(world.asks(address, "GET", "account/whoami", &few).await.0, 0);
    let (code, _, told) = world.asks(address, "GET", "account/whoami", &few).await;
    assert!(code == 1 && told.contains("4.29") && told.contains("hint: again in "), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_observes_until_it_is_revoked() {
    let world = World::new("net-devices-observes").await;
    world.add().await;
    world.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    let (_gateway, address) = world.gateway("127.0.0.1:0").await;
    let url = format!("coap://{address}/_matrix/client/v3/sync");
    let mut observer =
        world.command(&["request", "GET", &url, "--observe", "--credentials", "buoy.toml"]).spawn().unwrap();
    let mut lines = BufReader::new(observer.stdout.take().unwrap()).lines();
    let mut next =
        async || time::timeout(Duration::from_secs(20), lines.next_line()).await.map(|line| line.unwrap());
    next().await.unwrap().unwrap();
    for round in 0..3 {
        let send = format!("rooms/{}/send/m.room.message/t{round}", world.room);
        world.call("PUT", &send, json!({ "msgtype": "m.text", "body": format!("message {round}") })).await;
        let line = next().await.unwrap().unwrap();
        assert!(line.contains(&format!("message {round}")), "{line}");
    }
    world.device(&["revoke", "buoy"]).await;
    world
        .call("PUT", &format!("rooms/{}/send/m.room.message/t9", world.room), json!({ "body": "unheard" }))
        .await;
    time::sleep(Duration::from_secs(2)).await;
    observer.start_kill().unwrap();
    while let Ok(Some(line)) = next().await {
        assert!(!line.contains("unheard"), "{line}");
    }
}

/// How many datagrams `-v` tells of that the device has sent.
fn sent(told: &str) -> usize {
    told.lines().filter(|line| line.starts_with("> ")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_agrees_on_its_keys_once_and_again_when_the_gateway_has_lost_them() {
    let world = World::new("net-devices-edhoc").await;
    let (mut gateway, address) = world.gateway("127.0.0.1:0").await;
    let user = ["--user", "@buoy:localhost", "--token-file", "token", "--unchecked"];
    world.device(&[&["add", "buoy", "--security", "edhoc"][..], &user].concat()).await;
    assert!(world.device(&["show", "buoy"]).await.contains("keys agreed on       none"));
    world.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    let asks = async |method: &str, path: &str, more: &[&str]| {
        world.asks(address, method, path, &[&DEVICE[..], &["-v"], more].concat()).await
    };
    // message_1, then the request with message_3 before it; from then on the request alone.
    for datagrams in [2, 1, 1] {
        let (code, out, told) = asks("GET", "account/whoami", &[]).await;
        assert!(code == 0 && out.contains("@buoy:"), "{out} {told}");
        assert_eq!(sent(&told), datagrams, "{told}");
    }
    assert!(world.device(&["show", "buoy"]).await.contains("keys agreed on       1 that hold"));
    let room = world.room.replace('!', "%21");
    let send = format!("rooms/{room}/send/m.room.message/1");
    let (code, out, _) = asks("PUT", &send, &["-d", r#"{"msgtype":"m.text","body":"from the buoy"}"#]).await;
    assert!(code == 0 && out.contains("event_id"), "{out}");
    let (code, out, _) = asks("POST", "account/password", &["-d", "{}"]).await;
    assert!(code == 1 && out.contains("M_FORBIDDEN"), "{out}");

    // Killed, it knows them, and asks for proof that the request is fresh.
    gateway.start_kill().unwrap();
    gateway.wait().await.unwrap();
    let (mut gateway, _) = world.gateway(&address.to_string()).await;
    let (code, _, told) = asks("GET", "account/whoami", &[]).await;
    assert_eq!((code, sent(&told)), (0, 2), "{told}");

    // Without its state it knows none: told 4.01, the device agrees on others, and what it asked is done once it has.
    gateway.start_kill().unwrap();
    gateway.wait().await.unwrap();
    std::fs::remove_file(world.path("state")).unwrap();
    let (mut gateway, _) = world.gateway(&address.to_string()).await;
    for datagrams in [3, 1] {
        let (code, out, told) = asks("GET", "account/whoami", &[]).await;
        assert!(code == 0 && out.contains("@buoy:"), "{out} {told}");
        assert_eq!(sent(&told), datagrams, "{told}");
    }
    // What may not be done twice is not made again by itself.
    gateway.start_kill().unwrap();
    gateway.wait().await.unwrap();
    std::fs::remove_file(world.path("state")).unwrap();
    let (_gateway, _) = world.gateway(&address.to_string()).await;
    let join = format!("rooms/{room}/join");
    let (code, _, told) = asks("POST", &join, &["-d", "{}"]).await;
    assert!(code == 3 && told.contains("does not know the keys any more"), "{told}");
    let (code, out, told) = asks("POST", &join, &["-d", "{}"]).await;
    assert!(code == 0 && out.contains("room_id") && sent(&told) == 2, "{out} {told}");

    // A device that has lost its state agrees on others.
    std::fs::remove_file(world.path("buoy.toml.state")).unwrap();
    let (code, _, told) = asks("GET", "account/whoami", &[]).await;
    assert_eq!((code, sent(&told)), (0, 2), "{told}");

    // New keys of its own: the old hold until the new are used.
    world.device(&["rotate", "buoy"]).await;
    assert_eq!(asks("GET", "account/whoami", &[]).await.0, 0);
    world.device(&["export", "buoy", "-o", "new.toml"]).await;
    let new = ["--credentials", "new.toml", "--timeout", "20"];
    assert_eq!(world.asks(address, "GET", "account/whoami", &new).await.0, 0);
    let (code, _, told) = asks("GET", "account/whoami", &[]).await;
    assert!(code == 3 && told.contains("the responder refused: unknown credential\nhint: "), "{told}");
    world.device(&["revoke", "buoy"]).await;
    let (code, _, told) = world.asks(address, "GET", "account/whoami", &new).await;
    assert!(code == 3 && told.contains("no keys were agreed on"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_that_agrees_on_its_keys_observes() {
    let world = World::new("net-devices-edhoc-observes").await;
    let user = ["--user", "@buoy:localhost", "--token-file", "token", "--unchecked"];
    world.device(&[&["add", "buoy", "--security", "edhoc"][..], &user].concat()).await;
    let line = world.device(&["export", "buoy", "--format", "line"]).await;
    let (_gateway, address) = world.gateway("127.0.0.1:0").await;
    let url = format!("coap://{address}/_matrix/client/v3/sync");
    // On such a link a client says how large blocks may be, of message_2 too.
    let link = ["--link", "hf-100", "--link-speed", "100"];
    let words = ["request", "GET", &url, "--observe", "--count", "2", "--state", "own", "--credentials"];
    let mut observer = world.command(&[&words[..], &[line.trim()], &link].concat()).spawn().unwrap();
    let mut lines = BufReader::new(observer.stdout.take().unwrap()).lines();
    let mut next = async || time::timeout(Duration::from_secs(20), lines.next_line()).await.unwrap();
    next().await.unwrap().unwrap();
    let send = format!("rooms/{}/send/m.room.message/t1", world.room);
    world.call("PUT", &send, json!({ "msgtype": "m.text", "body": "news" })).await;
    assert!(next().await.unwrap().unwrap().contains("news"));
    assert!(observer.wait().await.unwrap().success());
}

#[tokio::test]
async fn keys_without_a_place_for_their_state_are_not_used() {
    let world = World::new("net-devices-place").await;
    world.add().await;
    let line = world.device(&["export", "buoy", "--format", "line"]).await;
    let url = "coap://127.0.0.1:9/_matrix/client/versions";
    let output = world.run(&["request", "GET", url, "--credentials", line.trim()]).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("no place to keep") && told.contains("hint: --state FILE"), "{told}");
    // A key that is to be put into the file is not looked for in its state.
    let point = "02bbc34960526ea4d32e940cad2a234148ddc21791a12afbcbac93622046dd44f0";
    let own = ["--security", "edhoc", "--public-key", point, "--user", "@buoy:localhost", "--allow-token"];
    world.device(&[&["add", "own"][..], &own].concat()).await;
    world.device(&["export", "own", "-o", "own.toml"]).await;
    let told =
        String::from_utf8(world.run(&["request", "GET", url, "--credentials", "own.toml"]).await.stderr);
    assert!(told.unwrap().starts_with("error: the private key is missing\nhint: put it into the file"));
    // One at a time.
    world.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    let words = ["request", "GET", url, "--credentials", "buoy.toml"];
    let state = world.path("buoy.toml.state");
    let held = lowband::net::store::Store::open(state.as_ref()).unwrap();
    let told = String::from_utf8(world.run(&words).await.stderr).unwrap();
    assert!(told.contains("another process uses it") && told.contains("one at a time"), "{told}");
    drop(held);
    std::fs::set_permissions(world.path("buoy.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let told = String::from_utf8(world.run(&words).await.stderr).unwrap();
    assert!(told.contains("hint: chmod 600 buoy.toml"), "{told}");
}

#[tokio::test]
async fn gateway_that_has_lost_its_state_refuses_the_keys_and_says_so() {
    let world = World::new("net-devices-lost").await;
    world.add().await;
    world.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    let (mut gateway, address) = world.gateway("127.0.0.1:0").await;
    assert_eq!(world.asks(address, "GET", "account/whoami", &DEVICE).await.0, 0);
    gateway.start_kill().unwrap();
    gateway.wait().await.unwrap();
    std::fs::remove_file(world.path("state")).unwrap();
    let (_gateway, address) = world.gateway(&address.to_string()).await;
    let words = ["--credentials", "buoy.toml", "--timeout", "2"];
    assert_eq!(world.asks(address, "GET", "account/whoami", &words).await.0, 3);
    assert!(world.device(&["show", "buoy"]).await.contains("lost keys            refused"));
    world.device(&["rotate", "buoy"]).await;
    world.device(&["export", "buoy", "-o", "new.toml"]).await;
    let new = ["--credentials", "new.toml", "--timeout", "20"];
    let (code, out, told) = world.asks(address, "GET", "account/whoami", &new).await;
    assert_eq!(code, 0, "{out} {told}");
    assert!(!world.device(&["show", "buoy"]).await.contains("lost keys"));
}
