//! The tables `[link.NAME]` of the file.

use std::path::Path;
use std::path::PathBuf;

use lowband::link::Profile;
use lowband::link::Profiles;
use lowband::link::ProfilesError;
use toml::de::DeTable;

use super::ConfigError;
use super::Origin;
use super::Settings;
use super::line_of;
use super::place;
use crate::cli::Failure;

/// The operator's links, and all that there are with the built-in ones.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// What stands in the file, as it stands there.
    pub(crate) tables: toml::Table,
    /// All profiles.
    pub(crate) profiles: Profiles,
}

impl Links {
    /// The built-in ones alone.
    pub(super) fn built_in() -> Self {
        Self { tables: toml::Table::new(), profiles: Profiles::built_in() }
    }

    /// The links of a file alone, and none of its settings.
    pub(crate) fn of_file(path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::built_in()) };
        let (settings, errors) = Settings::of_file(&path);
        if errors.is_empty() { Ok(settings.links) } else { Err(super::fail(&errors)) }
    }

    /// The profile of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Profile, Failure> {
        self.profiles
            .get(name)
            .ok_or_else(|| Failure::usage(format_args!("there is no link {name:?}")).hint(self.hint()))
    }

    /// What to do about a name that is none of theirs.
    pub(crate) fn hint(&self) -> String {
        let names: Vec<_> = self.profiles.names().collect();
        format!("links are {}; others are tables [link.NAME] of the --config file", names.join(", "))
    }

    /// Takes in what stands under `link` in a file; in `tables`, without what is not of links themselves.
    pub(super) fn read(
        &mut self,
        path: &Path,
        text: &str,
        file: &DeTable<'_>,
        tables: toml::Value,
        errors: &mut Vec<ConfigError>,
    ) {
        if let Err(wrong) = self.profiles.add(&tables) {
            // What is wrong with the other link is told.
            let faulty = |name: &str| {
                wrong.iter().any(|error| error.link == name && error.key.as_deref() != Some("like"))
            };
            let follows = |error: &&ProfilesError| {
                let like =
                    tables.get(&error.link).and_then(|table| table.get("like")).and_then(toml::Value::as_str);
                error.key.as_deref() == Some("like") && like.is_some_and(faulty)
            };
            errors.extend(wrong.iter().filter(|error| !follows(error)).map(|error| {
                let keys = ["link", &error.link, error.key.as_deref().unwrap_or_default()];
                let line = line_of(text, place(file, &keys));
                let told =
                    ConfigError::new(error.to_string()).at(Origin::File { path: path.to_owned(), line });
                match error.link.is_empty() {
                    true => told.hint("default-link names the link of all listeners"),
                    false => told,
                }
            }));
        }
    }
}
