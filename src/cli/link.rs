//! `lowband link`: what is known of links, and a link to try things on.

mod run;
mod show;

use clap::Args;
use clap::Subcommand;
use lowband::link::Profile;

use super::Failure;

/// Show what a link is like and the timing that follows from it, or play one.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: all links; what follows from one
  $ lowband link show
  $ lowband link show hf-100")]
pub(crate) struct LinkArgs {
    #[command(subcommand)]
    command: LinkCommand,
}

#[derive(Debug, Subcommand)]
enum LinkCommand {
    Run(run::RunArgs),
    Show(show::ShowArgs),
}

/// Does what the subcommand says.
pub(crate) fn run(args: LinkArgs) -> Result<(), Failure> {
    match args.command {
        LinkCommand::Run(args) => run::run(args),
        LinkCommand::Show(args) => show::run(args),
    }
}

/// How many times as fast a link is, as an argument.
fn speed() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(Profile::MAX_SPEED))
}

/// A share of all, as an argument.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "give a number from 0 to 1".to_owned())
}
