//! What happens in a run: who says what and when, and what breaks.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::chance::Chance;
use super::channel::PeerNumber;
use super::homeserver::Trouble;
use super::impairments::{Bursts, Impairments, Outage};
use crate::coap::Instant;
use crate::link::{End, Profile};
use crate::matrix::shape::Shape;

/// A run, as it is planned.
#[derive(Clone, Debug)]
pub struct Script {
    /// The devices, by number.
    pub devices: Vec<Device>,
    /// What happens, in order.
    pub actions: BTreeMap<(Instant, u64), Action>,
    /// What is wrong with the link.
    pub impairments: Impairments,
    /// Whether the gateway stores what must survive it.
    pub durable: bool,
    /// What the gateway leaves out of `/sync`.
    pub shape: Option<Shape>,
    /// When all has happened, and the link is well again.
    pub end: Instant,
}

/// A device, as it begins.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// The room that it talks in.
    pub room: String,
    /// After so long a silence it registers again, if ever.
    pub refresh: Option<Duration>,
    /// Events of a room that it wants at a time, if it says so.
    pub limit: Option<usize>,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A device has a message to send.
    Send(PeerNumber, String),
    /// A device has something to ask for by POST.
    Post(PeerNumber),
    /// A device observes from now on.
    Observe(PeerNumber),
    /// Somebody else says something in the room of a device.
    Say(PeerNumber, String),
    /// Something happens at the homeserver that concerns nobody here.
    Stir,
    /// The gateway is killed after so many more of its outputs, and starts again a while later.
    Kill(u64),
    /// The gateway starts.
    Start,
    /// The homeserver goes down.
    StopHomeserver,
    /// The homeserver comes up.
    StartHomeserver,
    /// The homeserver fails so from now on, or not any more.
    Trouble(Option<Trouble>),
    /// A device starts anew.
    Reboot(PeerNumber),
    /// A device has a new address.
    Move(PeerNumber),
    /// A device asks something that makes nothing, of this kind.
    Question(PeerNumber, u64),
    /// A device starts anew, and has lost what it and the gateway knew of each other.
    Lose(PeerNumber),
    /// An attacker says again what was on the link, as it was or changed.
    Attack,
}

/// The scripts that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScriptName {
    /// One device sends ten messages, one after the other.
    SendTen,
    /// One device observes a day of chat, with three outages of an hour and one kill of the gateway.
    SyncDay,
    /// One device observes and sends through an outage, a reboot, a new address, and restarts of gateway and homeserver.
    Reconnect,
    /// One device observes and sends, and for each of a hundred messages the gateway is killed before it is acknowledged.
    KillHundred,
    /// Devices that observe for a day in which next to nothing happens.
    IdleDay,
    /// Some devices, and everything that can go wrong, at random.
    Chaos,
}

impl ScriptName {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::SendTen, Self::SyncDay, Self::Reconnect, Self::KillHundred, Self::IdleDay, Self::Chaos];

    /// The run of this name. `observers` is how many devices an idle day has.
    pub fn script(self, profile: &Profile, observers: usize, seed: u64) -> Script {
        match self {
            Self::SendTen => send_ten(),
            Self::SyncDay => sync_day(),
            Self::Reconnect => reconnect(),
            Self::KillHundred => kill_hundred(profile, seed),
            Self::IdleDay => idle_day(observers, seed),
            Self::Chaos => chaos(profile, seed),
        }
    }

    /// What happens in it, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Self::SendTen => "one device sends ten messages, one after the other",
            Self::SyncDay => {
                "one device observes a day of chat, with three outages of an hour and one kill of the gateway"
            }
            Self::Reconnect => {
                "one device goes through an outage, a reboot, a new address, and restarts of gateway and homeserver"
            }
            Self::KillHundred => {
                "one device observes and sends, and the gateway is killed at each of a hundred messages"
            }
            Self::IdleDay => "devices observe for a day in which next to nothing happens",
            Self::Chaos => "some devices, and everything that can go wrong, at random",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SendTen => "send-ten",
            Self::SyncDay => "sync-day",
            Self::Reconnect => "reconnect",
            Self::KillHundred => "kill-hundred",
            Self::IdleDay => "idle-day",
            Self::Chaos => "chaos",
        }
    }
}

impl fmt::Display for ScriptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ScriptName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|script| script.name() == text).ok_or(format!("there are {names}"))
    }
}

/// How long the gateway is gone after a kill.
pub(super) const RESTART: Duration = Duration::from_secs(5);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const ROOM: &str = "!kitchen:example.org";
/// Where a message and its answer take longer, devices want little at a time.
const NARROW: Duration = Duration::from_secs(600);

impl Script {
    fn new(devices: Vec<Device>) -> Self {
        Self {
            devices,
            actions: BTreeMap::new(),
            impairments: Impairments::default(),
            durable: true,
            shape: None,
            end: Instant::START,
        }
    }

    fn at(&mut self, time: Duration, action: Action) {
        let number = self.actions.len() as u64;
        let at = Instant::START + time;
        self.actions.insert((at, number), action);
        self.end = self.end.max(at);
    }

    /// Protected as it is, with attacks all over it. Keys need what is stored: a gateway that forgets uses their nonces twice.
    pub(super) fn under_attack(&mut self, seed: u64) {
        let mut chance = Chance::new(seed ^ 0x6174_7461_636b);
        self.durable = true;
        let whole = self.end.since(Instant::START);
        for _ in 0..20 + chance.below(80) {
            // Often several at once: what is under way is the most of use to an attacker.
            let moment = chance.up_to(whole);
            (0..=chance.below(4)).for_each(|_| self.at(moment, Action::Attack));
        }
    }

    /// With more to ask, in more rooms, and devices that lose what they knew. Where so much can be lost the last word of an observation can
    /// be too: devices ask again by themselves.
    pub(super) fn enrich(&mut self, profile: &Profile, seed: u64) {
        let mut chance = Chance::new(seed ^ 0x7061_636b_6564);
        let whole = self.end.since(Instant::START);
        let devices = self.devices.len() as u64;
        let refresh = 50 * exchange(profile).max(Duration::from_secs(30));
        self.devices.iter_mut().for_each(|device| device.refresh = Some(refresh));
        for _ in 0..6 + chance.below(12) {
            let (moment, peer) = (chance.up_to(whole), chance.below(devices) as PeerNumber);
            let action = match chance.below(12) {
                0 => Action::Lose(peer),
                1 | 2 => Action::Reboot(peer),
                3 => Action::Kill(chance.below(4)),
                _ => Action::Question(peer, chance.below(6)),
            };
            self.at(moment, action);
        }
    }

    fn outage(&mut self, from: Duration, length: Duration) {
        let from = Instant::START + from;
        self.impairments.outages.push(Outage { from, until: from + length });
        self.end = self.end.max(from + length);
    }
}

fn send_ten() -> Script {
    let mut script = Script::new(vec![Device { room: ROOM.to_owned(), ..Device::default() }]);
    for number in 1..=10 {
        script.at(Duration::ZERO, Action::Send(0, format!("Hello World {number}")));
    }
    script
}

fn sync_day() -> Script {
    let device = Device { room: ROOM.to_owned(), ..Device::default() };
    let mut script = Script::new(vec![device]);
    script.at(Duration::ZERO, Action::Observe(0));
    for number in 1..=144 {
        script.at(number * 10 * MINUTE, Action::Say(0, format!("Message {number} of the day")));
    }
    [4, 11, 19].into_iter().for_each(|hour| script.outage(hour * HOUR + 5 * MINUTE, HOUR));
    // While a message is on its way.
    script.at(14 * HOUR + Duration::from_secs(12), Action::Kill(0));
    script
}

fn reconnect() -> Script {
    let device = Device { room: ROOM.to_owned(), ..Device::default() };
    let mut script = Script::new(vec![device]);
    script.at(Duration::ZERO, Action::Observe(0));
    for number in 1..=48 {
        script.at(number * 5 * MINUTE, Action::Say(0, format!("Message {number}")));
    }
    for number in 1..=8 {
        script.at(number * 30 * MINUTE - MINUTE, Action::Send(0, format!("Report {number}")));
    }
    script.outage(35 * MINUTE, 20 * MINUTE);
    script.at(80 * MINUTE, Action::Reboot(0));
    script.at(120 * MINUTE, Action::Move(0));
    script.at(180 * MINUTE, Action::Kill(0));
    script.at(210 * MINUTE, Action::StopHomeserver);
    script.at(215 * MINUTE, Action::StartHomeserver);
    script
}

/// Each kill comes at a random moment after the homeserver had something new: while the notification waits, is under way, or its
/// acknowledgement is.
fn kill_hundred(profile: &Profile, seed: u64) -> Script {
    let mut script = Script::new(vec![Device { room: ROOM.to_owned(), ..Device::default() }]);
    let mut chance = Chance::new(seed ^ 0x6b69_6c6c);
    let unit = exchange(profile).max(Duration::from_secs(1));
    script.at(Duration::ZERO, Action::Observe(0));
    for number in 1..=100 {
        let moment = number * 20 * unit.max(RESTART);
        let action = match number % 4 {
            0 => Action::Send(0, format!("Report {number}")),
            _ => Action::Say(0, format!("Message {number}")),
        };
        script.at(moment, action);
        script.at(moment + chance.up_to(unit), Action::Kill(chance.below(3)));
    }
    script
}

fn idle_day(observers: usize, seed: u64) -> Script {
    let device = |number| Device { room: format!("!room{number}:example.org"), ..Device::default() };
    let mut script = Script::new((0..observers).map(device).collect());
    let mut chance = Chance::new(seed);
    for peer in (0..observers).filter_map(|number| PeerNumber::try_from(number).ok()) {
        script.at(chance.up_to(HOUR), Action::Observe(peer));
        script.at(HOUR + chance.up_to(23 * HOUR), Action::Say(peer, "Good morning".to_owned()));
    }
    (1..24).for_each(|hour| script.at(hour * HOUR, Action::Stir));
    script.at(24 * HOUR, Action::Stir);
    script
}

/// Some hours, as the link counts them: on a slow one everything is rarer.
fn chaos(profile: &Profile, seed: u64) -> Script {
    let mut chance = Chance::new(seed ^ 0x6368_616f_7300);
    let unit = exchange(profile).max(Duration::from_secs(30));
    let devices = 1 + chance.below(3);
    // A message is heard by all devices. More than the link carries could be said, and would never arrive.
    let interval = unit * (2 + 2 * devices as u32);
    let is_narrow = unit > NARROW;
    let durable = chance.happens(0.8);
    // A gateway that forgets has to be asked again.
    let refresh = (!durable || chance.happens(0.2)).then(|| 50 * unit);
    let device = |limit| Device { room: ROOM.to_owned(), refresh, limit };
    let limits: Vec<_> = (0..devices)
        .map(|_| (chance.happens(0.3) || is_narrow).then(|| 1 + chance.below(5) as usize))
        .collect();
    let mut script = Script::new(limits.into_iter().map(device).collect());
    script.impairments = impairments(&mut chance, unit);
    script.durable = durable;
    script.shape = match chance.below(5) {
        0 => Shape::preset("quiet"),
        1 => Shape::preset("lean"),
        _ => None,
    };
    for peer in 0..devices as PeerNumber {
        script.at(chance.up_to(5 * unit), Action::Observe(peer));
    }
    let mut now = Duration::ZERO;
    for number in 0..10 + chance.below(30) {
        now += chance.wait(interval);
        let peer = chance.below(devices) as PeerNumber;
        let action = match chance.below(23) {
            // A long one takes its time, to the gateway and to all devices.
            0 => {
                let bytes = if is_narrow { 300 } else { 500 + chance.below(1_500) as usize };
                script.at(now, Action::Send(peer, long_report(number, bytes)));
                now += unit * (bytes as u32 / 200) * (1 + devices as u32);
                continue;
            }
            1..=5 => Action::Send(peer, format!("Report {number}")),
            6 if !is_narrow => Action::Say(peer, long_report(number, 200 + chance.below(800) as usize)),
            6..=12 => Action::Say(peer, format!("Message {number}")),
            13 => Action::Stir,
            14 | 15 => Action::Kill(chance.below(4)),
            16 => Action::Reboot(peer),
            17 => Action::Move(peer),
            18 => {
                script.at(now, Action::StopHomeserver);
                now += chance.wait(2 * unit);
                Action::StartHomeserver
            }
            19 => {
                script.at(now, Action::Trouble(Some(trouble(&mut chance, refresh.is_some()))));
                now += chance.wait(2 * unit);
                Action::Trouble(None)
            }
            20 | 21 => Action::Post(peer),
            _ => {
                let length = chance.up_to(20 * unit);
                script.outage(now, length);
                continue;
            }
        };
        script.at(now, action);
    }
    script
}

/// A report in many blocks.
fn long_report(number: u64, bytes: usize) -> String {
    let lines = (0..).map(|line| format!("\nReport {number}, line {line}: all is well."));
    let mut report = String::new();
    for line in lines {
        if report.len() + line.len() > bytes {
            return report;
        }
        report.push_str(&line);
    }
    report
}

/// An answer that is too large ends observations. A device that loses the last word of one waits for ever, unless it asks again by itself.
fn trouble(chance: &mut Chance, asks_again: bool) -> Trouble {
    match chance.below(4) {
        0 => Trouble::Busy,
        1 => Trouble::Broken,
        2 if asks_again => Trouble::TooLarge,
        _ => Trouble::Silent,
    }
}

fn impairments(chance: &mut Chance, unit: Duration) -> Impairments {
    let bursts = Bursts { good: 20 * unit, bad: 2 * unit, loss_in_good: 0.0, loss_in_bad: 0.9 };
    Impairments {
        loss: chance.happens(0.3).then(|| chance.unit() * 0.4),
        bursts: chance.happens(0.3).then_some(bursts),
        duplication: if chance.happens(0.5) { chance.unit() * 0.3 } else { 0.0 },
        reordering: if chance.happens(0.5) { chance.unit() * 0.3 } else { 0.0 },
        holding: chance.up_to(unit),
        jitter_reorders: chance.happens(0.5),
        ..Impairments::default()
    }
}

/// How long a message of usual length and its answer take on a link.
fn exchange(profile: &Profile) -> Duration {
    const MESSAGE: u32 = 200;
    let airtime = |rate: u64| match rate {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(f64::from(8 * MESSAGE) / rate as f64 / profile.duty_cycle),
    };
    airtime(profile.rate(End::Peer))
        + airtime(profile.rate(End::Gateway))
        + 2 * (profile.delay + profile.jitter + profile.turnaround)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_has_a_name_that_is_read_back() {
        for name in ScriptName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert!("sing-ten".parse::<ScriptName>().unwrap_err().contains("send-ten"));
    }

    #[test]
    fn a_day_has_its_messages_outages_and_kill() {
        let script = ScriptName::SyncDay.script(&Profile::unlimited("x"), 0, 1);
        let count = |is: fn(&Action) -> bool| script.actions.values().filter(|action| is(action)).count();
        assert_eq!(count(|action| matches!(action, Action::Say(..))), 144);
        assert_eq!(count(|action| matches!(action, Action::Kill(_))), 1);
        assert_eq!(script.impairments.outages.len(), 3);
    }

    #[test]
    fn chaos_is_the_same_for_the_same_seed_and_another_for_another() {
        let chaos = |seed| format!("{:?}", ScriptName::Chaos.script(&Profile::unlimited("x"), 0, seed));
        assert_eq!(chaos(1), chaos(1));
        assert_ne!(chaos(1), chaos(2));
    }
}
