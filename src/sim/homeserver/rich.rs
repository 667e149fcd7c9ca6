//! Answers with something in them of all that Matrix has: identifiers that begin alike, ciphertext, numbers of all kinds, names that are
//! identifiers. What there is follows from the number of the event.

use http::Method;
use serde_json::{Value, json};

use super::{Homeserver, event_id, milliseconds};
use crate::coap::Instant;
use crate::matrix::query;
use crate::sim::chance::Chance;

/// Whoever speaks beside the devices.
const FRIENDS: [&str; 5] = [
    "@friend:example.org",
    "@friend:example.org2",
    "@friend2:example.org",
    "@fri:example.org",
    "@friend:matrix.example.org:8448",
];

/// The rooms beside the one of the script.
pub(in crate::sim) const ROOMS: [&str; 3] =
    ["!kitchen:example.org2", "!kitchen2:example.org", "!ZSKm2XZaBaBTWzWUyGWVcxpLaKBmUNJWvpfXQTZVP14"];

/// Who says the event of this number.
pub(in crate::sim) fn friend(number: u64) -> &'static str {
    FRIENDS.get(Chance::new(number).below(FRIENDS.len() as u64) as usize).copied().unwrap_or_default()
}

/// The type and content of an event with this text; `previous` is one before it.
pub(in crate::sim) fn content(number: u64, text: &str, previous: Option<&str>) -> (&'static str, Value) {
    let mut chance = Chance::new(number ^ 0x7269_6368);
    let previous = previous.unwrap_or("$none");
    match chance.below(8) {
        0 => (
            "m.room.encrypted",
            json!({
                "algorithm": "m.megolm.v1.aes-sha2",
                "ciphertext": base64(&mut chance, 80),
                "device_id": device(&mut chance),
                "sender_key": base64(&mut Chance::new(number % 3), 32),
                "session_id": base64(&mut Chance::new(number % 5), 32),
                "body": text,
            }),
        ),
        1 => {
            let url = format!("mxc://example.org/{}", word(&mut chance, 24));
            let info = json!({ "w": chance.below(4_000), "h": 480, "size": chance.below(1 << 40), "mimetype": "image/jpeg", "thumbnail_url": url });
            ("m.room.message", json!({ "msgtype": "m.image", "body": text, "url": url, "info": info }))
        }
        2 => (
            "m.reaction",
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": previous, "key": "👍️" }, "body": text }),
        ),
        3 => (
            "org.example.numbers",
            json!({
                "body": text,
                "numbers": [0, -1, 31, 32, 255, 256, 65_536, 4_294_967_296_u64, u64::MAX, i64::MIN, -1_700_000_000_000_i64],
                "floats": [1.5, -0.25, 1e300, 1.0, 5e-324, 0.1],
                "times": [1_700_000_000_123_u64, 999_999_999_999_u64, 10_000_000_000_000_u64],
                "nothing": null,
                "nested": { "yes": [true, [false, []], {}], "age": chance.below(1 << 41) },
            }),
        ),
        4 => (
            "m.room.message",
            json!({
                "msgtype": "m.text",
                "body": format!("{text} Zürich \u{1f600} \0 \" \\ \n {} @friend:example.org, #kitchen:example.org", friend(number)),
                "m.mentions": { "user_ids": [friend(number), friend(number + 1)] },
                "m.relates_to": { "m.in_reply_to": { "event_id": previous } },
            }),
        ),
        5 => ("m.room.topic", json!({ "topic": text, "lb0000": "lb00000000_1", "body": "lb00000000.1" })),
        _ => ("m.room.message", json!({ "msgtype": "m.text", "body": text })),
    }
}

impl Homeserver {
    /// What is said beside the events of a room.
    pub(super) fn beside(&self, room: &str, user: &str, now: Instant) -> Value {
        let last = self.rooms.get(room).and_then(|room| room.events.last());
        let (id, sent) = last.map_or(("$none", 0), |last| (last.id.as_str(), last.sent_ms));
        let read = json!({ user: { "ts": milliseconds(now) }, friend(sent): { "ts": sent } });
        json!({ "events": [
            { "type": "m.receipt", "content": { id: { "m.read": read } } },
            { "type": "m.typing", "content": { "user_ids": [friend(sent)] } },
        ] })
    }

    /// The answer to what makes nothing.
    pub(super) fn consult(
        &self,
        user: &str,
        method: &Method,
        segments: &[&str],
        parameters: &[String],
        body: &Value,
        now: Instant,
    ) -> Option<Value> {
        let ["_matrix", "client", "v3", rest @ ..] = segments else { return None };
        let found = match (method, rest) {
            (&Method::GET, ["rooms", room, "messages"]) => {
                let from = query::get(parameters, "from")?;
                let position: u64 = from.get(1..)?.parse().ok()?;
                let events = &self.rooms.get(*room)?.events;
                let before = events.partition_point(|event| event.position <= position);
                let shown = events.get(before.saturating_sub(3)..before)?;
                let end = shown.first().map_or(0, |first| first.position.saturating_sub(1));
                let chunk: Vec<Value> = shown.iter().rev().map(|event| event.to_json(user, now)).collect();
                json!({ "start": from, "end": format!("t{end}"), "chunk": chunk })
            }
            (&Method::GET, ["rooms", room, "event", id]) => {
                let events = &self.rooms.get(*room)?.events;
                events.iter().find(|event| event.id == *id)?.to_json(user, now)
            }
            (&Method::GET, ["rooms", room, "state"]) => self.rooms.get(*room)?.state().into(),
            (&Method::POST, ["rooms", _, "receipt", "m.read", _]) => json!({}),
            (&Method::PUT, ["rooms", _, "typing", _]) => json!({}),
            (&Method::POST, ["keys", "query"]) => {
                let asked = body.get("device_keys")?.as_object()?;
                let keys =
                    asked.keys().map(|user| (user.clone(), keys(user))).collect::<serde_json::Map<_, _>>();
                json!({ "device_keys": keys, "failures": {}, "asked": body.get("asked") })
            }
            _ => return None,
        };
        Some(found)
    }
}

/// The keys of a user's one device.
fn keys(user: &str) -> Value {
    let mut chance = Chance::new(user.len() as u64);
    let device = device(&mut chance);
    let (curve, ed) = (format!("curve25519:{device}"), format!("ed25519:{device}"));
    let keys = json!({ curve: base64(&mut chance, 32), ed.clone(): base64(&mut chance, 32) });
    let signatures = json!({ user: { ed: base64(&mut chance, 64) } });
    json!({ device.clone(): { "user_id": user, "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2"], "keys": keys, "signatures": signatures } })
}

fn device(chance: &mut Chance) -> String {
    format!("DEVICE{}", chance.below(4))
}

/// The base64 of so many bytes, unpadded: what is left over at the end is zero.
fn base64(chance: &mut Chance, bytes: usize) -> String {
    use base64ct::Encoding;
    let bytes: Vec<u8> = (0..bytes).map(|_| chance.below(256) as u8).collect();
    base64ct::Base64Unpadded::encode_string(&bytes)
}

fn word(chance: &mut Chance, length: usize) -> String {
    event_id(chance.seed()).chars().skip(1).take(length).collect()
}
