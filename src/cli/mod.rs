//! The command line: one subcommand, one file.
//!
//! A subcommand `name` is `name.rs` with `NameArgs` and `run(NameArgs) -> Result<(), Failure>`, a variant of [`Command`] and a
//! line in [`run`]. It uses what the library makes public, and nothing else of it.

mod certificate;
mod check_config;
mod coap_url;
mod config;
mod decode;
mod demo;
mod device;
mod dictionary;
mod encode;
mod failure;
mod gateway;
mod input;
mod inspect;
mod keyring;
mod link;
mod measure;
mod output;
mod protection;
mod proxy;
mod request;
mod routes;
mod signals;
mod sim;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

pub(crate) use self::failure::Failure;

/// What `lowband` was asked for.
#[derive(Parser)]
#[command(name = "lowband", version, about = "Matrix over links of about 100 bit/s", max_term_width = 100)]
#[command(after_help = "\
Example: what a message costs on the link
  $ echo '{\"msgtype\":\"m.text\",\"body\":\"Hello\"}' | lowband encode --hex
  $ lowband routes PUT '/_matrix/client/v3/rooms/!a:hs/send/m.room.message/t1'

lowband COMMAND --help shows an example of each.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands, in the order in which `--help` lists them.
#[derive(Subcommand)]
enum Command {
    Gateway(gateway::GatewayArgs),
    Proxy(proxy::ProxyArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Request(request::RequestArgs),
    Device(device::DeviceArgs),
    Certificate(certificate::CertificateArgs),
    Demo(demo::DemoArgs),
    Link(link::LinkArgs),
    Sim(sim::SimArgs),
    Measure(measure::MeasureArgs),
    Dictionary(dictionary::DictionaryArgs),
    Encode(encode::EncodeArgs),
    Decode(decode::DecodeArgs),
    Inspect(inspect::InspectArgs),
    Routes(routes::RoutesArgs),
}

/// Does what the arguments say. Exit codes: 0 done, 1 failed, 2 not understood, 3 not answered.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Gateway(args) => gateway::run(args),
        Command::Proxy(args) => proxy::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Request(args) => request::run(args),
        Command::Device(args) => device::run(args),
        Command::Certificate(args) => certificate::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Link(args) => link::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Measure(args) => measure::run(args),
        Command::Dictionary(args) => dictionary::run(args),
        Command::Encode(args) => encode::run(args),
        Command::Decode(args) => decode::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Routes(args) => routes::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
