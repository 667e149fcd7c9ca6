//! JSON text → items, in one pass. serde_json is the tokenizer.

mod visit;

use serde::de::DeserializeSeed;

use crate::packed::aliases::Kind;
use crate::packed::clock::Clock;
use crate::packed::code;
use crate::packed::draft::Draft;
use crate::packed::draft::Frame;
use crate::packed::draft::Home;
use crate::packed::draft::Known;
use crate::packed::draft::Reference;
use crate::packed::draft::Spelling;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::stream::Written;
use crate::packed::tables;
use crate::packed::tables::Place;
use crate::packed::tokens;
use crate::packed::typed;
use crate::packed::typed::Form;

/// Writes the items of one message.
#[derive(Clone)]
pub(super) struct Writer<'a> {
    pub(super) out: Written,
    pub(super) draft: Draft,
    pub(super) frame: Frame,
    /// The transactions that the message begins: number, and the client's id.
    pub(super) transaction: Option<(u64, String)>,
    pub(super) clock: Clock,
    pub(super) known: Known<'a>,
    spelling: Spelling,
    places: &'a [Place],
    /// The names that lead to the value, and what the coders are told of them.
    path: Vec<String>,
    context: Context,
    last_peer: u64,
    last_sent: Option<u64>,
    /// What is written next is the value of a member that says how old an event is.
    is_age: bool,
    /// The transaction whose event was not named yet.
    unanswered: Option<u64>,
    /// A token of another generation was to be written.
    pub(super) has_foreign_token: bool,
    depth_left: usize,
}

/// How much can be nested; one less than serde_json's own limit, and what the reader allows.
pub(super) const DEPTH: usize = 126;

/// What a string is where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// For a value.
    Value,
    /// For a member's name.
    Name,
}

impl<'a> Writer<'a> {
    pub(super) fn new(known: Known<'a>, frame: Frame, spelling: Spelling, places: &'a [Place]) -> Self {
        Writer {
            out: Written::default(),
            draft: Draft::new(known.own),
            frame,
            transaction: None,
            clock: Clock::new(frame.mark.map_or(0, |mark| mark.time)),
            known,
            spelling,
            places,
            path: Vec::new(),
            context: Context::default(),
            last_peer: 0,
            last_sent: None,
            is_age: false,
            unanswered: frame.transaction,
            has_foreign_token: false,
            depth_left: DEPTH,
        }
    }

    /// Writes a JSON text; `false`, and nothing, if it is none, or one that would not come back value for value.
    pub(super) fn json(&mut self, json: &[u8]) -> bool {
        let before = self.clone();
        let mut tokens = serde_json::Deserializer::from_slice(json);
        let read = visit::Item(self).deserialize(&mut tokens).and_then(|()| tokens.end());
        let is_exact = read.is_ok() && crate::codec::refuse_wide_integer(json).is_ok();
        if !is_exact {
            *self = before;
        }
        is_exact
    }

    /// Writes a byte that begins an item.
    pub(super) fn code(&mut self, code: u8) {
        self.out.push(code, self.context);
    }

    pub(super) fn varint(&mut self, number: u64, role: Role) {
        self.out.varint(number, Context { role, ..self.context });
    }

    pub(super) fn byte(&mut self, byte: u8, role: Role) {
        self.out.push(byte, Context { role, ..self.context });
    }

    /// Sets what the coders are told of what is written next.
    pub(super) fn at(&mut self, role: Role, name: u16) {
        self.context = Context { role, name, ..self.context };
    }

    pub(super) fn unsigned(&mut self, number: u64) {
        if (1_000_000_000_000..10_000_000_000_000).contains(&number) {
            let difference = self.clock.time(number as i64);
            self.code(code::TIME);
            return self.varint(code::zigzag(difference), Role::Time);
        }
        if self.is_age && number < 1 << 40 {
            let difference = self.clock.age(number as i64);
            if let Some(difference) = difference {
                self.code(code::AGE);
                return self.varint(code::zigzag(difference), Role::Time);
            }
        }
        self.plain_unsigned(number);
    }

    fn plain_unsigned(&mut self, number: u64) {
        let [_, _, _, _, b3, b2, b1, b0] = number.to_be_bytes();
        let (code, bytes) = match number {
            0..0x20 => return self.code(b0),
            0x20..0x100 => (code::UINT_8, &[b0][..]),
            0x100..0x1_0000 => (code::UINT_16, &[b1, b0][..]),
            0x1_0000..0x1_0000_0000 => (code::UINT_32, &[b3, b2, b1, b0][..]),
            _ => (code::UINT_64, &number.to_be_bytes()[..]),
        };
        self.code(code);
        for byte in bytes {
            self.byte(*byte, Role::Number);
        }
    }

    /// Writes a string that is a value.
    pub(super) fn string(&mut self, text: &str) {
        if self.token(text) || self.transaction(text) || self.sent(text) {
            return;
        }
        if self.path.last().is_some_and(|name| self.known.tables.is_secret(name)) {
            self.code(code::SECRET);
            self.varint(text.len() as u64, Role::Length);
            return self.out.raw(text.as_bytes());
        }
        match self.known.tables.value(text) {
            Some(number) if number < code::VALUES_SHORT => self.code(code::VALUES + number as u8),
            Some(number) => {
                let row = number - code::VALUES_SHORT;
                self.code(code::VALUE_HIGH + (row >> 8) as u8);
                self.byte(row as u8, Role::Row);
            }
            None => self.spell(text, Stands::Value),
        }
    }

    /// Writes a member's name.
    fn name(&mut self, name: &str) -> u16 {
        match self.known.tables.name(name) {
            Some(number) if number < code::NAMES_LOW => self.code(number as u8),
            Some(number) if number < code::NAMES_SHORT => self.code((number - code::NAMES_LOW) as u8 | 0x80),
            Some(number) => {
                let row = number - code::NAMES_SHORT;
                self.code(code::NAME_HIGH + (row >> 8) as u8);
                self.byte(row as u8, Role::Row);
            }
            None => {
                let at = self.out.bytes.len();
                self.spell(name, Stands::Name);
                return unknown_name(self.out.bytes.get(at).copied().unwrap_or_default());
            }
        }
        self.known.tables.name(name).unwrap_or_default() as u16
    }

    /// Writes the query of a request, tokens taken out.
    pub(super) fn query(&mut self, template: &str) {
        if template.len() > Kind::Query.longest() || template.contains('\0') {
            return self.string(template);
        }
        if let Some(Reference::Own(number)) =
            self.draft.reference(&self.known, self.spelling, Kind::Query, template)
        {
            self.draft.references += 1;
            self.code(code::QUERY);
            return self.varint(number, Role::Alias);
        }
        let number = self.draft.introduce(&self.known, Kind::Query, template);
        self.code(code::INTRODUCE);
        self.varint(number, Role::Alias);
        self.code(code::TEXT);
        self.characters(template);
    }

    /// A token of the homeserver, where such stand.
    fn token(&mut self, text: &str) -> bool {
        if !self.places.iter().any(|place| is_at(place, &self.path)) {
            return false;
        }
        match self.known.home {
            Home::Gateway(kept) => self.give_token(kept.shared(text), kept.next(), text),
            Home::Proxy(..) => match tokens::parse_client_token(text) {
                Some((generation, number)) => self.take_token(generation, number),
                None => return false,
            },
        }
        true
    }

    fn give_token(&mut self, known: Option<u64>, next: u64, text: &str) {
        let base = self.frame.mark.map_or(0, |mark| mark.token);
        let local = self.draft.tokens.iter().position(|given| given == text).map(|place| next + place as u64);
        if let Some(number) = local.or(known) {
            self.code(code::TOKEN);
            return self.varint(code::zigzag(number.wrapping_sub(base) as i64), Role::Alias);
        }
        self.code(code::TOKEN_NEW);
        if self.draft.tokens.is_empty() {
            self.varint(code::zigzag(next.wrapping_sub(base) as i64), Role::Base);
        }
        self.draft.tokens.push(text.to_owned());
    }

    /// Writes a token that the client sends back.
    pub(super) fn take_token(&mut self, generation: u32, number: u64) {
        let Home::Proxy(marks, _) = self.known.home else { return };
        self.has_foreign_token |= generation != self.known.agreement.tokens;
        let mark = marks.mark(number);
        self.code(if mark.is_some() { code::TOKEN } else { code::TOKEN_BARE });
        self.varint(number, Role::Alias);
        self.frame.mark = self.frame.mark.or(mark);
    }

    /// A transaction id that comes back.
    fn transaction(&mut self, text: &str) -> bool {
        let Home::Gateway(_) = self.known.home else { return false };
        if !tables::is_transaction(&self.path) {
            return false;
        }
        let Some(number) = tokens::parse_transaction(self.known.agreement.transactions, text) else {
            return false;
        };
        if self.last_sent == Some(number) {
            self.code(code::TRANSACTION_SAME);
            return true;
        }
        self.code(code::TRANSACTION);
        self.varint(number, Role::Alias);
        true
    }

    /// Writes the transaction id of a request.
    pub(super) fn begin_transaction(&mut self, scope: &str, text: &str) {
        let Home::Proxy(_, transactions) = self.known.home else { return self.string(text) };
        match transactions.number(scope, text) {
            Some(number) => {
                self.code(code::TRANSACTION);
                self.varint(number, Role::Alias);
                self.frame.transaction = Some(number);
            }
            None => {
                self.code(code::TRANSACTION_NEW);
                let number = self.draft.take_number();
                self.frame.transaction = Some(number);
                self.transaction = Some((number, text.to_owned()));
            }
        }
    }

    /// The event that came of a transaction.
    fn sent(&mut self, text: &str) -> bool {
        if let Some(reference) = self.draft.reference(&self.known, self.spelling, Kind::Sent, text) {
            let (Reference::Own(number) | Reference::Peer(number)) = reference;
            self.draft.references += 1;
            self.code(code::SENT);
            self.varint(number, Role::Alias);
            self.last_sent = Some(number);
            return true;
        }
        let is_gateway = matches!(self.known.home, Home::Gateway(_));
        let Some(number) = self.unanswered.filter(|_| is_gateway) else { return false };
        if self.known.own.text(Kind::Sent, number).is_some_and(|known| known != text) {
            return false;
        }
        let Form::Bytes(code::EVENT, bytes) = typed::form(text) else { return false };
        if self.path.len() != 1 || self.path.last().is_none_or(|name| name != tables::EVENT_ID) {
            return false;
        }
        self.code(code::SENT_NEW);
        self.out.raw(&bytes);
        self.draft.note(Kind::Sent, number, text);
        self.unanswered = None;
        true
    }

    /// Writes a string that is not of the tables.
    fn spell(&mut self, text: &str, stands: Stands) {
        let form = typed::form(text);
        let (form, kind) = match typed::kind(&form) {
            kind if text.len() > kind.longest() && kind != Kind::Recent => (Form::Text, Kind::Recent),
            kind => (form, kind),
        };
        if stands == Stands::Name && self.sent(text) {
            return;
        }
        if self.refer(kind, text) {
            return;
        }
        if kind == Kind::Recent {
            // A server is known by having been part of something else.
            if self.refer(Kind::Server, text) {
                return;
            }
            self.spell_form(text, &form);
            if text.len() >= SHORTEST_REMEMBERED && !matches!(form, Form::Text if self.is_pair(text)) {
                self.draft.remember(text);
            }
            return;
        }
        let number = self.draft.introduce(&self.known, kind, text);
        self.code(code::INTRODUCE);
        self.varint(number, Role::Alias);
        self.spell_form(text, &form);
    }

    fn spell_form(&mut self, text: &str, form: &Form<'_>) {
        match form {
            Form::Bytes(code, bytes) => {
                self.code(*code);
                if typed::length(*code).is_none() {
                    self.varint(bytes.len() as u64, Role::Length);
                }
                self.out.raw(bytes);
            }
            Form::Named(code, name, server) => {
                self.code(*code);
                self.characters(name);
                self.server(server);
            }
            Form::Media(server, name) => {
                self.code(code::MEDIA);
                self.server(server);
                self.characters(name);
            }
            Form::Text | Form::Device if self.is_pair(text) => {
                let (left, right) = text.split_once(':').unwrap_or_default();
                self.code(code::PAIR);
                self.string_part(left);
                self.spell(right, Stands::Value);
            }
            Form::Text | Form::Device if !self.embedded(text).is_empty() => self.spell_embedded(text),
            Form::Text | Form::Device if text.contains('\0') => {
                self.code(code::LONG_TEXT);
                self.varint(text.len() as u64, Role::Length);
                for byte in text.bytes() {
                    self.byte(byte, Role::Text);
                }
            }
            Form::Text | Form::Device => {
                self.code(code::TEXT);
                self.characters(text);
            }
        }
    }

    /// Where in a text there are identifiers that take fewer bytes than their characters.
    fn embedded(&self, text: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(start) =
            text.get(at..).and_then(|rest| rest.find(['@', '!', '$', '#'])).map(|place| at + place)
        {
            let rest = text.get(start + 1..).unwrap_or_default();
            let length = rest.find(|part: char| !part.is_ascii_alphanumeric() && !"._=+-:".contains(part));
            let identifier = text.get(start..start + 1 + length.unwrap_or(rest.len())).unwrap_or_default();
            let identifier = identifier.trim_end_matches(['.', ':', '-']);
            at = start + 1;
            if self.is_short(identifier) {
                at = start + identifier.len();
                found.push((start, at));
            }
        }
        if found == [(0, text.len())] || text.contains('\0') { Vec::new() } else { found }
    }

    fn is_short(&self, identifier: &str) -> bool {
        let form = typed::form(identifier);
        let is_known = |kind| self.draft.reference(&self.known, self.spelling, kind, identifier).is_some();
        match form {
            Form::Bytes(code::EVENT | code::ROOM_HASH, _) => true,
            Form::Named(..) => is_known(typed::kind(&form)),
            _ => false,
        }
    }

    fn spell_embedded(&mut self, text: &str) {
        self.code(code::EMBEDDED);
        let mut told = 0;
        for (start, end) in self.embedded(text) {
            self.characters(text.get(told..start).unwrap_or_default());
            self.spell(text.get(start..end).unwrap_or_default(), Stands::Value);
            told = end;
        }
        self.characters(text.get(told..).unwrap_or_default());
        self.code(code::END);
    }

    fn is_pair(&self, text: &str) -> bool {
        let parts = text.split_once(':');
        parts.is_some_and(|(left, right)| {
            self.known.tables.value(left).is_some() && matches!(typed::form(right), Form::Device)
        })
    }

    /// A string of the tables.
    fn string_part(&mut self, text: &str) {
        let Some(number) = self.known.tables.value(text) else { return };
        match number.checked_sub(code::VALUES_SHORT) {
            None => self.code(code::VALUES + number as u8),
            Some(row) => {
                self.code(code::VALUE_HIGH + (row >> 8) as u8);
                self.byte(row as u8, Role::Row);
            }
        }
    }

    fn server(&mut self, server: &str) {
        if self.refer(Kind::Server, server) {
            return;
        }
        let number = self.draft.introduce(&self.known, Kind::Server, server);
        self.code(code::INTRODUCE);
        self.varint(number, Role::Alias);
        self.code(code::TEXT);
        self.characters(server);
    }

    fn characters(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(byte, Role::Text);
        }
        self.byte(0, Role::Text);
    }

    /// Writes a reference, if the string was told.
    fn refer(&mut self, kind: Kind, text: &str) -> bool {
        let Some(reference) = self.draft.reference(&self.known, self.spelling, kind, text) else {
            return false;
        };
        self.draft.references += 1;
        match (kind, reference) {
            (Kind::Recent, Reference::Own(number)) => {
                self.draft.uses_base();
                self.code(code::RECENT_OWN);
                self.varint(self.draft.next - number, Role::Alias);
            }
            (Kind::Recent, Reference::Peer(number)) => {
                self.code(code::RECENT_PEER);
                self.varint(code::zigzag(number.wrapping_sub(self.last_peer) as i64), Role::Alias);
                self.last_peer = number;
            }
            (_, Reference::Own(number)) => {
                self.code(code::HOT_OWN + kind as u8);
                self.varint(number, Role::Alias);
            }
            (_, Reference::Peer(number)) => {
                self.code(code::HOT_PEER + kind as u8);
                self.varint(number, Role::Alias);
            }
        }
        true
    }
}

/// Shorter strings are not remembered.
pub(super) const SHORTEST_REMEMBERED: usize = 5;

/// What the coders are told of a member whose name is not of the tables, by the code that its name has.
pub(super) fn unknown_name(code: u8) -> u16 {
    0x8000 | u16::from(code)
}

fn is_at(place: &Place, path: &[String]) -> bool {
    place.len() == path.len() && place.iter().zip(path).all(|(own, name)| own == "*" || own == name)
}
