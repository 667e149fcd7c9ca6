//! Handshakes between machines of ours: who gets in, who does not, and what either end is told.

#![expect(unreachable_pub, reason = "parts of a test")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/dtls.rs"]
#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod dtls;

use std::time::Duration;

use dtls::{IDENTITY, KEY, Pair, address, at, certificate, machine, psk, psk_config, psk_of};
use lowband::security::dtls::{
    Certificate, Config, Credentials, Identity, Keys, Output, Pins, Reason, SealError, Trust, Version,
};

const SECOND: Duration = Duration::from_secs(1);

fn identity_of(certificate: &Certificate) -> Identity {
    certificate.identity()
}

fn pinned(certificate: &Certificate) -> Trust {
    let Identity::Certificate { key, .. } = certificate.identity() else { panic!("a certificate") };
    let pins = Pins::new();
    pins.insert(key);
    Trust::Pinned(pins)
}

fn certificate_config(clients: Trust) -> Config {
    Config { certificate: Some(certificate("server")), clients, dtls_1_3: true, ..Config::default() }
}

fn by_certificate(name: &str, server: Trust, version: Version) -> Credentials {
    Credentials::Certificate { certificate: certificate(name), server, version }
}

fn identity(told: &[Output]) -> Option<&Identity> {
    told.iter().find_map(|output| match output {
        Output::Established { identity, .. } => Some(identity),
        _ => None,
    })
}

fn end(told: &[Output]) -> Option<Reason> {
    told.iter().find_map(|output| match output {
        Output::Closed { reason, .. } => Some(*reason),
        _ => None,
    })
}

/// A conversation both ways.
fn talk(pair: &mut Pair) {
    let [before_up, before_down] = [0, 1].map(|end| pair.opened(end).len());
    let server = pair.server_session().unwrap();
    let client = pair.told[1].iter().rev().find_map(|output| match output {
        Output::Established { session, .. } => Some(*session),
        _ => None,
    });
    pair.client.seal(client.unwrap(), b"up", pair.now).unwrap();
    pair.server.seal(server, b"down", pair.now).unwrap();
    pair.run();
    assert_eq!(pair.opened(0)[before_up..], [b"up"]);
    assert_eq!(pair.opened(1)[before_down..], [b"down"]);
}

#[test]
fn a_client_with_a_key_gets_in_and_is_known_by_its_identity() {
    for unverified in [0, 1] {
        let mut pair = Pair::new(Config { unverified, ..psk_config() });
        let session = pair.connect(&psk());
        assert_eq!(pair.client.seal(session, b"early", pair.now), Err(SealError::NotEstablished));
        pair.run();
        assert_eq!(pair.established(), [1, 1]);
        for told in &pair.told {
            assert_eq!(identity(told), Some(&Identity::Psk(IDENTITY.to_vec())));
        }
        talk(&mut pair);
        assert_eq!(pair.server.counters().cookies, 1 - unverified as u64);
        assert_eq!((pair.server.sessions(), pair.server.handshakes()), (1, 0));
    }
}

#[test]
fn a_handshake_without_cookie_saves_a_round_trip_and_206_bytes() {
    let bytes = |unverified| {
        let mut pair = Pair::new(Config { unverified, ..psk_config() });
        pair.connect(&psk());
        pair.run();
        pair.server.counters().received_bytes + pair.server.counters().sent_bytes
    };
    assert_eq!((bytes(0), bytes(1)), (591, 385));
}

#[test]
fn a_wrong_key_and_an_unknown_identity_look_the_same_from_outside() {
    let seen = |credentials: &Credentials| {
        let mut pair = Pair::new(psk_config());
        pair.connect(credentials);
        let mut seen = Vec::new();
        loop {
            pair.collect();
            // What is random aside: kinds of records, and lengths.
            seen.extend(pair.down.iter().map(|datagram| (datagram[0], datagram.len())));
            if !pair.step() {
                break;
            }
        }
        assert_eq!(pair.established(), [0, 0]);
        assert_eq!(end(&pair.told[1]), Some(Reason::Failed));
        assert_eq!((pair.server.sessions(), pair.server.counters().failed), (0, 1));
        assert!(pair.told[0].is_empty(), "{:?}", pair.told[0]);
        seen
    };
    let wrong = seen(&psk_of(IDENTITY, b"another"));
    assert_eq!(wrong, seen(&psk_of(b"xx", KEY)));
    // It ends with an alert, which is the same for both.
    assert_eq!(wrong.last(), Some(&(21, 15)));
}

#[test]
fn keys_come_and_go_while_the_server_runs() {
    let config = psk_config();
    let keys: Keys = config.keys.clone().unwrap();
    let mut pair = Pair::new(config);
    keys.insert(b"new", b"key".to_vec());
    pair.connect(&psk_of(b"new", b"key"));
    pair.run();
    assert_eq!(pair.established(), [1, 1]);
    keys.remove(b"new");
    pair.peer = address(1);
    pair.connect(&psk_of(b"new", b"key"));
    pair.run();
    assert_eq!(pair.established(), [1, 1]);
    // One that is withdrawn when the handshake has begun.
    keys.insert(b"new", b"key".to_vec());
    pair.peer = address(2);
    pair.connect(&psk_of(b"new", b"key"));
    for _ in 0..2 {
        pair.step();
    }
    keys.remove(b"new");
    pair.run();
    assert_eq!(pair.established()[0], 1);
}

#[test]
fn who_closes_tells_the_other() {
    for closer in [0, 1] {
        let mut pair = Pair::new(psk_config());
        let client = pair.connect(&psk());
        pair.run();
        let server = pair.server_session().unwrap();
        match closer {
            0 => pair.server.close(server, pair.now),
            _ => pair.client.close(client, pair.now),
        }
        pair.run();
        let [own, others] = [&pair.told[closer], &pair.told[1 - closer]].map(|told| end(told));
        assert_eq!((own, others), (Some(Reason::ByUs), Some(Reason::ByPeer)));
        assert_eq!((pair.server.sessions(), pair.client.sessions()), (0, 0));
        assert_eq!(pair.server.seal(server, b"x", pair.now), Err(SealError::Ended));
        assert_eq!([pair.server.deadline(), pair.client.deadline()], [None, None]);
    }
}

#[test]
fn a_session_survives_weeks_of_silence() {
    let mut pair = Pair::new(psk_config());
    pair.connect(&psk());
    pair.run();
    pair.wait(60 * 24 * 3600 * SECOND);
    assert_eq!((end(&pair.told[0]), end(&pair.told[1])), (None, None));
    talk(&mut pair);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let mut pair = Pair::new(Config::default());
    pair.connect(&psk());
    pair.up.clear();
    let mut repeats = 0;
    while let Some(due) = pair.client.deadline() {
        pair.now = due;
        pair.client.advance(due);
        pair.collect();
        repeats += pair.up.drain(..).count();
    }
    assert_eq!((end(&pair.told[1]), repeats), (Some(Reason::TimedOut), 6));
    assert_eq!((pair.client.sessions(), pair.client.counters().timed_out), (0, 1));
}

#[test]
fn what_is_lost_is_sent_again_whatever_it_was() {
    // Each datagram of the handshake in turn is lost, and then each pair of them.
    for first in 0..6 {
        for second in first..7 {
            let mut pair = Pair::new(Config { unverified: 0, ..psk_config() });
            pair.connect(&psk());
            let mut number = 0;
            let mut seconds = 0;
            while pair.established() != [1, 1] {
                assert!(seconds < 300, "{first} and {second}");
                pair.collect();
                while !pair.up.is_empty() || !pair.down.is_empty() {
                    if number == first || number == second {
                        let _lost = pair.up.pop_front().or_else(|| pair.down.pop_front());
                    } else {
                        pair.step();
                    }
                    number += 1;
                    pair.collect();
                }
                seconds += 1;
                pair.now = pair.now + SECOND;
                pair.server.advance(pair.now);
                pair.client.advance(pair.now);
            }
            pair.run();
            talk(&mut pair);
            assert_eq!(pair.established(), [1, 1], "{first} and {second}");
        }
    }
}

#[test]
fn what_comes_twice_and_late_changes_nothing() {
    let mut pair = Pair::new(Config { unverified: 0, ..psk_config() });
    pair.connect(&psk());
    let mut up = Vec::new();
    while !pair.up.is_empty() || !pair.down.is_empty() {
        if let Some(datagram) = pair.up.pop_front() {
            pair.server.handle(pair.peer, &datagram, pair.now);
            pair.server.handle(pair.peer, &datagram, pair.now);
            up.push(datagram);
        }
        if let Some(datagram) = pair.down.pop_front() {
            pair.client.handle(pair.peer, &datagram, pair.now);
            pair.client.handle(pair.peer, &datagram, pair.now);
        }
        pair.collect();
        assert!(up.len() < 20);
    }
    assert_eq!(pair.established(), [1, 1]);
    talk(&mut pair);
    // All of the handshake comes again.
    for datagram in up {
        pair.server.handle(pair.peer, &datagram, pair.now);
    }
    pair.run();
    assert_eq!((pair.established(), pair.opened(0).len()), ([1, 1], 1));
    talk(&mut pair);
}

#[test]
fn a_record_is_opened_once_and_a_damaged_one_never() {
    let mut pair = Pair::new(psk_config());
    let client = pair.connect(&psk());
    pair.run();
    pair.client.seal(client, b"once", pair.now).unwrap();
    pair.collect();
    let record = pair.up.pop_front().unwrap();
    for bit in 0..record.len() * 8 {
        let mut damaged = record.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        pair.server.handle(pair.peer, &damaged, pair.now);
    }
    for length in 0..record.len() {
        pair.server.handle(pair.peer, &record[..length], pair.now);
    }
    pair.collect();
    assert!(pair.opened(0).is_empty());
    for _ in 0..3 {
        pair.server.handle(pair.peer, &record, pair.now);
    }
    pair.run();
    assert_eq!(pair.opened(0), [b"once"]);
    talk(&mut pair);
}

#[test]
fn a_client_that_begins_anew_replaces_its_session_when_it_has_shown_its_key() {
    let mut pair = Pair::new(psk_config());
    pair.connect(&psk());
    pair.run();
    let first = pair.server_session().unwrap();
    // It has lost its state, and has the same address.
    pair.client = machine(Config::default());
    pair.connect(&psk());
    while pair.established()[0] == 1 {
        // RFC 6347 §4.2.8: meanwhile the first goes on.
        pair.server.seal(first, b"still", pair.now).unwrap();
        assert!(pair.step());
    }
    assert_eq!(end(&pair.told[0]), Some(Reason::Replaced));
    pair.run();
    talk(&mut pair);
    assert_eq!((pair.server.sessions(), pair.server.counters().replaced), (1, 1));
    assert_eq!(pair.server.seal(first, b"x", pair.now), Err(SealError::Ended));
}

#[test]
fn a_stranger_at_the_address_of_a_session_does_not_disturb_it() {
    let mut pair = Pair::new(psk_config());
    pair.connect(&psk());
    pair.run();
    // Hellos in its name, without cookies and with all that it takes but the key.
    let mut stranger = Pair::new(Config::default());
    for number in 0..50 {
        stranger.connect(&psk_of(IDENTITY, b"another"));
        let hello = stranger.up.pop_back().unwrap();
        stranger.up.clear();
        pair.server.handle(pair.peer, &hello, at(number));
    }
    pair.down.clear();
    assert_eq!(pair.server.sessions(), 1);
    let mut other = machine(Config::default());
    std::mem::swap(&mut other, &mut pair.client);
    pair.connect(&psk_of(IDENTITY, b"another"));
    pair.run();
    std::mem::swap(&mut other, &mut pair.client);
    pair.told[1].retain(|output| !matches!(output, Output::Closed { .. }));
    assert_eq!((end(&pair.told[0]), pair.server.sessions()), (None, 1));
    talk(&mut pair);
}

#[test]
fn certificates_are_known_by_their_keys_both_ways_in_both_versions() {
    let [server, client] = ["server", "client"].map(certificate);
    for version in [Version::Dtls12, Version::Dtls13, Version::Either] {
        let mut pair = Pair::new(certificate_config(pinned(&client)));
        pair.connect(&by_certificate("client", pinned(&server), version));
        pair.run();
        assert_eq!(pair.established(), [1, 1], "{version:?}");
        assert_eq!(identity(&pair.told[0]), Some(&identity_of(&client)));
        assert_eq!(identity(&pair.told[1]), Some(&identity_of(&server)));
        talk(&mut pair);
        pair.server.close(pair.server_session().unwrap(), pair.now);
        pair.run();
        assert_eq!(end(&pair.told[1]), Some(Reason::ByPeer), "{version:?}");
    }
}

#[test]
fn who_is_not_asked_for_a_certificate_is_anonymous() {
    for version in [Version::Dtls12, Version::Dtls13] {
        let mut pair = Pair::new(certificate_config(Trust::Anyone));
        pair.connect(&by_certificate("client", Trust::Anyone, version));
        pair.run();
        assert_eq!(identity(&pair.told[0]), Some(&Identity::Anonymous), "{version:?}");
        talk(&mut pair);
    }
}

#[test]
fn a_certificate_that_is_not_known_is_refused_by_either_end() {
    let [server, client] = ["server", "client"].map(certificate);
    for version in [Version::Dtls12, Version::Dtls13] {
        let mut pair = Pair::new(certificate_config(pinned(&client)));
        pair.connect(&by_certificate("other", pinned(&server), version));
        pair.run();
        assert_eq!(pair.established()[0], 0, "{version:?}");
        assert_eq!(pair.server.counters().unknown_certificates, 1, "{version:?}");
        assert_eq!(pair.server.sessions(), 0);

        let mut pair = Pair::new(certificate_config(pinned(&client)));
        pair.connect(&by_certificate("client", pinned(&certificate("other")), version));
        pair.run();
        assert_eq!((pair.established(), end(&pair.told[1])), ([0, 0], Some(Reason::Failed)), "{version:?}");
        assert_eq!(pair.client.counters().unknown_certificates, 1);
    }
}

#[test]
fn keys_and_certificates_are_served_side_by_side() {
    let mut pair = Pair::new(Config { keys: psk_config().keys, ..certificate_config(Trust::Anyone) });
    for (number, credentials) in
        [psk(), by_certificate("client", Trust::Anyone, Version::Either)].iter().enumerate()
    {
        pair.peer = address(number as u32);
        pair.connect(credentials);
        pair.run();
        talk(&mut pair);
    }
    assert_eq!(pair.established(), [2, 2]);
}

#[test]
fn who_offers_nothing_that_is_spoken_is_told_so() {
    let mut pair = Pair::new(psk_config());
    pair.connect(&by_certificate("client", Trust::Anyone, Version::Either));
    pair.run();
    assert_eq!((pair.server.counters().no_common_suite, pair.server.sessions()), (1, 0));
    assert_eq!(pair.server.counters().alerts, 1);
}

#[test]
fn what_anybody_says_in_clear_does_not_disturb_a_session() {
    let mut pair = Pair::new(psk_config());
    let client = pair.connect(&psk());
    pair.run();
    pair.client.seal(client, b"whole", pair.now).unwrap();
    pair.collect();
    let record = pair.up.pop_front().unwrap();
    // Alerts that would end it, all other kinds of records in either epoch, and what is no record behind one that is.
    let mut forged = Vec::new();
    for kind in 20..=26 {
        for epoch in [0, 1, 2] {
            for fragment in [&[2, 40][..], &[1, 0], &[1], &[0; 40]] {
                let header = [kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 77, 0, fragment.len() as u8];
                forged.push([&header[..], fragment].concat());
            }
        }
    }
    forged.push([&record[..], &[0]].concat());
    forged.push(forged[..12].concat());
    for datagram in &forged {
        pair.server.handle(pair.peer, datagram, pair.now);
        pair.client.handle(pair.peer, datagram, pair.now);
    }
    pair.run();
    assert_eq!([end(&pair.told[0]), end(&pair.told[1])], [None, None]);
    talk(&mut pair);
}

#[test]
fn who_has_not_shown_where_it_is_takes_nobodys_place() {
    let mut pair = Pair::new(Config { sessions: 1, ..psk_config() });
    pair.connect(&psk());
    pair.run();
    let mut stranger = Pair::new(Config::default());
    stranger.connect(&psk());
    pair.server.handle(address(9), &stranger.up[0], pair.now);
    pair.collect();
    let counters = pair.server.counters();
    assert_eq!((counters.evicted, counters.cookies, pair.server.sessions()), (0, 1, 1));
    pair.down.clear();
    talk(&mut pair);
}

#[test]
fn the_session_unused_for_longest_gives_way() {
    let mut pair = Pair::new(Config { sessions: 3, ..psk_config() });
    let mut sessions = Vec::new();
    for number in 0..5 {
        pair.peer = address(number);
        pair.connect(&psk());
        pair.run();
        sessions.push(pair.server_session().unwrap());
        pair.now = pair.now + SECOND;
        // The first is used, and stays.
        pair.server.seal(sessions[0], b"keep", pair.now).unwrap();
        pair.down.clear();
    }
    let ended: Vec<_> = pair.told[0]
        .iter()
        .filter_map(|output| match output {
            Output::Closed { session, reason: Reason::Evicted } => Some(*session),
            _ => None,
        })
        .collect();
    assert_eq!(ended, sessions[1..3]);
    assert_eq!((pair.server.sessions(), pair.server.counters().evicted), (3, 2));
}

#[test]
fn keys_are_logged_where_that_is_asked_for_and_the_same_at_both_ends() {
    let by_key = Config { key_log: true, ..psk_config() };
    let by_certificates = Config { key_log: true, ..certificate_config(Trust::AnyCertificate) };
    for (config, credentials, lines) in [
        (by_key, psk(), 1),
        (by_certificates.clone(), by_certificate("client", Trust::Anyone, Version::Dtls12), 1),
        (by_certificates, by_certificate("client", Trust::Anyone, Version::Dtls13), 5),
    ] {
        let mut pair = Pair::with_client(config, Config { key_log: true, ..Config::default() });
        pair.connect(&credentials);
        pair.run();
        let [server, client] = [0, 1].map(|end| {
            let lines = pair.told[end].iter().filter_map(|output| match output {
                Output::KeyLog(line) => Some(line.as_str().to_owned()),
                _ => None,
            });
            let mut lines: Vec<_> = lines.collect();
            lines.sort();
            lines.dedup();
            lines
        });
        assert_eq!(server, client);
        assert_eq!(server.len(), lines, "{server:#?}");
        assert!(!format!("{:?}", pair.told).contains(&server[0][..80]));
    }
    let mut pair = Pair::new(psk_config());
    pair.connect(&psk());
    pair.run();
    assert!(!pair.told[0].iter().any(|output| matches!(output, Output::KeyLog(_))));
}

#[test]
fn records_of_no_session_are_answered_rarely_and_by_less() {
    let mut server = machine(psk_config());
    let mut alerts = 0;
    for number in 0..1000_u64 {
        let mut record = vec![23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 1, 0, 40];
        record.extend_from_slice(&[0; 40]);
        server.handle(address(number as u32), &record, at(number * 10));
        // Nor is an alert answered, nor what is no record.
        server.handle(address(0), &[21, 254, 253, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 2, 10], at(number * 10));
        server.handle(address(0), &[0xff; 80], at(number * 10));
        while let Some(output) = server.poll() {
            let Output::Datagram { bytes, .. } = output else { panic!("{output:?}") };
            assert_eq!(bytes.len(), 15);
            alerts += 1;
        }
    }
    assert_eq!((alerts, server.sessions()), (10, 0));
    assert_eq!((server.counters().unknown, server.counters().malformed), (2_000, 1_000));
}
