//! `lowband dictionary`: what both ends of the packed profile have beforehand, made from recordings and looked at.

mod show;
mod train;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::io::Read;
use std::path::Path;

use clap::Args;
use clap::Subcommand;
use lowband::packed::Dictionary;
use lowband::packed::File;
use lowband::packed::Files;

use super::Failure;

/// Make a dictionary of the packed profile from recorded traffic, or show one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: a dictionary of one's own, and what it is; all rows of the one that is built in
  $ lowband dictionary train monday.jsonl.gz tuesday.jsonl.gz -o dictionary
  $ lowband dictionary show dictionary
  $ lowband dictionary show --entries

Both ends must have the same: lowband gateway --dictionary dictionary, lowband request --profile packed --dictionary dictionary.
docs/packed.md section 12 has more of it.")]
pub(crate) struct DictionaryArgs {
    #[command(subcommand)]
    command: DictionaryCommand,
}

#[derive(Debug, Subcommand)]
enum DictionaryCommand {
    Train(train::TrainArgs),
    Show(show::ShowArgs),
}

/// Does what the subcommand says.
pub(crate) fn run(args: DictionaryArgs) -> Result<(), Failure> {
    match args.command {
        DictionaryCommand::Train(args) => train::run(args),
        DictionaryCommand::Show(args) => show::run(args),
    }
}

/// What names the dictionary that is built in, where a directory may stand.
pub(super) const BUILT_IN: &str = "built-in";

/// The dictionary in a directory, or of this program by its name.
pub(super) fn load(directory: &Path) -> Result<Dictionary, Failure> {
    named(directory).map_err(|error| Failure::new(error).hint(HINT))
}

/// The same, or what is wrong in one line.
pub(super) fn named(directory: &Path) -> Result<Dictionary, String> {
    if directory == Path::new(BUILT_IN) {
        return Ok(Dictionary::built_in().clone());
    }
    let files = read_files(directory)?;
    Dictionary::read(&files).map_err(|error| format!("{}: {error}", directory.display()))
}

/// What to do about a directory that has none.
pub(super) const HINT: &str = "lowband dictionary train makes one; built-in is the one of this program";

/// The files in a directory.
fn read_files(directory: &Path) -> Result<Files<'static>, String> {
    let bytes = |file: File| {
        let path = directory.join(file.name());
        read_bounded(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let text = |file: File| -> Result<Cow<'static, str>, String> {
        let text = String::from_utf8(bytes(file)?);
        let text = text.map_err(|_| format!("{} is no text", directory.join(file.name()).display()))?;
        Ok(text.into())
    };
    Ok(Files {
        keys: text(File::Keys)?,
        values: text(File::Values)?,
        routes: text(File::Routes)?,
        secrets: text(File::Secrets)?,
        samples: bytes(File::Samples)?.into(),
    })
}

/// A file, up to the first byte that is too much.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(File::LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A number of bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_one_is_in_its_directory_too() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dictionaries/v2");
        assert_eq!(named(&directory).unwrap().hash(), Dictionary::built_in().hash());
        assert_eq!(load(Path::new(BUILT_IN)).unwrap().hash(), Dictionary::built_in().hash());
        assert!(named(Path::new("/nowhere")).unwrap_err().starts_with("cannot read /nowhere/keys.tsv: "));
    }
}
