//! Whether a request is fresh, asked of its sender (the Echo option, RFC 9175 §2; RFC 8613 Appendix B.1.2).

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::coap::{Code, Instant, Message, OptionNumber};

/// Makes Echo values and knows them again, without keeping any: each is a keyed hash of whom it is for, and when.
pub struct Challenges {
    secret: Zeroizing<[u8; 32]>,
    lifetime: Duration,
}

impl Challenges {
    /// Bytes of a value (RFC 9175 §5: 64 bits against guessing).
    pub const LENGTH: usize = 8;

    /// The secret is drawn anew at each start: a value of an earlier one is then of no use. A value is good for at least one
    /// lifetime and at most two, which leaves room for an exchange on the slowest link.
    pub fn new(secret: [u8; 32], lifetime: Duration) -> Self {
        Self { secret: Zeroizing::new(secret), lifetime: lifetime.max(Duration::from_secs(1)) }
    }

    /// Lets values be good for longer, from now on: those of before are not known any more.
    pub fn prolong(&mut self, lifetime: Duration) {
        self.lifetime = self.lifetime.max(lifetime);
    }

    /// The value to ask this subject for.
    pub fn value(&self, subject: &[u8], now: Instant) -> [u8; Self::LENGTH] {
        let hash: [u8; 32] = self.mac(subject, self.period(now)).finalize().into_bytes().into();
        *hash.first_chunk().expect("a hash is longer")
    }

    /// Whether a value was made for this subject, and not long ago.
    pub fn is_fresh(&self, subject: &[u8], value: &[u8], now: Instant) -> bool {
        let period = self.period(now);
        let is_of = |period| {
            value.len() == Self::LENGTH && self.mac(subject, period).verify_truncated_left(value).is_ok()
        };
        is_of(period) || period.checked_sub(1).is_some_and(is_of)
    }

    fn period(&self, now: Instant) -> u128 {
        now.since_start().as_nanos() / self.lifetime.as_nanos()
    }

    fn mac(&self, subject: &[u8], period: u128) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(self.secret.as_slice()).expect("any length is a key's");
        mac.chain_update(period.to_be_bytes()).chain_update(subject)
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// The request that answers a challenge: the same as before, with the Echo option of the response, which was opened, to it. It is to be
/// protected anew and needs a message ID of its own; under the same token, its [`super::SentRequest`] takes the place of the one before.
///
/// `None` where the response is no challenge, or asks for what the request had already: to say that again would be a loop.
pub fn answer_challenge(request: &Message, response: &Message) -> Option<Message> {
    let echo = response.options.get(OptionNumber::ECHO).filter(|_| response.code == Code::UNAUTHORIZED)?;
    if request.options.get(OptionNumber::ECHO) == Some(echo) {
        return None;
    }
    let mut request = request.clone();
    request.options.set(OptionNumber::ECHO, echo);
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coap::{Kind, MessageId};

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_value_is_good_for_its_subject_for_one_to_two_lifetimes() {
        let challenges = Challenges::new([1; 32], Duration::from_secs(60));
        let value = challenges.value(b"a", at(119));
        assert!(challenges.is_fresh(b"a", &value, at(119)));
        assert!(challenges.is_fresh(b"a", &value, at(179)));
        assert!(!challenges.is_fresh(b"a", &value, at(180)));
        assert!(!challenges.is_fresh(b"a", &value, at(59)), "it is of the future");
        assert!(!challenges.is_fresh(b"b", &value, at(119)));
        assert!(!challenges.is_fresh(b"a", &value[..7], at(119)));
        assert!(!challenges.is_fresh(b"a", &[], at(119)));
        let others = Challenges::new([2; 32], Duration::from_secs(60));
        assert!(!others.is_fresh(b"a", &value, at(119)));
    }

    #[test]
    fn a_challenge_is_answered_once_for_each_value() {
        let request = Message { code: Code::GET, ..Message::empty(Kind::Confirmable, MessageId(1)) };
        let mut response = Message { code: Code::UNAUTHORIZED, ..request.clone() };
        assert_eq!(answer_challenge(&request, &response), None);
        response.options.push(OptionNumber::ECHO, [1; 8]);
        let answer = answer_challenge(&request, &response).unwrap();
        assert_eq!(answer.options.get(OptionNumber::ECHO), Some(&[1; 8][..]));
        assert_eq!(answer_challenge(&answer, &response), None);
        response.code = Code::FORBIDDEN;
        assert_eq!(answer_challenge(&request, &response), None);
    }
}
