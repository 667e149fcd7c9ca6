//! Any bytes as messages of the packed profile, at both ends of an association that knows something: no panic, no more output than was
//! allowed, and an end that refused a message is as it was.

use std::sync::LazyLock;

use lowband::packed::Agreement;
use lowband::packed::Asked;
use lowband::packed::Dictionary;
use lowband::packed::GatewayEnd;
use lowband::packed::Limits;
use lowband::packed::ProxyEnd;
use lowband::packed::Request;
use lowband::packed::Response;
use lowband::packed::Spelling;

const LIMITS: Limits = Limits { output: 1 << 16, ..Limits::OF_REQUEST };

static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(lowband::packed::train::untrained);
static KNOWN: LazyLock<(ProxyEnd, GatewayEnd, Asked)> = LazyLock::new(acquainted);

/// Tries `data` as a request, and as a response to a request for /sync.
pub fn run(data: &[u8]) {
    let (proxy, gateway, asked) = &*KNOWN;
    gateway_reads(gateway, data);
    proxy_reads(proxy, *asked, data);
    // Few inputs have the epoch; these do.
    let Some((first, rest)) = data.split_first() else { return };
    let dated = [&[first & 0x23 | 0x04], rest].concat();
    gateway_reads(gateway, &dated);
    proxy_reads(proxy, *asked, &dated);
}

fn gateway_reads(gateway: &GatewayEnd, data: &[u8]) {
    let mut after = gateway.clone();
    match after.decode_request(data, &DICTIONARY, LIMITS) {
        Ok((request, asked)) => {
            assert!(
                request.path.starts_with('/') && request.body.is_none_or(|body| body.len() <= LIMITS.output)
            );
            let answer = Response { status: None, body: Some(b"{\"event_id\":\"$a\"}".to_vec()) };
            after.encode_response(&answer, asked, &DICTIONARY, Spelling::Short);
        }
        Err(_) => assert_eq!(format!("{after:?}"), format!("{gateway:?}")),
    }
}

fn proxy_reads(proxy: &ProxyEnd, asked: Asked, data: &[u8]) {
    let mut after = proxy.clone();
    let read = after.decode_response(data, asked, &DICTIONARY, LIMITS);
    let notified = proxy.clone().decode_notification(data, asked, &DICTIONARY, LIMITS);
    for response in read.iter().chain(&notified) {
        assert!(response.body.as_ref().is_none_or(|body| body.len() <= LIMITS.output));
    }
    if read.is_err() {
        assert_eq!(format!("{after:?}"), format!("{proxy:?}"));
    }
}

/// Two ends that have exchanged a message and a /sync.
fn acquainted() -> (ProxyEnd, GatewayEnd, Asked) {
    let agreement = Agreement { epoch: 1, tokens: 7, transactions: 9 };
    let (mut proxy, mut gateway) = (ProxyEnd::new(agreement), GatewayEnd::new(agreement));
    let room = "!goIZpRtW9Xc5w0MyK-HlgGTO1M1IEPsWnegzI9QBcrk";
    let sent = "{\"msgtype\":\"m.text\",\"body\":\"Good evening, all\"}";
    let event = "{\"event_id\":\"$DfeVNCtOh9dQ3QT0vn0zXdjP8QM1Ij2S9Ubzg6jJ40Y\"}";
    let sync =
        "{\"next_batch\":\"s1\",\"ts\":1795468377411,\"users\":[\"@alice:hs.example\",\"some other text\"]}";
    let mut asked = Asked::default();
    for (path, body, answer) in [
        (format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t1"), Some(sent), event),
        ("/_matrix/client/v3/sync".to_owned(), None, sync),
    ] {
        let method = if body.is_some() { "PUT" } else { "GET" }.to_owned();
        let request = Request { method, path, query: None, body: body.map(|body| body.as_bytes().to_vec()) };
        let up = proxy.encode_request(&request, &DICTIONARY, Spelling::Short).expect("it can be written");
        let (_, theirs) = gateway.decode_request(&up.payload, &DICTIONARY, LIMITS).expect("it can be read");
        proxy.acknowledge(up.message);
        let response = Response { status: None, body: Some(answer.as_bytes().to_vec()) };
        let down = gateway.encode_response(&response, theirs, &DICTIONARY, Spelling::Short);
        proxy.decode_response(&down.payload, up.asked, &DICTIONARY, LIMITS).expect("it can be read");
        gateway.acknowledge(down.message);
        asked = up.asked;
    }
    (proxy, gateway, asked)
}
