use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::Mutex;

use redb::StorageBackend;

use super::*;
use crate::device::Kind;
use crate::device::Limits;
use crate::device::NewDevice;
use crate::device::Rotation;
use crate::device::Routes;
use crate::device::Security;
use crate::device::Summary;
use crate::device::Unused;

/// A directory of its own that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowband-devices-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn place(&self) -> Place {
        let devices = self.0.join("devices");
        Place { key: KeyPlace::usual(&devices, None), devices }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn new(name: &str, kind: Kind) -> Command {
    Command::Add(Box::new(NewDevice {
        name: name.parse().unwrap(),
        user_id: "@buoy:example.org".into(),
        kind,
        link: Some("hf-100".into()),
        routes: Routes::Messaging,
        limits: Limits::default(),
        allow_token: false,
        tokens: Some(Tokens {
            refresh: Some(Secret::new("syr_refresh_token")),
            ..Tokens::access("syt_access_token")
        }),
    }))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn done(store: &mut DeviceStore, command: Command) -> Answer {
    match store.execute(command, Instant::START) {
        (Answer::Failed { error, hint }, _) => panic!("{error} ({hint:?})"),
        (answer, _) => answer,
    }
}

fn fails(store: &mut DeviceStore, command: Command) -> (String, String) {
    match store.execute(command, Instant::START) {
        (Answer::Failed { error, hint }, None) => (error, hint.unwrap_or_default()),
        (answer, _) => panic!("{answer:?}"),
    }
}

fn opening(place: &Place) -> (String, String) {
    let error = DeviceStore::open(place).unwrap_err();
    (error.to_string(), error.hint(place).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A device has agreed on keys by those that it has, or was given last.
fn agree(store: &mut DeviceStore, device: &str, number: u64) -> Option<Changed> {
    let kept = store.devices().get(&name(device)).unwrap();
    let by = kept.next.as_ref().or(kept.keys.as_ref()).unwrap().number;
    store.agreed(&name(device), by, (KeyNumber(number), oscore())).unwrap()
}

fn oscore() -> crate::device::Oscore {
    crate::device::Oscore {
        secret: Secret::new([0xd5; 16]),
        salt: Secret::new([0xd6; 8]),
        device_id: vec![1],
        gateway_id: vec![2],
        algorithm: 10,
        hkdf: -10,
    }
}

const ROTATION: Rotation = Rotation { unused: Unused::Keep, pin: None, public_key: None };

#[test]
fn devices_are_the_same_in_another_process() {
    let directory = Directory::new("same");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    assert!(!place.key.path().exists());
    let first = done(&mut store, new("a", Kind::Oscore));
    assert!(matches!(first, Answer::First(_, path) if path == place.key.path()));
    assert_eq!(fs::metadata(place.key.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(done(&mut store, new("b", Kind::DtlsPsk)), Answer::Device(_)));
    done(&mut store, Command::Rotate { name: name("b"), rotation: ROTATION });
    done(&mut store, new("c", Kind::DtlsPsk));
    done(&mut store, Command::Revoke { name: name("c") });
    done(&mut store, new("d", Kind::Oscore));
    done(&mut store, Command::Forget { name: name("d") });
    let before: Vec<Device> = store.devices().iter().cloned().collect();
    let next = store.devices().next_number();
    assert_eq!((before.len(), next), (3, 5));
    drop(store);
    let mut store = DeviceStore::open(&place).unwrap();
    assert!(store.devices().iter().eq(&before));
    assert_eq!(store.devices().next_number(), next);
    let Answer::Devices(listed) = done(&mut store, Command::List) else { panic!("no list") };
    assert_eq!(listed, before.iter().map(Summary::from).collect::<Vec<_>>());
}

#[test]
fn keys_that_were_agreed_on_are_kept_two_at_a_time_and_go_with_what_they_were_agreed_on_by() {
    let directory = Directory::new("agreed");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    assert!(matches!(done(&mut store, new("e", Kind::Edhoc(None))), Answer::First(..)));
    let kid = |store: &DeviceStore| store.devices().identity().unwrap().credential().clone();
    let own = kid(&store);
    let agreed = |store: &DeviceStore| -> Vec<u64> {
        store.devices().get(&name("e")).unwrap().agreed.iter().map(|keys| keys.number.0).collect()
    };
    for number in 10..13 {
        assert_eq!(agree(&mut store, "e", number), Some(Changed(name("e"))));
    }
    assert_eq!(agree(&mut store, "e", 12), None, "it has these");
    assert_eq!(agreed(&store), [11, 12]);
    // Another process finds the same, and the same gateway.
    drop(store);
    let mut store = DeviceStore::open(&place).unwrap();
    assert_eq!((agreed(&store), kid(&store)), (vec![11, 12], own));
    // New keys of its own: with the first that it agrees on by them, all before are gone.
    done(&mut store, Command::Rotate { name: name("e"), rotation: ROTATION });
    assert_eq!(agreed(&store), [11, 12]);
    agree(&mut store, "e", 13);
    assert_eq!(agreed(&store), [13]);
    assert!(store.devices().get(&name("e")).unwrap().next.is_none());
    store.lost(&name("e"), KeyNumber(13)).unwrap();
    assert_eq!(agreed(&store), [0; 0]);
    agree(&mut store, "e", 14);
    done(&mut store, Command::Revoke { name: name("e") });
    assert_eq!(agreed(&store), [0; 0]);
    assert_eq!(store.agreed(&name("e"), KeyNumber(1), (KeyNumber(15), oscore())).unwrap(), None);
}

#[test]
fn stolen_file_without_its_key_tells_no_secret() {
    let directory = Directory::new("stolen");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    done(&mut store, new("a", Kind::Oscore));
    done(&mut store, new("b", Kind::DtlsPsk));
    done(&mut store, Command::Rotate { name: name("b"), rotation: ROTATION });
    done(&mut store, new("e", Kind::Edhoc(None)));
    agree(&mut store, "e", 1 << 63);
    let mut secrets: Vec<Vec<u8>> =
        ["syt_", "syr_", "@buoy", "example.org", "hf-100"].map(|text| text.into()).into();
    for device in store.devices().iter() {
        for keys in device.accepted().chain(&device.agreed) {
            match &keys.security {
                Security::Edhoc(edhoc) => {
                    let private = edhoc.private.as_ref().unwrap().expose();
                    secrets.extend([private.into(), hex(private).into_bytes()]);
                }
                Security::Oscore(oscore) => {
                    secrets.push(oscore.secret.expose().into());
                    secrets.push(oscore.salt.expose().into());
                }
                Security::DtlsPsk(psk) => secrets.push(psk.key.expose().into()),
                Security::DtlsCertificate(_) => {}
            }
        }
    }
    let own = serde_json::to_value(store.devices().identity().unwrap()).unwrap();
    secrets.push(own["private"].as_str().unwrap().into());
    secrets.push(fs::read(place.key.path()).unwrap()[..43].into());
    assert_eq!(secrets.len(), 5 + 2 + 2 + 2 + 2 + 1 + 1);
    drop(store);
    let file = fs::read(&place.devices).unwrap();
    for secret in secrets {
        assert!(
            !file.windows(secret.len()).any(|window| window == secret),
            "{}",
            String::from_utf8_lossy(&secret)
        );
    }
}

#[test]
fn first_use_of_new_keys_is_written_and_ends_the_old() {
    let directory = Directory::new("used");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    done(&mut store, new("a", Kind::DtlsPsk));
    done(&mut store, Command::Rotate { name: name("a"), rotation: ROTATION });
    assert_eq!(store.used(&name("a"), KeyNumber(0)).unwrap(), None);
    assert_eq!(store.used(&name("a"), KeyNumber(1)).unwrap(), Some(Changed(name("a"))));
    assert_eq!(store.used(&name("a"), KeyNumber(1)).unwrap(), None);
    drop(store);
    let store = DeviceStore::open(&place).unwrap();
    assert!(store.devices().by_identity(b"0").is_none());
    assert!(store.devices().by_identity(b"1").is_some());
}

#[test]
fn tokens_are_written_before_they_are_used() {
    let directory = Directory::new("tokens");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    done(&mut store, new("a", Kind::Oscore));
    store.renew(&name("a"), Tokens::access("syt_second")).unwrap();
    drop(store);
    let store = DeviceStore::open(&place).unwrap();
    assert_eq!(store.devices().get(&name("a")).unwrap().tokens, Some(Tokens::access("syt_second")));
}

#[test]
fn export_is_the_devices_half_of_the_newest_keys() {
    let directory = Directory::new("export");
    let mut store = DeviceStore::open(&directory.place()).unwrap();
    done(&mut store, new("a", Kind::DtlsPsk));
    let mut identity = || {
        let command = Command::Export { name: name("a"), gateway: Some("gw:5684".into()) };
        let Answer::Credentials(line) = done(&mut store, command) else { panic!("no credentials") };
        let credentials = Credentials::read(line.expose_text().unwrap()).unwrap();
        assert_eq!(
            (credentials.gateway.as_deref(), credentials.link.as_deref()),
            (Some("gw:5684"), Some("hf-100"))
        );
        let crate::device::Half::DtlsPsk(psk) = credentials.half else { panic!("no PSK") };
        done(&mut store, Command::Show { name: name("a") });
        let _ = store.execute(Command::Rotate { name: name("a"), rotation: ROTATION }, Instant::START);
        psk.identity
    };
    assert_eq!([identity(), identity()], ["0", "1"]);
}

#[test]
fn every_refusal_says_what_to_do() {
    let directory = Directory::new("refusals");
    let mut store = DeviceStore::open(&directory.place()).unwrap();
    done(&mut store, new("a", Kind::Oscore));
    let unknown = fails(&mut store, Command::Show { name: name("b") });
    assert_eq!(unknown, ("there is no device b".into(), "lowband device list names them".into()));
    let taken = fails(&mut store, new("a", Kind::Oscore));
    assert!(taken.0 == "there is a device a already" && taken.1.contains("rotate a"), "{taken:?}");
    done(&mut store, Command::Rotate { name: name("a"), rotation: ROTATION });
    let unused = fails(&mut store, Command::Rotate { name: name("a"), rotation: ROTATION });
    assert!(unused.0.contains("has not used") && unused.1.contains("export a"), "{unused:?}");
    let certificate = Kind::DtlsCertificate(crate::device::Pin([1; 32]));
    done(&mut store, new("c", certificate));
    let export = fails(&mut store, Command::Export { name: name("c"), gateway: None });
    assert!(export.0.contains("never leaves its device"), "{export:?}");
    let rotate = fails(&mut store, Command::Rotate { name: name("c"), rotation: ROTATION });
    assert!(rotate.0.contains("needs a new certificate") && rotate.1.contains("--certificate"), "{rotate:?}");
    done(&mut store, Command::Revoke { name: name("a") });
    let revoked = fails(&mut store, Command::Export { name: name("a"), gateway: None });
    assert_eq!(revoked.0, "the device is revoked");
    let renew = Command::Renew { name: name("a"), tokens: Box::new(Tokens::access("t")) };
    assert_eq!(fails(&mut store, renew).0, "device a is revoked");
}

#[test]
fn key_that_is_missing_or_another_is_told() {
    let directory = Directory::new("keys");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    done(&mut store, new("a", Kind::Oscore));
    drop(store);
    let key = fs::read_to_string(place.key.path()).unwrap();
    let write = |text: &str| fs::write(place.key.path(), text).unwrap();
    write(&SealingKey::new([7; 32]).to_text());
    let (error, hint) = opening(&place);
    assert!(error.contains("another key") && hint.contains("--device-key"), "{error}: {hint}");
    for no_key in ["", "not a key", &key[..40], "\u{fffd}"] {
        write(no_key);
        assert!(opening(&place).0.starts_with("there is no key in "), "{no_key}");
    }
    fs::write(place.key.path(), [0xff, 0xfe]).unwrap();
    assert!(opening(&place).0.starts_with("there is no key in "));
    fs::remove_file(place.key.path()).unwrap();
    let (error, hint) = opening(&place);
    assert!(error.contains("is missing") && hint.contains("devices.key"), "{error}: {hint}");
    fs::create_dir(place.key.path()).unwrap();
    fs::set_permissions(place.key.path(), PermissionsExt::from_mode(0o700)).unwrap();
    assert!(opening(&place).0.starts_with("cannot use the key file"));
}

#[test]
fn files_that_others_may_read_are_refused() {
    let directory = Directory::new("modes");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    done(&mut store, new("a", Kind::Oscore));
    drop(store);
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for others in [0o640, 0o604, 0o660] {
        mode(place.key.path(), others);
        let (error, hint) = opening(&place);
        assert!(error.contains("others than its owner") && hint.starts_with("chmod 600 "), "{error}: {hint}");
    }
    mode(place.key.path(), 0o400);
    drop(DeviceStore::open(&place).unwrap());
    mode(&place.devices, 0o644);
    let (error, hint) = opening(&place);
    assert!(
        error.contains("mode 644") && hint == format!("chmod 600 {}", place.devices.display()),
        "{error}: {hint}"
    );
}

#[test]
fn credential_comes_before_the_file_beside_the_devices() {
    let directory = Directory::new("credential");
    let credentials = directory.0.join("credentials");
    fs::create_dir(&credentials).unwrap();
    let devices = directory.0.join("devices");
    let usual = || KeyPlace::usual(&devices, Some(&credentials));
    assert_eq!(usual(), KeyPlace::File(directory.0.join("devices.key")));
    let file = credentials.join(KeyPlace::CREDENTIAL);
    fs::write(&file, SealingKey::new([3; 32]).to_text().as_bytes()).unwrap();
    assert_eq!(usual(), KeyPlace::Credential(file.clone()));
    fs::set_permissions(&file, PermissionsExt::from_mode(0o440)).unwrap();
    let place = Place { key: usual(), devices: devices.clone() };
    let mut store = DeviceStore::open(&place).unwrap();
    assert!(matches!(done(&mut store, new("a", Kind::Oscore)), Answer::Device(_)));
    drop(store);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o444)).unwrap();
    assert!(opening(&place).0.contains("others than its owner"));
}

#[test]
fn file_in_use_is_told() {
    let directory = Directory::new("locked");
    let _store = DeviceStore::open(&directory.place()).unwrap();
    let (error, hint) = opening(&directory.place());
    assert!(error.contains("another process uses it") && hint.contains("gateway"), "{error}: {hint}");
}

/// Bytes of the database's head and of a record, one after the other: what opens at all is what was written.
#[test]
fn flipped_bytes_are_errors() {
    let directory = Directory::new("flipped");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    done(&mut store, new("a", Kind::Oscore));
    let before: Vec<Device> = store.devices().iter().cloned().collect();
    drop(store);
    let file = fs::read(&place.devices).unwrap();
    let record = store_record(&place);
    let at = file.windows(record.len()).position(|window| window == record).unwrap();
    let mut refused = 0;
    let flipped: Vec<usize> = (0..512).step_by(5).chain((at..at + record.len()).step_by(7)).collect();
    for place_of in flipped {
        let mut changed = file.clone();
        changed[place_of] ^= 0x10;
        fs::write(&place.devices, &changed).unwrap();
        match DeviceStore::open(&place) {
            Ok(store) => {
                assert!(store.devices().is_empty() || store.devices().iter().eq(&before), "byte {place_of}")
            }
            Err(error) => {
                assert!(error.hint(&place).is_some(), "byte {place_of}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused >= record.len() / 7, "{refused} refused");
}

fn store_record(place: &Place) -> Vec<u8> {
    let database = store::open(&place.devices).unwrap();
    let kept = Kept::read(&database).unwrap();
    kept.records[0].1.clone()
}

#[test]
fn record_in_anothers_place_does_not_open() {
    let directory = Directory::new("swapped");
    let place = directory.place();
    let mut store = DeviceStore::open(&place).unwrap();
    done(&mut store, new("a", Kind::Oscore));
    drop(store);
    let record = store_record(&place);
    let database = store::open(&place.devices).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(DeviceStore::DEVICES).unwrap().insert("b", record.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(opening(&place).0, "device b cannot be read: it was changed after it was written");
}

/// A file in memory that remembers each write, so that a crash after any of them can be played.
#[derive(Clone, Debug, Default)]
struct Recorded(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    bytes: Vec<u8>,
    writes: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

impl Recording {
    fn apply(&mut self, write: Write) {
        match &write {
            Write::Length(length) => self.bytes.resize(usize::try_from(*length).unwrap(), 0),
            Write::Bytes(at, bytes) => {
                let at = usize::try_from(*at).unwrap();
                self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.writes.push(write);
    }
}

impl StorageBackend for Recorded {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.0.lock().unwrap().bytes.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().bytes[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().apply(Write::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().apply(Write::Bytes(offset, data.to_vec()));
        Ok(())
    }
}

#[test]
fn crash_between_any_two_writes_leaves_all_of_a_change_or_none() {
    let directory = Directory::new("crash");
    let place = directory.place();
    let recorded = Recorded::default();
    let open = |backend: Recorded| {
        let mut builder = Database::builder();
        builder.set_cache_size(1 << 20).set_check_integrity_on_open(true);
        DeviceStore::with(builder.create_with_backend(backend).unwrap(), &place).unwrap()
    };
    let mut store = open(recorded.clone());
    let all = |store: &DeviceStore| store.devices().iter().cloned().collect::<Vec<_>>();
    // After how many writes which state is the last that somebody was told of.
    let mut told = vec![(recorded.0.lock().unwrap().writes.len(), all(&store))];
    let begun = told[0].0;
    for command in [
        new("a", Kind::Oscore),
        new("b", Kind::DtlsPsk),
        Command::Rotate { name: name("b"), rotation: ROTATION },
        Command::Revoke { name: name("a") },
        Command::Forget { name: name("a") },
    ] {
        done(&mut store, command);
        told.push((recorded.0.lock().unwrap().writes.len(), all(&store)));
    }
    let writes = recorded.0.lock().unwrap().writes.clone();
    for crash in begun..=writes.len() {
        let after = Recorded::default();
        for write in &writes[..crash] {
            after.0.lock().unwrap().apply(write.clone());
        }
        let found = all(&open(after));
        let last = told.iter().rposition(|(at, _)| *at <= crash).unwrap();
        let next = told.get(last + 1).is_some_and(|(_, state)| *state == found);
        assert!(told[last].1 == found || next, "after write {crash} of {}", writes.len());
    }
    assert!(writes.len() - begun > 20, "only {} writes", writes.len() - begun);
}
