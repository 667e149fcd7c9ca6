//! A steady exchange at the gateway's machine: a message by PUT with its answer, and a `/sync` that has another. Sans-IO, so that nothing but the
//! machine is measured.

use std::net::Ipv4Addr;
use std::net::SocketAddr;

use bytes::Bytes;
use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::MessageId;
use lowband::coap::OptionNumber;
use lowband::coap::Token;
use lowband::codec;
use lowband::codec::Keys;
use lowband::endpoint::Address;
use lowband::gateway::Config;
use lowband::gateway::Gateway;
use lowband::gateway::Input;
use lowband::gateway::Output;
use lowband::packed::Dictionary;
use lowband::translate;
use lowband::translate::packed::caller::Caller;
use lowband::translate::packed::caller::Step;

/// A gateway with one peer.
pub(crate) struct Steady {
    gateway: Gateway,
    caller: Option<(Caller, Dictionary)>,
    next: u16,
    now: Instant,
    since: String,
    /// Bytes of all records that were to be stored, and of all datagrams.
    pub(crate) stored: usize,
    pub(crate) sent: usize,
}

impl Steady {
    /// One that keeps what it has to. The peer speaks the packed profile if it is given a dictionary, else MSC3079.
    pub(crate) fn new(dictionary: Option<Dictionary>) -> Self {
        let mut config = Config::new("http://hs.example".parse().unwrap());
        config.endpoint.durable = true;
        config.dictionaries = dictionary.iter().cloned().collect();
        let caller = dictionary.map(|dictionary| (Caller::new([7; 8]), dictionary));
        let (gateway, since) = (Gateway::new(config, [7; 32]), String::new());
        let mut steady = Self { gateway, caller, next: 0, now: Instant::START, since, stored: 0, sent: 0 };
        steady.exchange();
        steady
    }

    /// A message, and a sync.
    pub(crate) fn exchange(&mut self) {
        let number = self.next;
        let send = format!("/_matrix/client/v3/rooms/!room:hs.example/send/m.room.message/m{number}");
        let body = format!("{{\"msgtype\":\"m.text\",\"body\":\"at noon {number} knots from the north\"}}");
        let event = format!("{{\"event_id\":\"$goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9Q{number:04}\"}}");
        self.calls("PUT", &send, body, &event);
        let sync = match self.since.as_str() {
            "" => "/_matrix/client/v3/sync?timeout=0".to_owned(),
            since => format!("/_matrix/client/v3/sync?timeout=0&since={since}"),
        };
        let news = format!(
            "{{\"next_batch\":\"s{number}_1_2\",\"rooms\":{{\"join\":{{\"!room:hs.example\":{{\"timeline\":{{\"events\":[{{\"type\":\
             \"m.room.message\",\"sender\":\"@bob:hs.example\",\"content\":{{\"msgtype\":\"m.text\",\"body\":\"seen, {number}\"}},\
             \"event_id\":\"$abIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9Q{number:04}\",\"origin_server_ts\":17954683{number:05},\
             \"unsigned\":{{\"age\":153}}}}],\"limited\":false,\"prev_batch\":\"s{number}_1_1\"}}}}}}}}}}"
        );
        let read = self.calls("GET", &sync, String::new(), &news);
        let read: serde_json::Value = serde_json::from_slice(&read).unwrap();
        self.since = read["next_batch"].as_str().unwrap().to_owned();
    }

    fn calls(&mut self, method: &str, url: &str, body: String, answer: &str) -> Bytes {
        let http = http::Request::builder().method(method).uri(url).header("authorization", "Bearer token");
        let http = http.body(Bytes::from(body)).unwrap();
        let Some((mut caller, dictionary)) = self.caller.take() else {
            let request = translate::request::to_coap(&http, Keys::V1, &codec::Limits::default()).unwrap();
            let response = self.transfers(request, answer);
            return translate::response::to_http(&response, &codec::Limits::default()).unwrap().into_body();
        };
        let (mut pending, mut step) = caller.begin(http, &dictionary).unwrap();
        let done = loop {
            match step {
                Step::Done(done) => break done,
                Step::Send(request) => {
                    let response = self.transfers(request, answer);
                    step = caller.receive(&mut pending, &response, &dictionary).unwrap();
                }
            }
        };
        self.caller = Some((caller, dictionary));
        done.into_body()
    }

    /// A request that fits into a datagram, and its response, which does too.
    fn transfers(&mut self, request: lowband::coap::Request, answer: &str) -> lowband::coap::Response {
        self.next += 1;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let address = Address { remote: at(1000), local: at(5683) };
        let message = Message {
            kind: Kind::Confirmable,
            code: request.method,
            id: MessageId(self.next),
            token: Token::new(&self.next.to_be_bytes()).unwrap(),
            options: request.options,
            payload: request.payload,
        };
        // An exchange is forgotten before its id comes again.
        self.now = self.now + std::time::Duration::from_secs(1);
        self.gateway.advance(self.now);
        self.gateway.handle(Input::Datagram { address, datagram: &message.encode() }, self.now);
        let mut response = None;
        while let Some(output) = self.gateway.poll() {
            match output {
                Output::Fetch { id, .. } => {
                    let http = http::Response::new(Bytes::copy_from_slice(answer.as_bytes()));
                    self.gateway.handle(Input::Fetched { id, result: Ok(http) }, self.now);
                }
                Output::Datagram { datagram, .. } => {
                    self.sent += datagram.len();
                    let message = Message::decode(&datagram).unwrap();
                    let Message { code, options, payload, .. } = message;
                    assert!(
                        code != Code::EMPTY && options.get(OptionNumber::BLOCK2).is_none(),
                        "one datagram"
                    );
                    response = Some(lowband::coap::Response { code, options, payload });
                }
                Output::Store { value, .. } => self.stored += value.map_or(0, |value| value.len()),
                other => panic!("{other:?}"),
            }
        }
        response.unwrap()
    }
}
