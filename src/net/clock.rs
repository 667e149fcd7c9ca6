//! The clock: the only place that reads it for the machines.

use tokio::time;

use crate::coap::Instant;

/// Counts from its own start, so that the machines never see what time it is, only how much has passed.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "a driver reads the clock so that nobody else has to")]
    pub fn start() -> Self {
        Self { start: time::Instant::now() }
    }

    /// The present moment, as the machines know it.
    pub fn now(&self) -> Instant {
        Instant::after_start(self.start.elapsed())
    }

    /// Sleeps until a machine's deadline; for ever where there is none.
    pub async fn sleep_until(&self, deadline: Option<Instant>) {
        match deadline.and_then(|deadline| self.start.checked_add(deadline.since_start())) {
            Some(moment) => time::sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }
}
