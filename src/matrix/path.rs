//! Paths both ways: CoAP Uri-Path segments → HTTP path and back (MSC3079 "HTTP -> CoAP", RFC 7252 §6.4 and §6.5).
//!
//! Segments are text; a path is percent-encoded. What is forwarded lies in the client-server API: the gateway is no
//! open proxy.

use crate::matrix::percent;
use crate::matrix::route::Route;
use crate::matrix::route::routes;

/// RFC 7252 §5.10: no Uri-Path option is longer, in bytes.
const LONGEST_SEGMENT: usize = 255;

/// RFC 3986 §3.3: these may stand unencoded in a segment. `+` and `;` may too, but there are servers that read them as
/// a space and as the start of a parameter.
const RAW_IN_SEGMENT: &[u8] = b"!$&'()*,=:@";

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The HTTP path, percent-encoded, without a query.
    pub path: String,
    /// The route, if the table has it. Paths it does not have are forwarded all the same.
    pub route: Option<&'static Route>,
}

impl Target {
    /// Whether this is the operation of that name, one of those in [`operation`](crate::matrix::route::operation).
    pub fn is(&self, operation: &str) -> bool {
        self.route.is_some_and(|route| route.operation == operation)
    }
}

/// Why a path is not carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// There is no segment at all.
    #[error("the path is empty")]
    Empty,
    /// One character that is no path code of version 1.
    #[error("path code {0:?} is unknown")]
    UnknownCode(char),
    /// A path code with too few or too many segments after it.
    #[error("path code {code:?} takes {}, not {actual}", takes(*least, *most))]
    Arguments {
        /// The path code.
        code: char,
        /// The fewest arguments it takes.
        least: usize,
        /// The most arguments it takes.
        most: usize,
        /// What there was.
        actual: usize,
    },
    /// A path outside the client-server API; holds its first segments.
    #[error("path /{0} is outside the client-server API")]
    Foreign(String),
    /// The segment at this place, counted from 0, is `.` or `..`.
    #[error("segment {0} of the path is a dot segment")]
    DotSegment(usize),
    /// The segment at this place, counted from 0, is empty and not the last.
    #[error("segment {0} of the path is empty")]
    EmptySegment(usize),
    /// A path does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A byte that cannot be in a path, at this place of it.
    #[error("byte {0} of the path must be percent-encoded")]
    Unencoded(usize),
    /// A `%` without two hexadecimal digits, at this byte of the path.
    #[error("byte {0} of the path is a % without two hexadecimal digits")]
    Percent(usize),
    /// The segment at this place, counted from 0, is not UTF-8 when decoded.
    #[error("segment {0} of the path is not UTF-8")]
    NotText(usize),
    /// A segment that no Uri-Path option can hold.
    #[error("segment {segment} of the path has {length} bytes; CoAP carries at most 255")]
    SegmentTooLong {
        /// Its place, counted from 0.
        segment: usize,
        /// Its length in bytes, decoded.
        length: usize,
    },
}

/// Makes Uri-Path segments the HTTP path they stand for.
///
/// A path code becomes the path of today; a full path passes as it is, whatever its version and whether the table has
/// it or not.
///
/// ```
/// let target = lowband::matrix::expand("PUT", &["9", "!a:hs", "m.room.message", "1/2"]).unwrap();
/// assert_eq!(target.path, "/_matrix/client/v3/rooms/!a:hs/send/m.room.message/1%2F2");
/// ```
pub fn expand(method: &str, segments: &[&str]) -> Result<Target, PathError> {
    let full = match short_code(segments) {
        Some(code) => long_form(code, segments.get(1..).unwrap_or_default())?,
        None => segments.to_vec(),
    };
    check(&full)?;
    Ok(Target { path: join(&full), route: Route::find(method, &full) })
}

/// Makes an HTTP path, percent-encoded and without a query, Uri-Path segments; short if it has a code.
///
/// Mirrors [`expand`]: that gives back the same path, except that a short r0 path has become v3, and that each
/// character is percent-encoded only if it must be. A code names a path whatever the method, so that is not asked for.
pub fn shorten(path: &str) -> Result<Vec<String>, PathError> {
    let decoded = split_path(path)?;
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    check(&segments)?;
    for (segment, text) in segments.iter().enumerate() {
        if text.len() > LONGEST_SEGMENT {
            return Err(PathError::SegmentTooLong { segment, length: text.len() });
        }
    }
    let Some((code, route)) = Route::find_coded(&segments).and_then(|route| Some((route.code?, route)))
    else {
        return Ok(decoded);
    };
    let arguments = route.arguments(&segments).into_iter().map(str::to_owned);
    Ok(std::iter::once(code.to_string()).chain(arguments).collect())
}

/// One character in front: no full path begins so.
fn short_code(segments: &[&str]) -> Option<char> {
    let mut characters = segments.first()?.chars();
    characters.next().filter(|_| characters.next().is_none())
}

fn long_form<'a>(code: char, arguments: &[&'a str]) -> Result<Vec<&'a str>, PathError> {
    let coded = || routes().iter().filter(|route| route.code == Some(code));
    if let Some(route) = coded().find(|route| route.parameters().count() == arguments.len()) {
        return Ok(route.fill(arguments));
    }
    let counts = || coded().map(|route| route.parameters().count());
    let (Some(least), Some(most)) = (counts().min(), counts().max()) else {
        return Err(PathError::UnknownCode(code));
    };
    Err(PathError::Arguments { code, least, most, actual: arguments.len() })
}

/// The rules for every path that crosses, full and decoded.
fn check(segments: &[&str]) -> Result<(), PathError> {
    let (_, leading) = segments.split_last().ok_or(PathError::Empty)?;
    let place = |place: usize| segments.get(place).copied().unwrap_or_default();
    if !Route::prefix_is_known(place(0), place(1)) {
        return Err(PathError::Foreign(join(segments.get(..2).unwrap_or(segments)).split_off(1)));
    }
    // RFC 3986 §5.2.4: whoever normalises the path would take these, and what is before them, away.
    if let Some(place) = segments.iter().position(|segment| matches!(*segment, "." | "..")) {
        return Err(PathError::DotSegment(place));
    }
    // A reverse proxy may merge slashes: the homeserver would serve another route than the one matched here. The last
    // segment may be empty: so are state keys, and the list of push rules ends in a slash.
    if let Some(place) = leading.iter().position(|segment| segment.is_empty()) {
        return Err(PathError::EmptySegment(place));
    }
    Ok(())
}

/// The path of decoded segments, each percent-encoded where it must be.
pub(crate) fn join(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        percent::encode(segment, RAW_IN_SEGMENT, &mut path);
    }
    path
}

/// The segments of a path, percent-decoded, whatever they mean (RFC 7252 §6.4).
pub fn split_path(path: &str) -> Result<Vec<String>, PathError> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(PathError::NotAbsolute);
    };
    if let Some(place) = path.bytes().position(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#'))
    {
        return Err(PathError::Unencoded(place));
    }
    let mut start = 1;
    let mut segments = Vec::new();
    for (segment, encoded) in relative.split('/').enumerate() {
        let text = percent::decode(encoded).map_err(|error| match error {
            percent::DecodeError::Malformed(place) => PathError::Percent(start + place),
            percent::DecodeError::NotText => PathError::NotText(segment),
        })?;
        segments.push(text);
        start += encoded.len() + 1;
    }
    Ok(segments)
}

fn takes(least: usize, most: usize) -> String {
    match (least, most) {
        (1, 1) => "1 argument".to_owned(),
        _ if least == most => format!("{most} arguments"),
        _ => format!("{least} or {most} arguments"),
    }
}
