//! What leaves an endpoint, and when: each datagram by way of its channel's queue, where its link is known.

use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::pacer::{Channel, Queued};
use super::peer::{Peer, Terms};
use super::{Address, Association, Endpoint};
use crate::coap::{Code, ExchangeId, Instant, Message, Options, Outgoing};
use crate::link::Pace;

impl Endpoint {
    /// Sends a datagram to a peer, at once or when it is its turn.
    pub(super) fn send(
        &mut self,
        association: Association,
        address: Address,
        mut outgoing: Outgoing,
        now: Instant,
    ) {
        let Some((channel, pace)) = self.channel(association, address) else {
            return self.depart(association, address, outgoing, now);
        };
        let length = outgoing.datagram.len();
        if length > pace.mtu {
            self.counters.too_long += 1;
            debug!(remote = %address.remote, length, mtu = pace.mtu, "datagram does not fit into the link");
            if let Some((peer, exchange)) = self.sender(association, &outgoing)
                && peer.too_long(exchange, length, pace.mtu, now)
            {
                return;
            }
            // Whoever waits for an answer is told that it does not fit.
            let Some(short) = instead_of(&outgoing.datagram) else { return };
            outgoing.datagram = short;
        }
        if let Some((peer, exchange)) = self.sender(association, &outgoing) {
            peer.exchanges.held(exchange);
        }
        self.queue(&channel, &pace, Queued { association, address, outgoing, is_raw: false }, now);
    }

    /// Puts a datagram into its channel's queue.
    pub(super) fn queue(&mut self, channel: &Channel, pace: &Pace, queued: Queued, now: Instant) {
        let given_way = self.pacers.push(channel, pace, queued, now);
        if let Some(Queued { association, outgoing, .. }) = given_way {
            // As if it had left and was lost: what is repeated is tried again.
            self.counters.overflowed += 1;
            if let Some((peer, exchange)) = self.sender(association, &outgoing) {
                peer.exchanges.kept_back(exchange, now);
                self.place(association);
            }
        }
    }

    /// Sends what may leave now.
    pub(super) fn flush(&mut self, now: Instant) {
        while let Some((channel, queued)) = self.pacers.pop(now) {
            if queued.is_raw {
                let airtime = self.pacers.depart(&channel, &queued, now);
                self.counters.sent_airtime_ms += milliseconds(airtime);
                self.raw.push_back((queued.address, queued.outgoing.datagram));
                continue;
            }
            let association = queued.association;
            if !self.is_of_use(association, &queued.outgoing, now) {
                self.counters.stale += 1;
                self.touch(association, now, |peer, _| {
                    queued
                        .outgoing
                        .exchange
                        .into_iter()
                        .for_each(|exchange| peer.exchanges.give_up(exchange, now));
                });
                continue;
            }
            let airtime = self.pacers.depart(&channel, &queued, now);
            self.counters.sent_airtime_ms += milliseconds(airtime);
            if let Some(peer) = self.peers.get_mut(&association) {
                peer.airtime.sent += airtime;
            }
            self.devices.spend(association, airtime);
            self.depart(association, queued.address, queued.outgoing, now + airtime);
        }
    }

    /// Takes in that a datagram of so many bytes came from a peer.
    pub(super) fn heard(&mut self, association: Association, address: Address, length: usize, now: Instant) {
        let peer = self.peers.get(&association);
        let airtime = peer.map(|peer| peer.exchanges.parameters().receiving.of(length)).unwrap_or_default();
        if let Some((channel, pace)) = self.channel(association, address) {
            self.pacers.heard(&channel, &pace, airtime, now);
        }
        self.earn(association, address, length, now);
        if let Some(peer) = self.peers.get_mut(&association) {
            peer.airtime.received += airtime;
            self.devices.spend(association, airtime);
            self.counters.received_airtime_ms += milliseconds(airtime);
        }
    }

    /// Whether a peer may get a datagram. One that it may not is as if it had left and was lost.
    pub(super) fn may_get(&mut self, association: Association, outgoing: &Outgoing, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&association) else { return true };
        let Some(credit) = &mut peer.credit else { return true };
        let fits = credit.take(outgoing.datagram.len());
        if !fits {
            self.counters.withheld += 1;
            outgoing.exchange.into_iter().for_each(|exchange| peer.exchanges.kept_back(exchange, now));
        }
        fits
    }

    /// A datagram leaves: its first bit at once, its last then.
    fn depart(&mut self, association: Association, address: Address, outgoing: Outgoing, last_bit: Instant) {
        let length = outgoing.datagram.len() as u64;
        self.counters.sent_datagrams += 1;
        self.counters.sent_bytes += length;
        if outgoing.repeat {
            self.counters.repeated_bytes += length;
        }
        if let Some((peer, exchange)) = self.sender(association, &outgoing) {
            peer.exchanges.departed(exchange, last_bit);
            self.place(association);
        }
        self.datagrams.push_back((association, address, outgoing.datagram));
    }

    /// The exchange that a datagram is of, if any, and whose it is, if it is still here.
    fn sender(&mut self, association: Association, outgoing: &Outgoing) -> Option<(&mut Peer, ExchangeId)> {
        let exchange = outgoing.exchange?;
        Some((self.peers.get_mut(&association)?, exchange))
    }

    /// Whether a datagram that has waited still means something to its peer.
    fn is_of_use(&self, association: Association, outgoing: &Outgoing, now: Instant) -> bool {
        let expired = outgoing.expires.is_some_and(|expires| expires <= now);
        let open =
            |exchange| self.peers.get(&association).is_some_and(|peer| peer.exchanges.is_open(exchange));
        let is_over = match association {
            Association::Session(_) => !self.peers.contains_key(&association),
            _ => self.devices.is_cut_off(association),
        };
        !expired && !is_over && self.devices.may_speak(association) && outgoing.exchange.is_none_or(open)
    }

    /// The channel of a peer, where its link is known and limits what may be sent.
    pub(super) fn channel(&self, association: Association, address: Address) -> Option<(Channel, Pace)> {
        // What is said to nobody in particular where a device is goes over the device's link.
        let association = match association {
            Association::Plain(_) => self.devices.at(address).next().unwrap_or(association),
            known => known,
        };
        let terms = match self.peers.get(&association) {
            Some(peer) => peer.terms.clone(),
            None => Terms::new(&self.config, self.config.link_of(address), address),
        };
        let (link, pace) = (terms.link?, terms.pace?);
        let own = Channel::Own(association, link.clone());
        // Strangers share one, and make no state; but what was sent to one that has just been forgotten is still on the air.
        let has_own = self.peers.contains_key(&association) || self.pacers.contains(&own);
        let channel = if !pace.shared && has_own { own } else { Channel::Shared(address.local, link) };
        Some((channel, pace))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is said in the place of a response that is too long for the link.
fn instead_of(datagram: &[u8]) -> Option<Vec<u8>> {
    let response = Message::decode(datagram).ok().filter(|message| message.code.is_response())?;
    let (code, options, payload) = (Code::INTERNAL_SERVER_ERROR, Options::new(), Bytes::new());
    Some(Message { code, options, payload, ..response }.encode())
}
