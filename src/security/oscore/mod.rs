//! Messages that nobody on the link can read, change or replay (OSCORE, RFC 8613), in both roles.
//!
//! A [`Context`] protects and opens [`Message`](crate::coap::Message)s; whose they are, and when they are sent, others know.
//! Time is an argument, and there is no chance in it. What must survive a restart is said by [`Context::reserve`], and has to be kept
//! before anything is sent that was sealed after it.
//!
//! ```
//! use lowband::coap::{Code, Instant, Kind, Message, MessageId, OptionNumber};
//! use lowband::security::oscore::{Challenges, Context, Opened, Parameters, Secret};
//! use std::time::Duration;
//!
//! let ours = Parameters::new(Secret::from([7; 16]), b"", b"\x01");
//! let (mut client, mut server) = (Context::new(&ours)?, Context::new(&ours.mirrored())?);
//! let (_kept, _as_well) = (client.reserve(), server.reserve());
//!
//! let mut request = Message::empty(Kind::Confirmable, MessageId(1));
//! request.code = Code::GET;
//! request.options.push(OptionNumber::URI_PATH, "7");
//! let (sealed, _sent) = client.protect_request(&request)?;
//! assert_eq!(sealed.message.code, Code::POST);
//!
//! let challenges = Challenges::new([0; 32], Duration::from_secs(600));
//! let opened = server.open_request(&sealed.message, &challenges, Instant::START)?;
//! assert!(matches!(opened, Opened::Request { message, .. } if message == request));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
pub(in crate::security) mod cbor;
mod challenge;
mod context;
mod header;
mod keys;
mod parameters;
mod partial_iv;
mod protection;
mod reader;
mod refusal;
mod replay;
mod request;
mod secret;

pub use algorithm::{Algorithm, Hkdf, UnknownAlgorithm};
pub use challenge::{Challenges, answer_challenge};
pub use context::{Context, Freshness, Opened, ProtectError, Sealed, State, Used};
pub use header::{Header, HeaderError, is_protected};
pub use parameters::{Parameters, ParametersError};
pub use partial_iv::PartialIv;
pub use reader::{ReadError, Reader, Reading};
pub use refusal::{Disclosure, Refusal, ResponseError};
pub use replay::ReplayWindow;
pub use request::{RequestBinding, SentRequest};
pub use secret::Secret;
