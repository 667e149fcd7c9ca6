//! What a gateway counts.

use serde::Serialize;

use crate::device;
use crate::endpoint;
use crate::security::dtls;
use crate::security::edhoc;

/// What was counted since the start, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// The CoAP side.
    pub endpoint: endpoint::Counters,
    /// Keys that devices agree on.
    pub edhoc: edhoc::Counters,
    /// What is below it, at listeners with DTLS.
    pub dtls: dtls::Counters,
    /// Calls of the homeserver.
    pub fetches: u64,
    /// Calls of the homeserver that came to nothing.
    pub fetch_failures: u64,
    /// Answers of the homeserver that could not be translated.
    pub bad_answers: u64,
    /// Requests that the gateway refused itself.
    pub refusals: u64,
    /// Requests that devices may not make; they are among the refusals.
    pub device_refusals: device::Refusals,
    /// Calls for new access tokens.
    pub renewals: u64,
    /// Agreements on the packed profile.
    pub agreements: u64,
    /// Registrations of observers.
    pub registrations: u64,
    /// Notifications.
    pub notifications: u64,
    /// Notifications that were acknowledged in full.
    pub delivered: u64,
    /// Notifications that were not, and will be made anew once their peer is heard of.
    pub undelivered: u64,
    /// Answers to polls with nothing new for the peers, which cost them nothing.
    pub idle_polls: u64,
    /// Polls of single observers that were behind the others of their feed.
    pub catch_ups: u64,
    /// Times that an absent peer was asked whether it is there.
    pub probes: u64,
    /// Observations that ended because their peer registered again.
    pub replaced: u64,
    /// Registrations that came after a later one of the same peer for the same, and were answered without observing.
    pub overtaken: u64,
    /// Requests of before a restart that were not answered by then.
    pub recalled: u64,
    /// Observations that went on after a restart.
    pub restored: u64,
    /// Records of before a restart that could not be used.
    pub unreadable: u64,
    /// Observations forgotten because their peers were not heard of for too long.
    pub forgotten: u64,
    /// Sessions of DTLS refused because who opened them is no device.
    pub sessions_refused: u64,
    /// Datagrams dropped because their peers had no session any more.
    pub unsealed: u64,
    /// Sessions of DTLS held now, with handshakes.
    pub dtls_sessions: usize,
    /// Of these, handshakes.
    pub dtls_handshakes: usize,
    /// Peers held now.
    pub peers: usize,
    /// Devices served now.
    pub devices: usize,
    /// Sessions held now.
    pub sessions: usize,
    /// Peers whose tables of the packed profile are held now.
    pub packed: usize,
    /// Observations held now.
    pub observations: usize,
    /// Those of them whose peers do not answer.
    pub absent: usize,
    /// Feeds that the observations share now.
    pub feeds: usize,
    /// Calls of the homeserver under way.
    pub fetching: usize,
    /// Datagrams that wait for their turn on a link now.
    pub queued: usize,
}
