//! Data to standard output, whole, with a failure where it cannot be written.

use std::io;
use std::io::IsTerminal;
use std::io::Write;

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

/// Tells standard error a line of what was done.
pub(super) fn tell(line: impl std::fmt::Display) {
    // Where it is closed, nobody wants to know.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether a person reads standard output.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
