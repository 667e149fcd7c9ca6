//! Answers that a proxy makes by itself, and what it adds to those of the homeserver.

use bytes::Bytes;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use serde_json::Value;

use crate::matrix::error;
use crate::matrix::error::ErrorCode;

/// Matrix v1.19 client-server API, "Web Browser Clients".
const CORS: [(header::HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
];

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, body: &Value) -> http::Response<Bytes> {
    of_json(status, body.to_string().into_bytes())
}

/// A Matrix error.
pub(super) fn error(status: StatusCode, errcode: ErrorCode, message: &str) -> http::Response<Bytes> {
    of_json(status, error::body(errcode, message))
}

/// Tells a client to come back after so many milliseconds, which clients do by themselves (Matrix v1.19, "Rate limiting").
pub(super) fn later(milliseconds: u64, message: &str) -> http::Response<Bytes> {
    let body = serde_json::json!({
        "errcode": ErrorCode::LimitExceeded.name(), "error": message, "retry_after_ms": milliseconds
    });
    let mut response = json(StatusCode::TOO_MANY_REQUESTS, &body);
    response.headers_mut().insert(header::RETRY_AFTER, milliseconds.div_ceil(1_000).into());
    response
}

/// Gives an answer what browsers want of it.
pub(super) fn finish(mut response: http::Response<Bytes>) -> http::Response<Bytes> {
    let headers = response.headers_mut();
    headers.extend(CORS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.remove(header::TRANSFER_ENCODING);
    response
}

fn of_json(status: StatusCode, body: Vec<u8>) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
