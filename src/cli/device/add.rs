//! `lowband device add`: a new device.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::ValueEnum;
use lowband::device::Kind;
use lowband::device::Limits;
use lowband::device::Name;
use lowband::device::NewDevice;
use lowband::device::Pin;
use lowband::device::Routes;
use lowband::net::control::Answer;
use lowband::net::control::Command;
use lowband::security::edhoc::PublicKey;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use sha2::Digest;
use sha2::Sha256;

use super::Desk;
use super::PlaceArgs;
use super::list;
use super::login::TokenArgs;
use super::unexpected;
use crate::cli::Failure;
use crate::cli::config::size_argument;
use crate::cli::config::time_argument;
use crate::cli::output;

/// Make a device: its keys, its Matrix user, and what it may do.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: with OSCORE over radio, logged in here; with keys that are agreed on over the link; with DTLS, and a token that was got
elsewhere; with its own certificate
  $ lowband device add buoy --user @buoy:example.org --login --link hf-100
  $ lowband device add mast --user @mast:example.org --login --link hf-100 --security edhoc
  $ lowband device add van --user @van:example.org --token-file token --security dtls-psk
  $ lowband device add hut --user @hut:example.org --login --security dtls-certificate --certificate hut.pem")]
pub(super) struct AddArgs {
    /// What to call it: letters, digits, and . _ -
    name: Name,
    /// Its Matrix user
    #[arg(long, value_name = "USER")]
    user: String,
    /// How its messages are protected
    #[arg(long, value_name = "KIND", default_value = "oscore")]
    security: SecurityKind,
    #[command(flatten)]
    certificate: CertificateArgs,
    /// With dtls-psk: a key of 16 bytes that are no text, instead of 32 characters, for clients that take no longer one (tinydtls, and
    /// so aiocoap)
    #[arg(long)]
    short_key: bool,
    #[command(flatten)]
    public_key: PublicKeyArgs,
    /// The link that it is behind, if not the listener's: hf-100, … as `lowband link show` lists them
    #[arg(long, value_name = "LINK")]
    link: Option<String>,
    /// What it may ask: messaging, all, or a file with one route a line
    #[arg(long, value_name = "ROUTES", default_value = "messaging")]
    routes: String,
    /// Most requests in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Most time on the link in 24 hours, of both directions
    #[arg(long, value_name = "TIME", value_parser = time_argument)]
    airtime_per_day: Option<Duration>,
    /// Largest body of a request
    #[arg(long, value_name = "SIZE", value_parser = size_argument)]
    payload: Option<usize>,
    /// Most observations at a time
    #[arg(long, value_name = "N")]
    observations: Option<usize>,
    /// Let it bring an access token of its own
    #[arg(long)]
    allow_token: bool,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// How messages are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SecurityKind {
    /// OSCORE: no handshake, for radio
    Oscore,
    /// OSCORE, with keys that are agreed on over the link (EDHOC) and replaced when they are due
    Edhoc,
    /// DTLS with a key that both have
    DtlsPsk,
    /// DTLS with the device's certificate
    DtlsCertificate,
}

/// The certificate of a device that has one.
#[derive(Debug, Args)]
pub(super) struct CertificateArgs {
    /// With dtls-certificate: its certificate, PEM or DER
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    certificate: Option<PathBuf>,
    /// The same by its SHA-256 fingerprint, as `openssl x509 -fingerprint -sha256` prints it
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Pin>,
}

impl CertificateArgs {
    pub(super) fn pin(&self) -> Result<Option<Pin>, Failure> {
        match &self.certificate {
            Some(path) => read_pin(path).map(Some),
            None => Ok(self.fingerprint),
        }
    }
}

/// The key of a device that has made it itself.
#[derive(Debug, Args)]
pub(super) struct PublicKeyArgs {
    /// With edhoc: the device's own public key of P-256 (SEC 1, in hexadecimal, or a PEM or DER file); its private key stays with it
    #[arg(long, value_name = "HEX|FILE", value_parser = read_public_key)]
    public_key: Option<PublicKey>,
}

impl PublicKeyArgs {
    pub(super) fn key(&self) -> Option<PublicKey> {
        self.public_key
    }
}

/// A point of the curve in hexadecimal, or in a file: there with what a SubjectPublicKeyInfo (RFC 5480) has before it.
fn read_public_key(text: &str) -> Result<PublicKey, String> {
    let is_hex =
        |text: &str| text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let from_hex = |text: &str| -> Vec<u8> {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        text.as_bytes()
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, own| byte << 4 | digit(*own)))
            .collect()
    };
    let bytes = match is_hex(text) {
        true => from_hex(text),
        false => {
            let bytes = std::fs::read(text).map_err(|error| format!("cannot read {text}: {error}"))?;
            match SubjectPublicKeyInfoDer::from_pem_slice(&bytes) {
                Ok(der) => der.to_vec(),
                Err(_) => match std::str::from_utf8(&bytes).map(str::trim) {
                    Ok(text) if is_hex(text) => from_hex(text),
                    _ => bytes,
                },
            }
        }
    };
    let point = bytes.strip_prefix(P256_INFO).unwrap_or(&bytes);
    PublicKey::from_sec1(point).map_err(|_| {
        "no public key of P-256; `openssl ec -in KEY -pubout` writes one, from `openssl ecparam -name prime256v1 -genkey`".to_owned()
    })
}

/// What goes before a point of P-256 that is not compressed: `SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING`.
const P256_INFO: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub(super) fn run(args: AddArgs) -> Result<(), Failure> {
    let settings = args.place.settings(&args.token.settings())?;
    let desk = Desk::of(&settings)?;
    if let Some(link) = &args.link {
        settings.links.find(link)?;
    }
    let kind = match (args.security, args.certificate.pin()?) {
        (SecurityKind::Oscore, None) => Kind::Oscore,
        (SecurityKind::DtlsPsk, None) if args.short_key => Kind::DtlsShortPsk,
        (SecurityKind::Edhoc, None) => Kind::Edhoc(args.public_key.key()),
        (SecurityKind::DtlsPsk, None) => Kind::DtlsPsk,
        (SecurityKind::DtlsCertificate, Some(pin)) => Kind::DtlsCertificate(pin),
        (SecurityKind::DtlsCertificate, None) => {
            return Err(Failure::usage("a device with a certificate needs one")
                .hint("--certificate FILE, or --fingerprint HEX"));
        }
        (_, Some(_)) => {
            return Err(Failure::usage("a certificate is for --security dtls-certificate alone"));
        }
    };
    if args.short_key && args.security != SecurityKind::DtlsPsk {
        return Err(Failure::usage("a short key is for --security dtls-psk alone"));
    }
    if args.public_key.key().is_some() && args.security != SecurityKind::Edhoc {
        return Err(Failure::usage("a public key is for --security edhoc alone"));
    }
    let routes = read_routes(&args.routes)?;
    check_free(&desk, &args.name)?;
    let tokens = args.token.obtain(&settings, &args.user, args.name.as_str())?;
    if tokens.is_none() && !args.allow_token {
        return Err(Failure::usage("the device has no access token, and may not bring its own")
            .hint("--login, --token-file FILE, or --allow-token"));
    }
    let limits = Limits {
        requests_per_minute: args.requests_per_minute,
        airtime_per_day: args.airtime_per_day,
        payload: args.payload,
        observations: args.observations,
    };
    let name = args.name.clone();
    let new = NewDevice {
        name: args.name,
        user_id: args.user,
        kind,
        link: args.link,
        routes,
        limits,
        allow_token: args.allow_token,
        tokens,
    };
    let summary = desk.change(Command::Add(Box::new(new)))?;
    output::tell(format_args!("device {name} added: {}", list::keys(&summary)));
    if args.security != SecurityKind::DtlsCertificate {
        output::tell(format_args!("hint: lowband device export {name} gives its half of the keys"));
    }
    Ok(())
}

/// Sees whether the devices can be had, and the name too, before somebody is asked for a password and a session is made.
fn check_free(desk: &Desk, name: &Name) -> Result<(), Failure> {
    let Answer::Devices(devices) = desk.ask(Command::List)? else { return Err(unexpected()) };
    if devices.iter().any(|device| device.name == *name && device.revoked.is_none()) {
        return Err(Failure::new(format_args!("there is a device {name} already")).hint(format_args!(
            "lowband device rotate {name} gives it new keys; revoke {name} makes its name free"
        )));
    }
    Ok(())
}

fn read_routes(text: &str) -> Result<Routes, Failure> {
    if let Some(preset) = Routes::preset(text) {
        return Ok(preset);
    }
    let list = std::fs::read_to_string(text).map_err(|error| {
        Failure::new(format_args!("cannot read routes from {text}: {error}"))
            .hint("routes are messaging, all, or a file with one route a line")
    })?;
    Routes::parse(&list).map_err(|error| Failure::new(format_args!("{text}: {error}")))
}

fn read_pin(path: &Path) -> Result<Pin, Failure> {
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Failure::new(format_args!("cannot read {shown}: {error}")))?;
    let no_certificate = || {
        Failure::new(format_args!("there is no certificate in {shown}"))
            .hint("a PEM file with a CERTIFICATE section, or DER")
    };
    let is_pem = bytes.windows(11).any(|window| window == b"-----BEGIN ");
    let der = match is_pem {
        true => CertificateDer::from_pem_slice(&bytes).map_err(|_| no_certificate())?.to_vec(),
        // X.690 §8.9: a sequence, its length in two bytes or more.
        false if matches!(bytes.as_slice(), [0x30, 0x81..=0x84, ..]) => bytes,
        false => return Err(no_certificate()),
    };
    Ok(Pin(Sha256::digest(&der).into()))
}
