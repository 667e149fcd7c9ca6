//! An observation by the packed profile that outlasts its gateway, as `observe` has it for the compatible one.

use std::time::Duration;

use bytes::Bytes;
use lowband::coap::Code;
use lowband::coap::Response;
use lowband::matrix::sync;
use lowband::matrix::sync::Counters;
use lowband::net::client::Observation;
use lowband::net::client::RequestError;
use lowband::packed::EncodeError;
use lowband::translate::packed::caller::CallError;
use lowband::translate::packed::caller::Pending;
use lowband::translate::packed::caller::Step;
use tokio::time;

use super::super::Call;
use super::super::Lines;
use super::super::observe::Observer;
use super::super::observe::renewal;
use super::super::tell;
use super::Speaker;
use super::failure;
use crate::cli::Failure;

/// Registers, prints what comes, and registers again.
pub(super) struct PackedObserver<'a> {
    call: &'a Call<'a>,
    speaker: Speaker<'a>,
    http: http::Request<Bytes>,
    /// How many answers were printed.
    answers: u64,
    /// The position after the last of them.
    since: Option<String>,
    /// What the answers have said of counts, by which a later one says something new.
    counters: Counters,
    /// The wait before the next registration where one after the other fails.
    pause: Duration,
}

/// Why a registration is no more.
enum Ended {
    /// It is to be made again at once.
    Silent,
    /// It is to be made again after a while.
    Gone(String),
    /// There are as many answers as were asked for, or nobody wants any more.
    Enough,
}

impl<'a> PackedObserver<'a> {
    pub(super) fn new(call: &'a Call<'a>, speaker: Speaker<'a>, http: http::Request<Bytes>) -> Self {
        let (since, counters, pause) = (None, Counters::default(), Observer::SHORTEST_PAUSE);
        Self { call, speaker, http, answers: 0, since, counters, pause }
    }

    /// Goes on until there are as many answers as were asked for, Ctrl-C, or an answer that says that it will not do.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        loop {
            let ended = tokio::select! {
                ended = self.observe() => ended?,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let why = match ended {
                Ended::Enough => return Ok(()),
                Ended::Silent => continue,
                Ended::Gone(why) => why,
            };
            tell(&format!("registering again in {} s: {why}", self.pause.as_secs()));
            tokio::select! {
                () = time::sleep(self.pause) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
            self.pause = (self.pause * 2).min(Observer::LONGEST_PAUSE);
        }
    }

    /// One registration, until it is no more.
    async fn observe(&mut self) -> Result<Ended, Failure> {
        let is_again = self.answers > 0;
        let (pending, mut observation, first, http) = match self.register().await {
            Ok(registered) => registered,
            Err(Unregistered::Request(error)) if is_again => return Ok(Ended::Gone(error.to_string())),
            Err(Unregistered::Request(error)) => return Err(self.call.unanswered(&error)),
            Err(Unregistered::Other(failure)) => return Err(failure),
        };
        if is_again && first.code == Code::SERVICE_UNAVAILABLE {
            return Ok(Ended::Gone("the gateway stops".into()));
        }
        self.print(&first, &http, is_again)?;
        let silence = self.call.args.renew.unwrap_or_else(|| renewal(self.call.link));
        while self.call.args.count.is_none_or(|count| self.answers < count) {
            let next = tokio::select! {
                next = observation.next() => next,
                () = self.call.silent_for(silence) => {
                    observation.forget();
                    return Ok(Ended::Silent);
                }
            };
            let response = match next {
                Some(Ok(response)) if response.code == Code::SERVICE_UNAVAILABLE => {
                    return Ok(Ended::Gone("the gateway stops".into()));
                }
                Some(Ok(response)) => response,
                Some(Err(error)) => return Ok(Ended::Gone(error.to_string())),
                None if self.answers > 1 => {
                    return Err(Failure::unanswered("the peer has ended the observation"));
                }
                None => {
                    let failure = Failure::unanswered("the peer answers, and does not observe this");
                    return Err(failure.hint("a gateway observes /sync, and so many of them for each peer"));
                }
            };
            match self.speaker.notified(&pending, &response).await? {
                Ok(http) => self.print(&response, &http, false)?,
                // Another epoch has begun with it; the gateway has ended the observation once it hears of that.
                Err(error) => {
                    observation.forget();
                    return Ok(Ended::Gone(error.to_string()));
                }
            }
        }
        Ok(Ended::Enough)
    }

    /// Registers from the last position; from none where that is lost.
    async fn register(
        &mut self,
    ) -> Result<(Pending, Observation, Response, http::Response<Bytes>), Unregistered> {
        let (mut pending, mut step) = match self.speaker.begin(self.call, self.request()?).await {
            Err(CallError::Encode(EncodeError::ForeignToken)) if self.since.take().is_some() => {
                self.speaker.begin(self.call, self.request()?).await
            }
            begun => begun,
        }
        .map_err(|error| failure(&error))?;
        loop {
            let Step::Send(request) = step else { return Err(failure(&CallError::Unmended).into()) };
            let request = self.speaker.prepare(self.call, request)?;
            if pending.is_hello() {
                let answer = self.call.in_time(self.call.client.request(request)).await?;
                step = self.speaker.receive(self.call, &mut pending, &answer?).await?;
                continue;
            }
            let mut observation = self.call.client.observe(request);
            let answer = self.call.in_time(observation.next()).await?;
            let answer = answer.unwrap_or(Err(RequestError::Closed))?;
            step = match self.speaker.receive(self.call, &mut pending, &answer).await? {
                Step::Done(http) => return Ok((pending, observation, answer, http)),
                step => step,
            };
        }
    }

    /// The request from the last position.
    fn request(&self) -> Result<http::Request<Bytes>, Failure> {
        let mut request = self.http.clone();
        let Some(since) = &self.since else { return Ok(request) };
        let uri = request.uri();
        let others = uri.query().unwrap_or_default().split('&');
        let others = others.filter(|part| !part.is_empty() && !part.starts_with("since="));
        let query = others.map(|part| format!("{part}&")).collect::<String>();
        let uri = format!("{}?{query}since={since}", uri.path()).parse();
        *request.uri_mut() = uri.map_err(Failure::new)?;
        Ok(request)
    }

    /// Prints an answer, but for one to a later registration that has no news.
    fn print(
        &mut self,
        response: &Response,
        http: &http::Response<Bytes>,
        is_again: bool,
    ) -> Result<(), Failure> {
        self.pause = Observer::SHORTEST_PAUSE;
        if let Ok(summary) = sync::summary(http.body()) {
            let has_news = !summary.is_empty_since(&self.counters);
            self.counters.merge(&summary.counters);
            self.since = Some(summary.next_batch);
            if is_again && !has_news {
                return Ok(());
            }
        }
        self.answers += 1;
        self.call.print_as(response, http, Lines::One)
    }
}

/// Why there is no registration.
enum Unregistered {
    Request(RequestError),
    Other(Failure),
}

impl From<RequestError> for Unregistered {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<Failure> for Unregistered {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}
