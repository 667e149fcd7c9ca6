//! How a run ends: when all has arrived, whether everybody then forgets everybody, and what the link says of itself.

use std::time::Duration;

use super::audit::Audit;
use super::channel::PeerNumber;
use super::peer::Peer;
use super::world::{FORGETTING, SETTLING, Transmission, World};
use crate::gateway::Gateway;
use crate::link::{End, Terms};

impl World {
    /// How long a request may take until it is answered or has failed, with bodies of so many bytes: each of its messages, and the
    /// answer's wait. Where none came nobody knows how long it was to be.
    pub(super) fn lifetime(&self, bytes: Option<usize>) -> Duration {
        const LONGEST: usize = 32 * 1024;
        let Terms { parameters, block, response_timeout, patience, .. } = self.setup.profile.terms(End::Peer);
        let messages = 2 + bytes.unwrap_or(LONGEST).div_ceil(block.bytes());
        let each = parameters.max_transmit_wait() + parameters.max_latency;
        each.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX)) + response_timeout + patience
    }

    /// Whether nobody waits for anything, and every observer has what its room has.
    pub(super) fn is_settled(&self) -> bool {
        let is_idle = |peer: &Peer| peer.unsent() == 0 && peer.waits_since().is_none();
        self.script.actions.is_empty()
            && self.peers.iter().all(is_idle)
            && (0..)
                .zip(&self.peers)
                .all(|(number, peer)| !peer.wants() || peer.is_observing() && self.has_all(number))
    }

    /// Whether a device has all events of its rooms.
    fn has_all(&self, number: PeerNumber) -> bool {
        let user = self.peers.get(number as usize).map_or("", Peer::user);
        let mut rooms = self.homeserver.rooms(user);
        rooms.all(|room| self.oracle.has_all(number, room, &self.homeserver))
    }

    /// Says who still waits, and for what.
    pub(super) fn tell_what_is_missing(&mut self) {
        for number in 0..self.peers.len() as PeerNumber {
            let Some(peer) = self.peers.get(number as usize) else { continue };
            let (unsent, waits) = (peer.unsent(), peer.waits_since());
            let has_all = self.has_all(number);
            let mut wrong = Vec::new();
            if unsent > 0 {
                wrong.push(format!("{unsent} messages are not sent"));
            }
            if waits.is_some() {
                wrong.push("a request waits for its answer".to_owned());
            }
            if peer.wants() && (!peer.is_observing() || !has_all) {
                wrong.push("events have not come".to_owned());
            }
            for what in wrong {
                let days = SETTLING.as_secs() / 86_400;
                self.oracle
                    .violated(format!("peer {number}: {days} days after all was well, {what}"), self.now);
            }
        }
    }

    /// Devices go, and everybody forgets them: tables and queues are empty then.
    pub(super) fn forget(&mut self) {
        for number in 0..self.peers.len() as PeerNumber {
            self.with_peer(number, Peer::leave);
        }
        let is_forgotten = |world: &Self| {
            world.held().iter().all(|(_, held)| *held == 0) && world.channel.deadline().is_none()
        };
        if self.run_until(self.now + FORGETTING, is_forgotten) {
            return;
        }
        let held = self.held().into_iter().filter(|(_, held)| *held > 0);
        let held: Vec<_> = held.map(|(what, held)| format!("{held} {what}")).collect();
        self.oracle.violated(
            format!("idle for long, and not forgotten: the gateway holds {}", held.join(", ")),
            self.now,
        );
    }

    /// What the gateway and the devices hold.
    fn held(&self) -> [(&'static str, usize); 9] {
        let counters = self.gateway.as_ref().map(Gateway::counters).unwrap_or_default();
        [
            ("peers", counters.peers),
            ("sessions", counters.sessions),
            ("observations", counters.observations),
            ("absent ones", counters.absent),
            ("feeds", counters.feeds),
            ("calls", counters.fetching),
            ("datagrams", counters.queued),
            ("records", self.stored()),
            ("devices that hold it", self.peers.iter().filter(|peer| peer.endpoint().peers() > 0).count()),
        ]
    }

    /// What was on the air, and whether it could and might be.
    pub(super) fn audit(&mut self) {
        let positions = self.homeserver.bad_positions();
        if positions > 0 {
            self.oracle
                .violated(format!("the homeserver was asked {positions} times from no position"), self.now);
        }
        if self.setup.transmission == Transmission::Rfc7252 {
            return;
        }
        let profile = &self.setup.profile;
        let mut wrong = Vec::new();
        for end in [End::Gateway, End::Peer] {
            let allowed = Audit::PERIOD.mul_f64(profile.duty_cycle);
            let busiest = self.channel.busiest(end);
            if profile.duty_cycle < 1.0 && busiest > allowed {
                wrong.push(format!("{end:?}: on the air for {busiest:?} in an hour, more than {allowed:?}"));
            }
            let traffic = self.channel.traffic(end);
            let is_paced = profile.terms(end).pace.is_some();
            // What is said to one who is not known to be where it is said is not paced; and who attacks can have it said.
            if is_paced && traffic.hurried > self.oracle.tally().attacks {
                wrong.push(format!(
                    "{end:?}: {} datagrams did not wait until the last had left",
                    traffic.hurried
                ));
            }
            if traffic.overflowed > 0 {
                wrong.push(format!("{end:?}: {} datagrams found the modem full", traffic.overflowed));
            }
        }
        wrong.into_iter().for_each(|what| self.oracle.violated(what, self.now));
    }
}
