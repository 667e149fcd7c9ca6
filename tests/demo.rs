//! `lowband demo`, run as anybody would run it.

#![expect(clippy::unwrap_used, reason = "a test ends where its expectation does")]

use std::process::Command;
use std::process::Output;

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lowband")).arg("demo").args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "exit {:?}: {errors}", output.status.code());
    assert_eq!(errors, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn conversation_is_shown_with_its_bytes_and_ends_in_the_table() {
    let text = stdout(&demo(&[]));
    for expected in [
        "a minimal in-memory homeserver at http://127.0.0.1:",
        "alice registers",
        "CON POST /4, body ",
        "CON GET /7, observe",
        "bob is in 3 rooms",
        "bob reads <@alice:localhost> Hello World",
        "alice reads <@bob:localhost> Hello Alice",
        "HTTPS, keep-alive *",
        "measured beforehand against a real Synapse over TLS 1.3, not in this run",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
    let row = text.lines().find(|line| line.starts_with("send ")).unwrap();
    let fields: Vec<&str> = row.split_whitespace().collect();
    let bytes: usize = fields[1].parse().unwrap();
    assert!((100..400).contains(&bytes), "{row}");
    assert_eq!(fields[5..7], ["1246", "B"], "{row}");
}

#[test]
fn json_has_every_datagram_and_its_sums_agree() {
    let report: Value = serde_json::from_str(&stdout(&demo(&["--json"]))).unwrap();
    assert_eq!(report["minimal_homeserver"], true);
    assert_eq!(report["header_bytes_per_datagram"], 28);
    let steps = report["steps"].as_array().unwrap();
    let (mut bytes, mut count) = (0, 0);
    for step in steps {
        let datagrams = step["datagrams"].as_array().unwrap();
        let sum: u64 = datagrams.iter().map(|datagram| datagram["bytes"].as_u64().unwrap()).sum();
        assert_eq!(step["bytes"], sum, "{}", step["title"]);
        bytes += sum;
        count += datagrams.len();
    }
    assert_eq!(report["bytes"], bytes);
    assert_eq!(report["datagrams"], count);
    // Four bytes are the shortest message.
    let all = steps.iter().flat_map(|step| step["datagrams"].as_array().unwrap());
    assert!(all.clone().all(|datagram| datagram["bytes"].as_u64().unwrap() >= 32));
    assert!(all.clone().all(|datagram| datagram["message"] != "no CoAP message"));
    assert!(report["elapsed_ms"].as_u64().unwrap() < 20_000);

    let table = report["table"].as_array().unwrap();
    let calls: Vec<&str> = table.iter().map(|row| row["call"].as_str().unwrap()).collect();
    assert_eq!(calls, ["login", "initial sync", "send", "sync", "idle"]);
    for row in table {
        let lowband = row["lowband_bytes"].as_u64().unwrap();
        assert!(lowband < row["https_keep_alive_bytes"].as_u64().unwrap(), "{row}");
        assert_eq!(row["lowband_seconds"].as_f64().unwrap(), lowband as f64 * 8.0 / 100.0);
    }
    let idle =
        steps.iter().find(|step| step["title"].as_str().unwrap().starts_with("nothing happens")).unwrap();
    assert_eq!(idle["bytes"], 0);
}

#[test]
fn homeserver_that_is_not_there_is_an_error_with_a_hint() {
    // Port 9 of the loopback interface is "discard", which nobody runs.
    let output = demo(&["--homeserver", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.starts_with("error: alice: POST /_matrix/client/v3/register: 502 Bad Gateway"),
        "{errors}"
    );
    assert!(errors.contains("\nhint: "), "{errors}");

    let output = demo(&["--homeserver", "example.org"]);
    assert_eq!(output.status.code(), Some(2));
}
