//! One observation of `/sync`: what its peer has, and what comes next (RFC 7641; MSC3079, "HTTP long-polling -> CoAP OBSERVE").
//!
//! Knows nothing of messages and HTTP: it says what to do, and the gateway does it.

use std::time::Duration;

use super::FetchId;
use super::feed::{Checked, FeedId};
use crate::coap::{Instant, Priority};
use crate::endpoint::Association;
use crate::matrix::sync::{Counters, Summary};
use crate::packed::MessageNumber;
use crate::translate::Format;

/// An observer's place in the stream of its user's events.
///
/// ```text
///    ┌───────────────────── acknowledged ──────────────────────┐
///    ▼                                                         │
///  Idle ───────────── news of the feed ──────────────────▶ InFlight ── not acknowledged ──▶ Absent
///  │ │ ▲                                                       ▲                            ▲ │
///  │ │ └── nothing new, or no answer ──┐                       │                            │ │
///  │ └── behind its feed ──▶ CatchingUp ── something new ──────┘     heard of ──▶ Idle ◀─────┼─┘
///  └── another observation of its peer is not acknowledged ──────────────────────────────────┘
/// ```
#[derive(Debug)]
pub(super) struct Observation {
    /// What it observes.
    pub(super) feed: FeedId,
    /// Whose it is.
    pub(super) association: Association,
    /// How its notifications are written.
    pub(super) format: Format,
    /// The position after what the peer has acknowledged, moved on by answers with nothing in them.
    position: Position,
    state: State,
    /// When the peer was last known to be there: it registered, acknowledged, or was heard of after an absence.
    known: Instant,
    /// When the peer was last told something.
    told: Instant,
    /// Whether the answer to its registration is still to be acknowledged.
    is_new: bool,
    /// Whether the peer was absent, and has acknowledged nothing since.
    is_unconfirmed: bool,
    /// What it was told last, where that was packed.
    pub(super) message: Option<MessageNumber>,
}

/// A place in the stream, and the counters last stated to the peer there.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) since: String,
    /// The last position that the peer was told: nothing new came since.
    pub(super) told: String,
    pub(super) counters: Counters,
    /// When it was last known that there is nothing after it.
    pub(super) checked: Checked,
}

#[derive(Debug)]
enum State {
    /// The peer has all that it was told, and waits for what its feed brings.
    Idle,
    /// The homeserver has been asked what there is for this observer alone.
    CatchingUp(FetchId),
    /// The peer has been told, and is after this once it has acknowledged.
    InFlight(Box<Position>),
    /// The peer has not acknowledged. It is told anew, from the position, once it is heard of.
    Absent,
}

/// What an answer of the homeserver's means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is for the peer: there is something new in it, which is so pressing, or the peer has acknowledged nothing for a day.
    Notify(Priority),
    /// There is nothing in it.
    Nothing,
}

impl Observation {
    /// RFC 7641 §4.5: at least so often a server asks, by a notification, whether the client is still there.
    const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3600);

    /// An observation whose registration from `since` is being answered with this, by a call of that time; from nothing where that is
    /// empty.
    pub(super) fn new(
        feed: FeedId,
        association: Association,
        format: Format,
        since: String,
        first: Summary,
        checked: Checked,
        now: Instant,
    ) -> Self {
        let told = first.next_batch.clone();
        let next = Position { since: first.next_batch, told, counters: first.counters, checked };
        let position = Position { told: since.clone(), since, counters: Counters::default(), checked };
        let state = State::InFlight(Box::new(next));
        Self {
            feed,
            association,
            format,
            position,
            state,
            known: now,
            told: now,
            is_new: true,
            is_unconfirmed: false,
            message: None,
        }
    }

    /// An observation of before a restart, whose peer has what is before `position`. It is at `next` once it has acknowledged what it
    /// was told then; where there is none, the peer may be absent.
    #[expect(clippy::too_many_arguments, reason = "a list of what was stored")]
    pub(super) fn restored(
        feed: FeedId,
        association: Association,
        format: Format,
        position: Position,
        next: Option<Position>,
        absent: bool,
        known: Instant,
        is_new: bool,
    ) -> Self {
        let state = match next {
            Some(next) => State::InFlight(Box::new(next)),
            None if absent => State::Absent,
            None => State::Idle,
        };
        let (told, is_unconfirmed, message) = (known, false, None);
        Self { feed, association, format, position, state, known, told, is_new, is_unconfirmed, message }
    }

    /// The position after what its peer was told and has not acknowledged.
    pub(super) fn in_flight(&self) -> Option<&Position> {
        match &self.state {
            State::InFlight(next) => Some(next),
            State::Idle | State::CatchingUp(_) | State::Absent => None,
        }
    }

    /// Whether its notifications are packed.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.format, Format::Packed(_))
    }

    /// The position that the next poll begins from.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Whether it waits for its feed.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether its peer does not answer.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.state, State::Absent)
    }

    /// Whether its peer may have lost it: that does not answer, or was heard of since and has acknowledged nothing.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_absent() || self.is_unconfirmed
    }

    /// Whether its peer is being told something, or is about to be.
    pub(super) fn is_busy(&self) -> bool {
        match self.state {
            State::InFlight(_) | State::CatchingUp(_) => true,
            State::Idle => self.is_unconfirmed,
            State::Absent => false,
        }
    }

    /// When the peer was told what it has not acknowledged.
    pub(super) fn unacknowledged_since(&self) -> Option<Instant> {
        self.in_flight().map(|_| self.told)
    }

    /// When the peer was last known to be there.
    pub(super) fn known(&self) -> Instant {
        self.known
    }

    /// The poll under way for it alone.
    pub(super) fn catching_up(&self) -> Option<FetchId> {
        match self.state {
            State::CatchingUp(fetch) => Some(fetch),
            State::Idle | State::InFlight(_) | State::Absent => None,
        }
    }

    /// Says that a poll for it alone began.
    pub(super) fn catches_up(&mut self, fetch: FetchId) {
        self.state = State::CatchingUp(fetch);
    }

    /// Takes in what a poll from its position came to, by a call of that time.
    pub(super) fn answered(&mut self, summary: &Summary, checked: Checked, now: Instant) -> Verdict {
        if summary.is_empty_since(&self.position.counters) && !self.is_long_silent(now) {
            // A position that moved with nothing in it stays here: telling the peer would cost air and say nothing.
            self.position.since.clone_from(&summary.next_batch);
            self.position.checked = checked;
            self.state = State::Idle;
            return Verdict::Nothing;
        }
        let priority = match summary.is_passing_since(&self.position.counters) {
            true => Priority::Background,
            false => Priority::Notification,
        };
        let mut counters = self.position.counters.clone();
        counters.merge(&summary.counters);
        let (since, told) = (summary.next_batch.clone(), summary.next_batch.clone());
        self.state = State::InFlight(Box::new(Position { since, told, counters, checked }));
        self.told = now;
        Verdict::Notify(priority)
    }

    /// Says that a poll for it alone failed: there may be something after its position.
    pub(super) fn failed(&mut self) {
        self.state = State::Idle;
        self.position.checked.outdate();
    }

    /// Says that there may be something after its position, seen by another.
    pub(super) fn outdate(&mut self) {
        self.position.checked.outdate();
    }

    /// Says that there is nothing after its position, seen by another at that time.
    pub(super) fn checked(&mut self, checked: Checked, now: Instant) {
        self.position.checked = checked;
        if self.is_long_silent(now) {
            self.outdate();
        }
    }

    /// Whether the answer to its registration is still to be acknowledged.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Says that the peer has acknowledged all of what it was told: only now does its position move.
    pub(super) fn delivered(&mut self, now: Instant) {
        if let State::InFlight(position) = &mut self.state {
            std::mem::swap(&mut self.position, position);
            self.state = State::Idle;
            self.known = now;
            self.is_new = false;
            self.is_unconfirmed = false;
        }
    }

    /// Says that nothing more is asked for it; returns the poll under way for it alone.
    pub(super) fn pause(&mut self) -> Option<FetchId> {
        let fetch = self.catching_up()?;
        self.failed();
        Some(fetch)
    }

    /// Says that the peer does not answer. What it was told is given up, and made anew from the position that it has.
    pub(super) fn leave(&mut self) {
        self.state = State::Absent;
        self.position.checked.outdate();
    }

    /// Says that the peer is there again.
    pub(super) fn come_back(&mut self, now: Instant) {
        self.state = State::Idle;
        self.known = now;
        self.is_unconfirmed = true;
    }

    fn is_long_silent(&self, now: Instant) -> bool {
        now.since(self.known) >= Self::LONGEST_SILENCE
    }
}
