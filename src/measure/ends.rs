//! Both ends of one association: how a client's proxy and a gateway write what they say to each other.
//!
//! A profile is a variant of [`Encoding`] and of [`Ends`]. What its ends know of each other is theirs alone: nothing passes between them but
//! the CoAP requests and responses, which they are given as they came off the link.

use bytes::Bytes;
use serde_json::Value;

use super::difference::Difference;
use super::difference::Part;
use super::exchange::Exchange;
use crate::coap;
use crate::codec::Keys;
use crate::codec::Limits;
use crate::matrix;
use crate::matrix::rewrite;
use crate::matrix::rewrite::Advertise;
use crate::translate;
use crate::translate::Call;
use crate::translate::Refusal;
use crate::translate::Session;

/// How Matrix is written in CoAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// MSC3079: paths and queries in options, by path code where there is one, and CBOR with integer keys.
    Msc3079,
}

impl Encoding {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Msc3079 => "msc3079",
        }
    }

    /// The two ends of a new association.
    pub(super) fn ends(self) -> Ends {
        match self {
            Self::Msc3079 => Ends::Msc3079 { introduced: false, session: Session::new() },
        }
    }
}

/// The two ends. An exchange goes through [`Ends::ask`], [`Ends::take`], [`Ends::answer`] and [`Ends::receive`], in this order.
#[derive(Debug)]
pub(super) enum Ends {
    /// The proxy has said who it is, and the gateway keeps that.
    Msc3079 { introduced: bool, session: Session },
}

impl Ends {
    /// At the proxy: what goes to the gateway for a client's request.
    pub(super) fn ask(&mut self, request: &http::Request<Bytes>) -> Result<coap::Request, Difference> {
        match self {
            Self::Msc3079 { introduced, .. } => {
                let mut asked = translate::request::to_coap(request, Keys::V1, &Limits::default())?;
                if std::mem::replace(introduced, true) {
                    translate::request::leave_out_sticky(&mut asked);
                }
                Ok(asked)
            }
        }
    }

    /// At the gateway: what that asks of the homeserver.
    pub(super) fn take(&mut self, request: &coap::Request) -> Result<Call, Refusal> {
        match self {
            Self::Msc3079 { session, .. } => {
                translate::request::to_http(request, session, &Limits::default())
            }
        }
    }

    /// At the gateway: what goes back for the homeserver's answer.
    pub(super) fn answer(
        &mut self,
        call: &Call,
        response: &http::Response<Bytes>,
    ) -> Result<coap::Response, Refusal> {
        match self {
            Self::Msc3079 { .. } => {
                translate::response::to_coap(call, response, &Advertise::default(), &Limits::default())
            }
        }
    }

    /// At the gateway: what goes back for a request that was not taken, or whose answer cannot go back.
    pub(super) fn refuse(&mut self, request: &coap::Request, refusal: &Refusal) -> coap::Response {
        match self {
            Self::Msc3079 { session, .. } => {
                translate::response::refuse(refusal, session.format(&request.options))
            }
        }
    }

    /// At the proxy: what the client is told.
    pub(super) fn receive(&mut self, response: &coap::Response) -> Result<http::Response<Bytes>, Difference> {
        match self {
            Self::Msc3079 { .. } => Ok(translate::response::to_http(response, &Limits::default())?),
        }
    }

    /// Holds what the gateway asks of the homeserver against what the client asked, after [`Ends::take`].
    pub(super) fn check_call(&mut self, exchange: &Exchange, call: &Call) -> Result<(), Difference> {
        match self {
            Self::Msc3079 { .. } => check_call(exchange, call),
        }
    }

    /// Holds what the client is told against what the homeserver answered, after [`Ends::receive`].
    pub(super) fn check_response(
        &mut self,
        exchange: &Exchange,
        call: &Call,
        read: &http::Response<Bytes>,
    ) -> Result<(), Difference> {
        match self {
            Self::Msc3079 { .. } => check_response(exchange, call, read),
        }
    }
}

fn check_call(exchange: &Exchange, call: &Call) -> Result<(), Difference> {
    let request = &exchange.request;
    let parts = [
        (Part::Method, request.method() == call.method),
        // Both in their shortest form: however they were percent-encoded, and r0 for v3 where that is short.
        (Part::Path, matrix::shorten(request.uri().path()) == matrix::shorten(&call.target.path)),
        (
            Part::Query,
            matrix::split_query(request.uri().query().unwrap_or_default()) == Ok(call.query.clone()),
        ),
        (Part::Authorization, exchange.authorization() == call.authorization.as_ref()),
        (Part::Body, is_same(request.body(), &call.body)),
    ];
    match parts.into_iter().find(|(_, same)| !same) {
        Some((part, _)) => Err(Difference::Call(part)),
        None => Ok(()),
    }
}

fn check_response(exchange: &Exchange, call: &Call, read: &http::Response<Bytes>) -> Result<(), Difference> {
    let recorded = &exchange.response;
    if recorded.status() != read.status() {
        return Err(Difference::Status { recorded: recorded.status(), read: read.status() });
    }
    // What a gateway has to say of itself it says.
    let route = call.target.route.filter(|_| recorded.status().is_success());
    let same = match route {
        Some(route) => {
            let expected = rewrite::rewrite(route, recorded.body(), &Advertise::default());
            is_same(&expected, read.body())
        }
        None => is_same(recorded.body(), read.body()),
    };
    if same { Ok(()) } else { Err(Difference::Body) }
}

/// Whether two bodies are the same value of JSON, or both nothing.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.is_empty() || other.is_empty() {
        return one.is_empty() && other.is_empty();
    }
    let read = |body| serde_json::from_slice::<Value>(body).ok();
    one == other || read(one).is_some_and(|value| Some(value) == read(other))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::Method;
    use http::StatusCode;

    use super::*;

    fn exchange(method: &str, path: &str, rest: &str) -> Exchange {
        let headers = r#""req_headers":{"authorization":"Bearer TOK"}"#;
        let line = format!(r#"{{"method":"{method}","path":"{path}",{headers},{rest}}}"#);
        Exchange::read(1, line.as_bytes()).unwrap()
    }

    /// What comes out at either end.
    fn through(exchange: &Exchange) -> (Ends, Call, http::Response<Bytes>) {
        let mut ends = Encoding::Msc3079.ends();
        let asked = ends.ask(&exchange.request).unwrap();
        let call = ends.take(&asked).unwrap();
        let answer = ends.answer(&call, &exchange.response).unwrap();
        let read = ends.receive(&answer).unwrap();
        (ends, call, read)
    }

    #[test]
    fn what_says_the_same_in_other_words_is_the_same() {
        for (method, path, rest) in [
            ("GET", "/_matrix/client/versions", r#""status":200,"resp":{"versions":["v1.11"]}"#),
            (
                "GET",
                "/_matrix/client/r0/sync?filter=%7B%7D&since=s1+2",
                r#""status":200,"resp":{"b":1,"a":2}"#,
            ),
            (
                "PUT",
                "/_matrix/client/v3/rooms/%21a%3ab/state/m.room.name/",
                r#""req":{},"status":200,"resp":{}"#,
            ),
            ("GET", "/_matrix/client/v1/media/download/a/b", r#""status":200"#),
            (
                "POST",
                "/_matrix/client/v3/login",
                r#""req":{"a":1.5},"status":429,"resp":{"retry_after_ms":9}"#,
            ),
            ("DELETE", "/_matrix/client/unstable/x", r#""status":500,"resp":[]"#),
        ] {
            let exchange = exchange(method, path, rest);
            let (mut ends, call, read) = through(&exchange);
            assert_eq!(ends.check_call(&exchange, &call), Ok(()), "{path}");
            assert_eq!(ends.check_response(&exchange, &call, &read), Ok(()), "{path}");
        }
    }

    #[test]
    fn each_part_of_a_request_is_looked_at() {
        let path = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/t1?ts=1";
        let exchange = exchange("PUT", path, r#""req":{"a":1},"status":200,"resp":{}"#);
        let (mut ends, call, _) = through(&exchange);
        let body = |text: &'static str| Call { body: Bytes::from_static(text.as_bytes()), ..call.clone() };
        let elsewhere = matrix::expand("PUT", &["9", "!a:b", "m.room.message", "t2"]).unwrap();
        let other_token = Some(HeaderValue::from_static("Bearer TOK2"));
        for (call, part) in [
            (Call { method: Method::POST, ..call.clone() }, Part::Method),
            (Call { target: elsewhere, ..call.clone() }, Part::Path),
            (Call { query: vec!["ts=2".to_owned()], ..call.clone() }, Part::Query),
            (Call { query: Vec::new(), ..call.clone() }, Part::Query),
            (Call { authorization: other_token, ..call.clone() }, Part::Authorization),
            (Call { authorization: None, ..call.clone() }, Part::Authorization),
            (body(r#"{"a":2}"#), Part::Body),
            (body(r#"{"a":1.0}"#), Part::Body),
            (body(r#"{"a":"1"}"#), Part::Body),
            (body(""), Part::Body),
        ] {
            assert_eq!(ends.check_call(&exchange, &call), Err(Difference::Call(part)));
        }
    }

    #[test]
    fn status_and_body_of_an_answer_are_looked_at() {
        let exchange = exchange("GET", "/_matrix/client/v3/sync", r#""status":200,"resp":{"a":[null]}"#);
        let (mut ends, call, read) = through(&exchange);
        let mut check = |status: StatusCode, body: &'static str| {
            let mut read = read.clone();
            (*read.status_mut(), *read.body_mut()) = (status, Bytes::from_static(body.as_bytes()));
            ends.check_response(&exchange, &call, &read)
        };
        assert_eq!(check(StatusCode::OK, r#"{ "a": [null] }"#), Ok(()));
        for body in [r#"{"a":[]}"#, r#"{"a":[false]}"#, r#"{"a":[null],"b":1}"#, "{}", "", "{"] {
            assert_eq!(check(StatusCode::OK, body), Err(Difference::Body), "{body}");
        }
        let told = check(StatusCode::CREATED, r#"{"a":[null]}"#).unwrap_err().to_string();
        assert_eq!(told, "the status 201 Created is read where 200 OK was recorded");
    }
}
