//! Message IDs, and the chance that spreads repeats.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::coap::message::MessageId;
use crate::coap::time::Instant;

/// Message IDs in order; none twice within EXCHANGE_LIFETIME (RFC 7252 §4.4).
#[derive(Debug)]
pub(super) struct MessageIds {
    next: MessageId,
    /// When each run of 256 ids was last used, by its high byte.
    used: BTreeMap<u8, Instant>,
}

impl MessageIds {
    pub(super) fn starting_at(next: MessageId) -> Self {
        Self { next, used: BTreeMap::new() }
    }

    /// The one that comes next.
    pub(super) fn next(&self) -> MessageId {
        self.next
    }

    pub(super) fn take(&mut self, now: Instant, lifetime: Duration) -> Option<MessageId> {
        let [run, low] = self.next.0.to_be_bytes();
        // Within a run the ids go on in order; its first may be used again only when its last is old enough.
        if low == 0 && self.used.get(&run).is_some_and(|used| *used + lifetime > now) {
            return None;
        }
        self.used.insert(run, now);
        let id = self.next;
        self.next = id.next();
        Some(id)
    }

    /// When one was last used, of those not forgotten.
    pub(super) fn last_used(&self) -> Option<Instant> {
        self.used.values().max().copied()
    }

    /// Forgets the use of those that may be used again.
    pub(super) fn forget_old(&mut self, now: Instant, lifetime: Duration) {
        self.used.retain(|_, used| *used + lifetime > now);
    }

    /// When [`MessageIds::take`] will have one, if it has none now.
    pub(super) fn free_at(&self, lifetime: Duration) -> Option<Instant> {
        let [run, low] = self.next.0.to_be_bytes();
        (low == 0).then(|| self.used.get(&run).map(|used| *used + lifetime)).flatten()
    }
}

/// Spreads retransmissions in time (SplitMix64); no secret depends on it.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
