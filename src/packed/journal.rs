//! What changes of a gateway's end, in the order in which it does: little beside the whole, and stored in its place.

use serde::Deserialize;
use serde::Serialize;

use crate::packed::aliases::Entry;
use crate::packed::aliases::Kind;
use crate::packed::answers::Answers;
use crate::packed::tokens::Mark;

/// A step of an end. An end of before, to which all later ones are done in order, is the end of after.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change(pub(super) Step);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Step {
    /// A message was read, which introduced these, and shows that the proxy has those.
    Read { entries: Vec<Entry>, proven: Vec<(Kind, u64)> },
    /// Which answers the next request may acknowledge.
    Answers(Answers),
    /// An access token came into use.
    Held(u64),
    /// One was written, with what it gave, and the number of the alias that would have come next.
    Wrote { entries: Vec<Entry>, next: u64, tokens: Vec<String>, mark: Mark },
    /// One was written that has no bytes.
    Nothing,
    /// One that was written has arrived.
    Acknowledged(u64),
}

/// The steps since they were taken last; nothing, where nobody takes them.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Option<Vec<Change>>);

impl Journal {
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    pub(super) fn note(&mut self, step: &Step) {
        if let Some(changes) = &mut self.0 {
            changes.push(Change(step.clone()));
        }
    }

    pub(super) fn take(&mut self) -> Vec<Change> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
