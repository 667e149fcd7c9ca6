//! Peers that do not answer: when each is next asked whether it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::coap::Instant;
use crate::endpoint::Association;

/// The peers that did not answer, until they have acknowledged a notification again.
#[derive(Debug, Default)]
pub(super) struct Absences {
    absences: BTreeMap<Association, Absence>,
    due: BTreeSet<(Instant, Association)>,
}

#[derive(Debug)]
struct Absence {
    /// The next wait.
    wait: Duration,
    /// When the peer is asked next; it has been asked, or heard of, where there is none.
    due: Option<Instant>,
}

impl Absences {
    /// Says that a peer does not answer: it is asked whether it is there after a wait, the first of which is given and each later one
    /// twice as long, up to the longest.
    pub(super) fn wait(&mut self, peer: Association, first: Duration, longest: Duration, now: Instant) {
        let absence = self.absences.entry(peer).or_insert(Absence { wait: first, due: None });
        if absence.due.is_some() {
            return;
        }
        let due = now + absence.wait.min(longest);
        absence.wait = absence.wait.saturating_mul(2).min(longest);
        absence.due = Some(due);
        self.due.insert((due, peer));
    }

    /// A peer that is to be asked by now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Association> {
        let (_, peer) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        self.rest(peer);
        Some(peer)
    }

    /// Says that a peer was heard of. The waits go on where they were until it has acknowledged something: one that is heard and
    /// does not hear is not asked in a hurry.
    pub(super) fn rest(&mut self, peer: Association) {
        if let Some(due) = self.absences.get_mut(&peer).and_then(|absence| absence.due.take()) {
            self.due.remove(&(due, peer));
        }
    }

    /// Forgets a peer: it is there, or nobody asks for it any more.
    pub(super) fn end(&mut self, peer: Association) {
        self.rest(peer);
        self.absences.remove(&peer);
    }

    /// Whether a peer did not answer, and is not known to be there.
    pub(super) fn contains(&self, peer: Association) -> bool {
        self.absences.contains_key(&peer)
    }

    /// When the next peer is to be asked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}
