//! Which names, strings and routes traffic uses, and the tables that follow from it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::packed::dictionary::Dictionary;
use crate::packed::dictionary::File;
use crate::packed::dictionary::Files;
use crate::packed::tables;
use crate::packed::tables::COMMENT;
use crate::packed::tables::EMPTY;
use crate::packed::tables::Tables;
use crate::packed::typed;
use crate::packed::typed::Form;

const KEYS_HEAD: &str = "\
# The packed profile's names, version 2 of the tables: a name's number is its place in the list, from 0. Append only.
# By how often recorded traffic used them; those that it did not use are Matrix v1.19's.
";
const VALUES_HEAD: &str = "\
# The packed profile's strings, version 2 of the tables: a string's number is its place in the list, from 0. Append only.
# By how often recorded traffic used them; those that it did not use are Matrix v1.19's. The empty string is written as \"\".
";
const ROUTES_HEAD: &str = "\
# The packed profile's routes, version 2 of the tables: one method and path a line, its number the place in the list from 1.
# 0 stands for a path that is spelled out. answer: where in an answer's body tokens stand that only the homeserver reads;
# request: where in a request's body. `*` is any name. Ordered by how often recorded traffic used them; append only.
number\tmethod\tpath\tanswer\trequest
";

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    names: Strings,
    values: Strings,
    routes: BTreeMap<u16, usize>,
    /// What people and servers are called: nothing for a table.
    people: BTreeSet<String>,
}

/// Strings, how often each was used, and by whom.
#[derive(Debug, Default)]
struct Strings {
    counts: BTreeMap<String, Count>,
}

#[derive(Debug, Default)]
struct Count {
    times: usize,
    associations: BTreeSet<u32>,
}

/// More different strings are not counted, nor more names of people.
const MOST: usize = 1 << 20;

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
        match base().find(method, &borrowed) {
            Some(route) => {
                *self.routes.entry(route.number).or_default() += 1;
                route.arguments(&borrowed).into_iter().for_each(|argument| self.value(association, argument));
            }
            None => borrowed.iter().for_each(|segment| self.value(association, segment)),
        }
        self.walk(association, request);
        self.walk(association, response);
    }

    /// Whether a string is used by so many that it tells of nobody.
    pub fn is_common(&self, text: &str) -> bool {
        self.values.counts.get(text).is_some_and(|count| count.associations.len() >= VALUE_USERS)
    }

    /// The tables that follow, and no samples: rows by how often they were used, then those that are built in and were not used, in their order.
    pub fn tables(&self) -> Files<'static> {
        let (keys, values) = (base().rows(File::Keys), base().rows(File::Values));
        let keys = self.rows(&self.names, NAME_USERS, &keys, tables::MOST_NAMES);
        let values = self.rows(&self.values, VALUE_USERS, &values, tables::MOST_VALUES);
        Files {
            keys: list(KEYS_HEAD, &keys).into(),
            values: list(VALUES_HEAD, &values).into(),
            routes: self.routes().into(),
            samples: Default::default(),
            ..Files::BUILT_IN
        }
    }

    fn rows<'a>(
        &'a self,
        strings: &'a Strings,
        users: usize,
        base: &'a [String],
        most: usize,
    ) -> Vec<&'a str> {
        let is_used = |(text, count): &(&String, &Count)| {
            count.associations.len() >= users && is_word(text) && !self.people.contains(*text)
        };
        let used = strings.counts.iter().filter(is_used);
        let mut used: Vec<(&str, usize)> = used.map(|(text, count)| (text.as_str(), count.times)).collect();
        used.sort_by_key(|(text, times)| (Reverse(*times), *text));
        // What is built in has its place in any case.
        let known: BTreeSet<&str> = base.iter().map(String::as_str).collect();
        let mut room = most.saturating_sub(known.len());
        let mut rows: Vec<&str> = used.into_iter().map(|(text, _)| text).collect();
        rows.retain(|text| {
            let fits = known.contains(text) || room > 0;
            room -= usize::from(fits && !known.contains(text));
            fits
        });
        let taken: BTreeSet<&str> = rows.iter().copied().collect();
        rows.extend(base.iter().map(String::as_str).filter(|text| !taken.contains(text)));
        rows
    }

    fn routes(&self) -> String {
        let mut numbers: Vec<u16> =
            (1..).map_while(|number| base().route(number)).map(|it| it.number).collect();
        numbers.sort_by_key(|number| (Reverse(self.routes.get(number)), *number));
        let routes = numbers.iter().filter_map(|number| base().route((*number).into()));
        let rows = routes.zip(1..).map(|(route, number)| route.row(number) + "\n");
        [ROUTES_HEAD.to_owned()].into_iter().chain(rows).collect()
    }

    fn walk(&mut self, association: u32, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    self.names.count(association, name);
                    self.walk(association, value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(association, item)),
            Value::String(text) => self.value(association, text),
            _ => {}
        }
    }

    fn value(&mut self, association: u32, text: &str) {
        if self.people.len() >= MOST {
            return; // what is the name of somebody could not be told any more
        }
        if let Form::Named(_, name, server) = typed::form(text) {
            self.people.extend([name.to_owned(), server.to_owned()]);
        }
        self.values.count(association, text);
    }
}

impl Strings {
    fn count(&mut self, association: u32, text: &str) {
        if self.counts.len() >= MOST && !self.counts.contains_key(text) {
            return;
        }
        let count = self.counts.entry(text.to_owned()).or_default();
        count.times += 1;
        count.associations.insert(association);
    }
}

fn base() -> &'static Tables {
    Dictionary::built_in().tables()
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

/// A table of strings as it stands in its file.
fn list(head: &str, rows: &[&str]) -> String {
    debug_assert!(rows.iter().all(|row| !row.starts_with(COMMENT)), "words have no spaces");
    let rows = rows.iter().flat_map(|row| [if row.is_empty() { EMPTY } else { row }, "\n"]);
    [head].into_iter().chain(rows).collect()
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
        let Files { keys, values, routes, .. } = counts.tables();
        let has = |table: &str, row: &str| table.lines().any(|line| line == row);
        assert!(has(&keys, "greeting") && !has(&keys, "alone") && has(&values, "com.example.hello"));
        for row in ["bob", "@bob:hs.example", "how are you"] {
            assert!(!has(&values, row), "{row}");
        }
        assert!(has(&routes, "1\tPOST\t/_matrix/client/v3/createRoom\t-\t-"));
        assert!(counts.is_common("how are you") && !counts.is_common("alone"));
    }

    #[test]
    fn the_rows_that_are_built_in_stay() {
        let files = Counts::new().tables();
        assert_eq!(Files { samples: Files::BUILT_IN.samples, ..files }, Files::BUILT_IN);
    }
}
