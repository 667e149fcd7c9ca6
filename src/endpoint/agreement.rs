//! Keys that are agreed on over the link, by EDHOC: devices' runs are answered here, and what they come to are keys like others; so are
//! those of runs that our user has begun.

use std::collections::BTreeMap;

use rand_chacha::rand_core::Rng;
use tracing::debug;

use super::devices::KeysNumber;
use super::{Address, Association, Endpoint, Event};
use crate::coap::{self, Instant, Message, Response};
use crate::security::edhoc::{self, Agreed, Credential, Due, Established, Identity, Rekey, Responder, Use};
use crate::security::oscore::{Parameters, ParametersError, Refusal};

/// Who may agree on keys, and on which they did.
#[derive(Debug)]
pub(super) struct Agreements {
    responder: Responder,
    devices: BTreeMap<Vec<u8>, Association>,
    /// Those that hold, of each device the last two.
    keys: BTreeMap<KeysNumber, Agreement>,
    next: KeysNumber,
    rekey: Rekey,
}

/// Keys that were agreed on.
#[derive(Debug)]
struct Agreement {
    association: Association,
    /// The device's credential.
    kid: Vec<u8>,
    since: Instant,
    /// How many messages that named them were forged.
    forged: u64,
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
        let (devices, keys) = (BTreeMap::new(), BTreeMap::new());
        self.agreements = Some(Agreements { responder, devices, keys, next: first, rekey });
    }

    /// Whether EDHOC is answered.
    pub fn answers_edhoc(&self) -> bool {
        self.agreements.is_some()
    }

    /// Has runs of EDHOC wait as long as devices on this link need.
    pub fn wait_for_edhoc(&mut self, parameters: &coap::Parameters) {
        if let Some(agreements) = &mut self.agreements {
            agreements.responder.wait_for(parameters);
        }
    }

    /// Lets a device agree on keys, which it is known by to have this credential. Each new ones are told by [`Event::KeysAgreed`]; those before
    /// the last are revoked then. Without [`Endpoint::answer_edhoc`] nothing comes of it.
    pub fn admit_credential(&mut self, association: Association, credential: Credential) {
        let Some(agreements) = &mut self.agreements else { return };
        agreements.devices.insert(credential.kid().to_vec(), association);
        agreements.responder.insert(credential);
    }

    /// Lets a device agree on keys no more, by its credential's id, and revokes those that it has agreed on by it.
    pub fn revoke_credential(&mut self, kid: &[u8], now: Instant) {
        let Some(agreements) = &mut self.agreements else { return };
        agreements.responder.remove(kid);
        agreements.devices.remove(kid);
        let numbers = agreements.keys.iter().filter(|(_, agreement)| agreement.kid == kid);
        let numbers: Vec<_> = numbers.map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.revoke_keys(number, now));
    }

    /// Takes in keys that a device has agreed on before a restart, by the credential with this id, as [`Endpoint::admit_keys`] does. Their age
    /// counts from now on.
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub fn admit_agreed(
        &mut self,
        number: KeysNumber,
        (association, kid): (Association, &[u8]),
        parameters: Parameters,
        now: Instant,
    ) -> Result<(), ParametersError> {
        self.admit_keys(number, association, parameters)?;
        self.pass_over(number);
        if let Some(agreements) = &mut self.agreements {
            let agreement = Agreement { association, kid: kid.to_vec(), since: now, forged: 0 };
            agreements.keys.insert(number, agreement);
        }
        Ok(())
    }

    /// Gives the keys that are agreed on no number up to this one, which others have had.
    pub fn pass_over(&mut self, number: KeysNumber) {
        if let Some(agreements) = &mut self.agreements {
            agreements.next = agreements.next.max(number.saturating_add(1));
        }
    }

    /// What was done with keys, for a device to ask [`Rekey::is_due`]. How old they are and what was forged is known of those that were agreed
    /// on here.
    pub fn key_use(&mut self, number: KeysNumber, now: Instant) -> Option<Use> {
        let sealed = self.context(number)?.1.sealed();
        let agreement = self.agreements.as_ref().and_then(|agreements| agreements.keys.get(&number));
        let (since, forged) = agreement.map_or((now, 0), |agreement| (agreement.since, agreement.forged));
        Some(Use { sealed, forged, age: now.since(since) })
    }

    /// Revokes keys that were agreed on, where they have to be replaced before anything else. Whether it did.
    pub(super) fn revoke_spent(&mut self, number: KeysNumber, now: Instant) -> bool {
        let Some(agreements) = &self.agreements else { return false };
        let Some(Agreement { association, .. }) = agreements.keys.get(&number) else { return false };
        let (association, rekey) = (*association, agreements.rekey);
        if self.key_use(number, now).is_none_or(|used| rekey.is_due(used) != Due::Now) {
            return false;
        }
        self.revoke_keys(number, now);
        self.events.push_back(Event::KeysSpent { association, number });
        true
    }

    /// Keys are revoked, however that came to be.
    pub(super) fn forget_agreement(&mut self, number: KeysNumber) {
        if let Some(agreements) = &mut self.agreements {
            agreements.keys.remove(&number);
        }
    }

    /// A message that named these keys was refused.
    pub(super) fn note_forged(&mut self, number: KeysNumber, refusal: Refusal) {
        let agreement = self.agreements.as_mut().and_then(|agreements| agreements.keys.get_mut(&number));
        if let (Some(agreement), Refusal::Forged) = (agreement, refusal) {
            agreement.forged += 1;
        }
    }

    /// Takes in keys that a peer has agreed on with us, where we began it. Until a response has come under them, message_3 goes before each
    /// request (RFC 9668), so that the first makes them known.
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub fn take_agreed(
        &mut self,
        number: KeysNumber,
        association: Association,
        agreed: Box<Agreed>,
    ) -> Result<(), ParametersError> {
        self.admit_keys(number, association, agreed.parameters().clone())?;
        self.devices.agreed.insert(association, (number, agreed));
        Ok(())
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
        let of = agreements.keys.iter().filter(|(_, agreement)| agreement.association == association);
        let former: Vec<_> = of.map(|(number, _)| *number).rev().skip(1).collect();
        if let Err(error) = self.admit_agreed(number, (association, &kid), parameters, now) {
            return debug!(%error, "no context comes of what was agreed on");
        }
        // What is observed with the last ones goes on, until the device has said it again with these.
        former.into_iter().for_each(|number| self.revoke_keys(number, now));
        self.reserve_numbers(association);
        self.events.push_back(Event::KeysAgreed { association, number, kid });
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.chance.fill_bytes(&mut seed);
        seed
    }
}
