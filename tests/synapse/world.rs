//! A real Synapse and a `lowband gateway` before it, both ended when the test is.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Two processes with a directory of their own.
pub struct World {
    synapse: Child,
    gateway: Child,
    directory: PathBuf,
    homeserver: String,
    coap: SocketAddr,
}

/// What [`World::start`] waits for the gateway, in steps of 10 ms.
const STEPS: u32 = 1_000;

impl World {
    /// Starts both and waits until both listen.
    pub fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lowband-synapse-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();

        let mut synapse = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/synapse"))
            .args(["run", "--strict", "login"])
            .arg(directory.join("synapse"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python 3 is installed");
        let mut homeserver = String::new();
        BufReader::new(synapse.stdout.take().unwrap()).read_line(&mut homeserver).unwrap();
        let homeserver = homeserver.trim().to_owned();
        assert!(homeserver.starts_with("http://"), "Synapse did not start; run scripts/install-parts once");

        let log = directory.join("gateway.log");
        let gateway = Command::new(env!("CARGO_BIN_EXE_lowband"))
            .args(["gateway", "--insecure-coap", "--listen", "127.0.0.1:0", "--homeserver", &homeserver])
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let coap = listening_on(&log);
        Self { synapse, gateway, directory, homeserver, coap }
    }

    /// The homeserver's URL, without a slash at its end.
    pub fn homeserver(&self) -> &str {
        &self.homeserver
    }

    /// The gateway's address.
    pub fn coap(&self) -> SocketAddr {
        self.coap
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        drop(self.synapse.stdin.take());
        let _ = self.synapse.wait();
        match thread::panicking() {
            true => eprintln!("the logs are in {}", self.directory.display()),
            false => drop(fs::remove_dir_all(&self.directory)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a process outside is waited for")]
fn listening_on(log: &Path) -> SocketAddr {
    for _ in 0..STEPS {
        let text = fs::read_to_string(log).unwrap();
        let complete = text.lines().filter(|_| text.ends_with('\n'));
        for line in complete {
            if let Some(address) = line.strip_prefix("listening on coap://") {
                return address.parse().unwrap();
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the gateway does not listen: {}", fs::read_to_string(log).unwrap());
}
