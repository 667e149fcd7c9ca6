//! A client's session of DTLS, below its endpoint.

use std::io;

use tracing::debug;

use super::Direction;
use super::Driver;
use super::Key;
use super::Order;
use super::RequestError;
use super::Waiter;
use crate::coap;
use crate::coap::Instant;
use crate::endpoint::Address;
use crate::endpoint::Stranger;
use crate::net::clock::Clock;
use crate::security::dtls;
use crate::security::dtls::Credentials;
use crate::security::dtls::Dtls;
use crate::security::dtls::Link;
use crate::security::dtls::Output;
use crate::security::dtls::Reason;
use crate::security::dtls::SessionId;

/// How a client is secured.
#[derive(Clone, Debug)]
pub struct Security {
    /// What it shows, and what it wants to see.
    pub credentials: Credentials,
    /// What its handshakes have to know of the link.
    pub link: Link,
}

/// The session, and what waits for it.
pub(super) struct Secure {
    dtls: Dtls,
    credentials: Credentials,
    session: Option<SessionId>,
    is_open: bool,
    held: Vec<(Key, Order, Waiter)>,
}

impl Secure {
    pub(super) fn new(
        security: Security,
        address: Address,
        clock: &Clock,
        seed: [u8; 32],
    ) -> io::Result<Self> {
        let Security { credentials, link } = security;
        let config = dtls::Config { listeners: [(address.local, link)].into(), ..dtls::Config::default() };
        let (moment, now) = clock.beginning();
        let dtls =
            Dtls::new(config, moment, now, seed).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { dtls, credentials, session: None, is_open: false, held: Vec::new() })
    }
}

impl Driver {
    /// Whether requests have to wait until there is a session; there will be one then, or they fail.
    pub(super) fn waits_for_session(&mut self) -> bool {
        let now = self.clock.now();
        let Some(secure) = &mut self.secure else { return false };
        if secure.session.is_none() {
            match secure.dtls.connect(self.address, &secure.credentials, now) {
                Ok(session) => secure.session = Some(session),
                Err(error) => debug!(%error, "cannot begin a handshake"),
            }
        }
        !secure.is_open
    }

    /// Keeps a request until there is a session.
    pub(super) fn hold(&mut self, key: Key, order: Order, mut waiter: Waiter) {
        match &mut self.secure {
            Some(secure) if secure.session.is_some() => secure.held.push((key, order, waiter)),
            _ => waiter.tell(Err(RequestError::Session("it cannot be opened"))),
        }
        self.drain();
    }

    /// Forgets a request that waits for the session. Whether there was such a one.
    pub(super) fn release(&mut self, key: Key) -> bool {
        let Some(secure) = &mut self.secure else { return false };
        let before = secure.held.len();
        secure.held.retain(|(held, ..)| *held != key);
        secure.held.len() < before
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = self.secure.as_ref().and_then(|secure| secure.dtls.deadline());
        [own, self.machine.deadline()].into_iter().flatten().min()
    }

    pub(super) fn advance(&mut self) {
        let now = self.clock.now();
        if let Some(secure) = &mut self.secure {
            secure.dtls.advance(now);
        }
        self.machine.advance(now);
    }

    pub(super) fn take_in(&mut self, datagram: &[u8]) {
        let now = self.clock.now();
        let Some(secure) = &mut self.secure else {
            (self.watch)(Direction::Received, datagram);
            return self.machine.handle(self.address, datagram, now);
        };
        if !is_data(datagram) {
            (self.watch)(Direction::Received, datagram);
        }
        self.machine.heard_raw(self.address, now);
        secure.dtls.handle(self.address, datagram, now);
    }

    /// Carries datagrams from the endpoint to the network, and what the session says to the endpoint. Whether there may be more to do.
    pub(super) fn carry(&mut self) -> bool {
        let now = self.clock.now();
        let mut is_news = false;
        while let Some(output) = self.secure.as_mut().and_then(|secure| secure.dtls.poll()) {
            is_news = true;
            self.follow(output, now);
        }
        while let Some((_, datagram)) = self.machine.poll_datagram() {
            let Some(secure) = &mut self.secure else {
                (self.watch)(Direction::Sent, &datagram);
                self.send(&datagram);
                continue;
            };
            let Some(session) = secure.session.filter(|_| secure.is_open) else { continue };
            (self.watch)(Direction::Sent, &datagram);
            if let Err(error) = secure.dtls.seal(session, &datagram, now) {
                debug!(%error, "cannot seal");
            }
            // It has waited for its turn already.
            let sealed: Vec<_> = std::iter::from_fn(|| secure.dtls.poll()).collect();
            for output in sealed {
                is_news = true;
                match output {
                    Output::Datagram { bytes, .. } => self.send(&bytes),
                    other => self.follow(other, now),
                }
            }
        }
        while let Some((_, datagram)) = self.machine.poll_raw() {
            (self.watch)(Direction::Sent, &datagram);
            self.send(&datagram);
        }
        is_news
    }

    fn follow(&mut self, output: Output, now: Instant) {
        let Some(secure) = &mut self.secure else { return };
        match output {
            Output::Datagram { bytes, .. } => {
                self.machine.send_raw(self.address, bytes, Stranger::Known, now);
            }
            Output::Established { .. } => {
                secure.is_open = true;
                for (key, order, waiter) in std::mem::take(&mut secure.held) {
                    self.ask(key, order, waiter, 0);
                }
            }
            Output::Opened { bytes, .. } => {
                (self.watch)(Direction::Received, &bytes);
                self.machine.handle(self.address, &bytes, now);
            }
            Output::Closed { session, reason } if secure.session == Some(session) => {
                debug!(?reason, "session closed");
                self.give_up_session(&RequestError::Session(match reason {
                    Reason::TimedOut => "the handshake had no answer",
                    Reason::ByPeer => "the peer has closed it",
                    _ => "the handshake failed; the key or the certificate may be another",
                }));
            }
            Output::Closed { .. } | Output::KeyLog(_) => {}
        }
    }

    /// There is no session any more: what waits for one waits in vain, and the next request opens another.
    pub(super) fn give_up_session(&mut self, error: &RequestError) {
        let Some(secure) = &mut self.secure else { return };
        (secure.session, secure.is_open) = (None, false);
        for (_, _, mut waiter) in std::mem::take(&mut secure.held) {
            waiter.tell(Err(error.clone()));
        }
    }

    /// A request was not answered: the peer may have lost the session, and what it says of that nobody can believe.
    pub(super) fn doubt_session(&mut self, error: coap::RequestError) {
        if error == coap::RequestError::Timeout {
            self.end_session();
        }
    }

    /// Ends the session, and tells the peer.
    pub(super) fn end_session(&mut self) {
        let now = self.clock.now();
        let Some(secure) = &mut self.secure else { return };
        if let Some(session) = secure.session.take() {
            secure.is_open = false;
            secure.dtls.close(session, now);
            self.drain();
        }
    }

    fn send(&mut self, datagram: &[u8]) {
        self.traffic.count(Direction::Sent, datagram);
        // Lost, as any datagram may be. Without tokio's readiness: it does not know of any before the first wait.
        if let Err(error) = socket2::SockRef::from(&self.socket).send(datagram) {
            debug!(remote = %self.address.remote, %error, "cannot send");
        }
    }
}

/// Whether it is a record with data, which are seen when it is opened.
fn is_data(datagram: &[u8]) -> bool {
    datagram.first() == Some(&23)
}
