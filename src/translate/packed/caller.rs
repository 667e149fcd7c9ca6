//! The client's end of an association: which profile is spoken, and what is sent for a request until it has its answer.
//!
//! Sans-IO: [`Caller::begin`], then send what a [`Step`] says and hand in the response, until it is done. What is to outlast the process is the
//! `Caller`, which has changed with each step: keep it before what the step says is sent.

use bytes::Bytes;
use http::HeaderValue;
use http::header;
use serde::Deserialize;
use serde::Serialize;

use crate::coap;
use crate::coap::Code;
use crate::coap::OptionNumber;
use crate::codec::Keys;
use crate::codec::Limits;
use crate::packed;
use crate::packed::Agreement;
use crate::packed::Asked;
use crate::packed::Dictionary;
use crate::packed::EncodeError;
use crate::packed::MessageNumber;
use crate::packed::ProxyEnd;
use crate::packed::Spelling;
use crate::translate::packed::Hello;
use crate::translate::packed::Identity;
use crate::translate::packed::VERSION;
use crate::translate::packed::is_packed_response;
use crate::translate::packed::request;
use crate::translate::request::SendError;
use crate::translate::request::to_coap;
use crate::translate::response::ReadError;
use crate::translate::response::of_packed;
use crate::translate::response::to_http;

/// The client's end.
///
/// ```text
///               ┌── welcome ──▶ Packed ◀─ the same, spelled out ── 4.22
///  Unknown ── hello                │ ▲
///               │                  ▼ └──────────── hello ───────── 4.12, or what cannot be read
///               └── not spoken ──▶ Compatible
/// ```
#[derive(Debug, Serialize, Deserialize)]
pub struct Caller {
    end: Option<ProxyEnd>,
    /// What was agreed on holds by this dictionary alone.
    #[serde(default)]
    identity: Option<Identity>,
    /// What an end without a past begins with.
    chance: (u32, u32),
    /// Whether what the gateway takes for known is not, so that another epoch is to begin.
    #[serde(default)]
    is_lost: bool,
    /// What the gateway said where it does not speak the profile. It may when it is asked again.
    #[serde(skip)]
    not_spoken: Option<String>,
    /// What the gateway was told to put into `Authorization`, by this process.
    #[serde(skip)]
    said: Option<HeaderValue>,
}

/// A request that is under way.
#[derive(Debug)]
pub struct Pending {
    http: http::Request<Bytes>,
    sent: Sent,
    /// How often something was sent for it.
    steps: u8,
    /// Whether what was sent last has the access token.
    introduces: bool,
}

impl Pending {
    /// Whether what was sent last is not the request itself: it is not to observe.
    pub fn is_hello(&self) -> bool {
        matches!(self.sent, Sent::Hello(_))
    }
}

/// What was sent last.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Hello(Hello),
    /// With the epoch that it is of.
    Packed(Asked, MessageNumber, Spelling, u32),
    Compatible,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this, and hand in the response.
    Send(coap::Request),
    /// The request has its answer.
    Done(http::Response<Bytes>),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It cannot be packed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The answer is none that is known.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An answer cannot be read, and the request is not to be made twice; or a notification.
    #[error("what the gateway has sent cannot be read: {0}")]
    Unread(packed::DecodeError),
    /// The gateway refuses whatever is tried.
    #[error("the two ends do not come to agree")]
    Unmended,
}

impl Caller {
    /// A hello and the request, again and spelled out, and all of it once more.
    const MOST_STEPS: u8 = 6;

    /// A client's end without a past. `chance` makes it another than those before it.
    pub fn new(chance: [u8; 8]) -> Self {
        let [a, b, c, d, transactions @ ..] = chance;
        let chance = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(transactions));
        Self { end: None, identity: None, chance, is_lost: false, not_spoken: None, said: None }
    }

    /// Whether the gateway is known not to speak the profile.
    pub fn is_compatible(&self) -> bool {
        self.not_spoken.is_some()
    }

    /// Why it does not: its words, where it had any, or the code of its answer.
    pub fn why_compatible(&self) -> Option<&str> {
        self.not_spoken.as_deref()
    }

    /// What is known with the gateway, unless it is known that this is not true any more.
    pub fn end(&self) -> Option<&ProxyEnd> {
        self.end.as_ref().filter(|_| !self.is_lost)
    }

    /// How many aliases were written and read, by this process.
    pub fn references(&self) -> u64 {
        self.end.as_ref().map_or(0, ProxyEnd::references)
    }

    /// What was agreed, if it was.
    pub fn agreement(&self) -> Option<Agreement> {
        self.end.as_ref().map(ProxyEnd::agreement)
    }

    /// Begins a request, with its absolute or relative URL and its access token in `Authorization`.
    ///
    /// # Errors
    /// One that cannot be sent.
    pub fn begin(
        &mut self,
        http: http::Request<Bytes>,
        dictionary: &Dictionary,
    ) -> Result<(Pending, Step), CallError> {
        let mut pending = Pending { http, sent: Sent::Compatible, steps: 0, introduces: false };
        let step = match (&self.end, self.is_compatible()) {
            (_, true) => self.send_compatible(&mut pending),
            (None, false) => self.send_hello(&mut pending, dictionary),
            (Some(_), false) if self.is_lost || self.identity != Some(Identity::of(dictionary)) => {
                self.send_hello(&mut pending, dictionary)
            }
            (Some(_), false) => self.send_packed(&mut pending, Spelling::Short, dictionary),
        }?;
        Ok((pending, step))
    }

    /// Takes in the response to what was sent last.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn receive(
        &mut self,
        pending: &mut Pending,
        response: &coap::Response,
        dictionary: &Dictionary,
    ) -> Result<Step, CallError> {
        if pending.steps >= Self::MOST_STEPS {
            return Err(CallError::Unmended);
        }
        // Who was forgotten says again who it is: nothing was done.
        let is_unknown = response.code == Code::UNAUTHORIZED && matches!(pending.sent, Sent::Packed(..));
        if is_unknown && !pending.introduces && pending.http.headers().contains_key(header::AUTHORIZATION) {
            self.said = None;
            return self.introduce(pending, response, dictionary);
        }
        match pending.sent {
            Sent::Compatible => Ok(Step::Done(to_http(response, &Limits::default())?)),
            Sent::Hello(hello) => self.receive_welcome(pending, &hello, response, dictionary),
            Sent::Packed(asked, message, spelling, epoch) if is_packed_response(response) => {
                let end = self.end.as_mut().ok_or(CallError::Unmended)?;
                let read =
                    end.decode_response(&response.payload, asked, dictionary, packed::Limits::default());
                match read {
                    Ok(read) => {
                        // An answer says that all of the request was read.
                        end.acknowledge(message);
                        Ok(Step::Done(of_packed(response, read)))
                    }
                    // RFC 7252 §5.5.2: what is no packed message in an error is CoAP's own text. The gateway has not read the request.
                    Err(_)
                        if !response.code.is_success() && std::str::from_utf8(&response.payload).is_ok() =>
                    {
                        end.refused(message);
                        Ok(Step::Done(to_http(response, &Limits::default())?))
                    }
                    Err(_) if pending.http.method().is_idempotent() && spelling == Spelling::Short => {
                        self.mend(pending, epoch, dictionary)
                    }
                    Err(error) => {
                        self.is_lost = true;
                        Err(CallError::Unread(error))
                    }
                }
            }
            Sent::Packed(_, message, spelling, epoch) => {
                if let Some(end) = &mut self.end {
                    end.refused(message);
                }
                match (response.code, spelling) {
                    (Code::UNPROCESSABLE_ENTITY, Spelling::Short) => {
                        self.send_packed(pending, Spelling::Full, dictionary)
                    }
                    (Code::UNPROCESSABLE_ENTITY | Code::PRECONDITION_FAILED, _) => {
                        self.mend(pending, epoch, dictionary)
                    }
                    _ => Ok(Step::Done(to_http(response, &Limits::default())?)),
                }
            }
        }
    }

    /// Says that nobody waits for the answer to a request any more, and that nothing of it can come to the gateway any more: EXCHANGE_LIFETIME
    /// after its last message was begun (RFC 7252 §4.8.2). Until that is said the gateway is told that its answer is waited for.
    pub fn give_up(&mut self, pending: &Pending) {
        if let (Sent::Packed(_, message, ..), Some(end)) = (pending.sent, &mut self.end) {
            end.give_up(message);
        }
    }

    /// Takes in a notification of what a request with its answer observes. Where it cannot be read another epoch begins with the next
    /// request, which is to be the registration again: the gateway takes for known what is in it.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn notified(
        &mut self,
        pending: &Pending,
        response: &coap::Response,
        dictionary: &Dictionary,
    ) -> Result<http::Response<Bytes>, CallError> {
        let Sent::Packed(asked, ..) = pending.sent else {
            return Ok(to_http(response, &Limits::default())?);
        };
        if !is_packed_response(response) {
            return Ok(to_http(response, &Limits::default())?);
        }
        let end = self.end.as_mut().ok_or(CallError::Unmended)?;
        match end.decode_notification(&response.payload, asked, dictionary, packed::Limits::default()) {
            Ok(read) => Ok(of_packed(response, read)),
            Err(error) => {
                self.is_lost = true;
                Err(CallError::Unread(error))
            }
        }
    }

    fn receive_welcome(
        &mut self,
        pending: &mut Pending,
        hello: &Hello,
        response: &coap::Response,
        dictionary: &Dictionary,
    ) -> Result<Step, CallError> {
        if let Some(agreement) = hello.agreed(response) {
            match &mut self.end {
                // Another request has begun this epoch meanwhile, and has told and read something in it.
                Some(end) if end.agreement() == agreement => {}
                // One of before that came late: what it says is not so any more.
                Some(end) if end.agreement().epoch.wrapping_add(1) != hello.epoch => {
                    return self.send_hello(pending, dictionary);
                }
                Some(end) => {
                    end.begin_epoch(agreement.epoch, agreement.tokens);
                    self.is_lost = false;
                }
                None => self.end = Some(ProxyEnd::new(agreement)),
            }
            self.identity = Some(hello.identity);
            return self.send_packed(pending, Spelling::Short, dictionary);
        }
        if !is_not_spoken(response.code) {
            return Ok(Step::Done(to_http(response, &Limits::default())?));
        }
        self.not_spoken = Some(said(response));
        self.send_compatible(pending)
    }

    /// Makes a request again with the access token, which the gateway does not have. What it has said is read all the same: it counts on that.
    fn introduce(
        &mut self,
        pending: &mut Pending,
        response: &coap::Response,
        dictionary: &Dictionary,
    ) -> Result<Step, CallError> {
        if let (Sent::Packed(asked, message, ..), Some(end)) = (pending.sent, &mut self.end) {
            let limits = packed::Limits::default();
            let is_read = is_packed_response(response)
                && end.decode_response(&response.payload, asked, dictionary, limits).is_ok();
            match is_read {
                true => end.acknowledge(message),
                false => end.refused(message),
            }
        }
        self.send_packed(pending, Spelling::Short, dictionary)
    }

    /// Makes a request again in another epoch than this: the one that others have begun meanwhile, or a new one.
    fn mend(
        &mut self,
        pending: &mut Pending,
        epoch: u32,
        dictionary: &Dictionary,
    ) -> Result<Step, CallError> {
        match self.agreement() {
            Some(now) if now.epoch != epoch && !self.is_lost => {
                self.send_packed(pending, Spelling::Short, dictionary)
            }
            _ => self.send_hello(pending, dictionary),
        }
    }

    fn send_hello(&mut self, pending: &mut Pending, dictionary: &Dictionary) -> Result<Step, CallError> {
        let (first, chosen) = self.chance;
        let before = self.agreement();
        let hello = Hello {
            version: VERSION,
            identity: Identity::of(dictionary),
            epoch: before.map_or(first, |before| before.epoch.wrapping_add(1)),
            transactions: before.map_or(chosen, |before| before.transactions),
        };
        // A gateway that has lost the agreement may have lost the token too.
        self.said = None;
        pending.sent = Sent::Hello(hello);
        Ok(self.send(pending, hello.request()))
    }

    fn send_packed(
        &mut self,
        pending: &mut Pending,
        spelling: Spelling,
        dictionary: &Dictionary,
    ) -> Result<Step, CallError> {
        let (method, request) = request(&pending.http).map_err(SendError::from)?;
        let end = self.end.as_mut().ok_or(CallError::Unmended)?;
        let encoded = end.encode_request(&request, dictionary, spelling)?;
        pending.sent = Sent::Packed(encoded.asked, encoded.message, spelling, end.agreement().epoch);
        let mut request = coap::Request::new(method);
        request.payload = encoded.payload.into();
        Ok(self.send(pending, request))
    }

    fn send_compatible(&mut self, pending: &mut Pending) -> Result<Step, CallError> {
        pending.sent = Sent::Compatible;
        pending.steps += 1;
        Ok(Step::Send(to_coap(&pending.http, Keys::V1, &Limits::default())?))
    }

    /// A request of this profile, with the access token where the gateway was not told.
    fn send(&mut self, pending: &mut Pending, mut request: coap::Request) -> Step {
        let token = pending.http.headers().get(header::AUTHORIZATION);
        pending.introduces = false;
        if let Some(header) = token.filter(|header| self.said.as_ref() != Some(header)) {
            let bytes = header.as_bytes();
            let token = bytes.strip_prefix(b"Bearer ").unwrap_or(bytes);
            request.options.push(OptionNumber::ACCESS_TOKEN, token);
            self.said = Some(header.clone());
            pending.introduces = true;
        }
        pending.steps += 1;
        Step::Send(request)
    }
}

/// What an answer that is no welcome says.
fn said(response: &coap::Response) -> String {
    #[derive(Deserialize)]
    struct Error {
        error: String,
    }
    let http = to_http(response, &Limits::default()).ok();
    let error = http.and_then(|http| serde_json::from_slice(http.body()).ok());
    error.map_or_else(|| response.code.to_string(), |Error { error }| error)
}

/// Whether what answers a hello does not speak the profile, or not with us.
fn is_not_spoken(code: Code) -> bool {
    code.is_success()
        || matches!(
            code,
            Code::BAD_REQUEST
                | Code::BAD_OPTION
                | Code::NOT_FOUND
                | Code::METHOD_NOT_ALLOWED
                | Code::CONFLICT
                | Code::UNSUPPORTED_CONTENT_FORMAT
                | Code::NOT_IMPLEMENTED
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::packed::Welcome;

    fn dictionary() -> Dictionary {
        Dictionary::built_in().clone().only(&[0])
    }

    fn begin(caller: &mut Caller) -> Pending {
        let url = "/_matrix/client/v3/account/whoami";
        caller.begin(http::Request::get(url).body(Bytes::new()).unwrap(), &dictionary()).unwrap().0
    }

    fn welcome(caller: &mut Caller, pending: &mut Pending, epoch: u32) {
        let welcome = Welcome { version: VERSION, epoch, tokens: 7 };
        let step = caller.receive(pending, &welcome.response(), &dictionary()).unwrap();
        assert!(matches!(step, Step::Send(_)));
    }

    #[test]
    fn what_coap_says_by_itself_is_no_packed_answer() {
        let texts = [
            "body is larger than the limit",
            "block is beyond the end of the body",
            "block and its size differ",
            "blocks of one body do not fit together",
            "Q-Block1 without Request-Tag",
            "",
        ];
        for (text, epoch) in texts.iter().flat_map(|text| (1..9).map(move |epoch| (text, epoch))) {
            let mut caller = Caller::new([0, 0, 0, epoch, 0, 0, 0, 2]);
            let mut pending = begin(&mut caller);
            welcome(&mut caller, &mut pending, epoch.into());
            let mut response = coap::Response::new(Code::REQUEST_ENTITY_TOO_LARGE);
            response.payload = Bytes::from_static(text.as_bytes());
            let answer = caller.receive(&mut pending, &response, &dictionary()).unwrap();
            assert!(matches!(answer, Step::Done(http) if http.status() == 413), "{text}");
            assert!(caller.end().is_some(), "{text}: the epoch goes on");
        }
    }

    #[test]
    fn two_requests_at_a_time_begin_one_epoch() {
        let mut caller = Caller::new([0, 0, 0, 1, 0, 0, 0, 2]);
        let [mut one, mut other] = [begin(&mut caller), begin(&mut caller)];
        welcome(&mut caller, &mut one, 1);
        caller.is_lost = true;
        welcome(&mut caller, &mut other, 1);
        assert!(caller.is_lost, "what was lost in this epoch is not there by its welcome");
        assert_eq!(caller.agreement().map(|agreement| agreement.epoch), Some(1));
    }

    #[test]
    fn a_welcome_that_comes_late_takes_no_epoch_back() {
        let mut caller = Caller::new([0, 0, 0, 1, 0, 0, 0, 2]);
        let [mut one, mut late] = [begin(&mut caller), begin(&mut caller)];
        welcome(&mut caller, &mut one, 1);
        caller.is_lost = true;
        let mut next = begin(&mut caller);
        welcome(&mut caller, &mut next, 2);
        welcome(&mut caller, &mut late, 1);
        assert_eq!(caller.agreement().map(|agreement| agreement.epoch), Some(2));
        assert!(late.is_hello());
    }

    #[test]
    fn who_is_forgotten_says_who_it_is_and_asks_again_once() {
        let mut caller = Caller::new([0; 8]);
        let mut pending = begin(&mut caller);
        welcome(&mut caller, &mut pending, 1);
        let token = HeaderValue::from_static("Bearer t");
        caller.said = Some(token.clone());
        let url = "/_matrix/client/v3/account/whoami";
        let http = http::Request::get(url).header(header::AUTHORIZATION, token).body(Bytes::new()).unwrap();
        let (mut pending, _) = caller.begin(http, &dictionary()).unwrap();
        let mut refused = coap::Response::new(Code::UNAUTHORIZED);
        refused.options.push(OptionNumber::CONTENT_FORMAT, []);
        let Step::Send(again) = caller.receive(&mut pending, &refused, &dictionary()).unwrap() else {
            panic!("it is asked again");
        };
        assert_eq!(again.options.get(OptionNumber::ACCESS_TOKEN), Some(b"t".as_slice()));
        let step = caller.receive(&mut pending, &refused, &dictionary()).unwrap();
        assert!(matches!(step, Step::Done(http) if http.status() == 401));
    }

    #[test]
    fn a_request_of_an_epoch_that_is_over_is_made_again_in_the_next_and_begins_none() {
        let mut caller = Caller::new([0, 0, 0, 1, 0, 0, 0, 2]);
        let mut first = begin(&mut caller);
        welcome(&mut caller, &mut first, 1);
        let mut late = begin(&mut caller);
        caller.is_lost = true;
        let mut other = begin(&mut caller);
        welcome(&mut caller, &mut other, 2);
        let mut refused = coap::Response::new(Code::PRECONDITION_FAILED);
        refused.options.push(OptionNumber::CONTENT_FORMAT, []);
        caller.receive(&mut late, &refused, &dictionary()).unwrap();
        assert!(!late.is_hello());
        caller.receive(&mut late, &refused, &dictionary()).unwrap();
        assert!(late.is_hello(), "it is this epoch that the gateway does not know");
    }

    #[test]
    fn what_cannot_be_read_begins_an_epoch_and_is_asked_for_again_where_that_does_no_harm() {
        let mut caller = Caller::new([0, 0, 0, 1, 0, 0, 0, 2]);
        let mut pending = begin(&mut caller);
        welcome(&mut caller, &mut pending, 1);
        let mut answer = coap::Response::new(Code::CONTENT);
        // Coder 0, epoch 1: a reference to what nobody has given.
        answer.payload = Bytes::from_static(&[0x04, 0x62, 0x7e]);
        caller.receive(&mut pending, &answer, &dictionary()).unwrap();
        assert!(pending.is_hello(), "a GET is made again");
        welcome(&mut caller, &mut pending, 2);

        let http = http::Request::post("/_matrix/client/v3/createRoom").body(Bytes::new()).unwrap();
        let (mut pending, _) = caller.begin(http, &dictionary()).unwrap();
        answer.payload = Bytes::from_static(&[0x08, 0x62, 0x7e]);
        let unread = caller.receive(&mut pending, &answer, &dictionary());
        assert!(matches!(unread, Err(CallError::Unread(_))), "{unread:?}");
        assert!(begin(&mut caller).is_hello());
    }
}
