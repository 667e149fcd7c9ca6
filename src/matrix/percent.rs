//! Percent-encoding (RFC 3986 §2.1), one component at a time.

/// Writes `text` to `out`; bytes that are neither unreserved (RFC 3986 §2.3) nor in `also_raw` become `%XX`.
pub(super) fn encode(text: &str, also_raw: &[u8], out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| HEX.get(usize::from(value & 0xf)).copied().unwrap_or('0');
    for byte in text.bytes() {
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if unreserved || also_raw.contains(&byte) {
            out.push(char::from(byte));
            continue;
        }
        out.extend(['%', digit(byte >> 4), digit(byte)]);
    }
}

/// Why a component could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// A `%` at this byte is not followed by two hexadecimal digits.
    Malformed(usize),
    /// What was decoded is not UTF-8.
    NotText,
}

/// The text that `component` stands for, decoded exactly once.
pub(super) fn decode(component: &str) -> Result<String, DecodeError> {
    let bytes = component.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        if byte != b'%' {
            decoded.push(byte);
            place += 1;
            continue;
        }
        let value = bytes.get(place + 1..place + 3).and_then(octet).ok_or(DecodeError::Malformed(place))?;
        decoded.push(value);
        place += 3;
    }
    String::from_utf8(decoded).map_err(|_| DecodeError::NotText)
}

fn octet(digits: &[u8]) -> Option<u8> {
    let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    match digits {
        [high, low] => Some(value(high)? << 4 | value(low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_comes_back() {
        for text in ["", "a b", "%2F", "é", "\u{0}\u{7f}", "#alias:hs", "日本"] {
            let mut encoded = String::new();
            encode(text, b"", &mut encoded);
            assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Ok(text));
        }
    }

    #[test]
    fn it_is_decoded_once() {
        assert_eq!(decode("%252F").as_deref(), Ok("%2F"));
    }

    #[test]
    fn what_is_malformed_has_a_position() {
        assert_eq!(decode("ab%"), Err(DecodeError::Malformed(2)));
        assert_eq!(decode("%4"), Err(DecodeError::Malformed(0)));
        assert_eq!(decode("a%+1"), Err(DecodeError::Malformed(1)));
        assert_eq!(decode("%C3"), Err(DecodeError::NotText));
    }
}
