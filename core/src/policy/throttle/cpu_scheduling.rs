//! CPU scheduling (Jin et al., JNCA 2011): the vCPUs run as fast as lets the dirty memory reach a desired small amount.
//!
//! Only the paper's abstract is open; the formula is ours. A guest that works for a share f of the time dirties f `D_max`. A round
//! that sends V at rate R then leaves V f `D_max` / R, and n rounds leave V (f `D_max` / R)^n. To come to `V_target` in n rounds
//!
//! ```text
//! f = (R / D_max) (V_target / V)^(1/n)
//! ```
//!
//! within `min_share` and 1. R and `D_max` are measured anew in every round; the ratio of the rounds is fixed when throttling
//! begins, so that what one round misses does not slow the guest down further in the next.
//!
//! **Saturation.** `D_max` is measured as dirty bytes per work, work being the time times the share. A round long enough for the
//! guest to write its whole working set says only that `D_max` is at least that, and a share from it is too large, round after
//! round. Two rounds of different work tell: if dirty bytes grow as work^e between them, r times the dirty bytes takes r^(1/e)
//! times the work, and (`V_target` / V)^(1/n) above gets the exponent 1/e. Where dirtying is linear, e is 1; e is not taken below
//! 1/4. That may slow the guest down too far for one round, which costs it little beside one round more of the whole working set.

use super::{PolicyEntry, Progress};
use crate::policy::stop::StopRule;
use crate::strategy::SpecError;
use crate::units::{Bytes, Rate, Share};
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "cpu-scheduling",
    origin: "Jin et al., JNCA 2011",
    summary: "from `start` on let the guest run for (R / D) (V_target / V)^(1/n) of the time, at least `min_share`: V left comes to `remaining` in n = `rounds`",
};

/// Of what the stop rule wants left, so much is aimed at: a miss by rounding would cost a round.
const AIM: f64 = 0.9;

/// A round that leaves more than this part of what the round before left counts as not shrinking.
const SHRINKING: f64 = 0.9;

/// Work of a round, as a part of that of the round before, up to which the two tell how dirty bytes depend on work.
const LESS_WORK: f64 = 0.8;

/// The least exponent of work that is believed.
const MIN_EXPONENT: f64 = 0.25;

/// When throttling begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Start {
    /// After so many rounds; at least 1.
    Round(u32),
    /// When the dirty memory is at most this share of all memory.
    Below(f64),
    /// When a round has left more than nine tenths of what the round before left.
    NotShrinking,
}

/// Throttling by the sending rate, the dirty rate and the desired rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuScheduling {
    /// How much memory shall be left; `None` for what the stop rule wants.
    pub remaining: Option<Bytes>,
    /// In how many rounds; at least 1.
    pub rounds: u32,
    /// The least share of the time that the vCPUs run, above 0.
    pub min_share: f64,
    /// When throttling begins.
    pub start: Start,
    /// The share in force.
    share: f64,
    /// What each round leaves of what the round before left, once throttling has begun.
    ratio: Option<f64>,
    last: Option<Sample>,
}

/// What a guest has done in a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    /// The time for which its vCPUs ran, in seconds.
    work: f64,
    /// Bytes dirty at the end.
    dirty: f64,
}

impl Sample {
    /// The exponent of work by which dirty bytes grow, judged by a round in which the guest worked more.
    fn exponent(self, before: Option<Sample>) -> f64 {
        match before {
            Some(b) if self.work < LESS_WORK * b.work && self.dirty > 0.0 && b.dirty > 0.0 => {
                (libm::log(self.dirty / b.dirty) / libm::log(self.work / b.work)).clamp(MIN_EXPONENT, 1.0)
            }
            Some(_) | None => 1.0,
        }
    }
}

impl CpuScheduling {
    /// The policy with its parameters.
    #[must_use]
    pub fn new(remaining: Option<Bytes>, rounds: u32, min_share: f64, start: Start) -> CpuScheduling {
        CpuScheduling { remaining, rounds, min_share, start, share: 1.0, ratio: None, last: None }
    }

    pub(super) fn round_ended(&mut self, progress: &Progress) -> Option<Share> {
        let round = &progress.round;
        let rate = round.bandwidth().0;
        let sample = Sample { work: self.share * round.duration().as_secs_f64(), dirty: round.dirty.0 as f64 };
        if rate <= 0.0 {
            return None;
        }
        let before = self.last.replace(sample);
        if self.ratio.is_none() && !self.begins(progress, before) {
            return None;
        }
        let target = self.target(progress)?;
        let left = progress.left().0 as f64;
        let wanted = if left > target {
            *self.ratio.get_or_insert_with(|| libm::pow(target / left, 1.0 / f64::from(self.rounds)))
        } else {
            // What is left is kept from growing.
            1.0
        };
        // Nothing dirty needs no throttling.
        let dirty_rate = (sample.dirty / sample.work).max(f64::MIN_POSITIVE);
        let share = rate / dirty_rate * libm::pow(wanted, 1.0 / sample.exponent(before));
        self.share = share.clamp(self.min_share, 1.0);
        Some(Share::new(self.share))
    }

    fn begins(&self, progress: &Progress, before: Option<Sample>) -> bool {
        let dirty = progress.round.dirty.0 as f64;
        match self.start {
            Start::Round(n) => progress.round.index + 1 >= n,
            Start::Below(share) => dirty <= share * progress.size.0 as f64,
            Start::NotShrinking => before.is_some_and(|b| dirty > SHRINKING * b.dirty),
        }
    }

    fn target(&self, progress: &Progress) -> Option<f64> {
        self.remaining.map(|b| b.0 as f64).or_else(|| progress.goal.map(|b| AIM * b.0 as f64))
    }

    pub(super) fn check(self, stop: &StopRule) -> Result<(), SpecError> {
        let out_of_range = |key, allowed| Err(SpecError::OutOfRange { key, allowed });
        if self.remaining.is_none() && stop.goal(Rate::ZERO).is_none() {
            return Err(SpecError::NoRemaining);
        }
        if self.rounds == 0 {
            return out_of_range("rounds", "at least 1");
        }
        if !(self.min_share > 0.0 && self.min_share <= 1.0) {
            return out_of_range("min_share", "above 0 and at most 1");
        }
        match self.start {
            Start::Round(0) => out_of_range("round", "at least 1: nothing is known of the guest before"),
            Start::Below(share) if !(share > 0.0 && share <= 1.0) => out_of_range("below", "above 0 and at most 1"),
            Start::Round(_) | Start::Below(_) | Start::NotShrinking => Ok(()),
        }
    }
}

impl Default for CpuScheduling {
    /// After the first copy, what the stop rule wants in three rounds, down to the 1 % that QEMU's auto-converge leaves a guest.
    fn default() -> CpuScheduling {
        CpuScheduling::new(None, 3, 0.01, Start::Round(1))
    }
}

#[cfg(test)]
mod tests;
