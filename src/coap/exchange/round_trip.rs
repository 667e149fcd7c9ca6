//! How long the peer takes to acknowledge, as measured (after CoCoA, draft-ietf-core-cocoa, §4).
//!
//! Airtimes are reckoned by each message's length and not measured: what is estimated is what remains, the delay of the link and
//! of the peer. Unlike CoCoA, the estimate has no upper bound of 32 s; it lies between what the link's profile says and some times that.

use std::time::Duration;

/// The estimates of one peer.
///
/// *Strong* samples are those of messages that were sent once. Of one that was repeated it is not known which copy was
/// acknowledged: the time since the first is a *weak* sample, which weighs less.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    strong: Option<Estimate>,
    weak: Option<Estimate>,
    overall: Option<Duration>,
}

/// RFC 6298 §2.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
}

impl RoundTrip {
    /// The estimate is at most so many times the profile's. It is never less: a server may sit on a request for as long as
    /// the profile lets it (the piggyback wait), however quickly it has acknowledged others.
    const MOST: u32 = 8;

    /// The wait for an acknowledgement, airtimes aside, where the link's profile says `assumed`.
    pub(super) fn timeout(&self, assumed: Duration) -> Duration {
        let Some(overall) = self.overall else { return assumed };
        overall.clamp(assumed, assumed.saturating_mul(Self::MOST))
    }

    pub(super) fn take_strong(&mut self, sample: Duration, assumed: Duration) {
        let estimate = Estimate::after(self.strong, sample);
        self.strong = Some(estimate);
        self.mix(estimate.smoothed + estimate.variation * 4, 0.5, assumed);
    }

    pub(super) fn take_weak(&mut self, sample: Duration, assumed: Duration) {
        let estimate = Estimate::after(self.weak, sample);
        self.weak = Some(estimate);
        self.mix(estimate.smoothed + estimate.variation, 0.25, assumed);
    }

    fn mix(&mut self, timeout: Duration, weight: f64, assumed: Duration) {
        let before = self.overall.unwrap_or(assumed);
        self.overall = Some(timeout.mul_f64(weight) + before.mul_f64(1.0 - weight));
    }
}

impl Estimate {
    fn after(before: Option<Self>, sample: Duration) -> Self {
        let Some(before) = before else { return Self { smoothed: sample, variation: sample / 2 } };
        let difference = before.smoothed.abs_diff(sample);
        Self {
            variation: before.variation.mul_f64(0.75) + difference.mul_f64(0.25),
            smoothed: before.smoothed.mul_f64(0.875) + sample.mul_f64(0.125),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSUMED: Duration = Duration::from_secs(9);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_measurements_the_profile_holds() {
        assert_eq!(RoundTrip::default().timeout(ASSUMED), ASSUMED);
    }

    #[test]
    fn a_link_that_is_slower_than_its_profile_says_is_given_its_time() {
        let mut round_trip = RoundTrip::default();
        (0..50).for_each(|_| round_trip.take_strong(seconds(40), ASSUMED));
        // Beyond CoCoA's bound of 32 s.
        let timeout = round_trip.timeout(ASSUMED);
        assert!(timeout >= seconds(40) && timeout < seconds(45), "{timeout:?}");
    }

    #[test]
    fn a_faster_link_is_waited_for_as_its_profile_says() {
        let mut round_trip = RoundTrip::default();
        (0..50).for_each(|_| round_trip.take_strong(seconds(1), ASSUMED));
        assert_eq!(round_trip.timeout(ASSUMED), ASSUMED);
    }

    #[test]
    fn a_weak_sample_weighs_half_of_a_strong_one() {
        let (mut strong, mut weak) = (RoundTrip::default(), RoundTrip::default());
        strong.take_strong(seconds(20), ASSUMED);
        weak.take_weak(seconds(20), ASSUMED);
        // 20 s + 4 × 10 s by half; 20 s + 10 s by a quarter.
        assert_eq!(strong.timeout(ASSUMED), seconds(30) + ASSUMED / 2);
        assert_eq!(weak.timeout(ASSUMED), seconds(30) / 4 + ASSUMED.mul_f64(0.75));
    }

    #[test]
    fn whatever_is_measured_the_timeout_stays_within_bounds() {
        let mut round_trip = RoundTrip::default();
        for _ in 0..100 {
            round_trip.take_strong(seconds(100_000), ASSUMED);
            round_trip.take_weak(Duration::MAX / 1_000, ASSUMED);
        }
        assert_eq!(round_trip.timeout(ASSUMED), ASSUMED * 8);
    }
}
