//! How much of a peer's end is stored with a message: what the message has changed of it, and the whole when all that has become more.

use serde::{Deserialize, Serialize};

use super::memory::{Key, Memories};
use super::packed::End;
use crate::endpoint::Association;
use crate::packed::{Change, MessageNumber};

/// What was stored of an end.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    /// The bytes of the whole; nothing, where that is to be stored before anything else.
    whole: Option<usize>,
    /// The numbers of the first change after it, and of the next.
    first: u64,
    next: u64,
    /// The bytes of the changes.
    bytes: usize,
    /// Positions that were given since.
    gave: Vec<(String, MessageNumber)>,
}

/// What changed with a message, or with a few.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredChange {
    pub(super) changes: Vec<Change>,
    pub(super) gave: Vec<(String, MessageNumber)>,
}

/// Changes may be as large as this together, or as the whole.
const SMALL: usize = 4 << 10;

/// As many records of changes may be kept of a peer.
const MOST: u64 = 1024;

impl Journal {
    /// The journal of an end that was stored whole in so many bytes, with so many changes since, after those up to `first`.
    pub(super) fn restored(first: u64, changes: u64) -> Self {
        // Whole again with the next change: what it takes on the disk is not known here.
        Journal { first, next: first + changes, ..Journal::default() }
    }

    pub(super) fn is_begun(&self) -> bool {
        self.whole.is_some()
    }

    pub(super) fn gave(&mut self, position: &str, message: MessageNumber) {
        self.gave.push((position.to_owned(), message));
    }

    /// Has the whole stored with the next change.
    pub(super) fn begin_anew(&mut self) {
        self.whole = None;
    }

    /// Has all records of changes taken away.
    pub(super) fn forget(&self, peer: Association, memories: &mut Memories) {
        for number in self.first..self.next {
            memories.forget(&Key::PackedChange(peer, number));
        }
    }
}

impl End {
    /// Stores what has changed, before anything leaves that depends on it.
    pub(super) fn remember(&mut self, peer: Association, memories: &mut Memories) {
        let changes = self.end.take_changes();
        let gave = std::mem::take(&mut self.journal.gave);
        let Journal { whole, first, next, bytes, .. } = self.journal;
        if whole.is_some_and(|whole| bytes < whole.max(SMALL) && next - first < MOST) {
            if !changes.is_empty() || !gave.is_empty() {
                let change = StoredChange { changes, gave };
                self.journal.bytes += memories.put(&Key::PackedChange(peer, next), &change);
                self.journal.next += 1;
            }
            return;
        }
        self.journal.forget(peer, memories);
        (self.journal.first, self.journal.bytes, self.first_change) = (next, 0, next);
        self.end.keep_changes();
        self.journal.whole = Some(memories.put(&Key::Packed(peer), self));
    }

    /// Does again what was stored after the whole; `None` where a part of that is missing.
    pub(super) fn redone(mut self, changes: impl IntoIterator<Item = (u64, StoredChange)>) -> Option<Self> {
        let first = self.first_change;
        let mut done = 0;
        for (number, StoredChange { changes, gave }) in
            changes.into_iter().filter(|(number, _)| *number >= first)
        {
            if number != first + done {
                return None;
            }
            changes.into_iter().for_each(|change| self.end.redo(change));
            gave.into_iter().for_each(|(position, message)| self.note_position(position, message));
            done += 1;
        }
        self.journal = Journal::restored(first, done);
        Some(self)
    }
}
