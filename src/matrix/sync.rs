//! What a gateway needs to know of an answer to `/sync` (Matrix 1.19 client-server API, "Syncing"): where the next one
//! begins, and whether this one says anything.
//!
//! Reads the JSON in one pass and keeps the position and a few counters of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;

/// Members that homeservers send whether or not they changed.
const COUNTERS: [&str; 3] = [
    "device_one_time_keys_count",
    "device_unused_fallback_key_types",
    "org.matrix.msc2732.device_unused_fallback_key_types",
];

/// What an answer to `/sync` comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The position after it: the `since` of the next request.
    pub next_batch: String,
    /// The counters it states.
    pub counters: Counters,
    content: Weight,
}

/// How much a part of an answer matters; what matters most in it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// It says nothing.
    #[default]
    Nothing,
    /// Who is online, typing, or has read how far: worth little, and that not for long.
    Passing,
    /// All else.
    Lasting,
}

/// The key counts last stated to a peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters(BTreeMap<String, Value>);

/// Why an answer is none to `/sync`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// It is not a JSON object, or too deeply nested.
    #[error("answer to /sync is not a JSON object: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It does not say where the next one begins.
    #[error("answer to /sync has no next_batch")]
    NoPosition,
}

/// Reads an answer to `/sync`.
///
/// ```
/// let idle = br#"{"next_batch":"s2","rooms":{"join":{}},"device_one_time_keys_count":{"x":50}}"#;
/// let summary = lowband::matrix::sync::summary(idle).unwrap();
/// assert_eq!(summary.next_batch, "s2");
/// assert!(summary.is_empty_since(&summary.counters));
/// ```
pub fn summary(json: &[u8]) -> Result<Summary, SyncError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let answer = deserializer.deserialize_map(AnswerVisitor)?;
    deserializer.end()?;
    let next_batch = answer.next_batch.ok_or(SyncError::NoPosition)?;
    Ok(Summary { next_batch, counters: answer.counters, content: answer.content })
}

/// Whether a JSON value has anything in it but empty arrays, and objects of such. What cannot be told counts as content.
pub(super) fn has_content(json: &str) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let weight = Place::Other(Weight::Lasting).deserialize(&mut deserializer);
    weight.map_or(true, |weight| weight != Weight::Nothing)
}

impl Summary {
    /// Whether it says nothing new to a peer that knows the `previous` counters.
    pub fn is_empty_since(&self, previous: &Counters) -> bool {
        self.content == Weight::Nothing && self.counters.is_known_from(previous)
    }

    /// Whether nothing in it is new, to a peer that knows the `previous` counters, but who is online, who is typing, and who has read
    /// how far.
    pub fn is_passing_since(&self, previous: &Counters) -> bool {
        self.content == Weight::Passing && self.counters.is_known_from(previous)
    }
}

impl Counters {
    /// Takes over what is stated in `later`.
    pub fn merge(&mut self, later: &Counters) {
        self.0.extend(later.0.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// The counters, as the homeserver states them: by their members' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn is_known_from(&self, previous: &Counters) -> bool {
        self.0.iter().all(|(name, value)| previous.0.get(name) == Some(value))
    }
}

#[derive(Default)]
struct Answer {
    next_batch: Option<String>,
    counters: Counters,
    content: Weight,
}

struct AnswerVisitor;

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Answer, A::Error> {
        let mut answer = Answer::default();
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "next_batch" => answer.next_batch = Some(members.next_value()?),
                counter if COUNTERS.contains(&counter) => {
                    answer.counters.0.insert(name, members.next_value()?);
                }
                name => answer.content = answer.content.max(members.next_value_seed(Place::at_top(name))?),
            }
        }
        Ok(answer)
    }
}

/// A place in an answer: walked, it says how much there matters. Empty arrays, and objects of such, say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `rooms`.
    Rooms,
    /// The rooms of one membership. Their names are content: one that was left may have nothing inside.
    RoomsOf { joined: bool },
    /// A room that the user is in. Homeservers state its unread counts and an empty timeline whatever is new in it.
    JoinedRoom,
    /// Its timeline.
    Timeline,
    /// Whether that has a gap.
    Limited,
    /// Any other, where content weighs this much.
    Other(Weight),
}

impl Place {
    fn at_top(name: &str) -> Self {
        match name {
            "rooms" => Self::Rooms,
            "presence" => Self::Other(Weight::Passing),
            _ => Self::Other(Weight::Lasting),
        }
    }

    fn below(self, name: &str) -> Self {
        match (self, name) {
            (Self::Rooms, membership) => Self::RoomsOf { joined: membership == "join" },
            (Self::RoomsOf { joined: true }, _) => Self::JoinedRoom,
            (Self::JoinedRoom, "timeline") => Self::Timeline,
            (Self::JoinedRoom, "ephemeral" | "unread_notifications" | "unread_thread_notifications") => {
                Self::Other(Weight::Passing)
            }
            (Self::Timeline, "limited") => Self::Limited,
            (Self::Timeline, "prev_batch") => Self::Other(Weight::Nothing),
            (Self::Other(weight), _) => Self::Other(weight),
            _ => Self::Other(Weight::Lasting),
        }
    }

    /// The weight of a value here that is neither an array nor an object.
    fn scalar(self) -> Weight {
        match self {
            Self::Other(weight) => weight,
            _ => Weight::Lasting,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Weight;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Weight, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Weight, A::Error> {
        let mut all = Weight::Nothing;
        if let Self::Other(_) = self {
            while members.next_key::<IgnoredAny>()?.is_some() {
                all = all.max(members.next_value_seed(self)?);
            }
            return Ok(all);
        }
        while let Some(name) = members.next_key::<String>()? {
            let inside = members.next_value_seed(self.below(&name))?;
            let is_name = inside == Weight::Nothing && matches!(self, Self::RoomsOf { .. });
            all = all.max(if is_name { Weight::Lasting } else { inside });
        }
        Ok(all)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Weight, A::Error> {
        let mut all = Weight::Nothing;
        while let Some(element) = elements.next_element_seed(Self::Other(self.scalar()))? {
            all = all.max(element);
        }
        Ok(all)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Weight, E> {
        let is_gap = self != Self::Limited || value;
        Ok(if is_gap { self.scalar() } else { Weight::Nothing })
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(self.scalar())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
        Ok(self.scalar())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
        Ok(self.scalar())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
        Ok(self.scalar())
    }

    fn visit_str<E>(self, _: &str) -> Result<Weight, E> {
        Ok(self.scalar())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(json: &str) -> bool {
        summary(json.as_bytes()).unwrap().is_empty_since(&Counters::default())
    }

    #[test]
    fn empty_containers_say_nothing() {
        assert!(is_empty(r#"{"next_batch":"s1"}"#));
        assert!(is_empty(
            r#"{"next_batch":"s1","rooms":{"join":{},"leave":{}},"to_device":{"events":[]},"presence":{},"x":[[]]}"#
        ));
    }

    #[test]
    fn a_value_anywhere_says_something() {
        for member in [
            r#""to_device":{"events":[{"type":"m"}]}"#,
            r#""presence":{"events":[0]}"#,
            r#""device_lists":{"changed":["@a:b"],"left":[]}"#,
            r#""x":false"#,
            r#""x":{"y":null}"#,
            r#""x":"""#,
            r#""x":-1.5"#,
        ] {
            assert!(!is_empty(&format!(r#"{{"next_batch":"s1",{member}}}"#)), "{member}");
        }
    }

    #[test]
    fn a_room_that_was_left_says_something_though_nothing_is_in_it() {
        assert!(!is_empty(r#"{"next_batch":"s1","rooms":{"leave":{"!a:b":{}}}}"#));
        assert!(!is_empty(r#"{"next_batch":"s1","rooms":{"leave":{"!a:b":{"timeline":{"events":[]}}}}}"#));
    }

    fn is_passing(json: &str) -> bool {
        summary(json.as_bytes()).unwrap().is_passing_since(&Counters::default())
    }

    #[test]
    fn presence_typing_and_receipts_alone_pass() {
        let room =
            |members: &str| format!(r#"{{"next_batch":"s1","rooms":{{"join":{{"!a:b":{{{members}}}}}}}}}"#);
        let typing = r#""ephemeral":{"events":[{"type":"m.typing"}]}"#;
        let usual = r#""timeline":{"events":[],"limited":false,"prev_batch":"s0"},"state":{"events":[]},"summary":{},"unread_notifications":{"highlight_count":0}"#;
        assert!(is_passing(r#"{"next_batch":"s1","presence":{"events":[{"type":"m.presence"}]}}"#));
        assert!(is_passing(&room(typing)));
        assert!(is_passing(&room(&format!("{usual},{typing}"))));
        assert!(is_passing(&room(usual)), "counts that fell");
        for lasting in [
            r#""timeline":{"events":[{"type":"m.room.message"}]}"#,
            r#""timeline":{"events":[],"limited":true}"#,
            r#""state":{"events":[{"type":"m.room.name"}]}"#,
            r#""account_data":{"events":[{"type":"m.tag"}]}"#,
            r#""x":0"#,
        ] {
            assert!(!is_passing(&room(&format!("{typing},{lasting}"))), "{lasting}");
        }
        assert!(!is_passing(&room("")) && !is_empty(&room("")), "a room that was joined");
        assert!(!is_passing(r#"{"next_batch":"s1","rooms":{"leave":{"!a:b":{"ephemeral":{"x":1}}}}}"#));
        assert!(!is_passing(r#"{"next_batch":"s1"}"#));
        let counted = r#"{"next_batch":"s1","device_one_time_keys_count":{"a":1},"presence":{"events":[0]}}"#;
        assert!(!is_passing(counted));
        let summary = summary(counted.as_bytes()).unwrap();
        assert!(summary.is_passing_since(&summary.counters));
    }

    #[test]
    fn unchanged_counters_say_nothing() {
        let answer = |count: u32| {
            summary(
                format!(r#"{{"next_batch":"s","device_one_time_keys_count":{{"a":{count}}}}}"#).as_bytes(),
            )
            .unwrap()
        };
        let mut delivered = Counters::default();
        assert!(!answer(50).is_empty_since(&delivered));
        delivered.merge(&answer(50).counters);
        assert!(answer(50).is_empty_since(&delivered));
        assert!(!answer(49).is_empty_since(&delivered));
        assert!(summary(br#"{"next_batch":"s"}"#).unwrap().is_empty_since(&delivered));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for json in ["", "[]", "null", "{", r#"{"next_batch":1}"#, r#"{"next_batch":"s"} {}"#, "<html>"] {
            assert!(matches!(summary(json.as_bytes()), Err(SyncError::NotJson(_))), "{json}");
        }
        assert!(matches!(summary(b"{}"), Err(SyncError::NoPosition)));
        let deep = format!(r#"{{"next_batch":"s","x":{}"#, "[".repeat(100_000));
        assert!(matches!(summary(deep.as_bytes()), Err(SyncError::NotJson(_))));
    }
}
