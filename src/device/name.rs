//! What people call a device: on the command line, in files, in logs.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// A name of 1 to 64 characters of `a-z A-Z 0-9 . _ -`, with a letter or a digit in front: it is written everywhere as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// What is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no character.
    #[error("a device's name is empty")]
    Empty,
    /// It is too long; holds its bytes.
    #[error("a device's name has {0} bytes, of 64 at most")]
    TooLong(usize),
    /// A character that it may not have, or not at its beginning.
    #[error("{0:?} is not for a device's name: letters, digits, and . _ - after the first")]
    Character(char),
}

impl Name {
    const LONGEST: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::LONGEST {
            return Err(NameError::TooLong(text.len()));
        }
        let fits = |(place, c): (usize, char)| {
            c.is_ascii_alphanumeric() || place > 0 && matches!(c, '.' | '_' | '-')
        };
        match text.char_indices().find(|found| !fits(*found)) {
            Some((_, character)) => Err(NameError::Character(character)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_written_everywhere() {
        for good in ["buoy", "Buoy-7.a_b", "7"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("a".repeat(65).parse::<Name>(), Err(NameError::TooLong(65)));
        for (bad, character) in [("-x", '-'), (".x", '.'), ("a b", ' '), ("a/b", '/'), ("é", 'é')] {
            assert_eq!(bad.parse::<Name>(), Err(NameError::Character(character)), "{bad}");
        }
    }
}
