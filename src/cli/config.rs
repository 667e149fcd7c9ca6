//! The gateway's settings: one table, four places to set them.
//!
//! Defaults < TOML file < environment < flags. A setting has one name everywhere: `fetch-timeout` in the file,
//! `LOWBAND_FETCH_TIMEOUT` in the environment, `--fetch-timeout` as a flag. Every value is text until `effective` reads it, so
//! that what is wrong with it is said in the same words wherever it stands, and with the place.

mod devices;
mod effective;
mod error;
mod links;
mod shapes;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use toml::de::DeTable;
use toml::de::DeValue;

pub(crate) use self::devices::devices;
pub(crate) use self::effective::Effective;
pub(crate) use self::effective::LogFormat;
pub(crate) use self::effective::homeserver_url;
pub(crate) use self::effective::size_argument;
pub(crate) use self::effective::time_argument;
pub(crate) use self::error::ConfigError;
pub(crate) use self::error::fail;
pub(crate) use self::links::Links;
pub(crate) use self::shapes::Shaping;

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
        help: "UDP addresses to listen on, [coap://|coaps://]IP[:PORT][=LINK]; [::] is IPv6 alone, add 0.0.0.0 for IPv4",
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
        help: "Serve plain CoAP beside devices: access tokens and messages cross the link readable and changeable by anybody on it",
    },
    Setting {
        name: "insecure-public",
        kind: Kind::Switch,
        value_name: "BOOL",
        default: Some("false"),
        help: "Serve plain CoAP on other addresses than loopback too",
    },
    Setting {
        name: "certificate",
        kind: Kind::Text,
        value_name: "FILE",
        default: None,
        help: "The gateway's certificate at coaps:// addresses, in PEM; without, devices with shared keys alone are served there",
    },
    Setting {
        name: "certificate-key",
        kind: Kind::Text,
        value_name: "FILE",
        default: None,
        help: "The certificate's private key, in PEM, for its owner alone to read",
    },
    Setting {
        name: "allow-unprovisioned",
        kind: Kind::Text,
        value_name: "KIND",
        default: None,
        help: "Serve whoever is no device too: dtls, at coaps:// addresses by the certificate, each with an access token of its own; nobody, if unset",
    },
    Setting {
        name: "dtls-sessions",
        kind: Kind::Number,
        value_name: "N",
        default: Some("10000"),
        help: "Most sessions of DTLS at a time, with handshakes; beyond that the one unused for longest is closed",
    },
    Setting {
        name: "dtls-handshakes",
        kind: Kind::Number,
        value_name: "N",
        default: Some("1000"),
        help: "Most handshakes of DTLS at a time",
    },
    Setting {
        name: "key-log",
        kind: Kind::Text,
        value_name: "FILE",
        default: None,
        help: "Write the keys of DTLS sessions to this file (as SSLKEYLOGFILE), with which recorded ones can be read: for diagnosis alone",
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
        name: "devices",
        kind: Kind::Text,
        value_name: "FILE",
        default: None,
        help: "Keep devices, their keys and their tokens in this file; beside --state, as FILE.devices, if unset",
    },
    Setting {
        name: "device-key",
        kind: Kind::Text,
        value_name: "FILE",
        default: None,
        help: "The key that devices are sealed with; the systemd credential lowband-device-key, or DEVICES.key, if unset",
    },
    Setting {
        name: "control",
        kind: Kind::Text,
        value_name: "SOCKET",
        default: None,
        help: "The Unix socket on which `lowband device` reaches the gateway; DEVICES.control, if unset",
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
        name: "packed-peers",
        kind: Kind::Number,
        value_name: "N",
        default: Some("1000"),
        help: "Most peers whose tables of the packed profile are kept, up to a megabyte each; beyond that the one unused for longest begins anew. 0: not spoken",
    },
    Setting {
        name: "dictionary",
        kind: Kind::Texts,
        value_name: "DIR",
        default: Some("built-in"),
        help: "The dictionaries of the packed profile, as lowband dictionary train makes them: a peer has one of them; built-in is this program's",
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
        help: "How long a connection to the homeserver may take, TLS with it",
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
        match (self.kind, text) {
            (Kind::Texts, _) => text.split(',').map(|value| value.trim().to_owned()).collect(),
            // As a file has them.
            (Kind::Switch, "1") => vec!["true".to_owned()],
            (Kind::Switch, "0") => vec!["false".to_owned()],
            (Kind::Text | Kind::Number | Kind::Switch, _) => vec![text.to_owned()],
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

impl Flags {
    /// As if these had been given, and no others.
    pub(crate) fn of(config: Option<PathBuf>, given: &[(&'static str, Option<&String>)]) -> Self {
        let given = given.iter().filter_map(|(name, value)| Some((*name, vec![(*value)?.clone()])));
        Self { config, given: given.collect() }
    }
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file of settings under the same names; LOWBAND_CONFIG in the environment");
        command.arg(config).args(SETTINGS.iter().map(Setting::argument)).after_help(
            "Examples: devices that lowband device adds, from any network; plain CoAP on this machine alone; what a file of settings comes to\n  \
             $ lowband gateway --homeserver http://127.0.0.1:8008 --listen 0.0.0.0 --state lowband.state\n  \
             $ lowband gateway --homeserver http://127.0.0.1:8008 --insecure-coap\n  \
             $ lowband check-config --config lowband.example.toml\n\n\
             Every setting may also stand in the TOML file under its name, or in the environment as LOWBAND_NAME. \
             Flags come before the environment, the environment before the file.\n\
             TIME is 500ms, 30s, 5m or 1h, or a number of seconds; SIZE is bytes, or 512KiB, 8MiB.",
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
    /// Settings whose value in the file was refused, and that stand nowhere else.
    refused: BTreeSet<&'static str>,
    /// Whether a file was named that could not be read: what is set is not known then.
    pub(crate) unread: bool,
    pub(crate) links: Links,
    pub(crate) shaping: Shaping,
    /// What is allowed and perhaps not meant.
    pub(crate) warnings: Vec<String>,
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
    /// Variables that are no settings, and have a meaning all the same.
    const OTHER_VARIABLES: [&'static str; 2] = ["LOWBAND_CONFIG", "LOWBAND_TOKEN"];

    /// Reads all places. `environment` is all variables.
    ///
    /// What is wrong with one value keeps none of the others from being read.
    pub(crate) fn read(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Self, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let mut settings = Self::none();
        let variables = variables(environment);
        let environment = |name: &str| variables.get(name).filter(|text| !text.is_empty()).cloned();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                let given = Given { values: setting.split(default), origin: Origin::Default };
                settings.given.insert(setting.name, given);
            }
        }
        let from_environment = || environment("LOWBAND_CONFIG").map(PathBuf::from);
        if let Some(path) = flags.config.clone().or_else(from_environment) {
            settings.read_file(&path, &mut errors);
        }
        for setting in SETTINGS {
            let variable = setting.variable();
            if let Some(text) = environment(&variable) {
                let origin = Origin::Environment(variable);
                settings.set(setting, Given { values: setting.split(&text), origin });
            }
            if let Some(values) = flags.given.get(setting.name) {
                let origin = Origin::Flag(format!("--{}", setting.name));
                settings.set(setting, Given { values: values.clone(), origin });
            }
        }
        // No error: what starts processes sets variables of its own, by the name of the service.
        settings.warnings.extend(variables.keys().filter_map(|name| {
            let is_known = SETTINGS.iter().any(|setting| setting.variable() == *name)
                || Self::OTHER_VARIABLES.contains(&name.as_str());
            (!is_known).then(|| unknown_variable(name))
        }));
        (settings, errors)
    }

    fn none() -> Self {
        Self {
            given: BTreeMap::new(),
            refused: BTreeSet::new(),
            unread: false,
            links: Links::built_in(),
            shaping: Shaping::default(),
            warnings: Vec::new(),
        }
    }

    fn set(&mut self, setting: &Setting, given: Given) {
        self.refused.remove(setting.name);
        self.given.insert(setting.name, given);
    }

    /// What stands in a file, and nothing else.
    fn of_file(path: &Path) -> (Self, Vec<ConfigError>) {
        let mut settings = Self::none();
        let mut errors = Vec::new();
        settings.read_file(path, &mut errors);
        (settings, errors)
    }

    /// A setting's values, where it has any.
    pub(crate) fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    /// Whether a setting's value was refused already, and there is no other.
    pub(crate) fn is_refused(&self, name: &str) -> bool {
        self.refused.contains(name)
    }

    fn read_file(&mut self, path: &Path, errors: &mut Vec<ConfigError>) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.unread = true;
                let error = ConfigError::new(format!("cannot read {}: {error}", path.display()));
                return errors.push(error.hint("--config names the file; without it no file is read"));
            }
        };
        let origin = |at: usize| Origin::File { path: path.to_owned(), line: line_of(&text, at) };
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                self.unread = true;
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
                Ok(values) => self.set(setting, Given { values, origin }),
                Err(error) => {
                    self.refused.insert(setting.name);
                    errors.push(ConfigError::new(error).of(setting.name).at(origin));
                }
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

/// Our variables, by name. What is no Unicode text is none of them.
fn variables(all: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    all.into_iter().filter_map(text).filter(|(name, _)| name.starts_with("LOWBAND_")).collect()
}

fn unknown_variable(name: &str) -> String {
    match nearest(name.trim_start_matches("LOWBAND_")) {
        Some(meant) => {
            format!("{name} is no setting; perhaps LOWBAND_{}", meant.replace('-', "_").to_uppercase())
        }
        None => format!("{name} is no setting"),
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
        (value, kind) => Err(format!("is of type {}, and should be {kind}", value.type_str())),
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
