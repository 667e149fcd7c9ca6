//! The end of the demo: what each call cost, beside what it costs over HTTPS.

use std::fmt;

use serde::Serialize;

use super::wire;
use super::wire::Datagram;

/// The link that all times are for.
const BITS_PER_SECOND: u64 = 100;

/// Costs over HTTPS: name, bytes over a fresh connection, bytes over one kept alive, meaning. `#` begins a comment.
const HTTPS: &str = include_str!("https.tsv");

/// What happened in one step of the conversation.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// What it is.
    pub(super) title: String,
    /// Its bytes, headers of IP and UDP included.
    pub(super) bytes: usize,
    /// Its datagrams, in order.
    pub(super) datagrams: Vec<Datagram>,
}

impl Step {
    pub(super) fn new(title: &str, datagrams: Vec<Datagram>) -> Self {
        let bytes = datagrams.iter().map(|datagram| datagram.bytes).sum();
        Self { title: title.to_owned(), bytes, datagrams }
    }

    /// The bytes to and from one of the clients.
    pub(super) fn bytes_of(&self, client: &str) -> usize {
        self.datagrams
            .iter()
            .filter(|datagram| datagram.client == client)
            .map(|datagram| datagram.bytes)
            .sum()
    }
}

/// The whole demo.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    homeserver: String,
    minimal_homeserver: bool,
    header_bytes_per_datagram: usize,
    bits_per_second: u64,
    bytes: usize,
    datagrams: usize,
    elapsed_ms: u64,
    /// The calls that were measured over HTTPS too.
    table: Vec<Row>,
    steps: Vec<Step>,
}

/// One call, both ways.
#[derive(Debug, Serialize)]
struct Row {
    call: &'static str,
    meaning: &'static str,
    lowband_bytes: usize,
    lowband_seconds: f64,
    https_keep_alive_bytes: usize,
    https_keep_alive_seconds: f64,
    https_fresh_bytes: usize,
    https_fresh_seconds: f64,
}

impl Report {
    /// `costs` has the bytes of the calls that were measured over HTTPS too, by their names in the table of those.
    pub(super) fn new(
        homeserver: String,
        minimal_homeserver: bool,
        elapsed_ms: u64,
        steps: Vec<Step>,
        costs: &[(&str, usize)],
    ) -> Self {
        Self {
            homeserver,
            minimal_homeserver,
            header_bytes_per_datagram: wire::HEADERS,
            bits_per_second: BITS_PER_SECOND,
            bytes: steps.iter().map(|step| step.bytes).sum(),
            datagrams: steps.iter().map(|step| step.datagrams.len()).sum(),
            elapsed_ms,
            table: table(costs),
            steps,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nBytes with IP and UDP (or TCP) headers, and the time they take at {BITS_PER_SECOND} bit/s:\n"
        )?;
        writeln!(
            f,
            "{:14}{:>18}{:>22}{:>22}",
            "", "lowband, this run", "HTTPS, keep-alive *", "HTTPS, fresh *"
        )?;
        for row in &self.table {
            let cell = |bytes: usize, seconds: f64| format!("{bytes} B {:>8}", duration(seconds));
            writeln!(
                f,
                "{:14}{:>18}{:>22}{:>22}",
                row.call,
                cell(row.lowband_bytes, row.lowband_seconds),
                cell(row.https_keep_alive_bytes, row.https_keep_alive_seconds),
                cell(row.https_fresh_bytes, row.https_fresh_seconds),
            )?;
        }
        writeln!(f)?;
        for row in &self.table {
            writeln!(f, "{:14}{}", row.call, row.meaning)?;
        }
        writeln!(f, "\n* measured beforehand against a real Synapse over TLS 1.3, not in this run")?;
        writeln!(
            f,
            "  idle: an observation costs nothing while nothing happens; the demo watches that for 3 s"
        )?;
        if self.minimal_homeserver {
            writeln!(
                f,
                "  the minimal homeserver's answers are of real shape, and shorter in places: the initial sync above all"
            )?;
        }
        let (datagrams, bytes) = (self.datagrams, self.bytes);
        let seconds = self.elapsed_ms as f64 / 1_000.0;
        writeln!(
            f,
            "\nThe whole demo: {datagrams} datagrams, {bytes} B, {} at {BITS_PER_SECOND} bit/s; it took {seconds:.1} s here.",
            duration(seconds_on_link(bytes))
        )
    }
}

/// How long so many bytes take on the link.
pub(super) fn seconds_on_link(bytes: usize) -> f64 {
    bytes as f64 * 8.0 / BITS_PER_SECOND as f64
}

/// Seconds as people read them.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 600.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn table(costs: &[(&str, usize)]) -> Vec<Row> {
    let lines = HTTPS.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.filter_map(|line| {
        let mut fields = line.split('\t');
        let call = fields.next()?;
        let (fresh, keep_alive) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let meaning = fields.next()?;
        let lowband = costs.iter().find(|(name, _)| *name == call)?.1;
        Some(Row {
            call,
            meaning,
            lowband_bytes: lowband,
            lowband_seconds: seconds_on_link(lowband),
            https_keep_alive_bytes: keep_alive,
            https_keep_alive_seconds: seconds_on_link(keep_alive),
            https_fresh_bytes: fresh,
            https_fresh_seconds: seconds_on_link(fresh),
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_data_is_read() {
        let names: Vec<&str> = HTTPS.lines().filter_map(|line| line.split('\t').next()).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| !name.starts_with('#')).collect();
        let costs: Vec<(&str, usize)> = names.iter().map(|name| (*name, 100)).collect();
        let calls: Vec<&str> = table(&costs).iter().map(|row| row.call).collect();
        assert_eq!(calls, names);
        assert_eq!(table(&costs)[0].https_keep_alive_bytes, 1_316);
        assert_eq!(table(&costs)[0].lowband_seconds, 8.0);
    }
}
