//! What goes wrong on a link beside what its profile says.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::coap::Instant;

/// Trouble on a link. The default adds none.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairments {
    /// The share of frames that are lost, each by itself, instead of the profile's.
    pub loss: Option<f64>,
    /// Losses in bursts, beside those.
    pub bursts: Option<Bursts>,
    /// The share of datagrams that come twice.
    pub duplication: f64,
    /// The share of datagrams that are held back on their way, so that later ones overtake them.
    pub reordering: f64,
    /// How long a datagram is held back, and how long after the first its copy comes, at most.
    pub holding: Duration,
    /// Whether jitter may change the order too; else a datagram waits for those that left before it.
    pub jitter_reorders: bool,
    /// When everything is lost.
    pub outages: Vec<Outage>,
    /// Datagrams that may wait in one modem; more are dropped.
    pub queue: usize,
}

impl Default for Impairments {
    fn default() -> Self {
        Self {
            loss: None,
            bursts: None,
            duplication: 0.0,
            reordering: 0.0,
            holding: Duration::from_secs(10),
            jitter_reorders: false,
            outages: Vec::new(),
            queue: 64,
        }
    }
}

impl Impairments {
    /// The same on a link that is this many times as fast.
    pub fn at_speed(&self, speed: f64) -> Self {
        let outages = self.outages.iter().map(|outage| Outage {
            from: Instant::START + scaled(outage.from.since_start(), speed),
            until: Instant::START + scaled(outage.until.since_start(), speed),
        });
        let bursts = self.bursts.map(|bursts| Bursts {
            good: scaled(bursts.good, speed),
            bad: scaled(bursts.bad, speed),
            ..bursts
        });
        Self { outages: outages.collect(), bursts, holding: scaled(self.holding, speed), ..self.clone() }
    }
}

/// Losses in bursts: the model of Gilbert and Elliott in continuous time. The carrier changes between two states; how long it
/// stays in one is exponentially distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// How long the good state lasts on average.
    pub good: Duration,
    /// How long the bad state lasts on average.
    pub bad: Duration,
    /// The share of frames that are lost in the good state.
    pub loss_in_good: f64,
    /// The share of frames that are lost in the bad state.
    pub loss_in_bad: f64,
}

impl Bursts {
    /// The probability that a carrier is in the bad state, this long after it was seen in one.
    pub(super) fn bad_after(&self, was_bad: bool, elapsed: Duration) -> f64 {
        let (good, bad) = (self.good.as_secs_f64(), self.bad.as_secs_f64());
        if bad <= 0.0 {
            return 0.0;
        }
        if good <= 0.0 {
            return 1.0;
        }
        let share = bad / (good + bad);
        let memory = (-elapsed.as_secs_f64() * (1.0 / good + 1.0 / bad)).exp();
        share + (f64::from(u8::from(was_bad)) - share) * memory
    }
}

/// A time in which everything is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Its beginning.
    pub from: Instant,
    /// Its end, after which datagrams pass again.
    pub until: Instant,
}

impl Outage {
    /// Whether it takes a frame that is on the air between these times.
    pub(super) fn takes(&self, start: Instant, end: Instant) -> bool {
        start < self.until && self.from <= end
    }
}

/// Why a text names no outage.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("give FROM-UNTIL, with the later time last, as in 600-4200 or 10m-70m")]
pub struct OutageError;

/// `FROM-UNTIL`, both from the start: seconds, or with the unit `s`, `m` or `h`.
impl FromStr for Outage {
    type Err = OutageError;

    fn from_str(text: &str) -> Result<Self, OutageError> {
        let (from, until) = text.split_once('-').ok_or(OutageError)?;
        let outage = Self { from: moment(from)?, until: moment(until)? };
        if outage.from < outage.until { Ok(outage) } else { Err(OutageError) }
    }
}

fn moment(text: &str) -> Result<Instant, OutageError> {
    let digits = text.trim_end_matches(['s', 'm', 'h']);
    let unit = match text.strip_prefix(digits) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => return Err(OutageError),
    };
    let seconds = digits.parse::<u32>().map_err(|_| OutageError)?;
    Ok(Instant::START + Duration::from_secs(u64::from(seconds) * unit))
}

fn scaled(time: Duration, speed: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() / speed).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_read_with_and_without_units() {
        let outage = |from, until| {
            Ok(Outage {
                from: Instant::START + Duration::from_secs(from),
                until: Instant::START + Duration::from_secs(until),
            })
        };
        assert_eq!("0-90".parse(), outage(0, 90));
        assert_eq!("10m-2h".parse(), outage(600, 7_200));
        for wrong in ["", "1", "1-", "2-1", "1-1", "a-b", "1x-2x", "-1-2", "1ms-2ms", "99999999999-1"] {
            assert_eq!(wrong.parse::<Outage>(), Err(OutageError), "{wrong}");
        }
    }

    #[test]
    fn at_speed_everything_is_sooner() {
        let slow = Impairments { outages: vec!["60-120".parse().unwrap()], ..Impairments::default() };
        let fast = slow.at_speed(20.0);
        assert_eq!(fast.outages, ["3-6".parse().unwrap()]);
        assert_eq!(fast.holding, Duration::from_millis(500));
    }
}
