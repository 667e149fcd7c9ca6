//! How long bytes take on a link.

use std::time::Duration;

/// What a datagram costs on its way, by its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Airtime {
    /// Bits that pass in a second; 0 where nothing is known to hold them up.
    pub bits_per_second: u64,
    /// Bytes that go with each frame beside what it carries of the UDP payload: headers of IP and UDP, framing.
    pub overhead: usize,
    /// The most that one frame carries of the UDP payload, where longer ones cross in fragments; 0 where all cross whole.
    pub fragment: usize,
    /// Bytes that security adds to each datagram beside the UDP payload that is asked about: a record's header, nonce and tag.
    pub sealing: usize,
}

impl Airtime {
    /// Nothing takes any time.
    pub const NONE: Self = Self { bits_per_second: 0, overhead: 0, fragment: 0, sealing: 0 };

    /// How many frames a datagram with so many bytes of UDP payload crosses in.
    pub fn frames(self, bytes: usize) -> usize {
        bytes
            .saturating_add(self.sealing)
            .div_ceil(if self.fragment == 0 { usize::MAX } else { self.fragment })
            .max(1)
    }

    /// Bytes on the link for a datagram with so many bytes of UDP payload.
    pub fn bytes(self, bytes: usize) -> usize {
        bytes.saturating_add(self.sealing).saturating_add(self.overhead.saturating_mul(self.frames(bytes)))
    }

    /// How long a datagram with so many bytes of UDP payload is on the air.
    pub fn of(self, bytes: usize) -> Duration {
        if self.bits_per_second == 0 {
            return Duration::ZERO;
        }
        let bits = (self.bytes(bytes) as u64).saturating_mul(8);
        let nanos = u128::from(bits) * 1_000_000_000 / u128::from(self.bits_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fragment_has_its_own_headers() {
        let airtime = Airtime { bits_per_second: 250, overhead: 13, fragment: 51, sealing: 0 };
        assert_eq!([0, 51, 52, 102, 103].map(|bytes| airtime.frames(bytes)), [1, 1, 2, 2, 3]);
        assert_eq!(airtime.bytes(52), 52 + 26);
    }

    #[test]
    fn a_byte_takes_80_ms_at_100_bit_per_second() {
        let airtime = Airtime { bits_per_second: 100, overhead: 28, fragment: 0, sealing: 0 };
        assert_eq!(airtime.of(0), Duration::from_millis(28 * 80));
        assert_eq!(airtime.of(72), Duration::from_secs(8));
        assert_eq!(Airtime::NONE.of(usize::MAX), Duration::ZERO);
    }
}
