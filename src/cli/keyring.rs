//! `--credentials`: a device's keys from a file or a line, and the place where their state is.

use std::fs;
use std::io;
use std::path::Path;

use lowband::device::Credentials;
use lowband::device::Half;
use lowband::net::devices::beside;
use lowband::net::keyring::Keyring;
use lowband::net::keyring::KeyringError;
use lowband::net::store::StoreError;
use lowband::security::dtls;
use zeroize::Zeroizing;

use super::Failure;
use super::protection::Protection;

/// Opens a device's keys with their state; and says what link the device is behind.
pub(super) fn open(given: &str, state: Option<&Path>) -> Result<(Protection, Option<String>), Failure> {
    let is_line = given.trim_start().starts_with(Credentials::SCHEME);
    let text = if is_line { Zeroizing::new(given.to_owned()) } else { read(Path::new(given))? };
    let credentials = Credentials::read(&text).map_err(Failure::usage)?;
    if let Half::DtlsPsk(psk) = &credentials.half {
        let (identity, key) = (psk.identity.clone().into(), psk.key.expose().to_vec().into());
        return Ok((Protection::Dtls(dtls::Credentials::Psk { identity, key }), credentials.link));
    }
    let state = match state {
        Some(state) => state.to_owned(),
        None if is_line => {
            let failure = Failure::usage("there is no place to keep what the keys are used for");
            return Err(failure.hint("--state FILE, the same one each time"));
        }
        None => beside(Path::new(given), ".state"),
    };
    let keyring = match &credentials.half {
        Half::Oscore(half) => Keyring::open(half, &state),
        Half::Edhoc(half) => Keyring::open_edhoc(half, &state),
        Half::DtlsPsk(_) => return Err(Failure::usage("keys for DTLS are of use with coaps:// alone")),
    };
    let keyring = keyring.map_err(|error| explain(&error, &state))?;
    Ok((Protection::Oscore(Box::new(keyring)), credentials.link))
}

/// Reads a file with a secret in it.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let cannot = |error: io::Error| Failure::usage(format_args!("cannot read {}: {error}", path.display()));
    #[cfg(unix)]
    {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).map_err(cannot)?.permissions());
        if mode & 0o077 != 0 {
            let failure = Failure::usage(format_args!(
                "others than its owner may read {} (mode {:03o}), and keys are in it",
                path.display(),
                mode & 0o777
            ));
            return Err(failure.hint(format_args!("chmod 600 {}", path.display())));
        }
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(cannot)
}

fn explain(error: &KeyringError, state: &Path) -> Failure {
    let failure = match error {
        // It is not the state that lacks it.
        KeyringError::NoPrivateKey => Failure::new(error),
        _ => Failure::new(format_args!("{error} ({})", state.display())),
    };
    match error {
        KeyringError::Store(StoreError::Locked) => {
            failure.hint("another lowband request has these keys; one at a time")
        }
        KeyringError::Store(StoreError::Permissions(_)) => {
            failure.hint(format_args!("chmod 600 {}", state.display()))
        }
        KeyringError::Store(StoreError::Database(_)) | KeyringError::Damaged => failure.hint(
            "the keys cannot be used any more: lowband device rotate gives others, with another --state",
        ),
        KeyringError::NoPrivateKey => {
            failure.hint("put it into the file: private-key = \"64 hexadecimal digits\", under [edhoc]")
        }
        _ => failure.hint("--state names another place"),
    }
}
