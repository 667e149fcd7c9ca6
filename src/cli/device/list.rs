//! `lowband device list` and `show`: what there is.

use std::fmt::Write;

use clap::Args;
use lowband::device::Name;
use lowband::device::Summary;
use lowband::device::TokenState;
use lowband::net::control::Answer;
use lowband::net::control::Command;

use super::PlaceArgs;
use super::unexpected;
use crate::cli::Failure;
use crate::cli::output;

/// List the devices
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Show a device
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Which
    name: Name,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(args: ListArgs) -> Result<(), Failure> {
    let Answer::Devices(devices) = args.place.desk()?.ask(Command::List)? else { return Err(unexpected()) };
    if args.json { output::write_json(&devices) } else { output::write(table(&devices).as_bytes()) }
}

pub(super) fn show(args: ShowArgs) -> Result<(), Failure> {
    let device = args.place.desk()?.change(Command::Show { name: args.name })?;
    if args.json { output::write_json(&device) } else { output::write(lines(&device).as_bytes()) }
}

/// What its keys are known by, in a few words.
pub(super) fn keys(device: &Summary) -> String {
    match (device.security.as_deref(), device.id.as_deref()) {
        (Some("oscore"), Some("")) => "OSCORE, sender id empty".to_owned(),
        (Some("oscore"), Some(id)) => format!("OSCORE, sender id {id}"),
        (Some("edhoc"), Some(id)) => format!("EDHOC, key id {id}"),
        (Some("dtls-psk"), Some(id)) => format!("DTLS, PSK identity {id}"),
        (Some("dtls-certificate"), Some(id)) => format!("DTLS, certificate {id}"),
        _ => "revoked".to_owned(),
    }
}

fn table(devices: &[Summary]) -> String {
    let mut rows = vec![["name", "user", "security", "link", "routes", "state"].map(str::to_owned)];
    rows.extend(devices.iter().map(|device| {
        [
            device.name.to_string(),
            device.user_id.clone(),
            device.security.clone().unwrap_or_else(|| "-".to_owned()),
            device.link.clone().unwrap_or_else(|| "-".to_owned()),
            device.routes.to_string(),
            state(device).to_owned(),
        ]
    }));
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn state(device: &Summary) -> &'static str {
    match (device.revoked, &device.next_id) {
        (Some(_), _) => "revoked",
        _ if device.keys_lost => "rotate it",
        (None, Some(_)) => "rotating",
        (None, None) => "active",
    }
}

fn lines(device: &Summary) -> String {
    let limit = |limit: Option<String>| limit.unwrap_or_else(|| "none".to_owned());
    let limits = device.limits;
    let next = device.next_id.as_deref();
    let token = match device.token {
        TokenState::None => "none: it brings its own",
        TokenState::Fixed => "kept by the gateway",
        TokenState::Renewed => "kept and renewed by the gateway",
    };
    let mut lines = vec![
        ("name", device.name.to_string()),
        ("user", device.user_id.clone()),
        ("state", state(device).to_owned()),
        ("keys", keys(device)),
        (
            "new keys",
            limit(next.map(|id| {
                if id.is_empty() {
                    "sender id empty, not used yet".into()
                } else {
                    format!("{id}, not used yet")
                }
            })),
        ),
        ("link", device.link.clone().unwrap_or_else(|| "the listener's".to_owned())),
        ("routes", device.routes.to_string()),
        ("requests per minute", limit(limits.requests_per_minute.map(|limit| limit.to_string()))),
        ("airtime per day", limit(limits.airtime_per_day.map(|limit| format!("{} s", limit.as_secs_f64())))),
        ("payload", limit(limits.payload.map(|limit| format!("{limit} bytes")))),
        ("observations", limit(limits.observations.map(|limit| limit.to_string()))),
        ("access token", token.to_owned()),
        ("its own token", if device.allow_token { "let through" } else { "refused" }.to_owned()),
        ("added", moment(device.created)),
    ];
    if device.security.as_deref() == Some("edhoc") {
        let what = match device.agreed {
            0 => "none: it agrees on keys with its next request".to_owned(),
            count => format!("{count} that hold"),
        };
        lines.insert(5, ("keys agreed on", what));
    }
    if device.keys_lost {
        let what = "refused: the state of its keys is gone, and they would be used twice; rotate it";
        lines.push(("lost keys", what.to_owned()));
    }
    lines.extend(device.token_expires.map(|at| ("token ends", moment(at))));
    lines.extend(device.rotated.map(|at| ("rotated", moment(at))));
    lines.extend(device.revoked.map(|at| ("revoked", moment(at))));
    lines.iter().map(|(name, value)| format!("{name:<19}  {value}\n")).collect()
}

/// Seconds since the Unix epoch, as RFC 3339 has it.
fn moment(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years of 400 repeat; one begins in March, so that its odd day is its last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn moments_are_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(moment(seconds), date);
        }
    }
}
