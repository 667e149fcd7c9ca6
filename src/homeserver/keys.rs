//! Keys and messages from device to device, carried and never looked into (client-server API v1.19 §"End-to-end
//! encryption").

use std::collections::BTreeSet;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::json_length;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::request::object;
use super::user::Device;
use super::user::algorithm;

impl Homeserver {
    pub(super) fn upload_keys(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        let limit = self.config.limits.one_time_keys_per_device;
        let device_keys = object(&body, "device_keys")?;
        let one_time_keys = object(&body, "one_time_keys")?;
        let fallback_keys = object(&body, "fallback_keys")?;
        self.charge(call.request.body.len())?;
        let device = self.own_device_mut(caller)?;
        let added = one_time_keys.map_or(0, Map::len) + fallback_keys.map_or(0, Map::len);
        if device.one_time_keys.len() + device.fallback_keys.len() + added > limit {
            return Err(Refusal::over_limit("one-time keys of one device", limit));
        }
        device.one_time_keys.extend(one_time_keys.cloned().into_iter().flatten());
        for (id, key) in fallback_keys.into_iter().flatten() {
            // One fallback key for an algorithm: a new one replaces the old.
            device.fallback_keys.retain(|other, _| algorithm(other) != algorithm(id));
            device.fallback_keys.insert(id.clone(), (key.clone(), false));
        }
        let changed = device_keys.is_some() && device.keys.as_ref() != device_keys;
        if changed {
            device.keys = device_keys.cloned();
        }
        let counts = json!(device.one_time_key_counts());
        let position = self.advance();
        if changed {
            self.user_mut(&caller.user_id)?.keys_position = position;
        }
        Ok(json!({ "one_time_key_counts": counts }))
    }

    pub(super) fn query_keys(&mut self, _caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let wanted =
            object(&body, "device_keys")?.ok_or_else(|| Refusal::bad_json("device_keys is missing"))?;
        let mut found = Map::new();
        for (user_id, devices) in wanted {
            let Some(user) = self.users.get(user_id) else { continue };
            let devices = devices.as_array().ok_or_else(|| Refusal::bad_json("devices are not an array"))?;
            let keys =
                user.devices.iter().filter(|(id, _)| devices.is_empty() || devices.contains(&json!(id)));
            let keys = keys.filter_map(|(id, device)| Some((id.clone(), show(device)?)));
            found.insert(user_id.clone(), Value::Object(keys.collect()));
        }
        Ok(json!({ "device_keys": found, "failures": {} }))
    }

    pub(super) fn claim_keys(&mut self, _caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let wanted = object(&body, "one_time_keys")?;
        let wanted = wanted.ok_or_else(|| Refusal::bad_json("one_time_keys is missing"))?;
        let mut claimed: Map<String, Value> = Map::new();
        for (user_id, devices) in wanted {
            let Some(user) = self.users.get_mut(user_id) else { continue };
            let mut keys = Map::new();
            for (device_id, algorithm) in devices.as_object().into_iter().flatten() {
                let device = user.devices.get_mut(device_id);
                let key = device.and_then(|device| device.take_key(algorithm.as_str()?));
                keys.extend(key.map(|(id, key)| (device_id.clone(), json!({ id: key }))));
            }
            if !keys.is_empty() {
                claimed.insert(user_id.clone(), Value::Object(keys));
            }
        }
        self.advance();
        Ok(json!({ "one_time_keys": claimed, "failures": {} }))
    }

    pub(super) fn key_changes(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let token = |name: &str| {
            let token = call.query(name);
            token.ok_or_else(|| Refusal::new(400, "M_MISSING_PARAM", format!("{name} is missing")))
        };
        let from = self.read_token("from", token("from")?)?;
        self.read_token("to", token("to")?)?;
        Ok(json!({ "changed": self.users_with_new_keys(caller, from), "left": [] }))
    }

    /// Users in a common room whose keys changed after a position, the caller among them.
    pub(super) fn users_with_new_keys(&self, caller: &Caller, since: u64) -> Vec<&str> {
        let known = self.acquaintances(&caller.user_id);
        let changed =
            self.users.iter().filter(|(id, user)| user.keys_position > since && known.contains(id.as_str()));
        changed.map(|(id, _)| id.as_str()).collect()
    }

    /// Everybody who is in a room with a user, that user included.
    pub(super) fn acquaintances(&self, user_id: &str) -> BTreeSet<&str> {
        let rooms = self.rooms.values().filter(|room| room.membership(user_id) == "join");
        let mut known: BTreeSet<&str> =
            rooms.flat_map(|room| room.joined()).filter_map(|event| event.state_key.as_deref()).collect();
        known.extend(self.users.get_key_value(user_id).map(|(id, _)| id.as_str()));
        known
    }

    pub(super) fn send_to_device(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let kind = call.parameter(0);
        self.once(caller, call, |homeserver| {
            let body = call.object()?;
            let messages =
                object(&body, "messages")?.ok_or_else(|| Refusal::bad_json("messages is missing"))?;
            for (user_id, devices) in messages {
                let devices =
                    devices.as_object().ok_or_else(|| Refusal::bad_json("messages are not objects"))?;
                for (device_id, content) in devices {
                    let message = json!({ "type": kind, "sender": caller.user_id, "content": content });
                    homeserver.deliver(user_id, device_id, &message)?;
                }
            }
            super::nothing()
        })
    }

    /// Puts a message into the inbox of a device, or of all for `*`. Nobody is told that a device is not there.
    fn deliver(&mut self, user_id: &str, device_id: &str, message: &Value) -> Result<(), Refusal> {
        let limit = self.config.limits.inbox_per_device;
        let Some(user) = self.users.get(user_id) else { return Ok(()) };
        let wanted = |id: &str| device_id == "*" || device_id == id;
        let devices = user.devices.iter().filter(|(id, _)| wanted(id));
        let ids: Vec<String> = devices.map(|(id, _)| id.clone()).collect();
        self.charge(json_length(message).saturating_mul(ids.len()))?;
        for id in ids {
            let position = self.advance();
            let Some(device) = self.user_mut(user_id)?.devices.get_mut(&id) else { continue };
            super::within(device.inbox.len(), limit, "unread messages of one device")?;
            device.inbox.push_back((position, message.clone()));
        }
        Ok(())
    }

    /// Forgets what a device has received by the time it shows a position as its `since`.
    pub(super) fn acknowledge_inbox(&mut self, caller: &Caller, since: u64) -> Result<(), Refusal> {
        let inbox = &mut self.own_device_mut(caller)?.inbox;
        while inbox.front().is_some_and(|(position, _)| *position <= since) {
            inbox.pop_front();
        }
        Ok(())
    }

    /// One-time keys left and unused fallback keys of a device, as /sync tells them.
    pub(super) fn key_counts(&self, caller: &Caller) -> Option<(Value, Value)> {
        let device = self.users.get(&caller.user_id)?.devices.get(&caller.device_id)?;
        Some((json!(device.one_time_key_counts()), json!(device.unused_fallback_key_types())))
    }
}

impl Device {
    fn take_key(&mut self, wanted: &str) -> Option<(String, Value)> {
        let id = self.one_time_keys.keys().find(|id| algorithm(id) == wanted).cloned();
        if let Some(id) = id {
            return self.one_time_keys.remove_entry(&id);
        }
        let (id, (key, used)) = self.fallback_keys.iter_mut().find(|(id, _)| algorithm(id) == wanted)?;
        *used = true;
        Some((id.clone(), key.clone()))
    }
}

fn show(device: &Device) -> Option<Value> {
    let mut keys = device.keys.clone()?;
    let mut unsigned = Map::new();
    unsigned.extend(device.display_name.as_ref().map(|name| ("device_display_name".to_owned(), json!(name))));
    keys.insert("unsigned".to_owned(), Value::Object(unsigned));
    Some(Value::Object(keys))
}
