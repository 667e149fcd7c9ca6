//! Which module may use which: the direction rules of ARCHITECTURE.md, executable.
//!
//! Reads the sources as text: every path that starts at the crate's root (`crate::x`, or enough `super::`) is a
//! dependency on module `x`, wherever it stands. Comments are left out, so documentation may link upwards.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// A module of the library and what it may use.
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    /// Ordinary synchronous code: no socket, no clock, no runtime.
    Pure,
    /// Holds the sockets and the clock.
    Driver,
}

const LAYERS: &[Layer] = &[
    Layer { name: "codec", uses: &[], kind: Kind::Pure },
    Layer { name: "coap", uses: &[], kind: Kind::Pure },
    Layer { name: "matrix", uses: &["codec"], kind: Kind::Pure },
    Layer { name: "packed", uses: &["codec", "matrix"], kind: Kind::Pure },
    Layer { name: "translate", uses: &["coap", "codec", "device", "matrix", "packed"], kind: Kind::Pure },
    Layer { name: "link", uses: &["coap"], kind: Kind::Pure },
    Layer { name: "security", uses: &["coap", "link"], kind: Kind::Pure },
    Layer { name: "device", uses: &["coap", "matrix", "security"], kind: Kind::Pure },
    Layer { name: "endpoint", uses: &["coap", "link", "security"], kind: Kind::Pure },
    Layer { name: "inspect", uses: &["coap", "codec", "matrix", "security"], kind: Kind::Pure },
    Layer {
        name: "gateway",
        uses: &["coap", "codec", "device", "endpoint", "link", "matrix", "packed", "security", "translate"],
        kind: Kind::Pure,
    },
    Layer { name: "proxy", uses: &["coap", "matrix", "packed", "translate"], kind: Kind::Pure },
    Layer {
        name: "net",
        uses: &[
            "coap",
            "device",
            "endpoint",
            "gateway",
            "link",
            "packed",
            "proxy",
            "security",
            "sim",
            "translate",
        ],
        kind: Kind::Driver,
    },
    Layer {
        name: "sim",
        uses: &[
            "coap",
            "codec",
            "device",
            "endpoint",
            "gateway",
            "link",
            "matrix",
            "packed",
            "security",
            "translate",
        ],
        kind: Kind::Pure,
    },
    Layer {
        name: "measure",
        uses: &["coap", "codec", "endpoint", "link", "matrix", "packed", "security", "sim", "translate"],
        kind: Kind::Pure,
    },
    Layer { name: "homeserver", uses: &[], kind: Kind::Driver },
];

/// Crates and modules that only a driver touches.
const DRIVERS_ONLY: &[&str] = &[
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "rustls",
    "socket2",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// Files that may all the same name one of them.
const EXCEPTIONS: &[(&str, &str)] = &[
    // dimpl counts time by it; a driver hands one in, and none is asked for.
    ("src/security/dtls/clock.rs", "std::time::Instant"),
];

#[test]
fn every_module_uses_only_what_lies_below_it() {
    let mut violations = Vec::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap();
        violations.extend(violations_in(path, &text));
    }
    assert!(violations.is_empty(), "forbidden dependencies:\n{}", violations.join("\n"));
}

#[test]
fn an_upward_path_is_reported_with_its_line() {
    let text = "use crate::coap::Code;\n\nuse crate::gateway::Gateway;\n";
    let found = violations_in(Path::new("src/endpoint/peer.rs"), text);
    assert_eq!(found, ["src/endpoint/peer.rs:3: endpoint must not use gateway"]);
}

#[test]
fn a_path_in_an_expression_counts_and_one_in_a_comment_does_not() {
    let text =
        "/// See [`crate::gateway`].\nfn f() { let code = crate::codec::key_name(1); } // crate::net\n";
    let found = violations_in(Path::new("src/coap/message.rs"), text);
    assert_eq!(found, ["src/coap/message.rs:2: coap must not use codec"]);
}

#[test]
fn super_cannot_climb_around_the_rules() {
    assert_eq!(
        violations_in(Path::new("src/coap/mod.rs"), "use super::matrix::Route;"),
        ["src/coap/mod.rs:1: coap must not use matrix"]
    );
    assert_eq!(
        violations_in(Path::new("src/coap/block/tests.rs"), "use super::super::super::matrix::Route;"),
        ["src/coap/block/tests.rs:1: coap must not use matrix"]
    );
    assert!(violations_in(Path::new("src/coap/exchange.rs"), "use super::message::Message;").is_empty());
}

#[test]
fn imports_of_several_modules_at_once_are_refused_as_they_hide_from_this_check() {
    let found = violations_in(Path::new("src/matrix/sync.rs"), "use crate::{codec, net};");
    assert_eq!(found, ["src/matrix/sync.rs:1: one module per use"]);
}

#[test]
fn sockets_and_clocks_belong_to_drivers() {
    let text = "use std::net::SocketAddr;\nuse tokio::time::sleep;\n";
    assert_eq!(
        violations_in(Path::new("src/gateway/mod.rs"), text),
        ["src/gateway/mod.rs:2: tokio belongs to drivers, and gateway is none"]
    );
    assert!(violations_in(Path::new("src/net/udp.rs"), text).is_empty());
    assert!(violations_in(Path::new("src/gateway/mod.rs"), "use my_tokio::x; use hyperbole::y;").is_empty());
}

#[test]
fn a_module_without_rules_is_refused() {
    let found = violations_in(Path::new("src/misc/mod.rs"), "");
    assert_eq!(found, ["src/misc/mod.rs: module misc is missing from LAYERS in tests/layers.rs"]);
}

/// What breaks the rules in one file, as `file:line: what`.
fn violations_in(path: &Path, text: &str) -> Vec<String> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == module) else {
        return vec![format!(
            "{}: module {module} is missing from LAYERS in tests/layers.rs",
            path.display()
        )];
    };
    let depth = depth_of(path);
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        for what in broken_rules(layer, depth, code) {
            let is_exception =
                |(file, outside): &(&str, &str)| path.ends_with(file) && what.starts_with(outside);
            if EXCEPTIONS.iter().any(is_exception) {
                continue;
            }
            violations.push(format!("{}:{number}: {what}", path.display()));
        }
    }
    violations
}

fn broken_rules(layer: &Layer, depth: usize, code: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for used in paths_from_root(code, depth) {
        if used.starts_with('{') {
            broken.push("one module per use".to_owned());
            continue;
        }
        let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_layer = LAYERS.iter().any(|other| other.name == used);
        if is_layer && used != layer.name && !layer.uses.contains(&used.as_str()) {
            broken.push(format!("{} must not use {used}", layer.name));
        }
    }
    if layer.kind == Kind::Pure {
        for outside in DRIVERS_ONLY.iter().filter(|outside| mentions(code, outside)) {
            broken.push(format!("{outside} belongs to drivers, and {} is none", layer.name));
        }
    }
    broken
}

/// What follows `crate::`, or as many `super::` as lead out of the file's top-level module.
fn paths_from_root(code: &str, depth: usize) -> Vec<&str> {
    let climb = "super::".repeat(depth);
    let from_crate = code.match_indices("crate::").map(|(at, found)| &code[at + found.len()..]);
    let from_super = code.match_indices(&climb).map(|(at, found)| &code[at + found.len()..]);
    from_crate.chain(from_super).collect()
}

/// Whether `path` is used in the code: followed by `::`, or the end of a longer import, and not part of a name.
fn mentions(code: &str, path: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).any(|(at, found)| {
        let before = code[..at].chars().next_back();
        let after = code[at + found.len()..].chars().next();
        let is_path = path.contains("::") || code[at + found.len()..].starts_with("::");
        is_path && !before.is_some_and(|c| is_name(c) || c == ':') && !after.is_some_and(is_name)
    })
}

/// The top-level module of a library source; none for `lib.rs` and the binary's own files.
fn module_of(path: &Path) -> Option<&str> {
    let inside = path.strip_prefix("src").ok()?;
    let first = Path::new(inside.components().next()?.as_os_str());
    let module = first.file_stem()?.to_str()?;
    let is_binary = ["main", "cli"].contains(&module);
    (module != "lib" && !is_binary).then_some(module)
}

/// How many `super::` lead from the file to the crate's root.
fn depth_of(path: &Path) -> usize {
    let parts = path.components().count() - 1;
    if path.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// All Rust files below a directory, in a fixed order.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is readable") {
        let path = entry.expect("the directory is readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources in {}", directory.display());
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
