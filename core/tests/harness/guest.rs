//! The guest: vCPUs that read and write pages one after the other, in patterns that migrations find hard and easy.

use std::ops::Range;

use livemig_core::units::{PageIndex, Share, Span};
use livemig_core::vocabulary::{Region, Side};

use super::channel::MAX_VCPUS;
use super::choice::Choices;

/// Which pages a vCPU touches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    /// One after the other, from the start again at the end.
    Sequential,
    /// Any page.
    Uniform,
    /// Mostly the first few.
    HotCold { hot: u64 },
}

/// What a vCPU does to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Read,
    Write,
    /// Makes it all zeros.
    Clear,
}

/// One step of a vCPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) page: PageIndex,
    pub(crate) deed: Deed,
}

/// A vCPU's habits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) pattern: Pattern,
    pub(crate) writes_percent: u64,
}

/// How a guest behaves.
#[derive(Clone, Debug)]
pub(crate) struct GuestSetup {
    /// Pages of memory and blocks of its disk.
    pub(crate) pages: u64,
    /// The last so many of them are the disk; a guest without them cannot wait for them.
    pub(crate) disk: u64,
    pub(crate) vcpus: Vec<Habit>,
    /// Between two steps of a vCPU at full speed.
    pub(crate) interval: Span,
    /// Each vCPU makes this many steps at each side, and then rests; a guest that never rests may never be migrated.
    pub(crate) steps_per_side: u64,
}

/// A guest and where it is.
#[derive(Debug)]
pub(crate) struct Guest {
    setup: GuestSetup,
    position: [u64; MAX_VCPUS],
    left: [u64; MAX_VCPUS],
    /// The access that a vCPU waits to be able to make.
    pub(crate) blocked: [Option<Access>; MAX_VCPUS],
    /// The state of its CPUs: how many steps they have made.
    pub(crate) steps: u64,
    /// Where it executes, if anywhere.
    pub(crate) runs_at: Option<Side>,
    pub(crate) share: Share,
}

impl Guest {
    pub(crate) fn new(setup: GuestSetup) -> Guest {
        assert!(setup.vcpus.len() <= MAX_VCPUS);
        let left = [setup.steps_per_side; MAX_VCPUS];
        Guest {
            setup,
            position: [0; MAX_VCPUS],
            left,
            blocked: [None; MAX_VCPUS],
            steps: 0,
            runs_at: Some(Side::Source),
            share: Share::FULL,
        }
    }

    pub(crate) fn pages(&self) -> u64 {
        self.setup.pages
    }

    /// The pages of a region: to the machine, sets of the disk are sets of pages that lie behind those of memory.
    pub(crate) fn region(&self, region: Region) -> Range<u64> {
        let memory = self.setup.pages - self.setup.disk;
        match region {
            Region::Memory => 0..memory,
            Region::Disk => memory..self.setup.pages,
        }
    }

    pub(crate) fn vcpus(&self) -> usize {
        self.setup.vcpus.len()
    }

    /// Makes the vCPUs busy again.
    pub(crate) fn rouse(&mut self) {
        self.left = [self.setup.steps_per_side; MAX_VCPUS];
    }

    /// The time to the next step of a vCPU; `None` when it rests or waits for a page.
    pub(crate) fn pace(&self, vcpu: usize, choices: &mut Choices) -> Option<Span> {
        if self.left[vcpu] == 0 || self.blocked[vcpu].is_some() {
            return None;
        }
        let full = self.setup.interval.0 / 2 + choices.below(self.setup.interval.0 + 1);
        Some(Span::from_secs_f64(Span(full).as_secs_f64() / self.share.get().max(0.01)))
    }

    /// What a vCPU does next.
    pub(crate) fn next(&mut self, vcpu: usize, choices: &mut Choices) -> Access {
        self.left[vcpu] -= 1;
        let Habit { pattern, writes_percent } = self.setup.vcpus[vcpu];
        let pages = self.setup.pages;
        if choices.exhaustive() {
            return Access { page: PageIndex(choices.decide(pages)), deed: Deed::Write };
        }
        let page = match pattern {
            Pattern::Sequential => {
                self.position[vcpu] = (self.position[vcpu] + 1) % pages;
                self.position[vcpu]
            }
            Pattern::Uniform => choices.below(pages),
            Pattern::HotCold { hot } => {
                if choices.percent(90) {
                    choices.below(hot.min(pages))
                } else {
                    choices.below(pages)
                }
            }
        };
        let deed = match choices.below(100) {
            n if n >= writes_percent => Deed::Read,
            n if n < 3 => Deed::Clear,
            _ => Deed::Write,
        };
        Access { page: PageIndex(page), deed }
    }
}
