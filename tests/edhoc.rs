//! EDHOC (RFC 9528) between our own ends, over CoAP (Appendix A.2), and with a protected request (RFC 9668).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use lowband::coap::Address;
use lowband::coap::Block;
use lowband::coap::BlockSize;
use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::MessageId;
use lowband::coap::OptionNumber;
use lowband::coap::Request;
use lowband::coap::Response;
use lowband::coap::content_format;
use lowband::link::End;
use lowband::link::Profile;
use lowband::security::edhoc::Agreed;
use lowband::security::edhoc::Answer;
use lowband::security::edhoc::Config;
use lowband::security::edhoc::ConnectionId;
use lowband::security::edhoc::Credential;
use lowband::security::edhoc::ErrorMessage;
use lowband::security::edhoc::Established;
use lowband::security::edhoc::Identity;
use lowband::security::edhoc::Initiator;
use lowband::security::edhoc::InitiatorError;
use lowband::security::edhoc::KeyPair;
use lowband::security::edhoc::Reply;
use lowband::security::edhoc::Responder;
use lowband::security::edhoc::is_combined;
use lowband::security::edhoc::is_edhoc;
use lowband::security::oscore::Challenges;
use lowband::security::oscore::Context;
use lowband::security::oscore::Opened;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rand_chacha::rand_core::SeedableRng;

#[test]
fn a_run_by_key_ids_is_101_bytes() {
    let mut gateway = Gateway::new(Config::default());
    let initiator = device(7);
    let request = initiator.request();
    let answer = gateway.gets(1, &request);
    let mut agreed = agreed(&initiator, &answer.response);
    let second = agreed.request();
    // Before message_1 stands `true`, and before message_3 C_R: a byte each.
    let messages = [request.payload.len() - 1, answer.response.payload.len(), second.payload.len() - 1];
    assert_eq!(messages, [37, 45, 19]);
    assert_eq!(messages.iter().sum::<usize>(), 101);
    let answer = gateway.gets(1, &second);
    assert_eq!(answer.response.payload.len(), 9);
    agreed.confirm(&answer.response).unwrap();
    same(&agreed, &answer.established.unwrap());
    // With a token of a byte: the header, the path, the format and the marker.
    assert_eq!(message(&request).encode().len(), 4 + 18 + 2 + 1 + 38);
}

#[test]
fn message_3_goes_with_the_first_protected_request_in_20_bytes() {
    let mut gateway = Gateway::new(Config::default());
    let initiator = device(7);
    let answer = gateway.gets(1, &initiator.request());
    let agreed = agreed(&initiator, &answer.response);
    let mut client = Context::new(agreed.parameters()).unwrap();
    let _kept = client.reserve();
    let mut request = Message { code: Code::GET, ..Message::empty(Kind::Confirmable, MessageId(2)) };
    request.options.push(OptionNumber::URI_PATH, "7");
    let (sealed, mut sent) = client.protect_request(&request).unwrap();
    let combined = agreed.combine(sealed.message.clone());
    assert_eq!(combined.encode().len(), sealed.message.encode().len() + 20);
    assert!(is_combined(&combined) && !is_edhoc(&combined));

    let came = Message::decode(&combined.encode()).unwrap();
    let taken = gateway.responder.receive_combined(at(1), came.clone(), gateway.now).unwrap();
    let mut server = Context::new(&taken.established.unwrap().parameters).unwrap();
    let _kept = server.reserve();
    let challenges = Challenges::new([0; 32], Duration::from_secs(60));
    let opened = server.open_request(&taken.sealed, &challenges, gateway.now);
    let Ok(Opened::Request { message, mut binding }) = opened else { panic!("it is opened") };
    assert_eq!(message, request);
    let response = Message { code: Code::CONTENT, ..Message::empty(Kind::Acknowledgement, MessageId(2)) };
    let sealed = server.protect_response(&response, &mut binding).unwrap();
    assert_eq!(client.open_response(&sealed.message, &mut sent).unwrap().code, Code::CONTENT);

    // A repeat of it comes to no keys again, and its request is known for a replay.
    let again = gateway.responder.receive_combined(at(2), came.clone(), gateway.now).unwrap();
    assert!(again.established.is_none());
    assert!(server.open_request(&again.sealed, &challenges, gateway.now).is_err());
    // Long after, the session is forgotten. RFC 9668 §3.3.1: the error message is not protected.
    gateway.now = gateway.now + Config::default().lifetime;
    let late = gateway.responder.receive_combined(at(1), came, gateway.now).unwrap_err();
    assert_eq!(late.code, Code::BAD_REQUEST);
    assert_eq!(late.options.get_uint(OptionNumber::CONTENT_FORMAT), Some(content_format::EDHOC));
    assert_eq!(ErrorMessage::decode(&late.payload), Some(ErrorMessage::Unspecified(String::new())));
}

#[test]
fn half_of_all_datagrams_lost_and_others_twice_come_to_one_pair_of_keys() {
    for seed in 0..50 {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let mut gateway = Gateway::new(Config::default());
        let initiator = device(7);
        let (response, none) = gateway.through(&mut chance, &initiator.request());
        assert!(none.is_empty());
        let mut agreed = agreed(&initiator, &response);
        let (response, established) = gateway.through(&mut chance, &agreed.request());
        agreed.confirm(&response).unwrap();
        let [established] = established.as_slice() else { panic!("seed {seed}: {established:?}") };
        same(&agreed, established);
        assert_eq!((gateway.responder.len(), gateway.responder.counters().begun), (1, 1), "seed {seed}");
    }
}

#[test]
fn every_device_has_another_recipient_id_of_a_byte() {
    let mut gateway = Gateway::new(Config::default());
    let mut ids = BTreeSet::new();
    for kid in 0..24 {
        gateway.responder.insert(identity(kid).credential().clone());
        let initiator = device(kid);
        let answer = gateway.gets(kid.into(), &initiator.request());
        let agreed = agreed(&initiator, &answer.response);
        let established = gateway.gets(kid.into(), &agreed.request()).established.unwrap();
        assert_eq!(established.kid, [kid]);
        let id = established.parameters.recipient_id;
        assert_eq!((id.len(), agreed.request().payload.len()), (1, 20));
        assert!(ids.insert(id));
    }
}

#[test]
fn ids_that_others_have_are_not_taken() {
    let mut gateway = Gateway::new(Config::default());
    gateway.free = |id| id == [0xfe];
    let initiator = device(7);
    let answer = gateway.gets(1, &initiator.request());
    assert_eq!(agreed(&initiator, &answer.response).parameters().sender_id, [0xfe]);
    gateway.free = |_| false;
    let answer = gateway.gets(2, &device(7).request());
    assert_eq!(answer.response.code, Code::SERVICE_UNAVAILABLE);
}

#[test]
fn a_flood_of_strangers_is_bounded_and_those_who_show_where_they_are_get_through() {
    let config = Config::default();
    let mut gateway = Gateway::new(config.clone());
    // One who is on its way already, and one who has shown where it is.
    let early = device(7);
    let answer = gateway.gets(1, &early.request());
    let early = agreed(&early, &answer.response);
    let (mut sent, mut came) = (0, 0);
    for number in 0..2_000_u32 {
        gateway.now = gateway.now + Duration::from_millis(1);
        let spoofed = Address { remote: ([10, 0, (number >> 8) as u8, number as u8], 1_000).into(), ..at(0) };
        let request = Initiator::new(identity(7), peer(), &id(1), [number as u8; 32]).request();
        let response = gateway.gets_from(spoofed, &request).response;
        came += message(&request).encode().len();
        sent += with_code(&response).encode().len();
        assert!(gateway.responder.len() <= config.unproven);
    }
    assert!(sent < came, "{sent} bytes for {came}");
    let counters = gateway.responder.counters();
    assert_eq!((counters.begun, counters.challenged), (64, 2_000 - 63));
    // The one who was on its way goes on, and a new one has to show where it is.
    assert!(gateway.gets(1, &early.request()).established.is_some());
    for number in 0..64 {
        let initiator = Initiator::new(identity(7), peer(), &id(2), [number; 32]);
        gateway.gets(5_000 + u16::from(number), &initiator.request());
    }
    let late = device(7);
    let challenge = gateway.gets(9, &late.request()).response;
    assert_eq!(challenge.code, Code::UNAUTHORIZED);
    let Ok(Reply::Again(request)) = late.receive(&challenge) else { panic!("it is a challenge") };
    assert_eq!(gateway.gets(10, &request).response.code, Code::UNAUTHORIZED, "it was for another");
    let answer = gateway.gets(9, &request);
    let late = agreed(&late, &answer.response);
    assert!(gateway.gets(9, &late.request()).established.is_some());
}

#[test]
fn who_has_shown_where_it_is_has_one_session_and_gives_way_to_nobody_in_time() {
    let config = Config { unproven: 0, proven: 2, ..Config::default() };
    let mut gateway = Gateway::new(config.clone());
    let mut first = None;
    for (port, seed) in [(1, 1), (1, 2), (2, 3)] {
        let initiator = Initiator::new(identity(7), peer(), &id(1), [seed; 32]);
        let challenge = gateway.gets(port, &initiator.request()).response;
        let Ok(Reply::Again(request)) = initiator.receive(&challenge) else { panic!("it is a challenge") };
        let answer = gateway.gets(port, &request);
        first = first.or_else(|| (seed == 2).then(|| agreed(&initiator, &answer.response)));
    }
    assert_eq!(gateway.responder.len(), 2);
    let third = device(7);
    let challenge = gateway.gets(3, &third.request()).response;
    let Ok(Reply::Again(request)) = third.receive(&challenge) else { panic!("it is a challenge") };
    let busy = gateway.gets(3, &request).response;
    assert_eq!(busy.code, Code::SERVICE_UNAVAILABLE);
    assert!(busy.options.get_uint(OptionNumber::MAX_AGE).is_some_and(|age| age > 0));
    assert!(gateway.gets(1, &first.unwrap().request()).established.is_some());
    assert!(gateway.gets(3, &request).response.code.is_success(), "there is room again");
}

#[test]
fn a_wrong_message_3_ends_a_session_only_from_where_that_is() {
    let mut gateway = Gateway::new(Config::default());
    let initiator = device(7);
    let answer = gateway.gets(1, &initiator.request());
    let agreed = agreed(&initiator, &answer.response);
    let mut forged = agreed.request();
    let mut payload = forged.payload.to_vec();
    *payload.last_mut().unwrap() ^= 1;
    forged.payload = payload.into();
    assert_eq!(gateway.gets(2, &forged).response.code, Code::BAD_REQUEST);
    // The device may have moved meanwhile.
    assert!(gateway.gets(3, &agreed.request()).established.is_some());
    // What is finished stays so.
    assert_eq!(gateway.gets(3, &forged).response.code, Code::BAD_REQUEST);
    assert!(gateway.gets(3, &agreed.request()).response.code.is_success());

    let initiator = device(7);
    let answer = gateway.gets(4, &initiator.request());
    let agreed = self::agreed(&initiator, &answer.response);
    let c_r = agreed.request().payload[0];
    let mut forged = agreed.request();
    forged.payload = [&[c_r, 0x48][..], &[0; 8]].concat().into();
    gateway.gets(4, &forged);
    assert!(gateway.gets(4, &agreed.request()).established.is_none());
}

#[test]
fn who_is_not_known_gets_no_keys_and_is_told() {
    let mut gateway = Gateway::new(Config::default());
    gateway.responder.remove(&[7]);
    let initiator = device(7);
    let answer = gateway.gets(1, &initiator.request());
    let mut agreed = agreed(&initiator, &answer.response);
    let answer = gateway.gets(1, &agreed.request());
    assert!(answer.established.is_none());
    let told = agreed.confirm(&answer.response);
    assert_eq!(told, Err(InitiatorError::Peer(ErrorMessage::UnknownCredential)));
    assert!(gateway.responder.is_empty());
}

#[test]
fn what_is_no_edhoc_is_refused_by_its_code() {
    let mut gateway = Gateway::new(Config::default());
    let mut code = |change: fn(&mut Request)| {
        let mut request = device(7).request();
        change(&mut request);
        gateway.gets(1, &request).response.code
    };
    assert_eq!(code(|request| request.method = Code::GET), Code::METHOD_NOT_ALLOWED);
    assert_eq!(code(|request| request.payload = Default::default()), Code::BAD_REQUEST);
    assert_eq!(code(|request| request.options.push(OptionNumber(2_001), [])), Code::BAD_OPTION);
    let json: fn(&mut Request) = |request| request.options.set_uint(OptionNumber::CONTENT_FORMAT, 50);
    assert_eq!(code(json), Code::UNSUPPORTED_CONTENT_FORMAT);
    assert_eq!(code(|request| request.options.push_uint(OptionNumber::ACCEPT, 60)), Code::NOT_ACCEPTABLE);
    let block = |number, size| Block { number, more: false, size: BlockSize::fitting(size) };
    for (option, block, expected) in [
        (OptionNumber::BLOCK2, block(0, 64), Code::CHANGED),
        (OptionNumber::Q_BLOCK2, Block { more: true, ..block(0, 256) }, Code::CHANGED),
        (OptionNumber::BLOCK2, block(0, 32), Code::BAD_OPTION),
        (OptionNumber::BLOCK2, block(1, 64), Code::BAD_OPTION),
    ] {
        let mut gateway = Gateway::new(Config::default());
        let mut request = device(7).request();
        request.options.push(option, block.encode());
        assert_eq!(gateway.gets(1, &request).response.code, expected, "{option:?} {block:?}");
    }
    // Without the format it goes too: others send it so.
    assert_eq!(code(|request| request.options.remove(OptionNumber::CONTENT_FORMAT)), Code::CHANGED);
}

#[test]
fn sessions_wait_as_long_as_the_link_takes_and_no_longer() {
    let hf = Profile::built_in("hf-100").unwrap().terms(End::Gateway).parameters;
    let config = Config::of_link(&hf);
    assert!(config.lifetime > Config::default().lifetime && config.patience < config.lifetime);
    let mut gateway = Gateway::new(config.clone());
    assert_eq!(gateway.responder.deadline(), None);
    gateway.gets(1, &device(7).request());
    assert_eq!(gateway.responder.deadline(), Some(gateway.now + config.lifetime));
    gateway.responder.handle_timeout(gateway.now + config.lifetime - Duration::from_nanos(1));
    assert_eq!(gateway.responder.len(), 1);
    gateway.responder.handle_timeout(gateway.now + config.lifetime);
    assert_eq!((gateway.responder.len(), gateway.responder.counters().given_up), (0, 1));
}

#[test]
fn nothing_secret_is_printed() {
    let pair = KeyPair::generate([9; 32]);
    let digits: String = pair.private().iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = format!("{:?} {:?}", identity(9), Gateway::new(Config::default()).responder);
    assert!(!shown.contains(&digits) && !shown.contains(&format!("{:?}", pair.private())), "{shown}");
}

/// The responder, and the time where it is.
struct Gateway {
    responder: Responder,
    now: Instant,
    free: fn(&[u8]) -> bool,
    seed: u8,
}

impl Gateway {
    fn new(config: Config) -> Self {
        let mut responder = Responder::new(identity(0x20), config, [1; 32]);
        responder.insert(identity(7).credential().clone());
        Self { responder, now: Instant::after_start(Duration::from_secs(1_000)), free: |_| true, seed: 0 }
    }

    fn gets(&mut self, port: u16, request: &Request) -> Answer {
        self.gets_from(at(port), request)
    }

    fn gets_from(&mut self, address: Address, request: &Request) -> Answer {
        self.seed = self.seed.wrapping_add(1);
        let request = Message::decode(&message(request).encode()).unwrap();
        assert!(is_edhoc(&request));
        self.responder.receive(address, &request, self.free, [self.seed; 32], self.now)
    }

    /// Sends a request until a response comes back, over a link that loses half and repeats some.
    fn through(&mut self, chance: &mut ChaCha8Rng, request: &Request) -> (Response, Vec<Established>) {
        let mut established = Vec::new();
        for _ in 0..100 {
            self.now = self.now + Duration::from_millis(100);
            let times = [0, 0, 1, 1, 2][chance.next_u32() as usize % 5];
            for _ in 0..times {
                let answer = self.gets(1, request);
                established.extend(answer.established);
                if chance.next_u32().is_multiple_of(2) {
                    return (answer.response, established);
                }
            }
        }
        panic!("all of 100 were lost");
    }
}

/// The device with this key id, before it begins.
fn device(kid: u8) -> Initiator {
    Initiator::new(identity(kid), peer(), &id(0x0e), [kid ^ 0x80; 32])
}

fn peer() -> Credential {
    identity(0x20).credential().clone()
}

fn identity(kid: u8) -> Identity {
    let pair = KeyPair::generate([kid; 32]);
    let credential = Credential::new("", &[kid], pair.public()).unwrap();
    Identity::new(pair, credential).unwrap()
}

fn id(byte: u8) -> ConnectionId {
    ConnectionId::new(&[byte]).unwrap()
}

fn agreed(initiator: &Initiator, response: &Response) -> Box<Agreed> {
    match initiator.receive(response).unwrap() {
        Reply::Agreed(agreed) => agreed,
        Reply::Again(request) => panic!("{request:?}"),
    }
}

/// Both have the same keys, each with its own id first.
fn same(agreed: &Agreed, established: &Established) {
    let (client, server) = (agreed.parameters(), established.parameters.mirrored());
    assert_eq!(client.master_secret.expose(), server.master_secret.expose());
    assert_eq!(client.master_salt.expose(), server.master_salt.expose());
    assert_eq!((client.master_secret.expose().len(), client.master_salt.expose().len()), (16, 8));
    assert_eq!((&client.sender_id, &client.recipient_id), (&server.sender_id, &server.recipient_id));
}

fn at(port: u16) -> Address {
    Address { remote: ([192, 0, 2, 1], port).into(), local: ([192, 0, 2, 2], 5_683).into() }
}

fn message(request: &Request) -> Message {
    let (code, options, payload) = (request.method, request.options.clone(), request.payload.clone());
    Message { code, options, payload, ..Message::empty(Kind::Confirmable, MessageId(1)) }
}

fn with_code(response: &Response) -> Message {
    let (code, options, payload) = (response.code, response.options.clone(), response.payload.clone());
    Message { code, options, payload, ..Message::empty(Kind::Acknowledgement, MessageId(1)) }
}
