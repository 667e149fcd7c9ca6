//! Data to standard output, or into a new file, whole, with a failure where it cannot be written.

use std::fs;
use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::Failure;

/// Writes bytes to standard output.
pub(super) fn write(data: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// Writes a line to standard output.
pub(super) fn write_line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes JSON to standard output: for reading on a terminal, on one line for a program.
pub(super) fn write_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = match is_terminal() {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    };
    write_line(&text.map_err(Failure::new)?)
}

/// Writes a new file for its owner alone. One that is there already may be a device's state, or hold keys that are in use.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
    options.open(path).and_then(write).map_err(|error| cannot_write(path, &error))
}

/// What is not written, and what to do about it.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format_args!("cannot write {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            failure.hint("nothing is written over: take it away, or name another")
        }
        _ => failure,
    }
}

/// Tells standard error a line of what was done.
pub(super) fn tell(line: impl std::fmt::Display) {
    // Where it is closed, nobody wants to know.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether a person reads standard output.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
