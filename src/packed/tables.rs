//! The tables, version 2, read from `dictionaries/v2/`: names, strings, routes.
//!
//! A row's number is its place. Code never spells a name or a path: it asks these.

use std::collections::BTreeMap;
use std::sync::LazyLock;

const NAMES: &str = include_str!("../../dictionaries/v2/keys.tsv");
const VALUES: &str = include_str!("../../dictionaries/v2/values.tsv");
const ROUTES: &str = include_str!("../../dictionaries/v2/routes.tsv");

const SECRETS: &str = include_str!("../../dictionaries/v2/secrets.tsv");

/// The member that says how long ago an event was.
pub(super) const AGE: &str = "age";
/// The member of an answer that names the event that was sent.
pub(super) const EVENT_ID: &str = "event_id";
/// The members that lead to a transaction id, and one below which there is none.
const TRANSACTION: [&str; 2] = ["unsigned", "transaction_id"];
const CONTENT: &str = "content";
/// The parameters of queries whose values are tokens.
const QUERY: [&str; 7] = ["since", "from", "to", "pos", "next_batch", "batch", "at"];

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables::parse(NAMES, VALUES, ROUTES, SECRETS));

/// The tables that are built in.
pub(super) fn tables() -> &'static Tables {
    &TABLES
}

/// Strings by number and numbers by string, and the routes.
#[derive(Debug)]
pub(super) struct Tables {
    names: List,
    values: List,
    routes: Vec<Route>,
    secrets: List,
}

/// One method and path, and where tokens stand in its bodies.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) number: u16,
    pub(super) method: &'static str,
    segments: Vec<&'static str>,
    /// Where in an answer there are tokens.
    pub(super) answer: Vec<Place>,
    /// Where in a request's body there are.
    pub(super) request: Vec<Place>,
}

/// Names of members, from the outermost; `*` is any.
pub(super) type Place = Vec<&'static str>;

/// What a parameter of a path may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    /// A string.
    Text,
    /// A transaction id.
    Transaction,
}

#[derive(Debug)]
struct List {
    rows: Vec<&'static str>,
    numbers: BTreeMap<&'static str, usize>,
}

impl Tables {
    fn parse(names: &'static str, values: &'static str, routes: &'static str, secrets: &'static str) -> Self {
        let rows = |table: &'static str| table.lines().filter(|line| !line.starts_with("# "));
        let routes = rows(routes).skip(1).zip(1..).map(|(row, number)| Route::parse(row, number)).collect();
        Tables {
            names: List::new(rows(names)),
            values: List::new(rows(values)),
            routes,
            secrets: List::new(rows(secrets)),
        }
    }

    /// The number of a member's name.
    pub(super) fn name(&self, name: &str) -> Option<usize> {
        self.names.numbers.get(name).copied()
    }

    /// The name that has a number.
    pub(super) fn name_of(&self, number: usize) -> Option<&'static str> {
        self.names.rows.get(number).copied()
    }

    /// The number of a string.
    pub(super) fn value(&self, value: &str) -> Option<usize> {
        self.values.numbers.get(value).copied()
    }

    /// The string that has a number.
    pub(super) fn value_of(&self, number: usize) -> Option<&'static str> {
        self.values.rows.get(number).copied()
    }

    /// Whether the strings of a member are secrets.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        self.secrets.numbers.contains_key(name)
    }

    /// The route of a method and the decoded segments of a path; of several the one with the most in its own words.
    pub(super) fn find(&self, method: &str, segments: &[&str]) -> Option<&Route> {
        let fitting = self.routes.iter().filter(|route| route.method == method && route.fits(segments));
        fitting.min_by_key(|route| route.parameters().count())
    }

    /// The route that has a number.
    pub(super) fn route(&self, number: u64) -> Option<&Route> {
        self.routes.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

impl List {
    fn new(rows: impl Iterator<Item = &'static str>) -> Self {
        let rows: Vec<&str> = rows.map(|row| if row == "\"\"" { "" } else { row }).collect();
        let numbers = rows.iter().enumerate().map(|(number, row)| (*row, number)).collect();
        List { rows, numbers }
    }
}

impl Route {
    fn parse(row: &'static str, number: u16) -> Self {
        let mut columns = row.split('\t').skip(1);
        let mut column = || columns.next().unwrap_or_default();
        let (method, path) = (column(), column());
        let segments = path.split('/').skip(1).collect();
        Route { number, method, segments, answer: places(column()), request: places(column()) }
    }

    fn fits(&self, segments: &[&str]) -> bool {
        let same = |(own, given): (&&str, &&str)| is_parameter(own) || own == given;
        self.segments.len() == segments.len() && self.segments.iter().zip(segments).all(same)
    }

    /// What the path has for parameters, from left to right.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.segments.iter().filter(|segment| is_parameter(segment)).map(|segment| match *segment {
            "{txnId}" => Parameter::Transaction,
            _ => Parameter::Text,
        })
    }

    /// Those of the segments that stand at parameters.
    pub(super) fn arguments<'a>(&self, segments: &[&'a str]) -> Vec<&'a str> {
        let pairs = self.segments.iter().zip(segments);
        pairs.filter(|(own, _)| is_parameter(own)).map(|(_, given)| *given).collect()
    }

    /// The segments of the path with `arguments` at its parameters.
    pub(super) fn fill<'a>(&self, arguments: &'a [String]) -> Vec<&'a str>
    where
        'static: 'a,
    {
        let mut arguments = arguments.iter();
        let fill = |own: &&'static str| match is_parameter(own) {
            true => arguments.next().map_or("", String::as_str),
            false => *own,
        };
        self.segments.iter().map(fill).collect()
    }
}

/// Whether a value is the transaction id that an event came of.
pub(super) fn is_transaction(path: &[String]) -> bool {
    path.ends_with(&TRANSACTION.map(str::to_owned)) && !path.iter().any(|name| name == CONTENT)
}

/// Whether a parameter of a query is a token.
pub(super) fn is_token_parameter(name: &str) -> bool {
    QUERY.contains(&name)
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

fn places(column: &'static str) -> Vec<Place> {
    if column == "-" {
        return Vec::new();
    }
    column.split(',').map(|place| place.split('.').collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::code;

    #[test]
    fn each_row_is_unique_and_has_a_code() {
        let tables = tables();
        assert_eq!(tables.names.rows.len(), tables.names.numbers.len());
        assert_eq!(tables.values.rows.len(), tables.values.numbers.len());
        assert!(tables.names.rows.len() <= code::NAMES_SHORT + 8 * 256);
        assert!(tables.values.rows.len() <= code::VALUES_SHORT + 16 * 256);
    }

    #[test]
    fn each_route_of_the_first_table_has_a_number_here() {
        for route in crate::matrix::routes() {
            let segments: Vec<&str> = route.path.split('/').skip(1).collect();
            let found = tables().find(route.method, &segments);
            assert!(found.is_some_and(|found| found.segments == segments), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn a_literal_segment_beats_a_parameter() {
        let segments = ["_matrix", "client", "v3", "profile", "@a:hs", "displayname"];
        let route = tables().find("GET", &segments).unwrap();
        assert_eq!(route.arguments(&segments), ["@a:hs"]);
        assert_eq!(route.fill(&["@a:hs".to_owned()]), segments);
    }
}
