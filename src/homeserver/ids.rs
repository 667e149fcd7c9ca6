//! Identifiers of the sizes that real homeservers give, each the next of a sequence that the seed determines.

use sha2::Digest;
use sha2::Sha256;

const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A source of identifiers: SHA-256 of the seed and a counter.
#[derive(Debug)]
pub(super) struct Identifiers {
    seed: u64,
    issued: u64,
}

impl Identifiers {
    pub(super) fn new(seed: u64) -> Identifiers {
        Identifiers { seed, issued: 0 }
    }

    /// `!` and 43 characters: a room id of room version 12.
    pub(super) fn room(&mut self) -> String {
        format!("!{}", self.next())
    }

    /// `$` and 43 characters: an event id since room version 4.
    pub(super) fn event(&mut self) -> String {
        format!("${}", self.next())
    }

    /// Ten capital letters, as Synapse gives.
    pub(super) fn device(&mut self) -> String {
        self.digest().iter().take(10).map(|byte| char::from(b'A' + byte % 26)).collect()
    }

    /// An access token of the length and look that Synapse gives.
    pub(super) fn token(&mut self, localpart: &str) -> String {
        let random = self.letters(26);
        let (secret, check) = random.split_at_checked(20).unwrap_or((&random, ""));
        format!("syt_{}_{secret}_{check}", base64url(localpart.as_bytes()))
    }

    /// 24 letters: a session of the user-interactive authentication.
    pub(super) fn session(&mut self) -> String {
        self.letters(24)
    }

    fn letters(&mut self, count: usize) -> String {
        let letter = |byte: &u8| char::from(if byte & 64 == 0 { b'A' } else { b'a' } + byte % 26);
        self.digest().iter().take(count).map(letter).collect()
    }

    fn next(&mut self) -> String {
        let digest = self.digest();
        base64url(&digest)
    }

    fn digest(&mut self) -> [u8; 32] {
        self.issued = self.issued.wrapping_add(1);
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(self.issued.to_be_bytes());
        hash.finalize().into()
    }
}

fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let index = (word >> (18 - 6 * place)) & 63;
            text.extend(URL_SAFE.get(index as usize).map(|letter| char::from(*letter)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_that_of_rfc_4648() {
        // RFC 4648 §10, without padding.
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64url(plain.as_bytes()), encoded);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let (mut one, mut same, mut other) = (Identifiers::new(1), Identifiers::new(1), Identifiers::new(2));
        assert_eq!(one.room(), same.room());
        let event = one.event();
        assert_eq!(event, same.event());
        assert_ne!(event, one.event());
        assert_ne!(one.token("a"), other.token("a"));
        assert_eq!(event.len(), 44);
        assert_eq!(one.device().len(), 10);
    }
}
