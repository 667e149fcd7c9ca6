//! The whole explanation of one datagram.

use serde::Serialize;

use super::option::OptionField;
use super::payload::Payload;
use super::protection::Protection;
use super::secret::Secrets;
use super::wire::Wire;
use super::wire::WireOption;
use crate::coap::Code;
use crate::coap::DecodeError;
use crate::coap::Message;
use crate::coap::OptionNumber;
use crate::coap::Options;
use crate::matrix::expand;
use crate::matrix::expand_query;
use crate::security::oscore::Reader;
use base16ct::lower::encode_string as hex;

/// Explains one datagram, up to where it breaks.
///
/// ```
/// use lowband::inspect::Secrets;
///
/// let sync = [0x40, 0x01, 0x12, 0x34, 0xb1, 0x37];
/// let explanation = lowband::inspect::explain(&sync, Secrets::Hidden);
/// assert_eq!(explanation.meaning.request.unwrap().path, "/_matrix/client/v3/sync");
/// ```
pub fn explain(datagram: &[u8], secrets: Secrets) -> Explanation {
    explain_with(None, datagram, secrets)
}

/// Explains one datagram of a conversation whose protected messages are read with the keys of a device, if there are any.
pub fn explain_with(reader: Option<&mut Reader>, datagram: &[u8], secrets: Secrets) -> Explanation {
    let wire = Wire::read(datagram);
    let decoded = Message::decode(datagram);
    let header = wire.header.map(Header::read);
    let code = Code(header.as_ref().map_or(0, |header| header.code_byte));
    let options: Options =
        wire.options.iter().map(|option| (OptionNumber(option.number), option.value)).collect();
    let payload = wire.payload.map(|payload| {
        let at = datagram.len() - payload.len();
        Payload::read(at, payload, &options, secrets)
    });
    let protection = decoded.as_ref().ok().and_then(|message| Protection::read(message, reader, secrets));
    Explanation {
        meaning: Meaning::read(header.as_ref(), &options, secrets),
        protection,
        fault: decoded.err().map(|error| Fault::new(&error, &wire)),
        token: hex(wire.token),
        options: read_options(&wire.options, code, secrets),
        sizes: Sizes::count(datagram.len(), &wire),
        header,
        payload,
    }
}

/// One datagram, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The first four bytes; none where there are fewer.
    pub header: Option<Header>,
    /// The token, in hexadecimal.
    pub token: String,
    /// The options, as they stand in the datagram.
    pub options: Vec<OptionField>,
    /// What follows the payload marker.
    pub payload: Option<Payload>,
    /// What the message is for.
    pub meaning: Meaning,
    /// What is protected in it, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// Why it is no message, and what its sender is owed.
    pub fault: Option<Fault>,
    /// Its bytes, layer by layer.
    pub sizes: Sizes,
}

/// The first four bytes of a message (RFC 7252 §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// The four bytes, in hexadecimal.
    pub bytes: String,
    /// 1.
    pub version: u8,
    /// `CON`, `NON`, `ACK` or `RST`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The length of the token, in bytes.
    pub token_length: u8,
    /// The code, `c.dd`.
    pub code: String,
    /// The method's or the response's name.
    pub name: Option<&'static str>,
    /// What an acknowledgement or a reset answers.
    pub message_id: u16,
    #[serde(skip)]
    pub(super) code_byte: u8,
}

impl Header {
    fn read(bytes: [u8; 4]) -> Self {
        let [first, code, high, low] = bytes;
        Self {
            bytes: hex(&bytes),
            version: first >> 6,
            kind: match first >> 4 & 3 {
                0 => "CON",
                1 => "NON",
                2 => "ACK",
                _ => "RST",
            },
            token_length: first & 0xf,
            code: Code(code).to_string(),
            name: Code(code).name(),
            message_id: u16::from_be_bytes([high, low]),
            code_byte: code,
        }
    }
}

/// Why a datagram is no message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where reading stopped, in bytes from 0; none where all of it could be read and means nothing.
    pub at: Option<usize>,
    /// What is wrong there.
    pub reason: String,
    /// Whether the sender is owed a reset (RFC 7252 §4.2); otherwise the datagram is ignored.
    pub reset: bool,
}

impl Fault {
    fn new(error: &DecodeError, wire: &Wire<'_>) -> Self {
        Self {
            at: wire.broken.as_ref().map(|broken| broken.at),
            reason: wire.broken.as_ref().map_or(error.to_string(), |broken| broken.reason.clone()),
            reset: error.reset().is_some(),
        }
    }
}

/// What a message is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Meaning {
    /// Its part in an exchange, in words.
    pub role: &'static str,
    /// What it asks of Matrix; none where that is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<MatrixRequest>,
}

/// What a request asks of Matrix, as a gateway passes it on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MatrixRequest {
    /// The HTTP method.
    pub method: &'static str,
    /// The HTTP path; empty where the options mean none.
    pub path: String,
    /// The HTTP query, without its question mark.
    pub query: String,
    /// The operation of the Matrix API, where the table of routes has it.
    pub operation: Option<&'static str>,
    /// Why the options mean no path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Meaning {
    fn read(header: Option<&Header>, options: &Options, secrets: Secrets) -> Self {
        let Some(header) = header else { return Self::default() };
        let code = Code(header.code_byte);
        let observe = options.get(OptionNumber::OBSERVE).is_some();
        // RFC 7252 §4.2, §4.3, §5.2; RFC 7641 §3.2.
        let role = match (header.kind, code) {
            ("RST", _) => "rejects the message of this ID",
            ("CON", Code::EMPTY) => "asks whether its receiver is there, which a reset answers",
            ("ACK", Code::EMPTY) => "acknowledges the message of this ID",
            ("ACK", code) if code.is_response() => "acknowledges the message of this ID and answers it",
            ("CON", code) if code.is_request() && observe => {
                "asks about an observation, and to be acknowledged"
            }
            ("CON", code) if code.is_request() => "asks, and to be acknowledged",
            ("NON", code) if code.is_request() => "asks, without an acknowledgement",
            ("CON", code) if code.is_response() && observe => {
                "notifies the observer of this token, and asks to be acknowledged"
            }
            ("NON", code) if code.is_response() && observe => "notifies the observer of this token",
            ("CON", code) if code.is_response() => {
                "answers the request of this token, and asks to be acknowledged"
            }
            ("NON", code) if code.is_response() => "answers the request of this token",
            _ => "means nothing",
        };
        let is_clear = options.get(OptionNumber::OSCORE).is_none();
        let is_request =
            is_clear && code.is_request() && matches!(header.kind, "CON" | "NON") && header.version == 1;
        Self { role, request: is_request.then(|| MatrixRequest::read(code, options, secrets)) }
    }
}

impl MatrixRequest {
    fn read(code: Code, options: &Options, secrets: Secrets) -> Self {
        let method = code.name().unwrap_or_default();
        let query = match texts(options, OptionNumber::URI_QUERY) {
            Some(query) => query,
            None => {
                return Self {
                    method,
                    problem: Some("a Uri-Query is not UTF-8".to_owned()),
                    ..Self::default()
                };
            }
        };
        let hidden: Vec<_> = query.iter().map(|query| secrets.hide_query(query)).collect();
        let hidden: Vec<&str> = hidden.iter().map(AsRef::as_ref).collect();
        let blank = Self { method, query: expand_query(&hidden), ..Self::default() };
        let Some(segments) = texts(options, OptionNumber::URI_PATH) else {
            return Self { problem: Some("a Uri-Path is not UTF-8".to_owned()), ..blank };
        };
        match expand(method, &segments) {
            Ok(target) => {
                let operation = target.route.map(|route| route.operation);
                Self { path: target.path, operation, ..blank }
            }
            Err(error) => Self { problem: Some(error.to_string()), ..blank },
        }
    }
}

fn texts(options: &Options, number: OptionNumber) -> Option<Vec<&str>> {
    options.all(number).map(|value| std::str::from_utf8(value).ok()).collect()
}

/// The bytes of a datagram, layer by layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sizes {
    /// The header: 4, or less in a datagram that is shorter.
    pub header: usize,
    /// The token.
    pub token: usize,
    /// The options.
    pub options: usize,
    /// The payload marker and the payload.
    pub payload: usize,
    /// What stands after the place where a malformed datagram breaks.
    pub unread: usize,
    /// All of these.
    pub datagram: usize,
    /// The datagram at 100 bit/s, in seconds.
    pub seconds: f64,
    /// The headers of IPv4 (20) and UDP (8).
    pub ip_udp: usize,
    /// The datagram and these headers at 100 bit/s, in seconds.
    pub seconds_with_ip_udp: f64,
}

impl Sizes {
    /// IPv4's header without options, and UDP's.
    const IP_UDP: usize = 28;
    const BITS_PER_SECOND: f64 = 100.0;

    fn count(datagram: usize, wire: &Wire<'_>) -> Self {
        let header = wire.header.map_or(0, |header| header.len());
        let token = wire.token.len();
        let options = wire.options.iter().map(|option| option.head.len() + option.value.len()).sum();
        let payload = wire.payload.map_or(0, |payload| payload.len() + 1);
        let seconds = |bytes: usize| bytes as f64 * 8.0 / Self::BITS_PER_SECOND;
        Self {
            header,
            token,
            options,
            payload,
            unread: datagram - header - token - options - payload,
            datagram,
            seconds: seconds(datagram),
            ip_udp: Self::IP_UDP,
            seconds_with_ip_udp: seconds(datagram + Self::IP_UDP),
        }
    }
}

fn read_options(options: &[WireOption<'_>], code: Code, secrets: Secrets) -> Vec<OptionField> {
    let mut previous = None;
    options
        .iter()
        .map(|option| {
            // Options stand in the order of their numbers.
            let repeated = previous.replace(option.number) == Some(option.number);
            OptionField::read(option, code, repeated, secrets)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_datagrams_are_explained(
            header in prop_oneof![Just([0x41, 2, 0, 1, 9]), any::<[u8; 5]>()],
            rest in prop::collection::vec(prop_oneof![any::<u8>(), 0xb0_u8..0xb8, Just(0xff)], 0..60),
        ) {
            let datagram = [&header[..], &rest].concat();
            for secrets in [Secrets::Hidden, Secrets::Shown] {
                let explanation = explain(&datagram, secrets);
                prop_assert_eq!(explanation.fault.is_none(), Message::decode(&datagram).is_ok());
                // What is protected is said after the air time.
                let text = explanation.to_string();
                prop_assert!(text.ends_with(" s\n") || explanation.protection.is_some() && text.contains(" s\n"));
                prop_assert!(serde_json::to_string(&explanation).is_ok());
            }
        }
    }

    #[test]
    fn bytes_of_all_layers_add_up_also_where_a_datagram_breaks() {
        let datagram = [0x41, 1, 0, 1, 0xaa, 0xb1, 0x37, 0x11, 0x2a, 0xff, 9];
        for end in 0..=datagram.len() {
            let sizes = explain(&datagram[..end], Secrets::Hidden).sizes;
            let sum = sizes.header + sizes.token + sizes.options + sizes.payload + sizes.unread;
            assert_eq!((sum, sizes.datagram), (end, end));
        }
        let sizes = explain(&datagram, Secrets::Hidden).sizes;
        assert_eq!((sizes.header, sizes.token, sizes.options, sizes.payload), (4, 1, 4, 2));
        assert_eq!((sizes.seconds, sizes.seconds_with_ip_udp), (0.88, 3.12));
    }

    #[test]
    fn every_message_that_can_be_decoded_has_no_fault_and_every_other_has_one() {
        for first in 0..=255 {
            for code in [0, 1, 0x21, 0x45] {
                for rest in [&[][..], &[0xaa], &[0xb1, 0x37], &[0xff], &[0xff, 1]] {
                    let datagram = [&[first, code, 0x12, 0x34], rest].concat();
                    let fault = explain(&datagram, Secrets::Hidden).fault;
                    assert_eq!(fault.is_none(), Message::decode(&datagram).is_ok(), "{datagram:02x?}");
                }
            }
        }
    }

    #[test]
    fn a_path_that_means_nothing_says_why() {
        let request = explain(&[0x40, 1, 0, 1, 0xb1, b'?'], Secrets::Hidden).meaning.request.unwrap();
        assert_eq!(request.path, "");
        assert_eq!(request.problem.unwrap(), "path code '?' is unknown");
    }
}
