//! OSCORE with any message: what is protected comes back, and what is damaged, replayed or made up is refused and changes nothing.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use lowband::coap::{Code, Instant, Kind, Message, MessageId, OptionNumber, Options, Token};
use lowband::security::oscore::{Algorithm, Hkdf, Parameters, is_protected};
use proptest::prelude::*;
use support::oscore::{Endpoint, Nonces};

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_message_is_opened_as_it_was(
        parameters in parameters(),
        request in message(request_code()),
        responses in prop::collection::vec(message(response_code()), 1..4),
    ) {
        let (mut client, mut server) = (Endpoint::new(&parameters), Endpoint::new(&parameters.mirrored()));
        let mut nonces = Nonces::default();
        let (sealed, mut sent) = client.asks(&request);
        nonces.saw(&sealed);
        let sealed = Message::decode(&sealed.message.encode()).unwrap();
        let (opened, mut binding) = server.serves(&sealed, Instant::START);
        prop_assert_eq!(&opened, &request);
        for response in responses {
            let sealed = server.answers(&response, &mut binding);
            nonces.saw(&sealed);
            let sealed = Message::decode(&sealed.message.encode()).unwrap();
            prop_assert!(is_protected(&sealed));
            prop_assert_eq!(client.context.open_response(&sealed, &mut sent), Ok(response));
        }
    }

    #[test]
    fn any_flipped_bit_is_refused_and_changes_nothing(
        request in message(request_code()),
        response in message(response_code()),
        bit in any::<prop::sample::Index>(),
    ) {
        let (mut client, mut server) = Endpoint::pair();
        let (sealed, mut sent) = client.asks(&request);
        let damaged = damage(&sealed.message, bit);
        let before = format!("{:?}", server.context);
        prop_assert!(server.opens(&damaged, Instant::START).is_err());
        prop_assert_eq!(format!("{:?}", server.context), before);
        let (_, mut binding) = server.serves(&sealed.message, Instant::START);

        let sealed = server.answers(&response, &mut binding);
        let damaged = damage(&sealed.message, bit);
        let before = format!("{sent:?}");
        prop_assert!(client.context.open_response(&damaged, &mut sent).is_err());
        prop_assert_eq!(format!("{sent:?}"), before);
        prop_assert!(client.context.open_response(&sealed.message, &mut sent).is_ok());
    }

    #[test]
    fn in_any_order_and_however_often_they_come_each_is_served_once(
        order in prop::collection::vec(0_usize..40, 0..200),
    ) {
        let (mut client, mut server) = Endpoint::pair();
        let requests: Vec<_> = (0..40)
            .map(|id| client.asks(&Message { code: Code::GET, ..Message::empty(Kind::Confirmable, MessageId(id)) }))
            .collect();
        let mut served = [false; 40];
        for at in order {
            let fresh = !std::mem::replace(&mut served[at], true);
            prop_assert_eq!(server.opens(&requests[at].0.message, Instant::START).is_ok(), fresh);
        }
    }
}

/// The message with one bit of its ciphertext or of its OSCORE option flipped.
fn damage(message: &Message, bit: prop::sample::Index) -> Message {
    let mut message = message.clone();
    let mut option = message.options.get(OptionNumber::OSCORE).unwrap().to_vec();
    let mut payload = message.payload.to_vec();
    let bit = bit.index((option.len() + payload.len()) * 8);
    match option.get_mut(bit / 8) {
        Some(byte) => *byte ^= 0x80 >> (bit % 8),
        None => payload[bit / 8 - option.len()] ^= 0x80 >> (bit % 8),
    }
    message.options.set(OptionNumber::OSCORE, option);
    message.payload = payload.into();
    message
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let bytes = |length| prop::collection::vec(any::<u8>(), length);
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let hkdf = prop::sample::select(vec![Hkdf::Sha256, Hkdf::Sha512]);
    let contexts = prop::option::of(bytes(0..20));
    (bytes(16..40), bytes(0..20), bytes(0..7), bytes(0..7), contexts, algorithm, hkdf)
        .prop_filter("ids differ", |(_, _, sender, recipient, ..)| sender != recipient)
        .prop_map(|(secret, salt, sender_id, recipient_id, id_context, algorithm, hkdf)| Parameters {
            master_secret: secret.into(),
            master_salt: salt.into(),
            sender_id,
            recipient_id,
            id_context,
            algorithm,
            hkdf,
        })
}

fn request_code() -> impl Strategy<Value = u8> {
    1_u8..32
}

fn response_code() -> impl Strategy<Value = u8> {
    (prop::sample::select(vec![2, 4, 5]), 0_u8..32).prop_map(|(class, detail)| class << 5 | detail)
}

/// Any message with such a code that can be protected: without OSCORE and Proxy-Uri. Without Observe too, which is not opened as it was.
fn message(code: impl Strategy<Value = u8>) -> impl Strategy<Value = Message> {
    let number = prop_oneof![
        prop::sample::select(vec![
            3, 4, 7, 11, 12, 14, 15, 16, 17, 23, 27, 39, 60, 252, 256, 258, 292, 65_020
        ]),
        any::<u16>()
    ];
    let number = number.prop_filter("cannot be protected", |number| ![6, 9, 35].contains(number));
    let value = prop::collection::vec(any::<u8>(), 0..30);
    let options = prop::collection::vec((number.prop_map(OptionNumber), value), 0..8);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    let token = prop::collection::vec(any::<u8>(), 0..9);
    (code, any::<u16>(), token, options, payload).prop_map(|(code, id, token, options, payload)| Message {
        kind: Kind::Confirmable,
        code: Code(code),
        id: MessageId(id),
        token: Token::new(&token).unwrap(),
        options: options.into_iter().collect::<Options>(),
        payload: payload.into(),
    })
}
