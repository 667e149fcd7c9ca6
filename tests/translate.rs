//! Requests and responses between CoAP and HTTP, at a gateway and at a client.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header;
use lowband::coap;
use lowband::coap::Code;
use lowband::coap::Message;
use lowband::coap::OptionNumber;
use lowband::coap::content_format;
use lowband::codec;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::matrix::rewrite::Advertise;
use lowband::translate::Call;
use lowband::translate::FetchError;
use lowband::translate::Format;
use lowband::translate::Refusal;
use lowband::translate::Session;
use lowband::translate::request;
use lowband::translate::request::SendError;
use lowband::translate::response;
use lowband::translate::response::ReadError;
use lowband::translate::status;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

const STATUSES: &str = include_str!("vectors/matrix/statuses.tsv");

/// What the Go client sends for `GET /sync?since=s1&timeout=30000` with token TOK, as captured.
const GO_SYNC: &str = "4101000001b137112a3873696e63653d73310d0074696d656f75743d3330303030d3e4544f4b";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// `PUT a/b?c` with some options, as a peer writes it.
fn coap_request(method: Code, uri: &str) -> coap::Request {
    let mut request = coap::Request::new(method);
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    path.split('/').for_each(|segment| request.options.push(OptionNumber::URI_PATH, segment));
    query.split_terminator('&').for_each(|option| request.options.push(OptionNumber::URI_QUERY, option));
    request
}

fn with_body(mut request: coap::Request, payload: &[u8], format: Option<u32>) -> coap::Request {
    request.payload = Bytes::copy_from_slice(payload);
    if let Some(format) = format {
        request.options.push_uint(OptionNumber::CONTENT_FORMAT, format);
    }
    request
}

fn with_option(mut request: coap::Request, number: OptionNumber, value: &[u8]) -> coap::Request {
    request.options.push(number, value);
    request
}

fn call(request: &coap::Request) -> Result<Call, Refusal> {
    request::to_http(request, &mut Session::new(), &Limits::default())
}

fn http_request(call: &Call) -> http::Request<Bytes> {
    call.to_http(&Uri::from_static("http://localhost:8008")).unwrap()
}

fn answer(status: u16, body: &str) -> http::Response<Bytes> {
    let answer = http::Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    answer.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

fn to_coap(call: &Call, answer: &http::Response<Bytes>) -> Result<coap::Response, Refusal> {
    response::to_coap(call, answer, &Advertise::default(), &Limits::default())
}

fn to_http(response: &coap::Response) -> http::Response<Bytes> {
    response::to_http(response, &Limits::default()).unwrap()
}

fn error_body(response: &coap::Response) -> Value {
    serde_json::from_slice(to_http(response).body()).unwrap()
}

#[test]
fn the_go_clients_sync_is_a_long_poll_with_its_token() {
    let message = Message::decode(&bytes(GO_SYNC)).unwrap();
    let request = coap::Request { options: message.options, ..coap::Request::new(message.code) };
    let call = call(&request).unwrap();
    assert!(call.target.is(lowband::matrix::route::operation::SYNC));
    let http = http_request(&call);
    assert_eq!(http.method(), Method::GET);
    assert_eq!(http.uri(), "http://localhost:8008/_matrix/client/v3/sync?since=s1&timeout=30000");
    assert_eq!(http.headers()[header::AUTHORIZATION], "Bearer TOK");
    assert!(http.headers()[header::AUTHORIZATION].is_sensitive());
    assert_eq!(http.headers().len(), 1);
    assert!(http.body().is_empty());
}

#[test]
fn what_a_client_sends_is_what_the_gateway_reads() {
    let body = json!({ "msgtype": "m.text", "body": "a ☃", "n": 1.5 }).to_string();
    let sent = http::Request::put(
        "http://any/_matrix/client/r0/rooms/%21a%3Ahs/send/m.room.message/t%2F1?x=a%20b&x=%26",
    )
    .header(header::AUTHORIZATION, "Bearer TOK")
    .body(Bytes::from(body.clone()))
    .unwrap();
    for keys in [Keys::Strings, Keys::V1] {
        let request = request::to_coap(&sent, keys, &Limits::default()).unwrap();
        let path: Vec<_> = request.options.all(OptionNumber::URI_PATH).collect();
        assert_eq!(path, [&b"9"[..], b"!a:hs", b"m.room.message", b"t/1"]);
        assert_eq!(request.options.get(OptionNumber::ACCESS_TOKEN), Some(&b"TOK"[..]));
        let version = request.options.get_uint(OptionNumber::CBOR_VERSION);
        assert_eq!(version, (keys == Keys::V1).then_some(1));
        let call = call(&request).unwrap();
        assert_eq!(call.format, Format::Cbor(keys));
        let read = http_request(&call);
        assert_eq!(
            read.uri(),
            "http://localhost:8008/_matrix/client/v3/rooms/!a:hs/send/m.room.message/t%2F1?x=a%20b&x=%26"
        );
        assert_eq!(read.headers()[header::AUTHORIZATION], "Bearer TOK");
        assert_eq!(read.headers()[header::CONTENT_TYPE], "application/json");
        let read: Value = serde_json::from_slice(read.body()).unwrap();
        assert_eq!(read, serde_json::from_str::<Value>(&body).unwrap());
    }
}

#[test]
fn the_homeserver_may_live_under_a_path() {
    let call = call(&coap_request(Code::GET, "0")).unwrap();
    for base in ["https://hs.example/matrix", "https://hs.example/matrix/"] {
        let http = call.to_http(&base.parse().unwrap()).unwrap();
        assert_eq!(http.uri(), "https://hs.example/matrix/_matrix/client/versions");
    }
    assert_eq!(
        call.to_http(&Uri::from_static("http://[::1]:8008")).unwrap().uri(),
        "http://[::1]:8008/_matrix/client/versions"
    );
}

#[test]
fn a_url_beyond_all_bounds_is_refused() {
    let mut request = coap_request(Code::GET, "7");
    for _ in 0..300 {
        request.options.push(OptionNumber::URI_QUERY, "x".repeat(255));
    }
    let refusal = call(&request).unwrap().to_http(&Uri::from_static("http://hs")).unwrap_err();
    assert_eq!(refusal, Refusal::UriTooLong);
    assert_eq!(response::refuse(&refusal, Format::Json).code, Code::BAD_REQUEST);
}

#[test]
fn token_and_key_version_are_said_once() {
    let mut session = Session::new();
    let first = with_option(coap_request(Code::GET, "7"), OptionNumber::ACCESS_TOKEN, b"Bearer Bearer A");
    let first = with_option(first, OptionNumber::CBOR_VERSION, &[1]);
    request::to_http(&first, &mut session, &Limits::default()).unwrap();
    let call = request::to_http(&coap_request(Code::GET, "7"), &mut session, &Limits::default()).unwrap();
    assert_eq!(call.authorization.unwrap(), "Bearer A");
    assert_eq!(call.format, Format::Cbor(Keys::V1));
}

#[test]
fn sticky_options_of_a_refused_request_count() {
    let mut session = Session::new();
    let request = with_option(coap_request(Code::GET, "nowhere"), OptionNumber::ACCESS_TOKEN, b"A");
    request::to_http(&request, &mut session, &Limits::default()).unwrap_err();
    assert_eq!(session.authorization().unwrap(), "Bearer A");
}

#[test]
fn integer_keys_in_a_body_ask_for_integer_keys() {
    let mut session = Session::new();
    let put = with_body(coap_request(Code::POST, "G"), &bytes("a1183861 78".replace(' ', "").as_str()), None);
    let call = request::to_http(&put, &mut session, &Limits::default()).unwrap();
    assert_eq!(call.body, r#"{"name":"x"}"#);
    assert_eq!(call.format, Format::Cbor(Keys::V1));
    assert_eq!(session.keys(), Keys::V1);
}

#[test]
fn cbor_is_read_however_it_is_labelled_and_so_is_json() {
    let post = |payload: &[u8], format| call(&with_body(coap_request(Code::POST, "G"), payload, format));
    for format in [None, Some(60), Some(50), Some(42)] {
        assert_eq!(post(&bytes("a1616101"), format).unwrap().body, r#"{"a":1}"#);
        assert_eq!(post(b" {\"a\": 1}", format).unwrap().body, " {\"a\": 1}");
    }
    for format in [0, 40, 41, 47, 63, 11_060] {
        assert_eq!(post(&bytes("a1616101"), Some(format)), Err(Refusal::ContentFormat(format)));
    }
    assert!(matches!(post(b"\xff", None), Err(Refusal::Body(_))));
}

#[test]
fn an_empty_body_stays_empty_and_a_get_has_none() {
    let empty = call(&with_body(coap_request(Code::POST, "3"), b"", Some(60))).unwrap();
    assert!(http_request(&empty).body().is_empty());
    assert!(http_request(&empty).headers().is_empty());
    let get = call(&with_body(coap_request(Code::GET, "7"), b"\xa0", Some(60))).unwrap();
    assert!(get.body.is_empty());
    let delete = call(&with_body(coap_request(Code::DELETE, "e/D"), b"\xa0", Some(60))).unwrap();
    assert_eq!(delete.body, "{}");
}

#[test]
fn accept_chooses_between_cbor_and_json() {
    let accepting = |format: &[u8]| with_option(coap_request(Code::GET, "0"), OptionNumber::ACCEPT, format);
    assert_eq!(call(&accepting(&[60])).unwrap().format, Format::Cbor(Keys::Strings));
    assert_eq!(call(&accepting(&[50])).unwrap().format, Format::Json);
    assert_eq!(call(&accepting(&[])), Err(Refusal::Accept(0)));
    assert_eq!(call(&accepting(&[42])), Err(Refusal::Accept(42)));
    assert_eq!(Session::new().format(&accepting(&[42]).options), Format::Cbor(Keys::Strings));
    assert_eq!(Session::new().format(&accepting(&[50]).options), Format::Json);
}

#[test]
fn only_what_is_understood_is_forwarded() {
    for method in [Code::FETCH, Code::PATCH, Code::IPATCH, Code::new(0, 31)] {
        assert_eq!(call(&coap_request(method, "7")), Err(Refusal::Method(method)));
    }
    let with =
        |number: OptionNumber, value: &[u8]| call(&with_option(coap_request(Code::GET, "7"), number, value));
    assert_eq!(with(OptionNumber::PROXY_URI, b"http://x"), Err(Refusal::Proxy));
    assert_eq!(with(OptionNumber::PROXY_SCHEME, b"http"), Err(Refusal::Proxy));
    for number in
        [OptionNumber::IF_MATCH, OptionNumber::IF_NONE_MATCH, OptionNumber::OSCORE, OptionNumber(2_049)]
    {
        assert_eq!(with(number, b""), Err(Refusal::Option(number)));
    }
    for number in [OptionNumber::URI_HOST, OptionNumber::URI_PORT, OptionNumber::ETAG, OptionNumber(2_048)] {
        with(number, b"ab").unwrap();
    }
    let not_text = with_option(coap_request(Code::GET, "W"), OptionNumber::URI_PATH, b"\xff");
    assert!(matches!(call(&not_text), Err(Refusal::Path(_))));
    let not_text = with_option(coap_request(Code::GET, "7"), OptionNumber::URI_QUERY, b"\xff");
    assert!(matches!(call(&not_text), Err(Refusal::Query(_))));
}

#[test]
fn statuses_have_the_codes_of_the_table() {
    for line in STATUSES.lines().filter(|line| !line.starts_with('#')) {
        let [method, status, code, exact] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let status: StatusCode = status.parse().unwrap();
        let translated = status::to_coap(status, &method.parse().unwrap());
        assert_eq!(translated.to_string(), code, "{line}");
        assert_eq!(status::is_exact(translated, status), exact == "yes", "{line}");
    }
}

#[test]
fn every_status_comes_back_exactly() {
    for method in [Code::GET, Code::POST, Code::PUT, Code::DELETE] {
        let call = call(&coap_request(method, "e/D")).unwrap();
        for status in 100..=999 {
            let response = to_coap(&call, &answer(status, r#"{"a":1}"#)).unwrap();
            assert!(response.code.is_response());
            assert!(!response.options.iter().any(|(number, _)| number.is_critical()), "{status}");
            assert_eq!(to_http(&response).status().as_u16(), status);
        }
    }
}

#[test]
fn codes_that_a_gateway_never_sends_have_a_status_too() {
    for (code, status) in [
        (Code::VALID, 304),
        (Code::BAD_OPTION, 400),
        (Code::REQUEST_ENTITY_INCOMPLETE, 400),
        (Code::PROXYING_NOT_SUPPORTED, 502),
        (Code::HOP_LIMIT_REACHED, 508),
        (Code::new(2, 30), 200),
        (Code::new(4, 30), 400),
        (Code::new(5, 30), 500),
    ] {
        assert_eq!(to_http(&coap::Response::new(code)).status().as_u16(), status, "{code}");
    }
    let mut wrong = coap::Response::new(Code::CONTENT);
    wrong.options.push_uint(OptionNumber::HTTP_STATUS, 65_535);
    assert_eq!(to_http(&wrong).status(), 200);
}

#[test]
fn what_could_not_come_back_in_a_sync_is_refused_before_it_is_sent() {
    let nested = |levels: usize| [vec![0x81; levels - 1], vec![0x80]].concat();
    let send =
        |body: &[u8]| call(&with_body(coap_request(Code::PUT, "9/!r:hs/m.room.message/t1"), body, Some(60)));
    // The most that is taken, where it comes back deepest: in the event that the latest event of a thread was replaced by.
    let deepest = String::from_utf8(send(&nested(84)).unwrap().body.to_vec()).unwrap();
    let event = |unsigned: &str| format!(r#"{{"unsigned":{{"m.relations":{unsigned}}}}}"#);
    let edited = event(&format!(r#"{{"m.replace":{{"content":{deepest}}}}}"#));
    let thread = event(&format!(r#"{{"m.thread":{{"latest_event":{edited}}}}}"#));
    let sync = format!(r#"{{"rooms":{{"join":{{"!r:hs":{{"timeline":{{"events":[{thread}]}}}}}}}}}}"#);
    codec::json_to_cbor(sync.as_bytes(), Keys::V1, &Limits::default()).unwrap();

    let refusal = send(&nested(85)).unwrap_err();
    assert!(matches!(refusal, Refusal::Body(codec::DecodeError::Depth { limit: 84, .. })), "{refusal:?}");
}

#[test]
fn too_many_requests_say_when_to_come_back() {
    let call = call(&coap_request(Code::GET, "7")).unwrap();
    let max_age = |answer: &http::Response<Bytes>| {
        to_coap(&call, answer).unwrap().options.get_uint(OptionNumber::MAX_AGE)
    };
    let limited =
        |milliseconds: &str| answer(429, &format!(r#"{{"errcode":"M_LIMIT_EXCEEDED"{milliseconds}}}"#));
    assert_eq!(max_age(&limited("")), None);
    assert_eq!(max_age(&limited(r#","retry_after_ms":2001"#)), Some(3));
    assert_eq!(max_age(&limited(r#","retry_after_ms":99999999999999"#)), Some(u32::MAX));
    let mut both = limited(r#","retry_after_ms":2001"#);
    both.headers_mut().insert(header::RETRY_AFTER, "7".parse().unwrap());
    assert_eq!(max_age(&both), Some(7));
    *both.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(max_age(&both), Some(7));
    *both.status_mut() = StatusCode::BAD_REQUEST;
    assert_eq!(max_age(&both), None);
    both.headers_mut().insert(header::RETRY_AFTER, "Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap());
    *both.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    assert_eq!(max_age(&both), Some(3));
    let response = to_coap(&call, &both).unwrap();
    assert_eq!(response.code, Code::TOO_MANY_REQUESTS);
    assert_eq!(to_http(&response).headers()[header::RETRY_AFTER], "3");
}

#[test]
fn the_homeservers_errors_pass_unchanged() {
    // The vector of the issue: integer keys 102 and 103.
    let body = r#"{"error":"something","errcode":"M_UNKNOWN"}"#;
    let request = with_option(coap_request(Code::GET, "7"), OptionNumber::CBOR_VERSION, &[1]);
    let response = to_coap(&call(&request).unwrap(), &answer(403, body)).unwrap();
    assert_eq!(response.code, Code::FORBIDDEN);
    assert_eq!(response.payload, bytes("a21866694d5f554e4b4e4f574e186769736f6d657468696e67"));
    assert_eq!(response.options.get_uint(OptionNumber::CONTENT_FORMAT), Some(content_format::CBOR));
    assert_eq!(error_body(&response), serde_json::from_str::<Value>(body).unwrap());
}

#[test]
fn an_answer_is_json_for_who_asked_for_json() {
    let request = with_option(coap_request(Code::GET, "7"), OptionNumber::ACCEPT, &[50]);
    let response = to_coap(&call(&request).unwrap(), &answer(200, "{ \"b\":1, \"a\":2 }")).unwrap();
    assert_eq!(response.payload, "{ \"b\":1, \"a\":2 }");
    assert_eq!(response.options.get_uint(OptionNumber::CONTENT_FORMAT), Some(content_format::JSON));
}

#[test]
fn an_empty_answer_has_no_content_format() {
    let call = call(&coap_request(Code::PUT, "e/D")).unwrap();
    let response = to_coap(&call, &http::Response::new(Bytes::new())).unwrap();
    assert_eq!((response.code, response.options.len(), response.payload.len()), (Code::CHANGED, 0, 0));
    let http = to_http(&response);
    assert!(http.body().is_empty() && http.headers().is_empty());
}

#[test]
fn answers_are_rewritten_by_their_route_when_they_succeed() {
    let versions = call(&coap_request(Code::GET, "_matrix/client/versions")).unwrap();
    let body = r#"{"versions":["v1.11"]}"#;
    let advertised = |status| {
        let body = to_coap(&versions, &answer(status, body)).map(|response| error_body(&response)).unwrap();
        body.get("org.matrix.msc3079.low_bandwidth").cloned()
    };
    assert_eq!(advertised(200), Some(json!({ "cbor_enum_version": 1, "coap_enum_version": 1 })));
    assert_eq!(advertised(404), None);
}

#[test]
fn an_answer_that_is_not_json_is_a_bad_gateway_but_an_error_stays_that_error() {
    let call = call(&coap_request(Code::GET, "7")).unwrap();
    let html = |status| {
        let html = http::Response::builder().status(status).header(header::CONTENT_TYPE, "text/html");
        html.body(Bytes::from_static(b"<html>")).unwrap()
    };
    for (answer, code, errcode) in [
        (html(200), Code::BAD_GATEWAY, "M_UNKNOWN"),
        (html(302), Code::BAD_GATEWAY, "M_UNKNOWN"),
        (answer(200, "<html>"), Code::BAD_GATEWAY, "M_UNKNOWN"),
        (answer(200, r#"{"n":99999999999999999999}"#), Code::BAD_GATEWAY, "M_UNKNOWN"),
        (html(404), Code::NOT_FOUND, "M_UNRECOGNIZED"),
        (html(413), Code::REQUEST_ENTITY_TOO_LARGE, "M_TOO_LARGE"),
        (html(429), Code::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
        (html(503), Code::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
    ] {
        let status = answer.status();
        let refusal = to_coap(&call, &answer).unwrap_err();
        let response = response::refuse(&refusal, call.format);
        assert_eq!(response.code, code, "{status}");
        assert_eq!(error_body(&response)["errcode"], errcode, "{status}");
    }
    let teapot = response::refuse(&to_coap(&call, &html(418)).unwrap_err(), call.format);
    assert_eq!(to_http(&teapot).status(), 418);
}

#[test]
fn an_answer_over_the_limit_is_too_large() {
    let call = call(&coap_request(Code::GET, "7")).unwrap();
    let limits = Limits { output: 10, ..Limits::default() };
    let long = answer(200, r#"{"a":"aaaaaaaaaaaaaaaaaaaa"}"#);
    let refusal = response::to_coap(&call, &long, &Advertise::default(), &limits).unwrap_err();
    assert_eq!(response::refuse(&refusal, call.format).code, Code::REQUEST_ENTITY_TOO_LARGE);
}

#[test]
fn every_refusal_is_a_matrix_error_in_the_format_the_peer_reads() {
    let path = |uri: &str| call(&coap_request(Code::GET, uri)).unwrap_err();
    let too_long = codec::DecodeError::Output { limit: 1 };
    for (refusal, code, errcode) in [
        (Refusal::Method(Code::FETCH), "4.05", "M_UNRECOGNIZED"),
        (Refusal::Proxy, "5.05", "M_FORBIDDEN"),
        (Refusal::Option(OptionNumber::IF_MATCH), "4.02", "M_UNRECOGNIZED"),
        (path("_synapse/admin"), "4.03", "M_FORBIDDEN"),
        (path(".well-known/core"), "4.03", "M_FORBIDDEN"),
        (path("z"), "4.04", "M_UNRECOGNIZED"),
        (path("A/x"), "4.04", "M_UNRECOGNIZED"),
        (path("W/.."), "4.00", "M_INVALID_PARAM"),
        (Refusal::AccessToken, "4.01", "M_UNKNOWN_TOKEN"),
        (Refusal::ContentFormat(0), "4.15", "M_NOT_JSON"),
        (Refusal::Accept(0), "4.06", "M_UNRECOGNIZED"),
        (Refusal::Body(too_long), "4.13", "M_TOO_LARGE"),
        (Refusal::Body(codec::DecodeError::Truncated { offset: 1 }), "4.00", "M_NOT_JSON"),
        (Refusal::ShuttingDown, "5.03", "M_UNKNOWN"),
        (FetchError::Unreachable("10.0.0.1: refused".to_owned()).into(), "5.02", "M_CONNECTION_FAILED"),
        (FetchError::Timeout.into(), "5.04", "M_CONNECTION_TIMEOUT"),
        (FetchError::TooLarge { limit: 1 }.into(), "4.13", "M_TOO_LARGE"),
    ] {
        for format in [Format::Cbor(Keys::Strings), Format::Cbor(Keys::V1), Format::Json] {
            let response = response::refuse(&refusal, format);
            assert_eq!(response.code.to_string(), code, "{refusal}");
            let label = response.options.get_uint(OptionNumber::CONTENT_FORMAT);
            assert_eq!(label, Some(format.content_format()));
            let body = error_body(&response);
            assert_eq!(body["errcode"], errcode);
            assert_eq!(body["error"], refusal.to_string());
            assert!(!refusal.to_string().contains("10.0.0.1"), "the operator's network is nobody's business");
        }
    }
}

#[test]
fn a_client_reads_what_deployed_servers_send() {
    let response = |code, payload: &[u8], format: Option<u32>| {
        let mut response = coap::Response::new(code);
        response.payload = Bytes::copy_from_slice(payload);
        format
            .into_iter()
            .for_each(|format| response.options.push_uint(OptionNumber::CONTENT_FORMAT, format));
        response
    };
    let cbor = bytes("a21866694d5f554e4b4e4f574e186769736f6d657468696e67");
    for format in [None, Some(60), Some(50), Some(42)] {
        let http = to_http(&response(Code::NOT_FOUND, &cbor, format));
        assert_eq!(http.body(), r#"{"errcode":"M_UNKNOWN","error":"something"}"#);
        assert_eq!(http.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(to_http(&response(Code::CONTENT, b"{\"a\": 1}", format)).body(), "{\"a\": 1}");
    }
    // Code 0.00: what its body says is all there is.
    assert_eq!(to_http(&response(Code::EMPTY, &cbor, None)).status(), 400);
    assert_eq!(to_http(&response(Code::EMPTY, b"{\"errcode\":\"M_LIMIT_EXCEEDED\"}", None)).status(), 429);
    assert_eq!(to_http(&response(Code::EMPTY, b"\xa0", None)).status(), 200);
    // RFC 7252 §5.5.2: a diagnostic message.
    let http = to_http(&response(Code::NOT_FOUND, b"Bad path", None));
    assert_eq!(http.body(), r#"{"errcode":"M_UNRECOGNIZED","error":"Bad path"}"#);
    // What nobody can read is an error.
    let read = |response: &coap::Response| response::to_http(response, &Limits::default());
    assert_eq!(read(&response(Code::CONTENT, b"hello", Some(0))).unwrap_err(), ReadError::ContentFormat(0));
    assert!(matches!(read(&response(Code::CONTENT, b"hello", None)), Err(ReadError::Body(_))));
    assert!(matches!(read(&response(Code::NOT_FOUND, b"\xff", None)), Err(ReadError::Body(_))));
}

#[test]
fn what_cannot_be_sent_is_said() {
    let error = |request: http::request::Builder, body: &'static [u8]| {
        let request = request.body(Bytes::from_static(body)).unwrap();
        request::to_coap(&request, Keys::V1, &Limits::default()).unwrap_err()
    };
    let sync = "/_matrix/client/v3/sync";
    assert_eq!(error(http::Request::patch(sync), b""), SendError::Method(Method::PATCH));
    assert!(matches!(error(http::Request::get("/_synapse"), b""), SendError::Path(_)));
    let long = format!("{sync}?filter={}", "x".repeat(255));
    let message = error(http::Request::get(long), b"").to_string();
    assert_eq!(message, "query parameter \"filter\" has 262 bytes; CoAP carries at most 255");
    let basic = http::Request::get(sync).header(header::AUTHORIZATION, "Basic YTpi");
    assert_eq!(error(basic, b""), SendError::Authorization);
    assert!(matches!(error(http::Request::post("/_matrix/client/v3/login"), b"{"), SendError::Body(_)));
}

proptest! {
    #[test]
    fn any_request_is_a_call_or_a_refusal(
        method in 0u8..32,
        options in prop::collection::vec((prop::sample::select(vec![1, 3, 5, 6, 7, 11, 11, 11, 12, 15, 15, 17, 35, 256, 257, 258]),
            prop_oneof![prop::collection::vec(any::<u8>(), 0..6), "[0-9A-Za-u]|_matrix|client|\\PC{0,5}".prop_map(String::into_bytes)]), 0..8),
        payload in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let request = coap::Request {
            options: options.into_iter().map(|(number, value)| (OptionNumber(number), value)).collect(),
            payload: payload.into(),
            ..coap::Request::new(Code(method))
        };
        let mut session = Session::new();
        match request::to_http(&request, &mut session, &Limits::default()) {
            Ok(call) => {
                let http = http_request(&call);
                prop_assert_eq!(http.uri().host(), Some("localhost"));
                prop_assert!(http.uri().path().starts_with("/_matrix/") || http.uri().path().starts_with("/.well-known/matrix"));
            }
            Err(refusal) => {
                let response = response::refuse(&refusal, session.format(&request.options));
                prop_assert!(matches!(response.code.class(), 4 | 5));
                prop_assert!(!response.payload.is_empty());
            }
        }
    }

    #[test]
    fn any_answer_is_a_response_or_a_refusal(status in 100u16..1000, body in prop::collection::vec(any::<u8>(), 0..24)) {
        let call = call(&coap_request(Code::GET, "0")).unwrap();
        let mut http = http::Response::new(Bytes::from(body));
        *http.status_mut() = StatusCode::from_u16(status).unwrap();
        let response = to_coap(&call, &http).unwrap_or_else(|refusal| response::refuse(&refusal, call.format));
        prop_assert!(response.code.is_response());
        to_http(&response);
    }

    #[test]
    fn any_response_is_read_or_an_error(code in any::<u8>(), format in prop::option::of(0u32..70), payload in prop::collection::vec(any::<u8>(), 0..24)) {
        let mut response = coap::Response::new(Code(code));
        response.payload = payload.into();
        format.into_iter().for_each(|format| response.options.push_uint(OptionNumber::CONTENT_FORMAT, format));
        if let Ok(http) = response::to_http(&response, &Limits::default()) {
            prop_assert!(http.status().as_u16() >= 100);
        }
    }
}
