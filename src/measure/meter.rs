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
        difference
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
        let whose = authorization.map(|value| value.as_bytes().to_vec());
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
        let asked = ends.ask(&exchange.request)?;
        figures.payload += in_place_of_http(&asked.options, asked.payload.len());
        if let Some(plain) = plain {
            plain.ask(asked.clone())?;
        }
        let came = line.ask(asked)?;
        let call = ends.take(&came);
        let answer = call.clone().and_then(|call| ends.answer(&call, &exchange.response));
        let (answer, refused) = match answer {
            Ok(answer) => (answer, None),
            Err(difference) => (ends.refuse(&came, &difference), Some(difference)),
        };
        figures.payload += in_place_of_http(&answer.options, answer.payload.len());
        if let Some(plain) = plain {
            plain.answer(answer.clone())?;
        }
        let response = ends.receive(&line.answer(answer)?);
        let call = call?;
        ends.check_call(exchange, &call)?;
        match refused {
            Some(difference) => Err(difference),
            None => ends.check_response(exchange, &call, &response?),
        }
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
