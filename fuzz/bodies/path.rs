//! Any bytes as Uri-Path segments, as a path and as a query: no panic, and what comes out is well formed and comes back.

use lowband::matrix::PathError;
use lowband::matrix::expand;
use lowband::matrix::expand_query;
use lowband::matrix::shorten;
use lowband::matrix::split_query;

/// Tries `data` as each of the three; NUL separates segments.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let segments: Vec<&str> = text.split('\0').collect();
    segments_expand(&segments);
    path_shortens(&text);
    query_splits(&text);
    // Few inputs begin as a path must; these do.
    segments_expand(&[&["_matrix", "client", "r0"], segments.as_slice()].concat());
    path_shortens(&format!("/_matrix/client/v3/{text}"));
}

/// What is forwarded holds only what a path may, cannot be misread, and has the same Uri-Path again.
pub fn segments_expand(segments: &[&str]) {
    let Ok(target) = expand("PUT", segments) else { return };
    assert_well_formed(&target.path);
    assert_uri(&target.path);
    match shorten(&target.path) {
        Ok(short) => assert_eq!(path_of(&short), today(&target.path, &short)),
        Err(PathError::SegmentTooLong { length, .. }) => assert!(segments.iter().any(|s| s.len() >= length)),
        Err(error) => panic!("{} does not come back: {error}", target.path),
    }
}

/// What is sent fits CoAP and is what the other end shortens the same path to.
pub fn path_shortens(path: &str) {
    let Ok(segments) = shorten(path) else { return };
    assert!(segments.iter().all(|segment| segment.len() <= 255));
    let expanded = path_of(&segments);
    assert_well_formed(&expanded);
    assert_eq!(shorten(&expanded).as_ref(), Ok(&segments));
}

/// What is sent fits CoAP and is what the other end splits the same query to.
pub fn query_splits(query: &str) {
    let Ok(options) = split_query(query) else { return };
    assert!(options.iter().all(|option| (1..=255).contains(&option.len())));
    let texts: Vec<&str> = options.iter().map(String::as_str).collect();
    let expanded = expand_query(&texts);
    assert_uri(&format!("/?{expanded}"));
    assert_eq!(split_query(&expanded).as_ref(), Ok(&options));
}

fn path_of(segments: &[String]) -> String {
    let texts: Vec<&str> = segments.iter().map(String::as_str).collect();
    expand("PUT", &texts).unwrap_or_else(|error| panic!("{segments:?} is refused: {error}")).path
}

/// A path code leads to the path of today; the full form keeps its version.
fn today(path: &str, segments: &[String]) -> String {
    match segments.first().is_some_and(|first| first.len() == 1) {
        true => path.replacen("/_matrix/client/r0/", "/_matrix/client/v3/", 1),
        false => path.to_owned(),
    }
}

fn assert_well_formed(path: &str) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*,=:@%".contains(&byte);
    assert!(path.starts_with('/') && path.bytes().all(legal), "{path:?}");
    assert!(path.split('/').all(|segment| !matches!(segment, "." | "..")), "{path:?}");
    assert!(!path.contains("//"), "{path:?}");
    let forwarded = ["/_matrix/client", "/_matrix/media", "/.well-known/matrix"];
    let inside = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    assert!(forwarded.iter().any(inside), "{path:?}");
}

fn assert_uri(uri: &str) {
    // The `http` crate holds no longer ones.
    if uri.len() < usize::from(u16::MAX) {
        let parsed: http::Uri = uri.parse().unwrap_or_else(|error| panic!("{uri:?}: {error}"));
        assert_eq!(parsed.to_string(), uri);
    }
}
