//! Which parts of a message are encrypted, and which are for those in between (RFC 8613 §4).

use bytes::Bytes;

use crate::coap::{Code, Kind, Message, MessageId, OptionNumber, Options, Token};

/// How an option is protected (§4.1). Class I, authenticated only, has no option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// E: encrypted. So is every option that is not known (§4.1).
    Inner,
    /// U: for proxies.
    Outer,
    /// E and U at once: the inner one counts, and the outer one is for proxies.
    Both,
}

/// Figure 5; RFC 8768 §3 for Hop-Limit, RFC 9668 §3.1 for EDHOC. Block options, Max-Age, Echo and Request-Tag may be outer ones too, where a proxy adds
/// them; those that we send are for the other endpoint.
fn class(number: OptionNumber) -> Class {
    match number {
        OptionNumber::URI_HOST
        | OptionNumber::URI_PORT
        | OptionNumber::OSCORE
        | OptionNumber::HOP_LIMIT
        | OptionNumber::EDHOC
        | OptionNumber::PROXY_URI
        | OptionNumber::PROXY_SCHEME => Class::Outer,
        OptionNumber::OBSERVE | OptionNumber::NO_RESPONSE => Class::Both,
        _ => Class::Inner,
    }
}

/// Whether a proxy cut the protected message itself into blocks, or wants the answer so (§4.1.3.4.2).
pub(super) fn has_outer_blocks(message: &Message) -> bool {
    let is_block = |number| {
        matches!(
            number,
            OptionNumber::BLOCK1 | OptionNumber::BLOCK2 | OptionNumber::Q_BLOCK1 | OptionNumber::Q_BLOCK2
        )
    };
    message.options.iter().any(|(number, _)| is_block(number))
}

/// The plaintext of a request, and its outer options without OSCORE.
pub(super) fn split_request(message: &Message) -> (Vec<u8>, Options) {
    split(message, |_, value| value.to_vec())
}

/// The plaintext of a response, and its outer options without OSCORE.
pub(super) fn split_response(message: &Message) -> (Vec<u8>, Options) {
    let in_bursts = message.options.get(OptionNumber::Q_BLOCK2).is_some();
    split(message, |number, value| match number {
        // §4.1.3.5.2: notifications are ordered by their Partial IVs, and have an empty inner Observe. RFC 8613 does not know bursts, whose
        // blocks are different messages, and are known to be of the same notification by the value.
        OptionNumber::OBSERVE if !in_bursts => Vec::new(),
        _ => value.to_vec(),
    })
}

fn split(message: &Message, inner_value: impl Fn(OptionNumber, &[u8]) -> Vec<u8>) -> (Vec<u8>, Options) {
    let (mut inner, mut outer) = (Options::new(), Options::new());
    for (number, value) in message.options.iter() {
        let class = class(number);
        if class != Class::Outer {
            inner.push(number, inner_value(number, value));
        }
        if class != Class::Inner {
            outer.push(number, value);
        }
    }
    (encode(message.code, inner, message.payload.clone()), outer)
}

/// §5.3: the code, then options and payload as in a message.
fn encode(code: Code, options: Options, payload: Bytes) -> Vec<u8> {
    let (kind, id, token) = (Kind::NonConfirmable, MessageId(0), Token::EMPTY);
    let mut plaintext = Message { kind, code, id, token, options, payload }.encode();
    // What comes before the options is the version and the type, the code, and the message ID.
    plaintext.drain(2..4);
    plaintext.remove(0);
    plaintext
}

/// The message that was protected: header fields and outer options of the one that came, and the rest from the plaintext. `None` where that is
/// no request and no response, or is itself protected (§4.1.3.7).
pub(super) fn join(message: &Message, plaintext: &[u8]) -> Option<Message> {
    let (&code, rest) = plaintext.split_first()?;
    let inner = Message::decode(&[&[0x50, code, 0, 0], rest].concat()).ok()?;
    let mut options = inner.options;
    if options.get(OptionNumber::OSCORE).is_some() {
        return None;
    }
    // §8.2: outer options of class E are discarded, and of class U where there is an inner one. That leaves out what proxies may add to the
    // others that are both, as nobody vouches for it: who removes an answer need not change No-Response.
    let outer = message.options.iter().filter(|(number, _)| {
        class(*number) == Class::Outer && *number != OptionNumber::OSCORE && options.get(*number).is_none()
    });
    for (number, value) in outer.collect::<Vec<_>>() {
        options.push(number, value);
    }
    Some(Message { code: inner.code, options, payload: inner.payload, ..message.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_protected_as_figure_5_and_their_own_rfcs_say() {
        let outer: Vec<u16> =
            (0..=u16::MAX).filter(|number| class(OptionNumber(*number)) == Class::Outer).collect();
        assert_eq!(outer, [3, 7, 9, 16, 21, 35, 39]);
        let both: Vec<u16> =
            (0..=u16::MAX).filter(|number| class(OptionNumber(*number)) == Class::Both).collect();
        assert_eq!(both, [6, 258]);
    }

    #[test]
    fn a_plaintext_that_is_no_message_is_refused_and_any_other_is_joined() {
        let outer = Message::empty(Kind::Confirmable, MessageId(1));
        let refused: [&[u8]; 9] = [
            b"",
            b"\x00",             // no code
            b"\x00\xffx",        // no code, and a payload
            b"\x61",             // a code of a reserved class
            b"\x01\xff",         // a marker without payload
            b"\x01\xb5abc",      // an option cut short
            b"\x01\xf0",         // a reserved delta
            b"\x01\x90",         // protected itself
            b"\x01\x30\x60\xff", // options, and a marker without payload
        ];
        for plaintext in refused {
            assert_eq!(join(&outer, plaintext), None, "{plaintext:02x?}");
        }
        let joined = join(&outer, b"\x01\xb1a\xffx").unwrap();
        assert_eq!((joined.kind, joined.id, joined.code), (outer.kind, outer.id, Code::GET));
        assert_eq!(joined.payload, "x");
        // Neither the version nor the type nor the token can be said inside.
        assert_eq!(join(&outer, b"\x45").unwrap().token, Token::EMPTY);
    }
}
