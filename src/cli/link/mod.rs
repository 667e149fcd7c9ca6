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

/// A share of all, as an argument.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "give a number from 0 to 1".to_owned())
}
