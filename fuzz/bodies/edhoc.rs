//! Any bytes as messages of EDHOC, to either end and at each place of a run: no panic, no keys but for what the other end said, and nothing
//! that keeps a run from going on.

use std::sync::OnceLock;

use lowband::coap::Address;
use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::MessageId;
use lowband::coap::OptionNumber;
use lowband::coap::Request;
use lowband::coap::Response;
use lowband::security::edhoc::Agreed;
use lowband::security::edhoc::Answer;
use lowband::security::edhoc::Config;
use lowband::security::edhoc::ConnectionId;
use lowband::security::edhoc::Credential;
use lowband::security::edhoc::ErrorMessage;
use lowband::security::edhoc::Identity;
use lowband::security::edhoc::Initiator;
use lowband::security::edhoc::KeyPair;
use lowband::security::edhoc::Reply;
use lowband::security::edhoc::Responder;

/// The first byte says who gets the rest, and when.
pub fn run(data: &[u8]) {
    let Some((&place, bytes)) = data.split_first() else { return };
    match place % 8 {
        0 => answer_to_message_1(bytes),
        1 => answer_to_message_3(bytes),
        2 => message_1(bytes),
        3 => message_3(bytes),
        4 => combined(bytes),
        5 => changed(bytes),
        6 => drop(Credential::from_ccs(bytes)),
        _ => {
            if let Some(error) = ErrorMessage::decode(bytes) {
                let _written = error.encode();
            }
        }
    }
}

/// What is not message_2 comes to nothing.
fn answer_to_message_1(bytes: &[u8]) {
    let recorded = recorded();
    let response = Response { payload: bytes.to_vec().into(), ..Response::new(Code::CHANGED) };
    match initiator().receive(&response) {
        Ok(Reply::Agreed(_)) => assert_eq!(bytes, recorded.message_2),
        Ok(Reply::Again(request)) => panic!("{request:?}"),
        Err(_) => {}
    }
}

fn answer_to_message_3(bytes: &[u8]) {
    let recorded = recorded();
    let mut agreed = agreed(&recorded.message_2);
    let response = Response { payload: bytes.to_vec().into(), ..Response::new(Code::CHANGED) };
    assert_eq!(agreed.confirm(&response).is_ok(), bytes == recorded.message_4);
}

fn message_1(bytes: &[u8]) {
    let mut responder = responder();
    let answer = receive(&mut responder, bytes);
    assert!(answer.established.is_none());
    // A device is answered as before, but for the id that is taken now.
    assert!(receive(&mut responder, &recorded().message_1).response.code.is_success());
}

fn message_3(bytes: &[u8]) {
    let recorded = recorded();
    let mut responder = waiting();
    let answer = receive(&mut responder, bytes);
    assert_eq!(answer.established.is_some(), bytes == recorded.message_3, "{:02x?}", recorded.message_3);
}

/// The option, and what stands before the ciphertext.
fn combined(bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let Some((option, payload)) = rest.split_at_checked(usize::from(length)) else { return };
    let mut message = Message { code: Code::POST, ..Message::empty(Kind::Confirmable, MessageId(1)) };
    message.options.push(OptionNumber::OSCORE, option);
    message.options.push(OptionNumber::EDHOC, []);
    message.payload = payload.to_vec().into();
    let mut responder = waiting();
    if let Ok(combined) = responder.receive_combined(address(), message, Instant::START) {
        let message_3 = recorded().message_3.get(1..).unwrap_or_default();
        assert!(combined.established.is_some() && payload.starts_with(message_3));
        assert!(combined.sealed.options.get(OptionNumber::EDHOC).is_none());
    }
}

/// A device whose message_2 has some bits turned, so that lakers decrypts something that is nearly right.
fn changed(bytes: &[u8]) {
    let mut message_2 = recorded().message_2.clone();
    let half = message_2.len().saturating_sub(11);
    let ciphertext = message_2.get_mut(half..).unwrap_or_default();
    ciphertext.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
    answer_to_message_1(&message_2);
}

/// What both ends say, framed as requests have it.
struct Recorded {
    message_1: Vec<u8>,
    message_2: Vec<u8>,
    message_3: Vec<u8>,
    message_4: Vec<u8>,
}

fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let mut responder = responder();
        let message_1 = initiator().request().payload.to_vec();
        let message_2 = receive(&mut responder, &message_1).response.payload.to_vec();
        let message_3 = agreed(&message_2).request().payload.to_vec();
        let message_4 = receive(&mut responder, &message_3).response.payload.to_vec();
        Recorded { message_1, message_2, message_3, message_4 }
    })
}

fn initiator() -> Initiator {
    let c_i = ConnectionId::new(&[0x0e]).unwrap_or_else(|| panic!("it is short"));
    Initiator::new(identity(1), identity(2).credential().clone(), &c_i, [3; 32])
}

fn agreed(message_2: &[u8]) -> Box<Agreed> {
    let response = Response { payload: message_2.to_vec().into(), ..Response::new(Code::CHANGED) };
    match initiator().receive(&response) {
        Ok(Reply::Agreed(agreed)) => agreed,
        other => panic!("{other:?}"),
    }
}

fn responder() -> Responder {
    let mut responder = Responder::new(identity(2), Config::default(), [4; 32]);
    responder.insert(identity(1).credential().clone());
    responder
}

/// One that has answered message_1.
fn waiting() -> Responder {
    let mut responder = responder();
    assert!(receive(&mut responder, &recorded().message_1).response.code.is_success());
    responder
}

fn receive(responder: &mut Responder, payload: &[u8]) -> Answer {
    let Request { method: code, mut options, .. } = initiator().request();
    options.remove(OptionNumber::CONTENT_FORMAT);
    let payload = payload.to_vec().into();
    let message = Message { code, options, payload, ..Message::empty(Kind::Confirmable, MessageId(1)) };
    responder.receive(address(), &message, |_| true, [5; 32], Instant::START)
}

fn identity(seed: u8) -> Identity {
    let pair = KeyPair::generate([seed; 32]);
    let credential = Credential::new("", &[seed], pair.public()).and_then(|own| Identity::new(pair, own));
    credential.unwrap_or_else(|error| panic!("{error}"))
}

fn address() -> Address {
    let any = ([192, 0, 2, 1], 5_683).into();
    Address { remote: any, local: any }
}
