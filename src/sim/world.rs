//! A gateway, its devices and its homeserver around one link, on one virtual clock.

mod acting;
mod noting;
mod packed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::chance::Chance;
use super::channel::{Channel, Fate, PeerNumber};
use super::homeserver::{CallId, Homeserver, rich};
use super::ledger::Ledger;
use super::oracle::{Attempt, Oracle};
use super::outcome::Outcome;
use super::peer;
use super::peer::Peer;
use super::script::{Script, ScriptName};
use super::security;
use super::security::{Attacker, Security};
use super::speech;
use super::speech::Encoding;
use super::timeline::{Timeline, describe};
use super::transcript::Transcript;
use crate::coap::{ACKNOWLEDGEMENT, Instant, TransferLimits};
use crate::device::History;
use crate::endpoint;
use crate::endpoint::Address;
use crate::gateway;
use crate::gateway::{FetchError, FetchId, Gateway, Input, Output};
use crate::link::{End, Profile};

use packed::Mishaps;

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
    calls: BTreeMap<CallId, Call>,
    /// When each has no answer in time.
    timeouts: BTreeSet<(Instant, CallId)>,
    next_call: CallId,
    pub(super) homeserver: Homeserver,
    pub(super) channel: Channel,
    pub(super) peers: Vec<Peer>,
    addresses: BTreeMap<SocketAddr, PeerNumber>,
    /// When each device next has something to do, the first one first; and the same by device.
    due: BTreeSet<(Instant, PeerNumber)>,
    due_of: BTreeMap<PeerNumber, Instant>,
    pub(super) oracle: Oracle,
    attacker: Attacker,
    ledger: Ledger,
    timeline: Timeline,
    /// The timeline, until the first exchange is over.
    first: First,
    transcript: Transcript,
    /// What goes wrong with the packed profile beside all else.
    pub(super) mishaps: Mishaps,
    moves: u16,
    kills: u64,
    steps: u64,
}

/// A call of the homeserver, until all has left the gateway that came of its answer.
#[derive(Debug)]
struct Call {
    /// None once it is answered.
    fetch: Option<FetchId>,
    timeout: Instant,
    /// What it makes, where doing so twice does no harm.
    again: Option<Attempt>,
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
    /// What protects messages.
    pub security: Security,
    /// How devices write Matrix.
    pub encoding: Encoding,
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
        let attacked = setup.security != Security::None && setup.script == ScriptName::Chaos;
        if attacked {
            script.under_attack(setup.seed);
        }
        let is_packed = setup.encoding == Encoding::Packed;
        let is_rich = is_packed && setup.script == ScriptName::Chaos;
        if is_rich {
            script.enrich(&setup.profile, setup.seed);
        }
        let mut chance = Chance::new(setup.seed);
        let channel = Channel::new(setup.profile.clone(), script.impairments.clone(), chance.seed());
        let homeserver = "http://homeserver".parse().unwrap_or_default();
        let mut config = gateway::Config::new(homeserver);
        config.endpoint = endpoint_config(&setup.profile, End::Gateway, setup.transmission);
        // Else nobody sends in another's name.
        config.endpoint.trusted = !attacked;
        config.endpoint.durable = script.durable;
        config.endpoint.tell_nonces = true;
        config.shape = script.shape.clone();
        let mishaps = Mishaps::new(&setup);
        if is_packed {
            config.dictionaries = vec![speech::dictionary(setup.seed)];
            config.packed = mishaps.most_ends();
        }
        let mut world = Self {
            now: Instant::START,
            gateway: None,
            config,
            store: BTreeMap::new(),
            fuse: None,
            calls: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            next_call: 0,
            homeserver: Homeserver::default(),
            channel,
            peers: Vec::new(),
            addresses: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            oracle: Oracle::default(),
            attacker: Attacker::default(),
            ledger: Ledger::default(),
            timeline: Timeline::default(),
            first: First::UnderWay,
            transcript: Transcript::new(script.shape.clone()),
            mishaps,
            moves: 0,
            kills: 0,
            steps: 0,
            chance,
            setup,
            script,
        };
        world.gateway = Some(world.new_gateway());
        if is_packed {
            world.homeserver.overhear();
        }
        if is_rich {
            world.homeserver.enrich();
        }
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
            self.check_tables();
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

    /// How many records the gateway has stored, but for those that stay: of keys, and what it and devices know of each other.
    pub(super) fn stored(&self) -> usize {
        self.store.keys().filter(|key| !gateway::is_of_keys(key) && !gateway::is_of_packed(key)).count()
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
            packed: self.packed_tally(),
        }
    }

    /// A gateway that knows the devices' keys, and nothing else yet.
    fn new_gateway(&mut self) -> Gateway {
        let mut gateway = Gateway::new(self.config.clone(), self.chance.machine_seed());
        for number in (0..).take(self.script.devices.len()) {
            let begun = self.store.contains_key(&gateway::record_of_keys(number.into()));
            let history = if begun { History::Begun } else { History::Fresh };
            let Some(device) = self.setup.security.device(number, history) else { break };
            gateway.set_device(&device, self.now);
            gateway.begin_keys(&device.name);
        }
        gateway
    }

    fn populate(&mut self) {
        let profile = &self.setup.profile;
        let security = self.setup.security;
        let mut endpoint = endpoint_config(profile, End::Peer, self.setup.transmission);
        endpoint.durable = security != Security::None;
        endpoint.tell_nonces = true;
        let pause = Duration::from_secs(10).max(profile.terms(End::Peer).parameters.ack_timeout);
        let is_packed = self.setup.encoding == Encoding::Packed;
        let is_rich = is_packed && self.setup.script == ScriptName::Chaos;
        for (number, device) in (0..).zip(self.script.devices.clone()) {
            let encoding = match is_packed && !self.mishaps.is_old(number) {
                true => Encoding::Packed,
                false => Encoding::Msc3079,
            };
            let gateway = Address { remote: GATEWAY, local: (Ipv4Addr::UNSPECIFIED, 0).into() };
            let keys = security.keys(number);
            let config = peer::Config {
                user: format!("@device{number}:example.org"),
                token: format!("syt_device{number}_token"),
                gateway,
                association: keys.as_ref().map_or(gateway.into(), |_| security::association(number)),
                keys,
                endpoint: endpoint.clone(),
                pause,
                refresh: device.refresh,
                limit: device.limit,
                encoding,
                dictionary: speech::dictionary(self.setup.seed),
                is_overheard: is_packed,
                is_rich,
            };
            self.homeserver.add_user(&config.user, &config.token);
            self.homeserver.join(&device.room, &config.user);
            if is_rich {
                rich::ROOMS.into_iter().for_each(|room| self.homeserver.join(room, &config.user));
            }
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
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        [action, gateway, peer, timeout, self.homeserver.deadline(), self.channel.deadline()]
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
        self.overhear();
        while let Some((call, answer)) = self.homeserver.poll() {
            self.call_ends(call, answer);
        }
        while let Some((_, call)) = self.timeouts.first().copied().filter(|(at, _)| *at <= self.now) {
            self.homeserver.abandon(call);
            self.call_ends(call, Err(FetchError::Timeout));
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

    fn call_ends(&mut self, call: CallId, result: Result<http::Response<Bytes>, FetchError>) {
        let Some(Call { fetch, timeout, .. }) = self.calls.get_mut(&call) else { return };
        self.timeouts.remove(&(*timeout, call));
        if let Some(id) = fetch.take() {
            self.tell_gateway(Input::Fetched { id, result });
        }
        self.calls.remove(&call);
    }

    fn seconds(&self) -> f64 {
        self.now.since_start().as_secs_f64()
    }

    pub(super) fn room(&self, peer: PeerNumber) -> String {
        self.script.devices.get(peer as usize).map_or_else(String::new, |device| device.room.clone())
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
                    // All that was to be stored is, so what is sealed may leave, and with a kill before it never would have.
                    self.tell_nonces();
                    // What goes to an address that nobody has any more is lost before the link.
                    if let Some(peer) = self.addresses.get(&address.remote).copied() {
                        self.send(End::Gateway, peer, datagram);
                    }
                }
                Output::Fetch { id, request, timeout } => {
                    self.next_call += 1;
                    let again =
                        self.homeserver.attempt(&request).filter(|_| request.method().is_idempotent());
                    let timeout = self.now + timeout;
                    self.calls.insert(self.next_call, Call { fetch: Some(id), timeout, again });
                    self.timeouts.insert((timeout, self.next_call));
                    self.homeserver.call(self.next_call, request, self.now);
                }
                // There are none here.
                Output::Device { .. } => {}
                Output::Abandon { id } => {
                    let found = self.calls.iter().find(|(_, call)| call.fetch == Some(id));
                    if let Some((number, timeout)) = found.map(|(number, call)| (*number, call.timeout)) {
                        self.calls.remove(&number);
                        self.timeouts.remove(&(timeout, number));
                        self.homeserver.abandon(number);
                    }
                }
            }
            match &mut self.fuse {
                Some(left) if *left <= 1 => self.kill(),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        self.tell_nonces();
    }

    fn tell_nonces(&mut self) {
        while let Some(used) = self.gateway.as_mut().and_then(Gateway::poll_used) {
            self.oracle.sealed(used, self.now);
        }
    }

    /// Does something with a device, and then all that follows from it.
    pub(super) fn with_peer(&mut self, number: PeerNumber, act: impl FnOnce(&mut Peer, Instant)) {
        let Some(peer) = self.peers.get_mut(number as usize) else { return };
        act(peer, self.now);
        let datagrams: Vec<_> = std::iter::from_fn(|| peer.poll_datagram()).collect();
        let notes: Vec<_> = std::iter::from_fn(|| peer.poll_note()).collect();
        std::iter::from_fn(|| peer.poll_used()).for_each(|used| self.oracle.sealed(used, self.now));
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
        if self.setup.security != Security::None {
            self.attacker.hear(from, peer, &datagram);
        }
        let copy = datagram.clone();
        let passage = self.channel.send(from, peer, datagram, self.now);
        let at = self.seconds();
        debug!(at, ?from, peer, what = describe(&copy), fate = ?passage.fate, bytes = base16ct::lower::encode_string(&copy), "sent");
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
}

/// How one end speaks.
fn endpoint_config(profile: &Profile, end: End, transmission: Transmission) -> endpoint::Config {
    let terms = profile.terms(end);
    match transmission {
        Transmission::Link => endpoint::Config::over(&profile.name, terms),
        // Without blocks that the link carries nothing longer would pass at all.
        Transmission::Rfc7252 => {
            let transfers = TransferLimits { block: terms.block, ..TransferLimits::default() };
            endpoint::Config { transfers, ..endpoint::Config::default() }
        }
    }
}

/// The address of a device after so many moves of all.
fn address_of(peer: PeerNumber, moves: u16) -> SocketAddr {
    let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)).wrapping_add(peer));
    SocketAddr::new(host.into(), 5683_u16.wrapping_add(moves))
}
