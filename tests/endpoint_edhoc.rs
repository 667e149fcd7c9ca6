//! A device and a gateway that agree on keys by EDHOC (RFC 9528) over a link that loses, and speak under them at once (RFC 9668).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, MessageId, OptionNumber, Priority, Response, Token};
use lowband::endpoint::{Address, Association, Config, Endpoint, Event};
use lowband::security::edhoc::{
    self, Agreed, ConnectionId, Credential, Identity, Initiator, KeyPair, Rekey, Reply, Use,
};
use lowband::security::oscore::{Context, is_protected};
use support::endpoint::{OTHER, PEER, config, request, response};

const DEVICE: Association = Association::Device(7);
/// The gateway, as the device sees it.
const GATEWAY: Address = PEER;
/// The number of the first keys that are agreed on.
const FIRST: u64 = 1 << 63;

/// A gateway that knows a device, and the device, with a link between them.
struct World {
    gateway: Endpoint,
    device: Endpoint,
    lose: fn(usize) -> bool,
    sent: usize,
    agreed: Vec<u64>,
    spent: Vec<u64>,
    asked: usize,
    now: Instant,
}

impl World {
    fn new(lose: fn(usize) -> bool) -> Self {
        Self::with(Rekey::default(), lose)
    }

    fn with(rekey: Rekey, lose: fn(usize) -> bool) -> Self {
        let mut gateway = Endpoint::new(Config { tell_nonces: true, ..config() }, [2; 32]);
        gateway.answer_edhoc(identity(2), edhoc::Config::default(), rekey, FIRST);
        gateway.admit_credential(DEVICE, identity(7).credential().clone());
        let device = Endpoint::new(config(), [1; 32]);
        Self {
            gateway,
            device,
            lose,
            sent: 0,
            agreed: Vec::new(),
            spent: Vec::new(),
            asked: 0,
            now: Instant::START,
        }
    }

    /// Lets the device ask, and time pass until it is answered.
    fn ask(&mut self, association: Association, request: lowband::coap::Request) -> Response {
        let id = self.device.request_to(association, Priority::Message, GATEWAY, request, self.now);
        for _ in 0..1_000 {
            self.carry();
            match self.device.poll_event() {
                Some(Event::Response { id: of, response, .. }) if of == id => return response,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            let due = [self.gateway.deadline(), self.device.deadline()].into_iter().flatten().min();
            self.now = self.now.max(due.expect("somebody waits"));
            self.gateway.advance(self.now);
            self.device.advance(self.now);
        }
        panic!("there is no end to it");
    }

    fn carry(&mut self) {
        loop {
            let mut idle = true;
            while let Some(event) = self.gateway.poll_event() {
                match event {
                    Event::KeysAgreed { association, number, kid } => {
                        assert_eq!(kid, [7]);
                        assert_eq!(association, DEVICE);
                        self.agreed.push(number);
                    }
                    Event::Request { key, association, .. } => {
                        assert_eq!(association, DEVICE);
                        self.asked += 1;
                        self.gateway.respond(key, response("2.05, `hello`"), self.now);
                    }
                    Event::KeysUsed { association, number } => {
                        assert_eq!(association, DEVICE);
                        assert!(self.agreed.contains(&number));
                    }
                    Event::KeysSpent { association, number } => {
                        assert_eq!(association, DEVICE);
                        self.spent.push(number);
                    }
                    other => panic!("{other:?}"),
                }
            }
            for (from, to, at) in [(0, 1, OTHER), (1, 0, GATEWAY)] {
                let ends = [&mut self.device, &mut self.gateway];
                let datagrams: Vec<_> = std::iter::from_fn(|| ends[from].poll_datagram()).collect();
                for (_, datagram) in datagrams {
                    idle = false;
                    self.sent += 1;
                    if !(self.lose)(self.sent) {
                        [&mut self.device, &mut self.gateway][to].handle(at, &datagram, self.now);
                    }
                }
            }
            if idle {
                return;
            }
        }
    }

    /// message_1 and message_2.
    fn begin(&mut self, seed: u8) -> Box<Agreed> {
        let c_i = ConnectionId::new(&[0x0e]).unwrap();
        let initiator = Initiator::new(identity(7), identity(2).credential().clone(), &c_i, [seed; 32]);
        let answer = self.ask(GATEWAY.into(), initiator.request());
        match initiator.receive(&answer).unwrap() {
            Reply::Agreed(agreed) => agreed,
            Reply::Again(request) => panic!("{request:?}"),
        }
    }
}

#[test]
fn a_device_agrees_on_keys_over_a_link_that_loses_a_third_and_is_served_under_them() {
    let losses: [fn(usize) -> bool; 4] =
        [|_| false, |sent| sent % 3 == 0, |sent| sent % 3 == 1, |sent| sent % 3 == 2];
    for lose in losses {
        let mut world = World::new(lose);
        let mut agreed = world.begin(1);
        let answer = world.ask(GATEWAY.into(), agreed.request());
        agreed.confirm(&answer).unwrap();
        assert_eq!(world.agreed, [FIRST]);
        let ours = world.gateway.parameters(FIRST).unwrap();
        assert_eq!(ours.master_secret.expose(), agreed.parameters().master_secret.expose());
        world.device.admit_keys(1, DEVICE, agreed.parameters().clone()).unwrap();
        assert_eq!(world.ask(DEVICE, request("GET, /7")).payload, "hello");
        assert_eq!(world.asked, 1);
    }
}

#[test]
fn a_request_that_brings_message_3_is_served_once_and_its_repeat_gets_the_same_answer() {
    let mut world = World::new(|_| false);
    let agreed = world.begin(1);
    let mut client = Context::new(agreed.parameters()).unwrap();
    let _kept = client.reserve();
    let mut plain = Message { code: Code::GET, ..Message::empty(Kind::Confirmable, MessageId(77)) };
    plain.token = Token::new(&[9]).unwrap();
    plain.options.push(OptionNumber::URI_PATH, "7");
    let (sealed, mut sent) = client.protect_request(&plain).unwrap();
    let datagram = agreed.combine(sealed.message).encode();
    let mut answers = Vec::new();
    for _ in 0..3 {
        world.gateway.handle(OTHER, &datagram, world.now);
        if let Some(Event::KeysAgreed { number, .. }) = world.gateway.poll_event() {
            assert_eq!(number, FIRST);
            assert!(matches!(world.gateway.poll_event(), Some(Event::KeysUsed { number: FIRST, .. })));
            let Some(Event::Request { key, .. }) = world.gateway.poll_event() else { panic!("it is served") };
            world.gateway.respond(key, response("2.05, `hello`"), world.now);
        }
        answers.extend(std::iter::from_fn(|| world.gateway.poll_datagram()).map(|(_, datagram)| datagram));
    }
    let [first, second, third] = answers.as_slice() else { panic!("{answers:02x?}") };
    assert!(first == second && second == third);
    let answer = Message::decode(first).unwrap();
    assert!(is_protected(&answer));
    assert_eq!(client.open_response(&answer, &mut sent).unwrap().payload, "hello");
    assert_eq!(world.gateway.edhoc_counters().unwrap().established, 1);
}

#[test]
fn keys_are_replaced_on_demand_and_those_before_the_last_are_revoked() {
    let mut world = World::new(|_| false);
    for number in 0..4_u8 {
        let agreed = world.begin(number);
        world.ask(GATEWAY.into(), agreed.request());
        world.device.admit_keys(number.into(), DEVICE, agreed.parameters().clone()).unwrap();
        assert_eq!(world.ask(DEVICE, request("GET, /7")).payload, "hello");
        let has = |back: u64| world.gateway.parameters(FIRST + u64::from(number) - back).is_some();
        assert!(has(0) && (number < 1 || has(1)) && (number < 2 || !has(2)), "{number}");
    }
    assert_eq!(world.agreed, [FIRST, FIRST + 1, FIRST + 2, FIRST + 3]);
    world.gateway.revoke_credential(&[7], world.now);
    assert!((0..4).all(|number| world.gateway.parameters(FIRST + number).is_none()));
    let agreed = world.begin(9);
    assert_eq!(world.ask(GATEWAY.into(), agreed.request()).code, Code::BAD_REQUEST);
}

#[test]
fn keys_are_good_until_a_limit_and_the_device_agrees_on_others() {
    let rekey = Rekey { sealed: 6, forged: 3, age: Some(Duration::from_secs(3_600)) };
    let mut world = World::with(rekey, |_| false);
    let agree = |world: &mut World, number: u64| {
        let agreed = world.begin(number as u8);
        world.ask(GATEWAY.into(), agreed.request());
        world.device.admit_keys(number, DEVICE, agreed.parameters().clone()).unwrap();
    };
    let ask = |world: &mut World| {
        let answer =
            world.device.request_to(DEVICE, Priority::Message, GATEWAY, request("GET, /7"), world.now);
        world.carry();
        let event = world.device.poll_event();
        world.device.abandon(answer, world.now);
        matches!(event, Some(Event::Response { response, .. }) if response.code == Code::CONTENT)
    };
    // By what was sealed: a request and its response have a number each.
    agree(&mut world, 1);
    let served = (0..10).take_while(|_| ask(&mut world)).count();
    assert_eq!(served, 6);
    assert!(world.gateway.parameters(FIRST).is_none());
    // By age.
    agree(&mut world, 2);
    assert!(ask(&mut world));
    let used = world.gateway.key_use(FIRST + 1, world.now + Duration::from_secs(60));
    assert_eq!(used, Some(Use { sealed: 1, forged: 0, age: Duration::from_secs(60) }));
    world.now = world.now + Duration::from_secs(3_600);
    assert!(!ask(&mut world));
    // By forgeries, which name the id that is on the link.
    agree(&mut world, 3);
    let kid = world.gateway.parameters(FIRST + 2).unwrap().recipient_id.clone();
    for id in 0..3 {
        let mut forged =
            Message { code: Code::POST, ..Message::empty(Kind::NonConfirmable, MessageId(9_000 + id)) };
        forged.options.push(OptionNumber::OSCORE, [&[0x09, 0x00], kid.as_slice()].concat());
        forged.payload = vec![0; 20].into();
        world.gateway.handle(OTHER, &forged.encode(), world.now);
    }
    assert!(!ask(&mut world));
    assert!(world.gateway.parameters(FIRST + 2).is_none());
    assert_eq!(world.spent, [FIRST, FIRST + 1, FIRST + 2]);
    agree(&mut world, 4);
    assert!(ask(&mut world));
}

#[test]
fn a_run_that_does_not_go_on_is_forgotten_in_time() {
    let mut world = World::new(|_| false);
    let _agreed = world.begin(1);
    let due = world.gateway.deadline().unwrap();
    world.gateway.advance(due);
    let counters = world.gateway.edhoc_counters().unwrap();
    assert_eq!((counters.begun, counters.established), (1, 0));
    let last = std::iter::from_fn(|| {
        let due = world.gateway.deadline()?;
        world.gateway.advance(due);
        Some(due)
    });
    assert!(last.take(100).count() < 100);
    assert_eq!(world.gateway.edhoc_counters().unwrap().given_up, 1);
    assert_eq!((world.gateway.deadline(), world.gateway.peers()), (None, 0));
}

#[test]
fn without_edhoc_its_resource_is_one_like_others_and_message_3_is_not_understood() {
    let mut gateway = Endpoint::new(config(), [2; 32]);
    gateway.admit_credential(DEVICE, identity(7).credential().clone());
    assert_eq!(gateway.edhoc_counters(), None);
    let c_i = ConnectionId::new(&[0x0e]).unwrap();
    let initiator = Initiator::new(identity(7), identity(2).credential().clone(), &c_i, [1; 32]);
    let request = initiator.request();
    let (code, options, payload) = (request.method, request.options, request.payload);
    let message = Message { code, options, payload, ..Message::empty(Kind::Confirmable, MessageId(1)) };
    gateway.handle(OTHER, &message.encode(), Instant::START + Duration::from_secs(1));
    assert!(matches!(gateway.poll_event(), Some(Event::Request { .. })));
}

fn identity(seed: u8) -> Identity {
    let pair = KeyPair::generate([seed; 32]);
    let credential = Credential::new("", &[seed], pair.public()).unwrap();
    Identity::new(pair, credential).unwrap()
}
