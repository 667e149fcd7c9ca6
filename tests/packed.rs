//! The packed profile against recorded traffic, arbitrary values and bytes, and a network that loses, repeats and reorders.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::BufReader;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use lowband::link::Profile;
use lowband::measure::Encoding;
use lowband::measure::Exchange;
use lowband::measure::Meter;
use lowband::measure::Recording;
use lowband::measure::Report;
use lowband::measure::Security;
use lowband::measure::Setup;
use lowband::packed::Agreement;
use lowband::packed::Asked;
use lowband::packed::Change;
use lowband::packed::DecodeError;
use lowband::packed::Dictionary;
use lowband::packed::EncodeError;
use lowband::packed::GatewayEnd;
use lowband::packed::Kind;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;

const NONE: &[u8] = &[0];
const DEFLATE: &[u8] = &[0, 1];

const AGREEMENT: Agreement = Agreement { epoch: 1, tokens: 7, transactions: 9 };
const ROOM: &str = "!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk";

fn dictionary(allowed: &'static [u8]) -> Dictionary {
    Dictionary::built_in().clone().only(allowed)
}

fn recording() -> Vec<Exchange> {
    let corpus = GzDecoder::new(include_bytes!("corpus/dev.jsonl.gz").as_slice());
    Recording::new(BufReader::new(corpus)).map(Result::unwrap).collect()
}

fn measure(dictionary: &Dictionary, exchanges: &[Exchange]) -> Report {
    let (encoding, link) = (Encoding::Packed(dictionary.clone()), Profile::built_in("lan").unwrap());
    let mut meter = Meter::new(Setup { encoding, security: Security::None, link });
    for exchange in exchanges {
        assert_eq!(meter.replay(exchange), None, "line {}", exchange.line);
    }
    *meter.report()
}

/// Run with `--nocapture` to see what each class comes to.
#[test]
fn a_recorded_day_comes_back_value_for_value_in_the_bytes_that_were_promised() {
    let report = measure(&dictionary(DEFLATE), &recording());
    println!("{report}");
    let (steady, all) = (report.steady().payload, report.all().payload);
    assert!(steady <= 49_000, "{steady}");
    assert!(all <= 191_000, "{all}");
}

#[test]
fn aliases_and_binary_identifiers_pay_without_any_coder() {
    assert!(measure(&dictionary(NONE), &recording()).steady().payload <= 88_000);
}

#[test]
fn the_model_codes_the_same_in_fewer_bytes() {
    let steady = recording().into_iter().filter(|exchange| exchange.class().is_steady());
    let exchanges: Vec<Exchange> = steady.take(120).collect();
    let deflate = measure(&dictionary(DEFLATE), &exchanges).all().payload;
    let model = measure(Dictionary::built_in(), &exchanges).all().payload;
    println!("DEFLATE {deflate}, the model {model}");
    assert!(model * 100 <= deflate * 85, "{model} of {deflate}");
}

/// Run with `--nocapture` to see what a gateway writes on its disk for an exchange, and what the whole of an end is.
#[test]
fn what_has_changed_of_an_end_is_little_and_makes_it_again() {
    let mut all = BTreeMap::<Option<Vec<u8>>, (Pair, GatewayEnd)>::new();
    let (mut exchanges, mut changed, mut whole, mut largest) = (0, 0, 0, 0);
    for exchange in recording() {
        let whose = exchange.authorization().map(|token| token.as_bytes().to_vec());
        let (pair, copy) = all.entry(whose).or_insert_with(|| {
            let mut pair = Pair::new(NONE);
            pair.gateway.keep_changes();
            (pair, GatewayEnd::new(AGREEMENT))
        });
        pair.replay(&exchange);
        let changes = pair.gateway.take_changes();
        let bytes = stored(&changes);
        let read: Vec<Change> = ciborium::from_reader(bytes.as_slice()).unwrap();
        read.into_iter().for_each(|change| copy.redo(change));
        if exchange.class().is_steady() {
            let now = stored(&pair.gateway).len();
            (exchanges, changed) = (exchanges + 1, changed + bytes.len());
            (whole, largest) = (whole + now, largest.max(now));
        }
    }
    for (pair, copy) in all.values() {
        assert!(stored(&pair.gateway) == stored(copy), "another end than by its changes");
    }
    let (changed, whole) = (changed / exchanges, whole / exchanges);
    println!("{exchanges} exchanges: {changed} bytes of changes each; the whole {whole}, at most {largest}");
    assert!(changed <= 600, "{changed}");
}

fn stored(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// Both ends, and a network between them that does as it is told.
struct Pair {
    proxy: ProxyEnd,
    gateway: GatewayEnd,
    dictionary: Dictionary,
}

impl Pair {
    /// One exchange, without loss.
    fn replay(&mut self, exchange: &Exchange) {
        let (asked, limits) = (&exchange.request, Limits::default());
        let request = Request {
            method: asked.method().to_string(),
            path: asked.uri().path().to_owned(),
            query: asked.uri().query().map(str::to_owned),
            body: (!asked.body().is_empty()).then(|| asked.body().to_vec()),
        };
        let up = self.proxy.encode_request(&request, &self.dictionary, Spelling::Short).unwrap();
        let (_, asked) = self.gateway.decode_request(&up.payload, &self.dictionary, limits).unwrap();
        let response = Response { status: None, body: Some(exchange.response.body().to_vec()) };
        let down = self.gateway.encode_response(&response, asked, &self.dictionary, Spelling::Short);
        self.proxy.decode_response(&down.payload, up.asked, &self.dictionary, limits).unwrap();
        self.proxy.acknowledge(up.message);
    }

    fn new(allowed: &'static [u8]) -> Self {
        Pair {
            proxy: ProxyEnd::new(AGREEMENT),
            gateway: GatewayEnd::new(AGREEMENT),
            dictionary: dictionary(allowed),
        }
    }

    /// Puts a request through.
    fn ask(&mut self, request: &Request) -> (Request, Asked, Asked, usize) {
        let up = self.proxy.encode_request(request, &self.dictionary, Spelling::Short).unwrap();
        let (read, asked) =
            self.gateway.decode_request(&up.payload, &self.dictionary, Limits::default()).unwrap();
        self.proxy.acknowledge(up.message);
        (read, up.asked, asked, up.payload.len())
    }

    /// Puts an answer through.
    fn answer(&mut self, body: &Value, (theirs, ours): (Asked, Asked)) -> (Value, usize) {
        let response = Response { status: None, body: Some(serde_json::to_vec(body).unwrap()) };
        let down = self.gateway.encode_response(&response, ours, &self.dictionary, Spelling::Short);
        let limits = Limits::default();
        let read = self.proxy.decode_response(&down.payload, theirs, &self.dictionary, limits).unwrap();
        self.gateway.acknowledge(down.message);
        (serde_json::from_slice(&read.body.unwrap()).unwrap(), down.payload.len())
    }

    fn exchange(&mut self, request: &Request, body: &Value) -> (Request, Value) {
        let (read, theirs, ours, _) = self.ask(request);
        (read, self.answer(body, (theirs, ours)).0)
    }
}

fn request(method: &str, target: &str, body: Option<&Value>) -> Request {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let body = body.map(|body| serde_json::to_vec(body).unwrap());
    Request { method: method.to_owned(), path: path.to_owned(), query, body }
}

fn send(transaction: &str, text: &str) -> Request {
    let path = format!("/_matrix/client/v3/rooms/{ROOM}/send/m.room.message/{transaction}");
    request("PUT", &path, Some(&json!({"msgtype": "m.text", "body": text})))
}

fn sync_of(number: usize, text: &str, event: &str) -> Value {
    json!({"next_batch": format!("s{number}_9"), "rooms": {"join": {ROOM: {"timeline": {"events": [{
        "content": {"body": text, "msgtype": "m.text"}, "event_id": event, "origin_server_ts": 1_795_468_377_102i64 + number as i64 * 61_007,
        "sender": "@bob:chat.greenfield.test", "type": "m.room.message", "unsigned": {"age": 153}}],
        "prev_batch": format!("s{}_9", number - 1), "limited": false}, "state": {"events": []}, "account_data": {"events": []},
        "ephemeral": {"events": []}, "unread_notifications": {"notification_count": 0, "highlight_count": 0}, "summary": {}}}}})
}

fn event(number: u8) -> String {
    format!(
        "${}",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ".replace('c', &char::from(b'a' + number).to_string())
    )
}

#[test]
fn a_message_takes_tens_of_bytes() {
    for (allowed, up, down, notified) in
        [(NONE, 45, 60, 130), (DEFLATE, 26, 45, 72), (&[0, 1, 2], 24, 40, 60)]
    {
        let mut pair = Pair::new(allowed);
        let (_, theirs, ours, _) = pair.ask(&send("m1", "Is anybody there?"));
        pair.answer(&json!({"event_id": event(0)}), (theirs, ours));
        let (_, theirs, ours, length) = pair.ask(&send("m2", "Hello World"));
        assert!(length <= up, "{length} up");
        let (_, length) = pair.answer(&json!({"event_id": event(1)}), (theirs, ours));
        assert!(length <= down, "{length} down");

        let (_, theirs, ours, _) = pair.ask(&request("GET", "/_matrix/client/v3/sync?timeout=30000", None));
        let (first, _) = pair.answer(&sync_of(1, "Who is there?", &event(2)), (theirs, ours));
        let since = first["next_batch"].as_str().unwrap();
        let target = format!("/_matrix/client/v3/sync?timeout=30000&since={since}");
        let (read, theirs, ours, _) = pair.ask(&request("GET", &target, None));
        assert_eq!(read.query.as_deref(), Some("timeout=30000&since=s1_9"));
        let (_, length) = pair.answer(&sync_of(2, "Hello World!", &event(3)), (theirs, ours));
        assert!(length <= notified, "{length} notified");
    }
}

#[test]
fn a_position_is_one_wherever_a_client_says_it_again() {
    let mut pair = Pair::new(DEFLATE);
    let sync = request("GET", "/_matrix/client/v3/sync?timeout=0", None);
    let (_, body) = pair.exchange(&sync, &sync_of(1, "one", &event(1)));
    let position = body["next_batch"].as_str().unwrap();
    for (path, of) in [
        ("sync", "since"),
        ("keys/changes", "from"),
        ("keys/changes", "to"),
        ("rooms/!a:hs/messages", "from"),
        ("rooms/!a:hs/messages", "to"),
        ("rooms/!a:hs/members", "at"),
    ] {
        let target = format!("/_matrix/client/v3/{path}?{of}={position}");
        let (read, ..) = pair.ask(&request("GET", &target, None));
        assert_eq!(read.query, Some(format!("{of}=s1_9")), "{path}");
    }
}

#[test]
fn notifications_go_on_from_any_position_that_is_known() {
    let mut pair = Pair::new(DEFLATE);
    let (_, theirs, ours, _) = pair.ask(&request("GET", "/_matrix/client/v3/sync?timeout=0", None));
    pair.answer(&sync_of(1, "one", &event(1)), (theirs, ours));
    // The second is lost; the third goes on from the first again.
    for (number, text) in [(2, "two"), (3, "three and more")] {
        let response = Response {
            status: None,
            body: Some(serde_json::to_vec(&sync_of(number, text, &event(2))).unwrap()),
        };
        let down =
            pair.gateway.encode_notification(&response, ours, "s1_9", &pair.dictionary, Spelling::Short);
        if number == 3 {
            let read = pair
                .proxy
                .decode_notification(&down.payload, theirs, &pair.dictionary, Limits::default())
                .unwrap();
            let read: Value = serde_json::from_slice(&read.body.unwrap()).unwrap();
            let events = &read["rooms"]["join"][ROOM]["timeline"]["events"];
            assert_eq!(events[0]["content"]["body"], text);
            assert_eq!(events[0]["origin_server_ts"], 1_795_468_377_102i64 + 3 * 61_007);
        }
    }
}

#[test]
fn a_repeated_transaction_has_the_same_id_upstream_and_comes_back_as_the_clients() {
    let mut pair = Pair::new(DEFLATE);
    let (first, _) = pair.exchange(&send("t1", "Good evening"), &json!({"event_id": event(1)}));
    let saved = stored(&pair.gateway);
    let (again, _) = pair.exchange(&send("t1", "Good evening"), &json!({"event_id": event(1)}));
    assert_eq!(first.path, again.path);
    // The gateway comes back with what it was before.
    pair.gateway = ciborium::from_reader(saved.as_slice()).unwrap();
    let (again, _) = pair.exchange(&send("t1", "Good evening"), &json!({"event_id": event(1)}));
    assert_eq!(first.path, again.path);
    let (other, _) = pair.exchange(&send("t2", "Good evening"), &json!({"event_id": event(2)}));
    assert_ne!(first.path, other.path);

    let id = first.path.rsplit('/').next().unwrap();
    let sync = json!({"next_batch": "s1", "rooms": {"join": {ROOM: {"timeline": {"events": [
        {"event_id": event(1), "unsigned": {"transaction_id": id}}, {"content": {"unsigned": {"transaction_id": id}}}]}}}}});
    let (_, read) = pair.exchange(&request("GET", "/_matrix/client/v3/sync", None), &sync);
    let events = &read["rooms"]["join"][ROOM]["timeline"]["events"];
    assert_eq!(events[0]["event_id"], event(1));
    assert_eq!(events[0]["unsigned"]["transaction_id"], "t1");
    assert_eq!(events[1]["content"]["unsigned"]["transaction_id"], id); // what people write is theirs
}

#[test]
fn tokens_stay_at_the_gateway_and_what_looks_like_one_elsewhere_is_text() {
    let mut pair = Pair::new(DEFLATE);
    let (_, read) =
        pair.exchange(&request("GET", "/_matrix/client/v3/sync", None), &json!({"next_batch": "s1_2_3"}));
    let token = read["next_batch"].as_str().unwrap().to_owned();
    assert!(!token.contains("s1_2_3"));
    let path = format!("/_matrix/client/v3/rooms/{ROOM}/messages");
    let (asked, _) =
        pair.exchange(&request("GET", &format!("{path}?from={token}&dir=b"), None), &json!({"chunk": []}));
    assert_eq!(asked.query.as_deref(), Some("from=s1_2_3&dir=b"));
    let (asked, read) = pair.exchange(&send("t1", &token), &json!({"event_id": event(1), "note": token}));
    assert_eq!(serde_json::from_slice::<Value>(&asked.body.unwrap()).unwrap()["body"], token);
    assert_eq!(read["note"], token);
    // Whatever a homeserver puts into its tokens.
    let (_, read) = pair.exchange(
        &request("GET", "/_matrix/client/v3/sync", None),
        &json!({"next_batch": "a+b&timeout=0#é%"}),
    );
    let odd = format!("/_matrix/client/v3/sync?since={}", read["next_batch"].as_str().unwrap());
    let (asked, _) = pair.exchange(&request("GET", &odd, None), &json!({}));
    assert_eq!(asked.query.as_deref(), Some("since=a%2Bb%26timeout%3D0%23%C3%A9%25"));
    // Of a gateway that lost what it gave there is no going on.
    pair.proxy.begin_epoch(2, 8);
    let sync = request("GET", &format!("/_matrix/client/v3/sync?since={token}"), None);
    let refused = pair.proxy.encode_request(&sync, &pair.dictionary, Spelling::Short);
    assert_eq!(refused.unwrap_err(), EncodeError::ForeignToken);
}

#[test]
fn secrets_pass_no_coder_and_are_not_remembered() {
    let mut pair = Pair::new(DEFLATE);
    let login = json!({"type": "m.login.password", "password": "correct horse battery staple", "identifier": {"user": "a"}});
    for _ in 0..2 {
        let up = pair
            .proxy
            .encode_request(
                &request("POST", "/_matrix/client/v3/login", Some(&login)),
                &pair.dictionary,
                Spelling::Short,
            )
            .unwrap();
        pair.gateway.decode_request(&up.payload, &pair.dictionary, Limits::default()).unwrap();
        pair.proxy.acknowledge(up.message);
        let secret = b"correct horse battery staple";
        assert!(up.payload.windows(secret.len()).any(|part| part == secret), "beside the coded part");
    }
}

#[test]
fn each_kind_of_damage_has_its_name() {
    let mut pair = Pair::new(DEFLATE);
    let limits = Limits::default();
    let read = |pair: &mut Pair, payload: &[u8]| {
        pair.gateway.decode_request(payload, &dictionary(DEFLATE), limits).unwrap_err()
    };
    assert_eq!(read(&mut pair, &[]), DecodeError::Truncated);
    assert_eq!(read(&mut pair, &[0x04]), DecodeError::Truncated);
    assert_eq!(read(&mut pair, &[0x08]), DecodeError::UnknownEpoch { theirs: 2, ours: 1 });
    assert_eq!(read(&mut pair, &[0x04, 0xff, 0x7f]), DecodeError::UnknownRoute(0x3fff));
    // Route 0, GET, a room that nobody told.
    assert_eq!(
        read(&mut pair, &[0x04, 0, 0, 0x63, 5]),
        DecodeError::UnknownAlias { kind: Kind::Room, number: 5 }
    );
    // An answer to /sync that refers to what the proxy never had.
    let sync = request("GET", "/_matrix/client/v3/sync", None);
    let (_, theirs, _, _) = pair.ask(&sync);
    let refused = pair.proxy.decode_response(&[0x04, 0x64, 9], theirs, &pair.dictionary, limits);
    assert_eq!(refused.unwrap_err(), DecodeError::UnknownAlias { kind: Kind::User, number: 9 });
    // A token of the gateway's that it does not have.
    let query = [0x08, 1, 0x50, b's', b'i', b'n', b'c', b'e', b'=', 1, 0, 0x6d, 77, 0x2b];
    let query = [&[0x06, 0][..], &query[1..]].concat();
    assert_eq!(read(&mut pair, &query), DecodeError::UnknownToken(77));
    // A path that leads elsewhere.
    assert_eq!(read(&mut pair, &[0x04, 0, 0, 0x50, b'.', b'.', 0, 0x7f]), DecodeError::Path);
    // Names of members go on without end.
    let deep = [&[0x04, 1, 0x2b][..], &[0x31; 200]].concat();
    assert_eq!(read(&mut pair, &deep), DecodeError::Depth { limit: 126 });
}

#[test]
fn every_prefix_of_a_message_is_refused() {
    for allowed in [NONE, &[1], &[2]] {
        let mut pair = Pair::new(allowed);
        let up = pair
            .proxy
            .encode_request(&send("t1", "Good evening, all"), &pair.dictionary, Spelling::Short)
            .unwrap();
        for length in 0..up.payload.len() {
            let mut gateway = GatewayEnd::new(AGREEMENT);
            let read = gateway.decode_request(&up.payload[..length], &pair.dictionary, Limits::default());
            assert!(read.is_err(), "{allowed:?} {length}: {read:?}");
        }
        let longer = [&up.payload[..], &[0]].concat();
        assert!(pair.gateway.decode_request(&longer, &pair.dictionary, Limits::default()).is_err());
        assert!(pair.gateway.decode_request(&up.payload, &pair.dictionary, Limits::default()).is_ok());
    }
}

#[test]
fn what_would_become_too_much_is_refused_before_it_does() {
    let body = json!({"msgtype": "m.text", "body": "a".repeat(300_000)});
    for allowed in [NONE, &[1]] {
        let mut pair = Pair::new(allowed);
        let path = format!("/_matrix/client/v3/rooms/{ROOM}/send/m.room.message/t");
        let up = pair
            .proxy
            .encode_request(&request("PUT", &path, Some(&body)), &pair.dictionary, Spelling::Short)
            .unwrap();
        let limits = Limits { output: 10_000, ..Limits::default() };
        let refused = pair.gateway.decode_request(&up.payload, &pair.dictionary, limits).unwrap_err();
        assert_eq!(refused, DecodeError::Output { limit: 10_000 });
    }
    // Two bytes each for a long text that was told once.
    let mut pair = Pair::new(NONE);
    let text = "b".repeat(1000);
    let many = json!(vec![text; 4000]);
    let path = format!("/_matrix/client/v3/rooms/{ROOM}/send/m.room.message/t");
    let up = pair
        .proxy
        .encode_request(&request("PUT", &path, Some(&many)), &pair.dictionary, Spelling::Short)
        .unwrap();
    assert!(up.payload.len() < 20_000);
    let limits = Limits { output: 100_000, ..Limits::default() };
    let refused = pair.gateway.decode_request(&up.payload, &pair.dictionary, limits).unwrap_err();
    assert_eq!(refused, DecodeError::Output { limit: 100_000 });
}

#[test]
fn identifiers_within_a_text_are_referred_to() {
    let mut pair = Pair::new(NONE);
    let text = format!(
        "see https://matrix.to/#/{ROOM}/{}?via=hs.test, says @bob:hs.test. @@!$# {ROOM}{ROOM}",
        event(1)
    );
    let mut lengths = Vec::new();
    for transaction in ["t1", "t2", "t3"] {
        let body = format!("{text} {transaction}");
        let (read, theirs, ours, length) = pair.ask(&send(transaction, &body));
        assert_eq!(serde_json::from_slice::<Value>(&read.body.unwrap()).unwrap()["body"], body);
        pair.answer(&json!({"event_id": event(1), "sender": "@bob:hs.test"}), (theirs, ours));
        lengths.push(length);
    }
    assert!(lengths[2] < lengths[0] && lengths[2] < text.len() - 50, "{lengths:?} of {}", text.len());
}

#[test]
fn only_a_member_is_an_age() {
    let mut pair = Pair::new(NONE);
    let body =
        json!({"": [1_795_468_377_000u64], "age": [1, 0], "x": {"age": 5, "y": {"age": {"age": 1, "z": 7}}}});
    let (_, read) = pair.exchange(&request("GET", "/_matrix/client/v3/sync", None), &body);
    assert_eq!(read, body);
}

#[test]
fn what_is_no_json_or_not_exact_travels_as_it_is() {
    let mut pair = Pair::new(DEFLATE);
    let deep = "[".repeat(130) + &"]".repeat(130);
    for body in ["", "{", "{\"a\":18446744073709551616}", "\"\\ud800\"", "\u{0}\u{1}", &deep] {
        let path = "/_matrix/client/v3/createRoom".to_owned();
        let sent =
            Request { method: "POST".to_owned(), path, query: None, body: Some(body.as_bytes().to_vec()) };
        assert_eq!(pair.ask(&sent).0, sent, "{body}");
    }
    // A name twice: both are there.
    let sent = Request {
        body: Some(br#"{"a":1,"a":2}"#.to_vec()),
        ..request("POST", "/_matrix/client/v3/createRoom", None)
    };
    assert_eq!(pair.ask(&sent).0, sent);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z.]{0,12}",
        "[@!#$+][a-z]{0,5}:[a-z.:]{0,9}",
        "[A-Za-z0-9+/]{20,90}={0,2}",
        "[$!][A-Za-z0-9_-]{43}",
        "[A-Z]{10}",
        "ed25519:[A-Z]{10}",
        "mxc://[a-z.]{0,9}/[a-z\\x00]{0,4}",
        "lb0000000[789][._][0-9]{1,3}",
        Just("m.room.message".to_owned()),
        Just(ROOM.to_owned()),
        "[@!$#a-c:. ]{0,30}",
        "[a-c]{0,3}@user[0-2]:hs.test[ .a-c@!]{0,9}",
        "[a-c]{0,3}\\$[A-Za-z0-9_-]{43}[ .a-c@!]{0,9}",
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..300).prop_map(Value::from),
        (1_795_468_377_000u64..1_795_468_477_000).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no such numbers", |number| number.is_finite())
            .prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let name = prop_oneof![
            any_text(),
            Just("age".to_owned()),
            Just("origin_server_ts".to_owned()),
            Just("event_id".to_owned()),
            Just("password".to_owned()),
            Just("unsigned".to_owned())
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6)
                .prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_value_comes_back(bodies in prop::collection::vec((any_json(), any_json()), 1..4)) {
        let mut pair = Pair::new(NONE);
        for (up, down) in &bodies {
            let path = format!("/_matrix/client/v3/rooms/{ROOM}/state/m.room.name/");
            let (read, answer) = pair.exchange(&request("PUT", &path, Some(up)), down);
            prop_assert_eq!(&serde_json::from_slice::<Value>(&read.body.unwrap()).unwrap(), up);
            prop_assert_eq!(&answer, down);
        }
    }

    #[test]
    fn any_path_and_query_come_back(
        segments in prop::collection::vec(any_text().prop_filter("dots lead elsewhere", |text| text != "." && text != ".."), 1..6),
        query in prop::option::of("[a-zA-Z0-9=&%:_.-]{0,40}"),
        is_known in any::<bool>(),
    ) {
        let mut pair = Pair::new(NONE);
        let mut path = if is_known { "/_matrix/client/v3/rooms".to_owned() } else { String::new() };
        for segment in &segments {
            path.push('/');
            segment.bytes().for_each(|byte| path.push_str(&format!("%{byte:02X}")));
        }
        let sent = Request { method: "PUT".to_owned(), path, query, body: None };
        let (read, _, _, _) = pair.ask(&sent);
        let (sent_segments, read_segments) = (lowband::matrix::split_path(&sent.path), lowband::matrix::split_path(&read.path));
        let is_send = read.path.contains("lb00000009.");
        prop_assert!(is_send || sent_segments == read_segments);
        prop_assert_eq!(read.query, sent.query);
    }

    #[test]
    fn no_bytes_harm_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200), header in 0u8..2) {
        let mut pair = Pair::new(DEFLATE);
        let (_, theirs, ours, _) = pair.ask(&send("t1", "Good evening, all"));
        pair.answer(&json!({"event_id": event(1)}), (theirs, ours));
        let payload = [&[header << 5 | 0x04 | bytes.first().copied().unwrap_or_default() & 3][..], &bytes].concat();
        let limits = Limits { output: 1 << 16, ..Limits::default() };
        let _ = pair.gateway.decode_request(&payload, &pair.dictionary, limits);
        let _ = pair.proxy.decode_response(&payload, theirs, &pair.dictionary, limits);
        let _ = pair.proxy.decode_notification(&payload, theirs, &pair.dictionary, limits);
    }
}

/// A network with a mind of its own, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Identifiers by number: a few rooms and users, many events and texts.
fn identifier(chance: &mut Chance) -> String {
    match chance.below(4) {
        0 => format!("!room{}:hs.test", chance.below(9)),
        1 => format!("@user{}:hs{}.test", chance.below(400), chance.below(3)),
        2 => event(chance.below(20) as u8),
        _ => format!("a text with number {}", chance.below(2000)),
    }
}

#[test]
fn nothing_that_happens_to_messages_makes_an_identifier_another() {
    let dictionary = dictionary(NONE);
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let (mut proxy, mut gateway) = (ProxyEnd::new(AGREEMENT), GatewayEnd::new(AGREEMENT));
        let mut epoch = 1;
        let mut saved = stored(&gateway);
        let (mut ups, mut downs) = (Vec::new(), Vec::new());
        let (mut understood, mut refused) = (0, 0);
        let asked = Asked::default();
        for _ in 0..400 {
            match chance.below(12) {
                0..4 => {
                    let body =
                        json!(std::iter::repeat_with(|| identifier(&mut chance)).take(4).collect::<Vec<_>>());
                    let sent = request("POST", "/_matrix/client/v3/createRoom", Some(&body));
                    let up = proxy.encode_request(&sent, &dictionary, Spelling::Short).unwrap();
                    ups.push((up, sent));
                }
                4..8 => {
                    let body =
                        json!(std::iter::repeat_with(|| identifier(&mut chance)).take(4).collect::<Vec<_>>());
                    let sent = Response { status: None, body: Some(serde_json::to_vec(&body).unwrap()) };
                    let down = gateway.encode_response(&sent, asked, &dictionary, Spelling::Short);
                    saved = stored(&gateway); // it is on the disk before it leaves
                    downs.push((down, sent));
                }
                // Any of those on their way arrives, in any order; it may arrive again, and its acknowledgement may be lost.
                8 | 9 if !ups.is_empty() => {
                    let (up, sent) = &ups[chance.below(ups.len() as u64) as usize];
                    match gateway.decode_request(&up.payload, &dictionary, Limits::default()) {
                        Ok((read, _)) => {
                            understood += 1;
                            assert_eq!(read, *sent, "seed {seed}");
                            saved = stored(&gateway);
                            if chance.below(3) > 0 {
                                proxy.acknowledge(up.message);
                            }
                        }
                        Err(_) => refused += 1,
                    }
                }
                10 if !downs.is_empty() => {
                    let (down, sent) = &downs[chance.below(downs.len() as u64) as usize];
                    match proxy.decode_response(&down.payload, asked, &dictionary, Limits::default()) {
                        Ok(read) => {
                            understood += 1;
                            assert_eq!(read, *sent, "seed {seed}");
                            if chance.below(3) > 0 {
                                gateway.acknowledge(down.message);
                            }
                        }
                        Err(_) => refused += 1,
                    }
                }
                // The gateway comes back with what is on the disk.
                11 if chance.below(4) == 0 => gateway = ciborium::from_reader(saved.as_slice()).unwrap(),
                // The proxy comes back with nothing, and begins a new epoch; what was on its way is lost.
                11 if chance.below(4) == 0 => {
                    epoch += 1;
                    proxy = ProxyEnd::new(Agreement { epoch, tokens: 7, transactions: 9 + epoch });
                    gateway.begin_epoch(epoch, 9 + epoch);
                    saved = stored(&gateway);
                    if chance.below(2) == 0 {
                        (ups, downs) = (Vec::new(), Vec::new());
                    }
                }
                _ => {}
            }
        }
        assert!(understood > 10, "seed {seed}: {understood} understood, {refused} refused");
    }
}
