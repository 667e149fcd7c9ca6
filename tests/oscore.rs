//! OSCORE between two endpoints: what crosses the link, what is refused, notifications, and restarts (RFC 8613).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use lowband::coap::{Code, Instant, Message, MessageId, OptionNumber};
use lowband::security::oscore::{
    Context, Disclosure, Freshness, Header, HeaderError, Parameters, PartialIv, ProtectError, Refusal,
    ReplayWindow, ResponseError, State, answer_challenge,
};
use support::notation::{describe, message};
use support::oscore::{Endpoint, LIFETIME, Nonces, parameters};

// What crosses the link (§4).

#[test]
fn a_request_takes_13_bytes_more_a_response_11_and_a_notification_13() {
    let (mut client, mut server) = Endpoint::pair();
    let request = message("CON [MID=1, TOK=0xaa], GET, Observe:0, /7, `body`");
    let (sealed, mut sent) = client.asks(&request);
    assert_eq!(sealed.message.encode().len(), request.encode().len() + 13 + OBSERVE_TWICE);
    let (opened, mut binding) = server.serves(&sealed.message, Instant::START);
    assert_eq!(opened, request);

    let response = message("ACK [MID=1, TOK=0xaa], 2.05, `body`");
    let (post, _) = client.asks(&message("CON [MID=2, TOK=0xbb], GET, /7"));
    let (_, mut other) = server.serves(&post.message, Instant::START);
    let sealed = server.answers(&response, &mut other);
    assert_eq!(sealed.message.encode().len(), response.encode().len() + 11);

    let first = message("ACK [MID=1, TOK=0xaa], 2.05, Observe:7, `body`");
    let sealed = server.answers(&first, &mut binding);
    assert_eq!(sealed.message.encode().len(), first.encode().len() + 11 + OBSERVE_TWICE);
    assert!(client.context.open_response(&sealed.message, &mut sent).is_ok());
    let next = message("CON [MID=9, TOK=0xaa], 2.05, Observe:8, `body`");
    let sealed = server.answers(&next, &mut binding);
    assert_eq!(sealed.message.encode().len(), next.encode().len() + 13 + OBSERVE_TWICE);
}

/// The inner one has no value.
const OBSERVE_TWICE: usize = 1;

#[test]
fn only_what_is_for_proxies_is_seen() {
    let (mut client, mut server) = Endpoint::pair();
    let request = message(
        "CON [MID=1, TOK=0xaa], PUT, opt3:\"host\", opt7:0x1633, ETag:0x01, /secret, CF:60, ?secret, opt16:0x10, Accept:60, \
         1:0/1/16, Size1:99, opt39:\"coap\", Echo:0x01, Access-Token:\"secret\", opt257:0x01, No-Response:2, Request-Tag:0x01, \
         opt65020:\"hf-100\", opt2048:0x00, `secret`",
    );
    let (sealed, _) = client.asks(&request);
    let outer: Vec<_> = sealed.message.options.iter().map(|(number, _)| number.0).collect();
    assert_eq!(outer, [3, 7, 9, 16, 39, 258]);
    assert_eq!(sealed.message.code, Code::POST);
    let datagram = sealed.message.encode();
    assert!(!datagram.windows(6).any(|bytes| bytes == b"secret" || bytes == b"hf-100"));
    assert_eq!(server.serves(&sealed.message, Instant::START).0, request);
}

#[test]
fn a_response_hides_its_code_and_all_of_its_options() {
    let (mut client, mut server) = Endpoint::pair();
    let (sealed, mut sent) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, /7"));
    let (_, mut binding) = server.serves(&sealed.message, Instant::START);
    let response = message(
        "ACK [MID=1, TOK=0xaa], 4.04, ETag:0x01, CF:60, Max-Age:3, 2:0/1/16, Size2:50, HTTP-Status:418, `x`",
    );
    let sealed = server.answers(&response, &mut binding);
    assert_eq!(sealed.message.code, Code::CHANGED);
    assert_eq!(sealed.message.options.len(), 1);
    assert_eq!(client.context.open_response(&sealed.message, &mut sent), Ok(response));
}

#[test]
fn observations_are_fetched_and_notified_with_content_whatever_is_in_them() {
    let (mut client, mut server) = Endpoint::pair();
    for value in ["0", "1"] {
        let request = message(&format!("CON [MID=1, TOK=0xaa], GET, Observe:{value}, /0"));
        let (sealed, _) = client.asks(&request);
        assert_eq!(sealed.message.code, Code::FETCH);
        let (opened, mut binding) = server.serves(&sealed.message, Instant::START);
        assert_eq!(opened, request);
        let sealed = server.answers(&message("ACK [MID=1, TOK=0xaa], 5.00"), &mut binding);
        assert_eq!(sealed.message.code, Code::CONTENT);
    }
}

#[test]
fn what_a_proxy_adds_in_the_clear_is_not_believed() {
    let (mut client, mut server) = Endpoint::pair();
    let request = message("CON [MID=1, TOK=0xaa], GET, /7, Max-Age:9");
    let (mut sealed, _) = client.asks(&request);
    for (number, value) in [
        (1, "x"),
        (4, "x"),
        (6, ""),
        (11, "other"),
        (14, "x"),
        (15, "x"),
        (60, "x"),
        (258, "\x1a"),
        (2049, ""),
    ] {
        sealed.message.options.push(OptionNumber(number), value);
    }
    assert_eq!(server.serves(&sealed.message, Instant::START).0, request);
}

#[test]
fn a_registration_whose_outer_observe_was_taken_away_is_an_ordinary_request() {
    let (mut client, mut server) = Endpoint::pair();
    let (mut sealed, mut sent) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, Observe:0, /0"));
    sealed.message.options.remove(OptionNumber::OBSERVE);
    let (opened, mut binding) = server.serves(&sealed.message, Instant::START);
    assert_eq!(opened, message("CON [MID=1, TOK=0xaa], GET, /0"));
    let response = message("ACK [MID=1, TOK=0xaa], 2.05, `x`");
    let sealed = server.answers(&response, &mut binding);
    assert_eq!(client.context.open_response(&sealed.message, &mut sent), Ok(response));
}

#[test]
fn what_cannot_be_protected_is_told_and_takes_no_number() {
    let mut client = Endpoint::new(&parameters());
    let (_, mut server) = Endpoint::pair();
    let protect =
        |client: &mut Endpoint, text: &str| client.context.protect_request(&message(text)).map(drop);
    assert_eq!(protect(&mut client, "CON [MID=1], 2.05"), Err(ProtectError::WrongCode(Code::CONTENT)));
    assert_eq!(protect(&mut client, "CON [MID=1], GET, opt9:0x"), Err(ProtectError::Nested));
    assert_eq!(protect(&mut client, "CON [MID=1], GET, opt35:\"coap://a/b\""), Err(ProtectError::ProxyUri));
    assert_eq!(client.context.sequence(), 0);
    let (sealed, _) = client.asks(&message("CON [MID=1], GET"));
    let (_, mut binding) = server.serves(&sealed.message, Instant::START);
    let request = message("CON [MID=1], GET");
    let refused = server.context.protect_response(&request, &mut binding);
    assert_eq!(refused, Err(ProtectError::WrongCode(Code::GET)));
    let sealed = server.answers(&message("ACK [MID=1], 2.05"), &mut binding);
    assert!(Header::of(&sealed.message).unwrap().partial_iv.is_none(), "the nonce is still there");
}

// What is refused (§8.2, §8.4).

#[test]
fn requests_that_cannot_be_opened_are_refused_and_change_nothing() {
    let (mut client, mut server) = Endpoint::pair();
    let (sealed, _) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, /7"));
    let sound = sealed.message;
    let changed = |change: &dyn Fn(&mut Message)| {
        let mut message = sound.clone();
        change(&mut message);
        message
    };
    let with_header =
        |value: &'static [u8]| changed(&move |message| message.options.set(OptionNumber::OSCORE, value));
    let mut other = Endpoint::new(&Parameters { master_secret: [8; 16].into(), ..parameters() });
    let cases = [
        (changed(&|message| message.options.remove(OptionNumber::OSCORE)), HeaderError::Missing.into()),
        (changed(&|message| message.options.push(OptionNumber::OSCORE, "")), HeaderError::Repeated.into()),
        (with_header(b""), HeaderError::Parts.into()),
        (with_header(b"\x08"), HeaderError::Parts.into()),
        (with_header(b"\x01\x00"), HeaderError::Parts.into()),
        (with_header(b"\x29\x00"), HeaderError::ReservedFlags(0x29).into()),
        (with_header(b"\x0a\x00\x00"), HeaderError::PartialIv.into()),
        (changed(&|message| message.payload.clear()), HeaderError::NoCiphertext.into()),
        (changed(&|message| message.options.push(OptionNumber::BLOCK1, "\x08")), Refusal::OuterBlock),
        (changed(&|message| message.options.push(OptionNumber::BLOCK2, "")), Refusal::OuterBlock),
        (with_header(b"\x09\x00\x05"), Refusal::UnknownContext),
        (with_header(b"\x19\x00\x01\x05"), Refusal::UnknownContext),
        (with_header(b"\x09\x01"), Refusal::Forged),
        (changed(&|message| message.payload.truncate(8)), Refusal::Forged),
        (other.asks(&message("CON [MID=1, TOK=0xaa], GET, /7")).0.message, Refusal::Forged),
    ];
    for (message, refusal) in cases {
        let before = format!("{:?}", server.context);
        assert_eq!(server.opens(&message, Instant::START).unwrap_err(), refusal, "{message:?}");
        assert_eq!(format!("{:?}", server.context), before);
    }
    assert!(server.opens(&sound, Instant::START).is_ok());
    assert_eq!(server.opens(&sound, Instant::START).unwrap_err(), Refusal::Replayed);
    assert!(Refusal::Replayed.response(Disclosure::Uniform).unwrap().payload.is_empty());
}

#[test]
fn a_request_is_for_the_context_that_its_header_names() {
    let in_context = |id_context: &[u8]| Parameters { id_context: Some(id_context.to_vec()), ..parameters() };
    let (mut client, mut server) =
        (Endpoint::new(&in_context(b"a")), Endpoint::new(&in_context(b"a").mirrored()));
    let mut other = Endpoint::new(&in_context(b"b").mirrored());
    let (sealed, _) = client.asks(&message("CON [MID=1], GET"));
    let header = Header::of(&sealed.message).unwrap();
    assert!(server.context.is_meant(&header) && !other.context.is_meant(&header));
    assert_eq!(other.opens(&sealed.message, Instant::START).unwrap_err(), Refusal::UnknownContext);
    server.serves(&sealed.message, Instant::START);
    // §5.1: whoever needs no hint may go without.
    let (mut sealed, _) = client.asks(&message("CON [MID=1], GET"));
    let header = Header { kid_context: None, ..Header::of(&sealed.message).unwrap() };
    sealed.message.options.set(OptionNumber::OSCORE, header.encode());
    assert_eq!(other.opens(&sealed.message, Instant::START).unwrap_err(), Refusal::Forged);
    server.serves(&sealed.message, Instant::START);
}

#[test]
fn requests_may_overtake_each_other_within_the_window() {
    let (mut client, mut server) = Endpoint::pair();
    let requests: Vec<_> =
        (0..70).map(|id| client.asks(&message(&format!("CON [MID={id}], GET"))).0.message).collect();
    server.serves(&requests[69], Instant::START);
    for request in requests[6..69].iter().rev() {
        server.serves(request, Instant::START);
    }
    for request in &requests {
        assert_eq!(server.opens(request, Instant::START).unwrap_err(), Refusal::Replayed);
    }
}

#[test]
fn responses_that_cannot_be_opened_are_dropped_and_the_right_one_is_still_taken() {
    let (mut client, mut server) = Endpoint::pair();
    let (first, mut sent) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, /7"));
    let (second, _) = client.asks(&message("CON [MID=2, TOK=0xbb], GET, /8"));
    let (_, mut binding) = server.serves(&first.message, Instant::START);
    let (_, mut other) = server.serves(&second.message, Instant::START);
    let response = message("ACK [MID=1, TOK=0xaa], 2.05, `x`");
    let sound = server.answers(&response, &mut binding).message;
    let elsewhere = server.answers(&response, &mut other).message;
    let notification =
        server.answers(&message("CON [MID=3, TOK=0xaa], 2.05, Observe:1"), &mut binding).message;
    let mut with_kid = sound.clone();
    with_kid.options.set(OptionNumber::OSCORE, b"\x08\x02");
    let mut with_context = sound.clone();
    with_context.options.set(OptionNumber::OSCORE, b"\x10\x01a");
    let mut with_block = sound.clone();
    with_block.options.push(OptionNumber::BLOCK2, b"\x08");
    let mut empty = sound.clone();
    empty.payload.clear();
    let unprotected = message("ACK [MID=1, TOK=0xaa], 4.01");
    for (message, error) in [
        (unprotected, ResponseError::Unprotected(Code::UNAUTHORIZED)),
        (elsewhere, ResponseError::Forged),
        (first.message, ResponseError::UnknownContext),
        (with_kid, ResponseError::UnknownContext),
        (with_context, HeaderError::Parts.into()),
        (with_block, ResponseError::OuterBlock),
        (empty, HeaderError::NoCiphertext.into()),
        (notification, ResponseError::NotAResponse),
    ] {
        let before = format!("{sent:?}");
        assert_eq!(client.context.open_response(&message, &mut sent), Err(error), "{message:?}");
        assert_eq!(format!("{sent:?}"), before);
    }
    assert_eq!(client.context.open_response(&sound, &mut sent), Ok(response));
    assert_eq!(client.context.open_response(&sound, &mut sent), Err(ResponseError::Replayed));
}

#[test]
fn a_message_reflected_to_its_sender_is_refused() {
    let (mut client, _) = Endpoint::pair();
    let (sealed, _) = client.asks(&message("CON [MID=1], GET"));
    assert_eq!(client.opens(&sealed.message, Instant::START).unwrap_err(), Refusal::UnknownContext);
}

// Observations (§4.1.3.5, §7.4.1).

#[test]
fn notifications_are_ordered_by_their_numbers_however_late_they_come() {
    let (mut client, mut server) = Endpoint::pair();
    let (sealed, mut sent) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, Observe:0, /0"));
    let (_, mut binding) = server.serves(&sealed.message, Instant::START);
    let mut notify = |value: u32| {
        let text = format!("CON [MID={value}, TOK=0xaa], 2.05, Observe:{value}, `{value}`");
        server.answers(&message(&text), &mut binding).message
    };
    let notifications: Vec<_> = (1..=5).map(&mut notify).collect();
    let mut opens = |at: usize| client.context.open_response(&notifications[at], &mut sent);
    let value =
        |message: Result<Message, ResponseError>| message.unwrap().options.get_uint(OptionNumber::OBSERVE);
    assert_eq!(value(opens(0)), Some(1));
    assert_eq!(value(opens(2)), Some(2));
    assert_eq!(opens(1), Err(ResponseError::Replayed));
    assert_eq!(opens(2), Err(ResponseError::Replayed));
    assert_eq!(opens(0), Err(ResponseError::Replayed));
    assert_eq!(value(opens(4)), Some(3));
    assert_eq!(opens(3), Err(ResponseError::Replayed));
}

#[test]
fn an_error_ends_an_observation_and_comes_after_what_was_notified() {
    let (mut client, mut server) = Endpoint::pair();
    let (sealed, mut sent) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, Observe:0, /0"));
    let (_, mut binding) = server.serves(&sealed.message, Instant::START);
    let error = message("CON [MID=3, TOK=0xaa], 5.03");
    let first = server.answers(&message("ACK [MID=1, TOK=0xaa], 2.05, Observe:1"), &mut binding);
    let last = server.answers(&error, &mut binding);
    assert!(client.context.open_response(&first.message, &mut sent).is_ok());
    assert_eq!(client.context.open_response(&last.message, &mut sent), Ok(error));
}

#[test]
fn the_blocks_of_a_burst_come_in_any_order_and_keep_their_common_value() {
    let (mut client, mut server) = Endpoint::pair();
    let (sealed, mut sent) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, Observe:0, /0"));
    let (_, mut binding) = server.serves(&sealed.message, Instant::START);
    let mut block = |number: u8, value: u32| {
        let mut block = message(&format!("NON [MID={number}, TOK=0xaa], 2.05, Observe:{value}, `x`"));
        block.options.push(OptionNumber::Q_BLOCK2, [number << 4 | 8]);
        server.answers(&block, &mut binding).message
    };
    let blocks = [block(0, 300), block(1, 300), block(2, 300), block(0, 301)];
    let mut opens = |at: usize| {
        let opened = client.context.open_response(&blocks[at], &mut sent);
        opened.map(|message| message.options.get_uint(OptionNumber::OBSERVE).unwrap())
    };
    assert_eq!(opens(1), Ok(1));
    assert_eq!(opens(2), Ok(1));
    assert_eq!(opens(0), Ok(1), "the one without a number of its own");
    assert_eq!(opens(0), Err(ResponseError::Replayed));
    assert_eq!(opens(3), Ok(2));
    assert_eq!(opens(1), Err(ResponseError::Replayed));
}

#[test]
fn an_observation_goes_on_after_a_restart_of_the_server() {
    let (mut client, mut server) = Endpoint::pair();
    let mut nonces = Nonces::default();
    let (sealed, mut sent) = client.asks(&message("CON [MID=1, TOK=0xaa], GET, Observe:0, /0"));
    let (_, mut binding) = server.serves(&sealed.message, Instant::START);
    for restart in 1..20 {
        // Only what was kept of the binding is left.
        binding = serde_json::from_str(&serde_json::to_string(&binding).unwrap()).unwrap();
        server.crash(at(restart));
        let notification = message(&format!("CON [MID={restart}, TOK=0xaa], 2.05, Observe:{restart}, `x`"));
        let sealed = server.answers(&notification, &mut binding);
        nonces.saw(&sealed);
        let opened = client.context.open_response(&sealed.message, &mut sent).unwrap();
        assert_eq!(opened.options.get_uint(OptionNumber::OBSERVE), u32::try_from(restart).ok());
    }
}

// Restarts (§7.5, Appendix B.1).

#[test]
fn after_a_restart_a_request_is_served_once_its_sender_has_said_that_it_is_fresh() {
    let (mut client, mut server) = Endpoint::pair();
    let old = client.asks(&message("CON [MID=1], PUT, /7, `old`")).0.message;
    server.serves(&old, Instant::START);
    server.crash(at(10));
    assert_eq!(server.context.freshness(), Freshness::Lost { since: at(10) });

    // A replay gets what is of no use to whoever has not the keys.
    let first = server.challenges(&old, at(11)).message;
    assert_eq!(first.code, Code::CHANGED);
    assert!(Header::of(&first).unwrap().partial_iv.is_some(), "{}", describe(&first.encode()));
    assert!(first.encode().len() <= 3 * old.encode().len());

    let request = message("CON [MID=2, TOK=0xaa], PUT, /7, `new`");
    let (sealed, mut sent) = client.asks(&request);
    let challenge = server.challenges(&sealed.message, at(12)).message;
    assert_eq!((challenge.id, challenge.token), (request.id, request.token));
    let response = client.context.open_response(&challenge, &mut sent).unwrap();
    assert_eq!(response.code, Code::UNAUTHORIZED);
    let again = Message { id: MessageId(3), ..answer_challenge(&request, &response).unwrap() };
    let (sealed_again, _) = client.asks(&again);
    assert_eq!(server.serves(&sealed_again.message, at(13)).0, again);
    assert!(matches!(server.context.freshness(), Freshness::Recovered { .. }));

    for (replay, refusal) in
        [(&sealed_again.message, Some(Refusal::Replayed)), (&sealed.message, None), (&old, None)]
    {
        match refusal {
            Some(refusal) => assert_eq!(server.opens(replay, at(14)).unwrap_err(), refusal),
            None => drop(server.challenges(replay, at(14))),
        }
    }
    // What comes later needs no proof any more.
    let next = client.asks(&message("CON [MID=4], GET")).0.message;
    server.serves(&next, at(15));
}

#[test]
fn of_requests_that_were_challenged_together_the_later_may_come_first() {
    let (mut client, mut server) = Endpoint::pair();
    server.crash(at(10));
    let answers: Vec<_> = (0..2)
        .map(|id| {
            let request = message(&format!("CON [MID={id}], GET"));
            let (sealed, mut sent) = client.asks(&request);
            let challenge = server.challenges(&sealed.message, at(11)).message;
            let response = client.context.open_response(&challenge, &mut sent).unwrap();
            client.asks(&answer_challenge(&request, &response).unwrap()).0.message
        })
        .collect();
    server.serves(&answers[1], at(12));
    server.serves(&answers[0], at(12));
    for answer in &answers {
        assert_eq!(server.opens(answer, at(13)).unwrap_err(), Refusal::Replayed);
    }
}

/// The network doubles a request. Its first copy is challenged, and the second comes when another has proved that it is fresh.
#[test]
fn what_was_challenged_is_not_served_when_it_comes_again_as_it_was() {
    let (mut client, mut server) = Endpoint::pair();
    server.crash(at(10));
    let [(first, mut sent), (doubled, _), (later, _)] =
        [1, 2, 3].map(|id| client.asks(&message(&format!("CON [MID={id}], POST"))));
    let challenge = server.challenges(&first.message, at(11)).message;
    server.challenges(&doubled.message, at(11));
    let response = client.context.open_response(&challenge, &mut sent).unwrap();
    let proof = answer_challenge(&message("CON [MID=1], POST"), &response).unwrap();
    // Its number may be below those that were challenged, when it was on its way for long.
    server.serves(&client.asks(&proof).0.message, at(12));
    server.challenges(&doubled.message, at(13));
    server.challenges(&later.message, at(13));
    let next = client.asks(&message("CON [MID=5], POST")).0.message;
    server.serves(&next, at(13));
}

/// The same, where the proof was sent before what was challenged.
#[test]
fn what_was_challenged_and_is_newer_than_the_proof_is_not_served_as_it_was() {
    let (mut client, mut server) = Endpoint::pair();
    server.crash(at(10));
    let (first, mut sent) = client.asks(&message("CON [MID=1], POST"));
    let challenge = server.challenges(&first.message, at(11)).message;
    let response = client.context.open_response(&challenge, &mut sent).unwrap();
    let proof = client.asks(&answer_challenge(&message("CON [MID=1], POST"), &response).unwrap()).0.message;
    let doubled = client.asks(&message("CON [MID=2], POST")).0.message;
    let next = client.asks(&message("CON [MID=3], POST")).0.message;
    server.challenges(&doubled, at(12));
    server.serves(&proof, at(13));
    server.challenges(&doubled, at(14));
    server.serves(&next, at(15));
}

#[test]
fn a_window_is_whole_again_once_it_has_passed_what_was_lost() {
    let (mut client, mut server) = Endpoint::pair();
    server.crash(at(10));
    prove(&mut client, &mut server, at(11));
    for _ in 0..70 {
        let sealed = client.asks(&message("CON [MID=1], GET")).0.message;
        server.serves(&sealed, at(12));
    }
    assert_eq!(server.context.freshness(), Freshness::Known);
}

#[test]
fn a_proof_is_of_no_use_later_to_another_context_or_after_the_next_restart() {
    let (mut client, mut server) = Endpoint::pair();
    server.crash(at(10));
    let request = message("CON [MID=1], GET");
    let (sealed, mut sent) = client.asks(&request);
    let challenge = server.challenges(&sealed.message, at(11)).message;
    let response = client.context.open_response(&challenge, &mut sent).unwrap();
    let answer = answer_challenge(&request, &response).unwrap();
    let (late, in_time) = (client.asks(&answer).0.message, client.asks(&answer).0.message);
    server.challenges(&late, at(11) + 2 * LIFETIME);
    // The same secret, which a start has for itself, would do no harm either.
    server.crash(at(20));
    server.challenges = lowband::security::oscore::Challenges::new([1; 32], LIFETIME);
    server.challenges(&in_time, at(21));

    let parameters = Parameters { master_secret: [9; 16].into(), ..parameters() };
    let (mut others_client, mut other) = (Endpoint::new(&parameters), Endpoint::new(&parameters.mirrored()));
    other.crash(at(10));
    let elsewhere = others_client.asks(&answer).0.message;
    other.challenges(&elsewhere, at(12));
}

#[test]
fn a_restart_in_order_loses_nothing() {
    let (mut client, mut server) = Endpoint::pair();
    let old = client.asks(&message("CON [MID=1], GET")).0.message;
    server.serves(&old, Instant::START);
    server.restart(at(10));
    client.restart(at(10));
    assert_eq!(client.context.sequence(), 1);
    assert_eq!(server.context.freshness(), Freshness::Known);
    assert_eq!(server.opens(&old, at(11)).unwrap_err(), Refusal::Replayed);
    let next = client.asks(&message("CON [MID=2], GET")).0.message;
    server.serves(&next, at(12));
    // The window that was kept then is not kept any more.
    server.crash(at(20));
    assert_eq!(server.context.freshness(), Freshness::Lost { since: at(20) });
    server.challenges(&next, at(21));
    // One that was closed before it was whole refuses what it does not know.
    prove(&mut client, &mut server, at(22));
    server.restart(at(30));
    assert_eq!(server.opens(&next, at(31)).unwrap_err(), Refusal::Replayed);
}

#[test]
fn over_1000_restarts_of_both_sequence_numbers_only_grow_and_no_nonce_is_used_twice() {
    let (mut client, mut server) = Endpoint::pair();
    let mut nonces = Nonces::default();
    let mut least = 0;
    for restart in 1..=1_000 {
        client.crash(at(10 * restart));
        server.crash(at(10 * restart + 1));
        assert!(client.context.sequence() >= least, "restart {restart}");
        // Mostly a few, and sometimes as many as end within a block, or beyond it.
        for id in 0..if restart % 16 == 0 { restart % 300 } else { restart % 4 } {
            let (sealed, _) = client.asks(&message(&format!("CON [MID={id}], GET, /{restart}")));
            nonces.saw(&sealed);
            if id == 0 {
                nonces.saw(&server.challenges(&sealed.message, at(10 * restart + 2)));
            }
        }
        least = client.context.sequence();
    }
    assert!(nonces.len() > 5_000, "{}", nonces.len());
    assert!(least < 1_000 * (Context::AHEAD + 300));
}

#[test]
fn nothing_is_sealed_or_opened_before_numbers_are_reserved() {
    let mut client = Context::new(&parameters()).unwrap();
    let request = message("CON [MID=1], GET");
    assert_eq!(client.protect_request(&request).unwrap_err(), ProtectError::Unreserved);
    assert_eq!(client.reserve(), Some(State { sequence: Context::AHEAD, window: None }));
    assert_eq!(client.reserve(), None);
    for _ in 0..Context::AHEAD {
        assert!(client.protect_request(&request).is_ok());
    }
    assert_eq!(client.protect_request(&request).unwrap_err(), ProtectError::Unreserved);

    let (mut other, _) = Endpoint::pair();
    let mut server = Context::new(&parameters().mirrored()).unwrap();
    let sealed = other.asks(&request).0.message;
    let challenges = other.challenges;
    let refused = server.open_request(&sealed, &challenges, Instant::START);
    assert_eq!(refused.unwrap_err(), Refusal::Unreserved);
    assert!(server.reserve().is_some());
    assert!(server.open_request(&sealed, &challenges, Instant::START).is_ok());
}

#[test]
fn the_last_number_is_used_and_none_after_it() {
    let state = State { sequence: PartialIv::MAX.number(), window: Some(ReplayWindow::default()) };
    let mut client = Context::restore(&parameters(), state, Instant::START).unwrap();
    let last = client.reserve().unwrap();
    assert_eq!(last.sequence, 1 << 40);
    let request = message("CON [MID=1], GET");
    let (sealed, _) = client.protect_request(&request).unwrap();
    assert_eq!(Header::of(&sealed.message).unwrap().partial_iv, Some(PartialIv::MAX));
    assert_eq!(client.protect_request(&request).unwrap_err(), ProtectError::Exhausted);
    assert_eq!(client.reserve(), None);
    let (_, mut server) = Endpoint::pair();
    server.serves(&sealed.message, Instant::START);

    let mut client = Context::restore(&parameters(), last, Instant::START).unwrap();
    assert_eq!(client.reserve(), None);
    assert_eq!(client.protect_request(&request).unwrap_err(), ProtectError::Exhausted);
    let to_it = Endpoint::new(&parameters().mirrored()).asks(&request).0.message;
    let refused = client.open_request(&to_it, &server.challenges, Instant::START);
    assert_eq!(refused.unwrap_err(), Refusal::Exhausted);
}

#[test]
fn no_secret_is_printed() {
    let (mut client, _) = Endpoint::pair();
    let (_, sent) = client.asks(&message("CON [MID=1], GET"));
    let printed = format!("{client:?} {sent:?} {:?}", parameters());
    assert!(!printed.contains("7, 7"), "{printed}");
    assert!(printed.contains("Secret(16 bytes)"), "{printed}");
}

/// A request is served, after its sender has said that it is fresh.
fn prove(client: &mut Endpoint, server: &mut Endpoint, now: Instant) {
    let request = message("CON [MID=1], GET");
    let (sealed, mut sent) = client.asks(&request);
    let challenge = server.challenges(&sealed.message, now).message;
    let response = client.context.open_response(&challenge, &mut sent).unwrap();
    let (sealed, _) = client.asks(&answer_challenge(&request, &response).unwrap());
    server.serves(&sealed.message, now);
}

fn at(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
}
