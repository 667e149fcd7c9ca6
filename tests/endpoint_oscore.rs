//! Endpoints whose messages are protected by OSCORE (RFC 8613), over a link that loses, repeats and keeps what it likes, and through
//! restarts: what is asked is answered, what is observed arrives, and no nonce is used twice.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, ObservationId, OptionNumber, Priority, Response};
use lowband::endpoint::{Address, Association, Config, Endpoint, Event, Memory, MemoryKey, RequestKey};
use lowband::security::oscore::{Parameters, Secret, is_protected};
use support::endpoint::{OTHER, PEER, config, request, response};
use support::notation;

const DEVICE: Association = Association::Device(7);
/// The gateway, as the device sees it.
const GATEWAY: Address = PEER;

fn parameters() -> Parameters {
    Parameters::new(Secret::from([7; 16]), b"", b"\x01")
}

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

/// A gateway and a device with a link between them, which does with each datagram as it is told.
struct World {
    gateway: Endpoint,
    device: Endpoint,
    /// Where the device is, as the gateway sees it.
    place: Address,
    kept: BTreeMap<MemoryKey, Memory>,
    nonces: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// What was on the link, the device's and the gateway's.
    seen: [Vec<Vec<u8>>; 2],
    /// What the gateway was asked, and answers at once.
    asked: Vec<String>,
    observation: Option<ObservationId>,
    /// What it has not answered yet.
    late: Option<RequestKey>,
    /// What became of the device's requests.
    came: VecDeque<Event>,
    delivered: u32,
    undelivered: u32,
    lose: fn(bool, usize) -> bool,
    /// Whether nobody has to show where it is.
    trusted: bool,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut device = Endpoint::new(Config { tell_nonces: true, ..config() }, [1; 32]);
        device.admit_keys(1, DEVICE, parameters()).unwrap();
        Self {
            gateway: gateway(2, true),
            device,
            place: OTHER,
            kept: BTreeMap::new(),
            nonces: BTreeSet::new(),
            seen: Default::default(),
            asked: Vec::new(),
            observation: None,
            late: None,
            came: VecDeque::new(),
            delivered: 0,
            undelivered: 0,
            lose: |_, _| false,
            trusted: true,
            now: at(0),
        }
    }

    /// One where the device has to show where it is.
    fn wary() -> Self {
        Self { gateway: gateway(2, false), trusted: false, ..Self::new() }
    }

    /// Somebody plays back to the gateway what was heard; returns what it says to whoever is there, once what it says to the device has
    /// come there.
    fn plays_back(&mut self, from: Address, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.gateway.handle(from, datagram, self.now);
        self.keep();
        let said: Vec<_> = std::iter::from_fn(|| self.gateway.poll_datagram()).collect();
        let (there, home): (Vec<_>, Vec<_>) =
            said.into_iter().partition(|(to, _)| *to == from && from != self.place);
        for (to, datagram) in home {
            assert_eq!(to, self.place, "nobody else is told anything");
            self.device.handle(GATEWAY, &datagram, self.now);
        }
        self.settle();
        there.into_iter().map(|(_, datagram)| datagram).collect()
    }

    fn ask(&mut self, what: &str) {
        self.device.request_to(DEVICE, Priority::Message, GATEWAY, request(what), self.now);
        self.run(self.now);
    }

    fn run(&mut self, until: Instant) {
        let mut rounds = 0;
        loop {
            self.settle();
            let due = [self.gateway.deadline(), self.device.deadline()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            rounds += 1;
            assert!(rounds < 10_000, "there is no end to it");
            self.now = self.now.max(due);
            self.gateway.advance(self.now);
            self.device.advance(self.now);
        }
        self.now = self.now.max(until);
    }

    /// Carries what waits, until nothing does.
    fn settle(&mut self) {
        loop {
            self.keep();
            let mut idle = true;
            while let Some(event) = self.gateway.poll_event() {
                idle = false;
                self.serve(event);
            }
            self.keep();
            self.came.extend(std::iter::from_fn(|| self.device.poll_event()));
            while let Some((_, datagram)) = self.device.poll_datagram() {
                idle = false;
                self.seen[0].push(datagram.clone());
                if !(self.lose)(true, self.seen[0].len()) {
                    self.gateway.handle(self.place, &datagram, self.now);
                }
            }
            while let Some((to, datagram)) = self.gateway.poll_datagram() {
                idle = false;
                self.seen[1].push(datagram.clone());
                if to == self.place && !(self.lose)(false, self.seen[1].len()) {
                    self.device.handle(GATEWAY, &datagram, self.now);
                }
            }
            if idle {
                return;
            }
        }
    }

    /// What is to be kept is on the disk before anything leaves; and no nonce is used twice.
    fn keep(&mut self) {
        while let Some((key, memory)) = self.gateway.poll_memory() {
            match memory {
                Some(memory) => drop(self.kept.insert(key, memory)),
                None => drop(self.kept.remove(&key)),
            }
        }
        for endpoint in [&mut self.gateway, &mut self.device] {
            while let Some(used) = endpoint.poll_used() {
                assert!(self.nonces.insert((used.key.to_vec(), used.nonce)), "a nonce was used twice");
            }
        }
    }

    fn serve(&mut self, event: Event) {
        match event {
            Event::Request { key, association, request, .. } => {
                if association != DEVICE {
                    return self.gateway.respond(key, response("4.01"), self.now);
                }
                let path: Vec<_> =
                    request.options.all(OptionNumber::URI_PATH).map(String::from_utf8_lossy).collect();
                self.asked.push(path.join("/"));
                match request.observe {
                    Some(_) => {
                        self.observation =
                            self.gateway.accept_observation(key, response("2.05, 0..10"), self.now);
                    }
                    None if path == ["large"] => {
                        let payload = vec![5; 3_000].into();
                        self.gateway.respond(
                            key,
                            Response { payload, ..Response::new(Code::CONTENT) },
                            self.now,
                        );
                    }
                    None if path == ["late"] => self.late = Some(key),
                    None => self.gateway.respond(key, response("2.05, 0..10"), self.now),
                }
            }
            Event::Delivered(_) => self.delivered += 1,
            Event::Undelivered(_) => self.undelivered += 1,
            _ => {}
        }
    }

    /// The gateway is killed, and comes again with what it has kept.
    fn restart(&mut self, seed: u8) {
        self.gateway = gateway(seed, self.trusted);
        self.gateway.recall(self.kept.clone(), self.now);
        self.observation = self.gateway.observations().next();
    }

    fn answers(&self) -> usize {
        self.came.iter().filter(|event| matches!(event, Event::Response { .. })).count()
    }
}

fn gateway(seed: u8, trusted: bool) -> Endpoint {
    let config = Config { durable: true, tell_nonces: true, trusted, ..config() };
    let mut gateway = Endpoint::new(config, [seed; 32]);
    gateway.admit_keys(1, DEVICE, parameters().mirrored()).unwrap();
    gateway
}

#[test]
fn a_request_and_its_answer_are_protected_and_cost_few_bytes() {
    let mut world = World::new();
    world.ask("GET, /7");
    assert_eq!(world.asked, ["7"]);
    assert_eq!(world.answers(), 1);
    let [up, down] = &world.seen;
    for datagram in up.iter().chain(down) {
        let message = Message::decode(datagram).unwrap();
        assert!(is_protected(&message));
        assert_eq!(message.options.get(OptionNumber::URI_PATH), None);
    }
    // In clear: 4 bytes, the token, and the path; and 4 bytes, the token, and a payload of 10.
    let token = Message::decode(&up[0]).unwrap().token.as_slice().len();
    assert_eq!(up[0].len(), 4 + token + 2 + 13);
    assert_eq!(down[0].len(), 4 + token + 1 + 10 + 11);
}

#[test]
fn what_was_heard_on_the_link_and_is_sent_again_changes_nothing() {
    let mut world = World::new();
    world.ask("PUT, /9, 0..3");
    world.run(at(400_000));
    let heard = world.seen[0].clone();
    let answered = world.seen[1].len();
    // From where it came, and from elsewhere; whole, and with each of its bits turned.
    for datagram in &heard {
        world.gateway.handle(world.place, datagram, world.now);
        world.gateway.handle(PEER, datagram, world.now);
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            world.gateway.handle(world.place, &changed, world.now);
        }
    }
    world.settle();
    assert_eq!(world.asked, ["9"]);
    for told in &world.seen[1][answered..] {
        let told = Message::decode(told).unwrap();
        assert!(told.is_empty() || told.code.class() == 4, "{told:?}");
    }
    // The device is still where it was, and is served.
    world.ask("GET, /7");
    assert_eq!(world.asked, ["9", "7"]);
    assert_eq!(world.answers(), 2);
}

#[test]
fn a_lost_answer_is_had_by_a_repeat_and_the_request_is_done_once() {
    let mut world = World::new();
    world.lose = |up, number| !up && number == 1;
    world.ask("PUT, /9, 0..3");
    world.run(at(60_000));
    assert_eq!((world.asked.len(), world.answers()), (1, 1));
    assert_eq!(
        world.seen[1][0], world.seen[1][1],
        "the same bytes, not another message under the same nonce"
    );
}

#[test]
fn a_body_in_blocks_crosses_with_each_block_protected() {
    let mut world = World::new();
    world.ask("GET, /large");
    world.run(at(60_000));
    let Some(Event::Response { response, .. }) = world.came.pop_front() else { panic!("{:?}", world.came) };
    assert_eq!(response.payload.len(), 3_000);
    assert_eq!(world.asked, ["large"]);
}

#[test]
fn a_device_with_another_address_is_told_there_what_it_observes() {
    let mut world = World::new();
    world.ask("GET, /7, Observe:0");
    world.run(at(10_000));
    assert_eq!((world.answers(), world.delivered), (1, 1));
    // It moves, and says something.
    world.place = Address { remote: "203.0.113.9:40000".parse().unwrap(), ..OTHER };
    world.ask("GET, /8");
    world.run(at(20_000));
    let observation = world.observation.unwrap();
    world.gateway.notify(observation, response("2.05, 0..20"), Priority::Notification, world.now);
    world.run(at(30_000));
    assert_eq!((world.answers(), world.delivered), (3, 2));
    assert_eq!(world.gateway.counters().moved, 1);
    // An older datagram of it, kept back on the way until now, does not bring it back.
    let late = world.seen[0][0].clone();
    world.gateway.handle(OTHER, &late, world.now);
    world.gateway.notify(observation, response("2.05, 0..30"), Priority::Notification, world.now);
    world.run(at(40_000));
    assert_eq!((world.answers(), world.delivered), (4, 3));
}

#[test]
fn after_a_restart_a_device_proves_that_it_is_fresh_and_is_told_the_rest() {
    let mut world = World::new();
    world.ask("GET, /7, Observe:0");
    world.run(at(10_000));
    let heard = world.seen[0][0].clone();
    world.restart(3);
    // What was heard before is not served again: whoever sends it is asked for an Echo that only the device can give.
    world.gateway.handle(world.place, &heard, world.now);
    world.settle();
    assert_eq!(world.asked, ["7"]);
    world.ask("GET, /8");
    world.run(at(20_000));
    assert_eq!(world.asked, ["7", "8"]);
    assert!(world.gateway.counters().challenges >= 1);
    let observation = world.observation.expect("it goes on");
    world.gateway.notify(observation, response("2.05, 0..20"), Priority::Notification, world.now);
    world.run(at(30_000));
    assert_eq!(world.answers(), 3);
}

/// Message IDs are not protected: somebody has given a request another, and the device sends it as it was, after a restart.
#[test]
fn after_a_restart_a_request_that_was_done_under_another_message_id_is_not_done_again() {
    let mut world = World::new();
    world.lose = |up, _| up;
    world.ask("PUT, /7");
    let mut changed = Message::decode(&world.seen[0][0]).unwrap();
    changed.id.0 ^= 0x0200;
    world.gateway.handle(world.place, &changed.encode(), world.now);
    world.settle();
    assert_eq!(world.asked, ["7"]);
    world.restart(3);
    world.lose = |_, _| false;
    world.run(at(300_000));
    assert_eq!(world.asked, ["7"]);
    let failed = world.came.iter().any(|event| matches!(event, Event::Failed { .. }));
    assert!(failed, "it is not known what became of it: {:?}", world.came);
}

#[test]
fn in_a_hundred_restarts_at_any_moment_no_nonce_is_used_twice_and_nobody_is_locked_out() {
    let mut world = World::new();
    world.lose = |up, number| (number * 7 + usize::from(up)) % 5 == 0;
    for round in 0..100_u8 {
        world.device.request_to(DEVICE, Priority::Message, GATEWAY, request("GET, /7"), world.now);
        world.run(world.now + Duration::from_millis(u64::from(round) * 37));
        world.restart(round);
        world.run(world.now + Duration::from_secs(100));
    }
    // All but those that were lost five times over.
    assert!(world.answers() >= 95, "{}", world.answers());
}

#[test]
fn revoked_keys_open_nothing_and_what_was_observed_with_them_ends() {
    let mut world = World::new();
    world.ask("GET, /7, Observe:0");
    world.run(at(10_000));
    world.gateway.revoke_keys(1, world.now);
    world.settle();
    assert_eq!(world.gateway.observations().count(), 0);
    world.ask("GET, /8");
    world.run(at(200_000));
    assert_eq!(world.asked, ["7"]);
    assert!(world.kept.keys().all(|key| !matches!(key, MemoryKey::Context(_))));
}

#[test]
fn a_response_that_nobody_vouches_for_ends_no_request() {
    let mut world = World::new();
    world.lose = |up, _| up;
    world.ask("GET, /7");
    let asked = Message::decode(&world.seen[0][0]).unwrap();
    let forged = Message {
        kind: Kind::Acknowledgement,
        code: Code::NOT_FOUND,
        options: Default::default(),
        payload: Default::default(),
        ..asked
    };
    world.device.handle(GATEWAY, &forged.encode(), world.now);
    world.lose = |_, _| false;
    world.run(at(60_000));
    // It is told, as what it is, and nothing else comes of it.
    let told = world.came.pop_front();
    assert!(matches!(told, Some(Event::Unprotected { response, .. }) if response.code == Code::NOT_FOUND));
    let Some(Event::Response { response, .. }) = world.came.pop_front() else { panic!("{:?}", world.came) };
    assert_eq!(response.code, Code::CONTENT);
}

/// What is said under OSCORE is not ended by one forged message below it.
#[test]
fn an_observation_ends_by_two_resets_in_a_row_and_not_by_one() {
    let mut world = World::new();
    world.ask("GET, /7, Observe:0");
    world.run(at(10_000));
    let observation = world.observation.unwrap();
    let reset = |world: &mut World| {
        world.lose = |up, _| !up;
        world.gateway.notify(observation, response("2.05, 0..20"), Priority::Notification, world.now);
        world.settle();
        let sent = Message::decode(world.seen[1].last().unwrap()).unwrap();
        world.gateway.handle(world.place, &Message::empty(Kind::Reset, sent.id).encode(), world.now);
        world.settle();
        world.lose = |_, _| false;
        world.gateway.observations().count()
    };
    assert_eq!(reset(&mut world), 1, "it may be forged");
    assert_eq!(world.undelivered, 1, "it is for the user to say again");
    world.gateway.notify(observation, response("2.05, 0..30"), Priority::Notification, world.now);
    world.run(at(20_000));
    assert_eq!((world.answers(), world.delivered), (2, 2));
    assert_eq!(reset(&mut world), 1, "one was acknowledged between");
    assert_eq!(reset(&mut world), 0, "the device says it twice");
}

/// A datagram that comes twice, the second time when its answer has come already.
#[test]
fn an_answer_that_comes_again_when_nobody_waits_any_more_is_acknowledged_again() {
    let mut world = World::new();
    world.ask("GET, /late");
    world.run(at(30_000));
    let key = world.late.take().unwrap();
    world.gateway.respond(key, response("2.05, 0..10"), world.now);
    world.settle();
    let again = world.seen[1].last().unwrap().clone();
    assert_eq!(Message::decode(&again).unwrap().kind, Kind::Confirmable);
    assert_eq!(world.answers(), 1);
    world.device.handle(GATEWAY, &again, world.now);
    let (_, said) = world.device.poll_datagram().unwrap();
    assert_eq!(Message::decode(&said).unwrap().kind, Kind::Acknowledgement);
}

/// An address from which others send.
fn elsewhere(number: u8) -> Address {
    Address { remote: ([203, 0, 113, number], 5683).into(), ..OTHER }
}

#[test]
fn a_device_shows_once_where_it_is_and_what_it_observes_stays_there() {
    let mut world = World::wary();
    world.ask("GET, /7, Observe:0");
    world.run(at(10_000));
    assert_eq!((world.answers(), world.delivered), (1, 1));
    assert_eq!(world.gateway.counters().challenges, 1);
    // 4 bytes, a token of 4, and an Echo of 10, under protection.
    assert_eq!(world.seen[1][0].len(), 4 + 4 + 10 + 11);
    // What it says is taken away, and sent in the name of another: that moves it nowhere.
    world.lose = |up, _| up;
    world.ask("GET, /8");
    let captured = world.seen[0].last().unwrap().clone();
    let told = world.plays_back(elsewhere(1), &captured);
    assert_eq!(told.len(), 1);
    assert!(told.concat().len() <= 3 * captured.len());
    // Neither does it when it is sent again; and nobody is told more than was asked.
    for _ in 0..10 {
        let told = world.plays_back(elsewhere(1), &captured);
        assert!(told.concat().len() <= 3 * captured.len());
    }
    world.lose = |_, _| false;
    let observation = world.observation.unwrap();
    world.gateway.notify(observation, response("2.05, 0..20"), Priority::Notification, world.now);
    world.settle();
    assert_eq!((world.gateway.counters().moved, world.delivered), (0, 2));
    // The device repeats it, and is served after all.
    world.run(at(60_000));
    assert_eq!(world.asked, ["7", "8"]);
    assert_eq!(world.answers(), 3);
}

/// Who is at a host with others does not have their notifications sent there.
#[test]
fn a_device_is_not_moved_to_where_somebody_else_has_shown_to_be() {
    let mut world = World::wary();
    world.ask("GET, /7, Observe:0");
    world.run(at(10_000));
    let there = elsewhere(1);
    let mut asked = notation::message("CON [MID=5, TOK=0x01], GET, /9, Observe:0");
    let told = world.plays_back(there, &asked.encode());
    let challenge = Message::decode(&told[0]).unwrap();
    assert_eq!(challenge.code, Code::UNAUTHORIZED);
    asked.id.0 += 1;
    asked.options.push(OptionNumber::ECHO, challenge.options.get(OptionNumber::ECHO).unwrap().to_vec());
    world.plays_back(there, &asked.encode());
    assert_eq!(world.gateway.counters().verified, 2);
    world.lose = |up, _| up;
    world.ask("GET, /8");
    world.lose = |_, _| false;
    let captured = world.seen[0].last().unwrap().clone();
    assert!(!world.plays_back(there, &captured).is_empty());
    assert_eq!((world.gateway.counters().moved, world.asked.contains(&"8".to_owned())), (0, false));
}

#[test]
fn a_device_that_observes_shows_that_it_is_elsewhere_before_it_is_told_there() {
    let mut world = World::wary();
    world.ask("GET, /7, Observe:0");
    world.run(at(10_000));
    world.place = elsewhere(2);
    // The first challenge is lost.
    world.lose = |up, number| !up && number == 4;
    world.ask("GET, /8");
    world.run(at(60_000));
    assert_eq!((world.answers(), world.gateway.counters().moved), (2, 1));
    let observation = world.observation.unwrap();
    world.gateway.notify(observation, response("2.05, 0..20"), Priority::Notification, world.now);
    world.run(at(70_000));
    assert_eq!((world.answers(), world.delivered), (3, 2));
    // At another port of the same host it is not asked again.
    let challenges = world.gateway.counters().challenges;
    world.place = Address { remote: ([203, 0, 113, 2], 7).into(), ..OTHER };
    world.ask("GET, /9");
    world.run(at(80_000));
    assert_eq!((world.answers(), world.gateway.counters().challenges), (4, challenges));
}

#[test]
fn a_device_that_observes_nothing_sends_from_anywhere_without_being_asked() {
    let mut world = World::wary();
    for number in 0..5 {
        world.place = elsewhere(number);
        world.ask("PUT, /9, 0..40");
        world.run(world.now + Duration::from_secs(10));
    }
    assert_eq!((world.answers(), world.gateway.counters().challenges), (5, 0));
}

#[test]
fn conversations_that_are_played_back_in_any_order_from_anywhere_change_nothing() {
    for restarts in [false, true] {
        let mut world = World::wary();
        world.ask("GET, /7, Observe:0");
        world.run(at(10_000));
        for what in ["PUT, /9, 0..40", "GET, /large", "POST, /10, 0..40"] {
            world.ask(what);
            world.run(world.now + Duration::from_secs(60));
        }
        let (asked, answers) = (world.asked.clone(), world.answers());
        let observation = world.observation.unwrap();
        world.gateway.notify(observation, response("2.05, 0..20"), Priority::Notification, world.now);
        world.run(world.now + Duration::from_secs(60));
        let (heard, said) = (world.seen[0].clone(), world.seen[1].clone());
        if restarts {
            world.restart(3);
            world.run(world.now + Duration::from_secs(600));
        }
        for stride in [1, 3, 7, heard.len() - 1] {
            for index in 0..heard.len() {
                let datagram = &heard[index * stride % heard.len()];
                for from in [elsewhere(9), elsewhere(index as u8), world.place] {
                    let told = world.plays_back(from, datagram).concat();
                    assert!(told.len() <= 3 * datagram.len(), "{} for {}", told.len(), datagram.len());
                }
                let back = &said[index * stride % said.len()];
                world.device.handle(GATEWAY, back, world.now);
                // And each to the one who said it.
                world.gateway.handle(world.place, back, world.now);
                world.device.handle(GATEWAY, datagram, world.now);
                world.settle();
            }
        }
        assert_eq!(world.asked, asked);
        assert_eq!(world.answers(), answers + 1, "the notification");
        assert_eq!(world.gateway.counters().moved, 0);
        // All goes on where it was.
        world.ask("GET, /8");
        world.run(world.now + Duration::from_secs(60));
        let observation = world.observation.expect("it goes on");
        world.gateway.notify(observation, response("2.05, 0..30"), Priority::Notification, world.now);
        world.run(world.now + Duration::from_secs(60));
        assert_eq!(world.asked.len(), asked.len() + 1);
        assert_eq!(world.answers(), answers + 3, "restarts: {restarts}");
    }
}
