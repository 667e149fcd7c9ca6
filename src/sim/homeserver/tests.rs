use super::*;

fn at(milliseconds: u64) -> Instant {
    Instant::after_start(Duration::from_millis(milliseconds))
}

fn homeserver() -> Homeserver {
    let mut homeserver = Homeserver::default();
    homeserver.add_user("@a:hs", "token-a");
    homeserver.join("!r:hs", "@a:hs");
    homeserver
}

fn request(method: &str, target: &str, body: &str) -> http::Request<Bytes> {
    let request =
        http::Request::builder().method(method).uri(format!("http://hs/_matrix/client/v3/{target}"));
    request.header("authorization", "Bearer token-a").body(Bytes::from(body.to_owned())).unwrap()
}

/// Answers until this time: when, and what.
fn answers(homeserver: &mut Homeserver, until: u64) -> Vec<(u64, CallId, Value)> {
    let mut answers = Vec::new();
    while let Some(due) = homeserver.deadline().filter(|due| *due <= at(until)) {
        homeserver.advance(due);
        while let Some((id, answer)) = homeserver.poll() {
            let body =
                answer.map_or(json!("unreachable"), |answer| serde_json::from_slice(answer.body()).unwrap());
            answers.push((due.since_start().as_millis() as u64, id, body));
        }
    }
    answers
}

#[test]
fn a_message_is_sent_once_for_each_transaction() {
    let mut homeserver = homeserver();
    for id in 0..2 {
        let send = request("PUT", "rooms/!r:hs/send/m.room.message/t1", r#"{"body":"x"}"#);
        homeserver.call(id, send, at(0));
    }
    let answers = answers(&mut homeserver, 100);
    assert_eq!((answers[0].0, &answers[0].2), (40, &answers[1].2));
    assert_eq!(homeserver.events("!r:hs"), 1);
    let reached: Vec<_> = std::iter::from_fn(|| homeserver.poll_reached()).map(|it| it.is_new).collect();
    assert_eq!(reached, [true, false]);
}

#[test]
fn a_long_poll_ends_with_news_or_by_itself() {
    let mut homeserver = homeserver();
    homeserver.call(1, request("GET", "sync?since=s0&timeout=30000", ""), at(0));
    homeserver.call(2, request("GET", "sync?since=s0&timeout=1000", ""), at(0));
    assert_eq!(answers(&mut homeserver, 5_000), [(1_040, 2, json!({ "next_batch": "s0" }))]);
    homeserver.say("!other:hs", "@b:hs", "not for a", at(5_000));
    homeserver.say("!r:hs", "@b:hs", "hello", at(6_000));
    let news = answers(&mut homeserver, 40_000);
    assert_eq!((news.len(), news[0].0, news[0].1), (1, 6_020, 1));
    let timeline = &news[0].2["rooms"]["join"]["!r:hs"]["timeline"];
    assert_eq!(timeline["events"][0]["content"]["body"], "hello");
    assert_eq!((&news[0].2["next_batch"], &timeline["limited"]), (&json!("s2"), &json!(false)));
}

#[test]
fn what_is_too_much_for_one_answer_is_limited() {
    let mut homeserver = homeserver();
    (0..5).for_each(|number| homeserver.say("!r:hs", "@b:hs", &number.to_string(), at(number)));
    let filter = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A2%7D%7D%7D";
    homeserver.call(1, request("GET", &format!("sync?since=s1&filter={filter}"), ""), at(10));
    let answers = answers(&mut homeserver, 100);
    let timeline = &answers[0].2["rooms"]["join"]["!r:hs"]["timeline"];
    assert_eq!(timeline["events"].as_array().unwrap().len(), 2);
    assert_eq!((&timeline["limited"], &timeline["prev_batch"]), (&json!(true), &json!("t3")));
}

#[test]
fn who_waits_hears_when_it_goes_down_and_nothing_is_lost() {
    let mut homeserver = homeserver();
    homeserver.call(1, request("GET", "sync?since=s0&timeout=30000", ""), at(0));
    answers(&mut homeserver, 1_000);
    homeserver.stop(at(1_000));
    homeserver.call(2, request("GET", "sync?since=s0", ""), at(1_000));
    let told = answers(&mut homeserver, 2_000);
    assert_eq!(
        told.iter().map(|told| (told.1, told.2 == "unreachable")).collect::<Vec<_>>(),
        [(1, true), (2, true)]
    );
    homeserver.start();
    homeserver.say("!r:hs", "@b:hs", "hello", at(3_000));
    homeserver.call(3, request("GET", "sync?since=s0&timeout=30000", ""), at(3_000));
    assert_eq!(answers(&mut homeserver, 4_000)[0].2["next_batch"], "s1");
}

#[test]
fn position_that_it_never_gave_is_refused() {
    let mut homeserver = homeserver();
    homeserver.call(1, request("GET", "sync?since=&timeout=30000", ""), at(0));
    assert_eq!(answers(&mut homeserver, 100)[0].2["errcode"], "M_UNKNOWN");
    assert_eq!(homeserver.bad_positions(), 1);
}

#[test]
fn other_peoples_traffic_moves_the_position_and_says_nothing() {
    let mut homeserver = homeserver();
    homeserver.call(1, request("GET", "sync?since=s0&timeout=30000", ""), at(0));
    answers(&mut homeserver, 1_000);
    homeserver.stir(at(1_000));
    assert_eq!(answers(&mut homeserver, 2_000), [(1_020, 1, json!({ "next_batch": "s1" }))]);
}

#[test]
fn trouble_fails_every_call_until_it_ends_and_what_was_done_stays_done() {
    let mut homeserver = homeserver();
    let put = "rooms/!r:hs/send/m.room.message/t1";
    let call = |homeserver: &mut Homeserver, trouble, id, from| {
        homeserver.trouble(trouble);
        homeserver.call(id, request("PUT", put, r#"{"body":"x"}"#), at(from));
        answers(homeserver, from + 1_000)
    };
    assert_eq!(call(&mut homeserver, Some(Trouble::Busy), 1, 0)[0].2["errcode"], "M_LIMIT_EXCEEDED");
    assert_eq!(homeserver.events("!r:hs"), 0);
    assert_eq!(call(&mut homeserver, Some(Trouble::Silent), 2, 2_000), []);
    assert_eq!(call(&mut homeserver, Some(Trouble::TooLarge), 3, 4_000)[0].2, "unreachable");
    assert_eq!(call(&mut homeserver, Some(Trouble::Broken), 4, 6_000)[0].2, json!({}));
    let event = call(&mut homeserver, None, 5, 8_000)[0].2["event_id"].as_str().unwrap().to_owned();
    assert_eq!(homeserver.events("!r:hs"), 1);
    let reached: Vec<_> = std::iter::from_fn(|| homeserver.poll_reached()).collect();
    assert_eq!(reached.iter().map(|it| it.is_new).collect::<Vec<_>>(), [true, false, false, false]);
    assert!(homeserver.has_made(&reached[0].attempt, &event));
}

#[test]
fn post_makes_something_each_time() {
    let mut homeserver = homeserver();
    for id in [1, 2] {
        homeserver.call(id, request("POST", "createRoom", r#"{"name":"t1"}"#), at(id));
    }
    let rooms: Vec<_> =
        answers(&mut homeserver, 1_000).iter().map(|told| told.2["room_id"].clone()).collect();
    assert_ne!(rooms[0], rooms[1]);
    let reached = homeserver.poll_reached().unwrap();
    assert!(rooms.iter().all(|room| homeserver.has_made(&reached.attempt, room.as_str().unwrap())));
}
