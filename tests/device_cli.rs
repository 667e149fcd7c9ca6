//! `lowband device` as people run it: with no gateway, beside one that runs, and every way to get it wrong.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use lowband::device::Credentials;
use lowband::device::Half;
use serde_json::Value;
use serde_json::json;

/// A directory of its own, with the devices in it.
struct Desk(PathBuf);

impl Desk {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowband-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("token"), "syt_of_a_file\n").unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowband"));
        command.env_clear().env("LOWBAND_DEVICES", self.path("devices")).current_dir(&self.0);
        command.arg("device").args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    /// What it prints, where it succeeds.
    fn done(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.done(words)).unwrap()
    }

    /// Its exit code and what it says, where it fails.
    #[track_caller]
    fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{words:?} succeeded");
        assert!(output.stdout.is_empty(), "{words:?}");
        assert!(!said.contains("syt_"), "{said}");
        (output.status.code().unwrap(), said)
    }

    fn add(&self, name: &str, more: &[&str]) {
        let words = ["add", name, "--user", "@buoy:hs", "--token-file", "token", "--unchecked"];
        self.done(&[&words, more].concat());
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn device_goes_through_its_life() {
    let desk = Desk::new("life");
    assert_eq!(desk.done(&["list"]).lines().count(), 1);
    let added = desk.run(&[
        "add",
        "buoy",
        "--user",
        "@buoy:hs",
        "--token-file",
        "token",
        "--unchecked",
        "--link",
        "hf-100",
    ]);
    let said = String::from_utf8(added.stderr).unwrap();
    assert!(added.status.success() && added.stdout.is_empty(), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].starts_with("new key in ") && lines[0].ends_with("keep a copy elsewhere"), "{said}");
    assert_eq!(lines[1], "device buoy added: OSCORE, sender id empty");
    assert_eq!((mode(desk.path("devices")), mode(desk.path("devices.key"))), (0o600, 0o600));

    desk.add(
        "van",
        &[
            "--security",
            "dtls-psk",
            "--routes",
            "all",
            "--requests-per-minute",
            "6",
            "--airtime-per-day",
            "10m",
            "--payload",
            "1KiB",
            "--observations",
            "1",
        ],
    );
    let van = desk.json(&["show", "van", "--json"]);
    assert_eq!(
        (&van["security"], &van["id"], &van["routes"]),
        (&json!("dtls-psk"), &json!("1"), &json!("all"))
    );
    assert_eq!(
        van["limits"],
        json!({ "requests_per_minute": 6, "airtime_per_day": { "secs": 600, "nanos": 0 }, "payload": 1024, "observations": 1 })
    );
    assert_eq!(van["token"], "fixed");
    let listed = desk.json(&["list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[1], van);
    let shown = desk.done(&["show", "van"]);
    assert!(shown.contains("airtime per day      600 s\n"), "{shown}");

    desk.done(&["rotate", "buoy"]);
    let buoy = desk.json(&["show", "buoy", "--json"]);
    assert_eq!((&buoy["id"], &buoy["next_id"]), (&json!(""), &json!("00")));
    desk.done(&["revoke", "buoy"]);
    assert!(desk.done(&["list"]).contains("revoked"));
    desk.done(&["revoke", "buoy", "--forget"]);
    assert_eq!(desk.json(&["list", "--json"]), json!([van]));
    let all = fs::read(desk.path("devices")).unwrap();
    assert!(!all.windows(4).any(|window| window == b"syt_"));
}

#[test]
fn exports_are_the_same_keys_in_every_form() {
    let desk = Desk::new("export");
    desk.add("buoy", &["--link", "hf-100"]);
    desk.add("van", &["--security", "dtls-psk"]);
    let line = desk.done(&["export", "buoy", "--format", "line", "--gateway", "gw:5683"]);
    let buoy = Credentials::read(&line).unwrap();
    desk.done(&["export", "buoy", "--gateway", "gw:5683", "-o", "buoy.toml"]);
    assert_eq!(mode(desk.path("buoy.toml")), 0o600);
    assert_eq!(Credentials::read(&fs::read_to_string(desk.path("buoy.toml")).unwrap()).unwrap(), buoy);
    assert_eq!(Credentials::read(&desk.done(&["export", "buoy", "--gateway", "gw:5683"])).unwrap(), buoy);
    let drawn = desk.done(&["export", "buoy", "--format", "qr"]);
    assert!(drawn.lines().count() > 15 && drawn.contains('▀'));

    desk.done(&["export", "buoy", "--format", "aiocoap", "--gateway", "gw", "-o", "context"]);
    assert_eq!((mode(desk.path("context")), mode(desk.path("context/secret.json"))), (0o700, 0o600));
    let read = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(desk.path(name)).unwrap()).unwrap()
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let Half::Oscore(oscore) = &buoy.half else { panic!("no OSCORE") };
    assert_eq!(read("context/secret.json")["secret_hex"], hex(oscore.secret.expose()));
    assert_eq!(
        read("context/settings.json"),
        json!({ "algorithm": "AES-CCM-16-64-128", "kdf-hashfun": "sha256", "sender-id_hex": "", "recipient-id_hex": "00" })
    );
    assert_eq!(read("context/credentials.json")["coap://gw/*"]["oscore"]["basedir"], "context");

    let van = Credentials::read(&desk.done(&["export", "van", "--format", "line"])).unwrap();
    let Half::DtlsPsk(psk) = van.half else { panic!("no PSK") };
    let key = psk.key.expose_text().unwrap();
    let arguments = desk.done(&["export", "van", "--format", "libcoap", "--gateway", "gw"]);
    assert_eq!(arguments, format!("coap-client -m get -u 1 -k {key} coaps://gw/_matrix/client/versions\n"));
    desk.add("cart", &["--security", "dtls-psk", "--short-key"]);
    let cart = Credentials::read(&desk.done(&["export", "cart", "--format", "line"])).unwrap();
    let Half::DtlsPsk(psk) = cart.half else { panic!("no PSK") };
    assert_eq!(psk.key.expose().len(), 16);
    desk.done(&["export", "cart", "--format", "aiocoap", "--gateway", "gw", "-o", "cart"]);
    assert_eq!(
        read("cart/credentials.json")["coaps://gw/*"]["dtls"],
        json!({ "psk": { "hex": hex(psk.key.expose()) }, "client-identity": { "ascii": "2" } })
    );
}

#[test]
fn device_with_edhoc_is_exported_with_the_gateways_key_and_its_own_where_that_was_made_here() {
    let desk = Desk::new("edhoc");
    desk.add("mast", &["--security", "edhoc"]);
    let line = desk.done(&["export", "mast", "--format", "line"]);
    let mast = Credentials::read(&line).unwrap();
    desk.done(&["export", "mast", "-o", "mast.toml"]);
    assert_eq!(mode(desk.path("mast.toml")), 0o600);
    assert_eq!(Credentials::read(&fs::read_to_string(desk.path("mast.toml")).unwrap()).unwrap(), mast);
    assert!(desk.done(&["export", "mast", "--format", "qr"]).contains('▀'));
    let Half::Edhoc(half) = &mast.half else { panic!("no EDHOC") };
    let private: String =
        half.private.as_ref().unwrap().expose().iter().map(|byte| format!("{byte:02x}")).collect();
    desk.done(&["export", "mast", "--format", "aiocoap", "--gateway", "gw", "-o", "aiocoap"]);
    assert_eq!((mode(desk.path("aiocoap")), mode(desk.path("aiocoap/credentials.diag"))), (0o700, 0o600));
    let diag = fs::read_to_string(desk.path("aiocoap/credentials.diag")).unwrap();
    assert!(diag.contains(&format!("-4: h'{private}'")) && diag.contains("\"coap://gw/*\""), "{diag}");
    let shown = desk.done(&["show", "mast"]);
    assert!(shown.contains("EDHOC, key id 00") && !shown.contains(&private), "{shown}");
    let all = fs::read(desk.path("devices")).unwrap();
    assert!(!all.windows(64).any(|window| window == private.as_bytes()));

    // One that has made its key itself: by hexadecimal digits, and by a file as openssl writes it.
    let point = "04bbc34960526ea4d32e940cad2a234148ddc21791a12afbcbac93622046dd44f0\
                 4519e257236b2a0ce2023f0931f1f386ca7afda64fcde0108c224c51eabf6072";
    let pem = "-----BEGIN PUBLIC KEY-----\n\
               MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEu8NJYFJupNMulAytKiNBSN3CF5Gh\n\
               KvvLrJNiIEbdRPBFGeJXI2sqDOICPwkx8fOGynr9pk/N4BCMIkxR6r9gcg==\n\
               -----END PUBLIC KEY-----\n";
    fs::write(desk.path("hut.pem"), pem).unwrap();
    for (name, key) in [("hut", "hut.pem"), ("van", point)] {
        desk.add(name, &["--security", "edhoc", "--public-key", key]);
        let own = Credentials::read(&desk.done(&["export", name])).unwrap();
        let Half::Edhoc(half) = own.half else { panic!("no EDHOC") };
        assert!(half.private.is_none());
    }
    let refused = desk.run(&["rotate", "van"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("needs a new public one") && told.contains("hint: --public-key"), "{told}");
    desk.done(&["rotate", "van", "--public-key", &format!("02{}", &point[2..66])]);
    let refused = desk.run(&["rotate", "mast", "--public-key", "02ff"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("no public key of P-256"), "{told}");
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let desk = Desk::new("mistakes");
    desk.add("buoy", &[]);
    desk.add("van", &["--security", "dtls-psk"]);
    desk.add("cart", &["--security", "dtls-psk", "--short-key"]);
    fs::write(desk.path("routes"), "sync\nsend\n").unwrap();
    let add = |more: &[&str]| {
        let words = ["add", "new", "--user", "@buoy:hs", "--token-file", "token", "--unchecked"];
        desk.fails(&[&words, more].concat())
    };
    for (failed, code, error, hint) in [
        (desk.fails(&["show", "no"]), 1, "there is no device no", "lowband device list"),
        (desk.fails(&["rotate", "no"]), 1, "there is no device no", "lowband device list"),
        (desk.fails(&["revoke", "no"]), 1, "there is no device no", "lowband device list"),
        (desk.fails(&["export", "no"]), 1, "there is no device no", "lowband device list"),
        (desk.fails(&["show", "a b"]), 2, "is not for a device's name", ""),
        (
            desk.fails(&["add", "buoy", "--user", "@b:hs", "--allow-token"]),
            1,
            "there is a device buoy already",
            "rotate buoy",
        ),
        (desk.fails(&["add", "new", "--user", "buoy", "--allow-token"]), 1, "is no Matrix user id", ""),
        (
            desk.fails(&["add", "new", "--user", "@b:hs"]),
            2,
            "no access token",
            "--login, --token-file FILE, or --allow-token",
        ),
        (
            desk.fails(&["add", "new", "--user", "@b:hs", "--token-file", "token"]),
            2,
            "no homeserver given",
            "--homeserver URL",
        ),
        (
            desk.fails(&["add", "new", "--user", "@b:hs", "--token-file", "none", "--unchecked"]),
            1,
            "cannot read access token from none",
            "",
        ),
        (desk.fails(&["login", "buoy"]), 2, "where the token comes from", "--login, or --token-file"),
        (add(&["--link", "none"]), 2, "there is no link \"none\"", "links are"),
        (add(&["--routes", "none"]), 1, "cannot read routes from none", "messaging, all, or a file"),
        (add(&["--routes", "routes"]), 1, "routes: line 2: \"send\" is no operation", ""),
        (add(&["--requests-per-minute", "0"]), 1, "a number of requests of 0 would allow nothing", ""),
        (add(&["--airtime-per-day", "25h"]), 1, "more than a day", ""),
        (add(&["--airtime-per-day", "1d"]), 2, "unknown unit", ""),
        (
            add(&["--security", "dtls-certificate"]),
            2,
            "needs one",
            "--certificate FILE, or --fingerprint HEX",
        ),
        (add(&["--fingerprint", &"ab".repeat(32)]), 2, "is for --security dtls-certificate alone", ""),
        (
            add(&["--security", "dtls-certificate", "--certificate", "token"]),
            1,
            "there is no certificate in token",
            "PEM",
        ),
        (add(&["--security", "dtls-certificate", "--fingerprint", "ab"]), 2, "64 hexadecimal digits", ""),
        (desk.fails(&["export", "buoy", "--format", "aiocoap"]), 2, "need a directory", "-o DIRECTORY"),
        (desk.fails(&["export", "buoy", "--format", "libcoap"]), 1, "has no OSCORE", "--format aiocoap"),
        (
            desk.fails(&["export", "cart", "--format", "aiocoap", "-o", "x"]),
            2,
            "by where they are for",
            "--gateway HOST",
        ),
        (
            desk.fails(&["export", "van", "--format", "aiocoap", "-o", "x", "--gateway", "gw"]),
            1,
            "a key of 16 bytes at most",
            "--short-key",
        ),
        (
            desk.fails(&["export", "cart", "--format", "libcoap"]),
            1,
            "that is not text",
            "without --short-key",
        ),
        (add(&["--short-key"]), 2, "for --security dtls-psk alone", ""),
        (desk.fails(&["export", "buoy", "-o", "token"]), 1, "cannot write token", "nothing is written over"),
        (desk.fails(&["export", "buoy", "--gateway", "a b"]), 2, "give a host", ""),
        (
            desk.fails(&["rotate", "buoy", "--fingerprint", &"ab".repeat(32)]),
            1,
            "has no certificate, and takes none",
            "",
        ),
    ] {
        let (found, said) = failed;
        assert!(found == code && said.contains(error) && said.contains(hint), "{found} {said}");
    }
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_lowband"));
    let nowhere = nowhere.env_clear().args(["device", "list"]).output().unwrap();
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(said.contains("where the devices are") && said.contains("hint: --devices FILE"), "{said}");
}

#[test]
fn files_that_others_may_use_are_refused_in_two_lines() {
    let desk = Desk::new("modes");
    desk.add("buoy", &[]);
    for (file, others) in [("devices.key", 0o644), ("devices", 0o660)] {
        let path = desk.path(file);
        fs::set_permissions(&path, PermissionsExt::from_mode(others)).unwrap();
        let (code, said) = desk.fails(&["list"]);
        assert_eq!((code, said.lines().count()), (1, 2), "{said}");
        assert!(
            said.contains(&format!("mode {others:o}"))
                && said.ends_with(&format!("hint: chmod 600 {path}\n")),
            "{said}"
        );
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    desk.done(&["list"]);
}

#[test]
fn certificate_is_known_by_its_fingerprint() {
    let desk = Desk::new("certificate");
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tls");
    let pem = fs::read_dir(vectors)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("BEGIN CERTIFICATE")))
        .unwrap();
    desk.add("hut", &["--security", "dtls-certificate", "--certificate", pem.to_str().unwrap()]);
    let id = desk.json(&["show", "hut", "--json"])["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 64);
    let (_, said) = desk.fails(&["export", "hut"]);
    assert!(said.contains("never leaves its device"), "{said}");
    let (_, said) = desk.fails(&["rotate", "hut"]);
    assert!(said.contains("needs a new certificate") && said.contains("--certificate FILE"), "{said}");
    let (_, said) = desk.fails(&["rotate", "hut", "--fingerprint", &id]);
    assert!(said.contains("has this certificate already"), "{said}");
    desk.done(&["rotate", "hut", "--fingerprint", "CD:".repeat(32).trim_end_matches(':')]);
}

/// A gateway that runs, with the devices of a desk.
struct Gateway(Child, BufReader<std::process::ChildStderr>);

impl Gateway {
    fn start(desk: &Desk) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lowband"))
            .env_clear()
            .args(["gateway", "--homeserver", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"])
            .args([
                "--devices",
                &desk.path("devices"),
                "--state",
                &desk.path("state"),
                "--log",
                "lowband::net=info",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line}");
        Self(child, stderr)
    }

    fn logged(&mut self, what: &str) {
        let mut line = String::new();
        while self.1.read_line(&mut line).unwrap() > 0 {
            if line.contains(what) {
                return;
            }
            line.clear();
        }
        panic!("ended before it logged {what}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn gateway_that_runs_is_asked_and_told() {
    let desk = Desk::new("gateway");
    let mut gateway = Gateway::start(&desk);
    assert_eq!(mode(desk.path("devices.control")), 0o600);
    desk.add("buoy", &[]);
    gateway.logged("device changed device=buoy");
    desk.done(&["rotate", "buoy"]);
    gateway.logged("device changed device=buoy");
    assert_eq!(desk.json(&["show", "buoy", "--json"])["next_id"], "00");
    let (code, said) = desk.fails(&["rotate", "buoy"]);
    assert!(
        code == 1 && said.contains("has not used") && said.contains("hint: lowband device export buoy"),
        "{said}"
    );
    let line = desk.done(&["export", "buoy", "--format", "line"]);
    Credentials::read(&line).unwrap();
    desk.done(&["revoke", "buoy"]);
    gateway.logged("device changed device=buoy");
    drop(gateway);
    // Killed, it has left its socket behind: the file is opened, and the next gateway takes the socket's place.
    assert!(desk.0.join("devices.control").exists());
    assert!(desk.done(&["list"]).contains("revoked"));
    let _gateway = Gateway::start(&desk);
    assert!(desk.done(&["list"]).contains("revoked"));
}

#[test]
fn two_gateways_do_not_share_devices() {
    let desk = Desk::new("two");
    let _first = Gateway::start(&desk);
    let second = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .env_clear()
        .args(["gateway", "--homeserver", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"])
        .args(["--state", &desk.path("other")])
        .args(["--devices", &desk.path("devices")])
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(second.status.code() == Some(1) && said.contains("another process uses it"), "{said}");
    let third = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .env_clear()
        .args(["gateway", "--homeserver", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"])
        .args(["--state", &desk.path("other")])
        .args(["--devices", &desk.path("others"), "--control", &desk.path("devices.control")])
        .output()
        .unwrap();
    let said = String::from_utf8(third.stderr).unwrap();
    assert!(third.status.code() == Some(1) && said.contains("another gateway listens on"), "{said}");
    fs::write(desk.path("file"), "").unwrap();
    let fourth = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .env_clear()
        .args(["gateway", "--homeserver", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"])
        .args(["--state", &desk.path("other")])
        .args(["--devices", &desk.path("others"), "--control", &desk.path("file")])
        .output()
        .unwrap();
    let said = String::from_utf8(fourth.stderr).unwrap();
    assert!(said.contains("is there, and is no socket") && said.contains("hint: --control"), "{said}");
    // Nor is a socket taken away that somebody may listen on by another protocol.
    let _datagrams = std::os::unix::net::UnixDatagram::bind(desk.path("datagrams")).unwrap();
    let fifth = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .env_clear()
        .args(["gateway", "--homeserver", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"])
        .args(["--state", &desk.path("other")])
        .args(["--devices", &desk.path("others"), "--control", &desk.path("datagrams")])
        .output()
        .unwrap();
    let said = String::from_utf8(fifth.stderr).unwrap();
    assert!(said.contains("cannot use the socket") && said.contains("hint: --control"), "{said}");
    assert!(desk.0.join("datagrams").exists());
}

#[test]
fn gateway_that_says_nothing_is_told_of_and_what_it_may_have_done() {
    let desk = Desk::new("silent");
    let listener = std::os::unix::net::UnixListener::bind(desk.path("devices.control")).unwrap();
    let silent = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(stream).read_line(&mut String::new()).unwrap();
    });
    let (code, said) = desk.fails(&["list"]);
    silent.join().unwrap();
    assert!(code == 1 && said.contains("gave no answer"), "{said}");
    assert!(said.contains("hint: it may have done it all the same"), "{said}");
    assert!(!desk.0.join("devices").exists(), "the file is the gateway's");
}

#[test]
fn noise_on_the_socket_is_answered_and_changes_nothing() {
    let desk = Desk::new("noise");
    let _gateway = Gateway::start(&desk);
    desk.add("buoy", &[]);
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(desk.path("devices.control")).unwrap();
        // It may have answered before all is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for noise in
        [&b""[..], b"\n", b"{}\n", b"\"list\"", b"\xff\xfe\n", b"{\"show\":{\"name\":\"../x\"}}\n", b"[[[[\n"]
    {
        let answer: Value = serde_json::from_str(&say(noise)).unwrap();
        let error = answer["failed"]["error"].as_str().unwrap();
        assert!(
            ["the command is not understood", "the command is not one whole line"].contains(&error),
            "{error}"
        );
    }
    let endless = say(&vec![b'['; 300 << 10]);
    assert!(endless.is_empty() || endless.contains("not one whole line"), "{endless}");
    // Those that say nothing keep nobody else from being served.
    let _silent: Vec<_> =
        (0..6).map(|_| UnixStream::connect(desk.path("devices.control")).unwrap()).collect();
    let answer: Value = serde_json::from_str(&say(b"\"list\"\n")).unwrap();
    assert_eq!(answer["devices"].as_array().unwrap().len(), 1);
}
