//! What only the homeserver reads stays with the gateway: positions, cursors, access tokens. And what only the client chose stays with
//! the proxy: transaction ids.
//!
//! A token crosses the link as a number. The client holds a token of ours in its place, made from that number, so it may keep it for as
//! long as it likes; which the homeserver's was, the gateway knows. The upstream transaction id is made from the association and a number.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use serde::Deserialize;
use serde::Serialize;

use crate::packed::error::DecodeError;

/// How many tokens, and how many bytes of them, the gateway keeps for an association.
const MOST_TOKENS: usize = 4096;
const MOST_BYTES: usize = 512 << 10;

/// How many access tokens that are in use it keeps whatever comes after them.
const MOST_HELD: usize = 64;

/// How many marks and transactions the proxy keeps.
const MOST_MARKS: usize = 1024;
const MOST_TRANSACTIONS: usize = 1024;

/// What both ends know of a message that gave a token: what the next one is told as a difference from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The token's number.
    pub(super) token: u64,
    /// The last time in the message.
    pub(super) time: i64,
    /// The number of the alias that would have come next.
    pub(super) next: u64,
}

/// The homeserver's tokens, at the gateway.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "StoredTokens", into = "StoredTokens")]
pub(super) struct Tokens {
    next: u64,
    entries: BTreeMap<u64, (String, Mark)>,
    numbers: BTreeMap<String, u64>,
    bytes: usize,
    /// Those that the proxy is not known to have, with the messages that gave them.
    awaited: BTreeMap<u64, u64>,
    /// The access tokens in use, the one that came into use last at the front.
    held: VecDeque<u64>,
}

/// What the rest follows from.
#[derive(Serialize, Deserialize)]
struct StoredTokens {
    next: u64,
    /// Each with the last time in its message and the number of the alias that would have come next.
    entries: Vec<(u64, String, i64, u64)>,
    awaited: Vec<(u64, u64)>,
    held: VecDeque<u64>,
}

impl Tokens {
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn number(&self, token: &str) -> Option<u64> {
        self.numbers.get(token).copied()
    }

    pub(super) fn token(&self, number: u64) -> Result<&str, DecodeError> {
        let found = self.entries.get(&number).map(|(token, _)| token.as_str());
        found.ok_or(DecodeError::UnknownToken(number))
    }

    /// Whether a token is known, and not among the access tokens in use.
    pub(super) fn is_idle(&self, number: u64) -> bool {
        self.entries.contains_key(&number) && !self.held.contains(&number)
    }

    /// Notes that an access token is in use: it is kept, whatever comes after it.
    pub(super) fn hold(&mut self, number: u64) {
        self.held.truncate(MOST_HELD - 1);
        self.held.push_front(number);
    }

    /// What both ends know since the token was given.
    pub(super) fn mark(&self, number: u64) -> Option<Mark> {
        self.entries.get(&number).map(|(_, mark)| *mark)
    }

    /// The number of a token that the proxy is known to have, with its mark.
    pub(super) fn shared(&self, token: &str) -> Option<u64> {
        self.number(token).filter(|number| !self.awaited.contains_key(number))
    }

    /// The message that gave a token, if the proxy was not known to have it.
    pub(super) fn given_by(&self, number: u64) -> Option<u64> {
        self.awaited.get(&number).copied()
    }

    /// Whether it is to be noted that a message arrived.
    pub(super) fn awaits(&self, message: u64) -> bool {
        self.awaited.values().any(|giving| *giving == message)
    }

    /// Notes that a message arrived.
    pub(super) fn acknowledge(&mut self, message: u64) {
        self.awaited.retain(|_, giving| *giving != message);
    }

    /// Notes that the proxy has forgotten all marks: what is given from now on has numbers of its own.
    pub(super) fn forget_marks(&mut self) {
        self.awaited = self.entries.keys().map(|number| (*number, u64::MAX)).collect();
    }

    /// Notes the tokens that a message gave, in order.
    pub(super) fn commit(&mut self, message: u64, tokens: Vec<String>, mark: Mark) {
        for token in tokens {
            let number = self.next;
            self.awaited.insert(number, message);
            self.next += 1;
            self.bytes += token.len();
            self.numbers.insert(token.clone(), number);
            self.entries.insert(number, (token, Mark { token: number, ..mark }));
        }
        while self.entries.len() > MOST_TOKENS || self.bytes > MOST_BYTES {
            let oldest = self.entries.keys().find(|number| !self.held.contains(number)).copied();
            let oldest = oldest.and_then(|number| self.entries.remove_entry(&number));
            let Some((number, (token, _))) = oldest else { return };
            self.bytes -= token.len();
            self.awaited.remove(&number);
            if self.numbers.get(&token) == Some(&number) {
                self.numbers.remove(&token);
            }
        }
    }
}

impl From<StoredTokens> for Tokens {
    fn from(StoredTokens { next, entries, awaited, held }: StoredTokens) -> Self {
        let mut tokens = Tokens { next, awaited: awaited.into_iter().collect(), held, ..Tokens::default() };
        for (number, token, time, next) in entries {
            tokens.bytes += token.len();
            tokens.numbers.insert(token.clone(), number);
            tokens.entries.insert(number, (token, Mark { token: number, time, next }));
        }
        tokens
    }
}

impl From<Tokens> for StoredTokens {
    fn from(tokens: Tokens) -> Self {
        let entries = tokens.entries.into_iter();
        let entries = entries.map(|(number, (token, mark))| (number, token, mark.time, mark.next));
        StoredTokens {
            next: tokens.next,
            entries: entries.collect(),
            awaited: tokens.awaited.into_iter().collect(),
            held: tokens.held,
        }
    }
}

/// What the proxy remembers of tokens: marks, for as long as they are of use.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Marks {
    marks: BTreeMap<u64, Mark>,
}

impl Marks {
    pub(super) fn mark(&self, token: u64) -> Option<Mark> {
        self.marks.get(&token).copied()
    }

    pub(super) fn commit(&mut self, tokens: impl Iterator<Item = u64>, mark: Mark) {
        for token in tokens {
            self.marks.insert(token, Mark { token, ..mark });
        }
        while self.marks.len() > MOST_MARKS {
            self.marks.pop_first();
        }
    }
}

/// The client's transaction ids, at the proxy.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Transactions {
    numbers: BTreeMap<String, u64>,
    texts: BTreeMap<u64, String>,
}

impl Transactions {
    /// The number of a transaction that was sent before. `scope` keeps apart equal ids of different requests.
    pub(super) fn number(&self, scope: &str, text: &str) -> Option<u64> {
        self.numbers.get(&scoped(scope, text)).copied()
    }

    pub(super) fn text(&self, number: u64) -> Option<&str> {
        self.texts.get(&number)?.split_once('\n').map(|(text, _)| text)
    }

    pub(super) fn commit(&mut self, number: u64, scope: &str, text: &str) {
        self.numbers.insert(scoped(scope, text), number);
        self.texts.insert(number, scoped(scope, text));
        while self.texts.len() > MOST_TRANSACTIONS {
            let Some((_, text)) = self.texts.pop_first() else { return };
            self.numbers.remove(&text);
        }
    }
}

fn scoped(scope: &str, text: &str) -> String {
    format!("{text}\n{scope}")
}

/// The token that the client is given for a number.
pub(super) fn client_token(generation: u32, number: u64) -> String {
    format!("lb{generation:08x}_{number}")
}

/// The number of a token that the client was given; whose generation it is, is told too.
pub(super) fn parse_client_token(token: &str) -> Option<(u32, u64)> {
    let (generation, number) = parse(token)?;
    (client_token(generation, number) == token).then_some((generation, number))
}

/// The transaction id that the homeserver is given for a number.
pub(super) fn upstream_transaction(generation: u32, number: u64) -> String {
    format!("lb{generation:08x}.{number}")
}

/// The number of a transaction id that the homeserver was given by this association.
pub(super) fn parse_transaction(generation: u32, id: &str) -> Option<u64> {
    let number = id.split_once('.')?.1.parse().ok()?;
    (upstream_transaction(generation, number) == id).then_some(number)
}

fn parse(token: &str) -> Option<(u32, u64)> {
    let (generation, number) = token.strip_prefix("lb")?.split_once('_')?;
    Some((u32::from_str_radix(generation, 16).ok()?, number.parse().ok()?))
}
