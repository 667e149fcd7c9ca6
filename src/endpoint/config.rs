//! How an endpoint behaves, and how much it takes up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::Address;
use crate::coap::{Limits, Parameters, TransferLimits};
use crate::link::Terms;

/// How an endpoint behaves towards each peer, and how much it takes up in all.
#[derive(Clone, Debug)]
pub struct Config {
    /// Transmission parameters with a peer whose link is not known.
    pub parameters: Parameters,
    /// What one peer's exchanges may take up.
    pub exchanges: Limits,
    /// What one peer's transfers may take up; with a peer whose link is known their times and blocks follow from it.
    pub transfers: TransferLimits,
    /// Peers at a time. At the limit the one unheard of for longest goes, if nothing waits for it.
    pub peers: usize,
    /// Of those, how many at a time that have no keys and have not shown to be where they say, and at most half; beyond that, others are
    /// known only once they have.
    pub strangers: usize,
    /// Whether all peers are taken to be where they say, whatever their links' [`Terms::trusted`].
    pub trusted: bool,
    /// Requests of one peer at a time that wait for their answer; 5.03 beyond that.
    pub pending: usize,
    /// Observations of one peer at a time; a registration beyond that is answered, and not registered (RFC 7641 §4.1).
    pub observations: usize,
    /// Bytes of bodies of all peers at a time: of those in transfer, and again of those of requests that wait for their
    /// answer. Over it, what the peer unheard of for longest has in transfer goes; a request is answered with 5.03.
    pub bytes: usize,
    /// Bytes of random in a token of ours, 1 to 8.
    pub token_length: usize,
    /// The links that are known, by the names under which peers may announce them (option Link).
    pub links: BTreeMap<String, Terms>,
    /// The links of the peers that come to these addresses of ours; an unspecified address stands for all of its family.
    pub listeners: BTreeMap<SocketAddr, String>,
    /// The addresses of ours at which datagrams are sealed below the endpoint, as `listeners` has them.
    pub sealed: BTreeSet<SocketAddr>,
    /// What `links` are with what sealing adds to each datagram; where a link is missing it adds nothing that matters.
    pub sealed_links: BTreeMap<String, Terms>,
    /// The link of all other peers, if it is known.
    pub link: Option<String>,
    /// Datagrams that wait for their turn on one channel at a time; the least pressing goes first.
    pub queued: usize,
    /// Whether what must survive a restart is reported, by [`super::Endpoint::poll_memory`].
    pub durable: bool,
    /// Whether requests that are not protected are served; refused otherwise.
    pub plain: bool,
    /// Whether the nonces of what is sealed are told, by [`super::Endpoint::poll_used`].
    pub tell_nonces: bool,
}

impl Config {
    /// How an endpoint behaves whose peers are all at the other end of a link of this name.
    pub fn over(link: &str, terms: Terms) -> Self {
        Self {
            links: BTreeMap::from([(link.to_owned(), terms)]),
            link: Some(link.to_owned()),
            ..Self::default()
        }
    }

    /// The name of the link of a peer that has announced none.
    pub(super) fn link_of(&self, address: Address) -> Option<&str> {
        address.of_listener(&self.listeners).or(self.link.as_ref()).map(String::as_str)
    }

    /// A link of this name, as it is for a peer at this address.
    pub(super) fn terms(&self, name: &str, address: Address) -> Option<(&String, &Terms)> {
        let sealed = address.is_of(&self.sealed).then(|| self.sealed_links.get_key_value(name)).flatten();
        sealed.or_else(|| self.links.get_key_value(name))
    }

    /// Whether a peer is taken to be where it says. What link it announces has no say in it.
    pub(super) fn trusts(&self, address: Address) -> bool {
        let terms = self.link_of(address).and_then(|link| self.terms(link, address));
        self.trusted || terms.is_some_and(|(_, terms)| terms.trusted)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            parameters: Parameters::default(),
            exchanges: Limits::default(),
            transfers: TransferLimits::default(),
            peers: 10_000,
            strangers: 1_000,
            trusted: false,
            pending: 32,
            observations: 8,
            bytes: 256 << 20,
            token_length: 4,
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            sealed: BTreeSet::new(),
            sealed_links: BTreeMap::new(),
            link: None,
            queued: 1_024,
            durable: false,
            plain: true,
            tell_nonces: false,
        }
    }
}
