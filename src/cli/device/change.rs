//! `lowband device rotate` and `revoke`: new keys, and the end.

use clap::Args;
use lowband::device::Name;
use lowband::device::Rotation;
use lowband::device::Unused;
use lowband::net::control::Answer;
use lowband::net::control::Command;

use super::PlaceArgs;
use super::add::CertificateArgs;
use super::add::PublicKeyArgs;
use super::unexpected;
use crate::cli::Failure;
use crate::cli::output;

/// Give a device new keys; the old hold until it first uses the new
#[derive(Debug, Args)]
#[command(after_help = "\
Example: new keys, and how the device gets them
  $ lowband device rotate buoy
  $ lowband device export buoy --gateway gateway.example.org -o buoy.toml")]
pub(super) struct RotateArgs {
    /// Which
    name: Name,
    /// Where it has new keys already and has not used them: make others in their place. A device that has those is locked out
    #[arg(long)]
    replace_unused: bool,
    #[command(flatten)]
    certificate: CertificateArgs,
    #[command(flatten)]
    public_key: PublicKeyArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Stop a device at once, and forget its keys and tokens
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Which
    name: Name,
    /// Forget too that there was such a device
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn rotate(args: RotateArgs) -> Result<(), Failure> {
    let unused = if args.replace_unused { Unused::Replace } else { Unused::Keep };
    let rotation = Rotation { unused, pin: args.certificate.pin()?, public_key: args.public_key.key() };
    let name = args.name.clone();
    args.place.desk()?.change(Command::Rotate { name: args.name, rotation })?;
    output::tell(format_args!("device {name} has new keys; the old hold until it first uses the new"));
    if rotation.pin.is_none() {
        output::tell(format_args!("hint: lowband device export {name} gives its half of them"));
    }
    Ok(())
}

pub(super) fn revoke(args: RevokeArgs) -> Result<(), Failure> {
    let name = args.name.clone();
    let desk = args.place.desk()?;
    if args.forget {
        let Answer::Forgotten = desk.ask(Command::Forget { name: args.name })? else {
            return Err(unexpected());
        };
        output::tell(format_args!("device {name} revoked and forgotten"));
    } else {
        desk.change(Command::Revoke { name: args.name })?;
        output::tell(format_args!("device {name} revoked"));
    }
    output::tell("hint: its access token is forgotten here and good at the homeserver: log it out there too");
    Ok(())
}
