//! What two ends have before they know anything of each other: the tables, and samples of messages for the coders.
//!
//! It never changes, and is known by a hash of all of it: ends that have others cannot read each other.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::LazyLock;

use sha2::Digest;
use sha2::Sha256;
use thiserror::Error;

use crate::packed::code;
use crate::packed::coder::Coders;
use crate::packed::error::DecodeError;
use crate::packed::tables::Tables;

static BUILT_IN: LazyLock<Dictionary> =
    LazyLock::new(|| Dictionary::read(&Files::BUILT_IN).expect("the built-in files are read by a test"));

/// Tables and samples, ready for use. A clone is the same one, and costs nothing.
#[derive(Clone)]
pub struct Dictionary {
    tables: Arc<Tables>,
    coders: Arc<Coders>,
    /// The coders that are for what is written.
    allowed: &'static [u8],
    hash: [u8; 32],
}

/// The files that a dictionary is made of, as they stand in its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files<'a> {
    /// The names of members.
    pub keys: Cow<'a, str>,
    /// Strings.
    pub values: Cow<'a, str>,
    /// Methods and paths, and where tokens stand in their bodies.
    pub routes: Cow<'a, str>,
    /// The members whose strings are secrets.
    pub secrets: Cow<'a, str>,
    /// Messages, from which coders learn what messages look like.
    pub samples: Cow<'a, [u8]>,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    /// [`Files::keys`].
    Keys,
    /// [`Files::values`].
    Values,
    /// [`Files::routes`].
    Routes,
    /// [`Files::secrets`].
    Secrets,
    /// [`Files::samples`].
    Samples,
}

/// Why files are no dictionary.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DictionaryError {
    /// A file is larger than any is.
    #[error("{}: more than {} KiB", .0.name(), File::LARGEST >> 10)]
    Large(File),
    /// A row of a table is none.
    #[error("{}, line {line}: {error}", file.name())]
    Row {
        /// The table.
        file: File,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        error: RowError,
    },
    /// A sample is no message by these tables.
    #[error("{}, sample {number}: {error}", File::Samples.name())]
    Sample {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        error: DecodeError,
    },
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RowError {
    /// There are more rows than numbers.
    #[error("more than {0} rows")]
    Many(usize),
    /// It is longer than any is.
    #[error("more than {0} bytes")]
    Long(usize),
    /// There is nothing in it.
    #[error("an empty line; the empty string is written as \"\"")]
    Empty,
    /// It has a byte of zero, with which texts end.
    #[error("a byte of zero")]
    Zero,
    /// It stands in a line before.
    #[error("the same as line {0}")]
    Again(usize),
    /// A route does not have the columns that it should.
    #[error(
        "not a number, a method, a path, places of tokens in answers and in requests, with tabs between them"
    )]
    Columns,
    /// A route's number is not its place.
    #[error("number {0} was to be expected")]
    Number(u16),
    /// A route has a method that has no number.
    #[error("{0} is no method")]
    Method(String),
    /// A route's path is none.
    #[error("{0} is no path")]
    Path(String),
}

impl Dictionary {
    /// The one that is built in.
    pub fn built_in() -> &'static Dictionary {
        &BUILT_IN
    }

    /// The one of these files.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn read(files: &Files<'_>) -> Result<Self, DictionaryError> {
        if let Some(file) = File::ALL.into_iter().find(|file| files.bytes(*file).len() > File::LARGEST) {
            return Err(DictionaryError::Large(file));
        }
        let tables = Tables::read(files)?;
        let coders = Coders::new(&files.samples, &tables)?;
        Ok(Self { tables: tables.into(), coders: coders.into(), allowed: Coders::ALL, hash: files.hash() })
    }

    /// The same, with these coders alone for what is written.
    pub fn only(self, allowed: &'static [u8]) -> Self {
        Self { allowed, ..self }
    }

    /// The hash of all files, by which the two ends know that they have the same.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.coders.samples()
    }

    /// The rows of a table, by number; those of routes are numbered from 1, and are shown as a method and a path.
    pub fn rows(&self, file: File) -> Vec<String> {
        self.tables.rows(file)
    }

    /// What makes the model ready, on whatever thread it runs. Until it has, nothing is written with the model, so that nobody waits for it.
    pub fn primer(&self) -> Primer {
        self.coders.set_priming(true);
        Primer(self.clone())
    }

    /// Whether a message is to wait for the model, which is being made ready; reading it would wait as well.
    pub fn awaits_model(&self, message: &[u8]) -> bool {
        self.coders.awaits_model(message)
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn coders(&self) -> &Coders {
        &self.coders
    }

    pub(super) fn allowed(&self) -> &[u8] {
        self.allowed
    }
}

/// Makes a dictionary's model ready; dropped before it has, it leaves that to whoever needs the model first.
#[derive(Debug)]
pub struct Primer(Dictionary);

impl Primer {
    /// Makes it ready, which keeps the thread for a while.
    pub fn run(self) {
        self.0.coders.prime();
    }
}

impl Drop for Primer {
    fn drop(&mut self) {
        self.0.coders.set_priming(false);
    }
}

impl Files<'_> {
    /// Those that are built in.
    pub const BUILT_IN: Files<'static> = Files {
        keys: Cow::Borrowed(include_str!("../../dictionaries/v2/keys.tsv")),
        values: Cow::Borrowed(include_str!("../../dictionaries/v2/values.tsv")),
        routes: Cow::Borrowed(include_str!("../../dictionaries/v2/routes.tsv")),
        secrets: Cow::Borrowed(include_str!("../../dictionaries/v2/secrets.tsv")),
        samples: Cow::Borrowed(include_bytes!("../../dictionaries/v2/samples.bin")),
    };

    /// What stands in a file.
    pub fn bytes(&self, file: File) -> &[u8] {
        match file {
            File::Keys => self.keys.as_bytes(),
            File::Values => self.values.as_bytes(),
            File::Routes => self.routes.as_bytes(),
            File::Secrets => self.secrets.as_bytes(),
            File::Samples => &self.samples,
        }
    }

    /// The SHA-256 of the files' own, one after the other.
    fn hash(&self) -> [u8; 32] {
        let order = [File::Samples, File::Keys, File::Values, File::Routes, File::Secrets];
        let all =
            order.iter().fold(Sha256::new(), |all, file| all.chain_update(Sha256::digest(self.bytes(*file))));
        all.finalize().into()
    }
}

impl File {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Keys, Self::Values, Self::Routes, Self::Secrets, Self::Samples];

    /// The most bytes that one may have.
    pub const LARGEST: usize = 1 << 20;

    /// How many bytes the row with this number takes in a message.
    pub fn code_length(self, number: usize) -> usize {
        let short = match self {
            Self::Keys => code::NAMES_SHORT,
            Self::Values => code::VALUES_SHORT,
            Self::Routes => 0x80, // a varint
            Self::Secrets | Self::Samples => return 0,
        };
        if number < short { 1 } else { 2 }
    }

    /// Its name in a directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys.tsv",
            Self::Values => "values.tsv",
            Self::Routes => "routes.tsv",
            Self::Secrets => "secrets.tsv",
            Self::Samples => "samples.bin",
        }
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Dictionary").field(&base16ct::lower::encode_string(&self.hash)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small ones, and one file in place of its own.
    fn read(file: File, text: &str) -> Result<Dictionary, String> {
        let mut files = Files {
            keys: "body\n".into(),
            values: "m.text\n\"\"\n".into(),
            routes: "# A comment.\nnumber\tmethod\tpath\tanswer\trequest\n1\tGET\t/a/{b}\t-\ta.*\n".into(),
            secrets: "password\n".into(),
            samples: Cow::default(),
        };
        match file {
            File::Keys => files.keys = text.into(),
            File::Values => files.values = text.into(),
            File::Routes => files.routes = text.into(),
            File::Secrets => files.secrets = text.into(),
            File::Samples => files.samples = text.as_bytes().into(),
        }
        Dictionary::read(&files).map_err(|error| error.to_string())
    }

    #[test]
    fn tables_are_read_and_have_a_hash_of_their_own() {
        let small = read(File::Keys, "body\nmsgtype\n").unwrap();
        assert_eq!((small.tables().name("msgtype"), small.tables().value("")), (Some(1), Some(1)));
        let route = small.tables().find("GET", &["a", "x"]).unwrap();
        assert_eq!((route.number, route.request.len(), route.answer.len()), (1, 1, 0));
        assert!(small.tables().is_secret("password"));
        assert_ne!(small.hash(), read(File::Keys, "msgtype\nbody\n").unwrap().hash());
        assert_ne!(small.hash(), Dictionary::built_in().hash());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_file_and_line() {
        let head = "number\tmethod\tpath\tanswer\trequest\n";
        let routes = |rows: &str| format!("{head}{rows}");
        for (file, text, said) in [
            (File::Keys, "a\n# A comment.\n\nb\n".to_owned(), "keys.tsv, line 3: an empty line"),
            (File::Keys, "a\nb\na\n".to_owned(), "keys.tsv, line 3: the same as line 1"),
            (File::Values, "a\0b\n".to_owned(), "values.tsv, line 1: a byte of zero"),
            (File::Values, "a".repeat(1025), "values.tsv, line 1: more than 1024 bytes"),
            (
                File::Secrets,
                (0..300).map(|row| format!("{row}\n")).collect(),
                "secrets.tsv, line 257: more than 256",
            ),
            (File::Routes, routes("1\tGET\t/a\n"), "routes.tsv, line 2: not a number, a method, a path"),
            (
                File::Routes,
                routes("1\tGET\t/a\t-\t-\t-\n"),
                "routes.tsv, line 2: not a number, a method, a path",
            ),
            (File::Routes, routes("2\tGET\t/a\t-\t-\n"), "routes.tsv, line 2: number 1 was to be expected"),
            (File::Routes, routes("1\tGOT\t/a\t-\t-\n"), "routes.tsv, line 2: GOT is no method"),
            (File::Routes, routes("1\tGET\t/a/..\t-\t-\n"), "routes.tsv, line 2: /a/.. is no path"),
            (File::Routes, routes("1\tGET\ta\t-\t-\n"), "routes.tsv, line 2: a is no path"),
            (
                File::Routes,
                routes("1\tGET\t/a\t-\t-\n2\tGET\t/a\t-\t-\n"),
                "routes.tsv, line 3: the same as line 2",
            ),
            (File::Samples, "\u{1}\0\0\0\0".to_owned(), "samples.bin, sample 1: cut short"),
            (
                File::Samples,
                "\u{5}\0\0\0\u{1}P\0++\u{1}\0\0\0\u{7}".to_owned(),
                "samples.bin, sample 2: route 7 is unknown",
            ),
            (File::Keys, "a\n".repeat(1 << 20), "keys.tsv: more than 1024 KiB"),
        ] {
            let error = read(file, &text).unwrap_err();
            assert!(error.starts_with(said), "{error}, not {said}");
        }
    }
}
