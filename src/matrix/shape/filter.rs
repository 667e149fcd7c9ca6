//! Filters: what a shape asks the homeserver for (Matrix 1.19 client-server API, "Filtering").

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Part;
use super::Shape;

/// What a part excludes: where in the filter, and which types of events.
const EXCLUDED: [(Part, &[&str], &str); 5] = [
    (Part::Presence, &["presence"], "*"),
    (Part::Typing, &["room", "ephemeral"], "m.typing"),
    (Part::Receipts, &["room", "ephemeral"], "m.receipt"),
    (Part::AccountData, &["account_data"], "*"),
    (Part::AccountData, &["room", "account_data"], "*"),
];

impl Shape {
    /// The value for the parameter `filter` where one with the value `given`, or none, was there; `None` if that stays.
    ///
    /// A filter in JSON is only ever narrowed: types that it excludes stay excluded, those that it names stay named, and
    /// the smaller limit counts. One that is not a filter stays for the homeserver to refuse. A filter's id stays too: what
    /// it stands for is not known here, and only [`Shape::answer`] does something about it.
    pub fn filter(&self, given: Option<&str>) -> Option<String> {
        let mut filter = match given.map(str::trim_ascii_start) {
            None => Map::new(),
            Some(inline) if inline.starts_with('{') => serde_json::from_str(inline).ok()?,
            Some(_) => return None,
        };
        let before = filter.clone();
        self.narrow(&mut filter)?;
        (filter != before).then(|| Value::Object(filter).to_string())
    }

    /// Narrows a filter; `None` if something in it has the wrong type.
    fn narrow(&self, filter: &mut Map<String, Value>) -> Option<()> {
        for (_, place, types) in EXCLUDED.iter().filter(|(part, ..)| self.drop.contains(part)) {
            exclude(inside(filter, place)?, types)?;
        }
        if self.lazy_members {
            let state = inside(filter, &["room", "state"])?;
            state.insert("lazy_load_members".to_owned(), json!(true));
        }
        if let Some(limit) = self.timeline_limit {
            let timeline = inside(filter, &["room", "timeline"])?;
            let given = match timeline.get("limit") {
                Some(given) => given.as_u64()?,
                None => u64::MAX,
            };
            timeline.insert("limit".to_owned(), json!(given.min(limit.get().into())));
        }
        Some(())
    }
}

/// The object at this place, made if there is none; `None` if something else is in the way.
fn inside<'a>(filter: &'a mut Map<String, Value>, place: &[&str]) -> Option<&'a mut Map<String, Value>> {
    place
        .iter()
        .try_fold(filter, |object, name| object.entry(*name).or_insert_with(|| json!({})).as_object_mut())
}

/// Adds to a filter's `not_types`; `None` if it has some that is no list.
fn exclude(filter: &mut Map<String, Value>, types: &str) -> Option<()> {
    let excluded = filter.entry("not_types").or_insert_with(|| json!([])).as_array_mut()?;
    if !excluded.iter().any(|own| own == types || own == "*") {
        excluded.push(json!(types));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(drop: &[Part]) -> Shape {
        Shape { drop: drop.iter().copied().collect(), ..Shape::default() }
    }

    fn quiet() -> Shape {
        Shape::preset("quiet").unwrap()
    }

    #[test]
    fn without_a_filter_the_shape_is_one() {
        assert_eq!(
            quiet().filter(None).unwrap(),
            concat!(
                r#"{"presence":{"not_types":["*"]},"room":{"ephemeral":{"not_types":["m.typing","m.receipt"]},"#,
                r#""state":{"lazy_load_members":true},"timeline":{"limit":10}}}"#
            )
        );
    }

    #[test]
    fn a_shape_that_only_drops_fields_asks_for_nothing_else() {
        assert_eq!(Shape::default().filter(None), None);
        assert_eq!(shape(&[Part::Age, Part::OwnEchoes, Part::Empty]).filter(None), None);
        assert_eq!(shape(&[Part::Age]).filter(Some(r#"{"room": {}}"#)), None);
    }

    #[test]
    fn a_filter_of_the_peer_is_narrowed_and_never_widened() {
        let given = concat!(
            r#"{"event_format":"client","presence":{"types":["m.presence"]},"room":{"rooms":["!a:b"],"#,
            r#""ephemeral":{"types":["m.receipt"],"not_types":["m.other","m.typing"]},"#,
            r#""timeline":{"limit":3,"types":["m.room.message"]}}}"#
        );
        let expected = concat!(
            r#"{"event_format":"client","presence":{"types":["m.presence"],"not_types":["*"]},"room":{"rooms":["!a:b"],"#,
            r#""ephemeral":{"types":["m.receipt"],"not_types":["m.other","m.typing","m.receipt"]},"#,
            r#""timeline":{"limit":3,"types":["m.room.message"]},"state":{"lazy_load_members":true}}}"#
        );
        assert_eq!(quiet().filter(Some(given)).unwrap(), expected);
        assert_eq!(quiet().filter(Some(expected)), None);
    }

    #[test]
    fn the_smaller_limit_counts() {
        let shape = Shape { timeline_limit: std::num::NonZeroU16::new(10), ..Shape::default() };
        let limit =
            |given: &str| shape.filter(Some(&format!(r#"{{"room":{{"timeline":{{"limit":{given}}}}}}}"#)));
        assert_eq!(limit("0"), None);
        assert_eq!(limit("10"), None);
        assert_eq!(limit("50").unwrap(), r#"{"room":{"timeline":{"limit":10}}}"#);
    }

    #[test]
    fn all_types_excluded_need_no_name() {
        let given = r#"{"room":{"ephemeral":{"not_types":["*"]}}}"#;
        assert_eq!(shape(&[Part::Typing, Part::Receipts]).filter(Some(given)), None);
    }

    #[test]
    fn account_data_of_the_account_and_of_rooms_is_excluded() {
        assert_eq!(
            shape(&[Part::AccountData]).filter(None).unwrap(),
            r#"{"account_data":{"not_types":["*"]},"room":{"account_data":{"not_types":["*"]}}}"#
        );
    }

    #[test]
    fn an_id_and_what_is_no_filter_stay_as_they_are() {
        for given in [
            "",
            "66696p746572",
            "[]",
            "{",
            r#"{"room":1}"#,
            r#"{"presence":[]}"#,
            r#"{"room":{"timeline":{"limit":-1}}}"#,
            r#"{"room":{"timeline":{"limit":"5"}}}"#,
            r#"{"room":{"ephemeral":{"not_types":"m.typing"}}}"#,
        ] {
            assert_eq!(quiet().filter(Some(given)), None, "{given}");
        }
    }

    #[test]
    fn the_filter_goes_where_the_old_one_was() {
        let query = [r#"filter={"room":{}}"#.to_owned(), "since=s1".to_owned()];
        let lazy = Shape { lazy_members: true, ..Shape::default() };
        assert_eq!(
            lazy.query(&query),
            [r#"filter={"room":{"state":{"lazy_load_members":true}}}"#, "since=s1"]
        );
        assert_eq!(Shape::default().query(&query), query);
        let id = ["filter=12".to_owned()];
        assert_eq!(lazy.query(&id), id);
    }
}
