//! Why a subcommand did not do what it was asked, and what the person at the terminal can do about it.

use std::fmt;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

/// One line of what went wrong, and one of what to do where that is known.
#[derive(Debug)]
pub(crate) struct Failure {
    error: String,
    hint: Option<String>,
    status: Status,
}

#[derive(Clone, Copy, Debug)]
enum Status {
    Failed,
    Usage,
    Unanswered,
    ClosedPipe,
}

impl Failure {
    /// What was asked for failed: exit code 1.
    pub(crate) fn new(error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), hint: None, status: Status::Failed }
    }

    /// What was asked for makes no sense: exit code 2.
    pub(crate) fn usage(error: impl fmt::Display) -> Self {
        Self { status: Status::Usage, ..Self::new(error) }
    }

    /// Nobody answered what was asked: exit code 3.
    pub(crate) fn unanswered(error: impl fmt::Display) -> Self {
        Self { status: Status::Unanswered, ..Self::new(error) }
    }

    /// Adds what to do about it.
    pub(crate) fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Adds what to do about an address that cannot be bound.
    pub(crate) fn unbound(self, error: &io::Error, address: SocketAddr) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                self.hint("another lowband may be running on it; try another --listen")
            }
            io::ErrorKind::AddrNotAvailable => {
                self.hint(format_args!("{} is no address of this host; try another --listen", address.ip()))
            }
            io::ErrorKind::PermissionDenied => {
                self.hint("ports below 1024 need a privilege; try another --listen")
            }
            _ => self,
        }
    }

    /// A failure to write to standard output. Nobody reading any more (`lowband … | head`) is no failure: exit code 0, quietly.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { status: Status::ClosedPipe, ..Self::new(error) },
            _ => Self::new(format_args!("cannot write to standard output: {error}")),
        }
    }

    /// Tells standard error, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self.status {
            Status::ClosedPipe => return ExitCode::SUCCESS,
            Status::Failed => 1,
            Status::Usage => 2,
            Status::Unanswered => 3,
        };
        // Where standard error is closed too, the exit code alone has to tell.
        let _ = write!(io::stderr(), "{self}");
        ExitCode::from(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.error)?;
        match &self.hint {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}
