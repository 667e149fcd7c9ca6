//! Reliability and deduplication with one peer (RFC 7252 §4).
//!
//! Knows nothing of tokens beyond carrying them; the transfers match responses to requests.

mod entry;
mod event;
mod ids;
mod remembered;
mod round_trip;

use std::collections::{BTreeMap, VecDeque};

use super::code::Code;
use super::message::{Kind, Message, MessageId};
use super::parameters::{Answer, Parameters};
use super::priority::Priority;
use super::time::Instant;
use entry::{Received, Reply, Sent, Waiting};
use event::is_empty;
pub use event::{Answered, Busy, Counts, Event, ExchangeId, Limits, Outgoing};
use ids::{Jitter, MessageIds};
use round_trip::RoundTrip;

/// All exchanges with one peer, in both roles.
///
/// ```text
///  receive ─┬─ known id ──── the remembered reply again, or nothing while it is being made
///           ├─ CON, NON ──── remembered, and reported once: Event::Request, Event::Response
///           └─ ACK, RST ──── ends the exchange that send started: Event::Acknowledged, Event::Reset
///  send ────── waits for its turn (NSTART), is repeated until acknowledged: or Event::TimedOut
///  held, departed ── the wait for an acknowledgement begins when the last bit has left, where a queue says when that is
///  respond ─── in the acknowledgement while that is still owed, in a message of its own afterwards
/// ```
#[derive(Debug)]
pub struct Exchanges {
    parameters: Parameters,
    limits: Limits,
    ids: MessageIds,
    jitter: Jitter,
    round_trip: RoundTrip,
    received: BTreeMap<MessageId, Received>,
    /// The ids of `received`, oldest first.
    remembered: VecDeque<MessageId>,
    remembered_bytes: usize,
    forgotten: VecDeque<MessageId>,
    sent: BTreeMap<MessageId, Sent>,
    waiting: VecDeque<Waiting>,
    next_exchange: u64,
    datagrams: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    counts: Counts,
}

impl Exchanges {
    /// No exchanges yet. The first message ID and the jitter come from `seed`, which should differ between peers
    /// and restarts (RFC 7252 §4.4).
    pub fn new(parameters: Parameters, limits: Limits, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        let first = MessageId((jitter.next() >> 48) as u16);
        Self {
            parameters,
            limits,
            ids: MessageIds::starting_at(first),
            jitter,
            round_trip: RoundTrip::default(),
            received: BTreeMap::new(),
            remembered: VecDeque::new(),
            remembered_bytes: 0,
            forgotten: VecDeque::new(),
            sent: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_exchange: 0,
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Speaks by other parameters from now on; what is under way keeps its times.
    pub fn set_parameters(&mut self, parameters: Parameters) {
        if self.parameters != parameters {
            self.parameters = parameters;
            self.round_trip = RoundTrip::default();
        }
    }

    /// The parameters that it speaks by.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Goes on with this message ID, the first that was certainly not used before (RFC 7252 §4.4).
    pub fn resume_ids(&mut self, next: MessageId) {
        self.ids = MessageIds::starting_at(next);
    }

    /// The message ID that comes next.
    pub fn next_id(&self) -> MessageId {
        self.ids.next()
    }

    /// Takes in a message.
    pub fn receive(&mut self, message: Message, now: Instant) {
        match message.kind {
            Kind::Confirmable | Kind::NonConfirmable => self.receive_new(message, now),
            Kind::Acknowledgement => self.receive_acknowledgement(message, now),
            Kind::Reset => {
                if let Some(sent) = self.end(message.id, now) {
                    self.events.push_back(Event::Reset(sent));
                }
            }
        }
    }

    fn receive_new(&mut self, message: Message, now: Instant) {
        // §4.4: once its lifetime is over, an id may come again with another message.
        if self.received.get(&message.id).is_some_and(|received| received.expires <= now) {
            self.forget_received(message.id);
        }
        if let Some(received) = self.received.get(&message.id) {
            self.counts.duplicates += 1;
            // §4.5: a duplicate gets the same reply, and reaches nobody else.
            if let Reply::Sent(datagram) = &received.reply {
                let reply = Outgoing {
                    repeat: true,
                    expires: Some(received.awaited),
                    ..Outgoing::reply(datagram.clone())
                };
                self.datagrams.push_back(reply);
            }
            return;
        }
        self.hear(now);
        // §4.3: an empty confirmable message is answered with a reset: a CoAP ping.
        if message.code == Code::EMPTY {
            let reset = Message::empty(Kind::Reset, message.id).encode();
            return self.datagrams.push_back(Outgoing::reply(reset));
        }
        self.remember(&message, now);
        self.events.push_back(match message.code.is_request() {
            true => Event::Request(message),
            false => Event::Response(message),
        });
    }

    /// The peer is there: what waits long for it, after repeats to nobody, need not wait so long.
    fn hear(&mut self, now: Instant) {
        for sent in self.sent.values_mut().filter(|sent| sent.repeats > 0) {
            let soon = now + sent.first_timeout;
            if sent.due.is_some_and(|due| due > soon) {
                sent.due = Some(soon);
                sent.timeout = sent.first_timeout;
            }
        }
    }

    fn receive_acknowledgement(&mut self, message: Message, now: Instant) {
        self.measure(&message, now);
        // §4.2: an acknowledgement of nothing is silently ignored.
        let Some(exchange) = self.end(message.id, now) else { return };
        self.events.push_back(Event::Acknowledged(exchange));
        if !message.is_empty() {
            self.events.push_back(Event::Response(message));
        }
    }

    /// Takes in how long an acknowledgement took.
    fn measure(&mut self, acknowledgement: &Message, now: Instant) {
        let sent = self.sent.get(&acknowledgement.id).filter(|_| self.parameters.refine);
        let departures = sent.map(|sent| (sent, sent.first_departure, sent.last_departure));
        let Some((sent, Some(first), Some(last))) = departures else { return };
        let airtime = self.parameters.receiving.of(acknowledgement.encode().len());
        let without_airtime = |since: Instant| now.since(since).saturating_sub(airtime);
        match sent.repeats {
            0 => self.round_trip.take_strong(without_airtime(last), self.parameters.ack_timeout),
            1 | 2 => self.round_trip.take_weak(without_airtime(first), self.parameters.ack_timeout),
            _ => {}
        }
    }

    /// Sends a confirmable message of ours, now or when it is its turn; its id is set here.
    ///
    /// # Errors
    /// [`Busy`] where too many wait already.
    pub fn send(&mut self, message: Message, priority: Priority, now: Instant) -> Result<ExchangeId, Busy> {
        let answer = Answer::to(message.code);
        self.send_after(Vec::new(), message, answer, priority, now)
    }

    /// The same for the last block of a burst: when it is its turn, the other blocks leave before it, which are not confirmed
    /// (RFC 9177 §4.3). All of them let pass what is more pressing than a notification. What is expected to answer it need not be
    /// what its code says, where that is protected.
    ///
    /// # Errors
    /// [`Busy`] where too many wait already.
    pub fn send_after(
        &mut self,
        before: Vec<Message>,
        message: Message,
        answer: Answer,
        priority: Priority,
        now: Instant,
    ) -> Result<ExchangeId, Busy> {
        let is_its_turn = self.waiting.is_empty() && self.may_start();
        if !is_its_turn && self.waiting.len() >= self.limits.waiting {
            return Err(Busy);
        }
        let exchange = ExchangeId(self.next_exchange);
        self.next_exchange += 1;
        let message = Message { kind: Kind::Confirmable, ..message };
        let at = self.waiting.iter().position(|waiting| waiting.priority > priority);
        let waiting = Waiting { exchange, before, message, answer, priority };
        self.waiting.insert(at.unwrap_or(self.waiting.len()), waiting);
        self.start_waiting(now);
        Ok(exchange)
    }

    /// Asks whether the peer is there, once: it resets an empty confirmable message (RFC 7252 §4.3).
    ///
    /// # Errors
    /// [`Busy`] where too many wait already.
    pub fn ping(&mut self, now: Instant) -> Result<ExchangeId, Busy> {
        let ping = Message::empty(Kind::Confirmable, MessageId(0));
        self.send(ping, Priority::Acknowledgement, now)
    }

    /// Sends a non-confirmable message of ours; its id is set here.
    ///
    /// # Errors
    /// [`Busy`] where no message ID is free.
    pub fn send_unconfirmed(&mut self, message: Message, now: Instant) -> Result<(), Busy> {
        let id = self.ids.take(now, self.parameters.exchange_lifetime()).ok_or(Busy)?;
        let datagram = Message { kind: Kind::NonConfirmable, id, ..message }.encode();
        self.datagrams.push_back(Outgoing::reply(datagram));
        Ok(())
    }

    /// Sends a block of a burst, which is not confirmed either (RFC 9177); its id is set here.
    ///
    /// # Errors
    /// [`Busy`] where no message ID is free.
    pub fn send_in_burst(&mut self, message: Message, priority: Priority, now: Instant) -> Result<(), Busy> {
        let id = self.ids.take(now, self.parameters.exchange_lifetime()).ok_or(Busy)?;
        let datagram = Message { kind: Kind::NonConfirmable, id, ..message }.encode();
        // By then it has been asked for again.
        let expires = Some(now + self.parameters.max_transmit_wait());
        self.datagrams.push_back(Outgoing { priority, expires, ..Outgoing::reply(datagram) });
        Ok(())
    }

    /// Answers a request: in the acknowledgement while that is owed, else in a message of its own. `response` carries the
    /// request's token; its kind and id are set here.
    ///
    /// # Errors
    /// [`Busy`] where too many messages wait already.
    pub fn respond(
        &mut self,
        request: (Kind, MessageId),
        response: Message,
        now: Instant,
    ) -> Result<Answered, Busy> {
        let (kind, id) = request;
        if kind == Kind::NonConfirmable {
            return self.send_unconfirmed(response, now).map(|()| Answered::Unconfirmed);
        }
        if self.owes(id) {
            let datagram = Message { kind: Kind::Acknowledgement, id, ..response }.encode();
            self.reply(id, datagram);
            return Ok(Answered::Unconfirmed);
        }
        self.send(response, Priority::Reply, now).map(Answered::Confirmable)
    }

    /// Answers a request in a confirmable message of its own, so that its arrival will be known (RFC 7252 §5.2.2).
    ///
    /// # Errors
    /// [`Busy`] where too many messages wait already.
    pub fn respond_confirmed(
        &mut self,
        request: (Kind, MessageId),
        response: Message,
        now: Instant,
    ) -> Result<ExchangeId, Busy> {
        self.acknowledge(request.1);
        self.send(response, Priority::Reply, now)
    }

    /// Acknowledges a confirmable message without an answer, if that is still owed.
    pub fn acknowledge(&mut self, id: MessageId) {
        if self.owes(id) {
            self.reply(id, Message::empty(Kind::Acknowledgement, id).encode());
        }
    }

    /// Resets a confirmable message that means nothing to us, if a reply is still owed (RFC 7252 §4.2).
    pub fn reject(&mut self, id: MessageId) {
        if self.owes(id) {
            self.reply(id, Message::empty(Kind::Reset, id).encode());
        }
    }

    /// Ends an exchange early: its message is sent no more, and nothing will be reported of it.
    pub fn forget(&mut self, exchange: ExchangeId, now: Instant) {
        self.waiting.retain(|waiting| waiting.exchange != exchange);
        self.sent.retain(|_, sent| sent.exchange != exchange);
        // What has not left yet need not leave any more.
        self.datagrams.retain(|datagram| datagram.exchange != Some(exchange));
        self.start_waiting(now);
    }

    /// Says that a message's datagram waits in a queue: meanwhile nothing is to be expected of the peer.
    pub fn held(&mut self, exchange: ExchangeId) {
        if let Some(sent) = self.sent_as(exchange) {
            sent.due = None;
        }
    }

    /// Says when the last bit of a message's datagram has left: from then on the acknowledgement is waited for.
    pub fn departed(&mut self, exchange: ExchangeId, at: Instant) {
        if let Some(sent) = self.sent_as(exchange) {
            sent.first_departure.get_or_insert(at);
            sent.last_departure = Some(at);
            sent.due = Some(at + sent.timeout);
        }
    }

    /// Says that a message's datagram went nowhere: as if it had left and was lost, but that nothing can answer it.
    pub fn kept_back(&mut self, exchange: ExchangeId, at: Instant) {
        self.departed(exchange, at);
        if let Some(sent) = self.sent_as(exchange) {
            sent.kept_back += 1;
        }
    }

    /// Says that a message's datagram cannot leave while it would be of use: it is given up.
    pub fn give_up(&mut self, exchange: ExchangeId, now: Instant) {
        let most = self.parameters.max_retransmit;
        if let Some(sent) = self.sent_as(exchange) {
            sent.repeats = most;
            sent.due = Some(now);
        }
    }

    /// Whether a message still waits for its acknowledgement, so that its datagram is of use.
    pub fn is_open(&self, exchange: ExchangeId) -> bool {
        self.sent.values().any(|sent| sent.exchange == exchange)
    }

    /// Whether a message of ours with this id waits for its acknowledgement.
    pub fn awaits(&self, id: MessageId) -> bool {
        self.sent.get(&id).is_some_and(Sent::has_left)
    }

    /// Whether nothing of a message has left yet.
    pub fn is_unsent(&self, exchange: ExchangeId) -> bool {
        self.waiting.iter().any(|waiting| waiting.exchange == exchange)
            || self.sent.values().any(|sent| sent.exchange == exchange && sent.first_departure.is_none())
    }

    fn sent_as(&mut self, exchange: ExchangeId) -> Option<&mut Sent> {
        self.sent.values_mut().find(|sent| sent.exchange == exchange)
    }

    /// Lets time pass: repeats what is due, gives up what is too old, acknowledges what still waits for its answer.
    pub fn advance(&mut self, now: Instant) {
        self.acknowledge_slow(now);
        self.repeat(now);
        while let Some(id) = self.remembered.front().copied() {
            if self.received.get(&id).is_some_and(|received| received.expires > now) {
                break;
            }
            self.forget_oldest();
        }
        self.ids.forget_old(now, self.parameters.exchange_lifetime());
        self.start_waiting(now);
    }

    fn acknowledge_slow(&mut self, now: Instant) {
        let slow: Vec<_> = self
            .received
            .iter()
            .filter(|(_, received)| received.reply.is_due(now))
            .map(|(id, _)| *id)
            .collect();
        for id in slow {
            // §5.2.2: an answer that takes longer is acknowledged first and sent separately.
            self.acknowledge(id);
        }
    }

    fn repeat(&mut self, now: Instant) {
        let mut given_up = Vec::new();
        let parameters = &self.parameters;
        for (id, sent) in &mut self.sent {
            if sent.due.is_none_or(|due| due > now) {
                continue;
            }
            // §4.2. §4.3: a ping is not repeated; whoever wonders asks again.
            if sent.repeats >= parameters.max_retransmit || is_empty(&sent.datagram) {
                given_up.push(*id);
                continue;
            }
            // §4.2: the timeout doubles with each repeat.
            self.counts.repeats += 1;
            sent.repeats += 1;
            sent.timeout = sent.timeout.saturating_mul(2);
            sent.last_departure = Some(now);
            sent.due = Some(now + sent.timeout);
            // The peer remembers a message for EXCHANGE_LIFETIME: a repeat must come before that is over.
            let latest = parameters.max_transmit_span() + parameters.max_latency;
            self.datagrams.push_back(Outgoing {
                datagram: sent.datagram.clone(),
                priority: sent.priority,
                exchange: Some(sent.exchange),
                expires: sent.first_departure.map(|first| first + latest),
                repeat: true,
            });
        }
        for id in given_up {
            if let Some(sent) = self.sent.remove(&id) {
                self.counts.timeouts += 1;
                self.events.push_back(Event::TimedOut(sent.exchange));
            }
        }
    }

    /// When [`Exchanges::advance`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let repeats = self.sent.values().filter_map(|sent| sent.due).min();
        let owed = self.received.values().filter_map(|received| received.reply.due()).min();
        let expiry =
            self.remembered.front().and_then(|id| self.received.get(id)).map(|received| received.expires);
        let id = (!self.waiting.is_empty() && self.may_start())
            .then(|| self.ids.free_at(self.parameters.exchange_lifetime()))
            .flatten();
        // While there is nothing else, the ids used are still to be remembered, and then forgotten.
        let ids = (self.received.is_empty() && !self.is_sending())
            .then(|| self.ids.last_used())
            .flatten()
            .map(|used| used + self.parameters.exchange_lifetime());
        [repeats, owed, expiry, id, ids].into_iter().flatten().min()
    }

    /// The next datagram to send.
    pub fn poll_datagram(&mut self) -> Option<Outgoing> {
        self.datagrams.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Whether nothing is owed, sent or remembered, not even which ids were used lately (RFC 7252 §4.4), so that all of this could be made anew.
    pub fn is_idle(&self) -> bool {
        self.received.is_empty()
            && !self.is_sending()
            && self.ids.last_used().is_none()
            && self.datagrams.is_empty()
            && self.events.is_empty()
    }

    /// Gives back the room of what is empty, once everything is: a map keeps it for eleven messages, and most peers are silent for
    /// most of the time. Says whether it did.
    pub fn rest(&mut self) -> bool {
        let is_empty = self.received.is_empty()
            && !self.is_sending()
            && self.datagrams.is_empty()
            && self.events.is_empty()
            && self.remembered.is_empty()
            && self.forgotten.is_empty();
        if is_empty {
            self.received = BTreeMap::new();
            self.remembered = VecDeque::new();
            self.forgotten = VecDeque::new();
            self.sent = BTreeMap::new();
            self.waiting = VecDeque::new();
            self.datagrams = VecDeque::new();
            self.events = VecDeque::new();
        }
        is_empty
    }

    /// Whether messages of ours wait for acknowledgement or for their turn.
    pub fn is_sending(&self) -> bool {
        !self.sent.is_empty() || !self.waiting.is_empty()
    }

    /// Ends the exchange of this message, which was answered, and starts one that waited for it. Nobody can have answered what has not left
    /// yet: that is forged, or for a message from before a restart.
    fn end(&mut self, id: MessageId, now: Instant) -> Option<ExchangeId> {
        if !self.awaits(id) {
            return None;
        }
        let sent = self.sent.remove(&id)?;
        self.start_waiting(now);
        Some(sent.exchange)
    }

    /// §4.7: at most NSTART outstanding messages to one peer.
    fn may_start(&self) -> bool {
        self.sent.len() < self.parameters.nstart.max(1)
    }

    fn start_waiting(&mut self, now: Instant) {
        while self.may_start() && !self.waiting.is_empty() {
            let Some(id) = self.ids.take(now, self.parameters.exchange_lifetime()) else { return };
            let Some(Waiting { exchange, before, message, answer, priority }) = self.waiting.pop_front()
            else {
                return;
            };
            let priority = if before.is_empty() { priority } else { priority.max(Priority::Notification) };
            for block in before {
                // One that has no ID is lost: the answer to the last one tells.
                let _ = self.send_in_burst(block, priority, now);
            }
            let datagram = Message { id, ..message }.encode();
            // §4.2: the first timeout is between ACK_TIMEOUT and ACK_TIMEOUT * ACK_RANDOM_FACTOR.
            let shortest = self.round_trip.timeout(self.parameters.ack_timeout)
                + (self.parameters.timeout(datagram.len(), answer) - self.parameters.ack_timeout);
            let timeout = shortest.mul_f64(self.jitter.between(1.0, self.parameters.ack_random_factor));
            self.datagrams.push_back(Outgoing {
                datagram: datagram.clone(),
                priority,
                exchange: Some(exchange),
                expires: None,
                repeat: false,
            });
            self.sent.insert(
                id,
                Sent {
                    exchange,
                    datagram,
                    priority,
                    repeats: 0,
                    kept_back: 0,
                    first_timeout: timeout,
                    timeout,
                    due: Some(now + timeout),
                    first_departure: None,
                    last_departure: None,
                },
            );
        }
    }
}
