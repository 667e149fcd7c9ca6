//! Items → JSON text, in one pass.

mod resolve;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::codec::Text;
use crate::packed::aliases::Entry;
use crate::packed::aliases::Kind;
use crate::packed::clock::Clock;
use crate::packed::code;
use crate::packed::draft::Frame;
use crate::packed::draft::Known;
use crate::packed::error::DecodeError;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::stream::Source;
use crate::packed::tables;
use crate::packed::tables::Tables;
use crate::packed::tokens::Mark;
use crate::packed::typed;
use crate::packed::write::DEPTH;
use crate::packed::write::SHORTEST_REMEMBERED;
use crate::packed::write::unknown_name;

/// Reads the items of one message.
pub(super) struct Reader<'a> {
    pub(super) source: Source<'a>,
    pub(super) frame: Frame,
    pub(super) learned: Learned,
    pub(super) clock: Clock,
    /// Every context and byte that was read, where somebody wants them.
    pub(super) trace: Option<Vec<(u8, Context)>>,
    /// What a sample of a dictionary refers to is not known, and does not matter.
    pub(super) is_sample: bool,
    known: Known<'a>,
    context: Context,
    last_peer: u64,
    last_sent: Option<u64>,
    is_age: bool,
    /// The longest text that is put together.
    limit: usize,
}

/// What a message told: it becomes known when all of it was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Learned {
    pub(super) entries: Vec<Entry>,
    /// The numbers of the tokens that it gave.
    pub(super) tokens: Vec<u64>,
    /// The number of [`Kind::Recent`] that comes next.
    pub(super) next: u64,
    pub(super) has_base: bool,
    /// The numbers of this end's that it refers to, so that the other end has read what gave them.
    pub(super) proven: BTreeSet<(Kind, u64)>,
    /// The tokens of this end's, too, that it has with their marks.
    pub(super) marked: BTreeSet<u64>,
    /// How often it referred to something.
    pub(super) references: u64,
    local: BTreeMap<(Kind, u64), String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: Source<'a>, known: Known<'a>, frame: Frame, limit: usize) -> Self {
        Reader {
            source,
            frame,
            learned: Learned::default(),
            clock: Clock::new(frame.mark.map_or(0, |mark| mark.time)),
            trace: None,
            is_sample: false,
            known,
            context: Context::default(),
            last_peer: 0,
            last_sent: None,
            is_age: false,
            limit,
        }
    }

    /// The tables by which it is read.
    pub(super) fn tables(&self) -> &'a Tables {
        self.known.tables
    }

    pub(super) fn at(&mut self, role: Role, name: u16) {
        self.context = Context { role, name, ..self.context };
    }

    pub(super) fn code(&mut self) -> Result<u8, DecodeError> {
        self.traced(self.context)
    }

    pub(super) fn byte(&mut self, role: Role) -> Result<u8, DecodeError> {
        self.traced(Context { role, ..self.context })
    }

    fn traced(&mut self, context: Context) -> Result<u8, DecodeError> {
        let byte = self.source.byte(context)?;
        if let Some(trace) = &mut self.trace {
            trace.push((byte, context));
        }
        Ok(byte)
    }

    /// Reads the number that the message's first alias has, which may be told as a difference.
    pub(super) fn base(&mut self, context: Context, from: Option<u64>) -> Result<(), DecodeError> {
        let number = self.varint_at(context)?;
        self.learned.next = match from {
            Some(from) => from.wrapping_add_signed(code::unzigzag(number)),
            None => number,
        };
        self.learned.has_base = true;
        Ok(())
    }

    /// Goes on from a position that both ends know.
    pub(super) fn continue_from(&mut self, mark: Mark) {
        self.frame.mark = Some(mark);
        self.clock = Clock::new(mark.time);
    }

    pub(super) fn varint(&mut self, role: Role) -> Result<u64, DecodeError> {
        self.varint_at(Context { role, ..self.context })
    }

    pub(super) fn varint_at(&mut self, context: Context) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.traced(context)?;
            let group = u64::from(byte & 0x7f);
            if group << shift >> shift != group {
                return Err(DecodeError::Damaged);
            }
            number |= group << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Damaged)
    }

    /// Reads one value, whose first byte was read, and writes it as JSON.
    pub(super) fn value(&mut self, code: u8, out: &mut Text, depth: usize) -> Result<(), DecodeError> {
        let is_age = std::mem::take(&mut self.is_age);
        match code {
            code::NULL => Ok(out.append(b"null")?),
            code::FALSE => Ok(out.append(b"false")?),
            code::TRUE => Ok(out.append(b"true")?),
            code::NEGATIVE => {
                let code = self.code()?;
                let number = self.unsigned(code)?;
                Ok(out.display(format_args!("-{}", u128::from(number) + 1))?)
            }
            code::FLOAT => {
                let value = f64::from_bits(self.big_endian(8)?);
                if !value.is_finite() {
                    return Err(DecodeError::Damaged);
                }
                Ok(out.float(value)?)
            }
            code::TIME => {
                let difference = self.varint(Role::Time)?;
                let time = self.clock.time_of(code::unzigzag(difference));
                Ok(out.display(format_args!("{time}"))?)
            }
            code::AGE => {
                let difference = self.varint(Role::Time)?;
                let age = self.clock.age_of(code::unzigzag(difference));
                Ok(out.display(format_args!("{age}"))?)
            }
            code::EMPTY_ARRAY => Ok(out.append(b"[]")?),
            code::EMPTY_OBJECT => Ok(out.append(b"{}")?),
            code::ARRAY => self.array(out, depth),
            code::OBJECT => self.object(out, depth),
            0..=code::UINT_64 => {
                let number = self.unsigned(code)?;
                if is_age && number < 1 << 40 {
                    self.clock.tell_age(number as i64);
                }
                Ok(out.display(format_args!("{number}"))?)
            }
            _ => {
                let text = self.string(code)?;
                Ok(out.string(&text)?)
            }
        }
    }

    fn unsigned(&mut self, code: u8) -> Result<u64, DecodeError> {
        match code {
            0..=code::SMALL_END => Ok(code.into()),
            code::UINT_8 => self.big_endian(1),
            code::UINT_16 => self.big_endian(2),
            code::UINT_32 => self.big_endian(4),
            code::UINT_64 => self.big_endian(8),
            _ => Err(DecodeError::Code(code)),
        }
    }

    fn big_endian(&mut self, bytes: usize) -> Result<u64, DecodeError> {
        (0..bytes).try_fold(0, |number, _| Ok(number << 8 | u64::from(self.byte(Role::Number)?)))
    }

    fn array(&mut self, out: &mut Text, depth: usize) -> Result<(), DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::Depth { limit: DEPTH })?;
        let outer = self.context;
        out.push(b'[')?;
        loop {
            let code = self.code()?;
            if code == code::END {
                break;
            }
            self.value(code, out, depth)?;
            out.push(b',')?;
            self.context = Context { role: Role::Value, ..outer };
        }
        self.context = outer;
        Ok(out.close(b']')?)
    }

    fn object(&mut self, out: &mut Text, depth: usize) -> Result<(), DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::Depth { limit: DEPTH })?;
        let outer = self.context;
        let mut previous = u16::MAX;
        out.push(b'{')?;
        // The first name is read in the context of the object itself, as it was written when it might yet have been empty.
        loop {
            self.context = Context { role: Role::Name, name: previous, parent: outer.name };
            let code = self.code()?;
            if code == code::END {
                break;
            }
            let number = self.name(code, out)?;
            out.push(b':')?;
            self.context = Context { role: Role::Value, name: number, parent: outer.name };
            let code = self.code()?;
            self.value(code, out, depth)?;
            out.push(b',')?;
            previous = number;
        }
        self.context = outer;
        Ok(out.close(b'}')?)
    }

    /// Reads a member's name, and gives what the coders are told of it.
    fn name(&mut self, code: u8, out: &mut Text) -> Result<u16, DecodeError> {
        let number = match code {
            0..0x50 => usize::from(code),
            0x80.. => usize::from(code & 0x7f) + code::NAMES_LOW,
            code::NAME_HIGH..0x78 => {
                let row = usize::from(code - code::NAME_HIGH) << 8 | usize::from(self.byte(Role::Row)?);
                row + code::NAMES_SHORT
            }
            _ => {
                let text = self.string(code)?;
                out.string(&text)?;
                return Ok(unknown_name(code));
            }
        };
        let name = self.known.tables.name_of(number).ok_or(DecodeError::UnknownRow(number))?;
        self.is_age = name == tables::AGE;
        out.string(name)?;
        Ok(number as u16)
    }

    /// Reads a string whose first byte was read.
    pub(super) fn string(&mut self, code: u8) -> Result<String, DecodeError> {
        match code {
            code::VALUES.. => self.row(code),
            code::SECRET => {
                let length = self.varint(Role::Length)?;
                String::from_utf8(self.source.raw(length)?).map_err(|_| DecodeError::Utf8)
            }
            code::INTRODUCE => self.introduced(),
            code::RECENT_OWN => {
                let back = self.varint(Role::Alias)?;
                let number = self.learned.next.wrapping_sub(back);
                self.theirs(Kind::Recent, number)
            }
            code::RECENT_PEER => {
                let difference = code::unzigzag(self.varint(Role::Alias)?);
                self.last_peer = self.last_peer.wrapping_add_signed(difference);
                self.ours(Kind::Recent, self.last_peer)
            }
            code::HOT_OWN..code::TOKEN_NEW => {
                let number = self.varint(Role::Alias)?;
                let place = usize::from(code - code::HOT_OWN);
                match Kind::HOT.get(place % 4) {
                    Some(kind) if place < 4 => self.theirs(*kind, number),
                    Some(kind) => self.ours(*kind, number),
                    None => Err(DecodeError::Code(code)),
                }
            }
            code::TOKEN_NEW => self.new_token(),
            code::TOKEN | code::TOKEN_BARE => self.token(code),
            code::TRANSACTION_NEW => self.new_transaction(),
            code::TRANSACTION => {
                let number = self.varint(Role::Alias)?;
                Ok(self.transaction(number))
            }
            code::TRANSACTION_SAME => {
                let number = self.last_sent.ok_or(DecodeError::Code(code))?;
                Ok(self.transaction(number))
            }
            code::SENT_NEW => self.new_sent(),
            code::SENT => {
                let number = self.varint(Role::Alias)?;
                self.last_sent = Some(number);
                self.theirs(Kind::Sent, number).or_else(|_| self.ours(Kind::Sent, number))
            }
            _ => {
                let text = self.spelled(code)?;
                if text.len() >= SHORTEST_REMEMBERED && code != code::PAIR {
                    self.remember(&text)?;
                }
                Ok(text)
            }
        }
    }

    fn row(&mut self, code: u8) -> Result<String, DecodeError> {
        let number = match code {
            code::VALUE_HIGH.. => {
                let row = usize::from(code - code::VALUE_HIGH) << 8 | usize::from(self.byte(Role::Row)?);
                row + code::VALUES_SHORT
            }
            _ => usize::from(code - code::VALUES),
        };
        self.known.tables.value_of(number).map(str::to_owned).ok_or(DecodeError::UnknownRow(number))
    }

    /// Reads what is told by itself.
    fn spelled(&mut self, code: u8) -> Result<String, DecodeError> {
        match code {
            code::TEXT => self.characters(),
            code::LONG_TEXT => {
                let length = self.varint(Role::Length)?;
                let bytes = (0..length).map(|_| self.byte(Role::Text)).collect::<Result<Vec<u8>, _>>()?;
                String::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
            }
            code::EVENT..=code::BYTES_URL => {
                let length = match typed::length(code) {
                    Some(length) => length,
                    None => self.varint(Role::Length)?,
                };
                Ok(typed::spell(code, &self.source.raw(length)?))
            }
            code::USER => self.named('@'),
            code::ROOM => self.named('!'),
            code::ROOM_ALIAS => self.named('#'),
            code::MEDIA => {
                let server = self.server()?;
                let name = self.characters()?;
                Ok(format!("mxc://{server}/{name}"))
            }
            code::EMBEDDED => self.embedded(),
            code::PAIR => {
                let code = self.code()?;
                if code < code::VALUES {
                    return Err(DecodeError::Code(code));
                }
                let left = self.row(code)?;
                let code = self.code()?;
                if matches!(code, code::PAIR | code::EMBEDDED) {
                    return Err(DecodeError::Code(code)); // no nesting without end
                }
                let right = self.string(code)?;
                Ok(format!("{left}:{right}"))
            }
            _ => Err(DecodeError::Code(code)),
        }
    }

    fn embedded(&mut self) -> Result<String, DecodeError> {
        let mut text = self.characters()?;
        loop {
            match self.code()? {
                code::END => return Ok(text),
                code @ (code::PAIR | code::EMBEDDED) => return Err(DecodeError::Code(code)),
                code => text.push_str(&self.string(code)?),
            }
            text.push_str(&self.characters()?);
            if text.len() > self.limit {
                return Err(DecodeError::Output { limit: self.limit });
            }
        }
    }

    fn named(&mut self, sigil: char) -> Result<String, DecodeError> {
        let name = self.characters()?;
        let server = self.server()?;
        Ok(format!("{sigil}{name}:{server}"))
    }

    fn server(&mut self) -> Result<String, DecodeError> {
        match self.code()? {
            code if code == code::HOT_OWN + Kind::Server as u8
                || code == code::HOT_PEER + Kind::Server as u8 =>
            {
                self.string(code)
            }
            code::INTRODUCE => {
                let number = self.varint(Role::Alias)?;
                let code = self.code()?;
                let server = if code == code::TEXT {
                    self.characters()?
                } else {
                    return Err(DecodeError::Code(code));
                };
                self.learn(Kind::Server, number, &server)?;
                Ok(server)
            }
            code => Err(DecodeError::Code(code)),
        }
    }

    pub(in crate::packed) fn characters(&mut self) -> Result<String, DecodeError> {
        let mut bytes = Vec::new();
        loop {
            match self.byte(Role::Text)? {
                0 => return String::from_utf8(bytes).map_err(|_| DecodeError::Utf8),
                byte => bytes.push(byte),
            }
        }
    }

    fn introduced(&mut self) -> Result<String, DecodeError> {
        let number = self.varint(Role::Alias)?;
        let code = self.code()?;
        let kind = match code {
            code::USER => Kind::User,
            code::ROOM | code::ROOM_HASH => Kind::Room,
            code::TEXT => Kind::Device,
            _ => return Err(DecodeError::Code(code)),
        };
        let text = self.spelled(code)?;
        self.learn(kind, number, &text)?;
        Ok(text)
    }

    fn remember(&mut self, text: &str) -> Result<(), DecodeError> {
        if text.len() > Kind::Recent.longest() {
            return Ok(());
        }
        let number = self.take_number()?;
        self.learn(Kind::Recent, number, text)
    }
}
