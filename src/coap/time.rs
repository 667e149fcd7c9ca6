//! Time as an argument: what the drivers hand to the machines instead of a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, as the time since the one that its driver counts from: its own start, or the Unix epoch. Only a driver makes them;
/// arithmetic stops at the ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(Duration);

impl Instant {
    /// The one that the driver counts from.
    pub const START: Self = Self(Duration::ZERO);

    /// The moment this long after [`Instant::START`].
    pub const fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time since [`Instant::START`].
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time since an earlier moment; zero if it is a later one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}
