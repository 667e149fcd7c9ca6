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

const KEEP: Rotation = Rotation { unused: Unused::Keep, pin: None, public_key: None };

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
fn edhoc_ids_are_short_and_neither_anothers_nor_the_gateways() {
    let mut devices = Devices::default();
    let add = |devices: &Devices, number: usize, kind| {
        devices.added(new(&format!("n{number}"), kind), &material(number as u8), Instant::START)
    };
    assert_eq!(add(&devices, 0, Kind::Edhoc(None)), Err(DevicesError::NoIdentity));
    devices.set_identity(Identity::generate("", &[0x20], [1; 32]).unwrap());
    let mut kids = BTreeSet::from([vec![0x20]]);
    for number in 0..60 {
        let device = add(&devices, number, Kind::Edhoc(None)).unwrap();
        let Some(Keys { security: Security::Edhoc(edhoc), .. }) = &device.keys else { panic!("no EDHOC") };
        assert!(edhoc.private.is_some() && edhoc.check().is_ok());
        let kid = edhoc.credential.kid().to_vec();
        assert!(kid.len() == 1 && (number >= 47 || matches!(kid[0], 0..=0x17 | 0x20..=0x37)), "{kid:?}");
        assert!(kids.insert(kid));
        devices.put(device);
    }
}

#[test]
fn device_that_has_its_key_itself_is_rotated_by_another_of_its_own() {
    let mut devices = Devices::default();
    devices.set_identity(Identity::generate("", &[0x20], [1; 32]).unwrap());
    let public = |seed| KeyPair::generate([seed; 32]).public();
    let own = new("a", Kind::Edhoc(Some(public(1))));
    devices.put(devices.added(own, &material(0), Instant::START).unwrap());
    let rotate = |public_key| {
        let rotation = Rotation { public_key, ..KEEP };
        devices.rotated(&name("a"), rotation, &material(1), Instant::START)
    };
    assert_eq!(rotate(None), Err(DevicesError::NeedsPublicKey(name("a"))));
    let Some(Keys { security: Security::Edhoc(next), .. }) = rotate(Some(public(2))).unwrap().next else {
        panic!("no EDHOC")
    };
    assert!(next.private.is_none() && next.credential.key() == public(2));
    let devices = with(&[("b", Kind::Oscore)]);
    let rotation = Rotation { public_key: Some(public(1)), ..KEEP };
    let refused = devices.rotated(&name("b"), rotation, &material(1), Instant::START);
    assert_eq!(refused, Err(DevicesError::TakesNoPublicKey(name("b"))));
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
    let number =
        |devices: &Devices, identity: &[u8]| devices.by_identity(identity).map(|(_, keys, _)| keys.number);
    assert_eq!(number(&devices, b"0"), Some(KeyNumber(0)));
    assert_eq!(number(&devices, b"1"), Some(KeyNumber(1)));
    assert_eq!(devices.used(&a, KeyNumber(0)), None);
    assert_eq!(number(&devices, b"0"), Some(KeyNumber(0)));
    assert_eq!(devices.rotated(&a, KEEP, &material(8), Instant::START), Err(DevicesError::Unused(a.clone())));
    devices.put(devices.used(&a, KeyNumber(1)).unwrap());
    assert_eq!(number(&devices, b"0"), None);
    assert_eq!(number(&devices, b"1"), Some(KeyNumber(1)));
    assert_eq!(devices.used(&a, KeyNumber(1)), None);
    assert!(devices.rotated(&a, KEEP, &material(8), Instant::START).is_ok());
}

#[test]
fn a_short_key_has_16_bytes_and_so_has_the_next() {
    let mut devices = with(&[("a", Kind::DtlsShortPsk), ("b", Kind::DtlsPsk)]);
    for (of, length) in [("a", 16), ("b", 32)] {
        devices.put(devices.rotated(&name(of), KEEP, &material(7), Instant::START).unwrap());
        let lengths = devices.get(&name(of)).unwrap().accepted().map(|keys| match &keys.security {
            Security::DtlsPsk(psk) => psk.key.expose().len(),
            _ => panic!("no PSK"),
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [length, length]);
    }
}

#[test]
fn unused_keys_are_replaced_on_demand() {
    let mut devices = with(&[("a", Kind::DtlsPsk)]);
    devices.put(devices.rotated(&name("a"), KEEP, &material(7), Instant::START).unwrap());
    let replace = Rotation { unused: Unused::Replace, pin: None, public_key: None };
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
        let rotation =
            Rotation { unused: Unused::Keep, pin: pin.map(|byte| Pin([byte; 32])), public_key: None };
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
    let pin = Rotation { unused: Unused::Keep, pin: Some(Pin([1; 32])), public_key: None };
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
