//! `KubeVirt`'s supervision of QEMU: a migration that makes no progress is escalated.
//!
//! `virt-launcher` polls what remains and remembers the least. When that has not improved for the progress timeout, the
//! migration is stuck, and the next step of the escalation is taken: raise the downtime limit (VEP 291), switch to post-copy,
//! or abort (VEP 248). A raised limit gives the migration a fresh chance; after the last step nothing more is tried and the
//! migration is aborted.

use super::{PolicyEntry, Verdict, Watching, within};
use crate::strategy::SpecError;
use crate::units::{Bytes, Rate, Span, Time};
use crate::vocabulary::Stall;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "kubevirt",
    origin: "KubeVirt virt-launcher; VEP 248, VEP 291",
    summary: "QEMU's rule; no progress for `progress_timeout` takes the next step of `on_stall`: raise-limit, post-copy or abort",
};

/// `KubeVirt` polls job statistics of libvirt at this interval.
const POLL: Span = Span::from_millis(400);

/// What is done about a migration that makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Escalation {
    /// Allow this downtime from now on.
    RaiseLimit(Span),
    /// Switch to post-copy.
    PostCopy,
    /// Give the migration up.
    Abort,
}

/// QEMU's rule, supervised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KubeVirt {
    /// How long the guest may stand still for the rest of its memory; escalation may raise it.
    pub downtime_limit: Span,
    /// How long without progress is a stall.
    pub progress_timeout: Span,
    /// What is done about stalls, one step each.
    pub on_stall: Vec<Escalation>,
    steps_taken: usize,
    progress: Option<Stall>,
}

impl KubeVirt {
    /// The rule with its first downtime limit, the time without progress that counts as a stall, and the steps of escalation.
    #[must_use]
    pub fn new(downtime_limit: Span, progress_timeout: Span, on_stall: Vec<Escalation>) -> KubeVirt {
        KubeVirt { downtime_limit, progress_timeout, on_stall, steps_taken: 0, progress: None }
    }

    /// Rounds may be shorter than the interval at which progress is polled, so a stall is also met between them.
    pub(super) fn judge(&mut self, now: Time, remaining: Bytes, rate: Rate) -> Verdict {
        if remaining <= within(rate, self.downtime_limit) {
            Verdict::Converged
        } else if self.progress.is_some_and(|p| now.since(p.since) >= p.patience) {
            self.stalled(now)
        } else {
            Verdict::Continue
        }
    }

    pub(super) fn watching(&self, now: Time) -> Watching {
        let fresh = Stall { patience: self.progress_timeout, best: Bytes(u64::MAX), since: now };
        Watching { every: POLL, below: Some(self.downtime_limit), stall: Some(self.progress.unwrap_or(fresh)) }
    }

    pub(super) fn progressed(&mut self, stall: Stall) {
        self.progress = Some(stall);
    }

    pub(super) fn stalled(&mut self, now: Time) -> Verdict {
        let step = self.on_stall.get(self.steps_taken).copied().unwrap_or(Escalation::Abort);
        self.steps_taken += 1;
        match step {
            Escalation::RaiseLimit(limit) => {
                self.downtime_limit = self.downtime_limit.max(limit);
                self.progress = Some(Stall { patience: self.progress_timeout, best: Bytes(u64::MAX), since: now });
                Verdict::Continue
            }
            Escalation::PostCopy => Verdict::PostCopy,
            Escalation::Abort => Verdict::Abort,
        }
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.downtime_limit == Span::ZERO {
            return Err(SpecError::OutOfRange { key: "downtime_limit", allowed: "above zero" });
        }
        if self.progress_timeout == Span::ZERO {
            return Err(SpecError::OutOfRange { key: "progress_timeout", allowed: "above zero" });
        }
        Ok(())
    }
}

impl Default for KubeVirt {
    /// `KubeVirt`'s defaults: QEMU's limit, 150 s without progress, then abort.
    fn default() -> KubeVirt {
        KubeVirt::new(Span::from_millis(300), Span::from_secs(150), vec![Escalation::Abort])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_met_at_the_end_of_rounds_too_short_to_be_polled() {
        let (patience, at) = (Span::from_secs(10), |seconds: u64| Time(seconds * 1_000_000_000));
        let mut rule =
            KubeVirt::new(Span::from_millis(300), patience, vec![Escalation::RaiseLimit(Span::from_secs(1)), Escalation::Abort]);
        let judge = |rule: &mut KubeVirt, seconds| rule.judge(at(seconds), Bytes(200), Rate(100.0));
        assert_eq!(judge(&mut rule, 100), Verdict::Continue, "nothing has been polled");
        rule.progressed(Stall { patience, best: Bytes(150), since: at(100) });
        assert_eq!(judge(&mut rule, 109), Verdict::Continue);
        assert_eq!(judge(&mut rule, 110), Verdict::Continue, "the limit is raised");
        assert_eq!(rule.downtime_limit, Span::from_secs(1));
        assert_eq!(judge(&mut rule, 119), Verdict::Continue, "a raised limit is a fresh chance");
        assert_eq!(judge(&mut rule, 120), Verdict::Abort);
        assert_eq!(rule.judge(at(121), Bytes(100), Rate(100.0)), Verdict::Converged);
    }
}
