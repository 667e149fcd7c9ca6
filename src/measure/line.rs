//! A client's and a gateway's endpoint with a link between them that loses nothing, in virtual time.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use super::difference::Difference;
use crate::coap;
use crate::coap::Instant;
use crate::coap::Priority;
use crate::endpoint;
use crate::endpoint::Address;
use crate::endpoint::Association;
use crate::endpoint::Endpoint;
use crate::endpoint::Event;
use crate::endpoint::RequestId;
use crate::endpoint::RequestKey;
use crate::link::End;
use crate::link::Profile;
use crate::security::dtls;
use crate::security::oscore::Parameters;
use crate::security::oscore::Secret;
use crate::sim::Channel;
use crate::sim::Impairments;

/// What protects the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Nothing.
    None,
    /// OSCORE (RFC 8613), with keys that the two have, and a device's id of one byte.
    Oscore,
    /// Records of DTLS 1.2 with TLS_PSK_WITH_AES_128_CCM_8, in a session that there is already.
    Dtls,
}

impl Security {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Oscore => "oscore",
            Self::Dtls => "dtls",
        }
    }

    /// Bytes that it adds to each datagram below CoAP.
    pub(super) fn sealing(self) -> usize {
        if self == Self::Dtls { dtls::SEALING } else { 0 }
    }
}

/// The two endpoints.
#[derive(Debug)]
pub(super) struct Line {
    now: Instant,
    client: Endpoint,
    gateway: Endpoint,
    channel: Channel,
    /// Who the gateway is to the client.
    association: Association,
    sealing: usize,
    asked: Option<RequestId>,
    /// What the gateway was asked, and answers by.
    taken: Option<(RequestKey, coap::Request)>,
    answer: Option<Result<coap::Response, Difference>>,
    cost: Cost,
}

/// What was sent, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub datagrams: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    pub airtime: Duration,
}

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 5683);
const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5683);

/// Between two exchanges.
const PAUSE: Duration = Duration::from_secs(60);
/// What has not ended by then never will: the greatest body over the slowest link takes days.
const LONGEST: Duration = Duration::from_secs(100 * 24 * 3600);

impl Line {
    /// A link at rest, whose ends know what it is like, and each other's keys.
    pub(super) fn new(link: &Profile, security: Security) -> Self {
        let config = |end| {
            let name = link.name.clone();
            let terms = link.clone().sealed(security.sealing()).terms(end);
            endpoint::Config {
                // Nobody has to show where he is, as nobody has who was heard of within a day.
                trusted: true,
                links: [(name.clone(), terms)].into(),
                link: Some(name),
                ..endpoint::Config::default()
            }
        };
        let mut client = Endpoint::new(config(End::Peer), [1; 32]);
        let mut gateway = Endpoint::new(config(End::Gateway), [2; 32]);
        let mut association = Association::from(place(GATEWAY, CLIENT));
        if security == Security::Oscore {
            association = Association::Device(1);
            let keys = |own: &[u8], other: &[u8]| Parameters::new(Secret::from([7; 16]), own, other);
            for (endpoint, keys) in [(&mut client, keys(b"\x01", b"")), (&mut gateway, keys(b"", b"\x01"))] {
                let admitted = endpoint.admit_keys(1, association, keys);
                debug_assert_eq!(admitted, Ok(()), "the keys are sound");
            }
        }
        // The terms are those of the real link: whoever speaks does not know that nothing is lost today.
        let calm = Profile { loss: 0.0, jitter: Duration::ZERO, ..link.clone() };
        Self {
            now: Instant::START,
            client,
            gateway,
            channel: Channel::new(calm, Impairments::default(), 1),
            association,
            sealing: security.sealing(),
            asked: None,
            taken: None,
            answer: None,
            cost: Cost::default(),
        }
    }

    /// Has the client ask; what the gateway is asked by that.
    pub(super) fn ask(&mut self, request: coap::Request) -> Result<coap::Request, Difference> {
        (self.taken, self.answer) = (None, None);
        let (whom, place) = (self.association, place(GATEWAY, CLIENT));
        self.asked = Some(self.client.request_to(whom, Priority::Message, place, request, self.now));
        self.drain();
        self.run(|it| it.taken.is_some() || it.answer.is_some())?;
        match (&self.taken, self.answer.take()) {
            (Some((_, request)), _) => Ok(request.clone()),
            // One that its endpoint refused, as it is too large.
            (None, Some(answer)) => answer.and(Err(Difference::Endless)),
            (None, None) => Err(Difference::Endless),
        }
    }

    /// Has the gateway answer at once what it was asked; what the client is answered by that, once neither has more to say.
    pub(super) fn answer(&mut self, response: coap::Response) -> Result<coap::Response, Difference> {
        let Some((key, _)) = self.taken.take() else { return Err(Difference::Endless) };
        self.gateway.respond(key, response, self.now);
        self.drain();
        self.run(|it| it.answer.is_some() && it.is_quiet())?;
        self.answer.take().unwrap_or(Err(Difference::Endless))
    }

    /// What was sent since the last time.
    pub(super) fn take_cost(&mut self) -> Cost {
        std::mem::take(&mut self.cost)
    }

    /// Lets some time go by.
    pub(super) fn pause(&mut self) {
        let until = self.now + PAUSE;
        while let Some(next) = self.deadline().filter(|next| *next <= until) {
            self.step(next);
        }
        self.now = until;
    }

    fn is_quiet(&self) -> bool {
        self.client.is_settled() && self.gateway.is_settled() && self.channel.deadline().is_none()
    }

    /// Goes on until something is so.
    fn run(&mut self, is_so: impl Fn(&Self) -> bool) -> Result<(), Difference> {
        let until = self.now + LONGEST;
        while !is_so(self) {
            match self.deadline().filter(|next| *next <= until) {
                Some(next) => self.step(next),
                None => return Err(Difference::Endless),
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.client.deadline(), self.gateway.deadline(), self.channel.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Lets everything happen that is due by then.
    fn step(&mut self, next: Instant) {
        self.now = self.now.max(next);
        while let Some(arrival) = self.channel.poll(self.now) {
            let length = arrival.datagram.len().saturating_sub(self.sealing);
            let datagram = arrival.datagram.get(..length).unwrap_or_default();
            match arrival.to {
                End::Gateway => self.gateway.handle(place(CLIENT, GATEWAY), datagram, self.now),
                End::Peer => self.client.handle(place(GATEWAY, CLIENT), datagram, self.now),
            }
            self.drain();
        }
        self.client.advance(self.now);
        self.gateway.advance(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((_, datagram)) = self.client.poll_datagram() {
            self.send(End::Peer, datagram);
        }
        while let Some((_, datagram)) = self.gateway.poll_datagram() {
            self.send(End::Gateway, datagram);
        }
        while let Some(event) = self.gateway.poll_event() {
            if let Event::Request { key, request, .. } = event {
                self.taken = Some((key, request));
            }
        }
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Response { id, response, .. } if self.asked == Some(id) => {
                    self.answer = Some(Ok(response));
                }
                Event::Failed { id, error } if self.asked == Some(id) => {
                    self.answer = Some(Err(error.into()));
                }
                _ => {}
            }
        }
    }

    /// Sends a datagram, with room for what seals it.
    fn send(&mut self, from: End, mut datagram: Vec<u8>) {
        datagram.resize(datagram.len() + self.sealing, 0);
        self.cost.datagrams += 1;
        self.cost.bytes += datagram.len() as u64;
        self.cost.airtime += self.channel.airtime(from).of(datagram.len());
        self.channel.send(from, 0, datagram, self.now);
    }
}

/// Who is at the other end, as seen from this one.
fn place(remote: SocketAddr, local: SocketAddr) -> Address {
    Address { remote, local }
}
