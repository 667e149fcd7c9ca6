//! What a gateway has stored, and reads again after a restart: its records, as bytes.
//!
//! A key is a byte that says of what kind its record is, and what the record is of, in CBOR. A value is a byte with the version
//! of its format, and CBOR. What cannot be read is of no use, and dropped.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderValue;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::journal::StoredChange;
use super::packed::End;
use crate::coap;
use crate::coap::{Code, Instant, ObservationId, OptionNumber, Options};
use crate::codec::Keys;
use crate::device::Allowance;
use crate::endpoint::{Association, Memory, MemoryKey};
use crate::matrix::sync::Counters;
use crate::packed::{Asked, MessageNumber};
use crate::translate::{Format, Session, header};

/// What is to be stored, by its key; taken away where there is no value.
#[derive(Debug, Default)]
pub(super) struct Memories {
    changed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// What a record is of.
#[derive(Clone, Debug)]
pub(super) enum Key {
    /// The endpoint's own.
    Endpoint(MemoryKey),
    /// A peer's session.
    Session(Association),
    /// What a peer and the gateway know of each other by the packed profile.
    Packed(Association),
    /// What has changed of that since, by its number.
    PackedChange(Association, u64),
    /// What a device has used of its limits.
    Allowance(Association),
    /// An observation.
    Observation(ObservationId),
}

/// A record that was read.
#[derive(Debug)]
pub(super) enum Record {
    Endpoint(MemoryKey, Memory),
    Session(Association, Session),
    Packed(Association, Box<End>),
    PackedChange(Association, u64, StoredChange),
    Allowance(Association, Allowance),
    Observation(ObservationId, Box<StoredObservation>),
}

/// An observation: what its feed is made from, and what its peer has.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredObservation {
    pub(super) association: Association,
    pub(super) path: String,
    pub(super) query: Vec<String>,
    #[serde(with = "header")]
    pub(super) authorization: Option<HeaderValue>,
    pub(super) format: StoredFormat,
    /// The position after what the peer has acknowledged. That it moved on with nothing new is not stored: from here the
    /// homeserver says the same.
    pub(super) position: StoredPosition,
    /// When the peer was last known to be there.
    pub(super) known: Instant,
    pub(super) absent: bool,
    /// Whether the answer to its registration is still to be acknowledged.
    #[serde(default)]
    pub(super) is_new: bool,
    /// What the peer was told and has not acknowledged.
    pub(super) delta: Option<StoredDelta>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPosition {
    pub(super) since: String,
    /// The last position that the peer was told, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) told: Option<String>,
    pub(super) counters: Counters,
}

/// A notification, the value of its Observe option, and the position after it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredDelta {
    pub(super) sequence: u32,
    code: u8,
    options: Vec<(u16, Bytes)>,
    payload: Bytes,
    pub(super) position: StoredPosition,
    /// Its number, where it was packed: the peer's record, which is stored before, has what it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<MessageNumber>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StoredFormat {
    Json,
    Cbor,
    CborV1,
    /// In this epoch of the peer's.
    Packed {
        epoch: u32,
        asked: Asked,
    },
}

/// Whether what a gateway stores under this key is of a request, and of no use when that has been answered and can come no more.
pub fn is_of_request(key: &[u8]) -> bool {
    let endpoint = key.strip_prefix(&[Key::ENDPOINT]);
    matches!(endpoint.and_then(decode), Some(MemoryKey::Request(..)))
}

/// What a gateway stores a device's keys under, by their number: once it is there, they may have been used.
pub fn record_of_keys(number: u64) -> Vec<u8> {
    Key::Endpoint(MemoryKey::Context(number)).encode()
}

/// Whether what a gateway stores under this key is of a device's keys: nothing may be sealed with them that it does not know of.
pub fn is_of_keys(key: &[u8]) -> bool {
    let endpoint = key.strip_prefix(&[Key::ENDPOINT]);
    matches!(endpoint.and_then(decode), Some(MemoryKey::Context(_)))
}

/// Whether what a gateway stores under this key is what it and a peer know of each other by the packed profile: without it they begin anew.
pub fn is_of_packed(key: &[u8]) -> bool {
    matches!(key.first(), Some(&Key::PACKED | &Key::PACKED_CHANGE))
}

/// The peer of which what is stored under this key is a change.
pub(super) fn changed_peer(key: &[u8]) -> Option<Association> {
    let (peer, _): (Association, u64) = key.strip_prefix(&[Key::PACKED_CHANGE]).and_then(decode)?;
    Some(peer)
}

/// The version of all values' format.
const VERSION: u8 = 1;

impl Memories {
    /// Takes a record to be stored.
    pub(super) fn store(&mut self, key: &Key, value: &impl Serialize) {
        self.put(key, value);
    }

    /// The same, and says how many bytes it has.
    pub(super) fn put(&mut self, key: &Key, value: &impl Serialize) -> usize {
        // A session of DTLS does not outlast a restart.
        if let Key::Session(peer) | Key::Packed(peer) | Key::PackedChange(peer, _) = key
            && matches!(peer, Association::Session(_))
        {
            return 0;
        }
        let value = encode(VERSION, value);
        let bytes = value.len();
        self.changed.insert(key.encode(), Some(value));
        bytes
    }

    /// Has a record taken away.
    pub(super) fn forget(&mut self, key: &Key) {
        self.forget_bytes(key.encode());
    }

    /// Has a record taken away that cannot be read.
    pub(super) fn forget_bytes(&mut self, key: Vec<u8>) {
        self.changed.insert(key, None);
    }

    /// The next to be stored. What peers and the gateway know of each other comes before what was written by it: whoever dies in between has
    /// given numbers that nobody has read, and not the other way round.
    pub(super) fn poll(&mut self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let packed = vec![Key::PACKED]..vec![Key::PACKED_CHANGE + 1];
        let first = self.changed.range(packed).next().map(|(key, _)| key.clone());
        match first {
            Some(key) => self.changed.remove_entry(&key),
            None => self.changed.pop_first(),
        }
    }
}

impl Key {
    const ENDPOINT: u8 = b'e';
    const SESSION: u8 = b's';
    const PACKED: u8 = b'p';
    /// After the one before: the whole is stored before the changes go that are in it.
    const PACKED_CHANGE: u8 = b'q';
    const ALLOWANCE: u8 = b'a';
    const OBSERVATION: u8 = b'o';

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Endpoint(key) => encode(Self::ENDPOINT, key),
            Self::Session(peer) => encode(Self::SESSION, peer),
            Self::Packed(peer) => encode(Self::PACKED, peer),
            Self::PackedChange(peer, number) => encode(Self::PACKED_CHANGE, &(peer, number)),
            Self::Allowance(peer) => encode(Self::ALLOWANCE, peer),
            Self::Observation(id) => encode(Self::OBSERVATION, id),
        }
    }
}

impl Record {
    /// Reads a record; `None` where it is none of ours, or of another version.
    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let (kind, key) = key.split_first()?;
        let (version, value) = value.split_first()?;
        if *version != VERSION {
            return None;
        }
        match *kind {
            Key::ENDPOINT => Some(Self::Endpoint(decode(key)?, decode(value)?)),
            Key::SESSION => Some(Self::Session(decode(key)?, decode(value)?)),
            Key::PACKED => Some(Self::Packed(decode(key)?, decode(value)?)),
            Key::PACKED_CHANGE => {
                let (peer, number) = decode(key)?;
                Some(Self::PackedChange(peer, number, decode(value)?))
            }
            Key::ALLOWANCE => Some(Self::Allowance(decode(key)?, decode(value)?)),
            Key::OBSERVATION => Some(Self::Observation(decode(key)?, decode(value)?)),
            _ => None,
        }
    }
}

impl StoredDelta {
    pub(super) fn new(
        response: &coap::Response,
        sequence: u32,
        position: StoredPosition,
        message: Option<MessageNumber>,
    ) -> Self {
        let options = response.options.iter();
        let options = options.map(|(number, value)| (number.0, Bytes::copy_from_slice(value))).collect();
        let (code, payload) = (response.code.0, response.payload.clone());
        Self { sequence, code, options, payload, position, message }
    }

    /// The notification.
    pub(super) fn response(&self) -> coap::Response {
        let mut options = Options::new();
        for (number, value) in &self.options {
            options.push(OptionNumber(*number), value.as_ref());
        }
        coap::Response { code: Code(self.code), options, payload: self.payload.clone() }
    }
}

impl StoredFormat {
    /// A format, and the epoch of the peer's that a packed one is of.
    pub(super) fn of(format: Format, epoch: u32) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Cbor(Keys::Strings) => Self::Cbor,
            Format::Cbor(Keys::V1) => Self::CborV1,
            Format::Packed(asked) => Self::Packed { epoch, asked },
        }
    }
}

impl From<StoredFormat> for Format {
    fn from(format: StoredFormat) -> Self {
        match format {
            StoredFormat::Json => Self::Json,
            StoredFormat::Cbor => Self::Cbor(Keys::Strings),
            StoredFormat::CborV1 => Self::Cbor(Keys::V1),
            StoredFormat::Packed { asked, .. } => Self::Packed(asked),
        }
    }
}

fn encode(first: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![first];
    ciborium::into_writer(value, &mut bytes).expect("what we store has a CBOR form, and memory takes it");
    bytes
}

/// Reads all of some bytes as one value. The nesting that is followed is bounded, so that no bytes exhaust the stack.
fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Option<T> {
    let value = ciborium::from_reader(&mut bytes).ok()?;
    bytes.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::Address;
    use crate::matrix::sync;

    fn observation() -> (Key, StoredObservation) {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let association = Association::from(Address {
            remote: SocketAddr::new(ip, 5683),
            local: SocketAddr::new(ip, 5683),
        });
        let answer = br#"{"next_batch":"s2","device_one_time_keys_count":{"signed_curve25519":50}}"#;
        let summary = sync::summary(answer).unwrap();
        let position =
            || StoredPosition { since: "s1".into(), told: None, counters: summary.counters.clone() };
        let mut authorization = HeaderValue::from_static("Bearer A");
        authorization.set_sensitive(true);
        let mut response = coap::Response::new(Code::CONTENT);
        response.options.push_uint(OptionNumber::CONTENT_FORMAT, 60);
        response.payload = Bytes::from_static(b"\xa0");
        let stored = StoredObservation {
            association,
            path: "/_matrix/client/v3/sync".into(),
            query: vec!["filter=1".into()],
            authorization: Some(authorization),
            format: StoredFormat::CborV1,
            position: position(),
            known: Instant::START,
            absent: true,
            is_new: true,
            delta: Some(StoredDelta::new(&response, 7, position(), None)),
        };
        (Key::Observation(ObservationId(3)), stored)
    }

    fn records() -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut memories = Memories::default();
        let (key, stored) = observation();
        memories.store(&key, &stored);
        memories.store(&Key::Session(stored.association), &Session::new());
        memories.store(&Key::Endpoint(MemoryKey::Peer(stored.association)), &"no memory");
        std::iter::from_fn(|| memories.poll()).map(|(key, value)| (key, value.unwrap())).collect()
    }

    #[test]
    fn what_is_stored_is_read_as_it_was() {
        let (_, expected) = observation();
        let all = records();
        let Some(Record::Session(peer, session)) = Record::read(&all[2].0, &all[2].1) else { panic!() };
        assert_eq!((peer, session), (expected.association, Session::new()));
        let Some(Record::Observation(id, stored)) = Record::read(&all[1].0, &all[1].1) else { panic!() };
        assert_eq!(id, ObservationId(3));
        assert_eq!(format!("{stored:?}"), format!("{expected:?}"));
        assert!(stored.authorization.is_some_and(|header| header.is_sensitive() && header == "Bearer A"));
        let delta = stored.delta.unwrap();
        assert_eq!(delta.response().options.get_uint(OptionNumber::CONTENT_FORMAT), Some(60));
        assert!(Record::read(&all[0].0, &all[0].1).is_none(), "a memory of another kind");
    }

    #[test]
    fn a_requests_record_is_told_from_the_others_by_its_key() {
        let (observation, StoredObservation { association, .. }) = observation();
        let others = [
            observation,
            Key::Session(association),
            Key::Endpoint(MemoryKey::Peer(association)),
            Key::Endpoint(MemoryKey::Observation(ObservationId(3))),
        ];
        assert!(others.iter().all(|key| !is_of_request(&key.encode())));
        assert!(is_of_request(&Key::Endpoint(MemoryKey::Request(association, 7)).encode()));
        assert!(others.iter().all(|key| !is_of_keys(&key.encode())));
        assert!(is_of_keys(&Key::Endpoint(MemoryKey::Context(7)).encode()));
        assert!(others.iter().all(|key| !is_of_packed(&key.encode())));
        assert!(is_of_packed(&Key::Packed(association).encode()));
        assert!(!is_of_request(b"") && !is_of_request(b"e"));
    }

    #[test]
    fn no_part_of_a_record_is_one() {
        for (key, value) in records() {
            for cut in 0..value.len() {
                assert!(Record::read(&key, &value[..cut]).is_none());
            }
            for cut in 0..key.len() {
                assert!(Record::read(&key[..cut], &value).is_none());
            }
            assert!(Record::read(&key, &[value.clone(), vec![0]].concat()).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(key: Vec<u8>, value: Vec<u8>, at: usize, bits: u8) {
            let _ = (Record::read(&key, &value), is_of_request(&key));
            for (key, mut value) in records() {
                let at = at % value.len();
                value[at] ^= bits;
                let _ = Record::read(&key, &value);
            }
        }
    }
}
