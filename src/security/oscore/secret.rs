//! Bytes that are wiped when they are dropped, and never printed.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// Secret bytes. Compared only by what derives keys from them; written by serde as hexadecimal digits, for a store that is encrypted.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl<const N: usize> From<[u8; N]> for Secret {
    fn from(bytes: [u8; N]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Zeroizing::new(hex::deserialize(deserializer)?)))
    }
}

/// Bytes as hexadecimal digits, for serde.
pub(super) mod hex {
    use super::{Deserialize, Deserializer, Serializer, Zeroizing, de};

    pub(in crate::security::oscore) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // Its length is known beforehand, so no part of it is left behind where it grows.
        let mut digits = Zeroizing::new(String::with_capacity(2 * bytes.len()));
        for byte in bytes {
            for nibble in [byte >> 4, byte & 0xf] {
                digits.extend(char::from_digit(nibble.into(), 16));
            }
        }
        serializer.serialize_str(&digits)
    }

    pub(in crate::security::oscore) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let digits = Zeroizing::new(String::deserialize(deserializer)?);
        decode(&digits).ok_or_else(|| de::Error::custom("no pairs of hexadecimal digits"))
    }

    fn decode(digits: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(digits.len() / 2);
        for pair in digits.as_bytes().chunks(2) {
            let [high, low] = pair else { return None };
            let digit = |character: u8| char::from(character).to_digit(16);
            bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
        }
        Some(bytes)
    }
}

/// Optional bytes as hexadecimal digits, for serde.
pub(super) mod optional_hex {
    use super::{Deserialize, Deserializer, Secret, Serialize, Serializer};

    pub(in crate::security::oscore) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Secret::from).serialize(serializer)
    }

    pub(in crate::security::oscore) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Secret>::deserialize(deserializer)?.map(|secret| secret.expose().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_and_survives_serde() {
        let secret = Secret::from([0xab, 0x01]);
        assert_eq!(format!("{secret:?}"), "Secret(2 bytes)");
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(text, "\"ab01\"");
        assert_eq!(serde_json::from_str::<Secret>(&text).unwrap().expose(), [0xab, 0x01]);
        assert!(serde_json::from_str::<Secret>("\"ab0\"").is_err());
        assert!(serde_json::from_str::<Secret>("\"äb\"").is_err());
    }
}
