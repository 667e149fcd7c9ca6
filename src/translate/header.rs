//! `Authorization` as it is stored: its bytes, and secret again when it is read.

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;

/// Writes a header.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(header: &Option<HeaderValue>, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = header.as_ref().map(|header| Bytes::copy_from_slice(header.as_bytes()));
    bytes.serialize(serializer)
}

/// Reads a header.
///
/// # Errors
/// Bytes that no header holds.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HeaderValue>, D::Error> {
    let Some(bytes) = Option::<Bytes>::deserialize(deserializer)? else { return Ok(None) };
    let mut header = HeaderValue::from_maybe_shared(bytes).map_err(D::Error::custom)?;
    header.set_sensitive(true);
    Ok(Some(header))
}
