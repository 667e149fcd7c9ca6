//! `lowband sim`: a script in virtual time over a simulated link.

use std::fmt;
use std::io;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use lowband::link::Profile;
use lowband::sim;
use lowband::sim::Outcome;
use lowband::sim::PackedTally;
use lowband::sim::ScriptName;
use lowband::sim::Setup;
use lowband::sim::World;

use super::Failure;
use super::config::Links;
use super::output;

/// Run a gateway, devices and a homeserver in virtual time over a simulated link, and say what it cost and what became of it.
///
/// The same seed gives the same run. Exit code 1 where something does not hold that must.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: ten messages over shortwave; the same with RFC 7252's own timers; chaos on all links, 500 times on each; and by the packed profile
  $ lowband sim --link hf-100 --script send-ten
  $ lowband sim --link hf-100 --script send-ten --transmission rfc7252
  $ lowband sim --link all --script chaos --seeds 500
  $ lowband sim --link all --script chaos --profile packed --seeds 500")]
pub(crate) struct SimArgs {
    /// The links, by name with commas between them, or `all` but the one that holds up nothing
    #[arg(long, alias = "links", value_name = "NAME", default_value = "hf-100", value_delimiter = ',')]
    link: Vec<String>,
    /// A TOML file of settings, whose [link.NAME] tables are added
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What happens
    #[arg(long, value_name = "SCRIPT", default_value = "send-ten", value_parser = scripts())]
    script: ScriptName,
    /// Where the transmission parameters come from
    #[arg(long, value_enum, default_value_t = Transmission::Link)]
    transmission: Transmission,
    /// What protects the devices' messages
    #[arg(long, value_enum, default_value_t = Security::None)]
    security: Security,
    /// How devices write Matrix; in chaos, packed also has devices and gateways that lose what they knew of each other, or do not speak it
    #[arg(long, value_enum, default_value_t = Encoding::Msc3079)]
    profile: Encoding,
    /// All chance comes from this number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::link::whole_number)]
    seed: u64,
    /// Run so many seeds, from that one on, and give means
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The share of frames that are lost, instead of the link's: 0.05 or 5%
    #[arg(long, value_name = "P", value_parser = super::link::loss)]
    loss: Option<f64>,
    /// Devices of an idle day
    #[arg(long, value_name = "N", default_value_t = 10)]
    observers: usize,
    /// Write JSON: one object, or one on each line with --seeds
    #[arg(long)]
    json: bool,
    /// Tell of everything that happens on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// Where transmission parameters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transmission {
    /// From the link's profile
    Link,
    /// From RFC 7252, and nothing is paced
    Rfc7252,
}

/// What protects the devices' messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Security {
    /// Nothing
    None,
    /// OSCORE, by keys that each device has; and chaos has an attacker in it
    Oscore,
}

/// How devices write Matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encoding {
    /// As MSC3079 has it: paths in options, CBOR with integer keys
    Msc3079,
    /// In the payload alone, with what both ends know left out; each value that arrives is compared with what was said
    Packed,
}

/// Runs one seed and tells of it, or many and tells of all.
pub(crate) fn run(args: SimArgs) -> Result<(), Failure> {
    let links = links(&args)?;
    if args.verbose {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(io::stderr);
        let log = log.without_time().with_target(false).with_ansi(false).try_init();
        log.map_err(|error| Failure::new(format_args!("cannot log: {error}")))?;
    }
    let Some(seeds) = args.seeds else {
        let mut holds = true;
        for profile in &links {
            let outcome = World::new(args.setup(profile, args.seed)).run();
            holds &= outcome.holds();
            if args.json {
                output::write_json(&outcome)?
            } else {
                output::write(outcome.to_string().as_bytes())?
            }
        }
        let broken = args.must_hold() && !holds;
        return if broken { Err(Failure::new("something does not hold that must")) } else { Ok(()) };
    };
    let mut broken = 0;
    for profile in &links {
        broken += run_many(&args, profile, seeds)?;
    }
    match broken {
        0 => Ok(()),
        _ => Err(Failure::new(format_args!("something does not hold that must, with {broken} seeds"))
            .hint("each was named above with the command that runs it again")),
    }
}

fn run_many(args: &SimArgs, profile: &Profile, seeds: u64) -> Result<u64, Failure> {
    let mut summary = Summary::new(profile, args);
    let mut broken = 0;
    for seed in args.seed..args.seed.saturating_add(seeds) {
        let outcome = World::new(args.setup(profile, seed)).run();
        summary.add(&outcome);
        if args.json {
            output::write_json(&outcome)?;
        }
        if args.must_hold() && !outcome.holds() {
            broken += 1;
            let command = args.command(profile, seed);
            let what = outcome.violations.first().map_or("", |violation| violation.what.as_str());
            let _ = writeln!(io::stderr(), "seed {seed} on {}: {what}\n  {command}", profile.name);
        }
    }
    if !args.json {
        output::write(summary.to_string().as_bytes())?;
    }
    Ok(broken)
}

/// The links of these names; `all` are the built-in ones that hold up anything.
fn links(args: &SimArgs) -> Result<Vec<Profile>, Failure> {
    if args.link == ["all"] {
        return Ok(Profile::all_built_in().into_iter().filter(|profile| !profile.is_unlimited()).collect());
    }
    let links = Links::of_file(args.config.clone())?;
    args.link.iter().map(|name| links.find(name)).collect()
}

impl SimArgs {
    fn setup(&self, profile: &Profile, seed: u64) -> Setup {
        Setup {
            profile: profile.clone(),
            script: self.script,
            transmission: match self.transmission {
                Transmission::Link => sim::Transmission::Link,
                Transmission::Rfc7252 => sim::Transmission::Rfc7252,
            },
            security: match self.security {
                Security::None => sim::Security::None,
                Security::Oscore => sim::Security::Oscore,
            },
            encoding: match self.profile {
                Encoding::Msc3079 => sim::Encoding::Msc3079,
                Encoding::Packed => sim::Encoding::Packed,
            },
            loss: self.loss,
            observers: self.observers,
            seed,
        }
    }

    /// RFC 7252's parameters are run for comparison: that they do not fit the link is known.
    fn must_hold(&self) -> bool {
        self.transmission == Transmission::Link
    }

    /// What runs one seed again.
    fn command(&self, profile: &Profile, seed: u64) -> String {
        let mut command =
            format!("lowband sim --link {} --script {} --seed {seed}", profile.name, self.script);
        if self.security == Security::Oscore {
            command.push_str(" --security oscore");
        }
        if self.profile == Encoding::Packed {
            command.push_str(" --profile packed");
        }
        if let Some(config) = &self.config {
            command.push_str(&format!(" --config {}", config.display()));
        }
        if let Some(loss) = self.loss {
            command.push_str(&format!(" --loss {loss}"));
        }
        if self.script == ScriptName::IdleDay {
            command.push_str(&format!(" --observers {}", self.observers));
        }
        command
    }
}

/// The scripts' names, each with what happens in it.
fn scripts() -> impl TypedValueParser<Value = ScriptName> {
    let values = ScriptName::ALL.map(|script| PossibleValue::new(script.name()).help(script.about()));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<ScriptName>())
}

/// The figures of many runs.
#[derive(Debug)]
struct Summary {
    title: String,
    runs: u64,
    broken: u64,
    /// In the order of [`FIGURES`].
    spreads: Vec<Spread>,
    /// Of all runs together.
    packed: Option<PackedTally>,
}

/// One figure over all runs.
#[derive(Clone, Copy, Debug)]
struct Spread {
    least: f64,
    most: f64,
    sum: f64,
}

/// A figure's name, and what it is of one run.
type Figure = (&'static str, fn(&Outcome) -> f64);

const FIGURES: [Figure; 9] = [
    ("bytes on the air", |outcome| outcome.bytes as f64),
    ("sent again, % of bytes", |outcome| outcome.repeated * 100.0),
    ("seconds", |outcome| outcome.took.as_secs_f64()),
    ("messages answered", |outcome| outcome.tally.answered as f64),
    ("requests failed", |outcome| outcome.tally.failed as f64),
    ("reached again", |outcome| {
        (outcome.tally.repeated_after_break + outcome.tally.repeated_by_device) as f64
    }),
    ("events arrived", |outcome| outcome.tally.events as f64),
    ("events again", |outcome| outcome.tally.events_again as f64),
    ("kills", |outcome| outcome.kills as f64),
];

impl Summary {
    fn new(profile: &Profile, args: &SimArgs) -> Self {
        let spread = Spread { least: f64::INFINITY, most: f64::NEG_INFINITY, sum: 0.0 };
        let title = format!("{} on {}", args.script, profile.name);
        Self { title, runs: 0, broken: 0, spreads: vec![spread; FIGURES.len()], packed: None }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.broken += u64::from(!outcome.holds());
        if let Some(packed) = &outcome.packed {
            self.packed.get_or_insert_default().add(packed);
        }
        for (spread, (_, value)) in self.spreads.iter_mut().zip(FIGURES) {
            let value = value(outcome);
            spread.least = spread.least.min(value);
            spread.most = spread.most.max(value);
            spread.sum += value;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, runs, broken, .. } = self;
        writeln!(f, "{title}: everything held with {} of {runs} seeds", runs - broken)?;
        writeln!(f, "{:26}{:>12}{:>12}{:>12}", "", "mean", "least", "most")?;
        for (spread, (name, _)) in self.spreads.iter().zip(FIGURES) {
            let mean = spread.sum / (*runs).max(1) as f64;
            writeln!(f, "{name:26}{mean:>12.1}{:>12.1}{:>12.1}", spread.least, spread.most)?;
        }
        if let Some(packed) = &self.packed {
            write!(f, "{packed}")?;
        }
        Ok(())
    }
}
