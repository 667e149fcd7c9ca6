//! Makes the packed profile's tables and dictionary from recorded traffic (docs/packed.md section 12).
//!
//! ```text
//! cargo run --release --example packed_train -- dictionary tests/corpus/train.jsonl.gz > dictionaries/v2/samples.bin
//! cargo run --release --example packed_train -- names|values|routes|report tests/corpus/train.jsonl.gz
//! ```
//!
//! The same recording makes the same bytes. Tables are printed to be looked at before they are used: who changes one makes another version of
//! it, and the dictionary is to be made again after it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "an example fails by panicking")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use lowband::packed::train;
use lowband::packed::train::Budget;
use lowband::packed::train::Counts;
use lowband::packed::train::Trainer;
use lowband::packed::train::Weight;

#[path = "../tests/packed/replay.rs"]
mod replay;

use replay::Exchange;
use replay::Replay;

const NAMES: &str = "The packed profile's names, version 2 of the tables: a name's number is its place in the list, from 0. Append only.
By how often recorded traffic used them; those that it did not use are Matrix v1.19's.";
const VALUES: &str = "The packed profile's strings, version 2 of the tables: a string's number is its place in the list, from 0. Append only.
By how often recorded traffic used them; those that it did not use are Matrix v1.19's. The empty string is written as \"\".";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, files @ ..] = arguments.as_slice() else {
        return Err("usage: packed_train dictionary|names|values|routes|report FILE.jsonl[.gz]...".into());
    };
    let mut exchanges = Vec::new();
    for file in files {
        exchanges.extend(replay::read(&std::fs::read(file)?));
    }
    let json: usize = exchanges.iter().map(|exchange| exchange.length).sum();
    eprintln!("{} exchanges, {json} bytes of JSON", exchanges.len());
    let made = match what.as_str() {
        "dictionary" => dictionary(&exchanges),
        _ => tables(what, &exchanges)?.into_bytes(),
    };
    Ok(std::io::stdout().write_all(&made)?)
}

fn dictionary(exchanges: &[Exchange]) -> Vec<u8> {
    let coders = train::untrained();
    let (mut replay, mut trainer) = (Replay::new(&coders), Trainer::new());
    for exchange in exchanges {
        let (up, down) = replay.exchange(exchange);
        let weight = if replay::is_steady(exchange.class()) { Weight::Steady } else { Weight::Rare };
        trainer.add_request(weight, &up);
        trainer.add_response(weight, &down);
    }
    trainer.finish(Budget::default())
}

fn tables(what: &str, exchanges: &[Exchange]) -> Result<String, Box<dyn Error>> {
    let (mut counts, mut associations) = (Counts::new(), BTreeMap::new());
    for exchange in exchanges {
        let next = associations.len() as u32;
        let association = *associations.entry(&exchange.authorization).or_insert(next);
        counts.add(association, &exchange.method, &exchange.path, &exchange.request, &exchange.response);
    }
    match what {
        "names" => Ok(train::table(NAMES, &counts.names())),
        "values" => Ok(train::table(VALUES, &counts.values())),
        "routes" => {
            Ok(counts.routes().iter().map(|(number, times)| format!("{number}\t{times}\n")).collect())
        }
        "report" => Ok(train::report(&[counts.names(), counts.values()].concat())),
        other => Err(format!("{other} is not made").into()),
    }
}
