//! `lowband decode`: CBOR that crossed the link to JSON.

use clap::Args;
use clap::ValueEnum;

use lowband::codec::Limits;
use lowband::codec::cbor_to_json;
use lowband::codec::diagnostic;

use super::Failure;
use super::input;
use super::output;

/// Turn CBOR on standard input, bytes or hexadecimal, into JSON on standard output.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: an error body as MSC3079 servers send it
  $ echo a21866694d5f554e4b4e4f574e186769736f6d657468696e67 | lowband decode
  {\"errcode\":\"M_UNKNOWN\",\"error\":\"something\"}

A terminal gets the JSON indented; a file or a pipe gets it on one line.")]
pub(crate) struct DecodeArgs {
    /// Write diagnostic notation (RFC 8949 §8) instead: integer keys, tags and lengths as they are
    #[arg(long)]
    diagnostic: bool,
    /// What standard input holds
    #[arg(long, value_enum, default_value = "auto")]
    input: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Hexadecimal where it is nothing but digits, spaces and colons; CBOR otherwise
    Auto,
    /// Hexadecimal
    Hex,
    /// CBOR
    Cbor,
}

pub(crate) fn run(args: DecodeArgs) -> Result<(), Failure> {
    let input = input::read_stdin()?;
    let is_hex = args.input == Form::Hex || (args.input == Form::Auto && input::is_hex(&input));
    let cbor = if is_hex { input::parse_hex(&input)? } else { input };
    if cbor.is_empty() {
        return Err(Failure::new("standard input is empty").hint("give CBOR, as bytes or in hexadecimal"));
    }
    if args.diagnostic {
        let text = diagnostic(&cbor, &Limits::default()).map_err(|error| failure(error, &cbor))?;
        return output::write_line(&text);
    }
    let decoded = cbor_to_json(&cbor, &Limits::default()).map_err(|error| failure(error, &cbor))?;
    if output::is_terminal() {
        let value: serde_json::Value = serde_json::from_slice(&decoded.json).map_err(Failure::new)?;
        return output::write_json(&value);
    }
    let mut line = decoded.json;
    line.push(b'\n');
    output::write(&line)
}

fn failure(error: lowband::codec::DecodeError, cbor: &[u8]) -> Failure {
    let failure = Failure::new(format_args!("cannot decode {} bytes of CBOR: {error}", cbor.len()));
    match (error, cbor.first()) {
        (lowband::codec::DecodeError::UnknownKey { .. }, _) => {
            failure.hint("--diagnostic shows integer keys as they are")
        }
        // No CBOR begins with these, but `{` and `[`.
        (_, Some(b'{' | b'[')) => failure.hint("this looks like JSON: try lowband encode"),
        (_, Some(0x40..=0x7f)) => failure.hint("this may be a whole datagram: try lowband inspect"),
        _ => failure,
    }
}
