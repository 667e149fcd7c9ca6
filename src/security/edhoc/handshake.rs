//! One run of the protocol, on either end (RFC 9528 §5), by lakers: what the messages are, and what comes of them.
//!
//! lakers takes it that messages come from somebody who means well, and panics on some others. Each is checked before, in
//! [`super::message`]; and what lakers decrypts is checked in [`Primitives`] before it reads that.

use std::fmt;

use lakers::{CredentialTransfer, CryptoTrait as _, EdhocMessageBuffer, MAX_BUFFER_LEN, MAX_KDF_CONTEXT_LEN};
use zeroize::{Zeroize, Zeroizing};

use super::connection::ConnectionId;
use super::credential::{Credential, Identity};
use super::error::Refusal;
use super::key::KeyPair;
use super::message::{self, METHOD, Message1};
use super::primitives::Primitives;
use crate::security::oscore::{Parameters, Secret};

/// An initiator that waits for message_2.
pub(super) struct Begun {
    state: lakers::WaitM2,
    c_i: ConnectionId,
}

/// Makes message_1.
pub(super) fn begin(ephemeral: &KeyPair, suites: &[u8], c_i: &ConnectionId) -> (Begun, Vec<u8>) {
    let start = lakers::InitiatorStart {
        suites_i: lakers::EdhocBuffer::new_from_slice(suites).expect("there are few"),
        method: METHOD,
        x: *ephemeral.private(),
        g_x: *ephemeral.public().x(),
    };
    let made = lakers::i_prepare_message_1(&start, &mut Primitives::Plain, id(c_i), &None);
    let (state, message) = made.expect("without external data it has room");
    (Begun { state, c_i: c_i.clone() }, message.as_slice().to_vec())
}

impl Begun {
    /// Takes message_2, and makes message_3 of it. What is not taken changes nothing.
    pub(super) fn receive_2(
        &self,
        message: &[u8],
        identity: &Identity,
        peer: &Credential,
    ) -> Result<Finished, Refusal> {
        let ciphertext = message::ciphertext_2(message)?;
        let buffer = buffer(message)?;
        let mut opening = Primitives::Opening2(ciphertext);
        let parsed = lakers::i_parse_message_2(&self.state, &mut opening, &buffer);
        let (state, c_r, id_cred_r, _) = parsed.map_err(|_| Refusal::Malformed)?;
        if !peer.is_named_by(&id_cred_r) {
            return Err(Refusal::UnknownCredential);
        }
        let c_r = ConnectionId::new(c_r.as_slice()).ok_or(Refusal::Malformed)?;
        let plain = &mut Primitives::Plain;
        let verified = lakers::i_verify_message_2(&state, plain, peer.to_lakers(), identity.private());
        let state = verified.map_err(|_| Refusal::Forged)?;
        // Appendix A.1: the same would be the same keys and nonces for both.
        if c_r == self.c_i {
            return Err(Refusal::SameIds);
        }
        let (own, by) = (identity.credential().to_lakers(), CredentialTransfer::ByReference);
        let made = lakers::i_prepare_message_3(&state, plain, own, by, &None);
        let (state, message_3, _) = made.expect("with a key id it has room");
        let output = Output { prk_out: state.prk_out, prk_exporter: state.prk_exporter };
        Ok(Finished {
            parameters: output.parameters(&c_r, &self.c_i),
            message: message_3.as_slice().to_vec(),
            c_r,
            confirmation: Confirmation(state),
        })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.state.x.zeroize();
    }
}

/// What an initiator has of message_2.
pub(super) struct Finished {
    pub(super) parameters: Parameters,
    /// message_3.
    pub(super) message: Vec<u8>,
    pub(super) c_r: ConnectionId,
    pub(super) confirmation: Confirmation,
}

/// What message_4 is opened with.
pub(super) struct Confirmation(lakers::WaitM4);

impl Confirmation {
    /// Takes message_4.
    pub(super) fn receive_4(&mut self, message: &[u8]) -> Result<(), Refusal> {
        if !message::is_ciphertext(message) {
            return Err(Refusal::Malformed);
        }
        let buffer = buffer(message)?;
        let opened = lakers::i_process_message_4(&mut self.0, &mut Primitives::Opening4, &buffer);
        opened.map(|_| ()).map_err(|_| Refusal::Forged)
    }
}

impl Drop for Confirmation {
    fn drop(&mut self) {
        self.0.prk_4e3m.zeroize();
        self.0.prk_out.zeroize();
        self.0.prk_exporter.zeroize();
    }
}

/// A responder that waits for message_3.
pub(super) struct Waiting {
    state: lakers::WaitM3,
    c_i: ConnectionId,
    c_r: ConnectionId,
}

/// Answers message_1 with message_2.
pub(super) fn answer(
    (message, read): (&[u8], Message1),
    identity: &Identity,
    c_r: &ConnectionId,
    ephemeral: &KeyPair,
) -> Result<(Waiting, Vec<u8>), Refusal> {
    if *c_r == read.c_i {
        return Err(Refusal::SameIds);
    }
    let mut transcript = [0; MAX_BUFFER_LEN];
    transcript.get_mut(..message.len()).ok_or(Refusal::Malformed)?.copy_from_slice(message);
    let state = lakers::ProcessingM1 {
        y: *ephemeral.private(),
        g_y: *ephemeral.public().x(),
        c_i: id(&read.c_i),
        g_x: read.g_x,
        h_message_1: Primitives::Plain.sha256_digest(&transcript, message.len()),
    };
    let (own, by) = (identity.credential().to_lakers(), CredentialTransfer::ByReference);
    let (plain, r) = (&mut Primitives::Plain, identity.private());
    let made = lakers::r_prepare_message_2(&state, plain, own, r, id(c_r), by, &None);
    let (state, message_2) = made.expect("with a key id it has room");
    Ok((Waiting { state, c_i: read.c_i, c_r: c_r.clone() }, message_2.as_slice().to_vec()))
}

impl Waiting {
    /// Takes message_3. What is not taken changes nothing.
    pub(super) fn receive_3<'a>(
        &mut self,
        message: &[u8],
        known: impl IntoIterator<Item = &'a Credential>,
    ) -> Result<Authenticated, Refusal> {
        if !message::is_ciphertext(message) {
            return Err(Refusal::Malformed);
        }
        let buffer = buffer(message)?;
        let parsed = lakers::r_parse_message_3(&mut self.state, &mut Primitives::Opening3, &buffer);
        let (mut state, id_cred_i, _) = parsed.map_err(|_| Refusal::Forged)?;
        let peer = known.into_iter().find(|peer| peer.is_named_by(&id_cred_i));
        let peer = peer.ok_or(Refusal::UnknownCredential)?;
        let verified = lakers::r_verify_message_3(&mut state, &mut Primitives::Plain, peer.to_lakers());
        let (state, _) = verified.map_err(|_| Refusal::Forged)?;
        let made = lakers::r_prepare_message_4(&state, &mut Primitives::Plain, &None);
        let (done, message_4) = made.expect("without external data it has room");
        let output = Output { prk_out: done.prk_out, prk_exporter: done.prk_exporter };
        Ok(Authenticated {
            kid: peer.kid().to_vec(),
            parameters: output.parameters(&self.c_i, &self.c_r),
            message_4: message_4.as_slice().to_vec(),
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.state.y.zeroize();
        self.state.prk_3e2m.zeroize();
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("c_i", &self.c_i).field("c_r", &self.c_r).finish_non_exhaustive()
    }
}

/// What a responder has of message_3.
pub(super) struct Authenticated {
    /// The initiator's credential.
    pub(super) kid: Vec<u8>,
    pub(super) parameters: Parameters,
    pub(super) message_4: Vec<u8>,
}

/// What both ends have when it is over, and what keys are exported from.
struct Output {
    prk_out: [u8; 32],
    prk_exporter: [u8; 32],
}

impl Output {
    /// Appendix A.1, with the lengths that cipher suite 2 and OSCORE have by default.
    fn parameters(&self, sender_id: &ConnectionId, recipient_id: &ConnectionId) -> Parameters {
        // Labels 0 and 1 of the exporter (§10.1).
        let (secret, salt): ([u8; 16], [u8; 8]) = (self.export(0), self.export(1));
        Parameters {
            master_salt: Secret::from(salt),
            ..Parameters::new(Secret::from(secret), sender_id.as_bytes(), recipient_id.as_bytes())
        }
    }

    /// EDHOC_Exporter with an empty context (§4.2.1).
    fn export<const N: usize>(&self, label: u8) -> [u8; N] {
        let completed = lakers::Completed { prk_out: self.prk_out, prk_exporter: self.prk_exporter };
        let (plain, context) = (&mut Primitives::Plain, [0; MAX_KDF_CONTEXT_LEN]);
        let exported = Zeroizing::new(lakers::edhoc_exporter(&completed, plain, label, &context, 0, N));
        *exported.first_chunk().expect("a buffer is longer")
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.prk_out.zeroize();
        self.prk_exporter.zeroize();
    }
}

fn id(id: &ConnectionId) -> lakers::ConnId {
    lakers::ConnId::from_slice(id.as_bytes()).expect("it is as long as it may be at most")
}

fn buffer(message: &[u8]) -> Result<EdhocMessageBuffer, Refusal> {
    EdhocMessageBuffer::new_from_slice(message).map_err(|_| Refusal::Malformed)
}
