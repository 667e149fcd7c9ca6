//! Matrix over links of about 100 bit/s.
//!
//! See ARCHITECTURE.md for how the modules fit together.

pub mod coap;
pub mod codec;
pub mod device;
pub mod endpoint;
pub mod gateway;
pub mod homeserver;
pub mod inspect;
pub mod link;
pub mod matrix;
pub mod measure;
pub mod net;
pub mod packed;
pub mod proxy;
pub mod security;
pub mod sim;
pub mod translate;
