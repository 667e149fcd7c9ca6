//! A device as bytes for a file: sealed, all of it, so that a stolen file tells nobody's keys, tokens or user.
//!
//! ```text
//!  0         1                       25
//! +---------+-----------------------+---------------------------+----------+
//! | version | nonce (random)        | device in CBOR, encrypted | tag (16) |
//! +---------+-----------------------+---------------------------+----------+
//! ```
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): its nonces are long enough to be drawn at random for as many records as anybody
//! will write. The associated data is the version and the device's name, so that a record that is put in another's place does not open.

use chacha20poly1305::KeyInit;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::aead::Payload;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Device;
use super::Name;
use crate::security::edhoc::Identity;

/// The key that devices are sealed with.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; SealingKey::LENGTH]>);

/// Random bytes for one sealing.
pub type Nonce = [u8; NONCE];

const VERSION: u8 = 1;
const NONCE: usize = 24;
/// What goes before a device's name, so that nothing else is ever sealed with the same associated data.
const DOMAIN: &[u8] = b"lowband device record\0";
/// The same before nothing, where it is the gateway's own key that is sealed.
const IDENTITY: &[u8] = b"lowband edhoc identity\0";

impl SealingKey {
    /// The length of a key.
    pub const LENGTH: usize = 32;

    /// Takes a key that was drawn at random.
    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a key as [`SealingKey::to_text`] writes it; space around it does not matter.
    pub fn from_text(text: &str) -> Option<Self> {
        use base64ct::Encoding;
        let mut bytes = Zeroizing::new([0; Self::LENGTH]);
        let read = base64ct::Base64UrlUnpadded::decode(text.trim(), bytes.as_mut_slice()).ok()?;
        (read.len() == Self::LENGTH).then(|| Self(bytes.clone()))
    }

    /// The key as text for a file: 43 characters of base64url.
    pub fn to_text(&self) -> Zeroizing<String> {
        use base64ct::Encoding;
        Zeroizing::new(base64ct::Base64UrlUnpadded::encode_string(self.0.as_slice()))
    }

    /// What tells keys apart and tells nothing of them: it stands in the file, for a clear word where the key is another.
    pub fn id(&self) -> [u8; 8] {
        let digest =
            Sha256::new().chain_update(b"lowband device key id\0").chain_update(self.0.as_slice()).finalize();
        let (id, _) = digest.split_at(8);
        id.try_into().expect("a part of 8 bytes")
    }

    /// Seals a device. No two may be sealed with one nonce.
    pub fn seal(&self, device: &Device, nonce: Nonce) -> Vec<u8> {
        self.seal_as(device, &associated_data(&device.name), nonce)
    }

    /// Seals the key that devices know the gateway by. The same goes for its nonce.
    pub fn seal_identity(&self, identity: &Identity, nonce: Nonce) -> Vec<u8> {
        self.seal_as(identity, &[IDENTITY, &[VERSION]].concat(), nonce)
    }

    fn seal_as(&self, what: &impl Serialize, aad: &[u8], nonce: Nonce) -> Vec<u8> {
        let mut plain = Zeroizing::new(Vec::with_capacity(2048));
        ciborium::into_writer(what, &mut *plain).expect("a vector takes all that is written");
        let payload = Payload { msg: &plain, aad };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload).expect("a record is short");
        [&[VERSION], nonce.as_slice(), &sealed].concat()
    }

    /// Opens what was sealed as the device of this name.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn open(&self, name: &Name, record: &[u8]) -> Result<Device, RecordError> {
        let device: Device = self.open_as(&associated_data(name), record)?;
        if device.name == *name { Ok(device) } else { Err(RecordError::Content) }
    }

    /// Opens what was sealed as the gateway's own key.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn open_identity(&self, record: &[u8]) -> Result<Identity, RecordError> {
        self.open_as(&[IDENTITY, &[VERSION]].concat(), record)
    }

    fn open_as<T: DeserializeOwned>(&self, aad: &[u8], record: &[u8]) -> Result<T, RecordError> {
        let (&version, rest) = record.split_first().ok_or(RecordError::Short)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(RecordError::Short)?;
        let payload = Payload { msg: sealed, aad };
        let plain =
            self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| RecordError::Changed)?;
        let plain = Zeroizing::new(plain);
        ciborium::from_reader(plain.as_slice()).map_err(|_| RecordError::Content)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

fn associated_data(name: &Name) -> Vec<u8> {
    [DOMAIN, &[VERSION], name.as_str().as_bytes()].concat()
}

/// A record that does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is cut off.
    #[error("it is too short")]
    Short,
    /// A version that is not known.
    #[error("it is of version {0}, which this program does not know")]
    Version(u8),
    /// It is not what was sealed under this key and name.
    #[error("it was changed after it was written")]
    Changed,
    /// It opens, and is no device of this name, or not what it is to be.
    #[error("it was written by another program")]
    Content,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coap::Instant;
    use crate::device::Devices;
    use crate::device::Kind;
    use crate::device::Limits;
    use crate::device::Material;
    use crate::device::NewDevice;
    use crate::device::Routes;
    use crate::device::Tokens;

    fn device(kind: Kind) -> Device {
        let new = NewDevice {
            name: "buoy".parse().unwrap(),
            user_id: "@buoy:example.org".into(),
            kind,
            link: Some("hf-100".into()),
            routes: Routes::parse("sync\nsendMessage").unwrap(),
            limits: Limits { requests_per_minute: Some(6), ..Limits::default() },
            allow_token: false,
            tokens: Some(Tokens::access("syt_secret_token")),
        };
        Devices::default().added(new, &Material::new([0xa5; 48]), Instant::START).unwrap()
    }

    fn key(byte: u8) -> SealingKey {
        SealingKey::new([byte; 32])
    }

    #[test]
    fn device_is_the_same_after_sealing() {
        for kind in [Kind::Oscore, Kind::DtlsPsk, Kind::DtlsCertificate(crate::device::Pin([3; 32]))] {
            let device = device(kind);
            let record = key(1).seal(&device, [9; 24]);
            assert_eq!(key(1).open(&device.name, &record), Ok(device));
        }
    }

    #[test]
    fn key_of_the_gateway_is_sealed_as_itself_and_as_no_device() {
        let identity = Identity::generate("", &[0x20], [5; 32]).unwrap();
        let record = key(1).seal_identity(&identity, [9; 24]);
        assert_eq!(key(1).open_identity(&record).unwrap().credential(), identity.credential());
        assert_eq!(key(2).open_identity(&record).unwrap_err(), RecordError::Changed);
        assert_eq!(key(1).open(&"a".parse().unwrap(), &record).unwrap_err(), RecordError::Changed);
        let device = key(1).seal(&device(Kind::Oscore), [9; 24]);
        assert_eq!(key(1).open_identity(&device).unwrap_err(), RecordError::Changed);
        assert!((0..record.len()).all(|length| key(1).open_identity(&record[..length]).is_err()));
    }

    #[test]
    fn record_shows_nothing() {
        let record = key(1).seal(&device(Kind::Oscore), [9; 24]);
        let shows = |bytes: &[u8]| record.windows(bytes.len()).any(|window| window == bytes);
        assert!(!shows(b"syt_") && !shows(&[0xa5; 4]) && !shows(b"buoy") && !shows(b"hf-100"));
    }

    #[test]
    fn every_changed_bit_and_every_beginning_is_an_error() {
        let device = device(Kind::Oscore);
        let record = key(1).seal(&device, [9; 24]);
        for length in 0..record.len() {
            assert!(key(1).open(&device.name, &record[..length]).is_err());
        }
        for place in 0..record.len() {
            for bit in 0..8 {
                let mut changed = record.clone();
                changed[place] ^= 1 << bit;
                let error = key(1).open(&device.name, &changed).unwrap_err();
                match place {
                    0 => assert!(matches!(error, RecordError::Version(_))),
                    _ => assert_eq!(error, RecordError::Changed),
                }
            }
        }
    }

    #[test]
    fn record_opens_by_its_own_key_and_name_alone() {
        let device = device(Kind::Oscore);
        let record = key(1).seal(&device, [9; 24]);
        assert_eq!(key(2).open(&device.name, &record), Err(RecordError::Changed));
        assert_eq!(key(1).open(&"other".parse().unwrap(), &record), Err(RecordError::Changed));
    }

    #[test]
    fn keys_are_text_in_files() {
        let text = key(7).to_text();
        assert_eq!(text.len(), 43);
        assert_eq!(SealingKey::from_text(&format!("\n {}\n", *text)).unwrap().id(), key(7).id());
        assert_ne!(key(7).id(), key(8).id());
        for bad in
            ["", "a", &text[..42], &format!("{}A", *text), "!BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw"]
        {
            assert!(SealingKey::from_text(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{:?}", key(7)), "SealingKey(…)");
    }
}
