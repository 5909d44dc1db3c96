//! Which hosts stage the pages of a VM, where the scenario leaves that to the policy.

use super::{Host, HostId};
use livemig_core::policy::intermediaries::{Candidate, choose};
use livemig_core::units::{Bytes, Rate};

impl Host {
    /// The payload rate of all its NICs together, in each direction.
    #[must_use]
    pub fn line_rate(&self) -> Rate {
        Rate(self.nics.iter().map(|n| n.rate.0 * n.goodput).sum())
    }

    /// What it takes in to stage it.
    fn staging_rate(&self) -> Rate {
        let limits = [self.reception, self.service].into_iter().flatten();
        limits.fold(self.line_rate(), |least, limit| Rate(least.0.min(limit.0)))
    }
}

/// Of the `candidates`, in their order, as many as the uplink of `source` and a VM with `memory` need.
#[must_use]
pub fn intermediaries(hosts: &[Host], source: HostId, memory: Bytes, mut candidates: Vec<HostId>) -> Vec<HostId> {
    let host = |h: &HostId| &hosts[h.0 as usize];
    let offers = candidates.iter().map(host).map(|h| Candidate { rate: h.staging_rate(), memory: h.memory });
    candidates.truncate(choose(host(&source).line_rate(), memory, offers));
    candidates
}
