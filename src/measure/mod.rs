//! What recorded traffic would cost: HTTP exchanges replayed through the encoders of both ends, and over a link in virtual time.
//!
//! [`Recording`] reads them, [`Meter`] replays them one by one and keeps account. What the two ends of an association know of each other
//! is in `ends`, which has a file for each wire profile and is all that tells one from another; CoAP's messages, blocks and protection are
//! those of real endpoints, in `line`.

mod class;
mod difference;
mod ends;
mod exchange;
mod figures;
mod line;
mod meter;
mod msc3079;
mod packed;
mod recording;
mod substitutes;
mod texts;
mod training;

pub use class::Class;
pub use difference::Difference;
pub use ends::Encoding;
pub use exchange::Exchange;
pub use exchange::ExchangeError;
pub use figures::Figures;
pub use figures::Report;
pub use line::Security;
pub use meter::Meter;
pub use meter::Setup;
pub use recording::Recording;
pub use recording::RecordingError;
pub use training::Counting;
pub use training::Sampling;
pub use training::Trained;
pub use training::Wording;
