//! What each operation takes on each link: the table of `tests/snapshots/bandwidth.txt`, which README quotes.
//!
//! Nothing is lost in it, and nothing left to chance, so that any difference is one of the code. After one that was meant,
//! `LOWBAND_UPDATE=1 cargo test --test bandwidth` writes it anew.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "modules of a test are used by it alone")]

mod conversation;
mod operations;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use lowband::link::Profile;
use lowband::security::dtls::SEALING;
use lowband::sim::Security;

use conversation::Conversation;
use conversation::Cost;
use operations::Operation;

const LINKS: [&str; 7] = ["lan", "hf-100", "lora-sf12", "sbd", "certus-100", "nb-iot-ntn", "geo-600ms"];

/// The links on which OSCORE and DTLS are counted as well.
const PROTECTED: [&str; 2] = ["hf-100", "lora-sf12"];

/// Calls of a device that is known already, by their names in `operations.jsonl`.
const CALLS: [&str; 10] = [
    "create a room",
    "join",
    "send",
    "redact",
    "state event",
    "receipt",
    "typing",
    "profile",
    "members",
    "messages, 10",
];

/// One line of the table.
#[derive(Debug)]
struct Row {
    operation: &'static str,
    profile: &'static str,
    link: &'static str,
    cost: Cost,
}

#[test]
fn every_operation_takes_what_the_snapshot_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/bandwidth.txt");
    let table = table(&rows(&LINKS));
    if std::env::var_os("LOWBAND_UPDATE").is_some() {
        return std::fs::write(path, table).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let differences = differences(&known, &table);
    assert!(
        differences.is_empty(),
        "other than in {}:\n{differences}\nIf it is meant: LOWBAND_UPDATE=1 cargo test --test bandwidth",
        path.display()
    );
}

#[test]
fn readme_says_what_the_snapshot_does() {
    let table = excerpt(include_str!("../snapshots/bandwidth.txt"));
    println!("{table}");
    assert!(include_str!("../../README.md").contains(&table), "README.md should have this table:\n{table}");
}

#[test]
fn two_runs_are_the_same() {
    let run = || table(&rows(&["hf-100"]));
    assert_eq!(run(), run());
}

#[test]
fn a_difference_is_shown_with_what_was_before() {
    assert_eq!(differences("a\nb\nc\n", "a\nd\nc\n"), "- b\n+ d\n");
    assert_eq!(differences("a\n", "a\n"), "");
    assert_eq!(differences("a\nb\n", "a\n"), "- b\n");
}

#[test]
fn oscore_takes_at_most_14_bytes_of_a_request_and_11_of_its_answer() {
    for link in ["lan", "hf-100", "certus-100", "nb-iot-ntn", "geo-600ms"] {
        let profile = Profile::built_in(link).unwrap();
        let cost =
            |security| Conversation::introduced(&profile, security).call(&Operation::recorded("send")).sides;
        let ([up, down], [plain_up, plain_down]) = (cost(Security::Oscore), cost(Security::None));
        println!("{link}: {} up, {} down", up - plain_up, down - plain_down);
        assert!(up - plain_up <= 14 && down - plain_down <= 11, "{link}: {up} {down}");
    }
}

fn rows(links: &[&'static str]) -> Vec<Row> {
    let mut rows: Vec<(usize, Row)> = Vec::new();
    for link in links {
        let profile = Profile::built_in(link).unwrap();
        let row = |(operation, cost)| Row { operation, profile: "msc3079", link, cost };
        let all = introductions(&profile).into_iter().chain(costs(&profile, Security::None));
        rows.extend(all.map(row).enumerate());
        if PROTECTED.contains(link) {
            let row = |(operation, cost)| Row { operation, profile: "oscore", link, cost };
            let introductions = introductions(&profile).len();
            let all = costs(&profile, Security::Oscore).into_iter().map(row);
            rows.extend(all.enumerate().map(|(number, row)| (number + introductions, row)));
            let row =
                |(operation, cost)| Row { operation, profile: "dtls", link, cost: within_records(cost) };
            let all = costs(&profile.clone().sealed(SEALING), Security::None).into_iter().map(row);
            rows.extend(all.enumerate().map(|(number, row)| (number + introductions, row)));
        }
    }
    // By operation, and then as the links are given; first what is in clear.
    rows.sort_by_key(|(number, row)| {
        (*number, ["msc3079", "oscore", "dtls"].iter().position(|own| *own == row.profile))
    });
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The same cost with what a link is told of DTLS, each datagram's record, where it belongs. The handshake was before.
fn within_records(mut cost: Cost) -> Cost {
    let records = cost.account.datagrams * SEALING as u64;
    cost.account.link -= records;
    cost.account.security += records;
    cost
}

/// What those operations take with which a device makes itself known.
fn introductions(profile: &Profile) -> Vec<(&'static str, Cost)> {
    let recorded = Operation::recorded;
    let mut costs = Vec::new();
    for name in ["register", "log in"] {
        costs.push((name, Conversation::unknown(profile).call(&recorded(name))));
    }
    costs.push(("send, with access token", Conversation::unknown(profile).call(&recorded("send"))));
    costs
}

/// What all others take.
fn costs(profile: &Profile, security: Security) -> Vec<(&'static str, Cost)> {
    let recorded = Operation::recorded;
    let introduced = || Conversation::introduced(profile, security);
    let observing = || Conversation::observing(profile, security);
    let mut costs = Vec::new();
    for name in CALLS {
        costs.push((name, introduced().call(&recorded(name))));
    }
    let initial = recorded("initial sync, 3 rooms");
    costs.push(("initial sync, 3 rooms", introduced().observe(&initial)));
    let message = recorded("notification");
    costs.push(("notification", observing().hear(&message)));
    costs.push(("idle hour of an observer", observing().idle()));
    let mut absent = observing();
    costs.push(("notification, peer absent", absent.lose(&message)));
    costs.push(("first hour of absence", absent.idle()));
    costs
}

fn table(rows: &[Row]) -> String {
    let mut table = "\
# Datagrams, bytes by layer, and seconds of airtime, both directions together; and the seconds from an operation's beginning until the
# device had all of it. Nothing is lost. Under oscore (the device has an id of one byte) the options that are encrypted are in the body.
# Under dtls (by key) each datagram is in a record of 29 bytes more; the handshake was before.
# Written by LOWBAND_UPDATE=1 cargo test --test bandwidth
"
    .to_owned();
    let columns =
        ["datagrams", "again", "IP/UDP", "security", "header", "options", "body", "bytes", "airtime", "done"];
    write!(table, "{:<26}{:<9}{:<11}", "operation", "profile", "link").unwrap();
    columns.iter().for_each(|column| write!(table, "{column:>10}").unwrap());
    table.push('\n');
    for Row { operation, profile, link, cost } in rows {
        write!(table, "{operation:<26}{profile:<9}{link:<11}").unwrap();
        let it = cost.account;
        for number in
            [it.datagrams, cost.again, it.link, it.security, it.header, it.options, it.payload, it.bytes()]
        {
            write!(table, "{number:>10}").unwrap();
        }
        let took = cost.took.map_or("-".to_owned(), seconds);
        writeln!(table, "{:>10}{took:>10}", seconds(it.airtime)).unwrap();
    }
    table
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

/// The lines that changed, old and new.
fn differences(old: &str, new: &str) -> String {
    let mut differences = String::new();
    let (mut old, mut new) = (old.lines(), new.lines());
    loop {
        let (before, after) = (old.next(), new.next());
        if before.is_none() && after.is_none() {
            return differences;
        }
        if before != after {
            before.iter().for_each(|line| writeln!(differences, "- {line}").unwrap());
            after.iter().for_each(|line| writeln!(differences, "+ {line}").unwrap());
        }
    }
}

/// README's table: some operations, on all links.
fn excerpt(snapshot: &str) -> String {
    const SHOWN: [(&str, &str); 4] = [
        ("log in", "login"),
        ("send", "send \"Hello World\""),
        ("notification", "one new message"),
        ("initial sync, 3 rooms", "initial sync, 3 rooms"),
    ];
    let cell = |operation: &str, link: &str| {
        let start = format!("{operation:<26}{:<9}{link:<11}", "msc3079");
        let row = snapshot.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
        let fields: Vec<f64> = row.split_whitespace().map(|field| field.parse().unwrap()).collect();
        format!("{} / {}", duration(fields[8]), duration(fields[9]))
    };
    let titles = SHOWN.map(|(_, title)| title).join(" | ");
    let mut table = format!("| link | {titles} |\n|---|--:|--:|--:|--:|\n");
    for link in LINKS {
        let cells = SHOWN.map(|(operation, _)| cell(operation, link)).join(" | ");
        writeln!(table, "| `{link}` | {cells} |").unwrap();
    }
    table
}

/// Seconds as people read them.
fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 0.05 => "0 s".to_owned(),
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        _ if seconds < 600.0 => format!("{seconds:.0} s"),
        _ if seconds < 2.0 * 3600.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 48.0 * 3600.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}
