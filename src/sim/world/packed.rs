//! What can go wrong with the packed profile beside all else, and what must hold of it.

use serde_json::Value;

use super::{Setup, World, address_of};
use crate::endpoint::{Address, Association};
use crate::gateway;
use crate::packed;
use crate::packed::Tables;
use crate::sim::chance::Chance;
use crate::sim::channel::PeerNumber;
use crate::sim::homeserver::{Overheard, rich};
use crate::sim::script::ScriptName;
use crate::sim::security;
use crate::sim::security::Security;
use crate::sim::speech::{Encoding, PackedTally};

/// Gateways that do not speak the profile, or have room for one peer, or lose what they knew; devices that do not speak it.
#[derive(Debug)]
pub(in crate::sim) struct Mishaps {
    chance: Chance,
    /// Whether any of it happens.
    happen: bool,
    most: usize,
    pub(super) tally: PackedTally,
}

/// How many peers a gateway has room for.
const ROOM: usize = 1_000;

impl Mishaps {
    pub(super) fn new(setup: &Setup) -> Self {
        let mut chance = Chance::new(setup.seed ^ 0x6d69_7368_6170);
        let happen = setup.encoding == Encoding::Packed && setup.script == ScriptName::Chaos;
        let most = match chance.below(10) {
            0 if happen => 0,
            1 | 2 if happen => 1,
            _ => ROOM,
        };
        Self { chance, happen, most, tally: PackedTally::default() }
    }

    /// How many peers the gateway has room for.
    pub(super) fn most_ends(&self) -> usize {
        self.most
    }

    /// Whether a device does not speak the profile.
    pub(super) fn is_old(&mut self, peer: PeerNumber) -> bool {
        self.chance.happens(0.15) && self.happen && peer > 0
    }

    /// The gateway starts: how many peers it has room for, and whether it has lost what it knew.
    fn start(&mut self) -> (usize, bool) {
        let (is_renewed, has_lost) = (self.chance.happens(0.5), self.chance.happens(0.3));
        if self.most == 0 && is_renewed {
            self.most = ROOM;
        }
        (self.most, has_lost && self.happen)
    }
}

impl World {
    /// A gateway is about to start.
    pub(super) fn meet_mishaps(&mut self) {
        if self.setup.encoding != Encoding::Packed {
            return;
        }
        let (most, has_lost) = self.mishaps.start();
        self.config.packed = most;
        if has_lost {
            let before = self.store.len();
            self.store.retain(|key, _| !gateway::is_of_packed(key));
            self.mishaps.tally.lost_ends += u64::from(self.store.len() < before);
        }
    }

    /// The room of a device, or another that it is in.
    pub(super) fn any_room(&mut self, room: String) -> String {
        let place = self.mishaps.chance.below(8) as usize;
        let other = rich::ROOMS.get(place).filter(|_| self.mishaps.happen);
        other.map_or(room, |other| (*other).to_owned())
    }

    /// A device has read an answer.
    pub(super) fn compare(&mut self, number: PeerNumber, user: &str, path: &str, told: &Value) {
        if self.setup.encoding != Encoding::Packed {
            return;
        }
        let has_lost = self.peers.get(number as usize).is_some_and(|peer| peer.has_lost());
        let read = self.transcript.reads(user, path, told, has_lost);
        self.judge(read);
    }

    /// Compares what was said with what has come.
    pub(super) fn overhear(&mut self) {
        while let Some(overheard) = self.homeserver.poll_overheard() {
            match overheard {
                Overheard::Answered(answered) => self.transcript.answers(answered),
                Overheard::Asked(said) => {
                    let reached = self.transcript.reaches(&said);
                    self.judge(reached);
                }
            }
        }
    }

    fn judge(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.oracle.violated(what, self.now);
        }
    }

    /// What the ends may go on with is the same at both, or they know that it is not.
    pub(super) fn check_tables(&mut self) {
        for number in 0..self.peers.len() as PeerNumber {
            let peer = match self.setup.security {
                Security::None => {
                    let found = self.addresses.iter().find(|(_, other)| **other == number);
                    let remote = found.map_or(address_of(number, 0), |(address, _)| *address);
                    Association::Plain(Address { remote, local: super::GATEWAY })
                }
                Security::Oscore => security::association(number),
            };
            let theirs = self.gateway.as_ref().and_then(|gateway| gateway.packed_end(peer));
            let own = self.peers.get(number as usize).filter(|peer| peer.is_packed());
            let Some(own) = own else { continue };
            let (Some(own), Some(theirs)) = (own.end(), theirs) else {
                self.mishaps.tally.apart += 1;
                continue;
            };
            match packed::check(own, theirs) {
                Ok(Tables::Apart) => self.mishaps.tally.apart += 1,
                Ok(Tables::Equal(shared)) => {
                    self.mishaps.tally.equal += 1;
                    self.mishaps.tally.shared += shared as u64;
                }
                Err(unequal) => {
                    self.oracle.violated(format!("peer {number} and the gateway: {unequal}"), self.now);
                }
            }
        }
    }

    /// What became of the profile, if devices spoke it.
    pub(super) fn packed_tally(&self) -> Option<PackedTally> {
        if self.setup.encoding != Encoding::Packed {
            return None;
        }
        let mut tally = self.mishaps.tally;
        tally.compared += self.transcript.compared();
        self.peers.iter().for_each(|peer| tally.add(&peer.packed()));
        Some(tally)
    }
}
