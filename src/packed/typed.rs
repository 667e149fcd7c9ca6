//! Strings that are something else written in characters, and how they are written: each form's inverse is exact, or the string is text.

use base64ct::Base64;
use base64ct::Base64Unpadded;
use base64ct::Base64UrlUnpadded;
use base64ct::Encoding;

use crate::packed::aliases::Kind;
use crate::packed::code;

/// What a string is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form<'a> {
    /// Nothing but text.
    Text,
    /// Bytes, and the code that says how they are written.
    Bytes(u8, Vec<u8>),
    /// A sigil's code, what is before the first `:`, and the server after it.
    Named(u8, &'a str, &'a str),
    /// A server and the name of something it keeps.
    Media(&'a str, &'a str),
    /// Ten capital letters.
    Device,
}

/// Base64 shorter than this is taken for text.
const SHORTEST_BASE64: usize = 22;

/// Finds out what a string is.
pub(super) fn form(text: &str) -> Form<'_> {
    if let Some(form) = hash(text, '$', code::EVENT).or_else(|| hash(text, '!', code::ROOM_HASH)) {
        return form;
    }
    for (sigil, code) in [('@', code::USER), ('!', code::ROOM), ('#', code::ROOM_ALIAS)] {
        if let Some((name, server)) = text.strip_prefix(sigil).and_then(|rest| rest.split_once(':')) {
            return if is_plain(name) && is_server(server) {
                Form::Named(code, name, server)
            } else {
                Form::Text
            };
        }
    }
    if let Some((server, name)) = text.strip_prefix("mxc://").and_then(|rest| rest.split_once('/')) {
        return if is_plain(name) && is_server(server) { Form::Media(server, name) } else { Form::Text };
    }
    if text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Form::Device;
    }
    base64(text).unwrap_or(Form::Text)
}

/// Which numbers a string of a form gets.
pub(super) fn kind(form: &Form<'_>) -> Kind {
    match form {
        Form::Named(code::USER, ..) => Kind::User,
        Form::Named(code::ROOM, ..) | Form::Bytes(code::ROOM_HASH, _) => Kind::Room,
        Form::Device => Kind::Device,
        _ => Kind::Recent,
    }
}

/// The string of some bytes.
pub(super) fn spell(code: u8, bytes: &[u8]) -> String {
    match code {
        code::EVENT => format!("${}", Base64UrlUnpadded::encode_string(bytes)),
        code::ROOM_HASH => format!("!{}", Base64UrlUnpadded::encode_string(bytes)),
        code::BYTES_PADDED => Base64::encode_string(bytes),
        code::BYTES_URL => Base64UrlUnpadded::encode_string(bytes),
        _ => Base64Unpadded::encode_string(bytes),
    }
}

/// How many bytes a code stands for; `None` where the message says it.
pub(super) fn length(code: u8) -> Option<u64> {
    match code {
        code::EVENT | code::ROOM_HASH | code::BYTES_32 => Some(32),
        code::BYTES_64 => Some(64),
        _ => None,
    }
}

fn hash(text: &str, sigil: char, code: u8) -> Option<Form<'static>> {
    let encoded = text.strip_prefix(sigil).filter(|encoded| encoded.len() == 43)?;
    let bytes = Base64UrlUnpadded::decode_vec(encoded).ok()?;
    (spell(code, &bytes) == text).then_some(Form::Bytes(code, bytes))
}

fn base64(text: &str) -> Option<Form<'static>> {
    let has = |class: fn(&u8) -> bool| text.as_bytes().iter().any(class);
    let is_mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit);
    if text.len() < SHORTEST_BASE64 || !is_mixed {
        return None;
    }
    let (code, bytes) = match text.ends_with('=') {
        true => (code::BYTES_PADDED, Base64::decode_vec(text).ok()?),
        false => match Base64Unpadded::decode_vec(text) {
            Ok(bytes) if bytes.len() == 32 => (code::BYTES_32, bytes),
            Ok(bytes) if bytes.len() == 64 => (code::BYTES_64, bytes),
            Ok(bytes) => (code::BYTES, bytes),
            Err(_) => (code::BYTES_URL, Base64UrlUnpadded::decode_vec(text).ok()?),
        },
    };
    (spell(code, &bytes) == text).then_some(Form::Bytes(code, bytes))
}

/// Nothing that would be read as an end.
fn is_plain(name: &str) -> bool {
    !name.contains('\0') && name.len() <= 255
}

fn is_server(server: &str) -> bool {
    let is_fitting = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !server.is_empty() && server.len() <= 230 && server.bytes().all(is_fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_as_it_would_be_is_text() {
        // The last digit has bits that stand for nothing.
        assert_eq!(form(&format!("${}B", "A".repeat(42))), Form::Text);
        assert_eq!(form("$short"), Form::Text);
        assert_eq!(form("!room:"), Form::Text);
        assert_eq!(form("@a\0b:hs"), Form::Text);
        assert_eq!(form("mxc://hs"), Form::Text);
        assert_eq!(form("aB3-aB3/aB3-aB3/aB3-aB3/"), Form::Text);
    }

    #[test]
    fn identifiers_are_known_by_their_form() {
        assert_eq!(form(&format!("${}", "A".repeat(43))), Form::Bytes(code::EVENT, vec![0; 32]));
        assert_eq!(form("@a:hs:8448"), Form::Named(code::USER, "a", "hs:8448"));
        assert_eq!(form("mxc://hs/abc"), Form::Media("hs", "abc"));
        assert_eq!(form("ABCDEFGHIJ"), Form::Device);
        assert_eq!(
            form("aB3+aB3/aB3+aB3/aB3+aB3/"),
            Form::Bytes(code::BYTES, Base64Unpadded::decode_vec("aB3+aB3/aB3+aB3/aB3+aB3/").unwrap())
        );
    }
}
