//! `lowband proxy`: a Matrix client's HTTP on one side, CoAP to a gateway on the other, until a signal.

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use lowband::endpoint;
use lowband::link::End;
use lowband::link::Profile;
use lowband::net::client::Client;
use lowband::net::client::Security;
use lowband::net::devices::beside;
use lowband::net::proxy::Server;
use lowband::net::proxy::StartError;
use lowband::net::store::Store;
use lowband::net::store::StoreError;
use lowband::proxy::Config;
use lowband::proxy::policy::Policy;
use lowband::security::dtls::Link;
use lowband::security::dtls::SEALING;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::Failure;
use super::coap_url::CoapUrl;
use super::config::Links;
use super::keyring;
use super::protection::Protection;
use super::protection::SecurityArgs;
use super::signals::Signals;

/// Stands beside a Matrix client at the far end of a slow link, and is its homeserver: HTTP and JSON from the client, CoAP to the gateway.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: by the keys that `lowband device export` gave at the gateway; without any, for a try on one machine
  $ lowband proxy --gateway coap://gateway.example --credentials boat.toml --link hf-100
  $ lowband proxy --gateway coap://127.0.0.1

The client is told that its homeserver is http://127.0.0.1:8008. How the link is and what waits for it: http://127.0.0.1:8008/_lowband/status")]
pub(crate) struct ProxyArgs {
    /// coap://HOST[:PORT], or coaps:// for DTLS; port 5683 or 5684 if none is given
    #[arg(long, value_name = "URL")]
    gateway: GatewayUrl,
    /// The device's half of its keys, as `lowband device export` gives it: a file, or the line itself
    #[arg(long, value_name = "FILE|LINE")]
    credentials: Option<String>,
    /// Where it is kept what the keys were used for; FILE.state of --credentials, if not given. Never in two places, never put back
    #[arg(long, value_name = "FILE", requires = "credentials")]
    state: Option<PathBuf>,
    /// Where clients are served: HTTP/1.1 and HTTP/2
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8008")]
    listen: SocketAddr,
    /// Where it is kept what is to be sent, and what is known of the gateway; FILE.queue of --credentials, if not given. Without either a restart
    /// forgets it
    #[arg(long, value_name = "FILE")]
    queue: Option<PathBuf>,
    /// The link to the gateway, for the timing: lan, hf-100, … as `lowband link show` lists them; that of --credentials, or lan, if not
    /// given
    #[arg(long, value_name = "LINK")]
    link: Option<String>,
    /// A TOML file of settings, whose [link.NAME] tables are added
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many times faster than that the link is
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::link::speed())]
    link_speed: u32,
    /// Seconds that a client waits for a message to be sent before it is told to come back; the message stays in the queue
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Seconds of silence after which the gateway is asked whether it still observes; never, if not given
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(60..))]
    keepalive: Option<u64>,
    /// Ask the homeserver each time, also for what cannot have changed
    #[arg(long)]
    no_cache: bool,
    /// What becomes of what does not fit the link, where it is not what is sensible for it: media, previews, directory, presence, typing and
    /// receipts are allow, latest, defer, refuse or drop
    #[arg(long, value_name = "CLASS=RULE,…")]
    policy: Option<String>,
    #[command(flatten)]
    security: SecurityArgs,
    /// What is logged to standard error: error, warn, info, debug, or as for the gateway
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// Where the gateway is. `coap+oscore` and `coaps+oscore` are understood: that the keys are OSCORE's is in them.
#[derive(Clone, Debug)]
struct GatewayUrl(CoapUrl);

impl FromStr for GatewayUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("coap", text));
        let scheme = match scheme {
            "coap+oscore" | "coaps+oscore" => "coap",
            scheme => scheme,
        };
        let url: CoapUrl = format!("{scheme}://{rest}").parse()?;
        match url.path_and_query() {
            "/" => Ok(Self(url)),
            path => Err(format!("a gateway has no path: {path}")),
        }
    }
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(args: ProxyArgs) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&args.log).map_err(Failure::usage)?;
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    logging.with_ansi(ansi).try_init().map_err(|error| Failure::new(format_args!("cannot log: {error}")))?;
    let (protection, of_device) = match &args.credentials {
        Some(given) => keyring::open(given, args.state.as_deref())?,
        None => (args.security.read()?, None),
    };
    protection.check(args.gateway.0.is_secure())?;
    if matches!(protection, Protection::None) {
        let _ = writeln!(
            io::stderr(),
            "warning: nothing protects what is sent: whoever is on the link reads it, the access token too"
        );
        let _ = writeln!(
            io::stderr(),
            "hint: lowband device add NAME and lowband device export NAME, at the gateway, give --credentials"
        );
    }
    let link = args.link.clone().or(of_device).unwrap_or_else(|| "lan".to_owned());
    let link = Links::of_file(args.config.clone())?.find(&link)?.faster(args.link_speed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format_args!("cannot start: {error}")))?;
    let served = runtime.block_on(serve(&args, &link, protection));
    runtime.shutdown_background();
    served
}

async fn serve(args: &ProxyArgs, link: &Profile, protection: Protection) -> Result<(), Failure> {
    let mut signals =
        Signals::new().map_err(|error| Failure::new(format_args!("cannot take signals: {error}")))?;
    let remote = args.gateway.0.resolve().await?;
    let client = connect(remote, link, protection)
        .await
        .map_err(|error| Failure::new(format_args!("cannot reach {remote}: {error}")))?;
    let mut policy = Policy::of_rate(slower(link));
    policy.set(args.policy.as_deref().unwrap_or_default()).map_err(Failure::usage)?;
    let config = Config {
        policy: policy.clone(),
        exchange_lifetime: link.terms(End::Peer).parameters.exchange_lifetime(),
        cached: if args.no_cache { 0 } else { Config::default().cached },
        patience: Duration::from_secs(args.patience),
        keepalive: args.keepalive.map(Duration::from_secs),
        ..Config::default()
    };
    let store = queue(args).map(|path| Store::open(&path).map_err(|error| explain_store(&error, &path)));
    let server = Server::bind(args.listen, client, config, store.transpose()?);
    let server = server.await.map_err(explain)?;
    let _ = writeln!(
        io::stderr(),
        "listening on http://{}, for the gateway at {remote} by {}",
        server.address(),
        link.name
    );
    tracing::info!(%policy, "what does not fit the link");
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server.run(async { drop(stopped.await) }));
    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    let _ = stop.send(());
    serving.await.map_err(|error| Failure::new(format_args!("proxy failed: {error}")))
}

async fn connect(remote: SocketAddr, link: &Profile, protection: Protection) -> io::Result<Client> {
    let terms = link.terms(End::Peer);
    let mut config = endpoint::Config::over(&link.name, terms.clone());
    config.sealed_links.insert(link.name.clone(), link.clone().sealed(SEALING).terms(End::Peer));
    match protection {
        Protection::None => Client::connect(remote, config).await,
        Protection::Oscore(keyring) => {
            Client::connect_as(remote, config, Box::new(|_, _| {}), Some(*keyring)).await
        }
        Protection::Dtls(credentials) => {
            let security = Security { credentials, link: Link::from(&terms) };
            Client::connect_secured(remote, config, security, Box::new(|_, _| {})).await
        }
    }
}

/// The rate of the slower direction, in the link's own time; 0 where nothing holds it up.
fn slower(link: &Profile) -> u64 {
    let rates = [link.rate_up, link.rate_down].into_iter().filter(|rate| *rate > 0);
    rates.min().unwrap_or_default() / u64::from(link.speed.max(1))
}

/// The file of the queue: beside the credentials, where they are a file.
fn queue(args: &ProxyArgs) -> Option<PathBuf> {
    let of_file = |given: &String| (!given.contains("://")).then(|| beside(&PathBuf::from(given), ".queue"));
    args.queue.clone().or_else(|| args.credentials.as_ref().and_then(of_file))
}

fn explain(error: StartError) -> Failure {
    let failure = Failure::new(&error);
    match &error {
        StartError::Bind { address, source } => failure.unbound(source, *address),
        _ => failure,
    }
}

fn explain_store(error: &StoreError, path: &std::path::Path) -> Failure {
    let failure = Failure::new(format_args!("{}: {error}", path.display()));
    match error {
        StoreError::Locked => failure.hint("another proxy may be running; each needs a --queue of its own"),
        StoreError::Permissions(_) => failure.hint(format_args!("chmod 600 {}", path.display())),
        _ => failure.hint("--queue names another place"),
    }
}
