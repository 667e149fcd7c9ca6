//! The devices of a user (client-server API v1.19 §"Device management").

use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;
use super::request::object;
use super::request::text;
use super::user::Device;

impl Homeserver {
    pub(super) fn devices(&mut self, caller: &Caller, _call: &Call<'_>) -> Handled {
        let devices = &self.user(&caller.user_id)?.devices;
        let devices: Vec<Value> = devices.iter().map(|(id, device)| describe(id, device)).collect();
        Ok(json!({ "devices": devices }))
    }

    pub(super) fn device(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let id = call.parameter(0);
        let device = self.user(&caller.user_id)?.devices.get(id).ok_or_else(no_device)?;
        Ok(describe(id, device))
    }

    pub(super) fn rename_device(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let name = text(&body, "display_name")?.map(str::to_owned);
        self.charge(name.as_ref().map_or(0, String::len))?;
        let devices = &mut self.user_mut(&caller.user_id)?.devices;
        let device = devices.get_mut(call.parameter(0)).ok_or_else(no_device)?;
        if name.is_some() {
            device.display_name = name;
        }
        super::nothing()
    }

    pub(super) fn delete_device(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        let Some(auth) = object(&body, "auth")? else { return Err(self.first_round("m.login.password")) };
        let user = self.user(&caller.user_id)?;
        if text(auth, "password")?.is_none() || text(auth, "password")? != user.password.as_deref() {
            return Err(Refusal::forbidden("the password is wrong"));
        }
        // §: a device that is not there is deleted already.
        let device_id = call.parameter(0).to_owned();
        self.close_session(&Caller { user_id: caller.user_id.clone(), device_id })?;
        super::nothing()
    }

    /// The calling device.
    pub(super) fn own_device_mut(&mut self, caller: &Caller) -> Result<&mut Device, Refusal> {
        self.user_mut(&caller.user_id)?.devices.get_mut(&caller.device_id).ok_or_else(Refusal::unknown_token)
    }
}

fn describe(id: &str, device: &Device) -> Value {
    json!({ "device_id": id, "display_name": device.display_name, "last_seen_ip": null, "last_seen_ts": device.last_seen_ms })
}

fn no_device() -> Refusal {
    Refusal::not_found("no such device")
}
