//! Making rooms and adding events to them.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::event::Draft;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::request::object;
use super::request::text;
use super::room::Room;
use super::within;

/// What keeping an event takes beside its text.
const EVENT_OVERHEAD: usize = 512;

impl Homeserver {
    pub(super) fn create_room(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        if text(&body, "room_version")?.is_some_and(|version| version != "12") {
            return Err(Refusal::new(400, "M_UNSUPPORTED_ROOM_VERSION", "rooms here are of version 12"));
        }
        let alias =
            text(&body, "room_alias_name")?.map(|name| format!("#{name}:{}", self.config.server_name));
        if let Some(alias) = &alias {
            self.check_alias(alias)?;
            if self.aliases.contains_key(alias) {
                return Err(Refusal::new(400, "M_ROOM_IN_USE", "this alias is taken"));
            }
        }
        let first = self.first_events(caller, &body, alias.as_deref())?;
        let invited = self.invitations(caller, &body)?;
        within(self.rooms.len(), self.config.limits.rooms, "rooms")?;
        let id = self.ids.room();
        let published = text(&body, "visibility")? == Some("public");
        self.rooms.insert(id.clone(), Room::new(id.clone(), caller.user_id.clone(), published));
        if let Err(refusal) = self.fill_room(&id, first, invited, call.now_ms) {
            self.rooms.remove(&id);
            return Err(refusal);
        }
        if let Some(alias) = alias {
            self.insert_alias(caller, alias, &id);
        }
        Ok(json!({ "room_id": id }))
    }

    pub(super) fn joined_rooms(&mut self, caller: &Caller, _call: &Call<'_>) -> Handled {
        Ok(json!({ "joined_rooms": self.rooms_of(&caller.user_id) }))
    }

    /// Adds an event if its sender may send it; returns its id.
    pub(super) fn post(&mut self, room_id: &str, draft: Draft, now_ms: u64) -> Result<String, Refusal> {
        self.room(room_id)?.authorize(&draft)?;
        self.append(room_id, draft, now_ms)
    }

    pub(super) fn room(&self, room_id: &str) -> Result<&Room, Refusal> {
        // Synapse, too, does not tell whether a room exists that one is not in.
        self.rooms.get(room_id).ok_or_else(|| Refusal::forbidden("you are not in this room"))
    }

    pub(super) fn room_mut(&mut self, room_id: &str) -> Result<&mut Room, Refusal> {
        self.rooms.get_mut(room_id).ok_or_else(|| Refusal::forbidden("you are not in this room"))
    }

    /// Ids of the rooms that a user is in.
    pub(super) fn rooms_of(&self, user_id: &str) -> Vec<String> {
        let rooms = self.rooms.values().filter(|room| room.membership(user_id) == "join");
        rooms.map(|room| room.id.clone()).collect()
    }

    fn append(&mut self, room_id: &str, draft: Draft, now_ms: u64) -> Result<String, Refusal> {
        let (bytes, limits) = (draft.bytes(), &self.config.limits);
        // Appendices §"Common identifier format": 255 bytes each.
        if draft.kind.len() > 255 || draft.state_key.as_ref().is_some_and(|key| key.len() > 255) {
            return Err(Refusal::invalid("an event type or state key is at most 255 bytes"));
        }
        if draft.has_float() {
            return Err(Refusal::bad_json("an event holds integers, no other numbers"));
        }
        if bytes > limits.event_bytes {
            return Err(Refusal::too_large(limits.event_bytes));
        }
        within(self.room(room_id)?.timeline().len(), limits.events_per_room, "events of one room")?;
        self.charge(bytes + EVENT_OVERHEAD)?;
        let (id, position) = (self.ids.event(), self.advance());
        self.room_mut(room_id)?.append(draft, id.clone(), position, now_ms);
        Ok(id)
    }

    fn fill_room(
        &mut self,
        room_id: &str,
        first: Vec<Draft>,
        invited: Vec<Draft>,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        for draft in first {
            self.append(room_id, draft, now_ms)?;
        }
        for draft in invited {
            self.post(room_id, draft, now_ms)?;
        }
        Ok(())
    }

    /// The events that a room begins with, in the order that §"Creation" prescribes.
    fn first_events(
        &self,
        caller: &Caller,
        body: &Map<String, Value>,
        alias: Option<&str>,
    ) -> Result<Vec<Draft>, Refusal> {
        let by = &caller.user_id;
        let public = text(body, "visibility")? == Some("public");
        let preset = text(body, "preset")?.unwrap_or(if public { "public_chat" } else { "private_chat" });
        let (join_rule, guests) = match preset {
            "public_chat" => ("public", "forbidden"),
            "private_chat" | "trusted_private_chat" => ("invite", "can_join"),
            _ => return Err(Refusal::invalid("this preset is not known")),
        };
        let mut create = object(body, "creation_content")?.cloned().unwrap_or_default();
        create.insert("room_version".to_owned(), json!("12"));
        let mut levels = power_levels(if preset == "public_chat" { 50 } else { 0 });
        levels.extend(object(body, "power_level_content_override")?.cloned().unwrap_or_default());

        let state = |kind: &str, key: &str, content| Draft::state(by, kind, key, content);
        let one = |field: &str, value: &str| Map::from_iter([(field.to_owned(), json!(value))]);
        let mut events = vec![
            state("m.room.create", "", create),
            state("m.room.member", by, self.user(by)?.member("join")),
            state("m.room.power_levels", "", levels),
        ];
        events.extend(alias.map(|alias| state("m.room.canonical_alias", "", one("alias", alias))));
        events.push(state("m.room.join_rules", "", one("join_rule", join_rule)));
        events.push(state("m.room.history_visibility", "", one("history_visibility", "shared")));
        events.push(state("m.room.guest_access", "", one("guest_access", guests)));
        for wanted in body.get("initial_state").and_then(Value::as_array).into_iter().flatten() {
            let wanted =
                wanted.as_object().ok_or_else(|| Refusal::bad_json("initial_state is not of objects"))?;
            let kind = super::request::required(wanted, "type")?;
            if ["m.room.create", "m.room.member"].contains(&kind) {
                return Err(Refusal::invalid("initial_state cannot hold this"));
            }
            let content = object(wanted, "content")?.cloned().unwrap_or_default();
            events.push(state(kind, text(wanted, "state_key")?.unwrap_or(""), content));
        }
        events.extend(text(body, "name")?.map(|name| state("m.room.name", "", one("name", name))));
        events.extend(text(body, "topic")?.map(|topic| state("m.room.topic", "", one("topic", topic))));
        Ok(events)
    }

    fn invitations(&self, caller: &Caller, body: &Map<String, Value>) -> Result<Vec<Draft>, Refusal> {
        let Some(invited) = body.get("invite") else { return Ok(Vec::new()) };
        let invited = invited.as_array().ok_or_else(|| Refusal::bad_json("invite is not an array"))?;
        let direct = body.get("is_direct") == Some(&json!(true));
        let invite = |user_id: &Value| {
            let user_id = user_id.as_str().ok_or_else(|| Refusal::bad_json("invite is not of text"))?;
            self.invitation(caller, user_id, direct)
        };
        invited.iter().map(invite).collect()
    }
}

fn power_levels(invite: i64) -> Map<String, Value> {
    let levels = json!({
        "users": {},
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50,
            "m.room.avatar": 50,
            "m.room.tombstone": 150,
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
        "historical": 100,
    });
    levels.as_object().cloned().unwrap_or_default()
}
