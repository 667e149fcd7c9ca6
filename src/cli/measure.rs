//! `lowband measure`: recorded traffic, and what it would cost.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use lowband::measure;
use lowband::measure::Difference;
use lowband::measure::Encoding;
use lowband::measure::Exchange;
use lowband::measure::Meter;
use lowband::measure::Setup;
use lowband::packed::Dictionary;

use super::Failure;
use super::config::Links;
use super::dictionary;
use super::input;
use super::output;

/// Replay recorded HTTP exchanges through the encoders of both ends and over a link in virtual time, and say what they cost on it.
///
/// Both ends must read what was recorded, value for value: exit code 1 where something does not arrive so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: recorded traffic over shortwave; packed, with OSCORE; the figures of its steady state alone
  $ lowband measure traffic.jsonl.gz
  $ lowband measure traffic.jsonl.gz --profile packed --security oscore
  $ lowband measure traffic.jsonl.gz --security dtls --json | jq .steady

FILE has one JSON object on each line, in the order of time: `method`, `path` (with its query, as it was sent), `req_headers` with
`authorization` (each value is one association), `req` (the body, or null), `status`, `resp`. Others are passed over. docs/measure.md
has more of it, and says what is counted.

Not counted: handshakes of DTLS and agreements on keys, repeats of what is lost, and the wait for the homeserver, which answers at
once here. A sync is a request with one answer.")]
pub(crate) struct MeasureArgs {
    /// The recording, in lines of JSON, compressed by gzip or not; - is standard input
    #[arg(value_name = "FILE.jsonl[.gz]|-")]
    file: PathBuf,
    /// How Matrix is written in CoAP
    #[arg(long, value_enum, default_value_t = Profile::Msc3079)]
    profile: Profile,
    /// The dictionary of the packed profile, as lowband dictionary train makes one; built-in, if there is none
    #[arg(long, value_name = "DIR")]
    dictionary: Option<PathBuf>,
    /// What protects the messages
    #[arg(long, value_enum, default_value_t = Security::None)]
    security: Security,
    /// The link, which has its say in the size of blocks too
    #[arg(long, value_name = "NAME", default_value = "hf-100")]
    link: String,
    /// A TOML file of settings, whose [link.NAME] tables are added
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write one JSON object: steady, all, classes
    #[arg(long)]
    json: bool,
}

/// How Matrix is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// As MSC3079 has it: paths in options, CBOR with integer keys
    Msc3079,
    /// In the payload alone, with what both ends know left out: as docs/packed.md has it
    Packed,
}

/// What protects the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Security {
    /// Nothing
    None,
    /// OSCORE, with keys that the device has
    Oscore,
    /// DTLS 1.2 with AES-128-CCM-8: 29 bytes to each datagram; its handshakes are not counted
    Dtls,
}

/// After so many exchanges it is told how far it is.
const PROGRESS: u64 = 5_000;

/// So many that differ are told one by one.
const TOLD: u64 = 20;

/// Replays it all, and tells of it.
pub(crate) fn run(args: MeasureArgs) -> Result<(), Failure> {
    let link = Links::of_file(args.config.clone())?.find(&args.link)?;
    let mut meter = Meter::new(Setup { encoding: args.encoding()?, security: args.security(), link });
    let (mut replayed, mut differing) = (0, 0);
    for exchange in input::open_recording(&args.file)? {
        let exchange = exchange.map_err(|error| args.failure(error.line(), &error))?;
        if let Some(difference) = meter.replay(&exchange) {
            differing += 1;
            if differing <= TOLD {
                args.tell(&exchange, &difference);
            }
        }
        replayed += 1;
        if replayed % PROGRESS == 0 {
            output::tell(format_args!("{replayed} exchanges, up to line {}", exchange.line));
        }
    }
    if replayed == 0 {
        let error = Failure::new(format_args!("there are no exchanges in {}", args.name()));
        return Err(error.hint("lowband measure --help shows what stands on a line"));
    }
    match args.json {
        true => output::write_json(meter.report())?,
        false => output::write(args.table(&meter, replayed).as_bytes())?,
    }
    match differing {
        0 => Ok(()),
        _ => Err(Failure::new(format_args!(
            "{differing} of {replayed} exchanges do not arrive as they were recorded"
        ))
        .hint("the first are named above; column mismatches has their classes")),
    }
}

impl MeasureArgs {
    fn encoding(&self) -> Result<Encoding, Failure> {
        match (self.profile, &self.dictionary) {
            (Profile::Packed, Some(directory)) => Ok(Encoding::Packed(dictionary::load(directory)?)),
            (Profile::Packed, None) => Ok(Encoding::Packed(Dictionary::built_in().clone())),
            (Profile::Msc3079, None) => Ok(Encoding::Msc3079),
            (Profile::Msc3079, Some(_)) => {
                Err(Failure::usage("MSC3079 has no dictionary").hint("--profile packed has one"))
            }
        }
    }

    fn security(&self) -> measure::Security {
        match self.security {
            Security::None => measure::Security::None,
            Security::Oscore => measure::Security::Oscore,
            Security::Dtls => measure::Security::Dtls,
        }
    }

    fn name(&self) -> String {
        match self.file == Path::new("-") {
            true => "standard input".to_owned(),
            false => self.file.display().to_string(),
        }
    }

    fn failure(&self, line: u64, error: impl std::fmt::Display) -> Failure {
        Failure::new(format_args!("{}:{line}: {error}", self.name()))
    }

    /// Tells of an exchange that differs; not of its query, which may have a token in it.
    fn tell(&self, exchange: &Exchange, difference: &Difference) {
        let Exchange { line, request, .. } = exchange;
        let (name, method, path) = (self.name(), request.method(), request.uri().path());
        output::tell(format_args!("{name}:{line}: {method} {path}: {difference}"));
    }

    fn table(&self, meter: &Meter, replayed: u64) -> String {
        let (profile, security) = (meter.encoding().name(), self.security().name());
        let handshakes =
            if self.security == Security::Dtls { "; its handshakes are not counted" } else { "" };
        format!(
            "{replayed} exchanges of {} associations: profile {profile}, security {security}, link {}{handshakes}\n\
             Bytes of requests and answers together\n\n{}",
            meter.associations(),
            self.link,
            meter.report()
        )
    }
}
