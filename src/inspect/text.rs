//! An explanation as text for a terminal: one field a line, its place in the datagram first.

use std::fmt;
use std::fmt::Write;

use super::explanation::Explanation;
use super::explanation::Header;
use super::explanation::Meaning;
use super::explanation::Sizes;
use super::option::OptionField;
use super::payload::Format;
use super::payload::Payload;
use super::protection::Protection;
use super::wire::bytes;

/// Lines of JSON are indented like the rest.
const INDENT: &str = "        ";

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text)?;
        // A peer's text may hold what moves the cursor or reverses a line.
        for character in text.chars() {
            match character {
                '\n' => f.write_str("\n")?,
                character if is_harmful(character) => write!(f, "\\u{:04x}", u32::from(character))?,
                character => write!(f, "{character}")?,
            }
        }
        Ok(())
    }
}

impl Explanation {
    fn write(&self, f: &mut String) -> fmt::Result {
        if let Some(header) = &self.header {
            write_header(f, header)?;
        }
        if !self.token.is_empty() {
            writeln!(f, "token     {}", bytes(self.sizes.token))?;
            writeln!(f, "{:>6}  {}", self.sizes.header, self.token)?;
        }
        if !self.options.is_empty() {
            write_options(f, &self.options)?;
        }
        if let Some(payload) = &self.payload {
            write_payload(f, payload)?;
        }
        if let Some(fault) = &self.fault {
            match fault.at {
                Some(at) => writeln!(f, "broken at byte {at}\n{INDENT}{}", fault.reason)?,
                None => writeln!(f, "malformed\n{INDENT}{}", fault.reason)?,
            }
            let owed = if fault.reset { "resets it (RFC 7252 §4.2)" } else { "ignores it" };
            writeln!(f, "{INDENT}its receiver {owed}")?;
        }
        if self.fault.is_none() {
            write_meaning(f, &self.meaning)?;
        }
        write_sizes(f, &self.sizes)?;
        match &self.protection {
            Some(protection) => write_protection(f, protection, &self.sizes),
            None => Ok(()),
        }
    }
}

fn write_header(f: &mut impl fmt::Write, header: &Header) -> fmt::Result {
    let Header { version, kind, token_length, code, code_byte, message_id, .. } = header;
    let (first, rest) = header.bytes.split_at_checked(2).unwrap_or_default();
    let (second, id) = rest.split_at_checked(2).unwrap_or_default();
    let type_bits = ["CON", "NON", "ACK", "RST"].iter().position(|other| other == kind).unwrap_or_default();
    let length = bytes(usize::from(*token_length));
    let name = header.name.unwrap_or("unknown");
    writeln!(f, "header    4 bytes")?;
    writeln!(f, "     0  {first}    {version:02b}......  version {version}")?;
    writeln!(f, "              ..{type_bits:02b}....  {kind} {}", type_in_words(kind))?;
    writeln!(f, "              ....{token_length:04b}  token of {length}")?;
    writeln!(f, "     1  {second}    {:03b}.....  class {}", code_byte >> 5, code_byte >> 5)?;
    writeln!(f, "              ...{:05b}  detail {}: {code} {name}", code_byte & 0x1f, code_byte & 0x1f)?;
    writeln!(f, "     2  {id}            message ID {message_id:#06x}")
}

fn type_in_words(kind: &str) -> &'static str {
    match kind {
        "CON" => "confirmable",
        "NON" => "non-confirmable",
        "ACK" => "acknowledgement",
        _ => "reset",
    }
}

fn write_options(f: &mut impl fmt::Write, options: &[OptionField]) -> fmt::Result {
    let size = options.iter().map(|option| option.size).sum();
    let names: Vec<_> = options
        .iter()
        .map(|option| format!("{} {}", option.name.unwrap_or("option"), option.number))
        .collect();
    let width = names.iter().map(String::len).max().unwrap_or_default();
    writeln!(f, "options   {}", bytes(size))?;
    for (option, name) in options.iter().zip(names) {
        let OptionField { at, head, text, .. } = option;
        let critical = if option.critical { "critical" } else { "elective" };
        writeln!(f, "{at:>6}  {head:<10}  {name:<width$}  {critical}  {text}")?;
        if let Some(problem) = &option.problem {
            writeln!(f, "{:20}{problem}", "")?;
        }
    }
    Ok(())
}

fn write_payload(f: &mut impl fmt::Write, payload: &Payload) -> fmt::Result {
    let Payload { at, size, labelled, format, text, json, integer_keys, problem } = payload;
    let format = match (format, integer_keys) {
        (Format::Cbor, true) => "CBOR with integer keys",
        (Format::Cbor, false) => "CBOR",
        (Format::Json, _) => "JSON",
        (Format::Text, _) => "text",
        (Format::Bytes, _) => "bytes",
        (Format::Ciphertext, _) => "encrypted",
        (Format::Block, _) => "a block",
    };
    let labelled = labelled.as_deref().unwrap_or("nothing");
    writeln!(f, "payload   {}: {format}, labelled {labelled}", bytes(*size))?;
    writeln!(f, "{at:>6}  {text}")?;
    if let Some(problem) = problem {
        writeln!(f, "{INDENT}{problem}")?;
    }
    match json {
        Some(json) => {
            writeln!(f, "matrix\n{INDENT}{}", format!("{json:#}").replace('\n', &format!("\n{INDENT}")))
        }
        None => Ok(()),
    }
}

fn write_meaning(f: &mut impl fmt::Write, meaning: &Meaning) -> fmt::Result {
    writeln!(f, "meaning")?;
    writeln!(f, "{INDENT}{}", meaning.role)?;
    let Some(request) = &meaning.request else { return Ok(()) };
    if let Some(problem) = &request.problem {
        return writeln!(f, "{INDENT}{}: no Matrix path: {problem}", request.method);
    }
    let separator = if request.query.is_empty() { "" } else { "?" };
    writeln!(f, "{INDENT}{} {}{separator}{}", request.method, request.path, request.query)?;
    match request.operation {
        Some(operation) => writeln!(f, "{INDENT}Matrix calls this {operation}"),
        None => writeln!(f, "{INDENT}not in the table of routes, passed on as it is"),
    }
}

fn write_protection(f: &mut String, protection: &Protection, sizes: &Sizes) -> fmt::Result {
    let Protection { kid, partial_iv, ciphertext, sealed_by, tag, problem, inner, .. } = protection;
    writeln!(f, "protected by OSCORE (RFC 8613)")?;
    let number = partial_iv.map_or("that of the request".to_owned(), |number| number.to_string());
    let kid = kid.as_deref().map_or("not said", |kid| if kid.is_empty() { "empty" } else { kid });
    writeln!(
        f,
        "{INDENT}in clear: type, message ID, token, kid ({kid}), Partial IV ({number}), and lengths"
    )?;
    if let Some(problem) = problem {
        writeln!(f, "{INDENT}not opened: {problem}")?;
    }
    let (Some(inner), Some(tag)) = (inner, tag) else {
        let hidden = "method or status, path, query, options and body";
        return writeln!(f, "{INDENT}hidden in {}: {hidden}; --key opens it", bytes(*ciphertext));
    };
    let option = sizes.datagram - sizes.header - sizes.token - sizes.payload;
    writeln!(
        f,
        "{INDENT}sealed by the {}: {} of code, options and payload, and a tag of {tag}; outer options {option}",
        sealed_by.unwrap_or("sender"),
        bytes(ciphertext - tag)
    )?;
    writeln!(f, "inside, with the header from outside")?;
    inner.write(f)
}

fn write_sizes(f: &mut impl fmt::Write, sizes: &Sizes) -> fmt::Result {
    let Sizes { header, token, options, payload, unread, datagram, seconds, ip_udp, seconds_with_ip_udp } =
        sizes;
    let unread = if *unread == 0 { String::new() } else { format!(" + unread {unread}") };
    writeln!(f, "size")?;
    writeln!(
        f,
        "{INDENT}header {header} + token {token} + options {options} + payload {payload}{unread} = {}, {seconds:.1} s at 100 bit/s",
        bytes(*datagram)
    )?;
    writeln!(
        f,
        "{INDENT}with IPv4 and UDP {ip_udp} more: {}, {seconds_with_ip_udp:.1} s",
        bytes(datagram + ip_udp)
    )
}

/// Controls, and the marks that change the direction of a line.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
