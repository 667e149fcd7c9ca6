//! Many CoAP clients at once, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use lowband::endpoint;
use lowband::net::client::Client;
use serde_json::Value;

use super::script::Call;
use super::script::Member;

/// Clients that are logged in and in one room.
pub(crate) struct Peers {
    peers: Vec<(Client, Member)>,
    room: Arc<str>,
    /// Calls that each has made already, so that no transaction id comes twice.
    made: usize,
}

impl Peers {
    /// Registers so many users, named after the group, and brings them together.
    pub(crate) async fn connect(gateway: SocketAddr, group: &str, count: usize) -> Peers {
        let mut peers = Vec::new();
        let mut room = String::new();
        for index in 0..count {
            let name = format!("{group}{index}");
            let client = Client::connect(gateway, endpoint::Config::default()).await.unwrap();
            let member = Member::new(&name, &ask(&client, None, &Call::register(&name)).await);
            let token = Some(member.token.as_str());
            if index == 0 {
                let created = ask(&client, token, &Call::create_room()).await;
                room = created["room_id"].as_str().unwrap().to_owned();
            } else {
                ask(&client, token, &Call::join(&room)).await;
            }
            peers.push((client, member));
        }
        Peers { peers, room: room.into(), made: 0 }
    }

    /// Lets each make so many calls, one after the other, and all at the same time. Returns what went wrong.
    pub(crate) async fn run(&mut self, calls: usize) -> Vec<String> {
        let numbers = self.made..self.made + calls;
        self.made = numbers.end;
        let running: Vec<_> = self
            .peers
            .iter()
            .cloned()
            .map(|(client, member)| {
                let (room, numbers) = (Arc::clone(&self.room), numbers.clone());
                tokio::spawn(async move {
                    let mut errors = Vec::new();
                    for number in numbers {
                        let call = Call::of_load(number, &member, &room);
                        let response = client.request(call.to_coap(None)).await;
                        let checked = response.map_err(|error| error.to_string());
                        errors.extend(
                            checked.and_then(|response| call.check(number, &member, &response)).err(),
                        );
                    }
                    errors
                })
            })
            .collect();
        let mut errors = Vec::new();
        for peer in running {
            errors.extend(peer.await.unwrap());
        }
        errors
    }
}

async fn ask(client: &Client, token: Option<&str>, call: &Call) -> Value {
    call.read(&client.request(call.to_coap(token)).await.unwrap()).unwrap()
}
