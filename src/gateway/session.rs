//! What is remembered of each peer between its requests (MSC3079: the sticky access token and table version).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::coap::Instant;
use crate::endpoint::Association;
use crate::translate::Session;

/// The sessions of all peers, bounded in number and in time.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: BTreeMap<Association, (Session, Instant)>,
    /// The same, the one unused for longest first.
    used: BTreeSet<(Instant, Association)>,
    /// Those that were dropped and not told of.
    dropped: Vec<Association>,
    limit: usize,
    lifetime: Duration,
}

impl Sessions {
    pub(super) fn new(limit: usize, lifetime: Duration) -> Self {
        Self {
            sessions: BTreeMap::new(),
            used: BTreeSet::new(),
            dropped: Vec::new(),
            limit: limit.max(1),
            lifetime,
        }
    }

    /// The session of a peer, a new one if it has none; the one unused for longest makes room for it.
    pub(super) fn of(&mut self, association: Association, now: Instant) -> &mut Session {
        if !self.sessions.contains_key(&association) && self.sessions.len() >= self.limit {
            self.drop_first();
        }
        let (session, used) = self.sessions.entry(association).or_insert_with(|| (Session::default(), now));
        self.used.remove(&(*used, association));
        self.used.insert((now, association));
        *used = now;
        session
    }

    /// Forgets the session of a peer that is gone for good, and was not stored.
    pub(super) fn remove(&mut self, association: Association) {
        if let Some((_, used)) = self.sessions.remove(&association) {
            self.used.remove(&(used, association));
        }
    }

    /// Drops the sessions that were not used in a lifetime.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.drop_first();
        }
    }

    /// Drops the session of a peer.
    pub(super) fn forget(&mut self, association: Association) {
        if let Some((_, used)) = self.sessions.remove(&association) {
            self.used.remove(&(used, association));
            self.dropped.push(association);
        }
    }

    /// A session that was dropped.
    pub(super) fn poll_dropped(&mut self) -> Option<Association> {
        self.dropped.pop()
    }

    /// When [`Sessions::expire`] next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.used.first().map(|(used, _)| *used + self.lifetime)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn drop_first(&mut self) {
        if let Some((_, association)) = self.used.pop_first() {
            self.sessions.remove(&association);
            self.dropped.push(association);
        }
    }
}
