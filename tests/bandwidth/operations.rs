//! What is measured: calls of a device, as a Synapse answered them.

use serde_json::Value;
use serde_json::json;

/// A call, or a notification.
#[derive(Clone, Debug)]
pub struct Operation {
    pub name: String,
    pub method: String,
    pub target: String,
    pub body: Option<Value>,
    pub answer: Value,
}

/// One JSON object a line, from the exchanges of `tests/corpus` with Synapse 1.163. Changed are the texts of the messages, to "Hello
/// World", and the initial sync, which has the rooms of two recorded ones.
const OPERATIONS: &str = include_str!("operations.jsonl");

impl Operation {
    /// A call without a body, which is answered with nothing.
    pub fn new(method: &str, target: &str) -> Self {
        let (name, body, answer) = (String::new(), None, json!({}));
        Self { name, method: method.to_owned(), target: target.to_owned(), body, answer }
    }

    /// The recorded one of this name.
    pub fn recorded(name: &str) -> Self {
        let operations = all();
        let found = operations.into_iter().find(|operation| operation.name == name);
        found.unwrap_or_else(|| panic!("no operation {name}"))
    }

    /// Whether it is for those who have no access token yet.
    pub fn is_open(&self) -> bool {
        self.target.ends_with("/login") || self.target.ends_with("/register")
    }
}

fn all() -> Vec<Operation> {
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        Operation {
            name: text("operation"),
            method: text("method"),
            target: text("target"),
            body: Some(line["body"].clone()).filter(|body| !body.is_null()),
            answer: line["answer"].clone(),
        }
    };
    OPERATIONS.lines().map(read).collect()
}
