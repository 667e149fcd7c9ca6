//! `lowband sim` as people run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::process::Output;

use serde_json::Value;

fn sim(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lowband")).arg("sim").args(flags).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_run_is_told_with_its_first_exchange_and_its_ledger() {
    let text = stdout(&sim(&["--link", "hf-100", "--script", "send-ten", "--loss", "0"]));
    for expected in [
        "send-ten on hf-100, seed 1, transmission parameters of the link",
        "0.0 s │─────────── CON PUT id ",
        "payload B",
        "sent again             0.0 % of all bytes",
        "10 answered, from 10 requests of which 0 failed",
        "Everything held that must.",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
}

#[test]
fn json_has_the_same_figures_and_the_seed_gives_them_again() {
    let flags = ["--script", "chaos", "--seed", "9", "--json"];
    let (first, second) = (stdout(&sim(&flags)), stdout(&sim(&flags)));
    assert_eq!(first, second);
    let outcome: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((outcome["seed"].as_u64(), &outcome["script"]), (Some(9), &Value::from("chaos")));
    let sum = |side: &str, which: &str| -> u64 {
        let account = &outcome[side][which];
        ["link", "header", "options", "payload"].iter().map(|layer| account[layer].as_u64().unwrap()).sum()
    };
    let all = sum("up", "first") + sum("up", "again") + sum("down", "first") + sum("down", "again");
    assert_eq!(outcome["bytes"], all);
    assert_eq!(
        all,
        outcome["traffic_up"]["air_bytes"].as_u64().unwrap()
            + outcome["traffic_down"]["air_bytes"].as_u64().unwrap()
    );
}

#[test]
fn many_seeds_have_means_and_extremes() {
    let text = stdout(&sim(&["--link", "lan,geo-600ms", "--script", "send-ten", "--seeds", "3"]));
    assert!(text.contains("send-ten on lan: everything held with 3 of 3 seeds"), "{text}");
    assert!(text.contains("send-ten on geo-600ms: everything held with 3 of 3 seeds"), "{text}");
    let row = text.lines().find(|line| line.starts_with("messages answered")).unwrap();
    assert_eq!(row.split_whitespace().skip(2).collect::<Vec<_>>(), ["10.0", "10.0", "10.0"]);
}

#[test]
fn losses_are_shares_or_per_cent() {
    let flags = |loss| ["--link", "geo-600ms", "--seed", "3", "--loss", loss];
    assert_eq!(stdout(&sim(&flags("5%"))), stdout(&sim(&flags("0.05"))));
}

#[test]
fn each_script_is_explained() {
    let help = stdout(&sim(&["--help"]));
    for explained in [
        "send-ten:     one device sends ten",
        "kill-hundred: one device observes",
        "chaos:        some devices",
    ] {
        assert!(help.contains(explained), "{explained:?} is missing in\n{help}");
    }
}

#[test]
fn a_run_with_the_parameters_of_the_rfc_is_for_comparison_and_fails_nothing() {
    let text = stdout(&sim(&["--link", "lora-sf12", "--script", "send-ten", "--transmission", "rfc7252"]));
    assert!(text.contains("transmission parameters of RFC 7252"), "{text}");
}

#[test]
fn what_makes_no_sense_is_said() {
    for (flags, told) in [
        (["--link", "string"], "there is no link \"string\""),
        (["--script", "sing-ten"], "possible values: send-ten, sync-day"),
        (["--loss", "2"], "give a share from 0 to 0.99: 0.05 or 5%"),
        (["--loss", "100%"], "give a share from 0 to 0.99: 0.05 or 5%"),
        (["--seed", "x"], "give a whole number"),
        (["--seeds", "0"], "0 is not in 1.."),
    ] {
        let output = sim(&flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
}
