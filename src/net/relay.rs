//! A link between real sockets: what clients send passes a [`Channel`] on its way to one server, and so do the answers.
//!
//! Each client's address is one peer of the channel, and has a socket of its own towards the server. Datagrams are carried as
//! they are; only their time and their fate are the channel's.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::iter;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time;
use tracing::debug;

use super::clock::Clock;
use super::socket;
use super::socket::Batch;
use super::socket::Socket;
use crate::coap::Instant;
use crate::endpoint::Address;
use crate::link::End;
use crate::link::Profile;
use crate::sim::Channel;
use crate::sim::Impairments;
use crate::sim::Passage;
use crate::sim::PeerNumber;
use crate::sim::Traffic;

/// A relay that is bound and not yet running.
pub struct Relay {
    listener: Socket,
    batch: Batch,
    buffer: Vec<u8>,
    channel: Channel,
    clock: Clock,
    clients: BTreeMap<PeerNumber, Client>,
    numbers: BTreeMap<Address, PeerNumber>,
    next_number: PeerNumber,
    counters: Counters,
    config: Config,
    watch: Watch,
}

/// What a relay joins, and by what.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients send to.
    pub listen: SocketAddr,
    /// The server.
    pub to: SocketAddr,
    /// The link.
    pub profile: Profile,
    /// What goes wrong on it beside.
    pub impairments: Impairments,
    /// All chance comes from this.
    pub seed: u64,
    /// Clients at a time; the one that was silent for longest makes room.
    pub clients: usize,
    /// How long a client may be silent, in both directions.
    pub idle: Duration,
}

/// Sees each datagram as it is handed to the channel: from which end, of which client, how long it is, and what becomes of it.
pub type Watch = Box<dyn FnMut(&Sent) + Send>;

/// A datagram that was handed to the channel.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When, since the relay's start.
    pub at: Instant,
    /// By which end.
    pub from: End,
    /// The client that it is from or for.
    pub client: SocketAddr,
    /// Bytes of UDP payload.
    pub bytes: usize,
    /// What becomes of it.
    pub passage: Passage,
}

/// What a relay has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// From clients to the server.
    pub up: Traffic,
    /// From the server to clients.
    pub down: Traffic,
    /// Clients that were seen.
    pub clients: u64,
    /// Clients that were forgotten as they were silent, or to make room.
    pub forgotten: u64,
    /// Datagrams that could not be received or sent: nobody listens there, or a buffer is full.
    pub socket_errors: u64,
}

/// One client.
struct Client {
    address: Address,
    socket: UdpSocket,
    heard: Instant,
}

impl Relay {
    /// Binds. From here on datagrams wait in the socket for [`Relay::run`].
    ///
    /// # Errors
    /// What the system says of the address to listen on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(config: Config, watch: Watch) -> io::Result<Self> {
        let channel = Channel::new(config.profile.clone(), config.impairments.clone(), config.seed);
        Ok(Self {
            listener: Socket::bind(config.listen)?,
            batch: Batch::new(),
            buffer: vec![0; 65_535],
            channel,
            clock: Clock::from_zero(),
            clients: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            counters: Counters::default(),
            config,
            watch,
        })
    }

    /// The address where clients send to, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.listener.local()
    }

    /// Relays until `stop` is ready, and returns what it counted. What is on its way then is lost.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Counters {
        let mut stop = std::pin::pin!(stop);
        loop {
            let idle = self.clients.values().map(|client| client.heard + self.config.idle).min();
            let deadline = [self.channel.deadline(), idle].into_iter().flatten().min();
            tokio::select! {
                () = &mut stop => return self.counters(),
                () = readable(&self.listener, &self.clients) => {}
                () = self.clock.sleep_until(deadline) => {}
            }
            self.forget_silent();
            let received = [self.receive_from_clients().await, self.receive_from_server()];
            self.deliver();
            if received.iter().any(Result::is_err) {
                time::sleep(socket::REST).await;
            }
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            up: *self.channel.traffic(End::Peer),
            down: *self.channel.traffic(End::Gateway),
            ..self.counters
        }
    }

    async fn receive_from_clients(&mut self) -> Result<(), ()> {
        if let Err(error) = self.listener.receive(&mut self.batch) {
            debug!(%error, "cannot receive from clients");
            self.counters.socket_errors += 1;
            return Err(());
        }
        let now = self.clock.now();
        let received: Vec<_> =
            self.batch.datagrams().map(|(address, datagram)| (address, datagram.to_vec())).collect();
        for (address, datagram) in received {
            match self.number_of(address, now).await {
                Ok(number) => self.send(End::Peer, number, datagram, now),
                Err(error) => {
                    debug!(client = %address.remote, %error, "cannot make a socket towards the server");
                    self.counters.socket_errors += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes at most a few datagrams of each client, so that none keeps the others waiting.
    fn receive_from_server(&mut self) -> Result<(), ()> {
        let now = self.clock.now();
        let (mut received, mut result) = (Vec::new(), Ok(()));
        for (number, client) in &self.clients {
            for _ in 0..Self::BATCH {
                match client.socket.try_recv(&mut self.buffer) {
                    Ok(length) => {
                        received.push((*number, self.buffer.get(..length).unwrap_or_default().to_vec()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Nobody listens there, say: each such word is about a datagram that was sent before.
                    Err(error) => {
                        debug!(client = %client.address.remote, %error, "cannot receive from the server");
                        self.counters.socket_errors += 1;
                        result = Err(());
                    }
                }
            }
        }
        for (number, datagram) in received {
            self.send(End::Gateway, number, datagram, now);
        }
        result
    }

    fn send(&mut self, from: End, number: PeerNumber, datagram: Vec<u8>, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.heard = now;
        let bytes = datagram.len();
        let client = client.address.remote;
        let passage = self.channel.send(from, number, datagram, now);
        (self.watch)(&Sent { at: now, from, client, bytes, passage });
    }

    /// Hands on what has come out of the channel.
    fn deliver(&mut self) {
        while let Some(arrival) = self.channel.poll(self.clock.now()) {
            // A client that was forgotten meanwhile gets nothing more.
            let Some(client) = self.clients.get(&arrival.peer) else { continue };
            let sent = match arrival.to {
                End::Gateway => client.socket.try_send(&arrival.datagram).map(drop),
                End::Peer => self.listener.send(client.address, &arrival.datagram),
            };
            if let Err(error) = sent {
                debug!(client = %client.address.remote, to = ?arrival.to, %error, "cannot send");
                self.counters.socket_errors += 1;
            }
        }
    }

    /// The number of a client, a new one if it has none.
    async fn number_of(&mut self, address: Address, now: Instant) -> io::Result<PeerNumber> {
        if let Some(number) = self.numbers.get(&address) {
            return Ok(*number);
        }
        if self.clients.len() >= self.config.clients.max(1) {
            let silent = self.clients.iter().min_by_key(|(_, client)| client.heard);
            if let Some(number) = silent.map(|(number, _)| *number) {
                self.forget(number);
            }
        }
        let any: IpAddr = match self.config.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(self.config.to).await?;
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        self.counters.clients += 1;
        self.numbers.insert(address, number);
        self.clients.insert(number, Client { address, socket, heard: now });
        Ok(number)
    }

    fn forget_silent(&mut self) {
        let now = self.clock.now();
        let silent = self.clients.iter().filter(|(_, client)| client.heard + self.config.idle <= now);
        for number in silent.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: PeerNumber) {
        let Some(client) = self.clients.remove(&number) else { return };
        self.numbers.remove(&client.address);
        self.channel.forget(number);
        self.counters.forgotten += 1;
    }

    /// Datagrams of one client that one turn takes from the server.
    const BATCH: usize = 16;
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("listen", &self.listener.local())
            .field("to", &self.config.to)
            .finish_non_exhaustive()
    }
}

/// Ready once a datagram may be there, from a client or from the server.
async fn readable(listener: &Socket, clients: &BTreeMap<PeerNumber, Client>) {
    let clients = clients.values().map(|client| &client.socket);
    socket::readable(iter::once(listener.io()).chain(clients)).await;
}
