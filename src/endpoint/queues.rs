//! Which peer comes first: to be looked after, or to make room.

use std::collections::BTreeSet;

use super::Association;
use crate::coap::Instant;

/// The queues of all peers.
#[derive(Debug, Default)]
pub(super) struct Queues {
    due: Queue,
    expendable: Queue,
    holding: Queue,
    held_bytes: usize,
}

type Queue = BTreeSet<(Instant, Association)>;

/// One peer's places in the queues; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    /// When it next has something to do.
    pub(super) due: Option<Instant>,
    /// When it was last heard of, if nothing waits for it.
    pub(super) expendable: Option<Instant>,
    /// When it was last heard of, if its transfers hold bodies.
    pub(super) holding: Option<Instant>,
    /// Bytes of these bodies.
    pub(super) held_bytes: usize,
}

impl Queues {
    /// Moves a peer from its old places to its new ones.
    pub(super) fn shift(&mut self, association: Association, old: Places, new: Places) {
        shift(&mut self.due, association, old.due, new.due);
        shift(&mut self.expendable, association, old.expendable, new.expendable);
        shift(&mut self.holding, association, old.holding, new.holding);
        self.held_bytes = self.held_bytes - old.held_bytes + new.held_bytes;
    }

    /// The peer that next has something to do, and when.
    pub(super) fn first_due(&self) -> Option<(Instant, Association)> {
        self.due.first().copied()
    }

    /// The peer unheard of for longest of those that nothing waits for.
    pub(super) fn first_expendable(&self) -> Option<Association> {
        self.expendable.first().map(|(_, association)| *association)
    }

    /// The peer unheard of for longest of those that hold bodies.
    pub(super) fn first_holding(&self) -> Option<Association> {
        self.holding.first().map(|(_, association)| *association)
    }

    /// Bytes that all peers' transfers hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

fn shift(queue: &mut Queue, association: Association, old: Option<Instant>, new: Option<Instant>) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        queue.remove(&(old, association));
    }
    queue.extend(new.map(|new| (new, association)));
}
