//! What the machine tells its owner.

use std::fmt;

use serde::Serialize;
use zeroize::Zeroizing;

use super::keys::Fingerprint;
use crate::coap::Address;

/// A session, or the handshake that is to become one. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub(super) u64);

impl SessionId {
    /// Its number, which no other of the same machine has had or will have.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What to do, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// A datagram to send.
    Datagram {
        /// To whom, and from which address of ours.
        address: Address,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A handshake is complete: from now on there may be [`Output::Opened`], and [`super::Dtls::seal`] works.
    Established {
        /// The session; for one of ours, what [`super::Dtls::connect`] returned.
        session: SessionId,
        /// Where its peer is, for as long as it lasts.
        address: Address,
        /// Who its peer is.
        identity: Identity,
    },
    /// What a peer has sent, once: a repeat of a record is dropped.
    Opened {
        /// Its session.
        session: SessionId,
        /// The bytes that were protected.
        bytes: Vec<u8>,
    },
    /// A session has ended, or a handshake of ours has failed. Nothing more comes of it.
    Closed {
        /// The session.
        session: SessionId,
        /// Why.
        reason: Reason,
    },
    /// A line for a key log, where [`super::Config::key_log`] asks for it.
    KeyLog(KeyLogLine),
}

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It has the key of this identity. The server's is that of the key that the client had for it.
    Psk(Vec<u8>),
    /// It has the private key of a certificate.
    Certificate {
        /// The digest of the certificate.
        certificate: Fingerprint,
        /// The digest of its SubjectPublicKeyInfo.
        key: Fingerprint,
    },
    /// Nobody asked.
    Anonymous,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The peer said so (close_notify).
    ByPeer,
    /// [`super::Dtls::close`].
    ByUs,
    /// The peer has opened another one from the same address (RFC 6347 §4.2.8).
    Replaced,
    /// It was the one unused for longest when there was no more room.
    Evicted,
    /// The handshake had no answer.
    TimedOut,
    /// The peer is not who it should be, or said what it must not.
    Failed,
}

/// A line of a key log, in the format of NSS. Who has it can read the session: it is for tests and diagnosis, on request.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyLogLine(pub(super) Zeroizing<String>);

impl KeyLogLine {
    /// The line, without an end of line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyLogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogLine(..)")
    }
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Datagrams that came.
    pub received_datagrams: u64,
    /// Bytes of UDP payload that came.
    pub received_bytes: u64,
    /// Datagrams that were sent.
    pub sent_datagrams: u64,
    /// Bytes of UDP payload that were sent.
    pub sent_bytes: u64,
    /// Datagrams that begin with no record.
    pub malformed: u64,
    /// Records that belong to no session.
    pub unknown: u64,
    /// Fragments of hellos, which are not put together.
    pub fragments: u64,
    /// Hellos that were answered by a cookie.
    pub cookies: u64,
    /// Hellos that came back with the right cookie.
    pub verified: u64,
    /// Hellos that offer nothing that is spoken here.
    pub no_common_suite: u64,
    /// Hellos refused because there were too many handshakes, or because nobody is served here.
    pub refused: u64,
    /// Handshakes that were begun, in either role.
    pub handshakes: u64,
    /// Handshakes that were completed.
    pub established: u64,
    /// Handshakes that failed, but for those without an answer.
    pub failed: u64,
    /// Of these, those of a peer whose certificate is not known.
    pub unknown_certificates: u64,
    /// Handshakes that had no answer.
    pub timed_out: u64,
    /// Sessions that broke after their handshake.
    pub broken: u64,
    /// Sessions that gave way to a new one with the same peer.
    pub replaced: u64,
    /// Sessions that gave way to one with another peer.
    pub evicted: u64,
    /// Alerts that were sent in clear.
    pub alerts: u64,
    /// Datagrams not sent because a peer that had not shown where it is would have got too much.
    pub withheld: u64,
}
