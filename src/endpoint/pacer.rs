//! What may leave when, on links that carry no more than so much: one queue for each channel.
//!
//! Knows nothing of peers: whether a datagram is still of use when its turn comes is asked of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Address, Association};
use crate::coap::{Instant, Message, OptionNumber, Outgoing, Priority};
use crate::link::Pace;

/// The queues of all channels.
#[derive(Debug)]
pub(super) struct Pacers {
    channels: BTreeMap<Channel, Pacer>,
    /// The channels that have something to send, by when they may.
    due: BTreeSet<(Instant, Channel)>,
    /// Datagrams that may wait on one channel.
    limit: usize,
    /// When the first channel was there. What was sent before is not known.
    since: Option<Instant>,
    /// How many channels there may be before those that are idle are forgotten.
    sweep: usize,
}

/// What is sent one after the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channel {
    /// A listener's, which all peers with this link share, or all strangers where each peer has one of its own.
    Shared(SocketAddr, Arc<str>),
    /// One peer's own, over this link.
    Own(Association, Arc<str>),
}

/// A datagram that waits for its turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) association: Association,
    pub(super) address: Address,
    pub(super) outgoing: Outgoing,
    /// Whether nothing is added to it below: it is no message.
    pub(super) is_raw: bool,
}

impl Queued {
    /// Its length as the channel reckons, which counts what is added to messages.
    fn length(&self, pace: &Pace) -> usize {
        let length = self.outgoing.datagram.len();
        if self.is_raw { length.saturating_sub(pace.sending.sealing) } else { length }
    }
}

/// A datagram in a queue.
#[derive(Debug)]
struct Waiting {
    queued: Queued,
    /// The block that it is, where it is one of a burst.
    block: Option<Block>,
}

/// A block of a burst (RFC 9177), which is not confirmed: each has an ID of its own, and what is asked for again may have another token.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// The value of Q-Block2.
    place: Vec<u8>,
    etag: Vec<u8>,
    payload: Bytes,
}

/// One channel: nothing leaves before what left before it is all out.
#[derive(Debug)]
struct Pacer {
    pace: Pace,
    /// The most pressing first, and of those one of each peer by turns.
    queue: BTreeMap<(Priority, u64, u64), Waiting>,
    next: u64,
    free_at: Instant,
    /// When the last datagram began to leave.
    busy_since: Instant,
    budget: Budget,
    placed: Option<Instant>,
}

impl Pacers {
    /// So many channels may be idle.
    const FEW: usize = 32;

    pub(super) fn new(limit: usize) -> Self {
        let (channels, due) = (BTreeMap::new(), BTreeSet::new());
        Self { channels, due, limit: limit.max(1), since: None, sweep: Self::FEW }
    }

    /// Puts a datagram into a channel's queue; returns the one that had to give way, if any.
    pub(super) fn push(
        &mut self,
        channel: &Channel,
        pace: &Pace,
        queued: Queued,
        now: Instant,
    ) -> Option<Queued> {
        let limit = self.limit;
        self.with(channel, pace, now, |pacer| pacer.push(queued, limit))
    }

    /// Says that a datagram of the other end has come, which was on the air for so long. Where both use one channel by turns, this end may not be at once;
    /// and what it took to be leaving meanwhile has waited, so that all the rest is as much later.
    pub(super) fn heard(&mut self, channel: &Channel, pace: &Pace, airtime: Duration, now: Instant) {
        let Some(turns) = pace.by_turns else { return };
        self.with(channel, pace, now, |pacer| {
            let both = now.since(pacer.busy_since).saturating_sub(turns.delay).min(airtime);
            if pacer.free_at > now && both > Duration::ZERO {
                pacer.free_at = pacer.free_at + both + 2 * turns.turnaround;
            }
            pacer.free_at = pacer.free_at.max(now + turns.turnaround);
        });
    }

    /// The datagram whose turn it is, on whichever channel; it is to be sent with [`Pacers::depart`], or dropped.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Channel, Queued)> {
        let (_, channel) = self.due.first().filter(|(due, _)| *due <= now).cloned()?;
        let pacer = self.channels.get_mut(&channel)?;
        let (_, Waiting { queued, .. }) = pacer.queue.pop_first()?;
        self.place(&channel);
        Some((channel, queued))
    }

    /// Takes a channel for a datagram; returns how long it is on the air.
    pub(super) fn depart(&mut self, channel: &Channel, queued: &Queued, now: Instant) -> Duration {
        let Some(pacer) = self.channels.get_mut(channel) else { return Duration::ZERO };
        let airtime = pacer.pace.sending.of(queued.length(&pacer.pace));
        pacer.free_at = now + airtime;
        pacer.busy_since = now;
        pacer.budget.spend(airtime, now);
        self.place(channel);
        airtime
    }

    /// Whether a channel is there.
    pub(super) fn contains(&self, channel: &Channel) -> bool {
        self.channels.contains_key(channel)
    }

    /// When something may leave.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many datagrams wait.
    pub(super) fn len(&self) -> usize {
        self.channels.values().map(|pacer| pacer.queue.len()).sum()
    }

    /// Forgets the channels on which nothing has been sent or is to be sent for long.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        self.channels.retain(|_, pacer| !pacer.is_idle(now));
    }

    fn with<T>(
        &mut self,
        channel: &Channel,
        pace: &Pace,
        now: Instant,
        act: impl FnOnce(&mut Pacer) -> T,
    ) -> T {
        let since = *self.since.get_or_insert(now);
        // The channels of peers that have gone by other ways than idleness.
        if self.channels.len() >= self.sweep {
            self.forget_idle(now);
            self.sweep = 2 * self.channels.len().max(Self::FEW / 2);
        }
        let pacer = self.channels.entry(channel.clone()).or_insert_with(|| Pacer::new(pace, since, now));
        let done = act(pacer);
        self.place(channel);
        done
    }

    fn place(&mut self, channel: &Channel) {
        let Some(pacer) = self.channels.get_mut(channel) else { return };
        let due = pacer.ready();
        if let Some(placed) = std::mem::replace(&mut pacer.placed, due) {
            self.due.remove(&(placed, channel.clone()));
        }
        self.due.extend(due.map(|due| (due, channel.clone())));
    }
}

impl Pacer {
    /// A channel on which nothing was sent since then, or nothing that still counts.
    fn new(pace: &Pace, since: Instant, now: Instant) -> Self {
        Self {
            budget: Budget::new(pace, since),
            pace: pace.clone(),
            queue: BTreeMap::new(),
            next: 0,
            free_at: now,
            busy_since: now,
            placed: None,
        }
    }

    fn push(&mut self, queued: Queued, limit: usize) -> Option<Queued> {
        let block = Block::of(&queued.outgoing.datagram);
        // What waits already need not wait twice: a reply, however often its request is repeated, and a block, though it is asked for.
        let waits = |other: &Waiting| {
            other.queued.association == queued.association
                && (other.queued.outgoing.datagram == queued.outgoing.datagram
                    || block.is_some() && other.block == block)
        };
        if queued.outgoing.exchange.is_none() && self.queue.values().any(waits) {
            return None;
        }
        self.next += 1;
        let place = (queued.outgoing.priority, self.turn(&queued), self.next);
        self.queue.insert(place, Waiting { queued, block });
        if self.queue.len() > limit { self.queue.pop_last().map(|(_, last)| last.queued) } else { None }
    }

    /// The turn of a datagram among those that are as pressing: the next that its peer has none in, so that many for one peer hold
    /// up no other.
    fn turn(&self, queued: &Queued) -> u64 {
        let priority = queued.outgoing.priority;
        let mut others = self.queue.range((priority, 0, 0)..=(priority, u64::MAX, u64::MAX));
        let first = others.clone().next().map_or(0, |((_, turn, _), _)| *turn);
        let last = others.rfind(|(_, other)| other.queued.association == queued.association);
        last.map_or(first, |((_, turn, _), _)| turn + 1)
    }

    /// When the first of the queue may leave.
    fn ready(&self) -> Option<Instant> {
        let (_, first) = self.queue.first_key_value()?;
        let airtime = self.pace.sending.of(first.queued.length(&self.pace));
        Some(self.free_at.max(self.budget.ready(airtime)))
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.queue.is_empty() && self.free_at <= now && self.budget.is_full(now)
    }
}

impl Block {
    /// The block that a datagram is; `None` for any other.
    fn of(datagram: &[u8]) -> Option<Self> {
        let is_unconfirmed = datagram.first().is_some_and(|first| first & 0x30 == 0x10);
        let message = is_unconfirmed.then(|| Message::decode(datagram).ok()).flatten()?;
        let of = |number| message.options.get(number).map(<[u8]>::to_vec);
        let (place, etag) = (of(OptionNumber::Q_BLOCK2)?, of(OptionNumber::ETAG)?);
        message.code.is_response().then_some(Self { place, etag, payload: message.payload })
    }
}

/// How much longer this end may be on the air, under a duty cycle: a bucket that fills slowly. It is so small, and fills so
/// slowly, that in no hour the share is exceeded, the bucket's content included. It is empty at the start: what was sent before
/// a restart is not known any more.
#[derive(Debug)]
struct Budget {
    /// Seconds of airtime a second; none where there is no duty cycle.
    rate: Option<f64>,
    most: f64,
    /// What was there at that moment; below zero after a datagram that took more than the bucket holds.
    seconds: f64,
    at: Instant,
}

impl Budget {
    const HOUR: f64 = 3_600.0;
    /// The bucket holds the airtime of a datagram of so many bytes, a block and its options, or of the link's greatest; but at
    /// most half of an hour's share. What it holds more, it must fill more slowly.
    const BYTES: usize = 192;

    fn new(pace: &Pace, since: Instant) -> Self {
        let greatest = pace.sending.of(pace.mtu.min(Self::BYTES)).as_secs_f64();
        let hourly = pace.duty_cycle * Self::HOUR;
        let most = greatest.min(hourly / 2.0);
        let rate = (pace.duty_cycle < 1.0).then_some((hourly - most) / Self::HOUR);
        Self { rate, most, seconds: if rate.is_some() { 0.0 } else { most }, at: since }
    }

    fn held(&self, now: Instant) -> f64 {
        let filled = now.since(self.at).as_secs_f64() * self.rate.unwrap_or(0.0);
        (self.seconds + filled).min(self.most)
    }

    fn spend(&mut self, airtime: Duration, now: Instant) {
        if self.rate.is_some() {
            // What takes more than the bucket holds has waited for all of it, and makes what follows wait for the surplus again: so
            // neither the hour that ends with it nor the one that begins with it has too much.
            let airtime = airtime.as_secs_f64();
            let held = if airtime > self.most { self.most } else { self.held(now) };
            self.seconds = held - airtime;
            self.at = now;
        }
    }

    /// When a datagram may leave: when all that it takes has been saved up.
    fn ready(&self, airtime: Duration) -> Instant {
        let Some(rate) = self.rate else { return self.at };
        let missing = airtime.as_secs_f64() - self.seconds;
        // A microsecond for what floating point loses.
        self.at + Duration::try_from_secs_f64(missing / rate + 1e-6).unwrap_or_default()
    }

    fn is_full(&self, now: Instant) -> bool {
        self.rate.is_none() || self.held(now) >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coap::Airtime;
    use crate::link::Turns;

    const HF: Pace = Pace {
        sending: Airtime { bits_per_second: 100, overhead: 28, fragment: 0, sealing: 0 },
        by_turns: None,
        duty_cycle: 1.0,
        mtu: 1024,
        shared: true,
    };

    fn at(milliseconds: u64) -> Instant {
        Instant::START + Duration::from_millis(milliseconds)
    }

    fn channel() -> Channel {
        Channel::Shared("192.0.2.1:5683".parse().unwrap(), "hf".into())
    }

    fn queued(priority: Priority, bytes: &[u8]) -> Queued {
        let address =
            Address { remote: "192.0.2.2:5683".parse().unwrap(), local: "192.0.2.1:5683".parse().unwrap() };
        let datagram = bytes.to_vec();
        let outgoing = Outgoing { datagram, priority, exchange: None, expires: None, repeat: false };
        Queued { association: address.into(), address, outgoing, is_raw: false }
    }

    fn sends(pacers: &mut Pacers, now: u64) -> Option<Vec<u8>> {
        let (channel, queued) = pacers.pop(at(now))?;
        pacers.depart(&channel, &queued, at(now));
        Some(queued.outgoing.datagram)
    }

    #[test]
    fn one_datagram_leaves_after_the_other_is_out_and_the_pressing_ones_first() {
        let mut pacers = Pacers::new(8);
        pacers.push(&channel(), &HF, queued(Priority::Notification, &[1; 22]), at(0));
        pacers.push(&channel(), &HF, queued(Priority::Background, b"typing"), at(0));
        assert_eq!(sends(&mut pacers, 0), Some(vec![1; 22]));
        pacers.push(&channel(), &HF, queued(Priority::Acknowledgement, b"ack!"), at(100));
        // 22 bytes and 28 of headers: 4 s.
        assert_eq!(sends(&mut pacers, 3_999), None);
        assert_eq!(pacers.deadline(), Some(at(4_000)));
        assert_eq!(sends(&mut pacers, 4_000), Some(b"ack!".to_vec()));
        assert_eq!(sends(&mut pacers, 4_000 + 32 * 80), Some(b"typing".to_vec()));
        assert_eq!((pacers.len(), pacers.deadline()), (0, None));
        pacers.forget_idle(at(60_000));
        assert!(pacers.channels.is_empty());
    }

    #[test]
    fn a_reply_does_not_wait_twice_and_the_least_pressing_gives_way() {
        let mut pacers = Pacers::new(2);
        assert!(pacers.push(&channel(), &HF, queued(Priority::Reply, b"again"), at(0)).is_none());
        assert!(pacers.push(&channel(), &HF, queued(Priority::Reply, b"again"), at(1)).is_none());
        assert_eq!(pacers.len(), 1);
        assert!(pacers.push(&channel(), &HF, queued(Priority::Background, b"typing"), at(2)).is_none());
        let dropped = pacers.push(&channel(), &HF, queued(Priority::Message, b"hello"), at(3));
        assert_eq!(dropped.unwrap().outgoing.datagram, b"typing");
    }

    #[test]
    fn by_turns_nothing_leaves_while_the_direction_changes() {
        let pace = Pace {
            by_turns: Some(Turns { turnaround: Duration::from_millis(500), delay: Duration::from_secs(1) }),
            ..HF
        };
        let mut pacers = Pacers::new(2);
        pacers.heard(&channel(), &pace, Duration::ZERO, at(1_000));
        pacers.push(&channel(), &pace, queued(Priority::Reply, b"answer"), at(1_000));
        assert_eq!(sends(&mut pacers, 1_499), None);
        assert_eq!(sends(&mut pacers, 1_500), Some(b"answer".to_vec()));
    }

    #[test]
    fn what_the_other_end_takes_of_the_air_makes_the_rest_later() {
        let pace = Pace {
            by_turns: Some(Turns { turnaround: Duration::from_millis(500), delay: Duration::from_secs(1) }),
            ..HF
        };
        let mut pacers = Pacers::new(8);
        // 72 bytes and 28 take 8 s.
        for number in 1..=2 {
            pacers.push(&channel(), &pace, queued(Priority::Message, &[number; 72]), at(0));
        }
        assert_eq!(sends(&mut pacers, 0), Some(vec![1; 72]));
        // The other end was on the air for three seconds, and for two of them since the first began to leave.
        pacers.heard(&channel(), &pace, Duration::from_secs(3), at(3_000));
        assert_eq!(pacers.deadline(), Some(at(8_000 + 2_000 + 2 * 500)));
    }

    #[test]
    fn a_block_that_waits_does_not_wait_twice_though_it_is_asked_for_by_another_token() {
        let block = |id: u16, token: u8, number: u8| {
            let mut options = crate::coap::Options::new();
            options.push(OptionNumber::ETAG, [1; 4]);
            options.push(OptionNumber::Q_BLOCK2, [number << 4 | 0x0c]);
            let (kind, code) = (crate::coap::Kind::NonConfirmable, crate::coap::Code::CONTENT);
            let token = crate::coap::Token::new(&[token]).unwrap();
            let id = crate::coap::MessageId(id);
            Message { kind, code, id, token, options, payload: vec![number; 256].into() }.encode()
        };
        let mut pacers = Pacers::new(8);
        for datagram in [block(1, 1, 1), block(2, 1, 2), block(3, 2, 1), block(4, 2, 2)] {
            pacers.push(&channel(), &HF, queued(Priority::Notification, &datagram), at(0));
        }
        assert_eq!(pacers.len(), 2);
    }

    #[test]
    fn no_hour_has_more_airtime_than_the_duty_cycle_allows() {
        let pace = Pace {
            sending: Airtime { bits_per_second: 250, overhead: 13, fragment: 51, sealing: 0 },
            duty_cycle: 0.01,
            mtu: 51,
            ..HF
        };
        let mut pacers = Pacers::new(10_000);
        for number in 0..2_000_u32 {
            let bytes = number.to_be_bytes().repeat(1 + number as usize % 40);
            pacers.push(&channel(), &pace, queued(Priority::Message, &bytes), at(0));
        }
        let mut departures: Vec<(Instant, f64)> = Vec::new();
        while let Some(now) = pacers.deadline().filter(|now| *now < at(40 * 3_600_000)) {
            let (channel, queued) = pacers.pop(now).unwrap();
            let airtime = pacers.depart(&channel, &queued, now);
            departures.push((now, airtime.as_secs_f64()));
        }
        assert!(departures.len() > 100);
        for (end, _) in &departures {
            let hour = departures.iter().filter(|(at, _)| at <= end && end.since(*at).as_secs() < 3_600);
            let sum: f64 = hour.map(|(_, airtime)| airtime).sum();
            assert!(sum <= 36.001, "{sum} s in the hour before {end:?}");
        }
    }

    #[test]
    fn a_channel_that_was_forgotten_has_all_that_it_had_saved() {
        let pace = Pace { sending: Airtime { overhead: 13, ..HF.sending }, duty_cycle: 0.01, mtu: 51, ..HF };
        let mut pacers = Pacers::new(8);
        pacers.push(&channel(), &pace, queued(Priority::Message, &[1; 37]), at(0));
        // 50 bytes: 4 s, of which all are still to be saved.
        assert_eq!(sends(&mut pacers, 300_000), None);
        assert_eq!(sends(&mut pacers, 900_000), Some(vec![1; 37]));
        pacers.forget_idle(at(905_000));
        assert_eq!(pacers.channels.len(), 1);
        pacers.forget_idle(at(1_800_000));
        assert!(pacers.channels.is_empty());
        pacers.push(&channel(), &pace, queued(Priority::Message, &[2; 37]), at(1_800_000));
        assert_eq!(sends(&mut pacers, 1_800_000), Some(vec![2; 37]));
    }
}
