//! Peers below which another layer secures datagrams: by sessions of DTLS, that come and go.
//!
//! Whose a session is, that layer says; here is only what follows for a peer, and room on its link for the layer's own datagrams.

use std::time::Duration;

use super::pacer::{Channel, Queued};
use super::peer::Terms;
use super::{Address, Association, Endpoint, Event};
use crate::coap::{Instant, Outgoing, Priority};

/// To whom a datagram goes that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// To somebody with whom a handshake is under way, or a session.
    Known,
    /// To somebody who may be anybody, and keeps nobody waiting.
    Unknown,
}

impl Endpoint {
    /// A peer has come by a new session: it is here now, and there. What it has sent before with some message ID, it has not sent with
    /// this session (RFC 7252 §9.1.1).
    pub fn arrived(&mut self, association: Association, address: Address, now: Instant) {
        self.devices.in_session.insert(association);
        self.move_peer(association, address);
        self.set_credit(association, None);
        self.with_peer(association, now, |peer, _| {
            peer.exchanges.forget_all_received();
            peer.hear(now);
        });
    }

    /// A device has no session any more: what waits for its turn on the link does not leave.
    pub fn departed(&mut self, association: Association) {
        self.devices.in_session.remove(&association);
    }

    /// A peer that has sent something is where that came from.
    pub(super) fn move_peer(&mut self, association: Association, address: Address) {
        if self.peers.get(&association).is_some_and(|peer| peer.address != address) {
            self.move_to(association, address, true);
        }
    }

    /// Says whether a device comes by sessions, and so needs no keys here.
    pub fn set_session_device(&mut self, association: Association, comes: bool) {
        match comes {
            true => {
                self.admit_device(association);
                self.devices.by_sessions.insert(association)
            }
            false => {
                self.devices.in_session.remove(&association);
                self.devices.by_sessions.remove(&association)
            }
        };
    }

    /// A peer is gone for good, and all that was known of it: its observations end, and its requests need no answer.
    pub fn end_peer(&mut self, association: Association, now: Instant) {
        let theirs = self.observations.iter().filter(|(_, whose)| **whose == association);
        let theirs: Vec<_> = theirs.map(|(id, _)| *id).collect();
        self.dismiss(association, now);
        self.events.extend(theirs.into_iter().map(Event::Deregistered));
    }

    /// Sends a datagram as it is, when it is its turn on the link: from [`Endpoint::poll_raw`].
    pub fn send_raw(&mut self, address: Address, datagram: Vec<u8>, to: Stranger, now: Instant) {
        let terms = Terms::new(&self.config, self.config.link_of(address), address);
        let association = Association::from(address);
        let channel = match (terms.link, &terms.pace) {
            (Some(link), Some(pace)) if pace.shared => Some(Channel::Shared(address.local, link)),
            // Whoever may be anybody gets no channel of his own.
            (Some(link), Some(_)) if to == Stranger::Known => Some(Channel::Own(association, link)),
            _ => None,
        };
        let Some((channel, pace)) = channel.zip(terms.pace) else {
            return self.raw.push_back((address, datagram));
        };
        let mut outgoing = Outgoing::reply(datagram);
        outgoing.priority = match to {
            Stranger::Known => Priority::Reply,
            Stranger::Unknown => Priority::Background,
        };
        let queued = Queued { association, address, outgoing, is_raw: true };
        self.queue(&channel, &pace, queued, now);
        self.flush(now);
    }

    /// The next datagram that goes as it is.
    pub fn poll_raw(&mut self) -> Option<(Address, Vec<u8>)> {
        self.raw.pop_front()
    }

    /// Something has come from an address that is no message: where both ends use one channel by turns, its sender was on the air.
    pub fn heard_raw(&mut self, address: Address, now: Instant) {
        if let Some((channel, pace)) = self.channel(address.into(), address) {
            // How long it took is taken in with what it carries.
            self.pacers.heard(&channel, &pace, Duration::ZERO, now);
        }
    }
}
