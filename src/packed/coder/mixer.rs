//! Probabilities put together: the logistic mixing of many guesses about one bit, in integers alone, so that every machine gets the same.

/// How many guesses are mixed; one is left over, for fours are quicker.
pub(super) const INPUTS: usize = 28;

/// A weight for each guess.
pub(super) type Weights = [i32; INPUTS];

/// Guesses and weights are in units of 1/256 of a natural logarithm of odds, and of 1/65536.
const ONE: i32 = 1 << 16;

/// What each weight is at first.
const FIRST: i32 = 20 << 10;

/// How fast weights move.
const RATE: i32 = 6;

/// The natural logarithm of odds, in units of 1/256, as a probability in units of 1/4096. The table has every 128th.
#[expect(clippy::indexing_slicing, reason = "for each bit; places are 0 to 31")]
pub(super) fn squash(odds: i32) -> i32 {
    const TABLE: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607,
        3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    let odds = odds.clamp(-2047, 2047) + 2048;
    let (place, part) = ((odds >> 7) as usize, odds & 127);
    (TABLE[place] * (128 - part) + TABLE[place + 1] * part + 64) >> 7
}

/// The inverse of [`squash`] for all 4096 probabilities.
pub(super) struct Stretch(Box<[i16; 4096]>);

impl Stretch {
    pub(super) fn new() -> Self {
        let mut table = Box::new([2047; 4096]);
        let mut places = table.iter_mut().zip(0..);
        let mut next = places.next();
        for odds in -2047..=2047 {
            while let Some((place, _)) = next.take_if(|(_, probability)| *probability <= squash(odds)) {
                *place = odds as i16;
                next = places.next();
            }
        }
        Stretch(table)
    }

    /// For a probability in units of 1/65536.
    #[expect(clippy::indexing_slicing, reason = "for each guess; sixteen bits less four are below 4096")]
    pub(super) fn of(&self, probability: u16) -> i32 {
        self.0[(probability >> 4) as usize].into()
    }
}

/// Sets of weights, one for each of some situations: those that a message has changed, over those of the dictionary.
pub(super) struct Mixer<'a> {
    taught: &'a [Weights],
    own: Vec<Weights>,
    /// Where the message's own set for a situation is, from 1; 0 where it has none yet.
    places: Vec<u16>,
    selected: usize,
    output: i32,
}

impl<'a> Mixer<'a> {
    /// A mixer that has learned nothing.
    pub(super) fn new(sets: u16) -> Self {
        let own = vec![[FIRST; INPUTS]; sets.into()];
        Mixer { taught: &[], own, places: (1..=sets).collect(), selected: 0, output: 2048 }
    }

    /// A mixer that goes on from what was learned.
    pub(super) fn over(taught: &'a [Weights]) -> Self {
        Mixer { taught, own: Vec::new(), places: vec![0; taught.len()], selected: 0, output: 2048 }
    }

    /// What was learned, where nothing was before.
    pub(super) fn into_sets(self) -> Vec<Weights> {
        self.own
    }

    /// Mixes guesses with the weights of a set: the odds that the bit is 1.
    #[expect(clippy::indexing_slicing, reason = "for each bit; callers have sets for all situations")]
    pub(super) fn mix(&mut self, guesses: &Weights, set: usize) -> i32 {
        if self.places[set] == 0 {
            self.own.push(self.taught[set]);
            self.places[set] = self.own.len() as u16;
        }
        self.selected = usize::from(self.places[set]) - 1;
        let weights = &self.own[self.selected];
        // A weight is less than 2^19 + 1 and a guess than 2^11, so products and their sum fit.
        let (mut sum, mut at) = (0, 0);
        while at < INPUTS {
            sum += (weights[at] * guesses[at]) >> 8;
            at += 1;
        }
        let odds = (sum >> 8).clamp(-2047, 2047);
        self.output = squash(odds);
        odds
    }

    /// Moves the weights that were used towards what the bit was.
    #[expect(clippy::indexing_slicing, reason = "for each bit; the set was selected")]
    pub(super) fn learn(&mut self, guesses: &Weights, bit: bool) {
        let error = ((i32::from(bit) << 12) - self.output) * RATE;
        let weights = &mut self.own[self.selected];
        let mut at = 0;
        while at < INPUTS {
            let weight = weights[at] + ((guesses[at] * error + 0x8000) >> 16);
            weights[at] = weight.clamp(-8 * ONE, 8 * ONE);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretching_is_the_inverse_of_squashing() {
        let stretch = Stretch::new();
        for probability in 1..4095u16 {
            let odds = stretch.of(probability << 4);
            assert!(squash(odds) >= probability.into());
            assert!(odds == -2047 || squash(odds - 1) < probability.into());
        }
    }
}
