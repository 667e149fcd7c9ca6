//! Who may read and say what on the link: messages protected end to end, how their keys are agreed on, and datagrams under a session.

pub mod dtls;
pub mod edhoc;
pub mod oscore;
