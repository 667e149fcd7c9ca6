//! The blocks of a request's body that have not come, as its server lists them (RFC 9177 §5, §12.3).
//!
//! A CBOR sequence (RFC 8742) of unsigned integers, ascending.

/// The list, in bytes.
pub(super) fn encode(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        // RFC 8949 §3.1: the shortest form.
        let [_, high, middle, low] = number.to_be_bytes();
        match number {
            0..=23 => bytes.push(low),
            24..=0xff => bytes.extend([0x18, low]),
            0x100..=0xffff => bytes.extend([0x19, middle, low]),
            _ => bytes.extend([0x1a, 0, high, middle, low]),
        }
    }
    bytes
}

/// Reads a list; it ends where something else than a number follows.
pub(super) fn decode(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let (first, rest) = bytes.split_first()?;
        let length = match first {
            0..=23 => {
                bytes = rest;
                return Some((*first).into());
            }
            0x18 => 1,
            0x19 => 2,
            0x1a => 4,
            _ => return None,
        };
        let (number, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(number.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coap::block::Block;

    #[test]
    fn numbers_have_the_forms_of_rfc_8949() {
        // RFC 8949 appendix A.
        let bytes =
            [0x00, 0x0a, 0x17, 0x18, 0x18, 0x18, 0x64, 0x19, 0x03, 0xe8, 0x1a, 0x00, 0x0f, 0x42, 0x40];
        let numbers = [0, 10, 23, 24, 100, 1000, 1_000_000];
        assert_eq!(encode(numbers), bytes);
        assert_eq!(decode(&bytes).collect::<Vec<_>>(), numbers);
        for end in 0..bytes.len() {
            let part: Vec<_> = decode(bytes.get(..end).unwrap()).collect();
            assert!(numbers.starts_with(&part), "{end}: {part:?}");
        }
    }

    #[test]
    fn a_list_ends_at_what_is_no_number() {
        assert_eq!(decode(&[1, 2, 0x20, 3]).collect::<Vec<_>>(), [1, 2]);
    }

    proptest! {
        #[test]
        fn every_list_is_read_back(numbers in prop::collection::vec(0..=Block::MAX_NUMBER, 0..20)) {
            prop_assert_eq!(decode(&encode(numbers.clone())).collect::<Vec<_>>(), numbers);
        }
    }
}
