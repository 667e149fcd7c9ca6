//! The binary as people meet it: what goes in, what comes out, on which stream, with which exit code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

/// MSC3079 "JSON -> CBOR": its example, in both forms.
const MSC_JSON: &str = r#"{"type":"m.room.message","content":{"msgtype":"m.text","body":"Hello World"},"sender":"@alice:localhost",
    "room_id":"!foo:localhost","unsigned":{"bool_value":true,"null_value":null}}"#;
const MSC_CBOR: &str = "a5026e6d2e726f6f6d2e6d65737361676503a2181b6b48656c6c6f20576f726c64181c666d2e74657874056e21666f\
    6f3a6c6f63616c686f7374067040616c6963653a6c6f63616c686f737409a26a626f6f6c5f76616c7565f56a6e756c6c5f76616c7565f6";

/// Sent by the MSC3079 Go client for GET /sync?since=s1&timeout=30000 with the token TOK.
const GO_SYNC: &str = "41010000 01 b137 112a 3873696e63653d7331 0d0074696d656f75743d3330303030 d3e4544f4b";

/// A login by password, in CBOR with integer keys.
const LOGIN: &str = "41020001 aa b131 113c ff a2 02 70 6d2e6c6f67696e2e70617373776f7264 1845 66 733363726574";

#[test]
fn encode_writes_the_cbor_of_the_msc() {
    let run = lowband(&["encode", "--hex"], MSC_JSON);
    assert_eq!((run.code, run.stdout.trim_end(), run.stderr.as_str()), (0, MSC_CBOR, ""));
    let bytes = lowband(&["encode"], MSC_JSON).bytes;
    assert_eq!(hex(&bytes), MSC_CBOR);
}

#[test]
fn encode_leaves_keys_as_they_are_on_demand() {
    let run = lowband(&["encode", "--hex", "--keys", "strings"], r#"{"type":"x"}"#);
    assert_eq!((run.code, run.stdout.trim_end()), (0, "a164747970656178"));
}

#[test]
fn encode_says_where_the_json_is_wrong() {
    let run = lowband(&["encode"], "{\"a\":\n  1,}");
    assert_eq!((run.code, run.bytes.len()), (1, 0));
    assert!(
        run.stderr.starts_with("error: cannot encode standard input: not JSON at byte 10"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.ends_with("hint: look at line 2, column 5: \"}\"\n"), "{}", run.stderr);
    let run = lowband(&["encode"], "\n");
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("hint: give JSON on standard input"), "{}", run.stderr);
    assert_eq!(lowband(&["encode", "--keys", "v9"], "{}").code, 2);
}

#[test]
fn decode_reads_bytes_and_hexadecimal() {
    let from_hex = lowband(&["decode"], MSC_CBOR);
    assert_eq!((from_hex.code, from_hex.stderr.as_str()), (0, ""));
    let expected: Value = serde_json::from_str(MSC_JSON).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&from_hex.stdout).unwrap(), expected);
    assert_eq!(lowband(&["decode"], bytes(MSC_CBOR)).stdout, from_hex.stdout);
    assert_eq!(lowband(&["decode", "--input", "hex"], MSC_CBOR).stdout, from_hex.stdout);
    // Two letters are CBOR too: the text "a".
    assert_eq!(lowband(&["decode", "--input", "cbor"], "aa").stdout, "\"a\"\n");
}

#[test]
fn decode_shows_diagnostic_notation() {
    let run = lowband(&["decode", "--diagnostic"], "a2 02 6178 1819 9f f5 ff");
    assert_eq!((run.code, run.stdout.as_str()), (0, "{2: \"x\", 25: [_ true]}\n"));
}

#[test]
fn decode_says_where_the_cbor_is_wrong() {
    let cut = lowband(&["decode"], "a1 02 63 61");
    assert_eq!((cut.code, cut.stdout.as_str()), (1, ""));
    assert_eq!(cut.stderr, "error: cannot decode 4 bytes of CBOR: cut short at byte 4\n");
    let unknown = lowband(&["decode"], "a1 1a 0000270f 01");
    assert!(unknown.stderr.contains("integer key 9999 at byte 1"), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("hint: --diagnostic"), "{}", unknown.stderr);
    assert!(lowband(&["decode"], "{\"a\":1}").stderr.contains("hint: this looks like JSON"));
    assert!(lowband(&["decode"], "").stderr.starts_with("error: standard input is empty\nhint: "));
    let odd = lowband(&["decode"], "a1 0");
    assert_eq!((odd.code, odd.stderr.starts_with("error: an odd number of hexadecimal digits")), (1, true));
}

#[test]
fn what_is_encoded_is_decoded_to_the_same_values() {
    let json =
        r#"{"a":[0,-1,18446744073709551615,-9223372036854775808,0.1,1.0,"é\u0000",null],"type":{"8":8}}"#;
    let cbor = lowband(&["encode"], json).bytes;
    let back = lowband(&["decode"], cbor).stdout;
    assert_eq!(serde_json::from_str::<Value>(&back).unwrap(), serde_json::from_str::<Value>(json).unwrap());
}

#[test]
fn inspect_explains_what_a_client_sends() {
    let run = lowband(&["inspect", GO_SYNC], "");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    for line in [
        "     0  41    01......  version 1",
        "              ..00....  CON confirmable",
        "     2  0000            message ID 0x0000",
        "     5  b1          Uri-Path 11        critical  \"7\"",
        "     7  11          Content-Format 12  elective  42 application/octet-stream",
        "    18  0d00        Uri-Query 15       critical  \"timeout=30000\"",
        "        GET /_matrix/client/v3/sync?since=s1&timeout=30000",
        "        header 4 + token 1 + options 33 + payload 0 = 38 bytes, 3.0 s at 100 bit/s",
        "        with IPv4 and UDP 28 more: 66 bytes, 5.3 s",
    ] {
        assert!(run.stdout.lines().any(|other| other == line), "{line}\n{}", run.stdout);
    }
}

#[test]
fn inspect_takes_hexadecimal_in_every_form_and_from_standard_input() {
    let expected = lowband(&["inspect", GO_SYNC], "").stdout;
    let compact = hex(&bytes(GO_SYNC));
    let colons: Vec<_> = bytes(GO_SYNC).iter().map(|byte| format!("{byte:02X}")).collect();
    let prefixed: Vec<_> = bytes(GO_SYNC).iter().map(|byte| format!("0x{byte:02x}")).collect();
    assert_eq!(lowband(&["inspect", &compact], "").stdout, expected);
    assert_eq!(lowband(&["inspect", &colons.join(":")], "").stdout, expected);
    assert_eq!(lowband(&["inspect", &prefixed.join(" ")], "").stdout, expected);
    assert_eq!(lowband(&["inspect", "-"], format!("{}\n", GO_SYNC.replace(' ', "\n"))).stdout, expected);
    assert_eq!(lowband(&["inspect", "-"], bytes(GO_SYNC)).stdout, expected);
    let words: Vec<_> = std::iter::once("inspect").chain(GO_SYNC.split(' ')).collect();
    assert_eq!(lowband(&words, "").stdout, expected);
}

#[test]
fn inspect_shows_a_body_in_diagnostic_notation_and_as_matrix_json() {
    let body = "61 45 1234 aa c1 3c ff a2 1866 6d 4d5f554e4b4e4f574e20202020 1867 66 736f6d65203f";
    let run = lowband(&["inspect", body], "");
    assert!(run.stdout.contains("CBOR with integer keys, labelled application/cbor"), "{}", run.stdout);
    assert!(run.stdout.contains(r#"{102: "M_UNKNOWN    ", 103: "some ?"}"#), "{}", run.stdout);
    assert!(run.stdout.contains(r#""errcode": "M_UNKNOWN    ","#), "{}", run.stdout);
    let json: Value = serde_json::from_str(&lowband(&["inspect", "--json", body], "").stdout).unwrap();
    assert_eq!(json["payload"]["json"], json!({"errcode": "M_UNKNOWN    ", "error": "some ?"}));
    assert_eq!(json["header"]["code"], "2.05");
    assert_eq!(json["fault"], Value::Null);
}

#[test]
fn inspect_hides_secrets_unless_they_are_asked_for() {
    for (datagram, secret) in [(GO_SYNC, "TOK"), (GO_SYNC, "544f4b"), (LOGIN, "s3cret")] {
        for format in [&["inspect", datagram][..], &["inspect", "--json", datagram]] {
            let hidden = lowband(format, "").stdout;
            assert!(!hidden.contains(secret) && hidden.contains("hidden)"), "{hidden}");
        }
    }
    assert!(lowband(&["inspect", "--show-secrets", GO_SYNC], "").stdout.contains("\"TOK\""));
    assert!(lowband(&["inspect", "--show-secrets", LOGIN], "").stdout.contains("69: \"s3cret\""));
}

#[test]
fn inspect_explains_a_malformed_datagram_up_to_where_it_breaks() {
    let run = lowband(&["inspect", "40 01 1234 b1 37 45 73"], "");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.contains("Uri-Path 11  critical  \"7\""), "{}", run.stdout);
    let broken = "broken at byte 7\n        the value of option 15 has 5 bytes, 1 left\n        its receiver resets it";
    assert!(run.stdout.contains(broken), "{}", run.stdout);
    let json: Value = serde_json::from_str(&lowband(&["inspect", "--json", "80011234"], "").stdout).unwrap();
    let fault = json!({"at": 0, "reason": "version 2: only version 1 can be read", "reset": false});
    assert_eq!(json["fault"], fault);
}

#[test]
fn inspect_explains_every_prefix_of_a_datagram() {
    let whole = bytes(LOGIN);
    for end in 1..=whole.len() {
        assert_eq!(lowband(&["inspect", &hex(&whole[..end])], "").code, 0, "first {end} bytes");
    }
}

#[test]
fn inspect_does_not_let_a_peer_write_to_the_terminal() {
    // A Uri-Path of ESC ]0; and U+009B, and a body of the same.
    let run = lowband(&["inspect", "40 02 0001 b7 1b5d303b78c29b c1 3c ff a1 61 63 66 1b5d300ac29b"], "");
    assert_eq!(run.code, 0);
    assert!(!run.stdout.contains(['\u{1b}', '\u{9b}']), "{:?}", run.stdout);
}

#[test]
fn inspect_says_what_is_no_hexadecimal() {
    let run = lowband(&["inspect", "41 0g"], "");
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(
        run.stderr.starts_with("error: 'g' at character 4 is no hexadecimal digit\nhint: "),
        "{}",
        run.stderr
    );
    assert_eq!(lowband(&["inspect"], "").code, 2);
    assert!(lowband(&["inspect", "-"], "").stderr.starts_with("error: there is no datagram\nhint: "));
}

#[test]
fn routes_lists_the_table() {
    let table = lowband(&["routes"], "");
    let rows: Value = serde_json::from_str(&lowband(&["routes", "--json"], "").stdout).unwrap();
    assert_eq!(table.stdout.lines().count(), rows.as_array().unwrap().len() + 1);
    let sync = table.stdout.lines().find(|line| line.ends_with("  sync")).unwrap();
    assert_eq!(sync.split_whitespace().collect::<Vec<_>>(), ["7", "GET", "/_matrix/client/v3/sync", "sync"]);
    let put = lowband(&["routes", "put"], "").stdout;
    assert!(put.lines().skip(1).all(|line| line.split_whitespace().nth(1) == Some("PUT")));
    assert!(put.lines().count() > 10);
}

#[test]
fn routes_shows_a_path_in_both_directions() {
    let full = ["routes", "GET", "/_matrix/client/r0/sync?since=s1&timeout=30000"];
    let short = ["routes", "GET", "/7?since=s1&timeout=30000"];
    assert_eq!(lowband(&full, "").stdout, lowband(&short, "").stdout);
    let run = lowband(&["routes", "--json", "PUT", "/9/!a%2Fb:hs/m.room.message/t1"], "");
    let mapping: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(mapping["uri_path"], json!(["9", "!a/b:hs", "m.room.message", "t1"]));
    assert_eq!(mapping["upstream"], "/_matrix/client/v3/rooms/!a%2Fb:hs/send/m.room.message/t1");
    // 2 for the code, 8 for the room, 16 for the type with its longer length, 3 for the transaction.
    assert_eq!(mapping["bytes"], 29);
    assert_eq!(mapping["routes"][0]["operation"], "sendMessage");
    let any = lowband(&["routes", "/_matrix/client/v3/unheard/of"], "").stdout;
    assert!(any.contains("no shorter form") && any.contains("not in the table"), "{any}");
}

#[test]
fn routes_says_what_is_wrong_with_a_path() {
    for (arguments, code, error) in [
        (&["routes", "/media/x"][..], 1, "error: path /media/x is outside the client-server API\nhint: "),
        (&["routes", "/?"], 1, "error: "),
        (&["routes", "/~/x"], 1, "error: path code '~' is unknown\nhint: "),
        (
            &["routes", "/_matrix/client/v3/a b"],
            1,
            "error: byte 20 of the path must be percent-encoded\nhint: ",
        ),
        (&["routes", "GET", "/_matrix/client/../x"], 1, "error: segment 2 of the path is a dot segment"),
        (
            &["routes", "FETCH"],
            2,
            "error: \"FETCH\" is neither a method of the Matrix API nor a path\nhint: methods",
        ),
        (&["routes", "--wrong"], 2, "error: "),
    ] {
        let run = lowband(arguments, "");
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{arguments:?}");
        assert!(run.stderr.starts_with(error), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn help_shows_an_example_of_every_subcommand() {
    let help = lowband(&["--help"], "");
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    let commands = help.stdout.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let commands: Vec<_> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() >= 4, "{commands:?}");
    for command in commands {
        let help = lowband(&[command, "--help"], "");
        assert_eq!(help.code, 0, "{command}");
        assert!(help.stdout.contains(&format!("lowband {command}")), "{command}");
        assert!(help.stdout.contains("Example"), "{command}");
    }
    assert_eq!(lowband(&[], "").code, 2);
    assert_eq!(lowband(&["--version"], "").stdout, format!("lowband {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nobody_reading_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .arg("routes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn a_full_disk_is_a_failure() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_lowband")).arg("routes").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: cannot write to standard output"));
}

#[test]
fn input_is_bounded() {
    let run = lowband(&["encode"], vec![b' '; (16 << 20) + 1]);
    assert_eq!((run.code, run.stderr.as_str()), (1, "error: standard input is larger than 16 MiB\n"));
}

struct Run {
    code: i32,
    bytes: Vec<u8>,
    stdout: String,
    stderr: String,
}

fn lowband(arguments: &[&str], input: impl AsRef<[u8]>) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A subcommand that reads no input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        bytes: output.stdout,
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
