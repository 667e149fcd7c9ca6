//! One feed: the events that several observers wait for, and the one long poll that waits for all of them.
//!
//! Positions are opaque: of two different ones nobody can say which is the later. So each carries when it was known that
//! nothing comes after it, and an observer rests only while a poll is under way, or due, from a position that is not later
//! than its own in that sense. Whoever cannot know that is behind, and asks for itself.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::FetchId;
use super::observation::{Observation, Position};
use super::shaping::ShapeId;
use crate::coap::{Instant, ObservationId};
use crate::endpoint::Association;
use crate::translate::Call;

/// All feeds, and when each next has something to do.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    feeds: BTreeMap<FeedId, Feed>,
    by_key: BTreeMap<Key, FeedId>,
    due: BTreeSet<(Instant, FeedId)>,
    next: u64,
}

/// A feed, never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FeedId(u64);

/// The events that one call of `/sync` brings, and who waits for them.
#[derive(Debug)]
pub(super) struct Feed {
    /// The call, without a position and a wait; its format is that of whoever came first.
    pub(super) call: Arc<Call>,
    /// What is left out of its answers.
    pub(super) shape: Option<ShapeId>,
    /// The device whose token it is asked for with, where it is not in the call.
    pub(super) account: Option<Association>,
    /// All who observe it.
    pub(super) observers: BTreeSet<ObservationId>,
    /// The long poll under way.
    pub(super) poll: Option<Poll>,
    /// Whose position the last long poll began from.
    leader: Option<ObservationId>,
    /// When the last long poll began.
    began: Instant,
    /// No long poll begins before, and after a failure no other.
    resume: Instant,
    /// Calls in a row that failed.
    failures: u32,
    due: Option<Instant>,
}

/// A long poll.
#[derive(Clone, Debug)]
pub(super) struct Poll {
    /// The call.
    pub(super) fetch: FetchId,
    /// Where it began.
    pub(super) from: Start,
}

/// Where a long poll begins.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The position.
    pub(super) since: String,
    /// When it was last known that there is nothing after it.
    checked: Checked,
}

/// When it was known that nothing comes after a position: by a call of this number, which ended before the second began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    began: u64,
    ended: u64,
}

/// What makes a feed: the same events for the same user, of which the same is left out, however they are written.
#[derive(Clone, Debug)]
struct Key(Arc<Call>, Option<ShapeId>, Option<Association>);

impl Feeds {
    /// The feed of a call without position and wait, a new one if there is none.
    pub(super) fn of(
        &mut self,
        call: Call,
        shape: Option<ShapeId>,
        account: Option<Association>,
        now: Instant,
    ) -> FeedId {
        let call = Arc::new(call);
        let key = Key(Arc::clone(&call), shape, account);
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = FeedId(self.next);
        self.next += 1;
        self.by_key.insert(key, id);
        self.feeds.insert(id, Feed::new(call, shape, account, now));
        id
    }

    /// The feed of a call, where there is one.
    pub(super) fn find(
        &self,
        call: &Call,
        shape: Option<ShapeId>,
        account: Option<Association>,
    ) -> Option<FeedId> {
        self.by_key.get(&Key(Arc::new(call.clone()), shape, account)).copied()
    }

    pub(super) fn get(&self, id: FeedId) -> Option<&Feed> {
        self.feeds.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: FeedId) -> Option<&mut Feed> {
        self.feeds.get_mut(&id)
    }

    /// Forgets a feed.
    pub(super) fn remove(&mut self, id: FeedId) -> Option<Feed> {
        self.schedule(id, None);
        let feed = self.feeds.remove(&id)?;
        self.by_key.remove(&Key(Arc::clone(&feed.call), feed.shape, feed.account));
        Some(feed)
    }

    /// Says when a feed next has something to do.
    pub(super) fn schedule(&mut self, id: FeedId, due: Option<Instant>) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        if let Some(old) = feed.due.take() {
            self.due.remove(&(old, id));
        }
        feed.due = due;
        self.due.extend(due.map(|due| (due, id)));
    }

    /// A feed that has something to do by now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<FeedId> {
        let (_, id) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        self.schedule(id, None);
        Some(id)
    }

    /// When a feed next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// All of them.
    pub(super) fn ids(&self) -> Vec<FeedId> {
        self.feeds.keys().copied().collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.feeds.len()
    }
}

impl Feed {
    /// The shortest time between two long polls of which the first had nothing new.
    const SHORTEST_IDLE_POLL: Duration = Duration::from_secs(1);
    /// The waits after a failure, doubled up to the longest.
    const FIRST_RETRY: Duration = Duration::from_secs(1);
    const LONGEST_RETRY: Duration = Duration::from_secs(60);
    /// The longest that a homeserver may have itself waited for.
    const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

    fn new(call: Arc<Call>, shape: Option<ShapeId>, account: Option<Association>, now: Instant) -> Self {
        Self {
            call,
            shape,
            account,
            observers: BTreeSet::new(),
            poll: None,
            leader: None,
            began: now,
            resume: now,
            failures: 0,
            due: None,
        }
    }

    /// Of those who wait, the one whose position the next long poll begins from: the one that was checked first. Of several the last
    /// leader, whose position is fresh.
    pub(super) fn choose<'a>(
        &self,
        waiting: impl Iterator<Item = (ObservationId, &'a Observation)>,
    ) -> Option<(ObservationId, Start)> {
        let order = |(id, observation): &(ObservationId, &Observation)| {
            (observation.position().checked.ended, self.leader != Some(*id), *id)
        };
        let (id, observation) = waiting.min_by_key(order)?;
        Some((id, Start::of(observation.position())))
    }

    /// Says that a long poll began from the position of this observer.
    pub(super) fn polls(&mut self, leader: ObservationId, poll: Poll, now: Instant) {
        self.leader = Some(leader);
        self.poll = Some(poll);
        self.began = now;
    }

    /// Says that a call was answered.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
    }

    /// Says that the long poll had nothing new, so that another does not follow in a hurry.
    pub(super) fn was_idle(&mut self, now: Instant) {
        self.resume = now.max(self.began + Self::SHORTEST_IDLE_POLL);
    }

    /// Says that a call failed, and the next is to begin after `wait` where the homeserver gave one, but never at once.
    pub(super) fn failed(&mut self, wait: Option<Duration>, now: Instant) {
        let wait = match wait {
            Some(wait) => wait.clamp(Self::FIRST_RETRY, Self::LONGEST_RETRY_AFTER),
            // Of several calls that fail together one counts.
            None if self.is_holding_off(now) => return,
            None => {
                let doubled = Self::FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
                doubled.min(Self::LONGEST_RETRY)
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.resume = self.resume.max(now + wait);
    }

    /// When the next long poll may begin.
    pub(super) fn resume(&self) -> Instant {
        self.resume
    }

    /// Whether a failure keeps all calls back.
    pub(super) fn is_holding_off(&self, now: Instant) -> bool {
        self.failures > 0 && now < self.resume
    }
}

impl Key {
    fn parts(&self) -> (&Option<HeaderValue>, &str, &[String], Option<ShapeId>, Option<Association>) {
        (&self.0.authorization, &self.0.target.path, &self.0.query, self.1, self.2)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl Start {
    fn of(position: &Position) -> Self {
        Self { since: position.since.clone(), checked: position.checked }
    }

    /// Whether what comes after `position` also comes after this: then who is there may rest while a poll from here waits.
    pub(super) fn covers(&self, position: &Position) -> bool {
        self.since == position.since || self.checked.covers(position.checked)
    }
}

impl Checked {
    /// By this call, when the next will have the number `next`.
    pub(super) fn by(FetchId(began): FetchId, next: u64) -> Self {
        Self { began, ended: next }
    }

    /// Before all calls.
    pub(super) const LONG_AGO: Self = Self { began: 0, ended: 1 };

    /// Says that there may be something new since.
    pub(super) fn outdate(&mut self) {
        self.began = 0;
    }

    fn covers(self, other: Self) -> bool {
        other.began > 0 && (self == other || self.ended <= other.began)
    }
}
