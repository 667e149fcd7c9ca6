//! What a gateway needs to know of an answer to `/sync` (Matrix 1.19 client-server API, "Syncing"): where the next one
//! begins, and whether this one says anything.
//!
//! Reads the JSON in one pass and keeps the position and a few counters of it.

use std::collections::BTreeMap;
use std::fmt;

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
    has_content: bool,
}

/// The key counts last stated to a peer.
#[derive(Debug, Clone, Default, PartialEq)]
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
    Ok(Summary { next_batch, counters: answer.counters, has_content: answer.has_content })
}

/// Whether a JSON value has anything in it but empty arrays, and objects of such. What cannot be told counts as content.
pub(super) fn has_content(json: &str) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    HasContent { names_below: None }.deserialize(&mut deserializer).unwrap_or(true)
}

impl Summary {
    /// Whether it says nothing new to a peer that knows the `previous` counters.
    pub fn is_empty_since(&self, previous: &Counters) -> bool {
        !self.has_content && self.counters.0.iter().all(|(name, value)| previous.0.get(name) == Some(value))
    }
}

impl Counters {
    /// Takes over what is stated in `later`.
    pub fn merge(&mut self, later: &Counters) {
        self.0.extend(later.0.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

#[derive(Default)]
struct Answer {
    next_batch: Option<String>,
    counters: Counters,
    has_content: bool,
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
                // Below here the names of rooms are content: one that was left may have nothing inside.
                "rooms" => {
                    answer.has_content |= members.next_value_seed(HasContent { names_below: Some(2) })?
                }
                counter if COUNTERS.contains(&counter) => {
                    answer.counters.0.insert(name, members.next_value()?);
                }
                _ => answer.has_content |= members.next_value_seed(HasContent { names_below: None })?,
            }
        }
        Ok(answer)
    }
}

/// Walks a value: is there anything but empty arrays, and objects of such?
#[derive(Clone, Copy)]
struct HasContent {
    /// How many levels of objects from here until the names of members are content; `None` if they never are.
    names_below: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for HasContent {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for HasContent {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let inner = HasContent { names_below: self.names_below.map(|levels| levels.saturating_sub(1)) };
        let mut has_content = false;
        while members.next_key::<IgnoredAny>()?.is_some() {
            has_content |= members.next_value_seed(inner)? || self.names_below == Some(1);
        }
        Ok(has_content)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<bool, A::Error> {
        let mut has_content = false;
        while let Some(element) = elements.next_element_seed(HasContent { names_below: None })? {
            has_content |= element;
        }
        Ok(has_content)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(true)
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
