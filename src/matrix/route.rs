//! The table of Matrix routes, `dictionaries/routes.tsv`, and finding a path in it.
//!
//! Methods, paths and codes are spelled in the table alone; code asks a [`Route`] what it is.

use std::cmp::Ordering;
use std::sync::LazyLock;

const TABLE: &str = include_str!("../../dictionaries/routes.tsv");

static ROUTES: LazyLock<Vec<Route>> =
    LazyLock::new(|| parse(TABLE).expect("dictionaries/routes.tsv is parsed by a test"));

/// The place of the version in a path, and the versions that name the same routes: MSC3079 was written against r0,
/// which Matrix 1.1 renamed to v3.
const VERSION: (usize, &str, &str) = (2, "v3", "r0");

/// One method and path of the client-server API.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The row in the table. Never changes once published.
    pub number: u16,
    /// The path code of MSC3079 version 1. It names the path, whatever the method.
    pub code: Option<char>,
    /// The HTTP method, in capitals.
    pub method: &'static str,
    /// The path template: `{name}` stands for one segment.
    pub path: &'static str,
    /// Whether an access token is needed.
    pub auth: Auth,
    /// Whether the specification lets a server limit the rate of such requests.
    pub rate_limited: bool,
    /// The `operationId` of the Matrix API definition; rows made from one operation share it.
    pub operation: &'static str,
    segments: Vec<Segment>,
}

/// Whether a route needs an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// It is for everyone.
    None,
    /// It answers differently when there is one.
    Optional,
    /// Without one it refuses.
    Required,
}

/// The operations that `lowband` itself does something about.
pub mod operation {
    /// Synchronise the client's state and receive new messages.
    pub const SYNC: &str = "sync";
    /// The versions of the specification supported by the server.
    pub const VERSIONS: &str = "getVersions";
    /// Where the homeserver of a domain is.
    pub const WELL_KNOWN: &str = "getWellknown";
    /// Authenticate the user.
    pub const LOGIN: &str = "login";
}

/// All routes, in the order of their numbers.
pub fn routes() -> &'static [Route] {
    &ROUTES
}

impl Route {
    /// The route of `method` and the decoded `segments` of a path. A literal segment beats a parameter, r0 counts as v3.
    pub fn find(method: &str, segments: &[&str]) -> Option<&'static Route> {
        routes()
            .iter()
            .filter(|route| route.method == method && route.matches(segments))
            .max_by(|a, b| a.literals_first(b))
    }

    /// The route with a path code, whatever its method, that `segments` match.
    pub(super) fn find_coded(segments: &[&str]) -> Option<&'static Route> {
        routes()
            .iter()
            .filter(|route| route.code.is_some() && route.matches(segments))
            .max_by(|a, b| a.literals_first(b))
    }

    /// The names of the parameters, in the order of the path.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(*name),
            Segment::Literal(_) => None,
        })
    }

    /// The segments of the path with `arguments` for its parameters. A missing argument is empty.
    pub(super) fn fill<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = arguments.iter();
        let next = |segment: &Segment| match segment {
            Segment::Literal(text) => *text,
            Segment::Parameter(_) => arguments.next().copied().unwrap_or_default(),
        };
        self.segments.iter().map(next).collect()
    }

    /// What stands for the parameters in `segments`, which match.
    pub(super) fn arguments<'a>(&self, segments: &[&'a str]) -> Vec<&'a str> {
        let pairs = self.segments.iter().zip(segments);
        pairs.filter(|(own, _)| matches!(own, Segment::Parameter(_))).map(|(_, text)| *text).collect()
    }

    /// Whether the first two segments begin some route: outside of these the gateway forwards nothing.
    pub(super) fn prefix_is_known(first: &str, second: &str) -> bool {
        routes().iter().any(|route| match route.segments.as_slice() {
            [Segment::Literal(a), Segment::Literal(b), ..] => (*a, *b) == (first, second),
            _ => false,
        })
    }

    fn matches(&self, segments: &[&str]) -> bool {
        let fits = |(place, (own, text)): (usize, (&Segment, &&str))| match own {
            Segment::Parameter(_) => true,
            Segment::Literal(own) => own == text || (place, *own, *text) == VERSION,
        };
        self.segments.len() == segments.len() && self.segments.iter().zip(segments).enumerate().all(fits)
    }

    /// Greater is the one with a literal where the paths first differ.
    fn literals_first(&self, other: &Route) -> Ordering {
        let literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
        self.segments.iter().map(literal).cmp(other.segments.iter().map(literal))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    Literal(&'static str),
    Parameter(&'static str),
}

fn parse(table: &'static str) -> Result<Vec<Route>, String> {
    let lines = table.lines().filter(|line| !line.starts_with('#')).skip(1);
    lines.map(|line| row(line).ok_or_else(|| format!("cannot read the row {line:?}"))).collect()
}

fn row(line: &'static str) -> Option<Route> {
    let mut fields = line.split('\t');
    let route = Route {
        number: fields.next()?.parse().ok()?,
        code: code(fields.next()?)?,
        method: fields.next()?,
        path: fields.next()?,
        auth: auth(fields.next()?)?,
        rate_limited: yes(fields.next()?)?,
        operation: fields.next()?,
        segments: Vec::new(),
    };
    let segments = route.path.strip_prefix('/')?.split('/').map(segment).collect();
    fields.next().is_none().then_some(Route { segments, ..route })
}

fn code(field: &str) -> Option<Option<char>> {
    let mut characters = field.chars();
    let code = characters.next().filter(|&c| c != '-');
    characters.next().is_none().then_some(code)
}

fn auth(field: &str) -> Option<Auth> {
    match field {
        "none" => Some(Auth::None),
        "optional" => Some(Auth::Optional),
        "required" => Some(Auth::Required),
        _ => None,
    }
}

fn yes(field: &str) -> Option<bool> {
    match field {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn segment(text: &'static str) -> Segment {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(name) => Segment::Parameter(name),
        None => Segment::Literal(text),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn table_is_read_to_the_last_row() {
        let routes = parse(TABLE).expect("a table");
        let rows = TABLE.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
        assert_eq!(routes.len(), rows);
    }

    #[test]
    fn a_bad_row_is_named() {
        let error = parse("number\n7\t-\tGET\t/a\tmaybe\tno\tx\n").expect_err("auth is wrong");
        assert!(error.contains("maybe"), "{error}");
        assert!(parse("number\n7\t-\tGET\t/a\tnone\tno\tx\tmore\n").is_err());
        assert!(parse("number\n7\tab\tGET\t/a\tnone\tno\tx\n").is_err());
        assert!(parse("number\n7\t-\tGET\ta\tnone\tno\tx\n").is_err());
    }

    #[test]
    fn numbers_are_the_order_of_the_rows() {
        for (place, route) in routes().iter().enumerate() {
            assert_eq!(usize::from(route.number), place, "{}", route.path);
        }
    }

    #[test]
    fn no_two_rows_match_the_same_paths() {
        let mut seen = BTreeSet::new();
        for route in routes() {
            let shape: Vec<_> =
                route.path.split('/').map(|s| if s.starts_with('{') { "{}" } else { s }).collect();
            assert!(seen.insert((route.method, shape)), "{} {} is there twice", route.method, route.path);
        }
    }

    #[test]
    fn operations_the_code_asks_for_are_in_the_table() {
        use operation::*;
        for operation in [SYNC, VERSIONS, WELL_KNOWN, LOGIN] {
            assert!(routes().iter().any(|route| route.operation == operation), "{operation}");
        }
    }

    #[test]
    fn literal_segments_beat_parameters() {
        let found = |path: &str| {
            let segments: Vec<_> = path.split('/').skip(1).collect();
            Route::find("GET", &segments).map(|route| route.path)
        };
        assert_eq!(
            found("/_matrix/client/v3/profile/@a:b/displayname"),
            Some("/_matrix/client/v3/profile/{userId}/displayname")
        );
        assert_eq!(
            found("/_matrix/client/v3/profile/@a:b/m.tz"),
            Some("/_matrix/client/v3/profile/{userId}/{keyName}")
        );
        assert_eq!(found("/_matrix/client/r0/sync"), Some("/_matrix/client/v3/sync"));
        assert_eq!(found("/_matrix/client/v1/sync"), None);
        assert_eq!(found("/_matrix/client/v3/sync/"), None);
    }
}
