//! What the blocks of one body have in common.

use super::{is_of_transfer, is_sticky};
use crate::coap::code::Code;
use crate::coap::message::Message;
use crate::coap::option::{OptionNumber, Options};
use crate::coap::request::Request;

/// What blocks of one body have in common besides the peer (RFC 7959 §2.4, §2.5; RFC 9175 §3.3): method and all options that
/// are part of the cache key, Request-Tag with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    method: Code,
    options: Options,
    /// The access token, where the message carries it.
    access_token: Option<Vec<u8>>,
}

impl Key {
    pub(super) fn of(message: &Message) -> Self {
        let access_token = message.options.get(OptionNumber::ACCESS_TOKEN).map(<[u8]>::to_vec);
        Self { access_token, ..Self::of_options(message.code, &message.options) }
    }

    /// What a request has in common with those that only a Request-Tag tells from it (RFC 9175 §3.3: they are matchable).
    pub(super) fn matchable(request: &Request) -> Self {
        let mut key = Self::of_options(request.method, &request.options);
        key.options.remove(OptionNumber::REQUEST_TAG);
        key
    }

    fn of_options(method: Code, options: &Options) -> Self {
        // Content-Format describes a body that later blocks' requests need not have.
        let of_body = |number| matches!(number, OptionNumber::CONTENT_FORMAT | OptionNumber::NO_RESPONSE);
        let of_key = |number: OptionNumber| {
            !is_of_transfer(number) && !is_sticky(number) && !of_body(number) && !number.is_no_cache_key()
        };
        let options = options
            .iter()
            .filter(|(number, _)| of_key(*number))
            .map(|(number, value)| (number, value.to_vec()));
        Self { method, options: options.collect(), access_token: None }
    }

    /// Whether a message with the key `wanted` goes on with this one's body. One without an access token means the last one used.
    pub(super) fn serves(&self, wanted: &Self) -> bool {
        self.method == wanted.method
            && self.options == wanted.options
            && (wanted.access_token.is_none() || self.access_token == wanted.access_token)
    }

    /// Bytes that it takes up.
    pub(super) fn bytes(&self) -> usize {
        self.options.bytes()
    }
}
