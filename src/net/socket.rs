//! UDP sockets that receive in batches and answer from the address that was asked (RFC 7252 §4.1: a peer matches an answer
//! by its source).
//!
//! On a wildcard address the kernel would choose the source by its routes, and a host with several addresses would answer
//! from another one than was asked. So every datagram carries its own destination up, and takes it down again as its source.

use std::fmt;
use std::future;
use std::io;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use quinn_udp::RecvMeta;
use quinn_udp::Transmit;
use quinn_udp::UdpSocketState;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::endpoint::Address;

/// One bound socket.
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Socket {
    /// Bytes of datagrams that may wait in the kernel.
    const RECEIVE_BUFFER: usize = 2 << 20;

    /// Binds. Port 0 takes a free port; an IPv6 address takes IPv6 alone (`IPV6_V6ONLY`), so that `[::]` and `0.0.0.0` are
    /// two sockets on every system, whatever its default, and no peer appears under two forms of one address.
    ///
    /// # Errors
    /// What the system says: the address is in use, or is none of this host, or the port is reserved.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // Room for a burst, as far as the system allows it; less is no error.
        let _ = socket.set_recv_buffer_size(Self::RECEIVE_BUFFER);
        socket.bind(&address.into())?;
        let io = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&io).into())?;
        discover_mtu(&io, address)?;
        let local = io.local_addr()?;
        Ok(Self { io, state, local })
    }

    /// The address that it is bound to, with its real port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether this is the socket that a datagram from this local address leaves by.
    pub(crate) fn serves(&self, local: IpAddr) -> bool {
        let ours = self.local.ip();
        ours == local || ours.is_unspecified() && ours.is_ipv4() == local.is_ipv4()
    }

    /// The system's own socket, to be waited for.
    pub(super) fn io(&self) -> &UdpSocket {
        &self.io
    }

    /// Takes what has arrived, at most one batch; nothing is no error.
    ///
    /// # Errors
    /// What the system says, about this socket or about something that it sent before. The socket can go on.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.received = 0;
        batch.bound = self.local.ip();
        let mut slices: Vec<_> = batch.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let metas = &mut batch.metas;
        let received =
            self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), &mut slices, metas));
        match received {
            Ok(received) => batch.received = received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends one datagram, from the address that its peer knows.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` where its buffer is full. The datagram is lost, as any datagram may be.
    pub fn send(&self, address: Address, datagram: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: address.remote,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: (!address.local.is_unspecified()).then_some(address.local),
        };
        // Without tokio's readiness: nobody waits for room, and it does not know of any before the first wait.
        self.state.try_send((&self.io).into(), &transmit)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.local).finish()
    }
}

/// The rest after a receive that failed, so that a socket that fails for good does not take a processor with it.
pub(super) const REST: Duration = Duration::from_millis(5);

/// Ready once a datagram may be in one of the sockets. Dropped while it waits, it loses nothing.
pub(super) async fn readable<'a>(sockets: impl Iterator<Item = &'a UdpSocket> + Clone) {
    future::poll_fn(|context| {
        // All are asked, so that all wake this task.
        let ready = sockets.clone().filter(|socket| socket.poll_recv_ready(context).is_ready()).count();
        if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Lets the system learn the path's MTU and fragment by it. QUIC probes the path by itself and so forbids both; with CoAP a
/// datagram that is too large for some link on the way would vanish there each time (RFC 7252 §4.6 leaves fragments to IP).
#[cfg(target_os = "linux")]
fn discover_mtu(io: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    use rustix::net::sockopt;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(io, sockopt::Ipv4PathMtuDiscovery::WANT)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_mtu_discover(io, sockopt::Ipv6PathMtuDiscovery::WANT)?,
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn discover_mtu(_: &UdpSocket, _: SocketAddr) -> io::Result<()> {
    Ok(())
}

/// Room for the datagrams of one receive, used again and again.
pub struct Batch {
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
    received: usize,
    bound: IpAddr,
}

impl Batch {
    /// Datagrams, or runs of datagrams that the kernel has joined, in one receive.
    const SIZE: usize = 16;
    /// Bytes of one: the largest UDP datagram, and the largest run.
    const BUFFER: usize = 65_535;

    /// An empty one.
    pub fn new() -> Self {
        Self {
            buffers: vec![vec![0; Self::BUFFER]; Self::SIZE],
            metas: vec![RecvMeta::default(); Self::SIZE],
            received: 0,
            bound: IpAddr::from([0, 0, 0, 0]),
        }
    }

    /// The datagrams of the last receive, in order, each with who sent it and whom it was sent to.
    ///
    /// Those to a multicast or broadcast address are left out: nobody here has joined a group, and an answer could not
    /// leave from such an address (RFC 7252 §8.2).
    pub fn datagrams(&self) -> impl Iterator<Item = (Address, &[u8])> {
        let filled = self.metas.iter().zip(&self.buffers).take(self.received);
        filled
            .filter_map(|(meta, buffer)| {
                let local = meta.dst_ip.unwrap_or(self.bound);
                let address = Address { remote: meta.addr, local };
                (!is_to_many(local)).then_some((address, buffer.get(..meta.len)?, meta.stride.max(1)))
            })
            .flat_map(|(address, run, stride)| {
                // A datagram of no bytes is no run of any length.
                run.chunks(stride).map(move |datagram| (address, datagram))
            })
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

fn is_to_many(local: IpAddr) -> bool {
    local.is_multicast() || local == IpAddr::from([255; 4])
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    async fn receive(socket: &Socket, batch: &mut Batch) -> Vec<(Address, Vec<u8>)> {
        readable(std::iter::once(socket.io())).await;
        socket.receive(batch).unwrap();
        batch.datagrams().map(|(address, datagram)| (address, datagram.to_vec())).collect()
    }

    fn peer(address: &str) -> UdpSocket {
        let peer = UdpSocket::bind(address).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer
    }

    #[tokio::test]
    async fn an_answer_leaves_from_the_address_that_was_asked() {
        let socket = Socket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let asked = SocketAddr::from(([127, 0, 0, 2], socket.local().port()));
        let peer = peer("127.0.0.1:0");
        peer.send_to(b"question", asked).unwrap();

        let received = receive(&socket, &mut Batch::new()).await;
        let [(address, datagram)] = received.as_slice() else { panic!("{received:?}") };
        assert_eq!(datagram, b"question");
        assert_eq!(*address, Address { remote: peer.local_addr().unwrap(), local: asked.ip() });

        socket.send(*address, b"answer").unwrap();
        let mut answer = [0; 16];
        let (length, from) = peer.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from), (b"answer".as_slice(), asked));
    }

    #[tokio::test]
    async fn ipv6_takes_ipv6_alone_and_answers_from_the_address_that_was_asked() {
        let socket = Socket::bind("[::]:0".parse().unwrap()).unwrap();
        let same_port = SocketAddr::from(([0, 0, 0, 0], socket.local().port()));
        let over_ipv4 = Socket::bind(same_port).expect("an IPv6 socket leaves IPv4 alone");
        assert!(
            !socket.serves("127.0.0.1".parse().unwrap()) && over_ipv4.serves("127.0.0.1".parse().unwrap())
        );

        let asked: SocketAddr = format!("[::1]:{}", socket.local().port()).parse().unwrap();
        let peer = peer("[::1]:0");
        peer.send_to(b"question", asked).unwrap();
        let received = receive(&socket, &mut Batch::new()).await;
        assert_eq!(received[0].0.local, asked.ip());
        socket.send(received[0].0, b"answer").unwrap();
        assert_eq!(peer.recv_from(&mut [0; 16]).unwrap(), (6, asked));
    }

    #[tokio::test]
    async fn what_waits_is_taken_in_one_batch_and_in_order() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = peer("127.0.0.1:0");
        for number in 0..10_u8 {
            peer.send_to(&vec![number; usize::from(number) + 1], socket.local()).unwrap();
        }
        let received = receive(&socket, &mut Batch::new()).await;
        let datagrams: Vec<_> = received.iter().map(|(_, datagram)| (datagram[0], datagram.len())).collect();
        assert_eq!(datagrams, (0..10).map(|number| (number, usize::from(number) + 1)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn datagrams_that_the_kernel_has_joined_are_taken_apart() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = peer("127.0.0.1:0");
        let state = UdpSocketState::new((&peer).into()).unwrap();
        let contents = b"one-two-three-fo";
        let joined = if state.max_gso_segments() > 1 { contents.len() } else { 4 };
        for contents in contents.chunks(joined) {
            let (destination, segment_size) = (socket.local(), Some(4));
            let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
            state.try_send((&peer).into(), &transmit).unwrap();
        }
        let received: Vec<_> =
            receive(&socket, &mut Batch::new()).await.into_iter().map(|(_, datagram)| datagram).collect();
        assert_eq!(received, [b"one-", b"two-", b"thre", b"e-fo"]);
    }

    #[tokio::test]
    async fn nothing_to_receive_is_no_error() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut batch = Batch::new();
        socket.receive(&mut batch).unwrap();
        assert_eq!(batch.datagrams().count(), 0);
    }

    #[tokio::test]
    async fn a_datagram_larger_than_the_link_is_fragmented_and_arrives() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = peer("127.0.0.1:0");
        let address = Address { remote: peer.local_addr().unwrap(), local: socket.local().ip() };
        socket.send(address, &[7; 65_507]).unwrap();
        assert_eq!(peer.recv(&mut [0; 65_535]).unwrap(), 65_507);
    }

    #[tokio::test]
    async fn a_datagram_that_cannot_leave_is_an_error_and_the_socket_goes_on() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = peer("127.0.0.1:0");
        let address = Address { remote: peer.local_addr().unwrap(), local: socket.local().ip() };
        assert!(socket.send(address, &vec![0; 65_508]).is_err());
        socket.send(address, b"still here").unwrap();
        assert_eq!(peer.recv(&mut [0; 16]).unwrap(), 10);
    }
}
