//! Who one is: versions, registration, login, logout (client-server API v1.19 §"Client authentication").

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
use super::user::Device;
use super::user::User;
use super::within;

impl Homeserver {
    pub(super) fn versions(&mut self, _call: &Call<'_>) -> Handled {
        let mut versions: Vec<String> = vec!["r0.6.1".to_owned()];
        versions.extend((1..=19).map(|minor| format!("v1.{minor}")));
        Ok(json!({ "versions": versions, "unstable_features": {} }))
    }

    pub(super) fn well_known(&mut self, _call: &Call<'_>) -> Handled {
        Ok(json!({ "m.homeserver": { "base_url": self.config.base_url } }))
    }

    pub(super) fn capabilities(&mut self, _caller: &Caller, _call: &Call<'_>) -> Handled {
        Ok(json!({ "capabilities": {
            "m.room_versions": { "default": "12", "available": { "12": "stable" } },
            "m.change_password": { "enabled": false },
            "m.set_displayname": { "enabled": true },
            "m.set_avatar_url": { "enabled": true },
            "m.3pid_changes": { "enabled": false },
            "m.get_login_token": { "enabled": false },
            "m.profile_fields": { "enabled": true, "allowed": ["displayname", "avatar_url"] },
        } }))
    }

    pub(super) fn whoami(&mut self, caller: &Caller, _call: &Call<'_>) -> Handled {
        Ok(json!({ "user_id": caller.user_id, "device_id": caller.device_id, "is_guest": false }))
    }

    pub(super) fn login_flows(&mut self, _call: &Call<'_>) -> Handled {
        Ok(json!({ "flows": [{ "type": "m.login.password" }] }))
    }

    pub(super) fn login(&mut self, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        if required(&body, "type")? != "m.login.password" {
            return Err(Refusal::new(400, "M_UNKNOWN", "this login type is not supported"));
        }
        let identifier = object(&body, "identifier")?;
        if identifier.is_some_and(|identifier| identifier.get("type") != Some(&json!("m.id.user"))) {
            return Err(Refusal::new(400, "M_UNKNOWN", "this identifier type is not supported"));
        }
        let user_id = self.full_user_id(required(identifier.unwrap_or(&body), "user")?);
        let password = required(&body, "password")?;
        if self.users.get(&user_id).and_then(|user| user.password.as_deref()) != Some(password) {
            return Err(Refusal::forbidden("user or password is wrong"));
        }
        self.open_session(&user_id, &body, call.now_ms)
    }

    pub(super) fn register(&mut self, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        if call.query("kind") == Some("guest") {
            return Err(Refusal::new(403, "M_GUEST_ACCESS_FORBIDDEN", "there are no guests here"));
        }
        let localpart = match text(&body, "username")? {
            Some(name) => name.to_owned(),
            None => self.ids.device().to_lowercase(),
        };
        self.check_available(&localpart)?;
        let Some(auth) = object(&body, "auth")? else { return Err(self.first_round("m.login.dummy")) };
        if required(auth, "type")? != "m.login.dummy" {
            return Err(self.first_round("m.login.dummy"));
        }
        let password = text(&body, "password")?.map(str::to_owned);
        within(self.users.len(), self.config.limits.users, "users")?;
        self.charge(localpart.len() + password.as_ref().map_or(0, String::len))?;
        let user_id = self.full_user_id(&localpart);
        // Synapse, too, begins with the localpart as the display name.
        self.users
            .insert(user_id.clone(), User { password, displayname: Some(localpart), ..User::default() });
        if body.get("inhibit_login") == Some(&json!(true)) {
            return Ok(json!({ "user_id": user_id, "home_server": self.config.server_name }));
        }
        self.open_session(&user_id, &body, call.now_ms)
    }

    pub(super) fn register_available(&mut self, call: &Call<'_>) -> Handled {
        self.check_available(call.query("username").unwrap_or(""))?;
        Ok(json!({ "available": true }))
    }

    pub(super) fn logout(&mut self, caller: &Caller, _call: &Call<'_>) -> Handled {
        self.close_session(caller)?;
        super::nothing()
    }

    pub(super) fn logout_all(&mut self, caller: &Caller, _call: &Call<'_>) -> Handled {
        self.take_tokens(|other| other.user_id == caller.user_id);
        let position = self.advance();
        let user = self.user_mut(&caller.user_id)?;
        user.devices.clear();
        user.keys_position = position;
        super::nothing()
    }

    /// Ends a device and its access token.
    pub(super) fn close_session(&mut self, session: &Caller) -> Result<(), Refusal> {
        self.take_tokens(|other| other == session);
        let position = self.advance();
        let user = self.user_mut(&session.user_id)?;
        user.devices.remove(&session.device_id);
        user.keys_position = position;
        Ok(())
    }

    /// The 401 that tells a client how to authenticate (§"User-interactive authentication API").
    pub(super) fn first_round(&mut self, stage: &str) -> Refusal {
        let more = [
            ("session".to_owned(), json!(self.ids.session())),
            ("flows".to_owned(), json!([{ "stages": [stage] }])),
            ("params".to_owned(), json!({})),
        ];
        Refusal::new(401, "", "").with(Map::from_iter(more))
    }

    fn full_user_id(&self, user: &str) -> String {
        if user.starts_with('@') { user.to_owned() } else { format!("@{user}:{}", self.config.server_name) }
    }

    fn check_available(&self, localpart: &str) -> Result<(), Refusal> {
        let user_id = self.full_user_id(localpart);
        // Appendices §"User identifiers": these characters, and 255 bytes with the server name.
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
        if localpart.is_empty() || !localpart.bytes().all(allowed) || user_id.len() > 255 {
            return Err(Refusal::new(400, "M_INVALID_USERNAME", "a user name is of a-z, 0-9 and ._=-/+"));
        }
        if self.users.contains_key(&user_id) {
            return Err(Refusal::new(400, "M_USER_IN_USE", "this user name is taken"));
        }
        Ok(())
    }

    fn open_session(&mut self, user_id: &str, body: &Map<String, Value>, now_ms: u64) -> Handled {
        let device_id = match text(body, "device_id")? {
            Some(device_id) => device_id.to_owned(),
            None => self.ids.device(),
        };
        let display_name = text(body, "initial_device_display_name")?.map(str::to_owned);
        let limit = self.config.limits.devices_per_user;
        self.charge(device_id.len() + display_name.as_ref().map_or(0, String::len))?;
        let user = self.user_mut(user_id)?;
        let known = user.devices.contains_key(&device_id);
        if !known {
            within(user.devices.len(), limit, "devices of one user")?;
        }
        let device = user.devices.entry(device_id.clone()).or_insert_with(Device::default);
        device.last_seen_ms = now_ms;
        device.display_name = device.display_name.take().or(display_name);
        let caller = Caller { user_id: user_id.to_owned(), device_id: device_id.clone() };
        // §"Relationship between access tokens and devices": a device has one token, the newest.
        self.take_tokens(|other| *other == caller);
        let mut answer = json!({
            "user_id": user_id,
            "access_token": "",
            "home_server": self.config.server_name,
            "device_id": device_id,
            "well_known": { "m.homeserver": { "base_url": self.config.base_url } },
        });
        let refreshable = body.get("refresh_token") == Some(&json!(true));
        let issued = match refreshable {
            true => self.issue_refreshable(&caller, now_ms),
            false => json!({ "access_token": self.issue_token(&caller) }),
        };
        if let (Some(answer), Value::Object(issued)) = (answer.as_object_mut(), issued) {
            answer.extend(issued);
        }
        Ok(answer)
    }

    /// §"Refreshing access tokens": the refresh token that was used stays good until the new one is, for who did not get the answer.
    pub(super) fn refresh(&mut self, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let used = required(&body, "refresh_token")?.to_owned();
        let caller = self.refresh_tokens.get(&used).cloned().ok_or_else(Refusal::unknown_token)?;
        self.take_tokens(|other| *other == caller);
        self.refresh_tokens.insert(used, caller.clone());
        Ok(self.issue_refreshable(&caller, call.now_ms))
    }

    fn issue_token(&mut self, caller: &Caller) -> String {
        let token = self.ids.token(caller.user_id.split([':', '@']).nth(1).unwrap_or(""));
        self.tokens.insert(token.clone(), caller.clone());
        token
    }

    fn issue_refreshable(&mut self, caller: &Caller, now_ms: u64) -> Value {
        let (access, refresh) = (self.issue_token(caller), format!("syr_{}", self.ids.session()));
        let life = self.config.refreshable_token_ms;
        self.token_ends_ms.insert(access.clone(), now_ms.saturating_add(life));
        self.refresh_tokens.insert(refresh.clone(), caller.clone());
        json!({ "access_token": access, "refresh_token": refresh, "expires_in_ms": life })
    }

    /// Takes tokens away, by whose they are.
    fn take_tokens(&mut self, is_theirs: impl Fn(&Caller) -> bool) {
        self.tokens.retain(|_, other| !is_theirs(other));
        self.refresh_tokens.retain(|_, other| !is_theirs(other));
        let tokens = &self.tokens;
        self.token_ends_ms.retain(|token, _| tokens.contains_key(token));
    }
}
