//! Which requests a device may make: a preset, or a list of an operator's own.
//!
//! A list is text with one route a line: an operation's name as `dictionaries/routes.tsv` has it in its last column, which stands for
//! all rows that it is in, or a method and a path template as in `GET /_matrix/client/unstable/org.example/thing/{id}`. `#` begins a
//! comment. What is matched is the route that the homeserver will see: path codes and r0 paths are the same as their long forms.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::matrix;
use crate::matrix::Route;

const MESSAGING: &str = include_str!("../../dictionaries/routes-messaging.txt");

static MESSAGING_RULES: LazyLock<Vec<Rule>> =
    LazyLock::new(|| parse(MESSAGING).expect("dictionaries/routes-messaging.txt is parsed by a test"));

/// What a device may ask the homeserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub enum Routes {
    /// What sending and reading takes: `dictionaries/routes-messaging.txt`.
    Messaging,
    /// All that the gateway carries.
    All,
    /// What is on a list.
    Custom(List),
}

/// A list of routes. It has at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List(Vec<Rule>);

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// All rows of an operation.
    Operation { name: &'static str, rows: BTreeSet<u16> },
    /// One row, by its method and path.
    Row(&'static Route),
    /// What no row is.
    Template { method: String, segments: Vec<String> },
}

impl Routes {
    /// The longest list, in routes.
    pub const LIMIT: usize = 1_000;

    /// Reads a list.
    ///
    /// # Errors
    /// A line that names nothing; its number is told. A list without a route.
    pub fn parse(text: &str) -> Result<Self, RoutesError> {
        parse(text).map(|rules| Self::Custom(List(rules)))
    }

    /// The preset of this name.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "messaging" => Some(Self::Messaging),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    /// Whether a request may be made: by its method, and its path as the homeserver is asked for it, percent-encoded.
    ///
    /// ```
    /// use lowband::device::Routes;
    /// assert!(Routes::Messaging.allows("GET", "/_matrix/client/v3/sync"));
    /// assert!(!Routes::Messaging.allows("POST", "/_matrix/client/v3/account/password"));
    /// ```
    pub fn allows(&self, method: &str, path: &str) -> bool {
        let rules = match self {
            Self::Messaging => &*MESSAGING_RULES,
            Self::All => return true,
            Self::Custom(List(rules)) => rules,
        };
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let Ok(segments) = matrix::split_path(path) else { return false };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let route = Route::find(method, &segments);
        rules.iter().any(|rule| match rule {
            Rule::Operation { rows, .. } => route.is_some_and(|route| rows.contains(&route.number)),
            Rule::Row(row) => route.is_some_and(|route| route.number == row.number),
            Rule::Template { method: own, segments: template } => {
                own == method && matches(template, &segments)
            }
        })
    }
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messaging => f.write_str("messaging"),
            Self::All => f.write_str("all"),
            Self::Custom(List(rules)) => write!(f, "a list of {}", rules.len()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation { name, .. } => f.write_str(name),
            Self::Row(route) => write!(f, "{} {}", route.method, route.path),
            Self::Template { method, segments } => write!(f, "{method} /{}", segments.join("/")),
        }
    }
}

/// What is wrong with a list of routes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RoutesError {
    /// A word that is no operation.
    #[error("line {line}: {name:?} is no operation; `lowband routes` lists them")]
    Operation {
        /// The line, counted from 1.
        line: usize,
        /// What stands there.
        name: String,
    },
    /// A method that nothing is asked with.
    #[error("line {line}: {method:?} is none of GET, PUT, POST and DELETE")]
    Method {
        /// The line, counted from 1.
        line: usize,
        /// What stands there.
        method: String,
    },
    /// No path, or one that the gateway does not carry.
    #[error("line {line}: {path:?} is no path of the client-server API")]
    Path {
        /// The line, counted from 1.
        line: usize,
        /// What stands there.
        path: String,
    },
    /// More than a method and a path.
    #[error("line {0}: one route a line: an operation, or a method and a path")]
    Words(usize),
    /// No line names a route.
    #[error("the list has no route; revoke a device that may do nothing")]
    Empty,
    /// There are too many.
    #[error("the list has more than {} routes", Routes::LIMIT)]
    TooMany,
}

/// How routes are written: a preset's name, or the lines of a list.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Preset(String),
    Lines(Vec<String>),
}

impl From<Routes> for Form {
    fn from(routes: Routes) -> Self {
        match routes {
            Routes::Custom(List(rules)) => Self::Lines(rules.iter().map(Rule::to_string).collect()),
            preset => Self::Preset(preset.to_string()),
        }
    }
}

impl TryFrom<Form> for Routes {
    type Error = RoutesError;

    fn try_from(form: Form) -> Result<Self, RoutesError> {
        match form {
            Form::Preset(name) => Self::preset(&name).ok_or(RoutesError::Operation { line: 1, name }),
            Form::Lines(lines) => Self::parse(&lines.join("\n")),
        }
    }
}

fn parse(text: &str) -> Result<Vec<Rule>, RoutesError> {
    let mut rules = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split_once('#').map_or(text, |(text, _)| text);
        let words: Vec<&str> = text.split_whitespace().collect();
        rules.push(match words.as_slice() {
            [] => continue,
            [name] => operation(name, line)?,
            [method, path] => template(method, path, line)?,
            _ => return Err(RoutesError::Words(line)),
        });
        if rules.len() > Routes::LIMIT {
            return Err(RoutesError::TooMany);
        }
    }
    if rules.is_empty() { Err(RoutesError::Empty) } else { Ok(rules) }
}

fn operation(name: &str, line: usize) -> Result<Rule, RoutesError> {
    let mut rows = matrix::routes().iter().filter(|route| route.operation == name).peekable();
    match rows.peek() {
        Some(first) => {
            Ok(Rule::Operation { name: first.operation, rows: rows.map(|route| route.number).collect() })
        }
        None => Err(RoutesError::Operation { line, name: name.to_owned() }),
    }
}

fn template(method: &str, path: &str, line: usize) -> Result<Rule, RoutesError> {
    let method = method.to_uppercase();
    if !matches!(method.as_str(), "GET" | "PUT" | "POST" | "DELETE") {
        return Err(RoutesError::Method { line, method });
    }
    let foreign = || RoutesError::Path { line, path: path.to_owned() };
    let segments: Vec<&str> = path.strip_prefix('/').ok_or_else(foreign)?.split('/').collect();
    if segments.first().is_some_and(|first| first.chars().count() < 2) {
        // A path code is not what is matched.
        return Err(foreign());
    }
    // What the gateway would not carry anyway is a mistake.
    matrix::expand(&method, &segments).map_err(|_| foreign())?;
    let row = matrix::routes().iter().find(|route| route.method == method && is_same(route.path, &segments));
    Ok(match row {
        Some(route) => Rule::Row(route),
        None => Rule::Template { method, segments: segments.into_iter().map(str::to_owned).collect() },
    })
}

/// Whether a row's path is this template, whatever its parameters are called.
fn is_same(path: &str, segments: &[&str]) -> bool {
    let row: Vec<&str> = path.split('/').skip(1).collect();
    let same = |(own, given): (&&str, &&str)| own == given || is_parameter(own) && is_parameter(given);
    row.len() == segments.len() && row.iter().zip(segments).all(same)
}

fn matches(template: &[String], segments: &[&str]) -> bool {
    let fits = |(own, given): (&String, &&str)| is_parameter(own) || own == given;
    template.len() == segments.len() && template.iter().zip(segments).all(fits)
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Routes {
        Routes::parse(text).unwrap()
    }

    #[test]
    fn messaging_is_what_messages_take() {
        let may = |method: &str, path: &str| Routes::Messaging.allows(method, path);
        for (method, path) in [
            ("GET", "/_matrix/client/v3/sync?since=s1"),
            ("GET", "/_matrix/client/r0/sync"),
            ("PUT", "/_matrix/client/v3/rooms/!a:hs/send/m.room.message/t1"),
            ("PUT", "/_matrix/client/v3/rooms/!a%3Ahs/redact/$e/t1"),
            ("PUT", "/_matrix/client/v3/sendToDevice/m.room.encrypted/t1"),
            ("GET", "/_matrix/client/v3/rooms/!a:hs/state/m.room.name/"),
            ("POST", "/_matrix/client/v3/keys/upload"),
            ("GET", "/_matrix/client/v3/profile/@a:hs/displayname"),
            ("POST", "/_matrix/client/v3/logout"),
        ] {
            assert!(may(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/_matrix/client/v3/sync"),
            ("POST", "/_matrix/client/v3/login"),
            ("POST", "/_matrix/client/v3/refresh"),
            ("POST", "/_matrix/client/v3/logout/all"),
            ("POST", "/_matrix/client/v3/account/password"),
            ("POST", "/_matrix/client/v3/account/deactivate"),
            ("DELETE", "/_matrix/client/v3/devices/X"),
            ("GET", "/_matrix/client/v3/admin/whois/@a:hs"),
            ("PUT", "/_matrix/client/v3/rooms/!a:hs/state/m.room.power_levels/"),
            ("POST", "/_matrix/client/v3/rooms/!a:hs/ban"),
            ("PUT", "/_matrix/client/v3/profile/@a:hs/displayname"),
            ("GET", "/_synapse/admin/v1/users"),
            ("GET", "_matrix/client/v3/sync"),
            ("GET", "/_matrix/client/v3/sync/"),
            ("GET", "/_matrix/client/v3/%zz"),
        ] {
            assert!(!may(method, path), "{method} {path}");
        }
    }

    #[test]
    fn preset_has_nothing_of_accounts_and_administration() {
        let allowed =
            matrix::routes().iter().filter(|route| Routes::Messaging.allows(route.method, route.path));
        for route in allowed {
            for word in
                ["admin", "account/", "password", "deactivate", "devices", "login", "register", "3pid"]
            {
                let is_own = route.path.ends_with("/account/whoami") || route.path.contains("account_data");
                assert!(is_own || !route.path.contains(word), "{}", route.path);
            }
        }
    }

    #[test]
    fn lists_are_of_operations_and_templates() {
        let routes = list(
            "# a sensor\n\n  sendMessage # and nothing read\nput /_matrix/client/v3/rooms/{r}/typing/{u}\n\
             GET /_matrix/client/unstable/org.example/thing/{id}\n",
        );
        assert!(routes.allows("PUT", "/_matrix/client/v3/rooms/!a:hs/send/m.room.message/t1"));
        assert!(routes.allows("PUT", "/_matrix/client/r0/rooms/!a:hs/typing/@a:hs"));
        assert!(routes.allows("GET", "/_matrix/client/unstable/org.example/thing/7"));
        assert!(!routes.allows("PUT", "/_matrix/client/unstable/org.example/thing/7"));
        assert!(!routes.allows("GET", "/_matrix/client/unstable/org.example/thing/7/8"));
        assert!(!routes.allows("GET", "/_matrix/client/v3/sync"));
        assert_eq!(routes.to_string(), "a list of 3");
    }

    #[test]
    fn row_is_not_allowed_by_one_with_a_parameter_in_the_place_of_its_literal() {
        let routes = list("GET /_matrix/client/v3/profile/{userId}/{keyName}");
        assert!(routes.allows("GET", "/_matrix/client/v3/profile/@a:hs/m.tz"));
        assert!(!routes.allows("GET", "/_matrix/client/v3/profile/@a:hs/displayname"));
    }

    #[test]
    fn all_is_all() {
        assert!(Routes::All.allows("POST", "/_matrix/client/v3/account/password"));
        assert_eq!(Routes::preset("all"), Some(Routes::All));
        assert_eq!(Routes::preset("messaging"), Some(Routes::Messaging));
        assert_eq!(Routes::preset("none"), None);
    }

    #[test]
    fn wrong_lines_are_named() {
        let error = |text: &str| Routes::parse(text).unwrap_err();
        assert_eq!(error("sync\nsend"), RoutesError::Operation { line: 2, name: "send".into() });
        assert_eq!(
            error("HEAD /_matrix/client/v3/sync"),
            RoutesError::Method { line: 1, method: "HEAD".into() }
        );
        assert_eq!(error("GET /_synapse/x"), RoutesError::Path { line: 1, path: "/_synapse/x".into() });
        assert_eq!(error("GET /7"), RoutesError::Path { line: 1, path: "/7".into() });
        assert_eq!(error("GET sync"), RoutesError::Path { line: 1, path: "sync".into() });
        assert_eq!(
            error("GET /_matrix/client/../x"),
            RoutesError::Path { line: 1, path: "/_matrix/client/../x".into() }
        );
        assert_eq!(error("GET /_matrix/client/v3/sync now"), RoutesError::Words(1));
        assert_eq!(error("# nothing\n"), RoutesError::Empty);
        assert_eq!(error(&"sync\n".repeat(1_001)), RoutesError::TooMany);
    }

    #[test]
    fn routes_are_the_same_after_json() {
        for routes in [
            Routes::Messaging,
            Routes::All,
            list("sync\nGET /_matrix/client/unstable/a/{b}\nGET /_matrix/client/v3/login"),
        ] {
            let json = serde_json::to_string(&routes).unwrap();
            assert_eq!(serde_json::from_str::<Routes>(&json).unwrap(), routes, "{json}");
        }
        assert!(serde_json::from_str::<Routes>("\"some\"").is_err());
        assert!(serde_json::from_str::<Routes>("[]").is_err());
    }
}
