//! The command line: one subcommand, one file.
//!
//! A subcommand `name` is `name.rs` with `NameArgs` and `run(NameArgs) -> Result<(), Failure>`, a variant of [`Command`] and a
//! line in [`run`]. It uses what the library makes public, and nothing else of it.

mod failure;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

pub(crate) use self::failure::Failure;

/// What `lowband` was asked for.
#[derive(Parser)]
#[command(name = "lowband", version, about = "Matrix over links of about 100 bit/s", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands, in the order in which `--help` lists them.
#[derive(Subcommand)]
enum Command {}

/// Does what the arguments say. Exit codes: 0 done, 1 failed, 2 not understood.
pub(crate) fn run() -> ExitCode {
    let done: Result<(), Failure> = match Cli::parse().command {};
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
