//! `--profile packed`: a call by the packed profile, with what both ends know of each other kept from one to the next.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use lowband::coap;
use lowband::coap::OptionNumber;
use lowband::net::devices::beside;
use lowband::packed::Dictionary;
use lowband::translate::packed::caller::CallError;
use lowband::translate::packed::caller::Caller;
use lowband::translate::packed::caller::Pending;
use lowband::translate::packed::caller::Step;

use self::observer::PackedObserver;
use super::Call;
use super::Lines;
use super::tell;
use crate::cli::Failure;

mod observer;

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

/// What is spoken with the gateway, and kept.
pub(super) struct Speaker<'a> {
    caller: Caller,
    kept: &'a Kept,
    dictionary: Dictionary,
    /// Whether it was told that the profile is not spoken.
    was_told: bool,
}

impl<'a> Speaker<'a> {
    fn new(kept: &'a Kept, dictionary: Option<Dictionary>) -> Result<Self, Failure> {
        let dictionary = dictionary.unwrap_or_else(|| Dictionary::built_in().clone());
        Ok(Self { caller: kept.read()?, kept, dictionary, was_told: false })
    }

    fn begin(&mut self, http: http::Request<Bytes>) -> Result<(Pending, Step), CallError> {
        self.caller.begin(http, &self.dictionary)
    }

    /// Readies a request to be sent.
    fn prepare(&mut self, call: &Call<'_>, mut request: coap::Request) -> Result<coap::Request, Failure> {
        self.kept.write(&self.caller)?;
        if let Some(why) = self.caller.why_compatible()
            && !std::mem::replace(&mut self.was_told, true)
        {
            tell(&format!(
                "the gateway does not speak the packed profile with us ({why}): the compatible one is used"
            ));
        }
        if call.args.announce_link {
            request.options.push(OptionNumber::LINK, call.link.name.as_bytes());
        }
        Ok(request)
    }

    fn receive(&mut self, pending: &mut Pending, answer: &coap::Response) -> Result<Step, Failure> {
        let step = self.caller.receive(pending, answer, &self.dictionary).map_err(|error| failure(&error))?;
        self.kept.write(&self.caller)?;
        Ok(step)
    }

    /// Takes in a notification, or says why it cannot be read.
    fn notified(
        &mut self,
        pending: &Pending,
        response: &coap::Response,
    ) -> Result<Result<http::Response<Bytes>, CallError>, Failure> {
        let notified = self.caller.notified(pending, response, &self.dictionary);
        self.kept.write(&self.caller)?;
        Ok(notified)
    }
}

impl Call<'_> {
    /// Makes the call, and what the two ends need to come to agree before it.
    pub(super) async fn packed(&self, http: http::Request<Bytes>, kept: &Kept) -> Result<(), Failure> {
        let mut speaker = Speaker::new(kept, self.dictionary.clone())?;
        if self.args.observe {
            return PackedObserver::new(self, speaker, http).run().await;
        }
        let (mut pending, mut step) = speaker.begin(http).map_err(|error| failure(&error))?;
        loop {
            let Step::Send(request) = step else { return Err(failure(&CallError::Unmended)) };
            let request = speaker.prepare(self, request)?;
            let answer = self.in_time(self.client.request(request)).await?;
            let answer = answer.map_err(|error| self.unanswered(&error))?;
            step = match speaker.receive(&mut pending, &answer)? {
                Step::Done(http) => return self.print_as(&answer, &http, Lines::Many),
                step => step,
            };
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
