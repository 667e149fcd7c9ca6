//! What must hold in every run, checked from outside: knows the homeserver, what devices say of themselves, and when the gateway
//! was killed; nothing of the gateway's state.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::channel::PeerNumber;
use super::homeserver::{Homeserver, Reached};
use crate::coap::Instant;

/// The oracle of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    messages: BTreeMap<(String, String), Sent>,
    /// How far each device has come in each room, as the place of the last event.
    places: BTreeMap<(PeerNumber, String), usize>,
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
    /// Requests with messages that devices made; a message whose request failed is in several.
    pub requests: u64,
    /// Those that failed, or were forgotten by their device.
    pub failed: u64,
    /// Messages that were answered.
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
    /// The longest time from a request to its end.
    #[serde(rename = "longest_request_ms", serialize_with = "super::traffic::milliseconds")]
    pub longest_request: Duration,
}

/// A message of a device's.
#[derive(Debug, Default)]
struct Sent {
    /// Requests for it.
    requests: u32,
    /// How often it reached the homeserver.
    reached: u32,
    /// How often the gateway was killed, or the device's address changed, since the first of them.
    breaks: u32,
}

impl Oracle {
    /// Says that something is wrong.
    pub fn violated(&mut self, what: String, now: Instant) {
        // The first ones tell; the rest follows from them.
        if self.violations.len() < 20 {
            self.violations.push(Violation { at: now, what });
        }
    }

    /// A device made a request for a message.
    pub fn asked(&mut self, user: &str, transaction: &str) {
        let sent = self.messages.entry((user.to_owned(), transaction.to_owned())).or_default();
        sent.requests += 1;
        self.tally.requests += 1;
    }

    /// A request of a device's has ended, with or without an answer.
    pub fn ended(
        &mut self,
        user: &str,
        is_message: bool,
        answered: bool,
        took: Duration,
        limit: Duration,
        now: Instant,
    ) {
        self.tally.longest_request = self.tally.longest_request.max(took);
        if took > limit {
            let what =
                format!("a request of {user} took {} s, more than {} s", took.as_secs(), limit.as_secs());
            self.violated(what, now);
        }
        if is_message {
            self.tally.answered += u64::from(answered);
            self.tally.failed += u64::from(!answered);
        }
    }

    /// The gateway was killed: it cannot know what it has passed on, and a copy may still be on its way.
    pub fn killed(&mut self) {
        self.messages.values_mut().for_each(|sent| sent.breaks += 1);
    }

    /// A device has a new address: as long as that stands for who it is, what it repeats comes from somebody else.
    pub fn moved(&mut self, user: &str) {
        for ((of, _), sent) in &mut self.messages {
            sent.breaks += u32::from(of == user);
        }
    }

    /// A message has reached the homeserver: no request may do so twice, unless the gateway was killed or the device moved
    /// meanwhile; and even then without effect, which the transaction id sees to.
    pub fn reached(&mut self, reached: &Reached, now: Instant) {
        let Reached { user, transaction, text, is_new } = reached;
        let sent = self.messages.entry((user.clone(), transaction.clone())).or_default();
        sent.reached += 1;
        if !is_new {
            match sent.breaks {
                0 => self.tally.repeated_by_device += 1,
                _ => self.tally.repeated_after_break += 1,
            }
        }
        if sent.reached > sent.requests + sent.breaks {
            let what = format!(
                "{user}'s {transaction} ({text:?}) reached the homeserver {} times, from {} requests, with {} kills and moves meanwhile",
                sent.reached, sent.requests, sent.breaks
            );
            self.violated(what, now);
        }
    }

    /// A device has applied a delta: each room goes on where it was.
    pub fn delta(&mut self, peer: PeerNumber, delta: &Value, homeserver: &Homeserver, now: Instant) {
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
        let next = self.places.get(&(peer, room.to_owned())).map(|last| last + 1);
        match next {
            Some(next) if place < next => self.tally.events_again += 1,
            Some(next) if place > next && !*may_skip => {
                let missing = place - next;
                self.violated(format!("peer {peer} misses {missing} events of {room} before {id}"), now);
            }
            _ => {}
        }
        if next.is_some_and(|next| place < next) {
            return;
        }
        self.tally.gaps += u64::from(next.is_some_and(|next| place > next) && *may_skip);
        *may_skip = false;
        self.tally.events += 1;
        self.places.insert((peer, room.to_owned()), place);
    }

    /// At the end a device has everything that its rooms have.
    pub fn has_all(&self, peer: PeerNumber, room: &str, homeserver: &Homeserver) -> bool {
        let had = self.places.get(&(peer, room.to_owned())).map_or(0, |last| last + 1);
        had == homeserver.events(room)
    }

    /// What became of what was said.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What must not be, and was.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Instant = Instant::START;

    fn reached(is_new: bool) -> Reached {
        Reached { user: "@a:hs".to_owned(), transaction: "t".to_owned(), text: "x".to_owned(), is_new }
    }

    #[test]
    fn a_request_that_reaches_the_homeserver_twice_is_noticed_unless_the_gateway_was_killed() {
        let mut oracle = Oracle::default();
        oracle.asked("@a:hs", "t");
        oracle.reached(&reached(true), NOW);
        oracle.killed();
        oracle.reached(&reached(false), NOW);
        assert_eq!((oracle.violations().len(), oracle.tally().repeated_after_break), (0, 1));
        oracle.reached(&reached(false), NOW);
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
        assert_eq!((events, events_again, gaps, oracle.violations().len()), (5, 1, 1, 0));
        assert!(!oracle.has_all(1, "!r:hs", &homeserver));
        oracle.delta(1, &delta(&[8], false), &homeserver, NOW);
        assert!(oracle.has_all(1, "!r:hs", &homeserver));
        let mut oracle = Oracle::default();
        oracle.delta(1, &delta(&[2], true), &homeserver, NOW);
        oracle.delta(1, &delta(&[4], false), &homeserver, NOW);
        assert_eq!(oracle.violations().len(), 1);
    }

    #[test]
    fn a_request_without_an_end_is_noticed() {
        let mut oracle = Oracle::default();
        let (took, limit) = (Duration::from_secs(20), Duration::from_secs(10));
        oracle.ended("@a:hs", false, false, took, limit, NOW);
        assert_eq!(oracle.violations().len(), 1);
    }
}
