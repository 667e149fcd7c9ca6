//! Registration, login, devices and what users store.

use serde_json::Value;
use serde_json::json;

use super::World;

#[test]
fn registration_asks_for_a_stage_first() {
    let mut world = World::new();
    let (status, answer) = world.raw("", "POST", "register", r#"{"username":"alice"}"#);
    assert_eq!(status, 401);
    assert_eq!(answer["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert!(answer["session"].is_string() && answer.get("errcode").is_none());

    world.register("alice");
    let again = r#"{"username":"alice"}"#;
    assert_eq!(world.refused("", "POST", "register", again), (400, "M_USER_IN_USE".to_owned()));
    let odd = r#"{"username":"Al ice"}"#;
    assert_eq!(world.refused("", "POST", "register", odd), (400, "M_INVALID_USERNAME".to_owned()));
}

#[test]
fn login_gives_a_token_for_a_device_and_logout_ends_it() {
    let mut world = World::new();
    world.register("alice");
    let login = |user: &str, password: &str| {
        json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user },
            "password": password, "device_id": "PHONE" })
    };
    let first = world.ok("", "POST", "login", login("alice", "p"));
    assert_eq!(first["user_id"], "@alice:localhost");
    assert_eq!(first["device_id"], "PHONE");
    let second = world.ok("", "POST", "login", login("@alice:localhost", "p"));
    let (old, new) = (first["access_token"].as_str().unwrap(), second["access_token"].as_str().unwrap());
    assert_eq!(world.refused(old, "GET", "account/whoami", ""), (401, "M_UNKNOWN_TOKEN".to_owned()));
    let me = world.get(new, "account/whoami");
    assert_eq!(me, json!({ "user_id": "@alice:localhost", "device_id": "PHONE", "is_guest": false }));

    let wrong = login("alice", "q").to_string();
    assert_eq!(world.refused("", "POST", "login", &wrong), (403, "M_FORBIDDEN".to_owned()));
    world.ok(new, "POST", "logout", json!({}));
    assert_eq!(world.refused(new, "GET", "account/whoami", ""), (401, "M_UNKNOWN_TOKEN".to_owned()));
}

#[test]
fn account_data_profile_and_tags_come_back() {
    let mut world = World::new();
    let (alice, bob, room) = world.couple();
    let (_, since) = world.first_sync(&alice);
    let direct = json!({ "@bob:localhost": [room] });
    world.ok(&alice, "PUT", "user/@alice:localhost/account_data/m.direct", direct.clone());
    world.ok(
        &alice,
        "PUT",
        &format!("user/@alice:localhost/rooms/{room}/tags/m.favourite"),
        json!({ "order": 0.5 }),
    );
    world.ok(&bob, "PUT", "profile/@bob:localhost/displayname", json!({ "displayname": "Bob B" }));
    assert_eq!(world.get(&alice, "user/@alice:localhost/account_data/m.direct"), direct);
    assert_eq!(world.get("", "profile/@bob:localhost/displayname"), json!({ "displayname": "Bob B" }));
    let (answer, _) = world.sync(&alice, &since);
    assert_eq!(answer["account_data"]["events"], json!([{ "type": "m.direct", "content": direct }]));
    let joined = &answer["rooms"]["join"][&room];
    assert_eq!(joined["account_data"]["events"][0]["content"]["tags"]["m.favourite"]["order"], 0.5);
    assert_eq!(joined["timeline"]["events"][0]["content"]["displayname"], "Bob B");
    assert_eq!(joined["timeline"]["events"][0]["unsigned"]["prev_content"]["displayname"], "bob");
    let members = world.get(&alice, &format!("rooms/{room}/joined_members"));
    assert_eq!(members["joined"]["@bob:localhost"], json!({ "display_name": "Bob B" }));
    let managed = world.refused(&alice, "PUT", "user/@alice:localhost/account_data/m.push_rules", "{}");
    assert_eq!(managed.0, 405);
}

#[test]
fn one_time_key_is_claimed_once_and_counted() {
    let mut world = World::new();
    let (alice, bob, _) = world.couple();
    let (_, since) = world.first_sync(&alice);
    let device = world.get(&bob, "account/whoami")["device_id"].as_str().unwrap().to_owned();
    let keys = json!({ "device_keys": { "user_id": "@bob:localhost", "device_id": device, "algorithms": [] },
        "one_time_keys": { "signed_curve25519:A": { "key": "a" } },
        "fallback_keys": { "signed_curve25519:F": { "key": "f", "fallback": true } } });
    let counts = world.ok(&bob, "POST", "keys/upload", keys);
    assert_eq!(counts["one_time_key_counts"], json!({ "signed_curve25519": 1 }));
    let (answer, _) = world.sync(&alice, &since);
    assert_eq!(answer["device_lists"]["changed"], json!(["@bob:localhost"]));
    let query = json!({ "device_keys": { "@bob:localhost": [] } });
    let found = world.ok(&alice, "POST", "keys/query", query);
    assert_eq!(found["device_keys"]["@bob:localhost"][&device]["user_id"], "@bob:localhost");
    let claim = json!({ "one_time_keys": { "@bob:localhost": { device.as_str(): "signed_curve25519" } } });
    for id in ["signed_curve25519:A", "signed_curve25519:F", "signed_curve25519:F"] {
        let claimed = world.ok(&alice, "POST", "keys/claim", claim.clone());
        assert!(claimed["one_time_keys"]["@bob:localhost"][&device].get(id).is_some(), "{claimed}");
    }
    let (answer, _) = world.first_sync(&bob);
    assert_eq!(answer["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }));
    assert_eq!(answer["device_unused_fallback_key_types"], json!([]));
}

#[test]
fn message_to_a_device_is_given_until_acknowledged() {
    let mut world = World::new();
    let (alice, bob, _) = world.couple();
    let (_, start) = world.first_sync(&bob);
    let body = json!({ "messages": { "@bob:localhost": { "*": { "secret": 1 } } } });
    world.ok(&alice, "PUT", "sendToDevice/m.custom/t1", body.clone());
    world.ok(&alice, "PUT", "sendToDevice/m.custom/t1", body);
    let (answer, next) = world.sync(&bob, &start);
    let message = json!({ "type": "m.custom", "sender": "@alice:localhost", "content": { "secret": 1 } });
    assert_eq!(answer["to_device"]["events"], json!([message]));
    let (again, _) = world.sync(&bob, &start);
    assert_eq!(again["to_device"], answer["to_device"]);
    let (after, _) = world.sync(&bob, &next);
    assert_eq!(after.get("to_device"), None);
}

#[test]
fn access_token_that_may_be_renewed_ends_softly_and_is_followed_by_another() {
    let mut world = World::new();
    world.register("alice");
    let login =
        json!({ "type": "m.login.password", "user": "alice", "password": "p", "refresh_token": true });
    let first = world.ok("", "POST", "login", login);
    assert_eq!(first["expires_in_ms"], 300_000);
    let text = |answer: &Value, field: &str| answer[field].as_str().unwrap().to_owned();
    let old = text(&first, "access_token");
    world.get(&old, "account/whoami");
    world.now_ms += 300_000;
    let (status, refusal) = world.raw(&old, "GET", "account/whoami", "");
    assert_eq!(
        (status, &refusal["errcode"], &refusal["soft_logout"]),
        (401, &json!("M_UNKNOWN_TOKEN"), &json!(true))
    );

    // Who did not get the answer asks again with the same refresh token; with the first of the new ones the old is gone.
    let refresh = json!({ "refresh_token": first["refresh_token"] });
    world.ok("", "POST", "refresh", refresh.clone());
    let second = world.ok("", "POST", "refresh", refresh.clone());
    world.get(&text(&second, "access_token"), "account/whoami");
    let third = world.ok("", "POST", "refresh", json!({ "refresh_token": second["refresh_token"] }));
    let unknown = (401, "M_UNKNOWN_TOKEN".to_owned());
    assert_eq!(world.refused("", "POST", "refresh", &refresh.to_string()), unknown);
    world.ok(&text(&third, "access_token"), "POST", "logout", json!({}));
    let refresh = json!({ "refresh_token": third["refresh_token"] }).to_string();
    assert_eq!(world.refused("", "POST", "refresh", &refresh), unknown);
}
