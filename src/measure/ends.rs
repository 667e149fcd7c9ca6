//! Both ends of one association: how a client's proxy and a gateway write what they say to each other.
//!
//! A profile is a variant of [`Encoding`] and of [`Ends`], and has a file of its own. What its ends know of each other is theirs alone:
//! nothing passes between them but the CoAP requests and responses, which they are given as they came off the link.

use serde_json::Value;

use super::difference::Difference;
use super::exchange::Exchange;
use super::msc3079::Msc3079;
use super::packed::Packed;
use crate::coap;
use crate::packed::Dictionary;

/// How Matrix is written in CoAP.
#[derive(Clone, Debug)]
pub enum Encoding {
    /// MSC3079: paths and queries in options, by path code where there is one, and CBOR with integer keys.
    Msc3079,
    /// The packed profile: all of it in the payload, with what both ends know left out. They have this dictionary.
    Packed(Dictionary),
}

impl Encoding {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Msc3079 => "msc3079",
            Self::Packed(_) => "packed",
        }
    }

    /// The two ends of a new association.
    pub(super) fn ends(&self) -> Ends {
        match self {
            Self::Msc3079 => Ends::Msc3079(Box::default()),
            Self::Packed(dictionary) => Ends::Packed(Box::new(Packed::new(dictionary.clone()))),
        }
    }
}

/// The two ends. An exchange goes through [`Ends::ask`], [`Ends::answer`] and [`Ends::receive`], in this order.
#[derive(Debug)]
pub(super) enum Ends {
    Msc3079(Box<Msc3079>),
    Packed(Box<Packed>),
}

impl Ends {
    /// At the proxy: what goes to the gateway for a client's request.
    pub(super) fn ask(&mut self, exchange: &Exchange) -> Result<coap::Request, Difference> {
        match self {
            Self::Msc3079(ends) => ends.ask(exchange),
            Self::Packed(ends) => ends.ask(exchange),
        }
    }

    /// At the gateway: what goes back for a request, once the homeserver has answered; and what of the request is not as the client made
    /// it, or else why the answer cannot go back.
    pub(super) fn answer(
        &mut self,
        request: &coap::Request,
        exchange: &Exchange,
    ) -> (coap::Response, Result<(), Difference>) {
        match self {
            Self::Msc3079(ends) => ends.answer(request, exchange),
            Self::Packed(ends) => ends.answer(request, exchange),
        }
    }

    /// At the proxy: what of it is not as the homeserver said it.
    pub(super) fn receive(
        &mut self,
        response: &coap::Response,
        exchange: &Exchange,
    ) -> Result<(), Difference> {
        match self {
            Self::Msc3079(ends) => ends.receive(response, exchange),
            Self::Packed(ends) => ends.receive(response, exchange),
        }
    }
}

/// Whether an exchange's body came out as the same value of JSON, or as nothing where there was nothing.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.is_empty() || other.is_empty() {
        return one.is_empty() && other.is_empty();
    }
    let read = |body| serde_json::from_slice::<Value>(body).ok();
    one == other || read(one).is_some_and(|value| Some(value) == read(other))
}
