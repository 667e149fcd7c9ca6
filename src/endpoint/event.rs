//! What an endpoint tells its user.

use serde::Serialize;

use super::{Association, KeysNumber};
use crate::coap::{ObservationId, Request, RequestError, Response};

/// A peer's request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey(pub(super) u64);

/// A request of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer's request is complete. It is answered with [`super::Endpoint::respond`] or [`super::Endpoint::accept_observation`].
    Request {
        /// What it is answered by.
        key: RequestKey,
        /// Whose it is.
        association: Association,
        /// The request.
        request: Request,
        /// Whether it came before a restart and was not answered then: it may have been passed on already.
        recalled: bool,
    },
    /// The first message under these keys since the start has come.
    KeysUsed {
        /// Whose they are.
        association: Association,
        /// Their number.
        number: KeysNumber,
    },
    /// A device has agreed on keys with us, which are admitted: [`super::Endpoint::parameters`] has what they are derived from.
    KeysAgreed {
        /// Whose they are.
        association: Association,
        /// Their number.
        number: KeysNumber,
        /// The id of the credential that it has agreed by.
        kid: Vec<u8>,
    },
    /// Keys that were agreed on have reached a limit, and are revoked.
    KeysSpent {
        /// Whose they were.
        association: Association,
        /// Their number.
        number: KeysNumber,
    },
    /// An error came without protection from one whose messages are protected: that it does not know the keys, most likely. Anybody may have
    /// said so; our requests go on.
    Unprotected {
        /// Whom we asked.
        association: Association,
        /// What came.
        response: Response,
    },
    /// All of an observation's last notification, or of the answer to its registration, was acknowledged.
    Delivered(ObservationId),
    /// An observation's last notification was not acknowledged, or its blocks were not asked for. The observation goes on.
    Undelivered(ObservationId),
    /// The peer has ended or replaced an observation.
    Deregistered(ObservationId),
    /// A peer has been heard of that was probed, or had not acknowledged a notification.
    Reachable(Association),
    /// A probe was not answered.
    Unreachable(Association),
    /// The response to a request of ours.
    Response {
        /// The request.
        id: RequestId,
        /// The response.
        response: Response,
        /// Whether it is a notification that more may follow.
        notification: bool,
    },
    /// A request of ours, or an observation, has failed.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: RequestError,
    },
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
    /// Datagrams that are no CoAP message.
    pub malformed: u64,
    /// Datagrams of new peers dropped because there are too many.
    pub peers_refused: u64,
    /// Protected messages that could not be opened, or had come before.
    pub unopened: u64,
    /// Requests refused because they are not protected.
    pub plain_refused: u64,
    /// Requests that had to show that they are fresh, or where they come from.
    pub challenges: u64,
    /// Times that a device was found at another address.
    pub moved: u64,
    /// Hosts of which somebody has shown to be there.
    pub verified: u64,
    /// Datagrams not sent because too little had come from where they were to go.
    pub withheld: u64,
    /// Bytes of UDP payload that were sent before.
    pub repeated_bytes: u64,
    /// Milliseconds on the air of what was sent, on links that are known.
    pub sent_airtime_ms: u64,
    /// The same of what came.
    pub received_airtime_ms: u64,
    /// Datagrams that left the queue unsent because they were of no use any more.
    pub stale: u64,
    /// Datagrams dropped because too many waited for their turn.
    pub overflowed: u64,
    /// Datagrams longer than their link carries.
    pub too_long: u64,
    /// Announcements of links that are not known.
    pub unknown_links: u64,
    /// Memories that could not be read back.
    pub unreadable: u64,
    /// Messages that had come before.
    pub duplicates: u64,
    /// Messages of ours that were sent again.
    pub repeats: u64,
    /// Messages of ours that were never acknowledged.
    pub timeouts: u64,
    /// Messages with a critical option that is not understood.
    pub bad_options: u64,
    /// Complete requests.
    pub requests: u64,
    /// Requests refused because too many of the same peer waited, or too many bytes of all peers' requests.
    pub requests_refused: u64,
    /// Answers and notifications dropped because too many messages waited for the peer.
    pub answers_dropped: u64,
    /// Responses and notifications that belong to no request.
    pub unexpected_responses: u64,
}
