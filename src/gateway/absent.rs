//! Observers that do not answer: kept, asked ever more rarely whether they are there, and told anew once they are.

use std::collections::BTreeMap;

use tracing::{debug, info};

use super::observation::Observation;
use super::{Fetch, Gateway};
use crate::coap::{Instant, ObservationId};
use crate::endpoint::Association;

impl Gateway {
    /// A notification was not acknowledged. It is given up, and made anew from the position that the peer has once that is heard of:
    /// what comes meanwhile the homeserver puts together.
    ///
    /// MSC3079 has the registration removed instead. A peer whose link was away for a while cannot know that, and would wait for news
    /// until it asks by itself.
    pub(super) fn undelivered(&mut self, id: ObservationId, now: Instant) {
        let Some(observation) = self.observations.get_mut(&id) else { return };
        debug!(remote = ?observation.association, "observer does not answer");
        self.counters.undelivered += 1;
        observation.leave();
        let peer = observation.association;
        self.remember(id, None);
        self.wait_for(peer, now);
        // Its other observations need not find out for themselves.
        self.leave_idle(peer, now);
    }

    /// A peer is not there: what is new for its observations that wait is for when it is again.
    pub(super) fn leave_idle(&mut self, peer: Association, now: Instant) {
        let idle: Vec<_> = self.observations_of(peer).filter(|(_, other)| other.is_idle()).collect();
        for id in idle.into_iter().map(|(id, _)| id).collect::<Vec<_>>() {
            let Some(observation) = self.observations.get_mut(&id) else { continue };
            observation.leave();
            let feed = observation.feed;
            self.remember(id, None);
            self.tend(feed, now);
        }
    }

    /// Ends the observations that a new one takes the place of, of the same events by the same user: the peer has registered anew
    /// because it has lost them, or has heard nothing, and what they still have to say only holds up the rest. They are
    ///
    /// * absent, or back and without a word so far, and of the same peer, or of another address with the same token of CoAP: a peer that was absent may have been
    ///   given another address meanwhile;
    /// * or of the same peer, which has not acknowledged what they were told for so long that no registration of before that can
    ///   still be under way. Of two registrations the older may come later.
    pub(super) fn replace_lost(&mut self, id: ObservationId, now: Instant) {
        let (peer, token) = (self.endpoint.association(id), self.endpoint.token(id));
        let reordering = peer.and_then(|peer| self.endpoint.reordering(peer)).unwrap_or_default();
        self.replace(id, now, |gateway, other, old| {
            let same_peer = Some(old.association) == peer;
            let long_ago = |since: Instant| now.since(since) > reordering;
            old.is_doubtful() && (same_peer || gateway.endpoint.token(other) == token)
                || same_peer && old.unacknowledged_since().is_some_and(long_ago)
        });
    }

    /// Ends the older observations of the same peer, of the same events by the same user, that do not answer while this one has. What
    /// they may still be told is given time, but where this one is new and they are what it is instead of.
    pub(super) fn replace_unacknowledged(&mut self, id: ObservationId, is_new: bool, now: Instant) {
        let peer = self.endpoint.association(id);
        self.replace(id, now, |_, other, old| {
            let lost = old.is_absent() || is_new && old.in_flight().is_some();
            other < id && Some(old.association) == peer && lost
        });
    }

    fn replace(
        &mut self,
        id: ObservationId,
        now: Instant,
        is_old: impl Fn(&Self, ObservationId, &Observation) -> bool,
    ) {
        let feed = self.observations.get(&id).and_then(|new| self.feeds.get(new.feed));
        let others = feed.into_iter().flat_map(|feed| &feed.observers).filter(|other| **other != id);
        let old = others.filter(|other| {
            self.observations.get(other).is_some_and(|observation| is_old(self, **other, observation))
        });
        for old in old.copied().collect::<Vec<_>>() {
            self.counters.replaced += 1;
            self.endpoint.end_observation(old, now);
            self.forget_observation(old, now);
        }
    }

    /// The observations of a peer.
    pub(super) fn observations_of(
        &self,
        peer: Association,
    ) -> impl Iterator<Item = (ObservationId, &Observation)> {
        let all = self.observers.range((peer, ObservationId(0))..=(peer, ObservationId(u64::MAX)));
        all.filter_map(|(_, id)| Some((*id, self.observations.get(id)?)))
    }

    /// Has a peer that does not answer asked after a while whether it is there.
    pub(super) fn wait_for(&mut self, peer: Association, now: Instant) {
        // Its observations may have ended while it was being asked.
        if self.observations_of(peer).any(|(_, observation)| observation.is_absent()) {
            self.absences.wait(peer, self.config.probe_first, self.config.probe_longest, now);
        }
    }

    /// Asks a peer whether it is there; the endpoint says what comes of it. Who was not heard of for too long is forgotten.
    pub(super) fn probe(&mut self, peer: Association, now: Instant) {
        let lifetime = self.config.absent_lifetime;
        let is_over = |observation: &Observation| now.since(observation.known()) >= lifetime;
        let absent = self.observations_of(peer).filter(|(_, observation)| observation.is_absent());
        let over = absent.filter(|(_, observation)| is_over(observation)).map(|(id, _)| id);
        for id in over.collect::<Vec<_>>() {
            info!("observation forgotten: its peer was not heard of for {} h", lifetime.as_secs() / 3600);
            self.counters.forgotten += 1;
            self.endpoint.end_observation(id, now);
            self.forget_observation(id, now);
        }
        if self.absences.contains(peer) {
            self.counters.probes += 1;
            self.endpoint.probe(peer, now);
        }
    }

    /// A peer that did not answer was heard of: its observers ask at once what they have missed. Of several of the same events only the
    /// newest does, and no other until that one has acknowledged by its own token, or is gone: the peer has most likely lost the others,
    /// and blocks of what they are told could not be told apart. None does while the peer registers anew, which may take their place.
    pub(super) fn reachable(&mut self, peer: Association, now: Instant) {
        if self.is_registering(peer) {
            return;
        }
        self.absences.rest(peer);
        let mut newest = BTreeMap::new();
        for (id, observation) in self.observations_of(peer) {
            let (newest, busy) = newest.entry(observation.feed).or_insert((None, false));
            *busy |= observation.is_busy() || !observation.is_absent() && !self.endpoint.is_confirmed(id);
            // They come in the order of their registration.
            *newest = Some(id).filter(|_| observation.is_absent()).or(*newest);
        }
        let back = newest.into_values().filter(|(_, busy)| !busy).filter_map(|(newest, _)| newest);
        for id in back.collect::<Vec<_>>() {
            let Some(observation) = self.observations.get_mut(&id) else { continue };
            observation.come_back(now);
            let feed = observation.feed;
            self.remember(id, None);
            self.tend(feed, now);
        }
    }

    /// Whether a registration of a peer with absent observers is on its way to the homeserver.
    fn is_registering(&self, peer: Association) -> bool {
        let registers =
            |fetch: &Fetch| matches!(fetch, Fetch::Registration { association, .. } if *association == peer);
        self.observations_of(peer).any(|(_, observation)| observation.is_absent())
            && self.fetches.values().any(registers)
    }
}
