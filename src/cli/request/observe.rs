//! An observation that outlasts its gateway: registered again, from where it was, when the gateway has ended it, and after a long
//! silence, in which a gateway may have been killed that knows of nothing any more (docs/wire.md §6).

use std::time::Duration;

use lowband::coap;
use lowband::coap::Code;
use lowband::coap::OptionNumber;
use lowband::coap::Response;
use lowband::link::End;
use lowband::link::Profile;
use lowband::matrix::sync;
use lowband::matrix::sync::Counters;
use lowband::net::client::Observation;
use lowband::net::client::RequestError;
use lowband::translate;
use tokio::time;

use super::Call;
use super::Limits;
use super::Lines;
use super::tell;
use crate::cli::Failure;

/// Registers, prints what comes, and registers again.
pub(super) struct Observer<'a> {
    call: &'a Call<'a>,
    request: coap::Request,
    observation: Observation,
    /// How many answers were printed.
    answers: u64,
    /// The position after the last of them.
    since: Option<String>,
    /// Whether the next answer is that to a registration which is not the first.
    is_again: bool,
    /// The wait before the next registration where one after the other fails, and whether it is on.
    pause: Duration,
    is_pausing: bool,
    /// What the answers have said of counts, by which a later one says something new.
    counters: Counters,
}

/// What ends a wait.
enum Happened {
    Answer(Option<Result<Response, RequestError>>),
    Silence,
    Interrupt,
}

impl<'a> Observer<'a> {
    pub(super) const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
    pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

    /// An observer that has begun to register.
    pub(super) fn new(call: &'a Call<'a>, request: coap::Request) -> Self {
        let observation = call.client.observe(request.clone());
        let pause = Self::SHORTEST_PAUSE;
        Self {
            call,
            request,
            observation,
            answers: 0,
            since: None,
            is_again: false,
            pause,
            is_pausing: false,
            counters: Counters::default(),
        }
    }

    /// Goes on until there are as many answers as were asked for, Ctrl-C, or an answer that says that it will not do.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        while self.call.args.count.is_none_or(|count| self.answers < count) {
            match self.next().await? {
                Happened::Answer(answer) => self.take(answer)?,
                Happened::Silence => self.renew(),
                Happened::Interrupt => return Ok(()),
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Happened, Failure> {
        if self.is_pausing {
            return Ok(tokio::select! {
                () = time::sleep(self.pause) => Happened::Silence,
                _ = tokio::signal::ctrl_c() => Happened::Interrupt,
            });
        }
        let is_first = self.answers == 0;
        let silence = self.call.args.renew.unwrap_or_else(|| renewal(self.call.link));
        let next = async {
            match is_first {
                true => self.call.in_time(self.observation.next()).await,
                false => Ok(self.observation.next().await),
            }
        };
        tokio::select! {
            answer = next => answer.map(Happened::Answer),
            // A registration that is under way has timers of its own.
            () = self.call.silent_for(silence), if !is_first && !self.is_again => Ok(Happened::Silence),
            _ = tokio::signal::ctrl_c() => Ok(Happened::Interrupt),
        }
    }

    fn take(&mut self, answer: Option<Result<Response, RequestError>>) -> Result<(), Failure> {
        match answer {
            Some(Ok(response)) if self.answers > 0 && response.code == Code::SERVICE_UNAVAILABLE => {
                self.pause("the gateway stops");
                Ok(())
            }
            Some(Ok(response)) => self.print(&response),
            Some(Err(error)) if self.answers > 0 => {
                self.pause(&error.to_string());
                Ok(())
            }
            Some(Err(error)) => Err(self.call.unanswered(&error)),
            None if self.answers > 1 => Err(Failure::unanswered("the peer has ended the observation")),
            None => {
                let failure = Failure::unanswered("the peer answers, and does not observe this");
                Err(failure.hint("a gateway observes /sync, and so many of them for each peer"))
            }
        }
    }

    /// Prints an answer, but for one to a later registration that has no news.
    fn print(&mut self, response: &Response) -> Result<(), Failure> {
        let is_again = std::mem::take(&mut self.is_again);
        self.pause = Self::SHORTEST_PAUSE;
        let http = translate::response::to_http(response, &Limits::default());
        if let Some(summary) = http.ok().and_then(|http| sync::summary(http.body()).ok()) {
            let has_news = !summary.is_empty_since(&self.counters);
            self.counters.merge(&summary.counters);
            self.since = Some(summary.next_batch);
            if is_again && !has_news {
                return Ok(());
            }
        }
        self.answers += 1;
        self.call.print(response, Lines::One)
    }

    /// Registers again after a while, and after a longer one each time until an answer comes.
    fn pause(&mut self, why: &str) {
        if self.is_again {
            self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        }
        self.is_pausing = true;
        tell(&format!("registering again in {} s: {why}", self.pause.as_secs()));
    }

    /// Registers anew, from the last position.
    fn renew(&mut self) {
        if let Some(since) = &self.since {
            let queries: Vec<_> =
                self.request.options.all(OptionNumber::URI_QUERY).map(<[u8]>::to_vec).collect();
            self.request.options.remove(OptionNumber::URI_QUERY);
            for query in queries.into_iter().filter(|query| !query.starts_with(b"since=")) {
                self.request.options.push(OptionNumber::URI_QUERY, query);
            }
            self.request.options.push(OptionNumber::URI_QUERY, format!("since={since}"));
        }
        let next = self.call.client.observe(self.request.clone());
        std::mem::replace(&mut self.observation, next).forget();
        self.is_again = true;
        self.is_pausing = false;
    }
}

impl Call<'_> {
    /// Waits until nothing at all has come for so long.
    pub(super) async fn silent_for(&self, silence: Duration) {
        let mut received = self.client.traffic().received_datagrams;
        loop {
            time::sleep(silence).await;
            let before = std::mem::replace(&mut received, self.client.traffic().received_datagrams);
            if received == before {
                return;
            }
        }
    }
}

/// The silence after which an observer registers again: a quarter of an hour, or so long that it takes a hundredth of what the link
/// lets it send.
pub(super) fn renewal(link: &Profile) -> Duration {
    /// A registration with its token, and IP and UDP around it.
    const BYTES: u64 = 100;
    const SHORTEST: Duration = Duration::from_secs(15 * 60);
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let slower =
        [End::Peer, End::Gateway].into_iter().map(|end| link.rate(end)).filter(|rate| *rate > 0).min();
    let airtime = slower.map_or(0.0, |rate| (BYTES * 8) as f64 / rate as f64);
    Duration::try_from_secs_f64(100.0 * airtime / link.duty_cycle).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observer_registers_again_as_often_as_its_link_bears() {
        let minutes = |name: &str| renewal(&Profile::built_in(name).unwrap()).as_secs() / 60;
        assert_eq!((minutes("lan"), minutes("hf-100"), minutes("geo-600ms")), (15, 15, 15));
        assert!((5 * 60..24 * 60).contains(&minutes("lora-sf12")), "{}", minutes("lora-sf12"));
    }
}
