//! Display names, avatars and presence.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::event::Draft;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::request::required;
use super::request::text;
use super::user::Stamped;
use super::user::User;

impl Homeserver {
    pub(super) fn profile(&mut self, call: &Call<'_>) -> Handled {
        Ok(Value::Object(self.user(call.parameter(0))?.profile()))
    }

    pub(super) fn profile_field(&mut self, call: &Call<'_>) -> Handled {
        let (user, name) = (self.user(call.parameter(0))?, call.parameter(1));
        let value = user.profile().remove(name).ok_or_else(|| Refusal::not_found("no such profile field"))?;
        Ok(json!({ name: value }))
    }

    pub(super) fn set_profile_field(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        self.replace_profile_field(caller, call, Some(required(&body, call.parameter(1))?))
    }

    pub(super) fn remove_profile_field(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        self.replace_profile_field(caller, call, None)
    }

    fn replace_profile_field(&mut self, caller: &Caller, call: &Call<'_>, value: Option<&str>) -> Handled {
        caller.is(call.parameter(0))?;
        let value = value.filter(|text| !text.is_empty()).map(str::to_owned);
        if value.as_ref().is_some_and(|text| text.len() > 1_000) {
            return Err(Refusal::invalid("a profile field is at most 1000 bytes"));
        }
        self.charge(value.as_ref().map_or(0, String::len))?;
        let user = self.user_mut(&caller.user_id)?;
        match call.parameter(1) {
            "displayname" => user.displayname = value,
            "avatar_url" => user.avatar_url = value,
            _ => return Err(Refusal::new(400, "M_INVALID_PARAM", "this profile field is not supported")),
        }
        self.announce_profile(caller, call.now_ms)?;
        super::nothing()
    }

    /// §"Events on change of profile information": each room that the user is in gets a new member event.
    fn announce_profile(&mut self, caller: &Caller, now_ms: u64) -> Result<(), Refusal> {
        let content = self.user(&caller.user_id)?.member("join");
        for room_id in self.rooms_of(&caller.user_id) {
            let draft = Draft::state(&caller.user_id, "m.room.member", &caller.user_id, content.clone());
            self.post(&room_id, draft, now_ms)?;
        }
        Ok(())
    }

    pub(super) fn presence(&mut self, _caller: &Caller, call: &Call<'_>) -> Handled {
        let presence = self.user(call.parameter(0))?.presence.as_ref();
        Ok(presence.map_or_else(|| json!({ "presence": "offline" }), |stamped| json!(stamped.content)))
    }

    pub(super) fn set_presence(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        caller.is(call.parameter(0))?;
        let body = call.object()?;
        let presence = required(&body, "presence")?;
        if !["online", "offline", "unavailable"].contains(&presence) {
            return Err(Refusal::invalid("presence is online, offline or unavailable"));
        }
        let mut content = Map::from_iter([("presence".to_owned(), json!(presence))]);
        if let Some(message) = text(&body, "status_msg")? {
            self.charge(message.len())?;
            content.insert("status_msg".to_owned(), json!(message));
        }
        content.insert("currently_active".to_owned(), json!(presence == "online"));
        let position = self.advance();
        self.user_mut(&caller.user_id)?.presence = Some(Stamped { position, content });
        super::nothing()
    }
}

impl User {
    /// The content of a member event of this user.
    pub(super) fn member(&self, membership: &str) -> Map<String, Value> {
        let mut content = Map::from_iter([("membership".to_owned(), json!(membership))]);
        content.extend(self.profile());
        content
    }

    fn profile(&self) -> Map<String, Value> {
        let fields = [("displayname", &self.displayname), ("avatar_url", &self.avatar_url)];
        let present =
            fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        present.collect()
    }
}
