//! Vectors of the packed profile: read, they are what stands beside them; written by dictionary 0 and 2, the same bytes come out.
//!
//! `LOWBAND_UPDATE=1` writes the file anew, which is to be done only with another dictionary.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fmt::Write;

use lowband::packed::Agreement;
use lowband::packed::Dictionary;
use lowband::packed::GatewayEnd;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/packed/exchanges.tsv");
const HEAD: &str = "# One association, epoch 1, tokens 7, transactions 9; each message acknowledged. Written by this implementation, after docs/packed.md.
# coder, request: bytes; method, target, body as the client has them; as the homeserver has them. response: bytes; body as the homeserver has it; as the client.
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
];

#[test]
fn vectors_are_read_and_written() {
    let mut text = HEAD.to_owned();
    for coder in [0, 2] {
        let owned;
        let dictionary = match coder {
            0 => {
                owned = lowband::packed::train::untrained();
                &owned
            }
            _ => Dictionary::built_in(),
        };
        write_exchanges(coder, dictionary, &mut text);
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

/// Both ends write, and the ends that only read make the same of it.
fn write_exchanges(coder: u8, dictionary: &Dictionary, text: &mut String) {
    let agreement = Agreement { epoch: 1, tokens: 7, transactions: 9 };
    let (mut proxy, mut gateway) = (ProxyEnd::new(agreement), GatewayEnd::new(agreement));
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

        let response = Response { status: None, body: Some(answer.as_bytes().to_vec()) };
        let down = gateway.encode_response(&response, asked, dictionary, Spelling::Short);
        let read = proxy.decode_response(&down.payload, up.asked, dictionary, limits).unwrap();
        gateway.acknowledge(down.message);
        let read = String::from_utf8(read.body.unwrap()).unwrap();
        writeln!(text, "{coder}\tresponse\t{}\t{answer}\t{read}", hex(&down.payload)).unwrap();
        let body: serde_json::Value = serde_json::from_str(&read).unwrap();
        if let Some(next) = body["next_batch"].as_str() {
            token = next.to_owned();
        }
    }
}

fn shown(request: &Request) -> String {
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let body = request.body.as_ref().map(|body| String::from_utf8_lossy(body)).unwrap_or_default();
    format!("{} {}{query} {body}", request.method, request.path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
