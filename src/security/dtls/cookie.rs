//! Cookies: how a peer shows that it is where its datagrams say, while nothing is kept of it (RFC 6347 §4.2.1).

use std::net::IpAddr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use subtle::ConstantTimeEq;

use super::hello::Hello;
use super::provider;
use crate::coap::{Address, Instant};

/// Makes cookies, and knows them again.
pub(super) struct Cookies {
    chance: ChaCha8Rng,
    secret: [u8; 32],
    /// Cookies made with the secret before are good, too: a peer on a slow link may have got one just then.
    former: [u8; 32],
    renewed: Instant,
}

impl Cookies {
    /// How long cookies are made with the same secret.
    const LIFETIME: Duration = Duration::from_secs(3600);

    pub(super) fn new(seed: [u8; 32], now: Instant) -> Self {
        let mut chance = ChaCha8Rng::from_seed(seed);
        let [mut secret, mut former] = [[0; 32]; 2];
        chance.fill_bytes(&mut secret);
        chance.fill_bytes(&mut former);
        Self { chance, secret, former, renewed: now }
    }

    /// The cookie for a hello.
    pub(super) fn make(&mut self, address: Address, hello: &Hello<'_>, now: Instant) -> [u8; 32] {
        self.renew(now);
        cookie(&self.secret, address, hello)
    }

    /// The hello's cookie, if it is the one that was made for it.
    pub(super) fn valid(&mut self, address: Address, hello: &Hello<'_>, now: Instant) -> Option<[u8; 32]> {
        let shown: [u8; 32] = hello.cookie.try_into().ok()?;
        self.renew(now);
        let [new, former] = [&self.secret, &self.former].map(|secret| cookie(secret, address, hello));
        bool::from(shown.ct_eq(&new) | shown.ct_eq(&former)).then_some(shown)
    }

    fn renew(&mut self, now: Instant) {
        // Both, if nobody has come for so long.
        for _ in 0..2 {
            if now.since(self.renewed) >= Self::LIFETIME {
                self.former = self.secret;
                self.chance.fill_bytes(&mut self.secret);
                self.renewed = (self.renewed + Self::LIFETIME).max(now - Self::LIFETIME);
            }
        }
    }
}

/// HMAC(secret, address, client's parameters): all of the hello that must be the same the second time.
fn cookie(secret: &[u8; 32], address: Address, hello: &Hello<'_>) -> [u8; 32] {
    let ip = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut data = Vec::with_capacity(34 + hello.before_cookie.len() + hello.after_cookie.len());
    data.extend_from_slice(&ip(address.remote.ip()));
    data.extend_from_slice(&address.remote.port().to_be_bytes());
    data.extend_from_slice(&ip(address.local.ip()));
    data.extend_from_slice(hello.before_cookie);
    data.extend_from_slice(hello.after_cookie);
    provider::hmac(secret, &data)
}
