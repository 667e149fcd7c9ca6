//! One peer's endpoint in real time: requests, observations, and what they cost on the wire.
//!
//! A task owns the endpoint's machine and a connected socket; a [`Client`] tells it what to do. It ends when the client and all
//! its observations are gone.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time;
use tracing::debug;

use super::clock::Clock;
use crate::coap;
use crate::coap::Observe;
use crate::coap::Response;
use crate::endpoint;
use crate::endpoint::Address;
use crate::endpoint::Endpoint;
use crate::endpoint::Event;
use crate::endpoint::RequestId;

/// A CoAP client of one peer. Clones share its socket.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    traffic: Arc<Meter>,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Client {
    /// A client with a socket of its own on a free port. Sends nothing yet.
    ///
    /// # Errors
    /// What the system says: no route, no free port, no randomness.
    pub async fn connect(remote: SocketAddr, config: endpoint::Config) -> io::Result<Self> {
        Self::connect_watched(remote, config, Box::new(|_, _| {})).await
    }

    /// As [`Client::connect`]; `watch` sees each datagram as it leaves or arrives, before anything is made of it.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_watched(
        remote: SocketAddr,
        config: endpoint::Config,
        watch: Watch,
    ) -> io::Result<Self> {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(remote).await?;
        let local = socket.local_addr()?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let (commands, orders) = mpsc::unbounded_channel();
        let traffic = Arc::new(Meter::default());
        let driver = Driver {
            machine: Endpoint::new(config, seed),
            clock: Clock::start(),
            // The peer is known by the connected socket: there is nothing to choose from.
            address: Address { remote, local: any },
            socket,
            waiting: BTreeMap::new(),
            watch,
            traffic: Arc::clone(&traffic),
        };
        tokio::spawn(driver.run(orders));
        Ok(Self { commands, traffic, local, remote })
    }

    /// Sends a request and waits for its whole response. Dropping the future forgets the request.
    ///
    /// # Errors
    /// No response: none in time, a reset, nobody there.
    pub async fn request(&self, request: coap::Request) -> Result<Response, RequestError> {
        let (sender, receiver) = oneshot::channel();
        let _cancel = self.start(request, Waiter::Once(Some(sender)));
        receiver.await.unwrap_or(Err(RequestError::Closed))
    }

    /// Sends a request that asks for an observation, whatever it asked for before.
    pub fn observe(&self, mut request: coap::Request) -> Observation {
        request.observe = Some(Observe::Register);
        let (sender, receiver) = mpsc::channel(Observation::QUEUE);
        let cancel = self.start(request, Waiter::Many(sender));
        Observation { responses: receiver, cancel }
    }

    /// What has crossed the wire so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic.read()
    }

    /// The address that its datagrams leave from, as far as the system has said.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Ends all observations and waits until the peer has acknowledged that, for at most `patience`.
    pub async fn close(self, patience: Duration) {
        let (sender, receiver) = oneshot::channel();
        let _ = self.commands.send(Command::Close { patience, done: sender });
        let _ = receiver.await;
    }

    fn start(&self, request: coap::Request, waiter: Waiter) -> CancelOnDrop {
        let key = Key(self.traffic.requests.fetch_add(1, Ordering::Relaxed));
        // A task that is gone drops the waiter, and that is what the waiter hears.
        let _ = self.commands.send(Command::Start { key, request, waiter });
        CancelOnDrop { key, commands: self.commands.clone() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("local", &self.local).field("remote", &self.remote).finish_non_exhaustive()
    }
}
