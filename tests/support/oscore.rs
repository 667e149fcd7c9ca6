//! Two endpoints that share a security context, and the oracle of their nonces.

use std::collections::BTreeMap;
use std::time::Duration;

use lowband::coap::Instant;
use lowband::coap::Message;
use lowband::security::oscore::Challenges;
use lowband::security::oscore::Context;
use lowband::security::oscore::Opened;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::Refusal;
use lowband::security::oscore::RequestBinding;
use lowband::security::oscore::Sealed;
use lowband::security::oscore::SentRequest;
use lowband::security::oscore::State;
use lowband::security::oscore::Used;

/// How long a challenge of the tests is good for.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

/// The parameters of the client, which has no id.
pub(crate) fn parameters() -> Parameters {
    Parameters::new([7; 16].into(), b"", b"\x01")
}

/// An endpoint with its context and what it has kept on its disk.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its context.
    pub(crate) context: Context,
    /// Its disk.
    pub(crate) kept: State,
    /// Its challenges.
    pub(crate) challenges: Challenges,
    parameters: Parameters,
    starts: u8,
}

impl Endpoint {
    /// An endpoint that was provisioned just now.
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let mut context = Context::new(parameters).unwrap();
        let kept = context.reserve().expect("at first nothing is reserved");
        let challenges = Challenges::new([0; 32], LIFETIME);
        Self { context, kept, challenges, parameters: parameters.clone(), starts: 0 }
    }

    /// Client and server.
    pub(crate) fn pair() -> (Self, Self) {
        (Self::new(&parameters()), Self::new(&parameters().mirrored()))
    }

    /// Dies, and comes back with what is on its disk.
    pub(crate) fn crash(&mut self, now: Instant) {
        self.starts = self.starts.wrapping_add(1);
        self.challenges = Challenges::new([self.starts; 32], LIFETIME);
        self.context = Context::restore(&self.parameters, self.kept.clone(), now).unwrap();
        self.keep();
    }

    /// Ends in order, and comes back.
    pub(crate) fn restart(&mut self, now: Instant) {
        let context = std::mem::replace(&mut self.context, Context::new(&self.parameters).unwrap());
        self.kept = context.close();
        self.crash(now);
    }

    /// Keeps what it has to.
    pub(crate) fn keep(&mut self) {
        if let Some(state) = self.context.reserve() {
            self.kept = state;
        }
    }

    /// Protects a request.
    pub(crate) fn asks(&mut self, message: &Message) -> (Sealed, SentRequest) {
        let sealed = self.context.protect_request(message).unwrap();
        self.keep();
        sealed
    }

    /// Protects a response.
    pub(crate) fn answers(&mut self, message: &Message, binding: &mut RequestBinding) -> Sealed {
        let sealed = self.context.protect_response(message, binding).unwrap();
        self.keep();
        sealed
    }

    /// Opens a request.
    pub(crate) fn opens(&mut self, message: &Message, now: Instant) -> Result<Opened, Refusal> {
        let opened = self.context.open_request(message, &self.challenges, now);
        self.keep();
        opened
    }

    /// Serves a request.
    pub(crate) fn serves(&mut self, message: &Message, now: Instant) -> (Message, RequestBinding) {
        match self.opens(message, now).unwrap() {
            Opened::Request { message, binding } => (message, binding),
            Opened::Challenge(_) => panic!("{message:?} is challenged"),
        }
    }

    /// Challenges the sender of a request.
    pub(crate) fn challenges(&mut self, message: &Message, now: Instant) -> Sealed {
        match self.opens(message, now).unwrap() {
            Opened::Challenge(sealed) => sealed,
            Opened::Request { .. } => panic!("{message:?} is served"),
        }
    }
}

/// What was sealed, by key and nonce.
#[derive(Debug, Default)]
pub(crate) struct Nonces(BTreeMap<Used, Message>);

impl Nonces {
    /// Fails where another message was sealed under the same key with the same nonce.
    pub(crate) fn saw(&mut self, sealed: &Sealed) {
        let Some(other) = self.0.insert(sealed.used.clone(), sealed.message.clone()) else { return };
        assert_eq!(other.payload, sealed.message.payload, "{:?} was used twice", sealed.used);
    }

    /// How many there were.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
