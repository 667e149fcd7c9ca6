//! What an exchange is for, as far as its cost goes.

use std::fmt;

/// The classes, in the order in which they are told; each exchange is of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A message that is not encrypted.
    Send,
    /// One that is.
    SendEncrypted,
    /// Another event for a room.
    SendOther,
    /// A first sync, which has no position.
    SyncInit,
    /// A sync with next to nothing in it.
    SyncIdle,
    /// One with a few events.
    SyncSmall,
    /// One with many.
    SyncBig,
    /// Typing notices, receipts and read markers.
    Ephemeral,
    /// Keys of end-to-end encryption.
    Keys,
    /// All else.
    Other,
}

/// An answer to a sync of so many bytes of JSON and more has something in it.
const IDLE: usize = 260;
/// One of so many has much.
const SMALL: usize = 1500;

impl Class {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Send,
        Self::SendEncrypted,
        Self::SendOther,
        Self::SyncInit,
        Self::SyncIdle,
        Self::SyncSmall,
        Self::SyncBig,
        Self::Ephemeral,
        Self::Keys,
        Self::Other,
    ];

    /// The class of an exchange with this path, its query included, as it was sent, and an answer of so many bytes of JSON.
    pub fn of(target: &str, response: usize) -> Self {
        let has = |part| target.contains(part);
        let path = target.split('?').next().unwrap_or_default();
        match () {
            () if has("/send/m.room.message/") => Self::Send,
            () if has("/send/m.room.enc") => Self::SendEncrypted,
            () if has("/send/") => Self::SendOther,
            () if path.ends_with("/sync") && !has("since=") && !has("pos=") => Self::SyncInit,
            () if path.ends_with("/sync") && response < IDLE => Self::SyncIdle,
            () if path.ends_with("/sync") && response < SMALL => Self::SyncSmall,
            () if path.ends_with("/sync") => Self::SyncBig,
            () if has("/typing/") || has("read_markers") || has("/receipt") => Self::Ephemeral,
            () if has("/keys/") => Self::Keys,
            () => Self::Other,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::SendEncrypted => "send-e2ee",
            Self::SendOther => "send-other",
            Self::SyncInit => "sync-init",
            Self::SyncIdle => "sync-idle",
            Self::SyncSmall => "sync-small",
            Self::SyncBig => "sync-big",
            Self::Ephemeral => "ephemeral",
            Self::Keys => "keys",
            Self::Other => "other",
        }
    }

    /// Whether it is what a client does all day once it has begun.
    pub fn is_steady(self) -> bool {
        !matches!(self, Self::SyncInit | Self::SyncBig | Self::Keys | Self::Other)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_is_the_class() {
        let v3 = |path: &str| format!("/_matrix/client/v3/{path}");
        for (path, response, class) in [
            ("rooms/!a:b/send/m.room.message/1", 61, Class::Send),
            ("rooms/!a:b/send/m.room.encrypted/1", 61, Class::SendEncrypted),
            ("rooms/!a:b/send/m.reaction/1?pos=1", 61, Class::SendOther),
            ("sync?timeout=0", 40, Class::SyncInit),
            ("sync?since=s1", 259, Class::SyncIdle),
            ("sync?since=s1", 260, Class::SyncSmall),
            ("sync?since=s1", 1499, Class::SyncSmall),
            ("sync?since=s1", 1500, Class::SyncBig),
            ("sync?pos=1&timeout=3", 1500, Class::SyncBig),
            ("rooms/!a:b/typing/@c:b", 2, Class::Ephemeral),
            ("rooms/!a:b/read_markers", 2, Class::Ephemeral),
            ("rooms/!a:b/receipt/m.read/$d", 2, Class::Ephemeral),
            ("keys/query", 2, Class::Keys),
            ("room_keys/keys/!a:b", 2, Class::Keys),
            ("room_keys/version", 2, Class::Other),
            ("rooms/!a:b/synchronous?since=1", 2, Class::Other),
        ] {
            assert_eq!(Class::of(&v3(path), response), class, "{path} {response}");
        }
        let sliding = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
        assert_eq!(Class::of(sliding, 100), Class::SyncInit);
        assert_eq!(Class::of(&format!("{sliding}?pos=5"), 100), Class::SyncIdle);
    }

    #[test]
    fn steady_is_all_but_what_begins_and_what_is_rare() {
        let steady = Class::ALL.into_iter().filter(|class| class.is_steady()).map(Class::name);
        let expected = ["send", "send-e2ee", "send-other", "sync-idle", "sync-small", "ephemeral"];
        assert_eq!(steady.collect::<Vec<_>>(), expected);
    }
}
