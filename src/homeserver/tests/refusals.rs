//! What is refused, what is bounded, and that nothing else happens.

use serde_json::json;

use super::super::Limits;
use super::super::Outcome;
use super::World;

#[test]
fn errors_have_the_status_and_code_of_the_specification() {
    let mut world = World::new();
    let (alice, _, room) = world.couple();
    let eve = world.register("eve");
    for (token, method, target, body, status, errcode) in [
        ("", "GET", "account/whoami", "", 401, "M_MISSING_TOKEN"),
        ("x", "GET", "account/whoami", "", 401, "M_UNKNOWN_TOKEN"),
        (&alice, "GET", "nothing", "", 404, "M_UNRECOGNIZED"),
        (&alice, "DELETE", "sync", "", 405, "M_UNRECOGNIZED"),
        (&alice, "POST", "createRoom", "{", 400, "M_NOT_JSON"),
        (&alice, "POST", "createRoom", "[]", 400, "M_BAD_JSON"),
        (&alice, "POST", "createRoom", r#"{"preset":"x"}"#, 400, "M_INVALID_PARAM"),
        (&alice, "POST", "createRoom", r#"{"name":1}"#, 400, "M_BAD_JSON"),
        (&alice, "POST", "createRoom", r#"{"room_version":"1"}"#, 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (&alice, "GET", "sync?since=s999999", "", 400, "M_INVALID_PARAM"),
        (&alice, "GET", "sync?since=x", "", 400, "M_INVALID_PARAM"),
        (&alice, "GET", "sync?timeout=x", "", 400, "M_INVALID_PARAM"),
        (&alice, "GET", "sync?filter=7", "", 400, "M_INVALID_PARAM"),
        (&alice, "POST", "join/%23none:localhost", "{}", 404, "M_NOT_FOUND"),
        (&alice, "POST", "join/none", "{}", 404, "M_NOT_FOUND"),
        (&alice, "GET", "profile/@none:localhost", "", 404, "M_NOT_FOUND"),
        (&alice, "GET", &format!("rooms/{room}/event/$none"), "", 404, "M_NOT_FOUND"),
        (&alice, "GET", &format!("rooms/{room}/state/m.room.topic"), "", 404, "M_NOT_FOUND"),
        (&alice, "GET", &format!("rooms/{room}/messages"), "", 400, "M_MISSING_PARAM"),
        (&alice, "PUT", &format!("rooms/{room}/send/m.a/1"), r#"{"x":1.5}"#, 400, "M_BAD_JSON"),
        (
            &alice,
            "PUT",
            &format!("rooms/{room}/send/m.a/{}", "t".repeat(5_000)),
            "{}",
            400,
            "M_INVALID_PARAM",
        ),
        (&eve, "PUT", &format!("rooms/{room}/send/m.a/1"), "{}", 403, "M_FORBIDDEN"),
        (&eve, "GET", &format!("rooms/{room}/messages?dir=b"), "", 403, "M_FORBIDDEN"),
        (&eve, "GET", &format!("rooms/{room}/state"), "", 403, "M_FORBIDDEN"),
        (&eve, "POST", &format!("rooms/{room}/join"), "", 403, "M_FORBIDDEN"),
        (&eve, "PUT", "profile/@alice:localhost/displayname", r#"{"displayname":"x"}"#, 403, "M_FORBIDDEN"),
    ] {
        assert_eq!(
            world.refused(token, method, target, body),
            (status, errcode.to_owned()),
            "{method} {target}"
        );
    }
}

#[test]
fn every_limit_refuses_and_says_so() {
    let limits = Limits {
        users: 1,
        rooms: 1,
        events_per_room: 8,
        filters_per_user: 1,
        account_data_per_user: 1,
        devices_per_user: 1,
        event_bytes: 200,
        body_bytes: 500,
        ..Limits::default()
    };
    let mut world = World::with(Limits { event_bytes: 1_000, ..limits.clone() });
    let alice = world.register("alice");
    let over = (403, "M_RESOURCE_LIMIT_EXCEEDED".to_owned());
    let bob = r#"{"username":"bob","auth":{"type":"m.login.dummy"}}"#;
    assert_eq!(world.refused("", "POST", "register", bob), over);
    let login = r#"{"type":"m.login.password","user":"alice","password":"p"}"#;
    assert_eq!(world.refused("", "POST", "login", login), over);
    let room = world.create(&alice, json!({}));
    assert_eq!(world.refused(&alice, "POST", "createRoom", "{}"), over);
    let filter = "user/@alice:localhost/filter";
    world.ok(&alice, "POST", filter, json!({ "a": 1 }));
    assert_eq!(world.ok(&alice, "POST", filter, json!({ "a": 1 }))["filter_id"], "0");
    assert_eq!(world.refused(&alice, "POST", filter, r#"{"a":2}"#), over);
    world.ok(&alice, "PUT", "user/@alice:localhost/account_data/a", json!({}));
    assert_eq!(world.refused(&alice, "PUT", "user/@alice:localhost/account_data/b", "{}"), over);
    world.say(&alice, &room, "one");
    world.say(&alice, &room, "two");
    assert_eq!(world.refused(&alice, "PUT", &format!("rooms/{room}/send/m.a/3"), "{}"), over);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(500));
    let too_large = (413, "M_TOO_LARGE".to_owned());
    assert_eq!(world.refused(&alice, "PUT", &format!("rooms/{room}/send/m.a/4"), &large), too_large);

    let mut world = World::with(Limits { stored_bytes: 6_000, ..Limits::default() });
    let alice = world.register("alice");
    let room = world.create(&alice, json!({}));
    let mut sent = 0;
    let refusal = loop {
        let (status, answer) = world.raw(&alice, "PUT", &format!("rooms/{room}/send/m.a/{sent}"), "{}");
        if status != 200 {
            break answer;
        }
        sent += 1;
    };
    assert!(sent < 10, "{sent}");
    assert_eq!(refusal["errcode"], "M_RESOURCE_LIMIT_EXCEEDED");
}

#[test]
fn any_path_and_body_gets_an_answer() {
    let mut world = World::new();
    let (alice, _, room) = world.couple();
    let pieces =
        ["rooms", &room, "state", "", "%", "%ff", "sync", "send", "m.room.member", "@alice:localhost", ".."];
    let bodies = [
        "",
        "{}",
        "[]",
        "null",
        "{\"membership\":7}",
        "\u{0}",
        "{\"invite\":[1]}",
        "{\"users\":{\"a\":\"b\"}}",
    ];
    let mut state = 7_u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    for _ in 0..20_000 {
        let path: Vec<&str> = (0..random(6) + 1).map(|_| pieces[random(pieces.len())]).collect();
        let method = ["GET", "PUT", "POST", "DELETE", "PATCH"][random(5)];
        let request = world.request(&alice, method, &path.join("/"), bodies[random(bodies.len())]);
        if let Outcome::Reply(reply) = world.homeserver.handle(&request, world.now_ms) {
            assert!([200, 400, 401, 403, 404, 405, 413].contains(&reply.status), "{path:?} {}", reply.body);
        }
    }
}

#[test]
fn one_seed_makes_one_conversation() {
    let talk = || {
        let mut world = World::new();
        let (alice, bob, room) = world.couple();
        world.say(&alice, &room, "hello");
        (world.first_sync(&bob).0, alice, room)
    };
    let (answer, token, room) = talk();
    assert_eq!((answer, token.clone(), room.clone()), talk());
    assert_eq!(room.len(), 44);
    assert!(token.starts_with("syt_YWxpY2U_"), "{token}");
}
