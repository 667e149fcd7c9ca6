//! What may be told of a device: all that is not secret.

use serde::Deserialize;
use serde::Serialize;

use super::Device;
use super::History;
use super::Keys;
use super::Limits;
use super::Name;
use super::Routes;
use super::Security;
use super::security::hex;
use crate::coap::Instant;

/// A device, for people and their programs. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// See [`Device::name`].
    pub name: Name,
    /// See [`Device::user_id`].
    pub user_id: String,
    /// `oscore`, `edhoc`, `dtls-psk` or `dtls-certificate`; none once it is revoked.
    pub security: Option<String>,
    /// What its keys are known by: an OSCORE or EDHOC id in hexadecimal, a PSK identity, or a fingerprint.
    pub id: Option<String>,
    /// The same of the keys that it has not used yet.
    pub next_id: Option<String>,
    /// How many keys it has agreed on that hold.
    #[serde(default)]
    pub agreed: usize,
    /// Whether keys of it are refused because it is not known any more what they were used for ([`History::Lost`]).
    #[serde(default)]
    pub keys_lost: bool,
    /// See [`Device::link`].
    pub link: Option<String>,
    /// See [`Device::routes`].
    pub routes: Routes,
    /// See [`Device::limits`].
    pub limits: Limits,
    /// See [`Device::allow_token`].
    pub allow_token: bool,
    /// Where its access token comes from.
    pub token: TokenState,
    /// When the access token ends, where that is known.
    pub token_expires: Option<u64>,
    /// See [`Device::created`].
    pub created: u64,
    /// See [`Device::rotated`].
    pub rotated: Option<u64>,
    /// See [`Device::revoked`].
    pub revoked: Option<u64>,
}

/// Where a device's access token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// The gateway has none.
    None,
    /// The gateway has one, and nothing to renew it with.
    Fixed,
    /// The gateway has one, and renews it.
    Renewed,
}

impl From<&Device> for Summary {
    fn from(device: &Device) -> Self {
        let seconds = |moment: Instant| moment.since_start().as_secs();
        let token = match &device.tokens {
            None => TokenState::None,
            Some(tokens) if tokens.refresh.is_none() => TokenState::Fixed,
            Some(_) => TokenState::Renewed,
        };
        Self {
            name: device.name.clone(),
            user_id: device.user_id.clone(),
            security: device.keys.as_ref().map(|keys| keys.security.name().to_owned()),
            id: device.keys.as_ref().map(id),
            next_id: device.next.as_ref().map(id),
            agreed: device.agreed.len(),
            keys_lost: device.accepted().any(|keys| keys.history == History::Lost),
            link: device.link.clone(),
            routes: device.routes.clone(),
            limits: device.limits,
            allow_token: device.allow_token,
            token,
            token_expires: device.tokens.as_ref().and_then(|tokens| tokens.expires).map(seconds),
            created: seconds(device.created),
            rotated: device.rotated.map(seconds),
            revoked: device.revoked.map(seconds),
        }
    }
}

fn id(keys: &Keys) -> String {
    match &keys.security {
        Security::Oscore(oscore) => hex::encode(&oscore.device_id),
        Security::Edhoc(edhoc) => hex::encode(edhoc.credential.kid()),
        Security::DtlsPsk(psk) => psk.identity.clone(),
        Security::DtlsCertificate(pin) => pin.to_string(),
    }
}
