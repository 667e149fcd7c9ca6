//! What the recorded traffic of `tests/corpus/dev.jsonl.gz` costs: the tables of `tests/snapshots/measure.txt`, which docs/measure.md quotes.
//!
//! After a change that was meant, `LOWBAND_UPDATE=1 cargo test --test measure` writes it anew.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::io::BufReader;
use std::path::Path;
use std::thread;

use flate2::read::GzDecoder;
use lowband::link::Profile;
use lowband::measure::Encoding;
use lowband::measure::Meter;
use lowband::measure::Recording;
use lowband::measure::Security;
use lowband::measure::Setup;
use lowband::packed::Dictionary;

fn setups() -> [(Encoding, Security); 6] {
    let packed = || Encoding::Packed(Dictionary::built_in().clone());
    [
        (Encoding::Msc3079, Security::None),
        (Encoding::Msc3079, Security::Oscore),
        (Encoding::Msc3079, Security::Dtls),
        (packed(), Security::None),
        (packed(), Security::Oscore),
        (packed(), Security::Dtls),
    ]
}

/// Replays the corpus; what differs is told with its line.
fn replay(encoding: Encoding, security: Security, link: &str) -> (Meter, Vec<String>) {
    let corpus = BufReader::new(GzDecoder::new(include_bytes!("corpus/dev.jsonl.gz").as_slice()));
    let link = Profile::built_in(link).unwrap();
    let mut meter = Meter::new(Setup { encoding, security, link });
    let mut differences = Vec::new();
    for exchange in Recording::new(corpus) {
        let exchange = exchange.unwrap();
        if let Some(difference) = meter.replay(&exchange) {
            differences.push(format!("line {}: {difference}", exchange.line));
        }
    }
    (meter, differences)
}

#[test]
fn the_corpus_costs_what_the_snapshot_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/measure.txt");
    let mut tables = "\
# tests/corpus/dev.jsonl.gz as lowband measure tells of it. Written by LOWBAND_UPDATE=1 cargo test --test measure
"
    .to_owned();
    let replays: Vec<_> = setups()
        .map(|(encoding, security)| thread::spawn(move || replay(encoding, security, "hf-100")))
        .into_iter()
        .collect();
    for ((encoding, security), replayed) in setups().into_iter().zip(replays) {
        let (meter, differences) = replayed.join().unwrap();
        let (profile, security) = (encoding.name(), security.name());
        writeln!(tables, "\n{profile}, {security}, hf-100\n{}", meter.report()).unwrap();
        for difference in differences {
            writeln!(tables, "{difference}").unwrap();
        }
    }
    if std::env::var_os("LOWBAND_UPDATE").is_some() {
        return std::fs::write(path, tables).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == tables,
        "other than in {}:\n{tables}\nIf it is meant: LOWBAND_UPDATE=1 cargo test --test measure",
        path.display()
    );
}

#[test]
fn the_page_says_what_the_snapshot_does() {
    let (snapshot, page) = (include_str!("snapshots/measure.txt"), include_str!("../docs/measure.md"));
    let table = |head: &str| {
        let (_, from) = snapshot.split_once(head).unwrap();
        from.lines()
            .skip(1)
            .take_while(|line| !line.is_empty() && !line.starts_with("line "))
            .collect::<Vec<_>>()
    };
    let steady = snapshot.lines().filter(|line| line.starts_with("steady state"));
    for line in table("\nmsc3079, none").into_iter().chain(table("\npacked, none")).chain(steady) {
        assert!(page.contains(line), "docs/measure.md should have:\n{line}");
    }
}

/// A row of the snapshot: its figures.
fn figures(head: &str, row: &str) -> [f64; 9] {
    let (_, from) = include_str!("snapshots/measure.txt").split_once(head).unwrap();
    let line = from.lines().find_map(|line| line.strip_prefix(row)).unwrap();
    let columns: Vec<f64> = line.split_whitespace().map(|column| column.parse().unwrap()).collect();
    columns.try_into().unwrap()
}

/// Whole datagrams and seconds on the air.
fn wire(head: &str, row: &str) -> (f64, f64) {
    let [_, _, _, _, _, wire, _, airtime, _] = figures(head, row);
    (wire, airtime)
}

/// Run with `--nocapture` to have the table of README.md.
#[test]
fn readme_says_how_the_profiles_compare() {
    let rows = [
        ("MSC3079", "dtls", "MSC3079 over DTLS 1.2"),
        ("MSC3079", "oscore", "MSC3079 over OSCORE"),
        ("packed", "oscore", "packed over OSCORE"),
    ];
    for (profile, security, name) in rows {
        let head = format!("\n{}, {security}", profile.to_lowercase());
        let compared = |row| {
            let ((bytes, seconds), (whole, _)) = (wire(&head, row), wire("\nmsc3079, dtls", row));
            (bytes, bytes / whole * 100.0, seconds / 3600.0)
        };
        let (bytes, percent, hours) = compared("steady state");
        let (all, of_all, all_hours) = compared("all  ");
        let line = format!(
            "| {name} | {} B | {percent:.1} % | {hours:.1} h | {} B | {of_all:.1} % | {all_hours:.1} h |",
            grouped(bytes),
            grouped(all)
        );
        println!("{line}");
        assert!(include_str!("../README.md").contains(&line), "README.md should have:\n{line}");
    }
}

/// A whole number with commas.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let places = digits.chars().enumerate();
    places
        .flat_map(|(place, digit)| {
            let comma = place > 0 && (digits.len() - place) % 3 == 0;
            comma.then_some(',').into_iter().chain([digit])
        })
        .collect()
}

/// What the profile is for: 68,000 bytes of the steady state and 232,000 of all were reached by an experiment.
#[test]
fn packed_it_all_arrives_and_takes_less_than_the_experiment_did() {
    for (row, most) in [("steady state", 37_000.0), ("all  ", 140_000.0)] {
        let [_, _, payload, _, _, _, _, _, mismatches] = figures("\npacked, none", row);
        assert!(payload <= most, "{row}: {payload}");
        assert_eq!(mismatches, 0.0, "{row}");
    }
}

#[test]
fn what_is_counted_above_coap_is_the_same_whatever_protects_it_and_on_every_link() {
    let all = |security, link| replay(Encoding::Msc3079, security, link).0.report().all();
    let plain = all(Security::None, "hf-100");
    for (security, link) in [(Security::Oscore, "hf-100"), (Security::Dtls, "sbd"), (Security::None, "lan")] {
        let other = all(security, link);
        let same = [
            (plain.exchanges, other.exchanges),
            (plain.json, other.json),
            (plain.payload, other.payload),
            (plain.mismatches, other.mismatches),
        ];
        assert!(same.iter().all(|(one, other)| one == other), "{security:?} on {link}: {other:?}");
        assert_eq!(other.wire, other.secured + 28 * other.datagrams);
        let sealed = match security {
            Security::None => 0,
            Security::Dtls => 29 * other.datagrams,
            Security::Oscore => other.secured - other.coap,
        };
        assert_eq!(other.secured, other.coap + sealed);
    }
}

#[test]
fn the_corpus_comes_to_what_those_who_recorded_it_have_counted() {
    // With a program of their own: 797 and 1374 exchanges, 377,899 and 1,242,257 bytes of JSON, and by MSC3079 326,072 bytes of the steady
    // state, with each float in nine bytes. It has three of them, which take three here.
    let (meter, differences) = replay(Encoding::Msc3079, Security::None, "lan");
    let (steady, all) = (meter.report().steady(), meter.report().all());
    assert_eq!((steady.exchanges, steady.json, all.exchanges, all.json), (797, 377_899, 1374, 1_242_257));
    assert_eq!(steady.payload, 326_072 - 3 * 6);
    assert_eq!(steady.mismatches, 0);
    // What a homeserver says to a path that a gateway does not forward.
    let told = "line 1327: the request cannot be sent: path /_matrix/foo is outside the client-server API";
    assert_eq!(differences, [told]);
}
