//! What lakers computes with: the primitives of RustCrypto, in the versions that the rest of lowband has.
//!
//! It is here, too, that a plaintext is checked between its decryption and lakers' reading it, which counts on plaintexts of
//! a peer that wants no harm.

use aes::Aes128;
use ccm::Ccm;
use ccm::aead::consts::{U8, U13};
use ccm::aead::{Aead, KeyInit, Payload};
use hkdf::Hkdf;
use hkdf::hmac::{Hmac, Mac};
use lakers::{
    BufferCiphertext3, BufferPlaintext3, BytesCcmIvLen, BytesCcmKeyLen, BytesHashLen, BytesMaxBuffer,
    BytesMaxInfoBuffer, BytesP256ElemLen, CryptoTrait, EDHOCError, MAX_BUFFER_LEN,
};
use sha2::{Digest, Sha256};

use super::key;
use super::message;

/// The label of KEYSTREAM_2 (RFC 9528 §4.1.2).
const KEYSTREAM_2: u8 = 0;

/// The primitives of cipher suite 2, and what is known of the plaintext that comes next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Primitives<'a> {
    /// Nothing is decrypted.
    Plain,
    /// PLAINTEXT_2, by this ciphertext.
    Opening2(&'a [u8]),
    /// PLAINTEXT_3.
    Opening3,
    /// PLAINTEXT_4.
    Opening4,
}

impl CryptoTrait for Primitives<'_> {
    fn sha256_digest(&mut self, message: &BytesMaxBuffer, length: usize) -> BytesHashLen {
        Sha256::digest(message.get(..length).unwrap_or_default()).into()
    }

    fn hkdf_expand(
        &mut self,
        prk: &BytesHashLen,
        info: &BytesMaxInfoBuffer,
        info_length: usize,
        length: usize,
    ) -> BytesMaxBuffer {
        let mut output = [0; MAX_BUFFER_LEN];
        let kdf = Hkdf::<Sha256>::from_prk(prk).expect("a hash is long enough");
        let info = info.get(..info_length).unwrap_or_default();
        let wanted = output.get_mut(..length).unwrap_or_default();
        kdf.expand(info, wanted).expect("a buffer is shorter than 255 hashes");
        if let (Self::Opening2(ciphertext), Some(&KEYSTREAM_2)) = (*self, info.first()) {
            let plaintext: Vec<u8> =
                ciphertext.iter().zip(&output).map(|(byte, stream)| byte ^ stream).collect();
            // §5.3.2: what there is XOR itself is zeros, which lakers takes for no plaintext.
            if !message::is_plaintext_2(&plaintext) {
                output.iter_mut().zip(ciphertext).for_each(|(stream, byte)| *stream = *byte);
            }
        }
        output
    }

    fn hkdf_extract(&mut self, salt: &BytesHashLen, secret: &BytesP256ElemLen) -> BytesHashLen {
        let (prk, _) = Hkdf::<Sha256>::extract(Some(salt), secret);
        prk.into()
    }

    fn aes_ccm_encrypt_tag_8(
        &mut self,
        key: &BytesCcmKeyLen,
        iv: &BytesCcmIvLen,
        aad: &[u8],
        plaintext: &BufferPlaintext3,
    ) -> BufferCiphertext3 {
        let payload = Payload { msg: plaintext.as_slice(), aad };
        let sealed = cipher(key).encrypt(&(*iv).into(), payload).expect("it is shorter than 64 KiB");
        BufferCiphertext3::new_from_slice(&sealed).expect("a plaintext leaves room for the tag")
    }

    fn aes_ccm_decrypt_tag_8(
        &mut self,
        key: &BytesCcmKeyLen,
        iv: &BytesCcmIvLen,
        aad: &[u8],
        ciphertext: &BufferCiphertext3,
    ) -> Result<BufferPlaintext3, EDHOCError> {
        let payload = Payload { msg: ciphertext.as_slice(), aad };
        let opened = cipher(key).decrypt(&(*iv).into(), payload);
        let plaintext = opened.map_err(|_| EDHOCError::MacVerificationFailed)?;
        let is_read = match self {
            Self::Opening3 => message::is_plaintext_3(&plaintext),
            Self::Opening4 => message::is_plaintext_4(&plaintext),
            Self::Plain | Self::Opening2(_) => false,
        };
        let plaintext = is_read.then(|| BufferPlaintext3::new_from_slice(&plaintext).ok()).flatten();
        plaintext.ok_or(EDHOCError::ParsingError)
    }

    fn p256_ecdh(&mut self, private: &BytesP256ElemLen, public: &BytesP256ElemLen) -> BytesP256ElemLen {
        // Points are checked before, and keys are made here. If one were wrong all the same, nobody could know what is computed with.
        key::agree(private, public).unwrap_or_else(|| {
            let mac = Hmac::<Sha256>::new_from_slice(private).expect("any length is a key's");
            mac.chain_update(public).finalize().into_bytes().into()
        })
    }

    fn get_random_byte(&mut self) -> u8 {
        unreachable!("connection identifiers are chosen by whoever begins")
    }

    fn p256_generate_key_pair(&mut self) -> (BytesP256ElemLen, BytesP256ElemLen) {
        unreachable!("ephemeral keys are made before lakers is called")
    }
}

fn cipher(key: &BytesCcmKeyLen) -> Ccm<Aes128, U8, U13> {
    Ccm::new(&(*key).into())
}
