//! Requests of ours to a peer, and what it answers (RFC 7252 §5.2).

use super::options::{is_known_in_response, is_of_bursts};
use super::{Outcome, Peer, Purpose};
use crate::coap::{
    Answer, ExchangeId, Instant, Kind, Message, MessageId, Priority, Request, RequestError, Step, Token,
};

impl Peer {
    /// Starts a request of ours.
    pub(in crate::endpoint) fn request(
        &mut self,
        id: u64,
        request: Request,
        token: Token,
        priority: Priority,
        now: Instant,
    ) {
        if priority == Priority::Background {
            self.supersede(&request, now);
        }
        let first = self.client.start(id, request, token, &self.transfers, now);
        // Bodies that have begun go on before others begin: their server need not hold all of them.
        let behind = matches!(&first, Step::SendBurst { .. });
        self.follow_with(first, if behind { priority.max(Priority::Notification) } else { priority }, now);
    }

    /// Fails the earlier request for the same path that has not left yet: what it says holds no more.
    fn supersede(&mut self, request: &Request, now: Instant) {
        let unsent = |(exchange, purpose): (&ExchangeId, &Purpose)| match purpose {
            Purpose::Request(token)
                if self.exchanges.is_unsent(*exchange) && self.client.has_path_of(*token, request) =>
            {
                Some((*exchange, *token))
            }
            _ => None,
        };
        let Some((exchange, token)) = self.purposes.iter().find_map(unsent) else { return };
        self.purposes.remove(&exchange);
        self.exchanges.forget(exchange, now);
        let step = self.client.fail(token, RequestError::Superseded);
        self.outcomes.push_back(Outcome::Client(step));
    }

    pub(super) fn receive_response(&mut self, message: Message, fresh: Token, now: Instant) {
        let (kind, id, token) = (message.kind, message.id, message.token);
        if !self.client.contains(token) {
            // RFC 7252 §5.3.2: a response that is not expected is rejected.
            self.reject(kind, id);
            return self.outcomes.push_back(Outcome::Unexpected);
        }
        // An answer is under way that says the same, or knows better, and the message for it goes on until it comes.
        if kind == Kind::NonConfirmable && self.client.hears_again(&message) {
            return;
        }
        // §4.2: the response says that the request has arrived, even where the acknowledgement is lost.
        let request = self
            .purposes
            .iter()
            .find(|(_, purpose)| **purpose == Purpose::Request(token))
            .map(|(exchange, _)| *exchange);
        if let Some(exchange) = request {
            self.purposes.remove(&exchange);
            self.exchanges.forget(exchange, now);
        }
        if let Some(again) = self.answer_to_challenge(&message) {
            if kind == Kind::Confirmable {
                self.exchanges.acknowledge(id);
            }
            return self.send_request(Vec::new(), again, Priority::Message, now);
        }
        let in_bursts = self.transfers.q_block;
        let is_known = |number| is_known_in_response(number) || in_bursts && is_of_bursts(number);
        let step = match message.options.clone().understood(is_known) {
            Ok(options) => self.client.receive(&Message { options, ..message }, fresh, &self.transfers, now),
            Err(number) => {
                self.outcomes.push_back(Outcome::BadOption);
                self.reject(kind, id);
                self.client.fail(token, RequestError::UnknownOption(number))
            }
        };
        if kind == Kind::Confirmable {
            self.exchanges.acknowledge(id);
        }
        self.follow(step, now);
    }

    /// Resets a response. One in an acknowledgement has an ID of ours, which a message of the peer's may have too.
    fn reject(&mut self, kind: Kind, id: MessageId) {
        if kind == Kind::Confirmable {
            self.exchanges.reject(id);
        }
    }

    /// Does what follows from a step of a request of ours.
    pub(super) fn follow(&mut self, step: Step, now: Instant) {
        self.follow_with(step, Priority::Message, now);
    }

    fn follow_with(&mut self, step: Step, priority: Priority, now: Instant) {
        // Before what follows, which would wait for it.
        self.forget_unwanted(now);
        match step {
            Step::Send(message) => self.send_request(Vec::new(), message, priority, now),
            Step::SendBurst { before, last } => self.send_request(before, last, priority, now),
            step => self.outcomes.push_back(Outcome::Client(step)),
        }
    }

    /// Sends a request's message, after the other blocks of its burst.
    fn send_request(&mut self, before: Vec<Message>, message: Message, priority: Priority, now: Instant) {
        let (token, answer) = (message.token, Answer::to(message.code));
        let before: Result<Vec<_>, _> = before.into_iter().map(|block| self.sealed_request(block)).collect();
        let sealed = before.and_then(|before| Ok((before, self.sealed_request(message)?)));
        let sent = sealed
            .and_then(|(before, message)| self.exchanges.send_after(before, message, answer, priority, now));
        match sent {
            Ok(exchange) => drop(self.purposes.insert(exchange, Purpose::Request(token))),
            Err(_) => {
                let step = self.client.fail(token, RequestError::Busy);
                self.follow(step, now);
            }
        }
    }

    /// Forgets a request of ours, or deregisters an observation.
    pub(in crate::endpoint) fn cancel(&mut self, id: u64, now: Instant) {
        if let Some(message) = self.forget(id, now) {
            // It is best effort: a peer that does not hear it gets a reset for its next notification.
            let sealed = self.sealed_request(message);
            let _ = sealed.and_then(|sealed| self.exchanges.send(sealed, Priority::Message, now));
        }
    }

    /// Forgets a request of ours; returns what would tell the peer so, where it is an observation.
    pub(in crate::endpoint) fn forget(&mut self, id: u64, now: Instant) -> Option<Message> {
        let message = self.client.cancel(id, &self.transfers);
        self.forget_unwanted(now);
        message
    }

    /// What nobody waits for is repeated no more.
    fn forget_unwanted(&mut self, now: Instant) {
        let in_use = self.client.tokens();
        self.forget_purposes(
            now,
            |purpose| matches!(purpose, Purpose::Request(token) if !in_use.contains(token)),
        );
    }
}
