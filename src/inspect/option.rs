//! What one option says (RFC 7252 §5.4, §5.10; RFC 7641 §2; RFC 7959 §2.2; MSC3079).

use serde::Serialize;

use super::secret::Secrets;
use super::wire::WireOption;
use super::wire::bytes;
use crate::coap::Code;
use crate::coap::OptionFormat;
use crate::coap::OptionNumber;
use crate::coap::content_format;
use crate::coap::read_uint;
use crate::security::oscore::Header;
use base16ct::lower::encode_string as hex;

/// One option, named and read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OptionField {
    /// Its place in the datagram, in bytes from 0.
    pub at: usize,
    /// Its number.
    pub number: u16,
    /// Its name; none where the number is not known here.
    pub name: Option<&'static str>,
    /// Whether an endpoint that does not know it must refuse the message.
    pub critical: bool,
    /// Whether a proxy that does not know it must not forward it.
    #[serde(rename = "unsafe")]
    pub is_unsafe: bool,
    /// The bytes of delta and length, in hexadecimal.
    pub head: String,
    /// The bytes of the value, in hexadecimal; none where it is hidden.
    pub value: Option<String>,
    /// All its bytes, counted.
    pub size: usize,
    /// The value, read by the option's format.
    pub text: String,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl OptionField {
    /// Reads the option that `code`'s message carries; `repeated` where one of its number stands before it.
    pub(super) fn read(option: &WireOption<'_>, code: Code, repeated: bool, secrets: Secrets) -> Self {
        let number = OptionNumber(option.number);
        let hidden = number == OptionNumber::ACCESS_TOKEN && secrets == Secrets::Hidden;
        let query = (number == OptionNumber::URI_QUERY).then(|| String::from_utf8_lossy(option.value));
        let shown = query.as_ref().map(|query| secrets.hide_query(query));
        let hidden = hidden || shown != query;
        let text = match shown {
            Some(shown) if hidden => format!("{shown:?}"),
            _ if hidden => format!("({} hidden)", bytes(option.value.len())),
            _ => read(number, option.value, code),
        };
        Self {
            at: option.at,
            number: option.number,
            name: number.definition().map(|(name, ..)| name),
            critical: number.is_critical(),
            is_unsafe: number.is_unsafe(),
            head: hex(option.head),
            value: (!hidden).then(|| hex(option.value)),
            size: option.head.len() + option.value.len(),
            text,
            problem: problem(number, option.value, repeated),
        }
    }
}

fn read(number: OptionNumber, value: &[u8], code: Code) -> String {
    if let (OptionNumber::OSCORE, Ok(header)) = (number, Header::decode(value)) {
        return read_header(&header);
    }
    let format = number.definition().map_or(OptionFormat::Opaque, |(_, format, ..)| format);
    match (format, std::str::from_utf8(value), read_uint(value)) {
        (OptionFormat::Empty, ..) if value.is_empty() => "set".to_owned(),
        (OptionFormat::String, Ok(text), _) => format!("{text:?}"),
        (OptionFormat::Uint, _, Some(uint)) => read_known_uint(number, uint, code),
        _ if value.is_empty() => "empty".to_owned(),
        _ => format!("0x{}", hex(value)),
    }
}

/// What the OSCORE option says (RFC 8613 §6.1).
fn read_header(header: &Header) -> String {
    let kid = header.kid.as_deref().map(|kid| match kid {
        [] => "kid empty".to_owned(),
        kid => format!("kid {}", hex(kid)),
    });
    let context = header.kid_context.as_deref().map(|context| format!("kid context {}", hex(context)));
    let number = header.partial_iv.map(|number| format!("Partial IV {}", number.number()));
    let parts: Vec<_> = kid.into_iter().chain(context).chain(number).collect();
    if parts.is_empty() { "the request's Partial IV".to_owned() } else { parts.join(", ") }
}

fn read_known_uint(number: OptionNumber, value: u32, code: Code) -> String {
    match number {
        OptionNumber::OBSERVE if code.is_request() => match value {
            0 => "0 register".to_owned(),
            1 => "1 deregister".to_owned(),
            _ => value.to_string(),
        },
        OptionNumber::OBSERVE => format!("{value} in the order of notifications"),
        OptionNumber::CONTENT_FORMAT | OptionNumber::ACCEPT => match media_type(value) {
            Some(name) => format!("{value} {name}"),
            None => value.to_string(),
        },
        OptionNumber::MAX_AGE => format!("{value} s"),
        OptionNumber::SIZE1 | OptionNumber::SIZE2 => bytes(value as usize),
        OptionNumber::BLOCK1 | OptionNumber::BLOCK2 | OptionNumber::Q_BLOCK1 | OptionNumber::Q_BLOCK2 => {
            block(value)
        }
        OptionNumber::NO_RESPONSE => no_response(value),
        _ => value.to_string(),
    }
}

/// RFC 7959 §2.2, §3: NUM/M/SIZE, with the size written out.
fn block(value: u32) -> String {
    let (num, more, exponent) = (value >> 4, value >> 3 & 1, value & 7);
    let follows = if more == 1 { "more follow" } else { "no more" };
    match exponent {
        // §2.2: 7 is reserved.
        7 => format!("{num}/{more}/reserved size"),
        exponent => format!("{num}/{more}/{}: block {num}, {follows}", 16_u32 << exponent),
    }
}

/// RFC 7967 §2.1: a set bit is a class of responses without interest.
fn no_response(value: u32) -> String {
    let classes: Vec<_> = [(2, "2.xx"), (8, "4.xx"), (16, "5.xx")]
        .into_iter()
        .filter_map(|(bit, class)| (value & bit != 0).then_some(class))
        .collect();
    match classes.as_slice() {
        [] => format!("{value} every response wanted"),
        classes => format!("{value} no {}", classes.join(", no ")),
    }
}

/// The media types that peers label bodies with (RFC 7252 §12.3, RFC 8949 §9.3).
pub(super) fn media_type(format: u32) -> Option<&'static str> {
    Some(match format {
        0 => "text/plain",
        40 => "application/link-format",
        41 => "application/xml",
        content_format::OCTET_STREAM => "application/octet-stream",
        47 => "application/exi",
        content_format::JSON => "application/json",
        content_format::CBOR => "application/cbor",
        content_format::EDHOC => "application/edhoc+cbor-seq",
        content_format::CID_EDHOC => "application/cid-edhoc+cbor-seq",
        63 => "application/cbor-seq",
        _ => return None,
    })
}

/// RFC 7252 §5.4.3, §5.4.5: what makes a value, or its repetition, one that is treated like an unknown option.
fn problem(number: OptionNumber, value: &[u8], repeated: bool) -> Option<String> {
    let consequence = if number.is_critical() { "the message is refused" } else { "it is ignored" };
    let Some((_, format, shortest, longest)) = number.definition() else {
        return Some(format!("unknown: {consequence} by whoever does not know it"));
    };
    if repeated && !number.is_repeatable() {
        return Some(format!("may not be repeated: {consequence}"));
    }
    if !(shortest..=longest).contains(&value.len()) {
        return Some(format!("has {}, not {shortest} to {longest}: {consequence}", bytes(value.len())));
    }
    match format {
        OptionFormat::String if std::str::from_utf8(value).is_err() => {
            Some(format!("is not UTF-8: {consequence}"))
        }
        // §3.2: a sender should leave them out, a recipient must read them.
        OptionFormat::Uint if value.first() == Some(&0) && number != OptionNumber::HOP_LIMIT => {
            Some("has leading zero bytes, which a sender leaves out".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(number: u16, value: &[u8], code: Code) -> OptionField {
        let option = WireOption { at: 4, number, head: &[0xb1], value };
        OptionField::read(&option, code, false, Secrets::Hidden)
    }

    #[test]
    fn values_are_read_by_the_format_of_their_option() {
        let text = |number, value: &[u8]| option(number, value, Code::GET).text;
        assert_eq!(text(11, b"a\"b"), r#""a\"b""#);
        assert_eq!(text(12, &[60]), "60 application/cbor");
        assert_eq!(text(6, &[]), "0 register");
        assert_eq!(text(6, &[1]), "1 deregister");
        assert_eq!(text(14, &[0x0e, 0x10]), "3600 s");
        assert_eq!(text(4, &[0xab]), "0xab");
        assert_eq!(text(5, &[]), "set");
        assert_eq!(text(258, &[26]), "26 no 2.xx, no 4.xx, no 5.xx");
        assert_eq!(option(6, &[9], Code::CONTENT).text, "9 in the order of notifications");
    }

    /// The values and their reading are RFC 7959's own (§3).
    #[test]
    fn blocks_are_written_as_rfc_7959_writes_them() {
        assert_eq!(option(23, &[33], Code::GET).text, "2/0/32: block 2, no more");
        assert_eq!(option(27, &[59], Code::PUT).text, "3/1/128: block 3, more follow");
        assert_eq!(option(23, &[7], Code::GET).text, "0/0/reserved size");
    }

    #[test]
    fn what_is_wrong_with_an_option_is_said_with_what_follows() {
        let problem = |number, value: &[u8]| option(number, value, Code::GET).problem.unwrap_or_default();
        assert_eq!(problem(11, &[0xff]), "is not UTF-8: the message is refused");
        assert_eq!(problem(9_999, &[]), "unknown: the message is refused by whoever does not know it");
        assert_eq!(problem(9_998, &[]), "unknown: it is ignored by whoever does not know it");
        assert_eq!(problem(12, &[0, 0, 1]), "has 3 bytes, not 0 to 2: it is ignored");
        assert_eq!(problem(12, &[0, 60]), "has leading zero bytes, which a sender leaves out");
        assert_eq!(problem(12, &[60]), "");
    }

    #[test]
    fn access_tokens_are_hidden() {
        let field = option(15, b"access_token=TOK", Code::GET);
        assert_eq!((field.text.as_str(), field.value), (r#""access_token=(hidden)""#, None));
        let field = option(256, b"TOK", Code::GET);
        assert_eq!((field.text.as_str(), field.value), ("(3 bytes hidden)", None));
    }
}
