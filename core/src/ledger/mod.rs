//! The ledger: every metric of a migration, computed from three streams.
//!
//! The streams are the commands polled from a migration, the events handed to it, and the driver's [`Observation`]s. A driver
//! computes no metric itself; with [`Session`] around its migration it cannot forget to tell the ledger either. What a metric
//! means, and how it follows from the streams, is in `docs/METRICS.md`.
//!
//! Streams are folded, not stored: apart from one record per round and the optional timeline, both of which are bounded, a
//! ledger's size does not grow with the migration. In which order a driver calls: [`Ledger::event`] before the migration handles an event,
//! [`Ledger::command`] when a command is polled, [`Ledger::phase`] after either, [`Ledger::observe`] at any moment, with
//! observations of the same kind in the order of their times, and [`Ledger::finish`] once, at the end.

mod book;
mod cells;
mod metrics;
mod observation;
mod rounds;
mod session;
mod stalls;
mod switch;
mod throttle;
mod timeline;
mod traffic;
mod whole;
mod work;

#[cfg(test)]
mod tests;

pub use book::Ledger;
pub use cells::Cell;
pub use metrics::{ByteCounts, Downtime, Metrics, RoundRecord};
pub use observation::{Observation, TimelineItem, TimelinePoint};
pub use rounds::{FIRST_ROUNDS, LAST_ROUNDS};
pub use session::Session;
pub use stalls::Stalls;
pub use whole::whole;
