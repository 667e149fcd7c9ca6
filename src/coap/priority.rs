//! What goes first where not all can go at once.

/// The classes of what is sent, the most pressing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Acknowledgements and resets: without them the peer says everything again.
    Acknowledgement,
    /// Answers that somebody waits for.
    Reply,
    /// Requests of our own: messages that people have written.
    Message,
    /// What is new for an observer.
    Notification,
    /// Receipts, typing notices, presence: worth little, and little of it for long.
    Background,
}
