//! `--profile packed`: a call by the packed profile, with what both ends know of each other kept from one to the next.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use lowband::coap::OptionNumber;
use lowband::net::devices::beside;
use lowband::packed::Coders;
use lowband::translate::packed::caller::CallError;
use lowband::translate::packed::caller::Caller;
use lowband::translate::packed::caller::Step;

use super::Call;
use super::Lines;
use super::tell;
use crate::cli::Failure;

/// Where it is kept, if it is.
pub(super) struct Kept {
    path: Option<PathBuf>,
}

impl Kept {
    /// Beside the state of a device's keys, which nobody else has open at the time. Without keys each call is of another address, and
    /// begins anew.
    pub(super) fn of(credentials: Option<&str>, state: Option<&Path>) -> Self {
        let state = state.map(Path::to_owned);
        let own = || {
            credentials.filter(|given| !given.contains("://")).map(|file| beside(Path::new(file), ".state"))
        };
        Self { path: state.or_else(own).map(|state| beside(&state, ".packed")) }
    }

    /// What was kept. What cannot be read is of no use, and another agreement takes its place.
    fn read(&self) -> Result<Caller, Failure> {
        let mut chance = [0; 8];
        getrandom::fill(&mut chance).map_err(Failure::new)?;
        let kept = self.path.as_ref().and_then(|path| fs::read(path).ok());
        let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(kept.unwrap_or_else(|| Caller::new(chance)))
    }

    /// Keeps it, before anything leaves that the gateway will refer to.
    fn write(&self, caller: &Caller) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let written =
            serde_json::to_vec(caller).map_err(io::Error::other).and_then(|bytes| replace(path, &bytes));
        written.map_err(|error| Failure::new(format_args!("cannot write {}: {error}", path.display())))
    }
}

impl Call<'_> {
    /// Makes the call, and what the two ends need to come to agree before it.
    pub(super) async fn once_packed(&self, http: http::Request<Bytes>, kept: &Kept) -> Result<(), Failure> {
        let coders = Coders::built_in();
        let mut caller = kept.read()?;
        let (mut pending, mut step) = caller.begin(http, coders).map_err(|error| failure(&error))?;
        loop {
            kept.write(&caller)?;
            let mut request = match step {
                Step::Send(request) => request,
                Step::Done(_) => return Err(failure(&CallError::Unmended)),
            };
            if self.args.announce_link {
                request.options.push(OptionNumber::LINK, self.link.name.as_bytes());
            }
            let was_compatible = caller.is_compatible();
            let answer = self.in_time(self.client.request(request)).await?;
            let answer = answer.map_err(|error| self.unanswered(&error))?;
            step = caller.receive(&mut pending, &answer, coders).map_err(|error| failure(&error))?;
            if caller.is_compatible() && !was_compatible {
                tell("the gateway does not speak the packed profile with us: the compatible one is used");
            }
            if let Step::Done(http) = step {
                kept.write(&caller)?;
                return self.print_as(&answer, &http, Lines::Many);
            }
        }
    }
}

fn failure(error: &CallError) -> Failure {
    match error {
        CallError::Encode(_) => Failure::usage(error),
        _ => Failure::unanswered(error),
    }
}

/// Writes a file for its owner alone, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
