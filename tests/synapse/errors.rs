//! Calls that fail: status, Matrix error and the code that carries the status.

use lowband::coap::Code;
use serde_json::Value;
use serde_json::json;

use super::user::User;
use super::user::registration;
use super::world::World;

#[tokio::test]
async fn errors_are_the_same_over_either() {
    let world = World::start();
    let alice = User::register(&world, "alice").await;
    let bob = User::register(&world, "bob").await;
    let mut stranger = User::visitor(&world).await;
    let room =
        alice.does("POST", "/_matrix/client/v3/createRoom", json!({ "room_alias_name": "taken" })).await;
    let room = room["room_id"].as_str().unwrap();
    let base = format!("/_matrix/client/v3/rooms/{room}");
    let alias = "/_matrix/client/v3/directory/room/%23taken:lowband.test";

    let body = registration("alice");
    fails(&stranger, "POST", "/_matrix/client/v3/register", Some(&body), Code::BAD_REQUEST, "M_USER_IN_USE")
        .await;
    let page = format!("{base}/messages?dir=sideways");
    fails(&alice, "GET", &page, None, Code::BAD_REQUEST, "M_INVALID_PARAM").await;
    let body = json!({ "preset": "none" });
    fails(&alice, "POST", "/_matrix/client/v3/createRoom", Some(&body), Code::BAD_REQUEST, "M_BAD_JSON")
        .await;

    let sync = "/_matrix/client/v3/sync?timeout=0";
    fails(&stranger, "GET", sync, None, Code::UNAUTHORIZED, "M_MISSING_TOKEN").await;
    stranger.set_token(Some("syt_wrong"));
    fails(&stranger, "GET", sync, None, Code::UNAUTHORIZED, "M_UNKNOWN_TOKEN").await;

    fails(&bob, "POST", &format!("{base}/join"), Some(&json!({})), Code::FORBIDDEN, "M_FORBIDDEN").await;
    fails(&bob, "GET", &format!("{base}/members"), None, Code::FORBIDDEN, "M_FORBIDDEN").await;
    let missing = "/_matrix/client/v3/directory/room/%23nobody:lowband.test";
    fails(&alice, "GET", missing, None, Code::NOT_FOUND, "M_NOT_FOUND").await;
    fails(&alice, "GET", "/_matrix/client/v3/no/such/thing", None, Code::NOT_FOUND, "M_UNRECOGNIZED").await;
    fails(&alice, "DELETE", "/_matrix/client/v3/login", None, Code::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED")
        .await;
    let body = json!({ "room_id": room });
    fails(&alice, "PUT", alias, Some(&body), Code::CONFLICT, "M_UNKNOWN").await;
}

#[tokio::test]
async fn too_many_requests_say_for_how_long_to_wait() {
    let world = World::start();
    User::register(&world, "alice").await;
    let visitor = User::visitor(&world).await;
    let login = json!({ "type": "m.login.password", "user": "alice", "password": "correct horse" });
    // scripts/synapse: an account has three logins, then one a minute.
    for _ in 0..3 {
        visitor.does("POST", "/_matrix/client/v3/login", login.clone()).await;
    }
    let target = "/_matrix/client/v3/login";
    let (coap, http) = fails(&visitor, "POST", target, Some(&login), TOO_MANY, "M_LIMIT_EXCEEDED").await;
    let (coap, http) = (coap.wait.unwrap(), http.wait.unwrap());
    assert!((1..=61).contains(&coap) && http <= coap && coap - http <= 2, "{coap} s and {http} s");
}

const TOO_MANY: Code = Code::TOO_MANY_REQUESTS;

/// Makes the call both ways; both say the error, and the CoAP code says it too.
async fn fails(
    user: &User,
    method: &str,
    target: &str,
    body: Option<&Value>,
    code: Code,
    errcode: &str,
) -> (super::user::Answer, super::user::Answer) {
    let (coap, http) = user.both_answers(method, target, body).await;
    assert_eq!(coap.code, Some(code), "{method} {target}: {coap:?}");
    assert_eq!(coap.body["errcode"], errcode, "{method} {target}: {coap:?}");
    assert_eq!(http.status, u16::from(code.class()) * 100 + u16::from(code.detail()), "{http:?}");
    (coap, http)
}
