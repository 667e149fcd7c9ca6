//! The first exchange of a conversation, drawn: who says what, when it leaves, and when it arrives.

use std::fmt;

use super::channel::{Fate, Passage};
use crate::coap::{Code, Instant, Kind, Message};
use crate::link::End;

/// The datagrams of an exchange.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    from: End,
    what: String,
    passage: Passage,
}

impl Timeline {
    /// The most datagrams that are drawn.
    const LINES: usize = 40;
    /// The distance between the two ends.
    const WIDTH: usize = 46;

    /// Adds a datagram, while there is room.
    pub(super) fn enter(&mut self, from: End, datagram: &[u8], passage: Passage) {
        if self.lines.len() < Self::LINES {
            self.lines.push(Line { from, what: describe(datagram), passage });
        }
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = Self::WIDTH;
        writeln!(f, "{:>10}    {:<width$}gateway", "peer", "")?;
        // In the order in which they leave; arrivals may cross.
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        lines.sort_by_key(|line| line.passage.start);
        for line in lines {
            let (text, arrival) = (format!(" {} ", line.what), arrival(line.passage.fate));
            let left = seconds(line.passage.start);
            match line.from {
                End::Peer => {
                    let tip = if arrival.is_some() { '▶' } else { '╳' };
                    write!(f, "{left:>10} │{text:─^width$}{tip}│ ")?;
                    writeln!(f, "{}", arrival.map_or(lost(line.passage.fate), seconds))?;
                }
                End::Gateway => {
                    let tip = if arrival.is_some() { '◀' } else { '╳' };
                    write!(
                        f,
                        "{:>10} │{tip}{text:─^width$}│ ",
                        arrival.map_or(lost(line.passage.fate), seconds)
                    )?;
                    writeln!(f, "{left}")?;
                }
            }
        }
        Ok(())
    }
}

fn arrival(fate: Fate) -> Option<Instant> {
    match fate {
        Fate::Arrives(at) | Fate::ArrivesTwice(at, _) => Some(at),
        Fate::Lost | Fate::LostInOutage | Fate::TooLong | Fate::Overflowed => None,
    }
}

fn lost(fate: Fate) -> String {
    let told = match fate {
        Fate::TooLong => "too long",
        Fate::Overflowed => "no room",
        _ => "lost",
    };
    told.to_owned()
}

fn seconds(at: Instant) -> String {
    format!("{:.1} s", at.since_start().as_secs_f64())
}

/// A message in a few words.
pub(super) fn describe(datagram: &[u8]) -> String {
    let Ok(message) = Message::decode(datagram) else {
        return format!("{} B that are no message", datagram.len());
    };
    let kind = match message.kind {
        Kind::Confirmable => "CON",
        Kind::NonConfirmable => "NON",
        Kind::Acknowledgement => "ACK",
        Kind::Reset => "RST",
    };
    let code = match message.code {
        Code::EMPTY => String::new(),
        Code::GET => " GET".to_owned(),
        Code::POST => " POST".to_owned(),
        Code::PUT => " PUT".to_owned(),
        code => format!(" {code}"),
    };
    format!("{kind}{code} id {:04x}, {} B", message.id.0, datagram.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_ends_have_their_times() {
        let at = |seconds| Instant::START + Duration::from_secs(seconds);
        let mut timeline = Timeline::default();
        let get = [0x40, 1, 0, 1];
        timeline.enter(End::Peer, &get, Passage { start: at(0), end: at(2), fate: Fate::Lost });
        timeline.enter(End::Peer, &get, Passage { start: at(20), end: at(22), fate: Fate::Arrives(at(26)) });
        let passage = Passage { start: at(26), end: at(28), fate: Fate::Arrives(at(32)) };
        timeline.enter(End::Gateway, &[0x60, 0x45, 0, 1], passage);
        let text = timeline.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].contains("0.0 s") && lines[1].contains("CON GET id 0001, 4 B"), "{text}");
        assert!(lines[1].contains('╳') && lines[1].ends_with("lost"), "{text}");
        assert!(lines[2].ends_with("26.0 s"), "{text}");
        assert!(lines[3].trim_start().starts_with("32.0 s") && lines[3].ends_with("26.0 s"), "{text}");
    }
}
