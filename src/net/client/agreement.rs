//! How a client agrees on its keys, where they are not given: before the first request, before a limit of theirs, and when the gateway
//! seems not to know them any more.

use tracing::debug;

use super::Driver;
use super::Key;
use super::Order;
use super::RequestError;
use super::Then;
use super::Waiter;
use super::Waiting;
use super::random;
use crate::coap;
use crate::coap::Code;
use crate::coap::Priority;
use crate::coap::Response;
use crate::endpoint::RequestId;
use crate::net::keyring::Keyring;
use crate::security::edhoc::Due;
use crate::security::edhoc::ErrorMessage;
use crate::security::edhoc::Initiator;
use crate::security::edhoc::InitiatorError;
use crate::security::edhoc::Reply;

/// A run of EDHOC, and what waits for the keys.
#[derive(Default)]
pub(super) struct Agreeing {
    run: Option<Run>,
    held: Vec<Held>,
}

struct Run {
    initiator: Initiator,
    asked: RequestId,
    /// How often message_1 was sent, which may be asked for again with a proof.
    sent: u8,
}

/// A request that waits for keys.
struct Held {
    key: Key,
    order: Order,
    waiter: Waiter,
    /// How often it was made already.
    tries: u8,
}

/// A request as it can be made again under other keys.
pub(super) struct Again {
    order: Order,
    tries: u8,
}

impl Agreeing {
    /// How often message_1 is sent in one run.
    const SENT: u8 = 3;
    /// How often a request is made. A gateway that does not know keys that it has just agreed on will not do so the next time.
    const TRIES: u8 = 2;
}

impl Driver {
    /// Whether requests have to wait until keys are agreed on; they will be then, or the requests fail.
    pub(super) fn waits_for_keys(&mut self) -> bool {
        let now = self.clock.now();
        let Some(keyring) = self.keyring.as_ref().filter(|keyring| keyring.agrees()) else { return false };
        if self.agreeing.run.is_some() {
            return true;
        }
        match keyring.due(&mut self.machine, now) {
            Due::No => false,
            Due::Soon if !self.waiting.is_empty() => false,
            Due::Soon | Due::Now => {
                self.agree();
                true
            }
        }
    }

    /// Keeps a request until there are keys.
    pub(super) fn hold_for_keys(&mut self, key: Key, order: Order, waiter: Waiter) {
        self.agreeing.held.push(Held { key, order, waiter, tries: 0 });
        if self.agreeing.run.is_none() {
            self.give_up_agreeing(&RequestError::NoKeys);
        }
        self.drain();
    }

    /// Forgets a request that waits for keys. Whether there was such a one.
    pub(super) fn release_held(&mut self, key: Key) -> bool {
        let before = self.agreeing.held.len();
        self.agreeing.held.retain(|held| held.key != key);
        self.agreeing.held.len() < before
    }

    /// Makes a request under the keys, or without any where there are to be none.
    pub(super) fn ask(&mut self, key: Key, order: Order, mut waiter: Waiter, tries: u8) {
        let now = self.clock.now();
        // What is to be protected does not go in clear, whatever came of the keys.
        if self.keyring.as_ref().is_some_and(|keyring| !keyring.has_keys()) {
            return waiter.tell(Err(RequestError::NoKeys));
        }
        let keyring = self.keyring.as_ref();
        let peer = if keyring.is_some() { Keyring::PEER } else { self.address.into() };
        let again = keyring.is_some_and(Keyring::agrees);
        let again = again.then(|| Again { order: order.clone(), tries: tries.saturating_add(1) });
        let Order { request, priority } = order;
        let id = self.machine.request_to(peer, priority, self.address, request, now);
        self.waiting.insert(id, Waiting { key, waiter, answered: false, again });
    }

    /// Takes a response to message_1. Whether it was one.
    pub(super) fn hears_of_run(&mut self, id: RequestId, response: &Response) -> bool {
        let Some(mut run) = self.agreeing.run.take_if(|run| run.asked == id) else { return false };
        match run.initiator.receive(response) {
            Ok(Reply::Agreed(agreed)) => {
                let now = self.clock.now();
                // Under the keys before, nothing is asked any more.
                self.hold_waiting();
                if let Some(keyring) = &mut self.keyring {
                    keyring.take(&mut self.machine, agreed, now);
                }
                for Held { key, order, waiter, tries } in std::mem::take(&mut self.agreeing.held) {
                    self.ask(key, order, waiter, tries);
                }
            }
            Ok(Reply::Again(request)) if run.sent < Agreeing::SENT => {
                run.asked = self.send_message_1(request);
                run.sent += 1;
                self.agreeing.run = Some(run);
            }
            Ok(Reply::Again(_)) => self.give_up_agreeing(&InitiatorError::Code(response.code).into()),
            Err(error) => self.give_up_agreeing(&error.into()),
        }
        true
    }

    /// Takes in that message_1 has had no answer. Whether it was message_1.
    pub(super) fn misses_run(&mut self, id: RequestId, error: &RequestError) -> bool {
        let is_it = self.agreeing.run.take_if(|run| run.asked == id).is_some();
        if is_it {
            self.give_up_agreeing(error);
        }
        is_it
    }

    /// An error came without protection. Anybody may have said it; but where it is true, nothing better comes under these keys, and others
    /// cost little. What may not be done twice is not made again: the gateway may have done it, and another have said this.
    pub(super) fn doubt_keys(&mut self, response: &Response) {
        if self.agreeing.run.is_some() || self.keyring.as_ref().is_none_or(|keyring| !keyring.agrees()) {
            return;
        }
        debug!(remote = %self.address.remote, code = %response.code, "the gateway does not take the keys");
        let refused = ErrorMessage::decode(&response.payload).map(InitiatorError::Peer);
        if let Some(refused) = refused.filter(|_| response.code == Code::BAD_REQUEST) {
            return self.give_up_keys(&refused.into());
        }
        self.hold_waiting();
        match self.agreeing.held.is_empty() {
            true => self.give_up_keys(&RequestError::NoKeys),
            false => self.agree(),
        }
    }

    /// Gives up what waits for keys, and for responses under them.
    fn give_up_keys(&mut self, error: &RequestError) {
        for id in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.machine.abandon(id, self.clock.now());
            self.tell(id, Err(error.clone()), Then::Forget);
        }
        let now = self.clock.now();
        if let Some(keyring) = &mut self.keyring {
            keyring.forget(&mut self.machine, now);
        }
        self.give_up_agreeing(error);
    }

    /// Gives up what waits for keys.
    pub(super) fn give_up_agreeing(&mut self, error: &RequestError) {
        if let Some(run) = self.agreeing.run.take() {
            self.machine.abandon(run.asked, self.clock.now());
        }
        for Held { mut waiter, .. } in std::mem::take(&mut self.agreeing.held) {
            waiter.tell(Err(error.clone()));
        }
    }

    /// Takes back all that waits for responses, to make it again under other keys; what cannot be made again fails.
    fn hold_waiting(&mut self) {
        let now = self.clock.now();
        for (id, Waiting { key, mut waiter, answered, again }) in std::mem::take(&mut self.waiting) {
            self.machine.abandon(id, now);
            match again {
                Some(Again { order, tries })
                    if !answered && tries < Agreeing::TRIES && may_be_repeated(&order.request) =>
                {
                    self.agreeing.held.push(Held { key, order, waiter, tries });
                }
                _ => waiter.tell(Err(RequestError::NoKeys)),
            }
        }
    }

    fn agree(&mut self) {
        let seed = random().ok();
        let initiator = self.keyring.as_ref().zip(seed).and_then(|(keyring, seed)| keyring.initiate(seed));
        let Some(initiator) = initiator else { return };
        let asked = self.send_message_1(initiator.request());
        self.agreeing.run = Some(Run { initiator, asked, sent: 1 });
    }

    /// It is not protected.
    fn send_message_1(&mut self, request: coap::Request) -> RequestId {
        let now = self.clock.now();
        self.machine.request_as(Priority::Message, self.address, request, now)
    }
}

/// Whether a request may be made again where it may have been done already (RFC 9110 §9.2.2). What Matrix sends by PUT has a transaction id.
fn may_be_repeated(request: &coap::Request) -> bool {
    request.method != Code::POST
}
