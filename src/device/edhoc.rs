//! A device that agrees on its keys over the link, by EDHOC: the static key that it is known by.

use serde::Deserialize;
use serde::Serialize;

use super::Secret;
use super::SecurityError;
use crate::security::edhoc::Credential;
use crate::security::edhoc::Identity;
use crate::security::edhoc::KeyPair;
use crate::security::edhoc::PublicKey;

/// A device's static key. The keys that it agrees on by it are [`Device::agreed`](super::Device::agreed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edhoc {
    /// Its public key, and the id that the device names in its messages (`kid`): unique among all that the gateway accepts.
    pub credential: Credential,
    /// Its private key, to be exported; none where the device has made it itself.
    pub private: Option<Secret>,
}

impl Edhoc {
    /// A credential of a public key under an id. There is no subject in it, so that both ends can make it from these.
    ///
    /// # Errors
    /// The id is too long, or there is none.
    pub fn credential(kid: &[u8], key: PublicKey) -> Result<Credential, SecurityError> {
        Credential::new("", kid, key).map_err(|_| SecurityError::Kid(kid.len()))
    }

    /// The static key of a device that was made here.
    pub(super) fn of_pair(kid: &[u8], pair: &KeyPair) -> Result<Self, SecurityError> {
        let credential = Self::credential(kid, pair.public())?;
        Ok(Self { credential, private: Some(Secret::new(*pair.private())) })
    }

    /// The static key of a device that has its private key itself.
    pub(super) fn of_public(kid: &[u8], key: PublicKey) -> Result<Self, SecurityError> {
        Ok(Self { credential: Self::credential(kid, key)?, private: None })
    }

    pub(super) fn check(&self) -> Result<(), SecurityError> {
        let Some(private) = &self.private else { return Ok(()) };
        let pair = KeyPair::from_private(private.expose()).map_err(|_| SecurityError::PrivateKey)?;
        match pair.public() == self.credential.key() {
            true => Ok(()),
            false => Err(SecurityError::PrivateKey),
        }
    }
}

/// What a device has: its own static key, and the gateway's public one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdhocHalf {
    /// The id that it names.
    pub kid: Vec<u8>,
    /// Its private key; none where it has made it itself, and has to put it in.
    pub private: Option<Secret>,
    /// The gateway.
    pub gateway: Credential,
}

impl EdhocHalf {
    /// Who the device is, to run EDHOC; none without its private key.
    pub fn identity(&self) -> Option<Identity> {
        let pair = KeyPair::from_private(self.private.as_ref()?.expose()).ok()?;
        let credential = Edhoc::credential(&self.kid, pair.public()).ok()?;
        Identity::new(pair, credential).ok()
    }

    pub(super) fn check(&self) -> Result<(), SecurityError> {
        if self.kid.is_empty() || self.kid.len() > Credential::LONGEST_KID {
            return Err(SecurityError::Kid(self.kid.len()));
        }
        // RFC 9528 §3.5.3: an id means one credential.
        if self.kid == self.gateway.kid() {
            return Err(SecurityError::SameIds);
        }
        match self.private.is_none() || self.identity().is_some() {
            true => Ok(()),
            false => Err(SecurityError::PrivateKey),
        }
    }
}
