//! Sessions of DTLS between peers and the endpoint (RFC 7252 §9.1): whose they are, and what becomes of a peer when one ends.
//!
//! A datagram that comes to a listener of [`crate::endpoint::Config::sealed`] is a record. Whoever opens a session with keys of a device is
//! that device, wherever it is: the newest session says where. Anybody else is known for as long as the session lasts, where that is
//! allowed, and nothing of it is stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tracing::debug;

use super::{Counters, Gateway};
use crate::coap::Instant;
use crate::device::{Device, Security};
use crate::endpoint::{Address, Association, KeysNumber, Stranger};
use crate::security::dtls::{Dtls, Fingerprint, Identity, KeyLogLine, Keys, Output, Pins, Reason, SessionId};

/// Who may open sessions of DTLS, beside the devices that are admitted later.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The keys of [`crate::security::dtls::Config::keys`]: those of devices come and go here.
    pub keys: Keys,
    /// The certificates of [`crate::security::dtls::Config::clients`], likewise.
    pub pins: Pins,
    /// Whether whoever is no device is served too, with an access token of its own.
    pub unprovisioned: bool,
}

/// What a device shows when it opens a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DtlsIdentity {
    /// The identity of its key.
    Psk(Vec<u8>),
    /// The digest of its certificate, or of the certificate's public key.
    Certificate(Fingerprint),
}

/// Keys of a device.
pub(super) struct DtlsKeys {
    /// Their number.
    pub(super) number: KeysNumber,
    /// What is shown of them.
    pub(super) identity: DtlsIdentity,
    /// The key; none of a certificate.
    pub(super) key: Vec<u8>,
}

impl DtlsKeys {
    /// All that a device may open sessions by.
    pub(super) fn of(device: &Device) -> Vec<Self> {
        let keys = device.accepted().filter_map(|keys| {
            let (identity, key) = match &keys.security {
                Security::Oscore(_) | Security::Edhoc(_) => return None,
                Security::DtlsPsk(psk) => {
                    (DtlsIdentity::Psk(psk.identity.clone().into()), psk.key.expose().to_vec())
                }
                Security::DtlsCertificate(pin) => (DtlsIdentity::Certificate(Fingerprint(pin.0)), Vec::new()),
            };
            Some(Self { number: keys.number.0, identity, key })
        });
        keys.collect()
    }
}

/// Whose keys are.
#[derive(Clone, Copy, Debug)]
struct Known {
    device: Association,
    number: KeysNumber,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Secure {
    dtls: Dtls,
    access: Access,
    devices: BTreeMap<DtlsIdentity, Known>,
    sessions: BTreeMap<SessionId, Established>,
    at: BTreeMap<Address, SessionId>,
    /// The session by which a device last came.
    of: BTreeMap<Association, SessionId>,
    departing: VecDeque<(Address, Vec<u8>)>,
    /// What the sealing of something has led to.
    news: VecDeque<Output>,
    key_log: VecDeque<KeyLogLine>,
}

/// A session that bytes come by.
#[derive(Debug)]
struct Established {
    association: Association,
    address: Address,
    /// What a device has shown.
    identity: Option<DtlsIdentity>,
}

impl Gateway {
    /// Serves DTLS at the listeners of [`crate::endpoint::Config::sealed`], before any device is handed in. Without, what comes there is
    /// dropped.
    pub fn serve_dtls(&mut self, dtls: Dtls, access: Access) {
        self.secure = Some(Box::new(Secure {
            dtls,
            access,
            devices: BTreeMap::new(),
            sessions: BTreeMap::new(),
            at: BTreeMap::new(),
            of: BTreeMap::new(),
            departing: VecDeque::new(),
            news: VecDeque::new(),
            key_log: VecDeque::new(),
        }));
    }

    /// Lets a device come by these keys from now on, and by no others: what it has opened by others ends at once.
    pub(super) fn set_dtls_keys(&mut self, device: Association, keys: Vec<DtlsKeys>, now: Instant) {
        let Some(secure) = &mut self.secure else { return };
        let kept: BTreeSet<_> = keys.iter().map(|keys| keys.identity.clone()).collect();
        let its = secure.devices.iter().filter(|(_, known)| known.device == device);
        let gone: Vec<_> =
            its.filter(|(shown, _)| !kept.contains(shown)).map(|(shown, _)| shown.clone()).collect();
        for identity in gone {
            secure.revoke(&identity, now);
        }
        self.endpoint.set_session_device(device, !keys.is_empty());
        for DtlsKeys { number, identity, key } in keys {
            match &identity {
                DtlsIdentity::Psk(name) => secure.access.keys.insert(name, key),
                DtlsIdentity::Certificate(fingerprint) => secure.access.pins.insert(*fingerprint),
            }
            secure.devices.insert(identity, Known { device, number });
        }
    }

    /// Ends all sessions, and tells the peers: the last thing before the process ends.
    pub fn end_sessions(&mut self, now: Instant) {
        let Some(secure) = &mut self.secure else { return };
        for session in secure.sessions.keys().copied().collect::<Vec<_>>() {
            secure.dtls.close(session, now);
        }
        secure.depart();
        secure.news.clear();
    }

    /// The next line for the key log, where [`crate::security::dtls::Config::key_log`] asks for it.
    pub fn poll_key_log(&mut self) -> Option<KeyLogLine> {
        self.secure.as_mut()?.key_log.pop_front()
    }

    /// Takes in a datagram, whichever it is.
    pub(super) fn take_in(&mut self, address: Address, datagram: &[u8], now: Instant) {
        if !address.is_of(&self.config.endpoint.sealed) {
            return self.endpoint.handle(address, datagram, now);
        }
        let Some(secure) = &mut self.secure else { return };
        secure.dtls.handle(address, datagram, now);
        self.endpoint.heard_raw(address, now);
    }

    /// Lets time pass for the handshakes.
    pub(super) fn advance_sessions(&mut self, now: Instant) {
        if let Some(secure) = &mut self.secure {
            secure.dtls.advance(now);
        }
    }

    /// When [`Gateway::advance_sessions`] next has something to do.
    pub(super) fn sessions_deadline(&self) -> Option<Instant> {
        self.secure.as_ref()?.dtls.deadline()
    }

    /// Carries datagrams up to the endpoint and down from it. Whether there may be more to do.
    pub(super) fn carry(&mut self, now: Instant) -> bool {
        let mut is_news = false;
        while let Some(output) =
            self.secure.as_mut().and_then(|secure| secure.news.pop_front().or_else(|| secure.dtls.poll()))
        {
            is_news = true;
            self.obey(output, now);
        }
        let Some(secure) = &mut self.secure else { return false };
        while let Some((association, address, datagram)) = self.endpoint.poll_datagram_of() {
            if !address.is_of(&self.config.endpoint.sealed) {
                secure.departing.push_back((address, datagram));
                continue;
            }
            // Where a device was, somebody else may be now.
            let session = secure.at.get(&address).filter(|session| {
                let held = secure.sessions.get(session);
                held.is_some_and(|held| held.association == association)
            });
            let sealed = session.map(|session| secure.dtls.seal(*session, &datagram, now));
            if sealed.is_none_or(|sealed| sealed.is_err()) {
                self.counters.unsealed += 1;
            }
            is_news |= secure.depart();
        }
        secure.departing.extend(std::iter::from_fn(|| self.endpoint.poll_raw()));
        is_news
    }

    /// The next datagram to send.
    pub(super) fn poll_departing(&mut self) -> Option<(Address, Vec<u8>)> {
        if let Some(secure) = &mut self.secure {
            return secure.departing.pop_front();
        }
        loop {
            let (address, datagram) = self.endpoint.poll_datagram()?;
            // What is to be sealed never leaves as it is.
            if !address.is_of(&self.config.endpoint.sealed) {
                return Some((address, datagram));
            }
        }
    }

    /// What was counted, with what is held of sessions.
    pub(super) fn count_sessions(&self) -> Counters {
        let Some(secure) = &self.secure else { return self.counters };
        Counters {
            dtls: *secure.dtls.counters(),
            dtls_sessions: secure.dtls.sessions(),
            dtls_handshakes: secure.dtls.handshakes(),
            ..self.counters
        }
    }

    /// Whether nothing waits for being sent.
    pub(super) fn has_departed(&self) -> bool {
        self.secure.as_ref().is_none_or(|secure| secure.departing.is_empty())
    }

    fn obey(&mut self, output: Output, now: Instant) {
        let Some(secure) = &mut self.secure else { return };
        match output {
            Output::Datagram { address, bytes } => {
                let to = if secure.dtls.knows(address) { Stranger::Known } else { Stranger::Unknown };
                self.endpoint.send_raw(address, bytes, to, now);
            }
            Output::Established { session, address, identity } => {
                self.established(session, address, &identity, now);
            }
            Output::Opened { session, bytes } => {
                // One that was refused may have said something already.
                let Some(Established { association, address, .. }) = secure.sessions.get(&session) else {
                    return;
                };
                self.endpoint.handle_from(*association, *address, &bytes, now);
            }
            Output::Closed { session, reason } => self.closed(session, reason, now),
            Output::KeyLog(line) => secure.key_log.push_back(line),
        }
    }

    /// A handshake is complete: by whom, decides for whom its peer is taken.
    fn established(&mut self, session: SessionId, address: Address, shown: &Identity, now: Instant) {
        let Some(secure) = &mut self.secure else { return };
        let (association, identity) = match secure.device(shown) {
            Some((identity, Known { device, number })) => (device, Some((identity, number))),
            None if secure.access.unprovisioned => (Association::Session(session.number()), None),
            None => {
                debug!(remote = %address.remote, "session refused: its peer is no device");
                self.counters.sessions_refused += 1;
                return secure.dtls.close(session, now);
            }
        };
        let (identity, number) = identity.unzip();
        secure.at.insert(address, session);
        secure.sessions.insert(session, Established { association, address, identity });
        if !matches!(association, Association::Session(_)) {
            // A device is in one place. Where it was before, something may still believe in that session.
            if let Some(former) = secure.of.insert(association, session) {
                secure.dtls.close(former, now);
            }
            self.endpoint.arrived(association, address, now);
            self.reachable(association, now);
            number.into_iter().for_each(|number| self.keys_used(association, number));
        }
    }

    fn closed(&mut self, session: SessionId, reason: Reason, now: Instant) {
        let Some(secure) = &mut self.secure else { return };
        let Some(Established { association, address, .. }) = secure.sessions.remove(&session) else { return };
        debug!(remote = %address.remote, ?reason, "session closed");
        if secure.at.get(&address) == Some(&session) {
            secure.at.remove(&address);
        }
        if matches!(association, Association::Session(_)) {
            self.sessions.remove(association);
            self.packed.forget(association);
            return self.endpoint.end_peer(association, now);
        }
        if secure.of.get(&association) == Some(&session) {
            secure.of.remove(&association);
            self.endpoint.departed(association);
            // Until it opens another one, nothing reaches it.
            self.leave_idle(association, now);
            self.wait_for(association, now);
        }
    }
}

impl Secure {
    /// Lets nobody come by this any more, and ends what was opened by it.
    fn revoke(&mut self, identity: &DtlsIdentity, now: Instant) {
        match identity {
            DtlsIdentity::Psk(name) => self.access.keys.remove(name),
            DtlsIdentity::Certificate(fingerprint) => self.access.pins.remove(*fingerprint),
        }
        self.devices.remove(identity);
        let theirs = self.sessions.iter().filter(|(_, held)| held.identity.as_ref() == Some(identity));
        for session in theirs.map(|(session, _)| *session).collect::<Vec<_>>() {
            self.dtls.close(session, now);
        }
    }

    /// The device that has shown this.
    fn device(&self, shown: &Identity) -> Option<(DtlsIdentity, Known)> {
        let shown = match shown {
            Identity::Psk(identity) => vec![DtlsIdentity::Psk(identity.clone())],
            Identity::Certificate { certificate, key } => {
                vec![DtlsIdentity::Certificate(*certificate), DtlsIdentity::Certificate(*key)]
            }
            Identity::Anonymous => Vec::new(),
        };
        shown.into_iter().find_map(|identity| {
            let known = self.devices.get(&identity).copied()?;
            Some((identity, known))
        })
    }

    /// Lets leave what was sealed just now, whose turn on the link it was. Whether there is anything else.
    fn depart(&mut self) -> bool {
        let mut others = Vec::new();
        while let Some(output) = self.dtls.poll() {
            match output {
                Output::Datagram { address, bytes } => self.departing.push_back((address, bytes)),
                other => others.push(other),
            }
        }
        let is_news = !others.is_empty();
        self.news.extend(others);
        is_news
    }
}
