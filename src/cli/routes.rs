//! `lowband routes`: the table of Matrix routes, and what a path becomes on the wire and behind the gateway.

use clap::Args;
use serde::Serialize;

use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::MessageId;
use lowband::coap::OptionNumber;
use lowband::coap::Options;
use lowband::matrix;
use lowband::matrix::Route;

use super::Failure;
use super::output;

/// Show the table of Matrix routes, or what becomes of one path.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: the whole table; all that can be put; one path, as it crosses the link and as it reaches the homeserver
  $ lowband routes
  $ lowband routes PUT
  $ lowband routes PUT '/_matrix/client/v3/rooms/!a:hs/send/m.room.message/t1'
  $ lowband routes GET '/7?since=s1'")]
pub(crate) struct RoutesArgs {
    /// GET, PUT, POST or DELETE
    #[arg(value_name = "METHOD")]
    first: Option<String>,
    /// A path, with its query: as HTTP clients send it, or short
    #[arg(value_name = "PATH")]
    second: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: RoutesArgs) -> Result<(), Failure> {
    let (method, path) = match (args.first, args.second) {
        (Some(path), None) if path.starts_with('/') => (None, Some(path)),
        arguments => arguments,
    };
    let method = method.as_deref().map(read_method).transpose()?;
    match path {
        Some(path) => show_path(method, &path, args.json),
        None => show_table(method, args.json),
    }
}

/// The methods of the table, in its order.
fn methods() -> Vec<&'static str> {
    let mut methods = Vec::new();
    for route in matrix::routes() {
        if !methods.contains(&route.method) {
            methods.push(route.method);
        }
    }
    methods
}

fn read_method(text: &str) -> Result<&'static str, Failure> {
    methods().into_iter().find(|method| method.eq_ignore_ascii_case(text)).ok_or_else(|| {
        Failure::usage(format_args!("{text:?} is neither a method of the Matrix API nor a path"))
            .hint(format_args!("methods are {}; a path starts with /", methods().join(", ")))
    })
}

/// One row of the table.
#[derive(Serialize)]
struct Row {
    number: u16,
    code: Option<char>,
    method: &'static str,
    path: &'static str,
    operation: &'static str,
}

impl From<&Route> for Row {
    fn from(route: &Route) -> Self {
        let Route { number, code, method, path, operation, .. } = route;
        Self { number: *number, code: *code, method, path, operation }
    }
}

fn show_table(method: Option<&str>, json: bool) -> Result<(), Failure> {
    let rows: Vec<Row> = matrix::routes()
        .iter()
        .filter(|route| method.is_none_or(|method| method == route.method))
        .map(Row::from)
        .collect();
    if json {
        return output::write_json(&rows);
    }
    let width = rows.iter().map(|row| row.path.len()).max().unwrap_or_default();
    let mut text = format!("code  method  {:width$}  operation\n", "path");
    for Row { code, method, path, operation, .. } in rows {
        let code = code.unwrap_or('-');
        text.push_str(&format!("{code:<4}  {method:<6}  {path:width$}  {operation}\n"));
    }
    output::write(text.as_bytes())
}

/// What becomes of a path: the options that carry it, and the request that the gateway makes of these.
#[derive(Serialize)]
struct Mapping {
    uri_path: Vec<String>,
    uri_query: Vec<String>,
    /// The bytes of these options in a message of their own.
    bytes: usize,
    /// The same without a path code.
    bytes_in_full: usize,
    /// The HTTP path and query that the homeserver is asked for.
    upstream: String,
    routes: Vec<Row>,
}

fn show_path(method: Option<&str>, path: &str, json: bool) -> Result<(), Failure> {
    let mapping = Mapping::new(method, path)?;
    if json {
        return output::write_json(&mapping);
    }
    output::write(mapping.to_string().as_bytes())
}

impl Mapping {
    fn new(method: Option<&str>, path: &str) -> Result<Self, Failure> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let uri_query = matrix::split_query(query).map_err(Failure::new)?;
        let given = matrix::split_path(path).map_err(path_failure)?;
        // A code means the same path whatever the method, and every path can be expanded by any.
        let expand = |segments: &[String]| matrix::expand(method.unwrap_or("GET"), &as_strs(segments));
        let full = expand(&given).map_err(path_failure)?.path;
        let uri_path = matrix::shorten(&full).map_err(path_failure)?;
        let in_full = matrix::split_path(&full).map_err(path_failure)?;
        let upstream = expand(&uri_path).map_err(path_failure)?.path;
        let tried = method.map_or_else(methods, |method| read_method(method).into_iter().collect());
        let routes = tried
            .into_iter()
            .filter_map(|method| matrix::expand(method, &as_strs(&uri_path)).ok()?.route)
            .map(Row::from)
            .collect();
        let upstream = match matrix::expand_query(&as_strs(&uri_query)) {
            query if query.is_empty() => upstream,
            query => format!("{upstream}?{query}"),
        };
        Ok(Self {
            bytes: encoded_size(&uri_path, &uri_query),
            bytes_in_full: encoded_size(&in_full, &uri_query),
            uri_path,
            uri_query,
            upstream,
            routes,
        })
    }
}

impl std::fmt::Display for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "on the link")?;
        for segment in &self.uri_path {
            writeln!(f, "  Uri-Path   {segment:?}")?;
        }
        for parameter in &self.uri_query {
            writeln!(f, "  Uri-Query  {parameter:?}")?;
        }
        let seconds = self.bytes as f64 * 8.0 / 100.0;
        write!(f, "  {} bytes, {seconds:.1} s at 100 bit/s", self.bytes)?;
        match self.bytes_in_full - self.bytes {
            0 => writeln!(f, "; there is no shorter form")?,
            saved => writeln!(f, "; the path code saves {saved} bytes")?,
        }
        writeln!(f, "at the homeserver")?;
        writeln!(f, "  {}", self.upstream)?;
        match self.routes.as_slice() {
            [] => writeln!(f, "  not in the table of routes, passed on as it is"),
            routes => routes.iter().try_for_each(|row| writeln!(f, "  {:<6}  {}", row.method, row.operation)),
        }
    }
}

fn encoded_size(uri_path: &[String], uri_query: &[String]) -> usize {
    let mut options = Options::new();
    for segment in uri_path {
        options.push(OptionNumber::URI_PATH, segment.as_bytes());
    }
    for parameter in uri_query {
        options.push(OptionNumber::URI_QUERY, parameter.as_bytes());
    }
    let empty = Message::empty(Kind::Confirmable, MessageId(0));
    let header = empty.encode().len();
    Message { options, ..empty }.encode().len() - header
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn path_failure(error: matrix::PathError) -> Failure {
    let failure = Failure::new(&error);
    match error {
        matrix::PathError::UnknownCode(_) | matrix::PathError::Arguments { .. } => {
            failure.hint("lowband routes lists the path codes and what they stand for")
        }
        matrix::PathError::Foreign(_) => {
            failure.hint("the gateway carries what begins with /_matrix/client/ and the like")
        }
        matrix::PathError::Unencoded(_) | matrix::PathError::Percent(_) => {
            failure.hint("write # as %23, / inside a segment as %2F, ? as %3F, a space as %20")
        }
        _ => failure,
    }
}
