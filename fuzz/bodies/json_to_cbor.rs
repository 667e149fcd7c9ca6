//! Any bytes as JSON: taken exactly when serde_json takes them, and with the same meaning.

use lowband::codec::EncodeError;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::codec::cbor_to_json;
use lowband::codec::json_to_cbor;

/// Panics when a property of the encoder does not hold.
pub fn run(data: &[u8]) {
    let limits = Limits { output: 1 << 20, ..Limits::default() };
    let value: Option<serde_json::Value> = serde_json::from_slice(data).ok();
    for keys in [Keys::Strings, Keys::V1] {
        let cbor = match (json_to_cbor(data, keys, &limits), &value) {
            (Ok(cbor), Some(_)) => cbor,
            (Ok(_), None) => panic!("taken, but not JSON"),
            (Err(EncodeError::Syntax { offset, .. }), None) => {
                assert!(offset <= data.len());
                continue;
            }
            (Err(EncodeError::IntegerRange { offset }), Some(_)) => {
                assert!(
                    matches!(data.get(offset), Some(b'-' | b'0'..=b'9')),
                    "the offset points at a number"
                );
                continue;
            }
            (Err(EncodeError::Depth { .. } | EncodeError::Output { .. }), _) => continue,
            (Err(error), _) => panic!("refused: {error}"),
        };
        assert!(cbor.len() <= limits.output);
        let back = cbor_to_json(&cbor, &Limits::default()).expect("what is sent can be read");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&back.json).ok(), value);
        assert!(keys == Keys::V1 || !back.integer_keys, "integer keys only where allowed");
        let again = json_to_cbor(&back.json, keys, &limits).expect("what is written can be sent");
        assert_eq!(again, cbor, "the same value has one encoding");
    }
}
