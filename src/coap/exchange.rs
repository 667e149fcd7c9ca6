//! Reliability and deduplication with one peer (RFC 7252 §4).
//!
//! Knows nothing of tokens beyond carrying them; the transfers match responses to requests.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use thiserror::Error;

use super::code::Code;
use super::message::{Kind, Message, MessageId};
use super::parameters::Parameters;
use super::time::Instant;

/// All exchanges with one peer, in both roles.
///
/// ```text
///  receive ─┬─ known id ──── the remembered reply again, or nothing while it is being made
///           ├─ CON, NON ──── remembered, and reported once: Event::Request, Event::Response
///           └─ ACK, RST ──── ends the exchange that send started: Event::Acknowledged, Event::Reset
///  send ────── waits for its turn (NSTART), is repeated until acknowledged: or Event::TimedOut
///  respond ─── in the acknowledgement while that is still owed, in a message of its own afterwards
/// ```
#[derive(Debug)]
pub struct Exchanges {
    parameters: Parameters,
    limits: Limits,
    ids: MessageIds,
    jitter: Jitter,
    received: BTreeMap<MessageId, Received>,
    /// The ids of `received`, oldest first.
    remembered: VecDeque<MessageId>,
    remembered_bytes: usize,
    sent: BTreeMap<MessageId, Sent>,
    waiting: VecDeque<(ExchangeId, Message)>,
    next_exchange: u64,
    datagrams: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    counts: Counts,
}

/// How often something happened that nobody else hears of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that had come before.
    pub duplicates: u64,
    /// Messages of ours that were sent again.
    pub repeats: u64,
    /// Messages of ours that were never acknowledged.
    pub timeouts: u64,
}

/// What one peer may take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages remembered for deduplication; the oldest goes first.
    pub remembered: usize,
    /// Bytes of replies remembered with them; the oldest goes first.
    pub remembered_bytes: usize,
    /// Messages waiting for their turn; [`Busy`] beyond that.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { remembered: 256, remembered_bytes: 64 << 10, waiting: 64 }
    }
}

/// One of our own confirmable messages, from [`Exchanges::send`] until it is reported as ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(u64);

/// What happened with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request, once however often it came. It is answered with [`Exchanges::respond`].
    Request(Message),
    /// A response or a notification, once. A confirmable one is answered with [`Exchanges::acknowledge`] or
    /// [`Exchanges::reject`].
    Response(Message),
    /// The peer has this message of ours.
    Acknowledged(ExchangeId),
    /// The peer has this message of ours, and no use for it.
    Reset(ExchangeId),
    /// The peer did not acknowledge this message in all its repeats.
    TimedOut(ExchangeId),
}

/// How an answer left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// In the acknowledgement (RFC 7252 §5.2.1), or in a message that is not confirmed.
    Unconfirmed,
    /// In a confirmable message of its own (RFC 7252 §5.2.2), whose end will be reported.
    Confirmable(ExchangeId),
}

/// Too many messages wait for this peer already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many messages wait for this peer")]
pub struct Busy;

impl Exchanges {
    /// No exchanges yet. The first message ID and the jitter come from `seed`, which should differ between peers
    /// and restarts (RFC 7252 §4.4).
    pub fn new(parameters: Parameters, limits: Limits, seed: u64) -> Self {
        let mut jitter = Jitter(seed);
        let first = MessageId((jitter.next() >> 48) as u16);
        Self {
            parameters,
            limits,
            ids: MessageIds { next: first, used: BTreeMap::new() },
            jitter,
            received: BTreeMap::new(),
            remembered: VecDeque::new(),
            remembered_bytes: 0,
            sent: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_exchange: 0,
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
            counts: Counts::default(),
        }
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
                self.datagrams.push_back(datagram.clone());
            }
            return;
        }
        // §4.3: an empty confirmable message is answered with a reset: a CoAP ping.
        if message.code == Code::EMPTY {
            return self.datagrams.push_back(Message::empty(Kind::Reset, message.id).encode());
        }
        self.remember(&message, now);
        self.events.push_back(match message.code.is_request() {
            true => Event::Request(message),
            false => Event::Response(message),
        });
    }

    fn receive_acknowledgement(&mut self, message: Message, now: Instant) {
        // §4.2: an acknowledgement of nothing is silently ignored.
        let Some(exchange) = self.end(message.id, now) else { return };
        self.events.push_back(Event::Acknowledged(exchange));
        if !message.is_empty() {
            self.events.push_back(Event::Response(message));
        }
    }

    fn remember(&mut self, message: &Message, now: Instant) {
        let (lifetime, reply) = match message.kind {
            Kind::Confirmable => {
                let due = now + self.parameters.piggyback_wait;
                (self.parameters.exchange_lifetime(), Reply::Owed { due })
            }
            _ => (self.parameters.non_lifetime(), Reply::None),
        };
        while self.remembered.len() >= self.limits.remembered.max(1) {
            self.forget_oldest();
        }
        self.received.insert(message.id, Received { expires: now + lifetime, reply });
        self.remembered.push_back(message.id);
    }

    fn forget_oldest(&mut self) {
        if let Some(id) = self.remembered.front().copied() {
            self.forget_received(id);
        }
    }

    /// Forgets a remembered message; an acknowledgement that it is still owed goes out first.
    fn forget_received(&mut self, id: MessageId) {
        self.remembered.retain(|remembered| *remembered != id);
        let Some(received) = self.received.remove(&id) else { return };
        match received.reply {
            Reply::Owed { .. } => {
                self.datagrams.push_back(Message::empty(Kind::Acknowledgement, id).encode())
            }
            Reply::Sent(datagram) => self.remembered_bytes -= datagram.len(),
            Reply::None => {}
        }
    }

    /// Sends a confirmable message of ours, now or when it is its turn; its id is set here.
    ///
    /// # Errors
    /// [`Busy`] where too many wait already.
    pub fn send(&mut self, message: Message, now: Instant) -> Result<ExchangeId, Busy> {
        let is_its_turn = self.waiting.is_empty() && self.may_start();
        if !is_its_turn && self.waiting.len() >= self.limits.waiting {
            return Err(Busy);
        }
        let exchange = ExchangeId(self.next_exchange);
        self.next_exchange += 1;
        self.waiting.push_back((exchange, Message { kind: Kind::Confirmable, ..message }));
        self.start_waiting(now);
        Ok(exchange)
    }

    /// Sends a non-confirmable message of ours; its id is set here.
    ///
    /// # Errors
    /// [`Busy`] where no message ID is free.
    pub fn send_unconfirmed(&mut self, message: Message, now: Instant) -> Result<(), Busy> {
        let id = self.ids.take(now, self.parameters.exchange_lifetime()).ok_or(Busy)?;
        self.datagrams.push_back(Message { kind: Kind::NonConfirmable, id, ..message }.encode());
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
        self.send(response, now).map(Answered::Confirmable)
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
        self.send(response, now)
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
        self.waiting.retain(|(waiting, _)| *waiting != exchange);
        self.sent.retain(|_, sent| {
            let forgotten = sent.exchange == exchange;
            if forgotten {
                // What has not left yet need not leave any more.
                self.datagrams.retain(|datagram| *datagram != sent.datagram);
            }
            !forgotten
        });
        self.start_waiting(now);
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
        for (id, sent) in &mut self.sent {
            if sent.due > now {
                continue;
            }
            if sent.repeats >= self.parameters.max_retransmit {
                given_up.push(*id);
                continue;
            }
            // §4.2: the timeout doubles with each repeat.
            self.counts.repeats += 1;
            sent.repeats += 1;
            sent.timeout = sent.timeout.saturating_mul(2);
            sent.due = now + sent.timeout;
            self.datagrams.push_back(sent.datagram.clone());
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
        let repeats = self.sent.values().map(|sent| sent.due).min();
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
    pub fn poll_datagram(&mut self) -> Option<Vec<u8>> {
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

    /// Whether messages of ours wait for acknowledgement or for their turn.
    pub fn is_sending(&self) -> bool {
        !self.sent.is_empty() || !self.waiting.is_empty()
    }

    fn owes(&self, id: MessageId) -> bool {
        self.received.get(&id).is_some_and(|received| matches!(received.reply, Reply::Owed { .. }))
    }

    /// Sends the reply to a remembered message, and remembers it for duplicates.
    fn reply(&mut self, id: MessageId, datagram: Vec<u8>) {
        let Some(received) = self.received.get_mut(&id) else { return };
        self.remembered_bytes += datagram.len();
        received.reply = Reply::Sent(datagram.clone());
        self.datagrams.push_back(datagram);
        while self.remembered_bytes > self.limits.remembered_bytes && self.remembered.front() != Some(&id) {
            self.forget_oldest();
        }
    }

    /// Ends the exchange of this message, and starts one that waited for it.
    fn end(&mut self, id: MessageId, now: Instant) -> Option<ExchangeId> {
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
            let Some((exchange, message)) = self.waiting.pop_front() else { return };
            let datagram = Message { id, ..message }.encode();
            self.datagrams.push_back(datagram.clone());
            // §4.2: the first timeout is between ACK_TIMEOUT and ACK_TIMEOUT * ACK_RANDOM_FACTOR.
            let timeout = self
                .parameters
                .ack_timeout
                .mul_f64(self.jitter.between(1.0, self.parameters.ack_random_factor));
            self.sent.insert(id, Sent { exchange, datagram, repeats: 0, timeout, due: now + timeout });
        }
    }
}

/// A message of the peer's, remembered for its repeats.
#[derive(Debug)]
struct Received {
    expires: Instant,
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    /// None is due: the message was not confirmable.
    None,
    /// An acknowledgement, at the latest at this time.
    Owed { due: Instant },
    /// This one, again for every repeat.
    Sent(Vec<u8>),
}

impl Reply {
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Owed { due } => Some(*due),
            _ => None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }
}

/// A confirmable message of ours that is not yet acknowledged.
#[derive(Debug)]
struct Sent {
    exchange: ExchangeId,
    datagram: Vec<u8>,
    repeats: u32,
    timeout: Duration,
    due: Instant,
}

/// Message IDs in order; none twice within EXCHANGE_LIFETIME (RFC 7252 §4.4).
#[derive(Debug)]
struct MessageIds {
    next: MessageId,
    /// When each run of 256 ids was last used, by its high byte.
    used: BTreeMap<u8, Instant>,
}

impl MessageIds {
    fn take(&mut self, now: Instant, lifetime: Duration) -> Option<MessageId> {
        let [run, low] = self.next.0.to_be_bytes();
        // Within a run the ids go on in order; its first may be used again only when its last is old enough.
        if low == 0 && self.used.get(&run).is_some_and(|used| *used + lifetime > now) {
            return None;
        }
        self.used.insert(run, now);
        let id = self.next;
        self.next = id.next();
        Some(id)
    }

    /// When one was last used, of those not forgotten.
    fn last_used(&self) -> Option<Instant> {
        self.used.values().max().copied()
    }

    /// Forgets the use of those that may be used again.
    fn forget_old(&mut self, now: Instant, lifetime: Duration) {
        self.used.retain(|_, used| *used + lifetime > now);
    }

    /// When [`MessageIds::take`] will have one, if it has none now.
    fn free_at(&self, lifetime: Duration) -> Option<Instant> {
        let [run, low] = self.next.0.to_be_bytes();
        (low == 0).then(|| self.used.get(&run).map(|used| *used + lifetime)).flatten()
    }
}

/// Spreads retransmissions in time (SplitMix64); no secret depends on it.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
