//! What guests do with their memory.

use livemig_core::units::{Bytes, Span};
use std::sync::Arc;

/// A guest's accesses to its memory. Rates are offered rates in pages per second over all vCPUs, at full speed.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// No accesses.
    Idle,
    /// Accesses at random, each page of the working set alike.
    Uniform {
        /// How much memory is accessed.
        working_set: Bytes,
        /// Writes.
        writes: f64,
        /// Reads.
        reads: f64,
    },
    /// Accesses in address order, again and again.
    Sequential {
        /// How much memory is accessed.
        working_set: Bytes,
        /// Writes.
        writes: f64,
        /// Reads.
        reads: f64,
    },
    /// Random accesses, many to a hot part and few to the rest of memory.
    HotCold {
        /// Size of the hot part.
        hot: Bytes,
        /// Writes to the hot part.
        hot_writes: f64,
        /// Reads of the hot part.
        hot_reads: f64,
        /// Writes to the rest.
        cold_writes: f64,
        /// Reads of the rest.
        cold_reads: f64,
    },
    /// Random accesses; the page of rank k is accessed in proportion to k^-exponent.
    Zipf {
        /// How much memory is accessed.
        working_set: Bytes,
        /// The exponent; above 0.
        exponent: f64,
        /// Writes.
        writes: f64,
        /// Reads.
        reads: f64,
    },
    /// One workload after the other; the last one stays.
    Phases(Vec<(Span, Workload)>),
    /// Dirtying as measured: distinct pages dirtied against time since collection.
    Curve {
        /// The measurement.
        curve: Arc<DirtyCurve>,
        /// Reads, over the memory that the curve reaches at most.
        reads: f64,
    },
}

/// Distinct bytes dirtied as a function of the time since collection: increasing, concave or not, constant after its last point.
#[derive(Clone, Debug, PartialEq)]
pub struct DirtyCurve {
    /// Points (seconds, distinct bytes), both increasing, the first at (0, 0).
    pub points: Vec<(f64, f64)>,
}

/// A part of memory that a workload treats alike. Regions lie one behind the other in address order, from address 0; what they
/// leave of memory is not accessed.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Its size.
    pub bytes: Bytes,
    /// Pages written per second, offered.
    pub writes: f64,
    /// Pages read per second, offered.
    pub reads: f64,
    /// How accesses fall.
    pub pattern: Pattern,
}

/// How accesses fall on the pages of a region.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// At random, each page alike.
    Random,
    /// In address order, again and again.
    Sweep,
    /// So that the distinct pages written follow a measured curve.
    Curve(Arc<DirtyCurve>),
}
