//! The configuration, through the binary: which place counts, and what is said of mistakes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

fn check(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowband"));
    command.arg("check-config").args(arguments).env_clear().envs(environment.iter().copied());
    command.output().unwrap()
}

fn json(arguments: &[&str], environment: &[(&str, &str)]) -> Value {
    let output = check(&[arguments, &["--json"]].concat(), environment);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file that is gone with its test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowband-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const GOOD: &str = "homeserver = \"http://127.0.0.1:8008\"\ninsecure-coap = true\n";

#[test]
fn a_flag_comes_before_the_environment_the_environment_before_the_file_and_the_file_before_the_default() {
    let file =
        File::new("order", &format!("{GOOD}fetch-timeout = 10\nlisten = [\"127.0.0.1:1\"]\npeers = 1\n"));
    let config = ["--config", file.path()];
    let value = |settings: &Value, name: &str| settings["settings"][name]["value"].clone();
    let place = |settings: &Value, name: &str| settings["settings"][name]["from"]["place"].clone();

    let none = json(&config, &[]);
    assert_eq!(none["valid"], true, "{none}");
    assert_eq!(
        (value(&none, "connect-timeout"), place(&none, "connect-timeout")),
        ("10s".into(), "default".into())
    );
    assert_eq!((value(&none, "fetch-timeout"), place(&none, "fetch-timeout")), ("10".into(), "file".into()));
    assert_eq!(none["settings"]["fetch-timeout"]["from"]["line"], 3);
    assert_eq!(value(&none, "peers"), 1);

    let environment = [("LOWBAND_FETCH_TIMEOUT", "20s"), ("LOWBAND_LISTEN", "127.0.0.1:2, 127.0.0.2:2")];
    let middle = json(&config, &environment);
    assert_eq!(
        (value(&middle, "fetch-timeout"), place(&middle, "fetch-timeout")),
        ("20s".into(), "environment".into())
    );
    assert_eq!(value(&middle, "listen"), serde_json::json!(["127.0.0.1:2", "127.0.0.2:2"]));

    let flags =
        [&config[..], &["--fetch-timeout", "30s", "--listen", "127.0.0.1:3", "--listen", "[::1]:3"]].concat();
    let top = json(&flags, &environment);
    assert_eq!((value(&top, "fetch-timeout"), place(&top, "fetch-timeout")), ("30s".into(), "flag".into()));
    assert_eq!(value(&top, "listen"), serde_json::json!(["127.0.0.1:3", "[::1]:3"]));
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = File::new("named", GOOD);
    assert!(check(&[], &[("LOWBAND_CONFIG", file.path())]).status.success());
}

#[test]
fn what_check_config_prints_is_a_file_that_it_reads_again_to_the_same_end() {
    let flags = [
        "--homeserver",
        "http://127.0.0.1:8008/p",
        "--insecure-coap",
        "--log",
        "lowband[call{path=\"a'b\"}]=debug,info",
    ];
    let first = check(&flags, &[]);
    assert!(first.status.success(), "{}", stderr(&first));
    let file = File::new("again", std::str::from_utf8(&first.stdout).unwrap());
    let again = json(&["--config", file.path()], &[]);
    let once = json(&flags, &[]);
    for (name, setting) in once["settings"].as_object().unwrap() {
        assert_eq!(again["settings"][name]["value"], setting["value"], "{name}");
    }
    assert!(String::from_utf8(first.stdout).unwrap().contains("# --homeserver"));
}

#[test]
fn a_name_that_is_no_setting_is_an_error_with_its_line_and_the_one_that_was_meant() {
    let file = File::new("unknown", &format!("{GOOD}\nfetch_timeout = \"1s\"\n"));
    let output = check(&["--config", file.path()], &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected =
        format!("error: {}:4: fetch_timeout is no setting\nhint: perhaps fetch-timeout\n", file.path());
    assert_eq!(stderr(&output), expected);
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_place() {
    let file = File::new("many", "homeserver = \"hs\"\ninsecure-coap = \"yes\"\npeers = 0\nlisten = 5683\n");
    let output =
        check(&["--config", file.path(), "--log-format", "xml"], &[("LOWBAND_FETCH_TIMEOUT", "soon")]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    for expected in [
        format!("{}:1: homeserver: hs is no base URL", file.path()),
        format!("{}:2: insecure-coap: is of type string, and should be true or false", file.path()),
        format!("{}:3: peers: 0 is too few", file.path()),
        format!("{}:4: listen: is of type integer, and should be an array of strings", file.path()),
        "LOWBAND_FETCH_TIMEOUT: soon".into(),
        "--log-format: xml is neither text nor json".into(),
    ] {
        assert!(told.contains(&expected), "{expected} in {told}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_an_error_with_its_line() {
    let file = File::new("broken", "homeserver = \"http://hs\"\nlisten = [\n");
    let told = stderr(&check(&["--config", file.path()], &[]));
    assert!(told.starts_with(&format!("error: {}:", file.path())), "{told}");
    let absent = check(&["--config", "/nonexistent/lowband.toml"], &[]);
    assert!(
        stderr(&absent).contains("cannot read /nonexistent/lowband.toml: No such file"),
        "{}",
        stderr(&absent)
    );
}

#[test]
fn a_mistake_is_told_without_what_follows_from_it() {
    let absent = stderr(&check(&["--config", "/nonexistent/lowband.toml"], &[]));
    assert_eq!(absent.matches("error: ").count(), 1, "{absent}");
    for (text, errors) in [
        ("homeserver = \"http://hs\"\nlisten = [\n", 1),
        ("homeserver = \"http://127.0.0.1:8008\"\ninsecure-coap = \"yes\"\n", 1),
        ("homeserver = 1.5\ninsecure-coap = true\nlisten = 1\ndefault-link = true\n", 3),
        ("default-link = \"harbour\"\n[link.harbour]\nrat = 1\n[link.quay]\nlike = \"harbour\"\n", 1),
        ("default-shape = \"buoy\"\n[link.far]\nshape = \"buoy\"\n[shape.buoy]\nlimit = 1\n", 1),
    ] {
        let settings = if text.contains("homeserver") { "" } else { GOOD };
        let file = File::new("follows", &format!("{settings}{text}"));
        let told = stderr(&check(&["--config", file.path()], &[]));
        assert_eq!(told.matches("error: ").count(), errors, "{text}: {told}");
    }
    // What stands elsewhere holds.
    let file = File::new("overruled", "homeserver = \"http://127.0.0.1:8008\"\ninsecure-coap = \"yes\"\n");
    let told = stderr(&check(&["--config", file.path(), "--insecure-coap", "--peers", "0"], &[]));
    assert_eq!(told.matches("error: ").count(), 2, "{told}");
}

#[test]
fn a_word_that_is_no_level_is_no_filter() {
    let flags = ["--homeserver", "http://127.0.0.1:8008", "--insecure-coap"];
    let told = |log: &str| stderr(&check(&flags, &[("LOWBAND_LOG", log)]));
    for (log, word) in [("inof", "inof"), ("lowband::net=debug, foo", "foo"), ("lowband", "lowband")] {
        let hint = "hint: error, warn, info, debug or trace; or MODULE=LEVEL\n";
        assert_eq!(told(log), format!("error: LOWBAND_LOG: {word} is no level\n{hint}"));
    }
    for log in [
        "warn",
        "off",
        "lowband=debug",
        "lowband::net",
        "lowband::net=debug,info",
        "info,lowband[call]=trace",
    ] {
        assert_eq!(told(log), "", "{log}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_warned_of_and_switches_are_as_in_a_file() {
    let flags = ["--homeserver", "http://127.0.0.1:8008"];
    let variables = [
        ("LOWBAND_INSECURE_COAP", "1"),
        ("LOWBAND_FETCH_TIMEOT", "1s"),
        ("LOWBAND_TOKEN", "t"),
        ("LOWBAND_XYZ", ""),
    ];
    let output = check(&flags, &variables);
    assert!(output.status.success());
    let expected = "warning: LOWBAND_FETCH_TIMEOT is no setting; perhaps LOWBAND_FETCH_TIMEOUT\nwarning: LOWBAND_XYZ is no setting\n";
    assert_eq!(stderr(&output), expected);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("\ninsecure-coap = true "), "{printed}");
}

#[test]
fn plain_coap_is_served_only_when_asked_for_and_beyond_loopback_only_when_asked_twice() {
    let homeserver = ["--homeserver", "http://127.0.0.1:8008"];
    let told = |flags: &[&str]| {
        let output = check(&[&homeserver, flags].concat(), &[]);
        (output.status.success(), stderr(&output))
    };
    assert!(told(&[]).1.contains("hint: --insecure-coap"), "{:?}", told(&[]));
    assert!(told(&["--insecure-coap"]).0);
    assert!(!told(&["--insecure-coap=false"]).0);
    for public in ["0.0.0.0", "[::]:5683", "192.0.2.1:5683"] {
        let (ok, text) = told(&["--insecure-coap", "--listen", public]);
        assert!(!ok && text.contains("hint: --insecure-public"), "{text}");
        assert!(told(&["--insecure-coap", "--insecure-public", "--listen", public]).0, "{public}");
    }
    assert!(!told(&["--insecure-public"]).0);
}

#[test]
fn the_example_file_is_valid_and_has_every_setting_at_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/lowband.example.toml");
    let output = check(&["--config", path], &[]);
    assert!(output.status.success(), "{}", stderr(&output));

    let example = std::fs::read_to_string(path).unwrap();
    let flags = ["--homeserver", "http://127.0.0.1:8008", "--insecure-coap"];
    let defaults = json(&flags, &[]);
    let (example, links) = example.split_at(example.find("# [link.").unwrap());
    let links = File::new("example-links", &format!("{GOOD}{}", links.replace("# ", "")));
    assert_eq!(json(&["--config", links.path()], &[])["links"]["harbour"]["rate"], "300 bit/s");
    let mut text: String =
        example.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
    for (name, setting) in defaults["settings"].as_object().unwrap() {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} = ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in the example")).to_owned();
        let value: toml::Table = toml::from_str(&line).unwrap();
        assert_eq!(serde_json::to_value(&value[name]).unwrap(), setting["value"], "{name}");
        text = text.replacen(&line, "", 1);
    }
    for name in ["advertise", "homeserver-ca", "state", "default-shape"] {
        assert!(text.contains(&format!("\n{name} = ")), "{name} is not in the example");
    }
}

#[test]
fn links_stand_in_tables_and_listeners_name_them() {
    let text = format!(
        "{GOOD}listen = [\"127.0.0.1:1=far\", \"[::1]:1 = hf-100\", \"127.0.0.2:1\"]\ndefault-link = \"sbd\"\n\
         [link.far]\nlike = \"hf-100\"\nspeed = 20\n"
    );
    let file = File::new("links", &text);
    let read = json(&["--config", file.path()], &[]);
    assert_eq!(read["valid"], true, "{read}");
    assert_eq!(read["settings"]["default-link"]["value"], "sbd");
    assert_eq!(read["settings"]["listen"]["value"][0], "127.0.0.1:1=far");
    assert_eq!(read["links"], serde_json::json!({ "far": { "like": "hf-100", "speed": 20 } }));

    let printed = check(&["--config", file.path()], &[]).stdout;
    let again = File::new("links-again", std::str::from_utf8(&printed).unwrap());
    let again = json(&["--config", again.path()], &[]);
    assert_eq!((&again["valid"], &again["links"]), (&read["valid"], &read["links"]));
}

#[test]
fn the_settings_that_the_page_on_links_shows_are_valid() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/links.md")).unwrap();
    let settings = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let file = File::new("page", settings);
    let flags = ["--config", file.path(), "--homeserver", "http://127.0.0.1:8008", "--insecure-coap"];
    let output = check(&flags, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn shapes_stand_in_tables_and_links_take_them_by_name() {
    let text = format!(
        "{GOOD}default-shape = \"quiet\"\n[link.far]\nlike = \"hf-100\"\nshape = \"buoy\"\n\
         [shape.buoy]\ntimeline-limit = 5\n"
    );
    let file = File::new("shapes", &text);
    let read = json(&["--config", file.path()], &[]);
    assert_eq!(read["valid"], true, "{read}");
    assert_eq!(read["shapes"], serde_json::json!({ "buoy": { "timeline-limit": 5 } }));
    assert_eq!(read["links"]["far"]["shape"], "buoy");
    // What is printed is itself a file of settings.
    let printed = check(&["--config", file.path()], &[]).stdout;
    let again = File::new("shapes-again", std::str::from_utf8(&printed).unwrap());
    let again = json(&["--config", again.path()], &[]);
    assert_eq!((&again["shapes"], &again["links"]), (&read["shapes"], &read["links"]));
}

#[test]
fn mistakes_in_shapes_are_told_with_their_place() {
    let text = format!(
        "{GOOD}default-shape = \"bouy\"\n[link.far]\nshape = \"none\"\n[link.near]\nshape = 1\n\
         [shape.buoy]\ntimeline-limit = 0\n"
    );
    let file = File::new("wrong-shapes", &text);
    let told = stderr(&check(&["--config", file.path()], &[]));
    for expected in [
        format!("{}:3: default-shape: there is no shape \"bouy\"\nhint: shapes are lean, quiet", file.path()),
        format!("{}:5: link \"far\": there is no shape \"none\"", file.path()),
        format!("{}:7: link \"near\": shape is no string", file.path()),
        format!("{}:8: [shape.buoy] timeline-limit", file.path()),
    ] {
        assert!(told.contains(&expected), "{expected} in {told}");
    }
    let file = File::new("no-shapes", &format!("{GOOD}shape = \"quiet\"\n"));
    let told = stderr(&check(&["--config", file.path()], &[]));
    assert!(told.contains(":3: shapes are tables, [shape.NAME]\nhint: default-shape"), "{told}");
}

#[test]
fn a_dictionary_that_is_none_is_told_with_its_file() {
    let file = File::new("wrong-dictionary", &format!("{GOOD}dictionary = [\"built-in\", \"/nowhere\"]\n"));
    let told = stderr(&check(&["--config", file.path()], &[]));
    let expected = format!("{}:3: dictionary: cannot read /nowhere/keys.tsv: ", file.path());
    assert!(told.contains(&expected) && told.contains("hint: lowband dictionary train makes one"), "{told}");
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/dictionaries/v2");
    let file = File::new("dictionary", &format!("{GOOD}dictionary = {built_in:?}\n"));
    assert_eq!(check(&["--config", file.path()], &[]).status.code(), Some(0));
}

#[test]
fn mistakes_in_links_are_told_with_link_key_and_line() {
    let links = "[link.a]\nloss = 2\n[link.lan]\nrate = 5\n[link.b]\nlike = \"c\"\n";
    let file = File::new("wrong-links", &format!("{GOOD}default-link = \"hf\"\n{links}"));
    let output = check(&["--config", file.path(), "--listen", "127.0.0.1:1=a"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    for expected in [
        format!("{}:3: default-link: there is no link \"hf\"\nhint: links are certus-100", file.path()),
        format!("{}:5: link \"a\": loss is 2, and should be from 0 to 0.99", file.path()),
        format!("{}:6: link \"lan\": is built in", file.path()),
        format!("{}:9: link \"b\": like names no link: \"c\"", file.path()),
    ] {
        assert!(told.contains(&expected), "{expected} in {told}");
    }
    assert_eq!(told.matches("error: ").count(), 4, "what is wrong with \"a\" is told once: {told}");
    let file = File::new("no-links", &format!("{GOOD}link = \"hf-100\"\n"));
    let told = stderr(&check(&["--config", file.path()], &[]));
    assert!(told.contains(":3: links are tables, [link.NAME]\nhint: default-link"), "{told}");
}

#[test]
fn secrets_in_a_url_are_refused_and_not_repeated() {
    let output = check(&["--homeserver", "https://user:hunter2@hs", "--insecure-coap"], &[]);
    assert!(!output.status.success());
    assert!(!stderr(&output).contains("hunter2"), "{}", stderr(&output));
}

#[test]
fn an_http_homeserver_elsewhere_is_allowed_and_warned_of() {
    let output = check(&["--homeserver", "http://synapse:8008", "--insecure-coap"], &[]);
    assert!(output.status.success());
    assert!(
        stderr(&output).starts_with("warning: access tokens cross the network to synapse"),
        "{}",
        stderr(&output)
    );
}
