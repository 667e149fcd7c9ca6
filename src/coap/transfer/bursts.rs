//! What a client does with responses in bursts of blocks (RFC 9177 §4.4).

use super::TransferLimits;
use super::asked::Asked;
use super::client::{ClientTransfers, RequestError, Step, Support};
use super::collected::{Collected, Next};
use crate::coap::block::Block;
use crate::coap::code::Code;
use crate::coap::message::{Message, Token};
use crate::coap::observe::is_newer;
use crate::coap::option::OptionNumber;
use crate::coap::request::{Observe, Request};
use crate::coap::time::Instant;

impl ClientTransfers {
    /// §4.1: a peer that refuses Q-Block2 is asked by Block2, from now on.
    pub(super) fn refuse_bursts(&mut self, token: Token, limits: &TransferLimits) -> Step {
        self.bursts = Support::Refused;
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        asked.bursts = false;
        asked.collected = None;
        match asked.observation {
            None => Step::Send(asked.next_upload(token, limits)),
            // It knows nothing of the observation any more either.
            Some(_) => self.fail(token, RequestError::BlocksDiffer),
        }
    }

    /// Takes in a block of a burst; `None` for any other message.
    pub(super) fn receive_in_burst(
        &mut self,
        message: &Message,
        fresh: Token,
        limits: &TransferLimits,
        now: Instant,
    ) -> Option<Step> {
        let token = message.token;
        let asked = self.asked.get_mut(&token).filter(|asked| asked.bursts)?;
        let Some(block) = message.options.get(OptionNumber::Q_BLOCK2) else {
            // The blocks that were asked for are not there any more.
            let lost = asked.collected.is_some()
                && matches!(message.code, Code::BAD_REQUEST | Code::REQUEST_ENTITY_INCOMPLETE);
            return lost.then(|| self.start_again(token, None, limits));
        };
        let Ok(block) = Block::decode(block) else { return Some(Step::Nothing) };
        self.bursts = Support::Understood;
        let asked = self.asked.get_mut(&token)?;
        let sequence = message.options.get_uint(OptionNumber::OBSERVE).filter(|_| message.code.is_success());
        Some(match (sequence, asked.request.observe) {
            (Some(sequence), Some(Observe::Register)) => {
                self.receive_in_notification(message, block, (sequence, now), fresh, limits)
            }
            _ => {
                if let Some(collected) = &mut asked.collected {
                    collected.asking = false;
                }
                self.collect(token, message, block, limits, now)
            }
        })
    }

    /// A block of a notification. The body is collected as the rest of any notification in blocks is, by its own token.
    fn receive_in_notification(
        &mut self,
        message: &Message,
        block: Block,
        place: (u32, Instant),
        fresh: Token,
        limits: &TransferLimits,
    ) -> Step {
        let (token, now) = (message.token, place.1);
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        asked.expires = None;
        // RFC 7641 §3.4: what was sent before the newest is not used; a burst may take longer than that rule reckons with.
        let latest = asked.latest.filter(|latest| latest.0 == place.0 || !is_newer(*latest, place));
        if latest.is_none() {
            asked.latest = Some(place);
        }
        let etag = message.options.get(OptionNumber::ETAG);
        let holds = |(_, other): &(&Token, &Asked)| other.observation == Some(token) && other.holds(etag);
        let rest = self.asked.iter().find(holds).map(|(rest, _)| *rest);
        match (rest, latest) {
            (Some(rest), _) => self.collect(rest, message, block, limits, now),
            (None, Some(_)) => Step::Nothing,
            (None, None) => {
                let Some(asked) = self.asked.get(&token) else { return Step::Unknown };
                let (request, is_crowded) =
                    (Request { observe: None, ..asked.request.clone() }, asked.is_crowded);
                let rest = Asked {
                    bursts: true,
                    observation: Some(token),
                    is_crowded,
                    ..Asked::new(asked.id, request, limits)
                };
                // A body that was still being fetched belongs to an older notification.
                self.asked.retain(|_, other| other.observation != Some(token));
                self.asked.insert(fresh, rest);
                self.collect(fresh, message, block, limits, now)
            }
        }
    }

    /// Adds a block to the body that the request with this token collects.
    fn collect(
        &mut self,
        token: Token,
        message: &Message,
        block: Block,
        limits: &TransferLimits,
        now: Instant,
    ) -> Step {
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Unknown };
        let etag = message.options.get(OptionNumber::ETAG);
        if asked.outdated.is_some() && asked.outdated.as_deref() == etag {
            return Step::Nothing;
        }
        let collected = match asked.collected.take() {
            Some(collected) => collected,
            None => match Collected::new(message, block, limits, now) {
                Ok(collected) => collected,
                Err(error) => return self.fail(token, error),
            },
        };
        let withheld = asked.observation.is_some();
        let collected = asked.collected.insert(collected);
        // From now on it is waited for blocks.
        asked.expires = None;
        match collected.take_in(message, block, withheld, limits, now) {
            Next::Wait => Step::Nothing,
            Next::Ask(blocks) => Step::Send(asked.ask_for(token, OptionNumber::Q_BLOCK2, &blocks)),
            Next::Whole(response) => self.complete(token, response),
            Next::Differs => self.start_again(token, etag, limits),
        }
    }

    /// What was collected is of no use: it is asked for anew, once, where that can be.
    fn start_again(&mut self, token: Token, etag: Option<&[u8]>, limits: &TransferLimits) -> Step {
        match self.asked.get_mut(&token) {
            Some(asked) if !asked.restarted && asked.observation.is_none() => {
                let next = asked.restart(token, limits);
                // The same body, cut otherwise or held no more, is told by no ETag from what comes now.
                if etag.is_none() || asked.outdated.as_deref() == etag {
                    asked.outdated = None;
                }
                Step::Send(next)
            }
            _ => self.fail(token, RequestError::BlocksDiffer),
        }
    }

    /// Asks for what has not come of a body, for as long as there is patience.
    pub(super) fn ask_for_missing(&mut self, token: Token, limits: &TransferLimits, now: Instant) -> Step {
        let Some(asked) = self.asked.get_mut(&token) else { return Step::Nothing };
        asked.expires = None;
        let withheld = asked.observation.is_some();
        let blocks =
            asked.collected.as_mut().and_then(|collected| collected.ask_again(withheld, limits, now));
        match blocks {
            Some(blocks) => Step::Send(asked.ask_for(token, OptionNumber::Q_BLOCK2, &blocks)),
            None => self.fail(token, RequestError::Timeout),
        }
    }
}
