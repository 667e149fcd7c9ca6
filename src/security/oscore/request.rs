//! What the responses to a request are bound to (RFC 8613 §7.1), at either end.

use serde::{Deserialize, Serialize};

use super::partial_iv::PartialIv;
use super::replay::ReplayWindow;

/// A request that was opened: what its responses are protected with, all of them. A server keeps it until it has sent the last one, for an
/// observation beyond a restart.
///
/// The first response may take the request's nonce, so that no number crosses the link; a copy, and what serde brings back, does not,
/// for of two that did both would use it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestBinding {
    pub(super) partial_iv: PartialIv,
    /// Whether its outer code was FETCH.
    pub(super) fetch: bool,
    /// Whether its nonce was used for no response yet.
    #[serde(skip)]
    pub(super) reusable: bool,
}

impl RequestBinding {
    /// The request's number.
    pub fn partial_iv(&self) -> PartialIv {
        self.partial_iv
    }
}

impl Clone for RequestBinding {
    fn clone(&self) -> Self {
        Self { reusable: false, ..*self }
    }
}

/// Whether both are of the same request.
impl PartialEq for RequestBinding {
    fn eq(&self, other: &Self) -> bool {
        (self.partial_iv, self.fetch) == (other.partial_iv, other.fetch)
    }
}

impl Eq for RequestBinding {}

/// A request that was protected: what its responses are opened with, and which of them have come. A client keeps it with the token; it is of
/// no use after a restart, when what was observed is asked for anew (RFC 8613 §7.5.3).
#[derive(Debug)]
pub struct SentRequest {
    pub(super) partial_iv: PartialIv,
    observes: bool,
    /// The numbers of its responses that have come.
    come: ReplayWindow,
    /// Whether the response without a number has come.
    bare: bool,
    /// The greatest number of a notification, and of one that is not a block of a burst (§7.4.1: the Notification Number).
    newest: Option<PartialIv>,
    newest_whole: Option<PartialIv>,
    /// The value of Observe that the blocks of the newest burst have in common.
    burst: Option<u32>,
    /// The value of Observe that the newest notification was passed on with.
    sequence: u32,
}

/// What a response is, for its order among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// No notification.
    Response,
    /// A notification.
    Notification,
    /// A block of a notification that is sent in bursts (RFC 9177), with the value of Observe that all its blocks have.
    Block(u32),
}

impl SentRequest {
    pub(super) fn new(partial_iv: PartialIv, observes: bool) -> Self {
        Self {
            partial_iv,
            observes,
            come: ReplayWindow::default(),
            bare: false,
            newest: None,
            newest_whole: None,
            burst: None,
            sequence: 0,
        }
    }

    /// The request's number.
    pub fn partial_iv(&self) -> PartialIv {
        self.partial_iv
    }

    /// The request that registers again under the token of this one: its notifications are passed on as later ones.
    #[must_use]
    pub fn continues(self, previous: &Self) -> Self {
        Self { sequence: previous.sequence, ..self }
    }

    /// Whether it registers an observation.
    pub(super) fn observes(&self) -> bool {
        self.observes
    }

    /// Whether a response with this number, or without one, has not come yet, as far as can be seen before it is verified.
    pub(super) fn is_fresh(&self, partial_iv: Option<PartialIv>) -> bool {
        match partial_iv {
            Some(partial_iv) => self.come.is_fresh(partial_iv),
            None => !self.bare,
        }
    }

    /// Takes a response that was verified, unless it is older than what has come. Returns the value of Observe to pass it on with.
    ///
    /// RFC 7641 orders notifications by 24 bits and by time; these are ordered by their numbers alone, however late they come, and so
    /// are passed on with values that only grow.
    pub(super) fn accept(&mut self, partial_iv: Option<PartialIv>, place: Place) -> Option<u32> {
        // §4.1.3.5.2: a notification without a number is the oldest.
        let is_newest = partial_iv > self.newest || self.newest.is_none();
        let starts = match place {
            Place::Response if !self.observes => false,
            Place::Response | Place::Notification if !is_newest => return None,
            Place::Response => false,
            Place::Notification => true,
            Place::Block(_) if partial_iv <= self.newest_whole && self.newest_whole.is_some() => return None,
            Place::Block(value) => match self.burst {
                Some(burst) if burst == value => false,
                Some(burst) if !is_later(burst, value) => return None,
                _ => true,
            },
        };
        match partial_iv {
            Some(partial_iv) => drop(self.come.accept(partial_iv)),
            None => self.bare = true,
        }
        if place != Place::Response {
            self.newest = self.newest.max(partial_iv);
        }
        match place {
            Place::Notification => self.newest_whole = partial_iv,
            Place::Block(value) => self.burst = Some(value),
            Place::Response => {}
        }
        if starts {
            self.sequence = (self.sequence + 1) & SEQUENCE_MASK;
        }
        Some(self.sequence)
    }
}

/// Observe's 24 bits.
const SEQUENCE_MASK: u32 = (1 << 24) - 1;

/// Whether a value of Observe is later than another, of the same 24 bits (RFC 7641 §3.4, without its regard for time).
fn is_later(known: u32, come: u32) -> bool {
    let ahead = come.wrapping_sub(known) & SEQUENCE_MASK;
    ahead != 0 && ahead < 1 << 23
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piv(number: u64) -> Option<PartialIv> {
        PartialIv::new(number)
    }

    fn observing() -> SentRequest {
        SentRequest::new(PartialIv::new(0).unwrap(), true)
    }

    #[test]
    fn notifications_are_taken_in_the_order_of_their_numbers_only() {
        let mut sent = observing();
        assert_eq!(sent.accept(None, Place::Notification), Some(1));
        assert!(!sent.is_fresh(None));
        assert_eq!(sent.accept(piv(7), Place::Notification), Some(2));
        assert_eq!(sent.accept(piv(6), Place::Notification), None);
        assert_eq!(sent.accept(piv(6), Place::Response), None);
        assert_eq!(sent.accept(piv(1 << 39), Place::Notification), Some(3));
        assert!(!sent.is_fresh(piv(7)));
    }

    #[test]
    fn a_notification_without_a_number_is_the_oldest() {
        let mut sent = observing();
        assert_eq!(sent.accept(piv(0), Place::Notification), Some(1));
        assert_eq!(sent.accept(None, Place::Notification), None);
        assert_eq!(sent.accept(None, Place::Block(1)), None);
    }

    #[test]
    fn blocks_of_a_burst_come_in_any_order_and_are_passed_on_with_one_value() {
        let mut sent = observing();
        assert_eq!(sent.accept(piv(5), Place::Notification), Some(1));
        assert_eq!(sent.accept(piv(4), Place::Block(9)), None, "it is older than the notification");
        assert_eq!(sent.accept(piv(8), Place::Block(10)), Some(2));
        assert_eq!(sent.accept(piv(6), Place::Block(10)), Some(2));
        assert_eq!(sent.accept(piv(7), Place::Notification), None);
        assert_eq!(sent.accept(piv(10), Place::Block(11)), Some(3));
        assert_eq!(sent.accept(piv(9), Place::Block(10)), None, "it is of the burst before");
        assert_eq!(sent.accept(piv(11), Place::Notification), Some(4));
        assert_eq!(sent.accept(piv(9), Place::Block(11)), None);
        let renewed = observing().continues(&sent).accept(piv(12), Place::Notification);
        assert_eq!(renewed, Some(5));
    }

    #[test]
    fn responses_to_a_request_that_observes_nothing_come_in_any_order() {
        let mut sent = SentRequest::new(PartialIv::new(0).unwrap(), false);
        assert!(sent.accept(piv(3), Place::Response).is_some());
        assert!(sent.accept(None, Place::Response).is_some());
        assert!(sent.accept(piv(2), Place::Response).is_some());
        assert!(!sent.is_fresh(None) && !sent.is_fresh(piv(2)) && !sent.is_fresh(piv(3)));
    }

    #[test]
    fn a_copy_of_a_binding_does_not_take_the_nonce_of_its_request() {
        let binding = RequestBinding { partial_iv: PartialIv::new(20).unwrap(), fetch: true, reusable: true };
        let kept: RequestBinding = serde_json::from_str(&serde_json::to_string(&binding).unwrap()).unwrap();
        assert_eq!(kept, binding);
        assert!(!kept.reusable && !binding.clone().reusable);
    }
}
