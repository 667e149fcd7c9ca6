//! One room: its timeline, its state, who is in it and what they may do.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::event::Draft;
use super::event::Event;
use super::request::Caller;
use super::request::Refusal;

/// A room. Its events are never removed, so a place in the timeline stays what it is.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) id: String,
    /// Holds unlimited power, as room version 12 gives it.
    pub(super) creator: String,
    /// Listed in the directory of public rooms.
    pub(super) published: bool,
    pub(super) forgotten_by: BTreeSet<String>,
    pub(super) receipts: BTreeMap<(String, String, Option<String>), Receipt>,
    /// Who is typing, and until when.
    pub(super) typing: BTreeMap<String, u64>,
    pub(super) typing_position: u64,
    timeline: Vec<Event>,
    places: BTreeMap<String, usize>,
    /// Current state: event type and state key → place in the timeline.
    state: BTreeMap<(String, String), usize>,
}

/// How far somebody has read, kept by user, receipt type and thread.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) event_id: String,
    pub(super) place: usize,
    pub(super) sent_ms: u64,
    pub(super) position: u64,
}

impl Room {
    pub(super) fn new(id: String, creator: String, published: bool) -> Room {
        Room {
            id,
            creator,
            published,
            forgotten_by: BTreeSet::new(),
            receipts: BTreeMap::new(),
            typing: BTreeMap::new(),
            typing_position: 0,
            timeline: Vec::new(),
            places: BTreeMap::new(),
            state: BTreeMap::new(),
        }
    }

    /// Adds an event to the end of the timeline; whether it may be there was asked of [`Room::authorize`] before.
    pub(super) fn append(&mut self, draft: Draft, id: String, position: u64, now_ms: u64) {
        let place = self.timeline.len();
        self.places.insert(id.clone(), place);
        let key = draft.state_key.clone().map(|state_key| (draft.kind.clone(), state_key));
        let replaces = key.and_then(|key| self.state.insert(key, place));
        self.timeline.push(Event {
            id,
            position,
            sender: draft.sender,
            kind: draft.kind,
            state_key: draft.state_key,
            content: draft.content,
            sent_ms: now_ms,
            replaces,
            transaction: draft.transaction,
            redacted_because: None,
        });
    }

    pub(super) fn timeline(&self) -> &[Event] {
        &self.timeline
    }

    pub(super) fn place(&self, event_id: &str) -> Option<usize> {
        self.places.get(event_id).copied()
    }

    pub(super) fn event(&self, event_id: &str) -> Option<&Event> {
        self.timeline.get(self.place(event_id)?)
    }

    pub(super) fn event_mut(&mut self, event_id: &str) -> Option<&mut Event> {
        let place = self.place(event_id)?;
        self.timeline.get_mut(place)
    }

    /// The state event that an event replaced.
    pub(super) fn previous(&self, event: &Event) -> Option<&Event> {
        self.timeline.get(event.replaces?)
    }

    /// The event as a client sees it, without `room_id`.
    pub(super) fn to_client(&self, event: &Event, caller: &Caller, now_ms: u64) -> Value {
        Value::Object(event.to_client(caller, self.previous(event), now_ms))
    }

    /// The event as a client sees it, with `room_id`.
    pub(super) fn to_client_with_room(&self, event: &Event, caller: &Caller, now_ms: u64) -> Value {
        let mut object = event.to_client(caller, self.previous(event), now_ms);
        object.insert("room_id".to_owned(), json!(self.id));
        Value::Object(object)
    }

    /// The current state events, by type and state key.
    pub(super) fn state(&self) -> impl Iterator<Item = &Event> {
        self.state.values().filter_map(|place| self.timeline.get(*place))
    }

    pub(super) fn state_event(&self, kind: &str, state_key: &str) -> Option<&Event> {
        self.timeline.get(*self.state.get(&(kind.to_owned(), state_key.to_owned()))?)
    }

    /// The state just after a position.
    pub(super) fn state_at(&self, position: u64) -> impl Iterator<Item = &Event> {
        self.state().filter_map(move |event| self.as_of(event, position))
    }

    /// A text of the current state, such as the room's name.
    pub(super) fn state_text(&self, kind: &str, field: &str) -> Option<&str> {
        self.state_event(kind, "")?.content.get(field)?.as_str()
    }

    /// Current members' events.
    pub(super) fn members(&self) -> impl Iterator<Item = &Event> {
        self.state().filter(|event| event.kind == "m.room.member")
    }

    /// Who is in the room.
    pub(super) fn joined(&self) -> impl Iterator<Item = &Event> {
        self.members().filter(|event| event.membership() == "join")
    }

    pub(super) fn membership(&self, user_id: &str) -> &str {
        self.state_event("m.room.member", user_id).map_or("", Event::membership)
    }

    /// The member event of a user as it was just after a position.
    pub(super) fn member_at(&self, user_id: &str, position: u64) -> Option<&Event> {
        self.as_of(self.state_event("m.room.member", user_id)?, position)
    }

    /// Follows a state event back to the one that held just after a position.
    fn as_of<'a>(&'a self, event: &'a Event, position: u64) -> Option<&'a Event> {
        let mut event = event;
        while event.position > position {
            event = self.previous(event)?;
        }
        Some(event)
    }

    /// Refuses unless the user is in the room.
    pub(super) fn require_joined(&self, user_id: &str) -> Result<(), Refusal> {
        if self.membership(user_id) == "join" { Ok(()) } else { Err(not_in_room()) }
    }

    /// Returns the last position that the user may read: none for who is in the room, the end for who was.
    pub(super) fn readable_until(&self, user_id: &str) -> Result<Option<u64>, Refusal> {
        let member = self.state_event("m.room.member", user_id).ok_or_else(not_in_room)?;
        let mut history = std::iter::successors(Some(member), |event| self.previous(event));
        match member.membership() {
            "join" => Ok(None),
            "leave" | "ban"
                if !self.forgotten_by.contains(user_id)
                    && history.any(|event| event.membership() == "join") =>
            {
                Ok(Some(member.position))
            }
            _ => Err(not_in_room()),
        }
    }

    /// Refuses an event that its sender may not send (room version 12, "Authorization rules", in part).
    pub(super) fn authorize(&self, draft: &Draft) -> Result<(), Refusal> {
        match (draft.kind.as_str(), &draft.state_key) {
            ("m.room.create", _) => return Err(Refusal::forbidden("a room is created once")),
            ("m.room.member", Some(target)) => return self.authorize_member(draft, target),
            _ => {}
        }
        self.require_joined(&draft.sender)?;
        let default = if draft.state_key.is_some() { "state_default" } else { "events_default" };
        self.require_power(
            &draft.sender,
            self.event_level(&draft.kind).unwrap_or_else(|| self.level(default)),
        )?;
        if draft.state_key.as_ref().is_some_and(|key| key.starts_with('@') && *key != draft.sender) {
            return Err(Refusal::forbidden("this state key is another user's"));
        }
        let users = draft.content.get("users").filter(|_| draft.kind == "m.room.power_levels");
        if users.is_some_and(|users| users.get(&self.creator).is_some()) {
            return Err(Refusal::forbidden("the creator of a room has no power level"));
        }
        Ok(())
    }

    fn authorize_member(&self, draft: &Draft, target: &str) -> Result<(), Refusal> {
        let (sender, own) = (draft.sender.as_str(), draft.sender == target);
        let wanted = draft.content.get("membership").and_then(Value::as_str).unwrap_or("");
        match (wanted, self.membership(target)) {
            ("join", _) if !own => Err(Refusal::forbidden("nobody joins for another")),
            ("join", "ban") => Err(Refusal::forbidden("you are banned from this room")),
            ("join", "join" | "invite") => Ok(()),
            ("join", _) if self.state_text("m.room.join_rules", "join_rule") == Some("public") => Ok(()),
            ("join", _) => Err(Refusal::forbidden("you are not invited to this room")),
            ("invite", "join") => Err(Refusal::forbidden("they are in the room already")),
            ("invite", "ban") => Err(Refusal::forbidden("they are banned from this room")),
            ("invite", _) => {
                self.require_joined(sender)?;
                self.require_power(sender, self.level("invite"))
            }
            ("leave", "join" | "invite") if own => Ok(()),
            ("leave", _) if own => Err(not_in_room()),
            ("leave", "ban") => self.authorize_removal(sender, target, "ban"),
            ("leave", "join" | "invite") => self.authorize_removal(sender, target, "kick"),
            ("leave", _) => Err(Refusal::forbidden("they are not in the room")),
            ("ban", _) => self.authorize_removal(sender, target, "ban"),
            _ => Err(Refusal::bad_json("this membership is not known")),
        }
    }

    fn authorize_removal(&self, sender: &str, target: &str, level: &str) -> Result<(), Refusal> {
        self.require_joined(sender)?;
        self.require_power(sender, self.level(level))?;
        if self.power(sender) > self.power(target) {
            return Ok(());
        }
        Err(Refusal::forbidden("they have as much power as you"))
    }

    /// Refuses unless the user may redact what others sent.
    pub(super) fn authorize_redaction(&self, sender: &str) -> Result<(), Refusal> {
        self.require_power(sender, self.level("redact"))
    }

    fn require_power(&self, user_id: &str, level: i64) -> Result<(), Refusal> {
        if self.power(user_id) >= level {
            return Ok(());
        }
        Err(Refusal::forbidden(format!("this takes a power level of {level}")))
    }

    fn power(&self, user_id: &str) -> i64 {
        if user_id == self.creator {
            return i64::MAX;
        }
        let users = self.power_levels().and_then(|levels| levels.get("users"));
        users.and_then(|users| users.get(user_id)?.as_i64()).unwrap_or_else(|| self.level("users_default"))
    }

    fn event_level(&self, kind: &str) -> Option<i64> {
        self.power_levels()?.get("events")?.get(kind)?.as_i64()
    }

    fn level(&self, name: &str) -> i64 {
        let default = match name {
            "events_default" | "users_default" | "invite" => 0,
            _ => 50,
        };
        self.power_levels().and_then(|levels| levels.get(name)?.as_i64()).unwrap_or(default)
    }

    fn power_levels(&self) -> Option<&Map<String, Value>> {
        Some(&self.state_event("m.room.power_levels", "")?.content)
    }
}

fn not_in_room() -> Refusal {
    Refusal::forbidden("you are not in this room")
}
