//! What /sync tells, and when.

use serde_json::json;

use super::super::Outcome;
use super::World;
use super::bodies;
use super::types;

#[test]
fn first_sync_has_the_state_before_the_timeline() {
    let mut world = World::new();
    let (alice, _, room) = world.couple();
    for number in 0..12 {
        world.say(&alice, &room, &format!("m{number}"));
    }
    let (answer, _) = world.first_sync(&alice);
    let joined = &answer["rooms"]["join"][&room];
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(bodies(&joined["timeline"]["events"]).len(), 10);
    let state = types(&joined["state"]["events"]);
    assert!(state.contains(&"m.room.create") && state.contains(&"m.room.name"), "{state:?}");
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);
    assert_eq!(answer["account_data"]["events"][0]["type"], "m.push_rules");

    let before = joined["timeline"]["prev_batch"].as_str().unwrap();
    let older = world.get(&alice, &format!("rooms/{room}/messages?dir=b&from={before}&limit=2"));
    assert_eq!(bodies(&older["chunk"]), ["m1", "m0"]);
}

#[test]
fn second_sync_has_what_is_new_and_waits_otherwise() {
    let mut world = World::new();
    let (alice, bob, room) = world.couple();
    let (_, since) = world.first_sync(&bob);
    let request = world.request(&bob, "GET", &format!("sync?since={since}&timeout=30000"), "");
    let until_ms = world.now_ms + 30_000;
    assert_eq!(world.homeserver.handle(&request, world.now_ms), Outcome::Wait { until_ms });

    world.now_ms += 1_000;
    let before = world.homeserver.position();
    world.say(&alice, &room, "hello");
    assert!(world.homeserver.position() > before);
    let Outcome::Reply(reply) = world.homeserver.handle(&request, world.now_ms) else {
        panic!("still waiting")
    };
    let joined = &reply.body["rooms"]["join"][&room];
    assert_eq!(bodies(&joined["timeline"]["events"]), ["hello"]);
    assert_eq!(joined["state"]["events"], json!([]));
    assert_eq!(joined["unread_notifications"]["notification_count"], 1);

    let since = reply.body["next_batch"].as_str().unwrap();
    let request = world.request(&bob, "GET", &format!("sync?since={since}&timeout=30000"), "");
    world.now_ms += 30_000;
    let Outcome::Reply(reply) = world.homeserver.handle(&request, world.now_ms) else { panic!("too long") };
    assert_eq!(reply.body.get("rooms"), None);
    assert_eq!(reply.body["next_batch"], since);
}

#[test]
fn gap_in_the_timeline_comes_with_the_state_that_changed_in_it() {
    let mut world = World::new();
    let (alice, bob, room) = world.couple();
    let (_, since) = world.first_sync(&bob);
    world.ok(&alice, "PUT", &format!("rooms/{room}/state/m.room.topic"), json!({ "topic": "new" }));
    for number in 0..5 {
        world.say(&alice, &room, &format!("m{number}"));
    }
    let filter = world.ok(
        &bob,
        "POST",
        "user/@bob:localhost/filter",
        json!({ "room": { "timeline": { "limit": 2, "types": ["m.room.mess*"] } } }),
    );
    let id = filter["filter_id"].as_str().unwrap().to_owned();
    let answer = world.get(&bob, &format!("sync?since={since}&filter={id}"));
    let joined = &answer["rooms"]["join"][&room];
    assert_eq!(bodies(&joined["timeline"]["events"]), ["m3", "m4"]);
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(types(&joined["state"]["events"]), ["m.room.topic"]);
}

#[test]
fn invitation_join_and_leave_show_in_their_sections() {
    let mut world = World::new();
    let (alice, bob) = (world.register("alice"), world.register("bob"));
    let (_, since) = world.first_sync(&bob);
    let room = world.create(&alice, json!({ "name": "Home" }));
    world.say(&alice, &room, "before");
    world.ok(&alice, "POST", &format!("rooms/{room}/invite"), json!({ "user_id": "@bob:localhost" }));
    let (answer, since) = world.sync(&bob, &since);
    let stripped = &answer["rooms"]["invite"][&room]["invite_state"]["events"];
    assert!(types(stripped).contains(&"m.room.name"));
    assert_eq!(stripped.as_array().unwrap().last().unwrap()["content"]["membership"], "invite");

    world.ok(&bob, "POST", &format!("rooms/{room}/join"), json!({}));
    let (answer, since) = world.sync(&bob, &since);
    let joined = &answer["rooms"]["join"][&room];
    assert!(bodies(&joined["timeline"]["events"]).contains(&"before"));
    assert_eq!(joined["summary"]["m.heroes"], json!(["@alice:localhost"]));

    world.say(&alice, &room, "last");
    world.ok(
        &alice,
        "POST",
        &format!("rooms/{room}/kick"),
        json!({ "user_id": "@bob:localhost", "reason": "x" }),
    );
    world.say(&alice, &room, "after");
    let (answer, since) = world.sync(&bob, &since);
    let left = &answer["rooms"]["leave"][&room]["timeline"]["events"];
    assert_eq!(bodies(left), ["last"]);
    assert_eq!(left.as_array().unwrap().last().unwrap()["content"]["reason"], "x");
    let (answer, _) = world.sync(&bob, &since);
    assert_eq!(answer.get("rooms"), None);

    let messages = world.get(&bob, &format!("rooms/{room}/messages?dir=b&limit=2"));
    assert_eq!(bodies(&messages["chunk"]), ["last"]);
    let told = world.refused(&bob, "PUT", &format!("rooms/{room}/send/m.a/1"), "{}");
    assert_eq!(told, (403, "M_FORBIDDEN".to_owned()));
    world.ok(&bob, "POST", &format!("rooms/{room}/forget"), json!({}));
    let told = world.refused(&bob, "GET", &format!("rooms/{room}/messages?dir=b"), "");
    assert_eq!(told, (403, "M_FORBIDDEN".to_owned()));
}

#[test]
fn typing_and_receipts_pass_to_the_others() {
    let mut world = World::new();
    let (alice, bob, room) = world.couple();
    let event = world.say(&alice, &room, "hello");
    let (_, since) = world.first_sync(&alice);
    let typing = json!({ "typing": true, "timeout": 5_000 });
    world.ok(&bob, "PUT", &format!("rooms/{room}/typing/@bob:localhost"), typing);
    world.ok(&bob, "POST", &format!("rooms/{room}/receipt/m.read/{event}"), json!({}));
    let (answer, since) = world.sync(&alice, &since);
    let ephemeral = &answer["rooms"]["join"][&room]["ephemeral"]["events"];
    assert_eq!(ephemeral[0], json!({ "type": "m.typing", "content": { "user_ids": ["@bob:localhost"] } }));
    assert!(ephemeral[1]["content"][&event]["m.read"]["@bob:localhost"]["ts"].is_u64());

    let request = world.request(&alice, "GET", &format!("sync?since={since}&timeout=30000"), "");
    let Outcome::Wait { until_ms } = world.homeserver.handle(&request, world.now_ms) else { panic!("news") };
    assert_eq!(until_ms, world.now_ms + 5_000);
    world.now_ms = until_ms;
    let (answer, _) = world.sync(&alice, &since);
    let ephemeral = &answer["rooms"]["join"][&room]["ephemeral"]["events"];
    assert_eq!(*ephemeral, json!([{ "type": "m.typing", "content": { "user_ids": [] } }]));

    let (_, since) = world.first_sync(&bob);
    world.ok(&alice, "POST", &format!("rooms/{room}/receipt/m.read.private/{event}"), json!({}));
    let (answer, _) = world.sync(&bob, &since);
    assert_eq!(answer.get("rooms"), None, "a private receipt is nobody else's");
}
