//! What clients store for themselves: account data, tags, filters, push rules.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::json_length;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::user::Stamped;
use super::within;

/// Account data that only the server writes (§"Server behaviour" of client config).
const MANAGED: [&str; 2] = ["m.fully_read", "m.push_rules"];

impl Homeserver {
    pub(super) fn account_data(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        self.stored(caller, None, call.parameter(1))
    }

    pub(super) fn set_account_data(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        self.store_for_client(caller, None, call.parameter(1), call)
    }

    pub(super) fn room_account_data(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        self.stored(caller, Some(call.parameter(1)), call.parameter(2))
    }

    pub(super) fn set_room_account_data(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        self.store_for_client(caller, Some(call.parameter(1)), call.parameter(2), call)
    }

    pub(super) fn tags(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        Ok(json!({ "tags": self.tags_of(caller, call.parameter(1))? }))
    }

    pub(super) fn add_tag(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        let mut tags = self.tags_of(caller, call.parameter(1))?;
        tags.insert(call.parameter(2).to_owned(), Value::Object(call.object()?));
        self.store_tags(caller, call.parameter(1), tags)
    }

    pub(super) fn remove_tag(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        let mut tags = self.tags_of(caller, call.parameter(1))?;
        tags.retain(|name, _| name != call.parameter(2));
        self.store_tags(caller, call.parameter(1), tags)
    }

    pub(super) fn add_filter(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        let filter = call.object()?;
        let limit = self.config.limits.filters_per_user;
        let known = self.user(&caller.user_id)?.filters.iter().position(|other| *other == filter);
        let id = match known {
            Some(id) => id,
            None => {
                within(self.user(&caller.user_id)?.filters.len(), limit, "filters of one user")?;
                self.charge(call.request.body.len())?;
                let filters = &mut self.user_mut(&caller.user_id)?.filters;
                filters.push(filter);
                filters.len() - 1
            }
        };
        Ok(json!({ "filter_id": id.to_string() }))
    }

    pub(super) fn filter(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        let filters = &self.user(&caller.user_id)?.filters;
        let filter = call.parameter(1).parse().ok().and_then(|id: usize| filters.get(id));
        filter.map(|filter| json!(filter)).ok_or_else(|| Refusal::not_found("no such filter"))
    }

    pub(super) fn push_rules(&mut self, _caller: &Caller, _call: &Call<'_>) -> Handled {
        Ok(json!({ "global": ruleset() }))
    }

    pub(super) fn global_push_rules(&mut self, _caller: &Caller, _call: &Call<'_>) -> Handled {
        Ok(ruleset())
    }

    /// Keeps account data under the server's own hand.
    pub(super) fn store(
        &mut self,
        caller: &Caller,
        room_id: Option<&str>,
        kind: &str,
        content: Map<String, Value>,
    ) -> Result<(), Refusal> {
        let bytes: usize = content.iter().map(|(key, value)| key.len() + json_length(value)).sum();
        if bytes > self.config.limits.event_bytes {
            return Err(Refusal::too_large(self.config.limits.event_bytes));
        }
        let key = (room_id.map(str::to_owned), kind.to_owned());
        let data = &self.user(&caller.user_id)?.account_data;
        if !data.contains_key(&key) {
            within(data.len(), self.config.limits.account_data_per_user, "account data entries of one user")?;
        }
        self.charge(bytes + kind.len())?;
        let position = self.advance();
        self.user_mut(&caller.user_id)?.account_data.insert(key, Stamped { position, content });
        Ok(())
    }

    fn store_for_client(
        &mut self,
        caller: &Caller,
        room_id: Option<&str>,
        kind: &str,
        call: &Call<'_>,
    ) -> Handled {
        if MANAGED.contains(&kind) {
            let error = format!("{kind} is managed by the server");
            return Err(Refusal::new(405, "M_BAD_JSON", error));
        }
        if room_id.is_some_and(|room_id| !self.rooms.contains_key(room_id)) {
            return Err(Refusal::forbidden("you are not in this room"));
        }
        self.store(caller, room_id, kind, call.object()?)?;
        super::nothing()
    }

    fn stored(&self, caller: &Caller, room_id: Option<&str>, kind: &str) -> Handled {
        if room_id.is_none() && kind == "m.push_rules" {
            return Ok(json!({ "global": ruleset() }));
        }
        let key = (room_id.map(str::to_owned), kind.to_owned());
        let stored = self.user(&caller.user_id)?.account_data.get(&key);
        stored.map(|stored| json!(stored.content)).ok_or_else(|| Refusal::not_found("no such account data"))
    }

    fn tags_of(&self, caller: &Caller, room_id: &str) -> Result<Map<String, Value>, Refusal> {
        self.room(room_id)?.require_joined(&caller.user_id)?;
        let key = (Some(room_id.to_owned()), "m.tag".to_owned());
        let stored = self.user(&caller.user_id)?.account_data.get(&key);
        let tags = stored.and_then(|stored| stored.content.get("tags")?.as_object());
        Ok(tags.cloned().unwrap_or_default())
    }

    fn store_tags(&mut self, caller: &Caller, room_id: &str, tags: Map<String, Value>) -> Handled {
        let content = Map::from_iter([("tags".to_owned(), Value::Object(tags))]);
        self.store(caller, Some(room_id), "m.tag", content)?;
        super::nothing()
    }
}

/// Three of the predefined rules (§"Predefined rules"); nothing here evaluates them.
pub(super) fn ruleset() -> Value {
    let rule = |id: &str, conditions: Value, actions: Value| json!({ "rule_id": id, "default": true, "enabled": id != ".m.rule.master", "conditions": conditions, "actions": actions });
    json!({
        "override": [rule(".m.rule.master", json!([]), json!([]))],
        "content": [],
        "room": [],
        "sender": [],
        "underride": [
            rule(
                ".m.rule.message",
                json!([{ "kind": "event_match", "key": "type", "pattern": "m.room.message" }]),
                json!(["notify", { "set_tweak": "highlight", "value": false }]),
            ),
            rule(
                ".m.rule.encrypted",
                json!([{ "kind": "event_match", "key": "type", "pattern": "m.room.encrypted" }]),
                json!(["notify", { "set_tweak": "highlight", "value": false }]),
            ),
        ],
    })
}
