//! What each peer of a load asks for, and how it knows that the answer is right.

use bytes::Bytes;
use http::header;
use lowband::coap;
use lowband::coap::OptionNumber;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::translate;
use serde_json::Value;
use serde_json::json;

/// A call of the Matrix API.
pub(crate) struct Call {
    method: &'static str,
    target: String,
    body: Option<Value>,
}

/// Somebody who is logged in.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) user_id: String,
    pub(crate) token: String,
}

impl Call {
    pub(crate) fn register(name: &str) -> Call {
        let body = json!({ "username": name, "password": "p", "auth": { "type": "m.login.dummy" } });
        Call { method: "POST", target: "/_matrix/client/v3/register".to_owned(), body: Some(body) }
    }

    /// A room that everybody may join.
    pub(crate) fn create_room() -> Call {
        let body = json!({ "preset": "public_chat", "name": "Load" });
        Call { method: "POST", target: "/_matrix/client/v3/createRoom".to_owned(), body: Some(body) }
    }

    pub(crate) fn join(room: &str) -> Call {
        Call { method: "POST", target: format!("/_matrix/client/v3/join/{room}"), body: Some(json!({})) }
    }

    /// The call of that number: of ten calls four send a message, and six read.
    pub(crate) fn of_load(number: usize, member: &Member, room: &str) -> Call {
        let base = format!("/_matrix/client/v3/rooms/{room}");
        let (target, body) = match number % 10 {
            0 | 3 | 5 | 8 => {
                let content =
                    json!({ "msgtype": "m.text", "body": format!("{} says {number}", member.name) });
                (format!("{base}/send/m.room.message/{number}"), Some(content))
            }
            1 | 6 => ("/_matrix/client/v3/account/whoami".to_owned(), None),
            2 => (format!("{base}/messages?dir=b&limit=3"), None),
            4 => (format!("{base}/state/m.room.name"), None),
            7 => (format!("/_matrix/client/v3/profile/{}/displayname", member.user_id), None),
            _ => (format!("{base}/joined_members"), None),
        };
        Call { method: if body.is_some() { "PUT" } else { "GET" }, target, body }
    }

    /// The CoAP request. A token is said once: the gateway remembers it.
    pub(crate) fn to_coap(&self, token: Option<&str>) -> coap::Request {
        let body = self.body.as_ref().map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let mut request = http::Request::builder().method(self.method).uri(&self.target);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body).unwrap();
        let mut request = translate::request::to_coap(&request, Keys::V1, &Limits::default()).unwrap();
        if token.is_none() {
            request.options.remove(OptionNumber::CBOR_VERSION);
        }
        request
    }

    /// The answer's body, if it has the status 200.
    pub(crate) fn read(&self, response: &coap::Response) -> Result<Value, String> {
        let response = translate::response::to_http(response, &Limits::default());
        let response = response.map_err(|error| format!("{} {}: {error}", self.method, self.target))?;
        let body = String::from_utf8_lossy(response.body());
        match response.status().as_u16() {
            200 => serde_json::from_str(&body).map_err(|error| format!("{}: {error}: {body}", self.target)),
            status => Err(format!("{} {}: {status}: {body}", self.method, self.target)),
        }
    }

    /// Checks the answer to [`Call::of_load`] of that number.
    pub(crate) fn check(
        &self,
        number: usize,
        member: &Member,
        response: &coap::Response,
    ) -> Result<(), String> {
        let body = self.read(response)?;
        let right = match number % 10 {
            0 | 3 | 5 | 8 => body["event_id"].as_str().is_some_and(|id| id.len() == 44),
            1 | 6 => body["user_id"] == member.user_id,
            2 => body["chunk"].as_array().is_some_and(|chunk| chunk.len() == 3),
            4 => body == json!({ "name": "Load" }),
            7 => body == json!({ "displayname": member.name }),
            _ => body["joined"].get(&member.user_id).is_some(),
        };
        if right { Ok(()) } else { Err(format!("{} {}: {body}", self.method, self.target)) }
    }
}

impl Member {
    /// Who the answer to [`Call::register`] is for.
    pub(crate) fn new(name: &str, answer: &Value) -> Member {
        let text = |field: &str| answer[field].as_str().unwrap().to_owned();
        Member { name: name.to_owned(), user_id: text("user_id"), token: text("access_token") }
    }
}
