//! The story: two users register, log in, meet in a room, write, and hear of each other by Observe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde_json::Value;
use serde_json::json;

use super::peer::Feed;
use super::peer::Peer;
use super::report::Report;
use super::report::Step;
use super::report::duration;
use super::report::seconds_on_link;
use super::wire;
use super::wire::Log;
use crate::cli::Failure;

/// How long nothing happens, to show what that costs.
const IDLE: Duration = Duration::from_secs(3);

/// The rooms they meet in; as many as when the costs over HTTPS were measured.
const ROOMS: [&str; 3] = ["Base camp", "Weather", "Supplies"];

const SYNC: &str = "/_matrix/client/v3/sync";

/// Where the conversation takes place.
pub(super) struct Setting {
    pub(super) gateway: SocketAddr,
    pub(super) homeserver: Uri,
    /// Whether the homeserver is the built-in one.
    pub(super) minimal: bool,
}

/// Holds the whole conversation.
pub(super) async fn hold(log: &Arc<Log>, setting: &Setting) -> Result<Report, Failure> {
    let kind = if setting.minimal { "a minimal in-memory homeserver" } else { "a homeserver" };
    log.say(&format!("{kind} at {}", setting.homeserver))?;
    log.say(&format!("a gateway in front of it at coap://{}", setting.gateway))?;
    log.say("two CoAP clients, alice and bob")?;
    log.say(&format!(
        "each line is one datagram; of its bytes {} are the headers of IP and UDP",
        wire::HEADERS
    ))?;
    let mut conversation = Conversation {
        log,
        alice: User::new("alice", setting, log).await?,
        bob: User::new("bob", setting, log).await?,
        title: String::new(),
        steps: Vec::new(),
    };
    let costs = conversation.run().await?;
    let Conversation { alice, bob, steps, .. } = conversation;
    tokio::join!(alice.peer.close(), bob.peer.close());
    let homeserver = setting.homeserver.to_string();
    Ok(Report::new(homeserver, setting.minimal, log.elapsed_ms(), steps, &costs))
}

/// What a homeserver other than the built-in one needs.
const REGISTRATION: &str =
    "it has to be up and to let anybody register (Synapse: enable_registration_without_verification)";

struct User {
    peer: Peer,
    /// The localpart of the user id.
    name: String,
    password: String,
}

impl User {
    async fn new(name: &'static str, setting: &Setting, log: &Arc<Log>) -> Result<Self, Failure> {
        let mut random = [0; 12];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::new(format_args!("no random bytes: {error}")))?;
        let random = base16ct::lower::encode_string(&random);
        // A real homeserver may have an alice already.
        let tag = random.get(..6).unwrap_or_default();
        let localpart = if setting.minimal { name.to_owned() } else { format!("{name}-{tag}") };
        Ok(Self { peer: Peer::connect(name, setting.gateway, log).await?, name: localpart, password: random })
    }

    async fn register(&mut self) -> Result<(), Failure> {
        let body = json!({
            "username": self.name,
            "password": self.password,
            "inhibit_login": true,
            "auth": { "type": "m.login.dummy" },
        });
        let answer = self.peer.call("POST", "/_matrix/client/v3/register", Some(body)).await;
        answer.map(drop).map_err(|failure| failure.hint(REGISTRATION))
    }

    /// Returns the user id.
    async fn log_in(&mut self) -> Result<String, Failure> {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": self.name },
            "password": self.password,
        });
        let answer = self.peer.call("POST", "/_matrix/client/v3/login", Some(body)).await?;
        self.peer.introduce(text(&answer, "access_token")?);
        Ok(text(&answer, "user_id")?.to_owned())
    }

    async fn create_room(&mut self, name: &str, invite: &str) -> Result<String, Failure> {
        let body = json!({ "name": name, "preset": "private_chat", "invite": [invite] });
        let answer = self.peer.call("POST", "/_matrix/client/v3/createRoom", Some(body)).await?;
        Ok(text(&answer, "room_id")?.to_owned())
    }

    async fn join(&mut self, room: &str) -> Result<(), Failure> {
        let target = format!("/_matrix/client/v3/rooms/{}/join", encoded(room));
        self.peer.call("POST", &target, Some(json!({}))).await.map(drop)
    }

    /// Returns the event id.
    async fn send(&mut self, room: &str, transaction: &str, body: &str) -> Result<String, Failure> {
        let target = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{transaction}", encoded(room));
        let content = json!({ "msgtype": "m.text", "body": body });
        let answer = self.peer.call("PUT", &target, Some(content)).await?;
        Ok(text(&answer, "event_id")?.to_owned())
    }
}

struct Conversation<'a> {
    log: &'a Log,
    alice: User,
    bob: User,
    /// The step under way.
    title: String,
    steps: Vec<Step>,
}

impl Conversation<'_> {
    /// Returns the bytes of the calls that were measured over HTTPS too.
    async fn run(&mut self) -> Result<Vec<(&'static str, usize)>, Failure> {
        self.begin("alice registers")?;
        self.alice.register().await?;
        self.finish().await?;

        self.begin("bob registers")?;
        self.bob.register().await?;
        self.finish().await?;

        self.begin("alice logs in")?;
        self.alice.log_in().await?;
        let login = self.finish().await?.bytes;

        self.begin("bob logs in")?;
        let bob = self.bob.log_in().await?;
        self.finish().await?;

        let mut rooms = Vec::new();
        for name in ROOMS {
            self.begin(&format!("alice creates the room {name:?} and invites bob, who joins"))?;
            let room = self.alice.create_room(name, &bob).await?;
            self.bob.join(&room).await?;
            self.finish().await?;
            rooms.push(room);
        }
        let room = rooms.first().map_or("", String::as_str);

        self.begin("bob observes /sync, and begins with the initial sync")?;
        let mut bob_hears = self.bob.peer.observe(SYNC)?;
        let first = bob_hears.next().await?;
        let initial_sync = self.finish().await?.bytes;
        let joined = first.pointer("/rooms/join").and_then(Value::as_object).map_or(0, serde_json::Map::len);
        self.remark(&format!("bob is in {joined} rooms"))?;

        self.begin("alice writes, and bob is notified")?;
        let event = self.alice.send(room, "t1", "Hello World").await?;
        let heard = hear(&mut bob_hears, &event).await?;
        let Cost { alice: send, bob: sync, .. } = self.finish().await?;
        self.remark(&format!("bob reads {heard}"))?;

        self.begin(&format!("nothing happens for {} s", IDLE.as_secs()))?;
        tokio::time::sleep(IDLE).await;
        let idle = self.finish().await?.bytes;

        self.begin("alice observes /sync with a filter that leaves the past out")?;
        let filter = json!({ "room": { "timeline": { "limit": 1 }, "state": { "types": [] } } });
        let target = format!("{SYNC}?filter={}", encoded(&filter.to_string()));
        let mut alice_hears = self.alice.peer.observe(&target)?;
        alice_hears.next().await?;
        self.finish().await?;

        self.begin("bob answers, and alice is notified; bob hears his own message, too")?;
        let event = self.bob.send(room, "t1", "Hello Alice").await?;
        let heard = hear(&mut alice_hears, &event).await?;
        hear(&mut bob_hears, &event).await?;
        self.finish().await?;
        self.remark(&format!("alice reads {heard}"))?;

        self.begin("both stop observing")?;
        drop((alice_hears, bob_hears));
        self.finish().await?;
        Ok(vec![
            ("login", login),
            ("initial sync", initial_sync),
            ("send", send),
            ("sync", sync),
            ("idle", idle),
        ])
    }

    fn begin(&mut self, title: &str) -> Result<(), Failure> {
        self.title = title.to_owned();
        self.log.say(&format!("\n{title}"))
    }

    /// Ends a step when all that belongs to it has passed.
    async fn finish(&mut self) -> Result<Cost, Failure> {
        let step = Step::new(&self.title, self.log.settle().await?);
        self.remark(&format!("{} B, {} at 100 bit/s", step.bytes, duration(seconds_on_link(step.bytes))))?;
        let cost = Cost { bytes: step.bytes, alice: step.bytes_of("alice"), bob: step.bytes_of("bob") };
        self.steps.push(step);
        Ok(cost)
    }

    /// Shows a line below the datagrams.
    fn remark(&self, line: &str) -> Result<(), Failure> {
        self.log.say(&format!("             {line}"))
    }
}

/// The bytes of a step, in all and on each link.
struct Cost {
    bytes: usize,
    alice: usize,
    bob: usize,
}

/// Waits for the notification that has an event, and returns its text.
async fn hear(feed: &mut Feed, event_id: &str) -> Result<String, Failure> {
    loop {
        let answer = feed.next().await?;
        let rooms = answer.pointer("/rooms/join").and_then(Value::as_object).into_iter().flatten();
        let timelines = rooms.filter_map(|(_, room)| room.pointer("/timeline/events")?.as_array());
        let found = timelines.flatten().find(|event| event.get("event_id").is_some_and(|id| id == event_id));
        if let Some(event) = found {
            let sender = text(event, "sender")?;
            let body = event.pointer("/content/body").and_then(Value::as_str).unwrap_or_default();
            return Ok(format!("<{sender}> {body}"));
        }
    }
}

fn text<'a>(object: &'a Value, name: &str) -> Result<&'a str, Failure> {
    let value = object.get(name).and_then(Value::as_str);
    value.ok_or_else(|| Failure::new(format_args!("the homeserver's answer has no {name}")))
}

/// A text as one segment of a path, or one value of a query.
fn encoded(text: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}
