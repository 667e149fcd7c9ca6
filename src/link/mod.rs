//! Links: what they are like, and what follows from that for the two ends (RFC 7252 §4.8).
//!
//! Uses `coap` alone. Nothing here sends anything: `endpoint` obeys the [`Terms`], and `sim` plays the [`Profile`].

mod profile;
mod profiles;
mod table;
mod terms;

pub use profile::{End, Profile};
pub use profiles::{Profiles, ProfilesError};
pub use table::KEYS;
pub use terms::{Pace, Terms, Turns};
