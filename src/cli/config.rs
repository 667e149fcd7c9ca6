//! The gateway's settings: one table, four places to set them.
//!
//! Defaults < TOML file < environment < flags. A setting has one name everywhere: `fetch-timeout` in the file,
//! `LOWBAND_FETCH_TIMEOUT` in the environment, `--fetch-timeout` as a flag. Every value is text until `effective` reads it, so
//! that what is wrong with it is said in the same words wherever it stands, and with the place.

mod effective;
mod links;
mod shapes;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use toml::de::DeTable;
use toml::de::DeValue;

pub(crate) use self::effective::Effective;
pub(crate) use self::effective::LogFormat;
pub(crate) use self::links::Links;
pub(crate) use self::shapes::Shaping;
use super::Failure;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in the file and as a flag.
    pub(crate) name: &'static str,
    /// What kind of value it takes.
    pub(crate) kind: Kind,
    value_name: &'static str,
    default: Option<&'static str>,
    help: &'static str,
}

/// What a setting takes, for the flag and for the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One text.
    Text,
    /// Some texts; with commas between them in one flag or variable.
    Texts,
    /// One number.
    Number,
    /// `true` or `false`; a flag alone is `true`.
    Switch,
}

/// All settings, in the order of `--help`, of the example file, and of `check-config`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        name: "homeserver",
        kind: Kind::Text,
        value_name: "URL",
        default: None,
        help: "The homeserver's base URL: https://…, or http:// for one on this host",
    },
    Setting {
        name: "listen",
        kind: Kind::Texts,
        value_name: "ADDR",
        default: Some("127.0.0.1:5683"),
        help: "UDP addresses to listen on, IP[:PORT][=LINK]; [::] is IPv6 alone, add 0.0.0.0 for IPv4",
    },
    Setting {
        name: "default-link",
        kind: Kind::Text,
        value_name: "LINK",
        default: Some("lan"),
        help: "The link behind an address that names none: lan, hf-100, … as lowband link show lists them",
    },
    Setting {
        name: "default-shape",
        kind: Kind::Text,
        value_name: "SHAPE",
        default: None,
        help: "What answers to /sync leave out where the peer's link does not say: quiet, lean, or a shape of the file; nothing, if unset",
    },
    Setting {
        name: "insecure-coap",
        kind: Kind::Switch,
        value_name: "BOOL",
        default: Some("false"),
        help: "Serve plain CoAP: access tokens and messages cross the link readable and changeable by anybody on it",
    },
    Setting {
        name: "insecure-public",
        kind: Kind::Switch,
        value_name: "BOOL",
        default: Some("false"),
        help: "Serve plain CoAP on other addresses than loopback too",
    },
    Setting {
        name: "advertise",
        kind: Kind::Text,
        value_name: "URL",
        default: None,
        help: "What clients are told to be the homeserver's base URL, in .well-known and login; as the homeserver says, if unset",
    },
    Setting {
        name: "homeserver-ca",
        kind: Kind::Text,
        value_name: "FILE",
        default: None,
        help: "Trust the homeserver's certificate by this PEM file alone, and not by the system's authorities",
    },
    Setting {
        name: "state",
        kind: Kind::Text,
        value_name: "FILE",
        default: None,
        help: "Keep observers, access tokens and requests under way in this file, over restarts; in memory alone, if unset",
    },
    Setting {
        name: "body-limit",
        kind: Kind::Text,
        value_name: "SIZE",
        default: Some("8MiB"),
        help: "Largest body of a request or a response",
    },
    Setting {
        name: "block-size",
        kind: Kind::Number,
        value_name: "BYTES",
        default: Some("1024"),
        help: "Largest block of a body in one datagram: 16, 32, … 1024",
    },
    Setting {
        name: "peers",
        kind: Kind::Number,
        value_name: "N",
        default: Some("10000"),
        help: "Most peers at a time; beyond that the one silent for longest is forgotten",
    },
    Setting {
        name: "fetch-timeout",
        kind: Kind::Text,
        value_name: "TIME",
        default: Some("60s"),
        help: "How long the homeserver may take for an answer, beyond the wait that a client asked for",
    },
    Setting {
        name: "connect-timeout",
        kind: Kind::Text,
        value_name: "TIME",
        default: Some("10s"),
        help: "How long a connection to the homeserver may take",
    },
    Setting {
        name: "concurrent-requests",
        kind: Kind::Number,
        value_name: "N",
        default: Some("64"),
        help: "Most calls to the homeserver at a time, long polls aside",
    },
    Setting {
        name: "concurrent-polls",
        kind: Kind::Number,
        value_name: "N",
        default: Some("1024"),
        help: "Most long polls (/sync with a timeout) at a time",
    },
    Setting {
        name: "shutdown-grace",
        kind: Kind::Text,
        value_name: "TIME",
        default: Some("5s"),
        help: "How long answers in flight may take after SIGTERM or SIGINT; a second signal ends at once",
    },
    Setting {
        name: "counters-every",
        kind: Kind::Text,
        value_name: "TIME",
        default: Some("10m"),
        help: "How often the counters are logged",
    },
    Setting {
        name: "log",
        kind: Kind::Text,
        value_name: "FILTER",
        default: Some("info"),
        help: "What is logged: error, warn, info, debug, trace, or by module: lowband::net=debug,info",
    },
    Setting {
        name: "log-format",
        kind: Kind::Text,
        value_name: "FORMAT",
        default: Some("text"),
        help: "How it is logged: text or json",
    },
];

impl Setting {
    /// Its name in the environment.
    pub(crate) fn variable(&self) -> String {
        format!("LOWBAND_{}", self.name.replace('-', "_").to_uppercase())
    }

    fn split(&self, text: &str) -> Vec<String> {
        match self.kind {
            Kind::Texts => text.split(',').map(|value| value.trim().to_owned()).collect(),
            Kind::Text | Kind::Number | Kind::Switch => vec![text.to_owned()],
        }
    }

    fn argument(&self) -> Arg {
        let help = match self.default {
            Some(default) if self.kind != Kind::Switch => format!("{} [default: {default}]", self.help),
            _ => self.help.to_owned(),
        };
        let argument = Arg::new(self.name).long(self.name).value_name(self.value_name).help(help);
        match self.kind {
            Kind::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Kind::Texts => argument.action(ArgAction::Append),
            Kind::Text | Kind::Number => argument,
        }
    }
}

/// The settings that were given as flags, and the file to read.
#[derive(Debug)]
pub(crate) struct Flags {
    config: Option<PathBuf>,
    given: BTreeMap<&'static str, Vec<String>>,
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file of settings under the same names; LOWBAND_CONFIG in the environment");
        command.arg(config).args(SETTINGS.iter().map(Setting::argument)).after_help(
            "Examples: plain CoAP on this machine alone; what a file of settings comes to\n  \
             $ lowband gateway --homeserver http://127.0.0.1:8008 --insecure-coap\n  \
             $ lowband check-config --config gateway.toml\n\n\
             Every setting may also stand in the TOML file under its name, or in the environment as LOWBAND_NAME. \
             Flags come before the environment, the environment before the file.\n\
             TIME is 500ms, 30s, 5m or 1h; SIZE is bytes, or 512KiB, 8MiB.",
        )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = |setting: &Setting| -> Option<Vec<String>> {
            let values = matches.get_many::<String>(setting.name)?;
            Some(values.flat_map(|value| setting.split(value)).collect())
        };
        let given = SETTINGS.iter().filter_map(|setting| Some((setting.name, values(setting)?))).collect();
        Ok(Self { config: matches.get_one::<PathBuf>("config").cloned(), given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Every setting's values with their place, of all places together; and the links, which stand in the file alone.
#[derive(Debug)]
pub(crate) struct Settings {
    given: BTreeMap<&'static str, Given>,
    pub(crate) links: Links,
    pub(crate) shaping: Shaping,
}

/// A setting's values, and where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

impl Settings {
    /// Reads all places. `environment` finds a variable by its name.
    ///
    /// What is wrong with one value keeps none of the others from being read.
    pub(crate) fn read(
        flags: &Flags,
        environment: impl Fn(&str) -> Option<String>,
    ) -> (Self, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let mut settings =
            Self { given: BTreeMap::new(), links: Links::built_in(), shaping: Shaping::default() };
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                let given = Given { values: setting.split(default), origin: Origin::Default };
                settings.given.insert(setting.name, given);
            }
        }
        let from_environment =
            || environment("LOWBAND_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = flags.config.clone().or_else(from_environment) {
            settings.read_file(&path, &mut errors);
        }
        for setting in SETTINGS {
            let variable = setting.variable();
            if let Some(text) = environment(&variable).filter(|text| !text.is_empty()) {
                let values = setting.split(&text);
                settings.given.insert(setting.name, Given { values, origin: Origin::Environment(variable) });
            }
            if let Some(values) = flags.given.get(setting.name) {
                let origin = Origin::Flag(format!("--{}", setting.name));
                settings.given.insert(setting.name, Given { values: values.clone(), origin });
            }
        }
        (settings, errors)
    }

    /// What stands in a file, and nothing else.
    fn of_file(path: &Path) -> (Self, Vec<ConfigError>) {
        let mut settings =
            Self { given: BTreeMap::new(), links: Links::built_in(), shaping: Shaping::default() };
        let mut errors = Vec::new();
        settings.read_file(path, &mut errors);
        (settings, errors)
    }

    /// A setting's values, where it has any.
    pub(crate) fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    fn read_file(&mut self, path: &Path, errors: &mut Vec<ConfigError>) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let error = ConfigError::new(format!("cannot read {}: {error}", path.display()));
                return errors.push(error.hint("--config names the file; without it no file is read"));
            }
        };
        let origin = |at: usize| Origin::File { path: path.to_owned(), line: line_of(&text, at) };
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                return errors.push(ConfigError::new(one_line(error.message())).at(origin(at)));
            }
        };
        for (key, value) in table.get_ref() {
            if matches!(key.get_ref().as_ref(), "link" | "shape") {
                continue;
            }
            let origin = origin(key.span().start);
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == key.get_ref()) else {
                let error = ConfigError::new(format!("{} is no setting", key.get_ref())).at(origin);
                errors.push(match nearest(key.get_ref()) {
                    Some(name) => error.hint(format!("perhaps {name}")),
                    None => error.hint("lowband gateway --help lists them"),
                });
                continue;
            };
            match texts(value.get_ref(), setting.kind) {
                Ok(values) => drop(self.given.insert(setting.name, Given { values, origin })),
                Err(error) => errors.push(ConfigError::new(error).of(setting.name).at(origin)),
            }
        }
        // The same text once more, without places: it is known to parse.
        let Ok(mut whole) = text.parse::<toml::Table>() else { return };
        let links = whole.get("link").and_then(toml::Value::as_table).cloned();
        self.links.tables = links.unwrap_or_default();
        self.shaping.read(&mut whole, table.get_ref(), origin, errors);
        if let Some(links) = whole.remove("link") {
            self.links.read(path, &text, table.get_ref(), links, errors);
        }
    }
}

/// A TOML value as the text that the environment would hold.
fn texts(value: &DeValue<'_>, kind: Kind) -> Result<Vec<String>, String> {
    match (value, kind) {
        (DeValue::Array(values), Kind::Texts) => {
            let mut all = Vec::new();
            for value in values {
                all.extend(texts(value.get_ref(), Kind::Text)?);
            }
            Ok(all)
        }
        (DeValue::String(text), Kind::Text | Kind::Texts) => Ok(vec![text.to_string()]),
        (DeValue::Integer(number), Kind::Text | Kind::Number) => Ok(vec![number.to_string()]),
        (DeValue::Boolean(value), Kind::Switch) => Ok(vec![value.to_string()]),
        (value, kind) => Err(format!("is {}, and should be {kind}", value.type_str())),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Where in the file a key stands, or the last of those that lead to it.
fn place(file: &DeTable<'_>, keys: &[&str]) -> usize {
    let mut place = 0;
    let mut table = file;
    for key in keys {
        let Some((key, value)) = table.get_key_value(*key) else { break };
        place = key.span().start;
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    place
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}

/// The setting that was probably meant: the first that has the same letters, or the longest common beginning.
fn nearest(key: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace(['-', '_'], "").to_lowercase();
    let key = plain(key);
    let common =
        |name: &str| plain(name).bytes().zip(key.bytes()).take_while(|(ours, theirs)| ours == theirs).count();
    let best = SETTINGS.iter().map(|setting| setting.name).max_by_key(|name| common(name))?;
    (common(best) >= 3).then_some(best)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a string",
            Self::Texts => "an array of strings",
            Self::Number => "an integer",
            Self::Switch => "true or false",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

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

    fn of(self, setting: &'static str) -> Self {
        Self { setting: Some(setting), ..self }
    }

    fn at(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
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
