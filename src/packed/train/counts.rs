//! Which names, strings and routes traffic uses, and the tables that follow from it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use crate::packed::dictionary::Dictionary;
use crate::packed::dictionary::File;
use crate::packed::tables::Tables;
use crate::packed::typed;
use crate::packed::typed::Form;

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    names: BTreeMap<String, Count>,
    values: BTreeMap<String, Count>,
    routes: BTreeMap<u16, usize>,
    /// What people and servers are called: nothing for a table.
    people: BTreeSet<String>,
}

/// How often a string was used, and by whom.
#[derive(Debug, Default)]
struct Count {
    times: usize,
    associations: BTreeSet<u32>,
}

/// A row of a table: the string, how often it was used, and the bytes that this saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The string.
    pub text: String,
    /// How often it was used.
    pub times: usize,
    /// How many bytes of items would have been more without the row.
    pub saved: usize,
}

/// Longer strings are no words.
const LONGEST: usize = 64;

/// A name must have been used by as many associations, and a string.
const NAME_USERS: usize = 2;
const VALUE_USERS: usize = 3;

impl Counts {
    /// Begins with nothing.
    pub fn new() -> Self {
        Counts::default()
    }

    /// Counts an exchange of an association.
    pub fn add(&mut self, association: u32, method: &str, path: &str, request: &Value, response: &Value) {
        let segments = crate::matrix::split_path(path).unwrap_or_default();
        let borrowed: Vec<&str> = segments.iter().map(String::as_str).collect();
        match tables().find(method, &borrowed) {
            Some(route) => {
                *self.routes.entry(route.number).or_default() += 1;
                route.arguments(&borrowed).into_iter().for_each(|argument| self.value(association, argument));
            }
            None => borrowed.iter().for_each(|segment| self.value(association, segment)),
        }
        self.walk(association, request);
        self.walk(association, response);
    }

    /// The rows for names: by how often they were used, then those of the table that is built in.
    pub fn names(&self) -> Vec<Row> {
        self.rows(&self.names, NAME_USERS, &tables().rows(File::Keys))
    }

    /// The rows for strings, likewise.
    pub fn values(&self) -> Vec<Row> {
        self.rows(&self.values, VALUE_USERS, &tables().rows(File::Values))
    }

    /// The numbers of the routes that are built in: by how often they were used, then by number.
    pub fn routes(&self) -> Vec<(u16, usize)> {
        let numbers = (1..).map_while(|number| tables().route(number)).map(|route| route.number);
        let times = |number: u16| self.routes.get(&number).copied().unwrap_or_default();
        let mut routes: Vec<(u16, usize)> = numbers.map(|number| (number, times(number))).collect();
        routes.sort_by_key(|(number, times)| (std::cmp::Reverse(*times), *number));
        routes
    }

    fn rows(&self, counts: &BTreeMap<String, Count>, users: usize, built_in: &[String]) -> Vec<Row> {
        let is_used = |(text, count): &(&String, &Count)| {
            count.associations.len() >= users && is_word(text) && !self.people.contains(*text)
        };
        let mut used: Vec<(&str, usize)> =
            counts.iter().filter(is_used).map(|(text, count)| (text.as_str(), count.times)).collect();
        used.sort_by_key(|(text, times)| (std::cmp::Reverse(*times), *text));
        let known: BTreeSet<&str> = used.iter().map(|(text, _)| *text).collect();
        let times = |text: &str| counts.get(text).map_or(0, |count| count.times);
        let rest = built_in
            .iter()
            .map(String::as_str)
            .filter(|text| !known.contains(text))
            .map(|text| (text, times(text)));
        let all: Vec<(&str, usize)> = used.into_iter().chain(rest).collect();
        let row = |(number, (text, times)): (usize, (&str, usize))| {
            let length = if number < 112 { 1 } else { 2 };
            Row { text: text.to_owned(), times, saved: times * (text.len() + 2usize).saturating_sub(length) }
        };
        all.into_iter().enumerate().map(row).collect()
    }

    fn walk(&mut self, association: u32, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    count(&mut self.names, association, name);
                    self.walk(association, value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(association, item)),
            Value::String(text) => self.value(association, text),
            _ => {}
        }
    }

    fn value(&mut self, association: u32, text: &str) {
        if let Form::Named(_, name, server) = typed::form(text) {
            self.people.extend([name.to_owned(), server.to_owned()]);
        }
        count(&mut self.values, association, text);
    }
}

fn tables() -> &'static Tables {
    Dictionary::built_in().tables()
}

fn count(counts: &mut BTreeMap<String, Count>, association: u32, text: &str) {
    let count = counts.entry(text.to_owned()).or_default();
    count.times += 1;
    count.associations.insert(association);
}

/// A word of the protocol or of a program: not an identifier, and nothing that somebody wrote to somebody.
fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/+@-".contains(&byte);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let has_sigil = text.starts_with(['@', '!', '#', '$']);
    // Names of people and rooms begin so, and words of protocols that do have something in them that no name has.
    let is_name =
        text.starts_with(|first: char| first.is_ascii_uppercase()) && !text.contains(['_', '.', ':', '/']);
    text.len() <= LONGEST
        && text.bytes().all(is_plain)
        && digits < 6
        && !has_sigil
        && !is_name
        && typed::form(text) == Form::Text
        && !text.rsplit(':').next().is_some_and(|end| typed::form(end) == Form::Device)
}

/// A table as it stands in a file.
pub fn table(head: &str, rows: &[Row]) -> String {
    let mut text = String::new();
    head.lines().for_each(|line| text.push_str(&format!("# {line}\n")));
    for row in rows {
        let shown = if row.text.is_empty() { "\"\"" } else { &row.text };
        text.push_str(shown);
        text.push('\n');
    }
    text
}

/// What each row saves, most first.
pub fn report(rows: &[Row]) -> String {
    let mut rows: Vec<&Row> = rows.iter().filter(|row| row.times > 0).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.saved), &row.text));
    let mut text = String::new();
    for row in rows {
        writeln!(text, "{:8} bytes {:6} times  {}", row.saved, row.times, row.text)
            .expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_what_several_use_and_never_whom_they_speak_with() {
        let mut counts = Counts::new();
        let body = json!({"greeting": "com.example.hello", "to": "@bob:hs.example", "name": "bob", "said": "how are you"});
        for association in 0..3 {
            counts.add(association, "POST", "/_matrix/client/v3/createRoom", &body, &Value::Null);
        }
        counts.add(0, "GET", "/_matrix/client/v3/sync", &json!({"alone": "alone"}), &Value::Null);
        let names = counts.names();
        assert!(names.iter().any(|row| row.text == "greeting" && row.times == 3));
        assert!(!names.iter().any(|row| row.text == "alone"));
        let values = counts.values();
        assert!(values.iter().any(|row| row.text == "com.example.hello"));
        assert!(
            !values.iter().any(|row| ["bob", "@bob:hs.example", "how are you"].contains(&row.text.as_str()))
        );
        assert_eq!(counts.routes().len(), (1..).map_while(|number| tables().route(number)).count());
    }

    #[test]
    fn the_rows_that_are_built_in_stay() {
        let (names, values) = (Counts::new().names(), Counts::new().values());
        assert_eq!(names.len(), (0..).map_while(|number| tables().name_of(number)).count());
        assert_eq!(table("head", &values).lines().count(), values.len() + 1);
    }
}
