//! Devices that agree on their keys over the link, by EDHOC: which may, and that what they have agreed on outlasts a restart.
//!
//! Keys that were agreed on are kept with the device, sealed as all of it, and under a number that no others have had: what they were
//! used for is stored under that before they are used, and after a restart they are served only where it is known.

use std::collections::BTreeSet;

use tracing::{info, warn};

use super::{DeviceChange, Gateway, Output};
use crate::coap::Instant;
use crate::device::{Device, KeyNumber, Keys, Name, Oscore, Secret, Security};
use crate::endpoint::{Association, KeysNumber};
use crate::security::edhoc::{Config, Credential, Identity, Rekey};
use crate::security::oscore::Parameters;

/// The least number of keys that were agreed on; others have less.
const FIRST: KeysNumber = 1 << 63;

impl Gateway {
    /// Lets devices agree on keys from now on, which know the gateway by this key. To be called before such devices are handed in; once is
    /// enough.
    pub fn answer_edhoc(&mut self, identity: &Identity) {
        if !self.endpoint.answers_edhoc() {
            let config = Config::of_link(&self.config.endpoint.parameters);
            self.endpoint.answer_edhoc(identity.clone(), config, Rekey::default(), FIRST);
            let links = self.config.endpoint.listeners.values().chain(&self.config.endpoint.link);
            links.cloned().collect::<BTreeSet<_>>().iter().for_each(|link| self.wait_for_edhoc(link));
        }
    }

    /// Whether these keys are served.
    pub fn has_keys(&self, number: KeyNumber) -> bool {
        self.endpoint.has_keys(number.0)
    }

    /// Lets a device agree on keys by the credentials that it has now, and no more by those that it had.
    pub(super) fn set_credentials(
        &mut self,
        association: Association,
        (before, device): (Option<&Device>, &Device),
        now: Instant,
    ) {
        let kids: BTreeSet<_> = credentials(device).map(Credential::kid).collect();
        for credential in before.into_iter().flat_map(credentials) {
            if !kids.contains(credential.kid()) {
                self.endpoint.revoke_credential(credential.kid(), now);
            }
        }
        for credential in credentials(device) {
            self.endpoint.admit_credential(association, credential.clone());
        }
        if let (false, Some(link)) = (kids.is_empty(), &device.link) {
            self.wait_for_edhoc(link);
        }
    }

    /// Lets a device agree on keys no more.
    pub(super) fn revoke_credentials(&mut self, device: &Device, now: Instant) {
        for credential in credentials(device) {
            self.endpoint.revoke_credential(credential.kid(), now);
        }
    }

    /// A device has agreed on keys: they are to be kept.
    pub(super) fn keys_agreed(&mut self, association: Association, number: KeysNumber, kid: &[u8]) {
        let Some(served) = self.devices.get(association) else { return };
        let by = served.device.accepted().find(|keys| credential(keys).is_some_and(|own| own.kid() == kid));
        let (Some(by), Some(parameters)) = (by, self.endpoint.parameters(number)) else { return };
        info!(device = %served.device.name, "device has agreed on keys");
        let change = DeviceChange::Agreed {
            by: by.number,
            number: KeyNumber(number),
            oscore: Box::new(to_device(parameters)),
        };
        let name = served.device.name.clone();
        self.outputs.push_back(Output::Device { name, change });
    }

    /// Keys that were agreed on have reached a limit, and are of no use any more.
    pub(super) fn keys_spent(&mut self, association: Association, number: KeysNumber) {
        let Some(served) = self.devices.get(association) else { return };
        info!(device = %served.device.name, "device has to agree on other keys");
        let (name, change) = (served.device.name.clone(), DeviceChange::Lost(KeyNumber(number)));
        self.outputs.push_back(Output::Device { name, change });
    }

    /// Keys that were agreed on are not served after a restart: the device agrees on others.
    pub(super) fn refuse_agreed(&mut self, name: &Name, number: KeyNumber) {
        warn!(device = %name, "what keys were used for that the device has agreed on is not in the state file: it has to agree on others");
        self.outputs.push_back(Output::Device { name: name.clone(), change: DeviceChange::Lost(number) });
    }

    fn wait_for_edhoc(&mut self, link: &str) {
        if let Some(terms) = self.config.endpoint.links.get(link) {
            self.endpoint.wait_for_edhoc(&terms.parameters);
        }
    }
}

/// The id of the credential by which a device has agreed on keys that are kept.
pub(super) fn kid_of_agreed(device: &Device) -> &[u8] {
    device.keys.as_ref().and_then(credential).map(Credential::kid).unwrap_or_default()
}

fn credentials(device: &Device) -> impl Iterator<Item = &Credential> {
    device.accepted().filter_map(credential)
}

fn credential(keys: &Keys) -> Option<&Credential> {
    match &keys.security {
        Security::Edhoc(edhoc) => Some(&edhoc.credential),
        _ => None,
    }
}

/// Keys as they are kept: with the algorithms of cipher suite 2.
fn to_device(parameters: &Parameters) -> Oscore {
    Oscore {
        secret: Secret::new(parameters.master_secret.expose()),
        salt: Secret::new(parameters.master_salt.expose()),
        device_id: parameters.recipient_id.clone(),
        gateway_id: parameters.sender_id.clone(),
        algorithm: parameters.algorithm.into(),
        hkdf: parameters.hkdf.into(),
    }
}
