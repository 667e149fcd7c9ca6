//! A peer's link: what it is said to be, and what follows from that; and the numbers that are reserved beyond a restart.

use std::sync::Arc;

use super::{Outcome, Peer};
use crate::coap::{Message, MessageId, OptionNumber, TransferLimits};
use crate::endpoint::memory::Memory;
use crate::endpoint::{Address, Config};
use crate::link::Pace;

/// A peer's link: its name, and how fast it may be spoken to.
#[derive(Clone, Debug, Default)]
pub(in crate::endpoint) struct Terms {
    pub(in crate::endpoint) link: Option<Arc<str>>,
    pub(in crate::endpoint) pace: Option<Pace>,
}

impl Terms {
    pub(in crate::endpoint) fn new(config: &Config, link: Option<&str>, address: Address) -> Self {
        let Some((name, terms)) = link.and_then(|link| config.terms(link, address)) else {
            return Self::default();
        };
        Self { link: Some(name.as_str().into()), pace: terms.pace.clone() }
    }
}

impl Peer {
    /// Speaks on the terms of this link from now on.
    pub(super) fn adopt(&mut self, link: Option<&str>, config: &Config) {
        self.terms = Terms::new(config, link, self.address);
        let Some((_, terms)) = self.terms.link.as_deref().and_then(|link| config.terms(link, self.address))
        else {
            self.transfers = config.transfers.clone();
            return self.exchanges.set_parameters(config.parameters.clone());
        };
        self.transfers = TransferLimits {
            block: terms.block.min(config.transfers.block),
            lifetime: terms.lifetime,
            response_timeout: terms.response_timeout,
            patience: terms.patience,
            q_block: terms.q_block,
            receive_timeout: terms.receive_timeout,
            ..config.transfers.clone()
        };
        self.exchanges.set_parameters(terms.parameters.clone());
    }

    /// Takes over what others say its link is, where it has said nothing itself; none is its listener's.
    pub(in crate::endpoint) fn assign(&mut self, link: Option<&str>, config: &Config) {
        if !self.announced {
            self.adopt(link.or_else(|| config.link_of(self.address)), config);
        }
    }

    /// Takes over what it says its link is; a name that is not known changes nothing.
    pub(in crate::endpoint) fn announce(&mut self, link: Option<&str>, config: &Config) {
        match link.filter(|link| config.links.contains_key(*link)) {
            Some(link) if self.announced && self.terms.link.as_deref() == Some(link) => {}
            Some(link) => {
                self.announced = true;
                self.reserved = None;
                self.adopt(Some(link), config);
            }
            None => self.outcomes.push_back(Outcome::UnknownLink),
        }
    }

    /// It is at another address now; returns the one before.
    pub(in crate::endpoint) fn move_to(&mut self, address: Address, config: &Config) -> Address {
        // So that it is remembered with what is reserved.
        self.reserved = None;
        let before = std::mem::replace(&mut self.address, address);
        if before.local != address.local {
            // Another listener has another link perhaps, or seals.
            let announced = self.terms.link.take().filter(|_| self.announced);
            self.adopt(announced.as_deref().or(config.link_of(address)), config);
        }
        before
    }

    /// Whether a peer is answered in bursts that wishes for it: only on a link where the bursts are paced. Its message may say so
    /// of its link.
    pub(super) fn answers_in_bursts(&self, message: &Message, config: &Config) -> bool {
        let announced = message.options.get(OptionNumber::LINK).and_then(|link| str::from_utf8(link).ok());
        match announced.and_then(|link| config.terms(link, self.address)) {
            Some((_, terms)) => terms.pace.is_some(),
            None => self.terms.pace.is_some(),
        }
    }

    /// What is to be remembered of it beyond a restart, where that has changed: its numbers are reserved in advance.
    pub(in crate::endpoint) fn reserve(&mut self) -> Option<Memory> {
        const AHEAD: u16 = 256;
        const LEAST: u16 = 128;
        let (id, sequence) = (self.exchanges.next_id(), self.observations.next_sequence());
        let enough = |(reserved_id, reserved_sequence): &(MessageId, u32)| {
            (LEAST..=AHEAD).contains(&reserved_id.0.wrapping_sub(id.0))
                && *reserved_sequence >= sequence.saturating_add(LEAST.into())
        };
        if self.reserved.as_ref().is_some_and(enough) {
            return None;
        }
        let (next_id, next_sequence) = (id.0.wrapping_add(AHEAD), sequence.saturating_add(AHEAD.into()));
        self.reserved = Some((MessageId(next_id), next_sequence));
        let link = self.terms.link.as_deref().filter(|_| self.announced).map(str::to_owned);
        Some(Memory::Peer { next_id, next_sequence, link, address: self.address })
    }
}
