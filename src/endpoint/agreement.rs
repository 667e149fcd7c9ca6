//! Devices whose keys are agreed on over the link, by EDHOC: their runs are answered here, and what they come to are keys like others.

use std::collections::BTreeMap;

use rand_chacha::rand_core::Rng;
use tracing::debug;

use super::devices::KeysNumber;
use super::{Address, Association, Endpoint, Event};
use crate::coap::{Instant, Message, Response};
use crate::security::edhoc::{self, Credential, Due, Established, Identity, Rekey, Responder, Use};
use crate::security::oscore::Refusal;

/// Who may agree on keys, and on which they did.
#[derive(Debug)]
pub(super) struct Agreements {
    responder: Responder,
    devices: BTreeMap<Vec<u8>, Association>,
    /// The last two of each device, the newer one last.
    keys: BTreeMap<Association, [Option<KeysNumber>; 2]>,
    /// Since when they are, and how many messages that named them were forged.
    used: BTreeMap<KeysNumber, (Instant, u64)>,
    next: KeysNumber,
    rekey: Rekey,
}

impl Endpoint {
    /// Answers EDHOC from now on, at `/.well-known/edhoc` and before protected requests. The keys that are agreed on have the numbers from
    /// `first` on, which is above all others'. Once a limit of `rekey` is reached they are revoked, and a device that has not agreed on others
    /// before has to do so then.
    pub fn answer_edhoc(
        &mut self,
        identity: Identity,
        config: edhoc::Config,
        rekey: Rekey,
        first: KeysNumber,
    ) {
        let responder = Responder::new(identity, config, self.seed());
        let (devices, keys, used) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.agreements = Some(Agreements { responder, devices, keys, used, next: first, rekey });
    }

    /// Lets a device agree on keys, which it is known by to have this credential. Each new ones are told by [`Event::KeysAgreed`]; those before
    /// the last are revoked then. Without [`Endpoint::answer_edhoc`] nothing comes of it.
    pub fn admit_credential(&mut self, association: Association, credential: Credential) {
        let Some(agreements) = &mut self.agreements else { return };
        agreements.devices.insert(credential.kid().to_vec(), association);
        agreements.responder.insert(credential);
    }

    /// Lets a device agree on keys no more, by its credential's id, and revokes those that it has agreed on.
    pub fn revoke_credential(&mut self, kid: &[u8], now: Instant) {
        let Some(agreements) = &mut self.agreements else { return };
        agreements.responder.remove(kid);
        let Some(association) = agreements.devices.remove(kid) else { return };
        let numbers = agreements.keys.remove(&association).unwrap_or_default();
        for number in numbers.into_iter().flatten() {
            agreements.used.remove(&number);
        }
        numbers.into_iter().flatten().for_each(|number| self.revoke_keys(number, now));
    }

    /// What was done with keys, for a device to ask [`Rekey::is_due`]. How old they are and what was forged is known of those that were agreed
    /// on here.
    pub fn key_use(&mut self, number: KeysNumber, now: Instant) -> Option<Use> {
        let sealed = self.context(number)?.1.sealed();
        let used = self.agreements.as_ref().and_then(|agreements| agreements.used.get(&number));
        let (since, forged) = used.copied().unwrap_or((now, 0));
        Some(Use { sealed, forged, age: now.since(since) })
    }

    /// Whether keys that were agreed on have to be replaced before anything else.
    pub(super) fn is_spent(&mut self, number: KeysNumber, now: Instant) -> bool {
        let Some(agreements) = &self.agreements else { return false };
        let (is_ours, rekey) = (agreements.used.contains_key(&number), agreements.rekey);
        is_ours && self.key_use(number, now).is_some_and(|used| rekey.is_due(used) == Due::Now)
    }

    /// A message that named these keys was refused.
    pub(super) fn note_forged(&mut self, number: KeysNumber, refusal: Refusal) {
        let used = self.agreements.as_mut().and_then(|agreements| agreements.used.get_mut(&number));
        if let (Some((_, forged)), Refusal::Forged) = (used, refusal) {
            *forged += 1;
        }
    }

    /// What came of runs of EDHOC, in numbers.
    pub fn edhoc_counters(&self) -> Option<edhoc::Counters> {
        self.agreements.as_ref().map(|agreements| agreements.responder.counters())
    }

    /// Takes in what is of EDHOC; what is left is for others, a combined request without its message_3.
    pub(super) fn handle_edhoc(
        &mut self,
        address: Address,
        message: Message,
        length: usize,
        now: Instant,
    ) -> Option<Message> {
        let is_asked = edhoc::is_edhoc(&message);
        if self.agreements.is_none() || !(is_asked || edhoc::is_combined(&message)) {
            return Some(message);
        }
        let seed = self.seed();
        let Some(Agreements { responder, .. }) = &mut self.agreements else { return None };
        // Only who waits for it is answered, from what it has said.
        let (kind, id, token) = (message.kind, message.id, message.token);
        let answer =
            |Response { code, options, payload }| Message { kind, code, id, token, options, payload };
        if is_asked {
            let devices = &self.devices;
            let answered = responder.receive(address, &message, |id| devices.is_free(id), seed, now);
            self.establish(answered.established, now);
            self.answer_stranger(address, kind, answer(answered.response), length, now);
            return None;
        }
        match responder.receive_combined(address, message, now) {
            Ok(combined) => {
                self.establish(combined.established, now);
                Some(combined.sealed)
            }
            Err(response) => {
                self.answer_stranger(address, kind, answer(response), length, now);
                None
            }
        }
    }

    pub(super) fn edhoc_deadline(&self) -> Option<Instant> {
        self.agreements.as_ref().and_then(|agreements| agreements.responder.deadline())
    }

    pub(super) fn advance_edhoc(&mut self, now: Instant) {
        if let Some(agreements) = &mut self.agreements {
            agreements.responder.handle_timeout(now);
        }
    }

    /// Keys that were agreed on are admitted at once: the request that needs them may be here already.
    fn establish(&mut self, established: Option<Established>, now: Instant) {
        let (Some(Established { kid, parameters }), Some(agreements)) = (established, &mut self.agreements)
        else {
            return;
        };
        let Some(association) = agreements.devices.get(&kid).copied() else { return };
        let number = agreements.next;
        agreements.next += 1;
        let [first, second] = agreements.keys.entry(association).or_default();
        let former = std::mem::replace(first, second.replace(number));
        agreements.used.insert(number, (now, 0));
        if let Some(former) = former {
            agreements.used.remove(&former);
        }
        if let Err(error) = self.admit_keys(number, association, parameters) {
            return debug!(%error, "no context comes of what was agreed on");
        }
        // What is observed with the last ones goes on, until the device has said it again with these.
        if let Some(former) = former {
            self.revoke_keys(former, now);
        }
        self.events.push_back(Event::KeysAgreed { association, number });
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.chance.fill_bytes(&mut seed);
        seed
    }
}
