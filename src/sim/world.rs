//! A gateway, its devices and its homeserver around one link, on one virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tracing::debug;

use super::chance::Chance;
use super::channel::{Channel, Fate, PeerNumber};
use super::homeserver::{CallId, Homeserver};
use super::ledger::Ledger;
use super::oracle::Oracle;
use super::outcome::Outcome;
use super::peer;
use super::peer::{Ending, Note, Peer};
use super::script::{Action, RESTART, Script, ScriptName};
use super::timeline::{Timeline, describe};
use crate::coap::{ACKNOWLEDGEMENT, Instant};
use crate::endpoint;
use crate::endpoint::Address;
use crate::gateway;
use crate::gateway::{FetchId, Gateway, Input, Output};
use crate::link::{End, Profile};

/// A run of a script, from its first moment to the last.
#[derive(Debug)]
pub struct World {
    pub(super) setup: Setup,
    pub(super) script: Script,
    pub(super) now: Instant,
    chance: Chance,
    pub(super) gateway: Option<Gateway>,
    config: gateway::Config,
    /// What the gateway has stored, which survives it.
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Outputs of the gateway until it is killed.
    fuse: Option<u64>,
    calls: BTreeMap<CallId, FetchId>,
    next_call: CallId,
    pub(super) homeserver: Homeserver,
    pub(super) channel: Channel,
    pub(super) peers: Vec<Peer>,
    addresses: BTreeMap<SocketAddr, PeerNumber>,
    /// When each device next has something to do, the first one first; and the same by device.
    due: BTreeSet<(Instant, PeerNumber)>,
    due_of: BTreeMap<PeerNumber, Instant>,
    pub(super) oracle: Oracle,
    ledger: Ledger,
    timeline: Timeline,
    /// The timeline, until the first exchange is over.
    first: First,
    moves: u16,
    kills: u64,
    steps: u64,
}

/// What is run, and on which link.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The link.
    pub profile: Profile,
    /// What happens.
    pub script: ScriptName,
    /// How both ends reckon with the link.
    pub transmission: Transmission,
    /// The share of frames that are lost, instead of what the script, or the profile, says.
    pub loss: Option<f64>,
    /// Devices of an idle day.
    pub observers: usize,
    /// All chance comes from this.
    pub seed: u64,
}

/// Where transmission parameters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmission {
    /// From the link's profile.
    Link,
    /// From RFC 7252 §4.8, whatever the link is like.
    Rfc7252,
}

/// How far the first exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    UnderWay,
    Answered,
    Over,
}

/// The gateway's address.
const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5683);
/// Whoever speaks in rooms beside the devices.
const FRIEND: &str = "@friend:example.org";
/// After all has happened: how long everything may take to arrive, and then to be forgotten.
pub(super) const SETTLING: Duration = Duration::from_secs(3 * 24 * 3600);
pub(super) const FORGETTING: Duration = Duration::from_secs(9 * 24 * 3600);
/// A run that takes more steps than that goes nowhere.
const STEPS: u64 = 50_000_000;
/// So does one that takes so many in a moment.
const STEPS_IN_A_MOMENT: u64 = 100_000;

impl World {
    /// A world at its beginning.
    pub fn new(setup: Setup) -> Self {
        let mut script = setup.script.script(&setup.profile, setup.observers, setup.seed);
        script.impairments.loss = setup.loss.or(script.impairments.loss);
        let mut chance = Chance::new(setup.seed);
        let channel = Channel::new(setup.profile.clone(), script.impairments.clone(), chance.seed());
        let homeserver = "http://homeserver".parse().unwrap_or_default();
        let mut config = gateway::Config::new(homeserver);
        config.endpoint = endpoint_config(&setup.profile, End::Gateway, setup.transmission);
        config.endpoint.durable = true;
        let mut world = Self {
            now: Instant::START,
            gateway: Some(Gateway::new(config.clone(), chance.machine_seed())),
            config,
            store: BTreeMap::new(),
            fuse: None,
            calls: BTreeMap::new(),
            next_call: 0,
            homeserver: Homeserver::default(),
            channel,
            peers: Vec::new(),
            addresses: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            oracle: Oracle::default(),
            ledger: Ledger::default(),
            timeline: Timeline::default(),
            first: First::UnderWay,
            moves: 0,
            kills: 0,
            steps: 0,
            chance,
            setup,
            script,
        };
        world.populate();
        world
    }

    /// Runs its script: afterwards all has happened, and the last of it may still be under way.
    pub fn run_script(&mut self) {
        self.run_until(self.script.end, |_| false);
    }

    /// Runs it to its end, and says what came of it.
    pub fn run(mut self) -> Outcome {
        let end = self.script.end;
        self.run_script();
        self.raise();
        let mut settled = self.run_until(self.now + SETTLING, Self::is_settled);
        let took = self.now.since(Instant::START);
        self.channel.heal();
        settled = settled || self.run_until(self.now + SETTLING, Self::is_settled);
        if !settled {
            self.tell_what_is_missing();
        }
        let counters = self.gateway.as_ref().map(Gateway::counters);
        if settled && self.setup.transmission == Transmission::Link {
            self.forget();
        }
        self.audit();
        let scripted = end.since(Instant::START);
        Outcome::new(&self.setup, took, scripted, self.kills, counters, self.parts())
    }

    /// The gateway as it is now, unless it is down; the world goes without one.
    pub fn take_gateway(&mut self) -> Option<Gateway> {
        self.gateway.take()
    }

    /// The homeserver.
    pub fn homeserver(&self) -> &Homeserver {
        &self.homeserver
    }

    fn parts(&self) -> super::outcome::Parts<'_> {
        super::outcome::Parts {
            oracle: &self.oracle,
            ledger: &self.ledger,
            timeline: &self.timeline,
            channel: &self.channel,
            homeserver: &self.homeserver,
        }
    }

    fn populate(&mut self) {
        let profile = &self.setup.profile;
        let endpoint = endpoint_config(profile, End::Peer, self.setup.transmission);
        let pause = Duration::from_secs(10).max(profile.terms(End::Peer).parameters.ack_timeout);
        for (number, device) in (0..).zip(self.script.devices.clone()) {
            let config = peer::Config {
                user: format!("@device{number}:example.org"),
                token: format!("syt_device{number}_token"),
                gateway: Address { remote: GATEWAY, local: (Ipv4Addr::UNSPECIFIED, 0).into() },
                endpoint: endpoint.clone(),
                pause,
                refresh: device.refresh,
                limit: device.limit,
            };
            self.homeserver.add_user(&config.user, &config.token);
            self.homeserver.join(&device.room, &config.user);
            self.addresses.insert(address_of(number, 0), number);
            self.peers.push(Peer::new(config, self.chance.machine_seed()));
        }
    }

    /// Goes on until something is so, or a time has come; says whether it is so.
    pub(super) fn run_until(&mut self, until: Instant, is_so: impl Fn(&Self) -> bool) -> bool {
        let (mut moment, mut here) = (self.now, 0);
        loop {
            if is_so(self) {
                return true;
            }
            let Some(next) = self.next().filter(|next| *next <= until) else {
                self.now = self.now.max(until);
                return is_so(self);
            };
            self.now = self.now.max(next);
            here = if self.now > moment { 0 } else { here + 1 };
            moment = self.now;
            self.steps += 1;
            if here > STEPS_IN_A_MOMENT || self.steps > STEPS {
                self.oracle.violated("the run goes nowhere: a busy loop".to_owned(), self.now);
                return false;
            }
            self.step();
        }
    }

    fn next(&self) -> Option<Instant> {
        let action = self.script.actions.first_key_value().map(|((at, _), _)| *at);
        let gateway = self.gateway.as_ref().and_then(Gateway::deadline);
        let peer = self.due.first().map(|(at, _)| *at);
        [action, gateway, peer, self.homeserver.deadline(), self.channel.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets everything happen that is due now.
    fn step(&mut self) {
        while let Some(first) = self.script.actions.first_entry().filter(|first| first.key().0 <= self.now) {
            let action = first.remove();
            self.act(action);
        }
        self.homeserver.advance(self.now);
        while let Some((call, answer)) = self.homeserver.poll() {
            let Some(id) = self.calls.remove(&call) else { continue };
            self.tell_gateway(Input::Fetched { id, result: answer });
        }
        while let Some(arrival) = self.channel.poll(self.now) {
            match arrival.to {
                End::Gateway => self.arrive_at_gateway(arrival.peer, &arrival.datagram),
                End::Peer => self.with_peer(arrival.peer, |peer, now| peer.handle(&arrival.datagram, now)),
            }
        }
        if let Some(gateway) = &mut self.gateway {
            gateway.advance(self.now);
        }
        self.drain_gateway();
        while let Some((_, peer)) = self.due.first().copied().filter(|(at, _)| *at <= self.now) {
            self.due.pop_first();
            self.due_of.remove(&peer);
            self.with_peer(peer, Peer::advance);
        }
        while let Some(reached) = self.homeserver.poll_reached() {
            self.oracle.reached(&reached, self.now);
        }
    }

    fn act(&mut self, action: Action) {
        let at = self.seconds();
        debug!(at, ?action, "happens");
        match action {
            Action::Send(peer, text) => {
                let room = self.room(peer);
                self.with_peer(peer, |peer, now| peer.send(&room, &text, now));
            }
            Action::Observe(peer) => self.with_peer(peer, Peer::observe),
            Action::Say(peer, text) => {
                let room = self.room(peer);
                self.homeserver.say(&room, FRIEND, &text, self.now);
            }
            Action::Stir => self.homeserver.stir(self.now),
            Action::Kill(outputs) => self.kill_after(outputs),
            Action::Start => self.start(),
            Action::StopHomeserver => self.homeserver.stop(self.now),
            Action::StartHomeserver => self.homeserver.start(),
            Action::Reboot(peer) => {
                let seed = self.chance.machine_seed();
                self.with_peer(peer, |peer, now| peer.reboot(seed, now));
            }
            Action::Move(peer) => {
                self.moves += 1;
                self.addresses.retain(|_, other| *other != peer);
                self.addresses.insert(address_of(peer, self.moves), peer);
                if let Some(moved) = self.peers.get(peer as usize) {
                    self.oracle.moved(moved.user());
                }
                self.with_peer(peer, Peer::moved);
            }
        }
    }

    fn seconds(&self) -> f64 {
        self.now.since_start().as_secs_f64()
    }

    pub(super) fn room(&self, peer: PeerNumber) -> String {
        self.script.devices.get(peer as usize).map_or_else(String::new, |device| device.room.clone())
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
    fn kill(&mut self) {
        self.fuse = None;
        if self.gateway.take().is_none() {
            return;
        }
        self.kills += 1;
        self.oracle.killed();
        std::mem::take(&mut self.calls).into_keys().for_each(|call| self.homeserver.abandon(call));
        self.script.actions.insert((self.now + RESTART, u64::MAX), Action::Start);
    }

    /// Starts the gateway with what it had stored.
    fn start(&mut self) {
        if self.gateway.is_some() {
            return;
        }
        let mut gateway = Gateway::new(self.config.clone(), self.chance.machine_seed());
        gateway.restore(self.store.clone(), self.now);
        self.gateway = Some(gateway);
        self.drain_gateway();
    }

    /// From here on nothing is down.
    fn raise(&mut self) {
        if self.fuse.is_some() {
            self.kill();
        }
        self.start();
        self.homeserver.start();
    }

    fn arrive_at_gateway(&mut self, peer: PeerNumber, datagram: &[u8]) {
        let remote = self.addresses.iter().find(|(_, other)| **other == peer).map(|(address, _)| *address);
        let Some(remote) = remote else { return };
        let address = Address { remote, local: GATEWAY };
        self.tell_gateway(Input::Datagram { address, datagram });
    }

    fn tell_gateway(&mut self, input: Input<'_>) {
        let Some(gateway) = &mut self.gateway else { return };
        gateway.handle(input, self.now);
        self.drain_gateway();
    }

    fn drain_gateway(&mut self) {
        while let Some(output) = self.gateway.as_mut().and_then(Gateway::poll) {
            match output {
                Output::Store { key, value: Some(value) } => drop(self.store.insert(key, value)),
                Output::Store { key, value: None } => drop(self.store.remove(&key)),
                Output::Datagram { address, datagram } => {
                    // What goes to an address that nobody has any more is lost before the link.
                    if let Some(peer) = self.addresses.get(&address.remote).copied() {
                        self.send(End::Gateway, peer, datagram);
                    }
                }
                Output::Fetch { id, request, .. } => {
                    self.next_call += 1;
                    self.calls.insert(self.next_call, id);
                    self.homeserver.call(self.next_call, request, self.now);
                }
                // There are none here.
                Output::Device { .. } => {}
                Output::Abandon { id } => {
                    let call = self.calls.iter().find(|(_, other)| **other == id).map(|(call, _)| *call);
                    if let Some(call) = call {
                        self.calls.remove(&call);
                        self.homeserver.abandon(call);
                    }
                }
            }
            match &mut self.fuse {
                Some(left) if *left <= 1 => self.kill(),
                Some(left) => *left -= 1,
                None => {}
            }
        }
    }

    /// Does something with a device, and then all that follows from it.
    pub(super) fn with_peer(&mut self, number: PeerNumber, act: impl FnOnce(&mut Peer, Instant)) {
        let Some(peer) = self.peers.get_mut(number as usize) else { return };
        act(peer, self.now);
        let datagrams: Vec<_> = std::iter::from_fn(|| peer.poll_datagram()).collect();
        let notes: Vec<_> = std::iter::from_fn(|| peer.poll_note()).collect();
        let due = peer.deadline();
        if let Some(old) = self.due_of.remove(&number) {
            self.due.remove(&(old, number));
        }
        if let Some(due) = due {
            self.due.insert((due, number));
            self.due_of.insert(number, due);
        }
        notes.into_iter().for_each(|note| self.note(number, note));
        datagrams.into_iter().for_each(|datagram| self.send(End::Peer, number, datagram));
    }

    fn send(&mut self, from: End, peer: PeerNumber, datagram: Vec<u8>) {
        let copy = datagram.clone();
        let passage = self.channel.send(from, peer, datagram, self.now);
        let at = self.seconds();
        debug!(at, ?from, peer, what = describe(&copy), fate = ?passage.fate, bytes = hex(&copy), "sent");
        // The last word may be the acknowledgement of what has ended it.
        let is_last = from == End::Peer && copy.len() == ACKNOWLEDGEMENT;
        if peer == 0 && self.first == First::Answered && !is_last {
            self.first = First::Over;
        }
        if peer == 0 && self.first != First::Over {
            self.timeline.enter(from, &copy, passage);
        }
        if !matches!(passage.fate, Fate::TooLong | Fate::Overflowed) {
            self.ledger.enter(from, peer, &copy, self.channel.airtime(from));
        }
    }

    fn note(&mut self, number: PeerNumber, note: Note) {
        let Some(user) = self.peers.get(number as usize).map(|peer| peer.user().to_owned()) else { return };
        let at = self.seconds();
        match &note {
            Note::Delta(_) => debug!(at, peer = number, "applied a delta"),
            note => debug!(at, peer = number, ?note, "told"),
        }
        match note {
            Note::Asked { transaction } => self.oracle.asked(&user, &transaction),
            Note::Ended { transaction, asked, end } => {
                let answered = matches!(end, Ending::Answered(status) if status.is_success());
                if answered && number == 0 && self.first == First::UnderWay {
                    self.first = First::Answered;
                }
                let (took, limit) = (self.now.since(asked), self.lifetime(transaction.is_some()));
                self.oracle.ended(&user, transaction.is_some(), answered, took, limit, self.now);
            }
            Note::Delta(delta) => {
                self.oracle.delta(number, &Value::clone(&delta), &self.homeserver, self.now)
            }
        }
    }
}

/// How one end speaks.
fn endpoint_config(profile: &Profile, end: End, transmission: Transmission) -> endpoint::Config {
    let (mut config, terms) = (endpoint::Config::default(), profile.terms(end));
    match transmission {
        Transmission::Link => {
            config.links.insert(profile.name.clone(), terms);
            config.link = Some(profile.name.clone());
        }
        // Without blocks that the link carries nothing longer would pass at all.
        Transmission::Rfc7252 => config.transfers.block = terms.block,
    }
    config
}

/// For `lowband inspect` to explain.
fn hex(datagram: &[u8]) -> String {
    datagram.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The address of a device after so many moves of all.
fn address_of(peer: PeerNumber, moves: u16) -> SocketAddr {
    let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)).wrapping_add(peer));
    SocketAddr::new(host.into(), 5683_u16.wrapping_add(moves))
}
