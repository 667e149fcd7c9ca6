//! Observed `/sync`: registrations, polls of the homeserver, and notifications.
//!
//! `Gateway::tend` alone begins polls: whatever happens to a feed or to one of its observers is followed by a call of it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tracing::{debug, warn};

use super::feed::{Checked, FeedId, Poll, Start};
use super::memory::Key;
use super::observation::{Observation, Verdict};
use super::shaping::ShapeId;
use super::{Fetch, FetchError, FetchId, Gateway, Output};
use crate::coap::{Instant, ObservationId, Priority};
use crate::codec;
use crate::codec::{EncodeError, Keys};
use crate::device::TokenError;
use crate::endpoint::{Association, RequestKey};
use crate::matrix::route::operation;
use crate::matrix::sync::{Summary, SyncError};
use crate::matrix::{query, sync};
use crate::translate::{Call, Format, Refusal, response};

/// What came of a poll, for the observers at the position that it began from.
enum Answer {
    /// Events, or none.
    Events(Summary, http::Response<Bytes>),
    /// Their observations end with this.
    Last(Last),
    /// It is to be asked again; after this long, where the homeserver says so.
    Later(Option<Duration>),
}

/// The last that an observer hears.
enum Last {
    /// The homeserver's own word.
    Answer(http::Response<Bytes>),
    /// Ours.
    Refusal(Refusal),
}

impl Gateway {
    /// The answer to a registration. The peer observes if it is one to `/sync`; else it has a plain answer.
    pub(super) fn register(
        &mut self,
        key: RequestKey,
        association: Association,
        (call, shape, account): (Call, Option<ShapeId>, Option<Association>),
        result: Result<http::Response<Bytes>, FetchError>,
        checked: Checked,
        now: Instant,
    ) {
        let summary = result.as_ref().ok().filter(|response| response.status() == StatusCode::OK);
        let summary = summary.and_then(|response| sync::summary(response.body()).ok());
        let response = self.translate(association, &call, result);
        // One that is being shut down would leave its new observer without a word.
        let Some(summary) = summary.filter(|_| response.code.is_success() && !self.stopping) else {
            return self.endpoint.respond(key, response, now);
        };
        if self.is_overtaken(key, (&call, shape, account)) {
            self.counters.overtaken += 1;
            return self.endpoint.respond(key, response, now);
        }
        let first = response.clone();
        if let Some(id) = self.endpoint.accept_observation(key, response, now) {
            self.counters.registrations += 1;
            let format = call.format;
            let since = beginning(&call);
            let feed = self.feeds.of(everything(call), shape, account, now);
            let message = self.packed.gave(association, format, &summary.next_batch);
            let observation = Observation::new(feed, association, format, since, summary, checked, now);
            self.observe(id, observation);
            self.sent(id, message);
            self.replace_lost(id, now);
            self.remember(id, Some(&first));
        }
    }

    /// Whether a peer has registered for the same again since, and is served by that.
    fn is_overtaken(
        &self,
        key: RequestKey,
        (call, shape, account): (&Call, Option<ShapeId>, Option<Association>),
    ) -> bool {
        let feed = self.feeds.find(&everything(call.clone()), shape, account);
        let observers = feed.and_then(|feed| self.feeds.get(feed)).map(|feed| &feed.observers);
        observers.into_iter().flatten().any(|observer| self.endpoint.is_overtaken(key, *observer))
    }

    pub(super) fn observe(&mut self, id: ObservationId, observation: Observation) {
        if let Some(feed) = self.feeds.get_mut(observation.feed) {
            feed.observers.insert(id);
        }
        self.observers.insert((observation.association, id));
        self.observations.insert(id, observation);
    }

    /// Sees to it that somebody waits for the events of a feed where its observers do, and that none of them is behind.
    pub(super) fn tend(&mut self, id: FeedId, now: Instant) {
        self.feeds.schedule(id, None);
        while let Some(feed) = self.feeds.get(id) {
            let Some((leader, next)) = feed.choose(self.waiting(id)).filter(|_| !self.stopping) else {
                return self.rest(id);
            };
            let resume = feed.resume();
            if feed.is_holding_off(now) {
                return self.feeds.schedule(id, Some(resume));
            }
            let from = match &feed.poll {
                Some(poll) => poll.from.clone(),
                None if now < resume => {
                    self.feeds.schedule(id, Some(resume));
                    next
                }
                None => match self.begin_poll(id, leader, next.clone(), now) {
                    Ok(()) => next,
                    Err(refusal) => {
                        self.tell_last(leader, &Last::Refusal(refusal), now);
                        continue;
                    }
                },
            };
            return self.catch_up(id, &from, now);
        }
    }

    /// The observers of a feed that wait for it.
    fn waiting(&self, id: FeedId) -> impl Iterator<Item = (ObservationId, &Observation)> {
        let observers = self.feeds.get(id).into_iter().flat_map(|feed| &feed.observers);
        let all = observers.filter_map(|id| Some((*id, self.observations.get(id)?)));
        all.filter(|(_, observation)| observation.is_idle())
    }

    /// Nobody waits for a feed: its poll is given up, and the feed itself where nobody observes it.
    fn rest(&mut self, id: FeedId) {
        let Some(feed) = self.feeds.get_mut(id) else { return };
        let poll = feed.poll.take();
        if feed.observers.is_empty() {
            self.feeds.remove(id);
        }
        self.abandon(poll.map(|poll| poll.fetch));
    }

    pub(super) fn abandon(&mut self, fetch: Option<FetchId>) {
        // The call may be what ended it all, and has ended itself then.
        if let Some(id) = fetch.filter(|fetch| self.fetches.remove(fetch).is_some()) {
            let waits = self.authorized.remove(&id).is_some_and(|call| call.generation.is_none());
            self.outputs.extend((!waits).then_some(Output::Abandon { id }));
        }
    }

    /// Asks the homeserver for what comes after a position, and to wait for it.
    fn begin_poll(
        &mut self,
        id: FeedId,
        leader: ObservationId,
        from: Start,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(feed) = self.feeds.get(id) else { return Ok(()) };
        let timeout = self.config.poll_timeout;
        let call = polling(&feed.call, Some(&from.since), timeout);
        let account = feed.account;
        let http = self.shaping.call(feed.shape, &call).to_http(&self.config.homeserver)?;
        let fetch = self.fetch(Fetch::Poll(id), account, http, timeout, now);
        if let Some(feed) = self.feeds.get_mut(id) {
            feed.polls(leader, Poll { fetch, from }, now);
        }
        Ok(())
    }

    /// Asks the homeserver at once what there is for each who waits and may be behind a poll from there.
    fn catch_up(&mut self, id: FeedId, from: &Start, now: Instant) {
        let behind = self.waiting(id).filter(|(_, observation)| !from.covers(observation.position()));
        for id in behind.map(|(id, _)| id).collect::<Vec<_>>() {
            if let Err(refusal) = self.begin_catch_up(id, now) {
                self.tell_last(id, &Last::Refusal(refusal), now);
            }
        }
    }

    fn begin_catch_up(&mut self, id: ObservationId, now: Instant) -> Result<(), Refusal> {
        let Some(observation) = self.observations.get(&id) else { return Ok(()) };
        let Some(feed) = self.feeds.get(observation.feed) else { return Ok(()) };
        let call = polling(&feed.call, Some(&observation.position().since), Duration::ZERO);
        let account = feed.account;
        let http = self.shaping.call(feed.shape, &call).to_http(&self.config.homeserver)?;
        let fetch = self.fetch(Fetch::CatchUp(id), account, http, Duration::ZERO, now);
        self.counters.catch_ups += 1;
        if let Some(observation) = self.observations.get_mut(&id) {
            observation.catches_up(fetch);
        }
        Ok(())
    }

    /// What a feed's poll came to.
    pub(super) fn polled(
        &mut self,
        id: FeedId,
        result: Result<http::Response<Bytes>, FetchError>,
        now: Instant,
    ) {
        let Some(feed) = self.feeds.get_mut(id) else { return };
        let Some(poll) = feed.poll.take() else { return };
        let answer = self.judge(id, &poll.from.since, result);
        let Some(feed) = self.feeds.get_mut(id) else { return };
        match answer {
            Answer::Later(wait) => feed.failed(wait, now),
            Answer::Events(summary, response) => {
                feed.answered();
                self.spread(id, &poll, &summary, &response, now);
            }
            Answer::Last(last) => {
                feed.answered();
                // Those at other positions ask for themselves, and hear it too if it is meant for them.
                let there = self
                    .waiting(id)
                    .filter(|(_, observation)| observation.position().since == poll.from.since);
                for id in there.map(|(id, _)| id).collect::<Vec<_>>() {
                    self.tell_last(id, &last, now);
                }
            }
        }
        self.tend(id, now);
    }

    /// Events, or none, of a feed's poll: for those at the position that it began from. The others were checked by it where it
    /// brought nothing new; where it did they are behind, since nobody can say where they are.
    fn spread(
        &mut self,
        id: FeedId,
        poll: &Poll,
        summary: &Summary,
        response: &http::Response<Bytes>,
        now: Instant,
    ) {
        let checked = Checked::by(poll.fetch, self.next_fetch);
        let waiting: Vec<_> = self.waiting(id).map(|(id, _)| id).collect();
        let (mut told, mut others) = (Vec::new(), Vec::new());
        // Where a leader has gone, nobody can say whether this is new.
        let mut is_new = true;
        for id in waiting {
            let Some(observation) = self.observations.get_mut(&id) else { continue };
            let position = observation.position();
            if position.since != poll.from.since {
                others.extend(poll.from.covers(position).then_some(id));
                continue;
            }
            match observation.answered(summary, checked, now) {
                Verdict::Notify(priority) => told.push((id, priority)),
                Verdict::Nothing => is_new = false,
            }
        }
        is_new |= !told.is_empty();
        for id in others {
            let Some(observation) = self.observations.get_mut(&id) else { continue };
            match is_new {
                true => observation.outdate(),
                false => observation.checked(checked, now),
            }
        }
        if told.is_empty() {
            self.counters.idle_polls += 1;
            self.feeds.get_mut(id).into_iter().for_each(|feed| feed.was_idle(now));
        }
        for (id, priority) in told {
            self.notify(id, response, priority, now);
        }
    }

    /// What an observer's own poll came to.
    pub(super) fn caught_up(
        &mut self,
        id: ObservationId,
        fetch: FetchId,
        result: Result<http::Response<Bytes>, FetchError>,
        now: Instant,
    ) {
        let Some(observation) = self.observations.get(&id) else { return };
        let (feed_id, peer) = (observation.feed, observation.association);
        let since = observation.position().since.clone();
        let answer = self.judge(feed_id, &since, result);
        let Some(observation) = self.observations.get_mut(&id) else { return };
        let Some(feed) = self.feeds.get_mut(feed_id) else { return };
        match answer {
            Answer::Later(wait) => {
                observation.failed();
                feed.failed(wait, now);
            }
            Answer::Events(summary, response) => {
                feed.answered();
                let checked = Checked::by(fetch, self.next_fetch);
                match observation.answered(&summary, checked, now) {
                    Verdict::Nothing => self.counters.idle_polls += 1,
                    Verdict::Notify(priority) => self.notify(id, &response, priority, now),
                }
            }
            Answer::Last(last) => self.tell_last(id, &last, now),
        }
        // Others of the peer may have waited for this one, which has nothing to say.
        if self.observations.get(&id).is_some_and(|observation| !observation.is_busy()) {
            self.wait_for(peer, now);
        }
        self.tend(feed_id, now);
    }

    /// What a poll of a feed from a position came to.
    fn judge(
        &mut self,
        id: FeedId,
        since: &str,
        result: Result<http::Response<Bytes>, FetchError>,
    ) -> Answer {
        let Some(feed) = self.feeds.get(id) else { return Answer::Later(None) };
        let parameters = query::with(&feed.call.query, "since", Some(since));
        let response = match self.shaping.answer(feed.shape, &parameters, result) {
            Ok(response) => response,
            // An answer that is too large will be so again: the peer has to ask for less.
            Err(error @ FetchError::TooLarge { .. }) => return Answer::Last(Last::Refusal(error.into())),
            Err(FetchError::Token(TokenError::Unavailable { wait, .. })) => return Answer::Later(Some(wait)),
            Err(error @ FetchError::Token(_)) => return Answer::Last(Last::Refusal(error.into())),
            Err(_) => return Answer::Later(None),
        };
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            warn!(%status, "poll of the homeserver failed, and will be tried again");
            self.counters.fetch_failures += 1;
            let wait = response::retry_after(&response).map(u64::from).map(Duration::from_secs);
            return Answer::Later(wait);
        }
        // RFC 7641 §4.2: what the homeserver refuses is the last notification: M_UNKNOWN_TOKEN, say.
        if !status.is_success() {
            debug!(%status, "the homeserver ends an observation");
            return Answer::Last(Last::Answer(response));
        }
        match sync::summary(response.body()) {
            Ok(summary) if status == StatusCode::OK => Answer::Events(summary, response),
            unusable => self.unusable(&response, unusable.err()),
        }
    }

    /// A success that is no answer to `/sync`, or one that is nested too deep to be read: that will be so again.
    fn unusable(&mut self, response: &http::Response<Bytes>, error: Option<SyncError>) -> Answer {
        self.counters.bad_answers += 1;
        let status = response.status();
        let carried = codec::json_to_cbor(response.body(), Keys::Strings, &self.config.codec);
        if let Err(error @ EncodeError::Depth { .. }) = carried {
            warn!(%error, "answer to a poll cannot be carried");
            return Answer::Last(Last::Refusal(Refusal::Unencodable { status, error }));
        }
        let error = error.map(|error| error.to_string());
        warn!(%status, error, "answer to a poll is none to /sync, and will be asked for again");
        Answer::Later(None)
    }

    /// Tells an observer what is new. What cannot be carried will be so again, so that the refusal is the last that it hears.
    fn notify(
        &mut self,
        id: ObservationId,
        response: &http::Response<Bytes>,
        priority: Priority,
        now: Instant,
    ) {
        let Some(call) = self.call_of(id) else { return };
        let response = self.write_notification(id, &call, response);
        self.counters.notifications += 1;
        self.endpoint.notify(id, response.clone(), priority, now);
        match response.code.is_success() {
            true => self.remember(id, Some(&response)),
            false => self.end_told(id, now),
        }
    }

    /// Ends an observation, and tells the peer why.
    fn tell_last(&mut self, id: ObservationId, last: &Last, now: Instant) {
        let (Some(call), Some(peer)) = (self.call_of(id), self.endpoint.association(id)) else { return };
        let response = match last {
            // A packed notification could not say the status.
            Last::Answer(response) => self.translate(peer, &unpacked(call), Ok(response.clone())),
            Last::Refusal(refusal) => response::refuse(refusal, call.format),
        };
        self.counters.notifications += 1;
        self.endpoint.notify(id, response, Priority::Notification, now);
        self.end_told(id, now);
    }

    /// An observation ends with what its peer is being told. Its others that wait for their turn have it once that has had its time.
    fn end_told(&mut self, id: ObservationId, now: Instant) {
        let peer = self.observations.get(&id).map(|observation| observation.association);
        self.remove_observation(id);
        peer.into_iter().for_each(|peer| self.wait_for(peer, now));
    }

    /// The call that an observation's notifications answer.
    fn call_of(&self, id: ObservationId) -> Option<Call> {
        let observation = self.observations.get(&id)?;
        let feed = self.feeds.get(observation.feed)?;
        Some(Call { format: observation.format, ..(*feed.call).clone() })
    }

    /// Ends an observation, and tells the peer why.
    pub(super) fn end_observation(&mut self, id: ObservationId, why: Refusal, now: Instant) {
        let feed = self.observations.get(&id).map(|observation| observation.feed);
        self.tell_last(id, &Last::Refusal(why), now);
        feed.into_iter().for_each(|feed| self.tend(feed, now));
    }

    /// The peer has ended an observation, or the endpoint for it: the next one of the same events has its turn.
    pub(super) fn deregistered(&mut self, id: ObservationId, now: Instant) {
        let peer = self.observations.get(&id).map(|observation| observation.association);
        self.forget_observation(id, now);
        peer.into_iter().for_each(|peer| self.reachable(peer, now));
    }

    /// Forgets an observation that its peer has ended.
    pub(super) fn forget_observation(&mut self, id: ObservationId, now: Instant) {
        let feed = self.remove_observation(id);
        feed.into_iter().for_each(|feed| self.tend(feed, now));
    }

    /// Takes an observation away, and what is under way for it alone; its feed is to be tended then.
    fn remove_observation(&mut self, id: ObservationId) -> Option<FeedId> {
        let observation = self.observations.remove(&id)?;
        let peer = observation.association;
        if self.config.endpoint.durable {
            self.memories.forget(&Key::Observation(id));
        }
        self.observers.remove(&(peer, id));
        if self.observations_of(peer).next().is_none() {
            self.absences.end(peer);
        }
        if let Some(feed) = self.feeds.get_mut(observation.feed) {
            feed.observers.remove(&id);
        }
        self.abandon(observation.catching_up());
        Some(observation.feed)
    }

    /// All of a notification was acknowledged: the observer's position moves, and it waits for what comes next.
    pub(super) fn delivered(&mut self, id: ObservationId, now: Instant) {
        let Some(observation) = self.observations.get_mut(&id) else { return };
        self.counters.delivered += 1;
        let registered = observation.is_new();
        observation.delivered(now);
        self.acknowledge(id);
        self.remember(id, None);
        // What was fetched in blocks may have been for an older one, which the peer has and this one not: a registration that comes late
        // may be of before a restart of the peer's.
        if self.endpoint.is_confirmed(id) {
            self.replace_unacknowledged(id, registered, now);
        }
        let Some(observation) = self.observations.get(&id) else { return };
        let (feed, peer) = (observation.feed, observation.association);
        self.reachable(peer, now);
        self.absences.end(peer);
        self.tend(feed, now);
    }
}

/// A call whose answer is written as by the compatible profile.
fn unpacked(call: Call) -> Call {
    match call.format {
        Format::Packed(_) => Call { format: Format::Cbor(Keys::V1), ..call },
        Format::Cbor(_) | Format::Json => call,
    }
}

/// Whether a call is one that can be observed: GET of `/sync`.
pub(super) fn is_sync(call: &Call) -> bool {
    call.target.is(operation::SYNC)
}

/// A call of `/sync` again, from another position if one is given, with this long a wait and without the whole state anew. The empty
/// position is before everything, and not said: homeservers refuse it.
pub(super) fn polling(call: &Call, since: Option<&str>, timeout: Duration) -> Call {
    let mut parameters = query::with(&call.query, "timeout", Some(&timeout.as_millis().to_string()));
    if since.is_some() {
        parameters = query::with(&parameters, "since", since.filter(|since| !since.is_empty()));
        parameters = query::with(&parameters, "full_state", None);
    }
    Call { query: parameters, ..call.clone() }
}

/// Where the peer of a registration is: at its position, or before everything where it has none or asks for the whole state.
fn beginning(call: &Call) -> String {
    let since = query::get(&call.query, "since").unwrap_or_default();
    match query::get(&call.query, "full_state") {
        Some("true") => String::new(),
        _ => since.to_owned(),
    }
}

/// A call of `/sync` without what differs between observers of the same events.
pub(super) fn everything(call: Call) -> Call {
    let of_one = ["since", "timeout", "full_state"];
    let parameters = of_one.iter().fold(call.query, |query, name| query::with(&query, name, None));
    Call { query: parameters, ..call }
}

/// How long a call asks the homeserver to wait: its `timeout`, which only long polls have, and at most ten minutes of it.
pub(super) fn wait(call: &Call) -> Duration {
    let milliseconds =
        query::get(&call.query, "timeout").and_then(|timeout| timeout.parse().ok()).unwrap_or(0);
    Duration::from_millis(milliseconds).min(LONGEST_WAIT)
}

/// The longest wait that a peer may ask the homeserver for; longer ones are cut off by the fetch's timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
