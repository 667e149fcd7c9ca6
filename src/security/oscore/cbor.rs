//! The few shapes of CBOR (RFC 8949 §3) that keys are derived from and messages are bound to.

/// An array of so many elements, which follow.
pub(in crate::security) fn array(length: u64, to: &mut Vec<u8>) {
    head(4, length, to);
}

/// A map of so many pairs, which follow.
pub(in crate::security) fn map(length: u64, to: &mut Vec<u8>) {
    head(5, length, to);
}

/// A byte string.
pub(in crate::security) fn bytes(value: &[u8], to: &mut Vec<u8>) {
    head(2, value.len() as u64, to);
    to.extend_from_slice(value);
}

/// A text.
pub(in crate::security) fn text(value: &str, to: &mut Vec<u8>) {
    head(3, value.len() as u64, to);
    to.extend_from_slice(value.as_bytes());
}

/// An unsigned integer.
pub(in crate::security) fn unsigned(value: u64, to: &mut Vec<u8>) {
    head(0, value, to);
}

/// An integer of either sign.
pub(in crate::security) fn integer(value: i64, to: &mut Vec<u8>) {
    match u64::try_from(value) {
        Ok(value) => head(0, value, to),
        // §3.1: major type 1 says −1 − n.
        Err(_) => head(1, value.unsigned_abs() - 1, to),
    }
}

/// A byte string, or null.
pub(in crate::security) fn bytes_or_null(value: Option<&[u8]>, to: &mut Vec<u8>) {
    match value {
        Some(value) => bytes(value, to),
        None => to.push(0xf6),
    }
}

/// RFC 8949 §4.2.1: the shortest head.
fn head(major: u8, argument: u64, to: &mut Vec<u8>) {
    let major = major << 5;
    match argument {
        0..24 => to.push(major | argument as u8),
        24..0x100 => to.extend([major | 24, argument as u8]),
        0x100..0x1_0000 => {
            to.push(major | 25);
            to.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            to.push(major | 26);
            to.extend((argument as u32).to_be_bytes());
        }
        _ => {
            to.push(major | 27);
            to.extend(argument.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_as_in_rfc_8949_appendix_a() {
        let shown = |number| {
            let mut to = Vec::new();
            unsigned(number, &mut to);
            to
        };
        assert_eq!(shown(23), [0x17]);
        assert_eq!(shown(24), [0x18, 0x18]);
        assert_eq!(shown(1_000), [0x19, 0x03, 0xe8]);
        assert_eq!(shown(1_000_000), [0x1a, 0x00, 0x0f, 0x42, 0x40]);
        assert_eq!(shown(u64::MAX), [0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    }
}
