//! /sync (client-server API v1.19 §"Syncing"): everything that is new to a device since a position.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Homeserver;
use super::data::ruleset;
use super::event::Event;
use super::filter::Filter;
use super::messages::token;
use super::request::Call;
use super::request::Caller;
use super::request::Refusal;
use super::room::Room;

/// One /sync, as asked.
struct Sync<'a> {
    caller: &'a Caller,
    filter: Filter,
    /// The position of the last answer; zero for the first.
    since: u64,
    full_state: bool,
    now_ms: u64,
}

impl Homeserver {
    /// Returns what is new, or `None` while there is nothing and the timeout has not passed.
    pub(super) fn sync(&mut self, caller: &Caller, call: &Call<'_>) -> Result<Option<Value>, Refusal> {
        let since = call.query("since").map(|token| self.read_token("since", token)).transpose()?;
        call.query_number("timeout")?;
        let sync = Sync {
            caller,
            filter: self.sync_filter(caller, call.query("filter"))?,
            since: since.unwrap_or(0),
            full_state: since.is_none() || call.query("full_state") == Some("true"),
            now_ms: call.now_ms,
        };
        self.acknowledge_inbox(caller, sync.since)?;
        let news = self.news(&sync);
        if news.is_empty() && !sync.full_state && call.now_ms < self.sync_timeout(call) {
            return Ok(None);
        }
        let mut answer = Map::from_iter([("next_batch".to_owned(), json!(token(self.position)))]);
        answer.extend(news);
        if let Some((counts, fallback)) = self.key_counts(caller) {
            answer.insert("device_one_time_keys_count".to_owned(), counts);
            answer.insert("device_unused_fallback_key_types".to_owned(), fallback);
        }
        Ok(Some(Value::Object(answer)))
    }

    /// When a /sync that waits is to be looked at again: at its timeout, or when somebody's typing ends.
    pub(super) fn sync_deadline(&self, call: &Call<'_>) -> u64 {
        let timeout = self.sync_timeout(call);
        self.next_typing_end().map_or(timeout, |end| end.min(timeout))
    }

    fn sync_timeout(&self, call: &Call<'_>) -> u64 {
        let timeout = call.query_number("timeout").ok().flatten().unwrap_or(0);
        call.request.arrived_ms.saturating_add(timeout.min(self.config.limits.long_poll_ms))
    }

    /// The sections of the answer that have something in them.
    fn news(&self, sync: &Sync<'_>) -> Map<String, Value> {
        let mut news = Map::new();
        let account_data = self.global_account_data(sync);
        let presence = self.presence_news(sync);
        let inbox = self.inbox(sync.caller);
        for (name, events) in [("account_data", account_data), ("presence", presence), ("to_device", inbox)] {
            if !events.is_empty() {
                news.insert(name.to_owned(), json!({ "events": events }));
            }
        }
        let changed = self.users_with_new_keys(sync.caller, sync.since);
        if sync.since > 0 && !changed.is_empty() {
            news.insert("device_lists".to_owned(), json!({ "changed": changed, "left": [] }));
        }
        let mut rooms: Map<String, Value> = Map::new();
        for room in self.rooms.values().filter(|room| sync.filter.wants_room(&room.id)) {
            let Some((section, update)) = self.room_news(sync, room) else { continue };
            let section = rooms.entry(section).or_insert_with(|| json!({}));
            section.as_object_mut().map(|section| section.insert(room.id.clone(), update));
        }
        if !rooms.is_empty() {
            news.insert("rooms".to_owned(), Value::Object(rooms));
        }
        news
    }

    fn global_account_data(&self, sync: &Sync<'_>) -> Vec<Value> {
        let mut events = self.account_data_since(sync.caller, None, sync.since);
        if sync.since == 0 {
            events.push(json!({ "type": "m.push_rules", "content": { "global": ruleset() } }));
        }
        events.retain(|event| sync.filter.account_data.wants_type(event["type"].as_str().unwrap_or("")));
        events
    }

    fn account_data_since(&self, caller: &Caller, room_id: Option<&str>, since: u64) -> Vec<Value> {
        let data = self.users.get(&caller.user_id).map(|user| &user.account_data).into_iter().flatten();
        let data = data.filter(|((room, _), stored)| room.as_deref() == room_id && stored.position > since);
        data.map(|((_, kind), stored)| json!({ "type": kind, "content": stored.content })).collect()
    }

    fn presence_news(&self, sync: &Sync<'_>) -> Vec<Value> {
        if !sync.filter.presence.wants_type("m.presence") {
            return Vec::new();
        }
        let known = self.acquaintances(&sync.caller.user_id).into_iter();
        let news = known.filter_map(|id| {
            let presence = self.users.get(id)?.presence.as_ref()?;
            let new = presence.position > sync.since;
            new.then(|| json!({ "type": "m.presence", "sender": id, "content": presence.content }))
        });
        news.collect()
    }

    fn inbox(&self, caller: &Caller) -> Vec<Value> {
        let device = self.users.get(&caller.user_id).and_then(|user| user.devices.get(&caller.device_id));
        let inbox = device.into_iter().flat_map(|device| &device.inbox);
        inbox.map(|(_, message)| message.clone()).collect()
    }

    /// The section of `rooms` that a room belongs in, and what is new in it.
    fn room_news(&self, sync: &Sync<'_>, room: &Room) -> Option<(&'static str, Value)> {
        let member = room.state_event("m.room.member", &sync.caller.user_id)?;
        let changed = member.position > sync.since;
        let before = room.member_at(&sync.caller.user_id, sync.since).map_or("", Event::membership);
        match member.membership() {
            "join" => Some(("join", self.joined_room(sync, room, before == "join")?)),
            "invite" if changed => Some(("invite", invited_room(room, member))),
            "leave" | "ban"
                if changed && sync.since > 0 && !room.forgotten_by.contains(&sync.caller.user_id) =>
            {
                Some(("leave", left_room(sync, room, member, before)))
            }
            _ => None,
        }
    }

    fn joined_room(&self, sync: &Sync<'_>, room: &Room, was_there: bool) -> Option<Value> {
        // Who has just come sees the room from its beginning.
        let since = if was_there { sync.since } else { 0 };
        let whole = sync.full_state || !was_there;
        let timeline = Timeline::new(sync, room, since, u64::MAX);
        let state = timeline.state(sync, room, if whole { 0 } else { since });
        let mut account_data = self.account_data_since(sync.caller, Some(&room.id), since);
        account_data
            .retain(|event| sync.filter.room_account_data.wants_type(event["type"].as_str().unwrap_or("")));
        let passing = [room.typing_since(since), room.receipts_since(since, &sync.caller.user_id)];
        let mut ephemeral: Vec<Value> = passing.into_iter().flatten().collect();
        ephemeral.retain(|event| sync.filter.ephemeral.wants_type(event["type"].as_str().unwrap_or("")));
        // An own private receipt or a room read to its end on another device changes the counts alone.
        if !whole
            && timeline.is_empty()
            && state.is_empty()
            && account_data.is_empty()
            && ephemeral.is_empty()
        {
            return None;
        }
        let members_changed = whole || timeline.events.iter().any(|event| event.kind == "m.room.member");
        Some(json!({
            "timeline": timeline.show(sync, room),
            "state": { "events": state },
            "account_data": { "events": account_data },
            "ephemeral": { "events": ephemeral },
            "unread_notifications": {
                "notification_count": room.unread(&sync.caller.user_id),
                "highlight_count": 0,
            },
            "summary": if members_changed { summary(room, &sync.caller.user_id) } else { json!({}) },
        }))
    }
}

/// The events of one room in one answer: the newest, up to the filter's limit.
struct Timeline<'a> {
    events: Vec<&'a Event>,
    limited: bool,
    /// The position just before the first event.
    start: u64,
}

impl<'a> Timeline<'a> {
    fn new(sync: &Sync<'_>, room: &'a Room, since: u64, until: u64) -> Timeline<'a> {
        let news = room.timeline().iter().rev().skip_while(|event| event.position > until);
        let mut news =
            news.take_while(|event| event.position > since).filter(|event| sync.filter.timeline.wants(event));
        let mut events: Vec<&Event> = news.by_ref().take(sync.filter.timeline.limit).collect();
        let limited = news.next().is_some();
        events.reverse();
        let start = events.first().map(|event| event.position.saturating_sub(1));
        let end = room.timeline().last().map_or(since, |event| event.position.min(until));
        Timeline { events, limited, start: start.unwrap_or(end) }
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// State events between `since` and the first event of the timeline.
    fn state(&self, sync: &Sync<'_>, room: &Room, since: u64) -> Vec<Value> {
        let state = room
            .state_at(self.start)
            .filter(|event| event.position > since && sync.filter.state.wants(event));
        state.map(|event| room.to_client(event, sync.caller, sync.now_ms)).collect()
    }

    fn show(&self, sync: &Sync<'_>, room: &Room) -> Value {
        let events: Vec<Value> =
            self.events.iter().map(|event| room.to_client(event, sync.caller, sync.now_ms)).collect();
        json!({ "events": events, "limited": self.limited, "prev_batch": token(self.start) })
    }
}

fn invited_room(room: &Room, invitation: &Event) -> Value {
    // §"Stripped state": what helps to decide whether to come.
    let shown = [
        "m.room.create",
        "m.room.name",
        "m.room.avatar",
        "m.room.topic",
        "m.room.join_rules",
        "m.room.canonical_alias",
        "m.room.encryption",
    ];
    let state = room.state().filter(|event| shown.contains(&event.kind.as_str()));
    let inviter = room.state_event("m.room.member", &invitation.sender);
    let events: Vec<Value> = state.chain(inviter).chain([invitation]).map(Event::to_stripped).collect();
    json!({ "invite_state": { "events": events } })
}

fn left_room(sync: &Sync<'_>, room: &Room, member: &Event, before: &str) -> Value {
    // Who was there sees all up to the end of it; who was only invited sees that end.
    let since = if before == "join" { sync.since } else { member.position.saturating_sub(1) };
    let timeline = Timeline::new(sync, room, since, member.position);
    let state = timeline.state(sync, room, since);
    json!({
        "timeline": timeline.show(sync, room),
        "state": { "events": state },
        "account_data": { "events": [] },
    })
}

fn summary(room: &Room, own: &str) -> Value {
    let count = |membership: &str| room.members().filter(|event| event.membership() == membership).count();
    let others = room.members().filter(|event| event.state_key.as_deref() != Some(own));
    let heroes = others.filter(|event| ["join", "invite"].contains(&event.membership()));
    let heroes: Vec<&str> = heroes.filter_map(|event| event.state_key.as_deref()).take(5).collect();
    json!({ "m.joined_member_count": count("join"), "m.invited_member_count": count("invite"), "m.heroes": heroes })
}
