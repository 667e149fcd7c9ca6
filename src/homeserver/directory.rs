//! Aliases and the list of public rooms.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::request::object;
use super::request::required;
use super::request::text;
use super::room::Room;
use super::within;

/// Another name of a room.
#[derive(Debug)]
pub(super) struct Alias {
    room_id: String,
    creator: String,
}

impl Homeserver {
    pub(super) fn alias(&mut self, call: &Call<'_>) -> Handled {
        let room_id = self.resolve(call.parameter(0))?;
        Ok(json!({ "room_id": room_id, "servers": [self.config.server_name] }))
    }

    pub(super) fn add_alias(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let (alias, room_id) = (call.parameter(0), required(&body, "room_id")?);
        if self.aliases.contains_key(alias) {
            return Err(Refusal::new(409, "M_UNKNOWN", "this alias is taken"));
        }
        if !self.rooms.contains_key(room_id) {
            return Err(Refusal::not_found("no such room"));
        }
        self.room(room_id)?.require_joined(&caller.user_id)?;
        self.check_alias(alias)?;
        self.insert_alias(caller, alias.to_owned(), room_id);
        super::nothing()
    }

    pub(super) fn remove_alias(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let alias = self.aliases.get(call.parameter(0)).ok_or_else(no_alias)?;
        if alias.creator != caller.user_id {
            return Err(Refusal::forbidden("this alias is another user's"));
        }
        self.aliases.remove(call.parameter(0));
        super::nothing()
    }

    pub(super) fn room_aliases(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        self.room(call.parameter(0))?.require_joined(&caller.user_id)?;
        let aliases = self.aliases.iter().filter(|(_, alias)| alias.room_id == call.parameter(0));
        let aliases: Vec<&String> = aliases.map(|(name, _)| name).collect();
        Ok(json!({ "aliases": aliases }))
    }

    pub(super) fn visibility(&mut self, call: &Call<'_>) -> Handled {
        let room = self.rooms.get(call.parameter(0)).ok_or_else(|| Refusal::not_found("no such room"))?;
        Ok(json!({ "visibility": if room.published { "public" } else { "private" } }))
    }

    pub(super) fn set_visibility(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        let room = self.room_mut(call.parameter(0))?;
        if room.creator != caller.user_id {
            return Err(Refusal::forbidden("only the creator of a room publishes it"));
        }
        room.published = match text(&body, "visibility")?.unwrap_or("public") {
            "public" => true,
            "private" => false,
            _ => return Err(Refusal::invalid("visibility is public or private")),
        };
        super::nothing()
    }

    pub(super) fn public_rooms(&mut self, call: &Call<'_>) -> Handled {
        self.list(call.query("limit"), call.query("since"), None)
    }

    pub(super) fn search_public_rooms(&mut self, _caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        let filter = object(&body, "filter")?;
        let term = filter.map(|filter| text(filter, "generic_search_term")).transpose()?.flatten();
        let limit = body.get("limit").map(Value::to_string);
        self.list(limit.as_deref(), text(&body, "since")?, term)
    }

    /// The room of an alias.
    pub(super) fn resolve(&self, alias: &str) -> Result<&str, Refusal> {
        if !alias.starts_with('#') || !alias.contains(':') {
            return Err(Refusal::invalid("this is no room alias"));
        }
        self.aliases.get(alias).map(|alias| alias.room_id.as_str()).ok_or_else(no_alias)
    }

    /// Refuses an alias that cannot be one of this server's.
    pub(super) fn check_alias(&self, alias: &str) -> Result<(), Refusal> {
        let local = alias.strip_prefix('#').and_then(|rest| rest.split_once(':'));
        if local.is_none_or(|(name, server)| name.is_empty() || server != self.config.server_name) {
            return Err(Refusal::invalid("an alias is #name:server, of this server"));
        }
        if alias.len() > 255 {
            return Err(Refusal::invalid("an alias is at most 255 bytes"));
        }
        within(self.aliases.len(), self.config.limits.aliases, "aliases")
    }

    /// Gives a room another name, which [`Homeserver::check_alias`] has passed.
    pub(super) fn insert_alias(&mut self, caller: &Caller, alias: String, room_id: &str) {
        self.aliases.insert(alias, Alias { room_id: room_id.to_owned(), creator: caller.user_id.clone() });
    }

    fn list(&self, limit: Option<&str>, since: Option<&str>, term: Option<&str>) -> Handled {
        let number = |text: Option<&str>, name: &str| match text {
            Some(text) => {
                text.parse().map(Some).map_err(|_| Refusal::invalid(format!("{name} is not valid")))
            }
            None => Ok(None),
        };
        let limit: usize = number(limit, "limit")?.unwrap_or(100).min(500);
        let start: usize = number(since, "since")?.unwrap_or(0);
        let term = term.map(str::to_lowercase);
        let found = |room: &&Room| match &term {
            Some(term) => [("m.room.name", "name"), ("m.room.topic", "topic")].iter().any(|(kind, field)| {
                room.state_text(kind, field).is_some_and(|text| text.to_lowercase().contains(term))
            }),
            None => true,
        };
        let rooms: Vec<&Room> = self.rooms.values().filter(|room| room.published).filter(found).collect();
        let chunk: Vec<Value> = rooms.iter().skip(start).take(limit).map(|room| summary(room)).collect();
        let end = start.saturating_add(chunk.len());
        let mut answer = Map::new();
        answer.insert("chunk".to_owned(), Value::Array(chunk));
        answer.insert("total_room_count_estimate".to_owned(), json!(rooms.len()));
        if end < rooms.len() && limit > 0 {
            answer.insert("next_batch".to_owned(), json!(end.to_string()));
        }
        Ok(Value::Object(answer))
    }
}

fn summary(room: &Room) -> Value {
    let mut summary = Map::new();
    summary.insert("room_id".to_owned(), json!(room.id));
    let texts = [
        ("name", "m.room.name", "name"),
        ("topic", "m.room.topic", "topic"),
        ("canonical_alias", "m.room.canonical_alias", "alias"),
        ("avatar_url", "m.room.avatar", "url"),
        ("join_rule", "m.room.join_rules", "join_rule"),
    ];
    for (name, kind, field) in texts {
        summary.extend(room.state_text(kind, field).map(|text| (name.to_owned(), json!(text))));
    }
    summary.insert("num_joined_members".to_owned(), json!(room.joined().count()));
    summary.insert("world_readable".to_owned(), json!(false));
    summary.insert("guest_can_join".to_owned(), json!(false));
    Value::Object(summary)
}

fn no_alias() -> Refusal {
    Refusal::not_found("no such room alias")
}
