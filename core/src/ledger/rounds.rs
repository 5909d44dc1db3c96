//! The rounds of a migration: all of them counted, the first and the last of them kept.
//!
//! A migration that never converges has millions of rounds, each like the one before it. What it takes in memory is bounded.

use super::metrics::RoundRecord;
use crate::units::{Bytes, Span, Time};

/// How many rounds are kept from the beginning.
pub const FIRST_ROUNDS: usize = 10_000;
/// How many are kept from the end.
pub const LAST_ROUNDS: usize = 1_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    /// The first ones and the last ones; before [`Rounds::finish`] up to twice as many of the last ones.
    kept: Vec<RoundRecord>,
    begun: u32,
}

impl Rounds {
    pub(super) fn begin(&mut self, now: Time, stopped: bool) {
        if self.kept.len() >= FIRST_ROUNDS + 2 * LAST_ROUNDS {
            self.drop_middle();
        }
        let (duration, pages, wire) = (Span::ZERO, Bytes::ZERO, Bytes::ZERO);
        self.kept.push(RoundRecord { index: self.begun, stopped, started: now, duration, pages, wire, dirty: None });
        self.begun = self.begun.saturating_add(1);
    }

    fn drop_middle(&mut self) {
        if self.kept.len() > FIRST_ROUNDS + LAST_ROUNDS {
            self.kept.drain(FIRST_ROUNDS..self.kept.len() - LAST_ROUNDS);
        }
    }

    /// No more rounds will begin.
    pub(super) fn finish(&mut self) {
        self.drop_middle();
    }

    /// How many have begun.
    pub(super) fn count(&self) -> u32 {
        self.begun
    }

    pub(super) fn last(&self) -> Option<&RoundRecord> {
        self.kept.last()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut RoundRecord> {
        self.kept.last_mut()
    }

    pub(super) fn kept(&self) -> &[RoundRecord] {
        &self.kept
    }

    pub(super) fn take(&mut self) -> Vec<RoundRecord> {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(count: u32) -> Rounds {
        let mut rounds = Rounds::default();
        for i in 0..count {
            rounds.begin(Time(u64::from(i)), false);
            assert_eq!(rounds.last().map(|r| r.index), Some(i));
        }
        rounds.finish();
        assert_eq!(rounds.count(), count);
        rounds
    }

    #[test]
    fn few_rounds_are_all_kept() {
        for count in [0, 1, 10_000, 10_001, 11_000] {
            let indices: Vec<u32> = begun(count).kept().iter().map(|r| r.index).collect();
            assert_eq!(indices, (0..count).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn of_many_rounds_the_first_and_the_last_are_kept() {
        for count in [11_001, 12_000, 12_001, 345_678] {
            let indices: Vec<u32> = begun(count).kept().iter().map(|r| r.index).collect();
            assert_eq!(indices, (0..10_000).chain(count - 1_000..count).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn what_is_kept_meanwhile_is_bounded() {
        let mut rounds = Rounds::default();
        let most = (0..100_000).map(|i| {
            rounds.begin(Time(i), false);
            rounds.kept().len()
        });
        assert_eq!(most.max(), Some(FIRST_ROUNDS + 2 * LAST_ROUNDS));
    }
}
