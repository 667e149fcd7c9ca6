//! Identifiers that were told once and are referred to by number from then on.
//!
//! Each end keeps two tables for an association: what it introduced itself ([`Own`]), and what the other end did ([`Mirror`]). A
//! number, once given, stands for nothing else within an epoch, and messages say which numbers they give; so nothing that the
//! network does to messages makes a number mean something else. It may make one unknown, which is an error that can be mended.
//!
//! An end refers to what it introduced only when the other end is known to have it, and to the other's entries always.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::packed::error::DecodeError;

/// What has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A room's id.
    Room = 0,
    /// A user's id.
    User = 1,
    /// The name of a server.
    Server = 2,
    /// A device's id.
    Device = 3,
    /// Any other string that was spelled out: an event's id, a key, a text.
    Recent = 4,
    /// The event that came of a transaction; its number is the transaction's.
    Sent = 5,
    /// The query of a request, with holes for its tokens.
    Query = 6,
}

/// How many kinds there are.
pub(super) const KINDS: usize = 7;

impl Kind {
    /// Those that are introduced by their number.
    pub(super) const HOT: [Kind; 4] = [Kind::Room, Kind::User, Kind::Server, Kind::Device];

    /// All of them, in their order.
    pub(super) const ALL: [Kind; KINDS] =
        [Kind::Room, Kind::User, Kind::Server, Kind::Device, Kind::Recent, Kind::Sent, Kind::Query];

    /// How many numbers back a reference may reach.
    pub(super) fn window(self) -> u64 {
        match self {
            Kind::Recent => 1024,
            Kind::Sent => 2048,
            _ => 256,
        }
    }

    /// How many bytes back it may reach.
    pub(super) fn bytes(self) -> usize {
        match self {
            Kind::Recent => 64 << 10,
            _ => 16 << 10,
        }
    }

    /// The longest string that is remembered.
    pub(super) fn longest(self) -> usize {
        match self {
            Kind::Recent | Kind::Query => 1024,
            _ => 255,
        }
    }
}

/// How many messages may wait for their acknowledgement; of older ones nothing is referred to.
const MOST_PENDING: usize = 64;

/// Something that a message introduces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) text: String,
}

/// What this end introduced.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Own {
    shelves: [Shelf; KINDS],
    next: [u64; KINDS],
    /// What each message introduced that is not known to have arrived.
    pending: BTreeMap<u64, Vec<(Kind, u64)>>,
}

/// What the other end introduced.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Mirror {
    shelves: [Shelf; KINDS],
}

/// An entry as it is stored: its number, and what is in its slot.
type Stored = (u64, String, bool, Option<u64>);

/// The entries of one kind; the rest follows from them, and is not stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Stored>", into = "Vec<Stored>")]
struct Shelf {
    entries: BTreeMap<u64, Slot>,
    numbers: BTreeMap<String, u64>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Slot {
    text: String,
    /// The other end is known to have it.
    is_shared: bool,
    /// The message that has introduced it, if it is the only one.
    by: Option<u64>,
}

impl Own {
    /// The number that the next entry of a kind gets.
    pub(super) fn next(&self, kind: Kind) -> u64 {
        self.next.get(kind as usize).copied().unwrap_or_default()
    }

    /// The numbers that the next entries of all kinds get.
    pub(super) fn all_next(&self) -> [u64; KINDS] {
        self.next
    }

    /// The number of a string that may be referred to.
    pub(super) fn shared(&self, kind: Kind, text: &str) -> Option<u64> {
        let shelf = self.shelves.get(kind as usize)?;
        let number = *shelf.numbers.get(text)?;
        let slot = shelf.entries.get(&number)?;
        let is_near = number + kind.window() >= self.next(kind) && shelf.bytes_after(number) <= kind.bytes();
        (slot.is_shared && is_near).then_some(number)
    }

    /// All that may be referred to.
    pub(super) fn all_shared(&self) -> impl Iterator<Item = (Kind, u64, &str)> {
        let all = Kind::ALL.into_iter().zip(&self.shelves).flat_map(|(kind, shelf)| shelf.all(kind));
        all.filter(|(kind, number, text)| self.shared(*kind, text) == Some(*number))
    }

    /// The number that a string was given, whether or not the other end has it.
    pub(super) fn given(&self, kind: Kind, text: &str) -> Option<u64> {
        let number = *self.shelves.get(kind as usize)?.numbers.get(text)?;
        (number + kind.window() > self.next(kind)).then_some(number)
    }

    pub(super) fn text(&self, kind: Kind, number: u64) -> Option<&str> {
        self.shelves.get(kind as usize)?.text(number)
    }

    /// Notes what a message introduces.
    pub(super) fn commit(&mut self, message: u64, entries: Vec<Entry>, next_recent: u64) {
        let mut introduced = Vec::with_capacity(entries.len());
        for Entry { kind, number, text } in entries {
            introduced.push((kind, number));
            let (Some(shelf), Some(next)) =
                (self.shelves.get_mut(kind as usize), self.next.get_mut(kind as usize))
            else {
                continue;
            };
            *next = (*next).max(number + 1);
            if !shelf.put(number, text, false, Some(message))
                && let Some(slot) = shelf.entries.get_mut(&number)
            {
                slot.by = None;
            }
            // Twice what is referred to, for the other end may be behind.
            shelf.evict((*next).saturating_sub(2 * kind.window()), 2 * kind.bytes());
        }
        if let Some(next) = self.next.get_mut(Kind::Recent as usize) {
            *next = (*next).max(next_recent);
        }
        if introduced.is_empty() {
            return;
        }
        self.pending.insert(message, introduced);
        while self.pending.len() > MOST_PENDING {
            self.pending.pop_first();
        }
    }

    /// Begins anew; numbers that were given are not given again.
    pub(super) fn forget(&mut self) {
        *self = Own { next: self.next, ..Own::default() };
    }

    /// Whether what a message introduced is of use once it has arrived.
    pub(super) fn awaits(&self, message: u64) -> bool {
        self.pending.contains_key(&message)
    }

    /// Notes that a message arrived.
    pub(super) fn acknowledge(&mut self, message: u64) {
        for (kind, number) in self.pending.remove(&message).unwrap_or_default() {
            let shelf = self.shelves.get_mut(kind as usize);
            if let Some(slot) = shelf.and_then(|shelf| shelf.entries.get_mut(&number)) {
                (slot.is_shared, slot.by) = (true, None);
            }
        }
    }

    /// Whether a reference to a number would say something new.
    pub(super) fn awaits_proof(&self, kind: Kind, number: u64) -> bool {
        let slot = self.shelves.get(kind as usize).and_then(|shelf| shelf.entries.get(&number));
        slot.is_some_and(|slot| !slot.is_shared || slot.by.is_some())
    }

    /// Notes that the other end has referred to a number: it has it, and has read the message that it must have it from.
    pub(super) fn prove(&mut self, kind: Kind, number: u64) {
        let shelf = self.shelves.get_mut(kind as usize);
        let Some(slot) = shelf.and_then(|shelf| shelf.entries.get_mut(&number)) else { return };
        slot.is_shared = true;
        if let Some(message) = slot.by.take() {
            self.acknowledge(message);
        }
    }
}

impl Mirror {
    pub(super) fn number(&self, kind: Kind, text: &str) -> Option<u64> {
        self.shelves.get(kind as usize)?.numbers.get(text).copied()
    }

    pub(super) fn text(&self, kind: Kind, number: u64) -> Option<&str> {
        self.shelves.get(kind as usize)?.text(number)
    }

    /// All that is known.
    pub(super) fn all(&self) -> impl Iterator<Item = (Kind, u64, &str)> {
        Kind::ALL.into_iter().zip(&self.shelves).flat_map(|(kind, shelf)| shelf.all(kind))
    }

    /// Says whether a number can be learned for a string: it is not known to be another's.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), DecodeError> {
        match self.text(entry.kind, entry.number) {
            Some(text) if text != entry.text => {
                Err(DecodeError::Conflict { kind: entry.kind, number: entry.number })
            }
            _ => Ok(()),
        }
    }

    /// Learns what a message introduced.
    pub(super) fn commit(&mut self, entries: Vec<Entry>) {
        for Entry { kind, number, text } in entries {
            let Some(shelf) = self.shelves.get_mut(kind as usize) else { continue };
            shelf.put(number, text, true, None);
            let highest = shelf.entries.last_key_value().map_or(0, |(number, _)| *number);
            shelf.evict((highest + 1).saturating_sub(kind.window()), kind.bytes());
        }
    }
}

impl From<Vec<Stored>> for Shelf {
    fn from(entries: Vec<Stored>) -> Self {
        let mut shelf = Shelf::default();
        for (number, text, is_shared, by) in entries {
            shelf.put(number, text, is_shared, by);
        }
        shelf
    }
}

impl From<Shelf> for Vec<Stored> {
    fn from(shelf: Shelf) -> Self {
        let entries = shelf.entries.into_iter();
        entries.map(|(number, slot)| (number, slot.text, slot.is_shared, slot.by)).collect()
    }
}

impl Shelf {
    fn text(&self, number: u64) -> Option<&str> {
        self.entries.get(&number).map(|slot| slot.text.as_str())
    }

    fn all(&self, kind: Kind) -> impl Iterator<Item = (Kind, u64, &str)> {
        self.entries.iter().map(move |(number, slot)| (kind, *number, slot.text.as_str()))
    }

    /// Takes an entry; says whether its number is new.
    fn put(&mut self, number: u64, text: String, is_shared: bool, by: Option<u64>) -> bool {
        if self.entries.contains_key(&number) {
            return false;
        }
        self.bytes += text.len();
        self.numbers.insert(text.clone(), number);
        self.entries.insert(number, Slot { text, is_shared, by });
        true
    }

    /// Forgets what has a number below `first`, and the oldest while there are more than `bytes`.
    fn evict(&mut self, first: u64, bytes: usize) {
        while let Some(oldest) = self.entries.first_entry() {
            if *oldest.key() >= first && self.bytes <= bytes {
                return;
            }
            let (number, slot) = oldest.remove_entry();
            self.bytes -= slot.text.len();
            if self.numbers.get(&slot.text) == Some(&number) {
                self.numbers.remove(&slot.text);
            }
        }
    }

    /// The bytes of an entry and all later ones.
    fn bytes_after(&self, number: u64) -> usize {
        self.entries.range(number..).map(|(_, slot)| slot.text.len()).sum()
    }
}
