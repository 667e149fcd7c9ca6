//! One event of a room, and how a client sees it (client-server API v1.19 §"Room event format").

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::request::Caller;

/// An event that a room has accepted.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) position: u64,
    pub(super) sender: String,
    pub(super) kind: String,
    pub(super) state_key: Option<String>,
    pub(super) content: Map<String, Value>,
    pub(super) sent_ms: u64,
    /// The place in the timeline of the state event that this one replaced.
    pub(super) replaces: Option<usize>,
    /// The device that sent it, and its transaction id.
    pub(super) transaction: Option<(Caller, String)>,
    /// The redaction event, as clients see it, once there is one.
    pub(super) redacted_because: Option<Value>,
}

/// An event that is not in a room yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) sender: String,
    pub(super) kind: String,
    pub(super) state_key: Option<String>,
    pub(super) content: Map<String, Value>,
    pub(super) transaction: Option<(Caller, String)>,
}

impl Draft {
    /// A state event.
    pub(super) fn state(sender: &str, kind: &str, state_key: &str, content: Map<String, Value>) -> Draft {
        Draft {
            sender: sender.to_owned(),
            kind: kind.to_owned(),
            state_key: Some(state_key.to_owned()),
            content,
            transaction: None,
        }
    }

    /// Roughly what keeping it takes.
    pub(super) fn bytes(&self) -> usize {
        let content: usize =
            self.content.iter().map(|(key, value)| key.len() + super::json_length(value) + 4).sum();
        content + self.kind.len() + self.state_key.as_ref().map_or(0, String::len)
    }

    /// True when a number of the content is not an integer, which canonical JSON does not allow.
    pub(super) fn has_float(&self) -> bool {
        self.content.values().any(is_float)
    }
}

fn is_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(is_float),
        Value::Object(object) => object.values().any(is_float),
        _ => false,
    }
}

impl Event {
    /// The membership that the event gives its state key; empty when it gives none.
    pub(super) fn membership(&self) -> &str {
        self.content.get("membership").and_then(Value::as_str).unwrap_or("")
    }

    /// The event as the caller's device sees it, without `room_id`, as in /sync.
    pub(super) fn to_client(
        &self,
        caller: &Caller,
        previous: Option<&Event>,
        now_ms: u64,
    ) -> Map<String, Value> {
        let mut unsigned = Map::new();
        unsigned.insert("age".to_owned(), json!(now_ms.saturating_sub(self.sent_ms)));
        if let Some((by, id)) = self.transaction.as_ref().filter(|(by, _)| by == caller) {
            debug_assert_eq!(by.user_id, self.sender);
            unsigned.insert("transaction_id".to_owned(), json!(id));
        }
        if let Some(previous) = previous {
            unsigned.insert("replaces_state".to_owned(), json!(previous.id));
            unsigned.insert("prev_content".to_owned(), json!(previous.content));
            unsigned.insert("prev_sender".to_owned(), json!(previous.sender));
        }
        if let Some(redaction) = &self.redacted_because {
            unsigned.insert("redacted_because".to_owned(), redaction.clone());
        }
        let mut object = Map::new();
        object.insert("type".to_owned(), json!(self.kind));
        object.insert("sender".to_owned(), json!(self.sender));
        object.insert("content".to_owned(), json!(self.content));
        if let Some(state_key) = &self.state_key {
            object.insert("state_key".to_owned(), json!(state_key));
        }
        // Room version 11 moved `redacts` into the content; servers keep the old place for old clients.
        if let Some(redacts) = self.content.get("redacts").filter(|_| self.kind == "m.room.redaction") {
            object.insert("redacts".to_owned(), redacts.clone());
        }
        object.insert("origin_server_ts".to_owned(), json!(self.sent_ms));
        object.insert("unsigned".to_owned(), Value::Object(unsigned));
        object.insert("event_id".to_owned(), json!(self.id));
        object
    }

    /// The event as somebody sees it who is invited: type, sender, state key and content.
    pub(super) fn to_stripped(&self) -> Value {
        json!({ "type": self.kind, "sender": self.sender, "state_key": self.state_key, "content": self.content })
    }

    /// Removes what a redaction removes (room version 11 and later, "Redactions").
    pub(super) fn redact(&mut self, redaction: Value) {
        let kept: &[&str] = match self.kind.as_str() {
            "m.room.create" => return self.redacted_because = Some(redaction),
            "m.room.member" => &["membership", "join_authorised_via_users_server"],
            "m.room.join_rules" => &["join_rule", "allow"],
            "m.room.power_levels" => &[
                "ban",
                "events",
                "events_default",
                "invite",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ],
            "m.room.history_visibility" => &["history_visibility"],
            "m.room.redaction" => &["redacts"],
            _ => &[],
        };
        self.content.retain(|key, _| kept.contains(&key.as_str()));
        self.redacted_because = Some(redaction);
    }
}
