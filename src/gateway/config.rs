//! What a gateway serves, and within which limits.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;

use crate::codec;
use crate::endpoint;
use crate::matrix::rewrite::Advertise;
use crate::matrix::shape::Shape;
use crate::packed::Dictionary;

/// What a gateway serves, and within which limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// The homeserver; its URL may have a path, which goes before every request's.
    pub homeserver: Uri,
    /// What the gateway says of itself in the homeserver's answers.
    pub advertise: Advertise,
    /// How long a call of the homeserver may take, beyond what a long poll asks for.
    pub fetch_timeout: Duration,
    /// How long the homeserver is asked to wait for events of an observation at a time.
    pub poll_timeout: Duration,
    /// Peers whose access token and table version are remembered; the one unused for longest goes first.
    pub sessions: usize,
    /// How long they are remembered without a request.
    pub session_lifetime: Duration,
    /// Peers whose tables of the packed profile are kept, of which each may take a megabyte; the one unused for longest goes first, and begins
    /// anew. With 0 the profile is not spoken.
    pub packed: usize,
    /// The dictionaries of the packed profile: a peer has one of them. Where there are none, the one that is built in.
    pub dictionaries: Vec<Dictionary>,
    /// How long after an observer did not answer it is first asked whether it is there.
    pub probe_first: Duration,
    /// The longest wait between two such questions; each is twice the one before.
    pub probe_longest: Duration,
    /// How long an observer that is not heard of is kept.
    pub absent_lifetime: Duration,
    /// What every peer's `/sync` leaves out, unless its link says otherwise.
    pub shape: Option<Shape>,
    /// The same for the peers behind links of these names.
    pub shapes_by_link: BTreeMap<String, Shape>,
    /// How large and how deep bodies may be, in either direction.
    pub codec: codec::Limits,
    /// The CoAP side.
    pub endpoint: endpoint::Config,
}

impl Config {
    /// The default before this homeserver.
    pub fn new(homeserver: Uri) -> Self {
        Self {
            homeserver,
            advertise: Advertise::default(),
            fetch_timeout: Duration::from_secs(60),
            poll_timeout: Duration::from_secs(30),
            sessions: 10_000,
            session_lifetime: Duration::from_secs(24 * 3600),
            packed: 1_000,
            dictionaries: Vec::new(),
            probe_first: Duration::from_secs(60),
            probe_longest: Duration::from_secs(15 * 60),
            absent_lifetime: Duration::from_secs(7 * 24 * 3600),
            shape: None,
            shapes_by_link: BTreeMap::new(),
            codec: codec::Limits::default(),
            endpoint: endpoint::Config::default(),
        }
    }
}
