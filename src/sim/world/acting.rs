//! What happens to a world: what its script says, and the gateway's death and return.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tracing::debug;

use super::{FRIEND, GATEWAY, World, address_of};
use crate::endpoint::Address;
use crate::gateway::Input;
use crate::link::End;
use crate::sim::channel::PeerNumber;
use crate::sim::peer::Peer;
use crate::sim::script::{Action, RESTART};
use crate::sim::security::{Heard, Security};

/// Where an attacker is who is not in the place of a device.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), 5683);

impl World {
    pub(super) fn act(&mut self, action: Action) {
        let at = self.seconds();
        debug!(at, ?action, "happens");
        let is_plain = self.setup.security == Security::None;
        match action {
            Action::Send(peer, text) => {
                let room = self.room(peer);
                self.with_peer(peer, |peer, now| peer.send(&room, &text, now));
            }
            Action::Post(peer) => self.with_peer(peer, Peer::post),
            Action::Observe(peer) => self.with_peer(peer, Peer::observe),
            Action::Say(peer, text) => {
                let room = self.room(peer);
                let room = self.any_room(room);
                self.homeserver.say(&room, FRIEND, &text, self.now);
            }
            Action::Stir => self.homeserver.stir(self.now),
            Action::Kill(outputs) => self.kill_after(outputs),
            Action::Start => self.start(),
            Action::StopHomeserver => self.homeserver.stop(self.now),
            Action::StartHomeserver => self.homeserver.start(),
            Action::Trouble(trouble) => self.homeserver.trouble(trouble),
            Action::Reboot(peer) => {
                self.channel.begins_anew(End::Peer, Some(peer));
                let seed = self.chance.machine_seed();
                self.with_peer(peer, |peer, now| peer.reboot(seed, now));
            }
            Action::Lose(peer) => {
                self.channel.begins_anew(End::Peer, Some(peer));
                if let Some(lost) = self.peers.get(peer as usize) {
                    self.oracle.lost(lost.user());
                }
                let seed = self.chance.machine_seed();
                self.with_peer(peer, |peer, now| peer.lose(seed, now));
            }
            Action::Question(peer, kind) => self.with_peer(peer, |peer, now| peer.question(kind, now)),
            Action::Move(peer) => {
                self.moves += 1;
                self.channel.begins_anew(End::Gateway, Some(peer));
                self.addresses.retain(|_, other| *other != peer);
                self.addresses.insert(address_of(peer, self.moves), peer);
                if let Some(moved) = self.peers.get(peer as usize).filter(|_| is_plain) {
                    self.oracle.moved(moved.user());
                }
                self.with_peer(peer, Peer::moved);
            }
            Action::Attack => self.attack(),
        }
    }

    /// Somebody says again what was on the link: to the gateway from anywhere, to a device in the gateway's name, which it would not
    /// listen to otherwise.
    fn attack(&mut self) {
        let Some(heard) = self.attacker.choose(&mut self.chance) else { return };
        let is_empty = heard.is_empty();
        let Heard { from, peer, datagram } = heard;
        self.oracle.attacked();
        let at = self.seconds();
        debug!(at, ?from, peer, bytes = base16ct::lower::encode_string(&datagram), "said again");
        // Now and then it goes back to where it came from, or to another device.
        let to_gateway = (from == End::Peer) != self.chance.happens(0.1);
        let other = self.chance.below(self.peers.len() as u64) as PeerNumber;
        let peer = if self.chance.happens(0.2) && !is_empty { other } else { peer };
        if !to_gateway {
            return self.with_peer(peer, |peer, now| peer.handle(&datagram, now));
        }
        let known = self.addresses.iter().find(|(_, number)| **number == peer).map(|(address, _)| *address);
        let remote = known.filter(|_| self.chance.happens(0.7)).unwrap_or(NOBODY);
        self.tell_gateway(Input::Datagram {
            address: Address { remote, local: GATEWAY },
            datagram: &datagram,
        });
    }

    /// So many kills as are ordered come about: one that still waits for outputs comes before the next, and one while the gateway is
    /// down once it is up again.
    fn kill_after(&mut self, outputs: u64) {
        if self.fuse.is_some() {
            self.kill();
        }
        match outputs {
            0 if self.gateway.is_some() => self.kill(),
            _ => self.fuse = Some(outputs.max(1)),
        }
    }

    /// As `kill -9`: everything that the gateway has not given away is gone.
    pub(super) fn kill(&mut self) {
        self.fuse = None;
        if self.gateway.take().is_none() {
            return;
        }
        self.kills += 1;
        self.channel.begins_anew(End::Gateway, None);
        let calls = std::mem::take(&mut self.calls);
        self.timeouts.clear();
        match self.config.endpoint.durable {
            true => self.oracle.killed(calls.values().filter_map(|call| call.again.as_ref())),
            false => self.oracle.killed_without_a_trace(),
        }
        calls.into_keys().for_each(|call| self.homeserver.abandon(call));
        self.script.actions.insert((self.now + RESTART, u64::MAX), Action::Start);
    }

    /// Starts the gateway with what it had stored.
    fn start(&mut self) {
        if self.gateway.is_some() {
            return;
        }
        self.meet_mishaps();
        let mut gateway = self.new_gateway();
        gateway.restore(self.store.clone(), self.now);
        self.gateway = Some(gateway);
        self.drain_gateway();
    }

    /// From here on nothing is down.
    pub(super) fn raise(&mut self) {
        if self.fuse.is_some() {
            self.kill();
        }
        self.start();
        self.homeserver.start();
        self.homeserver.trouble(None);
    }
}
