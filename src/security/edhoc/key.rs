//! Keys on the curve P-256: ephemeral ones, and the static ones that endpoints are known by.

use std::fmt;

use p256::SecretKey;
use p256::elliptic_curve::point::{AffineCoordinates, DecompressPoint};
use p256::elliptic_curve::subtle::Choice;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::security::oscore::Secret;

/// A private key and its public one.
#[derive(Clone)]
pub struct KeyPair {
    private: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl KeyPair {
    /// Makes one of a seed, which is random and used for nothing else.
    pub fn generate(seed: [u8; 32]) -> Self {
        let mut chance = ChaCha20Rng::from_seed(*Zeroizing::new(seed));
        loop {
            let mut private = Zeroizing::new([0; 32]);
            chance.fill_bytes(private.as_mut_slice());
            // All but one of 2^32 are below the curve's order.
            if let Ok(pair) = Self::from_private(private.as_slice()) {
                return pair;
            }
        }
    }

    /// Reads a private key.
    ///
    /// # Errors
    /// It is zero, or not less than the curve's order, or no 32 bytes.
    pub fn from_private(private: &[u8]) -> Result<Self, KeyError> {
        let private: &[u8; 32] = private.try_into().map_err(|_| KeyError::Private)?;
        let secret = SecretKey::from_slice(private).map_err(|_| KeyError::Private)?;
        Ok(Self { private: Zeroizing::new(*private), public: PublicKey::of(&secret.public_key()) })
    }

    /// The private key.
    pub fn private(&self) -> &[u8; 32] {
        &self.private
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A point of the curve. serde writes it as hexadecimal digits, compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    x: [u8; 32],
    y: [u8; 32],
}

impl PublicKey {
    /// Reads a point as SEC 1 writes it, compressed or not.
    ///
    /// # Errors
    /// It is none of this curve.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, KeyError> {
        p256::PublicKey::from_sec1_bytes(bytes).map(|key| Self::of(&key)).map_err(|_| KeyError::Public)
    }

    /// The point as SEC 1 writes it compressed.
    pub fn to_sec1(self) -> [u8; 33] {
        let [.., last] = self.y;
        let mut bytes = [2 | last & 1; 33];
        bytes[1..].copy_from_slice(&self.x);
        bytes
    }

    /// The x-coordinate, which stands for the point where only a secret is agreed on (RFC 9528 §3.7).
    pub fn x(&self) -> &[u8; 32] {
        &self.x
    }

    /// The y-coordinate.
    pub fn y(&self) -> &[u8; 32] {
        &self.y
    }

    fn of(key: &p256::PublicKey) -> Self {
        let point = key.as_affine();
        Self { x: point.x().into(), y: point.y().into() }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(")?;
        self.to_sec1().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Secret::from(self.to_sec1()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Secret::deserialize(deserializer)?;
        Self::from_sec1(bytes.expose()).map_err(de::Error::custom)
    }
}

/// Bytes that are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A private key.
    #[error("a private key is 32 bytes, a number from 1 to below the order of P-256")]
    Private,
    /// A public key.
    #[error("no point of P-256")]
    Public,
}

/// Whether there is a point with this x-coordinate (RFC 9528 §9.2).
pub(super) fn is_point(x: &[u8]) -> bool {
    <&[u8; 32]>::try_from(x).is_ok_and(|x| point(x).is_some())
}

/// What both ends can compute, and nobody else.
pub(super) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<[u8; 32]> {
    let private = SecretKey::from_slice(private).ok()?;
    let shared = p256::ecdh::diffie_hellman(private.to_nonzero_scalar(), point(public)?);
    Some((*shared.raw_secret_bytes()).into())
}

/// The point, or its opposite: both come to the same secret.
fn point(x: &[u8; 32]) -> Option<p256::AffinePoint> {
    p256::AffinePoint::decompress(&(*x).into(), Choice::from(0)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_of_seeds_read_as_written_and_never_printed() {
        let pair = KeyPair::generate([1; 32]);
        assert_eq!(KeyPair::from_private(pair.private()).unwrap().public(), pair.public());
        assert_eq!(PublicKey::from_sec1(&pair.public().to_sec1()), Ok(pair.public()));
        let whole = [&[4], &pair.public().x()[..], pair.public().y()].concat();
        assert_eq!(PublicKey::from_sec1(&whole), Ok(pair.public()));
        assert_ne!(KeyPair::generate([2; 32]).public(), pair.public());
        let shown = format!("{pair:?}");
        assert!(shown.starts_with("KeyPair { public: PublicKey(0") && shown.ends_with("), .. }"), "{shown}");
        assert_eq!(KeyPair::from_private(&[0; 32]).unwrap_err(), KeyError::Private);
        assert_eq!(KeyPair::from_private(&[0xff; 32]).unwrap_err(), KeyError::Private);
        assert_eq!(KeyPair::from_private(&[1; 31]).unwrap_err(), KeyError::Private);
        assert_eq!(PublicKey::from_sec1(&[2; 32]), Err(KeyError::Public));
    }

    #[test]
    fn both_ends_agree() {
        let (one, other) = (KeyPair::generate([1; 32]), KeyPair::generate([2; 32]));
        let agreed = agree(one.private(), other.public().x());
        assert!(agreed.is_some() && agreed == agree(other.private(), one.public().x()));
        assert_eq!(agree(one.private(), &[0xff; 32]), None);
    }
}
