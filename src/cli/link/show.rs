//! `lowband link show`: a link's profile, and what follows from it for both ends.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lowband::coap;
use lowband::link::End;
use lowband::link::Profile;
use lowband::link::Terms;
use serde::Serialize;

use crate::cli::Failure;
use crate::cli::config::Links;
use crate::cli::output;

/// List the links, or show what one is like and what follows from it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: all links, one a line; one in full; one as a test sees it that runs at 50 times the speed
  $ lowband link show
  $ lowband link show hf-100
  $ lowband link show hf-100 --speed 50 --json")]
pub(crate) struct ShowArgs {
    /// Its name
    name: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// So many times faster, rates and times alike
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::speed())]
    speed: u32,
    /// A TOML file of settings, whose [link.NAME] tables are added
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Shows it, or all.
pub(crate) fn run(args: ShowArgs) -> Result<(), Failure> {
    let links = Links::of_file(args.config)?;
    let report = |profile: Profile| Report::of(&profile.faster(args.speed));
    let Some(name) = args.name else {
        let all: Vec<_> = links.profiles.iter().map(report).collect();
        return if args.json { output::write_json(&all) } else { output::write(list(&all).as_bytes()) };
    };
    let report = report(links.find(&name)?);
    if args.json { output::write_json(&report) } else { output::write(report.to_string().as_bytes()) }
}

/// The lengths that are shown: a small message, a usual one, a block of the link that lowband is named for.
const LENGTHS: [usize; 3] = [20, 80, 256];

/// All that is shown of a link. Times are seconds.
#[derive(Serialize)]
struct Report {
    link: String,
    speed: u32,
    delay: f64,
    jitter: f64,
    fragments: bool,
    overhead: usize,
    half_duplex: bool,
    turnaround: f64,
    duty_cycle: f64,
    shared: bool,
    trust_addresses: bool,
    loss: f64,
    /// The wait for an answer but for all airtimes.
    ack_timeout: f64,
    ack_random_factor: f64,
    max_retransmit: u32,
    nstart: usize,
    max_latency: f64,
    max_transmit_span: f64,
    max_transmit_wait: f64,
    exchange_lifetime: f64,
    block: usize,
    body_lifetime: f64,
    response_timeout: f64,
    fixed: Fixed,
    up: Way,
    down: Way,
}

/// What a CoAP stack is set to whose timeout is the same for all messages, and starts when they are handed to its socket.
#[derive(Serialize)]
struct Fixed {
    ack_timeout: f64,
    ack_random_factor: f64,
    max_retransmit: u32,
    nstart: usize,
    block: usize,
}

/// One way, and the end that sends there.
#[derive(Serialize)]
struct Way {
    rate: u64,
    mtu: usize,
    piggyback_wait: f64,
    messages: Vec<Sized>,
}

/// A message of some length.
#[derive(Serialize)]
struct Sized {
    bytes: usize,
    airtime: f64,
    /// From its last bit to its first repeat at the soonest, where an empty acknowledgement answers it.
    ack_timeout: f64,
    /// The same where the greatest answer may come in the acknowledgement.
    request_timeout: f64,
    /// And where the greatest answers usually do, and wait for their share of the air.
    get_timeout: f64,
}

impl Report {
    fn of(profile: &Profile) -> Self {
        let Terms { parameters, block, lifetime, response_timeout, .. } = profile.terms(End::Peer);
        Self {
            link: profile.name.clone(),
            speed: profile.speed,
            delay: seconds(profile.delay),
            jitter: seconds(profile.jitter),
            fragments: profile.fragments,
            overhead: profile.overhead,
            half_duplex: profile.half_duplex,
            turnaround: seconds(profile.turnaround),
            duty_cycle: profile.duty_cycle,
            shared: profile.shared,
            trust_addresses: profile.trust_addresses,
            loss: profile.loss,
            ack_timeout: seconds(parameters.ack_timeout),
            ack_random_factor: parameters.ack_random_factor,
            max_retransmit: parameters.max_retransmit,
            nstart: parameters.nstart,
            max_latency: seconds(parameters.max_latency),
            max_transmit_span: seconds(parameters.max_transmit_span()),
            max_transmit_wait: seconds(parameters.max_transmit_wait()),
            exchange_lifetime: seconds(parameters.exchange_lifetime()),
            block: block.bytes(),
            body_lifetime: seconds(lifetime),
            response_timeout: seconds(response_timeout),
            fixed: Fixed {
                // Upwards: too late is slow, too early repeats what is on its way.
                ack_timeout: (parameters.longest_timeout().as_secs_f64() * 10.0).ceil() / 10.0,
                ack_random_factor: parameters.ack_random_factor,
                max_retransmit: parameters.max_retransmit,
                nstart: parameters.nstart,
                block: block.bytes(),
            },
            up: Way::of(profile, End::Peer),
            down: Way::of(profile, End::Gateway),
        }
    }

    fn ways(&self) -> [(&'static str, &Way); 2] {
        [("up", &self.up), ("down", &self.down)]
    }

    /// Something of both ways, once where it is the same.
    fn each<T: PartialEq>(&self, of: impl Fn(&Way) -> T, text: impl Fn(T) -> String) -> String {
        let [up, down] = [of(&self.up), of(&self.down)];
        if up == down { text(up) } else { format!("{} up, {} down", text(up), text(down)) }
    }

    fn rate(&self) -> String {
        self.each(
            |way| way.rate,
            |rate| if rate == 0 { "not limited".into() } else { format!("{rate} bit/s") },
        )
    }

    fn datagrams(&self) -> String {
        let text = |mtu| match (self.fragments, mtu) {
            (true, mtu) => format!("in fragments of {mtu} bytes"),
            (false, Profile::MAX_DATAGRAM) => "of any size".into(),
            (false, mtu) => format!("of at most {mtu} bytes"),
        };
        self.each(|way| way.mtu, text)
    }

    fn channel(&self) -> String {
        let whose = if self.shared { "of all peers" } else { "for each peer" };
        match self.half_duplex {
            true => format!("one {whose}, by turns, which take {} s to change", self.turnaround),
            false => format!("one each way {whose}"),
        }
    }
}

impl Way {
    fn of(profile: &Profile, from: End) -> Self {
        let parameters = profile.terms(from).parameters;
        let message = |bytes| Sized {
            bytes,
            airtime: seconds(parameters.sending.of(bytes)),
            ack_timeout: seconds(parameters.timeout(bytes, coap::Answer::Acknowledgement)),
            request_timeout: seconds(parameters.timeout(bytes, coap::Answer::Result)),
            get_timeout: seconds(parameters.timeout(bytes, coap::Answer::Content)),
        };
        Self {
            rate: profile.rate(from),
            mtu: profile.mtu(from),
            piggyback_wait: seconds(parameters.piggyback_wait),
            messages: LENGTHS.map(message).into(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.link)?;
        let mut like = vec![
            ("rate", self.rate()),
            ("delay", format!("{} s, and at most {} s more", self.delay, self.jitter)),
            ("datagrams", format!("{}; {} bytes of overhead a frame", self.datagrams(), self.overhead)),
            ("channel", self.channel()),
            ("duty cycle", percent(self.duty_cycle)),
            ("loss", format!("{} of all frames", percent(self.loss))),
        ];
        if self.trust_addresses {
            like.push(("addresses", "trusted: no peer has to show where it is".into()));
        }
        if self.speed != 1 {
            like.push(("speed", format!("{} times the real one, in all that stands here", self.speed)));
        }
        for (name, value) in like {
            writeln!(f, "  {name:<18}{value}")?;
        }
        writeln!(f, "\nmessage          airtime  ACK timeout  of a request      of a GET")?;
        for (name, way) in self.ways() {
            for Sized { bytes, airtime, ack_timeout, request_timeout, get_timeout } in &way.messages {
                let [airtime, ack, request, get] =
                    [airtime, ack_timeout, request_timeout, get_timeout].map(|time| format!("{time} s"));
                writeln!(f, "  {bytes:>3} B {name:<4}  {airtime:>10}  {ack:>11}  {request:>12}  {get:>12}")?;
            }
        }
        writeln!(f, "\nfor both ends")?;
        let piggyback = self.each(|way| way.piggyback_wait, |wait| format!("{wait} s"));
        for (name, value) in [
            ("ACK_TIMEOUT", format!("{} s, and the airtime of a message and its answer", self.ack_timeout)),
            ("ACK_RANDOM_FACTOR", self.ack_random_factor.to_string()),
            ("MAX_RETRANSMIT", self.max_retransmit.to_string()),
            ("NSTART", self.nstart.to_string()),
            ("MAX_LATENCY", format!("{} s", self.max_latency)),
            ("MAX_TRANSMIT_SPAN", format!("{} s", self.max_transmit_span)),
            ("MAX_TRANSMIT_WAIT", format!("{} s", self.max_transmit_wait)),
            ("EXCHANGE_LIFETIME", format!("{} s", self.exchange_lifetime)),
            ("piggyback wait", format!("{piggyback}, for the answer to a request")),
            ("block", format!("{} bytes; a body is held for {} s", self.block, self.body_lifetime)),
        ] {
            writeln!(f, "  {name:<18}{value}")?;
        }
        let Fixed { ack_timeout, ack_random_factor, max_retransmit, nstart, block } = &self.fixed;
        writeln!(f, "\nin a CoAP stack with one timeout for all messages")?;
        writeln!(
            f,
            "  ACK_TIMEOUT {ack_timeout} s, ACK_RANDOM_FACTOR {ack_random_factor}, MAX_RETRANSMIT {max_retransmit}, NSTART {nstart}, \
             blocks of {block}"
        )
    }
}

fn list(reports: &[Report]) -> String {
    let rows = reports.iter().map(|report| {
        let times = format!("{} s", report.delay);
        (
            report.link.as_str(),
            report.rate(),
            times,
            report.block.to_string(),
            format!("{} s", report.ack_timeout),
        )
    });
    let heading =
        ("link", "rate".to_owned(), "delay".to_owned(), "block".to_owned(), "ACK_TIMEOUT".to_owned());
    let rows: Vec<_> = [heading].into_iter().chain(rows).collect();
    let widest = |of: fn(&(&str, String, String, String, String)) -> usize| rows.iter().map(of).max();
    let name = widest(|row| row.0.len()).unwrap_or_default();
    let rate = widest(|row| row.1.len()).unwrap_or_default();
    let line = |(link, speed, delay, block, timeout): &(&str, String, String, String, String)| {
        format!("{link:name$}  {speed:rate$}  {delay:>6}  {block:>5}  {timeout:>11}\n")
    };
    rows.iter().map(line).collect()
}

/// To the microsecond: no link is known better.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e4).round() / 1e2)
}
