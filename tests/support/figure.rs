//! Figures of RFCs, kept as `tests/vectors/*/figure-*.txt`, played in the roles of both of their sides.

use std::fs;
use std::path::{Path, PathBuf};

use lowband::endpoint::Endpoint;

use super::endpoint;
use super::notation;
use super::{Machine, Story};

/// A figure, as its file has it.
pub(crate) struct Figure {
    path: PathBuf,
    server_block: usize,
    client_block: usize,
    roles: Vec<String>,
    request: String,
    responses: Vec<String>,
    messages: Vec<(Direction, String)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Figure {
    /// All figures of a directory under `tests/vectors`, in order.
    pub(crate) fn all(directory: &str) -> Vec<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(directory);
        let mut paths: Vec<_> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .collect();
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# RFC "), "{} names no source", path.display());
        let mut figure = Self {
            path,
            server_block: 1024,
            client_block: 1024,
            roles: vec!["server".into(), "client".into()],
            request: String::new(),
            responses: Vec::new(),
            messages: Vec::new(),
        };
        for line in text.lines().skip(1) {
            let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            match word {
                ">" => figure.messages.push((Direction::ToServer, named(rest))),
                "<" => figure.messages.push((Direction::ToClient, named(rest))),
                "server" => figure.server_block = size(rest),
                "client" => figure.client_block = size(rest),
                "roles" => figure.roles = rest.split(' ').map(str::to_owned).collect(),
                "request" => figure.request = rest.into(),
                "response" => figure.responses.push(rest.into()),
                _ => panic!("{line:?} in {}", figure.path.display()),
            }
        }
        figure
    }

    /// Whether the figure fits this role.
    pub(crate) fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|other| other == role)
    }

    /// Plays it with an endpoint as the server, a message every 10 ms.
    pub(crate) fn play_as_server(&self) {
        println!("{} as server", self.path.display());
        let mut server = endpoint::with_blocks(self.server_block);
        let mut responses = self.responses.iter();
        for (index, (direction, text)) in self.messages.iter().enumerate() {
            let at = index as u64 / 2 * 10;
            match direction {
                Direction::ToServer => {
                    gets(&mut server, at, text);
                    if server.has_report() {
                        let key = server.is_asked(at, &self.request);
                        server.answers(at, key, responses.next().expect("the request is reported once"));
                    }
                }
                Direction::ToClient => server.sends_as_shown(at, text),
            }
        }
        assert_eq!(responses.next(), None, "the request was not reported");
        server.is_empty(1_000_000);
    }

    /// Plays it with an endpoint as the client.
    pub(crate) fn play_as_client(&self) {
        println!("{} as client", self.path.display());
        let mut client = endpoint::with_blocks(self.client_block);
        let id = client.asks(0, &self.request);
        let observes = endpoint::request(&self.request).observe.is_some();
        let mut responses = self.responses.iter();
        for (index, (direction, text)) in self.messages.iter().enumerate() {
            let at = (index as u64).div_ceil(2) * 10;
            match direction {
                Direction::ToServer => client.sends_as_shown(client.now(), text),
                Direction::ToClient => {
                    gets(&mut client, at, text);
                    if client.has_report() {
                        let response = responses.next().expect("each response is reported once");
                        match observes {
                            true => client.is_notified(at, id, response),
                            false => client.is_answered(at, id, response),
                        }
                    }
                }
            }
        }
        assert_eq!(responses.next(), None, "a response was not reported");
    }
}

fn gets<M: Machine>(story: &mut Story<M>, at: u64, text: &str) {
    // What this side has not sent itself is as the figure has it.
    for word in text.split(['[', ']', ',', ' ']) {
        if let Some(name) = word.strip_prefix("MID=m").or_else(|| word.strip_prefix("TOK=t")) {
            let bytes = match (name.strip_prefix("0x"), name.parse::<u16>()) {
                (Some(digits), _) => notation::hex(digits),
                (_, Ok(number)) => number.to_be_bytes().into(),
                _ => vec![0xaa],
            };
            story.name(&word[4..], &bytes);
        }
    }
    story.gets(at, text);
}

/// The message with names for its ids, since each side chooses its own; and with a token, if it has a code.
fn named(text: &str) -> String {
    let text = text.replace("MID=", "MID=m").replace("TOK=", "TOK=t");
    match text.contains("TOK=") || text.ends_with(']') {
        true => text,
        false => text.replacen(']', ", TOK=t]", 1),
    }
}

fn size(text: &str) -> usize {
    text.strip_prefix("block ").and_then(|size| size.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

impl Story<Endpoint> {
    /// The time, in milliseconds.
    fn now(&self) -> u64 {
        super::millis(self.now)
    }

    fn has_report(&self) -> bool {
        !self.events.is_empty()
    }
}
