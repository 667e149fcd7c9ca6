//! `lowband request`: one call over CoAP, as curl makes one over HTTP. JSON in, JSON out.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use clap::ValueEnum;
use http::Method;
use http::header;
use lowband::coap;
use lowband::coap::BlockSize;
use lowband::coap::Code;
use lowband::coap::OptionNumber;
use lowband::codec::Keys;
use lowband::codec::Limits;
use lowband::endpoint;
use lowband::inspect;
use lowband::inspect::Explanation;
use lowband::inspect::Secrets;
use lowband::link::End;
use lowband::link::Profile;
use lowband::matrix;
use lowband::net::client::Client;
use lowband::net::client::Direction;
use lowband::net::client::RequestError;
use lowband::net::client::Security;
use lowband::packed::Dictionary;
use lowband::security::dtls::Link;
use lowband::security::dtls::SEALING;
use lowband::translate;
use lowband::translate::request::SendError;
use serde_json::Value;
use serde_json::json;
use tokio::time;

use self::observe::Observer;
use self::packed::Kept;
use super::Failure;
use super::coap_url::CoapUrl;
use super::config::Links;
use super::dictionary;
use super::input;
use super::keyring;
use super::output;
use super::protection::Protection;
use super::protection::SecurityArgs;

mod observe;
mod packed;

/// Make one Matrix call over CoAP and print the answer as JSON.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ lowband request GET coap://127.0.0.1/_matrix/client/versions
  $ lowband request POST coap://127.0.0.1/_matrix/client/v3/login -d '{\"type\":\"m.login.password\",\"user\":\"alice\",\"password\":\"…\"}'
  $ lowband request PUT 'coap://[::1]/_matrix/client/v3/rooms/!a:hs/send/m.room.message/t1' --token T -d '{\"msgtype\":\"m.text\",\"body\":\"hi\"}'
  $ lowband request GET 'coap://127.0.0.1/_matrix/client/v3/sync?timeout=30000' --token T --observe
  $ lowband request GET coap://gateway.example/_matrix/client/v3/account/whoami --credentials buoy.toml
  $ lowband request GET coaps://gateway.example/_matrix/client/v3/account/whoami --credentials van.toml

Paths that have a short form are sent in it, and bodies as CBOR. Exit code: 0 for an answer of class 2, 1 for an error answer
(its body is printed all the same), 2 for arguments that make no sense, 3 where no answer came.")]
pub(crate) struct RequestArgs {
    /// GET, POST, PUT or DELETE
    #[arg(value_parser = parse_method)]
    method: Method,
    /// coap://HOST[:PORT]/PATH[?QUERY], percent-encoded as in HTTP, or coaps:// for DTLS; port 5683 or 5684 if none is given
    url: CoapUrl,
    /// The body: JSON, @FILE for what is in a file, - for what is on standard input
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// The access token; LOWBAND_TOKEN in the environment keeps it off the command line
    #[arg(long, env = "LOWBAND_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Stay, and print each notification on one line as it comes, until Ctrl-C
    #[arg(long)]
    observe: bool,
    /// With --observe: end after so many answers, the first one included
    #[arg(long, value_name = "N", requires = "observe", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// With --observe: register again after so long a silence, for a gateway that was killed and has forgotten; by the link, if not given
    #[arg(long, value_name = "SECONDS", requires = "observe", value_parser = parse_renewal)]
    renew: Option<Duration>,
    /// Largest block of a body in one datagram, in bytes: 16, 32, … 1024
    #[arg(long, value_name = "BYTES", value_parser = parse_block)]
    block: Option<BlockSize>,
    /// The device's half of its keys, as `lowband device export` gives it: a file, or the line itself. All that is asked is protected with
    /// them, and the access token stays with the gateway
    #[arg(long, value_name = "FILE|LINE")]
    credentials: Option<String>,
    /// Where it is kept what the keys were used for; FILE.state of --credentials, if not given. Never in two places, never put back
    #[arg(long, value_name = "FILE", requires = "credentials")]
    state: Option<PathBuf>,
    /// The link to the gateway, for the timing: lan, hf-100, … as `lowband link show` lists them; that of --credentials, or lan, if not
    /// given
    #[arg(long, value_name = "LINK")]
    link: Option<String>,
    /// A TOML file of settings, whose [link.NAME] tables are added; LOWBAND_CONFIG in the environment
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tell the gateway too, in option Link; it must know a link of this name
    #[arg(long)]
    announce_link: bool,
    /// How many times faster than that the link is
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::link::speed())]
    link_speed: u32,
    /// How long to wait for the answer (with --observe: for the first), in seconds; as CoAP itself gives up, if not given
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// How it is written on the link: as by MSC3079, or packed (docs/packed.md) where the gateway speaks that
    #[arg(long, value_name = "PROFILE", default_value = "msc3079")]
    profile: ProfileName,
    /// The dictionary of the packed profile, which the gateway must have too; built-in, if there is none
    #[arg(long, value_name = "DIR")]
    dictionary: Option<PathBuf>,
    /// The keys of CBOR objects: integers by MSC3079's table, or strings as in JSON
    #[arg(long, value_name = "KEYS", default_value = "v1")]
    json_keys: JsonKeys,
    #[command(flatten)]
    security: SecurityArgs,
    /// Write each datagram to standard error, one line each
    #[arg(short, long)]
    verbose: bool,
    /// Print code, HTTP status, body, time and traffic as one JSON object
    #[arg(long)]
    json: bool,
}

/// The profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProfileName {
    /// Every gateway's
    Msc3079,
    /// A tenth of the bytes
    Packed,
}

/// Which keys the bodies are sent and asked for with.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum JsonKeys {
    /// Integers where the table has them
    V1,
    /// Strings alone
    Strings,
}

/// Makes the call.
pub(crate) fn run(args: RequestArgs) -> Result<(), Failure> {
    let http = http_request(&args)?;
    let request = translate_request(&args, &http)?;
    if args.profile == ProfileName::Msc3079 && args.dictionary.is_some() {
        return Err(Failure::usage("MSC3079 has no dictionary").hint("--profile packed has one"));
    }
    let dictionary = args.dictionary.as_deref().map(dictionary::load).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format_args!("cannot start: {error}")))?;
    let (protection, of_device) = match &args.credentials {
        Some(given) => keyring::open(given, args.state.as_deref())?,
        None => (args.security.read()?, None),
    };
    protection.check(args.url.is_secure())?;
    let link = args.link.clone().or(of_device).unwrap_or_else(|| "lan".to_owned());
    let link = Links::of_file(args.config.clone().or_else(config_of_environment))?
        .find(&link)?
        .faster(args.link_speed);
    runtime.block_on(call(&args, (http, request), &link, (protection, dictionary)))
}

fn config_of_environment() -> Option<PathBuf> {
    std::env::var_os("LOWBAND_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn http_request(args: &RequestArgs) -> Result<http::Request<Bytes>, Failure> {
    let uri = in_full(&args.method, args.url.path_and_query())?;
    let mut http = http::Request::builder().method(&args.method).uri(uri);
    if let Some(token) = args.token.as_deref().filter(|token| !token.is_empty()) {
        http = http.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = args.data.as_deref().map(read_body).transpose()?.unwrap_or_default();
    http.body(body).map_err(Failure::usage)
}

fn translate_request(args: &RequestArgs, http: &http::Request<Bytes>) -> Result<coap::Request, Failure> {
    let keys = match args.json_keys {
        JsonKeys::V1 => Keys::V1,
        JsonKeys::Strings => Keys::Strings,
    };
    let request = translate::request::to_coap(http, keys, &Limits::default());
    request.map_err(|error| {
        let hint = match &error {
            SendError::Body(wrong) => input::place_of(wrong, http.body()),
            SendError::Path(_) => Some(PATH_HINT.to_owned()),
            _ => None,
        };
        match hint {
            Some(hint) => Failure::usage(error).hint(hint),
            None => Failure::usage(error),
        }
    })
}

/// A path that begins with a path code, as the path that it stands for.
fn in_full(method: &Method, path_and_query: &str) -> Result<String, Failure> {
    let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
    let code = path.split('/').nth(1).unwrap_or_default();
    if code.chars().count() != 1 {
        return Ok(path_and_query.to_owned());
    }
    let segments = matrix::split_path(path).map_err(path_failure)?;
    let segments: Vec<_> = segments.iter().map(String::as_str).collect();
    Ok(matrix::expand(method.as_str(), &segments).map_err(path_failure)?.path + query)
}

const PATH_HINT: &str = "a path begins with /_matrix/, or with a path code as lowband routes lists them";

fn path_failure(error: matrix::PathError) -> Failure {
    Failure::usage(error).hint(PATH_HINT)
}

const FILE_HINT: &str = "@ is followed by the name of a file with the body; JSON itself is given without @";

fn read_body(data: &str) -> Result<Bytes, Failure> {
    let body = match (data, data.strip_prefix('@')) {
        ("-", _) => input::read_stdin()?,
        (_, Some(path)) => std::fs::read(path)
            .map_err(|error| Failure::usage(format_args!("cannot read {path}: {error}")).hint(FILE_HINT))?,
        (json, None) => json.as_bytes().to_vec(),
    };
    // An empty body would be none at all, and the homeserver would say so in its own words, far away.
    if body.trim_ascii().is_empty() {
        return Err(Failure::usage("the body is empty").hint("leave -d out, or give {}"));
    }
    Ok(body.into())
}

async fn call(
    args: &RequestArgs,
    (http, mut request): (http::Request<Bytes>, coap::Request),
    link: &Profile,
    (protection, dictionary): (Protection, Option<Dictionary>),
) -> Result<(), Failure> {
    let remote = args.url.resolve().await?;
    if args.announce_link {
        request.options.push(OptionNumber::LINK, link.name.as_bytes());
    }
    let terms = link.terms(End::Peer);
    // The peer may take as long to acknowledge that an observation has ended as it may for anything else.
    let closing = terms.parameters.longest_timeout().mul_f64(terms.parameters.ack_random_factor);
    let mut config = endpoint::Config::over(&link.name, terms.clone());
    config.sealed_links.insert(link.name.clone(), link.clone().sealed(SEALING).terms(End::Peer));
    if let Some(block) = args.block {
        config.transfers.block = block;
    }
    let started = now();
    let watch: lowband::net::client::Watch = match args.verbose {
        true => Box::new(move |direction, datagram| show(started, direction, datagram)),
        false => Box::new(|_, _| {}),
    };
    let client = match protection {
        Protection::None => Client::connect_watched(remote, config, watch).await,
        Protection::Oscore(keyring) => Client::connect_as(remote, config, watch, Some(*keyring)).await,
        Protection::Dtls(credentials) => {
            let security = Security { credentials, link: Link::from(&terms) };
            Client::connect_secured(remote, config, security, watch).await
        }
    };
    let client =
        client.map_err(|error| Failure::unanswered(format_args!("cannot reach {remote}: {error}")))?;
    let call =
        Call { args, remote, link, dictionary, client: client.clone(), started, gave_up: Cell::new(false) };
    let done = tokio::select! {
        done = call.answers(http, request) => done,
        never = call.tell_when_held_up() => match never {},
    };
    // A person who did not want to wait for an answer does not wait for less either; and who has heard nothing need be told nothing.
    let at_once = call.gave_up.get() || client.traffic().sent_datagrams == 0;
    client.clone().close(if at_once { Duration::ZERO } else { closing }).await;
    if args.verbose {
        call.sum_up();
    }
    done
}

struct Call<'a> {
    args: &'a RequestArgs,
    remote: SocketAddr,
    link: &'a Profile,
    /// Another than the one that is built in.
    dictionary: Option<Dictionary>,
    client: Client,
    started: Instant,
    /// Whether the person's patience ended before the answer came.
    gave_up: Cell<bool>,
}

impl Call<'_> {
    /// A wait that a person may take for one for the answer.
    const HELD_UP: Duration = Duration::from_secs(3);

    async fn answers(&self, http: http::Request<Bytes>, request: coap::Request) -> Result<(), Failure> {
        match self.args.profile {
            ProfileName::Packed => {
                let kept = Kept::open(self.args.credentials.as_deref(), self.args.state.as_deref())?;
                self.packed(http, &kept).await
            }
            ProfileName::Msc3079 if self.args.observe => Observer::new(self, request).run().await,
            ProfileName::Msc3079 => self.once(request).await,
        }
    }

    /// Says once that nothing can leave yet: a link with a duty cycle is silent for minutes.
    async fn tell_when_held_up(&self) -> Infallible {
        let wait = self.client.held_up_longer(Self::HELD_UP).await;
        let datagram = match self.client.traffic().sent_datagrams {
            0 => "the first datagram",
            _ => "the next datagram",
        };
        tell(&format!(
            "waiting: on {} {datagram} may leave in {:.0} s",
            self.link_name(),
            wait.as_secs_f64().ceil()
        ));
        std::future::pending().await
    }

    /// The link, and what of it keeps datagrams from leaving.
    fn link_name(&self) -> String {
        match self.link.duty_cycle {
            duty_cycle if duty_cycle < 1.0 => {
                format!("{} (duty cycle {} %)", self.link.name, (duty_cycle * 1e4).round() / 100.0)
            }
            _ => self.link.name.clone(),
        }
    }

    async fn once(&self, request: coap::Request) -> Result<(), Failure> {
        let answer = self.in_time(self.client.request(request)).await?;
        self.print(&answer.map_err(|error| self.unanswered(&error))?, Lines::Many)
    }

    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, Failure> {
        let Some(timeout) = self.args.timeout else { return Ok(answer.await) };
        time::timeout(timeout, answer).await.map_err(|_| self.late(timeout))
    }

    fn late(&self, timeout: Duration) -> Failure {
        self.gave_up.set(true);
        let seconds = timeout.as_secs_f64();
        match self.client.held_up() {
            Some(wait) if self.client.traffic().sent_datagrams == 0 => {
                let after = (timeout + wait).as_secs_f64().ceil();
                let failure = Failure::unanswered(format_args!(
                    "nothing was sent in {seconds} s: on {} the first datagram may leave after {after:.0} s",
                    self.link_name(),
                ));
                failure.hint("a longer --timeout")
            }
            _ => {
                let failure =
                    Failure::unanswered(format_args!("no answer from {} in {seconds} s", self.remote));
                if self.args.credentials.is_some() { failure.hint(UNKNOWN_KEYS) } else { failure }
            }
        }
    }

    fn unanswered(&self, error: &RequestError) -> Failure {
        let failure = Failure::unanswered(format_args!("no answer from {}: {error}", self.remote));
        match error {
            RequestError::Refused => failure.hint("is the gateway running, and on this port?"),
            RequestError::Failed(_) if self.args.credentials.is_some() => failure.hint(UNKNOWN_KEYS),
            RequestError::Session(_) | RequestError::Agreement(_) if self.args.credentials.is_some() => {
                failure.hint(UNKNOWN_KEY)
            }
            RequestError::NoKeys => {
                failure.hint("others are agreed on when it is asked again; it may have been done")
            }
            _ => failure,
        }
    }

    /// Prints an answer, and fails if it is an error.
    fn print(&self, response: &coap::Response, lines: Lines) -> Result<(), Failure> {
        let http = translate::response::to_http(response, &Limits::default());
        let http = http.map_err(|error| Failure::new(format_args!("{}: {error}", name(response.code))))?;
        self.print_as(response, &http, lines)
    }

    /// Prints an answer that has been read.
    fn print_as(
        &self,
        response: &coap::Response,
        http: &http::Response<Bytes>,
        lines: Lines,
    ) -> Result<(), Failure> {
        let value = || serde_json::from_slice::<Value>(http.body()).unwrap_or(Value::Null);
        if self.args.json {
            let whole = json!({
                "code": response.code.to_string(),
                "status": http.status().as_u16(),
                "body": value(),
                "seconds": (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
                "traffic": traffic(&self.client),
            });
            match lines {
                Lines::Many => output::write_json(&whole)?,
                Lines::One => output::write_line(&whole.to_string())?,
            }
        } else if !http.body().is_empty() {
            match lines {
                Lines::Many if output::is_terminal() => output::write_json(&value())?,
                // As it came: numbers keep their last digit.
                Lines::Many | Lines::One => output::write_line(&String::from_utf8_lossy(http.body()))?,
            }
        }
        if http.status().is_success() {
            return Ok(());
        }
        let failure = Failure::new(format_args!("{} (HTTP {})", name(response.code), http.status()));
        match response.code {
            Code::UNAUTHORIZED => Err(self.unauthorized(failure, response, &value())),
            _ => match http.headers().get(header::RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()) {
                Some(seconds) => Err(failure.hint(format_args!("again in {seconds} s"))),
                None => Err(failure),
            },
        }
    }

    /// What to do about 4.01. That depends on what was shown; and a token is asked for only where one is of use.
    fn unauthorized(&self, failure: Failure, response: &coap::Response, body: &Value) -> Failure {
        let has_token = self.args.token.as_deref().is_some_and(|token| !token.is_empty());
        if response.payload == endpoint::NOT_PROTECTED {
            failure.hint("at coap:// this gateway serves devices alone: --credentials FILE")
        } else if self.args.credentials.is_some() && has_token && body["errcode"] == "M_FORBIDDEN" {
            failure.hint("without --token, and without LOWBAND_TOKEN in the environment")
        } else if self.args.security.has_certificate() && !has_token {
            failure.hint(
                "the certificate was not asked for, as with --allow-unprovisioned; without that, the gateway knows devices by it",
            )
        } else if self.args.credentials.is_none() && !has_token {
            failure.hint("--token T, or LOWBAND_TOKEN in the environment")
        } else {
            failure
        }
    }

    fn sum_up(&self) {
        let traffic = self.client.traffic();
        tell(&format!(
            "sent {} datagrams, {} bytes; received {} datagrams, {} bytes; {:.3} s",
            traffic.sent_datagrams,
            traffic.sent_bytes,
            traffic.received_datagrams,
            traffic.received_bytes,
            self.started.elapsed().as_secs_f64(),
        ));
    }
}

/// What may be wrong where keys get no answer: what is said without protection does not count.
const UNKNOWN_KEYS: &str = "the gateway may not have these keys any more: lowband device show NAME tells there; or their state was lost, \
     or is kept in two places: lowband device rotate NAME gives others";

/// The same of a key for DTLS or EDHOC, which has no state that can be lost.
const UNKNOWN_KEY: &str = "the gateway may not have this key any more: lowband device show NAME tells there";

/// Whether an answer may take more than a line.
#[derive(Clone, Copy)]
enum Lines {
    One,
    Many,
}

/// One datagram on one line: `> 0.012 CON GET id 4660 token 1a  Uri-Path 7, Uri-Query timeout=30000  23 bytes`.
fn show(started: Instant, direction: Direction, datagram: &[u8]) {
    let arrow = match direction {
        Direction::Sent => '>',
        Direction::Received => '<',
    };
    let seconds = started.elapsed().as_secs_f64();
    let described = match datagram {
        // RFC 6347 §4.1: a record of DTLS. What is protected by one is shown by itself.
        [20..=22, 0xfe, ..] => format!("DTLS handshake or alert, {} bytes", datagram.len()),
        _ => describe(&inspect::explain(datagram, Secrets::Hidden)),
    };
    tell(&format!("{arrow} {seconds:.3} {described}"));
}

fn describe(datagram: &Explanation) -> String {
    let size = datagram.sizes.datagram;
    let Some(header) = &datagram.header else { return format!("{size} bytes that are no message") };
    let name = header.name.unwrap_or_default();
    let mut parts = vec![format!("{} {} {name} id {}", header.kind, header.code, header.message_id)];
    if !datagram.token.is_empty() {
        parts.push(format!("token {}", datagram.token.replace(' ', "")));
    }
    for option in &datagram.options {
        let name = option.name.map_or_else(|| format!("option {}", option.number), str::to_owned);
        parts.push(format!("{name} {}", option.text).trim_end().to_owned());
    }
    if datagram.sizes.payload > 0 {
        parts.push(format!("payload of {} bytes", datagram.sizes.payload));
    }
    if let Some(fault) = &datagram.fault {
        parts.push(format!("malformed: {}", fault.reason));
    }
    parts.push(format!("{size} bytes"));
    parts.join(", ")
}

fn name(code: Code) -> String {
    format!("{code} {}", code.name().unwrap_or_default()).trim_end().to_owned()
}

fn traffic(client: &Client) -> Value {
    let traffic = client.traffic();
    json!({
        "sent_bytes": traffic.sent_bytes,
        "received_bytes": traffic.received_bytes,
        "sent_datagrams": traffic.sent_datagrams,
        "received_datagrams": traffic.received_datagrams,
    })
}

/// A line for people. Where standard error is closed, nobody wants it.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[expect(clippy::disallowed_methods, reason = "a person waits here, and is told how long")]
fn now() -> Instant {
    Instant::now()
}

fn parse_method(text: &str) -> Result<Method, String> {
    match text.to_ascii_uppercase().as_str() {
        "GET" => Ok(Method::GET),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "DELETE" => Ok(Method::DELETE),
        _ => Err("use GET, POST, PUT or DELETE".into()),
    }
}

fn parse_block(text: &str) -> Result<BlockSize, String> {
    let bytes = text.parse().map_err(|_| "no number")?;
    let size = BlockSize::fitting(bytes);
    if size.bytes() == bytes { Ok(size) } else { Err("use 16, 32, 64, 128, 256, 512 or 1024".into()) }
}

fn parse_renewal(text: &str) -> Result<Duration, String> {
    let time = parse_seconds(text)?;
    if time >= Duration::from_secs(1) { Ok(time) } else { Err("give a second at least".into()) }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "no number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
