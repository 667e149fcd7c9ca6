//! `lowband link run`: a slow link between real sockets, until a signal.

use std::fmt;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lowband::coap::Instant;
use lowband::link::End;
use lowband::net::relay;
use lowband::net::relay::Relay;
use lowband::net::relay::Sent;
use lowband::sim::Fate;
use lowband::sim::Impairments;
use lowband::sim::Outage;
use lowband::sim::Traffic;
use serde::Serialize;

use crate::cli::Failure;
use crate::cli::config::Links;
use crate::cli::output;
use crate::cli::signals::Signals;

/// Relay UDP between clients and one server as if over a slow link, until SIGINT or SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: hf-100 twenty times as fast as it is, before a gateway; with an outage from minute 10 to minute 70 of the link's time
  $ lowband link run --profile hf-100 --speed 20 --listen 127.0.0.1:6000 --to 127.0.0.1:5683
  $ lowband link run --profile hf-100 --speed 20 --listen 127.0.0.1:6000 --to 127.0.0.1:5683 --outage 10m-70m -v")]
pub(crate) struct RunArgs {
    /// The link: one of those that `lowband link show` lists
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// A TOML file of settings, whose [link.NAME] tables are added
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients send to
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen: SocketAddr,
    /// The server, which the gateway is
    #[arg(long, value_name = "ADDR", value_parser = address)]
    to: SocketAddr,
    /// How many times as fast as the link: rates are multiplied, times divided
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::speed())]
    speed: u32,
    /// What is lost follows from this number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::whole_number)]
    seed: u64,
    /// The share of frames that are lost, instead of the profile's: 0.05 or 5%
    #[arg(long, value_name = "P", value_parser = super::loss)]
    loss: Option<f64>,
    /// The share of datagrams that come twice
    #[arg(long, value_name = "P", value_parser = super::share)]
    duplication: Option<f64>,
    /// The share of datagrams that later ones overtake
    #[arg(long, value_name = "P", value_parser = super::share)]
    reordering: Option<f64>,
    /// When everything is lost, in the link's time from the start: seconds, or with s, m, h. May be given several times
    #[arg(long, value_name = "FROM-UNTIL")]
    outage: Vec<Outage>,
    /// Clients at a time; the one that was silent for longest makes room
    #[arg(long, value_name = "N", default_value_t = 256)]
    clients: usize,
    /// Write what was counted as one JSON object
    #[arg(long)]
    json: bool,
    /// Tell of each datagram on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// How long a client may be silent: longer than an observer of the gateway's ever is.
const IDLE: Duration = Duration::from_secs(25 * 3600);

/// Relays until SIGTERM or SIGINT, and then says what passed.
pub(crate) fn run(args: RunArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format_args!("cannot start: {error}")))?;
    let report = runtime.block_on(relay(&args))?;
    if args.json { output::write_json(&report) } else { output::write(report.to_string().as_bytes()) }
}

async fn relay(args: &RunArgs) -> Result<Report, Failure> {
    let profile = Links::of_file(args.config.clone())?.find(&args.profile)?;
    let impairments = Impairments {
        loss: args.loss,
        duplication: args.duplication.unwrap_or_default(),
        reordering: args.reordering.unwrap_or_default(),
        outages: args.outage.clone(),
        ..Impairments::default()
    };
    let config = relay::Config {
        listen: args.listen,
        to: args.to,
        profile: profile.faster(args.speed),
        impairments: impairments.at_speed(args.speed.into()),
        seed: args.seed,
        clients: args.clients,
        idle: IDLE,
    };
    let mut signals =
        Signals::new().map_err(|error| Failure::new(format_args!("cannot take signals: {error}")))?;
    let relay = Relay::bind(config, watch(args.verbose, args.speed)).map_err(|error| {
        let failure = Failure::new(format_args!("cannot bind {}: {error}", args.listen));
        failure.unbound(&error, args.listen)
    })?;
    // Where standard error is closed, nobody wants to know.
    let _ = writeln!(io::stderr(), "relaying {} to {}", relay.address(), args.to);
    let counters = relay.run(async { _ = signals.next().await }).await;
    let relay::Counters { up, down, clients, forgotten, socket_errors } = counters;
    let (up, down) = (up.slowed(args.speed), down.slowed(args.speed));
    Ok(Report {
        profile: args.profile.clone(),
        speed: args.speed,
        seed: args.seed,
        up,
        down,
        clients,
        forgotten,
        socket_errors,
    })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address is like 127.0.0.1:5683 or [::1]:5683".to_owned())
}

fn watch(verbose: bool, speed: u32) -> relay::Watch {
    if !verbose {
        return Box::new(|_| {});
    }
    Box::new(move |sent| drop(writeln!(io::stderr(), "{}", line(sent, speed))))
}

/// A datagram in one line, in the link's time.
fn line(sent: &Sent, speed: u32) -> String {
    let seconds = |at: Instant| at.since_start().as_secs_f64() * f64::from(speed);
    let way = match sent.from {
        End::Peer => "up  ",
        End::Gateway => "down",
    };
    let passage = &sent.passage;
    let fate = match passage.fate {
        Fate::Arrives(at) => format!("arrives {:.1}", seconds(at)),
        Fate::ArrivesTwice(at, again) => format!("arrives {:.1} and {:.1}", seconds(at), seconds(again)),
        Fate::Lost => "lost".to_owned(),
        Fate::LostInOutage => "lost in an outage".to_owned(),
        Fate::TooLong => "too long".to_owned(),
        Fate::Overflowed => "too many wait".to_owned(),
    };
    format!(
        "{:10.1} s {way} {:5} B {} on the air {:.1} to {:.1}, {fate}",
        seconds(sent.at),
        sent.bytes,
        sent.client,
        seconds(passage.start),
        seconds(passage.end),
    )
}

/// What passed, in the link's time.
#[derive(Debug, Serialize)]
struct Report {
    profile: String,
    speed: u32,
    seed: u64,
    up: Traffic,
    down: Traffic,
    clients: u64,
    /// Clients that were forgotten as they were silent, or to make room.
    forgotten: u64,
    socket_errors: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (way, traffic) in [("up", &self.up), ("down", &self.down)] {
            writeln!(
                f,
                "{way:5} {} datagrams, {} B, {} B and {:.1} s on the air; {} arrived, {} lost, {} lost in outages, {} too long, \
                 {} overflowed, {} twice",
                traffic.datagrams,
                traffic.bytes,
                traffic.air_bytes,
                traffic.airtime.as_secs_f64(),
                traffic.delivered,
                traffic.lost,
                traffic.lost_in_outage,
                traffic.too_long,
                traffic.overflowed,
                traffic.duplicated,
            )?;
        }
        let Self { clients, forgotten, socket_errors, .. } = self;
        writeln!(f, "{clients} clients, {forgotten} of them forgotten; {socket_errors} socket errors")
    }
}
