//! Times as differences. All times of a message are told one after the other, and the ages of its events are of one moment.

/// What was told so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// The time that was told last.
    pub(super) last: i64,
    /// The moment at which the ages hold, if one was told after a time.
    now: Option<i64>,
    /// A time was told in this message.
    is_set: bool,
}

impl Clock {
    /// Begins at a time that both ends know.
    pub(super) fn new(last: i64) -> Self {
        Clock { last, now: None, is_set: false }
    }

    /// Tells a time: its difference from the one before.
    pub(super) fn time(&mut self, time: i64) -> i64 {
        let difference = time.wrapping_sub(self.last);
        self.last = time;
        self.is_set = true;
        difference
    }

    /// The time that a difference tells.
    pub(super) fn time_of(&mut self, difference: i64) -> i64 {
        let time = self.last.wrapping_add(difference);
        self.time(time);
        time
    }

    /// Tells an age: its difference from what follows from the last time and the moment. `None` for the first.
    pub(super) fn age(&mut self, age: i64) -> Option<i64> {
        let expected = self.expected();
        self.tell_age(age);
        expected.map(|expected| age.wrapping_sub(expected))
    }

    /// The age that a difference tells.
    pub(super) fn age_of(&mut self, difference: i64) -> i64 {
        let age = self.expected().unwrap_or_default().wrapping_add(difference);
        self.tell_age(age);
        age
    }

    /// Notes an age that was told as a number.
    pub(super) fn tell_age(&mut self, age: i64) {
        if self.is_set {
            self.now = Some(self.last.wrapping_add(age));
        }
    }

    fn expected(&self) -> Option<i64> {
        self.now.map(|now| now.wrapping_sub(self.last)).filter(|_| self.is_set)
    }
}
