//! Which numbers of the other endpoint's have come (RFC 8613 §7.4).

use serde::{Deserialize, Serialize};

use super::partial_iv::PartialIv;

/// A sliding window over Partial IVs: each is taken once, and none that is far behind the greatest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayWindow {
    /// One more than the greatest that has come.
    next: u64,
    /// Bit i: whether `next - 1 - i` has come.
    seen: u64,
}

impl ReplayWindow {
    /// How far behind the greatest a number may be.
    pub const WIDTH: u64 = 64;

    /// Whether a number may be taken: it is not behind the window, and has not come.
    pub fn is_fresh(&self, partial_iv: PartialIv) -> bool {
        match self.next.checked_sub(partial_iv.number() + 1) {
            None => true,
            Some(behind) => behind < Self::WIDTH && self.seen & 1 << behind == 0,
        }
    }

    /// Takes a number, after its message was verified. Returns whether it was fresh.
    pub fn accept(&mut self, partial_iv: PartialIv) -> bool {
        let fresh = self.is_fresh(partial_iv);
        let next = partial_iv.number() + 1;
        if let Some(ahead) = next.checked_sub(self.next).filter(|ahead| *ahead > 0) {
            self.seen = if ahead < Self::WIDTH { self.seen << ahead } else { 0 };
            self.next = next;
        }
        let behind = self.next - next;
        if behind < Self::WIDTH {
            self.seen |= 1 << behind;
        }
        fresh
    }

    /// One more than the greatest number that was taken; zero where none was.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The window that also refuses every number below this one.
    #[must_use]
    pub(super) fn refusing_below(&self, floor: u64) -> Self {
        // Numbers from `floor` up to the greatest are the lowest bits.
        let kept = self.next.saturating_sub(floor);
        let below = if kept < Self::WIDTH { u64::MAX << kept } else { 0 };
        Self { next: self.next, seen: self.seen | below }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piv(number: u64) -> PartialIv {
        PartialIv::new(number).unwrap()
    }

    #[test]
    fn each_number_is_taken_once_in_any_order_within_the_window() {
        let mut window = ReplayWindow::default();
        for number in [3, 0, 66, 5, 64, 4, 65] {
            assert!(window.accept(piv(number)), "{number}");
            assert!(!window.is_fresh(piv(number)), "{number}");
            assert!(!window.accept(piv(number)), "{number}");
        }
        assert!(!window.is_fresh(piv(2)), "it is 64 behind 66");
        assert!(!window.is_fresh(piv(1)));
        assert!(window.is_fresh(piv(6)));
        assert!(window.accept(PartialIv::MAX));
        assert!(!window.is_fresh(PartialIv::MAX));
        assert!(!window.is_fresh(piv(67)));
    }

    #[test]
    fn it_agrees_with_a_set_of_all_numbers() {
        let mut window = ReplayWindow::default();
        let mut come = std::collections::BTreeSet::new();
        let mut state = 1_u64;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let greatest = come.last().copied().unwrap_or(0);
            let number = (greatest + (state >> 40) % 5).saturating_sub((state >> 20) % 70);
            let expected = !come.contains(&number) && (come.is_empty() || number + 64 > greatest);
            assert_eq!(window.accept(piv(number)), expected, "{number} after {greatest}");
            if expected {
                come.insert(number);
            }
        }
    }

    #[test]
    fn what_is_below_a_floor_can_be_refused() {
        let mut window = ReplayWindow::default();
        window.accept(piv(100));
        window.accept(piv(103));
        let window = window.refusing_below(101);
        assert!(!window.is_fresh(piv(99)) && !window.is_fresh(piv(50)));
        assert!(window.is_fresh(piv(101)) && window.is_fresh(piv(102)) && !window.is_fresh(piv(103)));
    }
}
