//! Clients that begin: what becomes of a hello.

use std::sync::Arc;

use tracing::debug;

use super::config::Setups;
use super::event::Reason;
use super::hello::{Alert, Hello};
use super::session::{self, Client, Service, Session, Stage};
use super::{Dtls, Place};
use crate::coap::{Address, Instant};

/// TLS_PSK_WITH_AES_128_CCM_8 (RFC 6655), which RFC 7252 §9.1.3.1 has all implement.
const PSK_CCM_8: u16 = 0xc0a8;
/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, AES_256_GCM_SHA384 and CHACHA20_POLY1305_SHA256. That with AES_128_CCM_8, of RFC 7252
/// §9.1.3.2, dimpl does not have.
const ECDSA: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];
/// TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384 and TLS_CHACHA20_POLY1305_SHA256.
const DTLS_1_3: [u16; 3] = [0x1301, 0x1302, 0x1303];

/// How often a client may have begun anew before a hello: with a cookie each time.
const HELLOS: u16 = 8;

impl Dtls {
    /// A hello either repeats that of a handshake which is under way, or shows a cookie, or gets one, or is taken without.
    pub(super) fn receive_hello(
        &mut self,
        address: Address,
        place: Place,
        hello: &Hello<'_>,
        datagram: &[u8],
        now: Instant,
    ) {
        for id in [place.opening, place.established].into_iter().flatten() {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.random == Some(hello.random) && !session.is_client {
                let is_met = session.stage == Stage::Unverified && session.is_challenge_met(hello);
                if is_met {
                    session.verify(Stage::Verified);
                    self.unverified.remove(&id);
                    self.verified.insert(id);
                    self.counters.verified += 1;
                }
                return self.receive(Some(id), address, datagram, now);
            }
        }
        let Some(service) = self.service(hello) else {
            self.counters.no_common_suite += 1;
            return self.alert(address, Alert::HandshakeFailure, datagram, now);
        };
        if place.opening.is_some_and(|id| self.sessions.get(&id).is_some_and(|session| session.is_client)) {
            self.counters.refused += 1;
            return;
        }
        if service != Service::Dtls13
            && let Some(cookie) = self.cookies.valid(address, hello, now)
        {
            self.counters.verified += 1;
            return self.accept(address, place, service, hello, cookie, datagram, now);
        }
        // Without a cookie nobody disturbs what there is, and few are kept.
        let is_new = place.established.is_none() && place.opening.is_none();
        let is_first = hello.sequence == 0 && hello.cookie.is_empty();
        if service != Service::Certificate && is_new && is_first && self.has_room_for_unverified(service, now)
        {
            return self.accept_unverified(address, service, hello, datagram, now);
        }
        if hello.offers_1_2() && self.service_1_2(hello).is_some() {
            let cookie = self.cookies.make(address, hello, now);
            self.counters.cookies += 1;
            return self.send(address, hello.verify_request(cookie));
        }
        self.counters.refused += 1;
    }

    /// How a hello is to be answered: the version that is newer, and the suite that the client likes best.
    fn service(&self, hello: &Hello<'_>) -> Option<Service> {
        let speaks_1_3 = self.config.dtls_1_3 && self.config.certificate.is_some() && hello.offers_1_3();
        if speaks_1_3 && hello.suites().any(|suite| DTLS_1_3.contains(&suite)) {
            return Some(Service::Dtls13);
        }
        self.service_1_2(hello).filter(|_| hello.offers_1_2())
    }

    fn service_1_2(&self, hello: &Hello<'_>) -> Option<Service> {
        hello.suites().find_map(|suite| match suite {
            PSK_CCM_8 => self.config.keys.is_some().then_some(Service::Psk),
            suite if ECDSA.contains(&suite) => {
                self.config.certificate.is_some().then_some(Service::Certificate)
            }
            _ => None,
        })
    }

    /// Whether there is room, which no session has to give way for. At the limit, those who would have answered by now if they were there
    /// make some for a client that has no other way in.
    fn has_room_for_unverified(&mut self, service: Service, now: Instant) -> bool {
        if self.unverified.len() < self.config.unverified && self.sessions.len() < self.config.sessions {
            return true;
        }
        if service != Service::Dtls13 {
            return false;
        }
        let Some(oldest) = self.unverified.first().copied() else { return false };
        let Some(session) = self.sessions.get(&oldest) else { return false };
        let patience = self.config.link_of(session.address).certificate().rto;
        let is_gone = now.since(session.used) > patience;
        if is_gone {
            self.end(oldest, Reason::TimedOut);
        }
        is_gone
    }

    fn accept_unverified(
        &mut self,
        address: Address,
        service: Service,
        hello: &Hello<'_>,
        datagram: &[u8],
        now: Instant,
    ) {
        let setups = self.setups(address);
        let setup = if service == Service::Psk { setups.prompt() } else { setups.certificate() };
        let Some(server) = self.server(service, setup, now) else { return };
        let about = self.about(address, hello);
        let session = Session::unverified(server, about, datagram, self.clock, now);
        self.begin(session, address, datagram, now);
    }

    #[expect(clippy::too_many_arguments, reason = "what is known of one hello")]
    fn accept(
        &mut self,
        address: Address,
        place: Place,
        service: Service,
        hello: &Hello<'_>,
        cookie: [u8; 32],
        datagram: &[u8],
        now: Instant,
    ) {
        let frees = place.opening.is_some_and(|id| self.verified.contains(&id));
        if hello.sequence > HELLOS || (!frees && !self.has_room_for_handshake(now)) {
            self.counters.refused += 1;
            return;
        }
        let setups = self.setups(address);
        let setup = if service == Service::Psk { setups.psk() } else { setups.certificate() };
        let Some(server) = self.server(service, setup, now) else { return };
        let about = self.about(address, hello);
        let session = Session::verified(server, about, cookie, datagram, self.clock, now);
        if let Some(former) = place.opening {
            self.end(former, Reason::Replaced);
        }
        self.begin(session, address, datagram, now);
    }

    /// A server of dimpl's for one client; none where there is no service of this kind.
    fn server(
        &self,
        service: Service,
        setup: Option<Arc<dimpl::Config>>,
        now: Instant,
    ) -> Option<dimpl::Dtls> {
        session::server(service, setup?, self.config.certificate.as_ref(), self.clock, now)
    }

    fn about<'a>(&self, address: Address, hello: &'a Hello<'a>) -> Client<'a> {
        let (trust, notes) = (self.config.clients.clone(), self.config.key_log);
        Client { address, hello, trust, notes }
    }

    fn setups(&self, address: Address) -> &Setups {
        address.of_listener(&self.listeners).unwrap_or(&self.setups)
    }

    /// Whether there is room for a handshake with a peer that is where it says. At the limit the one that has been silent for longest
    /// gives way, if that is longer than two of its peer's repeats.
    fn has_room_for_handshake(&mut self, now: Instant) -> bool {
        if self.verified.len() < self.config.handshakes {
            return true;
        }
        let waiting = self.verified.iter().filter_map(|id| Some((*id, self.sessions.get(id)?)));
        let silent =
            waiting.filter(|(_, session)| !session.is_client).min_by_key(|(_, session)| session.used);
        let Some((id, session)) = silent else { return false };
        let patience = self.config.link_of(session.address).certificate().rto * 4;
        let is_gone = now.since(session.used) > patience;
        if is_gone {
            self.end(id, Reason::TimedOut);
        }
        is_gone
    }

    fn begin(
        &mut self,
        session: Result<Session, dimpl::Error>,
        address: Address,
        datagram: &[u8],
        now: Instant,
    ) {
        match session {
            Ok(session) => {
                self.make_room(now);
                let id = self.add(session, now);
                self.drain(id, now);
            }
            Err(error) => {
                self.counters.failed += 1;
                debug!(remote = %address.remote, %error, "hello refused");
                self.alert(address, Alert::HandshakeFailure, datagram, now);
            }
        }
    }
}
