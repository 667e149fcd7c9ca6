//! Where the message IDs of new peers begin (RFC 7252 §4.4).
//!
//! A peer that was given another address does not know it, and takes us for the one that it spoke with before: an ID that comes
//! again is taken for a repeat, and its message is lost. So new peers begin where none of the others has been lately, or will be soon.

use crate::coap::MessageId;

/// The message ID that the next new peer begins with.
#[derive(Debug)]
pub(super) struct FirstIds(MessageId);

impl FirstIds {
    /// How many lie between the first of one peer and of the next.
    const APART: u16 = 257;
    /// How many a peer may have used before its next one, and still remember.
    const USED: u16 = 4096;
    /// How many it may use before it is looked at again.
    const SOON: u16 = 128;

    /// The first one is to be one that cannot be guessed.
    pub(super) fn starting_at(first: MessageId) -> Self {
        Self(first)
    }

    /// The first ID of a new peer.
    pub(super) fn take(&mut self) -> MessageId {
        let first = self.0;
        self.0 = MessageId(first.0.wrapping_add(Self::APART));
        first
    }

    /// Keeps away from a peer that goes on with this ID; says whether that was to be done.
    pub(super) fn avoid(&mut self, next: MessageId) -> bool {
        let end = next.0.wrapping_add(Self::SOON);
        let is_near = (1..=Self::USED + Self::SOON).contains(&end.wrapping_sub(self.0.0));
        if is_near {
            self.0 = MessageId(next.0.wrapping_add(Self::APART));
        }
        is_near
    }

    /// Keeps away from all of several peers, as far as they leave any room.
    pub(super) fn avoid_all(&mut self, next: &[MessageId]) {
        // Each time it goes on by more than that, and once around is enough.
        let mut rest = u16::MAX / Self::SOON;
        while rest > 0 && next.iter().any(|next| self.avoid(*next)) {
            rest -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How far a peer that began with `first` is from what another has used or uses soon, where both meet at all.
    fn meets(first: MessageId, next: MessageId) -> bool {
        let before = next.0.wrapping_sub(first.0);
        let after = first.0.wrapping_sub(next.0);
        (1..=FirstIds::USED).contains(&before) || after < FirstIds::SOON
    }

    #[test]
    fn a_new_peer_begins_after_one_that_has_used_more_than_lie_between_two() {
        let mut ids = FirstIds::starting_at(MessageId(0xff00));
        let mut next = ids.take();
        for _ in 0..1_000 {
            next = next.next();
            ids.avoid(next);
            assert!(!meets(ids.0, next), "{ids:?} and {next:?}");
        }
    }

    #[test]
    fn of_several_peers_none_is_met_in_whatever_order_they_are_looked_at() {
        // The second and the third make the way to the first, which was far away.
        let mut ids = FirstIds::starting_at(MessageId(0x37f0));
        let next = [0x48e5, 0x46e3, 0x47e4].map(MessageId);
        ids.avoid_all(&next);
        assert_eq!(ids.take(), MessageId(0x49e6));
    }

    #[test]
    fn where_there_is_no_room_it_ends_all_the_same() {
        let next: Vec<_> = (0..=u16::MAX).step_by(64).map(MessageId).collect();
        FirstIds::starting_at(MessageId(1)).avoid_all(&next);
    }

    proptest! {
        #[test]
        fn no_peer_is_met_where_there_is_room(first: u16, next in prop::collection::vec(any::<u16>(), 0..8)) {
            let mut ids = FirstIds::starting_at(MessageId(first));
            let next: Vec<_> = next.into_iter().map(MessageId).collect();
            ids.avoid_all(&next);
            let first = ids.take();
            prop_assert!(next.iter().all(|next| !meets(first, *next)), "{:?}", first);
        }
    }
}
