//! `--profile packed`: a call by the packed profile, with what both ends know of each other kept from one to the next.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use lowband::coap;
use lowband::coap::OptionNumber;
use lowband::link::End;
use lowband::net::Priming;
use lowband::net::devices::beside;
use lowband::packed::Dictionary;
use lowband::translate::packed::caller::CallError;
use lowband::translate::packed::caller::Caller;
use lowband::translate::packed::caller::Pending;
use lowband::translate::packed::caller::Step;
use tokio::time;

use self::observer::PackedObserver;
use super::Call;
use super::Lines;
use super::tell;
use crate::cli::Failure;

mod observer;

/// Where it is kept, if it is.
pub(super) struct Kept {
    path: Option<PathBuf>,
    /// Locked as long as it is in use: two that went on from the same would give the same numbers to what differs.
    _lock: Option<fs::File>,
}

impl Kept {
    /// Beside the state of a device's keys. Without keys each call is of another address, and begins anew.
    pub(super) fn open(credentials: Option<&str>, state: Option<&Path>) -> Result<Self, Failure> {
        let state = state.map(Path::to_owned);
        let own = || {
            credentials.filter(|given| !given.contains("://")).map(|file| beside(Path::new(file), ".state"))
        };
        let path = state.or_else(own).map(|state| beside(&state, ".packed"));
        let lock = path.as_deref().map(|path| lock(&beside(path, ".lock"))).transpose()?;
        Ok(Self { path, _lock: lock })
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
    /// The model, until it is ready.
    priming: Priming,
    /// Whether it was told that the profile is not spoken.
    was_told: bool,
}

impl<'a> Speaker<'a> {
    fn new(kept: &'a Kept, dictionary: Option<Dictionary>) -> Result<Self, Failure> {
        let dictionary = dictionary.unwrap_or_else(|| Dictionary::built_in().clone());
        let priming = Priming::begin(dictionary.primer());
        Ok(Self { caller: kept.read()?, kept, dictionary, priming, was_told: false })
    }

    async fn begin(
        &mut self,
        call: &Call<'_>,
        http: http::Request<Bytes>,
    ) -> Result<(Pending, Step), CallError> {
        if self.caller.agreement().is_some() {
            self.wait_for_model(call).await;
        }
        self.caller.begin(http, &self.dictionary)
    }

    /// Waits for the model, but for no longer than what it saves would take on the link.
    async fn wait_for_model(&mut self, call: &Call<'_>) {
        /// What the model saves of a request, in bytes.
        const SAVED: u64 = 30;
        let rate = call.link.rate(End::Peer);
        if rate > 0 {
            let saved = Duration::from_secs_f64((SAVED * 8) as f64 / rate as f64);
            let _ = time::timeout(saved, self.priming.done()).await;
        }
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

    async fn receive(
        &mut self,
        call: &Call<'_>,
        pending: &mut Pending,
        answer: &coap::Response,
    ) -> Result<Step, Failure> {
        match pending.is_hello() {
            true => self.wait_for_model(call).await,
            false if self.dictionary.awaits_model(&answer.payload) => self.priming.done().await,
            false => {}
        }
        let step = self.caller.receive(pending, answer, &self.dictionary).map_err(|error| failure(&error))?;
        self.kept.write(&self.caller)?;
        Ok(step)
    }

    /// Takes in a notification, or says why it cannot be read.
    async fn notified(
        &mut self,
        pending: &Pending,
        response: &coap::Response,
    ) -> Result<Result<http::Response<Bytes>, CallError>, Failure> {
        if self.dictionary.awaits_model(&response.payload) {
            self.priming.done().await;
        }
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
        let (mut pending, mut step) = speaker.begin(self, http).await.map_err(|error| failure(&error))?;
        loop {
            let Step::Send(request) = step else { return Err(failure(&CallError::Unmended)) };
            let request = speaker.prepare(self, request)?;
            let answer = self.in_time(self.client.request(request)).await?;
            let answer = answer.map_err(|error| self.unanswered(&error))?;
            step = match speaker.receive(self, &mut pending, &answer).await? {
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

fn lock(path: &Path) -> Result<fs::File, Failure> {
    let cannot =
        |error: &dyn std::fmt::Display| Failure::new(format_args!("cannot use {}: {error}", path.display()));
    let file = create(path).map_err(|error| cannot(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let failure = cannot(&"another process uses it");
            Err(failure.hint("another lowband request speaks for this device; one at a time"))
        }
        Err(fs::TryLockError::Error(error)) => Err(cannot(&error)),
    }
}

/// An empty file for its owner alone.
fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes a file for its owner alone, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut file = create(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
