//! When keys are to be replaced (RFC 8613 §7.2.1).

use std::time::Duration;

/// How long keys are used. Which limit comes first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// How many messages may be sealed with them, requests and responses alike.
    pub sealed: u64,
    /// How many forged ones may come: each is a try at the tag.
    pub forged: u64,
    /// How old they may be; for ever where there is none.
    pub age: Option<Duration>,
}

/// What was done with some keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Messages that were sealed: the Sender Sequence Number is never less.
    pub sealed: u64,
    /// Messages that named them, and did not open.
    pub forged: u64,
    /// Since they were agreed on.
    pub age: Duration,
}

/// Whether keys are to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Not yet.
    No,
    /// When it suits: three quarters of a limit are used up.
    Soon,
    /// Before anything else is sent.
    Now,
}

impl Default for Rekey {
    /// The limits of AES-CCM with a tag of 8 bytes. A tag is guessed with a chance of 2^-64, so that of 2^20 guesses one succeeds with
    /// 2^-44; draft-ietf-core-oscore-key-limits counts likewise.
    fn default() -> Self {
        Self { sealed: 1 << 23, forged: 1 << 20, age: None }
    }
}

impl Rekey {
    /// Whether keys that were used so are to be replaced.
    pub fn is_due(&self, used: Use) -> Due {
        let of = |used: u128, limit: u128| match used {
            used if used >= limit => Due::Now,
            used if used >= limit - limit / 4 => Due::Soon,
            _ => Due::No,
        };
        let age = self.age.map_or(Due::No, |age| of(used.age.as_millis(), age.as_millis()));
        let sealed = of(used.sealed.into(), self.sealed.into());
        sealed.max(of(used.forged.into(), self.forged.into())).max(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_due_by_what_was_done_with_them() {
        let rekey = Rekey { age: Some(Duration::from_secs(86_400)), ..Rekey::default() };
        let due =
            |sealed, forged, seconds| rekey.is_due(Use { sealed, forged, age: Duration::from_secs(seconds) });
        assert_eq!(due(0, 0, 0), Due::No);
        assert_eq!(due(6_291_455, 0, 0), Due::No);
        assert_eq!(due(6_291_456, 0, 0), Due::Soon);
        assert_eq!(due(8_388_608, 0, 0), Due::Now);
        assert_eq!(due(0, 786_432, 0), Due::Soon);
        assert_eq!(due(0, 1_048_576, 64_800), Due::Now);
        assert_eq!(due(0, 0, 64_800), Due::Soon);
        assert_eq!(Rekey::default().is_due(Use { age: Duration::MAX, ..Use::default() }), Due::No);
    }
}
