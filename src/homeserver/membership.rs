//! Coming and going: join, invite, leave, kick, ban (client-server API v1.19 §"Room membership").

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

impl Homeserver {
    pub(super) fn join(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        let room_id = match call.parameter(0) {
            alias if alias.starts_with('#') => self.resolve(alias)?.to_owned(),
            room_id => room_id.to_owned(),
        };
        if !self.rooms.contains_key(&room_id) {
            return Err(Refusal::not_found("no such room"));
        }
        let mut content = self.user(&caller.user_id)?.member("join");
        add_reason(&mut content, &body)?;
        // Joining again changes nothing.
        if self.room(&room_id)?.membership(&caller.user_id) != "join" {
            let draft = Draft::state(&caller.user_id, "m.room.member", &caller.user_id, content);
            self.post(&room_id, draft, call.now_ms)?;
            self.room_mut(&room_id)?.forgotten_by.remove(&caller.user_id);
        }
        Ok(json!({ "room_id": room_id }))
    }

    pub(super) fn invite(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let mut draft = self.invitation(caller, required(&body, "user_id")?, false)?;
        add_reason(&mut draft.content, &body)?;
        self.post(call.parameter(0), draft, call.now_ms)?;
        super::nothing()
    }

    pub(super) fn leave(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object_or_empty()?;
        self.change(caller, call, &caller.user_id, "leave", &body)
    }

    pub(super) fn kick(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let target = required(&body, "user_id")?;
        if self.room(call.parameter(0))?.membership(target) == "ban" {
            return Err(Refusal::forbidden("they are not in the room"));
        }
        self.change(caller, call, target, "leave", &body)
    }

    pub(super) fn ban(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        self.change(caller, call, required(&body, "user_id")?, "ban", &body)
    }

    pub(super) fn unban(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let body = call.object()?;
        let target = required(&body, "user_id")?;
        if self.room(call.parameter(0))?.membership(target) != "ban" {
            return Err(Refusal::forbidden("they are not banned"));
        }
        self.change(caller, call, target, "leave", &body)
    }

    pub(super) fn forget(&mut self, caller: &Caller, call: &Call<'_>) -> Handled {
        let room = self.room_mut(call.parameter(0))?;
        match room.membership(&caller.user_id) {
            "join" | "invite" => {
                let error = "leave the room before forgetting it";
                return Err(Refusal::new(400, "M_UNKNOWN", error));
            }
            "" => return Err(Refusal::forbidden("you are not in this room")),
            _ => room.forgotten_by.insert(caller.user_id.clone()),
        };
        super::nothing()
    }

    /// An invitation to a user, who must be known here.
    pub(super) fn invitation(&self, caller: &Caller, target: &str, direct: bool) -> Result<Draft, Refusal> {
        let mut content = self.user(target)?.member("invite");
        if direct {
            content.insert("is_direct".to_owned(), json!(true));
        }
        Ok(Draft::state(&caller.user_id, "m.room.member", target, content))
    }

    fn change(
        &mut self,
        caller: &Caller,
        call: &Call<'_>,
        target: &str,
        membership: &str,
        body: &Map<String, Value>,
    ) -> Handled {
        let mut content = Map::from_iter([("membership".to_owned(), json!(membership))]);
        add_reason(&mut content, body)?;
        let draft = Draft::state(&caller.user_id, "m.room.member", target, content);
        self.post(call.parameter(0), draft, call.now_ms)?;
        super::nothing()
    }
}

fn add_reason(content: &mut Map<String, Value>, body: &Map<String, Value>) -> Result<(), Refusal> {
    if let Some(reason) = text(body, "reason")? {
        content.insert("reason".to_owned(), json!(reason));
    }
    Ok(())
}
