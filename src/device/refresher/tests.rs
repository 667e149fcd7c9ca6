use super::*;

const SOFT: &[u8] = br#"{"errcode":"M_UNKNOWN_TOKEN","error":"expired","soft_logout":true}"#;
const HARD: &[u8] = br#"{"errcode":"M_UNKNOWN_TOKEN","error":"gone"}"#;

fn at(seconds: u64) -> Instant {
    Instant::after_start(Duration::from_secs(seconds))
}

fn refresher(expires: Option<u64>) -> Refresher {
    let tokens =
        Tokens { refresh: Some(Secret::new("r1")), expires: expires.map(at), ..Tokens::access("a1") };
    Refresher::new("http://hs/", tokens)
}

fn answer(status: u16, body: &str) -> Result<Response<Bytes>, String> {
    Ok(Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap())
}

fn uses(authorization: Authorization) -> (String, Generation) {
    match authorization {
        Authorization::Use(token, generation) => (token.expose_text().unwrap().to_owned(), generation),
        other => panic!("{other:?}"),
    }
}

fn fetch(refresher: &mut Refresher) -> Request<Bytes> {
    match refresher.poll() {
        Some(Output::Fetch(request)) => request,
        other => panic!("{other:?}"),
    }
}

/// What is to be stored is in the file.
fn stored(refresher: &mut Refresher) {
    let Some(Output::Store(tokens)) = refresher.poll() else { panic!("nothing to store") };
    assert!(refresher.replace(tokens));
}

const NEW: &str = r#"{"access_token":"a2","refresh_token":"r2","expires_in_ms":600000}"#;

#[test]
fn token_is_renewed_before_it_ends_and_stored_before_it_is_used() {
    let mut refresher = refresher(Some(1_000));
    assert_eq!(uses(refresher.authorize(at(0))).0, "a1");
    assert_eq!(uses(refresher.authorize(at(939))).0, "a1");
    assert!(refresher.poll().is_none());
    assert_eq!(refresher.authorize(at(940)), Authorization::Wait);
    let request = fetch(&mut refresher);
    assert_eq!(request.uri(), "http://hs/_matrix/client/v3/refresh");
    assert_eq!(request.body().as_ref(), br#"{"refresh_token":"r1"}"#);
    // One call at a time.
    assert_eq!(refresher.authorize(at(941)), Authorization::Wait);
    assert!(refresher.poll().is_none());
    refresher.fetched(answer(200, NEW), at(942));
    assert_eq!(refresher.authorize(at(942)), Authorization::Wait);
    let Some(Output::Store(tokens)) = refresher.poll() else { panic!("nothing to store") };
    assert_eq!(tokens.refresh, Some(Secret::new("r2")));
    assert_eq!(tokens.expires, Some(at(1_542)));
    assert!(refresher.poll().is_none());
    assert!(refresher.replace(tokens));
    assert!(matches!(refresher.poll(), Some(Output::Ready)));
    assert_eq!(uses(refresher.authorize(at(943))).0, "a2");
    assert_eq!(uses(refresher.authorize(at(1_481))).0, "a2");
    assert_eq!(refresher.authorize(at(1_482)), Authorization::Wait);
}

#[test]
fn soft_logout_renews_once_for_all_who_were_told() {
    let mut refresher = refresher(None);
    let (_, first) = uses(refresher.authorize(at(0)));
    assert_eq!(refresher.unauthorized(first, SOFT, at(1)), Verdict::Wait);
    assert_eq!(refresher.unauthorized(first, SOFT, at(1)), Verdict::Wait);
    fetch(&mut refresher);
    assert!(refresher.poll().is_none());
    refresher.fetched(answer(200, NEW), at(2));
    assert_eq!(refresher.unauthorized(first, SOFT, at(2)), Verdict::Wait);
    stored(&mut refresher);
    assert_eq!(refresher.unauthorized(first, SOFT, at(3)), Verdict::Again);
    assert!(uses(refresher.authorize(at(3))).1 > first);
}

#[test]
fn hard_logout_ends_it_and_other_refusals_pass() {
    let mut refresher = refresher(None);
    let (_, first) = uses(refresher.authorize(at(0)));
    assert_eq!(refresher.unauthorized(first, br#"{"errcode":"M_FORBIDDEN"}"#, at(0)), Verdict::Pass);
    assert_eq!(refresher.unauthorized(first, b"<html>", at(0)), Verdict::Pass);
    assert_eq!(
        refresher.unauthorized(first, HARD, at(0)),
        Verdict::Refused(TokenError::Ended("gone".into()))
    );
    assert_eq!(refresher.authorize(at(9)), Authorization::Refused(TokenError::Ended("gone".into())));
    assert!(refresher.poll().is_none());
    assert!(refresher.replace(Tokens::access("a9")));
    assert_eq!(uses(refresher.authorize(at(10))).0, "a9");
}

#[test]
fn token_that_nothing_follows_ends_with_its_end() {
    let mut refresher = Refresher::new("http://hs", Tokens { expires: Some(at(10)), ..Tokens::access("a1") });
    // The homeserver says when it has ended, and not our clock.
    let (_, first) = uses(refresher.authorize(at(20)));
    let ended = TokenError::Ended("expired".into());
    assert_eq!(refresher.unauthorized(first, SOFT, at(20)), Verdict::Refused(ended));
}

#[test]
fn refused_refresh_ends_it_with_the_homeservers_words() {
    let mut refresher = refresher(None);
    let (_, first) = uses(refresher.authorize(at(0)));
    refresher.unauthorized(first, SOFT, at(0));
    fetch(&mut refresher);
    refresher.fetched(answer(401, "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"error\":\"no\\nmore\"}"), at(1));
    let ended = TokenError::Ended("M_UNKNOWN_TOKEN: no more".into());
    assert!(matches!(refresher.poll(), Some(Output::Failed(error)) if error == ended));
    assert_eq!(refresher.authorize(at(2)), Authorization::Refused(ended));
    assert!(refresher.poll().is_none());
}

#[test]
fn refusal_in_no_words_is_a_proxys_and_ends_nothing() {
    let mut refresher = refresher(None);
    let (_, first) = uses(refresher.authorize(at(0)));
    refresher.unauthorized(first, SOFT, at(0));
    fetch(&mut refresher);
    refresher.fetched(answer(403, "<html>"), at(1));
    let Some(Output::Failed(TokenError::Unavailable { reason, .. })) = refresher.poll() else { panic!() };
    assert_eq!(reason, "HTTP 403");
    assert_eq!(refresher.authorize(at(6)), Authorization::Wait);
}

#[test]
fn tokens_that_are_those_of_before_change_nothing_whatever_is_known_of_their_end() {
    let mut refresher = refresher(None);
    let before = refresher.tokens.clone();
    let (_, first) = uses(refresher.authorize(at(0)));
    refresher.unauthorized(first, SOFT, at(0));
    fetch(&mut refresher);
    refresher.fetched(Err("no route".into()), at(0));
    // It was said not to end, and has: now that is known here, and not in the file.
    assert!(matches!(refresher.unauthorized(first, SOFT, at(1)), Verdict::Refused(_)));
    assert_eq!(refresher.authorize(at(5)), Authorization::Wait);
    assert!(matches!(refresher.poll(), Some(Output::Failed(_))));
    fetch(&mut refresher);
    assert!(!refresher.replace(before));
    refresher.fetched(answer(200, NEW), at(6));
    stored(&mut refresher);
    assert_eq!(uses(refresher.authorize(at(6))).0, "a2");
}

#[test]
fn token_that_is_given_once_more_is_stored_as_any() {
    let mut refresher = refresher(None);
    let (_, first) = uses(refresher.authorize(at(0)));
    refresher.unauthorized(first, SOFT, at(0));
    fetch(&mut refresher);
    refresher.fetched(answer(200, r#"{"access_token":"a1"}"#), at(1));
    stored(&mut refresher);
    assert_eq!(uses(refresher.authorize(at(1))).0, "a1");
}

#[test]
fn no_answer_is_tried_again_ever_later() {
    let mut refresher = refresher(None);
    let (_, first) = uses(refresher.authorize(at(0)));
    let mut now = 0;
    for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
        assert_eq!(refresher.unauthorized(first, SOFT, at(now)), Verdict::Wait);
        fetch(&mut refresher);
        let failure = if wait % 20 == 0 { answer(502, "") } else { Err("no route".into()) };
        refresher.fetched(failure, at(now));
        let Some(Output::Failed(TokenError::Unavailable { wait: told, .. })) = refresher.poll() else {
            panic!("told nobody")
        };
        assert_eq!(told, Duration::from_secs(wait));
        let early = refresher.unauthorized(first, SOFT, at(now + wait - 1));
        assert!(
            matches!(early, Verdict::Refused(TokenError::Unavailable { wait, .. }) if wait.as_secs() == 1)
        );
        assert!(refresher.poll().is_none());
        now += wait;
    }
    assert_eq!(refresher.authorize(at(now)), Authorization::Wait);
    fetch(&mut refresher);
    refresher.fetched(answer(200, NEW), at(now));
    stored(&mut refresher);
    assert_eq!(uses(refresher.authorize(at(now))).0, "a2");
}

#[test]
fn token_that_has_not_ended_is_used_while_nobody_answers() {
    let mut refresher = refresher(Some(100));
    assert_eq!(refresher.authorize(at(50)), Authorization::Wait);
    fetch(&mut refresher);
    refresher.fetched(Err("no route".into()), at(52));
    assert!(matches!(refresher.poll(), Some(Output::Ready)));
    assert_eq!(uses(refresher.authorize(at(53))).0, "a1");
    assert_eq!(refresher.authorize(at(57)), Authorization::Wait);
    fetch(&mut refresher);
    refresher.fetched(Err("no route".into()), at(101));
    assert!(matches!(refresher.poll(), Some(Output::Failed(TokenError::Unavailable { .. }))));
    assert!(matches!(refresher.authorize(at(102)), Authorization::Refused(TokenError::Unavailable { .. })));
}

#[test]
fn answer_without_a_token_is_no_answer() {
    let mut refresher = refresher(None);
    let (_, first) = uses(refresher.authorize(at(0)));
    refresher.unauthorized(first, SOFT, at(0));
    fetch(&mut refresher);
    refresher.fetched(answer(200, "{}"), at(0));
    assert!(matches!(refresher.poll(), Some(Output::Failed(TokenError::Unavailable { .. }))));
    // What nobody asked for changes nothing.
    refresher.fetched(answer(200, NEW), at(0));
    assert!(refresher.poll().is_none());
}

#[test]
fn oauth_asks_the_authorization_server_whatever_the_homeserver_calls_it() {
    let renewal =
        Renewal::OAuth { token_endpoint: "https://auth.example/token".into(), client_id: "c/1".into() };
    let tokens =
        Tokens { refresh: Some(Secret::new("r+1")), renewal: renewal.clone(), ..Tokens::access("a1") };
    let mut refresher = Refresher::new("http://hs", tokens);
    let (_, first) = uses(refresher.authorize(at(0)));
    assert_eq!(refresher.unauthorized(first, HARD, at(0)), Verdict::Wait);
    let request = fetch(&mut refresher);
    assert_eq!(request.uri(), "https://auth.example/token");
    assert_eq!(request.body().as_ref(), b"grant_type=refresh_token&refresh_token=r%2B1&client_id=c%2F1");
    refresher.fetched(answer(200, r#"{"access_token":"a2","token_type":"Bearer","expires_in":300}"#), at(0));
    let Some(Output::Store(tokens)) = refresher.poll() else { panic!("nothing to store") };
    assert_eq!((tokens.refresh, tokens.expires), (Some(Secret::new("r+1")), Some(at(300))));
    assert_eq!(tokens.renewal, renewal);
}

#[test]
fn what_no_header_can_hold_is_no_token() {
    for token in ["", "a b", "a\r\nX: y"] {
        let mut refresher = Refresher::new("http://hs", Tokens::access(token));
        assert_eq!(refresher.authorize(at(0)), Authorization::Refused(TokenError::Malformed), "{token:?}");
    }
}

#[test]
fn tokens_are_not_printed() {
    let printed = format!("{:?}", refresher(None));
    assert!(!printed.contains("a1") && !printed.contains("r1"), "{printed}");
}
