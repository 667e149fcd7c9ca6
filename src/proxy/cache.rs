//! Answers that hold for a while, so that who asks again need not wait for the link.
//!
//! | what | for how long at most | until |
//! |---|---|---|
//! | `versions` | a day | |
//! | the flows of `login`, `capabilities`, `whoami` | an hour | the token's logout |
//! | filters: an id for a filter, and a filter for its id | a day | the token's logout |
//! | push rules | a day | `m.push_rules` in a sync, or a change through here |
//! | profiles | an hour | a membership event of the user in a sync, or a change through here |
//! | members of a room | an hour | a membership event of the room in a sync, or a change through here |
//! | an event, by its id | a day | an event in a sync that refers to it |
//!
//! What ends by a sync is kept only while the token's `/sync` is observed: what has changed is heard by itself then. Only answers with 200 are
//! kept, in bounds of number and bytes; the one unused for longest goes first.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use serde_json::Value;

use super::route;
use crate::coap::Instant;

/// What ends an answer before its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    PushRules,
    Profile(String),
    Members(String),
    Event(String),
}

/// A request, as far as the answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    token: Option<Vec<u8>>,
    method: String,
    uri: String,
    body: Bytes,
}

#[derive(Debug)]
struct Entry {
    response: http::Response<Bytes>,
    until: Instant,
    tag: Option<Tag>,
    used: u64,
}

/// The answers.
#[derive(Debug)]
pub(super) struct Cache {
    entries: BTreeMap<Key, Entry>,
    /// The same, the one unused for longest first.
    used: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    most_entries: usize,
    most_bytes: usize,
}

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl Cache {
    /// An empty one, with its bounds.
    pub(super) fn new(most_entries: usize, most_bytes: usize) -> Self {
        let (entries, used) = (BTreeMap::new(), BTreeMap::new());
        Self { entries, used, uses: 0, bytes: 0, most_entries, most_bytes }
    }

    /// The answer to a request, if it is known and holds. `observed`: whether what changes is heard of.
    pub(super) fn get(
        &mut self,
        request: &http::Request<Bytes>,
        observed: bool,
        now: Instant,
    ) -> Option<http::Response<Bytes>> {
        let key = Key::of(request);
        let entry = self.entries.get(&key)?;
        if entry.until <= now {
            self.remove(&key);
            return None;
        }
        // What has changed meanwhile is heard when it is observed again, and not before.
        if entry.tag.is_some() && !observed {
            return None;
        }
        self.touch(&key);
        self.entries.get(&key).map(|entry| entry.response.clone())
    }

    /// Takes in an answer of the homeserver, and what it has changed there.
    pub(super) fn take(
        &mut self,
        request: &http::Request<Bytes>,
        response: &http::Response<Bytes>,
        observed: bool,
        now: Instant,
    ) {
        if response.status() != StatusCode::OK {
            return;
        }
        let Some(operation) = route::of_matrix(request).and_then(|target| target.route) else { return };
        let argument = |place| argument(request, place);
        let (most, tag) = match operation.operation {
            "getVersions" => (DAY, None),
            "getLoginFlows" | "getCapabilities" | "getTokenOwner" => (HOUR, None),
            "defineFilter" | "getFilter" => (DAY, None),
            "getPushRules" | "getPushRulesGlobal" | "getPushRule" | "isPushRuleEnabled"
            | "getPushRuleActions" => (DAY, Some(Tag::PushRules)),
            "getUserProfile" | "getProfileField" => (HOUR, Some(Tag::Profile(argument("profile")))),
            "getJoinedMembersByRoom" | "getMembersByRoom" => (HOUR, Some(Tag::Members(argument("rooms")))),
            "getOneRoomEvent" => (DAY, Some(Tag::Event(argument("event")))),
            _ => return self.changed(request, operation.operation),
        };
        if tag.is_some() && !observed {
            return;
        }
        let key = Key::of(request);
        self.remove(&key);
        let entry = Entry { response: response.clone(), until: now + most, tag, used: 0 };
        self.bytes += bytes(&key, &entry);
        self.entries.insert(key.clone(), entry);
        self.touch(&key);
        while self.entries.len() > self.most_entries || self.bytes > self.most_bytes {
            let Some((_, oldest)) = self.used.first_key_value() else { return };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    /// Forgets what a request that was done has changed.
    fn changed(&mut self, request: &http::Request<Bytes>, operation: &str) {
        let argument = |place| argument(request, place);
        match operation {
            "logout" | "logout_all" | "deactivateAccount" => {
                self.forget(request.headers().get(header::AUTHORIZATION))
            }
            _ if *request.method() == Method::GET => {}
            "setPushRule" | "deletePushRule" | "setPushRuleEnabled" | "setPushRuleActions" => {
                self.end(&Tag::PushRules);
            }
            "setProfileField" | "deleteProfileField" => {
                self.end(&Tag::Profile(argument("profile")));
                // A new name is a membership event in each room.
                self.end_all(|tag| matches!(tag, Tag::Members(_)));
            }
            "joinRoomById"
            | "joinRoom"
            | "leaveRoom"
            | "inviteUser"
            | "kick"
            | "ban"
            | "unban"
            | "knockRoom"
            | "setRoomStateWithKey" => self.end(&Tag::Members(argument("rooms"))),
            _ => {}
        }
    }

    /// Forgets what a sync says has changed.
    pub(super) fn synced(&mut self, json: &[u8]) {
        if self.entries.values().all(|entry| entry.tag.is_none()) {
            return;
        }
        let Ok(sync) = serde_json::from_slice::<Value>(json) else { return self.end_all(|_| true) };
        if events(&sync, "/account_data/events").any(|event| is_text(event, "/type", "m.push_rules")) {
            self.end(&Tag::PushRules);
        }
        let memberships = ["/rooms/join", "/rooms/leave", "/rooms/invite", "/rooms/knock"];
        let rooms = memberships.iter().filter_map(|rooms| sync.pointer(rooms)?.as_object()).flatten();
        for (room, said) in rooms {
            for part in ["/state/events", "/state_after/events", "/timeline/events", "/invite_state/events"] {
                events(said, part).for_each(|event| self.seen(room, event));
            }
            if said.pointer("/timeline/limited") == Some(&Value::Bool(true)) {
                self.end(&Tag::Members(room.clone()));
                self.end_all(|tag| matches!(tag, Tag::Event(_)));
            }
        }
        for user in events(&sync, "/presence/events") {
            if let Some(sender) = text(user, "/sender") {
                self.end(&Tag::Profile(sender.to_owned()));
            }
        }
    }

    /// Forgets what was said to who has this token.
    pub(super) fn forget(&mut self, token: Option<&HeaderValue>) {
        let token = token.map(|token| token.as_bytes().to_vec());
        let of_token = self.entries.keys().filter(|key| key.token.is_some() && key.token == token);
        for key in of_token.cloned().collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    fn seen(&mut self, room: &str, event: &Value) {
        if is_text(event, "/type", "m.room.member") {
            self.end(&Tag::Members(room.to_owned()));
            if let Some(user) = text(event, "/state_key") {
                self.end(&Tag::Profile(user.to_owned()));
            }
        }
        for place in ["/redacts", "/content/redacts", "/content/m.relates_to/event_id"] {
            if let Some(id) = text(event, place) {
                self.end(&Tag::Event(id.to_owned()));
            }
        }
    }

    fn end(&mut self, tag: &Tag) {
        self.end_all(|other| other == tag);
    }

    fn end_all(&mut self, ends: impl Fn(&Tag) -> bool) {
        let ended = self.entries.iter().filter(|(_, entry)| entry.tag.as_ref().is_some_and(&ends));
        for key in ended.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    fn touch(&mut self, key: &Key) {
        self.uses += 1;
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.used.remove(&entry.used);
        entry.used = self.uses;
        self.used.insert(self.uses, key.clone());
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.used.remove(&entry.used);
        self.bytes -= bytes(key, &entry);
    }
}

impl Key {
    fn of(request: &http::Request<Bytes>) -> Self {
        let token = request.headers().get(header::AUTHORIZATION);
        Self {
            token: token.map(|token| token.as_bytes().to_vec()),
            method: request.method().to_string(),
            uri: request.uri().to_string(),
            body: request.body().clone(),
        }
    }
}

fn bytes(key: &Key, entry: &Entry) -> usize {
    2 * (key.uri.len() + key.body.len()) + entry.response.body().len()
}

/// The decoded segment after the one with this name.
fn argument(request: &http::Request<Bytes>, name: &str) -> String {
    let segments = crate::matrix::split_path(request.uri().path()).unwrap_or_default();
    let place = segments.iter().position(|segment| segment == name);
    place.and_then(|place| segments.get(place + 1)).cloned().unwrap_or_default()
}

fn events<'a>(value: &'a Value, place: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(place).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, place: &str) -> Option<&'a str> {
    value.pointer(place)?.as_str()
}

fn is_text(value: &Value, place: &str, wanted: &str) -> bool {
    text(value, place) == Some(wanted)
}
