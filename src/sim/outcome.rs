//! What came of a run, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::channel::Channel;
use super::homeserver::Homeserver;
use super::ledger::{Ledger, Side};
use super::oracle::{Oracle, Tally, Violation};
use super::speech::PackedTally;
use super::timeline::Timeline;
use super::traffic::Traffic;
use super::world::{Setup, Transmission};
use crate::gateway;
use crate::link::End;

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The link.
    pub link: String,
    /// The script.
    pub script: String,
    /// `link` or `rfc7252`.
    pub transmission: &'static str,
    /// `none` or `oscore`.
    pub security: &'static str,
    /// `msc3079` or `packed`.
    pub profile: &'static str,
    /// The seed, from which all of it comes again.
    pub seed: u64,
    /// Until all that was said had arrived.
    #[serde(rename = "took_ms", serialize_with = "super::traffic::milliseconds")]
    pub took: Duration,
    /// Until the script's last event.
    #[serde(rename = "script_ms", serialize_with = "super::traffic::milliseconds")]
    pub scripted: Duration,
    /// How often the gateway was killed.
    pub kills: u64,
    /// What became of what was said.
    pub tally: Tally,
    /// Calls of `/sync` at the homeserver.
    pub syncs: u64,
    /// Bytes on the air from devices.
    pub up: Side,
    /// Bytes on the air from the gateway.
    pub down: Side,
    /// All bytes on the air.
    pub bytes: u64,
    /// The share of them that was sent again.
    pub repeated: f64,
    /// The link's own account, from devices.
    pub traffic_up: Traffic,
    /// The link's own account, from the gateway.
    pub traffic_down: Traffic,
    /// The gateway's counters when all had arrived, since its last start.
    pub gateway: Option<gateway::Counters>,
    /// What became of the packed profile, where devices spoke it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed: Option<PackedTally>,
    /// What must not be, and was.
    pub violations: Vec<Violation>,
    /// The ledger as a table.
    #[serde(skip)]
    pub ledger: String,
    /// The first exchange, drawn.
    #[serde(skip)]
    pub timeline: String,
}

/// What a world knows of itself.
pub(super) struct Parts<'a> {
    pub(super) oracle: &'a Oracle,
    pub(super) ledger: &'a Ledger,
    pub(super) timeline: &'a Timeline,
    pub(super) channel: &'a Channel,
    pub(super) homeserver: &'a Homeserver,
    pub(super) packed: Option<PackedTally>,
}

impl Outcome {
    pub(super) fn new(
        setup: &Setup,
        took: Duration,
        scripted: Duration,
        kills: u64,
        gateway: Option<gateway::Counters>,
        parts: Parts<'_>,
    ) -> Self {
        let [up, down] = parts.ledger.sides();
        Self {
            link: setup.profile.name.clone(),
            script: setup.script.to_string(),
            transmission: match setup.transmission {
                Transmission::Link => "link",
                Transmission::Rfc7252 => "rfc7252",
            },
            security: setup.security.name(),
            profile: setup.encoding.name(),
            seed: setup.seed,
            took,
            scripted,
            kills,
            tally: parts.oracle.tally(),
            syncs: parts.homeserver.syncs(),
            up,
            down,
            bytes: parts.ledger.bytes(),
            repeated: parts.ledger.repeated(),
            traffic_up: *parts.channel.traffic(End::Peer),
            traffic_down: *parts.channel.traffic(End::Gateway),
            gateway,
            packed: parts.packed,
            violations: parts.oracle.violations().to_vec(),
            ledger: parts.ledger.to_string(),
            timeline: parts.timeline.to_string(),
        }
    }

    /// Whether everything held that must.
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} on {}, seed {}, transmission parameters of {}\n",
            self.script,
            self.link,
            self.seed,
            if self.transmission == "link" { "the link" } else { "RFC 7252" },
        )?;
        writeln!(f, "The first exchange:\n\n{}", self.timeline)?;
        writeln!(f, "{}", self.ledger)?;
        writeln!(f, "sent again             {:.1} % of all bytes", self.repeated * 100.0)?;
        let Tally { requests, failed, answered, .. } = self.tally;
        writeln!(
            f,
            "messages               {answered} answered, from {requests} requests of which {failed} failed"
        )?;
        let Tally { repeated_after_break, repeated_by_device, events, events_again, gaps, .. } = self.tally;
        writeln!(
            f,
            "reached again          {repeated_after_break} after a kill of the gateway or a new address, {repeated_by_device} asked for again; none had an \
             effect"
        )?;
        writeln!(
            f,
            "events                 {events} arrived, {events_again} of them again; {gaps} declared gaps"
        )?;
        for (name, traffic) in [("lost up", &self.traffic_up), ("lost down", &self.traffic_down)] {
            let Traffic { lost, lost_in_outage, too_long, overflowed, longest_wait, .. } = traffic;
            writeln!(
                f,
                "{name:22} {lost} by chance, {lost_in_outage} in outages, {too_long} too long, {overflowed} at a full modem; the longest \
                 wait {} s",
                longest_wait.as_secs()
            )?;
        }
        writeln!(f, "calls of /sync         {}; the gateway was killed {} times", self.syncs, self.kills)?;
        writeln!(
            f,
            "took                   {} s, of which the script {} s; the longest request {} s",
            self.took.as_secs(),
            self.scripted.as_secs(),
            self.tally.longest_request.as_secs()
        )?;
        if let Some(packed) = &self.packed {
            write!(f, "{packed}")?;
        }
        if self.holds() {
            return writeln!(f, "\nEverything held that must.");
        }
        writeln!(f, "\nThis did not hold:")?;
        for violation in &self.violations {
            writeln!(f, "  at {:.1} s: {}", violation.at.since_start().as_secs_f64(), violation.what)?;
        }
        Ok(())
    }
}
