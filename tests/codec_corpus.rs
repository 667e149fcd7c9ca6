//! Every recorded body survives the codec (`tests/corpus/dev.jsonl.gz`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::BufRead;
use std::io::BufReader;

use flate2::read::GzDecoder;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::codec::cbor_to_json;
use lowband::codec::json_to_cbor;
use serde_json::Value;

#[test]
fn every_recorded_body_survives_value_for_value() {
    let corpus = GzDecoder::new(include_bytes!("corpus/dev.jsonl.gz").as_slice());
    let (mut bodies, mut json_bytes, mut string_bytes, mut integer_bytes) = (0, 0, 0, 0);
    for line in BufReader::new(corpus).lines() {
        let exchange: Value = serde_json::from_str(&line.unwrap()).unwrap();
        for body in [&exchange["req"], &exchange["resp"]] {
            if body.is_null() {
                continue;
            }
            let json = serde_json::to_vec(body).unwrap();
            bodies += 1;
            json_bytes += json.len();
            string_bytes += survives(&json, body, Keys::Strings);
            integer_bytes += survives(&json, body, Keys::V1);
        }
    }
    println!(
        "{bodies} bodies: {json_bytes} bytes of JSON, {string_bytes} of CBOR, {integer_bytes} with integer keys"
    );
    assert!(bodies > 2000, "{bodies}");
    assert!(integer_bytes < string_bytes && string_bytes < json_bytes);
}

fn survives(json: &[u8], body: &Value, keys: Keys) -> usize {
    let cbor = json_to_cbor(json, keys, &Limits::default()).unwrap();
    let back = cbor_to_json(&cbor, &Limits::default()).unwrap();
    assert_eq!(&serde_json::from_slice::<Value>(&back.json).unwrap(), body);
    cbor.len()
}
