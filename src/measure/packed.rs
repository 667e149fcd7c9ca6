//! The two ends as the packed profile has them (docs/packed.md).

use bytes::Bytes;
use http::HeaderValue;
use serde_json::Value;

use super::difference::Difference;
use super::difference::Part;
use super::ends::is_same;
use super::exchange::Exchange;
use super::substitutes::Substitutes;
use crate::coap;
use crate::coap::Code;
use crate::coap::OptionNumber;
use crate::matrix;
use crate::packed::Agreement;
use crate::packed::Dictionary;
use crate::packed::Encoded;
use crate::packed::GatewayEnd;
use crate::packed::Limits;
use crate::packed::ProxyEnd;
use crate::packed::Request;
use crate::packed::Response;
use crate::packed::Spelling;
use crate::translate::request::SendError;
use crate::translate::status;

/// A proxy and a gateway of one association. Each exchange has ended when the next begins, as the next request says.
#[derive(Debug)]
pub(super) struct Packed {
    proxy: ProxyEnd,
    gateway: GatewayEnd,
    /// What both have.
    dictionary: Dictionary,
    /// Whether the proxy has said who it is.
    introduced: bool,
    /// What the gateway knows of that.
    authorization: Option<HeaderValue>,
    /// What the proxy waits for the answer to.
    asked: Option<Encoded>,
    /// The gateway's last answer.
    answered: Option<Encoded>,
    /// The client's tokens for the homeserver's; like the others as many as the ends keep.
    tokens: Substitutes,
    /// The homeserver's transaction ids for the client's.
    transactions: Substitutes,
    /// The same by paths: what is chosen for one request is nothing to another.
    paths: Substitutes,
}

const AGREEMENT: Agreement = Agreement { epoch: 1, tokens: 7, transactions: 9 };
/// What the proxy's tokens begin with, and the gateway's transaction ids.
const TOKEN: &str = "lb00000007_";
const TRANSACTION: &str = "lb00000009.";

/// The parameters of queries that are tokens.
const PARAMETERS: [&str; 7] = ["since", "from", "to", "pos", "next_batch", "batch", "at"];
/// The places of tokens in bodies of POST.
const PLACES: [&str; 3] = ["/since", "/refresh_token", "/extensions/to_device/since"];

impl Packed {
    /// Two ends that know nothing of each other, with the same dictionary.
    pub(super) fn new(dictionary: Dictionary) -> Self {
        Self {
            dictionary,
            proxy: ProxyEnd::new(AGREEMENT),
            gateway: GatewayEnd::new(AGREEMENT),
            introduced: false,
            authorization: None,
            asked: None,
            answered: None,
            tokens: Substitutes::new(4096),
            transactions: Substitutes::new(1024),
            paths: Substitutes::new(1024),
        }
    }

    /// At the proxy.
    pub(super) fn ask(&mut self, exchange: &Exchange) -> Result<coap::Request, Difference> {
        let recorded = &exchange.request;
        let request = Request {
            method: recorded.method().to_string(),
            path: recorded.uri().path().to_owned(),
            query: recorded.uri().query().map(|query| with_tokens(query, &self.tokens)),
            body: body(exchange, &self.tokens),
        };
        self.asked = None;
        let packed = self.proxy.encode_request(&request, &self.dictionary, Spelling::Short)?;
        let payload = packed.payload.clone();
        self.asked = Some(packed);
        // Section 2: FETCH where nothing changes.
        let method = if request.method == "GET" { Code::FETCH } else { Code::POST };
        let mut request = coap::Request { payload: payload.into(), ..coap::Request::new(method) };
        if !std::mem::replace(&mut self.introduced, true)
            && let Some(authorization) = exchange.authorization()
        {
            let token = authorization.as_bytes().strip_prefix(b"Bearer ").ok_or(SendError::Authorization)?;
            request.options.push(OptionNumber::ACCESS_TOKEN, token);
        }
        Ok(request)
    }

    /// At the gateway.
    pub(super) fn answer(
        &mut self,
        request: &coap::Request,
        exchange: &Exchange,
    ) -> (coap::Response, Result<(), Difference>) {
        if let Some(token) = request.options.get(OptionNumber::ACCESS_TOKEN) {
            let authorization = [b"Bearer ", token].concat();
            self.authorization = HeaderValue::from_bytes(&authorization).ok();
        }
        let read = self.gateway.decode_request(&request.payload, &self.dictionary, Limits::default());
        let (read, asked) = match read {
            Ok(read) => read,
            Err(error) => return (coap::Response::new(Code::BAD_REQUEST), Err(Difference::Take(error))),
        };
        let checked = self.check_request(exchange, &read);
        let recorded = &exchange.response;
        let code = status::to_coap(recorded.status(), exchange.request.method());
        let response = Response {
            status: (!status::is_exact(code, recorded.status())).then_some(recorded.status().as_u16()),
            body: (!recorded.body().is_empty())
                .then(|| with_transactions(recorded.body(), &self.transactions)),
        };
        let packed = self.gateway.encode_response(&response, asked, &self.dictionary, Spelling::Short);
        let payload = packed.payload.clone();
        self.answered = Some(packed);
        (coap::Response { payload: payload.into(), ..coap::Response::new(code) }, checked)
    }

    /// The request and the response that were written last.
    pub(super) fn written(&self) -> Option<(Encoded, Encoded)> {
        self.asked.clone().zip(self.answered.clone())
    }

    /// At the proxy.
    pub(super) fn receive(
        &mut self,
        response: &coap::Response,
        exchange: &Exchange,
    ) -> Result<(), Difference> {
        let Some(Encoded { message, asked, .. }) = self.asked.take() else { return Ok(()) };
        let read = self
            .proxy
            .decode_response(&response.payload, asked, &self.dictionary, Limits::default())
            .map_err(Difference::Unpack)?;
        self.proxy.acknowledge(message);
        let recorded = &exchange.response;
        let exact = read.status.and_then(|status| http::StatusCode::from_u16(status).ok());
        let status = exact.unwrap_or_else(|| status::to_http(response.code));
        if status != recorded.status() {
            return Err(Difference::Status { recorded: recorded.status(), read: status });
        }
        let body = read.body.unwrap_or_default();
        let same = match (serde_json::from_slice(recorded.body()), serde_json::from_slice(&body)) {
            (Ok(recorded), Ok(read)) => is_same_to_client(&recorded, &read, &mut self.tokens),
            _ => is_same(recorded.body(), &body),
        };
        if same { Ok(()) } else { Err(Difference::Body) }
    }

    /// Holds what the gateway reads against what the client asked.
    fn check_request(&mut self, exchange: &Exchange, read: &Request) -> Result<(), Difference> {
        let recorded = &exchange.request;
        let parts = [
            (Part::Method, recorded.method() == read.method.as_str()),
            (Part::Path, self.is_same_path(recorded.uri().path(), &read.path)),
            (Part::Query, is_same_query(recorded.uri().query(), read.query.as_deref())),
            (Part::Authorization, exchange.authorization() == self.authorization.as_ref()),
            (Part::Body, is_same(recorded.body(), read.body.as_deref().unwrap_or_default())),
        ];
        match parts.into_iter().find(|(_, same)| !same) {
            Some((part, _)) => Err(Difference::Call(part)),
            None => Ok(()),
        }
    }

    /// Whether a path is the recorded one, however it was percent-encoded, but for a transaction id at its end: that is the gateway's, and
    /// stays the same for the same path.
    fn is_same_path(&mut self, recorded: &str, read: &str) -> bool {
        let (Ok(ours), Ok(theirs)) = (matrix::split_path(recorded), matrix::split_path(read)) else {
            return recorded == read;
        };
        match (ours.split_last(), theirs.split_last()) {
            (Some((last, ours)), Some((id, theirs))) if last != id => {
                let is_known = self.paths.get(recorded).is_none_or(|known| known == id);
                // The same may have been chosen for another path: in answers the latest counts.
                ours == theirs
                    && id.starts_with(TRANSACTION)
                    && is_known
                    && self.paths.note(recorded, id)
                    && self.transactions.note(last, id)
            }
            _ => ours == theirs,
        }
    }
}

/// A recorded query as the client makes it of the tokens that it has here.
fn with_tokens(query: &str, tokens: &Substitutes) -> String {
    let parts = query.split('&').map(|part| {
        let parameters = matrix::split_query(part).unwrap_or_default();
        let parameter = parameters.first().and_then(|parameter| parameter.split_once('='));
        match parameter.filter(|(name, _)| PARAMETERS.contains(name)) {
            Some((name, token)) => {
                tokens.get(token).map_or(part.to_owned(), |token| format!("{name}={token}"))
            }
            None => part.to_owned(),
        }
    });
    parts.collect::<Vec<String>>().join("&")
}

/// A recorded body as the client makes it of the tokens that it has here.
fn body(exchange: &Exchange, tokens: &Substitutes) -> Option<Vec<u8>> {
    let body = exchange.request.body();
    let mut value = match serde_json::from_slice::<Value>(body) {
        Ok(value) if exchange.request.method() == http::Method::POST => value,
        _ => return (!body.is_empty()).then(|| body.to_vec()),
    };
    for place in PLACES {
        if let Some(Value::String(token)) = value.pointer_mut(place)
            && let Some(substitute) = tokens.get(token)
        {
            *token = substitute.to_owned();
        }
    }
    Some(value.to_string().into_bytes())
}

/// A recorded answer as the homeserver makes it of the transaction ids that it has here.
fn with_transactions(body: &Bytes, transactions: &Substitutes) -> Vec<u8> {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            replace_transactions(&mut value, transactions);
            value.to_string().into_bytes()
        }
        Err(_) => body.to_vec(),
    }
}

fn replace_transactions(value: &mut Value, transactions: &Substitutes) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace_transactions(item, transactions)),
        Value::Object(members) => {
            if let Some(Value::String(id)) =
                members.get_mut("unsigned").and_then(|it| it.get_mut("transaction_id"))
                && let Some(substitute) = transactions.get(id)
            {
                *id = substitute.to_owned();
            }
            // What people write is theirs.
            let members = members.iter_mut().filter(|(name, _)| *name != "content");
            members.for_each(|(_, value)| replace_transactions(value, transactions));
        }
        _ => {}
    }
}

/// Whether a query says the same, however it was percent-encoded.
fn is_same_query(recorded: Option<&str>, read: Option<&str>) -> bool {
    let split = |query: Option<&str>| matrix::split_query(query.unwrap_or_default());
    recorded == read || (split(recorded).is_ok() && split(recorded) == split(read))
}

/// Whether a body is what the homeserver said, but for tokens: where one was, the client has the proxy's, one for each.
fn is_same_to_client(recorded: &Value, read: &Value, tokens: &mut Substitutes) -> bool {
    match (recorded, read) {
        (Value::String(recorded), Value::String(read)) => {
            recorded == read || (read.starts_with(TOKEN) && tokens.note(recorded, read))
        }
        (Value::Array(recorded), Value::Array(read)) => {
            let mut pairs = recorded.iter().zip(read);
            recorded.len() == read.len()
                && pairs.all(|(recorded, read)| is_same_to_client(recorded, read, tokens))
        }
        (Value::Object(recorded), Value::Object(read)) => {
            let mut members = recorded.iter();
            let mut is_same = |(name, value): (&String, &Value)| {
                read.get(name).is_some_and(|read| is_same_to_client(value, read, tokens))
            };
            recorded.len() == read.len() && members.all(&mut is_same)
        }
        (recorded, read) => recorded == read,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    const SEND: &str = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/t1";
    const SYNC: &str = "/_matrix/client/v3/sync";

    fn new() -> Packed {
        Packed::new(Dictionary::built_in().clone())
    }

    fn exchange(method: &str, path: &str, rest: &str) -> Exchange {
        let headers = r#""req_headers":{"authorization":"Bearer TOK"}"#;
        let line = format!(r#"{{"method":"{method}","path":"{path}",{headers},{rest}}}"#);
        Exchange::read(1, line.as_bytes()).unwrap()
    }

    fn sync(since: &str, next: &str) -> Exchange {
        let target =
            if since.is_empty() { SYNC.to_owned() } else { format!("{SYNC}?since={since}&timeout=0") };
        exchange("GET", &target, &format!(r#""status":200,"resp":{{"next_batch":"{next}"}}"#))
    }

    /// What is not as it was recorded.
    fn through(ends: &mut Packed, exchange: &Exchange) -> Result<(), Difference> {
        let asked = ends.ask(exchange)?;
        let (answer, taken) = ends.answer(&asked, exchange);
        taken.and(ends.receive(&answer, exchange))
    }

    #[test]
    fn exchanges_of_all_kinds_arrive() {
        let mut ends = new();
        for (method, path, rest) in [
            ("GET", "/_matrix/client/versions", r#""status":200,"resp":{"versions":["v1.11"]}"#),
            ("GET", "/_matrix/client/r0/sync?filter=%7B%7D&x=1+2", r#""status":200,"resp":{"b":1.0,"a":2}"#),
            ("PUT", SEND, r#""req":{"body":"Hello"},"status":200,"resp":{"event_id":"$x"}"#),
            ("PUT", SEND, r#""req":{"body":"Hello"},"status":200,"resp":{"event_id":"$x"}"#),
            (
                "POST",
                "/_matrix/client/v3/login",
                r#""req":{"a":1.5},"status":429,"resp":{"retry_after_ms":9}"#,
            ),
            ("DELETE", "/_matrix/client/unstable/x", r#""status":418,"resp":[]"#),
            ("GET", "/_matrix/foo", r#""status":404,"resp":"nothing""#),
            ("PATCH", "/_matrix/client/v3/%C3%A4/b", r#""status":204"#),
        ] {
            assert_eq!(through(&mut ends, &exchange(method, path, rest)), Ok(()), "{method} {path}");
        }
    }

    #[test]
    fn the_client_asks_with_the_token_that_it_was_given() {
        let mut ends = new();
        assert_eq!(through(&mut ends, &sync("", "s1_a")), Ok(()));
        let token = ends.tokens.get("s1_a").unwrap().to_owned();
        assert!(token.starts_with(TOKEN));
        let asked = with_tokens("since=s1%5Fa&x=s1_a", &ends.tokens);
        assert_eq!(asked, format!("since={token}&x=s1_a"));
        // The gateway asks the homeserver with its own again, or this would differ.
        assert_eq!(through(&mut ends, &sync("s1_a", "s2_b")), Ok(()));
        assert_eq!(through(&mut ends, &sync("s9_unknown", "s2_b")), Ok(()));
    }

    #[test]
    fn a_transaction_is_the_gateways_upstream_and_the_clients_in_answers() {
        let mut ends = new();
        let send = exchange("PUT", SEND, r#""req":{"body":"t1"},"status":200,"resp":{"event_id":"$x"}"#);
        assert_eq!(through(&mut ends, &send), Ok(()));
        let id = ends.transactions.get("t1").unwrap();
        assert!(id.starts_with(TRANSACTION));
        let event = r#"{"unsigned":{"transaction_id":"t1"},"content":{"unsigned":{"transaction_id":"t1"}}}"#;
        let upstream: Value =
            serde_json::from_slice(&with_transactions(&event.into(), &ends.transactions)).unwrap();
        assert_eq!(upstream["unsigned"]["transaction_id"], id);
        assert_eq!(upstream["content"]["unsigned"]["transaction_id"], "t1");
        let events = format!(r#"{{"rooms":{{"join":{{"!a:b":{{"timeline":{{"events":[{event}]}}}}}}}}}}"#);
        let sync = exchange("GET", SYNC, &format!(r#""status":200,"resp":{events}"#));
        assert_eq!(through(&mut ends, &sync), Ok(()));
    }

    #[test]
    fn each_part_of_a_request_is_looked_at() {
        let sent = exchange("PUT", SEND, r#""req":{"a":1},"status":200,"resp":{}"#);
        for (method, path, body, part) in [
            ("POST", SEND, r#"{"a":1}"#, Part::Method),
            ("PUT", "/_matrix/client/v3/rooms/!b:b/send/m.room.message/t1", r#"{"a":1}"#, Part::Path),
            ("PUT", "/_matrix/client/v3/rooms/!a:b/send/m.room.message", r#"{"a":1}"#, Part::Path),
            ("PUT", &format!("{SEND}?ts=1"), r#"{"a":1}"#, Part::Query),
            ("PUT", SEND, r#"{"a":2}"#, Part::Body),
            ("PUT", SEND, r#"{"a":1.0}"#, Part::Body),
            ("PUT", SEND, "null", Part::Body),
        ] {
            let mut ends = new();
            let asked = ends.ask(&sent).unwrap();
            let other = exchange(method, path, &format!(r#""req":{body},"status":200,"resp":{{}}"#));
            assert_eq!(ends.answer(&asked, &other).1, Err(Difference::Call(part)), "{method} {path} {body}");
        }
        let mut ends = new();
        let mut asked = ends.ask(&sent).unwrap();
        asked.options.remove(OptionNumber::ACCESS_TOKEN);
        assert_eq!(ends.answer(&asked, &sent).1, Err(Difference::Call(Part::Authorization)));
    }

    #[test]
    fn a_repeated_transaction_has_the_same_id_and_another_has_another() {
        let mut ends = new();
        assert!(ends.is_same_path("/a/t1", "/a/lb00000009.0"));
        assert!(ends.is_same_path("/a/t1", "/a/lb00000009.0"));
        assert!(!ends.is_same_path("/a/t1", "/a/lb00000009.1"));
        assert!(!ends.is_same_path("/a/t2", "/a/lb00000009.0"));
        assert!(!ends.is_same_path("/a/t2", "/a/t3"));
        assert!(!ends.is_same_path("/b/t2", "/a/lb00000009.2"));
    }

    #[test]
    fn status_and_body_of_an_answer_are_looked_at() {
        let recorded = |rest: &str| exchange("GET", SYNC, rest);
        let known = recorded(r#""status":200,"resp":{"a":[null],"next_batch":"s1"}"#);
        let differs = |rest: &str| {
            let mut ends = new();
            let asked = ends.ask(&known).unwrap();
            let (answer, taken) = ends.answer(&asked, &known);
            assert_eq!(taken, Ok(()));
            ends.receive(&answer, &recorded(rest)).unwrap_err()
        };
        for body in
            [r#"{"a":[null]}"#, r#"{"a":[false],"next_batch":"s1"}"#, r#"{"a":[null],"next_batch":1}"#, "{}"]
        {
            assert_eq!(differs(&format!(r#""status":200,"resp":{body}"#)), Difference::Body, "{body}");
        }
        let (recorded, read) = (StatusCode::CREATED, StatusCode::OK);
        assert_eq!(differs(r#""status":201,"resp":{}"#), Difference::Status { recorded, read });
    }

    #[test]
    fn a_token_stands_for_one_of_the_homeservers_alone() {
        let mut tokens = Substitutes::new(9);
        let mut is_same =
            |recorded: &str, read: &str| is_same_to_client(&recorded.into(), &read.into(), &mut tokens);
        assert!(
            is_same("s1", "lb00000007_0") && is_same("s1", "lb00000007_0") && is_same("s2", "lb00000007_1")
        );
        assert!(!is_same("s3", "lb00000007_0") && !is_same("s3", "lb00000008_0") && is_same("s3", "s3"));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let mut ends = new();
        let known = sync("", "s1");
        let mut asked = ends.ask(&known).unwrap();
        asked.payload = Bytes::new();
        let (_, taken) = ends.answer(&asked, &known);
        let taken = taken.unwrap_err();
        assert_eq!(taken.to_string(), "the gateway cannot unpack the request: cut short");
        let mut ends = new();
        let asked = ends.ask(&known).unwrap();
        let (mut answer, served) = ends.answer(&asked, &known);
        served.unwrap();
        answer.payload.truncate(1);
        let received = ends.receive(&answer, &known).unwrap_err();
        assert!(received.to_string().starts_with("the answer cannot be unpacked: "), "{received}");
        assert!(received.is_final() && taken.is_final());
    }
}
