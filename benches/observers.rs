//! What observers cost a gateway while next to nothing happens: 2,000 of them for a day, in virtual time.
//! `cargo bench --bench observers`, or with another number and link: `cargo bench --bench observers -- 500 hf-100`. Prints how long
//! the day takes here, the long polls at the homeserver, and what the gateway holds for each observer at the day's end; fails when
//! that is more than 8 KiB, when somebody is polled for twice at a time or too often, or when an observer was lost.
//!
//! Each observer registers within the first hour and hears of one message later; every hour something happens at the homeserver
//! that concerns nobody. What the gateway holds is what it gives back to the allocator when it is dropped: peers, sessions,
//! observations, feeds and their queues, and nothing of the sockets and connections, which there are none of.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(unreachable_pub, dead_code, reason = "the meter is a test's, and serves others too")]

#[path = "../tests/support/allocations.rs"]
mod allocations;

use std::process::ExitCode;

use allocations::Metered;
use lowband::link::Profile;
use lowband::net::Clock;
use lowband::sim::Encoding;
use lowband::sim::ScriptName;
use lowband::sim::Security;
use lowband::sim::Setup;
use lowband::sim::Transmission;
use lowband::sim::World;

const OBSERVERS: usize = 2_000;
const LINK: &str = "geo-600ms";

/// The most that the gateway may hold for each observer, in bytes.
const MOST_HELD: i64 = 8 << 10;

/// The most polls for one observer: one after the other, each of which waits for 30 s unless there is something; and one for the
/// registration, one after the message and one after each of 24 things that concern nobody.
const MOST_POLLS: u64 = 24 * 120 + 26;

#[global_allocator]
static ALLOCATOR: Metered = Metered;

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let observers = arguments.next().map_or(OBSERVERS, |number| number.parse().unwrap());
    let link = arguments.next().unwrap_or(LINK.to_owned());
    let clock = Clock::start();
    let mut world = World::new(Setup {
        profile: Profile::built_in(&link).unwrap(),
        script: ScriptName::IdleDay,
        transmission: Transmission::Link,
        security: Security::None,
        encoding: Encoding::Msc3079,
        loss: None,
        observers,
        seed: 1,
    });
    world.run_script();
    let seconds = clock.elapsed().as_secs_f64();

    let (polls, (at_a_time, of_one)) = (world.homeserver().syncs(), world.homeserver().most_polls());
    let gateway = world.take_gateway().unwrap();
    let counters = gateway.counters();
    let held = -allocations::measure(|| drop(gateway)).kept / observers as i64;
    println!("gateway: {observers} observers at once, for a day on {link}");
    println!("  {seconds:>10.1} s for the run");
    println!("  {polls:>10} polls of the homeserver, at most {at_a_time} at a time, {of_one} of one user");
    println!("  {held:>10} bytes held for each observer at the day's end, of at most {MOST_HELD}");
    println!(
        "  {:>10} observations at the day's end, {} sessions, {} feeds; {} notifications",
        counters.observations, counters.sessions, counters.feeds, counters.notifications
    );
    let failed = [
        (counters.observations != observers, "not everybody observes any more"),
        (held > MOST_HELD, "too much is held for each observer"),
        (polls > MOST_POLLS * observers as u64, "the homeserver is polled too often"),
        (of_one > 1, "the homeserver is polled for one observer several times at once"),
    ];
    let failed: Vec<_> = failed.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| *what).collect();
    failed.iter().for_each(|what| eprintln!("FAILED: {what}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
