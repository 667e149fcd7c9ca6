//! Which rows messages use, and what they would take without them.

use std::collections::BTreeMap;

use crate::packed::code;
use crate::packed::dictionary::Dictionary;
use crate::packed::dictionary::File;
use crate::packed::error::DecodeError;
use crate::packed::samples;
use crate::packed::samples::Direction;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::tables;
use crate::packed::tables::Tables;
use crate::packed::train::Items;
use crate::packed::write::SHORTEST_REMEMBERED;

/// How often each row was used, by association.
#[derive(Debug, Default)]
pub struct Uses {
    rows: BTreeMap<(File, usize), BTreeMap<u32, usize>>,
}

/// A row of a table, and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub file: File,
    /// Its number.
    pub number: usize,
    /// What stands there; for a route its method and path.
    pub text: String,
    /// How often it was used.
    pub uses: usize,
    /// How many bytes of items there would be more without it. Who uses a string first in an association would spell it out, and refer to it
    /// from then on, where it is long enough for that; the segments of a route's path likewise.
    pub saved: usize,
}

/// A reference to a string takes as many bytes: a code, and a number that seldom takes one alone.
const REFERENCE: usize = 3;

impl Uses {
    /// Nothing was used yet.
    pub fn new() -> Self {
        Uses::default()
    }

    /// Notes what a message of an association uses.
    pub(super) fn add(
        &mut self,
        association: u32,
        message: &Items<'_>,
        tables: &Tables,
    ) -> Result<(), DecodeError> {
        let Items { direction, flags, route, bytes } = *message;
        if bytes.is_empty() {
            return Ok(()); // nothing was said
        }
        let trace = samples::contexts(bytes, (direction as u8, flags, route), tables)?;
        if direction == Direction::Request {
            let group = |(shift, (byte, _)): (usize, &(u8, Context))| usize::from(byte & 0x7f) << (7 * shift);
            let route = trace.iter().filter(|(_, context)| context.role == Role::Route);
            self.note(association, File::Routes, route.take(2).enumerate().map(group).sum());
        }
        let after = trace.iter().skip(1).map(|(byte, _)| usize::from(*byte)).chain([0]);
        let mut before = 0;
        for ((byte, context), after) in trace.iter().zip(after) {
            let (byte, short) = (*byte, usize::from(*byte));
            match (context.role, byte) {
                // The left part of a pair is a string wherever the pair stands.
                (Role::Name, code::VALUES..) if before != code::PAIR => {
                    self.note(association, File::Keys, short - 0x80 + code::NAMES_LOW);
                }
                (Role::Name, 0..0x50) => self.note(association, File::Keys, short),
                (Role::Name, code::NAME_HIGH..0x78) => {
                    let row = (short - usize::from(code::NAME_HIGH)) << 8 | after;
                    self.note(association, File::Keys, code::NAMES_SHORT + row);
                }
                (Role::Name | Role::Value, code::VALUE_HIGH..) => {
                    let row = (short - usize::from(code::VALUE_HIGH)) << 8 | after;
                    self.note(association, File::Values, code::VALUES_SHORT + row);
                }
                (Role::Name | Role::Value, code::VALUES..) => {
                    self.note(association, File::Values, short - usize::from(code::VALUES));
                }
                _ => {}
            }
            before = byte;
        }
        Ok(())
    }

    /// All rows of a dictionary's tables.
    pub fn rows(&self, dictionary: &Dictionary) -> Vec<Row> {
        let tables = dictionary.tables();
        let rows = |file: File| {
            let first = if file == File::Routes { 1 } else { 0 };
            let rows = tables.rows(file).into_iter().zip(first..);
            rows.map(move |(text, number)| self.row(file, number, text, tables))
        };
        [File::Keys, File::Values, File::Routes].into_iter().flat_map(rows).collect()
    }

    fn row(&self, file: File, number: usize, text: String, tables: &Tables) -> Row {
        let (none, length) = (BTreeMap::new(), file.code_length(number));
        let uses = self.rows.get(&(file, number)).unwrap_or(&none);
        let saved = uses.values().map(|times| match file {
            File::Routes => without_route(&text, *times, tables).saturating_sub(times * length),
            _ => without(&text, *times).saturating_sub(times * length),
        });
        Row { file, number, uses: uses.values().sum(), saved: saved.sum(), text }
    }

    fn note(&mut self, association: u32, file: File, number: usize) {
        *self.rows.entry((file, number)).or_default().entry(association).or_default() += 1;
    }
}

/// What a string takes that is told so many times and that no table has: a code, its bytes, a byte of zero.
fn without(text: &str, times: usize) -> usize {
    let spelled = text.len() + 2;
    let again = if text.len() >= SHORTEST_REMEMBERED { REFERENCE.min(spelled) } else { spelled };
    spelled + (times - 1) * again
}

/// What a path takes beside its parameters: a byte of zero, the method, its segments, an end.
fn without_route(text: &str, times: usize, tables: &Tables) -> usize {
    let segments = text.split('/').skip(1).filter(|segment| !tables::is_parameter(segment));
    let segments = segments.map(|segment| match tables.value(segment) {
        Some(number) => times * File::Values.code_length(number),
        None => without(segment, times),
    });
    3 * times + segments.sum::<usize>()
}
