//! OSCORE against RFC 8613 Appendix C.4 to C.8, byte for byte, in both roles. Keys and nonces are compared beside their code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use lowband::coap::Instant;
use lowband::coap::Message;
use lowband::security::oscore::Challenges;
use lowband::security::oscore::Context;
use lowband::security::oscore::Header;
use lowband::security::oscore::Opened;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::ReplayWindow;
use lowband::security::oscore::RequestBinding;
use lowband::security::oscore::Sealed;
use lowband::security::oscore::SentRequest;
use lowband::security::oscore::State;

const VECTORS: &str = include_str!("vectors/oscore/rfc8613-appendix-c.txt");

#[test]
fn every_request_is_protected_to_the_bytes_of_its_vector() {
    for name in ["C.4", "C.5", "C.6"] {
        let (sealed, _) = request(name);
        assert_eq!(hex(&sealed.message.encode()), field(name, "protected"), "{name}");
        assert_eq!(hex(&sealed.used.nonce), field(name, "nonce"), "{name}");
        assert_eq!(hex(&Header::of(&sealed.message).unwrap().encode()), field(name, "option"), "{name}");
    }
}

#[test]
fn every_request_is_opened_by_the_other_endpoint() {
    for (name, server) in [("C.4", "C.1.2"), ("C.5", "C.2.2"), ("C.6", "C.3.2")] {
        let (opened, _) = open(&mut context(server, 0), name);
        assert_eq!(hex(&opened.encode()), field(name, "unprotected"));
    }
}

#[test]
fn a_response_takes_the_nonce_of_its_request() {
    let (mut client, mut server) = (context("C.1.1", 20), context("C.1.2", 0));
    let (_, mut sent) = client.protect_request(&message("C.4", "unprotected")).unwrap();
    let (_, mut binding) = open(&mut server, "C.4");
    let sealed = server.protect_response(&message("C.7", "unprotected"), &mut binding).unwrap();
    assert_eq!(hex(&sealed.message.encode()), field("C.7", "protected"));
    assert_eq!(hex(&sealed.used.nonce), field("C.7", "nonce"));
    let opened = client.open_response(&sealed.message, &mut sent).unwrap();
    assert_eq!(hex(&opened.encode()), field("C.7", "unprotected"));
}

#[test]
fn a_response_may_have_a_number_of_its_own() {
    let (mut client, mut server) = (context("C.1.1", 20), context("C.1.2", 0));
    let (_, mut sent) = client.protect_request(&message("C.4", "unprotected")).unwrap();
    let (_, binding) = open(&mut server, "C.4");
    let sealed = server.protect_response(&message("C.8", "unprotected"), &mut binding.clone()).unwrap();
    assert_eq!(hex(&sealed.message.encode()), field("C.8", "protected"));
    assert_eq!(hex(&sealed.used.nonce), field("C.8", "nonce"));
    let opened = client.open_response(&sealed.message, &mut sent).unwrap();
    assert_eq!(hex(&opened.encode()), field("C.8", "unprotected"));
}

fn request(name: &str) -> (Sealed, SentRequest) {
    let mut client = context(&field(name, "of-context"), field(name, "sequence").parse().unwrap());
    client.protect_request(&message(name, "unprotected")).unwrap()
}

fn open(server: &mut Context, name: &str) -> (Message, RequestBinding) {
    let challenges = Challenges::new([0; 32], Duration::from_secs(60));
    match server.open_request(&message(name, "protected"), &challenges, Instant::START).unwrap() {
        Opened::Request { message, binding } => (message, binding),
        Opened::Challenge(_) => panic!("{name} is challenged"),
    }
}

/// A context of the vectors, with its sequence numbers from there.
fn context(name: &str, sequence: u64) -> Context {
    let parameters = Parameters {
        master_salt: bytes(&field(name, "master-salt")).into(),
        id_context: find(name, "id-context").map(|text| bytes(&text)),
        ..Parameters::new(
            bytes(&field(name, "master-secret")).into(),
            &bytes(&field(name, "sender-id")),
            &bytes(&field(name, "recipient-id")),
        )
    };
    let state = State { sequence, window: Some(ReplayWindow::default()) };
    let mut context = Context::restore(&parameters, state, Instant::START).unwrap();
    assert!(context.reserve().is_some());
    context
}

fn message(name: &str, what: &str) -> Message {
    Message::decode(&bytes(&field(name, what))).unwrap()
}

fn field(name: &str, what: &str) -> String {
    find(name, what).unwrap_or_else(|| panic!("{name} has no {what}"))
}

fn find(name: &str, what: &str) -> Option<String> {
    let mut blocks = VECTORS.split("\n\n");
    let block = blocks.find(|block| block.split_whitespace().nth(1) == Some(name)).unwrap();
    let mut lines = block.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    lines.find(|(field, _)| *field == what).map(|(_, value)| value.to_owned())
}

fn bytes(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
