//! What must hold in every run, checked from outside: knows the homeserver, what devices say of themselves, and when the gateway
//! was killed; nothing of the gateway's state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::channel::PeerNumber;
use super::homeserver::{Homeserver, Reached};
use crate::coap::Instant;
use crate::security::oscore::Used;

/// The oracle of a run.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    attempts: BTreeMap<Attempt, Sent>,
    /// How far each device has come in each room, as the place of the last event.
    places: BTreeMap<(PeerNumber, String), usize>,
    /// What messages were sealed with.
    nonces: BTreeSet<Used>,
    /// What may be done twice: its device has forgotten which transaction it was.
    lost: BTreeSet<(String, String)>,
    tally: Tally,
    violations: Vec<Violation>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// When it was noticed.
    #[serde(rename = "at_ms", serialize_with = "super::traffic::moment")]
    pub at: Instant,
    /// What it is.
    pub what: String,
}

/// What became of what was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests that devices made to send messages and the like; a message whose request failed is in several.
    pub requests: u64,
    /// Those that failed, or were forgotten by their device.
    pub failed: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Requests that reached the homeserver again after the gateway was killed, or the device moved, without effect.
    pub repeated_after_break: u64,
    /// The same of requests that devices made again after a failure.
    pub repeated_by_device: u64,
    /// Events that devices have got, each once.
    pub events: u64,
    /// Events that they got again.
    pub events_again: u64,
    /// Gaps that the homeserver, or the gateway, had declared.
    pub gaps: u64,
    /// Messages that were sealed, each under a nonce of its own.
    pub sealed: u64,
    /// Datagrams that an attacker said again, or changed.
    pub attacks: u64,
    /// The longest time from a request to its end.
    #[serde(rename = "longest_request_ms", serialize_with = "super::traffic::milliseconds")]
    pub longest_request: Duration,
}

/// A request with a message, or another that makes something: whose it is, and which attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// The sender.
    pub user: String,
    /// The transaction, the same in all attempts.
    pub transaction: String,
    /// The first is 1.
    pub number: u32,
}

/// What became of an attempt.
#[derive(Debug, Default)]
struct Sent {
    /// How often it reached the homeserver.
    reached: u32,
    /// How often the gateway was killed while it could not know whether it had passed it on, or the device's address changed.
    breaks: u32,
}

impl Oracle {
    /// Says that something is wrong.
    pub(super) fn violated(&mut self, what: String, now: Instant) {
        // The first ones tell; the rest follows from them.
        if self.violations.len() < 20 {
            self.violations.push(Violation { at: now, what });
        }
    }

    /// A device made a request.
    pub(super) fn asked(&mut self, attempt: Attempt) {
        self.attempts.insert(attempt, Sent::default());
        self.tally.requests += 1;
    }

    /// A request of a device's has ended, with or without an answer.
    pub(super) fn ended(&mut self, user: &str, took: Duration, limit: Duration, now: Instant) {
        self.tally.longest_request = self.tally.longest_request.max(took);
        if took > limit {
            let what =
                format!("a request of {user} took {} s, more than {} s", took.as_secs(), limit.as_secs());
            self.violated(what, now);
        }
    }

    /// It was answered with the id of what it has made.
    pub(super) fn answered(
        &mut self,
        attempt: &Attempt,
        id: Option<&str>,
        homeserver: &Homeserver,
        now: Instant,
    ) {
        self.tally.answered += 1;
        if !id.is_some_and(|id| homeserver.has_made(attempt, id)) {
            let Attempt { user, transaction, .. } = attempt;
            self.violated(
                format!("{user}'s {transaction} is answered with {id:?}, which is not what it has made"),
                now,
            );
        }
    }

    /// It has failed, or was forgotten by its device.
    pub(super) fn failed(&mut self) {
        self.tally.failed += 1;
    }

    /// The gateway was killed, and cannot know of these whether it has passed them on.
    pub(super) fn killed<'a>(&mut self, under_way: impl IntoIterator<Item = &'a Attempt>) {
        for attempt in under_way {
            self.attempts.entry(attempt.clone()).or_default().breaks += 1;
        }
    }

    /// The gateway was killed, and has stored nothing: a copy of whatever was asked may still be on its way.
    pub(super) fn killed_without_a_trace(&mut self) {
        self.attempts.values_mut().for_each(|sent| sent.breaks += 1);
    }

    /// A device has a new address: as long as that stands for who it is, what it repeats comes from somebody else.
    pub(super) fn moved(&mut self, user: &str) {
        let own = self.attempts.iter_mut().filter(|(attempt, _)| attempt.user == user);
        own.for_each(|(_, sent)| sent.breaks += 1);
    }

    /// A device has forgotten what its transactions are to the gateway.
    pub(super) fn lost(&mut self, user: &str) {
        let own = self.attempts.keys().filter(|attempt| attempt.user == user);
        self.lost.extend(own.map(|attempt| (attempt.user.clone(), attempt.transaction.clone())));
    }

    /// A request has reached the homeserver: none may do so twice, unless the gateway was killed before it knew the answer, or the
    /// device moved; and even then without effect, which the transaction id sees to.
    pub(super) fn reached(&mut self, reached: &Reached, now: Instant) {
        let Reached { attempt, is_new, is_again } = reached;
        let Attempt { user, transaction, number } = attempt;
        let Some(sent) = self.attempts.get_mut(attempt) else {
            let what = format!(
                "{user}'s {transaction}, attempt {number}, reached the homeserver, and was never made"
            );
            return self.violated(what, now);
        };
        sent.reached += 1;
        if *is_again && !self.lost.contains(&(user.clone(), transaction.clone())) {
            let what = format!("{user}'s {transaction} was done again, under another id");
            return self.violated(what, now);
        }
        if !is_new {
            match sent.reached {
                1 => self.tally.repeated_by_device += 1,
                _ => self.tally.repeated_after_break += 1,
            }
        }
        if sent.reached > 1 + sent.breaks {
            let what = format!(
                "{user}'s {transaction}, attempt {number}, reached the homeserver {} times, with {} kills and moves meanwhile",
                sent.reached, sent.breaks
            );
            self.violated(what, now);
        }
    }

    /// A message was sealed, and may leave: no nonce is used for two.
    pub(super) fn sealed(&mut self, used: Used, now: Instant) {
        self.tally.sealed += 1;
        if let Some(used) = self.nonces.replace(used) {
            self.violated(format!("a nonce was used twice: {used:02x?}"), now);
        }
    }

    /// An attacker has said something.
    pub(super) fn attacked(&mut self) {
        self.tally.attacks += 1;
    }

    /// A device has applied a delta: each room goes on where it was.
    pub(super) fn delta(&mut self, peer: PeerNumber, delta: &Value, homeserver: &Homeserver, now: Instant) {
        let Some(rooms) = delta.pointer("/rooms/join").and_then(Value::as_object) else { return };
        for (name, room) in rooms {
            let is_limited = room.pointer("/timeline/limited").and_then(Value::as_bool) == Some(true);
            let events = room.pointer("/timeline/events").and_then(Value::as_array);
            let mut may_skip = is_limited;
            for event in events.into_iter().flatten() {
                let id = event.get("event_id").and_then(Value::as_str).unwrap_or_default();
                self.event(peer, name, id, &mut may_skip, homeserver, now);
            }
        }
    }

    fn event(
        &mut self,
        peer: PeerNumber,
        room: &str,
        id: &str,
        may_skip: &mut bool,
        homeserver: &Homeserver,
        now: Instant,
    ) {
        let Some(place) = homeserver.place(room, id) else {
            return self.violated(format!("peer {peer} was told of {id} in {room}, which is not there"), now);
        };
        let next = self.places.get(&(peer, room.to_owned())).map_or(0, |last| last + 1);
        if place < next {
            self.tally.events_again += 1;
            return;
        }
        match place - next {
            0 => {}
            _ if *may_skip => self.tally.gaps += 1,
            missing => {
                self.violated(format!("peer {peer} misses {missing} events of {room} before {id}"), now)
            }
        }
        *may_skip = false;
        self.tally.events += 1;
        self.places.insert((peer, room.to_owned()), place);
    }

    /// At the end a device has everything that its rooms have.
    pub(super) fn has_all(&self, peer: PeerNumber, room: &str, homeserver: &Homeserver) -> bool {
        let had = self.places.get(&(peer, room.to_owned())).map_or(0, |last| last + 1);
        had == homeserver.events(room)
    }

    /// What became of what was said.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// What must not be, and was.
    pub(super) fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Instant = Instant::START;

    fn attempt(number: u32) -> Attempt {
        Attempt { user: "@a:hs".to_owned(), transaction: "t".to_owned(), number }
    }

    fn reaches(oracle: &mut Oracle, number: u32, is_new: bool) -> usize {
        oracle.reached(&Reached { attempt: attempt(number), is_new, is_again: false }, NOW);
        oracle.violations().len()
    }

    #[test]
    fn a_request_that_reaches_the_homeserver_twice_is_noticed_unless_the_gateway_was_killed_meanwhile() {
        let mut oracle = Oracle::default();
        oracle.asked(attempt(1));
        assert_eq!(reaches(&mut oracle, 1, true), 0);
        oracle.killed([&attempt(1)]);
        assert_eq!(reaches(&mut oracle, 1, false), 0);
        assert_eq!(oracle.tally().repeated_after_break, 1);
        assert_eq!(reaches(&mut oracle, 1, false), 1);
    }

    #[test]
    fn an_attempt_that_did_not_arrive_does_not_excuse_one_that_does_twice() {
        let mut oracle = Oracle::default();
        oracle.asked(attempt(1));
        oracle.asked(attempt(2));
        oracle.killed([]);
        assert_eq!(reaches(&mut oracle, 2, true), 0);
        assert_eq!(reaches(&mut oracle, 2, false), 1);
        assert_eq!(reaches(&mut oracle, 3, false), 2, "nobody has made it");
    }

    #[test]
    fn what_is_done_twice_is_noticed_unless_its_device_has_forgotten_it() {
        let mut oracle = Oracle::default();
        let again = |number| Reached { attempt: attempt(number), is_new: true, is_again: true };
        (1..=3).for_each(|number| oracle.asked(attempt(number)));
        oracle.reached(&again(2), NOW);
        assert_eq!(oracle.violations().len(), 1);
        oracle.lost("@a:hs");
        oracle.reached(&again(3), NOW);
        assert_eq!(oracle.violations().len(), 1);
    }

    #[test]
    fn an_answer_that_is_invented_is_noticed() {
        let mut oracle = Oracle::default();
        oracle.asked(attempt(1));
        oracle.answered(&attempt(1), Some("$x"), &Homeserver::default(), NOW);
        oracle.answered(&attempt(1), None, &Homeserver::default(), NOW);
        assert_eq!(oracle.violations().len(), 2);
    }

    #[test]
    fn a_nonce_that_is_used_twice_is_noticed_and_under_another_key_is_not() {
        let mut oracle = Oracle::default();
        let used = |key, nonce| Used { key: [key; 8], nonce: vec![nonce] };
        [used(1, 1), used(1, 2), used(2, 1)].into_iter().for_each(|used| oracle.sealed(used, NOW));
        assert_eq!((oracle.tally().sealed, oracle.violations().len()), (3, 0));
        oracle.sealed(used(1, 2), NOW);
        assert_eq!(oracle.violations().len(), 1);
    }

    #[test]
    fn an_event_that_is_left_out_is_noticed_unless_the_answer_says_so() {
        let mut homeserver = Homeserver::default();
        homeserver.join("!r:hs", "@a:hs");
        (0..9).for_each(|number| homeserver.say("!r:hs", "@b:hs", &number.to_string(), NOW));
        let delta = |places: &[usize], limited: bool| {
            let events: Vec<_> = places
                .iter()
                .map(|place| json!({ "event_id": homeserver.event_at("!r:hs", *place) }))
                .collect();
            json!({ "rooms": { "join": { "!r:hs": { "timeline": { "events": events, "limited": limited } } } } })
        };
        let mut oracle = Oracle::default();
        oracle.delta(1, &delta(&[2, 3], true), &homeserver, NOW);
        oracle.delta(1, &delta(&[3, 4], false), &homeserver, NOW);
        oracle.delta(1, &delta(&[6, 7], true), &homeserver, NOW);
        let Tally { events, events_again, gaps, .. } = oracle.tally();
        assert_eq!((events, events_again, gaps, oracle.violations().len()), (5, 1, 2, 0));
        assert!(!oracle.has_all(1, "!r:hs", &homeserver));
        oracle.delta(1, &delta(&[8], false), &homeserver, NOW);
        assert!(oracle.has_all(1, "!r:hs", &homeserver));
        let mut oracle = Oracle::default();
        oracle.delta(1, &delta(&[2], true), &homeserver, NOW);
        oracle.delta(1, &delta(&[4], false), &homeserver, NOW);
        assert_eq!(oracle.violations().len(), 1);
        let mut oracle = Oracle::default();
        oracle.delta(1, &delta(&[1], false), &homeserver, NOW);
        assert_eq!(oracle.violations().len(), 1, "nor is the first event any");
    }

    #[test]
    fn a_request_without_an_end_is_noticed() {
        let mut oracle = Oracle::default();
        let (took, limit) = (Duration::from_secs(20), Duration::from_secs(10));
        oracle.ended("@a:hs", took, limit, NOW);
        assert_eq!(oracle.violations().len(), 1);
    }
}
