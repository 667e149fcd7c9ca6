//! What two endpoints agree on beforehand (RFC 8613 §3.2).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::algorithm::{Algorithm, Hkdf};
use super::secret::{Secret, hex, optional_hex};

/// The input parameters of a security context. Ids and the ID context cross the link in clear; the rest never does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parameters {
    /// What all keys are derived from. At least 16 bytes, random and uniform.
    pub master_secret: Secret,
    /// Extracts the secret's randomness; may be empty.
    #[serde(default)]
    pub master_salt: Secret,
    /// The id of this endpoint: the `kid` of its requests, so the fewer bytes the better.
    #[serde(with = "hex")]
    pub sender_id: Vec<u8>,
    /// The id of the other endpoint.
    #[serde(with = "hex")]
    pub recipient_id: Vec<u8>,
    /// Tells contexts with the same ids apart, and makes their keys differ. It is part of every request, as its `kid context`.
    #[serde(default, with = "optional_hex")]
    pub id_context: Option<Vec<u8>>,
    /// How messages are encrypted.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How keys are derived.
    #[serde(default)]
    pub hkdf: Hkdf,
}

impl Parameters {
    /// The fewest bytes of a master secret (RFC 8613 §12.3: it has to be strong by itself).
    pub const LEAST_SECRET: usize = 16;
    /// The most bytes of a master secret, and of a salt.
    pub const LONGEST_SECRET: usize = 255;
    /// The most bytes of an ID context. The option would hold more; but each request carries it.
    pub const LONGEST_ID_CONTEXT: usize = 64;

    /// Those with the algorithms that every implementation has, and neither salt nor ID context.
    pub fn new(master_secret: Secret, sender_id: &[u8], recipient_id: &[u8]) -> Self {
        Self {
            master_secret,
            master_salt: Secret::default(),
            sender_id: sender_id.to_vec(),
            recipient_id: recipient_id.to_vec(),
            id_context: None,
            algorithm: Algorithm::default(),
            hkdf: Hkdf::default(),
        }
    }

    /// Those of the other endpoint.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        Self { sender_id: self.recipient_id.clone(), recipient_id: self.sender_id.clone(), ..self.clone() }
    }

    /// Whether a context can be derived from them.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), ParametersError> {
        let secret = self.master_secret.expose().len();
        if !(Self::LEAST_SECRET..=Self::LONGEST_SECRET).contains(&secret) {
            return Err(ParametersError::SecretLength(secret));
        }
        let salt = self.master_salt.expose().len();
        if salt > Self::LONGEST_SECRET {
            return Err(ParametersError::SaltLength(salt));
        }
        // §3.3: the nonce has room for so many bytes of an id.
        let longest = self.algorithm.nonce_length() - 6;
        for id in [&self.sender_id, &self.recipient_id] {
            if id.len() > longest {
                return Err(ParametersError::IdLength { length: id.len(), longest });
            }
        }
        // §3.3: the same id for both would be the same keys, and the same nonces, for both.
        if self.sender_id == self.recipient_id {
            return Err(ParametersError::SameIds);
        }
        match self.id_context.as_ref().map(Vec::len) {
            Some(length) if length > Self::LONGEST_ID_CONTEXT => {
                Err(ParametersError::IdContextLength(length))
            }
            _ => Ok(()),
        }
    }
}

/// Parameters that no context can be derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// Too short to be strong, or far too long.
    #[error("master secret has {0} bytes, not {min} to {max}", min = Parameters::LEAST_SECRET, max = Parameters::LONGEST_SECRET)]
    SecretLength(usize),
    /// Far too long.
    #[error("master salt has {0} bytes, more than {max}", max = Parameters::LONGEST_SECRET)]
    SaltLength(usize),
    /// RFC 8613 §3.3.
    #[error("sender or recipient id has {length} bytes, more than the {longest} that its algorithm allows")]
    IdLength {
        /// What it has.
        length: usize,
        /// What it may have.
        longest: usize,
    },
    /// RFC 8613 §3.3.
    #[error("sender and recipient id are the same")]
    SameIds,
    /// Too long to be sent with each request.
    #[error("ID context has {0} bytes, more than {max}", max = Parameters::LONGEST_ID_CONTEXT)]
    IdContextLength(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        Parameters::new(Secret::from([7; 16]), b"", b"\x01")
    }

    #[test]
    fn what_cannot_be_derived_from_is_refused_and_told() {
        assert_eq!(parameters().validate(), Ok(()));
        let short = Parameters { master_secret: Secret::from([7; 15]), ..parameters() };
        assert_eq!(short.validate(), Err(ParametersError::SecretLength(15)));
        assert_eq!(short.validate().unwrap_err().to_string(), "master secret has 15 bytes, not 16 to 255");
        let longest = Parameters { sender_id: vec![0; 7], ..parameters() };
        assert_eq!(longest.validate(), Ok(()));
        let long = Parameters { sender_id: vec![0; 8], ..parameters() };
        assert_eq!(long.validate(), Err(ParametersError::IdLength { length: 8, longest: 7 }));
        let gcm = Parameters { algorithm: Algorithm::A128Gcm, ..longest };
        assert_eq!(gcm.validate(), Err(ParametersError::IdLength { length: 7, longest: 6 }));
        let same = Parameters { sender_id: vec![1], ..parameters() };
        assert_eq!(same.validate(), Err(ParametersError::SameIds));
        let wide = Parameters { id_context: Some(vec![0; 65]), ..parameters() };
        assert_eq!(wide.validate(), Err(ParametersError::IdContextLength(65)));
    }

    #[test]
    fn parameters_survive_serde_and_are_printed_without_their_secrets() {
        let full = Parameters {
            master_salt: Secret::from([0xcd; 8]),
            id_context: Some(vec![0x37, 0xcb]),
            algorithm: Algorithm::ChaCha20Poly1305,
            hkdf: Hkdf::Sha512,
            ..parameters()
        };
        let text = serde_json::to_string(&full).unwrap();
        let read: Parameters = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.algorithm, Algorithm::ChaCha20Poly1305);
        let shown = format!("{full:?}");
        assert!(!shown.contains("7, 7") && !shown.contains("0707") && !shown.contains("205"), "{shown}");
        let least =
            r#"{"master_secret":"000102030405060708090a0b0c0d0e0f","sender_id":"","recipient_id":"01"}"#;
        let least: Parameters = serde_json::from_str(least).unwrap();
        assert_eq!((least.algorithm, least.hkdf), (Algorithm::AesCcm16_64_128, Hkdf::Sha256));
    }
}
