//! Who has shown to be where its datagrams say, and what others may get (RFC 9175 §2.4, §2.6; RFC 7252 §11.3).
//!
//! A datagram's source may be anybody's. An address at which nobody has repeated an Echo value of ours gets at most three times the
//! bytes that came in its name. An acknowledgement shows nothing: message IDs have 16 bits, and come in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use super::devices::KeysNumber;
use super::peer::{Binding, Reflected};
use super::{Address, Association, Endpoint};
use crate::coap::{Code, Instant, Kind, Message, OptionNumber, Options};
use crate::security::oscore::Challenges;

/// The hosts of which somebody has shown to be there. Of their ports nothing is said: a NAT gives another whenever it likes, and what
/// goes to one of them goes to the same host.
#[derive(Debug)]
pub(super) struct Verified {
    until: BTreeMap<IpAddr, Instant>,
    order: BTreeSet<(Instant, IpAddr)>,
    room: usize,
}

impl Verified {
    /// How long it is remembered: on a slow link it is dear to show it again.
    const LIFETIME: Duration = Duration::from_secs(24 * 3600);

    /// Remembers so many at a time; the oldest goes first. Only who shows to be at an address takes a place.
    pub(super) fn new(room: usize) -> Self {
        Self { until: BTreeMap::new(), order: BTreeSet::new(), room }
    }

    fn contains(&self, host: IpAddr, now: Instant) -> bool {
        self.until.get(&host).is_some_and(|until| now < *until)
    }

    fn insert(&mut self, host: IpAddr, now: Instant) {
        let until = now + Self::LIFETIME;
        if let Some(before) = self.until.insert(host, until) {
            self.order.remove(&(before, host));
        }
        self.order.insert((until, host));
        while self.order.len() > self.room.max(1) {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.until.remove(&oldest);
        }
    }
}

/// What a peer may get of which nobody knows whether it is where it says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    received: usize,
    sent: usize,
    /// The value that is to be repeated.
    echo: [u8; Challenges::LENGTH],
}

impl Credit {
    /// RFC 9175 §2.6 (as RFC 9000 §8): how many bytes may go out for each that came in.
    const FACTOR: usize = 3;

    /// What may be answered to so many bytes.
    pub(super) fn of(received: usize) -> Self {
        Self { received, ..Self::default() }
    }

    /// The bytes that it may still get.
    pub(super) fn left(&self) -> usize {
        self.received.saturating_mul(Self::FACTOR).saturating_sub(self.sent)
    }

    /// Takes so many of them; `false` where there are not as many.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left();
        self.sent += if fits { bytes } else { 0 };
        fits
    }

    /// The options of a challenge.
    pub(super) fn challenge(&self) -> Options {
        challenge(self.echo)
    }
}

fn challenge(echo: [u8; Challenges::LENGTH]) -> Options {
    let mut options = Options::new();
    options.push(OptionNumber::ECHO, echo);
    options
}

/// The answer to a request that has to show where it comes from.
fn challenge_to(request: &Message, echo: [u8; Challenges::LENGTH]) -> Message {
    let (kind, id, token) = (request.kind, request.id, request.token);
    Message { kind, code: Code::UNAUTHORIZED, id, token, options: challenge(echo), payload: Bytes::new() }
}

/// Whom an Echo value is for: what an address is shown by is of no use to show that a message is fresh.
fn subject(host: IpAddr) -> Vec<u8> {
    format!("at {host}").into_bytes()
}

impl Endpoint {
    /// Whether a peer is taken to be where it says: its user said so, or somebody has shown to be there.
    pub(super) fn is_verified(&self, association: Association, address: Address, now: Instant) -> bool {
        match association {
            // A handshake was answered from there.
            Association::Session(_) => return true,
            // Keys show whose a message is, and not where it comes from.
            Association::Plain(_) | Association::Device(_) => {}
        }
        let host = host(address);
        // So it was by a device, where nothing comes but by sessions.
        let in_session = address.is_of(&self.config.sealed);
        in_session || host.is_loopback() || self.config.trusts(address) || self.verified.contains(host, now)
    }

    /// As [`Endpoint::is_verified`], once a message that came from there has been looked at: it may show it.
    pub(super) fn is_shown(
        &mut self,
        association: Association,
        address: Address,
        message: &Message,
        now: Instant,
    ) -> bool {
        if self.is_verified(association, address, now) {
            return true;
        }
        let shown = self.shows(address, message, now);
        if shown {
            self.verified.insert(host(address), now);
            self.counters.verified += 1;
        }
        shown
    }

    /// Whether a message repeats an Echo value that was given out for this address.
    fn shows(&mut self, address: Address, message: &Message, now: Instant) -> bool {
        let echo = message.options.get(OptionNumber::ECHO);
        echo.is_some_and(|echo| self.devices.challenges().is_fresh(&subject(host(address)), echo, now))
    }

    /// Takes in that a message of so many bytes came from a peer, which may get more for it.
    pub(super) fn earn(&mut self, association: Association, address: Address, bytes: usize, now: Instant) {
        let peer = self.peers.get(&association).filter(|peer| peer.address == address);
        if peer.is_none_or(|peer| peer.credit.is_none()) {
            return;
        }
        if self.is_verified(association, address, now) {
            return self.set_credit(association, None);
        }
        let echo = self.devices.challenges().value(&subject(host(address)), now);
        let credit = self.peers.get_mut(&association).and_then(|peer| peer.credit.as_mut());
        if let Some(credit) = credit {
            credit.received = credit.received.saturating_add(bytes);
            credit.echo = echo;
        }
    }

    /// Takes in that a request came from a peer before a restart.
    pub(super) fn recall_credit(&mut self, association: Association, request: &Message, now: Instant) {
        if request.options.get_uint(OptionNumber::OBSERVE) == Some(0) {
            // Or it would not have been passed on.
            return self.set_credit(association, None);
        }
        let Some(address) = self.peers.get(&association).map(|peer| peer.address) else { return };
        self.earn(association, address, request.encode().len(), now);
    }

    /// From now on a peer may get so much; all there is, where there is no credit.
    pub(super) fn set_credit(&mut self, association: Association, credit: Option<Credit>) {
        let Some(peer) = self.peers.get_mut(&association) else { return };
        let before = std::mem::replace(&mut peer.credit, credit);
        // Devices are no strangers, and there are not more of them than have keys.
        if matches!(association, Association::Plain(_)) {
            self.strangers = self.strangers + usize::from(credit.is_some()) - usize::from(before.is_some());
        }
    }

    /// Asks who wants something to show that it is there, and keeps nothing of it.
    pub(super) fn challenge_stranger(
        &mut self,
        address: Address,
        message: &Message,
        length: usize,
        now: Instant,
    ) {
        let echo = self.devices.challenges().value(&subject(host(address)), now);
        let answer = challenge_to(message, echo);
        self.counters.challenges += 1;
        self.answer_stranger(address, message.kind, answer, length, now);
    }

    /// Whether a device may be taken to be at another address now. Where it was told more than it asks for, what it said must not only
    /// be its own, but come from there: who is between could have taken it, and sent it in another's name. That somebody else has
    /// shown to be on that host says nothing of this device.
    pub(super) fn may_move(
        &mut self,
        association: Association,
        address: Address,
        (message, shown): (&Message, bool),
        now: Instant,
    ) -> bool {
        let Some(peer) = self.peers.get(&association) else { return true };
        let same_host = host(peer.address) == host(address);
        let stays = same_host && (shown || peer.credit.is_some()) || peer.is_expendable();
        stays || self.config.trusts(address) || self.shows(address, message, now)
    }

    /// A device moves to an address that it may be at.
    pub(super) fn move_to(&mut self, association: Association, address: Address, shown: bool) {
        let Some(peer) = self.peers.get_mut(&association) else { return };
        let before = peer.move_to(address, &self.config);
        self.devices.leave(association, before);
        self.devices.arrive(association, address);
        self.counters.moved += 1;
        if !shown && host(before) != host(address) {
            self.set_credit(association, Some(Credit::default()));
        }
    }

    /// Asks a device to show that it is at another address than before; until then it stays where it was.
    pub(super) fn challenge_elsewhere(
        &mut self,
        address: Address,
        association: Association,
        (number, request, binding): (KeysNumber, &Message, crate::security::oscore::RequestBinding),
        length: usize,
        now: Instant,
    ) {
        let echo = self.devices.challenges().value(&subject(host(address)), now);
        let answer = challenge_to(request, echo);
        self.counters.challenges += 1;
        let mut sealed = None;
        self.with_peer(association, now, |peer, _| {
            sealed = peer.sealed(answer, Some(&mut Binding::new(number, binding))).ok();
            peer.reflected = sealed.clone().map(|answer| Reflected { address, answer });
        });
        if let Some(sealed) = sealed {
            self.answer_stranger(address, request.kind, sealed, length, now);
        }
    }

    /// Asks so again, where the same request comes again.
    pub(super) fn challenge_again(
        &mut self,
        address: Address,
        association: Association,
        (request, length): (&Message, usize),
        now: Instant,
    ) -> bool {
        let Some(peer) = self.peers.get(&association) else { return false };
        // Where it is known to be, it is not held up for long by one who was faster with what it said.
        let same = |reflected: &&Reflected| {
            (reflected.address == address || peer.address == address)
                && reflected.answer.id == request.id
                && reflected.answer.token == request.token
                && request.kind == Kind::Confirmable
        };
        let Some(answer) = peer.reflected.as_ref().filter(same).map(|reflected| reflected.answer.clone())
        else {
            return false;
        };
        self.answer_stranger(address, request.kind, answer, length, now);
        true
    }
}

fn host(address: Address) -> IpAddr {
    address.remote.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_host_is_remembered_for_a_day_and_the_oldest_makes_room() {
        let [first, second, third] = [1, 2, 3].map(|number| IpAddr::from([192, 0, 2, number]));
        let mut verified = Verified::new(2);
        verified.insert(first, at(0));
        verified.insert(second, at(1));
        assert!(verified.contains(first, at(86_399)));
        assert!(!verified.contains(first, at(86_400)));
        verified.insert(first, at(2));
        verified.insert(third, at(3));
        assert_eq!([first, second, third].map(|host| verified.contains(host, at(4))), [true, false, true]);
        assert_eq!((verified.until.len(), verified.order.len()), (2, 2));
    }

    #[test]
    fn a_credit_is_three_times_what_came() {
        let mut credit = Credit::of(10);
        assert!(!credit.take(31));
        assert!(credit.take(30));
        assert!(!credit.take(1));
        credit.received += 1;
        assert_eq!(credit.left(), 3);
    }
}
