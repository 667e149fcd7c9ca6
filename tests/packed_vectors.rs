//! Vectors of the packed profile: read, they are what stands beside them; written by each coder, the same bytes come out.
//!
//! `LOWBAND_UPDATE=1` writes `exchanges.tsv` and `agreement.tsv` anew, which is to be done only with other tables or another dictionary.
//! `messages.tsv` is by tests/packed_python/make_messages.py. tests/packed_python reads all of them, and was written after docs/packed.md.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fmt::Write;

use lowband::packed::Agreement;
use lowband::packed::Asked;
use lowband::packed::DecodeError;
use lowband::packed::Dictionary;
use lowband::packed::GatewayEnd;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;
use lowband::translate::packed::Hello;
use lowband::translate::packed::Identity;
use lowband::translate::packed::Welcome;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/packed/exchanges.tsv");
const MESSAGES: &str = include_str!("vectors/packed/messages.tsv");
const AGREEMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/packed/agreement.tsv");
const AGREEMENT_HEAD: &str = "# Hellos and welcomes (docs/packed.md section 2): kind, bytes, version, epoch, and the transactions or the tokens.
";
const HEAD: &str = "# An association for each coder: epoch 1, tokens 7, transactions 9; each message acknowledged. Written by this implementation, after docs/packed.md.
# coder (2: whichever of the three makes the fewest bytes), request: bytes; method, target, body as the client has them; as the homeserver has them. response: bytes; body as the homeserver has it; as the client.
";

/// What the client asks, and what the homeserver answers. `TOKEN` is what the client got for a position.
const EXCHANGES: &[(&str, &str, &str, &str)] = &[
    (
        "PUT",
        "/_matrix/client/v3/rooms/!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk/send/m.room.message/m1",
        r#"{"msgtype":"m.text","body":"Hello World"}"#,
        r#"{"event_id":"$DfeVNCtOh9dQ3QT0vn0zXdjP8QM1Ij2S9Ubzg6jJ40Y"}"#,
    ),
    (
        "PUT",
        "/_matrix/client/v3/rooms/!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk/send/m.room.message/m2",
        r#"{"msgtype":"m.text","body":"Is anybody there?"}"#,
        r#"{"event_id":"$2VqrF2Eg7BtLSJgftTe3t4Dg13WVdELLkOIrRLlVTIQ"}"#,
    ),
    (
        "GET",
        "/_matrix/client/v3/sync?timeout=0",
        "",
        r#"{"next_batch":"s1_2","rooms":{"join":{"!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk":{"timeline":{"events":[{"content":{"body":"Hello World","msgtype":"m.text"},"event_id":"$DfeVNCtOh9dQ3QT0vn0zXdjP8QM1Ij2S9Ubzg6jJ40Y","origin_server_ts":1795468377411,"sender":"@alice:hs.example","type":"m.room.message","unsigned":{"age":153,"transaction_id":"lb00000009.0"}}],"prev_batch":"s0_2","limited":true}}}}}"#,
    ),
    (
        "GET",
        "/_matrix/client/v3/sync?timeout=30000&since=TOKEN",
        "",
        r#"{"next_batch":"s2_2","rooms":{"join":{"!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk":{"timeline":{"events":[{"content":{"body":"Yes","msgtype":"m.text"},"event_id":"$_9eEMgAIWSB_iJXK3d3gnYGBgqRJ8l3piFxWcMn8Y98","origin_server_ts":1795468378411,"sender":"@bob:hs.example","type":"m.room.message","unsigned":{"age":60}}],"prev_batch":"s1_2","limited":false}}}}}"#,
    ),
    (
        "POST",
        "/_matrix/client/v3/rooms/!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk/receipt/m.read/$_9eEMgAIWSB_iJXK3d3gnYGBgqRJ8l3piFxWcMn8Y98",
        "{}",
        "{}",
    ),
    (
        "POST",
        "/_matrix/client/v3/login",
        r#"{"type":"m.login.password","password":"123456","n":[-1,1.5,300,true,null,{}]}"#,
        r#"{"access_token":"syt_abc","device_id":"ABCDEFGHIJ"}"#,
    ),
    (
        "GET",
        "/_matrix/client/v9/new%20things",
        "",
        r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#,
    ),
    (
        "PUT",
        "/_matrix/client/v3/rooms/!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk/send/m.room.message/m2",
        r#"{"msgtype":"m.text","body":"Is anybody there?"}"#,
        r#"{"event_id":"$2VqrF2Eg7BtLSJgftTe3t4Dg13WVdELLkOIrRLlVTIQ"}"#,
    ),
    (
        "PUT",
        "/_matrix/client/v3/rooms/!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk/send/m.room.message/m3",
        r##"{"msgtype":"m.text","body":"@bob:hs.example, see $_9eEMgAIWSB_iJXK3d3gnYGBgqRJ8l3piFxWcMn8Y98","url":"mxc://hs.example/GCmhgzMPRjqgpODLsNQzVuHZ","to":"#lobby:elsewhere.example","zero\u0000":"one\u0000two","key":"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefg","to":"@dora:elsewhere.example","to":"!hall:elsewhere.example"}"##,
        r#"{"event_id":"$bWVhc3VyZXMgYXJlIHRha2VuIGZyb20gYSBkYXkuLi4"}"#,
    ),
    (
        "GET",
        "/_matrix/client/v3/sync?timeout=30000&since=TOKEN",
        "",
        r#"{"next_batch":"s3_2","rooms":{"join":{"!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk":{"timeline":{"events":[{"content":{"body":"Is anybody there?","msgtype":"m.text"},"event_id":"$2VqrF2Eg7BtLSJgftTe3t4Dg13WVdELLkOIrRLlVTIQ","origin_server_ts":1795468377911,"sender":"@alice:hs.example","type":"m.room.message","unsigned":{"age":2153,"transaction_id":"lb00000009.2"}},{"content":{"body":"Yes","transaction_id":"lb00000009.2"},"event_id":"$YW5vdGhlciBldmVudCBvZiBzb21lYm9keSBlbHNlLi4","origin_server_ts":1795468379411,"sender":"@dora:elsewhere.example","type":"m.room.message","unsigned":{"age":653,"transaction_id":"lb00000009.0"}}],"prev_batch":"s2_2","limited":false}}}}}"#,
    ),
    (
        "POST",
        "/_matrix/client/v3/createRoom",
        r#"{"n":[0,31,32,255,256,65535,65536,4294967295,4294967296,18446744073709551615,-1,-32,-33,-9223372036854775808,0.5,-0.0,1e300,1.0,999999999999,1000000000000,9999999999999,10000000000000],"empty":[[],{},""],"same":1,"same":2,"name":"Ein Name mit Umlauten: äöü","age":7}"#,
        r#"{"room_id":"!hall:elsewhere.example"}"#,
    ),
    ("PUT", "/_matrix/client/v3/devices/KLMNOPQRST", r#"{"display_name":18446744073709551616}"#, "no JSON"),
    (
        "POST",
        "/_matrix/client/v3/refresh",
        r#"{"refresh_token":"lb00000007_3"}"#,
        r#"{"access_token":"syt_def","refresh_token":"syr_ghi"}"#,
    ),
    (
        "POST",
        "/_matrix/client/v3/keys/query",
        r#"{"device_keys":{"@dora:elsewhere.example":["ABCDEFGHIJ"]}}"#,
        r#"{"device_keys":{"@dora:elsewhere.example":{"KLMNOPQRST":{"algorithms":["m.megolm.v1.aes-sha2"],"keys":{"ed25519:KLMNOPQRST":"b2YgZWlnaHR5IHNpeCBjaGFyYWN0ZXJzIHdpdGhvdXQgcGFkZGluZyBhdCB0aGUgZW5kIG9mIHRoZW0gMDEyMw"}}}}}"#,
    ),
    (
        "GET",
        "/_matrix/client/v3/rooms/!hall:elsewhere.example/messages?dir=b&from=lb00000007_1",
        "",
        r#"{"start":"s0_2","end":"t0_1","chunk":[]}"#,
    ),
];

#[test]
fn vectors_are_read_and_written() {
    let mut text = HEAD.to_owned();
    for coder in [0, 1, 2] {
        write_exchanges(coder, &mut text);
    }
    if std::env::var_os("LOWBAND_UPDATE").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let expected = std::fs::read_to_string(FILE).unwrap();
    for (expected, written) in expected.lines().zip(text.lines()) {
        assert_eq!(expected, written);
    }
    assert_eq!(expected.lines().count(), text.lines().count());
}

/// The ends after the exchanges, and what some of them asked.
struct After {
    proxy: ProxyEnd,
    gateway: GatewayEnd,
    asked: Vec<Asked>,
}

/// Both ends write, and the ends that only read make the same of it.
fn write_exchanges(coder: u8, text: &mut String) -> After {
    let owned;
    let dictionary = match coder {
        0 => {
            owned = lowband::packed::train::untrained();
            &owned
        }
        1 => {
            owned = Dictionary::built_in().clone().only(&[1]);
            &owned
        }
        _ => Dictionary::built_in(),
    };
    let agreement = Agreement { epoch: 1, tokens: 7, transactions: 9 };
    let (mut proxy, mut gateway) = (ProxyEnd::new(agreement), GatewayEnd::new(agreement));
    let mut all_asked = Vec::new();
    let limits = Limits::default();
    let mut token = String::new();
    for (method, target, body, answer) in EXCHANGES {
        let target = target.replace("TOKEN", &token);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target.clone(), None),
        };
        let body = (!body.is_empty()).then(|| body.as_bytes().to_vec());
        let request = Request { method: (*method).to_owned(), path, query, body };
        let up = proxy.encode_request(&request, dictionary, Spelling::Short).unwrap();
        let (read, asked) = gateway.decode_request(&up.payload, dictionary, limits).unwrap();
        proxy.acknowledge(up.message);
        writeln!(text, "{coder}\trequest\t{}\t{}\t{}", hex(&up.payload), shown(&request), shown(&read))
            .unwrap();

        all_asked.push(up.asked);
        let response = Response { status: None, body: Some(answer.as_bytes().to_vec()) };
        let down = gateway.encode_response(&response, asked, dictionary, Spelling::Short);
        let read = proxy.decode_response(&down.payload, up.asked, dictionary, limits).unwrap();
        gateway.acknowledge(down.message);
        let read = String::from_utf8(read.body.unwrap()).unwrap();
        writeln!(text, "{coder}\tresponse\t{}\t{answer}\t{read}", hex(&down.payload)).unwrap();
        let body: serde_json::Value = serde_json::from_str(&read).unwrap_or_default();
        if let Some(next) = body["next_batch"].as_str() {
            token = next.to_owned();
        }
    }
    After { proxy, gateway, asked: all_asked }
}

#[test]
fn messages_are_read_or_refused_as_stands_beside_them() {
    let after = write_exchanges(0, &mut String::new());
    let mut others = String::new();
    for row in rows(MESSAGES) {
        let [kind, bytes, expected] = row[..] else { panic!("{row:?}") };
        let (mut proxy, mut gateway) = (after.proxy.clone(), after.gateway.clone());
        let (dictionary, limits) = (Dictionary::built_in(), Limits::default());
        let (kind, number) = kind.split_once(' ').unwrap_or((kind, "0"));
        let asked = after.asked[number.parse::<usize>().unwrap()];
        let mut read = |payload: &[u8]| match kind {
            "request" => {
                gateway.decode_request(payload, dictionary, limits).map(|(request, _)| shown(&request))
            }
            "response" => proxy.decode_response(payload, asked, dictionary, limits).map(|read| told(&read)),
            "notification" => {
                proxy.decode_notification(payload, asked, dictionary, limits).map(|read| told(&read))
            }
            _ => panic!("{kind}"),
        };
        let read = bytes.split(' ').map(|bytes| read(&unhex(bytes))).last().unwrap();
        let read = read.unwrap_or_else(|error| named(&error));
        if read != expected {
            writeln!(others, "{kind} {bytes}: {read}, not {expected}").unwrap();
        }
    }
    assert_eq!(others, "");
}

#[test]
fn hellos_and_welcomes_are_what_stands_beside_them() {
    let identity = Identity::of(Dictionary::built_in());
    let hello = Hello { version: 1, identity, epoch: 0x0102_0304, transactions: 0xfffe_fdfc };
    let welcome = Welcome { version: 1, epoch: 0x0102_0304, tokens: 7 };
    let mut text = AGREEMENT_HEAD.to_owned();
    let payload = hello.request().payload;
    assert_eq!(Hello::read(&payload), Ok(hello));
    let Hello { version, epoch, transactions, .. } = hello;
    writeln!(text, "hello\t{}\t{version}\t{epoch}\t{transactions}", hex(&payload)).unwrap();
    let Welcome { version, epoch, tokens } = welcome;
    let payload = welcome.response().payload;
    writeln!(text, "welcome\t{}\t{version}\t{epoch}\t{tokens}", hex(&payload)).unwrap();
    if std::env::var_os("LOWBAND_UPDATE").is_some() {
        std::fs::write(AGREEMENT, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(AGREEMENT).unwrap());
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

fn told(response: &Response) -> String {
    let status = response.status.map(|status| format!("{status} ")).unwrap_or_default();
    let body = response.body.as_ref().map(|body| String::from_utf8_lossy(body)).unwrap_or_default();
    format!("{status}{body}")
}

/// The name of an error, without what it says besides.
fn named(error: &DecodeError) -> String {
    let text = format!("{error:?}");
    let end = text.find(|part: char| !part.is_ascii_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}

fn shown(request: &Request) -> String {
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let body = request.body.as_ref().map(|body| String::from_utf8_lossy(body)).unwrap_or_default();
    format!("{} {}{query} {body}", request.method, request.path)
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
