//! Dictionaries from recordings: the ones in the project are what the command makes, and what becomes of one's own.

use std::io::BufReader;
use std::path::Path;

use flate2::read::GzDecoder;
use lowband::link::Profile;
use lowband::measure::Counting;
use lowband::measure::Encoding;
use lowband::measure::Exchange;
use lowband::measure::Meter;
use lowband::measure::Recording;
use lowband::measure::Security;
use lowband::measure::Setup;
use lowband::measure::Wording;
use lowband::packed::Dictionary;
use lowband::packed::File;
use lowband::packed::Files;
use lowband::packed::train::Budget;
use lowband::packed::train::Row;

fn corpus(bytes: &[u8]) -> Vec<Exchange> {
    Recording::new(BufReader::new(GzDecoder::new(bytes))).map(Result::unwrap).collect()
}

fn train(exchanges: &[Exchange], budget: Budget, wording: Wording) -> (Files<'static>, Vec<Row>) {
    let mut counting = Counting::new();
    exchanges.iter().for_each(|exchange| counting.add(exchange));
    let mut sampling = counting.finish(budget, wording);
    for exchange in exchanges {
        assert_eq!(sampling.add(exchange), None, "line {}", exchange.line);
    }
    let (trained, files, rows) = sampling.finish();
    assert_eq!((trained.exchanges, trained.differing), (exchanges.len() as u64, 0));
    (files, rows)
}

/// `lowband dictionary train tests/corpus/train.jsonl.gz -o dictionaries/v2 --keep-texts --force` writes them.
#[test]
fn the_built_in_files_are_what_training_makes_of_the_projects_recording() {
    let recording = corpus(include_bytes!("corpus/train.jsonl.gz"));
    let (files, _) = train(&recording, Budget::default(), Wording::Kept);
    for file in File::ALL {
        if std::env::var_os("LOWBAND_UPDATE").is_some() {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dictionaries/v2");
            std::fs::write(directory.join(file.name()), files.bytes(file)).unwrap();
            continue;
        }
        assert!(files.bytes(file) == Files::BUILT_IN.bytes(file), "{} is another", file.name());
    }
}

#[test]
fn a_dictionary_of_ones_own_has_nobodys_words_in_it_and_carries_what_it_never_saw() {
    let recording = corpus(include_bytes!("corpus/dev.jsonl.gz"));
    let (seen, rest) = recording.split_at(200);
    let budget = Budget { samples: 20_000, ..Budget::default() };
    let (files, rows) = train(seen, budget, Wording::Replaced);
    assert!((1..=20_000).contains(&files.samples.len()), "{}", files.samples.len());
    let (kept, _) = train(seen, budget, Wording::Kept);
    let texts: Vec<String> = seen.iter().filter_map(text).filter(|text| text.contains(' ')).collect();
    let count = |files: &Files<'_>| {
        let has = |text: &&String| contains(&files.samples, text.as_bytes());
        texts.iter().filter(has).count()
    };
    assert!(count(&kept) > 0, "of {} texts", texts.len());
    assert_eq!(count(&files), 0);
    let used = |row: &&Row| row.uses > 0;
    assert!(
        rows.iter().filter(used).all(|row| row.saved < 1 << 20) && rows.iter().any(|row| row.saved > 500)
    );

    let dictionary = Dictionary::read(&files).unwrap();
    assert_ne!(dictionary.hash(), Dictionary::built_in().hash());
    let encoding = Encoding::Packed(dictionary.only(&[0, 1]));
    let link = Profile::built_in("lan").unwrap();
    let mut meter = Meter::new(Setup { encoding, security: Security::None, link });
    for exchange in rest.iter().take(200) {
        assert_eq!(meter.replay(exchange), None, "line {}", exchange.line);
    }
}

/// What a message says.
fn text(exchange: &Exchange) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(exchange.request.body()).ok()?;
    Some(body.get("body")?.as_str()?.to_owned())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
