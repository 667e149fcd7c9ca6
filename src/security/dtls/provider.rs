//! What dimpl learns and asks while it works on a datagram, and has neither an argument nor a result for.
//!
//! dimpl is told its cryptography in a table of `&'static` functions. All but one of ours are its own, of RustCrypto; that one, the
//! HMAC, is wrapped: there the secret of a cookie is per instance, and nothing says whose keys are derived. What belongs to one
//! call is handed over on the side, for the time of that call.

use std::cell::RefCell;

use dimpl::CryptoError;
use dimpl::crypto::{CryptoProvider, HashAlgorithm, HmacProvider, rust_crypto};
use zeroize::Zeroizing;

/// What goes in and comes out beside one call of dimpl.
#[derive(Default)]
pub(super) struct Call {
    /// The cookie of the peer's hello, which has been found valid: dimpl is to find so too.
    pub(super) cookie: Option<[u8; 32]>,
    /// The identity for which a key was asked, and found.
    pub(super) identity: Option<Vec<u8>>,
    /// Whether to note secrets.
    pub(super) notes: bool,
    /// The secrets that were derived.
    pub(super) secrets: Vec<Secret>,
}

/// A secret, for a key log.
pub(super) struct Secret {
    /// As in a key log.
    pub(super) label: &'static str,
    /// The client's random, where it is known from the derivation.
    pub(super) random: Option<[u8; 32]>,
    pub(super) secret: Zeroizing<Vec<u8>>,
}

thread_local! {
    static CALL: RefCell<Call> = RefCell::default();
}

/// Does some work with dimpl, and returns what came of it and beside it.
pub(super) fn beside<T>(call: Call, work: impl FnOnce() -> T) -> (T, Call) {
    CALL.set(call);
    let result = work();
    (result, CALL.take())
}

/// Notes the identity for which a key was found.
pub(super) fn note_identity(identity: &[u8]) {
    CALL.with_borrow_mut(|call| call.identity = Some(identity.to_vec()));
}

/// HMAC-SHA-256.
pub(super) fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    rust_crypto::default_provider()
        .hmac_provider
        .hmac_sha256(key, data)
        .expect("HMAC takes keys and data of any length")
}

/// RustCrypto's cryptography, with the HMAC wrapped.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { hmac_provider: &Beside, ..rust_crypto::default_provider() }
}

#[derive(Debug)]
struct Beside;

impl HmacProvider for Beside {
    /// dimpl calls this for cookies alone; keys are derived by [`Self::hmac`].
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; 32], CryptoError> {
        let cookie = CALL.with_borrow(|call| call.cookie);
        cookie.map_or_else(|| rust_crypto::default_provider().hmac_provider.hmac_sha256(key, data), Ok)
    }

    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        let length = rust_crypto::default_provider().hmac_provider.hmac(hash, key, data, out)?;
        CALL.with_borrow_mut(|call| {
            if call.notes {
                call.secrets.extend(secret(key, data, out.get(..length).unwrap_or_default()));
            }
        });
        Ok(length)
    }
}

/// The secret that this HMAC is made with or makes, if it is one that a key log has.
fn secret(key: &[u8], data: &[u8], out: &[u8]) -> Option<Secret> {
    // RFC 5246 §6.3: key_block = PRF(master_secret, "key expansion", server_random + client_random). A(1) is the first HMAC of it.
    if let Some(random) = data.strip_prefix(b"key expansion").and_then(|randoms| randoms.get(32..)) {
        let random = Some(random.try_into().ok()?);
        return Some(Secret { label: "CLIENT_RANDOM", random, secret: Zeroizing::new(key.to_vec()) });
    }
    // RFC 9147 §5.9, RFC 8446 §7.1: HKDF-Expand-Label, of one block: length, "dtls13" and the label with its length, the context.
    let label = data.get(3..)?.strip_prefix(b"dtls13")?;
    let known: [(&[u8], _); 5] = [
        (b"c hs traffic", "CLIENT_HANDSHAKE_TRAFFIC_SECRET"),
        (b"s hs traffic", "SERVER_HANDSHAKE_TRAFFIC_SECRET"),
        (b"c ap traffic", "CLIENT_TRAFFIC_SECRET_0"),
        (b"s ap traffic", "SERVER_TRAFFIC_SECRET_0"),
        (b"exp master", "EXPORTER_SECRET"),
    ];
    let (_, label) = known.into_iter().find(|(name, _)| label.starts_with(name))?;
    Some(Secret { label, random: None, secret: Zeroizing::new(out.to_vec()) })
}
