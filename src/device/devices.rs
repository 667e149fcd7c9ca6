//! All devices of a gateway, and whose keys some keys are.
//!
//! What changes a device gives the device as it will be; a driver writes it to its file first, and then hands it to [`Devices::put`]. So
//! nothing is used that a restart would not know.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Device;
use super::DeviceError;
use super::Edhoc;
use super::History;
use super::KeyNumber;
use super::Keys;
use super::Kind;
use super::Name;
use super::NewDevice;
use super::Oscore;
use super::Pin;
use super::Psk;
use super::Secret;
use super::Security;
use super::SecurityError;
use super::Tokens;
use crate::coap::Instant;
use crate::security::edhoc::ConnectionId;
use crate::security::edhoc::Identity;
use crate::security::edhoc::KeyPair;
use crate::security::edhoc::PublicKey;

/// The devices, by name and by what their keys are known by.
#[derive(Debug, Default)]
pub struct Devices {
    devices: BTreeMap<Name, Device>,
    by_oscore_id: BTreeMap<Vec<u8>, Name>,
    by_kid: BTreeMap<Vec<u8>, Name>,
    by_identity: BTreeMap<String, Name>,
    by_pin: BTreeMap<Pin, Name>,
    next_number: u64,
    /// Who the gateway is for devices that agree on keys; none until there is one.
    identity: Option<Identity>,
}

/// Random bytes for one device's keys, and for no other's.
pub struct Material(Zeroizing<[u8; Material::LENGTH]>);

impl Material {
    /// How many bytes.
    pub const LENGTH: usize = 48;

    /// Takes bytes from a generator that nobody can predict.
    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Bytes that nothing else is made from.
    fn part<const START: usize, const LENGTH: usize>(&self) -> Secret {
        Secret::new(self.0.get(START..START + LENGTH).expect("the parts are within the whole"))
    }
}

impl Devices {
    /// The most devices, those included that are revoked.
    pub const LIMIT: usize = 10_000;
    /// The most keys that were agreed on and are kept of a device: what is on its way or observed under the older goes on.
    pub const AGREED: usize = 2;
    /// The length of a Master Salt.
    const SALT: usize = 8;

    /// Puts back what a file has kept: devices, and the number that the next keys are to have.
    ///
    /// # Errors
    /// Devices that cannot be beside each other: the file is none that this code has written.
    pub fn restore(
        devices: impl IntoIterator<Item = Device>,
        next_number: u64,
    ) -> Result<Self, DevicesError> {
        let mut all = Self { next_number, ..Self::default() };
        for device in devices {
            all.check(&device)?;
            all.put(device);
        }
        Ok(all)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The device of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &Name) -> Result<&Device, DevicesError> {
        self.devices.get(name).ok_or_else(|| DevicesError::Unknown(name.clone()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The number that the next keys get.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Who the gateway is for devices that agree on keys by EDHOC.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Takes in who the gateway is, before the first device that agrees on keys is made.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Whose OSCORE Sender ID this is (`kid`), and the keys that go with it.
    pub fn by_oscore_id(&self, id: &[u8]) -> Option<(&Device, &Keys, &Oscore)> {
        let device = self.devices.get(self.by_oscore_id.get(id)?)?;
        device.accepted().find_map(|keys| match &keys.security {
            Security::Oscore(oscore) if oscore.device_id == id => Some((device, keys, oscore)),
            _ => None,
        })
    }

    /// Whose PSK identity this is, and the key that goes with it.
    pub fn by_identity(&self, identity: &[u8]) -> Option<(&Device, &Keys, &Psk)> {
        let identity = std::str::from_utf8(identity).ok()?;
        let device = self.devices.get(self.by_identity.get(identity)?)?;
        device.accepted().find_map(|keys| match &keys.security {
            Security::DtlsPsk(psk) if psk.identity == identity => Some((device, keys, psk)),
            _ => None,
        })
    }

    /// Whose certificate has this fingerprint.
    pub fn by_pin(&self, pin: &Pin) -> Option<(&Device, &Keys)> {
        let device = self.devices.get(self.by_pin.get(pin)?)?;
        device.accepted().find_map(|keys| match &keys.security {
            Security::DtlsCertificate(own) if own == pin => Some((device, keys)),
            _ => None,
        })
    }

    /// A new device with keys of its own. The name of one that is revoked may be given again.
    ///
    /// # Errors
    /// The name or the certificate is another's, there are too many, or the device cannot be.
    pub fn added(&self, new: NewDevice, material: &Material, now: Instant) -> Result<Device, DevicesError> {
        let known = self.devices.get(&new.name);
        if known.is_some_and(|device| device.revoked.is_none()) {
            return Err(DevicesError::Taken(new.name));
        }
        if known.is_none() && self.devices.len() >= Self::LIMIT {
            return Err(DevicesError::Full);
        }
        let device = Device {
            name: new.name,
            user_id: new.user_id,
            keys: Some(self.make(new.kind, material)?),
            next: None,
            agreed: Vec::new(),
            link: new.link,
            routes: new.routes,
            limits: new.limits,
            allow_token: new.allow_token,
            tokens: new.tokens,
            created: now,
            rotated: None,
            revoked: None,
        };
        self.check(&device)?;
        Ok(device)
    }

    /// The device with new keys of the same kind and length beside the old, which hold until it first uses the new. `pin` is that of the new
    /// certificate, where the keys are one; `public_key` the new one of a device that makes its keys itself.
    ///
    /// # Errors
    /// It is revoked, it has not yet used the keys that it was given last, or it needs a certificate.
    pub fn rotated(
        &self,
        name: &Name,
        rotation: Rotation,
        material: &Material,
        now: Instant,
    ) -> Result<Device, DevicesError> {
        let device = self.get(name)?;
        let Some(keys) = &device.keys else { return Err(DevicesError::Revoked(name.clone())) };
        if device.next.is_some() && rotation.unused == Unused::Keep {
            return Err(DevicesError::Unused(name.clone()));
        }
        let kind = match (&keys.security, rotation.pin, rotation.public_key) {
            (Security::Oscore(_), None, None) => Kind::Oscore,
            (Security::DtlsPsk(psk), None, None) if psk.key.expose().len() == Psk::SHORT => {
                Kind::DtlsShortPsk
            }
            (Security::DtlsPsk(_), None, None) => Kind::DtlsPsk,
            (Security::Edhoc(Edhoc { private: None, .. }), None, None) => {
                return Err(DevicesError::NeedsPublicKey(name.clone()));
            }
            (Security::Edhoc(_), None, public_key) => Kind::Edhoc(public_key),
            (Security::DtlsCertificate(_), Some(pin), None) => Kind::DtlsCertificate(pin),
            (Security::DtlsCertificate(_), None, None) => {
                return Err(DevicesError::NeedsCertificate(name.clone()));
            }
            (_, _, Some(_)) => return Err(DevicesError::TakesNoPublicKey(name.clone())),
            (_, Some(_), None) => return Err(DevicesError::TakesNoCertificate(name.clone())),
        };
        let next = Some(self.make(kind, material)?);
        let device = Device { next, rotated: Some(now), ..device.clone() };
        self.check(&device)?;
        Ok(device)
    }

    /// The device without its old keys, where it has just used its new ones for the first time: to be called for every message that
    /// was found authentic.
    pub fn used(&self, name: &Name, number: KeyNumber) -> Option<Device> {
        let device = self.devices.get(name)?;
        let next = device.next.as_ref().filter(|next| next.number == number)?;
        Some(Device { keys: Some(next.clone()), next: None, ..device.clone() })
    }

    /// The device with keys that it has agreed on by others of its keys, which the gateway has begun to use. With the first by new ones
    /// that it was given, all before are gone; else those before the last two. None where it has no such keys, or has these already.
    pub fn agreed(&self, name: &Name, by: KeyNumber, number: KeyNumber, oscore: Oscore) -> Option<Device> {
        let device = self.devices.get(name)?;
        let keys = Keys { number, security: Security::Oscore(oscore), history: History::Begun };
        let is_of = |of: &Option<Keys>| of.as_ref().is_some_and(|keys| keys.number == by && is_edhoc(keys));
        if is_of(&device.next) {
            return Some(Device {
                keys: device.next.clone(),
                next: None,
                agreed: vec![keys],
                ..device.clone()
            });
        }
        if !is_of(&device.keys) || device.agreed.iter().any(|before| before.number >= number) {
            return None;
        }
        let kept = device.agreed.iter().rev().take(Self::AGREED - 1).rev().cloned();
        Some(Device { agreed: kept.chain([keys]).collect(), ..device.clone() })
    }

    /// The device with keys marked as used that were not before; none where there are no such.
    pub fn begun(&self, name: &Name) -> Option<Device> {
        self.with_history(name, |keys| keys.history == History::Fresh, History::Begun)
    }

    /// The device with these keys marked as of no use any more; without them, where it has agreed on them and can agree on others.
    pub fn lost(&self, name: &Name, number: KeyNumber) -> Option<Device> {
        let device = self.devices.get(name)?;
        if device.agreed.iter().any(|keys| keys.number == number) {
            let others = device.agreed.iter().filter(|keys| keys.number != number);
            return Some(Device { agreed: others.cloned().collect(), ..device.clone() });
        }
        self.with_history(name, |keys| keys.number == number, History::Lost)
    }

    fn with_history(
        &self,
        name: &Name,
        is_meant: impl Fn(&Keys) -> bool,
        history: History,
    ) -> Option<Device> {
        let mut device = self.devices.get(name)?.clone();
        let is_numbered = |keys: &&mut Keys| matches!(keys.security, Security::Oscore(_));
        let all = device.keys.iter_mut().chain(&mut device.next).filter(is_numbered);
        let meant: Vec<_> = all.filter(|keys| is_meant(keys) && keys.history != history).collect();
        if meant.is_empty() {
            return None;
        }
        meant.into_iter().for_each(|keys| keys.history = history);
        Some(device)
    }

    /// The device with nothing left that would let it in, or anybody act for it.
    ///
    /// # Errors
    /// There is none, or it is revoked already.
    pub fn revoked(&self, name: &Name, now: Instant) -> Result<Device, DevicesError> {
        let device = self.get(name)?;
        if device.revoked.is_some() {
            return Err(DevicesError::Revoked(name.clone()));
        }
        let agreed = Vec::new();
        Ok(Device { keys: None, next: None, agreed, tokens: None, revoked: Some(now), ..device.clone() })
    }

    /// The device with new tokens.
    ///
    /// # Errors
    /// There is none, or it is revoked.
    pub fn renewed(&self, name: &Name, tokens: Tokens) -> Result<Device, DevicesError> {
        let device = self.get(name)?;
        if device.revoked.is_some() {
            return Err(DevicesError::Revoked(name.clone()));
        }
        Ok(Device { tokens: Some(tokens), ..device.clone() })
    }

    /// Takes in a device as one of the functions above has given it.
    pub fn put(&mut self, device: Device) {
        self.take(&device.name);
        for keys in device.accepted() {
            self.next_number = self.next_number.max(keys.number.0.saturating_add(1));
            let name = device.name.clone();
            match &keys.security {
                Security::Oscore(oscore) => drop(self.by_oscore_id.insert(oscore.device_id.clone(), name)),
                Security::Edhoc(edhoc) => drop(self.by_kid.insert(edhoc.credential.kid().to_vec(), name)),
                Security::DtlsPsk(psk) => drop(self.by_identity.insert(psk.identity.clone(), name)),
                Security::DtlsCertificate(pin) => drop(self.by_pin.insert(*pin, name)),
            }
        }
        self.devices.insert(device.name.clone(), device);
    }

    /// Takes a device out, and all that it was known by.
    pub fn take(&mut self, name: &Name) -> Option<Device> {
        self.by_oscore_id.retain(|_, owner| owner != name);
        self.by_kid.retain(|_, owner| owner != name);
        self.by_identity.retain(|_, owner| owner != name);
        self.by_pin.retain(|_, owner| owner != name);
        self.devices.remove(name)
    }

    fn make(&self, kind: Kind, material: &Material) -> Result<Keys, DevicesError> {
        let number = self.next_number;
        let security = match kind {
            Kind::Oscore => Security::Oscore(self.make_oscore(material)?),
            Kind::Edhoc(public_key) => Security::Edhoc(self.make_edhoc(public_key, material)?),
            Kind::DtlsPsk => Security::DtlsPsk(make_psk(number, material)),
            Kind::DtlsShortPsk => Security::DtlsPsk(make_short_psk(number, material)),
            Kind::DtlsCertificate(pin) => Security::DtlsCertificate(pin),
        };
        Ok(Keys { number: KeyNumber(number), security, history: History::Fresh })
    }

    fn make_oscore(&self, material: &Material) -> Result<Oscore, DevicesError> {
        let ids = std::iter::once(Vec::new())
            .chain((0..=u8::MAX).map(|id| vec![id]))
            .chain((0..=u16::MAX).map(|id| id.to_be_bytes().to_vec()));
        // Those that were agreed on come and go, and one that both have costs a try for each message.
        let agreed: BTreeSet<_> = self.devices.values().flat_map(agreed_ids).collect();
        let mut free =
            ids.filter(|id| !self.by_oscore_id.contains_key(id) && !agreed.contains(id.as_slice()));
        let device_id = free.next().ok_or(DevicesError::Full)?;
        let gateway_id = if device_id.is_empty() { vec![0] } else { Vec::new() };
        Ok(Oscore {
            secret: material.part::<0, { Oscore::SECRET }>(),
            salt: material.part::<{ Oscore::SECRET }, { Self::SALT }>(),
            device_id,
            gateway_id,
            algorithm: Oscore::AES_CCM_16_64_128,
            hkdf: Oscore::HKDF_SHA_256,
        })
    }

    fn make_edhoc(&self, public_key: Option<PublicKey>, material: &Material) -> Result<Edhoc, DevicesError> {
        let own = self.identity.as_ref().ok_or(DevicesError::NoIdentity)?.credential().kid();
        // An id that is short as a connection identifier is so here.
        let is_free = |kid: &ConnectionId| kid.as_bytes() != own && !self.by_kid.contains_key(kid.as_bytes());
        let kid = ConnectionId::choose(0, is_free).ok_or(DevicesError::Full)?;
        Ok(match public_key {
            Some(key) => Edhoc::of_public(kid.as_bytes(), key)?,
            None => {
                let seed = material.part::<0, 32>();
                let seed = seed.expose().try_into().expect("it has 32 bytes");
                Edhoc::of_pair(kid.as_bytes(), &KeyPair::generate(seed))?
            }
        })
    }

    /// Whether the device can be, and be beside the others.
    fn check(&self, device: &Device) -> Result<(), DevicesError> {
        device.check()?;
        for keys in device.accepted() {
            keys.security.check()?;
            let owner = match &keys.security {
                Security::Oscore(oscore) => self.by_oscore_id.get(&oscore.device_id),
                Security::Edhoc(edhoc) => self.by_kid.get(edhoc.credential.kid()),
                Security::DtlsPsk(psk) => self.by_identity.get(&psk.identity),
                Security::DtlsCertificate(pin) => self.by_pin.get(pin),
            };
            if let Some(owner) = owner.filter(|owner| **owner != device.name) {
                return Err(DevicesError::SharedKeys(owner.clone()));
            }
        }
        match (&device.keys, &device.next) {
            (Some(Keys { security: Security::DtlsCertificate(old), .. }), Some(next))
                if next.security == Security::DtlsCertificate(*old) =>
            {
                Err(DevicesError::SameCertificate(device.name.clone()))
            }
            _ => Ok(()),
        }
    }
}

fn is_edhoc(keys: &Keys) -> bool {
    matches!(keys.security, Security::Edhoc(_))
}

/// The ids by which a device names the keys that it has agreed on.
fn agreed_ids(device: &Device) -> impl Iterator<Item = &[u8]> {
    device.agreed.iter().filter_map(|keys| match &keys.security {
        Security::Oscore(oscore) => Some(oscore.device_id.as_slice()),
        _ => None,
    })
}

/// The identity is the keys' number: short, the same never again, and it tells an eavesdropper no name. The key is 192 bits in 32
/// printable characters: a key's length costs nothing on the link.
fn make_psk(number: u64, material: &Material) -> Psk {
    use base64ct::Encoding;
    let bytes = material.part::<24, 24>();
    let key = base64ct::Base64UrlUnpadded::encode_string(bytes.expose());
    Psk { identity: base_36(number), key: Secret::new(key) }
}

/// The same with a key of 128 bits, which are no text: as text they would be fewer.
fn make_short_psk(number: u64, material: &Material) -> Psk {
    Psk { identity: base_36(number), key: material.part::<24, { Psk::SHORT }>() }
}

fn base_36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// How to give a device new keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// What becomes of new keys that it was given before and has not used.
    pub unused: Unused,
    /// Its new certificate.
    pub pin: Option<Pin>,
    /// Its new public key for EDHOC, where it makes its keys itself.
    #[serde(default)]
    pub public_key: Option<PublicKey>,
}

/// What becomes of new keys that a device has not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unused {
    /// They stay, and there are no others: the device may have them already, and would be locked out.
    Keep,
    /// Others are in their place.
    Replace,
}

/// What cannot be done with devices.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DevicesError {
    /// There is no such device.
    #[error("there is no device {0}")]
    Unknown(Name),
    /// There is one already.
    #[error("there is a device {0} already")]
    Taken(Name),
    /// It is revoked.
    #[error("device {0} is revoked")]
    Revoked(Name),
    /// It has been given new keys already.
    #[error("device {0} has not used the keys yet that it was given last")]
    Unused(Name),
    /// Its keys are a certificate, and so are the new ones.
    #[error("device {0} needs a new certificate")]
    NeedsCertificate(Name),
    /// Its keys are no certificate.
    #[error("device {0} has no certificate, and takes none")]
    TakesNoCertificate(Name),
    /// It makes its keys itself.
    #[error("device {0} has its private key itself, and needs a new public one")]
    NeedsPublicKey(Name),
    /// Its keys are none that have a public half.
    #[error("device {0} agrees on no keys, and takes no public key")]
    TakesNoPublicKey(Name),
    /// The gateway has no key itself that devices could know.
    #[error("the gateway has no key for EDHOC")]
    NoIdentity,
    /// The new certificate is the old one.
    #[error("device {0} has this certificate already")]
    SameCertificate(Name),
    /// The keys are another's.
    #[error("device {0} has these keys already")]
    SharedKeys(Name),
    /// There are too many.
    #[error("there are {} devices already, the most there can be", Devices::LIMIT)]
    Full,
    /// The device cannot be.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its keys cannot be.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

#[cfg(test)]
mod tests;
