//! The fuzz targets of `fuzz/`, on a fixed number of inputs that are the same on every run: vectors and recorded
//! bodies, mutated, and pure noise. Nothing panics, and no input makes us hold more memory than its size allows.
//!
//! `LOWBAND_FUZZ_INPUTS=1000000 cargo test --release --test fuzz_seeded` tries a million for each target.

#![expect(unreachable_pub, reason = "the bodies are written for more than one crate")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/allocations.rs"]
mod allocations;
#[path = "../fuzz/bodies/cbor_to_json.rs"]
mod cbor_to_json;
#[path = "../fuzz/bodies/datagram.rs"]
mod datagram;
#[path = "../fuzz/bodies/dtls.rs"]
mod dtls;
#[path = "../fuzz/bodies/edhoc.rs"]
mod edhoc;
#[path = "../fuzz/bodies/gateway_packed.rs"]
mod gateway_packed;
#[path = "../fuzz/bodies/json_to_cbor.rs"]
mod json_to_cbor;
#[path = "support/mutator.rs"]
mod mutator;
#[path = "../fuzz/bodies/oscore.rs"]
mod oscore;
#[path = "../fuzz/bodies/packed.rs"]
mod packed;
#[path = "../fuzz/bodies/path.rs"]
mod path;

use std::panic;
use std::panic::AssertUnwindSafe;

use allocations::Metered;
use mutator::Mutator;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: Metered = Metered;

/// Inputs for each target, when `LOWBAND_FUZZ_INPUTS` does not say another number.
const INPUTS: u64 = 100_000;
/// What one input may make a target hold at once: the limit of an output (1 MiB) in all its shapes, far below what a
/// length field of an input can name.
const MEMORY: i64 = 16 << 20;

/// What the target of OSCORE opens: a request and the response to it, each as a datagram, and as the length of its option, the option and
/// the ciphertext.
const OPENED: [&str; 4] = [
    "4102000001920900fffa299508ec71b93806de0c",
    "020900fa299508ec71b93806de0c",
    "614400000190fff0fbb15c26fda235f1d97e",
    "00f0fbb15c26fda235f1d97e",
];

#[test]
fn cbor_to_json_survives() {
    let hex = first_columns(include_str!("vectors/codec/rfc8949-appendix-a.tsv"))
        .chain(first_columns(include_str!("vectors/codec/msc3079.tsv")))
        .chain(first_columns(include_str!("vectors/codec/tolerant.tsv")));
    try_all("cbor_to_json", hex.map(from_hex).collect(), cbor_to_json::run);
}

/// An input is a program of many datagrams, so there are fewer of them.
#[test]
fn datagram_survives() {
    try_some(inputs() / 20, "datagram", (0..500).map(program).collect(), datagram::run);
}

/// The same, and each instruction may be one of public keys.
#[test]
fn dtls_survives() {
    try_some(inputs() / 500, "dtls", (0..50).map(program).collect(), dtls::run);
}

/// Each input makes keys and agrees on some: so there are fewer of them.
#[test]
fn edhoc_survives() {
    let traces = include_str!("vectors/edhoc/rfc9529-section-3.txt").lines();
    let invalid = include_str!("vectors/edhoc/rfc9529-section-4.txt").lines();
    let values = traces.chain(invalid).filter(|line| !line.starts_with('#'));
    let values: Vec<_> =
        values.filter_map(|line| line.rsplit_once(' ')).map(|(_, hex)| from_hex(hex)).collect();
    let framed = |place: u8| values.iter().map(move |value| [&[place], value.as_slice()].concat());
    let mut seeds: Vec<Vec<u8>> = (0..8).flat_map(framed).collect();
    // message_1 stands after `true`, message_3 after a connection identifier or an option.
    seeds.extend(values.iter().map(|value| [&[2, 0xf5], value.as_slice()].concat()));
    seeds.extend(values.iter().map(|value| [&[3, 0x05], value.as_slice()].concat()));
    seeds.extend(values.iter().map(|value| [&[4, 3, 9, 0, 5], value.as_slice()].concat()));
    try_some(inputs() / 100, "edhoc", seeds, edhoc::run);
}

/// An input is a program of many messages, each of which may be coded, so there are fewer of them.
#[test]
fn gateway_packed_survives() {
    try_some(inputs() / 500, "gateway_packed", (0..50).map(program).collect(), gateway_packed::run);
}

#[test]
fn json_to_cbor_survives() {
    let mut seeds: Vec<Vec<u8>> = include_str!("vectors/codec/tolerant.tsv")
        .lines()
        .chain(include_str!("vectors/codec/msc3079.tsv").lines())
        .filter_map(|line| line.split('\t').nth(1))
        .map(|json| json.as_bytes().to_vec())
        .collect();
    seeds.extend(recorded_bodies());
    try_all("json_to_cbor", seeds, json_to_cbor::run);
}

/// Each input is tried many times over, and each try derives keys: so there are fewer of them.
#[test]
fn oscore_survives() {
    let appendix_c = include_str!("vectors/oscore/rfc8613-appendix-c.txt").lines();
    let values = appendix_c.filter_map(|line| line.split_once(' ')).map(|(_, value)| value);
    let mut seeds: Vec<Vec<u8>> = values.map(from_hex).collect();
    seeds.extend(OPENED.iter().map(|hex| from_hex(hex)));
    try_some(inputs() / 20, "oscore", seeds, oscore::run);
}

/// Each input is tried several times at ends that are copied, so there are fewer of them.
#[test]
fn packed_survives() {
    let rows = include_str!("vectors/packed/exchanges.tsv").lines().filter(|line| !line.starts_with('#'));
    let seeds = rows.filter_map(|row| row.split('\t').nth(2)).map(from_hex);
    try_some(inputs() / 50, "packed", seeds.collect(), packed::run);
}

#[test]
fn path_survives() {
    let rows = include_str!("vectors/matrix/paths.tsv").lines().filter(|line| !line.starts_with('#'));
    let seeds = rows.flat_map(|row| row.split('\t').skip(1).take(2));
    try_all("path", seeds.map(|text| text.replace(' ', "\0").into_bytes()).collect(), path::run);
}

fn try_all(target: &str, seeds: Vec<Vec<u8>>, run: fn(&[u8])) {
    try_some(inputs(), target, seeds, run);
}

/// Runs the target on every seed as it is, then on so many inputs made from them.
fn try_some(inputs: u64, target: &str, seeds: Vec<Vec<u8>>, run: fn(&[u8])) {
    assert!(seeds.len() > 20, "only {} seeds for {target}: were the vectors moved?", seeds.len());
    // Tables that are made once and kept are made here, before what is kept is counted.
    seeds.iter().for_each(|seed| run(seed));
    for seed in &seeds {
        try_one(target, seed, run);
    }
    let mut mutator = Mutator::new(target, seeds);
    for _ in 0..inputs {
        try_one(target, &mutator.next_input(), run);
    }
}

fn try_one(target: &str, input: &[u8], run: fn(&[u8])) {
    let mut outcome = Ok(());
    let usage =
        allocations::measure(|| outcome = panic::catch_unwind(AssertUnwindSafe(|| run(input))).map_err(drop));
    let shown = || format!("{target} on {}", to_hex(input));
    assert!(outcome.is_ok(), "panicked: {}; keep the input under tests/vectors", shown());
    assert!(usage.peak < MEMORY, "held {} bytes: {}", usage.peak, shown());
    assert_eq!(usage.kept, 0, "bytes kept after the end: {}", shown());
}

fn inputs() -> u64 {
    std::env::var("LOWBAND_FUZZ_INPUTS").map_or(INPUTS, |text| text.parse().unwrap())
}

/// A program for the target of datagrams, of 8 to 4096 bytes, half of them small: small numbers choose the instruction.
fn program(seed: u64) -> Vec<u8> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let length = 8 << (chance.next_u32() % 10);
    (0..length)
        .map(|_| match chance.next_u32().to_be_bytes() {
            [half, byte, ..] if half < 128 => byte,
            [_, byte, ..] => byte % 32,
        })
        .collect()
}

/// Some of the recorded bodies: small enough that a mutation changes their meaning.
fn recorded_bodies() -> Vec<Vec<u8>> {
    use std::io::Read;
    let mut lines = String::new();
    let corpus = include_bytes!("corpus/dev.jsonl.gz").as_slice();
    flate2::read::GzDecoder::new(corpus).read_to_string(&mut lines).unwrap();
    let exchanges = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let bodies = exchanges.flat_map(|exchange| [exchange["req"].clone(), exchange["resp"].clone()]);
    bodies.filter(Value::is_object).map(|body| body.to_string().into_bytes()).step_by(7).collect()
}

fn first_columns(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('\t').next())
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
