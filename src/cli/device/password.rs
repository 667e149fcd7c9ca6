//! A password: typed, or read from a file.

use std::io;
use std::io::BufRead;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::Failure;

/// No password or token is longer.
const LONGEST: u64 = 64 << 10;

/// The first line of a file, or of standard input where the file is `-`.
pub(super) fn read_line(path: &Path, what: &str) -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::with_capacity(4096));
    let read = match path == Path::new("-") {
        true => io::BufReader::new(io::stdin().lock().take(LONGEST)).read_line(&mut line),
        false => std::fs::File::open(path)
            .and_then(|file| io::BufReader::new(file.take(LONGEST)).read_line(&mut line)),
    };
    let shown = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    read.map_err(|error| Failure::new(format_args!("cannot read {what} from {shown}: {error}")))?;
    let text = line.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::new(format_args!("there is no {what} in {shown}")).hint("it is the first line"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asks on the terminal, which does not show what is typed.
#[cfg(target_os = "linux")]
pub(super) fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    use std::io::Write;

    use rustix::termios;

    let no_terminal = |_| {
        Failure::new("there is no terminal to ask for the password on")
            .hint("--password-file FILE, or - for standard input")
    };
    let mut terminal =
        std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let failed = |error: io::Error| Failure::new(format_args!("cannot ask for the password: {error}"));
    terminal.write_all(prompt.as_bytes()).map_err(failed)?;
    let shown = termios::tcgetattr(&terminal).map_err(|error| failed(error.into()))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(termios::LocalModes::ECHO);
    termios::tcsetattr(&terminal, termios::OptionalActions::Flush, &hidden)
        .map_err(|error| failed(error.into()))?;
    let mut line = Zeroizing::new(String::with_capacity(4096));
    let read = io::BufReader::new((&terminal).take(LONGEST)).read_line(&mut line);
    let restored = termios::tcsetattr(&terminal, termios::OptionalActions::Flush, &shown);
    let _ = terminal.write_all(b"\n");
    read.map_err(failed)?;
    restored.map_err(|error| failed(error.into()))?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::new("no password given")),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn ask(_: &str) -> Result<Zeroizing<String>, Failure> {
    Err(Failure::new("this system's terminal cannot be asked for a password")
        .hint("--password-file FILE, or - for standard input"))
}
