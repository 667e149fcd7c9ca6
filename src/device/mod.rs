//! Devices: who may speak with the gateway, by which keys, as which Matrix user, and how much.
//!
//! A device is made once (`lowband device add`), and keeps its half of the keys; the other half, and the Matrix tokens, which never
//! cross the link, are here. Pure: time and random bytes are arguments, and what is kept is bytes that a driver puts into its file
//! (`net::devices`). docs/devices.md is the page for people.

mod admission;
mod credentials;
mod devices;
mod edhoc;
mod limits;
mod name;
mod record;
mod refresher;
mod routes;
mod secret;
mod security;
mod summary;
mod tokens;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::coap::Instant;
pub use admission::Ask;
pub use admission::Refusals;
pub use admission::Refused;
pub use admission::TokenOf;
pub use credentials::Credentials;
pub use credentials::CredentialsError;
pub use credentials::Half;
pub use devices::Devices;
pub use devices::DevicesError;
pub use devices::Material;
pub use devices::Rotation;
pub use devices::Unused;
pub use edhoc::Edhoc;
pub use edhoc::EdhocHalf;
pub use limits::Allowance;
pub use limits::Excess;
pub use limits::Limits;
pub use name::Name;
pub use name::NameError;
pub use record::Nonce;
pub use record::RecordError;
pub use record::SealingKey;
pub use refresher::Authorization;
pub use refresher::Generation;
pub use refresher::Output;
pub use refresher::Refresher;
pub use refresher::TokenError;
pub use refresher::Verdict;
pub(crate) use refresher::form;
pub use routes::Routes;
pub use routes::RoutesError;
pub use secret::Secret;
pub use security::Kind;
pub use security::Oscore;
pub use security::Pin;
pub use security::Psk;
pub use security::Security;
pub use security::SecurityError;
pub use summary::Summary;
pub use summary::TokenState;
pub use tokens::Renewal;
pub use tokens::Tokens;

/// A device: its keys, its Matrix user, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What people call it.
    pub name: Name,
    /// The Matrix user that it acts as.
    pub user_id: String,
    /// The keys that it uses; none once it is revoked.
    pub keys: Option<Keys>,
    /// The keys that it has been given and not used yet. Once it has, they are in the place of the others.
    pub next: Option<Keys>,
    /// The keys for OSCORE that it has agreed on by the keys that it uses, the newest last: those before the last two are gone.
    #[serde(default)]
    pub agreed: Vec<Keys>,
    /// The link that it is behind, by its profile's name; the listener's, if none.
    pub link: Option<String>,
    /// What it may ask the homeserver.
    pub routes: Routes,
    /// How much of it.
    pub limits: Limits,
    /// Whether an access token of its own (option 256) is let through; refused otherwise.
    pub allow_token: bool,
    /// The tokens that its requests are made with. A device without any has to bring its own.
    pub tokens: Option<Tokens>,
    /// When it was made.
    pub created: Instant,
    /// When it was last given new keys.
    pub rotated: Option<Instant>,
    /// When it was revoked. Nothing is accepted from it since.
    pub revoked: Option<Instant>,
}

impl Device {
    /// All keys that are accepted: those it uses, and those it may begin to use. Those that were agreed on are beside.
    pub fn accepted(&self) -> impl Iterator<Item = &Keys> {
        self.keys.iter().chain(&self.next)
    }

    /// Checks what a driver or a person has put together.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn check(&self) -> Result<(), DeviceError> {
        check_user_id(&self.user_id)?;
        self.limits.check()?;
        if self.link.as_ref().is_some_and(String::is_empty) {
            return Err(DeviceError::EmptyLink);
        }
        if self.tokens.is_none() && !self.allow_token && self.revoked.is_none() {
            return Err(DeviceError::NoToken);
        }
        Ok(())
    }
}

/// Keys of a device, under a number that no others have had or will have: what depends on keys (sequence numbers above all) is kept under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Their number.
    pub number: KeyNumber,
    /// What they are.
    pub security: Security,
    /// What is known of their use.
    #[serde(default)]
    pub history: History,
}

/// What is known of the use of some keys, for those with sequence numbers: with numbers that are forgotten, two messages would be
/// sealed with one nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum History {
    /// They were never used.
    #[default]
    Fresh,
    /// They may have been used: what for stands in the gateway's state file.
    Begun,
    /// They were used, and what for is not known any more. They are not used again.
    Lost,
}

/// The number of some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyNumber(pub u64);

/// What a device is made from, beside its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDevice {
    /// See [`Device::name`].
    pub name: Name,
    /// See [`Device::user_id`].
    pub user_id: String,
    /// What kind of keys it gets.
    pub kind: Kind,
    /// See [`Device::link`].
    pub link: Option<String>,
    /// See [`Device::routes`].
    pub routes: Routes,
    /// See [`Device::limits`].
    pub limits: Limits,
    /// See [`Device::allow_token`].
    pub allow_token: bool,
    /// See [`Device::tokens`].
    pub tokens: Option<Tokens>,
}

/// A device that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Not of the form `@local:server`.
    #[error("{0:?} is no Matrix user id; one is like @buoy:example.org")]
    UserId(String),
    /// A link without a name.
    #[error("the link has no name")]
    EmptyLink,
    /// Neither the gateway nor the device has a token.
    #[error("there is no access token, and the device may not bring its own")]
    NoToken,
    /// A limit under which nothing would be left.
    #[error("{0} of 0 would allow nothing; revoke the device instead")]
    ZeroLimit(&'static str),
    /// A limit that is none.
    #[error("airtime per day of more than a day")]
    AirtimeOverADay,
}

/// Appendices §"User identifiers": `@`, a local part, `:`, a server name; 255 bytes at most. Older local parts have other characters
/// than new ones may have, so only those are refused that no id can have.
fn check_user_id(user_id: &str) -> Result<(), DeviceError> {
    let parts = user_id.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    match parts {
        Some((local, server)) if is_plain(local) && is_plain(server) && user_id.len() <= 255 => Ok(()),
        _ => Err(DeviceError::UserId(user_id.chars().take(300).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_those_of_matrix() {
        for good in ["@buoy:example.org", "@a=b/c:[::1]:8448", "@Old!:hs", "@a:hs:80"] {
            assert_eq!(check_user_id(good), Ok(()), "{good}");
        }
        let long = format!("@{}:hs", "a".repeat(252));
        for bad in ["", "buoy", "@buoy", "@:hs", "@buoy:", "buoy:hs", "@bu oy:hs", "@bu\noy:hs", &long] {
            assert!(check_user_id(bad).is_err(), "{bad}");
        }
    }
}
