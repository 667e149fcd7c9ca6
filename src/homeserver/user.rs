//! One user, their devices and what they have stored.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use serde_json::Map;
use serde_json::Value;

/// A registered user.
#[derive(Debug, Default)]
pub(super) struct User {
    /// As plain text, and never shown. None for who registered without one.
    pub(super) password: Option<String>,
    pub(super) displayname: Option<String>,
    pub(super) avatar_url: Option<String>,
    pub(super) devices: BTreeMap<String, Device>,
    /// Account data by room, `None` for that of the user as a whole, and type.
    pub(super) account_data: BTreeMap<(Option<String>, String), Stamped>,
    pub(super) filters: Vec<Map<String, Value>>,
    pub(super) presence: Option<Stamped>,
    /// When the keys of a device changed last.
    pub(super) keys_position: u64,
}

/// A value and when it changed last.
#[derive(Debug)]
pub(super) struct Stamped {
    pub(super) position: u64,
    pub(super) content: Map<String, Value>,
}

/// One login of a user.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) display_name: Option<String>,
    pub(super) last_seen_ms: u64,
    /// Identity keys, as uploaded.
    pub(super) keys: Option<Map<String, Value>>,
    /// One-time keys by `algorithm:id`.
    pub(super) one_time_keys: BTreeMap<String, Value>,
    /// Fallback keys by `algorithm:id`, and whether one was given away.
    pub(super) fallback_keys: BTreeMap<String, (Value, bool)>,
    /// To-device messages with the position at which they came.
    pub(super) inbox: VecDeque<(u64, Value)>,
    pub(super) transactions: Transactions,
}

/// What earlier requests with a transaction id were answered (client-server API v1.19 §"Transaction identifiers").
#[derive(Debug, Default)]
pub(super) struct Transactions {
    answers: BTreeMap<String, Value>,
    order: VecDeque<String>,
}

impl Transactions {
    pub(super) fn answer(&self, path: &str) -> Option<&Value> {
        self.answers.get(path)
    }

    /// Remembers an answer, and forgets the oldest above the limit.
    pub(super) fn remember(&mut self, path: String, answer: Value, limit: usize) {
        if self.answers.insert(path.clone(), answer).is_none() {
            self.order.push_back(path);
        }
        while self.order.len() > limit {
            let Some(oldest) = self.order.pop_front() else { return };
            self.answers.remove(&oldest);
        }
    }
}

impl Device {
    /// One-time keys left, by algorithm. `signed_curve25519` is always there, as clients rely on it to refill.
    pub(super) fn one_time_key_counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::from([("signed_curve25519", 0)]);
        for key in self.one_time_keys.keys() {
            *counts.entry(algorithm(key)).or_insert(0) += 1;
        }
        counts
    }

    pub(super) fn unused_fallback_key_types(&self) -> Vec<&str> {
        let unused = self.fallback_keys.iter().filter(|(_, (_, used))| !used);
        unused.map(|(key, _)| algorithm(key)).collect()
    }
}

/// The algorithm of a key's `algorithm:id`.
pub(super) fn algorithm(key: &str) -> &str {
    key.split_once(':').map_or(key, |(algorithm, _)| algorithm)
}
