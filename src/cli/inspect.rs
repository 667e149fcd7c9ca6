//! `lowband inspect`: a datagram explained.

use clap::Args;

use lowband::inspect::Secrets;
use lowband::inspect::explain;

use super::Failure;
use super::input;
use super::output;

/// Explain a CoAP datagram: header, options, payload, and what it asks of Matrix.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: what a client sends to sync, and what that costs
  $ lowband inspect 41010000 01 b137 112a 3873696e63653d7331

A malformed datagram is explained up to where it breaks. The seconds are those of the bytes alone at 100 bit/s: no answer, no
turnaround.")]
pub(crate) struct InspectArgs {
    /// The datagram in hexadecimal, with spaces, colons or 0x as you like; - reads it from standard input
    #[arg(required = true, value_name = "HEX|-", allow_hyphen_values = false)]
    datagram: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write access tokens and passwords out
    #[arg(long)]
    show_secrets: bool,
}

pub(crate) fn run(args: InspectArgs) -> Result<(), Failure> {
    let datagram = match args.datagram.as_slice() {
        [stdin] if stdin == "-" => {
            let input = input::read_stdin()?;
            if input::is_hex(&input) { input::parse_hex(&input)? } else { input }
        }
        parts => input::parse_hex(parts.join(" ").as_bytes())?,
    };
    if datagram.is_empty() {
        return Err(Failure::new("there is no datagram").hint("lowband inspect --help shows one"));
    }
    let secrets = if args.show_secrets { Secrets::Shown } else { Secrets::Hidden };
    let explanation = explain(&datagram, secrets);
    match args.json {
        true => output::write_json(&explanation),
        false => output::write(explanation.to_string().as_bytes()),
    }
}
