//! Keys, nonces, and what a message is bound to (RFC 8613 §3.2, §5.2, §5.4).

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::cbor;
use super::parameters::Parameters;
use super::partial_iv::PartialIv;

/// What is derived from the parameters, once.
pub(super) struct Keys {
    algorithm: Algorithm,
    sender: Zeroizing<Vec<u8>>,
    recipient: Zeroizing<Vec<u8>>,
    common_iv: Vec<u8>,
    fingerprint: [u8; 8],
}

impl Keys {
    /// The parameters are valid.
    pub(super) fn derive(parameters: &Parameters) -> Self {
        let key_length = parameters.algorithm.key_length();
        let sender = derive(parameters, &parameters.sender_id, "Key", key_length);
        let hash: [u8; 32] = Sha256::digest(sender.as_slice()).into();
        Self {
            algorithm: parameters.algorithm,
            recipient: derive(parameters, &parameters.recipient_id, "Key", key_length),
            common_iv: derive(parameters, &[], "IV", parameters.algorithm.nonce_length()).to_vec(),
            sender,
            fingerprint: *hash.first_chunk().expect("a hash is longer"),
        }
    }

    /// What the sender's key is known by: nothing of it can be had from that.
    pub(super) fn fingerprint(&self) -> [u8; 8] {
        self.fingerprint
    }

    pub(super) fn seal(&self, nonce: &[u8], aad: &[u8], plaintext: Vec<u8>) -> Vec<u8> {
        self.algorithm.seal(&self.sender, nonce, aad, plaintext)
    }

    pub(super) fn open(&self, nonce: &[u8], aad: &[u8], ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.algorithm.open(&self.recipient, nonce, aad, ciphertext)
    }

    /// The nonce of a Partial IV that the endpoint with this id took (§5.2).
    ///
    /// ```text
    /// | S: length of ID_PIV | ID_PIV, padded to nonce length - 6 | Partial IV, padded to 5 |  XOR  Common IV
    /// ```
    pub(super) fn nonce(&self, id: &[u8], partial_iv: PartialIv) -> Vec<u8> {
        let id_room = self.common_iv.len() - 6;
        let id_padding = id_room.saturating_sub(id.len());
        let [_, _, _, number @ ..] = partial_iv.number().to_be_bytes();
        let plain = [id.len() as u8]
            .into_iter()
            .chain(std::iter::repeat_n(0, id_padding))
            .chain(id.iter().copied())
            .chain(number);
        plain.zip(&self.common_iv).map(|(plain, iv)| plain ^ iv).collect()
    }

    /// What a message of the exchange that began with this request is bound to: the Enc_structure with the external AAD (§5.4).
    pub(super) fn aad(&self, request_kid: &[u8], request_piv: PartialIv) -> Vec<u8> {
        const OSCORE_VERSION: u64 = 1;
        let mut external = Vec::with_capacity(32);
        cbor::array(5, &mut external);
        cbor::unsigned(OSCORE_VERSION, &mut external);
        cbor::array(1, &mut external);
        cbor::unsigned(self.algorithm.number().into(), &mut external);
        cbor::bytes(request_kid, &mut external);
        cbor::bytes(&request_piv.encode(), &mut external);
        // No option is of class I (§4.1.2).
        cbor::bytes(&[], &mut external);
        let mut structure = Vec::with_capacity(48);
        cbor::array(3, &mut structure);
        cbor::text("Encrypt0", &mut structure);
        cbor::bytes(&[], &mut structure);
        cbor::bytes(&external, &mut structure);
        structure
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// §3.2.1: HKDF over `info = [id, id_context, alg_aead, type, L]`.
fn derive(parameters: &Parameters, id: &[u8], what: &str, length: usize) -> Zeroizing<Vec<u8>> {
    let mut info = Vec::new();
    cbor::array(5, &mut info);
    cbor::bytes(id, &mut info);
    cbor::bytes_or_null(parameters.id_context.as_deref(), &mut info);
    cbor::unsigned(parameters.algorithm.number().into(), &mut info);
    cbor::text(what, &mut info);
    cbor::unsigned(length as u64, &mut info);
    let mut output = Zeroizing::new(vec![0; length]);
    let (salt, secret) = (parameters.master_salt.expose(), parameters.master_secret.expose());
    parameters.hkdf.derive(salt, secret, &info, &mut output);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 8613 Appendix C: what is derived is tested here, as nobody outside sees it; the messages in `tests/oscore_vectors.rs`.
    const VECTORS: &str = include_str!("../../../tests/vectors/oscore/rfc8613-appendix-c.txt");

    #[test]
    fn every_context_of_appendix_c_is_derived() {
        let contexts: Vec<_> = VECTORS.split("\n\n").filter(|block| block.starts_with("context")).collect();
        assert_eq!(contexts.len(), 6);
        for block in contexts {
            let field = |name: &str| hex(line(block, name).unwrap_or_default());
            let parameters = Parameters {
                master_salt: field("master-salt").into(),
                id_context: line(block, "id-context").map(hex),
                ..Parameters::new(field("master-secret").into(), &field("sender-id"), &field("recipient-id"))
            };
            let keys = Keys::derive(&parameters);
            assert_eq!(*keys.sender, field("sender-key"), "{block}");
            assert_eq!(*keys.recipient, field("recipient-key"), "{block}");
            assert_eq!(keys.common_iv, field("common-iv"), "{block}");
            let zero = PartialIv::new(0).unwrap();
            assert_eq!(keys.nonce(&parameters.sender_id, zero), field("sender-nonce"), "{block}");
            assert_eq!(keys.nonce(&parameters.recipient_id, zero), field("recipient-nonce"), "{block}");
        }
    }

    #[test]
    fn every_message_of_appendix_c_has_the_nonce_and_the_aad_that_it_states() {
        let messages: Vec<_> = VECTORS.split("\n\n").filter(|block| block.starts_with("message")).collect();
        assert_eq!(messages.len(), 5);
        for block in messages {
            let field = |name: &str| hex(line(block, name).unwrap_or_default());
            let keys = Keys {
                algorithm: Algorithm::AesCcm16_64_128,
                sender: Zeroizing::new(field("sender-key")),
                recipient: Zeroizing::new(field("sender-key")),
                common_iv: field("common-iv"),
                fingerprint: [0; 8],
            };
            let number = |name: &str| PartialIv::decode(&field(name)).unwrap();
            let nonce = keys.nonce(&field("nonce-id"), number("nonce-piv"));
            assert_eq!(nonce, field("nonce"), "{block}");
            let aad = keys.aad(&field("request-kid"), number("request-piv"));
            assert_eq!(aad, field("aad"), "{block}");
            assert_eq!(keys.seal(&nonce, &aad, field("plaintext")), field("ciphertext"), "{block}");
            assert_eq!(*keys.open(&nonce, &aad, &field("ciphertext")).unwrap(), field("plaintext"));
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = Keys::derive(&Parameters::new([7; 16].into(), b"", b"\x01"));
        assert_eq!(format!("{keys:?}"), "Keys { algorithm: AesCcm16_64_128, .. }");
    }

    fn line<'a>(block: &'a str, name: &str) -> Option<&'a str> {
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }
}
