//! Responses: HTTP → CoAP at a gateway, CoAP → HTTP at a client, and refusals, which get their code here (RFC 8075 §7).

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use serde::Deserialize;

use crate::coap;
use crate::coap::Code;
use crate::coap::OptionNumber;
use crate::codec;
use crate::codec::Limits;
use crate::device::Excess;
use crate::device::Refused;
use crate::device::TokenError;
use crate::matrix::PathError;
use crate::matrix::error;
use crate::matrix::error::ErrorCode;
use crate::matrix::rewrite;
use crate::matrix::rewrite::Advertise;
use crate::packed;
use crate::translate::body;
use crate::translate::body::Format;
use crate::translate::call::Call;
use crate::translate::refusal::FetchError;
use crate::translate::refusal::Refusal;
use crate::translate::status;

/// The answer to a peer, from the homeserver's answer to its call.
///
/// # Errors
/// An answer that cannot be carried; [`refuse`] makes something of it that can.
pub fn to_coap(
    call: &Call,
    response: &http::Response<Bytes>,
    advertise: &Advertise,
    limits: &Limits,
) -> Result<coap::Response, Refusal> {
    let status = response.status();
    let mut translated = with_status(status, &call.method);
    if let Some(seconds) = retry_after(response) {
        translated.options.set_uint(OptionNumber::MAX_AGE, seconds);
    }
    let body = response.body();
    if body.is_empty() {
        return Ok(translated);
    }
    let json = carried(call, response, advertise)?;
    translated.payload = call.format.write(&json, limits).map_err(|error| match error {
        codec::EncodeError::Syntax { .. } => Refusal::NotJson { status },
        error => Refusal::Unencodable { status, error },
    })?;
    translated.options.push_uint(OptionNumber::CONTENT_FORMAT, call.format.content_format());
    Ok(translated)
}

/// What is carried of a body that is not empty.
fn carried<'a>(
    call: &Call,
    response: &'a http::Response<Bytes>,
    advertise: &Advertise,
) -> Result<Cow<'a, [u8]>, Refusal> {
    let (status, body) = (response.status(), response.body());
    if !is_json(response.headers()) {
        return Err(Refusal::NotJson { status });
    }
    Ok(match call.target.route.filter(|_| status.is_success()) {
        Some(route) => rewrite::rewrite(route, body, advertise),
        None => Cow::Borrowed(body.as_ref()),
    })
}

/// The answer to a peer by the packed profile: the response, and what is to be packed as its payload.
///
/// # Errors
/// An answer that cannot be carried, as for [`to_coap`].
pub fn to_packed(
    call: &Call,
    response: &http::Response<Bytes>,
    advertise: &Advertise,
    limits: &Limits,
) -> Result<(coap::Response, packed::Response), Refusal> {
    let status = response.status();
    let code = status::to_coap(status, &call.method);
    let mut translated = coap::Response::new(code);
    if let Some(seconds) = retry_after(response) {
        translated.options.set_uint(OptionNumber::MAX_AGE, seconds);
    }
    let exact = status::is_exact(code, status);
    let mut packed = packed::Response { status: (!exact).then_some(status.as_u16()), body: None };
    if !response.body().is_empty() {
        let json = carried(call, response, advertise)?;
        if json.len() > limits.output {
            let error = codec::EncodeError::Output { limit: limits.output };
            return Err(Refusal::Unencodable { status, error });
        }
        packed.body = Some(json.into_owned());
    }
    Ok((translated, packed))
}

/// The HTTP response for a CoAP response by the packed profile, of which this was packed.
pub fn of_packed(response: &coap::Response, packed: packed::Response) -> http::Response<Bytes> {
    let exact = packed.status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = exact.unwrap_or_else(|| status::to_http(response.code));
    let mut translated = http::Response::new(packed.body.unwrap_or_default().into());
    *translated.status_mut() = status;
    describe(response, &mut translated);
    translated
}

/// The answer to a request that is refused: a code, and a Matrix error body in the format the peer reads.
pub fn refuse(refusal: &Refusal, format: Format) -> coap::Response {
    let (mut response, errcode) = match refusal {
        // The status survives though its body cannot: whoever was told to wait or to send less shall know.
        Refusal::NotJson { status } | Refusal::Unencodable { status, .. } if status.as_u16() >= 400 => {
            (with_status(*status, &Method::GET), errcode(*status))
        }
        _ => {
            let (code, errcode) = code(refusal);
            (coap::Response::new(code), errcode)
        }
    };
    if let Some(seconds) = max_age(refusal) {
        response.options.set_uint(OptionNumber::MAX_AGE, seconds);
    }
    let body = error::body(errcode, &refusal.to_string());
    // The body is JSON and small, so there is no error; without a body the code still says what matters.
    if let Ok(payload) = format.write(&body, &Limits::default()) {
        response.payload = payload;
        response.options.push_uint(OptionNumber::CONTENT_FORMAT, format.content_format());
    }
    response
}

/// The HTTP response for a CoAP response: status, JSON body, and `Retry-After` where there is one.
///
/// Reads what deployed servers send: bodies labelled 60, 50, 42 or not at all, and code 0.00 for statuses they cannot map.
///
/// # Errors
/// A body that cannot be read.
pub fn to_http(response: &coap::Response, limits: &Limits) -> Result<http::Response<Bytes>, ReadError> {
    let json = read_body(response, limits)?;
    let status = exact_status(response).unwrap_or_else(|| match response.code {
        Code::EMPTY => guess_status(&json),
        code => status::to_http(code),
    });
    let mut translated = http::Response::new(json);
    *translated.status_mut() = status;
    describe(response, &mut translated);
    Ok(translated)
}

/// Gives a response the headers that a client is to see.
fn describe(response: &coap::Response, translated: &mut http::Response<Bytes>) {
    let (status, has_body) = (translated.status(), !translated.body().is_empty());
    let headers = translated.headers_mut();
    if let Some(seconds) = response.options.get_uint(OptionNumber::MAX_AGE).filter(|_| says_when(status)) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if has_body {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
}

/// Why a CoAP response cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A representation that is neither CBOR nor JSON.
    #[error("the answer has content format {0}, which is neither CBOR nor JSON")]
    ContentFormat(u32),
    /// A body that is not CBOR.
    #[error("the answer is not CBOR: {0}")]
    Body(#[from] codec::DecodeError),
}

/// A response with the code of a status, and the exact status beside it where the code does not give it back.
fn with_status(status: StatusCode, method: &Method) -> coap::Response {
    let code = status::to_coap(status, method);
    let mut response = coap::Response::new(code);
    if !status::is_exact(code, status) {
        response.options.push_uint(OptionNumber::HTTP_STATUS, status.as_u16().into());
    }
    response
}

fn code(refusal: &Refusal) -> (Code, ErrorCode) {
    match refusal {
        Refusal::Method(_) | Refusal::HttpMethod(_) => (Code::METHOD_NOT_ALLOWED, ErrorCode::Unrecognized),
        Refusal::Proxy => (Code::PROXYING_NOT_SUPPORTED, ErrorCode::Forbidden),
        Refusal::Option(_) => (Code::BAD_OPTION, ErrorCode::Unrecognized),
        Refusal::Path(PathError::Foreign(_)) => (Code::FORBIDDEN, ErrorCode::Forbidden),
        Refusal::Path(PathError::Empty | PathError::UnknownCode(_) | PathError::Arguments { .. }) => {
            (Code::NOT_FOUND, ErrorCode::Unrecognized)
        }
        Refusal::Path(_) | Refusal::Query(_) => (Code::BAD_REQUEST, ErrorCode::InvalidParam),
        Refusal::UriTooLong => (Code::BAD_REQUEST, ErrorCode::TooLarge),
        Refusal::AccessToken | Refusal::UnknownToken => (Code::UNAUTHORIZED, ErrorCode::UnknownToken),
        Refusal::Device(refused) => device_code(refused),
        Refusal::Packed(error) => packed_code(error),
        Refusal::NoAgreement => (Code::PRECONDITION_FAILED, ErrorCode::Unknown),
        Refusal::Dictionary { .. } => (Code::CONFLICT, ErrorCode::Unrecognized),
        Refusal::Fetch(FetchError::Token(TokenError::Unavailable { .. })) => {
            (Code::SERVICE_UNAVAILABLE, ErrorCode::Unknown)
        }
        Refusal::Fetch(FetchError::Token(_)) => (Code::UNAUTHORIZED, ErrorCode::UnknownToken),
        Refusal::ContentFormat(_) => (Code::UNSUPPORTED_CONTENT_FORMAT, ErrorCode::NotJson),
        Refusal::Accept(_) => (Code::NOT_ACCEPTABLE, ErrorCode::Unrecognized),
        Refusal::Body(codec::DecodeError::Output { .. }) => {
            (Code::REQUEST_ENTITY_TOO_LARGE, ErrorCode::TooLarge)
        }
        Refusal::Body(_) => (Code::BAD_REQUEST, ErrorCode::NotJson),
        // Not 5.03, after which a client may try again by itself.
        Refusal::Interrupted => (Code::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
        Refusal::ShuttingDown | Refusal::NotReady => (Code::SERVICE_UNAVAILABLE, ErrorCode::Unknown),
        Refusal::Fetch(FetchError::Unreachable(_)) => (Code::BAD_GATEWAY, ErrorCode::ConnectionFailed),
        Refusal::Fetch(FetchError::Timeout) => (Code::GATEWAY_TIMEOUT, ErrorCode::ConnectionTimeout),
        Refusal::Fetch(FetchError::TooLarge { .. })
        | Refusal::Unencodable { error: codec::EncodeError::Output { .. }, .. } => {
            (Code::REQUEST_ENTITY_TOO_LARGE, ErrorCode::TooLarge)
        }
        Refusal::NotJson { .. } | Refusal::Unencodable { .. } => (Code::BAD_GATEWAY, ErrorCode::Unknown),
    }
}

/// The code says what mends it: 4.12 a new agreement, 4.22 the same spelled out, 4.00 nothing.
fn packed_code(error: &packed::DecodeError) -> (Code, ErrorCode) {
    use packed::DecodeError;
    match error {
        DecodeError::UnknownEpoch { .. } => (Code::PRECONDITION_FAILED, ErrorCode::Unknown),
        DecodeError::UnknownAlias { .. } | DecodeError::Conflict { .. } => {
            (Code::UNPROCESSABLE_ENTITY, ErrorCode::Unknown)
        }
        DecodeError::UnknownToken(_) => (Code::BAD_REQUEST, ErrorCode::InvalidParam),
        DecodeError::UnknownPosition(_) => (Code::BAD_REQUEST, ErrorCode::UnknownPos),
        DecodeError::UnknownRoute(_) | DecodeError::UnknownRow(_) => {
            (Code::NOT_FOUND, ErrorCode::Unrecognized)
        }
        DecodeError::Output { .. } | DecodeError::Model { .. } | DecodeError::Depth { .. } => {
            (Code::REQUEST_ENTITY_TOO_LARGE, ErrorCode::TooLarge)
        }
        _ => (Code::BAD_REQUEST, ErrorCode::NotJson),
    }
}

fn device_code(refused: &Refused) -> (Code, ErrorCode) {
    match refused {
        Refused::Revoked => (Code::UNAUTHORIZED, ErrorCode::UnknownToken),
        // Not M_UNKNOWN_TOKEN, after which a client would forget a token of which the gateway has not said that it is none.
        Refused::Token => (Code::UNAUTHORIZED, ErrorCode::Forbidden),
        Refused::Route => (Code::FORBIDDEN, ErrorCode::Forbidden),
        Refused::Excess(Excess::Payload { .. }) => (Code::REQUEST_ENTITY_TOO_LARGE, ErrorCode::TooLarge),
        Refused::Excess(_) => (Code::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded),
    }
}

/// After how many seconds a refused request is worth to be made again (RFC 8516 §3, RFC 7252 §5.9.3.4), where that is known.
fn max_age(refusal: &Refusal) -> Option<u32> {
    match refusal {
        Refusal::Device(Refused::Excess(excess)) => excess.max_age(),
        Refusal::NotReady => Some(1),
        Refusal::Fetch(FetchError::Token(TokenError::Unavailable { wait, .. })) => {
            Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1))
        }
        _ => None,
    }
}

/// What a status means where its own body cannot say.
fn errcode(status: StatusCode) -> ErrorCode {
    match status {
        StatusCode::FORBIDDEN => ErrorCode::Forbidden,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => ErrorCode::Unrecognized,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::LimitExceeded,
        _ => ErrorCode::Unknown,
    }
}

/// Statuses that may say when to try again: RFC 8516 §3 and RFC 7252 §5.9.3.4 put that into Max-Age.
fn says_when(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// The seconds of `Retry-After`, or of the `retry_after_ms` that older homeservers send, rounded up. A date in
/// `Retry-After` would need a clock and counts as none.
pub fn retry_after(response: &http::Response<Bytes>) -> Option<u32> {
    #[derive(Deserialize)]
    struct Wait {
        retry_after_ms: u64,
    }
    if !says_when(response.status()) {
        return None;
    }
    let header = response.headers().get(header::RETRY_AFTER).and_then(|header| header.to_str().ok());
    let seconds = header.and_then(|text| text.trim().parse().ok()).or_else(|| {
        let wait: Wait = serde_json::from_slice(response.body()).ok()?;
        Some(wait.retry_after_ms.div_ceil(1_000))
    });
    seconds.map(|seconds: u64| u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// Whether the body is said to be JSON, or nothing is said.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(header) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let text = header.to_str().unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

fn read_body(response: &coap::Response, limits: &Limits) -> Result<Bytes, ReadError> {
    if response.payload.is_empty() {
        return Ok(Bytes::new());
    }
    let format = response.options.get_uint(OptionNumber::CONTENT_FORMAT);
    if let Some(format) = format.filter(|_| !body::is_readable(format)) {
        return Err(ReadError::ContentFormat(format));
    }
    match body::read(&response.payload, limits) {
        Ok(decoded) => Ok(decoded.json.into()),
        Err(error) => diagnostic(response, format).ok_or(ReadError::Body(error)),
    }
}

/// RFC 7252 §5.5.2: an error without a Content-Format may explain itself in text. No CBOR map is UTF-8 from its first byte,
/// so what is text was not meant as a Matrix body.
fn diagnostic(response: &coap::Response, format: Option<u32>) -> Option<Bytes> {
    if format.is_some() || !matches!(response.code.class(), 4 | 5) {
        return None;
    }
    let message = str::from_utf8(&response.payload).ok()?;
    Some(error::body(errcode(status::to_http(response.code)), message).into())
}

/// The status that the gateway has put beside the code.
fn exact_status(response: &coap::Response) -> Option<StatusCode> {
    let status = response.options.get_uint(OptionNumber::HTTP_STATUS)?;
    StatusCode::from_u16(u16::try_from(status).ok()?).ok()
}

/// What 0.00 stood for: deployed servers have no code for 409 and 429, nor for success other than 200.
fn guess_status(json: &[u8]) -> StatusCode {
    #[derive(Deserialize)]
    struct Failure {
        errcode: String,
    }
    match serde_json::from_slice::<Failure>(json) {
        Ok(failure) if failure.errcode == ErrorCode::LimitExceeded.name() => StatusCode::TOO_MANY_REQUESTS,
        Ok(_) => StatusCode::BAD_REQUEST,
        Err(_) => StatusCode::OK,
    }
}
