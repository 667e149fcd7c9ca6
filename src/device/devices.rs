//! All devices of a gateway, and whose keys some keys are.
//!
//! What changes a device gives the device as it will be; a driver writes it to its file first, and then hands it to [`Devices::put`]. So
//! nothing is used that a restart would not know.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Device;
use super::DeviceError;
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

/// The devices, by name and by what their keys are known by.
#[derive(Debug, Default)]
pub struct Devices {
    devices: BTreeMap<Name, Device>,
    by_oscore_id: BTreeMap<Vec<u8>, Name>,
    by_identity: BTreeMap<String, Name>,
    by_pin: BTreeMap<Pin, Name>,
    next_number: u64,
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

    /// The device with new keys of the same kind beside the old, which hold until it first uses the new. `pin` is that of the new
    /// certificate, where the keys are one.
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
        let kind = match (&keys.security, rotation.pin) {
            (Security::Oscore(_), None) => Kind::Oscore,
            (Security::DtlsPsk(_), None) => Kind::DtlsPsk,
            (Security::DtlsCertificate(_), Some(pin)) => Kind::DtlsCertificate(pin),
            (Security::DtlsCertificate(_), None) => return Err(DevicesError::NeedsCertificate(name.clone())),
            (_, Some(_)) => return Err(DevicesError::TakesNoCertificate(name.clone())),
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

    /// The device with nothing left that would let it in, or anybody act for it.
    ///
    /// # Errors
    /// There is none, or it is revoked already.
    pub fn revoked(&self, name: &Name, now: Instant) -> Result<Device, DevicesError> {
        let device = self.get(name)?;
        if device.revoked.is_some() {
            return Err(DevicesError::Revoked(name.clone()));
        }
        Ok(Device { keys: None, next: None, tokens: None, revoked: Some(now), ..device.clone() })
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
                Security::DtlsPsk(psk) => drop(self.by_identity.insert(psk.identity.clone(), name)),
                Security::DtlsCertificate(pin) => drop(self.by_pin.insert(*pin, name)),
            }
        }
        self.devices.insert(device.name.clone(), device);
    }

    /// Takes a device out, and all that it was known by.
    pub fn take(&mut self, name: &Name) -> Option<Device> {
        self.by_oscore_id.retain(|_, owner| owner != name);
        self.by_identity.retain(|_, owner| owner != name);
        self.by_pin.retain(|_, owner| owner != name);
        self.devices.remove(name)
    }

    fn make(&self, kind: Kind, material: &Material) -> Result<Keys, DevicesError> {
        let number = self.next_number;
        let security = match kind {
            Kind::Oscore => Security::Oscore(self.make_oscore(material)?),
            Kind::DtlsPsk => Security::DtlsPsk(make_psk(number, material)),
            Kind::DtlsCertificate(pin) => Security::DtlsCertificate(pin),
        };
        Ok(Keys { number: KeyNumber(number), security })
    }

    fn make_oscore(&self, material: &Material) -> Result<Oscore, DevicesError> {
        let ids = std::iter::once(Vec::new())
            .chain((0..=u8::MAX).map(|id| vec![id]))
            .chain((0..=u16::MAX).map(|id| id.to_be_bytes().to_vec()));
        let mut free = ids.filter(|id| !self.by_oscore_id.contains_key(id));
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

    /// Whether the device can be, and be beside the others.
    fn check(&self, device: &Device) -> Result<(), DevicesError> {
        device.check()?;
        for keys in device.accepted() {
            keys.security.check()?;
            let owner = match &keys.security {
                Security::Oscore(oscore) => self.by_oscore_id.get(&oscore.device_id),
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

/// The identity is the keys' number: short, the same never again, and it tells an eavesdropper no name. The key is 192 bits in 32
/// printable characters: a key's length costs nothing on the link.
fn make_psk(number: u64, material: &Material) -> Psk {
    use base64ct::Encoding;
    let bytes = material.part::<24, 24>();
    let key = base64ct::Base64UrlUnpadded::encode_string(bytes.expose());
    Psk { identity: base_36(number), key: Secret::new(key) }
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
mod tests {
    use super::*;
    use crate::device::Limits;
    use crate::device::Routes;

    fn new(name: &str, kind: Kind) -> NewDevice {
        NewDevice {
            name: name.parse().unwrap(),
            user_id: "@buoy:hs".into(),
            kind,
            link: None,
            routes: Routes::Messaging,
            limits: Limits::default(),
            allow_token: true,
            tokens: None,
        }
    }

    fn material(byte: u8) -> Material {
        Material::new(std::array::from_fn(|place| byte.wrapping_add(u8::try_from(place).unwrap())))
    }

    fn with(kinds: &[(&str, Kind)]) -> Devices {
        let mut devices = Devices::default();
        for ((name, kind), byte) in kinds.iter().zip(0..) {
            devices.put(devices.added(new(name, *kind), &material(byte), Instant::START).unwrap());
        }
        devices
    }

    const KEEP: Rotation = Rotation { unused: Unused::Keep, pin: None };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn oscore_ids_are_the_shortest_that_are_free() {
        let mut devices = with(&[("a", Kind::Oscore), ("b", Kind::Oscore)]);
        let ids = |devices: &Devices, text: &str| match &devices.get(&name(text)).unwrap().keys {
            Some(Keys { security: Security::Oscore(oscore), .. }) => {
                (oscore.device_id.clone(), oscore.gateway_id.clone())
            }
            _ => panic!("no OSCORE keys"),
        };
        assert_eq!(ids(&devices, "a"), (vec![], vec![0]));
        assert_eq!(ids(&devices, "b"), (vec![0], vec![]));
        devices.put(devices.revoked(&name("a"), Instant::START).unwrap());
        devices.put(devices.added(new("c", Kind::Oscore), &material(9), Instant::START).unwrap());
        assert_eq!(ids(&devices, "c"), (vec![], vec![0]));
        for number in 0..256 {
            let new = new(&format!("n{number}"), Kind::Oscore);
            devices.put(devices.added(new, &material(0), Instant::START).unwrap());
        }
        assert_eq!(ids(&devices, "n255"), (vec![0, 0], vec![]));
    }

    #[test]
    fn keys_are_of_what_they_are_made_from_and_in_no_two_parts() {
        let devices = with(&[("a", Kind::Oscore), ("b", Kind::DtlsPsk)]);
        let (_, keys, oscore) = devices.by_oscore_id(&[]).unwrap();
        assert_eq!(keys.number, KeyNumber(0));
        assert_eq!(oscore.secret.expose(), (0..16).collect::<Vec<u8>>());
        assert_eq!(oscore.salt.expose(), (16..24).collect::<Vec<u8>>());
        let (device, keys, psk) = devices.by_identity(b"1").unwrap();
        assert_eq!((device.name.as_str(), keys.number), ("b", KeyNumber(1)));
        assert_eq!(psk.key.expose_text(), Some("GRobHB0eHyAhIiMkJSYnKCkqKywtLi8w"));
    }

    #[test]
    fn rotation_keeps_the_old_keys_until_the_new_are_used() {
        let mut devices = with(&[("a", Kind::DtlsPsk)]);
        let a = name("a");
        let rotated = devices.rotated(&a, KEEP, &material(7), Instant::START).unwrap();
        devices.put(rotated);
        let number = |devices: &Devices, identity: &[u8]| {
            devices.by_identity(identity).map(|(_, keys, _)| keys.number)
        };
        assert_eq!(number(&devices, b"0"), Some(KeyNumber(0)));
        assert_eq!(number(&devices, b"1"), Some(KeyNumber(1)));
        assert_eq!(devices.used(&a, KeyNumber(0)), None);
        assert_eq!(number(&devices, b"0"), Some(KeyNumber(0)));
        assert_eq!(
            devices.rotated(&a, KEEP, &material(8), Instant::START),
            Err(DevicesError::Unused(a.clone()))
        );
        devices.put(devices.used(&a, KeyNumber(1)).unwrap());
        assert_eq!(number(&devices, b"0"), None);
        assert_eq!(number(&devices, b"1"), Some(KeyNumber(1)));
        assert_eq!(devices.used(&a, KeyNumber(1)), None);
        assert!(devices.rotated(&a, KEEP, &material(8), Instant::START).is_ok());
    }

    #[test]
    fn unused_keys_are_replaced_on_demand() {
        let mut devices = with(&[("a", Kind::DtlsPsk)]);
        devices.put(devices.rotated(&name("a"), KEEP, &material(7), Instant::START).unwrap());
        let replace = Rotation { unused: Unused::Replace, pin: None };
        devices.put(devices.rotated(&name("a"), replace, &material(8), Instant::START).unwrap());
        assert!(devices.by_identity(b"0").is_some());
        assert!(devices.by_identity(b"1").is_none());
        assert!(devices.by_identity(b"2").is_some());
    }

    #[test]
    fn nothing_of_a_revoked_device_is_accepted_and_its_name_is_free() {
        let mut devices = with(&[("a", Kind::DtlsPsk)]);
        devices.put(devices.rotated(&name("a"), KEEP, &material(7), Instant::START).unwrap());
        devices.put(devices.revoked(&name("a"), Instant::START).unwrap());
        assert!(devices.by_identity(b"0").is_none() && devices.by_identity(b"1").is_none());
        let gone = DevicesError::Revoked(name("a"));
        assert_eq!(devices.revoked(&name("a"), Instant::START), Err(gone.clone()));
        assert_eq!(devices.rotated(&name("a"), KEEP, &material(7), Instant::START), Err(gone.clone()));
        assert_eq!(devices.renewed(&name("a"), Tokens::access("t")), Err(gone));
        devices.put(devices.added(new("a", Kind::DtlsPsk), &material(1), Instant::START).unwrap());
        let (_, keys, _) = devices.by_identity(b"2").unwrap();
        assert_eq!(keys.number, KeyNumber(2));
    }

    #[test]
    fn certificates_are_one_devices_alone() {
        let certificate = |byte| Kind::DtlsCertificate(Pin([byte; 32]));
        let mut devices = with(&[("a", certificate(1)), ("b", certificate(2))]);
        assert_eq!(devices.by_pin(&Pin([2; 32])).unwrap().0.name, name("b"));
        let added = devices.added(new("c", certificate(1)), &material(0), Instant::START);
        assert_eq!(added, Err(DevicesError::SharedKeys(name("a"))));
        let rotated = |devices: &Devices, pin: Option<u8>| {
            let rotation = Rotation { unused: Unused::Keep, pin: pin.map(|byte| Pin([byte; 32])) };
            devices.rotated(&name("a"), rotation, &material(0), Instant::START)
        };
        assert_eq!(rotated(&devices, None), Err(DevicesError::NeedsCertificate(name("a"))));
        assert_eq!(rotated(&devices, Some(1)), Err(DevicesError::SameCertificate(name("a"))));
        assert_eq!(rotated(&devices, Some(2)), Err(DevicesError::SharedKeys(name("b"))));
        let device = rotated(&devices, Some(3)).unwrap();
        devices.put(device);
        assert!(devices.by_pin(&Pin([1; 32])).is_some() && devices.by_pin(&Pin([3; 32])).is_some());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let devices = with(&[("a", Kind::Oscore)]);
        let add = |new: NewDevice| devices.added(new, &material(0), Instant::START).unwrap_err();
        assert_eq!(add(new("a", Kind::Oscore)), DevicesError::Taken(name("a")));
        let tokenless = NewDevice { allow_token: false, ..new("b", Kind::Oscore) };
        assert_eq!(add(tokenless), DevicesError::Device(DeviceError::NoToken));
        let foreign = NewDevice { user_id: "buoy".into(), ..new("b", Kind::Oscore) };
        assert_eq!(add(foreign), DevicesError::Device(DeviceError::UserId("buoy".into())));
        let unlinked = NewDevice { link: Some(String::new()), ..new("b", Kind::Oscore) };
        assert_eq!(add(unlinked), DevicesError::Device(DeviceError::EmptyLink));
        let pin = Rotation { unused: Unused::Keep, pin: Some(Pin([1; 32])) };
        let rotated = devices.rotated(&name("a"), pin, &material(0), Instant::START);
        assert_eq!(rotated, Err(DevicesError::TakesNoCertificate(name("a"))));
        assert_eq!(devices.get(&name("b")), Err(DevicesError::Unknown(name("b"))));
    }

    #[test]
    fn restored_devices_are_the_same_and_numbers_go_on() {
        let devices = with(&[("a", Kind::Oscore), ("b", Kind::DtlsPsk)]);
        let restored = Devices::restore(devices.iter().cloned(), 40).unwrap();
        assert!(restored.iter().eq(devices.iter()));
        assert_eq!(restored.next_number(), 40);
        let twice = devices.iter().cloned().map(|device| Device { name: name("x"), ..device });
        let both = devices.iter().cloned().chain(twice);
        assert!(matches!(Devices::restore(both, 0), Err(DevicesError::SharedKeys(_))));
    }

    #[test]
    fn identities_are_short() {
        assert_eq!([0, 35, 36, 1295, 1296].map(base_36), ["0", "z", "10", "zz", "100"]);
    }
}
