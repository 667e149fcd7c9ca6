//! A device's keys where the device is a program of ours, and the file that keeps what they were used for.
//!
//! Whoever loses that file, or has it twice, seals two messages with one nonce. So without one there are no keys: it is opened, and
//! locked, before anything is sealed, and what is reserved is on the disk before anything that needs it leaves.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest;
use sha2::Sha256;
use thiserror::Error;

use super::store::Room;
use super::store::Store;
use super::store::StoreError;
use crate::coap::Instant;
use crate::device::EdhocHalf;
use crate::device::Oscore;
use crate::endpoint::Association;
use crate::endpoint::Endpoint;
use crate::endpoint::KeysNumber;
use crate::endpoint::Memory;
use crate::endpoint::MemoryKey;
use crate::security::edhoc::Agreed;
use crate::security::edhoc::ConnectionId;
use crate::security::edhoc::Credential;
use crate::security::edhoc::Due;
use crate::security::edhoc::Identity;
use crate::security::edhoc::Initiator;
use crate::security::edhoc::Rekey;
use crate::security::oscore::Parameters;
use crate::security::oscore::State;

/// The keys of one device, and the file with their state, which nobody else can open.
pub struct Keyring {
    /// How keys are agreed on; none where they are given.
    edhoc: Option<Edhoc>,
    /// None until they are agreed on.
    parameters: Option<Parameters>,
    state: Option<State>,
    number: KeysNumber,
    /// What the state is kept under, so that a file may have that of several keys.
    key: Vec<u8>,
    store: Store,
}

/// What a device agrees on keys by.
struct Edhoc {
    own: Identity,
    gateway: Credential,
}

/// What is kept of keys that were agreed on.
#[derive(Serialize, Deserialize)]
struct Agreement {
    parameters: Parameters,
    state: State,
}

impl Keyring {
    /// Whom an endpoint with a keyring speaks with.
    pub(super) const PEER: Association = Association::Device(0);
    /// Of the state of keys that are given.
    const VERSION: u8 = 1;
    /// Of keys that were agreed on, and their state.
    const AGREED: u8 = 2;

    /// Opens the file, and makes it for its owner alone where there is none.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn open(half: &Oscore, state: &Path) -> Result<Self, KeyringError> {
        let parameters = half.parameters().ok_or(KeyringError::Algorithm)?;
        parameters.validate().map_err(|_| KeyringError::Algorithm)?;
        let store = Store::open(state)?;
        let key = name(&[half.secret.expose(), half.salt.expose(), &half.device_id, &half.gateway_id]);
        let state = kept(&store, &key, Self::VERSION)?;
        Ok(Self { edhoc: None, parameters: Some(parameters), state, number: 0, key, store })
    }

    /// As [`Keyring::open`], of a device that agrees on its keys: those that it has agreed on last are in the file.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn open_edhoc(half: &EdhocHalf, state: &Path) -> Result<Self, KeyringError> {
        let (Some(own), Some(private)) = (half.identity(), &half.private) else {
            return Err(KeyringError::NoPrivateKey);
        };
        let store = Store::open(state)?;
        let key = name(&[private.expose(), &half.kid, half.gateway.ccs()]);
        let agreement: Option<Agreement> = kept(&store, &key, Self::AGREED)?;
        let (parameters, state) = agreement.map(|kept| (kept.parameters, kept.state)).unzip();
        let edhoc = Some(Edhoc { own, gateway: half.gateway.clone() });
        Ok(Self { edhoc, parameters, state, number: 0, key, store })
    }

    /// Hands the keys to an endpoint that is new.
    pub(super) fn begin(&mut self, machine: &mut Endpoint, now: Instant) {
        let Some(parameters) = &self.parameters else { return };
        let number = self.number;
        match machine.admit_keys(number, Self::PEER, parameters.clone()) {
            Ok(()) => {}
            // Those that were given were looked at; others are agreed on again.
            Err(_) => return self.parameters = None,
        }
        let state = self.state.take().map(|state| (MemoryKey::Context(number), Memory::Context(state)));
        machine.recall(state, now);
    }

    /// Whether keys are agreed on, and not given.
    pub(super) fn agrees(&self) -> bool {
        self.edhoc.is_some()
    }

    /// Whether there are any.
    pub(super) fn has_keys(&self) -> bool {
        self.parameters.is_some()
    }

    /// Whether keys have to be agreed on before anything is sent, or should be.
    pub(super) fn due(&self, machine: &mut Endpoint, now: Instant) -> Due {
        match (&self.edhoc, &self.parameters) {
            (None, _) => Due::No,
            (Some(_), None) => Due::Now,
            (Some(_), Some(_)) => {
                machine.key_use(self.number, now).map_or(Due::Now, |used| Rekey::default().is_due(used))
            }
        }
    }

    /// Begins to agree on keys. The seed is random and used for nothing else.
    pub(super) fn initiate(&self, seed: [u8; 32]) -> Option<Initiator> {
        let Edhoc { own, gateway } = self.edhoc.as_ref()?;
        let [start, ..] = seed;
        let c_i = ConnectionId::choose(start, |_| true)?;
        // C_I is in clear, and begins with what it was drawn from.
        let ephemeral = Sha256::digest(seed).into();
        Some(Initiator::new(own.clone(), gateway.clone(), &c_i, ephemeral))
    }

    /// Has an endpoint use keys that were agreed on.
    pub(super) fn take(&mut self, machine: &mut Endpoint, agreed: Box<Agreed>, now: Instant) {
        self.forget(machine, now);
        self.number += 1;
        let parameters = agreed.parameters().clone();
        if machine.take_agreed(self.number, Self::PEER, agreed).is_ok() {
            self.parameters = Some(parameters);
        }
    }

    /// Forgets keys that were agreed on and are of no use any more. Nothing of the endpoint's may be under way that they protect: without them
    /// it would go in clear.
    pub(super) fn forget(&mut self, machine: &mut Endpoint, now: Instant) {
        if self.parameters.take().is_some() {
            machine.revoke_keys(self.number, now);
            while machine.poll_memory().is_some() {}
            self.store.put(Room::Keys, self.key.clone(), None, now);
        }
    }

    /// Keeps what the endpoint wants kept; whether it is on the disk. Before that nothing may be sent.
    #[must_use]
    pub(super) fn keep(&mut self, machine: &mut Endpoint, now: Instant) -> bool {
        while let Some((key, memory)) = machine.poll_memory() {
            if let (MemoryKey::Context(number), Some(memory)) = (key, memory)
                && number == self.number
            {
                self.put(&memory, now);
            }
        }
        self.store.commit(now);
        !self.store.lacks_keys()
    }

    /// Keeps what the keys go on from, where the endpoint has ended.
    pub(super) fn close(mut self, machine: &mut Endpoint, now: Instant) {
        if self.keep(machine, now) {
            machine.close_keys().iter().for_each(|(_, memory)| self.put(memory, now));
            self.store.commit(now);
        }
    }

    fn put(&mut self, memory: &Memory, now: Instant) {
        let (Memory::Context(state), Some(parameters)) = (memory, &self.parameters) else { return };
        let value = match &self.edhoc {
            None => written(Self::VERSION, state),
            Some(_) => {
                let (parameters, state) = (parameters.clone(), state.clone());
                written(Self::AGREED, &Agreement { parameters, state })
            }
        };
        self.store.put(Room::Keys, self.key.clone(), Some(value), now);
    }
}

fn written(version: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![version];
    ciborium::into_writer(value, &mut bytes).expect("what we keep has a CBOR form, and memory takes it");
    bytes
}

fn kept<T: DeserializeOwned>(store: &Store, key: &[u8], version: u8) -> Result<Option<T>, KeyringError> {
    let kept = store.records()?.into_iter().find(|(of, _)| of == key);
    kept.map(|(_, value)| read(&value, version).ok_or(KeyringError::Damaged)).transpose()
}

fn read<T: DeserializeOwned>(value: &[u8], version: u8) -> Option<T> {
    let mut value = value.strip_prefix(&[version])?;
    let read = ciborium::from_reader(&mut value).ok()?;
    value.is_empty().then_some(read)
}

/// What tells keys apart and tells nothing of them.
fn name(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = Sha256::new().chain_update(b"lowband keyring\0");
    for part in parts {
        digest.update([u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        digest.update(part);
    }
    let digest = digest.finalize();
    digest.iter().copied().take(16).collect()
}

/// Why keys cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The file.
    #[error("cannot use the state of the keys: {0}")]
    Store(#[from] StoreError),
    /// What is in the file.
    #[error("the state of the keys is damaged")]
    Damaged,
    /// A device that has its private key itself, and has not put it in.
    #[error("the private key is missing")]
    NoPrivateKey,
    /// The keys.
    #[error("the keys are of an algorithm that is not known")]
    Algorithm,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use crate::security::oscore::Secret;

    #[test]
    fn keys_that_were_agreed_on_go_on_in_the_next_process_until_they_are_due() {
        let path = std::env::temp_dir().join(format!("lowband-keyring-edhoc-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let gateway = Identity::generate("", &[0x20], [1; 32]).unwrap();
        let private = Some(device::Secret::new([7; 32]));
        let half = EdhocHalf { kid: vec![0], private, gateway: gateway.credential().clone() };
        let open = || Keyring::open_edhoc(&half, &path).unwrap();
        let machine = || Endpoint::new(crate::endpoint::Config::default(), [0; 32]);
        let now = Instant::START;
        let due = |keyring: &mut Keyring| {
            let mut machine = machine();
            keyring.begin(&mut machine, now);
            keyring.due(&mut machine, now)
        };
        assert_eq!(due(&mut open()), Due::Now, "there are none");
        let parameters = Parameters::new(Secret::from([9; 16]), b"\x01", b"\x02");
        for (sequence, expected) in [(0, Due::No), (6_291_456, Due::Soon), (8_388_608, Due::Now)] {
            let mut keyring = open();
            keyring.parameters = Some(parameters.clone());
            keyring.put(&Memory::Context(State { sequence, window: None }), now);
            keyring.store.commit(now);
            drop(keyring);
            assert_eq!(due(&mut open()), expected, "{sequence}");
        }
        // What is forgotten is gone from the file as well.
        let (mut keyring, mut machine) = (open(), machine());
        keyring.begin(&mut machine, now);
        keyring.forget(&mut machine, now);
        assert!(keyring.keep(&mut machine, now));
        drop(keyring);
        assert_eq!(due(&mut open()), Due::Now);
        let lacking = EdhocHalf { private: None, ..half.clone() };
        assert!(matches!(Keyring::open_edhoc(&lacking, &path), Err(KeyringError::NoPrivateKey)));
        std::fs::remove_file(&path).unwrap();
    }

    fn half(secret: u8) -> Oscore {
        Oscore {
            secret: device::Secret::new([secret; 16]),
            salt: device::Secret::new([2; 8]),
            device_id: Vec::new(),
            gateway_id: vec![0],
            algorithm: Oscore::AES_CCM_16_64_128,
            hkdf: Oscore::HKDF_SHA_256,
        }
    }

    #[test]
    fn keys_go_on_where_they_were_and_others_begin_in_the_same_file() {
        let path = std::env::temp_dir().join(format!("lowband-keyring-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let run = |secret: u8, ends: bool| {
            let mut keyring = Keyring::open(&half(secret), &path).unwrap();
            let before = keyring.state.as_ref().map(|state| state.sequence);
            let mut machine = Endpoint::new(crate::endpoint::Config::default(), [0; 32]);
            keyring.begin(&mut machine, Instant::START);
            machine.begin_keys(Keyring::PEER);
            assert!(keyring.keep(&mut machine, Instant::START));
            assert!(matches!(Keyring::open(&half(1), &path), Err(KeyringError::Store(StoreError::Locked))));
            if ends {
                keyring.close(&mut machine, Instant::START);
            }
            before
        };
        assert_eq!(run(1, false), None);
        assert_eq!(run(1, false), Some(256));
        assert_eq!(run(1, true), Some(512));
        assert_eq!(run(1, false), Some(512), "nothing was lost");
        assert_eq!(run(2, false), None);
        assert_eq!(run(1, false), Some(768));
        std::fs::remove_file(&path).unwrap();
    }
}
