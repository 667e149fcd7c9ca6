//! The key that devices are sealed with, in a file of its own or a systemd credential.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::device::SealingKey;

/// Where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A file of ours, which is made where it is missing.
    File(PathBuf),
    /// A credential that systemd hands to the service (systemd.exec(5), `LoadCredential=`); systemd sees to who may read it.
    Credential(PathBuf),
}

impl KeyPlace {
    /// The name of the credential.
    pub const CREDENTIAL: &'static str = "lowband-device-key";
    /// More is not read: a key is 43 characters.
    const LONGEST: u64 = 256;

    /// The key in the credential where the directory of credentials has it, else in a file beside the devices.
    pub fn usual(devices: &Path, credentials: Option<&Path>) -> Self {
        match credentials.map(|directory| directory.join(Self::CREDENTIAL)).filter(|path| path.exists()) {
            Some(credential) => Self::Credential(credential),
            None => Self::File(super::beside(devices, ".key")),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Credential(path) => path,
        }
    }

    /// The key, if the file is there.
    ///
    /// # Errors
    /// The file is there, and cannot be used.
    pub fn read(&self) -> Result<Option<SealingKey>, KeyError> {
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        self.check_permissions(&file)?;
        let mut text = Zeroizing::new(String::with_capacity(512));
        match file.take(Self::LONGEST).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(self.no_key()),
            Err(error) => return Err(self.io(error)),
        }
        SealingKey::from_text(&text).map(Some).ok_or_else(|| self.no_key())
    }

    /// The key; a new one in a new file where there is none.
    ///
    /// # Errors
    /// The file cannot be used, or not be made.
    pub fn make(&self) -> Result<SealingKey, KeyError> {
        if let Some(key) = self.read()? {
            return Ok(key);
        }
        let mut bytes = Zeroizing::new([0; SealingKey::LENGTH]);
        getrandom::fill(bytes.as_mut_slice())
            .map_err(|error| self.io(io::Error::other(error.to_string())))?;
        let key = SealingKey::new(*bytes);
        self.write(&key).map_err(|error| self.io(error))?;
        Ok(key)
    }

    fn write(&self, key: &SealingKey) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(self.path())?;
        let text = key.to_text();
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            // A part of a key would be in the way of the next try.
            let _ = std::fs::remove_file(self.path());
            return Err(error);
        }
        #[cfg(unix)]
        File::open(self.path().parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")))?
            .sync_all()?;
        Ok(())
    }

    #[cfg(unix)]
    fn check_permissions(&self, file: &File) -> Result<(), KeyError> {
        let metadata = file.metadata().map_err(|error| self.io(error))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        // systemd may give a service its credential by an access control list, which shows as the group's permission.
        let others = match self {
            Self::File(_) => 0o077,
            Self::Credential(_) => 0o007,
        };
        match mode & others {
            0 => Ok(()),
            _ => Err(KeyError::Permissions { path: self.path().to_owned(), mode }),
        }
    }

    #[cfg(not(unix))]
    fn check_permissions(&self, _: &File) -> Result<(), KeyError> {
        Ok(())
    }

    fn io(&self, source: io::Error) -> KeyError {
        KeyError::Io { path: self.path().to_owned(), source }
    }

    fn no_key(&self) -> KeyError {
        KeyError::NoKey { path: self.path().to_owned() }
    }
}

/// A key's file that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Others may read it.
    #[error("others than its owner may use the key file {} (mode {mode:03o})", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is something else in it.
    #[error("there is no key in {}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// What the system says.
    #[error("cannot use the key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl KeyError {
    /// What a person can do about it.
    pub fn hint(&self, path: &Path) -> Option<String> {
        match self {
            Self::Permissions { .. } => Some(format!("chmod 600 {}", path.display())),
            Self::NoKey { .. } => Some(
                "a key is 43 characters of base64url on one line; --device-key names its file".to_owned(),
            ),
            Self::Io { .. } => Some("--device-key names another file".to_owned()),
        }
    }
}
