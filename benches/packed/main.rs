//! What messages of the packed profile cost by each coder: time and allocations to write and to read them, what the model takes until it is
//! ready, and what a hostile message of its makes of a reader. `cargo bench --bench packed`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a bench looks at the clock")]

#[path = "../support/counting.rs"]
mod counting;
mod exchange;

use std::hint::black_box;
use std::time::Instant;

use criterion::BenchmarkGroup;
use criterion::Criterion;
use criterion::Throughput;
use criterion::measurement::WallTime;
use lowband::packed::Agreement;
use lowband::packed::Asked;
use lowband::packed::Dictionary;
use lowband::packed::GatewayEnd;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;

use counting::counted;
use exchange::Steady;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let each: [&[u8]; 3] = [&[0], &[1], &[2]];
    let all = each.map(|coder| Dictionary::built_in().clone().only(coder));
    let model = all.last().unwrap();
    let start = Instant::now();
    let (_, allocated) = counted(|| Ends::new().answer(&sync(1), model));
    println!("the model is ready after {:.0?}: {} bytes allocated", start.elapsed(), allocated.1);

    for (size, events) in [("one event", 1), ("20 kB", 68), ("200 kB", 690)] {
        let body = sync(events);
        for (name, dictionary) in ["none", "DEFLATE", "model"].iter().zip(&all) {
            let mut group = criterion.benchmark_group(format!("{size}, {name}"));
            let (ends, message) = Ends::new().answer(&body, dictionary);
            if events > 100 {
                group.sample_size(10);
            }
            println!("{size}, {name}: {} bytes of JSON in {}", body.len(), message.len());
            group.throughput(Throughput::Bytes(body.len() as u64));
            measure(&mut group, "encode", || ends.clone().answer(&body, dictionary));
            measure(&mut group, "decode", || ends.clone().read(&message, dictionary));
            group.finish();
        }
    }
    let mut group = criterion.benchmark_group("a message and a sync at the gateway, both ends");
    let packed = all.into_iter().map(Some);
    for (name, dictionary) in
        ["MSC3079", "none", "DEFLATE", "model"].iter().zip(std::iter::once(None).chain(packed))
    {
        let mut steady = Steady::new(dictionary);
        (0..200).for_each(|_| steady.exchange());
        (steady.stored, steady.sent) = (0, 0);
        (0..100).for_each(|_| steady.exchange());
        println!("{name}: {} bytes stored, {} bytes answered", steady.stored / 100, steady.sent / 100);
        measure(&mut group, name, || steady.exchange());
    }
    group.finish();
    criterion.final_summary();
}

/// Prints what one call allocates, but for the copy of the ends that it changes, then hands it to criterion.
fn measure<T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut call: impl FnMut() -> T) {
    let (_, (allocations, bytes)) = counted(&mut call);
    println!("{name}: {allocations} allocations of {bytes} bytes");
    group.bench_function(name, |bencher| bencher.iter(|| black_box(call())));
}

/// Two ends that have agreed, and a client that has asked for /sync.
#[derive(Clone)]
struct Ends {
    proxy: ProxyEnd,
    gateway: GatewayEnd,
    asked: [Asked; 2],
}

impl Ends {
    fn new() -> Self {
        let agreement = Agreement { epoch: 1, tokens: 7, transactions: 9 };
        let (mut proxy, mut gateway) = (ProxyEnd::new(agreement), GatewayEnd::new(agreement));
        let plain = Dictionary::built_in().clone().only(&[0]);
        let request = Request {
            method: "GET".to_owned(),
            path: "/_matrix/client/v3/sync".to_owned(),
            query: Some("timeout=30000".to_owned()),
            body: None,
        };
        let up = proxy.encode_request(&request, &plain, Spelling::Short).unwrap();
        let (_, asked) = gateway.decode_request(&up.payload, &plain, Limits::default()).unwrap();
        Ends { proxy, gateway, asked: [up.asked, asked] }
    }

    fn answer(mut self, body: &[u8], dictionary: &Dictionary) -> (Self, Vec<u8>) {
        let before = self.clone();
        let response = Response { status: None, body: Some(body.to_vec()) };
        let message = self.gateway.encode_response(&response, self.asked[1], dictionary, Spelling::Short);
        (before, message.payload)
    }

    fn read(mut self, message: &[u8], dictionary: &Dictionary) -> Response {
        self.proxy.decode_response(message, self.asked[0], dictionary, Limits::default()).unwrap()
    }
}

/// A `/sync` answer with so many messages in two rooms.
fn sync(events: usize) -> Vec<u8> {
    let words =
        ["the", "tide", "turns", "at", "noon", "and", "wind", "from", "north", "west", "seven", "knots"];
    let event = |number: usize| {
        let text: Vec<&str> =
            (0..8 + number % 9).map(|place| words[(number * 7 + place * 5) % words.len()]).collect();
        let id = format!("{:0>43}", format!("{}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        serde_json::json!({
            "type": "m.room.message",
            "sender": format!("@user{}:hs.example", number % 5),
            "content": { "msgtype": "m.text", "body": text.join(" ") },
            "event_id": format!("${id}"),
            "origin_server_ts": 1_795_468_377_411u64 + number as u64 * 61_713,
            "unsigned": { "membership": "join", "age": 300 + number },
        })
    };
    let room = |room: usize| {
        let events: Vec<_> = (0..events).filter(|number| number % 2 == room).map(event).collect();
        serde_json::json!({
            "timeline": { "events": events, "limited": false, "prev_batch": format!("s{room}_17_0_1") },
            "state": { "events": [] },
            "ephemeral": { "events": [] },
            "account_data": { "events": [] },
            "unread_notifications": { "notification_count": 1, "highlight_count": 0 },
        })
    };
    let mut join = serde_json::Map::new();
    join.insert("!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk".to_owned(), room(0));
    if events > 1 {
        join.insert("!two:hs.example".to_owned(), room(1));
    }
    let sync = serde_json::json!({ "next_batch": "s72595_4483_1934", "rooms": { "join": join } });
    sync.to_string().into_bytes()
}
