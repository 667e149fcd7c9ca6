//! Who may read and say what on the link: messages protected end to end, and datagrams under a session.

pub mod dtls;
pub mod oscore;
