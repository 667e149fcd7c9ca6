//! Observations with one peer, as the server keeps them, and the order of notifications (RFC 7641 §3.4, §4).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Token;
use super::time::Instant;
use super::transfer::Plan;

/// The observations that one peer has registered, by their tokens.
#[derive(Debug, Default)]
pub struct Observations {
    /// In boxes: a map makes room for eleven, and nearly every peer has one.
    by_token: BTreeMap<Token, Box<Observation>>,
    /// The value of Observe for the next notification of any: so it grows for each token even where that registers again.
    sequence: u32,
}

/// One entry of the list of observers (RFC 7641 §4.1).
#[derive(Debug)]
pub struct Observation {
    /// The number that it is known by outside.
    pub id: ObservationId,
    /// How its notifications are cut.
    pub plan: Plan,
    /// The value of Observe in its last notification.
    pub sequence: u32,
    /// Whether the peer has acknowledged a message with its token.
    pub confirmed: bool,
    /// Whether its last notification was reset.
    pub reset: bool,
}

/// A registered observation, never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObservationId(pub u64);

impl Observations {
    /// Registers; an observation with the same token is replaced, and returned (RFC 7641 §4.1).
    pub fn register(&mut self, token: Token, id: ObservationId, plan: Plan) -> Option<ObservationId> {
        self.by_token
            .insert(token, Box::new(Observation { id, plan, sequence: 0, confirmed: false, reset: false }))
            .map(|replaced| replaced.id)
    }

    /// Removes by token.
    pub fn remove(&mut self, token: Token) -> Option<ObservationId> {
        self.by_token.remove(&token).map(|removed| removed.id)
    }

    /// Removes by number.
    pub fn end(&mut self, id: ObservationId) {
        self.by_token.retain(|_, observation| observation.id != id);
    }

    /// The observation, its token, and the value of Observe for its next notification: 24 bits, growing (RFC 7641 §4.4).
    pub fn next(&mut self, id: ObservationId) -> Option<(Token, &Observation)> {
        let (token, observation) = self.by_token.iter_mut().find(|(_, observation)| observation.id == id)?;
        observation.sequence = self.sequence;
        self.sequence = (self.sequence + 1) & SEQUENCE_MASK;
        Some((*token, observation))
    }

    /// Says that the peer has acknowledged a message with its token.
    pub fn confirm(&mut self, id: ObservationId) {
        let observation = self.by_token.values_mut().find(|observation| observation.id == id);
        observation.into_iter().for_each(|observation| observation.confirmed = true);
    }

    /// The observation and its token.
    pub fn get(&self, id: ObservationId) -> Option<(Token, &Observation)> {
        let (token, observation) = self.by_token.iter().find(|(_, observation)| observation.id == id)?;
        Some((*token, observation))
    }

    /// Notes whether its last notification was reset. Returns whether the one before was, too.
    pub fn note_reset(&mut self, id: ObservationId, reset: bool) -> bool {
        let found = self.by_token.values_mut().find(|observation| observation.id == id);
        found.is_some_and(|observation| std::mem::replace(&mut observation.reset, reset))
    }

    /// The oldest observation of what this plan is for.
    pub fn oldest_like(&self, plan: &Plan) -> Option<ObservationId> {
        let alike = self.by_token.values().filter(|observation| observation.plan.is_for_same(plan));
        alike.map(|observation| observation.id).min()
    }

    /// The value of Observe in an observation's last notification.
    pub fn sequence(&self, id: ObservationId) -> Option<u32> {
        self.get(id).map(|(_, observation)| observation.sequence)
    }

    /// The value of Observe for the next notification of any.
    pub fn next_sequence(&self) -> u32 {
        self.sequence
    }

    /// Goes on with this value of Observe, which is greater than all before.
    pub fn resume(&mut self, sequence: u32) {
        self.sequence = sequence & SEQUENCE_MASK;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_token.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }
}

/// Observe's 24 bits.
const SEQUENCE_MASK: u32 = (1 << 24) - 1;

/// Whether a notification that came later also was sent later (RFC 7641 §3.4).
pub fn is_newer(known: (u32, Instant), come: (u32, Instant)) -> bool {
    let ((v1, t1), (v2, t2)) = (known, come);
    v1 < v2 && v2 - v1 < 1 << 23 || v1 > v2 && v1 - v2 > 1 << 23 || t2 > t1 + Duration::from_secs(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_ordered_by_their_24_bits_and_by_time() {
        let at = |seconds| Instant::START + Duration::from_secs(seconds);
        assert!(is_newer((1, at(0)), (2, at(0))));
        assert!(!is_newer((2, at(0)), (1, at(1))));
        assert!(!is_newer((2, at(0)), (2, at(1))));
        assert!(is_newer((SEQUENCE_MASK, at(0)), (0, at(1))));
        assert!(is_newer((2, at(0)), (1, at(129))));
    }
}
