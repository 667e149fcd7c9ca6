//! Conversations with the homeserver in virtual time. What it must say is in the client-server API v1.19.

mod accounts;
mod refusals;
mod rooms;
mod sync;

use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use super::Config;
use super::Homeserver;
use super::Limits;
use super::Outcome;
use super::Request;

struct World {
    homeserver: Homeserver,
    now_ms: u64,
}

impl World {
    fn new() -> World {
        World::with(Limits::default())
    }

    fn with(limits: Limits) -> World {
        World {
            homeserver: Homeserver::new(Config { limits, ..Config::default() }),
            now_ms: 1_700_000_000_000,
        }
    }

    fn request(&self, token: &str, method: &str, target: &str, body: &str) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            method: method.parse().unwrap(),
            path: format!("/_matrix/client/v3/{path}"),
            query: query.to_owned(),
            token: (!token.is_empty()).then(|| token.to_owned()),
            body: Bytes::from(body.to_owned()),
            arrived_ms: self.now_ms,
        }
    }

    fn raw(&mut self, token: &str, method: &str, target: &str, body: &str) -> (u16, Value) {
        let request = self.request(token, method, target, body);
        match self.homeserver.handle(&request, self.now_ms) {
            Outcome::Reply(reply) => (reply.status, reply.body),
            Outcome::Wait { until_ms } => panic!("{method} {target} waits until {until_ms}"),
        }
    }

    fn ok(&mut self, token: &str, method: &str, target: &str, body: Value) -> Value {
        let (status, answer) = self.raw(token, method, target, &body.to_string());
        assert_eq!(status, 200, "{method} {target}: {answer}");
        answer
    }

    fn get(&mut self, token: &str, target: &str) -> Value {
        self.ok(token, "GET", target, json!({}))
    }

    fn refused(&mut self, token: &str, method: &str, target: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.raw(token, method, target, body);
        assert!(answer["error"].is_string(), "{answer}");
        (status, answer["errcode"].as_str().unwrap().to_owned())
    }

    fn register(&mut self, name: &str) -> String {
        let body = json!({ "username": name, "password": "p", "auth": { "type": "m.login.dummy" } });
        self.ok("", "POST", "register", body)["access_token"].as_str().unwrap().to_owned()
    }

    fn create(&mut self, token: &str, body: Value) -> String {
        self.ok(token, "POST", "createRoom", body)["room_id"].as_str().unwrap().to_owned()
    }

    fn say(&mut self, token: &str, room: &str, text: &str) -> String {
        let target = format!("rooms/{room}/send/m.room.message/{text}");
        let answer = self.ok(token, "PUT", &target, json!({ "msgtype": "m.text", "body": text }));
        answer["event_id"].as_str().unwrap().to_owned()
    }

    fn sync(&mut self, token: &str, since: &str) -> (Value, String) {
        let answer = self.get(token, &format!("sync?since={since}"));
        let next = answer["next_batch"].as_str().unwrap().to_owned();
        (answer, next)
    }

    fn first_sync(&mut self, token: &str) -> (Value, String) {
        let answer = self.get(token, "sync");
        let next = answer["next_batch"].as_str().unwrap().to_owned();
        (answer, next)
    }

    /// Two users in one room.
    fn couple(&mut self) -> (String, String, String) {
        let (alice, bob) = (self.register("alice"), self.register("bob"));
        let room = self.create(&alice, json!({ "name": "Home", "invite": ["@bob:localhost"] }));
        self.ok(&bob, "POST", &format!("join/{room}"), json!({}));
        (alice, bob, room)
    }
}

fn bodies(events: &Value) -> Vec<&str> {
    let events = events.as_array().unwrap();
    events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn types(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["type"].as_str()).collect()
}
