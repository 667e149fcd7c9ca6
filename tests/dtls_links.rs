//! Handshakes over a link as its profile says: how many complete, after how long, and what they take.
//!
//! `cargo test --test dtls_links -- --nocapture` prints the figures.

#![expect(unreachable_pub, reason = "parts of a test")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/dtls.rs"]
#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod dtls;

use std::time::Duration;

use dtls::{Pair, address, certificate, psk, psk_config};
use lowband::coap::Instant;
use lowband::link::{End, Profile};
use lowband::security::dtls::{Config, Credentials, Link, Output, Trust, Version};
use lowband::sim::{Channel, Impairments};

/// What one handshake came to.
struct Run {
    completed: bool,
    elapsed: Duration,
    /// Bytes of UDP payload, and on the air, of both ends.
    bytes: u64,
    air_bytes: u64,
    datagrams: u64,
}

/// A handshake over the link, until both ends have it and a message has come through; or for a day.
fn handshake(profile: &Profile, loss: f64, seed: u64, server: Config, credentials: &Credentials) -> Run {
    let profile = Profile { loss, ..profile.clone() };
    let link = |end| Link::from(&profile.terms(end));
    let server = Config { link: link(End::Gateway), ..server };
    let client = Config { link: link(End::Peer), ..Config::default() };
    let mut pair = Pair::with_client(server, client);
    let mut channel = Channel::new(profile, Impairments::default(), seed);
    let session = pair.connect(credentials);
    loop {
        pair.collect();
        for datagram in pair.up.drain(..) {
            channel.send(End::Peer, 0, datagram, pair.now);
        }
        for datagram in pair.down.drain(..) {
            channel.send(End::Gateway, 0, datagram, pair.now);
        }
        let is_open = pair.established()[1] > 0;
        let is_over = pair.told[1].iter().any(|output| matches!(output, Output::Closed { .. }));
        if is_over || (is_open && pair.established()[0] > 0) {
            let traffic = [channel.traffic(End::Peer), channel.traffic(End::Gateway)];
            // What is said is understood.
            if is_open && !is_over {
                pair.client.seal(session, b"message", pair.now).unwrap();
                while let Some(output) = pair.client.poll() {
                    let Output::Datagram { bytes, .. } = output else { continue };
                    pair.server.handle(address(0), &bytes, pair.now);
                }
                pair.collect();
                assert_eq!(pair.opened(0), [b"message"]);
            }
            return Run {
                completed: !is_over,
                elapsed: pair.now.since_start(),
                bytes: traffic.iter().map(|traffic| traffic.bytes).sum(),
                air_bytes: traffic.iter().map(|traffic| traffic.air_bytes).sum(),
                datagrams: traffic.iter().map(|traffic| traffic.datagrams).sum(),
            };
        }
        let due = [pair.server.deadline(), pair.client.deadline(), channel.deadline()];
        let next = due.into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next < Instant::START + Duration::from_secs(86_400)) else {
            return Run { completed: false, elapsed: Duration::MAX, bytes: 0, air_bytes: 0, datagrams: 0 };
        };
        pair.now = pair.now.max(next);
        pair.server.advance(pair.now);
        pair.client.advance(pair.now);
        while let Some(arrival) = channel.poll(pair.now) {
            match arrival.to {
                End::Gateway => pair.server.handle(address(0), &arrival.datagram, pair.now),
                End::Peer => pair.client.handle(address(0), &arrival.datagram, pair.now),
            }
        }
    }
}

/// Fifty of them; how many complete.
fn fifty(what: &str, link: &str, loss: f64, server: &Config, credentials: &Credentials) -> usize {
    let profile = Profile::built_in(link).unwrap();
    let runs: Vec<Run> =
        (0..50).map(|seed| handshake(&profile, loss, seed, server.clone(), credentials)).collect();
    let mut done: Vec<&Run> = runs.iter().filter(|run| run.completed).collect();
    let failed: Vec<_> = (0..50).filter(|seed| !runs[*seed].completed).collect();
    let mut median = |key: fn(&Run) -> u64| {
        done.sort_by_key(|run| key(run));
        done.get(done.len() / 2).map_or(0, |run| key(run))
    };
    let [seconds, bytes, air, datagrams] = [
        median(|run| run.elapsed.as_secs()),
        median(|run| run.bytes),
        median(|run| run.air_bytes),
        median(|run| run.datagrams),
    ];
    let slowest = done.iter().map(|run| run.elapsed.as_secs()).max().unwrap_or_default();
    println!(
        "{what}, {link}, {:.0} % lost: {} of 50 in {seconds} s (median; {slowest} s at most), {bytes} bytes of DTLS in \
         {datagrams} datagrams, {air} on the air; failed: {failed:?}",
        loss * 100.0,
        done.len()
    );
    done.len()
}

/// With a cookie, as when there are many.
fn with_cookie() -> Config {
    Config { unverified: 0, ..psk_config() }
}

#[test]
fn handshakes_by_key_complete_at_100_bit_per_second() {
    assert!(fifty("key", "hf-100", 0.0, &psk_config(), &psk()) >= 49);
    assert!(fifty("key, cookie", "hf-100", 0.0, &with_cookie(), &psk()) >= 49);
}

#[test]
fn handshakes_by_key_complete_at_100_bit_per_second_where_a_fifth_is_lost() {
    assert!(fifty("key", "hf-100", 0.2, &psk_config(), &psk()) >= 48);
    assert!(fifty("key, cookie", "hf-100", 0.2, &with_cookie(), &psk()) >= 48);
}

#[test]
fn handshakes_by_key_complete_on_every_link() {
    for profile in Profile::all_built_in() {
        let done = fifty("key, cookie", &profile.name, profile.loss, &with_cookie(), &psk());
        assert!(done >= 48, "{}: {done}", profile.name);
    }
}

#[test]
fn handshakes_by_certificate_complete_at_100_bit_per_second() {
    let server = Config {
        certificate: Some(certificate("server")),
        clients: Trust::AnyCertificate,
        dtls_1_3: true,
        ..Config::default()
    };
    for (what, version) in [("certificates", Version::Dtls12), ("DTLS 1.3", Version::Dtls13)] {
        let client =
            Credentials::Certificate { certificate: certificate("client"), server: Trust::Anyone, version };
        assert!(fifty(what, "hf-100", 0.0, &server, &client) >= 49);
        fifty(what, "hf-100", 0.1, &server, &client);
    }
}
