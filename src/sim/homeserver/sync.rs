//! `/sync`: what has happened since a position, and long polls for it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{CallId, Homeserver, Overheard, Room, Stage, Waiting, reply};
use crate::coap::Instant;
use crate::matrix;
use crate::matrix::query;
use crate::sim::transcript::Answered;

impl Homeserver {
    pub(super) fn sync(&mut self, id: CallId, user: String, request: &http::Request<Bytes>, now: Instant) {
        self.syncs += 1;
        let parameters = matrix::split_query(request.uri().query().unwrap_or_default()).unwrap_or_default();
        let since = query::get(&parameters, "since");
        let position = since.and_then(|since| since.strip_prefix('s')?.parse().ok());
        if since.is_some() && position.is_none() {
            self.bad_positions += 1;
            let error = json!({ "errcode": "M_UNKNOWN", "error": "Invalid stream token" });
            return self.answer(id, reply(StatusCode::BAD_REQUEST, &error), now);
        }
        let timeout =
            query::get(&parameters, "timeout").and_then(|timeout| timeout.parse().ok()).unwrap_or(0);
        let filter = query::get(&parameters, "filter").and_then(|filter| serde_json::from_str(filter).ok());
        let limit =
            filter.as_ref().and_then(|filter: &Value| filter.pointer("/room/timeline/limit")?.as_u64());
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(Self::TIMELINE);
        let timeout = Duration::from_millis(timeout).min(Self::LONGEST_POLL);
        match position {
            Some(since) if !timeout.is_zero() && !self.has_news(&user, since) => {
                let waiters = self.waiters.entry(user.clone()).or_default();
                waiters.insert(id);
                self.most_polls_of_one = self.most_polls_of_one.max(waiters.len());
                self.waiting.insert(id, Waiting { user, since, limit });
                self.most_polls = self.most_polls.max(self.waiting.len());
                self.enter(now + timeout, Stage::PollEnds(id));
            }
            _ => {
                let answer = self.changes(&user, position, limit, now);
                self.answer(id, reply(StatusCode::OK, &answer), now);
            }
        }
    }

    pub(super) fn end_poll(&mut self, id: CallId, now: Instant) {
        let Some(Waiting { user, since, limit }) = self.waiting.remove(&id) else { return };
        self.waiters.entry(user.clone()).or_default().remove(&id);
        let answer = self.changes(&user, Some(since), limit, now);
        self.answer(id, reply(StatusCode::OK, &answer), now);
    }

    fn has_news(&self, user: &str, since: u64) -> bool {
        self.rooms_of(user).any(|(_, room)| room.events.last().is_some_and(|event| event.position > since))
    }

    fn rooms_of(&self, user: &str) -> impl Iterator<Item = (&String, &Room)> {
        self.joined.get(user).into_iter().flatten().filter_map(|name| self.rooms.get_key_value(name))
    }

    /// What has happened since a position; everything, without one.
    fn changes(&mut self, user: &str, since: Option<u64>, limit: usize, now: Instant) -> Value {
        let changes = self.since(user, since, limit, now);
        let query = since.map(|since| format!("since=s{since}")).into_iter().collect();
        self.tell(user.to_owned(), "/_matrix/client/v3/sync".to_owned(), query, &changes);
        changes
    }

    pub(super) fn tell(&mut self, user: String, path: String, query: Vec<String>, answer: &Value) {
        if self.is_overheard {
            let body = Bytes::from(answer.to_string());
            self.overheard.push_back(Overheard::Answered(Answered { user, path, query, body }));
        }
    }

    fn since(&self, user: &str, since: Option<u64>, limit: usize, now: Instant) -> Value {
        let mut joined = serde_json::Map::new();
        for (name, room) in self.rooms_of(user) {
            let from = since.unwrap_or(0);
            let first = room.events.partition_point(|event| event.position <= from);
            let news = room.events.get(first..).unwrap_or_default();
            if news.is_empty() && since.is_some() {
                continue;
            }
            let shown = news.get(news.len().saturating_sub(limit)..).unwrap_or_default();
            let events: Vec<Value> = shown.iter().map(|event| event.to_json(user, now)).collect();
            let mut timeline = json!({ "events": events, "limited": shown.len() < news.len() });
            if let (Some(first), Some(timeline)) = (shown.first(), timeline.as_object_mut()) {
                timeline
                    .insert("prev_batch".to_owned(), format!("t{}", first.position.saturating_sub(1)).into());
            }
            let mut changes = json!({ "timeline": timeline });
            if let (None, Some(changes)) = (since, changes.as_object_mut()) {
                changes.insert("state".to_owned(), json!({ "events": room.state() }));
            }
            if let (true, Some(changes)) = (self.is_rich, changes.as_object_mut()) {
                changes.insert("ephemeral".to_owned(), self.beside(name, user, now));
                let unread = json!({ "notification_count": news.len(), "highlight_count": 0 });
                changes.insert("unread_notifications".to_owned(), unread);
            }
            joined.insert(name.clone(), changes);
        }
        let next_batch = format!("s{}", self.position);
        if joined.is_empty() {
            return json!({ "next_batch": next_batch });
        }
        json!({ "next_batch": next_batch, "rooms": { "join": joined } })
    }
}
