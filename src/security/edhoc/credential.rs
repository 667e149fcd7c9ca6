//! What endpoints know each other by: a static public key in a CWT Claims Set, and its id (RFC 9528 §3.5).

use std::fmt;

use ciborium::Value;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::key::{KeyPair, PublicKey};
use super::message::LONGEST_KID;
use crate::security::oscore::{Secret, cbor};

/// A public key, as a CWT Claims Set (CCS) that both ends have and that never crosses the link. It is no secret; serde writes it as
/// hexadecimal digits.
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
    /// The most bytes of an id.
    pub const LONGEST_KID: usize = LONGEST_KID;
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

impl Serialize for Credential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Secret::from(self.ccs.clone()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ccs = Secret::deserialize(deserializer)?;
        Self::from_ccs(ccs.expose()).map_err(de::Error::custom)
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

/// Who an endpoint is: its credential, and the private key that goes with it. serde writes both, for a store that is encrypted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Identity {
    pair: KeyPair,
    credential: Credential,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    private: Secret,
    credential: Credential,
}

impl From<Identity> for Stored {
    fn from(identity: Identity) -> Self {
        Self { private: Secret::from(*identity.pair.private()), credential: identity.credential }
    }
}

impl TryFrom<Stored> for Identity {
    type Error = CredentialError;

    fn try_from(stored: Stored) -> Result<Self, CredentialError> {
        let pair = KeyPair::from_private(stored.private.expose()).map_err(|_| CredentialError::OtherKey)?;
        Self::new(pair, stored.credential)
    }
}

impl Identity {
    /// Makes a new one of a seed, which is random and used for nothing else.
    ///
    /// # Errors
    /// See [`Credential::new`].
    pub fn generate(subject: &str, kid: &[u8], seed: [u8; 32]) -> Result<Self, CredentialError> {
        let pair = KeyPair::generate(seed);
        let credential = Credential::new(subject, kid, pair.public())?;
        Self::new(pair, credential)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_back_with_the_same_bytes() {
        let identity = Identity::generate("buoy", &[7], [1; 32]).unwrap();
        let credential = identity.credential();
        assert_eq!(Credential::from_ccs(credential.ccs()).as_ref(), Ok(credential));
        assert_eq!((credential.kid(), credential.ccs().len()), (&[7][..], 7 + 4 + 2 + 3 + 2 + 35 + 35));
        let text = serde_json::to_string(&identity).unwrap();
        let read: Identity = serde_json::from_str(&text).unwrap();
        assert_eq!((read.private(), read.credential()), (identity.private(), credential));
        let other = Identity::generate("buoy", &[7], [2; 32]).unwrap();
        let mixed = Stored { private: Secret::from(*other.private()), credential: credential.clone() };
        assert_eq!(Identity::try_from(mixed).unwrap_err(), CredentialError::OtherKey);
    }

    #[test]
    fn claims_sets_of_others_are_read_and_what_they_lack_is_told() {
        let own = Identity::generate("", &[7], [1; 32]).unwrap();
        let (x, y) = (*own.credential().key().x(), *own.credential().key().y());
        type Key = Vec<(Value, Value)>;
        let set = |change: fn(&mut Key)| {
            let pair = |label: i64, value: Value| (Value::from(label), value);
            let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
            let mut key = vec![
                pair(1, 2.into()),
                pair(2, bytes(b"\x07")),
                pair(-1, 1.into()),
                pair(-2, bytes(&x)),
                pair(-3, bytes(&y)),
            ];
            change(&mut key);
            let confirmation = Value::Map(vec![pair(1, Value::Map(key))]);
            let mut ccs = Vec::new();
            ciborium::into_writer(&Value::Map(vec![pair(8, confirmation)]), &mut ccs).unwrap();
            Credential::from_ccs(&ccs).map(|read| *read.key().x())
        };
        assert_eq!(set(|_| {}), Ok(x));
        // Either of the two points will do: only x counts.
        assert_eq!(set(|key| key.truncate(4)), Ok(x));
        assert_eq!(set(|key| key[4].1 = Value::Bool(true)), Ok(x));
        assert_eq!(set(|key| key[4].1 = Value::Bytes(vec![1; 32])), Err(CredentialError::NoKey));
        assert_eq!(set(|key| key[2].1 = 2.into()), Err(CredentialError::NoKey));
        assert_eq!(set(|key| drop(key.remove(1))), Err(CredentialError::Kid(0)));
        assert_eq!(set(|key| key[1].1 = Value::Bytes(vec![1; 17])), Err(CredentialError::Kid(17)));
        let ccs = own.credential().ccs();
        for length in 0..ccs.len() {
            assert!(Credential::from_ccs(&ccs[..length]).is_err(), "{length}");
        }
        assert_eq!(Credential::from_ccs(&[ccs, &[0]].concat()), Err(CredentialError::Malformed));
        let long = |subject: &str, kid: &[u8]| Credential::new(subject, kid, own.credential().key());
        assert_eq!(long(&"a".repeat(33), &[1]), Err(CredentialError::Subject(33)));
        assert_eq!(long("a", &[]), Err(CredentialError::Kid(0)));
        assert_eq!(long(&"a".repeat(32), &[1; 16]), Err(CredentialError::Length(132)));
        assert!(long(&"a".repeat(32), &[1; 12]).is_ok());
    }
}
