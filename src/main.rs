//! The `lowband` binary: arguments to a machine and a driver. Everything it does is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
