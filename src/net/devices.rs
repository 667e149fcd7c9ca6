//! The devices of a gateway in a file: a redb database, each device sealed under a key that stands elsewhere.
//!
//! One process has the file: a gateway while it runs, else `lowband device`. What is changed is on the disk before it holds; a change that
//! cannot be written does not hold, and is an error. In clear stand the devices' names, an id of the key, and the number of the next keys.

pub mod key;

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::TableError;
use thiserror::Error;

use self::key::KeyError;
use self::key::KeyPlace;
use super::control::Answer;
use super::control::Command;
use super::store;
use super::store::StoreError;
use crate::coap::Instant;
use crate::device::Credentials;
use crate::device::CredentialsError;
use crate::device::Device;
use crate::device::Devices;
use crate::device::DevicesError;
use crate::device::Edhoc;
use crate::device::KeyNumber;
use crate::device::Kind;
use crate::device::Material;
use crate::device::Name;
use crate::device::NameError;
use crate::device::Oscore;
use crate::device::RecordError;
use crate::device::SealingKey;
use crate::device::Secret;
use crate::device::Tokens;
use crate::security::edhoc::Identity;
use crate::security::edhoc::KeyPair;

/// The devices, in memory and in their file.
pub struct DeviceStore {
    place: Place,
    /// None after a change that could not be written: redb takes nothing more from a database whose file failed.
    database: Option<Database>,
    /// None until there is something to seal.
    key: Option<SealingKey>,
    devices: Devices,
}

/// Where devices and their key are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file of devices.
    pub devices: PathBuf,
    /// The key.
    pub key: KeyPlace,
}

/// A device that was added, rotated, revoked, forgotten, or given other tokens: what holds now is in [`DeviceStore::devices`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed(pub Name);

impl DeviceStore {
    const DEVICES: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("devices");
    const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");
    const IDENTITY: &'static str = "edhoc-identity";
    const KEY_ID: &'static str = "key-id";
    /// Of one byte in messages; no device has it.
    const OWN_KID: &'static [u8] = &[0x20];
    const NEXT_NUMBER: &'static str = "next-number";

    /// Opens the file, and makes an empty one for its owner alone where there is none. A key is needed, and made, when the first device
    /// is added.
    ///
    /// # Errors
    /// See [`DeviceStoreError`].
    pub fn open(place: &Place) -> Result<Self, DeviceStoreError> {
        Self::with(store::open(&place.devices)?, place)
    }

    fn with(database: Database, place: &Place) -> Result<Self, DeviceStoreError> {
        let kept = Kept::read(&database)?;
        let key = match (place.key.read()?, kept.key_id) {
            (Some(key), Some(id)) if key.id().as_slice() != id => return Err(DeviceStoreError::OtherKey),
            (None, Some(_)) => return Err(DeviceStoreError::NoKey),
            (key, _) => key,
        };
        let (devices, identity) = match &key {
            Some(key) => (open_all(key, kept.records)?, open_identity(key, kept.identity.as_deref())?),
            None => (Vec::new(), None),
        };
        let mut devices = Devices::restore(devices, kept.next_number).map_err(DeviceStoreError::Content)?;
        identity.into_iter().for_each(|identity| devices.set_identity(identity));
        Ok(Self { place: place.clone(), database: Some(database), key, devices })
    }

    /// The devices as they are in the file.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Does what somebody has asked for who may, and says what device it has changed.
    pub fn execute(&mut self, command: Command, now: Instant) -> (Answer, Option<Changed>) {
        match self.try_execute(command, now) {
            Ok(done) => done,
            Err(error) => (Answer::failed(&error, self.hint(&error)), None),
        }
    }

    fn try_execute(
        &mut self,
        command: Command,
        now: Instant,
    ) -> Result<(Answer, Option<Changed>), DeviceStoreError> {
        let had_key = self.key.is_some();
        let device = match command {
            Command::List => {
                return Ok((Answer::Devices(self.devices.iter().map(Into::into).collect()), None));
            }
            Command::Show { name } => {
                return Ok((Answer::Device(Box::new(self.devices.get(&name)?.into())), None));
            }
            Command::Export { name, gateway } => {
                let own = self.devices.identity().map(Identity::credential);
                let credentials = Credentials::of(self.devices.get(&name)?, gateway, own)?;
                return Ok((Answer::Credentials(Secret::new(credentials.to_line().as_str())), None));
            }
            Command::Forget { name } => {
                self.forget(&name)?;
                return Ok((Answer::Forgotten, Some(Changed(name))));
            }
            Command::Add(new) => {
                if let Kind::Edhoc(_) = new.kind {
                    self.make_identity()?;
                }
                self.devices.added(*new, &material()?, now)?
            }
            Command::Rotate { name, rotation } => self.devices.rotated(&name, rotation, &material()?, now)?,
            Command::Revoke { name } => self.devices.revoked(&name, now)?,
            Command::Renew { name, tokens } => self.devices.renewed(&name, *tokens)?,
        };
        let (summary, name) = ((&device).into(), device.name.clone());
        self.write(device)?;
        let answer = match (&self.place.key, had_key) {
            (KeyPlace::File(path), false) => Answer::First(Box::new(summary), path.clone()),
            _ => Answer::Device(Box::new(summary)),
        };
        Ok((answer, Some(Changed(name))))
    }

    /// A device's message was found authentic under these keys. If they are new ones that it was given, the old are gone from now on.
    ///
    /// # Errors
    /// It cannot be written; the old keys hold on.
    pub fn used(&mut self, name: &Name, number: KeyNumber) -> Result<Option<Changed>, DeviceStoreError> {
        let Some(device) = self.devices.used(name, number) else { return Ok(None) };
        self.write(device)?;
        Ok(Some(Changed(name.clone())))
    }

    /// A device has agreed on keys by others of its keys, and they are used from now on. They outlast a restart from then on, as far as what
    /// they are used for does.
    ///
    /// # Errors
    /// It cannot be written; a restart would not know these keys, and the device agree on others.
    pub fn agreed(
        &mut self,
        name: &Name,
        by: KeyNumber,
        (number, oscore): (KeyNumber, Oscore),
    ) -> Result<Option<Changed>, DeviceStoreError> {
        let Some(device) = self.devices.agreed(name, by, number, oscore) else { return Ok(None) };
        self.write(device)?;
        Ok(Some(Changed(name.clone())))
    }

    /// A device's keys are used from now on, as far as they were not before: should the state of these keys get lost, they are not used
    /// again.
    ///
    /// # Errors
    /// It cannot be written; then they must not be used.
    pub fn begin(&mut self, name: &Name) -> Result<(), DeviceStoreError> {
        match self.devices.begun(name) {
            Some(device) => self.write(device),
            None => Ok(()),
        }
    }

    /// A device's keys were used, and it is not known any more what for.
    ///
    /// # Errors
    /// It cannot be written; they must not be used all the same.
    pub fn lost(&mut self, name: &Name, number: KeyNumber) -> Result<(), DeviceStoreError> {
        match self.devices.lost(name, number) {
            Some(device) => self.write(device),
            None => Ok(()),
        }
    }

    /// A device has other tokens.
    ///
    /// # Errors
    /// There is no such device, it is revoked, or it cannot be written.
    pub fn renew(&mut self, name: &Name, tokens: Tokens) -> Result<Changed, DeviceStoreError> {
        self.write(self.devices.renewed(name, tokens)?)?;
        Ok(Changed(name.clone()))
    }

    /// What a person can do about an error.
    pub fn hint(&self, error: &DeviceStoreError) -> Option<String> {
        error.hint(&self.place)
    }

    /// Sees to it that the gateway has a key that devices can know it by: it is made with the first that needs it.
    fn make_identity(&mut self) -> Result<(), DeviceStoreError> {
        if self.devices.identity().is_some() {
            return Ok(());
        }
        let mut seed = [0; 32];
        random(&mut seed)?;
        let pair = KeyPair::generate(seed);
        let credential = Edhoc::credential(Self::OWN_KID, pair.public()).map_err(DevicesError::from)?;
        let identity = Identity::new(pair, credential).expect("the credential is of this pair");
        let (mut nonce, key) = ([0; 24], self.sealing_key()?.clone());
        random(&mut nonce)?;
        let record = key.seal_identity(&identity, nonce);
        self.transact(|transaction| {
            let mut meta = transaction.open_table(Self::META)?;
            meta.insert(Self::KEY_ID, key.id().as_slice())?;
            meta.insert(Self::IDENTITY, record.as_slice())?;
            Ok(())
        })?;
        self.devices.set_identity(identity);
        Ok(())
    }

    fn sealing_key(&mut self) -> Result<&SealingKey, DeviceStoreError> {
        Ok(match &mut self.key {
            Some(key) => key,
            none => none.insert(self.place.key.make()?),
        })
    }

    /// Writes a device, then takes it in.
    fn write(&mut self, device: Device) -> Result<(), DeviceStoreError> {
        let mut nonce = [0; 24];
        random(&mut nonce)?;
        let key = self.sealing_key()?;
        let record = key.seal(&device, nonce);
        let id = key.id();
        let numbers = device.accepted().map(|keys| keys.number.0.saturating_add(1));
        let next = numbers.max().unwrap_or_default().max(self.devices.next_number());
        self.transact(|transaction| {
            transaction.open_table(Self::DEVICES)?.insert(device.name.as_str(), record.as_slice())?;
            let mut meta = transaction.open_table(Self::META)?;
            meta.insert(Self::KEY_ID, id.as_slice())?;
            meta.insert(Self::NEXT_NUMBER, next.to_be_bytes().as_slice())?;
            Ok(())
        })?;
        self.devices.put(device);
        Ok(())
    }

    fn forget(&mut self, name: &Name) -> Result<(), DeviceStoreError> {
        self.devices.get(name)?;
        self.transact(|transaction| {
            transaction.open_table(Self::DEVICES)?.remove(name.as_str())?;
            Ok(())
        })?;
        self.devices.take(name);
        Ok(())
    }

    /// One change, all or nothing. On the disk once this returns.
    fn transact(
        &mut self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), DeviceStoreError> {
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(store::open(&self.place.devices)?),
        };
        let done = (|| {
            let transaction = database.begin_write()?;
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        })();
        done.map_err(|error| {
            self.database = None;
            StoreError::Database(Box::new(error)).into()
        })
    }
}

impl fmt::Debug for DeviceStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceStore")
            .field("place", &self.place)
            .field("devices", &self.devices.len())
            .finish()
    }
}

/// What stands in a file.
struct Kept {
    key_id: Option<Vec<u8>>,
    identity: Option<Vec<u8>>,
    next_number: u64,
    records: Vec<(String, Vec<u8>)>,
}

impl Kept {
    fn read(database: &Database) -> Result<Self, StoreError> {
        Self::try_read(database).map_err(|error| StoreError::Database(Box::new(error)))
    }

    fn try_read(database: &Database) -> Result<Self, redb::Error> {
        let mut kept = Self { key_id: None, identity: None, next_number: 0, records: Vec::new() };
        let transaction = database.begin_read()?;
        match transaction.open_table(DeviceStore::META) {
            Ok(meta) => {
                kept.key_id = meta.get(DeviceStore::KEY_ID)?.map(|id| id.value().to_vec());
                kept.identity = meta.get(DeviceStore::IDENTITY)?.map(|record| record.value().to_vec());
                let next = meta.get(DeviceStore::NEXT_NUMBER)?;
                let next = next.and_then(|next| Some(u64::from_be_bytes(next.value().try_into().ok()?)));
                kept.next_number = next.unwrap_or_default();
            }
            Err(TableError::TableDoesNotExist(_)) => return Ok(kept),
            Err(error) => return Err(error.into()),
        }
        match transaction.open_table(DeviceStore::DEVICES) {
            Ok(devices) => {
                for record in devices.iter()? {
                    let (name, record) = record?;
                    kept.records.push((name.value().to_owned(), record.value().to_vec()));
                }
                Ok(kept)
            }
            Err(TableError::TableDoesNotExist(_)) => Ok(kept),
            Err(error) => Err(error.into()),
        }
    }
}

fn open_all(key: &SealingKey, records: Vec<(String, Vec<u8>)>) -> Result<Vec<Device>, DeviceStoreError> {
    let open = |(name, record): (String, Vec<u8>)| {
        let name: Name = name.parse().map_err(DeviceStoreError::Name)?;
        key.open(&name, &record).map_err(|source| DeviceStoreError::Record { name, source })
    };
    records.into_iter().map(open).collect()
}

fn open_identity(key: &SealingKey, record: Option<&[u8]>) -> Result<Option<Identity>, DeviceStoreError> {
    record.map(|record| key.open_identity(record).map_err(DeviceStoreError::Identity)).transpose()
}

fn material() -> Result<Material, DeviceStoreError> {
    let mut bytes = [0; Material::LENGTH];
    random(&mut bytes)?;
    Ok(Material::new(bytes))
}

fn random(bytes: &mut [u8]) -> Result<(), DeviceStoreError> {
    getrandom::fill(bytes).map_err(|error| DeviceStoreError::Randomness(error.to_string()))
}

/// What cannot be done with a file of devices.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceStoreError {
    /// The file itself.
    #[error("cannot use the file of devices: {0}")]
    Store(#[from] StoreError),
    /// The key's file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The devices were sealed with a key that is not there.
    #[error("the key that the devices are sealed with is missing")]
    NoKey,
    /// The devices were sealed with another key.
    #[error("the devices are sealed with another key than this one")]
    OtherKey,
    /// A device that does not open, though the key is the right one.
    #[error("device {name} cannot be read: {source}")]
    Record {
        /// Whose record it is.
        name: Name,
        /// Why not.
        source: RecordError,
    },
    /// The gateway's own key does not open.
    #[error("the gateway's key for EDHOC cannot be read: {0}")]
    Identity(RecordError),
    /// A device under a name that is none.
    #[error("the file of devices is damaged: {0}")]
    Name(NameError),
    /// Devices that cannot be beside each other.
    #[error("the file of devices is damaged: {0}")]
    Content(DevicesError),
    /// What was asked for cannot be.
    #[error(transparent)]
    Devices(#[from] DevicesError),
    /// There is nothing to export.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system gives no random bytes.
    #[error("cannot get random bytes: {0}")]
    Randomness(String),
}

impl DeviceStoreError {
    /// What a person can do about it.
    pub fn hint(&self, place: &Place) -> Option<String> {
        let devices = place.devices.display();
        let key = place.key.path().display();
        Some(match self {
            Self::Store(StoreError::Permissions(_)) => format!("chmod 600 {devices}"),
            Self::Store(StoreError::Locked) => {
                "a gateway may be running without --control, or another `lowband device`".to_owned()
            }
            Self::Store(StoreError::Database(_))
            | Self::Record { .. }
            | Self::Identity(_)
            | Self::Name(_)
            | Self::Content(_) => {
                format!(
                    "put back a copy of {devices} from a backup, or take it away and add the devices again"
                )
            }
            Self::Store(_) => format!("{devices} has to be readable and writable, and so has its directory"),
            Self::Key(error) => return error.hint(place.key.path()),
            Self::NoKey => format!("it was in {key}; --device-key names another file"),
            Self::OtherKey => {
                format!("{key} is not the key's file, or {devices} not its devices'; see --device-key")
            }
            Self::Devices(error) => return devices_hint(error),
            Self::Credentials(_) | Self::Randomness(_) => return None,
        })
    }
}

fn devices_hint(error: &DevicesError) -> Option<String> {
    Some(match error {
        DevicesError::Unknown(_) => "lowband device list names them".to_owned(),
        DevicesError::Taken(name) => {
            format!("lowband device rotate {name} gives it new keys; revoke {name} makes its name free")
        }
        DevicesError::Revoked(name) => format!("lowband device add {name} makes it anew"),
        DevicesError::Unused(name) => {
            format!(
                "lowband device export {name} gives them once more; --replace-unused makes others in their place"
            )
        }
        DevicesError::NeedsCertificate(_) => "--certificate FILE, or --fingerprint HEX".to_owned(),
        DevicesError::NeedsPublicKey(_) => "--public-key HEX".to_owned(),
        DevicesError::Full => "lowband device revoke NAME --forget makes room".to_owned(),
        DevicesError::Device(crate::device::DeviceError::NoToken) => {
            "--token-file FILE, --login, or --allow-token".to_owned()
        }
        _ => return None,
    })
}

/// A file beside another: the same name, with an ending.
pub fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests;
