//! The machines in virtual time, over links that are slow and lose things.
//!
//! [`Channel`] plays a link: the same in virtual time here, and between real sockets in `net::relay`.

mod audit;
mod chance;
mod channel;
mod impairments;
mod traffic;

pub use audit::Audit;
pub use chance::Chance;
pub use channel::{Arrival, Channel, Fate, Passage, PeerNumber};
pub use impairments::{Bursts, Impairments, Outage, OutageError};
pub use traffic::Traffic;
