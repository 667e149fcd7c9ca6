#![no_main]

#[path = "../bodies/json_to_cbor.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
