//! Keeping secrets off the screen: tokens in queries, tokens and passwords in bodies. The access token of option 256 is hidden
//! where that option is read.

use std::borrow::Cow;

use serde_json::Value;

use crate::codec::key_number;

/// Whether secrets are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Something else stands in their place.
    Hidden,
    /// As they are.
    Shown,
}

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

/// Members and query parameters of the Matrix API whose values let their reader act as the user.
const NAMES: [&str; 6] =
    ["access_token", "refresh_token", "password", "new_password", "token", "login_token"];

impl Secrets {
    /// A Uri-Query value, `name=value`.
    pub(super) fn hide_query(self, query: &str) -> Cow<'_, str> {
        match query.split_once('=') {
            Some((name, _)) if self == Self::Hidden && NAMES.contains(&name) => {
                format!("{name}={HIDDEN}").into()
            }
            _ => query.into(),
        }
    }

    /// A body, at every depth.
    pub(super) fn hide_body(self, body: &mut Value) {
        match body {
            _ if self == Self::Shown => {}
            Value::Object(members) => {
                for (name, value) in members {
                    match NAMES.contains(&name.as_str()) {
                        true => *value = HIDDEN.into(),
                        false => self.hide_body(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_body(item)),
            _ => {}
        }
    }

    /// The same in diagnostic notation, where a key may be an integer: `{73: "s3cret", "password": h'00'}`.
    pub(super) fn hide_diagnostic(self, text: &str) -> String {
        if self == Self::Shown {
            return text.to_owned();
        }
        let mut hidden = String::new();
        let mut rest = text;
        while let Some((token, after)) = split_token(rest) {
            hidden.push_str(token);
            rest = after;
            if let Some(value) = rest.strip_prefix(": ").filter(|_| is_secret_key(token)) {
                hidden.push_str(": ");
                hidden.push_str(HIDDEN);
                rest = skip_value(value);
            }
        }
        hidden
    }
}

/// Whether a token of diagnostic notation is the key of a secret, by name or by number.
fn is_secret_key(token: &str) -> bool {
    let number = token.parse().ok();
    NAMES.iter().any(|name| {
        let quoted = token.strip_prefix('"').and_then(|token| token.strip_suffix('"'));
        quoted == Some(name) || (number.is_some() && key_number(name) == number)
    })
}

/// What is left after one value: the rest from the comma or the bracket that ends it.
fn skip_value(text: &str) -> &str {
    let mut rest = text;
    let mut depth = 0_usize;
    while let Some((token, after)) = split_token(rest) {
        match token {
            "," | "}" | "]" | ")" if depth == 0 => break,
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        rest = after;
    }
    rest
}

/// The first token: a string with its quotes, a run of letters and digits, or one other character.
fn split_token(text: &str) -> Option<(&str, &str)> {
    let first = text.chars().next()?;
    let end = match first {
        '"' | '\'' => string_end(text, first),
        first if first.is_alphanumeric() => text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len()),
        first => first.len_utf8(),
    };
    text.split_at_checked(end)
}

/// Where a string ends that begins here, its last quote included.
fn string_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_in_queries_are_hidden() {
        assert_eq!(Secrets::Hidden.hide_query("access_token=abc"), "access_token=(hidden)");
        assert_eq!(Secrets::Hidden.hide_query("since=s1"), "since=s1");
        assert_eq!(Secrets::Shown.hide_query("access_token=abc"), "access_token=abc");
    }

    #[test]
    fn secrets_in_bodies_are_hidden_at_every_depth() {
        let mut body = json!({"auth": [{"password": "x", "body": "password"}], "access_token": {"a": 1}});
        Secrets::Hidden.hide_body(&mut body);
        let hidden =
            json!({"auth": [{"password": "(hidden)", "body": "password"}], "access_token": "(hidden)"});
        assert_eq!(body, hidden);
    }

    #[test]
    fn secrets_in_diagnostic_notation_are_hidden_and_nothing_else() {
        let hide = |text| Secrets::Hidden.hide_diagnostic(text);
        assert_eq!(hide(r#"{73: "ab\"c", 27: "73: x"}"#), r#"{73: (hidden), 27: "73: x"}"#);
        assert_eq!(hide(r#"{"password": h'00ff', 2: [1.5, -3]}"#), r#"{"password": (hidden), 2: [1.5, -3]}"#);
        assert_eq!(
            hide(r#"{_ 69: (_ "a", "b"), 1: {70: ["x", {}]}}"#),
            r#"{_ 69: (hidden), 1: {70: (hidden)}}"#
        );
        assert_eq!(hide(r#"["password", 73, "ü: 'é'"]"#), r#"["password", 73, "ü: 'é'"]"#);
        assert_eq!(hide(r#"{73: "cut"#), r#"{73: (hidden)"#);
        assert_eq!(Secrets::Shown.hide_diagnostic(r#"{73: "a"}"#), r#"{73: "a"}"#);
    }
}
