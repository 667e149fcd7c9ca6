//! What outlives the process: records of sessions and observations, written as they change and read at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::Gateway;
use super::devices::has_token;
use super::feed::Checked;
use super::journal::StoredChange;
use super::memory;
use super::memory::{Key, Record, StoredDelta, StoredFormat, StoredObservation, StoredPosition};
use super::observation::{Observation, Position};
use super::packed::End;
use crate::coap;
use crate::coap::{Instant, ObservationId};
use crate::endpoint::{Association, MemoryKey};
use crate::matrix;
use crate::translate::Call;

impl Gateway {
    /// Takes up what was stored before the process ended, right after [`Gateway::new`]: peers go on as if nothing had been. What cannot be
    /// read is dropped, counted and taken away.
    ///
    /// What was told and not acknowledged is told again, and the rest of the observers wait from their acknowledged positions. Requests
    /// that were not answered are passed on, again perhaps, where that does no harm, and refused otherwise.
    pub fn restore(&mut self, records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>, now: Instant) {
        let (mut memories, mut observations) = (Vec::new(), Vec::new());
        let (mut ends, mut changes) = (Vec::new(), BTreeMap::<_, BTreeMap<_, _>>::new());
        let mut broken = BTreeSet::new();
        for (key, value) in records {
            match Record::read(&key, &value) {
                Some(Record::Endpoint(key, memory)) => memories.push((key, memory)),
                Some(Record::Session(peer, session)) if self.devices.may_have_records(peer) => {
                    *self.sessions.of(peer, now) = session;
                }
                Some(Record::Packed(peer, end))
                    if self.packed.is_spoken() && self.devices.may_have_records(peer) =>
                {
                    ends.push((peer, end));
                }
                Some(Record::PackedChange(peer, number, change)) => {
                    changes.entry(peer).or_default().insert(number, change);
                }
                Some(Record::Allowance(peer, allowance)) if self.devices.may_have_records(peer) => {
                    let _ = self.devices.recall_allowance(peer, allowance);
                }
                Some(Record::Observation(id, observation)) => observations.push((id, observation)),
                Some(Record::Session(..) | Record::Packed(..) | Record::Allowance(..)) => {
                    self.memories.forget_bytes(key)
                }
                None => {
                    self.counters.unreadable += 1;
                    // An end without its last change would give again what it has given with that.
                    broken.extend(memory::changed_peer(&key));
                    self.memories.forget_bytes(key);
                }
            }
        }
        self.restore_packed(ends, changes, &broken);
        self.forget_sessions();
        self.remember_packed();
        let known = memories.iter().filter_map(|(key, _)| match key {
            MemoryKey::Context(number) => Some(*number),
            _ => None,
        });
        self.admit_begun(&known.collect(), now);
        self.endpoint.recall(memories, now);
        for (id, stored) in observations {
            self.restore_observation(id, *stored, now);
        }
        // Of one that was being registered, or whose record is not readable, only half may be known.
        let half_known = self.endpoint.observations().filter(|id| !self.observations.contains_key(id));
        for id in half_known.collect::<Vec<_>>() {
            self.end_half_known(id, now);
        }
        for feed in self.feeds.ids() {
            self.tend(feed, now);
        }
        if self.counters.unreadable > 0 {
            warn!(records = self.counters.unreadable, "stored records are of no use, and dropped");
        }
        info!(observations = self.observations.len(), sessions = self.sessions.len(), "state restored");
        self.drain(now);
    }

    /// Takes up the ends of the packed profile, each with what has changed of it since it was stored whole.
    fn restore_packed(
        &mut self,
        ends: Vec<(Association, Box<End>)>,
        mut changes: BTreeMap<Association, BTreeMap<u64, StoredChange>>,
        broken: &BTreeSet<Association>,
    ) {
        for (peer, end) in ends {
            let changes = changes.remove(&peer).unwrap_or_default();
            let numbers: Vec<u64> = changes.keys().copied().collect();
            let first = end.first_change;
            let redone = end.redone(changes).filter(|_| !broken.contains(&peer));
            let is_redone = redone.is_some();
            for number in numbers.into_iter().filter(|number| !is_redone || *number < first) {
                self.memories.forget(&Key::PackedChange(peer, number));
            }
            match redone {
                Some(end) => self.packed.restore(peer, end),
                // The peer begins anew.
                None => {
                    self.counters.unreadable += 1;
                    self.memories.forget(&Key::Packed(peer));
                }
            }
        }
        for (peer, changes) in changes {
            changes.into_keys().for_each(|number| self.memories.forget(&Key::PackedChange(peer, number)));
        }
    }

    /// Takes up an observation, if the endpoint knows it as well.
    fn restore_observation(&mut self, id: ObservationId, stored: StoredObservation, now: Instant) {
        let peer = stored.association;
        let call = feed_call(&stored).filter(|_| self.endpoint.association(id) == Some(peer));
        let Some(call) = call else {
            self.counters.unreadable += 1;
            self.endpoint.end_observation(id, now);
            return self.memories.forget(&Key::Observation(id));
        };
        let format = call.format;
        let message = stored.delta.as_ref().and_then(|delta| delta.message);
        if !self.packed.goes_on(peer, stored.format, message) {
            return self.drop_packed(id, now);
        }
        let shape = self.shaping.of(self.endpoint.link(peer));
        let served = self.devices.get(peer).filter(|_| !has_token(&call));
        let account = served.filter(|served| served.refresher.is_some()).map(|_| peer);
        let feed = self.feeds.of(call, shape, account, now);
        let told = stored.delta.as_ref().map(|delta| (delta.response(), delta.sequence));
        let next = stored.delta.map(|delta| delta.position.into());
        let position = stored.position.into();
        let (absent, known, is_new) = (stored.absent, stored.known, stored.is_new);
        let observation = Observation::restored(feed, peer, format, position, next, absent, known, is_new);
        self.counters.restored += 1;
        self.observe(id, observation);
        self.sent(id, message);
        self.wait_for(peer, now);
        if let Some((response, sequence)) = told {
            self.endpoint.notify_again(id, response, sequence, now);
        }
    }

    /// Stores an observation as it is now, with what its peer is being told.
    pub(super) fn remember(&mut self, id: ObservationId, told: Option<&coap::Response>) {
        if !self.outlasts(id) {
            return;
        }
        let Some(observation) = self.observations.get(&id) else { return };
        let Some(feed) = self.feeds.get(observation.feed) else { return };
        let next = observation.in_flight().map(StoredPosition::from);
        let sequence = self.endpoint.sequence(id).unwrap_or_default();
        let call = Arc::clone(&feed.call);
        let stored = StoredObservation {
            association: observation.association,
            path: call.target.path.clone(),
            query: call.query.clone(),
            authorization: call.authorization.clone(),
            format: StoredFormat::of(observation.format, self.packed.epoch(observation.association)),
            position: observation.position().into(),
            known: observation.known(),
            absent: observation.is_absent(),
            is_new: observation.is_new(),
            delta: told
                .zip(next)
                .map(|(response, next)| StoredDelta::new(response, sequence, next, observation.message)),
        };
        self.memories.store(&Key::Observation(id), &stored);
    }

    /// Has the records of sessions that were dropped taken away.
    pub(super) fn forget_sessions(&mut self) {
        while let Some(peer) = self.sessions.poll_dropped() {
            if self.config.endpoint.durable {
                self.memories.forget(&Key::Session(peer));
            }
        }
    }

    /// Whether an observation goes on after a restart.
    pub(super) fn outlasts(&self, id: ObservationId) -> bool {
        let is_passing =
            |observation: &Observation| matches!(observation.association, Association::Session(_));
        let of = self.observations.get(&id);
        self.config.endpoint.durable && !of.is_some_and(is_passing)
    }

    /// Asks nothing more for an observation, which is to go on after a restart.
    pub(super) fn pause(&mut self, id: ObservationId, now: Instant) {
        let Some(observation) = self.observations.get_mut(&id) else { return };
        let (feed, fetch) = (observation.feed, observation.pause());
        self.abandon(fetch);
        self.tend(feed, now);
    }
}

/// The call of an observation's feed; `None` where its path is none of `/sync`.
fn feed_call(stored: &StoredObservation) -> Option<Call> {
    let segments = matrix::split_path(&stored.path).ok()?;
    let segments: Vec<_> = segments.iter().map(String::as_str).collect();
    let call = Call {
        method: http::Method::GET,
        target: matrix::expand("GET", &segments).ok()?,
        query: stored.query.clone(),
        authorization: stored.authorization.clone(),
        body: bytes::Bytes::new(),
        format: stored.format.into(),
    };
    super::sync::is_sync(&call).then_some(call)
}

impl From<&Position> for StoredPosition {
    fn from(position: &Position) -> Self {
        let told = (position.told != position.since).then(|| position.told.clone());
        Self { since: position.since.clone(), told, counters: position.counters.clone() }
    }
}

impl From<StoredPosition> for Position {
    fn from(stored: StoredPosition) -> Self {
        let told = stored.told.unwrap_or_else(|| stored.since.clone());
        Self { since: stored.since, told, counters: stored.counters, checked: Checked::LONG_AGO }
    }
}
