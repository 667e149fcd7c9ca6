//! What crosses the link: every datagram, counted, described and shown as it passes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;

use lowband::coap::Code;
use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::OptionNumber;
use lowband::net::Clock;
use lowband::net::client::Direction;
use lowband::net::client::Watch;

use crate::cli::Failure;
use crate::cli::output;

/// Bytes of the headers below CoAP: 20 of IPv4 (RFC 791 §3.1) and 8 of UDP (RFC 768).
pub(super) const HEADERS: usize = 28;

/// Blocks of one transfer that are shown one by one.
const SHOWN_BLOCKS: u32 = 2;

/// How long nothing has to pass before a step counts as finished.
const QUIET: Duration = Duration::from_millis(60);

/// One datagram, as it passed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Datagram {
    /// Milliseconds since the demo began.
    pub(super) at_ms: u64,
    /// The client that sent or received it.
    pub(super) client: &'static str,
    /// `sent` or `received`, by that client.
    pub(super) direction: &'static str,
    /// With the headers of IP and UDP.
    pub(super) bytes: usize,
    /// What it is.
    pub(super) message: String,
    #[serde(skip)]
    block: u32,
}

/// Everything that has passed.
pub(super) struct Log {
    clock: Clock,
    shown: bool,
    datagrams: Mutex<Vec<Datagram>>,
}

impl Log {
    /// An empty log; `shown` says whether it appears on standard output as it grows.
    pub(super) fn new(shown: bool) -> Self {
        Self { clock: Clock::start(), shown, datagrams: Mutex::default() }
    }

    /// Milliseconds since the demo began.
    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Shows a line of the story.
    pub(super) fn say(&self, line: &str) -> Result<(), Failure> {
        if self.shown { output::write_line(line) } else { Ok(()) }
    }

    /// What sees the datagrams of a client.
    pub(super) fn watch(self: &Arc<Self>, client: &'static str) -> Watch {
        let log = Arc::clone(self);
        Box::new(move |direction, bytes| log.pass(client, direction, bytes))
    }

    /// Waits until nothing passes any more, and returns what has passed since the last time.
    pub(super) async fn settle(&self) -> Result<Vec<Datagram>, Failure> {
        let mut known = usize::MAX;
        while known != self.lock().len() {
            known = self.lock().len();
            tokio::time::sleep(QUIET).await;
        }
        let datagrams = std::mem::take(&mut *self.lock());
        let folded: Vec<_> = datagrams.iter().filter(|datagram| datagram.block >= SHOWN_BLOCKS).collect();
        if !folded.is_empty() {
            let bytes: usize = folded.iter().map(|datagram| datagram.bytes).sum();
            self.say(&format!("{:>44}{} more blocks and their requests, {bytes} B", "… ", folded.len()))?;
        }
        Ok(datagrams)
    }

    fn pass(&self, client: &'static str, direction: Direction, bytes: &[u8]) {
        let (message, block) = describe(bytes);
        let (word, arrow) = match direction {
            Direction::Sent => ("sent", "→"),
            Direction::Received => ("received", "←"),
        };
        let datagram = Datagram {
            at_ms: self.elapsed_ms(),
            client,
            direction: word,
            bytes: bytes.len() + HEADERS,
            message,
            block,
        };
        if block < SHOWN_BLOCKS {
            let seconds = self.clock.elapsed().as_secs_f64();
            // A reader that has gone is noticed by the story, which goes on to write.
            let _ = self.say(&format!(
                "{seconds:>8.3} s  {client:<5} {arrow} {:>5} B  {}",
                datagram.bytes, datagram.message
            ));
        }
        self.lock().push(datagram);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Datagram>> {
        self.datagrams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes a datagram in one line, and gives the number of its block.
fn describe(datagram: &[u8]) -> (String, u32) {
    let Ok(message) = Message::decode(datagram) else { return ("no CoAP message".to_owned(), 0) };
    let kind = match message.kind {
        Kind::Confirmable => "CON",
        Kind::NonConfirmable => "NON",
        Kind::Acknowledgement => "ACK",
        Kind::Reset => "RST",
    };
    let mut text = kind.to_owned();
    if message.code != Code::EMPTY {
        text.push_str(&format!(" {}", title(message.code)));
    }
    let path: String =
        message.options.all(OptionNumber::URI_PATH).map(|part| format!("/{}", short(part))).collect();
    let query: Vec<String> = message.options.all(OptionNumber::URI_QUERY).map(short).collect();
    if !path.is_empty() {
        text.push_str(&format!(" {path}"));
    }
    if !query.is_empty() {
        text.push_str(&format!("?{}", query.join("&")));
    }
    if message.options.get(OptionNumber::ACCESS_TOKEN).is_some() {
        text.push_str(", access token");
    }
    if let Some(number) = message.options.get_uint(OptionNumber::OBSERVE) {
        text.push_str(&match (message.code.is_request(), number) {
            (true, 0) => ", observe".to_owned(),
            (true, _) => ", observe no more".to_owned(),
            (false, _) => format!(", notification {number}"),
        });
    }
    let mut last_block = 0;
    for (option, name) in [(OptionNumber::BLOCK1, "request"), (OptionNumber::BLOCK2, "response")] {
        // RFC 7959 §2.2: NUM, then a bit whether more follow, then three of the size.
        if let Some(block) = message.options.get_uint(option) {
            text.push_str(&format!(", {name} block {}", block >> 4));
            last_block = last_block.max(block >> 4);
        }
    }
    if !message.payload.is_empty() {
        text.push_str(&format!(", body {} B", message.payload.len()));
    }
    (text, last_block)
}

fn title(code: Code) -> String {
    match code.name() {
        Some(name) if code.is_request() => name.to_owned(),
        Some(name) => format!("{}.{:02} {name}", code.class(), code.detail()),
        None => format!("{}.{:02}", code.class(), code.detail()),
    }
}

/// The beginning of a text, enough to know an identifier again.
fn short(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(20).collect();
    if characters.next().is_some() {
        format!("{}…", start.chars().take(8).collect::<String>())
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_is_described_by_what_it_does() {
        // GET /7?since=s1 with an observation, a token "TOK" in option 256 and Block2 3 of 64 bytes, more to come.
        let datagram = [
            0x40, 0x01, 0x12, 0x34, 0x60, 0x51, b'7', 0x48, b's', b'i', b'n', b'c', b'e', b'=', b's', b'1',
            0x81, 0x3a, 0xd3, 0xdc, b'T', b'O', b'K',
        ];
        let (text, block) = describe(&datagram);
        assert_eq!(text, "CON GET /7?since=s1, access token, observe, response block 3");
        assert_eq!(block, 3);
        assert_eq!(describe(&[0x60, 0x00, 0x12, 0x34]).0, "ACK");
        assert_eq!(describe(&[0xff]).0, "no CoAP message");
    }

    #[test]
    fn long_identifier_is_cut() {
        assert_eq!(short(b"m.room.message"), "m.room.message");
        assert_eq!(short(b"!a65CaCLfUsr53DbIMZJH1t67CAqpGPp4MKwcXtq9IsE"), "!a65CaCL…");
    }
}
