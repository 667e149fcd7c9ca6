//! What a proxy has stored, and reads again after a restart.
//!
//! A key is a byte that says of what kind its record is, and for a call its number. A value is a byte with the version of its format, and CBOR.
//! What cannot be read is of no use, and dropped.

use bytes::Bytes;
use http::HeaderValue;
use http::header;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::CallNumber;
use crate::translate::header as stored_header;
use crate::translate::packed::caller::Caller;

/// The version of all values' format.
const VERSION: u8 = 1;
const CALLER: u8 = b'c';
const QUEUED: u8 = b'q';

/// A record that was read.
#[derive(Debug)]
pub(super) enum Record {
    /// What both ends of the line know of each other.
    Caller(Box<Caller>),
    /// A call of the queue.
    Queued(CallNumber, Box<StoredCall>),
}

/// A call of the queue.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredCall {
    method: String,
    uri: String,
    #[serde(with = "stored_header")]
    authorization: Option<HeaderValue>,
    body: Bytes,
    answer: Option<StoredAnswer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredAnswer {
    status: u16,
    body: Bytes,
}

/// The record of the line.
pub(super) fn caller(caller: &Caller) -> (Vec<u8>, Vec<u8>) {
    (vec![CALLER], encode(caller))
}

/// The key of a call.
pub(super) fn key(number: CallNumber) -> Vec<u8> {
    [&[QUEUED], number.0.to_be_bytes().as_slice()].concat()
}

/// The record of a call, with its answer where it has one.
pub(super) fn queued(
    number: CallNumber,
    request: &http::Request<Bytes>,
    answer: Option<&http::Response<Bytes>>,
) -> (Vec<u8>, Vec<u8>) {
    let stored = StoredCall {
        method: request.method().to_string(),
        uri: request.uri().to_string(),
        authorization: request.headers().get(header::AUTHORIZATION).cloned(),
        body: request.body().clone(),
        answer: answer
            .map(|answer| StoredAnswer { status: answer.status().as_u16(), body: answer.body().clone() }),
    };
    (key(number), encode(&stored))
}

impl Record {
    /// Reads a record; `None` where it is none of ours, or of another version.
    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let (&kind, number) = key.split_first()?;
        let (&version, value) = value.split_first()?;
        if version != VERSION {
            return None;
        }
        match (kind, number) {
            (CALLER, []) => Some(Self::Caller(decode(value)?)),
            (QUEUED, number) => {
                let number = CallNumber(u64::from_be_bytes(number.try_into().ok()?));
                Some(Self::Queued(number, decode(value)?))
            }
            _ => None,
        }
    }
}

impl StoredCall {
    /// The call, and its answer.
    pub(super) fn read(self) -> Option<(http::Request<Bytes>, Option<http::Response<Bytes>>)> {
        let mut request = http::Request::builder().method(self.method.as_str()).uri(self.uri);
        if let Some(authorization) = self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer = match self.answer {
            Some(StoredAnswer { status, body }) => {
                let answer =
                    http::Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
                Some(answer.body(body).ok()?)
            }
            None => None,
        };
        Some((request.body(self.body).ok()?, answer))
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing into memory does not fail, and what is stored can be written.
    let written = ciborium::into_writer(value, &mut bytes);
    debug_assert!(written.is_ok());
    bytes
}

fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Option<T> {
    let value = ciborium::from_reader(&mut bytes).ok()?;
    bytes.is_empty().then_some(value)
}
