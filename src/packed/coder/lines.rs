//! The model's memory, and what a message changes of it.

use std::collections::BTreeMap;

/// The slots of four bits under one context; the first is not used.
pub(super) type Line = [u32; 16];

/// The lines that a message changes, over those of the dictionary.
pub(super) enum Lines<'a> {
    /// Only what was changed is kept.
    Over(&'a [Line], Changes),
    /// All are.
    Own(Vec<Line>),
}

/// More changes than these are made in a copy.
const MOST_CHANGES: usize = 1 << 15;

/// Lines by number: open addressing in a table that is at most half full.
pub(super) struct Changes {
    /// Numbers, one more than they are, and where the lines are.
    places: Vec<(u32, u32)>,
    lines: Vec<Line>,
}

impl Changes {
    pub(super) fn new() -> Self {
        Changes { places: vec![(0, 0); 1 << 12], lines: Vec::new() }
    }

    pub(super) fn get(&self, line: u32) -> Option<&Line> {
        let (_, place) = *self.places.get(self.find(line)).filter(|(number, _)| *number != 0)?;
        self.lines.get(place as usize)
    }

    pub(super) fn set(&mut self, line: u32, value: Line) {
        let at = self.find(line);
        let Some(place) = self.places.get_mut(at) else { return };
        if place.0 == 0 {
            *place = (line + 1, self.lines.len() as u32);
            self.lines.push(value);
            return self.grow();
        }
        if let Some(own) = self.lines.get_mut(place.1 as usize) {
            *own = value;
        }
    }

    /// The place of a line, or the free one where it would be.
    fn find(&self, line: u32) -> usize {
        let mask = self.places.len() - 1;
        let mut at = line.wrapping_mul(0x9e37_79b1) as usize >> 8 & mask;
        while self.places.get(at).is_some_and(|(number, _)| *number != 0 && *number != line + 1) {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        if self.lines.len() * 2 < self.places.len() {
            return;
        }
        let places = vec![(0, 0); self.places.len() * 2];
        for (number, place) in std::mem::replace(&mut self.places, places) {
            if let Some(line) = number.checked_sub(1) {
                let at = self.find(line);
                if let Some(to) = self.places.get_mut(at) {
                    *to = (number, place);
                }
            }
        }
    }
}

impl Lines<'_> {
    pub(super) fn get(&self, line: u32) -> Line {
        let (lines, changed) = match self {
            Lines::Over(lines, changes) => (*lines, changes.get(line)),
            Lines::Own(lines) => (lines.as_slice(), None),
        };
        changed.or_else(|| lines.get(line as usize)).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, line: u32, value: Line) {
        match self {
            Lines::Over(lines, changes) => {
                changes.set(line, value);
                if changes.lines.len() > MOST_CHANGES {
                    let mut own = lines.to_vec();
                    for (number, place) in &changes.places {
                        let line = number.checked_sub(1).and_then(|line| own.get_mut(line as usize));
                        if let (Some(line), Some(changed)) = (line, changes.lines.get(*place as usize)) {
                            *line = *changed;
                        }
                    }
                    *self = Lines::Own(own);
                }
            }
            Lines::Own(lines) => {
                if let Some(place) = lines.get_mut(line as usize) {
                    *place = value;
                }
            }
        }
    }
}

/// Where each hash of the last bytes was followed last.
pub(super) enum Places<'a> {
    /// In the dictionary, and since.
    Over(&'a [u32], BTreeMap<u32, u32>),
    /// In the dictionary that is being learned.
    Own(Vec<u32>),
}

impl Places<'_> {
    pub(super) fn get(&self, hash: u32) -> Option<usize> {
        let place = match self {
            Places::Over(taught, since) => since.get(&hash).or_else(|| taught.get(hash as usize)),
            Places::Own(places) => places.get(hash as usize),
        };
        place.filter(|place| **place > 0).map(|place| *place as usize)
    }

    pub(super) fn set(&mut self, hash: u32, here: usize) {
        match self {
            Places::Over(_, since) => {
                since.insert(hash, here as u32);
            }
            Places::Own(places) => {
                if let Some(place) = places.get_mut(hash as usize) {
                    *place = here as u32;
                }
            }
        }
    }
}
