//! What a conversation has cost on the link, by layer, by direction, and whether it was said for the first time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::channel::PeerNumber;
use crate::coap::{Airtime, Message, OptionNumber};
use crate::link::End;

/// The account of one link.
#[derive(Debug, Default)]
pub struct Ledger {
    up: Side,
    down: Side,
    recent: BTreeMap<(PeerNumber, bool), VecDeque<Vec<u8>>>,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// What was sent for the first time.
    pub first: Account,
    /// What was sent again, byte for byte.
    pub again: Account,
}

/// Bytes by layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes below CoAP: IP, UDP, framing.
    pub link: u64,
    /// Bytes of OSCORE: its option, and of the ciphertext the code and the tag.
    pub security: u64,
    /// Bytes of CoAP headers and tokens.
    pub header: u64,
    /// Bytes of CoAP options that are not encrypted, and of the payload marker.
    pub options: u64,
    /// Bytes of payloads; of those of protected messages also what is encrypted besides.
    pub payload: u64,
    /// How long all that was on the air.
    #[serde(rename = "airtime_ms", serialize_with = "super::traffic::milliseconds")]
    pub airtime: Duration,
}

impl Ledger {
    /// Messages of one sender that are remembered, to know those that are sent again.
    const RECENT: usize = 64;

    /// Enters a datagram that goes on the air.
    pub fn enter(&mut self, from: End, peer: PeerNumber, datagram: &[u8], airtime: Airtime) {
        let recent = self.recent.entry((peer, from == End::Peer)).or_default();
        let is_again = recent.iter().any(|known| known == datagram);
        if !is_again {
            recent.push_back(datagram.to_vec());
            if recent.len() > Self::RECENT {
                recent.pop_front();
            }
        }
        let side = match from {
            End::Peer => &mut self.up,
            End::Gateway => &mut self.down,
        };
        if is_again { &mut side.again } else { &mut side.first }.enter(datagram, airtime);
    }

    /// The two directions: up, and down.
    pub fn sides(&self) -> [Side; 2] {
        [self.up, self.down]
    }

    /// All bytes on the air.
    pub fn bytes(&self) -> u64 {
        self.sides().iter().map(|side| side.first.bytes() + side.again.bytes()).sum()
    }

    /// The share of all bytes that were sent again.
    pub fn repeated(&self) -> f64 {
        let again: u64 = self.sides().iter().map(|side| side.again.bytes()).sum();
        if again == 0 { 0.0 } else { again as f64 / self.bytes() as f64 }
    }
}

impl Account {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.link + self.security + self.header + self.options + self.payload
    }

    fn enter(&mut self, datagram: &[u8], airtime: Airtime) {
        let length = datagram.len();
        let (header, payload, option, sealed) = match Message::decode(datagram) {
            Ok(message) => {
                let option = message.options.get(OptionNumber::OSCORE).map_or(0, |value| 1 + value.len());
                let sealed = if option > 0 { SEALED.min(message.payload.len()) } else { 0 };
                (4 + message.token.as_slice().len(), message.payload.len() - sealed, option, sealed)
            }
            Err(_) => (length, 0, 0, 0),
        };
        self.datagrams += 1;
        self.link += (airtime.bytes(length) - length) as u64;
        self.header += header as u64;
        self.payload += payload as u64;
        self.security += (option + sealed) as u64;
        self.options += (length - header - payload - option - sealed) as u64;
        self.airtime += airtime.of(length);
    }
}

/// The code and the tag of AES-CCM-16-64-128 (RFC 8613 §5.3), which cannot be told from the rest.
const SEALED: usize = 9;

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [up, down] = self.sides();
        let accounts = [up.first, up.again, down.first, down.again];
        writeln!(f, "{:22}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "up", "again", "down", "again", "all")?;
        let mut row = |name: &str, value: fn(&Account) -> u64| {
            let values = accounts.map(|account| value(&account));
            let all: u64 = values.iter().sum();
            write!(f, "{name:22}")?;
            values.iter().try_for_each(|value| write!(f, "{value:>10}"))?;
            writeln!(f, "{all:>10}")
        };
        row("datagrams", |account| account.datagrams)?;
        row("link (IP, UDP) B", |account| account.link)?;
        if accounts.iter().any(|account| account.security > 0) {
            row("OSCORE B", |account| account.security)?;
        }
        row("CoAP header, token B", |account| account.header)?;
        row("CoAP options B", |account| account.options)?;
        row("payload B", |account| account.payload)?;
        row("bytes", Account::bytes)?;
        row("on the air s", |account| account.airtime.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_protects_a_message_is_counted_by_itself() {
        let airtime = Airtime { bits_per_second: 100, overhead: 28, fragment: 0, sealing: 0 };
        let mut ledger = Ledger::default();
        // CON POST with a token of one byte and an OSCORE option of 3, and 12 bytes of ciphertext.
        let request = [&[0x41, 2, 0, 1, 0xaa, 0x93, 9, 0, 1, 0xff][..], &[7; 12]].concat();
        ledger.enter(End::Peer, 1, &request, airtime);
        let [up, _] = ledger.sides();
        let Account { link, security, header, options, payload, .. } = up.first;
        assert_eq!((link, security, header, options, payload), (28, 4 + 9, 5, 1, 3));
        assert_eq!(ledger.bytes(), 28 + 22);
        assert!(ledger.to_string().contains("OSCORE"));
    }

    #[test]
    fn a_message_is_taken_apart_and_a_repeat_known() {
        let airtime = Airtime { bits_per_second: 100, overhead: 28, fragment: 0, sealing: 0 };
        let mut ledger = Ledger::default();
        // CON GET, message ID 1, token aa, Uri-Path "x"; then with a payload of two bytes.
        let (get, put) = ([0x41, 1, 0, 1, 0xaa, 0xb1, b'x'], [0x41, 3, 0, 2, 0xaa, 0xb1, b'x', 0xff, 1, 2]);
        ledger.enter(End::Peer, 1, &get, airtime);
        ledger.enter(End::Peer, 1, &get, airtime);
        ledger.enter(End::Peer, 2, &get, airtime);
        ledger.enter(End::Gateway, 1, &get, airtime);
        ledger.enter(End::Peer, 1, &put, airtime);
        let [up, down] = ledger.sides();
        assert_eq!((up.first.datagrams, up.again.datagrams, down.first.datagrams), (3, 1, 1));
        let Account { link, header, options, payload, .. } = up.first;
        assert_eq!((link, header, options, payload), (84, 15, 2 + 2 + 3, 2));
        assert_eq!(up.again.airtime, Duration::from_millis(35 * 80));
        assert_eq!(ledger.bytes(), 4 * 35 + 38);
        assert!((ledger.repeated() - 35.0 / 178.0).abs() < 1e-9);
    }
}
