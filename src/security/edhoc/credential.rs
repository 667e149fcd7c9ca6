//! What endpoints know each other by: a static public key in a CWT Claims Set, and its id (RFC 9528 §3.5).

use std::fmt;

use ciborium::Value;
use thiserror::Error;

use super::key::{KeyPair, PublicKey};
use super::message::LONGEST_KID;
use crate::security::oscore::cbor;

/// A public key, as a CWT Claims Set (CCS) that both ends have and that never crosses the link.
///
/// ```text
/// { 2: subject, 8: { 1: { 1: 2, 2: kid, -1: 1, -2: x, -3: y } } }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    kid: Vec<u8>,
    key: PublicKey,
    ccs: Vec<u8>,
}

impl Credential {
    /// The most bytes of a claims set.
    pub const LONGEST: usize = 128;
    /// The most bytes of a subject.
    pub const LONGEST_SUBJECT: usize = 32;

    /// Makes one. With an id of one byte that is an integer in CBOR, `0x00` to `0x17` or `0x20` to `0x37`, the id costs one byte.
    ///
    /// # Errors
    /// The subject or the id is too long, or there is no id.
    pub fn new(subject: &str, kid: &[u8], key: PublicKey) -> Result<Self, CredentialError> {
        if subject.len() > Self::LONGEST_SUBJECT {
            return Err(CredentialError::Subject(subject.len()));
        }
        check_kid(kid)?;
        let mut ccs = Vec::with_capacity(Self::LONGEST);
        cbor::map(2, &mut ccs);
        cbor::unsigned(2, &mut ccs);
        cbor::text(subject, &mut ccs);
        cbor::unsigned(8, &mut ccs);
        cbor::map(1, &mut ccs);
        cbor::unsigned(1, &mut ccs);
        cbor::map(5, &mut ccs);
        // RFC 9052 §7.1, RFC 9053 §7.1.1: an elliptic curve key with two coordinates, of P-256.
        cbor::unsigned(1, &mut ccs);
        cbor::unsigned(2, &mut ccs);
        cbor::unsigned(2, &mut ccs);
        cbor::bytes(kid, &mut ccs);
        cbor::integer(-1, &mut ccs);
        cbor::unsigned(1, &mut ccs);
        cbor::integer(-2, &mut ccs);
        cbor::bytes(key.x(), &mut ccs);
        cbor::integer(-3, &mut ccs);
        cbor::bytes(key.y(), &mut ccs);
        // With an id of 16 bytes and a subject of 32 it would be longer than there is room for.
        Self::fitting(kid, key, ccs)
    }

    /// Reads a claims set that others have made, whose bytes are kept as they are: both ends must have the same.
    ///
    /// # Errors
    /// What it lacks.
    pub fn from_ccs(ccs: &[u8]) -> Result<Self, CredentialError> {
        let mut rest = ccs;
        let value: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 8)
            .map_err(|_| CredentialError::Malformed)?;
        let map = value.as_map().filter(|_| rest.is_empty()).ok_or(CredentialError::Malformed)?;
        let confirmation = entry(map, 8).and_then(Value::as_map).ok_or(CredentialError::NoKey)?;
        let key = entry(confirmation, 1).and_then(Value::as_map).ok_or(CredentialError::NoKey)?;
        let is = |label, wanted: i64| entry(key, label).is_some_and(|value| *value == Value::from(wanted));
        if !is(1, 2) || !is(-1, 1) {
            return Err(CredentialError::NoKey);
        }
        let x = entry(key, -2).and_then(Value::as_bytes).ok_or(CredentialError::NoKey)?;
        let sec1 = match entry(key, -3) {
            Some(Value::Bytes(y)) => [&[4], x.as_slice(), y].concat(),
            Some(Value::Bool(is_odd)) => [&[2 | u8::from(*is_odd)], x.as_slice()].concat(),
            None => [&[2], x.as_slice()].concat(),
            Some(_) => return Err(CredentialError::NoKey),
        };
        let public = PublicKey::from_sec1(&sec1).map_err(|_| CredentialError::NoKey)?;
        let kid = entry(key, 2).and_then(Value::as_bytes).ok_or(CredentialError::Kid(0))?;
        check_kid(kid)?;
        Self::fitting(kid, public, ccs.to_vec())
    }

    fn fitting(kid: &[u8], key: PublicKey, ccs: Vec<u8>) -> Result<Self, CredentialError> {
        match ccs.len() {
            0..=Self::LONGEST => Ok(Self { kid: kid.to_vec(), key, ccs }),
            length => Err(CredentialError::Length(length)),
        }
    }

    /// What it is named by on the link.
    pub fn kid(&self) -> &[u8] {
        &self.kid
    }

    /// The key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The claims set, in CBOR.
    pub fn ccs(&self) -> &[u8] {
        &self.ccs
    }

    pub(super) fn to_lakers(&self) -> lakers::Credential {
        let ccs = lakers::BufferCred::new_from_slice(&self.ccs).expect("it is as long as it may be at most");
        let kid = lakers::BufferKid::new_from_slice(&self.kid).expect("as above");
        lakers::Credential::new_ccs(ccs, *self.key.x()).with_kid(kid)
    }

    /// ID_CRED_x: `{ 4: kid }`.
    pub(super) fn is_named_by(&self, id: &lakers::IdCred) -> bool {
        self.to_lakers().by_kid().is_ok_and(|own| own.as_full_value() == id.as_full_value())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("kid", &self.kid).field("key", &self.key).finish_non_exhaustive()
    }
}

fn check_kid(kid: &[u8]) -> Result<(), CredentialError> {
    match kid.len() {
        1..=LONGEST_KID => Ok(()),
        length => Err(CredentialError::Kid(length)),
    }
}

fn entry(map: &[(Value, Value)], label: i64) -> Option<&Value> {
    map.iter().find(|(key, _)| *key == Value::from(label)).map(|(_, value)| value)
}

/// Who an endpoint is: its credential, and the private key that goes with it.
#[derive(Clone, Debug)]
pub struct Identity {
    pair: KeyPair,
    credential: Credential,
}

impl Identity {
    /// Puts both together.
    ///
    /// # Errors
    /// The credential is of another key.
    pub fn new(pair: KeyPair, credential: Credential) -> Result<Self, CredentialError> {
        match pair.public().x() == credential.key().x() {
            true => Ok(Self { pair, credential }),
            false => Err(CredentialError::OtherKey),
        }
    }

    /// What the other endpoint has to have.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    pub(super) fn private(&self) -> &[u8; 32] {
        self.pair.private()
    }
}

/// What is no credential, or none that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// Not one map in CBOR.
    #[error("no CWT Claims Set")]
    Malformed,
    /// No key of P-256 in it.
    #[error("the claims set has no key of P-256")]
    NoKey,
    /// No id in it, or a longer one.
    #[error("a key id has 1 to {max} bytes, not {0}", max = LONGEST_KID)]
    Kid(usize),
    /// The subject is too long.
    #[error("a subject has {max} bytes at most, not {0}", max = Credential::LONGEST_SUBJECT)]
    Subject(usize),
    /// It is too long.
    #[error("a claims set has {max} bytes at most, not {0}", max = Credential::LONGEST)]
    Length(usize),
    /// The private key is another one's.
    #[error("the credential is of another key")]
    OtherKey,
}
