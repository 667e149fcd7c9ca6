//! Options: their numbers, properties and values (RFC 7252 §5.4, §5.10).

use std::fmt;

/// An option's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionNumber(pub u16);

/// What an option's value is (RFC 7252 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionFormat {
    /// No value.
    Empty,
    /// Bytes.
    Opaque,
    /// An unsigned integer without leading zero bytes.
    Uint,
    /// UTF-8 text.
    String,
}

impl OptionNumber {
    /// RFC 7252 §5.10.8.1.
    pub const IF_MATCH: Self = Self(1);
    /// RFC 7252 §5.10.1.
    pub const URI_HOST: Self = Self(3);
    /// RFC 7252 §5.10.6.
    pub const ETAG: Self = Self(4);
    /// RFC 7252 §5.10.8.2.
    pub const IF_NONE_MATCH: Self = Self(5);
    /// RFC 7641 §2.
    pub const OBSERVE: Self = Self(6);
    /// RFC 7252 §5.10.1.
    pub const URI_PORT: Self = Self(7);
    /// RFC 7252 §5.10.7.
    pub const LOCATION_PATH: Self = Self(8);
    /// RFC 8613 §2.
    pub const OSCORE: Self = Self(9);
    /// RFC 7252 §5.10.1.
    pub const URI_PATH: Self = Self(11);
    /// RFC 7252 §5.10.3.
    pub const CONTENT_FORMAT: Self = Self(12);
    /// RFC 7252 §5.10.5. Seconds.
    pub const MAX_AGE: Self = Self(14);
    /// RFC 7252 §5.10.1.
    pub const URI_QUERY: Self = Self(15);
    /// RFC 8768 §3.
    pub const HOP_LIMIT: Self = Self(16);
    /// RFC 7252 §5.10.4.
    pub const ACCEPT: Self = Self(17);
    /// RFC 9177 §4.1.
    pub const Q_BLOCK1: Self = Self(19);
    /// RFC 7252 §5.10.7.
    pub const LOCATION_QUERY: Self = Self(20);
    /// RFC 9668 §3.1.
    pub const EDHOC: Self = Self(21);
    /// RFC 7959 §2.1.
    pub const BLOCK2: Self = Self(23);
    /// RFC 7959 §2.1.
    pub const BLOCK1: Self = Self(27);
    /// RFC 7959 §4. Bytes of the response's body.
    pub const SIZE2: Self = Self(28);
    /// RFC 9177 §4.1.
    pub const Q_BLOCK2: Self = Self(31);
    /// RFC 7252 §5.10.2.
    pub const PROXY_URI: Self = Self(35);
    /// RFC 7252 §5.10.2.
    pub const PROXY_SCHEME: Self = Self(39);
    /// RFC 7252 §5.10.9. Bytes of the request's body.
    pub const SIZE1: Self = Self(60);
    /// RFC 9175 §2.2.
    pub const ECHO: Self = Self(252);
    /// MSC3079: the Matrix access token, sticky for the connection.
    pub const ACCESS_TOKEN: Self = Self(256);
    /// MSC3079: the version of the table of integer keys, sticky for the connection.
    pub const CBOR_VERSION: Self = Self(257);
    /// RFC 7967.
    pub const NO_RESPONSE: Self = Self(258);
    /// RFC 9175 §3.2.
    pub const REQUEST_TAG: Self = Self(292);
    /// Ours, in the experimental range: the exact HTTP status, where the response code alone would not give it back.
    ///
    /// Even, so elective: a client that does not know it ignores it, and some clients discard a whole response for
    /// the sake of one odd number that they do not know.
    pub const HTTP_STATUS: Self = Self(65_000);
    /// Ours: the name of the link profile that the sender keeps to. Elective, and no part of the cache key.
    pub const LINK: Self = Self(65_020);

    /// Whether an endpoint that does not know the option must refuse the message (RFC 7252 §5.4.6).
    pub const fn is_critical(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether a proxy that does not know the option must not forward it (RFC 7252 §5.4.2).
    pub const fn is_unsafe(self) -> bool {
        self.0 & 2 == 2
    }

    /// Whether the option is no part of the cache key (RFC 7252 §5.4.6: safe, and its NoCacheKey bits all set).
    pub const fn is_no_cache_key(self) -> bool {
        self.0 & 0x1e == 0x1c
    }

    /// Whether more than one value may stand in a message (RFC 7252 §5.10, RFC 9175 §3.2, RFC 9177 §4.1).
    pub const fn is_repeatable(self) -> bool {
        matches!(
            self,
            Self::IF_MATCH
                | Self::ETAG
                | Self::LOCATION_PATH
                | Self::URI_PATH
                | Self::URI_QUERY
                | Self::LOCATION_QUERY
                | Self::Q_BLOCK2
                | Self::REQUEST_TAG
        )
    }

    /// The name, the format, and the shortest and longest value in bytes, where the number is known here.
    pub const fn definition(self) -> Option<(&'static str, OptionFormat, usize, usize)> {
        use OptionFormat::{Empty, Opaque, String, Uint};
        Some(match self {
            Self::IF_MATCH => ("If-Match", Opaque, 0, 8),
            Self::URI_HOST => ("Uri-Host", String, 1, 255),
            Self::ETAG => ("ETag", Opaque, 1, 8),
            Self::IF_NONE_MATCH => ("If-None-Match", Empty, 0, 0),
            Self::OBSERVE => ("Observe", Uint, 0, 3),
            Self::URI_PORT => ("Uri-Port", Uint, 0, 2),
            Self::LOCATION_PATH => ("Location-Path", String, 0, 255),
            Self::OSCORE => ("OSCORE", Opaque, 0, 255),
            Self::URI_PATH => ("Uri-Path", String, 0, 255),
            Self::CONTENT_FORMAT => ("Content-Format", Uint, 0, 2),
            Self::MAX_AGE => ("Max-Age", Uint, 0, 4),
            Self::URI_QUERY => ("Uri-Query", String, 0, 255),
            Self::HOP_LIMIT => ("Hop-Limit", Uint, 1, 1),
            Self::ACCEPT => ("Accept", Uint, 0, 2),
            Self::Q_BLOCK1 => ("Q-Block1", Uint, 0, 3),
            Self::LOCATION_QUERY => ("Location-Query", String, 0, 255),
            // §3.1: if there is any value, it is ignored.
            Self::EDHOC => ("EDHOC", Empty, 0, 255),
            Self::BLOCK2 => ("Block2", Uint, 0, 3),
            Self::BLOCK1 => ("Block1", Uint, 0, 3),
            Self::SIZE2 => ("Size2", Uint, 0, 4),
            Self::Q_BLOCK2 => ("Q-Block2", Uint, 0, 3),
            Self::PROXY_URI => ("Proxy-Uri", String, 1, 1034),
            Self::PROXY_SCHEME => ("Proxy-Scheme", String, 1, 255),
            Self::SIZE1 => ("Size1", Uint, 0, 4),
            Self::ECHO => ("Echo", Opaque, 1, 40),
            // MSC3079 gives it Uri-Query's length; real tokens (JWTs) are longer, and reading more costs nothing.
            Self::ACCESS_TOKEN => ("Access-Token", String, 0, 4096),
            Self::CBOR_VERSION => ("CBOR-Version", Uint, 0, 4),
            Self::NO_RESPONSE => ("No-Response", Uint, 0, 1),
            Self::REQUEST_TAG => ("Request-Tag", Opaque, 0, 8),
            Self::HTTP_STATUS => ("HTTP-Status", Uint, 0, 2),
            Self::LINK => ("Link", String, 1, 32),
            _ => return None,
        })
    }
}

impl fmt::Display for OptionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.definition() {
            Some((name, ..)) => f.write_str(name),
            None => write!(f, "option {}", self.0),
        }
    }
}

impl fmt::Debug for OptionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message's options, in the order of their numbers; values of one number keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Options(Vec<(OptionNumber, Vec<u8>)>);

impl Options {
    /// No options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value after those that its number already has.
    pub fn push(&mut self, number: OptionNumber, value: impl Into<Vec<u8>>) {
        let at = self.0.partition_point(|(other, _)| *other <= number);
        self.0.insert(at, (number, value.into()));
    }

    /// Adds an unsigned integer in its shortest form (RFC 7252 §3.2).
    pub fn push_uint(&mut self, number: OptionNumber, value: u32) {
        self.push(number, uint(value));
    }

    /// Replaces all values of a number by one.
    pub fn set(&mut self, number: OptionNumber, value: impl Into<Vec<u8>>) {
        self.remove(number);
        self.push(number, value);
    }

    /// Replaces all values of a number by one unsigned integer.
    pub fn set_uint(&mut self, number: OptionNumber, value: u32) {
        self.set(number, uint(value));
    }

    /// Removes all values of a number.
    pub fn remove(&mut self, number: OptionNumber) {
        self.0.retain(|(other, _)| *other != number);
    }

    /// The first value of a number.
    pub fn get(&self, number: OptionNumber) -> Option<&[u8]> {
        self.all(number).next()
    }

    /// The first value of a number as an unsigned integer; `None` too where it has more than four bytes.
    pub fn get_uint(&self, number: OptionNumber) -> Option<u32> {
        self.get(number).and_then(read_uint)
    }

    /// The values of a number, in order.
    pub fn all(&self, number: OptionNumber) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(other, _)| *other == number).map(|(_, value)| value.as_slice())
    }

    /// All options, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (OptionNumber, &[u8])> {
        self.0.iter().map(|(number, value)| (*number, value.as_slice()))
    }

    /// How many values there are in all.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory that they take up.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, value)| value.len() + size_of::<(OptionNumber, Vec<u8>)>()).sum()
    }

    /// The options that `is_known` here and are well-formed; elective others are left out (RFC 7252 §5.4.1).
    ///
    /// # Errors
    /// The first critical option that is unknown, of a wrong length (§5.4.3), or a repeat of one that may stand once (§5.4.5).
    pub fn understood(self, is_known: impl Fn(OptionNumber) -> bool) -> Result<Self, OptionNumber> {
        let mut understood = Vec::with_capacity(self.0.len());
        let mut previous = None;
        for (number, value) in self.0 {
            let fits =
                number.definition().is_some_and(|(_, _, least, most)| (least..=most).contains(&value.len()));
            let repeats = previous.replace(number) == Some(number) && !number.is_repeatable();
            match fits && !repeats && is_known(number) {
                true => understood.push((number, value)),
                false if number.is_critical() => return Err(number),
                false => {}
            }
        }
        Ok(Self(understood))
    }
}

impl<V: Into<Vec<u8>>> FromIterator<(OptionNumber, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (OptionNumber, V)>>(options: I) -> Self {
        let mut all = Self::new();
        for (number, value) in options {
            all.push(number, value);
        }
        all
    }
}

/// An unsigned integer without leading zero bytes; zero is no byte at all (RFC 7252 §3.2).
pub fn uint(value: u32) -> Vec<u8> {
    value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// The unsigned integer in up to four bytes; leading zero bytes are read too (RFC 7252 §3.2).
pub fn read_uint(value: &[u8]) -> Option<u32> {
    (value.len() <= 4).then(|| value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_in_the_order_of_their_numbers_and_keep_the_order_of_their_values() {
        let mut options = Options::new();
        options.push(OptionNumber::URI_QUERY, "b");
        options.push(OptionNumber::URI_PATH, "x");
        options.push(OptionNumber::URI_QUERY, "a");
        let all: Vec<_> = options.iter().map(|(number, value)| (number.0, value.to_vec())).collect();
        assert_eq!(all, [(11, b"x".to_vec()), (15, b"b".to_vec()), (15, b"a".to_vec())]);
    }

    #[test]
    fn unsigned_integers_take_the_fewest_bytes() {
        assert_eq!(uint(0), b"");
        assert_eq!(uint(255), [255]);
        assert_eq!(uint(65_536), [1, 0, 0]);
        assert_eq!(read_uint(&[0, 0, 1]), Some(1));
        assert_eq!(read_uint(&[0; 5]), None);
    }

    #[test]
    fn what_is_not_understood_is_left_out_if_elective_and_refused_if_critical() {
        let known = |number| number != OptionNumber::Q_BLOCK2;
        let options = |all: &[(u16, &str)]| {
            all.iter().map(|(number, value)| (OptionNumber(*number), *value)).collect::<Options>()
        };
        assert_eq!(
            options(&[(11, "a"), (2_000, "x"), (12, "long")]).understood(known),
            Ok(options(&[(11, "a")]))
        );
        assert_eq!(options(&[(31, "")]).understood(known), Err(OptionNumber::Q_BLOCK2));
        assert_eq!(options(&[(2_001, "")]).understood(known), Err(OptionNumber(2_001)));
        assert_eq!(options(&[(17, "abc")]).understood(known), Err(OptionNumber::ACCEPT));
        assert_eq!(options(&[(17, "a"), (17, "a")]).understood(known), Err(OptionNumber::ACCEPT));
        assert_eq!(options(&[(60, "a"), (60, "b")]).understood(known), Ok(options(&[(60, "a")])));
    }

    #[test]
    fn our_own_response_option_is_elective_and_safe_to_forward() {
        assert!(!OptionNumber::HTTP_STATUS.is_critical());
        assert!(!OptionNumber::HTTP_STATUS.is_unsafe());
    }

    #[test]
    fn our_own_request_option_is_elective_safe_to_forward_and_no_part_of_the_cache_key() {
        assert!(!OptionNumber::LINK.is_critical());
        assert!(!OptionNumber::LINK.is_unsafe());
        assert!(OptionNumber::LINK.is_no_cache_key());
    }
}
