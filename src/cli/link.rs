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
pub(super) fn speed() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(Profile::MAX_SPEED))
}

/// A share of all, as an argument.
fn share(text: &str) -> Result<f64, String> {
    share_up_to(1.0, text)
}

/// The share of frames that are lost, as an argument: the most that a profile of a link takes (docs/links.md).
pub(super) fn loss(text: &str) -> Result<f64, String> {
    share_up_to(0.99, text)
}

/// `0.05`, or `5%`.
fn share_up_to(most: f64, text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    let share = share.ok().filter(|share| (0.0..=most).contains(share));
    share.ok_or_else(|| format!("give a share from 0 to {most}: 0.05 or 5%"))
}

/// A number without sign and fraction, as an argument.
pub(super) fn whole_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("give a whole number, at most {}", u64::MAX))
}
