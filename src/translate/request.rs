//! Requests: CoAP → HTTP at a gateway, HTTP → CoAP at a client (MSC3079 "HTTP -> CoAP", RFC 8075 §5 and §6).

use std::str;

use bytes::Bytes;
use http::Method;
use http::header;

use crate::coap;
use crate::coap::Code;
use crate::coap::OptionNumber;
use crate::coap::Options;
use crate::coap::content_format;
use crate::codec;
use crate::codec::Keys;
use crate::codec::Limits;
use crate::matrix;
use crate::matrix::PathError;
use crate::matrix::QueryError;
use crate::translate::body;
use crate::translate::body::Format;
use crate::translate::call::Call;
use crate::translate::refusal::Refusal;
use crate::translate::session::Session;

/// The version of the integer keys that clients ask for (MSC3079 "Versioning").
const CBOR_VERSION: u32 = 1;

/// How much deeper the content of an event is nested in an answer to `/sync` than in the request that sent it, in the event that a
/// thread's latest event was edited by: 14 levels, and room for two more. Nobody is to send what no answer could carry.
const DEEPER_IN_SYNC: usize = 16;

/// What a peer's request asks of the homeserver. Observe is left to the caller.
///
/// `session` takes over the sticky options first, so they count even if the request is refused. An empty body stays empty,
/// also where Matrix wants an object: the homeserver answers as it would over HTTP.
///
/// # Errors
/// Why the request is refused; [`response::refuse`](crate::translate::response::refuse) makes it an answer.
pub fn to_http(request: &coap::Request, session: &mut Session, limits: &Limits) -> Result<Call, Refusal> {
    session.read(&request.options)?;
    check_critical(&request.options)?;
    let method = method(request.method)?;
    let segments = texts(&request.options, OptionNumber::URI_PATH).map_err(PathError::NotText)?;
    let target = matrix::expand(method.as_str(), &segments)?;
    let query = texts(&request.options, OptionNumber::URI_QUERY).map_err(QueryError::NotText)?;
    let query = query.into_iter().map(str::to_owned).collect();
    let body = read_body(request, session, limits)?;
    let format = Format::accepted(&request.options, session.keys())?;
    Ok(Call { method, target, query, authorization: session.authorization().cloned(), body, format })
}

/// The CoAP request for an HTTP request to a Matrix homeserver, in the shortest form: a path code where there is one,
/// CBOR, the access token without its scheme. Only the path and the query of the URL count.
///
/// With `Keys::V1` it asks for integer keys (option 257). A client that has said token and version on this connection may
/// take these options away: [`leave_out_sticky`].
///
/// # Errors
/// What cannot be carried.
pub fn to_coap(
    request: &http::Request<Bytes>,
    keys: Keys,
    limits: &Limits,
) -> Result<coap::Request, SendError> {
    let mut translated = coap::Request::new(code(request.method())?);
    for segment in matrix::shorten(request.uri().path())? {
        translated.options.push(OptionNumber::URI_PATH, segment);
    }
    for parameter in matrix::split_query(request.uri().query().unwrap_or_default())? {
        translated.options.push(OptionNumber::URI_QUERY, parameter);
    }
    if let Some(header) = request.headers().get(header::AUTHORIZATION) {
        let token = header.as_bytes().strip_prefix(b"Bearer ").ok_or(SendError::Authorization)?;
        translated.options.push(OptionNumber::ACCESS_TOKEN, token);
    }
    if keys == Keys::V1 {
        translated.options.push_uint(OptionNumber::CBOR_VERSION, CBOR_VERSION);
    }
    if !request.body().is_empty() {
        translated.options.push_uint(OptionNumber::CONTENT_FORMAT, content_format::CBOR);
        translated.payload = codec::json_to_cbor(request.body(), keys, limits)?.into();
    }
    Ok(translated)
}

/// Takes away what the gateway remembers of a client that has said it: the access token and the version of the key table.
pub fn leave_out_sticky(request: &mut coap::Request) {
    request.options.remove(OptionNumber::ACCESS_TOKEN);
    request.options.remove(OptionNumber::CBOR_VERSION);
}

/// Why an HTTP request cannot go over CoAP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A method that CoAP has no code for.
    #[error("method {0} is not supported; use GET, POST, PUT or DELETE")]
    Method(Method),
    /// The path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The query.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// An `Authorization` header without a bearer token.
    #[error("the Authorization header has no bearer token")]
    Authorization,
    /// A body that is not JSON, or more than may be sent.
    #[error("the body: {0}")]
    Body(#[from] codec::EncodeError),
}

/// RFC 7252 §5.4.1: a critical option that is not understood refuses the request.
pub(super) fn check_critical(options: &Options) -> Result<(), Refusal> {
    for (number, _) in options.iter() {
        match number {
            // There is one homeserver, whatever name it was reached by.
            OptionNumber::URI_HOST | OptionNumber::URI_PORT => {}
            OptionNumber::URI_PATH | OptionNumber::URI_QUERY | OptionNumber::ACCEPT => {}
            OptionNumber::CBOR_VERSION => {}
            // RFC 7252 §5.10.2.
            OptionNumber::PROXY_URI | OptionNumber::PROXY_SCHEME => return Err(Refusal::Proxy),
            // If-Match and If-None-Match as well: Matrix has no entity tags to hold them against.
            other if other.is_critical() => return Err(Refusal::Option(other)),
            _ => {}
        }
    }
    Ok(())
}

/// The body for the homeserver, as JSON.
fn read_body(request: &coap::Request, session: &mut Session, limits: &Limits) -> Result<Bytes, Refusal> {
    // RFC 7252 §5.5: a payload that the method does not define is ignored. DELETE has one in Matrix.
    if request.payload.is_empty() || request.method == Code::GET {
        return Ok(Bytes::new());
    }
    let format = request.options.get_uint(OptionNumber::CONTENT_FORMAT);
    if let Some(format) = format.filter(|_| !body::is_readable(format)) {
        return Err(Refusal::ContentFormat(format));
    }
    let limits = Limits { depth: limits.depth.saturating_sub(DEEPER_IN_SYNC), ..*limits };
    let decoded = body::read(&request.payload, &limits)?;
    if decoded.integer_keys {
        session.saw_integer_keys();
    }
    Ok(decoded.json.into())
}

/// The values of an option as text, or the place of the first that is none.
fn texts(options: &Options, number: OptionNumber) -> Result<Vec<&str>, usize> {
    let values = options.all(number).enumerate();
    values.map(|(place, value)| str::from_utf8(value).map_err(|_| place)).collect()
}

fn method(code: Code) -> Result<Method, Refusal> {
    match code {
        Code::GET => Ok(Method::GET),
        Code::POST => Ok(Method::POST),
        Code::PUT => Ok(Method::PUT),
        Code::DELETE => Ok(Method::DELETE),
        other => Err(Refusal::Method(other)),
    }
}

fn code(method: &Method) -> Result<Code, SendError> {
    match *method {
        Method::GET => Ok(Code::GET),
        Method::POST => Ok(Code::POST),
        Method::PUT => Ok(Code::PUT),
        Method::DELETE => Ok(Code::DELETE),
        _ => Err(SendError::Method(method.clone())),
    }
}
