//! The ledger: every metric of a migration, computed from the commands, the events and the driver's observations.

mod metrics;
mod observation;

pub use metrics::{ByteCounts, Downtime, Metrics, RoundRecord};
pub use observation::{Observation, TimelineItem, TimelinePoint};
