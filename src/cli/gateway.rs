//! `lowband gateway`: CoAP on one side, a homeserver on the other, until a signal.

use std::io;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use http::Uri;
use lowband::net::desk::DeskError;
use lowband::net::gateway::Security;
use lowband::net::gateway::Server;
use lowband::net::gateway::StartError;
use lowband::net::store::StoreError;
use lowband::net::upstream::Upstream;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time;
use tracing::info;
use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::Failure;
use super::config;
use super::config::Effective;
use super::config::Flags;
use super::config::LogFormat;
use super::config::Settings;
use super::signals::Signals;

/// Stands before a homeserver, and translates CoAP and CBOR to HTTP and JSON and back.
#[derive(Debug, clap::Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    flags: Flags,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(args: GatewayArgs) -> Result<(), Failure> {
    let (settings, mut errors) = Settings::read(&args.flags, std::env::vars_os());
    let effective = match Effective::read(&settings) {
        Ok(effective) if errors.is_empty() => effective,
        Ok(_) => return Err(config::fail(&errors)),
        Err(invalid) => {
            errors.extend(invalid);
            return Err(config::fail(&errors));
        }
    };
    log_to_stderr(&effective)?;
    settings.warnings.iter().chain(&effective.warnings).for_each(|warning| warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format_args!("cannot start: {error}")))?;
    let served = runtime.block_on(serve(effective));
    // Nobody waits for what a blocking name lookup may still be at.
    runtime.shutdown_background();
    served
}

/// How long the homeserver may take to answer at the start, once it is connected.
const PROBE_ANSWER: Duration = Duration::from_secs(10);

async fn serve(effective: Effective) -> Result<(), Failure> {
    // From here on a signal ends the gateway in order, even before it serves.
    let mut signals =
        Signals::new().map_err(|error| Failure::new(format_args!("cannot take signals: {error}")))?;
    let (endpoint, listen) = (effective.server.gateway.endpoint.clone(), effective.server.listen.clone());
    let probe_timeout = effective.server.upstream.connect_timeout + PROBE_ANSWER;
    let server = Server::bind(effective.server).map_err(explain)?;
    for (address, listener) in server.addresses().into_iter().zip(&listen) {
        let scheme = if listener.security == Security::Dtls { "coaps" } else { "coap" };
        // Where standard error is closed, nobody wants to know.
        let _ = writeln!(io::stderr(), "listening on {scheme}://{address}");
    }
    for (address, listener) in server.addresses().into_iter().zip(listen) {
        let link = listener.link.as_ref().or(endpoint.link.as_ref());
        let links = match listener.security {
            Security::None => &endpoint.links,
            Security::Dtls => &endpoint.sealed_links,
        };
        if let Some((link, terms)) = link.and_then(|link| links.get_key_value(link)) {
            let (ack_timeout, block) = (terms.parameters.ack_timeout, terms.block.bytes());
            info!(%address, link, ?ack_timeout, block, "timing by link");
        }
    }
    let check =
        tokio::spawn(check_homeserver(server.upstream().clone(), effective.homeserver, probe_timeout));
    let (stop, stopped) = oneshot::channel();
    let mut serving = tokio::spawn(server.run(async { drop(stopped.await) }));
    tokio::select! {
        ended = &mut serving => return ended.map(drop).map_err(|error| Failure::new(format_args!("gateway failed: {error}"))),
        name = signals.next() => info!(signal = name, "stopping: no more requests are taken"),
    }
    check.abort();
    let _ = stop.send(());
    let second = async {
        // A signal to a group of processes may come twice, from the terminal and from what started the gateway.
        let _ = time::timeout(SAME_SIGNAL, async {
            loop {
                signals.next().await;
            }
        })
        .await;
        signals.next().await
    };
    tokio::select! {
        ended = &mut serving => ended.map(drop).map_err(|error| Failure::new(format_args!("gateway failed: {error}"))),
        name = second => Err(Failure::new(format_args!("stopped at once by a second signal ({name})"))),
    }
}

/// Signals within so long of the first are taken for the same.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

fn explain(error: StartError) -> Failure {
    let failure = Failure::new(&error);
    let (address, source) = match &error {
        StartError::Bind { address, source } => (address, source),
        StartError::State { path, source } => return explain_state(failure, path, source),
        StartError::Devices(DeskError { hint: Some(hint), .. }) => return failure.hint(hint),
        StartError::Dtls(error) => {
            return match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            };
        }
        _ => return failure,
    };
    failure.unbound(source, *address)
}

fn explain_state(failure: Failure, path: &Path, error: &StoreError) -> Failure {
    match error {
        StoreError::Locked => failure.hint("another gateway may be running; each needs a file of its own"),
        StoreError::Permissions(_) => failure.hint(format_args!("chmod 600 {}", path.display())),
        StoreError::Database(_) => failure
            .hint("another --state begins anew: observers have to register again, from their own position"),
        StoreError::Io(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                failure.hint("the directory must exist and be writable by the gateway's user")
            }
            io::ErrorKind::IsADirectory => failure.hint("name a file; it is made where there is none"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                failure.hint("the file and its directory must be writable by the gateway's user")
            }
            _ => failure,
        },
        _ => failure,
    }
}

/// Says early what each call would say later. Nothing depends on it: a homeserver may start after its gateway.
async fn check_homeserver(upstream: Upstream, homeserver: Uri, timeout: Duration) {
    #[derive(Deserialize)]
    struct Versions {
        versions: Vec<String>,
    }
    let response = match upstream.versions(&homeserver, timeout).await {
        Ok(response) => response,
        Err(error) => return warn!(%homeserver, %error, "homeserver does not answer yet"),
    };
    match (response.status(), serde_json::from_slice::<Versions>(response.body())) {
        (StatusCode::OK, Ok(found)) => {
            info!(%homeserver, newest = found.versions.last(), "homeserver answers");
        }
        (status, _) => warn!(%homeserver, %status, "what answers there is no Matrix homeserver"),
    }
}

fn log_to_stderr(effective: &Effective) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&effective.log).map_err(Failure::new)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let done = match effective.log_format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| Failure::new(format_args!("cannot log: {error}")))
}
