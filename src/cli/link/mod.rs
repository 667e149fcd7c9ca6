//! `lowband link`: what links mean, and a link to try things on.

mod run;

use clap::Args;
use clap::Subcommand;

use super::Failure;

/// Links: what follows from them, and a relay that is as slow as one.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
}

pub(crate) fn run(args: LinkArgs) -> Result<(), Failure> {
    match args.command {
        Command::Run(args) => run::run(args),
    }
}
