//! How the link is, as a page for people: no script, nothing from elsewhere, as well on a telephone and in the dark.

use super::status::Link;
use super::status::Status;
use super::status::Waiting;
use crate::matrix;

/// Seconds after which the page loads itself anew.
const REFRESH: u64 = 5;

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#f6f6f4;--card:#fff;--text:#1d1f21;--faint:#62676d;--line:#e2e2de;--up:#1a7f46;--down:#b3261e;--idle:#8a6100}\
@media(prefers-color-scheme:dark){:root{--back:#151719;--card:#1f2225;--text:#e8e8e6;--faint:#9da3a9;--line:#34383c;--up:#5ccb8b;--down:#ff8a80;--idle:#e5b94e}}\
*{box-sizing:border-box}body{margin:0 auto;padding:1.25rem 1rem 2rem;max-width:42rem;background:var(--back);color:var(--text);font:16px/1.45 system-ui,sans-serif}\
h1{font-size:1.05rem;font-weight:600;margin:0 0 .75rem;color:var(--faint)}h2{font-size:1.05rem;margin:1.5rem 0 .5rem}\
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem}\
.link{font-size:1.35rem;font-weight:600}.link::before{content:'';display:inline-block;width:.7em;height:.7em;margin-right:.5em;border-radius:50%;background:currentColor}\
.up{color:var(--up)}.down{color:var(--down)}.unknown{color:var(--idle)}\
p{margin:.3rem 0 0;overflow-wrap:anywhere}.faint,small{color:var(--faint)}small{font-size:.875rem}\
ol{list-style:none;margin:0;padding:0}li+li{border-top:1px solid var(--line);margin-top:.65rem;padding-top:.65rem}\
li{display:grid;grid-template-columns:1fr auto;gap:0 1rem}li b{font-weight:600;overflow-wrap:anywhere}li span{white-space:nowrap}li small{grid-column:1/-1;overflow-wrap:anywhere}\
dl{display:grid;grid-template-columns:1fr auto;gap:.3rem 1rem;margin:0}dt{color:var(--faint)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}";

/// The page.
pub(super) fn page(status: &Status) -> String {
    let (class, link) = match status.link {
        Link::Unknown => ("unknown", "Nothing was asked yet"),
        Link::Up => ("up", "The link is up"),
        Link::Down => ("down", "The link is down"),
    };
    let heard = status.heard_s.map_or("The gateway was never heard.".to_owned(), |seconds| {
        format!("The gateway was heard {} ago.", duration(seconds))
    });
    let error = status.last_error.as_deref().map_or(String::new(), |error| {
        format!("<p class=faint>What last went wrong: {}</p>", escaped(error))
    });
    let (queue, activity) = (queue(status), activity(status));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=refresh content={REFRESH}><title>lowband: {link}</title><style>{STYLE}</style>\
         <h1>lowband proxy</h1><div class=card><div class=\"link {class}\">{link}</div><p>{heard}</p>{error}</div>\
         {queue}{activity}</html>"
    )
}

fn queue(status: &Status) -> String {
    let rows: String = status.queue.iter().map(row).collect();
    match status.queue.len() {
        0 => "<h2>To be sent</h2><div class=card>Nothing waits.</div>".to_owned(),
        number => format!("<h2>To be sent: {number}</h2><ol class=card>{rows}</ol>"),
    }
}

fn row(waiting: &Waiting) -> String {
    let (title, room) = words(&waiting.what);
    let again = waiting.again_s.map_or(String::new(), |seconds| format!(" in {}", duration(seconds)));
    let (state, bytes, age) = (waiting.state, waiting.bytes, duration(waiting.age_s));
    let room = room.map_or(String::new(), |room| format!("{} · ", escaped(room)));
    format!(
        "<li><b>{}</b><span>{state}{again}</span><small>{room}{bytes} bytes, for {age}</small></li>",
        escaped(title)
    )
}

/// What it is, and where.
fn words(what: &str) -> (&str, Option<&str>) {
    let place = [" to !", " in !", " of !"].iter().find_map(|between| what.find(between));
    match place.and_then(|place| what.split_at_checked(place)) {
        Some((title, room)) => (title, room.get(1..)),
        None => (what, None),
    }
}

fn activity(status: &Status) -> String {
    let counters = &status.counters;
    let rows = [
        ("Requests under way", status.under_way as u64),
        ("Clients that wait for news", status.syncs as u64),
        ("Requests of clients", counters.requests),
        ("answered here", counters.local),
        ("polls that found nothing", counters.idle_polls),
        ("Asked over the link", counters.asked),
        ("asked again", counters.again),
        ("Refused, as too much was under way", counters.refused),
    ];
    let rows: String = rows.iter().map(|(name, count)| format!("<dt>{name}<dd>{count}")).collect();
    format!("<h2>Since the start</h2><dl class=card>{rows}</dl>")
}

/// What a request is to a person: a message to a room, and so on.
pub(super) fn description(method: &str, path: &str) -> String {
    let segments = matrix::split_path(path).unwrap_or_default();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.get(3..).unwrap_or_default() {
        ["rooms", room, "send", "m.room.message", _] => format!("message to {room}"),
        ["rooms", room, "send", "m.room.encrypted", _] => format!("encrypted message to {room}"),
        ["rooms", room, "send", "m.reaction", _] => format!("reaction in {room}"),
        ["rooms", room, "send", kind, _] => format!("{kind} to {room}"),
        ["rooms", room, "redact", ..] => format!("redaction in {room}"),
        ["rooms", room, "state", "m.room.member", user] => format!("membership of {user} in {room}"),
        ["rooms", room, "state", kind, ..] => format!("{kind} of {room}"),
        ["sendToDevice", "m.room.encrypted", _] => "keys to devices".to_owned(),
        ["sendToDevice", kind, _] => format!("{kind} to devices"),
        _ => format!("{method} {path}"),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s"),
        100..5_400 => format!("{} min", seconds / 60),
        5_400..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_said_for_people() {
        for (path, said) in [
            ("/_matrix/client/v3/rooms/%21a%3Ahs/send/m.room.message/m1", "message to !a:hs"),
            ("/_matrix/client/v3/rooms/!a:hs/send/m.room.encrypted/m1", "encrypted message to !a:hs"),
            ("/_matrix/client/v3/rooms/!a:hs/redact/$e/m1", "redaction in !a:hs"),
            ("/_matrix/client/v3/rooms/!a:hs/state/m.room.name/", "m.room.name of !a:hs"),
            ("/_matrix/client/v3/sendToDevice/m.room.encrypted/m1", "keys to devices"),
            ("/_matrix/client/v3/thing", "PUT /_matrix/client/v3/thing"),
        ] {
            assert_eq!(description("PUT", path), said);
        }
        assert_eq!(words("message to !a:hs"), ("message", Some("to !a:hs")));
        assert_eq!(words("keys to devices"), ("keys to devices", None));
    }

    #[test]
    fn nothing_that_a_client_says_is_markup() {
        let waiting = Waiting {
            method: "PUT".to_owned(),
            path: String::new(),
            what: description("PUT", "/_matrix/client/v3/rooms/!%3Cscript%3E/send/m.%3Cb%3E/1"),
            bytes: 17,
            age_s: 130,
            state: "to be tried again",
            again_s: Some(12),
        };
        let row = row(&waiting);
        assert!(
            row.contains("m.&lt;b&gt;") && row.contains("to !&lt;script&gt; · 17 bytes, for 2 min"),
            "{row}"
        );
        assert!(row.contains("to be tried again in 12 s"), "{row}");
    }
}
