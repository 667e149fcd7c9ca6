//! OSCORE over a link that repeats anything at any time, between endpoints that die at any moment: nothing is served twice, no nonce is used
//! twice, and whoever has the keys is heard again.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, MessageId};
use lowband::security::oscore::{Opened, RequestBinding, Sealed, SentRequest, answer_challenge};
use proptest::prelude::*;
use support::oscore::{Endpoint, LIFETIME, Nonces};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The client asks.
    Ask,
    /// What was sent at some time comes to the server, perhaps once more.
    Deliver(prop::sample::Index),
    /// The server answers one of the requests that it serves, perhaps once more.
    Answer(prop::sample::Index),
    /// One of them dies, and is back at once.
    Crash { client: bool },
    /// One of them ends in order, and is back at once.
    Restart { client: bool },
    /// Time passes.
    Wait(u16),
}

/// All of it, as an attacker sees it, who keeps everything.
struct World {
    client: Endpoint,
    server: Endpoint,
    now: Instant,
    nonces: Nonces,
    /// What the client has sent: the plain request, the sealed one, and what opens its response unless the client has died since.
    sent: Vec<(Message, Message, Option<SentRequest>)>,
    served: BTreeSet<usize>,
    bindings: Vec<RequestBinding>,
    taken: BTreeSet<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let (client, server) = Endpoint::pair();
        Self {
            client,
            server,
            now: Instant::START,
            nonces: Nonces::default(),
            sent: Vec::new(),
            served: BTreeSet::new(),
            bindings: Vec::new(),
            taken: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        self.now = self.now + Duration::from_secs(1);
        match step {
            Step::Ask => {
                let id = MessageId(self.sent.len() as u16);
                let request = Message { code: Code::GET, ..Message::empty(Kind::Confirmable, id) };
                self.ask(request);
            }
            Step::Deliver(_) if self.sent.is_empty() => {}
            Step::Deliver(at) => {
                self.deliver(at.index(self.sent.len()));
            }
            Step::Answer(_) if self.bindings.is_empty() => {}
            Step::Answer(at) => {
                let at = at.index(self.bindings.len());
                let id = MessageId(self.nonces.len() as u16);
                let response = Message { code: Code::CONTENT, ..Message::empty(Kind::NonConfirmable, id) };
                let payload = format!("{} {}", at, self.nonces.len()).into();
                let sealed = self.server.answers(&Message { payload, ..response }, &mut self.bindings[at]);
                self.nonces.saw(&sealed);
            }
            Step::Crash { client: true } => {
                self.forget();
                self.client.crash(self.now);
            }
            Step::Crash { client: false } => {
                self.keep_bindings();
                self.server.crash(self.now);
            }
            Step::Restart { client: true } => {
                self.forget();
                self.client.restart(self.now);
            }
            Step::Restart { client: false } => {
                self.keep_bindings();
                self.server.restart(self.now);
            }
            Step::Wait(seconds) => self.now = self.now + Duration::from_secs((*seconds).into()),
        }
    }

    fn ask(&mut self, request: Message) -> usize {
        let (sealed, sent) = self.client.asks(&request);
        self.nonces.saw(&sealed);
        self.sent.push((request, sealed.message, Some(sent)));
        self.sent.len() - 1
    }

    /// A request comes to the server. Returns the request that answers the challenge, where there was one and the client can.
    fn deliver(&mut self, at: usize) -> Option<usize> {
        match self.server.opens(&self.sent[at].1, self.now) {
            Ok(Opened::Request { message, binding }) => {
                assert_eq!(message, self.sent[at].0);
                assert!(self.served.insert(at), "request {at} is served twice");
                self.bindings.push(binding);
                None
            }
            Ok(Opened::Challenge(sealed)) => self.challenged(at, &sealed),
            Err(_) => None,
        }
    }

    fn challenged(&mut self, at: usize, sealed: &Sealed) -> Option<usize> {
        self.nonces.saw(sealed);
        let (request, _, sent) = &mut self.sent[at];
        let opened = self.client.context.open_response(&sealed.message, sent.as_mut()?).ok()?;
        assert!(self.taken.insert(sealed.message.payload.to_vec()), "a response is taken twice");
        let request = answer_challenge(request, &opened)?;
        Some(self.ask(request))
    }

    /// The client dies: what it was waiting for is lost.
    fn forget(&mut self) {
        self.sent.iter_mut().for_each(|(.., sent)| *sent = None);
    }

    /// The server dies: of what it serves, what was on its disk is left.
    fn keep_bindings(&mut self) {
        let text = serde_json::to_string(&self.bindings).unwrap();
        self.bindings = serde_json::from_str(&text).unwrap();
    }

    /// The client asks, and says that it is fresh if it is asked to.
    fn is_heard(&mut self) {
        let before = self.served.len();
        self.step(&Step::Ask);
        let at = self.sent.len() - 1;
        if let Some(answer) = self.deliver(at) {
            self.deliver(answer);
        }
        assert_eq!(self.served.len(), before + 1, "the client is locked out");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_when_and_whoever_dies(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.is_heard();
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Ask),
        10 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        6 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => any::<bool>().prop_map(|client| Step::Crash { client }),
        1 => any::<bool>().prop_map(|client| Step::Restart { client }),
        1 => (0..2 * LIFETIME.as_secs() as u16).prop_map(Step::Wait),
    ]
}
