//! `lowband measure` as people run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

/// Two exchanges of one association, and one of nobody's.
const LINES: &str = r#"{"method":"GET","path":"/_matrix/client/versions","req_headers":{},"req":null,"status":200,"resp":{"versions":["v1.11"]}}
{"method":"PUT","path":"/_matrix/client/v3/rooms/%21a%3Ab/send/m.room.message/t1","req_headers":{"authorization":"Bearer TOK"},"req":{"msgtype":"m.text","body":"Hello World"},"status":200,"resp":{"event_id":"$x"}}
{"method":"GET","path":"/_matrix/client/v3/sync?since=s1","req_headers":{"authorization":"Bearer TOK"},"req":null,"status":200,"resp":{"next_batch":"s2"}}
"#;

/// A file that is gone when the test ends.
struct Recorded(PathBuf);

impl Recorded {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("lowband-measure-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn measure(recorded: &Recorded, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lowband")).arg("measure").arg(&recorded.0).args(flags).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_recording_is_told_by_class_and_in_total() {
    let recorded = Recorded::new("told.jsonl", LINES.as_bytes());
    let text = stdout(&measure(&recorded, &[]));
    let first = text.lines().next().unwrap();
    assert_eq!(first, "3 exchanges of 2 associations: profile msc3079, security none, link hf-100");
    let rows: Vec<Vec<_>> = text.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<_> = rows.iter().map(|row| row.first().copied().unwrap()).collect();
    assert_eq!(names, ["exchanges", "send", "sync-idle", "other", "steady", "all"]);
    // 41 of the message and 17 of its answer.
    assert_eq!(rows.get(1).unwrap().get(1..3).unwrap(), ["1", "58"]);
}

#[test]
fn compressed_or_not_and_from_standard_input_it_is_the_same() {
    let plain = Recorded::new("same.jsonl", LINES.as_bytes());
    let expected = stdout(&measure(&plain, &["--json"]));
    // Some programs append to what is compressed already.
    let (first, rest) = LINES.split_once('\n').unwrap();
    let halves = [gzip(&format!("{first}\n")), gzip(rest)].concat();
    for bytes in [gzip(LINES), halves] {
        assert_eq!(stdout(&measure(&Recorded::new("same.jsonl.gz", &bytes), &["--json"])), expected);
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .args(["measure", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&gzip(LINES)).unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), expected);
}

#[test]
fn json_is_one_object_of_figures() {
    let recorded = Recorded::new("json.jsonl", LINES.as_bytes());
    let json: Value = serde_json::from_str(&stdout(&measure(&recorded, &["--json"]))).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), ["steady", "all", "classes"]);
    let figures =
        ["exchanges", "json", "payload", "coap", "secured", "wire", "datagrams", "airtime_s", "mismatches"];
    let of = |name: &str| json["classes"][name].clone();
    for value in [&json["steady"], &json["all"], &of("send"), &of("sync-init")] {
        assert_eq!(keys(value), figures);
    }
    assert_eq!((json["steady"]["exchanges"].as_u64(), json["all"]["exchanges"].as_u64()), (Some(2), Some(3)));
    assert_eq!(of("sync-init")["exchanges"], 0);
    assert_eq!(json["all"]["wire"], json["all"]["secured"].as_u64().unwrap() + 6 * 28);
}

#[test]
fn security_and_the_link_have_their_say() {
    let recorded = Recorded::new("security.jsonl", LINES.as_bytes());
    let all = |flags: &[&str]| {
        let json: Value = serde_json::from_str(&stdout(&measure(&recorded, flags))).unwrap();
        ["coap", "secured", "datagrams"].map(|name| json["all"][name].as_u64().unwrap())
    };
    let [coap, secured, datagrams] = all(&["--json"]);
    assert_eq!((secured, datagrams), (coap, 6));
    assert_eq!(all(&["--json", "--security", "dtls"]), [coap, coap + 6 * 29, 6]);
    let [same, protected, datagrams] = all(&["--json", "--security", "oscore"]);
    assert!(same == coap && datagrams == 6 && (coap + 60..coap + 90).contains(&protected), "{protected}");
    assert!(stdout(&measure(&recorded, &["--security", "dtls"])).contains("its handshakes are not counted"));
    let on_lan = stdout(&measure(&recorded, &["--link", "lan"]));
    assert!(on_lan.contains("link lan"), "{on_lan}");
}

#[test]
fn what_does_not_arrive_is_named_without_its_query_and_fails() {
    let foreign = r#"{"method":"GET","path":"/_matrix/foo?access_token=SECRET","status":404,"resp":{}}"#;
    let recorded = Recorded::new("foreign.jsonl", format!("{LINES}{foreign}\n").as_bytes());
    let output = measure(&recorded, &["--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("foreign.jsonl:4: GET /_matrix/foo: the request cannot be sent: path"),
        "{stderr}"
    );
    assert!(stderr.contains("error: 1 of 4 exchanges do not arrive as they were recorded"), "{stderr}");
    assert!(!stderr.contains("SECRET"), "{stderr}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["all"]["mismatches"], 1);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_line() {
    let cut = gzip(LINES);
    let cut = cut.get(..cut.len() - 20).unwrap();
    for (name, bytes, told) in [
        (
            "bad.jsonl",
            format!("{LINES}\n{{}}\n").as_bytes(),
            "bad.jsonl:5: not an exchange: missing field `method`",
        ),
        ("cut.jsonl.gz", cut, "cut.jsonl.gz:"),
        ("empty.jsonl", b"\n", "there are no exchanges in "),
    ] {
        let output = measure(&Recorded::new(name, bytes), &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(told), "{stderr}");
    }
    let missing = Recorded(PathBuf::from("/nowhere/traffic.jsonl"));
    let stderr = String::from_utf8(measure(&missing, &[]).stderr).unwrap();
    assert!(stderr.starts_with("error: cannot read /nowhere/traffic.jsonl: No such file"), "{stderr}");
    let directory = Recorded(std::env::temp_dir());
    let stderr = String::from_utf8(measure(&directory, &[]).stderr).unwrap();
    assert!(stderr.starts_with("error: cannot read "), "{stderr}");
}

#[test]
fn what_makes_no_sense_is_said() {
    let recorded = Recorded::new("sense.jsonl", LINES.as_bytes());
    for (flags, told) in [
        (["--link", "string"], "there is no link \"string\""),
        (["--security", "hope"], "possible values: none, oscore, dtls"),
        (["--profile", "morse"], "invalid value 'morse'"),
    ] {
        let output = measure(&recorded, &flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
}
