//! What a peer observes, and what it is told (RFC 7641 §4).

use std::time::Duration;

use super::{Asked, Outcome, Peer, Purpose, message};
use crate::coap::{Delivery, Instant, ObservationId, Plan, Priority, Response, TransferLimits};

impl Peer {
    /// Makes room for one more observation, where there are too many already: the oldest of what is asked for anew goes, which the
    /// peer has most likely lost. Returns whether there is room.
    pub(in crate::endpoint) fn make_room(&mut self, plan: &Plan, limit: usize, now: Instant) -> bool {
        if self.observations.len() >= limit
            && let Some(oldest) = self.observations.oldest_like(plan)
        {
            self.end_observation(oldest, now);
            self.outcomes.push_back(Outcome::Deregistered(oldest));
        }
        self.observations.len() < limit
    }

    /// Takes the sender of a request as an observer. A registration with the same token that was accepted meanwhile ends.
    pub(in crate::endpoint) fn register(
        &mut self,
        asked: &Asked,
        id: ObservationId,
        plan: Plan,
        now: Instant,
    ) {
        if let Some(replaced) = self.observations.register(asked.token, id, plan) {
            self.end_observation(replaced, now);
            self.outcomes.push_back(Outcome::Deregistered(replaced));
        }
        self.bind(id, asked.binding.as_ref());
    }

    /// Sends a notification, or its first block.
    pub(in crate::endpoint) fn notify(
        &mut self,
        id: ObservationId,
        response: Response,
        priority: Priority,
        now: Instant,
    ) {
        let Some((_, observation)) = self.observations.next(id) else { return };
        let sequence = observation.sequence;
        self.notify_as(id, response, sequence, (priority, self.transfers.lifetime), now);
    }

    /// Sends a notification again that was sent before a restart, with the value of Observe that it had.
    pub(in crate::endpoint) fn notify_again(
        &mut self,
        id: ObservationId,
        response: Response,
        sequence: u32,
        now: Instant,
    ) {
        // Who has all of its blocks already takes it for old and asks for none: that is not waited for as long as for somebody who
        // has begun, and asks for the next before the end of all repeats of it.
        let lifetime = self.transfers.lifetime.min(self.exchanges.parameters().max_transmit_wait());
        self.notify_as(id, response, sequence, (Priority::Notification, lifetime), now);
    }

    /// Sends a notification with this value of Observe; what of its body is to be asked for is held so long.
    pub(super) fn notify_as(
        &mut self,
        id: ObservationId,
        response: Response,
        sequence: u32,
        (priority, lifetime): (Priority, Duration),
        now: Instant,
    ) {
        let Some((token, observation)) = self.observations.get(id) else { return };
        let (mut plan, success) = (observation.plan.clone(), response.code.is_success());
        // It may have announced another link since it registered.
        if self.terms.pace.is_none() {
            plan = plan.without_bursts();
        }
        let delivery = success.then(|| self.deliver(id));
        let limits = TransferLimits { lifetime, ..self.transfers.clone() };
        let mut reply = self.server.respond(plan, response, delivery, &limits, now);
        // RFC 7641 §4.2: a notification of an error has no Observe option, and is the last.
        if success {
            reply.set_sequence(sequence);
        }
        let whole = reply.delivers.is_some();
        // The last block of a burst says by its acknowledgement that the peer is there.
        let mut rest = std::mem::take(&mut reply.rest);
        if let Some(last) = rest.pop() {
            rest.insert(0, std::mem::replace(&mut reply, last));
            for block in rest {
                let sealed = self.sealed_for(id, message(token, block));
                self.send_block(sealed, priority, now);
            }
        }
        let sealed = self.sealed_for(id, message(token, reply));
        let Ok(exchange) = sealed.and_then(|sealed| self.exchanges.send(sealed, priority, now)) else {
            let undelivered = delivery.and_then(|delivery| self.abandon(delivery));
            self.outcomes.push_back(Outcome::AnswerDropped);
            return self.outcomes.extend(undelivered.map(Outcome::Undelivered));
        };
        if let Some(delivery) = delivery {
            let purpose = if whole { Purpose::End(id, delivery) } else { Purpose::Beginning(id, delivery) };
            self.purposes.insert(exchange, purpose);
        }
    }

    /// Starts to wait for a notification's end.
    pub(super) fn deliver(&mut self, id: ObservationId) -> Delivery {
        let delivery = Delivery(self.next_delivery);
        self.next_delivery += 1;
        self.deliveries.insert(delivery, id);
        delivery
    }

    /// Gives up a notification; returns whose it is, where its end was not reported yet.
    pub(super) fn abandon(&mut self, delivery: Delivery) -> Option<ObservationId> {
        self.server.abandon(delivery);
        self.deliveries.remove(&delivery)
    }

    /// Whether the reset of a protected notification is the first in a row, which says nothing yet.
    pub(super) fn is_doubtful_reset(&mut self, id: ObservationId) -> bool {
        self.binding(id).is_some() && !self.observations.note_reset(id, true)
    }

    /// Ends an observation, and what is under way for it.
    pub(in crate::endpoint) fn end_observation(&mut self, id: ObservationId, now: Instant) {
        self.observations.end(id);
        self.unbind(id);
        let of_it = |(_, other): &(&Delivery, &ObservationId)| **other == id;
        let deliveries: Vec<_> =
            self.deliveries.iter().filter(of_it).map(|(delivery, _)| *delivery).collect();
        for delivery in deliveries {
            self.abandon(delivery);
        }
        self.forget_purposes(now, |purpose| match purpose {
            Purpose::Beginning(other, _) | Purpose::End(other, _) | Purpose::Rest(other, _) => *other == id,
            Purpose::Request(_) | Purpose::Probe => false,
        });
    }
}
