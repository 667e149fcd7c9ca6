//! What has passed a channel in one direction.

use std::time::Duration;

use serde::Serialize;

/// What was sent in one direction, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Datagrams that were handed to a modem.
    pub datagrams: u64,
    /// Their bytes of UDP payload.
    pub bytes: u64,
    /// Datagrams that went on the air.
    pub transmitted: u64,
    /// Frames that these made.
    pub frames: u64,
    /// Bytes on the air, overhead included.
    pub air_bytes: u64,
    /// How long they were on the air together.
    #[serde(rename = "airtime_ms", serialize_with = "milliseconds")]
    pub airtime: Duration,
    /// The longest time that one waited in its modem.
    #[serde(rename = "longest_wait_ms", serialize_with = "milliseconds")]
    pub longest_wait: Duration,
    /// Datagrams that were handed to a modem sooner than the one before could have left it.
    pub hurried: u64,
    /// Datagrams that arrived, copies not counted.
    pub delivered: u64,
    /// Datagrams lost by chance.
    pub lost: u64,
    /// Datagrams lost in an outage.
    pub lost_in_outage: u64,
    /// Datagrams that arrived twice.
    pub duplicated: u64,
    /// Datagrams that were held back, for later ones to overtake.
    pub held: u64,
    /// Datagrams dropped as they are longer than the MTU.
    pub too_long: u64,
    /// Datagrams dropped as too many waited.
    pub overflowed: u64,
}

impl Traffic {
    /// The same with all times multiplied: those of the link that a faster one stands for.
    pub fn slowed(self, speed: u32) -> Self {
        Self {
            airtime: self.airtime.saturating_mul(speed),
            longest_wait: self.longest_wait.saturating_mul(speed),
            ..self
        }
    }
}

pub(super) fn milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn moment<S: serde::Serializer>(
    at: &crate::coap::Instant,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    milliseconds(&at.since_start(), serializer)
}
