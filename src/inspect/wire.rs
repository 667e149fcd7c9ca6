//! The bytes of a message, field by field, as far as they make sense (RFC 7252 §3).

use std::fmt;

/// A datagram cut into its fields. Every slice is a part of the datagram, `at` its place there.
#[derive(Debug, Default)]
pub(super) struct Wire<'a> {
    /// The first four bytes.
    pub header: Option<[u8; 4]>,
    pub token: &'a [u8],
    pub options: Vec<WireOption<'a>>,
    /// What follows the payload marker.
    pub payload: Option<&'a [u8]>,
    /// Where and why reading stopped before the end.
    pub broken: Option<Broken>,
}

/// One option as it stands in the datagram.
#[derive(Debug)]
pub(super) struct WireOption<'a> {
    pub at: usize,
    pub number: u16,
    /// Delta and length: 1 to 5 bytes.
    pub head: &'a [u8],
    pub value: &'a [u8],
}

/// Where and why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub at: usize,
    pub reason: String,
}

impl<'a> Wire<'a> {
    /// Cuts a datagram into its fields, up to the first that makes no sense.
    pub(super) fn read(datagram: &'a [u8]) -> Self {
        let mut wire = Self::default();
        let mut reader = Reader { datagram, at: 0 };
        wire.broken = wire.fill(&mut reader).err();
        wire
    }

    fn fill(&mut self, reader: &mut Reader<'a>) -> Result<(), Broken> {
        let Some((header, _)) = reader.datagram.split_first_chunk::<4>() else {
            let length = reader.datagram.len();
            return Err(reader.broken(format_args!("the header has 4 bytes, the datagram {length}")));
        };
        let [first, ..] = *header;
        self.header = Some(*header);
        if first >> 6 != 1 {
            return Err(reader.broken(format_args!("version {}: only version 1 can be read", first >> 6)));
        }
        let length = usize::from(first & 0xf);
        if length > 8 {
            return Err(reader.broken(format_args!("token lengths 9 to 15 are reserved, this is {length}")));
        }
        reader.at = header.len();
        self.token = reader.take(length, "the token")?;
        let mut number = 0;
        while let Some(first) = reader.peek() {
            if first == 0xff {
                return self.fill_payload(reader);
            }
            let option = reader.option(first, number)?;
            number = option.number;
            self.options.push(option);
        }
        Ok(())
    }

    fn fill_payload(&mut self, reader: &mut Reader<'a>) -> Result<(), Broken> {
        let marker = reader.at;
        reader.take(1, "the payload marker")?;
        let payload = reader.take(reader.left(), "the payload")?;
        if payload.is_empty() {
            return Err(Broken { at: marker, reason: "no payload follows the payload marker".to_owned() });
        }
        self.payload = Some(payload);
        Ok(())
    }
}

struct Reader<'a> {
    datagram: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.datagram.len().saturating_sub(self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.datagram.get(self.at).copied()
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], Broken> {
        let end = self.at.saturating_add(length);
        let Some(taken) = self.datagram.get(self.at..end) else {
            let left = self.left();
            return Err(self.broken(format_args!("{what} has {}, {left} left", bytes(length))));
        };
        self.at = end;
        Ok(taken)
    }

    /// One option after that of the number `previous` (RFC 7252 §3.1).
    fn option(&mut self, first: u8, previous: u16) -> Result<WireOption<'a>, Broken> {
        let start = Reader { datagram: self.datagram, at: self.at };
        self.take(1, "the option's first byte")?;
        let delta =
            self.extended(first >> 4, "the option's delta").map_err(|reason| start.at_start(reason))?;
        let length =
            self.extended(first & 0xf, "the option's length").map_err(|reason| start.at_start(reason))?;
        let number = usize::from(previous) + delta;
        let Ok(number) = u16::try_from(number) else {
            return Err(start.broken(format_args!("option number {number} is over 65535")));
        };
        let head = self.datagram.get(start.at..self.at).unwrap_or_default();
        let value = self.take(length, &format!("the value of option {number}"))?;
        Ok(WireOption { at: start.at, number, head, value })
    }

    /// The number that a nibble stands for or announces.
    fn extended(&mut self, nibble: u8, what: &str) -> Result<usize, Broken> {
        match nibble {
            13 => match self.take(1, what)? {
                [low] => Ok(usize::from(*low) + 13),
                _ => Err(self.broken(format_args!("{what} is cut short"))),
            },
            14 => match self.take(2, what)? {
                [high, low] => Ok(usize::from(u16::from_be_bytes([*high, *low])) + 269),
                _ => Err(self.broken(format_args!("{what} is cut short"))),
            },
            15 => Err(self.broken(format_args!("{what} is the reserved 15"))),
            nibble => Ok(usize::from(nibble)),
        }
    }

    fn broken(&self, reason: fmt::Arguments<'_>) -> Broken {
        Broken { at: self.at, reason: reason.to_string() }
    }

    fn at_start(&self, broken: Broken) -> Broken {
        Broken { at: self.at, ..broken }
    }
}

/// `1 byte`, `2 bytes`.
pub(super) fn bytes(count: usize) -> String {
    format!("{count} byte{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(datagram: &[u8]) -> (usize, String) {
        let broken = Wire::read(datagram).broken.expect("broken");
        (broken.at, broken.reason)
    }

    #[test]
    fn a_sound_message_is_cut_into_its_fields() {
        let wire = Wire::read(&[0x41, 1, 0, 1, 0xaa, 0xb1, 0x37, 0x11, 0x2a, 0xff, 9]);
        assert_eq!(wire.token, [0xaa]);
        let options: Vec<_> =
            wire.options.iter().map(|option| (option.at, option.number, option.value)).collect();
        assert_eq!(options, [(5, 11, &[0x37][..]), (7, 12, &[0x2a][..])]);
        assert_eq!(wire.payload, Some(&[9][..]));
        assert_eq!(wire.broken, None);
    }

    #[test]
    fn reading_stops_where_the_datagram_breaks_and_says_why() {
        assert_eq!(broken(&[0x40]), (0, "the header has 4 bytes, the datagram 1".to_owned()));
        assert_eq!(broken(&[0x80, 1, 0, 1]), (0, "version 2: only version 1 can be read".to_owned()));
        assert_eq!(
            broken(&[0x4f, 1, 0, 1]),
            (0, "token lengths 9 to 15 are reserved, this is 15".to_owned())
        );
        assert_eq!(broken(&[0x42, 1, 0, 1, 9]), (4, "the token has 2 bytes, 1 left".to_owned()));
        assert_eq!(
            broken(&[0x40, 1, 0, 1, 0xb5, 9]),
            (5, "the value of option 11 has 5 bytes, 1 left".to_owned())
        );
        assert_eq!(
            broken(&[0x40, 1, 0, 1, 0xe0, 0]),
            (4, "the option's delta has 2 bytes, 1 left".to_owned())
        );
        assert_eq!(broken(&[0x40, 1, 0, 1, 0xf1]), (4, "the option's delta is the reserved 15".to_owned()));
        assert_eq!(
            broken(&[0x40, 1, 0, 1, 0xe0, 255, 255]),
            (4, "option number 65804 is over 65535".to_owned())
        );
        assert_eq!(broken(&[0x40, 1, 0, 1, 0xff]), (4, "no payload follows the payload marker".to_owned()));
    }

    #[test]
    fn what_stands_before_the_break_is_kept() {
        let wire = Wire::read(&[0x40, 1, 0, 1, 0xb1, 0x37, 0x15]);
        assert_eq!(wire.options.len(), 1);
        assert!(wire.broken.is_some());
    }
}
