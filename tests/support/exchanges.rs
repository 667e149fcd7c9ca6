//! Stories of the exchanges with one peer.

use lowband::coap::{
    Answered, Event, ExchangeId, Exchanges, Instant, Kind, Limits, Message, MessageId, Parameters, Priority,
};

use super::notation;
use super::{Machine, Story};

/// EXCHANGE_LIFETIME (RFC 7252 §4.8.2), in milliseconds.
pub(crate) const EXCHANGE_LIFETIME: u64 = 247_000;
/// NON_LIFETIME.
pub(crate) const NON_LIFETIME: u64 = 145_000;
/// With an ACK_RANDOM_FACTOR of 1 the span is 30 s: the times are round.
pub(crate) const ROUND_EXCHANGE_LIFETIME: u64 = 232_000;
/// The same of NON_LIFETIME.
pub(crate) const ROUND_NON_LIFETIME: u64 = 130_000;

impl Machine for Exchanges {
    type Address = ();
    type Event = Event;

    fn handle(&mut self, (): (), datagram: &[u8], now: Instant) {
        self.receive(Message::decode(datagram).unwrap(), now);
    }

    fn advance(&mut self, now: Instant) {
        Exchanges::advance(self, now);
    }

    fn deadline(&self) -> Option<Instant> {
        Exchanges::deadline(self)
    }

    fn poll_datagram(&mut self) -> Option<((), Vec<u8>)> {
        Exchanges::poll_datagram(self).map(|outgoing| ((), outgoing.datagram))
    }

    fn poll_event(&mut self) -> Option<Event> {
        Exchanges::poll_event(self)
    }
}

impl Story<Exchanges> {
    /// The user of the exchanges sends a confirmable message; its MID in the text means nothing.
    pub(crate) fn user_sends(&mut self, at: u64, text: &str) -> ExchangeId {
        self.does(at, |exchanges, now| exchanges.send(notation::message(text), Priority::Message, now))
            .unwrap()
    }

    /// The user answers a request.
    pub(crate) fn user_answers(&mut self, at: u64, kind: Kind, id: u16, text: &str) -> Answered {
        self.does(at, |exchanges, now| exchanges.respond((kind, MessageId(id)), notation::message(text), now))
            .unwrap()
    }

    /// A request comes, and the user hears of it.
    pub(crate) fn gets_request(&mut self, at: u64, text: &str) {
        self.gets(at, text);
        self.reports(at, Event::Request(notation::message(text)));
    }

    /// Nothing happens until then, and nothing is kept.
    pub(crate) fn is_idle(&mut self, at: u64) {
        self.sends_nothing(at);
        assert!(self.machine.is_idle(), "at {at} ms: {:?}", self.machine);
        assert_eq!(self.machine.deadline(), None, "nothing is to be done at {at} ms");
    }
}

/// RFC 7252's parameters, without chance.
pub(crate) fn round() -> Parameters {
    Parameters { ack_random_factor: 1.0, ..Parameters::default() }
}

/// A story of exchanges with these limits.
pub(crate) fn peer_with(parameters: Parameters, limits: Limits) -> Story<Exchanges> {
    Story::new(Exchanges::new(parameters, limits, 7), ())
}

/// A story of exchanges without chance.
pub(crate) fn peer() -> Story<Exchanges> {
    peer_with(round(), Limits::default())
}
