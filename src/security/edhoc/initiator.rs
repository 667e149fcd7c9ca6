//! The end that begins: a CoAP client, which is the device (RFC 9528 Appendix A.2.1).

use std::fmt;

use thiserror::Error;

use super::connection::ConnectionId;
use super::credential::{Credential, Identity};
use super::error::{ErrorMessage, Refusal, TRUE};
use super::handshake::{self, Begun, Confirmation};
use super::key::KeyPair;
use super::message::SUITE;
use super::transport;
use crate::coap::{Code, Message, OptionNumber, Request, Response};
use crate::security::oscore::Parameters;

/// A run of the protocol with a responder that is known, up to message_2.
///
/// ```text
///   request() ──► message_1 ──► receive(response) ──► Agreed ──► combine(a protected request)
///                     ▲               │ 4.01 with Echo       └─► request(), confirm(response)
///                     └───────────────┘
/// ```
pub struct Initiator {
    identity: Identity,
    peer: Credential,
    begun: Begun,
    request: Request,
}

/// What came of a response to message_1.
#[derive(Debug)]
pub enum Reply {
    /// The responder asks whether we are there (RFC 9175 §2.3): this is to be sent.
    Again(Request),
    /// It is whom we meant.
    Agreed(Box<Agreed>),
}

/// Keys that both ends have once message_3 has come.
pub struct Agreed {
    parameters: Parameters,
    message_3: Vec<u8>,
    c_r: ConnectionId,
    confirmation: Confirmation,
}

impl Initiator {
    /// Begins. `c_i` is to be free among our Recipient IDs, and the seed random and used for nothing else.
    pub fn new(identity: Identity, peer: Credential, c_i: &ConnectionId, seed: [u8; 32]) -> Self {
        let (begun, message_1) = handshake::begin(&KeyPair::generate(seed), &[SUITE], c_i);
        Self { identity, peer, begun, request: transport::request(&[TRUE], &message_1) }
    }

    /// The request with message_1.
    pub fn request(&self) -> Request {
        self.request.clone()
    }

    /// Takes the response to it. One that is refused has changed nothing; but nothing better need come.
    ///
    /// # Errors
    /// Why there are no keys.
    pub fn receive(&self, response: &Response) -> Result<Reply, InitiatorError> {
        let echo = response.options.get(OptionNumber::ECHO).filter(|_| response.code == Code::UNAUTHORIZED);
        if let Some(echo) = echo {
            let mut again = self.request();
            again.options.set(OptionNumber::ECHO, echo);
            return Ok(Reply::Again(again));
        }
        let message_2 = message_in(response)?;
        let finished = self.begun.receive_2(message_2, &self.identity, &self.peer)?;
        Ok(Reply::Agreed(Box::new(Agreed {
            parameters: finished.parameters,
            message_3: finished.message,
            c_r: finished.c_r,
            confirmation: finished.confirmation,
        })))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("identity", &self.identity)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Agreed {
    /// Those of a context that is new: nothing was sealed with it.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Puts message_3 before a request that was protected with the new context: so each is to be sent until a protected response has come,
    /// which says that the responder has the keys (RFC 9668 §3). It costs 20 bytes, with a key id of one byte.
    pub fn combine(&self, sealed: Message) -> Message {
        transport::combine(&self.message_3, sealed)
    }

    /// The request with message_3 alone.
    pub fn request(&self) -> Request {
        transport::request(&self.c_r.encode(), &self.message_3)
    }

    /// Takes the response to it: with message_4 in it, the responder has the keys.
    ///
    /// # Errors
    /// Why it may not have them.
    pub fn confirm(&mut self, response: &Response) -> Result<(), InitiatorError> {
        Ok(self.confirmation.receive_4(message_in(response)?)?)
    }
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agreed").field("c_r", &self.c_r).finish_non_exhaustive()
    }
}

fn message_in(response: &Response) -> Result<&[u8], InitiatorError> {
    if response.code == Code::CHANGED {
        return Ok(&response.payload);
    }
    let error = ErrorMessage::decode(&response.payload).map(InitiatorError::Peer);
    Err(error.unwrap_or(InitiatorError::Code(response.code)))
}

/// Why there are no keys. What a response says that is not protected, anybody may have said.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InitiatorError {
    /// The message was not taken.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The responder sent an error message.
    #[error("the responder refused: {0}")]
    Peer(ErrorMessage),
    /// It answered with something else.
    #[error("the responder answered {0}")]
    Code(Code),
}
