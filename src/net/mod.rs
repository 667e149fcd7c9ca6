//! The driver in real time: sockets, the clock, and the way to the homeserver.
//!
//! The machines decide; what is here only carries. [`gateway`] runs the gateway's machine, [`client`] one peer's endpoint, and [`relay`] plays a
//! slow link between sockets.

pub mod client;
pub mod control;
pub mod desk;
pub mod devices;
pub mod dtls;
pub mod gateway;
pub mod keyring;
pub mod login;
pub mod proxy;
pub mod relay;
pub mod store;
pub mod upstream;

mod clock;
mod priming;
mod socket;

pub use clock::Clock;
pub use priming::Priming;
pub use socket::Batch;
pub use socket::Socket;
