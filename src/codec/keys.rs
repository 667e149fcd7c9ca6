//! The integer keys of MSC3079 Appendix A, version 1, read from `dictionaries/keys-v1.tsv` by the compiler.

const TABLE: &[u8] = include_bytes!("../../dictionaries/keys-v1.tsv");
const ROWS: usize = rows(TABLE);

/// Names in the order of their numbers, which begin at 1.
static NAMES: [&str; ROWS] = names(TABLE);

/// Open addressing by [`hash`]: the number of a name, or 0 for a free slot.
static SLOTS: [u8; 512] = slots(&names::<ROWS>(TABLE));

/// Returns the string that an integer key stands for.
pub fn key_name(n: u64) -> Option<&'static str> {
    let index = usize::try_from(n).ok()?.checked_sub(1)?;
    NAMES.get(index).copied()
}

/// Returns the integer key that stands for a string.
///
/// The text `"8"` is no integer key, and no name either:
/// ```
/// use lowband::codec::{key_name, key_number};
/// assert_eq!(key_number("origin_server_ts"), Some(8));
/// assert_eq!(key_name(8), Some("origin_server_ts"));
/// assert_eq!(key_number("8"), None);
/// ```
pub fn key_number(name: &str) -> Option<u64> {
    let mut slot = hash(name.as_bytes());
    loop {
        let number = u64::from(*SLOTS.get(slot % SLOTS.len())?);
        if key_name(number)? == name {
            return Some(number);
        }
        slot += 1;
    }
}

/// Length, first, middle and last byte: enough to tell the names of the table apart, and cheap.
const fn hash(name: &[u8]) -> usize {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    let (_, half) = name.split_at(name.len() / 2);
    let middle = match half.first() {
        Some(byte) => *byte,
        None => 0,
    };
    name.len() * 37 + *first as usize * 5 + middle as usize * 67 + *last as usize * 11
}

/// Counts the rows: every line but those that begin with `#`.
#[expect(clippy::indexing_slicing, reason = "runs in the compiler, where leaving the table is a build error")]
const fn rows(table: &[u8]) -> usize {
    let (mut count, mut at) = (0, 0);
    while at < table.len() {
        if (at == 0 || table[at - 1] == b'\n') && table[at] != b'#' {
            count += 1;
        }
        at += 1;
    }
    count
}

/// Reads `number TAB name` rows, which must be numbered from 1 without a gap.
#[expect(clippy::indexing_slicing, reason = "runs in the compiler, where leaving the table is a build error")]
const fn names<const ROWS: usize>(table: &'static [u8]) -> [&'static str; ROWS] {
    let mut names = [""; ROWS];
    let (mut row, mut rest) = (0, table);
    while !rest.is_empty() {
        let mut end = 0;
        while rest[end] != b'\n' {
            end += 1;
        }
        let (line, after) = rest.split_at(end);
        (_, rest) = after.split_at(1);
        if line[0] == b'#' {
            continue;
        }
        let (mut number, mut at) = (0, 0);
        while line[at] != b'\t' {
            number = number * 10 + (line[at] - b'0') as usize;
            at += 1;
        }
        assert!(number == row + 1, "numbers must follow each other from 1");
        let (_, name) = line.split_at(at + 1);
        names[row] = match std::str::from_utf8(name) {
            Ok(name) => name,
            Err(_) => panic!("a name is not UTF-8"),
        };
        row += 1;
    }
    names
}

/// Places every number at the first free slot from the hash of its name.
#[expect(clippy::indexing_slicing, reason = "runs in the compiler, where leaving the table is a build error")]
const fn slots(names: &[&str]) -> [u8; 512] {
    assert!(names.len() < 128, "a slot and a set of numbers hold no more");
    let mut slots = [0; 512];
    let mut row = 0;
    while row < names.len() {
        let mut slot = hash(names[row].as_bytes()) % slots.len();
        while slots[slot] != 0 {
            slot = (slot + 1) % slots.len();
        }
        row += 1;
        slots[slot] = row as u8;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_maps_both_ways() {
        let table = include_str!("../../dictionaries/keys-v1.tsv");
        let mut rows = 0;
        for row in table.lines().filter(|line| !line.starts_with('#')) {
            let (number, name) = row.split_once('\t').unwrap();
            let number = number.parse().unwrap();
            assert_eq!(key_name(number), Some(name));
            assert_eq!(key_number(name), Some(number));
            rows += 1;
        }
        assert_eq!(rows, 104);
    }

    #[test]
    fn other_names_and_numbers_map_to_nothing() {
        for name in
            ["", "8", "104", "Type", "typ", "types", "\u{0}", "a name far longer than any in the table"]
        {
            assert_eq!(key_number(name), None, "{name:?}");
        }
        for number in [0, 105, u64::MAX] {
            assert_eq!(key_name(number), None, "{number}");
        }
    }
}
