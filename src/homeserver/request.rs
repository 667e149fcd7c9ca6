//! What goes in and comes out of the homeserver: requests, replies, refusals.

use bytes::Bytes;
use http::Method;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// One HTTP request, as far as a homeserver looks at it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// The query without its question mark, percent-encoded as it came; empty when there is none.
    pub query: String,
    /// The access token of `Authorization: Bearer`.
    pub token: Option<String>,
    /// The body.
    pub body: Bytes,
    /// When it came, in milliseconds since the Unix epoch; a long poll counts its timeout from here.
    pub arrived_ms: u64,
}

/// One HTTP response.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The JSON body.
    pub body: Value,
    /// For 429, the time to wait before the next try, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is answered.
    Reply(Reply),
    /// It is a long poll with nothing to tell yet.
    Wait {
        /// When to hand the request in again at the latest, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
}

pub(super) type Handled = Result<Value, Refusal>;

/// Who asks, found by the access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) user_id: String,
    pub(super) device_id: String,
}

impl Caller {
    /// Refuses unless the path speaks of the caller.
    pub(super) fn is(&self, user_id: &str) -> Result<(), Refusal> {
        if self.user_id == user_id { Ok(()) } else { Err(Refusal::forbidden("this is another user's")) }
    }
}

/// A request whose route is known.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) request: &'a Request,
    pub(super) parameters: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) now_ms: u64,
}

impl Call<'_> {
    /// The path parameter of that number; empty where the route has none.
    pub(super) fn parameter(&self, number: usize) -> &str {
        self.parameters.get(number).map_or("", String::as_str)
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn query_number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.query(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Refusal::invalid(format!("{name} is not a number")))
    }

    /// The body, which must be a JSON object.
    pub(super) fn object(&self) -> Result<Map<String, Value>, Refusal> {
        match serde_json::from_slice(&self.request.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Refusal::bad_json("the body is not an object")),
            Err(_) => Err(Refusal::new(400, "M_NOT_JSON", "the body is not JSON")),
        }
    }

    /// The body, where an absent one means an empty object.
    pub(super) fn object_or_empty(&self) -> Result<Map<String, Value>, Refusal> {
        if self.request.body.is_empty() { Ok(Map::new()) } else { self.object() }
    }
}

/// Reads a text field of a body: absent is `None`, anything but text is refused.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::bad_json(format!("{name} is not text"))),
    }
}

/// Reads a text field of a body that must be there.
pub(super) fn required<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, Refusal> {
    text(object, name)?.ok_or_else(|| Refusal::new(400, "M_MISSING_PARAM", format!("{name} is missing")))
}

/// Reads an object field of a body: absent is `None`, anything but an object is refused.
pub(super) fn object<'a>(
    of: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, Refusal> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Refusal::bad_json(format!("{name} is not an object"))),
    }
}

/// A request that is not granted: a status and the standard error body (client-server API §2 "Standard error response").
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    status: u16,
    errcode: &'static str,
    error: String,
    more: Map<String, Value>,
}

impl Refusal {
    pub(super) fn new(status: u16, errcode: &'static str, error: impl Into<String>) -> Refusal {
        Refusal { status, errcode, error: error.into(), more: Map::new() }
    }

    /// Adds fields to the body.
    pub(super) fn with(mut self, more: Map<String, Value>) -> Refusal {
        self.more = more;
        self
    }

    pub(super) fn bad_json(error: impl Into<String>) -> Refusal {
        Refusal::new(400, "M_BAD_JSON", error)
    }

    pub(super) fn invalid(error: impl Into<String>) -> Refusal {
        Refusal::new(400, "M_INVALID_PARAM", error)
    }

    pub(super) fn missing_token() -> Refusal {
        Refusal::new(401, "M_MISSING_TOKEN", "an access token is needed")
    }

    pub(super) fn unknown_token() -> Refusal {
        Refusal::new(401, "M_UNKNOWN_TOKEN", "the access token is not known")
            .with(Map::from_iter([("soft_logout".to_owned(), json!(false))]))
    }

    /// §"Soft logout": the session is there, and only its token has ended.
    pub(super) fn ended_token() -> Refusal {
        Refusal::new(401, "M_UNKNOWN_TOKEN", "the access token has ended")
            .with(Map::from_iter([("soft_logout".to_owned(), json!(true))]))
    }

    pub(super) fn forbidden(error: impl Into<String>) -> Refusal {
        Refusal::new(403, "M_FORBIDDEN", error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Refusal {
        Refusal::new(404, "M_NOT_FOUND", error)
    }

    pub(super) fn unrecognized(status: u16) -> Refusal {
        Refusal::new(status, "M_UNRECOGNIZED", "this homeserver does not know such a request")
    }

    pub(super) fn too_large(limit: usize) -> Refusal {
        Refusal::new(413, "M_TOO_LARGE", format!("the limit is {limit} bytes"))
    }

    pub(super) fn too_many(what: &str, limit: usize) -> Refusal {
        Refusal::new(429, "M_LIMIT_EXCEEDED", format!("the limit of {limit} {what} is reached"))
            .with(Map::from_iter([("retry_after_ms".to_owned(), json!(1_000))]))
    }

    pub(super) fn over_limit(what: &str, limit: usize) -> Refusal {
        let error = format!("the limit of {limit} {what} is reached");
        Refusal::new(403, "M_RESOURCE_LIMIT_EXCEEDED", error)
            .with(Map::from_iter([("admin_contact".to_owned(), json!("mailto:nobody@localhost"))]))
    }

    pub(super) fn into_reply(self) -> Reply {
        let retry_after_ms = self.more.get("retry_after_ms").and_then(Value::as_u64);
        let mut body = Map::new();
        // A first round of user-interactive authentication (§5.6) is no error and has no code.
        if !self.errcode.is_empty() {
            body.insert("errcode".to_owned(), json!(self.errcode));
            body.insert("error".to_owned(), json!(self.error));
        }
        body.extend(self.more);
        Reply { status: self.status, body: Value::Object(body), retry_after_ms }
    }
}

/// Splits a path at its slashes and decodes each part. An empty last part, after a trailing slash, stays.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| percent_decode(segment).ok_or_else(|| Refusal::invalid("the path is not UTF-8")))
        .collect()
}

/// Splits and decodes a query as an HTML form would be. What is not UTF-8 is left out.
pub(super) fn query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key)?, decode(value)?))
        })
        .collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = if *first == b'%' { after.split_at_checked(2) } else { None };
        let decoded = escaped.and_then(|(digits, after)| Some((hex(digits)?, after)));
        let (byte, after) = decoded.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn hex(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |byte, digit| Some(byte << 4 | char::from(*digit).to_digit(16)? as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_decoded_segment_by_segment() {
        assert_eq!(segments("/a/%23b%3Ac%2Fd/").unwrap(), ["a", "#b:c/d", ""]);
        assert_eq!(segments("/%").unwrap(), ["%"]);
        assert_eq!(segments("/%zz%4").unwrap(), ["%zz%4"]);
        assert_eq!(segments("/%ff").unwrap_err().status, 400);
    }

    #[test]
    fn query_is_decoded_as_a_form() {
        let pairs = query("a=b+c&&d&e=%2B%3D=");
        let expected = [("a", "b c"), ("d", ""), ("e", "+==")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
