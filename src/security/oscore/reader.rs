//! Messages read by one who only looks on, with the keys: which of the two endpoints sealed them, and what is in them.

use std::collections::BTreeMap;

use thiserror::Error;
use zeroize::Zeroizing;

use super::header::{Header, HeaderError};
use super::keys::Keys;
use super::parameters::{Parameters, ParametersError};
use super::partial_iv::PartialIv;
use super::protection;
use crate::coap::{Message, Token};

/// Reads what two endpoints say to each other, in order: a response can only be opened by the number of its request.
#[derive(Debug)]
pub struct Reader {
    id_context: Option<Vec<u8>>,
    /// The one whose parameters were given, and the other.
    ends: [End; 2],
    /// Who made the request with this token last, and its number.
    requests: BTreeMap<Token, (usize, PartialIv)>,
    assumed: Option<PartialIv>,
}

/// One of the endpoints.
#[derive(Debug)]
struct End {
    id: Vec<u8>,
    /// What opens its messages.
    keys: Keys,
}

/// A message that was read.
#[derive(Debug)]
pub struct Reading {
    /// What was encrypted: the code, options and payload (RFC 8613 §5.3).
    pub plaintext: Zeroizing<Vec<u8>>,
    /// Bytes of its tag.
    pub tag: usize,
    /// Whether the endpoint whose parameters were given has sealed it.
    pub by_holder: bool,
    /// The number of the request that it is, or answers.
    pub request: PartialIv,
}

/// Why a message was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The OSCORE option cannot be read.
    #[error("malformed header: {0}")]
    Header(#[from] HeaderError),
    /// It is of others.
    #[error("it is not protected by these keys: they have another kid")]
    UnknownContext,
    /// The request with its token was not seen.
    #[error("it answers a request whose Partial IV is not known")]
    UnknownRequest,
    /// It was not made with these keys, or not for that request, or was changed.
    #[error("it is not protected by these keys, or does not answer that request, or was changed")]
    Forged,
    /// It has no code, or is otherwise no message.
    #[error("what was decrypted is no message")]
    NoMessage,
}

impl Reader {
    /// A reader with the parameters of either of the two.
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub fn new(parameters: &Parameters) -> Result<Self, ParametersError> {
        parameters.validate()?;
        let own = End { id: parameters.sender_id.clone(), keys: Keys::derive(&parameters.mirrored()) };
        let other = End { id: parameters.recipient_id.clone(), keys: Keys::derive(parameters) };
        let id_context = parameters.id_context.clone();
        Ok(Self { id_context, ends: [own, other], requests: BTreeMap::new(), assumed: None })
    }

    /// Takes this for the number of a request that was not seen.
    pub fn assume(&mut self, request: PartialIv) {
        self.assumed = Some(request);
    }

    /// Reads a protected message.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn read(&mut self, message: &Message) -> Result<Reading, ReadError> {
        let header = Header::of(message)?;
        let reading = match message.code.is_request() {
            true => self.read_request(message, &header)?,
            false => self.read_response(message, &header)?,
        };
        protection::join(message, &reading.plaintext).ok_or(ReadError::NoMessage)?;
        Ok(reading)
    }

    fn read_request(&mut self, message: &Message, header: &Header) -> Result<Reading, ReadError> {
        let (Some(number), Some(kid)) = (header.partial_iv, &header.kid) else {
            return Err(HeaderError::Parts.into());
        };
        if header.kid_context.is_some() && header.kid_context != self.id_context {
            return Err(ReadError::UnknownContext);
        }
        let by = self.ends.iter().position(|end| end.id == *kid).ok_or(ReadError::UnknownContext)?;
        let reading = self.open(message, by, number, (by, number)).ok_or(ReadError::Forged)?;
        self.requests.insert(message.token, (by, number));
        Ok(reading)
    }

    fn read_response(&self, message: &Message, header: &Header) -> Result<Reading, ReadError> {
        let seen = self.requests.get(&message.token).copied();
        // Of one that was not seen it is not known which of them made it.
        let assumed = self.assumed.into_iter().flat_map(|number| [(0, number), (1, number)]);
        let requests: Vec<_> = seen.into_iter().chain(assumed).collect();
        if requests.is_empty() {
            return Err(ReadError::UnknownRequest);
        }
        let open = |(by, number): (usize, PartialIv)| match header.partial_iv {
            Some(own) => self.open(message, 1 - by, own, (by, number)),
            // RFC 8613 §5.2: it has the nonce of its request.
            None => self.open_under(message, 1 - by, (by, number), (by, number)),
        };
        requests.into_iter().find_map(open).ok_or(ReadError::Forged)
    }

    fn open(
        &self,
        message: &Message,
        by: usize,
        number: PartialIv,
        request: (usize, PartialIv),
    ) -> Option<Reading> {
        self.open_under(message, by, (by, number), request)
    }

    /// Opens what one end has sealed, under the nonce of the number that an end took, in the exchange of a request.
    fn open_under(
        &self,
        message: &Message,
        by: usize,
        (taker, number): (usize, PartialIv),
        (requester, request): (usize, PartialIv),
    ) -> Option<Reading> {
        let keys = &self.ends.get(by)?.keys;
        let nonce = keys.nonce(&self.ends.get(taker)?.id, number);
        let aad = keys.aad(&self.ends.get(requester)?.id, request);
        let plaintext = keys.open(&nonce, &aad, &message.payload)?;
        let tag = message.payload.len() - plaintext.len();
        Some(Reading { plaintext, tag, by_holder: by == 0, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coap::{Code, Instant, Kind, MessageId, OptionNumber};
    use crate::security::oscore::{Challenges, Context, Opened, Secret};

    #[test]
    fn both_ends_are_read_with_the_parameters_of_either_and_others_are_not() {
        let ours = Parameters::new(Secret::from([7; 16]), b"", b"\x01");
        let (mut client, mut server) =
            (Context::new(&ours).unwrap(), Context::new(&ours.mirrored()).unwrap());
        let _kept = (client.reserve(), server.reserve());
        let mut request = Message::empty(Kind::Confirmable, MessageId(1));
        request.code = Code::GET;
        request.token = Token::new(&[9]).unwrap();
        request.options.push(OptionNumber::URI_PATH, "7");
        let (sealed, _) = client.protect_request(&request).unwrap();
        let challenges = Challenges::new([0; 32], std::time::Duration::from_secs(60));
        let Ok(Opened::Request { mut binding, .. }) =
            server.open_request(&sealed.message, &challenges, Instant::START)
        else {
            panic!("it is fresh")
        };
        let response = Message {
            kind: Kind::Acknowledgement,
            code: Code::CONTENT,
            options: Default::default(),
            payload: "x".into(),
            ..request.clone()
        };
        let answers = [(); 2].map(|()| server.protect_response(&response, &mut binding).unwrap().message);
        for (parameters, is_holder) in [(ours.clone(), true), (ours.mirrored(), false)] {
            let mut reader = Reader::new(&parameters).unwrap();
            assert_eq!(reader.read(&answers[0]).err(), Some(ReadError::UnknownRequest));
            let read = reader.read(&sealed.message).unwrap();
            assert_eq!((read.plaintext.as_slice(), read.by_holder), (&b"\x01\xb17"[..], is_holder));
            assert_eq!((read.tag, read.request.number()), (8, 0));
            for answer in &answers {
                let read = reader.read(answer).unwrap();
                assert_eq!((read.plaintext.as_slice(), read.by_holder), (&b"\x45\xffx"[..], !is_holder));
            }
            let mut late = Reader::new(&parameters).unwrap();
            late.assume(PartialIv::new(1).unwrap());
            assert_eq!(late.read(&answers[1]).err(), Some(ReadError::Forged));
            late.assume(PartialIv::new(0).unwrap());
            assert!(late.read(&answers[1]).is_ok());
        }
        let others = Parameters::new(Secret::from([8; 16]), b"", b"\x01");
        assert_eq!(Reader::new(&others).unwrap().read(&sealed.message).err(), Some(ReadError::Forged));
        let others = Parameters::new(Secret::from([7; 16]), b"\x02", b"\x01");
        let mut others = Reader::new(&others).unwrap();
        assert_eq!(others.read(&sealed.message).err(), Some(ReadError::UnknownContext));
    }
}
