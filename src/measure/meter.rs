//! Replays exchanges and keeps account.

use std::collections::BTreeMap;

use http::HeaderValue;

use super::difference::Difference;
use super::ends::Encoding;
use super::ends::Ends;
use super::exchange::Exchange;
use super::figures::Figures;
use super::figures::Report;
use super::line::Line;
use super::line::Security;
use crate::coap::OptionNumber;
use crate::coap::Options;
use crate::link::Profile;

/// How exchanges are replayed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How they are written.
    pub encoding: Encoding,
    /// What protects them.
    pub security: Security,
    /// The link that they cross.
    pub link: Profile,
}

/// Replays exchanges one after the other, and counts.
#[derive(Debug)]
pub struct Meter {
    setup: Setup,
    associations: BTreeMap<Option<Vec<u8>>, Association>,
    /// How many there were.
    begun: u64,
    replayed: u64,
    report: Report,
}

/// All that two ends have between them.
#[derive(Debug)]
struct Association {
    ends: Ends,
    line: Line,
    /// The same conversation without protection, where its messages are not the same without.
    plain: Option<Line>,
    /// The number of its last exchange.
    used: u64,
}

/// Headers of IPv4 and UDP.
const IP_UDP: u64 = 28;

impl Meter {
    /// Associations that are held at a time. Beyond that the one that was not used for longest is forgotten by both its ends, and begins anew
    /// when it is used again.
    pub const ASSOCIATIONS: usize = 1_000;

    /// Nothing was replayed yet.
    pub fn new(setup: Setup) -> Self {
        Self { setup, associations: BTreeMap::new(), begun: 0, replayed: 0, report: Report::default() }
    }

    /// Replays an exchange, and says in what it differs from how it was recorded, if it does. What was sent counts all the same.
    pub fn replay(&mut self, exchange: &Exchange) -> Option<Difference> {
        let (security, replayed) = (self.setup.security, self.replayed);
        self.replayed += 1;
        let association = self.association(exchange.authorization());
        association.used = replayed;
        let mut figures = Figures { exchanges: 1, json: exchange.json() as u64, ..Figures::default() };
        let difference = association.replay(exchange, &mut figures).err();
        figures.mismatches = u64::from(difference.is_some());
        association.account(security, &mut figures);
        self.report.add(exchange.class(), &figures);
        if difference.as_ref().is_some_and(Difference::is_final) {
            // What either end knows of the other after that, nobody knows.
            self.associations.remove(&whose(exchange.authorization()));
        }
        difference
    }

    /// How the exchanges are written.
    pub fn encoding(&self) -> &Encoding {
        &self.setup.encoding
    }

    /// What was counted.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// How many associations began.
    pub fn associations(&self) -> u64 {
        self.begun
    }

    /// One value of `Authorization`, one association.
    fn association(&mut self, authorization: Option<&HeaderValue>) -> &mut Association {
        let whose = whose(authorization);
        if !self.associations.contains_key(&whose) && self.associations.len() >= Self::ASSOCIATIONS {
            let oldest = self.associations.iter().min_by_key(|(_, association)| association.used);
            if let Some(oldest) = oldest.map(|(whose, _)| whose.clone()) {
                self.associations.remove(&oldest);
            }
        }
        let (setup, begun) = (&self.setup, &mut self.begun);
        self.associations.entry(whose).or_insert_with(|| {
            *begun += 1;
            Association::new(setup)
        })
    }
}

impl Association {
    fn new(setup: &Setup) -> Self {
        let Setup { encoding, security, link } = setup;
        Self {
            ends: encoding.ends(),
            line: Line::new(link, *security),
            plain: (*security == Security::Oscore).then(|| Line::new(link, Security::None)),
            used: 0,
        }
    }

    /// An exchange from its beginning to its end, up to where it cannot go on; what then differs first.
    fn replay(&mut self, exchange: &Exchange, figures: &mut Figures) -> Result<(), Difference> {
        let Self { ends, line, plain, .. } = self;
        let asked = ends.ask(exchange)?;
        figures.payload += in_place_of_http(&asked.options, asked.payload.len());
        if let Some(plain) = plain {
            plain.ask(asked.clone())?;
        }
        let (said, taken) = ends.answer(&line.ask(asked)?, exchange);
        figures.payload += in_place_of_http(&said.options, said.payload.len());
        if let Some(plain) = plain {
            plain.answer(said.clone())?;
        }
        let received = ends.receive(&line.answer(said)?, exchange);
        taken.and(received)
    }

    /// Adds what the exchange has cost, and lets some time go by.
    fn account(&mut self, security: Security, figures: &mut Figures) {
        let cost = self.line.take_cost();
        self.line.pause();
        figures.datagrams = cost.datagrams;
        figures.secured = cost.bytes;
        figures.wire = cost.bytes + IP_UDP * cost.datagrams;
        figures.airtime = cost.airtime;
        figures.coap = match &mut self.plain {
            Some(plain) => plain.take_cost().bytes,
            None => cost.bytes - security.sealing() as u64 * cost.datagrams,
        };
        if let Some(plain) = &mut self.plain {
            plain.pause();
        }
    }
}

/// What an association is known by.
fn whose(authorization: Option<&HeaderValue>) -> Option<Vec<u8>> {
    authorization.map(|value| value.as_bytes().to_vec())
}

/// What stands in CoAP for what HTTP has in path, query and body: the payload, and the options Uri-Path and Uri-Query with their headers.
fn in_place_of_http(options: &Options, payload: usize) -> u64 {
    let header = |length| match length {
        ..13 => 1,
        13..269 => 2,
        _ => 3,
    };
    // RFC 7252 §3.1: their numbers are so close that the delta takes no byte of its own.
    let options =
        [OptionNumber::URI_PATH, OptionNumber::URI_QUERY].into_iter().flat_map(|it| options.all(it));
    let bytes: usize = options.map(|value| header(value.len()) + value.len()).sum();
    (bytes + payload) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &str = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/t1";

    fn meter(link: &str, security: Security) -> Meter {
        let link = Profile::built_in(link).unwrap();
        Meter::new(Setup { encoding: Encoding::Msc3079, security, link })
    }

    fn exchange(method: &str, path: &str, token: &str, bodies: [&str; 2]) -> Exchange {
        let [asked, answered] = bodies;
        let line = format!(
            r#"{{"method":"{method}","path":"{path}","req_headers":{{"authorization":"Bearer {token}"}},"req":{asked},"status":200,"resp":{answered}}}"#
        );
        Exchange::read(1, line.as_bytes()).unwrap()
    }

    fn send(token: &str) -> Exchange {
        exchange("PUT", SEND, token, [r#"{"body":"Hello"}"#, r#"{"event_id":"$x"}"#])
    }

    #[test]
    fn an_exchange_by_hand() {
        // Options: 9 2, !a:b 5, m.room.message 2 + 14, t1 3. Bodies: a1 18 1b 65 Hello, and a1 03 62 $x: 9, and 5.
        let payload = 26 + 9 + 5;
        // Headers and tokens 8 each; the format 3 c and its marker in each; a token of 3 + 1 bytes with 2 of delta; 257 1.
        let coap = payload + 2 * (8 + 2 + 1) + (3 + 2) + 2;
        for (security, secured) in [(Security::None, coap), (Security::Dtls, coap + 2 * 29)] {
            let mut meter = meter("lan", security);
            assert_eq!(meter.replay(&send("TOK")), None);
            let expected = Figures {
                exchanges: 1,
                json: 16 + 17,
                payload,
                coap,
                secured,
                wire: secured + 2 * 28,
                datagrams: 2,
                ..Figures::default()
            };
            assert_eq!(meter.report().all(), expected, "{security:?}");
        }
    }

    #[test]
    fn oscore_adds_fourteen_bytes_to_a_request_and_eleven_to_an_answer_or_so() {
        let mut meter = meter("lan", Security::Oscore);
        assert_eq!(meter.replay(&send("TOK")), None);
        let Figures { coap, secured, datagrams, .. } = meter.report().all();
        assert_eq!((datagrams, secured - coap), (2, 14 + 11));
    }

    #[test]
    fn a_token_is_said_once_in_each_association() {
        let mut meter = meter("lan", Security::None);
        let mut coap = |token: &str| {
            let before = meter.report().all().coap;
            assert_eq!(meter.replay(&send(token)), None);
            meter.report().all().coap - before
        };
        assert_eq!(["A", "A", "B", "A", "B"].map(|token| coap(token) - coap("A")), [5, 0, 5, 0, 0]);
        assert_eq!(meter.associations(), 2);
    }

    #[test]
    fn of_too_many_associations_the_one_that_rested_longest_begins_anew() {
        let mut meter = meter("lan", Security::None);
        (0..Meter::ASSOCIATIONS)
            .for_each(|number| assert_eq!(meter.replay(&send(&number.to_string())), None));
        for token in ["0", "new", "0", "1"] {
            assert_eq!(meter.replay(&send(token)), None);
        }
        assert_eq!(meter.associations.len(), Meter::ASSOCIATIONS);
        assert_eq!(meter.associations(), Meter::ASSOCIATIONS as u64 + 2);
    }

    #[test]
    fn blocks_and_what_asks_for_them_count_too() {
        let long = format!(r#"{{"body":"{}"}}"#, "x".repeat(1000));
        for (link, least) in [("hf-100", 4), ("lora-sf12", 8), ("lan", 1)] {
            let mut meter = meter(link, Security::Oscore);
            assert_eq!(meter.replay(&exchange("PUT", SEND, "A", [&long, &long])), None);
            let Figures { datagrams, coap, secured, airtime, .. } = meter.report().all();
            assert!(datagrams >= 2 * least, "{link}: {datagrams}");
            assert!(secured >= coap + 10 * datagrams, "{link}: {secured} {coap}");
            assert_eq!(airtime.is_zero(), link == "lan");
        }
    }

    #[test]
    fn what_does_not_arrive_is_said_and_the_next_does() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for security in [Security::None, Security::Oscore, Security::Dtls] {
            let mut meter = meter("hf-100", security);
            let mut differs = |exchange: Exchange| {
                let difference = meter.replay(&exchange).map(|it| it.to_string()).unwrap_or_default();
                assert_eq!(meter.replay(&send("A")), None);
                difference
            };
            for (exchange, told) in [
                (exchange("PATCH", SEND, "A", ["{}", "{}"]), "the request cannot be sent: method PATCH"),
                (exchange("PUT", "/x", "A", ["{}", "{}"]), "the request cannot be sent: path /x is outside"),
                (exchange("GET", SEND, "A", ["{}", "{}"]), "the gateway reads another body than was sent"),
                (exchange("PUT", SEND, "A", [&deep(90), "{}"]), "the gateway refuses the request: the body"),
                (exchange("PUT", SEND, "A", ["{}", &deep(110)]), "the gateway cannot pass the answer on: "),
            ] {
                let difference = differs(exchange);
                assert!(difference.starts_with(told), "{difference}");
            }
            assert_eq!(meter.report().all().mismatches, 5);
            assert_eq!(meter.associations(), 1);
        }
    }
}
