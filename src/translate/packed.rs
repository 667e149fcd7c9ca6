//! The packed profile in CoAP: how two ends agree on it, and what a packed request asks of the homeserver (docs/packed.md §2).
//!
//! What is in the messages and what the ends know of each other is `packed`'s; to keep the ends is for whoever has them.

pub mod caller;

use std::fmt;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::Serialize;

use crate::coap;
use crate::coap::Code;
use crate::coap::OptionNumber;
use crate::matrix;
use crate::matrix::PathError;
use crate::matrix::query;
use crate::packed;
use crate::packed::Agreement;
use crate::packed::Asked;
use crate::packed::Dictionary;
use crate::translate::body::Format;
use crate::translate::call::Call;
use crate::translate::refusal::Refusal;
use crate::translate::request;
use crate::translate::session::Session;

/// The version of the profile that this is.
pub const VERSION: u8 = 1;

/// What a proxy begins with: who it is in the association, and what it has.
///
/// ```text
///   0        1         2              10               14               18
///   +--------+---------+---- - - -----+---- - - -------+---- - - -------+---
///   | 0x01   | version | identity     | epoch          | transactions   | what later versions have to say
///   +--------+---------+---- - - -----+---- - - -------+---- - - -------+---
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The highest version that it speaks.
    pub version: u8,
    /// Its dictionary.
    pub identity: Identity,
    /// The epoch that it would begin. It says the same again only when it repeats itself.
    pub epoch: u32,
    /// As in [`Agreement`].
    pub transactions: u32,
}

/// What a gateway answers: what both have from then on.
///
/// ```text
///   0         1               5                9
///   +---------+---- - - ------+---- - - -------+---
///   | version | epoch         | tokens         | what later versions have to say
///   +---------+---- - - ------+---- - - -------+---
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The version that is spoken: no higher than the proxy's.
    pub version: u8,
    /// The epoch: the proxy's, or another one where the gateway could take a late message of before for one of that.
    pub epoch: u32,
    /// As in [`Agreement`].
    pub tokens: u32,
}

/// The first bytes of the hash of a dictionary: who does not have the same makes wrong text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(pub [u8; 8]);

impl Hello {
    /// No packed request begins so: with coder 0, and a status.
    const FIRST: u8 = 0x01;

    /// Whether a payload is one, or would be one.
    pub fn begins(payload: &[u8]) -> bool {
        payload.first() == Some(&Self::FIRST)
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// One that is cut short, or has no version.
    pub fn read(payload: &[u8]) -> Result<Self, packed::DecodeError> {
        let truncated = packed::DecodeError::Truncated;
        let (_, rest) = payload.split_first().ok_or(truncated.clone())?;
        let (&version, rest) = rest.split_first().ok_or(truncated.clone())?;
        let (identity, rest) = rest.split_first_chunk().ok_or(truncated.clone())?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(truncated.clone())?;
        let (transactions, _) = rest.split_first_chunk().ok_or(truncated)?;
        if version == 0 {
            return Err(packed::DecodeError::Damaged);
        }
        Ok(Hello {
            version,
            identity: Identity(*identity),
            epoch: u32::from_be_bytes(*epoch),
            transactions: u32::from_be_bytes(*transactions),
        })
    }

    /// The request.
    pub fn request(&self) -> coap::Request {
        let epoch = self.epoch.to_be_bytes();
        let parts: [&[u8]; 4] =
            [&[Self::FIRST, self.version], &self.identity.0, &epoch, &self.transactions.to_be_bytes()];
        let mut request = coap::Request::new(Code::POST);
        request.payload = parts.concat().into();
        request
    }

    /// What was agreed, where the gateway has answered so; `None` where it does not speak the profile, and the compatible one is to be
    /// used with it.
    pub fn agreed(&self, response: &coap::Response) -> Option<Agreement> {
        let welcome = Welcome::read(&response.payload)?;
        let says_so = response.code == Code::CHANGED
            && response.options.get(OptionNumber::CONTENT_FORMAT).is_none()
            && (1..=self.version).contains(&welcome.version);
        let Welcome { epoch, tokens, .. } = welcome;
        says_so.then_some(Agreement { epoch, tokens, transactions: self.transactions })
    }
}

impl Welcome {
    fn read(payload: &[u8]) -> Option<Self> {
        let (&version, rest) = payload.split_first()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (tokens, _) = rest.split_first_chunk()?;
        Some(Welcome { version, epoch: u32::from_be_bytes(*epoch), tokens: u32::from_be_bytes(*tokens) })
    }

    /// The response.
    pub fn response(&self) -> coap::Response {
        let parts: [&[u8]; 3] = [&[self.version], &self.epoch.to_be_bytes(), &self.tokens.to_be_bytes()];
        let mut response = coap::Response::new(Code::CHANGED);
        response.payload = parts.concat().into();
        response
    }
}

impl Identity {
    /// Of this dictionary.
    pub fn of(dictionary: &Dictionary) -> Self {
        Identity(dictionary.hash().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({self})")
    }
}

/// Whether a request is one of this profile: POST or FETCH of the root, with a body that is not said to be anything.
pub fn is_packed(request: &coap::Request) -> bool {
    let without = [OptionNumber::URI_PATH, OptionNumber::URI_QUERY, OptionNumber::CONTENT_FORMAT];
    matches!(request.method, Code::POST | Code::FETCH)
        && without.iter().all(|option| request.options.get(*option).is_none())
        && !request.payload.is_empty()
}

/// Whether a response is packed, or an error of CoAP's own with a text: the gateway's words, and what ends an observation, say what they are and are
/// CBOR. An error without anything is CoAP's own, too.
pub fn is_packed_response(response: &coap::Response) -> bool {
    response.options.get(OptionNumber::CONTENT_FORMAT).is_none()
        && (response.code.is_success() || !response.payload.is_empty())
}

/// Takes over what the options of a packed request say: the access token, where the gateway has none.
///
/// # Errors
/// An option that is critical and means nothing here.
pub fn read_options(request: &coap::Request, session: &mut Session) -> Result<(), Refusal> {
    session.read(&request.options)?;
    request::check_critical(&request.options)
}

/// What a packed request asks of the homeserver, which came with this method.
///
/// # Errors
/// Why the request is refused.
pub fn call(
    method: Code,
    request: packed::Request,
    asked: Asked,
    session: &Session,
) -> Result<Call, Refusal> {
    let packed::Request { method: name, path, query, body } = request;
    let of_http = match name.as_str() {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        _ => return Err(Refusal::HttpMethod(name)),
    };
    // RFC 8132 §2: FETCH is safe, so that what it asks must be.
    if method == Code::FETCH && of_http != Method::GET {
        return Err(Refusal::Method(method));
    }
    let segments = matrix::split_path(&path)?;
    let segments: Vec<_> = segments.iter().map(String::as_str).collect();
    let target = matrix::expand(of_http.as_str(), &segments)?;
    let query = query.as_deref().map(query::decode).transpose()?.unwrap_or_default();
    let body = body.filter(|_| of_http != Method::GET).map(Bytes::from).unwrap_or_default();
    let authorization = session.authorization().cloned();
    Ok(Call { method: of_http, target, query, authorization, body, format: Format::Packed(asked) })
}

/// An HTTP request as it is packed, and the method that it is sent with.
///
/// # Errors
/// A path that is none of Matrix.
pub fn request(http: &http::Request<Bytes>) -> Result<(Code, packed::Request), PathError> {
    let segments = matrix::split_path(http.uri().path())?;
    matrix::expand(http.method().as_str(), &segments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let method = if *http.method() == Method::GET { Code::FETCH } else { Code::POST };
    let body = (!http.body().is_empty()).then(|| http.body().to_vec());
    let request = packed::Request {
        method: http.method().as_str().to_owned(),
        path: http.uri().path().to_owned(),
        query: http.uri().query().filter(|query| !query.is_empty()).map(str::to_owned),
        body,
    };
    Ok((method, request))
}
