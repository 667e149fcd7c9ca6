//! A link between a gateway and its peers, as its profile says, with losses by chance from a seed.
//!
//! Sans-IO, for virtual time and for real: after [`Channel::send`], sleep until [`Channel::deadline`] and drain [`Channel::poll`].
//! Knows nothing of what the datagrams are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::audit::Audit;
use super::chance::Chance;
use super::impairments::Impairments;
use super::traffic::Traffic;
use crate::coap::{Airtime, Instant};
use crate::link::{End, Profile};

/// A link in both directions, with all its peers.
///
/// ```text
///  send ──▶ modem ── carrier free ──▶ on the air ── last bit has left ──▶ under way ── delay, jitter ──▶ poll
///             └── full, too long: dropped    └── each frame: lost by chance, in a burst, in an outage
/// ```
///
/// Each peer has a modem of its own, and so has the gateway on each carrier. Modems do not collide: who comes first to a carrier
/// has it first, and the others wait.
#[derive(Debug)]
pub struct Channel {
    profile: Profile,
    impairments: Impairments,
    chance: Chance,
    carriers: BTreeMap<(Option<PeerNumber>, Ways), Carrier>,
    modems: BTreeMap<(Option<PeerNumber>, Ways), Modem>,
    under_way: BTreeMap<(Instant, u64), Arrival>,
    sent: u64,
    up: Traffic,
    down: Traffic,
}

/// Which peer it is, of those on the link.
pub type PeerNumber = u32;

/// A datagram that comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Where it comes out.
    pub to: End,
    /// The peer that it is from or for.
    pub peer: PeerNumber,
    /// Its bytes.
    pub datagram: Vec<u8>,
}

/// What becomes of a datagram that was handed to a modem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When its first bit leaves, if it goes on the air.
    pub start: Instant,
    /// When its last bit has left.
    pub end: Instant,
    /// What then becomes of it.
    pub fate: Fate,
}

/// The end of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes out.
    Arrives(Instant),
    /// It comes out twice.
    ArrivesTwice(Instant, Instant),
    /// A frame of it is lost.
    Lost,
    /// It falls into an outage.
    LostInOutage,
    /// It is longer than the link carries, and never on the air.
    TooLong,
    /// Too many datagrams waited, and it is never on the air.
    Overflowed,
}

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ways {
    Up,
    Down,
    Both,
}

/// What one transmission at a time has for itself.
#[derive(Debug, Default)]
struct Carrier {
    free: Instant,
    last: Option<Ways>,
    /// The state of its bursts, and when it was seen.
    bad: bool,
    seen: Instant,
    audit: Audit,
}

/// What sends in one direction.
#[derive(Debug, Default)]
struct Modem {
    /// When each of those that wait begins.
    waiting: VecDeque<Instant>,
    /// When the last one has left at the earliest, were the carrier free.
    left: Instant,
    /// When the last one comes out, where the order is kept.
    last_arrival: Instant,
    audit: Audit,
}

impl Channel {
    /// The most datagrams on their way at a time.
    const UNDER_WAY: usize = 65_536;

    /// A link at rest. All its chance comes from the seed.
    pub fn new(profile: Profile, impairments: Impairments, seed: u64) -> Self {
        Self {
            profile,
            impairments,
            chance: Chance::new(seed),
            carriers: BTreeMap::new(),
            modems: BTreeMap::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            up: Traffic::default(),
            down: Traffic::default(),
        }
    }

    /// Hands a datagram to the modem of one end, and says what becomes of it.
    pub fn send(&mut self, from: End, peer: PeerNumber, datagram: Vec<u8>, now: Instant) -> Passage {
        let length = datagram.len();
        self.count(from, |traffic| {
            traffic.datagrams += 1;
            traffic.bytes += length as u64;
        });
        let dropped = |fate| Passage { start: now, end: now, fate };
        if !self.profile.fragments && length > self.profile.mtu(from) {
            self.count(from, |traffic| traffic.too_long += 1);
            return dropped(Fate::TooLong);
        }
        let modem = self.modems.entry(self.modem_key(from, peer)).or_default();
        while modem.waiting.front().is_some_and(|start| *start <= now) {
            modem.waiting.pop_front();
        }
        if modem.waiting.len() >= self.impairments.queue || self.under_way.len() >= Self::UNDER_WAY {
            self.count(from, |traffic| traffic.overflowed += 1);
            return dropped(Fate::Overflowed);
        }
        let (start, end) = self.transmit(from, peer, length, now);
        let fate = self.fate(from, peer, length, start, end);
        self.deliver(from, peer, datagram, fate);
        Passage { start, end, fate }
    }

    /// The next datagram that has come out by now.
    pub fn poll(&mut self, now: Instant) -> Option<Arrival> {
        let first = self.under_way.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// When the next datagram comes out.
    pub fn deadline(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// What was sent from one end.
    pub fn traffic(&self, from: End) -> &Traffic {
        match from {
            End::Peer => &self.up,
            End::Gateway => &self.down,
        }
    }

    /// One end, or with one peer, knows nothing any more of what it has sent.
    pub fn begins_anew(&mut self, from: End, peer: Option<PeerNumber>) {
        let all = self.modems.iter_mut().filter(|((of, way), _)| {
            *way == way_from(from) && peer.is_none_or(|peer| of.is_none_or(|of| of == peer))
        });
        all.for_each(|(_, modem)| modem.left = Instant::START);
    }

    /// Transmissions that ended before the rate allows it.
    pub fn violations(&self) -> u64 {
        self.carriers.values().map(|carrier| carrier.audit.violations()).sum()
    }

    /// The longest time that one transmitter of this end was on the air within an hour; zero without a duty cycle.
    pub fn busiest(&self, from: End) -> Duration {
        let modems = self.modems.iter().filter(|((_, way), _)| *way == way_from(from));
        modems.map(|(_, modem)| modem.audit.busiest()).max().unwrap_or_default()
    }

    /// From here on nothing goes wrong, whatever the profile says.
    pub fn heal(&mut self) {
        self.profile.loss = 0.0;
        self.impairments = Impairments { queue: self.impairments.queue, ..Impairments::default() };
    }

    /// Forgets a peer that is gone, but for what is on its way.
    pub fn forget(&mut self, peer: PeerNumber) {
        self.carriers.retain(|(of, _), _| *of != Some(peer));
        self.modems.retain(|(of, _), _| *of != Some(peer));
    }

    /// How long datagrams from this end are on the air.
    pub fn airtime(&self, from: End) -> Airtime {
        let fragment = if self.profile.fragments { self.profile.mtu(from) } else { 0 };
        let (bits_per_second, overhead) = (self.profile.rate(from), self.profile.overhead);
        Airtime { bits_per_second, overhead, fragment, sealing: 0 }
    }

    /// Puts a datagram on the air as soon as its carrier is free; returns when its first bit leaves and its last one has left.
    fn transmit(&mut self, from: End, peer: PeerNumber, length: usize, now: Instant) -> (Instant, Instant) {
        let airtime = self.airtime(from);
        let way = way_from(from);
        let modem_key = self.modem_key(from, peer);
        let carrier = self.carriers.entry(self.carrier_key(from, peer)).or_default();
        let turns = carrier.last.is_some_and(|last| last != way);
        let free = if turns { carrier.free + self.profile.turnaround } else { carrier.free };
        let start = now.max(free);
        let end = start + airtime.of(length);
        carrier.free = end;
        carrier.last = Some(way);
        let bits = airtime.bytes(length) as u64 * 8;
        carrier.audit.transmitted(start, end, bits, airtime.bits_per_second);
        let modem = self.modems.entry(modem_key).or_default();
        if start > now {
            modem.waiting.push_back(start);
        }
        let hurried = now < modem.left;
        modem.left = now + airtime.of(length);
        if self.profile.duty_cycle < 1.0 {
            modem.audit.on_air(start, end);
        }
        self.count(from, |traffic| {
            traffic.transmitted += 1;
            traffic.frames += airtime.frames(length) as u64;
            traffic.air_bytes += airtime.bytes(length) as u64;
            traffic.airtime += airtime.of(length);
            traffic.hurried += u64::from(hurried);
            traffic.longest_wait = traffic.longest_wait.max(start.since(now));
        });
        (start, end)
    }

    fn fate(&mut self, from: End, peer: PeerNumber, length: usize, start: Instant, end: Instant) -> Fate {
        let frames = self.airtime(from).frames(length);
        // Each draws its numbers whatever comes of it, so that one fate does not change those of others.
        let mut lost = false;
        for _ in 0..frames {
            lost |= self.frame_is_lost(from, peer, start);
        }
        let jitter = self.chance.up_to(self.profile.jitter);
        let held = self.chance.happens(self.impairments.reordering);
        let holding = self.chance.up_to(self.impairments.holding);
        let twice = self.chance.happens(self.impairments.duplication);
        let later = self.chance.up_to(self.impairments.holding);
        if self.impairments.outages.iter().any(|outage| outage.takes(start, end)) {
            return Fate::LostInOutage;
        }
        if lost {
            return Fate::Lost;
        }
        let mut arrival = end + self.profile.delay + jitter;
        if held {
            arrival = arrival + holding;
            self.count(from, |traffic| traffic.held += 1);
        } else if !self.impairments.jitter_reorders {
            let modem = self.modems.entry(self.modem_key(from, peer)).or_default();
            arrival = arrival.max(modem.last_arrival);
            modem.last_arrival = arrival;
        }
        if twice { Fate::ArrivesTwice(arrival, arrival + later) } else { Fate::Arrives(arrival) }
    }

    fn frame_is_lost(&mut self, from: End, peer: PeerNumber, start: Instant) -> bool {
        let alone = self.chance.happens(self.impairments.loss.unwrap_or(self.profile.loss));
        let Some(bursts) = self.impairments.bursts else { return alone };
        let (state, loss) = (self.chance.unit(), self.chance.unit());
        let carrier = self.carriers.entry(self.carrier_key(from, peer)).or_default();
        carrier.bad = state < bursts.bad_after(carrier.bad, start.since(carrier.seen));
        carrier.seen = start;
        alone || loss < if carrier.bad { bursts.loss_in_bad } else { bursts.loss_in_good }
    }

    fn deliver(&mut self, from: End, peer: PeerNumber, datagram: Vec<u8>, fate: Fate) {
        let to = from.other();
        self.count(from, |traffic| match fate {
            Fate::Arrives(_) => traffic.delivered += 1,
            Fate::ArrivesTwice(..) => {
                traffic.delivered += 1;
                traffic.duplicated += 1;
            }
            Fate::LostInOutage => traffic.lost_in_outage += 1,
            _ => traffic.lost += 1,
        });
        let (first, second) = match fate {
            Fate::Arrives(at) => (Some(at), None),
            Fate::ArrivesTwice(at, again) => (Some(at), Some(again)),
            _ => (None, None),
        };
        for at in [first, second].into_iter().flatten() {
            self.sent += 1;
            self.under_way.insert((at, self.sent), Arrival { at, to, peer, datagram: datagram.clone() });
        }
    }

    fn count(&mut self, from: End, count: impl FnOnce(&mut Traffic)) {
        match from {
            End::Peer => count(&mut self.up),
            End::Gateway => count(&mut self.down),
        }
    }

    /// Who shares a carrier: all peers or none, both directions or one.
    fn carrier_key(&self, from: End, peer: PeerNumber) -> (Option<PeerNumber>, Ways) {
        let ways = if self.profile.half_duplex { Ways::Both } else { way_from(from) };
        ((!self.profile.shared).then_some(peer), ways)
    }

    /// Whose modem it is: the peer's own, or the gateway's for a carrier.
    fn modem_key(&self, from: End, peer: PeerNumber) -> (Option<PeerNumber>, Ways) {
        let alone = from == End::Peer || !self.profile.shared;
        (alone.then_some(peer), way_from(from))
    }
}

fn way_from(end: End) -> Ways {
    match end {
        End::Peer => Ways::Up,
        End::Gateway => Ways::Down,
    }
}

#[cfg(test)]
mod tests;
