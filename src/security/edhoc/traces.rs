//! RFC 9529: the trace of method 3 byte for byte, and the invalid traces.
//!
//! They are here, and not under `tests/`, because nobody outside may say what the ephemeral keys are.

use lakers::CryptoTrait as _;

use super::connection::ConnectionId;
use super::credential::{Credential, Identity};
use super::error::Refusal;
use super::handshake::{self, Waiting};
use super::key::KeyPair;
use super::message::{self, Message1};
use super::primitives::Primitives;

const VALID: &str = include_str!("../../../tests/vectors/edhoc/rfc9529-section-3.txt");
const INVALID: &str = include_str!("../../../tests/vectors/edhoc/rfc9529-section-4.txt");

#[test]
fn both_ends_say_what_the_trace_says() {
    let refused = Message1::decode(&field("message-1-of-suite-6")).unwrap_err();
    assert_eq!((refused, refused.message().encode()), (Refusal::Suite, field("error")));
    let (begun, message_1) = handshake::begin(&key("x"), &[6, 2], &id("c-i"));
    assert_eq!(message_1, field("message-1"));
    assert_eq!(key("x").public().x().as_slice(), field("g-x"));
    assert_eq!(key("y").public().x().as_slice(), field("g-y"));

    let (mut waiting, message_2) = responder(&message_1);
    assert_eq!(message_2, field("message-2"));
    let responder = credential("cred-r");
    let mut finished = begun.receive_2(&message_2, &identity("i", "cred-i"), &responder).unwrap();
    assert_eq!(finished.message, field("message-3"));
    assert_eq!(finished.c_r, id("c-r"));

    let authenticated = waiting.receive_3(&finished.message, [&credential("cred-i")]).unwrap();
    assert_eq!(authenticated.kid, [0x2b]);
    assert_eq!(authenticated.message_4, field("message-4"));
    finished.confirmation.receive_4(&authenticated.message_4).unwrap();

    let (client, server) = (finished.parameters, authenticated.parameters);
    assert_eq!((client.sender_id.as_slice(), client.recipient_id.as_slice()), (&[0x27][..], &[0x37][..]));
    assert_eq!((server.sender_id.as_slice(), server.recipient_id.as_slice()), (&[0x37][..], &[0x27][..]));
    for parameters in [client, server] {
        assert_eq!(parameters.master_secret.expose(), field("oscore-secret"));
        assert_eq!(parameters.master_salt.expose(), field("oscore-salt"));
        assert_eq!(parameters.validate(), Ok(()));
    }
}

#[test]
fn what_the_invalid_traces_say_is_refused() {
    let mut refused = Vec::new();
    for line in INVALID.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split(' ');
        let [section, kind, digits] = std::array::from_fn(|_| columns.next().unwrap());
        let bytes = hex(digits);
        match kind {
            "message-1" => refused.push((section, Message1::decode(&bytes).unwrap_err())),
            "message-2" => refused.push((section, message::ciphertext_2(&bytes).unwrap_err())),
            "plaintext-2" => assert!(!message::is_plaintext_2(&bytes), "{section}"),
            other => panic!("{other}"),
        }
    }
    let is = |wanted: Refusal| {
        refused
            .iter()
            .filter(|(_, refusal)| *refusal == wanted)
            .map(|(section, _)| *section)
            .collect::<Vec<_>>()
    };
    assert_eq!(is(Refusal::Point), ["4.2.2", "4.2.3"]);
    assert_eq!(is(Refusal::Suite), ["4.2.1", "4.2.4"]);
    assert_eq!(is(Refusal::Malformed).len() + 4, refused.len());
}

#[test]
fn a_message_changed_in_any_bit_or_cut_short_or_lengthened_is_refused_and_changes_nothing() {
    let (begun, message_1) = handshake::begin(&key("x"), &[6, 2], &id("c-i"));
    let (own, peer) = (identity("i", "cred-i"), credential("cred-r"));
    let message_2 = field("message-2");
    for wrong in variants(&message_2) {
        assert!(begun.receive_2(&wrong, &own, &peer).is_err(), "{wrong:02x?}");
    }
    let mut finished = begun.receive_2(&message_2, &own, &peer).unwrap();
    let (mut waiting, _) = responder(&message_1);
    let known = credential("cred-i");
    for wrong in variants(&finished.message) {
        assert!(waiting.receive_3(&wrong, [&known]).is_err(), "{wrong:02x?}");
    }
    let done = waiting.receive_3(&finished.message, [&known]).unwrap();
    for wrong in variants(&done.message_4) {
        assert!(finished.confirmation.receive_4(&wrong).is_err(), "{wrong:02x?}");
    }
    finished.confirmation.receive_4(&done.message_4).unwrap();
}

#[test]
fn others_than_those_expected_are_refused() {
    let (begun, message_1) = handshake::begin(&key("x"), &[2], &id("c-i"));
    let (mut waiting, message_2) = responder(&message_1);
    let own = identity("i", "cred-i");
    assert_eq!(
        begun.receive_2(&message_2, &own, &credential("cred-i")).err(),
        Some(Refusal::UnknownCredential)
    );
    let other = Credential::new("", &[0x32], KeyPair::generate([1; 32]).public()).unwrap();
    assert_eq!(begun.receive_2(&message_2, &own, &other).err(), Some(Refusal::Forged));
    let finished = begun.receive_2(&message_2, &own, &credential("cred-r")).unwrap();
    let other = Credential::new("", &[0x2b], KeyPair::generate([1; 32]).public()).unwrap();
    assert_eq!(waiting.receive_3(&finished.message, []).err(), Some(Refusal::UnknownCredential));
    assert_eq!(waiting.receive_3(&finished.message, [&other]).err(), Some(Refusal::Forged));
    let read = Message1::decode(&message_1).unwrap();
    let (own, c_i) = (identity("r", "cred-r"), id("c-i"));
    let same = handshake::answer((&message_1, read), &own, &c_i, &key("y"));
    assert_eq!(same.err(), Some(Refusal::SameIds));
}

#[test]
fn what_lakers_cannot_read_never_reaches_it() {
    // An array of no suites; a connection identifier longer than there is room for; one beyond the end.
    for wrong in
        ["039800", &message_1_with("5700112233445566778899aabbccddeeff00112233445566"), &message_1_with("57")]
    {
        assert_eq!(Message1::decode(&hex(wrong)), Err(Refusal::Malformed), "{wrong}");
    }
    // Data that need not be understood; data that must be; padding.
    assert!(Message1::decode(&hex(&message_1_with("3718ff43aabbcc01"))).is_ok());
    assert_eq!(Message1::decode(&hex(&message_1_with("3720"))), Err(Refusal::CriticalData));
    assert!(Message1::decode(&hex(&message_1_with("37004100"))).is_ok());
    // Nested further than a byte can count.
    for wrong in ["27b8ff", "2798ffa0", "2741324800", "27a10ea0"] {
        assert!(!message::is_plaintext_2(&hex(wrong)), "{wrong}");
    }
    // A length that is not there, one without a tag, and one that is longer than it need be.
    for wrong in ["58ff00", "47fa5efa2ebf920b", "5808fa5efa2ebf920bf3", "", "40"] {
        assert!(!message::is_ciphertext(&hex(wrong)), "{wrong}");
    }
}

#[test]
fn what_was_decrypted_is_checked_before_lakers_reads_it() {
    let (key, iv) = ([1; 16], [2; 13]);
    let sealed = |plaintext: &[u8]| {
        let plaintext = lakers::BufferPlaintext3::new_from_slice(plaintext).unwrap();
        Primitives::Plain.aes_ccm_encrypt_tag_8(&key, &iv, b"aad", &plaintext)
    };
    let opens = |mut primitives: Primitives<'_>, plaintext: &[u8]| {
        primitives.aes_ccm_decrypt_tag_8(&key, &iv, b"aad", &sealed(plaintext)).is_ok()
    };
    let plaintext_3 = hex("2b48623c91df41e34c2f");
    assert!(opens(Primitives::Opening3, &plaintext_3));
    assert!(!opens(Primitives::Opening4, &plaintext_3) && !opens(Primitives::Plain, &plaintext_3));
    // A credential by value, nested maps, and more data than there is room for.
    let long = [plaintext_3.as_slice(), &[1, 0x58, 62], &[0; 62]].concat();
    let by_value = hex("a10ea048623c91df41e34c2f");
    for wrong in [&by_value, &hex("b8ff48623c91df41e34c2f"), &long, &hex("2b47623c91df41e34c")] {
        assert!(!opens(Primitives::Opening3, wrong), "{wrong:02x?}");
    }
    assert!(opens(Primitives::Opening3, &[plaintext_3.as_slice(), &[1, 0x58, 61], &[0; 61]].concat()));
    assert!(opens(Primitives::Opening4, b"") && opens(Primitives::Opening4, b"\x01\x41\x00"));
}

fn message_1_with(rest: &str) -> String {
    format!("03025820741a13d7ba048fbb615e94386aa3b61bea5b3d8f65f32620b749bee8d278efa9{rest}")
}

fn responder(message_1: &[u8]) -> (Waiting, Vec<u8>) {
    let read = Message1::decode(message_1).unwrap();
    let (own, c_r, ephemeral) = (identity("r", "cred-r"), id("c-r"), key("y"));
    handshake::answer((message_1, read), &own, &c_r, &ephemeral).unwrap()
}

/// Each bit turned, each prefix, and one byte more.
fn variants(message: &[u8]) -> Vec<Vec<u8>> {
    let turned = (0..message.len() * 8).map(|bit| {
        let mut turned = message.to_vec();
        turned[bit / 8] ^= 1 << (bit % 8);
        turned
    });
    let prefixes = (0..message.len()).map(|length| message[..length].to_vec());
    turned.chain(prefixes).chain([[message, &[0]].concat()]).collect()
}

fn field(name: &str) -> Vec<u8> {
    let value = VALID.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    hex(value.unwrap())
}

fn key(name: &str) -> KeyPair {
    KeyPair::from_private(&field(name)).unwrap()
}

fn id(name: &str) -> ConnectionId {
    ConnectionId::new(&field(name)).unwrap()
}

fn credential(name: &str) -> Credential {
    Credential::from_ccs(&field(name)).unwrap()
}

fn identity(private: &str, name: &str) -> Identity {
    Identity::new(key(private), credential(name)).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
