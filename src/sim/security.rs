//! What protects the messages of devices in a run: their keys, and what an attacker makes of what was on the link.

use std::fmt;

use super::chance::Chance;
use super::channel::PeerNumber;
use crate::coap::{Instant, Message};
use crate::device;
use crate::device::{Device, History, KeyNumber, Keys, Limits, Routes};
use crate::endpoint::Association;
use crate::link::End;
use crate::security::oscore;
use crate::security::oscore::{Parameters, is_protected};

/// What protects the messages of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Nothing.
    #[default]
    None,
    /// OSCORE, with keys that each device shares with the gateway.
    Oscore,
}

impl Security {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::None, Self::Oscore];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Oscore => "oscore",
        }
    }

    /// A device's half of its keys.
    pub(super) fn keys(self, peer: PeerNumber) -> Option<Parameters> {
        if self == Self::None {
            return None;
        }
        let number = peer.to_be_bytes();
        let secret = oscore::Secret::from([[0x6b; 12].as_slice(), &number].concat());
        // The shortest ids, of which the first is empty.
        let id: Vec<u8> = number.into_iter().skip_while(|byte| *byte == 0).collect();
        Some(Parameters::new(secret, &id, GATEWAY_ID))
    }
}

impl Security {
    /// A device as the gateway knows it.
    pub(super) fn device(self, peer: PeerNumber, history: History) -> Option<Device> {
        let device = device(&format!("device{peer}"), peer.into(), &self.keys(peer)?)?;
        let keys = device.keys.map(|keys| Keys { history, ..keys });
        Some(Device { keys, ..device })
    }
}

/// A device as its gateway knows it, from its half of the keys, which were never used: it may ask for everything, with a token of its own.
/// None where that is no name.
pub fn device(name: &str, number: u64, keys: &Parameters) -> Option<Device> {
    let security = device::Security::Oscore(device::Oscore {
        secret: device::Secret::new(keys.master_secret.expose()),
        salt: device::Secret::new(keys.master_salt.expose()),
        device_id: keys.sender_id.clone(),
        gateway_id: keys.recipient_id.clone(),
        algorithm: device::Oscore::AES_CCM_16_64_128,
        hkdf: device::Oscore::HKDF_SHA_256,
    });
    Some(Device {
        name: name.parse().ok()?,
        user_id: format!("@{name}:example.org"),
        keys: Some(Keys { number: KeyNumber(number), security, history: History::Fresh }),
        next: None,
        agreed: Vec::new(),
        link: None,
        routes: Routes::All,
        limits: Limits::default(),
        allow_token: true,
        tokens: None,
        created: Instant::START,
        rotated: None,
        revoked: None,
    })
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The id of the gateway towards all devices; none of theirs begins with a zero.
const GATEWAY_ID: &[u8] = &[0];

/// Who a device is for the gateway.
pub(super) fn association(peer: PeerNumber) -> Association {
    Association::Device(peer.into())
}

/// Who hears everything on the link, and can say it again in anybody's name.
///
/// CoAP's own header is not protected: who forges acknowledgements and resets can have a notification taken for delivered, and end
/// observations (RFC 8613 §12.1). So of what the attacker changes are requests, and else ciphertexts alone, and what he says again of those
/// is in the name of their own device: what a forged one does is not of interest here.
#[derive(Debug, Default)]
pub(super) struct Attacker {
    heard: Vec<Heard>,
    count: usize,
}

/// A datagram that was on the link.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) from: End,
    pub(super) peer: PeerNumber,
    pub(super) datagram: Vec<u8>,
}

impl Attacker {
    /// Datagrams that are kept; of more, old and new ones.
    const KEPT: usize = 512;

    /// Hears a datagram.
    pub(super) fn hear(&mut self, from: End, peer: PeerNumber, datagram: &[u8]) {
        let heard = Heard { from, peer, datagram: datagram.to_vec() };
        // A number without a common divisor: sooner or later each place is taken anew, and for long none is.
        let place = self.count.wrapping_mul(197) % Self::KEPT;
        match self.heard.get_mut(place).filter(|_| self.count >= Self::KEPT) {
            Some(old) => *old = heard,
            None => self.heard.push(heard),
        }
        self.count += 1;
    }

    /// A datagram to say again, half of the time changed.
    pub(super) fn choose(&self, chance: &mut Chance) -> Option<Heard> {
        let mut chosen = self.heard.get(chance.below(self.heard.len() as u64) as usize)?.clone();
        if chance.happens(0.5) {
            change(&mut chosen.datagram, chance);
        }
        Some(chosen)
    }
}

impl Heard {
    /// Whether it is below all protection.
    pub(super) fn is_empty(&self) -> bool {
        Message::decode(&self.datagram).is_ok_and(|message| message.is_empty())
    }
}

/// Turns one to three bits of what is protected.
fn change(datagram: &mut [u8], chance: &mut Chance) {
    let Some(message) = Message::decode(datagram).ok().filter(is_protected) else { return };
    let length = datagram.len();
    let first = if message.code.is_request() { 0 } else { length - message.payload.len() };
    for _ in 0..=chance.below(3) {
        let bit = chance.below(8 * (length - first) as u64) as usize;
        if let Some(byte) = datagram.get_mut(first + bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_keys_of_its_own_and_an_id_as_short_as_can_be() {
        let id = |peer| Security::Oscore.keys(peer).map(|keys| keys.sender_id).unwrap_or_default();
        assert_eq!([id(0), id(1), id(255), id(256)], [vec![], vec![1], vec![255], vec![1, 0]]);
        assert!(Security::None.keys(0).is_none());
    }

    #[test]
    fn an_attacker_keeps_so_many_datagrams_and_changes_of_a_response_only_the_ciphertext() {
        let mut attacker = Attacker::default();
        // An acknowledgement with code 2.04, an empty OSCORE option, and 9 bytes of ciphertext.
        let response = [&[0x60, 0x44, 0, 1, 0x90, 0xff][..], &[7; 9]].concat();
        (0..2_000).for_each(|_| attacker.hear(End::Gateway, 0, &response));
        assert_eq!(attacker.heard.len(), Attacker::KEPT);
        let mut chance = Chance::new(1);
        let mut changed = 0;
        for _ in 0..100 {
            let Some(Heard { datagram, .. }) = attacker.choose(&mut chance) else { panic!("there are some") };
            assert_eq!(datagram[..6], response[..6]);
            changed += usize::from(datagram != response);
        }
        assert!((30..70).contains(&changed), "{changed}");
    }
}
