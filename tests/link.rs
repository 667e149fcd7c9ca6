//! `lowband link show`, and what docs/links.md says that it says.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Command;
use std::process::Output;

use serde_json::Value;

fn show(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lowband")).args(["link", "show"]).args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = show(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn all_links_are_listed_one_a_line() {
    let list = text(&[]);
    let names: Vec<_> = list.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let expected = ["link", "certus-100", "geo-600ms", "hf-100", "lan", "lora-sf12", "nb-iot-ntn", "sbd"];
    assert_eq!(names, expected, "{list}");
    assert_eq!(json(&[]).as_array().unwrap().len(), 7);
}

#[test]
fn a_link_is_shown_with_what_follows_from_it() {
    let shown = text(&["hf-100"]);
    // By hand: 80 ms a byte, 28 bytes more a datagram, 2 * (4 s + 0.5 s) + 2 s without the airtimes; 320 bytes are the most.
    for line in [
        "  rate              100 bit/s",
        "  delay             4 s, and at most 0 s more",
        "  channel           one of all peers, by turns, which take 0.5 s to change",
        "  loss              10 % of all frames",
        "   20 B up        3.84 s       17.4 s       42.68 s       42.68 s",
        "   80 B up        8.64 s       22.2 s       47.48 s       47.48 s",
        "  256 B down     22.72 s      36.28 s       61.56 s       61.56 s",
        "  MAX_RETRANSMIT    4",
        "  NSTART            1",
        "  MAX_LATENCY       129.36 s",
        "  MAX_TRANSMIT_WAIT 3100.62 s",
        "  EXCHANGE_LIFETIME 3100.62 s",
        "  piggyback wait    20.2 s, for the answer to a request",
        "  block             256 bytes; a body is held for 7200 s",
        "  ACK_TIMEOUT 66.7 s, ACK_RANDOM_FACTOR 1.5, MAX_RETRANSMIT 4, NSTART 1, blocks of 256",
    ] {
        assert!(shown.lines().any(|other| other == line), "{line:?} in\n{shown}");
    }
    assert!(!shown.contains("speed"), "{shown}");
    let asymmetric = text(&["sbd"]);
    assert!(asymmetric.contains("of at most 340 bytes up, of at most 270 bytes down"), "{asymmetric}");
}

#[test]
fn a_faster_link_says_so() {
    let fast = json(&["hf-100", "--speed", "50"]);
    assert_eq!(
        (&fast["speed"], &fast["up"]["rate"], &fast["block"]),
        (&50.into(), &5000.into(), &256.into())
    );
    assert_eq!((&fast["delay"], &fast["ack_timeout"]), (&0.08.into(), &0.22.into()));
    assert!(text(&["hf-100", "--speed", "50"]).contains("speed             50 times the real one"));
    assert_eq!(show(&["hf-100", "--speed", "0"]).status.code(), Some(2));
}

#[test]
fn the_operators_links_are_shown_with_the_others() {
    let path = std::env::temp_dir().join(format!("lowband-{}-show.toml", std::process::id()));
    std::fs::write(&path, "[link.far]\nlike = \"hf-100\"\ndelay = \"9s\"\n").unwrap();
    let config = path.to_str().unwrap();
    assert_eq!(json(&["far", "--config", config])["delay"], 9.0);
    std::fs::write(&path, "[link.far]\nlike = \"hf-100\"\ndelay = \"9 weeks\"\n").unwrap();
    let wrong = show(&["far", "--config", config]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert!(told.starts_with(&format!("error: {config}:3: link \"far\": delay is \"9 weeks\"")), "{told}");
}

#[test]
fn a_link_that_there_is_not_is_refused_with_those_that_there_are() {
    let output = show(&["hf"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("error: there is no link \"hf\"\nhint: links are certus-100, geo-600ms, hf-100"),
        "{told}"
    );
    let request = Command::new(env!("CARGO_BIN_EXE_lowband"))
        .args(["request", "GET", "coap://127.0.0.1/_matrix/client/versions", "--link", "hf"])
        .output()
        .unwrap();
    assert_eq!(request.status.code(), Some(2));
}

#[test]
fn the_tables_of_the_page_are_what_is_shown() {
    let page = include_str!("../docs/links.md");
    for (table, name) in [(likes(), "likes"), (follows(), "follows")] {
        assert!(page.contains(&table), "table {name} of docs/links.md should be\n{table}");
    }
}

#[test]
fn the_settings_of_other_stacks_on_the_page_are_those_of_the_link() {
    let page = include_str!("../docs/links.md");
    let fixed = json(&["hf-100"])["fixed"].clone();
    let thousandths = (fixed["ack_timeout"].as_f64().unwrap() * 1000.0).round() as u64;
    let (whole, thousandths) = (thousandths / 1000, thousandths % 1000);
    for line in [
        format!(
            "coap_session_set_ack_timeout(session, (coap_fixed_point_t){{ {whole}, {thousandths:03} }});"
        ),
        "coap_session_set_ack_random_factor(session, (coap_fixed_point_t){ 1, 500 });".into(),
        format!("coap_session_set_max_retransmit(session, {});", fixed["max_retransmit"]),
        format!("coap_session_set_nstart(session, {});", fixed["nstart"]),
        format!("    ACK_TIMEOUT = {}\n", fixed["ack_timeout"]),
        format!("    MAX_RETRANSMIT = {}\n", fixed["max_retransmit"]),
        format!("    MAX_LATENCY = {}\n", json(&["hf-100"])["max_latency"]),
        "    DEFAULT_BLOCK_SIZE_EXP = 4\n".into(),
    ] {
        assert!(page.contains(&line), "{line}");
    }
    assert_eq!(fixed["block"], 256, "whose exponent is 4");
}

#[test]
fn every_key_is_explained_on_the_page() {
    let page = include_str!("../docs/links.md");
    for key in lowband::link::KEYS {
        assert!(page.contains(&format!("| `{key}`")), "{key}");
    }
}

/// A number, or both of both ways.
fn ways(link: &Value, of: impl Fn(&Value) -> String) -> String {
    let [up, down] = [of(&link["up"]), of(&link["down"])];
    if up == down { up } else { format!("{up} / {down}") }
}

fn number(value: &Value) -> String {
    // 4.0 is written 4, and long fractions to the millisecond.
    ((value.as_f64().unwrap() * 1000.0).round() / 1000.0).to_string()
}

fn likes() -> String {
    let mut table = "| link | bit/s up / down | delay, jitter | MTU up / down | overhead | half-duplex | duty cycle | shared | loss |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for link in json(&[]).as_array().unwrap() {
        let unlimited = |text: String, none: &str| if text == none { "–".into() } else { text };
        let rate = unlimited(ways(link, |way| way["rate"].to_string()), "0");
        let mtu = unlimited(ways(link, |way| way["mtu"].to_string()), "65507");
        let mtu = if link["fragments"] == true { format!("{mtu}, fragments") } else { mtu };
        let turns = match link["half_duplex"].as_bool().unwrap() {
            true => format!("{} s", number(&link["turnaround"])),
            false => "no".into(),
        };
        let shared = if link["shared"] == true { "yes" } else { "no" };
        table.push_str(&format!(
            "| `{}` | {rate} | {} s, {} s | {mtu} | {} | {turns} | {} | {shared} | {} |\n",
            link["link"].as_str().unwrap(),
            number(&link["delay"]),
            number(&link["jitter"]),
            link["overhead"],
            number(&link["duty_cycle"]),
            number(&link["loss"]),
        ));
    }
    table
}

fn follows() -> String {
    let mut table =
        "| link | block | ACK timeout of 20 / 80 / 256 bytes up | NSTART | MAX_RETRANSMIT | MAX_LATENCY | MAX_TRANSMIT_WAIT | \
         EXCHANGE_LIFETIME | gateway's piggyback wait | fixed ACK_TIMEOUT |\n|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for link in json(&[]).as_array().unwrap() {
        let messages = link["up"]["messages"].as_array().unwrap();
        let timeouts: Vec<_> = messages.iter().map(|message| number(&message["ack_timeout"])).collect();
        let seconds = |name: &str| number(&link[name]);
        table.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            link["link"].as_str().unwrap(),
            link["block"],
            timeouts.join(" / "),
            link["nstart"],
            link["max_retransmit"],
            seconds("max_latency"),
            seconds("max_transmit_wait"),
            seconds("exchange_lifetime"),
            number(&link["down"]["piggyback_wait"]),
            number(&link["fixed"]["ack_timeout"]),
        ));
    }
    table
}
