//! Any bytes as a protected message: no panic, nothing changes where it is not opened, and nothing is opened that was not sealed.

use std::sync::OnceLock;
use std::time::Duration;

use lowband::coap::Instant;
use lowband::coap::Message;
use lowband::coap::OptionNumber;
use lowband::security::oscore::Challenges;
use lowband::security::oscore::Context;
use lowband::security::oscore::Opened;
use lowband::security::oscore::Parameters;
use lowband::security::oscore::ReplayWindow;
use lowband::security::oscore::SentRequest;
use lowband::security::oscore::State;

/// Tries `data` as a datagram, as the option and the ciphertext of a message, and as a message to protect.
pub fn run(data: &[u8]) {
    if let Ok(message) = Message::decode(data) {
        open(&message);
        protect(&message);
    }
    // Few inputs are datagrams with the option; these are.
    let Some((&length, rest)) = data.split_first() else { return };
    let Some((option, payload)) = rest.split_at_checked(usize::from(length)) else { return };
    let [mut request, mut response] = exchange();
    for message in [&mut request, &mut response] {
        message.options.set(OptionNumber::OSCORE, option);
        message.payload = payload.to_vec().into();
        open(message);
    }
}

/// What was not sealed by the other endpoint is not opened, and changes nothing; a replay of what was sealed is served by nobody who cannot
/// know whether it is one.
fn open(message: &Message) {
    let [request, response] = exchange();
    let is = |sealed: &Message| {
        (message.payload == sealed.payload)
            && message.options.get(OptionNumber::OSCORE) == sealed.options.get(OptionNumber::OSCORE)
    };
    let challenges = Challenges::new([0; 32], Duration::from_secs(60));
    for window in [Some(ReplayWindow::default()), None] {
        let lost = window.is_none();
        let mut server = context(&parameters().mirrored(), window);
        let before = format!("{server:?}");
        match server.open_request(message, &challenges, Instant::START) {
            Ok(Opened::Request { .. }) => assert!(!lost && is(&request), "{message:?} is served"),
            Ok(Opened::Challenge(_)) => assert!(lost && is(&request), "{message:?} is challenged"),
            Err(refusal) => {
                assert_eq!(format!("{server:?}"), before, "{refusal}");
                let told = refusal.response(Default::default()).map_or(0, |told| told.payload.len());
                assert_eq!(told, 0);
            }
        }
    }
    let (client, mut sent) = client();
    let before = format!("{sent:?}");
    match client.open_response(message, &mut sent) {
        Ok(_) => assert!(is(&response), "{message:?} is taken"),
        Err(error) => assert_eq!(format!("{sent:?}"), before, "{error}"),
    }
}

/// What is protected is opened as it was, but for what is only seen by proxies.
fn protect(message: &Message) {
    let (mut client, mut server) =
        (context(&parameters(), None), context(&parameters().mirrored(), Some(ReplayWindow::default())));
    let Ok((sealed, _)) = client.protect_request(message) else { return };
    let sealed = Message::decode(&sealed.message.encode()).unwrap_or_else(|error| panic!("{error}"));
    let challenges = Challenges::new([0; 32], Duration::from_secs(60));
    match server.open_request(&sealed, &challenges, Instant::START) {
        Ok(Opened::Request { message: opened, .. }) => assert_eq!(&opened, message),
        other => panic!("{message:?} is not served: {other:?}"),
    }
}

/// A request and the response to it, sealed.
fn exchange() -> [Message; 2] {
    static EXCHANGE: OnceLock<[Message; 2]> = OnceLock::new();
    EXCHANGE.get_or_init(sealed_exchange).clone()
}

fn sealed_exchange() -> [Message; 2] {
    let decode = |datagram: &[u8]| Message::decode(datagram).unwrap_or_else(|error| panic!("{error}"));
    let (mut client, mut server) =
        (context(&parameters(), None), context(&parameters().mirrored(), Some(ReplayWindow::default())));
    let plain = decode(b"\x41\x01\x00\x00\x01\xb1\x37");
    let Ok((request, _)) = client.protect_request(&plain) else { panic!("it can be protected") };
    let challenges = Challenges::new([0; 32], Duration::from_secs(60));
    let opened = server.open_request(&request.message, &challenges, Instant::START);
    let Ok(Opened::Request { mut binding, .. }) = opened else { panic!("it is served") };
    let plain = decode(b"\x61\x45\x00\x00\x01\xff\xa0");
    let Ok(response) = server.protect_response(&plain, &mut binding) else { panic!("it can be protected") };
    [request.message, response.message]
}

/// A client that has sent the request.
fn client() -> (Context, SentRequest) {
    let mut client = context(&parameters(), None);
    let plain = Message::decode(b"\x41\x01\x00\x00\x01\xb1\x37").unwrap_or_else(|error| panic!("{error}"));
    let Ok((_, sent)) = client.protect_request(&plain) else { panic!("it can be protected") };
    (client, sent)
}

/// Those of the client.
fn parameters() -> Parameters {
    Parameters::new([7; 16].into(), b"", b"\x01")
}

fn context(parameters: &Parameters, window: Option<ReplayWindow>) -> Context {
    let state = State { sequence: 0, window };
    let Ok(mut context) = Context::restore(parameters, state, Instant::START) else {
        panic!("the parameters are valid")
    };
    let _kept = context.reserve();
    context
}
