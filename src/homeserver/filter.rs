//! Filters, as far as they are applied (client-server API v1.19 §"Filtering"): which events, and how many.

use serde_json::Map;
use serde_json::Value;

use super::Homeserver;
use super::event::Event;
use super::request::Caller;
use super::request::Refusal;

/// The parts of a /sync filter.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) timeline: EventFilter,
    pub(super) state: EventFilter,
    pub(super) ephemeral: EventFilter,
    pub(super) room_account_data: EventFilter,
    pub(super) account_data: EventFilter,
    pub(super) presence: EventFilter,
    rooms: Option<Vec<String>>,
    not_rooms: Vec<String>,
}

/// Which events.
#[derive(Debug)]
pub(super) struct EventFilter {
    pub(super) limit: usize,
    types: Option<Vec<String>>,
    not_types: Vec<String>,
    senders: Option<Vec<String>>,
    not_senders: Vec<String>,
}

impl Homeserver {
    /// Reads the `filter` of /sync: a number given by POST /filter, or the filter itself.
    pub(super) fn sync_filter(&self, caller: &Caller, parameter: Option<&str>) -> Result<Filter, Refusal> {
        let filters = &self.user(&caller.user_id)?.filters;
        match parameter {
            None | Some("") => Ok(Filter::new(&Map::new())),
            Some(text) if text.starts_with('{') => Ok(Filter::new(&parse(text)?)),
            Some(id) => {
                let filter = id.parse().ok().and_then(|id: usize| filters.get(id));
                filter.map(Filter::new).ok_or_else(|| Refusal::invalid("no such filter"))
            }
        }
    }
}

impl Filter {
    fn new(filter: &Map<String, Value>) -> Filter {
        let room = filter.get("room");
        let of_room = |name: &str| EventFilter::new(room.and_then(|room| room.get(name)));
        Filter {
            timeline: of_room("timeline"),
            state: of_room("state"),
            ephemeral: of_room("ephemeral"),
            room_account_data: of_room("account_data"),
            account_data: EventFilter::new(filter.get("account_data")),
            presence: EventFilter::new(filter.get("presence")),
            rooms: texts(room, "rooms"),
            not_rooms: texts(room, "not_rooms").unwrap_or_default(),
        }
    }

    pub(super) fn wants_room(&self, room_id: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|id| id == room_id);
        self.rooms.as_deref().is_none_or(listed) && !listed(&self.not_rooms)
    }
}

impl EventFilter {
    /// Reads one part of a filter; what is absent or of another type filters nothing.
    pub(super) fn new(filter: Option<&Value>) -> EventFilter {
        let limit = filter.and_then(|filter| filter.get("limit")?.as_u64()).unwrap_or(10);
        EventFilter {
            limit: usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, 1_000),
            types: texts(filter, "types"),
            not_types: texts(filter, "not_types").unwrap_or_default(),
            senders: texts(filter, "senders"),
            not_senders: texts(filter, "not_senders").unwrap_or_default(),
        }
    }

    /// Reads the `filter` of /messages and /context.
    pub(super) fn parse(parameter: Option<&str>) -> Result<EventFilter, Refusal> {
        let filter = parameter.map(parse).transpose()?.map(Value::Object);
        Ok(EventFilter::new(filter.as_ref()))
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        let listed = |list: &[String]| list.contains(&event.sender);
        self.wants_type(&event.kind)
            && self.senders.as_deref().is_none_or(listed)
            && !listed(&self.not_senders)
    }

    /// A `*` in a type stands for any text; `not_types` wins.
    pub(super) fn wants_type(&self, kind: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|pattern| matches(pattern, kind));
        self.types.as_deref().is_none_or(listed) && !listed(&self.not_types)
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_str(text).map_err(|_| Refusal::invalid("the filter is not a JSON object"))
}

fn texts(filter: Option<&Value>, name: &str) -> Option<Vec<String>> {
    let list = filter?.get(name)?.as_array()?;
    Some(list.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect())
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(found) = text.find(part) else { return false };
        text = text.get(found + part.len()..).unwrap_or("");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "m.rooms", false),
            ("*", "", true),
            ("*.a", "b.a", true),
            ("*.a", "b.a.c", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYc", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
