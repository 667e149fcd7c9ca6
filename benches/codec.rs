//! What a body of 200 kB costs in the codec: time, allocations and bytes allocated, beside the same by way of a tree of
//! values (serde_json's and ciborium's), in the same run. `cargo bench --bench codec`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]

#[path = "support/counting.rs"]
mod counting;

use std::hint::black_box;
use std::io::BufRead;
use std::io::BufReader;

use criterion::BenchmarkGroup;
use criterion::Criterion;
use criterion::Throughput;
use criterion::measurement::WallTime;
use flate2::read::GzDecoder;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::codec::cbor_to_json;
use lowband::codec::json_to_cbor;
use serde_json::Value;

use counting::counted;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let limits = Limits::default();
    let json = sync_body(200_000);
    let cbor = json_to_cbor(&json, Keys::V1, &limits).unwrap();
    let plain = json_to_cbor(&json, Keys::Strings, &limits).unwrap();
    println!(
        "/sync body: {} bytes of JSON, {} of CBOR, {} with integer keys",
        json.len(),
        plain.len(),
        cbor.len()
    );

    let mut group = criterion.benchmark_group("json_to_cbor");
    group.throughput(Throughput::Bytes(json.len() as u64));
    measure(&mut group, "integer keys", || json_to_cbor(black_box(&json), Keys::V1, &limits).unwrap());
    measure(&mut group, "string keys", || json_to_cbor(black_box(&json), Keys::Strings, &limits).unwrap());
    measure(&mut group, "string keys by way of a tree", || tree_to_cbor(black_box(&json)));
    group.finish();

    let mut group = criterion.benchmark_group("cbor_to_json");
    group.throughput(Throughput::Bytes(json.len() as u64));
    measure(&mut group, "integer keys", || cbor_to_json(black_box(&cbor), &limits).unwrap().json);
    measure(&mut group, "string keys", || cbor_to_json(black_box(&plain), &limits).unwrap().json);
    measure(&mut group, "string keys by way of a tree", || tree_to_json(black_box(&plain)));
    group.finish();
    criterion.final_summary();
}

/// Prints what one call allocates, then hands it to criterion.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut convert: impl FnMut() -> Vec<u8>) {
    let (out, (allocations, bytes)) = counted(&mut convert);
    println!("{name}: {allocations} allocations of {bytes} bytes for {} bytes", out.len());
    group.bench_function(name, |bencher| bencher.iter(&mut convert));
}

fn tree_to_cbor(json: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(json).unwrap();
    let mut cbor = Vec::new();
    ciborium::into_writer(&value, &mut cbor).unwrap();
    cbor
}

fn tree_to_json(cbor: &[u8]) -> Vec<u8> {
    let value: Value = ciborium::from_reader(cbor).unwrap();
    serde_json::to_vec(&value).unwrap()
}

/// Builds the answer to one large initial /sync out of recorded ones: their rooms under new names, until `size` is
/// reached. The same bytes in every run.
fn sync_body(size: usize) -> Vec<u8> {
    let corpus = GzDecoder::new(include_bytes!("../tests/corpus/dev.jsonl.gz").as_slice());
    let exchanges =
        BufReader::new(corpus).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let mut rooms = Vec::new();
    let mut first: Option<Value> = None;
    for exchange in exchanges {
        let sync = exchange["path"]
            .as_str()
            .is_some_and(|path| path.split('?').next().unwrap().ends_with("v3/sync"));
        if let (true, Some(joined)) = (sync, exchange["resp"]["rooms"]["join"].as_object()) {
            rooms.extend(joined.clone());
            first.get_or_insert_with(|| exchange["resp"].clone());
        }
    }
    let mut body = first.expect("the corpus has a sync");
    let mut length = serde_json::to_vec(&body).unwrap().len();
    let joined = body["rooms"]["join"].as_object_mut().unwrap();
    for (index, (name, room)) in rooms.iter().cycle().enumerate() {
        if length >= size {
            break;
        }
        length += serde_json::to_vec(room).unwrap().len() + name.len() + 10;
        joined.insert(format!("{name}.{index}"), room.clone());
    }
    serde_json::to_vec(&body).unwrap()
}
