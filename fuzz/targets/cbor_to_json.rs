#![no_main]

#[path = "../bodies/cbor_to_json.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
