//! Keys that two endpoints agree on over the link, in 101 bytes and two round trips, the second of which carries a request already (EDHOC,
//! RFC 9528; RFC 9668): parameters for [`oscore`](super::oscore), which nobody has who comes to have the device's own key later.
//!
//! Method 3, both ends known by static keys that the other has beforehand; cipher suite 2. Time is an argument, and so is chance: seeds, each
//! random and used once. The protocol is that of the crate lakers; what it must not see is kept from it here.
//!
//! ```
//! use lowband::coap::{Address, Instant, Kind, Message, MessageId, Response};
//! use lowband::security::edhoc::{
//!     Config, ConnectionId, Credential, Identity, Initiator, KeyPair, Reply, Responder,
//! };
//!
//! let identity = |seed: u8, kid: u8| {
//!     let pair = KeyPair::generate([seed; 32]);
//!     let credential = Credential::new("", &[kid], pair.public())?;
//!     Identity::new(pair, credential)
//! };
//! let (device, gateway) = (identity(1, 7)?, identity(2, 0)?);
//! let mut responder = Responder::new(gateway.clone(), Config::default(), [3; 32]);
//! responder.insert(device.credential().clone());
//!
//! let c_i = ConnectionId::new(&[0x0e]).expect("one byte is few enough");
//! let initiator = Initiator::new(device, gateway.credential().clone(), &c_i, [4; 32]);
//! let mut ask = |request: lowband::coap::Request| {
//!     let (code, options, payload) = (request.method, request.options, request.payload);
//!     let message = Message { code, options, payload, ..Message::empty(Kind::Confirmable, MessageId(1)) };
//!     let any = "192.0.2.1:5683".parse().expect("it is an address");
//!     responder.receive(Address { remote: any, local: any }, &message, |_| true, [5; 32], Instant::START)
//! };
//! let Reply::Agreed(mut agreed) = initiator.receive(&ask(initiator.request()).response)? else { panic!() };
//! let answer = ask(agreed.request());
//! agreed.confirm(&answer.response)?;
//! let established = answer.established.expect("the device is known");
//! assert_eq!(established.kid, [7]);
//! assert_eq!(established.parameters.sender_id, agreed.parameters().recipient_id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod credential;
mod error;
mod handshake;
mod initiator;
mod key;
mod message;
mod primitives;
mod rekey;
mod responder;
#[cfg(test)]
mod traces;
mod transport;

pub use connection::ConnectionId;
pub use credential::{Credential, CredentialError, Identity};
pub use error::{ErrorMessage, Refusal};
pub use initiator::{Agreed, Initiator, InitiatorError, Reply};
pub use key::{KeyError, KeyPair, PublicKey};
pub use rekey::{Due, Rekey, Use};
pub use responder::{Answer, Combined, Config, Counters, Established, Responder};
pub use transport::{is_combined, is_edhoc};
