//! What references stand for, and what a message adds to what is known.

use crate::packed::aliases::Entry;
use crate::packed::aliases::Kind;
use crate::packed::code;
use crate::packed::draft::Home;
use crate::packed::error::DecodeError;
use crate::packed::read::Reader;
use crate::packed::stream::Role;
use crate::packed::tokens;
use crate::packed::typed;

impl Reader<'_> {
    /// Reads a query, tokens taken out, whose first byte was read.
    pub(in crate::packed) fn query(&mut self, code: u8) -> Result<String, DecodeError> {
        match code {
            code::QUERY => {
                let number = self.varint(Role::Alias)?;
                self.theirs(Kind::Query, number)
            }
            code::INTRODUCE => {
                let number = self.varint(Role::Alias)?;
                match self.code()? {
                    code::TEXT => {}
                    code => return Err(DecodeError::Code(code)),
                }
                let template = self.characters()?;
                self.learn(Kind::Query, number, &template)?;
                Ok(template)
            }
            code => self.string(code),
        }
    }

    /// Reads the tokens that follow the query of a sample, of which nobody knows how many it had.
    pub(in crate::packed) fn skip_tokens(&mut self) -> Result<(), DecodeError> {
        while matches!(self.source.peek(), Some(code::TOKEN | code::TOKEN_BARE)) {
            let code = self.code()?;
            self.token(code)?;
        }
        Ok(())
    }

    pub(super) fn take_number(&mut self) -> Result<u64, DecodeError> {
        if !self.learned.has_base && !self.is_sample {
            return Err(DecodeError::Damaged);
        }
        let number = self.learned.next;
        self.learned.next = number.checked_add(1).ok_or(DecodeError::Damaged)?;
        Ok(number)
    }

    pub(super) fn learn(&mut self, kind: Kind, number: u64, text: &str) -> Result<(), DecodeError> {
        if self.is_sample || text.len() > kind.longest() {
            return Ok(());
        }
        if number >= 1 << 62 {
            return Err(DecodeError::Damaged);
        }
        let entry = Entry { kind, number, text: text.to_owned() };
        self.known.peer.check(&entry)?;
        if self.learned.local.get(&(kind, number)).is_some_and(|known| known != text) {
            return Err(DecodeError::Conflict { kind, number });
        }
        self.learned.local.insert((kind, number), text.to_owned());
        self.learned.entries.push(entry);
        Ok(())
    }

    pub(super) fn theirs(&mut self, kind: Kind, number: u64) -> Result<String, DecodeError> {
        self.learned.references += 1;
        let local = self.learned.local.get(&(kind, number)).map(String::as_str);
        self.found(local.or_else(|| self.known.peer.text(kind, number)), kind, number)
    }

    pub(super) fn ours(&mut self, kind: Kind, number: u64) -> Result<String, DecodeError> {
        self.learned.references += 1;
        let text = self.known.own.text(kind, number);
        if text.is_some() {
            self.learned.proven.insert((kind, number));
        }
        self.found(text, kind, number)
    }

    fn found(&self, text: Option<&str>, kind: Kind, number: u64) -> Result<String, DecodeError> {
        match text {
            Some(text) => Ok(text.to_owned()),
            None if self.is_sample => Ok(String::new()),
            None => Err(DecodeError::UnknownAlias { kind, number }),
        }
    }

    pub(super) fn new_token(&mut self) -> Result<String, DecodeError> {
        let Home::Proxy(..) = self.known.home else { return Err(DecodeError::Direction) };
        let number = match self.learned.tokens.last() {
            Some(last) => last.checked_add(1).ok_or(DecodeError::Damaged)?,
            None => {
                let base = self.frame.mark.map_or(0, |mark| mark.token);
                base.wrapping_add_signed(code::unzigzag(self.varint(Role::Base)?))
            }
        };
        self.learned.tokens.push(number);
        Ok(tokens::client_token(self.known.agreement.tokens, number))
    }

    pub(super) fn token(&mut self, code: u8) -> Result<String, DecodeError> {
        let number = self.varint(Role::Alias)?;
        match self.known.home {
            _ if self.is_sample => Ok(String::new()),
            Home::Gateway(kept) => {
                if code == code::TOKEN {
                    self.frame.mark = self.frame.mark.or(kept.mark(number));
                    self.learned.marked.insert(number);
                }
                Ok(kept.token(number)?.to_owned())
            }
            Home::Proxy(..) => {
                let base = self.frame.mark.map_or(0, |mark| mark.token);
                let number = base.wrapping_add_signed(code::unzigzag(number));
                Ok(tokens::client_token(self.known.agreement.tokens, number))
            }
        }
    }

    pub(super) fn new_transaction(&mut self) -> Result<String, DecodeError> {
        if self.is_sample {
            return Ok(String::new());
        }
        let Home::Gateway(_) = self.known.home else { return Err(DecodeError::Direction) };
        let number = self.take_number()?;
        Ok(self.transaction(number))
    }

    /// Upstream the id that is made from the number; to the client its own, if it is still known.
    pub(super) fn transaction(&mut self, number: u64) -> String {
        match self.known.home {
            Home::Gateway(_) => {
                self.frame.transaction = Some(number);
                tokens::upstream_transaction(self.known.agreement.transactions, number)
            }
            Home::Proxy(_, transactions) => {
                let own = transactions.text(number).map(str::to_owned);
                own.unwrap_or_else(|| tokens::upstream_transaction(self.known.agreement.transactions, number))
            }
        }
    }

    pub(super) fn new_sent(&mut self) -> Result<String, DecodeError> {
        let text = typed::spell(code::EVENT, &self.source.raw(32)?);
        if !self.is_sample {
            let number = self.frame.transaction.ok_or(DecodeError::Direction)?;
            self.learn(Kind::Sent, number, &text)?;
        }
        Ok(text)
    }
}
