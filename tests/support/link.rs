//! A bad link in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use lowband::coap::Instant;

/// Whom a datagram is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// Who asks.
    Client,
    /// Who answers.
    Server,
}

/// A link that loses, repeats and reorders, by chance from a seed.
pub(crate) struct Link {
    chance: u64,
    /// Of a hundred. Without loss nothing is so late that repeats do not mend it.
    loss: u64,
    /// What has left and not arrived, by the time at which it will.
    pub(crate) under_way: BTreeMap<(Instant, u64), (Side, Vec<u8>)>,
    sent: u64,
}

impl Link {
    /// A link that loses so many datagrams of a hundred, and else does what the seed says.
    pub(crate) fn new(seed: u64, loss: u64) -> Self {
        Self { chance: seed | 1, loss, under_way: BTreeMap::new(), sent: 0 }
    }

    /// Sends a datagram, or loses it.
    pub(crate) fn send(&mut self, to: Side, datagram: &[u8], now: Instant) {
        let copies = if self.chance(5) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(100) < self.loss {
                continue;
            }
            let most = if self.loss > 0 && self.chance(20) == 0 { 60_000 } else { 700 };
            let latency = Duration::from_millis(self.chance(most));
            self.sent += 1;
            self.under_way.insert((now + latency, self.sent), (to, datagram.to_vec()));
        }
    }

    /// A number below this one.
    pub(crate) fn chance(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        (self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}
