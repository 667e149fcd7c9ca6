//! What one peer said once and means from then on (MSC3079 "Access Tokens" and "Versioning").

use http::HeaderValue;
use serde::Deserialize;
use serde::Serialize;

use crate::coap::OptionNumber;
use crate::coap::Options;
use crate::codec::Keys;
use crate::translate::body::Format;
use crate::translate::refusal::Refusal;

/// The sticky options of one peer, for as long as the connection below lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// What goes into `Authorization`; its `Debug` does not show it.
    #[serde(with = "super::header")]
    authorization: Option<HeaderValue>,
    /// What option 257 said, if it said anything.
    asked_version: Option<u32>,
    /// Whether some body of the peer had integer keys.
    sent_integer_keys: bool,
}

impl Session {
    /// A peer that has said nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `Authorization` header of the peer's requests, if it has given an access token.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The access token itself, if it has given one.
    pub fn token(&self) -> Option<&str> {
        self.authorization.as_ref()?.to_str().ok()?.strip_prefix(SCHEME)
    }

    /// The same peer with another access token.
    ///
    /// # Errors
    /// One that no header can hold.
    pub fn with_token(&self, token: &str) -> Result<Self, Refusal> {
        Ok(Self { authorization: authorization(token.as_bytes())?, ..self.clone() })
    }

    /// Which integer keys the peer reads.
    ///
    /// MSC3079 "Versioning": what option 257 asked for, at most version 1, the highest there is; without that option none,
    /// unless the peer has itself sent integer keys.
    pub fn keys(&self) -> Keys {
        match self.asked_version.map_or(self.sent_integer_keys, |version| version >= 1) {
            true => Keys::V1,
            false => Keys::Strings,
        }
    }

    /// How the peer wants the answer to a request with these options, for an answer that may come before anything else is
    /// known of it: an Accept that cannot be met counts as none.
    pub fn format(&self, options: &Options) -> Format {
        Format::accepted(options, self.keys()).unwrap_or(Format::Cbor(self.keys()))
    }

    /// Takes over what a request's options say.
    pub(super) fn read(&mut self, options: &Options) -> Result<(), Refusal> {
        if let Some(version) = options.get_uint(OptionNumber::CBOR_VERSION) {
            self.asked_version = Some(version);
        }
        if let Some(token) = options.get(OptionNumber::ACCESS_TOKEN) {
            // MSC3079 "Access Tokens": the stored value is discarded, also when the new one is no token.
            self.authorization = None;
            self.authorization = authorization(token)?;
        }
        Ok(())
    }

    /// Takes over that a body had integer keys.
    pub(super) fn saw_integer_keys(&mut self) {
        self.sent_integer_keys = true;
    }
}

/// RFC 6750 §2.1.
const SCHEME: &str = "Bearer ";

/// The header for a token that comes with `Bearer `, without, or with it twice. An empty one takes the token back.
fn authorization(token: &[u8]) -> Result<Option<HeaderValue>, Refusal> {
    let mut token = token.trim_ascii();
    while let Some(rest) = strip_scheme(token) {
        token = rest.trim_ascii_start();
    }
    if token.is_empty() {
        return Ok(None);
    }
    // RFC 6750 §2.1: a bearer token has no spaces, and nothing that could end the header.
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::AccessToken);
    }
    let header = [SCHEME.as_bytes(), token].concat();
    let mut header = HeaderValue::from_bytes(&header).map_err(|_| Refusal::AccessToken)?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// RFC 9110 §11.1: the name of a scheme may be in any case.
fn strip_scheme(token: &[u8]) -> Option<&[u8]> {
    let name = SCHEME.trim_end().as_bytes();
    let (scheme, rest) = token.split_at_checked(name.len())?;
    let ends = rest.first().is_none_or(|byte| *byte == b' ');
    (ends && scheme.eq_ignore_ascii_case(name)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(token: &[u8]) -> Result<Option<String>, Refusal> {
        let mut session = Session::new();
        session.read(&Options::from_iter([(OptionNumber::ACCESS_TOKEN, token)]))?;
        Ok(session.authorization().map(|header| header.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_token_is_read_with_and_without_its_scheme() {
        for token in ["TOK", "Bearer TOK", "bearer TOK", "Bearer Bearer TOK", "Bearer  TOK ", "\nTOK"] {
            assert_eq!(after(token.as_bytes()).unwrap().as_deref(), Some("Bearer TOK"), "{token:?}");
        }
        assert_eq!(after(b"BearerTOK").unwrap().as_deref(), Some("Bearer BearerTOK"));
    }

    #[test]
    fn a_token_cannot_smuggle_a_header() {
        for token in ["TOK\r\nHost: evil", "TO K", "T\0K", "TÖK", "Bearer T\tK"] {
            assert!(matches!(after(token.as_bytes()), Err(Refusal::AccessToken)), "{token:?}");
        }
        assert!(matches!(after(b"\xff"), Err(Refusal::AccessToken)));
    }

    #[test]
    fn a_token_stays_until_another_comes() {
        let mut session = Session::new();
        session.read(&Options::from_iter([(OptionNumber::ACCESS_TOKEN, "A")])).unwrap();
        session.read(&Options::new()).unwrap();
        assert_eq!(session.authorization().unwrap(), "Bearer A");
        session.read(&Options::from_iter([(OptionNumber::ACCESS_TOKEN, "B")])).unwrap();
        assert_eq!(session.authorization().unwrap(), "Bearer B");
        session.read(&Options::from_iter([(OptionNumber::ACCESS_TOKEN, "a b")])).unwrap_err();
        assert_eq!(session.authorization(), None);
        session.read(&Options::from_iter([(OptionNumber::ACCESS_TOKEN, "Bearer ")])).unwrap();
        assert_eq!(session.authorization(), None);
    }

    #[test]
    fn a_token_is_not_shown() {
        let mut session = Session::new();
        session.read(&Options::from_iter([(OptionNumber::ACCESS_TOKEN, "secret")])).unwrap();
        assert!(!format!("{session:?}").contains("secret"));
    }

    #[test]
    fn integer_keys_are_for_who_asked_or_sent_some() {
        let asked = |version: u32| {
            let mut session = Session::new();
            let mut options = Options::new();
            options.push_uint(OptionNumber::CBOR_VERSION, version);
            session.read(&options).unwrap();
            session.read(&Options::new()).unwrap();
            session
        };
        assert_eq!(Session::new().keys(), Keys::Strings);
        assert_eq!(asked(0).keys(), Keys::Strings);
        assert_eq!(asked(1).keys(), Keys::V1);
        assert_eq!(asked(2).keys(), Keys::V1);
        let mut sent = Session::new();
        sent.saw_integer_keys();
        assert_eq!(sent.keys(), Keys::V1);
    }
}
