//! What stands for what where a recording is replayed between ends that keep tokens to themselves.
//!
//! The client of a recording had the homeserver's tokens, and the homeserver had the client's transaction ids. Replayed, the client has
//! the proxy's tokens, and the homeserver the gateway's transaction ids. So each of these is put in the place of the recorded one before
//! it is sent; what then comes out at the other end must be as recorded again.

use std::collections::BTreeMap;
use std::collections::VecDeque;

/// Pairs of what was recorded and what stands for it, the latest alone: who uses an older one has the recorded itself.
#[derive(Debug)]
pub(super) struct Substitutes {
    substitutes: BTreeMap<String, String>,
    recorded: BTreeMap<String, String>,
    order: VecDeque<String>,
    most: usize,
}

impl Substitutes {
    /// None yet, and never more than this.
    pub(super) fn new(most: usize) -> Self {
        Self { substitutes: BTreeMap::new(), recorded: BTreeMap::new(), order: VecDeque::new(), most }
    }

    /// What stands for this.
    pub(super) fn get(&self, recorded: &str) -> Option<&str> {
        self.substitutes.get(recorded).map(String::as_str)
    }

    /// Notes what stands for something that was recorded; false if it stands for something else already.
    pub(super) fn note(&mut self, recorded: &str, substitute: &str) -> bool {
        if let Some(before) = self.recorded.get(substitute) {
            return before == recorded;
        }
        if let Some(before) = self.substitutes.insert(recorded.to_owned(), substitute.to_owned()) {
            self.recorded.remove(&before);
        } else {
            self.order.push_back(recorded.to_owned());
        }
        self.recorded.insert(substitute.to_owned(), recorded.to_owned());
        while self.order.len() > self.most {
            let oldest = self.order.pop_front().and_then(|oldest| self.substitutes.remove(&oldest));
            oldest.map(|oldest| self.recorded.remove(&oldest));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stands_for_one() {
        let mut substitutes = Substitutes::new(3);
        assert!(substitutes.note("s1", "lb_0"));
        assert!(substitutes.note("s1", "lb_0"));
        assert!(!substitutes.note("s2", "lb_0"));
        assert!(substitutes.note("s1", "lb_1"), "it was forgotten, and given anew");
        assert_eq!((substitutes.get("s1"), substitutes.get("s2")), (Some("lb_1"), None));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut substitutes = Substitutes::new(3);
        for (recorded, substitute) in [("s0", "lb_0"), ("s1", "lb_1"), ("s2", "lb_2"), ("s3", "lb_3")] {
            assert!(substitutes.note(recorded, substitute));
        }
        assert_eq!((substitutes.get("s0"), substitutes.get("s1")), (None, Some("lb_1")));
        assert_eq!(substitutes.recorded.len(), 3);
    }
}
