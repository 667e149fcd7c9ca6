//! What becomes of a client's request: answered here, observed, or asked for.

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header;
use serde_json::json;

use super::answer;
use super::call::Kind;
use super::policy::Class;
use super::policy::Policy;
use super::policy::Rule;
use crate::coap::Priority;
use crate::matrix;
use crate::matrix::PathError;
use crate::matrix::Target;
use crate::matrix::error::ErrorCode;
use crate::matrix::query;
use crate::matrix::route;
use crate::matrix::route::operation;

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Route {
    /// It is answered without the line.
    Answer(http::Response<Bytes>),
    /// It asks how the link is: as a page for people, or as JSON.
    Status {
        /// Whether the page is wanted.
        page: bool,
    },
    /// It polls for what is new.
    Sync(Poll),
    /// It is asked over the line.
    Call {
        /// As it is asked.
        request: http::Request<Bytes>,
        /// Whether it outlasts who asks.
        kind: Kind,
        /// What goes first.
        priority: Priority,
    },
}

/// A poll of `/sync`.
#[derive(Debug)]
pub(super) struct Poll {
    /// Without its position, and without how long it waits.
    pub(super) request: http::Request<Bytes>,
    pub(super) since: Option<String>,
    /// How long it waits where nothing is new, in milliseconds.
    pub(super) timeout: u64,
}

const STATUS: &str = "/_lowband/status";
const WELL_KNOWN: &str = "/.well-known/matrix/client";
/// No poll waits longer: what is between client and proxy may not.
const LONGEST_POLL: u64 = 600_000;

/// Operations whose effect is the same however often they are asked for, and which people want done whether or not they wait for it: they have
/// a transaction id, or state a whole value.
const QUEUED: [&str; 5] = ["sendMessage", "redactEvent", "setRoomStateWithKey", "sendToDevice", "inviteUser"];
/// Decides.
pub(super) fn route(request: &http::Request<Bytes>, policy: &Policy) -> Route {
    // Matrix v1.19, "Web Browser Clients": preflights of any path, which browsers make, are nothing to the homeserver.
    if *request.method() == Method::OPTIONS {
        return Route::Answer(answer::json(StatusCode::OK, &json!({})));
    }
    match request.uri().path() {
        STATUS => return Route::Status { page: prefers_html(request) },
        WELL_KNOWN => return Route::Answer(well_known(request)),
        _ => {}
    }
    let Some(request) = stripped(request) else {
        let message = "the path cannot be read";
        return Route::Answer(answer::error(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, message));
    };
    let Some(target) = of_matrix(&request) else {
        let message = "this is no path of the client-server API";
        return Route::Answer(answer::error(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, message));
    };
    if target.is(operation::SYNC) {
        return match poll(&request) {
            Some(poll) => Route::Sync(poll),
            None => {
                let message = "the query cannot be read";
                Route::Answer(answer::error(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, message))
            }
        };
    }
    let is_queued = *request.method() == Method::PUT
        && target.route.is_some_and(|route| QUEUED.contains(&route.operation));
    let of_rule = Class::of(&target).map(|class| (class, policy.rule(class)));
    let (kind, priority) = match of_rule {
        Some((class, Rule::Refuse)) => {
            let message =
                format!("{class} is not carried over this link; --policy {class}=… of lowband proxy decides");
            return Route::Answer(answer::error(StatusCode::FORBIDDEN, ErrorCode::Forbidden, &message));
        }
        // Matrix v1.19: the answer to each of these is an empty object.
        Some((_, Rule::Drop)) => return Route::Answer(answer::json(StatusCode::OK, &json!({}))),
        Some((_, Rule::Latest)) => (Kind::Latest, Priority::Background),
        Some((_, Rule::Defer)) => (Kind::Deferred, Priority::Background),
        Some((_, Rule::Allow)) | None if is_queued => (Kind::Queued, Priority::Message),
        Some((_, Rule::Allow)) | None => (Kind::Passing, Priority::Message),
    };
    Route::Call { request, kind, priority }
}

/// The path of a request, if it is one of Matrix.
pub(super) fn of_matrix(request: &http::Request<Bytes>) -> Option<Target> {
    target(request).ok()
}

fn target(request: &http::Request<Bytes>) -> Result<Target, PathError> {
    let segments = matrix::split_path(request.uri().path())?;
    let segments: Vec<_> = segments.iter().map(String::as_str).collect();
    matrix::expand(request.method().as_str(), &segments)
}

/// Whether answers of a route may say where the homeserver is.
pub(super) fn is_login(route: &route::Route) -> bool {
    route.operation == operation::LOGIN
}

/// What a client has called the proxy by.
pub(super) fn base_url(request: &http::Request<Bytes>) -> Option<String> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    Some(format!("http://{host}"))
}

/// What of a request goes over the line, and what it was sent to. A token in the query, as clients of old send it, is one in the header.
fn stripped(request: &http::Request<Bytes>) -> Option<http::Request<Bytes>> {
    let mut stripped = http::Request::new(request.body().clone());
    *stripped.method_mut() = request.method().clone();
    let uri = request.uri();
    let mut token = request.headers().get(header::AUTHORIZATION).cloned();
    let mut path = uri.path().to_owned();
    if let Some(text) = uri.query().filter(|query| !query.is_empty()) {
        let (text, in_query) = without_token(text);
        if !text.is_empty() {
            path.push('?');
            path.push_str(&text);
        }
        token = token.or(in_query);
    }
    *stripped.uri_mut() = path.parse().ok()?;
    if let Some(mut token) = token {
        token.set_sensitive(true);
        stripped.headers_mut().insert(header::AUTHORIZATION, token);
    }
    if let Some(host) = host(request) {
        stripped.headers_mut().insert(header::HOST, host);
    }
    Some(stripped)
}

/// By HTTP/2 it is part of the URI.
fn host(request: &http::Request<Bytes>) -> Option<HeaderValue> {
    let authority = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    authority.or_else(|| request.headers().get(header::HOST).cloned())
}

fn without_token(query: &str) -> (String, Option<HeaderValue>) {
    let (tokens, others): (Vec<_>, Vec<_>) =
        query.split('&').partition(|part| part.starts_with("access_token="));
    let token = tokens.first().and_then(|token| token.split_once('=')).map(|(_, token)| token);
    let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
    (others.join("&"), header)
}

fn poll(request: &http::Request<Bytes>) -> Option<Poll> {
    let options = query::decode(request.uri().query().unwrap_or_default()).ok()?;
    let since = query::get(&options, "since").filter(|since| !since.is_empty()).map(str::to_owned);
    let timeout = query::get(&options, "timeout").map_or(Some(0), |timeout| timeout.parse().ok())?;
    // What a client makes each time another one, against caches of HTTP, is nothing to the homeserver.
    let mut rest = ["since", "timeout", "_cacheBuster"]
        .iter()
        .fold(options, |rest, name| query::with(&rest, name, None));
    if since.is_none() || query::get(&rest, "full_state") == Some("false") {
        // Who has nothing is told the full state anyway.
        rest = query::with(&rest, "full_state", None);
    }
    let mut request = request.clone();
    *request.uri_mut() = with_query(request.uri(), &rest)?;
    Some(Poll { request, since, timeout: timeout.min(LONGEST_POLL) })
}

/// A poll with its position.
pub(super) fn since(request: &http::Request<Bytes>, since: Option<&str>) -> Option<http::Request<Bytes>> {
    let options = query::decode(request.uri().query().unwrap_or_default()).ok()?;
    let mut request = request.clone();
    *request.uri_mut() = with_query(request.uri(), &query::with(&options, "since", since))?;
    Some(request)
}

fn with_query(uri: &Uri, options: &[String]) -> Option<Uri> {
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let query = matrix::expand_query(&options);
    let path = uri.path();
    if query.is_empty() { path.parse().ok() } else { format!("{path}?{query}").parse().ok() }
}

/// Matrix v1.19, "GET /.well-known/matrix/client".
fn well_known(request: &http::Request<Bytes>) -> http::Response<Bytes> {
    let host = host(request).and_then(|host| host.to_str().ok().map(str::to_owned));
    match host {
        Some(host) => {
            answer::json(StatusCode::OK, &json!({ "m.homeserver": { "base_url": format!("http://{host}") } }))
        }
        None => {
            let message = "the request does not say by what name it was sent here";
            answer::error(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message)
        }
    }
}

fn prefers_html(request: &http::Request<Bytes>) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
