//! What each end of the packed profile refuses, by each coder, and what refusing takes at most (docs/packed.md §14 and §15).

#![expect(unreachable_pub, reason = "the meter is written for more than one test")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/allocations.rs"]
mod allocations;

use std::sync::LazyLock;

use lowband::packed::Agreement;
use lowband::packed::Asked;
use lowband::packed::DecodeError;
use lowband::packed::Dictionary;
use lowband::packed::GatewayEnd;
use lowband::packed::Kind;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;
use lowband::packed::train::untrained;

use allocations::Metered;

#[global_allocator]
static ALLOCATOR: Metered = Metered;

const AGREEMENT: Agreement = Agreement { epoch: 1, tokens: 7, transactions: 9 };
const SEND: &str =
    "/_matrix/client/v3/rooms/!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk/send/m.room.message/t";

/// One that writes with each coder; all read with all of them.
static DICTIONARIES: LazyLock<[Dictionary; 3]> = LazyLock::new(|| {
    let each: [&[u8]; 3] = [&[0], &[1], &[2]];
    each.map(|coder| untrained().only(coder))
});

fn request(body: &str) -> Request {
    let body = format!("{{\"msgtype\":\"m.text\",\"body\":\"{body}\"}}").into_bytes();
    Request { method: "PUT".to_owned(), path: SEND.to_owned(), query: None, body: Some(body) }
}

fn sync(query: Option<&str>) -> Request {
    let (method, path) = ("GET".to_owned(), "/_matrix/client/v3/sync".to_owned());
    Request { method, path, query: query.map(str::to_owned), body: None }
}

fn response(text: &str) -> Response {
    let body = format!("{{\"next_batch\":\"s1\",\"sender\":\"@alice:hs.example\",\"body\":\"{text}\"}}");
    Response { status: None, body: Some(body.into_bytes()) }
}

/// Both ends, and what the response to a request for /sync answers at each.
fn ends() -> (ProxyEnd, GatewayEnd, [Asked; 2]) {
    let (mut proxy, mut gateway) = (ProxyEnd::new(AGREEMENT), GatewayEnd::new(AGREEMENT));
    let up = proxy.encode_request(&sync(None), &DICTIONARIES[0], Spelling::Short).unwrap();
    let (_, asked) = gateway.decode_request(&up.payload, &DICTIONARIES[0], Limits::OF_REQUEST).unwrap();
    (proxy, gateway, [up.asked, asked])
}

fn written(request: &Request, dictionary: &Dictionary) -> Vec<u8> {
    ProxyEnd::new(AGREEMENT).encode_request(request, dictionary, Spelling::Short).unwrap().payload
}

fn answered(response: &Response, dictionary: &Dictionary) -> (Vec<u8>, Asked) {
    let (_, mut gateway, [theirs, ours]) = ends();
    (gateway.encode_response(response, ours, dictionary, Spelling::Short).payload, theirs)
}

fn at_gateway(payload: &[u8], limits: Limits) -> Result<Request, DecodeError> {
    GatewayEnd::new(AGREEMENT).decode_request(payload, &DICTIONARIES[0], limits).map(|(request, _)| request)
}

fn at_proxy(payload: &[u8], asked: Asked, limits: Limits) -> Result<Response, DecodeError> {
    ProxyEnd::new(AGREEMENT).decode_response(payload, asked, &DICTIONARIES[0], limits)
}

/// What the model makes of any bytes may be a message: of a part of one it is another, or none.
#[test]
fn what_is_cut_short_is_not_taken_for_the_whole_by_any_coder_at_any_end() {
    for (coder, dictionary) in DICTIONARIES.iter().enumerate() {
        let whole = request("Good evening, all of you");
        let up = written(&whole, dictionary);
        for length in 0..up.len() {
            match at_gateway(&up[..length], Limits::OF_REQUEST) {
                Ok(read) => assert!(coder == 2 && read != whole, "{length} of {}", up.len()),
                Err(DecodeError::Output { .. } | DecodeError::Model { .. }) => panic!("it is small"),
                Err(_) => {}
            }
        }
        let (down, asked) = answered(&response("Good evening, all of you"), dictionary);
        let whole = at_proxy(&down, asked, Limits::default()).unwrap();
        for length in 1..down.len() {
            let read = at_proxy(&down[..length], asked, Limits::default());
            assert!(read.is_err() || (coder == 2 && read != Ok(whole.clone())), "{length} of {}", down.len());
        }
        assert!(at_gateway(&up, Limits::OF_REQUEST).is_ok());
    }
}

#[test]
fn what_nobody_told_is_unknown_by_each_coder_at_each_end() {
    for dictionary in &*DICTIONARIES {
        let mut proxy = ProxyEnd::new(AGREEMENT);
        let first = proxy.encode_request(&request("one"), dictionary, Spelling::Short).unwrap();
        proxy.acknowledge(first.message);
        let second = proxy.encode_request(&request("two"), dictionary, Spelling::Short).unwrap();
        let refused = at_gateway(&second.payload, Limits::OF_REQUEST).unwrap_err();
        assert_eq!(refused, DecodeError::UnknownAlias { kind: Kind::Room, number: 0 });

        let (_, mut gateway, [theirs, ours]) = ends();
        let first = gateway.encode_response(&response("one"), ours, dictionary, Spelling::Short);
        gateway.acknowledge(first.message);
        let second = gateway.encode_response(&response("two"), ours, dictionary, Spelling::Short);
        let refused = at_proxy(&second.payload, theirs, Limits::default()).unwrap_err();
        assert_eq!(refused, DecodeError::UnknownAlias { kind: Kind::User, number: 0 });
    }
}

#[test]
fn positions_that_are_not_kept_are_unknown_by_each_coder_at_each_end() {
    for dictionary in &*DICTIONARIES {
        for (query, refused) in [
            ("since=lb00000007_5", DecodeError::UnknownToken(5)),
            ("timeout=0&pos=lb00000007_5", DecodeError::UnknownPosition(5)),
            ("xpos=1&from=lb00000007_5", DecodeError::UnknownToken(5)),
        ] {
            let up = written(&sync(Some(query)), dictionary);
            assert_eq!(at_gateway(&up, Limits::OF_REQUEST).unwrap_err(), refused);
        }
        // A notification that goes on from what the proxy never had.
        let (proxy, mut gateway, [theirs, ours]) = ends();
        gateway.encode_response(&response("one"), ours, dictionary, Spelling::Short);
        let down = gateway.encode_notification(&response("two"), ours, "s1", dictionary, Spelling::Short);
        let read =
            proxy.clone().decode_notification(&down.payload, theirs, &DICTIONARIES[0], Limits::default());
        assert_eq!(read.unwrap_err(), DecodeError::UnknownToken(0));
    }
}

#[test]
fn routes_that_the_table_does_not_have_are_unknown() {
    let items = [0xff, 0x7f];
    assert_eq!(
        at_gateway(&[&[0x04][..], &items].concat(), Limits::OF_REQUEST).unwrap_err(),
        DecodeError::UnknownRoute(0x3fff)
    );
    // A stored block of RFC 1951 §3.2.4.
    let stored = [&[0x24, 1, 2, 0, 0xfd, 0xff][..], &items].concat();
    assert_eq!(at_gateway(&stored, Limits::OF_REQUEST).unwrap_err(), DecodeError::UnknownRoute(0x3fff));
}

#[test]
fn more_items_than_the_model_may_make_are_refused_and_as_many_are_not() {
    let model = &DICTIONARIES[2];
    let text = "news ".repeat(800);
    let up = ProxyEnd::new(AGREEMENT).encode_request(&request(&text), model, Spelling::Short).unwrap();
    assert!(up.payload[0] >= 0x40 && up.items > text.len() && up.payload.len() < 500);
    let limits = |model: usize| Limits { model, ..Limits::OF_REQUEST };
    assert!(at_gateway(&up.payload, limits(up.items)).is_ok());
    let least = up.items - 1;
    assert_eq!(at_gateway(&up.payload, limits(least)).unwrap_err(), DecodeError::Model { limit: least });
    assert_eq!(Limits::OF_REQUEST.model, 8 << 10);

    let (_, mut gateway, [theirs, ours]) = ends();
    let down = gateway.encode_response(&response(&text), ours, model, Spelling::Short);
    assert!(at_proxy(&down.payload, theirs, limits(down.items)).is_ok());
    let least = down.items - 1;
    let refused = at_proxy(&down.payload, theirs, limits(least)).unwrap_err();
    assert_eq!(refused, DecodeError::Model { limit: least });
    assert_eq!(refused.to_string(), format!("more than {least} bytes of items by the model"));
}

#[test]
fn the_model_does_not_write_what_its_reader_would_refuse() {
    let model = &DICTIONARIES[2];
    for (length, is_model) in [(8_000, true), (9_000, false)] {
        let text = "x".repeat(length);
        let up = ProxyEnd::new(AGREEMENT).encode_request(&request(&text), model, Spelling::Short).unwrap();
        assert_eq!(up.payload[0] >= 0x40, is_model, "{} items", up.items);
        assert!(at_gateway(&up.payload, Limits::OF_REQUEST).is_ok());
    }
    let (down, asked) = answered(&response(&"x".repeat(9_000)), model);
    assert!(down[0] >= 0x40);
    assert!(at_proxy(&down, asked, Limits::default()).is_ok());
}

/// Bombs: a few hundred bytes that say megabytes.
#[test]
fn what_would_become_too_much_is_refused_in_little_memory_by_each_coder_at_each_end() {
    let limits = Limits { output: 256 << 10, ..Limits::OF_REQUEST };
    // Two bytes each for a long text.
    let long = format!("\"{}\"", "b".repeat(1000));
    let many = format!("[{}]", vec![long; 3000].join(","));
    let deflated = "a".repeat(3_000_000);
    for (coder, body) in [(0, many.as_str()), (1, &format!("\"{deflated}\""))] {
        let dictionary = &DICTIONARIES[coder];
        let up = written(&Request { body: Some(body.as_bytes().to_vec()), ..request("") }, dictionary);
        let (down, asked) =
            answered(&Response { status: None, body: Some(body.as_bytes().to_vec()) }, dictionary);
        assert!(up.len() < 16_000 && down.len() < 16_000, "{} {}", up.len(), down.len());
        let usage = allocations::measure(|| {
            let refused = at_gateway(&up, limits).unwrap_err();
            assert_eq!(refused, DecodeError::Output { limit: limits.output });
            let refused = at_proxy(&down, asked, limits).unwrap_err();
            assert_eq!(refused, DecodeError::Output { limit: limits.output });
        });
        assert!(usage.peak <= 2 << 20 && usage.kept == 0, "coder {coder}: {usage:?}");
    }
    // The model: what it changes of its lines is in a copy, and no more of them than a message may have items.
    let body = Response { status: None, body: Some(format!("\"{}\"", "news ".repeat(6_000)).into_bytes()) };
    let (down, asked) = answered(&body, &DICTIONARIES[2]);
    assert!(down[0] >= 0x40 && down.len() < 1000, "{}", down.len());
    let usage = allocations::measure(|| {
        let refused = at_proxy(&down, asked, limits).unwrap_err();
        assert_eq!(refused, DecodeError::Model { limit: limits.model });
    });
    assert!(usage.peak <= 4 << 20 && usage.kept == 0, "{usage:?}");
}
