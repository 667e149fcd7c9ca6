//! HTTP statuses ⇄ CoAP response codes (RFC 8075 §7, RFC 8516, RFC 8132).

use http::Method;
use http::StatusCode;

use crate::coap::Code;

/// The response code for an HTTP status in answer to `method`.
///
/// Statuses without a code of their own get the general one of their class, and those that are no answer to a CoAP client
/// 5.02; whether the code says it all, [`is_exact`] tells.
pub fn to_coap(status: StatusCode, method: &Method) -> Code {
    match status.as_u16() {
        201 => Code::CREATED,
        200..=299 => success(method),
        401 => Code::UNAUTHORIZED,
        403 => Code::FORBIDDEN,
        404 => Code::NOT_FOUND,
        405 => Code::METHOD_NOT_ALLOWED,
        406 => Code::NOT_ACCEPTABLE,
        409 => Code::CONFLICT,
        412 => Code::PRECONDITION_FAILED,
        413 => Code::REQUEST_ENTITY_TOO_LARGE,
        415 => Code::UNSUPPORTED_CONTENT_FORMAT,
        422 => Code::UNPROCESSABLE_ENTITY,
        429 => Code::TOO_MANY_REQUESTS,
        // Not 402 and 408: 4.02 is about options and 4.08 about blocks, and peers act on these.
        400..=499 => Code::BAD_REQUEST,
        501 => Code::NOT_IMPLEMENTED,
        502 => Code::BAD_GATEWAY,
        503 => Code::SERVICE_UNAVAILABLE,
        504 => Code::GATEWAY_TIMEOUT,
        // Not 505: 5.05 is about proxying.
        500..=599 => Code::INTERNAL_SERVER_ERROR,
        _ => Code::BAD_GATEWAY,
    }
}

/// The HTTP status for a response code (RFC 8075 §7, Table 2). Codes that are not known count as the general one of their
/// class (RFC 7252 §5.9).
pub fn to_http(code: Code) -> StatusCode {
    match code {
        Code::CREATED => StatusCode::CREATED,
        Code::VALID => StatusCode::NOT_MODIFIED,
        Code::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
        Code::FORBIDDEN => StatusCode::FORBIDDEN,
        Code::NOT_FOUND => StatusCode::NOT_FOUND,
        Code::METHOD_NOT_ALLOWED => StatusCode::METHOD_NOT_ALLOWED,
        Code::NOT_ACCEPTABLE => StatusCode::NOT_ACCEPTABLE,
        Code::CONFLICT => StatusCode::CONFLICT,
        Code::PRECONDITION_FAILED => StatusCode::PRECONDITION_FAILED,
        Code::REQUEST_ENTITY_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UNSUPPORTED_CONTENT_FORMAT => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::UNPROCESSABLE_ENTITY => StatusCode::UNPROCESSABLE_ENTITY,
        Code::TOO_MANY_REQUESTS => StatusCode::TOO_MANY_REQUESTS,
        Code::NOT_IMPLEMENTED => StatusCode::NOT_IMPLEMENTED,
        // 5.05: the next hop would not forward it, which is a bad gateway to who asked us.
        Code::BAD_GATEWAY | Code::PROXYING_NOT_SUPPORTED => StatusCode::BAD_GATEWAY,
        Code::SERVICE_UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        Code::GATEWAY_TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
        // RFC 8768 §6.
        Code::HOP_LIMIT_REACHED => StatusCode::LOOP_DETECTED,
        other => match other.class() {
            2 => StatusCode::OK,
            4 => StatusCode::BAD_REQUEST,
            5 => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        },
    }
}

/// Whether the code alone gives the status back.
pub fn is_exact(code: Code, status: StatusCode) -> bool {
    to_http(code) == status
}

/// RFC 7252 §5.8: what a method answers when it has succeeded.
fn success(method: &Method) -> Code {
    match *method {
        Method::PUT | Method::POST => Code::CHANGED,
        Method::DELETE => Code::DELETED,
        _ => Code::CONTENT,
    }
}
