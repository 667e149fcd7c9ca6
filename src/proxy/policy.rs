//! What becomes of requests that do not fit a slow link, class by class.
//!
//! | class | what it is |
//! |---|---|
//! | `media` | upload, download, thumbnails |
//! | `previews` | previews of URLs |
//! | `directory` | room directories, searches for rooms, users and messages, the hierarchy of spaces |
//! | `presence` | saying that one is online |
//! | `typing` | saying that one types |
//! | `receipts` | saying how far one has read |

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::matrix::Target;

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Upload, download, thumbnails.
    Media,
    /// Previews of URLs.
    Previews,
    /// Directories and searches.
    Directory,
    /// That one is online.
    Presence,
    /// That one types.
    Typing,
    /// How far one has read.
    Receipts,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It crosses the link as all else does.
    Allow,
    /// It crosses one at a time, after all else, and only the newest of its kind where that says all.
    Latest,
    /// It crosses when nothing else is under way.
    Defer,
    /// It does not cross, and its client is told so: `M_FORBIDDEN`.
    Refuse,
    /// It does not cross, and its client is answered as if it had.
    Drop,
}

/// The rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy(BTreeMap<Class, Rule>);

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It has no form.
    #[error("a rule is like typing=drop, and there is none in {0:?}")]
    Form(String),
    /// There is no such class.
    #[error("{0:?} is no class; there are media, previews, directory, presence, typing and receipts")]
    Class(String),
    /// There is no such rule.
    #[error("{0:?} is no rule; there are allow, latest, defer, refuse and drop")]
    Rule(String),
    /// A class that cannot have the rule.
    #[error("{0} cannot be {1}: {2}")]
    Unfit(Class, Rule, &'static str),
}

/// Links slower than this carry little that can be left out (bit/s).
const SLOW: u64 = 5_000;

impl Policy {
    /// What is sensible on a link that carries so many bits in a second; 0 for one that nothing holds up.
    pub fn of_rate(bits_per_second: u64) -> Self {
        use Class::*;
        let rules = match bits_per_second {
            1..SLOW => [
                (Media, Rule::Refuse),
                (Previews, Rule::Refuse),
                (Directory, Rule::Defer),
                (Presence, Rule::Drop),
                (Typing, Rule::Drop),
                (Receipts, Rule::Latest),
            ],
            _ => [
                (Media, Rule::Refuse),
                (Previews, Rule::Refuse),
                (Directory, Rule::Allow),
                (Presence, Rule::Latest),
                (Typing, Rule::Latest),
                (Receipts, Rule::Latest),
            ],
        };
        Self(rules.into())
    }

    /// Sets rules: `typing=latest,presence=drop`.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn set(&mut self, rules: &str) -> Result<(), PolicyError> {
        for rule in rules.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
            let (class, rule) = rule.split_once('=').ok_or_else(|| PolicyError::Form(rule.to_owned()))?;
            let (class, rule): (Class, Rule) = (class.trim().parse()?, rule.trim().parse()?);
            if let Some(why) = class.forbids(rule) {
                return Err(PolicyError::Unfit(class, rule, why));
            }
            self.0.insert(class, rule);
        }
        Ok(())
    }

    /// The rule of a class.
    pub fn rule(&self, class: Class) -> Rule {
        self.0.get(&class).copied().unwrap_or(Rule::Allow)
    }

    /// All of them.
    pub fn rules(&self) -> impl Iterator<Item = (Class, Rule)> {
        self.0.iter().map(|(class, rule)| (*class, *rule))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (class, rule)) in self.rules().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{class}={rule}")?;
        }
        Ok(())
    }
}

impl Class {
    const ALL: [Class; 6] =
        [Class::Media, Class::Previews, Class::Directory, Class::Presence, Class::Typing, Class::Receipts];

    /// The class of a request, if it has one.
    pub fn of(target: &Target) -> Option<Self> {
        let class = match target.route?.operation {
            "getContent"
            | "getContentAuthed"
            | "getContentOverrideName"
            | "getContentOverrideNameAuthed"
            | "getContentThumbnail"
            | "getContentThumbnailAuthed"
            | "uploadContent"
            | "uploadContentToMXC"
            | "createContent" => Self::Media,
            "getUrlPreview" | "getUrlPreviewAuthed" => Self::Previews,
            "getPublicRooms"
            | "queryPublicRooms"
            | "searchUserDirectory"
            | "search"
            | "getSpaceHierarchy" => Self::Directory,
            "setPresence" => Self::Presence,
            "setTyping" => Self::Typing,
            "postReceipt" | "setReadMarker" => Self::Receipts,
            _ => return None,
        };
        Some(class)
    }

    /// Why it cannot have a rule.
    fn forbids(self, rule: Rule) -> Option<&'static str> {
        let states = matches!(self, Self::Presence | Self::Typing | Self::Receipts);
        match rule {
            Rule::Drop if !states => Some("its client waits for what is in the answer"),
            Rule::Latest if !states => Some("a later one does not say what an earlier one did"),
            Rule::Allow | Rule::Defer if self == Self::Media => Some("the gateway does not carry it yet"),
            _ => None,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Media => "media",
            Self::Previews => "previews",
            Self::Directory => "directory",
            Self::Presence => "presence",
            Self::Typing => "typing",
            Self::Receipts => "receipts",
        })
    }
}

impl FromStr for Class {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let found = Self::ALL.into_iter().find(|class| class.to_string() == text);
        found.ok_or_else(|| PolicyError::Class(text.to_owned()))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Latest => "latest",
            Self::Defer => "defer",
            Self::Refuse => "refuse",
            Self::Drop => "drop",
        })
    }
}

impl FromStr for Rule {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let all = [Self::Allow, Self::Latest, Self::Defer, Self::Refuse, Self::Drop];
        let found = all.into_iter().find(|rule| rule.to_string() == text);
        found.ok_or_else(|| PolicyError::Rule(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_it_is_read() {
        let mut policy = Policy::of_rate(100);
        assert_eq!(
            policy.to_string(),
            "media=refuse,previews=refuse,directory=defer,presence=drop,typing=drop,receipts=latest"
        );
        policy.set("typing=latest, directory=refuse").unwrap();
        let mut other = Policy::of_rate(0);
        other.set(&policy.to_string()).unwrap();
        assert_eq!(other, policy);
        assert_eq!(policy.rule(Class::Typing), Rule::Latest);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let mut policy = Policy::of_rate(0);
        for (text, said) in [
            ("typing", "a rule is like typing=drop, and there is none in \"typing\""),
            (
                "calls=drop",
                "\"calls\" is no class; there are media, previews, directory, presence, typing and receipts",
            ),
            ("typing=maybe", "\"maybe\" is no rule; there are allow, latest, defer, refuse and drop"),
            ("directory=drop", "directory cannot be drop: its client waits for what is in the answer"),
        ] {
            assert_eq!(policy.set(text).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn each_operation_that_has_a_class_is_one_of_the_table() {
        let classes: Vec<_> = crate::matrix::routes()
            .iter()
            .filter_map(|route| {
                let segments: Vec<&str> = route.path.split('/').skip(1).collect();
                Class::of(&crate::matrix::expand(route.method, &segments).ok()?)
            })
            .collect();
        assert_eq!(classes.len(), 20);
    }
}
