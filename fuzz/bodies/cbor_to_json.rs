//! Any bytes as CBOR: refused, or JSON that means the same ever after.

use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::codec::cbor_to_json;
use lowband::codec::diagnostic;
use lowband::codec::json_to_cbor;

/// Panics when a property of the decoder does not hold.
pub fn run(data: &[u8]) {
    let limits = Limits { output: 1 << 16, ..Limits::default() };
    if let Ok(text) = diagnostic(data, &limits) {
        assert!(text.len() <= limits.output);
    }
    let Ok(decoded) = cbor_to_json(data, &limits) else { return };
    assert!(decoded.json.len() <= limits.output);
    let value: serde_json::Value = serde_json::from_slice(&decoded.json).expect("what is written is JSON");
    let written = serde_json::to_vec(&value).expect("a value can be written");
    assert_eq!(written, decoded.json, "compact, and no name twice");

    for keys in [Keys::Strings, Keys::V1] {
        let sent =
            json_to_cbor(&decoded.json, keys, &Limits::default()).expect("what is written can be sent");
        let back = cbor_to_json(&sent, &Limits::default()).expect("what is sent can be read");
        let again: serde_json::Value = serde_json::from_slice(&back.json).expect("what is written is JSON");
        assert_eq!(again, value);
        assert!(keys == Keys::V1 || !back.integer_keys, "integer keys only where allowed");
        let resent = json_to_cbor(&back.json, keys, &Limits::default()).expect("what is written can be sent");
        assert_eq!(resent, sent, "the same value has one encoding");
    }
}
