//! A device's keys where the device is a program of ours, and the file that keeps what they were used for.
//!
//! Whoever loses that file, or has it twice, seals two messages with one nonce. So without one there are no keys: it is opened, and
//! locked, before anything is sealed, and what is reserved is on the disk before anything that needs it leaves.

use std::path::Path;

use sha2::Digest;
use sha2::Sha256;
use thiserror::Error;

use super::store::Room;
use super::store::Store;
use super::store::StoreError;
use crate::coap::Instant;
use crate::device::Oscore;
use crate::endpoint::Association;
use crate::endpoint::Endpoint;
use crate::endpoint::Memory;
use crate::endpoint::MemoryKey;
use crate::security::oscore::Algorithm;
use crate::security::oscore::Hkdf;
use crate::security::oscore::Parameters;
use crate::security::oscore::Secret;
use crate::security::oscore::State;

/// The keys of one device, and the file with their state, which nobody else can open.
pub struct Keyring {
    parameters: Parameters,
    state: Option<State>,
    /// What the state is kept under, so that a file may have that of several keys.
    key: Vec<u8>,
    store: Store,
}

impl Keyring {
    /// Whom an endpoint with a keyring speaks with.
    pub(super) const PEER: Association = Association::Device(0);
    const NUMBER: u64 = 0;
    const VERSION: u8 = 1;

    /// Opens the file, and makes it for its owner alone where there is none.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn open(half: &Oscore, state: &Path) -> Result<Self, KeyringError> {
        let parameters = parameters(half).ok_or(KeyringError::Algorithm)?;
        parameters.validate().map_err(|_| KeyringError::Algorithm)?;
        let store = Store::open(state)?;
        let key = name(half);
        let kept = store.records()?.into_iter().find(|(of, _)| *of == key);
        let state = match kept {
            Some((_, value)) => Some(read(&value).ok_or(KeyringError::Damaged)?),
            None => None,
        };
        Ok(Self { parameters, state, key, store })
    }

    /// Hands the keys to an endpoint that is new.
    pub(super) fn begin(&mut self, machine: &mut Endpoint, now: Instant) {
        let admitted = machine.admit_keys(Self::NUMBER, Self::PEER, self.parameters.clone());
        admitted.expect("they were validated");
        let state = self.state.take().map(|state| (MemoryKey::Context(Self::NUMBER), Memory::Context(state)));
        machine.recall(state, now);
    }

    /// Keeps what the endpoint wants kept; whether it is on the disk. Before that nothing may be sent.
    #[must_use]
    pub(super) fn keep(&mut self, machine: &mut Endpoint, now: Instant) -> bool {
        while let Some((key, memory)) = machine.poll_memory() {
            if let (MemoryKey::Context(Self::NUMBER), Some(memory)) = (key, memory) {
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
        let Memory::Context(state) = memory else { return };
        let mut value = vec![Self::VERSION];
        ciborium::into_writer(state, &mut value).expect("a state has a CBOR form, and memory takes it");
        self.store.put(Room::Keys, self.key.clone(), Some(value), now);
    }
}

fn read(value: &[u8]) -> Option<State> {
    let mut state = value.strip_prefix(&[Keyring::VERSION])?;
    let read = ciborium::from_reader(&mut state).ok()?;
    state.is_empty().then_some(read)
}

/// The device's half.
fn parameters(half: &Oscore) -> Option<Parameters> {
    Some(Parameters {
        master_salt: Secret::from(half.salt.expose().to_vec()),
        algorithm: Algorithm::try_from(half.algorithm).ok()?,
        hkdf: Hkdf::try_from(half.hkdf).ok()?,
        ..Parameters::new(Secret::from(half.secret.expose().to_vec()), &half.device_id, &half.gateway_id)
    })
}

/// What tells keys apart and tells nothing of them.
fn name(half: &Oscore) -> Vec<u8> {
    let parts = [half.secret.expose(), half.salt.expose(), &half.device_id, &half.gateway_id];
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
    /// The keys.
    #[error("the keys are of an algorithm that is not known")]
    Algorithm,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;

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
