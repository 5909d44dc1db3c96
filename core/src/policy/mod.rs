//! Policies: the small decisions inside a strategy, each pure and in a file of its own, named with its origin.

pub mod intermediaries;
pub mod order;
pub mod placement;
pub mod selection;
pub mod snapshot;
pub mod stop;
pub mod throttle;
pub mod timeout;

/// A policy as users see it listed.
#[derive(Clone, Copy, Debug)]
pub struct PolicyEntry {
    /// What users type.
    pub name: &'static str,
    /// Who published or built it.
    pub origin: &'static str,
    /// What it decides, in one line.
    pub summary: &'static str,
}
