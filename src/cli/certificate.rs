//! `lowband certificate`: what a gateway shows to those who come by DTLS without a shared key, and a device that is known by its own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Subcommand;
use lowband::net::Clock;
use lowband::net::dtls::make_certificate;
use lowband::security::dtls::Identity;
use lowband::security::dtls::Subject;

use super::Failure;
use super::output;

/// Make a certificate for DTLS; see docs/devices.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: a gateway with a certificate of its own, and a client that knows it by its digest
  $ lowband certificate new gateway.example.org
  $ lowband gateway --listen coaps://0.0.0.0 --certificate certificate.pem --certificate-key key.pem --allow-unprovisioned dtls …
  $ lowband request GET coaps://gateway.example.org/_matrix/client/versions --pin FINGERPRINT")]
pub(crate) struct CertificateArgs {
    #[command(subcommand)]
    command: CertificateCommand,
}

#[derive(Debug, Subcommand)]
enum CertificateCommand {
    New(NewArgs),
}

/// Make a key on the curve P-256, and a certificate that it signs itself
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ lowband certificate new gateway.example.org --days 3650

Prints the SHA-256 of the certificate, and of its public key: by either a client knows it (--pin).")]
struct NewArgs {
    /// Whose it is: a host's name or address, for clients that look at it
    #[arg(default_value = "lowband")]
    host: Subject,
    /// How many days it holds; lowband itself does not look at it
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// The certificate, into this file, which must not exist yet
    #[arg(short, long, value_name = "FILE", default_value = "certificate.pem")]
    output: PathBuf,
    /// Its private key, into this file, which must not exist yet: for its owner alone
    #[arg(long, value_name = "FILE", default_value = "key.pem")]
    key_output: PathBuf,
}

/// Does what the subcommand says.
pub(crate) fn run(args: CertificateArgs) -> Result<(), Failure> {
    match args.command {
        CertificateCommand::New(args) => new(&args),
    }
}

fn new(args: &NewArgs) -> Result<(), Failure> {
    let lifetime = Duration::from_secs(u64::from(args.days) * 24 * 3600);
    let issued =
        make_certificate(&args.host, Clock::start().now().since_start(), lifetime).map_err(Failure::new)?;
    let Identity::Certificate { certificate, key } = issued.certificate.identity() else {
        return Err(Failure::new("the certificate has no digest"));
    };
    output::write_new(&args.key_output, issued.key_pem.as_bytes())?;
    if let Err(failure) = output::write_new(&args.output, issued.certificate_pem.as_bytes()) {
        // A key without a certificate is of use to nobody, and in the way of the next.
        let _ = fs::remove_file(&args.key_output);
        return Err(failure);
    }
    output::write_line(&format!("certificate {certificate}\npublic key  {key}"))?;
    output::tell(format_args!(
        "certificate in {}, private key in {}",
        args.output.display(),
        args.key_output.display()
    ));
    output::tell(format_args!("hint: a client knows it by --pin {key}"));
    Ok(())
}
