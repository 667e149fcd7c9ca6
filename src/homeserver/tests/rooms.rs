//! Rooms: sending, reading, and who may do what.

use serde_json::json;

use super::World;
use super::bodies;

#[test]
fn alias_that_is_taken_is_a_conflict() {
    let mut world = World::new();
    let alice = world.register("alice");
    let room = world.create(&alice, json!({ "room_alias_name": "lobby", "preset": "public_chat" }));
    let target = "directory/room/%23lobby:localhost";
    assert_eq!(world.get("", target)["room_id"], json!(room));
    let body = json!({ "room_id": room }).to_string();
    assert_eq!(world.refused(&alice, "PUT", target, &body), (409, "M_UNKNOWN".to_owned()));
    let again = r#"{"room_alias_name":"lobby"}"#;
    assert_eq!(world.refused(&alice, "POST", "createRoom", again), (400, "M_ROOM_IN_USE".to_owned()));

    let bob = world.register("bob");
    let joined = world.ok(&bob, "POST", "join/%23lobby:localhost", json!({}));
    assert_eq!(joined["room_id"], json!(room));
    world.ok(&alice, "DELETE", target, json!({}));
    assert_eq!(world.refused(&bob, "GET", target, ""), (404, "M_NOT_FOUND".to_owned()));
}

#[test]
fn same_transaction_id_sends_once_for_each_device() {
    let mut world = World::new();
    let (alice, bob, room) = world.couple();
    let first = world.say(&alice, &room, "t1");
    assert_eq!(world.say(&alice, &room, "t1"), first);
    assert_ne!(world.say(&bob, &room, "t1"), first);
    let messages = world.get(&alice, &format!("rooms/{room}/messages?dir=b&limit=3"));
    assert_eq!(bodies(&messages["chunk"]), ["t1", "t1"]);
    let own = world.get(&alice, &format!("rooms/{room}/event/{first}"));
    assert_eq!(own["unsigned"]["transaction_id"], "t1");
    let others = world.get(&bob, &format!("rooms/{room}/event/{first}"));
    assert_eq!(others["unsigned"].get("transaction_id"), None);
}

#[test]
fn power_decides_who_changes_the_room() {
    let mut world = World::new();
    let (alice, bob, room) = world.couple();
    let name = format!("rooms/{room}/state/m.room.name");
    let forbidden = (403, "M_FORBIDDEN".to_owned());
    assert_eq!(world.refused(&bob, "PUT", &name, r#"{"name":"x"}"#), forbidden);
    let kick = format!("rooms/{room}/kick");
    assert_eq!(world.refused(&bob, "POST", &kick, r#"{"user_id":"@alice:localhost"}"#), forbidden);
    let mut levels = world.get(&alice, &format!("rooms/{room}/state/m.room.power_levels"));
    levels["users"] = json!({ "@bob:localhost": 50 });
    world.ok(&alice, "PUT", &format!("rooms/{room}/state/m.room.power_levels/"), levels);
    let changed = world.ok(&bob, "PUT", &name, json!({ "name": "x" }));
    assert_eq!(
        world.ok(&bob, "PUT", &name, json!({ "name": "x" })),
        changed,
        "the same state again is no event"
    );
    assert_eq!(world.get(&alice, &name), json!({ "name": "x" }));
    assert_eq!(world.refused(&bob, "POST", &kick, r#"{"user_id":"@alice:localhost"}"#), forbidden);

    world.ok(&alice, "POST", &format!("rooms/{room}/ban"), json!({ "user_id": "@bob:localhost" }));
    assert_eq!(world.refused(&bob, "POST", &format!("rooms/{room}/join"), "{}"), forbidden);
    world.ok(&alice, "POST", &format!("rooms/{room}/unban"), json!({ "user_id": "@bob:localhost" }));
    assert_eq!(world.refused(&bob, "POST", &format!("rooms/{room}/join"), "{}"), forbidden, "not invited");
}

#[test]
fn redaction_empties_the_event() {
    let mut world = World::new();
    let (alice, bob, room) = world.couple();
    let event = world.say(&alice, &room, "oops");
    let forbidden = (403, "M_FORBIDDEN".to_owned());
    assert_eq!(world.refused(&bob, "PUT", &format!("rooms/{room}/redact/{event}/r"), "{}"), forbidden);
    let redact = format!("rooms/{room}/redact/{event}/r1");
    let redaction = world.ok(&alice, "PUT", &redact, json!({ "reason": "typo" }));
    assert_eq!(world.ok(&alice, "PUT", &redact, json!({ "reason": "typo" })), redaction);
    let seen = world.get(&bob, &format!("rooms/{room}/event/{event}"));
    assert_eq!(seen["content"], json!({}));
    assert_eq!(seen["unsigned"]["redacted_because"]["event_id"], redaction["event_id"]);
    assert_eq!(seen["unsigned"]["redacted_because"]["redacts"], json!(event));
}

#[test]
fn messages_page_both_ways_to_the_ends() {
    let mut world = World::new();
    let (alice, _, room) = world.couple();
    for number in 0..5 {
        world.say(&alice, &room, &format!("m{number}"));
    }
    let filter = "%7B%22types%22%3A%5B%22m.room.message%22%5D%7D";
    for (direction, expected) in
        [("b", ["m4", "m3", "m2", "m1", "m0"]), ("f", ["m0", "m1", "m2", "m3", "m4"])]
    {
        let (mut seen, mut from, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let target = format!("rooms/{room}/messages?dir={direction}&limit=2&filter={filter}{from}");
            let answer = world.get(&alice, &target);
            seen.extend(bodies(&answer["chunk"]).into_iter().map(str::to_owned));
            pages += 1;
            let Some(end) = answer["end"].as_str() else { break };
            from = format!("&from={end}");
        }
        assert_eq!((seen, pages), (expected.map(str::to_owned).to_vec(), 3), "{direction}");
    }
    let events = world.get(&alice, &format!("rooms/{room}/messages?dir=b&limit=3"));
    let middle = events["chunk"][1]["event_id"].as_str().unwrap().to_owned();
    let context = world.get(&alice, &format!("rooms/{room}/context/{middle}?limit=2"));
    assert_eq!(bodies(&context["events_before"]), ["m2"]);
    assert_eq!(context["event"]["content"]["body"], "m3");
    assert_eq!(bodies(&context["events_after"]), ["m4"]);
}
