//! `lowband link run` as people run it.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::BufRead;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

/// A process that ends with the test whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn run(flags: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_lowband")).args(["link", "run"]).args(flags).output().unwrap()
}

/// What comes next. A wait with a limit is given up for any signal (signal(7)).
fn received(socket: &UdpSocket, buffer: &mut [u8]) -> (usize, SocketAddr) {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.unwrap(),
        }
    }
}

#[test]
fn a_datagram_passes_and_is_accounted_for_in_the_links_own_time() {
    let server = socket();
    let to = server.local_addr().unwrap().to_string();
    let flags =
        ["--profile", "hf-100", "--speed", "100", "--loss", "0", "--listen", "127.0.0.1:0", "--to", &to];
    let child = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .args(["link", "run", "--json", "-v", "--clients", "1"])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut running = Running(child.unwrap());
    let mut stderr = BufReader::new(running.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address = line.strip_prefix("relaying ").unwrap().split(' ').next().unwrap().to_owned();

    let client = socket();
    client.send_to(&[7; 72], &address).unwrap();
    let mut buffer = [0; 100];
    let (length, from) = received(&server, &mut buffer);
    assert_eq!(buffer[..length], [7; 72]);
    server.send_to(b"answer", from).unwrap();
    assert_eq!(received(&client, &mut buffer).0, 6);
    // The only place is taken over.
    socket().send_to(b"other", address).unwrap();
    assert_eq!(received(&server, &mut buffer).0, 5);

    let status = Command::new("kill").args(["-s", "TERM", &running.0.id().to_string()]).status();
    assert!(status.unwrap().success());
    let mut report = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    assert!(running.0.wait().unwrap().success());
    let report: Value = serde_json::from_str(&report).unwrap();
    // 72 and 5 bytes, each with 28 of headers.
    assert_eq!(report["up"]["air_bytes"], 133, "{report}");
    assert_eq!(report["up"]["airtime_ms"], 10_640, "{report}");
    assert_eq!(report["down"]["delivered"], 1, "{report}");
    assert_eq!(report["clients"], 2, "{report}");
    assert_eq!(report["forgotten"], 1, "{report}");
    let mut told = String::new();
    stderr.read_to_string(&mut told).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(lines[0].contains(" up      72 B 127.0.0.1:") && lines[0].contains("arrives"), "{told}");
}

#[test]
fn addresses_that_are_none_and_in_use_are_told_with_what_to_do() {
    let none = run(&["--profile", "lan", "--listen", "127.0.0.1:0", "--to", "127.0.0.1"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&none.stderr).contains("an address is like 127.0.0.1:5683 or [::1]:5683")
    );
    let taken = socket();
    let listen = taken.local_addr().unwrap().to_string();
    let taken = run(&["--profile", "lan", "--listen", &listen, "--to", "127.0.0.1:5683"]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("hint: another lowband may be running on it"));
}

#[test]
fn what_makes_no_sense_is_said() {
    let ends = ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:5683"];
    for (flags, told) in [
        (["--profile", "string"], "there is no link \"string\""),
        (["--profile=lan", "--loss=2"], "give a share from 0 to 0.99: 0.05 or 5%"),
        (["--profile=lan", "--outage=5-1"], "give FROM-UNTIL"),
        (["--profile=lan", "--speed=0"], "0 is not in 1..=1000"),
    ] {
        let output = run(&[flags.as_slice(), ends.as_slice()].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
}
