//! What is asked of the gateway over the line to it, by whichever profile both speak.
//!
//! Whoever asks gets an [`AskId`], and hears by it what came of that: an answer, and where it observes, more of them. One exchange at a time
//! agrees on the profile; what is asked meanwhile waits for that.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use bytes::Bytes;

use super::Config;
use super::Output;
use crate::coap;
use crate::coap::Instant;
use crate::coap::Observe;
use crate::coap::Priority;
use crate::translate::packed::caller::CallError;
use crate::translate::packed::caller::Caller;
use crate::translate::packed::caller::Pending;
use crate::translate::packed::caller::Step;

/// Something that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(u64);

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// One answer.
    Answer,
    /// An answer, and what comes after it.
    News,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Heard {
    /// The homeserver's answer, or the gateway's; and whether more may follow.
    Answer(http::Response<Bytes>, Follows),
    /// It cannot be asked so. Nothing follows.
    Unaskable(CallError),
    /// What came cannot be read. Nothing more follows.
    Unreadable(CallError),
}

/// Whether more may follow an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It is a notification, or the answer to a registration.
    More,
    /// It is the last.
    Nothing,
}

/// The line.
#[derive(Debug)]
pub(super) struct Line {
    caller: Caller,
    next: u64,
    asked: BTreeMap<AskId, Asked>,
    /// What waits until both ends have agreed.
    waiting: VecDeque<(AskId, http::Request<Bytes>, Wants, Priority)>,
    /// The exchange that agrees.
    agreeing: Option<AskId>,
    heard: VecDeque<(AskId, Heard)>,
    /// What was given up, and from when on nothing of it can come to the gateway any more.
    given_up: VecDeque<(Instant, Pending)>,
}

#[derive(Debug)]
struct Asked {
    pending: Pending,
    wants: Wants,
    priority: Priority,
    /// Whether its first answer has come.
    answered: bool,
}

impl Line {
    /// A line of which nothing is known, or what was stored of it.
    pub(super) fn new(caller: Caller) -> Self {
        Self {
            caller,
            next: 0,
            asked: BTreeMap::new(),
            waiting: VecDeque::new(),
            agreeing: None,
            heard: VecDeque::new(),
            given_up: VecDeque::new(),
        }
    }

    /// What is to be stored of it.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Asks. What is to be sent is in `outputs` once nothing is in the way of it.
    pub(super) fn ask(
        &mut self,
        http: http::Request<Bytes>,
        (wants, priority): (Wants, Priority),
        (config, outputs): (&Config, &mut VecDeque<Output>),
    ) -> AskId {
        let id = AskId(self.next);
        self.next += 1;
        match self.agreeing {
            Some(_) => self.waiting.push_back((id, http, wants, priority)),
            None => self.begin(id, http, (wants, priority), (config, outputs)),
        }
        id
    }

    /// What has come of anything that was asked.
    pub(super) fn poll_heard(&mut self) -> Option<(AskId, Heard)> {
        self.heard.pop_front()
    }

    /// An answer has come.
    pub(super) fn answered(
        &mut self,
        id: AskId,
        response: &coap::Response,
        follows: Follows,
        (config, outputs): (&Config, &mut VecDeque<Output>),
    ) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let dictionary = config.dictionary();
        if asked.answered {
            let read = self.caller.notified(&asked.pending, response, dictionary);
            return self.conclude(id, read, follows);
        }
        match self.caller.receive(&mut asked.pending, response, dictionary) {
            Ok(Step::Done(http)) => self.conclude(id, Ok(http), follows),
            Ok(Step::Send(request)) => self.send(id, request, outputs),
            Err(error) => self.conclude(id, Err(error), Follows::Nothing),
        }
        self.go_on((config, outputs));
    }

    /// Nothing comes of it.
    pub(super) fn failed(&mut self, id: AskId, at: (&Config, &mut VecDeque<Output>), now: Instant) {
        if let Some(asked) = self.asked.remove(&id).filter(|asked| !asked.answered) {
            self.given_up.push_back((now + at.0.exchange_lifetime, asked.pending));
            // One of which that is never said costs bytes, and nothing else.
            if self.given_up.len() > at.0.calls {
                self.given_up.pop_front();
            }
        }
        self.go_on(at);
    }

    /// Lets time pass. Whether what is known of the line has changed by that.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let over = self.given_up.iter().take_while(|(until, _)| *until <= now).count();
        self.given_up.drain(..over).for_each(|(_, pending)| self.caller.give_up(&pending));
        over > 0
    }

    /// When it next has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.given_up.front().map(|(until, _)| *until)
    }

    /// Nobody wants to hear of it any more.
    pub(super) fn cancel(
        &mut self,
        id: AskId,
        (config, outputs): (&Config, &mut VecDeque<Output>),
        now: Instant,
    ) {
        self.waiting.retain(|(waiting, ..)| *waiting != id);
        if self.asked.contains_key(&id) {
            outputs.push_back(Output::Cancel { id });
        }
        self.failed(id, (config, outputs), now);
    }

    fn begin(
        &mut self,
        id: AskId,
        http: http::Request<Bytes>,
        (wants, priority): (Wants, Priority),
        (config, outputs): (&Config, &mut VecDeque<Output>),
    ) {
        match self.caller.begin(http, config.dictionary()) {
            Ok((pending, Step::Send(request))) => {
                self.asked.insert(id, Asked { pending, wants, priority, answered: false });
                self.send(id, request, outputs);
            }
            Ok((_, Step::Done(http))) => self.heard.push_back((id, Heard::Answer(http, Follows::Nothing))),
            Err(error) => self.heard.push_back((id, Heard::Unaskable(error))),
        }
    }

    fn conclude(&mut self, id: AskId, read: Result<http::Response<Bytes>, CallError>, follows: Follows) {
        let heard = match read {
            Ok(http) => Heard::Answer(http, follows),
            Err(error @ (CallError::Send(_) | CallError::Encode(_))) => Heard::Unaskable(error),
            Err(error) => Heard::Unreadable(error),
        };
        match (&heard, self.asked.get_mut(&id)) {
            (Heard::Answer(_, Follows::More), Some(asked)) => asked.answered = true,
            _ => drop(self.asked.remove(&id)),
        }
        self.heard.push_back((id, heard));
    }

    /// Begins what has waited for an agreement that is there now, or has failed.
    fn go_on(&mut self, (config, outputs): (&Config, &mut VecDeque<Output>)) {
        let agrees = |id| self.asked.get(&id).is_some_and(|asked: &Asked| asked.pending.is_hello());
        if self.agreeing.is_some_and(agrees) {
            return;
        }
        self.agreeing = None;
        while self.agreeing.is_none()
            && let Some((id, http, wants, priority)) = self.waiting.pop_front()
        {
            self.begin(id, http, (wants, priority), (config, outputs));
        }
    }

    fn send(&mut self, id: AskId, mut request: coap::Request, outputs: &mut VecDeque<Output>) {
        let Some(asked) = self.asked.get(&id) else { return };
        if asked.pending.is_hello() {
            self.agreeing = Some(id);
        } else if asked.wants == Wants::News {
            request.observe = Some(Observe::Register);
        }
        outputs.push_back(Output::Ask { id, request, priority: asked.priority });
    }
}
