//! Bodies in blocks (RFC 7959, RFC 9177), in both directions and both roles, with one peer.
//!
//! Makes complete requests and responses out of messages and the reverse; knows nothing of message IDs and repeats.

mod apart;
mod asked;
mod bursts;
mod client;
mod collected;
mod gathered;
mod key;
mod missing;
mod offered;
mod server;
mod uploads;
mod wanted;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

pub use client::{ClientTransfers, RequestError, Step};
pub use server::{Delivery, Plan, Received, Reply, ServerTransfers};

use super::block::BlockSize;
use super::option::OptionNumber;

/// What one peer's transfers may take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferLimits {
    /// The greatest body that is taken in, in bytes: a request's at a server, a response's at a client.
    pub body: usize,
    /// Bodies that a server holds at a time in each direction; the one unused for longest goes first. A client holds one for each of
    /// its requests.
    pub bodies: usize,
    /// Bytes of all bodies that a server holds at a time in each direction.
    pub bytes: usize,
    /// How long a body is held after its last block was asked for or came.
    pub lifetime: Duration,
    /// How long a client waits for a response, after its request was acknowledged or repeated for the last time.
    pub response_timeout: Duration,
    /// How long a client goes on asking for a transfer's next block after the last one came, while nobody answers; a request
    /// that might be done twice is not asked again.
    pub patience: Duration,
    /// The greatest block that is sent, and asked for.
    pub block: BlockSize,
    /// Whether a client wishes for responses in bursts of blocks, and sends requests so (RFC 9177).
    pub q_block: bool,
    /// How long a block of a burst is waited for, after the one before it, until what is missing is asked for.
    pub receive_timeout: Duration,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            bodies: 8,
            bytes: 16 << 20,
            lifetime: Duration::from_secs(247),
            response_timeout: Duration::from_secs(247),
            patience: Duration::ZERO,
            block: BlockSize::MAX,
            q_block: false,
            // RFC 9177 §7.2: twice NON_TIMEOUT.
            receive_timeout: Duration::from_secs(4),
        }
    }
}

/// The body that these blocks are all of.
fn join(blocks: BTreeMap<u32, Bytes>) -> Bytes {
    blocks.into_values().collect::<Vec<_>>().concat().into()
}

/// Options of the transfer, not of the request or response that it carries.
fn is_of_transfer(number: OptionNumber) -> bool {
    matches!(
        number,
        OptionNumber::BLOCK1
            | OptionNumber::BLOCK2
            | OptionNumber::Q_BLOCK1
            | OptionNumber::Q_BLOCK2
            | OptionNumber::SIZE1
            | OptionNumber::SIZE2
            | OptionNumber::OBSERVE
    )
}

/// Options that hold for the connection once they were sent (MSC3079): a transfer's later blocks need not repeat them.
fn is_sticky(number: OptionNumber) -> bool {
    matches!(number, OptionNumber::ACCESS_TOKEN | OptionNumber::CBOR_VERSION | OptionNumber::LINK)
}
