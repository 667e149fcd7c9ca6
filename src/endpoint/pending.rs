//! Requests of peers that wait for their answer.

use super::peer;
use super::{Association, Endpoint, Event, RequestKey};
use crate::coap::{Instant, Kind, Message, ObservationId, Observe, Plan, Request, Response};

/// A peer's request between its arrival and its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) association: Association,
    pub(super) request: peer::Asked,
    pub(super) plan: Plan,
    pub(super) observe: Option<Observe>,
    pub(super) bytes: usize,
    /// Its message, where it is to be remembered.
    pub(super) memory: Option<Message>,
}

impl Endpoint {
    /// Answers a peer's request.
    pub fn respond(&mut self, key: RequestKey, response: Response, now: Instant) {
        let Some(Pending { association, mut request, plan, memory, .. }) = self.take_pending(key) else {
            return;
        };
        let remembered =
            memory.map(|message| (message, request.whole_answer(&response), request.binding.clone()));
        let mut separate = false;
        self.with_peer(association, now, |peer, _| {
            separate = peer.respond(&mut request, plan, response, None, now);
        });
        if let Some((message, answer, binding)) = remembered {
            self.remember_answer(association, &message, &answer, (separate, binding));
        }
    }

    /// Answers a peer's registration and takes it as an observer (RFC 7641 §4.1), unless it has too many observations
    /// already or did not ask: then it is answered all the same. The answer's arrival is reported.
    pub fn accept_observation(
        &mut self,
        key: RequestKey,
        response: Response,
        now: Instant,
    ) -> Option<ObservationId> {
        let Pending { association, mut request, plan, observe, memory, .. } = self.take_pending(key)?;
        let id = ObservationId(self.number());
        let mut accepted = false;
        self.with_peer(association, now, |peer, config| {
            let fits = peer.make_room(&plan, config.observations, now);
            accepted = fits && observe == Some(Observe::Register) && response.code.is_success();
            if accepted {
                peer.register(&request, id, plan.clone(), now);
            }
            peer.respond(&mut request, plan, response, accepted.then_some(id), now);
        });
        if let Some(message) = memory {
            // What it is answered is the observation's to remember.
            let acknowledgement = Message::empty(Kind::Acknowledgement, message.id);
            self.remember_answer(association, &message, &acknowledgement, (false, None));
            if accepted {
                self.remember_observation(id, association, &message);
            }
        }
        accepted.then(|| self.observations.insert(id, association));
        accepted.then_some(id)
    }

    /// Reports a peer's request, or refuses it where too many wait.
    pub(super) fn admit_request(
        &mut self,
        association: Association,
        mut asked: peer::Asked,
        request: Request,
        plan: Plan,
        memory: Option<Message>,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&association) else { return };
        if request.observe == Some(Observe::Deregister) {
            // RFC 7641 §3.6: it may overtake the answer to the registration that it takes back.
            let same =
                |key: &&RequestKey| self.pending.get(key).is_some_and(|it| it.request.token == asked.token);
            for key in peer.pending.iter().filter(same).copied().collect::<Vec<_>>() {
                self.pending.entry(key).and_modify(|pending| pending.observe = None);
            }
        }
        let bytes = request.payload.len();
        if peer.pending.len() >= self.config.pending || self.pending_bytes + bytes > self.config.bytes {
            self.counters.requests_refused += 1;
            peer.respond(&mut asked, plan, peer::too_busy(), None, now);
            return;
        }
        self.next_number += 1;
        let key = RequestKey(self.next_number);
        peer.pending.insert(key);
        self.pending_bytes += bytes;
        self.counters.requests += 1;
        let observe = request.observe;
        if let Some(message) = &memory {
            self.remember_request(association, message, asked.binding.clone());
        }
        self.pending.insert(key, Pending { association, request: asked, plan, observe, bytes, memory });
        self.events.push_back(Event::Request { key, association, request, recalled: false });
    }

    pub(super) fn take_pending(&mut self, key: RequestKey) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        if let Some(peer) = self.peers.get_mut(&pending.association) {
            peer.pending.remove(&key);
        }
        self.pending_bytes -= pending.bytes;
        Some(pending)
    }
}
