//! A recording: exchanges, one a line, in the order of time. Holds one line at a time.

use std::io;
use std::io::BufRead;
use std::io::Read;

use thiserror::Error;

use super::exchange::Exchange;
use super::exchange::ExchangeError;

/// The exchanges of a file. Ends after the first error.
#[derive(Debug)]
pub struct Recording<R> {
    input: R,
    line: u64,
    text: Vec<u8>,
    failed: bool,
}

/// Why a recording cannot be read on; `line` is counted from 1.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It cannot be read at all.
    #[error("{error}")]
    Read {
        /// The line that was not read to its end.
        line: u64,
        /// Why not.
        error: io::Error,
    },
    /// A line is longer than any is that could be carried.
    #[error("the line has more than {} MiB", limit >> 20)]
    TooLong {
        /// Which.
        line: u64,
        /// The most, in bytes.
        limit: usize,
    },
    /// A line is no exchange.
    #[error("{error}")]
    Exchange {
        /// Which.
        line: u64,
        /// What is wrong with it.
        error: ExchangeError,
    },
}

impl RecordingError {
    /// Where it is.
    pub fn line(&self) -> u64 {
        match self {
            Self::Read { line, .. } | Self::TooLong { line, .. } | Self::Exchange { line, .. } => *line,
        }
    }
}

impl<R: BufRead> Recording<R> {
    /// The longest line: a body of 16 MiB is the most that a gateway carries, and there are two, and what is escaped takes more.
    const LONGEST: usize = 64 << 20;

    /// The exchanges that stand in `input`.
    pub fn new(input: R) -> Self {
        Self { input, line: 0, text: Vec::new(), failed: false }
    }

    /// The next line with something in it; none at the end.
    fn read(&mut self, longest: usize) -> Result<Option<Exchange>, RecordingError> {
        loop {
            self.line += 1;
            let line = self.line;
            self.text.clear();
            let mut input = (&mut self.input).take(longest as u64 + 1);
            let read = input.read_until(b'\n', &mut self.text);
            if read.map_err(|error| RecordingError::Read { line, error })? == 0 {
                return Ok(None);
            }
            let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
            if text.len() > longest {
                return Err(RecordingError::TooLong { line, limit: longest });
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let exchange = Exchange::read(line, text);
            return exchange.map(Some).map_err(|error| RecordingError::Exchange { line, error });
        }
    }
}

impl<R: BufRead> Iterator for Recording<R> {
    type Item = Result<Exchange, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read(Self::LONGEST);
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"method":"GET","path":"/x","status":200}"#;

    #[test]
    fn empty_lines_are_counted_and_passed_over() {
        let text = format!("\n{LINE}\r\n \n{LINE}");
        let lines = Recording::new(text.as_bytes()).map(|exchange| exchange.unwrap().line);
        assert_eq!(lines.collect::<Vec<_>>(), [2, 4]);
        assert_eq!(Recording::new(&b""[..]).count(), 0);
    }

    #[test]
    fn the_first_line_that_is_none_ends_it_and_is_named() {
        let text = format!("{LINE}\n{LINE}x\n{LINE}\n");
        let mut recording = Recording::new(text.as_bytes());
        recording.next().unwrap().unwrap();
        let error = recording.next().unwrap().unwrap_err();
        assert_eq!(error.line(), 2);
        assert!(error.to_string().starts_with("not an exchange: trailing characters"), "{error}");
        assert!(recording.next().is_none());
    }

    #[test]
    fn a_line_without_end_is_not_read_to_its_end() {
        let mut recording = Recording::new(&[b' '; 1000][..]);
        let error = recording.read(999).unwrap_err();
        assert!(matches!(error, RecordingError::TooLong { line: 1, limit: 999 }), "{error:?}");
        let mut recording = Recording::new(LINE.as_bytes());
        assert!(recording.read(LINE.len()).unwrap().is_some());
        let mut recording = Recording::new(LINE.as_bytes());
        recording.read(LINE.len() - 1).unwrap_err();
    }
}
