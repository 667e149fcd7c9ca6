//! What a payload says: CBOR in diagnostic notation and as Matrix JSON, JSON, text, or bytes.

use serde::Serialize;
use serde_json::Value;

use super::option::media_type;
use super::secret::Secrets;
use crate::coap::OptionNumber;
use crate::coap::Options;
use crate::coap::content_format;
use crate::codec::Limits;
use crate::codec::cbor_to_json;
use crate::codec::diagnostic;
use base16ct::lower::encode_string as hex;

/// A payload, read as far as it can be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Payload {
    /// Its place in the datagram, after the marker, in bytes from 0.
    pub at: usize,
    /// Its length in bytes.
    pub size: usize,
    /// What the Content-Format option calls it.
    pub labelled: Option<String>,
    /// What it was read as.
    pub format: Format,
    /// CBOR in diagnostic notation (RFC 8949 §8), text, or bytes in hexadecimal.
    pub text: String,
    /// The Matrix JSON that it is or stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// Whether a CBOR map in it has integer keys, which tells that its sender knows the table.
    pub integer_keys: bool,
    /// Why there is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a payload was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `application/cbor`, whatever its label.
    Cbor,
    /// `application/json`.
    Json,
    /// UTF-8.
    Text,
    /// Neither of these.
    Bytes,
    /// What only those read who have the keys (RFC 8613).
    Ciphertext,
    /// One block of a body that is more than this: it means nothing alone.
    Block,
}

impl Payload {
    /// Reads the payload of a message with these options.
    pub(super) fn read(at: usize, payload: &[u8], options: &Options, secrets: Secrets) -> Self {
        let label = options.get_uint(OptionNumber::CONTENT_FORMAT);
        let blank = Self {
            at,
            size: payload.len(),
            labelled: label.map(|label| media_type(label).map_or(label.to_string(), str::to_owned)),
            format: Format::Bytes,
            text: hex(payload),
            json: None,
            integer_keys: false,
            problem: None,
        };
        if options.get(OptionNumber::OSCORE).is_some() {
            return Self { format: Format::Ciphertext, ..blank };
        }
        if is_block(options) {
            let problem = "one block of a body: only the whole can be read".to_owned();
            return Self { format: Format::Block, problem: Some(problem), ..blank };
        }
        // Deployed peers label CBOR 50, 42 or not at all. JSON and text are no CBOR: `{` would begin a string longer than the
        // datagram, and a digit or a letter is an item that ends too early.
        match read_cbor(payload, secrets) {
            Ok(cbor) if label == Some(content_format::CBOR) || is_container(payload) => cbor.finish(blank),
            Err(problem) if label == Some(content_format::CBOR) => {
                Self { format: Format::Cbor, problem: Some(problem), ..blank }
            }
            _ => read_text(payload, secrets, blank),
        }
    }
}

struct Cbor {
    diagnostic: String,
    json: Option<Value>,
    integer_keys: bool,
    problem: Option<String>,
}

impl Cbor {
    fn finish(self, blank: Payload) -> Payload {
        let Self { diagnostic, json, integer_keys, problem } = self;
        Payload { format: Format::Cbor, text: diagnostic, json, integer_keys, problem, ..blank }
    }
}

/// CBOR that is well-formed; not all of it has a JSON form.
fn read_cbor(payload: &[u8], secrets: Secrets) -> Result<Cbor, String> {
    let limits = Limits::default();
    let diagnostic = diagnostic(payload, &limits).map_err(|error| error.to_string())?;
    let diagnostic = secrets.hide_diagnostic(&diagnostic);
    match cbor_to_json(payload, &limits) {
        Ok(decoded) => {
            let json = read_json(&decoded.json, secrets);
            Ok(Cbor { diagnostic, json, integer_keys: decoded.integer_keys, problem: None })
        }
        Err(error) => {
            let problem = Some(format!("has no JSON form: {error}"));
            Ok(Cbor { diagnostic, json: None, integer_keys: false, problem })
        }
    }
}

fn read_text(payload: &[u8], secrets: Secrets, blank: Payload) -> Payload {
    if let Some(json) = read_json(payload, secrets).filter(|json| json.is_object() || json.is_array()) {
        return Payload { format: Format::Json, text: json.to_string(), json: Some(json), ..blank };
    }
    match std::str::from_utf8(payload) {
        Ok(text) => Payload { format: Format::Text, text: format!("{text:?}"), ..blank },
        Err(_) => blank,
    }
}

fn read_json(text: &[u8], secrets: Secrets) -> Option<Value> {
    let mut json = serde_json::from_slice(text).ok()?;
    secrets.hide_body(&mut json);
    Some(json)
}

/// Whether the item is an array, a map or tagged: what a Matrix body can be, and no text is.
fn is_container(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| matches!(first >> 5, 4..=6))
}

/// Whether the payload is less than the body: a block that others precede or follow (RFC 7959 §2.2, RFC 9177).
fn is_block(options: &Options) -> bool {
    [OptionNumber::BLOCK1, OptionNumber::BLOCK2, OptionNumber::Q_BLOCK1, OptionNumber::Q_BLOCK2]
        .into_iter()
        .filter_map(|number| options.get_uint(number))
        .any(|block| block >> 4 != 0 || block & 8 != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(payload: &[u8], options: &[(OptionNumber, u32)]) -> Payload {
        let mut all = Options::new();
        for (number, value) in options {
            all.push_uint(*number, *value);
        }
        Payload::read(9, payload, &all, Secrets::Hidden)
    }

    #[test]
    fn cbor_is_recognised_under_every_label_that_peers_give_it() {
        let payload = [0xa1, 0x02, 0x61, b'x'];
        for label in [Some(60), Some(50), Some(42), Some(0), None] {
            let options: Vec<_> =
                label.map(|label| (OptionNumber::CONTENT_FORMAT, label)).into_iter().collect();
            let read = read(&payload, &options);
            assert_eq!(
                (read.format, read.text.as_str(), read.integer_keys),
                (Format::Cbor, r#"{2: "x"}"#, true)
            );
            assert_eq!(read.json, Some(json!({"type": "x"})));
        }
    }

    #[test]
    fn json_and_text_are_not_taken_for_cbor() {
        let json = read(br#"{"a":[1.0]}"#, &[(OptionNumber::CONTENT_FORMAT, 50)]);
        assert_eq!((json.format, json.json), (Format::Json, Some(json!({"a": [1.0]}))));
        assert_eq!(read(b"22.3 C", &[]).format, Format::Text);
        assert_eq!(read(b"7", &[]).format, Format::Text);
        assert_eq!(read(&[0xff, 0xfe], &[]).format, Format::Bytes);
    }

    #[test]
    fn cbor_without_json_form_is_still_shown() {
        let read = read(&[0xa1, 0x19, 0x27, 0x0f, 0x01], &[(OptionNumber::CONTENT_FORMAT, 60)]);
        assert_eq!((read.format, read.text.as_str()), (Format::Cbor, "{9999: 1}"));
        assert!(read.problem.unwrap().contains("9999"));
    }

    #[test]
    fn cut_cbor_is_bytes_with_the_place_where_it_breaks() {
        let read = read(&[0xa1, 0x02], &[(OptionNumber::CONTENT_FORMAT, 60)]);
        assert_eq!((read.format, read.text.as_str()), (Format::Cbor, "a102"));
        assert!(read.problem.unwrap().contains("byte 2"));
    }

    #[test]
    fn a_block_means_nothing_alone() {
        assert_eq!(read(&[0xa0], &[(OptionNumber::BLOCK2, 0x0b)]).format, Format::Block);
        assert_eq!(read(&[0xa0], &[(OptionNumber::BLOCK1, 0x13)]).format, Format::Block);
        assert_eq!(read(&[0xa0], &[(OptionNumber::BLOCK2, 0x03)]).format, Format::Cbor);
    }
}
