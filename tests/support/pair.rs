//! Stories of two endpoints over 100 bit/s by turns, 4 s away from each other: bodies in bursts of blocks (RFC 9177).

use std::time::Duration;

use lowband::coap::{Block, Instant, Message, ObservationId, OptionNumber, Request, RequestError, Response};
use lowband::endpoint;
use lowband::endpoint::{Endpoint, Event, RequestId, RequestKey};
use lowband::link::{End, Profile};
use lowband::sim::{Channel, Impairments};

use super::endpoint::{PEER, config};

/// A client and a server, and what has become of what they said.
pub(crate) struct Pair {
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
    pub(crate) channel: Channel,
    pub(crate) now: Instant,
    /// Who sends the blocks that the story is about.
    blocks_of: End,
    /// Those that are lost, each once.
    pub(crate) lost: Vec<u32>,
    /// The one that comes after the one after it, once.
    pub(crate) late: Option<u32>,
    held: Option<Vec<u8>>,
    /// How many of the server's messages are lost.
    pub(crate) lost_answers: usize,
    /// What the server answers to the next request, and the last of them to all after it; and how much later.
    pub(crate) answers: Vec<Response>,
    pub(crate) thinks: Duration,
    thinking: Vec<(Instant, RequestKey)>,
    pub(crate) observation: Option<ObservationId>,
    pub(crate) sent: Vec<(End, Message)>,
    /// The requests that have come, and what else the server reports.
    pub(crate) delivered: Vec<Request>,
    pub(crate) reports: Vec<Event>,
    pub(crate) responses: Vec<(Instant, Response)>,
    pub(crate) failures: Vec<RequestError>,
}

/// Who speaks in bursts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bursts {
    Both,
    NotTheServer,
    NotTheClient,
}

/// The link.
pub(crate) fn hf() -> Profile {
    Profile { loss: 0.0, ..Profile::built_in("hf-100").unwrap() }
}

/// One end of it.
pub(crate) fn over_hf(end: End, bursts: bool) -> endpoint::Config {
    let mut terms = hf().terms(end);
    assert!(terms.q_block);
    terms.q_block = bursts;
    let endpoint::Config { parameters, trusted, .. } = config();
    endpoint::Config { parameters, trusted, ..endpoint::Config::over("hf-100", terms) }
}

/// The number of the block that is in a message by this option.
pub(crate) fn block(message: &Message, option: OptionNumber) -> Option<u32> {
    Some(Block::decode(message.options.get(option)?).unwrap().number)
}

impl Pair {
    /// A story about the blocks of one end.
    pub(crate) fn new(blocks_of: End, bursts: Bursts) -> Self {
        Self::with(blocks_of, bursts, Impairments::default())
    }

    /// The same where more goes wrong.
    pub(crate) fn with(blocks_of: End, bursts: Bursts, impairments: Impairments) -> Self {
        let client = over_hf(End::Peer, bursts != Bursts::NotTheClient);
        let server = match bursts {
            Bursts::NotTheServer => config(),
            _ => over_hf(End::Gateway, true),
        };
        Self::of(blocks_of, client, server, impairments, 1)
    }

    /// A story of a client and a server with these configurations.
    pub(crate) fn of(
        blocks_of: End,
        client: endpoint::Config,
        server: endpoint::Config,
        impairments: Impairments,
        seed: u64,
    ) -> Self {
        Self {
            client: Endpoint::new(client, [1; 32]),
            server: Endpoint::new(server, [2; 32]),
            channel: Channel::new(hf(), impairments, seed),
            now: Instant::START,
            blocks_of,
            lost: Vec::new(),
            late: None,
            held: None,
            lost_answers: 0,
            answers: Vec::new(),
            thinks: Duration::ZERO,
            thinking: Vec::new(),
            observation: None,
            sent: Vec::new(),
            delivered: Vec::new(),
            reports: Vec::new(),
            responses: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// The client asks.
    pub(crate) fn asks(&mut self, request: Request) -> RequestId {
        let id = self.client.request(PEER, request, self.now);
        self.drain();
        id
    }

    /// Lets so many seconds pass.
    pub(crate) fn runs(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let answer = self.thinking.first().map(|(at, _)| *at);
            let due = [self.client.deadline(), self.server.deadline(), self.channel.deadline(), answer];
            let Some(due) = due.into_iter().flatten().min().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.client.advance(self.now);
            self.server.advance(self.now);
            if self.thinking.first().is_some_and(|(at, _)| *at <= self.now) {
                let (_, key) = self.thinking.remove(0);
                let answer = self.next_answer();
                self.server.respond(key, answer, self.now);
            }
            while let Some(arrival) = self.channel.poll(self.now) {
                self.arrives(arrival.to, arrival.datagram);
            }
            self.drain();
        }
        self.now = end;
    }

    fn arrives(&mut self, to: End, datagram: Vec<u8>) {
        if let (End::Peer, Some(left)) = (to, self.lost_answers.checked_sub(1)) {
            self.lost_answers = left;
            return;
        }
        let number = (to != self.blocks_of)
            .then(|| block(&Message::decode(&datagram).unwrap(), self.option()))
            .flatten();
        if let Some(at) = self.lost.iter().position(|lost| Some(*lost) == number) {
            self.lost.remove(at);
            return;
        }
        if number.is_some() && self.late == number {
            self.late = None;
            self.held = Some(datagram);
            return;
        }
        self.receives(to, &datagram);
        if to != self.blocks_of
            && let Some(held) = self.held.take()
        {
            self.receives(to, &held);
        }
    }

    fn receives(&mut self, end: End, datagram: &[u8]) {
        let endpoint = match end {
            End::Gateway => &mut self.server,
            End::Peer => &mut self.client,
        };
        endpoint.handle(PEER, datagram, self.now);
    }

    /// Takes in all that is said; what follows from that too.
    pub(crate) fn drain(&mut self) {
        loop {
            let mut idle = true;
            for (end, endpoint) in [(End::Peer, &mut self.client), (End::Gateway, &mut self.server)] {
                while let Some((_, datagram)) = endpoint.poll_datagram() {
                    self.sent.push((end, Message::decode(&datagram).unwrap()));
                    self.channel.send(end, 1, datagram, self.now);
                }
            }
            while let Some(event) = self.client.poll_event() {
                match event {
                    Event::Response { response, .. } => self.responses.push((self.now, response)),
                    Event::Failed { error, .. } => self.failures.push(error),
                    other => panic!("{other:?}"),
                }
            }
            while let Some(event) = self.server.poll_event() {
                idle = false;
                self.serves(event);
            }
            if idle {
                return;
            }
        }
    }

    fn serves(&mut self, event: Event) {
        let Event::Request { key, request, .. } = event else { return self.reports.push(event) };
        let observes = request.observe.is_some();
        self.delivered.push(request);
        if !self.thinks.is_zero() {
            return self.thinking.push((self.now + self.thinks, key));
        }
        let answer = self.next_answer();
        match observes {
            true => self.observation = self.server.accept_observation(key, answer, self.now),
            false => self.server.respond(key, answer, self.now),
        }
    }

    fn next_answer(&mut self) -> Response {
        if self.answers.len() > 1 { self.answers.remove(0) } else { self.answers[0].clone() }
    }

    fn option(&self) -> OptionNumber {
        match self.blocks_of {
            End::Gateway => OptionNumber::Q_BLOCK2,
            End::Peer => OptionNumber::Q_BLOCK1,
        }
    }

    /// The blocks of the end that the story is about, as they left.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u32, &Message)> {
        let sent = self.sent.iter().filter(|(from, _)| *from == self.blocks_of);
        sent.filter_map(|(_, message)| Some((block(message, self.option())?, message)))
    }

    /// Nothing is kept by either end.
    pub(crate) fn is_over(&mut self) {
        self.runs(30 * 3600);
        let held = [&self.client, &self.server].map(|endpoint| (endpoint.peers(), endpoint.queued()));
        assert_eq!(held, [(0, 0), (0, 0)]);
    }
}
