//! One observation of `/sync`: what its peer has, and what comes next (RFC 7641; MSC3079, "HTTP long-polling -> CoAP OBSERVE").
//!
//! Knows nothing of messages and HTTP: it says what to do, and the gateway does it.

use std::time::Duration;

use super::FetchId;
use crate::coap::Instant;
use crate::matrix::sync::{Counters, Summary};
use crate::translate::Call;

/// An observer's place in the stream of its user's events.
///
/// ```text
///               ┌──────────── nothing new, or no answer ─────────────┐
///               ▼                                                    │
///  Waiting ── due ──▶ Polling ── something new ──▶ InFlight ── acknowledged ──▶ (due at once)
///                                                      └────── not acknowledged ──▶ gone
/// ```
#[derive(Debug)]
pub(super) struct Observation {
    /// The registration, from which every poll is made.
    pub(super) call: Call,
    /// The position after what the peer has acknowledged, moved on by answers with nothing in them.
    position: Position,
    state: State,
    /// Polls in a row that failed.
    failures: u32,
    /// When the last poll began.
    polled: Instant,
    /// When the peer was last known to be there: it registered, or acknowledged.
    known: Instant,
}

/// A place in the stream, and the counters last stated to the peer there.
#[derive(Clone, Debug, Default)]
struct Position {
    since: String,
    counters: Counters,
}

#[derive(Debug)]
enum State {
    /// The next poll begins then.
    Waiting(Instant),
    /// The homeserver has been asked.
    Polling(FetchId),
    /// The peer has been told, and is after this once it has acknowledged.
    InFlight(Position),
}

/// What an answer of the homeserver's means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is for the peer: there is something new in it, or the peer has not been heard of for a day.
    Notify,
    /// There is nothing in it.
    Nothing,
}

impl Observation {
    /// The shortest time between two polls of which the first had nothing new.
    const SHORTEST_IDLE_POLL: Duration = Duration::from_secs(1);
    /// The waits after a failure, doubled up to the longest.
    const FIRST_RETRY: Duration = Duration::from_secs(1);
    const LONGEST_RETRY: Duration = Duration::from_secs(60);
    /// RFC 7641 §4.5: at least so often a server asks, by a notification, whether the client is still there.
    const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3600);

    /// An observation whose registration is being answered with this.
    pub(super) fn new(call: Call, first: Summary, now: Instant) -> Self {
        let position = Position { since: first.next_batch, counters: first.counters };
        Self {
            call,
            position: Position::default(),
            state: State::InFlight(position),
            failures: 0,
            polled: now,
            known: now,
        }
    }

    /// Where the next poll begins.
    pub(super) fn since(&self) -> &str {
        &self.position.since
    }

    /// When the next poll is due, if none is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(due) => Some(due),
            State::Polling(_) | State::InFlight(_) => None,
        }
    }

    /// The poll under way.
    pub(super) fn polling(&self) -> Option<FetchId> {
        match self.state {
            State::Polling(fetch) => Some(fetch),
            State::Waiting(_) | State::InFlight(_) => None,
        }
    }

    /// Says that a poll began.
    pub(super) fn polls(&mut self, fetch: FetchId, now: Instant) {
        self.state = State::Polling(fetch);
        self.polled = now;
    }

    /// Takes in what a poll came to.
    pub(super) fn answered(&mut self, summary: Summary, now: Instant) -> Verdict {
        self.failures = 0;
        let long_silent = now.since(self.known) >= Self::LONGEST_SILENCE;
        if summary.is_empty_since(&self.position.counters) && !long_silent {
            // A position that moved with nothing in it stays here: telling the peer would cost air and say nothing.
            self.position.since = summary.next_batch;
            self.state = State::Waiting(now.max(self.polled + Self::SHORTEST_IDLE_POLL));
            return Verdict::Nothing;
        }
        let mut counters = self.position.counters.clone();
        counters.merge(&summary.counters);
        self.state = State::InFlight(Position { since: summary.next_batch, counters });
        Verdict::Notify
    }

    /// Says that the poll failed, and will be tried again: after `wait` where the homeserver gave one, but never at once.
    pub(super) fn failed(&mut self, wait: Option<Duration>, now: Instant) {
        let doubled = Self::FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let wait = wait.map_or(doubled.min(Self::LONGEST_RETRY), |wait| wait.max(Self::FIRST_RETRY));
        self.state = State::Waiting(now + wait);
    }

    /// Says that the peer has acknowledged all of what it was told: only now does its position move.
    pub(super) fn delivered(&mut self, now: Instant) {
        if let State::InFlight(position) = &mut self.state {
            self.position = std::mem::take(position);
            self.known = now;
            self.state = State::Waiting(now);
        }
    }
}
