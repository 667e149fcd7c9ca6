//! Devices that agree on their keys (EDHOC) at a gateway, in virtual time: what they have agreed on is served, outlasts a restart, ends
//! with what it was agreed on by, and is told to nobody.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeSet;

use lowband::coap::{Code, Message, Observe, OptionNumber, Priority, Request};
use lowband::device::{
    Credentials, Device, Half, History, KeyNumber, Keys, Kind, Limits, NewDevice, Security,
};
use lowband::endpoint::Endpoint;
use lowband::gateway::DeviceChange;
use lowband::security::edhoc::{Agreed, ConnectionId, Identity, Initiator, KeyPair, Reply};
use lowband::security::oscore::is_protected;
use support::device::{GATEWAY, SELF, World, buoy, gateways_identity};
use support::gateway::news;

const SYNC: &str = "GET, /_matrix/client/v3/sync";
const SYNC_CALL: &str = "GET /_matrix/client/v3/sync Bearer syt_first";
/// The number of the first keys that are agreed on.
const FIRST: u64 = 1 << 63;

fn mast() -> NewDevice {
    NewDevice { kind: Kind::Edhoc(None), ..buoy() }
}

/// What the device has of the keys that it was given last: its own and the gateway's.
fn half(world: &World) -> Identity {
    let own = gateways_identity();
    let credentials = Credentials::of(&world.kept(), None, Some(own.credential())).unwrap();
    let read = Credentials::read(&credentials.to_line()).unwrap();
    assert_eq!(Credentials::read(&credentials.to_file()).as_ref(), Ok(&read));
    let Half::Edhoc(half) = read.half else { panic!("another kind") };
    assert_eq!(half.gateway, *own.credential());
    half.identity().unwrap()
}

/// message_1 and message_2; none where there is no answer, or another.
fn run(world: &mut World, seed: u8) -> Option<Box<Agreed>> {
    let own = half(world);
    run_as(world, own, seed)
}

fn run_as(world: &mut World, own: Identity, seed: u8) -> Option<Box<Agreed>> {
    let c_i = ConnectionId::new(&[0x0e]).unwrap();
    let initiator = Initiator::new(own, gateways_identity().credential().clone(), &c_i, [seed; 32]);
    let request = initiator.request();
    let id = world.device.request_to(GATEWAY.into(), Priority::Message, GATEWAY, request, world.now);
    world.settle();
    match initiator.receive(&world.answered(id)).ok()? {
        Reply::Agreed(agreed) => Some(agreed),
        Reply::Again(request) => panic!("{request:?}"),
    }
}

/// The device has keys with the next request.
fn agree(world: &mut World, seed: u8) {
    let agreed = run(world, seed).unwrap();
    take(world, seed, agreed);
}

fn take(world: &mut World, seed: u8, agreed: Box<Agreed>) {
    world.device = Endpoint::new(support::endpoint::config(), [seed; 32]);
    world.device.take_agreed(seed.into(), SELF, agreed).unwrap();
}

fn agreed(device: &Device) -> Vec<(u64, History)> {
    device.agreed.iter().map(|keys| (keys.number.0, keys.history)).collect()
}

/// The device asks in vain: it is told 4.01 without protection, and nothing comes to the homeserver.
fn is_a_stranger(world: &mut World) {
    let id = world.asks(SYNC);
    assert_eq!(world.unprotected.pop(), Some(Code::UNAUTHORIZED));
    assert!(world.answers.is_empty() && world.calls.is_empty());
    world.device.abandon(id, world.now);
}

#[test]
fn device_is_served_with_its_second_message_under_keys_that_it_has_agreed_on() {
    let mut world = World::new(mast());
    agree(&mut world, 1);
    world.is_served(SYNC, SYNC_CALL);
    let sent: Vec<_> = world.wire.iter().filter(|(up, _)| *up).map(|(_, datagram)| datagram).collect();
    let [message_1, combined] = sent.as_slice() else { panic!("{sent:02x?}") };
    let combined = Message::decode(combined).unwrap();
    assert!(is_protected(&combined) && combined.options.get(OptionNumber::EDHOC).is_some());
    assert!(!is_protected(&Message::decode(message_1).unwrap()));
    assert!(!world.was_on_the_link("syt_") && !world.was_on_the_link("sync"));
    assert_eq!(agreed(&world.kept()), [(FIRST, History::Begun)]);
    // Once it is known to have arrived, message_3 stays away.
    world.is_served(SYNC, SYNC_CALL);
    let (_, last) = world.wire.iter().rfind(|(up, _)| *up).unwrap();
    assert!(Message::decode(last).unwrap().options.get(OptionNumber::EDHOC).is_none());
    assert_eq!(world.gateway.counters().edhoc.established, 1);
}

#[test]
fn limits_and_routes_are_those_of_the_device() {
    let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
    let mut world = World::new(NewDevice { limits, ..mast() });
    agree(&mut world, 1);
    let id = world.asks("POST, /_matrix/client/v3/account/password, CF:50, `{}`");
    assert_eq!(world.answered(id).code, Code::FORBIDDEN);
    let id = world.asks(&format!("{SYNC}, Access-Token:\"own\""));
    assert_eq!(world.answered(id).code, Code::UNAUTHORIZED);
    world.is_served(SYNC, SYNC_CALL);
    // Other keys give it no more.
    agree(&mut world, 2);
    let id = world.asks(SYNC);
    assert_eq!(world.answered(id).code, Code::TOO_MANY_REQUESTS);
}

#[test]
fn keys_that_were_agreed_on_go_on_after_a_restart_and_no_nonce_comes_twice() {
    let mut config = support::gateway::durable();
    config.endpoint.plain = false;
    config.endpoint.tell_nonces = true;
    let mut world = World::with(config, mast());
    let mut used = BTreeSet::new();
    let mut check = |world: &mut World| {
        while let Some(nonce) = world.gateway.poll_used() {
            assert!(used.insert(nonce), "a nonce came twice");
        }
    };
    agree(&mut world, 1);
    world.is_served(SYNC, SYNC_CALL);
    check(&mut world);
    for seed in 10..30 {
        world.restart(seed);
        // The first asks for proof that it is fresh (Echo), and is served all the same.
        world.is_served(SYNC, SYNC_CALL);
        world.is_served(SYNC, SYNC_CALL);
        check(&mut world);
    }
    assert_eq!(agreed(&world.kept()), [(FIRST, History::Begun)]);
    assert!(used.len() > 40, "{}", used.len());
    // What it agrees on afterwards has another number.
    agree(&mut world, 2);
    world.is_served(SYNC, SYNC_CALL);
    assert_eq!(agreed(&world.kept()), [(FIRST, History::Begun), (FIRST + 1, History::Begun)]);
    world.restart(40);
    agree(&mut world, 3);
    world.is_served(SYNC, SYNC_CALL);
    assert_eq!(agreed(&world.kept()), [(FIRST + 1, History::Begun), (FIRST + 2, History::Begun)]);
}

#[test]
fn observation_goes_on_after_a_restart_under_the_same_keys() {
    let mut world = World::new(mast());
    agree(&mut world, 1);
    let register = Request { observe: Some(Observe::Register), ..support::endpoint::request(SYNC) };
    world.asks_for(register);
    let id = world.called(SYNC_CALL);
    world.says(id, 200, &news("s1"));
    assert!(world.answers.pop_front().unwrap().1.code.is_success());
    world.called(SYNC_CALL);
    world.restart(9);
    let id = world.called(SYNC_CALL);
    world.says(id, 200, &news("s2"));
    let (_, told, is_notification) = world.answers.pop_front().expect("it is told");
    assert!(told.code.is_success() && is_notification);
}

#[test]
fn keys_of_which_it_is_not_known_what_for_are_not_used_again_and_the_device_agrees_on_others() {
    let mut world = World::new(mast());
    agree(&mut world, 1);
    world.is_served(SYNC, SYNC_CALL);
    world.stored.clear();
    world.restart(9);
    assert_eq!(world.changes.last(), Some(&DeviceChange::Lost(KeyNumber(FIRST))));
    assert_eq!(agreed(&world.kept()), []);
    is_a_stranger(&mut world);
    agree(&mut world, 2);
    world.is_served(SYNC, SYNC_CALL);
    assert_eq!(agreed(&world.kept()), [(FIRST + 1, History::Begun)], "a number is given once");
}

#[test]
fn keys_that_could_not_be_written_are_used_until_a_restart_and_not_afterwards() {
    let mut world = World::new(mast());
    world.writes = false;
    agree(&mut world, 1);
    world.is_served(SYNC, SYNC_CALL);
    world.is_served(SYNC, SYNC_CALL);
    assert_eq!(agreed(&world.kept()), []);
    world.restart(9);
    is_a_stranger(&mut world);
    assert!(world.stored.keys().all(|key| !lowband::gateway::is_of_keys(key)), "its state is forgotten");
    world.writes = true;
    agree(&mut world, 2);
    world.is_served(SYNC, SYNC_CALL);
    assert_eq!(agreed(&world.kept()), [(FIRST + 1, History::Begun)]);
}

#[test]
fn revoking_stops_it_at_once_and_it_agrees_on_nothing_more() {
    let mut world = World::new(mast());
    let own = half(&world);
    agree(&mut world, 1);
    world.is_served(SYNC, SYNC_CALL);
    let before = run_as(&mut world, own.clone(), 2).unwrap();
    world.revoke();
    assert!(world.kept().agreed.is_empty() && world.kept().keys.is_none());
    is_a_stranger(&mut world);
    // Neither with a run that has begun, nor with another, nor after a restart.
    take(&mut world, 2, before);
    let id = world.asks(SYNC);
    assert_eq!(world.unprotected.pop(), Some(Code::BAD_REQUEST));
    world.device.abandon(id, world.now);
    for seed in [3, 4] {
        let agreed = run_as(&mut world, own.clone(), seed);
        if let Some(agreed) = agreed {
            take(&mut world, seed, agreed);
            let id = world.asks(SYNC);
            assert_eq!(world.unprotected.pop(), Some(Code::BAD_REQUEST));
            world.device.abandon(id, world.now);
        }
        assert!(world.calls.is_empty());
        world.restart(seed);
    }
    assert!(world.stored.keys().all(|key| !lowband::gateway::is_of_keys(key)));
}

#[test]
fn new_keys_of_its_own_end_the_old_and_what_was_agreed_on_by_them_once_they_are_used() {
    let mut world = World::new(mast());
    let old = half(&world);
    agree(&mut world, 1);
    world.is_served(SYNC, SYNC_CALL);
    world.rotate(9);
    world.is_served(SYNC, SYNC_CALL);
    // It may still agree by the old.
    let agreement = run_as(&mut world, old.clone(), 2).unwrap();
    take(&mut world, 2, agreement);
    world.is_served(SYNC, SYNC_CALL);
    assert_eq!(agreed(&world.kept()).len(), 2);
    let previous = std::mem::replace(&mut world.device, Endpoint::new(support::endpoint::config(), [0; 32]));
    agree(&mut world, 3);
    world.is_served(SYNC, SYNC_CALL);
    assert_eq!(agreed(&world.kept()), [(FIRST + 2, History::Begun)]);
    assert!(world.kept().next.is_none());
    let newest = std::mem::replace(&mut world.device, previous);
    is_a_stranger(&mut world);
    let agreement = run_as(&mut world, old, 4).unwrap();
    take(&mut world, 4, agreement);
    let id = world.asks(SYNC);
    assert_eq!(world.unprotected.pop(), Some(Code::BAD_REQUEST));
    world.device.abandon(id, world.now);
    world.device = newest;
    world.is_served(SYNC, SYNC_CALL);
}

#[test]
fn what_is_exported_of_a_device_that_has_made_its_key_lacks_only_that() {
    let pair = KeyPair::generate([5; 32]);
    let mut world = World::new(NewDevice { kind: Kind::Edhoc(Some(pair.public())), ..buoy() });
    let own = gateways_identity();
    let credentials = Credentials::of(&world.kept(), None, Some(own.credential())).unwrap();
    let Half::Edhoc(half) = &credentials.half else { panic!("another kind") };
    assert!(half.private.is_none() && half.identity().is_none());
    let private: String = pair.private().iter().map(|byte| format!("{byte:02x}")).collect();
    let file = credentials.to_file().replace("[edhoc]", &format!("[edhoc]\nprivate-key = \"{private}\""));
    let Half::Edhoc(half) = Credentials::read(&file).unwrap().half else { panic!("another kind") };
    let agreement = run_as(&mut world, half.identity().unwrap(), 1).unwrap();
    take(&mut world, 1, agreement);
    world.is_served(SYNC, SYNC_CALL);
    let Some(Keys { security: Security::Edhoc(kept), .. }) = world.kept().keys else {
        panic!("another kind")
    };
    assert!(kept.private.is_none());
}
