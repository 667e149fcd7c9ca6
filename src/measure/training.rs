//! Dictionaries from recordings (docs/packed.md §12), in two passes: [`Counting`] makes the tables, and [`Sampling`] writes what was recorded
//! by these, which gives the samples and says what each row is good for.

use std::collections::BTreeMap;

use http::HeaderValue;
use serde_json::Value;

use super::difference::Difference;
use super::exchange::Exchange;
use super::meter::Meter;
use super::packed::Packed;
use super::texts::Texts;
use crate::packed::Dictionary;
use crate::packed::Files;
use crate::packed::train;
use crate::packed::train::Budget;
use crate::packed::train::Counts;
use crate::packed::train::Row;
use crate::packed::train::Trainer;
use crate::packed::train::Weight;

/// What becomes of texts that people wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// Other words take their places.
    Replaced,
    /// They stand in the samples: for recordings that were made for that.
    Kept,
}

/// The first pass: what is used.
#[derive(Debug, Default)]
pub struct Counting {
    counts: Counts,
    associations: Numbers,
}

/// The second pass: what it looks like.
#[derive(Debug)]
pub struct Sampling {
    counts: Counts,
    tables: Files<'static>,
    untrained: Dictionary,
    trainer: Trainer,
    texts: Option<Texts>,
    associations: Numbers,
    /// The ends of the last associations, and when they were used.
    ends: BTreeMap<u32, (Packed, u64)>,
    trained: Trained,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Trained {
    /// Exchanges that were taken.
    pub exchanges: u64,
    /// Associations that there were.
    pub associations: u64,
    /// Exchanges that do not come back as they were recorded. They are in no sample.
    pub differing: u64,
    /// Bytes of JSON.
    pub json: u64,
    /// Bytes of payloads by the tables alone.
    pub payload: u64,
    /// The same of a client's everyday life.
    pub steady: u64,
}

/// Associations by number, in the order in which they begin.
#[derive(Debug, Default)]
struct Numbers(BTreeMap<Option<Vec<u8>>, u32>);

impl Counting {
    /// Nothing was counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts an exchange.
    pub fn add(&mut self, exchange: &Exchange) {
        let association = self.associations.of(exchange.authorization());
        let value = |body| serde_json::from_slice(body).unwrap_or(Value::Null);
        let (request, response) = (value(exchange.request.body()), value(exchange.response.body()));
        let (method, path) = (exchange.request.method().as_str(), exchange.request.uri().path());
        self.counts.add(association, method, path, &request, &response);
    }

    /// The second pass.
    pub fn finish(self, budget: Budget, wording: Wording) -> Sampling {
        let tables = self.counts.tables();
        let untrained = train::without_samples(&tables);
        Sampling {
            counts: self.counts,
            trainer: Trainer::new(&untrained, budget),
            tables,
            untrained,
            texts: (wording == Wording::Replaced).then(Texts::new),
            associations: Numbers::default(),
            ends: BTreeMap::new(),
            trained: Trained::default(),
        }
    }
}

impl Sampling {
    /// Takes an exchange; says in what it does not come back as it was recorded.
    pub fn add(&mut self, exchange: &Exchange) -> Option<Difference> {
        self.trained.exchanges += 1;
        let association = self.associations.of(exchange.authorization());
        self.trained.associations = self.associations.0.len() as u64;
        let replaced = self.texts.as_mut().map(|texts| texts.replace(exchange, &self.counts));
        let exchange = replaced.as_ref().unwrap_or(exchange);
        let difference = self.replay(association, exchange).err();
        if let Some(difference) = &difference {
            self.trained.differing += 1;
            if difference.is_final() {
                self.ends.remove(&association);
            }
        }
        difference
    }

    /// What came of it, the files of the dictionary, and its rows.
    pub fn finish(self) -> (Trained, Files<'static>, Vec<Row>) {
        let rows = self.trainer.uses().rows(&self.untrained);
        (self.trained, Files { samples: self.trainer.finish().into(), ..self.tables }, rows)
    }

    fn replay(&mut self, association: u32, exchange: &Exchange) -> Result<(), Difference> {
        let ends = self.ends(association);
        let asked = ends.ask(exchange)?;
        let (said, taken) = ends.answer(&asked, exchange);
        let written = ends.written();
        let received = ends.receive(&said, exchange);
        taken.and(received)?;
        let Some((request, response)) = written else { return Ok(()) };
        let is_steady = exchange.class().is_steady();
        let payload = (request.payload.len() + response.payload.len()) as u64;
        self.trained.json += exchange.json() as u64;
        self.trained.payload += payload;
        self.trained.steady += if is_steady { payload } else { 0 };
        let weight = if is_steady { Weight::Steady } else { Weight::Rare };
        self.trainer.add_request(association, weight, &request).map_err(Difference::Take)?;
        self.trainer.add_response(association, weight, &response).map_err(Difference::Unpack)
    }

    /// The ends of an association; of too many the ones that were not used for longest make room.
    fn ends(&mut self, association: u32) -> &mut Packed {
        if !self.ends.contains_key(&association) && self.ends.len() >= Meter::ASSOCIATIONS {
            let oldest = self.ends.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
            oldest.map(|oldest| self.ends.remove(&oldest));
        }
        let new = || (Packed::new(self.untrained.clone()), 0);
        let (ends, used) = self.ends.entry(association).or_insert_with(new);
        *used = self.trained.exchanges;
        ends
    }
}

impl Numbers {
    fn of(&mut self, authorization: Option<&HeaderValue>) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(authorization.map(|value| value.as_bytes().to_vec())).or_insert(next)
    }
}
