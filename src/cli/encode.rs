//! `lowband encode`: JSON to the CBOR that crosses the link.

use clap::Args;
use clap::ValueEnum;

use lowband::codec::EncodeError;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::codec::json_to_cbor;

use super::Failure;
use super::input;
use super::output;

/// Turn JSON on standard input into CBOR on standard output.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: a Matrix message in the bytes that cross the link
  $ echo '{\"msgtype\":\"m.text\",\"body\":\"Hello\"}' | lowband encode --hex
  a2181b6548656c6c6f181c666d2e74657874

A terminal gets hexadecimal in any case; a file or a pipe gets bytes unless --hex asks for it.")]
pub(crate) struct EncodeArgs {
    /// Which integer keys to use: the table of MSC3079 version 1, or none
    #[arg(long, value_enum, default_value = "v1")]
    keys: KeysArg,
    /// Write hexadecimal
    #[arg(long)]
    hex: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeysArg {
    /// Integers for the keys of MSC3079 Appendix A
    V1,
    /// Every key as it is
    Strings,
}

pub(crate) fn run(args: EncodeArgs) -> Result<(), Failure> {
    let json = input::read_stdin()?;
    let keys = match args.keys {
        KeysArg::V1 => Keys::V1,
        KeysArg::Strings => Keys::Strings,
    };
    let cbor = json_to_cbor(&json, keys, &Limits::default()).map_err(|error| failure(&error, &json))?;
    if args.hex || output::is_terminal() {
        return output::write_line(&base16ct::lower::encode_string(&cbor));
    }
    output::write(&cbor)
}

fn failure(error: &EncodeError, json: &[u8]) -> Failure {
    let failure = Failure::new(format_args!("cannot encode standard input: {error}"));
    if json.iter().all(u8::is_ascii_whitespace) {
        return failure
            .hint("give JSON on standard input, as in: echo '{\"body\":\"Hello\"}' | lowband encode");
    }
    match input::place_of(error, json) {
        Some(place) => failure.hint(place),
        None => failure,
    }
}
