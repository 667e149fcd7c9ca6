//! OSCORE against what another implementation protected: every algorithm, ids of all lengths, numbers of all lengths.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use lowband::coap::Instant;
use lowband::coap::Message;
use lowband::coap::OptionNumber;
use lowband::security::oscore::Algorithm;
use lowband::security::oscore::Challenges;
use lowband::security::oscore::Context;
use lowband::security::oscore::Hkdf;
use lowband::security::oscore::Opened;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::ReplayWindow;
use lowband::security::oscore::State;

const VECTORS: &str = include_str!("vectors/oscore/aiocoap.txt");

#[test]
fn both_roles_agree_with_aiocoap() {
    let contexts: Vec<_> = VECTORS.split("\n\n").skip(1).collect();
    assert_eq!(contexts.len(), 8);
    for lines in contexts {
        converse(lines);
    }
}

fn converse(text: &str) {
    let field = |name| find(text, name).unwrap_or_else(|| panic!("no {name} in {text}"));
    let number = |name| field(name).parse::<i32>().unwrap();
    let parameters = Parameters {
        master_salt: bytes(field("salt")).into(),
        id_context: find(text, "id-context").map(bytes),
        algorithm: Algorithm::try_from(number("algorithm")).unwrap(),
        hkdf: Hkdf::try_from(number("hkdf")).unwrap(),
        ..Parameters::new(bytes(field("secret")).into(), &bytes(field("client")), &bytes(field("server")))
    };
    let mut client = context(&parameters, field("sequence").parse().unwrap());
    let mut server = context(&parameters.mirrored(), 5);
    let challenges = Challenges::new([0; 32], Duration::from_secs(60));
    let (mut sent, mut binding) = (None, None);
    let mut lines = text.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    while let Some((role, plain)) = lines.next() {
        if !["request", "response"].contains(&role) {
            continue;
        }
        let (plain, protected) = (message(plain), message(lines.next().unwrap().1));
        if role == "request" {
            let (sealed, request) = client.protect_request(&plain).unwrap();
            assert_eq!(hex(&sealed.message), hex(&protected), "{text}");
            sent = Some(request);
            match server.open_request(&protected, &challenges, Instant::START).unwrap() {
                Opened::Request { message, binding: bound } => {
                    assert_eq!(message, plain);
                    binding = Some(bound);
                }
                Opened::Challenge(_) => panic!("{plain:?} is challenged"),
            }
            continue;
        }
        let sealed = server.protect_response(&plain, binding.as_mut().unwrap()).unwrap();
        // Its inner Observe has a value, where RFC 8613 §4.1.3.5.2 has none.
        if plain.options.get(OptionNumber::OBSERVE).is_none_or(<[u8]>::is_empty) {
            assert_eq!(hex(&sealed.message), hex(&protected), "{text}");
        }
        let mut opened = client.open_response(&protected, sent.as_mut().unwrap()).unwrap();
        if let Some(value) = plain.options.get(OptionNumber::OBSERVE) {
            opened.options.set(OptionNumber::OBSERVE, value);
        }
        assert_eq!(opened, plain);
    }
}

fn context(parameters: &Parameters, sequence: u64) -> Context {
    let state = State { sequence, window: Some(ReplayWindow::default()) };
    let mut context = Context::restore(parameters, state, Instant::START).unwrap();
    assert!(context.reserve().is_some());
    context
}

fn find<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| match line.split_once(' ').unwrap_or((line, "")) {
        (field, value) if field == name => Some(value),
        _ => None,
    })
}

fn message(text: &str) -> Message {
    Message::decode(&bytes(text)).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(message: &Message) -> String {
    message.encode().iter().map(|byte| format!("{byte:02x}")).collect()
}
