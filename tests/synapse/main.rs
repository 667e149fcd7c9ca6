//! `lowband gateway` before a real Synapse: each call made over CoAP and over HTTP, the answers compared value for value.
//!
//! `scripts/install-parts`, then `cargo test --features real-parts --test synapse`. The client is the library's own; others
//! hold the same conversation in `tests/interop/`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "modules of a test are used by it alone")]

mod calls;
mod errors;
mod sync;
mod user;
mod world;
