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

    /// Holds what the gateway asks of the homeserver against what the client asked.
    pub(super) fn check_call(&self, exchange: &Exchange, call: &Call) -> Result<(), Difference> {
        match self {
            Self::Msc3079 { .. } => check_call(exchange, call),
        }
    }

    /// Holds what the client is told against what the homeserver answered.
    pub(super) fn check_response(
        &self,
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
