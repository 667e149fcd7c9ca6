//! `lowband device`: who may speak with the gateway, and by which keys.
//!
//! A gateway that runs has the file of devices to itself, and is asked over its socket; where none runs the file is opened here.

mod add;
mod change;
mod export;
mod list;
mod login;
mod password;
mod qr;

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use lowband::device::Summary;
use lowband::net::Clock;
use lowband::net::control::Answer;
use lowband::net::control::Command;
#[cfg(unix)]
use lowband::net::control::ControlError;
use lowband::net::desk;
use lowband::net::devices::DeviceStore;

use super::Failure;
use super::config;
use super::config::Flags;
use super::config::Settings;
use super::output;

/// Make devices, and their keys; see docs/devices.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: a device for a radio link, and its half of the keys
  $ lowband device add buoy --user @buoy:example.org --login --link hf-100 --devices /var/lib/lowband/devices
  $ lowband device export buoy --gateway gateway.example.org --format qr --devices /var/lib/lowband/devices
  $ lowband device list --devices /var/lib/lowband/devices

With --config, or LOWBAND_DEVICES or LOWBAND_STATE in the environment as the gateway has it, --devices goes without saying.")]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    command: DeviceCommand,
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    Add(Box<add::AddArgs>),
    List(list::ListArgs),
    Show(list::ShowArgs),
    Rotate(change::RotateArgs),
    Revoke(change::RevokeArgs),
    Login(login::LoginArgs),
    Export(export::ExportArgs),
}

/// Does what the subcommand says.
pub(crate) fn run(args: DeviceArgs) -> Result<(), Failure> {
    match args.command {
        DeviceCommand::Add(args) => add::run(*args),
        DeviceCommand::List(args) => list::run(args),
        DeviceCommand::Show(args) => list::show(args),
        DeviceCommand::Rotate(args) => change::rotate(args),
        DeviceCommand::Revoke(args) => change::revoke(args),
        DeviceCommand::Login(args) => login::run(args),
        DeviceCommand::Export(args) => export::run(args),
    }
}

/// Where the devices are; the same settings as the gateway's, in the same places.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// The gateway's TOML file of settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file of devices, as the gateway has it
    #[arg(long, value_name = "FILE")]
    devices: Option<String>,
    /// The key that they are sealed with
    #[arg(long, value_name = "FILE")]
    device_key: Option<String>,
    /// The gateway's Unix socket
    #[arg(long, value_name = "SOCKET")]
    control: Option<String>,
}

impl PlaceArgs {
    /// All settings that the gateway would have, with these arguments and others before them.
    fn settings(&self, more: &[(&'static str, Option<&String>)]) -> Result<Settings, Failure> {
        let mut given = vec![
            ("devices", self.devices.as_ref()),
            ("device-key", self.device_key.as_ref()),
            ("control", self.control.as_ref()),
        ];
        given.extend_from_slice(more);
        let flags = Flags::of(self.config.clone(), &given);
        let (settings, errors) = Settings::read(&flags, std::env::vars_os());
        if errors.is_empty() { Ok(settings) } else { Err(config::fail(&errors)) }
    }

    fn desk(&self) -> Result<Desk, Failure> {
        Desk::of(&self.settings(&[])?)
    }
}

/// The devices: at a gateway, or in their file.
struct Desk {
    config: desk::Config,
}

impl Desk {
    fn of(settings: &Settings) -> Result<Self, Failure> {
        match config::devices(settings) {
            Some(config) => Ok(Self { config }),
            None => Err(Failure::usage("it is not said where the devices are")
                .hint("--devices FILE, or --config FILE as the gateway has it")),
        }
    }

    /// Asks the gateway that runs, or looks into the file.
    fn ask(&self, command: Command) -> Result<Answer, Failure> {
        #[cfg(unix)]
        match lowband::net::control::ask(&self.config.control, &command) {
            Ok(Some(answer)) => return refuse_failed(answer),
            Ok(None) => {}
            Err(error) => {
                let hint = match error {
                    ControlError::NoAnswer(_) => {
                        "it may have done it all the same: lowband device list tells; see its log"
                    }
                    _ => "the gateway's own user, or root, may ask; --control names another socket",
                };
                return Err(Failure::new(error).hint(hint));
            }
        }
        let place = &self.config.place;
        let mut store = DeviceStore::open(place).map_err(|error| {
            let failure = Failure::new(&error);
            match error.hint(place) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
        let (answer, _) = store.execute(command, Clock::start().now());
        refuse_failed(answer)
    }

    /// Has a device changed; what it is now.
    fn change(&self, command: Command) -> Result<Summary, Failure> {
        match self.ask(command)? {
            Answer::Device(summary) => Ok(*summary),
            Answer::First(summary, key) => {
                output::tell(format_args!(
                    "new key in {}: without it nobody can read the devices; keep a copy elsewhere",
                    key.display()
                ));
                Ok(*summary)
            }
            _ => Err(unexpected()),
        }
    }
}

fn refuse_failed(answer: Answer) -> Result<Answer, Failure> {
    match answer {
        Answer::Failed { error, hint } => {
            let failure = Failure::new(error);
            Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        answer => Ok(answer),
    }
}

fn unexpected() -> Failure {
    Failure::new("the gateway's answer is another than was asked for")
        .hint("it is perhaps of another version")
}
