//! Devices at a gateway, in virtual time: each limit, the tokens that they never have, new keys, and what a restart and a revocation
//! leave of them.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use lowband::coap::{Code, Instant, Kind, Message, Observe, OptionNumber, Priority, Request};
use lowband::device::{Device, History, Limits, NewDevice, Renewal, Routes, Secret, Tokens};
use lowband::gateway::{DeviceChange, Input};
use lowband::link::{End, Profile};
use lowband::matrix::shape::Shape;
use lowband::security::oscore::{Header, is_protected};
use support::device::{GATEWAY, SELF, World, at, buoy};
use support::endpoint::{OTHER, peer};
use support::gateway::news;

const SYNC: &str = "GET, /_matrix/client/v3/sync";
const SEND: &str = "PUT, /_matrix/client/v3/rooms/!r:hs/send/m.room.message/1, CF:50, `{}`";
const SEND_CALL: &str = "PUT /_matrix/client/v3/rooms/!r:hs/send/m.room.message/1";
const SYNC_CALL: &str = "GET /_matrix/client/v3/sync";
const SOFT: &str = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"expired","soft_logout":true}"#;

fn limited(limits: Limits) -> NewDevice {
    NewDevice { limits, ..buoy() }
}

fn register() -> Request {
    Request { observe: Some(Observe::Register), ..support::endpoint::request(SYNC) }
}

/// A device that observes, and the poll that waits for its news.
fn observing(device: NewDevice) -> (World, lowband::gateway::FetchId) {
    let mut world = World::new(device);
    let poll = begin_to_observe(&mut world);
    (world, poll)
}

fn begin_to_observe(world: &mut World) -> lowband::gateway::FetchId {
    world.asks_for(register());
    let id = world.called(&format!("{SYNC_CALL} Bearer syt_first"));
    world.says(id, 200, &news("s1"));
    let (_, response, notification) = world.answers.pop_front().unwrap();
    assert!(response.code.is_success() && notification);
    world.called(&format!("{SYNC_CALL} Bearer syt_first"))
}

#[test]
fn tokens_are_added_by_the_gateway_and_never_on_the_link() {
    let mut world = World::new(buoy());
    let id = world.asks(SEND);
    let call = world.called(&format!("{SEND_CALL} Bearer syt_first"));
    world.says(call, 200, r#"{"event_id":"$e"}"#);
    assert_eq!(world.answered(id).code, Code::CHANGED);
    assert!(world.is_all_protected() && !world.was_on_the_link("syt_"));
    // What is in the state file tells nobody's token either.
    let (world, _) = observing(buoy());
    let holds = |bytes: &[u8]| bytes.windows(4).any(|window| window == b"syt_");
    assert!(!world.stored.iter().any(|(key, value)| holds(key) || holds(value)));
    assert!(world.is_all_protected() && !world.was_on_the_link("syt_"));
}

#[test]
fn token_of_its_own_is_refused_unless_it_is_allowed() {
    let mut world = World::new(buoy());
    let id = world.asks(&format!("{SYNC}, Access-Token:\"own\""));
    assert_eq!(world.answered(id).code, Code::UNAUTHORIZED);
    assert!(world.calls.is_empty());
    let id = world.asks(&format!("{SYNC}, ?access_token=own"));
    assert_eq!(world.answered(id).code, Code::UNAUTHORIZED);
    assert!(world.calls.is_empty());
    assert_eq!(world.gateway.counters().device_refusals.token, 2);
    // Nor is it remembered.
    world.asks(SYNC);
    world.called(&format!("{SYNC_CALL} Bearer syt_first"));

    let mut world = World::new(NewDevice { allow_token: true, ..buoy() });
    world.is_served(&format!("{SYNC}, Access-Token:\"own\""), &format!("{SYNC_CALL} Bearer own"));
    world.is_served(SYNC, &format!("{SYNC_CALL} Bearer own"));
    // Once it is not allowed any more, it is forgotten.
    let device = Device { allow_token: false, ..world.kept() };
    world.put(device);
    world.asks(SYNC);
    world.called(&format!("{SYNC_CALL} Bearer syt_first"));
}

#[test]
fn routes_beyond_its_own_are_forbidden() {
    let mut world = World::new(buoy());
    let id = world.asks("POST, /_matrix/client/v3/account/password, CF:50, `{}`");
    assert_eq!(world.answered(id).code, Code::FORBIDDEN);
    assert!(world.calls.is_empty());
    assert_eq!(world.gateway.counters().device_refusals.route, 1);
    let device = Device { routes: Routes::All, ..world.kept() };
    world.put(device);
    world.asks("POST, /_matrix/client/v3/account/password, CF:50, `{}`");
    world.called("POST /_matrix/client/v3/account/password Bearer syt_first");
}

#[test]
fn body_of_more_than_its_share_is_too_large() {
    let mut world = World::new(limited(Limits { payload: Some(20), ..Limits::default() }));
    let id = world.asks(&SEND.replace("{}", r#"{"body":"more than twenty bytes"}"#));
    assert_eq!(world.answered(id).code, Code::REQUEST_ENTITY_TOO_LARGE);
    world.asks(SEND);
    world.called(&format!("{SEND_CALL} Bearer syt_first"));
    assert_eq!(world.gateway.counters().device_refusals.payload, 1);
}

#[test]
fn requests_in_a_minute_are_limited_and_it_is_told_when_the_next_may_come() {
    let mut world = World::new(limited(Limits { requests_per_minute: Some(2), ..Limits::default() }));
    for _ in 0..2 {
        world.is_served(SYNC, &format!("{SYNC_CALL} Bearer syt_first"));
    }
    let id = world.asks(SYNC);
    let refused = world.answered(id);
    assert_eq!(refused.code, Code::TOO_MANY_REQUESTS);
    assert_eq!(refused.options.get_uint(OptionNumber::MAX_AGE), Some(30));
    assert_eq!(world.gateway.counters().device_refusals.requests, 1);
    world.now = at(30_000);
    world.is_served(SYNC, &format!("{SYNC_CALL} Bearer syt_first"));
    // A restart gives it no more.
    world.restart(9);
    world.calls.clear();
    let id = world.asks(SYNC);
    let refused = world.answered(id);
    assert_eq!(refused.code, Code::TOO_MANY_REQUESTS, "{refused:?}");
}

#[test]
fn airtime_of_a_day_is_limited_on_the_link_that_the_device_is_behind() {
    let mut config = support::gateway::durable();
    config.endpoint.plain = false;
    let hf = Profile::built_in("hf-100").unwrap().terms(End::Gateway);
    config.endpoint.links.insert("hf-100".into(), hf);
    let limits = Limits { airtime_per_day: Some(Duration::from_secs(20)), ..Limits::default() };
    let device = NewDevice { link: Some("hf-100".into()), ..limited(limits) };
    let mut world = World::with(config, device);
    let mut refused = None;
    for _ in 0..20 {
        let id = world.asks(SYNC);
        world.run(world.now + Duration::from_secs(60));
        match world.calls.pop_front() {
            Some((call, _)) => world.says(call, 200, "{}"),
            None => {
                refused = Some(world.answered(id));
                break;
            }
        }
        world.run(world.now + Duration::from_secs(60));
        world.answers.clear();
    }
    let refused = refused.expect("there is no end to its airtime");
    assert_eq!(refused.code, Code::TOO_MANY_REQUESTS);
    let wait = refused.options.get_uint(OptionNumber::MAX_AGE).unwrap();
    assert!((23 * 3600..25 * 3600).contains(&wait), "{wait}");
    assert_eq!(world.gateway.counters().device_refusals.airtime, 1);
}

#[test]
fn observations_are_limited_but_one_of_the_same_events_takes_the_place_of_another() {
    let limits = Limits { observations: Some(1), ..Limits::default() };
    one_observation(observing(limited(limits)).0);
    // What the gateway leaves out of answers makes no difference.
    let mut config = support::gateway::durable();
    config.endpoint.plain = false;
    config.shape = Shape::preset("quiet");
    assert!(config.shape.is_some());
    let mut world = World::with(config, limited(limits));
    begin_to_observe(&mut world);
    one_observation(world);
}

fn one_observation(mut world: World) {
    // The device was started again, and has forgotten.
    world.asks_for(register());
    let call = world.called(&format!("{SYNC_CALL} Bearer syt_first"));
    world.says(call, 200, &news("s2"));
    assert!(world.answers.pop_front().unwrap().1.code.is_success());
    let mut other = register();
    other.options.push(OptionNumber::URI_QUERY, "filter=1");
    world.asks_for(other);
    assert_eq!(world.answers.pop_front().unwrap().1.code, Code::TOO_MANY_REQUESTS);
    assert_eq!(world.gateway.counters().device_refusals.observations, 1);
}

#[test]
fn who_is_no_device_is_told_so_only_where_that_is_waited_for_and_leaves_nothing() {
    let mut world = World::new(buoy());
    let get = |kind| {
        let mut message = Message::empty(kind, lowband::coap::MessageId(7));
        message.code = Code::GET;
        message
    };
    for (datagram, payload) in [
        (get(Kind::Confirmable).encode(), ""),
        ([get(Kind::Confirmable).encode(), b"\xb7_matrix".to_vec()].concat(), "not protected"),
    ] {
        world.gateway.handle(Input::Datagram { address: peer(9), datagram: &datagram }, world.now);
        world.settle();
        let (_, answer) = world.wire.pop().unwrap();
        assert!(answer.len() <= 3 * datagram.len());
        let answer = Message::decode(&answer).unwrap();
        assert_eq!((answer.kind, answer.code), (Kind::Acknowledgement, Code::UNAUTHORIZED));
        assert_eq!(answer.payload, payload);
    }
    let datagram = get(Kind::NonConfirmable).encode();
    world.gateway.handle(Input::Datagram { address: peer(9), datagram: &datagram }, world.now);
    world.settle();
    assert!(world.wire.is_empty());
    let counters = world.gateway.counters();
    assert_eq!((counters.peers, counters.sessions, counters.endpoint.plain_refused), (0, 0, 3));
}

fn renewable() -> NewDevice {
    let tokens = Tokens { refresh: Some(Secret::new("syr_first")), ..Tokens::access("syt_first") };
    NewDevice { tokens: Some(tokens), ..buoy() }
}

#[test]
fn token_that_has_ended_is_renewed_once_and_the_request_made_again() {
    let mut world = World::new(renewable());
    world.writes = false;
    let first = world.asks(SEND);
    world.run(at(3_000));
    let second = world.asks(SYNC);
    world.run(at(6_000));
    let one = world.called(&format!("{SEND_CALL} Bearer syt_first"));
    let two = world.called(&format!("{SYNC_CALL} Bearer syt_first"));
    world.says(one, 401, SOFT);
    let refresh = world.called("POST /_matrix/client/v3/refresh");
    world.says(two, 401, SOFT);
    let third = world.asks(SYNC);
    assert!(world.calls.is_empty(), "one call renews for all");
    world.says(refresh, 200, r#"{"access_token":"syt_second","refresh_token":"syr_second"}"#);
    // Nothing is asked before the new token is in the file.
    assert!(world.calls.is_empty());
    let change = world.changes.pop().unwrap();
    assert!(
        matches!(&change, DeviceChange::Renewed(tokens) if world.gateway.awaits_tokens(&"buoy".parse().unwrap(), tokens))
    );
    world.write(&change);
    world.settle();
    let again = world.called(&format!("{SEND_CALL} Bearer syt_second"));
    world.called(&format!("{SYNC_CALL} Bearer syt_second"));
    world.called(&format!("{SYNC_CALL} Bearer syt_second"));
    world.says(again, 200, "{}");
    assert_eq!(world.answered(first).code, Code::CHANGED);
    let _ = (second, third);
    assert_eq!(world.gateway.counters().renewals, 1);
    assert!(!world.was_on_the_link("syt_") && !world.was_on_the_link("syr_"));
}

#[test]
fn a_second_401_is_the_answer() {
    let mut world = World::new(renewable());
    let id = world.asks(SEND);
    let call = world.called(&format!("{SEND_CALL} Bearer syt_first"));
    world.says(call, 401, SOFT);
    let refresh = world.called("POST /_matrix/client/v3/refresh");
    world.says(refresh, 200, r#"{"access_token":"syt_second"}"#);
    let again = world.called(&format!("{SEND_CALL} Bearer syt_second"));
    world.says(again, 401, SOFT);
    assert_eq!(world.answered(id).code, Code::UNAUTHORIZED);
    assert!(world.calls.is_empty());
}

#[test]
fn token_that_cannot_be_renewed_is_told_and_an_observation_ends_by_it() {
    let (mut world, poll) = observing(renewable());
    let id = world.asks(SEND);
    let call = world.called(&format!("{SEND_CALL} Bearer syt_first"));
    world.says(call, 401, SOFT);
    let refresh = world.called("POST /_matrix/client/v3/refresh");
    world.says(poll, 401, SOFT);
    world.says(refresh, 503, "{}");
    let unavailable = world.answered(id);
    assert_eq!(unavailable.code, Code::SERVICE_UNAVAILABLE);
    assert!(unavailable.options.get_uint(OptionNumber::MAX_AGE).is_some());
    assert_eq!(world.gateway.counters().observations, 1, "it waits");
    // It is asked again, and the answer is no.
    world.run(at(20_000));
    let refresh = world.called("POST /_matrix/client/v3/refresh");
    world.says(refresh, 401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"no"}"#);
    assert_eq!(world.answers.pop_front().unwrap().1.code, Code::UNAUTHORIZED);
    assert_eq!(world.gateway.counters().observations, 0);
    // Until somebody logs it in.
    let id = world.asks(SEND);
    assert_eq!(world.answered(id).code, Code::UNAUTHORIZED);
    let device = Device { tokens: Some(Tokens::access("syt_third")), ..world.kept() };
    world.put(device);
    world.asks(SEND);
    world.called(&format!("{SEND_CALL} Bearer syt_third"));
}

#[test]
fn device_that_is_logged_in_while_its_token_is_renewed_keeps_what_it_was_given() {
    let mut world = World::new(renewable());
    world.asks(SEND);
    let call = world.called(&format!("{SEND_CALL} Bearer syt_first"));
    world.says(call, 401, SOFT);
    let refresh = world.called("POST /_matrix/client/v3/refresh");
    let tokens = Tokens { refresh: Some(Secret::new("syr_third")), ..Tokens::access("syt_third") };
    world.put(Device { tokens: Some(tokens), ..world.kept() });
    assert_eq!(world.abandoned, [refresh]);
    let again = world.called(&format!("{SEND_CALL} Bearer syt_third"));
    world.says(again, 200, "{}");
    // That one ends too, and is asked for; what the first call brings late is not taken for the answer.
    world.asks(SYNC);
    let call = world.called(&format!("{SYNC_CALL} Bearer syt_third"));
    world.says(call, 401, SOFT);
    let second = world.called("POST /_matrix/client/v3/refresh");
    world.says(refresh, 200, r#"{"access_token":"syt_second","refresh_token":"syr_second"}"#);
    world.says(second, 200, r#"{"access_token":"syt_fourth","refresh_token":"syr_fourth"}"#);
    world.called(&format!("{SYNC_CALL} Bearer syt_fourth"));
    assert_eq!(world.kept().tokens.unwrap().refresh, Some(Secret::new("syr_fourth")));
}

#[test]
fn tokens_of_an_authorization_server_are_renewed_there() {
    let renewal =
        Renewal::OAuth { token_endpoint: "https://auth.example/token".into(), client_id: "lowband".into() };
    let tokens = Tokens {
        refresh: Some(Secret::new("syr")),
        expires: Some(at(1_000)),
        renewal,
        ..Tokens::access("mat_first")
    };
    let mut world = World::new(NewDevice { tokens: Some(tokens), ..buoy() });
    // It is known to end, so nothing is asked with it.
    world.asks(SEND);
    let refresh = world.called("POST /token");
    world.says(refresh, 200, r#"{"access_token":"mat_second","expires_in":300}"#);
    world.called(&format!("{SEND_CALL} Bearer mat_second"));
    assert_eq!(world.kept().tokens.unwrap().access.expose(), b"mat_second");
}

#[test]
fn new_keys_take_the_place_of_the_old_when_they_are_first_used_and_nothing_is_lost() {
    let (mut world, poll) = observing(buoy());
    world.rotate(2);
    // The old ones hold on.
    let id = world.asks(SEND);
    let call = world.called(&format!("{SEND_CALL} Bearer syt_first"));
    world.says(call, 200, "{}");
    assert_eq!(world.answered(id).code, Code::CHANGED);
    world.says(poll, 200, &news("s2"));
    assert!(world.answers.pop_front().is_some_and(|(_, response, _)| response.code.is_success()));
    assert!(world.changes.is_empty() && world.kept().next.is_some());
    // Also through a restart, after which both are there.
    world.restart(3);
    world.calls.clear();
    let old = world.half();
    world.take_up_keys(9);
    let id = world.asks(SEND);
    let call = world.calls.iter().find(|(_, request)| request.method() == "PUT").map(|(id, _)| *id).unwrap();
    world.says(call, 200, "{}");
    assert_eq!(world.answered(id).code, Code::CHANGED);
    let used = world.kept();
    assert!(used.next.is_none());
    assert_eq!(world.changes, [DeviceChange::Used(used.keys.unwrap().number)]);
    // From where it was the device observes again, and what came meanwhile is there.
    world.calls.clear();
    world.asks_for(register());
    let call = world.called(&format!("{SYNC_CALL} Bearer syt_first"));
    world.says(call, 200, &news("s3"));
    assert!(world.answers.pop_front().unwrap().1.code.is_success());
    assert_eq!(old.sender_id, world.half().sender_id);
}

#[test]
fn old_keys_are_of_no_use_once_the_new_were_used() {
    let mut world = World::new(buoy());
    world.is_served(SYNC, &format!("{SYNC_CALL} Bearer syt_first"));
    world.rotate(2);
    let fresh = lowband::endpoint::Endpoint::new(support::endpoint::config(), [9; 32]);
    let old = std::mem::replace(&mut world.device, fresh);
    world.device.admit_keys(9, support::device::SELF, world.half()).unwrap();
    world.is_served(SYNC, &format!("{SYNC_CALL} Bearer syt_first"));
    let new = std::mem::replace(&mut world.device, old);
    world.asks(SYNC);
    world.run(at(5_000));
    assert!(world.calls.is_empty() && world.answers.is_empty());
    world.device = new;
    world.is_served(SYNC, &format!("{SYNC_CALL} Bearer syt_first"));
}

#[test]
fn revoked_device_is_stopped_at_once() {
    let (mut world, poll) = observing(renewable());
    let waits = world.asks(SEND);
    let call = world.called(&format!("{SEND_CALL} Bearer syt_first"));
    world.says(call, 401, SOFT);
    let refresh = world.called("POST /_matrix/client/v3/refresh");
    let under_way = world.asks(SEND);
    let before = world.wire.len();
    world.revoke();
    // What was asked for it is given up, nothing goes to it, and nothing is kept of it.
    assert!(world.abandoned.contains(&poll) && world.abandoned.contains(&refresh));
    world.says(poll, 200, &news("s2"));
    world.says(refresh, 200, r#"{"access_token":"syt_second"}"#);
    assert!(world.calls.is_empty() && world.answers.is_empty());
    assert_eq!(world.wire.len(), before);
    let counters = world.gateway.counters();
    assert_eq!((counters.peers, counters.observations, counters.sessions, counters.fetching), (0, 0, 0, 0));
    assert_eq!(world.stored.len(), 0);
    // It is told no more than a stranger.
    let heard =
        world.wire.iter().filter(|(up, _)| *up).map(|(_, datagram)| datagram.clone()).collect::<Vec<_>>();
    for datagram in heard {
        world.gateway.handle(Input::Datagram { address: OTHER, datagram: &datagram }, world.now);
    }
    world.settle();
    assert!(world.calls.is_empty());
    for (_, told) in &world.wire[before..] {
        let told = Message::decode(told).unwrap();
        assert!(!is_protected(&told) && (told.is_empty() || told.code == Code::UNAUTHORIZED), "{told:?}");
    }
    let _ = (waits, under_way);
    // One that is made anew under its name is another.
    let anew = world.devices.added(buoy(), &lowband::device::Material::new([3; 48]), at(60_000)).unwrap();
    world.put(anew);
    world.take_up_keys(5);
    world.asks(SYNC);
    world.called(&format!("{SYNC_CALL} Bearer syt_first"));
}

#[test]
fn sequence_numbers_only_grow_through_a_thousand_restarts() {
    let mut world = World::new(buoy());
    let mut last = None;
    let mut nonces = BTreeSet::new();
    for restart in 0..1_000_u32 {
        world.now = world.now + Duration::from_secs(10);
        let before = world.wire.len();
        let id = world.asks(SYNC);
        let call = world.calls.pop_back().expect("it is served, after it has proved that it is fresh").0;
        world.calls.clear();
        world.says(call, 200, "{}");
        assert_eq!(world.answered(id).code, Code::CONTENT);
        for (_, datagram) in world.wire.iter().skip(before).filter(|(up, _)| !up) {
            let message = Message::decode(datagram).unwrap();
            let Some(number) = Header::of(&message).ok().and_then(|header| header.partial_iv) else {
                continue;
            };
            assert!(nonces.insert(number), "{number:?} was used twice");
            assert!(last < Some(number), "{last:?} before {number:?}");
            last = Some(number);
        }
        world.wire.clear();
        world.answers.clear();
        world.restart(restart as u8);
        world.calls.clear();
    }
    assert!(nonces.len() >= 999, "each start but the first has challenged: {}", nonces.len());
}

#[test]
fn keys_whose_use_was_forgotten_are_not_used_again() {
    let mut world = World::new(buoy());
    world.asks(SYNC);
    assert_eq!(world.kept().keys.unwrap().history, History::Begun);
    world.calls.clear();
    world.answers.clear();
    world.stored.clear();
    world.restart(3);
    assert!(matches!(world.changes[..], [DeviceChange::Lost(_)]));
    assert_eq!(world.kept().keys.unwrap().history, History::Lost);
    world.asks(SYNC);
    world.run(at(5_000));
    assert!(world.calls.is_empty() && world.answers.is_empty());
    // Nor after another start; but new ones are.
    world.restart(4);
    world.asks(SYNC);
    assert!(world.calls.is_empty());
    world.rotate(2);
    world.take_up_keys(9);
    world.asks(SYNC);
    world.called(&format!("{SYNC_CALL} Bearer syt_first"));
    let keys = world.kept().keys.unwrap();
    assert_eq!(keys.history, History::Begun);
}

#[test]
fn gateway_that_ends_in_order_does_not_ask_for_proof_afterwards() {
    let mut world = World::new(buoy());
    world.asks(SYNC);
    let call = world.calls.pop_front().unwrap().0;
    world.says(call, 200, "{}");
    world.answers.clear();
    let gateway =
        std::mem::replace(&mut world.gateway, lowband::gateway::Gateway::new(world.config.clone(), [0; 32]));
    world.stored.extend(gateway.close());
    world.restart(3);
    let replayed = world.wire[0].1.clone();
    world.wire.clear();
    world.asks(SYNC);
    world.called(&format!("{SYNC_CALL} Bearer syt_first"));
    assert_eq!(world.gateway.counters().endpoint.challenges, 0);
    // What was served before is not served again.
    world.gateway.handle(Input::Datagram { address: OTHER, datagram: &replayed }, world.now);
    world.settle();
    assert!(world.calls.is_empty());
}

#[test]
fn devices_of_one_user_do_not_share_what_they_observe() {
    let (mut world, _) = observing(buoy());
    let other =
        NewDevice { name: "other".parse().unwrap(), tokens: Some(Tokens::access("syt_other")), ..buoy() };
    let other = world.devices.added(other, &lowband::device::Material::new([8; 48]), Instant::START).unwrap();
    world.devices.put(other.clone());
    world.gateway.set_device(&other, world.now);
    assert_eq!(world.gateway.counters().devices, 2);
    assert_eq!(world.gateway.counters().feeds, 1);
    world.gateway.remove_device(&other.name, world.now);
    assert_eq!(world.gateway.counters().devices, 1);
}

/// Somebody keeps a registration back and lets it through once there is another.
#[test]
fn a_registration_that_comes_after_a_later_one_is_answered_and_takes_no_place() {
    let mut world = World::new(buoy());
    let first = world.device.request_to(SELF, Priority::Message, GATEWAY, register(), world.now);
    let (_, kept_back) = world.device.poll_datagram().unwrap();
    world.device.abandon(first, world.now);
    let poll = begin_to_observe(&mut world);
    world.gateway.handle(Input::Datagram { address: OTHER, datagram: &kept_back }, world.now);
    world.settle();
    let id = world.called(&format!("{SYNC_CALL} Bearer syt_first"));
    world.says(id, 200, &news("s1"));
    let counters = world.gateway.counters();
    assert_eq!((counters.registrations, counters.overtaken, counters.observations), (1, 1, 1));
    world.answers.clear();
    world.says(poll, 200, &news("s2"));
    let (_, response, notification) = world.answers.pop_front().unwrap();
    assert!(response.code.is_success() && notification, "it goes on being told");
}
