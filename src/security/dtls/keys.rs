//! Whom a peer may be: the pre-shared keys and the certificates that are known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use dimpl::PskResolver;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::provider;

/// Pre-shared keys by identity. Its clones are the same keys: what the owner changes holds from the next handshake on.
///
/// They are kept under the digests of the identities, so that how long it takes to find one says nothing of the others.
#[derive(Clone, Default)]
pub struct Keys(Arc<RwLock<BTreeMap<Fingerprint, Zeroizing<Vec<u8>>>>>);

impl Keys {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key, or replaces it.
    pub fn insert(&self, identity: &[u8], key: Vec<u8>) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(Fingerprint::of(identity), Zeroizing::new(key));
    }

    /// Removes a key. Sessions that have begun with it go on until they are closed.
    pub fn remove(&self, identity: &[u8]) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&Fingerprint::of(identity));
    }

    /// Whether there is a key of this identity.
    pub fn contains(&self, identity: &[u8]) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.contains_key(&Fingerprint::of(identity))
    }
}

impl PskResolver for Keys {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.get(&Fingerprint::of(identity))?;
        provider::note_identity(identity);
        Some(key.to_vec())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Digests of certificates that are known: of the whole certificate, or of its public key, which outlives a new certificate.
/// Its clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<RwLock<BTreeSet<Fingerprint>>>);

impl Pins {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a digest.
    pub fn insert(&self, fingerprint: Fingerprint) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(fingerprint);
    }

    /// Removes a digest. Sessions that have begun with it go on until they are closed.
    pub fn remove(&self, fingerprint: Fingerprint) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&fingerprint);
    }

    /// Whether a digest is known.
    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&fingerprint)
    }
}

/// A SHA-256 digest of a certificate or of its SubjectPublicKeyInfo, both in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// Text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a fingerprint is 32 bytes in hexadecimal, with or without colons")]
pub struct FingerprintError;

impl Fingerprint {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits: Option<Vec<u8>> =
            text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or(FingerprintError)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written_and_as_openssl_writes_it() {
        let fingerprint = Fingerprint::of(b"abc");
        let text = fingerprint.to_string();
        // FIPS 180-4, the example of SHA-256.
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(text.parse(), Ok(fingerprint));
        let pairs: Vec<_> = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect();
        assert_eq!(pairs.join(":").to_uppercase().parse(), Ok(fingerprint));
        for wrong in ["", "ba78", &text[1..], &format!("{text}0"), &text.replace('b', "g")] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(FingerprintError), "{wrong}");
        }
    }

    #[test]
    fn keys_change_for_all_who_have_them_and_are_never_printed() {
        let keys = Keys::new();
        let others = keys.clone();
        keys.insert(b"device", b"secret".to_vec());
        assert_eq!(others.resolve(b"device").as_deref(), Some(b"secret".as_slice()));
        assert_eq!(format!("{others:?}"), "Keys(..)");
        others.remove(b"device");
        assert!(!keys.contains(b"device") && keys.resolve(b"device").is_none());
    }
}
