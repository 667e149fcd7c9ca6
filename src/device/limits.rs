//! How much a device may do: what an operator sets, and the counting.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use super::DeviceError;
use crate::coap::Instant;

/// What an operator allows a device, beside what the gateway allows everybody; none means that the device has no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests in a minute. As many may come at once, where there were none before.
    pub requests_per_minute: Option<u32>,
    /// Time that its messages take on the link, of both directions, in any 24 hours.
    pub airtime_per_day: Option<Duration>,
    /// The largest body of a request, in bytes.
    pub payload: Option<usize>,
    /// Observations at a time.
    pub observations: Option<usize>,
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let zero = [
            (self.requests_per_minute == Some(0), "a number of requests"),
            (self.airtime_per_day == Some(Duration::ZERO), "an airtime"),
            (self.payload == Some(0), "a payload size"),
            (self.observations == Some(0), "a number of observations"),
        ];
        if let Some((_, what)) = zero.iter().find(|(is_zero, _)| *is_zero) {
            return Err(DeviceError::ZeroLimit(what));
        }
        if self.airtime_per_day.is_some_and(|airtime| airtime > DAY) {
            return Err(DeviceError::AirtimeOverADay);
        }
        Ok(())
    }

    /// Whether a request may have a body this large.
    ///
    /// # Errors
    /// It is too large.
    pub fn admit_payload(&self, bytes: usize) -> Result<(), Excess> {
        match self.payload {
            Some(limit) if bytes > limit => Err(Excess::Payload { limit }),
            _ => Ok(()),
        }
    }

    /// Whether there may be one more observation beside so many.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn admit_observation(&self, others: usize) -> Result<(), Excess> {
        match self.observations {
            Some(limit) if others >= limit => Err(Excess::Observations { limit }),
            _ => Ok(()),
        }
    }
}

/// What a device has asked for beyond its limits. [`Excess::max_age`] says when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Excess {
    /// Too many requests: 4.29 (RFC 8516).
    #[error("too many requests: the device may make {limit} in a minute")]
    Requests {
        /// How many it may make in a minute.
        limit: u32,
        /// When it may make the next.
        wait: Duration,
    },
    /// Too much airtime: 4.29.
    #[error("too much airtime: the device may use {} s in a day", limit.as_secs())]
    Airtime {
        /// How much it may use in a day.
        limit: Duration,
        /// When it may use more.
        wait: Duration,
    },
    /// Too large a body: 4.13.
    #[error("too large: a request of this device may have {limit} bytes")]
    Payload {
        /// How many bytes it may have.
        limit: usize,
    },
    /// Too many observations: 4.29, without a time.
    #[error("too many observations: the device may have {limit}")]
    Observations {
        /// How many there may be.
        limit: usize,
    },
}

impl Excess {
    /// What a response says in Max-Age (RFC 8516 §3): whole seconds, after which it is worth to ask again.
    pub fn max_age(&self) -> Option<u32> {
        match self {
            Self::Requests { wait, .. } | Self::Airtime { wait, .. } => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
            }
            Self::Payload { .. } | Self::Observations { .. } => None,
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What a device has used of its limits. The limits are an argument, so that those an operator has changed hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    requests: Requests,
    airtime: Airtime,
}

impl Allowance {
    /// Counts a request, if it may be made.
    ///
    /// # Errors
    /// [`Excess::Requests`] or [`Excess::Airtime`]; the request is not counted then.
    pub fn request(&mut self, limits: &Limits, now: Instant) -> Result<(), Excess> {
        if let Some(limit) = limits.airtime_per_day {
            self.airtime.check(limit, now)?;
        }
        match limits.requests_per_minute {
            Some(limit) => self.requests.take(limit, now),
            None => Ok(()),
        }
    }

    /// Counts what a message of the device, or one to it, takes on the link. What has begun is not cut off: the last request that is
    /// admitted may go beyond the limit with its answer.
    pub fn airtime(&mut self, spent: Duration, now: Instant) {
        self.airtime.add(spent, now);
    }
}

/// A bucket that holds a minute's requests, and fills in a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Requests {
    /// When it will be full. Before that, a request's share is missing for each `minute / limit` until then.
    full: Instant,
}

impl Requests {
    const MINUTE: Duration = Duration::from_secs(60);

    fn take(&mut self, limit: u32, now: Instant) -> Result<(), Excess> {
        let each = Self::MINUTE / limit.max(1);
        // An empty one is full in a minute: later than that is by a clock that was set back.
        self.full = self.full.clamp(now, now + Self::MINUTE);
        let full = self.full + each;
        let missing = full.since(now);
        if missing > Self::MINUTE {
            return Err(Excess::Requests { limit, wait: missing - Self::MINUTE });
        }
        self.full = full;
        Ok(())
    }
}

/// The airtime of each hour, of the last 24 and the present one. An hour counts until all of it is more than a day ago, so that no 24
/// hours, wherever they begin, have more than the limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Airtime {
    /// By the hour's number since the epoch; the oldest first, and those left out in which there was none.
    hours: VecDeque<(u64, Duration)>,
}

impl Airtime {
    fn add(&mut self, spent: Duration, now: Instant) {
        let hour = hour(now);
        self.hours.retain(|(past, _)| counts(*past, now));
        // Those that are later than now, by a clock that was set back, are of the present hour: a day later they are forgotten as well.
        self.hours.iter_mut().for_each(|(past, _)| *past = hour.min(*past));
        match self.hours.back_mut() {
            Some((last, sum)) if *last == hour => *sum = sum.saturating_add(spent),
            _ => self.hours.push_back((hour, spent)),
        }
    }

    fn used(&self, now: Instant) -> Duration {
        let counted = self.hours.iter().filter(|(past, _)| counts(*past, now));
        counted.fold(Duration::ZERO, |sum, (_, spent)| sum.saturating_add(*spent))
    }

    fn check(&self, limit: Duration, now: Instant) -> Result<(), Excess> {
        let mut used = self.used(now);
        if used < limit {
            return Ok(());
        }
        for (past, spent) in self.hours.iter().filter(|(past, _)| counts(*past, now)) {
            used = used.saturating_sub(*spent);
            if used < limit {
                return Err(Excess::Airtime { limit, wait: forgotten(*past).since(now) });
            }
        }
        Err(Excess::Airtime { limit, wait: DAY })
    }
}

fn hour(now: Instant) -> u64 {
    now.since_start().as_secs() / HOUR.as_secs()
}

fn counts(hour: u64, now: Instant) -> bool {
    now < forgotten(hour)
}

/// When the last moment of an hour is a day ago.
fn forgotten(hour: u64) -> Instant {
    let end = hour.saturating_add(1).saturating_mul(HOUR.as_secs());
    Instant::after_start(Duration::from_secs(end)) + DAY
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Instant {
        Instant::after_start(Duration::from_secs_f64(1_000_000.0 + seconds))
    }

    fn requests(limit: u32) -> Limits {
        Limits { requests_per_minute: Some(limit), ..Limits::default() }
    }

    #[test]
    fn minutes_requests_may_come_at_once_and_then_one_by_one() {
        let mut allowance = Allowance::default();
        let limits = requests(6);
        for _ in 0..6 {
            assert_eq!(allowance.request(&limits, at(0.0)), Ok(()));
        }
        let excess = allowance.request(&limits, at(0.5)).unwrap_err();
        assert_eq!(excess, Excess::Requests { limit: 6, wait: Duration::from_millis(9_500) });
        assert_eq!(excess.max_age(), Some(10));
        assert_eq!(allowance.request(&limits, at(10.0)), Ok(()));
        assert_eq!(allowance.request(&limits, at(19.99)).unwrap_err().max_age(), Some(1));
        assert_eq!(allowance.request(&limits, at(20.0)), Ok(()));
    }

    #[test]
    fn refused_request_costs_nothing() {
        let mut allowance = Allowance::default();
        let limits = requests(1);
        assert_eq!(allowance.request(&limits, at(0.0)), Ok(()));
        for second in 1..60 {
            assert!(allowance.request(&limits, at(f64::from(second))).is_err());
        }
        assert_eq!(allowance.request(&limits, at(60.0)), Ok(()));
    }

    #[test]
    fn no_limit_is_no_limit_and_a_new_one_holds_at_once() {
        let mut allowance = Allowance::default();
        for _ in 0..1_000 {
            assert_eq!(allowance.request(&Limits::default(), at(0.0)), Ok(()));
        }
        assert_eq!(allowance.request(&requests(1), at(0.0)), Ok(()));
        assert!(allowance.request(&requests(1), at(0.0)).is_err());
    }

    #[test]
    fn airtime_is_counted_over_any_24_hours() {
        let mut allowance = Allowance::default();
        let limits = Limits { airtime_per_day: Some(Duration::from_secs(100)), ..Limits::default() };
        // 1,000,000 s is 40 minutes before a full hour by the clock of the epoch.
        allowance.airtime(Duration::from_secs(60), at(0.0));
        allowance.airtime(Duration::from_secs(40), at(7_200.0));
        let excess = allowance.request(&limits, at(7_200.0)).unwrap_err();
        let Excess::Airtime { wait, .. } = excess else { panic!("{excess}") };
        // All of the first hour must be a day ago: its end is at 2,800 s less than the hour's begin was before.
        let end = at(7_200.0) + wait;
        assert_eq!(end.since_start().as_secs() % 3_600, 0);
        assert!(end.since(at(0.0)) > DAY && end.since(at(0.0)) <= DAY + HOUR);
        assert!(allowance.request(&limits, end - Duration::from_nanos(1)).is_err());
        assert_eq!(allowance.request(&limits, end), Ok(()));
        assert_eq!(allowance.airtime.used(end), Duration::from_secs(40));
    }

    #[test]
    fn clock_that_was_set_back_refuses_nobody_for_longer_than_the_limits_do() {
        let mut allowance = Allowance::default();
        let limits = Limits { airtime_per_day: Some(Duration::from_secs(100)), ..requests(1) };
        for hour in 0..3 {
            let then = at(1e9 + f64::from(hour) * 3_600.0);
            allowance.airtime(Duration::from_secs(33), then);
            allowance.request(&limits, then).unwrap();
        }
        let Err(Excess::Requests { wait, .. }) = allowance.request(&limits, at(0.0)) else { panic!() };
        assert_eq!(wait, Duration::from_secs(60));
        allowance.airtime(Duration::from_secs(1), at(0.0));
        let Err(Excess::Airtime { wait, .. }) = allowance.request(&limits, at(60.0)) else { panic!() };
        assert!(wait <= DAY + HOUR);
        assert_eq!(allowance.request(&limits, at(60.0) + wait), Ok(()));
    }

    #[test]
    fn allowance_outlasts_a_restart() {
        let mut allowance = Allowance::default();
        allowance.request(&requests(3), at(0.0)).unwrap();
        allowance.airtime(Duration::from_secs(7), at(1.0));
        let kept = serde_json::to_string(&allowance).unwrap();
        assert_eq!(serde_json::from_str::<Allowance>(&kept).unwrap(), allowance);
    }

    #[test]
    fn sizes_and_numbers_are_limits_too() {
        let limits = Limits { payload: Some(100), observations: Some(1), ..Limits::default() };
        assert_eq!(limits.admit_payload(100), Ok(()));
        assert_eq!(limits.admit_payload(101), Err(Excess::Payload { limit: 100 }));
        assert_eq!(limits.admit_observation(0), Ok(()));
        let excess = limits.admit_observation(1).unwrap_err();
        assert_eq!((excess, excess.max_age()), (Excess::Observations { limit: 1 }, None));
        assert_eq!(Limits::default().admit_payload(usize::MAX), Ok(()));
        assert_eq!(Limits::default().admit_observation(usize::MAX), Ok(()));
    }

    #[test]
    fn limits_that_allow_nothing_are_mistakes() {
        assert_eq!(requests(0).check(), Err(DeviceError::ZeroLimit("a number of requests")));
        let airtime = |airtime| Limits { airtime_per_day: Some(airtime), ..Limits::default() };
        assert_eq!(airtime(DAY).check(), Ok(()));
        assert_eq!(airtime(DAY + HOUR).check(), Err(DeviceError::AirtimeOverADay));
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_the_limit(
            steps in prop::collection::vec((0_u64..30_000, 1_u64..40), 1..200),
            limit in 40_u64..400,
        ) {
            let limits = Limits { airtime_per_day: Some(Duration::from_secs(limit)), requests_per_minute: Some(2), ..Limits::default() };
            let mut allowance = Allowance::default();
            let mut now = at(0.0);
            let mut admitted: Vec<(Instant, u64)> = Vec::new();
            for (wait, spent) in steps {
                now = now + Duration::from_secs(wait);
                if allowance.request(&limits, now).is_ok() {
                    allowance.airtime(Duration::from_secs(spent), now);
                    admitted.push((now, spent));
                }
                prop_assert!(allowance.airtime.hours.len() <= 26);
                let day: u64 = admitted.iter().filter(|(then, _)| now.since(*then) < DAY).map(|(_, spent)| spent).sum();
                prop_assert!(day < limit + 40);
                let minute = admitted.iter().filter(|(then, _)| now.since(*then) < Requests::MINUTE).count();
                // A full bucket at once, and what flows in during the minute.
                prop_assert!(minute <= 4);
            }
        }
    }
}
