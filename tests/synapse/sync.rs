//! `/sync`: whole, in part, and observed.

use std::process::Stdio;
use std::time::Duration;

use lowband::net::client::Observation;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::user::User;
use super::user::read;
use super::user::timeless;
use super::world::World;

/// A sync that does not itself change what the next one says.
const QUIET: &str = "set_presence=offline&timeout=0";
const SECOND: Duration = Duration::from_secs(1);
/// Long enough for anything that comes at all.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_sync_is_the_same_over_either_whole_and_in_part() {
    let world = World::start();
    let (alice, _bob, room) = two_in_a_room(&world).await;
    for number in 0..40 {
        say(&alice, &room, number, &format!("{number}: {}", "Sätze, ".repeat(100))).await;
    }
    let filter = json!({ "room": { "timeline": { "limit": 50 } } });
    let filter =
        alice.both("POST", "/_matrix/client/v3/user/@alice:lowband.test/filter", Some(&filter)).await;
    let filter = filter["filter_id"].as_str().unwrap();

    let before = alice.traffic();
    let whole = alice.get(&format!("/_matrix/client/v3/sync?{QUIET}&filter={filter}")).await;
    let after = alice.traffic();
    let (bytes, datagrams) =
        (after.received_bytes - before.received_bytes, after.received_datagrams - before.received_datagrams);
    assert!(bytes > 20_000, "{bytes} bytes are no large sync");
    assert!(datagrams >= bytes / 1_100, "{bytes} bytes came in {datagrams} datagrams: not by blocks");
    assert_eq!(messages(&whole, &room).len(), 40);

    let since = whole["next_batch"].as_str().unwrap();
    say(&alice, &room, 40, "one more").await;
    let part = alice.get(&format!("/_matrix/client/v3/sync?{QUIET}&since={since}&filter={filter}")).await;
    assert_eq!(messages(&part, &room), ["one more"]);
}

#[tokio::test]
async fn an_observer_hears_within_a_second_what_another_sends_over_http() {
    let world = World::start();
    let (alice, bob, room) = two_in_a_room(&world).await;
    let since = position(&alice).await;
    let mut observation = alice.observe(&format!("/_matrix/client/v3/sync?since={since}"));
    let first = next(&mut observation, PATIENCE).await;
    let mut since = first["next_batch"].as_str().unwrap().to_owned();
    for number in 0..3 {
        let text = format!("over HTTP {number}");
        say_over_http(&bob, &room, number, &text).await;
        let heard = hear(&mut observation, &room, SECOND).await;
        assert_eq!(messages(&heard, &room), [text]);
        // The same events, in the same form, as a sync from the position before.
        let target = format!("/_matrix/client/v3/sync?{QUIET}&since={since}");
        let asked = alice.over_http("GET", &target, None).await.body;
        assert_eq!(timeless(timeline(&heard, &room)), timeless(timeline(&asked, &room)));
        since = heard["next_batch"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn a_notification_of_many_blocks_arrives_whole() {
    let world = World::start();
    let (alice, bob, room) = two_in_a_room(&world).await;
    let since = position(&alice).await;
    let mut observation = alice.observe(&format!("/_matrix/client/v3/sync?since={since}"));
    next(&mut observation, PATIENCE).await;
    let long = "Ein sehr langer Brief. ".repeat(1_000);
    for number in 0..2 {
        say_over_http(&bob, &room, number, &long).await;
        let heard = hear(&mut observation, &room, PATIENCE).await;
        assert_eq!(messages(&heard, &room), std::slice::from_ref(&long));
    }
}

#[tokio::test]
async fn an_observation_that_was_ended_says_no_more() {
    let world = World::start();
    let (alice, bob, room) = two_in_a_room(&world).await;
    let since = position(&alice).await;
    let mut observation = alice.observe(&format!("/_matrix/client/v3/sync?since={since}"));
    next(&mut observation, PATIENCE).await;
    observation.cancel();
    // A call and its answer: the gateway has heard by now.
    alice.get("/_matrix/client/v3/account/whoami").await;
    let before = alice.traffic().received_datagrams;
    say_over_http(&bob, &room, 0, "unheard").await;
    tokio::time::sleep(SECOND * 2).await;
    assert!(alice.traffic().received_datagrams <= before + 1, "at most the answer to the deregistration");
    let asked = alice.over_coap("GET", &format!("/_matrix/client/v3/sync?{QUIET}&since={since}"), None).await;
    assert_eq!(messages(&asked.body, &room), ["unheard"], "and it is not lost: {asked:?}");
}

#[tokio::test]
async fn lowband_request_prints_within_a_second_what_another_sends_over_http() {
    let world = World::start();
    let (alice, bob, room) = two_in_a_room(&world).await;
    let since = position(&alice).await;
    let url = format!("coap://{}/_matrix/client/v3/sync?since={since}", world.coap());
    let mut process = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .args(["request", "GET", &url, "--observe"])
        .env("LOWBAND_TOKEN", alice.token())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(process.stdout.take().unwrap()).lines();
    timeout(PATIENCE, lines.next_line()).await.expect("the first answer").unwrap();
    for number in 0..3 {
        let text = format!("printed {number}");
        say_over_http(&bob, &room, number, &text).await;
        let printed = timeout(SECOND, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it goes on observing");
                let sync: Value = serde_json::from_str(&line).unwrap();
                let found = messages(&sync, &room);
                if !found.is_empty() {
                    return found;
                }
            }
        });
        assert_eq!(printed.await.expect("it is printed within a second"), [text]);
    }
}

/// The next answer or notification, as a body.
async fn next(observation: &mut Observation, patience: Duration) -> Value {
    let response = timeout(patience, observation.next()).await.expect("a notification in time");
    let answer = read(&response.expect("the observation goes on").unwrap());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// The next notification with a message in it, in the time given for all.
async fn hear(observation: &mut Observation, room: &str, patience: Duration) -> Value {
    let heard = timeout(patience, async {
        loop {
            let body = next(observation, patience).await;
            if !messages(&body, room).is_empty() {
                return body;
            }
        }
    });
    heard.await.expect("the message in time")
}

async fn two_in_a_room(world: &World) -> (User, User, String) {
    let alice = User::register(world, "alice").await;
    let bob = User::register(world, "bob").await;
    let room = alice.does("POST", "/_matrix/client/v3/createRoom", json!({ "preset": "public_chat" })).await;
    let room = room["room_id"].as_str().unwrap().to_owned();
    bob.does("POST", &format!("/_matrix/client/v3/rooms/{room}/join"), json!({})).await;
    (alice, bob, room)
}

async fn position(user: &User) -> String {
    let answer = user.over_http("GET", &format!("/_matrix/client/v3/sync?{QUIET}"), None).await;
    answer.body["next_batch"].as_str().unwrap().to_owned()
}

async fn say(user: &User, room: &str, number: u32, text: &str) {
    let target = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t{number}");
    user.does("PUT", &target, json!({ "msgtype": "m.text", "body": text })).await;
}

async fn say_over_http(user: &User, room: &str, number: u32, text: &str) {
    let target = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t{number}");
    let body = json!({ "msgtype": "m.text", "body": text });
    assert_eq!(user.over_http("PUT", &target, Some(&body)).await.status, 200);
}

fn timeline(sync: &Value, room: &str) -> Value {
    sync["rooms"]["join"][room]["timeline"]["events"].clone()
}

fn messages(sync: &Value, room: &str) -> Vec<String> {
    let events = timeline(sync, room);
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = events.iter().filter(|event| event["type"] == "m.room.message");
    texts.map(|event| event["content"]["body"].as_str().unwrap_or_default().to_owned()).collect()
}
