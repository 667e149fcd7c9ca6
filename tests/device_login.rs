//! `lowband device add --login` and `login`: with a password at the minimal homeserver, by OAuth 2.0 at a scripted one.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use lowband::homeserver;
use serde_json::Value;
use serde_json::json;

/// A directory of its own, and what it takes to run the command there.
struct Desk(PathBuf);

impl Desk {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowband-login-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Exit code and what it says.
    fn run(&self, homeserver: &str, words: &[&str], input: &str) -> (i32, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lowband"))
            .env_clear()
            .env("LOWBAND_DEVICES", self.0.join("devices"))
            .env("LOWBAND_HOMESERVER", homeserver)
            .arg("device")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have failed before it read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn show(&self, name: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_lowband"))
            .env_clear()
            .env("LOWBAND_DEVICES", self.0.join("devices"))
            .args(["device", "show", name, "--json"])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The minimal homeserver, in a runtime of its own, with a user `@buoy:localhost` whose password is `horse`.
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
        let homeserver = Self { server, _runtime: runtime };
        for user in ["buoy", "other"] {
            homeserver.post(
                "register",
                &json!({ "username": user, "password": "horse", "auth": { "type": "m.login.dummy" } }),
            );
        }
        homeserver
    }

    fn url(&self) -> String {
        self.server.url()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        write!(
            stream,
            "POST /_matrix/client/v3/{path} HTTP/1.1\r\nHost: hs\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(&answer[answer.find("\r\n\r\n").unwrap()..])
            .unwrap_or_else(|_| panic!("{answer}"))
    }

    fn token_of(&self, user: &str) -> String {
        let answer =
            self.post("login", &json!({ "type": "m.login.password", "user": user, "password": "horse" }));
        answer["access_token"].as_str().unwrap().to_owned()
    }
}

#[test]
fn password_logs_a_device_in_as_its_user() {
    let (desk, homeserver) = (Desk::new("password"), Homeserver::start());
    let add = ["add", "buoy", "--user", "@buoy:localhost", "--login", "--password-file", "-"];
    let (code, said) = desk.run(&homeserver.url(), &add, "horse\n");
    assert_eq!(code, 0, "{said}");
    assert_eq!(desk.show("buoy")["token"], "renewed");
    // The password is nowhere, and the token is sealed.
    let file = fs::read(desk.0.join("devices")).unwrap();
    for word in ["horse", "syt_", "buoy:localhost"] {
        assert!(!file.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
    }
    let again = ["login", "buoy", "--login=password", "--password-file", "-"];
    let (code, said) = desk.run(&homeserver.url(), &again, "horse");
    assert!(code == 0 && said == "device buoy has another access token\n", "{said}");
}

#[test]
fn what_goes_wrong_with_a_password_is_told() {
    let (desk, homeserver) = (Desk::new("wrong"), Homeserver::start());
    let add = |user: &str, way: &str, input: &str| {
        desk.run(&homeserver.url(), &["add", "buoy", "--user", user, way, "--password-file", "-"], input)
    };
    for ((code, said), error, hint) in [
        (
            add("@buoy:localhost", "--login", "wrong"),
            "refuses: HTTP 403, M_FORBIDDEN: user or password is wrong",
            "user and password",
        ),
        (
            add("@buoy:localhost", "--login", "\n"),
            "there is no password in standard input",
            "it is the first line",
        ),
        (
            add("@buoy:localhost", "--login=oauth", "horse"),
            "offers no OAuth 2.0 device authorization",
            "--login=password",
        ),
    ] {
        assert!(code == 1 && said.contains(error) && said.contains(&format!("hint: {hint}")), "{said}");
    }
    let add = ["add", "buoy", "--user", "@buoy:localhost", "--login", "--password-file", "-"];
    let (code, said) = desk.run("http://127.0.0.1:9", &add, "horse");
    assert!(
        code == 1 && said.contains("http://127.0.0.1:9/_matrix/client/v1/auth_metadata does not answer"),
        "{said}"
    );
    let (code, said) = desk.run("ftp://hs", &add, "horse");
    assert!(code == 2 && said.contains("neither an http: nor an https: URL"), "{said}");
    assert!(!desk.0.join("devices.key").exists());
}

#[test]
fn nobody_logs_in_for_a_device_that_cannot_be() {
    let (desk, homeserver) = (Desk::new("before"), Homeserver::start());
    let add = ["add", "buoy", "--user", "@buoy:localhost", "--login", "--password-file", "-"];
    assert_eq!(desk.run(&homeserver.url(), &add, "horse\n").0, 0);
    // Nothing is asked of a homeserver that is not there.
    let (code, said) = desk.run("http://127.0.0.1:9", &add, "horse\n");
    assert!(code == 1 && said.contains("there is a device buoy already"), "{said}");
    fs::remove_file(desk.0.join("devices.key")).unwrap();
    let (code, said) = desk.run("http://127.0.0.1:9", &add, "horse\n");
    assert!(code == 1 && said.contains("is missing"), "{said}");
}

#[test]
fn token_of_somebody_else_is_refused() {
    let (desk, homeserver) = (Desk::new("token"), Homeserver::start());
    let add = ["add", "buoy", "--user", "@buoy:localhost", "--token-file", "-"];
    let (code, said) = desk.run(&homeserver.url(), &add, &homeserver.token_of("other"));
    assert!(code == 1 && said.contains("is @other:localhost's, and not @buoy:localhost's"), "{said}");
    let (code, said) = desk.run(&homeserver.url(), &add, "syt_unknown");
    assert!(
        code == 1 && said.contains("HTTP 401, M_UNKNOWN_TOKEN") && !said.contains("syt_unknown"),
        "{said}"
    );
    let (code, said) = desk.run(&homeserver.url(), &add, "a\u{1}b");
    assert!(code == 1 && said.contains("characters that no token has"), "{said}");
    let (code, said) = desk.run(&homeserver.url(), &add, &homeserver.token_of("buoy"));
    assert_eq!(code, 0, "{said}");
}

/// A homeserver that answers what it was told to, one after the other, and remembers what it was asked.
struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Scripted {
    /// `answers`: method and path that are expected, the status, and the body; `URL` in it is the server's own.
    fn start(answers: &[(&str, u16, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut answers: VecDeque<_> = answers
            .iter()
            .map(|(path, status, body)| ((*path).to_owned(), *status, body.to_string().replace("URL", &url)))
            .collect();
        let log = asked.clone();
        std::thread::spawn(move || {
            while let Some((path, status, body)) = answers.pop_front() {
                let Ok((stream, _)) = listener.accept() else { return };
                let (line, request) = receive(&stream);
                let (status, body) = match line == path {
                    true => (status, body),
                    false => (500, json!({ "error": format!("expected {path}, got {line}") }).to_string()),
                };
                log.lock().unwrap().push((line, request));
                let _ = write!(
                    &stream,
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { url, asked }
    }

    fn bodies(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}

fn receive(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim_end().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let line = first.rsplit_once(' ').unwrap().0.to_owned();
    (line, String::from_utf8(body).unwrap())
}

fn metadata() -> (&'static str, u16, Value) {
    let metadata = json!({
        "issuer": "URL/",
        "registration_endpoint": "URL/register",
        "device_authorization_endpoint": "URL/device",
        "token_endpoint": "URL/token",
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
    });
    ("GET /_matrix/client/v1/auth_metadata", 200, metadata)
}

fn until_code() -> Vec<(&'static str, u16, Value)> {
    let device = json!({
        "device_code": "secret-device-code", "user_code": "WDJB-MJHT", "expires_in": 600, "interval": 1,
        "verification_uri": "URL/link", "verification_uri_complete": "URL/link?code=WDJB-MJHT",
    });
    vec![
        metadata(),
        ("GET /_matrix/client/v3/login", 200, json!({ "flows": [{ "type": "m.login.sso" }] })),
        ("POST /register", 201, json!({ "client_id": "client-7" })),
        ("POST /device", 200, device),
    ]
}

const ADD: [&str; 5] = ["add", "buoy", "--user", "@buoy:hs", "--login"];

#[test]
fn browser_elsewhere_allows_a_device() {
    let desk = Desk::new("oauth");
    let mut script = until_code();
    script.push(("POST /token", 400, json!({ "error": "authorization_pending" })));
    let tokens = json!({ "access_token": "mat_a", "refresh_token": "mar_r", "token_type": "Bearer", "expires_in": 300 });
    script.push(("POST /token", 200, tokens));
    script.push((
        "GET /_matrix/client/v3/account/whoami",
        200,
        json!({ "user_id": "@buoy:hs", "device_id": "X" }),
    ));
    let server = Scripted::start(&script);
    let (code, said) = desk.run(&server.url, &ADD, "");
    assert_eq!(code, 0, "{said}");
    let prompt = format!(
        "open {}/link?code=WDJB-MJHT within 10 minutes, and allow the device if the code there is WDJB-MJHT\n",
        server.url
    );
    assert!(said.starts_with(&prompt), "{said}");
    assert!(!said.contains("secret-device-code") && !said.contains("mat_a"), "{said}");
    let bodies = server.bodies();
    let client: Value = serde_json::from_str(&bodies[2]).unwrap();
    assert_eq!(client["token_endpoint_auth_method"], "none");
    assert_eq!(
        client["grant_types"],
        json!(["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"])
    );
    let scope = bodies[3]
        .strip_prefix(
            "client_id=client-7&scope=urn%3Amatrix%3Aclient%3Aapi%3A%2A%20urn%3Amatrix%3Aclient%3Adevice%3A",
        )
        .unwrap();
    assert!(scope.len() == 10 && scope.bytes().all(|byte| byte.is_ascii_uppercase()), "{scope}");
    assert_eq!(
        bodies[4],
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=secret-device-code&client_id=client-7"
    );
    let shown = desk.show("buoy");
    assert_eq!(shown["token"], "renewed");
    assert!(shown["token_expires"].as_u64().unwrap() > shown["created"].as_u64().unwrap());
}

#[test]
fn what_a_browser_refuses_is_told() {
    for (error, told) in [
        ("access_denied", "it was not allowed"),
        ("expired_token", "nobody has allowed the device in time"),
        ("invalid_client", "HTTP 400, invalid_client"),
    ] {
        let desk = Desk::new(error);
        let mut script = until_code();
        script.push(("POST /token", 400, json!({ "error": error })));
        let server = Scripted::start(&script);
        let (code, said) = desk.run(&server.url, &ADD, "");
        assert!(code == 1 && said.contains(told), "{said}");
        assert!(!desk.0.join("devices.key").exists());
    }
}

#[test]
fn what_would_do_something_to_the_terminal_is_not_shown_on_it() {
    let desk = Desk::new("terminal");
    let mut script = until_code();
    script[3].2["verification_uri"] = json!("URL/link\u{1b}[2J");
    let server = Scripted::start(&script);
    let (code, said) = desk.run(&server.url, &ADD, "");
    assert!(code == 1 && said.contains("/device is none that is understood"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn token_of_another_user_from_a_browser_is_refused() {
    let desk = Desk::new("oauth-other");
    let mut script = until_code();
    script.push(("POST /token", 200, json!({ "access_token": "mat_a", "expires_in": 300 })));
    script.push(("GET /_matrix/client/v3/account/whoami", 200, json!({ "user_id": "@other:hs" })));
    let server = Scripted::start(&script);
    let (code, said) = desk.run(&server.url, &ADD, "");
    assert!(
        code == 1 && said.contains("is @other:hs's, and not @buoy:hs's") && said.contains("--user @other:hs"),
        "{said}"
    );
}

#[test]
fn server_without_device_authorization_is_logged_in_at_with_a_password() {
    let desk = Desk::new("fallback");
    let server = Scripted::start(&[
        ("GET /_matrix/client/v1/auth_metadata", 200, json!({ "token_endpoint": "URL/token" })),
        ("GET /_matrix/client/v3/login", 200, json!({ "flows": [{ "type": "m.login.password" }] })),
        (
            "POST /_matrix/client/v3/login",
            200,
            json!({ "access_token": "syt_a", "refresh_token": "syr_r", "expires_in_ms": 300_000 }),
        ),
        ("GET /_matrix/client/v3/account/whoami", 200, json!({ "user_id": "@buoy:hs" })),
    ]);
    let (code, said) = desk.run(&server.url, &[&ADD[..], &["--password-file", "-"]].concat(), "horse\n");
    assert_eq!(code, 0, "{said}");
    let login: Value = serde_json::from_str(&server.bodies()[2]).unwrap();
    assert_eq!(login["refresh_token"], true);
    assert_eq!(login["initial_device_display_name"], "buoy (lowband)");
    assert_eq!(login["identifier"], json!({ "type": "m.id.user", "user": "@buoy:hs" }));
    assert_eq!(desk.show("buoy")["token"], "renewed");
}

#[test]
fn what_is_no_homeserver_is_told() {
    let desk = Desk::new("none");
    let not_found = |path| (path, 404, json!({ "errcode": "M_UNRECOGNIZED" }));
    let server = Scripted::start(&[
        not_found("GET /_matrix/client/v1/auth_metadata"),
        ("GET /_matrix/client/v3/login", 200, json!("hello")),
    ]);
    let (code, said) = desk.run(&server.url, &ADD, "");
    assert!(
        code == 1 && said.contains("is none that is understood") && said.contains("no homeserver"),
        "{said}"
    );
    let server = Scripted::start(&[
        not_found("GET /_matrix/client/v1/auth_metadata"),
        ("GET /_matrix/client/v3/login", 200, json!({ "flows": [] })),
    ]);
    let (code, said) = desk.run(&server.url, &ADD, "");
    assert!(
        code == 1 && said.contains("offers no login with a password") && said.contains("--token-file"),
        "{said}"
    );
}
