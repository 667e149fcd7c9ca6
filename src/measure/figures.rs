//! What was counted.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap;

use super::class::Class;

/// What some exchanges come to, requests and answers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// How many they are.
    pub exchanges: u64,
    /// Bytes of JSON in their bodies.
    pub json: u64,
    /// Bytes of CoAP payloads, and of the options that stand for path and query.
    pub payload: u64,
    /// Bytes of CoAP messages: headers, tokens, options and payloads, of acknowledgements and of each block too.
    pub coap: u64,
    /// The same with what protects them: the UDP payload.
    pub secured: u64,
    /// The same with headers of IPv4 and UDP, 28 bytes to each datagram.
    pub wire: u64,
    /// Datagrams, with what protects the messages.
    pub datagrams: u64,
    /// How long they are on the air, with what the link itself adds to them.
    #[serde(rename = "airtime_s", serialize_with = "seconds")]
    pub airtime: Duration,
    /// Exchanges that do not arrive as they were recorded.
    pub mismatches: u64,
}

impl Figures {
    /// Adds those of other exchanges.
    pub fn add(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.json += other.json;
        self.payload += other.payload;
        self.coap += other.coap;
        self.secured += other.secured;
        self.wire += other.wire;
        self.datagrams += other.datagrams;
        self.airtime += other.airtime;
        self.mismatches += other.mismatches;
    }
}

/// Figures by class. As JSON an object of `steady`, `all` and `classes`; as text a table of those classes that there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of [`Class::ALL`].
    classes: [Figures; Class::ALL.len()],
}

impl Report {
    /// Adds an exchange's.
    pub fn add(&mut self, class: Class, figures: &Figures) {
        for (place, own) in Class::ALL.into_iter().zip(&mut self.classes) {
            if place == class {
                own.add(figures);
            }
        }
    }

    /// Each class, with its figures.
    pub fn classes(&self) -> impl Iterator<Item = (Class, &Figures)> {
        Class::ALL.into_iter().zip(&self.classes)
    }

    /// All classes of a client's everyday life.
    pub fn steady(&self) -> Figures {
        self.sum(Class::is_steady)
    }

    /// All.
    pub fn all(&self) -> Figures {
        self.sum(|_| true)
    }

    fn sum(&self, is_in: impl Fn(Class) -> bool) -> Figures {
        let mut sum = Figures::default();
        self.classes().filter(|(class, _)| is_in(*class)).for_each(|(_, figures)| sum.add(figures));
        sum
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Classes<'a>(&'a Report);
        impl Serialize for Classes<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.classes().map(|(class, figures)| (class.name(), figures)))
            }
        }
        let mut object = serializer.serialize_map(Some(3))?;
        object.serialize_entry("steady", &self.steady())?;
        object.serialize_entry("all", &self.all())?;
        object.serialize_entry("classes", &Classes(self))?;
        object.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11} {:>10}",
            "",
            "exchanges",
            "JSON",
            "payload",
            "CoAP",
            "secured",
            "wire",
            "datagrams",
            "airtime s",
            "mismatches"
        )?;
        let there = self.classes().filter(|(_, figures)| figures.exchanges > 0);
        there.into_iter().try_for_each(|(class, figures)| row(f, class.name(), figures))?;
        row(f, "steady state", &self.steady())?;
        row(f, "all", &self.all())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, figures: &Figures) -> fmt::Result {
    let Figures { exchanges, json, payload, coap, secured, wire, datagrams, airtime, mismatches } = figures;
    write!(f, "{name:12} {exchanges:>9} {json:>9} {payload:>9} {coap:>9} {secured:>9} {wire:>9} ")?;
    writeln!(f, "{datagrams:>9} {:>11.1} {mismatches:>10}", airtime.as_secs_f64())
}

/// Seconds, to the millisecond.
fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        let figures = Figures {
            exchanges: 1,
            json: 2,
            payload: 3,
            coap: 4,
            secured: 5,
            wire: 6,
            datagrams: 7,
            airtime: Duration::from_micros(80_400),
            mismatches: 8,
        };
        report.add(Class::Send, &figures);
        report.add(Class::Send, &figures);
        report.add(Class::Keys, &figures);
        report
    }

    #[test]
    fn json_has_each_class_and_two_sums() {
        let json = serde_json::to_value(report()).unwrap();
        let figures = |times: u64, airtime: f64| {
            serde_json::json!({
                "exchanges": times, "json": 2 * times, "payload": 3 * times, "coap": 4 * times, "secured": 5 * times,
                "wire": 6 * times, "datagrams": 7 * times, "airtime_s": airtime, "mismatches": 8 * times,
            })
        };
        assert_eq!(json["steady"], figures(2, 0.161));
        assert_eq!(json["all"], figures(3, 0.241));
        assert_eq!(json["classes"]["send"], figures(2, 0.161));
        assert_eq!(json["classes"]["keys"], figures(1, 0.08));
        assert_eq!(json["classes"].as_object().unwrap().len(), Class::ALL.len());
        assert_eq!(json.as_object().unwrap().len(), 3);
    }

    #[test]
    fn text_has_the_classes_that_there_were() {
        let text = report().to_string();
        let first = |line: &str| line.get(..12).unwrap_or(line).trim().to_owned();
        assert_eq!(text.lines().map(first).collect::<Vec<_>>(), ["", "send", "keys", "steady state", "all"]);
    }
}
