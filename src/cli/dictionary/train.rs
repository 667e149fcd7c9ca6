//! `lowband dictionary train`: tables and samples from recordings, and what each row of them saves.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use lowband::link::Profile;
use lowband::measure::Counting;
use lowband::measure::Encoding;
use lowband::measure::Exchange;
use lowband::measure::Figures;
use lowband::measure::Meter;
use lowband::measure::Sampling;
use lowband::measure::Security;
use lowband::measure::Setup;
use lowband::measure::Trained;
use lowband::measure::Wording;
use lowband::net::devices::beside;
use lowband::packed::Dictionary;
use lowband::packed::File;
use lowband::packed::Files;
use lowband::packed::train::Budget;
use lowband::packed::train::Row;
use lowband::translate::packed::Identity;
use serde_json::json;

use super::hex;
use crate::cli::Failure;
use crate::cli::config;
use crate::cli::input;
use crate::cli::output;

/// Make tables and samples from recorded traffic, and say what each row saves.
///
/// The same recordings in the same order make the same files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: of one's own traffic; the files that are built in, as they were made
  $ lowband dictionary train monday.jsonl.gz tuesday.jsonl.gz -o dictionary
  $ lowband dictionary train tests/corpus/train.jsonl.gz -o dictionaries/v2 --keep-texts --force

Recordings are as lowband measure reads them; they are read three times, so none is standard input. What they use comes first in the
tables; all that is built in stays in them, so that every endpoint, key and type of event of Matrix has a row.

What of the traffic ends in the files, which everybody gets who speaks with them: in the tables names and strings that several
accounts used, where they look like words of protocols; in the samples the messages themselves, with the names of users, rooms and
servers, but without access tokens, passwords, ids of events, keys and ciphertext. Texts that people wrote, names that they
gave and whatever has spaces are replaced by other words, unless --keep-texts says that they may be seen.")]
pub(crate) struct TrainArgs {
    /// Recordings, in lines of JSON, compressed by gzip or not, in the order of time
    #[arg(value_name = "FILE.jsonl[.gz]", required = true)]
    corpus: Vec<PathBuf>,
    /// Where the files are written: keys.tsv, values.tsv, routes.tsv, secrets.tsv, samples.bin
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
    /// Leave the texts of people in the samples
    #[arg(long)]
    keep_texts: bool,
    /// How much samples may have together: the latest are taken, at most 1MiB
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = samples_size)]
    samples: usize,
    /// Write one JSON object: identity, files, payload, rows, saved
    #[arg(long)]
    json: bool,
}

fn samples_size(text: &str) -> Result<usize, String> {
    let size = config::size_argument(text)?;
    if size <= File::LARGEST { Ok(size) } else { Err("at most 1MiB".into()) }
}

/// After so many exchanges it is told how far it is.
const PROGRESS: u64 = 5_000;

/// Reads the recordings, writes the files, and reports.
pub(crate) fn run(args: TrainArgs) -> Result<(), Failure> {
    args.check()?;
    let mut counting = Counting::new();
    args.each("counting", |exchange| counting.add(exchange))?;
    let wording = if args.keep_texts { Wording::Kept } else { Wording::Replaced };
    let mut sampling = counting.finish(Budget { samples: args.samples, ..Budget::default() }, wording);
    args.each("sampling", |exchange| drop(sampling.add(exchange)))?;
    let report = Report::of(sampling, &args)?;
    args.write(&report.files)?;
    match args.json {
        true => output::write_json(&report.json()),
        false => output::write(report.text(&args.output).as_bytes()),
    }
}

impl TrainArgs {
    /// Refuses what would only fail once all was read.
    fn check(&self) -> Result<(), Failure> {
        if self.corpus.iter().any(|path| path == Path::new("-")) {
            let failure =
                Failure::usage("standard input can be read once, and recordings are read three times");
            return Err(failure.hint("name a file"));
        }
        let mut paths = File::ALL.into_iter().map(|file| self.output.join(file.name()));
        match paths.find(|path| path.exists()).filter(|_| !self.force) {
            Some(path) => {
                let failure = Failure::new(format_args!("{} is there already", path.display()));
                Err(failure.hint(
                    "--force writes over it; who has the old dictionary does not speak with the new one",
                ))
            }
            None => Ok(()),
        }
    }

    /// Goes through all recordings once.
    fn each(&self, what: &str, mut take: impl FnMut(&Exchange)) -> Result<(), Failure> {
        let mut taken = 0;
        for path in &self.corpus {
            for exchange in input::open_recording(path)? {
                let exchange = exchange.map_err(|error| {
                    Failure::new(format_args!("{}:{}: {error}", path.display(), error.line()))
                })?;
                take(&exchange);
                taken += 1;
                if taken % PROGRESS == 0 {
                    output::tell(format_args!("{what}: {taken} exchanges"));
                }
            }
        }
        if taken == 0 {
            let failure = Failure::new("there are no exchanges in the recordings");
            return Err(failure.hint("lowband measure --help shows what stands on a line"));
        }
        output::tell(format_args!("{what}: {taken} exchanges, done"));
        Ok(())
    }

    /// Writes all files beside those that are there, and then puts them in their places.
    fn write(&self, files: &Files<'_>) -> Result<(), Failure> {
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |error| Failure::new(format_args!("cannot write {}: {error}", path.display()))
        };
        fs::create_dir_all(&self.output).map_err(cannot(&self.output))?;
        let paths = File::ALL.map(|file| (file, self.output.join(file.name())));
        for (file, path) in &paths {
            let new = beside(path, ".new");
            fs::write(&new, files.bytes(*file)).map_err(cannot(&new))?;
        }
        paths.iter().try_for_each(|(_, path)| fs::rename(beside(path, ".new"), path).map_err(cannot(path)))
    }
}

/// What is said in the end.
struct Report {
    files: Files<'static>,
    dictionary: Dictionary,
    trained: Trained,
    /// What the recordings take with the dictionary.
    steady: Figures,
    all: Figures,
    /// The rows that were used, the ones that save most first.
    rows: Vec<Row>,
}

impl Report {
    fn of(sampling: Sampling, args: &TrainArgs) -> Result<Self, Failure> {
        let (trained, files, mut rows) = sampling.finish();
        let dictionary = Dictionary::read(&files).map_err(Failure::new)?;
        let link = Profile::built_in("lan").ok_or_else(|| Failure::new("there is no link lan"))?;
        let encoding = Encoding::Packed(dictionary.clone());
        let mut meter = Meter::new(Setup { encoding, security: Security::None, link });
        args.each("measuring", |exchange| drop(meter.replay(exchange)))?;
        let (steady, all) = (meter.report().steady(), meter.report().all());
        rows.retain(|row| row.uses > 0);
        rows.sort_by_key(|row| (std::cmp::Reverse(row.saved), row.file, row.number));
        Ok(Self { files, dictionary, trained, steady, all, rows })
    }

    fn saved(&self) -> usize {
        self.rows.iter().map(|row| row.saved).sum()
    }

    fn json(&self) -> serde_json::Value {
        let files = File::ALL.map(|file| {
            let entries = self.entries(file);
            json!({ "file": file.name(), "entries": entries, "bytes": self.files.bytes(file).len() })
        });
        let rows = self.rows.iter().map(|row| {
            let Row { file, number, text, uses, saved } = row;
            json!({ "file": file.name(), "number": number, "text": text, "uses": uses, "saved": saved })
        });
        json!({
            "identity": Identity::of(&self.dictionary).to_string(),
            "sha256": hex(&self.dictionary.hash()),
            "exchanges": self.trained.exchanges,
            "differing": self.trained.differing,
            "associations": self.trained.associations,
            "files": files,
            "payload": {
                "steady": { "tables": self.trained.steady, "dictionary": self.steady.payload },
                "all": { "tables": self.trained.payload, "dictionary": self.all.payload },
            },
            "rows": rows.collect::<Vec<_>>(),
            "saved": self.saved(),
        })
    }

    fn text(&self, directory: &Path) -> String {
        let Trained { exchanges, differing, associations, json, payload, steady } = self.trained;
        let identity = Identity::of(&self.dictionary);
        let mut text = format!(
            "dictionary {identity} in {}, of {exchanges} exchanges of {associations} associations\n",
            directory.display()
        );
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        };
        if differing > 0 {
            line(format_args!(
                "{differing} exchanges do not come back as they were recorded, and are in no sample"
            ));
        }
        line(format_args!("\n{:12} {:>8} {:>8}", "file", "entries", "bytes"));
        for file in File::ALL {
            let (entries, bytes) = (self.entries(file), self.files.bytes(file).len());
            line(format_args!("{:12} {entries:>8} {bytes:>8}", file.name()));
        }
        line(format_args!("\n{:24} {:>9} {:>9}", "payload", "steady", "all"));
        line(format_args!("{:24} {:>9} {json:>9}", "bodies of JSON", self.steady.json));
        line(format_args!("{:24} {steady:>9} {payload:>9}", "by the tables alone"));
        line(format_args!("{:24} {:>9} {:>9}", "with the samples", self.steady.payload, self.all.payload));
        line(format_args!("\n{:>8} {:>8}  {:11} {:>6}  row", "saved", "uses", "table", "number"));
        for Row { file, number, text, uses, saved } in &self.rows {
            let text = if text.is_empty() { "\"\"" } else { text };
            line(format_args!("{saved:>8} {uses:>8}  {:11} {number:>6}  {text}", file.name()));
        }
        let uses: usize = self.rows.iter().map(|row| row.uses).sum();
        line(format_args!("{:>8} {uses:>8}  all", self.saved()));
        text
    }

    /// Rows, or samples.
    fn entries(&self, file: File) -> usize {
        match file {
            File::Samples => self.dictionary.samples(),
            table => self.dictionary.rows(table).len(),
        }
    }
}
