//! The scenarios of the OSCORE interoperability test specification, version 5 (core-wg.github.io/oscore/test-spec5.html), in both roles: 1 to 15
//! are of protection and its failures; 0, 16 and 17 are of endpoints one of which does not protect.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use lowband::coap::{Code, Instant, Kind, Message, OptionNumber, Priority};
use lowband::endpoint::{Association, Config, Endpoint, Event};
use lowband::security::oscore::{
    Disclosure, Header, Parameters, Refusal, RequestBinding, ResponseError, SentRequest,
};
use support::endpoint::{OTHER, PEER, config};
use support::notation::{hex, message};
use support::oscore::Endpoint as Context;

#[test]
fn scenarios_1_and_2_a_request_with_and_without_an_id_context() {
    for parameters in [context_a(), context_c()] {
        let mut client = Context::new(&parameters);
        let mut server = Context::new(&parameters.mirrored());
        exchange(
            &mut client,
            &mut server,
            "CON [MID=1, TOK=0xaa], GET, /oscore/hello/1",
            "ACK [MID=1, TOK=0xaa], 2.05, CF:0, `Hello World!`",
        );
    }
}

#[test]
fn scenarios_3_and_4_options_of_requests_and_of_responses() {
    let (mut client, mut server) = pair();
    exchange(
        &mut client,
        &mut server,
        "CON [MID=1, TOK=0xaa], GET, /oscore/hello/2, ?first=1",
        "ACK [MID=1, TOK=0xaa], 2.05, CF:0, ETag:0x2b, `Hello World!`",
    );
    exchange(
        &mut client,
        &mut server,
        "CON [MID=2, TOK=0xaa], GET, /oscore/hello/3, Accept:0",
        "ACK [MID=2, TOK=0xaa], 2.05, CF:0, Max-Age:5, `Hello World!`",
    );
}

#[test]
fn scenario_5_a_registration_at_what_cannot_be_observed() {
    let (mut client, mut server) = pair();
    let (sealed, _, _) = exchange(
        &mut client,
        &mut server,
        "CON [MID=1, TOK=0xaa], GET, Observe:0, /oscore/hello/1",
        "ACK [MID=1, TOK=0xaa], 2.05, CF:0, `Hello World!`",
    );
    assert_eq!(sealed.code.to_string(), "0.05");
    assert_eq!(sealed.options.get_uint(OptionNumber::OBSERVE), Some(0));
}

#[test]
fn scenario_6_an_observation_that_the_server_ends_with_an_error() {
    let (mut client, mut server) = pair();
    let (_, mut sent, mut binding) = exchange(
        &mut client,
        &mut server,
        "CON [MID=1, TOK=0xaa], GET, Observe:0, /oscore/observe1",
        "ACK [MID=1, TOK=0xaa], 2.05, CF:0, Observe:1, `one`",
    );
    for text in [
        "CON [MID=7, TOK=0xaa], 2.05, CF:0, Observe:2, `two`",
        "CON [MID=8, TOK=0xaa], 5.00, CF:0, `Terminate Observe`",
    ] {
        let sealed = server.answers(&message(text), &mut binding).message;
        assert!(Header::of(&sealed).unwrap().partial_iv.is_some());
        assert_eq!(client.context.open_response(&sealed, &mut sent), Ok(message(text)));
    }
}

#[test]
fn scenario_7_an_observation_that_the_client_ends() {
    let (mut client, mut server) = pair();
    exchange(
        &mut client,
        &mut server,
        "CON [MID=1, TOK=0xaa], GET, Observe:0, /oscore/observe2",
        "ACK [MID=1, TOK=0xaa], 2.05, CF:0, Observe:1, `one`",
    );
    exchange(
        &mut client,
        &mut server,
        "CON [MID=2, TOK=0xaa], GET, Observe:1, /oscore/observe2",
        "ACK [MID=2, TOK=0xaa], 2.05, CF:0, `two`",
    );
}

#[test]
fn scenarios_8_to_11_post_put_and_delete() {
    let (mut client, mut server) = pair();
    for (request, response) in [
        ("CON [MID=1], POST, /oscore/hello/6, CF:0, 0x4a", "ACK [MID=1], 2.04, CF:0, 0x4a"),
        ("CON [MID=2], PUT, /oscore/hello/7, CF:0, If-Match:0x7b, 0x7a", "ACK [MID=2], 2.04"),
        ("CON [MID=3], PUT, /oscore/hello/7, CF:0, If-None-Match, 0x8a", "ACK [MID=3], 4.12"),
        ("CON [MID=4], DELETE, /oscore/test", "ACK [MID=4], 2.02"),
    ] {
        exchange(&mut client, &mut server, request, response);
    }
}

#[test]
fn scenario_12_the_server_does_not_know_the_sender() {
    let (_, mut server) = pair();
    let mut client = Context::new(&Parameters { sender_id: vec![2], ..context_a() });
    let (sealed, _) = client.asks(&message("CON [MID=1], GET, /oscore/hello/1"));
    let refusal = server.opens(&sealed.message, Instant::START).unwrap_err();
    assert_eq!(told(refusal), ("4.01".to_owned(), "Security context not found".to_owned()));
}

#[test]
fn scenario_13_the_client_has_another_sender_key() {
    let (_, mut server) = pair();
    let mut client = Context::new(&with_another_secret());
    let (sealed, _) = client.asks(&message("CON [MID=1], GET, /oscore/hello/1"));
    let refusal = server.opens(&sealed.message, Instant::START).unwrap_err();
    assert_eq!(told(refusal), ("4.00".to_owned(), "Decryption failed".to_owned()));
}

#[test]
fn scenario_14_the_client_has_another_recipient_key() {
    let (mut client, mut server) = pair();
    let mut other = Context::new(&with_another_secret().mirrored());
    let mut others_client = Context::new(&with_another_secret());
    let request = message("CON [MID=1], GET, /oscore/hello/1");
    let (sealed, mut sent) = client.asks(&request);
    server.serves(&sealed.message, Instant::START);
    // One key cannot be wrong by itself where both are derived: so the response is another server's, to the same number.
    let (sealed, _) = others_client.asks(&request);
    let (_, mut binding) = other.serves(&sealed.message, Instant::START);
    let sealed = other.answers(&message("ACK [MID=1], 2.05, CF:0, `Hello World!`"), &mut binding);
    assert_eq!(client.context.open_response(&sealed.message, &mut sent), Err(ResponseError::Forged));
}

#[test]
fn scenario_15_a_request_is_sent_again_by_somebody_else() {
    let (mut client, mut server) = pair();
    let (sealed, ..) = exchange(
        &mut client,
        &mut server,
        "CON [MID=1], GET, /oscore/hello/1",
        "ACK [MID=1], 2.05, CF:0, `Hello World!`",
    );
    let refusal = server.opens(&sealed, Instant::START).unwrap_err();
    assert_eq!(told(refusal), ("4.01".to_owned(), "Replay detected".to_owned()));
}

/// A request and its response: each crosses the link as a datagram, and comes as it was.
/// An endpoint's answer to a datagram from another, or its request.
fn says(endpoint: &mut Endpoint) -> Message {
    let (_, datagram) = endpoint.poll_datagram().expect("it says something");
    Message::decode(&datagram).unwrap()
}

/// A client with keys, or without, and a server of which the same is true; what the client sends comes to the server, which serves what it
/// is asked for, and what that says to the client. Returns the request, the response, and what the client has of it.
fn between(client_protects: bool, server: Server) -> (Message, Message, Vec<Event>) {
    const KEYS: Association = Association::Device(1);
    let mut client = Endpoint::new(config(), [1; 32]);
    let mut serving = Endpoint::new(Config { plain: server != Server::Protected, ..config() }, [2; 32]);
    if client_protects {
        client.admit_keys(1, KEYS, context_a()).unwrap();
    }
    if server == Server::Protected {
        serving.admit_keys(1, KEYS, context_a().mirrored()).unwrap();
    }
    let whom = if client_protects { KEYS } else { Association::from(PEER) };
    let asked = support::endpoint::request("GET, /oscore/hello/coap");
    client.request_to(whom, Priority::Message, PEER, asked, Instant::START);
    let request = says(&mut client);
    if server == Server::Unaware {
        // It knows no option 9, which is critical (RFC 7252 §5.4.1).
        assert!(request.options.get(OptionNumber::OSCORE).is_some());
        let refused = Message {
            code: Code::BAD_OPTION,
            token: request.token,
            ..Message::empty(Kind::Acknowledgement, request.id)
        };
        client.handle(PEER, &refused.encode(), Instant::START);
        return (request, refused, std::iter::from_fn(|| client.poll_event()).collect());
    }
    serving.handle(OTHER, &request.encode(), Instant::START);
    while let Some(event) = serving.poll_event() {
        let Event::Request { key, .. } = event else { panic!("{event:?}") };
        serving.respond(key, support::endpoint::response("2.05, 0..5"), Instant::START);
    }
    let response = says(&mut serving);
    client.handle(PEER, &response.encode(), Instant::START);
    (request, response, std::iter::from_fn(|| client.poll_event()).collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    /// Serves whoever asks.
    Plain,
    /// Serves who has its keys.
    Protected,
    /// Has never heard of OSCORE.
    Unaware,
}

#[test]
fn scenario_0_neither_protects() {
    let (request, response, came) = between(false, Server::Plain);
    assert_eq!((request.code, response.code), (Code::GET, Code::CONTENT));
    assert!(matches!(&came[..], [Event::Response { .. }]), "{came:?}");
}

#[test]
fn scenario_16_the_server_does_not_know_oscore() {
    let (request, _, came) = between(true, Server::Unaware);
    assert_eq!(request.code, Code::POST);
    // Nobody vouches for it: the user is told, and the request goes on until it times out (RFC 8613 §8.4).
    assert!(
        matches!(&came[..], [Event::Unprotected { response, .. }] if response.code == Code::BAD_OPTION),
        "{came:?}"
    );
}

#[test]
fn scenario_17_the_client_does_not_protect_what_is_served_protected_alone() {
    let (_, response, came) = between(false, Server::Protected);
    assert_eq!(response.code, Code::UNAUTHORIZED);
    assert!(matches!(&came[..], [Event::Response { .. }]), "{came:?}");
}

fn exchange(
    client: &mut Context,
    server: &mut Context,
    request: &str,
    response: &str,
) -> (Message, SentRequest, RequestBinding) {
    let decode = |message: &Message| Message::decode(&message.encode()).unwrap();
    let (request, response) = (message(request), message(response));
    let (sealed, mut sent) = client.asks(&request);
    let sealed_request = decode(&sealed.message);
    let (opened, mut binding) = server.serves(&sealed_request, Instant::START);
    assert_eq!(opened, request);
    let sealed = decode(&server.answers(&response, &mut binding).message);
    assert_eq!(client.context.open_response(&sealed, &mut sent), Ok(response));
    (sealed_request, sent, binding)
}

fn told(refusal: Refusal) -> (String, String) {
    let response = refusal.response(Disclosure::Exact).unwrap();
    (response.code.to_string(), String::from_utf8(response.payload.to_vec()).unwrap())
}

fn pair() -> (Context, Context) {
    (Context::new(&context_a()), Context::new(&context_a().mirrored()))
}

/// The client's contexts of the specification; those of the server, B and D, are mirrored.
fn context_a() -> Parameters {
    let secret = hex("0102030405060708090a0b0c0d0e0f10");
    Parameters { master_salt: hex("9e7ca92223786340").into(), ..Parameters::new(secret.into(), b"", b"\x01") }
}

fn context_c() -> Parameters {
    Parameters { id_context: Some(hex("37cbf3210017a2d3")), ..context_a() }
}

fn with_another_secret() -> Parameters {
    Parameters { master_secret: [9; 16].into(), ..context_a() }
}
