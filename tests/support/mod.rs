//! Stories: a machine in virtual time, and everything it says expected at a stated time.

pub(crate) mod conversation;
pub(crate) mod device;
pub(crate) mod endpoint;
pub(crate) mod exchanges;
pub(crate) mod figure;
pub(crate) mod gateway;
pub(crate) mod link;
pub(crate) mod notation;
pub(crate) mod oscore;
pub(crate) mod pair;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;

use lowband::coap::Instant;

use notation::Names;

/// What a story can be told of.
pub(crate) trait Machine {
    /// Where a datagram comes from or goes to.
    type Address: Copy + Debug + PartialEq;
    /// What the machine reports beside datagrams.
    type Event: Debug + PartialEq;

    /// A datagram arrived.
    fn handle(&mut self, from: Self::Address, datagram: &[u8], now: Instant);
    /// It is this late.
    fn advance(&mut self, now: Instant);
    /// When it next wants to be told so.
    fn deadline(&self) -> Option<Instant>;
    /// The next datagram to send.
    fn poll_datagram(&mut self) -> Option<(Self::Address, Vec<u8>)>;
    /// The next event.
    fn poll_event(&mut self) -> Option<Self::Event>;
}

/// A machine's story with one peer (and others, see [`Story::with`]). Times are milliseconds from its start.
///
/// Time stands still at the last event. Each event first lets it pass, with every deadline kept on its way; what the machine
/// says and the story does not expect fails, at the next event or at the end.
pub(crate) struct Story<M: Machine> {
    /// The machine. What takes `now` is called through [`Story::does`].
    pub machine: M,
    address: M::Address,
    now: Instant,
    names: Names,
    datagrams: VecDeque<(Instant, M::Address, Vec<u8>)>,
    events: VecDeque<(Instant, M::Event)>,
}

impl<M: Machine> Story<M> {
    /// A story that starts now, with a peer at this address.
    pub(crate) fn new(machine: M, address: M::Address) -> Self {
        Self {
            machine,
            address,
            now: Instant::START,
            names: Names::new(),
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A story that begins later.
    pub(crate) fn at(machine: M, address: M::Address, at: u64) -> Self {
        let mut story = Self::new(machine, address);
        story.now = Instant::after_start(Duration::from_millis(at));
        story.collect();
        story
    }

    /// The story with another peer.
    pub(crate) fn with(&mut self, address: M::Address) -> With<'_, M> {
        With { story: self, address }
    }

    /// The machine gets a datagram.
    pub(crate) fn gets(&mut self, at: u64, text: &str) {
        self.with(self.address).gets(at, text);
    }

    /// The machine sends a datagram.
    pub(crate) fn sends(&mut self, at: u64, text: &str) {
        self.with(self.address).sends(at, text);
    }

    /// The machine sends a datagram between two times, both included; returns when.
    pub(crate) fn sends_between(&mut self, from: u64, to: u64, text: &str) -> u64 {
        let address = self.address;
        self.pass(to, |story| !story.datagrams.is_empty());
        let (at, to_whom, datagram) =
            self.datagrams.pop_front().unwrap_or_else(|| panic!("{from}..{to} ms: {text} is not sent"));
        let at = millis(at);
        assert!((from..=to).contains(&at), "{from}..{to} ms: {text} is sent at {at} ms");
        assert_eq!(to_whom, address, "{at} ms: {text} is sent elsewhere");
        self.check(at, text, &datagram);
        at
    }

    /// The machine has sent all that it sends until then, and reported all.
    pub(crate) fn sends_nothing(&mut self, until: u64) {
        self.pass(until, |_| false);
        self.nothing_left("nothing");
    }

    /// The machine reports something.
    pub(crate) fn reports(&mut self, at: u64, event: M::Event) {
        self.arrive(at, &format!("{event:?}"));
        let Some((when, actual)) = self.events.pop_front() else {
            panic!("{at} ms: {event:?} is not reported")
        };
        assert_eq!((millis(when), &actual), (at, &event), "an event, at its time");
    }

    /// The machine reports something between two times, both included; returns when.
    pub(crate) fn reports_between(&mut self, from: u64, to: u64, event: M::Event) -> u64 {
        self.pass(to, |story| !story.events.is_empty());
        let Some((at, actual)) = self.events.pop_front() else {
            panic!("{from}..{to} ms: {event:?} is not reported")
        };
        assert_eq!(actual, event, "at {} ms", millis(at));
        assert!(
            (from..=to).contains(&millis(at)),
            "{from}..{to} ms: {event:?} is reported at {} ms",
            millis(at)
        );
        millis(at)
    }

    /// What the machine reports at this time, for what cannot be said beforehand.
    pub(crate) fn reported(&mut self, at: u64) -> M::Event {
        self.arrive(at, "a report");
        self.events.pop_front().unwrap_or_else(|| panic!("{at} ms: nothing is reported")).1
    }

    /// The user of the machine does something.
    pub(crate) fn does<T>(&mut self, at: u64, action: impl FnOnce(&mut M, Instant) -> T) -> T {
        self.arrive(at, "an action");
        let result = action(&mut self.machine, self.now);
        self.collect();
        result
    }

    /// The machine sends what a figure shows: see [`notation::is_shown`].
    pub(crate) fn sends_as_shown(&mut self, at: u64, text: &str) {
        self.arrive(at, text);
        let Some((when, _, datagram)) = self.datagrams.pop_front() else {
            panic!("{at} ms: {text} is not sent")
        };
        assert_eq!(millis(when), at, "{text} is sent at another time");
        let shown = notation::is_shown(text, &datagram, &mut self.names);
        assert!(shown, "{at} ms: the figure shows {text}\n   but it sends {}", notation::describe(&datagram));
    }

    /// The datagram that the machine sends, for what cannot be said beforehand.
    pub(crate) fn sent(&mut self, at: u64) -> Vec<u8> {
        self.arrive(at, "a datagram");
        self.datagrams.pop_front().unwrap_or_else(|| panic!("{at} ms: nothing is sent")).2
    }

    /// The machine sends what it likes until then; returns how many datagrams that were.
    pub(crate) fn sends_any(&mut self, until: u64) -> usize {
        self.pass(until, |_| false);
        self.datagrams.drain(..).count()
    }

    /// Gives a name in the notation to some bytes, unless it stands for others already.
    pub(crate) fn name(&mut self, name: &str, bytes: &[u8]) {
        self.names.entry(name.into()).or_insert_with(|| bytes.into());
    }

    /// What a name in the notation stands for.
    pub(crate) fn named(&self, name: &str) -> &[u8] {
        self.names.get(name).unwrap_or_else(|| panic!("{name} is not known yet"))
    }

    /// Lets time pass until an event, before which nothing may be left unexpected.
    fn arrive(&mut self, at: u64, event: &str) {
        assert!(at >= millis(self.now), "{event} at {at} ms, but it is {} ms already", millis(self.now));
        if at > millis(self.now) {
            self.nothing_left(event);
        }
        self.pass(at, |_| false);
        let early = |when: Instant| millis(when) < at;
        if self.datagrams.front().is_some_and(|(when, ..)| early(*when))
            || self.events.front().is_some_and(|(when, _)| early(*when))
        {
            self.nothing_left(event);
        }
    }

    /// Lets time pass with all deadlines kept, to the end or until something happened.
    fn pass(&mut self, until: u64, happened: impl Fn(&Self) -> bool) {
        let end = Instant::after_start(Duration::from_millis(until));
        let mut standing = 0;
        self.collect();
        while !happened(self) {
            let Some(due) = self.machine.deadline().filter(|due| *due <= end) else {
                self.now = self.now.max(end);
                return;
            };
            standing = if due > self.now { 0 } else { standing + 1 };
            assert!(standing < 100, "{} ms: the deadline stays at {due:?}: a busy loop", millis(self.now));
            self.now = self.now.max(due);
            self.machine.advance(self.now);
            self.collect();
        }
    }

    fn collect(&mut self) {
        while let Some((address, datagram)) = self.machine.poll_datagram() {
            self.datagrams.push_back((self.now, address, datagram));
        }
        while let Some(event) = self.machine.poll_event() {
            self.events.push_back((self.now, event));
        }
    }

    fn check(&mut self, at: u64, text: &str, datagram: &[u8]) {
        assert!(
            notation::matches(text, datagram, &mut self.names),
            "{at} ms: expected {text}\n   but it sends {}\n   names: {:02x?}",
            notation::describe(datagram),
            self.names
        );
    }

    fn nothing_left(&self, before: &str) {
        let datagrams = self.datagrams.iter().map(|(at, to, datagram)| {
            format!("\n   {} ms to {to:?}: {}", millis(*at), notation::describe(datagram))
        });
        let events = self.events.iter().map(|(at, event)| format!("\n   {} ms: {event:?}", millis(*at)));
        let left: String = datagrams.chain(events).collect();
        assert!(left.is_empty(), "before {before}, the story does not expect{left}");
    }
}

impl<M: Machine> Drop for Story<M> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.collect();
            self.nothing_left("the end");
        }
    }
}

/// A part of a story with one of several peers.
pub(crate) struct With<'a, M: Machine> {
    story: &'a mut Story<M>,
    address: M::Address,
}

impl<M: Machine> With<'_, M> {
    /// The machine gets a datagram from this peer.
    pub(crate) fn gets(&mut self, at: u64, text: &str) {
        self.story.arrive(at, text);
        let datagram = notation::datagram(text, &self.story.names);
        self.story.machine.handle(self.address, &datagram, self.story.now);
        self.story.collect();
    }

    /// The machine sends a datagram to this peer.
    pub(crate) fn sends(&mut self, at: u64, text: &str) {
        self.story.arrive(at, text);
        let next = self.story.datagrams.iter().position(|(_, to, _)| *to == self.address);
        let Some((when, _, datagram)) = next.and_then(|next| self.story.datagrams.remove(next)) else {
            panic!("{at} ms: {text} is not sent")
        };
        assert_eq!(millis(when), at, "{text} is sent at another time");
        self.story.check(at, text, &datagram);
    }
}

/// The time in milliseconds; what is between two counts as the earlier.
fn millis(at: Instant) -> u64 {
    at.since_start().as_millis() as u64
}
