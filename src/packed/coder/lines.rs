//! The model's memory, and what a message changes of it.

/// The slots of four bits under one context; the first is not used.
pub(super) type Line = [u32; 16];

/// Lines by number: those that a message has used, over those of the dictionary.
pub(super) struct Lines<'a> {
    taught: &'a [Line],
    own: Vec<Line>,
    /// Where the own ones are; nothing where all are own, each in its place.
    places: Option<Table>,
}

/// Where more lines than these are used, all are copied.
const MOST_USED: usize = 1 << 15;

impl<'a> Lines<'a> {
    /// Lines of which nothing was learned.
    pub(super) fn new(count: usize) -> Self {
        Lines { taught: &[], own: vec![Line::default(); count], places: None }
    }

    /// Lines that go on from what was learned.
    pub(super) fn over(taught: &'a [Line]) -> Self {
        Lines { taught, own: Vec::new(), places: Some(Table::new()) }
    }

    /// What was learned, where nothing was before.
    pub(super) fn into_lines(self) -> Vec<Line> {
        self.own
    }

    /// Makes room for as many lines. Places that were given before mean nothing after it.
    pub(super) fn reserve(&mut self, more: usize) {
        let Some(places) = self.places.as_ref().filter(|_| self.own.len() + more > MOST_USED) else { return };
        let mut all = self.taught.to_vec();
        for (line, place) in places.entries() {
            if let (Some(to), Some(own)) = (all.get_mut(line as usize), self.own.get(place as usize)) {
                *to = *own;
            }
        }
        (self.own, self.places) = (all, None);
    }

    /// A line, and the place to put it back to.
    pub(super) fn open(&mut self, line: u32) -> (u32, Line) {
        let Some(places) = &mut self.places else {
            return (line, self.own.get(line as usize).copied().unwrap_or_default());
        };
        let next = self.own.len() as u32;
        let place = *places.or_insert(line, next);
        if place == next {
            self.own.push(self.taught.get(line as usize).copied().unwrap_or_default());
        }
        (place, self.own.get(place as usize).copied().unwrap_or_default())
    }

    /// Puts a line back.
    pub(super) fn close(&mut self, place: u32, line: &Line) {
        if let Some(own) = self.own.get_mut(place as usize) {
            *own = *line;
        }
    }
}

/// Where each hash of the last bytes was followed last: in the message, or in the dictionary.
pub(super) struct Places<'a> {
    taught: &'a [u32],
    own: Vec<u32>,
    since: Table,
}

impl<'a> Places<'a> {
    /// Of so many hashes, none of which was seen.
    pub(super) fn new(count: usize) -> Self {
        Places { taught: &[], own: vec![0; count], since: Table::new() }
    }

    /// Those that were seen in the dictionary.
    pub(super) fn over(taught: &'a [u32]) -> Self {
        Places { taught, own: Vec::new(), since: Table::new() }
    }

    pub(super) fn into_places(self) -> Vec<u32> {
        self.own
    }

    /// Where a hash was followed last, which from now on is `here`.
    pub(super) fn replace(&mut self, hash: u32, here: usize) -> Option<usize> {
        let here = here as u32;
        let place = match self.own.get_mut(hash as usize) {
            Some(own) => own,
            None => self.since.or_insert(hash, self.taught.get(hash as usize).copied().unwrap_or_default()),
        };
        let before = std::mem::replace(place, here);
        (before > 0).then_some(before as usize)
    }
}

/// Numbers by number: open addressing, at most half full.
struct Table {
    /// A number and 1, or 0 where there is none; and what it stands for.
    entries: Vec<(u32, u32)>,
    count: usize,
}

impl Table {
    fn new() -> Self {
        Table { entries: vec![(0, 0); 1 << 10], count: 0 }
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        self.entries.iter().filter_map(|(number, value)| Some((number.checked_sub(1)?, *value)))
    }

    /// What a number stands for, which is `value` where it stood for nothing.
    #[expect(clippy::indexing_slicing, reason = "for each line; places are below the length, a power of two")]
    fn or_insert(&mut self, number: u32, value: u32) -> &mut u32 {
        if self.count * 2 >= self.entries.len() {
            self.grow();
        }
        let at = place(&self.entries, number);
        let entry = &mut self.entries[at];
        if entry.0 == 0 {
            *entry = (number + 1, value);
            self.count += 1;
        }
        &mut entry.1
    }

    #[expect(clippy::indexing_slicing, reason = "as above")]
    fn grow(&mut self) {
        let mut entries = vec![(0, 0); self.entries.len() * 2];
        for (number, value) in self.entries() {
            let at = place(&entries, number);
            entries[at] = (number + 1, value);
        }
        self.entries = entries;
    }
}

/// The place of a number, or the free one where it would be.
#[expect(clippy::indexing_slicing, reason = "for each line; places are below the length, a power of two")]
fn place(entries: &[(u32, u32)], number: u32) -> usize {
    let mask = entries.len() - 1;
    let mut at = number.wrapping_mul(0x9e37_79b1) as usize >> 8 & mask;
    while entries[at].0 != 0 && entries[at].0 != number + 1 {
        at = (at + 1) & mask;
    }
    at
}
