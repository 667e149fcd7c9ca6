//! Probabilities put together: the logistic mixing of many guesses about one bit, in integers alone, so that every machine gets the same.

/// Guesses and weights are in units of 1/256 of a natural logarithm of odds, and of 1/65536.
const ONE: i32 = 1 << 16;

/// The natural logarithm of odds, in units of 1/256, as a probability in units of 1/4096. The table has every 128th.
pub(super) fn squash(odds: i32) -> i32 {
    const TABLE: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607,
        3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    let odds = odds.clamp(-2047, 2047) + 2048;
    let (place, part) = ((odds >> 7) as usize, odds & 127);
    let at = |place: usize| TABLE.get(place).copied().unwrap_or(4094);
    (at(place) * (128 - part) + at(place + 1) * part + 64) >> 7
}

/// The inverse of [`squash`] for all 4096 probabilities.
pub(super) struct Stretch(Vec<i16>);

impl Stretch {
    pub(super) fn new() -> Self {
        let mut table = Vec::with_capacity(4096);
        for odds in -2047..=2047 {
            while table.len() as i32 <= squash(odds) && table.len() < 4096 {
                table.push(odds as i16);
            }
        }
        table.resize(4096, 2047);
        Stretch(table)
    }

    pub(super) fn of(&self, probability: u32) -> i32 {
        self.0.get(probability as usize).copied().unwrap_or(2047).into()
    }
}

/// Weights for `inputs` guesses, a set of them for each of some situations.
#[derive(Debug, Clone)]
pub(super) struct Mixer {
    inputs: usize,
    weights: Vec<i32>,
    selected: usize,
    output: i32,
    rate: i32,
}

impl Mixer {
    pub(super) fn new(inputs: usize, sets: usize, weight: i32, rate: i32) -> Self {
        Mixer { inputs, weights: vec![weight; inputs * sets], selected: 0, output: 2048, rate }
    }

    /// Mixes guesses with the weights of a set: the odds that the bit is 1.
    pub(super) fn mix(&mut self, guesses: &[i32], set: usize) -> i32 {
        self.selected = set * self.inputs;
        let weights = self.weights.get(self.selected..).unwrap_or_default();
        // A weight is less than 2^19 + 1 and a guess than 2^11, so products and their sum fit.
        let sum: i32 = weights.iter().zip(guesses).map(|(weight, guess)| (weight * guess) >> 8).sum();
        let odds = (sum >> 8).clamp(-2047, 2047);
        self.output = squash(odds);
        odds
    }

    /// Moves the weights that were used towards what the bit was.
    pub(super) fn learn(&mut self, guesses: &[i32], bit: bool) {
        let error = ((i32::from(bit) << 12) - self.output) * self.rate;
        let weights = self.weights.get_mut(self.selected..).unwrap_or_default();
        for (weight, guess) in weights.iter_mut().zip(guesses) {
            *weight = (*weight + ((guess * error + 0x8000) >> 16)).clamp(-8 * ONE, 8 * ONE);
        }
    }
}
