//! Paths and queries between CoAP and HTTP: vectors, every row of the table, recorded traffic, and any text at all.

#[path = "../fuzz/bodies/path.rs"]
pub mod path;

use std::io::BufRead;
use std::io::BufReader;

use flate2::read::GzDecoder;
use lowband::matrix::PathError;
use lowband::matrix::expand;
use lowband::matrix::expand_query;
use lowband::matrix::routes;
use lowband::matrix::shorten;
use lowband::matrix::split_query;
use proptest::prelude::*;

const VECTORS: &str = include_str!("vectors/matrix/paths.tsv");
const APPENDIX_B: &str = include_str!("vectors/matrix/path-codes-v1.tsv");
const TRAFFIC: &[u8] = include_bytes!("corpus/dev.jsonl.gz");

fn texts(segments: &[String]) -> Vec<&str> {
    segments.iter().map(String::as_str).collect()
}

#[test]
fn vectors_map_as_written() {
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let (one_way, row) = line.strip_prefix("> ").map_or((false, line), |row| (true, row));
        let [method, segments, http, operation] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let segments: Vec<_> = segments.split(' ').map(|s| s.replace('~', "").replace("%20", " ")).collect();
        let target = expand(method, &texts(&segments)).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(target.path, http);
        assert_eq!(target.route.map_or("-", |route| route.operation), operation, "{line}");
        if !one_way {
            assert_eq!(shorten(http).as_ref(), Ok(&segments), "{line}");
        }
    }
}

#[test]
fn codes_are_those_of_the_appendix() {
    let mut rows = 0;
    for line in APPENDIX_B.lines().filter(|line| !line.starts_with('#')) {
        let (code, template) = line.split_once('\t').expect("two columns");
        let sample: Vec<_> = template.split('/').map(|s| if s.starts_with('{') { "x" } else { s }).collect();
        let arguments = vec!["x"; sample.iter().filter(|s| **s == "x").count()];
        let target = expand("GET", &[&[code], arguments.as_slice()].concat()).expect(line);
        assert_eq!(target.path, sample.join("/").replace("/r0/", "/v3/"));
        assert_eq!(texts(&shorten(&sample.join("/")).expect(line)), [&[code], arguments.as_slice()].concat());
        rows += 1;
    }
    let coded: std::collections::BTreeSet<_> = routes().iter().filter_map(|route| route.code).collect();
    assert_eq!((rows, coded.len()), (57, 57));
}

#[test]
fn every_route_carries_every_argument_both_ways() {
    let nasty = [
        "#alias:hs",
        "!room:hs",
        "@user:hs",
        "$event/with+slash",
        "a/b",
        "?",
        "a?b=c&d",
        "%2F",
        "%",
        "%zz",
        "...",
        ".a",
        "é☃\u{1F4E1}",
        " ",
        "\n\0\x7f",
        "\\..\\",
        ";a=b",
        "~",
        "x",
        "\"<>^`{|}",
    ];
    for route in routes() {
        for argument in nasty {
            let full: Vec<String> = route
                .path
                .split('/')
                .skip(1)
                .map(|s| if s.starts_with('{') { argument.to_owned() } else { s.to_owned() })
                .collect();
            let target = expand(route.method, &texts(&full)).expect(route.path);
            assert_eq!(target.route, Some(route), "{argument}");
            let short = shorten(&target.path).expect(route.path);
            match route.code {
                Some(code) => assert_eq!(short[0], code.to_string(), "{}", route.path),
                None => assert_eq!(short, full),
            }
            let back = expand(route.method, &texts(&short)).expect(route.path);
            assert_eq!(back, target);
        }
    }
}

#[test]
fn dot_segments_are_refused_wherever_they_stand() {
    for dots in [".", ".."] {
        for route in routes() {
            for place in 2..route.path.split('/').skip(1).count() {
                let mut full: Vec<&str> = route.path.split('/').skip(1).collect();
                full[place] = dots;
                assert_eq!(expand(route.method, &full), Err(PathError::DotSegment(place)), "{}", route.path);
            }
        }
        assert!(matches!(expand("GET", &["W", dots]), Err(PathError::DotSegment(_))));
        assert!(matches!(expand("PUT", &["9", dots, "m", "1"]), Err(PathError::DotSegment(_))));
        assert!(expand("GET", &["_matrix", dots, "client"]).is_err());
    }
    assert_eq!(shorten("/_matrix/client/%2e%2E/x"), Err(PathError::DotSegment(2)));
}

#[test]
fn nothing_but_the_client_server_api_is_forwarded() {
    for path in [
        "_synapse/admin/v1/users",
        "_synapse/client/x",
        "_matrix/federation/v1/version",
        "_matrix/key/v2/server",
        "_matrix/app/v1/ping",
        "_matrix/foo",
        "_matrix",
        "_matrix//client/v3/sync",
        ".well-known/acme-challenge/x",
        "metrics",
        "/_matrix/client/v3/sync",
        "%5Fmatrix/client/v3/sync",
        "_MATRIX/client/v3/sync",
    ] {
        let segments: Vec<_> = path.split('/').collect();
        assert!(matches!(expand("GET", &segments), Err(PathError::Foreign(_))), "{path}");
    }
    assert!(matches!(shorten("/_synapse/admin"), Err(PathError::Foreign(_))));
    assert_eq!(expand("GET", &[]), Err(PathError::Empty));
    assert_eq!(expand("GET", &["_matrix", "client", "", "sync"]), Err(PathError::EmptySegment(2)));
    assert!(matches!(expand("GET", &["E", ""]), Err(PathError::EmptySegment(_))));
}

#[test]
fn a_code_with_the_wrong_number_of_arguments_says_how_many_it_takes() {
    let message = |segments: &[&str]| expand("GET", segments).expect_err("wrong").to_string();
    assert_eq!(message(&["7", "x"]), "path code '7' takes 0 arguments, not 1");
    assert_eq!(message(&["A", "x"]), "path code 'A' takes 2 arguments, not 1");
    assert_eq!(message(&["W"]), "path code 'W' takes 1 argument, not 0");
    assert_eq!(message(&["8", "x"]), "path code '8' takes 2 or 3 arguments, not 1");
    assert_eq!(message(&["v"]), "path code 'v' is unknown");
    assert_eq!(message(&["é"]), "path code 'é' is unknown");
}

#[test]
fn what_is_no_path_has_a_position() {
    assert_eq!(shorten("_matrix/client"), Err(PathError::NotAbsolute));
    assert_eq!(shorten(""), Err(PathError::NotAbsolute));
    assert_eq!(shorten("/_matrix/client/a%2"), Err(PathError::Percent(17)));
    assert_eq!(shorten("/_matrix/client/v3/%FF"), Err(PathError::NotText(3)));
    assert_eq!(shorten("/_matrix/client/v3/sync?a"), Err(PathError::Unencoded(23)));
    assert_eq!(shorten("/_matrix/client/é"), Err(PathError::Unencoded(16)));
}

#[test]
fn a_segment_of_255_bytes_is_the_longest() {
    let path = |length: usize| format!("/_matrix/client/v3/profile/{}", "%C3%A9".repeat(length / 2));
    assert_eq!(shorten(&path(254)).expect("fits")[1].len(), 254);
    assert_eq!(shorten(&path(256)), Err(PathError::SegmentTooLong { segment: 4, length: 256 }));
}

#[test]
fn recorded_paths_map_and_map_back() {
    let (mut carried, mut short) = (0, 0);
    for line in BufReader::new(GzDecoder::new(TRAFFIC)).lines() {
        let exchange: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let method = exchange["method"].as_str().expect("a method");
        let (path, query) =
            exchange["path"].as_str().map(|p| p.split_once('?').unwrap_or((p, ""))).expect("a path");
        if path == "/_matrix/foo" {
            assert!(matches!(shorten(path), Err(PathError::Foreign(_))));
            continue;
        }
        let segments = shorten(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let target = expand(method, &texts(&segments)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(decoded(&target.path), decoded(&path.replacen("/r0/", "/v3/", 1)));
        short += usize::from(segments[0].len() == 1);
        let options = match split_query(query) {
            Ok(options) => options,
            Err(error) => panic!("{query}: {error}"),
        };
        assert_eq!(form(&expand_query(&texts(&options))), form(query));
        carried += 1;
    }
    assert!(carried > 1_300 && short > 1_000, "{carried} {short}");
}

/// An independent reading: of a path, segment by segment.
fn decoded(path: &str) -> Vec<Vec<u8>> {
    path.split('/').map(unescape).collect()
}

/// An independent reading: of a query, as WHATWG forms are read.
fn form(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let pairs = pieces.map(|piece| piece.split_once('=').unwrap_or((piece, "")));
    pairs
        .map(|(name, value)| (unescape(&name.replace('+', " ")), unescape(&value.replace('+', " "))))
        .collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
        bytes.extend(rest.bytes());
    }
    bytes
}

proptest! {
    #[test]
    fn any_segments_make_a_path_that_is_well_formed_and_comes_back(
        code in "[0-9A-Za-z]|_matrix|", arguments in prop::collection::vec("\\PC{0,8}|[./%?#]{0,3}|[\\x00-\\x7f]{0,4}", 0..5)
    ) {
        let segments: Vec<&str> = std::iter::once(code.as_str()).chain(arguments.iter().map(String::as_str)).collect();
        path::segments_expand(&segments);
        path::segments_expand(&[&["_matrix", "client"], segments.as_slice()].concat());
    }

    #[test]
    fn any_path_fits_coap_and_comes_back(path in "(/_matrix/client(/(r0|v3|rooms|profile|state|[!-~]{0,6})){0,6})|[ -~]{0,30}") {
        path::path_shortens(&path);
    }

    #[test]
    fn any_query_fits_coap_and_comes_back(query in "([a-z=%+.]{0,4}(=(%[0-9A-F]{2}|[!-~]){0,9})?&?){0,6}|\\PC{0,30}") {
        path::query_splits(&query);
    }

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..64)) {
        path::run(&data);
    }
}
