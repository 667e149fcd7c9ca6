//! A provisioned device's message as it is on the link: what everybody sees of it, and what `lowband inspect --key` makes of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use lowband::coap::{Instant, Priority};
use lowband::codec::{Keys, Limits};
use lowband::device::{Credentials, Half, Oscore};
use lowband::endpoint;
use lowband::endpoint::{Address, Association, Endpoint};
use lowband::gateway;
use lowband::gateway::{Gateway, Input, Output};
use lowband::security::oscore::{Parameters, Secret};
use lowband::translate;
use serde_json::Value;

const TOKEN: &str = "syt_a3Nlbmlh_eWmuajtJJqoJNKlvwnvM_0brfFs";
const ROOM: &str = "!kitchen:example.org";
const TEXT: &str = "Hello World";
const EVENT: &str = "$h29iv0s8:example.org";

/// The device's half, as it is exported.
fn credentials() -> Credentials {
    Credentials {
        name: "sensor".parse().unwrap(),
        gateway: None,
        link: None,
        half: Half::Oscore(Oscore {
            secret: lowband::device::Secret::new([7; 16]),
            salt: lowband::device::Secret::new([9; 8]),
            device_id: vec![1],
            gateway_id: vec![],
            algorithm: Oscore::AES_CCM_16_64_128,
            hkdf: Oscore::HKDF_SHA_256,
        }),
    }
}

/// A send and its answer, as they were on the link.
fn capture() -> [Vec<u8>; 2] {
    let keys =
        Parameters { master_salt: Secret::from([9; 8]), ..Parameters::new(Secret::from([7; 16]), &[1], &[]) };
    let (place, device_place) =
        (address("192.0.2.1:5683", "0.0.0.0:0"), address("10.0.0.1:5683", "192.0.2.1:5683"));
    let config = endpoint::Config { durable: true, ..endpoint::Config::default() };
    let mut device = Endpoint::new(config.clone(), [1; 32]);
    device.admit_keys(1, Association::Device(1), keys.clone()).unwrap();
    let mut config_of_gateway = gateway::Config::new("http://homeserver".parse().unwrap());
    config_of_gateway.endpoint = config;
    let mut gateway = Gateway::new(config_of_gateway, [2; 32]);
    let known = lowband::sim::device("buoy", 1, &keys).unwrap();
    gateway.set_device(&known, Instant::START);
    gateway.begin_keys(&known.name);

    let http = http::Request::put(format!("/_matrix/client/v3/rooms/{ROOM}/send/m.room.message/t1"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Bytes::from(format!(r#"{{"msgtype":"m.text","body":"{TEXT}"}}"#)))
        .unwrap();
    let request = translate::request::to_coap(&http, Keys::V1, &Limits::default()).unwrap();
    device.request_to(Association::Device(1), Priority::Message, place, request, Instant::START);
    let (_, asked) = device.poll_datagram().unwrap();
    gateway.handle(Input::Datagram { address: device_place, datagram: &asked }, Instant::START);
    while let Some(output) = gateway.poll() {
        match output {
            Output::Fetch { id, request, .. } => {
                assert!(request.uri().path().contains("kitchen"));
                let body = Bytes::from(format!(r#"{{"event_id":"{EVENT}"}}"#));
                let result = http::Response::builder().header("content-type", "application/json").body(body);
                gateway.handle(Input::Fetched { id, result: Ok(result.unwrap()) }, Instant::START);
            }
            Output::Datagram { datagram, .. } => return [asked, datagram],
            _ => {}
        }
    }
    panic!("there is no answer")
}

fn address(remote: &str, local: &str) -> Address {
    Address { remote: remote.parse().unwrap(), local: local.parse().unwrap() }
}

fn inspect(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lowband")).arg("inspect").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn on_the_link_there_is_no_token_user_or_room_and_with_the_key_there_is_all() {
    let [asked, answered] = capture();
    for datagram in [&asked, &answered] {
        for secret in [TOKEN, ROOM, "kitchen", "example.org", TEXT, EVENT, "m.text", "t1"] {
            let found = datagram.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in clear");
        }
    }
    let (asked, answered) = (hex(&asked), hex(&answered));
    let blind = inspect(&[&asked, ",", &answered]);
    assert!(blind.contains("kid 01, Partial IV 0"), "{blind}");
    assert!(blind.contains("hidden in") && !blind.contains("kitchen"), "{blind}");

    let line = credentials().to_line();
    let seen = inspect(&["--key", &line, &asked, ",", &answered]);
    for shown in [
        "sealed by the device",
        "PUT /_matrix/client/v3/rooms/!kitchen:example.org/send/m.room.message/t1",
        TEXT,
        "sealed by the gateway",
        EVENT,
    ] {
        assert!(seen.contains(shown), "{shown}: {seen}");
    }
    assert!(!seen.contains(TOKEN), "it is left out unless it is asked for");
    let page = include_str!("../docs/transcripts/inspect.md");
    let commands = [
        format!("$ lowband inspect {asked} , {answered}\n{blind}"),
        format!("$ lowband inspect --key {} {asked} , {answered}\n{seen}", *line),
    ];
    for command in &commands {
        println!("{command}");
        assert!(page.contains(command), "docs/transcripts/inspect.md should have this:\n{command}");
    }
    assert!(inspect(&["--show-secrets", "--key", &line, &asked]).contains(TOKEN));
}

#[test]
fn an_answer_alone_is_opened_by_the_number_of_its_request_and_keys_are_read_from_a_file() {
    let [_, answered] = capture();
    let answered = hex(&answered);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inspect-sensor.toml");
    std::fs::write(&file, credentials().to_file().as_bytes()).unwrap();
    let key = file.to_str().unwrap();
    let alone = inspect(&["--key", key, &answered]);
    assert!(alone.contains("a request whose Partial IV is not known"), "{alone}");
    let json: Value =
        serde_json::from_str(&inspect(&["--json", "--key", key, "--request-piv", "0", &answered])).unwrap();
    let protection = json.get("protection").unwrap();
    assert_eq!(protection.get("sealed_by").unwrap(), "gateway");
    assert_eq!(protection.pointer("/inner/header/code").unwrap(), "2.04");
    assert_eq!(protection.pointer("/inner/payload/json/event_id").unwrap(), EVENT);
    assert!(json.pointer("/meaning/request").is_none());
    let wrong = inspect(&["--key", key, "--request-piv", "1", &answered]);
    assert!(wrong.contains("not opened: it is not protected by these keys"), "{wrong}");
}
