//! DTLS end to end, with real sockets and processes: a gateway at `coaps://`, devices by key, and others by certificate.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use base64ct::Base64;
use base64ct::Encoding;
use lowband::security::dtls::Fingerprint;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;

#[path = "support/processes.rs"]
mod processes;

use processes::World;

impl World {
    async fn add(&self) {
        let words = ["add", "buoy", "--user", "@buoy:localhost", "--token-file", "token", "--unchecked"];
        self.device(&[words.as_slice(), &["--security", "dtls-psk"]].concat()).await;
    }

    /// A gateway behind DTLS, and where.
    async fn gateway(&self, more: &[&str]) -> (Child, SocketAddr) {
        let homeserver = self.homeserver.url();
        let words = ["gateway", "--homeserver", &homeserver, "--listen", "coaps://127.0.0.1:0"];
        let mut child = self.command(&[words.as_slice(), more].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some(address) = line.strip_prefix("listening on coaps://") {
                break address.parse().unwrap();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        (child, address)
    }

    /// A certificate and its key from `tests/vectors/dtls`, in PEM.
    fn write_certificate(&self, name: &str) -> Fingerprint {
        let read = |file: String| std::fs::read(format!("tests/vectors/dtls/{file}")).unwrap();
        let pem = |label: &str, der: &[u8]| {
            let text = Base64::encode_string(der);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        let (certificate, key) = (read(format!("{name}.der")), read(format!("{name}.key.der")));
        std::fs::write(self.path(&format!("{name}.pem")), pem("CERTIFICATE", &certificate)).unwrap();
        let path = self.path(&format!("{name}.key"));
        std::fs::write(&path, pem("PRIVATE KEY", &key)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        Fingerprint::of(&certificate)
    }

    /// A client asks; its exit code, what it prints, and what it says beside.
    async fn asks(
        &self,
        address: SocketAddr,
        method: &str,
        path: &str,
        more: &[&str],
    ) -> (i32, String, String) {
        let url = format!("coaps://{address}/_matrix/client/v3/{path}");
        let output = self.run(&[&["request", method, &url], more].concat()).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

const DEVICE: [&str; 4] = ["--credentials", "buoy.toml", "--timeout", "20"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_served_by_its_key_until_it_is_revoked() {
    let world = World::new("net-dtls-key").await;
    let (mut gateway, address) = world.gateway(&["--state", "state", "--key-log", "keys"]).await;
    world.add().await;
    world.device(&["export", "buoy", "-o", "buoy.toml"]).await;
    let (code, printed, said) = world.asks(address, "GET", "account/whoami", &DEVICE).await;
    assert_eq!(code, 0, "{said}");
    let answer: Value = serde_json::from_str(&printed).unwrap();
    // The gateway's token: the device has sent none.
    assert_eq!(answer["user_id"], "@buoy:localhost");
    let once = ["--observe", "--count", "1"];
    let (code, printed, said) =
        world.asks(address, "GET", "sync", &[DEVICE.as_slice(), &once].concat()).await;
    assert!(code == 0 && printed.contains("next_batch"), "{said}");

    // Plain messages get nothing at this address, and who has another key gets no session.
    std::fs::write(world.path("key"), "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(world.path("key"), PermissionsExt::from_mode(0o600)).unwrap();
    let other = ["--psk-identity", "nobody", "--psk-key-file", "key", "--timeout", "20"];
    let (code, _, said) = world.asks(address, "GET", "account/whoami", &other).await;
    assert!(code == 3 && said.contains("handshake failed"), "{said}");

    let log = std::fs::read_to_string(world.path("keys")).unwrap();
    assert_eq!(log.lines().filter(|line| line.starts_with("CLIENT_RANDOM ")).count(), 2, "{log}");
    let mode = std::fs::metadata(world.path("keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    world.device(&["revoke", "buoy"]).await;
    let (code, _, said) = world.asks(address, "GET", "account/whoami", &DEVICE).await;
    assert!(code == 3 && said.contains("handshake failed"), "{said}");
    gateway.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_device_brings_a_token_where_that_is_allowed() {
    let world = World::new("net-dtls-open").await;
    let pin = world.write_certificate("server").to_string();
    world.write_certificate("client");
    let certificate = ["--certificate", "server.pem", "--certificate-key", "server.key"];
    let open = ["--allow-unprovisioned", "dtls"];
    let (mut gateway, address) = world.gateway(&[certificate.as_slice(), &open].concat()).await;
    let client = ["--certificate", "client.pem", "--certificate-key", "client.key", "--timeout", "20"];
    let token = ["--pin", &pin, "--token", &world.token];
    let (code, printed, said) =
        world.asks(address, "GET", "account/whoami", &[client.as_slice(), &token].concat()).await;
    assert!(code == 0 && printed.contains("@buoy:localhost"), "{said}");
    let wrong = ["--pin", &"00".repeat(32), "--token", &world.token];
    let (code, _, said) =
        world.asks(address, "GET", "account/whoami", &[client.as_slice(), &wrong].concat()).await;
    assert!(code == 3 && said.contains("handshake failed"), "{said}");
    gateway.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_made_once_and_a_client_that_knows_its_digest_needs_none_of_its_own() {
    let world = World::new("net-dtls-made").await;
    let made = world.run(&["certificate", "new", "gateway.example.org"]).await;
    let printed = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mode = std::fs::metadata(world.path("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = world.run(&["certificate", "new"]).await;
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(!again.status.success() && said.contains("nothing is written over"), "{said}");

    let certificate = ["--certificate", "certificate.pem", "--certificate-key", "key.pem"];
    let open = ["--allow-unprovisioned", "dtls"];
    let (mut gateway, address) = world.gateway(&[certificate.as_slice(), &open].concat()).await;
    let pins: Vec<_> = printed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(pins.len(), 2, "{printed}");
    for pin in pins {
        let client = ["--pin", pin, "--token", &world.token, "--timeout", "20"];
        let (code, printed, said) = world.asks(address, "GET", "account/whoami", &client).await;
        assert!(code == 0 && printed.contains("@buoy:localhost"), "{said}");
    }
    gateway.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_said_at_the_start() {
    let world = World::new("net-dtls-start").await;
    world.write_certificate("server");
    let homeserver = world.homeserver.url();
    let gateway = ["gateway", "--homeserver", &homeserver, "--listen", "coaps://127.0.0.1:0"];
    let certificate = ["--certificate", "server.pem", "--certificate-key", "server.key"];
    let open = ["--allow-unprovisioned", "dtls"];
    std::fs::set_permissions(world.path("server.key"), PermissionsExt::from_mode(0o644)).unwrap();
    for (words, why, hint) in [
        (vec![], "nobody would be served by DTLS", "--allow-unprovisioned dtls"),
        (open.to_vec(), "it has none", "--certificate FILE"),
        (certificate[..2].to_vec(), "its private key is missing", "--certificate-key FILE"),
        ([certificate.as_slice(), &open].concat(), "others than its owner may read", "chmod 600"),
    ] {
        let output = world.run(&[gateway.as_slice(), &words].concat()).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why) && said.contains(hint), "{said}");
    }
    // Nor is what nobody would come to write into.
    let plain = ["gateway", "--homeserver", &homeserver, "--listen", "127.0.0.1:0", "--state", "state"];
    let output = world.run(&[plain.as_slice(), &["--key-log", "keys"]].concat()).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("no address speaks DTLS"), "{said}");
    assert!(!std::path::Path::new(&world.path("keys")).exists());
}
