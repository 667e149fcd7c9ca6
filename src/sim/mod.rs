//! The machines in virtual time, over links that are slow and lose things.
//!
//! [`Channel`] plays a link: the same in virtual time here, and between real sockets in `net::relay`. [`World`] puts a gateway,
//! devices and a homeserver around it, and an [`Oracle`] judges what comes of that.

mod audit;
mod chance;
mod channel;
mod ending;
mod homeserver;
mod impairments;
mod ledger;
mod oracle;
mod outcome;
mod peer;
mod script;
mod timeline;
mod traffic;
mod world;

pub use audit::Audit;
pub use chance::Chance;
pub use channel::{Arrival, Channel, Fate, Passage, PeerNumber};
pub use homeserver::{Answer, CallId, Homeserver, Reached, Trouble};
pub use impairments::{Bursts, Impairments, Outage, OutageError};
pub use ledger::{Account, Ledger, Side};
pub use oracle::{Attempt, Oracle, Tally, Violation};
pub use outcome::Outcome;
pub use peer::{Ending, Note, Peer};
pub use script::{Action, Device, Script, ScriptName};
pub use timeline::Timeline;
pub use traffic::Traffic;
pub use world::{Setup, Transmission, World};
