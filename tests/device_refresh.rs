//! A device's access token kept alive at the minimal homeserver, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use lowband::coap::Instant;
use lowband::device::Authorization;
use lowband::device::Output;
use lowband::device::Refresher;
use lowband::device::Renewal;
use lowband::device::Secret;
use lowband::device::Tokens;
use lowband::device::Verdict;
use lowband::homeserver::Config;
use lowband::homeserver::Homeserver;
use lowband::homeserver::Outcome;
use lowband::homeserver::Request;
use serde_json::Value;
use serde_json::json;

struct World {
    homeserver: Homeserver,
    now_ms: u64,
}

impl World {
    fn ask(&mut self, method: &str, path: &str, token: Option<&str>, body: Bytes) -> (u16, Value) {
        let request = Request {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            query: String::new(),
            token: token.map(str::to_owned),
            body,
            arrived_ms: self.now_ms,
        };
        match self.homeserver.handle(&request, self.now_ms) {
            Outcome::Reply(reply) => (reply.status, reply.body),
            Outcome::Wait { .. } => panic!("{path} waits"),
        }
    }

    fn post(&mut self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, None, Bytes::from(body.to_string()));
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn now(&self) -> Instant {
        Instant::after_start(Duration::from_millis(self.now_ms))
    }

    /// A request of the device, as a gateway makes it: how often it asked the homeserver for tokens, and the status of the answer.
    fn request(&mut self, refresher: &mut Refresher) -> (u32, u16) {
        let mut refreshes = 0;
        for _ in 0..4 {
            match refresher.authorize(self.now()) {
                Authorization::Use(token, generation) => {
                    let (status, answer) = self.ask(
                        "GET",
                        "/_matrix/client/v3/account/whoami",
                        token.expose_text(),
                        Bytes::new(),
                    );
                    let body = answer.to_string();
                    match refresher.unauthorized(generation, body.as_bytes(), self.now()) {
                        Verdict::Wait if status == 401 => {}
                        Verdict::Pass | Verdict::Refused(_) => return (refreshes, status),
                        verdict => panic!("{verdict:?}"),
                    }
                }
                Authorization::Wait => {}
                Authorization::Refused(_) => return (refreshes, 401),
            }
            while let Some(output) = refresher.poll() {
                match output {
                    Output::Fetch(request) => {
                        refreshes += 1;
                        let (status, answer) =
                            self.ask("POST", request.uri().path(), None, request.body().clone());
                        let response = http::Response::builder().status(status);
                        let response = response.body(Bytes::from(answer.to_string())).unwrap();
                        refresher.fetched(Ok(response), self.now());
                    }
                    Output::Store(tokens) => assert!(refresher.replace(tokens)),
                    Output::Ready | Output::Failed(_) => {}
                }
            }
        }
        panic!("no end");
    }
}

#[test]
fn device_that_asks_now_and_then_is_never_without_a_token() {
    let mut world = World { homeserver: Homeserver::new(Config::default()), now_ms: 1_700_000_000_000 };
    let register = json!({ "username": "buoy", "password": "p", "auth": { "type": "m.login.dummy" } });
    world.post("/_matrix/client/v3/register", register);
    let login = json!({ "type": "m.login.password", "user": "buoy", "password": "p", "refresh_token": true });
    let session = world.post("/_matrix/client/v3/login", login);
    let token = |field: &str| Secret::new(session[field].as_str().unwrap());
    // Of when it ends the gateway has not been told.
    let tokens = Tokens {
        access: token("access_token"),
        refresh: Some(token("refresh_token")),
        expires: None,
        renewal: Renewal::Homeserver,
    };
    let mut refresher = Refresher::new("http://hs", tokens);
    assert_eq!(world.request(&mut refresher), (0, 200));
    // Its token ends unasked, and is renewed because the homeserver says so.
    world.now_ms += 300_000;
    assert_eq!(world.request(&mut refresher), (1, 200));
    // From now on it is known when: a token lives five minutes, and is renewed half a minute before.
    let mut refreshes = 0;
    for _ in 0..1_000 {
        world.now_ms += 100_000;
        let (more, status) = world.request(&mut refresher);
        assert_eq!(status, 200);
        refreshes += more;
    }
    assert_eq!(refreshes, 333);
    world.now_ms += 86_400_000;
    assert_eq!(world.request(&mut refresher), (1, 200));
    // Logged out elsewhere: refused, once with the homeserver's own answer and then without asking.
    let Authorization::Use(access, _) = refresher.authorize(world.now()) else { panic!("no token") };
    world.ask("POST", "/_matrix/client/v3/logout", access.expose_text(), Bytes::new());
    assert_eq!(world.request(&mut refresher), (0, 401));
    assert_eq!(world.request(&mut refresher), (0, 401));
}
