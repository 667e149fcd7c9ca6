//! Reading the past: members, messages, one event, its context.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::event::Event;
use super::filter::EventFilter;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;

impl Homeserver {
    pub(super) fn members(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let room = self.room(call.parameter(0))?;
        let until = room.readable_until(&caller.user_id)?.unwrap_or(u64::MAX);
        let wanted = |event: &&Event| {
            let membership = Some(event.membership());
            event.kind == "m.room.member"
                && (call.query("membership").is_none() || call.query("membership") == membership)
                && (call.query("not_membership").is_none() || call.query("not_membership") != membership)
        };
        let events = room.state_at(until).filter(wanted);
        let chunk: Vec<Value> =
            events.map(|event| room.to_client_with_room(event, caller, call.now_ms)).collect();
        Ok(json!({ "chunk": chunk }))
    }

    pub(super) fn joined_members(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let room = self.room(call.parameter(0))?;
        room.require_joined(&caller.user_id)?;
        let members = room.joined().filter_map(|event| {
            let mut member = Map::new();
            for (name, field) in [("display_name", "displayname"), ("avatar_url", "avatar_url")] {
                member.extend(event.content.get(field).map(|value| (name.to_owned(), value.clone())));
            }
            Some((event.state_key.clone()?, Value::Object(member)))
        });
        Ok(json!({ "joined": members.collect::<Map<String, Value>>() }))
    }

    pub(super) fn messages(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let room = self.room(call.parameter(0))?;
        let until = room.readable_until(&caller.user_id)?.unwrap_or(self.position);
        let backwards = match call.query("dir") {
            Some("b") => true,
            Some("f") => false,
            Some(_) => return Err(Refusal::invalid("dir is b or f")),
            None => return Err(Refusal::new(400, "M_MISSING_PARAM", "dir is missing")),
        };
        let filter = EventFilter::parse(call.query("filter"))?;
        let limit = call.query_number("limit")?.unwrap_or(10).clamp(1, 1_000) as usize;
        let from = match call.query("from") {
            Some(token) => self.read_token("from", token)?,
            None if backwards => until,
            None => 0,
        };
        let to = call.query("to").map(|token| self.read_token("to", token)).transpose()?;
        let timeline = room.timeline();
        let (events, end): (Vec<&Event>, Option<u64>) = if backwards {
            let (from, to) = (from.min(until), to.unwrap_or(0));
            let rest = timeline.iter().rev().filter(|event| to < event.position && event.position <= from);
            page(rest, &filter, limit, |event| event.position.saturating_sub(1))
        } else {
            let until = to.map_or(until, |to| to.min(until));
            let rest = timeline.iter().filter(|event| from < event.position && event.position <= until);
            page(rest, &filter, limit, |event| event.position)
        };
        let chunk: Vec<Value> =
            events.iter().map(|event| room.to_client_with_room(event, caller, call.now_ms)).collect();
        let mut answer = Map::new();
        answer.insert("chunk".to_owned(), Value::Array(chunk));
        answer.insert("start".to_owned(), json!(token(from)));
        // §"Syncing": no `end` says that there is no more.
        answer.extend(end.map(|end| ("end".to_owned(), json!(token(end)))));
        Ok(Value::Object(answer))
    }

    pub(super) fn event(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let room = self.room(call.parameter(0))?;
        let until = room.readable_until(&caller.user_id)?.unwrap_or(u64::MAX);
        let event = room.event(call.parameter(1)).filter(|event| event.position <= until);
        let event = event.ok_or_else(|| Refusal::not_found("no such event"))?;
        Ok(room.to_client_with_room(event, caller, call.now_ms))
    }

    pub(super) fn context(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let room = self.room(call.parameter(0))?;
        let until = room.readable_until(&caller.user_id)?.unwrap_or(u64::MAX);
        let filter = EventFilter::parse(call.query("filter"))?;
        let limit = call.query_number("limit")?.unwrap_or(10).min(1_000) as usize;
        let place = room.place(call.parameter(1)).ok_or_else(|| Refusal::not_found("no such event"))?;
        let (before, after) = room.timeline().split_at_checked(place).unwrap_or_default();
        let (event, after) = after.split_first().ok_or_else(|| Refusal::not_found("no such event"))?;
        if event.position > until {
            return Err(Refusal::not_found("no such event"));
        }
        let readable = |event: &&Event| event.position <= until && filter.wants(event);
        let before: Vec<&Event> = before.iter().rev().filter(readable).take(limit / 2).collect();
        let after: Vec<&Event> = after.iter().filter(readable).take(limit - limit / 2).collect();
        let start = before.last().unwrap_or(&event).position.saturating_sub(1);
        let end = after.last().unwrap_or(&event).position;
        let show = |events: &[&Event]| -> Vec<Value> {
            events.iter().map(|event| room.to_client_with_room(event, caller, call.now_ms)).collect()
        };
        let state: Vec<&Event> = room.state_at(end).collect();
        Ok(json!({
            "start": token(start),
            "end": token(end),
            "event": room.to_client_with_room(event, caller, call.now_ms),
            "events_before": show(&before),
            "events_after": show(&after),
            "state": show(&state),
        }))
    }

    /// Reads a position that this homeserver gave.
    pub(super) fn read_token(&self, name: &str, token: &str) -> Result<u64, Refusal> {
        let position: Option<u64> = token.strip_prefix('s').and_then(|digits| digits.parse().ok());
        let position = position.filter(|position| *position <= self.position);
        position.ok_or_else(|| Refusal::invalid(format!("{name} is no token of this homeserver")))
    }
}

/// The text of a position.
pub(super) fn token(position: u64) -> String {
    format!("s{position}")
}

/// Takes up to `limit` wanted events; when more are left, returns also the position to go on from.
fn page<'a>(
    events: impl Iterator<Item = &'a Event>,
    filter: &EventFilter,
    limit: usize,
    beyond: impl Fn(&Event) -> u64,
) -> (Vec<&'a Event>, Option<u64>) {
    let mut events = events.filter(|event| filter.wants(event));
    let taken: Vec<&Event> = events.by_ref().take(limit).collect();
    let end = events.next().and_then(|_| taken.last().map(|event| beyond(event)));
    (taken, end)
}
