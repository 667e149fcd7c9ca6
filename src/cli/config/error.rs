//! What is wrong with the settings, and where.

use std::fmt;

use super::Origin;
use crate::cli::Failure;

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    pub(crate) message: String,
    pub(crate) setting: Option<&'static str>,
    pub(crate) origin: Option<Origin>,
    pub(crate) hint: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), setting: None, origin: None, hint: None }
    }

    pub(super) fn of(self, setting: &'static str) -> Self {
        Self { setting: Some(setting), ..self }
    }

    pub(super) fn at(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin @ Origin::File { .. }) => write!(f, "{origin}: ")?,
            Some(Origin::Environment(name) | Origin::Flag(name)) => {
                return write!(f, "{name}: {}", self.message);
            }
            Some(Origin::Default) | None => {}
        }
        match self.setting {
            Some(setting) => write!(f, "{setting}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Tells all of them; the last is left for the caller to tell.
pub(crate) fn fail(errors: &[ConfigError]) -> Failure {
    let mut failures: Vec<_> = errors.iter().map(failure).collect();
    let last = failures.pop().unwrap_or_else(|| Failure::new("the configuration is not valid"));
    for failure in &failures {
        let _: std::process::ExitCode = failure.report();
    }
    last
}

fn failure(error: &ConfigError) -> Failure {
    let failure = Failure::new(error);
    match &error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
