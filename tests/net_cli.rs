//! `lowband gateway` and `lowband request` as people run them: processes, output, exit codes and signals.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "processes run in real time")]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Child;
use std::process::ChildStderr;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use lowband::homeserver;
use serde_json::Value;
use serde_json::json;

fn lowband() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowband"));
    command.env_clear();
    command
}

/// A gateway process; ended with the test whatever happens.
struct Gateway {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// `coap://ADDRESS`, as it said itself.
    urls: Vec<String>,
}

impl Gateway {
    fn start(homeserver: &str, flags: &[&str]) -> Self {
        let listen = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
        let mut child = lowband()
            .args(["gateway", "--homeserver", homeserver, "--insecure-coap", "--log-format", "json"])
            .args(listen)
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut gateway =
            Self { stderr: BufReader::new(child.stderr.take().unwrap()), child, urls: Vec::new() };
        for _ in 0..2 {
            let line = gateway.line();
            gateway
                .urls
                .push(line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned());
        }
        gateway
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The first logged line whose message is this.
    fn logged(&mut self, message: &str) -> Value {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "ended before it logged {message}");
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            if event["message"] == message {
                return event;
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn end(&mut self, within: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < within {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still running after {within:?}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(arguments: &[&str]) -> Output {
    lowband().arg("request").args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A homeserver in a runtime of its own, so that a test can wait for processes.
struct Homeserver {
    server: homeserver::Server,
    _runtime: tokio::runtime::Runtime,
}

impl Homeserver {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let server =
            runtime.block_on(homeserver::Server::bind(address, homeserver::Config::default())).unwrap();
        Self { server, _runtime: runtime }
    }

    fn url(&self) -> String {
        self.server.url()
    }
}

fn register(url: &str, name: &str) -> String {
    let body = json!({ "username": name, "password": "p", "auth": { "type": "m.login.dummy" } }).to_string();
    let output = request(&["POST", &format!("{url}/_matrix/client/v3/register"), "-d", &body]);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn a_gateway_and_its_peers_speak_on_the_terms_of_the_same_link() {
    let homeserver = Homeserver::start();
    let path = std::env::temp_dir().join(format!("lowband-{}-net-link.toml", std::process::id()));
    std::fs::write(&path, "[link.fast]\nlike = \"hf-100\"\nspeed = 100\n").unwrap();
    let config = path.to_str().unwrap();
    let mut gateway =
        Gateway::start(&homeserver.url(), &["--config", config, "--listen", "127.0.0.2:0=fast"]);
    let url = gateway.line().strip_prefix("listening on ").unwrap().to_owned();
    let logged = [(); 3].map(|()| gateway.logged("timing by link"));
    let links: Vec<_> = logged.iter().map(|event| event["link"].as_str().unwrap()).collect();
    assert_eq!(links, ["lan", "lan", "fast"]);
    assert_eq!((&logged[2]["block"], &logged[2]["ack_timeout"]), (&json!(256), &json!("110ms")));

    let versions = format!("{url}/_matrix/client/versions");
    let over_link = ["--link", "hf-100", "--link-speed", "100", "--json"];
    let answer = request(&[&["GET", &versions], &over_link[..]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));

    // A link of one's own is in a file.
    let own = lowband()
        .args(["request", "GET", &versions, "--link", "fast"])
        .env("LOWBAND_CONFIG", config)
        .output()
        .unwrap();
    assert_eq!(own.status.code(), Some(0), "{}", stderr(&own));
    let own = request(&["GET", &versions, "--link", "fast", "--config", config]);
    assert_eq!(own.status.code(), Some(0), "{}", stderr(&own));
    std::fs::remove_file(&path).unwrap();

    // On an address without such a link the peer says which one it is.
    let versions = format!("{}/_matrix/client/versions", gateway.urls[0]);
    let answer = request(&["GET", &versions, "--link", "geo-600ms", "--announce-link"]);
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
    let unknown = request(&["GET", &versions, "--link", "no-such"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", stderr(&unknown));
}

#[test]
fn a_call_prints_json_and_its_exit_code_says_how_it_went() {
    let homeserver = Homeserver::start();
    let gateway = Gateway::start(&homeserver.url(), &[]);
    for url in &gateway.urls {
        let versions = request(&["get", &format!("{url}/_matrix/client/versions")]);
        assert_eq!(versions.status.code(), Some(0), "{}", stderr(&versions));
        assert!(stdout(&versions)["versions"].is_array());
        assert!(versions.stderr.is_empty(), "{}", stderr(&versions));
    }
    let url = &gateway.urls[0];

    // Short, as `lowband inspect` shows it, and in full.
    for path in ["/7?since=s1", "/_matrix/client/v3/sync?since=s1"] {
        let shown = request(&["GET", &format!("{url}{path}"), "-v"]);
        assert!(stderr(&shown).contains("Uri-Path \"7\", Uri-Query \"since=s1\""), "{}", stderr(&shown));
    }

    let unknown = request(&["GET", &format!("{url}/_matrix/client/v3/account/whoami")]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(
        stdout(&unknown)["errcode"],
        "M_MISSING_TOKEN",
        "the body of an error is printed all the same"
    );
    assert!(
        stderr(&unknown).starts_with("error: 4.01 Unauthorized (HTTP 401 Unauthorized)\nhint: --token"),
        "{}",
        stderr(&unknown)
    );

    let whole = request(&["GET", &format!("{url}/_matrix/client/versions"), "--json"]);
    let whole = stdout(&whole);
    assert_eq!((&whole["code"], &whole["status"]), (&json!("2.05"), &json!(200)), "{whole}");
    assert!(whole["traffic"]["received_bytes"].as_u64().unwrap() > 50, "{whole}");

    for (arguments, why) in [
        (vec!["PATCH", "coap://127.0.0.1/"], "use GET, POST, PUT or DELETE"),
        (vec!["GET", "http://127.0.0.1/"], "is not CoAP"),
        (
            vec!["PUT", "coap://127.0.0.1/_matrix/client/v3/x", "-d", "{\"a\":1,}"],
            "hint: look at line 1, column 8",
        ),
        (vec!["PUT", "coap://127.0.0.1/_matrix/client/v3/x", "-d", "@/nonexistent"], "No such file"),
        (
            vec!["PUT", "coap://127.0.0.1/_matrix/client/v3/x", "-d", "@/nonexistent"],
            "hint: @ is followed by",
        ),
        (
            vec!["GET", "coap://127.0.0.1/index.html"],
            "hint: a path begins with /_matrix/, or with a path code",
        ),
        (vec!["GET", "coap://127.0.0.1/-"], "hint: a path begins with /_matrix/, or with a path code"),
        (
            vec!["GET", "coap://127.0.0.1/7", "--link", "harbour"],
            "others are tables [link.NAME] of the --config file",
        ),
        (
            vec!["GET", "coaps://127.0.0.1/7"],
            "hint: --credentials FILE, --pin FINGERPRINT, or --psk-identity",
        ),
        (vec!["GET", "coap://127.0.0.1/7", "--dictionary", "x"], "hint: --profile packed has one"),
        (vec!["GET", "coap://127.0.0.1/7", "--block", "100"], "1024"),
        (vec!["GET", "coap://127.0.0.1/7", "--count", "1"], "--observe"),
        (vec!["GET", "coap://127.0.0.1/7", "--observe", "--renew", "0"], "give a second at least"),
    ] {
        let output = request(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_call_by_the_packed_profile_is_answered_the_same() {
    let homeserver = Homeserver::start();
    let gateway = Gateway::start(&homeserver.url(), &[]);
    let url = format!("{}/_matrix/client", gateway.urls[0]);
    let versions = request(&["GET", &format!("{url}/versions"), "--profile", "packed", "-v"]);
    assert_eq!(versions.status.code(), Some(0), "{}", stderr(&versions));
    assert_eq!(stdout(&versions), stdout(&request(&["GET", &format!("{url}/versions")])));
    assert!(stderr(&versions).contains("0.05 FETCH"), "{}", stderr(&versions));
    let token = register(&gateway.urls[0], "alice");
    let sync = format!("{url}/v3/sync?timeout=0");
    let observed = ["--observe", "--count", "2", "--profile", "packed", "--token", &token];
    let mut observer = lowband()
        .args(["request", "GET", &sync])
        .args(observed)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(observer.stdout.take().unwrap()).lines();
    let position = |line: &str| {
        let answer: Value = serde_json::from_str(line).unwrap();
        answer["next_batch"].as_str().unwrap().to_owned()
    };
    let first = position(&lines.next().unwrap().unwrap());
    let room = ["POST", &format!("{url}/v3/createRoom"), "--token", &token, "-d", "{}"];
    assert_eq!(request(&room).status.code(), Some(0));
    let second = lines.next().unwrap().unwrap();
    assert!(first.starts_with("lb") && position(&second).starts_with("lb"), "{first} {second}");
    assert!(second.contains("m.room.create"), "{second}");
    assert_eq!(observer.wait().unwrap().code(), Some(0));
}

#[test]
fn who_has_the_gateways_own_dictionary_speaks_packed_by_it_and_others_by_the_compatible_profile() {
    let directory = std::env::temp_dir().join(format!("lowband-net-dictionary-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (recorded, own) = (directory.join("recorded.jsonl"), directory.join("own"));
    let asked =
        r#"{"method":"GET","path":"/_matrix/client/versions","status":200,"resp":{"versions":["v1.1"]}}"#;
    std::fs::write(&recorded, format!("{asked}\n{asked}\n")).unwrap();
    let (recorded, own) = (recorded.to_str().unwrap(), own.to_str().unwrap());
    let trained = lowband().args(["dictionary", "train", recorded, "-o", own]).output().unwrap();
    assert_eq!(trained.status.code(), Some(0), "{}", stderr(&trained));
    let report = String::from_utf8(trained.stdout).unwrap();
    assert!(report.contains("GET /_matrix/client/versions"), "{report}");
    let again = lowband().args(["dictionary", "train", recorded, "-o", own]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("is there already") && stderr(&again).contains("hint: --force"));

    let homeserver = Homeserver::start();
    let gateway = Gateway::start(&homeserver.url(), &["--dictionary", own]);
    let versions = format!("{}/_matrix/client/versions", gateway.urls[0]);
    let packed = ["request", "GET", &versions, "--profile", "packed", "-v"];
    let by_it = lowband().args(packed).args(["--dictionary", own]).output().unwrap();
    assert_eq!(by_it.status.code(), Some(0), "{}", stderr(&by_it));
    assert!(stderr(&by_it).contains("0.05 FETCH") && !stderr(&by_it).contains("compatible"));
    let other = lowband().args(packed).output().unwrap();
    assert_eq!((other.status.code(), stdout(&other)), (Some(0), stdout(&by_it)));
    let said = "does not speak the packed profile with us (the tables and the dictionary here are ";
    assert!(stderr(&other).contains(said), "{}", stderr(&other));

    let gateway = Gateway::start(&homeserver.url(), &["--dictionary", &format!("{own},built-in")]);
    let versions = format!("{}/_matrix/client/versions", gateway.urls[0]);
    // The built-in one would do too; its model takes long where nothing is optimised.
    let packed = ["request", "GET", &versions, "--profile", "packed", "--dictionary", own, "-v"];
    let answered = lowband().args(packed).output().unwrap();
    assert_eq!(answered.status.code(), Some(0), "{}", stderr(&answered));
    assert!(stderr(&answered).contains("0.05 FETCH"), "{}", stderr(&answered));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn nobody_there_and_no_answer_in_time_are_told_apart_from_error_answers() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("coap://{}/_matrix/client/versions", silent.local_addr().unwrap());
    let late = request(&["GET", &url, "--timeout", "0.2"]);
    assert_eq!(late.status.code(), Some(3));
    assert!(stderr(&late).contains("in 0.2 s"), "{}", stderr(&late));
    drop(silent);
    let refused = request(&["GET", &url]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("hint: is the gateway running"), "{}", stderr(&refused));
    let unknown = request(&["GET", "coap://name.invalid/_matrix/client/versions"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(stderr(&unknown).contains("cannot find name.invalid"), "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("hint: a name that this system resolves"), "{}", stderr(&unknown));
}

#[test]
fn a_link_that_lets_nothing_leave_yet_is_told_at_once_and_not_waited_for() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("coap://{}/_matrix/client/versions", silent.local_addr().unwrap());
    for observe in [&[][..], &["--observe"]] {
        let start = Instant::now();
        let arguments = [&["GET", &url, "--timeout", "0.5", "--link", "lora-sf12"], observe].concat();
        let late = request(&arguments);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(late.status.code(), Some(3));
        let told = stderr(&late);
        let lines: Vec<_> = told.lines().collect();
        let link = "on lora-sf12 (duty cycle 1 %) the first datagram may leave";
        assert!(lines[0].starts_with(&format!("waiting: {link} in ")), "{told}");
        assert!(lines[1].starts_with(&format!("error: nothing was sent in 0.5 s: {link} after ")), "{told}");
        assert_eq!(lines[2], "hint: a longer --timeout");
        assert!(silent.recv(&mut [0; 16]).is_err(), "nothing is sent afterwards either");
    }
}

#[test]
fn verbose_shows_each_datagram_on_one_line_without_the_token() {
    let homeserver = Homeserver::start();
    let gateway = Gateway::start(&homeserver.url(), &[]);
    let token = register(&gateway.urls[0], "alice");
    let whoami = format!("{}/_matrix/client/v3/account/whoami", gateway.urls[0]);
    let output = request(&["GET", &whoami, "--token", &token, "-v"]);
    let lines = stderr(&output);
    assert!(!lines.contains(&token), "{lines}");
    let lines: Vec<_> = lines.lines().collect();
    assert!(
        lines[0].starts_with("> ") && lines[0].contains("CON 0.01 GET id ") && lines[0].contains("Uri-Path"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("< ") && lines[1].contains("ACK 2.05 Content id "), "{lines:?}");
    assert!(lines[0].ends_with(" bytes") && lines[1].ends_with(" bytes"), "{lines:?}");
    assert!(lines[2].starts_with("sent 1 datagrams, "), "{lines:?}");
}

#[test]
fn an_observer_prints_a_message_within_a_second_of_its_being_sent() {
    let homeserver = Homeserver::start();
    let mut gateway = Gateway::start(&homeserver.url(), &[]);
    let url = gateway.urls[0].clone();
    let token = register(&url, "alice");
    let room =
        request(&["POST", &format!("{url}/_matrix/client/v3/createRoom"), "-d", "{}", "--token", &token]);
    let room = stdout(&room)["room_id"].as_str().unwrap().to_owned();

    let sync = format!("{url}/_matrix/client/v3/sync?timeout=30000");
    let mut observer = lowband()
        .args(["request", "GET", &sync, "--observe", "--count", "2"])
        .env("LOWBAND_TOKEN", &token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(observer.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(first["rooms"]["join"][&room].is_object(), "{first}");

    let send = format!("{url}/_matrix/client/v3/rooms/{room}/send/m.room.message/t1");
    let body = json!({ "msgtype": "m.text", "body": "grüße\n" }).to_string();
    let mut sender = lowband()
        .args(["request", "PUT", &send, "-d", "-", "--token", &token, "--block", "16"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    sender.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    assert!(sender.wait().unwrap().success());
    let sent = Instant::now();
    let second: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
    assert_eq!(second["rooms"]["join"][&room]["timeline"]["events"][0]["content"]["body"], "grüße\n");
    assert!(observer.wait().unwrap().success(), "it ends after --count answers");

    gateway.signal("TERM");
    let counters = gateway.logged("counters");
    let counters: Value = serde_json::from_str(counters["counters"].as_str().unwrap()).unwrap();
    assert_eq!(counters["gateway"]["observations"], 0, "the observer has deregistered: {counters}");
    assert_eq!(gateway.end(Duration::from_secs(10)), Some(0));
}

#[test]
fn an_observer_deregisters_at_ctrl_c() {
    let homeserver = Homeserver::start();
    let mut gateway = Gateway::start(&homeserver.url(), &[]);
    let token = register(&gateway.urls[0], "alice");
    let sync = format!("{}/_matrix/client/v3/sync?timeout=30000", gateway.urls[0]);
    let mut observer = lowband()
        .args(["request", "GET", &sync, "--observe", "--token", &token])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(observer.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let interrupted = Command::new("kill").args(["-s", "INT", &observer.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(observer.wait().unwrap().code(), Some(0));
    gateway.signal("TERM");
    let counters = gateway.logged("counters");
    let counters: Value = serde_json::from_str(counters["counters"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&counters["gateway"]["registrations"], &counters["gateway"]["observations"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn an_observer_goes_on_after_its_gateway_was_stopped_and_after_it_was_killed() {
    let homeserver = Homeserver::start();
    let port = std::net::UdpSocket::bind("127.0.0.3:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.3:{port}");
    let start = || {
        let mut gateway = Gateway::start(&homeserver.url(), &["--listen", &listen]);
        assert_eq!(gateway.line(), format!("listening on coap://{listen}"));
        gateway
    };
    let mut gateway = start();
    let url = format!("coap://{listen}");
    let token = register(&url, "alice");
    let room =
        request(&["POST", &format!("{url}/_matrix/client/v3/createRoom"), "-d", "{}", "--token", &token]);
    let room = stdout(&room)["room_id"].as_str().unwrap().to_owned();
    let mut observer = lowband()
        .args([
            "request",
            "GET",
            &format!("{url}/7?timeout=30000"),
            "--observe",
            "--count",
            "3",
            "--renew",
            "1",
        ])
        .env("LOWBAND_TOKEN", &token)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(observer.stdout.take().unwrap()).lines();
    let mut told = BufReader::new(observer.stderr.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert!(next()["rooms"]["join"][&room].is_object());
    let say = |text: &str| {
        let send = format!("{url}/_matrix/client/v3/rooms/{room}/send/m.room.message/{text}");
        let body = json!({ "msgtype": "m.text", "body": text }).to_string();
        let sent = request(&["PUT", &send, "-d", &body, "--token", &token]);
        assert!(sent.status.success(), "{}", stderr(&sent));
    };

    gateway.signal("TERM");
    assert_eq!(told.next().unwrap().unwrap(), "registering again in 2 s: the gateway stops");
    assert_eq!(gateway.end(Duration::from_secs(10)), Some(0));
    gateway = start();
    say("stopped");
    assert_eq!(next()["rooms"]["join"][&room]["timeline"]["events"][0]["content"]["body"], "stopped");

    gateway.signal("KILL");
    gateway.end(Duration::from_secs(10));
    let _gateway = start();
    say("killed");
    assert_eq!(next()["rooms"]["join"][&room]["timeline"]["events"][0]["content"]["body"], "killed");
    assert!(observer.wait().unwrap().success(), "{:?}", told.collect::<Vec<_>>());
}

#[test]
fn the_homeserver_is_looked_at_once_and_only_warned_of() {
    let homeserver = Homeserver::start();
    let mut with = Gateway::start(&homeserver.url(), &[]);
    assert!(with.logged("homeserver answers")["newest"].is_string());
    let mut without = Gateway::start("http://127.0.0.1:9", &[]);
    let warning = without.logged("homeserver does not answer yet");
    assert_eq!(warning["level"], "WARN");
    without.signal("INT");
    assert_eq!(without.end(Duration::from_secs(5)), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    // Accepts and never answers, so that a call stays in flight.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut gateway = Gateway::start(&url, &["--shutdown-grace", "1h"]);
    let versions = format!("{}/_matrix/client/versions", gateway.urls[0]);
    let mut waiting = lowband().args(["request", "GET", &versions]).stderr(Stdio::null()).spawn().unwrap();
    // The check at the start is one connection, the request is another.
    let connections: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
    gateway.signal("TERM");
    gateway.logged("stopping: no more requests are taken");
    std::thread::sleep(Duration::from_millis(200));
    assert!(gateway.child.try_wait().unwrap().is_none(), "it waits for the answer");
    gateway.signal("TERM");
    assert_eq!(gateway.end(Duration::from_secs(2)), Some(1));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    drop(connections);
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut gateway = Gateway::start(&url, &["--shutdown-grace", "1s"]);
    let versions = format!("{}/_matrix/client/versions", gateway.urls[0]);
    let mut waiting = lowband().args(["request", "GET", &versions]).stderr(Stdio::null()).spawn().unwrap();
    let connections: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
    let id = gateway.child.id();
    let twice = Command::new("sh").args(["-c", &format!("kill -TERM {id}; kill -INT {id}")]).status();
    assert!(twice.unwrap().success());
    let warning = gateway.logged("stopped before the homeserver had answered");
    assert_eq!((&warning["grace"], &warning["calls"]), (&json!("1s"), &json!(1)));
    assert_eq!(gateway.end(Duration::from_secs(2)), Some(0));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    drop(connections);
}

#[test]
fn an_address_in_use_is_an_error_with_a_hint() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = lowband()
        .args(["gateway", "--homeserver", "http://127.0.0.1:9", "--insecure-coap", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "error: cannot bind {address}: Address already in use (os error 98)\nhint: another lowband may be running on it; try another --listen\n"
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn a_state_file_that_cannot_be_used_is_an_error_with_a_hint() {
    let directory = std::env::temp_dir();
    let absent = directory.join(format!("lowband-{}-no-directory/state", std::process::id()));
    for (path, hint) in [
        (absent.to_str().unwrap(), "hint: the directory must exist and be writable by the gateway's user\n"),
        (directory.to_str().unwrap(), "hint: name a file; it is made where there is none\n"),
    ] {
        let flags =
            ["gateway", "--homeserver", "http://127.0.0.1:9", "--insecure-coap", "--listen", "127.0.0.1:0"];
        let output = lowband().args(flags).args(["--state", path]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        assert!(told.contains("error: cannot use the state in ") && told.ends_with(hint), "{told}");
    }
}

#[test]
fn the_log_has_no_token_at_any_level() {
    let homeserver = Homeserver::start();
    let mut gateway = Gateway::start(&homeserver.url(), &["--log", "trace"]);
    let token = register(&gateway.urls[0], "alice");
    let whoami = format!("{}/_matrix/client/v3/account/whoami", gateway.urls[0]);
    assert!(request(&["GET", &whoami, "--token", &token]).status.success());
    gateway.signal("TERM");
    let mut log = String::new();
    std::io::Read::read_to_string(&mut gateway.stderr, &mut log).unwrap();
    assert!(log.contains("counters"));
    assert!(!log.contains(&token), "{}", log.lines().find(|line| line.contains(&token)).unwrap());
}
