//! What passes: typing notifications, receipts, read markers.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::request::text;
use super::room::Receipt;
use super::room::Room;

/// Longest time that somebody is shown as typing without saying so again.
const TYPING_MS: u64 = 120_000;

impl Homeserver {
    pub(super) fn typing(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(1))?;
        let body = call.object()?;
        let typing = body.get("typing").and_then(Value::as_bool);
        let typing = typing.ok_or_else(|| Refusal::bad_json("typing is not true or false"))?;
        let timeout = body.get("timeout").and_then(Value::as_u64).unwrap_or(30_000).min(TYPING_MS);
        self.room(call.parameter(0))?.require_joined(&caller.user_id)?;
        let position = self.position.saturating_add(1);
        let room = self.room_mut(call.parameter(0))?;
        let changed = match typing {
            true => room.typing.insert(caller.user_id.clone(), call.now_ms.saturating_add(timeout)).is_none(),
            false => room.typing.remove(&caller.user_id).is_some(),
        };
        if changed {
            room.typing_position = position;
            self.position = position;
        }
        super::nothing()
    }

    /// Ends what typing has timed out.
    pub(super) fn expire_typing(&mut self, now_ms: u64) {
        let position = self.position.saturating_add(1);
        for room in self.rooms.values_mut() {
            let before = room.typing.len();
            room.typing.retain(|_, until| *until > now_ms);
            if room.typing.len() < before {
                room.typing_position = position;
                self.position = position;
            }
        }
    }

    /// Returns when a typing notification will end next.
    pub(super) fn next_typing_end(&self) -> Option<u64> {
        self.rooms.values().flat_map(|room| room.typing.values()).min().copied()
    }

    pub(super) fn receipt(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        let thread = text(&body, "thread_id")?;
        match call.parameter(1) {
            "m.fully_read" if thread.is_some() => Err(Refusal::invalid("m.fully_read knows no threads")),
            "m.fully_read" | "m.read" | "m.read.private" => {
                self.mark(caller, call, call.parameter(1), call.parameter(2), thread)?;
                super::nothing()
            }
            _ => Err(Refusal::invalid("this receipt type is not known")),
        }
    }

    pub(super) fn read_markers(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        for kind in ["m.fully_read", "m.read", "m.read.private"] {
            if let Some(event_id) = text(&body, kind)? {
                self.mark(caller, call, kind, event_id, None)?;
            }
        }
        super::nothing()
    }

    fn mark(
        &mut self,
        caller: &Caller,
        call: &Call<'_>,
        kind: &str,
        event_id: &str,
        thread: Option<&str>,
    ) -> Result<(), Refusal> {
        let room = self.room(call.parameter(0))?;
        room.require_joined(&caller.user_id)?;
        let place = room.place(event_id).ok_or_else(|| Refusal::not_found("no such event"))?;
        if thread.is_some_and(|thread| thread != "main" && room.event(thread).is_none()) {
            return Err(Refusal::invalid("no such thread"));
        }
        if kind == "m.fully_read" {
            let content = Map::from_iter([("event_id".to_owned(), json!(event_id))]);
            return self.store(caller, Some(call.parameter(0)), kind, content);
        }
        let key = (caller.user_id.clone(), kind.to_owned(), thread.map(str::to_owned));
        // A receipt only moves forward.
        if room.receipts.get(&key).is_some_and(|receipt| receipt.place >= place) {
            return Ok(());
        }
        self.charge(event_id.len() + caller.user_id.len())?;
        let position = self.advance();
        let receipt = Receipt { event_id: event_id.to_owned(), place, sent_ms: call.now_ms, position };
        self.room_mut(call.parameter(0))?.receipts.insert(key, receipt);
        Ok(())
    }
}

impl Room {
    /// The content of `m.typing`, when it has changed since a position.
    pub(super) fn typing_since(&self, position: u64) -> Option<Value> {
        (self.typing_position > position).then(|| {
            let users: Vec<&String> = self.typing.keys().collect();
            json!({ "type": "m.typing", "content": { "user_ids": users } })
        })
    }

    /// `m.receipt` with what is new since a position and meant for a user; private ones are their own's only.
    pub(super) fn receipts_since(&self, position: u64, for_user: &str) -> Option<Value> {
        let mut events: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for ((user, kind, thread), receipt) in &self.receipts {
            if receipt.position <= position || (kind == "m.read.private" && user != for_user) {
                continue;
            }
            let mut details = Map::from_iter([("ts".to_owned(), json!(receipt.sent_ms))]);
            details.extend(thread.as_ref().map(|thread| ("thread_id".to_owned(), json!(thread))));
            let kinds = events.entry(&receipt.event_id).or_default();
            let users = kinds.entry(kind.as_str()).or_insert_with(|| json!({}));
            users.as_object_mut()?.insert(user.clone(), Value::Object(details));
        }
        (!events.is_empty()).then(|| json!({ "type": "m.receipt", "content": events }))
    }

    /// How many messages of others a user has not read.
    pub(super) fn unread(&self, user_id: &str) -> usize {
        let receipts = self.receipts.iter().filter(|((user, _, _), _)| user == user_id);
        let read = receipts.map(|(_, receipt)| receipt.place + 1).max().unwrap_or(0);
        let joined = self.state_event("m.room.member", user_id).map_or(0, |member| member.position);
        let unread = self.timeline().iter().rev().take(self.timeline().len().saturating_sub(read));
        unread
            .take_while(|event| event.position > joined && event.sender != user_id)
            .filter(|event| event.kind == "m.room.message" || event.kind == "m.room.encrypted")
            .count()
    }
}
