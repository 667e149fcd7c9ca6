//! What keeps others out of a conversation.

pub mod dtls;
