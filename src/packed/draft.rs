//! What a message that is being written takes from the tables and will add to them, if it is sent.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::packed::aliases::Entry;
use crate::packed::aliases::KINDS;
use crate::packed::aliases::Kind;
use crate::packed::aliases::Mirror;
use crate::packed::aliases::Own;
use crate::packed::tables::Tables;
use crate::packed::tokens::Mark;
use crate::packed::tokens::Marks;
use crate::packed::tokens::Tokens;
use crate::packed::tokens::Transactions;

/// Whether what the other end knows is made use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spelling {
    /// What is known is referred to.
    #[default]
    Short,
    /// Everything is spelled out, as for an end that did not understand the short form.
    Full,
}

/// What both ends agreed on when the association began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Agreement {
    /// Numbers of aliases hold within it. Its last three bits are in each message.
    pub epoch: u32,
    /// The gateway's: tells its tokens from those that it gave before it lost them.
    pub tokens: u32,
    /// The proxy's: tells its transactions from those that it numbered before it lost count.
    pub transactions: u32,
}

/// What an end knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) own: &'a Own,
    pub(super) peer: &'a Mirror,
    pub(super) home: Home<'a>,
    pub(super) agreement: Agreement,
    pub(super) tables: &'a Tables,
}

/// What stays at an end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Home<'a> {
    /// At the gateway, the homeserver's tokens.
    Gateway(&'a Tokens),
    /// At the proxy, the client's transactions.
    Proxy(&'a Marks, &'a Transactions),
}

/// What both ends know of a message before it is written, since it answers another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Frame {
    /// Of the token that the request had.
    pub(super) mark: Option<Mark>,
    /// The transaction that it answers.
    pub(super) transaction: Option<u64>,
}

/// The changes that go with a message.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    /// What it introduces.
    pub(super) entries: Vec<Entry>,
    /// The tokens that it gives, in order.
    pub(super) tokens: Vec<String>,
    /// The next number of [`Kind::Recent`]; and the first, if the message uses numbers of that kind.
    pub(super) next: u64,
    pub(super) base: Option<u64>,
    /// How often it refers to something.
    pub(super) references: u64,
    local: BTreeMap<(Kind, String), u64>,
    introduced: [u64; KINDS],
}

/// How a string that was told before is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    /// By the number that this end gave.
    Own(u64),
    /// By the number that the other end gave.
    Peer(u64),
}

impl Draft {
    pub(super) fn new(own: &Own) -> Self {
        Draft { next: own.next(Kind::Recent), introduced: own.all_next(), ..Draft::default() }
    }

    /// The reference to a string, if there can be one.
    pub(super) fn reference(
        &self,
        known: &Known<'_>,
        spelling: Spelling,
        kind: Kind,
        text: &str,
    ) -> Option<Reference> {
        if let Some(number) = self.local.get(&(kind, text.to_owned())) {
            return Some(Reference::Own(*number));
        }
        if spelling == Spelling::Full {
            return None;
        }
        let peer = || known.peer.number(kind, text).map(Reference::Peer);
        known.own.shared(kind, text).map(Reference::Own).or_else(peer)
    }

    /// The number that introduces a string, for kinds that say it.
    pub(super) fn introduce(&mut self, known: &Known<'_>, kind: Kind, text: &str) -> u64 {
        let number = known.own.given(kind, text).unwrap_or_else(|| {
            let next = self.introduced.get_mut(kind as usize).expect("each kind has a place");
            *next += 1;
            *next - 1
        });
        self.note(kind, number, text);
        number
    }

    /// Gives a string that was spelled out the next number.
    pub(super) fn remember(&mut self, text: &str) {
        if text.len() <= Kind::Recent.longest() {
            let number = self.take_number();
            self.note(Kind::Recent, number, text);
        }
    }

    /// Takes a number of [`Kind::Recent`].
    pub(super) fn take_number(&mut self) -> u64 {
        self.uses_base();
        self.next += 1;
        self.next - 1
    }

    /// Notes that the message must say where its numbers begin.
    pub(super) fn uses_base(&mut self) {
        self.base.get_or_insert(self.next);
    }

    /// Notes that a number stands for a string from here on.
    pub(super) fn note(&mut self, kind: Kind, number: u64, text: &str) {
        self.local.insert((kind, text.to_owned()), number);
        self.entries.push(Entry { kind, number, text: text.to_owned() });
    }
}
