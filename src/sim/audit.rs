//! Checks of a channel from outside: what was on the air, and whether it could be.

use std::collections::VecDeque;
use std::time::Duration;

use crate::coap::Instant;

/// What one carrier or one transmitter has had on the air.
///
/// Counts bits for itself, from when each transmission began and ended, and knows nothing of queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit {
    /// When all bits so far can be through at the earliest.
    through: Instant,
    /// Transmissions that ended before their bits could be through.
    violations: u64,
    /// Transmissions of the last [`Audit::PERIOD`].
    recent: VecDeque<(Instant, Instant)>,
    busiest: Duration,
}

impl Audit {
    /// The time in which a duty cycle is reckoned (ETSI EN 300 220-1: one hour).
    pub(super) const PERIOD: Duration = Duration::from_secs(3600);

    /// Takes in a transmission, in the order in which they begin. There is a window in which more bits left than the rate allows
    /// if and only if the last of some run of transmissions ends before their bits could have left one after the other.
    pub(super) fn transmitted(&mut self, start: Instant, end: Instant, bits: u64, bits_per_second: u64) {
        if bits_per_second == 0 {
            return;
        }
        let nanos = u128::from(bits) * 1_000_000_000 / u128::from(bits_per_second);
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.through = self.through.max(start) + time;
        self.violations += u64::from(end < self.through);
    }

    /// Takes in a transmission for the duty cycle. Keeps those of one period.
    pub(super) fn on_air(&mut self, start: Instant, end: Instant) {
        self.recent.push_back((start, end));
        let begin = if end.since_start() > Self::PERIOD { end - Self::PERIOD } else { Instant::START };
        while self.recent.front().is_some_and(|(_, end)| *end <= begin) {
            self.recent.pop_front();
        }
        // A window is fullest where it ends with a transmission.
        let airtime = self.recent.iter().map(|(start, end)| end.since((*start).max(begin))).sum();
        self.busiest = self.busiest.max(airtime);
    }

    /// Transmissions that ended before the link could have carried them.
    pub(super) fn violations(&self) -> u64 {
        self.violations
    }

    /// The longest airtime within any period.
    pub(super) fn busiest(&self) -> Duration {
        self.busiest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn more_bits_than_fit_into_a_window_are_noticed() {
        let mut audit = Audit::default();
        audit.transmitted(at(0), at(8), 800, 100);
        audit.transmitted(at(8), at(16), 800, 100);
        audit.transmitted(at(20), at(28), 800, 100);
        assert_eq!(audit.violations(), 0);
        // It overlaps the one before: 1600 bits from 20 to 35.
        audit.transmitted(at(27), at(35), 800, 100);
        assert_eq!(audit.violations(), 1);
        let mut audit = Audit::default();
        audit.transmitted(at(0), at(7), 800, 100);
        assert_eq!(audit.violations(), 1);
    }

    #[test]
    fn the_busiest_hour_is_found_wherever_it_begins() {
        let mut audit = Audit::default();
        audit.on_air(at(0), at(10));
        audit.on_air(at(3_000), at(3_020));
        audit.on_air(at(3_605), at(3_610));
        // From 10 s to 3,610 s.
        assert_eq!(audit.busiest(), Duration::from_secs(30));
        audit.on_air(at(6_600), at(6_640));
        // From 3,040 s on, 45 s; the second half of an hour counts in full.
        assert_eq!(audit.busiest(), Duration::from_secs(45));
        audit.on_air(at(20_000), at(20_001));
        assert_eq!(audit.busiest(), Duration::from_secs(45));
    }
}
