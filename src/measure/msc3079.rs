//! The two ends as MSC3079 has them.

use bytes::Bytes;

use super::difference::Difference;
use super::difference::Part;
use super::ends::is_same;
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

/// A proxy and a gateway that remember of each other what MSC3079 lets them.
#[derive(Debug, Default)]
pub(super) struct Msc3079 {
    /// The proxy has said who it is, and the gateway keeps that.
    introduced: bool,
    session: Session,
    /// What the gateway takes the request for.
    call: Option<Call>,
}

impl Msc3079 {
    /// At the proxy.
    pub(super) fn ask(&mut self, exchange: &Exchange) -> Result<coap::Request, Difference> {
        let mut asked = translate::request::to_coap(&exchange.request, Keys::V1, &Limits::default())?;
        if std::mem::replace(&mut self.introduced, true) {
            translate::request::leave_out_sticky(&mut asked);
        }
        Ok(asked)
    }

    /// At the gateway.
    pub(super) fn answer(
        &mut self,
        request: &coap::Request,
        exchange: &Exchange,
    ) -> (coap::Response, Result<(), Difference>) {
        self.call = None;
        match self.take(request) {
            Err(refusal) => (self.refuse(request, &refusal), Err(Difference::Refused(refusal))),
            Ok(call) => {
                let checked = check_call(exchange, &call);
                let limits = Limits::default();
                let answer =
                    translate::response::to_coap(&call, &exchange.response, &Advertise::default(), &limits);
                self.call = Some(call);
                match answer {
                    Ok(answer) => (answer, checked),
                    Err(refusal) => {
                        (self.refuse(request, &refusal), checked.and(Err(Difference::Answer(refusal))))
                    }
                }
            }
        }
    }

    fn take(&mut self, request: &coap::Request) -> Result<Call, Refusal> {
        translate::request::to_http(request, &mut self.session, &Limits::default())
    }

    fn refuse(&self, request: &coap::Request, refusal: &Refusal) -> coap::Response {
        translate::response::refuse(refusal, self.session.format(&request.options))
    }

    /// At the proxy.
    pub(super) fn receive(
        &mut self,
        response: &coap::Response,
        exchange: &Exchange,
    ) -> Result<(), Difference> {
        let read = translate::response::to_http(response, &Limits::default())?;
        // Without a call the gateway has refused, and that is said already.
        match &self.call {
            Some(call) => check_response(exchange, call, &read),
            None => Ok(()),
        }
    }
}

/// Holds what the gateway asks of the homeserver against what the client asked.
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

/// Holds what the client is told against what the homeserver answered.
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
    fn through(exchange: &Exchange) -> (Call, http::Response<Bytes>) {
        let mut ends = Msc3079::default();
        let asked = ends.ask(exchange).unwrap();
        let (answer, told) = ends.answer(&asked, exchange);
        assert_eq!(told, Ok(()));
        assert_eq!(ends.receive(&answer, exchange), Ok(()));
        let read = translate::response::to_http(&answer, &Limits::default()).unwrap();
        (ends.call.unwrap(), read)
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
            let (call, read) = through(&exchange);
            assert_eq!(check_call(&exchange, &call), Ok(()), "{path}");
            assert_eq!(check_response(&exchange, &call, &read), Ok(()), "{path}");
        }
    }

    #[test]
    fn each_part_of_a_request_is_looked_at() {
        let path = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/t1?ts=1";
        let exchange = exchange("PUT", path, r#""req":{"a":1},"status":200,"resp":{}"#);
        let (call, _) = through(&exchange);
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
            assert_eq!(check_call(&exchange, &call), Err(Difference::Call(part)));
        }
    }

    #[test]
    fn status_and_body_of_an_answer_are_looked_at() {
        let exchange = exchange("GET", "/_matrix/client/v3/sync", r#""status":200,"resp":{"a":[null]}"#);
        let (call, read) = through(&exchange);
        let check = |status: StatusCode, body: &'static str| {
            let mut read = read.clone();
            (*read.status_mut(), *read.body_mut()) = (status, Bytes::from_static(body.as_bytes()));
            check_response(&exchange, &call, &read)
        };
        assert_eq!(check(StatusCode::OK, r#"{ "a": [null] }"#), Ok(()));
        for body in [r#"{"a":[]}"#, r#"{"a":[false]}"#, r#"{"a":[null],"b":1}"#, "{}", "", "{"] {
            assert_eq!(check(StatusCode::OK, body), Err(Difference::Body), "{body}");
        }
        let told = check(StatusCode::CREATED, r#"{"a":[null]}"#).unwrap_err().to_string();
        assert_eq!(told, "the status 201 Created is read where 200 OK was recorded");
    }
}
