//! `lowband demo`: a whole conversation in one process, and what each message of it costs on the link.

mod conversation;
mod peer;
mod report;
mod wire;

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Uri;
use tokio::sync::oneshot;

use lowband::gateway;
use lowband::homeserver;
use lowband::net;

use self::conversation::Setting;
use self::wire::Log;
use super::Failure;
use super::output;

/// Let two users talk across a gateway, and show every message with its bytes.
///
/// Everything runs in this process and on the loopback interface: a minimal in-memory homeserver made for demonstrations, a
/// gateway in front of it, and two CoAP clients. Nothing has to be installed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: with the built-in minimal homeserver; with a real one that lets anybody register
  $ lowband demo
  $ lowband demo --homeserver http://127.0.0.1:8008
  $ lowband demo --json | jq '.table[] | {call, lowband_bytes, https_keep_alive_bytes}'")]
pub(crate) struct DemoArgs {
    /// Use the homeserver at this URL instead of the built-in minimal one
    #[arg(long, value_name = "URL", value_parser = homeserver_url)]
    homeserver: Option<Uri>,
    /// Write one JSON object when all is done, and nothing else
    #[arg(long)]
    json: bool,
}

/// How long the gateway may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// How often the gateway logs what it has counted: not in so short a life.
const REPORT: Duration = Duration::from_secs(3_600);

pub(crate) fn run(args: DemoArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(Failure::new)?.block_on(demonstrate(args))
}

fn homeserver_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        _ => Err("give a URL with http:// or https://".to_owned()),
    }
}

async fn demonstrate(args: DemoArgs) -> Result<(), Failure> {
    let (minimal, homeserver) = match args.homeserver {
        Some(url) => (None, url),
        None => {
            let server = start_minimal().await?;
            let url = server.url().parse().map_err(Failure::new)?;
            (Some(server), url)
        }
    };
    let gateway = start_gateway(&homeserver)?;
    let gateway_address = address(&gateway)?;
    let (stop, stopped) = oneshot::channel::<()>();
    // The order to stop is that nobody can give it any more.
    let gateway = tokio::spawn(gateway.run(async { drop(stopped.await) }));

    let log = Arc::new(Log::new(!args.json));
    let setting = Setting { gateway: gateway_address, homeserver, minimal: minimal.is_some() };
    let report = conversation::hold(&log, &setting).await;
    drop(stop);
    // What it counted is of no interest here, and a panic in it has made the conversation fail.
    drop(gateway.await);
    if let Some(server) = minimal {
        server.shutdown().await;
    }
    let report = report?;
    if args.json { output::write_json(&report) } else { output::write(report.to_string().as_bytes()) }
}

async fn start_minimal() -> Result<homeserver::Server, Failure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    homeserver::Server::bind(any, homeserver::Config::default()).await.map_err(Failure::new)
}

fn start_gateway(homeserver: &Uri) -> Result<net::gateway::Server, Failure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = net::gateway::Config {
        listen: vec![any.into()],
        gateway: gateway::Config::new(homeserver.clone()),
        state: None,
        devices: None,
        dtls: net::dtls::Config::default(),
        upstream: net::upstream::Config::new(homeserver.clone()),
        grace: GRACE,
        report: REPORT,
    };
    net::gateway::Server::bind(config).map_err(Failure::new)
}

fn address(gateway: &net::gateway::Server) -> Result<SocketAddr, Failure> {
    gateway.addresses().first().copied().ok_or_else(|| Failure::new("the gateway has no address"))
}
