//! What devices say of themselves, as the oracle hears it.

use serde_json::Value;
use tracing::debug;

use super::{First, World};
use crate::sim::channel::PeerNumber;
use crate::sim::peer::{Ending, Note};

impl World {
    pub(super) fn note(&mut self, number: PeerNumber, note: Note) {
        let Some(user) = self.peers.get(number as usize).map(|peer| peer.user().to_owned()) else { return };
        let at = self.seconds();
        match &note {
            Note::Delta(delta) => debug!(at, peer = number, %delta, "applied a delta"),
            note => debug!(at, peer = number, ?note, "told"),
        }
        match note {
            Note::Asked(attempt) => self.oracle.asked(attempt),
            Note::Ended { attempt, asked, end, made, bytes } => {
                let answered = matches!(end, Ending::Answered(status) if status.is_success());
                if answered && number == 0 && self.first == First::UnderWay {
                    self.first = First::Answered;
                }
                let (took, limit) = (self.now.since(asked), self.lifetime(bytes));
                self.oracle.ended(&user, took, limit, self.now);
                match attempt {
                    Some(attempt) if answered => {
                        self.oracle.answered(&attempt, made.as_deref(), &self.homeserver, self.now)
                    }
                    Some(_) => self.oracle.failed(),
                    None => {}
                }
            }
            Note::Said(said) => self.transcript.asks(&said),
            Note::Read(path, value) => self.compare(number, &user, &path, &value),
            Note::Delta(delta) => {
                self.compare(number, &user, "/_matrix/client/v3/sync", &delta);
                self.oracle.delta(number, &Value::clone(&delta), &self.homeserver, self.now)
            }
        }
    }
}
