//! Where a run's decisions come from: drawn from a seed, or prescribed so that every one of them can be tried.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A point at which a prescribed run decided: what it took, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) taken: u64,
    pub(crate) of: u64,
}

/// The source of decisions.
#[derive(Debug)]
pub(crate) enum Choices {
    /// A seeded generator.
    Drawn(Pcg64Mcg),
    /// A script for the first decisions; those after it take the first alternative. Every decision is recorded.
    Scripted { script: Vec<u64>, made: Vec<Decision> },
}

impl Choices {
    pub(crate) fn seeded(seed: u64) -> Choices {
        Choices::Drawn(Pcg64Mcg::seed_from_u64(seed))
    }

    pub(crate) fn scripted(script: Vec<u64>) -> Choices {
        Choices::Scripted { script, made: Vec::new() }
    }

    /// Whether every alternative is tried, rather than a drawn one.
    pub(crate) fn exhaustive(&self) -> bool {
        matches!(self, Choices::Scripted { .. })
    }

    /// A number below `n`, which is not a decision: 0 in prescribed runs.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        match self {
            Choices::Drawn(rng) => rng.random_range(0..n.max(1)),
            Choices::Scripted { .. } => 0,
        }
    }

    /// True in this many of a hundred cases; never in prescribed runs.
    pub(crate) fn percent(&mut self, p: u64) -> bool {
        match self {
            Choices::Drawn(_) => self.below(100) < p,
            Choices::Scripted { .. } => false,
        }
    }

    /// A decision between `of` alternatives.
    pub(crate) fn decide(&mut self, of: u64) -> u64 {
        match self {
            Choices::Drawn(_) => self.below(of),
            Choices::Scripted { script, made } => {
                let taken = if of > 1 { script.get(made.len()).copied().unwrap_or(0) } else { return 0 };
                made.push(Decision { taken, of });
                taken
            }
        }
    }
}

impl Choices {
    /// The decisions of a prescribed run so far, and whether they have come to the end of its script.
    pub(crate) fn made(&self) -> (&[Decision], bool) {
        match self {
            Choices::Drawn(_) => (&[], false),
            Choices::Scripted { script, made } => (made, made.len() >= script.len()),
        }
    }
}

/// The script that comes after the one whose decisions were these, in depth-first order; `None` after the last.
pub(crate) fn next_script(made: &[Decision]) -> Option<Vec<u64>> {
    let last = made.iter().rposition(|d| d.taken + 1 < d.of)?;
    let mut script: Vec<u64> = made[..last].iter().map(|d| d.taken).collect();
    script.push(made[last].taken + 1);
    Some(script)
}
