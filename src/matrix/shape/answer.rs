//! Answers: what a shape leaves out of them.
//!
//! Goes only where the table's paths lead. Everything else is carried over as the text that it was, byte for byte.

use serde_json::Value;
use serde_json::value::RawValue;

use super::Part;
use super::Shape;
use super::field::Field;
use super::field::Step;
use super::field::When;
use super::field::fields;
use super::selector::Members;
use super::selector::Selector;
use crate::matrix::query;

impl Shape {
    /// An answer to `/sync` without what the shape leaves out; `None` if that is nothing, or this is no JSON.
    ///
    /// `query` is that of the request, with or without the shape's filter in it. Doing it twice changes nothing more.
    pub fn answer(&self, json: &[u8], query: &[String]) -> Option<Vec<u8>> {
        if self.drop.is_empty() {
            return None;
        }
        let text: &RawValue = serde_json::from_slice(json).ok()?;
        let when = when(query);
        let paths: Vec<_> = fields().iter().filter_map(|field| self.path(field, when)).collect();
        without(text.get(), &paths).map(String::into_bytes)
    }

    /// The path of a field, if it goes from such an answer.
    fn path(&self, field: &'static Field, when: When) -> Option<Path> {
        let is_dropped = self.drop.contains(&field.part);
        let applies = is_dropped || field.part == Part::Empty;
        let path = Path { steps: &field.steps, only_changed: !is_dropped };
        (applies && (field.when == When::Always || field.when == when)).then_some(path)
    }
}

fn when(query: &[String]) -> When {
    let has_position = query::get(query, "since").is_some_and(|since| !since.is_empty());
    match has_position && query::get(query, "full_state") != Some("true") {
        true => When::Since,
        false => When::Always,
    }
}

/// What is left of a row's path at some value.
#[derive(Clone, Copy)]
struct Path {
    steps: &'static [Step],
    /// Whether what it leads to goes only if something has gone from inside it.
    only_changed: bool,
}

impl Path {
    /// The next step, and the path after it.
    fn split(self) -> Option<(&'static Step, Path)> {
        self.steps.split_first().map(|(step, steps)| (step, Path { steps, ..self }))
    }
}

/// What becomes of a value.
enum Fate<'a> {
    Stays(&'a str),
    Changes(String),
    Goes,
}

/// A value without what the paths lead to; `None` if that is nothing.
fn without(text: &str, paths: &[Path]) -> Option<String> {
    if paths.is_empty() {
        return None;
    }
    match text.as_bytes().first()? {
        b'{' => object_without(text, paths),
        b'[' => list_without(text, paths),
        _ => None,
    }
}

fn object_without(text: &str, paths: &[Path]) -> Option<String> {
    let members = Members::read(text)?;
    let fates: Vec<_> = members
        .iter()
        .map(|(name, value)| {
            let leads = |path: &Path| path.split().filter(|(step, _)| step.is_member(name));
            (Some(name), fate(value, paths.iter().filter_map(leads)))
        })
        .collect();
    write('{', &fates, '}')
}

fn list_without(text: &str, paths: &[Path]) -> Option<String> {
    let leads = |path: &Path| path.split().filter(|(step, _)| step.is_element());
    let paths: Vec<_> = paths.iter().filter_map(leads).collect();
    if paths.is_empty() {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let fates: Vec<_> =
        elements.iter().map(|value| (None, fate(value.get(), paths.iter().copied()))).collect();
    write('[', &fates, ']')
}

/// What becomes of a value that these steps lead to, each with the path after it.
fn fate(value: &str, steps: impl Iterator<Item = (&'static Step, Path)>) -> Fate<'_> {
    let (ends, onward): (Vec<_>, Vec<_>) = steps.partition(|(_, path)| path.steps.is_empty());
    let mut known = Vec::new();
    let mut leads_on = |selector: Selector| match known.iter().find(|(own, _)| *own == selector) {
        Some((_, selects)) => *selects,
        None => {
            let selects = selector.selects(value, value);
            known.push((selector, selects));
            selects
        }
    };
    let onward = onward.into_iter().filter(|(step, _)| leads_on(step.selector));
    let changed = without(value, &onward.map(|(_, path)| path).collect::<Vec<_>>());
    let now = changed.as_deref().unwrap_or(value);
    let goes = ends
        .iter()
        .any(|(step, path)| (changed.is_some() || !path.only_changed) && step.selector.selects(value, now));
    match changed {
        _ if goes => Fate::Goes,
        Some(changed) => Fate::Changes(changed),
        None => Fate::Stays(value),
    }
}

/// Writes what has not gone, members after their names; `None` if all stay.
fn write(open: char, fates: &[(Option<&str>, Fate<'_>)], close: char) -> Option<String> {
    if fates.iter().all(|(_, fate)| matches!(fate, Fate::Stays(_))) {
        return None;
    }
    let mut out = String::from(open);
    for (name, fate) in fates {
        let value = match fate {
            Fate::Stays(value) => value,
            Fate::Changes(value) => value.as_str(),
            Fate::Goes => continue,
        };
        if out.len() > 1 {
            out.push(',');
        }
        if let Some(name) = name {
            out.push_str(&Value::from(*name).to_string());
            out.push(':');
        }
        out.push_str(value);
    }
    out.push(close);
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::matrix::sync;

    fn shaped(drop: &[Part], query: &str, json: &str) -> Option<String> {
        let shape = Shape { drop: BTreeSet::from_iter(drop.iter().copied()), ..Shape::default() };
        let text = shape.answer(json.as_bytes(), &[query.to_owned()]);
        text.map(|text| String::from_utf8(text).unwrap())
    }

    const TYPING: &str = concat!(
        r#"{"next_batch":"s2","device_one_time_keys_count":{"x":50},"rooms":{"join":{"!r:hs":{"#,
        r#""timeline":{"events":[],"prev_batch":"s1","limited":false},"state":{"events":[]},"account_data":{"events":[]},"#,
        r#""ephemeral":{"events":[{"type":"m.typing","content":{"user_ids":["@a:hs"]}}]},"#,
        r#""unread_notifications":{"notification_count":0,"highlight_count":0},"summary":{}}}}}"#
    );

    #[test]
    fn an_answer_with_typing_alone_says_nothing_without_it() {
        let left = shaped(&[Part::Typing], "since=s1", TYPING).unwrap();
        assert_eq!(left, r#"{"next_batch":"s2","device_one_time_keys_count":{"x":50}}"#);
        let summary = sync::summary(left.as_bytes()).unwrap();
        assert!(summary.is_empty_since(&summary.counters));
    }

    #[test]
    fn a_joined_room_stays_in_the_first_answer_and_in_one_with_all_state() {
        for query in ["timeout=0", "since=", "full_state=true"] {
            let left = shaped(&[Part::Typing], query, TYPING).unwrap();
            assert!(left.contains("!r:hs") && !left.contains("ephemeral"), "{left}");
        }
        let both = ["since=s1".to_owned(), "full_state=true".to_owned()];
        let shape = Shape { drop: [Part::Typing].into(), ..Shape::default() };
        let left = shape.answer(TYPING.as_bytes(), &both).unwrap();
        assert!(left.windows(5).any(|text| text == b"!r:hs"));
    }

    #[test]
    fn a_room_with_something_beside_typing_stays_with_its_unread_counts() {
        let receipt = TYPING.replace(r#"[{"type":"m.typing""#, r#"[{"type":"m.receipt"},{"type":"m.typing""#);
        let left = shaped(&[Part::Typing], "since=s1", &receipt).unwrap();
        assert!(left.contains("m.receipt") && left.contains("unread_notifications"), "{left}");
        let limited = TYPING.replace("false", "true");
        let left = shaped(&[Part::Typing], "since=s1", &limited).unwrap();
        assert!(left.contains(r#""limited":true"#) && left.contains(r#""prev_batch":"s1""#), "{left}");
    }

    #[test]
    fn a_room_with_unread_counts_alone_is_no_idle_one() {
        let counts =
            r#"{"rooms":{"join":{"!r:hs":{"timeline":{"events":[]},"unread_notifications":{"n":0}}}}}"#;
        let left = r#"{"rooms":{"join":{"!r:hs":{"unread_notifications":{"n":0}}}}}"#;
        assert_eq!(shaped(&[Part::Empty], "since=s1", counts).unwrap(), left);
        assert_eq!(shaped(&[Part::Empty, Part::Unread], "since=s1", counts).unwrap(), "{}");
    }

    #[test]
    fn rooms_left_and_invitations_stay_though_nothing_is_in_them() {
        let json =
            r#"{"rooms":{"leave":{"!l:hs":{"timeline":{"events":[]}}},"invite":{"!i:hs":{}},"join":{}}}"#;
        let left = r#"{"rooms":{"leave":{"!l:hs":{}},"invite":{"!i:hs":{}}}}"#;
        assert_eq!(shaped(&[Part::Empty], "since=s1", json).unwrap(), left);
    }

    #[test]
    fn an_empty_state_after_stays() {
        let json = r#"{"rooms":{"leave":{"!l:hs":{"state_after":{"events":[]}}}}}"#;
        assert_eq!(shaped(&[Part::Empty], "since=s1", json), None);
    }

    #[test]
    fn an_own_echo_keeps_its_two_ids() {
        let echo = |rest: &str| {
            format!(
                r#"{{"rooms":{{"join":{{"!r:hs":{{"timeline":{{"events":[{{"event_id":"$1"{rest}}}]}}}}}}}}}}"#
            )
        };
        let full = r#","type":"m.room.message","sender":"@a:hs","content":{"body":"hi"},"origin_server_ts":1,"unsigned":{"age":5,"membership":"join","transaction_id":"t1"}"#;
        let left = echo(r#","unsigned":{"transaction_id":"t1"}"#);
        assert_eq!(shaped(&[Part::OwnEchoes], "since=s1", &echo(full)).unwrap(), left);
        // A device that has no position may have forgotten what it has sent.
        assert_eq!(shaped(&[Part::OwnEchoes], "timeout=0", &echo(full)), None);
        // What is not known may say something.
        let reacted = full.replace(r#""age":5"#, r#""m.relations":{}"#);
        let left = echo(r#","unsigned":{"m.relations":{},"transaction_id":"t1"}"#);
        assert_eq!(shaped(&[Part::OwnEchoes], "since=s1", &echo(&reacted)).unwrap(), left);
    }

    #[test]
    fn what_stays_stays_byte_for_byte() {
        let json = concat!(
            " {\"next_batch\": \"\\u0073\\ud800\", \"presence\": {}, \"x\":1e400,",
            "\"y\" : [ 1.0 , 123456789012345678901234567890 ] }\n"
        );
        let left = r#"{"next_batch":"\u0073\ud800","x":1e400,"y":[ 1.0 , 123456789012345678901234567890 ]}"#;
        assert_eq!(shaped(&[Part::Presence], "since=s1", json).unwrap(), left);
    }

    #[test]
    fn what_has_another_form_stays_as_it_is() {
        for json in [
            "",
            "{",
            "null",
            "[]",
            "<html>",
            r#"{"rooms":[]}"#,
            r#"{"rooms":{"join":[{"ephemeral":{"events":[{"type":"m.typing"}]}}]}}"#,
            r#"{"rooms":{"join":{"!r:hs":{"ephemeral":{"events":{"type":"m.typing"}}}}}}"#,
            r#"{"rooms":{"join":{"!r:hs":{"ephemeral":{"events":[{"type":["m.typing"]},"m.typing",{}]}}}}}"#,
            r#"{"rooms":{"join":{"!r:hs":{"timeline":{"events":[{"unsigned":"age"},1],"limited":0,"prev_batch":"p"}}}}}"#,
        ] {
            assert_eq!(shaped(&[Part::Typing, Part::Age, Part::PrevBatch], "since=s1", json), None, "{json}");
        }
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        let json = format!(r#"{{"rooms":{{"join":{{"!r:hs":{{"summary":{deep}}}}}}},"presence":{deep}}}"#);
        let left = format!(r#"{{"rooms":{{"join":{{"!r:hs":{{"summary":{deep}}}}}}}}}"#);
        assert_eq!(shaped(&[Part::Presence, Part::Empty], "since=s1", &json).unwrap(), left);
    }
}
