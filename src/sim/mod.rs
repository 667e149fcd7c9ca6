//! The machines in virtual time, over links that are slow and lose things.
//!
//! [`Channel`] plays a link: the same in virtual time here, and between real sockets in `net::relay`. [`World`] puts a gateway,
//! devices and a homeserver around it, and an oracle judges what comes of that.

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
mod security;
mod speech;
mod timeline;
mod traffic;
mod transcript;
mod world;

pub use channel::{Arrival, Channel, Fate, Passage, PeerNumber};
pub use homeserver::Homeserver;
pub use impairments::{Bursts, Impairments, Outage, OutageError};
pub use ledger::{Account, Ledger, Side};
pub use oracle::{Tally, Violation};
pub use outcome::Outcome;
pub use script::ScriptName;
pub use security::{Security, device};
pub use speech::{Encoding, PackedTally};
pub use traffic::Traffic;
pub use world::{Setup, Transmission, World};
