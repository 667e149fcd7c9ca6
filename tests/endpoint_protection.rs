//! What an endpoint says to a device whose messages are protected by OSCORE, where the device is no endpoint of ours: it seals by itself, and
//! leaves out or keeps back what it likes.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, OptionNumber};
use lowband::endpoint::{Address, Association, Config, Endpoint, Event};
use lowband::link::End;
use lowband::security::oscore::{Header, Parameters, PartialIv, Secret, SentRequest};
use support::endpoint::{OTHER, config, response};
use support::notation;
use support::oscore::parameters;
use support::pair::over_hf;

const DEVICE: Association = Association::Device(7);

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

/// A datagram of a device that is no endpoint of ours.
fn sealed(device: &mut support::oscore::Endpoint, what: &str) -> (Vec<u8>, SentRequest) {
    let (sealed, sent) = device.asks(&notation::message(what));
    (sealed.message.encode(), sent)
}

#[test]
fn what_is_missing_of_a_body_in_bursts_is_asked_for_under_protection() {
    let mut gateway = Endpoint::new(over_hf(End::Gateway, true), [2; 32]);
    gateway.admit_keys(1, DEVICE, parameters().mirrored()).unwrap();
    let mut device = support::oscore::Endpoint::new(&parameters());
    // The first and the last of three blocks of 16 bytes, which nobody confirms; what is between them is lost.
    let block = |number: u8, part| {
        let value = number << 4 | u8::from(number < 2) << 3;
        format!("NON [MID={number}, TOK=0xaa], PUT, /x, opt19:0x{value:02x}, opt60:0x28, opt292:0x07, {part}")
    };
    let (first, _) = sealed(&mut device, &block(0, "0..16"));
    let (last, mut sent) = sealed(&mut device, &block(2, "32..40"));
    gateway.handle(OTHER, &first, at(0));
    gateway.handle(OTHER, &last, at(5_000));
    let mut asked = Vec::new();
    while let Some(due) = gateway.deadline().filter(|due| *due < at(3_600_000)) {
        gateway.advance(due);
        asked.extend(std::iter::from_fn(|| gateway.poll_datagram()));
    }
    assert_eq!(asked.len(), 4, "NON_MAX_RETRANSMIT");
    for (to, datagram) in asked {
        let opened = device.context.open_response(&Message::decode(&datagram).unwrap(), &mut sent).unwrap();
        assert_eq!((to, opened.code), (OTHER, Code::REQUEST_ENTITY_INCOMPLETE));
        assert_eq!(&opened.payload[..], [1]);
    }
}

#[test]
fn what_was_kept_back_of_older_keys_moves_nobody_however_great_its_number() {
    let newer = Parameters::new(Secret::from([8; 16]), b"\x05", b"\x01");
    let mut gateway = Endpoint::new(Config { trusted: true, ..config() }, [2; 32]);
    gateway.admit_keys(1, DEVICE, parameters().mirrored()).unwrap();
    gateway.admit_keys(2, DEVICE, newer.mirrored()).unwrap();
    let mut before = support::oscore::Endpoint::new(&parameters());
    let mut after = support::oscore::Endpoint::new(&newer);
    let mut told = |from, datagram: &[u8]| {
        gateway.handle(from, datagram, at(0));
        let key = std::iter::from_fn(|| gateway.poll_event()).find_map(|event| match event {
            Event::Request { key, .. } => Some(key),
            _ => None,
        });
        gateway.respond(key.unwrap(), response("2.04"), at(0));
        gateway.poll_datagram().unwrap().0
    };
    let [first, _, kept_back] =
        [1, 2, 3].map(|id| sealed(&mut before, &format!("CON [MID={id}, TOK=0x01], PUT, /9")).0);
    let (renewed, _) = sealed(&mut after, "CON [MID=4, TOK=0x01], PUT, /9");
    assert_eq!(told(OTHER, &first), OTHER);
    assert_eq!(told(OTHER, &renewed), OTHER);
    // It is done, since it is new. But who sends it now need not be the device.
    assert_eq!(told(Address { remote: ([203, 0, 113, 9], 5683).into(), ..OTHER }, &kept_back), OTHER);
}

#[test]
fn a_stranger_is_told_the_same_whether_there_are_keys_for_what_it_says_or_not() {
    let mut gateway = Endpoint::new(config(), [2; 32]);
    gateway.admit_keys(1, DEVICE, parameters().mirrored()).unwrap();
    let mut device = support::oscore::Endpoint::new(&parameters());
    let (opened, _) = sealed(&mut device, "CON [MID=1, TOK=0x01], PUT, /9");
    gateway.handle(OTHER, &opened, at(0));
    while gateway.poll_event().is_some() {}
    // Each of them in the name of the device, and of nobody.
    let number = PartialIv::new(0);
    let unread = PartialIv::new(7);
    let cases = [
        ("forged", unread, &[1; 12][..], None, Code::UNAUTHORIZED),
        ("too short for a tag", unread, &[1], None, Code::UNAUTHORIZED),
        ("come before", number, &[1; 12], None, Code::UNAUTHORIZED),
        ("without a number", None, &[1; 12], None, Code::BAD_OPTION),
        ("without a ciphertext", unread, &[], None, Code::BAD_OPTION),
        ("an outer block", unread, &[1; 12], Some(OptionNumber::BLOCK1), Code::BAD_OPTION),
        ("an outer wish for blocks", unread, &[1; 12], Some(OptionNumber::BLOCK2), Code::BAD_OPTION),
        ("an outer burst", unread, &[1; 12], Some(OptionNumber::Q_BLOCK1), Code::BAD_OPTION),
    ];
    for (what, partial_iv, payload, block, code) in cases {
        let [known, unknown] = [&b""[..], b"\x09"].map(|kid| {
            let header = Header { partial_iv, kid_context: None, kid: Some(kid.to_vec()) };
            let mut message = notation::message("CON [MID=2, TOK=0x02], POST");
            message.options.push(OptionNumber::OSCORE, header.encode());
            block.into_iter().for_each(|number| message.options.push(number, [0x02]));
            message.payload = payload.to_vec().into();
            gateway.handle(
                Address { remote: ([203, 0, 113, 9], 5683).into(), ..OTHER },
                &message.encode(),
                at(0),
            );
            let said: Vec<_> = std::iter::from_fn(|| gateway.poll_datagram()).collect();
            assert_eq!(said.len(), 1, "{what}");
            Message::decode(&said[0].1).unwrap()
        });
        assert_eq!(known, unknown, "{what}");
        assert_eq!((known.kind, known.code, known.payload.len()), (Kind::Acknowledgement, code, 0), "{what}");
    }
}
