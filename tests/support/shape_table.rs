//! The table of fields that a shape may drop, read by other code than `src` reads it with, and backwards: from what is gone.

use lowband::matrix::shape::Field;
use lowband::matrix::shape::Part;
use lowband::matrix::shape::Shape;
use lowband::matrix::shape::When;
use lowband::matrix::shape::fields;
use serde_json::Value;
use serde_json::json;

/// The table as one shape uses it. A place is the values from the whole answer down to one in it, each with its name.
pub(crate) struct Table<'s> {
    /// The shape.
    pub(crate) shape: &'s Shape,
    /// Whether the request has a position.
    pub(crate) has_since: bool,
}

pub(crate) type Place<'v> = Vec<(String, &'v Value)>;

impl Table<'_> {
    /// Whether `before` may have become `after`; else where it may not.
    pub(crate) fn allows<'v>(
        &self,
        place: &mut Place<'v>,
        before: &'v Value,
        after: &Value,
    ) -> Result<(), String> {
        match (before, after) {
            (before, after) if before == after => Ok(()),
            (Value::Object(before), Value::Object(after)) => {
                let kept = before.keys().filter(|name| after.contains_key(*name));
                if !kept.eq(after.keys()) {
                    return Err(text(place));
                }
                for (name, value) in before {
                    place.push((name.clone(), value));
                    match after.get(name) {
                        Some(after) => self.allows(place, value, after)?,
                        None => self.may_go(place)?,
                    }
                    place.pop();
                }
                Ok(())
            }
            (Value::Array(before), Value::Array(after)) => {
                let mut after = after.iter().peekable();
                for value in before {
                    place.push(("[]".to_owned(), value));
                    let length = place.len();
                    let is_kept = after.peek().is_some_and(|after| self.allows(place, value, after).is_ok());
                    place.truncate(length);
                    match is_kept {
                        true => drop(after.next()),
                        false => self.may_go(place)?,
                    }
                    place.pop();
                }
                after.next().map_or(Ok(()), |_| Err(text(place)))
            }
            _ => Err(text(place)),
        }
    }

    /// Whether a place may be gone: it is in the table itself, or what it holds may all be gone and it with it.
    fn may_go(&self, place: &mut Place<'_>) -> Result<(), String> {
        if self.dropped(place) {
            return Ok(());
        }
        let (name, value) = place.last().unwrap().clone();
        let path = text(place);
        if !self.drops(Part::Empty) && !self.loses(place) {
            return Err(path);
        }
        let is_room = path.starts_with("rooms/join/") && place.len() == 3 && self.has_since;
        if is_room {
            return self.room_may_go(place, value);
        }
        let is_container = fields()
            .iter()
            .any(|field| field.part == Part::Empty && self.holds(field) && leads(field.path, place));
        if !is_container || name == "limited" {
            return Err(path);
        }
        self.all_may_go(place, value)
    }

    fn all_may_go(&self, place: &mut Place<'_>, value: &Value) -> Result<(), String> {
        if !value.is_object() && !value.is_array() {
            return Err(text(place));
        }
        for child in children(value) {
            let mut place = place.clone();
            place.push(child);
            self.may_go(&mut place)?;
        }
        Ok(())
    }

    /// Whether something of a place, or inside it, is in the table itself.
    fn loses(&self, place: &Place<'_>) -> bool {
        let (_, value) = place.last().unwrap();
        let inside = |child| self.loses(&place.iter().cloned().chain([child]).collect());
        self.dropped(place) || children(value).into_iter().any(inside)
    }

    /// An idle room, or one that was hushed.
    fn room_may_go<'v>(&self, place: &mut Place<'v>, room: &'v Value) -> Result<(), String> {
        let had_ephemeral = room["ephemeral"].as_object().is_some_and(|own| !own.values().all(is_hollow));
        let is_hushed = had_ephemeral && [Part::Typing, Part::Receipts].iter().any(|part| self.drops(*part));
        let Value::Object(members) = room else { return Err(text(place)) };
        for (name, value) in members {
            place.push((name.clone(), value));
            let is_unread = name.contains("unread");
            let is_quiet = name == "timeline"
                && value.as_object().is_some_and(|timeline| {
                    let is_quiet = |(name, value): (&String, &Value)| match name.as_str() {
                        "limited" => *value == json!(false),
                        name => name == "prev_batch" || is_hollow(value),
                    };
                    timeline.iter().all(is_quiet)
                });
            match is_hollow(value) || is_quiet || (is_unread && is_hushed) {
                true => {}
                false => self.may_go(place)?,
            }
            place.pop();
        }
        Ok(())
    }

    fn drops(&self, part: Part) -> bool {
        self.shape.drop.contains(&part)
    }

    /// Whether a row is one for this answer.
    fn holds(&self, field: &Field) -> bool {
        field.when == When::Always || self.has_since
    }

    fn dropped(&self, place: &Place<'_>) -> bool {
        let applies =
            |field: &&Field| self.drops(field.part) && self.holds(field) && leads(field.path, place);
        let decided_here =
            |field: &Field| !["?empty", "?idle", "?hushed"].iter().any(|after| field.path.ends_with(after));
        fields().iter().filter(applies).any(decided_here)
    }
}

/// Whether a path of the table leads to a place: names, and conditions that what goes elsewhere does not change.
fn leads(path: &str, place: &Place<'_>) -> bool {
    let steps: Vec<&str> = path.split('/').collect();
    steps.len() == place.len()
        && steps.iter().zip(place).all(|(step, (name, value))| {
            let (names, condition) = step.split_once('?').unwrap_or((step, ""));
            let is_named = match names {
                "[]" | "*" => (names == "[]") == (name == "[]"),
                names => names.split('|').any(|own| own == name),
            };
            let unsigned = &value["unsigned"];
            let holds = match condition {
                "" | "empty" | "idle" | "hushed" => true,
                "unlimited" => value["limited"] == json!(false) || value.get("limited").is_none(),
                "false" => **value == json!(false),
                "echo" => {
                    value["event_id"].is_string()
                        && unsigned["transaction_id"].is_string()
                        && unsigned.get("redacted_because").is_none()
                        && value.get("state_key").is_none()
                }
                condition => value["type"] == condition.strip_prefix("type=").unwrap(),
            };
            is_named && holds
        })
}

fn children(value: &Value) -> Vec<(String, &Value)> {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(elements) => elements.iter().map(|value| ("[]".to_owned(), value)).collect(),
        _ => Vec::new(),
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.values().all(is_hollow),
        Value::Array(elements) => elements.iter().all(is_hollow),
        _ => false,
    }
}

fn text(place: &Place<'_>) -> String {
    place.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("/")
}
