//! Bytes that nobody may see: gone from memory with their owner, and never printed.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A key or a token. It is written by [`Serialize`] into what is sealed, or handed to its owner, and into nothing else.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes bytes in; they are overwritten when the last copy goes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for their use.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, where they are text: a token.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.expose_text() {
            // JSON has no byte strings, and tokens and printable keys are text anyway.
            Some(text) if serializer.is_human_readable() => serializer.serialize_str(text),
            _ if serializer.is_human_readable() => serializer.collect_seq(self.expose()),
            _ => serializer.serialize_bytes(self.expose()),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> serde::de::Visitor<'de> for Visitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or bytes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text.as_bytes()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Secret, E> {
        Ok(Secret::new(bytes))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Secret, E> {
        Ok(Secret::new(bytes))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Secret, A::Error> {
        let mut bytes = Zeroizing::new(Vec::new());
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        Ok(Secret(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_not_printed() {
        let printed = format!("{:?} {:#?}", Secret::new("syt_secret"), Some(Secret::new([7; 16])));
        assert!(!printed.contains("syt") && !printed.contains('7'), "{printed}");
    }

    #[test]
    fn secret_is_the_same_after_json_and_cbor() {
        for secret in [Secret::new("syt_token"), Secret::new([0xff, 0, 7]), Secret::new("")] {
            let json = serde_json::to_string(&secret).unwrap();
            assert_eq!(serde_json::from_str::<Secret>(&json).unwrap(), secret);
            let mut cbor = Vec::new();
            ciborium::into_writer(&secret, &mut cbor).unwrap();
            assert_eq!(ciborium::from_reader::<Secret, _>(cbor.as_slice()).unwrap(), secret);
        }
    }
}
