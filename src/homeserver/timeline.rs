//! Sending events and reading the state (client-server API v1.19 §"Sending events to a room").

use serde_json::Map;
use serde_json::json;

use super::Homeserver;
use super::event::Draft;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::request::text;

/// Longest path that is remembered by its transaction id: identifiers of 255 bytes each, all of them percent-encoded.
const REMEMBERED_PATH: usize = 4_096;

impl Homeserver {
    pub(super) fn send(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let (room_id, kind, transaction) = (call.parameter(0), call.parameter(1), call.parameter(2));
        self.once(caller, call, |homeserver| {
            let draft = Draft {
                sender: caller.user_id.clone(),
                kind: kind.to_owned(),
                state_key: None,
                content: call.object()?,
                transaction: Some((caller.clone(), transaction.to_owned())),
            };
            let id = homeserver.post(room_id, draft, call.now_ms)?;
            Ok(json!({ "event_id": id }))
        })
    }

    pub(super) fn redact(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let (room_id, event_id, transaction) = (call.parameter(0), call.parameter(1), call.parameter(2));
        self.once(caller, call, |homeserver| {
            let body = call.object_or_empty()?;
            let room = homeserver.room(room_id)?;
            room.require_joined(&caller.user_id)?;
            let event = room.event(event_id).ok_or_else(|| Refusal::not_found("no such event"))?;
            if event.sender != caller.user_id {
                room.authorize_redaction(&caller.user_id)?;
            }
            let mut content = Map::from_iter([("redacts".to_owned(), json!(event_id))]);
            content.extend(text(&body, "reason")?.map(|reason| ("reason".to_owned(), json!(reason))));
            let draft = Draft {
                sender: caller.user_id.clone(),
                kind: "m.room.redaction".to_owned(),
                state_key: None,
                content,
                transaction: Some((caller.clone(), transaction.to_owned())),
            };
            let id = homeserver.post(room_id, draft, call.now_ms)?;
            homeserver.strike(room_id, event_id, &id, call.now_ms)?;
            Ok(json!({ "event_id": id }))
        })
    }

    pub(super) fn set_state(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let (room_id, kind, key) = (call.parameter(0), call.parameter(1), call.parameter(2));
        let draft = Draft::state(&caller.user_id, kind, key, call.object()?);
        let room = self.room(room_id)?;
        room.authorize(&draft)?;
        // Saying again what already holds makes no new event, as with Synapse.
        let same = room.state_event(kind, key).filter(|event| event.content == draft.content);
        let same = same.filter(|event| event.sender == caller.user_id).map(|event| event.id.clone());
        let id = match same {
            Some(id) => id,
            None => self.post(room_id, draft, call.now_ms)?,
        };
        Ok(json!({ "event_id": id }))
    }

    pub(super) fn state(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let room = self.room(call.parameter(0))?;
        let until = room.readable_until(&caller.user_id)?.unwrap_or(u64::MAX);
        let events = room.state_at(until);
        Ok(events.map(|event| room.to_client_with_room(event, caller, call.now_ms)).collect())
    }

    pub(super) fn state_event(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let (kind, key) = (call.parameter(1), call.parameter(2));
        let room = self.room(call.parameter(0))?;
        let until = room.readable_until(&caller.user_id)?.unwrap_or(u64::MAX);
        let mut events = room.state_at(until);
        let event = events.find(|event| event.kind == kind && event.state_key.as_deref() == Some(key));
        let event = event.ok_or_else(|| Refusal::not_found("no such state event"))?;
        match call.query("format") {
            Some("event") => Ok(room.to_client_with_room(event, caller, call.now_ms)),
            None | Some("content") => Ok(json!(event.content)),
            Some(_) => Err(Refusal::invalid("format is event or content")),
        }
    }

    /// Does something once for a device, path and transaction id, and answers the same the next time.
    pub(super) fn once(
        &mut self,
        caller: &Caller,
        call: &Call<'_>,
        action: impl FnOnce(&mut Homeserver) -> Handled,
    ) -> Handled {
        let (path, limit) = (call.request.path.clone(), self.config.limits.transactions_per_device);
        if path.len() > REMEMBERED_PATH {
            return Err(Refusal::invalid(format!(
                "a path with a transaction id is at most {REMEMBERED_PATH} bytes"
            )));
        }
        if let Some(answer) = self.own_device_mut(caller)?.transactions.answer(&path) {
            return Ok(answer.clone());
        }
        let answer = action(self)?;
        self.own_device_mut(caller)?.transactions.remember(path, answer.clone(), limit);
        Ok(answer)
    }

    /// Applies a redaction event to its target.
    fn strike(&mut self, room_id: &str, event_id: &str, redaction: &str, now_ms: u64) -> Result<(), Refusal> {
        let room = self.room_mut(room_id)?;
        let nobody = Caller { user_id: String::new(), device_id: String::new() };
        let seen = room.event(redaction).map(|event| room.to_client_with_room(event, &nobody, now_ms));
        if let (Some(seen), Some(event)) = (seen, room.event_mut(event_id)) {
            event.redact(seen);
        }
        Ok(())
    }
}
