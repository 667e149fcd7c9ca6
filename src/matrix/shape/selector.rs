//! What a value must be for a path of the table to lead on from it, or to end at it.
//!
//! Works on JSON text, one level at a time. What has another form than the specification says is never selected.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::Deserialize;
use serde::de::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::matrix::sync;

/// Members of a room that repeat how much is unread.
const UNREAD: [&str; 4] = [
    "unread_notifications",
    "unread_thread_notifications",
    "org.matrix.msc3773.unread_thread_notifications",
    "org.matrix.msc2654.unread_count",
];

/// What follows a `?` in the table, whose head explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selector {
    Any,
    Type(&'static str),
    Echo,
    Unlimited,
    False,
    Empty,
    Idle,
    Hushed,
}

impl Selector {
    pub(super) fn parse(text: &'static str) -> Option<Self> {
        Some(match text {
            "echo" => Selector::Echo,
            "unlimited" => Selector::Unlimited,
            "false" => Selector::False,
            "empty" => Selector::Empty,
            "idle" => Selector::Idle,
            "hushed" => Selector::Hushed,
            _ => Selector::Type(text.strip_prefix("type=")?),
        })
    }

    /// Whether a value is meant that was `before`, and is `now`, after what goes from inside it.
    pub(super) fn selects(self, before: &str, now: &str) -> bool {
        match self {
            Selector::Any => true,
            Selector::Type(own) => {
                Members::read(now).is_some_and(|event| event.text("type").as_deref() == Some(own))
            }
            Selector::Echo => is_echo(now).unwrap_or(false),
            Selector::Unlimited => Members::read(now).is_some_and(|timeline| timeline.is_unlimited()),
            Selector::False => now == "false",
            Selector::Empty => is_empty(now),
            Selector::Idle => Members::read(now).is_some_and(|room| room.is_idle(&[])),
            Selector::Hushed => {
                let had_ephemeral = Members::read(before).is_some_and(|room| room.has_content("ephemeral"));
                had_ephemeral && Members::read(now).is_some_and(|room| room.is_idle(&UNREAD))
            }
        }
    }
}

/// Matrix 1.19, "UnsignedData": only the device that has sent an event is told its transaction id. A change of state is
/// news to it all the same, and so is a redaction.
fn is_echo(event: &str) -> Option<bool> {
    let event = Members::read(event)?;
    let unsigned = Members::read(event.get("unsigned")?)?;
    let is_own = event.text("event_id").is_some() && unsigned.text("transaction_id").is_some();
    Some(is_own && event.get("state_key").is_none() && unsigned.get("redacted_because").is_none())
}

fn is_empty(value: &str) -> bool {
    let inside = |open, close| value.strip_prefix(open)?.strip_suffix(close);
    inside('{', '}').or_else(|| inside('[', ']')).is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// The members of an object, each once: of those with the same name the last counts.
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None` for what is no object, or has a name that is no text.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get()))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    fn has_content(&self, name: &str) -> bool {
        self.get(name).is_some_and(sync::has_content)
    }

    fn is_unlimited(&self) -> bool {
        matches!(self.get("limited"), None | Some("false"))
    }

    /// Whether a room has nothing in it, `beside` these.
    fn is_idle(&self, beside: &[&str]) -> bool {
        self.iter().all(|(name, value)| {
            let is_quiet_timeline =
                || name == "timeline" && Members::read(value).is_some_and(|timeline| timeline.is_quiet());
            beside.contains(&name) || !sync::has_content(value) || is_quiet_timeline()
        })
    }

    /// Whether a timeline has neither events nor a gap.
    fn is_quiet(&self) -> bool {
        let known = |name: &str| ["limited", "prev_batch"].contains(&name);
        self.is_unlimited() && self.iter().all(|(name, value)| known(name) || !sync::has_content(value))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members<'de>, A::Error> {
        let mut members: Vec<(String, &RawValue)> = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        let mut seen = BTreeSet::new();
        let is_last: Vec<bool> = members.iter().rev().map(|(name, _)| seen.insert(name.as_str())).collect();
        let kept = members.iter().zip(is_last.iter().rev()).filter(|(_, is_last)| **is_last);
        Ok(Members(kept.map(|(member, _)| member.clone()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &'static str, value: &str) -> bool {
        Selector::parse(selector).unwrap().selects(value, value)
    }

    #[test]
    fn an_echo_has_both_ids_and_is_neither_state_nor_redacted() {
        assert!(selects("echo", r#"{"event_id":"$1","unsigned":{"transaction_id":"t"}}"#));
        for event in [
            r#"{"event_id":"$1","unsigned":{}}"#,
            r#"{"unsigned":{"transaction_id":"t"}}"#,
            r#"{"event_id":"$1","unsigned":{"transaction_id":1}}"#,
            r#"{"event_id":"$1","transaction_id":"t"}"#,
            r#"{"event_id":"$1","state_key":"","unsigned":{"transaction_id":"t"}}"#,
            r#"{"event_id":"$1","unsigned":{"transaction_id":"t","redacted_because":{}}}"#,
            "[]",
            "1",
        ] {
            assert!(!selects("echo", event), "{event}");
        }
    }

    #[test]
    fn a_room_is_idle_if_nothing_is_in_it() {
        assert!(selects("idle", "{}"));
        assert!(selects(
            "idle",
            r#"{"timeline":{"events":[],"limited":false,"prev_batch":"p"},"state":{"events":[]},"summary":{}}"#
        ));
        for room in [
            r#"{"timeline":{"events":[],"limited":true,"prev_batch":"p"}}"#,
            r#"{"timeline":{"events":[{}, 1]}}"#,
            r#"{"timeline":{"events":[],"limited":"no"}}"#,
            r#"{"timeline":{"events":[],"more":1}}"#,
            r#"{"unread_notifications":{"highlight_count":0}}"#,
            r#"{"summary":{"m.joined_member_count":2}}"#,
            r#"{"more":null}"#,
        ] {
            assert!(!selects("idle", room), "{room}");
        }
    }

    #[test]
    fn emptiness_may_have_white_space_in_it() {
        for value in ["{}", "[]", "{ }", "[\n]"] {
            assert!(selects("empty", value), "{value}");
        }
        for value in ["[[]]", "\"\"", "null", "0", "{\"a\":{}}"] {
            assert!(!selects("empty", value), "{value}");
        }
    }

    #[test]
    fn of_members_with_one_name_the_last_counts() {
        let members = Members::read(r#"{"a":1,"b":2,"\u0061":3}"#).unwrap();
        assert_eq!(members.iter().collect::<Vec<_>>(), [("b", "2"), ("a", "3")]);
        assert!(Members::read(r#"{"\ud800":1}"#).is_none());
        assert!(Members::read("[]").is_none());
    }
}
