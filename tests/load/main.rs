//! Ten peers at once through the gateway to the minimal homeserver: no error, and nothing that stays. Once in virtual time with
//! the parameters of RFC 7252, once through real sockets. `cargo bench --bench gateway` does more of the latter and measures it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where its expectation does")]

mod peers;
mod script;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use lowband::gateway;
use lowband::homeserver;
use lowband::net;
use tokio::sync::oneshot;

use peers::Peers;
use script::Call;
use script::Member;
use world::World;

const PEERS: usize = 10;

#[test]
fn gateway_holds_nothing_once_all_lifetimes_have_passed() {
    const CALLS: usize = 1_000;
    let mut world = World::new(PEERS);
    let mut members = Vec::new();
    let mut room = String::new();
    for index in 0..PEERS {
        let name = format!("peer{index}");
        let member = Member::new(&name, &world.ask(index, None, &Call::register(&name)));
        if index == 0 {
            let created = world.ask(index, Some(&member.token), &Call::create_room());
            room = created["room_id"].as_str().unwrap().to_owned();
        } else {
            world.ask(index, Some(&member.token), &Call::join(&room));
        }
        members.push(member);
    }
    assert_eq!(world.run(CALLS, &members, &room), Vec::<String>::new());

    let counters = world.gateway.counters();
    assert_eq!(counters.fetches, (PEERS * (CALLS + 2)) as u64);
    assert_eq!((counters.refusals, counters.fetch_failures, counters.bad_answers), (0, 0, 0));
    assert_eq!((counters.peers, counters.sessions, counters.fetching), (PEERS, PEERS, 0));

    // RFC 7252 §4.8.2: EXCHANGE_LIFETIME, after which no message can come again.
    world.pass(Duration::from_secs(247));
    assert_eq!(world.gateway.counters().peers, 0);
    world.pass(Duration::from_secs(24 * 3600));
    assert_eq!(world.gateway.counters().sessions, 0);
    assert!(world.gateway.is_idle());
    assert_eq!(world.gateway.deadline(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_peers_over_sockets_get_no_error() {
    const CALLS: usize = 100;
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let homeserver = homeserver::Server::bind(any, homeserver::Config::default()).await.unwrap();
    let url: http::Uri = homeserver.url().parse().unwrap();
    let gateway = net::gateway::Server::bind(net::gateway::Config {
        listen: vec![any.into()],
        gateway: gateway::Config::new(url.clone()),
        state: None,
        devices: None,
        dtls: lowband::net::dtls::Config::default(),
        upstream: net::upstream::Config::new(url),
        grace: Duration::from_secs(5),
        report: Duration::from_secs(3_600),
    });
    let gateway = gateway.unwrap();
    let address = gateway.addresses()[0];
    let (stop, stopped) = oneshot::channel::<()>();
    let gateway = tokio::spawn(gateway.run(async { drop(stopped.await) }));

    let mut peers = Peers::connect(address, "peer", PEERS).await;
    assert_eq!(peers.run(CALLS).await, Vec::<String>::new());
    drop(stop);
    let counters = gateway.await.unwrap().gateway;
    homeserver.shutdown().await;
    assert_eq!(counters.fetches, (PEERS * (CALLS + 2)) as u64);
    assert_eq!((counters.refusals, counters.fetch_failures, counters.bad_answers), (0, 0, 0));
    assert_eq!(counters.fetching, 0);
}
