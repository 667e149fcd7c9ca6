//! The clock: the only place that reads it for the machines.

use std::time::Duration;
use std::time::SystemTime;

use tokio::time;

use crate::coap::Instant;

/// Counts from the Unix epoch, so that a moment that was stored means the same after a restart. It asks what time it is once, at
/// its start, and goes on evenly from there whatever is done to the system's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: time::Instant,
    /// The time at the start, since the Unix epoch.
    epoch: Duration,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "a driver reads the clock so that nobody else has to")]
    pub fn start() -> Self {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start: time::Instant::now(), epoch }
    }

    /// A clock that starts now, and counts from here: for what is planned from the start and kept by nobody.
    pub fn from_zero() -> Self {
        Self { epoch: Duration::ZERO, ..Self::start() }
    }

    /// The present moment, as the machines know it.
    pub fn now(&self) -> Instant {
        Instant::after_start(self.epoch.saturating_add(self.elapsed()))
    }

    /// The clock's start, as the system has it and as the machines know it.
    pub(super) fn beginning(&self) -> (std::time::Instant, Instant) {
        (self.start.into_std(), Instant::after_start(self.epoch))
    }

    /// The time since the clock's start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Sleeps until a machine's deadline; for ever where there is none.
    pub async fn sleep_until(&self, deadline: Option<Instant>) {
        let wait = |deadline: Instant| deadline.since_start().saturating_sub(self.epoch);
        match deadline.and_then(|deadline| self.start.checked_add(wait(deadline))) {
            Some(moment) => time::sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }
}
