//! The tables: names, strings, routes, and the members that are secrets.
//!
//! A row's number is its place. Code never spells a name or a path: it asks these.

use std::collections::BTreeMap;

use crate::packed::code;
use crate::packed::dictionary::DictionaryError;
use crate::packed::dictionary::File;
use crate::packed::dictionary::Files;
use crate::packed::dictionary::RowError;

/// The member that says how long ago an event was.
pub(super) const AGE: &str = "age";
/// The member of an answer that names the event that was sent.
pub(super) const EVENT_ID: &str = "event_id";
/// The members that lead to a transaction id, and one below which there is none.
const TRANSACTION: [&str; 2] = ["unsigned", "transaction_id"];
const CONTENT: &str = "content";
/// The parameters of queries whose values are tokens.
const QUERY: [&str; 7] = ["since", "from", "to", "pos", "next_batch", "batch", "at"];

/// The methods that there are, by the number that they have before a path that is spelled out.
pub(super) const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"];

/// A line that begins so is a comment.
pub(super) const COMMENT: &str = "# ";
/// What the empty string is written as.
pub(super) const EMPTY: &str = "\"\"";

/// As many rows as there are codes; and more routes and secrets than anybody has.
pub(super) const MOST_NAMES: usize = code::NAMES_SHORT + 8 * 256;
pub(super) const MOST_VALUES: usize = code::VALUES_SHORT + 16 * 256;
const MOST_ROUTES: usize = 2048;
const MOST_SECRETS: usize = 256;
/// The longest row.
const LONGEST: usize = 1024;

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
    pub(super) path: String,
    segments: Vec<String>,
    /// Where in an answer there are tokens.
    pub(super) answer: Vec<Place>,
    /// Where in a request's body there are.
    pub(super) request: Vec<Place>,
}

/// Names of members, from the outermost; `*` is any.
pub(super) type Place = Vec<String>;

/// What a parameter of a path may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    /// A string.
    Text,
    /// A transaction id.
    Transaction,
}

/// Strings, each of which has its place for a number.
#[derive(Debug)]
struct List {
    rows: Vec<String>,
    /// The numbers, in the order of their strings.
    sorted: Vec<usize>,
}

impl Tables {
    /// Reads the files but for the samples.
    pub(super) fn read(files: &Files<'_>) -> Result<Self, DictionaryError> {
        Ok(Tables {
            names: List::read(File::Keys, &files.keys, MOST_NAMES)?,
            values: List::read(File::Values, &files.values, MOST_VALUES)?,
            routes: read_routes(&files.routes)?,
            secrets: List::read(File::Secrets, &files.secrets, MOST_SECRETS)?,
        })
    }

    /// The number of a member's name.
    pub(super) fn name(&self, name: &str) -> Option<usize> {
        self.names.number(name)
    }

    /// The name that has a number.
    pub(super) fn name_of(&self, number: usize) -> Option<&str> {
        self.names.rows.get(number).map(String::as_str)
    }

    /// The number of a string.
    pub(super) fn value(&self, value: &str) -> Option<usize> {
        self.values.number(value)
    }

    /// The string that has a number.
    pub(super) fn value_of(&self, number: usize) -> Option<&str> {
        self.values.rows.get(number).map(String::as_str)
    }

    /// Whether the strings of a member are secrets.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        self.secrets.number(name).is_some()
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

    /// All rows of a table as they are shown, by number; routes are numbered from 1.
    pub(super) fn rows(&self, file: File) -> Vec<String> {
        match file {
            File::Keys => self.names.rows.clone(),
            File::Values => self.values.rows.clone(),
            File::Secrets => self.secrets.rows.clone(),
            File::Routes => {
                self.routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect()
            }
            File::Samples => Vec::new(),
        }
    }
}

impl List {
    fn read(file: File, text: &str, most: usize) -> Result<Self, DictionaryError> {
        let (mut rows, mut lines) = (Vec::new(), BTreeMap::new());
        for (line, row) in lines_of(text) {
            let row = match row {
                "" => Err(RowError::Empty),
                _ if rows.len() >= most => Err(RowError::Many(most)),
                _ if row.len() > LONGEST => Err(RowError::Long(LONGEST)),
                _ if row.contains('\0') => Err(RowError::Zero),
                EMPTY => Ok(""),
                _ => Ok(row),
            };
            let row = row.and_then(|row| match lines.insert(row, line) {
                Some(before) => Err(RowError::Again(before)),
                None => Ok(row),
            });
            rows.push(row.map_err(|error| DictionaryError::Row { file, line, error })?.into());
        }
        let mut sorted: Vec<usize> = (0..rows.len()).collect();
        sorted.sort_by_key(|number| rows.get(*number));
        Ok(List { rows, sorted })
    }

    fn number(&self, text: &str) -> Option<usize> {
        let row = |number: usize| self.rows.get(number).map_or("", String::as_str);
        let place = self.sorted.binary_search_by(|number| row(*number).cmp(text)).ok()?;
        self.sorted.get(place).copied()
    }
}

/// The lines that are no comments, with their numbers.
fn lines_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with(COMMENT))
}

fn read_routes(text: &str) -> Result<Vec<Route>, DictionaryError> {
    let (mut routes, mut lines) = (Vec::new(), BTreeMap::new());
    // The first line has the columns' names.
    for ((line, row), number) in lines_of(text).skip(1).zip(1..) {
        let route = Route::parse(row, number).and_then(|route| {
            match lines.insert((route.method, route.path.clone()), line) {
                Some(before) => Err(RowError::Again(before)),
                None => Ok(route),
            }
        });
        routes.push(route.map_err(|error| DictionaryError::Row { file: File::Routes, line, error })?);
    }
    Ok(routes)
}

impl Route {
    fn parse(row: &str, number: u16) -> Result<Self, RowError> {
        let columns: Vec<&str> = row.split('\t').collect();
        let &[said, method, path, answer, request] = columns.as_slice() else {
            return Err(RowError::Columns);
        };
        let segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        // RFC 3986 §5.2.4: such segments lead to another path.
        let leads_elsewhere = |segment: &String| matches!(segment.as_str(), "." | "..");
        match () {
            () if usize::from(number) > MOST_ROUTES => return Err(RowError::Many(MOST_ROUTES)),
            () if row.len() > LONGEST => return Err(RowError::Long(LONGEST)),
            () if said != number.to_string() => return Err(RowError::Number(number)),
            () if !path.starts_with('/') || segments.iter().any(leads_elsewhere) => {
                return Err(RowError::Path(path.to_owned()));
            }
            () => {}
        }
        let known = METHODS.into_iter().find(|known| *known == method);
        let method = known.ok_or_else(|| RowError::Method(method.to_owned()))?;
        let (answer, request) = (places(answer), places(request));
        Ok(Route { number, method, path: path.into(), segments, answer, request })
    }

    fn fits(&self, segments: &[&str]) -> bool {
        let same = |(own, given): (&String, &&str)| is_parameter(own) || own.as_str() == *given;
        self.segments.len() == segments.len() && self.segments.iter().zip(segments).all(same)
    }

    /// The row with another number.
    pub(super) fn row(&self, number: u16) -> String {
        let shown = |places: &[Place]| match places {
            [] => "-".to_owned(),
            some => some.iter().map(|place| place.join(".")).collect::<Vec<_>>().join(","),
        };
        let Route { method, path, answer, request, .. } = self;
        format!("{number}\t{method}\t{path}\t{}\t{}", shown(answer), shown(request))
    }

    /// What the path has for parameters, from left to right.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.segments.iter().filter(|segment| is_parameter(segment)).map(|segment| match segment.as_str() {
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
    pub(super) fn fill<'a>(&'a self, arguments: &'a [String]) -> Vec<&'a str> {
        let mut arguments = arguments.iter();
        let fill = |own: &'a String| match is_parameter(own) {
            true => arguments.next().map_or("", String::as_str),
            false => own.as_str(),
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

pub(super) fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

fn places(column: &str) -> Vec<Place> {
    if column == "-" {
        return Vec::new();
    }
    column.split(',').map(|place| place.split('.').map(str::to_owned).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        Tables::read(&Files::BUILT_IN).unwrap()
    }

    #[test]
    fn each_row_has_its_place_for_a_number() {
        let tables = tables();
        for (number, name) in tables.rows(File::Keys).iter().enumerate() {
            assert_eq!((tables.name(name), tables.name_of(number)), (Some(number), Some(name.as_str())));
        }
        for (number, value) in tables.rows(File::Values).iter().enumerate() {
            assert_eq!((tables.value(value), tables.value_of(number)), (Some(number), Some(value.as_str())));
        }
        assert!(tables.is_secret("password") && !tables.is_secret("body"));
    }

    #[test]
    fn each_route_of_the_first_table_has_a_number_here() {
        let tables = tables();
        for route in crate::matrix::routes() {
            let segments: Vec<&str> = route.path.split('/').skip(1).collect();
            let found = tables.find(route.method, &segments);
            assert!(found.is_some_and(|found| *found.path == *route.path), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn a_literal_segment_beats_a_parameter() {
        let segments = ["_matrix", "client", "v3", "profile", "@a:hs", "displayname"];
        let tables = tables();
        let route = tables.find("GET", &segments).unwrap();
        assert_eq!(route.arguments(&segments), ["@a:hs"]);
        assert_eq!(route.fill(&["@a:hs".to_owned()]), segments);
    }
}
