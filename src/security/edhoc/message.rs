//! What messages are made of (RFC 9528 §5), checked before anybody reads them.
//!
//! Deterministic CBOR and no other (§3.1): there is one way to write each message. What is longer than lakers has room for is refused.

use super::connection::{ConnectionId, is_short};
use super::error::Refusal;
use super::key;

/// METHOD: both ends are known by static Diffie-Hellman keys (§3.2).
pub(super) const METHOD: u8 = 3;
/// AES-CCM-16-64-128, SHA-256, 8, P-256, ES256, AES-CCM-16-64-128, SHA-256 (§3.6).
pub(super) const SUITE: u8 = 2;
/// The bytes of a coordinate.
const COORDINATE: usize = 32;
/// The bytes of MAC_2 and MAC_3, and of a tag.
const MAC: usize = 8;
/// The most bytes of a message.
pub(super) const LONGEST: usize = 160;
/// The most bytes of external authorization data in message_2 and message_3.
const LONGEST_EAD: usize = 64;
/// The most bytes of a key's id.
pub(super) const LONGEST_KID: usize = 16;

/// What a responder has to know of message_1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message1 {
    pub(super) g_x: [u8; COORDINATE],
    pub(super) c_i: ConnectionId,
}

impl Message1 {
    /// ```text
    /// message_1 = ( METHOD : int, SUITES_I : [ 2* suite ] / suite, G_X : bstr, C_I : bstr / -24..23, ? EAD_1 )
    /// ```
    pub(super) fn decode(message: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader(message);
        let is_fitting = message.len() <= LONGEST;
        let method = reader.unsigned().filter(|_| is_fitting).ok_or(Refusal::Malformed)?;
        let suites = reader.suites().ok_or(Refusal::Malformed)?;
        let g_x = reader.bytes().ok_or(Refusal::Malformed)?;
        let c_i = reader.identifier().ok_or(Refusal::Malformed)?;
        reader.no_critical_ead()?;
        if method != u64::from(METHOD) {
            return Err(Refusal::Method);
        }
        // §5.2.3: the last one is selected, and none of ours comes before it.
        let first = suites.iter().position(|suite| *suite == i64::from(SUITE));
        if first.is_none_or(|first| first + 1 != suites.len()) {
            return Err(Refusal::Suite);
        }
        let g_x = <[u8; COORDINATE]>::try_from(g_x).map_err(|_| Refusal::Malformed)?;
        let c_i = ConnectionId::new(c_i).ok_or(Refusal::Malformed)?;
        if !key::is_point(&g_x) {
            return Err(Refusal::Point);
        }
        Ok(Self { g_x, c_i })
    }
}

/// The ciphertext of message_2, where that is well-formed.
///
/// ```text
/// message_2 = ( G_Y_CIPHERTEXT_2 : bstr )
/// ```
pub(super) fn ciphertext_2(message: &[u8]) -> Result<&[u8], Refusal> {
    let whole = only_bytes(message).ok_or(Refusal::Malformed)?;
    let (g_y, ciphertext) = whole.split_at_checked(COORDINATE).ok_or(Refusal::Malformed)?;
    if !key::is_point(g_y) {
        return Err(Refusal::Point);
    }
    Ok(ciphertext)
}

/// Whether a message is the one byte string that message_3 and message_4 are.
///
/// ```text
/// message_3 = ( CIPHERTEXT_3 : bstr )      message_4 = ( CIPHERTEXT_4 : bstr )
/// ```
pub(super) fn is_ciphertext(message: &[u8]) -> bool {
    only_bytes(message).is_some_and(|ciphertext| ciphertext.len() >= MAC)
}

/// ```text
/// PLAINTEXT_2 = ( C_R, ID_CRED_R / bstr / -24..23, Signature_or_MAC_2 : bstr, ? EAD_2 )
/// ```
pub(super) fn is_plaintext_2(plaintext: &[u8]) -> bool {
    let mut reader = Reader(plaintext);
    reader.identifier().and_then(ConnectionId::new).is_some() && reader.kid_and_mac()
}

/// ```text
/// PLAINTEXT_3 = ( ID_CRED_I / bstr / -24..23, Signature_or_MAC_3 : bstr, ? EAD_3 )
/// ```
pub(super) fn is_plaintext_3(plaintext: &[u8]) -> bool {
    Reader(plaintext).kid_and_mac()
}

/// ```text
/// PLAINTEXT_4 = ( ? EAD_4 )
/// ```
pub(super) fn is_plaintext_4(plaintext: &[u8]) -> bool {
    Reader(plaintext).no_critical_ead().is_ok()
}

/// The first item of a payload, which is message_3, and the rest (RFC 9668 §3.2.1).
pub(super) fn split_message_3(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(payload);
    reader.bytes()?;
    payload.split_at_checked(payload.len() - reader.0.len())
}

fn only_bytes(message: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(message);
    let bytes = reader.bytes()?;
    (reader.0.is_empty() && message.len() <= LONGEST).then_some(bytes)
}

/// What is left to read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// RFC 8949 §4.2.1: the shortest head; and of what is here, none needs more than two bytes of it.
    fn head(&mut self) -> Option<(u8, u64)> {
        let (&first, rest) = self.0.split_first()?;
        let (argument, rest) = match first & 0x1f {
            argument @ 0..24 => (argument.into(), rest),
            24 => {
                let (&argument, rest) = rest.split_first()?;
                (u64::from(argument), rest)
            }
            25 => {
                let (argument, rest) = rest.split_first_chunk()?;
                (u16::from_be_bytes(*argument).into(), rest)
            }
            _ => return None,
        };
        let is_shortest = match first & 0x1f {
            24 => argument >= 24,
            25 => argument > 0xff,
            _ => true,
        };
        self.0 = rest;
        is_shortest.then_some((first >> 5, argument))
    }

    fn unsigned(&mut self) -> Option<u64> {
        self.head().filter(|(major, _)| *major == 0).map(|(_, value)| value)
    }

    pub(super) fn integer(&mut self) -> Option<i64> {
        match self.head()? {
            (0, value) => value.try_into().ok(),
            (1, value) => i64::try_from(value).ok().map(|value| -1 - value),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        self.string(2)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.string(3)?).ok()
    }

    fn string(&mut self, kind: u8) -> Option<&'a [u8]> {
        let (major, length) = self.head()?;
        let (bytes, rest) = self.0.split_at_checked(length.try_into().ok()?)?;
        self.0 = rest;
        (major == kind).then_some(bytes)
    }

    /// One suite, or an array of two and more (§3.6): as one, it is no array.
    pub(super) fn suites(&mut self) -> Option<Vec<i64>> {
        if self.0.first()? >> 5 != 4 {
            return self.integer().map(|suite| vec![suite]);
        }
        let (_, length) = self.head().filter(|(_, length)| (2..=9).contains(length))?;
        (0..length).map(|_| self.integer()).collect()
    }

    /// Bytes, of which one that is an integer in CBOR is written as that (§3.3.2).
    pub(super) fn identifier(&mut self) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_first_chunk::<1>()?;
        if is_short(first[0]) {
            self.0 = rest;
            return Some(first);
        }
        self.bytes().filter(|bytes| !matches!(bytes, [only] if is_short(*only)))
    }

    fn kid_and_mac(&mut self) -> bool {
        let is_kid = self.identifier().is_some_and(|kid| (1..=LONGEST_KID).contains(&kid.len()));
        let is_mac = is_kid && self.bytes().is_some_and(|mac| mac.len() == MAC);
        is_mac && self.0.len() <= LONGEST_EAD && self.no_critical_ead().is_ok()
    }

    /// Reads external authorization data to the end. None is known here; what is critical must be (§3.8).
    fn no_critical_ead(&mut self) -> Result<(), Refusal> {
        while !self.0.is_empty() {
            let label = self.integer().ok_or(Refusal::Malformed)?;
            if self.0.first().is_some_and(|first| first >> 5 == 2) {
                self.bytes().ok_or(Refusal::Malformed)?;
            }
            if label < 0 {
                return Err(Refusal::CriticalData);
            }
        }
        Ok(())
    }
}
