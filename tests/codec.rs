//! The codec against the vectors under `tests/vectors/codec/` and against other implementations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use lowband::codec::EncodeError;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::codec::cbor_to_json;
use lowband::codec::diagnostic;
use lowband::codec::json_to_cbor;
use proptest::prelude::*;
use serde_json::Value;

const APPENDIX_A: &str = include_str!("vectors/codec/rfc8949-appendix-a.tsv");
const MSC3079: &str = include_str!("vectors/codec/msc3079.tsv");
const TOLERANT: &str = include_str!("vectors/codec/tolerant.tsv");

#[test]
fn appendix_a_of_rfc_8949_becomes_json() {
    let mut rows = 0;
    for [hex, _, json] in table(APPENDIX_A) {
        assert_eq!(decoded(&bytes(hex)), written(json), "{hex}");
        rows += 1;
    }
    assert_eq!(rows, 81);
}

#[test]
fn appendix_a_of_rfc_8949_becomes_diagnostic_notation() {
    for [hex, notation, _] in table(APPENDIX_A) {
        assert_eq!(diagnostic(&bytes(hex), &Limits::default()).unwrap(), notation, "{hex}");
    }
}

/// What is text, number, list or map with text keys in the appendix, and there in its shortest form.
#[test]
fn appendix_a_of_rfc_8949_is_what_json_becomes() {
    let mut rows = 0;
    for [hex, notation, json] in table(APPENDIX_A) {
        let lost = json.starts_with("error") || notation.contains("_ ") || notation.contains(['\'', '(']);
        let lost = lost || (json == "null" && notation != "null") || notation.starts_with("{1:");
        if !lost {
            assert_eq!(encoded(json, Keys::Strings), hex, "{json}");
            rows += 1;
        }
    }
    assert_eq!(rows, 46);
}

#[test]
fn example_of_msc3079_maps_both_ways() {
    for [hex, json] in table(MSC3079) {
        assert_eq!(encoded(json, Keys::V1), hex);
        let decoded = cbor_to_json(&bytes(hex), &Limits::default()).unwrap();
        assert_eq!(value(&decoded.json), value(json.as_bytes()));
        assert!(decoded.integer_keys);
        let strings = bytes(&encoded(json, Keys::Strings));
        let decoded = cbor_to_json(&strings, &Limits::default()).unwrap();
        assert_eq!(value(&decoded.json), value(json.as_bytes()));
        assert!(!decoded.integer_keys);
    }
}

#[test]
fn everything_well_formed_is_read_and_the_rest_refused_in_place() {
    for [hex, json] in table(TOLERANT) {
        assert_eq!(decoded(&bytes(hex)), written(json), "{hex}");
    }
}

#[test]
fn every_prefix_of_every_vector_is_refused() {
    let vectors = table::<3>(APPENDIX_A).map(|[hex, ..]| hex).chain(table::<2>(MSC3079).map(|[hex, _]| hex));
    let tolerant = table::<2>(TOLERANT).filter(|[_, json]| !json.starts_with("error")).map(|[hex, _]| hex);
    for hex in vectors.chain(tolerant) {
        let whole = bytes(hex);
        for end in 0..whole.len() {
            assert!(cbor_to_json(&whole[..end], &Limits::default()).is_err(), "{hex} to {end}");
            assert!(diagnostic(&whole[..end], &Limits::default()).is_err(), "{hex} to {end}");
        }
    }
    for [_, json] in table(MSC3079) {
        for end in 0..json.len() {
            let error = json_to_cbor(&json.as_bytes()[..end], Keys::V1, &Limits::default()).unwrap_err();
            assert!(matches!(error, EncodeError::Syntax { offset, .. } if offset <= end), "{error} to {end}");
        }
    }
}

/// serde_json's feature `arbitrary_precision`, switched on by any crate of the build, would make numbers maps.
#[test]
fn number_is_a_number() {
    assert_eq!(encoded("1", Keys::Strings), "01");
    assert_eq!(encoded("1.5", Keys::Strings), "f93e00");
}

#[test]
fn integers_are_exact_to_the_ends_of_64_bits_and_refused_beyond() {
    for integer in ["0", "9007199254740993", "-9007199254740993", "9223372036854775808"] {
        survives(integer);
    }
    survives("18446744073709551615");
    survives("-9223372036854775808");
    for (json, offset) in [
        ("18446744073709551616", 0),
        ("-9223372036854775809", 0),
        (r#" {"a\"1e":[1.0,-99999999999999999999999]}"#, 15),
        ("100000000000000000000", 0),
    ] {
        let error = json_to_cbor(json.as_bytes(), Keys::V1, &Limits::default()).unwrap_err();
        assert_eq!(error, EncodeError::IntegerRange { offset }, "{json}");
    }
}

#[test]
fn floats_come_back_as_the_same_float() {
    for (json, cbor) in [
        ("1.0", "f93c00"),
        ("-0.0", "f98000"),
        ("1000.0", "f963d0"),
        ("100000.0", "fa47c35000"),
        ("16777217.0", "d9d9f7fb4170000010000000"),
        ("9007199254740991.0", "d9d9f7fb433fffffffffffff"),
        ("9007199254740992.0", "fa5a000000"),
        ("9007199254740994.0", "fb4340000000000001"),
        ("0.1", "fb3fb999999999999a"),
        ("1e300", "fb7e37e43c8800759c"),
        ("5e-324", "fb0000000000000001"),
        ("1.7976931348623157e308", "fb7fefffffffffffff"),
        ("1.401298464324817e-45", "fa00000001"),
    ] {
        assert_eq!(encoded(json, Keys::V1), cbor, "{json}");
        assert_eq!(decoded(&bytes(cbor)), written(json), "{cbor}");
    }
    // Other spellings of the same numbers. 18446744073709551616.0 is a float, its integer would be an error.
    for (json, same) in
        [("1e3", "1000.0"), ("-0", "-0.0"), ("18446744073709551616.0", "1.8446744073709552e19")]
    {
        assert_eq!(decoded(&bytes(&encoded(json, Keys::V1))), written(same));
    }
}

#[test]
fn map_keys_are_sorted_by_their_encodings_at_every_depth() {
    for (json, cbor) in [
        (r#"{"b":1,"a":2}"#, "a2616102616201"),
        (r#"{"aa":1,"b":2}"#, "a261620262616101"),
        (r#"{"":1,"body":2}"#, "a2181b026001"),
        (r#"{"zz":0,"body":1,"type":2}"#, "a30202181b01627a7a00"),
        (r#"{"b":[{"d":1,"c":[]},[]],"a":{"f":{},"e":{}}}"#, "a26161a26165a06166a0616282a2616380616401 80"),
        (r#"[{"b":{},"a":{}},{"d":1,"c":2},3]"#, "83a26161a06162a0a261630261640103"),
    ] {
        assert_eq!(encoded(json, Keys::V1), cbor.replace(' ', ""), "{json}");
    }
}

#[test]
fn last_member_of_a_name_counts() {
    for (json, same) in [
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"type":1,"b":0,"\u0074ype":{"a":[1]},"a":3}"#, r#"{"type":{"a":[1]},"b":0,"a":3}"#),
        (r#"{"a":{"x":1,"x":[{"y":1,"y":2}]},"a":{"z":1,"z":[]}}"#, r#"{"a":{"z":[]}}"#),
    ] {
        for keys in [Keys::Strings, Keys::V1] {
            assert_eq!(encoded(json, keys), encoded(same, keys), "{json}");
        }
    }
}

#[test]
fn text_keys_are_literal() {
    assert_eq!(encoded(r#"{"8":1}"#, Keys::V1), "a1613801");
    assert_eq!(encoded(r#"{"origin_server_ts":1}"#, Keys::V1), "a10801");
    assert_eq!(encoded(r#"{"origin_server_ts":1}"#, Keys::Strings), "a1706f726967696e5f7365727665725f747301");
}

#[test]
fn text_that_is_not_json_is_refused_in_place() {
    for (json, offset) in [
        ("", 0),
        ("  ", 2),
        ("\u{feff}1", 0),
        ("nul", 2),
        ("[1,]", 3),
        ("{\"a\":1,\n\"b\" 2}", 12),
        ("1 2", 2),
        ("01", 1),
        ("1e999", 4),
        (r#""\ud800""#, 7),
        (r#"["\udc00\ud800"]"#, 8),
        ("\"a\nb\"", 2),
    ] {
        match json_to_cbor(json.as_bytes(), Keys::V1, &Limits::default()) {
            Err(EncodeError::Syntax { offset: found, .. }) => {
                assert!(found.abs_diff(offset) <= 1, "{json}: {found}")
            }
            other => panic!("{json}: {other:?}"),
        }
    }
    assert!(json_to_cbor(b"\"\xff\"", Keys::V1, &Limits::default()).is_err());
}

#[test]
fn depth_is_limited_both_ways() {
    for depth in [0, 1, 5, 100, 126] {
        let limits = Limits { depth, ..Limits::default() };
        let json = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let cbor = |depth| [vec![0x81; depth - 1], vec![0x80]].concat();
        let deep = json_to_cbor(json(depth + 1).as_bytes(), Keys::V1, &limits).unwrap_err();
        assert!(matches!(deep, EncodeError::Depth { limit, .. } if limit == depth), "{deep}");
        let deep = cbor_to_json(&cbor(depth + 1), &limits).unwrap_err();
        assert_eq!(deep.to_string(), format!("nested deeper than {depth} at byte {depth}"));
        assert_eq!(diagnostic(&cbor(depth + 1), &limits), Err(deep));
        if depth > 0 {
            assert_eq!(json_to_cbor(json(depth).as_bytes(), Keys::V1, &limits).unwrap(), cbor(depth));
            assert_eq!(cbor_to_json(&cbor(depth), &limits).unwrap().json, json(depth).as_bytes());
        }
    }
    let endless = Limits { depth: usize::MAX, ..Limits::default() };
    assert!(json_to_cbor("[".repeat(1_000_000).as_bytes(), Keys::V1, &endless).is_err());
    assert!(cbor_to_json(&vec![0x9f; 1_000_000], &endless).is_err());
    assert!(cbor_to_json(&vec![0xc1; 1_000_000], &endless).is_err());
    assert!(diagnostic(&vec![0xc1; 1_000_000], &endless).is_err());
}

#[test]
fn output_is_limited_to_the_byte() {
    let rows = table::<3>(APPENDIX_A).map(|[hex, ..]| hex).chain(table::<2>(MSC3079).map(|[hex, _]| hex));
    for hex in rows {
        let cbor = bytes(hex);
        let Ok(decoded) = cbor_to_json(&cbor, &Limits::default()) else { continue };
        for output in 0..=decoded.json.len() {
            let limits = Limits { output, ..Limits::default() };
            assert_eq!(
                cbor_to_json(&cbor, &limits).is_ok(),
                output == decoded.json.len(),
                "{hex} in {output}"
            );
        }
        let encoded = json_to_cbor(&decoded.json, Keys::V1, &Limits::default()).unwrap();
        for output in 0..=encoded.len() {
            let limits = Limits { output, ..Limits::default() };
            let within = json_to_cbor(&decoded.json, Keys::V1, &limits).is_ok();
            assert_eq!(within, output == encoded.len(), "{hex} in {output}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_survives_value_for_value(json in any_value(), pretty: bool) {
        let text = if pretty { serde_json::to_vec_pretty(&json) } else { serde_json::to_vec(&json) }.unwrap();
        for keys in [Keys::Strings, Keys::V1] {
            let cbor = json_to_cbor(&text, keys, &Limits::default()).unwrap();
            let back = cbor_to_json(&cbor, &Limits::default()).unwrap();
            prop_assert_eq!(value(&back.json), json.clone());
            prop_assert_eq!(json_to_cbor(&back.json, keys, &Limits::default()).unwrap(), cbor);
        }
    }

    /// With string keys the two must agree but for the order of members and the mark on some floats.
    #[test]
    fn ciborium_reads_what_is_sent_and_is_read(json in any_value()) {
        let ours = json_to_cbor(&serde_json::to_vec(&json).unwrap(), Keys::Strings, &Limits::default()).unwrap();
        let seen: ciborium::Value = ciborium::from_reader(ours.as_slice()).unwrap();
        prop_assert_eq!(from_ciborium(seen), json.clone());
        let mut theirs = Vec::new();
        ciborium::into_writer(&json, &mut theirs).unwrap();
        let back = cbor_to_json(&theirs, &Limits::default()).unwrap();
        prop_assert!(same_numbers(&value(&back.json), &json), "{:?}", String::from_utf8(back.json));
    }

    #[test]
    fn any_float_survives(float in prop_oneof![any::<f64>(), any::<i32>().prop_map(f64::from), any::<f32>().prop_map(f64::from)]) {
        if float.is_finite() {
            let json = serde_json::to_vec(&float).unwrap();
            let cbor = json_to_cbor(&json, Keys::Strings, &Limits::default()).unwrap();
            let back = value(&cbor_to_json(&cbor, &Limits::default()).unwrap().json);
            prop_assert!(back.is_f64());
            prop_assert_eq!(back.as_f64().map(f64::to_bits), Some(float.to_bits()));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_bounds(bytes in any_bytes(), output in 0..200usize) {
        let limits = Limits { output, ..Limits::default() };
        if let Ok(decoded) = cbor_to_json(&bytes, &limits) {
            prop_assert!(decoded.json.len() <= output);
            prop_assert!(serde_json::from_slice::<Value>(&decoded.json).is_ok());
        }
        if let Ok(text) = diagnostic(&bytes, &limits) {
            prop_assert!(text.len() <= output);
        }
        if let Ok(cbor) = json_to_cbor(&bytes, Keys::V1, &limits) {
            prop_assert!(cbor.len() <= output);
        }
    }
}

fn survives(json: &str) {
    for keys in [Keys::Strings, Keys::V1] {
        assert_eq!(decoded(&bytes(&encoded(json, keys))), json);
    }
}

/// Rows of a table without its comments.
fn table<const COLUMNS: usize>(text: &str) -> impl Iterator<Item = [&str; COLUMNS]> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split('\t').collect::<Vec<_>>().try_into().expect("a full row"))
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn encoded(json: &str, keys: Keys) -> String {
    let cbor = json_to_cbor(json.as_bytes(), keys, &Limits::default()).unwrap();
    cbor.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decoded(cbor: &[u8]) -> String {
    match cbor_to_json(cbor, &Limits::default()) {
        Ok(decoded) => String::from_utf8(decoded.json).unwrap(),
        Err(error) => format!("error: {error}"),
    }
}

/// The way serde_json spells the same JSON; errors stay as they are.
fn written(json: &str) -> String {
    serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |value| value.to_string())
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..100_000u32).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |float| float.is_finite())
            .prop_map(Value::from),
        any::<i32>().prop_map(|float| Value::from(f64::from(float))),
        any::<String>().prop_map(Value::from),
        "[a-z\"\\\\\n\u{1}é水]{0,40}".prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 200, 40, |inner| {
        let name = prop_oneof![
            any::<String>(),
            "[a-c]{0,3}",
            (1..=104u64).prop_map(|number| lowband::codec::key_name(number).unwrap().to_owned()),
            (0..110u64).prop_map(|number| number.to_string()),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..40)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Bytes that look like CBOR more often than chance would have it.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<u8>().prop_map(|byte| vec![byte & 0xe7]),
        prop::sample::select(vec![
            vec![0x9f],
            vec![0xbf],
            vec![0x7f],
            vec![0x5f],
            vec![0xff],
            vec![0x01],
            vec![0x61, b'a']
        ]),
        prop::collection::vec(any::<u8>(), 0..9),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn from_ciborium(item: ciborium::Value) -> Value {
    match item {
        ciborium::Value::Null => Value::Null,
        ciborium::Value::Bool(value) => Value::from(value),
        ciborium::Value::Integer(value) => {
            let value = i128::from(value);
            u64::try_from(value)
                .map(Value::from)
                .unwrap_or_else(|_| Value::from(i64::try_from(value).unwrap()))
        }
        ciborium::Value::Float(value) => Value::from(value),
        ciborium::Value::Text(value) => Value::from(value),
        ciborium::Value::Array(values) => values.into_iter().map(from_ciborium).collect(),
        ciborium::Value::Map(members) => {
            let name = |name: ciborium::Value| name.into_text().unwrap();
            Value::Object(members.into_iter().map(|(key, value)| (name(key), from_ciborium(value))).collect())
        }
        ciborium::Value::Tag(55_799, value) if value.is_float() => from_ciborium(*value),
        other => panic!("never sent: {other:?}"),
    }
}

/// Equal, where a float that is an integer below 2^53 may have become one: ciborium sends it as Go peers do.
fn same_numbers(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_numbers(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, value)| other.get(name).is_some_and(|other| same_numbers(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        (Value::Number(integer), Value::Number(float)) if float.is_f64() && !integer.is_f64() => integer
            .as_i64()
            .is_some_and(|integer| integer.abs() < 1 << 53 && float.as_f64() == Some(integer as f64)),
        _ => one == other,
    }
}
