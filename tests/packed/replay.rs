//! Recorded exchanges through both ends, one association for each value of the authorization header, each message acknowledged at once.
//!
//! The client of a recording had the homeserver's tokens and chose transaction ids; here it has the proxy's tokens, and the homeserver
//! gets the gateway's transaction ids. So the replay keeps both for each association and puts the one for the other where the recording
//! has them, before a message is written; and what comes out at the other end must be the recording again, under the same exchange.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value;

use lowband::packed::Agreement;
use lowband::packed::Coders;
use lowband::packed::Encoded;
use lowband::packed::GatewayEnd;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;

/// A line of a recording.
pub(crate) struct Exchange {
    pub(crate) authorization: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) request: Value,
    pub(crate) status: u16,
    pub(crate) response: Value,
    /// The bytes of the response's JSON, and those of both.
    response_length: usize,
    pub(crate) length: usize,
}

impl Exchange {
    pub(crate) fn parse(line: &str) -> Self {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let length = |name: &str| row[name].as_u64().unwrap() as usize;
        let full = text(&row["path"]);
        let (path, query) = match full.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (full, None),
        };
        Exchange {
            authorization: text(&row["req_headers"]["authorization"]),
            method: text(&row["method"]),
            path,
            query,
            request: row["req"].clone(),
            status: row["status"].as_u64().unwrap() as u16,
            response: row["resp"].clone(),
            response_length: length("resp_len"),
            length: length("req_len") + length("resp_len"),
        }
    }

    /// As the corpus classifies it.
    pub(crate) fn class(&self) -> &'static str {
        let query = self.query.as_deref().unwrap_or_default();
        match &self.path {
            path if path.contains("/send/m.room.message/") => "send",
            path if path.contains("/send/m.room.enc") => "send-e2ee",
            path if path.contains("/send/") => "send-other",
            path if path.ends_with("/sync") => match self.response_length {
                _ if !query.contains("since=") && !query.contains("pos=") => "sync-init",
                0..260 => "sync-idle",
                260..1500 => "sync-small",
                _ => "sync-big",
            },
            path if ["/typing/", "read_markers", "/receipt"].iter().any(|part| path.contains(part)) => {
                "ephemeral"
            }
            path if path.contains("/keys/") => "keys",
            _ => "other",
        }
    }
}

/// The exchanges of a file, which may be compressed by gzip.
pub(crate) fn read(file: &[u8]) -> Vec<Exchange> {
    let mut text = String::new();
    match file {
        // RFC 1952: ten bytes, a name if flag 8 is set, raw DEFLATE, eight bytes.
        [0x1f, 0x8b, 8, flags, _, _, _, _, _, _, rest @ ..] => {
            let name =
                rest.iter().position(|byte| *byte == 0).filter(|_| flags & 8 != 0).map_or(0, |end| end + 1);
            flate2::read::DeflateDecoder::new(&rest[name..]).read_to_string(&mut text).unwrap();
        }
        plain => text.push_str(std::str::from_utf8(plain).unwrap()),
    }
    text.lines().map(Exchange::parse).collect()
}

/// Whether a class belongs to the steady state.
pub(crate) fn is_steady(class: &str) -> bool {
    !["sync-init", "sync-big", "keys", "other"].contains(&class)
}

pub(crate) struct Replay<'a> {
    coders: &'a Coders,
    associations: BTreeMap<String, Association>,
}

struct Association {
    proxy: ProxyEnd,
    gateway: GatewayEnd,
    /// The client's token for each of the homeserver's.
    tokens: BTreeMap<String, String>,
    /// The gateway's transaction id for each of the client's.
    transactions: BTreeMap<String, String>,
    /// The same by the path that it stands in.
    scoped: BTreeMap<String, String>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(coders: &'a Coders) -> Self {
        Replay { coders, associations: BTreeMap::new() }
    }

    /// The gateway's ends, by whose they are.
    pub(crate) fn gateways(&mut self) -> impl Iterator<Item = (&String, &mut GatewayEnd)> {
        self.associations.iter_mut().map(|(whose, association)| (whose, &mut association.gateway))
    }

    /// Puts an exchange through; gives the request and the response as they crossed the link.
    pub(crate) fn exchange(&mut self, exchange: &Exchange) -> (Encoded, Encoded) {
        let number = self.associations.len() as u32;
        let agreement = Agreement { epoch: 1, tokens: 7000 + number, transactions: 9000 + number };
        let association =
            self.associations.entry(exchange.authorization.clone()).or_insert_with(|| Association {
                proxy: ProxyEnd::new(agreement),
                gateway: noted(GatewayEnd::new(agreement)),
                tokens: BTreeMap::new(),
                transactions: BTreeMap::new(),
                scoped: BTreeMap::new(),
            });
        association.exchange(exchange, self.coders)
    }
}

impl Association {
    fn exchange(&mut self, exchange: &Exchange, coders: &Coders) -> (Encoded, Encoded) {
        let limits = Limits::default();
        let sent = Request {
            method: exchange.method.clone(),
            path: exchange.path.clone(),
            query: exchange.query.as_ref().map(|query| with_tokens(query, &self.tokens)),
            body: body(&exchange.request, &self.tokens),
        };
        let up = self.proxy.encode_request(&sent, coders, Spelling::Short).unwrap();
        let (request, asked) = self.gateway.decode_request(&up.payload, coders, limits).unwrap();
        self.proxy.acknowledge(up.message);

        assert_eq!(request.method, exchange.method);
        assert_eq!(request.query, exchange.query);
        assert_eq!(parsed(&request.body), exchange.request);
        let segments = lowband::matrix::split_path(&request.path).unwrap();
        let recorded = lowband::matrix::split_path(&exchange.path).unwrap();
        assert_eq!(segments.len(), recorded.len());
        for (segment, recorded) in segments.iter().zip(&recorded) {
            if segment != recorded {
                // A transaction id of the gateway's: the same for the same of the client's in the same place.
                assert!(segment.starts_with("lb"), "{segment} {recorded}");
                let scoped = format!("{} {recorded}", exchange.path);
                let before = self.scoped.entry(scoped).or_insert_with(|| segment.clone());
                assert_eq!(before, segment);
                self.transactions.insert(recorded.clone(), segment.clone());
            }
        }

        let upstream = with_strings(&exchange.response, &self.transactions);
        let status = [200, 201, 400, 401, 403, 404, 405, 409, 429, 500].contains(&exchange.status);
        let answered = Response {
            status: (!status).then_some(exchange.status),
            body: (!upstream.is_null()).then(|| serde_json::to_vec(&upstream).unwrap()),
        };
        let down = self.gateway.encode_response(&answered, asked, coders, Spelling::Short);
        let response = self.proxy.decode_response(&down.payload, up.asked, coders, limits).unwrap();
        self.gateway.acknowledge(down.message);

        assert_eq!(response.status, answered.status);
        let got = parsed(&response.body);
        self.learn_tokens(&exchange.response, &got);
        assert_eq!(with_strings_at_tokens(&exchange.response, &got, &self.tokens), got, "{}", exchange.path);
        (up, down)
    }

    /// Notes which token the client got for which.
    fn learn_tokens(&mut self, recorded: &Value, got: &Value) {
        match (recorded, got) {
            (Value::String(recorded), Value::String(got)) if is_token(got) && recorded != got => {
                self.tokens.insert(recorded.clone(), got.clone());
            }
            (Value::Array(recorded), Value::Array(got)) => {
                recorded.iter().zip(got).for_each(|(recorded, got)| self.learn_tokens(recorded, got));
            }
            (Value::Object(recorded), Value::Object(got)) => {
                for (name, recorded) in recorded {
                    self.learn_tokens(recorded, got.get(name).unwrap_or(&Value::Null));
                }
            }
            _ => {}
        }
    }
}

/// An end that notes what changes of it.
fn noted(mut end: GatewayEnd) -> GatewayEnd {
    end.keep_changes();
    end
}

/// Whether a string is as the proxy's tokens are.
fn is_token(text: &str) -> bool {
    text.starts_with("lb") && text.contains('_')
}

fn parsed(body: &Option<Vec<u8>>) -> Value {
    body.as_ref().map_or(Value::Null, |body| serde_json::from_slice(body).unwrap())
}

fn with_tokens(query: &str, tokens: &BTreeMap<String, String>) -> String {
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, value)) if ["since", "from", "to", "pos"].contains(&name) => {
            format!("{name}={}", tokens.get(value).map_or(value, String::as_str))
        }
        _ => part.to_owned(),
    });
    parts.collect::<Vec<String>>().join("&")
}

fn body(value: &Value, tokens: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let mut value = value.clone();
    if let Some(since) = value.pointer_mut("/extensions/to_device/since") {
        *since = with_strings(since, tokens);
    }
    (!value.is_null()).then(|| serde_json::to_vec(&value).unwrap())
}

/// A value with some strings in place of others.
fn with_strings(value: &Value, strings: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(strings.get(text).unwrap_or(text).clone()),
        Value::Array(items) => items.iter().map(|item| with_strings(item, strings)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), with_strings(value, strings))).collect()
        }
        other => other.clone(),
    }
}

/// A value with the client's tokens where the client got some.
fn with_strings_at_tokens(value: &Value, got: &Value, tokens: &BTreeMap<String, String>) -> Value {
    match (value, got) {
        (Value::String(text), Value::String(got)) if tokens.get(text) == Some(got) => {
            Value::String(got.clone())
        }
        (Value::Array(items), Value::Array(got)) if items.len() == got.len() => {
            items.iter().zip(got).map(|(item, got)| with_strings_at_tokens(item, got, tokens)).collect()
        }
        (Value::Object(members), Value::Object(got)) => members
            .iter()
            .map(|(name, value)| {
                let got = got.get(name).unwrap_or(&Value::Null);
                (name.clone(), with_strings_at_tokens(value, got, tokens))
            })
            .collect(),
        (other, _) => other.clone(),
    }
}
