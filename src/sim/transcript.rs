//! What was said at one end and what was read at the other, compared value for value: what devices ask with what reaches the homeserver, and
//! what it says with what devices read.
//!
//! Two things are others at the two ends, and are held against each other by themselves: tokens, of which each stands for one, and
//! transaction ids.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use crate::matrix;
use crate::matrix::query;
use crate::matrix::shape::Shape;

/// All that was said in a run.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    shape: Option<Shape>,
    /// What each user asked, without its tokens, and the tokens of each time.
    asked: BTreeMap<(String, String), BTreeSet<Vec<String>>>,
    /// What each user was answered, by path.
    answers: BTreeMap<(String, String), Vec<Value>>,
    /// What a client's token may stand for.
    tokens: BTreeMap<(String, String), BTreeSet<String>>,
    /// The homeserver's tokens, by user.
    given: BTreeSet<(String, String)>,
    /// The client's transaction that the homeserver knows by this id.
    transactions: BTreeMap<(String, String), String>,
    compared: u64,
}

/// A request, as one end has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) user: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<String>,
    pub(super) body: Value,
}

/// An answer, as one end has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answered {
    pub(super) user: String,
    pub(super) path: String,
    pub(super) query: Vec<String>,
    pub(super) body: Bytes,
}

/// The member of a body that has the client's transaction id, wherever it is another on the way.
pub(super) const TRANSACTION: &str = "transaction";

const SYNC: &str = "/_matrix/client/v3/sync";
/// What a gateway adds to the query of a request, and the tokens.
const OWN: [&str; 1] = ["timeout"];
const TOKENS: [&str; 3] = ["since", "from", "to"];

impl Said {
    /// An HTTP request.
    pub(super) fn new(user: &str, request: &http::Request<Bytes>) -> Self {
        Self {
            user: user.to_owned(),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: matrix::split_query(request.uri().query().unwrap_or_default()).unwrap_or_default(),
            body: serde_json::from_slice(request.body()).unwrap_or_default(),
        }
    }

    fn segments(&self) -> Vec<String> {
        matrix::split_path(&self.path).unwrap_or_default()
    }

    /// The transaction in its path.
    fn transaction(&self) -> Option<String> {
        let mut segments = self.segments();
        let is_send = self.method == "PUT" && segments.iter().any(|segment| segment == "send");
        segments.pop().filter(|_| is_send)
    }

    /// All of it but tokens and transaction.
    fn rest(&self, shape: Option<&Shape>) -> String {
        let mut segments = self.segments();
        if self.transaction().is_some() {
            segments.pop();
        }
        let mut parameters: Vec<String> = self.query.clone();
        for name in OWN.into_iter().chain(TOKENS) {
            parameters = query::with(&parameters, name, None);
        }
        if let Some(shape) = shape.filter(|_| self.path == SYNC) {
            parameters = shape.query(&parameters);
        }
        format!("{} {segments:?} {parameters:?} {}", self.method, sorted(&self.body))
    }

    fn tokens(&self) -> Vec<String> {
        TOKENS.into_iter().filter_map(|name| query::get(&self.query, name)).map(str::to_owned).collect()
    }
}

impl Transcript {
    pub(super) fn new(shape: Option<Shape>) -> Self {
        Self { shape, ..Self::default() }
    }

    /// How much was compared.
    pub(super) fn compared(&self) -> u64 {
        self.compared
    }

    /// A device asks.
    pub(super) fn asks(&mut self, said: &Said) {
        let key = (said.user.clone(), said.rest(self.shape.as_ref()));
        self.asked.entry(key).or_default().insert(said.tokens());
    }

    /// A request reaches the homeserver: what is wrong with it.
    pub(super) fn reaches(&mut self, said: &Said) -> Result<(), String> {
        self.compared += 1;
        let user = said.user.clone();
        if let Some(upstream) = said.transaction() {
            let own = said.body.get(TRANSACTION).and_then(Value::as_str).unwrap_or_default().to_owned();
            let known = self.transactions.entry((user.clone(), upstream.clone())).or_insert(own.clone());
            if *known != own {
                return Err(format!("{user}'s {own} reached the homeserver as {upstream}, as {known} did"));
            }
        }
        let rest = said.rest(self.shape.as_ref());
        let Some(asked) = self.asked.get(&(user.clone(), rest.clone())) else {
            return Err(format!("{user} never asked what reached the homeserver: {rest}"));
        };
        if said.path == SYNC {
            // The gateway goes on from where nothing was since what the device knows.
            let unknown = said.tokens().into_iter().find(|token| !self.is_given(&user, token));
            return match unknown {
                Some(token) => Err(format!("{user} is asked for from {token}, which it never got")),
                None => Ok(()),
            };
        }
        let reached = said.tokens();
        let is_same = |own: &Vec<String>| {
            own.len() == reached.len()
                && own.iter().zip(&reached).all(|(own, theirs)| self.may_stand_for(&user, own, theirs))
        };
        match asked.iter().any(is_same) {
            true => Ok(()),
            false => Err(format!("{user} never asked from {reached:?}: {rest}")),
        }
    }

    /// The homeserver answers.
    pub(super) fn answers(&mut self, answered: Answered) {
        let Answered { user, path, query, body } = answered;
        let shape = self.shape.as_ref().filter(|_| path == SYNC);
        let shaped = shape.and_then(|shape| shape.answer(&body, &query)).map_or(body, Bytes::from);
        let Ok(value) = serde_json::from_slice::<Value>(&shaped) else { return };
        let mut tokens = Vec::new();
        pairs(&value, &value, &mut tokens, &mut |_, _| true);
        self.given.extend(tokens.into_iter().map(|(token, _)| (user.clone(), token)));
        self.answers.entry((user, path)).or_default().push(value);
    }

    /// A device reads an answer: what is wrong with it. `has_lost` is whether it may not know its own transactions any more.
    pub(super) fn reads(
        &mut self,
        user: &str,
        path: &str,
        told: &Value,
        has_lost: bool,
    ) -> Result<(), String> {
        self.compared += 1;
        let of_user = |id: &str| (user.to_owned(), id.to_owned());
        let mut candidates: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut is_found = false;
        for answer in self.answers.get(&(user.to_owned(), path.to_owned())).into_iter().flatten().rev() {
            let mut tokens = Vec::new();
            let mut is_transaction = |own: &str, theirs: &str| {
                self.transactions.get(&of_user(theirs)).is_some_and(|known| known == own)
                    || own == theirs && has_lost
            };
            let is_same = pairs(told, answer, &mut tokens, &mut is_transaction)
                && tokens.iter().all(|(own, theirs)| self.may_stand_for(user, own, theirs));
            if is_same {
                is_found = true;
                for (own, theirs) in tokens {
                    candidates.entry(own).or_default().insert(theirs);
                }
            }
        }
        if !is_found {
            return Err(format!("{user} was told on {path} what the homeserver did not say: {told}"));
        }
        for (own, new) in candidates {
            let known = self.tokens.entry((user.to_owned(), own)).or_insert_with(|| new.clone());
            known.retain(|theirs| new.contains(theirs));
        }
        Ok(())
    }

    fn is_given(&self, user: &str, token: &str) -> bool {
        self.given.contains(&(user.to_owned(), token.to_owned()))
    }

    fn may_stand_for(&self, user: &str, own: &str, theirs: &str) -> bool {
        let known = self.tokens.get(&(user.to_owned(), own.to_owned()));
        known.is_none_or(|known| known.contains(theirs))
    }
}

/// Whether two values are the same, but for tokens, which are told, and the transactions of events, which are asked for.
fn pairs(
    own: &Value,
    theirs: &Value,
    tokens: &mut Vec<(String, String)>,
    is_transaction: &mut dyn FnMut(&str, &str) -> bool,
) -> bool {
    match (own, theirs) {
        (Value::Array(own), Value::Array(theirs)) => {
            own.len() == theirs.len()
                && own.iter().zip(theirs).all(|(own, theirs)| pairs(own, theirs, tokens, is_transaction))
        }
        (Value::Object(own), Value::Object(theirs)) => {
            own.len() == theirs.len()
                && own.iter().all(|(name, own)| {
                    let Some(theirs) = theirs.get(name) else { return false };
                    match (name.as_str(), own, theirs) {
                        ("content", ..) => own == theirs,
                        (
                            "next_batch" | "prev_batch" | "start" | "end",
                            Value::String(own),
                            Value::String(theirs),
                        ) => {
                            tokens.push((own.clone(), theirs.clone()));
                            true
                        }
                        ("transaction_id", Value::String(own), Value::String(theirs)) => {
                            is_transaction(own, theirs)
                        }
                        _ => pairs(own, theirs, tokens, is_transaction),
                    }
                })
        }
        _ => own == theirs,
    }
}

/// The same with the members of all objects in order.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().map(|(name, value)| (name, sorted(value))).collect();
            format!("{members:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(sorted).collect::<Vec<_>>()),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(transcript: &mut Transcript, body: &Value) {
        let (user, path) = ("@a:hs".to_owned(), SYNC.to_owned());
        let body = Bytes::from(body.to_string());
        transcript.answers(Answered { user, path, query: Vec::new(), body });
    }

    fn reads(transcript: &mut Transcript, told: &Value) -> bool {
        transcript.reads("@a:hs", SYNC, told, false).is_ok()
    }

    fn said(path: &str, body: Value) -> Said {
        let (user, method) = ("@a:hs".to_owned(), "PUT".to_owned());
        Said { user, method, path: path.to_owned(), query: Vec::new(), body }
    }

    #[test]
    fn a_token_stands_for_one_and_anything_else_for_itself() {
        let mut transcript = Transcript::default();
        answered(&mut transcript, &json!({ "next_batch": "s1", "x": [1.5, "$a"] }));
        answered(&mut transcript, &json!({ "next_batch": "s2", "x": [1.5, "$b"] }));
        assert!(reads(&mut transcript, &json!({ "x": [1.5, "$a"], "next_batch": "lb_0" })));
        assert!(!reads(&mut transcript, &json!({ "x": [1.5, "$b"], "next_batch": "lb_0" })), "it is s1");
        assert!(reads(&mut transcript, &json!({ "x": [1.5, "$b"], "next_batch": "lb_1" })));
        assert!(!reads(&mut transcript, &json!({ "x": [1.5, "$c"], "next_batch": "lb_2" })));
        assert!(!reads(&mut transcript, &json!({ "x": [1, "$a"], "next_batch": "lb_0" })));
    }

    #[test]
    fn an_answer_that_fits_two_leaves_open_which_it_is() {
        let mut transcript = Transcript::default();
        answered(&mut transcript, &json!({ "next_batch": "s1" }));
        answered(&mut transcript, &json!({ "next_batch": "s2" }));
        assert!(reads(&mut transcript, &json!({ "next_batch": "lb_0" })));
        answered(&mut transcript, &json!({ "next_batch": "s1", "x": 1 }));
        answered(&mut transcript, &json!({ "next_batch": "s2", "y": 1 }));
        assert!(reads(&mut transcript, &json!({ "next_batch": "lb_0", "y": 1 })));
        assert!(!reads(&mut transcript, &json!({ "next_batch": "lb_0", "x": 1 })), "it was s2");
    }

    #[test]
    fn a_request_that_nobody_made_and_a_transaction_of_two_are_noticed() {
        let mut transcript = Transcript::default();
        let send = |transaction: &str, body| {
            said(&format!("/_matrix/client/v3/rooms/!r:hs/send/m.room.message/{transaction}"), body)
        };
        transcript.asks(&send("t1", json!({ "body": "x", "transaction": "t1" })));
        transcript.asks(&send("t2", json!({ "body": "x", "transaction": "t2" })));
        assert_eq!(transcript.reaches(&send("lb.1", json!({ "transaction": "t1", "body": "x" }))), Ok(()));
        assert!(transcript.reaches(&send("lb.1", json!({ "body": "x", "transaction": "t2" }))).is_err());
        assert!(transcript.reaches(&send("lb.2", json!({ "body": "y", "transaction": "t2" }))).is_err());
    }

    #[test]
    fn own_events_have_the_clients_transaction() {
        let mut transcript = Transcript::default();
        let send = |id: &str| {
            said(&format!("/_matrix/client/v3/rooms/!r/send/x/{id}"), json!({ "transaction": "t1" }))
        };
        transcript.asks(&send("t1"));
        transcript.reaches(&send("lb.1")).unwrap();
        answered(&mut transcript, &json!({ "unsigned": { "transaction_id": "lb.1" } }));
        assert!(reads(&mut transcript, &json!({ "unsigned": { "transaction_id": "t1" } })));
        assert!(!reads(&mut transcript, &json!({ "unsigned": { "transaction_id": "t2" } })));
        let raw = json!({ "unsigned": { "transaction_id": "lb.1" } });
        assert!(!reads(&mut transcript, &raw));
        assert!(transcript.reads("@a:hs", SYNC, &raw, true).is_ok());
    }
}
