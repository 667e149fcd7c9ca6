//! `lowband device export`: the device's half of the keys, in the forms that devices take.

use base16ct::lower::encode_string as hex;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use lowband::device::Credentials;
use lowband::device::EdhocHalf;
use lowband::device::Half;
use lowband::device::Name;
use lowband::device::Oscore;
use lowband::device::Psk;
use lowband::net::control::Answer;
use lowband::net::control::Command;
use lowband::security::edhoc::Credential;
use serde_json::Value;
use serde_json::json;
use zeroize::Zeroizing;

use super::PlaceArgs;
use super::qr;
use super::unexpected;
use crate::cli::Failure;
use crate::cli::output;

/// Give a device's half of its keys
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: into a file; to be scanned; for aiocoap; for libcoap
  $ lowband device export buoy --gateway gateway.example.org -o buoy.toml
  $ lowband device export buoy --gateway gateway.example.org --format qr
  $ lowband device export buoy --gateway gateway.example.org --format aiocoap -o buoy
  $ lowband device export van --gateway gateway.example.org --format libcoap

Whoever has it is the device. Keys of OSCORE may be used in one place alone: another export is for the same device, after it has lost
nothing. One that has lost its state needs new keys (rotate), but for one with EDHOC, which agrees on others by itself.")]
pub(super) struct ExportArgs {
    /// Which
    name: Name,
    /// In what form
    #[arg(long, value_name = "FORM", default_value = "file")]
    format: Format,
    /// Into this file (with aiocoap: this directory), which must not exist yet; to standard output, if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The gateway, as the device reaches it
    #[arg(long, value_name = "HOST[:PORT]", value_parser = gateway)]
    gateway: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// The forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// TOML
    File,
    /// One line of text
    Line,
    /// The line as a QR code on the terminal
    Qr,
    /// Files for aiocoap: a security context, or a key to agree on one by, and credentials that name it
    Aiocoap,
    /// Arguments of libcoap's coap-client, for DTLS with a key
    Libcoap,
}

pub(super) fn run(args: ExportArgs) -> Result<(), Failure> {
    if args.format == Format::Aiocoap && args.output.is_none() {
        return Err(Failure::usage("files for aiocoap need a directory")
            .hint("-o DIRECTORY, which does not exist yet"));
    }
    let command = Command::Export { name: args.name, gateway: args.gateway };
    let Answer::Credentials(line) = args.place.desk()?.ask(command)? else { return Err(unexpected()) };
    let line = line.expose_text().ok_or_else(unexpected)?;
    let credentials = Credentials::read(line).map_err(Failure::new)?;
    let text = match args.format {
        Format::File => credentials.to_file(),
        Format::Line => Zeroizing::new(format!("{line}\n")),
        Format::Qr => {
            let drawn = qr::draw(line).ok_or_else(|| Failure::new("this is too long for a QR code"))?;
            Zeroizing::new(drawn)
        }
        Format::Libcoap => libcoap(&credentials)?,
        Format::Aiocoap => return aiocoap(&credentials, args.output.as_deref().unwrap_or(Path::new("."))),
    };
    match &args.output {
        Some(path) => output::write_new(path, text.as_bytes()),
        None => output::write(text.as_bytes()),
    }
}

/// A host, or a host and a port.
fn gateway(text: &str) -> Result<String, String> {
    let wrong = || "give a host like gateway.example.org, 192.0.2.1:5683 or [2001:db8::1]".to_owned();
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    if authority.host().is_empty() || text.contains('@') { Err(wrong()) } else { Ok(text.to_owned()) }
}

/// Arguments for coap-client.
fn libcoap(credentials: &Credentials) -> Result<Zeroizing<String>, Failure> {
    let Half::DtlsPsk(psk) = &credentials.half else {
        return Err(Failure::new("coap-client of libcoap 4.3.1 has no OSCORE")
            .hint("--format aiocoap, or a device with --security dtls-psk"));
    };
    let key = psk.key.expose_text().filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
    let key = key.ok_or_else(|| {
        Failure::new("coap-client takes no key on its command line that is not text")
            .hint("another device, made without --short-key")
    })?;
    let gateway = credentials.gateway.as_deref().unwrap_or("GATEWAY");
    Ok(Zeroizing::new(format!(
        "coap-client -m get -u {} -k {key} coaps://{gateway}/_matrix/client/versions\n",
        psk.identity
    )))
}

/// A directory for aiocoap: for OSCORE the files of its `FilesystemSecurityContext`, and for all what `--credentials` takes.
fn aiocoap(credentials: &Credentials, directory: &Path) -> Result<(), Failure> {
    let mut files: Vec<(&str, Value)> = Vec::new();
    let (scheme, entry) = match &credentials.half {
        Half::Edhoc(half) => return aiocoap_edhoc(credentials, half, directory),
        Half::Oscore(oscore) => {
            let (settings, secret) = security_context(oscore);
            files.push(("settings.json", settings));
            files.push(("secret.json", secret));
            ("coap", json!({ "oscore": { "basedir": directory.display().to_string() } }))
        }
        Half::DtlsPsk(psk) => {
            // tinydtls, which aiocoap has DTLS of, writes a longer one over what is behind its buffer.
            if psk.key.expose().len() > Psk::SHORT {
                return Err(Failure::new("aiocoap takes a key of 16 bytes at most, and this one is longer")
                    .hint("another device: lowband device add NAME --security dtls-psk --short-key"));
            }
            let key = Zeroizing::new(hex(psk.key.expose()));
            let entry =
                json!({ "dtls": { "psk": { "hex": *key }, "client-identity": { "ascii": psk.identity } } });
            ("coaps", entry)
        }
    };
    match &credentials.gateway {
        Some(gateway) => {
            files.push(("credentials.json", json!({ format!("{scheme}://{gateway}/*"): entry })))
        }
        None if scheme == "coaps" => {
            return Err(Failure::usage("aiocoap keeps keys by where they are for").hint("--gateway HOST"));
        }
        None => {}
    }
    make_directory(directory)?;
    for (name, value) in files {
        let text = serde_json::to_string_pretty(&value).map_err(Failure::new)?;
        output::write_new(&directory.join(name), Zeroizing::new(format!("{text}\n")).as_bytes())?;
    }
    Ok(())
}

/// A directory for aiocoap with what it agrees on keys by: in CBOR's diagnostic notation, since labels are numbers.
fn aiocoap_edhoc(credentials: &Credentials, half: &EdhocHalf, directory: &Path) -> Result<(), Failure> {
    let Some(gateway) = &credentials.gateway else {
        return Err(Failure::usage("aiocoap keeps keys by where they are for").hint("--gateway HOST"));
    };
    let (Some(private), Some(identity)) = (&half.private, half.identity()) else {
        return Err(Failure::new("the device has its private key itself, and aiocoap needs it in this file"));
    };
    let private = Zeroizing::new(hex(private.expose()));
    let text = Zeroizing::new(format!(
        "{{\n  \"coap://{gateway}/*\": {{\n    \"edhoc-oscore\": {{\n      \"suite\": 2,\n      \"method\": 3,\n      \
         \"own_cred_style\": \"by-key-id\",\n      \"own_cred\": {{14: {}}},\n      \"private_key\": {{1: 2, -1: 1, -4: h'{}'}},\n      \
         \"peer_cred\": {{14: {}}}\n    }}\n  }}\n}}\n",
        claims(identity.credential()),
        *private,
        claims(&half.gateway),
    ));
    make_directory(directory)?;
    output::write_new(&directory.join("credentials.diag"), text.as_bytes())
}

/// A credential without a subject, as both ends have it.
fn claims(credential: &Credential) -> String {
    let (kid, key) = (hex(credential.kid()), credential.key());
    let (x, y) = (hex(key.x()), hex(key.y()));
    format!("{{2: \"\", 8: {{1: {{1: 2, 2: h'{kid}', -1: 1, -2: h'{x}', -3: h'{y}'}}}}}}")
}

/// What aiocoap reads: the algorithms by its names, which are those of IANA's registry.
fn security_context(oscore: &Oscore) -> (Value, Value) {
    let settings = json!({
        "algorithm": "AES-CCM-16-64-128",
        "kdf-hashfun": "sha256",
        "sender-id_hex": hex(&oscore.device_id),
        "recipient-id_hex": hex(&oscore.gateway_id),
    });
    let secret = json!({ "secret_hex": hex(oscore.secret.expose()), "salt_hex": hex(oscore.salt.expose()) });
    (settings, secret)
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| output::cannot_write(path, &error))
}
