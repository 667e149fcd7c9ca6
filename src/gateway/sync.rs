//! Observed `/sync`: registrations, polls of the homeserver, and notifications.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tracing::{debug, warn};

use super::observation::{Observation, Verdict};
use super::{Fetch, FetchError, Gateway, Output};
use crate::coap::{Instant, ObservationId, Priority};
use crate::endpoint::RequestKey;
use crate::matrix::route::operation;
use crate::matrix::{query, sync};
use crate::translate::{Call, Refusal, response};

impl Gateway {
    /// The answer to a registration. The peer observes if it is one to `/sync`; else it has a plain answer.
    pub(super) fn register(
        &mut self,
        key: RequestKey,
        call: Call,
        result: Result<http::Response<Bytes>, FetchError>,
        now: Instant,
    ) {
        let summary = result.as_ref().ok().filter(|response| response.status() == StatusCode::OK);
        let summary = summary.and_then(|response| sync::summary(response.body()).ok());
        let response = self.translate(&call, result);
        // One that is being shut down would leave its new observer without a word.
        let Some(summary) = summary.filter(|_| response.code.is_success() && !self.stopping) else {
            return self.endpoint.respond(key, response, now);
        };
        if let Some(id) = self.endpoint.accept_observation(key, response, now) {
            self.counters.registrations += 1;
            self.observations.insert(id, Observation::new(call, summary, now));
        }
    }

    /// Asks the homeserver for what comes after an observer's position.
    pub(super) fn poll_homeserver(&mut self, id: ObservationId, now: Instant) {
        let Some(observation) = self.observations.get(&id) else { return };
        let timeout = self.config.poll_timeout;
        let call = polling(&observation.call, Some(observation.since()), timeout);
        let http = match call.to_http(&self.config.homeserver) {
            Ok(http) => http,
            Err(refusal) => return self.end_observation(id, &refusal, now),
        };
        let fetch = self.fetch(Fetch::Poll(id), http, timeout);
        if let Some(observation) = self.observations.get_mut(&id) {
            observation.polls(fetch, now);
        }
    }

    /// What a poll came to: a notification, another poll, or the end of the observation.
    pub(super) fn polled(
        &mut self,
        id: ObservationId,
        result: Result<http::Response<Bytes>, FetchError>,
        now: Instant,
    ) {
        let Some(observation) = self.observations.get_mut(&id) else { return };
        let response = match result {
            Ok(response) => response,
            // An answer that is too large will be so again: the peer has to ask for less.
            Err(error @ FetchError::TooLarge { .. }) => return self.end_observation(id, &error.into(), now),
            Err(_) => {
                observation.failed(None, now);
                return self.schedule(id);
            }
        };
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            warn!(%status, "poll of the homeserver failed, and will be tried again");
            self.counters.fetch_failures += 1;
            let wait = response::retry_after(&response).map(u64::from).map(Duration::from_secs);
            observation.failed(wait, now);
            return self.schedule(id);
        }
        let summary = match sync::summary(response.body()) {
            Ok(summary) if status == StatusCode::OK => summary,
            // RFC 7641 §4.2: what the homeserver refuses is the last notification: M_UNKNOWN_TOKEN, say.
            _ if !status.is_success() => return self.notify_last(id, response, now),
            unusable => {
                let error = unusable.err().map(|error| error.to_string());
                warn!(%status, error, "answer to a poll is none to /sync, and will be asked for again");
                self.counters.bad_answers += 1;
                observation.failed(None, now);
                return self.schedule(id);
            }
        };
        match observation.answered(summary, now) {
            Verdict::Nothing => {
                self.counters.idle_polls += 1;
                self.schedule(id);
            }
            Verdict::Notify => self.notify(id, response, now),
        }
    }

    fn notify(&mut self, id: ObservationId, response: http::Response<Bytes>, now: Instant) {
        let Some(call) = self.observations.get(&id).map(|observation| observation.call.clone()) else {
            return;
        };
        let response = self.translate(&call, Ok(response));
        self.counters.notifications += 1;
        let ends = !response.code.is_success();
        self.endpoint.notify(id, response, Priority::Notification, now);
        if ends {
            self.forget_observation(id);
        }
    }

    fn notify_last(&mut self, id: ObservationId, response: http::Response<Bytes>, now: Instant) {
        debug!(status = %response.status(), "the homeserver ends an observation");
        self.notify(id, response, now);
    }

    /// Ends an observation, and tells the peer why.
    pub(super) fn end_observation(&mut self, id: ObservationId, why: &Refusal, now: Instant) {
        let Some(observation) = self.observations.get(&id) else { return };
        let refusal = response::refuse(why, observation.call.format);
        self.endpoint.notify(id, refusal, Priority::Notification, now);
        self.forget_observation(id);
    }

    /// All of a notification was acknowledged: the observer's position moves, and the next poll begins.
    pub(super) fn delivered(&mut self, id: ObservationId, now: Instant) {
        let Some(observation) = self.observations.get_mut(&id) else { return };
        self.counters.delivered += 1;
        observation.delivered(now);
        self.schedule(id);
    }

    /// A notification was not acknowledged. MSC3079: the registration is removed; the peer knows its position, and registers again from it.
    pub(super) fn undelivered(&mut self, id: ObservationId, now: Instant) {
        debug!("observer does not answer");
        self.counters.undelivered += 1;
        self.endpoint.end_observation(id, now);
        self.forget_observation(id);
    }

    /// Forgets an observation that its peer has ended, and the poll under way for it.
    pub(super) fn forget_observation(&mut self, id: ObservationId) {
        let Some(observation) = self.observations.remove(&id) else { return };
        if let Some(due) = observation.due() {
            self.polls.remove(&(due, id));
        }
        // The poll may be what ended it, and has ended itself then.
        if let Some(fetch) = observation.polling().filter(|fetch| self.fetches.remove(fetch).is_some()) {
            self.outputs.push_back(Output::Abandon { id: fetch });
        }
    }

    fn schedule(&mut self, id: ObservationId) {
        self.polls.extend(self.observations.get(&id).and_then(Observation::due).map(|due| (due, id)));
    }
}

/// Whether a call is one that can be observed: GET of `/sync`.
pub(super) fn is_sync(call: &Call) -> bool {
    call.target.is(operation::SYNC)
}

/// A call of `/sync` again, from another position if one is given, with this long a wait and without the whole state anew.
pub(super) fn polling(call: &Call, since: Option<&str>, timeout: Duration) -> Call {
    let mut parameters = call.query.clone();
    if since.is_some() {
        parameters = query::with(&parameters, "since", since);
        parameters = query::with(&parameters, "full_state", None);
    }
    parameters = query::with(&parameters, "timeout", Some(&timeout.as_millis().to_string()));
    Call { query: parameters, ..call.clone() }
}

/// How long a call asks the homeserver to wait: its `timeout`, which only long polls have, and at most ten minutes of it.
pub(super) fn wait(call: &Call) -> Duration {
    let milliseconds =
        query::get(&call.query, "timeout").and_then(|timeout| timeout.parse().ok()).unwrap_or(0);
    Duration::from_millis(milliseconds).min(LONGEST_WAIT)
}

/// The longest wait that a peer may ask the homeserver for; longer ones are cut off by the fetch's timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
