//! One peer: its exchanges, its transfers in both roles, and its observations, put together.

mod credit;
mod link;
mod observing;
mod options;
mod protection;
mod requesting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::memory;
use super::queues::Places;
use super::verified::Credit;
use super::{Address, Config, RequestKey};
use crate::coap::{
    Answered, Busy, ClientTransfers, Code, Delivery, Event, ExchangeId, Exchanges, Instant, Kind, Message,
    MessageId, ObservationId, Observations, OptionNumber, Plan, Priority, Received, Reply, Request,
    RequestError, Response, ServerTransfers, Step, Token, TransferLimits,
};
pub(super) use credit::Reflected;
pub(super) use link::Terms;
use options::{is_known_in_request, is_of_bursts};
pub use protection::Binding;
use protection::Protection;

/// All that is known of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where it is.
    pub(super) address: Address,
    pub(super) exchanges: Exchanges,
    pub(super) server: ServerTransfers,
    pub(super) client: ClientTransfers,
    pub(super) observations: Observations,
    /// What one transfer may take up, and how long.
    pub(super) transfers: TransferLimits,
    /// Its link.
    pub(super) terms: Terms,
    /// What its messages are protected with.
    pub(super) protection: Protection,
    /// What it may get, while nobody knows whether it is where it says.
    pub(super) credit: Option<Credit>,
    /// What it was sent where it may be now.
    pub(super) reflected: Option<Reflected>,
    /// What it has taken up of its link.
    pub(super) airtime: PeerAirtime,
    /// Its requests that wait for their answer.
    pub(super) pending: BTreeSet<RequestKey>,
    /// When a datagram last came from it.
    pub(super) heard: Instant,
    /// Where it stands in the endpoint's queues.
    pub(super) placed: Places,
    /// What the confirmable messages under way are for.
    purposes: BTreeMap<ExchangeId, Purpose>,
    /// The notifications whose end was not reported yet. Each is reported once, however often its last block is asked for.
    deliveries: BTreeMap<Delivery, ObservationId>,
    next_delivery: u64,
    outcomes: VecDeque<Outcome>,
    /// The first message ID and the first value of Observe that are not reserved.
    reserved: Option<(MessageId, u32)>,
    /// Whether it has said itself what its link is.
    announced: bool,
    /// Whether it is to be reported when it is next heard of.
    watched: bool,
}

/// Time on the air, of datagrams in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerAirtime {
    /// Of those to the peer.
    pub sent: Duration,
    /// Of those from it.
    pub received: Duration,
}

/// What an answer needs to know of its request's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) token: Token,
    message: (Kind, MessageId),
    /// Whether it may be done again (RFC 7252 §5.1).
    is_safe: bool,
    /// RFC 7967 §2.1: a bit for each class of response that the client does not want.
    unwanted: u32,
    /// What its responses are bound to, where it was protected.
    pub(super) binding: Option<Binding>,
}

impl Asked {
    pub(super) fn of(message: &Message, binding: Option<Binding>) -> Self {
        let unwanted = message.options.get_uint(OptionNumber::NO_RESPONSE).unwrap_or(0);
        let is_safe = matches!(message.code, Code::GET | Code::FETCH);
        Self { token: message.token, message: (message.kind, message.id), is_safe, unwanted, binding }
    }

    /// The same of a message that completes a request. The last block that was missing of a burst may come unconfirmed; the answer to
    /// all of them is not to be lost for it.
    pub(super) fn of_whole(message: &Message, binding: Option<Binding>) -> Self {
        let mut asked = Self::of(message, binding);
        if message.options.get(OptionNumber::Q_BLOCK1).is_some() {
            asked.message.0 = Kind::Confirmable;
        }
        asked
    }

    /// A response to it as one message, whatever its length.
    pub(super) fn whole_answer(&self, response: &Response) -> Message {
        Message {
            kind: Kind::Acknowledgement,
            code: response.code,
            id: self.message.1,
            token: self.token,
            options: response.options.clone(),
            payload: response.payload.clone(),
        }
    }
}

/// What a confirmable message of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A request, by its token.
    Request(Token),
    /// A ping.
    Probe,
    /// The first block of a notification, whose further blocks the peer is to ask for.
    Beginning(ObservationId, Delivery),
    /// A whole notification.
    End(ObservationId, Delivery),
    /// A notification's last block, in answer to a request for it.
    Rest(ObservationId, Delivery),
}

/// What the endpoint has to know.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Something was done, and there may be more.
    Nothing,
    /// A complete request.
    Request { asked: Asked, request: Request, plan: Plan, memory: Option<Box<Message>> },
    /// See [`super::Event::Delivered`].
    Delivered(ObservationId),
    /// See [`super::Event::Undelivered`].
    Undelivered(ObservationId),
    /// See [`super::Event::Deregistered`].
    Deregistered(ObservationId),
    /// See [`super::Event::Reachable`].
    Reachable,
    /// See [`super::Event::Unreachable`].
    Unreachable,
    /// It has announced a link that is not known.
    UnknownLink,
    /// What a request of ours came to.
    Client(Step),
    /// A message with a critical option that is not understood.
    BadOption,
    /// A response that belongs to no request.
    Unexpected,
    /// An answer that could not be sent.
    AnswerDropped,
    /// A response that could not be opened.
    Unopened,
    /// An error that came without protection.
    Unprotected(Response),
    /// It was asked to show where it is.
    Challenged,
}

impl Peer {
    pub(super) fn new(address: Address, config: &Config, seed: u64, now: Instant) -> Self {
        let mut peer = Self {
            address,
            exchanges: Exchanges::new(config.parameters.clone(), config.exchanges.clone(), seed),
            transfers: config.transfers.clone(),
            terms: Terms::default(),
            protection: Protection::default(),
            credit: None,
            reflected: None,
            airtime: PeerAirtime::default(),
            reserved: None,
            announced: false,
            watched: false,
            server: ServerTransfers::default(),
            client: ClientTransfers::new((seed >> 32) as u32),
            observations: Observations::default(),
            pending: BTreeSet::new(),
            heard: now,
            placed: Places::default(),
            purposes: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            next_delivery: 0,
            outcomes: VecDeque::new(),
        };
        peer.adopt(config.link_of(address), config);
        peer
    }

    /// Something has come from it.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        if std::mem::take(&mut self.watched) {
            self.outcomes.push_back(Outcome::Reachable);
            // What was asked is answered.
            self.forget_purposes(now, |purpose| *purpose == Purpose::Probe);
        }
    }

    /// Asks whether it is there.
    pub(super) fn probe(&mut self, now: Instant) {
        self.watched = true;
        if self.purposes.values().any(|purpose| *purpose == Purpose::Probe) {
            return;
        }
        match self.exchanges.ping(now) {
            Ok(exchange) => drop(self.purposes.insert(exchange, Purpose::Probe)),
            Err(_) => self.outcomes.push_back(Outcome::Unreachable),
        }
    }

    /// The next outcome; `None` once there is nothing more to do. `fresh` is a token that is not in use.
    pub(super) fn poll(&mut self, fresh: Token, config: &Config, now: Instant) -> Option<Outcome> {
        if let Some(outcome) = self.outcomes.pop_front() {
            return Some(outcome);
        }
        while let Some(delivery) = self.server.poll_undelivered() {
            if let Some(id) = self.deliveries.remove(&delivery) {
                return Some(Outcome::Undelivered(id));
            }
        }
        match self.exchanges.poll_event()? {
            Event::Request(message) => self.receive_request(message, config, now),
            Event::Response(message) => self.receive_response(message, fresh, now),
            Event::Acknowledged(exchange) => self.acknowledged(exchange, now),
            Event::Reset(exchange) => self.failed(exchange, RequestError::Reset, now),
            Event::TimedOut(exchange) => self.failed(exchange, RequestError::Timeout, now),
        }
        Some(self.outcomes.pop_front().unwrap_or(Outcome::Nothing))
    }

    fn receive_request(&mut self, message: Message, config: &Config, now: Instant) {
        let binding = self.take_binding();
        let in_bursts = self.answers_in_bursts(&message, config);
        let is_known = |number| is_known_in_request(number) || in_bursts && is_of_bursts(number);
        let options = match message.options.clone().understood(is_known) {
            Ok(options) => options,
            Err(number) => return self.refuse_option(&message, binding, number, now),
        };
        let message = Message { options, ..message };
        if let Some(link) = message.options.get(OptionNumber::LINK) {
            self.announce(str::from_utf8(link).ok(), config);
        }
        let mut asked = Asked::of(&message, binding);
        let received = self.server.receive(&message, &self.transfers, now);
        self.bind_body(&asked);
        match received {
            Received::Answer(reply) if self.is_beyond(&asked, &reply) => self.challenge(&mut asked, now),
            Received::Answer(reply) => {
                self.answer(&mut asked, reply, now);
            }
            Received::Nothing => self.exchanges.acknowledge(asked.message.1),
            Received::Request(request, _) if self.is_to_show(&asked, &request) => {
                self.challenge(&mut asked, now);
            }
            Received::Request(request, plan) => {
                let asked = Asked::of_whole(&message, asked.binding);
                // RFC 7641 §4.1: a registration with the same token takes the place of the one before; Observe 1 removes it.
                if request.observe.is_some()
                    && let Some(id) = self.observations.remove(asked.token)
                {
                    self.end_observation(id, now);
                    self.outcomes.push_back(Outcome::Deregistered(id));
                }
                let memory = config.durable.then(|| Box::new(memory::whole(&message, &request)));
                self.outcomes.push_back(Outcome::Request { asked, request, plan, memory });
            }
        }
    }

    /// RFC 7252 §5.4.1: 4.02 for a confirmable request; a non-confirmable one is rejected by silence.
    fn refuse_option(
        &mut self,
        message: &Message,
        binding: Option<Binding>,
        number: OptionNumber,
        now: Instant,
    ) {
        self.outcomes.push_back(Outcome::BadOption);
        if message.kind == Kind::Confirmable {
            let mut asked = Asked { unwanted: 0, ..Asked::of(message, binding) };
            let payload = Bytes::from(format!("{number} ({}) is not understood", number.0));
            self.answer(&mut asked, Reply { payload, ..Reply::empty(Code::BAD_OPTION) }, now);
        }
    }

    fn acknowledged(&mut self, exchange: ExchangeId, now: Instant) {
        let purpose = self.purposes.remove(&exchange);
        if let Some(Purpose::Beginning(id, _) | Purpose::End(id, _)) = purpose {
            self.observations.confirm(id);
        }
        match purpose {
            Some(Purpose::Request(token)) => self.client.acknowledged(token, &self.transfers, now),
            Some(Purpose::End(id, delivery) | Purpose::Rest(id, delivery)) => {
                self.observations.note_reset(id, false);
                self.server.delivered(delivery);
                self.outcomes.extend(self.deliveries.remove(&delivery).map(Outcome::Delivered));
            }
            Some(Purpose::Beginning(..) | Purpose::Probe) | None => {}
        }
    }

    /// A message of ours was reset, or never acknowledged.
    fn failed(&mut self, exchange: ExchangeId, error: RequestError, now: Instant) {
        match self.purposes.remove(&exchange) {
            Some(Purpose::Request(token)) => {
                let step = match error {
                    RequestError::Timeout => self.client.unanswered(token, &self.transfers, now),
                    error => self.client.fail(token, error),
                };
                self.follow(step, now);
            }
            // A ping is answered by a reset (RFC 7252 §4.3), which was heard already.
            Some(Purpose::Probe) if error == RequestError::Reset => {}
            Some(Purpose::Probe) => self.outcomes.push_back(Outcome::Unreachable),
            // The peer has no use for that answer; it says nothing of the observation. One that has lost that will say so next.
            Some(Purpose::Rest(_, delivery)) => {
                self.watched |= error == RequestError::Timeout;
                let unreported = self.abandon(delivery);
                self.outcomes.extend(unreported.map(Outcome::Undelivered));
                if error == RequestError::Reset {
                    self.outcomes.push_back(Outcome::Reachable);
                }
            }
            Some(Purpose::Beginning(id, delivery) | Purpose::End(id, delivery)) => {
                let unreported = self.abandon(delivery);
                let outcome = match error {
                    // A reset is not protected: one that was forged, or that something forged has called forth, is not repeated.
                    RequestError::Reset if self.is_doubtful_reset(id) => {
                        self.outcomes.extend(unreported.map(Outcome::Undelivered));
                        Some(Outcome::Reachable)
                    }
                    // RFC 7641 §3.6: a reset of a notification ends the observation.
                    RequestError::Reset => {
                        self.end_observation(id, now);
                        Some(Outcome::Deregistered(id))
                    }
                    // What was too long will be so again: §4.2, an error is the last notification.
                    RequestError::TooLong { .. } => {
                        let token = self.observations.get(id).map(|(token, _)| token);
                        if let Some(token) = token {
                            let last = message(token, Reply::empty(Code::INTERNAL_SERVER_ERROR));
                            let last = self.sealed_for(id, last);
                            let _ =
                                last.and_then(|last| self.exchanges.send(last, Priority::Notification, now));
                        }
                        self.end_observation(id, now);
                        Some(Outcome::Deregistered(id))
                    }
                    _ => {
                        self.watched = true;
                        unreported.map(Outcome::Undelivered)
                    }
                };
                self.outcomes.extend(outcome);
            }
            None => {}
        }
    }

    /// A message of ours is longer than the link carries. Returns whether it is given up; else something shorter is to be sent.
    pub(super) fn too_long(
        &mut self,
        exchange: ExchangeId,
        length: usize,
        most: usize,
        now: Instant,
    ) -> bool {
        let known = self.purposes.contains_key(&exchange);
        if known {
            self.exchanges.forget(exchange, now);
            self.failed(exchange, RequestError::TooLong { length, most }, now);
        }
        known
    }

    /// Answers a request; for an observer, with its first notification. Returns whether in a confirmable message of its own.
    pub(super) fn respond(
        &mut self,
        asked: &mut Asked,
        mut plan: Plan,
        mut response: Response,
        observer: Option<ObservationId>,
        now: Instant,
    ) -> bool {
        let Some(block) = self.block_for(asked, &plan, &mut response) else {
            self.challenge(asked, now);
            return false;
        };
        if self.credit.is_some() && !asked.is_safe {
            plan = plan.without_bursts();
        }
        let limits = TransferLimits { block, ..self.transfers.clone() };
        let delivery = observer.map(|id| self.deliver(id));
        let mut reply = self.server.respond(plan, response, delivery, &limits, now);
        if let Some((_, observation)) = observer.and_then(|id| self.observations.next(id)) {
            reply.set_sequence(observation.sequence);
        }
        self.answer(asked, reply, now)
    }

    /// The reply to a request's repeats after a restart, as it was given; its further blocks can be had again.
    pub(super) fn recalled_reply(
        &mut self,
        asked: &mut Asked,
        plan: Plan,
        answer: Message,
        now: Instant,
    ) -> Result<Message, Busy> {
        if answer.is_empty() {
            return Ok(answer);
        }
        let response = Response { code: answer.code, options: answer.options, payload: answer.payload };
        let reply = message(asked.token, self.server.respond(plan, response, None, &self.transfers, now));
        self.sealed(reply, asked.binding.as_mut())
    }

    /// Sends the answer to a request's message; where a delivery depends on it, in a confirmable message. Returns whether it
    /// is one of its own.
    fn answer(&mut self, asked: &mut Asked, mut reply: Reply, now: Instant) -> bool {
        // RFC 7967 §2.1: 2, 8 and 16 for the classes 2, 4 and 5. That means responses, not what is said between blocks.
        let class = reply.code.class();
        let between = matches!(reply.code, Code::CONTINUE | Code::REQUEST_ENTITY_INCOMPLETE);
        if reply.delivers.is_none()
            && !between
            && matches!(class, 2 | 4 | 5)
            && asked.unwanted & 1 << (class - 1) != 0
        {
            self.exchanges.acknowledge(asked.message.1);
            return false;
        }
        let delivers = reply.delivers;
        let notifies = reply.options.get(OptionNumber::OBSERVE).is_some();
        let rest = std::mem::take(&mut reply.rest);
        let sealed = self.sealed(message(asked.token, reply), asked.binding.as_mut());
        let sent = sealed.and_then(|message| match delivers {
            None => self.exchanges.respond(asked.message, message, now),
            Some(delivery) => self.exchanges.respond_confirmed(asked.message, message, now).map(|exchange| {
                let purpose = self.deliveries.get(&delivery).map(|id| match notifies {
                    true => Purpose::End(*id, delivery),
                    false => Purpose::Rest(*id, delivery),
                });
                self.purposes.extend(purpose.map(|purpose| (exchange, purpose)));
                Answered::Confirmable(exchange)
            }),
        });
        // Answers that others wait for go before these many blocks.
        for block in rest {
            let sealed = self.sealed(message(asked.token, block), asked.binding.as_mut());
            self.send_block(sealed, Priority::Notification, now);
        }
        if sent.is_err() {
            self.outcomes.push_back(Outcome::AnswerDropped);
            let undelivered = delivers.and_then(|delivery| self.abandon(delivery));
            self.outcomes.extend(undelivered.map(Outcome::Undelivered));
        }
        matches!(sent, Ok(Answered::Confirmable(_)))
    }

    /// Sends a block of a burst; what does not arrive is asked for.
    fn send_block(&mut self, block: Result<Message, Busy>, priority: Priority, now: Instant) {
        if block.and_then(|block| self.exchanges.send_in_burst(block, priority, now)).is_err() {
            self.outcomes.push_back(Outcome::AnswerDropped);
        }
    }

    /// Gives up the messages under way that are for such purposes.
    fn forget_purposes(&mut self, now: Instant, is_forgotten: impl Fn(&Purpose) -> bool) {
        let forgotten = self.purposes.iter().filter(|(_, purpose)| is_forgotten(purpose));
        for exchange in forgotten.map(|(exchange, _)| *exchange).collect::<Vec<_>>() {
            self.purposes.remove(&exchange);
            self.exchanges.forget(exchange, now);
        }
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.exchanges.advance(now);
        self.server.expire(now);
        while let Some((token, reply)) = self.server.ask_for_missing(&self.transfers, now) {
            let sealed = self.sealed_for_body(token, message(token, reply));
            if sealed.and_then(|message| self.exchanges.send_unconfirmed(message, now)).is_err() {
                self.outcomes.push_back(Outcome::AnswerDropped);
            }
        }
        while let Some(step) = self.client.expire(&self.transfers, now) {
            self.follow(step, now);
        }
    }

    /// Where it belongs in the endpoint's queues.
    pub(super) fn places(&self) -> Places {
        let held_bytes = self.server.bytes();
        Places {
            due: self.deadline(),
            expendable: self.is_expendable().then_some(self.heard),
            holding: (held_bytes > 0).then_some(self.heard),
            held_bytes,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        // While something else is kept of it, that goes first.
        let forgotten = (self.announced && self.is_at_rest()).then(|| self.heard + ANNOUNCED);
        [self.exchanges.deadline(), self.server.deadline(), self.client.deadline(), forgotten]
            .into_iter()
            .flatten()
            .min()
    }

    /// Gives back the room of what is empty, once nothing is under way.
    pub(super) fn rest(&mut self) {
        if !self.exchanges.rest() {
            return;
        }
        if self.pending.is_empty() {
            self.pending = BTreeSet::new();
        }
        if self.purposes.is_empty() {
            self.purposes = BTreeMap::new();
        }
        if self.deliveries.is_empty() {
            self.deliveries = BTreeMap::new();
        }
        self.outcomes.shrink_to_fit();
        self.forget_sent();
        self.forget_recalled();
        self.server.rest();
    }

    /// Whether nothing would be lost if this peer were forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let announced = self.announced && now < self.heard + ANNOUNCED;
        !announced && self.is_at_rest()
    }

    /// Whether nothing is kept of it but its link.
    fn is_at_rest(&self) -> bool {
        self.is_expendable() && self.exchanges.is_idle() && self.server.is_idle() && self.outcomes.is_empty()
    }

    /// Whether only its memory of what has been would be lost.
    pub(super) fn is_expendable(&self) -> bool {
        self.pending.is_empty()
            && self.observations.is_empty()
            && self.client.is_idle()
            && !self.exchanges.is_sending()
    }
}

/// How long it is remembered what link a peer has announced, after it was last heard of.
const ANNOUNCED: Duration = Duration::from_secs(24 * 3600);

/// The refusal of a request where too many wait already: 5.03, to be tried again after Max-Age (RFC 7252 §5.9.3.4).
pub(super) fn too_busy() -> Response {
    let mut response = Response::new(Code::SERVICE_UNAVAILABLE);
    response.options.push_uint(OptionNumber::MAX_AGE, 5);
    response.payload = Bytes::from_static(b"too many requests wait for their answer");
    response
}

fn message(token: Token, reply: Reply) -> Message {
    let Reply { code, options, payload, .. } = reply;
    Message { kind: Kind::Confirmable, code, id: MessageId(0), token, options, payload }
}
