//! The devices that a gateway serves: their keys, what they may do, and what of it they have used.
//!
//! `authorization` makes their calls with the tokens that the gateway keeps for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::agreement::kid_of_agreed;
use super::dtls::DtlsKeys;
use super::memory::Key;
use super::shaping::ShapeId;
use super::sync::{everything, polling};
use super::{Fetch, Gateway, Output};
use crate::coap;
use crate::coap::{Instant, OptionNumber};
use crate::device::{
    Allowance, Ask, Device, History, KeyNumber, Keys, Name, Oscore, Refresher, Refused, Security, TokenOf,
    Tokens,
};
use crate::endpoint::{Association, KeysNumber};
use crate::matrix::query;
use crate::translate::Call;

/// The devices that are served.
#[derive(Debug, Default)]
pub(super) struct Devices {
    served: BTreeMap<Association, Served>,
    names: BTreeMap<Name, Association>,
    /// Whether what was stored before the start has been read.
    restored: bool,
}

/// A device that is served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) device: Device,
    /// What it has used of its limits.
    allowance: Allowance,
    /// Keeps its access token alive, where the gateway has one.
    pub(super) refresher: Option<Refresher>,
}

/// What has become of a device without anybody's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// It has used the keys that it was given last: the others are of no use any more.
    Used(KeyNumber),
    /// What keys were used for is not known, or a limit of theirs is reached: they are not used again.
    Lost(KeyNumber),
    /// It has agreed on keys, which are used already.
    Agreed {
        /// By which of its keys.
        by: KeyNumber,
        /// Their number.
        number: KeyNumber,
        /// What they are.
        oscore: Box<Oscore>,
    },
    /// It has other tokens. No request is made with them before they are in the file.
    Renewed(Tokens),
}

impl Devices {
    pub(super) fn get(&self, association: Association) -> Option<&Served> {
        self.served.get(&association)
    }

    pub(super) fn get_mut(&mut self, association: Association) -> Option<&mut Served> {
        self.served.get_mut(&association)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.served.len()
    }

    /// Whether records of this one are of use: it is none of the devices, or one that is served.
    pub(super) fn may_have_records(&self, association: Association) -> bool {
        !matches!(association, Association::Device(_)) || self.served.contains_key(&association)
    }

    /// Takes up what a device had used of its limits before a restart.
    pub(super) fn recall_allowance(&mut self, association: Association, allowance: Allowance) -> Option<()> {
        self.served.get_mut(&association)?.allowance = allowance;
        Some(())
    }
}

impl Gateway {
    /// Takes in a device as it is now: a new one, one with other keys, tokens or limits, or one that was revoked, which is stopped at
    /// once. Devices of before a restart are handed in before [`Gateway::restore`].
    ///
    /// Keys that were used before ([`History::Begun`]) are served only where what they were used for is restored. Others are to be
    /// marked as used before anything that comes is handled: see [`Gateway::begin_keys`].
    pub fn set_device(&mut self, device: &Device, now: Instant) {
        let association = association_of(device);
        if let Some(other) =
            self.devices.names.get(&device.name).copied().filter(|other| *other != association)
        {
            self.dismiss(other, now);
        }
        if device.revoked.is_some() {
            self.dismiss(association, now);
            return self.drain(now);
        }
        let accepted: BTreeSet<_> = oscore(device).map(|(keys, _)| keys.number).collect();
        let before = self.devices.served.remove(&association);
        self.set_credentials(association, (before.as_ref().map(|served| &served.device), device), now);
        for (keys, _) in before.iter().flat_map(|served| oscore(&served.device)) {
            if !accepted.contains(&keys.number) {
                self.endpoint.revoke_keys(keys.number.0, now);
            }
        }
        if before.as_ref().is_some_and(|served| served.device.allow_token) && !device.allow_token {
            self.sessions.forget(association);
        }
        let link = device.link.as_deref();
        if let Some(link) = link.filter(|link| !self.config.endpoint.links.contains_key(*link)) {
            warn!(device = %device.name, link, "device is behind a link that is not known: it is taken for one without");
        }
        let (allowance, refresher) = match before {
            Some(Served { allowance, refresher, .. }) => (allowance, refresher),
            None => (Allowance::default(), None),
        };
        let refresher = self.refresher(association, refresher, device.tokens.as_ref());
        self.devices.names.insert(device.name.clone(), association);
        self.devices.served.insert(association, Served { device: device.clone(), allowance, refresher });
        self.endpoint.admit_device(association);
        for (keys, oscore) in oscore(device) {
            self.admit_keys(device, association, (keys, oscore), now);
        }
        self.set_dtls_keys(association, DtlsKeys::of(device), now);
        self.endpoint.set_link(association, link, now);
        self.pursue_tokens(association, now);
        self.drain(now);
    }

    /// Forgets a device, which is stopped at once.
    pub fn remove_device(&mut self, name: &Name, now: Instant) {
        if let Some(association) = self.devices.names.get(name).copied() {
            self.dismiss(association, now);
        }
        self.drain(now);
    }

    /// Whom a device is known as, where it is served.
    pub fn association(&self, name: &Name) -> Option<Association> {
        self.devices.names.get(name).copied()
    }

    /// Has it stored what a device's keys may be used for from now on, where they are to be used for the first time. They may be once
    /// that is durable, and they are marked as used.
    pub fn begin_keys(&mut self, name: &Name) {
        if let Some(association) = self.association(name) {
            self.endpoint.begin_keys(association);
        }
    }

    /// What is to be kept of all keys when the gateway has ended and nothing is handled any more, as records for
    /// [`Gateway::restore`]: without it, devices have to prove after the restart that their first requests are fresh.
    pub fn close(mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        for (key, memory) in self.endpoint.close_keys() {
            self.memories.store(&Key::Endpoint(key), &memory);
        }
        std::iter::from_fn(|| self.memories.poll()).filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Whether a device waits for these tokens to be written.
    pub fn awaits_tokens(&self, name: &Name, tokens: &Tokens) -> bool {
        let served = self.devices.names.get(name).and_then(|association| self.devices.get(*association));
        let refresher = served.and_then(|served| served.refresher.as_ref());
        refresher.is_some_and(|refresher| refresher.is_storing(tokens))
    }

    fn refresher(
        &mut self,
        association: Association,
        before: Option<Refresher>,
        tokens: Option<&Tokens>,
    ) -> Option<Refresher> {
        let tokens = tokens?.clone();
        match before {
            Some(mut refresher) => {
                if refresher.replace(tokens) {
                    self.abandon_renewal(association);
                }
                Some(refresher)
            }
            None => Some(Refresher::new(&self.config.homeserver.to_string(), tokens)),
        }
    }

    fn admit_keys(
        &mut self,
        device: &Device,
        association: Association,
        (keys, oscore): (&Keys, &Oscore),
        now: Instant,
    ) {
        let number = keys.number;
        self.endpoint.pass_over(number.0);
        if self.endpoint.has_keys(number.0) {
            return;
        }
        match keys.history {
            History::Fresh => {}
            // Their turn comes with what was stored.
            History::Begun if !self.devices.restored => return,
            History::Begun | History::Lost => return self.refuse_lost(device, keys),
        }
        self.admit_parameters(device, association, (number, oscore), now);
    }

    fn admit_parameters(
        &mut self,
        device: &Device,
        association: Association,
        (number, oscore): (KeyNumber, &Oscore),
        now: Instant,
    ) {
        let Some(parameters) = oscore.parameters().map(|device| device.mirrored()) else {
            return warn!(device = %device.name, "device has keys of an algorithm that is not known");
        };
        let admitted = match is_agreed(device, number) {
            true => {
                let of = (association, kid_of_agreed(device));
                self.endpoint.admit_agreed(number.0, of, parameters, now)
            }
            false => self.endpoint.admit_keys(number.0, association, parameters),
        };
        if let Err(error) = admitted {
            warn!(device = %device.name, %error, "device has keys that cannot be used");
        }
    }

    fn refuse_lost(&mut self, device: &Device, keys: &Keys) {
        if is_agreed(device, keys.number) {
            return self.refuse_agreed(&device.name, keys.number);
        }
        warn!(
            device = %device.name,
            "device is refused: what its keys were used for is not in the state file, and they would be used twice; lowband device rotate gives it others"
        );
        if keys.history != History::Lost {
            let change = DeviceChange::Lost(keys.number);
            self.outputs.push_back(Output::Device { name: device.name.clone(), change });
        }
    }

    /// Admits the keys that were used before, now that it is known of which it is known what for.
    pub(super) fn admit_begun(&mut self, known: &BTreeSet<KeysNumber>, now: Instant) {
        self.devices.restored = true;
        known.iter().for_each(|number| self.endpoint.pass_over(*number));
        let devices: Vec<_> =
            self.devices.served.iter().map(|(of, served)| (*of, served.device.clone())).collect();
        for (association, device) in devices {
            for (keys, oscore) in oscore(&device).filter(|(keys, _)| keys.history == History::Begun) {
                match known.contains(&keys.number.0) {
                    true => self.admit_parameters(&device, association, (keys.number, oscore), now),
                    false => self.refuse_lost(&device, keys),
                }
            }
        }
    }

    /// The first message under these keys has come.
    pub(super) fn keys_used(&mut self, association: Association, number: KeysNumber) {
        let Some(Served { device, .. }) = self.devices.get(association) else { return };
        if device.next.as_ref().is_some_and(|next| next.number.0 == number) {
            info!(device = %device.name, "device uses its new keys");
            let (name, change) = (device.name.clone(), DeviceChange::Used(KeyNumber(number)));
            self.outputs.push_back(Output::Device { name, change });
        }
    }

    /// Whether a request has an access token that its device may not bring. Looked at before anything is made of it.
    pub(super) fn bars_token(&self, association: Association, request: &coap::Request) -> bool {
        let brings = request.options.get(OptionNumber::ACCESS_TOKEN).is_some_and(|token| !token.is_empty());
        brings && self.devices.get(association).is_some_and(|served| !served.device.allow_token)
    }

    /// Whether a device may make a request; and whose token it is made with, which is then in the call or not. `registers` where it is
    /// to begin an observation. One that was admitted before a restart counts for nothing again.
    pub(super) fn admit(
        &mut self,
        association: Association,
        request: &coap::Request,
        (call, shape): (&mut Call, Option<ShapeId>),
        registers: bool,
        recalled: bool,
        now: Instant,
    ) -> Result<Option<Association>, Refused> {
        if !matches!(association, Association::Device(_)) {
            return Ok(None);
        }
        let Some(served) = self.devices.get(association) else { return Err(Refused::Revoked) };
        let brings = has_token_in_query(call) || served.device.allow_token && call.authorization.is_some();
        if !brings {
            call.authorization = None;
        }
        let account = (!brings && served.refresher.is_some()).then_some(association);
        let limited = registers && served.device.limits.observations.is_some();
        let beside = limited.then(|| self.beside(association, (call, shape), account));
        let ask = Ask {
            method: call.method.as_str(),
            path: &call.target.path,
            payload: request.payload.len(),
            beside_observations: beside,
            token: if brings { TokenOf::Device } else { TokenOf::Gateway },
        };
        self.count_airtime(association, now);
        let Some(Served { device, allowance, .. }) = self.devices.served.get_mut(&association) else {
            return Err(Refused::Revoked);
        };
        let admitted = match recalled {
            true => device.admit(&mut allowance.clone(), ask, now),
            false => device.admit(allowance, ask, now),
        };
        if self.config.endpoint.durable && device.limits.requests_per_minute.is_some() {
            self.memories.store(&Key::Allowance(association), allowance);
        }
        admitted.map(|()| account)
    }

    /// Counts what a device has taken up of its link, where there is a limit to that.
    pub(super) fn count_airtime(&mut self, association: Association, now: Instant) {
        let spent = self.endpoint.take_airtime(association);
        let Some(Served { device, allowance, .. }) = self.devices.served.get_mut(&association) else {
            return;
        };
        if spent.is_zero() || device.limits.airtime_per_day.is_none() {
            return;
        }
        allowance.airtime(spent, now);
        if self.config.endpoint.durable {
            self.memories.store(&Key::Allowance(association), allowance);
        }
    }

    /// The observations of a device that would be beside a new one, which takes the place of others of the same events.
    fn beside(
        &self,
        association: Association,
        (call, shape): (&Call, Option<ShapeId>),
        account: Option<Association>,
    ) -> usize {
        let call = everything(polling(call, None, Duration::ZERO));
        let same = self.feeds.find(&call, shape, account);
        let others = self.observations_of(association).filter(|(_, other)| Some(other.feed) != same);
        let begun = self.fetches.values().filter(|fetch| match fetch {
            Fetch::Registration { association: of, call: other, .. } => {
                *of == association && everything(other.clone()).query != call.query
            }
            _ => false,
        });
        others.count() + begun.count()
    }

    /// Stops a device: nothing of it is kept, nothing goes to it, and nothing is asked for it any more.
    fn dismiss(&mut self, association: Association, now: Instant) {
        let Some(Served { device, .. }) = self.devices.served.remove(&association) else { return };
        self.devices.names.remove(&device.name);
        self.revoke_credentials(&device, now);
        for (keys, _) in oscore(&device) {
            self.endpoint.revoke_keys(keys.number.0, now);
        }
        let is_its = |fetch: &Fetch| match fetch {
            Fetch::Request { association: of, .. }
            | Fetch::Registration { association: of, .. }
            | Fetch::Refresh(of) => *of == association,
            Fetch::Poll(_) | Fetch::CatchUp(_) => false,
        };
        let its = self.fetches.iter().filter(|(_, fetch)| is_its(fetch)).map(|(id, _)| *id);
        for id in its.collect::<Vec<_>>() {
            self.abandon(Some(id));
        }
        for id in self.observations_of(association).map(|(id, _)| id).collect::<Vec<_>>() {
            self.forget_observation(id, now);
        }
        self.set_dtls_keys(association, Vec::new(), now);
        self.endpoint.dismiss(association, now);
        self.packed.forget(association);
        self.remember_packed();
        self.sessions.forget(association);
        self.forget_sessions();
        if self.config.endpoint.durable {
            self.memories.forget(&Key::Allowance(association));
        }
        info!(device = %device.name, "device stopped");
    }
}

/// Whom all that is known of a device hangs on. One that is made anew under the same name is another.
fn association_of(device: &Device) -> Association {
    let created = device.created.since_start().as_nanos().to_be_bytes();
    let digest =
        Sha256::new().chain_update(device.name.as_str()).chain_update([0]).chain_update(created).finalize();
    let (number, _) = digest.split_at(8);
    Association::Device(u64::from_be_bytes(number.try_into().expect("a part of 8 bytes")))
}

/// A device's keys of OSCORE, those included that it has agreed on.
fn oscore(device: &Device) -> impl Iterator<Item = (&Keys, &Oscore)> {
    device.accepted().chain(&device.agreed).filter_map(|keys| match &keys.security {
        Security::Oscore(oscore) => Some((keys, oscore)),
        Security::Edhoc(_) | Security::DtlsPsk(_) | Security::DtlsCertificate(_) => None,
    })
}

/// Whether a call has an access token of its device's own.
pub(super) fn has_token(call: &Call) -> bool {
    call.authorization.is_some() || has_token_in_query(call)
}

/// Homeservers take it from there too, as the specification of old had it.
fn has_token_in_query(call: &Call) -> bool {
    query::get(&call.query, "access_token").is_some()
}

/// Whether a device has agreed on these keys.
fn is_agreed(device: &Device, number: KeyNumber) -> bool {
    device.agreed.iter().any(|keys| keys.number == number)
}
