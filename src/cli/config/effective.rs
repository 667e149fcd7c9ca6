//! The settings as what they mean: parsed, checked one by one and together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use lowband::coap::BlockSize;
use lowband::gateway;
use lowband::link::End;
use lowband::link::Profile;
use lowband::link::Terms;
use lowband::matrix::rewrite::Advertise;
use lowband::net;
use lowband::net::desk;
use lowband::net::gateway::Listener;
use lowband::net::gateway::Security;
use lowband::net::upstream;
use lowband::packed::Dictionary;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::ConfigError;
use super::Links;
use super::Settings;
use crate::cli::dictionary;

/// The whole configuration, valid.
#[derive(Debug)]
pub(crate) struct Effective {
    /// The homeserver's base URL.
    pub(crate) homeserver: Uri,
    /// What the gateway's driver takes.
    pub(crate) server: net::gateway::Config,
    /// The filter of the log; it parses.
    pub(crate) log: String,
    /// The form of the log.
    pub(crate) log_format: LogFormat,
    /// What is allowed and perhaps not meant.
    pub(crate) warnings: Vec<String>,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Effective {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// All that is wrong, in the order of the settings, and was not told when they were read. Nothing where they could not be.
    pub(crate) fn read(settings: &Settings) -> Result<Self, Vec<ConfigError>> {
        if settings.unread {
            return Err(Vec::new());
        }
        let mut reader = Reader { settings, errors: Vec::new() };
        let effective = reader.effective();
        match effective {
            Some(effective) if reader.errors.is_empty() => Ok(effective),
            _ => Err(reader.errors),
        }
    }
}

/// Reads one setting after the other, and remembers what is wrong.
struct Reader<'a> {
    settings: &'a Settings,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    /// Most dictionaries that are served.
    const DICTIONARIES: usize = 8;

    /// `None` only where an error was remembered, or told before. All are read before the first that is missing ends it.
    fn effective(&mut self) -> Option<Effective> {
        let homeserver = self.required("homeserver", homeserver);
        let links = &self.settings.links;
        let default_link = self.required("default-link", |name| link(name, links));
        let dtls = self.dtls();
        let plain = self.required("insecure-coap", switch);
        let devices = super::devices(self.settings);
        let listen = self.listen(plain, devices.as_ref());
        let shaping = &self.settings.shaping;
        let shape = self.optional("default-shape", |name| {
            shaping.find(name).map_err(|hint| match shaping.tables.contains_key(name) {
                true => Wrong::told(),
                false => Wrong::new(format!("there is no shape {name:?}")).hint(hint),
            })
        });
        let advertise = self.optional("advertise", advertise);
        let homeserver_ca = self.optional("homeserver-ca", |path| Ok(PathBuf::from(path)));
        let state = self.optional("state", |path| Ok(PathBuf::from(path)));
        let body_limit = self.required("body-limit", size);
        let block = self.required("block-size", block_size);
        let peers = self.required("peers", at_least_one);
        let fetch_timeout = self.required("fetch-timeout", time);
        let packed = self.required("packed-peers", count);
        let dictionaries = self.dictionaries();
        let connect_timeout = self.required("connect-timeout", time);
        let concurrent_requests = self.required("concurrent-requests", at_least_one);
        let concurrent_polls = self.required("concurrent-polls", at_least_one);
        let grace = self.required("shutdown-grace", time);
        let report = self.required("counters-every", time);
        let log = self.required("log", log);
        let log_format = self.required("log-format", log_format);
        if devices.is_some() && state.is_none() && !self.settings.is_refused("state") {
            let wrong =
                Wrong::new("devices need a state file: what their keys were used for must not be forgotten");
            let _: Option<()> = self.wrong("devices", wrong.hint("--state FILE"));
        }
        let homeserver = homeserver?;
        let (listen, dtls) = (listen?, dtls?);
        self.check_dtls(&listen, &dtls);

        let mut gateway = gateway::Config::new(homeserver.clone());
        gateway.advertise = Advertise { base_url: advertise, ..Advertise::default() };
        gateway.fetch_timeout = fetch_timeout?;
        gateway.packed = packed?;
        gateway.dictionaries = dictionaries?;
        gateway.sessions = peers?;
        gateway.codec.output = body_limit?;
        gateway.endpoint.peers = peers?;
        gateway.endpoint.plain = plain?;
        gateway.endpoint.bytes = gateway.endpoint.bytes.max(body_limit?);
        gateway.endpoint.transfers.body = body_limit?;
        gateway.endpoint.transfers.bytes = gateway.endpoint.transfers.bytes.max(body_limit?);
        gateway.endpoint.transfers.block = block?;
        gateway.shape = shape;
        gateway.shapes_by_link = shaping.by_link.clone();
        gateway.endpoint.links = terms(links, 0);
        gateway.endpoint.sealed_links = terms(links, dtls.sealing());
        gateway.endpoint.link = default_link;
        let mut upstream = upstream::Config::new(homeserver.clone());
        upstream.homeserver_ca = homeserver_ca;
        upstream.connect_timeout = connect_timeout?;
        upstream.concurrent_requests = concurrent_requests?;
        upstream.concurrent_polls = concurrent_polls?;
        upstream.body_limit = body_limit?;
        self.check_certificates(&upstream);
        Some(Effective {
            warnings: warnings(&homeserver),
            homeserver,
            server: net::gateway::Config {
                listen,
                gateway,
                state,
                devices,
                dtls,
                upstream,
                grace: grace?,
                report: report?,
            },
            log: log?,
            log_format: log_format?,
        })
    }

    /// The addresses with the links behind them, if what is to be served there may be; `plain` where that is plain CoAP too.
    fn listen(&mut self, plain: Option<bool>, devices: Option<&desk::Config>) -> Option<Vec<Listener>> {
        let public = self.required("insecure-public", switch);
        let links = &self.settings.links;
        let listen = self.all("listen", |text| listener(text, links))?;
        let (plain, public) = (plain?, public?);
        if listen.is_empty() {
            return self.wrong("listen", Wrong::new("no address").hint("an address is like 127.0.0.1:5683"));
        }
        let bare = |listener: &&Listener| listener.security == Security::None;
        if !plain && devices.is_none() && listen.iter().any(|listener| bare(&listener)) {
            let wrong = Wrong::new("nobody would be served: there are no devices, and no plain CoAP");
            let hint = "--insecure-coap if nobody else is on the link, or it is protected below UDP; --state FILE for devices, which \
                        lowband device add makes";
            return self.wrong("insecure-coap", wrong.hint(hint));
        }
        if !plain {
            return Some(listen);
        }
        let mut addresses = listen.iter().filter(bare).map(|listener| listener.address);
        if let Some(open) = addresses.find(|address| !address.ip().is_loopback()).filter(|_| !public) {
            let wrong =
                Wrong::new(format!("{open} is not loopback: plain CoAP would be served to other hosts"));
            return self.wrong("listen", wrong.hint("--insecure-public if that is meant"));
        }
        Some(listen)
    }

    /// How DTLS is served, if it is.
    fn dtls(&mut self) -> Option<net::dtls::Config> {
        let certificate = self.optional("certificate", |path| Ok(PathBuf::from(path)));
        let key = self.optional("certificate-key", |path| Ok(PathBuf::from(path)));
        let unprovisioned =
            self.optional("allow-unprovisioned", |kind| match kind {
                "dtls" => Ok(()),
                _ => Err(Wrong::new(format!("{kind:?} is nothing that can be allowed"))
                    .hint("dtls is all there is")),
            });
        let sessions = self.required("dtls-sessions", at_least_one);
        let handshakes = self.required("dtls-handshakes", at_least_one);
        let key_log = self.optional("key-log", |path| Ok(PathBuf::from(path)));
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let read = net::dtls::read_certificate(&certificate, &key);
                let read = read.map_err(|error| match error.hint() {
                    Some(hint) => Wrong::new(error.to_string()).hint(hint),
                    None => Wrong::new(error.to_string()),
                });
                Some(self.parsed("certificate", read)?)
            }
            (None, None) => None,
            (Some(_), None) => {
                return self.wrong(
                    "certificate",
                    Wrong::new("its private key is missing").hint("--certificate-key FILE"),
                );
            }
            (None, Some(_)) => {
                return self.wrong(
                    "certificate-key",
                    Wrong::new("its certificate is missing").hint("--certificate FILE"),
                );
            }
        };
        if unprovisioned.is_some() && certificate.is_none() {
            let wrong =
                Wrong::new("whoever is no device knows the gateway by its certificate, and it has none");
            return self
                .wrong("allow-unprovisioned", wrong.hint("--certificate FILE --certificate-key FILE"));
        }
        let unprovisioned = unprovisioned.is_some();
        Some(net::dtls::Config {
            certificate,
            unprovisioned,
            sessions: sessions?,
            handshakes: handshakes?,
            key_log,
        })
    }

    /// What is set for DTLS is of use only where it is spoken, and it is spoken where there is somebody to speak with.
    fn check_dtls(&mut self, listen: &[Listener], dtls: &net::dtls::Config) {
        let is_spoken = listen.iter().any(|listener| listener.security == Security::Dtls);
        let is_for_some = dtls.unprovisioned || super::devices(self.settings).is_some();
        if is_spoken && !is_for_some {
            let wrong =
                Wrong::new("nobody would be served by DTLS: there are no devices, and nobody else is let in");
            let hint = "--state FILE or --devices FILE for devices, or --allow-unprovisioned dtls";
            let _: Option<()> = self.wrong("listen", wrong.hint(hint));
        }
        let given = [
            ("allow-unprovisioned", dtls.unprovisioned),
            ("certificate", dtls.certificate.is_some()),
            ("key-log", dtls.key_log.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, is_given)| *is_given && !is_spoken) {
            let wrong = Wrong::new("no address speaks DTLS").hint("--listen coaps://IP");
            let _: Option<()> = self.wrong(name, wrong);
        }
    }

    /// The dictionaries that peers may have. Each takes twenty megabytes once it is used.
    fn dictionaries(&mut self) -> Option<Vec<Dictionary>> {
        let read = |name: &str| {
            let read = dictionary::named(Path::new(name));
            read.map_err(|error| Wrong::new(error).hint(dictionary::HINT))
        };
        if self.settings.get("dictionary").is_some_and(|given| given.values == [dictionary::BUILT_IN]) {
            return Some(Vec::new()); // the one that is built in is read when it is first of use
        }
        let dictionaries = self.all("dictionary", read)?;
        match dictionaries.len() {
            1..=Self::DICTIONARIES => Some(dictionaries),
            0 => self.wrong("dictionary", Wrong::new("no dictionary").hint(dictionary::HINT)),
            _ => {
                let wrong = Wrong::new(format!("more than {} dictionaries", Self::DICTIONARIES));
                self.wrong("dictionary", wrong)
            }
        }
    }

    fn check_certificates(&mut self, config: &upstream::Config) {
        if let Err(error) = upstream::Upstream::new(config) {
            let hint = match config.homeserver_ca {
                Some(_) => "a PEM file with at least one CERTIFICATE section",
                None => "install the system's CA certificates, or name a file with --homeserver-ca",
            };
            let _: Option<()> = self.wrong("homeserver-ca", Wrong::new(error.to_string()).hint(hint));
        }
    }

    fn required<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        match self.text(name) {
            Some(text) => self.parsed(name, parse(&text)),
            None if self.settings.is_refused(name) => None,
            None => {
                let error = ConfigError::new(format!("no {name} given"));
                self.errors.push(error.hint(format!("--{name}, {name} in the --config file")));
                None
            }
        }
    }

    fn optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.text(name)?;
        self.parsed(name, parse(&text))
    }

    fn all<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        if self.settings.is_refused(name) {
            return None;
        }
        let values = self.settings.get(name)?.values.clone();
        let parsed: Vec<_> = values.iter().map(|text| self.parsed(name, parse(text))).collect();
        parsed.into_iter().collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        if self.settings.is_refused(name) {
            return None;
        }
        self.settings.get(name)?.values.last().cloned()
    }

    fn parsed<T>(&mut self, name: &'static str, result: Result<T, Wrong>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(wrong) => self.wrong(name, wrong),
        }
    }

    fn wrong<T>(&mut self, name: &'static str, wrong: Wrong) -> Option<T> {
        if wrong.is_told {
            return None;
        }
        let error = ConfigError::new(wrong.message).of(name);
        let error = match self.settings.get(name) {
            Some(given) => error.at(given.origin.clone()),
            None => error,
        };
        self.errors.push(match wrong.hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
        None
    }
}

/// What is wrong with a value, before it is known where it stands.
struct Wrong {
    message: String,
    hint: Option<String>,
    /// Whether it follows from what was told before.
    is_told: bool,
}

impl Wrong {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, is_told: false }
    }

    /// What names something that the file has, and that is wrong itself.
    fn told() -> Self {
        Self { is_told: true, ..Self::new("") }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The message with its hint, for an argument: what tells of those has no place for one.
    fn on_one_line(self) -> String {
        match self.hint {
            Some(hint) => format!("{}: {hint}", self.message),
            None => self.message,
        }
    }
}

fn homeserver(text: &str) -> Result<Uri, Wrong> {
    let hint = "a base URL is like https://matrix.example.org, or http://127.0.0.1:8008";
    let url = url(text).map_err(|wrong| wrong.hint(hint))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(Wrong::new(format!("{text} is neither an http: nor an https: URL")).hint(hint));
    }
    Ok(url)
}

/// The homeserver's base URL, as an argument of a subcommand.
pub(crate) fn homeserver_url(text: &str) -> Result<Uri, String> {
    homeserver(text).map_err(|wrong| wrong.message)
}

/// A size, as an argument of a subcommand.
pub(crate) fn size_argument(text: &str) -> Result<usize, String> {
    size(text).map_err(Wrong::on_one_line)
}

/// A time, as an argument of a subcommand.
pub(crate) fn time_argument(text: &str) -> Result<Duration, String> {
    time(text).map_err(Wrong::on_one_line)
}

fn advertise(text: &str) -> Result<String, Wrong> {
    url(text).map(|_| text.to_owned())
}

fn url(text: &str) -> Result<Uri, Wrong> {
    let wrong = |what: String| Wrong::new(format!("{text} is no base URL: {what}"));
    let url: Uri = text.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
    let Some(authority) = url.authority().filter(|_| url.scheme().is_some()) else {
        return Err(wrong("scheme and host are needed".into()));
    };
    // RFC 3986 §3.2.1: a password in a URL ends in logs.
    if authority.as_str().contains('@') {
        return Err(Wrong::new("a base URL has no user and no password"));
    }
    if url.query().is_some() {
        return Err(wrong("it has a query".into()));
    }
    Ok(url)
}

/// `IP:PORT`, or `IP` with the usual port.
fn address(text: &str, default_port: u16) -> Result<SocketAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().map(|ip| SocketAddr::from((ip, default_port)));
    text.parse::<SocketAddr>().or(ip).map_err(|_| {
        let wrong = Wrong::new(format!("{text} is no IP address with a port"));
        wrong.hint("an address is like 127.0.0.1:5683, 0.0.0.0 or [::1]:5683")
    })
}

/// An address with its scheme, or without for `coap`, and the name of the link behind it where `=NAME` follows.
fn listener(text: &str, links: &Links) -> Result<Listener, Wrong> {
    let (at, name) = text.split_once('=').map_or((text, None), |(at, name)| (at, Some(name)));
    let link = name.map(|name| link(name.trim_start(), links)).transpose()?;
    let (security, at) = match at.split_once("://") {
        None | Some(("coap", _)) => (Security::None, at.strip_prefix("coap://").unwrap_or(at)),
        Some(("coaps", at)) => (Security::Dtls, at),
        Some((scheme, _)) => {
            let wrong = Wrong::new(format!("{scheme}: is no scheme to listen for"));
            return Err(wrong.hint("coap://, or coaps:// for DTLS"));
        }
    };
    // RFC 7252 §6.1, §6.2.
    let default_port = if security == Security::Dtls { 5684 } else { 5683 };
    Ok(Listener { address: address(at.trim_end(), default_port)?, link, security })
}

fn link(name: &str, links: &Links) -> Result<String, Wrong> {
    match links.profiles.get(name) {
        Some(profile) => Ok(profile.name),
        None if links.tables.contains_key(name) => Err(Wrong::told()),
        None => Err(Wrong::new(format!("there is no link {name:?}")).hint(links.hint())),
    }
}

/// What each link means for the gateway, below security that adds so many bytes to each datagram.
fn terms(links: &Links, sealing: usize) -> BTreeMap<String, Terms> {
    let of = |profile: Profile| (profile.name.clone(), profile.sealed(sealing).terms(End::Gateway));
    links.profiles.iter().map(of).collect()
}

fn switch(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Wrong::new(format!("{text} is neither true nor false"))),
    }
}

fn count(text: &str) -> Result<usize, Wrong> {
    text.parse().map_err(|_| Wrong::new(format!("{text} is no number")))
}

fn at_least_one(text: &str) -> Result<usize, Wrong> {
    let number = text.parse().map_err(|_| Wrong::new(format!("{text} is no number")))?;
    if number == 0 { Err(Wrong::new("0 is too few")) } else { Ok(number) }
}

fn block_size(text: &str) -> Result<BlockSize, Wrong> {
    let wrong = || Wrong::new(format!("{text} is no block size")).hint("16, 32, 64, 128, 256, 512 or 1024");
    let bytes: usize = text.parse().map_err(|_| wrong())?;
    let size = BlockSize::fitting(bytes);
    if size.bytes() == bytes { Ok(size) } else { Err(wrong()) }
}

fn size(text: &str) -> Result<usize, Wrong> {
    let (digits, unit) = split_unit(text);
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return Err(Wrong::new(format!("{text} has an unknown unit")).hint("bytes, KiB or MiB")),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| Wrong::new(format!("{text} is no size")))
}

fn time(text: &str) -> Result<Duration, Wrong> {
    let (digits, unit) = split_unit(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(Wrong::new(format!("{text} has an unknown unit")).hint("ms, s, m or h")),
    };
    let time = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    time.map(Duration::from_millis).ok_or_else(|| Wrong::new(format!("{text} is no time")))
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

fn log(text: &str) -> Result<String, Wrong> {
    // A word alone would be a module, of which everything is logged, and nothing of any other. That nobody means.
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok() || word.contains(['=', ':']);
    let words = if text.contains('[') { "" } else { text };
    if let Some(word) = words.split(',').map(str::trim).find(|word| !word.is_empty() && !is_level(word)) {
        let hint = "error, warn, info, debug or trace; or MODULE=LEVEL";
        return Err(Wrong::new(format!("{word} is no level")).hint(hint));
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(Wrong::new(error.to_string()).hint("a filter is like info, or lowband::net=debug,info"))
        }
    }
}

fn log_format(text: &str) -> Result<LogFormat, Wrong> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new(format!("{text} is neither text nor json"))),
    }
}

fn warnings(homeserver: &Uri) -> Vec<String> {
    let mut warnings = Vec::new();
    let host = homeserver.host().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    if homeserver.scheme_str() == Some("http") && !is_here {
        warnings.push(format!(
            "access tokens cross the network to {host} unencrypted: https:// is for other hosts"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(time("500ms").ok(), Some(Duration::from_millis(500)));
        assert_eq!(time("30").ok(), Some(Duration::from_secs(30)));
        assert_eq!(time("10m").ok(), Some(Duration::from_secs(600)));
        assert_eq!(time("1h").ok(), Some(Duration::from_secs(3600)));
        for wrong in ["", "s", "-1s", "1.5s", "1d", "99999999999999999999"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("8MiB").ok(), Some(8 << 20));
        assert_eq!(size("512 KiB").ok(), Some(512 << 10));
        assert_eq!(size("1000").ok(), Some(1000));
        for wrong in ["", "0", "MiB", "1GB", "-1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_may_leave_out_the_port_and_the_brackets() {
        for (text, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0", "0.0.0.0:5683"),
            ("[::1]:2", "[::1]:2"),
            ("[::]", "[::]:5683"),
            ("::1", "[::1]:5683"),
        ] {
            assert_eq!(address(text, 5683).ok(), expected.parse().ok(), "{text}");
        }
        for wrong in ["localhost:5683", "", "1.2.3.4:99999", ":5683"] {
            assert!(address(wrong, 5683).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_may_name_the_link_behind_it() {
        let links = Links::of_file(None).expect("the built-in ones");
        let read = |text: &str| listener(text, &links).ok();
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let expected = |link: Option<&str>| Some(Listener { link: link.map(str::to_owned), ..here.into() });
        assert_eq!(read("127.0.0.1:1"), expected(None));
        assert_eq!(read("127.0.0.1:1=hf-100"), expected(Some("hf-100")));
        assert_eq!(read("127.0.0.1:1 = hf-100"), expected(Some("hf-100")));
        let secured = |text: &str| read(text).map(|listener| (listener.security, listener.address.port()));
        assert_eq!(secured("coaps://127.0.0.1=hf-100"), Some((Security::Dtls, 5684)));
        assert_eq!(secured("coaps://[::1]:7"), Some((Security::Dtls, 7)));
        assert_eq!(secured("coap://127.0.0.1"), Some((Security::None, 5683)));
        assert_eq!(read("http://127.0.0.1"), None);
        for wrong in ["127.0.0.1:1=", "127.0.0.1:1=hf", "=hf-100", "127.0.0.1:1=hf-100=lan"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_base_url_has_scheme_and_host_and_neither_query_nor_password() {
        assert!(homeserver("https://matrix.example.org/prefix").is_ok());
        for wrong in
            ["matrix.example.org", "/path", "ftp://hs", "https://u:p@hs", "https://hs?x=1", "https://"]
        {
            assert!(homeserver(wrong).is_err(), "{wrong}");
        }
        assert!(!homeserver("https://u:secret@hs").is_err_and(|wrong| wrong.message.contains("secret")));
    }

    #[test]
    fn tokens_in_the_clear_over_a_network_are_warned_of() {
        let warned = |url: &'static str| !warnings(&Uri::from_static(url)).is_empty();
        assert!(warned("http://synapse:8008"));
        assert!(
            !warned("http://127.0.0.1:8008") && !warned("http://[::1]:8008") && !warned("http://localhost")
        );
        assert!(!warned("https://matrix.example.org"));
    }
}
