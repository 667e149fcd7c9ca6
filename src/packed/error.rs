//! What is refused, and why. Whoever gets one of these changes nothing of what it knows.

use crate::packed::aliases::Kind;

/// Why something cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The method is none of HTTP's that Matrix uses.
    #[error("method {0} has no number")]
    Method(String),
    /// What is to be sent is longer than a message may be.
    #[error("more than {limit} bytes")]
    Size {
        /// The limit that applied.
        limit: usize,
    },
    /// A token of ours that was given out under another generation: what it stood for is not known any more.
    #[error("the token is of another generation")]
    ForeignToken,
    /// The same of a position of sliding sync, whose clients know what to do.
    #[error("the position is of another generation")]
    ForeignPosition,
}

/// Why something packed cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends before what it says is complete.
    #[error("cut short")]
    Truncated,
    /// More follows than there should be.
    #[error("more follows the end")]
    Trailing,
    /// The coded part is not what its coder writes.
    #[error("the coded part is damaged")]
    Damaged,
    /// The tables of the sender belong to another epoch than ours.
    #[error("the sender is in epoch {theirs}, and we are in {ours}")]
    UnknownEpoch {
        /// The last bits of the sender's epoch.
        theirs: u8,
        /// The last bits of ours.
        ours: u8,
    },
    /// A reference to something that was never told here, or has been forgotten.
    #[error("{kind:?} {number} is unknown")]
    UnknownAlias {
        /// What it would be.
        kind: Kind,
        /// Its number.
        number: u64,
    },
    /// A number that stands for something else here.
    #[error("{kind:?} {number} is something else here")]
    Conflict {
        /// What it is.
        kind: Kind,
        /// Its number.
        number: u64,
    },
    /// A token that the homeserver gave and that is not kept any more.
    #[error("token {0} is not kept any more")]
    UnknownToken(u64),
    /// A position of sliding sync that is not kept any more.
    #[error("position {0} is not kept any more")]
    UnknownPosition(u64),
    /// A route that the table does not have.
    #[error("route {0} is unknown")]
    UnknownRoute(u64),
    /// A name or a string that the table does not have.
    #[error("row {0} of the table is unknown")]
    UnknownRow(usize),
    /// A code that means nothing where it stands.
    #[error("code 0x{0:02x} cannot stand here")]
    Code(u8),
    /// Text that is no UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// Arrays and objects enclose each other too deeply.
    #[error("nested deeper than {limit}")]
    Depth {
        /// The limit that applied.
        limit: usize,
    },
    /// What it stands for would be larger than allowed.
    #[error("more than {limit} bytes")]
    Output {
        /// The limit that applied.
        limit: usize,
    },
    /// The items would be more than the model may be used for.
    #[error("more than {limit} bytes of items by the model")]
    Model {
        /// The limit that applied.
        limit: usize,
    },
    /// The gateway was told to send what a path must not have.
    #[error("the path is not one of the client-server API")]
    Path,
    /// Something that only the other end may send.
    #[error("the other end alone sends this")]
    Direction,
}

impl From<crate::codec::DecodeError> for DecodeError {
    /// Of what writing text can come to there is only one.
    fn from(error: crate::codec::DecodeError) -> Self {
        match error {
            crate::codec::DecodeError::Output { limit } => DecodeError::Output { limit },
            _ => DecodeError::Damaged,
        }
    }
}
