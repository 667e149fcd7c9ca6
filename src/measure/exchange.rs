//! A recorded exchange: one line of a recording.

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::class::Class;

/// What a client asked a homeserver over HTTP, and what that answered. Bodies are compact JSON, or nothing.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The line of the recording.
    pub line: u64,
    /// The request: its method, its path and query as they were sent, `Authorization` where there was one.
    pub request: Request<Bytes>,
    /// The answer.
    pub response: Response<Bytes>,
}

/// What is wrong with a line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// It is no JSON object with the members that an exchange has.
    #[error("not an exchange: {0}")]
    Json(serde_json::Error),
    /// No method of HTTP.
    #[error("{0:?} is no method")]
    Method(String),
    /// No path that could have been sent.
    #[error("{0:?} is no path")]
    Path(String),
    /// No status of HTTP.
    #[error("{0} is no status")]
    Status(u16),
    /// A header that HTTP cannot carry.
    #[error("the authorization header has characters that no header has")]
    Authorization,
}

/// The members that are read; a line may have others.
#[derive(Deserialize)]
struct Line {
    method: String,
    path: String,
    #[serde(default)]
    req_headers: Headers,
    #[serde(default)]
    req: Option<Value>,
    status: u16,
    #[serde(default)]
    resp: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Headers {
    authorization: Option<String>,
}

impl Exchange {
    /// Reads the line of this number.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: u64, text: &[u8]) -> Result<Self, ExchangeError> {
        let read: Line = serde_json::from_slice(text).map_err(ExchangeError::Json)?;
        let mut request = Request::new(body(read.req.as_ref()));
        let method = Method::from_bytes(read.method.as_bytes());
        *request.method_mut() = method.map_err(|_| ExchangeError::Method(read.method))?;
        let uri: Option<Uri> = read.path.parse().ok().filter(|_| read.path.starts_with('/'));
        *request.uri_mut() = uri.ok_or(ExchangeError::Path(read.path))?;
        if let Some(authorization) = read.req_headers.authorization {
            let mut value = HeaderValue::try_from(authorization).map_err(|_| ExchangeError::Authorization)?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let mut response = Response::new(body(read.resp.as_ref()));
        let status = StatusCode::from_u16(read.status);
        *response.status_mut() = status.map_err(|_| ExchangeError::Status(read.status))?;
        if !response.body().is_empty() {
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        Ok(Self { line, request, response })
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        self.request.uri().path_and_query().map_or("/", |target| target.as_str())
    }

    /// Whose it is: one value, one association; none where nobody says who he is.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.request.headers().get(header::AUTHORIZATION)
    }

    /// What it is for.
    pub fn class(&self) -> Class {
        Class::of(self.target(), self.response.body().len())
    }

    /// Bytes of JSON in both bodies.
    pub fn json(&self) -> usize {
        self.request.body().len() + self.response.body().len()
    }
}

fn body(value: Option<&Value>) -> Bytes {
    value.map_or_else(Bytes::new, |value| value.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_what_matters_of_it() {
        let line = r#"{"ts":1.5,"tag":"x","method":"PUT","path":"/_matrix/client/v3/rooms/!a%3Ab/typing/@c:b?x=1",
            "req_headers":{"authorization":"Bearer TOK","accept":"*/*"},"req_len":99,"req":{ "b" : 1, "a": "é" },
            "status":429,"resp_headers":{},"resp":{}}"#;
        let exchange = Exchange::read(7, line.as_bytes()).unwrap();
        assert_eq!((exchange.line, exchange.request.method()), (7, &Method::PUT));
        assert_eq!(exchange.target(), "/_matrix/client/v3/rooms/!a%3Ab/typing/@c:b?x=1");
        assert_eq!(exchange.request.body(), "{\"b\":1,\"a\":\"é\"}");
        assert_eq!((exchange.response.status().as_u16(), &exchange.response.body()[..]), (429, &b"{}"[..]));
        assert_eq!((exchange.json(), exchange.class()), (16 + 2, Class::Ephemeral));
        assert_eq!(exchange.authorization().unwrap(), "Bearer TOK");
        assert!(!format!("{exchange:?}").contains("TOK"));
    }

    #[test]
    fn what_may_be_missing_counts_as_nothing() {
        for line in [
            r#"{"method":"GET","path":"/x","status":200}"#,
            r#"{"method":"GET","path":"/x","status":200,"req":null,"resp":null,"req_headers":{}}"#,
        ] {
            let exchange = Exchange::read(1, line.as_bytes()).unwrap();
            assert_eq!((exchange.json(), exchange.authorization()), (0, None));
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, told) in [
            ("", "not an exchange: EOF"),
            ("[]", "not an exchange: "),
            (r#"{"path":"/x","status":200}"#, "not an exchange: missing field `method`"),
            (r#"{"method":"GET","status":200}"#, "not an exchange: missing field `path`"),
            (r#"{"method":"GET","path":"/x"}"#, "not an exchange: missing field `status`"),
            (r#"{"method":"GET","path":"/x","status":"200"}"#, "not an exchange: invalid type"),
            (r#"{"method":"GET","path":"/x","status":1}"#, "1 is no status"),
            (r#"{"method":"G T","path":"/x","status":200}"#, "\"G T\" is no method"),
            (r#"{"method":"GET","path":"/a b","status":200}"#, "\"/a b\" is no path"),
            (r#"{"method":"GET","path":"http://a/","status":200}"#, "\"http://a/\" is no path"),
            (
                r#"{"method":"GET","path":"/x","status":200,"req_headers":{"authorization":"a\nb"}}"#,
                "the authorization header has characters",
            ),
        ] {
            let error = Exchange::read(1, line.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(told), "{line}: {error}");
        }
    }
}
