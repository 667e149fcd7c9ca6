//! `lowband inspect`: a datagram explained.

use std::fs;
use std::path::Path;

use clap::Args;
use zeroize::Zeroizing;

use lowband::device;
use lowband::device::Credentials;
use lowband::device::Half;
use lowband::inspect::Secrets;
use lowband::inspect::explain_with;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::PartialIv;
use lowband::security::oscore::Reader;
use lowband::security::oscore::Secret;

use super::Failure;
use super::input;
use super::output;

/// Explain a CoAP datagram: header, options, payload, and what it asks of Matrix.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: what a client sends to sync, and what that costs
  $ lowband inspect 41010000 01 b137 112a 3873696e63653d7331

Example: a protected request and its answer, with the device's half of its keys as lowband device export gives it
  $ lowband inspect --key sensor.toml 4202..., 6244...

Without --key, what everybody on the link sees of a protected message is told. A response is opened by the number of its request:
give that before it, or its number.

A malformed datagram is explained up to where it breaks. The seconds are those of the bytes alone at 100 bit/s: no answer, no
turnaround.")]
pub(crate) struct InspectArgs {
    /// The datagram in hexadecimal, with spaces, colons or 0x as you like, or several with commas between them; - reads them from
    /// standard input
    #[arg(required = true, value_name = "HEX|-", allow_hyphen_values = false)]
    datagram: Vec<String>,
    /// Open protected messages with a device's keys: its file, or its line
    #[arg(long, value_name = "FILE|lowband:...")]
    key: Option<String>,
    /// The Partial IV of the request that a response answers, where the request is not given
    #[arg(long, value_name = "N", requires = "key", value_parser = number)]
    request_piv: Option<PartialIv>,
    /// Write JSON: one object for each datagram, on a line of its own where there are several
    #[arg(long)]
    json: bool,
    /// Write access tokens and passwords out
    #[arg(long)]
    show_secrets: bool,
}

pub(crate) fn run(args: InspectArgs) -> Result<(), Failure> {
    let mut reader = args.key.as_deref().map(reader).transpose()?;
    if let (Some(reader), Some(number)) = (&mut reader, args.request_piv) {
        reader.assume(number);
    }
    let datagrams = datagrams(&args.datagram)?;
    let secrets = if args.show_secrets { Secrets::Shown } else { Secrets::Hidden };
    for (number, datagram) in datagrams.iter().enumerate() {
        if datagram.is_empty() {
            return Err(Failure::new("there is no datagram").hint("lowband inspect --help shows one"));
        }
        let explanation = explain_with(reader.as_mut(), datagram, secrets);
        match args.json {
            true => output::write_json(&explanation)?,
            false if number > 0 => output::write(format!("\n{explanation}").as_bytes())?,
            false => output::write(explanation.to_string().as_bytes())?,
        }
    }
    Ok(())
}

fn datagrams(arguments: &[String]) -> Result<Vec<Vec<u8>>, Failure> {
    let text = match arguments {
        [stdin] if stdin == "-" => {
            let input = input::read_stdin()?;
            if !input.split(|byte| *byte == b',').all(input::is_hex) {
                return Ok(vec![input]);
            }
            input
        }
        parts => parts.join(" ").into_bytes(),
    };
    text.split(|byte| *byte == b',').map(input::parse_hex).collect()
}

/// The reader with the keys of a device.
fn reader(key: &str) -> Result<Reader, Failure> {
    let is_line = key.starts_with(Credentials::SCHEME);
    let text = match is_line {
        true => Zeroizing::new(key.to_owned()),
        false => read_file(Path::new(key))?,
    };
    let wrong = |error: &dyn std::fmt::Display| Failure::new(format_args!("cannot use the keys: {error}"));
    let credentials = Credentials::read(&text).map_err(|error| wrong(&error))?;
    let keys = match credentials.half {
        Half::Oscore(keys) => keys,
        Half::Edhoc(_) => return Err(wrong(&"they are for EDHOC, by which others are agreed on each time")),
        Half::DtlsPsk(_) => return Err(wrong(&"they are for DTLS, whose sessions have keys of their own")),
    };
    let parameters = parameters(&keys).map_err(|error| wrong(&error))?;
    Reader::new(&parameters).map_err(|error| wrong(&error))
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let cannot = |what: &dyn std::fmt::Display| {
        Failure::new(format_args!("cannot read {}: {what}", path.display()))
            .hint("lowband device export NAME writes it")
    };
    let length = fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if length > Credentials::LONGEST as u64 {
        return Err(cannot(&"it is too long to be a device's keys"));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(|error| cannot(&error))
}

/// The device's half as a security context knows it.
fn parameters(keys: &device::Oscore) -> Result<Parameters, lowband::security::oscore::UnknownAlgorithm> {
    Ok(Parameters {
        master_secret: Secret::from(keys.secret.expose().to_vec()),
        master_salt: Secret::from(keys.salt.expose().to_vec()),
        sender_id: keys.device_id.clone(),
        recipient_id: keys.gateway_id.clone(),
        id_context: None,
        algorithm: keys.algorithm.try_into()?,
        hkdf: keys.hkdf.try_into()?,
    })
}

fn number(text: &str) -> Result<PartialIv, String> {
    let number = text.parse().ok().and_then(PartialIv::new);
    number.ok_or_else(|| format!("a Partial IV is a number from 0 to {}", PartialIv::MAX.number()))
}
