//! What a gateway takes under load: ten peers at once, a thousand requests each, through it to the minimal homeserver.
//! `cargo bench --bench gateway`. Prints requests per second, processor time per request, and memory before and after; fails on
//! any error, and when the memory is not back at its start.
//!
//! Three processes, so that the figures are the gateway's alone: this one, and two of the same program that it starts as the
//! peers and as the homeserver. The gateway forgets peers after seconds here, not after the four minutes of RFC 7252, so that
//! the end can be waited for; nothing else differs from its defaults. Processor time and resident memory are read from
//! `/proc` (Linux).

#![expect(unsafe_code, reason = "the trait of a global allocator is unsafe to implement")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]

#[path = "../tests/load/peers.rs"]
mod peers;
#[path = "../tests/load/script.rs"]
mod script;

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lowband::coap::Parameters;
use lowband::gateway;
use lowband::homeserver;
use lowband::net;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const PEERS: usize = 10;
const CALLS: usize = 1_000;
const WARM_UP: usize = 100;

/// How long peers and idle connections are remembered after the last of them.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// How much more may be allocated after the load than before it: what the runtime and the allocator's users keep for later.
const SLACK: i64 = 64 << 10;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static HELD: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, counting what is handed out and not yet given back.
struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as of this function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as of this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [role] if role == "homeserver" => serve(),
        [role, gateway, group] if role == "peers" => load(gateway.parse().unwrap(), group),
        _ => measure(),
    }
}

/// The homeserver's process: says its URL, and ends with its input.
fn serve() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    runtime().block_on(async {
        let server = homeserver::Server::bind(any, homeserver::Config::default()).await.unwrap();
        println!("{}", server.url());
        tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count()).await.unwrap();
        server.shutdown().await;
    });
}

/// The peers' process: makes as many calls as each line of its input says, and answers with the seconds that took and the
/// number of errors, which it shows.
fn load(gateway: SocketAddr, group: &str) {
    let runtime = runtime();
    let mut peers = runtime.block_on(peers::Peers::connect(gateway, group, PEERS));
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let calls: usize = line.unwrap().parse().unwrap();
        let clock = net::Clock::start();
        let errors = runtime.block_on(peers.run(calls));
        let seconds = clock.elapsed().as_secs_f64();
        errors.iter().take(10).for_each(|error| eprintln!("{error}"));
        println!("{seconds} {}", errors.len());
    }
}

fn measure() {
    let mut homeserver = Process::start(&["homeserver"]);
    let url: http::Uri = homeserver.read().parse().unwrap();
    let runtime = runtime();
    let (gateway, stop) = {
        let _inside = runtime.enter();
        (net::gateway::Server::bind(config(&url)).unwrap(), oneshot::channel::<()>())
    };
    let address = gateway.addresses()[0];
    let (stop, stopped) = stop;
    let gateway = runtime.spawn(gateway.run(async { drop(stopped.await) }));

    // The first round fills what is kept for good; the second has to leave nothing.
    round(address, "first", WARM_UP);
    let before = Memory::now();
    let (load, peak) = round(address, "second", CALLS);
    let after = Memory::now();
    drop(stop);
    let counters = runtime.block_on(gateway).unwrap().gateway;
    homeserver.end();

    let requests = (PEERS * CALLS) as f64;
    println!("gateway: {PEERS} peers at once, {CALLS} requests each, {} errors", load.errors);
    let rate = requests / load.seconds;
    println!("  {rate:>10.0} requests per second");
    println!(
        "  {:>10.1} µs of processor time per request, in the gateway's process",
        load.processor_us / requests
    );
    println!("  memory      allocated     resident");
    for (when, memory) in [("before", before), ("loaded", peak), ("after", after)] {
        println!("  {when:<8} {:>9} KiB {:>8} KiB", memory.allocated >> 10, memory.resident >> 10);
    }
    println!(
        "  after {} s without peers: {} peers, {} sessions and {} calls held",
        FORGOTTEN.as_secs(),
        counters.peers,
        counters.sessions,
        counters.fetching,
    );
    assert_eq!(load.errors, 0);
    assert!(rate >= 1.0, "{rate} requests per second");
    assert_eq!((counters.refusals, counters.fetch_failures, counters.bad_answers), (0, 0, 0));
    assert_eq!((counters.peers, counters.sessions, counters.fetching), (0, 0, 0));
    let grown = after.allocated - before.allocated;
    assert!(grown <= SLACK, "{grown} bytes more are allocated than before the load");
}

/// Lets peers come, make their calls and go; returns what the calls took, and the memory at their end. Afterwards all that is
/// remembered of them has expired.
#[expect(clippy::disallowed_methods, reason = "a bench waits for what it measures")]
fn round(gateway: SocketAddr, group: &str, calls: usize) -> (Load, Memory) {
    let mut peers = Process::start(&["peers", &gateway.to_string(), group]);
    assert_eq!(peers.read(), "ready");
    let processor = processor_us();
    peers.write(&calls.to_string());
    let answer = peers.read();
    let processor_us = processor_us() - processor;
    let loaded = Memory::now();
    peers.end();
    let (seconds, errors) = answer.split_once(' ').unwrap();
    std::thread::sleep(FORGOTTEN + Duration::from_secs(1));
    (Load { seconds: seconds.parse().unwrap(), errors: errors.parse().unwrap(), processor_us }, loaded)
}

struct Load {
    seconds: f64,
    errors: usize,
    processor_us: f64,
}

fn config(homeserver: &http::Uri) -> net::gateway::Config {
    let mut machine = gateway::Config::new(homeserver.clone());
    machine.session_lifetime = FORGOTTEN;
    machine.endpoint.transfers.lifetime = FORGOTTEN;
    // RFC 7252 §4.8.2: an EXCHANGE_LIFETIME of 0.1 s × 15 × 1.5 + 2 × 1 s + 0.1 s.
    machine.endpoint.parameters = Parameters {
        ack_timeout: Duration::from_millis(100),
        max_latency: Duration::from_secs(1),
        ..Parameters::default()
    };
    assert!(machine.endpoint.parameters.exchange_lifetime() < FORGOTTEN);
    let mut upstream = net::upstream::Config::new(homeserver.clone());
    upstream.idle_timeout = Duration::from_secs(2);
    net::gateway::Config {
        listen: vec!["127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()],
        gateway: machine,
        state: None,
        devices: None,
        dtls: lowband::net::dtls::Config::default(),
        upstream,
        grace: Duration::from_secs(5),
        report: Duration::from_secs(3_600),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Memory of this process, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    allocated: i64,
    resident: i64,
}

impl Memory {
    fn now() -> Memory {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: i64 =
            resident.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
        Memory { allocated: HELD.load(Ordering::Relaxed), resident: kilobytes << 10 }
    }
}

/// Microseconds that the threads of this process have run.
fn processor_us() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1_000.0
}

/// Another process of this program, spoken to in lines.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { input: child.stdin.take(), child, output }
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn write(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Closes its input, upon which it ends.
    fn end(&mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also when something has failed: its input is at an end, and so is it.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
