//! The byte harness: the third driver of the core, for its tests.
//!
//! A world with real page contents, two hosts, a guest that reads and writes, connections that delay, reorder, break and are
//! cut, and a clock that jumps from one thing to the next. Everything that a real driver must guarantee is guaranteed here by
//! the same means (see `wire` and `sender`), and what must hold is checked after every step (see `invariants`).

pub(crate) mod bugs;
pub(crate) mod channel;
pub(crate) mod choice;
pub(crate) mod coverage;
pub(crate) mod destination;
pub(crate) mod driver;
pub(crate) mod execution;
pub(crate) mod explore;
pub(crate) mod faults;
pub(crate) mod gathering;
pub(crate) mod guest;
pub(crate) mod intermediary;
pub(crate) mod invariants;
pub(crate) mod memory;
pub(crate) mod orders;
pub(crate) mod places;
pub(crate) mod scenario;
pub(crate) mod sender;
pub(crate) mod staging;
pub(crate) mod swarm;
pub(crate) mod tracker;
pub(crate) mod watch;
pub(crate) mod wire;
pub(crate) mod world;
