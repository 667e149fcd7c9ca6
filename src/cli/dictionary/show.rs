//! `lowband dictionary show`: what a dictionary is, and in what it differs from the one that is built in.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use lowband::packed::Dictionary;
use lowband::packed::File;
use lowband::packed::Files;
use lowband::translate::packed::Identity;
use lowband::translate::packed::VERSION;
use serde::Serialize;
use serde_json::json;

use super::HINT;
use super::hex;
use super::read_files;
use crate::cli::Failure;
use crate::cli::output;

/// Show a dictionary of the packed profile: its identity, its files, and what agrees with the one that is built in.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: the dictionary that is built in; one of one's own, with all its rows
  $ lowband dictionary show
  $ lowband dictionary show dictionary --entries

identity is what two ends hold against each other when they begin; with another they speak the compatible profile.")]
pub(crate) struct ShowArgs {
    /// The dictionary's directory; the one that is built in, if there is none
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Show each row too: its table, its number, how many bytes it takes
    #[arg(long)]
    entries: bool,
    /// Write one JSON object: identity, sha256, version, files, and entries with --entries
    #[arg(long)]
    json: bool,
}

/// One file, beside the one that is built in.
#[derive(Serialize)]
struct Compared {
    file: &'static str,
    entries: usize,
    bytes: usize,
    /// Whether it is the same, byte for byte.
    same: bool,
    /// Rows with the number that they have there; with another; that are not there; and rows that are there alone.
    agreeing: usize,
    moved: usize,
    own: usize,
    missing: usize,
}

/// Prints it.
pub(crate) fn run(args: ShowArgs) -> Result<(), Failure> {
    let files = match &args.directory {
        Some(directory) => read_files(directory).map_err(|error| Failure::new(error).hint(HINT))?,
        None => Files::BUILT_IN,
    };
    let name = args.directory.as_ref().map_or("built in".to_owned(), |it| it.display().to_string());
    let dictionary =
        Dictionary::read(&files).map_err(|error| Failure::new(format_args!("{name}: {error}")))?;
    let compared = File::ALL.map(|file| Compared::of(file, &files, &dictionary));
    match args.json {
        true => output::write_json(&json(&dictionary, &compared, args.entries)),
        false => output::write(text(&name, &dictionary, &compared, args.entries).as_bytes()),
    }
}

fn json(dictionary: &Dictionary, compared: &[Compared], entries: bool) -> serde_json::Value {
    let rows = entries.then(|| {
        rows(dictionary).map(|(file, number, text)| {
        json!({ "file": file.name(), "number": number, "bytes": file.code_length(number), "text": text })
    }).collect::<Vec<_>>()
    });
    json!({
        "identity": Identity::of(dictionary).to_string(),
        "sha256": hex(&dictionary.hash()),
        "version": VERSION,
        "built_in": Identity::of(Dictionary::built_in()).to_string(),
        "files": compared,
        "entries": rows,
    })
}

fn text(name: &str, dictionary: &Dictionary, compared: &[Compared], entries: bool) -> String {
    let (identity, built_in) = (Identity::of(dictionary), Identity::of(Dictionary::built_in()));
    let mut text = format!("dictionary {identity} ({name}), for version {VERSION} of the packed profile\n");
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    };
    line(format_args!("SHA-256 {}", hex(&dictionary.hash())));
    match identity == built_in {
        true => line(format_args!("the same as the one that is built in")),
        false => line(format_args!("the one that is built in is {built_in}: neither end reads the other's")),
    }
    line(format_args!(
        "\n{:12} {:>8} {:>8}  {:>9} {:>6} {:>6} {:>8}",
        "file", "entries", "bytes", "as there", "moved", "own", "missing"
    ));
    for Compared { file, entries, bytes, same, agreeing, moved, own, missing } in compared {
        match same {
            true => line(format_args!("{file:12} {entries:>8} {bytes:>8}  {:>9}", "all")),
            false => line(format_args!(
                "{file:12} {entries:>8} {bytes:>8}  {agreeing:>9} {moved:>6} {own:>6} {missing:>8}"
            )),
        }
    }
    if entries {
        line(format_args!("\n{:12} {:>6} {:>5}  row", "table", "number", "bytes"));
        for (file, number, text) in rows(dictionary) {
            let (text, bytes) = (if text.is_empty() { "\"\"" } else { &text }, file.code_length(number));
            line(format_args!("{:12} {number:>6} {bytes:>5}  {text}", file.name()));
        }
    }
    text
}

/// All rows that stand for something: those of secrets are told by their place alone.
fn rows(dictionary: &Dictionary) -> impl Iterator<Item = (File, usize, String)> {
    [File::Keys, File::Values, File::Routes].into_iter().flat_map(|file| {
        let first = if file == File::Routes { 1 } else { 0 };
        let rows = dictionary.rows(file).into_iter().zip(first..);
        rows.map(move |(text, number)| (file, number, text))
    })
}

impl Compared {
    fn of(file: File, files: &Files<'_>, dictionary: &Dictionary) -> Self {
        let (ours, theirs) = (dictionary.rows(file), Dictionary::built_in().rows(file));
        let places: BTreeMap<&str, usize> =
            theirs.iter().enumerate().map(|(number, row)| (row.as_str(), number)).collect();
        let place = |row: &String| places.get(row.as_str()).copied();
        let agreeing = ours.iter().enumerate().filter(|(number, row)| place(row) == Some(*number)).count();
        let known = ours.iter().filter(|row| place(row).is_some()).count();
        Self {
            file: file.name(),
            entries: if file == File::Samples { dictionary.samples() } else { ours.len() },
            bytes: files.bytes(file).len(),
            same: files.bytes(file) == Files::BUILT_IN.bytes(file),
            agreeing,
            moved: known - agreeing,
            own: ours.len() - known,
            missing: theirs.len() - known,
        }
    }
}
