//! `lowband link`: what is known of links.

mod show;

use clap::Args;
use clap::Subcommand;

use super::Failure;

/// Show what a link is like, and the timing that follows from it.
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
    Show(show::ShowArgs),
}

/// Does what the subcommand says.
pub(crate) fn run(args: LinkArgs) -> Result<(), Failure> {
    match args.command {
        LinkCommand::Show(args) => show::run(args),
    }
}
