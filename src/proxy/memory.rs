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
use super::stream::Delta;
use super::stream::Stream;
use super::stream::StreamNumber;
use crate::coap::Instant;
use crate::matrix::sync::Counters;
use crate::translate::header as stored_header;
use crate::translate::packed::caller::Caller;

/// The version of all values' format.
const VERSION: u8 = 1;
const CALLER: u8 = b'c';
const QUEUED: u8 = b'q';
const STREAM: u8 = b's';
const DELTA: u8 = b'd';

/// A record that was read.
#[derive(Debug)]
pub(super) enum Record {
    /// What both ends of the line know of each other.
    Caller(Box<Caller>),
    /// A call of the queue.
    Queued(CallNumber, Box<StoredCall>),
    /// A sequence of polls, without what has come.
    Stream(StreamNumber, Box<StoredStream>),
    /// What has come of it, by its number.
    Delta(StreamNumber, u64, Box<StoredDelta>),
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

/// A sequence of polls.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredStream {
    uri: String,
    #[serde(with = "stored_header")]
    authorization: Option<HeaderValue>,
    at: Option<String>,
    latest: Option<String>,
    counters: Counters,
    first: u64,
}

/// What has come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredDelta {
    from: Option<String>,
    to: String,
    body: Bytes,
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

/// The key of a sequence of polls.
pub(super) fn key_of_stream(number: StreamNumber) -> Vec<u8> {
    [&[STREAM], number.0.to_be_bytes().as_slice()].concat()
}

/// The key of what has come of it.
pub(super) fn key_of_delta(number: StreamNumber, delta: u64) -> Vec<u8> {
    [[DELTA].as_slice(), &number.0.to_be_bytes(), &delta.to_be_bytes()].concat()
}

/// The record of a sequence of polls.
pub(super) fn stream(stream: &Stream) -> (Vec<u8>, Vec<u8>) {
    let stored = StoredStream {
        uri: stream.request.uri().to_string(),
        authorization: stream.request.headers().get(header::AUTHORIZATION).cloned(),
        at: stream.at.clone(),
        latest: stream.latest.clone(),
        counters: stream.counters.clone(),
        first: stream.first,
    };
    (key_of_stream(stream.number), encode(&stored))
}

/// The record of what has come.
pub(super) fn delta(number: StreamNumber, place: u64, delta: &Delta) -> (Vec<u8>, Vec<u8>) {
    let Delta { from, to, response } = delta;
    let stored = StoredDelta { from: from.clone(), to: to.clone(), body: response.body().clone() };
    (key_of_delta(number, place), encode(&stored))
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
                let number = CallNumber(number_of(number)?);
                Some(Self::Queued(number, decode(value)?))
            }
            (STREAM, number) => Some(Self::Stream(StreamNumber(number_of(number)?), decode(value)?)),
            (DELTA, numbers) => {
                let (stream, delta) = numbers.split_at_checked(8)?;
                Some(Self::Delta(StreamNumber(number_of(stream)?), number_of(delta)?, decode(value)?))
            }
            _ => None,
        }
    }
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

impl StoredStream {
    /// The stream, of which nothing is known at the gateway.
    pub(super) fn read(self, number: StreamNumber, now: Instant) -> Option<Stream> {
        let mut request = http::Request::builder().uri(self.uri);
        if let Some(authorization) = self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let mut stream = Stream::new(number, request.body(Bytes::new()).ok()?, self.at, now);
        (stream.latest, stream.counters, stream.first) = (self.latest, self.counters, self.first);
        Some(stream)
    }
}

impl StoredDelta {
    /// What has come.
    pub(super) fn read(self) -> Delta {
        let mut response = http::Response::new(self.body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Delta { from: self.from, to: self.to, response }
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
