//! Calls that succeed.

use serde_json::Value;
use serde_json::json;

use super::user::User;
use super::user::registration;
use super::user::timeless;
use super::world::World;

#[tokio::test]
async fn accounts_are_the_same_over_either() {
    let world = World::start();
    let alice = User::register(&world, "alice").await;
    let whoami = alice.get("/_matrix/client/v3/account/whoami").await;
    assert_eq!(whoami["user_id"], "@alice:lowband.test");

    let visitor = User::visitor(&world).await;
    let bob = visitor.over_http("POST", "/_matrix/client/v3/register", Some(&registration("bob"))).await;
    let carol = visitor.over_coap("POST", "/_matrix/client/v3/register", Some(&registration("carol"))).await;
    assert_eq!((bob.status, carol.status), (200, 200));
    assert_eq!(names(&bob.body), names(&carol.body));

    visitor.get("/_matrix/client/v3/login").await;
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "correct horse",
        "initial_device_display_name": "a radio, 100 bit/s — «слабый» 📡",
    });
    let coap = visitor.over_coap("POST", "/_matrix/client/v3/login", Some(&login)).await;
    let http = visitor.over_http("POST", "/_matrix/client/v3/login", Some(&login)).await;
    assert_eq!((coap.status, http.status), (200, 200));
    let shared = |body: &Value| (names(body), body["user_id"].clone(), body["well_known"].clone());
    assert_eq!(shared(&coap.body), shared(&http.body));

    let devices = alice.get("/_matrix/client/v3/devices").await;
    assert_eq!(devices["devices"].as_array().unwrap().len(), 3);
    let device = coap.body["device_id"].as_str().unwrap();
    let found = alice.get(&format!("/_matrix/client/v3/devices/{device}")).await;
    assert_eq!(found["display_name"], login["initial_device_display_name"]);

    let mut second = User::visitor(&world).await;
    second.set_token(coap.body["access_token"].as_str());
    second.does("POST", "/_matrix/client/v3/logout", json!({})).await;
    let (after, _) = second.both_answers("GET", "/_matrix/client/v3/account/whoami", None).await;
    assert_eq!((after.status, &after.body["errcode"]), (401, &json!("M_UNKNOWN_TOKEN")));
}

#[tokio::test]
async fn a_conversation_is_the_same_over_either() {
    let world = World::start();
    let alice = User::register(&world, "alice").await;
    let bob = User::register(&world, "bob").await;

    let create = json!({
        "name": "Grüße aus dem Funkloch",
        "topic": "a/b?c#d %2F 100 %",
        "room_alias_name": "the/radio?room",
        "preset": "private_chat",
        "initial_state": [{ "type": "org.example.state", "state_key": "a/b ?#", "content": { "n": -1 } }],
    });
    let room = alice.does("POST", "/_matrix/client/v3/createRoom", create.clone()).await;
    let room = room["room_id"].as_str().unwrap();
    let base = format!("/_matrix/client/v3/rooms/{room}");
    alice.does("POST", &format!("{base}/invite"), json!({ "user_id": "@bob:lowband.test" })).await;
    let joined = bob.both("POST", &format!("{base}/join"), Some(&json!({}))).await;
    assert_eq!(joined["room_id"], room);

    // The same transaction is the same event, whichever way it comes first.
    let hello = json!({ "msgtype": "m.text", "body": "Hello World 🌍\u{0}\"\\\n" });
    let sent = alice.both("PUT", &format!("{base}/send/m.room.message/t1"), Some(&hello)).await;
    let mistake = json!({ "msgtype": "m.text", "body": "not this" });
    let wrong = alice.both("PUT", &format!("{base}/send/m.room.message/t%2F2"), Some(&mistake)).await;
    let wrong = wrong["event_id"].as_str().unwrap();
    let redact = format!("{base}/redact/{wrong}/t3");
    alice.both("PUT", &redact, Some(&json!({ "reason": "slip" }))).await;

    // Setting a state to what it is sends no event: both answer the one there is.
    for (target, content) in [
        ("state/m.room.topic", json!({ "topic": "100 bit/s" })),
        ("state/m.room.topic/", json!({ "topic": "100 bit/s" })),
        (
            "state/org.example.state/a%2Fb%20%3F%23",
            json!({ "deep": [[[{ "é": [null, true, 9007199254740991_i64] }]]] }),
        ),
    ] {
        let target = format!("{base}/{target}");
        alice.both("PUT", &target, Some(&content)).await;
        assert_eq!(alice.get(&target).await, content);
    }

    let event = sent["event_id"].as_str().unwrap();
    let found = bob.get(&format!("{base}/event/{event}")).await;
    assert_eq!(found["content"], hello);
    let redacted = bob.get(&format!("{base}/event/{wrong}")).await;
    assert_eq!(redacted["content"], json!({}));
    let members = bob.get(&format!("{base}/members?membership=join&not_membership=leave")).await;
    assert_eq!(members["chunk"].as_array().unwrap().len(), 2);
    let name = bob.get(&format!("{base}/state/m.room.name")).await;
    assert_eq!(name["name"], create["name"]);
    let page = bob.get(&format!("{base}/messages?dir=b&limit=3")).await;
    assert_eq!(page["chunk"].as_array().unwrap().len(), 3);
    let from = page["end"].as_str().unwrap();
    bob.get(&format!("{base}/messages?dir=b&from={from}&limit=50")).await;
    bob.get(&format!("{base}/context/{event}?limit=4")).await;
    for target in ["state", "joined_members", "aliases"] {
        bob.get(&format!("{base}/{target}")).await;
    }
    bob.get(&format!("/_matrix/client/v1/rooms/{room}/relations/{event}")).await;
    let alias = bob.get("/_matrix/client/v3/directory/room/%23the%2Fradio%3Froom:lowband.test").await;
    assert_eq!(alias["room_id"], room);
    bob.get("/_matrix/client/v3/joined_rooms").await;

    bob.both("PUT", &format!("{base}/typing/@bob:lowband.test"), Some(&json!({ "typing": false }))).await;
    bob.both("POST", &format!("{base}/receipt/m.read/{event}"), Some(&json!({}))).await;
    bob.both("POST", &format!("{base}/read_markers"), Some(&json!({ "m.fully_read": event }))).await;
    bob.does("POST", &format!("{base}/leave"), json!({})).await;
    let members = alice.get(&format!("{base}/joined_members")).await;
    assert_eq!(members["joined"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn a_users_own_things_are_the_same_over_either() {
    let world = World::start();
    let alice = User::register(&world, "alice").await;
    let me = "@alice:lowband.test";

    let name = json!({ "displayname": "Алиса 🛰" });
    alice.both("PUT", &format!("/_matrix/client/v3/profile/{me}/displayname"), Some(&name)).await;
    assert_eq!(alice.get(&format!("/_matrix/client/v3/profile/{me}/displayname")).await, name);
    assert_eq!(alice.get(&format!("/_matrix/client/v3/profile/{me}")).await, name);

    let filter = json!({ "room": { "timeline": { "limit": 3, "types": ["m.room.message"] } }, "presence": { "types": [] } });
    let made = alice.both("POST", &format!("/_matrix/client/v3/user/{me}/filter"), Some(&filter)).await;
    let id = made["filter_id"].as_str().unwrap();
    assert_eq!(alice.get(&format!("/_matrix/client/v3/user/{me}/filter/{id}")).await, filter);

    // Every kind of JSON value that Matrix allows, and the names that the integer keys could be mistaken for.
    let data = json!({
        "8": "text", "event_id": 8, "": { "": [] }, "integers": [0, -1, 23, 24, 255, 256, 65536, 9007199254740991_i64, -9007199254740991_i64],
        "text": ["", "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}", "\t\r\n\"\\/"], "null": null, "yes": true, "no": false,
    });
    let target = format!("/_matrix/client/v3/user/{me}/account_data/org.example.data");
    alice.both("PUT", &target, Some(&data)).await;
    assert_eq!(alice.get(&target).await, data);

    let presence = format!("/_matrix/client/v3/presence/{me}/status");
    alice.both("PUT", &presence, Some(&json!({ "presence": "online", "status_msg": "on the air" }))).await;
    assert_eq!(alice.get(&presence).await["status_msg"], "on the air");

    let keys =
        json!({ "one_time_keys": { "signed_curve25519:AAAAAQ": { "key": "base64+/", "signatures": {} } } });
    let counts = alice.both("POST", "/_matrix/client/v3/keys/upload", Some(&keys)).await;
    assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 1);
    let query = json!({ "device_keys": { me: [] }, "timeout": 0 });
    alice.both("POST", "/_matrix/client/v3/keys/query", Some(&query)).await;

    for target in [
        "/_matrix/client/v3/capabilities",
        "/_matrix/client/v3/pushrules/",
        "/_matrix/client/v3/pushrules/global/",
        "/_matrix/client/v3/account/3pid",
        "/_matrix/client/v3/pushers",
        "/_matrix/client/v3/notifications",
        "/_matrix/client/v3/publicRooms?limit=5",
        "/_matrix/client/v3/voip/turnServer",
        "/_matrix/client/v3/thirdparty/protocols",
        "/_matrix/client/r0/joined_rooms",
    ] {
        alice.get(target).await;
    }
}

#[tokio::test]
async fn versions_differ_by_one_feature_alone() {
    let world = World::start();
    let visitor = User::visitor(&world).await;
    let mut coap = visitor.over_coap("GET", "/_matrix/client/versions", None).await.body;
    let http = visitor.over_http("GET", "/_matrix/client/versions", None).await.body;
    let feature = coap.as_object_mut().unwrap().remove("org.matrix.msc3079.low_bandwidth");
    assert_eq!(feature, Some(json!({ "cbor_enum_version": 1, "coap_enum_version": 1 })));
    assert_eq!(timeless(coap), timeless(http));
}

#[tokio::test]
async fn a_token_is_said_once() {
    let world = World::start();
    let mut alice = User::register(&world, "alice").await;
    let whoami = alice.get("/_matrix/client/v3/account/whoami").await;
    alice.set_token(None);
    let later = alice.over_coap("GET", "/_matrix/client/v3/account/whoami", None).await;
    assert_eq!((later.status, later.body), (200, whoami));
    let elsewhere = User::visitor(&world).await;
    let answer = elsewhere.over_coap("GET", "/_matrix/client/v3/account/whoami", None).await;
    assert_eq!(answer.status, 401, "a token is of one peer");
}

fn names(body: &Value) -> Vec<String> {
    let mut names: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    names.sort();
    names
}
