//! What people wrote, and words of this project's in its place: a dictionary goes to everybody who speaks with it.

use bytes::Bytes;
use serde_json::Value;

use super::exchange::Exchange;
use crate::packed::train::Counts;

/// Members, and words.
const TABLE: &str = include_str!("../../dictionaries/training-texts.txt");

/// Puts other words in the place of texts, of about the same length; each text continues where the last one ended.
#[derive(Debug)]
pub(super) struct Texts {
    members: Vec<&'static str>,
    words: Vec<&'static str>,
    next: usize,
}

impl Texts {
    pub(super) fn new() -> Self {
        let mut lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        let members = lines.next().unwrap_or_default().split(' ').collect();
        Self { members, words: lines.flat_map(|line| line.split(' ')).collect(), next: 0 }
    }

    /// The exchange with other texts in its bodies: the strings of some members, and those that have spaces or letters that words of protocols
    /// do not have, where fewer use them than would make them common.
    pub(super) fn replace(&mut self, exchange: &Exchange, counts: &Counts) -> Exchange {
        let mut replaced = exchange.clone();
        for body in [replaced.request.body_mut(), replaced.response.body_mut()] {
            if let Ok(mut value) = serde_json::from_slice::<Value>(body) {
                self.walk(&mut value, "", counts);
                *body = Bytes::from(value.to_string());
            }
        }
        replaced
    }

    fn walk(&mut self, value: &mut Value, name: &str, counts: &Counts) {
        match value {
            Value::String(text) if self.is_text(text, name, counts) => *text = self.words(text.len()),
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item, name, counts)),
            Value::Object(members) => {
                members.iter_mut().for_each(|(name, value)| self.walk(value, name, counts));
            }
            _ => {}
        }
    }

    fn is_text(&self, text: &str, name: &str, counts: &Counts) -> bool {
        let is_foreign = |byte: u8| byte == b' ' || !byte.is_ascii_graphic();
        !text.is_empty()
            && (self.members.contains(&name) || (text.bytes().any(is_foreign) && !counts.is_common(text)))
    }

    /// Words of at least so many bytes together.
    fn words(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(self.words.get(self.next % self.words.len()).copied().unwrap_or_default());
            self.next += 1;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_replaced_and_nothing_else() {
        let line = r#"{"method":"PUT","path":"/_matrix/client/v3/rooms/!a:b/send/m.room.message/1","status":403,
            "req":{"msgtype":"m.text","body":"Zanzibar","x":["all of it","m.text",5]},
            "resp":{"errcode":"M_FORBIDDEN","error":"You may not","user":"@a:b"}}"#;
        let exchange = Exchange::read(1, line.as_bytes()).unwrap();
        let mut counts = Counts::new();
        let common = Value::String("You may not".to_owned());
        (0..3).for_each(|user| counts.add(user, "GET", "/x", &Value::Null, &common));
        let replaced = Texts::new().replace(&exchange, &counts);
        let (request, response) = (replaced.request.body(), replaced.response.body());
        assert_eq!(request, r#"{"msgtype":"m.text","body":"the meeting","x":["is at nine","m.text",5]}"#);
        assert_eq!(response, exchange.response.body());
        assert_eq!(replaced.target(), exchange.target());
    }
}
