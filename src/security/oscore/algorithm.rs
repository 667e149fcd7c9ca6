//! The algorithms, by their numbers in COSE (RFC 9053 §4, §5.1).

use aes::{Aes128, Aes256};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use ccm::Ccm;
use ccm::aead::array::Array;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U8, U13, U16};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf as Kdf;
use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha512};
use thiserror::Error;
use zeroize::Zeroizing;

/// An AEAD algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
#[non_exhaustive]
pub enum Algorithm {
    /// 10: the one that every implementation has (RFC 8613 §5). Tags of 8 bytes.
    #[default]
    AesCcm16_64_128,
    /// 11. Tags of 8 bytes.
    AesCcm16_64_256,
    /// 30. Tags of 16 bytes.
    AesCcm16_128_128,
    /// 31. Tags of 16 bytes.
    AesCcm16_128_256,
    /// 1. Tags of 16 bytes.
    A128Gcm,
    /// 3. Tags of 16 bytes.
    A256Gcm,
    /// 24. Tags of 16 bytes.
    ChaCha20Poly1305,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AesCcm16_64_128,
        Self::AesCcm16_64_256,
        Self::AesCcm16_128_128,
        Self::AesCcm16_128_256,
        Self::A128Gcm,
        Self::A256Gcm,
        Self::ChaCha20Poly1305,
    ];

    /// Its number in COSE.
    pub const fn number(self) -> u8 {
        match self {
            Self::A128Gcm => 1,
            Self::A256Gcm => 3,
            Self::AesCcm16_64_128 => 10,
            Self::AesCcm16_64_256 => 11,
            Self::ChaCha20Poly1305 => 24,
            Self::AesCcm16_128_128 => 30,
            Self::AesCcm16_128_256 => 31,
        }
    }

    /// Bytes of a key.
    pub const fn key_length(self) -> usize {
        match self {
            Self::AesCcm16_64_128 | Self::AesCcm16_128_128 | Self::A128Gcm => 16,
            Self::AesCcm16_64_256 | Self::AesCcm16_128_256 | Self::A256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of a nonce.
    pub const fn nonce_length(self) -> usize {
        match self {
            Self::A128Gcm | Self::A256Gcm | Self::ChaCha20Poly1305 => 12,
            _ => 13,
        }
    }

    /// The ciphertext, with its tag.
    pub(super) fn seal(self, key: &[u8], nonce: &[u8], aad: &[u8], plaintext: Vec<u8>) -> Vec<u8> {
        self.run(Direction::Seal, key, nonce, aad, plaintext)
            .expect("keys and nonces have the algorithm's lengths, and no message is as long as its limit")
    }

    /// The plaintext; `None` where the ciphertext is not one under this key, nonce and AAD.
    pub(super) fn open(
        self,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        self.run(Direction::Open, key, nonce, aad, ciphertext.to_vec()).map(Zeroizing::new)
    }

    fn run(
        self,
        direction: Direction,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        buffer: Vec<u8>,
    ) -> Option<Vec<u8>> {
        match self {
            Self::AesCcm16_64_128 => run::<Ccm<Aes128, U8, U13>>(direction, key, nonce, aad, buffer),
            Self::AesCcm16_64_256 => run::<Ccm<Aes256, U8, U13>>(direction, key, nonce, aad, buffer),
            Self::AesCcm16_128_128 => run::<Ccm<Aes128, U16, U13>>(direction, key, nonce, aad, buffer),
            Self::AesCcm16_128_256 => run::<Ccm<Aes256, U16, U13>>(direction, key, nonce, aad, buffer),
            Self::A128Gcm => run::<Aes128Gcm>(direction, key, nonce, aad, buffer),
            Self::A256Gcm => run::<Aes256Gcm>(direction, key, nonce, aad, buffer),
            Self::ChaCha20Poly1305 => run::<ChaCha20Poly1305>(direction, key, nonce, aad, buffer),
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Seal,
    Open,
}

fn run<A: AeadInOut + KeyInit>(
    direction: Direction,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    mut buffer: Vec<u8>,
) -> Option<Vec<u8>> {
    let cipher = A::new_from_slice(key).ok()?;
    let nonce = <&Array<u8, A::NonceSize>>::try_from(nonce).ok()?;
    match direction {
        Direction::Seal => cipher.encrypt_in_place(nonce, aad, &mut buffer).ok()?,
        Direction::Open => cipher.decrypt_in_place(nonce, aad, &mut buffer).ok()?,
    }
    Some(buffer)
}

impl From<Algorithm> for i32 {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.number().into()
    }
}

impl TryFrom<i32> for Algorithm {
    type Error = UnknownAlgorithm;

    fn try_from(number: i32) -> Result<Self, UnknownAlgorithm> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| i32::from(*algorithm) == number).ok_or(UnknownAlgorithm(number))
    }
}

/// A key derivation function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
#[non_exhaustive]
pub enum Hkdf {
    /// −10: HKDF with SHA-256, the one that every implementation has (RFC 8613 §3.2).
    #[default]
    Sha256,
    /// −11: HKDF with SHA-512.
    Sha512,
}

impl Hkdf {
    /// As many bytes as `output` has, derived from a secret (RFC 5869).
    pub(super) fn derive(self, salt: &[u8], secret: &[u8], info: &[u8], output: &mut [u8]) {
        let derived = match self {
            Self::Sha256 => Kdf::<Sha256>::new(Some(salt), secret).expand(info, output),
            Self::Sha512 => Kdf::<Sha512>::new(Some(salt), secret).expand(info, output),
        };
        derived.expect("a key is shorter than 255 hashes");
    }
}

impl From<Hkdf> for i32 {
    fn from(hkdf: Hkdf) -> Self {
        match hkdf {
            Hkdf::Sha256 => -10,
            Hkdf::Sha512 => -11,
        }
    }
}

impl TryFrom<i32> for Hkdf {
    type Error = UnknownAlgorithm;

    fn try_from(number: i32) -> Result<Self, UnknownAlgorithm> {
        match number {
            -10 => Ok(Self::Sha256),
            -11 => Ok(Self::Sha512),
            number => Err(UnknownAlgorithm(number)),
        }
    }
}

/// A number of COSE that is no algorithm of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("COSE algorithm {0} is not supported")]
pub struct UnknownAlgorithm(pub i32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_opens_what_it_seals_and_has_the_lengths_that_it_says() {
        for (algorithm, tag) in Algorithm::ALL.into_iter().zip([8, 8, 16, 16, 16, 16, 16]) {
            let (key, nonce) = (vec![1; algorithm.key_length()], vec![2; algorithm.nonce_length()]);
            let mut sealed = algorithm.seal(&key, &nonce, b"aad", b"text".to_vec());
            assert_eq!(sealed.len(), 4 + tag, "{algorithm:?}");
            assert_eq!(algorithm.open(&key, &nonce, b"aad", &sealed).unwrap().as_slice(), b"text");
            assert!(algorithm.open(&key, &nonce, b"AAD", &sealed).is_none());
            sealed[0] ^= 1;
            assert!(algorithm.open(&key, &nonce, b"aad", &sealed).is_none());
            assert!(algorithm.open(&key, &nonce, b"aad", &[]).is_none());
            assert_eq!(Algorithm::try_from(i32::from(algorithm)), Ok(algorithm));
        }
        assert_eq!(Algorithm::try_from(2), Err(UnknownAlgorithm(2)));
    }
}
