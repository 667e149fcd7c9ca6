//! What tests of devices with real processes have in common.

use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use lowband::homeserver;
use lowband::net::upstream;
use lowband::net::upstream::Upstream;
use serde_json::Value;
use serde_json::json;
use tokio::process::Command;

/// A homeserver with a user who has a room, a directory, and what it takes to run `lowband` with it.
pub(crate) struct World {
    directory: PathBuf,
    pub(crate) homeserver: homeserver::Server,
    direct: Upstream,
    pub(crate) token: String,
    pub(crate) room: String,
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("lowband-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let server = homeserver::Server::bind("127.0.0.1:0".parse().unwrap(), homeserver::Config::default());
        let homeserver = server.await.unwrap();
        let direct = Upstream::new(&upstream::Config::new(homeserver.url().parse().unwrap())).unwrap();
        let mut world = Self { directory, homeserver, direct, token: String::new(), room: String::new() };
        let user = json!({ "username": "buoy", "password": "p", "auth": { "type": "m.login.dummy" } });
        let user = world.call("POST", "register", user).await;
        world.token = user["access_token"].as_str().unwrap().to_owned();
        std::fs::write(world.path("token"), &world.token).unwrap();
        let room = world.call("POST", "createRoom", json!({})).await;
        world.room = room["room_id"].as_str().unwrap().to_owned();
        world
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// A call of the homeserver that passes the gateway by.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let request = http::Request::builder().method(method);
        let request = request.uri(format!("{}/_matrix/client/v3/{path}", self.homeserver.url()));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = request.body(Bytes::from(body.to_string())).unwrap();
        let response = self.direct.fetch(request, Duration::from_secs(10)).await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
        serde_json::from_slice(response.body()).unwrap()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowband"));
        command.env_clear().current_dir(&self.directory).kill_on_drop(true).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) async fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().await.unwrap()
    }

    pub(crate) async fn done(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `lowband device`, which finds the gateway by its socket.
    pub(crate) async fn device(&self, words: &[&str]) -> String {
        let homeserver = self.homeserver.url();
        let place = ["--devices", "state.devices"];
        let more: &[&str] = if words[0] == "add" { &["--homeserver", &homeserver] } else { &[] };
        self.done(&[&["device"], words, &place, more].concat()).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
