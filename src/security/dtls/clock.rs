//! Time as dimpl counts it.

use std::time::Duration;
/// A moment of the system's clock, which is never read here.
pub(super) use std::time::Instant as Moment;

use crate::coap::Instant;

/// A moment on both clocks. Only differences matter; nobody here asks what time it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    theirs: Moment,
    ours: Instant,
}

/// Deadlines beyond it are none: dimpl always has one.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Clock {
    /// `theirs` and `ours` are the same moment.
    pub(super) fn new(theirs: Moment, ours: Instant) -> Self {
        Self { theirs, ours }
    }

    /// The same moment for dimpl.
    pub(super) fn to_theirs(self, now: Instant) -> Moment {
        self.theirs.checked_add(now.since(self.ours)).unwrap_or(self.theirs)
    }

    /// When dimpl wants to be called, if within a year; not before a millisecond from now, so that nobody spins.
    pub(super) fn deadline(self, theirs: Moment, now: Instant) -> Option<Instant> {
        let deadline = self.ours + theirs.saturating_duration_since(self.theirs);
        (deadline.since(now) < NEVER).then(|| deadline.max(now + Duration::from_millis(1)))
    }
}
