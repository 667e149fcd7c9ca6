//! Shaping of recorded answers to `/sync` (`tests/corpus/dev.jsonl.gz`), and of any JSON.
//!
//! What goes is held against the table of fields by a reading of it that shares no code with the one in `src`: the
//! difference between what went in and what came out is walked, and every place that is gone must be in the table.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/shape_table.rs"]
mod table;

use std::fmt::Write;
use std::io::BufRead;
use std::io::BufReader;

use flate2::read::GzDecoder;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::codec::json_to_cbor;
use lowband::matrix::shape::Field;
use lowband::matrix::shape::Part;
use lowband::matrix::shape::Shape;
use lowband::matrix::shape::Shapes;
use lowband::matrix::shape::When;
use lowband::matrix::shape::fields;
use lowband::matrix::split_query;
use lowband::matrix::sync;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;
use table::Table;

const DOCUMENTATION: &str = include_str!("../docs/shaping.md");

/// Any event with an id; the documentation calls it so.
const EVENT: &str = "rooms/join|leave/*/timeline|state|state_after|org.matrix.msc4222.state_after/events/[]";

/// A recorded answer and the query that it answers.
struct Recorded {
    query: Vec<String>,
    json: Vec<u8>,
}

#[test]
fn off_changes_no_recorded_answer() {
    for Recorded { query, json } in recorded() {
        assert_eq!(Shape::default().answer(&json, &query), None);
        assert_eq!(Shape::default().query(&query), query);
    }
}

#[test]
fn only_what_the_table_lists_goes_from_recorded_answers() {
    let recorded = recorded();
    for (name, shape) in shapes() {
        for Recorded { query, json } in &recorded {
            check(&shape, json, query).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn what_a_client_cannot_do_without_stays_in_recorded_answers() {
    let recorded = recorded();
    for (name, shape) in shapes() {
        for Recorded { query, json } in &recorded {
            let before: Value = serde_json::from_slice(json).unwrap();
            let Some(shaped) = shape.answer(json, query) else { continue };
            let after: Value = serde_json::from_slice(&shaped).unwrap();
            assert_eq!(before["next_batch"], after["next_batch"]);
            assert_eq!(event_ids(&before), event_ids(&after), "{name}");
            assert_eq!(before["to_device"]["events"], after["to_device"]["events"]);
            for section in ["leave", "invite"] {
                assert_eq!(names(&before["rooms"][section]), names(&after["rooms"][section]));
            }
        }
    }
}

#[test]
fn the_check_against_the_table_notices_what_is_not_in_it() {
    let shape = Shape { drop: [Part::Typing, Part::Age, Part::OwnEchoes].into(), ..Shape::default() };
    let allows = |has_since, before: Value, after: Value| {
        Table { shape: &shape, has_since }.allows(&mut Vec::new(), &before, &after).is_ok()
    };
    let room = |room: Value| json!({ "rooms": { "join": { "!r:hs": room } } });
    let events = |event: Value| room(json!({ "timeline": { "events": [event] } }));
    let typing =
        room(json!({ "ephemeral": { "events": [{ "type": "m.typing" }] }, "timeline": { "events": [] } }));
    assert!(allows(true, typing.clone(), json!({})));
    assert!(!allows(false, typing, json!({})));
    let receipt = room(json!({ "ephemeral": { "events": [{ "type": "m.receipt" }] } }));
    assert!(!allows(true, receipt.clone(), json!({})));
    assert!(!allows(true, receipt, room(json!({ "ephemeral": { "events": [] } }))));
    let aged = json!({ "event_id": "$1", "unsigned": { "age": 1, "more": 2 } });
    assert!(allows(
        true,
        events(aged.clone()),
        events(json!({ "event_id": "$1", "unsigned": { "more": 2 } }))
    ));
    assert!(!allows(true, events(aged.clone()), events(json!({ "event_id": "$1" }))));
    assert!(!allows(true, events(aged.clone()), events(json!({ "unsigned": { "age": 1, "more": 2 } }))));
    assert!(!allows(true, events(aged), room(json!({ "timeline": { "events": [] } }))));
    assert!(!allows(true, json!({ "next_batch": "s1", "presence": {} }), json!({ "next_batch": "s1" })));
    assert!(!allows(true, json!({ "a": 1 }), json!({ "a": 1.0 })));
}

#[test]
fn the_documentation_lists_every_field() {
    let mut table = "| part | from | path | what it is |\n|---|---|---|---|\n".to_owned();
    for Field { name, when, path, what, .. } in fields() {
        let when = match when {
            When::Always => "all",
            When::Since => "`since`",
        };
        let path = path.replace(EVENT, "EVENT").replace('|', "\\|");
        writeln!(table, "| `{name}` | {when} | `{path}` | {what} |").unwrap();
    }
    assert!(DOCUMENTATION.contains(&format!("`{EVENT}`")));
    assert!(DOCUMENTATION.contains(&table), "docs/shaping.md should have this table:\n{table}");
}

#[test]
fn the_documentation_has_the_savings() {
    let recorded = recorded();
    let mut table =
        "| dropped | answers sent | JSON | CBOR | saved |\n|---|---:|---:|---:|---:|\n".to_owned();
    let nothing = Cost::of(&Shape::default(), &recorded);
    for (name, shape) in [("nothing".to_owned(), Shape::default())].into_iter().chain(shapes()) {
        let cost = Cost::of(&shape, &recorded);
        let saved = 100.0 * (nothing.cbor - cost.cbor) as f64 / nothing.cbor as f64;
        writeln!(table, "| {name} | {} | {} | {} | {saved:.1} % |", cost.answers, cost.json, cost.cbor)
            .unwrap();
        assert!(cost.json <= nothing.json && cost.cbor <= nothing.cbor);
    }
    println!("{} answers\n{table}", recorded.len());
    assert!(DOCUMENTATION.contains(&table), "docs/shaping.md should have this table:\n{table}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_what_the_table_lists_goes_from_anything(
        answer in answer(),
        drop in proptest::collection::btree_set(proptest::sample::select(parts()), 0..=16),
        query in proptest::sample::select(vec!["since=s1", "timeout=0", "full_state=true"]),
    ) {
        let shape = Shape { drop, ..Shape::default() };
        check(&shape, answer.to_string().as_bytes(), &[query.to_owned()]).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), given in ".{0,60}") {
        for (_, shape) in shapes() {
            let _ = shape.answer(&bytes, &["since=s1".to_owned()]);
            let _ = shape.filter(Some(&given));
        }
    }

    #[test]
    fn a_filter_narrowed_once_is_narrow(given in filter()) {
        let lean = Shape::preset("lean").unwrap();
        let once = lean.filter(Some(&given.to_string()));
        if let Some(once) = once {
            prop_assert_eq!(lean.filter(Some(&once)), None);
            let once: Value = serde_json::from_str(&once).unwrap();
            prop_assert_eq!(&once["room"]["rooms"], &given["room"]["rooms"]);
            prop_assert_eq!(&once["room"]["ephemeral"]["types"], &given["room"]["ephemeral"]["types"]);
        }
    }
}

/// Shapes one answer; twice, and against the table.
fn check(shape: &Shape, json: &[u8], query: &[String]) -> Result<(), String> {
    let Some(shaped) = shape.answer(json, query) else { return Ok(()) };
    if let Some(again) = shape.answer(&shaped, query) {
        let (shaped, again) = (String::from_utf8_lossy(&shaped), String::from_utf8_lossy(&again));
        return Err(format!("shaped again, {shaped} became {again}"));
    }
    let before: Value = serde_json::from_slice(json).unwrap();
    let after: Value = serde_json::from_slice(&shaped).map_err(|error| error.to_string())?;
    let has_since = query.iter().any(|parameter| parameter.starts_with("since="));
    let table = Table { shape, has_since };
    table
        .allows(&mut Vec::new(), &before, &after)
        .map_err(|path| format!("{path} of {before} became {after}"))
}

/// What observers with one shape would be sent of the recorded answers. One that says nothing is not sent.
struct Cost {
    answers: usize,
    json: usize,
    cbor: usize,
}

impl Cost {
    fn of(shape: &Shape, recorded: &[Recorded]) -> Self {
        let mut cost = Cost { answers: 0, json: 0, cbor: 0 };
        for Recorded { query, json } in recorded {
            let shaped = shape.answer(json, query);
            let json = shaped.as_deref().unwrap_or(json);
            let summary = sync::summary(json).unwrap();
            // Key counts are taken for known already.
            if summary.is_empty_since(&summary.counters) {
                continue;
            }
            cost.answers += 1;
            cost.json += json.len();
            cost.cbor += json_to_cbor(json, Keys::V1, &Limits::default()).unwrap().len();
        }
        cost
    }
}

/// Each part alone, then the built-in shapes.
fn shapes() -> Vec<(String, Shape)> {
    let mut shapes: Vec<_> = parts()
        .into_iter()
        .map(|part| {
            let name = fields().iter().find(|field| field.part == part).unwrap().name;
            (format!("`{name}`"), Shape { drop: [part].into(), ..Shape::default() })
        })
        .collect();
    let built_in = Shapes::default();
    for name in built_in.names() {
        shapes.push((format!("the shape `{name}`"), built_in.get(name).unwrap().clone()));
    }
    shapes
}

fn parts() -> Vec<Part> {
    let mut parts: Vec<_> = fields().iter().map(|field| field.part).collect();
    parts.dedup();
    parts
}

fn recorded() -> Vec<Recorded> {
    let corpus = GzDecoder::new(include_bytes!("corpus/dev.jsonl.gz").as_slice());
    let mut answers = Vec::new();
    for line in BufReader::new(corpus).lines() {
        let exchange: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let (path, query) = exchange["path"].as_str().unwrap().split_once('?').unwrap_or_default();
        let is_first = exchange["path"] == "/_matrix/client/v3/sync";
        if exchange["status"] == 200 && (path == "/_matrix/client/v3/sync" || is_first) {
            let json = serde_json::to_vec(&exchange["resp"]).unwrap();
            answers.push(Recorded { query: split_query(query).unwrap(), json });
        }
    }
    assert!(answers.len() > 500, "{}", answers.len());
    answers
}

/// The ids of all events that are neither ephemeral nor settings, in order.
fn event_ids(answer: &Value) -> Vec<&str> {
    let rooms = ["join", "leave"].into_iter().filter_map(|section| answer["rooms"][section].as_object());
    let lists = rooms
        .flat_map(|rooms| rooms.values())
        .flat_map(|room| ["state", "timeline", "state_after"].map(|list| room[list]["events"].as_array()));
    lists.flatten().flatten().filter_map(|event| event["event_id"].as_str()).collect()
}

fn names(object: &Value) -> Vec<&String> {
    object.as_object().map(|members| members.keys().collect()).unwrap_or_default()
}

/// Anything in the form of an answer, with values of wrong types among the right ones.
fn answer() -> impl Strategy<Value = Value> {
    let scalar = || {
        prop_oneof![
            Just(json!(null)),
            Just(json!(false)),
            Just(json!(true)),
            Just(json!({})),
            Just(json!([])),
            any::<i64>().prop_map(Value::from),
            "[a-z$]{0,3}".prop_map(Value::from),
        ]
    };
    let unsigned = || {
        const NAMES: &[&str] =
            &["age", "transaction_id", "redacted_because", "prev_content", "membership", "m.relations"];
        object(NAMES, scalar())
    };
    let event = || {
        let types = proptest::sample::select(vec!["m.typing", "m.receipt", "m.room.message"]);
        const NAMES: &[&str] =
            &["event_id", "state_key", "content", "sender", "age", "user_id", "origin_server_ts"];
        let parts = (object(NAMES, scalar()), types, proptest::option::of(unsigned()), any::<bool>());
        parts.prop_map(|(mut event, own, unsigned, is_echo)| {
            event["type"] = json!(own);
            if let Some(unsigned) = unsigned {
                event["unsigned"] = unsigned;
            }
            if is_echo && event["unsigned"].is_object() {
                event["event_id"] = json!("$1");
                event["unsigned"]["transaction_id"] = json!("t1");
            }
            event
        })
    };
    let list = move || {
        let events = proptest::collection::vec(prop_oneof![8 => event(), 1 => scalar()], 0..4);
        let events = events.prop_map(Value::from);
        (events, object(&["limited", "prev_batch", "more"], scalar())).prop_map(|(events, mut list)| {
            list["events"] = events;
            list
        })
    };
    const ROOM: &[&str] =
        &["timeline", "state", "state_after", "ephemeral", "account_data", "summary", "unread_notifications"];
    let room = object(ROOM, prop_oneof![6 => list(), 1 => scalar()]);
    let rooms = object(&["!a:hs", "!b:hs"], prop_oneof![9 => room, 1 => scalar()]);
    let sections = object(&["join", "leave", "invite"], prop_oneof![9 => rooms, 1 => scalar()]);
    const ANSWER: &[&str] = &[
        "next_batch",
        "presence",
        "account_data",
        "to_device",
        "device_lists",
        "device_one_time_keys_count",
    ];
    (object(ANSWER, prop_oneof![list(), scalar()]), prop_oneof![9 => sections, 1 => scalar()]).prop_map(
        |(mut answer, rooms)| {
            answer["rooms"] = rooms;
            answer
        },
    )
}

fn filter() -> impl Strategy<Value = Value> {
    let inner = || {
        let value = prop_oneof![
            8 => Just(json!(["m.typing"])),
            2 => Just(json!([])),
            1 => Just(json!("*")),
            1 => (0..30).prop_map(Value::from),
        ];
        object(&["types", "not_types"], value)
    };
    let limit = (0..30).prop_map(|limit| json!({ "limit": limit }));
    let room = object(&["ephemeral", "state", "account_data"], inner());
    (room, object(&["presence", "account_data"], inner()), limit).prop_map(|(mut room, mut filter, limit)| {
        room["timeline"] = limit;
        filter["room"] = room;
        filter
    })
}

/// An object with any of these members.
fn object(
    names: &'static [&'static str],
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Value> {
    let members = proptest::collection::vec(proptest::option::weighted(0.7, value), names.len());
    members.prop_map(move |values| {
        let members = names.iter().zip(values).filter_map(|(name, value)| Some((name.to_string(), value?)));
        Value::Object(members.collect())
    })
}
