//! Which answers were read, as far as requests say so.
//!
//! A request says whether its proxy waits for the answer to another. One that does not has read all answers before, so that those to requests
//! which were alone, too, are acknowledged by it.
//!
//! Why that holds: let *Q* and *R* be alone, and *R* come to the gateway after *Q*. If *Q* had been written after *R*, its proxy would have waited for the
//! answer to *R*, which the gateway has not even read; so *Q* would not have been alone. So *Q* was written first, and *R* says that its answer
//! was read. A repetition of *R* changes nothing, as its proxy waits for the answer from the first to the last of them; it only says nothing of the
//! answer to itself.
//!
//! A request that was given up is waited for until the gateway has read that one is, and nothing of the request can come any more. By then the
//! gateway takes no answer that it has written for awaited (`doubt`), and none to requests that it has read before.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;

use crate::packed::message::Asked;

/// The answers of a gateway that the next request may acknowledge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answers {
    /// With the fingerprints of their requests.
    awaited: BTreeMap<u64, u64>,
    /// How often requests came that were not alone.
    round: u64,
    /// Whether the last one was not.
    is_in_doubt: bool,
}

/// As many are remembered.
const MOST_AWAITED: usize = 64;

impl Answers {
    /// Takes in what a request says, and gives the answers that it acknowledges.
    pub(super) fn hear(&mut self, asked: &mut Asked, payload: &[u8]) -> Vec<u64> {
        if !asked.is_alone {
            self.doubt();
            return Vec::new();
        }
        asked.fingerprint = fingerprint(payload);
        // What was held back since before the doubt is no proof that others were read which came later.
        asked.is_alone = !std::mem::replace(&mut self.is_in_doubt, false);
        asked.round = self.round;
        let awaited = std::mem::take(&mut self.awaited).into_iter();
        awaited.filter(|(_, of)| *of != asked.fingerprint).map(|(message, _)| message).collect()
    }

    /// Forgets what was awaited: requests of the epoch before are not read any more.
    pub(super) fn begin_epoch(&mut self) {
        self.doubt();
        self.is_in_doubt = false;
    }

    /// Nobody knows any more which answers will have been read.
    fn doubt(&mut self) {
        self.round += 1;
        self.is_in_doubt = true;
        self.awaited.clear();
    }

    /// Notes that an answer is written.
    pub(super) fn write(&mut self, message: u64, asked: Asked) {
        if !asked.is_alone || asked.round != self.round {
            return;
        }
        // Of two answers to one request that was made again one may be the only one that is read.
        self.awaited.retain(|_, of| *of != asked.fingerprint);
        self.awaited.insert(message, asked.fingerprint);
        if self.awaited.len() > MOST_AWAITED {
            self.awaited.pop_first();
        }
    }
}

fn fingerprint(payload: &[u8]) -> u64 {
    Sha256::digest(payload).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The requests of a proxy whose answers it has not read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Unread {
    requests: BTreeMap<u64, State>,
    /// Those that were not alone and are not answered: their answers say that the gateway has read so.
    doubting: BTreeSet<u64>,
    /// Whether there were more than are remembered.
    is_lost: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct State {
    /// Whether the gateway has read a later request that was not alone.
    is_told: bool,
    /// Whether it was given up.
    is_over: bool,
}

/// Of so many requests it is remembered that they were not answered. Where there are more, none is alone until the next epoch.
const MOST_UNREAD: usize = 64;

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && !self.is_lost
    }

    /// Notes that a request is written.
    pub(super) fn ask(&mut self, message: u64, is_alone: bool) {
        self.requests.insert(message, State::default());
        if !is_alone {
            self.doubting.insert(message);
        }
        while self.requests.len() > MOST_UNREAD {
            let first = self.requests.pop_first();
            self.doubting.retain(|doubting| first.is_none_or(|(first, _)| *doubting != first));
            self.is_lost = true;
        }
    }

    /// Notes that the answer to a request was read.
    pub(super) fn answered(&mut self, message: u64) {
        self.requests.remove(&message);
        if self.doubting.remove(&message) {
            self.requests.range_mut(..message).for_each(|(_, state)| state.is_told = true);
            self.requests.retain(|_, state| !(state.is_told && state.is_over));
        }
    }

    /// Notes that a request was refused.
    pub(super) fn refused(&mut self, message: u64) {
        self.requests.remove(&message);
        self.doubting.remove(&message);
    }

    /// Notes that a request was given up.
    pub(super) fn give_up(&mut self, message: u64) {
        self.doubting.remove(&message);
        let Some(state) = self.requests.get_mut(&message) else { return };
        state.is_over = true;
        if state.is_told {
            self.requests.remove(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request, and whether it is alone.
    fn hear(answers: &mut Answers, name: &str, is_alone: bool) -> (Asked, Vec<u64>) {
        let mut asked = Asked { is_alone, ..Asked::default() };
        let read = answers.hear(&mut asked, name.as_bytes());
        (asked, read)
    }

    #[test]
    fn request_that_is_alone_says_that_the_answer_before_was_read() {
        let mut answers = Answers::default();
        let (first, _) = hear(&mut answers, "first", true);
        answers.write(1, first);
        assert_eq!(hear(&mut answers, "second", true).1, [1]);
        assert!(hear(&mut answers, "third", true).1.is_empty());
    }

    #[test]
    fn repetition_says_nothing_of_its_own_answer() {
        let mut answers = Answers::default();
        let (first, _) = hear(&mut answers, "first", true);
        answers.write(1, first);
        let (again, read) = hear(&mut answers, "first", true);
        assert!(read.is_empty());
        answers.write(2, again);
        assert_eq!(hear(&mut answers, "second", true).1, [2]);
    }

    #[test]
    fn nothing_is_known_of_answers_to_requests_at_once() {
        let mut answers = Answers::default();
        let (first, _) = hear(&mut answers, "first", true);
        let (second, _) = hear(&mut answers, "second", false);
        answers.write(1, first);
        answers.write(2, second);
        let (third, read) = hear(&mut answers, "third", true);
        assert!(read.is_empty());
        answers.write(3, third);
        let (fourth, read) = hear(&mut answers, "fourth", true);
        assert!(read.is_empty(), "the third may have been held back since before the second");
        answers.write(4, fourth);
        assert_eq!(hear(&mut answers, "fifth", true).1, [4]);
    }

    #[test]
    fn request_that_was_given_up_and_comes_late_acknowledges_nothing() {
        let (mut answers, mut unread) = (Answers::default(), Unread::default());
        unread.ask(1, unread.is_empty());
        // The first is on its way for long; those after it are not alone until it can come no more.
        assert!(!unread.is_empty());
        unread.ask(2, false);
        let (second, _) = hear(&mut answers, "second", false);
        answers.write(7, second);
        let (first, read) = hear(&mut answers, "first", true);
        assert!(read.is_empty());
        answers.write(8, first);
        unread.give_up(1);
        assert!(!unread.is_empty());
        unread.answered(2);
        assert!(unread.is_empty());
        assert!(hear(&mut answers, "third", true).1.is_empty(), "nobody has read the answer to the first");
    }

    #[test]
    fn request_that_was_given_up_is_waited_for_until_the_gateway_has_read_so() {
        let mut unread = Unread::default();
        unread.ask(1, true);
        unread.give_up(1);
        assert!(!unread.is_empty());
        unread.ask(2, false);
        unread.refused(2);
        assert!(!unread.is_empty());
        unread.ask(3, false);
        unread.answered(3);
        assert!(unread.is_empty());
        for message in 4..=70 {
            unread.ask(message, false);
        }
        (4..=70).for_each(|message| unread.answered(message));
        assert!(!unread.is_empty(), "some were forgotten");
    }
}
