//! Queries both ways: CoAP Uri-Query options ⇄ the query of a URL (RFC 7252 §6.4 and §6.5).
//!
//! An option is one parameter, `name=value` or a bare name, as decoded text. Order and repetition are kept.

use crate::matrix::percent;

/// RFC 7252 §5.10: no Uri-Query option is longer, in bytes.
const LONGEST_OPTION: usize = 255;

/// RFC 3986 §3.4, without what separates parameters (`&`, to some servers `;`), what separates a name from its value,
/// and `+`, which forms read as a space.
const RAW_IN_QUERY: &[u8] = b"!$'()*,:@/?";

/// Why a query cannot be carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A parameter that no Uri-Query option can hold.
    #[error("query parameter {name:?} has {length} bytes; CoAP carries at most 255")]
    TooLong {
        /// The parameter.
        name: String,
        /// The bytes of its name, the equals sign and its value, decoded.
        length: usize,
    },
    /// A `%` without two hexadecimal digits, at this byte of the query.
    #[error("byte {0} of the query is a % without two hexadecimal digits")]
    Percent(usize),
    /// A parameter, counted from 0, that is not UTF-8 when decoded.
    #[error("query parameter {0} is not UTF-8")]
    NotText(usize),
    /// A parameter, counted from 0, whose name contains an equals sign: an option could not say where it ends.
    #[error("the name of query parameter {0} contains an equals sign")]
    Name(usize),
}

/// Makes Uri-Query options the query of a URL, percent-encoded. Empty options say nothing and are left out.
///
/// ```
/// assert_eq!(lowband::matrix::expand_query(&["from=a+b", "dir=b", "archived"]), "from=a%2Bb&dir=b&archived");
/// ```
pub fn expand_query(options: &[&str]) -> String {
    let mut query = String::new();
    for option in options.iter().filter(|option| !option.is_empty()) {
        if !query.is_empty() {
            query.push('&');
        }
        let (name, value) = parameter(option);
        percent::encode(name, RAW_IN_QUERY, &mut query);
        if let Some(value) = value {
            query.push('=');
            percent::encode(value, RAW_IN_QUERY, &mut query);
        }
    }
    query
}

/// Makes a text part of a query's value.
pub(crate) fn encode_value(value: &str, query: &mut String) {
    percent::encode(value, RAW_IN_QUERY, query);
}

/// Makes the query of a URL, without its `?`, Uri-Query options. Read as forms are: `+` is a space.
///
/// ```
/// assert_eq!(lowband::matrix::split_query("a=1&b=x+y&a=").unwrap(), ["a=1", "b=x y", "a="]);
/// ```
pub fn split_query(query: &str) -> Result<Vec<String>, QueryError> {
    let options = decode(query)?;
    match options.iter().find(|option| option.len() > LONGEST_OPTION) {
        Some(option) => {
            Err(QueryError::TooLong { name: parameter(option).0.to_owned(), length: option.len() })
        }
        None => Ok(options),
    }
}

/// The same where no option has to hold a parameter, so that they may be longer.
pub fn decode(query: &str) -> Result<Vec<String>, QueryError> {
    let mut options = Vec::new();
    let mut start = 0;
    for (place, piece) in query.split('&').enumerate() {
        let option = option(piece, place, start)?;
        start += piece.len() + 1;
        if !option.is_empty() {
            options.push(option);
        }
    }
    Ok(options)
}

/// The value of the first parameter with this name; empty if it is bare.
pub fn get<'a>(options: &'a [String], name: &str) -> Option<&'a str> {
    let mut parameters = options.iter().map(|option| parameter(option));
    parameters.find(|(own, _)| *own == name).map(|(_, value)| value.unwrap_or_default())
}

/// The options with `name` said once, as `value`, in its old place or at the end; or, for `None`, not said at all.
pub fn with(options: &[String], name: &str, value: Option<&str>) -> Vec<String> {
    let mut replacement = value.map(|value| format!("{name}={value}"));
    let mut changed = Vec::with_capacity(options.len() + 1);
    for option in options {
        match parameter(option).0 == name {
            true => changed.extend(replacement.take()),
            false => changed.push(option.clone()),
        }
    }
    changed.extend(replacement);
    changed
}

fn parameter(option: &str) -> (&str, Option<&str>) {
    match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    }
}

/// One parameter, `place` in order and beginning at byte `start` of the query, decoded.
fn option(piece: &str, place: usize, start: usize) -> Result<String, QueryError> {
    let decode = |component: &str, offset: usize| {
        percent::decode(&component.replace('+', " ")).map_err(|error| match error {
            percent::DecodeError::Malformed(byte) => QueryError::Percent(start + offset + byte),
            percent::DecodeError::NotText => QueryError::NotText(place),
        })
    };
    let (name, value) = parameter(piece);
    let mut option = decode(name, 0)?;
    if option.contains('=') {
        return Err(QueryError::Name(place));
    }
    if let Some(value) = value {
        option.push('=');
        option.push_str(&decode(value, name.len() + 1)?);
    }
    Ok(option)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn order_repetition_empty_values_and_bare_names_are_kept() {
        let query = "via=a&since=&via=b&archived&via=a";
        let split = split_query(query).unwrap();
        assert_eq!(split, ["via=a", "since=", "via=b", "archived", "via=a"]);
        let texts: Vec<_> = split.iter().map(String::as_str).collect();
        assert_eq!(expand_query(&texts), query);
    }

    #[test]
    fn what_separates_is_encoded_inside_a_value() {
        assert_eq!(expand_query(&["q=a&b=c;d+e f#%"]), "q=a%26b%3Dc%3Bd%2Be%20f%23%25");
        assert_eq!(expand_query(&["filter={\"a\":[1]}"]), "filter=%7B%22a%22:%5B1%5D%7D");
        assert_eq!(split_query("q=a%26b=c%2Bd").unwrap(), ["q=a&b=c+d"]);
    }

    #[test]
    fn nothing_stays_nothing() {
        assert_eq!(split_query("").unwrap(), Vec::<String>::new());
        assert_eq!(split_query("&a=1&").unwrap(), ["a=1"]);
        assert_eq!(expand_query(&["", "a=1", ""]), "a=1");
        assert_eq!(expand_query(&[]), "");
    }

    #[test]
    fn an_option_of_255_bytes_is_the_longest() {
        let value = "x".repeat(255 - "filter=".len());
        assert_eq!(split_query(&format!("filter={value}")).unwrap().len(), 1);
        let error = split_query(&format!("a=1&filter={value}y")).unwrap_err();
        assert_eq!(error, QueryError::TooLong { name: "filter".to_owned(), length: 256 });
        // Three bytes of a URL are one of an option.
        assert!(split_query(&format!("filter={}", "%7B".repeat(248))).is_ok());
    }

    #[test]
    fn a_query_of_any_length_is_carried() {
        let query = vec!["via=server.example"; 5_000].join("&");
        let split = split_query(&query).unwrap();
        let texts: Vec<_> = split.iter().map(String::as_str).collect();
        assert_eq!(expand_query(&texts), query);
    }

    #[test]
    fn what_cannot_be_carried_is_an_error() {
        assert_eq!(split_query("a=1&b=%G0"), Err(QueryError::Percent(6)));
        assert_eq!(split_query("a=1&b=%FF"), Err(QueryError::NotText(1)));
        assert_eq!(split_query("a%3Db=c"), Err(QueryError::Name(0)));
    }

    #[test]
    fn a_parameter_is_set_in_its_place_and_once() {
        let query = options(&["filter=1", "since=a", "timeout=0", "since=b"]);
        assert_eq!(with(&query, "since", Some("s2")), ["filter=1", "since=s2", "timeout=0"]);
        assert_eq!(with(&query, "since", None), ["filter=1", "timeout=0"]);
        assert_eq!(with(&query, "full_state", Some("true")).last().unwrap(), "full_state=true");
        assert_eq!(with(&query, "sinc", None), query);
    }

    #[test]
    fn a_parameter_is_read() {
        let query = options(&["archived", "since=a=b", "since=c"]);
        assert_eq!(get(&query, "since"), Some("a=b"));
        assert_eq!(get(&query, "archived"), Some(""));
        assert_eq!(get(&query, "timeout"), None);
    }
}
