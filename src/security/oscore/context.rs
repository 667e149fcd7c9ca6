//! A security context: what one endpoint needs to speak with another (RFC 8613 §3), and the processing of §8.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::challenge::Challenges;
use super::header::{Header, HeaderError, is_protected};
use super::keys::Keys;
use super::parameters::{Parameters, ParametersError};
use super::partial_iv::PartialIv;
use super::protection;
use super::refusal::{Refusal, ResponseError};
use super::replay::ReplayWindow;
use super::request::{Place, RequestBinding, SentRequest};
use crate::coap::{Code, Instant, Kind, Message, OptionNumber, Options};

/// One endpoint's half of a security association, for requests in both directions.
///
/// ```text
///            new                       restore, with its window
///             │  ┌──────────────────────────┘
///             ▼  ▼                                      restore, without
///        ┌──────────┐   a request is fresh   ┌──────┐◄──────────┘
///        │  Known   │◄──── (Recovered) ◄─────│ Lost │──┐ any other request: 4.01 with Echo
///        └──────────┘    and 64 later on     └──────┘◄─┘
/// ```
#[derive(Debug)]
pub struct Context {
    sender_id: Vec<u8>,
    recipient_id: Vec<u8>,
    id_context: Option<Vec<u8>>,
    keys: Keys,
    /// The Sender Sequence Number: the next one.
    next: u64,
    /// The first one that is not reserved.
    reserved: u64,
    window: ReplayWindow,
    /// One more than the greatest number that was challenged since the restart: what is below may come again, and was not taken.
    challenged: u64,
    freshness: Freshness,
}

/// What is known of the requests that came before (RFC 8613 Appendix B.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// All that the replay window has to know.
    Known,
    /// Nothing, since a restart: a request has to prove that it is fresh.
    Lost {
        /// The restart.
        since: Instant,
    },
    /// What came after the first that was fresh. Below its number, requests have to prove it still: of those that were on their way at once, a later
    /// one may be the first to come.
    Recovered {
        /// The restart.
        since: Instant,
        /// The number of the first that was fresh, or of what comes after the last that was challenged before that.
        floor: PartialIv,
    },
}

/// What must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// A Sender Sequence Number that was not used yet, and neither were those after it.
    pub sequence: u64,
    /// The replay window, where nothing was opened after it: see [`Context::close`].
    pub window: Option<ReplayWindow>,
}

/// A message that was protected. A repeat of it is the same bytes: sealed anew, it would be another message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What goes on the link.
    pub message: Message,
    /// With what it was encrypted, for those who see to it that no nonce is used twice.
    pub used: Used,
}

/// A key and a nonce that a message was encrypted with: used for one, and no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// A hash of the key, cut short.
    pub key: [u8; 8],
    /// The nonce.
    pub nonce: Vec<u8>,
}

/// What came of a request that was made with the right keys.
#[derive(Debug)]
pub enum Opened {
    /// It is to be served.
    Request {
        /// As it was before it was protected.
        message: Message,
        /// What its responses are protected with.
        binding: RequestBinding,
    },
    /// It may be a replay, from before a restart: it is not to be served, and this is the response, 4.01 with Echo, as an
    /// acknowledgement. Its sender will ask again.
    Challenge(Sealed),
}

/// Why a message was not protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtectError {
    /// It has another code than its role.
    #[error("code {0} cannot be protected in this role")]
    WrongCode(Code),
    /// RFC 8613 §4.1.3.7: protection within protection is not supported.
    #[error("message is protected already")]
    Nested,
    /// RFC 8613 §4.1.3.3: whoever makes the request has to take it apart, for its path is not to be seen.
    #[error("Proxy-Uri is to be given as Proxy-Scheme and Uri options")]
    ProxyUri,
    /// [`Context::reserve`] has to be called, and what it returns kept.
    #[error("no sequence numbers are reserved")]
    Unreserved,
    /// RFC 8613 §7.2.1: the keys have to be replaced.
    #[error("sequence numbers are exhausted")]
    Exhausted,
}

impl Context {
    /// How many sequence numbers are reserved at once (K of RFC 8613 Appendix B.1.1); as many are lost at most with a crash.
    pub const AHEAD: u64 = 256;
    /// With how many left more are reserved.
    pub const LEAST: u64 = 128;
    /// One more than the greatest sequence number (§7.2.1).
    const END: u64 = PartialIv::MAX_NUMBER + 1;

    /// A context whose keys were never used before. Nothing of it is known to be kept yet: see [`Context::reserve`].
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub fn new(parameters: &Parameters) -> Result<Self, ParametersError> {
        parameters.validate()?;
        Ok(Self {
            sender_id: parameters.sender_id.clone(),
            recipient_id: parameters.recipient_id.clone(),
            id_context: parameters.id_context.clone(),
            keys: Keys::derive(parameters),
            next: 0,
            reserved: 0,
            window: ReplayWindow::default(),
            challenged: 0,
            freshness: Freshness::Known,
        })
    }

    /// The context after a restart, from the last state that was kept.
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub fn restore(parameters: &Parameters, state: State, now: Instant) -> Result<Self, ParametersError> {
        let mut context = Self::new(parameters)?;
        context.next = state.sequence.min(Self::END);
        context.reserved = context.next;
        match state.window {
            Some(window) => context.window = window,
            None => context.freshness = Freshness::Lost { since: now },
        }
        Ok(context)
    }

    /// What has to be kept before anything is sent that is sealed from now on; `None` where what was kept last is still good. To be called
    /// once at the start, and after whatever was sealed.
    ///
    /// With nothing reserved the context seals nothing, and opens no request either: a window that was kept would come back after
    /// a restart that forgot the request.
    pub fn reserve(&mut self) -> Option<State> {
        if self.reserved - self.next >= Self::LEAST || self.reserved == Self::END {
            return None;
        }
        self.reserved = (self.next + Self::AHEAD).min(Self::END);
        Some(State { sequence: self.reserved, window: None })
    }

    /// What to keep of a context that will not be used any more before a restart: nothing of it is lost then.
    pub fn close(self) -> State {
        let window = match self.freshness {
            Freshness::Known => Some(self.window),
            Freshness::Recovered { floor, .. } => Some(self.window.refusing_below(floor.number())),
            Freshness::Lost { .. } => None,
        };
        State { sequence: self.next, window }
    }

    /// The id of this endpoint.
    pub fn sender_id(&self) -> &[u8] {
        &self.sender_id
    }

    /// The id of the other endpoint: the `kid` of its requests.
    pub fn recipient_id(&self) -> &[u8] {
        &self.recipient_id
    }

    /// What tells it from other contexts with the same ids.
    pub fn id_context(&self) -> Option<&[u8]> {
        self.id_context.as_deref()
    }

    /// Whether sequence numbers were reserved: only then can anything have been sealed or opened.
    pub fn is_begun(&self) -> bool {
        self.reserved > 0
    }

    /// What is known of the requests that came before.
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// How many messages at most were sealed with the sender's key: with numbers of our own, and with those of requests.
    pub fn sealed(&self) -> u64 {
        self.next.saturating_add(self.window.next())
    }

    /// The next Sender Sequence Number: how many messages at most were sealed with a number of their own.
    pub fn sequence(&self) -> u64 {
        self.next
    }

    /// Whether a request with this header may be for this context. Without a `kid context` it may be for each with its `kid`.
    pub fn is_meant(&self, header: &Header) -> bool {
        header.kid.as_ref() == Some(&self.recipient_id)
            && (header.kid_context.is_none() || header.kid_context == self.id_context)
    }

    /// Protects a request (§8.1).
    ///
    /// # Errors
    /// What keeps it from that. Nothing is to be sent then.
    pub fn protect_request(&mut self, message: &Message) -> Result<(Sealed, SentRequest), ProtectError> {
        if !message.code.is_request() {
            return Err(ProtectError::WrongCode(message.code));
        }
        if message.options.get(OptionNumber::PROXY_URI).is_some() {
            return Err(ProtectError::ProxyUri);
        }
        refuse_nested(message)?;
        let partial_iv = self.take_number()?;
        let header = Header {
            partial_iv: Some(partial_iv),
            kid_context: self.id_context.clone(),
            kid: Some(self.sender_id.clone()),
        };
        let observe = message.options.get_uint(OptionNumber::OBSERVE);
        // §4.2: FETCH may be observed, POST not.
        let code = if observe.is_some() { Code::FETCH } else { Code::POST };
        let nonce = self.keys.nonce(&self.sender_id, partial_iv);
        let aad = self.keys.aad(&self.sender_id, partial_iv);
        let split = protection::split_request(message);
        let sealed = self.seal(message, code, &header, split, nonce, &aad);
        Ok((sealed, SentRequest::new(partial_iv, observe == Some(0))))
    }

    /// Opens a request (§8.2). One that is not opened has changed nothing.
    ///
    /// # Errors
    /// Why it is not served; [`Refusal::response`] is what its sender may be told.
    pub fn open_request(
        &mut self,
        message: &Message,
        challenges: &Challenges,
        now: Instant,
    ) -> Result<Opened, Refusal> {
        let (header, partial_iv) = Header::of_request(message)?;
        if !self.is_meant(&header) {
            return Err(Refusal::UnknownContext);
        }
        if self.next == self.reserved {
            return Err(if self.next == Self::END { Refusal::Exhausted } else { Refusal::Unreserved });
        }
        // §7.4: what is known to have come is not even decrypted.
        if !self.window.is_fresh(partial_iv) {
            return Err(Refusal::Replayed);
        }
        let nonce = self.keys.nonce(&self.recipient_id, partial_iv);
        let aad = self.keys.aad(&self.recipient_id, partial_iv);
        let plaintext = self.keys.open(&nonce, &aad, &message.payload).ok_or(Refusal::Forged)?;
        let opened = protection::join(message, &plaintext).filter(|opened| opened.code.is_request());
        let mut opened = opened.ok_or(Refusal::NotARequest)?;
        let mut binding = RequestBinding { partial_iv, fetch: message.code == Code::FETCH, reusable: true };
        if self.is_doubtful(partial_iv) && !self.proves_freshness(&opened, challenges, now) {
            // Appendix B.1.2: the request may have been answered with its own nonce before the restart.
            binding.reusable = false;
            // Its answer comes as another request. Should the network have doubled this one, that must not be served as well.
            if matches!(self.freshness, Freshness::Lost { .. }) {
                self.challenged = self.challenged.max(partial_iv.number() + 1);
            }
            return Ok(Opened::Challenge(self.challenge(message, &mut binding, challenges, now)?));
        }
        self.window.accept(partial_iv);
        if let Freshness::Lost { since } = self.freshness {
            let floor = PartialIv::new(self.challenged).map_or(partial_iv, |after| after.max(partial_iv));
            self.freshness = Freshness::Recovered { since, floor };
        }
        if let Freshness::Recovered { floor, .. } = self.freshness
            && self.window.next() > floor.number() + ReplayWindow::WIDTH
        {
            self.freshness = Freshness::Known;
        }
        // §4.1.3.5.1: a proxy that took the outer Observe away does not pass notifications on.
        if message.options.get(OptionNumber::OBSERVE).is_none() {
            opened.options.remove(OptionNumber::OBSERVE);
        }
        Ok(Opened::Request { message: opened, binding })
    }

    /// Protects a response, or a notification (§8.3): the first with its request's nonce, later ones with numbers of their own.
    ///
    /// # Errors
    /// What keeps it from that. Nothing is to be sent then.
    pub fn protect_response(
        &mut self,
        message: &Message,
        binding: &mut RequestBinding,
    ) -> Result<Sealed, ProtectError> {
        if !message.code.is_response() {
            return Err(ProtectError::WrongCode(message.code));
        }
        refuse_nested(message)?;
        let (partial_iv, nonce) = if std::mem::take(&mut binding.reusable) {
            (None, self.keys.nonce(&self.recipient_id, binding.partial_iv))
        } else {
            let partial_iv = self.take_number()?;
            (Some(partial_iv), self.keys.nonce(&self.sender_id, partial_iv))
        };
        let header = Header { partial_iv, kid_context: None, kid: None };
        // §4.2.
        let code = if binding.fetch { Code::CONTENT } else { Code::CHANGED };
        let aad = self.keys.aad(&self.recipient_id, binding.partial_iv);
        Ok(self.seal(message, code, &header, protection::split_response(message), nonce, &aad))
    }

    /// Opens a response, or a notification (§8.4). A notification has a value of Observe that is greater than that of those before.
    ///
    /// # Errors
    /// Why it is dropped. Nothing is changed then.
    pub fn open_response(&self, message: &Message, sent: &mut SentRequest) -> Result<Message, ResponseError> {
        if !is_protected(message) {
            return Err(ResponseError::Unprotected(message.code));
        }
        let header = Header::of(message)?;
        if header.kid_context.is_some() {
            return Err(HeaderError::Parts.into());
        }
        if message.payload.is_empty() {
            return Err(HeaderError::NoCiphertext.into());
        }
        if protection::has_outer_blocks(message) {
            return Err(ResponseError::OuterBlock);
        }
        if header.kid.is_some_and(|kid| kid != self.recipient_id) {
            return Err(ResponseError::UnknownContext);
        }
        if !sent.is_fresh(header.partial_iv) {
            return Err(ResponseError::Replayed);
        }
        let nonce = match header.partial_iv {
            Some(partial_iv) => self.keys.nonce(&self.recipient_id, partial_iv),
            None => self.keys.nonce(&self.sender_id, sent.partial_iv),
        };
        let aad = self.keys.aad(&self.sender_id, sent.partial_iv);
        let plaintext = self.keys.open(&nonce, &aad, &message.payload).ok_or(ResponseError::Forged)?;
        let opened = protection::join(message, &plaintext).filter(|opened| opened.code.is_response());
        let mut opened = opened.ok_or(ResponseError::NotAResponse)?;
        let place = place(&opened);
        // §8.4: a notification of what is not observed.
        if place != Place::Response && !sent.observes() {
            return Err(ResponseError::NotAResponse);
        }
        let sequence = sent.accept(header.partial_iv, place).ok_or(ResponseError::Replayed)?;
        if place != Place::Response {
            opened.options.set_uint(OptionNumber::OBSERVE, sequence);
        }
        Ok(opened)
    }

    /// Whether a request that the window does not know may still have come before.
    fn is_doubtful(&self, partial_iv: PartialIv) -> bool {
        match self.freshness {
            Freshness::Known => false,
            Freshness::Lost { .. } => true,
            Freshness::Recovered { floor, .. } => partial_iv < floor,
        }
    }

    fn proves_freshness(&self, opened: &Message, challenges: &Challenges, now: Instant) -> bool {
        let echo = opened.options.get(OptionNumber::ECHO);
        echo.is_some_and(|echo| challenges.is_fresh(&self.subject(), echo, now))
    }

    /// Whom a challenge is for: this context, as it is since this restart.
    fn subject(&self) -> Vec<u8> {
        let since = match self.freshness {
            Freshness::Known => Instant::START,
            Freshness::Lost { since } | Freshness::Recovered { since, .. } => since,
        };
        let since = since.since_start().as_nanos().to_be_bytes();
        [b"OSCORE".as_slice(), &self.keys.fingerprint(), &since].concat()
    }

    fn challenge(
        &mut self,
        request: &Message,
        binding: &mut RequestBinding,
        challenges: &Challenges,
        now: Instant,
    ) -> Result<Sealed, Refusal> {
        let mut options = Options::new();
        options.push(OptionNumber::ECHO, challenges.value(&self.subject(), now));
        let (kind, code, payload) = (Kind::Acknowledgement, Code::UNAUTHORIZED, Bytes::new());
        let response = Message { kind, code, id: request.id, token: request.token, options, payload };
        self.protect_response(&response, binding).map_err(|_| Refusal::Unreserved)
    }

    fn take_number(&mut self) -> Result<PartialIv, ProtectError> {
        let number = PartialIv::new(self.next).ok_or(ProtectError::Exhausted)?;
        if self.next >= self.reserved {
            return Err(ProtectError::Unreserved);
        }
        self.next += 1;
        Ok(number)
    }

    fn seal(
        &self,
        message: &Message,
        code: Code,
        header: &Header,
        (plaintext, mut options): (Vec<u8>, Options),
        nonce: Vec<u8>,
        aad: &[u8],
    ) -> Sealed {
        options.push(OptionNumber::OSCORE, header.encode());
        let payload = self.keys.seal(&nonce, aad, plaintext).into();
        let (kind, id, token) = (message.kind, message.id, message.token);
        Sealed {
            message: Message { kind, code, id, token, options, payload },
            used: Used { key: self.keys.fingerprint(), nonce },
        }
    }
}

fn refuse_nested(message: &Message) -> Result<(), ProtectError> {
    if is_protected(message) { Err(ProtectError::Nested) } else { Ok(()) }
}

/// What a response is, by its inner options.
fn place(opened: &Message) -> Place {
    match opened.options.get(OptionNumber::OBSERVE) {
        None => Place::Response,
        Some([]) => Place::Notification,
        Some(value) if opened.options.get(OptionNumber::Q_BLOCK2).is_some() => {
            crate::coap::read_uint(value).map_or(Place::Notification, Place::Block)
        }
        // §4.1.3.5.2: what it says is not for us.
        Some(_) => Place::Notification,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::coap::MessageId;
    use crate::security::oscore::Disclosure;

    #[test]
    fn what_is_protected_by_the_right_keys_and_is_no_request_is_refused_and_changes_nothing() {
        let parameters = Parameters::new([7; 16].into(), b"", b"\x01");
        let mut client = Context::new(&parameters).unwrap();
        let mut server = Context::new(&parameters.mirrored()).unwrap();
        let _kept = (client.reserve(), server.reserve());
        let message = Message { code: Code::CONTENT, ..Message::empty(Kind::Confirmable, MessageId(1)) };
        let partial_iv = client.take_number().unwrap();
        let header = Header { partial_iv: Some(partial_iv), kid_context: None, kid: Some(Vec::new()) };
        let (nonce, aad) = (client.keys.nonce(b"", partial_iv), client.keys.aad(b"", partial_iv));
        let sealed =
            client.seal(&message, Code::POST, &header, protection::split_request(&message), nonce, &aad);
        let challenges = Challenges::new([0; 32], Duration::from_secs(600));
        for _ in 0..2 {
            let refused = server.open_request(&sealed.message, &challenges, Instant::START).unwrap_err();
            assert_eq!(refused, Refusal::NotARequest);
            assert_eq!(refused.response(Disclosure::Uniform).unwrap().code, Code::BAD_REQUEST);
        }
        assert_eq!(server.window, ReplayWindow::default());
    }
}
