//! Connection identifiers, which the ids of an OSCORE context are made from (RFC 9528 §3.3).

use std::fmt;

/// What an endpoint has the other call it by. With OSCORE it is its Recipient ID (§3.3.3).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(Vec<u8>);

impl ConnectionId {
    /// The most bytes: those of an OSCORE id with AES-CCM-16-64-128 (RFC 8613 §3.3).
    pub const LONGEST: usize = 7;

    /// Takes bytes; none where there are too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= Self::LONGEST).then(|| Self(bytes.to_vec()))
    }

    /// The first that is free, of those with the fewest bytes on the link: 48 that cost one byte, then those of one byte that cost two, then
    /// those of two. Where it begins to look is drawn, so that what is free says little of what is not.
    pub fn choose(start: u8, is_free: impl Fn(&Self) -> bool) -> Option<Self> {
        let one = |byte: &u8| Self(vec![*byte]);
        let bytes = || (0..=u8::MAX).map(|byte| byte.wrapping_add(start));
        let short = bytes().filter(|byte| is_short(*byte)).map(|byte| one(&byte));
        let single = bytes().filter(|byte| !is_short(*byte)).map(|byte| one(&byte));
        let double = (0..=u16::MAX).map(|number| Self(number.to_be_bytes().to_vec()));
        short.chain(single).chain(double).find(is_free)
    }

    /// The bytes: an OSCORE id.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it stands in a message (§3.3.2).
    pub(super) fn encode(&self) -> Vec<u8> {
        match self.0.as_slice() {
            [only] if is_short(*only) => vec![*only],
            bytes => [&[0x40 | bytes.len() as u8], bytes].concat(),
        }
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionId(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// Whether a byte is an integer in CBOR: −24 to 23.
pub(super) fn is_short(byte: u8) -> bool {
    matches!(byte, 0..=0x17 | 0x20..=0x37)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_that_is_free_is_chosen() {
        let mut taken = std::collections::BTreeSet::new();
        let mut lengths = Vec::new();
        for _ in 0..300 {
            let id = ConnectionId::choose(0x30, |id| !taken.contains(id)).unwrap();
            lengths.push(id.encode().len());
            assert!(taken.insert(id));
        }
        assert_eq!(lengths[..48], [1; 48]);
        assert_eq!(lengths[48..256], [2; 208]);
        assert_eq!(lengths[256..], [3; 44]);
        assert_eq!(ConnectionId::choose(0, |_| false), None);
        assert_eq!(ConnectionId::new(&[0; 8]), None);
        assert_eq!(format!("{:?}", ConnectionId::new(&[0x2d]).unwrap()), "ConnectionId(2d)");
    }
}
