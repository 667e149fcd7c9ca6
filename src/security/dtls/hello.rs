//! Datagrams as they look from outside, and the ClientHello in one (RFC 6347 §4.1, §4.2; RFC 9147 §4, §5.3).

/// What a datagram begins with.
#[derive(Debug)]
pub(super) enum Datagram<'a> {
    /// A ClientHello, whole.
    Hello(Hello<'a>),
    /// A fragment of a ClientHello. Whoever must answer it without keeping anything cannot.
    HelloFragment,
    /// Another record that is not encrypted.
    Plain,
    /// An encrypted record of a handshake: a Finished.
    Finishing,
    /// Any other encrypted record.
    Protected,
    /// None of these.
    Malformed,
}

/// A ClientHello, as far as it says how to answer it.
///
/// ```text
///  record: type 22 | version 2 | epoch 2 | sequence 6 | length 2
///   message: type 1 | length 3 | sequence 2 | fragment offset 3 | fragment length 3
///    body: version 2 | random 32 | <session id> | <cookie> | <<suites>> | <compression methods> | <<extensions>>
///          └──────── before_cookie ──────────┘            └─────── after_cookie ──────────┘
/// ```
#[derive(Debug)]
pub(super) struct Hello<'a> {
    /// The record's version, which an answer has too.
    version: [u8; 2],
    /// The record's sequence number.
    pub(super) record: u64,
    /// The message's.
    pub(super) sequence: u16,
    pub(super) random: [u8; 32],
    pub(super) cookie: &'a [u8],
    pub(super) before_cookie: &'a [u8],
    /// Without the extensions.
    pub(super) after_cookie: &'a [u8],
    extensions: &'a [u8],
    suites: &'a [u8],
}

/// The length of a record's header.
const RECORD: usize = 13;
/// The length of a message's header.
const MESSAGE: usize = 12;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
const SUPPORTED_VERSIONS: u16 = 43;
const COOKIE: u16 = 44;
/// DTLS 1.2 and 1.3, in a hello.
const DTLS_1_2: [u8; 2] = [254, 253];
const DTLS_1_3: [u8; 2] = [254, 252];

impl<'a> Datagram<'a> {
    pub(super) fn of(datagram: &'a [u8]) -> Self {
        let Some(first) = datagram.first() else { return Self::Malformed };
        // RFC 9147 §4: 001CSLEE, of which EE are the low bits of the epoch; that of the handshake is 2.
        if first & 0b1110_0000 == 0b0010_0000 {
            return if first & 0b11 == 2 { Self::Finishing } else { Self::Protected };
        }
        let mut reader = Reader(datagram);
        let Some(record) = Record::read(&mut reader) else { return Self::Malformed };
        match (record.epoch, record.kind) {
            (0, HANDSHAKE) if record.fragment.first() == Some(&CLIENT_HELLO) => {
                Hello::read(&record).unwrap_or(Self::Malformed)
            }
            (0, _) => Self::Plain,
            // It is authenticated with the others, as what it must be.
            _ if record.version != DTLS_1_2 => Self::Malformed,
            (_, HANDSHAKE) => Self::Finishing,
            _ => Self::Protected,
        }
    }
}

/// A record of DTLS 1.2, or one of 1.3 that is not encrypted.
struct Record<'a> {
    kind: u8,
    version: [u8; 2],
    epoch: u16,
    sequence: u64,
    fragment: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let kind = reader.byte()?;
        let version: [u8; 2] = reader.array()?;
        let epoch = u16::from_be_bytes(reader.array()?);
        let sequence = reader.number(6)?;
        let fragment = reader.vector(2)?;
        // Any minor version: a hello may have that of DTLS 1.0 (RFC 5246 Appendix E.1).
        let is_known = (20..=26).contains(&kind) && version[0] == 254;
        is_known.then_some(Self { kind, version, epoch, sequence, fragment })
    }
}

impl<'a> Hello<'a> {
    fn read(record: &Record<'a>) -> Option<Datagram<'a>> {
        let mut reader = Reader(record.fragment);
        let _kind = reader.byte()?;
        let length = reader.number(3)?;
        let sequence = u16::from_be_bytes(reader.array()?);
        let (offset, fragment) = (reader.number(3)?, reader.number(3)?);
        if offset != 0 || fragment != length {
            return Some(Datagram::HelloFragment);
        }
        let body = reader.take(usize::try_from(length).ok()?)?;
        let mut reader = Reader(body);
        let _version = reader.take(2)?;
        let random = reader.array()?;
        let _session = reader.vector(1)?;
        let before_cookie = body.get(..body.len() - reader.0.len())?;
        let cookie = reader.vector(1)?;
        let rest = reader.0;
        let suites = reader.vector(2)?;
        let _compression = reader.vector(1)?;
        let after_cookie = rest.get(..rest.len() - reader.0.len())?;
        // RFC 5246 §7.4.1.2: there may be none.
        let extensions = if reader.0.is_empty() { reader.0 } else { reader.vector(2)? };
        let (version, record) = (record.version, record.sequence);
        Some(Datagram::Hello(Self {
            version,
            record,
            sequence,
            random,
            cookie,
            before_cookie,
            after_cookie,
            extensions,
            suites,
        }))
    }

    /// The suites that the client offers, the one that it likes best first.
    pub(super) fn suites(&self) -> impl Iterator<Item = u16> {
        self.suites.chunks_exact(2).filter_map(|suite| suite.try_into().ok()).map(u16::from_be_bytes)
    }

    /// Whether it offers DTLS 1.2.
    pub(super) fn offers_1_2(&self) -> bool {
        self.versions().is_none_or(|versions| versions.chunks(2).any(|version| version == DTLS_1_2))
    }

    /// Whether it offers DTLS 1.3, and does not answer a HelloVerifyRequest, which 1.3 does not have.
    pub(super) fn offers_1_3(&self) -> bool {
        let versions = self.versions().unwrap_or_default();
        self.cookie.is_empty() && versions.chunks(2).any(|version| version == DTLS_1_3)
    }

    /// The cookie of DTLS 1.3 (RFC 8446 §4.2.2).
    pub(super) fn cookie_1_3(&self) -> Option<&'a [u8]> {
        Reader(self.extension(COOKIE)?).vector(2)
    }

    fn versions(&self) -> Option<&'a [u8]> {
        Reader(self.extension(SUPPORTED_VERSIONS)?).vector(1)
    }

    fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut reader = Reader(self.extensions);
        loop {
            let kind = u16::from_be_bytes(reader.array()?);
            let data = reader.vector(2)?;
            if kind == wanted {
                return Some(data);
            }
        }
    }

    /// The HelloVerifyRequest for it (RFC 6347 §4.2.1): 60 bytes, fewer than any hello.
    pub(super) fn verify_request(&self, cookie: [u8; 32]) -> Vec<u8> {
        // Its version is 1.0, whatever comes to be spoken.
        let mut body = vec![254, 255, 32];
        body.extend_from_slice(&cookie);
        // The record's number is that of the hello, so that several answers do not look like one.
        self.message(HELLO_VERIFY_REQUEST, self.record, self.sequence, &body)
    }

    /// The hello that came, or may have come, at this place before it: without a cookie.
    pub(super) fn without_cookie(&self, sequence: u16) -> Vec<u8> {
        let mut body = self.before_cookie.to_vec();
        body.push(0);
        body.extend_from_slice(self.after_cookie);
        // What is cut off was at most as long.
        body.extend_from_slice(&(self.extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(self.extensions);
        self.message(CLIENT_HELLO, u64::from(sequence), sequence, &body)
    }

    fn message(&self, kind: u8, record: u64, sequence: u16, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        let mut message = vec![kind, length[1], length[2], length[3]];
        message.extend_from_slice(&sequence.to_be_bytes());
        message.extend_from_slice(&[0, 0, 0, length[1], length[2], length[3]]);
        message.extend_from_slice(body);
        plain_record(HANDSHAKE, self.version, record, &message)
    }
}

/// What a fatal alert says (RFC 5246 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alert {
    UnexpectedMessage = 10,
    HandshakeFailure = 40,
    BadCertificate = 42,
}

/// A fatal alert that is not encrypted. Its number is one that no record before it is likely to have had.
pub(super) fn alert(alert: Alert) -> [u8; 15] {
    let record = plain_record(ALERT, DTLS_1_2, 0xff, &[2, alert as u8]);
    record.try_into().expect("a header of 13 bytes, and 2")
}

fn plain_record(kind: u8, version: [u8; 2], sequence: u64, fragment: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD + fragment.len());
    record.push(kind);
    record.extend_from_slice(&version);
    // The epoch, 0, and the number of 48 bits.
    record.extend_from_slice(&(sequence & 0xffff_ffff_ffff).to_be_bytes());
    record.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
    record.extend_from_slice(fragment);
    record
}

/// Adds to the numbers of all records of a datagram of ours that are not encrypted: nothing else depends on them.
pub(super) fn shift_records(datagram: &mut [u8], by: u64) {
    let mut at = 0;
    while let Some(header) = datagram.get_mut(at..at + RECORD) {
        let [_, _, _, epoch_high, epoch_low, number @ .., high, low] = header else { return };
        if (*epoch_high, *epoch_low) == (0, 0) {
            let old = number.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
            let [_, _, new @ ..] = old.wrapping_add(by).to_be_bytes();
            number.copy_from_slice(&new);
        }
        at += RECORD + usize::from(u16::from_be_bytes([*high, *low]));
    }
}

/// The client's random in a datagram of ours, if it is a hello.
pub(super) fn random_of(datagram: &[u8]) -> Option<[u8; 32]> {
    datagram.get(RECORD..).filter(|message| message.first() == Some(&CLIENT_HELLO))?;
    datagram.get(RECORD + MESSAGE + 2..)?.first_chunk().copied()
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A number of so many bytes, at most 8.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// Bytes with their number before them.
    fn vector(&mut self, length: usize) -> Option<&'a [u8]> {
        let length = self.number(length)?;
        self.take(usize::try_from(length).ok()?)
    }
}
