//! What a proxy is told at its start, with the limits of all that grows.

use std::time::Duration;

use super::policy::Policy;
use crate::packed::Dictionary;

/// A proxy's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The packed profile's dictionary; the one that is built in, if there is none.
    pub dictionary: Option<Dictionary>,
    /// What becomes of requests that do not fit the link.
    pub policy: Policy,
    /// How long what was asked may still come to the gateway after it was given up: EXCHANGE_LIFETIME of the link (RFC 7252 §4.8.2).
    pub exchange_lifetime: Duration,
    /// How long a client waits for what is queued before it is told to come back, while the queue goes on.
    pub patience: Duration,
    /// How long at least a poll waits until the gateway has said what there is.
    pub catch_up: Duration,
    /// How long what nobody waits for is still asked for, and how long an answer that nobody has taken is kept for who asks again.
    pub hold: Duration,
    /// After so long without a poll a client's `/sync` is observed no more.
    pub linger: Duration,
    /// After so long a silence of the gateway an observed `/sync` is registered again, so that a gateway that has forgotten it
    /// hears of it; `None` for never.
    pub keepalive: Option<Duration>,
    /// The first pause before what has failed is tried again; it doubles up to `longest_pause`.
    pub pause: Duration,
    /// The longest such pause.
    pub longest_pause: Duration,
    /// Requests under way or waiting, those in the queue among them.
    pub calls: usize,
    /// Answers that are kept for who asks again; 0 for none.
    pub cached: usize,
    /// Bytes of bodies of all of them, and of answers that nobody has taken.
    pub bytes: usize,
    /// Observed `/sync`s.
    pub streams: usize,
    /// Deltas of one of them that wait for its client.
    pub deltas: usize,
}

impl Config {
    /// The dictionary, which is read at its first use.
    pub(super) fn dictionary(&self) -> &Dictionary {
        self.dictionary.as_ref().unwrap_or_else(|| Dictionary::built_in())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dictionary: None,
            policy: Policy::of_rate(0),
            exchange_lifetime: Duration::from_secs(247),
            patience: Duration::from_secs(600),
            catch_up: Duration::from_secs(60),
            hold: Duration::from_secs(600),
            linger: Duration::from_secs(1_800),
            keepalive: None,
            pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(600),
            calls: 256,
            cached: 512,
            bytes: 16 << 20,
            streams: 32,
            deltas: 32,
        }
    }
}
