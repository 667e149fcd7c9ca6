//! Where devices are kept: three settings, and what follows for those that are not set.

use std::path::Path;
use std::path::PathBuf;

use lowband::net::desk;
use lowband::net::devices::Place;
use lowband::net::devices::beside;
use lowband::net::devices::key::KeyPlace;

use super::Settings;

/// The files of devices and the socket; none where neither `devices` nor `state` is set.
pub(crate) fn devices(settings: &Settings) -> Option<desk::Config> {
    let path = |name: &str| settings.get(name)?.values.last().map(PathBuf::from);
    let devices = path("devices").or_else(|| Some(beside(&path("state")?, ".devices")))?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let key = match path("device-key") {
        Some(key) => KeyPlace::File(key),
        None => KeyPlace::usual(&devices, credentials.as_deref().map(Path::new)),
    };
    let control = path("control").unwrap_or_else(|| beside(&devices, ".control"));
    Some(desk::Config { place: Place { devices, key }, control })
}
