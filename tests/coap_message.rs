//! CoAP messages against the figures of their RFCs, against what must be refused, and against arbitrary bytes.
//!
//! The vectors are data: `tests/vectors/coap/*.txt`, the first line of each naming its source.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use lowband::coap::Code;
use lowband::coap::DecodeError;
use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::MessageId;
use lowband::coap::OptionNumber;
use lowband::coap::Options;
use lowband::coap::Token;
use proptest::prelude::*;

const MESSAGES: [&str; 5] = [
    "rfc7252-appendix-a.txt",
    "rfc7252-appendix-b.txt",
    "rfc7641-appendix-a.txt",
    "rfc7959-section-3.txt",
    "go-client.txt",
];

#[test]
fn every_vector_is_decoded_to_the_fields_of_its_figure() {
    for vector in messages() {
        let message =
            Message::decode(&vector.bytes).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!(message.kind, vector.kind, "{}", vector.name);
        assert_eq!(message.code.to_string(), vector.code, "{}", vector.name);
        assert_eq!(message.id.0, vector.id, "{}", vector.name);
        assert_eq!(message.token.as_slice(), vector.token, "{}", vector.name);
        let options: Vec<_> = message.options.iter().map(|(n, value)| (n.0, value.to_vec())).collect();
        assert_eq!(options, vector.options, "{}", vector.name);
        assert_eq!(message.payload, vector.payload, "{}", vector.name);
    }
}

#[test]
fn every_vector_is_encoded_from_its_fields_alone() {
    for vector in messages() {
        let (class, detail) = vector.code.split_once('.').unwrap();
        let mut options = Options::new();
        // Backwards where order does not matter: the encoder sorts by number.
        let mut numbers: Vec<u16> = vector.options.iter().map(|(number, _)| *number).collect();
        numbers.dedup();
        for number in numbers.into_iter().rev() {
            for (_, value) in vector.options.iter().filter(|(other, _)| *other == number) {
                options.push(OptionNumber(number), value.clone());
            }
        }
        let message = Message {
            kind: vector.kind,
            code: Code::new(class.parse().unwrap(), detail.parse().unwrap()),
            id: MessageId(vector.id),
            token: Token::new(&vector.token).unwrap(),
            options,
            payload: vector.payload.into(),
        };
        assert_eq!(hex(&message.encode()), hex(&vector.bytes), "{}", vector.name);
    }
}

#[test]
fn figures_16_and_17_have_the_sizes_that_the_rfc_states() {
    let sizes: Vec<_> =
        read_messages("rfc7252-appendix-a.txt").iter().take(4).map(|v| v.bytes.len()).collect();
    assert_eq!(sizes, [16, 11, 17, 12]);
}

#[test]
fn every_prefix_of_every_vector_is_an_error_or_a_message_that_is_encoded_to_the_same_bytes() {
    for vector in messages() {
        for end in 0..vector.bytes.len() {
            let prefix = &vector.bytes[..end];
            if let Ok(message) = Message::decode(prefix) {
                assert_eq!(hex(&message.encode()), hex(prefix), "{}, first {end} bytes", vector.name);
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_every_vector_is_an_error_or_a_message_that_is_encoded_to_the_same_bytes() {
    for vector in messages() {
        for bit in 0..vector.bytes.len() * 8 {
            let mut bytes = vector.bytes.clone();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            if let Ok(message) = Message::decode(&bytes) {
                assert_eq!(hex(&message.encode()), hex(&bytes), "{}, bit {bit}", vector.name);
            }
        }
    }
}

#[test]
fn malformed_datagrams_are_refused_and_reset_only_where_a_reset_is_owed() {
    let vectors = read_malformed();
    assert!(vectors.len() > 40);
    for vector in vectors {
        let error = Message::decode(&vector.bytes).expect_err(&vector.name);
        let reset = error.reset().map(|reset| hex(&reset.encode()));
        assert_eq!(reset, vector.reset.map(|id| format!("7000{id:04x}")), "{}: {error}", vector.name);
    }
}

#[test]
fn reserved_token_lengths_are_refused_whatever_follows() {
    for length in 9..=15 {
        let mut datagram = vec![0x40 | length, 1, 0x12, 0x34];
        for _ in 0..40 {
            let error = Message::decode(&datagram).unwrap_err();
            assert_eq!(error.to_string(), format!("token length {length} is reserved"));
            datagram.push(0);
        }
    }
}

#[test]
fn an_option_may_have_the_highest_number_and_the_longest_value_that_a_datagram_holds() {
    let highest = bytes("40 01 1234 e0 fef2");
    let message = Message::decode(&highest).unwrap();
    assert_eq!(message.options.iter().next(), Some((OptionNumber(65_535), &[][..])));

    let mut longest = bytes("40 01 1234");
    let length = Message::MAX_SIZE - 4 - 3;
    longest.push(0xbe);
    longest.extend(u16::try_from(length - 269).unwrap().to_be_bytes());
    longest.extend(vec![b'x'; length]);
    let message = Message::decode(&longest).unwrap();
    assert_eq!(message.options.get(OptionNumber::URI_PATH).unwrap().len(), length);
    assert_eq!(message.encode(), longest);
}

#[test]
fn an_option_value_that_looks_like_a_payload_marker_is_a_value() {
    let message = Message::decode(&bytes("40 01 1234 b2 ffff")).unwrap();
    assert_eq!(message.options.get(OptionNumber::URI_PATH), Some(&[0xff, 0xff][..]));
    assert!(message.payload.is_empty());
}

#[test]
fn a_payload_may_be_markers() {
    let message = Message::decode(&bytes("40 02 1234 ff ffff")).unwrap();
    assert_eq!(message.payload, &[0xff, 0xff][..]);
}

#[test]
fn an_acknowledgement_with_code_0_00_and_a_payload_is_read_as_deployed_servers_send_it() {
    let datagram = bytes("61 00 1234 aa c1 3c ff a1 18 66 60");
    let message = Message::decode(&datagram).unwrap();
    assert_eq!((message.kind, message.code), (Kind::Acknowledgement, Code::EMPTY));
    assert_eq!(message.token.as_slice(), [0xaa]);
    assert_eq!(message.payload, &[0xa1, 0x18, 0x66, 0x60][..]);
    assert!(!message.is_empty());
    assert_eq!(hex(&message.encode()), hex(&datagram));
}

#[test]
fn a_ping_is_a_message() {
    let ping = Message::decode(&bytes("40 00 1234")).unwrap();
    assert_eq!(ping, Message::empty(Kind::Confirmable, MessageId(0x1234)));
    assert!(ping.is_empty());
}

/// Encoding has one form only, so whatever decodes is encoded to itself.
fn assert_decodes_to_itself(datagram: &[u8]) -> Result<(), DecodeError> {
    let message = Message::decode(datagram)?;
    assert_eq!(hex(&message.encode()), hex(datagram));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_is_decoded_from_what_it_was_encoded_to(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_are_an_error_or_a_message_that_is_encoded_to_the_same_bytes(
        datagram in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = assert_decodes_to_itself(&datagram);
    }

    #[test]
    fn arbitrary_bytes_after_a_sound_header_are_an_error_or_a_message_that_is_encoded_to_the_same_bytes(
        kind in 0_u8..4,
        code in prop::sample::select(vec![0, 1, 2, 0x45, 0x84]),
        rest in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), 0_u8..0x20, 0xd0_u8..], 0..40),
    ) {
        let mut datagram = vec![0x40 | kind << 4, code, 0x12, 0x34];
        datagram.extend(rest);
        let _ = assert_decodes_to_itself(&datagram);
    }

    #[test]
    fn a_damaged_message_is_an_error_or_a_message_that_is_encoded_to_the_same_bytes(
        message in message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        end in any::<prop::sample::Index>(),
    ) {
        let mut datagram = message.encode();
        let at = at.index(datagram.len());
        datagram[at] = byte;
        datagram.truncate(end.index(datagram.len() + 1));
        let _ = assert_decodes_to_itself(&datagram);
    }

    #[test]
    fn what_is_refused_is_reset_only_if_it_was_confirmable_and_of_version_1(
        datagram in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        if let Err(error) = Message::decode(&datagram) {
            let owed = datagram.len() >= 4 && datagram[0] >> 4 == 4;
            prop_assert_eq!(error.reset().is_some(), owed);
            if let Some(reset) = error.reset() {
                prop_assert_eq!(reset.encode(), [0x70, 0, datagram[2], datagram[3]]);
            }
        }
    }
}

/// Any message that RFC 7252 allows: an empty one, or a request or a response of a fitting type.
fn message() -> impl Strategy<Value = Message> {
    let request = (prop::sample::select(vec![Kind::Confirmable, Kind::NonConfirmable]), 1_u8..32);
    let response = (
        prop::sample::select(vec![Kind::Confirmable, Kind::NonConfirmable, Kind::Acknowledgement]),
        (prop::sample::select(vec![2, 4, 5]), 0_u8..32).prop_map(|(class, detail)| class << 5 | detail),
    );
    let number = prop_oneof![
        prop::sample::select(vec![0, 11, 12, 13, 15, 256, 257, 268, 269, 281, 282, 65_000, 65_535]),
        any::<u16>()
    ];
    let value = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..30),
        1 => prop::collection::vec(any::<u8>(), 255..300),
    ];
    let full = (
        prop_oneof![request, response],
        prop::collection::vec(any::<u8>(), 0..9),
        prop::collection::vec((number, value), 0..12),
        prop::collection::vec(any::<u8>(), 0..100),
    );
    let empty = prop::sample::select(vec![Kind::Confirmable, Kind::Acknowledgement, Kind::Reset]);
    (prop_oneof![9 => full.prop_map(Some), 1 => Just(None)], empty, any::<u16>()).prop_map(
        |(full, empty, id)| {
            let Some(((kind, code), token, options, payload)) = full else {
                return Message::empty(empty, MessageId(id));
            };
            Message {
                kind,
                code: Code(code),
                id: MessageId(id),
                token: Token::new(&token).unwrap(),
                options: options.into_iter().map(|(number, value)| (OptionNumber(number), value)).collect(),
                payload: payload.into(),
            }
        },
    )
}

struct Vector {
    name: String,
    bytes: Vec<u8>,
    kind: Kind,
    code: String,
    id: u16,
    token: Vec<u8>,
    options: Vec<(u16, Vec<u8>)>,
    payload: Vec<u8>,
}

struct MalformedVector {
    name: String,
    bytes: Vec<u8>,
    reset: Option<u16>,
}

fn messages() -> Vec<Vector> {
    let vectors: Vec<_> = MESSAGES.iter().flat_map(|file| read_messages(file)).collect();
    assert!(vectors.len() > 100);
    vectors
}

fn read_messages(file: &str) -> Vec<Vector> {
    entries(file, "message")
        .into_iter()
        .map(|(name, lines)| {
            let mut vector = Vector {
                name: format!("{file}: {name}"),
                bytes: Vec::new(),
                kind: Kind::Reset,
                code: String::new(),
                id: 0,
                token: Vec::new(),
                options: Vec::new(),
                payload: Vec::new(),
            };
            for (field, value) in lines {
                match field.as_str() {
                    "bytes" => vector.bytes = bytes(&value),
                    "header" => (vector.kind, vector.code, vector.id) = header(&value),
                    "token" => vector.token = bytes(&value),
                    "option" => vector.options.push(option(&value)),
                    "payload" => vector.payload = text_or_bytes(&value),
                    _ => panic!("{}: {field}", vector.name),
                }
            }
            vector
        })
        .collect()
}

fn read_malformed() -> Vec<MalformedVector> {
    entries("malformed.txt", "datagram")
        .into_iter()
        .map(|(name, lines)| {
            let field = |field: &str| lines.iter().find(|(other, _)| other == field).unwrap().1.clone();
            let reset = match field("owed").as_str() {
                "nothing" => None,
                owed => Some(u16::from_str_radix(owed.strip_prefix("reset ").unwrap(), 16).unwrap()),
            };
            MalformedVector { name, bytes: bytes(&field("bytes")), reset }
        })
        .collect()
}

/// The entries of a file: each begins with a line `start NAME`, and has lines `FIELD VALUE`.
fn entries(file: &str, start: &str) -> Vec<(String, Vec<(String, String)>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/coap").join(file);
    let text = fs::read_to_string(path).unwrap();
    let mut entries: Vec<(String, Vec<_>)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (field, value) = line.split_once(' ').unwrap_or((line, ""));
        if field == start {
            entries.push((value.to_owned(), Vec::new()));
        } else {
            entries.last_mut().unwrap().1.push((field.to_owned(), value.to_owned()));
        }
    }
    entries
}

/// `CON 0.01 7d34`.
fn header(value: &str) -> (Kind, String, u16) {
    let [kind, code, id] = value.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let kind = match kind {
        "CON" => Kind::Confirmable,
        "NON" => Kind::NonConfirmable,
        "ACK" => Kind::Acknowledgement,
        "RST" => Kind::Reset,
        _ => panic!("{kind}"),
    };
    (kind, code.to_owned(), u16::from_str_radix(id, 16).unwrap())
}

/// `11 text temperature`, `6 uint 62350`, `23 block NUM/M/SIZE`, `4 hex 6f00f38e`, `11 empty`.
fn option(value: &str) -> (u16, Vec<u8>) {
    let (number, value) = value.split_once(' ').unwrap();
    let (format, value) = value.split_once(' ').unwrap_or((value, ""));
    let value = match format {
        "text" => value.as_bytes().to_vec(),
        "hex" => bytes(value),
        "uint" => fewest_bytes(value.parse().unwrap()),
        "block" => {
            let [num, more, size] = value
                .split('/')
                .map(|part| part.parse::<u32>().unwrap())
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            // RFC 7959 §2.2: the size is 2 to the power of SZX + 4.
            fewest_bytes(num << 4 | more << 3 | (size.ilog2() - 4))
        }
        "empty" => Vec::new(),
        _ => panic!("{format}"),
    };
    (number.parse().unwrap(), value)
}

fn fewest_bytes(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    bytes[(number.leading_zeros() / 8) as usize..].to_vec()
}

/// `"22.3 C"`, or bytes.
fn text_or_bytes(value: &str) -> Vec<u8> {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(text) => text.as_bytes().to_vec(),
        None => bytes(value),
    }
}

/// Hexadecimal in groups; `64*128` is 128 times the byte 64.
fn bytes(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .flat_map(|group| {
            let (group, count) = group.split_once('*').unwrap_or((group, "1"));
            let bytes: Vec<u8> = (0..group.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&group[at..at + 2], 16).unwrap())
                .collect();
            bytes.repeat(count.parse().unwrap())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
